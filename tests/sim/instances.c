/* Several instances that share their counts through Redis: how near they come to one balancer, how well they
 * keep to a max-connections together, and what becomes of both when one is killed, and when Redis goes. */
#include <stdio.h>
#include <string.h>

#include "tests/sim/redis.h"
#include "tests/sim/report.h"
#include "tests/sim/shared.h"
#include "tests/sim/workload.h"
#include "tests/sim/world.h"

#define NEAR_MEAN 1.03 /* of one ideal balancer: eight instances … */
#define NEAR_P99  1.05
/* What eight come to with short sessions. */
#define SHORT_MEAN 1.05
#define SHORT_P99  1.10

#define NEAR_MANY    1.09 /* … and thirty-two */
#define PUBLICATIONS 30   /* a second, of one */
#define OVER_TIME    0.01 /* of the time of all relays */
#define OVER_MOST    1.4  /* times its max-connections */

static const uint32_t weights[] = WORKLOAD_RELAYS;

struct figures {
    double mean, p99;    /* imbalance */
    double over, most;   /* share of time above a max-connections; the most there */
    double publications; /* a second and instance */
    double refused;
};

static struct figures run(const struct scenario *scenario, unsigned seeds)
{
    struct result result = { 0 };
    struct figures figures;

    for (unsigned seed = 1; seed <= seeds; seed++)
        world_run(scenario, seed, &result);
    figures = (struct figures){
        .mean = spread_mean(&result.imbalance),
        .p99 = spread_quantile(&result.imbalance, 0.99),
        .over = result.over_time / result.relay_time,
        .most = result.over_most,
        .publications = (double)result.publications / result.proxy_time,
        .refused = (double)(result.refused + result.lost) / (double)result.sessions,
    };
    printf("  %-36s %6.3f %6.3f %9.0f %7.0f %8.3f %8.3f %7.2f %7.1f\n", scenario->name, figures.mean,
           figures.p99, spread_quantile(&result.wait, 0.5) * 1000, spread_quantile(&result.wait, 0.99) * 1000,
           figures.refused * 100, figures.over * 100, figures.most, figures.publications);
    (void)fflush(stdout);
    result_free(&result);
    return figures;
}

static void header(void)
{
    printf("  %-36s %13s %17s %8s %16s %7s\n", "", "imbalance", "wait, ms", "refused", "over its cap",
           "reports");
    printf("  %-36s %6s %6s %9s %7s %8s %8s %7s %7s\n", "", "mean", "p99", "p50", "p99", "%", "time, %",
           "most", "a s");
}

static struct scenario of_policy(const struct policy *policy, double session, double seconds)
{
    return (struct scenario){
        .name = policy->name,
        .policy = policy,
        .weights = weights,
        .n_relays = sizeof weights / sizeof *weights,
        .per_weight = WORKLOAD_PER_WEIGHT,
        .max_connections = WORKLOAD_MAX_CONNECTIONS,
        .session = session,
        .load = WORKLOAD_LOAD,
        .seconds = seconds,
    };
}

/* --- how many, how often ----------------------------------------------------------------------------------
 */

#define SHARED(text, instances, interval)                                                                    \
    {                                                                                                        \
        .name = text, .proxies = instances, .algorithm = "least-connections", .publish_interval = interval   \
    }

enum row { ROW_2_250, ROW_8_100, ROW_8_250, ROW_8_1000, ROW_32_100, ROW_32_250, ROW_32_1000 };
#define ROWS (ROW_32_1000 + 1)

static const struct policy policies[ROWS] = {
    [ROW_2_250] = SHARED("2, every 250 ms", 2, 250),    [ROW_8_100] = SHARED("8, every 100 ms", 8, 100),
    [ROW_8_250] = SHARED("8, every 250 ms", 8, 250),    [ROW_8_1000] = SHARED("8, every 1 s", 8, 1000),
    [ROW_32_100] = SHARED("32, every 100 ms", 32, 100), [ROW_32_250] = SHARED("32, every 250 ms", 32, 250),
    [ROW_32_1000] = SHARED("32, every 1 s", 32, 1000),
};

/* Thirty-two hear a thousand reports where eight hear sixty. */
static struct extent extent_of(enum row row, const struct extent *extent)
{
    if (policies[row].proxies <= WORKLOAD_PROXIES)
        return *extent;
    return (struct extent){ .seeds = extent->seeds < 2 ? extent->seeds : 2,
                            .seconds = extent->seconds < 150 ? extent->seconds : 150 };
}

static void compare(const char *what, double value, double ideal, double goal, double at_worst)
{
    char name[80];

    (void)snprintf(name, sizeof name, "%s, times the ideal balancer's", what);
    if (at_worst > 0)
        report_short(name, value / ideal, goal, at_worst);
    else
        report_at_most(name, value / ideal, goal);
}

static void judge(const char *how_many, const struct figures *figures)
{
    char name[80];

    (void)snprintf(name, sizeof name, "%s: reports of an instance, a second", how_many);
    report_at_most(name, figures->publications, PUBLICATIONS);
    (void)snprintf(name, sizeof name, "%s: share of time above a max-connections", how_many);
    report_at_most(name, figures->over, OVER_TIME);
    (void)snprintf(name, sizeof name, "%s: the most, times a max-connections", how_many);
    report_at_most(name, figures->most, OVER_MOST);
}

static void run_table(double session, const struct extent *extent)
{
    struct figures ideal, rows[ROWS];
    struct scenario scenario = of_policy(&policy_ideal, session, extent->seconds);
    bool quick = session < WORKLOAD_LONG;
    char title[80];

    (void)snprintf(title, sizeof title, "Instances that share their counts: sessions of %g s", session);
    report_title(title);
    header();
    ideal = run(&scenario, extent->seeds);
    for (enum row row = 0; row < ROWS; row++) {
        struct extent own = extent_of(row, extent);

        if (!extent->full && row != ROW_8_250)
            continue;
        scenario = of_policy(&policies[row], session, own.seconds);
        rows[row] = run(&scenario, own.seeds);
    }
    report_title("  goals");
    compare("8, mean imbalance", rows[ROW_8_250].mean, ideal.mean, NEAR_MEAN, quick ? SHORT_MEAN : 0);
    compare("8, p99", rows[ROW_8_250].p99, ideal.p99, NEAR_P99, quick ? SHORT_P99 : 0);
    judge("8", &rows[ROW_8_250]);
    if (!extent->full)
        return;
    compare("32, mean imbalance", rows[ROW_32_250].mean, ideal.mean, NEAR_MANY, 0);
    judge("32", &rows[ROW_32_250]);
}

void instances_run(const struct extent *extent)
{
    run_table(WORKLOAD_LONG, extent);
    run_table(WORKLOAD_SHORT, extent);
}

/* --- one is killed ----------------------------------------------------------------------------------------
 */

#define FROM  60.0
#define LEASE 3.0 /* s, the standard one */

static double gone_after; /* s until nobody counted it any more; 0: not yet */

static void kill_first(struct world *world, struct relay *relay)
{
    (void)relay;
    gone_after = 0;
    proxy_kill(&world->proxies[0]);
}

static void look_for_it(struct world *world)
{
    if (!world->proxies[0].dead || gone_after > 0)
        return;
    for (size_t i = 1; i < world->n_proxies; i++)
        if (shared_instances(&world->proxies[i]) != world->n_proxies - 1)
            return;
    gone_after = calendar_now() - world->start - FROM;
}

void crash_run(const struct extent *extent)
{
    struct scenario scenario = of_policy(&policy_shared, WORKLOAD_LONG, 120);
    struct figures figures;

    report_title("Of eight instances the one with most clients is killed");
    header();
    scenario.name = "8, every 250 ms";
    scenario.from = FROM;
    scenario.until = FROM + 30;
    scenario.begin = kill_first;
    scenario.look = look_for_it;
    figures = run(&scenario, extent->full ? extent->seeds : 1);
    report_title("  goals");
    report_at_most("s until nobody counts it any more", gone_after > 0 ? gone_after : HUGE_VAL, LEASE + 1);
    report_at_most("sessions refused, %", figures.refused * 100, 0.1);
    report_at_most("share of time above a max-connections", figures.over, OVER_TIME);
}

/* --- Redis goes -------------------------------------------------------------------------------------------
 */

static unsigned states[COUNTERS_STATES];

static void stop_redis(struct world *world, struct relay *relay)
{
    (void)world;
    (void)relay;
    memset(states, 0, sizeof states);
    redis_server_stop();
}

static void start_redis(struct world *world, struct relay *relay)
{
    (void)world;
    (void)relay;
    redis_server_start();
}

static void look_at_states(struct world *world)
{
    for (size_t i = 0; i < world->n_proxies; i++) {
        struct counters_status status;

        counters_status(world->proxies[i].counters, &status);
        states[status.state]++;
    }
}

void outage_run(const struct extent *extent)
{
    struct scenario scenario = of_policy(&policy_shared, WORKLOAD_LONG, 180);
    struct figures figures;

    report_title("Redis is away for 60 s");
    header();
    scenario.name = "8, every 250 ms";
    scenario.from = FROM;
    scenario.until = FROM + 60;
    scenario.begin = stop_redis;
    scenario.end = start_redis;
    scenario.look = look_at_states;
    figures = run(&scenario, extent->full ? extent->seeds : 1);
    printf("  after it went an instance was shared %.0f s, held %.0f s, local %.0f s, rejoining %.0f s\n",
           states[COUNTERS_SHARED] / 80., states[COUNTERS_HELD] / 80., states[COUNTERS_LOCAL] / 80.,
           states[COUNTERS_REJOIN] / 80.);
    report_title("  goals");
    report_at_most("sessions refused, %", figures.refused * 100, 0.1);
    report_at_most("share of time above a max-connections", figures.over, OVER_TIME);
    report_at_most("the most, times a max-connections", figures.most, OVER_MOST);
    report_at_least("s with the last view, an instance", states[COUNTERS_HELD] / 80., 29);
    report_at_least("s by itself", states[COUNTERS_LOCAL] / 80., 29);
    report_at_least("s shared, afterwards", states[COUNTERS_SHARED] / 80., 40);
}
