/*
 * Overload limits between the workers' counters and the world: one timer feeds them all, and what comes of it
 * is published, logged and kept for whoever asks. A limit that flaps must not fill the log: a fall is told at
 * once and then not for ten seconds, a rise once a minute, and its end.
 */
#include "health/record.h"
#include "net/log.h"

#define LOG_FALLS (10 * 1000) /* ms between two lines */
#define LOG_RISES (60 * 1000)
#define LOG_LEAST 10 /* per cent: less is no news */

static void add_own(const struct record *record, struct limit_totals *totals)
{
    for (uint32_t i = 0; i < record->workers; i++) {
        const struct record_counts *counts = &record->counts[i];

        totals->replies += atomic_load_explicit(&counts->replies, memory_order_relaxed);
        totals->milliseconds += atomic_load_explicit(&counts->reply_time, memory_order_relaxed);
        totals->squares += atomic_load_explicit(&counts->reply_squares, memory_order_relaxed);
        totals->not_now += atomic_load_explicit(&counts->bad_answers, memory_order_relaxed);
        totals->answers += atomic_load_explicit(&counts->answers, memory_order_relaxed);
    }
}

void limits_init(struct record *record)
{
    record->limit_log[0].limit = record->limit_log[1].limit = BACKEND_NO_CEILING;
    record->view.limit = record->view.limit_wanted = BACKEND_NO_CEILING;
}

/* Where there is no limit, max-connections is it. */
static void put_limit(struct log_record *line, const char *key, const struct record *record, uint32_t limit)
{
    if (limit == BACKEND_NO_CEILING && record->judge.settings.max_connections)
        limit = record->judge.settings.max_connections;
    if (limit == BACKEND_NO_CEILING)
        log_plain(line, key, "none");
    else
        log_number(line, key, limit);
}

static void write_line(const struct record *record, const struct limit_level *level, uint32_t from,
                       bool in_force)
{
    const struct limit *limit = &record->judge.limit;
    struct log_record line;

    if (!log_begin(&line, level->limit < from ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "backend-limit"))
        return;
    log_string(&line, "backend", backend_name(record->backend));
    if (!in_force)
        log_plain(&line, "mode", "observe");
    put_limit(&line, "from", record, from);
    put_limit(&line, "to", record, level->limit);
    log_plain(&line, "reason", limit_cause_name(level->cause));
    log_number(&line, "short_ms", limit_short(limit) / 1000);
    log_number(&line, "baseline_ms", limit_baseline(limit) / 1000);
    log_number(&line, "inflight", record_places(record));
    log_end(&line);
}

static bool is_news(const struct limit_log *log, uint32_t limit, int64_t now)
{
    int64_t passed = now - log->at;
    bool little = (uint64_t)limit * 100 < (uint64_t)log->limit * (100 + LOG_LEAST) &&
                  (uint64_t)limit * 100 > (uint64_t)log->limit * (100 - LOG_LEAST);

    if (limit == log->limit)
        return false;
    if (limit == BACKEND_NO_CEILING || log->limit == BACKEND_NO_CEILING)
        return passed >= LOG_FALLS;
    return !little && passed >= (limit < log->limit ? LOG_FALLS : LOG_RISES);
}

static void tell(struct record *record, struct limit_log *log, const struct limit_level *level, bool in_force,
                 int64_t now)
{
    if (!is_news(log, level->limit, now))
        return;
    write_line(record, level, log->limit, in_force);
    log->limit = level->limit;
    log->at = now;
}

static bool is_recent(int64_t at, int64_t now)
{
    return at && now - at < LIMIT_FORGET;
}

void limits_show(struct record *record, int64_t now)
{
    const struct limit *limit = &record->judge.limit;
    bool observed = limit->settings.mode == CONFIG_ADAPTIVE_OBSERVE;

    tell(record, &record->limit_log[0], &limit->force, true, now);
    if (observed)
        tell(record, &record->limit_log[1], &limit->wanted, false, now);
    pthread_mutex_lock(&record->view_lock);
    record->view.limit = limit->force.limit;
    record->view.limit_wanted = limit->wanted.limit;
    record->view.limit_observed = observed;
    record->view.reply_short = limit_short(limit);
    record->view.reply_baseline = limit_baseline(limit);
    record->view.own_sign = is_recent(record->own_at, now) || is_recent(limit->force.last_told, now);
    pthread_mutex_unlock(&record->view_lock);
}

/* The others' and one's own. */
static void sum_up(struct record *record, int64_t now)
{
    struct limit_totals own = { 0 };

    add_own(record, &own);
    if (own.replies != record->own_replies)
        record->own_at = now;
    record->own_replies = own.replies;
    record->totals = own;
    if (record->pooled) {
        record->totals.own_replies = own.replies;
        record->totals.own_milliseconds = own.milliseconds;
    }
    record->totals.replies += record->others.replies;
    record->totals.milliseconds += record->others.milliseconds;
    record->totals.squares += record->others.squares;
}

bool limits_tick(struct record *record, int64_t now)
{
    uint64_t before = record->totals.replies + record->totals.answers;
    struct limit *limit = &record->judge.limit;
    int64_t decided = limit->decided;
    uint32_t places = record_places(record);
    bool at_work;

    if (!record->pool)
        return false;
    sum_up(record, now);
    /* The places of a trial follow what the backend still has, and the number of instances. */
    if (judge_replies(&record->judge, &record->totals, places, now) ||
        record->judge.state == BACKEND_HALF_OPEN)
        publish(record, now);
    else if (limit->decided != decided)
        limits_show(record, now);
    at_work = limit_at_work(limit, places, now);
    if (at_work != atomic_load_explicit(&record->at_work, memory_order_relaxed))
        atomic_store_explicit(&record->at_work, at_work, memory_order_relaxed);
    return record->totals.replies + record->totals.answers != before;
}

bool health_at_work(const struct backend *backend)
{
    const struct record *record = record_of(backend);

    return record && atomic_load_explicit(&record->at_work, memory_order_relaxed);
}

void health_hear_replies(struct backend *backend, const struct backend_replies *more)
{
    struct record *record = record_of(backend);

    if (!record || !record->pool)
        return;
    if (record->pooled != (more != NULL))
        limit_relearn(&record->judge.limit);
    record->pooled = more;
    if (!more)
        return;
    record->others.replies += more->replies;
    record->others.milliseconds += more->milliseconds;
    record->others.squares += more->squares;
}

bool health_replies(const struct backend *backend, struct backend_replies *totals)
{
    const struct record *record = record_of(backend);
    struct limit_totals own = { 0 };

    if (!record || !record->pool || record->pool->adaptive_limit == CONFIG_ADAPTIVE_OFF)
        return false;
    add_own(record, &own);
    *totals = (struct backend_replies){ own.replies, own.milliseconds, own.squares };
    return true;
}

void health_finding(const struct backend *backend, bool *down, uint32_t *limit)
{
    struct health_view view;

    health_view(backend, &view);
    *down = view.state == BACKEND_DOWN;
    *limit = !view.own_sign ? UINT32_MAX : view.limit == BACKEND_NO_CEILING ? 0 : view.limit;
}
