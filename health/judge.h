/*
 * The judge: from checks and passive signs to a backend's state, ceiling and weight. Pure: no clock, no
 * sockets, no atomics, so that a test can drive it through years in a table.
 *
 *            first check                     fall checks failed in a row,
 *   INIT ──passed──────────────────▶ UP ─── or one behind a refused connect ──▶ DOWN
 *     └───failed──▶ DOWN              │  ◀── rise checks passed, slow start ────┘ ▲
 *                                     │                                           │ as from UP
 *              3 hard or load signs   ▼     time is up          3 good signs      │
 *                                  EJECTED ─────────────▶ HALF-OPEN ─────────▶ UP, slow start
 *                                     ▲────── any bad sign ───┘
 *
 *   What is ejected while nothing else is in service is used all the same, and needs no trial when time is
 * up.
 *
 *   UP ── 5 % of its answers say "not now" (4.3.x) ──▶ DEGRADED, less weight ── under 2.5 % for 10 s ──▶ UP
 *
 * Its agent can tell it down from every state; it then stays DOWN, whatever checks say, until the agent takes
 * that back. From the third time in short order that it goes DOWN, passed checks count only once a hold is
 * over, which doubles: 5 s, 10 s …
 *
 * Half of twenty sessions that fail within ten seconds eject as three in a row do. How many places it gets is
 * another matter: health/limit.h. All times are milliseconds of the monotonic clock.
 */
#ifndef WEIR_HEALTH_JUDGE_H
#define WEIR_HEALTH_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "balancer/backend.h"
#include "health/limit.h"
#include "health/window.h"

#define JUDGE_REASON_MAX  96
#define JUDGE_NEVER       INT64_MAX
#define JUDGE_SIGNS       3           /* in a row eject; as many good ones end a trial */
#define JUDGE_EJECT_FIRST (30 * 1000) /* doubled each time */
#define JUDGE_EJECT_LAST  (300 * 1000)
#define JUDGE_FALLS       3               /* the first DOWN of several that is followed by a hold */
#define JUDGE_HOLD_FIRST  (5 * 1000)      /* doubled each time */
#define JUDGE_HOLD_LAST   (60 * 1000)     /* a relay that really is back is not to wait for long */
#define JUDGE_FAILING     500             /* thousandths of sessions that fail: ejected */
#define JUDGE_DEGRADED    50              /* thousandths of answers that say "not now": DEGRADED … */
#define JUDGE_RECOVERED   25              /* … until they are fewer than these */
#define JUDGE_FORGET      (5 * 60 * 1000) /* one ejection, or one DOWN, is forgotten per this much clean time */

struct judge_settings {
    uint32_t fall, rise;      /* checks; at least 1 */
    uint32_t weight;          /* 0: nothing new */
    uint32_t max_connections; /* 0: no limit */
    uint32_t slow_start;      /* ms; 0: none */
    enum config_adaptive_limit adaptive;
};

struct judge {
    struct judge_settings settings;
    enum backend_state state;
    char reason[JUDGE_REASON_MAX]; /* of the last change of state */
    int64_t since;                 /* its time */
    uint32_t counter;              /* rise and fall as one number, see judge.c */
    bool refused;                  /* traffic was refused: one failed check suffices */
    bool begins_slowly;            /* in INIT: a newcomer among backends that are at work */
    bool told_down;                /* by its agent */
    char told[JUDGE_REASON_MAX];
    uint32_t falls;     /* times that it went DOWN, as far as they are not forgotten */
    int64_t rose;       /* when it last ceased to be DOWN */
    int64_t held_until; /* DOWN: passed checks do not count before this */
    uint32_t ejections; /* n of 30 s · 2^(n−1) */
    int64_t ejected_until, clean_since;
    uint32_t trial_good;
    int64_t slow_since; /* JUDGE_NEVER: no slow start */
    struct limit limit;
    struct window sessions, answers;
    uint32_t share; /* of its weight, in thousandths; less than all when DEGRADED */
    uint64_t random;
};

/* In INIT. `seed` is for jitter. */
void judge_init(struct judge *judge, const struct judge_settings *settings, uint64_t seed);
/* Back to INIT: nothing is known of it any more, and once it is up it begins slowly. */
void judge_begin(struct judge *judge, const char *reason, int64_t now);
/* A reload has given it another address: that is another machine, which may do what this one could not. One
 * that is in service stays so, and a failed check takes it out. */
void judge_moved(struct judge *judge, int64_t now);
/* New settings over a reload; the history stays. */
void judge_configure(struct judge *judge, const struct judge_settings *settings);

/* A check ended. `reason` as for the log ("connect refused"); ignored when it passed. */
void judge_check(struct judge *judge, bool passed, const char *reason, int64_t now);
/* Whether a check that found the relay too busy to greet (no banner in time, or with `told` a banner 421)
 * says no more than that it is full: then it is no failure but a load sign. */
bool judge_is_overload(const struct judge *judge, bool told, uint32_t connections, int64_t now);
/* The backend's name has no address. */
void judge_unresolved(struct judge *judge, const char *reason, int64_t now);

/* Its agent says that it is down, and why; or (NULL) takes that back: then checks bring it up. */
void judge_told(struct judge *judge, const char *reason, int64_t now);
/* Whether checks that pass do not count, because it went down too often; and an end to that: what flaps is
 * better than nothing. */
bool judge_held(const struct judge *judge, int64_t now);
void judge_release(struct judge *judge);

/* Passive signs. `may_eject`: the pool can spare it. `in_a_row` counts this sign too. */
void judge_refused(struct judge *judge);
/* Other instances, enough of them, can't reach it. */
void judge_peers(struct judge *judge, bool may_eject, int64_t now);
void judge_hard(struct judge *judge, uint32_t in_a_row, bool may_eject, int64_t now);
void judge_load(struct judge *judge, uint32_t in_a_row, uint32_t connections, bool may_eject, int64_t now);
void judge_good(struct judge *judge, uint32_t signs, uint32_t connections, int64_t now);
/* What was counted since the beginning: every LIMIT_TICK, or LIMIT_TICK_IDLE while nothing comes. True when
 * the limit has changed. `connections` are those of the farm, here as above and below. */
bool judge_replies(struct judge *judge, const struct limit_totals *totals, uint32_t connections, int64_t now);

/* Counts since the beginning: sessions and those that failed (a hard sign each); answers to MAIL, DATA and
 * whole messages and those that said "not now". To be told when a bad one has come, and at judge_next(). */
void judge_sessions(struct judge *judge, uint64_t total, uint64_t failed, bool may_eject, int64_t now);
void judge_answers(struct judge *judge, uint64_t total, uint64_t bad, int64_t now);

/* Time passes: to be called at judge_next() or later. `others`: some are in service in each of its pools. */
void judge_tick(struct judge *judge, bool others, int64_t now);
int64_t judge_next(const struct judge *judge, int64_t now);
/* It had so many connections: cheap, to be called now and then. */
void judge_saw_connections(struct judge *judge, uint32_t connections);

/* What to publish. */
uint32_t judge_ceiling(const struct judge *judge, int64_t now);
/* How many at a time try whether it is well again; BACKEND_NO_CEILING: it is not on trial. */
uint32_t judge_trial(const struct judge *judge);
uint32_t judge_milliweight(const struct judge *judge, int64_t now);

/* Checks should come at the fast interval: a change may be under way. */
bool judge_changing(const struct judge *judge);
/* `milliseconds` ±10 %. */
int64_t judge_jitter(struct judge *judge, int64_t milliseconds);
/* Uniform in [0, below). */
int64_t judge_random(struct judge *judge, int64_t below);

#endif
