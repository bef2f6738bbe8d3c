#include "tests/sim/world.h"

#include <stdlib.h>
#include <string.h>

#include "tests/sim/doubles.h"
#include "tests/sim/loop.h"
#include "tests/sim/redis.h"
#include "tests/sim/workload.h"

#define SAMPLE        0.1 /* s */
#define HEALTHY_LIMIT 0.8

/* --- what is seen from above ------------------------------------------------------------------------------
 */

static void sample_imbalance(const struct world *world)
{
    double most = 0, sum = 0;

    for (size_t i = 0; i < world->n_relays; i++) {
        double by_weight = world->relays[i].places / (double)world->scenario->weights[i];

        sum += by_weight;
        most = by_weight > most ? by_weight : most;
    }
    if (sum > 0)
        spread_add(&world->result->imbalance, most / (sum / (double)world->n_relays));
}

static bool is_disturbed(const struct world *world, size_t relay)
{
    return world->scenario->begin && relay == world->n_relays - 1;
}

/* The ceilings of relays with which nothing is wrong. */
static void sample_limits(const struct world *world)
{
    for (size_t p = 0; p < world->n_proxies; p++) {
        for (size_t i = 0; !world->proxies[p].dead && i < world->n_relays; i++) {
            const struct backend *backend = world->proxies[p].farm->backends[i];
            uint32_t most = backend->max_connections;
            double share;

            if (!most || is_disturbed(world, i))
                continue;
            share = atomic_load(&backend->limit) / (double)most;
            if (share < world->result->lowest_limit)
                world->result->lowest_limit = share;
            world->result->limit_samples++;
            world->result->limit_low += share < HEALTHY_LIMIT;
        }
    }
}

static void on_sample(struct event *event)
{
    struct world *world = CALENDAR_OF(event, struct world, sample);

    calendar_set(event, calendar_now() + SAMPLE);
    sample_imbalance(world);
    sample_limits(world);
    if (world->scenario->look)
        world->scenario->look(world);
}

static void on_start(struct event *event)
{
    struct world *world = CALENDAR_OF(event, struct world, sample);

    for (size_t i = 0; i < world->n_relays; i++)
        relay_count_anew(&world->relays[i]);
    event->happen = on_sample;
    on_sample(event);
}

static void sum_up(const struct world *world)
{
    struct result *result = world->result;

    for (size_t i = 0; i < world->n_relays; i++) {
        const struct relay *relay = &world->relays[i];
        double most = relay->max_connections ? relay->most / (double)relay->max_connections : 0;

        result->over_time += relay_over(relay);
        result->relay_time += calendar_now() - world->start;
        result->over_most = most > result->over_most ? most : result->over_most;
    }
}

/* --- what goes wrong --------------------------------------------------------------------------------------
 */

static void on_from(struct event *event)
{
    struct world *world = CALENDAR_OF(event, struct world, from);

    for (size_t p = 0; p < world->n_proxies; p++)
        world->proxies[p].judged = false;
    world->result->delivered -= relay_delivered(world_last(world));
    if (world->scenario->begin)
        world->scenario->begin(world, world_last(world));
}

static void on_until(struct event *event)
{
    struct world *world = CALENDAR_OF(event, struct world, until);
    const struct relay *relay = world_last(world);

    world->result->delivered += relay_delivered(world_last(world));
    world->result->offered += relay->capacity * (world->scenario->until - world->scenario->from);
    if (world->scenario->end)
        world->scenario->end(world, world_last(world));
}

/* --- one run ----------------------------------------------------------------------------------------------
 */

static void open_relays(struct world *world, uint64_t seed)
{
    const struct scenario *scenario = world->scenario;
    struct stream stream = stream_of(seed, 4);

    for (size_t i = 0; i < scenario->n_relays; i++) {
        double promise = scenario->weights[i] * scenario->per_weight;
        double off = WORKLOAD_OFF_LEAST + (WORKLOAD_OFF_MOST - WORKLOAD_OFF_LEAST) * draw_even(&stream);
        bool better = draw_even(&stream) < 0.5;
        double capacity = scenario->exact ? promise : promise * (better ? 1 + off : 1 - off);

        relay_open(&world->relays[i], promise, capacity, (uint32_t)(scenario->workers * promise + 0.5));
        world->relays[i].max_connections = (uint32_t)(scenario->max_connections * promise + 0.5);
    }
    world->n_relays = scenario->n_relays;
}

static void world_open(struct world *world, const struct scenario *scenario, uint64_t seed,
                       struct result *result)
{
    memset(world, 0, sizeof *world);
    world->scenario = scenario;
    world->result = result;
    world->start = calendar_now() + WORKLOAD_WARM_UP;
    world->end = world->start + scenario->seconds;
    if (!result->runs++)
        result->lowest_limit = 1;
    open_relays(world, seed);
    doubles_set_relays(world->relays, world->n_relays);
    world->n_proxies = scenario->policy->proxies;
    loop_seed(seed);
    redis_server_open(seed);
    for (size_t i = 0; i < world->n_proxies; i++)
        proxy_open(&world->proxies[i], world, i, seed);
    traffic_open(&world->traffic, world, seed);
    world->sample.happen = on_start;
    calendar_set(&world->sample, world->start);
    world->from.happen = on_from;
    world->until.happen = on_until;
    if (scenario->until > 0) {
        calendar_set(&world->from, world->start + scenario->from);
        calendar_set(&world->until, world->start + scenario->until);
    }
}

static void world_close(struct world *world)
{
    calendar_cancel(&world->sample);
    calendar_cancel(&world->from);
    calendar_cancel(&world->until);
    traffic_close(&world->traffic);
    sum_up(world);
    sessions_abort(world, NULL);
    calendar_settle();
    for (size_t i = 0; i < world->n_proxies; i++)
        proxy_close(&world->proxies[i]);
    redis_server_close();
    for (size_t i = 0; i < world->n_relays; i++)
        relay_close(&world->relays[i]);
    calendar_restart();
}

void world_run(const struct scenario *scenario, uint64_t seed, struct result *result)
{
    static struct world world;

    world_open(&world, scenario, seed, result);
    calendar_run(world.end);
    world_close(&world);
}

void result_free(struct result *result)
{
    spread_free(&result->imbalance);
    spread_free(&result->wait);
    spread_free(&result->slowdown);
    spread_free(&result->there);
    spread_free(&result->newcomers);
    spread_free(&result->took);
    spread_free(&result->alone);
    memset(result, 0, sizeof *result);
}
