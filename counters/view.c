#include "counters/view.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names_of_states[] = { "off", "shared", "held", "local", "rejoin" };
static_assert(sizeof names_of_states / sizeof *names_of_states == COUNTERS_STATES, "a name for each state");

const char *counters_state_name(enum counters_state state)
{
    return names_of_states[state];
}

void view_init(struct view *view, int64_t lease, uint32_t expected, int64_t now)
{
    *view = (struct view){ .state = COUNTERS_LOCAL, .lost = now, .own_share = 1, .shared_at = now };
    view_configure(view, lease, expected);
}

void view_configure(struct view *view, int64_t lease, uint32_t expected)
{
    view->lease = lease;
    view->expected = expected ? expected : 1;
}

void view_clear(struct view *view)
{
    for (size_t i = 0; i < view->n; i++)
        snapshot_clear(&view->peers[i].last);
    free(view->peers);
    view->peers = NULL;
    view->n = view->capacity = 0;
}

/* --- who is there --- */

static struct view_peer *find(const struct view *view, const char *id)
{
    for (size_t i = 0; i < view->n; i++)
        if (strcmp(view->peers[i].last.id, id) == 0)
            return &view->peers[i];
    return NULL;
}

const struct view_peer *view_peer_of(const struct view *view, const char *id)
{
    return find(view, id);
}

bool view_counts(const struct view *view, const struct view_peer *peer, int64_t now)
{
    if (peer->last.bye)
        return false;
    switch (view->state) {
    case COUNTERS_OFF:
    case COUNTERS_LOCAL: return false;
    case COUNTERS_HELD: return peer->kept_until != 0; /* those that counted when Redis went */
    case COUNTERS_SHARED:
    case COUNTERS_REJOIN: break;
    }
    return now - peer->heard < view->lease || now < peer->kept_until;
}

uint32_t view_instances(const struct view *view, int64_t now)
{
    uint32_t n = 1;

    for (size_t i = 0; i < view->n; i++)
        n += view_counts(view, &view->peers[i], now);
    return n;
}

/* --- Redis comes and goes --- */

void view_connected(struct view *view, int64_t now)
{
    if (view->state == COUNTERS_SHARED || view->state == COUNTERS_REJOIN)
        return;
    view->joined = now;
    view->state = view->ever ? COUNTERS_REJOIN : COUNTERS_SHARED;
    view->ever = true;
    /* All of them are coming back too. */
    for (size_t i = 0; i < view->n; i++)
        if (view->peers[i].kept_until)
            view->peers[i].kept_until = now + VIEW_REJOIN;
}

void view_lost(struct view *view, int64_t now)
{
    bool again = false; /* somebody was heard since it was lost before */

    if (view->state != COUNTERS_SHARED && view->state != COUNTERS_REJOIN)
        return;
    view->last_instances = view_instances(view, now);
    for (size_t i = 0; i < view->n; i++) {
        struct view_peer *peer = &view->peers[i];

        again |= !peer->kept_until && view_counts(view, peer, now);
        peer->kept_until = view_counts(view, peer, now) ? INT64_MAX : 0;
    }
    /* A Redis that comes and goes brings nobody back, and must not hold a view for ever. */
    if (view->state == COUNTERS_SHARED || again)
        view->lost = now;
    view->state = COUNTERS_HELD;
}

uint32_t view_share(const struct view *view)
{
    double instances = view->ever ? view->last_instances : view->expected, share;

    if (view->state != COUNTERS_LOCAL)
        return BACKEND_WHOLE;
    if (!view->ever)
        return (uint32_t)(BACKEND_WHOLE / instances);
    share = fmax(view->own_share, 1 / (2 * instances));
    return share >= 1 ? BACKEND_WHOLE : (uint32_t)ceil(BACKEND_WHOLE * share);
}

void view_note_share(struct view *view, uint64_t own, uint64_t others, int64_t now)
{
    double past = exp(-(double)(now - view->shared_at) / VIEW_SHARE_TAU);

    if (view->state != COUNTERS_SHARED || own + others == 0)
        return; /* nothing is known, or there is nothing to share */
    view->own_share = view->own_share * past + (double)own / (double)(own + others) * (1 - past);
    view->shared_at = now;
}

/* --- time --- */

static void forget(struct view *view, size_t i)
{
    snapshot_clear(&view->peers[i].last);
    view->peers[i] = view->peers[--view->n];
}

/* One that does not count any more is remembered for another ten leases: what it said before its end may
 * still be on its way, and must not be taken for news. */
static bool is_forgettable(const struct view *view, const struct view_peer *peer, int64_t now)
{
    return !view_counts(view, peer, now) && !peer->kept_until && now - peer->heard > 10 * view->lease;
}

bool view_tick(struct view *view, int64_t now)
{
    bool changed = false;

    if (view->state == COUNTERS_HELD && now - view->lost >= VIEW_HOLD) {
        view->state = COUNTERS_LOCAL;
        changed = true;
    }
    if (view->state == COUNTERS_REJOIN && now - view->joined >= VIEW_REJOIN) {
        view->state = COUNTERS_SHARED;
        changed = true;
    }
    if (view->state != COUNTERS_SHARED && view->state != COUNTERS_REJOIN)
        return changed;
    for (size_t i = view->n; i-- > 0;) {
        struct view_peer *peer = &view->peers[i];

        if (peer->kept_until && now >= peer->kept_until) {
            peer->kept_until = 0;
            changed = true;
        }
        if (is_forgettable(view, peer, now)) {
            forget(view, i);
            changed = true;
        }
    }
    return changed;
}

/* --- what is told --- */

/* Who is heard needs no keeping. But in HELD it is keeping that makes one count: there what was heard last is
 * the last view. (One of two connections is enough to lose Redis; the other may bring news on.) */
static int64_t kept_when_heard(const struct view *view)
{
    return view->state == COUNTERS_HELD ? INT64_MAX : 0;
}

static enum view_take add(struct view *view, struct snapshot *snapshot, int64_t now)
{
    struct view_peer *grown;

    if (view->n == VIEW_PEERS)
        return VIEW_FULL;
    if (view->n == view->capacity) {
        size_t capacity = view->capacity ? 2 * view->capacity : 16;

        grown = realloc(view->peers, capacity * sizeof *grown);
        if (!grown)
            return VIEW_FULL;
        view->peers = grown;
        view->capacity = capacity;
    }
    view->peers[view->n++] = (struct view_peer){
        .last = *snapshot, .heard = now, .replies_at = now, .kept_until = kept_when_heard(view)
    };
    memset(snapshot, 0, sizeof *snapshot);
    return VIEW_NEWS;
}

/* They are not told each time: what was told last is what the next is measured by. */
static void keep_replies(struct snapshot *last, struct snapshot *next)
{
    if (next->n_replies || next->started != last->started)
        return;
    free(next->replies);
    next->replies = last->replies;
    next->n_replies = last->n_replies;
    last->replies = NULL;
    last->n_replies = 0;
}

enum view_take view_take(struct view *view, struct snapshot *snapshot, int64_t now)
{
    struct view_peer *peer = find(view, snapshot->id);
    enum view_take result = VIEW_NEWS;

    if (!peer)
        return snapshot->bye ? VIEW_OLD : add(view, snapshot, now);
    if (!snapshot_is_newer(snapshot->started, snapshot->seq, peer->last.started, peer->last.seq))
        return VIEW_OLD;
    if (!snapshot->bye && snapshot->started == peer->last.started && snapshot->seq != peer->last.seq + 1)
        result = VIEW_GAP;
    if (snapshot->n_replies)
        peer->replies_at = now;
    keep_replies(&peer->last, snapshot);
    snapshot_clear(&peer->last);
    peer->last = *snapshot;
    peer->heard = now;
    peer->kept_until = kept_when_heard(view);
    memset(snapshot, 0, sizeof *snapshot);
    return result;
}

/* --- what is made of it --- */

void view_rates(const struct view *view, const char *pool, int64_t now, float *rate, int64_t *at)
{
    double sum = 0, moment = 0;

    for (size_t i = 0; i < view->n; i++) {
        const struct view_peer *peer = &view->peers[i];

        if (!view_counts(view, peer, now))
            continue;
        for (size_t r = 0; r < peer->last.n_rates; r++) {
            const struct snapshot_rate *one = &peer->last.rates[r];

            if (strcmp(one->name, pool) != 0)
                continue;
            sum += (double)one->rate;
            moment += (double)one->rate * (double)(now - peer->heard);
        }
    }
    *rate = (float)sum;
    *at = sum > 0 ? now - (int64_t)(moment / sum) : now;
}

static uint32_t *place_of(const char *const *names, size_t n, uint32_t *others, const char *name)
{
    size_t low = 0, high = n;

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(name, names[middle]);

        if (order == 0)
            return &others[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

void view_held(const struct view *view, const char *const *names, size_t n, uint32_t *others, int64_t now)
{
    memset(others, 0, n * sizeof *others);
    for (size_t i = 0; i < view->n; i++) {
        const struct view_peer *peer = &view->peers[i];

        if (!view_counts(view, peer, now))
            continue;
        for (size_t k = 0; k < peer->last.n_held; k++) {
            uint32_t *place = place_of(names, n, others, peer->last.held[k].name);

            if (place) /* VIEW_PEERS times SNAPSHOT_COUNT_MAX fits */
                *place += peer->last.held[k].count;
        }
    }
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static int to_name(const void *name, const void *count)
{
    return strcmp(name, ((const struct snapshot_count *)count)->name);
}

static int to_text(const void *name, const void *text)
{
    return strcmp(name, *(char *const *)text);
}

/* One instance has one voice, however often it says so. */
static bool is_down(const struct snapshot *snapshot, const char *name)
{
    return snapshot->n_down &&
           bsearch(name, snapshot->down, snapshot->n_down, sizeof *snapshot->down, to_text);
}

void view_verdict(const struct view *view, const char *name, uint32_t *scratch, uint32_t *down,
                  uint32_t *limit, int64_t now)
{
    size_t n = 0;

    *down = 0;
    *limit = BACKEND_NO_CEILING;
    for (size_t i = 0; i < view->n; i++) {
        const struct snapshot *last = &view->peers[i].last;
        const struct snapshot_count *found;

        if (!view_counts(view, &view->peers[i], now))
            continue;
        *down += is_down(last, name);
        found = last->n_limits ? bsearch(name, last->limits, last->n_limits, sizeof *last->limits, to_name)
                               : NULL;
        if (found)
            scratch[n++] = found->count ? found->count : BACKEND_NO_CEILING;
    }
    if (!n)
        return;
    qsort(scratch, n, sizeof *scratch, by_size);
    *limit = scratch[n / 2];
}
