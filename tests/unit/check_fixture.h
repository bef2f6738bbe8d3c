/*
 * Checks run to their end in a loop of the test's own. Included by the tests of health/check.h.
 */
#ifndef WEIR_CHECK_FIXTURE_H
#define WEIR_CHECK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <ev.h>
#include <string.h>
#include <sys/socket.h>

#include "health/check.h"
#include "net/address.h"

#define PATIENCE 5.0 /* seconds; a test that waits longer for anything has failed */

static inline void on_patience(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)timer;
    (void)events;
    fail_msg("waited in vain");
}

/* Run the loop until `done(arg)`. */
static inline void run_until(struct ev_loop *loop, bool (*done)(void *arg), void *arg)
{
    ev_timer patience;

    ev_timer_init(&patience, on_patience, PATIENCE, 0);
    ev_now_update(loop);
    ev_timer_start(loop, &patience);
    while (!done(arg))
        ev_run(loop, EVRUN_ONCE);
    ev_timer_stop(loop, &patience);
}

/* A listening socket at `address`; where that has port 0, at a free one, which is put there. */
static inline int listen_at(struct address *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    assert_int_equal(bind(fd, &address->sa, address->length), 0);
    assert_int_equal(listen(fd, 5), 0);
    assert_int_equal(getsockname(fd, &address->sa, &address->length), 0);
    return fd;
}

static inline struct address any_loopback_port(void)
{
    struct address address = { .length = sizeof address.in };

    address.in.sin_family = AF_INET;
    address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* What became of a check. */
struct outcome {
    struct check_result result;
    char reason[128];
    int decided, ended; /* how often */
    struct check_times times;
};

static inline void on_decided(void *arg, const struct check_result *result)
{
    struct outcome *outcome = arg;

    assert_int_equal(outcome->decided++, 0);
    outcome->result = *result;
    strncpy(outcome->reason, result->reason, sizeof outcome->reason - 1);
}

static inline void on_ended(void *arg, const struct check_times *times)
{
    struct outcome *outcome = arg;

    outcome->ended++;
    outcome->times = *times;
}

static inline bool is_ended(void *arg)
{
    return ((struct outcome *)arg)->ended > 0;
}

#endif
