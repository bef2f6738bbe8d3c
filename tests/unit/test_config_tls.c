/*
 * The configuration of TLS and AUTH: values given and left out, the contexts that come of them, the names
 * that backends are verified by. What is refused: tests/config/broken/tls-*.yaml and auth-*.yaml.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/config_fixture.h"

#define FILES "tests/config/tls/"
#define CERTIFIED(tls)                                                                                       \
    "listeners: { smtp: { address: \"0.0.0.0:25\", tls: " tls ", certificate: " FILES "mx.pem } }\n"

static void test_defaults(void **state)
{
    (void)state;
    struct config *config = parse_good(LISTENER POOL);
    const struct config_listener *listener = &config->listeners[0];
    assert_int_equal(listener->tls, CONFIG_TLS_OFF);
    assert_int_equal(listener->n_certificates, 0);
    assert_int_equal(listener->tls_min, TLS_VERSION_1_2);
    assert_string_equal(listener->tls_ticket_keys, "");
    assert_string_equal(listener->client_ca, "");
    assert_null(listener->tls_server);
    assert_int_equal(listener->auth, CONFIG_AUTH_OFF);
    assert_int_equal(config->pools[0].tls, CONFIG_POOL_TLS_OFF);
    assert_string_equal(config->pools[0].ca, "");
    assert_null(config->pools[0].tls_client);
    config_release(&config);
}

static void test_everything(void **state)
{
    (void)state;
    struct config *config =
        parse_good("listeners:\n"
                   "  smtp:\n"
                   "    address: \"0.0.0.0:25\"\n"
                   "    tls: required\n"
                   "    certificate: [" FILES "mx.pem, " FILES "mx-rsa.pem, " FILES "submission.pem]\n"
                   "    tls-min: 1.3\n" /* a number to YAML */
                   "    tls-ticket-keys: " FILES "ticket-keys\n"
                   "    client-ca: " FILES "authority.pem\n"
                   "    auth: relay\n"
                   "pools:\n"
                   "  relays:\n"
                   "    tls: verify\n"
                   "    ca: " FILES "authority.pem\n"
                   "    health: { depth: starttls }\n"
                   "    backends: { a: { address: \"192.0.2.1:25\", tls-name: a.example.net } }\n");
    const struct config_listener *listener = &config->listeners[0];
    assert_int_equal(listener->tls, CONFIG_TLS_REQUIRED);
    assert_int_equal(listener->n_certificates, 3);
    assert_string_equal(listener->certificates[0], FILES "mx.pem");
    assert_string_equal(listener->certificates[1], FILES "mx-rsa.pem");
    assert_string_equal(listener->certificates[2], FILES "submission.pem");
    assert_int_equal(listener->tls_min, TLS_VERSION_1_3);
    assert_string_equal(listener->tls_ticket_keys, FILES "ticket-keys");
    assert_string_equal(listener->client_ca, FILES "authority.pem");
    assert_non_null(listener->tls_server);
    assert_int_equal(listener->auth, CONFIG_AUTH_RELAY);
    assert_int_equal(config->pools[0].tls, CONFIG_POOL_TLS_VERIFY);
    assert_string_equal(config->pools[0].ca, FILES "authority.pem");
    assert_non_null(config->pools[0].tls_client);
    assert_int_equal(config->pools[0].health.depth, CONFIG_DEPTH_STARTTLS);
    assert_string_equal(config->backends[0].tls_name, "a.example.net");
    config_release(&config);
}

static void test_words(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum config_tls tls;
    } listeners[] = {
        {CERTIFIED("starttls"),  CONFIG_TLS_STARTTLS},
        { CERTIFIED("required"), CONFIG_TLS_REQUIRED},
        { CERTIFIED("implicit"), CONFIG_TLS_IMPLICIT},
    };
    for (size_t i = 0; i < sizeof listeners / sizeof *listeners; i++) {
        char text[512];
        snprintf(text, sizeof text, "%s%s", listeners[i].text, POOL);
        struct config *config = parse_good(text);
        assert_int_equal(config->listeners[0].tls, listeners[i].tls);
        assert_int_equal(config->listeners[0].n_certificates, 1); /* one stands for a list of one */
        assert_non_null(config->listeners[0].tls_server);
        config_release(&config);
    }
    static const char *const pools[] = { "off",    "opportunistic", "require",
                                         "verify", "implicit",      "implicit-verify" };
    for (unsigned i = 0; i < sizeof pools / sizeof *pools; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 LISTENER "pools: { p: { tls: %s, backends: { a: { address: \"10.0.0.1:25\" } } } }\n",
                 pools[i]);
        struct config *config = parse_good(text);
        assert_int_equal(config->pools[0].tls, i);
        assert_int_equal(config->pools[0].tls_client != NULL, config->pools[0].tls != CONFIG_POOL_TLS_OFF);
        config_release(&config);
    }
}

/* Said, but asking for nothing. */
static void test_off(void **state)
{
    (void)state;
    struct config *config =
        parse_good("listeners:\n"
                   "  smtp: { address: \"127.0.0.1:2525\", tls: off, auth: off, certificate: [], client-ca: "
                   "\"\", tls-ticket-keys: \"\" }\n"
                   "pools: { p: { tls: off, ca: \"\", backends: { a: { address: \"10.0.0.1:25\", tls-name: "
                   "\"\" } } } }\n");
    assert_null(config->listeners[0].tls_server);
    assert_null(config->pools[0].tls_client);
    config_release(&config);
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *backend, *name;
    } cases[] = {
        {"address: \"relay.example.net:25\"",                             "relay.example.net"},
        { "address: \"192.0.2.1:25\"",                                    "192.0.2.1"        },
        { "address: \"[2001:db8::1]:25\"",                                "2001:db8::1"      },
        { "address: \"192.0.2.1:25\", tls-name: relay.example.net",       "relay.example.net"},
        { "tls-name: relay.example.net, address: \"[2001:db8::1]:25\"",   "relay.example.net"},
        { "address: \"relay.example.net:25\", tls-name: \"2001:db8::2\"", "2001:db8::2"      },
        { "address: \"relay.example.net:25\", tls-name: 192.0.2.1",       "192.0.2.1"        },
        { "address: \"unix:/run/relay:1\"",                               ""                 },
        { "address: \"unix:/run/relay:1\", tls-name: \"localhost\"",      "localhost"        },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        snprintf(text, sizeof text, LISTENER "pools: { p: { tls: require, backends: { a: { %s } } } }\n",
                 cases[i].backend);
        struct config *config = parse_good(text);
        assert_string_equal(config_backend_tls_name(&config->backends[0]), cases[i].name);
        config_release(&config);
    }
    static const char *const backend = "relay.example.net:25";
    struct errors errors;
    errors_open(&errors);
    struct config *quick = config_quick("127.0.0.1:2525", &backend, 1, NULL, errors.stream);
    assert_string_equal(errors_text(&errors), "");
    assert_string_equal(config_backend_tls_name(&quick->backends[0]), "relay.example.net");
    config_release(&quick);
    errors_close(&errors);
}

/* What is the same is there once; what differs in what it demands is not the same. */
static void test_shared_contexts(void **state)
{
    (void)state;
    struct config *config =
        parse_good("listeners: { smtp: { address: \"127.0.0.1:2525\", pool: off } }\n"
                   "pools:\n"
                   "  off: { backends: { o: { address: \"10.0.0.1:25\" } } }\n"
                   "  require: { tls: require, backends: [o] }\n"
                   "  system: { tls: verify, backends: [o] }\n"
                   "  own: { tls: verify, ca: " FILES "authority.pem, backends: [o] }\n"
                   "  other: { tls: verify, ca: " FILES "mx.pem, backends: [o] }\n"
                   "  implicit: { tls: implicit, backends: { i: { address: \"10.0.0.2:465\" } } }\n"
                   "  implicit-own: { tls: implicit-verify, ca: " FILES "authority.pem, backends: [i] }\n");
    const struct config_pool *pools = config->pools;
    assert_null(pools[0].tls_client);
    for (size_t i = 1; i < 5; i++) {
        assert_non_null(pools[i].tls_client);
        for (size_t k = 0; k < i; k++)
            assert_ptr_not_equal(pools[i].tls_client, pools[k].tls_client);
    }
    assert_ptr_equal(pools[5].tls_client, pools[1].tls_client);
    assert_ptr_equal(pools[6].tls_client, pools[3].tls_client);
    config_release(&config); /* each once: the sanitizer would know */
}

/* A FIFO that nobody writes to: not waited for. */
static void test_fifo(void **state)
{
    (void)state;
    char directory[] = "/tmp/weir-test-config-XXXXXX", fifo[64], text[512], place[128];
    assert_non_null(mkdtemp(directory));
    snprintf(fifo, sizeof fifo, "%s/fifo", directory);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    static const char *const forms[] = {
        "listeners: { a: { address: \"0.0.0.0:25\", tls: starttls, certificate: %s } }\n" POOL,
        "listeners: { a: { address: \"0.0.0.0:25\", tls: required, certificate: " FILES
        "mx.pem, client-ca: %s } }\n" POOL,
        "listeners: { a: { address: \"0.0.0.0:25\", tls: required, certificate: " FILES
        "mx.pem, tls-ticket-keys: %s } }\n" POOL,
        LISTENER "pools: { p: { tls: verify, ca: %s, backends: { a: { address: \"10.0.0.1:25\" } } } }\n",
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct errors errors;
        errors_open(&errors);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof text, forms[i], fifo);
#pragma GCC diagnostic pop
        assert_null(parse(text, &errors));
        const char *found = strstr(text, "/tmp/"), *line = found;
        while (line > text && line[-1] != '\n')
            line--;
        snprintf(place, sizeof place, "f:%d:%td: ", i == 3 ? 2 : 1, found - line + 1);
        assert_memory_equal(errors_text(&errors), place, strlen(place));
        assert_non_null(strstr(errors_text(&errors), fifo)); /* which file it is */
        errors_close(&errors);
    }
    unlink(fifo);
    rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_everything),
        cmocka_unit_test(test_words),    cmocka_unit_test(test_off),
        cmocka_unit_test(test_names),    cmocka_unit_test(test_shared_contexts),
        cmocka_unit_test(test_fifo),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
