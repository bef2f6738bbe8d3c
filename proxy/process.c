/*
 *   main thread = control thread
 *     signals ──▶ reload: read, check, build, bind, then commit everywhere or nowhere
 *     names   ──▶ members have come or gone: build and commit the same configuration anew
 *             ──▶ drain:  grace ─▶ stop accepting, sessions end at their ease ─▶ stop
 *     health  ──▶ a backend went down: every worker moves its sessions
 *   workers, the log's thread and HTTP's thread run beside it
 */
#include "proxy/process.h"

#include <errno.h>
#include <ev.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "admin/http.h"
#include "balancer/placement.h"
#include "health/health.h"
#include "health/names.h"
#include "net/clock.h"
#include "net/log.h"
#include "proxy/front.h"
#include "proxy/worker.h"

#define SIGNALS 6

/* Names that change together, as at the start, are one change; and name servers that give another answer each
 * time must not keep everybody busy. Seconds. */
#define MEMBERS_TOGETHER 0.02
#define MEMBERS_REST     1.

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
    struct admin *admin;
    uint32_t n_workers, idle_workers;
    struct worker **workers;
    struct idle_note *notes;
    ev_signal signals[SIGNALS];
    ev_timer grace, drain_limit;
    _Atomic bool draining;
    bool closed; /* the listeners are: what has their addresses now is not ours */
    bool stopping;
};

/* --- what HTTP is shown --- */

static struct farm *show_farm(void *arg)
{
    struct process *p = arg;
    struct farm *farm;

    pthread_mutex_lock(&p->front_lock);
    farm = farm_hold(p->front->farm);
    pthread_mutex_unlock(&p->front_lock);
    return farm;
}

static bool show_draining(void *arg)
{
    return ((struct process *)arg)->draining;
}

static void show_counters(void *arg, struct admin_counters *out)
{
    struct process *p = arg;

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

/* NULL with `error` set, or with an empty `error` where none is configured. */
static struct admin *start_admin(struct process *p, const struct config *config, char *error, size_t size)
{
    const struct admin_ops ops = { p, show_farm, show_draining, show_counters };

    error[0] = '\0';
    if (!config->http_address_text[0])
        return NULL;
    return admin_start(&config->http_address, &ops, error, size);
}

/* --- health --- */

static void on_backend_change(void *arg, struct backend *backend, enum backend_state from)
{
    struct process *p = arg;

    (void)from;
    if (atomic_load(&backend->state) != BACKEND_DOWN)
        return;
    for (uint32_t i = 0; i < p->n_workers; i++)
        worker_backend_down(p->workers[i], backend);
}

static void on_backend_admin(void *arg, struct backend *backend, enum backend_admin admin)
{
    struct process *p = arg;

    if (admin == BACKEND_READY)
        return;
    for (uint32_t i = 0; i < p->n_workers; i++)
        worker_backend_leave(p->workers[i], backend, admin == BACKEND_MAINT);
}

/* --- stopping --- */

static void stop(struct process *p)
{
    if (p->stopping)
        return;
    p->stopping = true;
    for (uint32_t i = 0; i < p->n_workers; i++) {
        if (p->workers[i]) /* unless memory was out at the start */
            worker_stop(p->workers[i]);
    }
    ev_break(p->loop, EVBREAK_ALL);
}

static void note_idle(struct mail *mail, void *owner)
{
    struct process *p = owner;

    (void)mail;
    if (++p->idle_workers == p->n_workers)
        stop(p);
}

/* On a worker's thread. */
static void worker_idle(void *arg)
{
    struct idle_note *note = arg;

    if (!atomic_flag_test_and_set(&note->posted))
        mailbox_post(&note->process->mailbox, &note->mail);
}

static void on_drain_limit(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    log_message(LOG_LEVEL_WARNING, "stop", "drain-timeout is over: the remaining sessions end now");
    stop(timer->data);
}

static void on_grace_over(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct process *p = timer->data;

    (void)events;
    p->closed = true;
    front_remove_files(p->front, NULL);
    for (uint32_t i = 0; i < p->n_workers; i++) {
        worker_close_listeners(p->workers[i]);
        worker_drain(p->workers[i]);
    }
    ev_timer_set(&p->drain_limit, p->front->farm->config->drain_timeout / 1000., 0.);
    ev_timer_start(loop, &p->drain_limit);
}

static void drain(struct process *p)
{
    if (p->draining) {
        log_message(LOG_LEVEL_INFO, "stop", "told again: stopping now");
        stop(p);
        return;
    }
    p->draining = true;
    log_message(LOG_LEVEL_INFO, "drain", "no new sessions from now on; those that are open may end");
    ev_timer_set(&p->grace, p->front->farm->config->drain_grace / 1000., 0.);
    ev_timer_start(p->loop, &p->grace);
}

/* --- reload --- */

/* What changes only with a restart keeps its present value, and says so. */
static void keep_fixed(const struct process *p, struct config *config)
{
    const struct config *present = p->front->farm->config;

    if (config->workers != p->n_workers)
        log_message(LOG_LEVEL_WARNING, "reload", "workers: %u takes a restart; still %u", config->workers,
                    p->n_workers);
    config->workers = p->n_workers;
    if (strcmp(config->user, present->user) != 0)
        log_message(LOG_LEVEL_WARNING, "reload", "user: a change takes a restart");
}

static struct config *read_again(const struct process *p)
{
    char *text = NULL;
    size_t size = 0;
    FILE *errors = open_memstream(&text, &size);
    struct config *config;
    char *rest;

    if (!errors)
        return NULL;
    config = config_load(p->options->path, errors);
    fclose(errors);
    rest = text;
    for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
        if (*line)
            log_message(LOG_LEVEL_ERROR, "reload-failed", "%s", line);
    }
    free(text);
    return config;
}

static bool same_http(const struct config *a, const struct config *b)
{
    return strcmp(a->http_address_text, b->http_address_text) == 0;
}

/* Sessions part with the backends of the farm before that the new one has no more. By now, or by mail that
 * comes before this, every worker looks for others. */
static void part_with_members(struct process *p, const struct farm *old)
{
    for (size_t i = 0; i < old->n_backends; i++) {
        for (uint32_t w = 0; old->backends[i]->left && w < p->n_workers; w++)
            worker_backend_leave(p->workers[w], old->backends[i], false);
    }
}

/* The point of no return: nothing below can fail. */
static void commit(struct process *p, struct front *front)
{
    struct front *old = p->front;

    farm_commit(front->farm);
    farm_log_members(front->farm, old->farm);
    pthread_mutex_lock(&p->front_lock);
    p->front = front;
    pthread_mutex_unlock(&p->front_lock);
    health_set_farm(p->health, front->farm);
    front_remove_files(old, front);
    for (uint32_t i = 0; i < p->n_workers; i++)
        worker_set_front(p->workers[i], front);
    part_with_members(p, old->farm);
    placement_serve(front->farm, clock_milliseconds());
    front_release(&old);
    names_follow(p->names, front->farm->config);
}

static void on_names_changed(void *arg);

/* The same configuration with the addresses that its names have now. */
static void change_members(struct process *p)
{
    struct farm *present = p->front->farm;
    const struct name_source names = names_source(p->names);
    struct farm *farm = farm_create_found(present->config, &names, present);
    char error[256] = "out of memory";
    struct front *front = farm ? front_create(farm, p->front, error, sizeof error) : NULL;

    farm_release(&farm);
    p->members_changed = ev_now(p->loop);
    if (front) {
        commit(p, front);
    } else {
        log_message(LOG_LEVEL_ERROR, "backend-members", "%s: still those of before", error);
        on_names_changed(p); /* again, after a rest */
    }
}

static void on_members_change(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct process *p = timer->data;

    (void)loop;
    (void)events;
    if (!p->closed) /* the listeners' descriptors, which the new front would go on with, are there */
        change_members(p);
}

static void on_names_changed(void *arg)
{
    struct process *p = arg;
    ev_tstamp rest = p->members_changed + MEMBERS_REST - ev_now(p->loop);

    if (ev_is_active(&p->members_change))
        return;
    ev_timer_set(&p->members_change,
                 rest > MEMBERS_TOGETHER && rest <= MEMBERS_REST ? rest : MEMBERS_TOGETHER, 0.);
    ev_timer_start(p->loop, &p->members_change);
}

static void reload_with(struct process *p, struct config *config)
{
    const struct config_log *log = &config->log;
    char error[256] = "out of memory";
    const char *log_error = NULL;
    struct admin *admin = NULL;
    const struct name_source names = names_source(p->names);
    struct farm *farm = farm_create_found(config, &names, p->front->farm);
    struct front *front = farm ? front_create(farm, p->front, error, sizeof error) : NULL;
    bool new_http = !same_http(config, p->front->farm->config);

    farm_release(&farm);
    if (!front) {
        log_message(LOG_LEVEL_ERROR, "reload-failed", "%s", error);
        return;
    }
    if (new_http) {
        admin = start_admin(p, config, error, sizeof error);
        if (error[0])
            log_error = error;
    }
    if (!log_error)
        (void)log_reconfigure(log->target, log->path, log->format, log->level, &log_error);
    if (log_error) {
        log_message(LOG_LEVEL_ERROR, "reload-failed", "%s", log_error);
        admin_stop(&admin);
        front_discard(&front);
        return;
    }
    commit(p, front);
    if (new_http) {
        admin_stop(&p->admin);
        p->admin = admin;
    }
    log_message(LOG_LEVEL_INFO, "reload", "the configuration of %s is in force", p->options->path);
}

static void reload(struct process *p)
{
    struct config *config;

    if (!p->options->path) {
        log_message(LOG_LEVEL_WARNING, "reload-failed",
                    "started without a configuration file: nothing to read");
        return;
    }
    if (p->draining) {
        log_message(LOG_LEVEL_WARNING, "reload-failed", "draining: too late for a new configuration");
        return;
    }
    config = read_again(p);
    if (!config) {
        log_message(LOG_LEVEL_ERROR, "reload-failed", "the running configuration stays in force");
        return;
    }
    keep_fixed(p, config);
    reload_with(p, config);
    config_release(&config);
}

/* --- signals --- */

static void on_signal(struct ev_loop *loop, ev_signal *signal, int events)
{
    struct process *p = signal->data;

    (void)loop;
    (void)events;
    switch (signal->signum) {
    case SIGHUP: reload(p); break;
    case SIGTERM: drain(p); break;
    case SIGINT:
        log_message(LOG_LEVEL_INFO, "stop", "interrupted: stopping now");
        stop(p);
        break;
    case SIGUSR1: log_reopen(); break;
    case SIGUSR2:
        log_message(LOG_LEVEL_WARNING, "signal",
                    "USR2: handing sockets to a new process is not built in this version");
        break;
    default: break;
    }
}

static void watch_signals(struct process *p)
{
    static const int numbers[] = { SIGHUP, SIGTERM, SIGINT, SIGUSR1, SIGUSR2 };

    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        ev_signal_init(&p->signals[i], on_signal, numbers[i]);
        p->signals[i].data = p;
        ev_signal_start(p->loop, &p->signals[i]);
    }
}

/* --- starting --- */

/* As many descriptors as we may have; and no more sessions than they carry, each with a backend. */
static void use_descriptors(const struct front *front)
{
    struct rlimit limit;
    uint64_t others = 24 + (uint64_t)front->workers * (front->n_sockets + 4);
    size_t checks = 0;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 && getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    for (size_t i = 0; i < front->farm->n_backends; i++) /* of a name there may be many */
        checks += front->farm->given[i].config->host ? 100 : 1;
    others += checks < 100 ? checks : 100;
    if (limit.rlim_cur < others + 2)
        worker_set_session_limit(1);
    else if ((limit.rlim_cur - others) / 2 < UINT32_MAX)
        worker_set_session_limit((uint32_t)((limit.rlim_cur - others) / 2));
}

static bool drop_privileges(const char *user)
{
    struct passwd *entry;

    if (!user[0])
        return true;
    errno = 0;
    entry = getpwnam(user);
    if (!entry) {
        fprintf(stderr, "weir: user: there is no user '%s'\n", user);
        return false;
    }
    if (geteuid() == entry->pw_uid)
        return true;
    if (initgroups(user, entry->pw_gid) != 0 || setgid(entry->pw_gid) != 0 || setuid(entry->pw_uid) != 0) {
        fprintf(stderr, "weir: user: cannot become '%s': %s\n", user, strerror(errno));
        return false;
    }
    return true;
}

static bool create_workers(struct process *p)
{
    uint32_t salt = 0;

    (void)!getrandom(&salt, sizeof salt, 0);
    p->workers = calloc(p->n_workers, sizeof *p->workers);
    p->notes = calloc(p->n_workers, sizeof *p->notes);
    if (!p->workers || !p->notes)
        return false;
    for (uint32_t i = 0; i < p->n_workers; i++) {
        p->notes[i].process = p;
        p->notes[i].mail.deliver = note_idle;
        p->workers[i] = worker_create(i, p->front, salt, worker_idle, &p->notes[i]);
        if (!p->workers[i])
            return false;
    }
    return true;
}

static bool start_workers(struct process *p)
{
    for (uint32_t i = 0; i < p->n_workers; i++) {
        if (!worker_start(p->workers[i]))
            return false;
    }
    return true;
}

/* Everything that can fail before the first client is served. */
static bool start(struct process *p, struct config *config)
{
    char error[256] = "out of memory";
    const char *log_error;
    struct farm *farm;

    p->n_workers = config->workers;
    if (log_start(config->log.target, config->log.path, config->log.format, config->log.level, &log_error) !=
        0) {
        fprintf(stderr, "weir: log: %s%s%s\n", config->log.path ? config->log.path : "",
                config->log.path ? ": " : "", log_error);
        return false;
    }
    farm = farm_create(config, NULL);
    if (farm)
        p->front = front_create(farm, NULL, error, sizeof error);
    farm_release(&farm);
    if (!p->front) {
        fprintf(stderr, "weir: %s\n", error);
        return false;
    }
    use_descriptors(p->front);
    farm_commit(p->front->farm);
    /* Before HTTP, whose thread looks at them as soon as it runs. */
    if (!create_workers(p)) {
        fprintf(stderr, "weir: out of memory\n");
        return false;
    }
    p->admin = start_admin(p, config, error, sizeof error);
    if (error[0]) {
        fprintf(stderr, "weir: http: %s\n", error);
        return false;
    }
    if (!drop_privileges(config->user))
        return false;
    p->health = health_open(p->loop, &(struct health_watcher){ on_backend_change, on_backend_admin, p });
    p->names = names_open(p->loop, on_names_changed, p);
    if (!p->health || !p->names || !start_workers(p)) {
        fprintf(stderr, "weir: out of memory or threads\n");
        return false;
    }
    health_set_farm(p->health, p->front->farm);
    names_follow(p->names, p->front->farm->config);
    log_message(LOG_LEVEL_INFO, "start", "weir %s, %u worker%s, pid %ld", WEIR_VERSION, p->n_workers,
                p->n_workers == 1 ? "" : "s", (long)getpid());
    return true;
}

static void finish(struct process *p)
{
    admin_stop(&p->admin);
    for (uint32_t i = 0; p->workers && i < p->n_workers; i++)
        worker_join(p->workers[i]);
    for (uint32_t i = 0; p->workers && i < p->n_workers; i++)
        worker_free(&p->workers[i]);
    names_close(&p->names);
    health_close(&p->health);
    mailbox_close(&p->mailbox);
    if (p->front && !p->closed)
        front_remove_files(p->front, NULL);
    front_release(&p->front);
    free(p->workers);
    free(p->notes);
    for (int i = 0; i < SIGNALS; i++)
        ev_signal_stop(p->loop, &p->signals[i]);
    ev_timer_stop(p->loop, &p->grace);
    ev_timer_stop(p->loop, &p->drain_limit);
    ev_timer_stop(p->loop, &p->members_change);
    ev_loop_destroy(p->loop);
    log_stop();
}

int process_run(struct config *config, const struct process_options *options)
{
    struct process p = { .options = options, .front_lock = PTHREAD_MUTEX_INITIALIZER };
    bool started;

    p.loop = ev_default_loop(EVFLAG_AUTO);
    if (!p.loop) {
        fprintf(stderr, "weir: no event loop: %s\n", strerror(errno));
        return 1;
    }
    mailbox_open(&p.mailbox, p.loop, &p);
    ev_init(&p.grace, on_grace_over);
    ev_init(&p.drain_limit, on_drain_limit);
    ev_init(&p.members_change, on_members_change);
    p.grace.data = p.drain_limit.data = p.members_change.data = &p;
    watch_signals(&p);
    started = start(&p, config);
    config_release(&config);
    if (started) {
        ev_run(p.loop, 0);
        log_message(LOG_LEVEL_INFO, "stop", "stopped");
    } else if (p.workers) {
        stop(&p);
    }
    finish(&p);
    return started ? 0 : 1;
}
