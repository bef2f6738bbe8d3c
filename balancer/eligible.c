#include "balancer/eligible.h"

#include <stdint.h>

#include "balancer/algorithm.h"

/* A tier is enough by itself while this much of its configured weight is usable. */
#define TIER_ENOUGH_PERCENT 70

static bool tried(const struct placement_wish *wish, const struct backend *backend)
{
    for (unsigned i = 0; i < wish->n_tried; i++)
        if (wish->tried[i] == backend)
            return true;
    return false;
}

static bool in_panic(const struct pool *pool)
{
    return atomic_load_explicit(&pool->state->panic, memory_order_relaxed);
}

bool eligible_ejected(const struct backend *backend, int64_t now)
{
    return atomic_load_explicit(&backend->state, memory_order_acquire) == BACKEND_EJECTED &&
           backend_admitted(backend) &&
           atomic_load_explicit(&backend->suspended_until, memory_order_relaxed) <= now;
}

/* Room apart, for a wish that asks for nothing. */
static bool in_use(const struct backend *backend, bool panic, int64_t now)
{
    return backend_usable(backend, now) || (panic && eligible_ejected(backend, now));
}

bool eligible_but_for_room(const struct backend *backend, const struct placement_wish *wish, int64_t now)
{
    return in_use(backend, in_panic(wish->pool), now) && !tried(wish, backend) &&
           backend_capable(backend, wish->needs, wish->size);
}

bool eligible_no_easier(const struct placement_wish *wish, const struct placement_wish *than)
{
    return wish->pool == than->pool && (than->needs & SMTP_CAP_CARRIED & ~wish->needs) == 0 &&
           than->size <= wish->size && than->n_tried == 0;
}

bool eligible_easiest(const struct placement_wish *wish)
{
    return (wish->needs & SMTP_CAP_CARRIED) == 0 && wish->size == 0 && wish->n_tried == 0;
}

/* The candidates of the first tier that has any, and of those behind it as long as too little of the tier is
 * usable. */
static size_t gather(const struct placement_wish *wish, uint64_t *random, int64_t now,
                     bool (*comes_into_question)(const struct backend *, int64_t),
                     struct member *candidates[ELIGIBLE_MAX])
{
    const struct pool *pool = wish->pool;
    size_t n = 0;

    for (size_t t = 0; t < pool->n_tiers; t++) {
        const struct pool_tier *tier = &pool->tiers[t];
        size_t before = n, start = tier->n > ELIGIBLE_MAX ? algorithm_random(random) % tier->n : 0;
        uint64_t usable = 0;

        for (size_t i = 0; i < tier->n; i++) {
            size_t at = start + i < tier->n ? start + i : start + i - tier->n;
            struct member *member = pool->members[tier->first + at];
            struct backend *backend = member->backend;

            if (!comes_into_question(backend, now))
                continue;
            usable += atomic_load_explicit(&backend->milliweight, memory_order_relaxed);
            if (n < ELIGIBLE_MAX && backend_has_room(backend) && !tried(wish, backend) &&
                backend_capable(backend, wish->needs, wish->size))
                candidates[n++] = member;
        }
        if (n > before && usable * 100 >= tier->milliweight * TIER_ENOUGH_PERCENT)
            break;
    }
    return n;
}

/* In a panic the ejected stand behind all others. */
static size_t candidates_of(const struct placement_wish *wish, uint64_t *random, int64_t now,
                            struct member *candidates[ELIGIBLE_MAX])
{
    size_t n = gather(wish, random, now, backend_usable, candidates);

    return n || !in_panic(wish->pool) ? n : gather(wish, random, now, eligible_ejected, candidates);
}

struct member *eligible_take(const struct placement_wish *wish, uint64_t *random, int64_t now)
{
    struct member *candidates[ELIGIBLE_MAX];
    struct algorithm_input input = {
        .pool = wish->pool, .candidates = candidates, .hash_key = wish->hash_key, .random = random, .now = now
    };

    /* Each round that fails has lost its candidates to other threads' placements, so somebody got on. */
    while ((input.n = candidates_of(wish, random, now, candidates)) > 0) {
        while (input.n > 0) {
            struct member *chosen = wish->pool->algorithm->choose(&input);
            size_t i = 0;

            if (backend_take_place(chosen->backend))
                return member_hold(chosen);
            while (candidates[i] != chosen)
                i++;
            candidates[i] = candidates[--input.n];
        }
    }
    return NULL;
}

bool eligible_any_room(const struct pool *pool, int64_t now)
{
    bool panic = in_panic(pool);

    for (size_t i = 0; i < pool->n_members; i++) {
        const struct backend *backend = pool->members[i]->backend;

        if (in_use(backend, panic, now) && backend_has_room(backend))
            return true;
    }
    return false;
}

uint64_t eligible_capacity(const struct pool *pool, int64_t now)
{
    uint64_t capacity = 0;
    bool panic = in_panic(pool);

    for (size_t i = 0; i < pool->n_members; i++) {
        const struct backend *backend = pool->members[i]->backend;
        uint32_t ceiling = atomic_load_explicit(&backend->ceiling, memory_order_relaxed);

        if (!in_use(backend, panic, now))
            continue;
        if (ceiling == BACKEND_NO_CEILING)
            return UINT64_MAX;
        capacity += ceiling;
    }
    return capacity;
}

enum placement_verdict eligible_verdict(const struct placement_wish *wish)
{
    enum placement_verdict verdict = PLACEMENT_NO_BACKEND;
    bool panic = in_panic(wish->pool);

    for (size_t i = 0; i < wish->pool->n_members; i++) {
        const struct backend *backend = wish->pool->members[i]->backend;

        if (tried(wish, backend)) {
            if (backend_in_service(backend) && !backend_capable(backend, wish->needs, wish->size))
                verdict = PLACEMENT_NOT_CAPABLE; /* as its EHLO has said just now */
            continue;
        }
        if (atomic_load_explicit(&backend->state, memory_order_acquire) == BACKEND_INIT) {
            if (backend_admitted(backend))
                return PLACEMENT_WAITING;
        } else if (backend_in_service(backend) || (panic && eligible_ejected(backend, INT64_MAX))) {
            if (backend_capable(backend, wish->needs, wish->size))
                return PLACEMENT_WAITING;
            verdict = PLACEMENT_NOT_CAPABLE;
        }
    }
    return verdict;
}
