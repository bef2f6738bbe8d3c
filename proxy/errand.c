/*
 * A session's errands to backends.
 *
 *   NEED_BACKEND ──▶ place asked for ──▶ granted ──▶ link opened ──▶ (the dialog greets it) ──▶ commands
 *                         │    ▲                         │
 *                         ▼    │ none usable: 421        ▼ refused, or lost before anything was answered
 *                       waiting in the pool's queue     the next backend, at most two others
 *
 * The next backend is tried when the session's turn has come (retry.c): of those that do so at a time there
 * are few.
 *
 * A place is held by the link from before its connect until its socket is closed, and given back there and
 * nowhere else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "balancer/algorithm.h"
#include "health/health.h"
#include "net/hash.h"
#include "proxy/link.h"
#include "proxy/record.h"
#include "proxy/session_internal.h"

static const char no_backend[] = "421 4.3.2 No relay is available, please try again later\r\n";
static const char not_capable[] =
    "451 4.3.5 No relay at hand can carry this message, please try again later\r\n";

static void try_backends(struct session *s);

static void answer(struct session *s, struct smtp_event event)
{
    s->answer = event;
    s->has_answer = true;
}

static void answer_refused(struct session *s, const char *reply)
{
    answer(s, (struct smtp_event){ .kind = SMTP_EVENT_BACKEND_REFUSED, .reply = reply });
}

/* The next wish is another: all backends may be tried for it. */
static void start_anew(struct errand *e)
{
    while (e->wish.n_tried)
        backend_release(&e->wish.tried[--e->wish.n_tried]);
    e->attempts = 0;
    e->began = 0;
    e->refused = false;
}

static enum smtp_loss loss_of(const struct session *s, ssize_t n)
{
    if (n == -ETIMEDOUT)
        return SMTP_LOSS_TIMEOUT;
    if (n == -EPROTO || (n == -ECONNRESET && session_link(s)->handshaking))
        return SMTP_LOSS_TLS;
    if (n < 0 && smtp_dialog_backend_state(&s->dialog) == SMTP_BACKEND_BANNER)
        return SMTP_LOSS_REFUSED;
    return SMTP_LOSS_CLOSED;
}

static void handshake_ended(struct session *s)
{
    struct link *link = s->errand->link;

    if (link->handshaking)
        record_backend_handshake(s);
    link->handshaking = false;
}

static void on_backend(struct stream *stream, enum stream_event event)
{
    struct session *s = ((struct link *)stream)->session;
    ssize_t n;

    s->dialog.tick = (uint32_t)s->worker->now;
    if (event == STREAM_SECURED) {
        handshake_ended(s);
        smtp_dialog_event(&s->dialog, &(struct smtp_event){ .kind = SMTP_EVENT_BACKEND_SECURED });
    } else if (event == STREAM_READABLE) {
        n = session_read(s, stream, &s->reply_input, REPLY_READ);
        if (n == -EAGAIN)
            return;
        if (n <= 0) {
            struct smtp_event lost = { .kind = SMTP_EVENT_BACKEND_LOST, .loss = loss_of(s, n) };
            smtp_dialog_event(&s->dialog, &lost);
        }
    }
    session_conclude(s);
}

/* --- connecting --- */

static void forget_input(struct session *s)
{
    free(s->reply_input.kept);
    s->reply_input = (struct input){ 0 };
}

static const char *tls_name(const struct farm *farm, const struct config_pool *pool,
                            const struct backend *backend)
{
    for (size_t i = 0; i < pool->n_backends; i++) {
        const struct config_backend *configured = &farm->config->backends[pool->backends[i]];

        if (strcmp(configured->name, backend->configured_name) == 0)
            return config_backend_tls_name(configured);
    }
    return ""; /* it was taken out just now; nothing is verified against an empty name */
}

static enum smtp_introduction introduction(enum config_identity identity)
{
    switch (identity) {
    case CONFIG_IDENTITY_NONE: break;
    case CONFIG_IDENTITY_PROXY_V1:
    case CONFIG_IDENTITY_PROXY_V2: return SMTP_INTRODUCE_PROXY;
    case CONFIG_IDENTITY_XCLIENT: return SMTP_INTRODUCE_XCLIENT;
    case CONFIG_IDENTITY_XFORWARD: return SMTP_INTRODUCE_XFORWARD;
    }
    return SMTP_INTRODUCE_NOT;
}

static enum smtp_backend_tls backend_tls(enum config_pool_tls tls)
{
    switch (tls) {
    case CONFIG_POOL_TLS_OFF: break;
    case CONFIG_POOL_TLS_OPPORTUNISTIC: return SMTP_BACKEND_TLS_OPPORTUNISTIC;
    case CONFIG_POOL_TLS_REQUIRE:
    case CONFIG_POOL_TLS_VERIFY: return SMTP_BACKEND_TLS_REQUIRED;
    case CONFIG_POOL_TLS_IMPLICIT:
    case CONFIG_POOL_TLS_IMPLICIT_VERIFY: return SMTP_BACKEND_TLS_IMPLICIT;
    }
    return SMTP_BACKEND_TLS_OFF;
}

/* In the words of XCLIENT. A Unix socket has no address to tell. */
static void describe_client(struct session *s)
{
    struct smtp_identity *identity = &s->errand->identity;
    char text[ADDRESS_TEXT_MAX];

    memset(identity, 0, sizeof *identity);
    if (!s->nameless && s->peer.family != AF_UNIX) {
        peer_format(&s->peer, false, text);
        memcpy(identity->address, text, strnlen(text, sizeof identity->address - 1));
        identity->ipv6 = s->peer.family == AF_INET6;
        identity->port = s->peer.port;
    }
    identity->login = s->login;
}

static const struct peer nobody; /* what stands in front of us is not the client */

/* What the member's pool wants said and done on a connection to it; the dialog is told too. */
static struct link_target target_of(struct session *s, const struct member *member,
                                    struct tls_description *client_tls)
{
    size_t index;
    const struct farm *farm = aim_farm(s, &index);
    const struct config_pool *pool = farm->pools[index].config;
    enum smtp_backend_tls tls = backend_tls(pool->tls);
    bool header = introduction(pool->identity) == SMTP_INTRODUCE_PROXY;

    describe_client(s);
    smtp_dialog_introduce(&s->dialog, introduction(pool->identity), &s->errand->identity);
    smtp_dialog_secure_backends(&s->dialog, tls);
    return (struct link_target){
        .source = &pool->source,
        .identity = pool->identity,
        .client = s->nameless ? &nobody : &s->peer,
        .local = header ? session_local(s) : NULL,
        .client_tls = header && stream_tls(&s->client, client_tls) ? client_tls : NULL,
        .tls = tls == SMTP_BACKEND_TLS_IMPLICIT ? pool->tls_client : NULL,
        .tls_name = tls == SMTP_BACKEND_TLS_OFF ? "" : tls_name(farm, pool, member->backend),
        .secrets = s->listener->config->auth == CONFIG_AUTH_RELAY,
    };
}

/* True if a connect has begun and the dialog will be told; false: the next one, please. Consumes the place.
 */
static bool connect_to(struct session *s, struct place place)
{
    struct errand *e = s->errand;
    struct member *member = place.member;
    struct tls_description client_tls;
    struct link_target target = target_of(s, member, &client_tls);
    int error;

    e->wish.tried[e->wish.n_tried++] = backend_hold(member->backend);
    e->attempts++;
    member_release(&e->member);
    e->member = member_hold(member);
    e->link = link_open(s->worker, s, place, &target, on_backend, &error);
    if (e->link) {
        e->linked = e->link->began;
        answer(s,
               (struct smtp_event){ .kind = SMTP_EVENT_BACKEND_ASSIGNED, .may_have_secrets = e->link->near });
        return true;
    }
    if (stream_own_fault(error)) {
        answer_refused(s, no_backend);
        placement_return(&place, s->worker->now);
        return true;
    }
    health_report(member->backend, HEALTH_REFUSED, s->worker->now);
    placement_return(&place, s->worker->now);
    return false;
}

void errand_reconnect(struct session *s)
{
    struct errand *e = s->errand;
    struct tls_description client_tls;
    struct link_target target = target_of(s, e->member, &client_tls);

    forget_input(s);
    handshake_ended(s);
    if (link_reconnect(e->link, &target, on_backend) != 0)
        answer(s, (struct smtp_event){ .kind = SMTP_EVENT_BACKEND_LOST, .loss = SMTP_LOSS_REFUSED });
}

void errand_secure(struct session *s)
{
    struct errand *e = s->errand;
    size_t index;
    const struct farm *farm = aim_farm(s, &index);
    const struct config_pool *pool = farm->pools[index].config;

    /* A reload in this very moment may have turned TLS off. */
    if (!pool->tls_client ||
        link_secure(e->link, pool->tls_client, tls_name(farm, pool, e->member->backend)) != 0)
        answer(s, (struct smtp_event){ .kind = SMTP_EVENT_BACKEND_LOST, .loss = SMTP_LOSS_NONE });
}

static void count_refusal(const struct session *s, enum queue_refusal reason)
{
    stat_add(&errand_pool(s)->state->stats[s->worker->index].queue_refused[reason], 1);
}

static void refused(struct session *s, enum placement_verdict verdict)
{
    if (verdict == PLACEMENT_QUEUE_FULL)
        count_refusal(s, QUEUE_REFUSED_FULL);
    else if (verdict == PLACEMENT_DISPLACED)
        count_refusal(s, QUEUE_REFUSED_DISPLACED);
    retry_end(s);
    s->errand->refused = true;
    answer_refused(s, verdict == PLACEMENT_NOT_CAPABLE ? not_capable : no_backend);
}

/* It has a place, or gives up: what it waited for one counts, in the queue and for its turn to retry. */
static void waited(struct session *s)
{
    struct errand *e = s->errand;
    uint32_t wait = (uint32_t)(s->worker->now - e->asked);

    e->asked = s->worker->now;
    e->queue_ms += wait;
    histogram_add(&errand_pool(s)->state->stats[s->worker->index].queue_wait, wait);
}

static void deliver(void *session, enum placement_verdict verdict, struct place place)
{
    struct session *s = session;
    struct errand *e = s->errand;

    s->dialog.tick = (uint32_t)s->worker->now;
    e->waiter = NULL;
    waited(s);
    if (verdict != PLACEMENT_GRANTED) {
        refused(s, verdict);
    } else {
        if (e->attempts > 0)
            retry_granted(s);
        if (!connect_to(s, place))
            try_backends(s);
    }
    session_conclude(s);
}

void errand_again(struct session *s)
{
    s->dialog.tick = (uint32_t)s->worker->now;
    try_backends(s);
    session_conclude(s);
}

static void try_backends(struct session *s)
{
    struct errand *e = s->errand;
    struct worker *worker = s->worker;
    struct place place;
    enum placement_verdict verdict;
    size_t index;

    do {
        if (e->attempts == PLACEMENT_TRIES) {
            refused(s, PLACEMENT_NO_BACKEND);
            return;
        }
        if (e->attempts > 0 && !retry_begin(s))
            return;
        e->wish.farm = aim_farm(s, &index);
        e->wish.pool = &e->wish.farm->pools[index];
        verdict = placement_request(&e->wish, &worker->random, worker->now, &worker->mailbox, deliver, s,
                                    &place, &e->waiter);
        if (verdict == PLACEMENT_WAITING) {
            retry_end(s); /* it burdens nobody meanwhile */
            return;
        }
        if (verdict != PLACEMENT_GRANTED) {
            if (e->asked != worker->now) /* in the line */
                waited(s);
            refused(s, verdict);
            return;
        }
        waited(s);
    } while (!connect_to(s, place));
}

/* For `hash`, which sends a client the same way from every instance. */
static uint64_t client_hash(const struct peer *peer)
{
    uint8_t key[17];
    uint64_t hash = UINT64_C(14695981039346656037);

    peer_client_key(peer, key);
    for (size_t i = 0; i < sizeof key; i++)
        hash = (hash ^ key[i]) * UINT64_C(1099511628211);
    return hash;
}

/* To whom the queue is fair: the user, if there is one, for many of them may come from one address. */
static uint64_t client_secretly(const struct session *s)
{
    const char *user = s->dialog.user ? s->dialog.user : s->login;
    uint8_t key[17];

    if (user)
        return hash_secretly(user, strlen(user));
    peer_client_key(&s->peer, key);
    return hash_secretly(key, sizeof key);
}

void errand_begin(struct session *s, const struct smtp_action_arg *arg)
{
    struct errand *e = s->errand;

    if (!e) {
        e = s->errand = calloc(1, sizeof *e);
        if (!e) {
            answer_refused(s, no_backend);
            return;
        }
        e->pool = s->listener->pool;
        e->wish.priority = (uint8_t)s->listener->config->priority;
    }
    if (e->refused) /* behind AUTH, which is no transaction that ends */
        start_anew(e);
    if (!e->began)
        e->began = s->worker->now;
    e->wish.needs = arg->need.needs;
    e->wish.size = arg->need.size;
    e->wish.client = client_secretly(s);
    e->wish.hash_key = client_hash(&s->peer); /* XCLIENT may have named another */
    aim_take(s, arg);
    e->asked = s->worker->now;
    try_backends(s);
}

/* --- what becomes of a link --- */

static struct member_stats *stats(const struct session *s)
{
    return &s->errand->member->stats[s->worker->index];
}

void errand_route(struct session *s, const struct smtp_action_arg *arg)
{
    answer(s, (struct smtp_event){ .kind = aim_fits(s, arg) ? SMTP_EVENT_BACKEND_KEEP
                                                            : SMTP_EVENT_BACKEND_LEAVE });
}

void errand_greeted(struct session *s, const struct smtp_capabilities *capabilities)
{
    struct errand *e = s->errand;
    struct backend *backend = e->member->backend;
    enum backend_admin admin;

    e->connect_ms += (uint32_t)(s->worker->now - e->link->began);
    histogram_add(&stats(s)->replies[PHASE_CONNECT], (uint32_t)(s->worker->now - e->link->began));
    retry_end(s);
    health_report_capabilities(backend, capabilities);
    /* The order to leave it may have come while the connection was being made. */
    admin = (enum backend_admin)atomic_load_explicit(&backend->admin, memory_order_relaxed);
    if (admin != BACKEND_READY)
        answer(s, (struct smtp_event){ .kind = SMTP_EVENT_BACKEND_LEAVE, .must = admin == BACKEND_MAINT });
}

static enum reply_phase phase_of(const struct smtp_action_arg *arg)
{
    if (arg->replied.final)
        return PHASE_END;
    if (arg->replied.verb == SMTP_VERB_MAIL)
        return PHASE_MAIL;
    return arg->replied.verb == SMTP_VERB_RCPT ? PHASE_RCPT : PHASE_DATA;
}

void errand_replied(struct session *s, const struct smtp_action_arg *arg)
{
    struct errand *e = s->errand;
    uint32_t took = s->dialog.tick - arg->replied.sent;
    enum reply_phase phase = phase_of(arg);
    bool slowed;

    if (arg->replied.verb == SMTP_VERB_AUTH) {
        /* The exchange is over, well or not: the backend is had, and the first transaction begins with MAIL.
         */
        if (arg->replied.final)
            start_anew(e);
        return;
    }
    if (arg->replied.verb == SMTP_VERB_RSET || arg->replied.verb == SMTP_VERB_XFORWARD)
        return;
    slowed = signs_slowed(e->link, arg);
    if (!e->began)
        e->began = s->worker->now - took;
    histogram_add(&stats(s)->replies[phase], took);
    switch (phase) {
    case PHASE_CONNECT: break;
    case PHASE_MAIL:
        e->mail_ms = took;
        if (!slowed)
            algorithm_observe(e->member->backend, took, s->worker->now);
        break;
    case PHASE_RCPT:
        if (took > e->rcpt_ms)
            e->rcpt_ms = took; /* the slowest; pipelined ones overlap */
        break;
    case PHASE_DATA: e->data_ms += took; break;
    case PHASE_END: e->end_ms = took; break;
    }
    if (arg->replied.code != 421 && (arg->replied.final || phase == PHASE_MAIL))
        signs_good(s);
    health_report_reply(e->member->backend, s->worker->index,
                        &(struct health_reply){ .verb = arg->replied.verb,
                                                .final = arg->replied.final,
                                                .code = arg->replied.code,
                                                .status_class = arg->replied.status_class,
                                                .subject = arg->replied.subject,
                                                .took = took,
                                                .slowed = slowed });
}

void errand_quit(struct session *s)
{
    forget_input(s);
    retry_end(s);
    link_leave(&s->errand->link);
}

/* Not one that was given up, or whose connection never came about. */
static bool handshake_failed(const struct session *s, enum smtp_loss loss)
{
    return loss == SMTP_LOSS_TLS || loss == SMTP_LOSS_CLOSED ||
           (loss == SMTP_LOSS_TIMEOUT && stream_connected(&s->errand->link->stream));
}

void errand_abort(struct session *s, enum smtp_loss loss)
{
    struct errand *e = s->errand;

    forget_input(s);
    if (e->waiter || e->in_line)
        waited(s);
    waiter_leave(&e->waiter);
    s->has_answer = false;
    if (e->link && handshake_failed(s, loss))
        handshake_ended(s);
    if (e->link)
        signs_lost(s, loss);
    link_close(&e->link);
    retry_end(s);
}

uint32_t errand_patience(const struct session *s)
{
    uint32_t usual = errand_pool(s)->config->queue_timeout;

    return s->errand && s->errand->waiter ? waiter_patience(s->errand->waiter, usual) : usual;
}

bool errand_time_is_up(struct session *s)
{
    struct errand *e = s->errand;

    if (!e || (!e->waiter && !e->in_line))
        return false;
    waiter_leave(&e->waiter);
    waited(s);
    count_refusal(s, QUEUE_REFUSED_TIMEOUT);
    refused(s, PLACEMENT_NO_BACKEND);
    return true;
}

void errand_over(struct session *s, const struct smtp_transaction *t)
{
    struct errand *e = s->errand;

    if (e->member)
        stat_add(&stats(s)->outcomes[t->outcome], 1);
    else
        stat_add(&errand_pool(s)->state->stats[s->worker->index].outcomes[t->outcome], 1);
    if (e->member && t->outcome == SMTP_OUTCOME_UNKNOWN)
        signs_unanswered(s);
    record_transaction(s, t);
    retry_end(s);
    start_anew(e);
    e->queue_ms = e->connect_ms = e->mail_ms = e->rcpt_ms = e->data_ms = e->end_ms = 0;
    if (!e->link)
        member_release(&e->member);
}

void errand_drop(struct session *s)
{
    struct errand *e = s->errand;

    if (!e)
        return;
    forget_input(s);
    if (e->waiter)
        waiter_leave(&e->waiter);
    retry_end(s);
    link_close(&e->link);
    start_anew(e);
    member_release(&e->member);
    farm_release(&e->farm);
    free(e);
    s->errand = NULL;
}
