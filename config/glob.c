#include "config/glob.h"

#include <stdint.h>

#define UTF8_MAX 4 /* octets of a character (RFC 3629 §3) */

/* Octets of the first character. */
static size_t character(const char *text, size_t size)
{
    size_t n = 1;
    while (n < size && n < UTF8_MAX && ((uint8_t)text[n] & 0xC0) == 0x80)
        n++;
    return n;
}

static char lower(char octet)
{
    return octet >= 'A' && octet <= 'Z' ? (char)(octet - 'A' + 'a') : octet;
}

/* Only the last star ever takes more: what stands between two stars is best found as early as possible. */
bool glob_matches(const char *glob, const char *text, size_t size, bool fold)
{
    const char *end = text + size, *behind_star = NULL, *taken = NULL;
    while (text < end) {
        if (*glob == '*') {
            behind_star = ++glob;
            taken = text;
        } else if (*glob == '?') {
            glob++;
            text += character(text, (size_t)(end - text));
        } else if (*glob && (*glob == *text || (fold && lower(*glob) == lower(*text)))) {
            glob++;
            text++;
        } else if (behind_star) {
            glob = behind_star;
            taken += character(taken, (size_t)(end - taken));
            text = taken;
        } else {
            return false;
        }
    }
    while (*glob == '*')
        glob++;
    return *glob == '\0';
}
