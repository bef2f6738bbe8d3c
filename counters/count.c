/*
 * What this instance has done, told to the statistics: each backend's outcomes over all pools and workers,
 * under the name that all instances have for it, and what the program counts as a whole.
 */
#include <stdio.h>

#include "counters/counters_internal.h"

static void count_member(struct statistics *statistics, const struct member *member)
{
    char name[SNAPSHOT_NAME_MAX + 16];

    for (enum transaction_outcome o = 0; o < TRANSACTION_OUTCOMES; o++) {
        uint64_t n = 0;

        for (uint32_t w = 0; w < member->workers; w++)
            n += atomic_load_explicit(&member->stats[w].outcomes[o], memory_order_relaxed);
        (void)snprintf(name, sizeof name, "%s.%s", member->backend->full_name, transaction_outcome_name(o));
        statistics_count(statistics, name, n);
    }
}

/* Messages that never had a backend. */
static void count_pool(struct statistics *statistics, const struct pool_state *pool)
{
    static const enum transaction_outcome possible[] = { OUTCOME_FAILED, OUTCOME_ABORTED };
    char name[SNAPSHOT_NAME_MAX + 16];

    for (size_t i = 0; i < sizeof possible / sizeof *possible; i++) {
        uint64_t n = 0;

        for (uint32_t w = 0; w < pool->workers; w++)
            n += atomic_load_explicit(&pool->stats[w].outcomes[possible[i]], memory_order_relaxed);
        (void)snprintf(name, sizeof name, "pool:%s.%s", pool->name, transaction_outcome_name(possible[i]));
        statistics_count(statistics, name, n);
    }
}

static void count_all(void *arg, struct statistics *statistics)
{
    const struct counters *c = arg;
    const struct farm *farm = c->farm;

    for (size_t p = 0; p < farm->n_pools; p++) {
        count_pool(statistics, farm->pools[p].state);
        for (size_t m = 0; m < farm->pools[p].n_members; m++)
            count_member(statistics, farm->pools[p].members[m]);
    }
    for (size_t i = 0; i < farm->n_leaving; i++)
        count_member(statistics, farm->leaving[i].member);
    c->ops.count(c->ops.arg, statistics);
}

static void on_folded(void *arg)
{
    counters_rename(arg, "the counters of this instance were folded into the totals while it was away");
}

static void complain(void *arg, const char *what, const char *reason)
{
    counters_complain(arg, what, reason);
}

bool count_create(struct counters *c)
{
    c->statistics = statistics_create(c->id, &(struct statistics_ops){ c, count_all, on_folded, complain });
    return c->statistics != NULL;
}
