/* What relays write of their queues. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "counters/feedback.h"

static void test_share(void **state)
{
    static const struct {
        uint64_t depth, max;
        uint32_t share;
    } rows[] = {
        {0,           1000,       1000},
        { 500,        1000,       1000},
        { 750,        1000,       550 },
        { 1000,       1000,       100 },
        { 1001,       1000,       0   },
        { 5,          0,          1000},
        { 1,          1,          100 },
        { UINT64_MAX, 10,         0   },
        { UINT64_MAX, UINT64_MAX, 100 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(feedback_share(rows[i].depth, rows[i].max), rows[i].share);
}

/* "depth 5 max 10" as HGETALL has it. */
static bool read_words(const char *text, struct feedback *out)
{
    struct resp elements[16] = { 0 }, hash = { .type = RESP_ARRAY, .elements = elements };
    char copy[128], *rest = copy;

    strcpy(copy, text);
    for (char *word = strsep(&rest, " "); word && *word; word = strsep(&rest, " "))
        elements[hash.n++] = (struct resp){ .type = RESP_TEXT, .text = word, .size = strlen(word) };
    return feedback_read(&hash, out);
}

static void test_read(void **state)
{
    static const struct {
        const char *text;
        bool good;
        enum backend_admin admin;
        uint32_t share;
    } rows[] = {
        {"",                                  true,  BACKEND_READY, 1000},
        { "depth 750 max 1000",               true,  BACKEND_READY, 550 },
        { "depth 750 max 1000 weight 50",     true,  BACKEND_READY, 275 },
        { "state drain",                      true,  BACKEND_DRAIN, 1000},
        { "depth 1 max 2 state maint more x", true,  BACKEND_MAINT, 1000},
        { "weight 0",                         true,  BACKEND_READY, 0   },
        { "depth -5 max 10",                  false, BACKEND_READY, 1000},
        { "depth hello max 10",               false, BACKEND_READY, 1000},
        { "depth 9223372036854775807 max 1",  false, BACKEND_READY, 1000}, /* longer than any queue */
        { "weight 101",                       false, BACKEND_READY, 1000},
        { "state drain weight x",             false, BACKEND_READY, 1000},
        { "state off",                        false, BACKEND_READY, 1000},
        { "depth",                            false, BACKEND_READY, 1000},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct feedback out;

        if (read_words(rows[i].text, &out) != rows[i].good || out.admin != rows[i].admin ||
            out.share != rows[i].share)
            fail_msg("\"%s\": %d %u", rows[i].text, (int)out.admin, out.share);
    }
    assert_false(feedback_read(&(struct resp){ .type = RESP_ERROR, .text = "WRONGTYPE", .size = 9 },
                               &(struct feedback){ 0 }));
}

static void test_settle(void **state)
{
    struct feedback before = { BACKEND_READY, 550 }, heard = { BACKEND_READY, 500 };

    (void)state;
    assert_int_equal(feedback_settle(&before, &heard).share, 550);
    heard.share = 450;
    assert_int_equal(feedback_settle(&before, &heard).share, 450);
    before.share = 50;
    heard.share = 0;
    assert_int_equal(feedback_settle(&before, &heard).share, 0);
    before.share = 950;
    heard.share = FEEDBACK_ALL;
    heard.admin = BACKEND_DRAIN;
    assert_int_equal(feedback_settle(&before, &heard).share, FEEDBACK_ALL);
    assert_int_equal(feedback_settle(&before, &heard).admin, BACKEND_DRAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_settle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
