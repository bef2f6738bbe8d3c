/*
 * What stream.c and stream_tls.c know of each other.
 *
 *     stream.c      the socket, its watcher, what is unsent
 *     stream_tls.c  what goes through a stream that has `tls` set
 *
 * Functions of stream_tls.c are called only for such streams.
 */
#ifndef WEIR_NET_STREAM_INTERNAL_H
#define WEIR_NET_STREAM_INTERNAL_H

#include "net/stream.h"

/* --- stream.c --- */

/* Send octets as they are, now or later. Same result as stream_write(). */
int stream_send(struct stream *stream, const struct iovec *parts, int n);
/* Send what the kernel takes, keep nothing. Octets it took (0 if none), or -errno. */
ssize_t stream_send_once(struct stream *stream, const struct iovec *parts, int n);
/* Poll for what the stream's state calls for. */
void stream_watch(struct stream *stream);
/* Nothing may follow the octets that are missing now: the peer and the owner see an end. */
void stream_cut(struct stream *stream);

/* --- stream_tls.c --- */

ssize_t stream_tls_read(struct stream *stream, void *buffer, size_t size);
int stream_tls_write(struct stream *stream, const struct iovec *parts, int n);
/* Whether the handshake needs to read, or to tell how it ended, whatever the owner wants. */
bool stream_tls_insists(const struct stream *stream);
/* Octets wait here that the kernel will not announce again: make an event of them. The loop forgets such an
 * event when a watcher changes, so this is repeated then. */
void stream_tls_announce(struct stream *stream);
/* Something can be read. May call the handler: the stream may be gone behind it. */
void stream_tls_readable(struct stream *stream);
/* Everything that was unsent has gone. */
void stream_tls_drained(struct stream *stream);
void stream_tls_shutdown(struct stream *stream);
/* Forget it all. `farewell`: say close_notify, if that takes no waiting. */
void stream_tls_end(struct stream *stream, bool farewell);

#endif
