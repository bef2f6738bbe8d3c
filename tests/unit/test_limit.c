/*
 * The overload limit under a virtual clock: small steps in tables, and days of a modelled relay.
 *
 * The relay works on `capacity` sessions at a time without getting slower than its load makes it; of more,
 * each gets its share of the work. Replies scatter (lognormal, sigma 0.8), and two in a hundred wait a second
 * more for a slow name server. Sessions come by chance, and stay where there is no place for them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "health/limit.h"

#define NONE     BACKEND_NO_CEILING
#define START    INT64_C(5000000)
#define SCATTERS 4096
#define MINUTE   60
#define HOUR     3600

static float scatters[SCATTERS]; /* of mean 1 */

static uint64_t next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

static double uniform(uint64_t *random)
{
    return ((double)(next(random) >> 11) + 0.5) * 0x1p-53;
}

static double normal(uint64_t *random)
{
    double u = uniform(random), v = uniform(random);

    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

static unsigned poisson(uint64_t *random, double mean)
{
    double product = 1, least = exp(-mean);
    unsigned n = 0;

    if (mean > 30) {
        double draw = mean + sqrt(mean) * normal(random) + 0.5;

        return draw > 0 ? (unsigned)draw : 0;
    }
    while ((product *= uniform(random)) > least)
        n++;
    return n;
}

static int prepare(void **state)
{
    uint64_t random = 88172645463325252u;

    (void)state;
    for (size_t i = 0; i < SCATTERS; i++)
        scatters[i] = (float)exp(0.8 * normal(&random) - 0.32);
    return 0;
}

/* --- the formula as it was first written, to compare with --- */

struct plain {
    uint32_t cap, limit;
    double brief, baseline, means[6000];
    int64_t ended[6000], decided, learned;
    size_t n;
    struct limit_totals seen;
    double rate, usual_rate;
};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void plain_baseline(struct plain *plain, double mean, int64_t now)
{
    static double sorted[6000];
    size_t kept = 0;
    double baseline;

    plain->means[plain->n] = mean;
    plain->ended[plain->n++] = now;
    if (now - plain->learned < 10000)
        return;
    for (size_t i = 0; i < plain->n; i++) {
        if (now - plain->ended[i] >= 600000)
            continue;
        plain->means[kept] = plain->means[i];
        plain->ended[kept++] = plain->ended[i];
    }
    plain->n = kept;
    memcpy(sorted, plain->means, kept * sizeof *sorted);
    qsort(sorted, kept, sizeof *sorted, by_size);
    baseline = sorted[kept / 10];
    if (plain->baseline > 0 && baseline > plain->baseline)
        baseline = plain->rate < 0.9 * plain->usual_rate
                       ? plain->baseline
                       : fmin(baseline, plain->baseline * pow(1.1, (double)(now - plain->learned) / 60000));
    plain->baseline = baseline;
    plain->learned = now;
}

static void plain_tick(struct plain *plain, const struct limit_totals *totals, uint32_t places, int64_t now)
{
    uint64_t n = totals->replies - plain->seen.replies;
    int64_t passed = now - plain->decided;
    double weight = 1 - exp(-(double)passed / 10000), mean;

    if (!n || (n < 10 && passed < 10000))
        return;
    mean = (double)(totals->milliseconds - plain->seen.milliseconds) / (double)n;
    plain->brief = plain->brief > 0 ? plain->brief + (mean - plain->brief) * weight : mean;
    plain->rate += ((double)n * 1000 / (double)passed - plain->rate) * weight;
    plain->usual_rate += (plain->rate - plain->usual_rate) * (1 - exp(-(double)passed / 600000));
    plain_baseline(plain, mean, now);
    plain->seen = *totals;
    plain->decided = now;
    if (plain->brief > 1.5 * plain->baseline && plain->brief - plain->baseline > 50)
        plain->limit = (uint32_t)fmax(fmax(2, 0.05 * plain->cap), 0.9 * fmin(plain->limit, places));
    else if (places >= 0.8 * plain->limit)
        plain->limit = (uint32_t)fmin(plain->cap, plain->limit + fmax(1, 0.02 * plain->cap));
}

/* --- the relay --- */

struct relay {
    double capacity; /* sessions at a time */
    double session;  /* seconds that one takes when all is well */
    double reply;    /* ms */
    unsigned replies;
};

struct world {
    struct relay relay;
    struct limit limit;
    struct plain plain;
    bool is_plain;
    struct limit_totals totals;
    uint32_t places;
    double arriving; /* sessions a second */
    uint64_t random;
    int64_t now;
    uint64_t done; /* sessions */
    /* since world_mark() */
    uint32_t least, highest_places;
    uint64_t marked_replies, marked_milliseconds, marked_done;
};

static uint32_t world_limit(const struct world *w)
{
    uint32_t cap = w->limit.settings.max_connections;

    if (w->is_plain)
        return w->plain.limit;
    return w->limit.force.limit == NONE && cap ? cap : w->limit.force.limit;
}

static void world_mark(struct world *w)
{
    w->least = world_limit(w);
    w->highest_places = 0;
    w->marked_replies = w->totals.replies;
    w->marked_milliseconds = w->totals.milliseconds;
    w->marked_done = w->done;
}

static double world_mean(const struct world *w)
{
    return (double)(w->totals.milliseconds - w->marked_milliseconds) /
           (double)(w->totals.replies - w->marked_replies);
}

static struct world world(struct relay relay, uint32_t max_connections, enum config_adaptive_limit mode,
                          uint64_t seed)
{
    const struct limit_settings settings = { mode, max_connections };
    struct world w = { .relay = relay, .now = START, .random = seed * 0x9e3779b97f4a7c15u };

    limit_init(&w.limit, &settings);
    w.plain.cap = w.plain.limit = max_connections;
    w.plain.decided = START;
    (void)limit_tick(&w.limit, &w.totals, 0, START);
    world_mark(&w);
    return w;
}

/* How much slower than alone. */
static double factor(const struct world *w)
{
    double load = w->places / w->relay.capacity;
    double busy = fmin(load, 0.95);

    return (1 + 0.1 * busy / (1 - busy)) * fmax(1, load);
}

static void reply(struct world *w, double ms)
{
    uint64_t took;

    if (next(&w->random) % 50 == 0)
        ms += 1000;
    took = (uint64_t)(ms * (double)scatters[next(&w->random) % SCATTERS]);
    w->totals.replies++;
    w->totals.milliseconds += took;
    w->totals.squares += took * took;
}

/* A quarter of a second. */
static void turn(struct world *w)
{
    double working = fmin(w->places, w->relay.capacity), ms = w->relay.reply * factor(w);
    unsigned come = poisson(&w->random, w->arriving / 4);
    unsigned go = poisson(&w->random, working / w->relay.session / 4);
    unsigned replies;

    go = go < w->places ? go : w->places;
    w->done += go;
    w->places -= go;
    for (; come && w->places < world_limit(w); come--)
        w->places++;
    for (replies = go * w->relay.replies; replies; replies--)
        reply(w, ms);
    w->now += LIMIT_TICK;
    if (w->is_plain)
        plain_tick(&w->plain, &w->totals, w->places, w->now);
    else
        (void)limit_tick(&w->limit, &w->totals, w->places, w->now);
    if (world_limit(w) < w->least)
        w->least = world_limit(w);
    if (w->places > w->highest_places)
        w->highest_places = w->places;
}

static void run(struct world *w, int seconds, double load)
{
    w->arriving = load * w->relay.capacity / w->relay.session;
    for (int i = 0; i < 4 * seconds; i++)
        turn(w);
}

/* --- the slowed relay --- */

static const struct relay large = { 160, 2, 40, 3 };

static void test_slowed_to_a_quarter(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct world w = world(large, 200, CONFIG_ADAPTIVE_ON, seed);
        double usual;

        run(&w, 15 * MINUTE, 0.7);
        usual = world_mean(&w);
        assert_int_equal(w.least, 200);
        w.arriving = 0.7 * 160 / 2;
        w.relay.capacity = 40;
        for (int i = 0; i < 4 * 40; i++)
            turn(&w);
        world_mark(&w);
        for (int i = 0; i < 4 * 60; i++)
            turn(&w);
        if (world_mean(&w) > 3 * usual || w.least > 80 || w.least < 20)
            fail_msg("seed %d: limit %u, %f ms in place of %f", (int)seed, w.least, world_mean(&w), usual);
        /* Not at the price of what it still can do. */
        assert_true((double)(w.done - w.marked_done) > 0.85 * 60 * 40 / 2);
        w.relay.capacity = 160;
        run(&w, 2 * MINUTE, 0.7);
        world_mark(&w);
        run(&w, MINUTE, 0.7);
        /* It grows while 80 % of it are used, and 112 are. */
        if (w.least < 135 || world_mean(&w) > 1.2 * usual)
            fail_msg("seed %d: limit %u when it is well again", (int)seed, w.least);
    }
}

/* Without the limit the same relay drowns. */
static void test_slowed_without(void **state)
{
    struct world w = world(large, 200, CONFIG_ADAPTIVE_OFF, 1);
    double usual;

    (void)state;
    run(&w, 15 * MINUTE, 0.7);
    usual = world_mean(&w);
    w.relay.capacity = 40;
    run(&w, 40, 2.8);
    world_mark(&w);
    run(&w, 60, 2.8);
    assert_int_equal(w.least, 200);
    assert_true(world_mean(&w) > 8 * usual);
}

/* For half an hour: the baseline must not take it for usual. */
static void test_a_long_overload(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct world w = world(large, 200, CONFIG_ADAPTIVE_ON, seed);
        double baseline;

        run(&w, 15 * MINUTE, 0.7);
        baseline = w.limit.baseline;
        w.relay.capacity = 40;
        run(&w, 25 * MINUTE, 2.8);
        world_mark(&w);
        run(&w, 5 * MINUTE, 2.8);
        if (w.limit.baseline > 1.15 * baseline || w.least > 80)
            fail_msg("baseline %f, was %f; limit %u", w.limit.baseline, baseline, w.least);
    }
}

/* More mail than it can carry, for half an hour, and room for four times as much. */
static void test_a_long_rush(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct world w = world(large, 640, CONFIG_ADAPTIVE_ON, seed);
        double baseline, usual;

        run(&w, 15 * MINUTE, 0.7);
        baseline = w.limit.baseline;
        usual = world_mean(&w);
        run(&w, 25 * MINUTE, 1.3);
        world_mark(&w);
        run(&w, 5 * MINUTE, 1.3);
        if (world_mean(&w) > 4 * usual || w.limit.baseline > 1.5 * baseline)
            fail_msg("%f ms in place of %f, baseline %f, was %f; limit %u, places %u", world_mean(&w), usual,
                     w.limit.baseline, baseline, w.least, w.highest_places);
        assert_true((double)(w.done - w.marked_done) > 0.97 * 5 * 60 * 160 / 2);
    }
}

/* Another policy server, and every reply takes six times as long whatever the load: that is usual from now
 * on. */
static void test_a_slower_life(void **state)
{
    struct world w = world(large, 200, CONFIG_ADAPTIVE_ON, 3);

    (void)state;
    run(&w, 15 * MINUTE, 0.5);
    w.relay.reply *= 6;
    run(&w, 60 * MINUTE, 0.5);
    world_mark(&w);
    run(&w, 30 * MINUTE, 0.5);
    if (w.limit.baseline < 200 || w.least < w.highest_places * 100 / 95)
        fail_msg("limit %u, baseline %f, short %f", w.least, w.limit.baseline, w.limit.brief.mean);
}

/* --- day and night --- */

/* From 10 % at night to 85 % at noon; a mailing at ten in the evening makes an hour of 95 % within minutes.
 */
static double daily(double hour)
{
    double load = 0.475 - 0.375 * cos(2 * M_PI * hour / 24);

    if (hour >= 22 && hour < 23)
        return fmin(0.95, load + (0.95 - load) * (hour - 22) * 20);
    if (hour >= 23)
        return fmax(load, 0.95 - (0.95 - load) * (hour - 23) * 20);
    return load;
}

static void run_day(struct world *w)
{
    for (int minute = 0; minute < 24 * 60; minute++) {
        /* Minutes differ too. */
        double load = daily(minute / 60.) * (1 + 0.03 * normal(&w->random));

        run(w, MINUTE, fmin(load, 0.97));
    }
}

struct day {
    const char *name;
    struct relay relay;
    uint32_t max_connections;
};

static const struct day days[] = {
    {"large, 40 ms",         { 160, 2, 40, 3 },  200},
    { "large, slow lookups", { 160, 4, 300, 3 }, 200},
    { "medium, one reply",   { 40, 4, 120, 1 },  50 },
    { "small, 80 ms",        { 8, 5, 80, 2 },    10 },
    { "tiny, 500 ms",        { 4, 8, 500, 2 },   5  },
};

static uint32_t lowest_of_day(const struct day *day, bool is_plain, uint64_t seed)
{
    struct world w = world(day->relay, day->max_connections, CONFIG_ADAPTIVE_ON, seed);

    w.is_plain = is_plain;
    run_day(&w);
    return w.least * 100 / day->max_connections;
}

static void test_day_and_night(void **state)
{
    (void)state;
    printf("lowest limit in 24 hours, %% of the cap   formula as given   as built\n");
    for (size_t i = 0; i < sizeof days / sizeof *days; i++) {
        uint32_t given = lowest_of_day(&days[i], true, 1), least = 100;

        for (uint64_t seed = 1; seed <= 2; seed++) {
            uint32_t lowest = lowest_of_day(&days[i], false, seed);

            least = lowest < least ? lowest : least;
        }
        printf("  %-38s %16u %10u\n", days[i].name, given, least);
        assert_true(given < 80); /* or this day tests nothing */
        assert_true(least >= 80);
    }
}

/* --- small steps --- */

/* Ten replies each step. */
struct step {
    int64_t at; /* ms since the last one */
    uint32_t places, ms;
    uint32_t limit; /* behind it */
};

/* A backend that for eleven minutes has answered ten times a second in so many ms, with 60 places. */
static struct limit seasoned_in(uint32_t ms, uint32_t max_connections, enum config_adaptive_limit mode,
                                struct limit_totals *totals, int64_t *now)
{
    const struct limit_settings settings = { mode, max_connections };
    struct limit limit;

    limit_init(&limit, &settings);
    memset(totals, 0, sizeof *totals);
    *now = START;
    for (int i = 0; i <= 660; i++, *now += 1000) {
        assert_false(limit_tick(&limit, totals, 60, *now));
        totals->replies += 10;
        totals->milliseconds += UINT64_C(10) * ms;
        totals->squares += UINT64_C(10) * ms * ms;
        totals->answers += 10;
    }
    *now -= 1000;
    assert_int_equal(limit_baseline(&limit), ms * 1000);
    assert_int_equal(limit.force.limit, NONE);
    return limit;
}

static struct limit seasoned(uint32_t max_connections, enum config_adaptive_limit mode,
                             struct limit_totals *totals, int64_t *now)
{
    return seasoned_in(20, max_connections, mode, totals, now);
}

static void feed(struct limit_totals *totals, uint32_t replies, uint32_t ms)
{
    totals->replies += replies;
    totals->milliseconds += (uint64_t)replies * ms;
    totals->squares += (uint64_t)replies * ms * ms;
    totals->answers += replies;
}

static void play(const char *name, uint32_t usual, uint32_t max_connections, const struct step *steps,
                 size_t n)
{
    struct limit_totals totals;
    int64_t now;
    struct limit limit = seasoned_in(usual, max_connections, CONFIG_ADAPTIVE_ON, &totals, &now);

    (void)limit_tick(&limit, &totals, 60, now += 1000);
    for (size_t i = 0; i < n; i++) {
        now += steps[i].at;
        feed(&totals, 10, steps[i].ms);
        (void)limit_tick(&limit, &totals, steps[i].places, now);
        if (limit.force.limit != steps[i].limit)
            fail_msg("%s, step %zu: %u (%s), not %u; short %f", name, i + 1, limit.force.limit,
                     limit_cause_name(limit.force.cause), steps[i].limit, limit.brief.mean);
        assert_true(limit.wanted.limit == limit.force.limit);
    }
}
#define PLAY(name, usual, cap, ...)                                                                          \
    do {                                                                                                     \
        static const struct step steps[] = { __VA_ARGS__ };                                                  \
        play(name, usual, cap, steps, sizeof steps / sizeof *steps);                                         \
    } while (0)

/* clang-format off */
static void test_steps(void **state)
{
    (void)state;
    PLAY("a rise of less than 50 ms is nothing", 20, 100,
        { 1000, 60, 69, NONE }, { 10000, 60, 69, NONE }, { 10000, 60, 69, NONE }, { 10000, 60, 69, NONE });
    PLAY("slow and fewer: nine tenths of what is taken; then not again before that has fallen, or ten seconds",
        200, 100,
        { 10000, 60, 390, 54 },
        { 1000, 58, 390, 54 }, { 1000, 55, 390, 54 }, { 1000, 54, 390, 48 },
        { 1000, 54, 390, 48 }, { 9000, 54, 390, 43 });
    PLAY("three times as slow and far fewer: half of what is taken", 200, 100,
        { 10000, 60, 600, 30 }, { 1000, 55, 600, 30 });
    PLAY("fifty times as slow: four tenths of what is taken, not of what is left when it has become fewer", 20, 100,
        { 10000, 60, 1000, 24 }, { 1000, 50, 1000, 24 }, { 1000, 40, 1000, 24 }, { 1000, 25, 1000, 24 });
    PLAY("a cut that was not deep enough does not have to settle", 200, 100,
        { 10000, 60, 390, 54 }, { 1000, 58, 1000, 24 }, { 1000, 50, 1000, 24 });
    PLAY("back again by two per cent a second, while it is used", 200, 100,
        { 10000, 60, 390, 54 }, { 5000, 54, 200, 56 }, { 500, 56, 200, 56 }, { 500, 56, 200, 58 },
        { 1000, 46, 200, 58 }, { 1000, 47, 200, 60 });
    PLAY("without max-connections there is none before, and none behind twice the most that was carried", 200, 0,
        { 10000, 60, 390, 54 }, { 10000, 54, 200, 56 }, { 1000, 56, 200, 58 }, { 1000, 58, 200, 60 });
}
/* clang-format on */

/* Slow as it may be. */
static void test_the_floor(void **state)
{
    struct limit_totals totals;
    int64_t now;
    struct limit limit = seasoned(100, CONFIG_ADAPTIVE_ON, &totals, &now);
    uint32_t places = 60;

    (void)state;
    for (int i = 0; i < 120; i++) {
        feed(&totals, 10, 5000);
        (void)limit_tick(&limit, &totals, places, now += 1000);
        places = limit.force.limit < places ? limit.force.limit : places;
        assert_true(limit.force.limit >= 5);
    }
    assert_int_equal(limit.force.limit, 5);
}

static void test_without_max_connections(void **state)
{
    struct limit_totals totals;
    int64_t now;
    struct limit limit = seasoned(0, CONFIG_ADAPTIVE_ON, &totals, &now);
    uint32_t last = 0;

    (void)state;
    limit_told(&limit, 60, now);
    assert_int_equal(limit.force.limit, 42);
    assert_int_equal(limit_lowest(&limit), 6);
    while (limit.force.limit != NONE) {
        last = limit.force.limit;
        feed(&totals, 10, 20);
        (void)limit_tick(&limit, &totals, last, now += 1000);
        assert_true(limit.force.limit > last || now - limit.force.last_sign < 1000);
    }
    assert_in_range(last, 110, 120);
}

/* Whatever it refuses, and however slowly: no sample, and no reason. */
static void test_a_spam_run(void **state)
{
    struct limit_totals totals;
    int64_t now;
    struct limit limit = seasoned(100, CONFIG_ADAPTIVE_ON, &totals, &now);

    (void)state;
    for (int i = 0; i < 3600; i++) {
        totals.answers += 200;
        assert_false(limit_tick(&limit, &totals, 95, now += 1000));
    }
    assert_int_equal(limit.force.limit, NONE);
    assert_int_equal(limit_baseline(&limit), 20000); /* not forgotten: it was at work */
}

static void test_told(void **state)
{
    static const enum config_adaptive_limit modes[] = { CONFIG_ADAPTIVE_OFF, CONFIG_ADAPTIVE_OBSERVE,
                                                        CONFIG_ADAPTIVE_ON };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct limit_totals totals;
        int64_t now;
        struct limit limit = seasoned(100, modes[i], &totals, &now);

        for (int k = 0; k < 50; k++) /* one moment */
            limit_told(&limit, 60, now + k * 10);
        assert_int_equal(limit.force.limit, 42);
        assert_int_equal(limit.wanted.limit, 42);
        assert_string_equal(limit_cause_name(limit.force.cause), "told");
        limit_told(&limit, 60, now + 1000); /* began before that */
        assert_int_equal(limit.force.limit, 42);
        limit_told(&limit, 42, now + 2000);
        assert_int_equal(limit.force.limit, 29);
        limit_told(&limit, 60, now + 12000); /* they have had their time to end */
        assert_int_equal(limit.force.limit, 20);
        for (int k = 13; k < 60; k++)
            limit_told(&limit, limit.force.limit, now + k * 1000);
        assert_int_equal(limit.force.limit, 5);
    }
}

static void test_not_now(void **state)
{
    static const struct {
        enum config_adaptive_limit mode;
        uint32_t answers, bad, force, wanted;
    } rows[] = {
        {CONFIG_ADAPTIVE_ON,       19,  19, NONE, NONE}, /* too few to say */
        { CONFIG_ADAPTIVE_ON,      20,  1,  54,   54  },
        { CONFIG_ADAPTIVE_ON,      100, 4,  NONE, NONE},
        { CONFIG_ADAPTIVE_ON,      100, 5,  54,   54  },
        { CONFIG_ADAPTIVE_OBSERVE, 100, 5,  NONE, 54  },
        { CONFIG_ADAPTIVE_OFF,     100, 50, NONE, NONE},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct limit_totals totals;
        int64_t now;
        struct limit limit = seasoned(100, rows[i].mode, &totals, &now);

        totals.not_now++; /* the first opens the window */
        totals.answers++;
        (void)limit_tick(&limit, &totals, 60, now += 100);
        totals.not_now += rows[i].bad - 1;
        totals.answers += rows[i].answers - 1;
        feed(&totals, 10, 20);
        totals.answers -= 10;
        (void)limit_tick(&limit, &totals, 60, now += 900);
        if (limit.force.limit != rows[i].force || limit.wanted.limit != rows[i].wanted)
            fail_msg("row %zu: %u, %u", i, limit.force.limit, limit.wanted.limit);
        /* They have had their effect. */
        feed(&totals, 10, 20);
        (void)limit_tick(&limit, &totals, 40, now += 1000);
        assert_true(limit.force.limit == rows[i].force || rows[i].force == NONE);
    }
}

/* What is measured anew begins with what comes first, and is not swayed by it: in ten seconds each reply
 * counts as much as any other. */
static void test_the_first_of_many(void **state)
{
    struct limit_totals totals;
    int64_t now;
    struct limit limit = seasoned(100, CONFIG_ADAPTIVE_OFF, &totals, &now);

    (void)state;
    limit_forgive(&limit);
    (void)limit_tick(&limit, &totals, 40, now += 250); /* what came before is not looked at */
    feed(&totals, 10, 1000);
    (void)limit_tick(&limit, &totals, 40, now += 250);
    assert_int_equal(limit_short(&limit) / 1000, 1000);
    for (int i = 0; i < 29; i++) {
        feed(&totals, 10, 100);
        (void)limit_tick(&limit, &totals, 40, now += 250);
    }
    assert_int_equal(limit_short(&limit) / 1000, 130);
    assert_true(limit.brief.scatter < 1.1 / 300); /* of 300 replies */
    /* From then on it forgets. */
    for (int i = 0; i < 80; i++) {
        feed(&totals, 10, 100);
        (void)limit_tick(&limit, &totals, 40, now += 250);
    }
    assert_in_range(limit_short(&limit) / 1000, 100, 106);
}

static void test_modes(void **state)
{
    struct limit_totals totals;
    int64_t now;
    struct limit limit = seasoned(100, CONFIG_ADAPTIVE_OBSERVE, &totals, &now);
    struct limit_settings settings = limit.settings;

    (void)state;
    feed(&totals, 10, 1000);
    assert_true(limit_tick(&limit, &totals, 60, now += 10000));
    assert_int_equal(limit.wanted.limit, 24);
    assert_int_equal(limit.force.limit, NONE);
    settings.mode = CONFIG_ADAPTIVE_ON;
    limit_configure(&limit, &settings);
    assert_int_equal(limit.wanted.limit, NONE); /* what is in force; it finds out soon enough */
    feed(&totals, 10, 1000);
    assert_true(limit_tick(&limit, &totals, 60, now += 10000));
    assert_int_equal(limit.force.limit, 24);
    settings.max_connections = 20;
    limit_configure(&limit, &settings);
    assert_int_equal(limit.force.limit, NONE);
    settings.max_connections = 100;
    limit_configure(&limit, &settings);
    feed(&totals, 10, 1000);
    assert_true(limit_tick(&limit, &totals, 60, now += 10000));
    assert_int_equal(limit.force.limit, 24);
    settings.mode = CONFIG_ADAPTIVE_OFF;
    limit_configure(&limit, &settings);
    assert_int_equal(limit.force.limit, NONE);
    for (int i = 0; i < 60; i++) {
        feed(&totals, 10, 1000);
        assert_false(limit_tick(&limit, &totals, 60, now += 1000));
    }
}

/* So many seconds of replies, four times each, of which the second half of the arguments are this instance's
 * own. */
static void several(struct limit *limit, struct limit_totals *totals, int64_t *now, int seconds,
                    unsigned replies, unsigned each, unsigned own, unsigned own_each)
{
    for (int i = 0; i < 4 * seconds; i++) {
        for (unsigned k = 0; k < replies; k++) {
            uint64_t took = k < own ? own_each : each;

            took += k % 2 ? took / 4 : 0;
            totals->replies++;
            totals->milliseconds += took;
            totals->squares += took * took;
            totals->own_replies += k < own;
            totals->own_milliseconds += k < own ? took : 0;
        }
        *now += 250;
        (void)limit_tick(limit, totals, 40, *now);
    }
}

static void begin_several(struct limit *limit, struct limit_totals *totals, int64_t *now)
{
    const struct limit_settings settings = { .mode = CONFIG_ADAPTIVE_ON, .max_connections = 50 };

    *totals = (struct limit_totals){ 0 };
    *now = START;
    limit_init(limit, &settings);
    several(limit, totals, now, 5 * MINUTE, 40, 40, 10, 40);
    assert_int_equal(limit->force.limit, NONE);
    assert_true(limit_baseline(limit) > 0);
}

/* One of several instances is behind a bad network: that is not the relay's overload. */
static void test_several(void **state)
{
    struct limit_totals totals;
    struct limit limit;
    int64_t now;

    (void)state;
    begin_several(&limit, &totals, &now);
    several(&limit, &totals, &now, MINUTE, 24, 600, 10, 40);
    assert_int_equal(limit.force.limit, NONE);
    several(&limit, &totals, &now, 5, 24, 600, 10, 600);
    assert_true(limit.force.limit < 40); /* and that is */
}

/* Redis goes: from then on there are but one's own replies, which are no fewer than usual. */
static void test_relearn(void **state)
{
    struct limit_totals totals;
    struct limit limit;
    int64_t now;

    (void)state;
    begin_several(&limit, &totals, &now);
    limit_relearn(&limit);
    several(&limit, &totals, &now, MINUTE, 5, 130, 0, 0);
    assert_int_equal(limit.force.limit, NONE);
    several(&limit, &totals, &now, 5 * MINUTE, 5, 130, 0, 0);
    several(&limit, &totals, &now, 30, 2, 2000, 0, 0); /* what is usual has been learned anew */
    assert_true(limit.force.limit < 40);
}

/* A relay across the room answers within the millisecond: that is a baseline too. */
static void test_in_no_time(void **state)
{
    const struct limit_settings settings = { CONFIG_ADAPTIVE_ON, 100 };
    struct limit_totals totals = { 0 };
    struct limit limit;
    int64_t now = START;

    (void)state;
    limit_init(&limit, &settings);
    for (int i = 0; i < 100; i++, feed(&totals, 10, 0))
        assert_false(limit_tick(&limit, &totals, 60, now += 1000));
    assert_int_equal(limit_baseline(&limit), 500);
    assert_int_equal(limit_short(&limit), 500);
    feed(&totals, 10, 300);
    assert_true(limit_tick(&limit, &totals, 60, now += 10000));
    assert_int_equal(limit.force.limit, 24);
}

/* Who has just answered and carries a good deal is busy, not dead. */
static void test_at_work(void **state)
{
    struct limit_totals totals;
    int64_t now;
    struct limit limit = seasoned(0, CONFIG_ADAPTIVE_OFF, &totals, &now);

    (void)state;
    assert_true(limit_at_work(&limit, 60, now));
    assert_false(limit_at_work(&limit, limit_lowest(&limit), now));
    for (int i = 0; i < 8; i++) /* the first brings replies */
        (void)limit_tick(&limit, &totals, 60, now += LIMIT_TICK);
    assert_true(limit_at_work(&limit, 60, now));
    (void)limit_tick(&limit, &totals, 60, now += LIMIT_TICK);
    assert_false(limit_at_work(&limit, 60, now)); /* two seconds without a word */
    feed(&totals, 1, 9000);
    (void)limit_tick(&limit, &totals, 60, now += LIMIT_TICK);
    assert_true(limit_at_work(&limit, 60, now));
}

/* After ten minutes of silence nothing is known, and the first burst is no overload. */
static void test_idle_then_a_burst(void **state)
{
    struct limit_totals totals;
    int64_t now;
    struct limit limit = seasoned(100, CONFIG_ADAPTIVE_ON, &totals, &now);

    (void)state;
    feed(&totals, 10, 1000);
    assert_true(limit_tick(&limit, &totals, 60, now += 10000));
    for (int i = 0; i < 9 * 60; i++)
        assert_false(limit_tick(&limit, &totals, 0, now += 1000));
    assert_int_equal(limit.force.limit, 24);
    for (int i = 0; i < 51 * 60; i++)
        (void)limit_tick(&limit, &totals, 0, now += 1000);
    assert_int_equal(limit.force.limit, NONE);
    assert_int_equal(limit_baseline(&limit), 0);
    for (int i = 0; i < 60; i++) {
        feed(&totals, 100, 150);
        assert_false(limit_tick(&limit, &totals, 95, now += 250));
    }
    assert_int_equal(limit_baseline(&limit), 150000);
}

static void test_the_clock_leaps(void **state)
{
    static const int64_t leaps[] = { 1, 3600000, INT64_C(86400000) * 365, -86400000, INT64_MAX / 4 };

    (void)state;
    for (size_t i = 0; i < sizeof leaps / sizeof *leaps; i++) {
        struct limit_totals totals;
        int64_t now;
        struct limit limit = seasoned(100, CONFIG_ADAPTIVE_ON, &totals, &now);

        now += leaps[i];
        for (int k = 0; k < 120; k++) {
            feed(&totals, 10, 20);
            assert_false(limit_tick(&limit, &totals, 60, now += 1000));
        }
        assert_int_equal(limit.force.limit, NONE);
        assert_int_equal(limit_baseline(&limit), 20000);
        feed(&totals, 10, 1000);
        assert_true(limit_tick(&limit, &totals, 60, now += 10000));
        assert_in_range(limit.force.limit, 24, 90);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slowed_to_a_quarter),
        cmocka_unit_test(test_slowed_without),
        cmocka_unit_test(test_a_long_overload),
        cmocka_unit_test(test_a_long_rush),
        cmocka_unit_test(test_a_slower_life),
        cmocka_unit_test(test_day_and_night),
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_the_floor),
        cmocka_unit_test(test_without_max_connections),
        cmocka_unit_test(test_a_spam_run),
        cmocka_unit_test(test_told),
        cmocka_unit_test(test_not_now),
        cmocka_unit_test(test_the_first_of_many),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_relearn),
        cmocka_unit_test(test_in_no_time),
        cmocka_unit_test(test_at_work),
        cmocka_unit_test(test_idle_then_a_burst),
        cmocka_unit_test(test_the_clock_leaps),
    };

    return cmocka_run_group_tests(tests, prepare, NULL);
}
