/* What is asked over the control socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "admin/request.h"

static bool parse(const char *line, struct request *out, const char **error)
{
    *error = NULL;
    return request_parse(line, strlen(line), out, error);
}

static void test_good(void **state)
{
    struct request request;
    const char *error;

    (void)state;
    for (int c = 0; c < REQUEST_COMMANDS; c++) {
        char line[128];

        if (request_command_has_name((enum request_command)c))
            continue;
        snprintf(line, sizeof line, "{\"command\":\"%s\"}", request_command_name((enum request_command)c));
        assert_true(parse(line, &request, &error));
        assert_int_equal(request.command, c);
        assert_string_equal(request.name, "");
    }
    assert_true(parse(" {\"name\": \"relay@10.0.0.11\" , \"command\":\"drain\"}\r", &request, &error));
    assert_int_equal(request.command, REQUEST_DRAIN);
    assert_string_equal(request.name, "relay@10.0.0.11");
    assert_true(parse("{\"command\":\"weight\",\"name\":\"r\",\"weight\":1000}", &request, &error));
    assert_int_equal(request.weight, 1000);
    assert_false(request.weight_default);
    assert_true(parse("{\"command\":\"weight\",\"name\":\"r\",\"weight\":\"default\"}", &request, &error));
    assert_true(request.weight_default);
}

static void test_bad(void **state)
{
    static const struct {
        const char *line, *error;
    } table[] = {
        {"",                                                               "one JSON object"},
        { "status",                                                        "one JSON object"},
        { "{\"command\":\"status\"}{}",                                    "one JSON object"},
        { "{\"command\":\"status\",\"command\":\"status\"}",               "one JSON object"},
        { "{\"command\":\"drain\",\"name\":\"a\\u0000b\"}",                "one JSON object"},
        { "{\"command\":\"drain\",\"name\":\"\xff\"}",                     "one JSON object"},
        { "[\"status\"]",                                                  "a JSON object"  },
        { "{}",                                                            "\"command\""    },
        { "{\"command\":null}",                                            "\"command\""    },
        { "{\"command\":\"Status\"}",                                      "\"command\""    },
        { "{\"command\":\"\"}",                                            "\"command\""    },
        { "{\"command\":\"drain\"}",                                       "\"name\""       },
        { "{\"command\":\"drain\",\"name\":\"\"}",                         "\"name\""       },
        { "{\"command\":\"drain\",\"name\":[\"r\"]}",                      "\"name\""       },
        { "{\"command\":\"reload\",\"name\":\"r\"}",                       "\"name\""       },
        { "{\"command\":\"drain\",\"name\":\"r\",\"weight\":1}",           "\"weight\""     },
        { "{\"command\":\"weight\",\"name\":\"r\"}",                       "\"weight\""     },
        { "{\"command\":\"weight\",\"name\":\"r\",\"weight\":-1}",         "\"weight\""     },
        { "{\"command\":\"weight\",\"name\":\"r\",\"weight\":1001}",       "\"weight\""     },
        { "{\"command\":\"weight\",\"name\":\"r\",\"weight\":4294967297}", "\"weight\""     },
        { "{\"command\":\"weight\",\"name\":\"r\",\"weight\":1.0}",        "\"weight\""     },
        { "{\"command\":\"weight\",\"name\":\"r\",\"weight\":\"5\"}",      "\"weight\""     },
        { "{\"command\":\"status\",\"verbose\":true}",                     "unknown key"    },
    };
    struct request request;
    const char *error;

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_false(parse(table[i].line, &request, &error));
        assert_non_null(strstr(error, table[i].error));
    }
}

static void test_bounds(void **state)
{
    char line[REQUEST_MAX + 1];
    struct request request;
    const char *error;
    size_t begin;

    (void)state;
    /* The longest line there may be: blanks count. */
    begin = (size_t)snprintf(line, sizeof line, "{\"command\":\"status\"}");
    memset(line + begin, ' ', sizeof line - begin);
    assert_true(request_parse(line, REQUEST_MAX - 1, &request, &error));
    assert_false(request_parse(line, REQUEST_MAX, &request, &error));
    assert_non_null(strstr(error, "4096"));
    /* Names: 255 octets and not one more. */
    for (size_t n = REQUEST_NAME_MAX; n <= REQUEST_NAME_MAX + 1; n++) {
        begin = (size_t)snprintf(line, sizeof line, "{\"command\":\"drain\",\"name\":\"");
        memset(line + begin, 'x', n);
        strcpy(line + begin + n, "\"}");
        assert_int_equal(parse(line, &request, &error), n == REQUEST_NAME_MAX);
    }
    assert_false(request_parse("{\"command\":\"status\"}\0", 21, &request, &error));
    /* As deep as a line can be. */
    memset(line, '[', REQUEST_MAX - 1);
    assert_false(request_parse(line, REQUEST_MAX - 1, &request, &error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
