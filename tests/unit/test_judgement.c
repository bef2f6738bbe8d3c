/*
 * Shares of what went wrong, under a virtual clock: the window they are taken from, ejection by failed
 * sessions, DEGRADED by answers that say "not now", and panic.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "balancer/eligible.h"
#include "health/judge.h"
#include "health/window.h"
#include "tests/unit/farm_fixture.h"

#define START 5000000

/* --- the window --- */

static void test_window(void **state)
{
    static const struct {
        int64_t at; /* ms */
        uint64_t total, bad;
        uint32_t in_total, in_thousandths;
        bool open;
    } steps[] = {
        {0,      1000, 0,  0,   0,    false}, /* nothing is wrong: nothing is kept */
        { 500,   2000, 1,  1,   1000, true }, /* what was good before is not of the last ten seconds */
        { 900,   2099, 1,  100, 10,   true },
        { 5000,  2199, 1,  200, 5,    true },
        { 9999,  2199, 10, 200, 50,   true },
        { 10500, 2200, 10, 101, 89,   true }, /* the first second has gone */
        { 25000, 2300, 10, 0,   0,    false}, /* all of it has */
        { 26000, 9000, 11, 1,   1000, true },
        { 90000, 9001, 11, 0,   0,    false},
    };
    struct window window = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct window_share share;

        window_feed(&window, steps[i].total, steps[i].bad, START + steps[i].at);
        share = window_share(&window);
        if (share.total != steps[i].in_total || share.thousandths != steps[i].in_thousandths ||
            window.open != steps[i].open)
            fail_msg("step %zu: %u, %u, %d", i, share.total, share.thousandths, window.open);
    }
}

/* The clock of a machine that slept leaps; it never goes back. */
static void test_window_leaps(void **state)
{
    struct window window = { 0 };

    (void)state;
    window_feed(&window, 5, 5, START);
    window_feed(&window, 6, 6, START + INT64_C(1000) * 3600 * 24 * 365);
    assert_int_equal(window_share(&window).total, 1);
    window_feed(&window, 6, 6, INT64_MAX / 2);
    assert_false(window.open);
}

/* --- the judge --- */

struct answers {
    int64_t at; /* ms */
    uint64_t total, bad;
    enum backend_state state; /* behind it */
    uint32_t milliweight;
};

#define ROW_MAX 10
struct row {
    const char *name;
    struct answers steps[ROW_MAX];
};

/* Weight 4. */
/* clang-format off */
static const struct row degraded[] = {
    { "5 % of 20 degrade, by their share", {
        { 0, 1, 1, BACKEND_UP, 4000 }, { 100, 19, 1, BACKEND_UP, 4000 },
        { 200, 20, 1, BACKEND_DEGRADED, 3600 } } },
    { "4 % do not", { { 0, 1, 1, BACKEND_UP, 4000 }, { 100, 25, 1, BACKEND_UP, 4000 } } },
    { "nor do 19 answers, all of them bad", { { 0, 19, 19, BACKEND_UP, 4000 } } },
    { "half of them: half the weight", { { 0, 10, 10, BACKEND_UP, 4000 }, { 10, 20, 10, BACKEND_DEGRADED, 2000 } } },
    { "all of them: a tenth still comes", { { 0, 20, 20, BACKEND_DEGRADED, 400 } } },
    { "the weight follows the share", {
        { 0, 20, 20, BACKEND_DEGRADED, 400 }, { 3000, 40, 20, BACKEND_DEGRADED, 2000 },
        { 6000, 100, 20, BACKEND_DEGRADED, 3200 } } },
    { "good again when it lies ten seconds back", {
        { 0, 20, 20, BACKEND_DEGRADED, 400 }, { 9000, 20, 20, BACKEND_DEGRADED, 400 },
        { 10000, 20, 20, BACKEND_UP, 4000 } } },
    { "or when it is under 2.5 %", {
        { 0, 20, 20, BACKEND_DEGRADED, 400 }, { 5000, 780, 20, BACKEND_DEGRADED, 3600 },
        { 5001, 802, 20, BACKEND_UP, 4000 } } },
    { "between 2.5 and 5 % it stays what it is", {
        { 0, 20, 20, BACKEND_DEGRADED, 400 }, { 5000, 600, 20, BACKEND_DEGRADED, 3600 },
        { 10000, 600, 20, BACKEND_UP, 4000 }, { 10001, 615, 35, BACKEND_UP, 4000 } } },
    { "a spam run, all of it refused with 5xx, is nothing", { { 0, 100000, 0, BACKEND_UP, 4000 } } },
};
/* clang-format on */

static struct judge up(void)
{
    const struct judge_settings settings = { 3, 2, 4, 100, 60000, CONFIG_ADAPTIVE_OFF };
    struct judge judge;

    judge_init(&judge, &settings, 7);
    judge_check(&judge, true, "", START - 1);
    return judge;
}

static void test_degraded(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof degraded / sizeof *degraded; i++) {
        struct judge judge = up();

        for (size_t k = 0; k < ROW_MAX && (k == 0 || degraded[i].steps[k].at); k++) {
            const struct answers *step = &degraded[i].steps[k];
            int64_t now = START + step->at;

            judge_answers(&judge, step->total, step->bad, now);
            if (judge.state != step->state || judge_milliweight(&judge, now) != step->milliweight)
                fail_msg("%s, step %zu: %s with %u", degraded[i].name, k + 1, backend_state_name(judge.state),
                         judge_milliweight(&judge, now));
            assert_true(!judge.answers.open || judge_next(&judge, now) == now + 1000);
        }
    }
}

/* It was never out, so there is no slow start when it is well again; one that runs goes on. */
static void test_degraded_and_slow_start(void **state)
{
    struct judge judge = up();

    (void)state;
    judge_answers(&judge, 20, 20, START);
    judge_answers(&judge, 20, 20, START + 10000);
    assert_int_equal(judge.slow_since, JUDGE_NEVER);
    for (int i = 0; i < 3; i++)
        judge_check(&judge, false, "closed", START + 20000);
    assert_int_equal(judge.state, BACKEND_DOWN);
    judge_check(&judge, true, "", START + 30000);
    judge_check(&judge, true, "", START + 30000);
    judge_answers(&judge, 45, 30, START + 60000);
    assert_int_equal(judge.state, BACKEND_UP); /* ten bad ones of ten: the rest is older */
    judge_answers(&judge, 55, 30, START + 60001);
    assert_int_equal(judge.state, BACKEND_DEGRADED);
    assert_int_equal(judge_milliweight(&judge, START + 60001), 4 * 500 / 2);
}

/* What is out for another reason stays so. */
static void test_degraded_only_in_service(void **state)
{
    struct judge judge = up();

    (void)state;
    judge_hard(&judge, 3, true, START);
    judge_answers(&judge, 100, 100, START);
    assert_int_equal(judge.state, BACKEND_EJECTED);
    for (int i = 0; i < 3; i++)
        judge_check(&judge, false, "closed", START);
    judge_answers(&judge, 200, 200, START);
    assert_int_equal(judge.state, BACKEND_DOWN);
}

/* What it did before it was DOWN was judged then, and so was what it did on the way. */
static void test_back_from_down(void **state)
{
    struct judge judge = up();

    (void)state;
    judge_refused(&judge);
    judge_answers(&judge, 30, 15, START);
    judge_check(&judge, false, "connect refused", START);
    judge_sessions(&judge, 25, 25, true, START + 1);
    judge_check(&judge, true, "", START + 300);
    judge_check(&judge, true, "", START + 600);
    assert_int_equal(judge.state, BACKEND_UP);
    judge_sessions(&judge, 26, 25, true, START + 1000);
    judge_answers(&judge, 31, 15, START + 1000);
    assert_int_equal(judge.state, BACKEND_UP);
    judge_sessions(&judge, 45, 44, true, START + 1500);
    assert_int_equal(judge.state, BACKEND_UP);
    judge_sessions(&judge, 46, 45, true, START + 1600); /* the twentieth since then */
    assert_int_equal(judge.state, BACKEND_EJECTED);
}

/* Nor does it cost a relay connections that those it had when it died got no answer. */
static void test_back_without_a_limit(void **state)
{
    const struct judge_settings settings = { 3, 2, 4, 100, 60000, CONFIG_ADAPTIVE_ON };
    struct limit_totals totals = { .replies = 1000, .answers = 1000 };
    struct judge judge;

    (void)state;
    judge_init(&judge, &settings, 7);
    judge_check(&judge, true, "", START);
    (void)judge_replies(&judge, &totals, 30, START);
    totals.answers += 30;
    totals.not_now += 30;
    judge_refused(&judge);
    judge_check(&judge, false, "connect refused", START + 1000);
    (void)judge_replies(&judge, &totals, 0, START + 1100);
    judge_check(&judge, true, "", START + 2000);
    judge_check(&judge, true, "", START + 2300);
    assert_int_equal(judge.state, BACKEND_UP);
    totals.replies += 20; /* enough to decide on */
    totals.answers += 10;
    assert_false(judge_replies(&judge, &totals, 20, START + 3500));
    assert_int_equal(judge.limit.force.limit, BACKEND_NO_CEILING);
    /* What it says now counts. */
    totals.replies += 20;
    totals.answers += 30;
    totals.not_now += 20;
    assert_true(judge_replies(&judge, &totals, 20, START + 5000));
    assert_int_equal(judge.limit.force.cause, LIMIT_NOT_NOW);
}

/* Before it fell it was far too slow. It is not slow now. */
static void test_back_at_its_usual_pace(void **state)
{
    static const struct judge_settings settings = { 3, 2, 4, 100, 60000, CONFIG_ADAPTIVE_ON };
    struct limit_totals totals = { 0 };
    struct judge judge;
    int64_t now = START;
    uint32_t limit = 0;

    (void)state;
    judge_init(&judge, &settings, 7);
    judge_check(&judge, true, "", now);
    for (int64_t fell = now + 120000, back = fell + 2000; now < back + 30000; now += LIMIT_TICK) {
        bool down = now >= fell && now < back, slow = now >= fell - 2000 && now < fell;
        uint64_t n = down ? 0 : slow ? 4 : 20, took = slow ? 2000 : 20;

        totals.replies += n;
        totals.answers += n;
        totals.milliseconds += n * took;
        totals.squares += n * took * took;
        if (now == fell) {
            judge_refused(&judge);
            judge_check(&judge, false, "connect refused", now);
            assert_int_equal(judge.state, BACKEND_DOWN);
            limit = judge.limit.force.limit;
        }
        if (now == back) {
            judge_check(&judge, true, "", now);
            judge_check(&judge, true, "", now);
            assert_int_equal(judge.state, BACKEND_UP);
        }
        (void)judge_replies(&judge, &totals, down ? 0 : now < fell ? 60 : 10, now);
        if (now >= back && judge.limit.force.limit < limit)
            fail_msg("%d ms after its return: a limit of %u, not %u", (int)(now - back),
                     judge.limit.force.limit, limit);
    }
}

static void test_failed_sessions(void **state)
{
    struct judge judge = up();

    (void)state;
    judge_sessions(&judge, 10, 10, true, START);
    judge_sessions(&judge, 21, 10, true, START + 5000);
    assert_int_equal(judge.state, BACKEND_UP); /* 10 of 21 */
    judge_sessions(&judge, 23, 12, false, START + 6000);
    assert_int_equal(judge.state, BACKEND_UP); /* the pool can't spare it */
    judge_sessions(&judge, 23, 12, true, START + 6000);
    assert_int_equal(judge.state, BACKEND_EJECTED);
    assert_string_equal(judge.reason, "half of its sessions failed");
    judge_sessions(&judge, 99, 99, true, START + 6001);
    assert_int_equal(judge.ejections, 1);

    judge = up();
    judge_sessions(&judge, 19, 19, true, START);
    assert_int_equal(judge.state, BACKEND_UP); /* too few to say */
    judge_sessions(&judge, 20, 20, true, START + 10000);
    assert_int_equal(judge.state, BACKEND_UP); /* the nineteen are too old */
}

/* --- panic --- */

static void test_panic(void **state)
{
    struct fixture f;
    struct farm *farm;
    struct config_pool *pool;
    struct placement_wish wish;
    struct member *member;
    uint64_t random = 1;

    (void)state;
    fixture_start(&f);
    pool = fixture_pool(&f, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    fixture_backend(&f, pool, "a", 1, 1, 0);
    fixture_backend(&f, pool, "b", 1, 1, 0);
    fixture_backend(&f, pool, "c", 1, 1, 0);
    farm = fixture_farm(&f, NULL);
    fixture_all_up(farm);
    atomic_store(&farm->backends[1]->state, BACKEND_EJECTED);
    atomic_store(&farm->backends[2]->state, BACKEND_DOWN);
    wish = fixture_wish(farm, 0);

    member = eligible_take(&wish, &random, START);
    assert_string_equal(backend_name(member->backend), "a");
    assert_null(eligible_take(&wish, &random, START));
    assert_false(eligible_any_room(&farm->pools[0], START));
    placement_return(&(struct place){ .member = member }, START);

    atomic_store(&farm->pools[0].state->panic, true);
    for (int i = 0; i < 20; i++) {
        struct member *first = eligible_take(&wish, &random, START), *second;

        assert_string_equal(backend_name(first->backend), "a"); /* as long as it has room */
        assert_true(eligible_any_room(&farm->pools[0], START));
        second = eligible_take(&wish, &random, START);
        assert_string_equal(backend_name(second->backend), "b");
        assert_null(eligible_take(&wish, &random, START)); /* never above the caps, and never DOWN */
        placement_return(&(struct place){ .member = first }, START);
        placement_return(&(struct place){ .member = second }, START);
    }
    atomic_store(&farm->backends[0]->state, BACKEND_DOWN);
    assert_int_equal(eligible_verdict(&wish), PLACEMENT_WAITING);
    atomic_store(&farm->pools[0].state->panic, false);
    assert_int_equal(eligible_verdict(&wish), PLACEMENT_NO_BACKEND);
    farm_release(&farm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_window_leaps),
        cmocka_unit_test(test_back_from_down),
        cmocka_unit_test(test_back_at_its_usual_pace),
        cmocka_unit_test(test_back_without_a_limit),
        cmocka_unit_test(test_degraded),
        cmocka_unit_test(test_degraded_and_slow_start),
        cmocka_unit_test(test_degraded_only_in_service),
        cmocka_unit_test(test_failed_sessions),
        cmocka_unit_test(test_panic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
