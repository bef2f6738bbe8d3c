/*
 * Two streams under TLS on one loop, and what each of them heard. Nothing here waits by the clock: the loop
 * is turned until something has come, or so often that it never will.
 *
 * A test includes net/stream.c and net/stream_tls.c in front of this, to see inside them.
 */
#ifndef WEIR_TESTS_STREAM_FIXTURE_H
#define WEIR_TESTS_STREAM_FIXTURE_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/unit/tls_fixture.h"

#define TURNS 200000 /* of the loop, after which nothing more will come */
#define OPEN  1      /* `end->ended` before the end */

static struct fixture fixture;
static struct ev_loop *loop;
static struct tls_server *server;
static struct tls_client *client, *sceptic; /* the sceptic knows other authorities */

/* One stream and what it heard. */
struct party {
    struct stream stream;
    char *got;
    size_t n, size;
    size_t most; /* octets a read */
    ssize_t ended;
    unsigned secured, readable, drained;
    bool halt;       /* want no more after a read */
    bool close_next; /* close and free the buffer in the next event */
};

static inline void grow(struct party *party)
{
    if (party->size - party->n < party->most) {
        party->size = 2 * party->size + party->most;
        party->got = realloc(party->got, party->size);
        assert_non_null(party->got);
    }
}

static inline void on_party(struct stream *stream, enum stream_event event)
{
    struct party *party = (struct party *)stream;
    ssize_t n;

    party->secured += event == STREAM_SECURED;
    party->drained += event == STREAM_DRAINED;
    party->readable += event == STREAM_READABLE;
    if (party->close_next) {
        party->close_next = false;
        stream_close(stream);
        memset(stream, 0xaa, sizeof *stream);
        return;
    }
    if (event != STREAM_READABLE)
        return;
    grow(party);
    n = stream_read(stream, party->got + party->n, party->most);
    if (n > 0)
        party->n += (size_t)n;
    else if (n != -EAGAIN)
        party->ended = n;
    if (party->halt || party->ended != OPEN)
        stream_want_read(stream, false);
}

static inline void open_party(struct party *party, int fd)
{
    memset(party, 0, sizeof *party);
    party->most = 65536;
    party->ended = OPEN;
    stream_open(&party->stream, loop, fd, on_party);
}

static inline void close_party(struct party *party)
{
    stream_close(&party->stream);
    free(party->got);
    party->got = NULL;
}

static inline void make_pair(int pair[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
}

/* Turn the loop until `condition` holds. */
#define AWAIT(condition)                                                                                     \
    do {                                                                                                     \
        int turns = 0;                                                                                       \
        while (!(condition)) {                                                                               \
            if (++turns > TURNS)                                                                             \
                fail_msg("never: %s", #condition);                                                           \
            ev_run(loop, EVRUN_NOWAIT);                                                                      \
        }                                                                                                    \
    } while (0)

/* Whatever is going to happen has happened: all of it is in the kernel or in the streams. */
static inline void settle(void)
{
    for (int i = 0; i < 50; i++)
        ev_run(loop, EVRUN_NOWAIT);
}

static inline void begin_pair(struct party *a, struct party *b)
{
    int pair[2];

    make_pair(pair);
    open_party(a, pair[0]);
    open_party(b, pair[1]);
    assert_int_equal(stream_accept_tls(&a->stream, server, NULL, 0), 0);
    assert_int_equal(stream_connect_tls(&b->stream, client, "a.example", NULL), 0);
}

/* `a` is the server. */
static inline void secure_pair(struct party *a, struct party *b)
{
    begin_pair(a, b);
    AWAIT(a->secured && b->secured);
    settle(); /* tickets too */
    a->readable = b->readable = 0;
}

static inline int say(struct party *party, const void *octets, size_t size)
{
    return stream_write(&party->stream, &(struct iovec){ (void *)octets, size }, 1);
}

static inline char pattern(size_t i)
{
    return (char)(i * 31 + i / 251);
}

static inline char *make_pattern(size_t size)
{
    char *block = malloc(size);

    assert_non_null(block);
    for (size_t i = 0; i < size; i++)
        block[i] = pattern(i);
    return block;
}

static inline void check_pattern(const struct party *party, size_t size)
{
    assert_int_equal(party->n, size);
    for (size_t i = 0; i < size; i++)
        if (party->got[i] != pattern(i))
            fail_msg("octet %zu is another", i);
}

static inline void small_buffers(int fd)
{
    int size = 4096;

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), 0);
}

/* A listening socket on loopback, and where. */
static inline int listen_loopback(struct address *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof in;

    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(fd, 5), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &length), 0);
    memset(address, 0, sizeof *address);
    memcpy(&address->sa, &in, sizeof in);
    address->length = sizeof in;
    return fd;
}

static inline void complain(void *arg, enum tls_culprit culprit, size_t index, const char *text)
{
    (void)arg;
    fail_msg("%d %zu: %s", (int)culprit, index, text);
}

static inline int party_setup(void **state)
{
    struct fixture_wish wish = { .key = FIXTURE_EC,
                                 .common_name = "Relay \xc3\x84",
                                 .names = "DNS:a.example",
                                 .issuer = &fixture.authority };
    struct tls_client_settings settings = { .verify = true };
    const char *path;

    (void)state;
    fixture_open(&fixture);
    loop = ev_loop_new(0);
    path = fixture_file(&fixture, "a.pem", &wish);
    server = tls_server_create(&(struct tls_server_settings){ .listener = "smtp",
                                                              .certificates = &path,
                                                              .n_certificates = 1,
                                                              .ticket_keys = "",
                                                              .client_ca = "" },
                               complain, NULL);
    settings.ca = fixture_path(&fixture, "ca.pem");
    client = tls_client_create(&settings, complain, NULL);
    settings.ca =
        fixture_file(&fixture, "other.pem",
                     &(struct fixture_wish){
                         .key = FIXTURE_EC, .other_key = true, .common_name = "Others", .authority = true });
    sceptic = tls_client_create(&settings, complain, NULL);
    return !server || !client || !sceptic;
}

static inline int party_teardown(void **state)
{
    (void)state;
    tls_server_free(&server);
    tls_client_free(&client);
    tls_client_free(&sceptic);
    ev_loop_destroy(loop);
    fixture_close(&fixture);
    return 0;
}

#endif
