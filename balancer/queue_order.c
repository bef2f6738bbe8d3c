/*
 * The order in a wait queue: clients, their lines, and whose turn it is. All of it under the queue's lock.
 */
#include <stdlib.h>

#include "balancer/eligible.h"
#include "balancer/queue.h"

#define BUCKETS_FIRST 64

/* --- clients -------------------------------------------------------------------------------------------- */

/* Keys are hashes that nobody can choose (proxy/errand.c), so any bits of them spread. */
static struct queue_client **find_client(struct wait_queue *queue, uint64_t key)
{
    struct queue_client **at = &queue->buckets[key & (queue->n_buckets - 1)];

    while (*at && (*at)->key != key)
        at = &(*at)->next;
    return at;
}

/* As many buckets as clients, at least. False: there are none at all. */
static bool grow(struct wait_queue *queue)
{
    size_t n = queue->n_buckets ? 2 * queue->n_buckets : BUCKETS_FIRST, old_n = queue->n_buckets;
    struct queue_client **old = queue->buckets, **buckets;

    if (queue->n_clients < queue->n_buckets)
        return true;
    buckets = calloc(n, sizeof(struct queue_client *));
    if (!buckets)
        return old_n > 0;
    queue->buckets = buckets;
    queue->n_buckets = n;
    for (size_t i = 0; i < old_n; i++) {
        while (old[i]) {
            struct queue_client *client = old[i], **at;

            old[i] = client->next;
            at = &buckets[client->key & (n - 1)];
            client->next = *at;
            *at = client;
        }
    }
    free(old);
    return true;
}

static struct queue_client *get_client(struct wait_queue *queue, uint64_t key)
{
    struct queue_client **at;

    if (!grow(queue))
        return NULL;
    at = find_client(queue, key);
    if (!*at && (*at = calloc(1, sizeof **at))) {
        (*at)->queue = queue;
        (*at)->key = key;
        queue->n_clients++;
    }
    return *at;
}

static void set_large(struct queue_client *client, bool large)
{
    struct wait_queue *queue = client->queue;

    if (client->large == large)
        return;
    client->large = large;
    if (large) {
        client->large_previous = NULL;
        client->large_next = queue->large;
        if (queue->large)
            queue->large->large_previous = client;
        queue->large = client;
        return;
    }
    if (client->large_next)
        client->large_next->large_previous = client->large_previous;
    if (client->large_previous)
        client->large_previous->large_next = client->large_next;
    else
        queue->large = client->large_next;
}

static void set_seats(struct queue_client *client, uint32_t seats)
{
    client->seats = seats;
    set_large(client, (uint64_t)seats * 4 > client->queue->size);
}

static void forget_if_idle(struct queue_client *client)
{
    if (client->seats || client->places)
        return;
    *find_client(client->queue, client->key) = client->next;
    client->queue->n_clients--;
    free(client);
}

void queue_set_size(struct wait_queue *queue, uint32_t size)
{
    if (queue->size == size)
        return;
    queue->size = size;
    for (size_t i = 0; i < queue->n_buckets; i++)
        for (struct queue_client *client = queue->buckets[i]; client; client = client->next)
            set_seats(client, client->seats);
}

void queue_add_place(struct queue_client *client)
{
    client->places++;
    atomic_fetch_add_explicit(&client->queue->references, 1, memory_order_relaxed);
}

struct queue_client *queue_count(struct wait_queue *queue, uint64_t key)
{
    struct queue_client *client;

    pthread_mutex_lock(&queue->lock);
    client = get_client(queue, key);
    if (client)
        queue_add_place(client);
    pthread_mutex_unlock(&queue->lock);
    return client;
}

void queue_uncount(struct queue_client **client)
{
    struct queue_client *c = *client;
    struct wait_queue *queue;

    *client = NULL;
    if (!c)
        return;
    queue = c->queue;
    pthread_mutex_lock(&queue->lock);
    c->places--;
    forget_if_idle(c);
    pthread_mutex_unlock(&queue->lock);
    wait_queue_free(&queue);
}

/* --- lines ---------------------------------------------------------------------------------------------- */

static void line_append(struct wait_queue *queue, struct queue_line *line)
{
    static _Atomic uint64_t turns;
    unsigned priority = line->priority;

    line->turn = atomic_fetch_add_explicit(&turns, 1, memory_order_relaxed);
    line->next = NULL;
    line->previous = queue->classes[priority].last;
    if (line->previous)
        line->previous->next = line;
    else
        queue->classes[priority].first = line;
    queue->classes[priority].last = line;
    queue->occupied[priority / 64] |= UINT64_C(1) << priority % 64;
}

static void line_remove(struct wait_queue *queue, struct queue_line *line)
{
    unsigned priority = line->priority;

    if (line->next)
        line->next->previous = line->previous;
    else
        queue->classes[priority].last = line->previous;
    if (line->previous)
        line->previous->next = line->next;
    else
        queue->classes[priority].first = line->next;
    if (!queue->classes[priority].first)
        queue->occupied[priority / 64] &= ~(UINT64_C(1) << priority % 64);
}

int queue_next_class(const struct wait_queue *queue, int priority)
{
    for (int word = (priority - 1) / 64; priority > 0 && word >= 0; word--) {
        int bits = priority - word * 64;
        uint64_t below = bits < 64 ? (UINT64_C(1) << bits) - 1 : UINT64_MAX;

        if (queue->occupied[word] & below)
            return word * 64 + 63 - __builtin_clzll(queue->occupied[word] & below);
    }
    return -1;
}

int queue_lowest_class(const struct wait_queue *queue)
{
    for (int word = 0; word < QUEUE_PRIORITIES / 64; word++)
        if (queue->occupied[word])
            return word * 64 + __builtin_ctzll(queue->occupied[word]);
    return -1;
}

void queue_line_to_end(struct queue_line *line)
{
    line_remove(line->client->queue, line);
    line_append(line->client->queue, line);
}

static struct queue_line *get_line(struct queue_client *client, uint8_t priority)
{
    struct queue_line *line = client->lines;

    while (line && line->priority != priority)
        line = line->sibling;
    if (line || !(line = calloc(1, sizeof *line)))
        return line;
    line->client = client;
    line->priority = priority;
    line->sibling = client->lines;
    client->lines = line;
    line_append(client->queue, line);
    return line;
}

static void line_free(struct queue_line *line)
{
    struct queue_line **at = &line->client->lines;

    while (*at != line)
        at = &(*at)->sibling;
    *at = line->sibling;
    line_remove(line->client->queue, line);
    free(line);
}

/* --- linking -------------------------------------------------------------------------------------------- */

bool queue_link(struct waiter *waiter)
{
    struct wait_queue *queue = waiter->queue;
    struct queue_client *client = get_client(queue, waiter->wish.client);
    struct queue_line *line;

    if (!client)
        return false;
    line = get_line(client, waiter->wish.priority);
    if (!line) {
        forget_if_idle(client);
        return false;
    }
    waiter->waiting = true;
    waiter->next = NULL;
    waiter->previous = queue->last;
    *(queue->last ? &queue->last->next : &queue->first) = waiter;
    queue->last = waiter;
    waiter->line = line;
    waiter->line_next = NULL;
    waiter->line_previous = line->last;
    *(line->last ? &line->last->line_next : &line->first) = waiter;
    line->last = waiter;
    set_seats(client, client->seats + 1);
    return true;
}

void queue_unlink(struct waiter *waiter)
{
    struct wait_queue *queue = waiter->queue;
    struct queue_line *line = waiter->line;
    struct queue_client *client = line->client;

    *(waiter->next ? &waiter->next->previous : &queue->last) = waiter->previous;
    *(waiter->previous ? &waiter->previous->next : &queue->first) = waiter->next;
    *(waiter->line_next ? &waiter->line_next->line_previous : &line->last) = waiter->line_previous;
    *(waiter->line_previous ? &waiter->line_previous->line_next : &line->first) = waiter->line_next;
    waiter->line = NULL;
    waiter->waiting = false;
    if (!line->first)
        line_free(line);
    set_seats(client, client->seats - 1);
    forget_if_idle(client);
    queue_withdraw(queue);
}

/* --- the order ------------------------------------------------------------------------------------------ */

static bool over_share(struct queue_walk *walk, const struct queue_line *line)
{
    const struct pool *pool = line->first->wish.pool;
    uint32_t percent = pool->config->max_share_per_client;
    uint64_t capacity;

    if (percent >= 100)
        return false;
    if (pool != walk->pool) {
        capacity = eligible_capacity(pool, walk->now);
        walk->pool = pool;
        walk->share = capacity == UINT64_MAX ? UINT64_MAX : capacity * percent / 100;
        if (walk->share == 0)
            walk->share = 1; /* else a client could never have one while others wait */
    }
    return line->client->places >= walk->share;
}

/* The next line, through the classes; NULL: there is none. */
static struct queue_line *next_line(struct queue_walk *walk)
{
    const struct wait_queue *queue = walk->queue;
    struct queue_line *line = walk->next;

    /* The line that was at the end and has had a place is there again, and comes again. */
    if (!line && walk->begun && walk->line && queue->classes[walk->priority].last == walk->line)
        line = walk->line;
    if (!line) {
        walk->priority = queue_next_class(queue, walk->begun ? walk->priority : QUEUE_PRIORITIES);
        line = walk->priority < 0 ? NULL : queue->classes[walk->priority].first;
    }
    walk->begun = true;
    walk->line = NULL;
    walk->next = line ? line->next : NULL;
    return line;
}

struct waiter *queue_walk_next(struct queue_walk *walk)
{
    struct queue_line *line;

    while ((line = next_line(walk)) || (walk->skipped && !walk->over)) {
        if (!line) {
            /* Nobody else can use it: it need not stay idle. */
            walk->over = true;
            walk->begun = false;
            continue;
        }
        if (over_share(walk, line) != walk->over) {
            walk->skipped = true;
            continue;
        }
        for (struct waiter *waiter = line->first; waiter; waiter = waiter->line_next) {
            enum queue_fit fit = walk->fits(walk->arg, waiter);

            if (fit == QUEUE_STOP)
                return NULL;
            if (fit == QUEUE_TAKE) {
                walk->line = line;
                return waiter;
            }
        }
    }
    return NULL;
}
