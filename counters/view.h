/*
 * The view: what is known of the other instances, and for how long it is believed. Pure: time is told, in ms
 * of this instance's own monotonic clock, which alone decides who is alive.
 *
 *                 connected                     30 s
 *     SHARED ──lost──▶ HELD ──────────────────────────▶ LOCAL
 *        ▲               │ back                           │ back
 *        │ 10 s          ▼                                ▼
 *        └──────────── REJOIN: who was there before counts on, unless it says bye
 */
#ifndef WEIR_COUNTERS_VIEW_H
#define WEIR_COUNTERS_VIEW_H

#include "counters/counters.h"
#include "counters/snapshot.h"

#define VIEW_HOLD      30000 /* ms that the last view holds without Redis */
#define VIEW_REJOIN    10000 /* ms in which all of the last view come back */
#define VIEW_SHARE_TAU 60000 /* ms: "own share of the last minute" */
#define VIEW_PEERS     1024  /* more instances than this are no farm; the rest is not looked at */

struct view_peer {
    struct snapshot last; /* its names belong to it */
    int64_t heard;        /* when it was news */
    int64_t replies_at;   /* when it last told its replies, if it has */
    int64_t kept_until;   /* counts until then, heard or not; 0: no */
};

struct view {
    enum counters_state state; /* never OFF */
    int64_t lease;             /* ms */
    uint32_t expected;         /* instances, before any was heard of */
    int64_t lost, joined;      /* when Redis went, and came back */
    bool ever;                 /* Redis has been there */
    uint32_t last_instances;   /* live ones when Redis went, this one too */
    double own_share;          /* of the farm's places, an average that forgets with VIEW_SHARE_TAU */
    int64_t shared_at;
    size_t n, capacity;
    struct view_peer *peers;
};

void view_init(struct view *view, int64_t lease, uint32_t expected, int64_t now);
void view_clear(struct view *view);
void view_configure(struct view *view, int64_t lease, uint32_t expected);

/* Redis is there, or not. */
void view_connected(struct view *view, int64_t now);
void view_lost(struct view *view, int64_t now);

/* What view_take() has to say of a snapshot. */
enum view_take {
    VIEW_OLD, /* it is not newer than what is known: ignored */
    VIEW_NEWS,
    VIEW_GAP, /* news, but some before it was missed: resync */
    VIEW_FULL,
};
/* Take over a snapshot, whose contents are the view's from then on if it is news; else the caller's. */
enum view_take view_take(struct view *view, struct snapshot *snapshot, int64_t now);

/* Time passes: those whose lease is over are forgotten. True: some were, or the state has changed. */
bool view_tick(struct view *view, int64_t now);

/* How many live, this one too. */
uint32_t view_instances(const struct view *view, int64_t now);
/* Thousandths of each cap that this instance may use: all of it, but for LOCAL. */
uint32_t view_share(const struct view *view);
/* The farm's places as they are now: for the own share. */
void view_note_share(struct view *view, uint64_t own, uint64_t others, int64_t now);

/* What is known of this one; NULL: nothing. The view's, until it takes another snapshot. */
const struct view_peer *view_peer_of(const struct view *view, const char *id);

/* Whose counts count now. */
bool view_counts(const struct view *view, const struct view_peer *peer, int64_t now);
/* Of pool `name`: the others' placements a second, and the mean time that their reports are of, weighted by
 * them. */
void view_rates(const struct view *view, const char *pool, int64_t now, float *rate, int64_t *at);
/* Places of the others on the backends of these names, which are sorted (strcmp); `others` is filled in. */
void view_held(const struct view *view, const char *const *names, size_t n, uint32_t *others, int64_t now);

/* Of the backend of this name: how many of the others can't reach it, and the median of the limits that they
 * have found, BACKEND_NO_CEILING where most have found none. `scratch` has room for `view->n`. */
void view_verdict(const struct view *view, const char *name, uint32_t *scratch, uint32_t *down,
                  uint32_t *limit, int64_t now);

#endif
