/* Who comes, when, through which proxy, with how much work. */
#include <stdlib.h>

#include "tests/sim/workload.h"
#include "tests/sim/world.h"

/* One client's bulk mail under way. */
struct burst {
    struct event event;
    struct traffic *traffic;
    struct burst *next, *previous;
    uint64_t client;
    uint32_t left;
    double until;
    struct proxy *proxies[2];
};

/* Share of the full load now. */
static double shape(const struct traffic *traffic)
{
    const struct world *world = traffic->world;

    return world->scenario->shape ? world->scenario->shape(calendar_now() - world->start) : 1;
}

static struct proxy *by_dns(struct traffic *traffic, struct stream *stream)
{
    double point = draw_even(stream);
    size_t i = 0;

    while (i + 1 < traffic->world->n_proxies && point > traffic->proxies_share[i])
        i++;
    return &traffic->world->proxies[i];
}

static void arrive(struct traffic *traffic, struct proxy *proxy, uint64_t client)
{
    double mean = traffic->world->scenario->session, work[STAGES];
    const double shares[STAGES] = { WORKLOAD_COMMAND, WORKLOAD_COMMAND, 1 - 2 * WORKLOAD_COMMAND };

    for (int i = 0; i < STAGES; i++)
        work[i] = draw_lognormal(&traffic->work, mean * shares[i], WORKLOAD_SIGMA);
    session_begin(proxy_alive(proxy), work, client);
}

static void on_single(struct event *event)
{
    struct traffic *traffic = CALENDAR_OF(event, struct traffic, single);

    calendar_set(event, calendar_now() + draw_gap(&traffic->singles, traffic->singles_rate));
    if (draw_even(&traffic->singles) < shape(traffic))
        arrive(traffic, by_dns(traffic, &traffic->singles), ++traffic->clients);
}

static void burst_free(struct burst *burst)
{
    calendar_cancel(&burst->event);
    if (burst->next)
        burst->next->previous = burst->previous;
    if (burst->previous)
        burst->previous->next = burst->next;
    else
        burst->traffic->bursts = burst->next;
    free(burst);
}

/* Those that are left come at even odds in the time that is left: the next is the first of so many. */
static void go_on(struct burst *burst)
{
    double left = burst->until - calendar_now();

    if (!burst->left) {
        burst_free(burst);
        return;
    }
    calendar_set(&burst->event,
                 calendar_now() + left * (1 - pow(draw_even(&burst->traffic->bulk), 1. / burst->left)));
}

static void on_bulk_session(struct event *event)
{
    struct burst *burst = CALENDAR_OF(event, struct burst, event);
    struct traffic *traffic = burst->traffic;

    burst->left--;
    arrive(traffic, burst->proxies[draw_even(&traffic->bulk) < 0.5], burst->client);
    go_on(burst);
}

static void on_burst(struct event *event)
{
    struct traffic *traffic = CALENDAR_OF(event, struct traffic, burst);
    struct stream *bulk = &traffic->bulk;
    struct burst *burst;

    calendar_set(event, calendar_now() + draw_gap(bulk, traffic->bursts_rate));
    if (draw_even(bulk) >= shape(traffic))
        return;
    burst = calloc(1, sizeof *burst);
    if (!burst)
        abort();
    burst->event.happen = on_bulk_session;
    burst->traffic = traffic;
    burst->client = ++traffic->clients;
    burst->left = draw_geometric(bulk, traffic->burst_mean);
    burst->until = calendar_now() + WORKLOAD_BURST_SECONDS;
    burst->proxies[0] = burst->proxies[1] = by_dns(traffic, bulk);
    if (draw_even(bulk) < 0.5)
        burst->proxies[1] = by_dns(traffic, bulk);
    burst->next = traffic->bursts;
    if (burst->next)
        burst->next->previous = burst;
    traffic->bursts = burst;
    go_on(burst);
}

double traffic_share(size_t n_proxies, size_t index)
{
    double sum = 0;

    for (size_t k = 1; k <= n_proxies; k++)
        sum += 1 / sqrt((double)k);
    return 1 / sqrt((double)(index + 1)) / sum;
}

static void share_out(struct traffic *traffic)
{
    double up_to = 0;

    for (size_t i = 0; i < traffic->world->n_proxies; i++)
        traffic->proxies_share[i] = up_to += traffic_share(traffic->world->n_proxies, i);
}

void traffic_open(struct traffic *traffic, struct world *world, uint64_t seed)
{
    const struct scenario *scenario = world->scenario;
    double promise = 0, rate, whole = 0;
    const uint32_t table[] = WORKLOAD_RELAYS;

    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        whole += table[i] * WORKLOAD_PER_WEIGHT;
    for (size_t i = 0; i < world->n_relays; i++)
        promise += world->relays[i].promise;
    rate = scenario->load * promise / scenario->session;
    *traffic = (struct traffic){
        .world = world,
        .singles = stream_of(seed, 1),
        .bulk = stream_of(seed, 2),
        .work = stream_of(seed, 3),
        .singles_rate = rate * (1 - WORKLOAD_BULK),
        /* A smaller farm has smaller clients. */
        .burst_mean = promise / whole *
                      (scenario->session < WORKLOAD_LONG ? WORKLOAD_BURST_SHORT : WORKLOAD_BURST_LONG),
        .single.happen = on_single,
        .burst.happen = on_burst,
    };
    if (traffic->burst_mean < 1)
        traffic->burst_mean = 1;
    traffic->bursts_rate = rate * WORKLOAD_BULK / traffic->burst_mean;
    share_out(traffic);
    calendar_set(&traffic->single, calendar_now() + draw_gap(&traffic->singles, traffic->singles_rate));
    calendar_set(&traffic->burst, calendar_now() + draw_gap(&traffic->bulk, traffic->bursts_rate));
}

void traffic_close(struct traffic *traffic)
{
    calendar_cancel(&traffic->single);
    calendar_cancel(&traffic->burst);
    while (traffic->bursts)
        burst_free(traffic->bursts);
}
