/*
 * The front: what one configuration means to the workers. An immutable, reference-counted snapshot.
 *
 *     front ── farm ── config
 *       ├── rules       of limits, with their buckets
 *       ├── listeners   policy for the dialog, the pool, counts that survive a reload
 *       └── sockets     one descriptor a worker for each address
 *
 * The control thread makes it; a worker holds the one it works by, and each session the one it began with.
 */
#ifndef WEIR_PROXY_FRONT_H
#define WEIR_PROXY_FRONT_H

#include "balancer/farm.h"
#include "counters/clients.h"
#include "counters/rate.h"
#include "smtp/dialog.h"

/* What survives of a listener, matched by name. */
struct listener_state {
    _Atomic uint32_t references;
    char *name;
    _Atomic uint32_t sessions;
    struct clients *clients; /* the process's */
};

/* A rule that counts what comes to a listener. */
struct limit {
    enum config_limit_by by;
    struct rate *rate; /* the front's */
};

struct limits {
    size_t n;
    bool by_sender; /* one of them is */
    struct limit *rules;
};

struct listener {
    const struct config_listener *config;
    size_t pool; /* index in the farm */
    struct smtp_policy policy;
    struct limits limits;
    struct listener_state *state; /* held */
};

/* A bound address. The descriptors belong to the workers once the front is published. */
struct listening {
    struct address address;
    size_t listener; /* index */
    int *fds;        /* one a worker */
    bool inherited;  /* from the front before: not ours to close if this one comes to nothing */
};

struct front {
    _Atomic uint32_t references;
    struct farm *farm;        /* held */
    struct rate_rules *rules; /* held */
    uint32_t workers;
    size_t n_listeners;
    struct listener *listeners;
    size_t n_sockets;
    struct listening *sockets;
};

/* Build the front for `farm`, taking over what `old` (may be NULL) has bound already. NULL on failure, with
 * the reason in `error`
 * ("listeners.smtp: 127.0.0.1:25: …"); then nothing that was bound remains, and `old` is as it was. */
struct front *front_create(struct farm *farm, struct front *old, struct rate_bank *bank,
                           struct clients *clients, char *error, size_t size);
/* Give up a front that was never published: its new sockets are closed. */
void front_discard(struct front **front);
/* Remove the files of Unix sockets that `next` (may be NULL) does not listen on, before they are closed: a
 * file left behind would be taken for a listening socket, and one removed later may be another process's by
 * then. */
void front_remove_files(const struct front *front, const struct front *next);

struct front *front_hold(struct front *front);
void front_release(
    struct front **front); /* the last reference frees; descriptors are the workers' to close */

#endif
