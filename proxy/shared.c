/*
 * What this instance tells the others through Redis, and what operators of the farm say to it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "balancer/placement.h"
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

static void tell_verdict(void *arg, const struct backend *backend, char *out, size_t size)
{
    uint32_t limit = atomic_load_explicit(&backend->limit, memory_order_relaxed);
    struct health_view view;
    char number[16] = "none";

    (void)arg;
    health_view(backend, &view);
    if (limit != BACKEND_NO_CEILING)
        (void)snprintf(number, sizeof number, "%" PRIu32, limit);
    /* The reason may hold what the relay said: last, as it may have blanks. */
    (void)snprintf(out, size, "state=%s since=%" PRId64 " limit=%s reason=%s", backend_state_name(view.state),
                   view.since, number, view.reason);
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

/* Its own limit, not the one in force: a median of medians would never let go. */
static void tell_finding(void *arg, const struct backend *backend, bool *down, uint32_t *limit)
{
    struct health_view view;

    (void)arg;
    health_view(backend, &view);
    *down = view.state == BACKEND_DOWN;
    *limit = !view.reply_short ? UINT32_MAX : view.limit == BACKEND_NO_CEILING ? 0 : view.limit;
}

static void hear_peers(void *arg, struct backend *backend, uint32_t down, uint32_t instances, uint32_t limit)
{
    health_hear(((struct process *)arg)->health, backend, &(struct health_peers){ down, instances, limit });
}

bool shared_create(struct process *p)
{
    p->counters = counters_open(
        p->loop, &(struct counters_ops){ p, tell_load, tell_verdict, tell_finding, hear_peers, take_word });
    return p->counters != NULL;
}
