/*
 * Which redis-server the tests run: REDIS_SERVER in the environment names another, that of Valkey for one.
 */
#ifndef WEIR_TESTS_REDIS_PROGRAM_H
#define WEIR_TESTS_REDIS_PROGRAM_H

#include <stdlib.h>

static inline const char *redis_program(void)
{
    const char *named = getenv("REDIS_SERVER");

    return named && *named ? named : "redis-server";
}

#endif
