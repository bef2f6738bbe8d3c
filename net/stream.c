#include "net/stream.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/stream_internal.h"

/*
 * Which events the loop polls for is decided in one place, stream_watch(), from two facts: is anything
 * unsent, and is the read watcher on. The write watcher exists only while the kernel refuses octets.
 */

#define TCP_UNACKNOWLEDGED_MS 30000 /* a backend that vanished without a word is noticed after this */

static void on_ready(struct ev_loop *loop, ev_io *io, int events);

void stream_watch(struct stream *stream)
{
    int events = (stream->reading ? EV_READ : 0) | (stream->unsent ? EV_WRITE : 0);

    if (ev_is_active(&stream->io)) {
        if ((stream->io.events & (EV_READ | EV_WRITE)) == events)
            return;
        ev_io_stop(stream->loop, &stream->io);
    }
    if (events) {
        ev_io_set(&stream->io, stream->io.fd, events);
        ev_io_start(stream->loop, &stream->io);
    }
    if (stream->tls)
        stream_tls_announce(stream);
}

void stream_init(struct stream *stream)
{
    memset(stream, 0, sizeof *stream);
    ev_init(&stream->io, on_ready);
    stream->io.fd = -1;
}

void stream_open(struct stream *stream, struct ev_loop *loop, int fd, stream_handler *handler)
{
    stream_init(stream);
    ev_io_set(&stream->io, fd, EV_READ);
    stream->loop = loop;
    stream->handler = handler;
    stream->read_wanted = true;
    stream->reading = true;
    ev_io_start(loop, &stream->io);
}

static void set_option(int fd, int level, int name, int value)
{
    /* A socket that lacks an option (a Unix socket, an old kernel) works all the same. */
    (void)setsockopt(fd, level, name, &value, sizeof value);
}

int stream_connect(struct stream *stream, struct ev_loop *loop, const struct address *to,
                   const struct address *source, stream_handler *handler)
{
    int fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error;

    stream_init(stream);
    if (fd < 0)
        return -errno;
    if (to->sa.sa_family != AF_UNIX) {
        set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, TCP_UNACKNOWLEDGED_MS);
        if (source && source->length) {
            /* Without this a bind() to a source address uses up one of its ports for all destinations
             * together. */
            set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
            if (bind(fd, &source->sa, source->length) != 0)
                goto failed;
        }
    }
    if (connect(fd, &to->sa, to->length) != 0 && errno != EINPROGRESS)
        goto failed;
    stream_open(stream, loop, fd, handler);
    return 0;

failed:
    error = errno;
    close(fd);
    return -error;
}

bool stream_own_fault(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS ||
           error == -EADDRNOTAVAIL || error == -EADDRINUSE;
}

bool stream_connected(const struct stream *stream)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;

    return getpeername(stream->io.fd, (struct sockaddr *)&peer, &length) == 0;
}

ssize_t stream_read(struct stream *stream, void *buffer, size_t size)
{
    ssize_t n;

    if (stream->tls)
        return stream_tls_read(stream, buffer, size);
    do {
        n = recv(stream->io.fd, buffer, size, 0);
    } while (n < 0 && errno == EINTR);
    if (n == 0 && stream->error)
        return -stream->error;
    return n < 0 ? -errno : n;
}

void stream_cut(struct stream *stream)
{
    (void)shutdown(stream->io.fd, SHUT_RDWR);
}

static void forget_unsent(struct stream *stream)
{
    if (stream->secrets && stream->unsent)
        explicit_bzero(stream->unsent, stream->unsent_size);
    free(stream->unsent);
    stream->unsent = NULL;
    stream->unsent_start = stream->unsent_end = stream->unsent_size = 0;
}

/* Have room for `more` octets behind what is unsent. realloc() would leave copies of secrets behind. */
static bool make_room(struct stream *stream, size_t more)
{
    size_t held = stream_unsent(stream), size = held + more;
    char *grown;

    if (stream->unsent_size - stream->unsent_end >= more)
        return true;
    if (stream->unsent_size >= size) {
        memmove(stream->unsent, stream->unsent + stream->unsent_start, held);
        if (stream->secrets)
            explicit_bzero(stream->unsent + held, stream->unsent_start);
    } else {
        size += held / 2; /* a long message against a full socket is not copied once a block */
        grown = malloc(size);
        if (!grown)
            return false;
        if (held)
            memcpy(grown, stream->unsent + stream->unsent_start, held);
        forget_unsent(stream);
        stream->unsent = grown;
        stream->unsent_size = size;
    }
    stream->unsent_start = 0;
    stream->unsent_end = held;
    return true;
}

/* Keep all of `parts` but the first `skip` octets. */
static int keep(struct stream *stream, const struct iovec *parts, int n, size_t skip)
{
    size_t total = 0;

    for (int i = 0; i < n; i++)
        total += parts[i].iov_len;
    if (!make_room(stream, total - skip)) {
        stream_cut(stream);
        return -ENOMEM;
    }
    for (int i = 0; i < n; i++) {
        size_t part = parts[i].iov_len;

        if (skip >= part) {
            skip -= part;
            continue;
        }
        memcpy(stream->unsent + stream->unsent_end, (const char *)parts[i].iov_base + skip, part - skip);
        stream->unsent_end += part - skip;
        skip = 0;
    }
    stream_watch(stream);
    return 0;
}

ssize_t stream_send_once(struct stream *stream, const struct iovec *parts, int n)
{
    struct msghdr message = { .msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)n };
    int fd = stream->io.fd;
    ssize_t sent;

    do {
        sent = n == 1 ? send(fd, parts[0].iov_base, parts[0].iov_len, MSG_NOSIGNAL)
                      : sendmsg(fd, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return sent;
    /* A connect still in progress takes octets later, like a full socket. */
    if (errno == EAGAIN || errno == ENOTCONN)
        return 0;
    /* The kernel tells an error once: the owner asks for it by reading, where it would now find a bare end.
     * EPIPE is no more than that. */
    if (errno != EPIPE)
        stream->error = errno;
    return -errno;
}

int stream_send(struct stream *stream, const struct iovec *parts, int n)
{
    size_t total = 0;
    ssize_t sent = 0;

    for (int i = 0; i < n; i++)
        total += parts[i].iov_len;
    if (!total)
        return 0;
    if (!stream->unsent) {
        sent = stream_send_once(stream, parts, n);
        if (sent < 0)
            return (int)sent;
        if ((size_t)sent == total)
            return 0;
    }
    return keep(stream, parts, n, (size_t)sent);
}

int stream_write(struct stream *stream, const struct iovec *parts, int n)
{
    return stream->tls ? stream_tls_write(stream, parts, n) : stream_send(stream, parts, n);
}

size_t stream_unsent(const struct stream *stream)
{
    return stream->unsent_end - stream->unsent_start;
}

/* The kernel has room again. */
static void drain(struct stream *stream)
{
    struct iovec part = { stream->unsent + stream->unsent_start, stream_unsent(stream) };
    ssize_t sent = stream_send_once(stream, &part, 1);

    /* A dead connection: what is unsent never will be. The owner learns of it by reading, as it always does.
     */
    if (sent < 0)
        sent = (ssize_t)part.iov_len;
    stream->unsent_start += (size_t)sent;
    if ((size_t)sent == part.iov_len) {
        forget_unsent(stream);
        if (stream->tls)
            stream_tls_drained(stream);
        stream_watch(stream);
        stream->handler(stream, STREAM_DRAINED);
    }
}

void stream_want_read(struct stream *stream, bool wanted)
{
    stream->read_wanted = wanted;
    if (wanted && !stream->reading) {
        stream->reading = true;
        stream_watch(stream);
    } else if (wanted && stream->tls) {
        stream_tls_announce(stream);
    }
}

static void on_ready(struct ev_loop *loop, ev_io *io, int events)
{
    struct stream *stream = (struct stream *)io; /* io is the first member */
    int pending;

    (void)loop;
    if ((events & EV_READ) && !stream->read_wanted && !(stream->tls && stream_tls_insists(stream))) {
        stream->reading = false;
        stream_watch(stream);
        events &= ~EV_READ;
    }
    /* Each handler may close the stream or free its owner: nothing of it is touched behind a call. When both
     * events fire, the write comes first and the level-triggered read fires again. */
    pending = events & (stream->unsent ? EV_WRITE : 0);
    if (pending) {
        if (stream->tls)
            stream_tls_announce(stream);
        drain(stream);
    } else if (events & EV_READ) {
        if (stream->tls)
            stream_tls_readable(stream);
        else
            stream->handler(stream, STREAM_READABLE);
    }
}

void stream_shutdown(struct stream *stream)
{
    if (stream->tls)
        stream_tls_shutdown(stream);
    else
        (void)shutdown(stream->io.fd, SHUT_WR);
}

static void end(struct stream *stream, bool farewell)
{
    if (stream->tls)
        stream_tls_end(stream, farewell);
    /* The loop forgets a closed descriptor by itself: no system call but close() is made here. */
    ev_io_stop(stream->loop, &stream->io);
    close(stream->io.fd);
    stream->io.fd = -1;
    forget_unsent(stream);
}

void stream_close(struct stream *stream)
{
    if (stream->io.fd >= 0)
        end(stream, true);
}

void stream_abort(struct stream *stream)
{
    struct linger reset = { .l_onoff = 1, .l_linger = 0 };

    if (stream->io.fd < 0)
        return;
    (void)setsockopt(stream->io.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    end(stream, false);
}
