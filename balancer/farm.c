#include "balancer/farm.h"

#include <stdlib.h>
#include <string.h>

#include "balancer/algorithm.h"
#include "balancer/members.h"
#include "balancer/queue.h"

/* Zeroed and aligned as its counters want to be. */
static void *allocate_aligned(size_t n, size_t size)
{
    void *memory = aligned_alloc(64, n ? n * size : 64);

    if (memory)
        memset(memory, 0, n ? n * size : 64);
    return memory;
}

/* --- members and pool states ---------------------------------------------------------------------------- */

static struct member *member_create(struct backend *backend, uint32_t workers)
{
    struct member *member = calloc(1, sizeof *member);

    if (!member)
        return NULL;
    member->stats = allocate_aligned(workers, sizeof *member->stats);
    member->resumptions = calloc(workers, sizeof *member->resumptions);
    if (!member->stats || !member->resumptions) {
        free(member->stats);
        free(member->resumptions);
        free(member);
        return NULL;
    }
    atomic_init(&member->references, 1);
    member->backend = backend_hold(backend);
    member->workers = workers;
    return member;
}

struct member *member_hold(struct member *member)
{
    atomic_fetch_add_explicit(&member->references, 1, memory_order_relaxed);
    return member;
}

void member_release(struct member **member)
{
    struct member *m = *member;

    *member = NULL;
    if (!m || atomic_fetch_sub_explicit(&m->references, 1, memory_order_acq_rel) > 1)
        return;
    for (uint32_t i = 0; i < m->workers; i++)
        tls_resumption_clear(&m->resumptions[i]);
    free(m->resumptions);
    backend_release(&m->backend);
    free(m->stats);
    free(m);
}

struct pool_state *pool_state_hold(struct pool_state *state)
{
    atomic_fetch_add_explicit(&state->references, 1, memory_order_relaxed);
    return state;
}

static void pool_state_release(struct pool_state **state)
{
    struct pool_state *s = *state;

    *state = NULL;
    if (!s || atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) > 1)
        return;
    wait_queue_free(&s->queue);
    free(s->name);
    free(s->stats);
    free(s);
}

static struct pool_state *pool_state_create(const char *name, uint32_t workers)
{
    struct pool_state *state = calloc(1, sizeof *state);

    if (!state)
        return NULL;
    atomic_init(&state->references, 1);
    atomic_init(&state->offered, SMTP_CAP_PIPELINING | SMTP_CAP_8BITMIME);
    state->workers = workers;
    state->name = strdup(name);
    state->queue = wait_queue_create();
    state->stats = allocate_aligned(workers, sizeof *state->stats);
    if (!state->name || !state->queue || !state->stats)
        pool_state_release(&state);
    return state;
}

/* --- building ------------------------------------------------------------------------------------------- */

static const struct pool *find_pool(const struct farm *farm, const char *name)
{
    for (size_t i = 0; farm && i < farm->n_pools; i++)
        if (strcmp(farm->pools[i].state->name, name) == 0)
            return &farm->pools[i];
    return NULL;
}

static struct pool_state *take_over_state(const char *name, uint32_t workers, const struct pool *old)
{
    if (old && old->state->workers == workers)
        return pool_state_hold(old->state);
    return pool_state_create(name, workers);
}

/* What building a pool goes by. */
struct predecessors {
    const struct farm *farm; /* NULL: none */
    const struct pool *pool; /* of the same name; NULL: none */
    size_t expected;         /* where in it the next is looked for first */
};

static struct member *take_over_member(const struct pool *pool, struct backend *backend, uint32_t workers,
                                       struct predecessors *old)
{
    struct member *left;

    for (size_t i = 0; old->pool && i < old->pool->n_members; i++) {
        size_t at = (old->expected + i) % old->pool->n_members;
        struct member *member = old->pool->members[at];

        if (member->backend != backend || member->workers != workers)
            continue;
        old->expected = at + 1;
        return member_hold(member);
    }
    left = members_left(old->farm, pool->state, backend);
    return left && left->workers == workers ? member_hold(left) : member_create(backend, workers);
}

/* The configuration's backends of this pool, by priority and else in their order. */
static void sort_by_priority(size_t *order, const struct config *config, const struct config_pool *pool)
{
    for (size_t i = 0; i < pool->n_backends; i++) {
        uint32_t priority = config->backends[pool->backends[i]].priority;
        size_t at = i;

        for (; at > 0 && config->backends[order[at - 1]].priority > priority; at--)
            order[at] = order[at - 1];
        order[at] = pool->backends[i];
    }
}

/* The backends of one row of the configuration, all in the tier that has been begun last. */
static bool pool_add(struct pool *pool, const struct farm *farm, size_t row, struct predecessors *old)
{
    struct pool_tier *tier = &pool->tiers[pool->n_tiers - 1];

    for (size_t i = farm->first[row]; i < farm->first[row + 1]; i++) {
        struct member *member = take_over_member(pool, farm->backends[i], farm->config->workers, old);

        if (!member)
            return false;
        pool->members[pool->n_members++] = member;
        tier->n++;
        tier->milliweight += (uint64_t)farm->config->backends[row].weight * 1000;
    }
    return true;
}

static bool pool_fill(struct pool *pool, const struct farm *farm, const size_t *order,
                      struct predecessors *old)
{
    const struct config_backend *configured = farm->config->backends, *before = NULL;

    for (size_t i = 0; i < pool->config->n_backends; i++) {
        const struct config_backend *backend = &configured[order[i]];

        if (!before || before->priority != backend->priority)
            pool->tiers[pool->n_tiers++].first = pool->n_members;
        if (!pool_add(pool, farm, order[i], old))
            return false;
        before = backend;
    }
    return true;
}

static size_t count_members(const struct config_pool *config, const struct farm *farm)
{
    size_t n = 0;

    for (size_t i = 0; i < config->n_backends; i++)
        n += farm->first[config->backends[i] + 1] - farm->first[config->backends[i]];
    return n ? n : 1;
}

static bool pool_build(struct pool *pool, const struct config_pool *config, const struct farm *farm,
                       const struct farm *old_farm)
{
    struct predecessors old = { old_farm, find_pool(old_farm, config->name), 0 };
    size_t n = count_members(config, farm); /* at least one a row */
    size_t *order = calloc(n, sizeof *order);
    bool built = false;

    pool->config = config;
    pool->algorithm = algorithm_get(config->algorithm);
    pool->state = take_over_state(config->name, farm->config->workers, old.pool);
    pool->members = calloc(n, sizeof(struct member *));
    pool->tiers = calloc(n, sizeof *pool->tiers);
    if (order && pool->state && pool->members && pool->tiers) {
        sort_by_priority(order, farm->config, config);
        built = pool_fill(pool, farm, order, &old);
    }
    free(order);
    return built;
}

static bool farm_build(struct farm *farm, const struct name_source *names, const struct farm *old)
{
    const struct config *config = farm->config;

    farm->pools = calloc(config->n_pools ? config->n_pools : 1, sizeof *farm->pools);
    if (!farm->pools || !members_fill(farm, names, old))
        return false;
    while (farm->n_pools < config->n_pools) {
        size_t i = farm->n_pools++;

        if (!pool_build(&farm->pools[i], &config->pools[i], farm, old))
            return false;
    }
    return members_leave(farm, old);
}

struct farm *farm_create(struct config *config, struct farm *old)
{
    return farm_create_found(config, NULL, old);
}

struct farm *farm_create_found(struct config *config, const struct name_source *names, struct farm *old)
{
    static _Atomic uint64_t created;
    struct farm *farm = calloc(1, sizeof *farm);

    if (!farm)
        return NULL;
    atomic_init(&farm->references, 1);
    farm->serial = atomic_fetch_add(&created, 1) + 1;
    farm->config = config_hold(config);
    if (!farm_build(farm, names, old))
        farm_release(&farm);
    return farm;
}

void farm_commit(struct farm *farm)
{
    for (size_t i = 0; i < farm->n_backends; i++) {
        const struct config_backend *configured = farm->given[i].config;
        struct backend *backend = farm->backends[i];

        backend->weight = configured->weight;
        backend->max_connections = configured->max_connections;
        backend->priority = configured->priority;
        if (farm->given[i].address.length > 0)
            backend_set_address(backend, &farm->given[i].address);
        if (backend->left) /* and is back: what was known of it is of another time */
            atomic_store(&backend->state, BACKEND_INIT);
        backend->left = false;
        if (atomic_load(&backend->state) == BACKEND_INIT) {
            atomic_store(&backend->milliweight, configured->weight * 1000);
            (void)backend_set_limit(backend, configured->max_connections ? configured->max_connections
                                                                         : BACKEND_NO_CEILING);
        }
    }
    members_commit(farm);
}

struct farm *farm_hold(struct farm *farm)
{
    atomic_fetch_add_explicit(&farm->references, 1, memory_order_relaxed);
    return farm;
}

void farm_release(struct farm **farm)
{
    struct farm *f = *farm;

    *farm = NULL;
    if (!f || atomic_fetch_sub_explicit(&f->references, 1, memory_order_acq_rel) > 1)
        return;
    for (size_t i = 0; i < f->n_pools; i++) {
        struct pool *pool = &f->pools[i];

        for (size_t m = 0; m < pool->n_members; m++)
            member_release(&pool->members[m]);
        pool_state_release(&pool->state);
        free(pool->members);
        free(pool->tiers);
    }
    for (size_t i = 0; i < f->n_backends; i++)
        backend_release(&f->backends[i]);
    for (size_t i = 0; i < f->n_leaving; i++) {
        member_release(&f->leaving[i].member);
        pool_state_release(&f->leaving[i].pool);
    }
    free(f->pools);
    free(f->backends);
    free(f->given);
    free(f->first);
    free(f->loops);
    free(f->leaving);
    config_release(&f->config);
    free(f);
}
