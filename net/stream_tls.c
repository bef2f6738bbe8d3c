#include "net/stream_internal.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/tls_internal.h"

/*
 *     stream_write ─▶ gathered ─▶ SSL ─▶ outgoing ─▶ stream_send ─▶ kernel, or unsent
 *     stream_read  ◀───────────── SSL ◀───────────── recv
 *
 * OpenSSL never sees the socket. What it writes always finds room in `outgoing`, which goes out as a whole
 * behind each operation; so no operation ever waits for the kernel to take octets, and an alert or a key
 * update that a read brought about needs no care of its own. Both buffers belong to the thread and are empty
 * between two operations: an idle stream holds its SSL, one BIO and a tls_state.
 *
 * OpenSSL reads ahead, so octets may wait inside it that the kernel will not announce. `more` says so; as
 * long as it is set an event is fed to the loop whenever the owner wants to read.
 */

#define RECORD_MAX    16384 /* plaintext octets of a record (RFC 8446 §5.1) */
#define OUTGOING_SIZE 65536 /* at most one send() for so many octets */
#define HELLO_MAX     65536 /* octets of a handshake that are received in one turn */
#define ANSWERS_MAX   65536 /* octets of OpenSSL's own that wait for a peer that reads none of them */

enum tls_phase { TLS_HANDSHAKE, TLS_OPEN, TLS_FAILED };

struct tls_state {
    SSL *ssl;
    char *failure; /* NULL: none, or out of memory */
    char *early;   /* octets that were read before TLS began; NULL when OpenSSL has had them */
    size_t early_start, early_end;
    size_t allowance; /* octets that may still be received in this turn */
    size_t answers;   /* octets that reading made OpenSSL say, all of them unsent */
    enum tls_phase phase;
    int end;    /* what is read behind the last octet: 0 or -errno; 1: that is not known yet */
    int error;  /* recv()'s; 0 if it met the end */
    bool more;  /* octets or the end wait here, not in the kernel */
    bool due;   /* the handshake has ended and the owner does not know yet */
    bool dry;   /* the kernel has nothing more for now: it is not asked */
    bool mute;  /* a write failed: nothing may follow */
    bool ended; /* FIN follows when all is sent */
};

static _Thread_local struct {
    size_t n;
    int error; /* -errno: not all of it could be sent or kept */
    char octets[OUTGOING_SIZE];
} outgoing;
static _Thread_local char gathered[RECORD_MAX];

/* --- between OpenSSL and the socket --- */

static int read_early(struct tls_state *tls, char *buffer, size_t size)
{
    size_t n = tls->early_end - tls->early_start;

    if (n > size)
        n = size;
    memcpy(buffer, tls->early + tls->early_start, n);
    tls->early_start += n;
    if (tls->early_start == tls->early_end) {
        free(tls->early);
        tls->early = NULL;
    }
    return (int)n;
}

static int bio_read(BIO *bio, char *buffer, int size)
{
    struct stream *stream = BIO_get_data(bio);
    struct tls_state *tls = stream->tls;
    ssize_t n;

    BIO_clear_retry_flags(bio);
    if (tls->early)
        return read_early(tls, buffer, (size_t)size);
    if (tls->dry) {
        BIO_set_retry_read(bio);
        return -1;
    }
    do {
        n = recv(stream->io.fd, buffer, (size_t)size, 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        tls->allowance -= (size_t)n < tls->allowance ? (size_t)n : tls->allowance;
        tls->dry = n < size || !tls->allowance;
        return (int)n;
    }
    if (n < 0 && errno == EAGAIN) {
        tls->dry = true;
        BIO_set_retry_read(bio);
        return -1;
    }
    /* Writing may have been told the reason before. */
    tls->error = stream->error ? stream->error : n < 0 ? errno : 0;
    return n < 0 ? -1 : 0;
}

static int send_outgoing(struct stream *stream)
{
    struct iovec part = { outgoing.octets, outgoing.n };

    outgoing.n = 0;
    return stream_send(stream, &part, 1);
}

static int bio_write(BIO *bio, const char *octets, int size)
{
    struct stream *stream = BIO_get_data(bio);
    size_t left = (size_t)size, part;

    BIO_clear_retry_flags(bio);
    while (left && !outgoing.error) {
        part = OUTGOING_SIZE - outgoing.n;
        if (part > left)
            part = left;
        memcpy(outgoing.octets + outgoing.n, octets, part);
        outgoing.n += part;
        octets += part;
        left -= part;
        if (outgoing.n == OUTGOING_SIZE)
            outgoing.error = send_outgoing(stream);
    }
    return outgoing.error ? -1 : size;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    /* The flush comes behind the operation. BIO_CTRL_EOF stays unanswered: OpenSSL would send an alert at
     * every bare end of a stream, and forget the session. */
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *method;

static void create_method(void)
{
    BIO_METHOD *made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");

    if (made && BIO_meth_set_read(made, bio_read) && BIO_meth_set_write(made, bio_write) &&
        BIO_meth_set_ctrl(made, bio_control))
        method = made;
    else
        BIO_meth_free(made);
}

/* Behind each operation: what OpenSSL wrote goes out. 0 or -errno. */
static int flush(struct stream *stream)
{
    int result = outgoing.error;

    if (outgoing.n && !result)
        result = send_outgoing(stream);
    outgoing.n = 0;
    outgoing.error = 0;
    return result;
}

/* In front of each operation, for SSL_get_error() looks at the queue. Mostly it is empty, and clearing it
 * costs more than looking. */
static void forget_errors(void)
{
    if (ERR_peek_error())
        ERR_clear_error();
}

/* --- how it ends --- */

/* Why OpenSSL did not do it: -EAGAIN, 0 for close_notify, or what is wrong. */
static int verdict(struct tls_state *tls, int result)
{
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ: return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_SYSCALL: return tls->error ? -tls->error : -ECONNRESET;
    default: return -EPROTO;
    }
}

static void explain(struct tls_state *tls)
{
    unsigned long code = ERR_peek_error(); /* the oldest: the cause of the others */
    const char *text, *more = NULL;

    if (tls->failure)
        return;
    if (!code)
        text = tls->error ? strerror(tls->error) : "closed during the handshake";
    else if (ERR_SYSTEM_ERROR(code))
        text = strerror(ERR_GET_REASON(code));
    else
        text = ERR_reason_error_string(code);
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        more = X509_verify_cert_error_string(SSL_get_verify_result(tls->ssl));
    if (asprintf(&tls->failure, "%s%s%s", text ? text : "unknown error", more ? ": " : "", more ? more : "") <
        0)
        tls->failure = NULL;
    ERR_clear_error();
}

const char *stream_tls_failure(const struct stream *stream)
{
    const struct tls_state *tls = stream->tls;

    if (!tls || (tls->phase != TLS_FAILED && !tls->failure))
        return "";
    return tls->failure ? tls->failure : "out of memory";
}

/* --- the handshake --- */

static void advance(struct stream *stream)
{
    struct tls_state *tls = stream->tls;
    int result, why;

    forget_errors();
    tls->allowance = HELLO_MAX;
    result = SSL_do_handshake(tls->ssl);
    if (result == 1) {
        tls->phase = TLS_OPEN;
        tls->due = true;
        tls->more = tls->early || SSL_has_pending(tls->ssl);
    } else {
        why = verdict(tls, result);
        if (why != -EAGAIN) {
            explain(tls);
            tls->phase = TLS_FAILED;
            tls->end = tls->error ? -tls->error : -EPROTO; /* a connect that failed is just that */
            tls->due = true;
        }
    }
    /* What can't be sent shows by reading, which may find the peer's reason too. */
    (void)flush(stream);
}

static int begin(struct stream *stream, SSL *ssl)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct tls_state *tls = calloc(1, sizeof *tls);
    BIO *bio = NULL;

    (void)pthread_once(&once, create_method);
    if (ssl && tls && method)
        bio = BIO_new(method);
    if (!bio) {
        SSL_free(ssl);
        free(tls);
        ERR_clear_error();
        return -ENOMEM;
    }
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    tls->ssl = ssl;
    tls->end = 1;
    stream->tls = tls;
    stream->reading = true;
    stream_watch(stream);
    return 0;
}

int stream_accept_tls(struct stream *stream, const struct tls_server *server, const char *early, size_t size)
{
    SSL *ssl = tls_server_connection(server);
    char *copy = NULL;
    int result;

    if (size) {
        copy = malloc(size);
        if (!copy) {
            SSL_free(ssl);
            return -ENOMEM;
        }
        memcpy(copy, early, size);
    }
    result = begin(stream, ssl);
    if (result != 0) {
        free(copy);
        return result;
    }
    if (copy) {
        stream->tls->early = copy;
        stream->tls->early_end = size;
        advance(stream);
        stream_tls_announce(stream);
    }
    /* Otherwise the client's hello is waited for. */
    return 0;
}

int stream_connect_tls(struct stream *stream, const struct tls_client *client, const char *name,
                       struct tls_resumption *resumption)
{
    int result = begin(stream, tls_client_connection(client, name, resumption));

    if (result == 0) {
        stream->tls->dry = true; /* nothing can have come before the hello has gone */
        advance(stream);
        stream_tls_announce(stream);
    }
    return result;
}

bool stream_tls_insists(const struct stream *stream)
{
    return stream->tls->phase == TLS_HANDSHAKE || stream->tls->due;
}

void stream_tls_announce(struct stream *stream)
{
    struct tls_state *tls = stream->tls;

    if (tls->due || (tls->more && stream->read_wanted))
        ev_feed_event(stream->loop, &stream->io, EV_READ);
}

void stream_tls_readable(struct stream *stream)
{
    struct tls_state *tls = stream->tls;

    if (tls->phase == TLS_HANDSHAKE) {
        tls->dry = false;
        advance(stream);
        if (!tls->due)
            return;
    }
    if (!tls->due) {
        stream->handler(stream, STREAM_READABLE);
        return;
    }
    tls->due = false;
    stream_tls_announce(stream); /* the first octets may have come with the end of the handshake */
    stream->handler(stream, tls->phase == TLS_OPEN ? STREAM_SECURED : STREAM_READABLE);
}

/* --- octets --- */

/* Behind reading. A peer may ask for answers (KeyUpdate, another handshake) and read none of them. */
static void flush_answers(struct stream *stream, size_t unsent_before)
{
    struct tls_state *tls = stream->tls;

    (void)flush(stream);
    tls->answers += stream_unsent(stream) - unsent_before;
    if (tls->answers <= ANSWERS_MAX || tls->end <= 0)
        return;
    tls->end = -EPROTO;
    if (!tls->failure)
        tls->failure = strdup("the peer asks and reads no answers");
}

ssize_t stream_tls_read(struct stream *stream, void *buffer, size_t size)
{
    struct tls_state *tls = stream->tls;
    size_t total = 0, before = stream_unsent(stream), n;
    int why;

    if (tls->phase == TLS_HANDSHAKE)
        return -EAGAIN;
    if (tls->end <= 0) {
        tls->more = false;
        return tls->end;
    }
    /* What waits here comes alone: with the kernel's octets behind it, a fast peer would keep this stream in
     * one turn of the loop forever. So would one whose records hold nothing to read: they have an allowance.
     */
    tls->dry = tls->more;
    tls->allowance = size + RECORD_MAX;
    forget_errors();
    while (total < size) {
        if (SSL_read_ex(tls->ssl, (char *)buffer + total, size - total, &n)) {
            total += n;
            /* The usual read is one record: OpenSSL need not be asked once more to say that there is none. */
            if (tls->dry && !tls->early && !SSL_has_pending(tls->ssl))
                break;
            continue;
        }
        why = verdict(tls, 0);
        if (why == -EAGAIN)
            break;
        tls->end = why;
        if (why == -EPROTO)
            explain(tls);
        break;
    }
    flush_answers(stream, before);
    if (total == 0) {
        tls->more = false;
        return tls->end > 0 ? -EAGAIN : tls->end;
    }
    tls->more = tls->end <= 0 || (total == size && SSL_has_pending(tls->ssl));
    stream_tls_announce(stream);
    return (ssize_t)total;
}

/* One call for any number of records. */
static int encrypt(struct stream *stream, const char *octets, size_t size)
{
    struct tls_state *tls = stream->tls;
    size_t n;

    while (size) {
        if (!SSL_write_ex(tls->ssl, octets, size, &n)) {
            if (outgoing.error)
                return outgoing.error;
            explain(tls);
            stream_cut(stream);
            return -EPROTO;
        }
        octets += n;
        size -= n;
    }
    return 0;
}

int stream_tls_write(struct stream *stream, const struct iovec *parts, int n)
{
    struct tls_state *tls = stream->tls;
    size_t held = 0, most = 0;
    int result = 0, flushed;

    if (tls->phase != TLS_OPEN || tls->mute || (SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN))
        return -EPIPE;
    forget_errors();
    for (int i = 0; i < n; i++) {
        const char *octets = parts[i].iov_base;
        size_t left = parts[i].iov_len, take;

        while (left && !result) {
            if (!held && (left >= RECORD_MAX || i == n - 1)) {
                /* Whole records, and what nothing follows, are taken from where they lie. */
                take = i == n - 1 ? left : left - left % RECORD_MAX;
                result = encrypt(stream, octets, take);
            } else {
                take = left < RECORD_MAX - held ? left : RECORD_MAX - held;
                memcpy(gathered + held, octets, take);
                held += take;
                if (most < held)
                    most = held;
                if (held == RECORD_MAX) {
                    result = encrypt(stream, gathered, held);
                    held = 0;
                }
            }
            octets += take;
            left -= take;
        }
    }
    if (held && !result)
        result = encrypt(stream, gathered, held);
    if (stream->secrets)
        OPENSSL_cleanse(gathered, most);
    flushed = flush(stream);
    if (!result)
        result = flushed;
    tls->mute = result != 0;
    return result;
}

/* --- the end --- */

void stream_tls_drained(struct stream *stream)
{
    stream->tls->answers = 0;
    if (stream->tls->ended) {
        stream->tls->ended = false;
        (void)shutdown(stream->io.fd, SHUT_WR);
    }
}

void stream_tls_shutdown(struct stream *stream)
{
    struct tls_state *tls = stream->tls;

    if (tls->phase == TLS_OPEN && !tls->mute) {
        (void)SSL_shutdown(tls->ssl);
        (void)flush(stream);
        forget_errors();
    }
    tls->ended = true;
    if (!stream->unsent)
        stream_tls_drained(stream);
}

void stream_tls_end(struct stream *stream, bool farewell)
{
    struct tls_state *tls = stream->tls;

    if (farewell && tls->phase == TLS_OPEN && tls->end >= 0 && !tls->mute && !stream->unsent &&
        !(SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN)) {
        (void)SSL_shutdown(tls->ssl);
        if (outgoing.n)
            (void)stream_send_once(stream, &(struct iovec){ outgoing.octets, outgoing.n }, 1);
        outgoing.n = 0;
    }
    /* A session may be resumed however its connection ended (RFC 5246 §7.2.1), unless the protocol was
     * broken; SSL_free() would forget it, under a lock of all threads. */
    if (tls->phase == TLS_OPEN && tls->end != -EPROTO)
        SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(tls->ssl);
    forget_errors();
    free(tls->failure);
    free(tls->early);
    free(tls);
    stream->tls = NULL;
}

/* --- what it is --- */

static void common_name(const X509 *certificate, char *out, size_t size)
{
    const X509_NAME *subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1), length;
    unsigned char *text;

    out[0] = '\0';
    if (at < 0)
        return;
    length = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (length < 0) {
        ERR_clear_error();
        return;
    }
    if ((size_t)length < size) {
        bool fit = true;

        for (int i = 0; i < length; i++)
            /* C1 controls too: U+0080 to U+009F. */
            fit &= text[i] >= 0x20 && text[i] != 0x7f && !(i && text[i - 1] == 0xc2 && text[i] < 0xa0);
        if (fit) {
            memcpy(out, text, (size_t)length);
            out[length] = '\0';
        }
    }
    OPENSSL_free(text);
}

bool stream_tls(const struct stream *stream, struct tls_description *out)
{
    const struct tls_state *tls = stream->tls;
    X509 *certificate;

    if (!tls || tls->phase != TLS_OPEN)
        return false;
    if (!out)
        return true;
    memset(out, 0, sizeof *out);
    out->version = SSL_get_version(tls->ssl);
    out->cipher = SSL_get_cipher_name(tls->ssl);
    out->sni = SSL_get_servername(tls->ssl, TLSEXT_NAMETYPE_host_name);
    out->resumed = SSL_session_reused(tls->ssl);
    certificate = SSL_get0_peer_certificate(tls->ssl);
    if (certificate && SSL_get_verify_mode(tls->ssl) & SSL_VERIFY_PEER &&
        SSL_get_verify_result(tls->ssl) == X509_V_OK) {
        out->certified = true;
        common_name(certificate, out->common_name, sizeof out->common_name);
    }
    return true;
}
