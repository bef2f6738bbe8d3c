/*
 * What a relay writes of itself: `weir:{FARM}:queue:<backend>`, a hash with `depth` and `max` of its mail
 * queue, and if it likes `state` (ready, drain or maint) and `weight` (a percentage). Pure.
 *
 * The relay gives the key a life of 15 s each time, so that what it said ends with it.
 */
#ifndef WEIR_COUNTERS_FEEDBACK_H
#define WEIR_COUNTERS_FEEDBACK_H

#include <stdbool.h>
#include <stdint.h>

#include "balancer/backend.h"
#include "counters/resp.h"

#define FEEDBACK_ALL        1000  /* thousandths */
#define FEEDBACK_LIFE       15000 /* ms */
#define FEEDBACK_HYSTERESIS 100   /* less is no news */

struct feedback {
    enum backend_admin admin;
    uint32_t share; /* thousandths of its weight */
};

/* Its share by how full the queue is: all below half of `max`, a tenth at `max`, none above. `max` 0: all. */
uint32_t feedback_share(uint64_t depth, uint64_t max);
/* Read HGETALL's reply; an empty hash is no word. False: malformed, and *out is no word. */
bool feedback_read(const struct resp *hash, struct feedback *out);
/* What to go by now, with what was gone by until now. */
struct feedback feedback_settle(const struct feedback *before, const struct feedback *heard);

#endif
