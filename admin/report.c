#include "admin/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "balancer/placement.h"
#include "health/health.h"
#include "net/clock.h"

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static int64_t unix_now(void)
{
    return (int64_t)time(NULL);
}

/* --- backends --- */

static uint64_t outcomes(const struct member *member, enum transaction_outcome outcome)
{
    uint64_t n = 0;

    for (uint32_t w = 0; w < member->workers; w++)
        n += atomic_load_explicit(&member->stats[w].outcomes[outcome], memory_order_relaxed);
    return n;
}

static json_t *limit_of(const struct backend *backend)
{
    uint32_t limit = backend_limit(backend);

    return limit == BACKEND_NO_CEILING ? json_null() : number(limit);
}

static json_t *address_of(struct backend *backend)
{
    char text[ADDRESS_TEXT_MAX];
    struct address address;

    return report_text(backend_address(backend, &address) ? address_format(&address, text) : "");
}

/* The stages of its last check that were reached; null: there was none. */
static json_t *check_of(const struct health_view *view)
{
    json_t *object;

    if (view->check.ms[CHECK_CONNECT] == CHECK_NOT_REACHED)
        return json_null();
    object = json_object();
    for (enum check_stage stage = 0; stage < CHECK_STAGES; stage++)
        if (view->check.ms[stage] != CHECK_NOT_REACHED)
            json_object_set_new(object, check_stage_name(stage), number(view->check.ms[stage]));
    return object;
}

static json_t *agent_of(const struct health_view *view)
{
    json_t *object;

    if (!view->has_agent)
        return json_null();
    object = json_object();
    json_object_set_new(object, "answers", json_boolean(view->agent_answers));
    json_object_set_new(object, "down", json_boolean(view->agent_down));
    json_object_set_new(object, "admin", json_string(backend_admin_name(view->agent.admin)));
    json_object_set_new(object, "percent", number((uint64_t)view->agent.share * 100 / ORDER_ALL));
    json_object_set_new(object, "limit",
                        view->agent.limit == BACKEND_NO_CEILING ? json_null() : number(view->agent.limit));
    return object;
}

static json_t *backend_object(const struct pool *pool, const struct member *member)
{
    struct backend *backend = member->backend;
    uint32_t connections = atomic_load_explicit(&backend->connections, memory_order_relaxed);
    enum backend_admin admin = (enum backend_admin)atomic_load(&backend->admin);
    struct health_view view;
    json_t *object = json_object();

    health_view(backend, &view);
    json_object_set_new(object, "pool", report_text(pool->state->name));
    json_object_set_new(object, "name", report_text(backend_name(backend)));
    json_object_set_new(object, "address", address_of(backend));
    json_object_set_new(object, "state", json_string(backend_state_name(view.state)));
    json_object_set_new(object, "admin", json_string(backend_admin_name(admin)));
    json_object_set_new(object, "admin_by",
                        admin == BACKEND_READY ? json_null()
                                               : json_string(order_source_name(view.admin_source)));
    json_object_set_new(object, "weight", number(view.weight));
    json_object_set_new(object, "weight_ordered", json_boolean(view.weight_ordered));
    json_object_set_new(object, "milliweight", number(atomic_load(&backend->milliweight)));
    json_object_set_new(object, "connections", number(connections));
    json_object_set_new(
        object, "farm_connections",
        number((uint64_t)connections + atomic_load_explicit(&backend->others, memory_order_relaxed)));
    json_object_set_new(object, "idle", number(0)); /* none is kept between two sessions */
    json_object_set_new(object, "limit", limit_of(backend));
    json_object_set_new(object, "max_connections", number(view.max_connections));
    json_object_set_new(object, "reason", report_text(view.reason));
    json_object_set_new(object, "since", number((uint64_t)(view.since / 1000)));
    json_object_set_new(object, "check_ms", check_of(&view));
    json_object_set_new(object, "agent", agent_of(&view));
    for (enum transaction_outcome o = 0; o < TRANSACTION_OUTCOMES; o++)
        json_object_set_new(object, transaction_outcome_name(o), number(outcomes(member, o)));
    return object;
}

json_t *report_backends(const struct farm *farm)
{
    json_t *array = json_array();

    for (size_t p = 0; p < farm->n_pools; p++)
        for (size_t m = 0; m < farm->pools[p].n_members; m++)
            json_array_append_new(array, backend_object(&farm->pools[p], farm->pools[p].members[m]));
    return array;
}

/* --- the whole --- */

static json_t *pool_object(const struct pool *pool)
{
    json_t *object = json_object();
    uint64_t connections = 0, in_service = 0;

    for (size_t m = 0; m < pool->n_members; m++) {
        const struct backend *backend = pool->members[m]->backend;

        connections += atomic_load_explicit(&backend->connections, memory_order_relaxed);
        in_service += backend_in_service(backend);
    }
    json_object_set_new(object, "name", report_text(pool->state->name));
    json_object_set_new(object, "backends", number(pool->n_members));
    json_object_set_new(object, "usable", number(in_service));
    json_object_set_new(object, "connections", number(connections));
    json_object_set_new(object, "queued", number(placement_waiting(pool)));
    json_object_set_new(object, "panic", json_boolean(atomic_load(&pool->state->panic)));
    return object;
}

static uint64_t queued(const struct farm *farm)
{
    uint64_t n = 0;

    for (size_t p = 0; p < farm->n_pools; p++)
        n += placement_waiting(&farm->pools[p]);
    return n;
}

/* Messages that a backend has taken. */
static uint64_t delivered(const struct farm *farm)
{
    uint64_t n = 0;

    for (size_t p = 0; p < farm->n_pools; p++)
        for (size_t m = 0; m < farm->pools[p].n_members; m++)
            n += outcomes(farm->pools[p].members[m], OUTCOME_DELIVERED);
    return n;
}

static json_t *instance_object(const struct admin_ops *ops, const struct farm *farm)
{
    json_t *object = json_object();
    struct admin_counters counters;
    int64_t uptime = (clock_milliseconds() - ops->started) / 1000;

    ops->counters(ops->arg, &counters);
    json_object_set_new(object, "version", json_string(WEIR_VERSION));
    json_object_set_new(object, "hostname", report_text(farm->config->hostname));
    json_object_set_new(object, "pid", number((uint64_t)getpid()));
    json_object_set_new(object, "started", number((uint64_t)(unix_now() - uptime)));
    json_object_set_new(object, "uptime", number((uint64_t)uptime));
    json_object_set_new(object, "draining", json_boolean(ops->draining(ops->arg)));
    json_object_set_new(object, "ready", json_boolean(admin_ready(ops)));
    json_object_set_new(object, "sessions", number(counters.sessions_active));
    json_object_set_new(object, "sessions_total", number(counters.sessions_total));
    json_object_set_new(object, "delivered", number(delivered(farm)));
    json_object_set_new(object, "queued", number(queued(farm)));
    return object;
}

/* null: no counters are shared. */
static json_t *shared_object(const struct admin_ops *ops)
{
    struct counters_status status;
    json_t *object;

    ops->shared(ops->arg, &status);
    if (status.state == COUNTERS_OFF)
        return json_null();
    object = json_object();
    json_object_set_new(object, "state", json_string(counters_state_name(status.state)));
    json_object_set_new(object, "since", number((uint64_t)status.since / 1000));
    json_object_set_new(object, "id", json_string(status.id));
    json_object_set_new(object, "server", report_text(status.server));
    json_object_set_new(object, "reason", report_text(status.reason));
    json_object_set_new(object, "instances", number(status.instances));
    return object;
}

json_t *report_status(const struct admin_ops *ops, const struct farm *farm)
{
    json_t *object = instance_object(ops, farm), *pools = json_array();

    for (size_t p = 0; p < farm->n_pools; p++)
        json_array_append_new(pools, pool_object(&farm->pools[p]));
    json_object_set_new(object, "pools", pools);
    json_object_set_new(object, "redis", shared_object(ops));
    return object;
}

json_t *report_instances(const struct admin_ops *ops, const struct farm *farm)
{
    json_t *array = json_array();

    json_array_append_new(array, instance_object(ops, farm));
    return array;
}

/* --- sessions --- */

static json_t *session_object(const struct roster_session *session, int64_t now)
{
    json_t *object = json_object();
    char id[17];

    (void)snprintf(id, sizeof id, "%016" PRIx64, session->id); /* as in the log */
    json_object_set_new(object, "session", json_string(id));
    json_object_set_new(object, "client", report_text(session->client));
    json_object_set_new(object, "listener", report_text(session->listener));
    json_object_set_new(object, "state", json_string(session->state));
    json_object_set_new(object, "pool", report_text(session->pool));
    json_object_set_new(object, "backend", session->backend[0] ? report_text(session->backend) : json_null());
    json_object_set_new(object, "helo", session->helo[0] ? report_text(session->helo) : json_null());
    json_object_set_new(object, "user", session->user[0] ? report_text(session->user) : json_null());
    json_object_set_new(object, "tls", report_text(session->tls));
    json_object_set_new(object, "age", number((uint64_t)(now - session->began) / 1000));
    json_object_set_new(object, "transactions", number(session->transactions));
    json_object_set_new(object, "bytes_in", number(session->bytes_in));
    json_object_set_new(object, "bytes_out", number(session->bytes_out));
    return object;
}

json_t *report_sessions(const struct roster *roster)
{
    json_t *object = json_object(), *array = json_array();

    for (size_t i = 0; i < roster->n; i++)
        json_array_append_new(array, session_object(roster->sessions[i], roster->now));
    json_object_set_new(object, "total", number(roster->total));
    json_object_set_new(object, "shown", number(roster->n));
    json_object_set_new(object, "sessions", array);
    return object;
}
