/*
 * A backend: one relay, with the places that sessions hold on it.
 *
 * Backends are matched by identity over reloads, so that counts and health survive: by the name in the
 * configuration and, where that stands for a host name, by the address that was found. Workers read and count
 * through atomics; everything that decides (health, reload) runs on the control thread and publishes its
 * verdict here as a few numbers. What a worker looks at per placement fits two cache lines.
 */
#ifndef WEIR_BALANCER_BACKEND_H
#define WEIR_BALANCER_BACKEND_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "net/address.h"
#include "smtp/capability.h"

enum backend_state {
    BACKEND_INIT, /* no check has ended yet: a placement waits for it */
    BACKEND_UP,
    BACKEND_DEGRADED,
    BACKEND_DOWN,      /* by active checks */
    BACKEND_EJECTED,   /* by what traffic saw */
    BACKEND_HALF_OPEN, /* back from an ejection on trial */
};
#define BACKEND_STATES (BACKEND_HALF_OPEN + 1)
const char *backend_state_name(enum backend_state state); /* "up", "half-open" … as in the interface */

/* The word above the state, strictest last: an operator's, or the relay's own (health/order.h). */
enum backend_admin {
    BACKEND_READY,
    BACKEND_DRAIN, /* nothing new; sessions leave at their next transaction boundary, if they can */
    BACKEND_MAINT, /* the same, no checks, and those that can't move hear 421 there */
};
#define BACKEND_ADMINS (BACKEND_MAINT + 1)
const char *backend_admin_name(enum backend_admin admin); /* "ready", "drain", "maint" */

#define BACKEND_NO_CEILING      UINT32_MAX
#define BACKEND_MILLIWEIGHT_MAX 1000000 /* of a weight of 1000, the highest that can be configured */

/* Set in `capabilities` once an EHLO of the backend was seen. Before that (checks that end before EHLO, no
 * traffic yet) it narrows nothing that the pool offers, and is trusted with what every relay of today takes:
 * 8BITMIME and nothing more. */
#define BACKEND_CAPABILITIES_KNOWN (1u << 31)

/* What is known of the other instances' hold on a backend. */
struct backend_news {
    uint32_t others;    /* places that they hold */
    uint32_t instances; /* live ones, this one too; at least 1 */
    uint32_t share;     /* thousandths of the limit that this instance may use; all but in an outage: 1000 */
    bool anew;          /* what is placed from now on counts against the allowance; else, as before */
};
#define BACKEND_WHOLE 1000

/* Replies of a backend to MAIL and RCPT, 2xx and 3xx. */
struct backend_replies {
    uint64_t replies;      /* so many, … */
    uint64_t milliseconds; /* … the sum of their times … */
    uint64_t squares;      /* … and of the squares of these, ms² */
};

struct backend {
    /* Its identity: none of these texts changes while it lives. */
    char *configured_name;
    char *found_at;              /* the address without its port; "": given as an address, or not found yet */
    char *full_name;             /* "relay@192.0.2.1"; the configured name where `found_at` is empty */
    _Atomic bool one_of_several; /* its name has other addresses beside: it is called by its full name */
    _Atomic uint32_t references;
    uint32_t id;        /* unique in the process, never reused */
    uint64_t name_hash; /* of its identity; the same in every process, so that `hash` sends a client the same
                           way everywhere */

    /* Read by every placement; written by the control thread. */
    alignas(64) _Atomic uint32_t state; /* enum backend_state */
    _Atomic uint32_t admin;             /* enum backend_admin */
    _Atomic uint32_t ceiling;     /* places that may be taken here: every limit folded into one number */
    _Atomic uint32_t milliweight; /* weight × 1000 × slow start and so on; 0: nothing new */
    _Atomic uint32_t
        capabilities;            /* enum smtp_capability bits of its last EHLO, BACKEND_CAPABILITIES_KNOWN */
    _Atomic uint32_t trial;      /* places of this instance while it is HALF-OPEN; else no ceiling */
    _Atomic uint64_t size_limit; /* of its SIZE; 0: none */
    _Atomic int64_t suspended_until; /* ms of the monotonic clock; by any worker that saw a refused connect */
    _Atomic int64_t back_since; /* ms of the same: it was out, or elsewhere, before; 0: it never was in use */
    _Atomic uint32_t limit;     /* places over all instances; without others the ceiling is the same */
    _Atomic uint32_t others;    /* places that other instances held when last heard of */
    _Atomic(void *) health;     /* health's record of it, opaque here; NULL: nobody watches */

    /* Written by every placement. */
    alignas(64) _Atomic uint32_t connections; /* places taken, connecting included */
    _Atomic uint64_t peak_cost;               /* peak-ewma: cost and time of last change, packed */
    _Atomic uint32_t hard_in_a_row;           /* passive signs, reset by a success (health/) */
    _Atomic uint32_t loads_in_a_row;

    /* The settings of the last configuration; the control thread's alone. */
    uint32_t weight, max_connections, priority;
    /* What the ceiling is made of, beside the limit; the control thread's alone. */
    struct backend_news news;
    uint32_t held_at_news; /* places held here when the allowance was last counted anew */
    uint64_t farm_serial;  /* of the newest farm that has it */
    bool left;             /* the farm has it no more, or had it no more until now */
    /* Where it is: a name may resolve to another address at any time. */
    pthread_mutex_t address_lock;
    struct address address; /* length 0: not resolved yet */
};

/* One that is given by its address, or whose name is not resolved yet. NULL when memory is out. */
struct backend *backend_create(const char *configured_name);
/* One of the addresses of a name. `found_at`: as in the struct. */
struct backend *backend_create_found(const char *configured_name, const char *found_at);
struct backend *backend_hold(struct backend *backend);
void backend_release(struct backend **backend); /* gives the reference back; the last one frees */

/* What logs, metrics and operators call it: its configured name, or its full name while it is one of several.
 * Lives as long as the backend. Any thread. */
static inline const char *backend_name(const struct backend *backend)
{
    return atomic_load_explicit(&backend->one_of_several, memory_order_relaxed) ? backend->full_name
                                                                                : backend->configured_name;
}

/* The limit over all instances; BACKEND_NO_CEILING: none. Control thread. True if more places may be taken
 * here than before. */
bool backend_set_limit(struct backend *backend, uint32_t limit);
/* On trial: so many places of this instance, whatever the others hold; BACKEND_NO_CEILING: it is not. Control
 * thread. As above. */
bool backend_set_trial(struct backend *backend, uint32_t places);
/* What it may have now over all instances; BACKEND_NO_CEILING: as much as comes. Any thread. */
uint32_t backend_limit(const struct backend *backend);
/* News of the others. Control thread. As above.
 *
 * Of the room that is left each of N instances takes at most a share of 2/N before it is counted anew
 * (rounded up), so that they don't all fill the same hole (balancing.md, "allow"). News of one other instance
 * is no reason for that while the rest has not been heard, so it is the caller who says when. What was placed
 * less what was released since is the change of our own count: the allowance is but another ceiling on it,
 * and placement goes on comparing two numbers. */
bool backend_set_news(struct backend *backend, const struct backend_news *news);

/* Take a place if the ceiling allows it. Exact: over any number of threads never one more than the ceiling.
 */
bool backend_take_place(struct backend *backend);
/* Give it back. Called from one function only, placement_return(). */
void backend_return_place(struct backend *backend);

/* Whatever its state: it has a weight, and nobody has said that it gets nothing new. */
static inline bool backend_admitted(const struct backend *backend)
{
    return atomic_load_explicit(&backend->admin, memory_order_acquire) == BACKEND_READY &&
           atomic_load_explicit(&backend->milliweight, memory_order_relaxed) > 0;
}

/* The state allows something new: UP, DEGRADED or HALF-OPEN, and it is admitted. */
static inline bool backend_in_service(const struct backend *backend)
{
    uint32_t state = atomic_load_explicit(&backend->state, memory_order_acquire);

    return (state == BACKEND_UP || state == BACKEND_DEGRADED || state == BACKEND_HALF_OPEN) &&
           backend_admitted(backend);
}

/* Usable for something new at `now` (ms, monotonic): in service and not suspended. Says nothing of room. */
static inline bool backend_usable(const struct backend *backend, int64_t now)
{
    return backend_in_service(backend) &&
           atomic_load_explicit(&backend->suspended_until, memory_order_relaxed) <= now;
}

/* Out and back since `began` (ms, monotonic): what a connection of then ends with was its state before. */
static inline bool backend_was_out_since(const struct backend *backend, int64_t began)
{
    return began < atomic_load_explicit(&backend->back_since, memory_order_relaxed);
}

/* Sequentially consistent, because the wait queue relies on it: see placement.c, "No wake-up is lost". */
static inline bool backend_has_room(const struct backend *backend)
{
    return atomic_load(&backend->connections) < atomic_load(&backend->ceiling);
}

/* Whether it takes a transaction that uses `needs` (enum smtp_capability bits; PIPELINING is Weir's own and
 * not looked at) and whose message has `size` octets (0: not known). */
bool backend_capable(const struct backend *backend, uint32_t needs, uint64_t size);
/* What its EHLO said. Any thread. */
void backend_set_capabilities(struct backend *backend, const struct smtp_capabilities *capabilities);

/* Copy the address out. False while it is not resolved. */
bool backend_address(struct backend *backend, struct address *out);
void backend_set_address(struct backend *backend, const struct address *address);

#endif
