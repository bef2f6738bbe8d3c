/*
 * Orders put into effect: the folded word goes to the judge (the weight), to the backend (the admin state)
 * and into what is published (share and limit).
 *
 * MAINT stops the checks, so what was known of the backend is forgotten with them: behind it, it is checked
 * like a new one, and gets its share back slowly.
 */
#include "balancer/placement.h"
#include "health/record.h"
#include "net/clock.h"
#include "net/log.h"

static void log_admin(const struct record *record, enum backend_admin from, enum backend_admin to)
{
    struct log_record line;

    if (!log_begin(&line, LOG_LEVEL_INFO, "backend-admin"))
        return;
    log_string(&line, "backend", backend_name(record->backend));
    log_plain(&line, "from", backend_admin_name(from));
    log_plain(&line, "to", backend_admin_name(to));
    if (to != BACKEND_READY)
        log_plain(&line, "by", order_source_name(orders_admin_source(&record->orders)));
    log_end(&line);
}

static void log_weight(const struct record *record, uint32_t from, uint32_t to)
{
    struct log_record line;

    if (!log_begin(&line, LOG_LEVEL_INFO, "backend-weight"))
        return;
    log_string(&line, "backend", backend_name(record->backend));
    log_number(&line, "from", from);
    log_number(&line, "to", to);
    log_end(&line);
}

static void obey_weight(struct record *record)
{
    uint32_t before = record->judge.settings.weight;
    struct judge_settings settings;

    record_settings(record, &settings);
    judge_configure(&record->judge, &settings);
    if (settings.weight != before)
        log_weight(record, before, settings.weight);
}

/* True: there is another word now. */
static bool obey_admin(struct record *record, enum backend_admin to, int64_t now)
{
    enum backend_admin from = (enum backend_admin)atomic_exchange(&record->backend->admin, to);

    if (from == to)
        return false;
    log_admin(record, from, to);
    if (to == BACKEND_MAINT) {
        schedule_stop(record);
    } else if (from == BACKEND_MAINT) {
        judge_begin(&record->judge, "back from maintenance", now);
        publish(record, now);
        schedule_check_now(record);
    }
    return true;
}

void health_order(struct health *health, struct backend *backend, enum order_source source,
                  const struct order *order)
{
    struct record *record = record_of(backend);
    int64_t now = clock_milliseconds();
    bool was_in_service = backend_in_service(backend), was_admitted = backend_admitted(backend),
         admin_changed;
    enum backend_admin admin;

    if (!record)
        return;
    record->orders.by[source] = *order;
    if (!record->pool)
        return; /* dropped by a reload: nobody is sent there any more */
    admin = orders_fold(&record->orders).admin;
    obey_weight(record);
    publish(record, now);
    admin_changed = obey_admin(record, admin, now);
    publish_orders(record);
    /* Admitted, one that is ejected may be what a panic can use. */
    if (admin_changed || was_admitted != backend_admitted(backend)) {
        publish_service(record, now, !was_in_service && backend_in_service(backend));
        placement_serve(health->farm, now);
    }
    if (admin_changed && health->watcher.on_admin)
        health->watcher.on_admin(health->watcher.arg, backend, admin);
}

void health_change_absent(struct health *health, const char *name,
                          void (*change)(void *arg, const char *full_name, struct order *order), void *arg)
{
    words_change(&health->words, name, change, arg);
}

struct orders health_orders(const struct backend *backend)
{
    const struct record *record = record_of(backend);
    struct orders orders;

    if (record)
        return record->orders;
    orders_init(&orders);
    return orders;
}
