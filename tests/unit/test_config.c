/*
 * The configuration: what a file gives, what it may leave out, and each mistake with its place.
 *
 * The broken files are tests/config/broken/NAME.yaml; what is said about each stands in NAME.expected, to the
 * letter. With --describe this program writes docs/configuration.md instead of testing.
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
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"
#include "config/hostname.h"
#include "config/word.h"

#define BROKEN_DIRECTORY "tests/config/broken"

#define LISTENER "listeners: { smtp: { address: \"127.0.0.1:2525\" } }\n"
#define POOL     "pools: { relays: { backends: { relay1: { address: \"10.0.0.11:25\" } } } }\n"

/* A stream that collects what is reported. */
struct errors {
    FILE *stream;
    char *text;
    size_t size;
};

static void errors_open(struct errors *errors)
{
    errors->stream = open_memstream(&errors->text, &errors->size);
    assert_non_null(errors->stream);
}

static const char *errors_text(struct errors *errors)
{
    fflush(errors->stream);
    return errors->text;
}

static void errors_close(struct errors *errors)
{
    fclose(errors->stream);
    free(errors->text);
}

static struct config *parse(const char *text, struct errors *errors)
{
    return config_parse("f", text, strlen(text), errors->stream);
}

static struct config *parse_good(const char *text)
{
    struct errors errors;
    errors_open(&errors);
    struct config *config = parse(text, &errors);
    assert_string_equal(errors_text(&errors), "");
    assert_non_null(config);
    errors_close(&errors);
    return config;
}

static void assert_errors(const char *text, const char *expected)
{
    struct errors errors;
    errors_open(&errors);
    assert_null(parse(text, &errors));
    assert_string_equal(errors_text(&errors), expected);
    errors_close(&errors);
}

static void assert_address(const struct address *address, const char *expected)
{
    char text[ADDRESS_TEXT_MAX];
    assert_string_equal(address_format(address, text), expected);
}

static char *read_whole(const char *path, size_t *size)
{
    FILE *in = fopen(path, "rb");
    if (!in)
        fail_msg("cannot open %s (run from the top of the tree)", path);
    size_t capacity = 1 << 16;
    char *text = malloc(capacity);
    *size = fread(text, 1, capacity - 1, in);
    assert_true(*size < capacity - 1);
    text[*size] = '\0';
    fclose(in);
    return text;
}

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

    assert_int_equal(config->n_pools, 1);
    const struct config_pool *pool = &config->pools[0];
    assert_string_equal(pool->name, "relays");
    assert_int_equal(pool->algorithm, CONFIG_LEAST_CONNECTIONS);
    assert_int_equal(pool->source.length, 0);
    assert_int_equal(pool->queue_size, 200);
    assert_int_equal(pool->queue_timeout, 10000);
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
    "drain-grace: 1s\n"
    "drain-timeout: 2m\n"
    "log: { destination: /var/log/weir.log, format: json, level: debug }\n"
    "listeners:\n"
    "  smtp:\n"
    "    address: [\"0.0.0.0:25\", \"[::]:25\", \"unix:/run/weir.smtp\"]\n"
    "    pool: spare\n"
    "    allow-from: [0.0.0.0/0]\n"
    "    open-to-all: yes\n"
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
    "pools:\n"
    "  relays:\n"
    "    algorithm: peak-ewma\n"
    "    source: 192.0.2.7\n"
    "    queue-size: 16\n"
    "    queue-timeout: 17s\n"
    "    slow-start: 18s\n"
    "    connect-timeout: 19s\n"
    "    health: { interval: 21s, fast-interval: 22ms, timeout: 23s, fall: 24, rise: 25, depth: banner }\n"
    "    backends:\n"
    "      relay1: { address: \"[2001:db8::1]:25\", weight: 0, max-connections: 200, priority: 2 }\n"
    "      relay2: { address: \"relay.farm.internal:2525\", weight: 1000 }\n"
    "  spare:\n"
    "    source: 2001:db8::7\n"
    "    backends: { relay9: { address: \"unix:/run/relay9\" } }\n"
    "http: { address: \"\" }\n";

static void test_everything(void **state)
{
    (void)state;
    struct config *config = parse_good(everything);
    assert_string_equal(config->hostname, "relay.example.net");
    assert_int_equal(config->workers, 3);
    assert_string_equal(config->user, "weir");
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

    const struct config_pool *pool = &config->pools[0];
    assert_int_equal(pool->algorithm, CONFIG_PEAK_EWMA);
    assert_address(&pool->source, "192.0.2.7:0");
    assert_address(&config->pools[1].source, "[2001:db8::7]:0");
    assert_int_equal(pool->queue_size, 16);
    assert_int_equal(pool->queue_timeout, 17000);
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
    struct config *config = parse_good(
        "control: \"\"\n"
        "listeners:\n"
        "  smtp: { address: \"127.0.0.1:2525\", tls: off, auth: off, certificate: [], routes: [],\n"
        "          client-ca: \"\", proxy-protocol-from: [], xclient-from: [], priority: 0 }\n"
        "pools:\n"
        "  relays:\n"
        "    mode: session\n"
        "    identity: none\n"
        "    tls: off\n"
        "    ca: \"\"\n"
        "    max-share-per-client: 100%\n"
        "    adaptive-limit: off\n"
        "    health: { depth: connect, sender: \"\", recipient: \"\" }\n"
        "    backends: { relay1: { address: \"10.0.0.11:25\", tls-name: \"\", agent: \"\" } }\n");
    assert_int_equal(config->pools[0].health.depth, CONFIG_DEPTH_CONNECT);
    config_release(&config);
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

static void test_references(void **state)
{
    (void)state;
    struct config *config = parse_good(LISTENER POOL);
    struct config *held = config_hold(config);
    assert_ptr_equal(held, config);
    config_release(&config);
    assert_null(config);
    assert_string_equal(held->listeners[0].name, "smtp"); /* the sanitizer would know */
    config_release(&held);
    config_release(&held); /* NULL is fine */
}

/* Every line is FILE:LINE:COLUMN: message, places never go back. */
static void assert_report_shape(const char *name, const char *report)
{
    size_t last_line = 1, last_column = 1;
    while (*report) {
        size_t line, column, size = strlen(name);
        int used = 0;
        assert_memory_equal(report, name, size);
        assert_int_equal(sscanf(report + size, ":%zu:%zu: %n", &line, &column, &used), 2);
        assert_true(used > 0 && line >= 1 && column >= 1);
        assert_true(line > last_line || (line == last_line && column >= last_column));
        last_line = line;
        last_column = column;
        report = strchr(report, '\n') + 1;
    }
}

static void check_broken(const char *name)
{
    char path[512], expected_path[512];
    size_t size, expected_size;
    struct errors errors;
    snprintf(path, sizeof path, "%s/%s", BROKEN_DIRECTORY, name);
    snprintf(expected_path, sizeof expected_path, "%.*s.expected", (int)strlen(path) - 5, path);
    char *text = read_whole(path, &size), *expected = read_whole(expected_path, &expected_size);
    errors_open(&errors);
    struct config *config = config_parse(name, text, size, errors.stream);
    if (config)
        fail_msg("%s is taken", path);
    assert_string_equal(errors_text(&errors), expected);
    assert_report_shape(name, errors_text(&errors));
    errors_close(&errors);
    free(text);
    free(expected);
}

static void test_broken(void **state)
{
    (void)state;
    unsetenv("WEIR_TEST_UNSET");
    size_t n = 0;
    DIR *directory = opendir(BROKEN_DIRECTORY);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));) {
        size_t size = strlen(entry->d_name);
        if (size <= 5 || strcmp(entry->d_name + size - 5, ".yaml") != 0)
            continue;
        check_broken(entry->d_name);
        n++;
    }
    closedir(directory);
    assert_true(n >= 20);
}

static void assert_load_fails(const char *path, const char *expected)
{
    struct errors errors;
    errors_open(&errors);
    assert_null(config_load(path, errors.stream));
    assert_string_equal(errors_text(&errors), expected);
    errors_close(&errors);
}

static void test_files(void **state)
{
    (void)state;
    char directory[] = "/tmp/weir-test-config-XXXXXX", fifo[64], expected[256];
    assert_non_null(mkdtemp(directory));
    snprintf(fifo, sizeof fifo, "%s/fifo", directory);
    assert_int_equal(mkfifo(fifo, 0600), 0);

    snprintf(expected, sizeof expected, "%s/no:1:1: cannot be read: No such file or directory; %s\n",
             directory, "expected a YAML file");
    char missing[64];
    snprintf(missing, sizeof missing, "%s/no", directory);
    assert_load_fails(missing, expected);
    snprintf(expected, sizeof expected, "%s:1:1: cannot be read: Is a directory; expected a YAML file\n",
             directory);
    assert_load_fails(directory, expected);
    /* Without a writer: not waited for. */
    snprintf(expected, sizeof expected,
             "%s:1:1: the file holds no configuration; expected listeners and pools\n", fifo);
    assert_load_fails(fifo, expected);
    assert_load_fails("/dev/zero", "/dev/zero:1:1: the file is too large; expected at most 1048576 octets\n");
    unlink(fifo);
    rmdir(directory);

    struct errors errors;
    errors_open(&errors);
    struct config *config = config_load("config/quickstart.yaml", errors.stream);
    assert_string_equal(errors_text(&errors), "");
    assert_int_equal(config->n_backends, 3);
    assert_int_equal(config->backends[0].weight, 4);
    assert_int_equal(config->backends[1].weight, 2);
    assert_int_equal(config->backends[2].weight, 1);
    assert_address(&config->listeners[0].addresses[0], "127.0.0.1:2525");
    assert_address(&config->backends[2].address, "127.0.0.1:2603");
    config_release(&config);
    errors_close(&errors);
}

/* A text made of a beginning, n times the same and an end. */
static char *repeated(const char *begin, const char *piece, size_t n, const char *end)
{
    size_t size;
    char *text;
    FILE *out = open_memstream(&text, &size);
    fputs(begin, out);
    for (size_t i = 0; i < n; i++)
        fputs(piece, out);
    fputs(end, out);
    fclose(out);
    return text;
}

static void test_bounds(void **state)
{
    (void)state;
    char *text = repeated(LISTENER POOL, "#", (1 << 20) - strlen(LISTENER POOL), "");
    struct config *config = parse_good(text); /* exactly the largest */
    config_release(&config);
    free(text);

    text = repeated(LISTENER POOL, "#", (1 << 20) - strlen(LISTENER POOL), "#");
    assert_errors(text, "f:1:1: the file is too large; expected at most 1048576 octets\n");
    free(text);
    text = repeated("", "[", 100000, "");
    assert_errors(text, "f:1:17: nested too deep\n");
    free(text);
    text = repeated("[", "a,", 60000, "]");
    assert_errors(text, "f:1:100000: too many values\n");
    free(text);
    text = repeated("[", "&a a,", 300, "]");
    assert_errors(text, "f:1:1282: too many anchors\n");
    free(text);
    text = repeated("hostname: \"", "a", 5000, "\"\n" LISTENER POOL);
    assert_errors(text, "f:1:11: hostname: expected at most 4095 octets\n");
    free(text);
}

/* Few octets that mean much: the walk stops, and says where. */
static void test_alias_bomb(void **state)
{
    (void)state;
    char *list =
        repeated("listeners:\n  a: { address: \"127.0.0.1:1\", allow-from: &l [", "unix,", 4000, "unix] }\n");
    size_t size;
    char *text;
    FILE *out = open_memstream(&text, &size);
    fputs(list, out);
    for (unsigned i = 2; i < 200; i++)
        fprintf(out, "  b%u: { address: \"127.0.0.1:%u\", allow-from: *l }\n", i, i);
    fputs(POOL, out);
    fclose(out);
    struct errors errors;
    errors_open(&errors);
    assert_null(parse(text, &errors));
    assert_non_null(strstr(errors_text(&errors), "too many values, counting what aliases repeat\n"));
    errors_close(&errors);
    free(text);
    free(list);
}

static void test_many_errors(void **state)
{
    (void)state;
    char *text = repeated(LISTENER POOL "log:\n", "  x: 1\n", 1500, "");
    struct errors errors;
    errors_open(&errors);
    assert_null(parse(text, &errors));
    size_t lines = 0;
    for (const char *p = errors_text(&errors); (p = strchr(p, '\n')); p++)
        lines++;
    assert_int_equal(lines, 1001);
    assert_non_null(strstr(errors_text(&errors), "f:1003:3: and 500 more errors\n"));
    errors_close(&errors);
    free(text);
}

/* An address that only http's default takes. */
static void test_http_default_taken(void **state)
{
    (void)state;
    assert_errors("listeners: { smtp: { address: \"127.0.0.1:9925\" } }\n" POOL,
                  "f:1:31: listeners.smtp.address: 127.0.0.1:9925 is where http answers by default; expected "
                  "another address here or there\n");
}

static void test_quick(void **state)
{
    (void)state;
    static const char *const backends[] = { "10.0.0.11:25*4", "relay.example.net:2525",
                                            "[2001:db8::1]:25*0" };
    struct errors errors;
    errors_open(&errors);
    struct config *config = config_quick("127.0.0.1:2525", backends, 3, errors.stream);
    assert_string_equal(errors_text(&errors), "");
    errors_close(&errors);
    assert_non_null(config);
    assert_true(*config->hostname != '\0');
    assert_true(config->workers > 0);
    assert_string_equal(config->http_address_text, "");
    assert_int_equal(config->http_address.length, 0);
    assert_string_equal(config->listeners[0].name, "smtp");
    assert_address(&config->listeners[0].addresses[0], "127.0.0.1:2525");
    assert_int_equal(config->listeners[0].n_allow_from, 3);
    assert_string_equal(config->pools[0].name, "relays");
    assert_int_equal(config->pools[0].n_backends, 3);
    assert_string_equal(config->backends[0].name, "relay1");
    assert_int_equal(config->backends[0].weight, 4);
    assert_string_equal(config->backends[1].name, "relay2");
    assert_string_equal(config->backends[1].host, "relay.example.net");
    assert_int_equal(config->backends[1].weight, 1);
    assert_address(&config->backends[2].address, "[2001:db8::1]:25");
    assert_int_equal(config->backends[2].weight, 0);
    config_release(&config);
}

static void assert_quick_errors(const char *listen, const char *const *backends, size_t n,
                                const char *expected)
{
    struct errors errors;
    errors_open(&errors);
    assert_null(config_quick(listen, backends, n, errors.stream));
    assert_string_equal(errors_text(&errors), expected);
    errors_close(&errors);
}

static void test_quick_errors(void **state)
{
    (void)state;
    assert_quick_errors("127.0.0.1:2525", NULL, 0,
                        "--backend: missing; expected at least one relay, such as 192.0.2.1:25*4\n");
    static const char *const bad[] = { "10.0.0.11", "10.0.0.12:25*", "10.0.0.13:25*1001", "10.0.0.14:25" };
    assert_quick_errors(
        "2525", bad, 4,
        "--listen: expected an address such as 192.0.2.1:25, [2001:db8::1]:25 or unix:/path, not \"2525\" (a "
        "port is missing, as in 192.0.2.1:25)\n"
        "--backend: expected host:port such as 192.0.2.1:25 or relay.example.net:25, not \"10.0.0.11\" (a "
        "port is "
        "missing, as in 192.0.2.1:25)\n"
        "--backend: expected a whole number from 0 to 1000, not \"\"\n"
        "--backend: expected a whole number from 0 to 1000, not \"1001\"\n");
    static const char *const loop[] = { "127.0.0.1:2525" };
    assert_quick_errors("0.0.0.0:2525", loop, 1,
                        "--backend: expected a relay, but 127.0.0.1:2525 is Weir's own listener \"smtp\" "
                        "(0.0.0.0:2525): mail would go round in a loop\n");
}

static void test_hostname(void **state)
{
    (void)state;
    static char hosts[] = "127.0.0.1 localhost localhost.localdomain\n"
                          "# 10.0.0.1 mx.commented.example mx\n"
                          "10.0.0.2\tmx mx.example.net # mx.other.example\n"
                          "10.0.0.3 bare\n";
    static const struct {
        const char *name, *full;
    } cases[] = {
        {"mx",    "mx.example.net"},
        { "MX",   "mx.example.net"},
        { "bare", NULL            },
        { "gone", NULL            }
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *in = fmemopen(hosts, strlen(hosts), "r");
        char *full = hostname_in_hosts(in, cases[i].name);
        if (cases[i].full)
            assert_string_equal(full, cases[i].full);
        else
            assert_null(full);
        free(full);
        fclose(in);
    }
    char *own = hostname_of_host();
    assert_true(word_is_domain(own));
    free(own);
}

static void test_domains(void **state)
{
    (void)state;
    static const char *const good[] = { "a", "mx.example.net", "1a.2b", "[192.0.2.1]", "[IPv6:2001:db8::1]" };
    static const char *const bad[] = { "",         ".",    "a.",  ".a",     "a..b", "-a",
                                       "a-",       "a-.b", "a_b", "a b",    "[]",   "[1.2.3]",
                                       "[IPv6:x]", "[",    "]",   "a\r\nb", "[::1]" };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(word_is_domain(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(word_is_domain(bad[i]));
    char label[66];
    memset(label, 'a', 64);
    label[64] = '\0';
    assert_false(word_is_domain(label));
    label[63] = '\0';
    assert_true(word_is_domain(label));
}

static void test_documentation(void **state)
{
    (void)state;
    size_t size;
    char *committed = read_whole("docs/configuration.md", &size);
    struct errors generated;
    errors_open(&generated);
    config_describe(generated.stream);
    if (strcmp(committed, errors_text(&generated)) != 0)
        fail_msg(
            "docs/configuration.md differs from the option table; its second line says how to make it anew");
    errors_close(&generated);
    free(committed);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--describe") == 0) {
        config_describe(stdout);
        return ferror(stdout) != 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_not_built_but_harmless),
        cmocka_unit_test(test_shared_backends),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_alias_bomb),
        cmocka_unit_test(test_many_errors),
        cmocka_unit_test(test_http_default_taken),
        cmocka_unit_test(test_quick),
        cmocka_unit_test(test_quick_errors),
        cmocka_unit_test(test_hostname),
        cmocka_unit_test(test_domains),
        cmocka_unit_test(test_documentation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
