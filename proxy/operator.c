/*
 * What operators see of the process, over HTTP and the control socket, and what they order.
 */
#include <string.h>

#include "health/health.h"
#include "net/log.h"
#include "proxy/gather.h"
#include "proxy/process_internal.h"

/* --- what is shown: HTTP's thread asks too --- */

static struct farm *show_farm(void *arg)
{
    struct process *p = arg;
    struct farm *farm;

    pthread_mutex_lock(&p->front_lock);
    farm = farm_hold(p->front->farm);
    pthread_mutex_unlock(&p->front_lock);
    return farm;
}

static struct rate_rules *show_rules(void *arg)
{
    struct process *p = arg;
    struct rate_rules *rules;

    pthread_mutex_lock(&p->front_lock);
    rules = rate_rules_hold(p->front->rules);
    pthread_mutex_unlock(&p->front_lock);
    return rules;
}

static bool show_draining(void *arg)
{
    return ((struct process *)arg)->draining;
}

void operator_counters(struct process *p, struct admin_counters *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < p->n_workers; i++) {
        const struct worker_stats *stats = &p->workers[i]->stats;

        out->sessions_active += atomic_load_explicit(&stats->sessions_active, memory_order_relaxed);
        out->sessions_total += atomic_load_explicit(&stats->sessions_total, memory_order_relaxed);
        out->sessions_refused += atomic_load_explicit(&stats->sessions_refused, memory_order_relaxed);
        out->bytes_in += atomic_load_explicit(&stats->bytes_in, memory_order_relaxed);
        out->bytes_out += atomic_load_explicit(&stats->bytes_out, memory_order_relaxed);
        for (size_t k = 0; k < sizeof out->handshakes / sizeof(uint64_t); k++)
            (&out->handshakes[0][0])[k] +=
                atomic_load_explicit(&(&stats->handshakes[0][0])[k], memory_order_relaxed);
    }
}

static void show_counters(void *arg, struct admin_counters *out)
{
    operator_counters(arg, out);
}

static void show_shared(void *arg, struct counters_status *out)
{
    counters_status(((struct process *)arg)->counters, out);
}

static struct admin_ops what_is_shown(struct process *p)
{
    return (
        struct admin_ops){ p, p->started, show_farm, show_draining, show_counters, show_shared, show_rules };
}

struct admin *operator_http(struct process *p, const struct config *config, char *error, size_t size)
{
    const struct admin_ops ops = what_is_shown(p);

    error[0] = '\0';
    if (!config->http_address_text[0])
        return NULL;
    return admin_start(&config->http_address, &ops, error, size);
}

/* --- the control socket --- */

bool operator_open_control(struct process *p, const struct config *config, struct control_socket *made,
                           char *error, size_t size)
{
    made->fd = -1;
    if (!config->control_path[0] ||
        control_socket_open(made, &config->control_address, &p->owner, error, size))
        return true;
    if (config->control_given)
        return false;
    log_message(LOG_LEVEL_WARNING, "control", "no control socket, so weirctl gets no answer: %s", error);
    error[0] = '\0';
    return true;
}

bool operator_same_control(const struct process *p, const struct config *config)
{
    const struct address *present = control_address(p->control);

    return present ? address_equal(present, &config->control_address) : !config->control_path[0];
}

static bool control_reload(void *arg, char *error, size_t size)
{
    return process_reload(arg, error, size);
}

static void control_order(void *arg, struct backend *backend, const struct order *order)
{
    health_order(((struct process *)arg)->health, backend, ORDER_OPERATOR, order);
}

static void control_absent(void *arg, const char *name,
                           void (*change)(void *who, const char *full_name, struct order *order), void *who)
{
    health_change_absent(((struct process *)arg)->health, name, change, who);
}

static bool control_roster(void *arg, void (*done)(void *who, const struct roster *roster), void *who)
{
    struct process *p = arg;

    return gather_begin(p->workers, p->n_workers, &p->mailbox, done, who);
}

bool operator_create_control(struct process *p)
{
    const struct control_ops ops = {
        p, what_is_shown(p), control_reload, control_order, control_absent, control_roster
    };

    p->control = control_create(p->loop, &ops);
    return p->control != NULL;
}
