/* Contexts as stream_tls.c sees them. */
#ifndef WEIR_NET_TLS_INTERNAL_H
#define WEIR_NET_TLS_INTERNAL_H

#include <openssl/ssl.h>

#include "net/tls.h"

/* A new connection; the context must outlive it. NULL: out of memory. */
SSL *tls_server_connection(const struct tls_server *server);
/* `name` is the host name or address literal that is verified where the context verifies; a host name is sent
 * as SNI too. NULL or "": nothing is sent, and verifying fails. `resumption` may be NULL; new sessions are
 * kept there (it must outlive the connection), and one that fits is offered:
 * of the same context and the same name. OpenSSL forgets the session of a connection that is freed before
 * SSL_shutdown() or SSL_set_shutdown(). */
SSL *tls_client_connection(const struct tls_client *client, const char *name,
                           struct tls_resumption *resumption);

#endif
