/*
 * Which members of a pool may serve a wish now, and what to say when none may.
 */
#ifndef WEIR_BALANCER_ELIGIBLE_H
#define WEIR_BALANCER_ELIGIBLE_H

#include "balancer/placement.h"

/* Candidates looked at in one placement. A larger pool is looked at from a random member on. */
#define ELIGIBLE_MAX 1024

/* Usable, has what the wish needs, not tried; room apart. */
bool eligible_but_for_room(const struct backend *backend, const struct placement_wish *wish, int64_t now);

/* Ejected, and nothing else is against it: usable for a pool that is in a panic. */
bool eligible_ejected(const struct backend *backend, int64_t now);

/* What has failed for `than` (for want of a backend that it could use, or of room on one) fails for `wish`
 * too, as it asks for no less of the same pool. */
bool eligible_no_easier(const struct placement_wish *wish, const struct placement_wish *than);
/* No wish of the same pool is easier. */
bool eligible_easiest(const struct placement_wish *wish);

/* Choose by the pool's algorithm and take a place. NULL: nobody has one. The member is held. */
struct member *eligible_take(const struct placement_wish *wish, uint64_t *random, int64_t now);

/* Some usable member has room, for whatever wish: a cheap look before trying a whole queue. */
bool eligible_any_room(const struct pool *pool, int64_t now);

/* Places that the pool's usable backends have, taken or not; UINT64_MAX: one of them has no limit. */
uint64_t eligible_capacity(const struct pool *pool, int64_t now);

/* When none has room: WAITING, NOT_CAPABLE or NO_BACKEND. A suspended backend is worth waiting for as a full
 * one is. */
enum placement_verdict eligible_verdict(const struct placement_wish *wish);

#endif
