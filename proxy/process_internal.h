/*
 * Inside the process: what process.c (starting, signals, reload, stopping) and operator.c (what operators see
 * and order) share.
 */
#ifndef WEIR_PROXY_PROCESS_INTERNAL_H
#define WEIR_PROXY_PROCESS_INTERNAL_H

#include <ev.h>
#include <pthread.h>

#include "admin/control.h"
#include "admin/http.h"
#include "counters/counters.h"
#include "health/health.h"
#include "net/mailbox.h"
#include "proxy/front.h"
#include "proxy/process.h"
#include "proxy/worker.h"

#define PROCESS_SIGNALS 6

struct process;

/* A worker says, once, that its last session has gone. */
struct idle_note {
    struct mail mail;
    struct process *process;
    atomic_flag posted;
};

struct process {
    struct ev_loop *loop;
    struct mailbox mailbox;
    const struct process_options *options;
    pthread_mutex_t front_lock; /* HTTP's thread looks at the front too */
    struct front *front;        /* held */
    struct names *names;
    ev_timer members_change;
    ev_tstamp members_changed; /* the last time */
    struct health *health;
    struct counters *counters;
    struct rate_redis *rates; /* rate limits over all instances */
    struct clients *clients;  /* sessions by client, over all instances */
    struct admin *admin;
    struct control *control;
    struct control_owner owner; /* of the control socket */
    int64_t started;            /* ms, monotonic */
    uint32_t n_workers, idle_workers;
    struct worker **workers;
    struct idle_note *notes;
    ev_signal signals[PROCESS_SIGNALS];
    ev_timer grace, drain_limit;
    _Atomic bool draining;
    bool closed; /* the listeners are: what has their addresses now is not ours */
    bool stopping;
};

/* process.c */
/* The front of a reload, or of the same configuration with other members, comes into force: nothing of it can
 * fail. */
void process_commit(struct process *p, struct front *front);
/* False with the reason in `why`, which was empty. */
bool process_reload(struct process *p, char *why, size_t size);

/* membership.c */
void membership_init(struct process *p);
/* Names have other addresses: soon there is another farm. */
void membership_changed(void *arg);
/* Sessions part with the backends of the farm before that the new one has no more. By now, or by mail that
 * comes before this, every worker looks for others. */
void membership_part(struct process *p, const struct farm *old);

/* shared.c: counters that instances share. False: out of memory. */
bool shared_create(struct process *p);

/* operator.c */
/* The sum over the workers. */
void operator_counters(struct process *p, struct admin_counters *out);
/* NULL with `error` set, or with an empty `error` where none is configured. */
struct admin *operator_http(struct process *p, const struct config *config, char *error, size_t size);
bool operator_create_control(struct process *p); /* false: out of memory */
/* False with `error` set: the file names one, and it can't be had. The default may be missing. */
bool operator_open_control(struct process *p, const struct config *config, struct control_socket *made,
                           char *error, size_t size);
/* It listens where this configuration says. */
bool operator_same_control(const struct process *p, const struct config *config);

#endif
