/* Streams under TLS: octets, who wants them, and how it ends. */
#include <errno.h>
#include <sys/socket.h>

static unsigned n_sends, n_receives;

static ssize_t counted_send(int fd, const void *octets, size_t size, int flags);
static ssize_t counted_sendmsg(int fd, const struct msghdr *message, int flags);
static ssize_t counted_recv(int fd, void *octets, size_t size, int flags);

#define send    counted_send
#define sendmsg counted_sendmsg
#define recv    counted_recv
#include "net/stream.c"
#include "net/stream_tls.c"
#undef send
#undef sendmsg
#undef recv

static ssize_t counted_send(int fd, const void *octets, size_t size, int flags)
{
    n_sends++;
    return send(fd, octets, size, flags);
}

static ssize_t counted_sendmsg(int fd, const struct msghdr *message, int flags)
{
    n_sends++;
    return sendmsg(fd, message, flags);
}

static ssize_t counted_recv(int fd, void *octets, size_t size, int flags)
{
    n_receives++;
    return recv(fd, octets, size, flags);
}

#include "tests/unit/stream_fixture.h"

/* --- octets --- */

static void test_echo(void **state)
{
    struct party a, b;
    struct tls_description description;

    (void)state;
    begin_pair(&a, &b);
    assert_false(stream_tls(&b.stream, NULL));
    assert_int_equal(say(&b, "x", 1), -EPIPE);
    AWAIT(a.secured && b.secured);
    assert_int_equal(say(&b, "ping", 4), 0);
    AWAIT(a.n == 4);
    assert_int_equal(say(&a, "pong!", 5), 0);
    AWAIT(b.n == 5);
    assert_memory_equal(a.got, "ping", 4);
    assert_memory_equal(b.got, "pong!", 5);

    assert_true(stream_tls(&a.stream, &description));
    assert_string_equal(description.version, "TLSv1.3");
    assert_string_equal(description.sni, "a.example");
    assert_false(description.certified);
    assert_true(stream_tls(&b.stream, &description));
    assert_true(strncmp(description.cipher, "TLS_", 4) == 0);
    assert_true(description.certified);
    assert_false(description.resumed);
    assert_string_equal(description.common_name, "Relay \xc3\x84");
    assert_string_equal(stream_tls_failure(&b.stream), "");
    close_party(&a);
    close_party(&b);
}

static void carry(int from, int to)
{
    char octet;

    if (recv(from, &octet, 1, MSG_DONTWAIT) == 1)
        assert_int_equal(send(to, &octet, 1, MSG_DONTWAIT), 1);
}

static void test_octet_by_octet(void **state)
{
    struct party a, b;
    int left[2], right[2];

    (void)state;
    make_pair(left);
    make_pair(right);
    open_party(&a, left[0]);
    open_party(&b, right[0]);
    assert_int_equal(stream_accept_tls(&a.stream, server, NULL, 0), 0);
    assert_int_equal(stream_connect_tls(&b.stream, client, "a.example", NULL), 0);
    for (int i = 0; i < TURNS && b.n < 4; i++) {
        carry(left[1], right[1]);
        carry(right[1], left[1]);
        ev_run(loop, EVRUN_NOWAIT);
        if (a.secured == 1 && b.secured == 1 && !a.n && !a.drained) {
            assert_int_equal(say(&b, "ping", 4), 0);
            a.drained = 1; /* said */
        }
        if (a.n == 4 && a.readable < 1000) {
            assert_int_equal(say(&a, "pong", 4), 0);
            a.readable = 1000;
        }
    }
    assert_int_equal(b.n, 4);
    assert_memory_equal(a.got, "ping", 4);
    assert_memory_equal(b.got, "pong", 4);
    close_party(&a);
    close_party(&b);
    close(left[1]);
    close(right[1]);
}

/* Both directions are full all the time, and nobody reads whole records. */
static void test_much_both_ways(void **state)
{
    size_t size = 10 << 20, block = 100001, sent_a = 0, sent_b = 0;
    char *octets = make_pattern(size);
    struct party a, b;

    (void)state;
    begin_pair(&a, &b);
    small_buffers(a.stream.io.fd);
    small_buffers(b.stream.io.fd);
    AWAIT(a.secured && b.secured);
    a.most = 5000;
    b.most = 70001;
    for (int i = 0; (a.n < size || b.n < size) && i < 100 * TURNS; i++) {
        size_t next_a = size - sent_a < block ? size - sent_a : block;
        size_t next_b = size - sent_b < block ? size - sent_b : block;

        if (next_a && stream_unsent(&a.stream) < block) {
            assert_int_equal(say(&a, octets + sent_a, next_a), 0);
            sent_a += next_a;
        }
        if (next_b && stream_unsent(&b.stream) < block) {
            assert_int_equal(say(&b, octets + sent_b, next_b), 0);
            sent_b += next_b;
        }
        ev_run(loop, EVRUN_NOWAIT);
    }
    check_pattern(&a, size);
    check_pattern(&b, size);
    assert_true(a.drained && b.drained);
    close_party(&a);
    close_party(&b);
    free(octets);
}

/* Small parts become one record, large ones are taken where they lie; no octet is lost at the seams. */
static void test_parts(void **state)
{
    static const size_t sizes[][5] = {
        {1,      0,     3,     0,    0    },
        { 16384, 1,     16384, 1,    5    },
        { 16383, 1,     1,     0,    16384},
        { 70000, 3,     70000, 0,    0    },
        { 100,   40000, 0,     0,    1    },
        { 0,     0,     0,     0,    40000},
        { 16385, 16385, 2,     0,    0    },
        { 200,   300,   5,     3000, 500  },
    };
    char *octets = make_pattern(1 << 18);
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    for (int secrets = 0; secrets < 2; secrets++) {
        b.stream.secrets = secrets;
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct iovec parts[5];
            size_t total = 0;

            for (int k = 0; k < 5; k++) {
                parts[k] = (struct iovec){ octets + total, sizes[i][k] };
                total += sizes[i][k];
            }
            a.n = 0;
            assert_int_equal(stream_write(&b.stream, parts, 5), 0);
            AWAIT(a.n >= total);
            check_pattern(&a, total);
        }
        for (size_t i = 0; secrets && i < sizeof gathered; i++)
            assert_int_equal(gathered[i], 0);
    }
    close_party(&a);
    close_party(&b);
    free(octets);
}

static void test_system_calls(void **state)
{
    char *octets = make_pattern(4000);
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    n_sends = n_receives = 0;
    assert_int_equal(stream_write(&b.stream,
                                  (struct iovec[]){
                                      {octets,         200 },
                                      { octets + 200,  300 },
                                      { octets + 500,  5   },
                                      { octets + 505,  2995},
                                      { octets + 3500, 500 }
    },
                                  5),
                     0);
    assert_int_equal(n_sends, 1);
    AWAIT(a.n == 4000);
    settle();
    assert_int_equal(n_receives, 1);
    assert_int_equal(a.readable, 1);
    check_pattern(&a, 4000);
    close_party(&a);
    close_party(&b);
    free(octets);
}

/* --- who wants to read --- */

/* What came with the client's Finished is in OpenSSL, and the kernel will not tell. */
static void test_octets_behind_the_handshake(void **state)
{
    struct party a, b;

    (void)state;
    for (int wanted = 0; wanted < 2; wanted++) {
        begin_pair(&a, &b);
        /* The server's turn comes when Finished and the octets are both there. */
        while (!b.secured)
            ev_run(loop, EVRUN_NOWAIT);
        if (a.secured)
            fail_msg("the server was faster");
        assert_int_equal(say(&b, "early", 5), 0);
        stream_want_read(&a.stream, wanted);
        AWAIT(a.secured);
        settle();
        if (!wanted) {
            assert_int_equal(a.readable, 0);
            stream_want_read(&a.stream, true);
        }
        AWAIT(a.n == 5);
        close_party(&a);
        close_party(&b);
    }
}

static void test_records_larger_than_the_buffer(void **state)
{
    char *octets = make_pattern(40000);
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    a.most = 1000;
    assert_int_equal(say(&b, octets, 40000), 0);
    AWAIT(a.n == 40000);
    check_pattern(&a, 40000);
    close_party(&a);
    close_party(&b);
    free(octets);
}

/* A fast peer has no turn of the loop to itself. */
static void test_one_record_a_turn(void **state)
{
    char *octets = make_pattern(40000);
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    a.most = 1000;
    assert_int_equal(say(&b, octets, 40000), 0);
    ev_run(loop, EVRUN_NOWAIT);
    assert_in_range(a.n, 1, 17000);
    AWAIT(a.n == 40000);
    close_party(&a);
    close_party(&b);
    free(octets);
}

static void test_reading_is_held_back(void **state)
{
    char *octets = make_pattern(40000);
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    stream_want_read(&a.stream, false);
    assert_int_equal(say(&b, octets, 40000), 0);
    n_receives = 0;
    settle();
    assert_int_equal(a.readable, 0);
    assert_int_equal(n_receives, 0);
    /* A piece of a record at a time, with the rest held inside. */
    a.most = 7000;
    a.halt = true;
    for (size_t n = 7000; n <= 35000; n += 7000) {
        stream_want_read(&a.stream, true);
        AWAIT(a.n >= 1 && a.readable);
        settle();
        assert_int_equal(a.readable, 1);
        a.readable = 0;
        assert_in_range(a.n, n >= 14000 ? 7001 : 7000, 40000);
    }
    a.halt = false;
    stream_want_read(&a.stream, true);
    AWAIT(a.n == 40000);
    check_pattern(&a, 40000);
    /* Wanted on and off while nothing waits: nothing comes. */
    settle();
    a.readable = 0;
    stream_want_read(&a.stream, false);
    stream_want_read(&a.stream, true);
    settle();
    assert_int_equal(a.readable, 0);
    close_party(&a);
    close_party(&b);
    free(octets);
}

/* What waits inside is told of although the watcher was changed meanwhile, and a write is due as well. */
static void test_the_rest_survives_a_full_socket(void **state)
{
    char *octets = make_pattern(600000);
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    a.most = 1000;
    a.halt = true;
    assert_int_equal(say(&b, octets, 10000), 0);
    AWAIT(a.n == 1000);
    a.halt = false;
    stream_want_read(&b.stream, false);
    stream_want_read(&a.stream, true);
    assert_int_equal(say(&a, octets, 600000), 0);
    assert_true(stream_unsent(&a.stream) > 0);
    AWAIT(a.n == 10000);
    stream_want_read(&b.stream, true);
    AWAIT(b.n == 600000);
    check_pattern(&a, 10000);
    check_pattern(&b, 600000);
    close_party(&a);
    close_party(&b);
    free(octets);
}

/* Both in one event: the write goes first, and the read is not forgotten. */
static void test_the_rest_and_room_at_once(void **state)
{
    char *octets = make_pattern(600000);
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    a.most = 1000;
    a.halt = true;
    assert_int_equal(say(&b, octets, 10000), 0);
    AWAIT(a.n == 1000);
    a.halt = false;
    stream_want_read(&b.stream, false);
    assert_int_equal(say(&a, octets, 600000), 0);
    settle();
    while (recv(b.stream.io.fd, octets, 600000, MSG_DONTWAIT) > 0)
        ;
    stream_want_read(&a.stream, true);
    AWAIT(a.n == 10000);
    close_party(&a);
    close_party(&b);
    free(octets);
}

/* --- the end --- */

static void test_close_notify(void **state)
{
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    assert_int_equal(say(&b, "last", 4), 0);
    close_party(&b);
    AWAIT(a.ended != OPEN);
    assert_int_equal(a.n, 4);
    assert_int_equal(a.ended, 0);
    assert_int_equal(stream_read(&a.stream, &(char){ 0 }, 1), 0);
    close_party(&a);
}

/* The end came with the octets, and only OpenSSL knows; the socket stays open. */
static void test_the_end_behind_octets(void **state)
{
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    assert_int_equal(say(&b, "last", 4), 0);
    SSL_shutdown(b.stream.tls->ssl);
    assert_int_equal(flush(&b.stream), 0);
    AWAIT(a.ended != OPEN);
    assert_int_equal(a.n, 4);
    assert_int_equal(a.ended, 0);
    close_party(&a);
    close_party(&b);
}

static void test_cut_short(void **state)
{
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    assert_int_equal(say(&b, "half", 4), 0);
    shutdown(b.stream.io.fd, SHUT_WR);
    AWAIT(a.ended != OPEN);
    assert_int_equal(a.n, 4);
    assert_int_equal(a.ended, -ECONNRESET);
    assert_string_equal(stream_tls_failure(&a.stream), "");
    close_party(&a);
    close_party(&b);

    secure_pair(&a, &b);
    assert_int_equal(say(&b, "half", 4), 0);
    stream_abort(&b.stream);
    AWAIT(a.ended != OPEN);
    assert_int_equal(a.ended, -ECONNRESET);
    close_party(&a);
    close_party(&b);
}

static void test_reset(void **state)
{
    struct party a, b = { .most = 100, .ended = OPEN };
    struct address address;
    int listener = listen_loopback(&address), fd = -1;

    (void)state;
    assert_int_equal(stream_connect(&b.stream, loop, &address, NULL, on_party), 0);
    AWAIT((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
    open_party(&a, fd);
    assert_int_equal(stream_accept_tls(&a.stream, server, NULL, 0), 0);
    assert_int_equal(stream_connect_tls(&b.stream, client, "a.example", NULL), 0);
    AWAIT(a.secured && b.secured);
    assert_int_equal(say(&b, "half", 4), 0);
    AWAIT(a.n == 4);
    stream_abort(&b.stream);
    AWAIT(a.ended != OPEN);
    assert_int_equal(a.ended, -ECONNRESET);
    assert_true(a.stream.tls->error == ECONNRESET);
    close_party(&a);
    close_party(&b);
    close(listener);
}

static void test_shutdown(void **state)
{
    struct party a, b;
    char octet;

    (void)state;
    secure_pair(&a, &b);
    stream_shutdown(&a.stream);
    assert_int_equal(say(&a, "x", 1), -EPIPE);
    AWAIT(b.ended != OPEN);
    assert_int_equal(b.ended, 0);
    assert_int_equal(recv(b.stream.io.fd, &octet, 1, MSG_DONTWAIT), 0);
    /* The other direction is still open. */
    assert_int_equal(say(&b, "more", 4), 0);
    AWAIT(a.n == 4);
    close_party(&b);
    AWAIT(a.ended != OPEN);
    assert_int_equal(a.ended, 0);
    close_party(&a);
}

/* close_notify itself may find the socket full: FIN comes behind it all the same. */
static void test_shutdown_of_a_full_socket(void **state)
{
    char *octets = make_pattern(600000);
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    stream_want_read(&b.stream, false);
    assert_int_equal(say(&a, octets, 600000), 0);
    assert_true(stream_unsent(&a.stream) > 0);
    stream_shutdown(&a.stream);
    stream_want_read(&b.stream, true);
    AWAIT(b.ended != OPEN);
    assert_int_equal(b.ended, 0);
    assert_int_equal(recv(b.stream.io.fd, octets, 1, MSG_DONTWAIT), 0);
    check_pattern(&b, 600000);
    close_party(&a);
    close_party(&b);
    free(octets);
}

static void test_a_broken_record(void **state)
{
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    assert_int_equal(say(&b, "good", 4), 0);
    assert_int_equal(send(b.stream.io.fd, "\x17\x03\x03\x00\x20nonsense nonsense nonsense nonse", 37, 0), 37);
    AWAIT(a.ended != OPEN);
    assert_int_equal(a.n, 4);
    assert_int_equal(a.ended, -EPROTO);
    assert_non_null(strstr(stream_tls_failure(&a.stream), "bad record mac"));
    /* The peer is told. */
    AWAIT(b.ended != OPEN);
    assert_int_equal(b.ended, -EPROTO);
    assert_non_null(strstr(stream_tls_failure(&b.stream), "alert bad record mac"));
    close_party(&a);
    close_party(&b);
}

/* Reading makes OpenSSL write. */
static void test_key_update(void **state)
{
    struct party a, b;

    (void)state;
    secure_pair(&a, &b);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(SSL_key_update(b.stream.tls->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(say(&b, "x", 1), 0);
        AWAIT(a.n == (size_t)i + 1);
        assert_int_equal(say(&a, "y", 1), 0);
        AWAIT(b.n == (size_t)i + 1);
    }
    close_party(&a);
    close_party(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_octet_by_octet),
        cmocka_unit_test(test_much_both_ways),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_system_calls),
        cmocka_unit_test(test_octets_behind_the_handshake),
        cmocka_unit_test(test_records_larger_than_the_buffer),
        cmocka_unit_test(test_one_record_a_turn),
        cmocka_unit_test(test_reading_is_held_back),
        cmocka_unit_test(test_the_rest_survives_a_full_socket),
        cmocka_unit_test(test_the_rest_and_room_at_once),
        cmocka_unit_test(test_close_notify),
        cmocka_unit_test(test_the_end_behind_octets),
        cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_shutdown),
        cmocka_unit_test(test_shutdown_of_a_full_socket),
        cmocka_unit_test(test_a_broken_record),
        cmocka_unit_test(test_key_update),
    };
    return cmocka_run_group_tests(tests, party_setup, party_teardown);
}
