/*
 * The wait queue of a pool, as placement.c uses it. Its own header, so that the farm can make and free one.
 *
 *     priority 9   [client a: w w w] ⇄ [client b: w]                  a class: a ring of lines
 *     priority 0   [client c: w] ⇄ [client a: w w] ⇄ [client d: w]    a line: first in, first out
 *
 * The highest class first; in it the line whose turn it is, which then goes to the end. So a client with a
 * hundred waiters gets one place a round, as every other. Serving and leaving cost the same whatever the
 * length of the queue; only those are walked past who can't use what there is.
 */
#ifndef WEIR_BALANCER_QUEUE_H
#define WEIR_BALANCER_QUEUE_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "balancer/placement.h"

#define QUEUE_PRIORITIES 256

/* While no wait has been shorter than QUEUE_TARGET for QUEUE_INTERVAL, newcomers are in a hurry (ms). */
#define QUEUE_TARGET   1000
#define QUEUE_INTERVAL 5000

struct waiter {
    struct mail mail; /* brings the verdict to the owner */
    struct mailbox *mailbox;
    void (*deliver)(void *session, enum placement_verdict verdict, struct place place);
    void *session;
    bool left;     /* the owner's alone: it left when the verdict was already on its way */
    bool hurried;  /* set before it waits */
    int64_t asked; /* ms */

    /* Under the queue's lock while it waits; the owner's once the mail has come. */
    struct wait_queue *queue; /* lives: the farm in the wish holds the pool's state */
    struct waiter *next, *previous;
    struct queue_line *line;
    struct waiter *line_next, *line_previous;
    bool waiting;
    bool asking;     /* still in placement_request(): it hears its verdict there and not by mail */
    int64_t settled; /* ms */
    struct placement_wish wish;
    enum placement_verdict verdict;
    struct place place; /* when granted */
};

/* One client's waiters of one priority; there is none without a waiter. */
struct queue_line {
    struct queue_client *client;
    struct queue_line *sibling; /* the client's next */
    struct queue_line *next, *previous;
    struct waiter *first, *last;
    uint64_t turn; /* over all queues: the order in which lines have come to the end of their class */
    uint8_t priority;
};

/* A client that waits or has counted places; there is none without either. */
struct queue_client {
    struct wait_queue *queue;
    struct queue_client *next; /* in its bucket */
    uint64_t key;
    uint32_t seats;  /* its waiters */
    uint32_t places; /* taken while the pool's max-share-per-client was below 100 %, and held */
    struct queue_line *lines;
    struct queue_client *large_next, *large_previous;
    bool large; /* over a quarter of the seats */
};

struct wait_queue {
    _Atomic uint32_t references;
    pthread_mutex_t lock;
    struct waiter *first, *last; /* in the order of arrival */
    struct {
        struct queue_line *first, *last;
    } classes[QUEUE_PRIORITIES];
    uint64_t occupied[QUEUE_PRIORITIES / 64]; /* classes with a line, one bit each */
    struct queue_client **buckets;
    size_t n_buckets; /* a power of two, or 0 */
    size_t n_clients;
    uint32_t size;                        /* queue-size, when it was last looked at … */
    struct queue_client *large;           /* … and who has over a quarter of it */
    int64_t last_short;                   /* when a wait was last short, or nobody waited; ms */
    int64_t above_since;                  /* all have been long since; 0: they aren't */
    uint64_t random;                      /* for choices made on behalf of those who wait */
    struct wait_queue *next, *previous;   /* all queues there are */
    alignas(64) _Atomic uint32_t waiting; /* linked here, or about to be */
};

struct wait_queue *wait_queue_create(void);
/* Give a reference back: the pool's state has one, and every place that is counted. With the last one nobody
 * waits in it any more. NULL is fine; the caller's pointer is cleared. */
void wait_queue_free(struct wait_queue **queue);

/* How many wait anywhere, and how often the world has changed in favour of one who waits without a place
 * coming back (a waiter came, or placement_serve()). placement.c, "No wake-up is lost", says why both are
 * sequentially consistent. */
extern _Atomic uint32_t queue_waiting_anywhere;
extern _Atomic uint64_t queue_news;

/* Somebody is about to wait, or does so no longer. */
void queue_announce(struct wait_queue *queue);
void queue_withdraw(struct wait_queue *queue);

/* --- queue_order.c, with the lock held --- */

/* Announced before, and `asked` is set. False: out of memory. */
bool queue_link(struct waiter *waiter);
void queue_unlink(struct waiter *waiter); /* withdraws too */
void queue_line_to_end(struct queue_line *line);
/* The highest priority below `priority` with which somebody waits, or the lowest of all; -1: none. */
int queue_next_class(const struct wait_queue *queue, int priority);
int queue_lowest_class(const struct wait_queue *queue);
/* `large` is kept for this size from now on. A reload may have changed it. */
void queue_set_size(struct wait_queue *queue, uint32_t size);
void queue_add_place(struct queue_client *client); /* counted, as by queue_count() */

/* Those who wait, in the order in which they are to be served. A client over its share comes after all
 * others. What queue_walk_next() returns is granted before it is called again. */
enum queue_fit {
    QUEUE_PASS, /* nothing for this one */
    QUEUE_TAKE,
    QUEUE_STOP, /* nor for any other */
};
struct queue_walk {
    struct wait_queue *queue;
    int64_t now;
    enum queue_fit (*fits)(void *arg, const struct waiter *waiter);
    void *arg;
    bool over; /* among those who are over their share; as of the one returned */

    /* The walk's own. */
    bool begun, skipped;
    int priority;
    struct queue_line *line, *next;
    const struct pool *pool; /* of which `share` is a client's, in places */
    uint64_t share;
};
struct waiter *queue_walk_next(struct queue_walk *walk);

/* --- queue.c, with the lock held --- */

/* Whether one who comes now is in a hurry. To be asked before it is linked. */
bool queue_hurries(struct wait_queue *queue, int64_t now);

/* Unlink and put the verdict in front of `settled`, a list to be posted once the lock is given up. What is
 * granted (held, with a place) is counted, if the pool counts, and the client's line goes to the end. */
void queue_grant(struct waiter *waiter, struct member *member, int64_t now, struct waiter **settled);
void queue_refuse(struct waiter *waiter, enum placement_verdict verdict, int64_t now,
                  struct waiter **settled);

/* `own` waits in a queue that is over its size: somebody else is refused in its place (the youngest of the
 * client with the most seats, if they are over a quarter and more than own's; else the youngest of the line
 * whose turn comes last, if its priority is below own's), or false. */
bool queue_displace(struct waiter *own, int64_t now, struct waiter **settled);

/* --- without the lock --- */

/* Post in the order of settling. */
void queue_post(struct waiter *settled);

/* Count a place that `key` has got; NULL: memory is out, and it isn't counted. */
struct queue_client *queue_count(struct wait_queue *queue, uint64_t key);
/* Exactly once for each that was counted; clears the pointer, and NULL is fine. */
void queue_uncount(struct queue_client **client);

/* Give `backend`, on which the caller has a place, to one who can use it: the highest priority over all
 * queues, then whose turn comes first: clients take turns over all pools of a backend, as in one queue. True:
 * the place is theirs. */
bool queue_hand_over(struct backend *backend, int64_t now);

#endif
