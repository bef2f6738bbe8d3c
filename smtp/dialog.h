/*
 * The dialog of one proxied session (RFC 5321), without sockets, clock or log: bytes and events in, bytes and
 * actions out.
 *
 *          client bytes ──▶ ┌────────┐ ──▶ wire->backend
 *                           │ dialog │
 *        wire->client  ◀──  └────────┘ ◀── backend bytes
 *                             ▲    │
 *                     events  │    ▼  actions
 *
 * The driver (proxy/session.c, or a test) feeds octets or one event, then writes out both outputs of the
 * wire, then takes every action, and begins anew. It feeds again what was not consumed: when more octets
 * came, and after every other call.
 *
 *     used = smtp_dialog_client_bytes(d, in, n);
 *     … write wire->client and wire->backend (they may point into `in`), smtp_wire_flushed() …
 *     while (smtp_dialog_next(d, &action)) …
 *
 * The promise is kept here: a 2xx behind an end of data is passed on from a backend, never made up.
 */
#ifndef WEIR_SMTP_DIALOG_H
#define WEIR_SMTP_DIALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "smtp/capability.h"
#include "smtp/command.h"
#include "smtp/scan.h"
#include "smtp/xclient.h"

enum smtp_client_state {
    SMTP_CLIENT_GREETING, /* the banner has not been sent yet */
    SMTP_CLIENT_TLS,      /* STARTTLS was answered: waiting for CLIENT_SECURED */
    SMTP_CLIENT_HELO,     /* waiting for HELO or EHLO */
    SMTP_CLIENT_READY,    /* no transaction */
    SMTP_CLIENT_AUTH,    /* in an exchange of AUTH: the backend's reply or the client's response is awaited */
    SMTP_CLIENT_MAIL,    /* MAIL given, perhaps not answered yet */
    SMTP_CLIENT_RCPT,    /* a RCPT given */
    SMTP_CLIENT_DATA,    /* DATA given, waiting for the backend's 354 */
    SMTP_CLIENT_BODY,    /* in the body, or in a chunk of it */
    SMTP_CLIENT_FAILED,  /* Weir answered 451 in a transaction: so are RCPT, DATA and BDAT until it is left */
    SMTP_CLIENT_CLOSING, /* nothing more is read */
};
#define SMTP_CLIENT_STATES (SMTP_CLIENT_CLOSING + 1)

enum smtp_backend_state {
    SMTP_BACKEND_NONE,
    SMTP_BACKEND_WANTED, /* SMTP_ACTION_NEED_BACKEND is out */
    SMTP_BACKEND_BANNER, /* connecting, or connected and waiting for 220 */
    SMTP_BACKEND_EHLO,
    SMTP_BACKEND_HELO,        /* it did not know EHLO */
    SMTP_BACKEND_STARTTLS,    /* sent, waiting for 220 */
    SMTP_BACKEND_TLS,         /* waiting for BACKEND_SECURED; then EHLO again */
    SMTP_BACKEND_IDENTITY,    /* it is being told who the client is */
    SMTP_BACKEND_READY,       /* commands flow */
    SMTP_BACKEND_BODY,        /* it said 354, or a chunk is under way */
    SMTP_BACKEND_END_OF_DATA, /* the message is complete and the one reply that matters is awaited */
};
#define SMTP_BACKEND_STATES (SMTP_BACKEND_END_OF_DATA + 1)

/* STARTTLS in front (RFC 3207). */
enum smtp_starttls {
    SMTP_STARTTLS_OFF,
    SMTP_STARTTLS_OFFERED,
    SMTP_STARTTLS_REQUIRED, /* before it, nothing but EHLO, NOOP, STARTTLS and QUIT */
};

/* TLS towards a backend. What is verified is the driver's affair. */
enum smtp_backend_tls {
    SMTP_BACKEND_TLS_OFF,
    SMTP_BACKEND_TLS_OPPORTUNISTIC, /* STARTTLS where it is offered; if the handshake fails, once more without
                                     */
    SMTP_BACKEND_TLS_REQUIRED,      /* STARTTLS, or that backend is no use */
    SMTP_BACKEND_TLS_IMPLICIT,      /* from the first octet on, by the driver */
};

const char *smtp_client_state_name(enum smtp_client_state state);
const char *smtp_backend_state_name(enum smtp_backend_state state);

/* What a listener demands; lives as long as its sessions. */
struct smtp_policy {
    const char *hostname; /* at most 255 octets */
    enum smtp_newline_policy newline;
    uint32_t max_recipients;
    uint64_t max_message_size; /* octets; 0: the offer's SIZE decides */
    uint32_t max_errors;
    enum smtp_starttls starttls;
    bool auth;        /* AUTH is relayed, where the channel is private */
    bool greet_delay; /* wait for a TIMEOUT event before the banner; who talks earlier is refused */
    /* Told of every change of state, if set. For tests and debugging. */
    void (*trace)(const char *side, const char *from, const char *to);
};

/* Why a backend's connection is given up. What it means for the backend's health is not the dialog's affair.
 */
enum smtp_loss {
    SMTP_LOSS_NONE,    /* not its fault: of the client's making, or it was idle */
    SMTP_LOSS_CLOSED,  /* end of stream or reset */
    SMTP_LOSS_REFUSED, /* the connect failed */
    SMTP_LOSS_TIMEOUT,
    SMTP_LOSS_BUSY,     /* it said 421, and not because of the client */
    SMTP_LOSS_REJECTED, /* its banner or EHLO was a refusal other than 421 */
    SMTP_LOSS_GARBAGE,  /* it broke the protocol: wrong class, extra reply, malformed line */
    SMTP_LOSS_TLS,      /* its handshake failed, or STARTTLS is demanded and it has none */
    SMTP_LOSS_DOWN,     /* declared down while in use */
};
#define SMTP_LOSSES (SMTP_LOSS_DOWN + 1)
const char *smtp_loss_name(enum smtp_loss loss);

enum smtp_outcome {
    SMTP_OUTCOME_DELIVERED,
    SMTP_OUTCOME_REJECTED,
    SMTP_OUTCOME_DEFERRED,
    SMTP_OUTCOME_FAILED,
    SMTP_OUTCOME_ABORTED,
    SMTP_OUTCOME_UNKNOWN,
};

/* How a session ended. */
enum smtp_ending {
    SMTP_ENDING_GONE, /* the client closed without QUIT */
    SMTP_ENDING_QUIT,
    SMTP_ENDING_TIMEOUT,
    SMTP_ENDING_REFUSED, /* too many connections, early talker, HTTP */
    SMTP_ENDING_ERRORS,  /* it broke the rules, or too often */
    SMTP_ENDING_NO_BACKEND,
    SMTP_ENDING_SHUTDOWN,
};
#define SMTP_ENDINGS (SMTP_ENDING_SHUTDOWN + 1)
const char *smtp_ending_name(enum smtp_ending ending);

/* One transaction, as the log tells it. */
struct smtp_transaction {
    enum smtp_outcome outcome;
    uint32_t recipients, accepted;
    uint64_t size; /* octets of the body as passed on */
    int code;      /* of the reply that decided */
    size_t from_size, reply_size;
    char from[320];  /* reverse-path with brackets, cut */
    char reply[256]; /* text of the deciding reply, cut */
};

enum smtp_action {
    SMTP_ACTION_NONE,
    SMTP_ACTION_NEED_BACKEND, /* answer with BACKEND_ASSIGNED or BACKEND_REFUSED */
    SMTP_ACTION_ROUTE,        /* MAIL or AUTH waits: may the backend at hand have it? Answer with BACKEND_KEEP
                                 or BACKEND_LEAVE */
    SMTP_ACTION_BACKEND_GREETED,  /* its EHLO went well: arg->capabilities */
    SMTP_ACTION_REPLIED,          /* the backend answered arg->verb with arg->code */
    SMTP_ACTION_STARTTLS_CLIENT,  /* begin a handshake as server: answer with CLIENT_SECURED or CLIENT_LOST */
    SMTP_ACTION_STARTTLS_BACKEND, /* … as client: answer with BACKEND_SECURED or BACKEND_LOST */
    SMTP_ACTION_RECONNECT_BACKEND, /* the same backend, a new connection, in the clear: answer with
                                      BACKEND_LOST if it can't be had */
    SMTP_ACTION_QUIT_BACKEND,      /* part with it politely; the dialog has forgotten it */
    SMTP_ACTION_ABORT_BACKEND,     /* close its connection now, for arg->loss; the dialog has forgotten it */
    SMTP_ACTION_XCLIENT, /* the client is somebody else from now on: arg->xclient, valid until the next call
                          */
    SMTP_ACTION_TRANSACTION, /* one has ended: arg->transaction, valid until the next call */
    SMTP_ACTION_CLOSE,       /* close the client's connection once it has received what was written */
};

struct smtp_action_arg {
    enum smtp_action action;
    union {
        struct {
            uint32_t needs; /* enum smtp_capability bits */
            uint64_t size;  /* of SIZE=, or 0 */
            /* For whom, valid until the next call: the domain of MAIL's sender, perhaps empty; for AUTH,
             * which knows of none, data is NULL, and `user` is who it claims to be, if its line shows that.
             */
            struct smtp_span domain, user;
        } need; /* ROUTE too, but for the first two */
        struct {
            enum smtp_verb verb; /* DATA: the 354 or refusal; for the end of data: final is set */
            bool final;          /* the reply to a complete message, or the last one to AUTH */
            int code;
            uint8_t status_class;
            uint16_t subject;
            uint32_t sent; /* tick at which the command went out */
        } replied;
        enum smtp_loss loss;
        const struct smtp_capabilities *capabilities;
        const struct smtp_transaction *transaction;
        const struct smtp_xclient *xclient;
        bool linger; /* CLOSE: the client may be sending still */
    };
};

enum smtp_event_kind {
    SMTP_EVENT_START,            /* the connection has been accepted */
    SMTP_EVENT_REFUSE,           /* … and is not wanted: say event->reply and close */
    SMTP_EVENT_CLIENT_SECURED,   /* its handshake has ended well */
    SMTP_EVENT_BACKEND_ASSIGNED, /* a connect has begun; event->may_have_secrets */
    SMTP_EVENT_BACKEND_SECURED,  /* its handshake has ended well */
    SMTP_EVENT_BACKEND_REFUSED,  /* no backend can be had: event->reply (421: the session ends; 451: it goes
                                    on) */
    SMTP_EVENT_BACKEND_LOST,     /* event->loss */
    SMTP_EVENT_BACKEND_LEAVE, /* part with it politely as soon as no transaction is open: now, or behind the
                                 present one. A session that has authenticated stays, unless event->must */
    SMTP_EVENT_BACKEND_KEEP, /* the answer to ROUTE: it may have what waits. The other one is BACKEND_LEAVE */
    SMTP_EVENT_CLIENT_LOST,  /* end of stream or error, behind everything fed */
    SMTP_EVENT_TIMEOUT,      /* the timer of smtp_dialog_timer() ran out, or the body is too slow */
    SMTP_EVENT_DRAIN,        /* the session may end its work, and begins nothing more after it */
    SMTP_EVENT_STOP,         /* the session ends now */
};

struct smtp_event {
    enum smtp_event_kind kind;
    union {
        const char *reply; /* a whole reply with CRLF, static */
        enum smtp_loss loss;
        bool must;
        bool may_have_secrets; /* credentials may go there even in the clear: it is near, or on our own
                                  network */
    };
};

/* Which time limit applies now. The driver knows the durations. */
enum smtp_timer {
    SMTP_TIMER_GREET_DELAY,
    SMTP_TIMER_HANDSHAKE,  /* the client's, of TLS; and its next response in an exchange of AUTH */
    SMTP_TIMER_COMMAND,    /* the client's next whole command */
    SMTP_TIMER_DATA_BLOCK, /* the client's next block of the body */
    SMTP_TIMER_BACKEND,    /* waiting for a place: the queue's limit */
    SMTP_TIMER_CONNECT,    /* connect and banner; and a handshake behind STARTTLS */
    SMTP_TIMER_REPLY,      /* EHLO, MAIL, RCPT, RSET */
    SMTP_TIMER_REPLY_DATA, /* 354 */
    SMTP_TIMER_REPLY_END,  /* the final reply */
    SMTP_TIMER_LINGER,     /* closing */
};
#define SMTP_TIMERS (SMTP_TIMER_LINGER + 1)

/* One direction's output: pieces that lie in the arena, in the input, or in the exchange. */
#define SMTP_OUTPUT_PARTS 64
#define SMTP_OUTPUT_ARENA 20480
struct smtp_output {
    int n;
    size_t used;
    struct iovec parts[SMTP_OUTPUT_PARTS];
    char arena[SMTP_OUTPUT_ARENA];
};

#define SMTP_ACTIONS_MAX 8
/* What goes out of a dialog. Scratch: one a worker serves all its sessions, as it is empty between two calls.
 */
struct smtp_wire {
    struct smtp_output client, backend;
    unsigned n_actions, taken;
    bool secrets; /* what was consumed by this call holds credentials: wipe it once it is written */
    struct smtp_xclient xclient; /* what SMTP_ACTION_XCLIENT speaks of */
    struct smtp_action_arg actions[SMTP_ACTIONS_MAX];
};

/* How a backend is told who the client is. */
enum smtp_introduction {
    SMTP_INTRODUCE_NOT,
    SMTP_INTRODUCE_PROXY,    /* by a PROXY header, which the driver sends before any SMTP */
    SMTP_INTRODUCE_XCLIENT,  /* once a connection, which then belongs to this client */
    SMTP_INTRODUCE_XFORWARD, /* before each transaction; for the backend's log only */
};

/* What protects the client's connection. */
enum smtp_channel {
    SMTP_CHANNEL_CLEAR,
    SMTP_CHANNEL_LOCAL, /* a Unix socket: in the clear, but nobody can listen */
    SMTP_CHANNEL_TLS,
};

/* Limits that the driver keeps: asked when a message, or one more recipient, is about to be passed on. 0: it
 * is counted, and goes on. Otherwise it hears 450, and that it may be tried again in so many ms. Must not
 * call the dialog. */
struct smtp_gate {
    uint32_t (*message)(void *arg, struct smtp_span domain); /* of its sender; may be empty */
    uint32_t (*recipient)(void *arg);                        /* of the message last let in */
    /* The message last let in goes nowhere, nor do so many recipients of it: no backend could be had. */
    void (*take_back)(void *arg, unsigned recipients);
    void *arg;
};

struct smtp_exchange;

/* The members are private but for `tick`. Small: every idle session has one. */
struct smtp_dialog {
    const struct smtp_policy *policy;
    struct smtp_wire *wire;
    struct smtp_exchange
        *exchange; /* from the first MAIL until the backend has gone; NULL in an idle session */
    char *helo;    /* as the client said it */
    char *user;    /* as it authenticated; NULL: it has not, or the mechanism hides the name */
    struct smtp_capabilities offer;
    const struct smtp_identity *identity; /* of the client, for `introduction`; the driver's */
    const struct smtp_gate *gate;         /* NULL: no limits; the driver's */
    const char *skip_reply;               /* said when skip_left octets have been thrown away */
    const char *refusal;                  /* the last of Weir's own, with its CRLF; static. NULL: none */
    uint64_t skip_left;
    uint32_t
        tick; /* set by the driver to a time of its own (ms) before each call; copied, never computed with */
    uint32_t serial;    /* see smtp_dialog_timer() */
    size_t unread;      /* octets that the last smtp_dialog_client_bytes() left */
    uint32_t gate_wait; /* what it said, if it was asked */
    uint32_t errors, chatter, transactions;
    uint8_t client_state;
    uint8_t ending;       /* enum smtp_ending, when CLOSING */
    uint8_t introduction; /* enum smtp_introduction */
    uint8_t backend_tls;  /* enum smtp_backend_tls */
    uint8_t channel;      /* enum smtp_channel */
    uint8_t auth_failures;
    bool authenticated; /* the session is one backend's from then on: no other knows of it */
    bool may_relay;
    bool extended;     /* EHLO, not HELO */
    bool xclient_from; /* it may say XCLIENT and XFORWARD */
    bool gate_asked;   /* about the command that is being read */
    bool routed;       /* MAIL and AUTH ask whether the backend at hand may have them */
    bool helo_given;   /* by XCLIENT: what EHLO says no longer counts */
    bool skipping;     /* in an overlong line */
    bool draining;
    bool told_failure; /* in FAILED: a 451 has been said */
    bool client_gone;
};

/* `offer` is what the pool can carry now; `may_relay`: the client is in allow-from. Allocates nothing. */
void smtp_dialog_init(struct smtp_dialog *dialog, const struct smtp_policy *policy, struct smtp_wire *wire,
                      const struct smtp_capabilities *offer, bool may_relay);
void smtp_dialog_free(struct smtp_dialog *dialog);
/* Whether the client may relay; after XCLIENT it may be another. */
void smtp_dialog_allow(struct smtp_dialog *dialog, bool may_relay);
/* The channel is other than CLEAR from the beginning; STARTTLS makes it TLS by itself. */
void smtp_dialog_protect(struct smtp_dialog *dialog, enum smtp_channel channel);
/* Backends from now on are spoken to over TLS, or not. */
void smtp_dialog_secure_backends(struct smtp_dialog *dialog, enum smtp_backend_tls tls);
/* The client may use XCLIENT and XFORWARD. Before its EHLO. */
void smtp_dialog_trust_xclient(struct smtp_dialog *dialog);
/* From now on not every backend may have every transaction: one that is at hand is asked about, with ROUTE,
 * before MAIL or AUTH goes there. Whoever has authenticated stays where that was. */
void smtp_dialog_follow_routes(struct smtp_dialog *dialog);
/* From now on `gate` is asked; NULL: nobody is. It stays the caller's and must live as long as the dialog, or
 * until the next such call. */
void smtp_dialog_limit(struct smtp_dialog *dialog, const struct smtp_gate *gate);
/* Backends from now on are told who the client is. `identity` stays the caller's and must live as long as the
 * dialog, or until the next such call. */
void smtp_dialog_introduce(struct smtp_dialog *dialog, enum smtp_introduction introduction,
                           const struct smtp_identity *identity);

/* Feed octets. Returns how many were consumed; the rest is to be fed again, with what came behind it. */
size_t smtp_dialog_client_bytes(struct smtp_dialog *dialog, const char *in, size_t size);
size_t smtp_dialog_backend_bytes(struct smtp_dialog *dialog, const char *in, size_t size);
void smtp_dialog_event(struct smtp_dialog *dialog, const struct smtp_event *event);

/* The next action, or false. */
bool smtp_dialog_next(struct smtp_dialog *dialog, struct smtp_action_arg *action);
/* Both outputs have been written. */
void smtp_wire_flushed(struct smtp_wire *wire);
static inline bool smtp_wire_idle(const struct smtp_wire *wire)
{
    return !wire->client.n && !wire->backend.n && wire->taken == wire->n_actions;
}

/* Which limit applies; it begins anew whenever *serial changes. */
enum smtp_timer smtp_dialog_timer(const struct smtp_dialog *dialog, uint32_t *serial);

/* In a body the driver reads in large pieces. */
bool smtp_dialog_in_body(const struct smtp_dialog *dialog);
/* Octets of the body so far. */
uint64_t smtp_dialog_body_size(const struct smtp_dialog *dialog);
enum smtp_client_state smtp_dialog_client_state(const struct smtp_dialog *dialog);
enum smtp_backend_state smtp_dialog_backend_state(const struct smtp_dialog *dialog);
/* The client's commands are waiting for the backend (a place, a reply). */
bool smtp_dialog_waiting(const struct smtp_dialog *dialog);

#endif
