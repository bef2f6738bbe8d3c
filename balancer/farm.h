/*
 * The farm: all pools with their backends as one configuration describes them. An immutable snapshot.
 *
 *     farm (one a configuration) ── pool ── member ── backend
 *
 * What has to survive a reload (a pool's wait queue, a member's counters, a backend's places and health) are objects of their
 * own that the snapshots share, matched by name.
 */
#ifndef WEIR_BALANCER_FARM_H
#define WEIR_BALANCER_FARM_H

#include "balancer/backend.h"
#include "config/config.h"

enum transaction_outcome {
    OUTCOME_DELIVERED, /* a backend said 2xx after the end of data, and the client was told */
    OUTCOME_REJECTED,  /* a backend said 5xx */
    OUTCOME_DEFERRED,  /* a backend said 4xx, or was lost before the end of data */
    OUTCOME_FAILED,    /* no backend could be had */
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
    struct member_stats *stats; /* [workers] */
};
struct member *member_hold(struct member *member);
void member_release(struct member **member);

struct pool_stats {
    alignas(64) _Atomic uint64_t failed; /* transactions for which no backend could be had */
    struct histogram queue_wait;
};

struct wait_queue;
/* What survives of a pool. */
struct pool_state {
    _Atomic uint32_t references;
    char *name;
    struct wait_queue *queue;
    _Atomic uint64_t turn;              /* round-robin: placements so far */
    _Atomic uint32_t offered;           /* what EHLO offers: enum smtp_capability bits, by the control thread */
    _Atomic uint64_t offered_size;
    uint32_t workers;
    struct pool_stats *stats; /* [workers] */
};

struct algorithm;
struct pool {
    const struct config_pool *config;
    struct pool_state *state; /* held */
    const struct algorithm *algorithm;
    size_t n_members;
    struct member **members; /* held */
};

struct farm {
    _Atomic uint32_t references;
    struct config *config; /* held */
    size_t n_pools;        /* in the order of config->pools */
    struct pool *pools;
    size_t n_backends; /* in the order of config->backends */
    struct backend **backends;
};

/* Build the snapshot for `config` (a reference is taken), taking over from `old` (may be NULL) everything of the same name.
 * Nothing that workers see of the old objects changes yet. NULL when memory is out. */
struct farm *farm_create(struct config *config, struct farm *old);
/* The new snapshot counts: settings (weight, ceiling inputs, priority, literal addresses) of its backends are now those of its
 * configuration. Control thread, when nothing can fail any more. Health publishes ceilings and weights anew behind it. */
void farm_commit(struct farm *farm);
struct farm *farm_hold(struct farm *farm);
void farm_release(struct farm **farm);

/* Add to a single-writer counter. */
static inline void stat_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}
void histogram_add(struct histogram *histogram, uint32_t milliseconds);

/* What the pool offers in EHLO (smtp.md "Extensions"): recomputed by the control thread when a backend's state or
 * capabilities change; a keyword goes at once and returns when its backend comes up again or after 10 minutes of agreement. `now`
 * in ms, monotonic. `backend_came_up`: some member has just become usable. */
void pool_update_offer(struct pool *pool, int64_t now, bool backend_came_up);
struct smtp_capabilities pool_offer(const struct pool *pool);

#endif
