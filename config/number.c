#include "config/number.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit durations[] = {
    {"h",   3600000},
    { "m",  60000  },
    { "s",  1000   },
    { "ms", 1      }
};
static const struct unit sizes[] = {
    {"GB",  1 << 30},
    { "MB", 1 << 20},
    { "KB", 1 << 10},
    { "",   1      }
};

bool number_digits(const char *text, uint64_t *out, const char **end)
{
    uint64_t n = 0;
    const char *p = text;
    for (; isdigit((unsigned char)*p); p++)
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
            return false;
    *out = n;
    *end = p;
    return p != text;
}

static bool read_with_unit(const char *text, const struct unit *units, size_t n_units, uint64_t *out)
{
    const char *end;
    if (!number_digits(text, out, &end))
        return false;
    if (*out == 0 && *end == '\0')
        return true; /* nothing is nothing in every unit */
    for (size_t i = 0; i < n_units; i++)
        if (strcmp(end, units[i].name) == 0)
            return !__builtin_mul_overflow(*out, units[i].factor, out);
    return false;
}

static const char *with_unit(uint64_t value, const struct unit *units, size_t n_units,
                             char out[NUMBER_TEXT_MAX])
{
    size_t i = 0;
    while (i < n_units - 1 && (value < units[i].factor || value % units[i].factor))
        i++;
    snprintf(out, NUMBER_TEXT_MAX, "%llu%s", (unsigned long long)(value / units[i].factor), units[i].name);
    return out;
}

bool number_duration(const char *text, uint64_t *out)
{
    return read_with_unit(text, durations, COUNT(durations), out);
}

bool number_size(const char *text, uint64_t *out)
{
    return read_with_unit(text, sizes, COUNT(sizes), out);
}

const char *number_duration_text(uint64_t value, char out[NUMBER_TEXT_MAX])
{
    return with_unit(value, durations, COUNT(durations), out);
}

const char *number_size_text(uint64_t value, char out[NUMBER_TEXT_MAX])
{
    return with_unit(value, sizes, COUNT(sizes), out);
}

#define RATE_MAX        UINT64_C(1000000000)
#define RATE_PERIOD_MIN UINT64_C(1000)
#define RATE_PERIOD_MAX UINT64_C(2592000000) /* 720h */
#define RATE_MOST       1000                 /* a millisecond: finer intervals would be rounded away */

bool number_rate(const char *text, struct config_rate *out, const char **detail)
{
    const char *end;
    uint64_t n, period;
    if (!number_digits(text, &n, &end) || *end != '/' || !number_duration(end + 1, &period))
        return false;
    if (n == 0) {
        *detail = "that would be no mail at all; who may send is for allow-from to say";
        return false;
    }
    if (n > RATE_MAX || period < RATE_PERIOD_MIN || period > RATE_PERIOD_MAX)
        return false;
    if (n / RATE_MOST > period || (n / RATE_MOST == period && n % RATE_MOST)) {
        *detail = "that is more than 1000000 a second";
        return false;
    }
    *out = (struct config_rate){ (uint32_t)n, (uint32_t)period };
    return true;
}
