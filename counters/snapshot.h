/*
 * A snapshot: what one instance has, as it publishes it. Whole and absolute, so that a lost one heals with
 * the next. Pure.
 *
 * On the channel it is one JSON object, readable with `redis-cli SUBSCRIBE`:
 *
 *     {"schema":1,"id":"mx1-0badcafe","started":1790000000000,"seq":17,"sessions":12,"queued":0,
 *      "rates":{"relays":3.5},"held":{"relay1":8,"relay2":4},"limits":{"relay1":0,"relay2":40},"down":["relay3"],
 *      "replies":{"relay1":[812,40600,2436000]}}
 *
 * `limits` are the overload limits that it has found, 0 where it has seen replies and found none; `down` is
 * what it can't reach; `replies` are the replies to MAIL and RCPT that it has had since it began, the sum of
 * their times in ms, and of the squares of these. They need not stand in each one. `bye` takes the place of
 * all but the first four in the last one. What is read is hostile: whatever is not just that is refused
 * whole.
 */
#ifndef WEIR_COUNTERS_SNAPSHOT_H
#define WEIR_COUNTERS_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "balancer/backend.h"

#define SNAPSHOT_SCHEMA    1
#define SNAPSHOT_ID_MAX    64        /* with its NUL */
#define SNAPSHOT_NAME_MAX  256       /* of a backend or pool, with its NUL */
#define SNAPSHOT_ENTRIES   4096      /* backends, or pools */
#define SNAPSHOT_SIZE_MAX  (3 << 20) /* octets: so many with the longest names, and all said of each */
#define SNAPSHOT_COUNT_MAX 1000000   /* connections of one instance to one backend; more is a lie */
#define SNAPSHOT_RATE_MAX  1e6
#define SNAPSHOT_TOTAL_MAX (INT64_C(1) << 53) /* what JSON can carry everywhere */

struct snapshot_count {
    char *name;
    uint32_t count;
};
struct snapshot_rate {
    char *name;
    float rate; /* placements a second */
};
/* Since the beginning; they never fall. */
struct snapshot_replies {
    char *name;
    struct backend_replies totals;
};
struct snapshot {
    char id[SNAPSHOT_ID_MAX];
    int64_t started; /* Unix ms, of its own clock: with `seq` it orders its snapshots, and nothing else */
    uint64_t seq;
    uint64_t sessions, queued;
    bool bye;
    size_t n_held, n_rates, n_limits, n_down, n_replies;
    struct snapshot_count *held; /* only those that hold something need be there */
    struct snapshot_rate *rates;
    struct snapshot_count *limits;    /* by name, when read */
    char **down;                      /* sorted (strcmp), when read */
    struct snapshot_replies *replies; /* by name, when read */
};

/* Read one. False: it is malformed, or (*other_schema) of another version; nothing is left of it. */
bool snapshot_parse(struct snapshot *out, const char *text, size_t size, bool *other_schema);
/* The text, to be freed; NULL: out of memory. */
char *snapshot_format(const struct snapshot *snapshot);
void snapshot_clear(struct snapshot *snapshot);
/* Its limits by name, and what is down. */
void snapshot_sort(struct snapshot *snapshot);

/* Of the two, the later one of the same instance is to be believed. */
static inline bool snapshot_is_newer(int64_t started, uint64_t seq, int64_t than_started, uint64_t than_seq)
{
    return started > than_started || (started == than_started && seq > than_seq);
}

/* The replies of this name; NULL: none are told. Of one that was read. */
const struct snapshot_replies *snapshot_replies_of(const struct snapshot *snapshot, const char *name);

/* An id: letters, digits, '-', '.', '_'. */
bool snapshot_id_valid(const char *id, size_t size);

#endif
