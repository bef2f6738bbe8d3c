#include "balancer/queue.h"

#include <stdlib.h>
#include <string.h>

#include "balancer/eligible.h"

_Atomic uint32_t queue_waiting_anywhere;
_Atomic uint64_t queue_news;

/* All queues, for places that come back: a backend may serve several pools. Taken before a queue's own lock,
 * never inside it. Writers are reloads; they must not starve while a full farm hands place after place over.
 */
static pthread_rwlock_t queues_lock = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static struct wait_queue *queues;

struct wait_queue *wait_queue_create(void)
{
    struct wait_queue *queue = aligned_alloc(alignof(struct wait_queue), sizeof *queue);

    if (!queue)
        return NULL;
    memset(queue, 0, sizeof *queue);
    queue->random = 0x9e3779b97f4a7c15u;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_rwlock_wrlock(&queues_lock);
    queue->next = queues;
    if (queues)
        queues->previous = queue;
    queues = queue;
    pthread_rwlock_unlock(&queues_lock);
    return queue;
}

void wait_queue_free(struct wait_queue **queue)
{
    struct wait_queue *q = *queue;

    *queue = NULL;
    if (!q)
        return;
    pthread_rwlock_wrlock(&queues_lock);
    if (q->next)
        q->next->previous = q->previous;
    if (q->previous)
        q->previous->next = q->next;
    else
        queues = q->next;
    pthread_rwlock_unlock(&queues_lock);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

void queue_announce(struct wait_queue *queue)
{
    atomic_fetch_add(&queue->waiting, 1);
    atomic_fetch_add(&queue_waiting_anywhere, 1);
    atomic_fetch_add(&queue_news, 1);
}

void queue_withdraw(struct wait_queue *queue)
{
    atomic_fetch_sub(&queue_waiting_anywhere, 1);
    atomic_fetch_sub(&queue->waiting, 1);
}

void queue_link(struct wait_queue *queue, struct waiter *waiter)
{
    static _Atomic uint64_t tickets;

    waiter->ticket = atomic_fetch_add_explicit(&tickets, 1, memory_order_relaxed);
    waiter->waiting = true;
    waiter->next = NULL;
    waiter->previous = queue->last;
    if (queue->last)
        queue->last->next = waiter;
    else
        queue->first = waiter;
    queue->last = waiter;
}

void queue_unlink(struct waiter *waiter)
{
    struct wait_queue *queue = waiter->queue;

    if (waiter->next)
        waiter->next->previous = waiter->previous;
    else
        queue->last = waiter->previous;
    if (waiter->previous)
        waiter->previous->next = waiter->next;
    else
        queue->first = waiter->next;
    waiter->waiting = false;
    queue_withdraw(queue);
}

void queue_settle(struct waiter *waiter, enum placement_verdict verdict, struct member *member,
                  struct waiter **settled)
{
    queue_unlink(waiter);
    waiter->verdict = verdict;
    waiter->member = member;
    waiter->next = *settled;
    *settled = waiter;
}

void queue_post(struct waiter *settled)
{
    struct waiter *oldest = NULL;

    while (settled) {
        struct waiter *next = settled->next;
        settled->next = oldest;
        oldest = settled;
        settled = next;
    }
    while (oldest) {
        /* Once posted it is its owner's, who may free it at once. */
        struct waiter *next = oldest->next;
        mailbox_post(oldest->mailbox, &oldest->mail);
        oldest = next;
    }
}

/* The first in the queue that can use this backend, and as which member. With the lock held. */
static struct waiter *first_for(struct wait_queue *queue, const struct backend *backend,
                                struct member **member)
{
    for (struct waiter *waiter = queue->first; waiter; waiter = waiter->next) {
        const struct pool *pool = waiter->wish.pool;
        bool tried = false;

        for (unsigned i = 0; i < waiter->wish.n_tried; i++)
            tried |= waiter->wish.tried[i] == backend;
        if (tried || !backend_capable(backend, waiter->wish.needs, waiter->wish.size))
            continue;
        for (size_t i = 0; i < pool->n_members; i++) {
            if (pool->members[i]->backend == backend) {
                *member = pool->members[i];
                return waiter;
            }
        }
    }
    return NULL;
}

/* The queue whose first for this backend has waited longest. */
static struct wait_queue *oldest_for(const struct backend *backend)
{
    struct wait_queue *oldest = NULL;
    uint64_t ticket = 0;

    for (struct wait_queue *queue = queues; queue; queue = queue->next) {
        struct member *member;
        struct waiter *waiter;

        if (atomic_load(&queue->waiting) == 0)
            continue;
        pthread_mutex_lock(&queue->lock);
        waiter = first_for(queue, backend, &member);
        if (waiter && (!oldest || waiter->ticket < ticket)) {
            oldest = queue;
            ticket = waiter->ticket;
        }
        pthread_mutex_unlock(&queue->lock);
    }
    return oldest;
}

bool queue_hand_over(struct backend *backend)
{
    struct waiter *settled = NULL;
    struct wait_queue *queue;

    pthread_rwlock_rdlock(&queues_lock);
    /* Between the look and the grant the one seen may leave or be served otherwise: then look again. */
    while (!settled && (queue = oldest_for(backend))) {
        struct member *member;
        struct waiter *waiter;

        pthread_mutex_lock(&queue->lock);
        waiter = first_for(queue, backend, &member);
        if (waiter)
            queue_settle(waiter, PLACEMENT_GRANTED, member_hold(member), &settled);
        pthread_mutex_unlock(&queue->lock);
    }
    pthread_rwlock_unlock(&queues_lock);
    if (!settled)
        return false;
    queue_post(settled);
    return true;
}
