#include "health/health.h"

#include <stdlib.h>
#include <string.h>

#include "health/record.h"
#include "net/clock.h"
#include "net/log.h"

#define SWEEP_SECONDS 10

/* Free the retired that nobody can find any more. */
static void reap(struct health *health)
{
    struct record **link = &health->retired;

    while (*link) {
        struct record *record = *link;

        if (record_forgotten(record)) {
            *link = record->next;
            record_free(&record);
        } else {
            link = &record->next;
        }
    }
}

/* A keyword may be offered again after ten minutes of agreement: nothing happens then, so it has to be looked
 * for. */
static void update_offers(const struct farm *farm)
{
    int64_t now = clock_milliseconds();

    for (size_t i = 0; i < farm->n_pools; i++)
        pool_update_offer(&farm->pools[i], now, false);
}

static void on_sweep(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct health *health = timer->data;

    (void)loop;
    (void)events;
    if (health->farm)
        update_offers(health->farm);
    reap(health);
}

/* One timer for all, slower while nothing comes. */
static void on_limits(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct health *health = timer->data;
    int64_t now = clock_milliseconds();
    bool any = false;

    (void)events;
    for (struct record *record = health->records; record; record = record->next)
        any = limits_tick(record, now) || any;
    timer->repeat = (any ? LIMIT_TICK : LIMIT_TICK_IDLE) / 1000.;
    ev_timer_again(loop, timer);
}

struct health *health_open(struct ev_loop *loop, const struct health_watcher *watcher)
{
    struct health *health = calloc(1, sizeof *health);

    if (!health)
        return NULL;
    health->loop = loop;
    if (watcher)
        health->watcher = *watcher;
    schedule_open(health);
    agents_init(health);
    mailbox_open(&health->mailbox, loop, health);
    ev_timer_init(&health->sweep, on_sweep, SWEEP_SECONDS, SWEEP_SECONDS);
    health->sweep.data = health;
    ev_timer_start(loop, &health->sweep);
    ev_timer_init(&health->limits, on_limits, LIMIT_TICK / 1000., LIMIT_TICK / 1000.);
    health->limits.data = health;
    ev_timer_start(loop, &health->limits);
    return health;
}

/* The pool lists the backends of this row of the configuration. */
static void list(const struct farm *farm, size_t row, const struct config_pool *pool)
{
    for (size_t i = farm->first[row]; i < farm->first[row + 1]; i++) {
        struct record *record = record_of(farm->backends[i]);

        if (record && !record->pool)
            record->pool = pool;
    }
}

static void keep(struct health *health, struct record *record)
{
    record->newcomer = true;
    record->next = health->records;
    health->records = record;
}

static void revive(struct health *health, struct record *record, int64_t now)
{
    struct record **link = &health->retired;

    while (*link != record)
        link = &(*link)->next;
    *link = record->next;
    keep(health, record);
    record_revive(record, now);
}

/* A record for every backend of the farm; those already there are marked as being of it, the others as
 * newcomers. */
static void enlist(struct health *health, struct farm *farm, int64_t now)
{
    for (size_t i = 0; i < farm->n_backends; i++) {
        struct record *record = record_of(farm->backends[i]);

        if (!record) {
            record = record_create(health, farm->backends[i], farm->config->workers);
            if (!record) {
                log_message(LOG_LEVEL_ERROR, "out-of-memory", "backend %s is not checked",
                            backend_name(farm->backends[i]));
                continue;
            }
            keep(health, record);
            atomic_store_explicit(&farm->backends[i]->health, record, memory_order_release);
        } else if (record->retired) {
            revive(health, record, now);
        }
        record->farm_serial = farm->serial;
        record->pool = NULL;
    }
    for (size_t i = 0; i < farm->config->n_pools; i++) {
        const struct config_pool *pool = &farm->config->pools[i];

        for (size_t b = 0; b < pool->n_backends; b++)
            list(farm, pool->backends[b], pool);
    }
}

/* As far as an operator has a say. */
static bool is_same_word(const struct order *one, const struct order *other)
{
    return one->admin == other->admin && one->weight == other->weight;
}

/* The operator's word that all have who are of this name, and of the farm with this serial, but for
 * newcomers; NULL: there is none, or they don't agree. */
static const struct order *common_word(const struct record *list, uint64_t farm_serial, const char *name,
                                       bool *any)
{
    const struct order *word = NULL;

    for (const struct record *record = list; record; record = record->next) {
        const struct order *its = &record->orders.by[ORDER_OPERATOR];

        if (record->newcomer || record->farm_serial != farm_serial ||
            strcmp(record->backend->configured_name, name) != 0)
            continue;
        if (*any && (!word || !is_same_word(word, its)))
            return NULL;
        *any = true;
        word = its;
    }
    return word;
}

static bool is_any_spoken_of(const struct health *health, const char *name)
{
    for (const struct record *record = health->records; record; record = record->next)
        if (strcmp(record->backend->configured_name, name) == 0 &&
            !is_same_word(&record->orders.by[ORDER_OPERATOR], &order_none))
            return true;
    return false;
}

/* Addresses of a name go, and perhaps come back. That nothing was said of one counts where something was said
 * of another. */
static void remember_words(struct health *health, uint64_t farm_serial)
{
    for (const struct record *record = health->records; record; record = record->next) {
        const struct backend *backend = record->backend;

        if (record->farm_serial != farm_serial && *backend->found_at &&
            is_any_spoken_of(health, backend->configured_name))
            words_keep(&health->words, backend->configured_name, backend->found_at,
                       &record->orders.by[ORDER_OPERATOR]);
    }
}

static void retire_others(struct health *health, uint64_t farm_serial)
{
    struct record **link = &health->records;

    while (*link) {
        struct record *record = *link;

        if (record->farm_serial == farm_serial) {
            link = &record->next;
            continue;
        }
        *link = record->next;
        record_retire(record);
        record->next = health->retired;
        health->retired = record;
    }
}

/* The backend that stood for the same name while it had no address; NULL: none did. */
static const struct record *stand_in(const struct record *record, const struct farm *old)
{
    const char *name = record->backend->configured_name;

    for (size_t i = 0; i < old->n_backends; i++)
        if (!old->given[i].address.length && strcmp(old->backends[i]->configured_name, name) == 0)
            return record_of(old->backends[i]);
    return NULL;
}

/* Whether a newcomer comes to backends that are at work. One whose name has only now been found is as new as
 * the name: at Weir's own start nobody begins slowly. */
static bool begins_slowly(const struct record *record, const struct farm *old)
{
    const struct farm *farm = record->health->farm;
    const struct record *before = old ? stand_in(record, old) : NULL;

    if (!old || !record->pool)
        return false;
    if (before && before->judge.state == BACKEND_INIT)
        return before->judge.begins_slowly;
    for (size_t p = 0; p < farm->n_pools; p++) {
        const struct pool *pool = &farm->pools[p];

        for (size_t i = 0; pool->config == record->pool && i < pool->n_members; i++)
            if (backend_in_service(pool->members[i]->backend))
                return true;
    }
    return false;
}

/* What was said of it when its name had it before, or while it had not. Else what an operator says of a name
 * counts for the addresses that it gets later, too: the word of those that were there, or that it replaces.
 */
static void give_word(struct health *health, const struct record *newcomer, uint64_t old_serial)
{
    struct backend *backend = newcomer->backend;
    const struct order *common;
    struct order word;
    bool any = false;

    if (words_take(&health->words, backend->configured_name, backend->found_at, &word)) {
        health_order(health, backend, ORDER_OPERATOR, &word);
        return;
    }
    if (!is_same_word(&newcomer->orders.by[ORDER_OPERATOR], &order_none))
        return; /* it was taken out with its name, and sessions are still there */
    common = common_word(health->records, health->farm->serial, backend->configured_name, &any);
    if (!any)
        common = common_word(health->retired, old_serial, backend->configured_name, &any);
    if (common && !is_same_word(common, &order_none))
        health_order(health, backend, ORDER_OPERATOR, common);
}

static bool is_configured(const void *arg, const char *name, size_t size)
{
    const struct config *config = arg;

    for (size_t i = 0; i < config->n_backends; i++)
        if (strlen(config->backends[i].name) == size && memcmp(config->backends[i].name, name, size) == 0)
            return true;
    return false;
}

void health_set_farm(struct health *health, struct farm *farm)
{
    struct farm *old = health->farm;
    int64_t now = clock_milliseconds();

    health->farm = farm_hold(farm);
    enlist(health, farm, now);
    remember_words(health, farm->serial);
    retire_others(health, farm->serial);
    words_prune(&health->words, is_configured, farm->config);
    for (size_t i = 0; i < farm->n_backends; i++) {
        struct record *record = record_of(farm->backends[i]);

        if (record) {
            bool fresh = !record->judge.settings.fall;

            record_configure(record, &farm->given[i], fresh && begins_slowly(record, old), now);
            if (record->newcomer)
                give_word(health, record, old ? old->serial : 0);
        }
    }
    for (struct record *record = health->records; record; record = record->next)
        record->newcomer = false;
    for (size_t i = 0; i < farm->n_pools; i++)
        publish_panic(&farm->pools[i]);
    update_offers(farm);
    if (old)
        farm_release(&old);
    reap(health);
}

static void free_all(struct record **records)
{
    while (*records) {
        struct record *record = *records;

        *records = record->next;
        record_retire(record);
        record_free(&record);
    }
}

void health_close(struct health **health)
{
    struct health *h = *health;

    *health = NULL;
    if (!h)
        return;
    h->checks.limit = h->agents.limit = 0;
    for (struct record *record = h->records; record; record = record->next)
        record_retire(record);
    mailbox_close(&h->mailbox);
    free_all(&h->records);
    free_all(&h->retired);
    words_free(&h->words);
    ev_timer_stop(h->loop, &h->sweep);
    ev_timer_stop(h->loop, &h->limits);
    if (h->farm)
        farm_release(&h->farm);
    free(h);
}

void health_view(const struct backend *backend, struct health_view *out)
{
    struct record *record = record_of(backend);

    if (!record) { /* not watched yet: what is published is what the configuration says */
        uint32_t ceiling = atomic_load_explicit(&backend->ceiling, memory_order_relaxed);

        *out = (struct health_view){
            .state = atomic_load(&backend->state),
            .weight = atomic_load_explicit(&backend->milliweight, memory_order_relaxed) / 1000,
            .max_connections = ceiling == BACKEND_NO_CEILING ? 0 : ceiling,
            .limit = BACKEND_NO_CEILING,
            .limit_wanted = BACKEND_NO_CEILING,
            .agent = order_none,
        };
        memset(&out->check, 0xff, sizeof out->check); /* CHECK_NOT_REACHED */
        return;
    }
    pthread_mutex_lock(&record->view_lock);
    *out = record->view;
    pthread_mutex_unlock(&record->view_lock);
}
