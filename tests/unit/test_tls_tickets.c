/* Who is let in by a listener: tickets that are honoured or not, and certificates of clients. */
#include "tests/unit/tls_ends.h"

/* --- tickets --- */

static unsigned tickets; /* that the bare client was given */

static int count_ticket(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    (void)session;
    tickets++;
    return 0;
}

/* A handshake that offers *session (NULL: none) and leaves in it what it was given. Whether it resumed. */
static bool resume(const struct tls_server *server, SSL_CTX *bare, const char *sni, SSL_SESSION **session)
{
    struct ends ends;
    bool resumed;

    SSL_CTX_sess_set_new_cb(bare, count_ticket);
    tickets = 0;
    begin(&ends, server, bare, sni);
    if (*session)
        assert_int_equal(SSL_set_session(ends.client, *session), 1);
    shake(&ends);
    assert_done(&ends);
    resumed = SSL_session_reused(ends.client);
    assert_int_equal(SSL_session_reused(ends.server), resumed);
    SSL_SESSION_free(*session);
    *session = SSL_get1_session(ends.client);
    close_ends(&ends);
    return resumed;
}

static void write_keys(const char *file, const char *const *names)
{
    FILE *out = fixture_write(&fixture, file);
    unsigned char key[80], encoded[110];

    fputs("# the keys\n\n", out);
    for (; *names; names++) {
        memset(key, **names, sizeof key);
        EVP_EncodeBlock(encoded, key, sizeof key);
        fprintf(out, "  %s \r\n", encoded);
    }
    fclose(out);
}

static struct tls_server *server_with_keys(const char *listener, const char *client_ca,
                                           const char *const *names)
{
    struct tls_server_settings settings = { .listener = listener };

    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    make_leaf("b.pem", FIXTURE_EC, "DNS:b.example");
    write_keys("keys", names);
    settings.ticket_keys = fixture_path(&fixture, "keys");
    settings.client_ca = client_ca ? fixture_path(&fixture, client_ca) : "";
    return make_server(settings, FILES("a.pem", "b.pem"));
}

static void test_a_ticket_is_good_at_every_instance(void **state)
{
    struct tls_server *one = server_with_keys("smtp", NULL, FILES("x"));
    struct tls_server *two = server_with_keys("smtp", NULL, FILES("x"));
    struct tls_server *stranger = server_with_keys("smtp", NULL, FILES("y"));
    SSL_SESSION *session = NULL;

    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX *bare = bare_client(version);
        for (int i = 0; i < 2; i++) {
            const char *sni = i ? "b.example" : NULL;
            assert_false(resume(one, bare, sni, &session));
            assert_int_equal(tickets, 1);
            assert_true(resume(two, bare, sni, &session));
            assert_int_equal(tickets, version == TLS1_3_VERSION);
            assert_true(resume(one, bare, sni, &session));
            assert_false(resume(stranger, bare, sni, &session));
            SSL_SESSION_free(session);
            session = NULL;
        }
        SSL_CTX_free(bare);
    }
    tls_server_free(&one);
    tls_server_free(&two);
    tls_server_free(&stranger);
}

static void test_without_keys_a_ticket_is_good_here_only(void **state)
{
    struct tls_server *one, *two;
    SSL_SESSION *session = NULL;

    (void)state;
    make_leaf("a.pem", FIXTURE_EC, "DNS:a.example");
    make_leaf("b.pem", FIXTURE_EC, "DNS:b.example");
    one = SERVER("a.pem", "b.pem");
    two = SERVER("a.pem", "b.pem");
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX *bare = bare_client(version);
        assert_false(resume(one, bare, "b.example", &session));
        assert_int_equal(tickets, 1);
        assert_true(resume(one, bare, "b.example", &session));
        assert_false(resume(two, bare, "b.example", &session));
        SSL_SESSION_free(session);
        session = NULL;
        SSL_CTX_free(bare);
    }
    tls_server_free(&one);
    tls_server_free(&two);
}

static void test_another_listener_refuses_a_ticket(void **state)
{
    struct tls_server *one = server_with_keys("smtp", NULL, FILES("x"));
    struct tls_server *two = server_with_keys("submission", NULL, FILES("x"));
    SSL_SESSION *session = NULL;

    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX *bare = bare_client(version);
        assert_false(resume(one, bare, NULL, &session));
        assert_false(resume(two, bare, NULL, &session));
        assert_true(resume(two, bare, NULL, &session));
        SSL_SESSION_free(session);
        session = NULL;
        SSL_CTX_free(bare);
    }
    tls_server_free(&one);
    tls_server_free(&two);
}

static void test_keys_are_rotated(void **state)
{
    struct tls_server *before = server_with_keys("smtp", NULL, FILES("x"));
    struct tls_server *between = server_with_keys("smtp", NULL, FILES("y", "x"));
    struct tls_server *after = server_with_keys("smtp", NULL, FILES("y"));
    SSL_SESSION *session = NULL, *old;

    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX *bare = bare_client(version);
        assert_false(resume(before, bare, NULL, &session));
        old = SSL_SESSION_dup(session);
        assert_true(resume(between, bare, NULL, &session));
        /* The ticket that came with it is of the new key. */
        assert_true(resume(after, bare, NULL, &session));
        assert_false(resume(after, bare, NULL, &old));
        SSL_SESSION_free(session);
        SSL_SESSION_free(old);
        session = NULL;
        SSL_CTX_free(bare);
    }
    tls_server_free(&before);
    tls_server_free(&between);
    tls_server_free(&after);
}

/* --- certificates of clients --- */

static void carry(SSL_CTX *bare, const char *file)
{
    assert_int_equal(SSL_CTX_use_certificate_chain_file(bare, fixture_path(&fixture, file)), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(bare, fixture_path(&fixture, file), SSL_FILETYPE_PEM), 1);
}

static struct tls_server *asking_server(const char *ca)
{
    return server_with_keys("smtp", ca, FILES("x"));
}

static void write_foreign(const char *ca, const char *leaf)
{
    struct fixture_identity foreign = fixture_identity(
        &fixture, &(struct fixture_wish){
                      .key = FIXTURE_EC, .other_key = true, .common_name = "Foreign", .authority = true });
    FILE *out = fixture_write(&fixture, ca);

    PEM_write_X509(out, foreign.certificate);
    fclose(out);
    fixture_file(&fixture, leaf,
                 &(struct fixture_wish){ .key = FIXTURE_EC, .common_name = leaf, .issuer = &foreign });
    X509_free(foreign.certificate);
}

static void test_clients_must_show_a_certificate(void **state)
{
    struct tls_server *server = asking_server("ca.pem");
    static const struct {
        const char *file;
        int reason;
    } table[] = {
        {NULL,           SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE},
        { "good.pem",    0                                      },
        { "usage.pem",   0                                      },
        { "foreign.pem", SSL_R_CERTIFICATE_VERIFY_FAILED        },
        { "purpose.pem", SSL_R_CERTIFICATE_VERIFY_FAILED        },
        { "expired.pem", SSL_R_CERTIFICATE_VERIFY_FAILED        },
    };
    struct fixture_wish wish = { .key = FIXTURE_EC, .common_name = "client", .issuer = &fixture.authority };

    (void)state;
    fixture_file(&fixture, "good.pem", &wish);
    wish.usage = "clientAuth";
    fixture_file(&fixture, "usage.pem", &wish);
    wish.usage = "serverAuth";
    fixture_file(&fixture, "purpose.pem", &wish);
    wish.usage = NULL;
    wish.until = -3600;
    fixture_file(&fixture, "expired.pem", &wish);
    write_foreign("foreign-ca.pem", "foreign.pem");
    for (size_t i = 0; i < sizeof table / sizeof table[0] * 4; i++) {
        SSL_CTX *bare = bare_client(i & 1 ? TLS1_3_VERSION : TLS1_2_VERSION);
        const char *sni = i & 2 ? "b.example" : NULL;
        if (table[i / 4].file)
            carry(bare, table[i / 4].file);
        if (table[i / 4].reason)
            assert_refused(server, bare, sni, table[i / 4].reason);
        else
            assert_shown(server, bare, sni, sni ? "b.pem" : "a.pem");
        SSL_CTX_free(bare);
    }
    tls_server_free(&server);
}

static void test_clients_are_told_whose_certificate(void **state)
{
    struct tls_server *server = asking_server("ca.pem");
    SSL_CTX *bare = bare_client(TLS1_3_VERSION);
    const STACK_OF(X509_NAME) * names;
    struct ends ends;

    (void)state;
    begin(&ends, server, bare, "b.example");
    shake(&ends);
    names = SSL_get0_peer_CA_list(ends.client);
    assert_int_equal(sk_X509_NAME_num(names), 1);
    assert_int_equal(
        X509_NAME_cmp(sk_X509_NAME_value(names, 0), X509_get_subject_name(fixture.authority.certificate)), 0);
    close_ends(&ends);
    tls_server_free(&server);
    SSL_CTX_free(bare);
}

/* Whom one set of authorities let in, another need not know. */
static void test_a_ticket_does_not_replace_a_certificate(void **state)
{
    struct tls_server *open = asking_server(NULL), *own, *foreign;
    SSL_SESSION *session = NULL;

    (void)state;
    write_foreign("foreign-ca.pem", "foreign.pem");
    own = asking_server("ca.pem");
    foreign = asking_server("foreign-ca.pem");
    make_leaf("good.pem", FIXTURE_EC, NULL);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX *bare = bare_client(version);
        struct ends ends;
        assert_false(resume(open, bare, NULL, &session));
        begin(&ends, own, bare, NULL);
        SSL_set_session(ends.client, session);
        shake(&ends);
        assert_int_equal(ends.server_error, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE);
        close_ends(&ends);
        SSL_SESSION_free(session);
        session = NULL;

        carry(bare, "good.pem");
        assert_false(resume(own, bare, NULL, &session));
        assert_true(resume(own, bare, NULL, &session));
        begin(&ends, foreign, bare, NULL);
        SSL_set_session(ends.client, session);
        shake(&ends);
        assert_int_equal(ends.server_error, SSL_R_CERTIFICATE_VERIFY_FAILED);
        close_ends(&ends);
        SSL_SESSION_free(session);
        session = NULL;
        SSL_CTX_free(bare);
    }
    tls_server_free(&open);
    tls_server_free(&own);
    tls_server_free(&foreign);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_ticket_is_good_at_every_instance),
        cmocka_unit_test(test_without_keys_a_ticket_is_good_here_only),
        cmocka_unit_test(test_another_listener_refuses_a_ticket),
        cmocka_unit_test(test_keys_are_rotated),
        cmocka_unit_test(test_clients_must_show_a_certificate),
        cmocka_unit_test(test_clients_are_told_whose_certificate),
        cmocka_unit_test(test_a_ticket_does_not_replace_a_certificate),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
