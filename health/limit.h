/*
 * The overload limit of a backend: how many places it gets, by how long it takes to answer MAIL and RCPT and
 * by what it says (balancing.md, "Overload limit per backend"). Pure: no clock, no sockets, no atomics.
 *
 *   replies ──10 of them, or 10 s──▶ short ──every 10 s, while nothing holds it back──▶ the past, 10 min
 *                                      │                                                     │ 10th
 * percentile ▼                                                     ▼ slow, or "not now"? ── yes ──▶ limit ←
 * 0.9 · min(limit, places)         baseline └─ no, and 80 % of it used ──▶ limit + 2 % of the cap 421 ──▶
 * limit · 0.7
 *
 * It owns all that is known of a backend's reply times. It is fed with totals since the beginning, as workers
 * count them and others have told, and with the places that are taken: those of this instance, or of the
 * farm.
 */
#ifndef WEIR_HEALTH_LIMIT_H
#define WEIR_HEALTH_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "balancer/backend.h"
#include "health/window.h"

#define LIMIT_TICK        250              /* ms; feed it so often while replies come, … */
#define LIMIT_TICK_IDLE   1000             /* … and so often while none do */
#define LIMIT_SAMPLES     10               /* that it decides on … */
#define LIMIT_DECIDE      (10 * 1000)      /* … or after this time; also the time constant of `short` */
#define LIMIT_PAST        60               /* slots … */
#define LIMIT_SLOT        (10 * 1000)      /* … of this length or longer: ten minutes */
#define LIMIT_SLOT_LEAST  20               /* replies in a slot, lest its mean be mere chance */
#define LIMIT_FORGET      (10 * 60 * 1000) /* without a sign of life all is forgotten, the limit too */
#define LIMIT_TOLD_MOMENT 1000             /* 421s within this time of a cut are of the same moment */
#define LIMIT_AT_WORK     2000             /* since a reply */
#define LIMIT_STEP        1000             /* between two steps up */

struct limit_settings {
    enum config_adaptive_limit mode; /* of reply times and "not now"; 421s count in any */
    uint32_t max_connections;        /* 0: no limit */
};

/* Since the beginning; they never fall. */
struct limit_totals {
    uint64_t own_replies,
        own_milliseconds;  /* of `replies` those of this instance, where they are of several */
    uint64_t replies;      /* 2xx and 3xx to MAIL and RCPT … */
    uint64_t milliseconds; /* … and the sum of their times … */
    uint64_t squares;      /* … and of the squares of these, ms² */
    uint64_t answers;      /* to MAIL, DATA and messages, whatever they said … */
    uint64_t not_now;      /* … and those that were 4.3.x, or never came */
};

enum limit_cause {
    LIMIT_UNTOUCHED,
    LIMIT_DOUBTFUL, /* it stays as it is */
    LIMIT_SLOW,     /* replies take too long */
    LIMIT_NOT_NOW,  /* too many 4.3.x, or no reply */
    LIMIT_TOLD,     /* 421 */
    LIMIT_GROWS,    /* nothing of this, and what it has is used */
    LIMIT_SET,      /* a new configuration, or long silence */
};
#define LIMIT_CAUSES (LIMIT_SET + 1)
const char *limit_cause_name(enum limit_cause cause); /* for the log */

struct limit_level {
    uint32_t limit;         /* BACKEND_NO_CEILING: none of its own */
    uint32_t cap;           /* where it ends; set when it begins */
    enum limit_cause cause; /* of its last change */
    int64_t last_cut, last_told, last_sign, last_step;
};

struct limit_slot {
    int64_t ended;
    float mean;   /* ms */
    float rate;   /* replies a second */
    float places; /* on average */
};

/* Of reply times, over some time past. */
struct limit_average {
    double age;     /* ms since it began; 0: it has not, and the rest is of before */
    double mean;    /* ms */
    double square;  /* mean of their squares */
    double scatter; /* variance of `mean` ÷ variance of one reply */
};

struct limit {
    struct limit_settings settings;
    uint32_t highest;          /* places seen */
    struct limit_level force;  /* what is to be kept */
    struct limit_level wanted; /* with `observe`: what would be; else the same */

    struct limit_totals seen; /* at the last decision */
    int64_t decided;          /* its time; 0: none yet, or none that counts */
    int64_t heard;            /* when the last replies came, or the last bad sign */
    uint64_t last_replies;    /* of the last tick … */
    int64_t answered;         /* … and when there were more of them than before; 0: never */
    struct window not_now;    /* since the last cut, ten seconds at most */

    /* Averages that forget with LIMIT_DECIDE; the glance is of the last moment. The two of reply times begin
     * anew at a cut, and when it has taken effect: what came before it has been answered. */
    struct limit_average brief; /* `short` */
    struct limit_average glance;
    struct limit_average own; /* the same as the glance, of this instance's own replies */
    double glance_rate;       /* replies a second */
    uint32_t settling;        /* places that were taken at a cut which has not taken effect; 0: none such */
    double rate;              /* replies a second */
    double places;            /* taken */
    double baseline;          /* ms; 0: not known */
    double usual_worst;       /* 90th percentile of the past, ms */
    double usual_rate, usual_places;

    struct limit_slot past[LIMIT_PAST]; /* a ring */
    uint32_t n_past, next_past;
    int64_t slot_began; /* 0: none is open */
    double slot_replies, slot_milliseconds, slot_place_time;
};

void limit_init(struct limit *limit, const struct limit_settings *settings);
/* Over a reload: what was learned stays, as far as it fits the new settings. */
void limit_configure(struct limit *limit, const struct limit_settings *settings);
/* From now on it is fed with the replies of more instances, or of fewer: what is usual is learned anew, and
 * what was found stands. */
void limit_relearn(struct limit *limit);
/* What it owed when it was put out, and how slow it was then, is not held against it. */
void limit_forgive(struct limit *limit);
/* Forget what was learned, not the settings and the totals. */
void limit_forget(struct limit *limit);

/* So many places are taken: cheap, to be called now and then. */
void limit_saw(struct limit *limit, uint32_t places);
/* The relay said 421, or "too many connections". */
void limit_told(struct limit *limit, uint32_t places, int64_t now);
/* Time passes: to be called every LIMIT_TICK. True when a limit has changed. */
bool limit_tick(struct limit *limit, const struct limit_totals *totals, uint32_t places, int64_t now);

/* It carries more than next to nothing, and has just answered: whoever waits for it waits because it is busy.
 */
bool limit_at_work(const struct limit *limit, uint32_t places, int64_t now);
/* The least that a limit may be: max(2, 5 % of its cap). */
uint32_t limit_lowest(const struct limit *limit);
/* Time of MAIL and RCPT replies now, and what it usually is, µs; 0: not known. */
uint64_t limit_short(const struct limit *limit);
uint64_t limit_baseline(const struct limit *limit);

#endif
