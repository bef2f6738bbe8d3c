/* Streams under TLS: a peer that keeps OpenSSL busy with records that hold nothing for anybody. */
#include <errno.h>
#include <sys/socket.h>

static unsigned n_receives;

static ssize_t flooded_recv(int fd, void *octets, size_t size, int flags);

#define recv flooded_recv
#include "net/stream.c"
#include "net/stream_tls.c"
#undef recv

#include "tests/unit/stream_fixture.h"

#define TURN_MAX 10 /* receptions in one turn of the loop */

static struct party a, b;

/* What `b` has in store goes on its way, so far as the kernel takes it. */
static void refill(void)
{
    struct iovec part = { b.stream.unsent + b.stream.unsent_start, stream_unsent(&b.stream) };
    ssize_t sent = part.iov_len ? stream_send_once(&b.stream, &part, 1) : 0;

    if (sent > 0)
        b.stream.unsent_start += (size_t)sent;
}

/* The kernel has more each time it is asked: whoever reads until it has not reads for a long time. */
static ssize_t flooded_recv(int fd, void *octets, size_t size, int flags)
{
    if (fd == a.stream.io.fd) {
        n_receives++;
        refill();
    }
    return recv(fd, octets, size, flags);
}

/* Each wants an answer, and `b` reads none. */
static void store_key_updates(unsigned n)
{
    secure_pair(&a, &b);
    while (n--) {
        assert_int_equal(SSL_key_update(b.stream.tls->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(b.stream.tls->ssl), 1);
    }
    assert_int_equal(flush(&b.stream), 0);
    assert_true(stream_unsent(&b.stream) > 0);
    ev_io_stop(loop, &b.stream.io);
}

static void test_key_updates_take_turns(void **state)
{
    (void)state;
    store_key_updates(20000);
    n_receives = 0;
    ev_run(loop, EVRUN_NOWAIT);
    assert_in_range(n_receives, 1, TURN_MAX);
    close_party(&a);
    close_party(&b);
}

static void test_answers_that_nobody_reads(void **state)
{
    (void)state;
    store_key_updates(30000);
    AWAIT(a.ended != OPEN);
    assert_int_equal(a.ended, -EPROTO);
    assert_string_equal(stream_tls_failure(&a.stream), "the peer asks and reads no answers");
    assert_in_range(stream_unsent(&a.stream), 1, 4 * ANSWERS_MAX);
    close_party(&a);
    close_party(&b);
}

/* As many as it likes, if it reads. */
static void test_answers_that_are_read(void **state)
{
    (void)state;
    secure_pair(&a, &b);
    for (unsigned i = 0; i < 5000; i++) {
        assert_int_equal(SSL_key_update(b.stream.tls->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(say(&b, "x", 1), 0);
        AWAIT(a.n == i + 1);
    }
    assert_int_equal(say(&a, "y", 1), 0);
    AWAIT(b.n == 1);
    assert_int_equal(a.ended, OPEN);
    close_party(&a);
    close_party(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_updates_take_turns),
        cmocka_unit_test(test_answers_that_nobody_reads),
        cmocka_unit_test(test_answers_that_are_read),
    };
    return cmocka_run_group_tests(tests, party_setup, party_teardown);
}
