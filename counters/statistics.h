/*
 * This instance's cumulative counters in Redis, and those of the instances that are gone.
 *
 *     count() ──every 5 s──▶ stats:<id>  absolute, so that writing twice counts once
 *                                │  its connections have been gone for an hour: one script, by whoever
 * notices ▼ totals     and folded:<id> for 30 days
 *
 * What a counter has grown by is added up here, so a counter that begins again at zero takes nothing back. An
 * instance that was stopped for so long that others have folded it finds folded:<id>: it goes on under a new
 * id, with what it has counted since it last wrote.
 *
 * The control thread's. Times are ms, monotonic. The sorted set `stats` (id → last write, Unix ms) is how the
 * reaper finds those that have left `instances` with a bye.
 */
#ifndef WEIR_COUNTERS_STATISTICS_H
#define WEIR_COUNTERS_STATISTICS_H

#include "counters/redis.h"

#define STATISTICS_INTERVAL 5000             /* ms between two writes */
#define STATISTICS_FIELDS   32768            /* counters of one instance; the rest is not told */
#define REAPER_INTERVAL     (3 * 60 * 1000)  /* ms between two looks, and up to as much again */
#define REAPER_PATIENCE     (60 * 60 * 1000) /* ms without connections until an instance is folded */
#define REAPER_GONE_MAX     1024             /* ids that are watched at a time */

struct statistics;

struct statistics_ops {
    void *arg;
    /* Tell each counter with statistics_count(). */
    void (*count)(void *arg, struct statistics *statistics);
    /* Others have folded the counters of this id: take a new one (statistics_set_id()). */
    void (*folded)(void *arg);
    /* Something in Redis is not as it should be; "": all is well. `what` is static. */
    void (*complain)(void *arg, const char *what, const char *reason);
};

/* NULL: out of memory. */
struct statistics *statistics_create(const char *id, const struct statistics_ops *ops);
void statistics_free(struct statistics **statistics);

/* The connection for commands; NULL: there is none any more. `prefix`: "weir:{FARM}:", copied. Call it with
 * NULL before the connection is freed. Another prefix is another farm, which has no share in what was
 * counted. */
void statistics_connect(struct statistics *statistics, struct redis *commands, const char *prefix);
/* Another id has no share either in what was written under the one before. */
void statistics_set_id(struct statistics *statistics, const char *id);

/* Write and reap when it is time for it. Cheap. */
void statistics_tick(struct statistics *statistics, int64_t now);
/* Write now, for the last time; the answer comes by redis_outstanding(). */
void statistics_final(struct statistics *statistics);

/* Within count(): the counter `name` is at `value`. One that is told several times is the sum. */
void statistics_count(struct statistics *statistics, const char *name, uint64_t value);

#endif
