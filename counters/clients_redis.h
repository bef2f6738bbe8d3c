/*
 * Sessions by client, over all instances: what this one has goes to Redis, and what the others have comes
 * back with the same reply.
 *
 *     weir:{FARM}:clients:<listener>:<who>     a sorted set: id of an instance → how many it has, a score
 *
 *     at each tick, of the clients whose count has changed: ZADD (or ZREM) · PEXPIRE · ZRANGE, all in one
 * MULTI
 *
 * A count is absolute, so one that was lost or written twice heals with the next. It is believed while its
 * instance lives (view.h): one that was killed takes its counts along when its lease ends, one that stops
 * with its bye. Who is near its limit is asked about once a second, and at once when an instance comes or
 * goes. Each second one count is told again though it has not changed: a ZADD that has to add it says that
 * Redis has lost it, and then all are told again.
 *
 * A sorted set can hold nothing but numbers, and takes no right that the other keys don't take.
 */
#ifndef WEIR_COUNTERS_CLIENTS_REDIS_H
#define WEIR_COUNTERS_CLIENTS_REDIS_H

#include "counters/clients.h"
#include "counters/redis.h"
#include "counters/view.h"

#define CLIENTS_BATCH 128 /* clients of one MULTI, of which there is one at a time */

struct clients_redis;

/* Something is not as it should be in Redis. `what` is static. */
typedef void clients_redis_complain(void *arg, const char *what, const char *reason);

/* The table and the view must outlive it. NULL: out of memory. In all others, NULL is fine. */
struct clients_redis *clients_redis_create(struct clients *table, const struct view *view, const char *id,
                                           clients_redis_complain *complain, void *arg);
void clients_redis_free(struct clients_redis **clients);

/* The connection for commands, and "weir:{FARM}:". NULL: there is none any more; to be said before it is
 * freed. */
void clients_redis_use(struct clients_redis *clients, struct redis *commands, const char *prefix);
/* This instance's, from now on. */
void clients_redis_set_id(struct clients_redis *clients, const char *id);
/* Tell and ask, when the view says that counts are shared. Cheap. */
void clients_redis_tick(struct clients_redis *clients, int64_t now);

#endif
