/* A simulated proxy: a configuration as a user would write it, and the product's own farm and health for it.
 */
#include <stdlib.h>

#include "config/config.h"
#include "tests/sim/doubles.h"
#include "tests/sim/loop.h"
#include "tests/sim/shared.h"
#include "tests/sim/workload.h"
#include "tests/sim/world.h"

/* The standard one, or what an interval needs at least. */
static unsigned lease_of(unsigned publish_interval)
{
    return 4 * publish_interval > 3000 ? 4 * publish_interval : 3000;
}

static struct config *describe(const struct world *world, double share)
{
    const struct scenario *scenario = world->scenario;
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    struct config *config;

    if (!out)
        abort();
    fprintf(out, "workers: 1\nlisteners: { smtp: { address: \"127.0.0.1:2525\" } }\n");
    if (scenario->policy->publish_interval)
        fprintf(out, "redis: { url: \"redis://redis.sim\", publish-interval: %ums, lease: %ums }\n",
                scenario->policy->publish_interval, lease_of(scenario->policy->publish_interval));
    fprintf(out, "pools: { relays: { algorithm: %s, queue-size: %u, queue-timeout: %us%s, backends: {\n",
            scenario->policy->algorithm, (unsigned)(WORKLOAD_QUEUE / scenario->policy->proxies),
            WORKLOAD_QUEUE_TIMEOUT, scenario->pool_options ? scenario->pool_options : "");
    for (size_t i = 0; i < world->n_relays; i++)
        fprintf(out, "  r%zu: { address: \"127.0.0.1:%u\", weight: %u, max-connections: %u },\n", i,
                (unsigned)(DOUBLES_PORT + i), scenario->weights[i],
                (unsigned)ceil(world->relays[i].max_connections * share));
    fprintf(out, "} } }\n");
    fclose(out);
    config = config_parse(scenario->name, text, size, stderr);
    free(text);
    if (!config)
        exit(2);
    return config;
}

static void on_change(void *arg, struct backend *backend, enum backend_state from)
{
    struct proxy *proxy = arg;
    struct result *result = proxy->world->result;
    enum backend_state state = (enum backend_state)atomic_load(&backend->state);

    (void)from;
    if (state == BACKEND_EJECTED)
        result->ejections++;
    if (state == BACKEND_DOWN)
        result->downs++;
    if ((state == BACKEND_EJECTED || state == BACKEND_DOWN) &&
        backend == proxy->farm->backends[proxy->world->n_relays - 1])
        proxy->judged = true;
}

void proxy_open(struct proxy *proxy, struct world *world, size_t index, uint64_t seed)
{
    const struct scenario *scenario = world->scenario;
    const struct health_watcher watcher = { .on_change = on_change, .arg = proxy };
    struct stream stream = stream_of(seed, 100 + index);
    double share = scenario->policy->caps_by_share ? traffic_share(scenario->policy->proxies, index) : 1;
    struct config *config = describe(world, share);

    proxy->world = world;
    proxy->opened = calendar_now();
    proxy->random = stream.state;
    proxy->judged = proxy->dead = false;
    mailbox_open(&proxy->mailbox, loop_virtual(), proxy);
    proxy->farm = farm_create(config, NULL);
    config_release(&config);
    if (!proxy->farm)
        abort();
    proxy->pool = &proxy->farm->pools[0];
    farm_commit(proxy->farm);
    if (scenario->policy->naive)
        proxy->pool->algorithm = scenario->policy->naive;
    proxy->health = health_open(loop_virtual(), &watcher);
    if (!proxy->health)
        abort();
    health_set_farm(proxy->health, proxy->farm);
    policy_start(proxy, draw_even(&stream));
    shared_open(proxy, draw_even(&stream));
}

static void count_publications(struct proxy *proxy)
{
    struct result *result = proxy->world->result;
    struct counters_status status;

    counters_status(proxy->counters, &status);
    result->publications += status.published;
    result->proxy_time += calendar_now() - proxy->opened;
}

void proxy_close(struct proxy *proxy)
{
    calendar_cancel(&proxy->publish);
    if (proxy->dead)
        return;
    count_publications(proxy);
    shared_close(proxy);
    health_close(&proxy->health);
    mailbox_close(&proxy->mailbox);
    farm_release(&proxy->farm);
}

void proxy_kill(struct proxy *proxy)
{
    sessions_abort(proxy->world, proxy);
    calendar_settle(); /* mail to those that waited */
    proxy_close(proxy);
    proxy->dead = true;
}

struct proxy *proxy_alive(struct proxy *proxy)
{
    struct world *world = proxy->world;

    while (proxy->dead)
        proxy = proxy + 1 < world->proxies + world->n_proxies ? proxy + 1 : world->proxies;
    return proxy;
}
