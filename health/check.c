/*
 *   CONNECT ──2 s──▶ [TLS], BANNER ──5 s──▶ EHLO, [STARTTLS, TLS, EHLO] ──timeout──▶ QUIT ──2 s──▶ ended
 *      └── depth connect: passed, ended
 *
 * All of it within `timeout`, but for the last farewell. One timer, set anew at each stage.
 */
#include "health/check.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/clock.h"
#include "net/proxy_header.h"
#include "net/stream.h"
#include "smtp/probe.h"
#include "smtp/reply.h"

static const char *const stage_names[] = { "connect",  "banner", "ehlo", "helo", "starttls", "tls",
                                           "identity", "mail",   "rcpt", "rset", "quit" };
static_assert(sizeof stage_names / sizeof *stage_names == CHECK_STAGES, "a name for each stage");
static_assert(CHECK_BANNER == SMTP_PROBE_BANNER + 1 && CHECK_QUIT == SMTP_PROBE_QUIT + 1, "in one order");

struct check {
    struct stream stream;
    ev_io connecting; /* the stream does not tell of a mere connection */
    ev_timer timer;
    struct ev_loop *loop;
    struct check_handler handler;
    enum config_health_depth depth;
    int64_t ends; /* the whole check; ms, monotonic */
    enum check_stage stage;
    int64_t stage_began; /* ms, monotonic */
    struct check_times times;
    bool connected;
    bool decided;
    int start_error; /* of stream_connect(), told by the timer: never out of check_start() */
    const struct tls_client *tls_client;
    char *tls_name;
    struct config *config; /* held; may be NULL */
    char hostname[SMTP_PROBE_COMMAND_MAX];
    struct smtp_probe probe;
    size_t in_size;
    char in[SMTP_REPLY_MAX + 1];
};

static void on_stream(struct stream *stream, enum stream_event event);
static void on_connected(struct ev_loop *loop, ev_io *io, int events);
static void on_timer(struct ev_loop *loop, ev_timer *timer, int events);

const char *check_stage_name(enum check_stage stage)
{
    return stage_names[stage];
}

/* The time since the last call was spent on the stage that it then was in. */
static void lap(struct check *check)
{
    int64_t now = clock_milliseconds();
    uint32_t *spent = &check->times.ms[check->stage];

    *spent = (*spent == CHECK_NOT_REACHED ? 0 : *spent) + (uint32_t)(now - check->stage_began);
    check->stage_began = now;
    if (check->connected && check->probe.stage != SMTP_PROBE_ENDED)
        check->stage = (enum check_stage)check->probe.stage + 1;
}

static void check_free(struct check *check)
{
    ev_io_stop(check->loop, &check->connecting);
    ev_timer_stop(check->loop, &check->timer);
    stream_close(&check->stream);
    config_release(&check->config);
    free(check->tls_name);
    free(check);
}

void check_abort(struct check **check)
{
    if (*check)
        check_free(*check);
    *check = NULL;
}

/* Time for the next stage, within the whole. */
static void arm(struct check *check, int64_t milliseconds)
{
    int64_t left = check->ends - clock_milliseconds();

    if (left < 0)
        left = 0;
    ev_timer_stop(check->loop, &check->timer);
    ev_timer_set(&check->timer, (double)(left < milliseconds ? left : milliseconds) / 1000., 0);
    ev_timer_start(check->loop, &check->timer);
}

static void end(struct check *check)
{
    struct check_handler handler = check->handler;
    struct check_times times;

    lap(check);
    times = check->times;
    check_free(check);
    handler.ended(handler.arg, &times);
}

/* Decided and ended in one. */
static void conclude(struct check *check, enum check_verdict verdict, const char *reason)
{
    struct check_result result = { .verdict = verdict, .reason = reason };

    if (!check->decided) {
        check->decided = true;
        check->handler.decided(check->handler.arg, &result);
    }
    end(check);
}

/* The probe's verdict, if it is there. `timed_out`: the clock made it. */
static void tell(struct check *check, bool timed_out)
{
    const struct smtp_probe *probe = &check->probe;
    struct check_result result = { .reason = probe->reason };

    if (check->decided || probe->verdict == SMTP_PROBE_OPEN)
        return;
    check->decided = true;
    result.told_busy = probe->code == 421 && !probe->greeted;
    result.verdict = probe->verdict == SMTP_PROBE_PASSED                  ? CHECK_PASSED
                     : result.told_busy || (timed_out && !probe->greeted) ? CHECK_BUSY
                                                                          : CHECK_FAILED;
    result.capabilities_known = probe->capabilities_known;
    result.capabilities = probe->capabilities;
    check->handler.decided(check->handler.arg, &result);
}

/* The dialogue is cut short. */
static void break_off(struct check *check, const char *what, bool timed_out)
{
    smtp_probe_break(&check->probe, what);
    tell(check, timed_out);
    end(check);
}

static void connect_failed(struct check *check, int error)
{
    char reason[SMTP_PROBE_REASON_MAX];

    switch (-error) {
    case ECONNREFUSED: conclude(check, CHECK_FAILED, "connect refused"); return;
    case ECONNRESET: conclude(check, CHECK_FAILED, "connect reset"); return;
    case ETIMEDOUT: conclude(check, CHECK_FAILED, "connect timeout"); return;
    case EHOSTUNREACH:
    case ENETUNREACH: conclude(check, CHECK_FAILED, "connect: no route"); return;
    default: break;
    }
    (void)snprintf(reason, sizeof reason, "connect: %s", strerrordesc_np(-error));
    conclude(check, stream_own_fault(error) ? CHECK_INCONCLUSIVE : CHECK_FAILED, reason);
}

/* Begin the handshake that the probe waits for. May end the check. */
static void secure(struct check *check)
{
    check->in_size = 0;
    if (stream_connect_tls(&check->stream, check->tls_client, check->tls_name, NULL) != 0)
        conclude(check, CHECK_INCONCLUSIVE, "out of memory");
}

/* Known to be connected, by whichever event came first. May end the check. */
static void connected(struct check *check)
{
    if (check->connected)
        return;
    check->connected = true;
    lap(check);
    ev_io_stop(check->loop, &check->connecting);
    arm(check, CHECK_BANNER_LIMIT);
    if (check->probe.stage == SMTP_PROBE_TLS)
        secure(check);
}

static void on_connected(struct ev_loop *loop, ev_io *io, int events)
{
    struct check *check = io->data;

    (void)loop;
    (void)events;
    if (!stream_connected(&check->stream)) {
        /* The error waits in the socket: the stream's own event brings it. */
        ev_io_stop(check->loop, io);
        return;
    }
    if (check->depth == CONFIG_DEPTH_CONNECT)
        conclude(check, CHECK_PASSED, "");
    else
        connected(check);
}

static void send_command(struct check *check)
{
    struct iovec part = { check->probe.out, check->probe.out_size };

    check->in_size = 0;
    if (check->probe.stage == SMTP_PROBE_QUIT)
        check->ends = clock_milliseconds() + CHECK_QUIT_LIMIT;
    arm(check, INT64_MAX);
    /* A dead connection shows when it is read. */
    (void)stream_write(&check->stream, &part, 1);
}

static void read_error(struct check *check, ssize_t n)
{
    if (n == -EPROTO)
        break_off(check, stream_tls_failure(&check->stream), false);
    else if (n == 0)
        break_off(check, "closed", false);
    else if (!check->connected && !stream_connected(&check->stream))
        connect_failed(check, (int)n);
    else
        break_off(check,
                  n == -ECONNRESET || n == -EPIPE ? "reset"
                  : n == -ETIMEDOUT               ? "timeout"
                                                  : "lost",
                  false);
}

/* Do what the probe says. May end the check. */
static void act(struct check *check, enum smtp_probe_action action)
{
    switch (action) {
    case SMTP_PROBE_READ:
        /* The parser refuses whatever is longer than this buffer less one; still, never read into nothing. */
        if (check->in_size == sizeof check->in)
            break_off(check, "malformed", false);
        break;
    case SMTP_PROBE_SEND:
        send_command(check);
        tell(check, false);
        break;
    case SMTP_PROBE_SECURE: secure(check); break;
    case SMTP_PROBE_CLOSE:
        tell(check, false);
        end(check);
        break;
    }
}

static void read_more(struct check *check)
{
    enum smtp_probe_action action;
    ssize_t n = stream_read(&check->stream, check->in + check->in_size, sizeof check->in - check->in_size);

    if (n == -EAGAIN)
        return;
    if (n >= 0 && check->depth == CONFIG_DEPTH_CONNECT) {
        conclude(check, CHECK_PASSED, "");
        return;
    }
    if (n <= 0) {
        read_error(check, n);
        return;
    }
    if (check->probe.stage == SMTP_PROBE_TLS) { /* octets, and a reset behind them, in front of a handshake */
        break_off(check, "reset", false);
        return;
    }
    connected(check);
    check->in_size += (size_t)n;
    action = smtp_probe_feed(&check->probe, check->in, check->in_size);
    lap(check);
    act(check, action);
}

static void on_stream(struct stream *stream, enum stream_event event)
{
    struct check *check = (struct check *)stream; /* its first member */
    enum smtp_probe_action action;

    switch (event) {
    case STREAM_DRAINED: break;
    case STREAM_SECURED:
        action = smtp_probe_secured(&check->probe);
        lap(check);
        act(check, action);
        break;
    case STREAM_READABLE:
        /* Octets in front of an implicit handshake are the handshake's, to fail by. */
        if (check->probe.stage == SMTP_PROBE_TLS && !check->connected && stream_connected(stream))
            connected(check);
        else
            read_more(check);
        break;
    }
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct check *check = timer->data;

    (void)loop;
    (void)events;
    if (check->start_error)
        connect_failed(check, check->start_error);
    else if (check->connected || stream_connected(&check->stream))
        break_off(check, "timeout", true);
    else
        conclude(check, CHECK_FAILED, "connect timeout");
}

/* A relay that expects a PROXY header or XCLIENT gets it from a check too, with the check's own real
 * addresses. */
static int introduce(struct check *check, const struct check_target *target)
{
    union {
        struct sockaddr sa;
        struct sockaddr_storage storage;
    } address = { 0 };
    socklen_t length = sizeof address;
    struct peer local, remote;
    char text[ADDRESS_TEXT_MAX], header[PROXY_HEADER_MAX];
    struct iovec part = { header, 0 };

    if (target->identity == CONFIG_IDENTITY_NONE)
        return 0;
    check->probe.no_helo = true;
    if (getsockname(check->stream.io.fd, &address.sa, &length) != 0)
        return -errno;
    peer_from_sockaddr(&local, &address.sa);
    peer_from_sockaddr(&remote, &target->address->sa);
    switch (target->identity) {
    case CONFIG_IDENTITY_NONE: break;
    case CONFIG_IDENTITY_PROXY_V1: part.iov_len = proxy_header_format_v1(&local, &remote, header); break;
    case CONFIG_IDENTITY_PROXY_V2:
        part.iov_len = proxy_header_format_v2(&local, &remote, NULL, header);
        break;
    case CONFIG_IDENTITY_XCLIENT: check->probe.introduce = "XCLIENT"; break;
    case CONFIG_IDENTITY_XFORWARD: check->probe.introduce = "XFORWARD"; break;
    }
    if (part.iov_len)
        return stream_write(&check->stream, &part, 1);
    if (local.family != AF_UNIX) {
        struct smtp_identity *identity = &check->probe.identity;

        peer_format(&local, false, text);
        memcpy(identity->address, text, strnlen(text, sizeof identity->address - 1));
        identity->ipv6 = local.family == AF_INET6;
        identity->port = local.port;
    }
    return 0;
}

static enum smtp_probe_tls probe_tls(const struct check_target *target)
{
    switch (target->tls) {
    case CONFIG_POOL_TLS_OFF: return SMTP_PROBE_CLEAR;
    case CONFIG_POOL_TLS_OPPORTUNISTIC:
        return target->depth == CONFIG_DEPTH_STARTTLS ? SMTP_PROBE_TLS_REQUIRED
                                                      : SMTP_PROBE_TLS_OPPORTUNISTIC;
    case CONFIG_POOL_TLS_REQUIRE:
    case CONFIG_POOL_TLS_VERIFY: return SMTP_PROBE_TLS_REQUIRED;
    case CONFIG_POOL_TLS_IMPLICIT:
    case CONFIG_POOL_TLS_IMPLICIT_VERIFY:
        return target->depth == CONFIG_DEPTH_CONNECT ? SMTP_PROBE_CLEAR : SMTP_PROBE_TLS_IMPLICIT;
    }
    return SMTP_PROBE_CLEAR;
}

static bool keep_tls(struct check *check, const struct check_target *target)
{
    check->tls_client = target->tls_client;
    if (target->config)
        check->config = config_hold(target->config);
    if (target->tls_name)
        check->tls_name = strdup(target->tls_name);
    return check->tls_name || !target->tls_name;
}

struct check *check_start(struct ev_loop *loop, const struct check_target *target,
                          const struct check_handler *handler)
{
    struct check *check = malloc(sizeof *check);

    if (!check)
        return NULL;
    memset(check, 0, offsetof(struct check, in));
    check->loop = loop;
    check->handler = *handler;
    check->depth = target->depth;
    (void)snprintf(check->hostname, sizeof check->hostname, "%.255s", target->hostname);
    smtp_probe_init(&check->probe, check->hostname, target->depth >= CONFIG_DEPTH_EHLO, probe_tls(target));
    check->probe.envelope = target->depth == CONFIG_DEPTH_ENVELOPE;
    check->probe.sender = target->sender;
    check->probe.recipient = target->recipient;
    ev_init(&check->connecting, on_connected);
    ev_timer_init(&check->timer, on_timer, 0, 0);
    check->connecting.data = check->timer.data = check;
    ev_now_update(loop);
    memset(&check->times, 0xff, sizeof check->times); /* CHECK_NOT_REACHED */
    check->stage_began = clock_milliseconds();
    check->ends = check->stage_began + target->timeout;
    check->start_error = stream_connect(&check->stream, loop, target->address, target->source, on_stream);
    if (!keep_tls(check, target) && !check->start_error)
        check->start_error = -ENOMEM;
    if (!check->start_error)
        check->start_error = introduce(check, target);
    if (check->start_error) {
        arm(check, 0);
        return check;
    }
    ev_io_set(&check->connecting, check->stream.io.fd, EV_WRITE);
    ev_io_start(loop, &check->connecting);
    arm(check, CHECK_CONNECT_LIMIT);
    return check;
}
