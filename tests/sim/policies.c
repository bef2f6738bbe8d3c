/* Who balances how well: the table of policies, and what must not be done as a control of the harness itself.
 */
#include <math.h>
#include <stdio.h>

#include "tests/sim/report.h"
#include "tests/sim/workload.h"
#include "tests/sim/world.h"

enum row {
    ROW_IDEAL,
    ROW_ROUND_ROBIN,
    ROW_RANDOM,
    ROW_P2C,
    ROW_PEAK_EWMA,
    ROW_LOCAL,
    ROW_SHARED_CAPS,
    ROW_ARGMIN_100,
    ROW_ARGMIN_1000,
};
#define ROWS (ROW_ARGMIN_1000 + 1)

#define ONE(text, which)                                                                                     \
    {                                                                                                        \
        .name = text, .proxies = 1, .algorithm = which                                                       \
    }
#define EIGHT(text, ...)                                                                                     \
    {                                                                                                        \
        .name = text, .proxies = 8, .algorithm = "least-connections", __VA_ARGS__                            \
    }

static const struct policy policies[ROWS] = {
    [ROW_IDEAL] = ONE("one ideal balancer", "least-connections"),
    [ROW_ROUND_ROBIN] = ONE("one, round-robin", "round-robin"),
    [ROW_RANDOM] = ONE("one, random", "random"),
    [ROW_P2C] = ONE("one, p2c", "p2c"),
    [ROW_PEAK_EWMA] = ONE("one, peak-ewma", "peak-ewma"),
    [ROW_LOCAL] = EIGHT("8, each by itself", .interval = 0),
    [ROW_SHARED_CAPS] = EIGHT("8, each by itself, caps shared out", .caps_by_share = true),
    [ROW_ARGMIN_100] = EIGHT("8, argmin of counts 100 ms old", .naive = &policy_argmin, .caps_by_share = true,
                             .interval = 0.1),
    [ROW_ARGMIN_1000] =
        EIGHT("8, argmin of counts 1 s old", .naive = &policy_argmin, .caps_by_share = true, .interval = 1),
};

static const uint32_t weights[] = WORKLOAD_RELAYS;

struct figures {
    double imbalance;  /* mean */
    uint64_t over_cap; /* places above a max-connections */
};

static struct figures run_row(enum row row, double session, const struct extent *extent)
{
    const struct scenario scenario = {
        .name = policies[row].name,
        .policy = &policies[row],
        .weights = weights,
        .n_relays = sizeof weights / sizeof *weights,
        .per_weight = WORKLOAD_PER_WEIGHT,
        .max_connections = WORKLOAD_MAX_CONNECTIONS,
        .session = session,
        .load = WORKLOAD_LOAD,
        .seconds = extent->seconds,
    };
    struct result result = { 0 };
    struct figures figures;

    for (unsigned seed = 1; seed <= extent->seeds; seed++)
        world_run(&scenario, seed, &result);
    figures = (struct figures){ spread_mean(&result.imbalance), result.over_cap };
    printf("  %-36s %6.3f %6.3f %9.0f %7.0f %8.2f %9.1f\n", policies[row].name, figures.imbalance,
           spread_quantile(&result.imbalance, 0.99), spread_quantile(&result.wait, 0.5) * 1000,
           spread_quantile(&result.wait, 0.99) * 1000,
           (double)(result.refused + result.lost) * 100 / (double)result.sessions,
           spread_quantile(&result.slowdown, 0.99));
    (void)fflush(stdout);
    result_free(&result);
    return figures;
}

static void run_table(double session, const struct extent *extent, struct figures figures[ROWS])
{
    char title[80];

    (void)snprintf(title, sizeof title, "Policies: sessions of %g s, %u runs of %g s", session, extent->seeds,
                   extent->seconds);
    report_title(title);
    printf("  %-36s %13s %17s %8s %9s\n", "", "imbalance", "wait, ms", "refused", "slowdown");
    printf("  %-36s %6s %6s %9s %7s %8s %9s\n", "", "mean", "p99", "p50", "p99", "%", "p99");
    for (enum row row = 0; row < ROWS; row++)
        figures[row] = run_row(row, session, extent);
}

static uint64_t over_cap(const struct figures figures[ROWS])
{
    uint64_t sum = 0;

    for (enum row row = 0; row < ROWS; row++)
        if (policies[row].proxies == 1)
            sum += figures[row].over_cap;
    return sum;
}

void policies_run(const struct extent *extent)
{
    struct figures slow[ROWS], quick[ROWS];

    run_table(WORKLOAD_LONG, extent, slow);
    run_table(WORKLOAD_SHORT, extent, quick);
    report_title("  goals");
    report_at_most("ideal balancer, 5 s: off the reference by",
                   fabs(slow[ROW_IDEAL].imbalance - REFERENCE_IDEAL_LONG), REFERENCE_NEAR);
    report_at_most("ideal balancer, 0.5 s: off the reference by",
                   fabs(quick[ROW_IDEAL].imbalance - REFERENCE_IDEAL_SHORT), REFERENCE_NEAR);
    report_at_least("negative control: argmin of counts 1 s old", quick[ROW_ARGMIN_1000].imbalance, 1.5);
    report_at_most("one instance: places above a max-connections", (double)(over_cap(slow) + over_cap(quick)),
                   0);
}
