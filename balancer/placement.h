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
 * Newcomers do not overtake: while anyone waits in the pool, they queue up behind. A place that comes free
 * goes to the first in the queue that can use it.
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
};

enum placement_verdict {
    PLACEMENT_GRANTED,     /* *member is held, with one place on its backend */
    PLACEMENT_WAITING,     /* *waiter is in the queue */
    PLACEMENT_NO_BACKEND,  /* none is usable, or all that are were tried */
    PLACEMENT_NOT_CAPABLE, /* usable ones lack what the transaction needs */
    PLACEMENT_QUEUE_FULL,
};

struct waiter;

/* Ask. *member is set when GRANTED, *waiter when WAITING, else both are NULL. `now` in ms, monotonic. When
 * every usable backend is full, or none is usable but one is still in INIT or merely suspended, the wish
 * waits: `deliver` is called later on the thread that owns `mailbox`, with `session`, unless waiter_leave()
 * comes first. The verdict delivered is GRANTED with a member held, or a refusal with NULL; the waiter is
 * gone when `deliver` is called. The wish is copied; the farm and the backends in it are held while waiting,
 * and a reload moves the wish on to the new farm's pool. Out of memory: QUEUE_FULL. */
enum placement_verdict placement_request(const struct placement_wish *wish, uint64_t *random, int64_t now,
                                         struct mailbox *mailbox,
                                         void (*deliver)(void *session, enum placement_verdict verdict,
                                                         struct member *member),
                                         void *session, struct member **member, struct waiter **waiter);

/* The session no longer waits (deadline, client gone). After it `deliver` is never called; a place granted
 * meanwhile is given back. The waiter is freed, now or when its mail arrives. On the owner's thread. */
void waiter_leave(struct waiter **waiter);

/* Give a place back and release the member; clears the pointer. The one function that lowers a count. Then
 * the queues are served. */
void placement_return(struct member **member);

/* Something changed in favour of those who wait (a backend came up, a ceiling rose, a suspension ended), or
 * against them (nothing is usable any more: they are refused at once). Control thread or any other. */
void placement_serve(struct farm *farm, int64_t now);

/* Sessions waiting in this pool now. */
uint32_t placement_waiting(const struct pool *pool);

/* Retries to another backend, over all workers: no more than max(3, 20 % of the active placements) at a time.
 * True: go ahead, and call placement_retry_end() when the new backend is ready or lost. */
bool placement_retry_begin(void);
void placement_retry_end(void);

#endif
