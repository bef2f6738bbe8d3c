/*
 * What an EHLO offers (RFC 5321 §4.1.1.1): read from backends, intersected over a pool, offered to clients.
 */
#ifndef WEIR_SMTP_CAPABILITY_H
#define WEIR_SMTP_CAPABILITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum smtp_capability {
    SMTP_CAP_PIPELINING = 1u << 0,          /* RFC 2920; Weir's own in front */
    SMTP_CAP_SIZE = 1u << 1,                /* RFC 1870 */
    SMTP_CAP_8BITMIME = 1u << 2,            /* RFC 6152 */
    SMTP_CAP_SMTPUTF8 = 1u << 3,            /* RFC 6531 */
    SMTP_CAP_DSN = 1u << 4,                 /* RFC 3461 */
    SMTP_CAP_ENHANCEDSTATUSCODES = 1u << 5, /* RFC 2034 */
    SMTP_CAP_CHUNKING = 1u << 6,            /* RFC 3030 */
    SMTP_CAP_BINARYMIME = 1u << 7,          /* RFC 3030; only with CHUNKING */
};

/* Those that Weir carries from client to backend, and so may offer. */
#define SMTP_CAP_CARRIED                                                                                     \
    (SMTP_CAP_SIZE | SMTP_CAP_8BITMIME | SMTP_CAP_SMTPUTF8 | SMTP_CAP_DSN | SMTP_CAP_ENHANCEDSTATUSCODES |   \
     SMTP_CAP_CHUNKING | SMTP_CAP_BINARYMIME)

struct smtp_capabilities {
    uint32_t flags;             /* enum smtp_capability, or-ed */
    uint16_t xclient, xforward; /* enum smtp_xclient_attribute, or-ed; of a backend, never offered */
    uint64_t size_limit;        /* octets; 0: none stated */
};

/* Read one EHLO reply, all its lines as they came ("250-name\r\n250-SIZE 1000\r\n250 DSN\r\n"), already found
 * to be well-formed by smtp_reply_parse(). Unknown keywords are ignored; BINARYMIME without CHUNKING is
 * dropped. */
void smtp_capabilities_parse(struct smtp_capabilities *out, const char *reply, size_t size);

/* Narrow `into` by what `other` lacks; the smaller non-zero size limit is kept. PIPELINING is treated like
 * the rest. */
void smtp_capabilities_intersect(struct smtp_capabilities *into, const struct smtp_capabilities *other);

#define SMTP_EHLO_REPLY_MAX 768
/* Write the multi-line 250 reply for `hostname` (at most 255 octets). Returns its size. */
size_t smtp_capabilities_format(const struct smtp_capabilities *offer, const char *hostname,
                                char out[SMTP_EHLO_REPLY_MAX]);

#endif
