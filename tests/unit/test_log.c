#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "net/log.h"
#include "net/log_internal.h"

#define THREADS   4
#define LINES     4000
#define PATIENCE  10000 /* ms until a test gives up */
#define TEXT_MAX  (8 << 20)
#define FULL_PIPE 40000 /* lines of a good hundred octets: more than a pipe and both buffers hold */

static char directory[] = "/tmp/weir-test-log-XXXXXX";
static char *text; /* what was read back */

static const char *path(const char *name)
{
    static char paths[4][sizeof directory + 32];
    static unsigned n;
    char *p = paths[n++ % 4];

    snprintf(p, sizeof paths[0], "%s/%s", directory, name);
    return p;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void start(enum log_target target, const char *name)
{
    const char *error = NULL;

    if (log_start(target, name ? path(name) : NULL, LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, &error) != 0)
        fail_msg("%s", error);
}

static char *slurp(const char *name)
{
    FILE *file = fopen(path(name), "r");
    size_t size = 0;

    if (file) {
        size = fread(text, 1, TEXT_MAX - 1, file);
        fclose(file);
    }
    text[size] = '\0';
    return text;
}

/* Wait until the file has the string. */
static void await(const char *name, const char *string)
{
    for (int64_t end = now_ms() + PATIENCE; !strstr(slurp(name), string);) {
        if (now_ms() > end)
            fail_msg("no %s in %s", string, name);
        poll(NULL, 0, 2);
    }
}

/* --- how values look --- */

struct appearance {
    const char *value;
    size_t size; /* 0: strlen */
    const char *logfmt, *json;
};

static const struct appearance appearances[] = {
    {"plain",                                    0, "plain",                                       "\"plain\""                       },
    { "<a@x.example>",                           0, "<a@x.example>",                               "\"<a@x.example>\""               },
    { "2/3",                                     0, "2/3",                                         "\"2/3\""                         },
    { "",                                        0, "\"\"",                                        "\"\""                            },
    { "a b",                                     0, "\"a b\"",                                     "\"a b\""                         },
    { "a=b",                                     0, "\"a=b\"",                                     "\"a=b\""                         },
    { "a\"b",                                    0, "\"a\\\"b\"",                                  "\"a\\\"b\""                      },
    { "a\\b",                                    0, "\"a\\\\b\"",                                  "\"a\\\\b\""                      },
    { "a\nb\rc\td",                              0, "\"a\\nb\\rc\\td\"",                           "\"a\\nb\\rc\\td\""               },
    { "\x1b[31m",                                0, "\"\\x1b[31m\"",                               "\"\\u001b[31m\""                 },
    { "a\0b",                                    3, "\"a\\x00b\"",                                 "\"a\\u0000b\""                   },
    { "\x7f",                                    0, "\"\\x7f\"",                                   "\"\\u007f\""                     },
    { "\x01\x1f",                                0, "\"\\x01\\x1f\"",                              "\"\\u0001\\u001f\""              },
    { "\n",                                      0, "\"\\n\"",                                     "\"\\n\""                         },
 /* valid UTF-8 of two, three and four octets, at the ends of their ranges */
    { "h\xc3\xa4 \xe2\x82\xac \xf0\x9f\x93\xa7", 0, "\"h\xc3\xa4 \xe2\x82\xac \xf0\x9f\x93\xa7\"",
     "\"h\xc3\xa4 \xe2\x82\xac \xf0\x9f\x93\xa7\""                                                                                   },
    { "\xc2\xa0\xdf\xbf",                        0, "\"\xc2\xa0\xdf\xbf\"",                        "\"\xc2\xa0\xdf\xbf\""            },
    { "\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80",    0, "\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\"",
     "\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\""                                                                                      },
    { "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",        0, "\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"",
     "\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\""                                                                                          },
 /* not UTF-8: alone, cut off, overlong, surrogate, beyond the end */
    { "\x80",                                    0, "\"\\x80\"",                                   "\"\\u0080\""                     },
    { "\xff\xfe",                                0, "\"\\xff\\xfe\"",                              "\"\\u00ff\\u00fe\""              },
    { "\xc3",                                    0, "\"\\xc3\"",                                   "\"\\u00c3\""                     },
    { "\xc3z",                                   0, "\"\\xc3z\"",                                  "\"\\u00c3z\""                    },
    { "\xe2\x82",                                0, "\"\\xe2\\x82\"",                              "\"\\u00e2\\u0082\""              },
    { "\xf0\x9f\x93",                            0, "\"\\xf0\\x9f\\x93\"",                         "\"\\u00f0\\u009f\\u0093\""       },
    { "\xe2\x82\xc3\xa4",                        0, "\"\\xe2\\x82\xc3\xa4\"",                      "\"\\u00e2\\u0082\xc3\xa4\""      },
    { "\xc0\xaf",                                0, "\"\\xc0\\xaf\"",                              "\"\\u00c0\\u00af\""              },
    { "\xc1\xbf",                                0, "\"\\xc1\\xbf\"",                              "\"\\u00c1\\u00bf\""              },
    { "\xe0\x80\x8a",                            0, "\"\\xe0\\x80\\x8a\"",                         "\"\\u00e0\\u0080\\u008a\""       },
    { "\xf0\x80\x80\x8a",                        0, "\"\\xf0\\x80\\x80\\x8a\"",                    "\"\\u00f0\\u0080\\u0080\\u008a\""},
    { "\xed\xa0\x80",                            0, "\"\\xed\\xa0\\x80\"",                         "\"\\u00ed\\u00a0\\u0080\""       },
    { "\xf4\x90\x80\x80",                        0, "\"\\xf4\\x90\\x80\\x80\"",                    "\"\\u00f4\\u0090\\u0080\\u0080\""},
    { "\xf5\x80\x80\x80",                        0, "\"\\xf5\\x80\\x80\\x80\"",                    "\"\\u00f5\\u0080\\u0080\\u0080\""},
 /* valid UTF-8 that deceives: C1, line separators, direction */
    { "\xc2\x85",                                0, "\"\\xc2\\x85\"",                              "\"\\u0085\""                     },
    { "\xc2\x9b",                                0, "\"\\xc2\\x9b\"",                              "\"\\u009b\""                     },
    { "\xe2\x80\xa8\xe2\x80\xa9",                0, "\"\\xe2\\x80\\xa8\\xe2\\x80\\xa9\"",          "\"\\u2028\\u2029\""              },
    { "\xe2\x80\xae",                            0, "\"\\xe2\\x80\\xae\"",                         "\"\\u202e\""                     },
    { "\xe2\x81\xa6\xe2\x81\xa9",                0, "\"\\xe2\\x81\\xa6\\xe2\\x81\\xa9\"",          "\"\\u2066\\u2069\""              },
    { "\xe2\x80\x8f\xd8\x9c",                    0, "\"\\xe2\\x80\\x8f\\xd8\\x9c\"",               "\"\\u200f\\u061c\""              },
};

static void test_values(void **state)
{
    struct log_record r;

    (void)state;
    for (size_t i = 0; i < sizeof appearances / sizeof *appearances; i++) {
        const struct appearance *a = &appearances[i];
        size_t size = a->size ? a->size : strlen(a->value);

        for (enum log_format format = LOG_FORMAT_LOGFMT; format <= LOG_FORMAT_JSON; format++) {
            const char *wanted = format == LOG_FORMAT_JSON ? a->json : a->logfmt;
            const char *before = format == LOG_FORMAT_JSON ? ",\"key\":" : " key=";
            char *exact = malloc(size + 1); /* so that the address sanitizer sees one octet read too many */
            size_t at;

            memcpy(exact + 1, a->value, size);
            log_set_style(format, LOG_LEVEL_INFO);
            assert_true(log_begin(&r, LOG_LEVEL_INFO, "e"));
            at = r.size;
            log_text(&r, "key", exact + 1, size);
            free(exact);
            r.line[r.size] = '\0';
            assert_memory_equal(r.line + at, before, strlen(before));
            assert_string_equal(r.line + at + strlen(before), wanted);
            assert_false(r.truncated);
        }
    }
}

static void test_numbers(void **state)
{
    static const struct {
        int64_t value;
        const char *text;
    } table[] = {
        {0,              "0"                   },
        { 7,             "7"                   },
        { 10,            "10"                  },
        { -1,            "-1"                  },
        { -100,          "-100"                },
        { 1234567890123, "1234567890123"       },
        { INT64_MAX,     "9223372036854775807" },
        { INT64_MIN,     "-9223372036854775808"}
    };
    struct log_record r;

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        log_set_style(LOG_FORMAT_JSON, LOG_LEVEL_INFO);
        assert_true(log_begin(&r, LOG_LEVEL_INFO, "e"));
        log_number(&r, "n", table[i].value);
        r.line[r.size] = '\0';
        assert_string_equal(strrchr(r.line, ':') + 1, table[i].text);
    }
}

static void test_prefix(void **state)
{
    struct log_record r;
    struct tm tm = { 0 };
    time_t now = time(NULL);
    char level[16], *rest;

    (void)state;
    log_set_style(LOG_FORMAT_LOGFMT, LOG_LEVEL_WARNING);
    assert_false(log_begin(&r, LOG_LEVEL_INFO, "e"));
    assert_false(log_begin(&r, LOG_LEVEL_DEBUG, "e"));
    assert_true(log_begin(&r, LOG_LEVEL_ERROR, "e"));
    assert_true(log_begin(&r, LOG_LEVEL_WARNING, "start"));
    log_string(&r, "absent", NULL);
    r.line[r.size] = '\0';
    rest = strptime(r.line, "time=%Y-%m-%dT%H:%M:%S", &tm);
    assert_non_null(rest);
    assert_in_range(timegm(&tm), now, time(NULL) + 1); /* its clock is a coarse one */
    assert_int_equal(strspn(rest, ".0123456789"), 4);
    assert_int_equal(sscanf(rest + 4, "Z level=%15s", level), 1);
    assert_string_equal(level, "warning");
    assert_string_equal(strstr(rest, " event="), " event=start");
    log_set_style(LOG_FORMAT_JSON, LOG_LEVEL_DEBUG);
    assert_true(log_begin(&r, LOG_LEVEL_DEBUG, "start"));
    r.line[r.size] = '\0';
    assert_memory_equal(r.line, "{\"time\":\"20", 11);
    assert_string_equal(r.line + 33, "\",\"level\":\"debug\",\"event\":\"start\"");
}

/* --- what is too long --- */

/* Read one string, escapes and all; NULL if it is none. */
static const char *skip_string(const char *at, bool json)
{
    if (*at++ != '"')
        return NULL;
    for (; *at != '"'; at++) {
        if ((uint8_t)*at < 0x20)
            return NULL;
        if (*at == '\\') {
            at++;
            if (*at == (json ? 'u' : 'x')) {
                for (int i = json ? 4 : 2; i > 0; i--) {
                    if (!strchr("0123456789abcdef", *++at) || !*at)
                        return NULL;
                }
            } else if (!*at || !strchr("\"\\nrt", *at)) {
                return NULL;
            }
        }
    }
    return at + 1;
}

static bool json_is_good(const char *at)
{
    if (*at != '{')
        return false;
    do {
        at = skip_string(at + 1, true);
        if (!at || *at++ != ':')
            return false;
        at = *at == '"' ? skip_string(at, true) : at + strspn(at, "-0123456789true");
        if (!at)
            return false;
    } while (*at == ',');
    return strcmp(at, "}\n") == 0;
}

static bool logfmt_is_good(const char *at)
{
    for (;;) {
        size_t key = strspn(at, "abcdefghijklmnopqrstuvwxyz-_0123456789");

        if (key == 0 || at[key] != '=')
            return false;
        at += key + 1;
        at = *at == '"' ? skip_string(at, false) : at + strcspn(at, " \n\"=\\");
        if (!at || (*at != ' ' && *at != '\n'))
            return false;
        if (*at++ == '\n')
            return *at == '\0';
    }
}

static void write_long(enum log_format format, const char *unit, size_t repeat, int fields)
{
    size_t size = strlen(unit) * repeat;
    char *value = malloc(size + 1);
    struct log_record r;

    for (size_t i = 0; i < size; i++)
        value[i] = unit[i % strlen(unit)];
    value[size] = '\0';
    log_set_style(format, LOG_LEVEL_INFO);
    assert_true(log_begin(&r, LOG_LEVEL_INFO, "long"));
    for (int i = 0; i < fields; i++) {
        log_text(&r, "value", value, size);
        log_number(&r, "n", i);
    }
    log_string(&r, "last", "end");
    log_end(&r);
    free(value);
}

static const size_t repeats[] = { 1,   2,   5,   31,  32,  33,   100,  170,  171,
                                  255, 256, 257, 500, 700, 1023, 1024, 1025, 3000 };
static const int field_counts[] = { 1, 2, 5, 70, 200 };

#define N_REPEATS      (sizeof repeats / sizeof *repeats)
#define N_FIELD_COUNTS (sizeof field_counts / sizeof *field_counts)

/* One line, NUL-terminated, of `fields` fields of `size` octets each. */
static void check_long(const char *line, enum log_format format, size_t size, int fields)
{
    bool json = format == LOG_FORMAT_JSON;
    bool cut = strstr(line, json ? ",\"truncated\":true}\n" : " truncated=true\n");
    bool whole = strstr(line, json ? ",\"last\":\"end\"}\n" : " last=end\n");

    assert_true(strlen(line) <= LOG_RECORD_MAX);
    if (!(json ? json_is_good(line) : logfmt_is_good(line)))
        fail_msg("broken: %s", line);
    assert_int_equal(cut, !whole);
    if (fields == 1) /* one value alone is cut to LOG_VALUE_MAX, the line is whole */
        assert_true(whole);
    if (size > LOG_VALUE_MAX)
        assert_non_null(strstr(line, "...\""));
    if ((size < LOG_VALUE_MAX ? size : LOG_VALUE_MAX) * (size_t)fields > LOG_RECORD_MAX)
        assert_true(cut);
}

static void test_long(void **state)
{
    static const char *const units[] = { "x", "a b", "\x1b", "\xff", "\xe2\x82\xac", "\xe2\x80\xa8", "\"" };

    (void)state;
    for (size_t u = 0; u < 2 * sizeof units / sizeof *units; u++) {
        const char *unit = units[u / 2];
        enum log_format format = u % 2 ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT;
        char *line, *next;

        unlink(path("long"));
        start(LOG_TARGET_FILE, "long");
        for (size_t i = 0; i < N_REPEATS * N_FIELD_COUNTS; i++)
            write_long(format, unit, repeats[i / N_FIELD_COUNTS], field_counts[i % N_FIELD_COUNTS]);
        log_stop();
        slurp("long");
        line = text;
        for (size_t i = 0; i < N_REPEATS * N_FIELD_COUNTS; i++, line = next) {
            char copy[LOG_RECORD_MAX + 2];

            next = strchr(line, '\n');
            assert_non_null(next);
            next++;
            snprintf(copy, sizeof copy, "%.*s", (int)(next - line), line);
            check_long(copy, format, strlen(unit) * repeats[i / N_FIELD_COUNTS],
                       field_counts[i % N_FIELD_COUNTS]);
        }
        assert_string_equal(line, "");
    }
}

static void test_value_limit(void **state)
{
    char value[LOG_VALUE_MAX + 2];
    struct log_record r;
    size_t at;

    (void)state;
    memset(value, 'x', sizeof value);
    log_set_style(LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO);
    assert_true(log_begin(&r, LOG_LEVEL_INFO, "e"));
    at = r.size;
    log_text(&r, "k", value, LOG_VALUE_MAX);
    assert_int_equal(r.size, at + 3 + LOG_VALUE_MAX); /* whole, and without quotes */
    at = r.size;
    log_text(&r, "k", value, LOG_VALUE_MAX + 1);
    assert_int_equal(r.size, at + 3 + LOG_VALUE_MAX + 5);
    assert_memory_equal(r.line + r.size - 5, "x...\"", 5);
    value[LOG_VALUE_MAX - 1] = '\xc3'; /* a character is never cut in two */
    value[LOG_VALUE_MAX] = '\xa4';
    at = r.size;
    log_text(&r, "k", value, LOG_VALUE_MAX + 1);
    assert_int_equal(r.size, at + 3 + LOG_VALUE_MAX - 1 + 5);
    assert_memory_equal(r.line + r.size - 5, "x...\"", 5);
    assert_false(r.truncated);
}

/* --- where lines go --- */

static void test_before_start(void **state)
{
    int pipe_fds[2], saved = dup(STDERR_FILENO);
    char line[256];
    ssize_t n;

    (void)state;
    log_set_style(LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO);
    assert_int_equal(pipe(pipe_fds), 0);
    dup2(pipe_fds[1], STDERR_FILENO);
    log_message(LOG_LEVEL_ERROR, "early", "%s %d", "no file", 7);
    dup2(saved, STDERR_FILENO);
    n = read(pipe_fds[0], line, sizeof line - 1);
    assert_true(n > 0);
    line[n] = '\0';
    assert_string_equal(strstr(line, " level="), " level=error event=early message=\"no file 7\"\n");
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(saved);
}

static void test_file(void **state)
{
    const char *error = NULL;
    struct stat status;
    mode_t mask = umask(0);

    (void)state;
    assert_int_equal(log_start(LOG_TARGET_FILE, directory, LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, &error), -1);
    assert_string_equal(error, "Is a directory");
    assert_int_equal(log_start(LOG_TARGET_FILE, path("no/file"), LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, &error),
                     -1);
    assert_string_equal(error, "No such file or directory");
    start(LOG_TARGET_FILE, "file");
    assert_int_equal(log_start(LOG_TARGET_FILE, path("other"), LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, &error),
                     -1);
    umask(mask);
    assert_int_equal(stat(path("file"), &status), 0);
    assert_int_equal(status.st_mode & 07777, 0640);
    log_message(LOG_LEVEL_INFO, "one", "1");
    log_message(LOG_LEVEL_DEBUG, "unwanted", "1");
    await("file", "event=one message=1\n"); /* without anything more */
    log_message(LOG_LEVEL_INFO, "two", "2");
    log_stop();
    assert_non_null(strstr(slurp("file"), "event=two"));
    assert_null(strstr(text, "unwanted"));
    start(LOG_TARGET_FILE, "file"); /* appends */
    log_message(LOG_LEVEL_INFO, "three", "3");
    log_stop();
    log_stop(); /* does nothing */
    assert_non_null(strstr(slurp("file"), "event=one"));
    assert_non_null(strstr(text, "event=three"));
}

static void test_reopen(void **state)
{
    (void)state;
    start(LOG_TARGET_FILE, "rotated");
    log_message(LOG_LEVEL_INFO, "first", "1");
    await("rotated", "first");
    assert_int_equal(rename(path("rotated"), path("rotated.1")), 0);
    log_message(LOG_LEVEL_INFO, "second", "2");
    await("rotated.1", "second");
    log_reopen();
    assert_int_equal(access(path("rotated"), F_OK), 0);
    log_message(LOG_LEVEL_INFO, "third", "3");
    log_stop();
    assert_non_null(strstr(slurp("rotated"), "third"));
    assert_null(strstr(text, "second"));
    assert_null(strstr(slurp("rotated.1"), "third"));
}

static void test_reconfigure(void **state)
{
    const char *error = NULL;

    (void)state;
    start(LOG_TARGET_FILE, "before");
    log_message(LOG_LEVEL_INFO, "first", "1");
    await("before", "first");
    assert_int_equal(log_reconfigure(LOG_TARGET_FILE, directory, LOG_FORMAT_JSON, LOG_LEVEL_DEBUG, &error),
                     -1);
    log_message(LOG_LEVEL_DEBUG, "unwanted", "1");
    log_message(LOG_LEVEL_INFO, "second", "2");
    await("before", "event=second");
    assert_int_equal(
        log_reconfigure(LOG_TARGET_FILE, path("after"), LOG_FORMAT_JSON, LOG_LEVEL_DEBUG, &error), 0);
    log_message(LOG_LEVEL_DEBUG, "third", "3");
    log_stop();
    assert_null(strstr(slurp("before"), "third"));
    assert_null(strstr(text, "unwanted"));
    assert_non_null(strstr(slurp("after"), "\"level\":\"debug\",\"event\":\"third\",\"message\":\"3\"}\n"));
}

static void test_syslog(void **state)
{
    const char *error = NULL;

    (void)state;
    start(LOG_TARGET_SYSLOG, NULL); /* whether or not anybody listens */
    log_message(LOG_LEVEL_INFO, "weir-unit-test", "%%s%%n is no format");
    assert_int_equal(
        log_reconfigure(LOG_TARGET_FILE, path("from-syslog"), LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, &error), 0);
    log_message(LOG_LEVEL_INFO, "later", "1");
    log_stop();
    assert_non_null(strstr(slurp("from-syslog"), "event=later"));
}

/* --- destinations that do not take it --- */

/* Lines "event=n" in the text, which must come in order; the last line must say how many of `total` are
 * missing. */
static void check_sequence(char *at, uint64_t total, uint64_t dropped)
{
    uint64_t seen = 0, reported = 0, count;
    int64_t last = -1, n;

    for (char *end; *at; at = end + 1) {
        end = strchr(at, '\n');
        assert_non_null(end);
        *end = '\0'; /* sscanf() would look for the end of it all */
        if (sscanf(at, "time=%*s level=info event=n i=%" SCNd64 " pad=", &n) == 1) {
            assert_true(n > last);
            last = n;
            seen++;
        } else if (sscanf(at, "time=%*s level=warning event=log-dropped count=%" SCNu64, &count) == 1) {
            reported += count;
        } else {
            fail_msg("unexpected: %s", at);
        }
    }
    assert_int_equal(reported, dropped);
    assert_int_equal(seen + dropped, total);
}

static void produce(int from, int count)
{
    struct log_record r;

    for (int i = from; i < from + count; i++) {
        assert_true(log_begin(&r, LOG_LEVEL_INFO, "n"));
        log_number(&r, "i", i);
        log_plain(&r, "pad", "0123456789012345678901234567890123456789");
        log_end(&r);
    }
}

/* Read from a non-blocking descriptor until what was read has the string. */
static char *read_until(int fd, const char *string)
{
    size_t size = 0;
    int64_t end = now_ms() + PATIENCE;

    do {
        struct pollfd ready = { .fd = fd, .events = POLLIN };
        ssize_t n;

        poll(&ready, 1, 1000);
        n = read(fd, text + size, TEXT_MAX - 1 - size);
        if (n > 0)
            size += (size_t)n;
        text[size] = '\0';
        if (now_ms() > end)
            fail_msg("no %s", string);
    } while (text[0] == '\0' || text[size - 1] != '\n' || !strstr(text, string));
    return text;
}

/* Lines "event=n" that the text has, and lines that it says are missing. */
static uint64_t accounted_for(const char *at)
{
    uint64_t sum = 0, count;

    for (; (at = strstr(at, " event=")); at++) {
        if (strncmp(at, " event=n ", 9) == 0)
            sum++;
        else if (sscanf(at, " event=log-dropped count=%" SCNu64, &count) == 1)
            sum += count;
    }
    return sum;
}

/* Read until nothing of `total` is still to come: where the log thread gets no processor for a while, what is
 * missing is reported in two parts. */
static char *read_all(int fd, uint64_t total)
{
    int64_t end = now_ms() + PATIENCE;
    size_t size = 0;

    do {
        struct pollfd ready = { .fd = fd, .events = POLLIN };
        ssize_t n;

        /* Counting at every read would take the time of the square of it. */
        while (poll(&ready, 1, 100) > 0 && (n = read(fd, text + size, TEXT_MAX - 1 - size)) > 0)
            size += (size_t)n;
        text[size] = '\0';
        if (now_ms() > end)
            fail_msg("%" PRIu64 " of %" PRIu64 " accounted for", accounted_for(text), total);
    } while (accounted_for(text) < total || text[size - 1] != '\n');
    return text;
}

static int blocked_pipe(const char *name)
{
    int fd;

    assert_int_equal(mkfifo(path(name), 0600), 0);
    fd = open(path(name), O_RDONLY | O_NONBLOCK);
    assert_true(fd >= 0);
    return fd;
}

static void test_blocked(void **state)
{
    uint64_t before = log_dropped();
    int64_t began;
    int fd = blocked_pipe("blocked");

    (void)state;
    start(LOG_TARGET_FILE, "blocked");
    began = now_ms();
    produce(0, FULL_PIPE);
    assert_true(now_ms() - began <
                2000); /* a fraction of that but for sanitizers; waiting would be for ever */
    assert_true(log_dropped() > before);
    /* The pipe is read: what was kept comes in order, then the count of what was not. */
    read_all(fd, FULL_PIPE);
    check_sequence(text, FULL_PIPE, log_dropped() - before);
    before = log_dropped();
    produce(0, 10);
    check_sequence(read_until(fd, "i=9 "), 10, 0);
    log_stop();
    assert_int_equal(log_dropped(), before);
    close(fd);
}

static void test_blocked_stop(void **state)
{
    uint64_t before = log_dropped();
    int64_t began;
    int fd = blocked_pipe("blocked-stop");

    (void)state;
    start(LOG_TARGET_FILE, "blocked-stop");
    produce(0, FULL_PIPE);
    began = now_ms();
    log_stop();
    assert_in_range(now_ms() - began, 1000, PATIENCE);
    assert_true(log_dropped() > before);
    before = log_dropped();
    log_message(LOG_LEVEL_ERROR, "deaf", "to nowhere, least of all a blocked standard error");
    assert_int_equal(log_dropped(), before + 1);
    start(LOG_TARGET_FILE, "after-stop");
    log_message(LOG_LEVEL_INFO, "again", "1");
    log_stop();
    assert_non_null(strstr(slurp("after-stop"), "event=again"));
    close(fd);
}

static void test_blocked_reconfigure(void **state)
{
    const char *error = NULL, *file;
    uint64_t before = log_dropped();
    int fd = blocked_pipe("blocked-change");

    (void)state;
    start(LOG_TARGET_FILE, "blocked-change");
    produce(0, FULL_PIPE);
    assert_int_equal(
        log_reconfigure(LOG_TARGET_FILE, path("free"), LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, &error), 0);
    await("free", "log-dropped");
    log_stop();
    file = slurp("free"); /* begins with a whole line, and ends with the count */
    assert_memory_equal(file, "time=", 5);
    assert_null(strstr(file + 1, "\n\n"));
    assert_true(log_dropped() > before);
    close(fd);
}

static void test_nobody_reads(void **state)
{
    const char *error = NULL;

    (void)state;
    assert_int_equal(mkfifo(path("unread"), 0600), 0);
    assert_int_equal(log_start(LOG_TARGET_FILE, path("unread"), LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, &error),
                     -1);
    assert_string_equal(error, "nothing reads there");
}

static void test_reader_leaves(void **state)
{
    uint64_t before = log_dropped();
    int fd = blocked_pipe("left"), again;

    (void)state;
    start(LOG_TARGET_FILE, "left");
    produce(0, 1);
    read_until(fd, "i=0 ");
    close(fd);
    produce(1, 1);
    for (int64_t end = now_ms() + PATIENCE; log_dropped() == before;) {
        assert_true(now_ms() < end);
        poll(NULL, 0, 2);
    }
    again = open(path("left"), O_RDONLY | O_NONBLOCK);
    assert_true(again >= 0);
    assert_non_null(
        strstr(read_until(again, "log-dropped"), "count=1\n")); /* of itself, within a second or so */
    log_stop();
    close(again);
}

static void test_full_disk(void **state)
{
    const char *error = NULL;
    uint64_t before = log_dropped();

    (void)state;
    assert_int_equal(log_start(LOG_TARGET_FILE, "/dev/full", LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, &error), 0);
    produce(0, 5);
    for (int64_t end = now_ms() + PATIENCE; log_dropped() < before + 5;) {
        assert_true(now_ms() < end);
        poll(NULL, 0, 2);
    }
    assert_int_equal(
        log_reconfigure(LOG_TARGET_FILE, path("room"), LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, &error), 0);
    produce(5, 1);
    await("room", "log-dropped");
    log_stop();
    check_sequence(slurp("room"), 6, 5);
}

/* --- many at once --- */

static void *producer(void *arg)
{
    int who = (int)(intptr_t)arg;
    struct log_record r;

    for (int i = 0; i < LINES; i++) {
        if (log_begin(&r, LOG_LEVEL_INFO, "m")) {
            log_number(&r, "who", who);
            log_number(&r, "i", i);
            log_text(&r, "pad", "abcdefghijklmnopqrstuvwxyz 0123456789", (size_t)(i % 38));
            log_number(&r, "check", who * 1000003 + i);
            log_end(&r);
        }
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[THREADS];
    int last[THREADS] = { 0 };
    uint64_t before = log_dropped(), seen = 0;
    const char *error;

    (void)state;
    start(LOG_TARGET_FILE, "threads");
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, producer, (void *)(intptr_t)i), 0);
    log_reopen();
    assert_int_equal(
        log_reconfigure(LOG_TARGET_FILE, path("threads"), LOG_FORMAT_LOGFMT, LOG_LEVEL_INFO, &error), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    log_stop();
    slurp("threads");
    for (char *at = text, *end; *at; at = end + 1) {
        const char *check;
        int who, i;

        end = strchr(at, '\n');
        assert_non_null(end);
        *end = '\0'; /* sscanf() would look for the end of it all */
        if (sscanf(at, "time=%*s level=warning event=log-dropped count=%d", &i) == 1)
            continue;
        assert_int_equal(sscanf(at, "time=%*s level=info event=m who=%d i=%d pad=", &who, &i), 2);
        check = strstr(at, " check=");
        assert_non_null(check);
        assert_in_range(who, 0, THREADS - 1);
        assert_int_equal(atoi(check + 7), who * 1000003 + i);
        assert_true(i >= last[who]);
        last[who] = i + 1;
        seen++;
    }
    assert_int_equal(seen + (log_dropped() - before), THREADS * LINES);
    assert_true(seen > 0);
}

static int set_up(void **state)
{
    (void)state;
    alarm(120);
    text = malloc(TEXT_MAX);
    return text && mkdtemp(directory) ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[sizeof directory + 16];

    (void)state;
    free(text);
    snprintf(command, sizeof command, "rm -rf %s", directory);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_before_start),
        cmocka_unit_test(test_value_limit),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_reopen),
        cmocka_unit_test(test_reconfigure),
        cmocka_unit_test(test_syslog),
        cmocka_unit_test(test_blocked),
        cmocka_unit_test(test_blocked_stop),
        cmocka_unit_test(test_blocked_reconfigure),
        cmocka_unit_test(test_nobody_reads),
        cmocka_unit_test(test_reader_leaves),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
