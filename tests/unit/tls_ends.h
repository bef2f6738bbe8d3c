/*
 * What the tests of TLS contexts share: servers and clients made of the fixture's files, what was reported on
 * the way, and two ends in memory that shake hands.
 */
#ifndef WEIR_TESTS_TLS_ENDS_H
#define WEIR_TESTS_TLS_ENDS_H

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "net/tls_internal.h"
#include "tests/unit/tls_fixture.h"

static struct fixture fixture;
/* What the last make_ or try_ function reported: a line each, "c1: text" for the second certificate; t for
 * ticket keys, a for authorities, - for nobody. The directory's name is left out. */
static char faults[4096];

static inline void collect(void *arg, enum tls_culprit culprit, size_t index, const char *text)
{
    size_t length = strlen(faults);
    char *directory;

    (void)arg;
    snprintf(faults + length, sizeof faults - length, "%c%zu: %s\n", "cta-"[culprit], index, text);
    directory = strstr(faults + length, fixture.directory);
    if (directory)
        memmove(directory, directory + strlen(fixture.directory) + 1,
                strlen(directory + strlen(fixture.directory)));
}

/* Certificates by file name, NULL at the end. */
static inline struct tls_server *try_server(struct tls_server_settings settings, const char *const *files)
{
    const char *list[8];
    size_t n = 0;

    for (; files[n]; n++)
        list[n] = fixture_path(&fixture, files[n]);
    settings.certificates = list;
    settings.n_certificates = n;
    faults[0] = '\0';
    return tls_server_create(&settings, collect, NULL);
}

static inline struct tls_server *make_server(struct tls_server_settings settings, const char *const *files)
{
    struct tls_server *server = try_server(settings, files);

    assert_string_equal(faults, "");
    assert_non_null(server);
    return server;
}

#define FILES(...)                                                                                           \
    (const char *[])                                                                                         \
    {                                                                                                        \
        __VA_ARGS__, NULL                                                                                    \
    }
#define SERVER(...) make_server((struct tls_server_settings){ .listener = "smtp" }, FILES(__VA_ARGS__))

static inline struct tls_client *make_client(bool verify, const char *ca)
{
    struct tls_client_settings settings = { .verify = verify,
                                            .ca = ca && *ca ? fixture_path(&fixture, ca) : ca };
    struct tls_client *client;

    faults[0] = '\0';
    client = tls_client_create(&settings, collect, NULL);
    assert_string_equal(faults, "");
    assert_non_null(client);
    return client;
}

/* A file with a certificate of the fixture's authority whose common name is the file's. */
static inline void make_leaf(const char *file, enum fixture_key key, const char *names)
{
    fixture_file(&fixture, file,
                 &(struct fixture_wish){
                     .key = key, .common_name = file, .names = names, .issuer = &fixture.authority });
}

struct ends {
    SSL *server, *client;
    bool done;                      /* both have finished */
    int server_error, client_error; /* OpenSSL's reasons; 0: none */
};

static inline void connect_ends(struct ends *ends, SSL *server, SSL *client)
{
    BIO *a, *b;

    assert_non_null(server);
    assert_non_null(client);
    *ends = (struct ends){ .server = server, .client = client };
    assert_int_equal(BIO_new_bio_pair(&a, 0, &b, 0), 1);
    SSL_set_bio(server, a, a);
    SSL_set_bio(client, b, b);
}

static inline bool shake_end(SSL *ssl, int *error)
{
    int result;

    ERR_clear_error();
    result = SSL_do_handshake(ssl);
    if (result != 1 && SSL_get_error(ssl, result) == SSL_ERROR_SSL && !*error)
        *error = ERR_GET_REASON(ERR_peek_error());
    return result == 1;
}

/* Let it read what there is: tickets, alerts, another ClientHello. */
static inline void read_end(SSL *ssl, int *error)
{
    char octet;
    int result;

    ERR_clear_error();
    result = SSL_read(ssl, &octet, 1);
    if (result <= 0 && SSL_get_error(ssl, result) == SSL_ERROR_SSL && !*error)
        *error = ERR_GET_REASON(ERR_peek_error());
}

static inline void shake(struct ends *ends)
{
    for (int i = 0; i < 10 && !ends->done && !ends->server_error; i++) {
        bool client = shake_end(ends->client, &ends->client_error);
        ends->done = shake_end(ends->server, &ends->server_error) && client;
    }
    if (!ends->client_error)
        read_end(ends->client, &ends->client_error);
}

static inline void close_ends(struct ends *ends)
{
    /* As after an orderly end: otherwise OpenSSL takes the session for spoilt. */
    if (ends->done)
        SSL_set_shutdown(ends->client, SSL_SENT_SHUTDOWN);
    SSL_free(ends->client);
    SSL_free(ends->server);
    *ends = (struct ends){ .server = NULL };
}

/* --- bare clients of OpenSSL's against a server --- */

/* A client that believes everything; its version is fixed. */
static inline SSL_CTX *bare_client(int version)
{
    SSL_CTX *bare = SSL_CTX_new(TLS_client_method());

    assert_non_null(bare);
    SSL_CTX_set_session_cache_mode(bare, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_set_min_proto_version(bare, version);
    SSL_CTX_set_max_proto_version(bare, version);
    return bare;
}

static inline void begin(struct ends *ends, const struct tls_server *server, SSL_CTX *bare, const char *sni)
{
    connect_ends(ends, tls_server_connection(server), SSL_new(bare));
    SSL_set_connect_state(ends->client);
    if (sni)
        assert_int_equal(SSL_set_tlsext_host_name(ends->client, sni), 1);
}

static inline void assert_done(struct ends *ends)
{
    assert_int_equal(ends->server_error, 0);
    assert_int_equal(ends->client_error, 0);
    assert_true(ends->done);
}

/* The file that the client was shown. */
static inline void assert_shown(const struct tls_server *server, SSL_CTX *bare, const char *sni,
                                const char *file)
{
    struct ends ends;
    char name[64] = "";

    begin(&ends, server, bare, sni);
    shake(&ends);
    assert_done(&ends);
    X509_NAME_get_text_by_NID(X509_get_subject_name(SSL_get0_peer_certificate(ends.client)), NID_commonName,
                              name, sizeof name);
    assert_string_equal(name, file);
    close_ends(&ends);
}

static inline void assert_refused(const struct tls_server *server, SSL_CTX *bare, const char *sni, int reason)
{
    struct ends ends;

    begin(&ends, server, bare, sni);
    SSL_set_security_level(ends.server, 0); /* the refusal must not be the system's alone */
    shake(&ends);
    assert_int_equal(ends.server_error, reason);
    close_ends(&ends);
}

static inline int setup(void **state)
{
    (void)state;
    fixture_open(&fixture);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    fixture_close(&fixture);
    return 0;
}

#endif
