/*
 * A farm for tests, described in code instead of a configuration file:
 *
 *     struct fixture f;
 *     fixture_start(&f);
 *     struct config_pool *pool = fixture_pool(&f, "relays", CONFIG_LEAST_CONNECTIONS, 10);
 *     fixture_backend(&f, pool, "a", 4, 100, 0);
 *     struct farm *farm = fixture_farm(&f, NULL);
 *
 * The fixture keeps a reference to its configuration of its own, so it may lie on the stack if it outlives
 * the farm.
 */
#ifndef WEIR_TESTS_FARM_FIXTURE_H
#define WEIR_TESTS_FARM_FIXTURE_H

#include <string.h>

#include "balancer/farm.h"
#include "balancer/placement.h"

#define FIXTURE_POOLS    4
#define FIXTURE_BACKENDS 64

struct fixture {
    struct config config;
    struct config_pool pools[FIXTURE_POOLS];
    struct config_backend backends[FIXTURE_BACKENDS];
    size_t members[FIXTURE_POOLS][FIXTURE_BACKENDS];
    char names[FIXTURE_BACKENDS][16];
    char pool_names[FIXTURE_POOLS][16];
};

static inline void fixture_start(struct fixture *f)
{
    memset(f, 0, sizeof *f);
    f->config.references = 1;
    f->config.workers = 2;
    f->config.pools = f->pools;
    f->config.backends = f->backends;
}

static inline struct config_pool *fixture_pool(struct fixture *f, const char *name,
                                               enum config_algorithm algorithm, uint32_t queue_size)
{
    size_t i = f->config.n_pools++;
    struct config_pool *pool = &f->pools[i];

    pool->name = strncpy(f->pool_names[i], name, sizeof f->pool_names[i] - 1);
    pool->algorithm = algorithm;
    pool->queue_size = queue_size;
    pool->max_share_per_client = 100;
    pool->backends = f->members[i];
    return pool;
}

/* A backend of the pool; one that is there already by this name is shared with the pools that have it. */
static inline void fixture_backend(struct fixture *f, struct config_pool *pool, const char *name,
                                   uint32_t weight, uint32_t max_connections, uint32_t priority)
{
    size_t i = 0;

    while (i < f->config.n_backends && strcmp(f->backends[i].name, name) != 0)
        i++;
    if (i == f->config.n_backends) {
        f->backends[i].name = strncpy(f->names[i], name, sizeof f->names[i] - 1);
        f->backends[i].weight = weight;
        f->backends[i].max_connections = max_connections;
        f->backends[i].priority = priority;
        f->config.n_backends++;
    }
    pool->backends[pool->n_backends++] = i;
}

/* Built and committed, still in INIT. */
static inline struct farm *fixture_farm(struct fixture *f, struct farm *old)
{
    struct farm *farm = farm_create(&f->config, old);

    if (farm)
        farm_commit(farm);
    return farm;
}

static inline void fixture_all_up(struct farm *farm)
{
    for (size_t i = 0; i < farm->n_backends; i++)
        atomic_store(&farm->backends[i]->state, BACKEND_UP);
}

static inline struct placement_wish fixture_wish(struct farm *farm, size_t pool)
{
    return (struct placement_wish){ .farm = farm, .pool = &farm->pools[pool] };
}

#endif
