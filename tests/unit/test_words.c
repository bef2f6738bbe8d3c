/* What was said of addresses that are away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "health/words.h"

static struct words words;

static int open_words(void **state)
{
    (void)state;
    words = (struct words){ 0 };
    return 0;
}

static int close_words(void **state)
{
    (void)state;
    words_free(&words);
    assert_null(words.first);
    assert_null(words.last);
    return words.n != 0;
}

static void keep(const char *name, const char *found_at, uint32_t weight)
{
    struct order order = order_none;

    order.weight = weight;
    words_keep(&words, name, found_at, &order);
}

/* Its weight; 0: nothing was said. */
static uint32_t taken(const char *name, const char *found_at)
{
    struct order order;

    return words_take(&words, name, found_at, &order) ? order.weight : 0;
}

static void test_once(void **state)
{
    (void)state;
    assert_int_equal(taken("relay", "10.0.0.1"), 0);
    keep("relay", "10.0.0.1", 1);
    keep("relay", "10.0.0.2", 2);
    keep("other", "10.0.0.2", 3);
    keep("relay", "10.0.0.2", 4); /* in place of the 2 */
    assert_int_equal(words.n, 3);
    assert_int_equal(taken("rela", "10.0.0.1"), 0);
    assert_int_equal(taken("relay", "10.0.0"), 0);
    assert_int_equal(taken("relay", "10.0.0.2"), 4);
    assert_int_equal(taken("relay", "10.0.0.2"), 0);
    assert_int_equal(taken("other", "10.0.0.2"), 3);
    keep("last", "10.0.0.3", 5); /* behind one that was the last */
    assert_int_equal(taken("relay", "10.0.0.1"), 1);
    assert_int_equal(taken("last", "10.0.0.3"), 5);
    assert_int_equal(words.n, 0);
}

static void add_ten(void *arg, const char *full_name, struct order *order)
{
    strcat(arg, full_name);
    strcat(arg, " ");
    order->weight += 10;
}

static void test_change(void **state)
{
    char seen[128] = "";

    (void)state;
    keep("relay", "10.0.0.1", 1);
    keep("relay", "10.0.0.2", 2);
    keep("relays", "10.0.0.2", 3);
    words_change(&words, "relay", add_ten, seen);
    words_change(&words, "relays@10.0.0.2", add_ten, seen);
    words_change(&words, "relay@10.0.0.3", add_ten, seen);
    assert_string_equal(seen, "relay@10.0.0.1 relay@10.0.0.2 relays@10.0.0.2 ");
    assert_int_equal(taken("relay", "10.0.0.1"), 11);
    assert_int_equal(taken("relay", "10.0.0.2"), 12);
    assert_int_equal(taken("relays", "10.0.0.2"), 13);
}

static bool is_wanted(const void *arg, const char *name, size_t size)
{
    return strlen(arg) == size && memcmp(arg, name, size) == 0;
}

static void test_prune(void **state)
{
    (void)state;
    keep("gone", "10.0.0.1", 1);
    keep("relay", "10.0.0.1", 2);
    keep("gone", "10.0.0.2", 3);
    keep("gone", "10.0.0.3", 4);
    words_prune(&words, is_wanted, "relay");
    assert_int_equal(words.n, 1);
    keep("relay", "10.0.0.4", 5);
    assert_int_equal(taken("gone", "10.0.0.1"), 0);
    assert_int_equal(taken("relay", "10.0.0.1"), 2);
    assert_int_equal(taken("relay", "10.0.0.4"), 5);
}

static void test_bounded(void **state)
{
    char address[16];

    (void)state;
    for (unsigned i = 0; i <= WORDS_MAX; i++) {
        (void)snprintf(address, sizeof address, "10.0.%u.%u", i / 256, i % 256);
        keep("relay", address, i + 1);
    }
    assert_int_equal(words.n, WORDS_MAX);
    assert_int_equal(taken("relay", "10.0.0.0"), 0); /* the oldest */
    assert_int_equal(taken("relay", "10.0.0.1"), 2);
    assert_int_equal(taken("relay", address), WORDS_MAX + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_once, open_words, close_words),
        cmocka_unit_test_setup_teardown(test_change, open_words, close_words),
        cmocka_unit_test_setup_teardown(test_prune, open_words, close_words),
        cmocka_unit_test_setup_teardown(test_bounded, open_words, close_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
