#include "admin/request.h"

#include <assert.h>
#include <jansson.h>
#include <string.h>

static const char *const names[] = { "status", "backends", "sessions", "instances", "drain",
                                     "maint",  "ready",    "weight",   "reload",    "version" };
static_assert(sizeof names / sizeof *names == REQUEST_COMMANDS, "a name for each command");

const char *request_command_name(enum request_command command)
{
    return names[command];
}

bool request_command_find(const char *name, enum request_command *out)
{
    for (int i = 0; i < REQUEST_COMMANDS; i++) {
        if (strcmp(names[i], name) == 0) {
            *out = (enum request_command)i;
            return true;
        }
    }
    return false;
}

bool request_command_has_name(enum request_command command)
{
    switch (command) {
    case REQUEST_DRAIN:
    case REQUEST_MAINT:
    case REQUEST_READY:
    case REQUEST_WEIGHT: return true;
    case REQUEST_STATUS:
    case REQUEST_BACKENDS:
    case REQUEST_SESSIONS:
    case REQUEST_INSTANCES:
    case REQUEST_RELOAD:
    case REQUEST_VERSION: break;
    }
    return false;
}

static bool take_name(struct request *request, const json_t *name, const char **error)
{
    size_t size = name ? json_string_length(name) : 0; /* 0 of what is no string */

    if (!request_command_has_name(request->command)) {
        *error = "\"name\": this command has none";
        return !name;
    }
    *error = "\"name\": expected the name of a backend";
    if (!size || size > REQUEST_NAME_MAX)
        return false;
    memcpy(request->name, json_string_value(name), size + 1);
    return true;
}

static bool take_weight(struct request *request, const json_t *weight, const char **error)
{
    if (request->command != REQUEST_WEIGHT) {
        *error = "\"weight\": this command has none";
        return !weight;
    }
    *error = "\"weight\": expected a whole number from 0 to 1000, or \"default\"";
    if (json_is_string(weight)) {
        request->weight_default = true;
        return strcmp(json_string_value(weight), "default") == 0;
    }
    if (!json_is_integer(weight) || json_integer_value(weight) < 0 ||
        json_integer_value(weight) > REQUEST_WEIGHT_MAX)
        return false;
    request->weight = (uint32_t)json_integer_value(weight);
    return true;
}

static bool take(struct request *request, json_t *object, const char **error)
{
    const json_t *command = json_object_get(object, "command"), *name = json_object_get(object, "name"),
                 *weight = json_object_get(object, "weight");

    if (!json_is_object(object)) {
        *error = "expected a JSON object";
        return false;
    }
    *error =
        "\"command\": expected status, backends, sessions, instances, drain, maint, ready, weight, reload "
        "or version";
    if (!json_is_string(command) || !request_command_find(json_string_value(command), &request->command))
        return false;
    if (!take_name(request, name, error) || !take_weight(request, weight, error))
        return false;
    *error = "unknown key; expected command, name or weight";
    return json_object_size(object) == 1u + (name != NULL) + (weight != NULL);
}

bool request_parse(const char *line, size_t size, struct request *out, const char **error)
{
    json_error_t ignored;
    json_t *object;
    bool good;

    *out = (struct request){ .command = REQUEST_STATUS };
    *error = "longer than 4096 octets";
    if (size >= REQUEST_MAX)
        return false;
    object = json_loadb(line, size, JSON_REJECT_DUPLICATES, &ignored);
    *error = "expected one JSON object in one line";
    if (!object)
        return false;
    good = take(out, object, error);
    json_decref(object);
    return good;
}
