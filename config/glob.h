/*
 * Globs: '*' stands for any characters or none, '?' for one. Nothing else means anything but itself, neither
 * brackets nor backslashes: fnmatch() would take "[192.0.2.1]" for one character out of a set.
 */
#ifndef WEIR_CONFIG_GLOB_H
#define WEIR_CONFIG_GLOB_H

#include <stdbool.h>
#include <stddef.h>

/* A character is one of UTF-8; of what is not UTF-8, an octet. With `fold` the letters of ASCII match in
 * either case; others never do. Takes at most strlen(glob) * size steps. */
bool glob_matches(const char *glob, const char *text, size_t size, bool fold);

#endif
