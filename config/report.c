#include "config/report.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "config/memory.h"

void report_add(struct report *report, struct place place, const char *key, const char *format, ...)
{
    if (report->n_entries == REPORT_ENTRIES_MAX) {
        report->dropped++;
        return;
    }
    if (report->n_entries == report->capacity) {
        report->capacity = report->capacity ? 2 * report->capacity : 16;
        report->entries = memory_resize(report->entries, report->capacity, sizeof *report->entries);
    }
    struct report_entry *entry = &report->entries[report->n_entries++];
    entry->place = place;

    size_t size = 0;
    FILE *text = memory_stream(&entry->message, &size);
    if (key && !place.argument)
        fprintf(text, "%s: ", key);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(text, format, arguments);
    va_end(arguments);
    memory_stream_close(text);
}

const char *report_quote(const char *text, char out[REPORT_QUOTE_MAX])
{
    size_t n = 0;
    for (; text[n] && n < REPORT_QUOTE_MAX - 4; n++)
        out[n] = (unsigned char)text[n] < 0x20 || text[n] == 0x7f ? '?' : text[n];
    if (text[n]) {
        while (n && ((unsigned char)text[n] & 0xc0) == 0x80) /* not in the middle of a UTF-8 sequence */
            n--;
        memcpy(out + n, "...", 3);
        n += 3;
    }
    out[n] = '\0';
    return out;
}

static int compare_places(const struct place *a, const struct place *b)
{
    if (a->line != b->line)
        return a->line < b->line ? -1 : 1;
    return (a->column > b->column) - (a->column < b->column);
}

void report_write(struct report *report, FILE *out)
{
    /* Insertion: stable, and nearly sorted already, because the walk goes through the file from the top. */
    for (size_t i = 1; i < report->n_entries; i++) {
        struct report_entry entry = report->entries[i];
        size_t j = i;
        for (; j && compare_places(&report->entries[j - 1].place, &entry.place) > 0; j--)
            report->entries[j] = report->entries[j - 1];
        report->entries[j] = entry;
    }
    for (size_t i = 0; i < report->n_entries; i++) {
        const struct report_entry *entry = &report->entries[i];
        if (entry->place.argument)
            fprintf(out, "%s: %s\n", entry->place.argument, entry->message);
        else
            fprintf(out, "%s:%zu:%zu: %s\n", report->name, entry->place.line, entry->place.column,
                    entry->message);
    }
    if (report->dropped) {
        const struct report_entry *last = &report->entries[report->n_entries - 1];
        fprintf(out, "%s:%zu:%zu: and %zu more errors\n", report->name, last->place.line, last->place.column,
                report->dropped);
    }
}

void report_clear(struct report *report)
{
    for (size_t i = 0; i < report->n_entries; i++)
        free(report->entries[i].message);
    free(report->entries);
    *report = (struct report){ .name = report->name };
}
