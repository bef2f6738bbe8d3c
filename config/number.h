/*
 * Numbers as they stand in a configuration, with their units, both ways.
 */
#ifndef WEIR_CONFIG_NUMBER_H
#define WEIR_CONFIG_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"

#define NUMBER_TEXT_MAX 32

/* Digits and nothing else up to *end; false also where they don't fit. */
bool number_digits(const char *text, uint64_t *out, const char **end);
bool number_duration(const char *text, uint64_t *out); /* "30s": milliseconds */
bool number_size(const char *text, uint64_t *out);     /* "10MB": octets */
/* In the largest unit that divides it. Returns `out`. */
const char *number_duration_text(uint64_t value, char out[NUMBER_TEXT_MAX]);
const char *number_size_text(uint64_t value, char out[NUMBER_TEXT_MAX]);
/* "1000/1h": 1 to 1000000000 in 1s to 720h, no more than 1000000 a second. *detail, static, says what is
 * wrong with some that are not. */
bool number_rate(const char *text, struct config_rate *out, const char **detail);

#endif
