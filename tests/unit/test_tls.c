/* What a listener shows its clients: contexts of the server against bare clients of OpenSSL's. */

#include "tests/unit/tls_ends.h"

/* --- certificates --- */

static void test_a_name_chooses_its_certificate(void **state)
{
    static const struct {
        const char *sni, *file;
    } table[] = {
        {NULL,                "a.pem"     },
        { "a.example",        "a.pem"     },
        { "b.example",        "b.pem"     },
        { "B.Example",        "b.pem"     },
        { "b.example.",       "b.pem"     },
        { "second.b.example", "b.pem"     },
        { "c.example",        "c.pem"     },
        { "d.c.example",      "wild.pem"  },
        { "D.C.EXAMPLE",      "wild.pem"  },
        { "e.d.c.example",    "a.pem"     },
        { "exact.c.example",  "exact.pem" },
        { "common.pem",       "common.pem"},
        { "unknown.example",  "a.pem"     },
        { "example",          "a.pem"     },
        { ".c.example",       "a.pem"     },
        { "upper.example",    "upper.pem" },
        { "upper.pem",        "a.pem"     }, /* a common name beside DNS names is not one */
    };
    struct tls_server *server;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    make_leaf("b.pem", FIXTURE_EC, "DNS:b.example,DNS:second.b.example,DNS:a.example");
    make_leaf("c.pem", FIXTURE_EC, "DNS:c.example");
    make_leaf("wild.pem", FIXTURE_EC, "DNS:*.c.example");
    make_leaf("exact.pem", FIXTURE_EC, "DNS:exact.c.example");
    make_leaf("common.pem", FIXTURE_EC, "IP:127.0.0.1");
    make_leaf("upper.pem", FIXTURE_EC, "DNS:Upper.EXAMPLE");
    server = SERVER("a.pem", "b.pem", "c.pem", "wild.pem", "exact.pem", "common.pem", "upper.pem");
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX *bare = bare_client(version);
        for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
            assert_shown(server, bare, table[i].sni, table[i].file);
        SSL_CTX_free(bare);
    }
    tls_server_free(&server);
}

static void test_a_client_gets_the_kind_it_can_verify(void **state)
{
    struct tls_server *server;
    SSL_CTX *rsa, *ecdsa;

    (void)state;
    make_leaf("rsa.pem", FIXTURE_RSA, "DNS:both.example");
    make_leaf("ecdsa.pem", FIXTURE_EC, "DNS:both.example");
    make_leaf("late.pem", FIXTURE_EC, "DNS:both.example");
    make_leaf("rsa2.pem", FIXTURE_RSA, "DNS:two.example");
    make_leaf("ecdsa2.pem", FIXTURE_EC, "DNS:two.example,DNS:one.example");
    server = SERVER("rsa.pem", "ecdsa.pem", "late.pem", "rsa2.pem", "ecdsa2.pem");
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        rsa = bare_client(version);
        ecdsa = bare_client(version);
        assert_int_equal(SSL_CTX_set1_sigalgs_list(rsa, "RSA-PSS+SHA256:RSA+SHA256"), 1);
        assert_int_equal(SSL_CTX_set1_sigalgs_list(ecdsa, "ECDSA+SHA256"), 1);
        assert_shown(server, rsa, "both.example", "rsa.pem");
        assert_shown(server, ecdsa, "both.example", "ecdsa.pem");
        assert_shown(server, rsa, NULL, "rsa.pem");
        assert_shown(server, ecdsa, NULL, "ecdsa.pem");
        assert_shown(server, rsa, "two.example", "rsa2.pem");
        assert_shown(server, ecdsa, "two.example", "ecdsa2.pem");
        assert_shown(server, ecdsa, "one.example", "ecdsa2.pem");
        /* Nothing of another name is shown in its place. */
        assert_refused(server, rsa, "one.example",
                       version == TLS1_2_VERSION ? SSL_R_NO_SHARED_CIPHER
                                                 : SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM);
        SSL_CTX_free(rsa);
        SSL_CTX_free(ecdsa);
    }
    tls_server_free(&server);
}

/* That of the first file's first name, wherever that is in the table. */
static void test_the_default_pair(void **state)
{
    struct tls_server *server;
    SSL_CTX *rsa = bare_client(TLS1_3_VERSION);

    (void)state;
    make_leaf("first.pem", FIXTURE_EC, "DNS:z.example,DNS:a.example");
    make_leaf("second.pem", FIXTURE_RSA, "DNS:a.example");
    make_leaf("twin.pem", FIXTURE_RSA, "DNS:z.example");
    server = SERVER("first.pem", "second.pem", "twin.pem");
    assert_int_equal(SSL_CTX_set1_sigalgs_list(rsa, "RSA-PSS+SHA256"), 1);
    assert_shown(server, rsa, NULL, "twin.pem");
    assert_shown(server, rsa, "a.example", "second.pem");
    tls_server_free(&server);
    SSL_CTX_free(rsa);
}

static void test_ed25519_is_a_certificate_too(void **state)
{
    struct tls_server *server;
    SSL_CTX *bare = bare_client(TLS1_3_VERSION);

    (void)state;
    make_leaf("ed.pem", FIXTURE_ED25519, "DNS:ed.example");
    make_leaf("rsa.pem", FIXTURE_RSA, "DNS:ed.example");
    server = SERVER("ed.pem", "rsa.pem");
    assert_int_equal(SSL_CTX_set1_sigalgs_list(bare, "ed25519"), 1);
    assert_shown(server, bare, NULL, "ed.pem");
    assert_int_equal(SSL_CTX_set1_sigalgs_list(bare, "RSA-PSS+SHA256"), 1);
    assert_shown(server, bare, NULL, "rsa.pem");
    tls_server_free(&server);
    SSL_CTX_free(bare);
}

/* Behind the leaf goes what stands in its file, and nothing else, not even if an authority of clients would
 * fit. */
static void test_the_chain_is_the_files(void **state)
{
    struct tls_server_settings settings = { .listener = "smtp" };
    struct fixture_identity leaf;
    struct tls_server *server;
    SSL_CTX *bare = bare_client(TLS1_3_VERSION);
    struct ends ends;
    FILE *out;

    (void)state;
    leaf = fixture_identity(
        &fixture,
        &(struct fixture_wish){ .key = FIXTURE_EC, .common_name = "alone", .issuer = &fixture.authority });
    out = fixture_write(&fixture, "alone.pem");
    PEM_write_PrivateKey(out, leaf.key, NULL, NULL, 0, NULL, NULL); /* the key may come first */
    PEM_write_X509(out, leaf.certificate);
    fclose(out);
    X509_free(leaf.certificate);
    make_leaf("chain.pem", FIXTURE_EC, "DNS:chain.example");
    make_leaf("client.pem", FIXTURE_EC, NULL);
    settings.client_ca = fixture_path(&fixture, "ca.pem");
    SSL_CTX_use_certificate_file(bare, fixture_path(&fixture, "client.pem"), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(bare, fixture_path(&fixture, "client.pem"), SSL_FILETYPE_PEM);
    server = make_server(settings, FILES("alone.pem", "chain.pem"));
    begin(&ends, server, bare, NULL);
    shake(&ends);
    assert_done(&ends);
    assert_int_equal(sk_X509_num(SSL_get_peer_cert_chain(ends.client)), 1);
    close_ends(&ends);
    begin(&ends, server, bare, "chain.example");
    shake(&ends);
    assert_done(&ends);
    assert_int_equal(sk_X509_num(SSL_get_peer_cert_chain(ends.client)), 2);
    close_ends(&ends);
    tls_server_free(&server);
    SSL_CTX_free(bare);
}

/* --- protocols, versions, ciphers --- */

static void test_alpn(void **state)
{
    static const struct {
        const char *offered, *chosen; /* NULL: refused */
    } table[] = {
        {"\4smtp",                 "smtp"},
        { "\2h2\4smtp\10http/1.1", "smtp"},
        { "\10http/1.1",           NULL  },
        { "\5smtps\3smt",          NULL  },
        { "\5\4smtp",              NULL  },
        { "\4SMTP",                NULL  },
    };
    struct tls_server *server;
    SSL_CTX *bare = bare_client(TLS1_3_VERSION);
    const unsigned char *chosen;
    unsigned int length;
    struct ends ends;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    make_leaf("b.pem", FIXTURE_EC, "DNS:b.example");
    server = SERVER("a.pem", "b.pem");
    for (size_t i = 0; i < sizeof table / sizeof table[0] * 2; i++) {
        const char *offered = table[i / 2].offered;
        begin(&ends, server, bare, i % 2 ? "b.example" : NULL);
        assert_int_equal(
            SSL_set_alpn_protos(ends.client, (const unsigned char *)offered, (unsigned)strlen(offered)), 0);
        shake(&ends);
        if (table[i / 2].chosen) {
            assert_done(&ends);
            SSL_get0_alpn_selected(ends.client, &chosen, &length);
            assert_int_equal(length, 4);
            assert_memory_equal(chosen, table[i / 2].chosen, 4);
        } else {
            assert_int_equal(ends.client_error, SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
        }
        close_ends(&ends);
    }
    begin(&ends, server, bare, NULL);
    shake(&ends);
    assert_done(&ends);
    SSL_get0_alpn_selected(ends.client, &chosen, &length);
    assert_int_equal(length, 0);
    close_ends(&ends);
    tls_server_free(&server);
    SSL_CTX_free(bare);
}

static void test_old_versions_are_refused(void **state)
{
    struct tls_server_settings modern = { .listener = "smtp", .min_version = TLS_VERSION_1_3 };
    struct tls_server *server, *modern_server;
    SSL_CTX *bare;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    make_leaf("b.pem", FIXTURE_EC, "DNS:b.example");
    server = SERVER("a.pem", "b.pem");
    modern_server = make_server(modern, FILES("a.pem", "b.pem"));
    for (int version = TLS1_VERSION; version <= TLS1_2_VERSION; version++) {
        bare = bare_client(version);
        if (version < TLS1_2_VERSION) {
            SSL_CTX_set_security_level(bare, 0);
            assert_refused(server, bare, NULL, SSL_R_UNSUPPORTED_PROTOCOL);
            assert_refused(server, bare, "b.example", SSL_R_UNSUPPORTED_PROTOCOL);
        }
        assert_refused(modern_server, bare, NULL, SSL_R_UNSUPPORTED_PROTOCOL);
        assert_refused(modern_server, bare, "b.example", SSL_R_UNSUPPORTED_PROTOCOL);
        SSL_CTX_free(bare);
    }
    bare = bare_client(TLS1_3_VERSION);
    assert_shown(modern_server, bare, "b.example", "b.pem");
    SSL_CTX_free(bare);
    tls_server_free(&server);
    tls_server_free(&modern_server);
}

static void assert_cipher(const struct tls_server *server, const char *offered, const char *chosen)
{
    SSL_CTX *bare = bare_client(TLS1_2_VERSION);
    struct ends ends;

    SSL_CTX_set_security_level(bare, 0);
    assert_int_equal(SSL_CTX_set_cipher_list(bare, offered), 1);
    begin(&ends, server, bare, NULL);
    shake(&ends);
    if (chosen) {
        assert_done(&ends);
        assert_string_equal(SSL_get_cipher_name(ends.client), chosen);
    } else {
        assert_int_equal(ends.server_error, SSL_R_NO_SHARED_CIPHER);
    }
    close_ends(&ends);
    SSL_CTX_free(bare);
}

static void test_ciphers(void **state)
{
    struct tls_server *server;

    (void)state;
    make_leaf("rsa.pem", FIXTURE_RSA, "DNS:a.example");
    server = SERVER("rsa.pem");
    assert_cipher(server, "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384",
                  "ECDHE-RSA-AES256-GCM-SHA384");
    assert_cipher(server, "ECDHE-RSA-AES128-SHA:ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256");
    /* Who names ChaCha20 first has no instructions for AES. */
    assert_cipher(server, "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES256-GCM-SHA384",
                  "ECDHE-RSA-CHACHA20-POLY1305");
    assert_cipher(server, "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305",
                  "ECDHE-RSA-AES256-GCM-SHA384");
    assert_cipher(server, "ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES128-SHA");
    assert_cipher(server, "kRSA", NULL);
    assert_cipher(server, "aNULL", NULL);
    assert_cipher(server, "eNULL", NULL);
    assert_cipher(server, "DHE", NULL);
    tls_server_free(&server);
}

static void test_renegotiation_is_refused(void **state)
{
    struct tls_server *server;
    SSL_CTX *bare = bare_client(TLS1_2_VERSION);
    struct ends ends;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    server = SERVER("a.pem");
    begin(&ends, server, bare, "a.example");
    shake(&ends);
    assert_done(&ends);
    assert_int_equal(SSL_renegotiate(ends.client), 1);
    shake_end(ends.client, &ends.client_error);
    read_end(ends.server, &ends.server_error);
    assert_int_equal(ends.server_error, 0);
    shake_end(ends.client, &ends.client_error);
    assert_int_equal(ends.client_error, SSL_R_NO_RENEGOTIATION);
    close_ends(&ends);
    tls_server_free(&server);
    SSL_CTX_free(bare);
}

static void test_passwords_are_wiped_where_they_may_pass(void **state)
{
    struct tls_server_settings settings = { .listener = "smtp", .secrets = true };
    struct tls_server *server, *secret;
    SSL *ssl;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    server = SERVER("a.pem");
    secret = make_server(settings, FILES("a.pem"));
    ssl = tls_server_connection(server);
    assert_false(SSL_get_options(ssl) & SSL_OP_CLEANSE_PLAINTEXT);
    SSL_free(ssl);
    ssl = tls_server_connection(secret);
    assert_true(SSL_get_options(ssl) & SSL_OP_CLEANSE_PLAINTEXT);
    SSL_free(ssl);
    tls_server_free(&server);
    tls_server_free(&secret);
}

/* --- OCSP --- */

/* Octets of the stapled response; -1: none. */
static long stapled(const struct tls_server *server, int version, const char *sni)
{
    SSL_CTX *bare = bare_client(version);
    const unsigned char *response;
    struct ends ends;
    long length;

    begin(&ends, server, bare, sni);
    SSL_set_tlsext_status_type(ends.client, TLSEXT_STATUSTYPE_ocsp);
    shake(&ends);
    assert_done(&ends);
    length = SSL_get_tlsext_status_ocsp_resp(ends.client, &response);
    close_ends(&ends);
    SSL_CTX_free(bare);
    return length;
}

static void test_a_response_is_stapled(void **state)
{
    struct tls_server *server;
    long a, b;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    make_leaf("b.pem", FIXTURE_EC, "DNS:b.example");
    make_leaf("old.pem", FIXTURE_EC, "DNS:old.example");
    make_leaf("none.pem", FIXTURE_EC, "DNS:none.example");
    make_leaf("endless.pem", FIXTURE_EC, "DNS:endless.example");
    a = fixture_staple(&fixture, "a.pem", "a.pem.ocsp", 3600, 1);
    b = fixture_staple(&fixture, "b.pem", "b.pem.ocsp", 3600, 2);
    fixture_staple(&fixture, "old.pem", "old.pem.ocsp", -60, 1);
    fixture_staple(&fixture, "endless.pem", "endless.pem.ocsp", 0, 1);
    assert_int_not_equal(a, b);
    server = SERVER("a.pem", "b.pem", "old.pem", "none.pem", "endless.pem");
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        assert_int_equal(stapled(server, version, NULL), a);
        assert_int_equal(stapled(server, version, "b.example"), b);
        assert_int_equal(stapled(server, version, "old.example"), -1);
        assert_int_equal(stapled(server, version, "none.example"), -1);
        assert_true(stapled(server, version, "endless.example") > 0);
    }
    tls_server_free(&server);
    unlink(fixture_path(&fixture, "a.pem.ocsp"));
    unlink(fixture_path(&fixture, "b.pem.ocsp"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_name_chooses_its_certificate),
        cmocka_unit_test(test_a_client_gets_the_kind_it_can_verify),
        cmocka_unit_test(test_the_default_pair),
        cmocka_unit_test(test_ed25519_is_a_certificate_too),
        cmocka_unit_test(test_the_chain_is_the_files),
        cmocka_unit_test(test_alpn),
        cmocka_unit_test(test_old_versions_are_refused),
        cmocka_unit_test(test_ciphers),
        cmocka_unit_test(test_renegotiation_is_refused),
        cmocka_unit_test(test_passwords_are_wiped_where_they_may_pass),
        cmocka_unit_test(test_a_response_is_stapled),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
