#include "proxy/clients.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* One mutex is enough: it is taken only where a limit is configured, once when a session begins and once when
 * it ends. */

#define BUCKETS 4096

struct client {
    struct client *next;
    uint32_t sessions;
    uint8_t key[17];
};

struct clients {
    pthread_mutex_t lock;
    struct client *buckets[BUCKETS];
};

struct clients *clients_create(void)
{
    struct clients *clients = calloc(1, sizeof *clients);

    if (clients)
        pthread_mutex_init(&clients->lock, NULL);
    return clients;
}

void clients_free(struct clients **clients)
{
    if (!*clients)
        return;
    for (size_t i = 0; i < BUCKETS; i++) {
        struct client *client = (*clients)->buckets[i];

        while (client) {
            struct client *next = client->next;
            free(client);
            client = next;
        }
    }
    pthread_mutex_destroy(&(*clients)->lock);
    free(*clients);
    *clients = NULL;
}

/* FNV-1a: a client that chooses its address to collide slows nobody but a limit's look-up. */
static struct client **find(struct clients *clients, const uint8_t key[17])
{
    uint64_t hash = UINT64_C(14695981039346656037);
    struct client **at;

    for (size_t i = 0; i < 17; i++)
        hash = (hash ^ key[i]) * UINT64_C(1099511628211);
    at = &clients->buckets[(hash ^ (hash >> 32)) % BUCKETS];
    while (*at && memcmp((*at)->key, key, sizeof(*at)->key) != 0)
        at = &(*at)->next;
    return at;
}

bool clients_enter(struct clients *clients, const struct peer *peer, uint32_t limit)
{
    uint8_t key[17];
    struct client **at;
    bool welcome = false;

    peer_client_key(peer, key);
    pthread_mutex_lock(&clients->lock);
    at = find(clients, key);
    if (!*at && (*at = calloc(1, sizeof **at)))
        memcpy((*at)->key, key, sizeof key);
    if (*at && (*at)->sessions < limit) {
        (*at)->sessions++;
        welcome = true;
    }
    pthread_mutex_unlock(&clients->lock);
    return welcome;
}

void clients_leave(struct clients *clients, const struct peer *peer)
{
    uint8_t key[17];
    struct client **at;

    peer_client_key(peer, key);
    pthread_mutex_lock(&clients->lock);
    at = find(clients, key);
    if (*at && --(*at)->sessions == 0) {
        struct client *gone = *at;
        *at = gone->next;
        free(gone);
    }
    pthread_mutex_unlock(&clients->lock);
}
