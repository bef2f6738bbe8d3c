/*
 * Placement and the wait queue, one step at a time. Over threads: test_queue.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/placement_fixture.h"

static void test_grant_and_return(void **state)
{
    (void)state;
    farm_of_one(10, 2);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_non_null(t.sessions[0].place.member);
    assert_null(t.sessions[0].waiter);
    assert_int_equal(t.farm->backends[0]->connections, 1);
    give(0);
    assert_null(t.sessions[0].place.member);
    assert_int_equal(t.farm->backends[0]->connections, 0);
}

static void test_first_come_first_served(void **state)
{
    (void)state;
    farm_of_one(10, 1);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_WAITING);
    assert_int_equal(get(2), PLACEMENT_WAITING);
    assert_int_equal(placement_waiting(&t.farm->pools[0]), 2);
    give(0);
    assert_int_equal(t.farm->backends[0]->connections, 1); /* handed over, it never came free */
    assert_int_equal(get(0), PLACEMENT_WAITING);           /* and a newcomer is behind */
    assert_true(granted(1, "a"));
    assert_true(still_waiting(2));
    give(1);
    assert_true(granted(2, "a"));
    give(2);
    assert_true(granted(0, "a"));
}

static void test_newcomers_do_not_overtake(void **state)
{
    (void)state;
    farm_of_one(10, 1);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_WAITING);
    t.farm->backends[0]->ceiling = 2; /* nobody has said so yet */
    assert_int_equal(get(2), PLACEMENT_WAITING);
    assert_true(granted(1, "a"));
    assert_true(still_waiting(2));
}

static void test_queue_size(void **state)
{
    (void)state;
    farm_of_one(1, 1);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_WAITING);
    assert_int_equal(get(2), PLACEMENT_QUEUE_FULL);
    assert_null(t.sessions[2].waiter);
    assert_int_equal(placement_waiting(&t.farm->pools[0]), 1);
    waiter_leave(&t.sessions[1].waiter);
    assert_int_equal(get(2), PLACEMENT_WAITING);
}

static void test_no_queue(void **state)
{
    (void)state;
    farm_of_one(0, 1);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_QUEUE_FULL);
    give(0);
    assert_int_equal(get(1), PLACEMENT_GRANTED);
}

static void test_leave(void **state)
{
    (void)state;
    farm_of_one(10, 1);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_WAITING);
    assert_int_equal(get(2), PLACEMENT_WAITING);
    waiter_leave(&t.sessions[1].waiter);
    assert_null(t.sessions[1].waiter);
    waiter_leave(&t.sessions[1].waiter); /* NULL is fine */
    give(0);
    assert_true(granted(2, "a"));
    assert_int_equal(t.sessions[1].delivered, 0);
}

/* The grant is on its way when the session leaves: the next one gets that place. */
static void test_leave_with_the_mail_under_way(void **state)
{
    (void)state;
    farm_of_one(10, 1);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_WAITING);
    assert_int_equal(get(2), PLACEMENT_WAITING);
    give(0);
    waiter_leave(&t.sessions[1].waiter);
    post();
    assert_true(granted(2, "a"));
    assert_int_equal(t.sessions[1].delivered, 0);
    assert_int_equal(t.farm->backends[0]->connections, 1);
}

static void test_tried_backends_are_passed_over(void **state)
{
    struct placement_wish wish;

    (void)state;
    farm_of(10, 2, (uint32_t[]){ 1, 1 });
    wish = fixture_wish(t.farm, 0);
    wish.tried[wish.n_tried++] = t.farm->backends[0];
    assert_int_equal(ask(0, wish), PLACEMENT_GRANTED);
    assert_string_equal(backend_name(t.sessions[0].place.member->backend), "b");
    assert_int_equal(ask(1, wish), PLACEMENT_WAITING);
    assert_int_equal(get(2), PLACEMENT_GRANTED); /* passes 1, which cannot use a */
    assert_string_equal(backend_name(t.sessions[2].place.member->backend), "a");
    give(2);
    assert_true(still_waiting(1));
    assert_int_equal(t.farm->backends[0]->connections, 0);
    give(0);
    assert_true(granted(1, "b"));
    wish.tried[wish.n_tried++] = t.farm->backends[1];
    assert_int_equal(ask(2, wish), PLACEMENT_NO_BACKEND);
}

static void test_needs(void **state)
{
    struct placement_wish wish;
    const struct smtp_capabilities plain = { .flags = SMTP_CAP_8BITMIME, .size_limit = 100 };
    const struct smtp_capabilities able = { .flags = SMTP_CAP_8BITMIME | SMTP_CAP_DSN, .size_limit = 1000 };

    (void)state;
    farm_of(10, 2, (uint32_t[]){ 0, 1 });
    backend_set_capabilities(t.farm->backends[0], &plain);
    backend_set_capabilities(t.farm->backends[1], &able);
    wish = fixture_wish(t.farm, 0);
    wish.needs = SMTP_CAP_DSN;
    assert_int_equal(ask(0, wish), PLACEMENT_GRANTED);
    assert_string_equal(backend_name(t.sessions[0].place.member->backend), "b");
    assert_int_equal(ask(1, wish), PLACEMENT_WAITING); /* a has room, but not what it takes */
    wish.needs = 0;
    wish.size = 500;
    assert_int_equal(ask(2, wish), PLACEMENT_WAITING);
    wish.size = 5000;
    assert_int_equal(ask(3, wish), PLACEMENT_NOT_CAPABLE);
    wish.size = 0;
    wish.needs = SMTP_CAP_SMTPUTF8;
    assert_int_equal(ask(3, wish), PLACEMENT_NOT_CAPABLE);
    /* b learns less: who waits for it hears that, and who is content with a size still waits. */
    backend_set_capabilities(t.farm->backends[1],
                             &(struct smtp_capabilities){ .flags = SMTP_CAP_8BITMIME, .size_limit = 1000 });
    placement_serve(t.farm, t.now);
    post();
    assert_int_equal(t.sessions[1].delivered, 1);
    assert_int_equal(t.sessions[1].verdict, PLACEMENT_NOT_CAPABLE);
    assert_null(t.sessions[1].place.member);
    assert_true(still_waiting(2));
}

static void test_waits_for_the_first_check(void **state)
{
    (void)state;
    farm_of_one(10, 5);
    t.farm->backends[0]->state = BACKEND_INIT;
    assert_int_equal(get(0), PLACEMENT_WAITING);
    t.farm->backends[0]->state = BACKEND_UP;
    placement_serve(t.farm, t.now);
    assert_true(granted(0, "a"));
}

static void test_waits_out_a_suspension(void **state)
{
    (void)state;
    farm_of_one(10, 5);
    t.now = 5000;
    t.farm->backends[0]->suspended_until = 6000;
    assert_int_equal(get(0), PLACEMENT_WAITING);
    placement_serve(t.farm, 5999);
    assert_true(still_waiting(0));
    placement_serve(t.farm, 6000);
    assert_true(granted(0, "a"));
}

static void test_refused_when_nothing_is_left(void **state)
{
    (void)state;
    farm_of_one(10, 1);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_WAITING);
    t.farm->backends[0]->state = BACKEND_DOWN;
    give(0); /* not handed on: it is down */
    assert_true(still_waiting(1));
    placement_serve(t.farm, t.now);
    post();
    assert_int_equal(t.sessions[1].delivered, 1);
    assert_int_equal(t.sessions[1].verdict, PLACEMENT_NO_BACKEND);
    assert_int_equal(get(2), PLACEMENT_NO_BACKEND);
    t.farm->backends[0]->state = BACKEND_INIT;
    t.farm->backends[0]->milliweight = 0; /* not even a check will help */
    assert_int_equal(get(2), PLACEMENT_NO_BACKEND);
}

static void test_lowered_ceiling(void **state)
{
    (void)state;
    farm_of_one(10, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(get(i), PLACEMENT_GRANTED);
    assert_int_equal(get(3), PLACEMENT_WAITING);
    t.farm->backends[0]->ceiling = 1;
    give(0);
    give(1);
    assert_true(still_waiting(3));
    assert_int_equal(t.farm->backends[0]->connections, 1);
    give(2);
    assert_true(granted(3, "a"));
}

static void tiered_farm(void)
{
    struct config_pool *pool = fixture_pool(&t.f, "relays", CONFIG_LEAST_CONNECTIONS, 10);

    fixture_backend(&t.f, pool, "a", 2, 1, 0);
    fixture_backend(&t.f, pool, "b", 1, 1, 0);
    fixture_backend(&t.f, pool, "c", 100, 0, 1);
    t.farm = fixture_farm(&t.f, NULL);
    fixture_all_up(t.farm);
}

static void test_tiers(void **state)
{
    (void)state;
    tiered_farm();
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_GRANTED);
    assert_int_equal(t.farm->backends[2]->connections, 0); /* the heavy one behind is not touched … */
    assert_int_equal(get(2), PLACEMENT_GRANTED);
    assert_int_equal(t.farm->backends[2]->connections, 1); /* … until the first tier is full */
    give(0);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(t.farm->backends[2]->connections, 1);
}

static void test_tier_below_70_percent(void **state)
{
    (void)state;
    tiered_farm();
    t.farm->backends[0]->milliweight = 1100; /* 2.1 of 3: just enough */
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_string_equal(backend_name(t.sessions[0].place.member->backend), "a");
    give(0);
    t.farm->backends[0]->milliweight = 1099;
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_string_equal(backend_name(t.sessions[0].place.member->backend), "c");
}

/* A backend of two pools: its place goes to whose turn comes first, in whichever. */
static void test_shared_backend(void **state)
{
    struct config_pool *one, *two;
    struct fixture *f = &t.f;

    (void)state;
    one = fixture_pool(f, "one", CONFIG_LEAST_CONNECTIONS, 10);
    two = fixture_pool(f, "two", CONFIG_LEAST_CONNECTIONS, 10);
    fixture_backend(f, one, "a", 1, 1, 0);
    fixture_backend(f, two, "a", 1, 1, 0);
    t.farm = fixture_farm(f, NULL);
    fixture_all_up(t.farm);
    assert_int_equal(ask(0, fixture_wish(t.farm, 0)), PLACEMENT_GRANTED);
    assert_int_equal(ask(1, fixture_wish(t.farm, 1)), PLACEMENT_WAITING);
    assert_int_equal(ask(2, fixture_wish(t.farm, 0)), PLACEMENT_WAITING);
    assert_int_equal(ask(3, fixture_wish(t.farm, 1)), PLACEMENT_WAITING);
    give(0);
    assert_true(granted(1, "a"));
    assert_ptr_equal(t.sessions[1].place.member, t.farm->pools[1].members[0]);
    give(1);
    assert_true(granted(2, "a"));
    assert_ptr_equal(t.sessions[2].place.member, t.farm->pools[0].members[0]);
    give(2);
    assert_true(granted(3, "a"));
}

/* Clients take turns over both of its pools: one with many in the one is no older than one in the other. */
static void test_shared_backend_by_turns(void **state)
{
    static const int order[] = { 1, 6, 7, 2, 3, 4, 5 };
    struct fixture *f = &t.f;
    int holder = 0;

    (void)state;
    fixture_backend(f, fixture_pool(f, "bulk", CONFIG_LEAST_CONNECTIONS, 10), "a", 1, 1, 0);
    fixture_backend(f, fixture_pool(f, "quick", CONFIG_LEAST_CONNECTIONS, 10), "a", 1, 1, 0);
    t.farm = fixture_farm(f, NULL);
    fixture_all_up(t.farm);
    for (int i = 0; i < 8; i++) {
        struct placement_wish wish = fixture_wish(t.farm, i < 6 ? 0 : 1);

        wish.client = i < 6 ? 1 : (uint64_t)i;
        assert_int_equal(ask(i, wish), i ? PLACEMENT_WAITING : PLACEMENT_GRANTED);
    }
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        give(holder);
        holder = order[i];
        assert_true(granted(holder, "a"));
    }
}

/* The same of two priorities: the higher goes first, whoever has waited longer. */
static void test_shared_backend_by_priority(void **state)
{
    struct placement_wish wish;
    struct fixture *f = &t.f;

    (void)state;
    fixture_backend(f, fixture_pool(f, "one", CONFIG_LEAST_CONNECTIONS, 10), "a", 1, 1, 0);
    fixture_backend(f, fixture_pool(f, "two", CONFIG_LEAST_CONNECTIONS, 10), "a", 1, 1, 0);
    t.farm = fixture_farm(f, NULL);
    fixture_all_up(t.farm);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_WAITING);
    wish = fixture_wish(t.farm, 1);
    wish.priority = 1;
    assert_int_equal(ask(2, wish), PLACEMENT_WAITING);
    wish.priority = 0;
    assert_int_equal(ask(3, wish), PLACEMENT_WAITING);
    give(0);
    assert_true(granted(2, "a"));
    give(2);
    assert_true(granted(1, "a"));
    give(1);
    assert_true(granted(3, "a"));
}

/* --- backends that are out ------------------------------------------------------------------------------ */

/* An ejected backend's place is for those whose pool is in a panic. */
static void test_a_place_in_a_panic(void **state)
{
    struct fixture *f = &t.f;
    struct backend *ejected;

    (void)state;
    fixture_backend(f, fixture_pool(f, "calm", CONFIG_LEAST_CONNECTIONS, 10), "a", 1, 1, 0);
    fixture_backend(f, fixture_pool(f, "panic", CONFIG_LEAST_CONNECTIONS, 10), "a", 1, 1, 0);
    t.farm = fixture_farm(f, NULL);
    fixture_all_up(t.farm);
    ejected = t.farm->backends[0];
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_WAITING);
    assert_int_equal(ask(2, fixture_wish(t.farm, 1)), PLACEMENT_WAITING);
    assert_int_equal(ask(3, fixture_wish(t.farm, 1)), PLACEMENT_WAITING);
    ejected->state = BACKEND_EJECTED;
    t.farm->pools[1].state->panic = true;
    give(0);
    assert_true(granted(2, "a"));
    assert_ptr_equal(t.sessions[2].place.member, t.farm->pools[1].members[0]);
    assert_int_equal(ejected->connections, 1);
    assert_true(still_waiting(1)); /* nobody has told it yet that there is nothing to wait for */
    t.farm->pools[1].state->panic = false;
    give(2);
    assert_true(still_waiting(1));
    assert_true(still_waiting(3));
    assert_int_equal(ejected->connections, 0);
}

static void test_a_place_in_a_panic_but_suspended(void **state)
{
    (void)state;
    farm_of_one(10, 1);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_WAITING);
    t.farm->backends[0]->state = BACKEND_EJECTED;
    t.farm->pools[0].state->panic = true;
    t.farm->backends[0]->suspended_until = 1000;
    t.now = 999;
    give(0);
    assert_true(still_waiting(1));
    placement_serve(t.farm, 1000);
    assert_true(granted(1, "a"));
}

static void refused_as_nothing_is_usable(int i)
{
    post();
    assert_int_equal(t.sessions[i].delivered, 1);
    assert_int_equal(t.sessions[i].verdict, PLACEMENT_NO_BACKEND);
}

/* By an operator's word, in any state and in a panic too. */
static void test_a_place_of_a_drained_backend(void **state)
{
    static const enum backend_state states[] = { BACKEND_UP, BACKEND_DEGRADED, BACKEND_HALF_OPEN,
                                                 BACKEND_EJECTED };

    (void)state;
    farm_of(10, 2, (uint32_t[]){ 1, 1 });
    t.farm->pools[0].state->panic = true;
    for (enum backend_admin admin = BACKEND_DRAIN; admin <= BACKEND_MAINT; admin++) {
        for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
            struct backend *drained;

            fixture_all_up(t.farm);
            assert_int_equal(get(0), PLACEMENT_GRANTED);
            assert_int_equal(get(1), PLACEMENT_GRANTED);
            assert_int_equal(get(2), PLACEMENT_WAITING);
            drained = t.sessions[0].place.member->backend;
            drained->state = states[i];
            drained->admin = admin;
            give(0);
            assert_int_equal(drained->connections, 0);
            placement_serve(t.farm, t.now); /* the other one is worth waiting for */
            assert_true(still_waiting(2));
            give(1);
            assert_true(granted(2, backend_name(t.farm->backends[drained == t.farm->backends[0]])));
            give(2);
            drained->admin = BACKEND_READY;
        }
    }
}

static void test_all_drained(void **state)
{
    (void)state;
    farm_of(10, 2, (uint32_t[]){ 1, 0 });
    t.farm->backends[1]->state = BACKEND_INIT;
    t.farm->backends[1]->admin = BACKEND_MAINT; /* no check will ever say anything of it */
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_WAITING);
    t.farm->backends[0]->admin = BACKEND_DRAIN;
    assert_int_equal(get(2), PLACEMENT_NO_BACKEND);
    give(0);
    assert_true(still_waiting(1));
    placement_serve(t.farm, t.now);
    refused_as_nothing_is_usable(1);
    assert_int_equal(get(1), PLACEMENT_NO_BACKEND);
    t.farm->backends[0]->admin = BACKEND_READY;
    assert_int_equal(get(1), PLACEMENT_GRANTED);
}

/* Drained and back while somebody waits for a place on it. */
static void test_drained_for_a_moment(void **state)
{
    (void)state;
    farm_of(10, 2, (uint32_t[]){ 1, 1 });
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_GRANTED);
    assert_int_equal(get(2), PLACEMENT_WAITING);
    t.sessions[0].place.member->backend->admin = BACKEND_DRAIN;
    give(0);
    assert_true(still_waiting(2));
    for (int i = 0; i < 2; i++)
        t.farm->backends[i]->admin = BACKEND_READY;
    placement_serve(t.farm, t.now);
    post();
    assert_non_null(t.sessions[2].place.member);
}

/* Weight 0 carries nothing, beside a weight of 1000 and alone. */
static void test_weights_at_their_ends(void **state)
{
    struct config_pool *pool = fixture_pool(&t.f, "relays", CONFIG_LEAST_CONNECTIONS, 10);

    (void)state;
    fixture_backend(&t.f, pool, "none", 0, 0, 0);
    fixture_backend(&t.f, pool, "most", 1000, 2, 0);
    t.farm = fixture_farm(&t.f, NULL);
    fixture_all_up(t.farm);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_GRANTED);
    assert_int_equal(get(2), PLACEMENT_WAITING);
    assert_int_equal(t.farm->backends[1]->connections, 2);
    give(0);
    assert_true(granted(2, "most"));
    t.farm->backends[1]->state = BACKEND_DOWN;
    assert_int_equal(get(3), PLACEMENT_NO_BACKEND);
}

/* Who waits for backends that a reload took away gets one of the new. */
static void test_reload(void **state)
{
    struct fixture g;
    struct farm *old;
    struct config_pool *pool;

    (void)state;
    farm_of_one(10, 1);
    assert_int_equal(get(0), PLACEMENT_GRANTED);
    assert_int_equal(get(1), PLACEMENT_WAITING);
    assert_int_equal(get(2), PLACEMENT_WAITING);
    fixture_start(&g);
    pool = fixture_pool(&g, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    fixture_backend(&g, pool, "new", 1, 1, 0);
    old = t.farm;
    t.farm = fixture_farm(&g, old);
    fixture_all_up(t.farm);
    placement_serve(t.farm, t.now);
    assert_true(granted(1, "new"));
    assert_true(still_waiting(2));
    placement_serve(old, t.now); /* some worker has not heard of it: nobody moves back */
    give(0);
    assert_true(still_waiting(2));
    farm_release(&old);
    assert_int_equal(t.f.config.references, 1); /* nobody holds on to the old one */
    give(1);
    assert_true(granted(2, "new"));
    give(2);
    farm_release(&t.farm);
    t.farm = fixture_farm(&t.f, NULL);
}

static void test_retry_budget(void **state)
{
    (void)state;
    farm_of_one(10, 0);
    for (int i = 0; i < 3; i++)
        assert_true(placement_retry_begin());
    assert_false(placement_retry_begin());
    placement_retry_end();
    assert_true(placement_retry_begin());
    {
        struct place held[20];
        struct waiter *waiter;
        struct placement_wish wish = fixture_wish(t.farm, 0);

        for (int i = 0; i < 20; i++)
            assert_int_equal(
                placement_request(&wish, &t.random, 0, &t.mailbox, deliver, NULL, &held[i], &waiter),
                PLACEMENT_GRANTED);
        assert_true(placement_retry_begin()); /* the fourth: a fifth of twenty */
        assert_false(placement_retry_begin());
        for (int i = 0; i < 20; i++)
            placement_return(&held[i], t.now);
    }
    /* Who has got a place goes ahead; the others then wait for one more to end. */
    placement_retry_granted();
    placement_retry_end();
    placement_retry_end();
    assert_false(placement_retry_begin());
    for (int i = 0; i < 3; i++)
        placement_retry_end();
    assert_true(placement_retry_begin());
    placement_retry_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STEP(test_grant_and_return),
        STEP(test_first_come_first_served),
        STEP(test_newcomers_do_not_overtake),
        STEP(test_queue_size),
        STEP(test_no_queue),
        STEP(test_leave),
        STEP(test_leave_with_the_mail_under_way),
        STEP(test_tried_backends_are_passed_over),
        STEP(test_needs),
        STEP(test_waits_for_the_first_check),
        STEP(test_waits_out_a_suspension),
        STEP(test_refused_when_nothing_is_left),
        STEP(test_lowered_ceiling),
        STEP(test_tiers),
        STEP(test_tier_below_70_percent),
        STEP(test_shared_backend),
        STEP(test_shared_backend_by_turns),
        STEP(test_shared_backend_by_priority),
        STEP(test_a_place_in_a_panic),
        STEP(test_a_place_in_a_panic_but_suspended),
        STEP(test_a_place_of_a_drained_backend),
        STEP(test_all_drained),
        STEP(test_drained_for_a_moment),
        STEP(test_weights_at_their_ends),
        STEP(test_reload),
        STEP(test_retry_budget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
