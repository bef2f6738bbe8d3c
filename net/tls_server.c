/*
 * Contexts for connections of clients.
 *
 *     name ─▶ pair (an RSA certificate, one of another kind) ─▶ SSL_CTX
 *
 * A connection begins with the context of the first pair and changes to that of the name its client sends.
 * OpenSSL then takes certificates and some callbacks from the new one, tickets and options from the first;
 * all are configured alike, so that it need not be known which.
 */
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net/tls_files.h"
#include "net/tls_internal.h"
#include "net/tls_names.h"

/* Of TLS 1.2; all have forward secrecy. The last are for old Schannel, which has no other with RSA. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:!aNULL:!AESCCM"

/* Two certificates for the same names; either may be NULL. */
struct pair {
    const struct tls_certificate *rsa, *other;
    SSL_CTX *context;
};

struct tls_server {
    struct tls_certificate *certificates;
    size_t n_certificates;
    struct pair *pairs; /* the first is for clients that name no host, or an unknown one */
    size_t n_pairs;
    struct tls_names names;
    struct tls_tickets *tickets;       /* NULL: OpenSSL's own keys */
    X509_STORE *authorities;           /* of clients; NULL: they are not asked */
    unsigned char id[EVP_MAX_MD_SIZE]; /* of the sessions that may be resumed */
    unsigned int id_length;
    enum tls_version min_version;
    bool secrets;
};

/* --- during a handshake --- */

static int choose_certificates(SSL *ssl, int *alert, void *arg)
{
    const struct tls_server *server = arg;
    const char *host = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const struct tls_name *name = host ? tls_names_find(&server->names, host) : NULL;

    if (!name)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_set_SSL_CTX(ssl, name->context))
        return SSL_TLSEXT_ERR_OK;
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* A client that speaks of protocols must speak of ours: otherwise it was lured here from another service that
 * has a certificate in common with this one (RFC 7301 §3.2). */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_length,
                           const unsigned char *offered, unsigned int length, void *arg)
{
    static const unsigned char smtp[] = { 4, 's', 'm', 't', 'p' };

    (void)ssl;
    (void)arg;
    for (unsigned int i = 0; i < length; i += 1U + offered[i])
        if (length - i >= sizeof smtp && memcmp(offered + i, smtp, sizeof smtp) == 0) {
            *out = offered + i + 1;
            *out_length = offered[i];
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int staple(SSL *ssl, void *arg)
{
    const struct tls_server *server = arg;
    const X509 *leaf = SSL_get_certificate(ssl);

    for (size_t i = 0; i < server->n_certificates; i++) {
        const struct tls_staple *found = &server->certificates[i].staple;
        unsigned char *copy;
        if (server->certificates[i].leaf != leaf)
            continue;
        if (!found->response || found->until <= time(NULL))
            break;
        copy = OPENSSL_memdup(found->response, found->size);
        if (!copy)
            break;
        SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)found->size);
        return SSL_TLSEXT_ERR_OK;
    }
    return SSL_TLSEXT_ERR_NOACK;
}

static int apply_ticket_key(SSL *ssl, unsigned char name[16], unsigned char iv[EVP_MAX_IV_LENGTH],
                            EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int encrypt)
{
    const struct tls_server *server = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

    return tls_tickets_apply(server->tickets, ssl, name, iv, cipher, mac, encrypt);
}

/* --- making contexts --- */

static bool ask_for_certificates(const struct tls_server *server, SSL_CTX *context)
{
    STACK_OF(X509) *list = X509_STORE_get1_all_certs(server->authorities);
    bool good = list && SSL_CTX_set1_verify_cert_store(context, server->authorities) == 1;

    for (int i = 0; good && i < sk_X509_num(list); i++)
        good = SSL_CTX_add_client_CA(context, sk_X509_value(list, i)) == 1;
    sk_X509_pop_free(list, X509_free);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return good;
}

static bool configure(struct tls_server *server, SSL_CTX *context)
{
    int min_version = server->min_version == TLS_VERSION_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;
    uint64_t options = SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                       SSL_OP_PRIORITIZE_CHACHA;

    if (server->secrets)
        options |= SSL_OP_CLEANSE_PLAINTEXT;
    SSL_CTX_set_options(context, options);
    /* A certificate without a chain in its file goes out alone; no handshake searches for its issuers. */
    SSL_CTX_set_mode(context,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_read_ahead(context, 1);                          /* a record costs one recv() */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* tickets hold all there is to know */
    SSL_CTX_set_tlsext_servername_callback(context, choose_certificates);
    SSL_CTX_set_tlsext_servername_arg(context, server);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    SSL_CTX_set_tlsext_status_cb(context, staple);
    SSL_CTX_set_tlsext_status_arg(context, server);
    if (server->tickets)
        SSL_CTX_set_tlsext_ticket_key_evp_cb(context, apply_ticket_key);
    return SSL_CTX_set_app_data(context, server) == 1 && SSL_CTX_set_num_tickets(context, 1) == 1 &&
           SSL_CTX_set_min_proto_version(context, min_version) == 1 &&
           SSL_CTX_set_cipher_list(context, CIPHERS) == 1 &&
           SSL_CTX_set_session_id_context(context, server->id, server->id_length) == 1 &&
           (!server->authorities || ask_for_certificates(server, context));
}

static bool use_certificate(SSL_CTX *context, const struct tls_certificate *certificate)
{
    return !certificate ||
           SSL_CTX_use_cert_and_key(context, certificate->leaf, certificate->key, certificate->chain, 1) == 1;
}

/* The context of these two; made when they are first asked for. NULL: out of memory. */
static SSL_CTX *find_context(struct tls_server *server, const struct tls_certificate *rsa,
                             const struct tls_certificate *other)
{
    struct pair *pairs = server->pairs;
    SSL_CTX *context;

    for (size_t i = 0; i < server->n_pairs; i++)
        if (pairs[i].rsa == rsa && pairs[i].other == other)
            return pairs[i].context;
    pairs = reallocarray(pairs, server->n_pairs + 1, sizeof *pairs);
    if (!pairs)
        return NULL;
    server->pairs = pairs;
    context = SSL_CTX_new(TLS_server_method());
    if (!context || !configure(server, context) || !use_certificate(context, rsa) ||
        !use_certificate(context, other)) {
        SSL_CTX_free(context);
        return NULL;
    }
    pairs[server->n_pairs++] = (struct pair){ .rsa = rsa, .other = other, .context = context };
    return context;
}

/* The first file's pair is the one for its first name, which is the first name of all. */
static bool make_default(struct tls_server *server)
{
    const struct tls_certificate *first = &server->certificates[0];

    for (size_t i = 0; i < server->names.n; i++) {
        const struct tls_name *name = &server->names.list[i];
        if (name->order == 0 && (name->rsa == first || name->other == first))
            return find_context(server, name->rsa, name->other) != NULL;
    }
    return find_context(server, first->rsa ? first : NULL, first->rsa ? NULL : first) != NULL;
}

static bool make_contexts(struct tls_server *server)
{
    for (size_t i = 0; i < server->n_certificates; i++)
        if (!tls_names_add(&server->names, &server->certificates[i]))
            return false;
    tls_names_complete(&server->names);
    if (!make_default(server))
        return false;
    for (size_t i = 0; i < server->names.n; i++) {
        struct tls_name *name = &server->names.list[i];
        name->context = find_context(server, name->rsa, name->other);
        if (!name->context)
            return false;
    }
    return true;
}

/* --- reading the files --- */

static void read_certificates(struct tls_faults *faults, struct tls_server *server, const char *const *paths,
                              size_t n)
{
    SSL_CTX *judge = SSL_CTX_new(TLS_server_method()); /* tells what OpenSSL would refuse */

    server->certificates = calloc(n, sizeof server->certificates[0]);
    if (!judge || !server->certificates) {
        tls_fault_memory(faults);
        SSL_CTX_free(judge);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        struct tls_certificate *certificate = &server->certificates[server->n_certificates++];
        faults->culprit = TLS_CULPRIT_CERTIFICATE;
        faults->index = i;
        if (!tls_certificate_read(faults, paths[i], certificate))
            continue;
        if (!use_certificate(judge, certificate))
            tls_fault(faults, "is refused at OpenSSL's security level %d: %s",
                      SSL_CTX_get_security_level(judge), tls_reason());
        tls_staple_read(faults, paths[i], certificate);
    }
    faults->index = 0;
    SSL_CTX_free(judge);
}

/* Whoever may resume a session must have been let in by the same rules. */
static bool make_id(struct tls_server *server, const char *listener, const char *authorities, size_t size)
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool good = digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(digest, listener, strlen(listener) + 1) == 1 &&
                EVP_DigestUpdate(digest, authorities, size) == 1 &&
                EVP_DigestFinal_ex(digest, server->id, &server->id_length) == 1;

    EVP_MD_CTX_free(digest);
    return good;
}

static void read_authorities(struct tls_faults *faults, struct tls_server *server, const char *listener,
                             const char *path)
{
    size_t size = 0;
    char *text = NULL;

    faults->culprit = TLS_CULPRIT_AUTHORITY;
    if (path && *path) {
        text = tls_file_read(faults, path, false, &size);
        server->authorities = X509_STORE_new();
        if (text && server->authorities)
            tls_authorities_parse(faults, text, size, server->authorities);
        else if (text)
            tls_fault_memory(faults);
    }
    if (!make_id(server, listener, text ? text : "", size))
        tls_fault_memory(faults);
    tls_file_free(text, size);
}

struct tls_server *tls_server_create(const struct tls_server_settings *settings, tls_report *report,
                                     void *arg)
{
    struct tls_faults faults = { .report = report, .arg = arg, .culprit = TLS_CULPRIT_NONE };
    struct tls_server *server = calloc(1, sizeof *server);

    if (!server) {
        tls_fault_memory(&faults);
        return NULL;
    }
    server->min_version = settings->min_version;
    server->secrets = settings->secrets;
    if (settings->n_certificates == 0)
        tls_fault(&faults, "expected at least one certificate");
    else
        read_certificates(&faults, server, settings->certificates, settings->n_certificates);
    read_authorities(&faults, server, settings->listener, settings->client_ca);
    if (settings->ticket_keys && *settings->ticket_keys) {
        faults.culprit = TLS_CULPRIT_TICKET_KEYS;
        server->tickets = tls_tickets_read(&faults, settings->ticket_keys);
    }
    if (!faults.any && !make_contexts(server))
        tls_fault_memory(&faults);
    if (faults.any)
        tls_server_free(&server);
    return server;
}

void tls_server_free(struct tls_server **server)
{
    struct tls_server *gone = *server;

    if (!gone)
        return;
    for (size_t i = 0; i < gone->n_pairs; i++)
        SSL_CTX_free(gone->pairs[i].context);
    for (size_t i = 0; i < gone->n_certificates; i++)
        tls_certificate_free(&gone->certificates[i]);
    tls_names_free(&gone->names);
    tls_tickets_free(gone->tickets);
    X509_STORE_free(gone->authorities);
    free(gone->pairs);
    free(gone->certificates);
    free(gone);
    *server = NULL;
}

SSL *tls_server_connection(const struct tls_server *server)
{
    SSL *ssl = SSL_new(server->pairs[0].context);

    if (ssl)
        SSL_set_accept_state(ssl);
    return ssl;
}
