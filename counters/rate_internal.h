/*
 * Inside a rate limit: a rule's buckets (rate_table.c), and what is done to them (rate.c).
 */
#ifndef WEIR_COUNTERS_RATE_INTERNAL_H
#define WEIR_COUNTERS_RATE_INTERNAL_H

#include <pthread.h>
#include <stdalign.h>

#include "counters/gcra.h"
#include "counters/rate.h"

#define RATE_SHARDS 16
#define RATE_HEADS  1024 /* chains a shard */

/* What one has used of one amount. Times are nanoseconds. */
struct account {
    int64_t full;       /* by this instance's own count: gcra.h */
    int64_t lapses;     /* the lease at hand */
    int64_t asked_at;   /* the last request; 0: none yet */
    int64_t wait_until; /* the bank has none before then */
    int64_t away_until; /* the bank could not answer: it is left alone for a while */
    uint32_t leased;    /* tokens at hand */
    uint32_t credit;    /* taken, and not booked or asked to be */
    uint32_t left;      /* of a lease that lapsed */
    uint32_t block;     /* what was last asked for */
    uint32_t booking;   /* of the credit, what the request is about */
    bool asked;         /* the request is out */
    struct rate_request request;
};

struct bucket {
    struct bucket *next; /* in its chain */
    struct rate *rate;
    uint64_t hash;
    size_t index; /* among the shard's */
    int64_t tell_at;
    uint32_t untold; /* refusals */
    struct account accounts[RATE_WHATS];
    size_t size;
    char who[];
};

struct shard {
    alignas(64) pthread_mutex_t lock;
    struct bucket *heads[RATE_HEADS];
    struct bucket **buckets; /* all of them */
    size_t n, capacity;
    size_t hand; /* where to look next for one that is not needed */
};

struct rate {
    _Atomic uint32_t references;
    uint64_t serial;
    char *name;
    enum config_limit_by by;
    struct config_rate amounts[RATE_WHATS];
    struct gcra_limit limits[RATE_WHATS]; /* where the amount is not 0 */
    struct rate_bank *bank;               /* NULL: none */
    _Atomic uint64_t refused[RATE_WHATS];
    _Atomic int64_t told; /* by gcra.h: the lines of the log */
    uint64_t key[2];
    struct shard shards[RATE_SHARDS];
};

struct shard *rate_shard(struct rate *rate, uint64_t hash);
/* With the shard's lock held. NULL: there is none, and none can be made. */
struct bucket *rate_bucket(struct rate *rate, uint64_t hash, const char *who, size_t size, int64_t now);
/* The same, but none is made. */
struct bucket *rate_find(struct rate *rate, uint64_t hash, const char *who, size_t size);
void rate_table_open(struct rate *rate);
void rate_table_close(struct rate *rate);

#endif
