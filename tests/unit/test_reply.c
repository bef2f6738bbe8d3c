/*
 * Replies of a backend, the malformed ones of a lying backend among them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/reply.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Parse from memory of just that size, so that the address sanitizer sees a look beyond it. */
static int parse(const char *in, size_t size, struct smtp_reply *out, char **copy)
{
    *copy = malloc(size ? size : 1);
    memcpy(*copy, in, size);
    return smtp_reply_parse(*copy, size, out);
}

static void test_good(void **state)
{
    /* clang-format off */
    static const struct {
        const char *in;
        int code, status_class, subject, detail;
        size_t size;
        const char *text;
        unsigned lines;
    } cases[] = {
        { "250 ok\r\n", 250, 0, 0, 0, 8, "ok", 1 },
        { "250 \r\n", 250, 0, 0, 0, 6, "", 1 },
        { "250\r\n", 250, 0, 0, 0, 5, "", 1 },
        { "200 a\r\n", 200, 0, 0, 0, 7, "a", 1 },
        { "599 a\r\n", 599, 0, 0, 0, 7, "a", 1 },
        { "354 go on\r\n", 354, 0, 0, 0, 11, "go on", 1 },
        { "354 3.0.0 go on\r\n", 354, 0, 0, 0, 17, "3.0.0 go on", 1 },
        { "250-a\r\n250 b\r\n", 250, 0, 0, 0, 14, "b", 2 },
        { "250-\r\n250-\r\n250\r\n", 250, 0, 0, 0, 17, "", 3 },
        { "250-a\r\n250 b\r\n250 next\r\n", 250, 0, 0, 0, 14, "b", 2 },
        { "220-x ESMTP\r\n220 ready\r\nrubbish", 220, 0, 0, 0, 24, "ready", 2 },
        { "250 2.1.5 ok\r\n", 250, 2, 1, 5, 14, "2.1.5 ok", 1 },
        { "250 2.1.5\r\n", 250, 2, 1, 5, 11, "2.1.5", 1 },
        { "451 4.3.2 later\r\n", 451, 4, 3, 2, 17, "4.3.2 later", 1 },
        { "550-5.7.1 a\r\n550 5.123.999 b\r\n", 550, 5, 123, 999, 30, "5.123.999 b", 2 },
        { "550-5.7.1 a\r\n550 b\r\n", 550, 0, 0, 0, 20, "b", 2 }, /* the last line's, or none */
        { "550 4.7.1 other class\r\n", 550, 0, 0, 0, 23, "4.7.1 other class", 1 },
        { "550 5.7 a\r\n", 550, 0, 0, 0, 11, "5.7 a", 1 },
        { "550 5.7.\r\n", 550, 0, 0, 0, 10, "5.7.", 1 },
        { "550 5.7. a\r\n", 550, 0, 0, 0, 12, "5.7. a", 1 },
        { "550 5..1 a\r\n", 550, 0, 0, 0, 12, "5..1 a", 1 },
        { "550 5.7.1a\r\n", 550, 0, 0, 0, 12, "5.7.1a", 1 },
        { "550 5.7.1.2 a\r\n", 550, 0, 0, 0, 15, "5.7.1.2 a", 1 },
        { "550 5.1234.1 a\r\n", 550, 0, 0, 0, 16, "5.1234.1 a", 1 },
        { "550 5.1.1234 a\r\n", 550, 0, 0, 0, 16, "5.1.1234 a", 1 },
        { "550 5\r\n", 550, 0, 0, 0, 7, "5", 1 },
        { "550 55.7.1\r\n", 550, 0, 0, 0, 12, "55.7.1", 1 },
        { "250 \x1B[2J \xFF \t\r\n", 250, 0, 0, 0, 14, "\x1B[2J \xFF \t", 1 },
    };
    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_reply r;
        char *copy;

        for (size_t size = 0; size < cases[i].size; size++) { /* no beginning is enough, or wrong */
            assert_int_equal(parse(cases[i].in, size, &r, &copy), 0);
            free(copy);
        }
        for (size_t size = cases[i].size; size <= strlen(cases[i].in);
             size++) { /* what follows does not matter */
            assert_int_equal(parse(cases[i].in, size, &r, &copy), 1);
            assert_int_equal(r.code, cases[i].code);
            assert_int_equal(r.status_class, cases[i].status_class);
            assert_int_equal(r.subject, cases[i].subject);
            assert_int_equal(r.detail, cases[i].detail);
            assert_int_equal(r.size, cases[i].size);
            assert_int_equal(r.lines, cases[i].lines);
            assert_int_equal(r.text_size, strlen(cases[i].text));
            assert_memory_equal(r.text, cases[i].text, r.text_size);
            assert_true(r.text >= copy && r.text + r.text_size + 2 == copy + r.size);
            free(copy);
        }
    }
}

/* `judged`: how many octets show that it is malformed; with fewer, more are asked for. */
static void test_malformed(void **state)
{
    static const struct {
        const char *in;
        size_t judged;
    } cases[] = {
        {"abc\r\n",             1 },
        { "\r\n",               1 },
        { "999 a\r\n",          1 },
        { "199 a\r\n",          1 },
        { "600 a\r\n",          1 },
        { "2x0 a\r\n",          2 },
        { "25 a\r\n",           3 },
        { "2500 a\r\n",         4 },
        { "250+a\r\n",          4 },
        { "250\ta\r\n",         4 },
        { "250\n",              4 },
        { "250\rx",             5 },
        { "250 a\n",            6 },
        { "250 a\rb\r\n",       7 },
        { "250 a\r\r\n",        7 },
        { "250-a\n250 b\r\n",   6 },
        { "250-a\r\n550 b\r\n", 8 },
        { "250-a\r\n251 b\r\n", 10},
        { "250-a\r\n\r\n",      8 },
        { "250-a\r\nb\r\n",     8 },
        { "-250 a\r\n",         1 },
        { " 250 a\r\n",         1 },
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        for (size_t size = 0; size <= strlen(cases[i].in); size++) {
            struct smtp_reply r;
            char *copy;

            assert_int_equal(parse(cases[i].in, size, &r, &copy), size < cases[i].judged ? 0 : -1);
            free(copy);
        }
    }
}

static void test_nul(void **state)
{
    struct smtp_reply r;

    (void)state;
    assert_int_equal(smtp_reply_parse("250 a\0b\r\n", 9, &r), 1);
    assert_int_equal(r.text_size, 3);
    assert_int_equal(smtp_reply_parse("250\0\r\n", 6, &r), -1);
    assert_int_equal(smtp_reply_parse("\0", 1, &r), -1);
}

static void test_too_long(void **state)
{
    static char in[SMTP_REPLY_MAX + 100];
    struct smtp_reply r;

    (void)state;
    /* One line that never ends. */
    memset(in, 'x', sizeof in);
    memcpy(in, "250 ", 4);
    assert_int_equal(smtp_reply_parse(in, SMTP_REPLY_MAX - 1, &r), 0);
    assert_int_equal(smtp_reply_parse(in, SMTP_REPLY_MAX, &r), -1);
    assert_int_equal(smtp_reply_parse(in, sizeof in, &r), -1);

    /* One that just fits, and one that just does not. */
    memcpy(in + SMTP_REPLY_MAX - 2, "\r\n", 2);
    assert_int_equal(smtp_reply_parse(in, SMTP_REPLY_MAX - 1, &r), 0);
    assert_int_equal(smtp_reply_parse(in, SMTP_REPLY_MAX, &r), 1);
    assert_int_equal(r.size, SMTP_REPLY_MAX);
    memcpy(in + SMTP_REPLY_MAX - 2, "x\r\n", 3);
    assert_int_equal(smtp_reply_parse(in, sizeof in, &r), -1);

    /* Lines that never end. */
    for (size_t at = 0; at + 8 <= sizeof in; at += 8)
        memcpy(in + at, "250-xy\r\n", 8);
    assert_int_equal(smtp_reply_parse(in, SMTP_REPLY_MAX - 1, &r), 0);
    assert_int_equal(smtp_reply_parse(in, sizeof in, &r), -1);
}

static void test_sanitise(void **state)
{
#define IN(text) text, sizeof text - 1
    static const struct {
        const char *in;
        size_t size;
        const char *ascii, *utf8;
    } cases[] = {
        {IN(""),                          "",                   ""                        },
        { IN("250 ok\r\n"),               "250 ok\r\n",         "250 ok\r\n"              },
        { IN("250-a\r\n250 b\r\n"),       "250-a\r\n250 b\r\n", "250-a\r\n250 b\r\n"      },
        { IN("250 \x1B[2J\0\x7F\r\n"),    "250 ?[2J??\r\n",     "250 ?[2J??\r\n"          },
        { IN("250 a\tb~ !\r\n"),          "250 a\tb~ !\r\n",    "250 a\tb~ !\r\n"         },
        { IN("250 \xC3\xA9\x80\xFF\r\n"), "250 ????\r\n",       "250 \xC3\xA9\x80\xFF\r\n"},
        { IN("a\rb\nc\r\r\n\n\r"),        "a?b?c?\r\n??",       "a?b?c?\r\n??"            },
    };
    char out[64];

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        assert_int_equal(strlen(cases[i].ascii), cases[i].size);
        smtp_reply_sanitise(cases[i].in, cases[i].size, out, 0);
        assert_memory_equal(out, cases[i].ascii, cases[i].size);
        smtp_reply_sanitise(cases[i].in, cases[i].size, out, 1);
        assert_memory_equal(out, cases[i].utf8, cases[i].size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),     cmocka_unit_test(test_malformed), cmocka_unit_test(test_nul),
        cmocka_unit_test(test_too_long), cmocka_unit_test(test_sanitise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
