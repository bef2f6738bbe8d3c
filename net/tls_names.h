/* Which certificates are shown to a client that names a host (RFC 6066 §3). */
#ifndef WEIR_NET_TLS_NAMES_H
#define WEIR_NET_TLS_NAMES_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

#include "net/tls_files.h"

/* A name, and the first certificate of either kind that carries it. NULL: none of that kind does. */
struct tls_name {
    char *text; /* in lower case; "*.example.com" for a wildcard */
    const struct tls_certificate *rsa, *other;
    size_t order;     /* of its first appearance */
    SSL_CTX *context; /* the caller's */
};

struct tls_names {
    struct tls_name *list;
    size_t n, room;
};

/* Add what a certificate is good for: its DNS names or, if it has none, its common name. False: out of
 * memory. */
bool tls_names_add(struct tls_names *names, const struct tls_certificate *certificate);
/* After the last: sort, and make one of those with the same text. */
void tls_names_complete(struct tls_names *names);
/* The name itself; or a wildcard in place of its first label. A certificate for the very name is used even if
 * the wildcard's has a kind of key that this one lacks: it may be the one that a TLSA record names. NULL:
 * neither is there. */
const struct tls_name *tls_names_find(const struct tls_names *names, const char *host);
void tls_names_free(struct tls_names *names);

#endif
