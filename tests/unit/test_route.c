/*
 * Routes: globs, the choice, and what EHLO may offer where several pools come into question.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/glob.h"
#include "proxy/route.h"
#include "tests/unit/config_fixture.h"
#include "tests/unit/farm_fixture.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* --- globs --- */

/* The text in memory of just its size, so that the address sanitizer sees a look beyond it. */
static bool matches(const char *glob, const char *text, size_t size, bool fold)
{
    char *copy = malloc(size ? size : 1);
    bool result;

    memcpy(copy, text, size);
    result = glob_matches(glob, copy, size, fold);
    free(copy);
    return result;
}

static void test_globs(void **state)
{
    static const struct {
        const char *glob, *text;
        bool exact, folded;
    } cases[] = {
        {"",          "",                     true,  true },
        { "",         "a",                    false, false},
        { "*",        "",                     true,  true },
        { "**",       "",                     true,  true },
        { "?",        "",                     false, false},
        { "*",        "anything",             true,  true },
        { "a",        "",                     false, false},
        { "a",        "a",                    true,  true },
        { "a",        "A",                    false, true },
        { "A",        "a",                    false, true },
        { "@[`{",     "`{@[",                 false, false}, /* the neighbours of the letters */
        { "a",        "ab",                   false, false},
        { "ab",       "a",                    false, false},
        { "a?c",      "abc",                  true,  true },
        { "a?c",      "ac",                   false, false},
        { "a*c",      "ac",                   true,  true },
        { "a*c",      "abbbc",                true,  true },
        { "a*c",      "abbbcd",               false, false},
        { "*.b",      "a.b",                  true,  true },
        { "*.b",      ".b",                   true,  true },
        { "*.b",      "b",                    false, false},
        { "*.b",      "a.b.a.b",              true,  true },
        { "a*b*c",    "a-b-b-c-c",            true,  true },
        { "a*b*c",    "a-c-b",                false, false},
        { "*a*?",     "aaa",                  true,  true },
        { "*a?",      "aaa",                  true,  true },
        { "*?a",      "a",                    false, false},
        { "?*?",      "a",                    false, false},
        { "*abab*",   "aabababb",             true,  true },
        { "[a-c]",    "b",                    false, false}, /* no sets */
        { "[a-c]",    "[a-c]",                true,  true },
        { "\\*",      "*",                    false, false}, /* no escapes */
        { "\\*",      "\\anything",           true,  true },
        { "*",        "*",                    true,  true },
        { "a?",       "a*",                   true,  true },
        { "b?cher",
         "b\xC3\xBC"
          "cher",                             true,  true },
        { "b??cher",
         "b\xC3\xBC"
          "cher",                             false, false},
        { "*?cher",
         "b\xC3\xBC"
          "cher",                             true,  true },
        { "*??cher",
         "\xC3\xBC"
          "cher",                             false, false},
        { "\xC3\x9C", "\xC3\xBC",             false, false}, /* only ASCII is folded */
        { "?",        "\xF0\x9F\x93\xA8",     true,  true },
        { "??",       "\xFF\xFE",             true,  true }, /* not UTF-8: octets */
        { "??",       "\x80\x80\x80\x80\x80", true,  true }, /* nor are these more than four a character */
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        size_t size = strlen(cases[i].text);

        if (matches(cases[i].glob, cases[i].text, size, false) != cases[i].exact ||
            matches(cases[i].glob, cases[i].text, size, true) != cases[i].folded)
            fail_msg("\"%s\" and \"%s\"", cases[i].glob, cases[i].text);
    }
    assert_false(matches("a", "a\0b", 3, false)); /* the glob's end is no octet of the text */
    assert_false(matches("", "\0", 1, false));
    assert_true(matches("a?b", "a\0b", 3, false));
}

/* By definition: '*' takes nothing, or one character and goes on. Octets stand for characters here. */
static bool slowly(const char *glob, const char *text)
{
    if (*glob == '*')
        return slowly(glob + 1, text) || (*text && slowly(glob, text + 1));
    if (!*glob || !*text)
        return !*glob && !*text;
    return (*glob == '?' || *glob == *text) && slowly(glob + 1, text + 1);
}

static void spell(char *out, size_t size, unsigned number, const char *letters)
{
    size_t n = strlen(letters);

    for (size_t i = 0; i < size; i++, number /= (unsigned)n)
        out[i] = letters[number % n];
    out[size] = '\0';
}

/* All globs of up to six and texts of up to seven letters. */
static void test_globs_by_definition(void **state)
{
    char glob[8], text[8];

    (void)state;
    for (size_t g = 0; g <= 6; g++)
        for (unsigned i = 0; i < 1u << 2 * g; i++) {
            spell(glob, g, i, "ab*?");
            for (size_t t = 0; t <= 7; t++)
                for (unsigned k = 0; k < 1u << t; k++) {
                    spell(text, t, k, "ab");
                    if (glob_matches(glob, text, t, false) != slowly(glob, text))
                        fail_msg("\"%s\" and \"%s\"", glob, text);
                }
        }
}

/* What takes forever where every star may try every length. */
static void test_globs_end(void **state)
{
    char glob[256], text[255];

    (void)state;
    for (size_t i = 0; i + 1 < sizeof glob; i += 2)
        memcpy(glob + i, "*a", 2);
    glob[254] = 'b';
    glob[255] = '\0';
    memset(text, 'a', sizeof text);
    assert_false(glob_matches(glob, text, sizeof text, true));
    text[254] = 'b';
    assert_true(glob_matches(glob, text, sizeof text, true));
}

/* --- the choice --- */

static const char routes_file[] = "listeners:\n"
                                  "  smtp:\n"
                                  "    address: \"127.0.0.1:2525\"\n"
                                  "    pool: own\n"
                                  "    xclient-from: 127.0.0.1\n"
                                  "    routes:\n"
                                  "      - { client: [10.0.0.0/8, \"2001:db8::/32\", unix], user: [\"a*\", "
                                  "b], sender-domain: x.example., pool: p1 }\n"
                                  "      - { user: \"*\", pool: p2 }\n"
                                  "      - { sender-domain: [\"\", \"[192.0.2.*]\"], pool: p3 }\n"
                                  "      - { client: 10.1.0.0/16, pool: p4 }\n"
                                  "      - { sender-domain: \"*\", client: 10.2.3.4, pool: p5 }\n"
                                  "pools:\n"
                                  "  p1: { backends: { r1: { address: \"10.0.0.1:25\" } } }\n"
                                  "  p2: { backends: [r1] }\n"
                                  "  p3: { backends: [r1] }\n"
                                  "  own: { backends: [r1] }\n"
                                  "  p4: { backends: [r1] }\n"
                                  "  p5: { backends: [r1] }\n";

static struct smtp_span span(const char *text)
{
    return (struct smtp_span){ text, text ? strlen(text) : 0 };
}

static struct peer peer(const char *text)
{
    struct network network;
    const char *error;
    struct peer found;

    assert_true(network_parse(text, &network, &error));
    found = (struct peer){ .family = network.family, .port = 25 };
    memcpy(found.ip, network.ip, sizeof found.ip);
    return found;
}

static void test_choice(void **state)
{
    static const struct {
        const char *client, *user, *domain; /* NULL: not known */
        const char *pool;
    } cases[] = {
        {"10.0.0.1",     "anna", "x.example",   "p1" },
        { "2001:db8::7", "b",    "X.EXAMPLE",   "p1" },
        { "unix",        "anna", "x.example",   "p1" },
        { "192.0.2.1",   "anna", "x.example",   "p2" },
        { "10.0.0.1",    "Anna", "x.example",   "p2" },
        { "10.0.0.1",    "bb",   "x.example",   "p2" },
        { "10.0.0.1",    "anna", "x.example.y", "p2" },
        { "10.0.0.1",    "anna", NULL,          "p2" }, /* AUTH */
        { NULL,          "anna", "x.example",   "p2" }, /* an address that nobody knows is in no network */
        { "10.0.0.1",    "",     "x.example",   "p2" },
        { "10.0.0.1",    NULL,   "x.example",   "own"},
        { "10.0.0.1",    NULL,   "",            "p3" },
        { "10.1.0.1",    NULL,   "",            "p3" }, /* the first */
        { "10.1.0.1",    NULL,   "[192.0.2.9]", "p3" },
        { "10.1.0.1",    NULL,   "192.0.2.9",   "p4" },
        { "10.1.0.1",    NULL,   NULL,          "p4" },
        { "10.2.3.4",    NULL,   "y",           "p5" },
        { "10.2.3.4",    NULL,   NULL,          "own"}, /* "*" fits every sender, but there is none */
        { "10.2.3.5",    NULL,   "y",           "own"},
        { NULL,          NULL,   NULL,          "own"},
    };
    struct config *config = parse_good(routes_file);

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct peer client = cases[i].client ? peer(cases[i].client) : (struct peer){ 0 };
        struct route_question question = { .client = cases[i].client ? &client : NULL,
                                           .user = span(cases[i].user),
                                           .domain = span(cases[i].domain) };
        const char *pool = config->pools[route_choose(&config->listeners[0], &question)].name;

        if (strcmp(pool, cases[i].pool) != 0)
            fail_msg("case %zu: %s, not %s", i, pool, cases[i].pool);
    }
    config_release(&config);
}

static void test_without_routes(void **state)
{
    struct config *config = parse_good(LISTENER POOL);
    struct peer client = peer("10.0.0.1");

    (void)state;
    assert_int_equal(route_choose(&config->listeners[0], &(struct route_question){ .client = &client }), 0);
    assert_int_equal(config->listeners[0].n_routes, 0);
    config_release(&config);
}

/* --- the offer --- */

#define BASE   (SMTP_CAP_PIPELINING | SMTP_CAP_SIZE)
#define AUTH_1 (SMTP_CAP_AUTH | SMTP_CAP_AUTH_PLAIN | SMTP_CAP_AUTH_LOGIN)
#define AUTH_2 (SMTP_CAP_AUTH | SMTP_CAP_AUTH_PLAIN | SMTP_CAP_AUTH_CRAM_MD5)
#define DSN    SMTP_CAP_DSN
#define UTF8   SMTP_CAP_SMTPUTF8
#define MIME   SMTP_CAP_8BITMIME

static struct network ten = { .family = AF_INET, .prefix = 8, .ip = { 10 } };
static char news_name[] = "news", bulk_name[] = "bulk.example";
static char *news[] = { news_name }, *bulk[] = { bulk_name };

/* Four pools that lack different things. */
static struct farm *offering(struct fixture *f)
{
    static const struct {
        uint32_t flags;
        uint64_t size;
    } offers[] = {
        {BASE | DSN | UTF8 | MIME | AUTH_1, 0   },
        { BASE | UTF8 | MIME | AUTH_2,      2000},
        { BASE | DSN | MIME,                1000},
        { BASE | DSN | UTF8 | AUTH_1,       3000},
    };
    struct farm *farm;

    fixture_start(f);
    for (size_t i = 0; i < LENGTH(offers); i++) {
        char name[] = { (char)('a' + i), '\0' };

        fixture_backend(f, fixture_pool(f, name, CONFIG_LEAST_CONNECTIONS, 0), name, 1, 0, 0);
    }
    farm = fixture_farm(f, NULL);
    for (size_t i = 0; i < LENGTH(offers); i++) {
        atomic_store(&farm->pools[i].state->offered, offers[i].flags);
        atomic_store(&farm->pools[i].state->offered_size, offers[i].size);
    }
    return farm;
}

static void assert_offer(const struct farm *farm, struct config_route *routes, size_t n, const char *client,
                         bool anybody, uint32_t flags, uint64_t size)
{
    struct config_listener listener = { .n_routes = n, .routes = routes };
    struct peer who = client ? peer(client) : (struct peer){ 0 };
    struct smtp_capabilities offer = route_offer(farm, &listener, client ? &who : NULL, anybody);

    assert_int_equal(offer.flags, flags);
    assert_int_equal(offer.size_limit, size);
}

static void test_offer(void **state)
{
    struct fixture f;
    struct farm *farm = offering(&f);
    struct config_route by_client = { .n_clients = 1, .clients = &ten, .pool = 1 };
    struct config_route by_user = { .n_users = 1, .users = news, .pool = 1 };
    struct config_route by_sender = { .n_sender_domains = 1, .sender_domains = bulk, .pool = 2 };
    struct config_route all = { .pool = 3 };

    (void)state;
    assert_offer(farm, NULL, 0, "10.0.0.1", false, BASE | DSN | UTF8 | MIME | AUTH_1, 0);
    /* Its client is taken there, others never are. */
    assert_offer(farm, &by_client, 1, "10.0.0.1", false, BASE | UTF8 | MIME | AUTH_2, 2000);
    assert_offer(farm, &by_client, 1, "192.0.2.1", false, BASE | DSN | UTF8 | MIME | AUTH_1, 0);
    assert_offer(farm, &by_client, 1, NULL, false, BASE | DSN | UTF8 | MIME | AUTH_1, 0);
    /* Who may be anybody may come to both. */
    assert_offer(farm, &by_client, 1, "10.0.0.1", true,
                 BASE | UTF8 | MIME | SMTP_CAP_AUTH | SMTP_CAP_AUTH_PLAIN, 2000);
    assert_offer(farm, &by_client, 1, NULL, true, BASE | UTF8 | MIME | SMTP_CAP_AUTH | SMTP_CAP_AUTH_PLAIN,
                 2000);
    assert_offer(farm, &by_user, 1, "10.0.0.1", false,
                 BASE | UTF8 | MIME | SMTP_CAP_AUTH | SMTP_CAP_AUTH_PLAIN, 2000);
    /* AUTH never goes where a sender's domain leads. */
    assert_offer(farm, &by_sender, 1, "10.0.0.1", false, BASE | DSN | MIME | AUTH_1, 1000);
    assert_offer(farm, &all, 1, "10.0.0.1", false, BASE | DSN | UTF8 | AUTH_1, 3000);
    assert_offer(farm, &all, 1, NULL, true, BASE | DSN | UTF8 | AUTH_1, 3000);
    farm_release(&farm);
}

/* What stands behind a route that takes this client has no say. */
static void test_offer_of_several(void **state)
{
    struct fixture f;
    struct farm *farm = offering(&f);
    struct config_route routes[] = {
        {.n_sender_domains = 1, .sender_domains = bulk, .n_clients = 1, .clients = &ten, .pool = 2 },
        { .n_clients = 1,            .clients = &ten,                                 .pool = 3                                },
        { .n_users = 1,            .users = news, .pool = 1},
    };

    (void)state;
    assert_offer(farm, routes, 3, "10.0.0.1", false, BASE | DSN | AUTH_1, 1000);
    assert_offer(farm, routes, 3, "192.0.2.1", false,
                 BASE | UTF8 | MIME | SMTP_CAP_AUTH | SMTP_CAP_AUTH_PLAIN, 2000);
    assert_offer(farm, routes, 3, "192.0.2.1", true, BASE | SMTP_CAP_AUTH | SMTP_CAP_AUTH_PLAIN, 1000);
    farm_release(&farm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_globs),
        cmocka_unit_test(test_globs_by_definition),
        cmocka_unit_test(test_globs_end),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_without_routes),
        cmocka_unit_test(test_offer),
        cmocka_unit_test(test_offer_of_several),
    };

    return cmocka_run_group_tests_name("route", tests, NULL, NULL);
}
