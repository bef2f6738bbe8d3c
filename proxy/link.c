#include "proxy/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "balancer/placement.h"
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
        part.iov_len = proxy_header_format_v2(target->client, target->local, header);
    return part.iov_len ? stream_write(&link->stream, &part, 1) : 0;
}

struct link *link_open(struct worker *worker, struct session *session, struct member *member,
                       const struct link_target *target, stream_handler *handler, int *error)
{
    struct link *link = calloc(1, sizeof *link);
    struct address to;

    if (!link) {
        *error = -ENOMEM;
        return NULL;
    }
    if (!backend_address(member->backend, &to))
        *error = -EHOSTUNREACH;
    else
        *error = stream_connect(&link->stream, worker->loop, &to, target->source, handler);
    if (*error == 0 && (*error = send_header(link, target)) != 0)
        stream_close(&link->stream);
    if (*error != 0) {
        free(link);
        return NULL;
    }
    link->worker = worker;
    link->session = session;
    link->member = member;
    link->began = worker->now;
    return link;
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
    placement_return(&gone->member);
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
