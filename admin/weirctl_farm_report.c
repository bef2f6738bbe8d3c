/*
 * What the keys of a farm come to.
 *
 * Connections and messages are sums. On the state of a backend the instances may disagree, and then each is
 * right for itself: most voices count, of as many the worse, and the reason names one that says otherwise.
 * Operators' words of the farm are in the hash `admin`; they are shown as soon as they are there.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/report_text.h"
#include "admin/weirctl_farm.h"
#include "counters/verdict.h"

#define DIGITS_MAX 18 /* of a number that is believed: sums of them don't overflow soon */
#define FIELD_MAX  320
#define WORD_MAX   256

static json_int_t read_number(const char *text)
{
    size_t size = strspn(text, "0123456789");

    return size && size <= DIGITS_MAX && !text[size] ? (json_int_t)strtoll(text, NULL, 10) : -1;
}

/* What is no number counts nothing. */
static json_int_t number_in(const json_t *hash, const char *field)
{
    json_int_t number = read_number(show_text(hash, field));

    return number > 0 ? number : 0;
}

static json_int_t add(json_int_t a, json_int_t b)
{
    return a > INT64_MAX - b ? INT64_MAX : a + b;
}

/* Over all that have counted, and those that are gone. */
static json_int_t counted(const json_t *keys, const char *field)
{
    json_int_t sum = number_in(json_object_get(keys, "totals"), field);
    json_t *instance;
    size_t i;

    for (i = 0; (instance = json_array_get(json_object_get(keys, "instances"), i)); i++)
        sum = add(sum, number_in(json_object_get(instance, "stats"), field));
    return sum;
}

/* --- words of operators --- */

static json_int_t weight_in(const json_t *admin, const char *name)
{
    char field[FIELD_MAX];
    json_int_t weight;

    (void)snprintf(field, sizeof field, "%s.weight", name);
    weight = read_number(show_text(admin, field));
    return weight <= 1000 ? weight : -1;
}

static const char *word_in(const json_t *admin, const char *name)
{
    const char *word = show_text(admin, name);

    return strcmp(word, "drain") == 0 || strcmp(word, "maint") == 0 ? word : "";
}

void farm_words(const json_t *keys, const char *name, const char **word, json_int_t *weight)
{
    const json_t *admin = json_object_get(keys, "admin");
    char group[WORD_MAX];

    (void)snprintf(group, sizeof group, "%.*s", (int)strcspn(name, "@"), name);
    *word = word_in(admin, name);
    if (!**word)
        *word = word_in(admin, group);
    *weight = weight_in(admin, name);
    if (*weight < 0)
        *weight = weight_in(admin, group);
}

/* --- what an instance thinks of a backend --- */

static json_int_t read_figure(const char *verdict, const char *key)
{
    char text[WORD_MAX];

    return verdict_word(verdict, key, text, sizeof text) ? read_number(text) : -1;
}

/* From the best to the worst. */
static const char *const states[] = { "up", "degraded", "half-open", "init", "ejected", "down" };
static const char *const admins[] = { "ready", "drain", "maint" };
#define STATES (sizeof states / sizeof *states)
#define ADMINS (sizeof admins / sizeof *admins)

static size_t index_of(const char *const *words, size_t n, const char *word)
{
    size_t i = 0;

    while (i < n && strcmp(words[i], word) != 0)
        i++;
    return i;
}

/* Most voices; of as many the last. */
static size_t most(const unsigned *voices, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        if (voices[i] >= voices[best] && voices[i])
            best = i;
    return best;
}

/* A backend in all that is said of it. */
struct judged {
    const json_t *keys;
    const char *name;
    unsigned n, states[STATES], admins[ADMINS];
    size_t state, admin;
    json_int_t connections, limit, since, max, weight, configured; /* limit -1: none */
    char address[WORD_MAX], pools[WORD_MAX], reason[3 * WORD_MAX];
    bool disagreement;
};

static const char *verdict_of(const json_t *instance, const char *name)
{
    return farm_is_alive(instance) ? show_text(json_object_get(instance, "health"), name) : "";
}

static void hear(struct judged *judged, const json_t *instance)
{
    const char *verdict = verdict_of(instance, judged->name);
    json_int_t limit = read_figure(verdict, "limit");
    char text[WORD_MAX];
    size_t state, admin;

    if (farm_is_alive(instance))
        judged->connections =
            add(judged->connections, number_in(json_object_get(instance, "connections"), judged->name));
    verdict_word(verdict, "state", text, sizeof text);
    state = index_of(states, STATES, text);
    if (state == STATES)
        return;
    judged->n++;
    judged->states[state]++;
    verdict_word(verdict, "admin", text, sizeof text);
    admin = index_of(admins, ADMINS, text);
    if (admin < ADMINS)
        judged->admins[admin]++;
    if (limit >= 0 && (judged->limit < 0 || limit < judged->limit))
        judged->limit = limit;
    if (judged->n > 1)
        return;
    judged->max = read_figure(verdict, "max");
    judged->weight = read_figure(verdict, "weight");
    judged->configured = read_figure(verdict, "configured");
    verdict_word(verdict, "address", judged->address, sizeof judged->address);
    verdict_word(verdict, "pools", judged->pools, sizeof judged->pools);
}

/* The reason of one that agrees, and behind it one that does not. */
static void hear_reasons(struct judged *judged, const json_t *instance)
{
    const char *verdict = verdict_of(instance, judged->name);
    char state[WORD_MAX], reason[WORD_MAX];
    json_int_t since = read_figure(verdict, "since");
    size_t index;

    verdict_word(verdict, "state", state, sizeof state);
    verdict_word(verdict, "reason", reason, sizeof reason);
    index = index_of(states, STATES, state);
    if (index == STATES)
        return;
    if (index == judged->state) {
        judged->since = since > judged->since ? since : judged->since;
        if (!judged->disagreement)
            (void)snprintf(judged->reason, sizeof judged->reason, "%s", reason);
    } else if (!judged->disagreement) {
        judged->disagreement = true;
        (void)snprintf(judged->reason, sizeof judged->reason, "%u of %u say otherwise: %s at %s: %s",
                       judged->n - judged->states[judged->state], judged->n, states[index],
                       show_text(instance, "id"), reason);
    }
}

static void judge(struct judged *judged, const json_t *keys, const char *name)
{
    const json_t *instances = json_object_get(keys, "instances");
    json_t *instance;
    size_t i;

    memset(judged, 0, sizeof *judged);
    judged->keys = keys;
    judged->name = name;
    judged->limit = -1;
    for (i = 0; (instance = json_array_get(instances, i)); i++)
        hear(judged, instance);
    judged->state = judged->n ? most(judged->states, STATES) : index_of(states, STATES, "init");
    judged->admin = most(judged->admins, ADMINS);
    for (i = 0; (instance = json_array_get(instances, i)); i++)
        hear_reasons(judged, instance);
    if (!judged->n)
        (void)snprintf(judged->reason, sizeof judged->reason,
                       "no Weir that lives has said what it thinks of it");
}

/* --- backends --- */

static void put_outcomes(json_t *object, const struct judged *judged)
{
    static const char *const outcomes[] = { "delivered", "rejected", "deferred",
                                            "failed",    "aborted",  "unknown" };
    char field[FIELD_MAX];

    for (size_t i = 0; i < sizeof outcomes / sizeof *outcomes; i++) {
        (void)snprintf(field, sizeof field, "%s.%s", judged->name, outcomes[i]);
        json_object_set_new(object, outcomes[i], json_integer(counted(judged->keys, field)));
    }
}

static json_t *backend_object(const struct judged *judged, const char *pool)
{
    const char *word;
    json_int_t weight, own = judged->weight > 0 ? judged->weight : 0;
    json_t *object = json_object();
    const char *admin = admins[judged->admin];

    farm_words(judged->keys, judged->name, &word, &weight);
    json_object_set_new(object, "pool", report_text(pool));
    json_object_set_new(object, "name", report_text(judged->name));
    json_object_set_new(object, "address",
                        report_text(strcmp(judged->address, "none") == 0 ? "" : judged->address));
    json_object_set_new(object, "state", json_string(states[judged->state]));
    json_object_set_new(object, "admin", json_string(*word ? word : admin));
    json_object_set_new(object, "admin_by", *word ? json_string("farm") : json_null());
    json_object_set_new(object, "weight", json_integer(weight >= 0 ? weight : own));
    json_object_set_new(object, "configured_weight",
                        json_integer(judged->configured > 0 ? judged->configured : 0));
    json_object_set_new(object, "weight_ordered", json_boolean(weight >= 0));
    json_object_set_new(object, "connections", json_integer(judged->connections));
    json_object_set_new(object, "farm_connections", json_integer(judged->connections));
    json_object_set_new(object, "idle", json_integer(0));
    json_object_set_new(object, "limit", judged->limit >= 0 ? json_integer(judged->limit) : json_null());
    json_object_set_new(object, "max_connections", json_integer(judged->max > 0 ? judged->max : 0));
    json_object_set_new(object, "reason", report_text(judged->reason));
    json_object_set_new(object, "since", json_integer(judged->since / 1000));
    json_object_set_new(object, "instances", json_integer(judged->n));
    json_object_set_new(object, "disagreement", json_boolean(judged->disagreement));
    put_outcomes(object, judged);
    return object;
}

static int by_pool_and_name(const void *a, const void *b)
{
    const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    int order = strcmp(show_text(x, "pool"), show_text(y, "pool"));

    return order ? order : strcmp(show_text(x, "name"), show_text(y, "name"));
}

static json_t *sorted(json_t *array)
{
    size_t n = json_array_size(array);
    json_t **items = calloc(n ? n : 1, sizeof(json_t *)), *result = json_array();

    for (size_t i = 0; items && i < n; i++)
        items[i] = json_array_get(array, i);
    if (items)
        qsort(items, n, sizeof *items, by_pool_and_name);
    for (size_t i = 0; items && i < n; i++)
        json_array_append(result, items[i]);
    free(items);
    json_decref(array);
    return result;
}

static void add_names(json_t *names, json_t *hash)
{
    for (void *at = json_object_iter(hash); at; at = json_object_iter_next(hash, at))
        if (strlen(json_object_iter_key(at)) < WORD_MAX)
            json_object_set_new(names, json_object_iter_key(at), json_true());
}

/* All that some living instance has. */
static json_t *names_of(const json_t *keys)
{
    json_t *names = json_object(), *instance;
    size_t i;

    for (i = 0; (instance = json_array_get(json_object_get(keys, "instances"), i)); i++) {
        if (!farm_is_alive(instance))
            continue;
        add_names(names, json_object_get(instance, "connections"));
        add_names(names, json_object_get(instance, "health"));
    }
    return names;
}

/* Once in each of its pools. */
static void add_backend(json_t *array, const json_t *keys, const char *name)
{
    struct judged judged;
    char *rest = NULL, *pool;

    judge(&judged, keys, name);
    pool = strtok_r(judged.pools, ",", &rest);
    do
        json_array_append_new(array, backend_object(&judged, pool ? pool : ""));
    while (pool && (pool = strtok_r(NULL, ",", &rest)));
}

json_t *farm_backends(const json_t *keys)
{
    json_t *names = names_of(keys), *array = json_array();

    for (void *at = json_object_iter(names); at; at = json_object_iter_next(names, at))
        add_backend(array, keys, json_object_iter_key(at));
    json_decref(names);
    return sorted(array);
}

/* --- instances --- */

/* Messages that its backends have taken. */
static json_int_t delivered_of(json_t *stats)
{
    static const char suffix[] = ".delivered";
    json_int_t sum = 0;

    for (void *at = json_object_iter(stats); at; at = json_object_iter_next(stats, at)) {
        const char *field = json_object_iter_key(at);
        size_t size = strlen(field);

        if (size > sizeof suffix - 1 && strcmp(field + size - (sizeof suffix - 1), suffix) == 0)
            sum = add(sum, number_in(stats, field));
    }
    return sum;
}

static json_t *instance_object(const json_t *keys_of, json_int_t now)
{
    const json_t *own = json_object_get(keys_of, "instance");
    json_t *stats = json_object_get(keys_of, "stats");
    json_int_t started = number_in(own, "started") / 1000;
    bool alive = farm_is_alive(keys_of);
    json_t *object = json_object();

    json_object_set_new(object, "id", json_string(show_text(keys_of, "id")));
    json_object_set_new(object, "alive", json_boolean(alive));
    json_object_set_new(object, "last_seen", json_integer(show_number(keys_of, "last") / 1000));
    json_object_set_new(object, "hostname", json_string(show_text(own, "host")));
    json_object_set_new(object, "version", json_string(show_text(own, "version")));
    json_object_set_new(object, "pid", json_integer(number_in(own, "pid")));
    json_object_set_new(object, "started", json_integer(started));
    json_object_set_new(object, "uptime",
                        json_integer(alive && started && now > started ? now - started : 0));
    json_object_set_new(object, "sessions", json_integer(number_in(own, "sessions")));
    json_object_set_new(object, "queued", json_integer(number_in(own, "queued")));
    json_object_set_new(object, "sessions_total", json_integer(number_in(stats, "sessions")));
    json_object_set_new(object, "delivered", json_integer(delivered_of(stats)));
    return object;
}

json_t *farm_instances(const json_t *keys)
{
    json_t *array = json_array(), *instance;
    size_t i;

    for (i = 0; (instance = json_array_get(json_object_get(keys, "instances"), i)); i++)
        json_array_append_new(array, instance_object(instance, (json_int_t)time(NULL)));
    return array;
}

/* --- the whole --- */

static void add_to(json_t *object, const char *key, json_int_t n)
{
    json_object_set_new(object, key, json_integer(add(show_number(object, key), n)));
}

static bool is_usable(const json_t *backend)
{
    const char *state = show_text(backend, "state");

    return strcmp(show_text(backend, "admin"), "ready") == 0 && show_number(backend, "weight") > 0 &&
           (strcmp(state, "up") == 0 || strcmp(state, "degraded") == 0 || strcmp(state, "half-open") == 0);
}

/* Sessions that wait for a place, at every Weir. */
static json_int_t queued_in(const json_t *keys, const char *pool)
{
    char field[FIELD_MAX];
    json_int_t sum = 0;
    json_t *instance;
    size_t i;

    (void)snprintf(field, sizeof field, "queued:%s", pool);
    for (i = 0; (instance = json_array_get(json_object_get(keys, "instances"), i)); i++)
        sum = add(sum, number_in(json_object_get(instance, "instance"), field));
    return sum;
}

/* They are sorted by pool. */
static json_t *pools_of(const json_t *keys, const json_t *backends, bool *ready)
{
    json_t *array = json_array(), *backend, *pool = NULL;
    size_t i;

    *ready = false;
    for (i = 0; (backend = json_array_get(backends, i)); i++) {
        const char *name = show_text(backend, "pool");

        if (!*name)
            continue; /* only connections to it are left */
        if (!pool || strcmp(show_text(pool, "name"), name) != 0) {
            pool = json_object();
            json_object_set_new(pool, "name", json_string(name));
            json_object_set_new(pool, "queued", json_integer(queued_in(keys, name)));
            json_array_append_new(array, pool);
        }
        add_to(pool, "backends", 1);
        add_to(pool, "usable", is_usable(backend));
        add_to(pool, "connections", show_number(backend, "connections"));
        *ready |= is_usable(backend);
    }
    return array;
}

json_t *farm_status(const json_t *keys, const struct farm_link *link)
{
    json_t *object = json_object(), *backends = farm_backends(keys), *instances = farm_instances(keys);
    json_t *redis = json_object(), *instance;
    bool ready;
    size_t i;

    json_object_set_new(object, "farm", json_string(link->farm));
    json_object_set_new(object, "version", json_string(""));
    json_object_set_new(object, "pid", json_integer(0)); /* there are several */
    for (i = 0; (instance = json_array_get(instances, i)); i++) {
        bool alive = json_is_true(json_object_get(instance, "alive"));

        add_to(object, "instances", alive);
        add_to(object, "gone", !alive);
        add_to(object, "sessions", show_number(instance, "sessions"));
        add_to(object, "queued", show_number(instance, "queued"));
        if (alive && show_number(instance, "uptime") >= show_number(object, "uptime")) {
            json_object_set(object, "uptime", json_object_get(instance, "uptime"));
            json_object_set(object, "version", json_object_get(instance, "version"));
        }
    }
    if (!json_object_get(object, "uptime"))
        json_object_set_new(object, "uptime", json_integer(0));
    json_object_set_new(object, "sessions_total", json_integer(counted(keys, "sessions")));
    json_object_set_new(object, "delivered", json_integer(delivered_of(json_object_get(keys, "totals"))));
    for (i = 0; (instance = json_array_get(instances, i)); i++)
        add_to(object, "delivered", show_number(instance, "delivered"));
    json_object_set_new(object, "pools", pools_of(keys, backends, &ready));
    json_object_set_new(object, "ready", json_boolean(ready));
    json_object_set_new(object, "draining", json_false());
    json_object_set_new(redis, "state", json_string("shared"));
    json_object_set_new(redis, "server", json_string(link->server));
    json_object_set(redis, "instances", json_object_get(object, "instances"));
    json_object_set_new(object, "redis", redis);
    json_decref(backends);
    json_decref(instances);
    return object;
}
