/*
 * Replies of Redis: what is understood, however it is cut, and what is refused before it costs much. Commands
 * as they go out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <malloc.h>

#include "counters/resp.h"

/* Write a reply down: +OK -ERR :1 "text" nil [a b] */
static void write_down(FILE *out, const struct resp *reply)
{
    switch (reply->type) {
    case RESP_STATUS: fprintf(out, "+%s", reply->text); break;
    case RESP_ERROR: fprintf(out, "-%s", reply->text); break;
    case RESP_INTEGER: fprintf(out, ":%lld", (long long)reply->integer); break;
    case RESP_NIL: fprintf(out, "nil"); break;
    case RESP_TEXT:
        putc('"', out);
        for (size_t i = 0; i < reply->size; i++)
            fprintf(out, reply->text[i] < ' ' ? "\\%d" : "%c", reply->text[i]);
        putc('"', out);
        assert_int_equal(reply->text[reply->size], '\0');
        break;
    case RESP_ARRAY:
        putc('[', out);
        for (size_t i = 0; i < reply->n; i++) {
            fprintf(out, i ? " " : "");
            write_down(out, &reply->elements[i]);
        }
        putc(']', out);
        break;
    }
}

/* All replies of `in`, fed `step` octets at a time, a line each; behind them the error, if there is one. */
static char *read_all(const char *in, size_t size, size_t step)
{
    struct resp_reader *reader = resp_reader_create();
    char *text;
    size_t written;
    FILE *out = open_memstream(&text, &written);

    for (size_t at = 0; at < size; at += step) {
        const struct resp *reply;
        char *copy = malloc(step); /* of just that size, for the address sanitizer */
        size_t n = size - at < step ? size - at : step;

        memcpy(copy, in + at, n);
        resp_reader_feed(reader, copy, n);
        free(copy);
        while ((reply = resp_reader_next(reader))) {
            write_down(out, reply);
            fprintf(out, "\n");
        }
    }
    if (resp_reader_error(reader))
        fprintf(out, "! %s\n", resp_reader_error(reader));
    fclose(out);
    resp_reader_free(&reader);
    assert_null(reader);
    return text;
}

static void check(const char *in, size_t size, const char *expected)
{
    for (size_t step = 1; step <= size; step = step < 7 ? step + 1 : size < 2 * step ? step + 1 : size) {
        char *got = read_all(in, size, step);

        assert_string_equal(got, expected);
        free(got);
    }
}

#define CHECK(in, expected) check(in, sizeof in - 1, expected)

static void test_replies(void **state)
{
    (void)state;
    CHECK("+OK\r\n", "+OK\n");
    CHECK("-ERR no\r\n:0\r\n:-7\r\n", "-ERR no\n:0\n:-7\n");
    CHECK(":9223372036854775807\r\n:-9223372036854775808\r\n",
          ":9223372036854775807\n:-9223372036854775808\n");
    CHECK("$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n", "\"\"\nnil\nnil\n[]\n");
    CHECK("$7\r\na\r\nb\0c\1\r\n", "\"a\\13\\10b\\0c\\1\"\n");
    CHECK("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n", "[\"message\" \"c\" \"hi\"]\n");
    CHECK("*4\r\n*2\r\n:1\r\n*0\r\n*1\r\n-ERR x\r\n$-1\r\n*2\r\n+a\r\n+b\r\n+c\r\n",
          "[[:1 []] [-ERR x] nil [+a +b]]\n+c\n");
    /* Seven deep, and arrays that grow between their siblings. */
    CHECK("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "[[[[[[[:1]]]]]]]\n");
    CHECK("*9\r\n:1\r\n:2\r\n:3\r\n*5\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:5\r\n:6\r\n:7\r\n*1\r\n:8\r\n:9\r\n",
          "[:1 :2 :3 [:1 :2 :3 :4 :5] :5 :6 :7 [:8] :9]\n");
    CHECK("*3\r\n:1\r\n", "");
}

static void expect_error(const char *in, size_t size, const char *part)
{
    char *got = read_all(in, size, size), *slow = read_all(in, size, 1);

    if (*got != '!' || !strstr(got, part))
        fail_msg("%s is not \"%s\"", got, part);
    assert_string_equal(got, slow);
    free(got);
    free(slow);
}

#define EXPECT_ERROR(in, part) expect_error(in, sizeof in - 1, part)

static void test_garbage(void **state)
{
    (void)state;
    EXPECT_ERROR("HTTP/1.1 400 Bad Request\r\n\r\n", "\"H\" as reply type byte");
    EXPECT_ERROR("220 relay ESMTP\r\n", "\"2\" as reply type byte");
    EXPECT_ERROR("\x15\x03\x01", "\"\\x15\" as reply type byte");
    EXPECT_ERROR("*2\r\n:1\r\nx", "as reply type byte");
    EXPECT_ERROR("*1048577\r\n", "more than 1048576 elements");
    EXPECT_ERROR("*100000000\r\n", "more than 1048576 elements");
    EXPECT_ERROR("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "");
}

/* What newer protocols say is refused, by either version of hiredis. */
static void test_later_protocol(void **state)
{
    (void)state;
    EXPECT_ERROR("%1\r\n+a\r\n:1\r\n", "");
    EXPECT_ERROR("~1\r\n+a\r\n", "");
    EXPECT_ERROR(">1\r\n+a\r\n", "");
    EXPECT_ERROR("#t\r\n", "");
    EXPECT_ERROR(",1.5\r\n", "");
    EXPECT_ERROR("(12345678901234567890\r\n", "");
    EXPECT_ERROR("=5\r\ntxt:a\r\n", "");
}

/* After an error nothing is read any more. */
static void test_broken_for_good(void **state)
{
    struct resp_reader *reader = resp_reader_create();

    (void)state;
    resp_reader_feed(reader, "+a\r\n?", 5);
    assert_true(resp_is(resp_reader_next(reader), "a"));
    assert_null(resp_reader_error(reader));
    assert_null(resp_reader_next(reader));
    assert_non_null(resp_reader_error(reader));
    resp_reader_feed(reader, "+b\r\n", 4);
    assert_null(resp_reader_next(reader));
    resp_reader_free(&reader);
    resp_reader_free(&reader);
}

/* Feed blocks of 16 KiB until there is an error; how many octets it took. */
static size_t feed_until_error(const char *begin, const char *block, size_t block_size, const char *error)
{
    struct resp_reader *reader = resp_reader_create();
    size_t fed = 0;

    resp_reader_feed(reader, begin, strlen(begin));
    while (!resp_reader_next(reader) && !resp_reader_error(reader)) {
        resp_reader_feed(reader, block, block_size);
        fed += block_size;
        assert_true(fed < 64 << 20);
    }
    assert_string_equal(resp_reader_error(reader), error);
    resp_reader_free(&reader);
    return fed;
}

static void test_unparsed(void **state)
{
    static char block[16384];
    size_t fed;

    (void)state;
    memset(block, 'x', sizeof block);
    fed = feed_until_error("$4194305\r\n", block, sizeof block, "more than 4 MiB in one text");
    assert_in_range(fed, RESP_UNPARSED_MAX, RESP_UNPARSED_MAX + 2 * sizeof block);
    fed = feed_until_error("*2\r\n:1\r\n$9223372036854775807\r\n", block, sizeof block,
                           "more than 4 MiB in one text");
    assert_in_range(fed, RESP_UNPARSED_MAX, RESP_UNPARSED_MAX + 2 * sizeof block);
    fed = feed_until_error("+", block, sizeof block, "a line of more than 64 KiB");
    assert_in_range(fed, RESP_LINE_MAX, RESP_LINE_MAX + 2 * sizeof block);
}

/* A text of 4 MiB, less its line, is the longest. */
static void test_longest_text(void **state)
{
    size_t size = RESP_UNPARSED_MAX - 64;
    struct resp_reader *reader = resp_reader_create();
    const struct resp *reply;
    char *text = malloc(size), line[32];

    (void)state;
    memset(text, 'x', size);
    (void)snprintf(line, sizeof line, "$%zu\r\n", size);
    resp_reader_feed(reader, line, strlen(line));
    assert_null(resp_reader_next(reader));
    resp_reader_feed(reader, text, size);
    assert_null(resp_reader_next(reader));
    assert_null(resp_reader_error(reader));
    resp_reader_feed(reader, "\r\n", 2);
    reply = resp_reader_next(reader);
    assert_int_equal(reply->size, size);
    resp_reader_free(&reader);
    free(text);
}

/* "*N", and N times `element`; to be freed. */
static char *many(size_t n, const char *element, size_t *size)
{
    char *text = malloc(16 + n * strlen(element) + 1), *end = text + sprintf(text, "*%zu\r\n", n);

    for (size_t i = 0; i < n; i++)
        end = stpcpy(end, element);
    *size = (size_t)(end - text);
    return text;
}

/* What is too much is an error where it stands, and only there. */
static void test_too_many(void **state)
{
    char text[512];
    const struct {
        size_t n;
        const char *element, *becomes;
    } table[] = {
        {65537,    ":1\r\n",                    "a reply of more than 65536 elements"},
        { 65537,   "*2\r\n:1\r\n*1\r\n-no\r\n", "a reply of more than 65536 elements"},
        { 1048576, "$1\r\nx\r\n",               "a reply of more than 65536 elements"},
        { 40000,   text,                        "a reply of more than 16 MiB"        },
    };

    (void)state;
    (void)snprintf(text, sizeof text, "$500\r\n%0500d\r\n", 0);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        size_t size;
        char *array = many(table[i].n, table[i].element, &size), *all = malloc(size + 64), *got,
             expected[128];
        size_t begin = (size_t)sprintf(all, "*3\r\n*1\r\n+a\r\n");

        memcpy(all + begin, array, size);
        begin += size + (size_t)sprintf(all + begin + size, ":5\r\n+next\r\n");
        (void)snprintf(expected, sizeof expected, "[[+a] -%s :5]\n+next\n", table[i].becomes);
        got = read_all(all, begin, 16384);
        assert_string_equal(got, expected);
        free(got);
        got = read_all(array, size, 1000);
        (void)snprintf(expected, sizeof expected, "-%s\n", table[i].becomes);
        assert_string_equal(got, expected);
        free(got);
        free(all);
        free(array);
    }
}

static size_t memory_of(const struct resp *reply)
{
    size_t octets = reply->n * sizeof *reply + (reply->text ? reply->size + 1 : 0);

    for (size_t i = 0; i < reply->n; i++)
        octets += memory_of(&reply->elements[i]);
    return octets;
}

/* Elements that are almost nothing on the wire. */
static void test_memory(void **state)
{
    struct resp_reader *reader = resp_reader_create();
    const struct resp *reply;
    size_t size;
    char *block = many(65536, ":1\r\n", &size);

    (void)state;
    resp_reader_feed(reader, "*200\r\n", 6);
    for (int i = 0; i < 200; i++) {
        assert_null(resp_reader_next(reader));
        resp_reader_feed(reader, block, size);
    }
    reply = resp_reader_next(reader);
    assert_int_equal(reply->n, 200);
    assert_int_equal(reply->elements[0].n, 65536);
    assert_string_equal(reply->elements[199].text, "a reply of more than 16 MiB");
    assert_in_range(memory_of(reply), RESP_MEMORY_MAX / 2, RESP_MEMORY_MAX);
    resp_reader_free(&reader);
    free(block);
}

/* Announcing is free: only what came is paid for. */
static void test_announced(void **state)
{
    struct resp_reader *reader = resp_reader_create();
    size_t before = mallinfo2().uordblks, after;

    (void)state;
    for (int i = 0; i < RESP_DEPTH_MAX; i++)
        resp_reader_feed(reader, "*65536\r\n", 8);
    assert_null(resp_reader_next(reader));
    assert_null(resp_reader_error(reader));
    after = mallinfo2().uordblks;
    assert_true(after < before + 65536);
    resp_reader_free(&reader);
}

static void test_faults(void **state)
{
    static const struct {
        const char *text;
        enum resp_fault fault;
    } table[] = {
        {"NOAUTH Authentication required.",                        RESP_FAULT_AUTH       },
        { "WRONGPASS invalid username-password pair",              RESP_FAULT_AUTH       },
        { "NOPERM this user has no permissions",                   RESP_FAULT_PERMISSION },
        { "LOADING Redis is loading the dataset in memory",        RESP_FAULT_LOADING    },
        { "READONLY You can't write against a read only replica.", RESP_FAULT_READONLY   },
        { "MASTERDOWN Link with MASTER is down",                   RESP_FAULT_MASTERDOWN },
        { "OOM command not allowed",                               RESP_FAULT_MEMORY     },
        { "BUSY Redis is busy running a script",                   RESP_FAULT_BUSY       },
        { "CLUSTERDOWN The cluster is down",                       RESP_FAULT_CLUSTERDOWN},
        { "MOVED 3999 127.0.0.1:6381",                             RESP_FAULT_MOVED      },
        { "ASK 3999 127.0.0.1:6381",                               RESP_FAULT_ASK        },
        { "TRYAGAIN",                                              RESP_FAULT_TRYAGAIN   },
        { "NOSCRIPT No matching script.",                          RESP_FAULT_NOSCRIPT   },
        { "MOVEDX 1 a:1",                                          RESP_FAULT_OTHER      },
        { "",                                                      RESP_FAULT_OTHER      },
        { " NOAUTH",                                               RESP_FAULT_OTHER      },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct resp reply = { .type = RESP_ERROR, .text = table[i].text, .size = strlen(table[i].text) };

        assert_int_equal(resp_fault(&reply), table[i].fault);
        reply.type = RESP_TEXT;
        assert_int_equal(resp_fault(&reply), RESP_FAULT_NONE);
    }
}

static void test_commands(void **state)
{
    static const char expected[] = "*1\r\n$4\r\nPING\r\n"
                                   "*3\r\n$3\r\nSET\r\n$3\r\na\0b\r\n$0\r\n\r\n";
    struct resp_commands commands = { .n = 0 };
    char *all;

    (void)state;
    for (int round = 0; round < 2; round++) {
        resp_commands_say(&commands, "PING");
        resp_commands_add(&commands,
                          (struct resp_word[]){
                              {"SET",   3},
                              { "a\0b", 3},
                              { "",     0}
        },
                          3);
        assert_int_equal(commands.n, 2);
        assert_int_equal(commands.size, sizeof expected - 1);
        assert_memory_equal(commands.octets, expected, sizeof expected - 1);
        resp_commands_clear(&commands);
    }
    for (int i = 0; i < 1000; i++)
        resp_commands_say(&commands, "HSET", "key", "field", "value");
    assert_false(commands.failed);
    all = read_all(commands.octets, commands.size, commands.size);
    assert_memory_equal(all, "[\"HSET\" \"key\" \"field\" \"value\"]\n[", 32);
    assert_int_equal(strlen(all), 1000 * 31);
    free(all);
    resp_commands_free(&commands);
    assert_null(commands.octets);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_later_protocol), cmocka_unit_test(test_broken_for_good),
        cmocka_unit_test(test_unparsed),       cmocka_unit_test(test_longest_text),
        cmocka_unit_test(test_memory),         cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_announced),      cmocka_unit_test(test_faults),
        cmocka_unit_test(test_commands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
