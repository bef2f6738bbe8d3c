/* Names and counters of the farm's statistics. */
#include <assert.h>

#include "balancer/farm.h"

static const char *const outcome_names[] = { "delivered", "rejected", "deferred",
                                             "failed",    "aborted",  "unknown" };
static_assert(sizeof outcome_names / sizeof *outcome_names == TRANSACTION_OUTCOMES,
              "a name for each outcome");

static const char *const phase_names[] = { "connect", "mail", "rcpt", "data", "end" };
static_assert(sizeof phase_names / sizeof *phase_names == REPLY_PHASES, "a name for each phase");

static const char *const refusal_names[] = { "full", "timeout", "displaced" };
static_assert(sizeof refusal_names / sizeof *refusal_names == QUEUE_REFUSALS, "a name for each reason");

const uint32_t histogram_bounds[HISTOGRAM_BUCKETS] = { 1,   2,    5,    10,    25,     50,    100,
                                                       250, 1000, 5000, 30000, 120000, 600000 };

const char *transaction_outcome_name(enum transaction_outcome outcome)
{
    return outcome_names[outcome];
}

const char *queue_refusal_name(enum queue_refusal reason)
{
    return refusal_names[reason];
}

const char *reply_phase_name(enum reply_phase phase)
{
    return phase_names[phase];
}

uint64_t pool_placements(const struct pool *pool)
{
    uint64_t placements = 0;

    /* Each is counted with the time it waited. */
    for (uint32_t w = 0; w < pool->state->workers; w++)
        for (size_t i = 0; i <= HISTOGRAM_BUCKETS; i++)
            placements +=
                atomic_load_explicit(&pool->state->stats[w].queue_wait.buckets[i], memory_order_relaxed);
    return placements;
}

void pool_set_news(struct pool *pool, const struct pool_news *news)
{
    struct pool_state *state = pool->state;

    atomic_store_explicit(&state->own_rate, news->own_rate, memory_order_relaxed);
    atomic_store_explicit(&state->others_at, news->others_at, memory_order_relaxed);
    atomic_store_explicit(&state->others_rate, news->others_rate, memory_order_relaxed);
    atomic_store_explicit(&state->others, news->others, memory_order_relaxed);
}

void histogram_add(struct histogram *histogram, uint32_t milliseconds)
{
    size_t bucket = 0;

    while (bucket < HISTOGRAM_BUCKETS && milliseconds > histogram_bounds[bucket])
        bucket++;
    stat_add(&histogram->buckets[bucket], 1);
    stat_add(&histogram->sum, milliseconds);
}
