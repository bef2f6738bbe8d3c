/*
 * The wait queue over threads (also run under the thread sanitizer): places are exact, every wait ends once,
 * no wake-up is lost. A lost one shows as a thread that waits for good: a watchdog then ends the test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "balancer/algorithm.h"
#include "balancer/queue.h"
#include "tests/unit/farm_fixture.h"

/* The windows in which a wake-up could be lost are a few nanoseconds wide. So this test compiles the code
 * itself with delays in them: half of the times none, else up to some microseconds, or another thread's turn.
 */
static void race_point(void);
#define RACE_POINT() race_point()
#include "balancer/placement.c"

#define WATCHDOG 20.0 /* s */

#define RACES 4000

#define THREADS     8
#define SESSIONS    6
#define ROUNDS      4000
#define CEILING_TOP 50

/* A worker: a loop, a mailbox and random numbers. */
struct worker {
    struct ev_loop *loop;
    struct mailbox mailbox;
    ev_timer watchdog;
    uint64_t random;
};

static void on_watchdog(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)timer;
    (void)events;
    fprintf(stderr, "a waiter was forgotten\n");
    abort();
}

static void worker_open(struct worker *w, uint64_t seed)
{
    w->random = seed * 0x9e3779b97f4a7c15u + 1;
    w->loop = ev_loop_new(0);
    mailbox_open(&w->mailbox, w->loop, w);
    ev_timer_init(&w->watchdog, on_watchdog, 0, WATCHDOG);
}

static void worker_close(struct worker *w)
{
    mailbox_close(&w->mailbox);
    ev_loop_destroy(w->loop);
}

/* Block until mail has come. */
static void worker_await(struct worker *w)
{
    ev_timer_again(w->loop, &w->watchdog);
    ev_run(w->loop, EVRUN_ONCE);
    ev_timer_stop(w->loop, &w->watchdog);
}

static void race_point(void)
{
    static _Thread_local uint64_t random = 0;
    uint64_t dice;

    if (random == 0)
        random = (uintptr_t)&random;
    dice = algorithm_random(&random) >> 16;
    if (dice % 8 == 0)
        sched_yield();
    else if (dice % 2 == 0)
        for (volatile uint32_t i = dice / 8 % 2000; i > 0; i--)
            continue;
}

static void dawdle(uint64_t *random)
{
    for (volatile uint32_t i = algorithm_random(random) % 400; i > 0; i--)
        continue;
}

/* --- races: one who asks, one who returns, one who changes something, each once and at the same time ---- */

enum race {
    RACE_RETURN,  /* the only place comes back */
    RACE_CEILING, /* there was none, and the ceiling rises */
    RACE_UP,      /* the only place comes back while its backend comes up */
    RACE_ABOVE,   /* of two places under a ceiling of one, both come back by two threads */
    RACE_LEAVE,   /* as the first, and someone before leaves */
};

static struct {
    struct fixture f;
    struct farm *farm;
    struct backend *backend;
    enum race race;
    pthread_barrier_t barrier;
    struct place held[2];
    struct worker workers[3];
    struct waiter *waiter;
    struct place granted;
    struct waiter *before; /* waits ahead, on the third worker */
    struct place before_granted;
    unsigned waited;
} r;

static void on_race_verdict(void *session, enum placement_verdict verdict, struct place place)
{
    struct place *granted = session;

    if (verdict == PLACEMENT_GRANTED)
        *granted = place;
}

static struct place race_take(void)
{
    struct placement_wish wish = fixture_wish(r.farm, 0);
    struct place place;
    struct waiter *waiter;

    placement_request(&wish, &r.workers[1].random, 0, &r.workers[1].mailbox, on_race_verdict, &r.granted,
                      &place, &waiter);
    if (!place.member)
        abort();
    return place;
}

static void race_prepare(void)
{
    struct placement_wish wish = fixture_wish(r.farm, 0);

    r.backend->state = BACKEND_UP;
    r.backend->ceiling = r.race == RACE_ABOVE ? 2 : 1;
    if (r.race != RACE_CEILING)
        r.held[0] = race_take();
    if (r.race == RACE_ABOVE) {
        r.held[1] = race_take();
        r.backend->ceiling = 1;
    }
    if (r.race == RACE_CEILING)
        r.backend->ceiling = 0;
    if (r.race == RACE_UP)
        r.backend->state = BACKEND_INIT;
    if (r.race == RACE_LEAVE &&
        placement_request(&wish, &r.workers[2].random, 0, &r.workers[2].mailbox, on_race_verdict,
                          &r.before_granted, &r.before_granted, &r.before) != PLACEMENT_WAITING)
        abort();
}

static void *race_ask(void *arg)
{
    struct worker *w = arg;

    for (int i = 0; i < RACES; i++) {
        struct placement_wish wish = fixture_wish(r.farm, 0);

        race_prepare();
        pthread_barrier_wait(&r.barrier);
        dawdle(&w->random);
        placement_request(&wish, &w->random, 0, &w->mailbox, on_race_verdict, &r.granted, &r.granted,
                          &r.waiter);
        r.waited += r.granted.member == NULL;
        while (!r.granted.member)
            worker_await(w);
        placement_return(&r.granted, 0);
        pthread_barrier_wait(&r.barrier);
    }
    return NULL;
}

static void *race_return(void *arg)
{
    struct worker *w = arg;

    for (int i = 0; i < RACES; i++) {
        pthread_barrier_wait(&r.barrier);
        dawdle(&w->random);
        placement_return(&r.held[0], 0);
        pthread_barrier_wait(&r.barrier);
    }
    return NULL;
}

static void *race_change(void *arg)
{
    struct worker *w = arg;

    for (int i = 0; i < RACES; i++) {
        pthread_barrier_wait(&r.barrier);
        dawdle(&w->random);
        switch (r.race) {
        case RACE_RETURN: break;
        case RACE_CEILING:
            r.backend->ceiling = 1;
            placement_serve(r.farm, 0);
            break;
        case RACE_UP:
            r.backend->state = BACKEND_UP;
            placement_serve(r.farm, 0);
            break;
        case RACE_ABOVE: placement_return(&r.held[1], 0); break;
        case RACE_LEAVE:
            waiter_leave(&r.before);
            ev_run(w->loop, EVRUN_NOWAIT); /* mail that was too late gives its place back */
            break;
        }
        /* The mail of one who has left may still be on its way, and with it the place that the first waits
         * for. */
        while (r.race == RACE_LEAVE && atomic_load(&r.backend->connections) > 0)
            ev_run(w->loop, EVRUN_NOWAIT);
        pthread_barrier_wait(&r.barrier);
    }
    return NULL;
}

static void run_race(enum race race)
{
    static void *(*const parts[])(void *) = { race_ask, race_return, race_change };
    pthread_t threads[3];
    struct config_pool *pool;

    memset(&r, 0, sizeof r);
    r.race = race;
    fixture_start(&r.f);
    pool = fixture_pool(&r.f, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    fixture_backend(&r.f, pool, "a", 1, 1, 0);
    r.farm = fixture_farm(&r.f, NULL);
    r.backend = r.farm->backends[0];
    pthread_barrier_init(&r.barrier, NULL, 3);
    for (int i = 0; i < 3; i++)
        worker_open(&r.workers[i], (uint64_t)i + 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, parts[i], &r.workers[i]), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++)
        worker_close(&r.workers[i]);
    pthread_barrier_destroy(&r.barrier);
    print_message("           waited in %u of %u\n", r.waited, RACES);
    assert_int_equal(r.backend->connections, 0);
    assert_int_equal(placement_waiting(&r.farm->pools[0]), 0);
    assert_null(r.before_granted.member);
    farm_release(&r.farm);
    assert_int_equal(r.f.config.references, 1);
}

static void test_race_with_a_return(void **state)
{
    (void)state;
    run_race(RACE_RETURN);
}

static void test_race_with_a_ceiling(void **state)
{
    (void)state;
    run_race(RACE_CEILING);
}

static void test_race_with_coming_up(void **state)
{
    (void)state;
    run_race(RACE_UP);
}

static void test_race_above_the_ceiling(void **state)
{
    (void)state;
    run_race(RACE_ABOVE);
}

static void test_race_with_one_who_leaves(void **state)
{
    (void)state;
    run_race(RACE_LEAVE);
}

/* --- everything at once --------------------------------------------------------------------------------- */

static struct {
    struct farm *farm, *next; /* `next`: half of the threads know it already; it counts no shares */
    _Atomic uint32_t held[3]; /* by backend, counted apart from its own count */
    _Atomic uint32_t above;   /* times that more were held than ever allowed */
    _Atomic uint32_t wrong;   /* verdicts that came twice, unasked or after leaving */
    _Atomic uint32_t waits, delivered, left, refused, displaced;
    _Atomic uint32_t running;
    bool move;
} s;

struct session {
    struct place place;
    struct waiter *waiter;
    bool waiting;
};

struct stress {
    struct worker worker;
    struct session sessions[SESSIONS];
};

static size_t backend_index(const struct member *member)
{
    size_t i = 0;

    while (s.farm->backends[i] != member->backend)
        i++;
    return i;
}

static void session_got(struct session *session, struct place place)
{
    size_t i = backend_index(place.member);
    uint32_t top = s.move ? CEILING_TOP : s.farm->config->backends[i].max_connections;

    session->place = place;
    if (atomic_fetch_add(&s.held[i], 1) + 1 > top)
        atomic_fetch_add(&s.above, 1);
}

static void on_verdict(void *arg, enum placement_verdict verdict, struct place place)
{
    struct session *session = arg;

    if (!session->waiting || session->place.member ||
        (verdict == PLACEMENT_GRANTED) != (place.member != NULL))
        atomic_fetch_add(&s.wrong, 1);
    session->waiting = false;
    session->waiter = NULL;
    atomic_fetch_add(&s.delivered, 1);
    if (place.member)
        session_got(session, place);
    else
        atomic_fetch_add(verdict == PLACEMENT_DISPLACED ? &s.displaced : &s.refused, 1);
}

static void session_return(struct session *session)
{
    atomic_fetch_sub(&s.held[backend_index(session->place.member)], 1);
    placement_return(&session->place, 0);
}

static void session_step(struct stress *t, struct session *session)
{
    uint64_t dice = algorithm_random(&t->worker.random) >> 8;

    if (session->place.member) {
        if (dice % 4)
            session_return(session);
    } else if (session->waiting) {
        if (dice % 16 == 0) {
            waiter_leave(&session->waiter);
            session->waiting = false;
            atomic_fetch_add(&s.left, 1);
        }
    } else {
        struct placement_wish wish = fixture_wish(dice & 64 ? s.farm : s.next, dice % 2);
        struct place place;

        wish.client = dice >> 8 & 3;
        wish.priority = dice >> 10 & 1;
        if (dice % 8 == 0)
            wish.tried[wish.n_tried++] = s.farm->backends[dice / 8 % 3];
        switch (placement_request(&wish, &t->worker.random, 0, &t->worker.mailbox, on_verdict, session,
                                  &place, &session->waiter)) {
        case PLACEMENT_GRANTED: session_got(session, place); break;
        case PLACEMENT_WAITING:
            session->waiting = true;
            atomic_fetch_add(&s.waits, 1);
            break;
        case PLACEMENT_NO_BACKEND:
        case PLACEMENT_NOT_CAPABLE:
        case PLACEMENT_QUEUE_FULL:
        case PLACEMENT_DISPLACED: break;
        }
    }
}

static void *stress_worker(void *arg)
{
    struct stress *t = arg;
    bool busy = true;

    for (int i = 0; i < ROUNDS; i++) {
        session_step(t, &t->sessions[algorithm_random(&t->worker.random) % SESSIONS]);
        if (i % 4 == 0)
            ev_run(t->worker.loop, EVRUN_NOWAIT);
    }
    /* Nobody asks any more: everyone who waits must be served by what comes back. */
    while (busy) {
        busy = false;
        for (int i = 0; i < SESSIONS; i++) {
            if (t->sessions[i].place.member)
                session_return(&t->sessions[i]);
            busy |= t->sessions[i].waiting;
        }
        if (busy)
            worker_await(&t->worker);
    }
    /* What had left may still have mail; the others may wait for that place. */
    atomic_fetch_sub(&s.running, 1);
    while (atomic_load(&s.running) > 0)
        ev_run(t->worker.loop, EVRUN_NOWAIT);
    return NULL;
}

/* The control thread: ceilings and states move, and it says so. */
static void *stress_control(void *arg)
{
    uint64_t random = 99;

    (void)arg;
    while (s.move && atomic_load(&s.running) > 0) {
        struct backend *backend = s.farm->backends[algorithm_random(&random) % 3];

        atomic_store(&backend->ceiling, 5 + algorithm_random(&random) % (CEILING_TOP - 4));
        atomic_store(&backend->state, algorithm_random(&random) % 8 ? BACKEND_UP : BACKEND_DOWN);
        placement_serve(algorithm_random(&random) % 2 ? s.farm : s.next, 0);
        dawdle(&random);
    }
    return NULL;
}

static void run_stress(bool move, const uint32_t *ceilings)
{
    static struct stress stress[THREADS];
    struct fixture f, g;
    pthread_t threads[THREADS + 1];
    struct config_pool *one, *two;

    memset(&s, 0, sizeof s);
    memset(stress, 0, sizeof stress);
    fixture_start(&f);
    one = fixture_pool(&f, "one", CONFIG_LEAST_CONNECTIONS, 8);
    two = fixture_pool(&f, "two", CONFIG_P2C, 20);
    fixture_backend(&f, one, "a", 4, ceilings[0], 0);
    fixture_backend(&f, one, "b", 2, ceilings[1], 0);
    fixture_backend(&f, two, "b", 2, ceilings[1], 0);
    fixture_backend(&f, two, "c", 1, ceilings[2], 1);
    g = f;
    g.config.pools = g.pools;
    g.config.backends = g.backends;
    for (size_t i = 0; i < 2; i++)
        g.pools[i].backends = g.members[i];
    one->max_share_per_client = two->max_share_per_client = 20;
    s.farm = fixture_farm(&f, NULL);
    s.next = fixture_farm(&g, s.farm);
    fixture_all_up(s.farm);
    s.move = move;
    s.running = THREADS;
    for (size_t i = 0; i < THREADS; i++)
        worker_open(&stress[i].worker, i + 1);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, stress_worker, &stress[i]), 0);
    assert_int_equal(pthread_create(&threads[THREADS], NULL, stress_control, NULL), 0);
    for (size_t i = 0; i <= THREADS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < THREADS; i++)
        worker_close(&stress[i].worker);
    print_message("           %u waits, %u delivered (%u refused, %u displaced), %u left\n", s.waits,
                  s.delivered, s.refused, s.displaced, s.left);
    assert_int_equal(s.above, 0);
    assert_int_equal(s.wrong, 0);
    assert_true(s.waits > 0);
    assert_true(s.displaced > 0);
    assert_int_equal(s.waits, s.delivered + s.left);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(s.farm->backends[i]->connections, 0);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(placement_waiting(&s.farm->pools[i]), 0);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(s.farm->pools[i].state->queue->n_clients, 0); /* all counted, all given back */
    farm_release(&s.farm);
    farm_release(&s.next);
    assert_int_equal(f.config.references, 1);
    assert_int_equal(g.config.references, 1);
}

static void test_constant_ceilings(void **state)
{
    (void)state;
    run_stress(false, (uint32_t[]){ 5, 5, 7 });
    run_stress(false, (uint32_t[]){ 1, 1, 1 });
}

static void test_everything_moves(void **state)
{
    (void)state;
    run_stress(true, (uint32_t[]){ 5, 5, 5 });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_race_with_a_return),       cmocka_unit_test(test_race_with_a_ceiling),
        cmocka_unit_test(test_race_with_coming_up),      cmocka_unit_test(test_race_above_the_ceiling),
        cmocka_unit_test(test_race_with_one_who_leaves), cmocka_unit_test(test_constant_ceilings),
        cmocka_unit_test(test_everything_moves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
