#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/report_text.h"
#include "admin/weirctl_farm.h"
#include "counters/snapshot.h"

#define INSTANCES_MAX 1024

/* A hash as an object; {} where there is none, or something else stands in its place. */
static json_t *hash_of(const struct resp *reply)
{
    json_t *object = json_object();

    if (reply->type != RESP_ARRAY || reply->n % 2)
        return object;
    for (size_t i = 0; i < reply->n; i += 2) {
        const struct resp *field = &reply->elements[i], *value = &reply->elements[i + 1];

        if (field->type == RESP_TEXT && value->type == RESP_TEXT && strlen(field->text) == field->size)
            json_object_set_new(object, field->text, report_text(value->text)); /* not UTF-8: left out */
    }
    return object;
}

static void note_error(json_t *keys, const struct resp *reply)
{
    if (reply->type == RESP_ERROR)
        json_object_set_new(keys, "error", report_text(reply->text));
}

/* --- one instance --- */

struct one {
    json_t *keys, *instance;
};

static void on_instance(void *arg, const struct resp *reply, const char *error)
{
    static const char *const names[] = { "instance", "connections", "health", "stats" };
    struct one *one = arg;

    if (reply)
        note_error(one->keys, reply);
    for (size_t i = 0; !error && reply->type == RESP_ARRAY && i < reply->n && i < 4; i++)
        json_object_set_new(one->instance, names[i], hash_of(&reply->elements[i]));
}

static bool ask_instance(struct client *client, struct one *one)
{
    static const char *const names[] = { "instance", "connections", "health", "stats" };
    struct resp_commands commands = { 0 };
    char key[FARM_KEY_MAX];
    bool sent;

    for (size_t i = 0; i < 4; i++)
        resp_commands_say(&commands, "HGETALL",
                          farm_key(client->farm, key, names[i], show_text(one->instance, "id")));
    sent = farm_send(client, &commands, on_instance, one);
    resp_commands_free(&commands);
    return sent;
}

/* --- the whole --- */

static json_t *find(const json_t *instances, const char *id)
{
    json_t *instance;
    size_t i;

    for (i = 0; (instance = json_array_get(instances, i)); i++)
        if (strcmp(show_text(instance, "id"), id) == 0)
            return instance;
    return NULL;
}

/* A sorted set with its scores: an id, a time, an id … */
static void add_instances(json_t *instances, const struct resp *reply)
{
    if (reply->type != RESP_ARRAY || reply->n % 2)
        return;
    for (size_t i = 0; i < reply->n && json_array_size(instances) < INSTANCES_MAX; i += 2) {
        const struct resp *id = &reply->elements[i], *last = &reply->elements[i + 1];
        double time = last->type == RESP_TEXT ? strtod(last->text, NULL) : 0;
        json_t *instance;

        if (id->type != RESP_TEXT || !snapshot_id_valid(id->text, id->size) || find(instances, id->text))
            continue;
        instance = json_object();
        json_object_set_new(instance, "id", json_string(id->text));
        json_object_set_new(instance, "last", json_integer(time > 0 && time < 1e15 ? (json_int_t)time : 0));
        json_array_append_new(instances, instance);
    }
}

static void on_whole(void *arg, const struct resp *reply, const char *error)
{
    json_t *keys = arg, *instances = json_object_get(keys, "instances");

    if (error)
        return;
    note_error(keys, reply);
    if (reply->type != RESP_ARRAY || reply->n != 4)
        return;
    for (size_t i = 0; i < reply->n; i++)
        note_error(keys, &reply->elements[i]);
    add_instances(instances, &reply->elements[0]);
    add_instances(instances, &reply->elements[1]);
    json_object_set_new(keys, "admin", hash_of(&reply->elements[2]));
    json_object_set_new(keys, "totals", hash_of(&reply->elements[3]));
}

static bool ask_whole(struct client *client, json_t *keys)
{
    struct resp_commands commands = { 0 };
    char key[FARM_KEY_MAX];
    bool sent;

    resp_commands_say(&commands, "ZRANGE", farm_key(client->farm, key, "instances", NULL), "0", "-1",
                      "WITHSCORES");
    resp_commands_say(&commands, "ZRANGE", farm_key(client->farm, key, "stats", NULL), "0", "-1",
                      "WITHSCORES");
    resp_commands_say(&commands, "HGETALL", farm_key(client->farm, key, "admin", NULL));
    resp_commands_say(&commands, "HGETALL", farm_key(client->farm, key, "totals", NULL));
    sent = farm_send(client, &commands, on_whole, keys);
    resp_commands_free(&commands);
    return sent && farm_settle(client);
}

static bool ask_instances(struct client *client, json_t *keys)
{
    const json_t *instances = json_object_get(keys, "instances");
    size_t n = json_array_size(instances);
    struct one *ones = calloc(n ? n : 1, sizeof *ones);
    bool good = ones;

    if (!ones)
        (void)snprintf(client->error, sizeof client->error, "out of memory");
    for (size_t i = 0; good && i < n; i++) {
        ones[i] = (struct one){ keys, json_array_get(instances, i) };
        good = ask_instance(client, &ones[i]);
    }
    good = farm_settle(client) && good; /* also of those before the one that failed */
    free(ones);
    return good;
}

json_t *farm_read(struct client *client)
{
    json_t *keys = json_object();

    json_object_set_new(keys, "instances", json_array());
    if (ask_whole(client, keys) && ask_instances(client, keys))
        return keys;
    json_decref(keys);
    return NULL;
}

bool farm_is_alive(const json_t *instance)
{
    return json_object_size(json_object_get(instance, "instance")) > 0;
}
