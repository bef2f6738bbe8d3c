#include "health/record.h"

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
    pthread_mutex_init(&record->view_lock, NULL);
    schedule_init(record);
    publish_init(record);
    names_init(record);
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
    };
}

static bool same_place(const struct config_backend *a, const struct config_backend *b)
{
    if (!a->host != !b->host)
        return false;
    if (a->host)
        return strcmp(a->host, b->host) == 0 && a->port == b->port;
    return address_equal(&a->address, &b->address);
}

/* Look for it where the configuration now says. A name's last address, if there is one, holds until there is
 * an answer. */
static void find(struct record *record)
{
    if (record->configured->host)
        names_resolve_now(record);
    else
        names_stop(record);
    schedule_anew(record);
}

void record_configure(struct record *record, const struct config_backend *before, int64_t now)
{
    struct judge_settings settings;
    bool first = record->judge.settings.fall == 0;

    if (!record->pool) { /* no pool lists it, so nobody is sent there */
        schedule_stop(record);
        names_stop(record);
        return;
    }
    record_settings(record, &settings);
    if (first) {
        judge_init(&record->judge, &settings,
                   record->backend->name_hash ^ (uint64_t)now ^ (uint64_t)record->backend->id << 32);
        publish_view(record, BACKEND_INIT, record->judge.reason);
        find(record);
    } else {
        judge_configure(&record->judge, &settings);
        if (!before || !same_place(before, record->configured))
            find(record);
        schedule_hurry(record);
    }
    publish_orders(record);
    publish(record, now);
}

void record_retire(struct record *record)
{
    record->retired = true;
    record->configured = NULL;
    record->pool = NULL;
    atomic_store_explicit(&record->good_every, 0, memory_order_relaxed);
    schedule_stop(record);
    publish_stop(record);
    names_stop(record);
}

bool record_forgotten(const struct record *record)
{
    /* Acquire, to be behind everything that the last other holder did. Only a holder can make another one. */
    return atomic_load_explicit(&record->backend->references, memory_order_acquire) == 1 &&
           !atomic_load(&record->posted) && !record->resolving;
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
    free(r->counts);
    free(r);
}
