#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/report_text.h"
#include "admin/weirctl_farm.h"
#include "counters/snapshot.h"

#define INSTANCES_MAX 1024 /* those that were last heard of */
#define WINDOW        8    /* that are asked about at a time: the answers to more may be late */

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

/* --- which there are --- */

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

/* --- questions --- */

/* Each is a command by itself: in a cluster whose slot moves, some of the keys may be at another node. */
struct question {
    json_t *keys, *into; /* where the answer goes, under `name`; `into` NULL: ids of instances */
    const char *name;
};

/* What is no hash where an instance has one, or is too long for one, was not written by a Weir: it is left
 * out.
 */
static bool is_to_be_told(const struct question *question, const struct resp *error)
{
    bool shared = !question->into || question->into == question->keys;

    return shared || resp_fault(error) != RESP_FAULT_OTHER;
}

static void on_answer(void *arg, const struct resp *reply, const char *error)
{
    const struct question *question = arg;

    if (error) {
        json_object_set_new(question->keys, "lost", report_text(error));
        return;
    }
    if (reply->type == RESP_ERROR && is_to_be_told(question, reply))
        json_object_set_new(question->keys, "error", report_text(reply->text));
    if (question->into)
        json_object_set_new(question->into, question->name, hash_of(reply));
    else
        add_instances(json_object_get(question->keys, "instances"), reply);
}

static bool ask(struct client *client, struct question *question, const char *id)
{
    static const char first[] = "-1024";
    struct resp_commands commands = { 0 };
    char key[FARM_KEY_MAX];
    bool sent;

    static_assert(INSTANCES_MAX == 1024, "as many as are asked for");
    farm_key(client->farm, key, question->name, id);
    if (question->into)
        resp_commands_say(&commands, "HGETALL", key);
    else
        resp_commands_say(&commands, "ZRANGE", key, first, "-1", "WITHSCORES");
    sent = farm_send(client, &commands, on_answer, question);
    resp_commands_free(&commands);
    return sent;
}

/* --- the whole --- */

static bool ask_whole(struct client *client, json_t *keys)
{
    struct question questions[] = {
        {keys,  NULL, "instances"},
        { keys, NULL, "stats"    },
        { keys, keys, "admin"    },
        { keys, keys, "totals"   }
    };
    bool good = true;

    for (size_t i = 0; good && i < sizeof questions / sizeof *questions; i++)
        good = ask(client, &questions[i], NULL);
    return farm_settle(client) && good; /* also of those before the one that failed */
}

static bool ask_instances(struct client *client, json_t *keys)
{
    static const char *const names[] = { "instance", "connections", "health", "stats" };
    const json_t *instances = json_object_get(keys, "instances");
    size_t each = sizeof names / sizeof *names, n = each * json_array_size(instances);
    struct question *questions = calloc(n ? n : 1, sizeof *questions);
    bool good = questions;

    if (!questions)
        (void)snprintf(client->error, sizeof client->error, "out of memory");
    for (size_t i = 0; good && i < n; i++) {
        json_t *instance = json_array_get(instances, i / each);

        questions[i] = (struct question){ keys, instance, names[i % each] };
        good = ask(client, &questions[i], show_text(instance, "id"));
        if (good && (i + 1) % (each * WINDOW) == 0)
            good = farm_settle(client);
    }
    good = farm_settle(client) && good;
    free(questions);
    return good;
}

/* A part would be taken for the whole. */
static bool is_whole(struct client *client, const json_t *keys)
{
    const char *lost = show_text(keys, "lost");

    if (*lost)
        (void)snprintf(client->error, sizeof client->error, "%s", lost);
    return !*lost;
}

json_t *farm_read(struct client *client)
{
    json_t *keys = json_object();

    json_object_set_new(keys, "instances", json_array());
    if (ask_whole(client, keys) && ask_instances(client, keys) && is_whole(client, keys))
        return keys;
    json_decref(keys);
    return NULL;
}

bool farm_is_alive(const json_t *instance)
{
    return json_object_size(json_object_get(instance, "instance")) > 0;
}
