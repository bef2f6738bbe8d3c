#include "proxy/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "balancer/placement.h"
#include "net/clock.h"
#include "net/log.h"
#include "proxy/link.h"
#include "proxy/session.h"

#define ACCEPT_BATCH   16  /* connections taken before other events have their turn */
#define ACCEPT_PAUSE_S 0.1 /* out of descriptors, or at the process's limit: look again after this */

struct acceptor {
    ev_io io; /* first: the watcher is the acceptor */
    struct acceptor *next;
    struct worker *worker;
    size_t listener; /* index in worker->front */
};

/* Each session may need a second descriptor for its backend, so the process stops accepting before accept()
 * fails. */
static _Atomic uint32_t sessions_in_process;
static uint32_t session_limit = UINT32_MAX;

void worker_set_session_limit(uint32_t limit)
{
    session_limit = limit;
}

void worker_session_ended(void)
{
    atomic_fetch_sub_explicit(&sessions_in_process, 1, memory_order_relaxed);
}

/* --- accepting --- */

static void pause_accepting(struct worker *worker)
{
    for (struct acceptor *a = worker->acceptors; a; a = a->next)
        ev_io_stop(worker->loop, &a->io);
    ev_timer_set(&worker->accept_pause, ACCEPT_PAUSE_S, 0.);
    ev_timer_start(worker->loop, &worker->accept_pause);
}

static void on_pause_over(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct worker *worker = timer->data;

    (void)events;
    for (struct acceptor *a = worker->acceptors; a; a = a->next)
        ev_io_start(loop, &a->io);
}

static void accept_failed(struct worker *worker, int error)
{
    static _Atomic int64_t logged_at;
    int64_t last = atomic_load(&logged_at);

    if (error == EAGAIN || error == EINTR || error == ECONNABORTED || error == EPROTO)
        return;
    /* Once in ten seconds over all workers is enough to know. */
    if ((last == 0 || worker->now - last > 10000) &&
        atomic_compare_exchange_strong(&logged_at, &last, worker->now))
        log_message(LOG_LEVEL_WARNING, "accept", "cannot accept: %s; pausing", strerror(error));
    pause_accepting(worker);
}

static int accept_one(int fd, struct peer *peer)
{
    union {
        struct sockaddr sa;
        struct sockaddr_storage storage;
    } address;
    socklen_t length = sizeof address;
    int accepted = accept4(fd, &address.sa, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (accepted < 0)
        return -errno;
    peer_from_sockaddr(peer, &address.sa);
    return accepted;
}

static void on_connection(struct ev_loop *loop, ev_io *io, int events)
{
    struct acceptor *acceptor = (struct acceptor *)io;
    struct worker *worker = acceptor->worker;

    (void)loop;
    (void)events;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        struct peer peer;
        int fd;

        if (atomic_fetch_add_explicit(&sessions_in_process, 1, memory_order_relaxed) >= session_limit) {
            worker_session_ended();
            pause_accepting(worker);
            return;
        }
        fd = accept_one(io->fd, &peer);
        if (fd < 0) {
            worker_session_ended();
            accept_failed(worker, -fd);
            return;
        }
        session_begin(worker, acceptor->listener, fd, &peer);
    }
}

static void acceptor_open(struct worker *worker, int fd, size_t listener)
{
    struct acceptor *acceptor = calloc(1, sizeof *acceptor);

    if (!acceptor) {
        log_message(LOG_LEVEL_ERROR, "accept", "out of memory: a listening socket is not served by worker %u",
                    worker->index);
        close(fd);
        return;
    }
    ev_io_init(&acceptor->io, on_connection, fd, EV_READ);
    acceptor->worker = worker;
    acceptor->listener = listener;
    acceptor->next = worker->acceptors;
    worker->acceptors = acceptor;
    ev_io_start(worker->loop, &acceptor->io);
}

/* What waits in the socket's queue has been acknowledged by the kernel, so it is served, by the rules that it
 * came under. */
static void acceptor_close(struct acceptor *acceptor, bool serve_queue)
{
    struct worker *worker = acceptor->worker;
    struct peer peer;
    int fd;

    ev_io_stop(worker->loop, &acceptor->io);
    while (serve_queue && (fd = accept_one(acceptor->io.fd, &peer)) >= 0) {
        atomic_fetch_add_explicit(&sessions_in_process, 1, memory_order_relaxed);
        session_begin(worker, acceptor->listener, fd, &peer);
    }
    close(acceptor->io.fd);
    free(acceptor);
}

static void close_acceptors(struct worker *worker, bool serve_queue)
{
    while (worker->acceptors) {
        struct acceptor *acceptor = worker->acceptors;
        worker->acceptors = acceptor->next;
        acceptor_close(acceptor, serve_queue);
    }
    ev_timer_stop(worker->loop, &worker->accept_pause);
}

static const struct listening *listening_of(const struct worker *worker, const struct front *front, int fd)
{
    for (size_t i = 0; i < front->n_sockets; i++) {
        if (front->sockets[i].fds[worker->index] == fd)
            return &front->sockets[i];
    }
    return NULL;
}

static bool served(const struct worker *worker, int fd)
{
    for (const struct acceptor *a = worker->acceptors; a; a = a->next) {
        if (a->io.fd == fd)
            return true;
    }
    return false;
}

/* The worker's sockets become those of `front`. */
static void adopt_sockets(struct worker *worker, struct front *front)
{
    struct acceptor **at = &worker->acceptors;

    while (*at) {
        struct acceptor *acceptor = *at;

        if (listening_of(worker, front, acceptor->io.fd)) {
            at = &acceptor->next;
            continue;
        }
        *at = acceptor->next;
        acceptor_close(acceptor, true);
    }
    for (struct acceptor *a = worker->acceptors; a; a = a->next)
        a->listener = listening_of(worker, front, a->io.fd)->listener;
    for (size_t i = 0; i < front->n_sockets; i++) {
        if (!served(worker, front->sockets[i].fds[worker->index]))
            acceptor_open(worker, front->sockets[i].fds[worker->index], front->sockets[i].listener);
    }
}

/* --- mail --- */

enum order_kind {
    ORDER_FRONT,
    ORDER_BACKEND_DOWN,
    ORDER_BACKEND_LEAVE,
    ORDER_TELL_SESSIONS,
    ORDER_CLOSE_LISTENERS,
    ORDER_DRAIN,
    ORDER_STOP,
};

struct letter {
    struct mail mail;
    enum order_kind order;
    struct front *front;     /* held */
    struct backend *backend; /* held */
    bool must;
    struct gather_part *part;
};

/* An entry may end any session, its neighbour in the list too (a place that comes free goes on by mail, never
 * at once): the next one is taken before. */
static void each_session(struct worker *worker, void (*do_to)(struct session *))
{
    struct session *next;

    for (struct session *s = worker->sessions; s; s = next) {
        next = session_next(s);
        do_to(s);
    }
}

static void set_front(struct worker *worker, struct front *front)
{
    adopt_sockets(worker, front);
    front_release(&worker->front);
    worker->front = front;
    each_session(worker, session_follow_routes);
    each_session(worker, session_follow_limits);
    /* Who took a seat here between the control thread's look at the queues and now, took it by the old one.
     */
    placement_serve(front->farm, worker->now);
}

static void backend_down(struct worker *worker, struct backend *backend)
{
    struct session *next;

    for (struct session *s = worker->sessions; s; s = next) {
        next = session_next(s);
        session_backend_down(s, backend);
    }
    backend_release(&backend);
}

static void backend_leave(struct worker *worker, struct backend *backend, bool must)
{
    struct session *next;

    for (struct session *s = worker->sessions; s; s = next) {
        next = session_next(s);
        session_backend_leave(s, backend, must);
    }
    backend_release(&backend);
}

static void drain(struct worker *worker)
{
    worker->draining = true;
    each_session(worker, session_drain);
    if (!worker->sessions && worker->idle)
        worker->idle(worker->idle_arg);
}

static void stop(struct worker *worker)
{
    close_acceptors(worker, false);
    worker->idle = NULL;
    each_session(worker, session_stop);
    link_close_leaving(worker);
    ev_break(worker->loop, EVBREAK_ALL);
}

static void deliver(struct mail *mail, void *owner)
{
    struct letter *letter = (struct letter *)mail;
    struct worker *worker = owner;

    worker->now = clock_milliseconds();
    switch (letter->order) {
    case ORDER_FRONT: set_front(worker, letter->front); break;
    case ORDER_BACKEND_DOWN: backend_down(worker, letter->backend); break;
    case ORDER_BACKEND_LEAVE: backend_leave(worker, letter->backend, letter->must); break;
    case ORDER_TELL_SESSIONS: gather_answer(letter->part, worker); break;
    case ORDER_CLOSE_LISTENERS: close_acceptors(worker, true); break;
    case ORDER_DRAIN: drain(worker); break;
    case ORDER_STOP: stop(worker); break;
    }
    free(letter);
}

static void order(struct worker *worker, struct letter contents)
{
    struct letter *letter = malloc(sizeof *letter);

    if (!letter) {
        /* A few octets that a running process can't get: nothing sensible is left to do. */
        log_message(LOG_LEVEL_ERROR, "memory", "out of memory for an order to a worker");
        abort();
    }
    *letter = contents;
    letter->mail.deliver = deliver;
    mailbox_post(&worker->mailbox, (struct mail *)letter); /* deliver() frees it */
}

void worker_set_front(struct worker *worker, struct front *front)
{
    order(worker, (struct letter){ .order = ORDER_FRONT, .front = front_hold(front) });
}

void worker_backend_down(struct worker *worker, struct backend *backend)
{
    order(worker, (struct letter){ .order = ORDER_BACKEND_DOWN, .backend = backend_hold(backend) });
}

void worker_backend_leave(struct worker *worker, struct backend *backend, bool must)
{
    order(worker,
          (struct letter){ .order = ORDER_BACKEND_LEAVE, .backend = backend_hold(backend), .must = must });
}

void worker_tell_sessions(struct worker *worker, struct gather_part *part)
{
    order(worker, (struct letter){ .order = ORDER_TELL_SESSIONS, .part = part });
}

void worker_close_listeners(struct worker *worker)
{
    order(worker, (struct letter){ .order = ORDER_CLOSE_LISTENERS });
}

void worker_drain(struct worker *worker)
{
    order(worker, (struct letter){ .order = ORDER_DRAIN });
}

void worker_stop(struct worker *worker)
{
    order(worker, (struct letter){ .order = ORDER_STOP });
}

/* --- life --- */

static void on_tick(struct ev_loop *loop, ev_check *check, int events)
{
    (void)loop;
    (void)events;
    ((struct worker *)check->data)->now = clock_milliseconds();
}

struct worker *worker_create(uint32_t index, struct front *front, uint32_t salt, void (*idle)(void *),
                             void *idle_arg)
{
    struct worker *worker = aligned_alloc(alignof(struct worker), sizeof *worker);

    if (!worker)
        return NULL;
    memset(worker, 0, sizeof *worker);
    worker->index = index;
    worker->loop = ev_loop_new(EVFLAG_AUTO);
    if (!worker->loop) {
        free(worker);
        return NULL;
    }
    worker->front = front_hold(front);
    worker->random = ((uint64_t)salt << 32 | 0x9e3779b9u) + index * UINT64_C(0x632be59bd9b4e019);
    worker->next_session = (uint64_t)salt << 32 | (uint64_t)index << 24;
    worker->idle = idle;
    worker->idle_arg = idle_arg;
    worker->now = clock_milliseconds();
    mailbox_open(&worker->mailbox, worker->loop, worker);
    ev_check_init(&worker->tick, on_tick);
    ev_set_priority(&worker->tick, EV_MAXPRI);
    worker->tick.data = worker;
    ev_check_start(worker->loop, &worker->tick);
    ev_init(&worker->accept_pause, on_pause_over);
    worker->accept_pause.data = worker;
    ev_timer_init(&worker->leaving_sweep, link_sweep, 0., 0.25);
    worker->leaving_sweep.data = worker;
    retry_open(worker);
    return worker;
}

static void *run(void *arg)
{
    struct worker *worker = arg;

    adopt_sockets(worker, worker->front);
    ev_run(worker->loop, 0);
    return NULL;
}

bool worker_start(struct worker *worker)
{
    sigset_t all, before;
    bool started;

    /* Signals are the control thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(&worker->thread, NULL, run, worker) == 0;
    if (!started)
        worker->thread = 0; /* nothing to join, whatever was left there */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

void worker_join(struct worker *worker)
{
    if (worker && worker->thread)
        pthread_join(worker->thread, NULL);
}

void worker_free(struct worker **worker)
{
    struct worker *gone = *worker;

    *worker = NULL;
    if (!gone)
        return;
    mailbox_close(&gone->mailbox);
    ev_check_stop(gone->loop, &gone->tick);
    front_release(&gone->front);
    ev_loop_destroy(gone->loop);
    free(gone);
}
