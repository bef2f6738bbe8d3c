/*
 * Signs from workers. Reporting is a few atomics; a mail goes out only when the control thread may have
 * something to decide, and never a second one while the first is in the box.
 */
#include <stddef.h>

#include "balancer/placement.h"
#include "health/record.h"
#include "net/clock.h"

static void post(struct record *record, enum record_sign sign)
{
    atomic_fetch_or(&record->signs, (uint32_t)sign);
    /* Either the delivery that is due sees the bit (it clears `posted` before it reads), or a new one is. */
    if (!atomic_exchange(&record->posted, true))
        mailbox_post(&record->health->mailbox, &record->mail);
}

static void report_good(struct backend *backend, struct record *record)
{
    uint32_t every;

    /* In the normal case nothing is written here: a backend's cache lines are everybody's. */
    if (atomic_load_explicit(&backend->hard_in_a_row, memory_order_relaxed))
        atomic_store_explicit(&backend->hard_in_a_row, 0, memory_order_relaxed);
    if (atomic_load_explicit(&backend->loads_in_a_row, memory_order_relaxed))
        atomic_store_explicit(&backend->loads_in_a_row, 0, memory_order_relaxed);
    every = record ? atomic_load_explicit(&record->good_every, memory_order_relaxed) : 0;
    if (every && atomic_fetch_add_explicit(&record->good, 1, memory_order_relaxed) + 1 >= every)
        post(record, RECORD_GOOD);
}

static void suspend(struct backend *backend, int64_t until)
{
    int64_t before = atomic_load_explicit(&backend->suspended_until, memory_order_relaxed);

    while (before < until &&
           !atomic_compare_exchange_weak_explicit(&backend->suspended_until, &before, until,
                                                  memory_order_relaxed, memory_order_relaxed))
        continue;
}

void health_report(struct backend *backend, enum health_sign sign, int64_t now)
{
    struct record *record = record_of(backend);
    uint32_t in_a_row;

    switch (sign) {
    case HEALTH_GOOD: report_good(backend, record); break;
    case HEALTH_REFUSED:
        suspend(backend, now + HEALTH_SUSPENSION);
        if (record)
            post(record, RECORD_REFUSED);
        break;
    case HEALTH_HARD:
        in_a_row = atomic_fetch_add_explicit(&backend->hard_in_a_row, 1, memory_order_relaxed) + 1;
        if (record && (in_a_row >= JUDGE_SIGNS || atomic_load(&backend->state) == BACKEND_HALF_OPEN))
            post(record, RECORD_HARD);
        break;
    case HEALTH_LOAD:
        atomic_fetch_add_explicit(&backend->loads_in_a_row, 1, memory_order_relaxed);
        if (record)
            post(record, RECORD_LOAD);
        break;
    }
}

/* One writer each. */
static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static struct record_counts *counts_of(const struct record *record, uint32_t worker)
{
    return &record->counts[worker % record->workers];
}

void health_report_session(struct backend *backend, uint32_t worker, bool failed)
{
    struct record *record = record_of(backend);

    if (!record)
        return;
    count(&counts_of(record, worker)->sessions, 1);
    if (!failed)
        return;
    count(&counts_of(record, worker)->failed_sessions, 1);
    post(record, RECORD_COUNTS);
}

static bool is_not_now(const struct health_reply *reply)
{
    if (reply->code == 0)
        return true;
    return (reply->code == 451 || reply->code == 452) &&
           (reply->status_class == 0 || (reply->status_class == 4 && reply->subject == 3));
}

/* Refusals don't count: relays delay them on purpose. */
static void count_reply(struct record_counts *counts, const struct health_reply *reply)
{
    if (reply->final || reply->slowed || reply->code < 200 || reply->code > 399)
        return;
    count(&counts->replies, 1);
    count(&counts->reply_time, reply->took);
    count(&counts->reply_squares, (uint64_t)reply->took * reply->took);
}

void health_report_reply(struct backend *backend, uint32_t worker, const struct health_reply *reply)
{
    struct record *record = record_of(backend);
    struct record_counts *counts;

    if (!record)
        return;
    counts = counts_of(record, worker);
    if (reply->verb == SMTP_VERB_MAIL || reply->verb == SMTP_VERB_RCPT)
        count_reply(counts, reply);
    /* Recipients are many and of all kinds. */
    if (reply->verb != SMTP_VERB_MAIL && reply->verb != SMTP_VERB_DATA && !reply->final)
        return;
    count(&counts->answers, 1);
    if (!is_not_now(reply))
        return;
    count(&counts->bad_answers, 1);
    post(record, RECORD_COUNTS);
}

void record_counted(struct record *record, int64_t now)
{
    uint64_t sessions = 0, failed = 0, answers = 0, bad = 0;

    for (uint32_t i = 0; i < record->workers; i++) {
        const struct record_counts *counts = &record->counts[i];

        failed += atomic_load_explicit(&counts->failed_sessions, memory_order_relaxed);
        sessions += atomic_load_explicit(&counts->sessions, memory_order_relaxed);
        bad += atomic_load_explicit(&counts->bad_answers, memory_order_relaxed);
        answers += atomic_load_explicit(&counts->answers, memory_order_relaxed);
    }
    judge_sessions(&record->judge, sessions, failed, publish_can_spare(record), now);
    judge_answers(&record->judge, answers, bad, now);
}

void health_report_capabilities(struct backend *backend, const struct smtp_capabilities *capabilities)
{
    struct record *record = record_of(backend);
    uint32_t known = atomic_load_explicit(&backend->capabilities, memory_order_relaxed);

    if (known == (capabilities->flags | BACKEND_CAPABILITIES_KNOWN) &&
        atomic_load_explicit(&backend->size_limit, memory_order_relaxed) == capabilities->size_limit)
        return;
    backend_set_capabilities(backend, capabilities);
    if (record)
        post(record, RECORD_CAPABILITIES);
}

/* A check will tell whether it is there at all; one that fails is enough. */
static void doubt(struct record *record)
{
    judge_refused(&record->judge);
    schedule_check_now(record);
}

static void on_refused(struct record *record)
{
    record->suspended = atomic_load_explicit(&record->backend->suspended_until, memory_order_relaxed);
    doubt(record);
}

void record_on_mail(struct mail *mail, void *owner)
{
    struct record *record = (struct record *)((char *)mail - offsetof(struct record, mail));
    struct backend *backend = record->backend;
    struct judge *judge = &record->judge;
    enum backend_state before = judge->state;
    uint32_t signs, good, connections, hard, loads;
    int64_t now = clock_milliseconds();

    (void)owner;
    atomic_store(&record->posted, false);
    signs = atomic_exchange(&record->signs, 0);
    good = atomic_exchange_explicit(&record->good, 0, memory_order_relaxed);
    if (record->retired || !record->pool)
        return;
    connections = record_places(record);
    hard = atomic_load_explicit(&backend->hard_in_a_row, memory_order_relaxed);
    loads = atomic_load_explicit(&backend->loads_in_a_row, memory_order_relaxed);
    if (signs & RECORD_HARD)
        judge_hard(judge, hard, publish_can_spare(record), now);
    if (signs & RECORD_COUNTS)
        record_counted(record, now);
    if (signs & RECORD_LOAD)
        judge_load(judge, loads, connections, publish_can_spare(record), now);
    if (signs & RECORD_GOOD)
        judge_good(judge, good, connections, now);
    if (signs & RECORD_REFUSED)
        on_refused(record);
    /* Perhaps it is not ill but dead. Then it is DOWN, and back as soon as its checks say so. */
    if (judge->state == BACKEND_EJECTED && before != BACKEND_EJECTED)
        doubt(record);
    if (signs & RECORD_CAPABILITIES) {
        publish_offers(record, now, false);
        placement_serve(record->health->farm, now);
    }
    publish(record, now);
}
