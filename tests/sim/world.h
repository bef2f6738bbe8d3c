/*
 * One run: relays, proxies with the real balancer/ and health/ in them, traffic, and what came of it.
 *
 *     traffic ──session──▶ proxy (real farm, pool, queue, health) ──guest, jobs──▶ relay (simulated)
 *                            ▲                                       │
 *                            └──── replies, with the time they took ─┘
 */
#ifndef WEIR_TESTS_SIM_WORLD_H
#define WEIR_TESTS_SIM_WORLD_H

#include <stdio.h>

#include "balancer/algorithm.h"
#include "balancer/placement.h"
#include "counters/counters.h"
#include "health/health.h"
#include "tests/sim/draw.h"
#include "tests/sim/relay.h"
#include "tests/sim/spread.h"

#define PROXIES_MAX 32

struct world;

/* Who decides which relay gets a session. */
struct policy {
    const char *name;
    unsigned proxies;
    const char *algorithm;         /* the product's, by its name in the configuration */
    const struct algorithm *naive; /* in its place, the simulator's own; NULL: none */
    bool caps_by_share; /* a proxy's max-connections are its share of the traffic; else all of it */
    double interval;    /* of the simulator's own: s between two publications of a proxy's counts; 0: none */
    unsigned publish_interval; /* the product's, ms: counts are shared through Redis; 0: they are not */
};
/* Least-connections: one proxy; each on its own; all of them as one, by default settings. */
extern const struct policy policy_ideal, policy_local, policy_shared;

struct scenario {
    const char *name;
    const struct policy *policy;
    const uint32_t *weights;
    size_t n_relays;
    double per_weight;        /* sessions at full speed that a weight of 1 promises */
    bool exact;               /* the promise is kept: no relay is better or worse than its weight */
    double workers;           /* pool of each relay, times its promise; 0: no bound */
    double max_connections;   /* the same; 0: no limit */
    const char *pool_options; /* YAML, each behind a comma; NULL: as the product has it */

    double session;             /* s, mean */
    double load;                /* of the promise */
    double (*shape)(double at); /* share of the load, 0 to 1, at so many seconds; NULL: even */
    double seconds;             /* measured */

    /* What goes wrong, on the last relay, and when, in seconds of those that are measured. */
    double from, until;
    void (*begin)(struct world *world, struct relay *relay);
    void (*end)(struct world *world, struct relay *relay);
    void (*look)(struct world *world); /* ten times a second; NULL: nobody does */
};

/* Over all seeds that were run into it. */
struct result {
    unsigned runs;
    struct spread imbalance; /* max over mean of sessions by weight, sampled */
    struct spread wait;      /* s in the queue of those who were placed */
    uint64_t sessions, refused;
    uint64_t lost;             /* every relay that was tried failed it */
    uint64_t ejections, downs; /* of backends, by any proxy */
    uint64_t over_cap;         /* places taken above a max-connections */
    double over_time;          /* s that relays had more than theirs */
    double over_most;          /* the most that one had, over its max-connections; 0 without any */
    double relay_time;         /* s, of all relays */
    uint64_t publications;     /* of counts, by all proxies … */
    double proxy_time;         /* … in so many seconds of theirs */

    /* Of sessions under way between from and until (without those: at any time). Slowdown is the time on the
     * relay over what it had taken alone there. */
    struct spread slowdown;
    struct spread there;       /* of those on the last relay */
    struct spread newcomers;   /* of these, those that came after from */
    struct spread took, alone; /* on the last relay: its time, s, and what it had taken */

    /* Of the last relay, between from and until. */
    uint64_t attempts;          /* sessions sent there … */
    uint64_t attempts_unjudged; /* … and of these, before the proxy had taken it out */
    double delivered, offered;  /* work that it got done, s, and the most that it could have */

    /* Of ceilings, sampled. A share is a ceiling over its max-connections. */
    double lowest_limit; /* least share of an undisturbed relay; 1 without any max-connections */
    uint64_t limit_samples, limit_low;
};

void world_run(const struct scenario *scenario, uint64_t seed, struct result *result);
void result_free(struct result *result);

/* --- inside -----------------------------------------------------------------------------------------------
 */

struct proxy {
    struct world *world;
    struct farm *farm;
    struct pool *pool;
    struct health *health;
    struct counters *counters; /* NULL: it shares nothing */
    struct mailbox mailbox;
    bool dead;
    double opened;
    uint64_t random;
    bool judged; /* the last relay is out, since something went wrong with it */
    uint32_t published[RELAYS_MAX];
    struct event publish; /* or when the counters begin */
};

struct burst;
struct session;
struct traffic {
    struct world *world;
    struct stream singles, bulk, work;
    double singles_rate, bursts_rate, burst_mean; /* per second, at full load */
    double proxies_share[PROXIES_MAX];            /* up to and with this one */
    uint64_t clients;
    struct event single, burst;
    struct burst *bursts;
    bool ended;
};

struct world {
    const struct scenario *scenario;
    struct result *result;
    double start, end; /* of what is measured */
    size_t n_relays;
    struct relay relays[RELAYS_MAX];
    size_t n_proxies;
    struct proxy proxies[PROXIES_MAX];
    struct traffic traffic;
    struct session *sessions; /* alive */
    bool closing;
    struct event sample, from, until;
};

static inline struct relay *world_last(struct world *world)
{
    return &world->relays[world->n_relays - 1];
}

/* proxy.c */
void proxy_open(struct proxy *proxy, struct world *world, size_t index, uint64_t seed);
void proxy_close(struct proxy *proxy);
/* Its process is killed: its sessions end, and it is not there any more. */
void proxy_kill(struct proxy *proxy);
/* That one, or where it is dead the next that lives, as clients try the next address. */
struct proxy *proxy_alive(struct proxy *proxy);

/* session.c. */
enum stage { STAGE_MAIL, STAGE_RCPT, STAGE_MESSAGE };
#define STAGES (STAGE_MESSAGE + 1)
void session_begin(struct proxy *proxy, const double work[STAGES], uint64_t client);
void sessions_abort(struct world *world, const struct proxy *proxy); /* of this proxy; NULL: all */

/* traffic.c */
void traffic_open(struct traffic *traffic, struct world *world, uint64_t seed);
void traffic_close(struct traffic *traffic);
double traffic_share(size_t n_proxies, size_t index); /* of all sessions, by DNS */

/* policy.c */
extern const struct algorithm policy_argmin;
void policy_start(struct proxy *proxy, double phase); /* publishing, where the policy has it */

#endif
