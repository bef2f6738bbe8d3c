/*
 * What is wrong with a configuration: collected while it is read, written in one go in the order of the file.
 */
#ifndef WEIR_CONFIG_REPORT_H
#define WEIR_CONFIG_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Where something was said: a line and a column of the file, both from 1, or an argument of the command line.
 */
struct place {
    const char *argument; /* "--backend": stands in place of file, line, column and key; static */
    size_t line, column;
};

#define REPORT_ENTRIES_MAX 1000 /* bounds what a hostile file makes us keep and print */
#define REPORT_QUOTE_MAX   80   /* octets of a quoted value, its "..." and NUL included */

struct report_entry {
    struct place place;
    char *message; /* owned */
};

struct report {
    const char *name; /* the file's, as it stands in the messages; borrowed */
    struct report_entry *entries;
    size_t n_entries, capacity;
    size_t dropped; /* beyond REPORT_ENTRIES_MAX */
};

/* Add a message. `key` is the path of the option ("pools.relays.queue-size"); NULL where there is none. */
void report_add(struct report *report, struct place place, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A value from the file as it may be shown: cut to REPORT_QUOTE_MAX, control characters replaced. Returns
 * `out`. */
const char *report_quote(const char *text, char out[REPORT_QUOTE_MAX]);

/* Write all as "FILE:LINE:COLUMN: key: message", sorted by place; what has the same place keeps its order. */
void report_write(struct report *report, FILE *out);
void report_clear(struct report *report);

#endif
