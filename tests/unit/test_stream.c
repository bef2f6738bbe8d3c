/* Streams over a socket pair, with memory that runs out. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static bool no_memory;

static void *scarce_realloc(void *memory, size_t size)
{
    return no_memory ? NULL : realloc(memory, size);
}

#define realloc scarce_realloc
#include "net/stream.c"
#undef realloc

#include <sys/socket.h>

static void ignore(struct stream *stream, enum stream_event event)
{
    (void)stream;
    (void)event;
}

/* Everything the peer gets, up to the end of the stream; -1 if there is none. */
static ssize_t drain_peer(int peer, char *last)
{
    char buffer[65536];
    ssize_t total = 0, n;

    while ((n = recv(peer, buffer, sizeof buffer, MSG_DONTWAIT)) > 0) {
        total += n;
        *last = buffer[n - 1];
    }
    return n == 0 ? total : -1;
}

/* A hole in the middle of a stream would be taken for the message. */
static void test_nothing_follows_what_could_not_be_kept(void **state)
{
    static char block[1 << 20];
    struct ev_loop *loop = ev_loop_new(0);
    struct stream stream;
    int pair[2];
    char last = 0, more[] = "z";

    (void)state;
    memset(block, 'a', sizeof block);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    stream_open(&stream, loop, pair[0], ignore);
    no_memory = true;
    assert_int_equal(stream_write(&stream, &(struct iovec){ block, sizeof block }, 1), -ENOMEM);
    no_memory = false;
    assert_int_equal(stream_unsent(&stream), 0);
    (void)stream_write(&stream, &(struct iovec){ more, 1 }, 1);
    assert_in_range(drain_peer(pair[1], &last), 1, sizeof block - 1);
    assert_int_equal(last, 'a');
    /* The owner learns of it as of any other end. */
    assert_int_equal(stream_read(&stream, block, sizeof block), 0);
    stream_close(&stream);
    close(pair[1]);
    ev_loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_follows_what_could_not_be_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
