/*
 * The farm: all pools with their backends as one configuration describes them. An immutable snapshot.
 *
 *     farm (one a configuration) ── pool ── member ── backend
 *
 * What has to survive a reload (a pool's wait queue, a member's counters, a backend's places and health) are
 * objects of their own that the snapshots share, matched by name.
 */
#ifndef WEIR_BALANCER_FARM_H
#define WEIR_BALANCER_FARM_H

#include "balancer/backend.h"
#include "config/config.h"

enum transaction_outcome {
    OUTCOME_DELIVERED, /* a backend said 2xx after the end of data, and the client was told */
    OUTCOME_REJECTED,  /* a backend said 5xx */
    OUTCOME_DEFERRED,  /* a backend said 4xx */
    OUTCOME_FAILED,    /* no backend could be had, or it was lost before the end of data */
    OUTCOME_ABORTED,   /* the client went away or broke off */
    OUTCOME_UNKNOWN,   /* the end of data was sent and no reply came */
};
#define TRANSACTION_OUTCOMES (OUTCOME_UNKNOWN + 1)
const char *transaction_outcome_name(enum transaction_outcome outcome);

enum reply_phase { PHASE_CONNECT, PHASE_MAIL, PHASE_RCPT, PHASE_DATA, PHASE_END };
#define REPLY_PHASES (PHASE_END + 1)
const char *reply_phase_name(enum reply_phase phase);

/* Upper bounds of the histogram buckets, ms; one more for everything above. */
#define HISTOGRAM_BUCKETS 13
extern const uint32_t histogram_bounds[HISTOGRAM_BUCKETS];

struct histogram {
    _Atomic uint64_t buckets[HISTOGRAM_BUCKETS + 1];
    _Atomic uint64_t sum; /* ms */
};

/* Counters of one member and one worker: a single writer, read by anyone, summed on read. */
struct member_stats {
    alignas(64) _Atomic uint64_t outcomes[TRANSACTION_OUTCOMES];
    struct histogram replies[REPLY_PHASES];
};

/* A backend's part in one pool. */
struct member {
    _Atomic uint32_t references;
    struct backend *backend; /* held */
    uint32_t workers;
    struct member_stats *stats;         /* [workers] */
    struct tls_resumption *resumptions; /* [workers], each its own thread's */
};
struct member *member_hold(struct member *member);
void member_release(struct member **member);

/* Why the queue refused somebody. */
enum queue_refusal {
    QUEUE_REFUSED_FULL,
    QUEUE_REFUSED_TIMEOUT,
    QUEUE_REFUSED_DISPLACED, /* gave its seat to another client, or to a higher priority */
};
#define QUEUE_REFUSALS (QUEUE_REFUSED_DISPLACED + 1)
const char *queue_refusal_name(enum queue_refusal reason);

struct pool_stats {
    /* Of transactions that never had a backend: failed as none could be had, or aborted while waiting. */
    alignas(64) _Atomic uint64_t outcomes[TRANSACTION_OUTCOMES];
    _Atomic uint64_t queue_refused[QUEUE_REFUSALS];
    struct histogram queue_wait;
};

#define POOL_OFFER_PATIENCE (10 * 60 * 1000) /* ms of agreement after which a keyword is offered again */

struct wait_queue;
struct pool_state;
struct pool_state *pool_state_hold(struct pool_state *state);
/* What survives of a pool. */
struct pool_state {
    _Atomic uint32_t references;
    char *name;
    struct wait_queue *queue;
    _Atomic uint64_t turn; /* round-robin: placements so far */
    /* News of the other instances' placements in this pool: per second, and the moment (ms, monotonic) that
     * their counts are of, in the mean. A rate of 0: there are no others, or none that place anything.
     * pool_set_news(). */
    _Atomic bool others; /* there are, or their places still count */
    _Atomic float own_rate, others_rate;
    _Atomic int64_t others_at;
    _Atomic bool panic;       /* too little is usable: ejected backends are better than none (health/) */
    _Atomic uint32_t offered; /* what EHLO offers, as far as it is usable: enum smtp_capability bits, by the
                                 control thread */
    _Atomic uint64_t offered_size;
    /* The control thread's alone, for pool_update_offer(). */
    bool offer_known; /* some backend's EHLO has been seen */
    /* ms; 0: its backends don't agree on this keyword, or it is offered */
    int64_t agreed_since[SMTP_CAPABILITY_BITS];
    uint64_t agreed_size;      /* a larger limit that may follow offered_size … */
    int64_t agreed_size_since; /* … if it lasts; 0: none */
    uint32_t workers;
    struct pool_stats *stats; /* [workers] */
};

/* Backends of one priority. Weight is what the configuration gives them, so that what is usable can be
 * compared with it. */
struct pool_tier {
    size_t first, n;      /* in `members` */
    uint64_t milliweight; /* the sum */
};

struct algorithm;
struct pool {
    const struct config_pool *config;
    struct pool_state *state; /* held */
    const struct algorithm *algorithm;
    size_t n_members;
    struct member **members; /* held; by priority, then in the order of the configuration */
    size_t n_tiers;
    struct pool_tier *tiers;
};

/* What the configuration says of a backend of the farm. */
struct farm_given {
    const struct config_backend *config;
    struct address address; /* length 0: a name that is not resolved yet */
    const char *unresolved; /* why it is not, static; NULL: the answer is awaited */
    struct address agent;   /* who is asked what it can take; length 0: nobody, or not known */
};

/* A member of the farm before that this one has no more. */
struct farm_leaving {
    struct member *member;   /* held */
    struct pool_state *pool; /* held; the one that it was in */
};

struct farm {
    _Atomic uint32_t references;
    uint64_t serial;       /* higher than that of every farm made before */
    struct config *config; /* held */
    size_t n_pools;        /* in the order of config->pools */
    struct pool *pools;
    /* In the order of config->backends; of a name with several addresses one for each. */
    size_t n_backends;
    struct backend **backends;
    struct farm_given *given; /* [n_backends], of each backend */
    /* [config->n_backends + 1]: those of config->backends[i] are backends[first[i] … first[i + 1] − 1]. */
    size_t *first;
    bool *loops; /* [config->n_backends]: the name has an address that is one of Weir's own listeners, left
                    out */
    size_t n_leaving; /* as long as there may be connections to them */
    struct farm_leaving *leaving;
};

/* What is known of a host name. */
struct name_answer {
    size_t n; /* 0: nothing is known yet */
    struct address *addresses;
    const char *error; /* why there is none, static; NULL: the first answer is awaited */
};

/* Who knows: health/names.h, which is a floor above. */
struct name_source {
    /* Valid until the farm is made; NULL: never heard of it. */
    const struct name_answer *(*find)(const void *arg, const char *host, uint16_t port);
    const void *arg;
};

/* Build the snapshot for `config` (a reference is taken) and the addresses that `names` knows (NULL: none),
 * taking over from `old` (may be NULL) everything of the same identity. Nothing that workers see of the old
 * objects changes yet. NULL when memory is out. */
struct farm *farm_create_found(struct config *config, const struct name_source *names, struct farm *old);
/* The same where nothing has been found by name. */
struct farm *farm_create(struct config *config, struct farm *old);
/* The new snapshot counts: settings (weight, ceiling inputs, priority, addresses) of its backends are now
 * those of its configuration, and those that have left get nothing new. Control thread, when nothing can fail
 * any more. Health publishes ceilings and weights anew behind it; only those that no check has judged yet
 * (INIT) get them here. */
void farm_commit(struct farm *farm);
/* One line for each name whose addresses are others than in `old`, where it was given by name too. */
void farm_log_members(const struct farm *farm, const struct farm *old);
struct farm *farm_hold(struct farm *farm);
void farm_release(struct farm **farm);

/* Placements in this pool so far, over all workers. */
uint64_t pool_placements(const struct pool *pool);
/* News of the others: their places are the backends' news. Control thread. */
struct pool_news {
    bool others; /* there are, or their places still count */
    float own_rate, others_rate;
    int64_t others_at;
};
void pool_set_news(struct pool *pool, const struct pool_news *news);

/* Add to a single-writer counter. */
static inline void stat_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
void histogram_add(struct histogram *histogram, uint32_t milliseconds);

/* What the pool offers in EHLO (smtp.md "Extensions"): recomputed by the control thread when a backend's
 * state or capabilities change; a keyword goes at once and returns when its backend comes up again or after
 * 10 minutes of agreement. `now` in ms, monotonic. `backend_came_up`: some member has just become usable. The
 * ten minutes are noticed only when this is called: call it also after checks that changed nothing. Backends
 * whose EHLO was never seen have no say. */
void pool_update_offer(struct pool *pool, int64_t now, bool backend_came_up);
struct smtp_capabilities pool_offer(const struct pool *pool);

#endif
