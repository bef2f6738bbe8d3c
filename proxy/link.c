#include "proxy/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/proxy_header.h"

#define FAREWELL_MS 1000

/* The header goes out in one write, in front of everything (smtp.md "PROXY protocol"). */
static int send_header(struct link *link, const struct link_target *target)
{
    char header[PROXY_HEADER_MAX];
    struct iovec part = { header, 0 };

    if (target->identity == CONFIG_IDENTITY_PROXY_V1)
        part.iov_len = proxy_header_format_v1(target->client, target->local, header);
    else if (target->identity == CONFIG_IDENTITY_PROXY_V2)
        part.iov_len = proxy_header_format_v2(target->client, target->local, target->client_tls, header);
    return part.iov_len ? stream_write(&link->stream, &part, 1) : 0;
}

int link_secure(struct link *link, const struct tls_client *tls, const char *name)
{
    struct tls_resumption *resumption = &link->place.member->resumptions[link->worker->index];

    link->handshaking = true;
    return stream_connect_tls(&link->stream, tls, name, resumption);
}

static int begin(struct link *link, const struct link_target *target, stream_handler *handler)
{
    struct address to;
    int error;

    if (!backend_address(link->place.member->backend, &to))
        return -EHOSTUNREACH;
    link->near = address_is_private(&to);
    error = stream_connect(&link->stream, link->worker->loop, &to, target->source, handler);
    if (error != 0)
        return error;
    link->stream.secrets = target->secrets;
    error = send_header(link, target);
    if (error == 0 && target->tls)
        error = link_secure(link, target->tls, target->tls_name);
    if (error != 0)
        stream_close(&link->stream);
    return error;
}

struct link *link_open(struct worker *worker, struct session *session, struct place place,
                       const struct link_target *target, stream_handler *handler, int *error)
{
    struct link *link = calloc(1, sizeof *link);

    if (!link) {
        *error = -ENOMEM;
        return NULL;
    }
    link->worker = worker;
    link->session = session;
    link->place = place;
    link->began = worker->now;
    *error = begin(link, target, handler);
    if (*error != 0) {
        free(link);
        return NULL;
    }
    return link;
}

int link_reconnect(struct link *link, const struct link_target *target, stream_handler *handler)
{
    stream_close(&link->stream);
    return begin(link, target, handler);
}

static void unlist(struct link *link)
{
    if (link->session || link->leaving_until == 0)
        return;
    if (link->previous)
        link->previous->next = link->next;
    else
        link->worker->leaving = link->next;
    if (link->next)
        link->next->previous = link->previous;
}

void link_close(struct link **link)
{
    struct link *gone = *link;

    *link = NULL;
    if (!gone)
        return;
    unlist(gone);
    stream_close(&gone->stream);
    placement_return(&gone->place, gone->worker->now);
    free(gone);
}

/* Anything before 221 is the reply to a RSET that nobody waited for. */
static void on_leaving(struct stream *stream, enum stream_event event)
{
    struct link *link = (struct link *)stream;
    char *buffer = link->worker->buffer;
    ssize_t n;

    if (event != STREAM_READABLE)
        return;
    n = stream_read(stream, buffer, 4096);
    if (n == -EAGAIN)
        return;
    if (n <= 0 || memmem(buffer, (size_t)n, "221", 3))
        link_close(&link);
}

void link_leave(struct link **link)
{
    struct link *leaving = *link;
    struct worker *worker = leaving->worker;

    *link = NULL;
    leaving->session = NULL;
    leaving->stream.handler = on_leaving;
    stream_want_read(&leaving->stream, true);
    leaving->leaving_until = worker->now + FAREWELL_MS;
    leaving->previous = NULL;
    leaving->next = worker->leaving;
    if (worker->leaving)
        worker->leaving->previous = leaving;
    worker->leaving = leaving;
    if (!ev_is_active(&worker->leaving_sweep))
        ev_timer_again(worker->loop, &worker->leaving_sweep);
}

void link_sweep(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct worker *worker = timer->data;
    struct link *next;

    (void)events;
    for (struct link *link = worker->leaving; link; link = next) {
        next = link->next;
        if (link->leaving_until <= worker->now)
            link_close(&link);
    }
    if (!worker->leaving)
        ev_timer_stop(loop, timer);
}

void link_close_leaving(struct worker *worker)
{
    while (worker->leaving) {
        struct link *link = worker->leaving;
        link_close(&link);
    }
}
