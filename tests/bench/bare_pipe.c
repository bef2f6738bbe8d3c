/*
 * The floor: a proxy that does nothing but move octets, on the same event loop. bare_pipe PORT
 * BACKEND-PORT...
 *
 * No parsing, no health checks, no log, backends in turn, one buffer, no queue (it waits when a socket is
 * full). What Weir and HAProxy need beyond this is what they do for it.
 */
#include <arpa/inet.h>
#include <ev.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct end {
    ev_io io; /* first */
    struct end *other;
};

static char buffer[256 * 1024];
static int n_backends, turn;
static char **backends;

static struct sockaddr_in loopback(const char *port)
{
    return (struct sockaddr_in){ .sin_family = AF_INET,
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                 .sin_port = htons((uint16_t)atoi(port)) };
}

static void end_both(struct ev_loop *loop, struct end *end)
{
    struct end *ends[] = { end, end->other };

    for (int i = 0; i < 2; i++) {
        ev_io_stop(loop, &ends[i]->io);
        close(ends[i]->io.fd);
        free(ends[i]);
    }
}

static void on_octets(struct ev_loop *loop, ev_io *io, int events)
{
    struct end *end = (struct end *)io;
    int to = end->other->io.fd;
    ssize_t n = recv(io->fd, buffer, sizeof buffer, 0), done = 0;

    (void)events;
    while (n > done) {
        ssize_t sent = send(to, buffer + done, (size_t)(n - done), MSG_NOSIGNAL);
        struct pollfd room = { .fd = to, .events = POLLOUT };

        if (sent < 0 && poll(&room, 1, 10000) != 1)
            break;
        done += sent > 0 ? sent : 0;
    }
    if (n <= 0 || done < n)
        end_both(loop, end);
}

static struct end *end_new(struct ev_loop *loop, int fd)
{
    struct end *end = calloc(1, sizeof *end);

    if (!end)
        abort();
    ev_io_init(&end->io, on_octets, fd, EV_READ);
    ev_io_start(loop, &end->io);
    return end;
}

static void on_connection(struct ev_loop *loop, ev_io *io, int events)
{
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK), to, one = 1;
    struct sockaddr_in address = loopback(backends[turn++ % n_backends]);
    struct end *client;

    (void)events;
    if (fd < 0)
        return;
    to = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    (void)setsockopt(to, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)connect(to, (struct sockaddr *)&address, sizeof address);
    client = end_new(loop, fd);
    client->other = end_new(loop, to);
    client->other->other = client;
}

int main(int argc, char **argv)
{
    struct ev_loop *loop = ev_default_loop(0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address;
    ev_io io;

    if (argc < 3) {
        fprintf(stderr, "usage: bare_pipe PORT BACKEND-PORT...\n");
        return 2;
    }
    address = loopback(argv[1]);
    backends = argv + 2;
    n_backends = argc - 2;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1024) != 0) {
        perror("bare_pipe");
        return 1;
    }
    ev_io_init(&io, on_connection, fd, EV_READ);
    ev_io_start(loop, &io);
    ev_run(loop, 0);
    return 0;
}
