/*
 * The keys of an instance, as they are read at a resync, made a snapshot like any other. Pure.
 *
 * What is read is hostile: a hash that is none, a count or a rate that is none refuse all of it. Verdicts are
 * a text for people: one that says nothing that is understood says nothing.
 */
#ifndef WEIR_COUNTERS_KEYS_H
#define WEIR_COUNTERS_KEYS_H

#include "counters/resp.h"
#include "counters/snapshot.h"

/* Replies to HGETALL. `id` is valid (snapshot_id_valid()). False: nothing is left of it. */
bool keys_read(struct snapshot *out, const char *id, const struct resp *instance,
               const struct resp *connections, const struct resp *health);
/* Fields and values, one behind the other. */
bool keys_is_hash(const struct resp *reply);

#endif
