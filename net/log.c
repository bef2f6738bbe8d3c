/*
 * Building one line.
 *
 *     logfmt   time=2026-11-23T20:12:40.123Z level=info event=session helo="a b" seconds=12
 *     JSON     {"time":"2026-11-23T20:12:40.123Z","level":"info","event":"session","helo":"a b","seconds":12}
 *
 * A busy proxy writes thousands of lines a second, of twenty fields each: what is in a line is copied by
 * hand, runs of harmless octets at a time.
 */
#include "net/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "net/log_internal.h"

#define TAIL_ROOM  24 /* kept for the end of the line: ,"truncated":true}\n */
#define FIELD_END  (LOG_RECORD_MAX - TAIL_ROOM)
#define MARK       "..."
#define MARK_SIZE  3
#define ESCAPE_MAX 12 /* octets that one character of the value becomes at most: \xNN of three octets */
#define WORTH      32 /* with less room than this a value is left out rather than cut */

/* What an octet asks for in a value. */
enum octet_class {
    OCTET_PLAIN,
    OCTET_QUOTE,  /* fine between quotes */
    OCTET_ESCAPE, /* must be looked at: escaped, or part of a longer UTF-8 sequence */
};

static const uint8_t classes[256] = {
    [0x00 ... 0x1f] = OCTET_ESCAPE, [' '] = OCTET_QUOTE,
    ['"'] = OCTET_ESCAPE,           ['='] = OCTET_QUOTE,
    ['\\'] = OCTET_ESCAPE,          [0x7f ... 0xff] = OCTET_ESCAPE,
};

static const char hex[] = "0123456789abcdef";

static const struct {
    const char *name;
    size_t size;
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error",    5},
    [LOG_LEVEL_WARNING] = { "warning", 7},
    [LOG_LEVEL_INFO] = { "info",    4},
    [LOG_LEVEL_DEBUG] = { "debug",   5},
};

static _Atomic enum log_format wanted_format = LOG_FORMAT_LOGFMT;
static _Atomic enum log_level wanted_level = LOG_LEVEL_INFO;

void log_set_style(enum log_format format, enum log_level level)
{
    atomic_store_explicit(&wanted_format, format, memory_order_relaxed);
    atomic_store_explicit(&wanted_level, level, memory_order_relaxed);
}

/* --- octets --- */

static void put(struct log_record *r, const char *text, size_t size)
{
    memcpy(r->line + r->size, text, size);
    r->size += size;
}

static void put_octet(struct log_record *r, char octet)
{
    r->line[r->size++] = octet;
}

/* Octets at the beginning that may stand between quotes as they are. */
static size_t harmless(const char *value, size_t size)
{
    size_t i = 0;

    while (i < size && classes[(uint8_t)value[i]] != OCTET_ESCAPE)
        i++;
    return i;
}

static bool is_plain(const char *value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (classes[(uint8_t)value[i]] != OCTET_PLAIN)
            return false;
    }
    return size > 0;
}

/* --- UTF-8 (RFC 3629 §4) --- */

/* Octets of the sequence that `in` begins with, and its code point; 0 if it is none: cut off, overlong, a
 * surrogate, or beyond U+10FFFF. */
static size_t utf8_sequence(const uint8_t *in, size_t size, uint32_t *code)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t n = in[0] >= 0xf0 ? 4 : in[0] >= 0xe0 ? 3 : 2;
    uint32_t c;

    if (in[0] < 0xc2 || in[0] > 0xf4 || size < n)
        return 0;
    c = in[0] & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((in[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (in[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *code = c;
    return n;
}

/* Characters that would let one line look like two, or read otherwise than it is: C1 controls, line and
 * paragraph separator, and what turns the direction of writing. */
static bool is_deceptive(uint32_t code)
{
    return (code >= 0x80 && code <= 0x9f) || code == 0x61c || code == 0x200e || code == 0x200f ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

/* --- escapes --- */

/* The short escape that both formats know, or NUL. */
static char short_escape(uint8_t octet)
{
    switch (octet) {
    case '"':
    case '\\': return (char)octet;
    case '\n': return 'n';
    case '\r': return 'r';
    case '\t': return 't';
    default: return '\0';
    }
}

static size_t unicode_escape(uint32_t code, char *out)
{
    out[0] = '\\';
    out[1] = 'u';
    for (int i = 0; i < 4; i++)
        out[2 + i] = hex[code >> (12 - 4 * i) & 15];
    return 6;
}

static size_t octet_escapes(const uint8_t *in, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) {
        *out++ = '\\';
        *out++ = 'x';
        *out++ = hex[in[i] >> 4];
        *out++ = hex[in[i] & 15];
    }
    return 4 * n;
}

/* Write the character that `in` begins with as the format wants it. Octets read; *written octets are in
 * `out`. */
static size_t write_character(enum log_format format, const uint8_t *in, size_t size, char out[ESCAPE_MAX],
                              size_t *written)
{
    uint32_t code = in[0];
    size_t n = in[0] < 0x80 ? 1 : utf8_sequence(in, size, &code);

    if (n > 1 && !is_deceptive(code)) {
        memcpy(out, in, n);
        *written = n;
        return n;
    }
    if (n == 1 && short_escape(in[0])) {
        out[0] = '\\';
        out[1] = short_escape(in[0]);
        *written = 2;
        return 1;
    }
    if (n == 0)
        n = 1; /* not UTF-8: the octet for itself */
    *written = format == LOG_FORMAT_JSON ? unicode_escape(code, out) : octet_escapes(in, n, out);
    return n;
}

/* Append at most `limit` octets of it; false if that cut it. */
static bool put_escaped(struct log_record *r, const char *value, size_t size, size_t limit)
{
    size_t end = r->size + limit;
    char out[ESCAPE_MAX];
    size_t i = 0;

    for (;;) {
        size_t room = end - r->size, written;
        size_t run = harmless(value + i, size - i < room ? size - i : room);

        put(r, value + i, run);
        i += run;
        if (i == size)
            return true;
        if (r->size == end)
            return false;
        run = write_character(r->format, (const uint8_t *)value + i, size - i, out, &written);
        if (written > end - r->size)
            return false;
        put(r, out, written);
        i += run;
    }
}

/* --- fields --- */

/* The separator and the key, if `need` octets of value fit behind them. */
static bool put_key(struct log_record *r, const char *key, size_t need)
{
    size_t size = strlen(key);
    bool json = r->format == LOG_FORMAT_JSON;

    if (size + 4 + need > FIELD_END - r->size) {
        r->truncated = true;
        return false;
    }
    if (json) {
        put(r, ",\"", 2);
        put(r, key, size);
        put(r, "\":", 2);
    } else {
        put_octet(r, ' ');
        put(r, key, size);
        put_octet(r, '=');
    }
    return true;
}

static void put_value(struct log_record *r, const char *value, size_t size)
{
    size_t room = FIELD_END - r->size - 2 - MARK_SIZE; /* what quotes and mark leave of the line */
    size_t limit = room < LOG_VALUE_MAX ? room : LOG_VALUE_MAX;

    if (r->format == LOG_FORMAT_LOGFMT && size <= limit && is_plain(value, size)) {
        put(r, value, size);
        return;
    }
    put_octet(r, '"');
    if (!put_escaped(r, value, size, limit)) {
        put(r, MARK, MARK_SIZE);
        r->truncated |= room < LOG_VALUE_MAX;
    }
    put_octet(r, '"');
}

/* --- time --- */

static void put_two(char *out, int n)
{
    out[0] = (char)('0' + n / 10 % 10);
    out[1] = (char)('0' + n % 10);
}

/* RFC 3339, UTC, milliseconds. The part down to the second is formatted once a second and thread. */
static void put_time(struct log_record *r)
{
    static _Thread_local time_t second = -1;
    static _Thread_local char text[] = "0000-00-00T00:00:00.000Z";
    struct timespec now;
    int milliseconds;

    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec != second) {
        struct tm tm;

        gmtime_r(&now.tv_sec, &tm);
        put_two(text, (tm.tm_year + 1900) / 100);
        put_two(text + 2, (tm.tm_year + 1900) % 100);
        put_two(text + 5, tm.tm_mon + 1);
        put_two(text + 8, tm.tm_mday);
        put_two(text + 11, tm.tm_hour);
        put_two(text + 14, tm.tm_min);
        put_two(text + 17, tm.tm_sec);
        second = now.tv_sec;
    }
    milliseconds = (int)(now.tv_nsec / 1000000);
    text[20] = (char)('0' + milliseconds / 100);
    put_two(text + 21, milliseconds % 100);
    put(r, text, sizeof text - 1);
}

/* --- records --- */

static void begin(struct log_record *r, enum log_level level, enum log_format format, const char *event)
{
    r->level = level;
    r->format = format;
    r->truncated = false;
    r->size = 0;
    if (format == LOG_FORMAT_JSON) {
        put(r, "{\"time\":\"", 9);
        put_time(r);
        put(r, "\",\"level\":\"", 11);
        put(r, levels[level].name, levels[level].size);
        put_octet(r, '"');
    } else {
        put(r, "time=", 5);
        put_time(r);
        put(r, " level=", 7);
        put(r, levels[level].name, levels[level].size);
    }
    log_plain(r, "event", event);
}

static void end(struct log_record *r)
{
    bool json = r->format == LOG_FORMAT_JSON;

    if (r->truncated && json)
        put(r, ",\"truncated\":true", 17);
    else if (r->truncated)
        put(r, " truncated=true", 15);
    if (json)
        put_octet(r, '}');
    put_octet(r, '\n');
}

bool log_begin(struct log_record *record, enum log_level level, const char *event)
{
    if (level > atomic_load_explicit(&wanted_level, memory_order_relaxed))
        return false;
    begin(record, level, atomic_load_explicit(&wanted_format, memory_order_relaxed), event);
    return true;
}

void log_text(struct log_record *record, const char *key, const char *value, size_t size)
{
    size_t need = size < WORTH ? size : WORTH;

    if (put_key(record, key, need + 2 + MARK_SIZE))
        put_value(record, value, size);
}

void log_string(struct log_record *record, const char *key, const char *value)
{
    if (value)
        log_text(record, key, value, strlen(value));
}

void log_plain(struct log_record *record, const char *key, const char *value)
{
    log_text(record, key, value, strlen(value));
}

void log_number(struct log_record *record, const char *key, int64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    uint64_t n = value < 0 ? -(uint64_t)value : (uint64_t)value;

    if (!put_key(record, key, sizeof digits))
        return;
    do {
        digits[--at] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    if (value < 0)
        digits[--at] = '-';
    put(record, digits + at, sizeof digits - at);
}

void log_end(struct log_record *record)
{
    end(record);
    log_submit(record->level, record->line, record->size);
}

void log_message(enum log_level level, const char *event, const char *format, ...)
{
    struct log_record record;
    char message[2 * LOG_VALUE_MAX];
    va_list arguments;

    if (!log_begin(&record, level, event))
        return;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    log_string(&record, "message", message);
    log_end(&record);
}

void log_build_dropped(struct log_record *record, uint64_t count)
{
    begin(record, LOG_LEVEL_WARNING, atomic_load_explicit(&wanted_format, memory_order_relaxed),
          "log-dropped");
    log_number(record, "count", (int64_t)count);
    end(record);
}
