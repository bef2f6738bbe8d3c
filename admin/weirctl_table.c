#include "admin/weirctl_table.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#define GAP 2 /* columns between two of the table's */

struct cell {
    char *text; /* printable */
    const char *colour;
};

struct table {
    const struct table_column *columns;
    size_t n_columns;
    struct cell *cells;
    size_t n_cells, room;
};

/* --- text --- */

/* Octets of the character at `text` and the columns it takes; 0 columns: it is not to be shown. */
static size_t measure(const char *text, unsigned *columns)
{
    size_t most = strnlen(text, MB_LEN_MAX);
    mbstate_t state;
    wchar_t wide;
    size_t size;
    int width;

    memset(&state, 0, sizeof state);
    size = mbrtowc(&wide, text, most, &state);
    *columns = 0;
    if (size == 0 || size > most) /* broken, or of no use here */
        return 1;
    width = iswprint((wint_t)wide) ? wcwidth(wide) : 0;
    if (width > 0)
        *columns = (unsigned)width;
    return size;
}

char *table_printable(const char *text)
{
    char *printable = malloc(strlen(text) + 1), *end = printable;

    if (!printable)
        return NULL;
    while (*text) {
        unsigned columns;
        size_t size = measure(text, &columns);

        if (columns)
            end = mempcpy(end, text, size);
        else
            *end++ = '?';
        text += size;
    }
    *end = '\0';
    return printable;
}

unsigned table_width(const char *printable)
{
    unsigned width = 0, columns;

    for (; *printable; width += columns)
        printable += measure(printable, &columns);
    return width;
}

static void fill(FILE *out, unsigned columns)
{
    while (columns--)
        fputc(' ', out);
}

void table_write(FILE *out, const char *printable, unsigned width, bool right)
{
    unsigned natural = table_width(printable), used = 0, columns;

    if (natural <= width) {
        if (right)
            fill(out, width - natural);
        fputs(printable, out);
        if (!right)
            fill(out, width - natural);
        return;
    }
    while (width) {
        size_t size = measure(printable, &columns);

        if (used + columns + 1 > width)
            break;
        fwrite(printable, 1, size, out);
        printable += size;
        used += columns;
    }
    if (used < width) {
        fputc('~', out);
        fill(out, width - used - 1);
    }
}

void table_write_name(FILE *out, const char *printable, unsigned width)
{
    unsigned left = table_width(printable), head = width / 2, columns;
    const char *tail = printable;

    if (left <= width || head < 2) {
        table_write(out, printable, width, false);
        return;
    }
    while (left > width - head) {
        tail += measure(tail, &columns);
        left -= columns;
    }
    table_write(out, printable, head, false); /* it ends with the "~" */
    table_write(out, tail, width - head, false);
}

/* --- tables --- */

struct table *table_create(const struct table_column *columns, size_t n)
{
    struct table *table = calloc(1, sizeof *table);

    if (!table)
        return NULL;
    table->columns = columns;
    table->n_columns = n;
    return table;
}

void table_put(struct table *table, const char *text, const char *colour)
{
    if (!table)
        return;
    if (table->n_cells == table->room) {
        size_t room = table->room ? 2 * table->room : 64;
        struct cell *cells = realloc(table->cells, room * sizeof *cells);

        if (!cells)
            return;
        table->cells = cells;
        table->room = room;
    }
    table->cells[table->n_cells++] = (struct cell){ table_printable(text), colour };
}

static const char *text_of(const struct table *table, size_t cell)
{
    return cell < table->n_cells && table->cells[cell].text ? table->cells[cell].text : "";
}

static size_t rows(const struct table *table)
{
    return (table->n_cells + table->n_columns - 1) / table->n_columns;
}

static unsigned natural_width(const struct table *table, size_t column)
{
    unsigned width = table_width(table->columns[column].title);

    for (size_t r = 0; r < rows(table); r++) {
        unsigned of_cell = table_width(text_of(table, r * table->n_columns + column));

        width = of_cell > width ? of_cell : width;
    }
    return width;
}

/* The widest that may shrink gives a column at a time. */
static void fit(const struct table *table, unsigned *widths, unsigned width)
{
    unsigned total = (unsigned)(table->n_columns - 1) * GAP;

    for (size_t c = 0; c < table->n_columns; c++)
        total += widths[c] = natural_width(table, c);
    while (total > width) {
        size_t widest = table->n_columns;

        for (size_t c = 0; c < table->n_columns; c++) {
            unsigned least = table->columns[c].least;

            if (least && widths[c] > least && (widest == table->n_columns || widths[c] > widths[widest]))
                widest = c;
        }
        if (widest == table->n_columns)
            return;
        widths[widest]--;
        total--;
    }
}

/* Nothing is written behind the last column's text, so that lines don't wrap at the edge. */
static void print_cell(FILE *out, const char *text, unsigned width, const struct table_column *column,
                       bool last, const char *colour)
{
    unsigned natural = table_width(text);

    if (last && column->kind != TABLE_RIGHT && natural < width)
        width = natural;
    if (colour)
        fprintf(out, "\033[%sm", colour);
    if (column->kind == TABLE_NAME)
        table_write_name(out, text, width);
    else
        table_write(out, text, width, column->kind == TABLE_RIGHT);
    if (colour)
        fputs("\033[0m", out);
    if (!last)
        fill(out, GAP);
}

void table_print(const struct table *table, FILE *out, unsigned width, bool colours)
{
    unsigned *widths = table ? calloc(table->n_columns, sizeof *widths) : NULL;

    if (!widths)
        return;
    fit(table, widths, width);
    for (size_t c = 0; c < table->n_columns; c++)
        print_cell(out, table->columns[c].title, widths[c], &table->columns[c], c + 1 == table->n_columns,
                   colours ? TABLE_BOLD : NULL);
    fputc('\n', out);
    for (size_t i = 0; i < rows(table) * table->n_columns; i++) {
        size_t c = i % table->n_columns;
        const char *colour = colours && i < table->n_cells ? table->cells[i].colour : NULL;

        print_cell(out, text_of(table, i), widths[c], &table->columns[c], c + 1 == table->n_columns, colour);
        if (c + 1 == table->n_columns)
            fputc('\n', out);
    }
    free(widths);
}

void table_free(struct table **table)
{
    struct table *gone = *table;

    *table = NULL;
    if (!gone)
        return;
    for (size_t i = 0; i < gone->n_cells; i++)
        free(gone->cells[i].text);
    free(gone->cells);
    free(gone);
}
