/*
 * The view of the others, under a clock that the tests turn. A lease is three seconds, as is the standard.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "balancer/backend.h"
#include "counters/view.h"

#define LEASE 3000
#define START 1000000

static struct view view;
static int64_t now;
static const char *const names[] = { "r1", "r2", "r3" };

static void open_view(uint32_t expected)
{
    now = START;
    view_init(&view, LEASE, expected, now);
}

static int setup(void **state)
{
    (void)state;
    open_view(1);
    view_connected(&view, now);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    view_clear(&view);
    return 0;
}

/* `text` is JSON behind "id":; NULL for `how`: a bye. */
static enum view_take take(const char *id, int64_t started, uint64_t seq, const char *how)
{
    struct snapshot snapshot;
    enum view_take result;
    bool other;
    char text[512];
    int size = how ? snprintf(text, sizeof text,
                              "{\"schema\":1,\"id\":\"%s\",\"started\":%lld,\"seq\":%llu,"
                              "\"sessions\":0,\"queued\":0,%s}",
                              id, (long long)started, (unsigned long long)seq, how)
                   : snprintf(text, sizeof text,
                              "{\"schema\":1,\"id\":\"%s\",\"started\":%lld,\"seq\":%llu,\"bye\":true}", id,
                              (long long)started, (unsigned long long)seq);

    assert_true(snapshot_parse(&snapshot, text, (size_t)size, &other));
    result = view_take(&view, &snapshot, now);
    snapshot_clear(&snapshot);
    return result;
}

/* Time passes as it does in life: in ticks. */
static void pass(int64_t milliseconds)
{
    for (int64_t end = now + milliseconds; now < end;) {
        now = end - now > 35 ? now + 35 : end;
        (void)view_tick(&view, now);
    }
}

static void expect(uint32_t instances, uint32_t r1, uint32_t r2)
{
    uint32_t others[3];

    view_held(&view, names, 3, others, now);
    assert_int_equal(view_instances(&view, now), instances);
    assert_int_equal(others[0], r1);
    assert_int_equal(others[1], r2);
    assert_int_equal(others[2], 0);
}

static void test_nobody(void **state)
{
    (void)state;
    expect(1, 0, 0);
    assert_int_equal(view.state, COUNTERS_SHARED);
    assert_int_equal(view_share(&view), BACKEND_WHOLE);
}

static void test_a_lease(void **state)
{
    (void)state;
    assert_int_equal(take("a", 1, 1, "\"held\":{\"r1\":5,\"r2\":1}"), VIEW_NEWS);
    assert_int_equal(take("b", 1, 1, "\"held\":{\"r1\":2}"), VIEW_NEWS);
    expect(3, 7, 1);
    pass(LEASE / 2);
    assert_int_equal(take("b", 1, 2, "\"held\":{\"r1\":3}"), VIEW_NEWS);
    pass(LEASE / 2 - 1);
    expect(3, 8, 1);
    pass(1);
    expect(2, 3, 0); /* a has been silent for it */
    pass(LEASE / 2);
    expect(1, 0, 0);
    /* Whoever is back counts, and once. */
    assert_int_equal(take("a", 1, 2, "\"held\":{\"r1\":4}"), VIEW_NEWS);
    expect(2, 4, 0);
}

/* (started, seq), and nothing else. */
static void test_order(void **state)
{
    static const struct {
        int64_t started;
        uint64_t seq;
        enum view_take result;
        uint32_t count;
    } steps[] = {
        {100,  5,  VIEW_NEWS, 1},
        { 100, 5,  VIEW_OLD,  1},
        { 100, 4,  VIEW_OLD,  1},
        { 100, 6,  VIEW_NEWS, 4},
        { 100, 8,  VIEW_GAP,  5},
        { 100, 7,  VIEW_OLD,  5}, /* what was missed comes too late */
        { 99,  99, VIEW_OLD,  5},
        { 101, 1,  VIEW_NEWS, 8}, /* it was started anew */
        { 101, 3,  VIEW_GAP,  9},
        { 100, 99, VIEW_OLD,  9},
    };
    char held[64];

    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        (void)snprintf(held, sizeof held, "\"held\":{\"r1\":%zu}", i + 1);
        assert_int_equal(take("a", steps[i].started, steps[i].seq, held), steps[i].result);
        expect(2, steps[i].count, 0);
    }
}

/* The old does not keep an instance alive. */
static void test_the_old_is_no_sign_of_life(void **state)
{
    (void)state;
    (void)take("a", 1, 7, "\"held\":{\"r1\":5}");
    pass(LEASE - 1);
    assert_int_equal(take("a", 1, 7, "\"held\":{\"r1\":5}"), VIEW_OLD);
    pass(1);
    expect(1, 0, 0);
    /* … and what it said before its end is not news later. */
    pass(9 * LEASE);
    assert_int_equal(take("a", 1, 7, "\"held\":{\"r1\":5}"), VIEW_OLD);
    expect(1, 0, 0);
    pass(2 * LEASE);
    assert_int_equal(view.n, 0);
}

static void test_bye(void **state)
{
    (void)state;
    (void)take("a", 1, 1, "\"held\":{\"r1\":5}");
    assert_int_equal(take("a", 1, 2, NULL), VIEW_NEWS);
    expect(1, 0, 0);
    assert_int_equal(take("a", 1, 1, "\"held\":{\"r1\":5}"), VIEW_OLD); /* from a resync under way */
    expect(1, 0, 0);
    assert_int_equal(take("b", 1, 1, NULL), VIEW_OLD); /* of somebody unknown */
    assert_int_equal(view.n, 1);
    assert_int_equal(take("a", 2, 1, "\"held\":{\"r1\":3}"), VIEW_NEWS);
    expect(2, 3, 0);
}

static void test_unknown_names(void **state)
{
    (void)state;
    (void)take("a", 1, 1, "\"held\":{\"r0\":1,\"r1\":2,\"r11\":3,\"zz\":4,\"r\":5,\"r2\":6}");
    expect(2, 2, 6);
}

/* SHARED, 30 s of HELD, LOCAL, 10 s of REJOIN, SHARED. */
static void test_an_outage(void **state)
{
    (void)state;
    (void)take("a", 1, 1, "\"held\":{\"r1\":5}");
    (void)take("b", 1, 1, "\"held\":{\"r2\":2}");
    view_lost(&view, now);
    view_lost(&view, now + 1); /* both connections are */
    assert_int_equal(view.state, COUNTERS_HELD);
    pass(VIEW_HOLD - 1); /* no lease ends meanwhile */
    assert_int_equal(view.state, COUNTERS_HELD);
    expect(3, 5, 2);
    assert_int_equal(view_share(&view), BACKEND_WHOLE);
    pass(1);
    assert_int_equal(view.state, COUNTERS_LOCAL);
    expect(1, 0, 0);
    pass(3600 * 1000);
    assert_int_equal(view.state, COUNTERS_LOCAL);
    view_connected(&view, now);
    assert_int_equal(view.state, COUNTERS_REJOIN);
    expect(3, 5, 2); /* they are coming back */
    assert_int_equal(view_share(&view), BACKEND_WHOLE);
    assert_int_equal(take("a", 1, 9, "\"held\":{\"r1\":1}"), VIEW_GAP);
    expect(3, 1, 2);
    pass(LEASE - 1);
    expect(3, 1, 2);
    assert_int_equal(take("a", 1, 10, "\"held\":{\"r1\":1}"), VIEW_NEWS);
    pass(1);
    expect(3, 1, 2); /* b was not heard, and is waited for */
    for (uint64_t seq = 11; now < START + VIEW_HOLD + 3600 * 1000 + VIEW_REJOIN - 1; seq++) {
        pass(1);
        (void)take("a", 1, seq, "\"held\":{\"r1\":1}");
    }
    assert_int_equal(view.state, COUNTERS_REJOIN);
    expect(3, 1, 2);
    pass(1);
    assert_int_equal(view.state, COUNTERS_SHARED);
    expect(2, 1, 0);
}

static void test_a_short_outage(void **state)
{
    (void)state;
    (void)take("a", 1, 1, "\"held\":{\"r1\":5}");
    (void)take("gone", 1, 1, "\"held\":{\"r1\":100}");
    pass(LEASE - 1);
    (void)take("a", 1, 2, "\"held\":{\"r1\":6}");
    pass(1);
    expect(2, 6, 0);
    view_lost(&view, now); /* `gone` was not there any more */
    pass(1000);
    expect(2, 6, 0);
    view_connected(&view, now);
    assert_int_equal(view.state, COUNTERS_REJOIN);
    expect(2, 6, 0);
    assert_int_equal(take("a", 1, 9, NULL), VIEW_NEWS); /* bye ends it at once */
    expect(1, 0, 0);
}

/* It may be one's own commands alone that don't get through. Who is heard nevertheless has not gone. */
static void test_heard_in_an_outage(void **state)
{
    (void)state;
    (void)take("a", 1, 1, "\"held\":{\"r1\":5}");
    (void)take("b", 1, 1, "\"held\":{\"r2\":2}");
    view_lost(&view, now);
    pass(LEASE);
    assert_int_equal(take("a", 1, 2, "\"held\":{\"r1\":6}"), VIEW_NEWS);
    expect(3, 6, 2);
    assert_int_equal(take("c", 1, 1, "\"held\":{\"r2\":1}"), VIEW_NEWS);
    expect(4, 6, 3);
    assert_int_equal(take("c", 1, 2, NULL), VIEW_NEWS);
    expect(3, 6, 2);
    pass(VIEW_HOLD - LEASE - 1);
    expect(3, 6, 2);
    view_connected(&view, now);
    expect(3, 6, 2);
    pass(VIEW_REJOIN);
    expect(1, 0, 0); /* nobody was heard again */
}

/* A Redis that comes and goes brings nobody back: 30 s after the first time nothing is held any more. */
static void test_a_redis_that_flaps(void **state)
{
    (void)state;
    (void)take("a", 1, 1, "\"held\":{\"r1\":5}");
    view_lost(&view, now);
    for (int i = 0; i < 29; i++) {
        pass(1000);
        expect(2, 5, 0);
        view_connected(&view, now);
        view_lost(&view, now);
    }
    pass(1000);
    assert_int_equal(view.state, COUNTERS_LOCAL);
    expect(1, 0, 0);
}

/* If somebody was heard while it was there, the 30 s begin anew. */
static void test_two_outages(void **state)
{
    (void)state;
    (void)take("a", 1, 1, "\"held\":{\"r1\":5}");
    view_lost(&view, now);
    pass(VIEW_HOLD - 1000);
    view_connected(&view, now);
    (void)take("a", 1, 2, "\"held\":{\"r1\":6}");
    view_lost(&view, now);
    pass(VIEW_HOLD - 1);
    expect(2, 6, 0);
    pass(1);
    expect(1, 0, 0);
}

/* LOCAL after an outage: the own share of the last minute, but half an even one at least. */
static void test_the_share(void **state)
{
    static const struct {
        uint64_t own, others;
        uint32_t least, most;
    } rows[] = {
        {25,  75,  250,           260          },
        { 75, 25,  750,           760          },
        { 1,  999, 125,           125          }, /* 1/(2·4) */
        { 10, 0,   BACKEND_WHOLE, BACKEND_WHOLE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        view_clear(&view);
        open_view(1);
        view_connected(&view, now);
        for (uint64_t seq = 1; now < START + 10 * VIEW_SHARE_TAU; seq++) {
            (void)take("a", 1, seq, "\"held\":{}");
            (void)take("b", 1, seq, "\"held\":{}");
            (void)take("c", 1, seq, "\"held\":{}");
            view_note_share(&view, rows[i].own, rows[i].others, now);
            pass(1000);
        }
        view_note_share(&view, 0, 0, now); /* nothing to share changes nothing */
        view_lost(&view, now);
        view_note_share(&view, 1000, 0, now);
        pass(VIEW_HOLD);
        assert_in_range(view_share(&view), rows[i].least, rows[i].most);
    }
}

/* What has not seen Redis yet takes its part of the instances that are to be expected. */
static void test_a_start_during_an_outage(void **state)
{
    static const uint32_t rows[][2] = {
        {0,  BACKEND_WHOLE    },
        { 1, BACKEND_WHOLE    },
        { 4, BACKEND_WHOLE / 4},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        view_clear(&view);
        open_view(rows[i][0]);
        assert_int_equal(view.state, COUNTERS_LOCAL);
        pass(1000000);
        view_lost(&view, now);
        assert_int_equal(view.state, COUNTERS_LOCAL);
        assert_int_equal(view_share(&view), rows[i][1]);
        expect(1, 0, 0);
        view_connected(&view, now);
        assert_int_equal(view.state, COUNTERS_SHARED); /* nobody is to come back */
        assert_int_equal(view_share(&view), BACKEND_WHOLE);
    }
}

/* The others' placements a second, and the age of their reports weighted by them. */
static void test_rates(void **state)
{
    float rate;
    int64_t at;

    (void)state;
    view_rates(&view, "p", now, &rate, &at);
    assert_true(rate == 0 && at == now);
    (void)take("a", 1, 1, "\"rates\":{\"p\":3,\"q\":50}");
    pass(400);
    (void)take("b", 1, 1, "\"rates\":{\"p\":1}");
    (void)take("c", 1, 1, "\"rates\":{\"q\":0}");
    pass(100);
    view_rates(&view, "p", now, &rate, &at);
    assert_true(rate == 4);
    assert_int_equal(now - at, (3 * 500 + 1 * 100) / 4);
    view_rates(&view, "nobody's", now, &rate, &at);
    assert_true(rate == 0 && at == now);
    pass(LEASE - 500); /* a is gone */
    view_rates(&view, "p", now, &rate, &at);
    assert_true(rate == 1);
    assert_int_equal(now - at, LEASE - 400);
}

/* How many of the others can't reach a backend, and the median of the limits that they have found. */
static void test_verdicts(void **state)
{
    uint32_t scratch[16], down, limit;

    (void)state;
    view_verdict(&view, "r1", scratch, &down, &limit, now);
    assert_true(down == 0 && limit == BACKEND_NO_CEILING);
    (void)take("a", 1, 1, "\"limits\":{\"r2\":9,\"r1\":40},\"down\":[\"r3\",\"r3\",\"r1\",\"r3\"]");
    view_verdict(&view, "r1", scratch, &down, &limit, now);
    assert_true(down == 1 && limit == 40);
    view_verdict(&view, "r3", scratch, &down, &limit, now);
    assert_true(down == 1 && limit == BACKEND_NO_CEILING); /* one instance has one voice */
    pass(1);
    (void)take("b", 1, 1, "\"limits\":{\"r1\":10},\"down\":[\"r3\"]");
    (void)take("c", 1, 1, "\"limits\":{\"r1\":0}"); /* it has seen replies, and found none */
    view_verdict(&view, "r1", scratch, &down, &limit, now);
    assert_true(down == 1 && limit == 40);
    view_verdict(&view, "r3", scratch, &down, &limit, now);
    assert_int_equal(down, 2);
    pass(LEASE - 1); /* a is gone */
    view_verdict(&view, "r3", scratch, &down, &limit, now);
    assert_int_equal(down, 1);
    view_verdict(&view, "r1", scratch, &down, &limit, now);
    assert_true(down == 0 && limit == BACKEND_NO_CEILING);
}

/* Replies are not told each time: what was told last stays, for the next to be measured by. */
static void test_replies(void **state)
{
    const struct snapshot_replies *replies;

    (void)state;
    assert_null(view_peer_of(&view, "a"));
    assert_int_equal(take("a", 1, 1, "\"replies\":{\"r2\":[1,2,3],\"r1\":[10,200,4000]}"), VIEW_NEWS);
    assert_int_equal(take("a", 1, 2, "\"held\":{\"r1\":1}"), VIEW_NEWS);
    replies = snapshot_replies_of(&view_peer_of(&view, "a")->last, "r1");
    assert_non_null(replies);
    assert_true(replies->totals.replies == 10 && replies->totals.milliseconds == 200 &&
                replies->totals.squares == 4000);
    assert_null(snapshot_replies_of(&view_peer_of(&view, "a")->last, "r3"));
    assert_int_equal(take("a", 1, 3, "\"replies\":{\"r1\":[11,210,4100]}"), VIEW_NEWS);
    assert_int_equal(snapshot_replies_of(&view_peer_of(&view, "a")->last, "r1")->totals.replies, 11);
    assert_null(snapshot_replies_of(&view_peer_of(&view, "a")->last, "r2"));
    assert_int_equal(take("a", 2, 1, "\"held\":{}"), VIEW_NEWS); /* begun anew: of another count */
    assert_null(snapshot_replies_of(&view_peer_of(&view, "a")->last, "r1"));
}

static void test_too_many(void **state)
{
    char id[16];

    (void)state;
    for (int i = 0; i < VIEW_PEERS; i++) {
        (void)snprintf(id, sizeof id, "i%d", i);
        assert_int_equal(take(id, 1, 1, "\"held\":{\"r1\":1000000}"), VIEW_NEWS);
    }
    assert_int_equal(take("one-more", 1, 1, "\"held\":{\"r1\":1}"), VIEW_FULL);
    assert_int_equal(take("i7", 1, 2, "\"held\":{\"r1\":0}"), VIEW_NEWS);
    expect(VIEW_PEERS + 1, (VIEW_PEERS - 1) * 1000000U, 0);
    pass(11 * LEASE); /* silence makes room */
    assert_int_equal(take("one-more", 1, 1, "\"held\":{\"r1\":1}"), VIEW_NEWS);
    expect(2, 1, 0);
}

static void test_another_lease(void **state)
{
    (void)state;
    (void)take("a", 1, 1, "\"held\":{\"r1\":5}");
    pass(1000);
    view_configure(&view, 1001, 1);
    expect(2, 5, 0);
    pass(1);
    expect(1, 0, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_nobody),
        TEST(test_a_lease),
        TEST(test_order),
        TEST(test_the_old_is_no_sign_of_life),
        TEST(test_bye),
        TEST(test_unknown_names),
        TEST(test_an_outage),
        TEST(test_a_short_outage),
        TEST(test_heard_in_an_outage),
        TEST(test_a_redis_that_flaps),
        TEST(test_two_outages),
        TEST(test_the_share),
        TEST(test_a_start_during_an_outage),
        TEST(test_rates),
        TEST(test_verdicts),
        TEST(test_replies),
        TEST(test_too_many),
        TEST(test_another_lease),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
