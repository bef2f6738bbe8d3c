/*
 * Counters shared through Redis, so that several instances balance, cap and report as one
 * (balancing.md "Redis protocol").
 *
 *     own counts ──every interval──▶ MULTI … PUBLISH ──▶ Redis ──▶ the other instances
 *     the view   ◀── their snapshots, from the channel and by resync ──┘
 *        └─▶ backend_set_news(), pool_set_news(): what placement looks at
 *
 * All of it is the control thread's. Workers never wait for Redis: they see numbers that change now and then.
 * Without Redis, or while it is away for longer than the view holds, an instance counts by itself.
 */
#ifndef WEIR_COUNTERS_COUNTERS_H
#define WEIR_COUNTERS_COUNTERS_H

#include <ev.h>

#include "balancer/farm.h"
#include "counters/clients.h"
#include "counters/rate_redis.h"
#include "counters/statistics.h"

enum counters_state {
    COUNTERS_OFF,    /* no Redis is configured */
    COUNTERS_SHARED, /* the others are heard */
    COUNTERS_HELD,   /* Redis is away: the last view holds for 30 s */
    COUNTERS_LOCAL,  /* … and now a share of each cap, and nothing is known of the others */
    COUNTERS_REJOIN, /* it is back: the instances of the last view have 10 s to be heard again */
};
#define COUNTERS_STATES (COUNTERS_REJOIN + 1)
const char *counters_state_name(enum counters_state state);

/* What it has to be told, and tells. Called on the control thread. */
struct counters_ops {
    void *arg;
    struct rate_redis *rates; /* the bank of rate limits, which gets the connection; NULL: none */
    struct clients *clients;  /* sessions by client; NULL: none */
    /* Sessions of clients open, and waiting for a place. */
    void (*load)(void *arg, uint64_t *sessions, uint64_t *queued);
    /* What this instance thinks of a backend, for people and for the others (counters/verdict.h), cut to
     * size. */
    void (*verdict)(void *arg, const struct backend *backend, char *out, size_t size);
    /* Whether this instance can't reach it, and the overload limit that it has found for it: 0 where it has
     * seen replies and found none, UINT32_MAX where it has seen neither these nor a 421. */
    void (*finding)(void *arg, const struct backend *backend, bool *down, uint32_t *limit);
    /* The replies to MAIL and RCPT that this instance has had from it since it began. False: nobody needs
     * them. */
    bool (*replies)(void *arg, const struct backend *backend, struct backend_replies *totals);
    /* Another instance has had so many more; NULL: nobody will be heard for a time. */
    void (*hear_replies)(void *arg, struct backend *backend, const struct backend_replies *more);
    /* What others have found, as in health_hear(). */
    void (*hear)(void *arg, struct backend *backend, uint32_t down, uint32_t instances, uint32_t limit);
    /* Cumulative counters that are not a backend's: tell each with statistics_count(). */
    void (*count)(void *arg, struct statistics *statistics);
    /* A relay's own word, by its queue (counters/feedback.h): thousandths of its weight. */
    void (*queue)(void *arg, struct backend *backend, enum backend_admin admin, uint32_t share);
    /* An operator's word for the farm on a backend; NULL: it is taken back. `weight` UINT32_MAX: none. */
    void (*word)(void *arg, struct backend *backend, const char *admin, uint32_t weight);
};

/* What it is like, for /metrics and status. Any thread. */
struct counters_status {
    enum counters_state state;
    uint32_t instances; /* live, this one too */
    char id[64];
    char server[128]; /* as it is configured, without a password, until one was reached */
    char reason[192]; /* "" when all is well */
    int64_t since;    /* Unix ms */
    uint64_t published, received, refused; /* snapshots; refused: malformed or of another schema */
};

struct counters;

/* NULL: out of memory. `nameservers`: as resolver_open() takes them. */
struct counters *counters_open(struct ev_loop *loop, const struct counters_ops *ops);
/* The farm in force; its configuration says where Redis is. Holds the farm. */
void counters_set_farm(struct counters *counters, struct farm *farm);
/* What is thought of a backend has changed: the others hear of it soon. NULL is fine. */
void counters_hurry(struct counters *counters);
/* Say bye, wait for the answer for half a second at most, and close. Clears the pointer; NULL is fine. */
void counters_close(struct counters **counters);

/* NULL is fine: OFF. */
void counters_status(const struct counters *counters, struct counters_status *out);

#endif
