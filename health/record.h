/*
 * What health keeps of one backend. Internal to health/.
 *
 *   worker ──signs──▶ struct record ──mail──▶ control thread ──▶ judge ──publish──▶ struct backend ──▶
 * workers ▲          ▲ check ended┘          └ time
 *
 * A record lives as long as anybody else may hold its backend, because a worker finds it through the backend:
 * when a reload drops the backend the record is retired, and freed when health's own reference is the last.
 */
#ifndef WEIR_HEALTH_RECORD_H
#define WEIR_HEALTH_RECORD_H

#include <ev.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>

#include "health/agent.h"
#include "health/check.h"
#include "health/health.h"
#include "health/judge.h"
#include "health/line.h"
#include "health/order.h"
#include "health/words.h"
#include "net/mailbox.h"

#define HEALTH_CHECKS_AT_ONCE 100
#define HEALTH_SUSPENSION     1000 /* ms */

enum record_sign {
    RECORD_GOOD = 1u << 0,
    RECORD_REFUSED = 1u << 1,
    RECORD_HARD = 1u << 2,
    RECORD_LOAD = 1u << 3,
    RECORD_CAPABILITIES = 1u << 4,
    RECORD_COUNTS = 1u << 5, /* something bad was counted */
};

/* Counted by one worker, read by the control thread. */
struct record_counts {
    alignas(64) _Atomic uint64_t sessions;
    _Atomic uint64_t failed_sessions, answers, bad_answers;
    _Atomic uint64_t replies, reply_time, reply_squares; /* as in struct limit_totals */
};

/* What the log was last told of a limit. */
struct limit_log {
    uint32_t limit;
    int64_t at; /* 0: of nothing yet */
};

struct record {
    /* Read by workers with every good sign, so apart from what is written often. */
    alignas(64) struct health *health;
    _Atomic uint32_t good_every; /* tell of every so many good signs; 0: of none */
    _Atomic bool at_work;        /* it has just answered, and carries a good deal */
    uint32_t workers;
    struct record_counts *counts; /* [workers] */

    /* Written by workers. The mail is in the box while `posted`. */
    alignas(64) struct mail mail;
    _Atomic bool posted;
    _Atomic uint32_t signs; /* enum record_sign bits since the last delivery */
    _Atomic uint32_t good;

    /* The control thread's alone from here on. */
    alignas(64) struct record *next; /* of those watched, or of those retired */
    bool retired;
    bool newcomer;                           /* while a new farm is taken over: it was not of the old one */
    uint64_t farm_serial;                    /* of the farm that last had it */
    struct backend *backend;                 /* held */
    const struct config_backend *configured; /* of health->farm; NULL before the first */
    const struct config_pool *pool;          /* the first that lists it: its health settings count */
    struct address place;                    /* where it has been looked for */
    struct judge judge;
    struct orders orders;
    uint32_t trial_held;           /* HALF-OPEN: places from before the trial, which it may keep */
    uint32_t peers_down;           /* other instances that can't reach it */
    bool peers_agree;              /* so many that it is a verdict */
    ev_timer peers_timer;          /* looked at, because one more can't */
    struct limit_totals totals;    /* at the last tick, the others' too */
    struct backend_replies others; /* that other instances have had */
    bool pooled;                   /* theirs count too */
    uint64_t own_replies;          /* at the last tick … */
    int64_t own_at;                /* … and when there were more of them; 0: none yet */
    struct limit_log limit_log[2]; /* in force, wanted */

    struct turn turn;     /* to be checked */
    struct check *check;  /* running */
    bool check_again;     /* as soon as the one running has ended */
    bool checked;         /* at its own phase already */
    ev_timer check_timer; /* the next check */

    struct agent *agent; /* NULL: it never had one */

    ev_timer wake_timer; /* the judge's time, or the end of a suspension */
    int64_t suspended;   /* until; 0: not, or its end was announced */

    pthread_mutex_t view_lock;
    struct health_view view; /* under it */
};

struct health {
    struct ev_loop *loop;
    struct mailbox mailbox;
    struct farm *farm; /* held; NULL before the first */
    struct record *records, *retired;
    struct words words; /* on addresses that are away */
    struct health_watcher watcher;
    struct line checks, agents;
    ev_timer sweep;  /* what needs doing now and then */
    ev_timer limits; /* every LIMIT_TICK while there is traffic */
};

static inline struct record *record_of(const struct backend *backend)
{
    return atomic_load_explicit(&backend->health, memory_order_acquire);
}

/* Places taken on it, by all instances. */
static inline uint32_t record_places(const struct record *record)
{
    return atomic_load_explicit(&record->backend->connections, memory_order_relaxed) +
           atomic_load_explicit(&record->backend->others, memory_order_relaxed);
}

static inline void record_arm(struct record *record, ev_timer *timer, int64_t milliseconds)
{
    ev_timer_stop(record->health->loop, timer);
    ev_timer_set(timer, milliseconds > 0 ? (double)milliseconds / 1000. : 0., 0.);
    ev_timer_start(record->health->loop, timer);
}

/* record.c: life. NULL when memory is out. */
struct record *record_create(struct health *health, struct backend *backend, uint32_t workers);
/* Take over the settings of health->farm (its `pool`, and what is `given`); a new one is checked at once, and
 * so is one that has moved. `slowly`: a new one is a newcomer among backends that are at work. */
void record_configure(struct record *record, const struct farm_given *given, bool slowly, int64_t now);
/* One that was retired is of the farm again, and begins anew. */
void record_revive(struct record *record, int64_t now);
/* What the judge is to go by. With a pool only. */
void record_settings(const struct record *record, struct judge_settings *out);
/* No more checks; signs that still come are nothing to it. */
void record_retire(struct record *record);
/* Nobody else holds the backend, so that nobody can find the record any more. */
bool record_forgotten(const struct record *record);
void record_free(struct record **record);

/* peers.c: what other instances have found out. */
void peers_init(struct record *record);
void peers_stop(struct record *record);

/* signs.c: what workers report, delivered. */
void record_on_mail(struct mail *mail, void *owner);
/* Tell the judge what has been counted. */
void record_counted(struct record *record, int64_t now);

/* schedule.c: when to check. */
void schedule_open(struct health *health);
void schedule_init(struct record *record);
void schedule_check_now(struct record *record);
/* It has moved: a check that runs is none of the new place. */
void schedule_anew(struct record *record);
/* The interval may have become shorter. */
void schedule_hurry(struct record *record);
void schedule_stop(struct record *record);

/* publish.c: let the world know what the judge thinks, and come back when it may think differently. */
void publish_init(struct record *record);
void publish(struct record *record, int64_t now);
/* The pools of this backend look at who is usable anew. `came_up`: it has come into service. */
void publish_service(const struct record *record, int64_t now, bool came_up);
/* What the pools of this backend offer in EHLO. */
void publish_offers(const struct record *record, int64_t now, bool came_up);
void publish_view(struct record *record, enum backend_state state, const char *reason);
/* Weight, cap and whose word the admin state is, for those who look. */
void publish_orders(struct record *record);
void publish_stop(struct record *record);
/* Whether the pool is in a panic: less than half of it is usable, and some of it is only ejected. */
void publish_panic(const struct pool *pool);
/* Whether each of its pools has another one in service. */
bool publish_has_others(const struct record *record);
/* Whether its pools can do without it (balancing.md "Health": half of the weight, but one always). */
bool publish_can_spare(const struct record *record);

/* limits.c: overload limits. */
void limits_init(struct record *record);
/* Feed it with what was counted. True if something was since the last time. */
bool limits_tick(struct record *record, int64_t now);
/* Log it and put it into the view. */
void limits_show(struct record *record, int64_t now);

#endif
