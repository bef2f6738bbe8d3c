/*
 * Which backends a farm has: the configuration's rows, with an address of each name. Internal to balancer/.
 */
#ifndef WEIR_BALANCER_MEMBERS_H
#define WEIR_BALANCER_MEMBERS_H

#include "balancer/farm.h"

/* Fill in backends, given, first and loops. False when memory is out. */
bool members_fill(struct farm *farm, const struct name_source *names, const struct farm *old);
/* The member of this backend in the pool of that state, among those that have left `old` (may be NULL). */
struct member *members_left(const struct farm *old, const struct pool_state *pool,
                            const struct backend *backend);
/* Fill in `leaving`: what `old` had or still knew and `farm` has not. False when memory is out. */
bool members_leave(struct farm *farm, const struct farm *old);
/* What is committed: how they are called, and that who has left gets nothing new. */
void members_commit(const struct farm *farm);

#endif
