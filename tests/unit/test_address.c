#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "net/address.h"

#define LABEL_63 "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff012"
#define NAME_253                                                                                             \
    LABEL_63 "." LABEL_63 "." LABEL_63 "."                                                                   \
             "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff0"
#define PATH_107                                                                                             \
    "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
    "aaa"                                                                                                    \
    "aa"

static void test_literals(void **state)
{
    static const struct {
        const char *text;
        int family;
        uint16_t port;
    } table[] = {
        {"192.0.2.1:25",           AF_INET,  25   },
        { "0.0.0.0:1",             AF_INET,  1    },
        { "255.255.255.255:65535", AF_INET,  65535},
        { "[2001:db8::1]:25",      AF_INET6, 25   },
        { "[::]:2525",             AF_INET6, 2525 },
        { "[::ffff:192.0.2.1]:25", AF_INET6, 25   },
        { "unix:/run/weir.sock",   AF_UNIX,  0    },
        { "unix:/a:b",             AF_UNIX,  0    },
        { "unix:" PATH_107,        AF_UNIX,  0    },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        for (int names = 0; names < 2; names++) {
            struct address a;
            const char *error = NULL;
            char text[ADDRESS_TEXT_MAX];
            uint16_t port = 7;

            assert_int_equal(address_parse(table[i].text, names, &a, &port, &error), ADDRESS_LITERAL);
            assert_int_equal(a.sa.sa_family, table[i].family);
            assert_int_equal(port, table[i].port);
            assert_string_equal(address_format(&a, text), table[i].text);
            assert_true(address_equal(&a, &a));
        }
    }
}

static void test_literal_fields(void **state)
{
    struct address a;
    const char *error;
    uint16_t port;

    (void)state;
    assert_int_equal(address_parse("10.1.2.3:2525", false, &a, &port, &error), ADDRESS_LITERAL);
    assert_int_equal(a.length, sizeof(struct sockaddr_in));
    assert_int_equal(ntohs(a.in.sin_port), 2525);
    assert_int_equal(ntohl(a.in.sin_addr.s_addr), 0x0a010203);
    assert_int_equal(address_parse("[::1]:26", false, &a, &port, &error), ADDRESS_LITERAL);
    assert_int_equal(a.length, sizeof(struct sockaddr_in6));
    assert_int_equal(ntohs(a.in6.sin6_port), 26);
    assert_true(IN6_IS_ADDR_LOOPBACK(&a.in6.sin6_addr));
    assert_int_equal(address_parse("unix:/x", false, &a, &port, &error), ADDRESS_LITERAL);
    assert_int_equal(a.length, offsetof(struct sockaddr_un, sun_path) + 3);
    assert_string_equal(a.un.sun_path, "/x");
}

static void test_names(void **state)
{
    static const char *const good[] = {
        "relay:25",      "relay.example.net:25", "relay.example.net.:25",
        "relay_1:25",    "3com.example:25",      "1.a:25",
        "x:25",          LABEL_63 ":25",         NAME_253 ":25",
        NAME_253 ".:25",
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct address a;
        const char *error = NULL;
        char text[ADDRESS_TEXT_MAX];
        uint16_t port = 0;

        assert_int_equal(address_parse(good[i], true, &a, &port, &error), ADDRESS_NAME);
        assert_int_equal(a.length, 0);
        assert_int_equal(port, 25);
        assert_string_equal(address_format(&a, text), "unresolved");
        assert_int_equal(address_parse(good[i], false, &a, &port, &error), ADDRESS_BAD);
        assert_non_null(error);
    }
}

static void test_bad(void **state)
{
    static const struct {
        const char *text;
        const char *hint; /* part of the message */
    } bad[] = {
        {"",                       "port"    },
        { ":25",                   "address" },
        { ":",                     "port"    },
        { "192.0.2.1",             "port"    },
        { "192.0.2.1:",            "65535"   },
        { "192.0.2.1:0",           "65535"   },
        { "192.0.2.1:65536",       "65535"   },
        { "192.0.2.1:99999999999", "65535"   },
        { "192.0.2.1:025",         "65535"   },
        { "192.0.2.1:25 ",         "65535"   },
        { "192.0.2.1:+25",         "65535"   },
        { "192.0.2.1:smtp",        "65535"   },
        { "192.0.2.300:25",        "address" },
        { "192.0.2:25",            "address" },
        { "3221225985:25",         "address" },
        { "relay.1:25",            "address" },
        { " 192.0.2.1:25",         "address" },
        { "2001:db8::1:25",        "brackets"},
        { "::1",                   "brackets"},
        { "[2001:db8::1]",         "port"    },
        { "[2001:db8::1]25",       "port"    },
        { "[2001:db8::1:25",       "port"    },
        { "[]:25",                 "IPv6"    },
        { "[:25",                  "port"    },
        { "[192.0.2.1]:25",        "IPv6"    },
        { "[relay]:25",            "IPv6"    },
        { "[::1]:",                "65535"   },
        { "unix:",                 "absolute"},
        { "unix:weir.sock",        "absolute"},
        { "unix:" PATH_107 "a",    "107"     },
        { "-relay:25",             "name"    },
        { "relay-:25",             "name"    },
        { "relay-.net:25",         "name"    },
        { "relay..net:25",         "name"    },
        { ".relay:25",             "name"    },
        { ".:25",                  "name"    },
        { "re lay:25",             "name"    },
        { "rel\xc3\xa4y:25",       "name"    },
        { LABEL_63 "x:25",         "name"    },
        { NAME_253 "x:25",         "name"    },
        { NAME_253 "xxxxxxxxx:25", "253"     },
        { "*:25",                  "address" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct address a;
        const char *error = NULL;
        uint16_t port;

        if (address_parse(bad[i].text, true, &a, &port, &error) != ADDRESS_BAD)
            fail_msg("\"%s\" was taken", bad[i].text);
        assert_non_null(error);
        if (!strstr(error, bad[i].hint))
            fail_msg("\"%s\": %s", bad[i].text, error);
    }
}

static struct address parsed(const char *text)
{
    struct address a;
    const char *error;
    uint16_t port;

    assert_int_equal(address_parse(text, false, &a, &port, &error), ADDRESS_LITERAL);
    return a;
}

static void test_equal(void **state)
{
    static const char *const all[] = { "192.0.2.1:25", "192.0.2.1:26", "192.0.2.2:25", "[::1]:25",
                                       "[::1]:26",     "[::2]:25",     "unix:/a",      "unix:/ab" };
    struct address none = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct address a = parsed(all[i]);

        for (size_t j = 0; j < sizeof all / sizeof *all; j++) {
            struct address b = parsed(all[j]);
            assert_int_equal(address_equal(&a, &b), i == j);
            if (a.sa.sa_family == AF_UNIX || b.sa.sa_family == AF_UNIX)
                continue;
            assert_int_equal(address_compare(&a, &b) < 0, i < j); /* as they stand above */
            assert_int_equal(address_compare(&a, &b) == 0, i == j);
        }
        assert_false(address_equal(&a, &none));
        assert_false(address_equal(&none, &a));
    }
    assert_true(address_equal(&none, &none));
}

static struct peer peer_of(const char *text)
{
    struct address a = parsed(text);
    struct peer peer;

    memset(&peer, 0xff, sizeof peer);
    peer_from_sockaddr(&peer, &a.sa);
    return peer;
}

static void test_peer(void **state)
{
    static const struct {
        const char *from, *with_port, *without;
    } table[] = {
        {"192.0.2.9:51234",           "192.0.2.9:51234",     "192.0.2.9"      },
        { "[::ffff:192.0.2.9]:51234", "192.0.2.9:51234",     "192.0.2.9"      },
        { "[2001:db8::9]:1",          "[2001:db8::9]:1",     "2001:db8::9"    },
        { "[::fffe:192.0.2.9]:1",     "[::fffe:c000:209]:1", "::fffe:c000:209"},
        { "unix:/run/x",              "unix",                "unix"           },
    };
    struct peer peer;
    struct sockaddr other = { .sa_family = AF_APPLETALK };
    char text[ADDRESS_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        peer = peer_of(table[i].from);
        assert_string_equal(peer_format(&peer, true, text), table[i].with_port);
        assert_string_equal(peer_format(&peer, false, text), table[i].without);
    }
    peer_from_sockaddr(&peer, &other);
    assert_string_equal(peer_format(&peer, true, text), "unknown");
}

static bool same_client(const char *a, const char *b)
{
    struct peer p = peer_of(a), q = peer_of(b);
    uint8_t key_p[17], key_q[17];

    memset(key_p, 1, sizeof key_p);
    memset(key_q, 2, sizeof key_q);
    peer_client_key(&p, key_p);
    peer_client_key(&q, key_q);
    return memcmp(key_p, key_q, sizeof key_p) == 0;
}

static void test_client_text(void **state)
{
    static const char *const texts[][2] = {
        {"192.0.2.9:1",                                  "192.0.2.9"               },
        { "[::ffff:192.0.2.9]:1",                        "192.0.2.9"               },
        { "[2001:db8:1:2:ffff:ffff:ffff:ffff]:1",        "2001:db8:1:2::/64"       },
        { "[::1]:1",                                     "::/64"                   },
        { "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff1]:1", "ffff:ffff:ffff:ffff::/64"},
        { "unix:/run/x",                                 "unix"                    },
    };
    char text[ADDRESS_TEXT_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct peer peer = peer_of(texts[i][0]);

        assert_string_equal(peer_format_client(&peer, text), texts[i][1]);
    }
}

static void test_client_key(void **state)
{
    (void)state;
    assert_true(same_client("192.0.2.9:1", "192.0.2.9:2"));
    assert_true(same_client("192.0.2.9:1", "[::ffff:192.0.2.9]:2"));
    assert_false(same_client("192.0.2.9:1", "192.0.2.8:1"));
    assert_true(same_client("[2001:db8:0:1::1]:1", "[2001:db8:0:1:ffff::2]:2"));
    assert_false(same_client("[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1"));
    assert_false(same_client("[c000:209::]:1", "192.0.2.9:1"));
    assert_true(same_client("unix:/a", "unix:/b"));
    assert_false(same_client("unix:/a", "0.0.0.0:1"));
}

static struct network network(const char *text)
{
    struct network n;
    const char *error = NULL;

    if (!network_parse(text, &n, &error))
        fail_msg("\"%s\": %s", text, error);
    return n;
}

static void test_contains(void **state)
{
    static const struct {
        const char *network, *peer;
        bool contains;
    } table[] = {
        {"10.0.0.0/8",           "10.255.0.1:1",        true },
        { "10.0.0.0/8",          "11.0.0.1:1",          false},
        { "10.0.0.0/8",          "[::ffff:10.1.1.1]:1", true },
        { "::ffff:10.0.0.0/104", "10.1.1.1:1",          true },
        { "::ffff:10.0.0.0/104", "11.1.1.1:1",          false},
        { "172.16.0.0/12",       "172.31.255.255:1",    true },
        { "172.16.0.0/12",       "172.32.0.0:1",        false},
        { "192.0.2.1",           "192.0.2.1:1",         true },
        { "192.0.2.1",           "192.0.2.0:1",         false},
        { "192.0.2.0/31",        "192.0.2.1:1",         true },
        { "192.0.2.0/31",        "192.0.2.2:1",         false},
        { "0.0.0.0/0",           "203.0.113.5:1",       true },
        { "0.0.0.0/0",           "[2001:db8::1]:1",     false},
        { "::/0",                "[2001:db8::1]:1",     true },
        { "::/0",                "192.0.2.1:1",         false},
        { "0.0.0.0/0",           "unix:/x",             false},
        { "2001:db8::/33",       "[2001:db8:7fff::]:1", true },
        { "2001:db8::/33",       "[2001:db8:8000::]:1", false},
        { "::1",                 "[::1]:1",             true },
        { "::1",                 "[::2]:1",             false},
        { "unix",                "unix:/x",             true },
        { "unix",                "127.0.0.1:1",         false},
    };
    struct peer nobody = { 0 };
    struct network any = network("0.0.0.0/0"), local = network("unix");

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct network n = network(table[i].network);
        struct peer peer = peer_of(table[i].peer);

        if (network_contains(&n, &peer) != table[i].contains)
            fail_msg("%s in %s", table[i].peer, table[i].network);
    }
    assert_false(network_contains(&any, &nobody));
    assert_false(network_contains(&local, &nobody));
}

static void test_network_bad(void **state)
{
    static const struct {
        const char *text, *hint;
    } bad[] = {
        {"",                 "network" },
        { "10.0.0.0/33",     "0 to 32" },
        { "10.0.0.0/",       "0 to 32" },
        { "10.0.0.0/-1",     "0 to 32" },
        { "10.0.0.0/08",     "0 to 32" },
        { "10.0.0.0/8/8",    "0 to 32" },
        { "10.0.0.1/8",      "bits"    },
        { "10.128.0.0/8",    "bits"    },
        { "10.0.0.0/8 ",     "0 to 32" },
        { "10.0.0/8",        "network" },
        { "2001:db8::/129",  "0 to 128"},
        { "2001:db8::1/64",  "bits"    },
        { "[2001:db8::]/32", "network" },
        { "relay",           "network" },
        { "unix:/x",         "network" },
        { "Unix",            "network" },
        { "192.0.2.1:25",    "network" },
        { "0.0.0.1/0",       "bits"    },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct network n;
        const char *error = NULL;

        if (network_parse(bad[i].text, &n, &error))
            fail_msg("\"%s\" was taken", bad[i].text);
        assert_non_null(error);
        if (!strstr(error, bad[i].hint))
            fail_msg("\"%s\": %s", bad[i].text, error);
    }
}

static void test_private(void **state)
{
    static const struct {
        const char *text;
        bool is_private;
    } table[] = {
        {"unix",                 true },
        { "127.0.0.0/8",         true },
        { "127.0.0.1",           true },
        { "126.0.0.0/7",         false},
        { "10.0.0.0/8",          true },
        { "10.0.0.0/7",          false},
        { "11.0.0.0/8",          false},
        { "172.16.0.0/12",       true },
        { "172.0.0.0/11",        false},
        { "172.31.0.0/16",       true },
        { "172.32.0.0/16",       false},
        { "192.168.0.0/16",      true },
        { "192.168.7.7",         true },
        { "192.169.0.0/16",      false},
        { "169.254.0.0/16",      true },
        { "0.0.0.0/0",           false},
        { "203.0.113.1",         false},
        { "::1",                 true },
        { "::",                  false},
        { "::/0",                false},
        { "fc00::/7",            true },
        { "fd12::/16",           true },
        { "fc00::/6",            false},
        { "fe80::/10",           true },
        { "fec0::/10",           false},
        { "2001:db8::1",         false},
        { "::ffff:10.0.0.0/104", true },
        { "::ffff:0:0/96",       false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct network n = network(table[i].text);

        if (network_is_private(&n) != table[i].is_private)
            fail_msg("%s", table[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_literals),    cmocka_unit_test(test_literal_fields),
        cmocka_unit_test(test_names),       cmocka_unit_test(test_bad),
        cmocka_unit_test(test_equal),       cmocka_unit_test(test_peer),
        cmocka_unit_test(test_client_text), cmocka_unit_test(test_client_key),
        cmocka_unit_test(test_contains),    cmocka_unit_test(test_network_bad),
        cmocka_unit_test(test_private),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
