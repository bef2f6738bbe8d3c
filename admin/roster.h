/*
 * The roster: the sessions there are, as one moment's picture for the operator.
 */
#ifndef WEIR_ADMIN_ROSTER_H
#define WEIR_ADMIN_ROSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/address.h"

#define ROSTER_MAX      1000 /* sessions in one answer, the newest: this bounds a worker's time and our memory */
#define ROSTER_NAME_MAX 65  /* of a listener or pool, its NUL included */
#define ROSTER_TEXT_MAX 128 /* of what a peer said; cut */

struct roster_session {
    uint64_t id;
    int64_t began; /* ms, monotonic */
    char client[ADDRESS_TEXT_MAX];
    char listener[ROSTER_NAME_MAX], pool[ROSTER_NAME_MAX];
    char backend[ROSTER_TEXT_MAX];                     /* "": none now */
    char helo[ROSTER_TEXT_MAX], user[ROSTER_TEXT_MAX]; /* "": not given */
    const char *state;                                 /* static */
    const char *tls;                                   /* static, "TLSv1.3"; NULL: in the clear */
    uint32_t transactions;
    uint64_t bytes_in, bytes_out;
};

struct roster {
    uint64_t total; /* sessions there were */
    int64_t now;    /* ms, monotonic */
    size_t n;       /* newest first */
    const struct roster_session **sessions;
};

#endif
