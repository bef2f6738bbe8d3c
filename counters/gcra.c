#include "counters/gcra.h"

struct gcra_limit gcra_limit(uint32_t n, uint32_t period_ms)
{
    int64_t interval = (int64_t)period_ms * GCRA_MILLISECOND / n;

    return (struct gcra_limit){ interval, interval * n };
}

int64_t gcra_take(const struct gcra_limit *limit, int64_t *full, int64_t now)
{
    int64_t next = (*full > now ? *full : now) + limit->interval;

    if (next - now > limit->period)
        return next - now - limit->period;
    *full = next;
    return 0;
}

void gcra_force(const struct gcra_limit *limit, int64_t *full, uint32_t n, int64_t now)
{
    int64_t most = now + 2 * limit->period, owed = *full > now ? *full : now;

    /* `n` may be any number, so nothing is multiplied that could overflow. */
    if (owed >= most || n >= (uint64_t)((most - owed) / limit->interval))
        *full = most;
    else
        *full = owed + (int64_t)n * limit->interval;
}
