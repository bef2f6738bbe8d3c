/*
 * Health: which backends may get something new, and how much.
 *
 * Active checks and every decision live on the control thread. Workers only report signs; a report is a few
 * atomics, and a mail to the control thread when a decision may be due. What is decided is published in
 * struct backend (state, ceiling, milliweight).
 */
#ifndef WEIR_HEALTH_HEALTH_H
#define WEIR_HEALTH_HEALTH_H

#include <ev.h>

#include "balancer/farm.h"
#include "health/check.h"
#include "health/order.h"
#include "smtp/command.h"

/* What traffic met at a backend (balancing.md "Health", passive signs). */
enum health_sign {
    HEALTH_GOOD,    /* a MAIL was answered, or a transaction ended; by a 421 not */
    HEALTH_REFUSED, /* connect refused, reset, no route: suspended for 1 s, checked at once */
    HEALTH_HARD, /* connect or banner timeout, banner 554 or garbage, close that is not behind a refusal: 3 in
                    a row eject */
    HEALTH_LOAD, /* banner 421, 421 in mid-session that is not about the client: the limit falls; 3 in a row
                    at the lowest limit eject */
};

struct health;

/* Called on the control thread's loop, behind what they tell of; each may be NULL. */
struct health_watcher {
    /* A backend's published state has changed: the proxy moves sessions off one that went DOWN. */
    void (*on_change)(void *arg, struct backend *backend, enum backend_state from);
    /* Its admin state has: sessions leave one that is in DRAIN or MAINT. */
    void (*on_admin)(void *arg, struct backend *backend, enum backend_admin admin);
    /* A check of what this row stands for has failed. */
    void (*on_failure)(void *arg, const struct config_backend *configured);
    void *arg;
};

/* On the control thread's loop. The watcher is copied; NULL: nobody. */
struct health *health_open(struct ev_loop *loop, const struct health_watcher *watcher);
/* Watch the backends of this farm: new ones are checked at once, those that are gone no longer, the rest keep
 * their history. Who comes to a pool where others are at work begins slowly. Holds the farm. */
void health_set_farm(struct health *health, struct farm *farm);
void health_close(struct health **health);

/* From any thread. */
void health_report(struct backend *backend, enum health_sign sign, int64_t now);
/* What a relay said to a command of a transaction, or that it said nothing. */
struct health_reply {
    enum smtp_verb verb;  /* MAIL, RCPT, DATA, BDAT */
    bool final;           /* the reply to a whole message */
    int code;             /* 0: none came after the end of data */
    uint8_t status_class; /* of its enhanced status code: 4 of "4.3.1"; 0: it had none */
    uint16_t subject;     /* 3 of "4.3.1" */
    uint32_t took;        /* ms */
    bool slowed;          /* to a client that it slows down: how long it took says nothing of others */
};
/* From the worker of that index: a write to memory of its own, and a mail if the relay says that it is in
 * trouble: 451 or 452 to MAIL, DATA or a message, with 4.3.x or without an enhanced code, or no reply to a
 * message. Everything else is the message's own affair: one spam run must empty no farm. How long it took to
 * accept MAIL and RCPT is counted too, for its limit. */
void health_report_reply(struct backend *backend, uint32_t worker, const struct health_reply *reply);
/* The first MAIL of a session has been answered there, or the session has failed there (with the HEALTH_HARD
 * that is reported beside it). */
void health_report_session(struct backend *backend, uint32_t worker, bool failed);
/* It carries more than next to nothing, and has answered MAIL or RCPT in the last two seconds. */
bool health_at_work(const struct backend *backend);
/* Traffic read this EHLO from the backend: if it differs from what was known, the control thread updates what
 * pools offer. */
void health_report_capabilities(struct backend *backend, const struct smtp_capabilities *capabilities);

/* A source's word on a backend, in place of its last one: in force at once, and over reloads, until the
 * source says another or the process ends. Control thread. A change of the folded admin state is logged and
 * told to `on_admin`. */
void health_order(struct health *health, struct backend *backend, enum order_source source,
                  const struct order *order);
struct orders health_orders(const struct backend *backend);
/* What the operator has said of addresses of `name` (or of the one with that full name) that it has not now
 * is remembered until it has them again, over reloads, as long as the name is configured. `change` is called
 * with each such word; what it leaves of it is kept. Control thread. */
void health_change_absent(struct health *health, const char *name,
                          void (*change)(void *arg, const char *full_name, struct order *order), void *arg);

/* What other instances have found out about a backend. */
struct health_peers {
    uint32_t down;      /* so many can't reach it */
    uint32_t instances; /* live ones, this one too */
    uint32_t limit;     /* the median of their overload limits; BACKEND_NO_CEILING: none */
};
/* One more that can't reach it: looked at here within a second, each instance at a moment of its own. As many
 * as max(2, half of the instances): ejected without evidence of one's own. Their limit counts beside one's
 * own, whichever is lower. Control thread. */
void health_hear(struct health *health, struct backend *backend, const struct health_peers *peers);

/* Other instances have had so many more: they count for the overload limit as one's own do. NULL: there will
 * be none for a time. Control thread. */
void health_hear_replies(struct backend *backend, const struct backend_replies *more);
/* One's own since the beginning. False: the overload limit does not go by them. Control thread. */
bool health_replies(const struct backend *backend, struct backend_replies *totals);
/* What this instance itself has found, for the others: whether it can't reach the backend, and its overload
 * limit: 0 where it has had replies and found none, UINT32_MAX where it has had neither these nor a 421. Not
 * the limit in force: a median of medians would never let go. */
void health_finding(const struct backend *backend, bool *down, uint32_t *limit);

/* What all checks spent their time on. Written by the control thread; any thread. */
extern struct histogram health_stage_times[CHECK_STAGES];

/* Why a backend is in its state and since when, for logs and /api/status. Any thread that holds the backend.
 */
struct health_view {
    enum backend_state state;
    char reason[96];
    int64_t since; /* Unix time, ms */
    /* By configuration and orders: what it may get when nothing is wrong with it. */
    uint32_t weight, max_connections; /* 0: no limit */
    bool weight_ordered;              /* an order's, not the configuration's */
    enum order_source admin_source;   /* whose word the admin state is, unless it is READY */
    /* The overload limit that is in force, and with `adaptive-limit: observe` the one that would be (else the
     * same); BACKEND_NO_CEILING: none but max-connections. */
    uint32_t limit, limit_wanted;
    bool limit_observed;
    uint64_t reply_short, reply_baseline; /* of MAIL and RCPT now, and as usual, µs; 0: not known */
    bool own_sign;            /* a reply or a 421 was had here lately, not only by other instances */
    struct check_times check; /* of the last that ended */
    bool has_agent;
    bool agent_answers; /* it could be reached and understood when it was last asked */
    bool agent_down;    /* its word: down, fail or stopped */
    struct order agent; /* its word on the rest; limit and weight as in health/order.h */
};
void health_view(const struct backend *backend, struct health_view *out);

#endif
