/* Contexts for connections to backends, and the sessions that are resumed there. */
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "net/tls_files.h"
#include "net/tls_internal.h"

#define NAME_MAX_LENGTH 255                                  /* RFC 1035 §2.3.4 */
#define DEBIAN_BUNDLE   "/etc/ssl/certs/ca-certificates.crt" /* of the package ca-certificates */

struct tls_client {
    SSL_CTX *context;
    /* No two contexts of a process have the same. The context carries it too: connections, and the tickets
     * that come late on them, may outlive the configuration and this struct. */
    uint64_t number;
    bool verify;
};

static _Atomic uint64_t last_number;
static pthread_once_t resumption_once = PTHREAD_ONCE_INIT;
static int resumption_index; /* SSL ─▶ struct tls_resumption */

static void make_resumption_index(void)
{
    resumption_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

void tls_resumption_clear(struct tls_resumption *resumption)
{
    SSL_SESSION_free(resumption->session);
    *resumption = (struct tls_resumption){ .session = NULL };
}

static void keep_session(struct tls_resumption *resumption, const SSL *ssl, SSL_SESSION *session)
{
    tls_resumption_clear(resumption);
    resumption->session = session;
    resumption->context = (uintptr_t)SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

/* The server gave a session: with TLS 1.3 after the handshake, and perhaps several. The last is the one to
 * keep. Returns 1 if the reference now belongs to us. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_resumption *resumption = SSL_get_ex_data(ssl, resumption_index);

    if (!resumption)
        return 0;
    keep_session(resumption, ssl, session);
    return 1;
}

/* A session of TLS 1.2 that is resumed and given a new ticket on the way is a new one, and the old is spent;
 * OpenSSL does not call that a new session. */
static void on_state(const SSL *ssl, int where, int result)
{
    struct tls_resumption *resumption;
    SSL_SESSION *session;

    (void)result;
    if (!(where & SSL_CB_HANDSHAKE_DONE) || SSL_version(ssl) >= TLS1_3_VERSION)
        return;
    resumption = SSL_get_ex_data(ssl, resumption_index);
    session = SSL_get0_session(ssl);
    if (!resumption || !session || session == resumption->session || !SSL_session_reused(ssl))
        return;
    if (SSL_SESSION_up_ref(session) == 1)
        keep_session(resumption, ssl, session);
}

static bool load_authorities(struct tls_faults *faults, SSL_CTX *context, const char *path)
{
    size_t size;
    char *text;
    bool good;

    if (!path || !*path) {
        faults->culprit = TLS_CULPRIT_NONE;
        /* Read once, here: OpenSSL's default is a folder that it would search in a handshake, on a worker. */
        if (!getenv(X509_get_default_cert_file_env()) && !getenv(X509_get_default_cert_dir_env()) &&
            SSL_CTX_load_verify_file(context, DEBIAN_BUNDLE) == 1)
            return true;
        ERR_clear_error();
        return SSL_CTX_set_default_verify_paths(context) == 1 ||
               tls_fault(faults, "the system's authorities cannot be read: %s", tls_reason());
    }
    faults->culprit = TLS_CULPRIT_AUTHORITY;
    text = tls_file_read(faults, path, false, &size);
    if (!text)
        return false;
    good = tls_authorities_parse(faults, text, size, SSL_CTX_get_cert_store(context));
    tls_file_free(text, size);
    return good;
}

static bool configure(struct tls_faults *faults, struct tls_client *client,
                      const struct tls_client_settings *settings)
{
    SSL_CTX *context = client->context;

    if (!context || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_app_data(context, (void *)(uintptr_t)client->number) != 1)
        return tls_fault_memory(faults);
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    SSL_CTX_set_info_callback(context, on_state);
    SSL_CTX_set_verify(context, settings->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    return !settings->verify || load_authorities(faults, context, settings->ca);
}

struct tls_client *tls_client_create(const struct tls_client_settings *settings, tls_report *report,
                                     void *arg)
{
    struct tls_faults faults = { .report = report, .arg = arg, .culprit = TLS_CULPRIT_NONE };
    struct tls_client *client = calloc(1, sizeof *client);

    pthread_once(&resumption_once, make_resumption_index);
    if (!client) {
        tls_fault_memory(&faults);
        return NULL;
    }
    client->context = SSL_CTX_new(TLS_client_method());
    client->number = atomic_fetch_add(&last_number, 1) + 1;
    client->verify = settings->verify;
    if (!configure(&faults, client, settings))
        tls_client_free(&client);
    return client;
}

void tls_client_free(struct tls_client **client)
{
    if (*client) {
        SSL_CTX_free((*client)->context);
        free(*client);
    }
    *client = NULL;
}

/* There is nothing to hold the certificate against. */
static int verify_nothing(int good, X509_STORE_CTX *store)
{
    (void)good;
    X509_STORE_CTX_set_error(store, X509_V_ERR_HOSTNAME_MISMATCH);
    return 0;
}

static bool is_literal(const char *name)
{
    unsigned char ip[16];

    return inet_pton(AF_INET, name, ip) == 1 || inet_pton(AF_INET6, name, ip) == 1;
}

/* The name as certificates have it: no brackets around an address, no dot at the end of a name. */
static bool plain_name(const char *name, char out[NAME_MAX_LENGTH + 1])
{
    size_t length = name ? strlen(name) : 0;

    if (length > 2 && name[0] == '[' && name[length - 1] == ']') {
        name++;
        length -= 2;
    } else if (length > 1 && name[length - 1] == '.') {
        length--;
    }
    /* A leading dot would mean "any host below" to OpenSSL. */
    if (length == 0 || length > NAME_MAX_LENGTH || name[0] == '.')
        return false;
    memcpy(out, name, length);
    out[length] = '\0';
    return true;
}

static bool set_name(const struct tls_client *client, SSL *ssl, const char *name)
{
    bool literal = is_literal(name);

    if (!literal && SSL_set_tlsext_host_name(ssl, name) != 1)
        return false;
    if (!client->verify)
        return true;
    if (literal)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name) == 1;
}

/* A resumed handshake verifies nothing: a session must have been made under this context and for this name.
 * The name is its session id context; OpenSSL carries it from the connection to the session. */
static bool set_session(const struct tls_client *client, SSL *ssl, const char *name,
                        struct tls_resumption *resumption)
{
    unsigned char id[EVP_MAX_MD_SIZE];
    const unsigned char *theirs;
    unsigned int length, their_length;

    if (EVP_Digest(name, strlen(name), id, &length, EVP_sha256(), NULL) != 1 ||
        SSL_set_session_id_context(ssl, id, length) != 1 ||
        SSL_set_ex_data(ssl, resumption_index, resumption) != 1)
        return false;
    if (!resumption->session || resumption->context != client->number ||
        !SSL_SESSION_is_resumable(resumption->session))
        return true;
    theirs = SSL_SESSION_get0_id_context(resumption->session, &their_length);
    if (their_length == length && memcmp(theirs, id, length) == 0)
        return SSL_set_session(ssl, resumption->session) == 1;
    return true;
}

SSL *tls_client_connection(const struct tls_client *client, const char *name,
                           struct tls_resumption *resumption)
{
    char plain[NAME_MAX_LENGTH + 1] = "";
    SSL *ssl = SSL_new(client->context);

    if (!ssl)
        return NULL;
    SSL_set_connect_state(ssl);
    if (plain_name(name, plain)) {
        if (!set_name(client, ssl, plain))
            goto failed;
    } else if (client->verify) {
        SSL_set_verify(ssl, SSL_VERIFY_PEER, verify_nothing);
    }
    if (resumption && !set_session(client, ssl, plain, resumption))
        goto failed;
    return ssl;

failed:
    SSL_free(ssl);
    return NULL;
}
