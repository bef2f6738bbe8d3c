#include "counters/rate.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "counters/keyed_hash.h"
#include "counters/rate_internal.h"

#define SECOND         (1000 * GCRA_MILLISECOND)
#define LEASE          (5 * SECOND) /* then what is left of it is given back */
#define AWAY           SECOND       /* a bank that could not answer is not asked */
#define CREDIT_WAIT    SECOND       /* for who has no more credit before the bank has answered */
#define TELL_EVERY     (10 * SECOND)
#define UNLEASED_BELOW 10 /* limits under this are never leased */

const char *rate_what_name(enum rate_what what)
{
    static const char *const names[RATE_WHATS] = { "messages", "recipients" };

    return names[what];
}

const char *rate_name(const struct rate *rate)
{
    return rate->name;
}

uint64_t rate_serial(const struct rate *rate)
{
    return rate->serial;
}

bool rate_limits(const struct rate *rate, enum rate_what what)
{
    return rate->amounts[what].n > 0;
}

uint64_t rate_refused(const struct rate *rate, enum rate_what what)
{
    return atomic_load_explicit(&rate->refused[what], memory_order_relaxed);
}

/* --- rules --- */

static struct rate *rate_hold(struct rate *rate)
{
    atomic_fetch_add_explicit(&rate->references, 1, memory_order_relaxed);
    return rate;
}

static void rate_release(struct rate *rate)
{
    if (atomic_fetch_sub_explicit(&rate->references, 1, memory_order_acq_rel) != 1)
        return;
    rate_table_close(rate);
    free(rate->name);
    free(rate);
}

static struct rate *rate_create(const struct config_limit *config, struct rate_bank *bank)
{
    static _Atomic uint64_t made;
    struct rate *rate = aligned_alloc(alignof(struct rate), sizeof *rate);
    const struct config_rate amounts[RATE_WHATS] = { config->messages, config->recipients };

    if (!rate)
        return NULL;
    memset(rate, 0, sizeof *rate);
    atomic_init(&rate->references, 1);
    rate->serial = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) + 1;
    rate->name = strdup(config->name);
    rate->by = config->by;
    rate->bank = bank;
    for (int i = 0; i < RATE_WHATS; i++) {
        rate->amounts[i] = amounts[i];
        if (amounts[i].n)
            rate->limits[i] = gcra_limit(amounts[i].n, amounts[i].period);
    }
    rate_table_open(rate);
    if (!rate->name || getrandom(rate->key, sizeof rate->key, 0) != sizeof rate->key) {
        rate_release(rate);
        return NULL;
    }
    return rate;
}

static bool same_amount(const struct config_rate *a, const struct config_rate *b)
{
    return a->n == b->n && a->period == b->period;
}

static struct rate *rate_for(const struct config_limit *config, const struct rate_rules *old,
                             struct rate_bank *bank)
{
    for (size_t i = 0; old && i < old->n; i++) {
        struct rate *rate = old->rates[i];

        if (strcmp(rate->name, config->name) == 0 && rate->by == config->by && rate->bank == bank &&
            same_amount(&rate->amounts[RATE_MESSAGES], &config->messages) &&
            same_amount(&rate->amounts[RATE_RECIPIENTS], &config->recipients))
            return rate_hold(rate);
    }
    return rate_create(config, bank);
}

struct rate_rules *rate_rules_create(const struct config *config, const struct rate_rules *old,
                                     struct rate_bank *bank)
{
    struct rate_rules *rules = calloc(1, sizeof *rules + config->n_limits * sizeof(struct rate *));

    if (!rules)
        return NULL;
    atomic_init(&rules->references, 1);
    for (; rules->n < config->n_limits; rules->n++) {
        rules->rates[rules->n] = rate_for(&config->limits[rules->n], old, bank);
        if (!rules->rates[rules->n]) {
            rate_rules_release(&rules);
            return NULL;
        }
    }
    return rules;
}

struct rate_rules *rate_rules_hold(struct rate_rules *rules)
{
    atomic_fetch_add_explicit(&rules->references, 1, memory_order_relaxed);
    return rules;
}

void rate_rules_release(struct rate_rules **held)
{
    struct rate_rules *rules = *held;

    *held = NULL;
    if (!rules || atomic_fetch_sub_explicit(&rules->references, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < rules->n; i++)
        rate_release(rules->rates[i]);
    free(rules);
}

/* --- leases; the shard is locked --- */

/* Tokens that may be leased at a time; 0: none. */
static uint32_t lease_most(const struct rate *rate, enum rate_what what)
{
    uint32_t n = rate->amounts[what].n;

    if (n < UNLEASED_BELOW)
        return 0;
    return n / 10 < RATE_LEASE_MAX ? n / 10 : RATE_LEASE_MAX;
}

static void lapse(struct account *account, int64_t now)
{
    if (!account->leased || now < account->lapses)
        return;
    account->left += account->leased;
    account->leased = account->block = 0;
}

/* Fill in the request, if it is time for one. Who calls it sends it when the lock is free. */
static struct rate_request *ask(struct bucket *bucket, enum rate_what what, int64_t now)
{
    struct rate *rate = bucket->rate;
    struct account *account = &bucket->accounts[what];
    uint32_t most = lease_most(rate, what), twice = account->block ? account->block * 2 : 1;
    bool soon = account->asked_at && now - account->asked_at < LEASE;

    if (account->asked)
        return NULL;
    /* What was given on credit is booked in any case. */
    if (!account->credit &&
        (account->wait_until > now || !account->block || account->leased > account->block / 2))
        return NULL;
    if (account->wait_until > now || !soon)
        account->block = 0;
    else
        account->block = twice < most ? twice : most;
    account->request = (struct rate_request){
        .rule = rate->name,
        .who = bucket->who,
        .size = bucket->size,
        .what = what,
        .n = rate->amounts[what].n,
        .period = rate->amounts[what].period,
        .used = (int32_t)account->credit - (int32_t)account->left,
        .wanted = account->block,
    };
    account->booking = account->credit;
    account->left = 0;
    account->asked_at = now;
    account->asked = true;
    rate_hold(rate); /* until the answer */
    return &account->request;
}

/* 0: one is taken. Otherwise how long to wait. */
static int64_t take_banked(struct bucket *bucket, enum rate_what what, int64_t now)
{
    struct account *account = &bucket->accounts[what];
    uint32_t most = lease_most(bucket->rate, what);

    lapse(account, now);
    if (account->leased)
        account->leased--;
    else if (account->wait_until > now && account->left)
        account->left--; /* booked, and not given back yet: it is among those that the bank misses */
    else if (account->wait_until > now)
        return account->wait_until - now;
    else if (account->credit < (most ? most : 1))
        account->credit++;
    else
        return CREDIT_WAIT;
    gcra_force(&bucket->rate->limits[what], &account->full, 1, now);
    return 0;
}

static bool has_bank(const struct rate *rate, const struct account *account, int64_t now)
{
    return rate->bank && now >= account->away_until &&
           atomic_load_explicit(&rate->bank->open, memory_order_relaxed);
}

static int64_t take(struct bucket *bucket, enum rate_what what, int64_t now, struct rate_request **request)
{
    struct rate *rate = bucket->rate;
    struct account *account = &bucket->accounts[what];
    int64_t wait;

    if (!has_bank(rate, account, now))
        return gcra_take(&rate->limits[what], &account->full, now);
    wait = take_banked(bucket, what, now);
    *request = ask(bucket, what, now);
    return wait;
}

/* Of all the lines about a rule, ten a second. */
static bool may_tell(struct rate *rate, int64_t now)
{
    static const struct gcra_limit lines = { SECOND / 10, SECOND };
    int64_t was = atomic_load_explicit(&rate->told, memory_order_relaxed), full = was;

    return gcra_take(&lines, &full, now) == 0 && atomic_compare_exchange_strong(&rate->told, &was, full);
}

static void refuse(struct bucket *bucket, enum rate_what what, int64_t wait, int64_t now,
                   struct rate_refusal *refusal)
{
    int64_t wait_ms = (wait + GCRA_MILLISECOND - 1) / GCRA_MILLISECOND;

    atomic_fetch_add_explicit(&bucket->rate->refused[what], 1, memory_order_relaxed);
    refusal->wait = wait_ms < UINT32_MAX ? (uint32_t)wait_ms : UINT32_MAX;
    refusal->since = ++bucket->untold;
    refusal->tell = now >= bucket->tell_at && may_tell(bucket->rate, now);
    if (!refusal->tell)
        return;
    bucket->untold = 0;
    bucket->tell_at = now + TELL_EVERY;
}

/* --- from outside --- */

static const char *cut(const char *who, size_t *size)
{
    size_t more = *size > RATE_WHO_MAX ? *size - RATE_WHO_MAX : 0;

    *size -= more;
    return who + more;
}

bool rate_take(struct rate *rate, enum rate_what what, const char *who, size_t size, int64_t now,
               struct rate_refusal *refusal)
{
    int64_t at = now * GCRA_MILLISECOND, wait = 0;
    struct rate_request *request = NULL;
    struct bucket *bucket;
    struct shard *shard;
    uint64_t hash;

    who = cut(who, &size);
    hash = keyed_hash(rate->key, who, size);
    shard = rate_shard(rate, hash);
    pthread_mutex_lock(&shard->lock);
    bucket = rate_bucket(rate, hash, who, size, at);
    if (bucket) {
        wait = take(bucket, what, at, &request);
        if (wait)
            refuse(bucket, what, wait, at, refusal);
    }
    pthread_mutex_unlock(&shard->lock);
    if (request)
        rate->bank->ask(rate->bank, request);
    return !wait;
}

void rate_give_back(struct rate *rate, enum rate_what what, const char *who, size_t size, int64_t now)
{
    struct bucket *bucket;
    struct shard *shard;
    uint64_t hash;

    who = cut(who, &size);
    hash = keyed_hash(rate->key, who, size);
    shard = rate_shard(rate, hash);
    pthread_mutex_lock(&shard->lock);
    bucket = rate_find(rate, hash, who, size);
    if (bucket) {
        struct account *account = &bucket->accounts[what];

        account->full -= rate->limits[what].interval;
        if (account->credit > account->booking)
            account->credit--;
        else if (has_bank(rate, account, now * GCRA_MILLISECOND))
            account->left++; /* goes back with the next request */
    }
    pthread_mutex_unlock(&shard->lock);
}

static void book(struct account *account, const struct rate_answer *answer, int64_t now)
{
    account->asked = false;
    if (!answer->booked) {
        account->away_until = now + AWAY;
        account->leased = account->credit = account->left = account->block = 0;
    } else {
        account->credit -= account->booking;
        account->leased += answer->granted <= account->request.wanted ? answer->granted : 0;
        account->lapses = now + LEASE;
        account->wait_until = answer->wait ? now + answer->wait * GCRA_MILLISECOND : 0;
    }
    account->booking = 0;
}

void rate_answered(struct rate_request *request, const struct rate_answer *answer, int64_t now)
{
    size_t offset = offsetof(struct account, request);
    struct account *account = (struct account *)((char *)request - offset);
    enum rate_what what = request->what;
    struct bucket *bucket = (struct bucket *)((char *)(account - what) - offsetof(struct bucket, accounts));
    struct rate *rate = bucket->rate;
    struct shard *shard = rate_shard(rate, bucket->hash);
    struct rate_request *next = NULL;

    pthread_mutex_lock(&shard->lock);
    book(account, answer, now * GCRA_MILLISECOND);
    if (account->credit && has_bank(rate, account, now * GCRA_MILLISECOND))
        next = ask(bucket, what, now * GCRA_MILLISECOND); /* what was given meanwhile */
    pthread_mutex_unlock(&shard->lock);
    if (next)
        rate->bank->ask(rate->bank, next);
    rate_release(rate);
}
