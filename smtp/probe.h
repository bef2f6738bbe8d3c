/*
 * The dialogue of a health check (RFC 5321 §3.1, §4.1.1.1, §4.1.1.10): bytes in, bytes out, no socket and no
 * clock.
 *
 *     banner ──220──▶ EHLO ──250──▶ passed ──▶ QUIT ──221──▶ ended
 *        │              └─5xx──▶ HELO ──250──┘     ▲      (between EHLO and passed: XCLIENT or XFORWARD)
 *        └── any other code ──▶ failed ────────────┘        malformed, or more than was asked for: failed and
 * ended
 *
 * Strictly one command at a time. The verdict is there as soon as it is certain: what happens to QUIT is only
 * good manners, and changes nothing.
 */
#ifndef WEIR_SMTP_PROBE_H
#define WEIR_SMTP_PROBE_H

#include <stdbool.h>
#include <stddef.h>

#include "smtp/capability.h"
#include "smtp/xclient.h"

enum smtp_probe_stage {
    SMTP_PROBE_BANNER, /* waiting for the banner */
    SMTP_PROBE_EHLO,
    SMTP_PROBE_HELO,     /* it did not know EHLO */
    SMTP_PROBE_IDENTITY, /* XCLIENT or XFORWARD, as traffic says it */
    SMTP_PROBE_QUIT,     /* the verdict is there, 221 is awaited */
    SMTP_PROBE_ENDED,
};
#define SMTP_PROBE_STAGES (SMTP_PROBE_ENDED + 1)

enum smtp_probe_verdict { SMTP_PROBE_OPEN, SMTP_PROBE_PASSED, SMTP_PROBE_FAILED };

/* What to do now. */
enum smtp_probe_action {
    SMTP_PROBE_READ,  /* more octets are needed: feed the same beginning again with more behind it */
    SMTP_PROBE_SEND,  /* write out[0 .. out_size), forget what was fed, read on */
    SMTP_PROBE_CLOSE, /* it is over */
};

#define SMTP_PROBE_REASON_MAX  96
#define SMTP_PROBE_COMMAND_MAX 512 /* XCLIENT; EHLO with a host name of 255 octets is shorter */

struct smtp_probe {
    const char *hostname;          /* for EHLO; outlives the probe */
    bool ehlo;                     /* ask for capabilities; else the banner suffices */
    const char *introduce;         /* "XCLIENT", "XFORWARD" or NULL: after EHLO, set behind init */
    struct smtp_identity identity; /* for it */
    bool introduced;
    bool no_helo; /* EHLO or nothing: whoever takes an identity is no old server */
    enum smtp_probe_stage stage;
    enum smtp_probe_verdict verdict;
    bool greeted; /* a banner 220 came */
    int code;     /* of the reply that decided; 0 when none did */
    /* Why it failed: "banner 554 no service", "EHLO timeout". May hold any octet that the relay sent but NUL.
     */
    char reason[SMTP_PROBE_REASON_MAX];
    bool capabilities_known; /* an EHLO was answered (an answered HELO: known to be none) */
    struct smtp_capabilities capabilities;
    size_t out_size;
    char out[SMTP_PROBE_COMMAND_MAX];
};

void smtp_probe_init(struct smtp_probe *probe, const char *hostname, bool ehlo);

/* All octets received since the last SEND (or since the beginning). */
enum smtp_probe_action smtp_probe_feed(struct smtp_probe *probe, const char *in, size_t size);

/* The connection is lost, or time is up: `what` is "timeout", "closed" … The stage is put before it. Does
 * nothing but end the probe if the verdict is there already. */
void smtp_probe_break(struct smtp_probe *probe, const char *what);

/* "banner", "EHLO" …, for messages. */
const char *smtp_probe_stage_name(enum smtp_probe_stage stage);

#endif
