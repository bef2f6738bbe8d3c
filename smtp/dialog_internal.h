/*
 * Inside the dialog: what its files share.
 *
 *   dialog.c           feeding, events, timers, the ends of transactions and sessions
 *   dialog_queue.c     outputs, actions, the queue of commands
 *   dialog_client.c    commands of the client
 *   dialog_body.c      DATA and BDAT content
 *   dialog_identity.c  who the client is, to backends and from in front
 *   dialog_tls.c       STARTTLS on both sides
 *   dialog_auth.c      AUTH, relayed
 *   dialog_route.c     for whom a backend is wanted, and whether the one at hand will do
 *   dialog_gate.c      limits
 *   dialog_backend.c   replies of the backend, its greeting, its loss
 *
 * Commands that go to the backend pass through one queue, oldest first:
 *
 *      head                 head + sent                head + count
 *       │ sent, unanswered   │ not sent yet              │
 *       ▼                    ▼                           ▼
 *      [MAIL] [RCPT] [RCPT]  [RCPT] [DATA]
 *
 * Each entry is FORWARD (its reply is the client's) or SWALLOW (Weir's own RSET). The text stays until it is
 * answered: a backend lost before any reply of the transaction was passed on is replaced, and the queue
 * simply sent again. A backend without PIPELINING gets one at a time. There is no third kind for replies of
 * Weir's own: such a command is not consumed before every FORWARD is answered, which keeps the replies in
 * order and costs a round trip only in odd dialogues.
 */
#ifndef WEIR_SMTP_DIALOG_INTERNAL_H
#define WEIR_SMTP_DIALOG_INTERNAL_H

#include "smtp/auth.h"
#include "smtp/dialog.h"
#include "smtp/reply.h"

#define MAIL_FROM     "MAIL FROM:"
#define PIPELINE_MAX  64   /* commands */
#define PIPELINE_TEXT 4096 /* octets; at least one line of SMTP_LINE_MAX */
#define HELD_MAX      512  /* an early refusal in the body, kept until the body's end */

enum pending_kind { PENDING_FORWARD, PENDING_SWALLOW };

struct pending {
    uint8_t kind; /* enum pending_kind */
    uint8_t verb; /* enum smtp_verb */
    uint16_t size;
    bool final;    /* the reply to this one ends the message: the end of data, BDAT LAST */
    uint32_t sent; /* tick */
};

/* What a body is doing. */
enum body_mode {
    BODY_NONE,
    BODY_DATA,    /* to the backend, until CRLF.CRLF */
    BODY_CHUNK,   /* to the backend, chunk_left octets */
    BODY_DISCARD, /* thrown away until CRLF.CRLF, then `held` is said */
};

/* Whether the backend at hand may have the MAIL or AUTH that waits (policy: smtp_dialog_follow_routes()). */
enum route_question {
    ROUTE_OPEN,
    ROUTE_HELD,  /* not asked yet: Weir's own RSET is under way, and a backend can't be left before its reply
                  */
    ROUTE_ASKED, /* SMTP_ACTION_ROUTE is out */
    ROUTE_KEPT,  /* it may */
};

struct smtp_exchange {
    enum smtp_backend_state backend_state;
    struct smtp_capabilities backend;
    uint32_t needs;
    uint64_t declared_size;
    enum route_question route;
    size_t path_size;      /* of the sender's path in the MAIL that is in the queue */
    bool introduced;       /* XCLIENT was accepted on this connection */
    bool secured;          /* the connection is under TLS */
    bool in_clear;         /* TLS was tried here, or refused, and is not tried again */
    bool may_have_secrets; /* credentials may go there in the clear */
    bool leaving;          /* to be parted with as soon as no transaction is open */
    bool auth_wanted;      /* the client's AUTH waits for this backend */
    bool auth_bad;         /* its exchange was given up for what the client sent */
    bool auth_user_known;  /* its first response has been looked at */
    uint32_t auth_mechanism;
    const char *auth_refused; /* what the waiting AUTH is to be told; static */
    size_t auth_user_size;
    char auth_user[SMTP_AUTH_USER_MAX];
    bool open;      /* a transaction is */
    bool committed; /* a reply of it has been passed on: it cannot move any more */
    bool refused;   /* its MAIL was */
    bool utf8;
    bool binary;
    bool chunked;      /* it uses BDAT */
    bool last;         /* in its last chunk */
    bool early;        /* the beginning of a reply came before its command was complete */
    bool turned_away;  /* the backend's last reply was a refusal: it may hang up on this client */
    bool lost_at_work; /* a backend was lost after its greeting, with this transaction in hand */
    enum body_mode body;
    enum smtp_outcome held_outcome;
    struct smtp_scan scan;
    uint64_t chunk_left;
    uint32_t outstanding_recipients;
    unsigned head, count, sent, forwards;
    size_t text_start, text_end;
    struct smtp_transaction transaction;
    struct pending queue[PIPELINE_MAX];
    size_t held_size;
    /* Not cleared at the beginning: */
    char held[HELD_MAX];
    char text[PIPELINE_TEXT];
};

/* outputs and actions (dialog_queue.c) */
void output_range(struct smtp_output *out, const char *data, size_t size); /* referred to, not copied */
char *output_reserve(struct smtp_output *out, size_t size); /* in the arena; output_commit() follows */
void output_commit(struct smtp_output *out, size_t size);
void output_copy(struct smtp_output *out, const char *data, size_t size);
void output_clear(struct smtp_output *out);
bool wire_has_room(const struct smtp_wire *wire);
struct smtp_action_arg *act(struct smtp_dialog *d, enum smtp_action action);
void say(struct smtp_dialog *d, const char *reply); /* a reply of Weir's own to the client */

/* states (dialog.c): the only places that change them */
void enter_client(struct smtp_dialog *d, enum smtp_client_state state);
void enter_backend(struct smtp_dialog *d, enum smtp_backend_state state);

/* A reply of Weir's own would be out of order now. */
static inline bool busy(const struct smtp_dialog *d)
{
    return d->exchange && d->exchange->forwards;
}

bool exchange_begin(struct smtp_dialog *d); /* there is one behind it, or memory is out */
/* Append a command made of up to three pieces. False: no room now, try again when the queue moved. */
bool queue_command(struct smtp_dialog *d, enum pending_kind kind, enum smtp_verb verb, struct smtp_span one,
                   struct smtp_span two, struct smtp_span three);
void queue_pump(struct smtp_dialog *d); /* send what may be sent */
struct pending queue_pop(struct smtp_dialog *d);
void queue_clear(struct smtp_exchange *x);

/* The transaction is over. `code` and `text` decided it. */
void transaction_end(struct smtp_dialog *d, enum smtp_outcome outcome);
void transaction_note(struct smtp_dialog *d, int code, const char *text, size_t size);
void transaction_note_own(struct smtp_dialog *d, const char *reply);
/* The client left it: RSET, EHLO, QUIT, gone. The backend is told by RSET if it is to go on. */
void transaction_leave(struct smtp_dialog *d, bool reset_backend);

/* Say `reply`, end the transaction as failed, and the session. */
void session_give_up(struct smtp_dialog *d, const char *reply);
void part_backend(struct smtp_dialog *d, bool politely, enum smtp_loss loss);
void close_client(struct smtp_dialog *d, enum smtp_ending ending);

/* dialog_identity.c */
#define IDENTITY_LINE_MAX 512
/* The XCLIENT or XFORWARD command for the backend at hand; 0 if it lists nothing that would tell who the
 * client is. */
size_t identity_line(const struct smtp_dialog *d, char out[IDENTITY_LINE_MAX]);
bool queue_identity(struct smtp_dialog *d); /* in front of MAIL on a kept connection; false: no room now */
bool take_helo(struct smtp_dialog *d, const char *name, size_t size);
#define XCLIENT_OFFER_MAX 128
size_t add_xclient(char *reply,
                   size_t size); /* to an EHLO reply with XCLIENT_OFFER_MAX octets of room behind it */
bool on_xclient(struct smtp_dialog *d, const struct smtp_command *command);
bool on_xforward(struct smtp_dialog *d, const struct smtp_command *command);

/* dialog_tls.c */
bool on_starttls(struct smtp_dialog *d, const struct smtp_command *command);
void client_secured(struct smtp_dialog *d);
/* The backend's EHLO is read. True if TLS comes next, or the backend had to be given up. */
bool backend_tls_begin(struct smtp_dialog *d);
bool starttls_reply(struct smtp_dialog *d, const struct smtp_reply *reply); /* true: go on in the clear */
bool backend_retry_in_clear(struct smtp_dialog *d, enum smtp_loss loss);

/* dialog_auth.c */
/* What the client is offered on the channel as it is now: enum smtp_capability bits. */
uint32_t offered_now(const struct smtp_dialog *d);
void forget_authentication(struct smtp_dialog *d);
bool on_auth(struct smtp_dialog *d, const struct smtp_command *command);
size_t client_auth(struct smtp_dialog *d, const char *in, size_t size); /* a line of an exchange */
void auth_reply(struct smtp_dialog *d, const char *in, const struct smtp_reply *reply);
/* True: the loss, the refusal or the MAIL has been dealt with, as AUTH demands. */
bool auth_lost(struct smtp_dialog *d);
bool auth_backend_refused(struct smtp_dialog *d, const char *reply);
bool auth_mail_refused(struct smtp_dialog *d);

/* dialog_route.c */
/* For whom a backend is wanted: the AUTH that waits, or the MAIL in the queue. */
void route_describe(const struct smtp_exchange *x, struct smtp_action_arg *arg);
/* Whether the backend at hand, which is READY, may have what is being read: MAIL with this path, or AUTH with
 * none. False: not yet, read it again. */
bool route_settled(struct smtp_dialog *d, const struct smtp_span *path);
void route_keep(struct smtp_dialog *d);
bool route_waits(const struct smtp_exchange *x);

/* dialog_gate.c */
/* Whether what is being read may go on. */
bool gate_lets_mail(struct smtp_dialog *d, struct smtp_span path);
bool gate_lets_recipient(struct smtp_dialog *d);
void gate_take_back(struct smtp_dialog *d); /* no backend could be had */
void gate_refuse_mail(struct smtp_dialog *d);
void gate_refuse_recipient(struct smtp_dialog *d); /* nothing unanswered was sent before it */

/* dialog_client.c */
size_t skip_line(struct smtp_dialog *d, const char *in, size_t size);
size_t client_command(struct smtp_dialog *d, const char *in, size_t size);
void refuse_data(struct smtp_dialog *d);
void complain(struct smtp_dialog *d, const char *reply);
/* One more command that brings no mail forward. True: that was too many, and the session ends. */
bool chatters_on(struct smtp_dialog *d);

/* dialog_body.c */
size_t client_body(struct smtp_dialog *d, const char *in, size_t size);
void body_begin_data(struct smtp_dialog *d);
void body_begin_chunk(struct smtp_dialog *d, uint64_t octets, bool last);
void body_hold(struct smtp_dialog *d, enum smtp_outcome outcome, const char *reply, size_t size);

/* dialog_backend.c */
void pass_reply(struct smtp_dialog *d, const char *in, const struct smtp_reply *reply);
void backend_reply(struct smtp_dialog *d, const char *in, const struct smtp_reply *reply);
void banner(struct smtp_dialog *d); /* dialog.c */

void backend_secured(struct smtp_dialog *d); /* its handshake has ended well: EHLO again */
void backend_want(struct smtp_dialog *d);
void backend_leave(struct smtp_dialog *d, bool must);
void backend_leave_if_idle(struct smtp_dialog *d);
void backend_lost(struct smtp_dialog *d, enum smtp_loss loss);
/* What a 421 in a session is to the backend. */
enum smtp_loss backend_goodbye(const struct smtp_reply *reply);
void backend_refused(struct smtp_dialog *d, const char *reply);

#define REPLY_LOST "451 4.4.2 The backend was lost; please try again\r\n"

#endif
