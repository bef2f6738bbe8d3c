/* Between the two halves of the log: log.c builds records, log_thread.c takes them to their destination. */
#ifndef WEIR_NET_LOG_INTERNAL_H
#define WEIR_NET_LOG_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "net/log.h"

/* Hand over one line, its newline included. Any thread; never waits for the destination. */
void log_submit(enum log_level level, const char *line, size_t size);

/* From now on, for records that begin. */
void log_set_style(enum log_format format, enum log_level level);

/* Fill in the line that says how many records were dropped, whatever the level wanted. */
void log_build_dropped(struct log_record *record, uint64_t count);

#endif
