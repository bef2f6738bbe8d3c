/*
 * HTTP: /metrics for Prometheus, /healthz and /readyz for whoever starts and routes to this process, / and
 * /api/status for people and their programs.
 *
 * It runs in a thread of its own (libmicrohttpd's), so that no scrape takes time from mail. Nothing can be
 * changed through it, and what it shows is for operators: it should listen on a private address.
 */
#ifndef WEIR_ADMIN_HTTP_H
#define WEIR_ADMIN_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "balancer/farm.h"
#include "counters/counters.h"
#include "counters/rate.h"
#include "net/address.h"

/* TLS handshakes are counted by whom they were with and how they ended. */
enum admin_tls_side { ADMIN_TLS_CLIENT, ADMIN_TLS_BACKEND };
#define ADMIN_TLS_SIDES (ADMIN_TLS_BACKEND + 1)
enum admin_tls_result { ADMIN_TLS_FULL, ADMIN_TLS_RESUMED, ADMIN_TLS_FAILED };
#define ADMIN_TLS_RESULTS (ADMIN_TLS_FAILED + 1)

/* Since the start, over all workers. */
struct admin_counters {
    uint64_t sessions_active;
    uint64_t sessions_total;
    uint64_t sessions_refused; /* turned away at the door: too many, or from an address not allowed */
    uint64_t bytes_in;         /* received from clients */
    uint64_t bytes_out;        /* sent to clients */
    uint64_t handshakes[ADMIN_TLS_SIDES][ADMIN_TLS_RESULTS];
};

/* What is shown of the proxy, which lies on a floor above. Called on HTTP's thread and on the control thread.
 */
struct admin_ops {
    void *arg;
    int64_t started;                 /* ms, monotonic */
    struct farm *(*farm)(void *arg); /* in force now; held, the caller releases it */
    bool (*draining)(void *arg);
    void (*counters)(void *arg, struct admin_counters *out);
    void (*shared)(void *arg, struct counters_status *out); /* with other instances */
    struct rate_rules *(*rules)(void *arg);                 /* of limits, likewise */
};

struct admin;

/* Listen and answer. The ops are copied. NULL with a message in `error` on failure. */
struct admin *admin_start(const struct address *address, const struct admin_ops *ops, char *error,
                          size_t size);
/* Requests under way are broken off; afterwards the ops are not called any more. Clears the pointer; NULL is
 * fine. */
void admin_stop(struct admin **admin);

/* Whether mail can be taken: not draining, and some pool has a backend in service. Of several pools one
 * suffices, for one that is empty must not take the mail of the others away. */
bool admin_ready(const struct admin_ops *ops);

#endif
