/*
 * How many sessions each client has at each listener, for max-connections-per-client: over all workers, and
 * with Redis over the farm.
 *
 *     workers ── enter, leave ──▶ table ── take ──▶ clients_redis.c ──▶ Redis
 *                  own, and what the others have ◀── answer ──┘
 *
 * The own count is exact. Beside it stands what the others have, as it was when it was last asked about; that
 * is believed for as long as clients_believe() says. Nobody waits for an answer: who comes to all instances
 * at the same moment gets past the limit by what they had not heard of each other yet.
 *
 * Memory is bounded by the sessions, and by CLIENTS_KEPT_MAX for clients that are refused here because of
 * what they have elsewhere. Those are remembered for ten looks after they last tried; and those of whom Redis
 * still has something, for as long as it can't be told that they have gone.
 */
#ifndef WEIR_COUNTERS_CLIENTS_H
#define WEIR_COUNTERS_CLIENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/address.h"

#define CLIENTS_KEPT_MAX 100000
#define CLIENTS_LIFE     (10 * 60 * 1000) /* ms that Redis keeps what nobody renews */

struct clients;

struct clients *clients_create(void); /* NULL: out of memory */
void clients_free(struct clients **clients);

/* Count a session of `peer` in, unless it has `limit` (at least 1) already, or memory is out. `listener`: its
 * name. Any thread; blocks for no more than a look-up. */
bool clients_enter(struct clients *clients, const char *listener, const struct peer *peer, uint32_t limit);
/* Exactly once for each clients_enter() that said true. */
void clients_leave(struct clients *clients, const char *listener, const struct peer *peer);

/* --- for who tells the others; the control thread's. Times are ms, monotonic --- */

/* Whether there is anybody to tell. False: nothing waits to be told any more. */
void clients_share(struct clients *clients, bool on);
/* What the others have is believed if it was asked about at `since` or later; INT64_MAX: none of it is. */
void clients_believe(struct clients *clients, int64_t since);
/* What was told may be lost, so all of it is told again, from the next looks on. */
void clients_doubt(struct clients *clients);
/* Look for what has to be told again or asked about: at all clients once in a `period`, a part at each call.
 * `period` 0: at all of them now, and all that are near their limits are asked about. */
void clients_look(struct clients *clients, int64_t now, int64_t period);
/* One that was told is told again: its turn comes when all the others have had theirs. */
void clients_audit(struct clients *clients);

/* A client that something is to be said of, or that is to be asked about. */
struct client_item {
    struct client *client; /* stays until clients_answer() */
    const char *who;       /* "smtp:192.0.2.1", "smtp:2001:db8::/64"; the client's */
    uint32_t sessions;
    bool there;   /* something of ours may stand in Redis */
    bool settled; /* and it is just what was told before */
};
/* Up to `most` of those that wait, in the order in which they came. */
size_t clients_take(struct clients *clients, struct client_item *items, size_t most);

enum client_answer {
    CLIENT_UNANSWERED, /* what has become of it is not known */
    CLIENT_REFUSED,    /* nothing of ours stands there, and nobody can be asked */
    CLIENT_TOLD,
};
/* Exactly once for each that was taken. `others`: their sessions; `at`: when they were asked. */
void clients_answer(struct clients *clients, const struct client_item *item, enum client_answer answer,
                    uint32_t others, int64_t at);

/* Clients that are remembered now. For tests. */
size_t clients_count(struct clients *clients);

#endif
