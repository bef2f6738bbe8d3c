/*
 *      client stream ──▶ input ──▶ dialog ──▶ wire ──▶ client and backend streams
 *                                  ▲    │
 *               events (timer,     │    ▼ actions
 *               mail, link)  ──────┘    place asked for, link opened or parted with, transaction logged,
 * session closed
 *
 * Every entry from outside (a stream's event, the timer, a mail) does its one thing to the dialog and then
 * calls conclude(), which writes, acts and feeds until nothing moves, sets what to read and which timer runs,
 * and frees a finished session last. Nothing is freed anywhere else.
 */
#include "proxy/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "balancer/placement.h"
#include "net/log.h"
#include "proxy/link.h"
#include "proxy/record.h"
#include "proxy/session_internal.h"

#define COMMAND_READ 16384 /* one read outside bodies: a few commands at most */
#define WAITING_MAX  8192  /* what a client may send ahead while its commands wait */
#define HANDSHAKE_MS 30000 /* for a client's TLS handshake, which is a few round trips */

static void on_client(struct stream *stream, enum stream_event event);
static void on_timer(struct ev_loop *loop, ev_timer *timer, int events);

/* --- beginning and end --- */

void session_begin(struct worker *worker, size_t index, int fd, const struct peer *peer)
{
    struct session *s = calloc(1, sizeof *s);
    const struct listener *listener = &worker->front->listeners[index];

    if (!s) {
        worker_session_ended();
        close(fd);
        return;
    }
    s->worker = worker;
    s->front = front_hold(worker->front);
    s->listener = listener;
    s->peer = *peer;
    s->id = worker->next_session++;
    s->began = worker->now;
    s->next = worker->sessions;
    if (s->next)
        s->next->previous = s;
    worker->sessions = s;
    stat_add(&worker->stats.sessions_active, 1);
    ev_init(&s->timer, on_timer);
    s->timer.data = s;
    s->input.secrets = listener->config->auth == CONFIG_AUTH_RELAY;
    stream_open(&s->client, worker->loop, fd, on_client);
    arrival_begin(s);
}

void session_free(struct session *s)
{
    struct worker *worker = s->worker;

    if (!s->prelude)
        record_session(s);
    if (s->previous)
        s->previous->next = s->next;
    else
        worker->sessions = s->next;
    if (s->next)
        s->next->previous = s->previous;
    ev_timer_stop(worker->loop, &s->timer);
    stream_close(&s->client);
    errand_drop(s);
    if (s->input.secrets && s->input.size)
        explicit_bzero(s->input.data, s->input.size); /* perhaps in the worker's buffer */
    input_drop(&s->input);
    free(s->login);
    free(s->sender);
    smtp_dialog_free(&s->dialog);
    if (s->counted)
        session_leave_listener(s->listener, &s->peer);
    front_release(&s->front);
    atomic_store_explicit(&worker->stats.sessions_active,
                          atomic_load_explicit(&worker->stats.sessions_active, memory_order_relaxed) - 1,
                          memory_order_relaxed);
    free(s);
    worker_session_ended();
    if (worker->draining && !worker->sessions && worker->idle)
        worker->idle(worker->idle_arg);
}

/* --- outputs and actions --- */

static size_t octets(const struct smtp_output *out)
{
    size_t total = 0;

    for (int i = 0; i < out->n; i++)
        total += out->parts[i].iov_len;
    return total;
}

/* A dead connection is noticed by reading, where its last words may still be: what writing says of it is not
 * needed. */
static void flush(struct session *s)
{
    struct smtp_wire *wire = &s->worker->wire;
    struct link *link = session_link(s);

    if (wire->client.n && stream_is_open(&s->client)) {
        size_t n = octets(&wire->client);

        s->bytes_out += n;
        stat_add(&s->worker->stats.bytes_out, n);
        (void)stream_write(&s->client, wire->client.parts, wire->client.n);
    }
    if (wire->backend.n && link)
        (void)stream_write(&link->stream, wire->backend.parts, wire->backend.n);
    smtp_wire_flushed(wire);
}

/* Everything said has gone to the kernel. A client that may still be sending is read on, as a reset in answer
 * to its octets could overtake the last reply. */
static void close_written(struct session *s)
{
    if (s->linger && !s->client_ended)
        stream_shutdown(&s->client);
    else
        s->finished = true;
}

/* A client that has only stopped sending still hears the end. */
static void begin_close(struct session *s, bool linger)
{
    s->closing = true;
    s->linger = linger;
    if (s->client_failed)
        s->finished = true;
    else if (!stream_unsent(&s->client))
        close_written(s);
}

static void secure_client(struct session *s)
{
    if (stream_accept_tls(&s->client, s->listener->config->tls_server, NULL, 0) == 0)
        return;
    s->client_ended = s->client_failed = s->client_end_told = true;
    s->answer = (struct smtp_event){ .kind = SMTP_EVENT_CLIENT_LOST };
    s->has_answer = true;
}

static void perform(struct session *s, const struct smtp_action_arg *arg)
{
    switch (arg->action) {
    case SMTP_ACTION_NONE: break;
    case SMTP_ACTION_NEED_BACKEND: errand_begin(s, arg); break;
    case SMTP_ACTION_ROUTE: errand_route(s, arg); break;
    case SMTP_ACTION_BACKEND_GREETED: errand_greeted(s, arg->capabilities); break;
    case SMTP_ACTION_REPLIED: errand_replied(s, arg); break;
    case SMTP_ACTION_STARTTLS_CLIENT: secure_client(s); break;
    case SMTP_ACTION_STARTTLS_BACKEND: errand_secure(s); break;
    case SMTP_ACTION_RECONNECT_BACKEND: errand_reconnect(s); break;
    case SMTP_ACTION_QUIT_BACKEND: errand_quit(s); break;
    case SMTP_ACTION_ABORT_BACKEND: errand_abort(s, arg->loss); break;
    case SMTP_ACTION_XCLIENT: arrival_anew(s, arg->xclient); break;
    case SMTP_ACTION_TRANSACTION: errand_over(s, arg->transaction); break;
    case SMTP_ACTION_CLOSE: begin_close(s, arg->linger); break;
    }
}

/* Write what the dialog said, do what it asked for, and tell it what came of it, until it is content. */
static void obey(struct session *s)
{
    struct smtp_action_arg arg;

    do {
        flush(s);
        while (smtp_dialog_next(&s->dialog, &arg))
            perform(s, &arg);
        if (s->has_answer) {
            s->has_answer = false;
            smtp_dialog_event(&s->dialog, &s->answer);
        }
    } while (!smtp_wire_idle(&s->worker->wire));
}

/* --- feeding --- */

static bool output_full(struct session *s)
{
    struct link *link = session_link(s);

    return stream_unsent(&s->client) || (link && stream_unsent(&link->stream));
}

static bool feed_backend(struct session *s)
{
    struct link *link = session_link(s);
    size_t used;

    if (!link || !s->reply_input.size || stream_unsent(&s->client))
        return false;
    used = smtp_dialog_backend_bytes(&s->dialog, s->reply_input.data, s->reply_input.size);
    s->reply_input.data += used;
    s->reply_input.size -= used;
    if (!used && smtp_wire_idle(&s->worker->wire))
        return false;
    obey(s);
    return true;
}

static bool feed_client(struct session *s)
{
    char *begin = s->input.data;
    size_t used;
    bool secrets;

    if (!s->input.size || s->finished || output_full(s))
        return false;
    /* Whatever is no message may be a password: a command that was refused, a response that nobody awaits. */
    secrets = s->input.secrets && !smtp_dialog_in_body(&s->dialog);
    used = smtp_dialog_client_bytes(&s->dialog, begin, s->input.size);
    secrets |= s->worker->wire.secrets;
    s->input.data += used;
    s->input.size -= used;
    if (!used && smtp_wire_idle(&s->worker->wire))
        return false;
    obey(s);
    if (secrets)
        explicit_bzero(begin, used);
    return true;
}

/* The end of the client's stream counts behind everything it sent, and behind the replies that it may still
 * be waiting for. */
static bool feed_client_end(struct session *s)
{
    bool waiting = smtp_dialog_waiting(&s->dialog);
    bool placed = smtp_dialog_backend_state(&s->dialog) >= SMTP_BACKEND_READY;

    if (!s->client_ended || s->client_end_told || s->closing || output_full(s))
        return false;
    /* It has only stopped sending: what it sent is done, and answered. But nobody waits in a queue to answer
     * nothing but MAIL. */
    if (waiting && !s->client_failed && (placed || s->input.size))
        return false;
    s->client_end_told = true;
    smtp_dialog_event(&s->dialog, &(struct smtp_event){ .kind = SMTP_EVENT_CLIENT_LOST });
    obey(s);
    return true;
}

void input_drop(struct input *input)
{
    if (input->kept && input->secrets)
        explicit_bzero(input->kept, input->kept_size);
    free(input->kept);
    input->kept = NULL;
    input->kept_size = 0;
}

/* Octets that stay unconsumed move out of the worker's buffer, which belongs to whoever reads next. */
void input_keep(struct input *input)
{
    char *kept = NULL;

    if (input->size && input->data == input->kept)
        return;
    if (input->size) {
        kept = malloc(input->size);
        if (kept)
            memcpy(kept, input->data, input->size);
        else
            input->lost = true;
        if (input->secrets)
            explicit_bzero(input->data, input->size);
    }
    input_drop(input);
    input->kept = kept;
    input->kept_size = kept ? input->size : 0;
    input->data = kept;
    if (!kept)
        input->size = 0;
}

/* --- what comes next --- */

uint32_t session_handshake_limit(const struct session *s)
{
    uint32_t timeout = s->listener->config->command_timeout;

    return timeout < HANDSHAKE_MS ? timeout : HANDSHAKE_MS;
}

static uint32_t duration(const struct session *s, enum smtp_timer timer)
{
    const struct config_listener *listener = s->listener->config;

    switch (timer) {
    case SMTP_TIMER_GREET_DELAY: return listener->greet_delay;
    case SMTP_TIMER_HANDSHAKE: return session_handshake_limit(s);
    case SMTP_TIMER_COMMAND: return listener->command_timeout;
    case SMTP_TIMER_DATA_BLOCK: return listener->data_timeout;
    case SMTP_TIMER_BACKEND: return errand_patience(s);
    case SMTP_TIMER_CONNECT: return errand_pool(s)->config->connect_timeout;
    case SMTP_TIMER_REPLY: return 300000;      /* RFC 5321 §4.5.3.2.2 and .3 */
    case SMTP_TIMER_REPLY_DATA: return 120000; /* §4.5.3.2.4 */
    case SMTP_TIMER_REPLY_END: return 600000;  /* §4.5.3.2.6: cutting this short makes duplicates */
    case SMTP_TIMER_LINGER: return 30000;
    }
    return 0;
}

/* One timer a session. Its deadline moves with nearly every octet, so the watcher is left alone as long as it
 * fires early enough: it then finds that there is time left, and sleeps on. */
static void set_timer(struct session *s)
{
    uint32_t serial;
    enum smtp_timer timer = smtp_dialog_timer(&s->dialog, &serial);

    if (serial == s->timer_serial && timer == (enum smtp_timer)s->timer_kind && s->deadline)
        return;
    s->timer_serial = serial;
    s->timer_kind = (uint8_t)timer;
    s->stalled_client = stream_unsent(&s->client);
    s->stalled_link = session_link(s) ? stream_unsent(&session_link(s)->stream) : 0;
    s->deadline = s->worker->now + duration(s, timer);
    if (ev_is_active(&s->timer) && s->fires <= s->deadline)
        return;
    ev_timer_stop(s->worker->loop, &s->timer);
    ev_timer_set(&s->timer, (double)(s->deadline - s->worker->now) / 1000., 0.);
    ev_timer_start(s->worker->loop, &s->timer);
    s->fires = s->deadline;
}

static void set_reading(struct session *s)
{
    struct link *link = session_link(s);
    size_t room = smtp_dialog_waiting(&s->dialog) ? WAITING_MAX : COMMAND_READ;

    stream_want_read(&s->client,
                     !s->client_ended && (s->closing || (!output_full(s) && s->input.size < room)));
    if (link)
        stream_want_read(&link->stream, !stream_unsent(&s->client) && s->reply_input.size < REPLY_READ);
}

/* Looked at behind everything that is done: one read may hold the end of a body and all that leads to the
 * next. */
static void watch_body(struct session *s)
{
    if (!smtp_dialog_in_body(&s->dialog))
        s->body_began = 0;
    else if (!s->body_began)
        s->body_began = s->worker->now;
}

void session_conclude(struct session *s)
{
    bool moved;

    if (s->has_answer || !smtp_wire_idle(&s->worker->wire))
        obey(s);
    do {
        moved = feed_backend(s);
        moved |= feed_client(s);
        moved = moved || feed_client_end(s); /* there may be more that it has sent */
    } while (moved && !s->finished);
    if (s->finished) {
        session_free(s);
        return;
    }
    input_keep(&s->input);
    input_keep(&s->reply_input);
    if (s->input.lost || s->reply_input.lost) {
        /* Out of memory with octets in hand: nothing may be left out of the middle of a stream. */
        session_free(s);
        return;
    }
    watch_body(s);
    set_reading(s);
    set_timer(s);
}

void session_event(struct session *s, const struct smtp_event *event)
{
    smtp_dialog_event(&s->dialog, event);
    session_conclude(s);
}

/* --- entries --- */

/* Read behind what was kept, into the worker's buffer. Same result as stream_read(). */
ssize_t session_read(struct session *s, struct stream *stream, struct input *input, size_t most)
{
    char *buffer = s->worker->buffer;
    ssize_t n;

    if (input->size)
        memcpy(buffer, input->data, input->size);
    n = stream_read(stream, buffer + input->size, most - input->size);
    if (n > 0) {
        input->data = buffer;
        input->size += (size_t)n;
    } else if (input->secrets) {
        explicit_bzero(buffer, input->size); /* what was kept stays where it was */
    }
    return n;
}

/* Closing: whatever the client still sends is read and forgotten, so that a reset can't overtake the last
 * reply. */
static void linger(struct session *s)
{
    ssize_t n = stream_read(&s->client, s->worker->buffer, WORKER_BUFFER);

    if (n > 0)
        s->lingered += (size_t)n;
    if (n > 0 && s->input.secrets)
        explicit_bzero(s->worker->buffer, (size_t)n);
    if (n == 0 && stream_unsent(&s->client))
        s->client_ended = true;
    else if ((n <= 0 && n != -EAGAIN) || s->lingered > LINGER_OCTETS_MAX)
        s->finished = true;
}

static bool too_slow(const struct session *s)
{
    int64_t elapsed = s->worker->now - s->body_began;

    return s->body_began && elapsed > s->listener->config->data_timeout &&
           smtp_dialog_body_size(&s->dialog) * 1000 < (uint64_t)elapsed * s->listener->config->min_data_rate;
}

static void on_client(struct stream *stream, enum stream_event event)
{
    struct session *s = (struct session *)stream; /* the stream is the first member */
    ssize_t n;

    s->dialog.tick = (uint32_t)s->worker->now;
    if (s->prelude) {
        arrival_event(s, event);
        return;
    }
    if (event == STREAM_SECURED) {
        record_client_handshake(s);
        session_event(s, &(struct smtp_event){ .kind = SMTP_EVENT_CLIENT_SECURED });
        return;
    }
    if (event == STREAM_DRAINED) {
        if (s->closing)
            close_written(s);
        session_conclude(s);
        return;
    }
    if (s->closing) {
        linger(s);
        session_conclude(s);
        return;
    }
    n = session_read(s, stream, &s->input, smtp_dialog_in_body(&s->dialog) ? WORKER_BUFFER : COMMAND_READ);
    if (n == -EAGAIN)
        return;
    if (n > 0) {
        s->bytes_in += (size_t)n;
        stat_add(&s->worker->stats.bytes_in, (uint64_t)n);
    } else {
        if (smtp_dialog_client_state(&s->dialog) == SMTP_CLIENT_TLS)
            record_client_handshake(s);
        s->client_ended = true;
        s->client_failed = n < 0;
    }
    if (too_slow(s))
        smtp_dialog_event(&s->dialog, &(struct smtp_event){ .kind = SMTP_EVENT_TIMEOUT });
    session_conclude(s);
}

/* Something is unsent, and it has become no less for as long as the timer ran. */
static bool stalled(const struct stream *stream, size_t before)
{
    return stream_unsent(stream) && stream_unsent(stream) >= before;
}

static void time_is_up(struct session *s)
{
    struct link *link = session_link(s);

    if (s->closing) {
        s->finished = true;
    } else if (link && stalled(&link->stream, s->stalled_link)) {
        smtp_dialog_event(&s->dialog,
                          &(struct smtp_event){ .kind = SMTP_EVENT_BACKEND_LOST, .loss = SMTP_LOSS_TIMEOUT });
    } else if (stalled(&s->client, s->stalled_client)) {
        s->client_ended = s->client_failed = s->client_end_told = true;
        stream_close(&s->client); /* what it does not read keeps nothing else from moving */
        smtp_dialog_event(&s->dialog, &(struct smtp_event){ .kind = SMTP_EVENT_CLIENT_LOST });
    } else if (output_full(s) && smtp_dialog_client_state(&s->dialog) != SMTP_CLIENT_TLS) {
        /* it moves, slowly */
    } else if (!errand_time_is_up(s)) {
        if (smtp_dialog_client_state(&s->dialog) == SMTP_CLIENT_TLS)
            record_client_handshake(s);
        smtp_dialog_event(&s->dialog, &(struct smtp_event){ .kind = SMTP_EVENT_TIMEOUT });
    }
    s->deadline = 0;
    session_conclude(s);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct session *s = timer->data;

    (void)events;
    if (s->prelude) {
        arrival_timeout(s);
        return;
    }
    s->dialog.tick = (uint32_t)s->worker->now;
    if (s->worker->now < s->deadline) {
        s->fires = s->deadline;
        ev_timer_set(timer, (double)(s->deadline - s->worker->now) / 1000., 0.);
        ev_timer_start(loop, timer);
        return;
    }
    time_is_up(s);
}

/* --- the worker's mail --- */

void session_backend_down(struct session *s, const struct backend *backend)
{
    struct link *link = session_link(s);

    /* The reply to a complete message is waited for: it may have been taken. */
    if (!link || link->place.member->backend != backend ||
        smtp_dialog_backend_state(&s->dialog) == SMTP_BACKEND_END_OF_DATA)
        return;
    session_event(s, &(struct smtp_event){ .kind = SMTP_EVENT_BACKEND_LOST, .loss = SMTP_LOSS_DOWN });
}

void session_backend_leave(struct session *s, const struct backend *backend, bool must)
{
    struct link *link = session_link(s);

    if (link && link->place.member->backend == backend)
        session_event(s, &(struct smtp_event){ .kind = SMTP_EVENT_BACKEND_LEAVE, .must = must });
}

void session_drain(struct session *s)
{
    if (s->prelude) {
        session_free(s);
        return;
    }
    session_event(s, &(struct smtp_event){ .kind = SMTP_EVENT_DRAIN });
}

void session_stop(struct session *s)
{
    if (s->prelude) {
        session_free(s);
        return;
    }
    smtp_dialog_event(&s->dialog, &(struct smtp_event){ .kind = SMTP_EVENT_STOP });
    obey(s);
    session_free(s);
}

struct session *session_next(const struct session *s)
{
    return s->next;
}
