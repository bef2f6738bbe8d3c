/* What the passive signs are for: a relay that says no to everybody at once, and mail that every relay
 * refuses. */
#include <stdio.h>

#include "tests/sim/report.h"
#include "tests/sim/workload.h"
#include "tests/sim/world.h"

#define FROM    120
#define SECONDS 60
#define FEW     20 /* sessions that may meet it before it is out */

static const uint32_t weights[] = WORKLOAD_RELAYS;

static void be_busy(struct world *world, struct relay *relay)
{
    (void)world;
    relay->mood = RELAY_BUSY;
}

static void be_busy_at_mail(struct world *world, struct relay *relay)
{
    (void)world;
    relay->mood = RELAY_BUSY_ENVELOPE;
}

static void be_well(struct world *world, struct relay *relay)
{
    (void)world;
    relay->mood = RELAY_WELL;
}

static void refuse_mail(struct world *world, struct relay *relay)
{
    (void)relay;
    for (size_t i = 0; i < world->n_relays; i++)
        world->relays[i].mood = RELAY_REFUSES_MAIL;
}

static void accept_mail(struct world *world, struct relay *relay)
{
    (void)relay;
    for (size_t i = 0; i < world->n_relays; i++)
        world->relays[i].mood = RELAY_WELL;
}

struct row {
    const char *name;
    const struct policy *policy;
    void (*begin)(struct world *world, struct relay *relay);
    void (*end)(struct world *world, struct relay *relay);
};

static struct result run_row(const struct row *row, unsigned seeds)
{
    const struct scenario scenario = {
        .name = row->name,
        .policy = row->policy,
        .weights = weights,
        .n_relays = sizeof weights / sizeof *weights,
        .per_weight = WORKLOAD_PER_WEIGHT,
        .max_connections = WORKLOAD_MAX_CONNECTIONS,
        .session = WORKLOAD_LONG,
        .load = WORKLOAD_LOAD,
        .seconds = FROM + SECONDS + 60,
        .from = FROM,
        .until = FROM + SECONDS,
        .begin = row->begin,
        .end = row->end,
    };
    struct result result = { 0 };

    for (unsigned seed = 1; seed <= seeds; seed++)
        world_run(&scenario, seed, &result);
    printf("  %-44s %9.1f %9.1f %9.1f %9.1f %8.2f\n", row->name, (double)result.attempts / seeds,
           (double)result.attempts_unjudged / seeds, (double)result.ejections / seeds,
           (double)result.downs / seeds,
           (double)(result.refused + result.lost) * 100 / (double)result.sessions);
    (void)fflush(stdout);
    return result;
}

void trouble_run(const struct extent *extent)
{
    const struct row rows[] = {
        {"421 to every connection",               &policy_ideal, be_busy,         be_well    },
        { "421 to every connection, 8 proxies",   &policy_local, be_busy,         be_well    },
        { "421 to every MAIL, checks pass",       &policy_ideal, be_busy_at_mail, be_well    },
        { "every message refused by every relay", &policy_ideal, refuse_mail,     accept_mail},
    };
    struct result results[4];

    report_title("Relays that say no for 60 s, per run");
    printf("  %-44s %9s %9s %9s %9s %8s\n", "", "sessions", "before", "ejec-", "down", "refused");
    printf("  %-44s %9s %9s %9s %9s %8s\n", "", "sent there", "it is out", "tions", "", "%");
    for (size_t i = 0; i < 4; i++)
        results[i] = run_row(&rows[i], extent->seeds);
    report_title("  goals");
    for (size_t i = 0; i < 3; i++) {
        double proxies = extent->seeds * (double)rows[i].policy->proxies;

        report_at_most(rows[i].name, (double)results[i].attempts_unjudged / proxies, FEW);
    }
    report_at_most("refused mail: ejections", (double)(results[3].ejections + results[3].downs), 0);
    for (size_t i = 0; i < 4; i++)
        result_free(&results[i]);
}
