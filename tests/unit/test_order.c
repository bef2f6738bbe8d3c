/* Words on a backend, and what they come to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "health/order.h"

static void test_fold(void **state)
{
    struct orders orders;
    struct order folded;

    (void)state;
    orders_init(&orders);
    folded = orders_fold(&orders);
    assert_int_equal(folded.admin, BACKEND_READY);
    assert_int_equal(folded.weight, ORDER_NO_WEIGHT);
    assert_int_equal(folded.share, ORDER_ALL);
    assert_int_equal(folded.limit, BACKEND_NO_CEILING);

    /* The strictest, the smallest, the product; the operator's weight before the farm's. */
    orders.by[ORDER_FARM] =
        (struct order){ .admin = BACKEND_MAINT, .weight = 7, .share = 500, .limit = BACKEND_NO_CEILING };
    orders.by[ORDER_AGENT] =
        (struct order){ .admin = BACKEND_DRAIN, .weight = ORDER_NO_WEIGHT, .share = 500, .limit = 30 };
    folded = orders_fold(&orders);
    assert_int_equal(folded.admin, BACKEND_MAINT);
    assert_int_equal(orders_admin_source(&orders), ORDER_FARM);
    assert_int_equal(folded.weight, 7);
    assert_int_equal(folded.share, 250);
    assert_int_equal(folded.limit, 30);
    orders.by[ORDER_OPERATOR] =
        (struct order){ .admin = BACKEND_READY, .weight = 0, .share = ORDER_ALL, .limit = 40 };
    folded = orders_fold(&orders);
    assert_int_equal(folded.weight, 0);
    assert_int_equal(folded.limit, 30);

    /* `ready` lifts only its own. */
    assert_int_equal(folded.admin, BACKEND_MAINT);
    orders.by[ORDER_FARM] = order_none;
    assert_int_equal(orders_fold(&orders).admin, BACKEND_DRAIN);
    assert_int_equal(orders_admin_source(&orders), ORDER_AGENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_fold) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
