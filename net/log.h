/*
 * The log: one event, one line, whatever the bytes in it.
 *
 * A record is built by the thread that has something to say, in a buffer on its stack, and handed to the log
 * thread through a bounded buffer. That hand-over never waits for the destination: when the buffer is full (a
 * blocked terminal, a full disk, a slow syslog) the record is dropped and counted.
 *
 *     struct log_record r;
 *     if (log_begin(&r, LOG_LEVEL_INFO, "session")) {
 *         log_text(&r, "session", id, strlen(id));
 *         log_number(&r, "seconds", 12);
 *         log_end(&r);
 *     }
 *
 * Values from peers are escaped by log_text() for the format in use: control characters, quotes, backslashes
 * and invalid UTF-8 never reach the line as they are.
 */
#ifndef WEIR_NET_LOG_H
#define WEIR_NET_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };
enum log_target { LOG_TARGET_STDERR, LOG_TARGET_SYSLOG, LOG_TARGET_FILE };

/* Octets of one line, its newline included; fields that don't fit are left out, and the line says so. */
#define LOG_RECORD_MAX 4096
/* Octets of one value as it stands in the line; longer ones are cut and marked with "...". */
#define LOG_VALUE_MAX 1024

struct log_record {
    enum log_level level;
    enum log_format format; /* of this record, whatever a reload does meanwhile */
    bool truncated;         /* a field did not fit; the line says so */
    size_t size;
    char line[LOG_RECORD_MAX];
};

/* Start the log thread. Before this, records go to standard error at once. Returns 0, or -1 with *error
 * static. */
int log_start(enum log_target target, const char *path, enum log_format format, enum log_level level,
              const char **error);
/* Change target, format and level while running (reload). On failure nothing changes. Thread-safe. */
int log_reconfigure(enum log_target target, const char *path, enum log_format format, enum log_level level,
                    const char **error);
/* Open the file anew (SIGUSR1, after logrotate). Async-signal-unsafe; call from the control thread. */
void log_reopen(void);
/* Flush and stop; waits at most two seconds for a blocked destination. Records after that go to standard
 * error, or, if the destination was blocked, nowhere. */
void log_stop(void);

/* Records dropped: the buffer was full, or the destination refused them. */
uint64_t log_dropped(void);

/* False if the level is not wanted: then nothing else need be called. */
bool log_begin(struct log_record *record, enum log_level level, const char *event);
/* `key` is a plain identifier of the program's own; the value may be anything. */
void log_text(struct log_record *record, const char *key, const char *value, size_t size);
/* NUL-terminated; NULL: left out. */
void log_string(struct log_record *record, const char *key, const char *value);
void log_number(struct log_record *record, const char *key, int64_t value);
/* NUL-terminated and not NULL: a name of the configuration's, a word of the program's own ("2/3"). */
void log_plain(struct log_record *record, const char *key, const char *value);
void log_end(struct log_record *record);

/* One-line convenience for the program's own messages: event and a printf-like "message" field. */
void log_message(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
