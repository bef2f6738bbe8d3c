/*
 * How much of a limit is left: the generic cell rate algorithm, in the form of a virtual clock. Pure.
 *
 * All that is kept is the moment at which the allowance will be full again. Taking puts it off, by one
 * interval for each that is taken; time brings it nearer. So the allowance comes back evenly, and whoever has
 * been quiet for a whole period may take all of it at once.
 *
 *      now            full
 *       ├──────────────┤            taken: (full − now) / interval
 *       ├────────────────────────┤  period: nothing is left
 *
 * Times are nanoseconds of any clock that does not go back. (The script of rate_redis.c does the same by
 * Redis's.)
 */
#ifndef WEIR_COUNTERS_GCRA_H
#define WEIR_COUNTERS_GCRA_H

#include <stdint.h>

#define GCRA_MILLISECOND INT64_C(1000000)

struct gcra_limit {
    int64_t interval; /* between two */
    int64_t period;   /* for all: a multiple of the interval */
};

/* `n` (at least 1) in `period_ms` (at least 1). The period is shortened by less than `n` nanoseconds where it
 * can't be divided. No more than a million a second: then nothing is lost to rounding that anybody counts. */
struct gcra_limit gcra_limit(uint32_t n, uint32_t period_ms);

/* Take one, or nothing: 0, or how long until there is one. A `*full` of 0, or of long ago, is a full
 * allowance. */
int64_t gcra_take(const struct gcra_limit *limit, int64_t *full, int64_t now);
/* Take `n`, whether they are there or not. What is owed never takes longer than two periods to come back. */
void gcra_force(const struct gcra_limit *limit, int64_t *full, uint32_t n, int64_t now);

#endif
