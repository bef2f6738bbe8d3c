/*
 * A rule's buckets: a hash table in shards, each with its lock.
 *
 * Nobody sweeps it by the clock. Who makes a bucket looks at a few others, in turn, and frees those whose
 * allowance is full: so the table shrinks to what is in use wherever it grows.
 */
#include <stdlib.h>
#include <string.h>

#include "counters/rate_internal.h"

#define SHARD_MAX  (RATE_BUCKETS_MAX / RATE_SHARDS)
#define LOOKS      4  /* at each new bucket */
#define FULL_LOOKS 16 /* where there is no room */

struct shard *rate_shard(struct rate *rate, uint64_t hash)
{
    return &rate->shards[hash % RATE_SHARDS];
}

static struct bucket **head_of(struct shard *shard, uint64_t hash)
{
    return &shard->heads[hash / RATE_SHARDS % RATE_HEADS];
}

struct bucket *rate_find(struct rate *rate, uint64_t hash, const char *who, size_t size)
{
    struct bucket *bucket = *head_of(rate_shard(rate, hash), hash);

    while (bucket && (bucket->hash != hash || bucket->size != size || memcmp(bucket->who, who, size) != 0))
        bucket = bucket->next;
    return bucket;
}

static void remove_bucket(struct shard *shard, struct bucket *bucket)
{
    struct bucket **at = head_of(shard, bucket->hash);
    struct bucket *last = shard->buckets[--shard->n];

    while (*at != bucket)
        at = &(*at)->next;
    *at = bucket->next;
    shard->buckets[bucket->index] = last;
    last->index = bucket->index;
    free(bucket);
}

/* Thousandths of its allowance that are used, of the amount of which most is; more than any while the bank
 * owes it an answer. */
static int64_t used(const struct bucket *bucket, int64_t now)
{
    int64_t most = 0;

    for (int i = 0; i < RATE_WHATS; i++) {
        const struct account *account = &bucket->accounts[i];
        int64_t owed = account->full - now;

        if (account->asked)
            return INT64_MAX;
        if (owed > 0)
            owed = 1 + owed / (bucket->rate->limits[i].period / 1000 + 1);
        if (account->wait_until > now && owed < 1000)
            owed = 1000; /* the others have used it up */
        if (owed > most)
            most = owed;
    }
    return most;
}

static struct bucket *next_in_turn(struct shard *shard)
{
    if (shard->hand >= shard->n)
        shard->hand = 0;
    return shard->buckets[shard->hand++];
}

static void sweep(struct shard *shard, int64_t now)
{
    for (int i = 0; i < LOOKS && shard->n; i++) {
        struct bucket *bucket = next_in_turn(shard);

        if (used(bucket, now))
            continue;
        shard->hand--; /* another takes its place */
        remove_bucket(shard, bucket);
    }
}

static bool make_room(struct shard *shard, int64_t now)
{
    struct bucket *least = NULL;
    int64_t least_used = INT64_MAX;

    if (shard->n == shard->capacity && shard->capacity < SHARD_MAX) {
        size_t more = shard->capacity ? shard->capacity * 2 : 64;
        size_t capacity = more < SHARD_MAX ? more : SHARD_MAX;
        struct bucket **buckets = realloc(shard->buckets, capacity * sizeof *buckets);

        if (buckets) {
            shard->buckets = buckets;
            shard->capacity = capacity;
        }
    }
    if (shard->n < shard->capacity)
        return true;
    for (int i = 0; i < FULL_LOOKS && shard->n; i++) {
        struct bucket *bucket = next_in_turn(shard);
        int64_t its = used(bucket, now);

        if (its < least_used) {
            least = bucket;
            least_used = its;
        }
    }
    if (!least)
        return false;
    remove_bucket(shard, least);
    return true;
}

struct bucket *rate_bucket(struct rate *rate, uint64_t hash, const char *who, size_t size, int64_t now)
{
    struct shard *shard = rate_shard(rate, hash);
    struct bucket *bucket = rate_find(rate, hash, who, size);
    struct bucket **head = head_of(shard, hash);

    if (bucket)
        return bucket;
    sweep(shard, now);
    if (!make_room(shard, now))
        return NULL;
    bucket = calloc(1, sizeof *bucket + size);
    if (!bucket)
        return NULL;
    bucket->rate = rate;
    bucket->hash = hash;
    bucket->size = size;
    memcpy(bucket->who, who, size);
    bucket->next = *head;
    *head = bucket;
    bucket->index = shard->n;
    shard->buckets[shard->n++] = bucket;
    return bucket;
}

void rate_table_open(struct rate *rate)
{
    for (size_t i = 0; i < RATE_SHARDS; i++)
        pthread_mutex_init(&rate->shards[i].lock, NULL);
}

void rate_table_close(struct rate *rate)
{
    for (size_t i = 0; i < RATE_SHARDS; i++) {
        struct shard *shard = &rate->shards[i];

        for (size_t k = 0; k < shard->n; k++)
            free(shard->buckets[k]);
        free(shard->buckets);
        pthread_mutex_destroy(&shard->lock);
    }
}

size_t rate_buckets(struct rate *rate)
{
    size_t n = 0;

    for (size_t i = 0; i < RATE_SHARDS; i++) {
        pthread_mutex_lock(&rate->shards[i].lock);
        n += rate->shards[i].n;
        pthread_mutex_unlock(&rate->shards[i].lock);
    }
    return n;
}
