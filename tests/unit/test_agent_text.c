/* What agents say: good, odd and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "health/agent_text.h"

#define NONE BACKEND_NO_CEILING
#define NO   (-1) /* not said */

struct row {
    const char *text;
    enum agent_verdict verdict;
    int admin, share;
    int64_t limit;
    enum agent_health health;
    const char *why, *odd;
};

/* clang-format off */
static const struct row rows[] = {
    { "75%\n", AGENT_TEXT_SAID, NO, 750, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "0%\r\n", AGENT_TEXT_SAID, NO, 0, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "100%\r", AGENT_TEXT_SAID, NO, 1000, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "007%\n", AGENT_TEXT_SAID, NO, 70, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "150%\n", AGENT_TEXT_SAID, NO, 1500, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "99999999999999999999999999999999%\n", AGENT_TEXT_SAID, NO, AGENT_SHARE_MAX, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "maxconn:30\n", AGENT_TEXT_SAID, NO, NO, 30, AGENT_HEALTH_UNSAID, "", "" },
    { "MaxConn:0\n", AGENT_TEXT_SAID, NO, NO, NONE, AGENT_HEALTH_UNSAID, "", "" },
    { "maxconn:18446744073709551617\n", AGENT_TEXT_SAID, NO, NO, AGENT_LIMIT_MAX, AGENT_HEALTH_UNSAID, "", "" },
    { "ready\n", AGENT_TEXT_SAID, BACKEND_READY, NO, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "DRAIN\n", AGENT_TEXT_SAID, BACKEND_DRAIN, NO, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "Maint\n", AGENT_TEXT_SAID, BACKEND_MAINT, NO, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "up\n", AGENT_TEXT_SAID, NO, NO, NO, AGENT_UP, "", "" },
    { "down\n", AGENT_TEXT_SAID, NO, NO, NO, AGENT_DOWN, "", "" },
    { "fail # queue is full\n", AGENT_TEXT_SAID, NO, NO, NO, AGENT_FAIL, "queue is full", "" },
    { "stopped#upgrade, back at 5\r\n", AGENT_TEXT_SAID, NO, NO, NO, AGENT_STOPPED, "upgrade, back at 5", "" },
    { "down #\n", AGENT_TEXT_SAID, NO, NO, NO, AGENT_DOWN, "", "" },
    { "down #a # b\n", AGENT_TEXT_SAID, NO, NO, NO, AGENT_DOWN, "a # b", "" },
    { "down\n#why\n", AGENT_TEXT_SAID, NO, NO, NO, AGENT_DOWN, "", "" },
    { "up ready,50%\tmaxconn:7\n", AGENT_TEXT_SAID, BACKEND_READY, 500, 7, AGENT_UP, "", "" },
    { " ,, up\t,\n", AGENT_TEXT_SAID, NO, NO, NO, AGENT_UP, "", "" },
    { "ready down #both\n", AGENT_TEXT_SAID, BACKEND_READY, NO, NO, AGENT_DOWN, "both", "" },
    /* The last of a kind, and the first line only. */
    { "10% up 20% down 30% drain ready\n", AGENT_TEXT_SAID, BACKEND_READY, 300, NO, AGENT_DOWN, "", "" },
    { "50%\n0% down\n", AGENT_TEXT_SAID, NO, 500, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "50%\r0%", AGENT_TEXT_SAID, NO, 500, NO, AGENT_HEALTH_UNSAID, "", "" },
    /* Without a line end, but the agent has closed. */
    { "up 25%", AGENT_TEXT_SAID, NO, 250, NO, AGENT_UP, "", "" },
    /* What is not understood takes nothing away from what is. */
    { "up load:3 75% x\n", AGENT_TEXT_SAID, NO, 750, NO, AGENT_UP, "", "load:3" },
    { "75\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "75" },
    { "-5%\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "-5%" },
    { "+5%\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "+5%" },
    { "7.5%\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "7.5%" },
    { "%\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "%" },
    { "7%%\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "7%%" },
    { "75 %\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "75" },
    { "maxconn:\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "maxconn:" },
    { "maxconn: 30\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "maxconn:" },
    { "maxconn:-1\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "maxconn:-1" },
    { "upp\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "upp" },
    { "u\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "u" },
    { "220 mail.example.net ESMTP\r\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "220" },
    { "\xff\xfe\x80\x01\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "\xff\xfe\x80\x01" },
    { "abcdefghijklmnopqrstuvwxyzabcdefghijklmnop\n", AGENT_TEXT_ODD, NO, NO, NO, AGENT_HEALTH_UNSAID, "",
      "abcdefghijklmnopqrstuvwxyzabcde" },
    { "\n", AGENT_TEXT_NOTHING, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "", AGENT_TEXT_NOTHING, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "" },
    { " ,\t\n", AGENT_TEXT_NOTHING, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "" },
    { "#down\n", AGENT_TEXT_NOTHING, NO, NO, NO, AGENT_HEALTH_UNSAID, "down", "" },
    { "\nup\n", AGENT_TEXT_NOTHING, NO, NO, NO, AGENT_HEALTH_UNSAID, "", "" },
};
/* clang-format on */

/* Of just that size, for the address sanitizer. */
static enum agent_verdict read_copy(const char *text, size_t size, bool ended, struct agent_text *out)
{
    char *copy = malloc(size ? size : 1);
    enum agent_verdict verdict;

    assert_non_null(copy);
    memcpy(copy, text, size);
    verdict = agent_text_read(copy, size, ended, out);
    free(copy);
    return verdict;
}

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = &rows[i];
        size_t size = strlen(row->text), line = strcspn(row->text, "\r\n");
        struct agent_text said;

        print_message("%zu\n", i);
        assert_int_equal(read_copy(row->text, size, true, &said), row->verdict);
        assert_int_equal(said.says_admin, row->admin != NO);
        assert_true(row->admin == NO || said.admin == (enum backend_admin)row->admin);
        assert_int_equal(said.says_share, row->share != NO);
        assert_true(row->share == NO || said.share == (uint32_t)row->share);
        assert_int_equal(said.says_limit, row->limit != NO);
        assert_true(row->limit == NO || said.limit == (uint32_t)row->limit);
        assert_int_equal(said.health, row->health);
        assert_string_equal(said.why, row->why);
        assert_string_equal(said.odd, row->odd);
        /* In pieces: nothing is concluded before the line has ended, and then the same. */
        for (size_t n = 0; n <= line; n++)
            assert_int_equal(read_copy(row->text, n, false, &said), AGENT_TEXT_MORE);
        if (line < size)
            assert_int_equal(read_copy(row->text, line + 1, false, &said), row->verdict);
    }
}

static void test_no_line(void **state)
{
    static char megabyte[1 << 20];
    struct agent_text said;

    (void)state;
    assert_int_equal(read_copy("up\0\n", 4, false, &said), AGENT_TEXT_NO_LINE);
    assert_int_equal(read_copy("\0", 1, false, &said), AGENT_TEXT_NO_LINE);
    assert_int_equal(read_copy("up\n\0", 4, false, &said), AGENT_TEXT_SAID);
    memset(megabyte, 'x', sizeof megabyte);
    assert_int_equal(read_copy(megabyte, sizeof megabyte, true, &said), AGENT_TEXT_NO_LINE);
    assert_int_equal(read_copy(megabyte, AGENT_TEXT_MAX, false, &said), AGENT_TEXT_NO_LINE);
    assert_int_equal(read_copy(megabyte, AGENT_TEXT_MAX - 1, false, &said), AGENT_TEXT_MORE);
    assert_int_equal(read_copy(megabyte, AGENT_TEXT_MAX - 1, true, &said), AGENT_TEXT_ODD);
    memcpy(megabyte, "up #", 4);
    assert_int_equal(read_copy(megabyte, AGENT_TEXT_MAX - 1, true, &said), AGENT_TEXT_SAID);
    assert_int_equal(strlen(said.why), AGENT_WHY_MAX - 1);
    megabyte[AGENT_TEXT_MAX - 1] = '\n';
    assert_int_equal(read_copy(megabyte, sizeof megabyte, false, &said), AGENT_TEXT_SAID);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(agent_health_name(AGENT_STOPPED), "stopped");
    assert_string_equal(agent_health_name(AGENT_UP), "up");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_no_line),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
