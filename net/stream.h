/*
 * A stream: a connected socket as a few events.
 *
 * Reads go into a buffer of the caller's (one a worker, not one a session). Writes go to the kernel at once;
 * what it does not take is kept here and sent when it will. Watchers are touched as little as possible: the
 * read watcher stays on, and is stopped only when it fires while nobody wants to read.
 *
 *     READABLE   octets, an end of stream or an error wait: call stream_read()
 *     DRAINED    everything written has gone to the kernel after an earlier write had left octets here
 *     SECURED    the TLS handshake that was begun has ended well
 *
 * TLS changes nothing above: what is written is encrypted at once, and what the kernel does not take is kept
 * as it would go out; so a plain prefix (a PROXY header, the reply to STARTTLS) may still be unsent when the
 * handshake begins. A handshake that fails is READABLE, whether reading is wanted or not, and stream_read()
 * says -EPROTO, or the socket's error. What a handshake left unsent is followed by DRAINED too.
 */
#ifndef WEIR_NET_STREAM_H
#define WEIR_NET_STREAM_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "net/address.h"
#include "net/tls.h"

enum stream_event { STREAM_READABLE, STREAM_DRAINED, STREAM_SECURED };

struct stream;
typedef void stream_handler(struct stream *stream, enum stream_event event);

struct stream {
    ev_io io; /* io.fd is the socket, or -1 */
    struct ev_loop *loop;
    stream_handler *handler;
    char *unsent; /* NULL when everything has gone to the kernel */
    size_t unsent_start, unsent_end, unsent_size;
    bool read_wanted;
    bool reading;          /* the read watcher is on */
    bool secrets;          /* passwords may pass: what was kept of them is wiped */
    int error;             /* why writing failed, for the reader to be told */
    struct tls_state *tls; /* NULL: in the clear */
};

/* A stream without a socket: closing it is fine, everything else is not. */
void stream_init(struct stream *stream);

/* Take over a connected non-blocking socket and begin to read. */
void stream_open(struct stream *stream, struct ev_loop *loop, int fd, stream_handler *handler);

/* Begin to connect; the stream is readable when the peer has spoken, or has refused (stream_read() then says
 * so). Nothing watches for the mere completion: a mail relay speaks first. `source` may be NULL. Returns 0 or
 * -errno. */
int stream_connect(struct stream *stream, struct ev_loop *loop, const struct address *to,
                   const struct address *source, stream_handler *handler);
/* Of such an -errno: there are no descriptors, ports or memory here. The peer is not to blame. */
bool stream_own_fault(int error);
/* Whether the connection is established (a system call: for the moment a connect timer fires). */
bool stream_connected(const struct stream *stream);

/* Begin a TLS handshake, as the server or as the client. `early` are octets of the peer's hello that were
 * read already, behind a PROXY header in the same segment; they are copied. What was read in front of
 * STARTTLS is the caller's to throw away. Nothing may be written before SECURED, and nothing is READABLE. 0
 * or -ENOMEM. For `name` and `resumption` see tls_client_connection(). */
int stream_accept_tls(struct stream *stream, const struct tls_server *server, const char *early, size_t size);
int stream_connect_tls(struct stream *stream, const struct tls_client *client, const char *name,
                       struct tls_resumption *resumption);
/* Whether the stream is protected (the handshake has ended well); *out is then filled, if given. */
bool stream_tls(const struct stream *stream, struct tls_description *out);
/* Why TLS failed ("wrong version number", "certificate verify failed: certificate has expired"); "" if it did
 * not. Valid until the stream is closed. */
const char *stream_tls_failure(const struct stream *stream);

/* Read once. Octets read; 0 at the end of the stream (under TLS: the peer said so by close_notify); -EAGAIN;
 * -ECONNRESET if a TLS peer's stream ends without close_notify; -EPROTO; or another -errno. */
ssize_t stream_read(struct stream *stream, void *buffer, size_t size);

/* Write all of it, now or later. 0, or -errno if the connection is dead or memory is out (then nothing was
 * kept, and the connection is shut down, as nothing may follow what is missing). */
int stream_write(struct stream *stream, const struct iovec *parts, int n);
/* Octets that the kernel has not taken yet. */
size_t stream_unsent(const struct stream *stream);

/* While reading is not wanted no READABLE comes. Cheap to call often. */
void stream_want_read(struct stream *stream, bool wanted);

/* Send close_notify under TLS, and FIN, after what was written (only when nothing is unsent). */
void stream_shutdown(struct stream *stream);

/* Close and forget unsent octets; `abort` sends a reset, so that a peer in mid-transfer cannot mistake it for
 * an end. */
void stream_close(struct stream *stream);
void stream_abort(struct stream *stream);

static inline bool stream_is_open(const struct stream *stream)
{
    return stream->io.fd >= 0;
}

#endif
