#include "balancer/backend.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[] = { "init", "up", "degraded", "down", "ejected", "half-open" };
static_assert(sizeof state_names / sizeof *state_names == BACKEND_STATES, "a name for each state");

static const char *const admin_names[] = { "ready", "drain", "maint" };
static_assert(sizeof admin_names / sizeof *admin_names == BACKEND_ADMINS, "a name for each word");

const char *backend_admin_name(enum backend_admin admin)
{
    return admin_names[admin];
}

const char *backend_state_name(enum backend_state state)
{
    return state_names[state];
}

/* FNV-1a: only has to spread a few thousand names, and to be the same everywhere. Of the full name, however
 * the backend is called at present: another instance may not have seen the other addresses yet. */
static uint64_t hash_name(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return hash;
}

static char *join(const char *configured_name, const char *found_at)
{
    size_t size = strlen(configured_name) + 1 + strlen(found_at) + 1;
    char *text = malloc(size);

    if (text)
        (void)snprintf(text, size, "%s%s%s", configured_name, found_at[0] ? "@" : "", found_at);
    return text;
}

static void free_backend(struct backend *backend)
{
    free(backend->configured_name);
    free(backend->found_at);
    free(backend->full_name);
    free(backend);
}

struct backend *backend_create(const char *configured_name)
{
    return backend_create_found(configured_name, "");
}

struct backend *backend_create_found(const char *configured_name, const char *found_at)
{
    static _Atomic uint32_t created;
    struct backend *backend = aligned_alloc(alignof(struct backend), sizeof *backend);

    if (!backend)
        return NULL;
    memset(backend, 0, sizeof *backend);
    backend->configured_name = strdup(configured_name);
    backend->found_at = strdup(found_at);
    backend->full_name = join(configured_name, found_at);
    if (!backend->configured_name || !backend->found_at || !backend->full_name) {
        free_backend(backend);
        return NULL;
    }
    atomic_init(&backend->references, 1);
    backend->id = atomic_fetch_add(&created, 1) + 1;
    backend->name_hash = hash_name(backend->full_name);
    atomic_init(&backend->trial, BACKEND_NO_CEILING);
    backend->news = (struct backend_news){ .instances = 1, .share = BACKEND_WHOLE };
    pthread_mutex_init(&backend->address_lock, NULL);
    return backend;
}

struct backend *backend_hold(struct backend *backend)
{
    atomic_fetch_add_explicit(&backend->references, 1, memory_order_relaxed);
    return backend;
}

void backend_release(struct backend **backend)
{
    struct backend *b = *backend;

    *backend = NULL;
    if (!b || atomic_fetch_sub_explicit(&b->references, 1, memory_order_acq_rel) > 1)
        return;
    pthread_mutex_destroy(&b->address_lock);
    free_backend(b);
}

static uint32_t shared_ceiling(const struct backend *backend)
{
    const struct backend_news *news = &backend->news;
    uint64_t limit = atomic_load_explicit(&backend->limit, memory_order_relaxed);
    uint64_t held = backend->held_at_news, room, allowed;

    if (limit == BACKEND_NO_CEILING)
        return BACKEND_NO_CEILING;
    if (news->share < BACKEND_WHOLE)
        limit = (limit * news->share + BACKEND_WHOLE - 1) / BACKEND_WHOLE;
    if (news->instances <= 1)
        return limit > news->others ? (uint32_t)(limit - news->others) : 0;
    if (limit <= news->others)
        return 0;
    room = limit > news->others + held ? limit - news->others - held : 0;
    allowed = held + (2 * room + news->instances - 1) / news->instances;
    return (uint32_t)(allowed < limit - news->others ? allowed : limit - news->others);
}

static bool set_ceiling(struct backend *backend)
{
    uint32_t ceiling = shared_ceiling(backend);
    uint32_t trial = atomic_load_explicit(&backend->trial, memory_order_relaxed);

    if (trial < ceiling)
        ceiling = trial;

    return atomic_exchange(&backend->ceiling, ceiling) < ceiling;
}

bool backend_set_limit(struct backend *backend, uint32_t limit)
{
    atomic_store_explicit(&backend->limit, limit, memory_order_relaxed);
    return set_ceiling(backend);
}

bool backend_set_trial(struct backend *backend, uint32_t places)
{
    atomic_store_explicit(&backend->trial, places, memory_order_relaxed);
    return set_ceiling(backend);
}

uint32_t backend_limit(const struct backend *backend)
{
    uint32_t limit = atomic_load_explicit(&backend->limit, memory_order_relaxed);
    uint64_t trial = atomic_load_explicit(&backend->trial, memory_order_relaxed);

    trial += trial == BACKEND_NO_CEILING ? 0 : atomic_load_explicit(&backend->others, memory_order_relaxed);
    return trial < limit ? (uint32_t)trial : limit;
}

bool backend_set_news(struct backend *backend, const struct backend_news *news)
{
    backend->news = *news;
    if (news->anew)
        backend->held_at_news = atomic_load_explicit(&backend->connections, memory_order_relaxed);
    atomic_store_explicit(&backend->others, news->others, memory_order_relaxed);
    return set_ceiling(backend);
}

bool backend_take_place(struct backend *backend)
{
    uint32_t taken = atomic_load(&backend->connections);

    do {
        if (taken >= atomic_load(&backend->ceiling))
            return false;
    } while (!atomic_compare_exchange_weak(&backend->connections, &taken, taken + 1));
    return true;
}

void backend_return_place(struct backend *backend)
{
    uint32_t before = atomic_fetch_sub(&backend->connections, 1);

    assert(before > 0);
    (void)before;
}

bool backend_capable(const struct backend *backend, uint32_t needs, uint64_t size)
{
    uint32_t has = atomic_load_explicit(&backend->capabilities, memory_order_relaxed);

    if (!(has & BACKEND_CAPABILITIES_KNOWN))
        has = SMTP_CAP_8BITMIME;
    if (needs & SMTP_CAP_CARRIED & ~has)
        return false;
    if (size) {
        uint64_t limit = atomic_load_explicit(&backend->size_limit, memory_order_relaxed);
        return limit == 0 || size <= limit;
    }
    return true;
}

void backend_set_capabilities(struct backend *backend, const struct smtp_capabilities *capabilities)
{
    atomic_store_explicit(&backend->size_limit, capabilities->size_limit, memory_order_relaxed);
    atomic_store_explicit(&backend->capabilities, capabilities->flags | BACKEND_CAPABILITIES_KNOWN,
                          memory_order_release);
}

bool backend_address(struct backend *backend, struct address *out)
{
    pthread_mutex_lock(&backend->address_lock);
    *out = backend->address;
    pthread_mutex_unlock(&backend->address_lock);
    return out->length > 0;
}

void backend_set_address(struct backend *backend, const struct address *address)
{
    pthread_mutex_lock(&backend->address_lock);
    backend->address = *address;
    pthread_mutex_unlock(&backend->address_lock);
}
