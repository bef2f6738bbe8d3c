#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/hash.h"

/* The first and the last of the authors' own vectors, and their example: octets that count up from 0, under
 * the key that does. */
static void test_vectors(void **state)
{
    static const uint64_t key[2] = { UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908) };
    uint8_t input[63];

    (void)state;
    for (size_t i = 0; i < sizeof input; i++)
        input[i] = (uint8_t)i;
    assert_int_equal(hash_keyed(key, input, 0), UINT64_C(0x726fdb47dd0e0e31));
    assert_int_equal(hash_keyed(key, input, 8), UINT64_C(0x93f5f5799a932462));
    assert_int_equal(hash_keyed(key, input, 15), UINT64_C(0xa129ca6149be45e5));
    assert_int_equal(hash_keyed(key, input, 63), UINT64_C(0x958a324ceb064572));
}

static void test_secret(void **state)
{
    (void)state;
    assert_true(hash_secretly("a", 1) == hash_secretly("a", 1));
    assert_true(hash_secretly("a", 1) != hash_secretly("b", 1));
    assert_true(hash_secretly("a", 1) != hash_secretly("a", 2));
    assert_true(hash_secretly("a", 1) != hash_keyed((const uint64_t[2]){ 0, 0 }, "a", 1)); /* it has a key */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_secret),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
