/*
 * The limits that a session is under: the rules of the worker's present front, as with routes (aim.c).
 *
 *      dialog ── MAIL, RCPT ──▶ gate ──▶ each rule of the listener: whose token? ──▶ counters/rate
 *                                            ├── one refuses: the others get theirs back, 450
 *                                            └── no backend can be had for it: all get theirs back
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/record.h"
#include "proxy/session_internal.h"

/* Whose token a rule asks for. size 0: of nobody, and the rule is silent. */
struct whose {
    const char *text;
    size_t size;
};

struct sender {
    size_t size;
    char domain[RATE_WHO_MAX];
};

/* By whom a client is counted: its address, or its network. */
static struct whose client_of(const struct session *s, char text[ADDRESS_TEXT_MAX])
{
    peer_format_client(&s->peer, text);
    return (struct whose){ text, strlen(text) };
}

static struct whose user_of(const struct session *s)
{
    const char *name = s->dialog.user ? s->dialog.user : s->login;

    return (struct whose){ name, name ? strlen(name) : 0 };
}

static struct whose whose(const struct session *s, enum config_limit_by by, char text[ADDRESS_TEXT_MAX])
{
    switch (by) {
    case CONFIG_LIMIT_CLIENT: return client_of(s, text);
    case CONFIG_LIMIT_USER: return user_of(s);
    case CONFIG_LIMIT_SENDER_DOMAIN: break;
    }
    if (!s->sender)
        return (struct whose){ NULL, 0 };
    return (struct whose){ s->sender->domain, s->sender->size };
}

static void tell(const struct session *s, const struct rate *rate, enum rate_what what,
                 const struct whose *who, const struct rate_refusal *refusal)
{
    struct log_record r;

    if (!log_begin(&r, LOG_LEVEL_WARNING, "limit"))
        return;
    log_plain(&r, "rule", rate_name(rate));
    log_plain(&r, "what", rate_what_name(what));
    log_text(&r, "who", who->text, who->size);
    log_number(&r, "wait_ms", refusal->wait);
    log_number(&r, "refused", refusal->since);
    record_add_session(&r, s);
    log_end(&r);
}

/* A token of each of the first `n` rules, but for those that are newer than `newest`. */
static void give_back(const struct session *s, size_t n, uint64_t newest, enum rate_what what)
{
    const struct limits *limits = &aim_listener(s)->limits;
    char text[ADDRESS_TEXT_MAX];

    for (size_t i = 0; i < n; i++) {
        const struct limit *limit = &limits->rules[i];
        struct whose who = whose(s, limit->by, text);

        if (who.size && rate_limits(limit->rate, what) && rate_serial(limit->rate) <= newest)
            rate_give_back(limit->rate, what, who.text, who.size, s->worker->now);
    }
}

/* One token of each rule, or none. 0, or ms to wait. */
static uint32_t take(const struct session *s, enum rate_what what)
{
    const struct limits *limits = &aim_listener(s)->limits;
    char text[ADDRESS_TEXT_MAX];

    for (size_t i = 0; i < limits->n; i++) {
        const struct limit *limit = &limits->rules[i];
        struct whose who = whose(s, limit->by, text);
        struct rate_refusal refusal;

        if (!who.size || !rate_limits(limit->rate, what) ||
            rate_take(limit->rate, what, who.text, who.size, s->worker->now, &refusal))
            continue;
        if (refusal.tell)
            tell(s, limit->rate, what, &who, &refusal);
        give_back(s, i, UINT64_MAX, what);
        return refusal.wait;
    }
    return 0;
}

/* The domain in lower case. It is kept for the recipients, in memory that the session has from its first such
 * message on. Of one that is too long the end counts. */
static void note_sender(struct session *s, struct smtp_span domain)
{
    size_t more = domain.size > RATE_WHO_MAX ? domain.size - RATE_WHO_MAX : 0;

    if (!s->sender)
        s->sender = malloc(sizeof *s->sender);
    if (!s->sender)
        return; /* then this rule is silent: a limit is not worth mail */
    s->sender->size = domain.size - more;
    for (size_t i = 0; i < s->sender->size; i++)
        s->sender->domain[i] = (char)tolower((unsigned char)domain.data[more + i]);
}

static uint64_t newest_of(const struct limits *limits)
{
    uint64_t newest = 0;

    for (size_t i = 0; i < limits->n; i++)
        if (rate_serial(limits->rules[i].rate) > newest)
            newest = rate_serial(limits->rules[i].rate);
    return newest;
}

static uint32_t on_message(void *arg, struct smtp_span domain)
{
    struct session *s = arg;

    if (aim_listener(s)->limits.by_sender)
        note_sender(s, domain);
    s->newest_limit = newest_of(&aim_listener(s)->limits);
    return take(s, RATE_MESSAGES);
}

static uint32_t on_recipient(void *arg)
{
    return take(arg, RATE_RECIPIENTS);
}

/* A reload may have made rules since that it was never asked for. */
static void on_take_back(void *arg, unsigned recipients)
{
    const struct session *s = arg;
    const struct limits *limits = &aim_listener(s)->limits;

    give_back(s, limits->n, s->newest_limit, RATE_MESSAGES);
    while (recipients--)
        give_back(s, limits->n, s->newest_limit, RATE_RECIPIENTS);
}

void session_follow_limits(struct session *s)
{
    bool limited = !s->prelude && aim_listener(s)->limits.n;

    s->gate = (struct smtp_gate){ on_message, on_recipient, on_take_back, s };
    if (!s->prelude)
        smtp_dialog_limit(&s->dialog, limited ? &s->gate : NULL);
}
