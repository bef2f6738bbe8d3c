/*
 * Hysteresis is one integer, as in HAProxy:
 *
 *     0 … rise − 1              down; a passed check adds one, a failed one sets 0
 *     rise … rise + fall − 1    up; a failed check takes one, a passed one sets the top
 *
 * A backend goes up when the counter reaches `rise` (and then starts at the top), down when it falls under it
 * (and then starts at 0). An ejected backend keeps its counter going: it may go DOWN from there.
 */
#include "health/judge.h"

#include <string.h>

#include "balancer/algorithm.h"

#define TRIAL_PERCENT    5
#define SLOW_START_LEAST 100  /* thousandths */
#define SLOW_START_TICK  1000 /* ms */
#define WINDOW_TICK      1000

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t percent(uint32_t of, uint32_t percent)
{
    return (uint32_t)((uint64_t)of * percent / 100);
}

int64_t judge_random(struct judge *judge, int64_t below)
{
    return below > 0 ? (int64_t)(algorithm_random(&judge->random) % (uint64_t)below) : 0;
}

int64_t judge_jitter(struct judge *judge, int64_t milliseconds)
{
    return milliseconds - milliseconds / 10 + judge_random(judge, milliseconds / 5 + 1);
}

/* One of several is forgotten for each five minutes that have been `clean`. */
static uint32_t forget(uint32_t times, int64_t clean)
{
    int64_t forgotten =
        clean > 0 ? clean / JUDGE_FORGET : 0; /* an ejection may have been cut short by a DOWN */

    return forgotten >= times ? 0 : times - (uint32_t)forgotten;
}

/* first · 2^(n−1), at most `last`. */
static int64_t doubled(int64_t first, uint32_t n, int64_t last)
{
    for (uint32_t i = 1; i < n && first < last; i++)
        first *= 2;
    return first < last ? first : last;
}

/* It goes DOWN: once more? A relay that comes and goes costs its sessions each time. */
static void hold(struct judge *judge, int64_t now)
{
    judge->falls = forget(judge->falls, now - judge->rose) + 1;
    judge->held_until =
        judge->falls < JUDGE_FALLS
            ? now
            : now + judge_jitter(judge,
                                 doubled(JUDGE_HOLD_FIRST, judge->falls - JUDGE_FALLS + 1, JUDGE_HOLD_LAST));
}

/* Every change of state passes here. */
static void become(struct judge *judge, enum backend_state state, const char *reason, int64_t now)
{
    const struct judge_settings *settings = &judge->settings;
    bool in_service = judge->state == BACKEND_UP || judge->state == BACKEND_DEGRADED;

    judge->share = 1000;
    if (!in_service || (state != BACKEND_UP && state != BACKEND_DEGRADED))
        judge->slow_since = JUDGE_NEVER;
    if (judge->state == BACKEND_DOWN)
        judge->rose = now;
    switch (state) {
    case BACKEND_INIT:
    case BACKEND_DEGRADED: break;
    case BACKEND_UP:
        if (in_service)
            break; /* it was never out */
        /* What put it out has been judged. */
        window_forget(&judge->sessions);
        window_forget(&judge->answers);
        if (judge->state != BACKEND_INIT) /* else nothing was known yet, or is any more */
            limit_forgive(&judge->limit);
        judge->counter = settings->rise + settings->fall - 1;
        if ((judge->state != BACKEND_INIT || judge->begins_slowly) && settings->slow_start)
            judge->slow_since = now;
        break;
    case BACKEND_DOWN:
        judge->counter = 0;
        judge->refused = false;
        hold(judge, now);
        break;
    case BACKEND_EJECTED: judge->clean_since = judge->ejected_until; break;
    case BACKEND_HALF_OPEN: judge->trial_good = 0; break;
    }
    judge->state = state;
    judge->since = now;
    strncpy(judge->reason, reason, sizeof judge->reason - 1);
}

static struct limit_settings limit_settings(const struct judge_settings *settings)
{
    return (struct limit_settings){ .mode = settings->adaptive,
                                    .max_connections = settings->max_connections };
}

void judge_init(struct judge *judge, const struct judge_settings *settings, uint64_t seed)
{
    struct limit_settings limit = limit_settings(settings);

    memset(judge, 0, sizeof *judge);
    judge->settings = *settings;
    judge->state = BACKEND_INIT;
    judge->share = 1000;
    judge->slow_since = JUDGE_NEVER;
    limit_init(&judge->limit, &limit);
    judge->random = seed ? seed : 1;
    strcpy(judge->reason, "not checked yet");
}

void judge_begin(struct judge *judge, const char *reason, int64_t now)
{
    judge->counter = 0;
    judge->refused = false;
    judge->begins_slowly = true;
    judge->falls = judge->ejections = 0;
    limit_forget(&judge->limit);
    if (judge->told_down)
        become(judge, BACKEND_DOWN, judge->told, now);
    else
        become(judge, BACKEND_INIT, reason, now);
}

void judge_moved(struct judge *judge, int64_t now)
{
    if (judge->state != BACKEND_UP && judge->state != BACKEND_DEGRADED) {
        judge_begin(judge, "it has another address", now);
        return;
    }
    judge->falls = judge->ejections = 0;
    window_forget(&judge->sessions);
    window_forget(&judge->answers);
    limit_forget(&judge->limit);
    judge->refused = true;
}

static bool judged_up(const struct judge *judge)
{
    return judge->counter >= judge->settings.rise;
}

void judge_configure(struct judge *judge, const struct judge_settings *settings)
{
    bool up = judged_up(judge);
    bool other_counts = settings->fall != judge->settings.fall || settings->rise != judge->settings.rise;
    struct limit_settings limit = limit_settings(settings);

    judge->settings = *settings;
    if (other_counts)
        judge->counter = up ? settings->rise + settings->fall - 1 : 0;
    if (!settings->slow_start)
        judge->slow_since = JUDGE_NEVER;
    limit_configure(&judge->limit, &limit);
}

/* --- checks --- */

static void check_passed(struct judge *judge, int64_t now)
{
    uint32_t top = judge->settings.rise + judge->settings.fall - 1;

    judge->refused = false;
    switch (judge->state) {
    case BACKEND_INIT: become(judge, BACKEND_UP, "check passed", now); break;
    case BACKEND_DOWN:
        if (judge->told_down || judge_held(judge, now))
            break;
        if (++judge->counter >= judge->settings.rise)
            become(judge, BACKEND_UP, "check passed", now);
        break;
    case BACKEND_UP:
    case BACKEND_DEGRADED:
    case BACKEND_EJECTED:
    case BACKEND_HALF_OPEN: judge->counter = top; break;
    }
}

static void check_failed(struct judge *judge, const char *reason, int64_t now)
{
    switch (judge->state) {
    case BACKEND_INIT: become(judge, BACKEND_DOWN, reason, now); break;
    case BACKEND_DOWN: judge->counter = 0; break;
    case BACKEND_UP:
    case BACKEND_DEGRADED:
    case BACKEND_EJECTED:
    case BACKEND_HALF_OPEN:
        judge->counter--;
        if (judge->refused || !judged_up(judge))
            become(judge, BACKEND_DOWN, reason, now);
        break;
    }
}

void judge_check(struct judge *judge, bool passed, const char *reason, int64_t now)
{
    if (passed)
        check_passed(judge, now);
    else
        check_failed(judge, reason, now);
}

void judge_unresolved(struct judge *judge, const char *reason, int64_t now)
{
    if (judge->state != BACKEND_DOWN)
        become(judge, BACKEND_DOWN, reason, now);
}

void judge_told(struct judge *judge, const char *reason, int64_t now)
{
    judge->told_down = reason != NULL;
    if (!reason)
        return; /* DOWN with a counter of 0, as behind any failed check */
    (void)strncpy(judge->told, reason, sizeof judge->told - 1);
    if (judge->state != BACKEND_DOWN)
        become(judge, BACKEND_DOWN, judge->told, now);
}

bool judge_held(const struct judge *judge, int64_t now)
{
    return judge->state == BACKEND_DOWN && now < judge->held_until;
}

void judge_release(struct judge *judge)
{
    judge->held_until = 0;
}

bool judge_changing(const struct judge *judge)
{
    switch (judge->state) {
    case BACKEND_INIT: return true;
    case BACKEND_DOWN: return judge->counter > 0;
    case BACKEND_UP:
    case BACKEND_DEGRADED:
    case BACKEND_EJECTED:
    case BACKEND_HALF_OPEN:
        return judge->refused || judge->counter < judge->settings.rise + judge->settings.fall - 1;
    }
    return false;
}

/* --- ejection and trial --- */

static void eject(struct judge *judge, const char *reason, int64_t now)
{
    judge->ejections = forget(judge->ejections, now - judge->clean_since) + 1;
    judge->ejected_until =
        now + judge_jitter(judge, doubled(JUDGE_EJECT_FIRST, judge->ejections, JUDGE_EJECT_LAST));
    become(judge, BACKEND_EJECTED, reason, now);
}

static void bad_sign(struct judge *judge, bool enough, const char *reason, const char *on_trial,
                     bool may_eject, int64_t now)
{
    switch (judge->state) {
    case BACKEND_INIT:
    case BACKEND_DOWN:
    case BACKEND_EJECTED: break;
    case BACKEND_UP:
    case BACKEND_DEGRADED:
        if (enough && may_eject)
            eject(judge, reason, now);
        break;
    case BACKEND_HALF_OPEN:
        judge->trial_good = 0;
        if (may_eject)
            eject(judge, on_trial, now);
        break;
    }
}

void judge_refused(struct judge *judge)
{
    judge->refused = judge->state != BACKEND_DOWN;
}

void judge_hard(struct judge *judge, uint32_t in_a_row, bool may_eject, int64_t now)
{
    bad_sign(judge, in_a_row >= JUDGE_SIGNS, "three sessions failed in a row", "a session failed on trial",
             may_eject, now);
}

void judge_peers(struct judge *judge, bool may_eject, int64_t now)
{
    bad_sign(judge, true, "other instances can't reach it", "other instances can't reach it", may_eject, now);
}

void judge_sessions(struct judge *judge, uint64_t total, uint64_t failed, bool may_eject, int64_t now)
{
    struct window_share share;

    window_feed(&judge->sessions, total, failed, now);
    share = window_share(&judge->sessions);
    if (share.total < WINDOW_LEAST || share.thousandths < JUDGE_FAILING || !may_eject)
        return;
    if (judge->state == BACKEND_UP || judge->state == BACKEND_DEGRADED)
        eject(judge, "half of its sessions failed", now);
}

/* What it can't take goes to others, in proportion; some still comes, to see whether it has recovered. */
void judge_answers(struct judge *judge, uint64_t total, uint64_t bad, int64_t now)
{
    struct window_share share;

    window_feed(&judge->answers, total, bad, now);
    share = window_share(&judge->answers);
    if (judge->state == BACKEND_UP && share.total >= WINDOW_LEAST && share.thousandths >= JUDGE_DEGRADED)
        become(judge, BACKEND_DEGRADED, "it says that it can't take all of its mail now", now);
    else if (judge->state == BACKEND_DEGRADED && share.thousandths < JUDGE_RECOVERED)
        become(judge, BACKEND_UP, "it takes its mail again", now);
    if (judge->state == BACKEND_DEGRADED)
        judge->share = share.thousandths > 900   ? 100
                       : share.thousandths < 100 ? 900
                                                 : 1000 - share.thousandths;
}

/* --- load --- */

void judge_saw_connections(struct judge *judge, uint32_t connections)
{
    limit_saw(&judge->limit, connections);
}

bool judge_replies(struct judge *judge, const struct limit_totals *totals, uint32_t connections, int64_t now)
{
    return limit_tick(&judge->limit, totals, connections, now);
}

void judge_load(struct judge *judge, uint32_t in_a_row, uint32_t connections, bool may_eject, int64_t now)
{
    limit_told(&judge->limit, connections, now);
    bad_sign(judge, in_a_row >= JUDGE_SIGNS && connections <= limit_lowest(&judge->limit),
             "busy three times with next to nothing on it", "busy on trial", may_eject, now);
}

void judge_good(struct judge *judge, uint32_t signs, uint32_t connections, int64_t now)
{
    limit_saw(&judge->limit, connections);
    if (judge->state != BACKEND_HALF_OPEN)
        return;
    judge->trial_good += signs;
    if (judge->trial_good >= JUDGE_SIGNS)
        become(judge, BACKEND_UP, "trial passed", now);
}

bool judge_is_overload(const struct judge *judge, bool told, uint32_t connections, int64_t now)
{
    uint32_t ceiling = judge_ceiling(judge, now);

    if (ceiling != BACKEND_NO_CEILING && connections > 0 &&
        (uint64_t)connections * 10 >= (uint64_t)ceiling * 8)
        return true;
    if (limit_at_work(&judge->limit, connections, now))
        return true;
    /* A relay that says 421 to a check while it carries a good deal of mail is full, not dead; one that says
     * it with next to nothing on it is in no state to work. */
    return told && connections > limit_lowest(&judge->limit);
}

/* --- time, and what comes out --- */

/* While there was nothing else it was used in spite of its ejection: a panic. That was trial enough, and to
 * give it a twentieth of its places now would take the farm's last. */
static void come_back_whole(struct judge *judge, int64_t now)
{
    become(judge, BACKEND_UP, "ejection over, and nothing else is in service", now);
    judge->slow_since = JUDGE_NEVER;
}

void judge_tick(struct judge *judge, bool others, int64_t now)
{
    if (judge->state == BACKEND_EJECTED && now >= judge->ejected_until) {
        if (others)
            become(judge, BACKEND_HALF_OPEN, "ejection over", now);
        else
            come_back_whole(judge, now);
    }
    if (judge->slow_since != JUDGE_NEVER && now - judge->slow_since >= judge->settings.slow_start)
        judge->slow_since = JUDGE_NEVER;
}

int64_t judge_next(const struct judge *judge, int64_t now)
{
    int64_t next = JUDGE_NEVER;

    if (judge->state == BACKEND_EJECTED)
        next = judge->ejected_until;
    if ((judge->sessions.open || judge->answers.open) && now + WINDOW_TICK < next)
        next = now + WINDOW_TICK;
    if (judge->slow_since != JUDGE_NEVER) {
        int64_t end = judge->slow_since + judge->settings.slow_start;
        int64_t tick = end - now < SLOW_START_TICK ? end : now + SLOW_START_TICK;

        next = tick < next ? tick : next;
    }
    return next;
}

/* How far slow start has come, in thousandths. */
static uint64_t slow_start(const struct judge *judge, int64_t now)
{
    int64_t passed;

    if (judge->slow_since == JUDGE_NEVER)
        return 1000;
    passed = (now - judge->slow_since) * 1000 / judge->settings.slow_start;
    if (passed >= 1000)
        return 1000;
    return passed < SLOW_START_LEAST ? SLOW_START_LEAST : (uint64_t)passed;
}

uint32_t judge_ceiling(const struct judge *judge, int64_t now)
{
    uint32_t limit = judge->settings.max_connections ? judge->settings.max_connections : BACKEND_NO_CEILING;

    if (judge->limit.force.limit < limit)
        limit = judge->limit.force.limit;
    if (limit == BACKEND_NO_CEILING)
        return limit;
    return larger(1, (uint32_t)(limit * slow_start(judge, now) / 1000));
}

uint32_t judge_trial(const struct judge *judge)
{
    uint32_t most = judge->settings.max_connections;

    if (judge->state != BACKEND_HALF_OPEN)
        return BACKEND_NO_CEILING;
    return larger(1, percent(most ? most : judge->limit.highest, TRIAL_PERCENT));
}

uint32_t judge_milliweight(const struct judge *judge, int64_t now)
{
    return (uint32_t)(judge->settings.weight * slow_start(judge, now) * judge->share / 1000);
}
