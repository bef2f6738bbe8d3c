/*
 * The dialogue of a health check (RFC 5321 §3.1, §4.1.1.1, §4.1.1.10; RFC 3207): bytes in, bytes out, no
 * socket, no clock, no cryptography. It climbs to where traffic goes:
 *
 *     [TLS] ─▶ banner ─▶ EHLO ─▶ [STARTTLS ─▶ TLS ─▶ EHLO] ─▶ [identity] ─▶ [MAIL ─▶ [RCPT] ─▶ RSET]
 *                 │       └─5xx─▶ HELO                                                     │
 *                 │                                                             passed ─▶ QUIT ─▶ ended
 *                 └── any other code than the one that is wanted ─▶ failed ─▶ QUIT
 *
 * What is in brackets only where it is asked for. Identity is XCLIENT, behind whose 220 there is one EHLO
 * more, or XFORWARD. A relay that takes MAIL from nobody, or not for the recipient, has failed. Malformed, or
 * more than was asked for (behind STARTTLS: said in the clear, to be taken for said under TLS): failed and
 * ended.
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
    SMTP_PROBE_HELO, /* it did not know EHLO */
    SMTP_PROBE_STARTTLS,
    SMTP_PROBE_TLS,      /* the handshake is under way: the driver's */
    SMTP_PROBE_IDENTITY, /* XCLIENT or XFORWARD, as traffic says it */
    SMTP_PROBE_MAIL,     /* a transaction as far as it leaves no trace */
    SMTP_PROBE_RCPT,
    SMTP_PROBE_RSET,
    SMTP_PROBE_QUIT, /* the verdict is there, 221 is awaited */
    SMTP_PROBE_ENDED,
};
#define SMTP_PROBE_STAGES (SMTP_PROBE_ENDED + 1)

/* How far it has to go with TLS. */
enum smtp_probe_tls {
    SMTP_PROBE_CLEAR,
    SMTP_PROBE_TLS_IMPLICIT,      /* from the first octet: begins in stage TLS */
    SMTP_PROBE_TLS_OPPORTUNISTIC, /* where STARTTLS is offered; in the clear where it is refused or fails */
    SMTP_PROBE_TLS_REQUIRED,      /* STARTTLS or failed */
};

enum smtp_probe_verdict { SMTP_PROBE_OPEN, SMTP_PROBE_PASSED, SMTP_PROBE_FAILED };

/* What to do now. */
enum smtp_probe_action {
    SMTP_PROBE_READ,   /* more octets are needed: feed the same beginning again with more behind it */
    SMTP_PROBE_SEND,   /* write out[0 .. out_size), forget what was fed, read on */
    SMTP_PROBE_SECURE, /* begin the handshake, forget what was fed; then smtp_probe_secured() */
    SMTP_PROBE_CLOSE,  /* it is over */
};

#define SMTP_PROBE_REASON_MAX  96
#define SMTP_PROBE_COMMAND_MAX 512 /* XCLIENT; EHLO with a host name of 255 octets is shorter */
#define SMTP_PROBE_PATH_MAX    256 /* RFC 5321 §4.5.3.1.3, its brackets included */

struct smtp_probe {
    const char *hostname; /* for EHLO; outlives the probe */
    bool ehlo;            /* ask for capabilities; else the banner suffices */
    enum smtp_probe_tls tls;
    bool secured;                  /* the handshake has ended well */
    bool in_clear;                 /* STARTTLS was refused, where it was only opportunistic */
    const char *introduce;         /* "XCLIENT", "XFORWARD" or NULL: after EHLO, set behind init */
    struct smtp_identity identity; /* for it */
    bool introduced;
    /* A transaction is begun and reset: set behind init. Mailboxes without brackets ("": the null sender, no
     * recipient) that smtp_probe_mailbox_valid() takes; they outlive the probe. */
    bool envelope;
    const char *sender, *recipient;
    bool no_helo; /* EHLO or nothing: whoever takes an identity is no old server */
    enum smtp_probe_stage stage;
    enum smtp_probe_verdict verdict;
    bool greeted; /* a banner 220 came */
    int code;     /* of the reply that it failed for; 0: none */
    /* Why it failed: "banner 554 no service", "EHLO timeout". May hold any octet that the relay sent but NUL.
     */
    char reason[SMTP_PROBE_REASON_MAX];
    /* An EHLO was answered (an answered HELO: known to be none). Under TLS they are known anew, and where it
     * is required only there: who can forge them in the clear must not decide what is offered. */
    bool capabilities_known;
    struct smtp_capabilities capabilities;
    size_t out_size;
    char out[SMTP_PROBE_COMMAND_MAX];
};

void smtp_probe_init(struct smtp_probe *probe, const char *hostname, bool ehlo, enum smtp_probe_tls tls);

/* All octets received since the last SEND or SECURE (or since the beginning). Not in stage TLS. */
enum smtp_probe_action smtp_probe_feed(struct smtp_probe *probe, const char *in, size_t size);

/* In stage TLS: the handshake has ended well. Says READ or SEND. */
enum smtp_probe_action smtp_probe_secured(struct smtp_probe *probe);

/* The connection is lost, the handshake has failed, or time is up: `what` is "timeout", "closed", the
 * library's words … The stage is put before it. Does nothing but end the probe if the verdict is there
 * already. Passed, if this was a handshake that traffic does without. */
void smtp_probe_break(struct smtp_probe *probe, const char *what);

/* Whether it can stand between the brackets of MAIL or RCPT without parameters and without SMTPUTF8. "" can,
 * as the null sender. */
bool smtp_probe_mailbox_valid(const char *mailbox);

#endif
