/*
 * What outlives a change of state, and what must not: health/ from signs to what is published, without a
 * network. The backends have no address, so nothing is checked but what a test says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <ev.h>

#include "balancer/eligible.h"
#include "balancer/queue.h"
#include "health/record.h"
#include "net/clock.h"
#include "tests/unit/farm_fixture.h"

struct house {
    struct ev_loop *loop;
    struct fixture fixture;
    struct config_pool *pool;
    struct farm *farm;
    struct health *health;
};

static void checked(struct backend *backend, bool passed)
{
    struct record *record = record_of(backend);
    int64_t now = clock_milliseconds();

    judge_check(&record->judge, passed, "closed", now);
    publish(record, now);
}

/* `n` of weight 1, all up. */
static void house_open(struct house *house, int n)
{
    static const char *const names[] = { "a", "b", "c", "d" };

    memset(house, 0, sizeof *house);
    house->loop = ev_loop_new(EVFLAG_AUTO);
    fixture_start(&house->fixture);
    house->fixture.config.hostname = (char *)(uintptr_t) "weir.test";
    house->pool = fixture_pool(&house->fixture, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    house->pool->health =
        (struct config_health){ 3600000, 3600000, 2000, 1, 1, CONFIG_DEPTH_CONNECT, NULL, NULL };
    house->pool->slow_start = 60000;
    for (int i = 0; i < n; i++)
        fixture_backend(&house->fixture, house->pool, names[i], 1, 100, 0);
    house->farm = fixture_farm(&house->fixture, NULL);
    house->health = health_open(house->loop, NULL);
    assert_non_null(house->health);
    health_set_farm(house->health, house->farm);
    for (int i = 0; i < n; i++)
        checked(house->farm->backends[i], true);
}

static void house_close(struct house *house)
{
    for (size_t i = 0; i < house->farm->n_backends; i++)
        atomic_store(&house->farm->backends[i]->connections, 0);
    health_close(&house->health);
    farm_release(&house->farm);
    ev_loop_destroy(house->loop);
}

static void assert_state(const struct backend *backend, enum backend_state state)
{
    if (atomic_load(&backend->state) != state)
        fail_msg("%s is %s, not %s", backend_name(backend), backend_state_name(atomic_load(&backend->state)),
                 backend_state_name(state));
}

static void hard(struct house *house, struct backend *backend, int n)
{
    while (n--)
        health_report(backend, HEALTH_HARD, clock_milliseconds());
    ev_run(house->loop, EVRUN_NOWAIT);
}

static void eject(struct house *house, struct backend *backend)
{
    hard(house, backend, 3);
    assert_state(backend, BACKEND_EJECTED);
}

/* Its ejection is over now. */
static void wait_out(struct house *house, struct backend *backend)
{
    struct record *record = record_of(backend);

    record->judge.ejected_until = clock_milliseconds();
    publish(record, record->judge.ejected_until);
    ev_run(house->loop, EVRUN_ONCE);
}

static void good(struct house *house, struct backend *backend, int n)
{
    while (n--)
        health_report(backend, HEALTH_GOOD, clock_milliseconds());
    ev_run(house->loop, EVRUN_NOWAIT);
}

/* --- on trial --- */

/* An idle session of before the ejection has a place, and says nothing for minutes. */
static void test_a_trial_beside_who_stayed(void **state)
{
    struct house house;
    struct backend *backend;

    (void)state;
    house_open(&house, 2);
    backend = house.farm->backends[0];
    atomic_store(&backend->connections, 50);
    eject(&house, backend);
    wait_out(&house, backend);
    assert_state(backend, BACKEND_HALF_OPEN);
    assert_int_equal(atomic_load(&backend->ceiling), 55);
    assert_int_equal(backend_limit(backend), 55);
    atomic_store(&backend->connections, 20);
    (void)limits_tick(record_of(backend), clock_milliseconds());
    assert_int_equal(atomic_load(&backend->ceiling), 25);
    atomic_store(&backend->connections, 25);
    (void)limits_tick(record_of(backend), clock_milliseconds());
    assert_int_equal(atomic_load(&backend->ceiling), 25);
    good(&house, backend, 3);
    assert_state(backend, BACKEND_UP);
    assert_int_equal(atomic_load(&backend->ceiling), 10); /* begins slowly, as ever */
    assert_int_equal(backend_limit(backend), 10);
    /* What an agent or max-connections allow is the end in any case. */
    checked(backend, false);
    checked(backend, true);
    atomic_store(&backend->connections, 98);
    eject(&house, backend);
    wait_out(&house, backend);
    assert_int_equal(atomic_load(&backend->ceiling), 100);
    house_close(&house);
}

/* Only this instance has ejected it. The others, for which it is well, hold more than a trial may have. */
static void test_a_trial_beside_other_instances(void **state)
{
    const struct backend_news news = { .others = 60, .instances = 2, .share = BACKEND_WHOLE, .anew = true };
    const struct backend_news alone = { .instances = 1, .share = BACKEND_WHOLE, .anew = true };
    const struct backend_news full = { .others = 100, .instances = 2, .share = BACKEND_WHOLE, .anew = true };
    struct house house;
    struct backend *backend;
    uint64_t served;

    (void)state;
    house_open(&house, 2);
    backend = house.farm->backends[0];
    (void)backend_set_news(backend, &news);
    eject(&house, backend);
    wait_out(&house, backend);
    assert_state(backend, BACKEND_HALF_OPEN);
    assert_int_equal(atomic_load(&backend->ceiling), 2); /* 5 % of 100, of two */
    assert_int_equal(backend_limit(backend), 62);
    (void)backend_set_news(backend, &full);
    assert_int_equal(atomic_load(&backend->ceiling), 0);
    /* The other has gone: there are more places, and who waits is to hear of it. */
    (void)backend_set_news(backend, &alone);
    served = atomic_load(&queue_news);
    (void)limits_tick(record_of(backend), clock_milliseconds());
    assert_int_equal(atomic_load(&backend->ceiling), 5);
    assert_true(atomic_load(&queue_news) > served);
    (void)backend_set_news(backend, &news);
    good(&house, backend, 3);
    assert_state(backend, BACKEND_UP);
    house_close(&house);
}

/* In a panic it carried all there was. The end of its ejection must not take that away. */
static void test_the_last_one_needs_no_trial(void **state)
{
    struct house house;
    struct backend *backend;

    (void)state;
    house_open(&house, 2);
    backend = house.farm->backends[0];
    eject(&house, backend);
    checked(house.farm->backends[1], false);
    assert_true(atomic_load(&house.farm->pools[0].state->panic));
    assert_int_equal(atomic_load(&backend->ceiling), 100);
    wait_out(&house, backend);
    assert_state(backend, BACKEND_UP);
    assert_int_equal(atomic_load(&backend->ceiling), 100);
    assert_int_equal(atomic_load(&backend->milliweight), 1000);
    house_close(&house);
}

/* --- beside the operator's word --- */

/* In maintenance it is switched off, and what its last sessions meet is what the operator wants. It takes
 * nobody's turn to be ejected either; nor does one in DRAIN, which nobody tries. */
static void test_nothing_is_judged_in_maintenance(void **state)
{
    struct order word = order_none;

    (void)state;
    for (word.admin = BACKEND_DRAIN; word.admin <= BACKEND_MAINT; word.admin++) {
        struct house house;
        struct backend *backend;

        house_open(&house, 4);
        backend = house.farm->backends[0];
        health_order(house.health, backend, ORDER_OPERATOR, &word);
        hard(&house, backend, 3);
        health_report(backend, HEALTH_REFUSED, clock_milliseconds());
        ev_run(house.loop, EVRUN_NOWAIT);
        assert_state(backend, word.admin == BACKEND_MAINT ? BACKEND_UP : BACKEND_EJECTED);
        eject(&house, house.farm->backends[1]);
        eject(&house, house.farm->backends[2]);
        hard(&house, house.farm->backends[3], 3);
        assert_state(house.farm->backends[3], BACKEND_UP);
        house_close(&house);
    }
}

/* --- another machine --- */

static struct address place(uint16_t port)
{
    struct address address = { .length = sizeof(struct sockaddr_in) };

    address.in.sin_family = AF_INET;
    address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.in.sin_port = htons(port);
    return address;
}

static void move(struct house *house, struct backend *backend)
{
    struct record *record = record_of(backend);

    record->place = place(1);
    house->farm->given[0].address = place(2);
    health_set_farm(house->health, house->farm);
    schedule_stop(record); /* it would be checked now */
}

/* A reload puts another machine in the place of one that was sick: its ejection, its hold and its limit were
 * not this one's. A healthy one goes on working, and one failed check will do. */
static void test_moved(void **state)
{
    struct house house;
    struct backend *backend;
    struct record *record;

    (void)state;
    house_open(&house, 3);
    backend = house.farm->backends[0];
    record = record_of(backend);
    eject(&house, backend);
    move(&house, backend);
    assert_state(backend, BACKEND_INIT);
    checked(backend, true);
    for (int i = 0; i < JUDGE_FALLS; i++) {
        judge_release(&record->judge);
        checked(backend, true);
        checked(backend, false);
    }
    assert_true(judge_held(&record->judge, clock_milliseconds()));
    move(&house, backend);
    checked(backend, true);
    assert_state(backend, BACKEND_UP);
    record->judge.slow_since = JUDGE_NEVER;
    atomic_store(&backend->connections, 10);
    health_report(backend, HEALTH_LOAD, clock_milliseconds());
    ev_run(house.loop, EVRUN_NOWAIT);
    assert_int_equal(atomic_load(&backend->ceiling), 7);
    house.pool->health.fall = 3;
    move(&house, backend);
    assert_state(backend, BACKEND_UP);
    assert_int_equal(atomic_load(&backend->ceiling), 100);
    checked(backend, false);
    assert_state(backend, BACKEND_DOWN);
    house_close(&house);
}

/* --- weights --- */

/* A lonely relay of weight 1 that comes back, says that it can't take much, and whose agent agrees. */
static void test_little_is_not_nothing(void **state)
{
    struct house house;
    struct backend *backend;
    struct record *record;
    struct order word = order_none;

    (void)state;
    house_open(&house, 1);
    backend = house.farm->backends[0];
    record = record_of(backend);
    checked(backend, false);
    checked(backend, true);
    judge_answers(&record->judge, 100, 100, clock_milliseconds());
    publish(record, clock_milliseconds());
    assert_state(backend, BACKEND_DEGRADED);
    assert_int_equal(atomic_load(&backend->milliweight), 10);
    word.share = 50;
    health_order(house.health, backend, ORDER_AGENT, &word);
    assert_true(backend_in_service(backend));
    word.share = 0;
    health_order(house.health, backend, ORDER_AGENT, &word);
    assert_false(backend_in_service(backend));
    house_close(&house);
}

/* An ejected one that is given a weight is what a panic is for, and one that loses it is not. */
static void test_panic_follows_weights(void **state)
{
    struct house house;
    struct backend *backend;
    struct order word = order_none;
    struct pool *pool;

    (void)state;
    house_open(&house, 2);
    backend = house.farm->backends[0];
    pool = &house.farm->pools[0];
    eject(&house, backend);
    word.weight = 0;
    health_order(house.health, backend, ORDER_OPERATOR, &word);
    checked(house.farm->backends[1], false);
    assert_false(atomic_load(&pool->state->panic));
    health_order(house.health, backend, ORDER_OPERATOR, &order_none);
    assert_true(atomic_load(&pool->state->panic));
    assert_int_equal(eligible_verdict(&(struct placement_wish){ .farm = house.farm, .pool = pool }),
                     PLACEMENT_WAITING);
    health_order(house.health, backend, ORDER_OPERATOR, &word);
    assert_false(atomic_load(&pool->state->panic));
    house_close(&house);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_trial_beside_who_stayed),
        cmocka_unit_test(test_a_trial_beside_other_instances),
        cmocka_unit_test(test_the_last_one_needs_no_trial),
        cmocka_unit_test(test_nothing_is_judged_in_maintenance),
        cmocka_unit_test(test_moved),
        cmocka_unit_test(test_little_is_not_nothing),
        cmocka_unit_test(test_panic_follows_weights),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
