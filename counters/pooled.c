/*
 * The replies of the whole farm: one relay's overload shows in the replies of all instances long before there
 * are enough of them at each. So every instance tells what it has had, in sums since it began, and judges by
 * its own and the others' together (health/limits.c).
 */
#include <stdlib.h>

#include "counters/counters_internal.h"

void pooled_add(struct counters *c, struct snapshot *snapshot, int64_t now)
{
    if (now - c->replies_at < POOLED_EVERY)
        return;
    snapshot->replies = calloc(c->n_told ? c->n_told : 1, sizeof *snapshot->replies);
    for (size_t i = 0; snapshot->replies && i < c->n_told; i++) {
        struct snapshot_replies *replies = &snapshot->replies[snapshot->n_replies];

        /* Above what the others read they would refuse all that is said. */
        if (!c->ops.replies(c->ops.arg, c->counted[i].backend, &replies->totals) ||
            !replies->totals.replies || replies->totals.milliseconds > (uint64_t)SNAPSHOT_TOTAL_MAX ||
            replies->totals.squares > (uint64_t)SNAPSHOT_TOTAL_MAX)
            continue;
        replies->name = (char *)(uintptr_t)c->names[i];
        snapshot->n_replies++;
    }
    c->replies_at = now;
}

/* False: it is not more of the same, whatever it is. No sum of squares is less than that of as many equal
 * times; but the three were not read in one moment. */
static bool subtract(const struct backend_replies *next, const struct backend_replies *last,
                     struct backend_replies *more)
{
    double n, milliseconds;

    if (next->replies <= last->replies || next->milliseconds < last->milliseconds ||
        next->squares < last->squares)
        return false;
    *more = (struct backend_replies){ .replies = next->replies - last->replies,
                                      .milliseconds = next->milliseconds - last->milliseconds,
                                      .squares = next->squares - last->squares };
    n = (double)more->replies;
    milliseconds = (double)more->milliseconds;
    return more->replies <= POOLED_MAX && milliseconds <= n * POOLED_LONGEST &&
           (double)more->squares >= 0.9 * milliseconds * milliseconds / n;
}

/* What came while nothing was heard of it (Redis was away) did not come in this moment, as it would look. */
void pooled_take(struct counters *c, const struct snapshot *next, int64_t now)
{
    const struct view_peer *peer = view_peer_of(&c->view, next->id);

    if (!peer || !peer->last.n_replies || !next->n_replies ||
        !snapshot_is_newer(next->started, next->seq, peer->last.started, peer->last.seq) ||
        next->started != peer->last.started || now - peer->replies_at >= POOLED_OLDEST)
        return;
    for (size_t i = 0; i < c->n; i++) {
        const struct snapshot_replies *here = snapshot_replies_of(next, c->names[i]),
                                      *before = snapshot_replies_of(&peer->last, c->names[i]);
        struct backend_replies more;

        /* What it has had before it first told is not of this moment. */
        if (here && before && subtract(&here->totals, &before->totals, &more))
            c->ops.hear_replies(c->ops.arg, c->counted[i].backend, &more);
    }
}

void pooled_lose(struct counters *c)
{
    for (size_t i = 0; i < c->n; i++)
        c->ops.hear_replies(c->ops.arg, c->counted[i].backend, NULL);
}
