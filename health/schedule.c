/*
 * When to check: at once when new, then every interval; faster while something is changing, and for one
 * interval after it went down. So many at a time and no more, the others wait in line.
 */
#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include "balancer/placement.h"
#include "health/record.h"
#include "net/clock.h"
#include "net/log.h"

#define CHECK_SLOT 50 /* ms */

struct histogram health_stage_times[CHECK_STAGES];

static const struct config_health *settings(const struct record *record)
{
    return &record->pool->health;
}

/* One that has just gone down is looked at often for a while: most relays that go down are being restarted.
 */
static bool is_changing(const struct record *record)
{
    const struct judge *judge = &record->judge;

    return judge_changing(judge) ||
           (judge->state == BACKEND_DOWN && clock_milliseconds() - judge->since < settings(record)->interval);
}

/* Checks that begin in the same moment share wake-ups, which with a thousand backends are most of what they
 * cost. A slot is far shorter than the jitter, so that checks are spread as before. In seconds. */
static double to_slot(const struct record *record, int64_t wait)
{
    double now = ev_now(record->health->loop), at = now + (double)wait / 1000., slot = CHECK_SLOT / 1000.;

    return wait < 10 * CHECK_SLOT ? at - now : ceil(at / slot) * slot - now;
}

static void arm_check(struct record *record)
{
    struct judge *judge = &record->judge;
    int64_t wait = settings(record)->interval;
    bool changing = is_changing(record);

    if (changing)
        wait = judge_jitter(judge, settings(record)->fast_interval);
    else if (!record->checked)
        wait = judge_random(judge, wait); /* a random phase: all were first checked at the same moment */
    else
        wait = judge_jitter(judge, wait);
    if (!changing)
        record->checked = true;
    ev_timer_stop(record->health->loop, &record->check_timer);
    ev_timer_set(&record->check_timer, to_slot(record, wait), 0.);
    ev_timer_start(record->health->loop, &record->check_timer);
}

static void learn(struct record *record, const struct smtp_capabilities *capabilities, int64_t now)
{
    struct backend *backend = record->backend;
    uint32_t flags = capabilities->flags | BACKEND_CAPABILITIES_KNOWN;

    if (atomic_load_explicit(&backend->capabilities, memory_order_relaxed) == flags &&
        atomic_load_explicit(&backend->size_limit, memory_order_relaxed) == capabilities->size_limit)
        return;
    backend_set_capabilities(backend, capabilities);
    publish_offers(record, now, false);
    placement_serve(record->health->farm, now);
}

static void on_decided(void *arg, const struct check_result *result)
{
    struct record *record = arg;
    const struct health_watcher *watcher = &record->health->watcher;
    struct judge *judge = &record->judge;
    uint32_t connections = record_places(record);
    int64_t now = clock_milliseconds();

    judge_saw_connections(judge, connections);
    if (result->capabilities_known)
        learn(record, &result->capabilities, now);
    switch (result->verdict) {
    case CHECK_PASSED:
        /* One that comes and goes is better than none. */
        if (judge_held(judge, now) && !publish_has_others(record))
            judge_release(judge);
        judge_check(judge, true, "", now);
        break;
    case CHECK_FAILED: judge_check(judge, false, result->reason, now); break;
    case CHECK_BUSY:
        if (judge_is_overload(judge, result->told_busy, connections, now))
            judge_load(judge, 0, connections, false, now);
        else
            judge_check(judge, false, result->reason, now);
        break;
    case CHECK_INCONCLUSIVE: break;
    }
    /* Traffic was refused while this one was under way: it may have passed before that. */
    if (record->check_again)
        judge_refused(judge);
    publish(record, now);
    if (result->verdict == CHECK_FAILED && watcher->on_failure)
        watcher->on_failure(watcher->arg, record->configured);
}

static void log_check(const struct record *record, const struct check_times *times)
{
    struct log_record line;
    char key[32];

    if (!log_begin(&line, LOG_LEVEL_DEBUG, "check"))
        return;
    log_string(&line, "backend", backend_name(record->backend));
    for (enum check_stage stage = 0; stage < CHECK_STAGES; stage++) {
        if (times->ms[stage] == CHECK_NOT_REACHED)
            continue;
        (void)snprintf(key, sizeof key, "%s_ms", check_stage_name(stage));
        log_number(&line, key, times->ms[stage]);
    }
    log_end(&line);
}

static void keep_times(struct record *record, const struct check_times *times)
{
    for (enum check_stage stage = 0; stage < CHECK_STAGES; stage++)
        if (times->ms[stage] != CHECK_NOT_REACHED)
            histogram_add(&health_stage_times[stage], times->ms[stage]);
    pthread_mutex_lock(&record->view_lock);
    record->view.check = *times;
    pthread_mutex_unlock(&record->view_lock);
    log_check(record, times);
}

static void on_ended(void *arg, const struct check_times *times)
{
    struct record *record = arg;
    struct line *line = &record->health->checks;

    record->check = NULL;
    keep_times(record, times);
    line_leave(line, &record->turn);
    if (record->check_again) {
        record->check_again = false;
        schedule_check_now(record);
    } else {
        arm_check(record);
    }
}

static bool start(struct turn *turn)
{
    struct record *record = (struct record *)((char *)turn - offsetof(struct record, turn));
    const struct check_handler handler = { on_decided, on_ended, record };
    struct health *health = record->health;
    struct address address;
    struct check_target target = {
        .address = &address,
        .source = &record->pool->source,
        .hostname = health->farm->config->hostname,
        .depth = settings(record)->depth,
        .sender = settings(record)->sender,
        .recipient = settings(record)->recipient,
        .identity = record->pool->identity,
        .tls = record->pool->tls,
        .tls_client = record->pool->tls_client,
        .tls_name = config_backend_tls_name(record->configured),
        .config = health->farm->config,
        .timeout = settings(record)->timeout,
    };

    if (!backend_address(record->backend, &address))
        return false; /* a name without one: the next farm may have it */
    record->check = check_start(health->loop, &target, &handler);
    if (!record->check)
        arm_check(record);
    return record->check != NULL;
}

void schedule_open(struct health *health)
{
    health->checks = (struct line){ .limit = HEALTH_CHECKS_AT_ONCE, .begin = start };
}

void schedule_check_now(struct record *record)
{
    struct health *health = record->health;

    if (atomic_load_explicit(&record->backend->admin, memory_order_relaxed) == BACKEND_MAINT)
        return;
    if (record->check) {
        record->check_again = true;
        return;
    }
    ev_timer_stop(health->loop, &record->check_timer);
    line_enter(&health->checks, &record->turn);
}

static void on_time(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    schedule_check_now(timer->data);
}

void schedule_init(struct record *record)
{
    ev_timer_init(&record->check_timer, on_time, 0, 0);
    record->check_timer.data = record;
}

void schedule_hurry(struct record *record)
{
    ev_timer *timer = &record->check_timer;

    if (ev_is_active(timer) &&
        ev_timer_remaining(record->health->loop, timer) * 1000. > settings(record)->interval)
        arm_check(record);
}

void schedule_stop(struct record *record)
{
    struct health *health = record->health;

    ev_timer_stop(health->loop, &record->check_timer);
    check_abort(&record->check);
    line_leave(&health->checks, &record->turn);
    record->check_again = false;
}

void schedule_anew(struct record *record)
{
    schedule_stop(record);
    schedule_check_now(record);
}
