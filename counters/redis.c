/*
 *            redis_attempt()        redis_greet()        redis_ready()
 *   WAITING ───────▶ RESOLVING ─▶ CONNECTING ─▶ GREETING ─▶ READY
 *      ▲                 │             │            │          │      redis_fail(): the next address or host
 *      └─────────────────┴─────────────┴────────────┴──────────┘      while there is one, or else WAITING
 */
#include "counters/redis.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "balancer/algorithm.h"
#include "counters/redis_internal.h"
#include "net/clock.h"

#define READ_SIZE        16384
#define READS_MAX        64  /* in a row, when an answer seems to be late */
#define DELAY_FIRST      100 /* ms, as the rest */
#define DELAY_MAX        5000
#define HELD             5000 /* a connection that lasted so long was a good one */
#define SUBSCRIBER_QUIET 1000 /* after this a subscriber asks whether the server is still there */

enum redis_state redis_state(const struct redis *redis)
{
    return redis->state;
}

const char *redis_server(const struct redis *redis)
{
    return redis->server;
}

/* --- requests ------------------------------------------------------------------------------------------- */

static size_t count(const struct redis_request *request)
{
    size_t n = 0;

    for (; request; request = request->next)
        n += !request->own;
    return n;
}

size_t redis_outstanding(const struct redis *redis)
{
    return count(redis->requests) + count(redis->again) + count(redis->asked);
}

void redis_tell(struct redis_request *request, const struct resp *reply, const char *error)
{
    struct redis_request gone = *request;

    free(request);
    if (gone.callback)
        gone.callback(gone.arg, reply, error);
}

/* Tell all of a list that no reply will come; a callback may free the connection, and then the others are not
 * told. */
void redis_bury(struct redis *redis, struct redis_request *list, const char *error)
{
    while (list) {
        struct redis_request *request = list;

        list = request->next;
        if (request->own || redis->freed)
            free(request);
        else
            redis_tell(request, NULL, error);
    }
}

static void doom(struct redis *redis, const char *why)
{
    redis->doom = why;
    redis_arm(redis, 0);
}

static struct redis_request *make_request(const struct redis *redis, const struct redis_request *like,
                                          const char *octets, size_t size)
{
    size_t kept = redis->url.kind == REDIS_URL_CLUSTER && !like->own ? size : 0;
    struct redis_request *request = malloc(sizeof *request + kept);

    if (!request)
        return NULL;
    *request = *like;
    request->next = NULL;
    request->replies = like->answers;
    request->sendings++;
    *request->refusal = '\0';
    request->sent = clock_milliseconds();
    request->size = kept;
    memcpy(request->octets, octets, kept);
    return request;
}

bool redis_put(struct redis *redis, const struct redis_request *like, const char *octets, size_t size)
{
    static const char multi[] = "*1\r\n$5\r\nMULTI\r\n", exec[] = "*1\r\n$4\r\nEXEC\r\n";
    struct iovec parts[] = {
        {(void *)multi,   like->transaction ? sizeof multi - 1 : 0},
        { (void *)octets, size                                    },
        { (void *)exec,   like->transaction ? sizeof exec - 1 : 0 }
    };
    struct redis_request *request;

    if (stream_unsent(&redis->stream) + size > REDIS_UNSENT_MAX) {
        doom(redis, "more than 8 MiB unsent");
        return false;
    }
    request = make_request(redis, like, octets, size);
    if (!request)
        return false;
    /* An error is told to the reader. */
    (void)stream_write(&redis->stream, parts, 3);
    if (!redis->requests && redis->stage >= REDIS_STAGE_GREETING)
        redis_arm(redis, redis->answer_limit);
    *redis->requests_end = request;
    redis->requests_end = &request->next;
    return true;
}

void redis_ask(struct redis *redis, redis_callback *callback, const struct resp_commands *command)
{
    struct redis_request like = { .callback = callback, .arg = redis, .own = true, .answers = 1 };

    if (command->failed || !redis_put(redis, &like, command->octets, command->size))
        doom(redis, "out of memory");
}

bool redis_send(struct redis *redis, const struct resp_commands *commands, redis_callback *callback,
                void *arg)
{
    struct redis_request like = { .callback = callback,
                                  .arg = arg,
                                  .transaction = commands->n > 1,
                                  .answers = commands->n > 1 ? commands->n + 2 : 1 };

    if (redis->stage != REDIS_STAGE_READY || redis->channel || redis->freed || redis->doom)
        return false;
    if (commands->failed || commands->n == 0)
        return false;
    return redis_put(redis, &like, commands->octets, commands->size);
}

/* --- ends ----------------------------------------------------------------------------------------------- */

void redis_set_state(struct redis *redis, enum redis_state state, const char *reason)
{
    if (state == redis->state && strcmp(reason, redis->reason) == 0)
        return;
    redis->state = state;
    (void)snprintf(redis->reason, sizeof redis->reason, "%s", reason);
    redis->handler.state(redis->handler.arg, state, redis->reason);
}

/* Close. Returns the requests that were outstanding. */
static struct redis_request *hang_up(struct redis *redis)
{
    struct redis_request *list = redis->requests;

    redis->serial++;
    redis->doom = NULL;
    redis->requests = NULL;
    redis->requests_end = &redis->requests;
    ev_timer_stop(redis->loop, &redis->timer);
    stream_close(&redis->stream);
    redis_attempt_end(redis);
    if (redis->reader == redis->reading)
        redis->reader = NULL; /* read_replies() frees it */
    resp_reader_free(&redis->reader);
    return list;
}

/* 100 ms, 200 ms … 5 s, each from half of it to one and a half. */
static int64_t next_delay(struct redis *redis)
{
    int64_t delay = DELAY_MAX;

    if (redis->failures < 6)
        delay = DELAY_FIRST << redis->failures++;
    return delay / 2 + (int64_t)(algorithm_random(&redis->random) % (uint64_t)(delay + 1));
}

static void go_down(struct redis *redis, struct redis_request *orphans, const char *reason)
{
    struct redis_request *again = redis->again;

    redis->again = NULL;
    redis->stage = REDIS_STAGE_WAITING;
    redis_arm(redis, next_delay(redis));
    redis_set_state(redis, REDIS_DOWN, reason);
    redis_bury(redis, orphans, reason);
    redis_bury(redis, again, reason);
}

void redis_fail(struct redis *redis, const char *format, ...)
{
    char reason[REDIS_REASON_MAX];
    struct redis_request *orphans;
    va_list list;

    va_start(list, format);
    (void)vsnprintf(reason, sizeof reason, format, list);
    va_end(list);
    if (redis->stage != REDIS_STAGE_READY)
        redis_attempt_note(redis, reason);
    orphans = hang_up(redis);
    if (redis->stage == REDIS_STAGE_READY) {
        if (clock_milliseconds() - redis->ready_since >= HELD)
            redis->failures = 0;
    } else if (redis_attempt_next(redis)) {
        redis_bury(redis, orphans, reason); /* all of them our own */
        return;
    }
    go_down(redis, orphans, redis->stage == REDIS_STAGE_READY ? reason : redis->fault);
}

void redis_redirect(struct redis *redis, const char *reason)
{
    struct redis_request *orphans = hang_up(redis);

    redis->stage = REDIS_STAGE_RESOLVING;
    if (redis->state == REDIS_READY)
        redis_set_state(redis, REDIS_CONNECTING, reason);
    redis_bury(redis, orphans, reason);
    if (!redis->freed)
        redis_approach(redis);
}

void redis_ready(struct redis *redis)
{
    struct redis_request *again = redis->again;
    uint64_t serial = redis->serial;

    redis->stage = REDIS_STAGE_READY;
    redis->ready_since = clock_milliseconds();
    redis->redirections = 0;
    redis->again = NULL;
    if (redis->tries > 0 && redis->tries <= redis->url.n_hosts) {
        /* That host is the first to be tried from now on. */
        redis->host = (redis->host + redis->tries - 1) % redis->url.n_hosts;
        redis->tries = 1;
    }
    if (redis->channel)
        redis_arm(redis, SUBSCRIBER_QUIET);
    while (again) {
        struct redis_request *request = again;

        again = request->next;
        if (redis_put(redis, request, request->octets, request->size))
            free(request);
        else
            redis_tell(request, NULL, "out of memory");
        if (redis->freed) {
            redis_bury(redis, again, "");
            return;
        }
    }
    if (redis->serial == serial)
        redis_set_state(redis, REDIS_READY, "");
}

/* --- replies -------------------------------------------------------------------------------------------- */

/* What a server said, for a reason; a password that it echoes must not get into a log. */
static void quote(const struct redis *redis, const struct resp *reply, char out[REDIS_REASON_MAX])
{
    const char *password = redis->url.password;

    if (*password && memmem(reply->text, reply->size, password, strlen(password)))
        (void)snprintf(out, REDIS_REASON_MAX, "an answer that holds the password");
    else
        (void)snprintf(out, REDIS_REASON_MAX, "%s", reply->text);
}

void redis_refused(struct redis *redis, const struct resp *reply)
{
    char reason[REDIS_REASON_MAX];

    quote(redis, reply, reason);
    redis_fail(redis, "%s", reason);
}

static bool is_message(const struct redis *redis, const struct resp *reply)
{
    return redis->channel && reply->type == RESP_ARRAY && reply->n == 3 &&
           resp_is(&reply->elements[0], "message");
}

static void take_message(struct redis *redis, const struct resp *reply)
{
    const struct resp *text = &reply->elements[2];

    if (redis->stage == REDIS_STAGE_READY && resp_is(&reply->elements[1], redis->channel) &&
        text->type == RESP_TEXT && redis->handler.message)
        redis->handler.message(redis->handler.arg, text->text, text->size);
}

/* Whether a server that says so is of no use: another one may be, or the same one later. */
static bool is_useless(enum resp_fault fault)
{
    switch (fault) {
    case RESP_FAULT_AUTH:
    case RESP_FAULT_LOADING:
    case RESP_FAULT_READONLY:
    case RESP_FAULT_MASTERDOWN:
    case RESP_FAULT_CLUSTERDOWN: return true;
    case RESP_FAULT_NONE:
    case RESP_FAULT_PERMISSION:
    case RESP_FAULT_MEMORY:
    case RESP_FAULT_BUSY:
    case RESP_FAULT_MOVED:
    case RESP_FAULT_ASK:
    case RESP_FAULT_TRYAGAIN:
    case RESP_FAULT_NOSCRIPT:
    case RESP_FAULT_OTHER: return false;
    }
    return false;
}

/* The last reply to a request. */
static void settle(struct redis *redis, struct redis_request *request, const struct resp *reply)
{
    bool cluster = redis->url.kind == REDIS_URL_CLUSTER;
    enum resp_fault fault = resp_fault(reply);
    uint64_t serial = redis->serial;

    if (cluster && fault == RESP_FAULT_MOVED) {
        redis_moved(redis, request, reply);
    } else if (cluster && fault == RESP_FAULT_ASK && !request->own) {
        redis_carry(redis, request, reply);
    } else {
        redis_tell(request, reply, NULL);
        if (!redis->freed && redis->serial == serial && redis->stage == REDIS_STAGE_READY &&
            is_useless(fault))
            redis_refused(redis, reply);
    }
}

static void take(struct redis *redis, const struct resp *reply)
{
    struct redis_request *request = redis->requests;
    char refusal[REDIS_REASON_MAX];
    struct resp refused = { .type = RESP_ERROR, .text = refusal };

    if (is_message(redis, reply)) {
        take_message(redis, reply);
    } else if (!request) {
        if (reply->type == RESP_ERROR)
            redis_refused(redis, reply);
        else
            redis_fail(redis, "an answer that nobody asked for");
    } else if (--request->replies > 0) {
        if (reply->type == RESP_ERROR && !*request->refusal)
            quote(redis, reply, request->refusal);
    } else {
        redis->requests = request->next;
        if (!redis->requests)
            redis->requests_end = &redis->requests;
        memcpy(refusal, request->refusal, sizeof refusal);
        refused.size = strlen(refusal);
        settle(redis, request, *refusal ? &refused : reply);
    }
}

static void read_failed(struct redis *redis, ssize_t error)
{
    const char *failure;

    switch (-error) {
    case 0: redis_fail(redis, "connection closed"); return;
    case ECONNREFUSED: redis_fail(redis, "connection refused"); return;
    case ECONNRESET: redis_fail(redis, "connection reset"); return;
    case EHOSTUNREACH:
    case ENETUNREACH: redis_fail(redis, "no route"); return;
    case EPROTO:
        failure = stream_tls_failure(&redis->stream);
        redis_fail(redis, "TLS: %s", *failure ? failure : "protocol error");
        return;
    default: redis_fail(redis, "%s", strerrordesc_np((int)-error)); return;
    }
}

static void read_replies(struct redis *redis, const char *octets, size_t size)
{
    struct resp_reader *reader = redis->reader;
    uint64_t serial = redis->serial;
    const struct resp *reply;

    redis->reading = reader;
    resp_reader_feed(reader, octets, size);
    while (!redis->freed && redis->serial == serial && (reply = resp_reader_next(reader)))
        take(redis, reply);
    redis->reading = NULL;
    if (redis->reader != reader)
        resp_reader_free(&reader);
    else if (resp_reader_error(reader))
        redis_fail(redis, "%s", resp_reader_error(reader));
}

void redis_connected(struct redis *redis)
{
    redis->stage = REDIS_STAGE_GREETING;
    for (struct redis_request *request = redis->requests; request; request = request->next)
        request->sent = clock_milliseconds();
    redis_arm(redis, redis->answer_limit);
}

/* Whether octets came, and the connection is still the same. */
static bool read_some(struct redis *redis)
{
    char buffer[READ_SIZE];
    uint64_t serial = redis->serial;
    ssize_t n = stream_read(&redis->stream, buffer, sizeof buffer);

    if (n == -EAGAIN)
        return false;
    if (n <= 0) {
        read_failed(redis, n);
        return false;
    }
    redis->heard = clock_milliseconds();
    redis->answered = true;
    if (redis->stage == REDIS_STAGE_CONNECTING)
        redis_connected(redis);
    read_replies(redis, buffer, (size_t)n);
    return !redis->freed && redis->serial == serial;
}

/* --- the loop calls ------------------------------------------------------------------------------------- */

void redis_enter(struct redis *redis)
{
    redis->depth++;
}

static void destroy(struct redis *redis)
{
    redis_carry_end(redis);
    redis->freed = true;
    redis_bury(redis, redis->again, NULL);
    redis_url_wipe(&redis->url);
    free(redis->name);
    free(redis->key);
    free(redis->channel);
    free(redis);
}

void redis_leave(struct redis *redis)
{
    if (--redis->depth == 0 && redis->freed)
        destroy(redis);
}

void redis_arm(struct redis *redis, int64_t milliseconds)
{
    if (redis->doom || milliseconds < 0)
        milliseconds = 0;
    ev_now_update(redis->loop);
    ev_timer_stop(redis->loop, &redis->timer);
    ev_timer_set(&redis->timer, (double)milliseconds / 1000., 0);
    ev_timer_start(redis->loop, &redis->timer);
}

static bool is_late(const struct redis *redis, int64_t now)
{
    return redis->requests && redis->requests->sent + redis->answer_limit <= now;
}

static void watch_quiet(struct redis *redis, int64_t now)
{
    struct resp_commands ping = { .n = 0 };

    if (now - redis->heard < SUBSCRIBER_QUIET) {
        redis_arm(redis, redis->heard + SUBSCRIBER_QUIET - now);
        return;
    }
    resp_commands_say(&ping, "PING");
    redis_ask(redis, NULL, &ping);
    resp_commands_free(&ping);
}

static void watch_answers(struct redis *redis)
{
    uint64_t serial = redis->serial;
    int64_t now = clock_milliseconds();

    /* What came while this process was held up is not late. */
    for (int i = 0; i < READS_MAX && is_late(redis, now) && read_some(redis); i++)
        ;
    if (redis->freed || redis->serial != serial)
        return;
    if (is_late(redis, now))
        redis_fail(redis, "no answer in %" PRIu32 " ms", redis->answer_limit);
    else if (redis->requests)
        redis_arm(redis, redis->requests->sent + redis->answer_limit - now);
    else if (redis->channel && redis->stage == REDIS_STAGE_READY)
        watch_quiet(redis, now);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct redis *redis = timer->data;

    (void)loop;
    (void)events;
    redis_enter(redis);
    if (redis->doom) {
        redis_fail(redis, "%s", redis->doom);
    } else {
        switch (redis->stage) {
        case REDIS_STAGE_WAITING: redis_attempt(redis); break;
        case REDIS_STAGE_RESOLVING: redis_fail(redis, "its name: no answer in 5 s"); break;
        case REDIS_STAGE_CONNECTING:
            redis_fail(redis, stream_connected(&redis->stream) ? "TLS: timeout" : "connect timeout");
            break;
        case REDIS_STAGE_GREETING:
        case REDIS_STAGE_READY: watch_answers(redis); break;
        }
    }
    redis_leave(redis);
}

void redis_on_stream(struct stream *stream, enum stream_event event)
{
    struct redis *redis = (struct redis *)stream; /* its first member */

    redis_enter(redis);
    switch (event) {
    case STREAM_READABLE: (void)read_some(redis); break;
    case STREAM_DRAINED:
        /* Under TLS what drains first is the handshake. */
        if (redis->stage == REDIS_STAGE_CONNECTING && !stream->tls)
            redis_connected(redis);
        break;
    case STREAM_SECURED:
        redis_greet(redis);
        redis_connected(redis);
        break;
    }
    redis_leave(redis);
}

/* --- open and free -------------------------------------------------------------------------------------- */

struct redis *redis_open(struct ev_loop *loop, const struct redis_settings *settings,
                         const struct redis_handler *handler)
{
    struct redis *redis = calloc(1, sizeof *redis);

    if (!redis)
        return NULL;
    stream_init(&redis->stream);
    ev_init(&redis->timer, on_timer);
    redis->timer.data = redis;
    redis->loop = loop;
    redis->handler = *handler;
    redis->url = *settings->url;
    redis->tls = redis->url.tls ? settings->tls : NULL;
    redis->nameservers = settings->nameservers;
    redis->answer_limit = settings->answer_limit ? settings->answer_limit : REDIS_ANSWER_LIMIT;
    redis->requests_end = &redis->requests;
    redis->random = ((uint64_t)clock_milliseconds() ^ (uint64_t)(uintptr_t)redis) | 1;
    redis->name = strdup(settings->name);
    redis->key = strdup(settings->key);
    redis->channel = settings->channel ? strdup(settings->channel) : NULL;
    if (!redis->name || !redis->key || (settings->channel && !redis->channel)) {
        destroy(redis);
        return NULL;
    }
    redis_arm(redis, 0);
    return redis;
}

void redis_free(struct redis **redis)
{
    struct redis *gone = *redis;

    *redis = NULL;
    if (!gone || gone->freed)
        return;
    gone->freed = true;
    redis_bury(gone, hang_up(gone), NULL);
    if (gone->depth == 0)
        destroy(gone);
}
