/* Decimal digits without printf, for what is written once per message. */
#ifndef WEIR_NET_DECIMAL_H
#define WEIR_NET_DECIMAL_H

#include <stdint.h>

/* Write `number` at `at`, which has room for 10 octets; no NUL. Returns the end. */
static inline char *decimal_put(char *at, uint32_t number)
{
    char digits[10];
    int n = 0;

    do
        digits[n++] = (char)('0' + number % 10);
    while (number /= 10);
    do
        *at++ = digits[--n];
    while (n);
    return at;
}

#endif
