/* Contexts towards backends: what is verified, what is sent, and what is resumed. */
#include "tests/unit/tls_ends.h"

/* A handshake. */
static void meet(struct ends *ends, const struct tls_server *server, const struct tls_client *client,
                 const char *name, struct tls_resumption *resumption)
{
    connect_ends(ends, tls_server_connection(server), tls_client_connection(client, name, resumption));
    shake(ends);
}

static void assert_verdict(const struct tls_server *server, const struct tls_client *client, const char *name,
                           long verdict)
{
    struct ends ends;

    meet(&ends, server, client, name, NULL);
    assert_string_equal(X509_verify_cert_error_string(SSL_get_verify_result(ends.client)),
                        X509_verify_cert_error_string(verdict));
    if (verdict == X509_V_OK) {
        assert_true(ends.done);
        assert_int_equal(ends.client_error, 0);
    } else {
        assert_false(ends.done);
        assert_int_equal(ends.client_error, SSL_R_CERTIFICATE_VERIFY_FAILED);
    }
    close_ends(&ends);
}

static void test_names_are_verified(void **state)
{
    static const struct {
        const char *name;
        long verdict;
    } table[] = {
        {"a.example",               X509_V_OK                     },
        { "A.Example",              X509_V_OK                     },
        { "a.example.",             X509_V_OK                     },
        { "b.example",              X509_V_ERR_HOSTNAME_MISMATCH  },
        { "example",                X509_V_ERR_HOSTNAME_MISMATCH  },
        { ".example",               X509_V_ERR_HOSTNAME_MISMATCH  },
        { "x.a.example",            X509_V_ERR_HOSTNAME_MISMATCH  },
        { "x.wild.example",         X509_V_OK                     },
        { "x.y.wild.example",       X509_V_ERR_HOSTNAME_MISMATCH  },
        { "wild.example",           X509_V_ERR_HOSTNAME_MISMATCH  },
        { "first.part.example",     X509_V_ERR_HOSTNAME_MISMATCH  },
        { "127.0.0.1",              X509_V_OK                     },
        { "127.0.0.2",              X509_V_ERR_IP_ADDRESS_MISMATCH},
        { "192.0.2.1",              X509_V_ERR_IP_ADDRESS_MISMATCH}, /* there as a name */
        { "2001:db8::1",            X509_V_OK                     },
        { "[2001:db8::1]",          X509_V_OK                     },
        { "[2001:DB8:0:0:0:0:0:1]", X509_V_OK                     },
        { "2001:db8::2",            X509_V_ERR_IP_ADDRESS_MISMATCH},
        { "leaf.pem",               X509_V_ERR_HOSTNAME_MISMATCH  }, /* the common name */
        { "",                       X509_V_ERR_HOSTNAME_MISMATCH  },
        { ".",                      X509_V_ERR_HOSTNAME_MISMATCH  },
        { NULL,                     X509_V_ERR_HOSTNAME_MISMATCH  },
    };
    struct tls_server *server;
    struct tls_client *client = make_client(true, "ca.pem");

    (void)state;
    make_leaf(
        "leaf.pem", FIXTURE_EC,
        "DNS:a.example,DNS:*.wild.example,DNS:f*.part.example,IP:127.0.0.1,IP:2001:db8::1,DNS:192.0.2.1");
    server = SERVER("leaf.pem");
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        assert_verdict(server, client, table[i].name, table[i].verdict);
    tls_server_free(&server);
    tls_client_free(&client);
}

static void write_foreign(const char *file)
{
    struct fixture_identity foreign = fixture_identity(
        &fixture, &(struct fixture_wish){
                      .key = FIXTURE_EC, .other_key = true, .common_name = "Foreign", .authority = true });

    fixture_file(&fixture, file,
                 &(struct fixture_wish){ .key = FIXTURE_EC, .names = "DNS:a.example", .issuer = &foreign });
    X509_free(foreign.certificate);
}

static void test_chains_are_verified(void **state)
{
    static const struct {
        const char *file;
        long verdict;
    } table[] = {
        {"good.pem",     X509_V_OK                             },
        { "usage.pem",   X509_V_OK                             },
        { "expired.pem", X509_V_ERR_CERT_HAS_EXPIRED           },
        { "early.pem",   X509_V_ERR_CERT_NOT_YET_VALID         },
        { "self.pem",    X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT},
        { "foreign.pem", X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN  },
        { "purpose.pem", X509_V_ERR_INVALID_PURPOSE            },
    };
    struct fixture_wish wish = { .key = FIXTURE_EC, .names = "DNS:a.example", .issuer = &fixture.authority };
    struct tls_client *verifying = make_client(true, "ca.pem"), *trusting = make_client(false, NULL);

    (void)state;
    fixture_file(&fixture, "good.pem", &wish);
    wish.usage = "serverAuth";
    fixture_file(&fixture, "usage.pem", &wish);
    wish.usage = "clientAuth";
    fixture_file(&fixture, "purpose.pem", &wish);
    wish.usage = NULL;
    wish.until = -3600;
    fixture_file(&fixture, "expired.pem", &wish);
    wish.until = 2 * FIXTURE_DAY;
    wish.from = FIXTURE_DAY;
    fixture_file(&fixture, "early.pem", &wish);
    wish = (struct fixture_wish){ .key = FIXTURE_EC, .names = "DNS:a.example" };
    fixture_file(&fixture, "self.pem", &wish);
    write_foreign("foreign.pem");
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct tls_server *server = SERVER(table[i].file);
        struct ends ends;
        assert_verdict(server, verifying, "a.example", table[i].verdict);
        meet(&ends, server, trusting, "b.example", NULL);
        assert_true(ends.done);
        assert_int_equal(ends.client_error, 0);
        close_ends(&ends);
        tls_server_free(&server);
    }
    tls_client_free(&verifying);
    tls_client_free(&trusting);
}

static void test_the_systems_authorities(void **state)
{
    struct tls_server *server;
    struct tls_client *with, *without;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    server = SERVER("a.pem");
    setenv("SSL_CERT_DIR", fixture.directory, 1);
    setenv("SSL_CERT_FILE", fixture_path(&fixture, "ca.pem"), 1);
    with = make_client(true, NULL);
    setenv("SSL_CERT_FILE", fixture_path(&fixture, "none"), 1);
    without = make_client(true, "");
    assert_verdict(server, with, "a.example", X509_V_OK);
    assert_verdict(server, without, "a.example", X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN);
    unsetenv("SSL_CERT_DIR");
    unsetenv("SSL_CERT_FILE");
    tls_server_free(&server);
    tls_client_free(&with);
    tls_client_free(&without);
}

static void test_host_names_are_sent(void **state)
{
    static const struct {
        const char *name, *sni;
    } table[] = {
        {"a.example",    "a.example"},
        { "a.example.",  "a.example"},
        { "127.0.0.1",   NULL       },
        { "[::1]",       NULL       },
        { "2001:db8::1", NULL       },
        { "",            NULL       },
        { NULL,          NULL       },
    };
    struct tls_server *server;
    struct tls_client *client = make_client(false, NULL);
    struct ends ends;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    server = SERVER("a.pem");
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        meet(&ends, server, client, table[i].name, NULL);
        assert_true(ends.done);
        if (table[i].sni)
            assert_string_equal(SSL_get_servername(ends.server, TLSEXT_NAMETYPE_host_name), table[i].sni);
        else
            assert_null(SSL_get_servername(ends.server, TLSEXT_NAMETYPE_host_name));
        close_ends(&ends);
    }
    tls_server_free(&server);
    tls_client_free(&client);
}

/* A server of OpenSSL's with one version only. */
static SSL_CTX *bare_server(int version)
{
    SSL_CTX *bare = SSL_CTX_new(TLS_server_method());

    make_leaf("bare.pem", FIXTURE_EC, "DNS:a.example");
    SSL_CTX_set_security_level(bare, 0);
    SSL_CTX_set_min_proto_version(bare, version);
    SSL_CTX_set_max_proto_version(bare, version);
    assert_int_equal(SSL_CTX_use_certificate_file(bare, fixture_path(&fixture, "bare.pem"), SSL_FILETYPE_PEM),
                     1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(bare, fixture_path(&fixture, "bare.pem"), SSL_FILETYPE_PEM),
                     1);
    return bare;
}

static void test_old_versions_are_refused(void **state)
{
    struct tls_client *client = make_client(false, NULL);

    (void)state;
    for (int version = TLS1_1_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX *bare = bare_server(version);
        SSL *server = SSL_new(bare);
        struct ends ends;
        SSL_set_accept_state(server);
        connect_ends(&ends, server, tls_client_connection(client, "a.example", NULL));
        SSL_set_security_level(ends.client, 0); /* the refusal must not be the system's alone */
        shake(&ends);
        assert_int_equal(ends.done, version >= TLS1_2_VERSION);
        close_ends(&ends);
        SSL_CTX_free(bare);
    }
    tls_client_free(&client);
}

static void test_renegotiation_is_refused(void **state)
{
    struct tls_client *client = make_client(false, NULL);
    SSL_CTX *bare = bare_server(TLS1_2_VERSION);
    SSL *server = SSL_new(bare);
    struct ends ends;

    (void)state;
    SSL_set_accept_state(server);
    connect_ends(&ends, server, tls_client_connection(client, "a.example", NULL));
    shake(&ends);
    assert_true(ends.done);
    assert_int_equal(SSL_renegotiate(server), 1);
    shake_end(server, &ends.server_error); /* HelloRequest */
    read_end(ends.client, &ends.client_error);
    assert_int_equal(ends.client_error, 0);
    read_end(server, &ends.server_error);
    assert_int_equal(ends.server_error, SSL_R_NO_RENEGOTIATION);
    close_ends(&ends);
    SSL_CTX_free(bare);
    tls_client_free(&client);
}

/* --- resumption --- */

static struct tls_server *with_keys(const char *file, const char *keys)
{
    struct tls_server_settings settings = { .listener = "smtp" };
    FILE *out = fixture_write(&fixture, "keys");
    unsigned char key[80], encoded[110];

    for (; *keys; keys++) {
        memset(key, *keys, sizeof key);
        EVP_EncodeBlock(encoded, key, sizeof key);
        fprintf(out, "%s\n", encoded);
    }
    fclose(out);
    settings.ticket_keys = fixture_path(&fixture, "keys");
    return make_server(settings, FILES(file));
}

/* Whether it resumed. `version`: the highest that the server speaks. */
static bool resume(const struct tls_server *server, int version, const struct tls_client *client,
                   const char *name, struct tls_resumption *resumption)
{
    struct ends ends;
    bool resumed;

    connect_ends(&ends, tls_server_connection(server), tls_client_connection(client, name, resumption));
    SSL_set_max_proto_version(ends.server, version);
    shake(&ends);
    assert_true(ends.done);
    assert_int_equal(ends.client_error, 0);
    assert_int_equal(SSL_version(ends.client), version);
    resumed = SSL_session_reused(ends.client);
    close_ends(&ends);
    return resumed;
}

static void test_the_last_session_is_resumed(void **state)
{
    struct tls_resumption resumption = { .session = NULL };
    struct tls_client *client = make_client(true, "ca.pem");
    struct tls_server *server;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example,IP:127.0.0.1");
    server = with_keys("a.pem", "x");
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        assert_false(resume(server, version, client, "a.example", &resumption));
        for (int i = 0; i < 3; i++)
            assert_true(resume(server, version, client, "a.example", &resumption));
        assert_false(resume(server, version, client, "a.example", NULL));
        tls_resumption_clear(&resumption);
        assert_null(resumption.session);
        assert_false(resume(server, version, client, "127.0.0.1", &resumption));
        assert_true(resume(server, version, client, "127.0.0.1", &resumption));
        tls_resumption_clear(&resumption);
    }
    tls_resumption_clear(&resumption); /* of nothing */
    tls_server_free(&server);
    tls_client_free(&client);
}

/* It would skip the verification that the other demands. */
static void test_another_context_does_not_resume(void **state)
{
    struct tls_resumption resumption = { .session = NULL };
    struct tls_client *trusting = make_client(false, NULL), *verifying = make_client(true, "ca.pem");
    struct tls_server *server;
    struct ends ends;

    (void)state;
    fixture_file(&fixture, "self.pem",
                 &(struct fixture_wish){ .key = FIXTURE_EC, .other_key = true, .names = "DNS:a.example" });
    server = with_keys("self.pem", "x");
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        assert_false(resume(server, version, trusting, "a.example", &resumption));
        meet(&ends, server, verifying, "a.example", &resumption);
        assert_int_equal(ends.client_error, SSL_R_CERTIFICATE_VERIFY_FAILED);
        close_ends(&ends);
        tls_resumption_clear(&resumption);
    }
    /* Not even one at the place of the first. */
    assert_false(resume(server, TLS1_3_VERSION, trusting, "a.example", &resumption));
    tls_client_free(&trusting);
    trusting = make_client(false, NULL);
    assert_false(resume(server, TLS1_3_VERSION, trusting, "a.example", &resumption));
    assert_true(resume(server, TLS1_3_VERSION, trusting, "a.example", &resumption));
    tls_resumption_clear(&resumption);
    tls_server_free(&server);
    tls_client_free(&trusting);
    tls_client_free(&verifying);
}

static void test_another_name_does_not_resume(void **state)
{
    struct tls_resumption resumption = { .session = NULL };
    struct tls_client *client = make_client(true, "ca.pem");
    struct tls_server *server;
    struct ends ends;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    server = with_keys("a.pem", "x");
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        static const char *const others[] = { "b.example", "", NULL };
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
            assert_false(resume(server, version, client, "a.example", &resumption));
            meet(&ends, server, client, others[i], &resumption);
            assert_int_equal(ends.client_error, SSL_R_CERTIFICATE_VERIFY_FAILED);
            close_ends(&ends);
            tls_resumption_clear(&resumption);
        }
    }
    tls_server_free(&server);
    tls_client_free(&client);
}

/* A server that does not take the session gives a new one; one that takes it may give a new ticket. */
static void test_sessions_are_replaced(void **state)
{
    struct tls_resumption resumption = { .session = NULL };
    struct tls_client *client = make_client(true, "ca.pem");
    struct tls_server *before, *between, *after;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    before = with_keys("a.pem", "x");
    between = with_keys("a.pem", "yx");
    after = with_keys("a.pem", "y");
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        assert_false(resume(before, version, client, "a.example", &resumption));
        assert_true(resume(between, version, client, "a.example", &resumption));
        assert_true(resume(after, version, client, "a.example", &resumption));
        assert_false(resume(before, version, client, "a.example", &resumption));
        assert_true(resume(before, version, client, "a.example", &resumption));
        tls_resumption_clear(&resumption);
    }
    tls_server_free(&before);
    tls_server_free(&between);
    tls_server_free(&after);
    tls_client_free(&client);
}

static void assert_faults(const char *ca, const char *text)
{
    struct tls_client_settings settings = { .verify = true, .ca = fixture_path(&fixture, ca) };

    faults[0] = '\0';
    assert_null(tls_client_create(&settings, collect, NULL));
    assert_string_equal(faults, text);
}

static void test_mistakes_are_told(void **state)
{
    (void)state;
    assert_faults("gone.pem", "a0: cannot be read: No such file or directory\n");
    fixture_text(&fixture, "empty.pem", "");
    assert_faults("empty.pem", "a0: holds no certificate\n");
    fixture_text(&fixture, "bad.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    assert_faults("bad.pem", "a0: is malformed: certificate 1 in it cannot be parsed: header too long\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_verified),
        cmocka_unit_test(test_chains_are_verified),
        cmocka_unit_test(test_the_systems_authorities),
        cmocka_unit_test(test_host_names_are_sent),
        cmocka_unit_test(test_old_versions_are_refused),
        cmocka_unit_test(test_renegotiation_is_refused),
        cmocka_unit_test(test_the_last_session_is_resumed),
        cmocka_unit_test(test_another_context_does_not_resume),
        cmocka_unit_test(test_another_name_does_not_resume),
        cmocka_unit_test(test_sessions_are_replaced),
        cmocka_unit_test(test_mistakes_are_told),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
