/*
 * XCLIENT and XFORWARD: what a backend lists, the command for it, and what a client says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "smtp/command.h"
#include "smtp/xclient.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define TEXT(text)    text, sizeof(text) - 1 /* a string with NULs in it */

#define NAME     SMTP_XCLIENT_NAME
#define ADDR     SMTP_XCLIENT_ADDR
#define PORT     SMTP_XCLIENT_PORT
#define PROTO    SMTP_XCLIENT_PROTO
#define HELO     SMTP_XCLIENT_HELO
#define LOGIN    SMTP_XCLIENT_LOGIN
#define DESTADDR SMTP_XCLIENT_DESTADDR
#define DESTPORT SMTP_XCLIENT_DESTPORT
#define IDENT    SMTP_XCLIENT_IDENT
#define SOURCE   SMTP_XCLIENT_SOURCE
#define ALL      0x3FFu
#define UNKNOWN  "[UNAVAILABLE]"

static const struct smtp_identity four = { .address = "192.0.2.1", .port = 12345 },
                                  six = { .address = "2001:db8::1", .ipv6 = true, .port = 1 },
                                  nobody = { .address = "" };

static void test_attributes(void **state)
{
    static const struct {
        const char *list;
        uint32_t attributes;
    } cases[] = {
        {"",                                                    0                                   },
        { "   ",                                                0                                   },
        { " NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT", ALL & ~(IDENT | SOURCE)             }, /* Postfix */
        { " NAME ADDR PROTO HELO SOURCE PORT IDENT",            ALL & ~(LOGIN | DESTADDR | DESTPORT)},
        { "addr\tname ",                                        NAME | ADDR                         },
        { "ADDRESS AD DR NAMES TTL SESSION",                    0                                   },
        { "ADDR ADDR",                                          ADDR                                },
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++)
        assert_int_equal(smtp_xclient_attributes(cases[i].list, strlen(cases[i].list)), cases[i].attributes);
}

/* What is written into memory of just that room. */
static void assert_line(const char *verb, uint32_t attributes, const struct smtp_identity *identity,
                        const char *helo, size_t helo_size, bool extended, const char *expected)
{
    char *out = malloc(SMTP_XCLIENT_LINE_MAX);
    size_t size;

    assert_non_null(out);
    size = smtp_xclient_format(out, SMTP_XCLIENT_LINE_MAX, verb, attributes, identity, helo, helo_size,
                               extended);
    assert_int_equal(size, strlen(expected));
    assert_memory_equal(out, expected, size);
    free(out);
}

static void test_format(void **state)
{
    static const struct {
        const char *verb;
        uint32_t attributes;
        const struct smtp_identity *identity;
        const char *helo;
        bool extended;
        const char *expected;
    } cases[] = {
        {"XCLIENT",   ALL & ~(IDENT | SOURCE), &four,   "mail.test",   true,
         "XCLIENT HELO=mail.test PROTO=ESMTP PORT=12345 ADDR=192.0.2.1 NAME=" UNKNOWN "\r\n"                               },
        { "XFORWARD", ALL,                     &six,    "mail.test",   false,
         "XFORWARD HELO=mail.test PROTO=SMTP PORT=1 SOURCE=REMOTE ADDR=IPV6:2001:db8::1 NAME=" UNKNOWN
          "\r\n"                                                                                                           },
        { "XCLIENT",  ALL & ~(IDENT | SOURCE), &nobody, "",            true,
         "XCLIENT HELO=" UNKNOWN " PROTO=ESMTP PORT=" UNKNOWN " ADDR=" UNKNOWN " NAME=" UNKNOWN "\r\n"                     },
        { "XCLIENT",  NAME | ADDR,             &four,   "mail.test",   true,  "XCLIENT ADDR=192.0.2.1 NAME=" UNKNOWN "\r\n"},
        { "XCLIENT",  ADDR,                    &four,   "mail.test",   true,  "XCLIENT ADDR=192.0.2.1\r\n"                 },
        { "XCLIENT",  ADDR | HELO,             &four,   "[192.0.2.9]", true,  "XCLIENT HELO=[192.0.2.9] ADDR=192.0.2.1\r\n"},
        { "XCLIENT",  ALL & ~ADDR,             &four,   "mail.test",   true,  ""                                           },
        { "XCLIENT",  0,                       &four,   "mail.test",   true,  ""                                           },
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++)
        assert_line(cases[i].verb, cases[i].attributes, cases[i].identity, cases[i].helo,
                    strlen(cases[i].helo), cases[i].extended, cases[i].expected);
}

/* What a client calls itself stays one value. */
static void test_injection(void **state)
{
    static const struct {
        const char *helo;
        size_t size;
        const char *expected;
    } cases[] = {
        {TEXT("x LOGIN=root"),       "XCLIENT HELO=x+20LOGIN+3Droot ADDR=192.0.2.1\r\n"     },
        { TEXT("a+b=c"),             "XCLIENT HELO=a+2Bb+3Dc ADDR=192.0.2.1\r\n"            },
        { TEXT("a+20b"),             "XCLIENT HELO=a+2B20b ADDR=192.0.2.1\r\n"              },
        { TEXT("x\r\nMAIL FROM:<>"), "XCLIENT HELO=x+0D+0AMAIL+20FROM:<> ADDR=192.0.2.1\r\n"},
        { TEXT("x\0y\x7F\t\x1B"),    "XCLIENT HELO=x+00y+7F+09+1B ADDR=192.0.2.1\r\n"       },
        { TEXT("\xC3\xA4\xFF"),      "XCLIENT HELO=+C3+A4+FF ADDR=192.0.2.1\r\n"            },
        { TEXT("!~"),                "XCLIENT HELO=!~ ADDR=192.0.2.1\r\n"                   },
    };
    struct smtp_identity user = four;

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++)
        assert_line("XCLIENT", ADDR | HELO, &four, cases[i].helo, cases[i].size, true, cases[i].expected);
    user.login = "a b ADDR=127.0.0.1\r\n";
    assert_line("XCLIENT", ADDR | LOGIN, &user, "", 0, true,
                "XCLIENT LOGIN=a+20b+20ADDR+3D127.0.0.1+0D+0A ADDR=192.0.2.1\r\n");
    assert_line("XCLIENT", ADDR, &user, "", 0, true, "XCLIENT ADDR=192.0.2.1\r\n");
    user.login = "";
    assert_line("XCLIENT", ADDR | LOGIN, &user, "", 0, true, "XCLIENT LOGIN=" UNKNOWN " ADDR=192.0.2.1\r\n");
}

/* A name is there whole or not at all, and the line never grows beyond its bound. */
static void test_long(void **state)
{
    char helo[301], login[301];
    struct smtp_identity user = { .address = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255",
                                  .ipv6 = true,
                                  .port = 65535 };
    static const char octets[] = "a\xFF+";
    char out[SMTP_XCLIENT_LINE_MAX];
    unsigned whole = 0, none = 0;

    (void)state;
    user.login = login;
    for (size_t kind = 0; kind < 3; kind++) {
        for (size_t n = 1; n <= 300; n++) {
            struct smtp_xclient read;
            size_t size;

            memset(helo, octets[kind], n);
            memset(login, 'u', n);
            login[n] = '\0';
            size = smtp_xclient_format(out, sizeof out, "XFORWARD", ALL, &user, helo, n, true);
            assert_in_range(size, 1, SMTP_XCLIENT_LINE_MAX);
            assert_memory_equal(out + size - 2, "\r\n", 2);
            assert_true(smtp_xclient_parse(out + 9, size - 11, &read));
            assert_int_equal(read.given, ALL & ~(DESTADDR | DESTPORT | IDENT));
            assert_int_equal(read.family, AF_INET6);
            assert_int_equal(read.port, 65535);
            if (read.unavailable & HELO) {
                assert_int_equal(read.helo_size, 0);
                none++;
            } else {
                assert_int_equal(read.helo_size, n);
                whole++;
            }
            assert_int_equal(read.login_size, read.unavailable & LOGIN ? 0 : n);
        }
    }
    assert_true(whole > 400 && none > 100);
    assert_in_range(smtp_xclient_format(out, sizeof out, "XCLIENT", ADDR | HELO, &four, helo, 0, true), 1,
                    60);
    memset(helo, 'a', sizeof helo);
    assert_in_range(smtp_xclient_format(out, sizeof out, "XCLIENT", ADDR | HELO, &four, helo, 255, true), 256,
                    300);
    assert_in_range(smtp_xclient_format(out, sizeof out, "XCLIENT", ADDR | HELO, &four, helo, 256, true), 1,
                    60);
}

/* Whatever room there is, the line fits it or is not there. */
static void test_room(void **state)
{
    bool fitted = false;

    (void)state;
    for (size_t room = 0; room <= SMTP_XCLIENT_LINE_MAX; room++) {
        char *out = malloc(room ? room : 1);
        size_t size;

        assert_non_null(out);
        size = smtp_xclient_format(out, room, "XCLIENT", ALL, &six, "mail.test", 9, true);
        assert_true(size <= room);
        assert_true(size == 0 ? !fitted : memcmp(out + size - 2, "\r\n", 2) == 0);
        fitted = size > 0;
        free(out);
    }
    assert_true(fitted);
}

static bool parse(const char *text, size_t size, struct smtp_xclient *out)
{
    char *copy = malloc(size ? size : 1); /* of just that size, for the address sanitizer */
    bool good;

    assert_non_null(copy);
    memcpy(copy, text, size);
    good = smtp_xclient_parse(copy, size, out);
    free(copy);
    return good;
}

static void test_parse(void **state)
{
    static const struct {
        const char *in;
        uint32_t given, unavailable;
        const char *ip; /* NULL: none */
        uint16_t port;
        bool extended;
        const char *helo, *login;
    } cases[] = {
        {"ADDR=192.0.2.1",                                                                                   ADDR,                                 0,                                 "192.0.2.1",   0,     false, "",                   ""                },
        { "addr=192.0.2.1  name=x",                                                                          ADDR | NAME,                          0,                                 "192.0.2.1",   0,     false, "",                   ""                },
        { "ADDR=IPV6:2001:db8::1 PORT=65535",                                                                ADDR | PORT,                          0,                                 "2001:db8::1", 65535, false, "",                   ""                },
        { "ADDR=ipv6:::ffff:192.0.2.1 PORT=0",                                                               ADDR | PORT,                          0,                                 "192.0.2.1",   0,     false, "",                   ""                },
        { "NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[tempunavail] HELO=[UNAVAILABLE] LOGIN=[UNAVAILABLE]",
         NAME | ADDR | PORT | HELO | LOGIN,                                                                                                        NAME | ADDR | PORT | HELO | LOGIN, NULL,          0,     false, "",                   ""                },
        { "NAME=[TEMPUNAVAIL]",                                                                              NAME,                                 NAME,                              NULL,          0,     false, "",                   ""                },
        { "ADDR=+31+39+32.0.2.1",                                                                            ADDR,                                 0,                                 "192.0.2.1",   0,     false, "",                   ""                },
        { "PROTO=ESMTP HELO=mail.test",                                                                      PROTO | HELO,                         0,                                 NULL,          0,     true,  "mail.test",          ""                },
        { "PROTO=smtp",                                                                                      PROTO,                                0,                                 NULL,          0,     false, "",                   ""                },
        { "HELO=a+2Bb+3Dc",                                                                                  HELO,                                 0,                                 NULL,          0,     false, "a+b=c",              ""                },
        { "HELO=a=b",                                                                                        HELO,                                 0,                                 NULL,          0,     false, "a=b",                ""                }, /* Postfix leaves '=' as it is */
        { "HELO=x+0D+0AMAIL+20FROM:<>+00+7F+FF",                                                             HELO,                                 0,                                 NULL,          0,     false, "x??MAIL?FROM:<>???", ""                },
        { "LOGIN=some+20one+40example",                                                                      LOGIN,                                0,                                 NULL,          0,     false, "",                   "some one@example"},
        { "LOGIN=+C3+A4",                                                                                    LOGIN,                                0,                                 NULL,          0,     false, "",                   "\xC3\xA4"        },
        { "DESTADDR=198.51.100.2 DESTPORT=25 IDENT=abc SOURCE=LOCAL",                                        DESTADDR | DESTPORT | IDENT | SOURCE, 0,
         NULL,                                                                                                                                                                                       0,     false, "",                   ""                },
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_xclient x;
        char ip[INET6_ADDRSTRLEN] = "";

        assert_true(parse(cases[i].in, strlen(cases[i].in), &x));
        assert_int_equal(x.given, cases[i].given);
        assert_int_equal(x.unavailable, cases[i].unavailable);
        assert_int_equal(x.family != 0, cases[i].ip != NULL);
        if (cases[i].ip)
            assert_string_equal(inet_ntop(x.family, x.ip, ip, sizeof ip), cases[i].ip);
        assert_int_equal(x.port, cases[i].port);
        assert_int_equal(x.extended, cases[i].extended);
        assert_string_equal(x.helo, cases[i].helo);
        assert_int_equal(x.helo_size, strlen(cases[i].helo));
        assert_string_equal(x.login, cases[i].login);
        assert_int_equal(x.login_size, strlen(cases[i].login));
        assert_int_equal(x.destination_family, x.given & DESTADDR ? AF_INET : 0);
        assert_int_equal(x.destination_port, x.given & DESTPORT ? 25 : 0);
    }
}

static void test_parse_refused(void **state)
{
    static const struct {
        const char *in;
        size_t size;
    } cases[] = {
        { TEXT("") },
        { TEXT("  ") },
        { TEXT("ADDR") },
        { TEXT("=192.0.2.1") },
        { TEXT("ADDR=") },
        { TEXT("NAME=") },
        { TEXT("HELO= ADDR=192.0.2.1") },
        { TEXT("COLOUR=red") },
        { TEXT("ADDR=192.0.2.1 x") },
        { TEXT("ADDR=192.0.2.1 ADDR=192.0.2.2") },
        { TEXT("ADDR=192.0.2.1 addr=[UNAVAILABLE]") },
        { TEXT("ADDR=192.0.2.1\tNAME=x") },
        { TEXT("ADDR=192.0.2.01") },
        { TEXT("ADDR=192.0.2") },
        { TEXT("ADDR=192.0.2.1+00") },
        { TEXT("ADDR=192.0.2.1+20") },
        { TEXT("ADDR=[192.0.2.1]") },
        { TEXT("ADDR=2001:db8::1") },
        { TEXT("ADDR=IPV6:192.0.2.1") },
        { TEXT("ADDR=IPV6:fe80::1%lo") },
        { TEXT("ADDR=UNKNOWN") },
        { TEXT("PORT=65536") },
        { TEXT("PORT=99999999999") },
        { TEXT("PORT=025") },
        { TEXT("PORT=-1") },
        { TEXT("PORT=+31x") },
        { TEXT("PROTO=LMTP") },
        { TEXT("SOURCE=ELSEWHERE") },
        { TEXT("DESTPORT=x") },
        { TEXT("HELO=a+b=c") },
        { TEXT("HELO=a+") },
        { TEXT("HELO=a+4") },
        { TEXT("HELO=a+4 NAME=x") },
        { TEXT("HELO=a+4g") },
        { TEXT("HELO=a+4f") }, /* RFC 3461 §4: upper case */
        { TEXT("HELO=a\0b") },
        { TEXT("HELO=\xC3\xA4") },
        { TEXT("HELO=a\rb") },
        { TEXT("LOGIN=a+0D+0Ab") },
        { TEXT("LOGIN=a+00") },
        { TEXT("LOGIN=a+7F") },
        { TEXT("NAME=a+0Ab") },
        { TEXT("IDENT=a+09b") },
    };
    char in[600] = "HELO=";
    struct smtp_xclient x;

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++)
        assert_false(parse(cases[i].in, cases[i].size, &x));
    memset(in + 5, 'a', 256);
    assert_true(parse(in, 5 + 255, &x));
    assert_int_equal(x.helo_size, 255);
    assert_false(parse(in, 5 + 256, &x));
}

/* A HELO of any octets comes back fit to be said in an EHLO. */
static void test_round_trip(void **state)
{
    char out[SMTP_XCLIENT_LINE_MAX];

    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        char helo[] = { (char)first, 'x', '\0' };
        struct smtp_identity user = { .address = "192.0.2.1",
                                      .login = first >= ' ' && first != 0x7F ? helo : NULL };
        struct smtp_xclient x;
        size_t size;

        size = smtp_xclient_format(out, sizeof out, "XCLIENT", ALL & ~NAME, &user, helo, 2, true);
        assert_true(size > 0);
        assert_int_equal(smtp_command_parse(out, size - 2).verb, SMTP_VERB_XCLIENT);
        assert_true(smtp_xclient_parse(out + 8, size - 10, &x));
        assert_int_equal(x.helo_size, 2);
        assert_int_equal((uint8_t)x.helo[0], first >= '!' && first <= '~' ? first : '?');
        assert_true(smtp_helo_valid((struct smtp_span){ x.helo, x.helo_size }));
        assert_int_equal(x.given & LOGIN, user.login ? LOGIN : 0);
        assert_string_equal(x.login, user.login ? user.login : "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attributes),    cmocka_unit_test(test_format),
        cmocka_unit_test(test_injection),     cmocka_unit_test(test_long),
        cmocka_unit_test(test_room),          cmocka_unit_test(test_parse),
        cmocka_unit_test(test_parse_refused), cmocka_unit_test(test_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
