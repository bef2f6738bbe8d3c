/*
 * Whose turn it is in the wait queue, who loses a seat in it, and how long one waits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/placement_fixture.h"

#define HOLDER (SESSIONS - 1)

static enum placement_verdict as(int i, uint64_t client, uint8_t priority)
{
    struct placement_wish wish = fixture_wish(t.farm, 0);

    wish.client = client;
    wish.priority = priority;
    return ask(i, wish);
}

/* One place, and HOLDER has it. */
static void full_farm(uint32_t queue_size)
{
    farm_of_one(queue_size, 1);
    assert_int_equal(as(HOLDER, 0, 0), PLACEMENT_GRANTED);
}

/* Who has the only place now; -1: nobody. */
static int holder(void)
{
    post();
    for (int i = 0; i < SESSIONS; i++)
        if (t.sessions[i].place.member)
            return i;
    return -1;
}

/* Sessions 0, 1 … wait, of the clients and priorities in `who` ("a0 b0 a9": clients a, b, a); the only place
 * then goes through the sessions in the order of `order`. */
static void served_in_order(const char *who, const int *order)
{
    int n = 0;

    full_farm(100);
    for (const char *p = who; *p; p += p[2] ? 3 : 2)
        assert_int_equal(as(n++, (uint64_t)p[0], (uint8_t)(p[1] - '0')), PLACEMENT_WAITING);
    for (int now = HOLDER; n > 0; n--, order++) {
        give(now);
        now = holder();
        assert_int_equal(now, *order);
    }
}

static void test_one_client_first_in_first_out(void **state)
{
    (void)state;
    served_in_order("a0 a0 a0 a0", (int[]){ 0, 1, 2, 3 });
}

static void test_one_client_after_the_other(void **state)
{
    (void)state;
    served_in_order("a0 a0 a0 a0 b0 c0 c0", (int[]){ 0, 4, 5, 1, 6, 2, 3 });
}

static void test_highest_priority_first(void **state)
{
    (void)state;
    served_in_order("a0 a9 b0 b9 a5 b9 a9", (int[]){ 1, 3, 6, 5, 4, 0, 2 });
}

static void test_all_priorities(void **state)
{
    static const uint8_t priorities[] = { 0, 1, 62, 63, 64, 65, 127, 128, 191, 192, 254, 255 };
    int n = sizeof priorities, now = HOLDER;

    (void)state;
    full_farm(100);
    for (int i = 0; i < n; i++)
        assert_int_equal(as(i, 1, priorities[i]), PLACEMENT_WAITING);
    while (n-- > 0) {
        give(now);
        now = holder();
        assert_int_equal(now, n);
    }
}

/* Who comes back after each message has to wait for all others each time. */
static void test_coming_back_gains_nothing(void **state)
{
    (void)state;
    full_farm(100);
    for (int i = 0; i < 5; i++)
        assert_int_equal(as(i, (uint64_t)i + 1, 0), PLACEMENT_WAITING);
    give(HOLDER);
    assert_int_equal(holder(), 0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 5; i++) {
            assert_int_equal(holder(), i);
            give(i);
            assert_int_equal(as(i, (uint64_t)i + 1, 0), PLACEMENT_WAITING);
        }
    }
}

/* The one of the issue: a client with 200 sessions, twenty with one each, and 40 places. */
static void test_bulk_beside_twenty(void **state)
{
    int bulk = 0, others = 0;

    (void)state;
    farm_of_one(200, 40);
    for (int i = 0; i < 200; i++)
        assert_int_equal(as(i, 1, 0), i < 40 ? PLACEMENT_GRANTED : PLACEMENT_WAITING);
    for (int i = 200; i < 220; i++)
        assert_int_equal(as(i, (uint64_t)i, 0), PLACEMENT_WAITING);
    /* One round is twenty-one places; of each the bulk client has one. */
    for (int i = 0; i < 21; i++)
        give(i);
    post();
    for (int i = 40; i < 220; i++)
        if (t.sessions[i].place.member)
            *(i < 200 ? &bulk : &others) += 1;
    assert_int_equal(bulk, 1);
    assert_int_equal(others, 20);
}

/* A pass over those who can't use a place costs them nothing. */
static void test_who_is_passed_over_keeps_its_turn(void **state)
{
    struct placement_wish wish;

    (void)state;
    farm_of(100, 2, (uint32_t[]){ 1, 1 });
    assert_int_equal(as(0, 1, 0), PLACEMENT_GRANTED);
    assert_int_equal(as(1, 1, 0), PLACEMENT_GRANTED);
    wish = fixture_wish(t.farm, 0);
    wish.client = 2;
    wish.tried[wish.n_tried++] = t.sessions[0].place.member->backend;
    assert_int_equal(ask(2, wish), PLACEMENT_WAITING);
    assert_int_equal(as(3, 3, 0), PLACEMENT_WAITING);
    assert_int_equal(as(4, 3, 0), PLACEMENT_WAITING);
    give(0);
    assert_true(granted(3, backend_name(wish.tried[0])));
    give(1);
    post();
    assert_non_null(t.sessions[2].place.member);
    assert_true(still_waiting(4));
}

/* --- seats ---------------------------------------------------------------------------------------------- */

static bool displaced(int i)
{
    post();
    return t.sessions[i].delivered == 1 && t.sessions[i].verdict == PLACEMENT_DISPLACED &&
           !t.sessions[i].place.member;
}

static void test_a_full_queue_takes_from_the_largest(void **state)
{
    (void)state;
    full_farm(8);
    for (int i = 0; i < 8; i++)
        assert_int_equal(as(i, 1, 0), PLACEMENT_WAITING);
    assert_int_equal(as(8, 1, 0), PLACEMENT_QUEUE_FULL); /* it would displace itself */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(as(10 + i, 2, 0), PLACEMENT_WAITING);
        assert_true(displaced(7 - i)); /* its youngest each time */
    }
    /* Four and four: nobody has less than the other. */
    assert_int_equal(as(20, 1, 0), PLACEMENT_QUEUE_FULL);
    assert_int_equal(as(20, 2, 0), PLACEMENT_QUEUE_FULL);
    assert_int_equal(as(21, 3, 0), PLACEMENT_WAITING);
    assert_int_equal(as(22, 3, 0), PLACEMENT_WAITING); /* three, three and two */
    assert_int_equal(as(23, 3, 0), PLACEMENT_QUEUE_FULL);
    assert_int_equal(placement_waiting(&t.farm->pools[0]), 8);
}

/* A quarter is anybody's. */
static void test_a_quarter_is_safe(void **state)
{
    (void)state;
    full_farm(8);
    for (int i = 0; i < 8; i++)
        assert_int_equal(as(i, (uint64_t)i / 2, 0), PLACEMENT_WAITING);
    assert_int_equal(as(8, 99, 0), PLACEMENT_QUEUE_FULL);
    waiter_leave(&t.sessions[7].waiter);
    assert_int_equal(as(7, 0, 0), PLACEMENT_WAITING); /* three of the first one's now */
    assert_int_equal(as(8, 99, 0), PLACEMENT_WAITING);
    assert_true(displaced(7));
}

static void test_a_lower_priority_gives_way(void **state)
{
    (void)state;
    full_farm(4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(as(i, (uint64_t)i, 5), PLACEMENT_WAITING);
    assert_int_equal(as(4, 4, 5), PLACEMENT_QUEUE_FULL);
    assert_int_equal(as(4, 4, 4), PLACEMENT_QUEUE_FULL);
    assert_int_equal(as(4, 4, 6), PLACEMENT_WAITING);
    assert_true(displaced(3)); /* whose turn would have come last */
    assert_int_equal(as(5, 4, 6), PLACEMENT_WAITING);
    assert_true(displaced(2));
    /* Two of four are over a quarter: taken for their like, but not for less. */
    assert_int_equal(as(6, 9, 5), PLACEMENT_QUEUE_FULL);
    assert_int_equal(as(6, 9, 6), PLACEMENT_WAITING);
    assert_true(displaced(5));
    assert_int_equal(as(7, 8, 6), PLACEMENT_WAITING);
    assert_true(displaced(1));
    assert_int_equal(placement_waiting(&t.farm->pools[0]), 4);
}

/* The lowest of a client's own waiters goes, also where it waits with several priorities. */
static void test_one_client_with_two_priorities(void **state)
{
    (void)state;
    full_farm(4);
    assert_int_equal(as(0, 1, 9), PLACEMENT_WAITING);
    assert_int_equal(as(1, 1, 0), PLACEMENT_WAITING);
    assert_int_equal(as(2, 1, 9), PLACEMENT_WAITING);
    assert_int_equal(as(3, 1, 0), PLACEMENT_WAITING);
    assert_int_equal(as(4, 2, 0), PLACEMENT_WAITING);
    assert_true(displaced(3));
    assert_int_equal(as(5, 1, 9), PLACEMENT_WAITING);
    assert_true(displaced(4)); /* itself it has none that is younger and lower but 1, whose turn is before */
    assert_int_equal(as(6, 2, 0), PLACEMENT_WAITING);
    assert_true(displaced(1));
}

static void test_a_smaller_queue_after_a_reload(void **state)
{
    (void)state;
    full_farm(16);
    for (int i = 0; i < 12; i++)
        assert_int_equal(as(i, (uint64_t)(i / 3), 0), PLACEMENT_WAITING);
    t.f.pools[0].queue_size = 8; /* three of a client are over a quarter now */
    assert_int_equal(as(12, 77, 0), PLACEMENT_WAITING);
    assert_int_equal(placement_waiting(&t.farm->pools[0]), 12);
    t.f.pools[0].queue_size = 0;
    assert_int_equal(as(13, 78, 0), PLACEMENT_WAITING);
    assert_int_equal(placement_waiting(&t.farm->pools[0]), 12);
}

/* --- max-share-per-client ------------------------------------------------------------------------------- */

static void shared_farm(size_t n, const uint32_t *ceilings, uint32_t percent)
{
    farm_of(100, n, ceilings);
    t.f.pools[0].max_share_per_client = percent;
}

static void test_share_while_others_wait(void **state)
{
    (void)state;
    shared_farm(1, (uint32_t[]){ 4 }, 50);
    for (int i = 0; i < 4; i++)
        assert_int_equal(as(i, 1, 0), PLACEMENT_GRANTED); /* nobody else wants them */
    for (int i = 4; i < 7; i++)
        assert_int_equal(as(i, 1, 9), PLACEMENT_WAITING);
    for (int i = 10; i < 13; i++)
        assert_int_equal(as(i, 2, 0), PLACEMENT_WAITING);
    give(0);
    assert_true(granted(10, "a"));
    give(1);
    assert_true(granted(11, "a"));
    /* Both have their half; as neither is under it, the order is as usual. */
    give(2);
    assert_true(granted(4, "a"));
    give(10);
    assert_true(granted(12, "a"));
    give(11);
    assert_true(granted(5, "a")); /* only they wait, and no place stays idle */
    give(12);
    assert_true(granted(6, "a"));
}

/* Who is under its share can't use the place: then it is the other's. */
static void test_share_leaves_no_place_idle(void **state)
{
    struct placement_wish picky;

    (void)state;
    shared_farm(2, (uint32_t[]){ 1, 1 }, 50);
    assert_int_equal(as(0, 1, 0), PLACEMENT_GRANTED);
    assert_int_equal(as(1, 1, 0), PLACEMENT_GRANTED);
    picky = fixture_wish(t.farm, 0);
    picky.client = 2;
    picky.tried[picky.n_tried++] = t.sessions[0].place.member->backend;
    assert_int_equal(ask(2, picky), PLACEMENT_WAITING);
    assert_int_equal(as(3, 1, 0), PLACEMENT_WAITING);
    give(0);
    assert_true(granted(3, backend_name(picky.tried[0])));
    assert_true(still_waiting(2));
}

/* The same where a whole queue is served at once. */
static void test_share_when_the_ceiling_rises(void **state)
{
    (void)state;
    shared_farm(1, (uint32_t[]){ 2 }, 30);
    assert_int_equal(as(0, 1, 0), PLACEMENT_GRANTED);
    assert_int_equal(as(1, 1, 0), PLACEMENT_GRANTED);
    for (int i = 2; i < 12; i++)
        assert_int_equal(as(i, 1, 0), PLACEMENT_WAITING);
    for (int i = 20; i < 25; i++)
        assert_int_equal(as(i, 2, 0), PLACEMENT_WAITING);
    t.farm->backends[0]->ceiling = 10; /* a share is three places */
    placement_serve(t.farm, t.now);
    post();
    for (int i = 2; i < 12; i++) /* one for its share, and four that nobody else could have */
        assert_int_equal(t.sessions[i].place.member != NULL, i < 5);
    for (int i = 20; i < 25; i++)
        assert_int_equal(t.sessions[i].place.member != NULL, true);
}

static unsigned counted(uint64_t client)
{
    const struct wait_queue *queue = t.farm->pools[0].state->queue;

    for (size_t i = 0; i < queue->n_buckets; i++)
        for (const struct queue_client *c = queue->buckets[i]; c; c = c->next)
            if (c->key == client)
                return c->places;
    return 0;
}

static void test_each_place_is_counted_once(void **state)
{
    (void)state;
    shared_farm(1, (uint32_t[]){ 2 }, 50);
    assert_int_equal(as(0, 1, 0), PLACEMENT_GRANTED);
    assert_int_equal(as(1, 2, 0), PLACEMENT_GRANTED);
    assert_int_equal(as(2, 1, 0), PLACEMENT_WAITING);
    assert_int_equal(as(3, 2, 0), PLACEMENT_WAITING);
    assert_int_equal(counted(1), 1);
    give(0);
    assert_int_equal(counted(1), 1); /* the mail has not come yet */
    waiter_leave(&t.sessions[2].waiter);
    post();
    assert_int_equal(counted(1), 0);
    assert_int_equal(counted(2), 2);
    give(1);
    assert_int_equal(counted(2), 1);
    assert_int_equal(as(4, 1, 0), PLACEMENT_GRANTED);
    assert_int_equal(counted(1), 1);
}

/* The option comes and goes while places are held: each is given back as it was counted. */
static void test_share_over_reloads(void **state)
{
    (void)state;
    shared_farm(1, (uint32_t[]){ 3 }, 100);
    assert_int_equal(as(0, 1, 0), PLACEMENT_GRANTED);
    assert_int_equal(counted(1), 0);
    t.f.pools[0].max_share_per_client = 50;
    assert_int_equal(as(1, 1, 0), PLACEMENT_GRANTED);
    assert_int_equal(counted(1), 1);
    give(0);
    assert_int_equal(counted(1), 1);
    assert_int_equal(as(2, 2, 0), PLACEMENT_GRANTED);
    t.f.pools[0].max_share_per_client = 100;
    give(1);
    assert_int_equal(counted(1), 0);
    assert_int_equal(as(0, 2, 0), PLACEMENT_GRANTED);
    assert_int_equal(counted(2), 1);
}

/* The pool is taken out while places of its are counted. */
static void test_share_outlives_its_pool(void **state)
{
    struct fixture g;
    struct farm *old;

    (void)state;
    shared_farm(1, (uint32_t[]){ 2 }, 50);
    assert_int_equal(as(0, 1, 0), PLACEMENT_GRANTED);
    fixture_start(&g);
    fixture_backend(&g, fixture_pool(&g, "others", CONFIG_LEAST_CONNECTIONS, 10), "a", 1, 2, 0);
    old = t.farm;
    t.farm = fixture_farm(&g, old);
    farm_release(&old);
    assert_int_equal(t.f.config.references, 1);
    give(0);
    farm_release(&t.farm);
    t.farm = fixture_farm(&t.f, NULL);
}

/* A share of less than a place is one. */
static void test_share_of_few_places(void **state)
{
    (void)state;
    shared_farm(1, (uint32_t[]){ 2 }, 1);
    assert_int_equal(as(0, 1, 0), PLACEMENT_GRANTED);
    assert_int_equal(as(1, 1, 0), PLACEMENT_GRANTED);
    assert_int_equal(as(2, 1, 0), PLACEMENT_WAITING);
    assert_int_equal(as(3, 2, 0), PLACEMENT_WAITING);
    assert_int_equal(as(4, 3, 0), PLACEMENT_WAITING);
    give(0);
    assert_true(granted(3, "a"));
    give(3);
    assert_true(granted(4, "a"));
    give(1);
    assert_true(granted(2, "a"));
}

/* --- patience ------------------------------------------------------------------------------------------- */

#define USUAL 10000

static uint32_t patience_of_newcomer(int i, int64_t now)
{
    t.now = now;
    assert_int_equal(as(i, (uint64_t)i, 0), PLACEMENT_WAITING);
    return waiter_patience(t.sessions[i].waiter, USUAL);
}

/* The place goes on at `now`. */
static void hand_on(int64_t now)
{
    t.now = now;
    give(holder());
    post();
}

static void test_nobody_is_served_for_long(void **state)
{
    (void)state;
    full_farm(100);
    assert_int_equal(patience_of_newcomer(0, 100000), USUAL);
    assert_int_equal(patience_of_newcomer(1, 101001), USUAL); /* a second is over … */
    assert_int_equal(patience_of_newcomer(2, 105999), USUAL);
    assert_int_equal(patience_of_newcomer(3, 106000), PLACEMENT_HURRY); /* … since five */
    assert_int_equal(waiter_patience(t.sessions[3].waiter, 500), 500);
    assert_int_equal(waiter_patience(t.sessions[0].waiter, USUAL), USUAL); /* who was there waits on */
}

static void test_the_same_without_newcomers(void **state)
{
    (void)state;
    full_farm(100);
    assert_int_equal(patience_of_newcomer(0, 100000), USUAL);
    assert_int_equal(patience_of_newcomer(1, 106000), PLACEMENT_HURRY);
}

static void test_every_wait_is_long(void **state)
{
    int64_t now = 100000;
    int i = 0;

    (void)state;
    full_farm(100);
    for (; i < 10; i++)
        assert_int_equal(patience_of_newcomer(i, now), USUAL);
    for (now = 101500; now < 106500; now += 1000, i++) {
        hand_on(now);
        assert_int_equal(patience_of_newcomer(i, now), now < 106000 ? USUAL : PLACEMENT_HURRY);
    }
    hand_on(106500);
    assert_int_equal(patience_of_newcomer(i++, 106500), PLACEMENT_HURRY);
    /* One short wait, and all is as before. */
    while (holder() != i - 1)
        hand_on(107400);
    assert_int_equal(patience_of_newcomer(i++, 107400), USUAL);
    assert_int_equal(patience_of_newcomer(i++, 112300), USUAL);
}

static void test_an_empty_queue_ends_the_hurry(void **state)
{
    (void)state;
    full_farm(100);
    assert_int_equal(patience_of_newcomer(0, 100000), USUAL);
    assert_int_equal(patience_of_newcomer(1, 110000), PLACEMENT_HURRY);
    waiter_leave(&t.sessions[0].waiter);
    waiter_leave(&t.sessions[1].waiter);
    assert_int_equal(patience_of_newcomer(2, 110001), USUAL);
}

/* --- many ----------------------------------------------------------------------------------------------- */

static _Atomic uint32_t crowd_served;
static uint32_t crowd_order[30000];

static void deliver_to_crowd(void *arg, enum placement_verdict verdict, struct place place)
{
    uint32_t *turn = arg;

    assert_int_equal(verdict, PLACEMENT_GRANTED);
    *turn = crowd_served++;
    placement_return(&place, 0);
    assert_null(place.member);
}

/* 5,000 clients with six each: six rounds through all of them. */
static void test_a_crowd(void **state)
{
    struct placement_wish wish;
    struct waiter *waiter;
    struct place place;

    (void)state;
    full_farm(30000);
    crowd_served = 0;
    wish = fixture_wish(t.farm, 0);
    for (uint32_t i = 0; i < 30000; i++) {
        wish.client = i / 6 * UINT64_C(0x9e3779b97f4a7c15);
        assert_int_equal(placement_request(&wish, &t.random, 0, &t.mailbox, deliver_to_crowd, &crowd_order[i],
                                           &place, &waiter),
                         PLACEMENT_WAITING);
    }
    give(HOLDER);
    while (placement_waiting(&t.farm->pools[0]) > 0 || t.farm->backends[0]->connections > 0)
        post();
    assert_int_equal(crowd_served, 30000);
    for (uint32_t i = 0; i < 30000; i++)
        assert_int_equal(crowd_order[i], i % 6 * 5000 + i / 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STEP(test_one_client_first_in_first_out),
        STEP(test_one_client_after_the_other),
        STEP(test_highest_priority_first),
        STEP(test_all_priorities),
        STEP(test_coming_back_gains_nothing),
        STEP(test_bulk_beside_twenty),
        STEP(test_who_is_passed_over_keeps_its_turn),
        STEP(test_a_full_queue_takes_from_the_largest),
        STEP(test_a_quarter_is_safe),
        STEP(test_a_lower_priority_gives_way),
        STEP(test_one_client_with_two_priorities),
        STEP(test_a_smaller_queue_after_a_reload),
        STEP(test_share_while_others_wait),
        STEP(test_share_leaves_no_place_idle),
        STEP(test_share_when_the_ceiling_rises),
        STEP(test_each_place_is_counted_once),
        STEP(test_share_over_reloads),
        STEP(test_share_outlives_its_pool),
        STEP(test_share_of_few_places),
        STEP(test_nobody_is_served_for_long),
        STEP(test_the_same_without_newcomers),
        STEP(test_every_wait_is_long),
        STEP(test_an_empty_queue_ends_the_hurry),
        STEP(test_a_crowd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
