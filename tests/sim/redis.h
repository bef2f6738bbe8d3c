/*
 * Redis, in memory and in virtual time: counters/redis.h over it in place of counters/redis.c, so that all
 * else of counters/ runs as it is. One server; it knows the commands that counters/ sends, and no others.
 */
#ifndef WEIR_TESTS_SIM_REDIS_H
#define WEIR_TESTS_SIM_REDIS_H

#include <stdint.h>

/* One that is empty and there. */
void redis_server_open(uint64_t seed);
/* It goes: every connection is lost, and tries again as the product does. What it held stays. */
void redis_server_stop(void);
void redis_server_start(void);
/* Its clients are gone by then. */
void redis_server_close(void);

/* The process at the other end is gone: the connections with this handler's arg never say anything again. */
void redis_server_sever(const void *arg);

#endif
