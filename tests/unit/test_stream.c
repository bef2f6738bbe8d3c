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
static bool unwiped; /* memory was given back with octets in it */

static void *scarce_malloc(size_t size)
{
    return no_memory ? NULL : malloc(size);
}

static void watched_free(void *memory, size_t size)
{
    for (size_t i = 0; memory && i < size; i++)
        unwiped |= ((char *)memory)[i] != '\0';
    free(memory);
}

#define malloc       scarce_malloc
#define free(memory) watched_free(memory, stream->unsent_size)
#include "net/stream.c"
#undef malloc
#undef free

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

/* Kept, moved, grown, sent and forgotten: nowhere is a password left. */
static void test_secrets_are_wiped(void **state)
{
    static char block[1 << 20];
    struct iovec part = { block, sizeof block };
    struct ev_loop *loop = ev_loop_new(0);

    (void)state;
    memset(block, 'a', sizeof block);
    for (int secrets = 0; secrets < 2; secrets++) {
        for (int sent = 0; sent < 2; sent++) {
            struct stream stream;
            int pair[2];
            char last;

            assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
            stream_open(&stream, loop, pair[0], ignore);
            stream.secrets = secrets;
            unwiped = false;
            assert_int_equal(stream_write(&stream, &part, 1), 0);
            assert_true(stream_unsent(&stream) > 0);
            (void)drain_peer(pair[1], &last);
            ev_run(loop, EVRUN_NOWAIT); /* some of it goes: what follows is moved to the front */
            assert_true(stream.unsent_start > 1000);
            assert_int_equal(stream_write(&stream, &(struct iovec){ block, 1000 }, 1), 0);
            assert_int_equal(stream.unsent_start, 0);
            for (size_t i = stream.unsent_end; secrets && i < stream.unsent_size; i++)
                assert_int_equal(stream.unsent[i], 0);
            assert_int_equal(stream_write(&stream, &part, 1), 0); /* grown */
            for (int i = 0; sent && i < 1000 && stream_unsent(&stream); i++) {
                (void)drain_peer(pair[1], &last);
                ev_run(loop, EVRUN_NOWAIT);
            }
            assert_int_equal(stream_unsent(&stream) == 0, sent);
            stream_close(&stream);
            close(pair[1]);
            assert_int_equal(unwiped, !secrets);
        }
    }
    ev_loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_follows_what_could_not_be_kept),
        cmocka_unit_test(test_secrets_are_wiped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
