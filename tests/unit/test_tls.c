/* TLS contexts, in memory: a connection of a context against a bare one of OpenSSL's, or against each other.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>

#include "net/tls_internal.h"
#include "tests/unit/tls_fixture.h"

static struct fixture fixture;

/* What was reported: a line each, "culprit index: text". */
static struct {
    char text[2048];
} faults;

static void collect(void *arg, enum tls_culprit culprit, size_t index, const char *text)
{
    static const char letters[] = { [TLS_CULPRIT_CERTIFICATE] = 'c',
                                    [TLS_CULPRIT_TICKET_KEYS] = 't',
                                    [TLS_CULPRIT_AUTHORITY] = 'a',
                                    [TLS_CULPRIT_NONE] = '-' };
    size_t length = strlen(faults.text);

    (void)arg;
    snprintf(faults.text + length, sizeof faults.text - length, "%c%zu: %s\n", letters[culprit], index, text);
}

/* A server that must come to be; certificates by file name. */
#define SERVER(...)                                                                                          \
    make_server((struct tls_server_settings){ .listener = "smtp" }, (const char *[]){ __VA_ARGS__, NULL })

static struct tls_server *try_server(struct tls_server_settings settings, const char *const *files)
{
    const char *list[8];
    size_t n = 0;

    for (; files[n]; n++)
        list[n] = fixture_path(&fixture, files[n]);
    settings.certificates = list;
    settings.n_certificates = n;
    faults.text[0] = '\0';
    return tls_server_create(&settings, collect, NULL);
}

static struct tls_server *make_server(struct tls_server_settings settings, const char *const *files)
{
    struct tls_server *server = try_server(settings, files);

    assert_string_equal(faults.text, "");
    assert_non_null(server);
    return server;
}

/* Two ends in memory. */
struct ends {
    SSL *server, *client;
    bool done;                      /* both have finished */
    int server_error, client_error; /* reasons of OpenSSL's, 0: none */
};

static void connect_ends(struct ends *ends)
{
    BIO *a, *b;

    assert_int_equal(BIO_new_bio_pair(&a, 0, &b, 0), 1);
    SSL_set_bio(ends->server, a, a);
    SSL_set_bio(ends->client, b, b);
}

static int step(SSL *ssl, int *error)
{
    int result = SSL_do_handshake(ssl);

    if (result == 1)
        return 1;
    if (SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ && !*error)
        *error = ERR_GET_REASON(ERR_peek_last_error());
    ERR_clear_error();
    return 0;
}

/* The client reads in the end, for tickets and for alerts that come after its handshake. */
static void shake(struct ends *ends)
{
    char octet;

    for (int i = 0; i < 10; i++) {
        int client = step(ends->client, &ends->client_error);
        int server = step(ends->server, &ends->server_error);
        ends->done = client && server;
        if (ends->done || ends->server_error)
            break;
    }
    if (!ends->client_error && SSL_read(ends->client, &octet, 1) <= 0 &&
        SSL_get_error(ends->client, -1) == SSL_ERROR_SSL)
        ends->client_error = ERR_GET_REASON(ERR_peek_last_error());
    ERR_clear_error();
}

static void close_ends(struct ends *ends)
{
    SSL_set_shutdown(ends->client, SSL_SENT_SHUTDOWN);
    SSL_free(ends->client);
    SSL_free(ends->server);
    *ends = (struct ends){ .server = NULL };
}

static void test_a_handshake(void **state)
{
    struct tls_server *server;
    struct tls_client *client;
    struct ends ends = { .done = false };

    (void)state;
    fixture_leaf(&fixture, "a.pem", FIXTURE_EC, "DNS:a.example");
    server = SERVER("a.pem");
    client = tls_client_create(
        &(struct tls_client_settings){ .verify = true, .ca = fixture_path(&fixture, "ca.pem") }, collect,
        NULL);
    assert_non_null(client);
    ends.server = tls_server_connection(server);
    ends.client = tls_client_connection(client, "a.example", NULL);
    connect_ends(&ends);
    shake(&ends);
    assert_true(ends.done);
    assert_int_equal(ends.client_error, 0);
    close_ends(&ends);
    tls_server_free(&server);
    tls_client_free(&client);
}

static int setup(void **state)
{
    (void)state;
    fixture_open(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_close(&fixture);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_handshake),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
