/*
 * A line of the control socket, and the same octets as a text of a peer's in an answer.
 *
 * What is taken must be within the bounds and mean the same when it is said again; what is refused must have
 * a reason; and an answer with any octets in it is one line of valid JSON.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "admin/command.h"
#include "admin/report.h"
#include "admin/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

/* In memory of just that size, for the address sanitizer. */
static bool parse(const void *data, size_t size, struct request *out)
{
    char *copy = malloc(size ? size : 1);
    const char *error = NULL;
    bool good;

    CHECK(copy);
    memcpy(copy, data, size);
    good = request_parse(copy, size, out, &error);
    free(copy);
    CHECK(good || (error && *error));
    return good;
}

static void check_again(const struct request *request)
{
    json_t *object = json_pack("{s:s}", "command", request_command_name(request->command));
    struct request again;
    char *text;

    if (request->name[0])
        json_object_set_new(object, "name", json_string(request->name));
    if (request->command == REQUEST_WEIGHT)
        json_object_set_new(object, "weight",
                            request->weight_default ? json_string("default") : json_integer(request->weight));
    text = json_dumps(object, JSON_COMPACT);
    CHECK(text && parse(text, strlen(text), &again));
    CHECK(again.command == request->command && strcmp(again.name, request->name) == 0);
    CHECK(again.weight == request->weight && again.weight_default == request->weight_default);
    free(text);
    json_decref(object);
}

static void check_answer(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *line;
    json_t *answer, *again;

    CHECK(text);
    memcpy(text, data, size);
    text[size] = '\0';
    answer = command_refuse(text);
    line = json_dumps(answer, JSON_COMPACT);
    CHECK(line && !strchr(line, '\n'));
    again = json_loads(line, 0, NULL);
    CHECK(json_equal(answer, again) && json_is_string(json_object_get(again, "error")));
    free(line);
    free(text);
    json_decref(answer);
    json_decref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct request request;

    if (parse(data, size, &request)) {
        CHECK(size < REQUEST_MAX && strlen(request.name) <= REQUEST_NAME_MAX);
        CHECK(request.weight <= REQUEST_WEIGHT_MAX);
        CHECK(request_command_has_name(request.command) == (request.name[0] != '\0'));
        check_again(&request);
    }
    check_answer(data, size);
    return 0;
}
