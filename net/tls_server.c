/* Contexts for connections of clients. */
#include <stdlib.h>
#include <string.h>

#include "net/tls_files.h"
#include "net/tls_internal.h"

#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!aNULL:!AESCCM8"

struct tls_server {
    SSL_CTX *context;
};

struct tls_server *tls_server_create(const struct tls_server_settings *settings, tls_report *report,
                                     void *arg)
{
    struct tls_faults faults = { .report = report, .arg = arg, .culprit = TLS_CULPRIT_CERTIFICATE };
    struct tls_server *server = calloc(1, sizeof *server);

    server->context = SSL_CTX_new(TLS_server_method());
    SSL_CTX_set_min_proto_version(server->context,
                                  settings->min_version == TLS_VERSION_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(server->context, CIPHERS);
    SSL_CTX_set_options(server->context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                             SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(server->context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(server->context, 1);
    SSL_CTX_set_num_tickets(server->context, 1);
    SSL_CTX_set_session_cache_mode(server->context, SSL_SESS_CACHE_OFF);
    for (size_t i = 0; i < settings->n_certificates; i++) {
        struct tls_certificate certificate;
        faults.index = i;
        if (tls_certificate_read(&faults, settings->certificates[i], &certificate) &&
            SSL_CTX_use_cert_and_key(server->context, certificate.leaf, certificate.key, certificate.chain,
                                     1) != 1)
            tls_fault(&faults, "is refused by OpenSSL: %s", tls_reason());
        tls_certificate_free(&certificate);
    }
    if (faults.any)
        tls_server_free(&server);
    return server;
}

void tls_server_free(struct tls_server **server)
{
    if (*server) {
        SSL_CTX_free((*server)->context);
        free(*server);
    }
    *server = NULL;
}

SSL *tls_server_connection(const struct tls_server *server)
{
    SSL *ssl = SSL_new(server->context);

    if (ssl)
        SSL_set_accept_state(ssl);
    return ssl;
}
