#include "counters/clients.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "counters/keyed_hash.h"

/* One mutex is enough: it is taken only where a limit is configured, by workers once when a session begins
 * and once when it ends, and never held for more than a part of the table. */

#define BUCKETS      16384
#define SLICE        256 /* buckets, or of the queue, that are looked at before others get the lock */
#define PATIENCE     10  /* looks */
#define CROWD        128 /* that wait in the queue */
#define LISTENER_MAX 64  /* octets of its name */
#define WHO_MAX      (LISTENER_MAX + 1 + ADDRESS_TEXT_MAX)

struct client {
    struct client *next;           /* in its bucket */
    struct client *before, *after; /* in the queue */
    uint64_t hash;
    int64_t told_at, asked_at;
    uint32_t sessions;
    uint32_t told;   /* what Redis has of them, if `settled` */
    uint32_t others; /* at `asked_at` */
    uint32_t limit;
    uint8_t patience;
    bool shared; /* not a Unix socket's: every machine has its own */
    bool queued;
    bool asks;    /* it is in the queue for an answer, whatever there is to tell */
    bool out;     /* taken, and not answered */
    bool there;   /* something of ours may stand in Redis */
    bool settled; /* and that is `told` */
    char who[];
};

struct clients {
    pthread_mutex_t lock;
    _Atomic int64_t believed; /* clients_believe() */
    uint64_t key[2];
    bool sharing;
    size_t n, n_queued;
    struct client *first, *last; /* the queue */
    size_t hand, audited;        /* buckets */
    int64_t looked_at;
    struct client *buckets[BUCKETS];
};

struct clients *clients_create(void)
{
    struct clients *clients = calloc(1, sizeof *clients);

    if (!clients)
        return NULL;
    pthread_mutex_init(&clients->lock, NULL);
    atomic_init(&clients->believed, INT64_MAX);
    if (getrandom(clients->key, sizeof clients->key, 0) != sizeof clients->key)
        clients_free(&clients);
    return clients;
}

void clients_free(struct clients **held)
{
    struct clients *clients = *held;

    *held = NULL;
    if (!clients)
        return;
    for (size_t i = 0; i < BUCKETS; i++) {
        struct client *client = clients->buckets[i];

        while (client) {
            struct client *next = client->next;
            free(client);
            client = next;
        }
    }
    pthread_mutex_destroy(&clients->lock);
    free(clients);
}

/* --- what is known of one; the lock is held --- */

static bool is_believed(const struct clients *clients, const struct client *client)
{
    return client->asked_at >= atomic_load_explicit(&clients->believed, memory_order_relaxed);
}

/* A few more would be too many: the others are asked about it again and again, for what they have may decide.
 */
static bool is_near(const struct client *client)
{
    uint32_t all = client->sessions + client->others, quarter = client->limit / 4;

    return all > 0 && all >= client->limit - (quarter ? quarter : 1);
}

static bool has_changed(const struct client *client)
{
    return client->there ? !client->settled || client->told != client->sessions : client->sessions > 0;
}

static bool is_needed(const struct clients *clients, const struct client *client)
{
    if (client->sessions || client->there || client->out)
        return true;
    if (clients->n > CLIENTS_KEPT_MAX)
        return false;
    return client->asks ||
           (client->patience && is_near(client) && (clients->sharing || is_believed(clients, client)));
}

/* --- the queue --- */

static void queue(struct clients *clients, struct client *client, bool asks)
{
    if (!clients->sharing || !client->shared || client->out)
        return;
    client->asks |= asks;
    if (client->queued)
        return;
    client->queued = true;
    clients->n_queued++;
    client->after = NULL;
    client->before = clients->last;
    if (clients->last)
        clients->last->after = client;
    else
        clients->first = client;
    clients->last = client;
}

static void unqueue(struct clients *clients, struct client *client)
{
    if (!client->queued)
        return;
    client->queued = client->asks = false;
    clients->n_queued--;
    if (client->before)
        client->before->after = client->after;
    else
        clients->first = client->after;
    if (client->after)
        client->after->before = client->before;
    else
        clients->last = client->before;
}

/* --- the table --- */

static struct client **bucket_of(struct clients *clients, uint64_t hash)
{
    return &clients->buckets[hash % BUCKETS];
}

static void let_go(struct clients *clients, struct client *client)
{
    struct client **at = bucket_of(clients, client->hash);

    if (is_needed(clients, client))
        return;
    unqueue(clients, client);
    while (*at != client)
        at = &(*at)->next;
    *at = client->next;
    clients->n--;
    free(client);
}

struct who {
    uint64_t hash;
    size_t size;
    char text[WHO_MAX];
};

static void name(const struct clients *clients, const char *listener, const struct peer *peer,
                 struct who *who)
{
    size_t size = strnlen(listener, LISTENER_MAX);

    memcpy(who->text, listener, size);
    who->text[size++] = ':';
    peer_format_client(peer, who->text + size);
    who->size = size + strlen(who->text + size);
    who->hash = keyed_hash(clients->key, who->text, who->size);
}

static struct client *find(struct clients *clients, const struct who *who)
{
    struct client *client = *bucket_of(clients, who->hash);

    while (client && (client->hash != who->hash || strcmp(client->who, who->text) != 0))
        client = client->next;
    return client;
}

static struct client *make(struct clients *clients, const struct who *who, const struct peer *peer)
{
    struct client *client = calloc(1, sizeof *client + who->size + 1), **bucket;

    if (!client)
        return NULL;
    bucket = bucket_of(clients, who->hash);
    client->hash = who->hash;
    client->shared = peer->family == AF_INET || peer->family == AF_INET6;
    client->asked_at = INT64_MIN;
    memcpy(client->who, who->text, who->size + 1);
    client->next = *bucket;
    *bucket = client;
    clients->n++;
    return client;
}

/* --- sessions --- */

static bool has_room(const struct clients *clients, const struct client *client)
{
    uint32_t others = is_believed(clients, client) ? client->others : 0;

    return client->sessions < client->limit && others < client->limit - client->sessions;
}

/* Who is not known is asked about, though he may have gone by then: else he who comes for a moment only,
 * again and again, would never be. Where many wait to be told, that has to do. */
static bool is_unknown(const struct clients *clients, const struct client *client)
{
    return !is_believed(clients, client) && clients->n_queued < CROWD;
}

bool clients_enter(struct clients *clients, const char *listener, const struct peer *peer, uint32_t limit)
{
    struct client *client;
    bool welcome = false;
    struct who who;

    name(clients, listener, peer, &who);
    pthread_mutex_lock(&clients->lock);
    client = find(clients, &who);
    if (!client)
        client = make(clients, &who, peer);
    if (client) {
        client->limit = limit;
        client->patience = PATIENCE;
        welcome = has_room(clients, client);
        client->sessions += welcome;
        queue(clients, client, !welcome || is_unknown(clients, client));
        let_go(clients, client);
    }
    pthread_mutex_unlock(&clients->lock);
    return welcome;
}

void clients_leave(struct clients *clients, const char *listener, const struct peer *peer)
{
    struct client *client;
    struct who who;

    name(clients, listener, peer, &who);
    pthread_mutex_lock(&clients->lock);
    client = find(clients, &who);
    if (client) {
        client->sessions--;
        queue(clients, client, false);
        let_go(clients, client);
    }
    pthread_mutex_unlock(&clients->lock);
}

/* --- telling --- */

/* Nobody is told: some of those that wait need not. False: there are no more of them. */
static bool dismiss(struct clients *clients)
{
    bool more;

    pthread_mutex_lock(&clients->lock);
    for (int i = 0; i < SLICE && clients->first; i++) {
        struct client *client = clients->first;

        unqueue(clients, client);
        let_go(clients, client);
    }
    more = clients->first;
    pthread_mutex_unlock(&clients->lock);
    return more;
}

void clients_share(struct clients *clients, bool on)
{
    pthread_mutex_lock(&clients->lock);
    clients->sharing = on;
    pthread_mutex_unlock(&clients->lock);
    while (!on && dismiss(clients))
        ;
}

void clients_believe(struct clients *clients, int64_t since)
{
    atomic_store_explicit(&clients->believed, since, memory_order_relaxed);
}

/* `what` to each client in so many buckets, from the hand on; it may let go of that client. */
static void walk(struct clients *clients, size_t buckets,
                 void (*what)(struct clients *, struct client *, void *), void *arg)
{
    while (buckets) {
        size_t part = buckets < SLICE ? buckets : SLICE;

        buckets -= part;
        pthread_mutex_lock(&clients->lock);
        for (; part && clients->n; part--) {
            struct client *client = clients->buckets[clients->hand], *next;

            clients->hand = (clients->hand + 1) % BUCKETS;
            for (; client; client = next) {
                next = client->next;
                what(clients, client, arg);
            }
        }
        pthread_mutex_unlock(&clients->lock);
    }
}

static void doubt(struct clients *clients, struct client *client, void *arg)
{
    (void)arg;
    client->settled = false;
    /* While nothing could be taken back, others may have renewed the key. */
    if (client->told_at < clients->looked_at)
        client->told_at = clients->looked_at;
}

void clients_doubt(struct clients *clients)
{
    walk(clients, BUCKETS, doubt, NULL);
}

struct look {
    int64_t now, period;
};

/* Nothing has changed, and yet it is time to say so or to ask. What has changed goes first: one who was not
 * asked about has his turn at the next look, for by then the others have had theirs. */
static bool is_due(const struct clients *clients, const struct client *client, const struct look *look)
{
    if (client->there && look->now - client->told_at >= CLIENTS_LIFE / 2)
        return true;
    if (look->period && clients->n_queued >= CROWD)
        return false;
    return is_near(client) && client->asked_at <= look->now - look->period / 2;
}

/* What could not be taken back for so long has gone by itself. Where nobody is told there will be no more of
 * it: it is kept until Redis is back, for its key may live as long as the client has sessions elsewhere. */
static bool is_forgotten(const struct clients *clients, const struct client *client, int64_t now)
{
    return now - client->told_at >= CLIENTS_LIFE && (clients->sharing || clients->n > CLIENTS_KEPT_MAX);
}

static void look_at(struct clients *clients, struct client *client, void *arg)
{
    const struct look *look = arg;

    if (client->patience && look->period)
        client->patience--;
    if (client->queued || client->out)
        return;
    if (!client->sessions && is_forgotten(clients, client, look->now))
        client->there = false;
    if (has_changed(client))
        queue(clients, client, false);
    else if (is_due(clients, client, look))
        queue(clients, client, true);
    let_go(clients, client);
}

void clients_look(struct clients *clients, int64_t now, int64_t period)
{
    struct look look = { now, period };
    int64_t passed = now - clients->looked_at;
    size_t buckets = !period || passed >= period ? BUCKETS : 1 + (size_t)(BUCKETS * passed / period);

    if (period)
        clients->looked_at = now;
    walk(clients, buckets, look_at, &look);
}

void clients_audit(struct clients *clients)
{
    bool found = false;

    pthread_mutex_lock(&clients->lock);
    for (size_t i = 0; i < BUCKETS && clients->n && !found; i++) {
        struct client *client = clients->buckets[clients->audited];

        clients->audited = (clients->audited + 1) % BUCKETS;
        for (; client && !found; client = client->next) {
            found = client->there && !client->queued && !client->out;
            if (found)
                queue(clients, client, true);
        }
    }
    pthread_mutex_unlock(&clients->lock);
}

size_t clients_take(struct clients *clients, struct client_item *items, size_t most)
{
    size_t n = 0;

    pthread_mutex_lock(&clients->lock);
    while (n < most && clients->first) {
        struct client *client = clients->first;
        bool asks = client->asks;

        unqueue(clients, client);
        if (!asks && !has_changed(client))
            continue; /* it has come and gone */
        items[n++] = (struct client_item){ client, client->who, client->sessions, client->there,
                                           client->there && client->settled };
        client->out = true;
        client->there |= client->sessions > 0;
        client->settled = false;
    }
    pthread_mutex_unlock(&clients->lock);
    return n;
}

static void take_answer(struct client *client, const struct client_item *item, enum client_answer answer,
                        uint32_t others, int64_t at)
{
    if (item->sessions)
        client->told_at = at;
    switch (answer) {
    case CLIENT_UNANSWERED: return;
    case CLIENT_REFUSED: client->there = false; break;
    case CLIENT_TOLD: client->there = item->sessions > 0; break;
    }
    client->told = item->sessions;
    client->settled = true;
    client->others = others;
    client->asked_at = at;
}

void clients_answer(struct clients *clients, const struct client_item *item, enum client_answer answer,
                    uint32_t others, int64_t at)
{
    struct client *client = item->client;

    pthread_mutex_lock(&clients->lock);
    client->out = false;
    take_answer(client, item, answer, others, at);
    /* What could not be told waits for the next look. */
    if (answer == CLIENT_TOLD && has_changed(client))
        queue(clients, client, false);
    let_go(clients, client);
    pthread_mutex_unlock(&clients->lock);
}

size_t clients_count(struct clients *clients)
{
    size_t n;

    pthread_mutex_lock(&clients->lock);
    n = clients->n;
    pthread_mutex_unlock(&clients->lock);
    return n;
}
