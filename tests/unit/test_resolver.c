#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/resolver.h"

#define PATIENCE   10.0 /* seconds until a test gives up */
#define TIMEOUT_MS 60
#define TRIES      2
#define HEADER     12 /* RFC 1035 §4.1.1 */
#define TYPE_A     1
#define TYPE_CNAME 5
#define TYPE_AAAA  28

/*
 * A name server of a few lines, on the loop of the test. The first label of the name says what it does.
 */
struct server {
    ev_io io;
    struct sockaddr_in client;
    unsigned asked;
    uint8_t out[4096];
    size_t size;
    char text[32]; /* for resolver_open() */
};

static void put16(struct server *s, unsigned n)
{
    s->out[s->size++] = (uint8_t)(n >> 8);
    s->out[s->size++] = (uint8_t)n;
}

static void put_record(struct server *s, unsigned type, unsigned ttl, const void *data, size_t size)
{
    put16(s, 0xc000 | HEADER); /* the name of the question */
    put16(s, type);
    put16(s, 1);
    put16(s, ttl >> 16);
    put16(s, ttl & 0xffff);
    put16(s, (unsigned)size);
    memcpy(s->out + s->size, data, size);
    s->size += size;
    s->out[7]++; /* ANCOUNT */
}

static void put_ip(struct server *s, const char *ip, unsigned ttl)
{
    uint8_t octets[16];
    int family = strchr(ip, ':') ? AF_INET6 : AF_INET;

    assert_int_equal(inet_pton(family, ip, octets), 1);
    put_record(s, family == AF_INET ? TYPE_A : TYPE_AAAA, ttl, octets, family == AF_INET ? 4 : 16);
}

static void send_reply(struct server *s)
{
    ssize_t n = sendto(s->io.fd, s->out, s->size, 0, (struct sockaddr *)&s->client, sizeof s->client);

    assert_int_equal(n, s->size);
}

/* Answer a question for A (what is not said here) or AAAA. */
static void answer(struct server *s, const char *label, unsigned type)
{
    if (strcmp(label, "absent") == 0) {
        s->out[3] |= 3; /* NXDOMAIN */
    } else if (strcmp(label, "broken") == 0) {
        s->out[3] |= 2; /* SERVFAIL */
    } else if (strcmp(label, "both") == 0) {
        put_ip(s, type == TYPE_A ? "192.0.2.1" : "2001:db8::1", type == TYPE_A ? 60 : 30);
        put_ip(s, type == TYPE_A ? "192.0.2.2" : "2001:db8::2", 90);
        put_ip(s, type == TYPE_A ? "192.0.2.1" : "2001:db8::1", 60); /* again */
    } else if (type == TYPE_AAAA) {
        return; /* no data */
    } else if (strcmp(label, "one") == 0) {
        put_ip(s, "192.0.2.10", 300);
    } else if (strcmp(label, "alias") == 0) {
        put_record(s, TYPE_CNAME, 7, "\4real\4test", 11);
        put_ip(s, "192.0.2.20", 300);
        memcpy(s->out + s->size - 16, "\xc0", 1);
        s->out[s->size - 15] = (uint8_t)(s->size - 16 - 11); /* the address is the alias' target's */
    } else if (strcmp(label, "many") == 0) {
        /* Downwards round a corner, some twice: what is left out must not hang on the order. */
        for (unsigned i = 0; i < RESOLVER_ADDRESSES_MAX + 10; i++) {
            char ip[16];

            snprintf(ip, sizeof ip, "192.0.2.%u", 100 + (2 * RESOLVER_ADDRESSES_MAX - i) % 70);
            put_ip(s, ip, 20);
        }
    } else if (strcmp(label, "spoof") == 0) {
        size_t bare = s->size;

        s->out[0] ^= 0xff; /* another query's id */
        put_ip(s, "203.0.113.66", 300);
        send_reply(s);
        s->size = bare;
        s->out[0] ^= 0xff;
        s->out[7] = 0;
        put_ip(s, "192.0.2.30", 300);
    } else if (strcmp(label, "mixed") == 0) {
        put_record(s, TYPE_A, 300, "\1\2\3", 3); /* an address of three octets */
    }
}

static void on_question(struct ev_loop *loop, ev_io *io, int events)
{
    struct server *s = io->data;
    socklen_t length = sizeof s->client;
    ssize_t n = recvfrom(io->fd, s->out, sizeof s->out, 0, (struct sockaddr *)&s->client, &length);
    char label[64];
    size_t at = HEADER;

    (void)loop;
    (void)events;
    assert_true(n > HEADER);
    s->asked++;
    snprintf(label, sizeof label, "%.*s", s->out[HEADER], (char *)s->out + HEADER + 1);
    while (s->out[at])
        at += s->out[at] + 1u;
    s->size = at + 5;  /* header and question come back, what is behind (EDNS) does not */
    s->out[2] |= 0x80; /* QR */
    s->out[3] = 0x80;  /* RA, NOERROR */
    s->out[11] = 0;    /* ARCOUNT */
    if (strcmp(label, "silent") == 0)
        return;
    if (strcmp(label, "garbage") == 0) {
        memset(s->out + 4, 0xee, 200); /* behind the right id and flags */
        s->size = 204;
        send_reply(s);
        s->size = 1;
        send_reply(s);
        return;
    }
    answer(s, label, (unsigned)s->out[at + 2]);
    send_reply(s);
}

struct fixture {
    struct ev_loop *loop;
    struct server server;
    struct resolver *resolver;
    ev_timer guard;
    unsigned awaited; /* callbacks that have not come */
    const char *error;
    struct resolver_answer answer;
};

static void on_guard(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)timer;
    (void)events;
    ev_break(loop, EVBREAK_ALL);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    f->loop = ev_loop_new(EVFLAG_AUTO);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    getsockname(fd, (struct sockaddr *)&address, &length);
    snprintf(f->server.text, sizeof f->server.text, "127.0.0.1:%u", ntohs(address.sin_port));
    ev_io_init(&f->server.io, on_question, fd, EV_READ);
    f->server.io.data = &f->server;
    ev_io_start(f->loop, &f->server.io);
    f->resolver = resolver_open_timed(f->loop, f->server.text, TIMEOUT_MS, TRIES);
    assert_non_null(f->resolver);
    ev_timer_init(&f->guard, on_guard, PATIENCE, 0);
    ev_timer_start(f->loop, &f->guard);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    resolver_close(&f->resolver);
    ev_io_stop(f->loop, &f->server.io);
    ev_timer_stop(f->loop, &f->guard);
    close(f->server.io.fd);
    ev_loop_destroy(f->loop);
    free(f);
    return 0;
}

static void on_resolved(void *arg, const char *error, const struct resolver_answer *found)
{
    struct fixture *f = arg;

    assert_true(!error != !found);
    f->error = error;
    if (found)
        f->answer = *found;
    if (--f->awaited == 0)
        ev_break(f->loop, EVBREAK_ALL);
}

static void resolve(struct fixture *f, const char *host)
{
    f->awaited = 1;
    f->error = NULL;
    memset(&f->answer, 0, sizeof f->answer);
    assert_true(resolver_query(f->resolver, host, on_resolved, f));
    assert_int_equal(f->awaited, 1); /* never from inside */
    ev_run(f->loop, 0);
    assert_int_equal(f->awaited, 0);
}

static bool has(const struct fixture *f, const char *ip)
{
    for (size_t i = 0; i < f->answer.n; i++) {
        char text[ADDRESS_TEXT_MAX];

        address_format(&f->answer.addresses[i], text);
        if (strncmp(text, ip, strlen(ip)) == 0 && strcmp(text + strlen(ip), ":0") == 0)
            return true;
    }
    return false;
}

static void test_hosts(void **state)
{
    struct fixture *f = *state;

    resolve(f, "localhost");
    assert_null(f->error);
    assert_true(has(f, "127.0.0.1") || has(f, "[::1]"));
    assert_int_equal(f->server.asked, 0);
}

static void test_literal(void **state)
{
    struct fixture *f = *state;

    resolve(f, "192.0.2.77");
    assert_null(f->error);
    assert_int_equal(f->answer.n, 1);
    assert_true(has(f, "192.0.2.77"));
    assert_int_equal(f->server.asked, 0);
}

static void test_one(void **state)
{
    struct fixture *f = *state;

    resolve(f, "one.test.");
    assert_null(f->error);
    assert_int_equal(f->answer.n, 1);
    assert_int_equal(f->answer.ttl, 300);
    assert_true(has(f, "192.0.2.10"));
    assert_int_equal(f->answer.addresses[0].length, sizeof(struct sockaddr_in));
    assert_int_equal(f->server.asked, 2); /* A and AAAA */
}

static void test_several(void **state)
{
    struct fixture *f = *state;

    resolve(f, "both.test.");
    assert_null(f->error);
    assert_int_equal(f->answer.n, 4);
    assert_int_equal(f->answer.ttl, 30);
    assert_true(has(f, "192.0.2.1") && has(f, "192.0.2.2"));
    assert_true(has(f, "[2001:db8::1]") && has(f, "[2001:db8::2]"));
    resolve(f, "many.test.");
    assert_null(f->error);
    assert_int_equal(f->answer.n, RESOLVER_ADDRESSES_MAX);
    assert_true(f->answer.more);
    for (unsigned i = 0; i < RESOLVER_ADDRESSES_MAX; i++)
        assert_int_equal(ntohl(f->answer.addresses[i].in.sin_addr.s_addr), 0xc0000200 + 100 + i);
    assert_int_equal(f->answer.ttl, 20);
}

static void test_alias(void **state)
{
    struct fixture *f = *state;

    resolve(f, "alias.test.");
    assert_null(f->error);
    assert_int_equal(f->answer.n, 1);
    assert_true(has(f, "192.0.2.20"));
    assert_int_equal(f->answer.ttl, 7);
}

static void test_spoof(void **state)
{
    struct fixture *f = *state;

    resolve(f, "spoof.test.");
    assert_null(f->error);
    assert_int_equal(f->answer.n, 1);
    assert_true(has(f, "192.0.2.30"));
}

static void test_errors(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *host, *part;
    } table[] = {
        {"absent.test.",   "not found"},
        { "empty.test.",   "no data"  },
        { "broken.test.",  ""         },
        { "garbage.test.", ""         },
        { "mixed.test.",   ""         },
        { "silent.test.",  "Timeout"  },
        { "a..test.",      ""         },
        { "",              ""         },
    };

    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        resolve(f, table[i].host);
        if (!f->error || !strstr(f->error, table[i].part))
            fail_msg("\"%s\": %s", table[i].host, f->error ? f->error : "resolved");
    }
    resolve(f, "one.test."); /* all is well again */
    assert_null(f->error);
}

static void test_silence(void **state)
{
    struct fixture *f = *state;
    ev_tstamp began = ev_time();

    resolve(f, "silent.test.");
    assert_string_equal(f->error, "Timeout while contacting DNS servers");
    assert_true(ev_time() - began >= TIMEOUT_MS * TRIES / 1000.0);
    assert_true(ev_time() - began < 2);
    assert_in_range(f->server.asked, 2 * TRIES - 1, 2 * TRIES);
}

static void test_many_at_once(void **state)
{
    struct fixture *f = *state;

    f->awaited = 100;
    for (unsigned i = 0; i < 100; i++)
        assert_true(resolver_query(f->resolver, i % 2 ? "one.test." : "localhost", on_resolved, f));
    ev_run(f->loop, 0);
    assert_int_equal(f->awaited, 0);
}

static void on_never(void *arg, const char *error, const struct resolver_answer *found)
{
    (void)arg;
    (void)found;
    fail_msg("called after the close: %s", error ? error : "an answer");
}

static void test_close(void **state)
{
    struct fixture *f = *state;

    assert_true(resolver_query(f->resolver, "silent.test.", on_never, f));
    assert_true(resolver_query(f->resolver, "localhost", on_never, f)); /* done, but not delivered */
    resolver_close(&f->resolver);
    assert_null(f->resolver);
    resolver_close(&f->resolver);
    f->resolver = resolver_open_timed(f->loop, f->server.text, TIMEOUT_MS, TRIES);
    assert_true(resolver_query(f->resolver, "silent.test.", on_never, f));
    while (f->server.asked == 0)
        ev_run(f->loop, EVRUN_ONCE); /* the question is on its way */
    resolver_close(&f->resolver);
    f->resolver = resolver_open_timed(f->loop, f->server.text, TIMEOUT_MS, TRIES);
    resolve(f, "one.test.");
    assert_null(f->error);
}

static void on_close_here(void *arg, const char *error, const struct resolver_answer *found)
{
    struct fixture *f = arg;

    (void)found;
    assert_null(error);
    f->awaited--;
    resolver_close(&f->resolver);
    ev_break(f->loop, EVBREAK_ALL);
}

static void test_close_inside(void **state)
{
    struct fixture *f = *state;

    f->awaited = 1;
    assert_true(resolver_query(f->resolver, "localhost", on_close_here, f));
    assert_true(resolver_query(f->resolver, "localhost", on_never, f));
    assert_true(resolver_query(f->resolver, "one.test.", on_never, f));
    ev_run(f->loop, 0);
    assert_int_equal(f->awaited, 0);
    ev_run(f->loop, EVRUN_NOWAIT);
    assert_null(f->resolver);
}

static void on_ask_again(void *arg, const char *error, const struct resolver_answer *found)
{
    struct fixture *f = arg;

    (void)found;
    assert_null(error);
    assert_true(resolver_query(f->resolver, "one.test.", on_resolved, f));
}

static void test_ask_inside(void **state)
{
    struct fixture *f = *state;

    f->awaited = 1;
    assert_true(resolver_query(f->resolver, "both.test.", on_ask_again, f));
    ev_run(f->loop, 0);
    assert_int_equal(f->awaited, 0);
    assert_true(has(f, "192.0.2.10"));
}

static void test_servers(void **state)
{
    struct fixture *f = *state;
    struct resolver *r = resolver_open(f->loop, NULL);

    assert_non_null(r);
    resolver_close(&r);
    assert_null(resolver_open(f->loop, "not an address"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_hosts),        TEST(test_literal), TEST(test_one),          TEST(test_several),
        TEST(test_alias),        TEST(test_spoof),   TEST(test_errors),       TEST(test_silence),
        TEST(test_many_at_once), TEST(test_close),   TEST(test_close_inside), TEST(test_ask_inside),
        TEST(test_servers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
