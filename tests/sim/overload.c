/*
 * Relays that get too much, or seem to: one that has become slow, one that is driven over its capacity, and a
 * day and a night on which nothing is wrong with any.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/report.h"
#include "tests/sim/workload.h"
#include "tests/sim/world.h"

#define ON  ", adaptive-limit: on"
#define OFF ", adaptive-limit: off"

static const uint32_t all[] = WORKLOAD_RELAYS;
static const uint32_t few[] = WORKLOAD_FEW_RELAYS;

static void run(const struct scenario *scenario, unsigned seeds, struct result *result)
{
    for (unsigned seed = 1; seed <= seeds; seed++)
        world_run(scenario, seed, result);
}

/* --- a relay that has become slow -------------------------------------------------------------------------
 */

static void slow_down(struct world *world, struct relay *relay)
{
    (void)world;
    relay_slow(relay, WORKLOAD_SLOW);
}

static void recover(struct world *world, struct relay *relay)
{
    (void)world;
    relay_slow(relay, 1);
}

struct slow_row {
    const char *name;
    const uint32_t *weights;
    size_t n_relays;
    const struct policy *policy;
    double seconds;
};

/* p99 of the slowdown of all mail that was under way then. */
static double slow_one(const struct slow_row *row, const char *options, unsigned seeds)
{
    const struct scenario scenario = {
        .name = row->name,
        .policy = row->policy,
        .weights = row->weights,
        .n_relays = row->n_relays,
        .per_weight = WORKLOAD_PER_WEIGHT,
        .max_connections = WORKLOAD_MAX_CONNECTIONS,
        .pool_options = options,
        .session = WORKLOAD_LONG,
        .load = WORKLOAD_LOAD,
        .from = 120,
        .until = 120 + row->seconds,
        .seconds = 120 + row->seconds + 120,
        .begin = slow_down,
        .end = recover,
    };
    struct result result = { 0 };
    double slowdown;

    run(&scenario, seeds, &result);
    slowdown = spread_quantile(&result.slowdown, 0.99);
    printf("  %-40s %-4s %7.2f %7.2f %7.2f %8.2f %8.2f %7.2f\n", row->name,
           strstr(options, "on") ? "on" : "off", slowdown, spread_quantile(&result.newcomers, 0.99),
           spread_quantile(&result.there, 0.99), spread_quantile(&result.wait, 0.99),
           (double)(result.refused + result.lost) * 100 / (double)result.sessions, result.lowest_limit);
    (void)fflush(stdout);
    result_free(&result);
    return slowdown;
}

static void slow_header(void)
{
    printf("  %-40s %-4s %23s %17s %7s\n", "", "", "p99 slowdown", "wait", "lowest");
    printf("  %-40s %-4s %7s %7s %7s %8s %8s %7s\n", "", "", "all", "new *", "there *", "p99, s", "lost, %",
           "limit");
}

static bool is_run(const struct slow_row *row, const struct extent *extent)
{
    return extent->full || (row->seconds <= WORKLOAD_SLOW_SECONDS && row->policy != &policy_local);
}

void slow_run(const struct extent *extent)
{
    const struct slow_row rows[] = {
        {"largest of four, 60 s",                     few, sizeof few / sizeof *few, &policy_ideal,  WORKLOAD_SLOW_SECONDS  },
        { "largest of twelve, 60 s",                  all, sizeof all / sizeof *all, &policy_ideal,  WORKLOAD_SLOW_SECONDS  },
        { "largest of twelve, 100 s",                 all, sizeof all / sizeof *all, &policy_ideal,  WORKLOAD_SLOW_REFERENCE},
        { "largest of twelve, 60 s, 8 by themselves", all, sizeof all / sizeof *all, &policy_local,
         WORKLOAD_SLOW_SECONDS                                                                                              },
        { "largest of twelve, 60 s, 8 that share",    all, sizeof all / sizeof *all, &policy_shared,
         WORKLOAD_SLOW_SECONDS                                                                                              },
    };
    const size_t n = sizeof rows / sizeof *rows;
    double with[5], without[5];

    report_title("A relay slowed to a quarter of its capacity");
    slow_header();
    for (size_t i = 0; i < n; i++) {
        if (!is_run(&rows[i], extent))
            continue;
        without[i] = slow_one(&rows[i], OFF, extent->seeds);
        with[i] = slow_one(&rows[i], ON, extent->seeds);
    }
    printf("  * on the slowed relay: that began there while it was slow; all under way there then\n");
    report_title("  goals");
    for (size_t i = 0; i < n; i++) {
        char name[80];

        if (rows[i].policy == &policy_local || !is_run(&rows[i], extent))
            continue;
        (void)snprintf(name, sizeof name, "p99 slowdown, %s, adaptive-limit on", rows[i].name);
        report_at_most(name, with[i], 3);
        (void)snprintf(name, sizeof name, "negative control: the same, off");
        report_at_least(name, without[i], 8);
    }
}

/* --- a relay that gets too much ---------------------------------------------------------------------------
 */

#define FLOOD_FROM 120

static double flood_shape(double at)
{
    return at >= FLOOD_FROM && at < FLOOD_FROM + WORKLOAD_FLOOD_SECONDS ? 1 : WORKLOAD_LOAD / WORKLOAD_FLOOD;
}

struct flood_row {
    const char *name;
    double workers, max_connections; /* times what it can do */
    bool bounded;                    /* by what it can do: there is a goal for it */
};

struct flood_figures {
    double throughput, stretch;
};

static struct flood_figures flood_one(const struct flood_row *row, const char *options, unsigned seeds)
{
    static const uint32_t one[] = { 4 };
    const struct scenario scenario = {
        .name = row->name,
        .policy = &policy_ideal,
        .weights = one,
        .n_relays = 1,
        .per_weight = WORKLOAD_PER_WEIGHT,
        .exact = true,
        .workers = row->workers,
        .max_connections = row->max_connections,
        .pool_options = options,
        .session = WORKLOAD_LONG,
        .load = WORKLOAD_FLOOD,
        .shape = flood_shape,
        .from = FLOOD_FROM,
        .until = FLOOD_FROM + WORKLOAD_FLOOD_SECONDS,
        .seconds = FLOOD_FROM + WORKLOAD_FLOOD_SECONDS + 60,
    };
    struct result result = { 0 };
    struct flood_figures figures;

    run(&scenario, seeds, &result);
    figures.throughput = result.delivered / result.offered * 100;
    figures.stretch = spread_quantile(&result.took, 0.99) / spread_quantile(&result.alone, 0.99);
    printf("  %-44s %-4s %9.1f %7.2f %9.2f %8.2f %9lu %6.2f\n", row->name,
           strstr(options, "on") ? "on" : "off", figures.throughput, figures.stretch,
           spread_quantile(&result.wait, 0.99),
           (double)(result.refused + result.lost) * 100 / (double)result.sessions,
           (unsigned long)(result.ejections + result.downs), result.lowest_limit);
    (void)fflush(stdout);
    result_free(&result);
    return figures;
}

void flood_run(const struct extent *extent)
{
    const struct flood_row rows[] = {
        {"workers for all it can do, cap 1.25 times",     1,   1.25, true },
        { "the same, cap 4 times",                        1,   4,    true },
        { "the same, no cap",                             1,   0,    true },
        { "workers for 1.5 times what it can do, no cap", 1.5, 0,    true },
        { "workers for 3 times what it can do, cap 4 *",  3,   4,    false},
        { "the same, no cap *",                           3,   0,    false},
    };
    const size_t n = sizeof rows / sizeof *rows;
    struct flood_figures with[6];

    report_title("A relay with a pool of workers, driven over its capacity for 60 s");
    printf("  %-44s %-4s %9s %7s %9s %8s %9s %6s\n", "", "", "through-", "p99 by", "wait", "refused",
           "ejected", "lowest");
    printf("  %-44s %-4s %9s %7s %9s %8s %9s %6s\n", "", "", "put, %", "alone", "p99, s", "%", "or down",
           "limit");
    for (size_t i = 0; i < n; i++) {
        flood_one(&rows[i], OFF, extent->seeds);
        with[i] = flood_one(&rows[i], ON, extent->seeds);
    }
    printf("  * no bound: with so many at work it gets less done in all\n");
    report_title("  goals");
    for (size_t i = 0; i < n; i++) {
        char name[80];

        if (!rows[i].bounded)
            continue;
        (void)snprintf(name, sizeof name, "throughput, %%: %s", rows[i].name);
        report_at_least(name, with[i].throughput, 95);
        (void)snprintf(name, sizeof name, "p99 over that alone: %s", rows[i].name);
        report_at_most(name, with[i].stretch, 3);
    }
}

/* --- a day and a night ------------------------------------------------------------------------------------
 */

static double day_shape(double at)
{
    double least = WORKLOAD_NIGHT_LEAST / WORKLOAD_DAY_MOST;

    return least + (1 - least) * (1 - cos(2 * M_PI * at / WORKLOAD_DAY)) / 2;
}

static struct result day_one(const char *name, const uint32_t *weights, size_t n, double per_weight,
                             const char *options, unsigned seeds)
{
    const struct scenario scenario = {
        .name = name,
        .policy = &policy_ideal,
        .weights = weights,
        .n_relays = n,
        .per_weight = per_weight,
        .max_connections = WORKLOAD_MAX_CONNECTIONS,
        .pool_options = options,
        .session = WORKLOAD_LONG,
        .load = WORKLOAD_DAY_MOST,
        .shape = day_shape,
        .seconds = WORKLOAD_DAY,
    };
    struct result result = { 0 };

    run(&scenario, seeds, &result);
    printf("  %-44s %12lu %9.2f %9.4f %9.2f\n", name, (unsigned long)result.sessions, result.lowest_limit,
           (double)result.limit_low * 100 / (double)result.limit_samples,
           (double)(result.refused + result.lost) * 100 / (double)result.sessions);
    (void)fflush(stdout);
    return result;
}

void day_run(const struct extent *extent)
{
    struct result small, whole;

    report_title("A day and a night with healthy relays, adaptive-limit on");
    printf("  %-44s %12s %9s %9s %9s\n", "", "sessions", "lowest", "time", "refused");
    printf("  %-44s %12s %9s %9s %9s\n", "", "", "limit", "< 0.8, %", "%");
    small = day_one("four small relays", few, sizeof few / sizeof *few, WORKLOAD_PER_WEIGHT / 10, ON,
                    extent->seeds);
    if (extent->full)
        whole = day_one("the twelve", all, sizeof all / sizeof *all, WORKLOAD_PER_WEIGHT, ON, 1);
    report_title("  goals");
    report_at_least("four small relays: the lowest limit, of its cap", small.lowest_limit, 0.8);
    if (extent->full) {
        report_at_least("the twelve: the lowest limit, of its cap", whole.lowest_limit, 0.8);
        result_free(&whole);
    }
    result_free(&small);
}
