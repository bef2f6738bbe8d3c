/*
 * A driver of the dialog as dialog.h demands it, with an observer on each of its two sides that checks what
 * any dialog must keep to. Shared by the dialog tables (tests/unit/test_dialog.c) and the fuzz target
 * (tests/fuzz/fuzz_dialog.c).
 *
 *      driver_client(), driver_backend(), driver_event()        feed, then run until nothing moves
 *      driver->to_client, to_backend, actions                   what came of it; the user empties them
 *
 * Octets are fed from memory of just their size, which is gone before the next call.
 */
#ifndef TESTS_DIALOGS_DRIVER_H
#define TESTS_DIALOGS_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/dialog.h"
#include "tests/dialogs/observer.h"

struct text {
    char *data;
    size_t size, room;
};

static inline void text_add(struct text *text, const void *data, size_t size)
{
    if (!size)
        return;
    if (text->size + size > text->room) {
        text->room = (text->size + size) * 2;
        text->data = realloc(text->data, text->room);
        if (!text->data)
            abort();
    }
    memcpy(text->data + text->size, data, size);
    text->size += size;
}

static inline void text_take(struct text *text, size_t size)
{
    text->size -= size;
    if (text->size)
        memmove(text->data, text->data + size, text->size);
}

static inline void text_free(struct text *text)
{
    free(text->data);
    *text = (struct text){ 0 };
}

#define DRIVER_ACTIONS 4096
struct driver {
    struct smtp_dialog dialog;
    struct smtp_wire *wire;
    struct observer observer;
    struct text client_in, backend_in; /* not consumed yet */
    struct text to_client, to_backend;
    struct smtp_action_arg actions[DRIVER_ACTIONS];
    struct smtp_xclient xclients[DRIVER_ACTIONS];
    char whom[DRIVER_ACTIONS][64]; /* of NEED_BACKEND and ROUTE: " domain=x" or " user=u" */
    struct smtp_transaction transactions[DRIVER_ACTIONS]; /* beside its action, whose pointer soon dangles */
    size_t n_actions;
    struct smtp_gate gate;
    unsigned messages, recipients;    /* that the gate lets through */
    unsigned taken, taken_recipients; /* of the message last let in, and its own: what may be taken back */
    bool backend;                     /* a connection is there, or being made */
    bool wanted;
    bool asked; /* ROUTE is out */
    bool closed;
};

static inline void driver_begin(struct driver *d, const struct smtp_policy *policy,
                                const struct smtp_capabilities *offer, bool may_relay)
{
    memset(&d->dialog, 0, sizeof d->dialog);
    d->n_actions = 0;
    d->backend = d->wanted = d->asked = d->closed = false;
    d->wire = calloc(1, sizeof *d->wire);
    if (!d->wire)
        abort();
    smtp_dialog_init(&d->dialog, policy, d->wire, offer, may_relay);
    observer_begin(&d->observer, policy->newline == SMTP_NEWLINE_REJECT);
}

static inline uint32_t driver_count(unsigned *left, unsigned *taken)
{
    if (!*left)
        return 11001; /* ms: 12 s, for whoever counts in whole ones */
    --*left;
    ++*taken;
    return 0;
}

static inline uint32_t driver_message(void *arg, struct smtp_span domain)
{
    struct driver *d = arg;

    CHECK(domain.data && domain.size < SMTP_LINE_MAX, "a message without a sender");
    d->taken = d->taken_recipients = 0;
    return driver_count(&d->messages, &d->taken);
}

static inline uint32_t driver_recipient(void *arg)
{
    struct driver *d = arg;

    return driver_count(&d->recipients, &d->taken_recipients);
}

static inline void driver_take_back(void *arg, unsigned recipients)
{
    struct driver *d = arg;

    CHECK(d->taken == 1 && recipients == d->taken_recipients, "what is taken back is not what was let in");
    d->messages++;
    d->recipients += recipients;
    d->taken = d->taken_recipients = 0;
}

/* So many, and no more. */
static inline void driver_limit(struct driver *d, unsigned messages, unsigned recipients)
{
    d->messages = messages;
    d->recipients = recipients;
    d->taken = d->taken_recipients = 0;
    d->gate = (struct smtp_gate){ driver_message, driver_recipient, driver_take_back, d };
    smtp_dialog_limit(&d->dialog, &d->gate);
}

static inline void driver_end(struct driver *d)
{
    smtp_dialog_free(&d->dialog);
    free(d->wire);
    text_free(&d->client_in);
    text_free(&d->backend_in);
    text_free(&d->to_client);
    text_free(&d->to_backend);
}

static inline void driver_collect(const struct smtp_output *out, struct text *text)
{
    CHECK(out->n <= SMTP_OUTPUT_PARTS && out->used <= SMTP_OUTPUT_ARENA, "output overflows");
    for (int i = 0; i < out->n; i++)
        text_add(text, out->parts[i].iov_base, out->parts[i].iov_len);
}

static inline void driver_note_whom(char whom[64], const struct smtp_action_arg *arg)
{
    const struct smtp_span *domain = &arg->need.domain, *user = &arg->need.user;
    const struct smtp_span *told = domain->data ? domain : user;

    CHECK(!domain->data || !user->data, "a sender and a claim");
    CHECK(domain->size < SMTP_LINE_MAX && user->size <= 255, "an endless name");
    whom[0] = '\0';
    if (told->data)
        snprintf(whom, 64, " %s=%.*s", domain->data ? "domain" : "user", (int)told->size, told->data);
}

static inline void driver_act(struct driver *d, const struct smtp_action_arg *arg)
{
    CHECK(d->n_actions < DRIVER_ACTIONS, "too many actions");
    if (arg->action == SMTP_ACTION_TRANSACTION)
        d->transactions[d->n_actions] = *arg->transaction;
    if (arg->action == SMTP_ACTION_XCLIENT)
        d->xclients[d->n_actions] = *arg->xclient;
    if (arg->action == SMTP_ACTION_NEED_BACKEND || arg->action == SMTP_ACTION_ROUTE)
        driver_note_whom(d->whom[d->n_actions], arg);
    d->actions[d->n_actions++] = *arg;
    switch (arg->action) {
    case SMTP_ACTION_NONE: CHECK(false, "an action NONE"); break;
    case SMTP_ACTION_NEED_BACKEND:
        CHECK(!d->backend && !d->wanted && !d->closed, "NEED_BACKEND while there is one");
        d->wanted = true;
        break;
    case SMTP_ACTION_ROUTE:
        CHECK(d->backend && !d->asked && !d->closed, "ROUTE twice, or without a backend");
        d->asked = true;
        break;
    case SMTP_ACTION_STARTTLS_CLIENT:
        CHECK(!d->closed && !d->backend && !d->wanted, "STARTTLS_CLIENT with a backend");
        break;
    case SMTP_ACTION_STARTTLS_BACKEND:
        CHECK(d->backend && !d->backend_in.size,
              "STARTTLS_BACKEND without one, or behind octets in the clear");
        break;
    case SMTP_ACTION_RECONNECT_BACKEND:
        CHECK(d->backend, "RECONNECT_BACKEND without one");
        d->backend_in.size = 0;
        observer_assigned(&d->observer);
        break;
    case SMTP_ACTION_QUIT_BACKEND: CHECK(d->backend, "QUIT_BACKEND without one"); /* fall through */
    case SMTP_ACTION_ABORT_BACKEND:
        CHECK(d->backend || d->wanted, "ABORT_BACKEND without one");
        d->backend = d->wanted = d->asked = false;
        d->backend_in.size = 0;
        break;
    case SMTP_ACTION_CLOSE:
        CHECK(!d->closed && !d->backend && !d->wanted, "CLOSE twice, or with a backend");
        d->closed = true;
        break;
    case SMTP_ACTION_BACKEND_GREETED:
    case SMTP_ACTION_REPLIED:
    case SMTP_ACTION_XCLIENT:
    case SMTP_ACTION_TRANSACTION: break;
    }
}

/* What must hold between any two calls. */
static inline void driver_check_state(struct driver *d)
{
    enum smtp_backend_state backend = smtp_dialog_backend_state(&d->dialog);
    uint32_t serial;
    enum smtp_timer timer = smtp_dialog_timer(&d->dialog, &serial);

    CHECK(timer < SMTP_TIMERS, "no timer");
    CHECK(d->wanted == (backend == SMTP_BACKEND_WANTED), "WANTED and the actions disagree");
    CHECK(d->backend == (backend > SMTP_BACKEND_WANTED), "the backend's state and the actions disagree");
    CHECK(d->closed == (smtp_dialog_client_state(&d->dialog) == SMTP_CLIENT_CLOSING),
          "CLOSING without CLOSE");
    if (!d->closed && smtp_dialog_waiting(&d->dialog))
        CHECK(timer >= SMTP_TIMER_BACKEND && timer < SMTP_TIMER_LINGER, "a wait on the wrong timer");
    CHECK(!d->asked || smtp_dialog_waiting(&d->dialog), "ROUTE, and nothing waits");
    CHECK(!d->closed || timer == SMTP_TIMER_LINGER, "closing without a timer");
}

/* Write both outputs, then take the actions. `client_in`: what was consumed by the call that made them. */
static inline void driver_write(struct driver *d, const char *client_in, size_t client_used)
{
    struct smtp_action_arg arg;
    size_t client_before = d->to_client.size, backend_before = d->to_backend.size;
    bool closing = smtp_dialog_client_state(&d->dialog) == SMTP_CLIENT_CLOSING;
    bool end = smtp_dialog_backend_state(&d->dialog) == SMTP_BACKEND_END_OF_DATA;

    driver_collect(&d->wire->client, &d->to_client);
    driver_collect(&d->wire->backend, &d->to_backend);
    CHECK(d->to_backend.size == backend_before || d->backend, "octets for a backend that is not there");
    CHECK(!d->asked || d->to_backend.size == backend_before ||
              (d->to_backend.size == backend_before + 6 &&
               memcmp(d->to_backend.data + backend_before, "QUIT\r\n", 6) == 0),
          "octets for a backend that is being asked about");
    CHECK(d->wire->n_actions <= SMTP_ACTIONS_MAX, "too many actions");
    smtp_wire_flushed(d->wire);
    if (!d->closed)
        observe_client_octets(&d->observer, client_in, client_used);
    if (d->to_backend.size > backend_before)
        observe_backend_output(&d->observer, d->to_backend.data + backend_before,
                               d->to_backend.size - backend_before, end, d->backend_in.size > 0);
    if (d->to_client.size > client_before)
        observe_client_output(&d->observer, d->to_client.data + client_before,
                              d->to_client.size - client_before, closing);
    while (smtp_dialog_next(&d->dialog, &arg))
        driver_act(d, &arg);
    CHECK(smtp_wire_idle(d->wire), "the wire is not idle behind the last action");
    driver_check_state(d);
}

static inline bool driver_feed_backend(struct driver *d)
{
    size_t used, n = d->backend_in.size;
    char *copy;
    bool moved;

    if (!n)
        return false;
    copy = malloc(n);
    if (!copy)
        abort();
    memcpy(copy, d->backend_in.data, n);
    used = smtp_dialog_backend_bytes(&d->dialog, copy, n);
    CHECK(used <= n, "more backend octets consumed than were fed");
    text_take(&d->backend_in, used);
    moved = used || !smtp_wire_idle(d->wire);
    if (used)
        observe_backend_reply(&d->observer, copy, used);
    driver_write(d, NULL, 0);
    free(copy);
    return moved;
}

static inline bool driver_feed_client(struct driver *d)
{
    size_t used, n = d->client_in.size;
    char *copy;
    bool moved, tls;

    if (!n)
        return false;
    copy = malloc(n);
    if (!copy)
        abort();
    memcpy(copy, d->client_in.data, n);
    tls = smtp_dialog_client_state(&d->dialog) == SMTP_CLIENT_TLS;
    used = smtp_dialog_client_bytes(&d->dialog, copy, n);
    CHECK(!tls || (used == n && smtp_wire_idle(d->wire)), "octets in the clear behind STARTTLS");
    CHECK(used <= n, "more client octets consumed than were fed");
    text_take(&d->client_in, used);
    moved = used || !smtp_wire_idle(d->wire);
    driver_write(d, copy, tls ? 0 : used);
    free(copy);
    return moved;
}

static inline void driver_run(struct driver *d)
{
    bool moved;

    do {
        moved = driver_feed_backend(d);
        moved |= driver_feed_client(d);
    } while (moved);
}

static inline void driver_client(struct driver *d, const char *in, size_t size)
{
    text_add(&d->client_in, in, size);
    driver_run(d);
}

/* Octets of a backend that was parted with are nobody's. */
static inline void driver_backend(struct driver *d, const char *in, size_t size)
{
    if (!d->backend)
        return;
    text_add(&d->backend_in, in, size);
    driver_run(d);
}

static inline void driver_event(struct driver *d, const struct smtp_event *event)
{
    if (event->kind == SMTP_EVENT_BACKEND_ASSIGNED || event->kind == SMTP_EVENT_BACKEND_REFUSED) {
        CHECK(d->wanted, "no backend is wanted");
        d->wanted = false;
        d->backend = event->kind == SMTP_EVENT_BACKEND_ASSIGNED;
        if (d->backend)
            observer_assigned(&d->observer);
    }
    if (event->kind == SMTP_EVENT_BACKEND_KEEP)
        d->asked = false;
    if (event->kind == SMTP_EVENT_CLIENT_LOST)
        d->client_in.size = 0;
    smtp_dialog_event(&d->dialog, event);
    driver_write(d, NULL, 0);
    driver_run(d);
}

#endif
