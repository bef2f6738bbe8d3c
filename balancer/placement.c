/*
 * Placement: who gets a place, who waits for one, and how a place that comes free finds the one who waits.
 *
 *   placement_request                                   placement_return
 *        │                                                   │
 *        │ nobody waits in the pool                          │ nobody waits anywhere
 *        ├──────────▶ take a place ──▶ GRANTED               ├──────────▶ count falls by one
 *        │               │ none                              │
 *        ▼               ▼                                   ▼
 *     ┌─ the queue's lock ───────────────────────┐      the one whose turn it is among
 *     │ announce and link                        │      all who can use this backend gets the
 *     │ serve the queue, the newcomer with it    │      place; the count does not move
 *     │ if that left it waiting:                 │           │ none can, or the backend is out
 *     │   hopeless ──▶ NO_BACKEND, NOT_CAPABLE   │           ▼ of service or above its ceiling
 *     │   no seat, and nobody to displace        │      count falls by one; look again if there
 *     │            ──▶ QUEUE_FULL                │      was news meanwhile
 *     │   else     ──▶ WAITING                   │
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
    void (*deliver)(void *, enum placement_verdict, struct place) = waiter->deliver;
    void *session = waiter->session;
    enum placement_verdict verdict = waiter->verdict;
    struct place place = waiter->place;
    int64_t settled = waiter->settled;
    bool left = waiter->left;

    (void)owner;
    waiter_free(waiter);
    if (!left)
        deliver(session, verdict, place);
    else
        placement_return(&place, settled);
}

static struct waiter *waiter_create(const struct placement_wish *wish, struct mailbox *mailbox,
                                    void (*deliver)(void *, enum placement_verdict, struct place),
                                    void *session, int64_t now)
{
    struct waiter *waiter = calloc(1, sizeof *waiter);

    if (!waiter)
        return NULL;
    waiter->mail.deliver = on_settled;
    waiter->mailbox = mailbox;
    waiter->deliver = deliver;
    waiter->session = session;
    waiter->asked = now;
    waiter->asking = true;
    waiter->queue = wish->pool->state->queue;
    waiter->wish = *wish;
    farm_hold(wish->farm);
    for (unsigned i = 0; i < wish->n_tried; i++)
        backend_hold(wish->tried[i]);
    return waiter;
}

struct serving {
    struct wait_queue *queue;
    int64_t now;
    const struct placement_wish *failed; /* of one who is still waiting */
    struct member *member;
};

static enum queue_fit serve_one(void *arg, const struct waiter *waiter)
{
    struct serving *serving = arg;

    if (serving->failed && eligible_no_easier(&waiter->wish, serving->failed))
        return QUEUE_PASS;
    serving->member = take(&waiter->wish, &serving->queue->random, serving->now);
    if (serving->member)
        return QUEUE_TAKE;
    if (eligible_easiest(&waiter->wish))
        return QUEUE_STOP;
    if (waiter->wish.n_tried == 0)
        serving->failed = &waiter->wish;
    return QUEUE_PASS;
}

/* Give places to those who wait, in their order, until `pool` has no more. With the lock held. */
static void serve(struct wait_queue *queue, const struct pool *pool, int64_t now, struct waiter **settled)
{
    struct serving serving = { .queue = queue, .now = now };
    struct queue_walk walk = { .queue = queue, .now = now, .fits = serve_one, .arg = &serving };
    struct waiter *waiter;

    while (eligible_any_room(pool, now) && (waiter = queue_walk_next(&walk)))
        queue_grant(waiter, serving.member, now, settled);
}

/* Under the lock: get a place after all, or a seat in the queue. */
static enum placement_verdict request_locked(struct waiter *own, int64_t now, struct waiter **settled)
{
    struct wait_queue *queue = own->queue;
    const struct pool *pool = own->wish.pool;
    enum placement_verdict verdict;

    queue_announce(queue);
    RACE_POINT();
    own->hurried = queue_hurries(queue, now);
    if (!queue_link(own)) {
        queue_withdraw(queue);
        return PLACEMENT_QUEUE_FULL;
    }
    serve(queue, pool, now, settled);
    RACE_POINT();
    if (!own->waiting)
        return own->verdict;
    verdict = eligible_verdict(&own->wish);
    if (verdict == PLACEMENT_WAITING && atomic_load(&queue->waiting) > pool->config->queue_size &&
        !queue_displace(own, now, settled))
        verdict = PLACEMENT_QUEUE_FULL;
    if (verdict == PLACEMENT_WAITING)
        own->asking = false;
    else
        queue_unlink(own);
    return verdict;
}

enum placement_verdict placement_request(const struct placement_wish *wish, uint64_t *random, int64_t now,
                                         struct mailbox *mailbox,
                                         void (*deliver)(void *session, enum placement_verdict verdict,
                                                         struct place place),
                                         void *session, struct place *place, struct waiter **waiter)
{
    struct wait_queue *queue = wish->pool->state->queue;
    struct waiter *settled = NULL, *own;
    enum placement_verdict verdict;

    *waiter = NULL;
    *place = (struct place){ 0 };
    if (atomic_load_explicit(&queue->waiting, memory_order_acquire) == 0) {
        place->member = take(wish, random, now);
        if (place->member && wish->pool->config->max_share_per_client < 100)
            place->client = queue_count(queue, wish->client);
        if (place->member)
            return PLACEMENT_GRANTED;
    }
    own = waiter_create(wish, mailbox, deliver, session, now);
    if (!own)
        return PLACEMENT_QUEUE_FULL;
    pthread_mutex_lock(&queue->lock);
    verdict = request_locked(own, now, &settled);
    pthread_mutex_unlock(&queue->lock);
    queue_post(settled);
    if (verdict == PLACEMENT_WAITING) {
        *waiter = own;
    } else {
        *place = own->place;
        waiter_free(own);
    }
    return verdict;
}

uint32_t waiter_patience(const struct waiter *waiter, uint32_t usual)
{
    return waiter->hurried && usual > PLACEMENT_HURRY ? PLACEMENT_HURRY : usual;
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
static void give_back(struct backend *backend, int64_t now)
{
    for (;;) {
        uint64_t news = atomic_load(&queue_news);
        bool usable = true, offered = false;

        if (atomic_load(&queue_waiting_anywhere) > 0) {
            /* An ejected one is for those only whose pool is in a panic, as the queues will say. */
            usable = backend_usable(backend, now) || eligible_ejected(backend, now);
            RACE_POINT();
            /* Above a ceiling that was lowered the place is not anybody's to have. */
            if (usable && atomic_load(&backend->connections) <= atomic_load(&backend->ceiling)) {
                if (queue_hand_over(backend, now))
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

void placement_return(struct place *place, int64_t now)
{
    if (!place->member)
        return;
    queue_uncount(&place->client);
    give_back(place->member->backend, now);
    member_release(&place->member);
}

/* Those who wait on an older configuration's pool are moved to this one's of the same name. One older farm
 * at a time, because giving up the last reference to it takes locks that may not be taken inside the queue's.
 */
static void adopt(struct farm *farm, struct pool *pool)
{
    struct wait_queue *queue = pool->state->queue;
    struct farm *old;

    do {
        size_t n = 0;

        old = NULL;
        pthread_mutex_lock(&queue->lock);
        for (struct waiter *waiter = queue->first; waiter; waiter = waiter->next) {
            if (!old && waiter->wish.farm->serial < farm->serial)
                old = waiter->wish.farm;
            if (!old || waiter->wish.farm != old)
                continue;
            waiter->wish.farm = farm_hold(farm);
            waiter->wish.pool = pool;
            n++;
        }
        pthread_mutex_unlock(&queue->lock);
        for (struct farm *gone = old; n > 0; n--, gone = old)
            farm_release(&gone);
    } while (old);
}

static void serve_pool(struct pool *pool, int64_t now)
{
    struct wait_queue *queue = pool->state->queue;
    struct waiter *settled = NULL, *next;
    const struct placement_wish *hopeful = NULL; /* of one who is still waiting */

    pthread_mutex_lock(&queue->lock);
    serve(queue, pool, now, &settled);
    for (struct waiter *waiter = queue->first; waiter; waiter = next) {
        enum placement_verdict verdict;

        next = waiter->next;
        if (hopeful && eligible_no_easier(hopeful, &waiter->wish))
            continue;
        verdict = eligible_verdict(&waiter->wish);
        if (verdict == PLACEMENT_WAITING)
            hopeful = &waiter->wish;
        else
            queue_refuse(waiter, verdict, now, &settled);
    }
    pthread_mutex_unlock(&queue->lock);
    queue_post(settled);
}

void placement_serve(struct farm *farm, int64_t now)
{
    static _Atomic uint32_t turns;
    uint32_t turn = atomic_fetch_add_explicit(&turns, 1, memory_order_relaxed);

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

void placement_retry_granted(void)
{
    atomic_fetch_add_explicit(&totals.retries, 1, memory_order_relaxed);
}

void placement_retry_end(void)
{
    atomic_fetch_sub_explicit(&totals.retries, 1, memory_order_relaxed);
}
