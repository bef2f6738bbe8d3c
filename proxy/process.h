/*
 * The process: the control thread's loop, and what hangs together only here: configuration, workers, health,
 * HTTP, signals.
 */
#ifndef WEIR_PROXY_PROCESS_H
#define WEIR_PROXY_PROCESS_H

#include "config/config.h"

struct process_options {
    const char *path; /* configuration file, read again on HUP; NULL in a quick start */
};

/* Run until told to stop. Takes over the reference to `config`. Returns the exit status: 0 clean stop, 1
 * failure. */
int process_run(struct config *config, const struct process_options *options);

#endif
