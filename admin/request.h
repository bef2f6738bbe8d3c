/*
 * What is asked over the control socket: one JSON object in one line. Pure.
 *
 *     {"command": "status"}                                      backends, sessions, instances, version,
 * reload
 *     {"command": "drain", "name": "relay1"}                     maint, ready
 *     {"command": "weight", "name": "relay1", "weight": 5}       or "default": what the file says
 *
 * The answer is one object in one line too: {"ok": true, "result": …} or {"ok": false, "error": "…"}.
 */
#ifndef WEIR_ADMIN_REQUEST_H
#define WEIR_ADMIN_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REQUEST_MAX        4096 /* octets of a line, its newline included */
#define REQUEST_NAME_MAX   255  /* more than any name of a backend has */
#define REQUEST_WEIGHT_MAX 1000 /* as in the configuration */

enum request_command {
    REQUEST_STATUS,
    REQUEST_BACKENDS,
    REQUEST_SESSIONS,
    REQUEST_INSTANCES,
    REQUEST_DRAIN,
    REQUEST_MAINT,
    REQUEST_READY,
    REQUEST_WEIGHT,
    REQUEST_RELOAD,
    REQUEST_VERSION,
};
#define REQUEST_COMMANDS (REQUEST_VERSION + 1)
const char *request_command_name(enum request_command command);
bool request_command_find(const char *name, enum request_command *out);
/* It is about a backend, whose name must be given. */
bool request_command_has_name(enum request_command command);

struct request {
    enum request_command command;
    char name[REQUEST_NAME_MAX + 1]; /* "" where the command has none */
    bool weight_default;             /* with WEIGHT: what the configuration says */
    uint32_t weight;
};

/* `line` without its newline. False with *error static: what is wrong with it. */
bool request_parse(const char *line, size_t size, struct request *out, const char **error);

#endif
