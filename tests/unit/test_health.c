/*
 * The judge under a virtual clock: tables of what happened when, and what it makes of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "health/judge.h"

enum event {
    END,
    PASS,    /* n checks passed */
    FAIL,    /* n checks failed */
    REFUSED, /* traffic was refused */
    HARD,    /* the n-th hard sign in a row; the pool can spare it */
    STUCK,   /* the same, but the pool can't */
    LOAD,    /* the n-th load sign in a row, with `connections` */
    GOOD,    /* n good signs, with `connections` */
    REPLIES, /* n replies, with `connections` */
    TICK,    /* nothing but time */
    TOLD,    /* its agent says that it is down */
    UNTOLD,  /* and takes that back */
    BEGIN,   /* back from maintenance */
    SET,     /* a reload: max-connections n */
};

#define NONE BACKEND_NO_CEILING
#define ANY  (BACKEND_NO_CEILING - 1)

struct step {
    int64_t at; /* ms since the row began */
    enum event event;
    uint32_t n, connections;
    enum backend_state state; /* behind it */
    uint32_t ceiling;         /* ANY: not looked at */
};

struct row {
    const char *name;
    struct judge_settings settings;
    struct step steps[24];
};

/* A row, or a step, a line: */
/* clang-format off */
/* fall, rise, weight, max-connections, slow start, adaptive limit */
#define USUAL { 3, 2, 4, 100, 60000, CONFIG_ADAPTIVE_OFF }
#define UNLIMITED { 3, 2, 4, 0, 60000, CONFIG_ADAPTIVE_OFF }
#define QUICK { 1, 1, 4, 100, 60000, CONFIG_ADAPTIVE_OFF }
#define AT_ONCE { 3, 2, 4, 100, 0, CONFIG_ADAPTIVE_OFF }
#define EJECTED_S 33000 /* surely over: 30 s and 10 % */

static const struct row rows[] = {
    { "the first check decides: passed, and no slow start", USUAL,
      { { 0, TICK, 0, 0, BACKEND_INIT, 100 }, { 5, PASS, 1, 0, BACKEND_UP, 100 } } },
    { "the first check decides: failed", USUAL,
      { { 0, FAIL, 1, 0, BACKEND_DOWN, ANY },
        { 1, PASS, 1, 0, BACKEND_DOWN, ANY },
        { 2, PASS, 1, 0, BACKEND_UP, 10 } } },
    { "fall: three in a row, and a passed one between begins anew", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 1, FAIL, 2, 0, BACKEND_UP, 100 },
        { 2, PASS, 1, 0, BACKEND_UP, 100 },
        { 3, FAIL, 2, 0, BACKEND_UP, 100 },
        { 4, FAIL, 1, 0, BACKEND_DOWN, ANY } } },
    { "rise: two in a row, and a failed one between begins anew", USUAL,
      { { 0, FAIL, 1, 0, BACKEND_DOWN, ANY },
        { 1, PASS, 1, 0, BACKEND_DOWN, ANY },
        { 2, FAIL, 1, 0, BACKEND_DOWN, ANY },
        { 3, PASS, 1, 0, BACKEND_DOWN, ANY },
        { 4, PASS, 1, 0, BACKEND_UP, 10 } } },
    { "slow start: a tenth, then in proportion, then all", USUAL,
      { { 0, FAIL, 1, 0, BACKEND_DOWN, ANY },
        { 0, PASS, 2, 0, BACKEND_UP, 10 },
        { 3000, TICK, 0, 0, BACKEND_UP, 10 },
        { 30000, TICK, 0, 0, BACKEND_UP, 50 },
        { 59000, TICK, 0, 0, BACKEND_UP, 98 },
        { 60000, TICK, 0, 0, BACKEND_UP, 100 } } },
    { "no slow start", AT_ONCE,
      { { 0, FAIL, 1, 0, BACKEND_DOWN, ANY }, { 0, PASS, 2, 0, BACKEND_UP, 100 } } },
    { "no limit at all is none in slow start either", UNLIMITED,
      { { 0, FAIL, 1, 0, BACKEND_DOWN, ANY }, { 0, PASS, 2, 0, BACKEND_UP, NONE } }},
    { "told down: no check brings it up before that is taken back", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 1, TOLD, 0, 0, BACKEND_DOWN, ANY },
        { 2, PASS, 9, 0, BACKEND_DOWN, ANY },
        { 3, TOLD, 0, 0, BACKEND_DOWN, ANY },
        { 400000, PASS, 9, 0, BACKEND_DOWN, ANY },
        { 400001, UNTOLD, 0, 0, BACKEND_DOWN, ANY },
        { 400002, PASS, 1, 0, BACKEND_DOWN, ANY },
        { 400003, PASS, 1, 0, BACKEND_UP, 10 },
        { 400004, UNTOLD, 0, 0, BACKEND_UP, 10 } } },
    { "told down before the first check, on trial, when ejected, in maintenance", USUAL,
      { { 0, TOLD, 0, 0, BACKEND_DOWN, ANY },
        { 0, UNTOLD, 0, 0, BACKEND_DOWN, ANY },
        { 0, PASS, 2, 0, BACKEND_UP, 10 },
        { 1, HARD, 3, 0, BACKEND_EJECTED, ANY },
        { EJECTED_S + 1, TICK, 0, 0, BACKEND_HALF_OPEN, ANY },
        { EJECTED_S + 2, TOLD, 0, 0, BACKEND_DOWN, ANY },
        { EJECTED_S + 3, GOOD, 9, 0, BACKEND_DOWN, ANY },
        { EJECTED_S + 4, HARD, 9, 0, BACKEND_DOWN, ANY },
        { EJECTED_S + 5, BEGIN, 0, 0, BACKEND_DOWN, ANY },
        { EJECTED_S + 6, PASS, 9, 0, BACKEND_DOWN, ANY },
        { EJECTED_S + 7, BEGIN, 0, 0, BACKEND_DOWN, ANY },
        { EJECTED_S + 8, UNTOLD, 0, 0, BACKEND_DOWN, ANY },
        { EJECTED_S + 9, PASS, 2, 0, BACKEND_UP, 10 },
        { EJECTED_S + 9, HARD, 3, 0, BACKEND_EJECTED, ANY },
        { EJECTED_S + 9, TOLD, 0, 0, BACKEND_DOWN, ANY },
        { 2 * EJECTED_S + 90000, TICK, 0, 0, BACKEND_DOWN, ANY } } },
    { "it comes and goes: from the third time on it is held down, each time for longer", QUICK,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 0, FAIL, 1, 0, BACKEND_DOWN, ANY },
        { 1000, PASS, 1, 0, BACKEND_UP, ANY },
        { 2000, FAIL, 1, 0, BACKEND_DOWN, ANY },
        { 3000, PASS, 1, 0, BACKEND_UP, ANY },
        { 4000, FAIL, 1, 0, BACKEND_DOWN, ANY }, /* 5 s */
        { 8400, PASS, 9, 0, BACKEND_DOWN, ANY },
        { 9501, PASS, 1, 0, BACKEND_UP, ANY },
        { 10000, FAIL, 1, 0, BACKEND_DOWN, ANY }, /* 10 s */
        { 18900, PASS, 9, 0, BACKEND_DOWN, ANY },
        { 21001, PASS, 1, 0, BACKEND_UP, ANY },
        { 22000, FAIL, 1, 0, BACKEND_DOWN, ANY }, /* 20 s */
        { 39900, PASS, 9, 0, BACKEND_DOWN, ANY },
        { 44001, PASS, 1, 0, BACKEND_UP, ANY },
        { 644001, FAIL, 1, 0, BACKEND_DOWN, ANY }, /* two forgotten: 5 · 2^1 s */
        { 652900, PASS, 9, 0, BACKEND_DOWN, ANY },
        { 655002, PASS, 1, 0, BACKEND_UP, ANY },
        { 9000000, FAIL, 1, 0, BACKEND_DOWN, ANY }, /* all of them */
        { 9000001, PASS, 1, 0, BACKEND_UP, ANY } } },
    { "refused, and the check agrees", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 1, REFUSED, 0, 0, BACKEND_UP, 100 },
        { 2, FAIL, 1, 0, BACKEND_DOWN, ANY } } },
    { "refused, and the check does not agree", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 1, REFUSED, 0, 0, BACKEND_UP, 100 },
        { 2, PASS, 1, 0, BACKEND_UP, 100 },
        { 3, FAIL, 1, 0, BACKEND_UP, 100 } } },
    { "three hard signs in a row, trial, three good ones", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 1, HARD, 2, 0, BACKEND_UP, 100 },
        { 2, HARD, 3, 0, BACKEND_EJECTED, ANY },
        { 3, PASS, 5, 0, BACKEND_EJECTED, ANY },
        { 26000, TICK, 0, 0, BACKEND_EJECTED, ANY },
        { 26001, GOOD, 9, 0, BACKEND_EJECTED, ANY },
        { EJECTED_S + 2, TICK, 0, 0, BACKEND_HALF_OPEN, 5 },
        { EJECTED_S + 3, GOOD, 2, 0, BACKEND_HALF_OPEN, 5 },
        { EJECTED_S + 4, GOOD, 1, 0, BACKEND_UP, 10 } } },
    { "on trial one bad sign suffices, and the second ejection lasts twice as long", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 0, HARD, 3, 0, BACKEND_EJECTED, ANY },
        { EJECTED_S, TICK, 0, 0, BACKEND_HALF_OPEN, 5 },
        { EJECTED_S, HARD, 1, 0, BACKEND_EJECTED, ANY },
        { EJECTED_S + 53000, TICK, 0, 0, BACKEND_EJECTED, ANY },
        { EJECTED_S + 66000, TICK, 0, 0, BACKEND_HALF_OPEN, 5 } } },
    { "an ejection is forgotten after five clean minutes", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 0, HARD, 3, 0, BACKEND_EJECTED, ANY },
        { EJECTED_S, TICK, 0, 0, BACKEND_HALF_OPEN, 5 },
        { EJECTED_S, GOOD, 3, 0, BACKEND_UP, ANY },
        { EJECTED_S + 300000, HARD, 3, 0, BACKEND_EJECTED, ANY },
        { 2 * EJECTED_S + 300000, TICK, 0, 0, BACKEND_HALF_OPEN, ANY } } },
    { "at most five minutes", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 0, HARD, 3, 0, BACKEND_EJECTED, ANY },
        { EJECTED_S, TICK, 0, 0, BACKEND_HALF_OPEN, ANY },
        { EJECTED_S, HARD, 1, 0, BACKEND_EJECTED, ANY },
        { 330000, TICK, 0, 0, BACKEND_HALF_OPEN, ANY },
        { 330000, HARD, 1, 0, BACKEND_EJECTED, ANY },
        { 600000, TICK, 0, 0, BACKEND_HALF_OPEN, ANY },
        { 600000, HARD, 1, 0, BACKEND_EJECTED, ANY },
        { 870000, TICK, 0, 0, BACKEND_HALF_OPEN, ANY },
        { 870000, HARD, 1, 0, BACKEND_EJECTED, ANY },
        { 870000 + 269000, TICK, 0, 0, BACKEND_EJECTED, ANY },
        { 870000 + 330000, TICK, 0, 0, BACKEND_HALF_OPEN, ANY } } },
    { "one that can't be spared stays", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 1, STUCK, 3, 0, BACKEND_UP, 100 },
        { 2, STUCK, 4, 0, BACKEND_UP, 100 },
        { 3, HARD, 5, 0, BACKEND_EJECTED, ANY } } },
    { "an ejected one can go down, and comes back through slow start", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 0, HARD, 3, 0, BACKEND_EJECTED, ANY },
        { 1, FAIL, 3, 0, BACKEND_DOWN, ANY },
        { EJECTED_S, TICK, 0, 0, BACKEND_DOWN, ANY },
        { EJECTED_S, PASS, 2, 0, BACKEND_UP, 10 } } },
    { "one that is down or new is not ejected", USUAL,
      { { 0, HARD, 3, 0, BACKEND_INIT, ANY },
        { 1, FAIL, 1, 0, BACKEND_DOWN, ANY },
        { 2, HARD, 9, 0, BACKEND_DOWN, ANY },
        { 3, GOOD, 9, 0, BACKEND_DOWN, ANY } } },
    { "a load sign takes three tenths, once for a moment", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 5000, LOAD, 1, 60, BACKEND_UP, 42 },
        { 5500, LOAD, 2, 60, BACKEND_UP, 42 },
        { 6000, LOAD, 1, 60, BACKEND_UP, 42 }, /* began before that was known */
        { 7000, LOAD, 1, 42, BACKEND_UP, 29 } } },
    { "never under the lowest limit", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 1000, LOAD, 1, 60, BACKEND_UP, 42 },
        { 2000, LOAD, 1, 42, BACKEND_UP, 29 },
        { 3000, LOAD, 1, 29, BACKEND_UP, 20 },
        { 4000, LOAD, 1, 20, BACKEND_UP, 14 },
        { 5000, LOAD, 1, 14, BACKEND_UP, 9 },
        { 6000, LOAD, 1, 9, BACKEND_UP, 6 },
        { 7000, LOAD, 1, 6, BACKEND_UP, 5 },
        { 8000, LOAD, 1, 5, BACKEND_UP, 5 } } },
    { "without max-connections it begins at what was carried", UNLIMITED,
      { { 0, PASS, 1, 0, BACKEND_UP, NONE },
        { 5000, LOAD, 1, 50, BACKEND_UP, 35 },
        { 6000, REPLIES, 10, 35, BACKEND_UP, 37 },
        { 7000, REPLIES, 10, 37, BACKEND_UP, 39 } } },
    { "it grows by ten replies, but only while it is used, and not at a rush", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 5000, LOAD, 1, 100, BACKEND_UP, 70 },
        { 5100, REPLIES, 20, 70, BACKEND_UP, 70 },
        { 6000, REPLIES, 10, 55, BACKEND_UP, 70 },
        { 7000, REPLIES, 9, 56, BACKEND_UP, 70 },
        { 7001, REPLIES, 1, 56, BACKEND_UP, 72 },
        { 7002, REPLIES, 50, 72, BACKEND_UP, 72 },
        { 8001, REPLIES, 10, 72, BACKEND_UP, 74 } } },
    { "it grows by ten quiet seconds, to the cap, and then it is gone",
     { 3, 2, 4, 10, 60000, CONFIG_ADAPTIVE_OFF },
     { { 0, PASS, 1, 0, BACKEND_UP, 10 },
        { 5000, LOAD, 1, 10, BACKEND_UP, 7 },
        { 9999, TICK, 0, 7, BACKEND_UP, 7 },
        { 10000, TICK, 0, 7, BACKEND_UP, 8 },
        { 19999, TICK, 0, 8, BACKEND_UP, 8 },
        { 20000, TICK, 0, 8, BACKEND_UP, 9 },
        { 30000, TICK, 0, 9, BACKEND_UP, 10 },
        { 45000, LOAD, 1, 10, BACKEND_UP, 7 } } },
    { "three load signs with next to nothing on it", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 1, LOAD, 3, 6, BACKEND_UP, ANY },
        { 2, LOAD, 4, 5, BACKEND_EJECTED, ANY } } },
    { "a reload changes the cap of a limit, or takes it away", USUAL,
      { { 0, PASS, 1, 0, BACKEND_UP, 100 },
        { 5000, LOAD, 1, 100, BACKEND_UP, 70 },
        { 5001, SET, 80, 0, BACKEND_UP, 70 },
        { 5002, SET, 60, 0, BACKEND_UP, 60 },
        { 5003, SET, 100, 0, BACKEND_UP, 100 } } },
};
/* clang-format on */

static void step(struct judge *judge, struct limit_totals *totals, const struct step *step, int64_t now)
{
    struct judge_settings settings = judge->settings;

    switch (step->event) {
    case END: break;
    case PASS:
    case FAIL:
        for (uint32_t i = 0; i < step->n; i++)
            judge_check(judge, step->event == PASS, "connect refused", now);
        break;
    case REFUSED: judge_refused(judge); break;
    case HARD:
    case STUCK: judge_hard(judge, step->n, step->event == HARD, now); break;
    case LOAD: judge_load(judge, step->n, step->connections, true, now); break;
    case GOOD: judge_good(judge, step->n, step->connections, now); break;
    case REPLIES:
        totals->replies += step->n;
        totals->milliseconds += UINT64_C(10) * step->n;
        totals->squares += UINT64_C(100) * step->n;
        (void)judge_replies(judge, totals, step->connections, now);
        break;
    case TICK:
        judge_tick(judge, true, now);
        (void)judge_replies(judge, totals, step->connections, now);
        break;
    case TOLD: judge_told(judge, "agent: down", now); break;
    case UNTOLD: judge_told(judge, NULL, now); break;
    case BEGIN: judge_begin(judge, "back from maintenance", now); break;
    case SET:
        settings.max_connections = step->n;
        judge_configure(judge, &settings);
        break;
    }
}

/* Where it has no others beside it. */
static uint32_t ceiling(const struct judge *judge, int64_t now)
{
    uint32_t usual = judge_ceiling(judge, now), trial = judge_trial(judge);

    return trial < usual ? trial : usual;
}

static void play(const struct row *row, uint64_t seed)
{
    const int64_t start = 1000000;
    struct limit_totals totals = { 0 };
    struct judge judge;

    judge_init(&judge, &row->settings, seed);
    (void)judge_replies(&judge, &totals, 0, start);
    for (const struct step *s = row->steps; s->event != END; s++) {
        int64_t now = start + s->at;

        step(&judge, &totals, s, now);
        if (judge.state != s->state || (s->ceiling != ANY && ceiling(&judge, now) != s->ceiling))
            fail_msg("%s, step %d at %d ms: %s with ceiling %u, not %s with %u", row->name,
                     (int)(s - row->steps) + 1, (int)s->at, backend_state_name(judge.state),
                     ceiling(&judge, now), backend_state_name(s->state), s->ceiling);
        assert_true(judge_next(&judge, now) > now);
    }
}

static void test_tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (uint64_t seed = 1; seed <= 50; seed++)
            play(&rows[i], seed * 0x9e3779b97f4a7c15u);
}

static struct judge up(struct judge_settings settings)
{
    struct judge judge;

    judge_init(&judge, &settings, 7);
    judge_check(&judge, true, "", 0);
    return judge;
}

static void test_weight(void **state)
{
    struct judge judge = up((struct judge_settings)USUAL);

    (void)state;
    assert_int_equal(judge_milliweight(&judge, 0), 4000);
    judge_check(&judge, false, "a", 0);
    judge_check(&judge, false, "b", 0);
    judge_check(&judge, false, "c", 0);
    judge_check(&judge, true, "", 1000);
    judge_check(&judge, true, "", 1000);
    assert_int_equal(judge_milliweight(&judge, 1000), 400);
    assert_int_equal(judge_milliweight(&judge, 31000), 2000);
    assert_int_equal(judge_milliweight(&judge, 61000), 4000);
    judge.settings.weight = 0;
    assert_int_equal(judge_milliweight(&judge, 31000), 0);
}

static void test_reasons(void **state)
{
    struct judge judge = up((struct judge_settings)USUAL);

    (void)state;
    assert_string_equal(judge.reason, "check passed");
    judge_refused(&judge);
    judge_check(&judge, false, "connect refused", 0);
    assert_string_equal(judge.reason, "connect refused");
    judge_check(&judge, false, "connect timeout", 0);
    assert_string_equal(judge.reason, "connect refused"); /* of the change */
}

static void test_unresolved(void **state)
{
    struct judge judge;
    struct judge_settings settings = USUAL;

    (void)state;
    judge_init(&judge, &settings, 7);
    judge_unresolved(&judge, "name does not resolve: no such name", 0);
    assert_int_equal(judge.state, BACKEND_DOWN);
    assert_string_equal(judge.reason, "name does not resolve: no such name");
}

/* A minute at most; and what has nobody beside it is let off. */
static void test_hold(void **state)
{
    struct judge judge = up((struct judge_settings)QUICK);
    int64_t now = 0;

    (void)state;
    for (int i = 0; i < 100; i++) {
        judge_check(&judge, false, "connect refused", now);
        assert_int_equal(judge_held(&judge, now), i >= JUDGE_FALLS - 1);
        assert_true(judge.held_until - now <= JUDGE_HOLD_LAST + JUDGE_HOLD_LAST / 10);
        now = judge.held_until;
        assert_false(judge_held(&judge, now));
        judge_check(&judge, true, "", now);
        assert_int_equal(judge.state, BACKEND_UP);
        assert_false(judge_held(&judge, now));
    }
    judge_check(&judge, false, "connect refused", now);
    judge_check(&judge, true, "", now);
    assert_int_equal(judge.state, BACKEND_DOWN);
    judge_release(&judge);
    judge_check(&judge, true, "", now);
    assert_int_equal(judge.state, BACKEND_UP);
}

/* A DOWN of long ago is forgotten whatever way the next one comes: behind an ejection, as with most that
 * hang, or a moment after it was DEGRADED. */
static void test_falls_are_forgotten(void **state)
{
    static const int64_t day = 86400 * 1000;

    (void)state;
    for (int way = 0; way < 2; way++) {
        struct judge judge = up((struct judge_settings)QUICK);

        for (int64_t now = 0; now < 2000; now += 1000) {
            judge_check(&judge, false, "closed", now);
            judge_check(&judge, true, "", now + 500);
        }
        assert_int_equal(judge.falls, 2);
        if (way == 0) {
            judge_hard(&judge, 3, true, day);
            assert_int_equal(judge.state, BACKEND_EJECTED);
        } else {
            judge_answers(&judge, 20, 20, day);
            judge_answers(&judge, 20, 20, day + 10000);
            assert_int_equal(judge.state, BACKEND_UP);
        }
        judge_check(&judge, false, "connect timeout", day + 11000);
        assert_int_equal(judge.state, BACKEND_DOWN);
        assert_int_equal(judge.falls, 1);
        assert_false(judge_held(&judge, day + 11000));
    }
}

/* One more each time, also where a DOWN has cut the last one short. */
static void test_ejections_are_counted(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        const struct judge_settings settings = USUAL;
        struct judge judge;
        int64_t now = 0;

        judge_init(&judge, &settings, seed);
        judge_check(&judge, true, "", now);
        judge_hard(&judge, 3, true, now);
        for (uint32_t n = 2; n <= 8; n++) {
            now = judge.ejected_until;
            judge_tick(&judge, true, now);
            judge_hard(&judge, 1, true, now); /* on trial */
            assert_int_equal(judge.state, BACKEND_EJECTED);
            assert_int_equal(judge.ejections, n);
        }
        judge_refused(&judge);
        judge_check(&judge, false, "connect timeout", now + 1);
        judge_check(&judge, true, "", now + 2);
        judge_check(&judge, true, "", now + 3);
        judge_hard(&judge, 3, true, now + 4);
        assert_int_equal(judge.state, BACKEND_EJECTED);
        assert_int_equal(judge.ejections, 9);
        judge_begin(&judge, "back from maintenance", now); /* it may have been mended */
        judge_check(&judge, true, "", now);
        judge_hard(&judge, 3, true, now);
        assert_int_equal(judge.ejections, 1);
    }
}

/* One that comes and goes each second, with the quickest of settings, for an hour: each change is a log line
 * and a slow start. */
static void test_flapping(void **state)
{
    struct judge judge = up((struct judge_settings)QUICK);
    int changes = 0;

    (void)state;
    for (int64_t now = 1000; now <= 3600 * 1000; now += 1000) {
        enum backend_state before = judge.state;

        judge_check(&judge, now / 1000 % 2 == 0, "connect refused", now);
        changes += judge.state != before;
    }
    print_message("%d changes\n", changes);
    assert_in_range(changes, 100, 150);
}

/* The fast interval is for what may be changing. */
static void test_changing(void **state)
{
    struct judge judge;
    struct judge_settings settings = USUAL;

    (void)state;
    judge_init(&judge, &settings, 7);
    assert_true(judge_changing(&judge));
    judge_check(&judge, true, "", 0);
    assert_false(judge_changing(&judge));
    judge_check(&judge, false, "a", 0);
    assert_true(judge_changing(&judge));
    judge_check(&judge, true, "", 0);
    assert_false(judge_changing(&judge));
    judge_refused(&judge);
    assert_true(judge_changing(&judge));
    judge_check(&judge, false, "a", 0);
    assert_int_equal(judge.state, BACKEND_DOWN);
    assert_false(judge_changing(&judge));
    judge_check(&judge, true, "", 0);
    assert_true(judge_changing(&judge));
}

/* A full relay must not be declared dead. */
static void test_overload_is_not_death(void **state)
{
    struct judge limited = up((struct judge_settings)USUAL), unlimited = up((struct judge_settings)UNLIMITED);

    (void)state;
    assert_false(judge_is_overload(&limited, false, 0, 0));
    assert_false(judge_is_overload(&limited, false, 79, 0));
    assert_true(judge_is_overload(&limited, false, 80, 0));
    assert_false(judge_is_overload(&limited, true, 5, 0)); /* 421 with the lowest limit on it */
    assert_true(judge_is_overload(&limited, true, 6, 0));
    assert_false(judge_is_overload(&unlimited, false, 1000, 0)); /* nobody knows what it can carry */
    assert_true(judge_is_overload(&unlimited, true, 3, 0));
}

static void test_jitter(void **state)
{
    struct judge judge = up((struct judge_settings)USUAL);
    int64_t least = INT64_MAX, most = 0;

    (void)state;
    for (int i = 0; i < 10000; i++) {
        int64_t value = judge_jitter(&judge, 5000);

        least = value < least ? value : least;
        most = value > most ? value : most;
    }
    assert_in_range(least, 4500, 4550);
    assert_in_range(most, 5450, 5500);
    assert_int_equal(judge_random(&judge, 0), 0);
}

/* Fall and rise may change over a reload, and nothing else changes by that. */
static void test_new_counts(void **state)
{
    struct judge judge = up((struct judge_settings)USUAL);
    struct judge_settings settings = USUAL;

    (void)state;
    settings.fall = 1;
    settings.rise = 5;
    judge_configure(&judge, &settings);
    assert_int_equal(judge.state, BACKEND_UP);
    judge_check(&judge, false, "a", 0);
    assert_int_equal(judge.state, BACKEND_DOWN);
    for (int i = 0; i < 4; i++)
        judge_check(&judge, true, "", 0);
    assert_int_equal(judge.state, BACKEND_DOWN);
    judge_check(&judge, true, "", 0);
    assert_int_equal(judge.state, BACKEND_UP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_weight),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_unresolved),
        cmocka_unit_test(test_hold),
        cmocka_unit_test(test_flapping),
        cmocka_unit_test(test_changing),
        cmocka_unit_test(test_overload_is_not_death),
        cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_new_counts),
        cmocka_unit_test(test_falls_are_forgotten),
        cmocka_unit_test(test_ejections_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
