/*
 * A worker: one thread, one loop, its listening sockets, its sessions and their backend connections.
 *
 * A session never moves to another worker. All that workers share lies in the balancer's atomics and queues,
 * the listeners' counts, and the log. The control thread speaks to a worker by mail.
 */
#ifndef WEIR_PROXY_WORKER_H
#define WEIR_PROXY_WORKER_H

#include <ev.h>
#include <stdatomic.h>
#include <stdint.h>

#include "admin/http.h"
#include "net/mailbox.h"
#include "proxy/front.h"
#include "proxy/gather.h"
#include "smtp/dialog.h"

#define WORKER_BUFFER (256 * 1024) /* one read of a body */

/* Written by the worker, read by anyone. */
struct worker_stats {
    alignas(64) _Atomic uint64_t sessions_total;
    _Atomic uint64_t sessions_refused;
    _Atomic uint64_t sessions_active;
    _Atomic uint64_t bytes_in, bytes_out; /* of clients */
    _Atomic uint64_t handshakes[ADMIN_TLS_SIDES][ADMIN_TLS_RESULTS];
};

struct session;
struct link;
struct acceptor;

/* Sessions that may not try another backend yet (proxy/retry.c). */
struct retry_line {
    struct session *first, *last;
    ev_timer look;
};

struct worker {
    uint32_t index;
    pthread_t thread;
    struct ev_loop *loop;
    struct mailbox mailbox;
    struct front *front; /* held; what new sessions and placements go by */
    struct acceptor *acceptors;
    ev_timer accept_pause;    /* out of descriptors: look again later */
    struct session *sessions; /* a list */
    struct link *leaving;     /* backend connections that were told QUIT */
    ev_timer leaving_sweep;
    struct retry_line retries;
    int64_t now; /* ms, monotonic; taken once an iteration of the loop */
    ev_check tick;
    uint64_t random;
    uint64_t next_session;
    bool draining, stopping;
    /* Told when draining and the last session has gone; on the worker's thread. */
    void (*idle)(void *arg);
    void *idle_arg;
    struct smtp_wire wire;      /* scratch of whichever dialog runs */
    char buffer[WORKER_BUFFER]; /* what was just read */
    struct worker_stats stats;
};

/* `salt` makes session names differ between processes. NULL: out of memory or threads. */
struct worker *worker_create(uint32_t index, struct front *front, uint32_t salt, void (*idle)(void *),
                             void *idle_arg);
bool worker_start(struct worker *worker);

/* From the control thread, by mail. */
void worker_set_front(struct worker *worker, struct front *front); /* a reference is taken */
void worker_backend_down(struct worker *worker, struct backend *backend);
/* Sessions part with it between two transactions; those that have authenticated only if they `must`. */
void worker_backend_leave(struct worker *worker, struct backend *backend, bool must);
/* Fill in the part of a roster and send it back (proxy/gather.h). */
void worker_tell_sessions(struct worker *worker, struct gather_part *part);
void worker_close_listeners(struct worker *worker);
void worker_drain(struct worker *worker);
void worker_stop(struct worker *worker); /* sessions end now, then the thread */

/* After worker_stop(): wait for the thread. Only when all threads have ended may the first be freed, as one
 * may have mail for another until its end. */
void worker_join(struct worker *worker);
void worker_free(struct worker **worker);

/* How many sessions the process may have, by its descriptors; set once before the workers start. */
void worker_set_session_limit(uint32_t limit);
/* A session has ended, and its descriptors are free again. Any worker. */
void worker_session_ended(void);

#endif
