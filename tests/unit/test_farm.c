#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/farm_fixture.h"

#define MINUTE 60000

static struct backend *named(const struct farm *farm, const char *name)
{
    for (size_t i = 0; i < farm->n_backends; i++)
        if (strcmp(backend_name(farm->backends[i]), name) == 0)
            return farm->backends[i];
    return NULL;
}

static void test_build(void **state)
{
    struct fixture f;
    struct config_pool *one, *two;
    struct farm *farm;

    (void)state;
    fixture_start(&f);
    one = fixture_pool(&f, "one", CONFIG_LEAST_CONNECTIONS, 10);
    two = fixture_pool(&f, "two", CONFIG_RANDOM, 10);
    fixture_backend(&f, one, "a", 4, 100, 1);
    fixture_backend(&f, one, "b", 2, 0, 0);
    fixture_backend(&f, one, "c", 3, 0, 1);
    fixture_backend(&f, two, "b", 0, 0, 0);
    farm = fixture_farm(&f, NULL);
    assert_int_equal(farm->n_backends, 3);
    assert_int_equal(farm->n_pools, 2);
    assert_ptr_equal(farm->pools[1].members[0]->backend, named(farm, "b"));
    assert_ptr_not_equal(farm->pools[1].members[0], farm->pools[0].members[0]);

    /* by priority, then as written */
    assert_string_equal(backend_name(farm->pools[0].members[0]->backend), "b");
    assert_string_equal(backend_name(farm->pools[0].members[1]->backend), "a");
    assert_string_equal(backend_name(farm->pools[0].members[2]->backend), "c");
    assert_int_equal(farm->pools[0].n_tiers, 2);
    assert_int_equal(farm->pools[0].tiers[0].milliweight, 2000);
    assert_int_equal(farm->pools[0].tiers[1].milliweight, 7000);
    assert_int_equal(farm->pools[0].tiers[1].first, 1);
    assert_int_equal(farm->pools[0].tiers[1].n, 2);

    assert_int_equal(named(farm, "a")->ceiling, 100);
    assert_int_equal(named(farm, "a")->milliweight, 4000);
    assert_int_equal(named(farm, "a")->priority, 1);
    assert_true(named(farm, "b")->ceiling == BACKEND_NO_CEILING);
    farm_release(&farm);
    assert_null(farm);
    assert_int_equal(f.config.references, 1);
}

static void test_reload_keeps_what_has_the_same_name(void **state)
{
    struct fixture f, g;
    struct config_pool *pool;
    struct farm *old, *new;
    struct member *member;

    (void)state;
    fixture_start(&f);
    pool = fixture_pool(&f, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    fixture_backend(&f, pool, "stays", 4, 100, 0);
    fixture_backend(&f, pool, "goes", 4, 100, 0);
    fixture_pool(&f, "gone", CONFIG_LEAST_CONNECTIONS, 10);
    old = fixture_farm(&f, NULL);
    fixture_all_up(old);
    assert_true(backend_take_place(named(old, "goes")));
    assert_true(backend_take_place(named(old, "stays")));
    member = member_hold(old->pools[0].members[1]); /* a session on "goes" */

    fixture_start(&g);
    pool = fixture_pool(&g, "other", CONFIG_LEAST_CONNECTIONS, 10);
    fixture_backend(&g, pool, "stays", 8, 50, 0);
    pool = fixture_pool(&g, "relays", CONFIG_HASH, 10);
    fixture_backend(&g, pool, "comes", 1, 0, 0);
    fixture_backend(&g, pool, "stays", 8, 50, 0);
    new = farm_create(&g.config, old);
    assert_true(new->serial > old->serial);
    assert_int_equal(named(old, "stays")->weight, 4); /* nothing changes before the commit */
    farm_commit(new);

    assert_ptr_equal(named(new, "stays"), named(old, "stays"));
    assert_int_equal(named(new, "stays")->weight, 8);
    assert_int_equal(named(new, "stays")->max_connections, 50);
    assert_int_equal(named(new, "stays")->milliweight, 4000); /* judged already: health's to publish */
    assert_int_equal(named(new, "comes")->milliweight, 1000);
    assert_ptr_equal(new->pools[1].state, old->pools[0].state);
    assert_ptr_equal(new->pools[1].members[1], old->pools[0].members[0]);
    assert_ptr_not_equal(new->pools[0].members[0], old->pools[0].members[0]); /* another pool's counters */
    assert_null(named(new, "goes"));

    farm_release(&old);
    assert_int_equal(f.config.references, 1);
    assert_int_equal(named(new, "stays")->connections, 1);
    assert_string_equal(backend_name(member->backend), "goes"); /* lives as long as a session is on it */
    member_release(&member);
    farm_release(&new);
}

static void test_other_workers_start_new_counters(void **state)
{
    struct fixture f, g;
    struct farm *old, *new;

    (void)state;
    fixture_start(&f);
    fixture_backend(&f, fixture_pool(&f, "relays", CONFIG_LEAST_CONNECTIONS, 10), "a", 1, 0, 0);
    g = f;
    old = fixture_farm(&f, NULL);
    g.config.workers = 3;
    g.config.references = 1;
    new = fixture_farm(&g, old);
    assert_ptr_not_equal(new->pools[0].members[0], old->pools[0].members[0]);
    assert_int_equal(new->pools[0].members[0]->workers, 3);
    assert_int_equal(new->pools[0].state->workers, 3);
    assert_ptr_equal(new->backends[0], old->backends[0]);
    farm_release(&old);
    farm_release(&new);
}

static void test_histogram(void **state)
{
    static struct histogram h;

    (void)state;
    histogram_add(&h, 0);
    histogram_add(&h, histogram_bounds[0]);
    histogram_add(&h, histogram_bounds[0] + 1);
    histogram_add(&h, UINT32_MAX);
    assert_int_equal(h.buckets[0], 2);
    assert_int_equal(h.buckets[1], 1);
    assert_int_equal(h.buckets[HISTOGRAM_BUCKETS], 1);
    assert_true(h.sum == 2 * (uint64_t)histogram_bounds[0] + 1 + UINT32_MAX);
    for (int i = 1; i < HISTOGRAM_BUCKETS; i++)
        assert_true(histogram_bounds[i] > histogram_bounds[i - 1]);
    assert_string_equal(transaction_outcome_name(OUTCOME_UNKNOWN), "unknown");
    assert_string_equal(reply_phase_name(PHASE_END), "end");
}

/* --- what EHLO offers ----------------------------------------------------------------------------------- */

#define SOME (SMTP_CAP_SIZE | SMTP_CAP_8BITMIME | SMTP_CAP_DSN | SMTP_CAP_CHUNKING | SMTP_CAP_BINARYMIME)

static struct offer_farm {
    struct fixture f;
    struct farm *farm;
    struct pool *pool;
    struct backend *a, *b;
} o;

static int offer_begin(void **state)
{
    struct config_pool *pool;

    (void)state;
    fixture_start(&o.f);
    pool = fixture_pool(&o.f, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    fixture_backend(&o.f, pool, "a", 1, 0, 0);
    fixture_backend(&o.f, pool, "b", 1, 0, 0);
    o.farm = fixture_farm(&o.f, NULL);
    o.pool = &o.farm->pools[0];
    o.a = o.farm->backends[0];
    o.b = o.farm->backends[1];
    return 0;
}

static int offer_end(void **state)
{
    (void)state;
    farm_release(&o.farm);
    return 0;
}

static void says(struct backend *backend, uint32_t flags, uint64_t size)
{
    backend_set_capabilities(backend, &(struct smtp_capabilities){ .flags = flags, .size_limit = size });
    atomic_store(&backend->state, BACKEND_UP);
}

static void offers(uint32_t flags, uint64_t size)
{
    struct smtp_capabilities offer = pool_offer(o.pool);

    assert_int_equal(offer.flags, flags | SMTP_CAP_PIPELINING);
    assert_int_equal(offer.size_limit, size);
}

static void test_offer_of_the_unknown(void **state)
{
    (void)state;
    offers(SMTP_CAP_8BITMIME, 0);
    atomic_store(&o.a->state, BACKEND_UP); /* up, but its EHLO was never seen */
    pool_update_offer(o.pool, 1, true);
    offers(SMTP_CAP_8BITMIME, 0);
    says(o.b, SOME, 500);
    pool_update_offer(o.pool, 2, false);
    offers(SOME, 500); /* the unknown one has no say */
    atomic_store(&o.a->state, BACKEND_DOWN);
    atomic_store(&o.b->state, BACKEND_DOWN);
    pool_update_offer(o.pool, 3, false);
    offers(SOME, 500); /* the last set known */
}

static void test_offer_is_what_all_have(void **state)
{
    (void)state;
    says(o.a, SOME | SMTP_CAP_PIPELINING | SMTP_CAP_SMTPUTF8, 0);
    says(o.b, SOME & ~(uint32_t)SMTP_CAP_CHUNKING, 1000);
    pool_update_offer(o.pool, 1, true);
    offers(SMTP_CAP_SIZE | SMTP_CAP_8BITMIME | SMTP_CAP_DSN, 1000); /* nor BINARYMIME without CHUNKING */
    says(o.a, 1u << 20, 0);                                         /* nothing of what Weir carries */
    pool_update_offer(o.pool, 2, false);
    offers(0, 1000);
}

static void test_offer_does_not_flap(void **state)
{
    (void)state;
    says(o.a, SOME, 1000);
    says(o.b, SOME, 2000);
    pool_update_offer(o.pool, 1, true);
    says(o.b, SMTP_CAP_SIZE | SMTP_CAP_8BITMIME, 500);
    pool_update_offer(o.pool, 2, false); /* goes at once */
    offers(SMTP_CAP_SIZE | SMTP_CAP_8BITMIME, 500);
    says(o.b, SOME, 2000);
    pool_update_offer(o.pool, 3, false);
    offers(SMTP_CAP_SIZE | SMTP_CAP_8BITMIME, 500);
    pool_update_offer(o.pool, 2 + 10 * MINUTE, false);
    offers(SMTP_CAP_SIZE | SMTP_CAP_8BITMIME, 500);
    pool_update_offer(o.pool, 3 + 10 * MINUTE, false); /* ten minutes of agreement */
    offers(SOME, 1000);
}

static void test_agreement_must_last(void **state)
{
    (void)state;
    says(o.a, SOME, 0);
    says(o.b, SMTP_CAP_8BITMIME, 0);
    pool_update_offer(o.pool, 1, true);
    says(o.b, SMTP_CAP_8BITMIME | SMTP_CAP_DSN, 0);
    pool_update_offer(o.pool, 2, false);
    says(o.b, SMTP_CAP_8BITMIME, 0); /* gone again in between */
    pool_update_offer(o.pool, 5 * MINUTE, false);
    says(o.b, SMTP_CAP_8BITMIME | SMTP_CAP_DSN, 0);
    pool_update_offer(o.pool, 6 * MINUTE, false);
    pool_update_offer(o.pool, 11 * MINUTE, false);
    offers(SMTP_CAP_8BITMIME, 0);
    pool_update_offer(o.pool, 16 * MINUTE, false);
    offers(SMTP_CAP_8BITMIME | SMTP_CAP_DSN, 0);
}

static void test_a_backend_coming_up_brings_keywords_back(void **state)
{
    (void)state;
    says(o.a, SOME, 1000);
    says(o.b, SMTP_CAP_8BITMIME, 100);
    pool_update_offer(o.pool, 1, true);
    offers(SMTP_CAP_8BITMIME, 100);
    atomic_store(&o.b->state, BACKEND_DOWN); /* its leaving brings nothing at once */
    pool_update_offer(o.pool, 2, false);
    offers(SMTP_CAP_8BITMIME, 100);
    says(o.b, SOME, 0);
    pool_update_offer(o.pool, 3, true);
    offers(SOME, 1000);
}

#define PLAIN (SMTP_CAP_AUTH | SMTP_CAP_AUTH_PLAIN)
#define LOGIN (SMTP_CAP_AUTH | SMTP_CAP_AUTH_LOGIN)

static void test_offer_of_auth_is_what_all_mechanisms_have_in_common(void **state)
{
    (void)state;
    says(o.a, SMTP_CAP_STARTTLS | PLAIN | LOGIN, 0);
    says(o.b, SMTP_CAP_STARTTLS | PLAIN | SMTP_CAP_AUTH_SCRAM_SHA_512, 0);
    pool_update_offer(o.pool, 1, true);
    offers(PLAIN, 0); /* STARTTLS is not a backend's to offer */
    says(o.b, LOGIN, 0);
    pool_update_offer(o.pool, 2, false); /* PLAIN goes at once, and AUTH with it */
    offers(0, 0);
    pool_update_offer(o.pool, 1 + 10 * MINUTE, false);
    offers(0, 0);
    pool_update_offer(o.pool, 2 + 10 * MINUTE, false); /* LOGIN comes, and AUTH at the same moment */
    offers(LOGIN, 0);
    says(o.b, SMTP_CAP_DSN, 0);
    pool_update_offer(o.pool, 3 + 10 * MINUTE, false);
    offers(0, 0);
}

static void test_auth_needs_a_common_mechanism(void **state)
{
    (void)state;
    says(o.a, PLAIN, 0);
    says(o.b, LOGIN, 0);
    pool_update_offer(o.pool, 1, true);
    offers(0, 0);
    says(o.b, PLAIN | LOGIN, 0);
    pool_update_offer(o.pool, 2, false);
    offers(0, 0);
    pool_update_offer(o.pool, 2 + 10 * MINUTE, false);
    offers(PLAIN, 0);
    assert_true(backend_capable(o.b, LOGIN, 0));
    assert_false(backend_capable(o.a, LOGIN, 0));
}

static void test_binarymime_comes_with_chunking(void **state)
{
    const uint32_t both = SMTP_CAP_BINARYMIME | SMTP_CAP_CHUNKING;

    (void)state;
    says(o.a, both, 0);
    says(o.b, both, 0);
    pool_update_offer(o.pool, 1, true);
    offers(both, 0);
    says(o.b, 0, 0);
    pool_update_offer(o.pool, 2, false);
    says(o.b, both, 0);
    pool_update_offer(o.pool, 3, false);
    offers(0, 0);
    pool_update_offer(o.pool, 3 + 10 * MINUTE, false);
    offers(both, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_build),
        cmocka_unit_test(test_reload_keeps_what_has_the_same_name),
        cmocka_unit_test(test_other_workers_start_new_counters),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test_setup_teardown(test_offer_of_the_unknown, offer_begin, offer_end),
        cmocka_unit_test_setup_teardown(test_offer_is_what_all_have, offer_begin, offer_end),
        cmocka_unit_test_setup_teardown(test_offer_does_not_flap, offer_begin, offer_end),
        cmocka_unit_test_setup_teardown(test_agreement_must_last, offer_begin, offer_end),
        cmocka_unit_test_setup_teardown(test_offer_of_auth_is_what_all_mechanisms_have_in_common, offer_begin,
                                        offer_end),
        cmocka_unit_test_setup_teardown(test_auth_needs_a_common_mechanism, offer_begin, offer_end),
        cmocka_unit_test_setup_teardown(test_binarymime_comes_with_chunking, offer_begin, offer_end),
        cmocka_unit_test_setup_teardown(test_a_backend_coming_up_brings_keywords_back, offer_begin,
                                        offer_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
