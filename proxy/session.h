/*
 * A session: a client's connection and its dialog, glued to a stream, a timer and, while there is mail, a
 * backend.
 */
#ifndef WEIR_PROXY_SESSION_H
#define WEIR_PROXY_SESSION_H

#include "net/stream.h"
#include "proxy/worker.h"

/* Once, before the first session. */
void retry_open(struct worker *worker);
/* Begin a session on an accepted socket, which it owns from now on. Whoever is not welcome (the listener's or
 * the client's limit) is told so and closed. */
void session_begin(struct worker *worker, size_t listener, int fd, const struct peer *peer);

/* The worker's front is another, or the session's dialog has begun: does it have to ask for its ways? */
void session_follow_routes(struct session *session);
/* The same of limits. */
void session_follow_limits(struct session *session);
/* For the worker's mail: each may end the session. */
void session_backend_down(struct session *session, const struct backend *backend);
void session_backend_leave(struct session *session, const struct backend *backend, bool must);
void session_drain(struct session *session);
void session_stop(struct session *session);
struct session *session_next(const struct session *session);

#endif
