/*
 * Inside a session: the object, and its errands to backends (errand.c).
 */
#ifndef WEIR_PROXY_SESSION_INTERNAL_H
#define WEIR_PROXY_SESSION_INTERNAL_H

#include "balancer/placement.h"
#include "net/stream.h"
#include "proxy/session.h"

#define LINGER_OCTETS_MAX (64u << 20) /* a client that never stops sending after the last word */
#define REPLY_READ        16384       /* what is read of a backend at a time, and held at most */

/* Octets that were read and not consumed: during an entry in the worker's buffer, between entries in memory
 * of their own. */
struct input {
    char *data;
    size_t size;
    char *kept; /* malloc()ed, or NULL */
    size_t kept_size;
    bool lost;    /* could not be kept */
    bool secrets; /* may hold credentials: no copy is left behind */
};

/* What comes before the dialog. */
enum prelude {
    PRELUDE_NONE,
    PRELUDE_HEADER,    /* its PROXY header has not come yet */
    PRELUDE_HANDSHAKE, /* of implicit TLS */
};

/* What a session does about backends: the place it wants, the link it has, and the times for the log. From
 * the first MAIL on. */
struct errand {
    struct placement_wish wish;
    struct waiter *waiter; /* in the queue */
    struct link *link;     /* connected, or connecting */
    struct member *member; /* held: of the link, or of the last one in this pool */
    struct farm *farm;     /* held, that `pool` is of; NULL: the one that the session began with */
    size_t pool;           /* chosen for this transaction, or for the link at hand: index */
    bool retrying;         /* holds one of the process's few retries, … */
    bool in_line;          /* … or waits for one, between these */
    struct session *line_previous, *line_next;
    bool refused;                  /* no backend was to be had: the next wish begins anew */
    unsigned attempts;             /* backends tried for this transaction */
    int64_t began;                 /* the transaction; ms, 0: not known yet */
    int64_t linked;                /* when the last link was begun */
    int64_t asked;                 /* when the place was asked for */
    struct smtp_identity identity; /* of the client, for XCLIENT and XFORWARD */
    uint32_t queue_ms, connect_ms, mail_ms, rcpt_ms, data_ms, end_ms;
};

struct session {
    struct stream client; /* first: the stream's handler finds the session by it */
    struct session *previous, *next;
    struct worker *worker;
    struct front *front; /* held */
    const struct listener *listener;
    struct smtp_gate gate;
    struct sender *sender; /* of the message at hand, for limits by its domain; NULL: none so far */
    uint64_t newest_limit; /* serial of the newest rule that the message at hand was let in by */
    struct errand *errand; /* NULL until the first MAIL */
    struct input input, reply_input;
    ev_timer timer;
    int64_t deadline;                    /* of what is awaited; ms, 0: to be set */
    int64_t fires;                       /* when the timer watcher wakes, at the latest */
    size_t stalled_client, stalled_link; /* unsent octets when the deadline was set */
    uint32_t timer_serial;
    uint8_t timer_kind; /* enum smtp_timer */
    bool counted;       /* in the listener's counts */
    uint8_t prelude;    /* enum prelude */
    bool local_channel; /* it came over a Unix socket */
    bool nameless;      /* … and told no address: no access list matches */
    bool closing, linger, finished;
    bool client_ended, client_failed, client_end_told;
    bool has_answer;
    struct smtp_event answer; /* what the dialog is to be told next */
    struct smtp_dialog dialog;
    struct peer peer;  /* who the client is, as far as anybody told */
    char *login;       /* from XCLIENT; NULL: none */
    struct peer local; /* where it came in; family 0: not asked yet */
    uint64_t id;
    int64_t began, body_began;
    uint64_t bytes_in, bytes_out, lingered;
};

/* session.c */
void session_event(struct session *s, const struct smtp_event *event);
void session_conclude(struct session *s);
ssize_t session_read(struct session *s, struct stream *stream, struct input *input, size_t most);
void session_free(struct session *s);
/* Octets that stay unconsumed move out of the worker's buffer, which belongs to whoever reads next. */
void input_keep(struct input *input);
void input_drop(struct input *input);

/* arrival.c */
void arrival_begin(struct session *s);                          /* accepted */
void arrival_event(struct session *s, enum stream_event event); /* in front of the dialog */
void arrival_timeout(struct session *s);
void arrival_anew(struct session *s, const struct smtp_xclient *xclient); /* it speaks for somebody else */
void session_leave_listener(const struct listener *listener, const struct peer *peer);

/* aim.c */
/* The session's listener, as it is in the worker's present front; where it is gone, as it was. */
const struct listener *aim_listener(const struct session *s);
/* Choose the errand's pool for what `arg` tells of. */
void aim_take(struct session *s, const struct smtp_action_arg *arg);
/* Whether the backend at hand is of the pool that would be chosen. */
bool aim_fits(const struct session *s, const struct smtp_action_arg *arg);
/* The errand's pool, by name, in the worker's current snapshot; where it is gone, as it was. */
struct farm *aim_farm(const struct session *s, size_t *index);

/* errand.c */
void errand_begin(struct session *s, const struct smtp_action_arg *arg);
void errand_route(struct session *s, const struct smtp_action_arg *arg);
void errand_greeted(struct session *s, const struct smtp_capabilities *capabilities);
void errand_replied(struct session *s, const struct smtp_action_arg *arg);
void errand_secure(struct session *s);    /* begin TLS with the backend */
void errand_reconnect(struct session *s); /* the same backend, without TLS */
void errand_quit(struct session *s);
void errand_abort(struct session *s, enum smtp_loss loss);
void errand_over(struct session *s, const struct smtp_transaction *transaction);
uint32_t errand_patience(const struct session *s); /* with the queue, ms */
bool errand_time_is_up(struct session *s);         /* true if it was the errand's own time */
void errand_drop(struct session *s);               /* the session ends */
void errand_again(struct session *s);              /* its turn to try another backend has come */

/* retry.c */
/* Before another backend is tried. True: go ahead; false: errand_again() will come. */
bool retry_begin(struct session *s);
/* One that has waited in the queue has got a place: it goes ahead, and counts. */
void retry_granted(struct session *s);
/* The backend is ready or lost, or nothing is tried any more; or others burden a relay while this one waits
 * in the queue. Nothing if it is no retry. */
void retry_end(struct session *s);

/* signs.c: what health hears of the backend at hand. */
void signs_good(const struct session *s);
void signs_lost(const struct session *s, enum smtp_loss loss);
void signs_unanswered(const struct session *s); /* a whole message, as it turned out */
/* Whether this reply, which is counted, may have been late on purpose. */
bool signs_slowed(struct link *link, const struct smtp_action_arg *arg);

/* For a handshake with the client, ms. */
uint32_t session_handshake_limit(const struct session *s);
/* Where the client came in: what the PROXY header said, or the socket. */
const struct peer *session_local(struct session *s);

static inline struct link *session_link(const struct session *s)
{
    return s->errand ? s->errand->link : NULL;
}

/* The pool as it was when it was chosen, with the limits of those days; before that, the listener's own. */
static inline const struct pool *errand_pool(const struct session *s)
{
    const struct farm *farm = s->errand && s->errand->farm ? s->errand->farm : s->front->farm;

    return &farm->pools[s->errand ? s->errand->pool : s->listener->pool];
}

#endif
