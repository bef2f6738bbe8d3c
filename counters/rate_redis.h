/*
 * The bank of rate limits in Redis: one key a rule and name, by one script.
 *
 *     a worker ── ask ──▶ mailbox ──▶ EVALSHA on the control thread ──▶ rate_answered()
 *
 *     weir:{FARM}:rate:<rule>:<who> = "1764300000000000 0"
 *
 * The two numbers are the moments, in µs of Redis's own clock, at which the allowance of messages and that of
 * recipients will be full again (gcra.h); the key goes by itself when both are. Whatever else stands there is
 * begun anew, a moment too far off is cut, and a key of another type leaves each instance to its own count.
 *
 * The server needs EVAL, EVALSHA, GET, SET and TIME for the keys ~weir:{FARM}:rate:*.
 */
#ifndef WEIR_COUNTERS_RATE_REDIS_H
#define WEIR_COUNTERS_RATE_REDIS_H

#include <ev.h>

#include "counters/rate.h"
#include "counters/redis.h"

#define RATE_REDIS_OUTSTANDING_MAX 1000 /* requests; beyond, each instance counts for itself */

struct rate_redis;

/* Before the first worker runs, on the loop of the control thread. NULL: out of memory. Closed until it is
 * given a connection. */
struct rate_redis *rate_redis_create(struct ev_loop *loop);
/* For rate_rules_create(). */
struct rate_bank *rate_redis_bank(struct rate_redis *bank);
/* Use `redis`, which must be READY, for the keys of `farm`; NULL: none, until the next call. To be called at
 * each change of the connection's state. What is outstanding is answered by the connection. Control thread.
 */
void rate_redis_use(struct rate_redis *bank, struct redis *redis, const char *farm);
/* Behind redis_free(), from which no answer comes any more. */
void rate_redis_forget(struct rate_redis *bank);
/* When all workers have ended: the same, and the bank is gone. The rules may not be used any more, but to be
 * released. NULL is fine. */
void rate_redis_free(struct rate_redis **bank);

#endif
