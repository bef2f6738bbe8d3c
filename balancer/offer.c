/*
 * What a pool offers in EHLO: what all of its usable backends offer, without flapping.
 *
 * A keyword goes the moment one usable backend lacks it: to offer it any longer would invite transactions
 * that this backend can't serve. It comes (back) when a backend comes up, or when all have agreed on it for
 * ten minutes. A size limit is the same: the smaller counts at once, the larger waits. A backend whose EHLO
 * was never seen has no say. A mechanism of AUTH is a keyword like any other.
 *
 * Each keyword waits for itself. What is of no use without another (AUTH, BINARYMIME) is only left out when
 * the offer is asked for: were it dropped before, its ten minutes would begin again when the other comes.
 */
#include <stddef.h>

#include "balancer/farm.h"
#include "smtp/capability.h"

/* What the backends agree on now. False: there is none that could say. */
static bool agreement(const struct pool *pool, struct smtp_capabilities *out)
{
    bool known = false;

    *out = (struct smtp_capabilities){ .flags = SMTP_CAP_CARRIED };
    for (size_t i = 0; i < pool->n_members; i++) {
        const struct backend *backend = pool->members[i]->backend;
        uint32_t flags = atomic_load_explicit(&backend->capabilities, memory_order_acquire);
        uint64_t size = atomic_load_explicit(&backend->size_limit, memory_order_relaxed);

        if (!(flags & BACKEND_CAPABILITIES_KNOWN) || !backend_in_service(backend))
            continue;
        known = true;
        out->flags &= flags;
        if (size && (!out->size_limit || size < out->size_limit))
            out->size_limit = size;
    }
    return known;
}

/* The keywords that all agree on and that have waited long enough to be offered. */
static uint32_t ripe(struct pool_state *state, uint32_t agreed, uint32_t offered, int64_t now, bool at_once)
{
    uint32_t flags = 0;

    for (unsigned bit = 0; bit < SMTP_CAPABILITY_BITS; bit++) {
        uint32_t flag = 1u << bit;
        int64_t *since = &state->agreed_since[bit];

        if (!(agreed & flag) || (offered & flag)) {
            *since = 0;
            continue;
        }
        if (*since == 0)
            *since = now;
        if (at_once || now - *since >= POOL_OFFER_PATIENCE) {
            flags |= flag;
            *since = 0;
        }
    }
    return flags;
}

/* 0 is no limit, so the largest of all. */
static bool size_is_smaller(uint64_t a, uint64_t b)
{
    return a && (!b || a < b);
}

static uint64_t next_size(struct pool_state *state, uint64_t agreed, int64_t now, bool at_once)
{
    uint64_t offered = atomic_load_explicit(&state->offered_size, memory_order_relaxed);

    if (at_once || !size_is_smaller(offered, agreed)) {
        state->agreed_size_since = 0;
        return agreed;
    }
    if (state->agreed_size_since == 0 || state->agreed_size != agreed) {
        state->agreed_size = agreed;
        state->agreed_size_since = now;
    }
    if (now - state->agreed_size_since < POOL_OFFER_PATIENCE)
        return offered;
    state->agreed_size_since = 0;
    return agreed;
}

void pool_update_offer(struct pool *pool, int64_t now, bool backend_came_up)
{
    struct pool_state *state = pool->state;
    struct smtp_capabilities agreed;
    bool at_once = backend_came_up || !state->offer_known;
    uint32_t offered;

    if (!agreement(pool, &agreed))
        return; /* the last set known stays */
    offered = state->offer_known ? atomic_load_explicit(&state->offered, memory_order_relaxed) : 0;
    state->offer_known = true;
    offered &= agreed.flags;
    offered |= ripe(state, agreed.flags, offered, now, at_once);
    atomic_store_explicit(&state->offered_size, next_size(state, agreed.size_limit, now, at_once),
                          memory_order_relaxed);
    atomic_store_explicit(&state->offered, offered | SMTP_CAP_PIPELINING, memory_order_relaxed);
}

struct smtp_capabilities pool_offer(const struct pool *pool)
{
    return (struct smtp_capabilities){
        .flags = smtp_capabilities_usable(atomic_load_explicit(&pool->state->offered, memory_order_relaxed)),
        .size_limit = atomic_load_explicit(&pool->state->offered_size, memory_order_relaxed),
    };
}
