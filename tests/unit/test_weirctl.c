/* Tables, numbers and text as weirctl shows them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "admin/weirctl.h"
#include "admin/weirctl_table.h"

/* What show() wrote, the caller's to free. */
static char *shown(void (*show)(FILE *, const json_t *, const struct style *), const char *json,
                   unsigned width, bool colours)
{
    const struct style style = { .width = width, .colours = colours };
    json_t *value = json_loads(json, 0, NULL);
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(value);
    assert_non_null(out);
    show(out, value, &style);
    fclose(out);
    json_decref(value);
    return text;
}

/* Every line is at most so wide. */
static void assert_fits(const char *text, unsigned width)
{
    while (*text) {
        size_t size = strcspn(text, "\n");
        char line[1024];

        assert_true(size < sizeof line);
        memcpy(line, text, size);
        line[size] = '\0';
        assert_in_range(table_width(line), 0, width);
        text += size + (text[size] == '\n');
    }
}

static void assert_printable(const char *text, const char *expected)
{
    char *printable = table_printable(text);

    assert_string_equal(printable, expected);
    free(printable);
}

static void test_text(void **state)
{
    (void)state;
    assert_printable("", "");
    assert_printable("relay1", "relay1");
    assert_printable("a\033[31mb\tc\r\nd\177e", "a?[31mb?c??d?e");
    assert_printable("caf\xc3\xa9", "caf\xc3\xa9");
    assert_printable("x\xffy\xc3", "x?y?");
    assert_printable("x\xc2\x9by", "x?y");             /* CSI as one character */
    assert_printable("x\xe2\x80\xaey", "x?y");         /* right to left from here */
    assert_printable("\xf0\x9f\x93", "???");           /* broken off */
    assert_int_equal(table_width("\xe6\xbc\xa2x"), 3); /* a wide one */
}

static void test_write(void **state)
{
    static const struct {
        const char *text, *expected;
        unsigned width;
        bool right;
    } table[] = {
        {"abc",                       "abc  ",         5, false},
        { "abc",                      "  abc",         5, true },
        { "abc",                      "abc",           3, false},
        { "abcd",                     "ab~",           3, false},
        { "abc",                      "~",             1, false},
        { "abc",                      "",              0, false},
        { "\xe6\xbc\xa2\xe6\xbc\xa2", "~ ",            2, false}, /* half of a wide one is none */
        { "\xe6\xbc\xa2\xe6\xbc\xa2", "\xe6\xbc\xa2~", 3, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);

        table_write(out, table[i].text, table[i].width, table[i].right);
        fclose(out);
        assert_string_equal(text, table[i].expected);
        free(text);
    }
}

static void test_table(void **state)
{
    static const struct table_column columns[] = {
        {"NAME",  TABLE_LEFT,  6},
        { "N",    TABLE_RIGHT, 0},
        { "WORD", TABLE_LEFT,  5},
    };
    struct table *table = table_create(columns, 3);
    char *text = NULL;
    size_t size = 0;
    FILE *out;

    (void)state;
    table_put(table, "a-name-that-is-long", NULL);
    table_put(table, "12", NULL);
    table_put(table, "something", TABLE_RED);
    table_put(table, "b", NULL); /* and nothing more in this row */
    out = open_memstream(&text, &size);
    table_print(table, out, 80, false);
    table_print(table, out, 20, false);
    table_print(table, out, 3, false); /* less than there can be: the least of each */
    table_print(table, out, 80, true);
    fclose(out);
    assert_string_equal(text, "NAME                  N  WORD\n"
                              "a-name-that-is-long  12  something\n"
                              "b                        \n"
                              "NAME      N  WORD\n"
                              "a-name~  12  someth~\n"
                              "b            \n"
                              "NAME     N  WORD\n"
                              "a-nam~  12  some~\n"
                              "b           \n"
                              "\033[1mNAME               \033[0m  \033[1m N\033[0m  \033[1mWORD\033[0m\n"
                              "a-name-that-is-long  12  \033[31msomething\033[0m\n"
                              "b                        \n");
    free(text);
    table_free(&table);
    assert_null(table);
}

static void test_numbers(void **state)
{
    char text[SHOW_SHORT];

    (void)state;
    assert_string_equal(show_count(0, text), "0");
    assert_string_equal(show_count(99999, text), "99999");
    assert_string_equal(show_count(100000, text), "100k");
    assert_string_equal(show_count(999499, text), "999k");
    assert_string_equal(show_count(999500, text), "1.0M");
    assert_string_equal(show_count(9949999, text), "9.9M");
    assert_string_equal(show_count(9950000, text), "10M");
    assert_string_equal(show_count(INT64_MAX, text), "9.2E");
    assert_string_equal(show_duration(-5, text), "0s");
    assert_string_equal(show_duration(59, text), "59s");
    assert_string_equal(show_duration(3599, text), "59m 59s");
    assert_string_equal(show_duration(86399, text), "23h 59m");
    assert_string_equal(show_duration(86400 * 400, text), "400d 0h");
}

static void test_backends(void **state)
{
    static const char json[] =
        "[{\"pool\":\"a-pool-with-a-long-name\",\"name\":\"relay-with-a-long-name@2001:db8:1234:5678:9abc:"
        "def0:1234:5678\","
        "\"address\":\"[2001:db8:1234:5678:9abc:def0:1234:5678]:2525\",\"state\":\"half-open\",\"admin\":"
        "\"maint\","
        "\"weight\":1000,\"connections\":12345678,\"limit\":1000000,\"delivered\":123456789012,\"failed\":"
        "99999,"
        "\"unknown\":1,\"since\":1,\"reason\":\"\\u001b[2Jhalf of its sessions failed, and a great many "
        "other things, as "
        "you see\"},"
        "{\"pool\":\"p\",\"name\":\"r\",\"address\":\"\",\"state\":\"up\",\"admin\":\"ready\",\"weight\":1,"
        "\"limit\":null}, {}, 5]";
    char *text;

    (void)state;
    for (unsigned width = 80; width <= 200; width += 40) {
        text = shown(show_backends, json, width, false);
        assert_fits(text, width);
        assert_null(strchr(text, '\033'));
        assert_non_null(strstr(text, "half-open"));
        assert_non_null(strstr(text, "123G"));
        assert_non_null(strstr(text, "100k")); /* failed, the unknown among them */
        free(text);
    }
    text = shown(show_backends, json, 80, true);
    assert_non_null(strstr(text, "\033[32mup"));
    assert_null(strstr(text, "agent"));
    free(text);
    text = shown(show_backends,
                 "[{\"name\":\"a\",\"state\":\"up\",\"agent\":{\"percent\":0}},"
                 "{\"name\":\"b\",\"state\":\"up\",\"agent\":{\"percent\":100}},"
                 "{\"name\":\"c\",\"state\":\"up\",\"agent\":{}}]",
                 80, false);
    assert_non_null(strstr(text, "\na: its agent says 0 % of its weight\n"));
    assert_null(strstr(text, "b: "));
    assert_null(strstr(text, "c: "));
    free(text);
}

static void test_the_others(void **state)
{
    char *text;

    (void)state;
    text = shown(show_status,
                 "{\"version\":\"1\",\"hostname\":\"h\\u001b\",\"pid\":7,\"uptime\":61,\"draining\":true,"
                 "\"ready\":false,"
                 "\"sessions\":2,\"pools\":[{\"name\":\"p\",\"backends\":2,\"usable\":1,\"panic\":true}]}",
                 80, false);
    assert_fits(text, 80);
    assert_non_null(strstr(text, "weir 1 on h?, pid 7, up 1m 1s: draining\n"));
    assert_non_null(strstr(text, "panic"));
    free(text);
    text = shown(show_sessions,
                 "{\"total\":2000,\"shown\":1,\"sessions\":[{\"session\":\"0123456789abcdef\",\"client\":"
                 "\"[2001:db8:1234:5678:9abc:def0:1234:5678]:65535\",\"state\":\"greeting\",\"backend\":null,"
                 "\"age\":90061,"
                 "\"transactions\":123456,\"helo\":\"a.very.long.name.indeed.example.org\"}]}",
                 80, false);
    assert_fits(text, 80);
    assert_non_null(strstr(text, "the newest 1 of 2000 sessions\n"));
    free(text);
    text = shown(show_orders,
                 "[{\"name\":\"r\",\"admin\":\"drain\",\"admin_by\":\"farm\",\"weight\":3,\"connections\":2},"
                 "{\"name\":\"s\",\"admin\":\"ready\",\"admin_by\":null,\"weight\":1,\"connections\":0}]",
                 80, false);
    assert_string_equal(text,
                        "r: drain (farm), weight 3, 2 connections\ns: ready, weight 1, 0 connections\n");
    free(text);
    /* What is no answer of Weir's shows nothing, and hurts nobody. */
    free(shown(show_status, "[]", 80, false));
    free(shown(show_sessions, "[1]", 80, false));
    free(shown(show_instances, "{\"a\":1}", 80, false));
    free(shown(show_orders, "[[],1]", 80, false));
    text = shown(show_backends,
                 "[{\"name\":\"r\",\"state\":\"down\",\"since\":-9223372036854775808,"
                 "\"failed\":9223372036854775807,\"unknown\":1}]",
                 80, false);
    assert_non_null(strstr(text, "9.2E\n"));
    assert_non_null(strstr(text, "r: down for 0s: "));
    free(text);
    free(shown(show_status, "{\"redis\":{\"since\":-9223372036854775808}}", 80, false));
    free(shown(show_instances, "[{\"alive\":false,\"last_seen\":-9223372036854775808}]", 80, false));
}

static void test_write_name(void **state)
{
    static const struct {
        const char *text, *expected;
        unsigned width;
    } table[] = {
        {"relay@10.0.0.11",                                   "relay@10.0.0.11", 15},
        { "relay@10.0.0.11",                                  "",                0 },
        { "relay@10.0.0.11",                                  "relay@~.0.0.11",  14},
        { "relay@10.0.0.11",                                  "r~11",            4 },
        { "relay@10.0.0.11",                                  "re~",             3 },
        { "relay@10.0.0.11",                                  "~",               1 },
        { "ab",                                               "ab  ",            4 },
        { "\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2", "~ \xe6\xbc\xa2 ", 5 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char *text = NULL;
        size_t size = 0;
        FILE *out = open_memstream(&text, &size);

        table_write_name(out, table[i].text, table[i].width);
        fclose(out);
        assert_string_equal(text, table[i].expected);
        free(text);
    }
}

/* Two that begin alike are told apart, as the addresses of one name are. */
static void test_names_that_begin_alike(void **state)
{
    static const char *const names[] = { "relay@2001:db8:0:1::11", "relay@2001:db8:0:1::12" };
    static const char backend[] = "{\"pool\": \"relays\", \"name\": \"%s\", \"state\": \"up\", "
                                  "\"admin\": \"ready\", \"address\": \"[2001:db8:0:1::1%d]:25\"}";
    static const char session[] =
        "{\"session\": \"0123456789abcdef\", \"client\": \"192.168.100.100:12345\", \"state\": \"idle\", "
        "\"backend\": \"%s\", \"helo\": \"client.example.net\"}";
    char *lines[4], json[2][512];

    (void)state;
    for (int i = 0; i < 2; i++) {
        (void)snprintf(json[0], sizeof json[0], backend, names[i], i);
        (void)snprintf(json[1], sizeof json[1], session, names[i]);
        for (int k = 0; k < 2; k++) {
            char all[600];

            (void)snprintf(all, sizeof all, k ? "{\"sessions\": [%s]}" : "[%s]", json[k]);
            lines[2 * k + i] = shown(k ? show_sessions : show_backends, all, 80, false);
            assert_fits(lines[2 * k + i], 80);
        }
    }
    assert_string_not_equal(lines[0], lines[1]);
    assert_string_not_equal(lines[2], lines[3]);
    for (int i = 0; i < 4; i++)
        free(lines[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),       cmocka_unit_test(test_write),
        cmocka_unit_test(test_table),      cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_backends),   cmocka_unit_test(test_the_others),
        cmocka_unit_test(test_write_name), cmocka_unit_test(test_names_that_begin_alike),
    };

    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
