#include "admin/command.h"

#include <stdio.h>
#include <string.h>

#include "admin/report.h"
#include "health/health.h"
#include "net/log.h"

#define ERROR_MAX 512

json_t *command_answer(json_t *result)
{
    return result ? json_pack("{s:b, s:o}", "ok", 1, "result", result) : NULL;
}

json_t *command_refuse(const char *error)
{
    json_t *object = json_object();

    json_object_set_new(object, "ok", json_false());
    json_object_set_new(object, "error", report_text(error));
    return object;
}

/* --- orders --- */

static void log_order(const struct request *request, const char *backend, const struct ucred *who)
{
    struct log_record line;

    if (!log_begin(&line, LOG_LEVEL_INFO, "control"))
        return;
    log_plain(&line, "command", request_command_name(request->command));
    if (backend)
        log_string(&line, "backend", backend);
    if (request->command == REQUEST_WEIGHT && request->weight_default)
        log_plain(&line, "weight", "default");
    else if (request->command == REQUEST_WEIGHT)
        log_number(&line, "weight", request->weight);
    log_number(&line, "uid", who->uid);
    log_number(&line, "pid", who->pid);
    log_end(&line);
}

/* A name that stands for several backends, relay for relay@10.0.0.11 and relay@10.0.0.12, means all of them.
 */
static bool is_named(const struct backend *backend, const char *name)
{
    return strcmp(backend->configured_name, name) == 0 || strcmp(backend->full_name, name) == 0;
}

static void change(const struct request *request, struct order *order)
{
    if (request->command == REQUEST_WEIGHT)
        order->weight = request->weight_default ? ORDER_NO_WEIGHT : request->weight;
    else if (request->command == REQUEST_DRAIN)
        order->admin = BACKEND_DRAIN;
    else if (request->command == REQUEST_MAINT)
        order->admin = BACKEND_MAINT;
    else
        order->admin = BACKEND_READY;
}

static json_t *answer_of(const char *name, enum backend_admin admin, enum order_source by, uint32_t weight,
                         uint32_t connections)
{
    bool ready = admin == BACKEND_READY;
    json_t *object = json_object();

    json_object_set_new(object, "name", report_text(name));
    json_object_set_new(object, "admin", json_string(backend_admin_name(admin)));
    json_object_set_new(object, "admin_by", ready ? json_null() : json_string(order_source_name(by)));
    json_object_set_new(object, "weight", json_integer(weight));
    json_object_set_new(object, "connections", json_integer(connections));
    return object;
}

/* What the backend's orders come to now, which need not be what the operator has said. */
static json_t *in_force(const struct backend *backend)
{
    struct health_view view;

    health_view(backend, &view);
    return answer_of(backend_name(backend), (enum backend_admin)atomic_load(&backend->admin),
                     view.admin_source, view.weight,
                     atomic_load_explicit(&backend->connections, memory_order_relaxed));
}

/* Sessions that are still at one that has left. */
static uint32_t connections_left(const struct farm *farm, const char *full_name)
{
    for (size_t i = 0; i < farm->n_leaving; i++) {
        const struct backend *backend = farm->leaving[i].member->backend;

        if (strcmp(backend->full_name, full_name) == 0)
            return atomic_load_explicit(&backend->connections, memory_order_relaxed);
    }
    return 0;
}

struct absent_order {
    const struct farm *farm;
    const struct request *request;
    const struct ucred *who;
    json_t *array;
};

/* An address that its name has not now: for when it has it again. */
static void on_absent(void *arg, const char *full_name, struct order *order)
{
    struct absent_order *it = arg;

    log_order(it->request, full_name, it->who);
    change(it->request, order);
    json_array_append_new(it->array, answer_of(full_name, order->admin, ORDER_OPERATOR, 0,
                                               connections_left(it->farm, full_name)));
}

static json_t *execute_order(const struct control_ops *ops, struct farm *farm, const struct request *request,
                             const struct ucred *who)
{
    json_t *array = json_array();
    struct absent_order absent = { farm, request, who, array };
    char error[ERROR_MAX];

    for (size_t i = 0; i < farm->n_backends; i++) {
        struct backend *backend = farm->backends[i];
        struct order order;

        if (!is_named(backend, request->name))
            continue;
        log_order(request, backend_name(backend), who);
        order = health_orders(backend).by[ORDER_OPERATOR];
        change(request, &order);
        ops->order(ops->arg, backend, &order);
        json_array_append_new(array, in_force(backend));
    }
    ops->absent(ops->arg, request->name, on_absent, &absent);
    if (json_array_size(array) > 0)
        return command_answer(array);
    json_decref(array);
    (void)snprintf(error, sizeof error, "there is no backend \"%s\"", request->name);
    return command_refuse(error);
}

/* --- the rest --- */

static json_t *execute_reload(const struct control_ops *ops, const struct request *request,
                              const struct ucred *who)
{
    char error[ERROR_MAX] = "";

    log_order(request, NULL, who);
    return ops->reload(ops->arg, error, sizeof error) ? command_answer(json_object()) : command_refuse(error);
}

json_t *command_execute(const struct control_ops *ops, const struct request *request, const struct ucred *who)
{
    struct farm *farm = ops->show.farm(ops->show.arg);
    json_t *answer = NULL;

    switch (request->command) {
    case REQUEST_STATUS: answer = command_answer(report_status(&ops->show, farm)); break;
    case REQUEST_BACKENDS: answer = command_answer(report_backends(farm)); break;
    case REQUEST_INSTANCES: answer = command_answer(report_instances(&ops->show, farm)); break;
    case REQUEST_DRAIN:
    case REQUEST_MAINT:
    case REQUEST_READY:
    case REQUEST_WEIGHT: answer = execute_order(ops, farm, request, who); break;
    case REQUEST_RELOAD: answer = execute_reload(ops, request, who); break;
    case REQUEST_VERSION: answer = command_answer(json_pack("{s:s}", "version", WEIR_VERSION)); break;
    case REQUEST_SESSIONS: break; /* the workers are asked first: control.c */
    }
    farm_release(&farm);
    return answer;
}
