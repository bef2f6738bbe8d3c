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
    atomic_init(&queue->references, 1);
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
    if (!q || atomic_fetch_sub_explicit(&q->references, 1, memory_order_acq_rel) > 1)
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
    free(q->buckets);
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

/* --- how long they wait --------------------------------------------------------------------------------- */

static void wait_is_long(struct wait_queue *queue, int64_t asked)
{
    if (!queue->above_since)
        queue->above_since =
            asked + QUEUE_TARGET > queue->last_short ? asked + QUEUE_TARGET : queue->last_short;
}

static void wait_is_short(struct wait_queue *queue, int64_t now)
{
    queue->last_short = now;
    queue->above_since = 0;
}

/* As in CoDel it is the shortest wait that counts: a burst makes long ones too, but some short ones between.
 */
bool queue_hurries(struct wait_queue *queue, int64_t now)
{
    const struct waiter *next;

    if (!queue->first) {
        wait_is_short(queue, now);
        return false;
    }
    /* Perhaps nobody has been served for so long that no wait has ended. */
    next = queue->classes[queue_next_class(queue, QUEUE_PRIORITIES)].first->first;
    if (now - next->asked > QUEUE_TARGET)
        wait_is_long(queue, next->asked);
    return queue->above_since && now - queue->above_since >= QUEUE_INTERVAL;
}

/* --- settling ------------------------------------------------------------------------------- */

static void settle(struct waiter *waiter, enum placement_verdict verdict, int64_t now,
                   struct waiter **settled)
{
    queue_unlink(waiter);
    waiter->verdict = verdict;
    waiter->settled = now;
    if (waiter->asking)
        return;
    waiter->next = *settled;
    *settled = waiter;
}

void queue_grant(struct waiter *waiter, struct member *member, int64_t now, struct waiter **settled)
{
    struct wait_queue *queue = waiter->queue;
    struct queue_line *line = waiter->line;

    waiter->place.member = member;
    if (waiter->wish.pool->config->max_share_per_client < 100) {
        queue_add_place(line->client);
        waiter->place.client = line->client;
    }
    if (now - waiter->asked > QUEUE_TARGET)
        wait_is_long(queue, waiter->asked);
    else
        wait_is_short(queue, now);
    queue_line_to_end(line);
    settle(waiter, PLACEMENT_GRANTED, now, settled);
}

void queue_refuse(struct waiter *waiter, enum placement_verdict verdict, int64_t now, struct waiter **settled)
{
    settle(waiter, verdict, now, settled);
}

/* The client's lowest. */
static struct queue_line *lowest_line(const struct queue_client *client)
{
    struct queue_line *lowest = client->lines;

    for (struct queue_line *line = lowest; line; line = line->sibling)
        if (line->priority < lowest->priority)
            lowest = line;
    return lowest;
}

bool queue_displace(struct waiter *own, int64_t now, struct waiter **settled)
{
    struct wait_queue *queue = own->queue;
    const struct queue_client *largest = own->line->client;
    struct waiter *displaced = NULL;
    int lowest;

    queue_set_size(queue, own->wish.pool->config->queue_size);
    for (const struct queue_client *client = queue->large; client; client = client->large_next) {
        const struct queue_line *line = lowest_line(client);

        if (client->seats > largest->seats && line->priority <= own->wish.priority) {
            largest = client;
            displaced = line->last;
        }
    }
    lowest = queue_lowest_class(queue);
    if (!displaced && lowest < own->wish.priority)
        displaced = queue->classes[lowest].last->last;
    if (!displaced)
        return false;
    queue_refuse(displaced, PLACEMENT_DISPLACED, now, settled);
    return true;
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

/* --- a place that comes back ---------------------------------------------------------------------------- */

struct candidate {
    const struct backend *backend;
    int64_t now;
    const struct pool *pool; /* as which member it is in this pool; NULL: in none */
    struct member *member;
};

static enum queue_fit can_use(void *arg, const struct waiter *waiter)
{
    struct candidate *c = arg;
    const struct pool *pool = waiter->wish.pool;

    if (pool != c->pool) {
        c->pool = pool;
        c->member = NULL;
        for (size_t i = 0; i < pool->n_members && !c->member; i++)
            if (pool->members[i]->backend == c->backend)
                c->member = pool->members[i];
    }
    return c->member && eligible_but_for_room(c->backend, &waiter->wish, c->now) ? QUEUE_TAKE : QUEUE_PASS;
}

/* The first in the queue that can use this backend, and as which member. With the lock held. */
static struct waiter *first_for(struct wait_queue *queue, const struct backend *backend, int64_t now,
                                struct member **member, bool *over)
{
    struct candidate candidate = { .backend = backend, .now = now };
    struct queue_walk walk = { .queue = queue, .now = now, .fits = can_use, .arg = &candidate };
    struct waiter *waiter = queue_walk_next(&walk);

    *member = candidate.member;
    *over = walk.over;
    return waiter;
}

/* The queue whose first for this backend goes before the firsts of all others. */
static struct wait_queue *best_for(const struct backend *backend, int64_t now)
{
    struct wait_queue *best = NULL;
    uint64_t turn = 0;
    int rank = 0;

    for (struct wait_queue *queue = queues; queue; queue = queue->next) {
        const struct waiter *waiter;
        struct member *member;
        bool over;

        if (atomic_load(&queue->waiting) == 0)
            continue;
        pthread_mutex_lock(&queue->lock);
        waiter = first_for(queue, backend, now, &member, &over);
        if (waiter) {
            int its = waiter->wish.priority + (over ? 0 : QUEUE_PRIORITIES);

            if (!best || its > rank || (its == rank && waiter->line->turn < turn)) {
                best = queue;
                rank = its;
                turn = waiter->line->turn;
            }
        }
        pthread_mutex_unlock(&queue->lock);
    }
    return best;
}

bool queue_hand_over(struct backend *backend, int64_t now)
{
    struct waiter *settled = NULL;
    struct wait_queue *queue;

    pthread_rwlock_rdlock(&queues_lock);
    /* Between the look and the grant the one seen may leave or be served otherwise: then look again. */
    while (!settled && (queue = best_for(backend, now))) {
        struct member *member;
        struct waiter *waiter;
        bool over;

        pthread_mutex_lock(&queue->lock);
        waiter = first_for(queue, backend, now, &member, &over);
        if (waiter)
            queue_grant(waiter, member_hold(member), now, &settled);
        pthread_mutex_unlock(&queue->lock);
    }
    pthread_rwlock_unlock(&queues_lock);
    if (!settled)
        return false;
    queue_post(settled);
    return true;
}
