#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "balancer/algorithm.h"
#include "tests/unit/farm_fixture.h"

#define TURNS 70000

static struct {
    struct fixture f;
    struct farm *farm;
    struct pool *pool;
    struct algorithm_input in;
    uint64_t random;
} t;

/* Backends 0 … n-1 of these weights, all up, all candidates. */
static void begin(enum config_algorithm algorithm, size_t n, const uint32_t *weights)
{
    struct config_pool *pool;

    fixture_start(&t.f);
    pool = fixture_pool(&t.f, "relays", algorithm, 10);
    for (size_t i = 0; i < n; i++)
        fixture_backend(&t.f, pool, (char[]){ 'r', (char)('A' + i / 26), (char)('a' + i % 26), 0 },
                        weights[i], 0, 0);
    t.farm = fixture_farm(&t.f, NULL);
    fixture_all_up(t.farm);
    t.pool = &t.farm->pools[0];
    t.random = 42;
    t.in = (struct algorithm_input){
        .pool = t.pool, .candidates = t.pool->members, .n = n, .random = &t.random
    };
}

static int end(void **state)
{
    (void)state;
    farm_release(&t.farm);
    return 0;
}

static size_t choose(void)
{
    struct member *chosen = t.pool->algorithm->choose(&t.in);

    for (size_t i = 0; i < t.pool->n_members; i++)
        if (t.pool->members[i] == chosen)
            return i;
    fail_msg("chose what was no candidate");
    return 0;
}

static void near(double value, double expected, double by)
{
    if (fabs(value - expected) > by)
        fail_msg("%g is not within %g of %g", value, by, expected);
}

/* Shares over many turns, with counts that stay as they are. */
static void shares(const double *expected, double by)
{
    size_t counts[FIXTURE_BACKENDS] = { 0 };

    for (int i = 0; i < TURNS; i++)
        counts[choose()]++;
    for (size_t i = 0; i < t.in.n; i++)
        near((double)counts[i] / TURNS, expected[i], by);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(algorithm_get(CONFIG_LEAST_CONNECTIONS)->name, "least-connections");
    assert_string_equal(algorithm_get(CONFIG_P2C)->name, "p2c");
    assert_string_equal(algorithm_get(CONFIG_PEAK_EWMA)->name, "peak-ewma");
    assert_string_equal(algorithm_get(CONFIG_ROUND_ROBIN)->name, "round-robin");
    assert_string_equal(algorithm_get(CONFIG_RANDOM)->name, "random");
    assert_string_equal(algorithm_get(CONFIG_HASH)->name, "hash");
}

static void test_least_connections(void **state)
{
    (void)state;
    begin(CONFIG_LEAST_CONNECTIONS, 3, (uint32_t[]){ 4, 2, 1 });
    t.farm->backends[0]->connections = 7; /* 8/4 */
    t.farm->backends[1]->connections = 2; /* 3/2 */
    t.farm->backends[2]->connections = 1; /* 2/1 */
    assert_int_equal(choose(), 1);
    t.farm->backends[1]->connections = 4; /* 5/2 */
    t.farm->backends[0]->connections = 6; /* 7/4 */
    assert_int_equal(choose(), 0);
    /* Weight and counts as large as they get: no overflow. */
    t.farm->backends[0]->milliweight = 1000000;
    t.farm->backends[0]->connections = UINT32_MAX - 1;
    t.farm->backends[1]->milliweight = 1000000;
    t.farm->backends[1]->connections = UINT32_MAX - 2;
    t.farm->backends[2]->milliweight = 1;
    t.farm->backends[2]->connections = UINT32_MAX - 1;
    assert_int_equal(choose(), 1);
}

static void test_least_connections_ties(void **state)
{
    (void)state;
    begin(CONFIG_LEAST_CONNECTIONS, 4, (uint32_t[]){ 4, 2, 1, 1 });
    t.farm->backends[0]->connections = 3;
    t.farm->backends[1]->connections = 1;
    t.farm->backends[3]->connections = 1; /* behind: no part in the tie of the others */
    shares((double[]){ 4.0 / 7, 2.0 / 7, 1.0 / 7, 0 }, 0.01);
}

/* Counts follow the weights when every choice is kept. */
static void test_least_connections_fills_by_weight(void **state)
{
    (void)state;
    begin(CONFIG_LEAST_CONNECTIONS, 3, (uint32_t[]){ 4, 2, 1 });
    for (int i = 0; i < 700; i++)
        t.farm->backends[choose()]->connections++;
    near(t.farm->backends[0]->connections, 400, 1);
    near(t.farm->backends[1]->connections, 200, 1);
    near(t.farm->backends[2]->connections, 100, 1);
}

/* The formula as it stands in docs/balancing.md, of all candidates. */
static double score(size_t i, double own_rate, double others_rate, double age)
{
    const struct backend *backend = t.farm->backends[i];
    double O = 0, W = 0, own = 0, lightest = HUGE_VAL, rounding, w = backend->milliweight / 1000.0;
    double A = others_rate > 0 ? age : 0;
    double beta = (1 + own_rate * A) / (1 + (own_rate + others_rate) * A);

    for (size_t k = 0; k < t.in.n; k++) {
        O += t.farm->backends[k]->others;
        W += t.farm->backends[k]->milliweight / 1000.0;
        own += t.farm->backends[k]->connections;
        lightest = fmin(lightest, t.farm->backends[k]->milliweight / 1000.0);
    }
    rounding = others_rate > 0 ? 1 - (1 - beta) / 2 / (1 + own * lightest / W) : 1;
    return (backend->connections + rounding + beta * backend->others + (1 - beta) * w * O / W) / w;
}

static void test_news_of_others(void **state)
{
    static const struct {
        float own, others;
        int64_t age; /* ms */
    } news[] = {
        {10,   70,    100  },
        { 10,  70,    0    },
        { 0,   70,    3000 },
        { 500, 3,     250  },
        { 0,   0.01f, 30000},
        { 0,   0,     500  },
        { 10,  0,     60000},
        { 1,   1,     -200 },
        { 80,  80,    1000 },
    };
    uint64_t random = 7;

    (void)state;
    begin(CONFIG_LEAST_CONNECTIONS, 5, (uint32_t[]){ 4, 2, 1, 8, 3 });
    for (size_t i = 0; i < 2000; i++) {
        size_t n = i % (sizeof news / sizeof *news), best = 0, chosen;
        double age = news[n].age > 0 ? (double)news[n].age / 1000 : 0;

        for (size_t k = 0; k < t.in.n; k++) {
            t.farm->backends[k]->connections = (uint32_t)(algorithm_random(&random) % 40);
            t.farm->backends[k]->others = (uint32_t)(algorithm_random(&random) % 300);
        }
        t.in.now = 1000000;
        pool_set_news(t.pool,
                      &(struct pool_news){ true, news[n].own, news[n].others, t.in.now - news[n].age });
        for (size_t k = 1; k < t.in.n; k++)
            if (score(k, news[n].own, news[n].others, age) < score(best, news[n].own, news[n].others, age))
                best = k;
        chosen = choose();
        near(score(chosen, news[n].own, news[n].others, age), score(best, news[n].own, news[n].others, age),
             1e-6);
    }
}

/* Fresh news counts in full; old news leaves each to its own affairs. */
static void test_old_news(void **state)
{
    (void)state;
    begin(CONFIG_LEAST_CONNECTIONS, 2, (uint32_t[]){ 1, 1 });
    t.farm->backends[0]->others = 10;
    t.farm->backends[1]->connections = 3;
    t.in.now = 1000000;
    pool_set_news(t.pool, &(struct pool_news){ true, 10, 1000, t.in.now });
    assert_int_equal(choose(), 1);
    pool_set_news(t.pool, &(struct pool_news){ true, 10, 1000, t.in.now - 2000 });
    assert_int_equal(choose(), 0);
}

static void test_random(void **state)
{
    (void)state;
    begin(CONFIG_RANDOM, 3, (uint32_t[]){ 4, 2, 1 });
    t.farm->backends[0]->connections = 1000; /* is nothing to it */
    shares((double[]){ 4.0 / 7, 2.0 / 7, 1.0 / 7 }, 0.01);
}

static void test_p2c(void **state)
{
    (void)state;
    begin(CONFIG_P2C, 3, (uint32_t[]){ 1, 1, 1 });
    /* The busiest loses each pair it is in, the idlest wins each: 0, 1/3, 2/3. */
    t.farm->backends[0]->connections = 20;
    t.farm->backends[1]->connections = 10;
    shares((double[]){ 0, 1.0 / 3, 2.0 / 3 }, 0.01);
    t.in.n = 1;
    assert_int_equal(choose(), 0);
}

static void test_p2c_by_weight(void **state)
{
    (void)state;
    begin(CONFIG_P2C, 3, (uint32_t[]){ 4, 2, 1 });
    for (int i = 0; i < 7000; i++)
        t.farm->backends[choose()]->connections++;
    near(t.farm->backends[0]->connections, 4000, 40);
    near(t.farm->backends[1]->connections, 2000, 40);
    near(t.farm->backends[2]->connections, 1000, 40);
}

static void test_peak_ewma_cost(void **state)
{
    (void)state;
    begin(CONFIG_PEAK_EWMA, 2, (uint32_t[]){ 1, 1 });
    t.in.now = 1000;
    algorithm_observe(t.farm->backends[0], 10, 1000);
    algorithm_observe(t.farm->backends[1], 12, 1000);
    assert_int_equal(choose(), 0);
    algorithm_observe(t.farm->backends[0], 500, 1000); /* a peak counts in full at once */
    assert_int_equal(choose(), 1);
    t.farm->backends[1]->connections = 20; /* 13 × 21 is still less than 501 */
    assert_int_equal(choose(), 1);
    t.farm->backends[1]->connections = 50;
    assert_int_equal(choose(), 0);
    t.farm->backends[1]->connections = 0;
    algorithm_observe(t.farm->backends[0], 10, 1001); /* one good reply does not undo it */
    assert_int_equal(choose(), 1);
    /* 500 falls by 1/e in 10 s: after 40 s it is 9.2, and a fresh 12 is more. */
    t.in.now = 41000;
    algorithm_observe(t.farm->backends[1], 12, 41000);
    assert_int_equal(choose(), 0);
}

static void test_peak_ewma_follows_slowly_down(void **state)
{
    (void)state;
    begin(CONFIG_PEAK_EWMA, 2, (uint32_t[]){ 1, 1 });
    algorithm_observe(t.farm->backends[0], 100, 1000);
    algorithm_observe(t.farm->backends[0], 0, 11000); /* 100/e = 36.8 */
    t.in.now = 11000;
    algorithm_observe(t.farm->backends[1], 36, 11000);
    assert_int_equal(choose(), 1);
    algorithm_observe(t.farm->backends[1], 38, 11000);
    assert_int_equal(choose(), 0);
}

static void test_peak_ewma_without_knowledge(void **state)
{
    (void)state;
    begin(CONFIG_PEAK_EWMA, 2, (uint32_t[]){ 3, 1 });
    shares((double[]){ 1, 0 }, 0.01); /* 1/3 against 1/1 */
    t.farm->backends[0]->connections = 2;
    shares((double[]){ 0.75, 0.25 }, 0.01); /* a tie */
    /* The one never seen counts as the average, and does not draw everything. */
    algorithm_observe(t.farm->backends[0], 100, 1000);
    t.in.now = 1000;
    t.farm->backends[1]->connections = 1;
    assert_int_equal(choose(), 0);
}

static void test_round_robin(void **state)
{
    static const size_t order[] = { 0, 1, 0, 1, 0, 2, 0 };

    (void)state;
    begin(CONFIG_ROUND_ROBIN, 3, (uint32_t[]){ 4, 2, 1 });
    for (int i = 0; i < 70; i++)
        assert_int_equal(choose(), order[i % 7]);
    assert_int_equal(t.pool->state->turn, 70);
}

/* Any weights: exact over a round, and close to the share at every point of it. */
static void test_round_robin_is_smooth(void **state)
{
    const uint32_t weights[] = { 5, 1, 1, 8, 13, 2 };
    size_t counts[6] = { 0 };

    (void)state;
    begin(CONFIG_ROUND_ROBIN, 6, weights);
    for (int turn = 1; turn <= 30; turn++) {
        counts[choose()]++;
        for (size_t i = 0; i < 6; i++)
            near((double)counts[i], turn * weights[i] / 30.0, 1.5);
    }
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(counts[i], weights[i]);
    /* Slow start makes odd numbers of them. */
    t.farm->backends[4]->milliweight = 3571;
    t.farm->backends[0]->milliweight = 0;
    memset(counts, 0, sizeof counts);
    for (int turn = 1; turn <= 1000; turn++) {
        counts[choose()]++;
        near((double)counts[4], turn * 3571 / 15571.0, 3);
    }
    assert_int_equal(counts[0], 0);
}

static void test_hash(void **state)
{
    size_t home[2000], counts[3] = { 0 };

    (void)state;
    begin(CONFIG_HASH, 3, (uint32_t[]){ 4, 2, 1 });
    for (uint64_t key = 0; key < 2000; key++) {
        t.in.hash_key = key;
        home[key] = choose();
        counts[home[key]]++;
    }
    near((double)counts[0], 2000 * 4.0 / 7, 80);
    near((double)counts[1], 2000 * 2.0 / 7, 80);
    near((double)counts[2], 2000 * 1.0 / 7, 80);
    /* Without the last one only its own keys move. */
    t.in.n = 2;
    for (uint64_t key = 0; key < 2000; key++) {
        t.in.hash_key = key;
        if (home[key] != 2)
            assert_int_equal(choose(), home[key]);
    }
}

static void test_hash_is_bounded(void **state)
{
    uint32_t total = 0;

    (void)state;
    begin(CONFIG_HASH, 3, (uint32_t[]){ 4, 2, 1 });
    t.in.hash_key = 7; /* one client, and nobody else */
    for (; total < 1000; total++) {
        size_t chosen = choose();
        struct backend *backend = t.farm->backends[chosen];

        /* (own + 1) <= ceil(1.25 × w/7 × (total + 1)) */
        assert_true(backend->connections + 1 <= ceil(1.25 * backend->weight * (total + 1) / 7.0));
        backend->connections++;
    }
    for (size_t i = 0; i < 3; i++)
        assert_true(t.farm->backends[i]->connections <= 715);
}

/* A weight that falls to 0 while the algorithm looks must not be chosen, nor divide by zero where all have.
 */
static void test_weight_lost_meanwhile(void **state)
{
    (void)state;
    for (int a = CONFIG_LEAST_CONNECTIONS; a <= CONFIG_HASH; a++) {
        begin((enum config_algorithm)a, 3, (uint32_t[]){ 0, 1, 0 });
        if (a != CONFIG_PEAK_EWMA && a != CONFIG_P2C) /* they may: the place is given all the same */
            assert_int_equal(choose(), 1);
        t.farm->backends[1]->milliweight = 0;
        choose();
        farm_release(&t.farm);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test_teardown(test_least_connections, end),
        cmocka_unit_test_teardown(test_least_connections_ties, end),
        cmocka_unit_test_teardown(test_least_connections_fills_by_weight, end),
        cmocka_unit_test_teardown(test_news_of_others, end),
        cmocka_unit_test_teardown(test_old_news, end),
        cmocka_unit_test_teardown(test_random, end),
        cmocka_unit_test_teardown(test_p2c, end),
        cmocka_unit_test_teardown(test_p2c_by_weight, end),
        cmocka_unit_test_teardown(test_peak_ewma_cost, end),
        cmocka_unit_test_teardown(test_peak_ewma_follows_slowly_down, end),
        cmocka_unit_test_teardown(test_peak_ewma_without_knowledge, end),
        cmocka_unit_test_teardown(test_round_robin, end),
        cmocka_unit_test_teardown(test_round_robin_is_smooth, end),
        cmocka_unit_test_teardown(test_hash, end),
        cmocka_unit_test_teardown(test_hash_is_bounded, end),
        cmocka_unit_test(test_weight_lost_meanwhile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
