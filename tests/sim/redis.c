#include "tests/sim/redis.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counters/redis.h"
#include "tests/sim/calendar.h"
#include "tests/sim/draw.h"
#include "tests/sim/workload.h"

#define WORDS_MAX 4096

/* A hash, or a sorted set with its scores as values. */
struct pair {
    char *field, *value;
};
struct key {
    char *name;
    size_t n, size;
    struct pair *pairs;
    double expires; /* 0: never */
};

/* What was published, on its way to all who listen. */
struct delivery {
    struct event event;
    struct delivery *next, *previous;
    size_t size;
    char text[];
};

static struct {
    bool up;
    struct stream chance;
    void *keys; /* tsearch() */
    struct delivery *deliveries;
    struct redis *clients;
} server;

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

/* --- what it holds ----------------------------------------------------------------------------------------
 */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct key *)a)->name, ((const struct key *)b)->name);
}

static void empty(struct key *key)
{
    for (size_t i = 0; i < key->n; i++) {
        free(key->pairs[i].field);
        free(key->pairs[i].value);
    }
    key->n = 0;
    key->expires = 0;
}

static void key_free(void *memory)
{
    struct key *key = memory;

    empty(key);
    free(key->pairs);
    free(key->name);
    free(key);
}

static struct key *find(const char *name)
{
    struct key wanted = { .name = (char *)(uintptr_t)name }, **found = tfind(&wanted, &server.keys, by_name);
    struct key *key;

    if (!found) {
        key = must(calloc(1, sizeof *key));
        key->name = must(strdup(name));
        found = must(tsearch(key, &server.keys, by_name));
    }
    key = *found;
    if (key->expires > 0 && key->expires <= calendar_now())
        empty(key);
    return key;
}

static size_t place_of(const struct key *key, const char *field)
{
    size_t i = 0;

    while (i < key->n && strcmp(key->pairs[i].field, field) != 0)
        i++;
    return i;
}

static void set(struct key *key, const char *field, const char *value)
{
    size_t i = place_of(key, field);

    if (i == key->n) {
        if (key->n == key->size) {
            key->size = key->size ? 2 * key->size : 16;
            key->pairs = must(realloc(key->pairs, key->size * sizeof *key->pairs));
        }
        key->pairs[key->n++] = (struct pair){ must(strdup(field)), must(strdup(value)) };
        return;
    }
    free(key->pairs[i].value);
    key->pairs[i].value = must(strdup(value));
}

static void take_out(struct key *key, const char *field)
{
    size_t i = place_of(key, field);

    if (i == key->n)
        return;
    free(key->pairs[i].field);
    free(key->pairs[i].value);
    key->pairs[i] = key->pairs[--key->n];
}

/* --- what it answers --------------------------------------------------------------------------------------
 */

static struct resp text_of(const char *text)
{
    return (struct resp){ .type = RESP_TEXT, .text = must(strdup(text)), .size = strlen(text) };
}

static struct resp number_of(int64_t number)
{
    return (struct resp){ .type = RESP_INTEGER, .integer = number };
}

static struct resp array_of(size_t n)
{
    return (struct resp){ .type = RESP_ARRAY, .n = n, .elements = must(calloc(n + 1, sizeof(struct resp))) };
}

static struct resp *element(const struct resp *array, size_t i)
{
    return (struct resp *)(uintptr_t)&array->elements[i];
}

static void resp_free(const struct resp *resp)
{
    for (size_t i = 0; i < resp->n; i++)
        resp_free(&resp->elements[i]);
    free((void *)(uintptr_t)resp->elements);
    free((void *)(uintptr_t)resp->text);
}

static struct resp fields_of(const struct key *key, bool values)
{
    struct resp array = array_of(values ? 2 * key->n : key->n);

    for (size_t i = 0; i < key->n; i++) {
        *element(&array, values ? 2 * i : i) = text_of(key->pairs[i].field);
        if (values)
            *element(&array, 2 * i + 1) = text_of(key->pairs[i].value);
    }
    return array;
}

/* --- the channel ------------------------------------------------------------------------------------------
 */

static void deliver(struct event *event);

static void delivery_free(struct delivery *delivery)
{
    calendar_cancel(&delivery->event);
    if (delivery->next)
        delivery->next->previous = delivery->previous;
    if (delivery->previous)
        delivery->previous->next = delivery->next;
    else
        server.deliveries = delivery->next;
    free(delivery);
}

static void publish(const char *text)
{
    size_t size = strlen(text);
    struct delivery *delivery = must(calloc(1, sizeof *delivery + size + 1));

    memcpy(delivery->text, text, size + 1);
    delivery->size = size;
    delivery->event.happen = deliver;
    delivery->next = server.deliveries;
    if (delivery->next)
        delivery->next->previous = delivery;
    server.deliveries = delivery;
    calendar_set(&delivery->event, calendar_now() + WORKLOAD_REDIS_WAY);
}

/* --- what it is asked -------------------------------------------------------------------------------------
 */

static struct resp execute(char *const *words, size_t n)
{
    const char *verb = words[0];

    if (strcmp(verb, "HSET") == 0) {
        for (size_t i = 2; i + 1 < n; i += 2)
            set(find(words[1]), words[i], words[i + 1]);
    } else if (strcmp(verb, "DEL") == 0) {
        for (size_t i = 1; i < n; i++)
            empty(find(words[i]));
    } else if (strcmp(verb, "PEXPIRE") == 0) {
        find(words[1])->expires = calendar_now() + strtod(words[2], NULL) / 1000;
    } else if (strcmp(verb, "ZADD") == 0) {
        set(find(words[1]), words[3], words[2]);
    } else if (strcmp(verb, "ZREM") == 0) {
        take_out(find(words[1]), words[2]);
    } else if (strcmp(verb, "PUBLISH") == 0) {
        publish(words[2]);
    } else if (strcmp(verb, "HGETALL") == 0) {
        return fields_of(find(words[1]), true);
    } else if (strcmp(verb, "ZRANGE") == 0) {
        return fields_of(find(words[1]), false);
    } else if (strcmp(verb, "EXISTS") == 0) {
        return number_of(find(words[1])->n > 0);
    } else if (strcmp(verb, "EVAL") != 0) { /* statistics, which nobody reads here */
        fprintf(stderr, "sim: Redis was told %s, which it does not know\n", verb);
        abort();
    }
    return number_of(1);
}

/* The next command of what was sent; its words end with NULs in place of the CRs. Returns what is behind it.
 */
static char *next_command(char *octets, char **words, size_t *n)
{
    char *end;

    *n = strtoul(octets + 1, &end, 10); /* *3\r\n */
    if (*n > WORDS_MAX)
        abort();
    octets = end + 2;
    for (size_t i = 0; i < *n; i++) {
        size_t size = strtoul(octets + 1, &end, 10); /* $4\r\nHSET\r\n */

        words[i] = end + 2;
        words[i][size] = '\0';
        octets = words[i] + size + 2;
    }
    return octets;
}

static struct resp execute_all(char *octets, size_t n_commands)
{
    static char *words[WORDS_MAX];
    struct resp all = n_commands > 1 ? array_of(n_commands) : (struct resp){ 0 };
    size_t n;

    for (size_t i = 0; i < n_commands; i++) {
        struct resp one;

        octets = next_command(octets, words, &n);
        one = execute(words, n);
        if (n_commands == 1)
            return one;
        *element(&all, i) = one;
    }
    return all;
}

/* --- connections: counters/redis.h ------------------------------------------------------------------------
 */

/* What was sent, and its answer. */
struct exchange {
    struct event event;
    struct exchange *next, *previous;
    struct redis *redis;
    redis_callback *callback;
    void *arg;
    struct resp reply;
    bool carried_out;
    size_t n_commands;
    char octets[];
};

struct redis {
    struct event event; /* connects */
    struct redis *next, *previous;
    struct redis_handler handler;
    bool listens;
    enum redis_state state;
    struct exchange *first, *last;
    size_t n_exchanges;
    unsigned attempts;
};

static void deliver(struct event *event)
{
    struct delivery *delivery = CALENDAR_OF(event, struct delivery, event);

    for (struct redis *redis = server.clients; redis; redis = redis->next)
        if (redis->listens && redis->state == REDIS_READY)
            redis->handler.message(redis->handler.arg, delivery->text, delivery->size);
    delivery_free(delivery);
}

static void exchange_free(struct exchange *exchange)
{
    struct redis *redis = exchange->redis;

    calendar_cancel(&exchange->event);
    if (exchange->next)
        exchange->next->previous = exchange->previous;
    else
        redis->last = exchange->previous;
    if (exchange->previous)
        exchange->previous->next = exchange->next;
    else
        redis->first = exchange->next;
    redis->n_exchanges--;
    resp_free(&exchange->reply);
    free(exchange);
}

static void on_exchange(struct event *event)
{
    struct exchange *exchange = CALENDAR_OF(event, struct exchange, event);

    if (!exchange->carried_out) {
        exchange->carried_out = true;
        exchange->reply = execute_all(exchange->octets, exchange->n_commands);
        calendar_set(event, calendar_now() + WORKLOAD_REDIS_WAY);
        return;
    }
    if (exchange->callback)
        exchange->callback(exchange->arg, &exchange->reply, NULL);
    exchange_free(exchange);
}

bool redis_send(struct redis *redis, const struct resp_commands *commands, redis_callback *callback,
                void *arg)
{
    struct exchange *exchange;

    if (redis->state != REDIS_READY || commands->failed || !commands->n)
        return false;
    exchange = must(calloc(1, sizeof *exchange + commands->size));
    memcpy(exchange->octets, commands->octets, commands->size);
    exchange->n_commands = commands->n;
    exchange->redis = redis;
    exchange->callback = callback;
    exchange->arg = arg;
    exchange->event.happen = on_exchange;
    exchange->previous = redis->last;
    if (redis->last)
        redis->last->next = exchange;
    else
        redis->first = exchange;
    redis->last = exchange;
    redis->n_exchanges++;
    calendar_set(&exchange->event, calendar_now() + WORKLOAD_REDIS_WAY);
    return true;
}

/* The product's: 100 ms, 200 ms … 5 s, ± 50 %. */
static void try_later(struct redis *redis)
{
    double wait = ldexp(0.1, redis->attempts < 6 ? (int)redis->attempts : 6);

    redis->attempts++;
    calendar_set(&redis->event, calendar_now() + (wait < 5 ? wait : 5) * (0.5 + draw_even(&server.chance)));
}

static void set_state(struct redis *redis, enum redis_state state, const char *reason)
{
    redis->state = state;
    redis->handler.state(redis->handler.arg, state, reason);
}

static void on_attempt(struct event *event)
{
    struct redis *redis = CALENDAR_OF(event, struct redis, event);

    if (server.up) {
        redis->attempts = 0;
        set_state(redis, REDIS_READY, "");
    } else {
        try_later(redis);
    }
}

static void lose(struct redis *redis)
{
    if (redis->state != REDIS_READY)
        return;
    redis->state = REDIS_DOWN;
    while (redis->first) {
        struct exchange *exchange = redis->first;

        if (exchange->callback)
            exchange->callback(exchange->arg, NULL, "the connection is lost");
        exchange_free(exchange);
    }
    set_state(redis, REDIS_DOWN, "the connection is lost");
}

struct redis *redis_open(struct ev_loop *loop, const struct redis_settings *settings,
                         const struct redis_handler *handler)
{
    struct redis *redis = must(calloc(1, sizeof *redis));

    (void)loop;
    redis->handler = *handler;
    redis->listens = settings->channel != NULL;
    redis->event.happen = on_attempt;
    redis->next = server.clients;
    if (redis->next)
        redis->next->previous = redis;
    server.clients = redis;
    calendar_set(&redis->event, calendar_now() + WORKLOAD_REDIS_WAY);
    return redis;
}

void redis_free(struct redis **held)
{
    struct redis *redis = *held;

    *held = NULL;
    if (!redis)
        return;
    calendar_cancel(&redis->event);
    while (redis->first)
        exchange_free(redis->first);
    if (redis->next)
        redis->next->previous = redis->previous;
    if (redis->previous)
        redis->previous->next = redis->next;
    else
        server.clients = redis->next;
    free(redis);
}

enum redis_state redis_state(const struct redis *redis)
{
    return redis->state;
}

const char *redis_server(const struct redis *redis)
{
    (void)redis;
    return "redis.sim:6379";
}

size_t redis_outstanding(const struct redis *redis)
{
    return redis->n_exchanges;
}

/* --- the server -------------------------------------------------------------------------------------------
 */

void redis_server_open(uint64_t seed)
{
    server.up = true;
    server.chance = stream_of(seed, 5);
}

void redis_server_stop(void)
{
    server.up = false;
    while (server.deliveries)
        delivery_free(server.deliveries);
    for (struct redis *redis = server.clients; redis; redis = redis->next) {
        lose(redis);
        try_later(redis);
    }
}

void redis_server_start(void)
{
    server.up = true;
}

void redis_server_sever(const void *arg)
{
    for (struct redis *redis = server.clients; redis; redis = redis->next) {
        if (redis->handler.arg != arg)
            continue;
        calendar_cancel(&redis->event);
        lose(redis);
    }
}

void redis_server_close(void)
{
    while (server.deliveries)
        delivery_free(server.deliveries);
    tdestroy(server.keys, key_free);
    server.keys = NULL;
}
