/*
 * The algorithms. A candidate's weight may fall to 0 and its count may move while one is at it: every loop
 * here ends with some candidate whatever it reads.
 */
#include "balancer/algorithm.h"

#include <math.h>
#include <string.h>

#define PEAK_TAU 10000.0f /* ms in which an old peak falls to 1/e */

uint64_t algorithm_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}

/* Evenly from 0 … n-1; n below 2^32, as the weights of a thousand candidates are. 0 for n = 0. */
static uint64_t below(uint64_t *random, uint64_t n)
{
    return ((algorithm_random(random) >> 32) * n) >> 32;
}

static uint32_t weight_of(const struct member *member)
{
    return atomic_load_explicit(&member->backend->milliweight, memory_order_relaxed);
}

static uint32_t connections_of(const struct member *member)
{
    return atomic_load_explicit(&member->backend->connections, memory_order_relaxed);
}

static uint32_t others_of(const struct member *member)
{
    return atomic_load_explicit(&member->backend->others, memory_order_relaxed);
}

static uint64_t total_weight(const struct algorithm_input *in)
{
    uint64_t total = 0;

    for (size_t i = 0; i < in->n; i++)
        total += weight_of(in->candidates[i]);
    return total;
}

/* The candidate in whose stretch of the weights, laid end to end, `point` lies; `without` (index) has no
 * stretch. */
static size_t at_weight(const struct algorithm_input *in, uint64_t point, size_t without)
{
    size_t last = 0;

    for (size_t i = 0; i < in->n; i++) {
        uint32_t weight = weight_of(in->candidates[i]);

        if (i == without)
            continue;
        if (point < weight)
            return i;
        point -= weight;
        last = i;
    }
    return last;
}

/* --- the load of the whole farm ------------------------------------------------------------------------- */

/*
 * All instances that put what comes next where the farm's counts are lowest would all put it there: counts
 * that are a tenth of a second old make a worse balance than none. So each corrects only its own share of the
 * imbalance (balancing.md): of what the others hold, the part `trust` is believed to be where they say it is,
 * and the rest to lie as it should, in proportion to the weights. News is trusted wholly when fresh, and less
 * the more the others will have placed since.
 *
 * The +1 of (connections + 1) / weight is D'Hondt's rounding: it keeps the light ones half a session short.
 * That is as it should be for the farm as a whole, but each of N instances that has but a session or so for
 * each unit of weight would do so again. So what it does not leave to the others' counts it rounds the nearer
 * to Sainte-Laguë's + 1/2, the fewer sessions it has on the lightest. (32 instances, sessions of 0.5 s in
 * tests/sim: imbalance 1.145 without, 1.106 with.)
 */
struct farm_load {
    bool alone; /* nobody else is known of */
    double trust;
    double unrounded;  /* of its own rounding, in connections, what it gives back */
    double per_weight; /* (1 − trust) of all that the others hold, by milliweight */
};

static double trust_in_news(const struct pool_state *state, double others_rate, int64_t now)
{
    double own_rate = (double)atomic_load_explicit(&state->own_rate, memory_order_relaxed);
    int64_t age = now - atomic_load_explicit(&state->others_at, memory_order_relaxed);
    double seconds = age > 0 ? (double)age / 1000.0 : 0;

    return (1 + own_rate * seconds) / (1 + (own_rate + others_rate) * seconds);
}

static struct farm_load farm_load(const struct algorithm_input *in)
{
    const struct pool_state *state = in->pool->state;
    double others_rate = atomic_load_explicit(&state->others_rate, memory_order_relaxed);
    struct farm_load load = { .alone = !atomic_load_explicit(&state->others, memory_order_relaxed),
                              .trust = 1 };
    uint64_t own = 0, others = 0, weights, least = UINT64_MAX;

    if (load.alone || !(others_rate > 0))
        return load;
    for (size_t i = 0; i < in->n; i++) {
        uint64_t weight = weight_of(in->candidates[i]);

        own += connections_of(in->candidates[i]);
        others += others_of(in->candidates[i]);
        least = weight < least ? weight : least;
    }
    load.trust = trust_in_news(state, others_rate, in->now);
    weights = total_weight(in);
    if (!weights)
        return load;
    load.per_weight = (1 - load.trust) * (double)others / (double)weights;
    load.unrounded = (1 - load.trust) / 2 / (1 + (double)own * (double)least / (double)weights);
    return load;
}

/* What lies on it, in connections. */
static inline double load_of(const struct farm_load *load, const struct member *member)
{
    double own = (double)connections_of(member);

    return load->alone ? own
                       : own - load->unrounded + load->trust * (double)others_of(member) +
                             load->per_weight * (double)weight_of(member);
}

/* --- least-connections ---------------------------------------------------------------------------------- */

/* score = (load + 1) / weight; a is better than b. */
static bool lower(double load_a, uint32_t weight_a, double load_b, uint32_t weight_b)
{
    return (load_a + 1) * (double)weight_b < (load_b + 1) * (double)weight_a;
}

static struct member *choose_least_connections(const struct algorithm_input *in)
{
    struct farm_load farm = farm_load(in);
    struct member *best = in->candidates[0];
    uint32_t weight = weight_of(best);
    uint64_t tied = weight;
    double load = load_of(&farm, best);

    for (size_t i = 1; i < in->n; i++) {
        struct member *other = in->candidates[i];
        double l = load_of(&farm, other);
        uint32_t w = weight_of(other);

        if (lower(load, weight, l, w))
            continue;
        if (!lower(l, w, load, weight)) {
            /* A tie: each of those found so far stays chosen with the odds of its weight. */
            tied += w;
            if (below(in->random, tied) >= w)
                continue;
        } else {
            tied = w;
        }
        best = other;
        load = l;
        weight = w;
    }
    return best;
}

/* --- p2c ------------------------------------------------------------------------------------------------ */

static struct member *choose_p2c(const struct algorithm_input *in)
{
    struct farm_load farm = farm_load(in);
    uint64_t total = total_weight(in), rest;
    size_t first, second;
    struct member *a, *b;

    if (in->n == 1)
        return in->candidates[0];
    first = at_weight(in, below(in->random, total), SIZE_MAX);
    a = in->candidates[first];
    rest = total > weight_of(a) ? total - weight_of(a) : 0;
    second = at_weight(in, below(in->random, rest), first);
    b = in->candidates[second];
    return lower(load_of(&farm, b), weight_of(b), load_of(&farm, a), weight_of(a)) ? b : a;
}

/* --- peak-ewma ------------------------------------------------------------------------------------------ */

static uint64_t pack(float cost, int64_t now)
{
    uint32_t bits;

    memcpy(&bits, &cost, sizeof bits);
    return (uint64_t)bits << 32 | (uint32_t)now;
}

static float unpack_cost(uint64_t packed)
{
    uint32_t bits = (uint32_t)(packed >> 32);
    float cost;

    memcpy(&cost, &bits, sizeof cost);
    return cost;
}

/* What is left of the weight of the past at `now`. Readings cross: a time before the last one is taken for
 * that one. */
static float decay(uint64_t packed, int64_t now)
{
    int32_t age = (int32_t)((uint32_t)now - (uint32_t)packed);

    return age <= 0 ? 1.0f : expf(-(float)age / PEAK_TAU);
}

void algorithm_observe(struct backend *backend, uint32_t milliseconds, int64_t now)
{
    uint64_t packed = atomic_load_explicit(&backend->peak_cost, memory_order_relaxed), changed;
    float seen = (float)milliseconds;

    do {
        float cost = unpack_cost(packed), past = decay(packed, now);

        changed = pack(seen > cost ? seen : cost * past + seen * (1.0f - past), now);
    } while (!atomic_compare_exchange_weak_explicit(&backend->peak_cost, &packed, changed,
                                                    memory_order_relaxed, memory_order_relaxed));
}

/* The cost now, ms; negative while nothing was ever observed. It falls also when nothing comes, so that a
 * backend once slow is tried again. */
static float cost_of(const struct member *member, int64_t now)
{
    uint64_t packed = atomic_load_explicit(&member->backend->peak_cost, memory_order_relaxed);

    return packed ? unpack_cost(packed) * decay(packed, now) : -1.0f;
}

static struct member *choose_peak_ewma(const struct algorithm_input *in)
{
    struct farm_load farm = farm_load(in);
    struct member *best = NULL;
    float sum = 0, known = 0, lowest = 0;
    uint64_t tied = 0;

    for (size_t i = 0; i < in->n; i++) {
        float cost = cost_of(in->candidates[i], in->now);

        if (cost >= 0) {
            sum += cost;
            known++;
        }
    }
    for (size_t i = 0; i < in->n; i++) {
        struct member *member = in->candidates[i];
        uint32_t weight = weight_of(member);
        float cost = cost_of(member, in->now), score;

        /* A newcomer counts as the average, or it would get everything before its first reply. The 1 ms keeps
         * the number of pending sessions in play where replies are too quick to measure. */
        if (cost < 0)
            cost = known > 0 ? sum / known : 0;
        score = (cost + 1) * (float)(load_of(&farm, member) + 1) / (float)(weight ? weight : 1);
        if (best && score > lowest)
            continue;
        tied = best && score == lowest ? tied + weight : weight;
        if (best && score == lowest && below(in->random, tied) >= weight)
            continue;
        best = member;
        lowest = score;
    }
    return best;
}

/* --- round-robin ---------------------------------------------------------------------------------------- */

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Lay the weights, reduced by their common divisor, end to end as a ring of W points, and walk it in steps of
 * about W divided by the golden ratio. A step that shares no divisor with W meets every point once in W
 * turns, so the shares are exact over a round; the golden ratio spreads them within it: 4, 2, 1 comes as A B
 * A B A C A. A turn's choice depends on nothing but its number, which any number of workers may draw at once.
 */
static struct member *choose_round_robin(const struct algorithm_input *in)
{
    uint64_t turn = atomic_fetch_add_explicit(&in->pool->state->turn, 1, memory_order_relaxed);
    uint64_t divisor = 0, ring = 0, step;

    for (size_t i = 0; i < in->n; i++) {
        uint32_t weight = weight_of(in->candidates[i]);

        ring += weight;
        if (divisor != 1)
            divisor = common_divisor(weight, divisor);
    }
    if (ring == 0)
        return in->candidates[0];
    ring /= divisor;
    step = (uint64_t)((double)ring * 0.6180339887498949 + 0.5);
    while (common_divisor(ring, step) != 1)
        step++;
    return in->candidates[at_weight(in, turn % ring * step % ring * divisor, SIZE_MAX)];
}

/* --- random --------------------------------------------------------------------------------------------- */

static struct member *choose_random(const struct algorithm_input *in)
{
    return in->candidates[at_weight(in, below(in->random, total_weight(in)), SIZE_MAX)];
}

/* --- hash ----------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Rendezvous hashing: each candidate draws weight / -ln(u) with its own u in (0, 1) of the key, the highest
 * is the key's home. One that goes away moves its own keys only. Bounded load: a candidate that has
 * its 1.25-fold share of all connections passes on to the next, load + 1 <= ceil(1.25 · w/W · (total + 1)),
 * which for whole numbers is load < 1.25 · …; not all can be over it at once. */
static struct member *choose_hash(const struct algorithm_input *in)
{
    struct member *best = NULL, *home = in->candidates[0];
    double highest = 0, highest_home = 0;
    struct farm_load farm = farm_load(in);
    double weights = (double)total_weight(in), sum = 1;

    for (size_t i = 0; i < in->n; i++)
        sum += load_of(&farm, in->candidates[i]);
    for (size_t i = 0; i < in->n; i++) {
        struct member *member = in->candidates[i];
        uint64_t weight = weight_of(member);
        uint64_t hash = mix(in->hash_key + mix(member->backend->name_hash + 0x9e3779b97f4a7c15u));
        double u = ((double)(hash >> 12) + 0.5) * 0x1p-52, draw;

        if ((double)weight <= highest * (1 - u)) /* -ln(u) >= 1 - u: can't win, and is spared the logarithm */
            continue;
        draw = (double)weight / -log(u);
        if (draw > highest_home) {
            highest_home = draw;
            home = member;
        }
        if (draw > highest && load_of(&farm, member) * weights * 4 < 5 * (double)weight * sum) {
            highest = draw;
            best = member;
        }
    }
    return best ? best : home;
}

const struct algorithm *algorithm_get(enum config_algorithm which)
{
    static const struct algorithm least_connections = { "least-connections", choose_least_connections };
    static const struct algorithm p2c = { "p2c", choose_p2c };
    static const struct algorithm peak_ewma = { "peak-ewma", choose_peak_ewma };
    static const struct algorithm round_robin = { "round-robin", choose_round_robin };
    static const struct algorithm random = { "random", choose_random };
    static const struct algorithm hash = { "hash", choose_hash };

    switch (which) {
    case CONFIG_LEAST_CONNECTIONS: return &least_connections;
    case CONFIG_P2C: return &p2c;
    case CONFIG_PEAK_EWMA: return &peak_ewma;
    case CONFIG_ROUND_ROBIN: return &round_robin;
    case CONFIG_RANDOM: return &random;
    case CONFIG_HASH: return &hash;
    }
    return NULL;
}
