/*
 * The configuration: each mistake with its place, files that are none, what bounds a hostile one, the quick
 * start.
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
#include <sys/stat.h>
#include <unistd.h>

#include "config/hostname.h"
#include "config/word.h"
#include "tests/unit/config_fixture.h"

#define BROKEN_DIRECTORY   "tests/config/broken"
#define EXAMPLES_DIRECTORY "config/examples"
#define TLS_DIRECTORY      "tests/config/tls"

static void assert_errors(const char *text, const char *expected)
{
    struct errors errors;
    errors_open(&errors);
    assert_null(parse(text, &errors));
    assert_string_equal(errors_text(&errors), expected);
    errors_close(&errors);
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

/* What each is there to show. */
static void check_example(const char *name, const struct config *config)
{
    const struct config_listener *listeners = config->listeners;
    if (strcmp(name, "inbound-mx.yaml") == 0) {
        assert_int_equal(config->pools[0].identity, CONFIG_IDENTITY_XCLIENT);
        assert_false(listeners[0].open_to_all);
        assert_int_equal(listeners[0].tls, CONFIG_TLS_STARTTLS);
        assert_int_equal(listeners[0].n_certificates, 2);
    } else if (strcmp(name, "behind-nlb.yaml") == 0) {
        assert_int_equal(listeners[0].n_proxy_protocol_from, 1);
        assert_true(*listeners[0].tls_ticket_keys != '\0');
    } else if (strcmp(name, "submission-farm.yaml") == 0) {
        assert_int_equal(listeners[0].tls, CONFIG_TLS_REQUIRED);
        assert_int_equal(listeners[1].tls, CONFIG_TLS_IMPLICIT);
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(listeners[i].auth, CONFIG_AUTH_RELAY);
            assert_int_equal(listeners[i].n_allow_from, 0);
        }
        assert_int_equal(config->pools[0].tls, CONFIG_POOL_TLS_VERIFY);
        assert_string_equal(config_backend_tls_name(&config->backends[1]), "out2.example.net");
    } else if (strcmp(name, "transactional-and-bulk.yaml") == 0) {
        assert_int_equal(listeners[0].n_routes, 4);
        assert_string_equal(listeners[0].routes[0].sender_domains[0], "");
        assert_int_equal(listeners[0].routes[3].pool, 2);
    }
}

/* With the fixtures in place of the operator's files, which have the same names. */
static void load_example(const char *name)
{
    static const char theirs[] = "/etc/weir/tls/", ours[] = TLS_DIRECTORY "/";
    char path[512], *adapted;
    size_t size, adapted_size;
    struct errors errors;
    snprintf(path, sizeof path, EXAMPLES_DIRECTORY "/%s", name);
    char *text = read_whole(path, &size);
    FILE *out = open_memstream(&adapted, &adapted_size);
    const char *rest = text;
    for (const char *found; (found = strstr(rest, theirs)); rest = found + strlen(theirs))
        fprintf(out, "%.*s%s", (int)(found - rest), rest, ours);
    fputs(rest, out);
    fclose(out);
    errors_open(&errors);
    struct config *config = config_parse(name, adapted, adapted_size, errors.stream);
    assert_string_equal(errors_text(&errors), "");
    assert_non_null(config);
    check_example(name, config);
    config_release(&config);
    errors_close(&errors);
    free(adapted);
    free(text);
}

static void test_examples(void **state)
{
    (void)state;
    size_t n = 0;
    DIR *directory = opendir(EXAMPLES_DIRECTORY);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (*entry->d_name == '.')
            continue;
        load_example(entry->d_name);
        n++;
    }
    closedir(directory);
    assert_true(n >= 3);
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
    struct config *config = config_quick("127.0.0.1:2525", backends, 3, NULL, errors.stream);
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
    assert_null(config_quick(listen, backends, n, NULL, errors.stream));
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
        cmocka_unit_test(test_references),    cmocka_unit_test(test_broken),
        cmocka_unit_test(test_files),         cmocka_unit_test(test_examples),
        cmocka_unit_test(test_bounds),        cmocka_unit_test(test_alias_bomb),
        cmocka_unit_test(test_many_errors),   cmocka_unit_test(test_http_default_taken),
        cmocka_unit_test(test_quick),         cmocka_unit_test(test_quick_errors),
        cmocka_unit_test(test_hostname),      cmocka_unit_test(test_domains),
        cmocka_unit_test(test_documentation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
