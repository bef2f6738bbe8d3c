/*
 * The floor of an idle TLS session: what libssl itself holds. bare_tls PORT PEM-FILE
 *
 * It accepts connections, shakes hands, lets libssl release its buffers, and answers nothing that comes
 * after. A connection is an SSL object and nothing else here, so what a proxy needs beyond this is the
 * proxy's own.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static SSL_CTX *context_new(const char *pem)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (!context || SSL_CTX_use_certificate_chain_file(context, pem) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, pem, SSL_FILETYPE_PEM) != 1)
        return NULL;
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* resumption is by ticket */
    return context;
}

static int listener_new(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                   .sin_port = htons((uint16_t)port) };

    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1024) != 0)
        return -1;
    return fd;
}

static void end(SSL *ssl)
{
    close(SSL_get_fd(ssl)); /* epoll forgets it */
    SSL_free(ssl);
    ERR_clear_error();
}

static void on_connection(int poll, int listener, SSL_CTX *context)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    SSL *ssl;

    if (fd < 0)
        return;
    ssl = SSL_new(context);
    if (!ssl || SSL_set_fd(ssl, fd) != 1 ||
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = EPOLLIN, .data.ptr = ssl }) != 0)
        abort();
    SSL_set_accept_state(ssl);
}

/* A read shakes hands first. It is the read that finds nothing which releases the buffer. */
static void on_octets(SSL *ssl)
{
    char octets[4096];
    int n;

    do
        n = SSL_read(ssl, octets, sizeof octets);
    while (n > 0);
    if (SSL_get_error(ssl, n) != SSL_ERROR_WANT_READ)
        end(ssl);
}

int main(int argc, char **argv)
{
    struct epoll_event events[64];
    SSL_CTX *context;
    int listener, poll = epoll_create1(0);

    if (argc != 3) {
        fprintf(stderr, "usage: bare_tls PORT PEM-FILE\n");
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    context = context_new(argv[2]);
    if (!context) {
        ERR_print_errors_fp(stderr);
        return 1;
    }
    listener = listener_new(atoi(argv[1]));
    if (listener < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener,
                                  &(struct epoll_event){ .events = EPOLLIN, .data.ptr = NULL }) != 0) {
        perror("bare_tls");
        return 1;
    }
    for (;;) {
        int n = epoll_wait(poll, events, 64, -1);

        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_octets(events[i].data.ptr);
            else
                on_connection(poll, listener, context);
        }
    }
}
