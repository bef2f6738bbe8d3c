#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "balancer/algorithm.h"
#include "balancer/backend.h"

#define THREADS 8
#define ROUNDS  20000

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(backend_state_name(BACKEND_INIT), "init");
    assert_string_equal(backend_state_name(BACKEND_HALF_OPEN), "half-open");
}

static void test_identity(void **state)
{
    struct backend *a = backend_create("a"), *b = backend_create("b"), *again;

    (void)state;
    assert_true(a->id != 0 && a->id != b->id);
    assert_true(a->name_hash != b->name_hash);
    again = backend_hold(a);
    backend_release(&again);
    assert_null(again);
    assert_string_equal(backend_name(a), "a");
    backend_release(&a);
    backend_release(&a); /* NULL is fine */
    a = backend_create("a");
    assert_true(a->id > b->id);
    backend_release(&a);
    backend_release(&b);
}

static void test_places(void **state)
{
    struct backend *b = backend_create("b");

    (void)state;
    assert_false(backend_take_place(b)); /* nothing before it is committed */
    b->ceiling = 2;
    assert_true(backend_take_place(b));
    assert_true(backend_has_room(b));
    assert_true(backend_take_place(b));
    assert_false(backend_has_room(b));
    assert_false(backend_take_place(b));
    b->ceiling = 1; /* lowered: those that hold stay */
    backend_return_place(b);
    assert_false(backend_take_place(b));
    backend_return_place(b);
    assert_true(backend_take_place(b));
    backend_return_place(b);
    b->ceiling = BACKEND_NO_CEILING;
    assert_true(backend_take_place(b));
    backend_return_place(b);
    assert_int_equal(b->connections, 0);
    backend_release(&b);
}

/* What may be taken here, by the limit over all instances and the news of the others. */
static void test_ceiling(void **state)
{
    static const struct {
        uint32_t limit, others, instances, share, held, ceiling;
    } rows[] = {
  /* alone */
        {100,                 0,        1,  1000, 40,             100               },
        { BACKEND_NO_CEILING, 0,        1,  1000, 40,             BACKEND_NO_CEILING},
        { 100,                30,       1,  1000, 40,             70                }, /* one that has just gone still counts */
  /* with others: of 40 free places at most 2/4, rounded up, for a time */
        { 100,                40,       4,  1000, 20,             40                },
        { 101,                40,       4,  1000, 20,             41                },
        { 100,                40,       2,  1000, 20,             60                }, /* two: all that is free */
        { 100,                80,       4,  1000, 20,             20                }, /* full: what comes back may be taken again */
        { 100,                90,       4,  1000, 20,             10                }, /* over it: not even that */
        { 100,                150,      4,  1000, 20,             0                 },
        { 100,                99,       32, 1000, 0,              1                 },
        { BACKEND_NO_CEILING, 50,       4,  1000, 20,             BACKEND_NO_CEILING},
        { UINT32_MAX - 1,     50,       2,  1000, 0,              UINT32_MAX - 51   },
        { 100,                1u << 31, 2,  1000, UINT32_MAX - 1, 0                 }, /* hostile */
  /* local mode: a share of the limit, rounded up, and nothing is known of the others */
        { 100,                0,        1,  250,  20,             25                },
        { 10,                 0,        1,  125,  0,              2                 },
        { 1,                  0,        1,  1,    0,              1                 },
    };
    struct backend *b = backend_create("b");

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        b->connections = rows[i].held;
        (void)backend_set_limit(b, rows[i].limit);
        (void)backend_set_news(
            b, &(struct backend_news){ rows[i].others, rows[i].instances, rows[i].share, true });
        if (b->ceiling != rows[i].ceiling)
            fail_msg("row %zu: %u, not %u", i, b->ceiling, rows[i].ceiling);
    }
    /* What was placed since the news counts against it, and a limit that moves goes by the same news. */
    b->connections = 20;
    assert_false(backend_set_limit(b, 1));
    assert_true(backend_set_news(b, &(struct backend_news){ 40, 4, BACKEND_WHOLE, true }) == false);
    assert_true(backend_set_limit(b, 100));
    assert_int_equal(b->ceiling, 40);
    b->connections = 40;
    assert_false(backend_has_room(b));
    assert_true(backend_set_limit(b, 120));
    assert_int_equal(b->ceiling, 50);
    assert_false(backend_set_limit(b, 100));
    b->connections = 30;
    assert_true(backend_has_room(b));
    /* News alone gives no new allowance: half of what is free now, from where the last one began. */
    b->connections = 40;
    assert_true(backend_set_news(b, &(struct backend_news){ 20, 4, BACKEND_WHOLE, false }));
    assert_int_equal(b->ceiling, 50);
    assert_false(backend_set_news(b, &(struct backend_news){ 70, 4, BACKEND_WHOLE, false }));
    assert_int_equal(b->ceiling, 25);
    assert_true(backend_set_news(b, &(struct backend_news){ 20, 4, BACKEND_WHOLE, true }));
    assert_int_equal(b->ceiling, 60);
    b->connections = 0;
    backend_release(&b);
}

static void test_usable(void **state)
{
    static const bool serves[BACKEND_STATES] = {
        [BACKEND_UP] = true, [BACKEND_DEGRADED] = true, [BACKEND_HALF_OPEN] = true
    };
    struct backend *b = backend_create("b");

    (void)state;
    b->milliweight = 1;
    for (uint32_t s = 0; s < BACKEND_STATES; s++) {
        b->state = s;
        assert_int_equal(backend_usable(b, 0), serves[s]);
    }
    b->state = BACKEND_UP;
    b->suspended_until = 1000;
    assert_false(backend_usable(b, 999));
    assert_true(backend_in_service(b));
    assert_true(backend_usable(b, 1000));
    b->milliweight = 0;
    assert_false(backend_usable(b, 1000));
    backend_release(&b);
}

static void test_capable(void **state)
{
    struct backend *b = backend_create("b");
    struct smtp_capabilities some = { .flags = SMTP_CAP_DSN | SMTP_CAP_SIZE, .size_limit = 1000 };

    (void)state;
    assert_true(backend_capable(b, 0, 0));
    assert_true(backend_capable(b, SMTP_CAP_8BITMIME, 5000)); /* not known yet: trusted with this much */
    assert_false(backend_capable(b, SMTP_CAP_DSN, 0));
    backend_set_capabilities(b, &some);
    assert_true(backend_capable(b, SMTP_CAP_DSN | SMTP_CAP_PIPELINING, 0));
    assert_false(backend_capable(b, SMTP_CAP_8BITMIME, 0));
    assert_false(backend_capable(b, SMTP_CAP_DSN | SMTP_CAP_SMTPUTF8, 0));
    assert_true(backend_capable(b, 0, 1000));
    assert_false(backend_capable(b, 0, 1001));
    backend_release(&b);
}

static void test_address(void **state)
{
    struct backend *b = backend_create("b");
    struct address in = { .length = sizeof(struct sockaddr_in) }, out;

    (void)state;
    assert_false(backend_address(b, &out));
    in.in.sin_family = AF_INET;
    in.in.sin_port = 25;
    backend_set_address(b, &in);
    assert_true(backend_address(b, &out));
    assert_int_equal(out.in.sin_port, 25);
    backend_release(&b);
}

/* --- places over threads -------------------------------------------------------------------------------- */

static struct {
    struct backend *backend;
    pthread_barrier_t start;
    _Atomic uint32_t held; /* counted apart from the backend's own count */
    _Atomic uint32_t highest, granted;
    bool move_ceiling;
} shared;

static void *take_and_return(void *arg)
{
    uint64_t random = (uintptr_t)arg * 7919 + 1;

    pthread_barrier_wait(&shared.start);
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t mine = 0, want = algorithm_random(&random) % 16;

        if (shared.move_ceiling)
            atomic_store(&shared.backend->ceiling, 5 + algorithm_random(&random) % 46);
        for (; mine < want && backend_take_place(shared.backend); mine++) {
            uint32_t held = atomic_fetch_add(&shared.held, 1) + 1, highest = atomic_load(&shared.highest);

            while (held > highest && !atomic_compare_exchange_weak(&shared.highest, &highest, held))
                continue;
        }
        atomic_fetch_add(&shared.granted, mine);
        for (; mine > 0; mine--) {
            atomic_fetch_sub(&shared.held, 1);
            backend_return_place(shared.backend);
        }
    }
    return NULL;
}

static void run_threads(uint32_t ceiling, bool move_ceiling)
{
    pthread_t threads[THREADS];

    memset(&shared, 0, sizeof shared);
    shared.backend = backend_create("b");
    shared.backend->ceiling = ceiling;
    shared.move_ceiling = move_ceiling;
    pthread_barrier_init(&shared.start, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_return, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&shared.start);
    assert_int_equal(shared.backend->connections, 0);
    assert_true(shared.granted > 0);
    assert_true(shared.highest <= ceiling);
    backend_release(&shared.backend);
}

static void test_never_above_the_ceiling(void **state)
{
    (void)state;
    run_threads(1, false);
    run_threads(5, false);
    run_threads(50, false);
}

static void test_a_moving_ceiling(void **state)
{
    (void)state;
    run_threads(50, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_usable),
        cmocka_unit_test(test_capable),
        cmocka_unit_test(test_address),
        cmocka_unit_test(test_never_above_the_ceiling),
        cmocka_unit_test(test_a_moving_ceiling),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
