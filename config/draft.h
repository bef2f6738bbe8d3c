/*
 * A draft: a configuration while it is being read, with the place in the file where each value was said, so
 * that what is wrong between several values can be reported where the operator wrote them.
 */
#ifndef WEIR_CONFIG_DRAFT_H
#define WEIR_CONFIG_DRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "config/config.h"
#include "config/report.h"

/* Where the value of a field was said. An object (listener, route, pool, backend) has one too: its name,
 * first mentioned, or where it begins. */
struct origin {
    const void *field;
    char *key;  /* its path, "pools.relays.queue-size" */
    char *text; /* as given, expanded; NULL for an object */
    struct place place;
    bool wrong; /* it could not be taken, which was reported: the field has its default */
};

#define DRAFT_NO_POOL SIZE_MAX /* in place of a pool's index: it is not known, and that was reported */

struct draft {
    struct config *config;
    struct report report;
    struct origin *origins;
    size_t n_origins, origins_capacity;
    struct origin *described; /* per backend: where it was given its address; field NULL: nowhere so far */
};

/* Begin with all defaults. `name` is the file's in messages. At most `backends_max` backends may be added:
 * fields may not move once their origins are noted. */
void draft_init(struct draft *draft, const char *name);
void draft_reserve_backends(struct draft *draft, size_t backends_max);
void draft_note(struct draft *draft, const void *field, const char *key, const char *text,
                struct place place);
/* The same of a value, or of some of a list's, that was reported because it could not be taken. */
void draft_note_wrong(struct draft *draft, const void *field, const char *key, struct place place);
/* NULL if the field has its default. */
const struct origin *draft_origin(const struct draft *draft, const void *field);
/* Whether what the field holds is not what the file says, so that no conclusion may be drawn from it. */
bool draft_is_wrong(const struct draft *draft, const void *field);
/* The index of the backend of that name, which is added at its first mention. */
size_t draft_backend(struct draft *draft, const char *name, const char *key, struct place place);

/* What no single value shows: references, what is given twice, open relays, loops (check.c). */
void draft_check(struct draft *draft);

/* End: the configuration with one reference, or NULL and every error written. The draft is cleared. */
struct config *draft_finish(struct draft *draft, FILE *errors);

#endif
