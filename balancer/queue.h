/*
 * The wait queue of a pool, as placement.c uses it. Its own header, so that the farm can make and free one.
 */
#ifndef WEIR_BALANCER_QUEUE_H
#define WEIR_BALANCER_QUEUE_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "balancer/placement.h"

struct waiter {
    struct mail mail; /* brings the verdict to the owner */
    struct mailbox *mailbox;
    void (*deliver)(void *session, enum placement_verdict verdict, struct member *member);
    void *session;
    bool left; /* the owner's alone: it left when the verdict was already on its way */

    /* Under the queue's lock while it waits; the owner's once the mail has come. */
    struct wait_queue *queue; /* lives: the farm in the wish holds the pool's state */
    struct waiter *next, *previous;
    bool waiting;
    uint64_t ticket; /* order of arrival over all queues */
    struct placement_wish wish;
    enum placement_verdict verdict;
    struct member *member; /* when granted: held, with a place */
};

struct wait_queue {
    pthread_mutex_t lock;
    struct waiter *first, *last;
    uint64_t random;                      /* for choices made on behalf of those who wait */
    struct wait_queue *next, *previous;   /* all queues there are */
    alignas(64) _Atomic uint32_t waiting; /* linked here, or about to be */
};

struct wait_queue *wait_queue_create(void);
/* Nobody waits in it any more. NULL is fine; the caller's pointer is cleared. */
void wait_queue_free(struct wait_queue **queue);

/* How many wait anywhere, and how often the world has changed in favour of one who waits without a place
 * coming back (a waiter came, or placement_serve()). placement.c, "No wake-up is lost", says why both are
 * sequentially consistent. */
extern _Atomic uint32_t queue_waiting_anywhere;
extern _Atomic uint64_t queue_news;

/* With the lock held. */
void queue_announce(struct wait_queue *queue);
void queue_withdraw(struct wait_queue *queue);
void queue_link(struct wait_queue *queue, struct waiter *waiter); /* announced before */
void queue_unlink(struct waiter *waiter);                         /* withdraws too */

/* Unlink and put the verdict in front of `settled`, a list to be posted once the lock is given up. */
void queue_settle(struct waiter *waiter, enum placement_verdict verdict, struct member *member,
                  struct waiter **settled);
/* Post in the order of settling. No lock held. */
void queue_post(struct waiter *settled);

/* Give `backend`, on which the caller has a place, to the one who has waited longest among all who can use
 * it. True: the place is theirs. */
bool queue_hand_over(struct backend *backend);

#endif
