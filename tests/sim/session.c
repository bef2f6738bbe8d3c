/*
 * A session: what proxy/errand.c does for one, with a simulated relay at the other end.
 *
 *   ask ──▶ placed ──▶ connect ──▶ greeted ──▶ MAIL ──▶ RCPT ──▶ message ──▶ over
 *    │         ▲          │ 421, or no banner in time: another relay, as often as the product tries
 *    │ wait ───┘          ▼
 *    └──▶ refused        lost
 */
#include <stdlib.h>

#include "tests/sim/workload.h"
#include "tests/sim/world.h"

struct session {
    struct guest guest; /* first */
    struct job job;
    struct event patience; /* in the queue, or for the banner */
    struct session *next, *previous;
    struct proxy *proxy;
    struct placement_wish wish;
    struct waiter *waiter;
    struct place place;
    struct relay *relay; /* of the place */
    bool connected, retries;
    enum stage stage;
    double work[STAGES];
    double asked, placed, sent; /* the command under way */
};

static void on_place(struct session *s, struct place place);

/* --- the end of it ----------------------------------------------------------------------------------------
 */

static void end_retry(struct session *s)
{
    if (s->retries)
        placement_retry_end();
    s->retries = false;
}

static void session_free(struct session *s)
{
    struct world *world = s->proxy->world;

    calendar_cancel(&s->patience);
    end_retry(s);
    if (s->next)
        s->next->previous = s->previous;
    if (s->previous)
        s->previous->next = s->next;
    else
        world->sessions = s->next;
    for (unsigned i = 0; i < s->wish.n_tried; i++)
        backend_release(&s->wish.tried[i]);
    free(s);
}

/* Off the relay, and the place given back. */
static void leave(struct session *s)
{
    if (!s->place.member)
        return;
    relay_drop(s->relay, &s->job);
    if (s->connected)
        relay_disconnect(s->relay, &s->guest);
    s->connected = false;
    relay_leave(s->relay);
    placement_return(&s->place, calendar_milliseconds());
}

void sessions_abort(struct world *world, const struct proxy *proxy)
{
    struct session *next;

    for (struct session *s = world->sessions; s; s = s->next)
        if (!proxy || s->proxy == proxy)
            waiter_leave(&s->waiter);
    for (struct session *s = world->sessions; s; s = next) {
        next = s->next;
        if (proxy && s->proxy != proxy)
            continue;
        leave(s);
        session_free(s);
    }
}

/* --- what is remembered -----------------------------------------------------------------------------------
 */

static bool is_measured(const struct session *s)
{
    return s->asked >= s->proxy->world->start && s->asked < s->proxy->world->end;
}

/* Seconds since measuring began. */
static double since(const struct session *s, double at)
{
    return at - s->proxy->world->start;
}

static bool in_trouble(const struct session *s, double began, double ended)
{
    const struct scenario *scenario = s->proxy->world->scenario;
    double until = scenario->until > 0 ? scenario->until : scenario->seconds;

    return since(s, ended) > scenario->from && since(s, began) < until;
}

static void remember(struct session *s)
{
    struct world *world = s->proxy->world;
    struct result *result = world->result;
    double took = calendar_now() - s->placed, alone = 0;

    for (int i = 0; i < STAGES; i++)
        alone += s->work[i];
    if (!in_trouble(s, s->placed, calendar_now()))
        return;
    spread_add(&result->slowdown, took / alone);
    if (s->relay != world_last(world))
        return;
    spread_add(&result->there, took / alone);
    spread_add(&result->took, took);
    spread_add(&result->alone, alone);
    if (since(s, s->placed) >= world->scenario->from)
        spread_add(&result->newcomers, took / alone);
}

static void refused(struct session *s)
{
    if (is_measured(s))
        s->proxy->world->result->refused++;
    session_free(s);
}

static void lost(struct session *s)
{
    if (is_measured(s))
        s->proxy->world->result->lost++;
    session_free(s);
}

/* --- getting a place --------------------------------------------------------------------------------------
 */

static void on_settled(void *arg, enum placement_verdict verdict, struct place place)
{
    struct session *s = arg;

    s->waiter = NULL;
    calendar_cancel(&s->patience);
    if (verdict == PLACEMENT_GRANTED)
        on_place(s, place);
    else
        refused(s);
}

static void on_queue_timeout(struct event *event)
{
    struct session *s = CALENDAR_OF(event, struct session, patience);

    waiter_leave(&s->waiter);
    refused(s);
}

static void ask(struct session *s)
{
    struct proxy *proxy = s->proxy;
    struct place place;

    switch (placement_request(&s->wish, &proxy->random, calendar_milliseconds(), &proxy->mailbox, on_settled,
                              s, &place, &s->waiter)) {
    case PLACEMENT_GRANTED: on_place(s, place); break;
    case PLACEMENT_WAITING:
        s->patience.happen = on_queue_timeout;
        calendar_set(&s->patience,
                     calendar_now() + waiter_patience(s->waiter, proxy->pool->config->queue_timeout) / 1000.);
        break;
    case PLACEMENT_NO_BACKEND:
    case PLACEMENT_NOT_CAPABLE:
    case PLACEMENT_QUEUE_FULL:
    case PLACEMENT_DISPLACED: refused(s); break;
    }
}

/* It was lost before anything was answered: another one. */
static void ask_again(struct session *s)
{
    leave(s);
    if (s->wish.n_tried >= PLACEMENT_TRIES) {
        lost(s);
        return;
    }
    if (!s->retries && !placement_retry_begin()) {
        lost(s);
        return;
    }
    s->retries = true;
    ask(s);
}

/* --- on the relay -----------------------------------------------------------------------------------------
 */

static struct backend *backend_of(const struct session *s)
{
    return s->place.member->backend;
}

static void say(struct session *s, enum stage stage)
{
    s->stage = stage;
    s->sent = calendar_now();
    relay_work(s->relay, &s->job, s->work[stage]);
}

static void report_reply(const struct session *s, int code)
{
    static const enum smtp_verb verbs[] = { SMTP_VERB_MAIL, SMTP_VERB_RCPT, SMTP_VERB_DATA };
    uint32_t took = (uint32_t)((calendar_now() - s->sent) * 1000 + 0.5);
    struct health_reply reply = { .verb = verbs[s->stage],
                                  .final = s->stage == STAGE_MESSAGE,
                                  .code = code,
                                  .status_class = (uint8_t)(code / 100),
                                  .subject = code == 550 ? 7 : 0,
                                  .took = took };

    if (s->stage == STAGE_MAIL)
        algorithm_observe(backend_of(s), took, calendar_milliseconds());
    if (s->stage != STAGE_RCPT)
        health_report(backend_of(s), HEALTH_GOOD, calendar_milliseconds());
    if (s->stage == STAGE_MAIL)
        health_report_session(backend_of(s), 0, false);
    health_report_reply(backend_of(s), 0, &reply);
}

static void on_reply(struct job *job)
{
    struct session *s = CALENDAR_OF(job, struct session, job);

    switch (s->stage) {
    case STAGE_MAIL:
        report_reply(s, 250);
        say(s, STAGE_RCPT);
        break;
    case STAGE_RCPT:
        report_reply(s, 250);
        say(s, STAGE_MESSAGE);
        break;
    case STAGE_MESSAGE:
        report_reply(s, s->relay->mood == RELAY_REFUSES_MAIL ? 550 : 250);
        remember(s);
        leave(s);
        session_free(s);
        break;
    }
}

static void told_busy(struct session *s)
{
    health_report(backend_of(s), HEALTH_LOAD, calendar_milliseconds());
    ask_again(s);
}

static void on_greeted(struct guest *guest)
{
    struct session *s = (struct session *)guest;

    calendar_cancel(&s->patience);
    end_retry(s);
    if (s->relay->mood == RELAY_BUSY_ENVELOPE)
        told_busy(s);
    else
        say(s, STAGE_MAIL);
}

/* As errand.c judges it: a full relay, or a broken one. */
static void on_banner_timeout(struct event *event)
{
    struct session *s = CALENDAR_OF(event, struct session, patience);
    struct backend *backend = backend_of(s);
    uint64_t ceiling = atomic_load(&backend->ceiling), taken = atomic_load(&backend->connections);

    if ((ceiling != BACKEND_NO_CEILING && taken * 10 >= ceiling * 8) || health_at_work(backend)) {
        health_report(backend, HEALTH_LOAD, calendar_milliseconds());
    } else {
        health_report_session(backend, 0, true);
        health_report(backend, HEALTH_HARD, calendar_milliseconds());
    }
    ask_again(s);
}

static void count_attempt(const struct session *s)
{
    struct world *world = s->proxy->world;

    s->relay->attempts++;
    if (s->relay != world_last(world) || !in_trouble(s, calendar_now(), calendar_now()))
        return;
    world->result->attempts++;
    if (!s->proxy->judged)
        world->result->attempts_unjudged++;
}

static struct relay *relay_of(const struct proxy *proxy, const struct member *member)
{
    size_t i = 0;

    while (proxy->pool->members[i] != member)
        i++;
    return &proxy->world->relays[i];
}

static void on_place(struct session *s, struct place place)
{
    s->place = place;
    s->relay = relay_of(s->proxy, place.member);
    s->proxy->world->result->over_cap += relay_enter(s->relay);
    s->wish.tried[s->wish.n_tried++] = backend_hold(place.member->backend);
    s->placed = calendar_now();
    histogram_add(&s->proxy->pool->state->stats[0].queue_wait, (uint32_t)((s->placed - s->asked) * 1000));
    count_attempt(s);
    if (s->wish.n_tried == 1 && is_measured(s))
        spread_add(&s->proxy->world->result->wait, s->placed - s->asked);
    if (s->relay->mood == RELAY_BUSY) {
        told_busy(s);
        return;
    }
    s->connected = true;
    s->guest.greeted = on_greeted;
    s->patience.happen = on_banner_timeout;
    calendar_set(&s->patience, calendar_now() + s->proxy->pool->config->connect_timeout / 1000.);
    relay_connect(s->relay, &s->guest);
}

void session_begin(struct proxy *proxy, const double work[STAGES], uint64_t client)
{
    struct world *world = proxy->world;
    struct session *s = calloc(1, sizeof *s);

    if (!s)
        abort();
    s->proxy = proxy;
    s->job.done = on_reply;
    s->asked = calendar_now();
    for (int i = 0; i < STAGES; i++)
        s->work[i] = work[i];
    s->wish = (struct placement_wish){
        .farm = proxy->farm, .pool = proxy->pool, .hash_key = client, .client = client
    };
    s->next = world->sessions;
    if (s->next)
        s->next->previous = s;
    world->sessions = s;
    if (is_measured(s))
        world->result->sessions++;
    ask(s);
}
