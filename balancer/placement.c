/*
 * Placement: who gets a place, who waits for one, and how a place that comes free finds the one who waits.
 *
 *   placement_request                                   placement_return
 *        │                                                   │
 *        │ nobody waits in the pool                          │ nobody waits anywhere
 *        ├──────────▶ take a place ──▶ GRANTED               ├──────────▶ count falls by one
 *        │               │ none                              │
 *        ▼               ▼                                   ▼
 *     ┌─ the queue's lock ───────────────────────┐      the one who has waited longest among
 *     │ announce                                 │      all who can use this backend gets the
 *     │ serve those who were here before         │      place; the count does not move
 *     │ take a place, if none of them is left    │           │ none can, or the backend is out
 *     │ else judge:                              │           ▼ of service or above its ceiling
 *     │   hopeless ──▶ NO_BACKEND, NOT_CAPABLE   │      count falls by one; look again if there
 *     │   no seat  ──▶ QUEUE_FULL                │      was news meanwhile
 *     │   link     ──▶ WAITING                   │
 *     └──────────────────────────────────────────┘      placement_serve (the world has changed)
 *        │                                                   │
 *        ▼                                                   ▼
 *     WAITING ◀── settled under the lock: granted, or refused when nothing can be hoped for any more
 *        │
 *        ├─ mail to the owner's loop ──▶ deliver(session, verdict, member)
 *        └─ waiter_leave() first ──▶ no deliver; a place that was on its way goes back
 *
 * Exactly once. An entry is linked, settled and left under its queue's lock, so it is either settled (one
 * mail) or left (none). The design speaks of a compare-and-swap here; as leaving has to unlink, the lock is
 * needed anyway and makes it superfluous.
 *
 * No wake-up is lost. Who is about to wait first announces itself (two counters rise) and only then looks for
 * room; who gives a place back first lowers the count and only then looks whether anybody waits. All these
 * are sequentially consistent, so one of the two sees the other. A place that was offered to the queues in
 * vain is offered once more if `queue_news` moved while that was going on: the count was still up then, and
 * somebody may have looked and found the backend full. placement_serve() moves it too, for a state or a
 * ceiling that changes while a place is on its way.
 */
#include "balancer/placement.h"

#include <stdlib.h>

#include "balancer/eligible.h"
#include "balancer/queue.h"

/* tests/unit/test_queue.c puts delays here, where a few nanoseconds decide who sees whom. */
#ifndef RACE_POINT
#define RACE_POINT() ((void)0)
#endif

#define RETRIES_AT_LEAST 3
#define RETRIES_PERCENT  20

/* The time as of the last placement that found no place, or placement_serve(): near enough to judge whether a
 * suspended backend may be handed on, as its end is announced by placement_serve(). Reading a clock here
 * would tie the balancer to real time. */
static _Atomic int64_t latest;

static struct {
    alignas(64) _Atomic uint32_t active; /* places held */
    alignas(64) _Atomic uint32_t retries;
} totals;

static void count_active(int change)
{
    atomic_fetch_add_explicit(&totals.active, (uint32_t)change, memory_order_relaxed);
}

/* Take for `waiter` what there is. */
static struct member *take(const struct placement_wish *wish, uint64_t *random, int64_t now)
{
    struct member *member = eligible_take(wish, random, now);

    if (member)
        count_active(+1);
    return member;
}

static void waiter_free(struct waiter *waiter)
{
    for (unsigned i = 0; i < waiter->wish.n_tried; i++)
        backend_release(&waiter->wish.tried[i]);
    farm_release(&waiter->wish.farm);
    free(waiter);
}

/* The mail has come. */
static void on_settled(struct mail *mail, void *owner)
{
    struct waiter *waiter = (struct waiter *)mail;
    void (*deliver)(void *, enum placement_verdict, struct member *) = waiter->deliver;
    void *session = waiter->session;
    enum placement_verdict verdict = waiter->verdict;
    struct member *member = waiter->member;
    bool left = waiter->left;

    (void)owner;
    waiter_free(waiter);
    if (!left)
        deliver(session, verdict, member);
    else if (member)
        placement_return(&member);
}

static struct waiter *waiter_create(const struct placement_wish *wish, struct mailbox *mailbox,
                                    void (*deliver)(void *, enum placement_verdict, struct member *),
                                    void *session)
{
    struct waiter *waiter = calloc(1, sizeof *waiter);

    if (!waiter)
        return NULL;
    waiter->mail.deliver = on_settled;
    waiter->mailbox = mailbox;
    waiter->deliver = deliver;
    waiter->session = session;
    waiter->queue = wish->pool->state->queue;
    waiter->wish = *wish;
    farm_hold(wish->farm);
    for (unsigned i = 0; i < wish->n_tried; i++)
        backend_hold(wish->tried[i]);
    return waiter;
}

/* Give places to those who wait, in their order. With the lock held. */
static void serve(struct wait_queue *queue, int64_t now, struct waiter **settled)
{
    const struct pool *looked_at = NULL;
    bool room = false;
    struct waiter *next;

    for (struct waiter *waiter = queue->first; waiter; waiter = next) {
        struct member *member;

        next = waiter->next;
        if (waiter->wish.pool != looked_at) {
            looked_at = waiter->wish.pool;
            room = eligible_any_room(looked_at, now);
        }
        if (!room)
            continue;
        member = take(&waiter->wish, &queue->random, now);
        if (member) {
            queue_settle(waiter, PLACEMENT_GRANTED, member, settled);
            looked_at = NULL;
        }
    }
}

/* Under the lock: get a place after all, or a seat in the queue. */
static enum placement_verdict request_locked(struct waiter *waiter, uint64_t *random, int64_t now,
                                             struct member **member, struct waiter **settled)
{
    struct wait_queue *queue = waiter->queue;
    enum placement_verdict verdict;

    queue_announce(queue);
    RACE_POINT();
    serve(queue, now, settled);
    /* Whoever is left of the others can use nothing that has room now: to pass them is not to overtake. */
    *member = take(&waiter->wish, random, now);
    RACE_POINT();
    if (*member)
        verdict = PLACEMENT_GRANTED;
    else
        verdict = eligible_verdict(&waiter->wish);
    if (verdict == PLACEMENT_WAITING && atomic_load(&queue->waiting) > waiter->wish.pool->config->queue_size)
        verdict = PLACEMENT_QUEUE_FULL;
    if (verdict == PLACEMENT_WAITING)
        queue_link(queue, waiter);
    else
        queue_withdraw(queue);
    return verdict;
}

enum placement_verdict placement_request(const struct placement_wish *wish, uint64_t *random, int64_t now,
                                         struct mailbox *mailbox,
                                         void (*deliver)(void *session, enum placement_verdict verdict,
                                                         struct member *member),
                                         void *session, struct member **member, struct waiter **waiter)
{
    struct wait_queue *queue = wish->pool->state->queue;
    struct waiter *settled = NULL, *own;
    enum placement_verdict verdict;

    *waiter = NULL;
    *member = NULL;
    if (atomic_load_explicit(&queue->waiting, memory_order_acquire) == 0) {
        *member = take(wish, random, now);
        if (*member)
            return PLACEMENT_GRANTED;
    }
    own = waiter_create(wish, mailbox, deliver, session);
    if (!own)
        return PLACEMENT_QUEUE_FULL;
    atomic_store_explicit(&latest, now, memory_order_relaxed);
    pthread_mutex_lock(&queue->lock);
    verdict = request_locked(own, random, now, member, &settled);
    if (verdict == PLACEMENT_WAITING)
        *waiter = own;
    pthread_mutex_unlock(&queue->lock);
    queue_post(settled);
    if (verdict != PLACEMENT_WAITING)
        waiter_free(own);
    return verdict;
}

void waiter_leave(struct waiter **waiter)
{
    struct waiter *w = *waiter;
    bool waited;

    *waiter = NULL;
    if (!w)
        return;
    pthread_mutex_lock(&w->queue->lock);
    waited = w->waiting;
    if (waited)
        queue_unlink(w);
    pthread_mutex_unlock(&w->queue->lock);
    if (waited)
        waiter_free(w);
    else
        w->left = true; /* its mail frees it */
}

/* Hand the place on, or lower the count. */
static void give_back(struct backend *backend)
{
    for (;;) {
        uint64_t news = atomic_load(&queue_news);
        bool usable = true, offered = false;

        if (atomic_load(&queue_waiting_anywhere) > 0) {
            usable = backend_usable(backend, atomic_load_explicit(&latest, memory_order_relaxed));
            RACE_POINT();
            /* Above a ceiling that was lowered the place is not anybody's to have. */
            if (usable && atomic_load(&backend->connections) <= atomic_load(&backend->ceiling)) {
                if (queue_hand_over(backend))
                    return;
                offered = true;
            }
        }
        RACE_POINT();
        backend_return_place(backend);
        count_active(-1);
        RACE_POINT();
        if (atomic_load(&queue_waiting_anywhere) == 0)
            return;
        if ((offered || !usable) && atomic_load(&queue_news) == news)
            return;
        if (!backend_take_place(backend))
            return;
        count_active(+1);
    }
}

void placement_return(struct member **member)
{
    if (!*member)
        return;
    give_back((*member)->backend);
    member_release(member);
}

/* Those who wait on an older configuration's pool are moved to this one's of the same name. One at a time,
 * because giving up the last reference to a farm takes locks that may not be taken inside the queue's. */
static void adopt(struct farm *farm, struct pool *pool)
{
    struct wait_queue *queue = pool->state->queue;
    struct waiter *waiter;

    do {
        struct farm *old = NULL;

        pthread_mutex_lock(&queue->lock);
        for (waiter = queue->first; waiter; waiter = waiter->next)
            if (waiter->wish.farm->serial < farm->serial)
                break;
        if (waiter) {
            old = waiter->wish.farm;
            waiter->wish.farm = farm_hold(farm);
            waiter->wish.pool = pool;
        }
        pthread_mutex_unlock(&queue->lock);
        farm_release(&old);
    } while (waiter);
}

static void serve_pool(struct pool *pool, int64_t now)
{
    struct wait_queue *queue = pool->state->queue;
    struct waiter *settled = NULL, *next;

    pthread_mutex_lock(&queue->lock);
    serve(queue, now, &settled);
    for (struct waiter *waiter = queue->first; waiter; waiter = next) {
        enum placement_verdict verdict = eligible_verdict(&waiter->wish);

        next = waiter->next;
        if (verdict != PLACEMENT_WAITING)
            queue_settle(waiter, verdict, NULL, &settled);
    }
    pthread_mutex_unlock(&queue->lock);
    queue_post(settled);
}

void placement_serve(struct farm *farm, int64_t now)
{
    static _Atomic uint32_t turns;
    uint32_t turn = atomic_fetch_add_explicit(&turns, 1, memory_order_relaxed);

    atomic_store_explicit(&latest, now, memory_order_relaxed);
    atomic_fetch_add(&queue_news, 1);
    RACE_POINT();
    /* From another pool each time: where they share backends, none is always the first. */
    for (size_t i = 0; i < farm->n_pools; i++) {
        struct pool *pool = &farm->pools[(turn + i) % farm->n_pools];

        adopt(farm, pool);
        serve_pool(pool, now);
    }
}

uint32_t placement_waiting(const struct pool *pool)
{
    return atomic_load_explicit(&pool->state->queue->waiting, memory_order_relaxed);
}

bool placement_retry_begin(void)
{
    uint32_t retries = atomic_load_explicit(&totals.retries, memory_order_relaxed);

    do {
        uint64_t active = atomic_load_explicit(&totals.active, memory_order_relaxed);

        if (retries >= RETRIES_AT_LEAST && retries >= active * RETRIES_PERCENT / 100)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&totals.retries, &retries, retries + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void placement_retry_end(void)
{
    atomic_fetch_sub_explicit(&totals.retries, 1, memory_order_relaxed);
}
