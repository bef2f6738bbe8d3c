#include "health/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct record *record_create(struct health *health, struct backend *backend, uint32_t workers)
{
    struct record *record = aligned_alloc(alignof(struct record), sizeof *record);

    if (!record)
        return NULL;
    memset(record, 0, sizeof *record);
    record->workers = workers ? workers : 1;
    record->counts = aligned_alloc(alignof(struct record_counts), record->workers * sizeof *record->counts);
    if (!record->counts) {
        free(record);
        return NULL;
    }
    memset(record->counts, 0, record->workers * sizeof *record->counts);
    record->health = health;
    record->backend = backend_hold(backend);
    record->mail.deliver = record_on_mail;
    orders_init(&record->orders);
    record->view.agent = order_none;
    memset(&record->view.check, 0xff, sizeof record->view.check); /* CHECK_NOT_REACHED */
    pthread_mutex_init(&record->view_lock, NULL);
    schedule_init(record);
    publish_init(record);
    peers_init(record);
    limits_init(record);
    return record;
}

void record_settings(const struct record *record, struct judge_settings *out)
{
    const struct config_pool *pool = record->pool;
    uint32_t weight = orders_fold(&record->orders).weight;

    *out = (struct judge_settings){
        .fall = pool->health.fall ? pool->health.fall : 1,
        .rise = pool->health.rise ? pool->health.rise : 1,
        .weight = weight == ORDER_NO_WEIGHT ? record->configured->weight : weight,
        .max_connections = record->configured->max_connections,
        .slow_start = pool->slow_start,
        .adaptive = pool->adaptive_limit,
    };
}

/* Its name has no address, and it is known that there is none. */
static void not_resolved(struct record *record, const char *error, int64_t now)
{
    char reason[JUDGE_REASON_MAX];

    (void)snprintf(reason, sizeof reason, "name does not resolve: %s", error);
    judge_unresolved(&record->judge, reason, now); /* logged once, when the state changes */
}

static void begin(struct record *record, const struct judge_settings *settings, bool slowly, int64_t now)
{
    judge_init(&record->judge, settings,
               record->backend->name_hash ^ (uint64_t)now ^ (uint64_t)record->backend->id << 32);
    record->judge.begins_slowly = slowly;
    publish_view(record, BACKEND_INIT, record->judge.reason);
}

/* Sessions are still at the place of before, and fail there. */
static void moved(struct record *record, int64_t now)
{
    struct backend *backend = record->backend;

    judge_moved(&record->judge, now);
    atomic_store_explicit(&backend->back_since, now, memory_order_relaxed);
    atomic_store_explicit(&backend->hard_in_a_row, 0, memory_order_relaxed);
    atomic_store_explicit(&backend->loads_in_a_row, 0, memory_order_relaxed);
}

void record_configure(struct record *record, const struct farm_given *given, bool slowly, int64_t now)
{
    struct judge_settings settings;
    bool first = record->judge.settings.fall == 0;

    record->configured = given->config;
    if (!record->pool) { /* no pool lists it, so nobody is sent there */
        schedule_stop(record);
        record->place = (struct address){ 0 };
        agent_configure(record, given);
        return;
    }
    record_settings(record, &settings);
    if (first)
        begin(record, &settings, slowly, now);
    else
        judge_configure(&record->judge, &settings);
    if (given->unresolved)
        not_resolved(record, given->unresolved, now);
    if (!address_equal(&record->place, &given->address)) {
        if (record->place.length && given->address.length)
            moved(record, now);
        record->place = given->address;
        schedule_anew(record);
    }
    schedule_hurry(record);
    publish_orders(record);
    publish(record, now);
    agent_configure(record, given);
}

void record_revive(struct record *record, int64_t now)
{
    record->retired = false;
    judge_begin(&record->judge, "its name has this address again", now);
    publish_view(record, BACKEND_INIT, record->judge.reason);
}

void record_retire(struct record *record)
{
    record->retired = true;
    record->configured = NULL;
    record->pool = NULL;
    atomic_store_explicit(&record->good_every, 0, memory_order_relaxed);
    schedule_stop(record);
    publish_stop(record);
    peers_stop(record);
    record->place = (struct address){ 0 }; /* to be checked at once, should it come back */
    agent_stop(record);
}

bool record_forgotten(const struct record *record)
{
    /* Acquire, to be behind everything that the last other holder did. Only a holder can make another one. */
    return atomic_load_explicit(&record->backend->references, memory_order_acquire) == 1 &&
           !atomic_load(&record->posted);
}

void record_free(struct record **record)
{
    struct record *r = *record;

    *record = NULL;
    if (!r)
        return;
    atomic_store_explicit(&r->backend->health, NULL, memory_order_release);
    pthread_mutex_destroy(&r->view_lock);
    backend_release(&r->backend);
    agent_free(r);
    free(r->counts);
    free(r);
}
