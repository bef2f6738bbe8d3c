/* So many at a time, in the order in which they came. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "health/line.h"

enum { A, B, C, D, E, TURNS };

static struct turn turns[TURNS];
static char begun[16]; /* a letter for each whose turn came */
static char refused;   /* this one then had nothing to do */
static struct line line;

static bool begin(struct turn *turn)
{
    char name = (char)('a' + (turn - turns));

    begun[strlen(begun)] = name;
    return name != refused;
}

static int open_line(void **state)
{
    (void)state;
    memset(turns, 0, sizeof turns);
    memset(begun, 0, sizeof begun);
    refused = 0;
    line = (struct line){ .limit = 1, .begin = begin };
    return 0;
}

static void enter(int first, int last)
{
    for (int i = first; i <= last; i++)
        line_enter(&line, &turns[i]);
}

static void test_in_order(void **state)
{
    (void)state;
    line.limit = 2;
    enter(A, E);
    assert_string_equal(begun, "ab");
    line_leave(&line, &turns[B]);
    assert_string_equal(begun, "abc");
    line_leave(&line, &turns[A]);
    line_leave(&line, &turns[C]);
    assert_string_equal(begun, "abcde");
    line_leave(&line, &turns[D]);
    line_leave(&line, &turns[E]);
    assert_int_equal(line.running, 0);
    enter(C, C);
    assert_string_equal(begun, "abcdec");
}

static void test_once(void **state)
{
    (void)state;
    enter(A, B);
    enter(A, B);
    line_leave(&line, &turns[A]);
    line_leave(&line, &turns[A]);
    assert_string_equal(begun, "ab");
    line_leave(&line, &turns[B]);
    assert_string_equal(begun, "ab");
    assert_int_equal(line.running, 0);
}

/* Who waits and does not want to any more: the first, one in the middle, the last, all. */
static void test_left_before_its_turn(void **state)
{
    (void)state;
    enter(A, D);
    line_leave(&line, &turns[C]);
    line_leave(&line, &turns[D]);
    enter(E, E);
    enter(D, D);
    line_leave(&line, &turns[B]);
    assert_string_equal(begun, "a");
    line_leave(&line, &turns[A]);
    line_leave(&line, &turns[E]);
    line_leave(&line, &turns[D]);
    assert_string_equal(begun, "aed");
    enter(A, B);
    line_leave(&line, &turns[B]);
    enter(C, C);
    line_leave(&line, &turns[A]);
    assert_string_equal(begun, "aedac");
}

static void test_nothing_to_do(void **state)
{
    (void)state;
    refused = 'b';
    enter(A, C);
    line_leave(&line, &turns[A]);
    assert_string_equal(begun, "abc");
    assert_int_equal(line.running, 1);
    line_leave(&line, &turns[B]);
    assert_int_equal(line.running, 1);
}

static void test_closed(void **state)
{
    (void)state;
    enter(A, B);
    line.limit = 0;
    line_leave(&line, &turns[A]);
    enter(C, C);
    assert_string_equal(begun, "a");
    line_leave(&line, &turns[B]);
    line_leave(&line, &turns[C]);
    assert_null(line.first);
    assert_null(line.last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_in_order, open_line),
        cmocka_unit_test_setup(test_once, open_line),
        cmocka_unit_test_setup(test_left_before_its_turn, open_line),
        cmocka_unit_test_setup(test_nothing_to_do, open_line),
        cmocka_unit_test_setup(test_closed, open_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
