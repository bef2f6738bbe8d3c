/*
 * Where this goes beyond "short/baseline > 1.5 and short − baseline > 50 ms", and why
 * (tests/unit/test_limit.c runs both through a day; docs/overload.md has the figures):
 *
 * - The baseline is a percentile of means over ten seconds, not of single replies: of these a tenth is always
 *   far quicker than the mean, and a healthy relay whose replies scatter would look overloaded for ever.
 * - Slow is what is slower than nine tenths of the past, by more than the scatter of the replies explains
 *   (three standard errors). Between the two nothing is decided.
 * - A busy hour makes replies slower too, but there are more of them. While a relay answers as much as its
 *   places let expect, only three times the baseline is overload, and while it answers several times as much
 *   as usual, more; and then a cut takes a tenth of the limit, not of what is taken.
 * - What is far too slow beyond doubt is cut at once, and as deep as it is slow: what takes three times as
 * long has three times too much on it. Steps of a tenth would cost the mail as much time as there are steps.
 * - A 421 is the relay's word that it can't take what it has, so it is cut from the places taken. From the
 * limit, which may be far above, it would go on getting newcomers, and they 421s.
 * - A cut takes effect when sessions end. Until the places taken have fallen to the limit it is not cut again
 *   (but after ten seconds), and what is measured begins anew: else every overload would end at the floor.
 * - The past is not written on while the limit holds the backend back, for the baseline would follow the
 *   overload. With next to nothing on it a backend can't be overloaded by us: what it takes then is usual.
 */
#include "health/limit.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LOWEST          2
#define LOWEST_PERCENT  5
#define CUT_PERCENT     90
#define CUT_DEEPEST     0.4 /* of the places taken, at once */
#define TOLD_PERCENT    70
#define STEP_PERCENT    2
#define USED_PERCENT    80
#define FULL_PERCENT    95
#define SLOW_RATIO      1.5   /* short ÷ baseline … */
#define SLOW_RATIO_BUSY 3.0   /* … or this, while it answers as much as ever */
#define SLOW_LEAST      50.   /* ms above the baseline */
#define ERRORS          3.    /* standard errors: more is no chance, … */
#define ERRORS_SURE     4.    /* … and this is beyond doubt */
#define GLANCE          2500. /* ms */
#define SLOW_RATIO_SURE 2.0
#define DIMINISHED      0.9 /* of the replies that are usual */
#define NOT_NOW         50  /* thousandths */
#define RISE_PER_MINUTE 1.1 /* of the baseline */
#define LEAST_TIME      0.5 /* ms: times are whole ones, and 0 is no baseline */
#define PAST_PERCENTILE 10
#define PAST_WORST      90
#define PAST_LASTS      ((int64_t)LIMIT_PAST * LIMIT_SLOT)
#define RISE_DIMINISHED 0.8 /* single slots scatter more */

static const char *const causes[] = { "untouched", "doubtful", "slow", "not-now", "told", "grows", "set" };
static_assert(sizeof causes / sizeof *causes == LIMIT_CAUSES, "a name for each cause");

const char *limit_cause_name(enum limit_cause cause)
{
    return causes[cause];
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t percent(uint32_t of, uint32_t percent)
{
    return (uint32_t)((uint64_t)of * percent / 100);
}

static bool mostly(uint32_t places, uint32_t of)
{
    return (uint64_t)places * 100 >= (uint64_t)of * USED_PERCENT;
}

/* --- the limit itself --- */

static uint32_t lowest(uint32_t cap)
{
    return larger(LOWEST, percent(cap, LOWEST_PERCENT));
}

/* Where a limit ends, or would end. Without max-connections that is twice what the backend is known to carry:
 * frozen while there is a limit, else the cap would run away from the limit that climbs to it. */
static uint32_t cap_of(const struct limit *limit, const struct limit_level *level)
{
    if (limit->settings.max_connections)
        return limit->settings.max_connections;
    if (level->limit != BACKEND_NO_CEILING)
        return level->cap;
    return limit->highest > BACKEND_NO_CEILING / 4 ? BACKEND_NO_CEILING / 2 : 2 * limit->highest;
}

/* Every cut passes here. */
static void lower(struct limit *limit, struct limit_level *level, uint32_t to, enum limit_cause cause,
                  int64_t now)
{
    uint32_t cap = cap_of(limit, level);

    level->cap = cap;
    level->limit = larger(lowest(cap), to);
    level->cause = cause;
    level->last_cut = now;
    if (level->limit >= cap)
        level->limit = BACKEND_NO_CEILING; /* so few that nothing can be taken away */
}

/* From the limit, but from `most` where that is less. */
static void cut(struct limit *limit, struct limit_level *level, uint32_t to_percent, uint32_t most,
                enum limit_cause cause, int64_t now)
{
    uint32_t from = level->limit;

    if (from == BACKEND_NO_CEILING)
        from = limit->settings.max_connections ? cap_of(limit, level) : most;
    lower(limit, level, percent(from < most ? from : most, to_percent), cause, now);
}

static bool grow(struct limit_level *level, uint32_t places, int64_t now)
{
    uint32_t step = larger(1, percent(level->cap, STEP_PERCENT));
    int64_t last = level->last_sign > level->last_step ? level->last_sign : level->last_step;

    if (level->limit == BACKEND_NO_CEILING || now - last < LIMIT_STEP)
        return false;
    level->last_step = now;
    if (!mostly(places, level->limit))
        return false; /* what it has is not used: nothing says that it could carry more */
    level->limit = level->cap - level->limit <= step ? BACKEND_NO_CEILING : level->limit + step;
    level->cause = LIMIT_GROWS;
    return true;
}

/* What reply times have a say in; with `off` nothing. */
static struct limit_level *judged(struct limit *limit)
{
    switch (limit->settings.mode) {
    case CONFIG_ADAPTIVE_OFF: break;
    case CONFIG_ADAPTIVE_OBSERVE: return &limit->wanted;
    case CONFIG_ADAPTIVE_ON: return &limit->force;
    }
    return NULL;
}

static void mirror(struct limit *limit)
{
    if (limit->settings.mode != CONFIG_ADAPTIVE_OBSERVE)
        limit->wanted = limit->force;
}

/* `settling`: places that are to become fewer first; 0: they have. */
static void begin_anew(struct limit *limit, uint32_t settling)
{
    if (!settling || !limit->settling)
        limit->settling = settling;
    limit->brief.age = limit->glance.age = 0;
    window_forget(&limit->not_now);
}

void limit_forgive(struct limit *limit)
{
    begin_anew(limit, 0);
    limit->own.age = 0;
    limit->decided = 0; /* nor what has come since the last decision, too little for one */
}

void limit_saw(struct limit *limit, uint32_t places)
{
    limit->highest = larger(limit->highest, places);
}

static bool told(struct limit *limit, struct limit_level *level, uint32_t places, int64_t now)
{
    /* Not again by sessions that began before the last cut was known: it takes effect when others end. */
    int64_t moment = places > level->limit ? LIMIT_DECIDE : LIMIT_TOLD_MOMENT;

    level->last_sign = now;
    if (level->limit != BACKEND_NO_CEILING && now - level->last_told < moment)
        return false;
    level->last_told = now;
    cut(limit, level, TOLD_PERCENT, places, LIMIT_TOLD, now);
    return true;
}

void limit_told(struct limit *limit, uint32_t places, int64_t now)
{
    limit_saw(limit, places);
    limit->heard = now;
    if (limit->settings.mode == CONFIG_ADAPTIVE_OBSERVE)
        (void)told(limit, &limit->wanted, places, now);
    if (told(limit, &limit->force, places, now))
        begin_anew(limit, places);
    mirror(limit);
}

bool limit_at_work(const struct limit *limit, uint32_t places, int64_t now)
{
    return places > limit_lowest(limit) && limit->answered && now - limit->answered < LIMIT_AT_WORK;
}

uint32_t limit_lowest(const struct limit *limit)
{
    return lowest(cap_of(limit, &limit->force));
}

/* --- what is usual --- */

static void close_slot(struct limit *limit)
{
    limit->slot_began = 0;
    limit->slot_replies = limit->slot_milliseconds = limit->slot_place_time = 0;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* The replies a second that may be expected, by what is usual: with fewer places than usual, fewer. */
static double expected(const struct limit *limit, double places)
{
    if (places >= limit->usual_places)
        return limit->usual_rate;
    return limit->usual_rate * places / limit->usual_places;
}

/* The past has one more slot. Down the baseline goes at once, up slowly. */
static void learn(struct limit *limit, const struct limit_slot *last, int64_t began)
{
    float means[LIMIT_PAST] = { 0 };
    size_t n = 0;
    double rate = 0, places = 0, baseline, minutes;
    bool undiminished =
        last->rate >= RISE_DIMINISHED * expected(limit, last->places) || last->places <= limit_lowest(limit);

    for (uint32_t i = 0; i < limit->n_past; i++) {
        const struct limit_slot *slot = &limit->past[i];

        if (last->ended - slot->ended >= PAST_LASTS)
            continue;
        means[n++] = slot->mean;
        rate += slot->rate;
        places += slot->places;
    }
    limit->usual_rate = rate / (double)n;
    limit->usual_places = places / (double)n;
    qsort(means, n, sizeof *means, by_size);
    baseline = means[n * PAST_PERCENTILE / 100];
    minutes = (double)(last->ended - began) / 60000;
    if (limit->baseline > 0 && baseline > limit->baseline) {
        double most = limit->baseline * pow(RISE_PER_MINUTE, undiminished ? fmin(minutes, 1) : 0);

        baseline = fmin(baseline, most);
    }
    limit->baseline = baseline;
    limit->usual_worst = fmin(means[n * PAST_WORST / 100], baseline * SLOW_RATIO_BUSY);
}

/* `held`: what is measured now is not usual. */
static void write_past(struct limit *limit, uint64_t replies, uint64_t milliseconds, uint32_t places,
                       bool held, int64_t now)
{
    int64_t began = limit->slot_began;
    struct limit_slot *slot;

    if (held || (began && now - began >= PAST_LASTS))
        close_slot(limit);
    if (held)
        return;
    if (!limit->slot_began) {
        limit->slot_began = now;
        return;
    }
    limit->slot_replies += (double)replies;
    limit->slot_milliseconds += (double)milliseconds;
    limit->slot_place_time += (double)places * (double)(now - limit->decided);
    if (now - began < LIMIT_SLOT || limit->slot_replies < LIMIT_SLOT_LEAST)
        return;
    slot = &limit->past[limit->next_past];
    limit->next_past = (limit->next_past + 1) % LIMIT_PAST;
    if (limit->n_past < LIMIT_PAST)
        limit->n_past++;
    *slot = (struct limit_slot){
        .ended = now,
        .mean = (float)fmax(limit->slot_milliseconds / limit->slot_replies, LEAST_TIME),
        .rate = (float)(limit->slot_replies * 1000 / (double)(now - began)),
        .places = (float)(limit->slot_place_time / (double)(now - began)),
    };
    close_slot(limit);
    limit->slot_began = now;
    learn(limit, slot, began);
}

/* --- what is now --- */

static void follow(double *average, double value, double weight)
{
    *average += (value - *average) * weight;
}

/* `n` replies of so many ms, and squares of ms, within `passed` ms. */
static void average(struct limit_average *average, double n, double milliseconds, double squares,
                    double passed, double memory)
{
    double weight;

    average->age += passed;
    weight = fmax(1 - exp(-passed / memory), passed / average->age);
    follow(&average->mean, milliseconds / n, weight);
    follow(&average->square, squares / n, weight);
    average->scatter = (1 - weight) * (1 - weight) * average->scatter + weight * weight / n;
}

static double error_of(const struct limit_average *average)
{
    double variance = average->square - average->mean * average->mean;

    return sqrt(fmax(variance, 0) * average->scatter);
}

static void measure(struct limit *limit, const struct limit_totals *totals, uint32_t places, int64_t now)
{
    double n = (double)(totals->replies - limit->seen.replies);
    double milliseconds = (double)(totals->milliseconds - limit->seen.milliseconds);
    double squares = (double)(totals->squares - limit->seen.squares);
    double passed = (double)(now - limit->decided);
    double weight = 1 - exp(-passed / LIMIT_DECIDE);

    follow(&limit->rate, n * 1000 / passed, weight);
    follow(&limit->places, places, weight);
    follow(&limit->glance_rate, n * 1000 / passed, 1 - exp(-passed / GLANCE));
    if (n == 0)
        return;
    average(&limit->brief, n, milliseconds, squares, passed, LIMIT_DECIDE);
    average(&limit->glance, n, milliseconds, squares, passed, GLANCE);
    n = (double)(totals->own_replies - limit->seen.own_replies);
    if (n > 0)
        average(&limit->own, n, (double)(totals->own_milliseconds - limit->seen.own_milliseconds), 0, passed,
                LIMIT_DECIDE);
}

/* Replies come by chance: as many as are expected in the time that the average remembers, ± their root. */
static bool are_fewer(const struct limit *limit, double rate, double memory)
{
    double usual = expected(limit, limit->places);
    double error = sqrt(usual * 1000 / (2 * memory));

    return rate < DIMINISHED * usual - ERRORS * error;
}

static bool is_diminished(const struct limit *limit)
{
    return are_fewer(limit, limit->rate, LIMIT_DECIDE);
}

/* Where the replies are all instances', one of them behind a bad network makes a slow mean. Then those that
 * get their own replies as ever have nothing to do with it. */
static bool is_own_as_ever(const struct limit *limit)
{
    const struct limit_average *own = &limit->own;

    return own->age > 0 &&
           (own->mean <= limit->baseline + SLOW_LEAST || own->mean <= SLOW_RATIO * limit->baseline);
}

/* How many times the baseline it may take. */
static double tolerated(const struct limit *limit)
{
    if (is_diminished(limit))
        return SLOW_RATIO;
    return fmax(SLOW_RATIO_BUSY, SLOW_RATIO * limit->rate / limit->usual_rate);
}

static bool is_far_too_slow(const struct limit *limit)
{
    const struct limit_average *glance = &limit->glance;

    return glance->age > 0 && limit->baseline > 0 && !is_own_as_ever(limit) &&
           glance->mean > limit->baseline + SLOW_LEAST && glance->mean > SLOW_RATIO_SURE * limit->baseline &&
           are_fewer(limit, limit->glance_rate, GLANCE) &&
           glance->mean > limit->usual_worst + ERRORS_SURE * error_of(glance);
}

/* LIMIT_DOUBTFUL: by its mean it is, but that may be chance. */
static enum limit_cause slowness(const struct limit *limit)
{
    const struct limit_average *brief = &limit->brief;

    if (is_far_too_slow(limit))
        return LIMIT_SLOW;
    if (brief->age == 0 || limit->baseline <= 0 || brief->mean <= limit->baseline + SLOW_LEAST ||
        is_own_as_ever(limit) || brief->mean <= limit->usual_worst ||
        brief->mean <= limit->baseline * tolerated(limit))
        return LIMIT_UNTOUCHED;
    return brief->mean > limit->usual_worst + ERRORS * error_of(brief) ? LIMIT_SLOW : LIMIT_DOUBTFUL;
}

static enum limit_cause overload(const struct limit *limit, bool answered)
{
    struct window_share share = window_share(&limit->not_now);

    if (share.total >= WINDOW_LEAST && share.thousandths >= NOT_NOW)
        return LIMIT_NOT_NOW;
    return answered ? slowness(limit) : LIMIT_UNTOUCHED;
}

/* --- deciding --- */

/* How many places a cut begins from: those that are taken, unless it only may be that they are too many. */
static uint32_t cut_from(const struct limit *limit, const struct limit_level *level, enum limit_cause cause,
                         uint32_t places)
{
    bool limited = level->limit != BACKEND_NO_CEILING || limit->settings.max_connections;

    return limited && cause == LIMIT_SLOW && !is_diminished(limit) ? BACKEND_NO_CEILING : places;
}

/* The places at which its replies would take as long as they may: known when it is far too slow, else no
 * bound. While a cut settles, what is measured is partly of before it: no deeper then than that cut might
 * have been. */
static uint32_t fitting(const struct limit *limit, enum limit_cause cause, uint32_t places)
{
    double least = CUT_DEEPEST * (limit->settling ? limit->settling : places);

    if (cause != LIMIT_SLOW || !is_far_too_slow(limit))
        return BACKEND_NO_CEILING;
    return (uint32_t)fmax(SLOW_RATIO * limit->baseline / limit->glance.mean * places, least);
}

/* With next to nothing on it, it is not for us that it is slow: there is nothing to cut, nor to give it. */
static bool relieve(struct limit *limit, struct limit_level *level, enum limit_cause cause, uint32_t places,
                    int64_t now)
{
    uint32_t fits = fitting(limit, cause, places);

    level->last_sign = now;
    if (cause == LIMIT_DOUBTFUL || places <= lowest(cap_of(limit, level)))
        return false;
    if (fits < percent(level->limit, CUT_PERCENT))
        lower(limit, level, fits, cause, now);
    else if (places > level->limit && now - level->last_cut < LIMIT_DECIDE)
        return false;
    else
        cut(limit, level, CUT_PERCENT, cut_from(limit, level, cause, places), cause, now);
    begin_anew(limit, places);
    return true;
}

static bool decide(struct limit *limit, enum limit_cause cause, uint32_t places, int64_t now)
{
    struct limit_level *level = judged(limit);
    bool changed = false;

    if (level && cause == LIMIT_UNTOUCHED)
        changed = grow(level, places, now);
    else if (level)
        changed = relieve(limit, level, cause, places, now);
    if (level != &limit->force)
        changed = grow(&limit->force, places, now) || changed;
    mirror(limit);
    return changed;
}

/* Whether what is measured now is an overload, or is what it is by virtue of the limit: not usual. */
static bool is_held(const struct limit *limit, enum limit_cause cause, uint32_t places)
{
    bool observe = limit->settings.mode == CONFIG_ADAPTIVE_OBSERVE;
    const struct limit_level *level = observe ? &limit->wanted : &limit->force;

    if (places <= lowest(cap_of(limit, level)))
        return false;
    if (cause == LIMIT_SLOW || cause == LIMIT_NOT_NOW)
        return true;
    if (level->limit == BACKEND_NO_CEILING)
        return false;
    return (uint64_t)places * 100 >= (uint64_t)level->limit * FULL_PERCENT ||
           limit->rate < RISE_DIMINISHED * limit->usual_rate;
}

static bool forget_after_silence(struct limit *limit)
{
    bool limited = limit->force.limit != BACKEND_NO_CEILING || limit->wanted.limit != BACKEND_NO_CEILING;

    limit_forget(limit);
    return limited;
}

bool limit_tick(struct limit *limit, const struct limit_totals *totals, uint32_t places, int64_t now)
{
    uint64_t replies = totals->replies - limit->seen.replies;
    enum limit_cause cause;
    bool changed;

    limit_saw(limit, places);
    if (totals->replies != limit->last_replies)
        limit->answered = now;
    limit->last_replies = totals->replies;
    if (!limit->decided || now < limit->decided) {
        limit->seen = *totals;
        limit->not_now.seen_total = totals->answers;
        limit->not_now.seen_bad = totals->not_now;
        limit->decided = limit->heard = now;
        return false;
    }
    if (limit->not_now.open || totals->not_now != limit->not_now.seen_bad)
        window_feed(&limit->not_now, totals->answers, totals->not_now, now);
    if (now == limit->decided || (replies < LIMIT_SAMPLES && now - limit->decided < LIMIT_DECIDE))
        return false;
    if (replies || totals->answers != limit->seen.answers)
        limit->heard = now;
    if (limit->settling && places <= limit->wanted.limit)
        begin_anew(limit, 0);
    measure(limit, totals, places, now);
    cause = overload(limit, replies > 0);
    write_past(limit, replies, totals->milliseconds - limit->seen.milliseconds, places,
               is_held(limit, cause, places), now);
    limit->seen = *totals;
    limit->decided = now;
    changed = decide(limit, cause, places, now);
    if (now - limit->heard >= LIMIT_FORGET)
        changed = forget_after_silence(limit) || changed;
    return changed;
}

/* --- life --- */

static void lift(struct limit_level *level)
{
    *level = (struct limit_level){ .limit = BACKEND_NO_CEILING, .cause = LIMIT_SET };
}

void limit_relearn(struct limit *limit)
{
    begin_anew(limit, 0);
    limit->own.age = 0;
    close_slot(limit);
    limit->n_past = limit->next_past = 0;
    limit->baseline = limit->usual_worst = limit->usual_rate = limit->usual_places = 0;
    limit->rate = limit->glance_rate = 0;
}

void limit_forget(struct limit *limit)
{
    struct limit_totals seen = limit->seen;
    struct limit_settings settings = limit->settings;
    struct window not_now = { .seen_total = limit->not_now.seen_total, .seen_bad = limit->not_now.seen_bad };
    uint64_t last_replies = limit->last_replies;
    int64_t decided = limit->decided, heard = limit->heard;

    limit_init(limit, &settings);
    limit->seen = seen;
    limit->not_now = not_now;
    limit->decided = decided;
    limit->heard = heard;
    limit->last_replies = last_replies;
    lift(&limit->force);
    lift(&limit->wanted);
}

void limit_init(struct limit *limit, const struct limit_settings *settings)
{
    memset(limit, 0, sizeof *limit);
    limit->settings = *settings;
    limit->force.limit = limit->wanted.limit = BACKEND_NO_CEILING;
}

static void fit(struct limit *limit, struct limit_level *level)
{
    if (level->limit == BACKEND_NO_CEILING)
        return;
    level->cap = cap_of(limit, level);
    if (level->limit >= level->cap)
        lift(level);
}

void limit_configure(struct limit *limit, const struct limit_settings *settings)
{
    bool acted = limit->settings.mode == CONFIG_ADAPTIVE_ON;

    limit->settings = *settings;
    if (acted && settings->mode != CONFIG_ADAPTIVE_ON && limit->force.cause != LIMIT_TOLD)
        lift(&limit->force);
    fit(limit, &limit->force);
    fit(limit, &limit->wanted);
    mirror(limit);
}

uint64_t limit_short(const struct limit *limit)
{
    return limit->brief.scatter > 0 ? (uint64_t)(fmax(limit->brief.mean, LEAST_TIME) * 1000) : 0;
}

uint64_t limit_baseline(const struct limit *limit)
{
    return limit->baseline > 0 ? (uint64_t)(limit->baseline * 1000) : 0;
}
