#include "tests/sim/shared.h"

#include <stdlib.h>

#include "tests/sim/loop.h"
#include "tests/sim/redis.h"

#define TICK 0.035 /* s */

/* --- what proxy/shared.c tells and does -------------------------------------------------------------------
 */

static void tell_load(void *arg, uint64_t *sessions, uint64_t *queued)
{
    const struct proxy *proxy = arg;

    *sessions = 0;
    *queued = placement_waiting(proxy->pool);
}

static void tell_verdict(void *arg, const struct backend *backend, char *out, size_t size)
{
    (void)arg;
    (void)snprintf(out, size, "state=%s", backend_state_name((enum backend_state)backend->state));
}

static void tell_finding(void *arg, const struct backend *backend, bool *down, uint32_t *limit)
{
    (void)arg;
    health_finding(backend, down, limit);
}

static void hear(void *arg, struct backend *backend, uint32_t down, uint32_t instances, uint32_t limit)
{
    const struct proxy *proxy = arg;

    health_hear(proxy->health, backend, &(struct health_peers){ down, instances, limit });
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

static void count_nothing(void *arg, struct statistics *statistics)
{
    (void)arg;
    (void)statistics;
}

/* Nobody writes such words here. */
static void take_queue(void *arg, struct backend *backend, enum backend_admin admin, uint32_t share)
{
    (void)arg;
    (void)backend;
    (void)admin;
    (void)share;
    abort();
}

static void take_word(void *arg, struct backend *backend, const char *admin, uint32_t weight)
{
    (void)arg;
    (void)backend;
    (void)admin;
    (void)weight;
    abort();
}

/* --- life -------------------------------------------------------------------------------------------------
 */

static void on_begin(struct event *event)
{
    struct proxy *proxy = CALENDAR_OF(event, struct proxy, publish);

    counters_set_farm(proxy->counters, proxy->farm);
}

void shared_open(struct proxy *proxy, double phase)
{
    const struct counters_ops ops = {
        .arg = proxy,
        .load = tell_load,
        .verdict = tell_verdict,
        .finding = tell_finding,
        .hear = hear,
        .replies = tell_replies,
        .hear_replies = hear_replies,
        .count = count_nothing,
        .queue = take_queue,
        .word = take_word,
    };

    if (!proxy->world->scenario->policy->publish_interval)
        return;
    proxy->counters = counters_open(loop_virtual(), &ops);
    if (!proxy->counters)
        abort();
    proxy->publish.happen = on_begin;
    calendar_set(&proxy->publish, calendar_now() + phase * TICK);
}

void shared_close(struct proxy *proxy)
{
    calendar_cancel(&proxy->publish);
    if (!proxy->counters)
        return;
    redis_server_sever(proxy->counters);
    counters_close(&proxy->counters);
}

uint32_t shared_instances(const struct proxy *proxy)
{
    struct counters_status status;

    counters_status(proxy->counters, &status);
    return status.instances;
}
