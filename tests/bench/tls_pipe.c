/*
 * What smtp-source lacks: it takes plain SMTP and speaks STARTTLS to a proxy. tls_pipe PORT PROXY-PORT
 * [starttls]
 *
 * One thread for all sessions, so that a proxy wakes one peer, as it does with smtp-source itself; waking a
 * thread for each session, as stunnel has, costs the proxy as much again as TLS. Without `starttls` it moves
 * octets on the same way, which is what the figure with TLS is to be compared with.
 */
#include <arpa/inet.h>
#include <ev.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct session {
    ev_io source, proxy;
    SSL *ssl; /* towards the proxy; NULL: plain */
};

static char buffer[64 * 1024];
static const char *proxy_port;
static SSL_CTX *context; /* NULL: plain */

static struct sockaddr_in loopback(const char *port)
{
    return (struct sockaddr_in){ .sin_family = AF_INET,
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                 .sin_port = htons((uint16_t)atoi(port)) };
}

static void end(struct ev_loop *loop, struct session *session)
{
    ev_io_stop(loop, &session->source);
    ev_io_stop(loop, &session->proxy);
    close(session->source.fd);
    close(session->proxy.fd);
    SSL_free(session->ssl);
    free(session);
    ERR_clear_error();
}

/* Until there is room: a peer that is this slow is not what is measured. */
static bool await_room(int fd)
{
    struct pollfd room = { .fd = fd, .events = POLLOUT };

    return poll(&room, 1, 10000) == 1;
}

static bool write_all(int fd, SSL *ssl, const char *octets, int size)
{
    for (int done = 0; done < size;) {
        int n = ssl ? SSL_write(ssl, octets + done, size - done)
                    : (int)send(fd, octets + done, (size_t)(size - done), MSG_NOSIGNAL);

        if (n > 0)
            done += n;
        else if ((ssl && SSL_get_error(ssl, n) != SSL_ERROR_WANT_WRITE) || !await_room(fd))
            return false;
    }
    return true;
}

static void on_source(struct ev_loop *loop, ev_io *io, int events)
{
    struct session *session = io->data;
    int n = (int)recv(io->fd, buffer, sizeof buffer, 0);

    (void)events;
    if (n <= 0 || !write_all(session->proxy.fd, session->ssl, buffer, n))
        end(loop, session);
}

static void on_proxy(struct ev_loop *loop, ev_io *io, int events)
{
    struct session *session = io->data;
    int n;

    (void)events;
    if (!session->ssl) {
        n = (int)recv(io->fd, buffer, sizeof buffer, 0);
        if (n <= 0 || !write_all(session->source.fd, NULL, buffer, n))
            end(loop, session);
        return;
    }
    while ((n = SSL_read(session->ssl, buffer, sizeof buffer)) > 0) {
        if (!write_all(session->source.fd, NULL, buffer, n)) {
            n = 0;
            break;
        }
    }
    if (n == 0 || SSL_get_error(session->ssl, n) != SSL_ERROR_WANT_READ)
        end(loop, session);
}

/* One reply, while the socket still blocks. Its length, or 0. */
static size_t reply(int fd, char *text, size_t size)
{
    size_t length = 0;
    ssize_t n;

    while (length < size && (n = recv(fd, text + length, size - length, 0)) > 0) {
        const char *line = text;
        const char *next;

        length += (size_t)n;
        for (; (next = memchr(line, '\n', length - (size_t)(line - text))) != NULL; line = next + 1)
            if (next - line > 3 && line[3] == ' ')
                return *text == '2' ? length : 0;
    }
    return 0;
}

/* The banner is passed on when all this is over: then the source may begin. */
static SSL *start_tls(int fd, int source)
{
    static const char ehlo[] = "EHLO pipe.bench.test\r\n", starttls[] = "STARTTLS\r\n";
    char banner[512], text[4096];
    size_t length = reply(fd, banner, sizeof banner);
    SSL *ssl = SSL_new(context);

    if (ssl && length > 0 && write_all(fd, NULL, ehlo, sizeof ehlo - 1) && reply(fd, text, sizeof text) &&
        write_all(fd, NULL, starttls, sizeof starttls - 1) && reply(fd, text, sizeof text) &&
        SSL_set_fd(ssl, fd) == 1 && SSL_connect(ssl) == 1 && write_all(source, NULL, banner, (int)length))
        return ssl;
    SSL_free(ssl);
    return NULL;
}

static void on_connection(struct ev_loop *loop, ev_io *io, int events)
{
    int source = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK), one = 1;
    int proxy = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = loopback(proxy_port);
    struct session *session = calloc(1, sizeof *session);

    (void)events;
    if (source < 0 || proxy < 0 || !session)
        abort();
    (void)setsockopt(proxy, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(proxy, (struct sockaddr *)&address, sizeof address) != 0 ||
        (context && !(session->ssl = start_tls(proxy, source)))) {
        ERR_print_errors_fp(stderr);
        close(source);
        close(proxy);
        free(session);
        return;
    }
    (void)fcntl(proxy, F_SETFL, O_NONBLOCK);
    ev_io_init(&session->source, on_source, source, EV_READ);
    ev_io_init(&session->proxy, on_proxy, proxy, EV_READ);
    session->source.data = session->proxy.data = session;
    ev_io_start(loop, &session->source);
    ev_io_start(loop, &session->proxy);
}

int main(int argc, char **argv)
{
    struct ev_loop *loop = ev_default_loop(0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address;
    ev_io io;

    if (argc < 3 || (argc > 3 && strcmp(argv[3], "starttls") != 0)) {
        fprintf(stderr, "usage: tls_pipe PORT PROXY-PORT [starttls]\n");
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    address = loopback(argv[1]);
    proxy_port = argv[2];
    if (argc > 3 && !(context = SSL_CTX_new(TLS_client_method())))
        abort();
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1024) != 0) {
        perror("tls_pipe");
        return 1;
    }
    ev_io_init(&io, on_connection, fd, EV_READ);
    ev_io_start(loop, &io);
    ev_run(loop, 0);
    return 0;
}
