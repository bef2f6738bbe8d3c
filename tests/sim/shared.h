/* A proxy's counters: the product's, over the Redis of redis.h. */
#ifndef WEIR_TESTS_SIM_SHARED_H
#define WEIR_TESTS_SIM_SHARED_H

#include "tests/sim/world.h"

/* Begins at `phase`, 0 to 1, of a tick, as processes that were started one after the other do. Nothing where
 * the policy shares nothing. */
void shared_open(struct proxy *proxy, double phase);
/* As kill -9 does it: no bye. */
void shared_close(struct proxy *proxy);

/* Instances that it knows of, itself too. */
uint32_t shared_instances(const struct proxy *proxy);

#endif
