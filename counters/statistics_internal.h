/*
 * Inside the statistics:
 *
 *   statistics.c  this instance's counters, out
 *   reaper.c      those of the instances that are gone, into the totals
 */
#ifndef WEIR_COUNTERS_STATISTICS_INTERNAL_H
#define WEIR_COUNTERS_STATISTICS_INTERNAL_H

#include "counters/snapshot.h"
#include "counters/statistics.h"

#define STATISTICS_PREFIX_MAX 96
#define STATISTICS_KEY_MAX    (STATISTICS_PREFIX_MAX + 16 + SNAPSHOT_ID_MAX)

struct statistics_field {
    char *name;
    uint64_t told;  /* at this look */
    uint64_t last;  /* at the last */
    uint64_t total; /* what it has grown by under this id */
    uint64_t sent;  /* of it, what has been written */
    uint64_t due;   /* what the write under way says */
};

/* An instance without connections. */
struct reaper_gone {
    char id[SNAPSHOT_ID_MAX];
    int64_t since;
    bool found; /* at this look */
};

struct reaper {
    struct statistics *statistics;
    int64_t next; /* look; 0: not decided yet */
    bool busy;
    size_t n;
    struct reaper_gone *gone; /* [REAPER_GONE_MAX] */
    size_t n_ids;
    char (*ids)[SNAPSHOT_ID_MAX]; /* [REAPER_GONE_MAX]; that were asked about, in order */
};

struct statistics {
    struct statistics_ops ops;
    struct redis *redis; /* NULL: none */
    char prefix[STATISTICS_PREFIX_MAX];
    char id[SNAPSHOT_ID_MAX];
    int64_t now, written_at;
    bool writing, ever; /* ever: something was written */
    size_t n, capacity;
    struct statistics_field *fields; /* by name */
    struct reaper reaper;
};

/* "weir:{FARM}:what", or with ":id" behind it. Returns `key`. */
const char *statistics_key(const struct statistics *s, char key[STATISTICS_KEY_MAX], const char *what,
                           const char *id);

bool reaper_init(struct reaper *reaper, struct statistics *statistics);
void reaper_free(struct reaper *reaper);
/* The connection is another: what was asked will not be answered. */
void reaper_reset(struct reaper *reaper);
void reaper_tick(struct reaper *reaper, int64_t now);

#endif
