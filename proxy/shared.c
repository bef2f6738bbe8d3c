/*
 * What this instance tells the others through Redis, and what operators of the farm say to it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "balancer/placement.h"
#include "counters/verdict.h"
#include "proxy/process_internal.h"

static void tell_load(void *arg, uint64_t *sessions, uint64_t *queued)
{
    struct process *p = arg;
    const struct farm *farm = p->front->farm;

    *sessions = *queued = 0;
    for (uint32_t i = 0; i < p->n_workers; i++)
        *sessions += atomic_load_explicit(&p->workers[i]->stats.sessions_active, memory_order_relaxed);
    for (size_t i = 0; i < farm->n_pools; i++)
        *queued += placement_waiting(&farm->pools[i]);
}

/* The pools that it is in, between commas. */
static void name_pools(const struct farm *farm, const struct backend *backend, char *out, size_t size)
{
    size_t used = 0;

    *out = '\0';
    for (size_t p = 0; p < farm->n_pools; p++)
        for (size_t m = 0; m < farm->pools[p].n_members; m++)
            if (farm->pools[p].members[m]->backend == backend && used < size)
                used += (size_t)snprintf(out + used, size - used, used ? ",%s" : "%s",
                                         farm->pools[p].state->name);
}

static void tell_verdict(void *arg, const struct backend *backend, char *out, size_t size)
{
    const struct process *p = arg;
    uint32_t limit = backend_limit(backend);
    enum backend_admin admin = (enum backend_admin)atomic_load(&backend->admin);
    char number[16] = "none", found[16], pools[256], text[ADDRESS_TEXT_MAX] = "none";
    struct health_view view;
    struct address address;
    uint32_t limit_found;
    bool down;

    health_finding(backend, &down, &limit_found);
    health_view(backend, &view);
    name_pools(p->front->farm, backend, pools, sizeof pools);
    if (limit != BACKEND_NO_CEILING)
        (void)snprintf(number, sizeof number, "%" PRIu32, limit);
    if (backend_address((struct backend *)(uintptr_t)backend, &address)) /* for its lock */
        address_format(&address, text);
    /* The reason may hold what the relay said: last, as it may have blanks. */
    (void)snprintf(out, size,
                   "state=%s since=%" PRId64 " limit=%s found=%s admin=%s weight=%" PRIu32
                   " configured=%" PRIu32 " max=%" PRIu32 " address=%s pools=%s reason=%s",
                   backend_state_name(view.state), view.since, number, verdict_found(limit_found, found),
                   backend_admin_name(admin), view.weight, backend->weight, view.max_connections, text, pools,
                   view.reason);
}

static void count_whole(void *arg, struct statistics *statistics)
{
    struct process *p = arg;
    struct admin_counters counters;

    operator_counters(p, &counters);
    statistics_count(statistics, "sessions", counters.sessions_total);
    statistics_count(statistics, "sessions_refused", counters.sessions_refused);
    statistics_count(statistics, "bytes_in", counters.bytes_in);
    statistics_count(statistics, "bytes_out", counters.bytes_out);
}

static void take_word(void *arg, struct backend *backend, const char *admin, uint32_t weight)
{
    struct process *p = arg;
    struct order order = order_none;

    if (admin && strcmp(admin, backend_admin_name(BACKEND_DRAIN)) == 0)
        order.admin = BACKEND_DRAIN;
    else if (admin && strcmp(admin, backend_admin_name(BACKEND_MAINT)) == 0)
        order.admin = BACKEND_MAINT;
    if (weight != UINT32_MAX)
        order.weight = weight;
    health_order(p->health, backend, ORDER_FARM, &order);
}

static void take_queue(void *arg, struct backend *backend, enum backend_admin admin, uint32_t share)
{
    struct order order = order_none;

    order.admin = admin;
    order.share = share;
    health_order(((struct process *)arg)->health, backend, ORDER_QUEUE, &order);
}

static void tell_finding(void *arg, const struct backend *backend, bool *down, uint32_t *limit)
{
    (void)arg;
    health_finding(backend, down, limit);
}

static void hear_peers(void *arg, struct backend *backend, uint32_t down, uint32_t instances, uint32_t limit)
{
    health_hear(((struct process *)arg)->health, backend, &(struct health_peers){ down, instances, limit });
}

static bool tell_replies(void *arg, const struct backend *backend, struct backend_replies *totals)
{
    (void)arg;
    return health_replies(backend, totals);
}

static void hear_replies(void *arg, struct backend *backend, const struct backend_replies *more)
{
    (void)arg;
    health_hear_replies(backend, more);
}

bool shared_create(struct process *p)
{
    const struct counters_ops ops = {
        .arg = p,
        .rates = p->rates,
        .clients = p->clients,
        .load = tell_load,
        .verdict = tell_verdict,
        .finding = tell_finding,
        .hear = hear_peers,
        .replies = tell_replies,
        .hear_replies = hear_replies,
        .queue = take_queue,
        .count = count_whole,
        .word = take_word,
    };

    p->counters = counters_open(p->loop, &ops);
    return p->counters != NULL;
}
