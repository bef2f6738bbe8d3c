/*
 * Tables on a terminal: as wide as it is and no wider, whatever stands in them.
 *
 * Text comes from configurations and peers. Of what is no printable character of the locale (control
 * characters, directions, broken sequences) a "?" is shown.
 */
#ifndef WEIR_ADMIN_WEIRCTL_TABLE_H
#define WEIR_ADMIN_WEIRCTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define TABLE_GREEN  "32"
#define TABLE_YELLOW "33"
#define TABLE_RED    "31"
#define TABLE_GREY   "90"
#define TABLE_BOLD   "1"

enum table_kind {
    TABLE_LEFT, /* aligned */
    TABLE_RIGHT,
    TABLE_NAME, /* of too long a one both ends are shown: relay@10.0.0.11 and relay@10.0.0.12 begin alike */
};

struct table_column {
    const char *title;
    enum table_kind kind;
    unsigned least; /* columns it may shrink to when the table is too wide; 0: it never does */
};

struct table;

/* The columns must outlive it. NULL: out of memory. */
struct table *table_create(const struct table_column *columns, size_t n);
/* The next cell, row by row. `colour`: one of the above, or NULL. The text is copied. */
void table_put(struct table *table, const char *text, const char *colour);
void table_print(const struct table *table, FILE *out, unsigned width, bool colours);
void table_free(struct table **table);

/* Text as it may be shown, the caller's to free; NULL: out of memory. */
char *table_printable(const char *text);
/* Columns that printable text takes. */
unsigned table_width(const char *printable);
/* Write it in exactly `width` columns: cut with a "~", or filled up. */
void table_write(FILE *out, const char *printable, unsigned width, bool right);
/* The same with both ends of it. */
void table_write_name(FILE *out, const char *printable, unsigned width);

#endif
