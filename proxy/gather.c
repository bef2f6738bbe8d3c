#include "proxy/gather.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/clock.h"
#include "proxy/link.h"
#include "proxy/session_internal.h"

#define ROOM_FOR_NEWCOMERS 16 /* sessions that begin while the mail is under way */

struct gather {
    struct mailbox *home;
    void (*done)(void *who, const struct roster *roster);
    void *who;
    uint32_t n_parts, outstanding;
    struct gather_part *parts;
};

/* --- on a worker --- */

static void copy(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from ? from : "");
}

static const char *state_of(const struct session *s)
{
    if (s->prelude)
        return "arriving";
    if (s->closing)
        return "closing";
    if (s->errand && s->errand->waiter)
        return "waiting";
    if (smtp_dialog_in_body(&s->dialog))
        return "data";
    switch (smtp_dialog_client_state(&s->dialog)) {
    case SMTP_CLIENT_GREETING:
    case SMTP_CLIENT_TLS:
    case SMTP_CLIENT_HELO: return "greeting";
    case SMTP_CLIENT_READY: return "idle";
    case SMTP_CLIENT_AUTH: return "auth";
    case SMTP_CLIENT_MAIL:
    case SMTP_CLIENT_RCPT:
    case SMTP_CLIENT_DATA:
    case SMTP_CLIENT_BODY:
    case SMTP_CLIENT_FAILED: return "mail";
    case SMTP_CLIENT_CLOSING: break;
    }
    return "closing";
}

static void describe(const struct session *s, struct roster_session *out)
{
    struct link *link = session_link(s);
    struct tls_description tls;

    out->id = s->id;
    out->began = s->began;
    (void)peer_format(&s->peer, true, out->client);
    copy(out->listener, sizeof out->listener, s->listener->config->name);
    copy(out->pool, sizeof out->pool, errand_pool(s)->config->name);
    copy(out->backend, sizeof out->backend, link ? backend_name(link->place.member->backend) : NULL);
    copy(out->helo, sizeof out->helo, s->dialog.helo);
    copy(out->user, sizeof out->user, s->dialog.user ? s->dialog.user : s->login);
    out->state = state_of(s);
    out->tls = stream_tls(&s->client, &tls) ? tls.version : NULL;
    out->transactions = s->dialog.transactions;
    out->bytes_in = s->bytes_in;
    out->bytes_out = s->bytes_out;
}

void gather_answer(struct gather_part *part, const struct worker *worker)
{
    part->total = atomic_load_explicit(&worker->stats.sessions_active, memory_order_relaxed);
    for (const struct session *s = worker->sessions; s && part->n < part->room; s = s->next)
        describe(s, &part->sessions[part->n++]);
    mailbox_post(part->gather->home, &part->mail);
}

/* --- at home --- */

static void gather_free(struct gather *gather)
{
    for (uint32_t i = 0; gather->parts && i < gather->n_parts; i++)
        free(gather->parts[i].sessions);
    free(gather->parts);
    free(gather);
}

static int newest_first(const void *a, const void *b)
{
    const struct roster_session *one = *(const struct roster_session *const *)a,
                                *other = *(const struct roster_session *const *)b;

    return (other->began > one->began) - (other->began < one->began);
}

static void conclude(struct gather *gather)
{
    struct roster roster = { .now = clock_milliseconds() };
    size_t n = 0;

    for (uint32_t i = 0; i < gather->n_parts; i++)
        n += gather->parts[i].n;
    roster.sessions = malloc((n ? n : 1) * sizeof(const struct roster_session *));
    for (uint32_t i = 0; i < gather->n_parts; i++) {
        const struct gather_part *part = &gather->parts[i];

        roster.total += part->total;
        for (size_t k = 0; roster.sessions && k < part->n; k++)
            roster.sessions[roster.n++] = &part->sessions[k];
    }
    if (roster.n)
        qsort(roster.sessions, roster.n, sizeof(const struct roster_session *), newest_first);
    if (roster.n > ROSTER_MAX)
        roster.n = ROSTER_MAX;
    gather->done(gather->who, &roster);
    free(roster.sessions);
    gather_free(gather);
}

static void on_part(struct mail *mail, void *owner)
{
    struct gather *gather = ((struct gather_part *)mail)->gather;

    (void)owner;
    if (--gather->outstanding == 0)
        conclude(gather);
}

static bool prepare(struct gather_part *part, struct gather *gather, const struct worker *worker)
{
    size_t active = atomic_load_explicit(&worker->stats.sessions_active, memory_order_relaxed);

    part->mail.deliver = on_part;
    part->gather = gather;
    part->room = active + ROOM_FOR_NEWCOMERS < ROSTER_MAX ? active + ROOM_FOR_NEWCOMERS : ROSTER_MAX;
    part->sessions = malloc(part->room * sizeof *part->sessions);
    return part->sessions != NULL;
}

bool gather_begin(struct worker *const *workers, uint32_t n_workers, struct mailbox *home,
                  void (*done)(void *who, const struct roster *roster), void *who)
{
    struct gather *gather = calloc(1, sizeof *gather);

    if (!gather)
        return false;
    *gather = (struct gather){
        .home = home, .done = done, .who = who, .n_parts = n_workers, .outstanding = n_workers
    };
    gather->parts = calloc(n_workers, sizeof *gather->parts);
    for (uint32_t i = 0; gather->parts && i < n_workers; i++) {
        if (!prepare(&gather->parts[i], gather, workers[i])) {
            gather_free(gather);
            return false;
        }
    }
    if (!gather->parts) {
        gather_free(gather);
        return false;
    }
    for (uint32_t i = 0; i < n_workers; i++)
        worker_tell_sessions(workers[i], &gather->parts[i]);
    return true;
}
