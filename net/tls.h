/*
 * TLS contexts (RFC 8446, RFC 5246): what a listener shows its clients, and how a pool speaks to its
 * backends.
 *
 *     tls_server ── certificates by name, RSA beside ECDSA ── ticket keys ── authorities of clients
 *     tls_client ── authorities of backends
 *     stream ──── one connection that uses either (net/stream.h)
 *
 * A context never changes once it is made, so all threads share it; it belongs to the configuration snapshot
 * that asked for it and lives as long. A new certificate is a new context. OpenSSL is touched here and in
 * stream_tls.c, and nowhere else.
 */
#ifndef WEIR_NET_TLS_H
#define WEIR_NET_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tls_version { TLS_VERSION_1_2, TLS_VERSION_1_3 };

/* Which of the files is to blame. */
enum tls_culprit {
    TLS_CULPRIT_CERTIFICATE,
    TLS_CULPRIT_TICKET_KEYS,
    TLS_CULPRIT_AUTHORITY,
    TLS_CULPRIT_NONE
};

/* Told of every mistake: `index` is the certificate's, `text` continues a sentence that begins with the
 * file's name ("holds a private key that does not belong to its first certificate"); with TLS_CULPRIT_NONE it
 * is the whole sentence. */
typedef void tls_report(void *arg, enum tls_culprit culprit, size_t index, const char *text);

struct tls_server;
struct tls_client;

struct tls_server_settings {
    /* Tickets are bound to it and to the authorities: one listener's are not honoured by another. The same in
     * all instances that share ticket keys. */
    const char *listener;
    /* PEM files, each with a chain and its key. A client that names a host (SNI, RFC 6066 §3) gets the
     * certificates that carry the name, exactly or by wildcard, the RSA or the ECDSA one as it can verify
     * them; any other name, or none, gets the first file's (and its twin's of the other kind with the same
     * name). FILE.ocsp beside one is its OCSP response (DER), stapled while it is valid. */
    size_t n_certificates;
    const char *const *certificates;
    /* "" for keys of this process alone. Otherwise one key a line, base64 of 80 octets: the first encrypts,
     * all decrypt. Lines that begin with # are comments. */
    const char *ticket_keys;
    const char *client_ca; /* "": clients are not asked; otherwise each must show a certificate of these */
    enum tls_version min_version;
    bool secrets; /* what is decrypted may be a password: OpenSSL wipes its buffers */
};

struct tls_client_settings {
    bool verify;    /* the chain, and the name given to each connection */
    const char *ca; /* a PEM file; "": the system's */
};

/* NULL after mistakes, each of which was reported. */
struct tls_server *tls_server_create(const struct tls_server_settings *settings, tls_report *report,
                                     void *arg);
struct tls_client *tls_client_create(const struct tls_client_settings *settings, tls_report *report,
                                     void *arg);
void tls_server_free(struct tls_server **server);
void tls_client_free(struct tls_client **client);

/* The last session that a backend gave to one thread, to be resumed by the next connection (RFC 8446 §2.2).
 * It is used only with the context it came from: what another verified may not be what this one demands.
 * Zeroed: none. */
struct tls_resumption {
    void *session;
    uint64_t context;
};
void tls_resumption_clear(struct tls_resumption *resumption);

/* How a connection is protected. The texts live as long as the connection. */
struct tls_description {
    const char *version; /* "TLSv1.3" */
    const char *cipher;  /* "TLS_AES_256_GCM_SHA384" */
    const char *sni;     /* the host that the client named; NULL: none. As it was sent: not to be trusted */
    bool resumed;
    bool certified;       /* the peer showed a certificate and it was verified */
    char common_name[65]; /* of that certificate; "" if it has none, or one with control characters */
};

#endif
