#include <stdio.h>
#include <string.h>
#include <time.h>

#include "balancer/placement.h"
#include "health/record.h"
#include "net/clock.h"
#include "net/log.h"

static void on_wake(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct record *record = timer->data;
    int64_t now = clock_milliseconds();
    bool resumed = record->suspended && now >= record->suspended;

    (void)loop;
    (void)events;
    if (resumed)
        record->suspended = 0;
    if (record->judge.sessions.open || record->judge.answers.open)
        record_counted(record, now);
    judge_tick(&record->judge, publish_has_others(record), now);
    publish(record, now);
    if (resumed)
        placement_serve(record->health->farm, now);
}

void publish_init(struct record *record)
{
    ev_timer_init(&record->wake_timer, on_wake, 0, 0);
    record->wake_timer.data = record;
}

void publish_stop(struct record *record)
{
    ev_timer_stop(record->health->loop, &record->wake_timer);
}

static void arm_wake(struct record *record, int64_t now)
{
    int64_t next = judge_next(&record->judge, now);

    if (record->suspended && record->suspended < next)
        next = record->suspended;
    if (next == JUDGE_NEVER)
        ev_timer_stop(record->health->loop, &record->wake_timer);
    else
        record_arm(record, &record->wake_timer, next - now);
}

static bool lists(const struct pool *pool, const struct backend *backend)
{
    for (size_t i = 0; i < pool->n_members; i++)
        if (pool->members[i]->backend == backend)
            return true;
    return false;
}

void publish_offers(const struct record *record, int64_t now, bool came_up)
{
    struct farm *farm = record->health->farm;

    for (size_t i = 0; i < farm->n_pools; i++)
        if (lists(&farm->pools[i], record->backend))
            pool_update_offer(&farm->pools[i], now, came_up);
}

/* What gets nothing by somebody's word stays as it is, and is nobody's ejection. */
static bool is_ejected(const struct backend *backend)
{
    uint32_t state = atomic_load(&backend->state);

    return (state == BACKEND_EJECTED || state == BACKEND_HALF_OPEN) && backend_admitted(backend);
}

/* One on trial counts as ejected, for it carries next to nothing. */
static bool pool_can_spare(const struct pool *pool, const struct backend *backend)
{
    uint64_t total = 0, ejected = backend->weight;
    bool usable = false, first = true;

    for (size_t i = 0; i < pool->n_members; i++) {
        const struct backend *other = pool->members[i]->backend;

        total += other->weight;
        if (other == backend)
            continue;
        usable = usable || backend_in_service(other);
        if (is_ejected(other)) {
            ejected += other->weight;
            first = false;
        }
    }
    return usable && (first || 2 * ejected <= total);
}

bool publish_can_spare(const struct record *record)
{
    const struct farm *farm = record->health->farm;

    /* It is being switched off, and nothing of that is held against it. */
    if (atomic_load(&record->backend->admin) == BACKEND_MAINT)
        return false;
    for (size_t i = 0; i < farm->n_pools; i++)
        if (lists(&farm->pools[i], record->backend) && !pool_can_spare(&farm->pools[i], record->backend))
            return false;
    return true;
}

static bool pool_has_others(const struct pool *pool, const struct backend *backend)
{
    for (size_t i = 0; i < pool->n_members; i++)
        if (pool->members[i]->backend != backend && backend_in_service(pool->members[i]->backend))
            return true;
    return false;
}

bool publish_has_others(const struct record *record)
{
    const struct farm *farm = record->health->farm;

    for (size_t i = 0; i < farm->n_pools; i++)
        if (lists(&farm->pools[i], record->backend) && !pool_has_others(&farm->pools[i], record->backend))
            return false;
    return true;
}

void publish_panic(const struct pool *pool)
{
    uint64_t total = 0, usable = 0;
    bool ejected = false, panic;

    for (size_t i = 0; i < pool->n_members; i++) {
        const struct backend *backend = pool->members[i]->backend;

        total += backend->weight;
        if (backend_in_service(backend))
            usable += backend->weight;
        ejected = ejected || (atomic_load(&backend->state) == BACKEND_EJECTED && backend_admitted(backend));
    }
    panic = ejected && 2 * usable < total;
    if (atomic_exchange(&pool->state->panic, panic) == panic)
        return;
    log_message(panic ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "pool-panic",
                panic ? "pool %s: less than half of it is usable; ejected backends are used too"
                      : "pool %s: ejected backends are left alone again",
                pool->state->name);
}

static void publish_panics(const struct record *record)
{
    const struct farm *farm = record->health->farm;

    for (size_t i = 0; i < farm->n_pools; i++)
        if (lists(&farm->pools[i], record->backend))
            publish_panic(&farm->pools[i]);
}

void publish_service(const struct record *record, int64_t now, bool came_up)
{
    publish_panics(record);
    publish_offers(record, now, came_up);
}

void publish_view(struct record *record, enum backend_state state, const char *reason)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_lock(&record->view_lock);
    record->view.state = state;
    record->view.since = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    (void)snprintf(record->view.reason, sizeof record->view.reason, "%s", reason);
    pthread_mutex_unlock(&record->view_lock);
}

void publish_orders(struct record *record)
{
    const struct judge_settings *settings = &record->judge.settings;
    bool ordered = orders_fold(&record->orders).weight != ORDER_NO_WEIGHT;

    pthread_mutex_lock(&record->view_lock);
    record->view.weight = settings->weight;
    record->view.max_connections = settings->max_connections;
    record->view.weight_ordered = ordered;
    record->view.admin_source = orders_admin_source(&record->orders);
    pthread_mutex_unlock(&record->view_lock);
}

static void log_change(const struct record *record, enum backend_state from, int64_t now)
{
    const struct judge *judge = &record->judge;
    bool bad = judge->state == BACKEND_DOWN || judge->state == BACKEND_EJECTED;
    struct log_record line;

    if (!log_begin(&line, bad ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "backend-state"))
        return;
    log_string(&line, "backend", backend_name(record->backend));
    log_plain(&line, "from", backend_state_name(from));
    log_plain(&line, "to", backend_state_name(judge->state));
    log_string(&line, "reason", judge->reason);
    if (judge_held(judge, now)) /* it has come and gone too often */
        log_number(&line, "held_ms", judge->held_until - now);
    log_end(&line);
}

/* How often workers tell of good signs. */
static uint32_t good_every(const struct judge *judge)
{
    return judge->state == BACKEND_HALF_OPEN ? 1 : 0;
}

static bool in_use(enum backend_state state)
{
    return state == BACKEND_UP || state == BACKEND_DEGRADED || state == BACKEND_HALF_OPEN;
}

static void change_state(struct record *record, enum backend_state from, int64_t now)
{
    struct backend *backend = record->backend;
    bool was_in_service = backend_in_service(backend);

    if (!in_use(from) && in_use(record->judge.state))
        atomic_store_explicit(&backend->back_since, now, memory_order_relaxed);

    /* Counted anew from here. */
    atomic_store_explicit(&backend->hard_in_a_row, 0, memory_order_relaxed);
    atomic_store_explicit(&backend->loads_in_a_row, 0, memory_order_relaxed);
    atomic_store_explicit(&record->good, 0, memory_order_relaxed);
    atomic_store(&backend->state, record->judge.state);
    publish_view(record, record->judge.state, record->judge.reason);
    log_change(record, from, now);
    publish_service(record, now, !was_in_service && backend_in_service(backend));
}

static uint32_t lesser(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* An agent may ask for more than all, but no backend is heavier than the configuration can make one. */
static uint32_t shared(uint32_t milliweight, uint32_t share)
{
    uint64_t product = (uint64_t)milliweight * share / ORDER_ALL;

    if (milliweight && share && !product)
        product = 1; /* next to nothing is not nothing: that would be out of service */
    return product < BACKEND_MILLIWEIGHT_MAX ? (uint32_t)product : BACKEND_MILLIWEIGHT_MAX;
}

/* The trial is for what comes now. Sessions that stayed over an ejection must not take its places, or one
 * that idles for minutes keeps the backend out; nor must those of other instances, for which it may be well.
 * `begins`: it is on trial from now on, or no longer. True if there are more places than before. */
static bool publish_trial(struct record *record, bool begins)
{
    uint32_t own = atomic_load_explicit(&record->backend->connections, memory_order_relaxed);
    uint32_t trial = judge_trial(&record->judge), instances = record->backend->news.instances;

    if (begins || own < record->trial_held)
        record->trial_held = own;
    if (trial == BACKEND_NO_CEILING)
        return backend_set_trial(record->backend, BACKEND_NO_CEILING);
    trial = trial > instances ? trial / instances : 1;
    return backend_set_trial(record->backend, record->trial_held + trial);
}

void publish(struct record *record, int64_t now)
{
    struct backend *backend = record->backend;
    struct health *health = record->health;
    const struct judge *judge = &record->judge;
    enum backend_state from = atomic_load(&backend->state);
    struct order order = orders_fold(&record->orders);
    uint32_t milliweight = shared(judge_milliweight(judge, now), order.share);
    /* The numbers first: who sees it up must not see yesterday's ceiling. */
    bool more = backend_set_limit(backend, lesser(judge_ceiling(judge, now), order.limit));
    uint32_t old_milliweight = atomic_exchange(&backend->milliweight, milliweight);
    bool changed = judge->state != from;

    more = publish_trial(record, changed) || more;
    atomic_store_explicit(&record->good_every, good_every(judge), memory_order_relaxed);
    if (changed)
        change_state(record, from, now);
    limits_show(record, now);
    if (changed || more || (milliweight > 0) != (old_milliweight > 0))
        placement_serve(health->farm, now);
    arm_wake(record, now);
    if (changed && health->watcher.on_change)
        health->watcher.on_change(health->watcher.arg, backend, from);
}
