/*
 * One check of one backend: connect, and the dialogue of smtp/probe.h, with a clock on every stage. TLS is
 * what the pool's traffic speaks; each handshake is a full one, because in a resumed session the backend
 * shows no certificate, and one that has expired would go unnoticed until the sessions have too.
 */
#ifndef WEIR_HEALTH_CHECK_H
#define WEIR_HEALTH_CHECK_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "net/address.h"
#include "smtp/capability.h"

#define CHECK_CONNECT_LIMIT 2000 /* ms */
#define CHECK_BANNER_LIMIT  5000 /* ms from the connection to the whole banner, implicit TLS included */
#define CHECK_QUIT_LIMIT    2000 /* ms for the 221, when the verdict is there already */

/* What a check spends its time on: the connection, then the stages of smtp/probe.h, of which those that come
 * twice (EHLO, behind STARTTLS once more) are summed up. */
enum check_stage {
    CHECK_CONNECT,
    CHECK_BANNER,
    CHECK_EHLO,
    CHECK_HELO,
    CHECK_STARTTLS,
    CHECK_TLS,
    CHECK_IDENTITY,
    CHECK_MAIL,
    CHECK_RCPT,
    CHECK_RSET,
    CHECK_QUIT,
};
#define CHECK_STAGES (CHECK_QUIT + 1)
const char *check_stage_name(enum check_stage stage); /* "connect", "banner", "ehlo" … */

#define CHECK_NOT_REACHED UINT32_MAX

/* ms; CHECK_NOT_REACHED where it was not there. Of a check that failed the last one is what it failed in. */
struct check_times {
    uint32_t ms[CHECK_STAGES];
};

enum check_verdict {
    CHECK_PASSED,
    CHECK_FAILED,
    CHECK_BUSY,         /* failed for want of a banner in time, or with a banner 421: perhaps only full */
    CHECK_INCONCLUSIVE, /* Weir's own fault (no descriptors): says nothing of the backend */
};

struct check_result {
    enum check_verdict verdict;
    bool told_busy;     /* BUSY by a 421 */
    const char *reason; /* "connect refused", "banner 554 …"; "" when passed; valid during the call */
    bool capabilities_known;
    struct smtp_capabilities capabilities;
};

struct check_target {
    const struct address *address; /* not kept */
    const struct address *source;  /* length 0: any; not kept */
    const char *hostname;          /* for EHLO; at most 255 octets; not kept */
    enum config_health_depth depth;
    enum config_identity identity; /* as traffic passes it on; the check's client is Weir itself */
    enum config_pool_tls tls;
    const struct tls_client *tls_client; /* NULL with TLS off */
    const char *tls_name;                /* not kept; NULL: none */
    struct config *config;          /* what tls_client belongs to: held by the check; NULL: outlives it */
    const char *sender, *recipient; /* at depth ENVELOPE; of `config`, or outliving the check */
    uint32_t timeout;               /* of the whole check, ms */
};

struct check_handler {
    /* Once, as soon as it is certain; never out of check_start(). Must not abort the check. */
    void (*decided)(void *arg, const struct check_result *result);
    /* Once, behind it: the connection is closed and the check gone. */
    void (*ended)(void *arg, const struct check_times *times);
    void *arg;
};

struct check;

/* NULL when memory is out. */
struct check *check_start(struct ev_loop *loop, const struct check_target *target,
                          const struct check_handler *handler);
/* End it without another call; clears the pointer. NULL is fine. */
void check_abort(struct check **check);

#endif
