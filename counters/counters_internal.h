/*
 * Inside the counters: what its files share.
 *
 *   counters.c   life, looking, states and their log lines
 *   enlist.c     whose counts they are
 *   apply.c      what the view means to the balancer and to health
 *   publish.c    this instance's counts, out
 *   pooled.c     replies of relays, out and in
 *   count.c      what this instance has done, for the statistics
 *   listen.c     the others', in: the channel, resync, operators' words
 *   clients_redis.c   sessions by client, out and in
 *   snapshot.c, keys.c, verdict.c, view.c   pure
 */
#ifndef WEIR_COUNTERS_COUNTERS_INTERNAL_H
#define WEIR_COUNTERS_COUNTERS_INTERNAL_H

#include <pthread.h>

#include "counters/clients_redis.h"
#include "counters/counters.h"
#include "counters/feedback.h"
#include "counters/redis.h"
#include "counters/statistics.h"
#include "counters/view.h"

#define COUNTERS_TICK       35   /* ms: the least time between two snapshots */
#define COUNTERS_LOOK       5    /* ms between two looks at the counts and the view while they move */
#define COUNTERS_EARLY      2    /* placements that are worth a snapshot before its time */
#define COUNTERS_ANEW       1000 /* ms between two allowances, over the instances: counters_apply() */
#define COUNTERS_RESYNC     5000 /* ms */
#define COUNTERS_RETRY      1000 /* ms until what Redis refused is said again */
#define COUNTERS_PREFIX_MAX 96
#define COUNTERS_KEY_MAX    (COUNTERS_PREFIX_MAX + SNAPSHOT_ID_MAX + SNAPSHOT_NAME_MAX)

/* A backend as the others call it, and what was last published of it. */
struct counted {
    struct backend *backend; /* the farm's */
    uint32_t published;
    char word[8]; /* the farm's operators' admin word in force; "": none */
    uint32_t weight;
    struct feedback feedback;
    uint32_t down, instances, limit; /* what others have found, and out of how many, as last told */
};

/* One that the farm has no more, as long as there are connections to it. */
struct left_behind {
    struct backend *backend; /* the farm's */
    uint32_t published;
};

/* An instance that was asked about at a resync. */
struct resync {
    struct counters *c;
    char id[SNAPSHOT_ID_MAX];
};

#define COUNTERS_COMPLAINTS 16
struct complaint {
    const char *what; /* NULL: free */
    char reason[128];
    int64_t told;
};

struct pool_rate {
    struct pool *pool;
    uint64_t placements; /* at the last look */
    float rate;          /* a second; an average that forgets within a second or so */
};

struct counters {
    struct ev_loop *loop;
    struct counters_ops ops;
    struct farm *farm;                 /* held */
    const struct config_redis *config; /* the farm's; url NULL: OFF */
    char *nameservers;                 /* as resolver_open() takes them; NULL: the system's */
    char prefix[COUNTERS_PREFIX_MAX];  /* "weir:{main}:" */
    char channel[COUNTERS_PREFIX_MAX + 8];
    char id[SNAPSHOT_ID_MAX];
    int64_t started; /* Unix ms */
    uint64_t seq;
    struct redis *commands, *events; /* NULL: OFF */
    ev_timer look;
    int pace;             /* ms to the next */
    int64_t connected_at; /* last seen so, by both */
    int64_t looked_at, ticked, allowed_at, published_at, verdicts_at, resynced_at, heard_at, queues_at,
        replies_at;
    uint64_t placements; /* of all pools, when last published */
    bool publishing, verdicts_due, resync_due, resync_asked, news;
    bool allowance_due;               /* there was news since it was counted anew */
    size_t resyncing;                 /* answers that are still to come */
    bool resync_lost, resync_refused; /* one of them did not, or was no use */
    size_t n_resyncs, resyncs_asked;
    struct resync *resyncs;
    struct inquiry *inquiries; /* listen.c's */
    /* Over these connections: the last snapshot; one of one's own was heard; the others were asked for. */
    bool accepted, refused, echoed, resynced;
    int64_t accepted_at; /* first */

    struct statistics *statistics;
    struct clients_redis *clients; /* NULL: none are counted */
    struct view view;
    size_t n;      /* by name */
    size_t n_told; /* of them, to the others: what a snapshot has room for */
    struct counted *counted;
    const char **names; /* [n], of `counted` */
    size_t n_left;      /* told beside them, as far as a snapshot has room */
    struct left_behind *left;
    uint32_t *others; /* [n], scratch */
    size_t n_pools;
    struct pool_rate *pools;

    struct complaint complaints[COUNTERS_COMPLAINTS];

    enum counters_state told; /* in the log */
    pthread_mutex_t status_lock;
    struct counters_status status; /* under it */
};

/* "weir:{farm}:what" or "weir:{farm}:what:id"; `id` may be NULL. Returns `key`. */
const char *counters_key(const struct counters *c, char key[COUNTERS_KEY_MAX], const char *what,
                         const char *id);
/* Another instance has this id, or its statistics were folded: a new one, which begins at zero. */
void counters_rename(struct counters *c, const char *why);
/* A snapshot was taken, or heard, or the others' were read: when all are so, and not before, counts are
 * shared. A Redis that can be reached and takes nothing (READONLY, OOM) is no better than none. */
void counters_join(struct counters *c);
/* A snapshot was refused as a whole. */
void counters_refused(struct counters *c, const char *reason);
/* Something is not as it should be in Redis: logged once for each reason, and again after five minutes or
 * when it comes back behind a "", which says that all is well. `what` is static. */
void counters_complain(struct counters *c, const char *what, const char *reason);

/* enlist.c */
/* The backends and pools that count from now on. False: out of memory, and all is as it was. */
bool counters_enlist(struct counters *c, const struct farm *farm);

/* apply.c */
/* What is known of the others, to the balancer: when there is news of them, and when their allowance is due.
 */
void counters_apply(struct counters *c, int64_t now);
/* Others have been heard since the last allowance, and it is time for another. */
bool counters_allows_anew(const struct counters *c, uint32_t instances, int64_t now);
/* What the others have found out, to health: twice a second, for it changes seldom. */
void counters_hear(struct counters *c, int64_t now);

#define POOLED_EVERY   250              /* ms, at least, between two reports of replies */
#define POOLED_OLDEST  3000             /* ms: what came in a longer time is no rate of this moment */
#define POOLED_MAX     1000000          /* replies between two reports of them; more is a lie, … */
#define POOLED_LONGEST (60 * 60 * 1000) /* … and so is a longer mean, ms */
/* pooled.c */
/* To what is published: not to the early ones, for they are many, and the replies are no news by themselves.
 */
void pooled_add(struct counters *c, struct snapshot *snapshot, int64_t now);
/* Redis is away: there will be none. */
void pooled_lose(struct counters *c);
/* From what is heard, before the view takes it over. */
void pooled_take(struct counters *c, const struct snapshot *next, int64_t now);

/* publish.c */
/* Fill in rates and decide; `now` in ms, monotonic. */
void publish_tick(struct counters *c, int64_t now);
void publish_bye(struct counters *c);

/* count.c */
/* False: out of memory. */
bool count_create(struct counters *c);

/* listen.c */
void listen_message(void *arg, const char *text, size_t size);
void listen_tick(struct counters *c, int64_t now);
/* The connection for commands has been freed: nothing will be answered. */
void listen_forget(struct counters *c);

#endif
