/*
 * The virtual clock of a limit: bursts, the even refill, what can't be divided, and what is owed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "counters/gcra.h"

#define MS     GCRA_MILLISECOND
#define SECOND (1000 * MS)

/* Of `n` in `period` ms, at these moments in ms: how long to wait, in ms rounded up; 0: taken. */
static const struct {
    uint32_t n, period;
    size_t n_steps;
    struct {
        int64_t at, wait;
    } steps[9];
} table[] = {
  /* A burst of all, then one each interval. */
    {4,
     4000,      8,
     { { 0, 0 }, { 0, 0 }, { 0, 0 }, { 0, 0 }, { 0, 1000 }, { 999, 1 }, { 1000, 0 }, { 1000, 1000 } }    },
 /* What comes evenly is never refused. */
    { 2, 2000,  6, { { 0, 0 }, { 1000, 0 }, { 2000, 0 }, { 3000, 0 }, { 4000, 0 }, { 5000, 0 } }         },
 /* A refusal takes nothing. */
    { 1, 10000, 6, { { 0, 0 }, { 1, 9999 }, { 5000, 5000 }, { 9999, 1 }, { 10000, 0 }, { 10000, 10000 } }},
 /* Half the period gives half of it back, and a long one no more than all. */
    { 4, 4000,  7, { { 0, 0 }, { 0, 0 }, { 0, 0 }, { 0, 0 }, { 2000, 0 }, { 2000, 0 }, { 2000, 1000 } }  },
    { 2, 2000,  5, { { 0, 0 }, { 0, 0 }, { 900000, 0 }, { 900000, 0 }, { 900000, 1000 } }                },
 /* Intervals that are no whole number. */
    { 3, 1000,  6, { { 0, 0 }, { 0, 0 }, { 0, 0 }, { 0, 334 }, { 334, 0 }, { 334, 333 } }                },
    { 7, 1000,  8, { { 0, 0 }, { 0, 0 }, { 0, 0 }, { 0, 0 }, { 0, 0 }, { 0, 0 }, { 0, 0 }, { 0, 143 } }  },
};

static int64_t up(int64_t ns)
{
    return (ns + MS - 1) / MS;
}

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct gcra_limit limit = gcra_limit(table[i].n, table[i].period);
        int64_t full = 0, start = 3600000 * SECOND;

        for (size_t k = 0; k < table[i].n_steps; k++) {
            int64_t wait = up(gcra_take(&limit, &full, start + table[i].steps[k].at * MS));

            if (wait != table[i].steps[k].wait)
                fail_msg("row %zu, step %zu: %ld ms, not %ld", i, k, (long)wait,
                         (long)table[i].steps[k].wait);
        }
    }
}

/* Just n at once, whatever n and the period are. */
static void test_burst(void **state)
{
    static const struct {
        uint32_t n, period;
    } limits[] = {
        {1,         1000      },
        { 1,        2592000000},
        { 3,        1000      },
        { 7,        86400000  },
        { 99,       60000     },
        { 65537,    1000      },
        { 999999,   1000      },
        { 1000000,  1000      },
        { 1000000,  2592000000},
        { 10000000, 3600000   }
    };

    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct gcra_limit limit = gcra_limit(limits[i].n, limits[i].period);
        int64_t full = 0, now = 5 * SECOND, wait;

        for (uint32_t n = 0; n < limits[i].n; n++)
            assert_int_equal(gcra_take(&limit, &full, now), 0);
        wait = gcra_take(&limit, &full, now);
        assert_int_equal(wait, limit.interval);
        assert_int_equal(gcra_take(&limit, &full, now + wait - 1), 1);
        assert_int_equal(gcra_take(&limit, &full, now + wait), 0);
    }
}

/* Whoever asks all the time gets n a period, after the first. */
static void test_long_run(void **state)
{
    struct gcra_limit limit = gcra_limit(1000, 60000);
    int64_t full = 0;
    unsigned taken = 0;

    (void)state;
    for (int64_t now = SECOND; now <= 601 * SECOND; now += MS)
        taken += gcra_take(&limit, &full, now) == 0;
    assert_in_range(taken, 1000 + 10000 - 1, 1000 + 10000 + 1);
}

static void test_force(void **state)
{
    struct gcra_limit limit = gcra_limit(10, 10000);
    int64_t full = 0, now = 100 * SECOND;

    (void)state;
    gcra_force(&limit, &full, 12, now);
    assert_int_equal(gcra_take(&limit, &full, now), 3 * SECOND); /* two that are owed, and the next */
    assert_int_equal(gcra_take(&limit, &full, now + 3 * SECOND), 0);
    gcra_force(&limit, &full, UINT32_MAX, now);
    assert_int_equal(full, now + 20 * SECOND);
    gcra_force(&limit, &full, 1, now);
    assert_int_equal(full, now + 20 * SECOND);
    full = INT64_MAX; /* nothing that anybody wrote there overflows */
    gcra_force(&limit, &full, 1, now);
    assert_int_equal(full, now + 20 * SECOND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_burst),
        cmocka_unit_test(test_long_run),
        cmocka_unit_test(test_force),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
