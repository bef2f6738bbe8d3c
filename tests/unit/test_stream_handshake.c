/* Streams under TLS: handshakes, what comes in front of them, and how they fail. */
#include <errno.h>

#include "net/stream.c"
#include "net/stream_tls.c"
#include "tests/unit/stream_fixture.h"

/* --- in front of the handshake --- */

static void test_an_unsent_prefix_goes_first(void **state)
{
    char *octets = make_pattern(400000);
    struct party a, b;
    int pair[2];

    (void)state;
    make_pair(pair);
    open_party(&a, pair[0]);
    open_party(&b, pair[1]);
    stream_want_read(&b.stream, false);
    assert_int_equal(say(&a, octets, 400000), 0);
    assert_true(stream_unsent(&a.stream) > 0);
    /* The one who speaks next is the client's side of TLS: its hello lies behind the prefix. */
    assert_int_equal(stream_connect_tls(&a.stream, client, "a.example", NULL), 0);
    b.most = 1000;
    stream_want_read(&b.stream, true);
    AWAIT(b.n >= 399000);
    b.most = 400000 - b.n;
    if (b.most)
        AWAIT(b.n == 400000);
    b.most = 65536;
    check_pattern(&b, 400000);
    assert_int_equal(stream_accept_tls(&b.stream, server, NULL, 0), 0);
    AWAIT(a.secured && b.secured);
    assert_int_equal(say(&a, "x", 1), 0);
    AWAIT(b.n == 400001);
    close_party(&a);
    close_party(&b);
    free(octets);
}

/* A PROXY header, and the hello that was read together with it. */
static void test_octets_read_before_tls(void **state)
{
    static const char prefix[] = "PROXY UNKNOWN\r\n";
    struct party a, b;
    struct address address;
    int listener = listen_loopback(&address), fd;
    char early[4096];
    size_t n = 0;

    (void)state;
    for (size_t piece = 1; piece < 5000; piece += 2000) {
        memset(&b, 0, sizeof b);
        b.most = 65536;
        b.ended = OPEN;
        n = 0;
        assert_int_equal(stream_connect(&b.stream, loop, &address, NULL, on_party), 0);
        assert_int_equal(say(&b, prefix, sizeof prefix - 1), 0);
        assert_int_equal(stream_connect_tls(&b.stream, client, "a.example", NULL), 0);
        fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        assert_true(fd >= 0);
        for (int i = 0; n < sizeof prefix - 1 + piece && i < 1000; i++) {
            ssize_t got =
                recv(fd, early + n,
                     (sizeof early - n < sizeof prefix - 1 + piece - n) ? sizeof early - n
                                                                        : sizeof prefix - 1 + piece - n,
                     MSG_DONTWAIT);
            n += got > 0 ? (size_t)got : 0;
            ev_run(loop, EVRUN_NOWAIT);
        }
        assert_memory_equal(early, prefix, sizeof prefix - 1);
        assert_true(n > sizeof prefix - 1);
        open_party(&a, fd);
        assert_int_equal(
            stream_accept_tls(&a.stream, server, early + sizeof prefix - 1, n - sizeof prefix + 1), 0);
        AWAIT(a.secured && b.secured);
        close_party(&a);
        close_party(&b);
    }
    close(listener);
}

/* --- handshakes that fail --- */

static void test_plaintext_in_place_of_a_hello(void **state)
{
    struct party a, b;
    int pair[2];

    (void)state;
    make_pair(pair);
    open_party(&a, pair[0]);
    open_party(&b, pair[1]);
    assert_int_equal(stream_accept_tls(&a.stream, server, NULL, 0), 0);
    stream_want_read(&a.stream, false); /* how a handshake ends is told nevertheless */
    assert_int_equal(say(&b, "EHLO client.example\r\n", 21), 0);
    AWAIT(a.ended != OPEN);
    assert_int_equal(a.ended, -EPROTO);
    assert_int_equal(a.secured, 0);
    assert_non_null(strstr(stream_tls_failure(&a.stream), "wrong version number"));
    assert_false(stream_tls(&a.stream, NULL));
    assert_int_equal(say(&a, "x", 1), -EPIPE);
    close_party(&a);
    close_party(&b);

    make_pair(pair);
    open_party(&a, pair[0]);
    assert_int_equal(stream_accept_tls(&a.stream, server, "EHLO client.example\r\n", 21), 0);
    assert_int_equal(a.readable, 0); /* never in the call */
    AWAIT(a.ended == -EPROTO);
    close_party(&a);
    close(pair[1]);
}

static void test_closed_during_the_handshake(void **state)
{
    struct party a;
    int pair[2];

    (void)state;
    make_pair(pair);
    open_party(&a, pair[0]);
    assert_int_equal(stream_accept_tls(&a.stream, server, NULL, 0), 0);
    assert_int_equal(send(pair[1], "\x16\x03\x01\x00\x80\x01", 6, 0), 6);
    settle();
    assert_int_equal(a.ended, OPEN);
    close(pair[1]);
    AWAIT(a.ended != OPEN);
    assert_int_equal(a.ended, -EPROTO);
    assert_string_equal(stream_tls_failure(&a.stream), "closed during the handshake");
    close_party(&a);
}

static void test_a_certificate_of_strangers(void **state)
{
    struct party a, b;
    int pair[2];

    (void)state;
    make_pair(pair);
    open_party(&a, pair[0]);
    open_party(&b, pair[1]);
    assert_int_equal(stream_accept_tls(&a.stream, server, NULL, 0), 0);
    assert_int_equal(stream_connect_tls(&b.stream, sceptic, "a.example", NULL), 0);
    AWAIT(a.ended != OPEN && b.ended != OPEN);
    assert_int_equal(b.ended, -EPROTO);
    assert_true(strncmp(stream_tls_failure(&b.stream), "certificate verify failed: ", 27) == 0);
    assert_true(stream_tls_failure(&b.stream)[27] != '\0');
    assert_int_equal(a.ended, -EPROTO);
    assert_non_null(strstr(stream_tls_failure(&a.stream), "unknown ca"));
    close_party(&a);
    close_party(&b);
}

static void test_another_name(void **state)
{
    struct party a, b;
    int pair[2];

    (void)state;
    make_pair(pair);
    open_party(&a, pair[0]);
    open_party(&b, pair[1]);
    assert_int_equal(stream_accept_tls(&a.stream, server, NULL, 0), 0);
    assert_int_equal(stream_connect_tls(&b.stream, client, "b.example", NULL), 0);
    AWAIT(b.ended != OPEN);
    assert_int_equal(b.ended, -EPROTO);
    assert_true(
        strncasecmp(stream_tls_failure(&b.stream), "certificate verify failed: hostname mismatch", 44) == 0);
    close_party(&a);
    close_party(&b);
}

/* The kernel tells the error once, and writing the hello asks first. */
static void test_a_refused_connection(void **state)
{
    struct party b = { .most = 100, .ended = OPEN };
    struct address address;

    (void)state;
    close(listen_loopback(&address));
    if (stream_connect(&b.stream, loop, &address, NULL, on_party) == 0) {
        assert_int_equal(stream_connect_tls(&b.stream, client, "a.example", NULL), 0);
        AWAIT(b.ended != OPEN);
        assert_int_equal(b.ended, -ECONNREFUSED);
        assert_string_equal(stream_tls_failure(&b.stream), "Connection refused");
        close_party(&b);
    }
    b = (struct party){ .most = 100, .ended = OPEN };
    if (stream_connect(&b.stream, loop, &address, NULL, on_party) == 0) {
        (void)say(&b, "PROXY UNKNOWN\r\n", 15);
        AWAIT(b.ended != OPEN);
        assert_int_equal(b.ended, -ECONNREFUSED);
        close_party(&b);
    }
}

/* --- owners that leave --- */

static void test_closed_in_an_event(void **state)
{
    struct party a, b;

    (void)state;
    begin_pair(&a, &b); /* in SECURED, with octets waiting inside */
    a.close_next = true;
    while (!b.secured)
        ev_run(loop, EVRUN_NOWAIT);
    assert_int_equal(say(&b, "x", 1), 0);
    AWAIT(!a.close_next);
    settle();
    assert_int_equal(a.readable, 0);
    free(a.got);
    close_party(&b);

    secure_pair(&a, &b); /* with a fed event pending */
    a.most = 10;
    a.halt = true;
    assert_int_equal(say(&b, "0123456789 and more", 19), 0);
    AWAIT(a.n == 10);
    stream_want_read(&a.stream, true);
    close_party(&a);
    memset(&a, 0xaa, sizeof a);
    settle();
    close_party(&b);

    begin_pair(&a, &b); /* before anything */
    close_party(&a);
    close_party(&b);
    settle();
}

static void test_many_at_once(void **state)
{
    enum { MANY = 40 };
    struct party *parties = calloc(2 * MANY, sizeof *parties);
    int done = 0;

    (void)state;
    for (int i = 0; i < MANY; i++)
        begin_pair(&parties[2 * i], &parties[2 * i + 1]);
    for (int turn = 0; turn < TURNS && done < MANY; turn++) {
        ev_run(loop, EVRUN_NOWAIT);
        done = 0;
        for (int i = 0; i < MANY; i++) {
            struct party *a = &parties[2 * i], *b = &parties[2 * i + 1];
            char text[16];

            snprintf(text, sizeof text, "%07d", i);
            if (a->secured == 1 && b->secured == 1) {
                assert_int_equal(say(b, text, 7), 0);
                a->secured++;
            }
            if (a->n == 7) {
                assert_memory_equal(a->got, text, 7);
                done++;
            }
        }
    }
    assert_int_equal(done, MANY);
    for (int i = 0; i < 2 * MANY; i++)
        close_party(&parties[i]);
    free(parties);
}

/* A session outlives a connection, however that ended. */
static void test_resumption(void **state)
{
    struct tls_resumption resumption = { .session = NULL };
    struct tls_description description;
    struct party a, b;
    int pair[2];

    (void)state;
    for (int i = 0; i < 4; i++) {
        make_pair(pair);
        open_party(&a, pair[0]);
        open_party(&b, pair[1]);
        assert_int_equal(stream_accept_tls(&a.stream, server, NULL, 0), 0);
        assert_int_equal(stream_connect_tls(&b.stream, client, "a.example", &resumption), 0);
        AWAIT(a.secured && b.secured);
        assert_true(stream_tls(&b.stream, &description));
        assert_int_equal(description.resumed, i > 0);
        assert_true(description.certified);
        settle(); /* the ticket */
        if (i == 0)
            stream_abort(&b.stream);
        if (i == 1)
            shutdown(a.stream.io.fd, SHUT_RDWR);
        settle();
        close_party(&b);
        close_party(&a);
    }
    tls_resumption_clear(&resumption);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_unsent_prefix_goes_first),
        cmocka_unit_test(test_octets_read_before_tls),
        cmocka_unit_test(test_plaintext_in_place_of_a_hello),
        cmocka_unit_test(test_closed_during_the_handshake),
        cmocka_unit_test(test_a_certificate_of_strangers),
        cmocka_unit_test(test_another_name),
        cmocka_unit_test(test_a_refused_connection),
        cmocka_unit_test(test_closed_in_an_event),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_resumption),
    };
    return cmocka_run_group_tests(tests, party_setup, party_teardown);
}
