/*
 * The configuration: the value of every option that is built, given and left out, and the forms it may be
 * given in.
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

#include "tests/unit/config_fixture.h"

static void test_defaults(void **state)
{
    (void)state;
    struct config *config = parse_good(LISTENER POOL);
    assert_true(*config->hostname != '\0');
    assert_in_range(config->workers, 1, 256);
    assert_string_equal(config->user, "");
    assert_int_equal(config->drain_grace, 0);
    assert_int_equal(config->drain_timeout, 30000);
    assert_int_equal(config->log.target, LOG_TARGET_STDERR);
    assert_int_equal(config->log.format, LOG_FORMAT_LOGFMT);
    assert_int_equal(config->log.level, LOG_LEVEL_INFO);
    assert_string_equal(config->http_address_text, "127.0.0.1:9925");
    assert_address(&config->http_address, "127.0.0.1:9925");
    assert_string_equal(config->control_path, "/run/weir/weir.sock");
    assert_false(config->control_given);

    assert_int_equal(config->n_listeners, 1);
    const struct config_listener *listener = &config->listeners[0];
    assert_string_equal(listener->name, "smtp");
    assert_int_equal(listener->n_addresses, 1);
    assert_int_equal(listener->pool, 0);
    assert_int_equal(listener->n_allow_from, 3);
    assert_int_equal(listener->allow_from[0].family, AF_INET);
    assert_int_equal(listener->allow_from[0].prefix, 8);
    assert_int_equal(listener->allow_from[1].family, AF_INET6);
    assert_int_equal(listener->allow_from[1].prefix, 128);
    assert_int_equal(listener->allow_from[2].family, AF_UNIX);
    assert_false(listener->open_to_all);
    assert_int_equal(listener->n_proxy_protocol_from, 0);
    assert_int_equal(listener->n_xclient_from, 0);
    assert_int_equal(listener->greet_delay, 0);
    assert_int_equal(listener->bare_newline, CONFIG_BARE_NEWLINE_REJECT);
    assert_int_equal(listener->max_connections, 10000);
    assert_int_equal(listener->max_connections_per_client, 0);
    assert_int_equal(listener->max_recipients, 1000);
    assert_int_equal(listener->max_message_size, 0);
    assert_int_equal(listener->max_errors, 20);
    assert_int_equal(listener->command_timeout, 300000);
    assert_int_equal(listener->data_timeout, 180000);
    assert_int_equal(listener->min_data_rate, 500);
    assert_int_equal(listener->priority, 0);

    assert_int_equal(config->n_pools, 1);
    const struct config_pool *pool = &config->pools[0];
    assert_string_equal(pool->name, "relays");
    assert_int_equal(pool->algorithm, CONFIG_LEAST_CONNECTIONS);
    assert_int_equal(pool->identity, CONFIG_IDENTITY_NONE);
    assert_int_equal(pool->source.length, 0);
    assert_int_equal(pool->queue_size, 200);
    assert_int_equal(pool->queue_timeout, 10000);
    assert_int_equal(pool->max_share_per_client, 100);
    assert_int_equal(pool->slow_start, 60000);
    assert_int_equal(pool->connect_timeout, 5000);
    assert_int_equal(pool->health.interval, 5000);
    assert_int_equal(pool->health.fast_interval, 1000);
    assert_int_equal(pool->health.timeout, 10000);
    assert_int_equal(pool->health.fall, 3);
    assert_int_equal(pool->health.rise, 2);
    assert_int_equal(pool->health.depth, CONFIG_DEPTH_EHLO);

    assert_int_equal(config->n_backends, 1);
    assert_int_equal(config->backends[0].weight, 1);
    assert_int_equal(config->backends[0].max_connections, 0);
    assert_int_equal(config->backends[0].priority, 0);
    config_release(&config);
    assert_null(config);
}

static const char everything[] =
    "hostname: relay.example.net\n"
    "workers: 3\n"
    "user: weir\n"
    "nameservers: [192.0.2.53, \"192.0.2.54:5353\", \"2001:db8::53\", \"[2001:db8::54]:5353\"]\n"
    "drain-grace: 1s\n"
    "drain-timeout: 2m\n"
    "log: { destination: /var/log/weir.log, format: json, level: debug }\n"
    "listeners:\n"
    "  smtp:\n"
    "    address: [\"0.0.0.0:25\", \"[::]:25\", \"unix:/run/weir.smtp\"]\n"
    "    pool: spare\n"
    "    allow-from: [0.0.0.0/0]\n"
    "    open-to-all: yes\n"
    "    proxy-protocol-from: [192.0.2.0/24, unix]\n"
    "    xclient-from: 192.0.2.0/24\n" /* in both: fine */
    "    greet-delay: 250ms\n"
    "    bare-newline: normalize\n"
    "    max-connections: 11\n"
    "    max-connections-per-client: 12\n"
    "    max-recipients: 13\n"
    "    max-message-size: 10MB\n"
    "    max-errors: 14\n"
    "    command-timeout: 1h\n"
    "    data-timeout: 20ms\n"
    "    min-data-rate: 15\n"
    "    priority: 255\n"
    "pools:\n"
    "  relays:\n"
    "    algorithm: peak-ewma\n"
    "    identity: xclient\n"
    "    source: 192.0.2.7\n"
    "    queue-size: 16\n"
    "    queue-timeout: 17s\n"
    "    max-share-per-client: 1%\n"
    "    slow-start: 18s\n"
    "    connect-timeout: 19s\n"
    "    health: { interval: 21s, fast-interval: 22ms, timeout: 23s, fall: 24, rise: 25, depth: banner }\n"
    "    backends:\n"
    "      relay1: { address: \"[2001:db8::1]:25\", weight: 0, max-connections: 200, priority: 2 }\n"
    "      relay2: { address: \"relay.farm.internal:2525\", weight: 1000 }\n"
    "  spare:\n"
    "    source: 2001:db8::7\n"
    "    identity: proxy-v2\n" /* to a Unix socket: fine */
    "    backends: { relay9: { address: \"unix:/run/relay9\" } }\n"
    "http: { address: \"\" }\n";

static void test_everything_but_pools(void **state)
{
    (void)state;
    struct config *config = parse_good(everything);
    assert_string_equal(config->hostname, "relay.example.net");
    assert_int_equal(config->workers, 3);
    assert_string_equal(config->user, "weir");
    assert_int_equal(config->n_nameservers, 4);
    assert_address(&config->nameservers[0], "192.0.2.53:53");
    assert_address(&config->nameservers[1], "192.0.2.54:5353");
    assert_address(&config->nameservers[2], "[2001:db8::53]:53");
    assert_address(&config->nameservers[3], "[2001:db8::54]:5353");
    assert_int_equal(config->drain_grace, 1000);
    assert_int_equal(config->drain_timeout, 120000);
    assert_int_equal(config->log.target, LOG_TARGET_FILE);
    assert_string_equal(config->log.path, "/var/log/weir.log");
    assert_int_equal(config->log.format, LOG_FORMAT_JSON);
    assert_int_equal(config->log.level, LOG_LEVEL_DEBUG);
    assert_string_equal(config->http_address_text, "");
    assert_int_equal(config->http_address.length, 0);

    const struct config_listener *listener = &config->listeners[0];
    assert_int_equal(listener->n_addresses, 3);
    assert_address(&listener->addresses[0], "0.0.0.0:25");
    assert_address(&listener->addresses[1], "[::]:25");
    assert_address(&listener->addresses[2], "unix:/run/weir.smtp");
    assert_int_equal(listener->pool, 1);
    assert_int_equal(listener->n_allow_from, 1);
    assert_true(listener->open_to_all);
    assert_int_equal(listener->n_proxy_protocol_from, 2);
    assert_int_equal(listener->proxy_protocol_from[0].family, AF_INET);
    assert_int_equal(listener->proxy_protocol_from[0].prefix, 24);
    assert_int_equal(listener->proxy_protocol_from[1].family, AF_UNIX);
    assert_int_equal(listener->n_xclient_from, 1);
    assert_int_equal(listener->xclient_from[0].prefix, 24);
    assert_int_equal(listener->greet_delay, 250);
    assert_int_equal(listener->bare_newline, CONFIG_BARE_NEWLINE_NORMALIZE);
    assert_int_equal(listener->max_connections, 11);
    assert_int_equal(listener->max_connections_per_client, 12);
    assert_int_equal(listener->max_recipients, 13);
    assert_int_equal(listener->max_message_size, 10 * 1024 * 1024);
    assert_int_equal(listener->max_errors, 14);
    assert_int_equal(listener->command_timeout, 3600000);
    assert_int_equal(listener->data_timeout, 20);
    assert_int_equal(listener->min_data_rate, 15);
    assert_int_equal(listener->priority, 255);
    config_release(&config);
}

static void test_everything_of_pools(void **state)
{
    (void)state;
    struct config *config = parse_good(everything);
    const struct config_pool *pool = &config->pools[0];
    assert_int_equal(pool->algorithm, CONFIG_PEAK_EWMA);
    assert_int_equal(pool->identity, CONFIG_IDENTITY_XCLIENT);
    assert_int_equal(config->pools[1].identity, CONFIG_IDENTITY_PROXY_V2);
    assert_address(&pool->source, "192.0.2.7:0");
    assert_address(&config->pools[1].source, "[2001:db8::7]:0");
    assert_int_equal(pool->queue_size, 16);
    assert_int_equal(pool->queue_timeout, 17000);
    assert_int_equal(pool->max_share_per_client, 1);
    assert_int_equal(pool->slow_start, 18000);
    assert_int_equal(pool->connect_timeout, 19000);
    assert_int_equal(pool->health.interval, 21000);
    assert_int_equal(pool->health.fast_interval, 22);
    assert_int_equal(pool->health.timeout, 23000);
    assert_int_equal(pool->health.fall, 24);
    assert_int_equal(pool->health.rise, 25);
    assert_int_equal(pool->health.depth, CONFIG_DEPTH_BANNER);

    const struct config_backend *backends = config->backends;
    assert_int_equal(config->n_backends, 3);
    assert_address(&backends[0].address, "[2001:db8::1]:25");
    assert_null(backends[0].host);
    assert_int_equal(backends[0].port, 25);
    assert_int_equal(backends[0].weight, 0);
    assert_int_equal(backends[0].max_connections, 200);
    assert_int_equal(backends[0].priority, 2);
    assert_int_equal(backends[1].address.length, 0);
    assert_string_equal(backends[1].host, "relay.farm.internal");
    assert_int_equal(backends[1].port, 2525);
    assert_string_equal(backends[1].address_text, "relay.farm.internal:2525");
    assert_int_equal(backends[1].weight, 1000);
    assert_address(&backends[2].address, "unix:/run/relay9");
    config_release(&config);
}

/* Keys of a later version may say what this one does anyway. */
static void test_not_built_but_harmless(void **state)
{
    (void)state;
    struct config *config =
        parse_good("control: \"\"\n"
                   "listeners:\n"
                   "  smtp: { address: \"127.0.0.1:2525\", tls: off, auth: off, certificate: [],\n"
                   "          client-ca: \"\" }\n"
                   "pools:\n"
                   "  relays:\n"
                   "    mode: session\n"
                   "    tls: off\n"
                   "    ca: \"\"\n"
                   "    adaptive-limit: off\n"
                   "    health: { depth: connect, sender: \"\", recipient: \"\" }\n"
                   "    backends: { relay1: { address: \"10.0.0.11:25\", tls-name: \"\", agent: \"\" } }\n");
    assert_int_equal(config->pools[0].health.depth, CONFIG_DEPTH_CONNECT);
    config_release(&config);
}

static void test_routes(void **state)
{
    (void)state;
    struct config *config = parse_good(
        "listeners:\n"
        "  smtp:\n"
        "    address: \"127.0.0.1:2525\"\n"
        "    pool: relays\n"
        "    xclient-from: 127.0.0.1\n"
        "    routes:\n"
        "      - { client: [10.0.0.0/8, unix], user: [\"news-*\", 'HERE\\me', \"a b\"], pool: bulk }\n"
        "      - { sender-domain: [Bulk.example., \"*.bulk.example\", <>, \"\", \"[192.0.2.?]\", "
        "b\xC3\xBC.example],\n"
        "          pool: bulk }\n"
        "      - pool: relays\n"
        "  one: { address: \"127.0.0.1:2526\", pool: bulk, routes: { sender-domain: x, pool: relays } }\n"
        "  none: { address: \"127.0.0.1:2527\", pool: bulk, routes: [] }\n"
        "pools:\n"
        "  relays: { backends: { relay1: { address: \"10.0.0.11:25\" } } }\n"
        "  bulk: { backends: { relay2: { address: \"10.0.0.12:25\" } } }\n");
    const struct config_route *routes = config->listeners[0].routes;
    static const char *const domains[] = { "Bulk.example", "*.bulk.example",   "", "",
                                           "[192.0.2.?]",  "b\xC3\xBC.example" };
    assert_int_equal(config->listeners[0].n_routes, 3);
    assert_int_equal(routes[0].n_clients, 2);
    assert_int_equal(routes[0].clients[0].prefix, 8);
    assert_int_equal(routes[0].clients[1].family, AF_UNIX);
    assert_int_equal(routes[0].n_users, 3);
    assert_string_equal(routes[0].users[0], "news-*");
    assert_string_equal(routes[0].users[1], "HERE\\me");
    assert_string_equal(routes[0].users[2], "a b");
    assert_int_equal(routes[0].n_sender_domains, 0);
    assert_int_equal(routes[0].pool, 1);
    assert_int_equal(routes[1].n_sender_domains, 6);
    for (size_t i = 0; i < 6; i++)
        assert_string_equal(routes[1].sender_domains[i], domains[i]);
    assert_int_equal(routes[2].n_clients + routes[2].n_users + routes[2].n_sender_domains, 0);
    assert_int_equal(routes[2].pool, 0);
    assert_int_equal(config->listeners[0].pool, 0);
    assert_int_equal(config->listeners[1].n_routes, 1);
    assert_int_equal(config->listeners[1].pool, 1);
    assert_int_equal(config->listeners[2].n_routes, 0);
    config_release(&config);
}

static void test_agents(void **state)
{
    (void)state;
    struct config *config =
        parse_good("listeners: { smtp: { address: \"127.0.0.1:2525\" } }\n"
                   "pools:\n"
                   "  relays:\n"
                   "    backends:\n"
                   "      none: { address: \"10.0.0.11:25\" }\n"
                   "      port: { address: \"10.0.0.11:25\", agent: 9780 }\n"
                   "      colon: { address: \"10.0.0.11:25\", agent: \":9781\" }\n"
                   "      literal: { address: \"10.0.0.11:25\", agent: \"[2001:db8::1]:9782\" }\n"
                   "      name: { address: \"unix:/run/relay.sock\", agent: \"relay.example.net:9783\" }\n");
    const struct config_backend *backends = config->backends;
    char text[ADDRESS_TEXT_MAX];
    assert_string_equal(backends[0].agent.text, "");
    assert_int_equal(backends[0].agent.port, 0);
    for (size_t i = 1; i <= 2; i++) {
        assert_int_equal(backends[i].agent.port, 9779 + i);
        assert_int_equal(backends[i].agent.address.length, 0);
        assert_null(backends[i].agent.host);
    }
    assert_string_equal(backends[2].agent.text, ":9781");
    assert_string_equal(address_format(&backends[3].agent.address, text), "[2001:db8::1]:9782");
    assert_null(backends[3].agent.host);
    assert_string_equal(backends[4].agent.host, "relay.example.net");
    assert_int_equal(backends[4].agent.port, 9783);
    config_release(&config);
}

static void test_identities(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        enum config_identity identity;
    } cases[] = {
        {"none",      CONFIG_IDENTITY_NONE    },
        { "proxy-v1", CONFIG_IDENTITY_PROXY_V1},
        { "proxy-v2", CONFIG_IDENTITY_PROXY_V2},
        { "xclient",  CONFIG_IDENTITY_XCLIENT },
        { "xforward", CONFIG_IDENTITY_XFORWARD},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        snprintf(text, sizeof text,
                 LISTENER
                 "pools: { relays: { identity: %s, backends: { a: { address: \"10.0.0.1:25\" } } } }\n",
                 cases[i].word);
        struct config *config = parse_good(text);
        assert_int_equal(config->pools[0].identity, cases[i].identity);
        config_release(&config);
    }
}

static void test_shared_backends(void **state)
{
    (void)state;
    /* By name alone before and behind the description, in a mapping and in a list. */
    struct config *config = parse_good("listeners: { smtp: { address: \"127.0.0.1:2525\", pool: second } }\n"
                                       "pools:\n"
                                       "  first: { backends: { a: , b: ~ } }\n"
                                       "  second:\n"
                                       "    backends:\n"
                                       "      b: { address: \"10.0.0.2:25\", weight: 7 }\n"
                                       "      a: { address: \"10.0.0.1:25\" }\n"
                                       "  third: { backends: [b] }\n");
    assert_int_equal(config->n_backends, 2);
    assert_string_equal(config->backends[0].name, "a");
    assert_address(&config->backends[0].address, "10.0.0.1:25");
    assert_int_equal(config->backends[1].weight, 7);
    assert_int_equal(config->pools[0].n_backends, 2);
    assert_int_equal(config->pools[0].backends[0], 0);
    assert_int_equal(config->pools[0].backends[1], 1);
    assert_int_equal(config->pools[1].backends[0], 1);
    assert_int_equal(config->pools[1].backends[1], 0);
    assert_int_equal(config->pools[2].backends[0], 1);
    assert_int_equal(config->listeners[0].pool, 1);
    config_release(&config);
}

static void test_forms(void **state)
{
    (void)state;
    setenv("WEIR_TEST_PORT", "2525", 1);
    setenv("WEIR_TEST_EMPTY", "", 1);
    unsetenv("WEIR_TEST_UNSET");
    struct config *config = parse_good(
        "hostname: ${WEIR_TEST_UNSET:-mx}.example.${WEIR_TEST_EMPTY:-net}\n"
        "user: \"$a$${WEIR_TEST_EMPTY}\"\n"
        "log:\n" /* nothing in it: all defaults */
        "listeners:\n"
        "  smtp:\n"
        "    address: 127.0.0.1:${WEIR_TEST_PORT}\n"
        "    pool: relays\n"
        "    allow-from: unix\n" /* a list of one */
        "    max-message-size: 4096\n"
        "    greet-delay: 0\n"
        "  other: { address: \"127.0.0.1:2526\", pool: spare, max-message-size: 3KB, allow-from: [] }\n"
        "  third: { address: \"127.0.0.1:2527\", pool: spare, max-message-size: 1024GB }\n"
        "pools:\n"
        "  relays: { health: &h { fall: 9 }, backends: { a: { address: \"10.0.0.1:25\" } } }\n"
        "  spare: { health: *h, backends: [a] }\n"
        "http: { address: \"[::1]:80\" }\n"
        "...\n");
    assert_string_equal(config->hostname, "mx.example.net");
    assert_string_equal(config->user, "$a$");
    assert_int_equal(config->log.target, LOG_TARGET_STDERR);
    assert_address(&config->listeners[0].addresses[0], "127.0.0.1:2525");
    assert_int_equal(config->listeners[0].n_allow_from, 1);
    assert_int_equal(config->listeners[0].allow_from[0].family, AF_UNIX);
    assert_int_equal(config->listeners[0].max_message_size, 4096);
    assert_int_equal(config->listeners[0].greet_delay, 0);
    assert_int_equal(config->listeners[1].n_allow_from, 0);
    assert_int_equal(config->listeners[1].max_message_size, 3072);
    assert_true(config->listeners[2].max_message_size == UINT64_C(1) << 40);
    assert_int_equal(config->pools[1].health.fall, 9);
    assert_address(&config->http_address, "[::1]:80");
    config_release(&config);
}

static void test_redis(void **state)
{
    (void)state;
    struct config *config = parse_good(LISTENER POOL);
    assert_null(config->redis.url);
    assert_string_equal(config->redis.farm, "main");
    assert_int_equal(config->redis.publish_interval, 250);
    assert_int_equal(config->redis.lease, 3000);
    assert_int_equal(config->redis.expected_instances, 1);
    assert_string_equal(config->redis.ca, "");
    config_release(&config);

    config = parse_good(
        LISTENER POOL "redis: { url: \"redis://weir:s%40cret@h1:7/2\", farm: mx-1.eu, publish-interval: 2s,\n"
                      "  lease: 8s, expected-instances: 4 }\n");
    assert_int_equal(config->redis.url->kind, REDIS_URL_TCP);
    assert_string_equal(config->redis.url->hosts[0].name, "h1");
    assert_string_equal(config->redis.url->password, "s@cret");
    assert_string_equal(config->redis.farm, "mx-1.eu");
    assert_int_equal(config->redis.publish_interval, 2000);
    assert_int_equal(config->redis.lease, 8000);
    assert_int_equal(config->redis.expected_instances, 4);
    assert_null(config->redis.tls);
    config_release(&config);

    config = parse_good(LISTENER POOL "redis: { url: \"cluster://h1,h2?tls=on\" }\n");
    assert_int_equal(config->redis.url->n_hosts, 2);
    assert_non_null(config->redis.tls);
    config_release(&config);
    config = parse_good(LISTENER POOL "redis: { url: \"\" }\n");
    assert_null(config->redis.url);
    config_release(&config);
}

/* Whatever is wrong with the URL. */
static void test_no_password_shown(void **state)
{
    (void)state;
    static const char *const urls[] = {
        "redis://:topsecret@",    "redis://u:topsecret%zz@h", "topsecret",
        "redis://:topsecret@h/x", "sentinel://:topsecret@h",  "redis://:topsecret@h?x"
    };
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        char text[512];
        struct errors errors;
        errors_open(&errors);
        snprintf(text, sizeof text, LISTENER POOL "redis: { url: \"%s\" }\n", urls[i]);
        assert_null(parse(text, &errors));
        assert_non_null(strstr(errors_text(&errors), "redis.url: expected "));
        assert_null(strstr(errors_text(&errors), "topsecret"));
        errors_close(&errors);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_everything_but_pools),
        cmocka_unit_test(test_everything_of_pools),
        cmocka_unit_test(test_not_built_but_harmless),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_agents),
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_shared_backends),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_redis),
        cmocka_unit_test(test_no_password_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
