/*
 * Placement: a session asks for a backend, gets a place, waits for one, or is refused.
 *
 * The order of things: the place is taken before the connect, counted once, and given back exactly once, by
 * placement_return().
 *
 *   WAITING ──grant (any thread)──▶ settled ──mail──▶ the owner's session goes on
 *      │                               └──leave──▶ freed when its mail comes, its place given back
 *      └────leave (owner)─────────▶ freed
 *
 * Newcomers do not overtake: while anyone waits in the pool, they queue up. A place that comes free goes to
 * the first in the queue that can use it. First is the highest listener priority; then one client after the
 * other; then, of one client's, who came first. Clients over max-share-per-client come last.
 */
#ifndef WEIR_BALANCER_PLACEMENT_H
#define WEIR_BALANCER_PLACEMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "balancer/farm.h"
#include "net/mailbox.h"

#define PLACEMENT_TRIES 3 /* the first backend and at most two others, never the same again */

struct placement_wish {
    struct farm *farm;
    struct pool *pool; /* of `farm` */
    uint32_t needs;    /* enum smtp_capability bits that the transaction uses */
    uint64_t size;     /* of MAIL SIZE=, 0 if not given: backends with a smaller limit are passed over */
    uint64_t hash_key;
    struct backend *tried[PLACEMENT_TRIES]; /* passed over */
    unsigned n_tried;
    uint64_t client;  /* who asks, as a hash that nobody can aim at: the queue is fair between clients */
    uint8_t priority; /* in the queue, higher first */
};

/* A place on a backend. One who has it gives it back with placement_return(), and nobody else. */
struct place {
    struct member *member;       /* held; NULL: no place */
    struct queue_client *client; /* whose share it counts in; NULL: the pool didn't count then */
};

enum placement_verdict {
    PLACEMENT_GRANTED,     /* *place is had */
    PLACEMENT_WAITING,     /* *waiter is in the queue */
    PLACEMENT_NO_BACKEND,  /* none is usable, or all that are were tried */
    PLACEMENT_NOT_CAPABLE, /* usable ones lack what the transaction needs */
    PLACEMENT_QUEUE_FULL,
    PLACEMENT_DISPLACED, /* had to leave the full queue to another */
};

struct waiter;

/* Ask. *place is set when GRANTED, *waiter when WAITING, else both are empty. `now` in ms, monotonic. When
 * every usable backend is full, or none is usable but one is still in INIT or merely suspended, the wish
 * waits: `deliver` is called later on the thread that owns `mailbox`, with `session`, unless waiter_leave()
 * comes first. The verdict delivered is GRANTED with a place, or a refusal with an empty one; the waiter is
 * gone when `deliver` is called. The wish is copied; the farm and the backends in it are held while waiting,
 * and a reload moves the wish on to the new farm's pool. Out of memory: QUEUE_FULL.
 *
 * A full queue takes a newcomer all the same if a client holds over a quarter of it and more than the
 * newcomer's own, or if somebody of a lower priority waits: one of theirs is DISPLACED. */
enum placement_verdict placement_request(const struct placement_wish *wish, uint64_t *random, int64_t now,
                                         struct mailbox *mailbox,
                                         void (*deliver)(void *session, enum placement_verdict verdict,
                                                         struct place place),
                                         void *session, struct place *place, struct waiter **waiter);

#define PLACEMENT_HURRY 2000 /* ms */
/* How long this one should wait, ms: `usual` (the pool's queue-timeout), or PLACEMENT_HURRY where all waits
 * had been long for a while when it came: better refused soon than all served late. */
uint32_t waiter_patience(const struct waiter *waiter, uint32_t usual);

/* The session no longer waits (deadline, client gone). After it `deliver` is never called; a place granted
 * meanwhile is given back. The waiter is freed, now or when its mail arrives. On the owner's thread. */
void waiter_leave(struct waiter **waiter);

/* Give a place back and release the member; clears it, and an empty one is fine. The one function that lowers
 * a count. Then the queues are served. `now` in ms, monotonic. */
void placement_return(struct place *place, int64_t now);

/* Something changed in favour of those who wait (a backend came up, a ceiling rose, a suspension ended), or
 * against them (nothing is usable any more: they are refused at once). Control thread or any other. */
void placement_serve(struct farm *farm, int64_t now);

/* Sessions waiting in this pool now. */
uint32_t placement_waiting(const struct pool *pool);

/* Retries to another backend, over all workers: no more than max(3, 20 % of the active placements) at a time.
 * True: go ahead, and call placement_retry_end() when the new backend is ready or lost. */
bool placement_retry_begin(void);
/* One that waited in the queue has got a place: it counts among them, however many there are. */
void placement_retry_granted(void);
void placement_retry_end(void);

#endif
