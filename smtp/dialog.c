#include "smtp/dialog.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/dialog_internal.h"

static const char *const client_names[] = {
    "GREETING", "TLS", "HELO", "READY", "AUTH", "MAIL", "RCPT", "DATA", "BODY", "FAILED", "CLOSING",
};
_Static_assert(sizeof client_names / sizeof *client_names == SMTP_CLIENT_STATES, "one name each");

static const char *const backend_names[] = {
    "NONE", "WANTED", "BANNER", "EHLO", "HELO", "STARTTLS", "TLS", "IDENTITY", "READY", "BODY", "END_OF_DATA",
};
_Static_assert(sizeof backend_names / sizeof *backend_names == SMTP_BACKEND_STATES, "one name each");

static const char *const loss_names[] = {
    "none", "closed", "refused", "timeout", "busy", "rejected", "garbage", "tls", "down",
};
_Static_assert(sizeof loss_names / sizeof *loss_names == SMTP_LOSSES, "one name each");

static const char *const ending_names[] = {
    "gone", "quit", "timeout", "refused", "errors", "no-backend", "shutdown",
};
_Static_assert(sizeof ending_names / sizeof *ending_names == SMTP_ENDINGS, "one name each");

const char *smtp_ending_name(enum smtp_ending ending)
{
    return ending_names[ending];
}

const char *smtp_client_state_name(enum smtp_client_state state)
{
    return client_names[state];
}

const char *smtp_backend_state_name(enum smtp_backend_state state)
{
    return backend_names[state];
}

const char *smtp_loss_name(enum smtp_loss loss)
{
    return loss_names[loss];
}

static void exchange_tidy(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    if (x && x->backend_state == SMTP_BACKEND_NONE && !x->open && !x->auth_wanted && x->body == BODY_NONE &&
        !x->count) {
        free(x);
        d->exchange = NULL;
    }
}

bool smtp_dialog_next(struct smtp_dialog *d, struct smtp_action_arg *action)
{
    struct smtp_wire *wire = d->wire;

    if (wire->taken < wire->n_actions) {
        *action = wire->actions[wire->taken++];
        return true;
    }
    wire->taken = wire->n_actions = 0;
    exchange_tidy(d);
    action->action = SMTP_ACTION_NONE;
    return false;
}

void say(struct smtp_dialog *d, const char *reply)
{
    if (!d->client_gone && d->client_state != SMTP_CLIENT_TLS)
        output_copy(&d->wire->client, reply, strlen(reply));
}

/* --- states --- */

void enter_client(struct smtp_dialog *d, enum smtp_client_state state)
{
    if (d->policy->trace)
        d->policy->trace("client", client_names[d->client_state], client_names[state]);
    d->client_state = (uint8_t)state;
    d->serial++;
}

void enter_backend(struct smtp_dialog *d, enum smtp_backend_state state)
{
    if (d->policy->trace)
        d->policy->trace("backend", backend_names[d->exchange->backend_state], backend_names[state]);
    d->exchange->backend_state = state;
    d->serial++;
}

/* --- transactions --- */

void transaction_note(struct smtp_dialog *d, int code, const char *text, size_t size)
{
    struct smtp_transaction *t = &d->exchange->transaction;

    t->code = code;
    t->reply_size = size < sizeof t->reply ? size : sizeof t->reply;
    memcpy(t->reply, text, t->reply_size);
}

/* A reply of Weir's own: "451 4.4.2 text" CRLF. */
void transaction_note_own(struct smtp_dialog *d, const char *reply)
{
    int code = (reply[0] - '0') * 100 + (reply[1] - '0') * 10 + (reply[2] - '0');

    transaction_note(d, code, reply + 4, strcspn(reply + 4, "\r"));
}

void transaction_end(struct smtp_dialog *d, enum smtp_outcome outcome)
{
    struct smtp_exchange *x = d->exchange;

    if (!x->open)
        return;
    x->open = false;
    x->committed = x->refused = x->chunked = x->last = false;
    x->body = BODY_NONE;
    x->transaction.outcome = outcome;
    d->transactions++;
    d->chatter = 0;
    if (outcome == SMTP_OUTCOME_DELIVERED)
        d->errors = 0;
    act(d, SMTP_ACTION_TRANSACTION)->transaction = &x->transaction;
}

void transaction_leave(struct smtp_dialog *d, bool reset_backend)
{
    struct smtp_exchange *x = d->exchange;
    enum smtp_outcome outcome = SMTP_OUTCOME_ABORTED;

    if (!x || !x->open)
        return;
    /* A client that gives up because nobody was accepted has heard the backend's verdict. */
    if (x->transaction.recipients && !x->transaction.accepted && x->transaction.code >= 400)
        outcome = x->transaction.code >= 500 ? SMTP_OUTCOME_REJECTED : SMTP_OUTCOME_DEFERRED;
    transaction_end(d, outcome);
    if (!reset_backend || x->backend_state == SMTP_BACKEND_NONE)
        return;
    if (x->backend_state == SMTP_BACKEND_READY &&
        queue_command(d, PENDING_SWALLOW, SMTP_VERB_RSET, (struct smtp_span){ "RSET", 4 },
                      (struct smtp_span){ 0 }, (struct smtp_span){ 0 }))
        queue_pump(d);
    else
        part_backend(d, false, SMTP_LOSS_NONE);
}

/* The dialog forgets the backend; the driver sees to its connection. Whoever wants the queue kept saves it
 * before. */
void part_backend(struct smtp_dialog *d, bool politely, enum smtp_loss loss)
{
    struct smtp_exchange *x = d->exchange;

    if (!x || x->backend_state == SMTP_BACKEND_NONE)
        return;
    if (politely && x->backend_state == SMTP_BACKEND_READY) {
        output_copy(&d->wire->backend, "QUIT\r\n", 6);
        act(d, SMTP_ACTION_QUIT_BACKEND);
    } else {
        /* Nothing more goes there, above all no end of data. */
        output_clear(&d->wire->backend);
        act(d, SMTP_ACTION_ABORT_BACKEND)->loss = loss;
    }
    enter_backend(d, SMTP_BACKEND_NONE);
    x->route = ROUTE_OPEN;
    x->sent = 0;
    /* Weir's own commands were for this one. */
    while (x->count && x->queue[x->head].kind == PENDING_SWALLOW)
        queue_pop(d);
    if (x->committed || !x->open)
        queue_clear(x);
}

void close_client(struct smtp_dialog *d, enum smtp_ending ending)
{
    bool linger;

    if (d->client_state == SMTP_CLIENT_CLOSING)
        return;
    d->ending = (uint8_t)ending;
    if (d->exchange) {
        bool idle = !d->exchange->open && !d->exchange->forwards && d->client_state != SMTP_CLIENT_AUTH;

        part_backend(d, idle, SMTP_LOSS_NONE);
        queue_clear(d->exchange);
        d->exchange->body = BODY_NONE;
        d->exchange->open = d->exchange->auth_wanted = false;
    }
    d->skip_left = 0;
    linger = ending != SMTP_ENDING_QUIT && ending != SMTP_ENDING_GONE && d->client_state != SMTP_CLIENT_TLS;
    enter_client(d, SMTP_CLIENT_CLOSING);
    act(d, SMTP_ACTION_CLOSE)->linger = linger;
}

/* --- life --- */

void smtp_dialog_init(struct smtp_dialog *d, const struct smtp_policy *policy, struct smtp_wire *wire,
                      const struct smtp_capabilities *offer, bool may_relay)
{
    memset(d, 0, sizeof *d);
    d->policy = policy;
    d->wire = wire;
    d->offer = *offer;
    if (policy->max_message_size && (!d->offer.size_limit || policy->max_message_size < d->offer.size_limit))
        d->offer.size_limit = policy->max_message_size;
    d->may_relay = may_relay;
    d->client_state = SMTP_CLIENT_GREETING;
}

void smtp_dialog_allow(struct smtp_dialog *d, bool may_relay)
{
    d->may_relay = may_relay;
}

void smtp_dialog_protect(struct smtp_dialog *d, enum smtp_channel channel)
{
    d->channel = (uint8_t)channel;
}

void smtp_dialog_secure_backends(struct smtp_dialog *d, enum smtp_backend_tls tls)
{
    d->backend_tls = (uint8_t)tls;
}

void smtp_dialog_trust_xclient(struct smtp_dialog *d)
{
    d->xclient_from = true;
}

void smtp_dialog_introduce(struct smtp_dialog *d, enum smtp_introduction introduction,
                           const struct smtp_identity *identity)
{
    d->introduction = (uint8_t)introduction;
    d->identity = identity;
}

void smtp_dialog_free(struct smtp_dialog *d)
{
    free(d->exchange);
    free(d->helo);
    free(d->user);
    d->exchange = NULL;
    d->helo = d->user = NULL;
}

/* --- feeding --- */

/* Throw away octets that the client announced with a BDAT that was refused. */
static size_t skip_octets(struct smtp_dialog *d, size_t size)
{
    size_t used = size < d->skip_left ? size : (size_t)d->skip_left;

    d->skip_left -= used;
    d->serial++;
    if (!d->skip_left)
        say(d, d->skip_reply);
    return used;
}

static size_t client_step(struct smtp_dialog *d, const char *in, size_t size)
{
    if (d->skip_left)
        return skip_octets(d, size);
    switch ((enum smtp_client_state)d->client_state) {
    case SMTP_CLIENT_GREETING:
        /* Nobody may speak before the banner (RFC 5321 §3.1). */
        say(d, "554 5.7.0 Talking before the greeting is not allowed\r\n");
        close_client(d, SMTP_ENDING_REFUSED);
        return size;
    case SMTP_CLIENT_TLS: return size; /* sent in the clear behind STARTTLS: nobody's (RFC 3207 §6) */
    case SMTP_CLIENT_AUTH: return client_auth(d, in, size);
    case SMTP_CLIENT_HELO:
    case SMTP_CLIENT_READY:
    case SMTP_CLIENT_MAIL:
    case SMTP_CLIENT_RCPT:
    case SMTP_CLIENT_FAILED: return client_command(d, in, size);
    case SMTP_CLIENT_DATA: return 0;
    case SMTP_CLIENT_BODY: return client_body(d, in, size);
    case SMTP_CLIENT_CLOSING: return size;
    }
    return 0;
}

size_t smtp_dialog_client_bytes(struct smtp_dialog *d, const char *in, size_t size)
{
    size_t done = 0;

    d->wire->secrets = false;
    while (done < size && !d->wire->n_actions && wire_has_room(d->wire)) {
        size_t used = client_step(d, in + done, size - done);

        if (!used)
            break;
        done += used;
    }
    d->unread = size - done;
    return done;
}

static unsigned replies_due(const struct smtp_exchange *x)
{
    switch (x->backend_state) {
    case SMTP_BACKEND_NONE:
    case SMTP_BACKEND_WANTED:
    case SMTP_BACKEND_TLS: return 0;
    case SMTP_BACKEND_BANNER:
    case SMTP_BACKEND_STARTTLS:
    case SMTP_BACKEND_EHLO:
    case SMTP_BACKEND_HELO:
    case SMTP_BACKEND_IDENTITY: return 1;
    case SMTP_BACKEND_READY:
    case SMTP_BACKEND_BODY:
    case SMTP_BACKEND_END_OF_DATA: return x->sent;
    }
    return 0;
}

/* Octets from a backend of which nothing is awaited. In a body it may refuse early; any other time it is
 * dropped at once, so that what it said can never pass for the reply to the next command. A goodbye (421) may
 * come in pieces: the first octet tells it from garbage. */
static bool unsolicited(struct smtp_dialog *d, const char *in, size_t size)
{
    enum smtp_loss loss = in[0] == '4' ? SMTP_LOSS_BUSY : SMTP_LOSS_GARBAGE;
    struct smtp_reply reply;

    if (replies_due(d->exchange) || d->exchange->backend_state == SMTP_BACKEND_BODY)
        return false;
    if (loss == SMTP_LOSS_BUSY && smtp_reply_parse(in, size, &reply) > 0 && reply.code == 421)
        loss = backend_goodbye(&reply);
    backend_lost(d, loss);
    return true;
}

size_t smtp_dialog_backend_bytes(struct smtp_dialog *d, const char *in, size_t size)
{
    size_t done = 0;

    while (done < size && !d->wire->n_actions && wire_has_room(d->wire)) {
        struct smtp_exchange *x = d->exchange;
        struct smtp_reply reply;
        unsigned due;
        int parsed;

        if (!x || x->backend_state == SMTP_BACKEND_NONE || unsolicited(d, in + done, size - done))
            return size;
        parsed = smtp_reply_parse(in + done, size - done, &reply);
        if (parsed < 0) {
            backend_lost(d, SMTP_LOSS_GARBAGE);
            return size;
        }
        if (!parsed) {
            /* The beginning of a reply to what has not been sent yet. */
            if (x->backend_state == SMTP_BACKEND_BODY)
                x->early = true;
            break;
        }
        due = replies_due(x);
        if (x->backend_state == SMTP_BACKEND_STARTTLS && done + reply.size < size) {
            backend_lost(d, SMTP_LOSS_GARBAGE); /* said in the clear, to be taken for said under TLS */
            return size;
        }
        backend_reply(d, in + done, &reply);
        backend_leave_if_idle(d);
        done += reply.size;
        if (done < size && due <= 1) {
            backend_lost(d, SMTP_LOSS_GARBAGE); /* an extra reply: see unsolicited() */
            return size;
        }
    }
    return done;
}

/* --- events --- */

void banner(struct smtp_dialog *d)
{
    struct smtp_output *out = &d->wire->client;
    static const char tail[] = " ESMTP Weir\r\n";

    output_copy(out, "220 ", 4);
    output_copy(out, d->policy->hostname, strlen(d->policy->hostname));
    output_copy(out, tail, sizeof tail - 1);
    enter_client(d, SMTP_CLIENT_HELO);
}

/* The session ends because of the clock, or because the process does. */
static void end_session(struct smtp_dialog *d, const char *reply, enum smtp_outcome outcome,
                        enum smtp_ending ending)
{
    struct smtp_exchange *x = d->exchange;

    say(d, reply);
    if (x && x->open) {
        part_backend(d, false, SMTP_LOSS_NONE);
        transaction_note_own(d, reply);
        transaction_end(d, outcome);
    }
    close_client(d, ending);
}

static void client_lost(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    d->client_gone = true;
    if (x && x->backend_state == SMTP_BACKEND_END_OF_DATA)
        return; /* the outcome is still worth knowing: the reply is awaited */
    if (x && x->open) {
        bool politely = x->backend_state == SMTP_BACKEND_READY && !x->forwards;

        part_backend(d, politely, SMTP_LOSS_NONE);
        transaction_leave(d, false);
    }
    close_client(d, SMTP_ENDING_GONE);
}

static void timed_out(struct smtp_dialog *d)
{
    uint32_t serial;

    switch (smtp_dialog_timer(d, &serial)) {
    case SMTP_TIMER_GREET_DELAY: banner(d); break;
    case SMTP_TIMER_HANDSHAKE:
    case SMTP_TIMER_COMMAND:
    case SMTP_TIMER_DATA_BLOCK:
    case SMTP_TIMER_BACKEND:
        end_session(d, "421 4.4.2 Timeout, closing\r\n", SMTP_OUTCOME_ABORTED, SMTP_ENDING_TIMEOUT);
        break;
    case SMTP_TIMER_CONNECT:
    case SMTP_TIMER_REPLY:
    case SMTP_TIMER_REPLY_DATA:
    case SMTP_TIMER_REPLY_END: backend_lost(d, SMTP_LOSS_TIMEOUT); break;
    case SMTP_TIMER_LINGER: break;
    }
}

static void stop(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;
    bool sent = x && x->backend_state == SMTP_BACKEND_END_OF_DATA;

    end_session(d, "421 4.3.2 Shutting down\r\n", sent ? SMTP_OUTCOME_UNKNOWN : SMTP_OUTCOME_FAILED,
                SMTP_ENDING_SHUTDOWN);
}

static void backend_assigned(struct smtp_dialog *d, bool may_have_secrets)
{
    struct smtp_exchange *x = d->exchange;

    x->introduced = x->in_clear = x->leaving = x->turned_away = false;
    x->secured = d->backend_tls == SMTP_BACKEND_TLS_IMPLICIT;
    x->may_have_secrets = may_have_secrets;
    enter_backend(d, SMTP_BACKEND_BANNER);
}

void smtp_dialog_event(struct smtp_dialog *d, const struct smtp_event *event)
{
    if (d->client_state == SMTP_CLIENT_CLOSING)
        return;
    switch (event->kind) {
    case SMTP_EVENT_START:
        if (!d->policy->greet_delay)
            banner(d);
        break;
    case SMTP_EVENT_REFUSE:
        say(d, event->reply);
        close_client(d, SMTP_ENDING_REFUSED);
        break;
    case SMTP_EVENT_BACKEND_ASSIGNED: backend_assigned(d, event->may_have_secrets); break;
    case SMTP_EVENT_CLIENT_SECURED: client_secured(d); break;
    case SMTP_EVENT_BACKEND_SECURED: backend_secured(d); break;
    case SMTP_EVENT_BACKEND_REFUSED: backend_refused(d, event->reply); break;
    case SMTP_EVENT_BACKEND_LOST: backend_lost(d, event->loss); break;
    case SMTP_EVENT_BACKEND_LEAVE: backend_leave(d, event->must); break;
    case SMTP_EVENT_BACKEND_KEEP: route_keep(d); break;
    case SMTP_EVENT_CLIENT_LOST: client_lost(d); break;
    case SMTP_EVENT_TIMEOUT: timed_out(d); break;
    case SMTP_EVENT_DRAIN: d->draining = true; break;
    case SMTP_EVENT_STOP: stop(d); break;
    }
}

/* --- what the driver asks --- */

static enum smtp_timer backend_timer(const struct smtp_exchange *x)
{
    const struct pending *head = &x->queue[x->head];

    if (head->final)
        return SMTP_TIMER_REPLY_END;
    return head->verb == SMTP_VERB_DATA ? SMTP_TIMER_REPLY_DATA : SMTP_TIMER_REPLY;
}

enum smtp_timer smtp_dialog_timer(const struct smtp_dialog *d, uint32_t *serial)
{
    const struct smtp_exchange *x = d->exchange;

    *serial = d->serial;
    if (d->client_state == SMTP_CLIENT_GREETING)
        return SMTP_TIMER_GREET_DELAY;
    if (d->client_state == SMTP_CLIENT_TLS)
        return SMTP_TIMER_HANDSHAKE;
    if (d->client_state == SMTP_CLIENT_CLOSING)
        return SMTP_TIMER_LINGER;
    if (d->skip_left || (x && x->body != BODY_NONE))
        return SMTP_TIMER_DATA_BLOCK;
    if (!x)
        return SMTP_TIMER_COMMAND;
    if (d->client_state == SMTP_CLIENT_AUTH && !x->sent)
        return SMTP_TIMER_HANDSHAKE;
    switch (x->backend_state) {
    case SMTP_BACKEND_NONE: break;
    case SMTP_BACKEND_WANTED: return SMTP_TIMER_BACKEND;
    case SMTP_BACKEND_BANNER:
    case SMTP_BACKEND_TLS: return SMTP_TIMER_CONNECT;
    case SMTP_BACKEND_EHLO:
    case SMTP_BACKEND_HELO:
    case SMTP_BACKEND_STARTTLS:
    case SMTP_BACKEND_IDENTITY: return SMTP_TIMER_REPLY;
    case SMTP_BACKEND_READY:
    case SMTP_BACKEND_BODY:
    case SMTP_BACKEND_END_OF_DATA:
        if (x->sent)
            return backend_timer(x);
        if (route_waits(x))
            return SMTP_TIMER_BACKEND;
        break;
    }
    return SMTP_TIMER_COMMAND;
}

bool smtp_dialog_in_body(const struct smtp_dialog *d)
{
    return d->skip_left || (d->exchange && d->exchange->body != BODY_NONE);
}

uint64_t smtp_dialog_body_size(const struct smtp_dialog *d)
{
    return d->exchange ? d->exchange->transaction.size : 0;
}

enum smtp_client_state smtp_dialog_client_state(const struct smtp_dialog *d)
{
    return (enum smtp_client_state)d->client_state;
}

enum smtp_backend_state smtp_dialog_backend_state(const struct smtp_dialog *d)
{
    return d->exchange ? d->exchange->backend_state : SMTP_BACKEND_NONE;
}

bool smtp_dialog_waiting(const struct smtp_dialog *d)
{
    const struct smtp_exchange *x = d->exchange;
    bool auth =
        x && x->auth_wanted && x->backend_state != SMTP_BACKEND_NONE && x->backend_state < SMTP_BACKEND_READY;

    return (busy(d) || auth || (x && route_waits(x))) && !smtp_dialog_in_body(d);
}
