#include "counters/counters.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "counters/counters_internal.h"
#include "net/clock.h"
#include "net/log.h"

#define HEAR_EVERY      500             /* ms */
#define BYE_LIMIT       0.5             /* s */
#define ECHO_LIMIT      2000            /* ms until what was published is heard by who said it */
#define COMPLAINT_AGAIN (5 * 60 * 1000) /* ms */

const char *counters_key(const struct counters *c, char key[COUNTERS_KEY_MAX], const char *what,
                         const char *id)
{
    (void)snprintf(key, COUNTERS_KEY_MAX, "%s%s%s%s", c->prefix, what, id ? ":" : "", id ? id : "");
    return key;
}

/* --- what is wrong --- */

void counters_complain(struct counters *c, const char *what, const char *reason)
{
    struct complaint *complaint = NULL;
    int64_t now = clock_milliseconds();

    for (int i = 0; i < COUNTERS_COMPLAINTS && !complaint; i++)
        if (!c->complaints[i].what || strcmp(c->complaints[i].what, what) == 0)
            complaint = &c->complaints[i];
    if (!complaint)
        return;
    if (complaint->what && strncmp(complaint->reason, reason, sizeof complaint->reason - 1) == 0 &&
        now - complaint->told < COMPLAINT_AGAIN)
        return;
    complaint->what = what;
    complaint->told = now;
    (void)snprintf(complaint->reason, sizeof complaint->reason, "%s", reason);
    if (reason[0])
        log_message(LOG_LEVEL_WARNING, "redis", "%s: %s", what, complaint->reason);
}

/* --- who this is --- */

static void make_id(struct counters *c)
{
    char host[SNAPSHOT_ID_MAX - 9] = "";
    struct timespec now;
    uint32_t random = 0;
    size_t size;

    (void)gethostname(host, sizeof host - 1);
    size = strcspn(host, ".");
    for (size_t i = 0; i < size; i++)
        if (!isalnum((unsigned char)host[i]))
            host[i] = '-';
    (void)!getrandom(&random, sizeof random, 0);
    (void)snprintf(c->id, sizeof c->id, "%.*s-%08" PRIx32, (int)size, host, random);
    clock_gettime(CLOCK_REALTIME, &now);
    c->started = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    c->seq = 0;
    pthread_mutex_lock(&c->status_lock);
    memcpy(c->status.id, c->id, sizeof c->status.id);
    pthread_mutex_unlock(&c->status_lock);
}

static void take_another_id(struct counters *c)
{
    make_id(c);
    statistics_set_id(c->statistics, c->id);
    clients_redis_set_id(c->clients, c->id);
}

void counters_rename(struct counters *c, const char *why)
{
    char old[SNAPSHOT_ID_MAX];

    memcpy(old, c->id, sizeof old);
    take_another_id(c);
    log_message(LOG_LEVEL_WARNING, "redis", "%s: %s is now %s", why, old, c->id);
    c->published_at = clock_milliseconds() - c->config->lease;
}

/* --- whether Redis is there --- */

/* Both are needed: what is published without hearing the others would let them make way for us. */
static bool is_connected(const struct counters *c)
{
    return c->commands && c->events && redis_state(c->commands) == REDIS_READY &&
           redis_state(c->events) == REDIS_READY;
}

/* `server` NULL: as it was. */
static void set_status(struct counters *c, const char *server, const char *reason)
{
    pthread_mutex_lock(&c->status_lock);
    (void)snprintf(c->status.reason, sizeof c->status.reason, "%s", reason);
    if (server)
        (void)snprintf(c->status.server, sizeof c->status.server, "%s", server);
    pthread_mutex_unlock(&c->status_lock);
}

static void lose(struct counters *c, const char *reason)
{
    counters_complain(c, "server", reason);
    set_status(c, NULL, reason);
    c->accepted = false;
    pooled_lose(c);
    view_lost(&c->view, clock_milliseconds());
    c->news = true;
}

/* On the way to another node of a cluster nobody is told anything, and it may be long: who waits for that
 * with the others would take them for dead when their leases end, and they him. */
static void watch_the_way(struct counters *c, int64_t now)
{
    if (is_connected(c))
        c->connected_at = now;
    else if ((c->view.state == COUNTERS_SHARED || c->view.state == COUNTERS_REJOIN) &&
             now - c->connected_at >= REDIS_ANSWER_LIMIT)
        lose(c, "the slot has moved, and where it should be nobody answers");
}

/* --- the view in force --- */

static void tell_state(struct counters *c)
{
    static const char *const words[COUNTERS_STATES] = {
        [COUNTERS_OFF] = "counts are this instance's own",
        [COUNTERS_SHARED] = "counts are shared",
        [COUNTERS_HELD] = "Redis is away: the last counts of the others hold for 30 s",
        [COUNTERS_LOCAL] = "Redis is away: this instance counts by itself, and takes its share of each cap",
        [COUNTERS_REJOIN] = "Redis is back: the others have 10 s to come back too",
    };
    enum counters_state state = c->view.state;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_lock(&c->status_lock);
    if (c->status.state != state)
        c->status.since = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    c->status.state = state;
    pthread_mutex_unlock(&c->status_lock);
    if (!c->view.ever && c->commands && c->events && !c->refused && redis_state(c->commands) != REDIS_DOWN &&
        redis_state(c->events) != REDIS_DOWN)
        return; /* it has only just begun: that is not worth a warning yet */
    if (c->told != state)
        log_message(state == COUNTERS_HELD || state == COUNTERS_LOCAL ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO,
                    "counters", "%s: %s", counters_state_name(state), words[state]);
    c->told = state;
}

/* What can wait for the next tick. */
static void tick(struct counters *c, int64_t now)
{
    listen_tick(c, now);
    statistics_tick(c->statistics, now);
    clients_redis_tick(c->clients, now);
    if (now - c->heard_at >= HEAR_EVERY)
        counters_hear(c, now);
    c->ticked = now;
}

static bool is_news(struct counters *c, int64_t now)
{
    bool changed = view_tick(&c->view, now);
    uint32_t instances = view_instances(&c->view, now);

    return changed || c->news || instances != c->status.instances || counters_allows_anew(c, instances, now);
}

/* The balance is as good as what is known is fresh. But where nothing is placed, here or elsewhere, nobody
 * need look so often. */
static int pace(const struct counters *c, bool news)
{
    for (size_t i = 0; i < c->n_pools && !news; i++)
        news = c->pools[i].rate > 1;
    return news ? COUNTERS_LOOK : COUNTERS_TICK;
}

static void look_again(struct counters *c, int milliseconds)
{
    c->pace = milliseconds;
    c->look.repeat = milliseconds / 1000.;
    ev_timer_again(c->loop, &c->look);
}

/* --- connections --- */

void counters_refused(struct counters *c, const char *reason)
{
    c->refused = true;
    lose(c, reason);
}

void counters_join(struct counters *c)
{
    if (!c->accepted || !c->echoed || !c->resynced || !is_connected(c))
        return;
    counters_complain(c, "server", "");
    set_status(c, redis_server(c->commands), "");
    view_connected(&c->view, clock_milliseconds());
    c->news = true;
}

static void lend_to_rates(struct counters *c)
{
    bool there = c->commands && redis_state(c->commands) == REDIS_READY;

    if (c->ops.rates && c->config)
        rate_redis_use(c->ops.rates, there ? c->commands : NULL, c->config->farm);
}

static void on_connection(void *arg, enum redis_state state, const char *reason)
{
    struct counters *c = arg;

    lend_to_rates(c);
    if (state == REDIS_DOWN) {
        /* Of the two, the other may still owe answers: each says itself that it is over. */
        lose(c, reason);
    } else if (is_connected(c)) {
        c->accepted = c->refused = c->resynced = c->echoed = false;
        c->resync_due = c->verdicts_due = true;
    }
}

static void disconnect(struct counters *c)
{
    statistics_connect(c->statistics, NULL, c->prefix);
    clients_redis_use(c->clients, NULL, c->prefix);
    redis_free(&c->commands);
    redis_free(&c->events);
    lend_to_rates(c);
    if (c->ops.rates)
        rate_redis_forget(c->ops.rates);
    ev_timer_stop(c->loop, &c->look);
    c->publishing = c->accepted = c->refused = c->resynced = false;
    listen_forget(c);
}

/* `channel` NULL: for commands. */
static struct redis *open_connection(struct counters *c, const char *channel)
{
    char key[COUNTERS_KEY_MAX], name[SNAPSHOT_ID_MAX + 16];
    const struct redis_settings settings = { .url = c->config->url,
                                             .tls = c->config->tls,
                                             .name = name,
                                             .key = counters_key(c, key, "instances", NULL),
                                             .channel = channel,
                                             .nameservers = c->nameservers };
    const struct redis_handler handler = { .state = on_connection,
                                           .message = channel ? listen_message : NULL,
                                           .arg = c };

    (void)snprintf(name, sizeof name, "weir:%s", c->id);
    return redis_open(c->loop, &settings, &handler);
}

static bool connect_both(struct counters *c)
{
    c->commands = open_connection(c, NULL);
    statistics_connect(c->statistics, c->commands, c->prefix);
    clients_redis_use(c->clients, c->commands, c->prefix);
    c->events = open_connection(c, c->channel);
    look_again(c, COUNTERS_TICK);
    return c->commands && c->events;
}

/* A balancer, or a name with several addresses, may have led the two connections to different servers. */
static void watch_the_channel(struct counters *c, int64_t now)
{
    if (!is_connected(c) || !c->accepted || c->echoed || now - c->accepted_at < ECHO_LIMIT)
        return;
    counters_refused(c, "what is published is not heard: its two connections lead to different servers");
    redis_free(&c->events);
    c->events = open_connection(c, c->channel);
}

static void on_look(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct counters *c = timer->data;
    int64_t now = clock_milliseconds();
    bool news;

    (void)loop;
    (void)events;
    publish_tick(c, now);
    watch_the_way(c, now);
    watch_the_channel(c, now);
    news = is_news(c, now);
    if (news)
        counters_apply(c, now);
    if (now - c->ticked >= COUNTERS_TICK)
        tick(c, now);
    tell_state(c);
    c->looked_at = now;
    if (pace(c, news) != c->pace)
        look_again(c, pace(c, news));
}

/* --- the farm --- */

/* As resolver_open() takes them; NULL: the system's. */
static char *nameservers_of(const struct config *config)
{
    char *text = config->n_nameservers ? calloc(config->n_nameservers, ADDRESS_TEXT_MAX + 1) : NULL;
    char one[ADDRESS_TEXT_MAX];

    for (size_t i = 0; text && i < config->n_nameservers; i++) {
        if (i)
            strcat(text, ",");
        strcat(text, address_format(&config->nameservers[i], one));
    }
    return text;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Whether Redis and the farm are those that they were. */
static bool same_place(const struct counters *c, const struct config_redis *next, const char *nameservers)
{
    const struct config_redis *now = c->config;

    if (!c->commands || !now || !now->url || !next->url)
        return !c->commands && !next->url;
    return memcmp(now->url, next->url, sizeof *next->url) == 0 && strcmp(now->farm, next->farm) == 0 &&
           same_text(c->nameservers, nameservers);
}

/* Without Redis all is one's own. */
static void alone(struct counters *c)
{
    static const struct backend_news none = { .instances = 1, .share = BACKEND_WHOLE, .anew = true };

    for (size_t i = 0; i < c->n; i++)
        (void)backend_set_news(c->counted[i].backend, &none);
    for (size_t i = 0; i < c->n_pools; i++)
        pool_set_news(c->pools[i].pool, &(struct pool_news){ 0 });
    for (size_t i = 0; i < c->n; i++)
        c->ops.hear(c->ops.arg, c->counted[i].backend, 0, 1, BACKEND_NO_CEILING);
    for (size_t i = 0; i < c->n; i++)
        if (c->counted[i].feedback.admin != BACKEND_READY || c->counted[i].feedback.share != FEEDBACK_ALL)
            c->ops.queue(c->ops.arg, c->counted[i].backend, BACKEND_READY, FEEDBACK_ALL);
    for (size_t i = 0; i < c->n; i++)
        if (c->counted[i].word[0] || c->counted[i].weight != UINT32_MAX)
            c->ops.word(c->ops.arg, c->counted[i].backend, NULL, UINT32_MAX);
    pooled_lose(c);
    view_clear(&c->view);
    c->view.state = COUNTERS_OFF;
    set_status(c, "", "");
    tell_state(c);
}

static void connect_or_do_without(struct counters *c)
{
    if (connect_both(c))
        return;
    log_message(LOG_LEVEL_ERROR, "redis", "out of memory: counts are this instance's own");
    disconnect(c);
    alone(c);
}

/* The same Redis, by new connections: a TLS context belongs to its configuration. The others are as they
 * were, and so is this instance to them. */
static void connect_anew(struct counters *c)
{
    disconnect(c);
    view_lost(&c->view, clock_milliseconds());
    connect_or_do_without(c);
}

static void begin(struct counters *c, char *nameservers)
{
    int64_t now = clock_milliseconds();
    const struct config_redis *redis = c->config;
    char shown[REDIS_URL_TEXT_MAX], prefix[COUNTERS_PREFIX_MAX];

    free(c->nameservers);
    c->nameservers = nameservers;
    view_clear(&c->view);
    if (!redis->url) {
        alone(c);
        return;
    }
    (void)snprintf(prefix, sizeof prefix, "weir:{%s}:", redis->farm);
    /* Should it come back to that farm, what it has counted there is another's: it would be written over. */
    if (*c->prefix && strcmp(prefix, c->prefix) != 0)
        take_another_id(c);
    memcpy(c->prefix, prefix, sizeof c->prefix);
    (void)snprintf(c->channel, sizeof c->channel, "%sevents", c->prefix);
    view_init(&c->view, redis->lease, redis->expected_instances, now);
    set_status(c, redis_url_show(redis->url, shown), "not connected yet");
    c->looked_at = c->ticked = now;
    c->allowed_at = now - COUNTERS_ANEW;
    c->published_at = now - redis->lease;
    connect_or_do_without(c);
    if (c->view.state == COUNTERS_OFF)
        return;
    counters_apply(c, now);
    tell_state(c);
}

void counters_set_farm(struct counters *c, struct farm *farm)
{
    const struct config_redis *redis = &farm->config->redis;
    struct farm *old = c->farm;
    char *nameservers = nameservers_of(farm->config);
    bool same = c->farm && same_place(c, redis, nameservers),
         other_tls = same && redis->tls != c->config->tls;

    if (!same && c->commands) {
        statistics_final(c->statistics);
        publish_bye(c);
    }
    if (!same)
        disconnect(c);
    if (!counters_enlist(c, farm)) {
        log_message(LOG_LEVEL_ERROR, "redis", "out of memory: the counts of the last configuration go on");
        free(nameservers);
        return;
    }
    c->farm = farm_hold(farm);
    c->config = redis;
    if (same) {
        free(nameservers);
        view_configure(&c->view, redis->lease, redis->expected_instances);
        c->resync_due = c->verdicts_due = true;
        if (other_tls)
            connect_anew(c);
        if (c->commands)
            counters_apply(c, clock_milliseconds());
    } else {
        begin(c, nameservers);
    }
    farm_release(&old);
}

/* --- life --- */

static void complain(void *arg, const char *what, const char *reason)
{
    counters_complain(arg, what, reason);
}

static bool create_clients(struct counters *c)
{
    if (!c->ops.clients)
        return true;
    c->clients = clients_redis_create(c->ops.clients, &c->view, c->id, complain, c);
    return c->clients != NULL;
}

struct counters *counters_open(struct ev_loop *loop, const struct counters_ops *ops)
{
    struct counters *c = calloc(1, sizeof *c);

    if (!c)
        return NULL;
    c->loop = loop;
    c->ops = *ops;
    pthread_mutex_init(&c->status_lock, NULL);
    ev_init(&c->look, on_look);
    c->look.data = c;
    make_id(c);
    if (!count_create(c) || !create_clients(c))
        counters_close(&c);
    return c;
}

void counters_hurry(struct counters *c)
{
    if (c)
        c->verdicts_due = true;
}

static void on_bye_limit(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)events;
    (void)timer;
    ev_break(loop, EVBREAK_ONE);
}

/* The keys would go with the lease; but the others need not wait for that. */
static void say_bye(struct counters *c)
{
    ev_timer limit;

    ev_timer_stop(c->loop, &c->look);
    if (!c->commands || redis_state(c->commands) != REDIS_READY)
        return;
    statistics_final(c->statistics);
    publish_bye(c);
    ev_timer_init(&limit, on_bye_limit, BYE_LIMIT, 0.);
    ev_timer_start(c->loop, &limit);
    while (ev_is_active(&limit) && redis_state(c->commands) == REDIS_READY && redis_outstanding(c->commands))
        ev_run(c->loop, EVRUN_ONCE);
    ev_timer_stop(c->loop, &limit);
}

void counters_close(struct counters **counters)
{
    struct counters *c = *counters;

    *counters = NULL;
    if (!c)
        return;
    say_bye(c);
    disconnect(c);
    statistics_free(&c->statistics);
    clients_redis_free(&c->clients);
    view_clear(&c->view);
    farm_release(&c->farm);
    pthread_mutex_destroy(&c->status_lock);
    free(c->nameservers);
    free(c->counted);
    free(c->names);
    free(c->others);
    free(c->pools);
    free(c->left);
    free(c);
}

void counters_status(const struct counters *counters, struct counters_status *out)
{
    struct counters *c = (struct counters *)(uintptr_t)counters; /* for the lock */

    *out = (struct counters_status){ .state = COUNTERS_OFF, .instances = 1 };
    if (!c)
        return;
    pthread_mutex_lock(&c->status_lock);
    *out = c->status;
    pthread_mutex_unlock(&c->status_lock);
}
