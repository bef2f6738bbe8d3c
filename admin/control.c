/*
 *      accept ──▶ connection: octets ──▶ a line ──▶ request ──▶ answer ──▶ written as the client takes it
 *                                                     │           ▲
 *                                                     └─ sessions: the workers' roster
 *
 * One timer a connection: for the next request to be whole, then for its answer to be taken.
 */
#include "admin/control.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/command.h"
#include "admin/report.h"
#include "net/log.h"
#include "net/stream.h"

#define ACCEPT_BATCH   16  /* before other events have their turn */
#define ACCEPT_PAUSE_S 0.1 /* out of descriptors: look again after this */

struct connection {
    struct stream stream; /* first: the stream's handler finds the connection by it */
    struct connection *next, *previous;
    struct control *control;
    ev_timer timer;
    struct ucred who;
    bool waiting; /* for the roster */
    bool ended;   /* the client says nothing more, but may listen */
    bool closing; /* once everything has been written */
    size_t size;
    char input[REQUEST_MAX];
};

struct control {
    struct ev_loop *loop;
    struct control_ops ops;
    struct control_socket socket;
    ev_io accepts;
    ev_timer accept_pause;
    struct connection *connections;
    unsigned n_connections;
    bool gathering; /* the roster has been asked for */
};

/* --- a connection --- */

static void connection_free(struct connection *c)
{
    struct control *control = c->control;

    if (c->previous)
        c->previous->next = c->next;
    else
        control->connections = c->next;
    if (c->next)
        c->next->previous = c->previous;
    control->n_connections--;
    ev_timer_stop(control->loop, &c->timer);
    stream_close(&c->stream);
    free(c);
}

static void write_text(struct connection *c, char *text)
{
    struct iovec parts[] = {
        {text,                      strlen(text)},
        { (char *)(uintptr_t) "\n", 1           }
    };

    if (stream_write(&c->stream, parts, 2) != 0)
        c->closing = true; /* it has gone: what writing says of it is not needed */
}

/* The reference is taken over. */
static void answer(struct connection *c, json_t *object)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;

    json_decref(object);
    if (text)
        write_text(c, text);
    else
        c->closing = true; /* out of memory */
    free(text);
    ev_timer_again(c->control->loop, &c->timer);
}

static void refuse(struct connection *c, const char *error)
{
    answer(c, command_refuse(error));
    c->closing = true;
}

static void on_roster(void *who, const struct roster *roster);

static void ask_roster(struct connection *c)
{
    struct control *control = c->control;

    if (!control->gathering && !control->ops.roster(control->ops.arg, on_roster, control)) {
        answer(c, command_refuse("out of memory"));
        return;
    }
    control->gathering = true;
    c->waiting = true;
}

/* What the operator got wrong ends nothing: the next line may be better. */
static void handle(struct connection *c, const char *line, size_t size)
{
    struct request request;
    const char *error;

    if (!request_parse(line, size, &request, &error))
        answer(c, command_refuse(error));
    else if (request.command == REQUEST_SESSIONS)
        ask_roster(c);
    else
        answer(c, command_execute(&c->control->ops, &request, &c->who));
}

static bool busy(const struct connection *c)
{
    return c->waiting || c->closing || stream_unsent(&c->stream);
}

/* Everything that follows from what has been read or written. The connection may be gone behind it. */
static void proceed(struct connection *c)
{
    char *end;

    while (!busy(c) && (end = memchr(c->input, '\n', c->size))) {
        size_t size = (size_t)(end - c->input);

        handle(c, c->input, size);
        c->size -= size + 1;
        memmove(c->input, end + 1, c->size);
    }
    if (!busy(c) && c->size == sizeof c->input)
        refuse(c, "longer than 4096 octets");
    if (!busy(c) && c->ended) {
        if (c->size)
            refuse(c, "the line does not end");
        c->closing = true;
    }
    if (c->closing && !stream_unsent(&c->stream)) {
        connection_free(c);
        return;
    }
    stream_want_read(&c->stream, !c->ended && !busy(c));
}

static void on_stream(struct stream *stream, enum stream_event event)
{
    struct connection *c = (struct connection *)stream;
    ssize_t n;

    if (event == STREAM_READABLE && !c->ended) {
        n = stream_read(stream, c->input + c->size, sizeof c->input - c->size);
        if (n == -EAGAIN)
            return;
        if (n > 0)
            c->size += (size_t)n;
        else
            c->ended = true;
        if (n < 0) {
            connection_free(c);
            return;
        }
    }
    proceed(c);
}

static void on_time(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct connection *c = timer->data;

    (void)loop;
    (void)events;
    if (!busy(c) && c->size)
        refuse(c, "no whole request came within 10 seconds");
    connection_free(c);
}

static void on_roster(void *who, const struct roster *roster)
{
    struct control *control = who;
    struct connection *next;

    control->gathering = false;
    for (struct connection *c = control->connections; c; c = next) {
        next = c->next;
        if (!c->waiting)
            continue;
        c->waiting = false;
        answer(c, command_answer(report_sessions(roster)));
        proceed(c);
    }
}

/* --- accepting --- */

static void connection_begin(struct control *control, int fd)
{
    struct connection *c = calloc(1, sizeof *c);
    socklen_t length = sizeof c->who;

    if (!c || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c->who, &length) != 0) {
        free(c);
        close(fd);
        return;
    }
    c->control = control;
    c->next = control->connections;
    if (c->next)
        c->next->previous = c;
    control->connections = c;
    control->n_connections++;
    stream_open(&c->stream, control->loop, fd, on_stream);
    ev_timer_init(&c->timer, on_time, 0., CONTROL_SECONDS);
    c->timer.data = c;
    ev_timer_again(control->loop, &c->timer);
    if (control->n_connections > CONTROL_CONNECTIONS) {
        refuse(c, "too many connections");
        proceed(c);
    }
}

static void on_connection(struct ev_loop *loop, ev_io *io, int events)
{
    struct control *control = io->data;
    int fd;

    (void)events;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            break;
        connection_begin(control, fd);
    }
    if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        ev_io_stop(loop, io);
        ev_timer_again(loop, &control->accept_pause);
    }
}

static void on_pause_over(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct control *control = timer->data;

    (void)events;
    ev_timer_stop(loop, timer);
    if (control->socket.fd >= 0)
        ev_io_start(loop, &control->accepts);
}

/* --- life --- */

struct control *control_create(struct ev_loop *loop, const struct control_ops *ops)
{
    struct control *control = calloc(1, sizeof *control);

    if (!control)
        return NULL;
    control->loop = loop;
    control->ops = *ops;
    control->socket.fd = -1;
    ev_init(&control->accepts, on_connection);
    ev_timer_init(&control->accept_pause, on_pause_over, 0., ACCEPT_PAUSE_S);
    control->accepts.data = control->accept_pause.data = control;
    return control;
}

void control_listen(struct control *control, struct control_socket *next)
{
    ev_io_stop(control->loop, &control->accepts);
    ev_timer_stop(control->loop, &control->accept_pause);
    control_socket_close(&control->socket);
    control->socket = *next;
    next->fd = -1;
    if (control->socket.fd < 0)
        return;
    ev_io_set(&control->accepts, control->socket.fd, EV_READ);
    ev_io_start(control->loop, &control->accepts);
}

const struct address *control_address(const struct control *control)
{
    return control->socket.fd >= 0 ? &control->socket.address : NULL;
}

void control_close(struct control **control)
{
    struct control *gone = *control;
    struct connection *next;

    *control = NULL;
    if (!gone)
        return;
    control_listen(gone, &(struct control_socket){ .fd = -1 });
    for (struct connection *c = gone->connections; c; c = next) {
        next = c->next;
        connection_free(c);
    }
    free(gone);
}
