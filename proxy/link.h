/*
 * A link: one connection to a backend, with the place it occupies there.
 *
 *   session_x ──owner──▶ link ──▶ backend
 *   (QUIT sent)          link ──▶ backend      on worker->leaving until 221, end of stream, or 1 s
 *
 * The place is given back when the connection has really ended: a backend never sees more than its cap.
 */
#ifndef WEIR_PROXY_LINK_H
#define WEIR_PROXY_LINK_H

#include "balancer/placement.h"
#include "net/stream.h"
#include "proxy/worker.h"

struct link {
    struct stream stream; /* first: the stream's handler finds the link by it */
    struct worker *worker;
    struct session *session; /* NULL: leaving */
    struct place place;
    struct link *previous, *next; /* while leaving */
    int64_t leaving_until;
    int64_t began;
    uint32_t refusals; /* since the last message that it took */
    bool handshaking;  /* TLS has begun, and how it ends is to be recorded */
    bool proved;       /* it has answered a MAIL with something other than 421 */
    bool near;         /* its address is loopback, private or a Unix socket */
};

/* What a connection to a backend begins with. */
struct link_target {
    const struct address *source;             /* length 0: any */
    enum config_identity identity;            /* PROXY_V1, PROXY_V2: a header goes first */
    const struct peer *client, *local;        /* for the header */
    const struct tls_description *client_tls; /* for the header; NULL: the client has none */
    const struct tls_client *tls;             /* begin TLS at once; NULL: in the clear, so far */
    const char *tls_name;
    bool secrets; /* passwords may go there */
};

/* Connect to the place's backend. NULL with *error = -errno; the place then stays the caller's. `handler`
 * gets the stream's events while a session owns the link. */
struct link *link_open(struct worker *worker, struct session *session, struct place place,
                       const struct link_target *target, stream_handler *handler, int *error);
/* The same backend and place once more, over a new connection. 0 or -errno; the link stays the owner's. */
int link_reconnect(struct link *link, const struct link_target *target, stream_handler *handler);
/* Begin TLS, behind STARTTLS. */
int link_secure(struct link *link, const struct tls_client *tls, const char *name);
/* The owner has sent QUIT: wait for the backend's farewell without the session. */
void link_leave(struct link **link);
/* Close now and give the place back. */
void link_close(struct link **link);
/* Close all that are leaving: the worker stops. */
void link_close_leaving(struct worker *worker);
/* Four times a second while any link is leaving. */
void link_sweep(struct ev_loop *loop, ev_timer *timer, int events);

#endif
