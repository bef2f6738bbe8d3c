/* Names and counters of the farm's statistics. */
#include <assert.h>

#include "balancer/farm.h"

static const char *const outcome_names[] = { "delivered", "rejected", "deferred",
                                             "failed",    "aborted",  "unknown" };
static_assert(sizeof outcome_names / sizeof *outcome_names == TRANSACTION_OUTCOMES,
              "a name for each outcome");

static const char *const phase_names[] = { "connect", "mail", "rcpt", "data", "end" };
static_assert(sizeof phase_names / sizeof *phase_names == REPLY_PHASES, "a name for each phase");

const uint32_t histogram_bounds[HISTOGRAM_BUCKETS] = { 1,   2,    5,    10,    25,     50,    100,
                                                       250, 1000, 5000, 30000, 120000, 600000 };

const char *transaction_outcome_name(enum transaction_outcome outcome)
{
    return outcome_names[outcome];
}

const char *reply_phase_name(enum reply_phase phase)
{
    return phase_names[phase];
}

void histogram_add(struct histogram *histogram, uint32_t milliseconds)
{
    size_t bucket = 0;

    while (bucket < HISTOGRAM_BUCKETS && milliseconds > histogram_bounds[bucket])
        bucket++;
    stat_add(&histogram->buckets[bucket], 1);
    stat_add(&histogram->sum, milliseconds);
}
