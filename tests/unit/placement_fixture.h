/*
 * A farm, and sessions that ask it for places one step at a time under a clock of the test's own. At the end
 * of every test all places are back, nobody waits and nothing is counted.
 */
#ifndef WEIR_TESTS_PLACEMENT_FIXTURE_H
#define WEIR_TESTS_PLACEMENT_FIXTURE_H

#include "balancer/queue.h"
#include "tests/unit/farm_fixture.h"

#define SESSIONS 256

struct session {
    struct waiter *waiter;
    struct place place;
    enum placement_verdict verdict;
    unsigned delivered;
};

static struct {
    struct fixture f;
    struct farm *farm;
    struct ev_loop *loop;
    struct mailbox mailbox;
    struct session sessions[SESSIONS];
    int64_t now;
    uint64_t random;
} t;

static inline int begin(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    t.random = 42;
    t.loop = ev_loop_new(0);
    mailbox_open(&t.mailbox, t.loop, NULL);
    fixture_start(&t.f);
    return 0;
}

static inline void post(void)
{
    ev_run(t.loop, EVRUN_NOWAIT);
}

static inline void give(int i)
{
    placement_return(&t.sessions[i].place, t.now);
}

static inline int end(void **state)
{
    (void)state;
    for (int i = 0; i < SESSIONS; i++) {
        waiter_leave(&t.sessions[i].waiter);
        give(i);
    }
    post();
    for (size_t i = 0; i < t.farm->n_backends; i++)
        assert_int_equal(t.farm->backends[i]->connections, 0);
    for (size_t i = 0; i < t.farm->n_pools; i++)
        assert_int_equal(placement_waiting(&t.farm->pools[i]), 0);
    for (size_t i = 0; i < t.farm->n_pools; i++) /* no place is counted any more */
        assert_int_equal(t.farm->pools[i].state->queue->n_clients, 0);
    farm_release(&t.farm);
    mailbox_close(&t.mailbox);
    ev_loop_destroy(t.loop);
    assert_int_equal(t.f.config.references, 1); /* no waiter has kept it */
    return 0;
}

static inline void deliver(void *arg, enum placement_verdict verdict, struct place place)
{
    struct session *session = arg;

    session->delivered++;
    session->verdict = verdict;
    session->place = place;
    session->waiter = NULL;
}

static inline enum placement_verdict ask(int i, struct placement_wish wish)
{
    struct session *s = &t.sessions[i];

    s->delivered = 0;
    return placement_request(&wish, &t.random, t.now, &t.mailbox, deliver, s, &s->place, &s->waiter);
}

static inline enum placement_verdict get(int i)
{
    return ask(i, fixture_wish(t.farm, 0));
}

static inline bool granted(int i, const char *backend)
{
    struct session *s = &t.sessions[i];

    post();
    return s->delivered == 1 && s->verdict == PLACEMENT_GRANTED && s->place.member &&
           strcmp(backend_name(s->place.member->backend), backend) == 0;
}

static inline bool still_waiting(int i)
{
    post();
    return t.sessions[i].delivered == 0 && t.sessions[i].waiter;
}

/* One pool of backends a, b, c … with these ceilings, all up. */
static inline void farm_of(uint32_t queue_size, size_t n, const uint32_t *ceilings)
{
    struct config_pool *pool = fixture_pool(&t.f, "relays", CONFIG_LEAST_CONNECTIONS, queue_size);

    for (size_t i = 0; i < n; i++)
        fixture_backend(&t.f, pool, (char[]){ (char)('a' + i), 0 }, 1, ceilings[i], 0);
    t.farm = fixture_farm(&t.f, NULL);
    fixture_all_up(t.farm);
}

static inline void farm_of_one(uint32_t queue_size, uint32_t ceiling)
{
    farm_of(queue_size, 1, &ceiling);
}

#define STEP(name) cmocka_unit_test_setup_teardown(name, begin, end)

#endif
