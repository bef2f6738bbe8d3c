/*
 * EHLO replies: read, intersected, written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/capability.h"
#include "smtp/reply.h"
#include "smtp/xclient.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define ALL           (SMTP_CAP_PIPELINING | SMTP_CAP_CARRIED)
#define BASIC         (ALL & ~(SMTP_CAP_AUTH | SMTP_CAP_AUTH_MECHANISMS))
#define AUTH(m)       (SMTP_CAP_AUTH | (m))
#define PLAIN         SMTP_CAP_AUTH_PLAIN
#define LOGIN         SMTP_CAP_AUTH_LOGIN
#define STARTTLS      SMTP_CAP_STARTTLS
#define SET(f, s)                                                                                            \
    {                                                                                                        \
        .flags = (f), .size_limit = (s)                                                                      \
    }

#define POSTFIX_EHLO                                                                                         \
    "250-name\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n"            \
    "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250-BINARYMIME\r\n250 "           \
    "CHUNKING\r\n"

static void test_parse(void **state)
{
    /* clang-format off */
    static const struct {
        const char *in;
        uint32_t flags;
        uint64_t size_limit;
    } cases[] = {
        { "", 0, 0 },
        { "250 relay.test\r\n", 0, 0 },
        { "250 dsn\r\n", 0, 0 }, /* a host's name, not a keyword */
        { "250-CHUNKING\r\n250 DSN\r\n", SMTP_CAP_DSN, 0 },
        { "250-relay.test hello DSN\r\n250 8BITMIME\r\n", SMTP_CAP_8BITMIME, 0 },
        { "250-name\r\n250-SIZE 1000\r\n250 DSN\r\n", SMTP_CAP_SIZE | SMTP_CAP_DSN, 1000 },
        { "250-name\r\n250-size 1000\r\n250 dsn\r\n", SMTP_CAP_SIZE | SMTP_CAP_DSN, 1000 },
        { "250-name\r\n250-SIZE\r\n250 HELP\r\n", SMTP_CAP_SIZE, 0 },
        { "250-name\r\n250 SIZE 0\r\n", SMTP_CAP_SIZE, 0 },
        { "250-name\r\n250 SIZE  5 \r\n", SMTP_CAP_SIZE, 5 },
        { "250-name\r\n250 SIZE\t5 6\r\n", SMTP_CAP_SIZE, 5 },
        { "250-name\r\n250 SIZE 5x\r\n", SMTP_CAP_SIZE, 0 },
        { "250-name\r\n250 SIZE -5\r\n", SMTP_CAP_SIZE, 0 },
        { "250-name\r\n250 SIZE 18446744073709551615\r\n", SMTP_CAP_SIZE, UINT64_MAX },
        { "250-name\r\n250 SIZE 18446744073709551616\r\n", SMTP_CAP_SIZE, 0 },
        { "250-name\r\n250 SIZE 99999999999999999999\r\n", SMTP_CAP_SIZE, 0 },
        { "250-name\r\n250 SIZE=5\r\n", 0, 0 },
        { "250-name\r\n250-SIZE 9\r\n250 SIZE 7\r\n", SMTP_CAP_SIZE, 7 },
        { "250-name\r\n250 BINARYMIME\r\n", 0, 0 },
        { "250-name\r\n250-BINARYMIME\r\n250 CHUNKING\r\n", SMTP_CAP_BINARYMIME | SMTP_CAP_CHUNKING, 0 },
        { "250-name\r\n250-X\r\n250\r\n", 0, 0 },
        { "250-name\r\n250 SIZE=\r\n", 0, 0 },
        { "250-name\r\n250 STARTTLS\r\n", STARTTLS, 0 },
        { "250-name\r\n250-starttls x\r\n250 STARTTLS=1\r\n", STARTTLS, 0 },
        { "250-starttls\r\n250 STARTTLSX\r\n", 0, 0 },
        { "250-name\r\n250 AUTH PLAIN LOGIN\r\n", AUTH(PLAIN | LOGIN), 0 },
        { "250-name\r\n250 auth plain\tLogin \r\n", AUTH(PLAIN | LOGIN), 0 },
        { "250-name\r\n250 AUTH=PLAIN  LOGIN\r\n", AUTH(PLAIN | LOGIN), 0 },
        { "250-name\r\n250 AUTH= PLAIN\r\n", AUTH(PLAIN), 0 },
        { "250-name\r\n250-AUTH LOGIN\r\n250-DSN\r\n250 AUTH=PLAIN\r\n", AUTH(PLAIN | LOGIN) | SMTP_CAP_DSN,
          0 },
        { "250-name\r\n250-AUTH\r\n250 AUTH PLAIN\r\n", AUTH(PLAIN), 0 },
        { "250-name\r\n250 AUTH\r\n", 0, 0 },
        { "250-name\r\n250 AUTH=\r\n", 0, 0 },
        { "250-name\r\n250 AUTH \r\n", 0, 0 },
        { "250-name\r\n250-AUTHPLAIN\r\n250-AUT PLAIN\r\n250 AUTHS=PLAIN\r\n", 0, 0 },
        { "250-name\r\n250 AUTH==PLAIN\r\n", 0, 0 },
        { "250-AUTH PLAIN\r\n250 HELP\r\n", 0, 0 },
        { "250-name\r\n250 PLAIN\r\n", 0, 0 },
        { "250-name\r\n250 AUTH EXTERNAL GSSAPI NTLM ANONYMOUS GS2-KRB5\r\n", 0, 0 },
        { "250-name\r\n250 AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-512-PLUS\r\n", 0, 0 },
        { "250-name\r\n250 AUTH SCRAM-SHA-25 PLAINX XPLAIN PLAI ,PLAIN PLAIN,LOGIN\r\n", 0, 0 },
        { "250-name\r\n250 AUTH EXTERNAL PLAIN GSSAPI\r\n", AUTH(PLAIN), 0 },
        { "250-name\r\n250-DSNX\r\n250-DS\r\n250-X DSN\r\n250- DSN\r\n250 \r\n", 0, 0 },
        { "250-name\r\n250 DSN", SMTP_CAP_DSN, 0 },
        { "250-name\r\n\r\n250 DSN\r\n", SMTP_CAP_DSN, 0 },
        { POSTFIX_EHLO, BASIC | STARTTLS, 10240000 },
    };
    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_capabilities c = { .flags = ~0u, .size_limit = 42 };

        smtp_capabilities_parse(&c, cases[i].in, strlen(cases[i].in));
        assert_int_equal(c.flags, cases[i].flags);
        assert_int_equal(c.size_limit, cases[i].size_limit);
    }
}

static void test_intersect(void **state)
{
    static const struct {
        struct smtp_capabilities into, other, expected;
    } cases[] = {
        {SET(ALL,                                 5),          SET(ALL,                                  5), SET(ALL,               5)},
        { SET(ALL,                                5),          SET(ALL,                                  0), SET(ALL,               5)},
        { SET(ALL,                                0),          SET(ALL,                                  5), SET(ALL,               5)},
        { SET(ALL,                                0),          SET(ALL,                                  0), SET(ALL,               0)},
        { SET(ALL,                                7),          SET(ALL,                                  5), SET(ALL,               5)},
        { SET(ALL,                                5),          SET(ALL,                                  7), SET(ALL,               5)},
        { SET(ALL,                                UINT64_MAX), SET(ALL,                                  7), SET(ALL,               7)},
        { SET(ALL,                                0),          SET(0,                                    0), SET(0,                 0)},
        { SET(SMTP_CAP_PIPELINING | SMTP_CAP_DSN, 0),          SET(SMTP_CAP_DSN | SMTP_CAP_SIZE,         9),
         SET(SMTP_CAP_DSN,                                                                                                          9)},
        { SET(ALL,                                0),          SET(SMTP_CAP_BINARYMIME,                  0), SET(0,                 0)},
        { SET(ALL,                                0),          SET(SMTP_CAP_CHUNKING,                    0), SET(SMTP_CAP_CHUNKING, 0)},
        { SET(AUTH(PLAIN | LOGIN),                0),          SET(AUTH(LOGIN | SMTP_CAP_AUTH_CRAM_MD5), 0), SET(AUTH(LOGIN),       0)},
        { SET(AUTH(PLAIN),                        0),          SET(AUTH(LOGIN),                          0), SET(0,                 0)},
        { SET(AUTH(PLAIN),                        0),          SET(0,                                    0), SET(0,                 0)},
        { SET(AUTH(PLAIN) | STARTTLS,             0),          SET(PLAIN | STARTTLS,                     0), SET(STARTTLS,          0)},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_capabilities into = cases[i].into;

        smtp_capabilities_intersect(&into, &cases[i].other);
        assert_int_equal(into.flags, cases[i].expected.flags);
        assert_int_equal(into.size_limit, cases[i].expected.size_limit);
    }
}

/* XCLIENT and XFORWARD are read and narrowed like the rest, but never offered. */
static void test_identity(void **state)
{
    static const char one[] = "250-name\r\n250-XCLIENT NAME ADDR proto\tNONE HELO\r\n250-XCLIENTS PORT\r\n"
                              "250 XFORWARD NAME  ADDR SOURCE \r\n",
                      other[] = "250-name\r\n250-xclient ADDR HELO LOGIN\r\n250 XFORWARD\r\n",
                      none[] = "250 XCLIENT ADDR\r\n";
    struct smtp_capabilities a, b, c;
    char out[SMTP_EHLO_REPLY_MAX];

    (void)state;
    smtp_capabilities_parse(&a, one, strlen(one));
    smtp_capabilities_parse(&b, other, strlen(other));
    smtp_capabilities_parse(&c, none, strlen(none)); /* a host's name */
    assert_int_equal(a.xclient,
                     SMTP_XCLIENT_NAME | SMTP_XCLIENT_ADDR | SMTP_XCLIENT_PROTO | SMTP_XCLIENT_HELO);
    assert_int_equal(a.xforward, SMTP_XCLIENT_NAME | SMTP_XCLIENT_ADDR | SMTP_XCLIENT_SOURCE);
    assert_int_equal(b.xforward, 0);
    assert_int_equal(c.xclient | c.xforward, 0);
    assert_int_equal(smtp_capabilities_format(&a, "mx.test", out), strlen("250 mx.test\r\n"));
    smtp_capabilities_intersect(&a, &b);
    assert_int_equal(a.xclient, SMTP_XCLIENT_ADDR | SMTP_XCLIENT_HELO);
    assert_int_equal(a.xforward, 0);
}

static void test_format(void **state)
{
    static const struct {
        struct smtp_capabilities offer;
        const char *reply;
    } cases[] = {
        {SET(0,                                         0),          "250 mx.test\r\n"                                  },
        { SET(0,                                        1000),       "250 mx.test\r\n"                                  },
        { SET(SMTP_CAP_SIZE,                            0),          "250-mx.test\r\n250 SIZE\r\n"                      },
        { SET(SMTP_CAP_SIZE,                            1000),       "250-mx.test\r\n250 SIZE 1000\r\n"                 },
        { SET(SMTP_CAP_BINARYMIME | SMTP_CAP_DSN,       0),          "250-mx.test\r\n250 DSN\r\n"                       },
        { SET(AUTH(PLAIN | LOGIN),                      0),          "250-mx.test\r\n250 AUTH PLAIN LOGIN\r\n"          },
        { SET(AUTH(LOGIN) | STARTTLS,                   0),          "250-mx.test\r\n250-STARTTLS\r\n250 AUTH LOGIN\r\n"},
        { SET(SMTP_CAP_AUTH,                            0),          "250 mx.test\r\n"                                  },
        { SET(PLAIN | LOGIN,                            0),          "250 mx.test\r\n"                                  },
        { SET(SMTP_CAP_AUTH | SMTP_CAP_AUTH_MECHANISMS, 0),
         "250-mx.test\r\n250 AUTH SCRAM-SHA-512 SCRAM-SHA-256 "
          "SCRAM-SHA-1 OAUTHBEARER XOAUTH2 DIGEST-MD5 CRAM-MD5 PLAIN LOGIN\r\n"                                         },
        { SET(BASIC | STARTTLS,                         UINT64_MAX),
         "250-mx.test\r\n250-PIPELINING\r\n250-SIZE 18446744073709551615\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
          "250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250 STARTTLS\r\n"                    },
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char out[SMTP_EHLO_REPLY_MAX];
        size_t size = smtp_capabilities_format(&cases[i].offer, "mx.test", out);

        assert_int_equal(size, strlen(cases[i].reply));
        assert_memory_equal(out, cases[i].reply, size);
    }
}

/* A set as it is written is a good reply and is read back. */
static void check_round_trip(uint32_t flags, const char *name)
{
    struct smtp_capabilities offer = SET(flags, flags & SMTP_CAP_SIZE ? UINT64_MAX : 0), read;
    char out[SMTP_EHLO_REPLY_MAX];
    size_t size = smtp_capabilities_format(&offer, name, out);
    struct smtp_reply reply;
    uint32_t expected = flags;

    if (!(flags & SMTP_CAP_CHUNKING))
        expected &= ~(uint32_t)SMTP_CAP_BINARYMIME;
    if (!(flags & SMTP_CAP_AUTH) || !(flags & SMTP_CAP_AUTH_MECHANISMS))
        expected &= ~(uint32_t)AUTH(SMTP_CAP_AUTH_MECHANISMS);
    assert_int_equal(smtp_capabilities_usable(flags), expected);
    assert_true(size < SMTP_EHLO_REPLY_MAX);
    assert_int_equal(smtp_reply_parse(out, size, &reply), 1);
    assert_int_equal(reply.size, size);
    assert_int_equal(reply.lines,
                     1 + (unsigned)__builtin_popcount(expected & ~(uint32_t)SMTP_CAP_AUTH_MECHANISMS));
    assert_memory_equal(out + 4 + 255, "\r\n", 2);
    smtp_capabilities_parse(&read, out, size);
    assert_int_equal(read.flags, expected);
    assert_int_equal(read.size_limit, offer.size_limit);
}

/* Every set of the keywords, and every set of mechanisms, with a name as long as may be. */
static void test_round_trip(void **state)
{
    char name[300];

    (void)state;
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0'; /* more than may be: cut at 255 */
    for (uint32_t flags = 0; flags < 1u << SMTP_CAPABILITY_BITS; flags += SMTP_CAP_AUTH) {
        check_round_trip(flags, name);
        check_round_trip(flags | BASIC, name);
    }
    for (uint32_t flags = 0; flags <= BASIC; flags++) {
        check_round_trip(flags, name);
        check_round_trip(flags | STARTTLS | AUTH(SMTP_CAP_AUTH_MECHANISMS), name);
    }
}

static void test_mechanism(void **state)
{
    static const struct {
        const char *name;
        uint32_t flag;
    } cases[] = {
        {"",                    0                          },
        { "PLAIN",              PLAIN                      },
        { "plain",              PLAIN                      },
        { "LOGIN",              LOGIN                      },
        { "CRAM-MD5",           SMTP_CAP_AUTH_CRAM_MD5     },
        { "DIGEST-MD5",         SMTP_CAP_AUTH_DIGEST_MD5   },
        { "SCRAM-SHA-1",        SMTP_CAP_AUTH_SCRAM_SHA_1  },
        { "scram-sha-256",      SMTP_CAP_AUTH_SCRAM_SHA_256},
        { "SCRAM-SHA-512",      SMTP_CAP_AUTH_SCRAM_SHA_512},
        { "XOAUTH2",            SMTP_CAP_AUTH_XOAUTH2      },
        { "OAUTHBEARER",        SMTP_CAP_AUTH_OAUTHBEARER  },
        { "SCRAM-SHA-256-PLUS", 0                          },
        { "SCRAM-SHA-25",       0                          },
        { "PLAIN ",             0                          },
        { "EXTERNAL",           0                          },
        { "GSSAPI",             0                          },
        { "NTLM",               0                          },
    };
    uint32_t all = 0;

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        assert_int_equal(smtp_auth_mechanism(cases[i].name, strlen(cases[i].name)), cases[i].flag);
        all |= cases[i].flag;
    }
    assert_int_equal(all, SMTP_CAP_AUTH_MECHANISMS); /* each of them is in the table above */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),  cmocka_unit_test(test_intersect),  cmocka_unit_test(test_identity),
        cmocka_unit_test(test_format), cmocka_unit_test(test_round_trip), cmocka_unit_test(test_mechanism),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
