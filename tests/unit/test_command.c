/*
 * Commands of a client: verbs, MAIL and RCPT with their parameters, BDAT, HELO.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/command.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

#define ALL    SMTP_CAP_CARRIED
#define DSN    SMTP_CAP_DSN
#define UTF8   SMTP_CAP_SMTPUTF8
#define SIZE   SMTP_CAP_SIZE
#define EIGHT  SMTP_CAP_8BITMIME
#define AUTH   SMTP_CAP_AUTH
#define BINARY (SMTP_CAP_BINARYMIME | SMTP_CAP_CHUNKING)

#define X10  "xxxxxxxxxx"
#define X100 X10 X10 X10 X10 X10 X10 X10 X10 X10 X10

static void assert_span(struct smtp_span span, const char *expected)
{
    assert_int_equal(span.size, strlen(expected));
    assert_memory_equal(span.data, expected, span.size);
}

/* A copy in memory of just that size, so that the address sanitizer sees a look beyond it. */
static struct smtp_span copy_span(const char *text)
{
    size_t size = strlen(text);
    char *data = malloc(size ? size : 1);

    memcpy(data, text, size);
    return (struct smtp_span){ data, size };
}

static void free_span(struct smtp_span span)
{
    free((char *)(uintptr_t)span.data);
}

static void test_split(void **state)
{
    static const struct {
        const char *line;
        enum smtp_verb verb;
        const char *argument;
    } cases[] = {
        {"",                        SMTP_VERB_UNKNOWN,  ""                 },
        { " ",                      SMTP_VERB_UNKNOWN,  ""                 },
        { "QUIT",                   SMTP_VERB_QUIT,     ""                 },
        { "quit",                   SMTP_VERB_QUIT,     ""                 },
        { "QuIt  ",                 SMTP_VERB_QUIT,     ""                 },
        { " QUIT",                  SMTP_VERB_UNKNOWN,  "QUIT"             },
        { "QUITE",                  SMTP_VERB_UNKNOWN,  ""                 },
        { "QUI",                    SMTP_VERB_UNKNOWN,  ""                 },
        { "HELO a",                 SMTP_VERB_HELO,     "a"                },
        { "EHLO \t a b \t",         SMTP_VERB_EHLO,     "a b"              },
        { "MAIL FROM:<a@b> SIZE=1", SMTP_VERB_MAIL,     "FROM:<a@b> SIZE=1"},
        { "MAIL\tFROM:<>",          SMTP_VERB_MAIL,     "FROM:<>"          },
        { "rcpt to:<a@b>",          SMTP_VERB_RCPT,     "to:<a@b>"         },
        { "DATA",                   SMTP_VERB_DATA,     ""                 },
        { "BDAT 5 LAST",            SMTP_VERB_BDAT,     "5 LAST"           },
        { "RSET",                   SMTP_VERB_RSET,     ""                 },
        { "NOOP x",                 SMTP_VERB_NOOP,     "x"                },
        { "VRFY x",                 SMTP_VERB_VRFY,     "x"                },
        { "EXPN x",                 SMTP_VERB_EXPN,     "x"                },
        { "HELP x",                 SMTP_VERB_HELP,     "x"                },
        { "STARTTLS",               SMTP_VERB_STARTTLS, ""                 },
        { "AUTH PLAIN",             SMTP_VERB_AUTH,     "PLAIN"            },
        { "ETRN x",                 SMTP_VERB_ETRN,     "x"                },
        { "XCLIENT ADDR=1",         SMTP_VERB_XCLIENT,  "ADDR=1"           },
        { "XFORWARD ADDR=1",        SMTP_VERB_XFORWARD, "ADDR=1"           },
        { "GET / HTTP/1.1",         SMTP_VERB_HTTP,     "/ HTTP/1.1"       },
        { "POST / HTTP/1.1",        SMTP_VERB_HTTP,     "/ HTTP/1.1"       },
        { "PUT / HTTP/1.1",         SMTP_VERB_HTTP,     "/ HTTP/1.1"       },
        { "HEAD / HTTP/1.1",        SMTP_VERB_HTTP,     "/ HTTP/1.1"       },
        { "OPTIONS * HTTP/1.1",     SMTP_VERB_HTTP,     "* HTTP/1.1"       },
        { "CONNECT a:25 HTTP/1.1",  SMTP_VERB_HTTP,     "a:25 HTTP/1.1"    },
        { "PRI * HTTP/2.0",         SMTP_VERB_HTTP,     "* HTTP/2.0"       },
        { "Host: a",                SMTP_VERB_HTTP,     "a"                },
        { "PROXY TCP4 a b 1 2",     SMTP_VERB_HTTP,     "TCP4 a b 1 2"     },
        { "proxy",                  SMTP_VERB_HTTP,     ""                 },
        { "PROXY:",                 SMTP_VERB_UNKNOWN,  ""                 },
        { "host:a b",               SMTP_VERB_HTTP,     "b"                },
        { "Host",                   SMTP_VERB_UNKNOWN,  ""                 },
        { "HTTP",                   SMTP_VERB_UNKNOWN,  ""                 }, /* a name for logs, no command */
        { "UNKNOWN",                SMTP_VERB_UNKNOWN,  ""                 }, /* likewise */
        { "QUIT\r",                 SMTP_VERB_UNKNOWN,  ""                 },
        { "\xFF\xFE x",             SMTP_VERB_UNKNOWN,  "x"                },
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_span line = copy_span(cases[i].line);
        struct smtp_command c = smtp_command_parse(line.data, line.size);

        assert_int_equal(c.verb, cases[i].verb);
        assert_span(c.argument, cases[i].argument);
        assert_true(c.argument.data >= line.data &&
                    c.argument.data + c.argument.size <= line.data + line.size);
        free_span(line);
    }
    assert_int_equal(smtp_command_parse("QUIT\0", 5).verb, SMTP_VERB_UNKNOWN);
    assert_int_equal(smtp_command_parse("\0", 1).verb, SMTP_VERB_HTTP); /* in a PROXY header, version 2 */
    assert_int_equal(smtp_command_parse("\0\0", 2).verb, SMTP_VERB_UNKNOWN);
}

static void test_verb_names(void **state)
{
    (void)state;
    assert_string_equal(smtp_verb_name(SMTP_VERB_MAIL), "MAIL");
    assert_string_equal(smtp_verb_name(SMTP_VERB_STARTTLS), "STARTTLS");
    assert_string_equal(smtp_verb_name(SMTP_VERB_UNKNOWN), "UNKNOWN");
    assert_string_equal(smtp_verb_name(SMTP_VERB_HTTP), "HTTP");
    assert_string_equal(smtp_verb_name(SMTP_VERB_COUNT), "UNKNOWN");
    for (int verb = SMTP_VERB_UNKNOWN + 1; verb < SMTP_VERB_HTTP; verb++) {
        const char *name = smtp_verb_name((enum smtp_verb)verb);

        assert_int_equal(smtp_command_parse(name, strlen(name)).verb, verb);
    }
}

static void test_mail_accepted(void **state)
{
    /* clang-format off */
    static const struct {
        const char *argument;
        uint32_t offered;
        const char *path, *parameters;
        uint32_t uses;
        uint64_t size;
        enum smtp_body body;
    } cases[] = {
        { "FROM:<a@b>", 0, "<a@b>", "", 0, 0, SMTP_BODY_7BIT },
        { "from:<a@b>", 0, "<a@b>", "", 0, 0, SMTP_BODY_7BIT },
        { "FROM:   <a@b>", 0, "<a@b>", "", 0, 0, SMTP_BODY_7BIT },
        { "FROM:<>", 0, "<>", "", 0, 0, SMTP_BODY_7BIT },
        { "FROM:<root>", 0, "<root>", "", 0, 0, SMTP_BODY_7BIT },
        { "FROM:<@a,@b:c@d>", 0, "<@a,@b:c@d>", "", 0, 0, SMTP_BODY_7BIT },
        { "FROM:<@a:\"c d\"@e>", 0, "<@a:\"c d\"@e>", "", 0, 0, SMTP_BODY_7BIT },
        { "FROM:<\"a> SIZE=1 <\"@b>", ALL, "<\"a> SIZE=1 <\"@b>", "", 0, 0, SMTP_BODY_7BIT },
        { "FROM:<\"a\\\">\\\\\"@b>", 0, "<\"a\\\">\\\\\"@b>", "", 0, 0, SMTP_BODY_7BIT },
        { "FROM:<\"a\".\"b c\"@d>", 0, "<\"a\".\"b c\"@d>", "", 0, 0, SMTP_BODY_7BIT },
        { "FROM:<a@[IPv6:2001:db8::1]>", 0, "<a@[IPv6:2001:db8::1]>", "", 0, 0, SMTP_BODY_7BIT },
        { "FROM:<a@b> SIZE=1000", ALL, "<a@b>", "SIZE=1000", SIZE, 1000, SMTP_BODY_7BIT },
        { "FROM:<a@b>   size=007  ", ALL, "<a@b>", "size=007", SIZE, 7, SMTP_BODY_7BIT },
        { "FROM:<a@b> SIZE=18446744073709551615", SIZE, "<a@b>", "SIZE=18446744073709551615", SIZE,
         UINT64_MAX, SMTP_BODY_7BIT },
        { "FROM:<a@b> SIZE=00000000000000000001", SIZE, "<a@b>", "SIZE=00000000000000000001", SIZE, 1,
         SMTP_BODY_7BIT },
        { "FROM:<a@b> BODY=7BIT", EIGHT, "<a@b>", "BODY=7BIT", EIGHT, 0, SMTP_BODY_7BIT },
        { "FROM:<a@b> BODY=8bitmime", EIGHT, "<a@b>", "BODY=8bitmime", EIGHT, 0, SMTP_BODY_8BITMIME },
        { "FROM:<a@b> BODY=BINARYMIME", BINARY, "<a@b>", "BODY=BINARYMIME", BINARY, 0, SMTP_BODY_BINARYMIME },
        { "FROM:<a@b> SMTPUTF8", UTF8, "<a@b>", "SMTPUTF8", UTF8, 0, SMTP_BODY_7BIT },
        { "FROM:<\xC3\xA9@b> SMTPUTF8", UTF8, "<\xC3\xA9@b>", "SMTPUTF8", UTF8, 0, SMTP_BODY_7BIT },
        { "FROM:<a@b> RET=FULL", DSN, "<a@b>", "RET=FULL", DSN, 0, SMTP_BODY_7BIT },
        { "FROM:<a@b> RET=hdrs", DSN, "<a@b>", "RET=hdrs", DSN, 0, SMTP_BODY_7BIT },
        { "FROM:<a@b> ENVID=QQ+2B1+09+7e", DSN, "<a@b>", "ENVID=QQ+2B1+09+7e", DSN, 0, SMTP_BODY_7BIT },
        { "FROM:<a@b> AUTH=<>", AUTH, "<a@b>", "AUTH=<>", AUTH, 0, SMTP_BODY_7BIT },
        { "FROM:<a@b> auth=e+3Dmc2@example.com", AUTH, "<a@b>", "auth=e+3Dmc2@example.com", AUTH, 0,
          SMTP_BODY_7BIT },
        { "FROM:<> AUTH=jos+C3+A9 SIZE=1", ALL, "<>", "AUTH=jos+C3+A9 SIZE=1", AUTH | SIZE, 1, SMTP_BODY_7BIT },
        { "FROM:<> AUTH=" X100 X100 X100 X100 X100, AUTH, "<>", "AUTH=" X100 X100 X100 X100 X100, AUTH, 0,
          SMTP_BODY_7BIT },
        { "FROM:<a@b> RET=FULL  SIZE=5 BODY=8BITMIME ENVID=x SMTPUTF8", ALL, "<a@b>",
         "RET=FULL  SIZE=5 BODY=8BITMIME ENVID=x SMTPUTF8", DSN | SIZE | EIGHT | UTF8, 5,
         SMTP_BODY_8BITMIME },
    };
    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_span argument = copy_span(cases[i].argument);
        struct smtp_mail mail;
        const char *refusal = smtp_mail_parse(argument, cases[i].offered, &mail);

        if (refusal)
            fail_msg("%s: %s", cases[i].argument, refusal);
        assert_span(mail.path, cases[i].path);
        assert_span(mail.parameters, cases[i].parameters);
        assert_int_equal(mail.uses, cases[i].uses);
        assert_int_equal(mail.size, cases[i].size);
        assert_int_equal(mail.body, cases[i].body);
        free_span(argument);
    }
}

struct refusal {
    const char *argument;
    uint32_t offered;
    const char *reply; /* how it begins */
};

static void check_refusal(const struct refusal *c, const char *reply)
{
    if (!reply)
        fail_msg("%s: accepted", c->argument);
    if (strncmp(reply, c->reply, strlen(c->reply)) != 0)
        fail_msg("%s: %s", c->argument, reply);
    assert_true(strlen(reply) > 2 && strchr(reply, '\r') == reply + strlen(reply) - 2);
    assert_int_equal(reply[strlen(reply) - 1], '\n');
}

static void test_mail_refused(void **state)
{
    /* clang-format off */
    static const struct refusal cases[] = {
        { "", ALL, "501 5.5.4" },
        { "<a@b>", ALL, "501 5.5.4" },
        { "TO:<a@b>", ALL, "501 5.5.4" },
        { "FROM", ALL, "501 5.5.4" },
        { "FROM <a@b>", ALL, "501 5.5.4" },
        { "FROM:", ALL, "501 5.1.7" },
        { "FROM: ", ALL, "501 5.1.7" },
        { "FROM:a@b", ALL, "501 5.1.7" },
        { "FROM:a@b SIZE=1", ALL, "501 5.1.7" },
        { "FROM:<a@b", ALL, "501 5.1.7" },
        { "FROM:a@b>", ALL, "501 5.1.7" },
        { "FROM:<a b@c>", ALL, "501 5.1.7" },
        { "FROM:<<a@b>>", ALL, "501 5.1.7" },
        { "FROM:<\"a@b>", ALL, "501 5.1.7" },
        { "FROM:<\"a\\", ALL, "501 5.1.7" },
        { "FROM:<\"a\"", ALL, "501 5.1.7" },
        { "FROM:<a\"b> SIZE=1 \"@c>", ALL, "501 5.1.7" }, /* where does that path end? */
        { "FROM:<\"a\"b@c>", ALL, "501 5.1.7" },
        { "FROM:<a\\\"b@c>", ALL, "501 5.1.7" },
        { "FROM:<a@\"b\">", ALL, "501 5.1.7" },
        { "FROM:<a@b>>", ALL, "501 5.5.4" },
        { "FROM:<a@b>SIZE=1", ALL, "501 5.5.4" },
        { "FROM:<a\rb@c>", ALL, "501 5.5.4" },
        { "FROM:<a\nb@c>", ALL, "501 5.5.4" },
        { "FROM:<a@b>\tSIZE=1", ALL, "501 5.5.4" },
        { "FROM:<a@b> SIZE=1\x7F", ALL, "501 5.5.4" },
        { "FROM:<a\x1B@b>", ALL, "501 5.5.4" },
        { "FROM:<\xC3\xA9@b>", ALL, "553 5.6.7" },
        { "FROM:<\xC3\xA9@b> SIZE=1", ALL, "553 5.6.7" },
        { "FROM:<\xC3\xA9@b> SMTPUTF8", ALL & ~UTF8, "555 5.5.4" },
        { "FROM:<a@b> SIZE=1", 0, "555 5.5.4" },
        { "FROM:<a@b> SIZE", ALL, "501 5.5.4" },
        { "FROM:<a@b> SIZE=", ALL, "501 5.5.4" },
        { "FROM:<a@b> SIZE=-1", ALL, "501 5.5.4" },
        { "FROM:<a@b> SIZE=1k", ALL, "501 5.5.4" },
        { "FROM:<a@b> SIZE=18446744073709551616", ALL, "501 5.5.4" },
        { "FROM:<a@b> SIZE=99999999999999999999", ALL, "501 5.5.4" },
        { "FROM:<a@b> SIZE=000000000000000000001", ALL, "501 5.5.4" },
        { "FROM:<a@b> SIZE=1 size=1", ALL, "501 5.5.4" },
        { "FROM:<a@b> SMTPUTF8 SMTPUTF8", ALL, "501 5.5.4" },
        { "FROM:<a@b> BODY=8BITMIME BODY=BINARYMIME", ALL, "501 5.5.4" },
        { "FROM:<a@b> BODY", ALL, "501 5.5.4" },
        { "FROM:<a@b> BODY=9BIT", ALL, "501 5.5.4" },
        { "FROM:<a@b> BODY=8BITMIMEX", ALL, "501 5.5.4" },
        { "FROM:<a@b> BODY=8BITMIME", 0, "555 5.5.4" },
        { "FROM:<a@b> BODY=8BITMIME", BINARY, "555 5.5.4" },
        { "FROM:<a@b> BODY=7BIT", BINARY, "555 5.5.4" },
        { "FROM:<a@b> BODY=BINARYMIME", EIGHT, "555 5.5.4" },
        { "FROM:<a@b> BODY=BINARYMIME", EIGHT | SMTP_CAP_CHUNKING, "555 5.5.4" },
        { "FROM:<a@b> BODY=BINARYMIME", EIGHT | SMTP_CAP_BINARYMIME, "555 5.5.4" },
        { "FROM:<a@b> SMTPUTF8=1", ALL, "501 5.5.4" },
        { "FROM:<a@b> SMTPUTF8=", ALL, "501 5.5.4" },
        { "FROM:<a@b> RET=FULL", ALL & ~DSN, "555 5.5.4" },
        { "FROM:<a@b> RET", ALL, "501 5.5.4" },
        { "FROM:<a@b> RET=NONE", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=x", ALL & ~DSN, "555 5.5.4" },
        { "FROM:<a@b> ENVID", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=a=b", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=a+", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=a+4", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=a+4G", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=a+G4", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=a+/4", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=a+4:", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=a+4g", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=a+0D+0ARCPT", ALL, "501 5.5.4" }, /* a header line of its own in a report */
        { "FROM:<a@b> ENVID=+7F", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=+FF", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=\xC3\xA9 SMTPUTF8", ALL, "501 5.5.4" },
        { "FROM:<a@b> SMTPUTF8 ENVID=\xC3\xA9", ALL, "501 5.5.4" },
        { "FROM:<a@b> ENVID=" X100 "x", ALL, "501 5.5.4" },
        { "FROM:<a@b> NOTIFY=NEVER", ALL, "555 5.5.4" }, /* that is RCPT's */
        { "FROM:<a@b> ORCPT=rfc822;a@b", ALL, "555 5.5.4" },
        { "FROM:<a@b> AUTH=<>", ALL & ~AUTH, "555 5.5.4" },
        { "FROM:<a@b> AUTH=<>", SMTP_CAP_AUTH_MECHANISMS, "555 5.5.4" },
        { "FROM:<a@b> AUTH", ALL, "501 5.5.4" },
        { "FROM:<a@b> AUTH=", ALL, "501 5.5.4" },
        { "FROM:<a@b> AUTH=a=b", ALL, "501 5.5.4" },
        { "FROM:<a@b> AUTH=a+", ALL, "501 5.5.4" },
        { "FROM:<a@b> AUTH=a+0D+0ARCPT", ALL, "501 5.5.4" },
        { "FROM:<a@b> AUTH=a+00", ALL, "501 5.5.4" },
        { "FROM:<a@b> AUTH=a+7F", ALL, "501 5.5.4" },
        { "FROM:<a@b> AUTH=\xC3\xA9 SMTPUTF8", ALL, "501 5.5.4" },
        { "FROM:<a@b> SMTPUTF8 AUTH=\xC3\xA9", ALL, "501 5.5.4" },
        { "FROM:<a@b> AUTH=<> AUTH=<>", ALL, "501 5.5.4" },
        { "FROM:<a@b> AUTH=" X100 X100 X100 X100 X100 "x", ALL, "501 5.5.4" },
        { "FROM:<a@b> SIZ=1", ALL, "555 5.5.4" },
        { "FROM:<a@b> SIZES=1", ALL, "555 5.5.4" },
        { "FROM:<a@b> X-Y=1 SIZE=1", ALL, "555 5.5.4" },
        { "FROM:<a@b> =1", ALL, "501 5.5.4" },
        { "FROM:<a@b> -X", ALL, "501 5.5.4" },
        { "FROM:<a@b> \xC3\xA9=1", ALL, "501 5.5.4" },
        { "FROM:<a@b> <c@d>", ALL, "501 5.5.4" },
        { "FROM:<a@b> SIZE =1", ALL, "501 5.5.4" },
        { "FROM:<a@b> [=1", ALL, "501 5.5.4" },
        { "FROM:<a@b> {=1", ALL, "501 5.5.4" },
    };
    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_span argument = copy_span(cases[i].argument);
        struct smtp_mail mail;

        check_refusal(&cases[i], smtp_mail_parse(argument, cases[i].offered, &mail));
        free_span(argument);
    }

    struct smtp_mail mail;

    check_refusal(&cases[0], smtp_mail_parse((struct smtp_span){ "FROM:<a\0b@c>", 12 }, ALL, &mail));
    assert_null(smtp_mail_parse((struct smtp_span){ "FROM:<> ENVID=" X100, 114 }, ALL, &mail));
}

static void test_rcpt_accepted(void **state)
{
    /* clang-format off */
    static const struct {
        const char *argument;
        bool utf8;
        const char *path, *parameters;
        uint32_t uses;
    } cases[] = {
        { "TO:<a@b>", false, "<a@b>", "", 0 },
        { "to:  <a@b>", false, "<a@b>", "", 0 },
        { "TO:<Postmaster>", false, "<Postmaster>", "", 0 },
        { "TO:<@a:b@c>", false, "<@a:b@c>", "", 0 },
        { "TO:<\"a b>\"@c>", false, "<\"a b>\"@c>", "", 0 },
        { "TO:<\xC3\xA9@b>", true, "<\xC3\xA9@b>", "", 0 },
        { "TO:<a@b> NOTIFY=NEVER", false, "<a@b>", "NOTIFY=NEVER", DSN },
        { "TO:<a@b> notify=delay", false, "<a@b>", "notify=delay", DSN },
        { "TO:<a@b> NOTIFY=SUCCESS,Failure,DELAY", false, "<a@b>", "NOTIFY=SUCCESS,Failure,DELAY", DSN },
        { "TO:<a@b> ORCPT=rfc822;a+2Bb@c", false, "<a@b>", "ORCPT=rfc822;a+2Bb@c", DSN },
        { "TO:<a@b> ORCPT=x-y;a;b NOTIFY=FAILURE", false, "<a@b>", "ORCPT=x-y;a;b NOTIFY=FAILURE", DSN },
        { "TO:<a@b> ORCPT=utf-8;\\x{E9}@c", false, "<a@b>", "ORCPT=utf-8;\\x{E9}@c", DSN },
        { "TO:<a@b> ORCPT=utf-8;\xC3\xA9@c", true, "<a@b>", "ORCPT=utf-8;\xC3\xA9@c", DSN },
        { "TO:<a@b> ORCPT=rfc822;" X100 X100 X100 X100 X10 X10 X10 X10 X10 X10 X10 X10 X10 "xxx", false,
         "<a@b>", "ORCPT=rfc822;" X100 X100 X100 X100 X10 X10 X10 X10 X10 X10 X10 X10 X10 "xxx", DSN},
    };
    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_span argument = copy_span(cases[i].argument);
        struct smtp_rcpt rcpt;
        const char *refusal = smtp_rcpt_parse(argument, ALL, cases[i].utf8, &rcpt);

        if (refusal)
            fail_msg("%s: %s", cases[i].argument, refusal);
        assert_span(rcpt.path, cases[i].path);
        assert_span(rcpt.parameters, cases[i].parameters);
        assert_int_equal(rcpt.uses, cases[i].uses);
        free_span(argument);
    }
}

static void test_rcpt_refused(void **state)
{
    static const struct refusal cases[] = {
        {"",                                                 ALL,        "501 5.5.4"},
        { "FROM:<a@b>",                                      ALL,        "501 5.5.4"},
        { "TO:",                                             ALL,        "501 5.1.3"},
        { "TO:<>",                                           ALL,        "501 5.1.3"},
        { "TO:a@b",                                          ALL,        "501 5.1.3"},
        { "TO:<a@b",                                         ALL,        "501 5.1.3"},
        { "TO:<a b@c>",                                      ALL,        "501 5.1.3"},
        { "TO:<a@b>x",                                       ALL,        "501 5.5.4"},
        { "TO:<a@b>,<c@d>",                                  ALL,        "501 5.5.4"},
        { "TO:<a@b> <c@d>",                                  ALL,        "501 5.5.4"},
        { "TO:<a\r@b>",                                      ALL,        "501 5.5.4"},
        { "TO:<\xC3\xA9@b>",                                 ALL,        "553 5.6.7"},
        { "TO:<a@b> NOTIFY=NEVER",                           ALL & ~DSN, "555 5.5.4"},
        { "TO:<a@b> NOTIFY",                                 ALL,        "501 5.5.4"},
        { "TO:<a@b> NOTIFY=",                                ALL,        "501 5.5.4"},
        { "TO:<a@b> NOTIFY=NEVER,DELAY",                     ALL,        "501 5.5.4"},
        { "TO:<a@b> NOTIFY=DELAY,NEVER",                     ALL,        "501 5.5.4"},
        { "TO:<a@b> NOTIFY=DELAY,",                          ALL,        "501 5.5.4"},
        { "TO:<a@b> NOTIFY=,DELAY",                          ALL,        "501 5.5.4"},
        { "TO:<a@b> NOTIFY=DELAY,,FAILURE",                  ALL,        "501 5.5.4"},
        { "TO:<a@b> NOTIFY=DELAYS",                          ALL,        "501 5.5.4"},
        { "TO:<a@b> NOTIFY=NEVER NOTIFY=NEVER",              ALL,        "501 5.5.4"},
        { "TO:<a@b> ORCPT=rfc822;a@b",                       ALL & ~DSN, "555 5.5.4"},
        { "TO:<a@b> ORCPT",                                  ALL,        "501 5.5.4"},
        { "TO:<a@b> ORCPT=",                                 ALL,        "501 5.5.4"},
        { "TO:<a@b> ORCPT=a@b",                              ALL,        "501 5.5.4"},
        { "TO:<a@b> ORCPT=;a@b",                             ALL,        "501 5.5.4"},
        { "TO:<a@b> ORCPT=rfc822;",                          ALL,        "501 5.5.4"},
        { "TO:<a@b> ORCPT=rf+20;a@b",                        ALL,        "501 5.5.4"},
        { "TO:<a@b> ORCPT=rfc822;a=b",                       ALL,        "501 5.5.4"},
        { "TO:<a@b> ORCPT=rfc822;a+0Ab",                     ALL,        "501 5.5.4"},
        { "TO:<a@b> ORCPT=utf-8;+C3+A9",                     ALL,        "501 5.5.4"},
        { "TO:<a@b> ORCPT=utf-8;\xC3\xA9",                   ALL,        "501 5.5.4"},
        { "TO:<a@b> ORCPT=rfc822;" X100 X100 X100 X100 X100, ALL,        "501 5.5.4"},
        { "TO:<a@b> SIZE=1",                                 ALL,        "555 5.5.4"},
        { "TO:<a@b> RET=FULL",                               ALL,        "555 5.5.4"},
        { "TO:<a@b> AUTH=<>",                                ALL,        "555 5.5.4"},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_span argument = copy_span(cases[i].argument);
        struct smtp_rcpt rcpt;

        check_refusal(&cases[i], smtp_rcpt_parse(argument, cases[i].offered, false, &rcpt));
        free_span(argument);
    }
}

static void test_bdat(void **state)
{
    static const struct {
        const char *argument;
        bool good;
        uint64_t octets;
        bool last, has_octets;
    } cases[] = {
        {"0",                          true,  0,         false, true },
        { "0 LAST",                    true,  0,         true,  true },
        { "5",                         true,  5,         false, true },
        { "005 last",                  true,  5,         true,  true },
        { "5 \t LAST",                 true,  5,         true,  true },
        { "9223372036854775807 LAST",  true,  INT64_MAX, true,  true },
        { "9223372036854775808",       false, 0,         false, false},
        { "92233720368547758070",      false, 0,         false, false},
        { "18446744073709551616 LAST", false, 0,         false, false},
        { "99999999999999999999999",   false, 0,         false, false},
        { "",                          false, 0,         false, false},
        { "-1",                        false, 0,         false, false},
        { "+1",                        false, 0,         false, false},
        { "0x10",                      false, 0,         false, false},
        { "5FOO",                      false, 0,         false, false},
        { "LAST",                      false, 0,         false, false},
        { "LAST 5",                    false, 0,         false, false},
        { " 5",                        false, 0,         false, false}, /* the argument comes trimmed */
        { "5 FOO",                     false, 5,         false, true },
        { "5 LASTX",                   false, 5,         false, true },
        { "5 LAST X",                  false, 5,         false, true },
        { "5 6",                       false, 5,         false, true },
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_span argument = copy_span(cases[i].argument);
        uint64_t octets = 42;
        bool last = true, has_octets = true;

        assert_int_equal(smtp_bdat_parse(argument, &octets, &last, &has_octets), cases[i].good);
        assert_int_equal(octets, cases[i].octets);
        assert_int_equal(last, cases[i].last);
        assert_int_equal(has_octets, cases[i].has_octets);
        free_span(argument);
    }
}

static void test_helo(void **state)
{
    static const char *const good[] = { "a", "mx.example.org", "[192.0.2.1]", "[IPv6:::1]", "a_b", "!", "~" };
    static const char *const bad[] = { "", "a b", "a\tb", "a\x7F", "a\x1B", "\xC3\xA9", "a\r" };
    char name[256];

    (void)state;
    for (size_t i = 0; i < LENGTH(good); i++)
        assert_true(smtp_helo_valid((struct smtp_span){ good[i], strlen(good[i]) }));
    for (size_t i = 0; i < LENGTH(bad); i++)
        assert_false(smtp_helo_valid((struct smtp_span){ bad[i], strlen(bad[i]) }));
    memset(name, 'a', sizeof name);
    assert_true(smtp_helo_valid((struct smtp_span){ name, 255 }));
    assert_false(smtp_helo_valid((struct smtp_span){ name, 256 }));
}

static void test_domain(void **state)
{
    static const struct {
        const char *path, *domain;
    } cases[] = {
        {"<>",                         ""                  },
        { "<a>",                       ""                  },
        { "<a@x.example>",             "x.example"         },
        { "<a@x.example.>",            "x.example"         },
        { "<a@x..>",                   "x."                },
        { "<a@.>",                     ""                  },
        { "<a@>",                      ""                  },
        { "<@>",                       ""                  },
        { "<a@b@x>",                   "x"                 },
        { "<\"a@b\"@x>",               "x"                 },
        { "<\"a@b\">",                 ""                  },
        { "<\"a\\\"@b\"@x>",           "x"                 },
        { "<\"a\\\\\"@x>",             "x"                 },
        { "<\"\\\">@x>",               ""                  }, /* no end of the quotes: not a path, but no harm */
        { "<a.\"b@c\".d@x>",           "x"                 },
        { "<a@[192.0.2.1]>",           "[192.0.2.1]"       },
        { "<a@[IPv6:2001:db8::1]>",    "[IPv6:2001:db8::1]"},
        { "<@a,@b:c@d>",               "d"                 },
        { "<@a,@b:c>",                 ""                  },
        { "<@a:\"c:e@f\"@d>",          "d"                 },
        { "<@a:c@[IPv6:2001:db8::1]>", "[IPv6:2001:db8::1]"},
        { "<@[IPv6:2001:db8::1]:c@d>", "d"                 },
        { "<@[IPv6:2001:db8::1]:c>",   ""                  },
        { "<a:b@x>",                   "x"                 }, /* no route */
        { "<a@b\xC3\xBC"
          "cher.example>",    "b\xC3\xBC"
          "cher.example"},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_span path = copy_span(cases[i].path), domain = smtp_path_domain(path);

        if (domain.size != strlen(cases[i].domain) || memcmp(domain.data, cases[i].domain, domain.size) != 0)
            fail_msg("%s: \"%.*s\"", cases[i].path, (int)domain.size, domain.data);
        assert_true(domain.data > path.data && domain.data + domain.size < path.data + path.size);
        free_span(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),         cmocka_unit_test(test_verb_names),
        cmocka_unit_test(test_mail_accepted), cmocka_unit_test(test_mail_refused),
        cmocka_unit_test(test_rcpt_accepted), cmocka_unit_test(test_rcpt_refused),
        cmocka_unit_test(test_bdat),          cmocka_unit_test(test_helo),
        cmocka_unit_test(test_domain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
