/*
 * Balancing algorithms, behind one small table of operations.
 *
 * An algorithm chooses among candidates that are all eligible; it takes no place and changes no count. It
 * runs on worker threads, concurrently: what state it keeps lies in atomics of the pool or the backends.
 */
#ifndef WEIR_BALANCER_ALGORITHM_H
#define WEIR_BALANCER_ALGORITHM_H

#include <stddef.h>
#include <stdint.h>

#include "balancer/farm.h"

struct algorithm_input {
    struct pool *pool;
    struct member **candidates; /* at least one */
    size_t n;
    uint64_t hash_key; /* of the client, for `hash` */
    uint64_t *random;  /* the worker's xorshift state */
    int64_t now;       /* ms, monotonic */
};

struct algorithm {
    const char *name;
    struct member *(*choose)(const struct algorithm_input *input);
};

const struct algorithm *algorithm_get(enum config_algorithm which);

/* peak-ewma is told of every reply time to MAIL (ms). Cheap, any thread. */
void algorithm_observe(struct backend *backend, uint32_t milliseconds, int64_t now);

/* The worker's random numbers; `state` must not be 0. */
uint64_t algorithm_random(uint64_t *state);

#endif
