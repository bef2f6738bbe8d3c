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

#include "balancer/placement.h"
#include "health/names.h"
#include "net/clock.h"
#include "net/log.h"
#include "proxy/process_internal.h"

/* --- health --- */

static void on_backend_change(void *arg, struct backend *backend, enum backend_state from)
{
    struct process *p = arg;

    (void)from;
    counters_hurry(p->counters);
    if (atomic_load(&backend->state) != BACKEND_DOWN)
        return;
    for (uint32_t i = 0; i < p->n_workers; i++)
        worker_backend_down(p->workers[i], backend);
}

static void on_backend_admin(void *arg, struct backend *backend, enum backend_admin admin)
{
    struct process *p = arg;

    counters_hurry(p->counters);
    if (admin == BACKEND_READY)
        return;
    for (uint32_t i = 0; i < p->n_workers; i++)
        worker_backend_leave(p->workers[i], backend, admin == BACKEND_MAINT);
}

static void on_check_failure(void *arg, const struct config_backend *configured)
{
    struct process *p = arg;

    if (configured->host)
        names_doubt(p->names, configured->host, configured->port);
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

/* Logged, and kept for whoever asked for the reload: of several reasons the first. */
static void refuse_reload(char *why, size_t size, enum log_level level, const char *reason)
{
    log_message(level, "reload-failed", "%s", reason);
    if (!why[0])
        (void)snprintf(why, size, "%s", reason);
}

static struct config *read_again(const struct process *p, char *why, size_t why_size)
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
            refuse_reload(why, why_size, LOG_LEVEL_ERROR, line);
    }
    free(text);
    return config;
}

static bool same_http(const struct config *a, const struct config *b)
{
    return strcmp(a->http_address_text, b->http_address_text) == 0;
}

/* The point of no return: nothing below can fail. */
void process_commit(struct process *p, struct front *front)
{
    struct front *old = p->front;

    farm_commit(front->farm);
    farm_log_members(front->farm, old->farm);
    pthread_mutex_lock(&p->front_lock);
    p->front = front;
    pthread_mutex_unlock(&p->front_lock);
    health_set_farm(p->health, front->farm);
    counters_set_farm(p->counters, front->farm);
    front_remove_files(old, front);
    for (uint32_t i = 0; i < p->n_workers; i++)
        worker_set_front(p->workers[i], front);
    membership_part(p, old->farm);
    placement_serve(front->farm, clock_milliseconds());
    front_release(&old);
    names_follow(p->names, front->farm->config);
}

/* What listens beside the front, new. */
struct sideline {
    bool new_http, new_control;
    struct admin *admin;
    struct control_socket control;
};

/* False with a message in `error`, and then nothing is left of it. */
static bool open_sideline(struct process *p, struct sideline *s, const struct config *config, char *error,
                          size_t size)
{
    *s = (struct sideline){
        .new_http = !same_http(config, p->front->farm->config),
        .new_control = !operator_same_control(p, config),
        .control.fd = -1,
    };
    if (s->new_control && !operator_open_control(p, config, &s->control, error, size))
        return false;
    if (s->new_http)
        s->admin = operator_http(p, config, error, size);
    if (!s->new_http || !error[0])
        return true;
    control_socket_close(&s->control);
    return false;
}

static void drop_sideline(struct sideline *s)
{
    admin_stop(&s->admin);
    control_socket_close(&s->control);
}

static void commit_sideline(struct process *p, struct sideline *s)
{
    if (s->new_http) {
        admin_stop(&p->admin);
        p->admin = s->admin;
    }
    if (s->new_control)
        control_listen(p->control, &s->control);
}

static bool reload_with(struct process *p, struct config *config, char *why, size_t size)
{
    const struct config_log *log = &config->log;
    char error[256] = "out of memory";
    const char *log_error = NULL;
    struct sideline sideline;
    const struct name_source names = names_source(p->names);
    struct farm *farm = farm_create_found(config, &names, p->front->farm);
    struct front *front =
        farm ? front_create(farm, p->front, rate_redis_bank(p->rates), p->clients, error, sizeof error)
             : NULL;

    farm_release(&farm);
    if (!front) {
        refuse_reload(why, size, LOG_LEVEL_ERROR, error);
        return false;
    }
    if (!open_sideline(p, &sideline, config, error, sizeof error)) {
        refuse_reload(why, size, LOG_LEVEL_ERROR, error);
        front_discard(&front);
        return false;
    }
    if (log_reconfigure(log->target, log->path, log->format, log->level, &log_error) != 0) {
        refuse_reload(why, size, LOG_LEVEL_ERROR, log_error);
        drop_sideline(&sideline);
        front_discard(&front);
        return false;
    }
    process_commit(p, front);
    commit_sideline(p, &sideline);
    log_message(LOG_LEVEL_INFO, "reload", "the configuration of %s is in force", p->options->path);
    return true;
}

bool process_reload(struct process *p, char *why, size_t size)
{
    struct config *config;
    bool good;

    if (!p->options->path) {
        refuse_reload(why, size, LOG_LEVEL_WARNING, "started without a configuration file: nothing to read");
        return false;
    }
    if (p->draining) {
        refuse_reload(why, size, LOG_LEVEL_WARNING, "draining: too late for a new configuration");
        return false;
    }
    config = read_again(p, why, size);
    if (!config) {
        refuse_reload(why, size, LOG_LEVEL_ERROR, "the running configuration stays in force");
        return false;
    }
    keep_fixed(p, config);
    good = reload_with(p, config, why, size);
    config_release(&config);
    return good;
}

/* --- signals --- */

static void on_signal(struct ev_loop *loop, ev_signal *signal, int events)
{
    struct process *p = signal->data;
    char why[256] = "";

    (void)loop;
    (void)events;
    switch (signal->signum) {
    case SIGHUP: (void)process_reload(p, why, sizeof why); break;
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

/* Who the process is to become, and its control socket's owner then. */
static bool find_user(struct process *p, const char *user)
{
    const struct passwd *entry = user[0] ? getpwnam(user) : NULL;

    p->owner = (struct control_owner){ (uid_t)-1, (gid_t)-1 };
    if (user[0] && !entry) {
        fprintf(stderr, "weir: user: there is no user '%s'\n", user);
        return false;
    }
    if (entry && geteuid() != entry->pw_uid)
        p->owner = (struct control_owner){ entry->pw_uid, entry->pw_gid };
    return true;
}

static bool drop_privileges(struct process *p, const char *user)
{
    const struct control_owner become = p->owner;

    if (become.user == (uid_t)-1)
        return true;
    p->owner.user = (uid_t)-1; /* what is made from here on is its own */
    if (initgroups(user, become.group) != 0 || setgid(become.group) != 0 || setuid(become.user) != 0) {
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
    struct control_socket socket;
    struct farm *farm;

    p->n_workers = config->workers;
    if (log_start(config->log.target, config->log.path, config->log.format, config->log.level, &log_error) !=
        0) {
        fprintf(stderr, "weir: log: %s%s%s\n", config->log.path ? config->log.path : "",
                config->log.path ? ": " : "", log_error);
        return false;
    }
    farm = farm_create(config, NULL);
    p->rates = rate_redis_create(p->loop);
    p->clients = clients_create();
    if (farm && p->rates && p->clients)
        p->front = front_create(farm, NULL, rate_redis_bank(p->rates), p->clients, error, sizeof error);
    farm_release(&farm);
    if (!p->front) {
        fprintf(stderr, "weir: %s\n", error);
        return false;
    }
    use_descriptors(p->front);
    farm_commit(p->front->farm);
    /* Before HTTP, whose thread looks at them as soon as it runs. */
    if (!create_workers(p) || !operator_create_control(p) || !shared_create(p)) {
        fprintf(stderr, "weir: out of memory\n");
        return false;
    }
    p->admin = operator_http(p, config, error, sizeof error);
    if (error[0]) {
        fprintf(stderr, "weir: http: %s\n", error);
        return false;
    }
    if (!find_user(p, config->user))
        return false;
    if (!operator_open_control(p, config, &socket, error, sizeof error)) {
        fprintf(stderr, "weir: control: %s\n", error);
        return false;
    }
    control_listen(p->control, &socket);
    if (!drop_privileges(p, config->user))
        return false;
    p->health = health_open(
        p->loop, &(struct health_watcher){ on_backend_change, on_backend_admin, on_check_failure, p });
    p->names = names_open(p->loop, membership_changed, p);
    if (!p->health || !p->names || !start_workers(p)) {
        fprintf(stderr, "weir: out of memory or threads\n");
        return false;
    }
    health_set_farm(p->health, p->front->farm);
    counters_set_farm(p->counters, p->front->farm);
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
    /* What the workers have counted is told for the last time, and the loop turns meanwhile. */
    names_close(&p->names);
    counters_close(&p->counters);
    rate_redis_free(&p->rates);
    for (uint32_t i = 0; p->workers && i < p->n_workers; i++)
        worker_free(&p->workers[i]);
    clients_free(&p->clients);
    health_close(&p->health);
    mailbox_close(&p->mailbox); /* the last roster, perhaps */
    control_close(&p->control);
    if (p->front && !p->closed)
        front_remove_files(p->front, NULL);
    front_release(&p->front);
    free(p->workers);
    free(p->notes);
    for (int i = 0; i < PROCESS_SIGNALS; i++)
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
    p.grace.data = p.drain_limit.data = &p;
    membership_init(&p);
    p.started = clock_milliseconds();
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
