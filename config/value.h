/*
 * Scalars: the text of a value to its field, and back to words.
 */
#ifndef WEIR_CONFIG_VALUE_H
#define WEIR_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/option.h"

#define VALUE_ERROR_MAX 384 /* room for any message below */

/* Read `text` into the field (of a list: into one element). False: the field is as it was, and `error` holds
 * what was expected. */
bool value_read(const struct option *option, void *field, const char *text, char error[VALUE_ERROR_MAX]);

/* What the option expects, in words: "a whole number from 1 to 100". Of a list: what one entry is. Returns
 * `out`. */
const char *value_expected(const struct option *option, char out[VALUE_ERROR_MAX]);

/* Octets of one list element in memory. */
size_t value_element_size(enum option_type type);
/* Free what a scalar's field owns. */
void value_free(enum option_type type, void *field);

#endif
