/*
 * This instance's counts, out: one MULTI with everything, so that whoever reads the keys reads one moment.
 *
 * The snapshot goes out when a count has changed, at most every `publish-interval`; sooner, when two
 * placements are unknown to the others; and three times in a lease, changed or not. Never while an answer is
 * outstanding.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "balancer/placement.h"
#include "counters/counters_internal.h"
#include "net/clock.h"

#define RATE_TAU    1000.0 /* ms */
#define VERDICT_MAX 640    /* octets of what is thought of a backend */

/* --- what there is to say --- */

static void look_at_rates(struct counters *c, int64_t now)
{
    double passed = (double)(now - c->looked_at), past = exp(-passed / RATE_TAU);

    if (passed <= 0)
        return;
    for (size_t i = 0; i < c->n_pools; i++) {
        struct pool_rate *pool = &c->pools[i];
        uint64_t placements = pool_placements(pool->pool);
        double rate = (double)(placements - pool->placements) * 1000 / passed;

        pool->rate = (float)((double)pool->rate * past + rate * (1 - past));
        if (pool->rate < 1e-3f)
            pool->rate = 0;
        pool->placements = placements;
    }
}

static uint64_t placements_of(const struct counters *c)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < c->n_pools; i++)
        sum += c->pools[i].placements;
    return sum;
}

static uint32_t held(const struct backend *backend)
{
    return atomic_load_explicit(&backend->connections, memory_order_relaxed);
}

static bool has_changed(const struct counters *c)
{
    for (size_t i = 0; i < c->n_told; i++)
        if (held(c->counted[i].backend) != c->counted[i].published)
            return true;
    for (size_t i = 0; i < c->n_left; i++)
        if (held(c->left[i].backend) != c->left[i].published)
            return true;
    return false;
}

static bool is_due(const struct counters *c, int64_t now)
{
    int64_t age = now - c->published_at;

    if (c->refused)
        return age >= COUNTERS_RETRY;
    if (age >= c->config->lease / 3 || c->verdicts_due)
        return true;
    if (!has_changed(c))
        return false;
    return age >= c->config->publish_interval ||
           (age >= COUNTERS_TICK && placements_of(c) - c->placements >= COUNTERS_EARLY);
}

/* --- words of commands --- */

struct line {
    size_t n, capacity;
    struct resp_word *words;
    char *numbers; /* what the words point into */
    size_t used;
};

/* Room for `n` words, half of which may be numbers of up to 24 octets. */
static bool line_open(struct line *line, size_t n)
{
    *line = (struct line){ .capacity = n };
    line->words = calloc(n, sizeof *line->words);
    line->numbers = malloc(n * 24);
    return line->words && line->numbers;
}

static void line_close(struct line *line)
{
    free(line->words);
    free(line->numbers);
}

static void say(struct line *line, const char *text)
{
    line->words[line->n++] = (struct resp_word){ text, strlen(text) };
}

static void say_number(struct line *line, uint64_t number)
{
    char *text = line->numbers + line->used;
    int size = snprintf(text, 24, "%" PRIu64, number);

    line->words[line->n++] = (struct resp_word){ text, (size_t)size };
    line->used += (size_t)size;
}

static void say_real(struct line *line, double number)
{
    char *text = line->numbers + line->used;
    int size = snprintf(text, 24, "%.5g", number);

    line->words[line->n++] = (struct resp_word){ text, (size_t)size };
    line->used += (size_t)size;
}

/* --- the keys --- */

static void expire(struct resp_commands *commands, const struct counters *c, const char *key)
{
    char lease[24];

    (void)snprintf(lease, sizeof lease, "%" PRIu32, c->config->lease);
    resp_commands_say(commands, "PEXPIRE", key, lease);
}

/* It comes first, and clears the way: the keys may be of another type. */
static bool add_connections(struct resp_commands *commands, const struct counters *c)
{
    char key[COUNTERS_KEY_MAX], instance[COUNTERS_KEY_MAX];
    struct line line;
    bool good = line_open(&line, 2 + 2 * (c->n_told + c->n_left));

    counters_key(c, key, "connections", c->id);
    if (good) {
        say(&line, "HSET");
        say(&line, key);
        for (size_t i = 0; i < c->n_told; i++) {
            say(&line, c->names[i]);
            say_number(&line, c->counted[i].published);
        }
        for (size_t i = 0; i < c->n_left; i++) {
            if (!c->left[i].published)
                continue;
            say(&line, c->left[i].backend->full_name);
            say_number(&line, c->left[i].published);
        }
        resp_commands_say(commands, "DEL", key, counters_key(c, instance, "instance", c->id));
        if (line.n > 2)
            resp_commands_add(commands, line.words, line.n);
        expire(commands, c, key);
    }
    line_close(&line);
    return good;
}

static bool add_instance(struct resp_commands *commands, const struct counters *c,
                         const struct snapshot *snapshot)
{
    char key[COUNTERS_KEY_MAX], host[256] = "", (*fields)[2][SNAPSHOT_NAME_MAX + 16];
    struct line line;
    bool good = line_open(&line, 18 + 4 * c->n_pools);

    fields = calloc(c->n_pools ? c->n_pools : 1, sizeof *fields);
    (void)gethostname(host, sizeof host - 1);
    counters_key(c, key, "instance", c->id);
    good = good && fields;
    if (good) {
        say(&line, "HSET");
        say(&line, key);
        say(&line, "schema");
        say_number(&line, SNAPSHOT_SCHEMA);
        say(&line, "version");
        say(&line, WEIR_VERSION);
        say(&line, "host");
        say(&line, host);
        say(&line, "pid");
        say_number(&line, (uint64_t)getpid());
        say(&line, "started");
        say_number(&line, (uint64_t)c->started);
        say(&line, "seq");
        say_number(&line, snapshot->seq);
        say(&line, "sessions");
        say_number(&line, snapshot->sessions);
        say(&line, "queued");
        say_number(&line, snapshot->queued);
        for (size_t i = 0; i < c->n_pools; i++) {
            (void)snprintf(fields[i][0], sizeof fields[i][0], "arrival_rate:%s", snapshot->rates[i].name);
            say(&line, fields[i][0]);
            say_real(&line, (double)snapshot->rates[i].rate);
            (void)snprintf(fields[i][1], sizeof fields[i][1], "queued:%s", snapshot->rates[i].name);
            say(&line, fields[i][1]);
            say_number(&line, placement_waiting(c->pools[i].pool));
        }
        resp_commands_add(commands, line.words, line.n);
        expire(commands, c, key);
    }
    free(fields);
    line_close(&line);
    return good;
}

static bool add_verdicts(struct resp_commands *commands, const struct counters *c)
{
    char key[COUNTERS_KEY_MAX], (*texts)[VERDICT_MAX] = calloc(c->n_told ? c->n_told : 1, sizeof *texts);
    struct line line;
    bool good = line_open(&line, 2 + 2 * c->n_told) && texts;

    counters_key(c, key, "health", c->id);
    if (good) {
        say(&line, "HSET");
        say(&line, key);
        for (size_t i = 0; i < c->n_told; i++) {
            c->ops.verdict(c->ops.arg, c->counted[i].backend, texts[i], sizeof texts[i]);
            say(&line, c->names[i]);
            say(&line, texts[i]);
        }
        resp_commands_say(commands, "DEL", key);
        if (c->n_told)
            resp_commands_add(commands, line.words, line.n);
        expire(commands, c, key);
    }
    free(texts);
    line_close(&line);
    return good;
}

static void add_presence(struct resp_commands *commands, const struct counters *c)
{
    char key[COUNTERS_KEY_MAX], time[24];
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    (void)snprintf(time, sizeof time, "%" PRId64, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    resp_commands_say(commands, "ZADD", counters_key(c, key, "instances", NULL), time, c->id);
}

/* --- the snapshot --- */

static void on_published(void *arg, const struct resp *reply, const char *error)
{
    struct counters *c = arg;

    c->publishing = false;
    if (error) {
        /* The connection says why, unless it is another node that could not be asked. */
        if (redis_state(c->commands) == REDIS_READY)
            counters_refused(c, error);
        return;
    }
    if (reply->type == RESP_ERROR) {
        counters_refused(c, reply->text);
        return;
    }
    if (!c->accepted)
        c->accepted_at = clock_milliseconds();
    c->accepted = true;
    c->refused = false;
    /* One command of the transaction may have failed where the others have not: a key of another type. */
    for (size_t i = 0; reply->type == RESP_ARRAY && i < reply->n; i++) {
        if (reply->elements[i].type == RESP_ERROR) {
            reply = &reply->elements[i];
            break;
        }
    }
    counters_complain(c, "publish", reply->type == RESP_ERROR ? reply->text : "");
    counters_join(c);
}

static bool send_all(struct counters *c, const struct snapshot *snapshot, bool verdicts)
{
    struct resp_commands commands = { 0 };
    char *text = snapshot_format(snapshot);
    bool good = text && add_connections(&commands, c) && add_instance(&commands, c, snapshot) &&
                (!verdicts || add_verdicts(&commands, c));

    if (good) {
        add_presence(&commands, c);
        resp_commands_say(&commands, "PUBLISH", c->channel, text);
        good = redis_send(c->commands, &commands, on_published, c);
    }
    free(text);
    resp_commands_free(&commands);
    return good;
}

/* The arrays are there, with room for all. */
static void add_findings(struct counters *c, struct snapshot *snapshot)
{
    for (size_t i = 0; i < c->n_told; i++) {
        char *name = (char *)(uintptr_t)c->names[i];
        uint32_t limit;
        bool down;

        c->ops.finding(c->ops.arg, c->counted[i].backend, &down, &limit);
        if (down)
            snapshot->down[snapshot->n_down++] = name;
        if (limit != UINT32_MAX)
            snapshot->limits[snapshot->n_limits++] = (struct snapshot_count){ name, limit };
    }
}

/* The array is there, with room for all. */
static void add_held(struct counters *c, struct snapshot *snapshot)
{
    for (size_t i = 0; i < c->n_told; i++) {
        c->counted[i].published = held(c->counted[i].backend);
        snapshot->held[snapshot->n_held++] =
            (struct snapshot_count){ (char *)(uintptr_t)c->names[i], c->counted[i].published };
    }
    for (size_t i = 0; i < c->n_left; i++) {
        c->left[i].published = held(c->left[i].backend);
        snapshot->held[snapshot->n_held++] =
            (struct snapshot_count){ c->left[i].backend->full_name, c->left[i].published };
    }
}

static void publish(struct counters *c, int64_t now)
{
    struct snapshot snapshot = { .started = c->started, .seq = c->seq + 1 };
    bool verdicts = c->verdicts_due || now - c->verdicts_at >= c->config->lease / 3;

    snapshot.held = calloc(c->n_told + c->n_left + 1, sizeof *snapshot.held);
    snapshot.rates = calloc(c->n_pools ? c->n_pools : 1, sizeof *snapshot.rates);
    snapshot.limits = calloc(c->n_told ? c->n_told : 1, sizeof *snapshot.limits);
    snapshot.down = calloc(c->n_told ? c->n_told : 1, sizeof *snapshot.down);
    memcpy(snapshot.id, c->id, sizeof snapshot.id);
    c->ops.load(c->ops.arg, &snapshot.sessions, &snapshot.queued);
    if (snapshot.held)
        add_held(c, &snapshot);
    for (size_t i = 0; snapshot.rates && i < c->n_pools; i++)
        snapshot.rates[snapshot.n_rates++] =
            (struct snapshot_rate){ c->pools[i].pool->state->name, c->pools[i].rate };
    if (snapshot.limits && snapshot.down)
        add_findings(c, &snapshot);
    pooled_add(c, &snapshot, now);
    if (snapshot.held && snapshot.rates && send_all(c, &snapshot, verdicts)) {
        c->seq = snapshot.seq;
        c->publishing = true;
        c->published_at = now;
        if (verdicts) {
            c->verdicts_due = false;
            c->verdicts_at = now;
        }
        c->placements = placements_of(c);
        pthread_mutex_lock(&c->status_lock);
        c->status.published++;
        pthread_mutex_unlock(&c->status_lock);
    } else {
        c->published_at = now - c->config->lease; /* again, at the next look */
    }
    free(snapshot.held); /* the names are others' */
    free(snapshot.rates);
    free(snapshot.limits);
    free(snapshot.down);
    free(snapshot.replies);
}

void publish_tick(struct counters *c, int64_t now)
{
    look_at_rates(c, now);
    if (redis_state(c->commands) == REDIS_READY && !c->publishing && is_due(c, now))
        publish(c, now);
}

void publish_bye(struct counters *c)
{
    static const char *const keys[] = { "connections", "instance", "health" };
    struct snapshot snapshot = { .started = c->started, .seq = ++c->seq, .bye = true };
    struct resp_commands commands = { 0 };
    char key[COUNTERS_KEY_MAX], *text;

    memcpy(snapshot.id, c->id, sizeof snapshot.id);
    text = snapshot_format(&snapshot);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        resp_commands_say(&commands, "DEL", counters_key(c, key, keys[i], c->id));
    resp_commands_say(&commands, "ZREM", counters_key(c, key, "instances", NULL), c->id);
    if (text)
        resp_commands_say(&commands, "PUBLISH", c->channel, text);
    (void)redis_send(c->commands, &commands, on_published, c);
    resp_commands_free(&commands);
    free(text);
}
