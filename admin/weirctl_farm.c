#include "admin/weirctl_farm.h"

#include <ev.h>
#include <stdlib.h>
#include <string.h>

#include "admin/report_text.h"
#include "net/clock.h"
#include "net/tls.h"

const char *farm_key(const struct farm_link *link, char key[FARM_KEY_MAX], const char *what, const char *id)
{
    (void)snprintf(key, FARM_KEY_MAX, "weir:{%s}:%s%s%s", link->farm, what, id ? ":" : "", id ? id : "");
    return key;
}

/* --- the connection --- */

static void on_state(void *arg, enum redis_state state, const char *reason)
{
    struct farm_link *link = arg;

    link->was_there |= state == REDIS_READY;
    (void)snprintf(link->reason, sizeof link->reason, "%s", reason);
}

static void on_time(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)events;
    (void)timer;
    ev_break(loop, EVBREAK_ONE);
}

static void complain(void *arg, enum tls_culprit culprit, size_t index, const char *text)
{
    struct client *client = arg;

    (void)culprit;
    (void)index;
    (void)snprintf(client->error, sizeof client->error, "--ca: %s", text);
}

static bool fail(struct client *client, const char *why)
{
    (void)snprintf(client->error, sizeof client->error, "%s", why);
    return false;
}

static bool connect_link(struct client *client)
{
    struct farm_link *link = client->farm;
    char key[FARM_KEY_MAX];
    const struct redis_settings settings = { .url = &link->url,
                                             .tls = link->tls,
                                             .name = "weirctl",
                                             .key = farm_key(link, key, "instances", NULL),
                                             .answer_limit = (uint32_t)client->timeout / 2 };

    link->was_there = false;
    link->reason[0] = '\0';
    link->redis =
        redis_open(link->loop, &settings, &(struct redis_handler){ .state = on_state, .arg = link });
    return link->redis || fail(client, "out of memory");
}

bool farm_open(struct client *client, const struct redis_url *url, const char *farm, const char *ca)
{
    struct farm_link *link = client->farm = calloc(1, sizeof *link);

    if (!link)
        return fail(client, "out of memory");
    (void)snprintf(link->farm, sizeof link->farm, "%s", farm);
    link->url = *url;
    client->path = redis_url_show(url, link->server);
    link->loop = ev_loop_new(EVFLAG_AUTO);
    if (!link->loop)
        return fail(client, "out of memory");
    if (url->tls)
        link->tls =
            tls_client_create(&(struct tls_client_settings){ .verify = true, .ca = ca }, complain, client);
    return !url->tls || link->tls;
}

void farm_close(struct client *client)
{
    struct farm_link *link = client->farm;

    if (!link)
        return;
    redis_free(&link->redis);
    redis_url_wipe(&link->url);
    if (link->loop)
        ev_loop_destroy(link->loop);
    tls_client_free(&link->tls);
    free(link);
    client->farm = NULL;
}

/* What the loop is turned for. */
static bool is_there(const struct farm_link *link)
{
    return redis_state(link->redis) == REDIS_READY;
}

/* Also on the way to another node: what was moved there will be answered. */
static bool is_settled(const struct farm_link *link)
{
    return redis_outstanding(link->redis) == 0;
}

/* The first attempt that fails is the answer; later (the live view) it may come back meanwhile. */
static bool turn(struct client *client, bool (*done)(const struct farm_link *link))
{
    struct farm_link *link = client->farm;
    int64_t deadline = clock_milliseconds() + client->timeout;
    ev_timer timer;

    while (!done(link)) {
        int64_t left = deadline - clock_milliseconds();

        if (client->stop && *client->stop)
            return fail(client, "interrupted");
        if (redis_state(link->redis) == REDIS_DOWN && !link->was_there)
            return fail(client, link->reason);
        if (left <= 0)
            return fail(client, *link->reason ? link->reason : "no answer in time");
        ev_timer_init(&timer, on_time, (double)left / 1000, 0.);
        ev_now_update(link->loop);
        ev_timer_start(link->loop, &timer);
        ev_run(link->loop, EVRUN_ONCE);
        ev_timer_stop(link->loop, &timer);
    }
    return true;
}

bool farm_send(struct client *client, const struct resp_commands *commands, redis_callback *callback,
               void *arg)
{
    struct farm_link *link = client->farm;

    if ((!link->redis && !connect_link(client)) || !turn(client, is_there))
        return false;
    return redis_send(link->redis, commands, callback, arg) || fail(client, "the connection was lost");
}

/* Whoever waits for an answer waits no longer than this, so no callback may come behind it. */
bool farm_settle(struct client *client)
{
    struct farm_link *link = client->farm;

    if (link->redis && turn(client, is_settled))
        return redis_state(link->redis) != REDIS_DOWN || fail(client, link->reason);
    redis_free(&link->redis);
    return false;
}

/* --- answers --- */

static json_t *refuse(const char *error)
{
    json_t *answer = json_pack("{s:b}", "ok", 0);

    json_object_set_new(answer, "error", report_text(error));
    return answer;
}

static json_t *answer_of(json_t *result)
{
    return json_pack("{s:b, s:o}", "ok", 1, "result", result);
}

/* --- words --- */

/* `name` is the backend's, or the one that it and others are given by: relay for relay@10.0.0.11. */
static bool is_named(const char *backend, const char *name)
{
    size_t size = strlen(name);

    return strncmp(backend, name, size) == 0 && (backend[size] == '\0' || backend[size] == '@');
}

/* The backends that a name stands for, each once. */
static json_t *named(const json_t *backends, const char *name)
{
    json_t *found = json_object(), *backend;
    size_t i;

    for (i = 0; (backend = json_array_get(backends, i)); i++)
        if (is_named(show_text(backend, "name"), name))
            json_object_set(found, show_text(backend, "name"), backend);
    return found;
}

struct outcome {
    char error[256]; /* "": it is done */
};

static void on_said(void *arg, const struct resp *reply, const char *error)
{
    struct outcome *outcome = arg;

    for (size_t i = 0; reply && reply->type == RESP_ARRAY && i < reply->n; i++) {
        if (reply->elements[i].type == RESP_ERROR) {
            reply = &reply->elements[i];
            break;
        }
    }
    if (error)
        (void)snprintf(outcome->error, sizeof outcome->error, "%s: whether it was done is not known", error);
    else if (reply->type == RESP_ERROR)
        (void)snprintf(outcome->error, sizeof outcome->error, "%s", reply->text);
}

static void forget(struct resp_commands *commands, const char *key, const char *name, const char *suffix)
{
    char field[FARM_KEY_MAX];

    (void)snprintf(field, sizeof field, "%s%s", name, suffix);
    resp_commands_say(commands, "HDEL", key, field);
}

/* Taken back: also what was said of each of a group by itself. */
static void forget_all(struct resp_commands *commands, const char *key, const char *name, json_t *found,
                       const char *suffix)
{
    forget(commands, key, name, suffix);
    for (void *at = json_object_iter(found); at; at = json_object_iter_next(found, at))
        if (strcmp(json_object_iter_key(at), name) != 0)
            forget(commands, key, json_object_iter_key(at), suffix);
}

static void say(struct resp_commands *commands, const char *key, const json_t *request, json_t *found)
{
    const char *command = show_text(request, "command"), *name = show_text(request, "name");
    const json_t *weight = json_object_get(request, "weight");
    char field[FARM_KEY_MAX], number[24];

    if (strcmp(command, "ready") == 0) {
        forget_all(commands, key, name, found, "");
    } else if (!weight) {
        resp_commands_say(commands, "HSET", key, name, command);
    } else if (json_is_string(weight)) {
        forget_all(commands, key, name, found, ".weight");
    } else {
        (void)snprintf(field, sizeof field, "%s.weight", name);
        (void)snprintf(number, sizeof number, "%lld", (long long)json_integer_value(weight));
        resp_commands_say(commands, "HSET", key, field, number);
    }
}

/* One that is drained with its whole group can't be taken back by itself: each has one word, the group's. */
static bool is_held_by_group(const json_t *keys, const json_t *request, char *error, size_t size)
{
    const char *name = show_text(request, "name"), *sign = strchr(name, '@');
    bool weight = json_is_string(json_object_get(request, "weight"));
    char field[FARM_KEY_MAX];

    if (!sign || (!weight && strcmp(show_text(request, "command"), "ready") != 0))
        return false;
    (void)snprintf(field, sizeof field, "%.*s%s", (int)(sign - name), name, weight ? ".weight" : "");
    if (!*show_text(json_object_get(keys, "admin"), field))
        return false;
    (void)snprintf(error, size, "that was said of all of \"%.*s\": take it back there", (int)(sign - name),
                   name);
    return true;
}

static json_t *orders(const json_t *keys, json_t *found)
{
    json_t *array = json_array();

    for (void *at = json_object_iter(found); at; at = json_object_iter_next(found, at)) {
        const json_t *backend = json_object_iter_value(at);
        const char *name = json_object_iter_key(at);
        json_t *order = json_object();
        json_int_t weight;
        const char *word;

        farm_words(keys, name, &word, &weight);
        json_object_set_new(order, "name", json_string(name));
        json_object_set_new(order, "admin", json_string(*word ? word : "ready"));
        json_object_set_new(order, "admin_by", *word ? json_string("farm") : json_null());
        json_object_set_new(order, "weight",
                            json_integer(weight >= 0 ? weight : show_number(backend, "configured_weight")));
        json_object_set(order, "connections", json_object_get(backend, "connections"));
        json_array_append_new(array, order);
    }
    return array;
}

static json_t *execute_order(struct client *client, const json_t *keys, const json_t *request)
{
    json_t *backends = farm_backends(keys), *found = named(backends, show_text(request, "name"));
    json_t *answer = NULL, *after = NULL;
    struct resp_commands commands = { 0 };
    struct outcome outcome = { "" };
    char key[FARM_KEY_MAX], channel[FARM_KEY_MAX];

    if (json_object_size(found) == 0)
        (void)snprintf(outcome.error, sizeof outcome.error,
                       "there is no backend \"%s\" at any Weir of this farm", show_text(request, "name"));
    else if (!is_held_by_group(keys, request, outcome.error, sizeof outcome.error)) {
        say(&commands, farm_key(client->farm, key, "admin", NULL), request, found);
        resp_commands_say(&commands, "PUBLISH", farm_key(client->farm, channel, "events", NULL),
                          "{\"admin\":1}");
        if (farm_send(client, &commands, on_said, &outcome) && farm_settle(client) && !*outcome.error)
            after = farm_read(client);
    }
    if (*outcome.error)
        answer = refuse(outcome.error);
    else if (after)
        answer = answer_of(orders(after, found));
    resp_commands_free(&commands);
    json_decref(after);
    json_decref(found);
    json_decref(backends);
    return answer;
}

/* --- commands --- */

static json_t *version_of(const json_t *keys)
{
    json_t *instance, *versions = json_object(), *result = NULL;
    char text[256] = "";
    size_t i, used = 0;

    for (i = 0; (instance = json_array_get(json_object_get(keys, "instances"), i)); i++)
        if (farm_is_alive(instance))
            json_object_set_new(versions, show_text(json_object_get(instance, "instance"), "version"),
                                json_true());
    for (void *at = json_object_iter(versions); at && used < sizeof text;
         at = json_object_iter_next(versions, at))
        used += (size_t)snprintf(text + used, sizeof text - used, used ? ", %.32s" : "%.32s",
                                 json_object_iter_key(at));
    result = json_pack("{s:o}", "version", report_text(text));
    json_decref(versions);
    return result;
}

static json_t *execute(struct client *client, const json_t *keys, const json_t *request)
{
    const char *command = show_text(request, "command");
    const char *error = show_text(keys, "error");

    if (*error)
        return refuse(error);
    if (strcmp(command, "sessions") == 0)
        return refuse("which sessions there are is not in Redis: ask each Weir over its socket");
    if (strcmp(command, "reload") == 0)
        return refuse("each Weir reads its own file: ask each over its socket");
    if (json_array_size(json_object_get(keys, "instances")) == 0)
        return refuse("no Weir of this farm has ever been in this Redis");
    if (strcmp(command, "status") == 0)
        return answer_of(farm_status(keys, client->farm));
    if (strcmp(command, "backends") == 0)
        return answer_of(farm_backends(keys));
    if (strcmp(command, "instances") == 0)
        return answer_of(farm_instances(keys));
    if (strcmp(command, "version") == 0)
        return answer_of(version_of(keys));
    return execute_order(client, keys, request);
}

json_t *farm_ask(struct client *client, json_t *request)
{
    json_t *keys, *answer = NULL;

    client->error[0] = '\0';
    keys = farm_read(client);
    if (keys)
        answer = execute(client, keys, request);
    json_decref(keys);
    json_decref(request);
    return answer;
}
