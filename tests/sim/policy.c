#include "tests/sim/world.h"

const struct policy policy_ideal = { .name = "one ideal balancer",
                                     .proxies = 1,
                                     .algorithm = "least-connections" };
const struct policy policy_local = { .name = "8, each on its own",
                                     .proxies = 8,
                                     .algorithm = "least-connections" };
const struct policy policy_shared = {
    .name = "8, counts shared", .proxies = 8, .algorithm = "least-connections", .publish_interval = 250
};

/* --- what must not be done --------------------------------------------------------------------------------
 *
 * Each proxy adds the others' last published counts to its own and takes the smallest. Between two
 * publications all of them see the same relay as the emptiest. */

static const struct world *world;

static void on_publish(struct event *event)
{
    struct proxy *proxy = CALENDAR_OF(event, struct proxy, publish);

    for (size_t i = 0; i < world->n_relays; i++)
        proxy->published[i] = atomic_load(&proxy->farm->backends[i]->connections);
    calendar_set(event, calendar_now() + world->scenario->policy->interval);
}

void policy_start(struct proxy *proxy, double phase)
{
    double interval = proxy->world->scenario->policy->interval;

    if (interval <= 0)
        return;
    world = proxy->world;
    proxy->publish.happen = on_publish;
    calendar_set(&proxy->publish, calendar_now() + phase * interval);
}

static double published(size_t relay)
{
    double sum = 0;

    for (size_t q = 0; q < world->n_proxies; q++)
        sum += world->proxies[q].published[relay];
    return sum;
}

static struct member *choose_argmin(const struct algorithm_input *in)
{
    struct member *best = NULL;
    double lowest = 0;
    size_t relay = 0;

    for (size_t i = 0; i < in->n; i++) {
        const struct backend *backend = in->candidates[i]->backend;
        double score;

        while (in->pool->members[relay] != in->candidates[i])
            relay = relay + 1 < in->pool->n_members ? relay + 1 : 0;
        score = (1 + published(relay)) / (double)backend->weight;
        if (!best || score < lowest) {
            best = in->candidates[i];
            lowest = score;
        }
    }
    return best;
}

const struct algorithm policy_argmin = { "argmin", choose_argmin };
