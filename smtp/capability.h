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
    SMTP_CAP_AUTH = 1u << 8,                /* RFC 4954; only with a mechanism below, and they with it */
    SMTP_CAP_AUTH_PLAIN = 1u << 9,          /* RFC 4616 */
    SMTP_CAP_AUTH_LOGIN = 1u << 10,
    SMTP_CAP_AUTH_CRAM_MD5 = 1u << 11,      /* RFC 2195 */
    SMTP_CAP_AUTH_DIGEST_MD5 = 1u << 12,    /* RFC 2831 */
    SMTP_CAP_AUTH_SCRAM_SHA_1 = 1u << 13,   /* RFC 5802 */
    SMTP_CAP_AUTH_SCRAM_SHA_256 = 1u << 14, /* RFC 7677 */
    SMTP_CAP_AUTH_SCRAM_SHA_512 = 1u << 15,
    SMTP_CAP_AUTH_XOAUTH2 = 1u << 16,
    SMTP_CAP_AUTH_OAUTHBEARER = 1u << 17, /* RFC 7628 */
    SMTP_CAP_STARTTLS = 1u << 18,         /* RFC 3207; of a backend. In front it is Weir's own */
};
#define SMTP_CAPABILITY_BITS 19

/* The mechanisms that an exchange can pass through a TLS terminator with: none that is bound to the channel
 * (*-PLUS), to the client's certificate (EXTERNAL) or to the connection as a whole (GSSAPI, NTLM). What is
 * not on this list is not carried, for it may be one of those. */
#define SMTP_CAP_AUTH_MECHANISMS (SMTP_CAP_STARTTLS - SMTP_CAP_AUTH_PLAIN)

/* Those that Weir carries from client to backend, and so may offer. */
#define SMTP_CAP_CARRIED                                                                                     \
    (SMTP_CAP_SIZE | SMTP_CAP_8BITMIME | SMTP_CAP_SMTPUTF8 | SMTP_CAP_DSN | SMTP_CAP_ENHANCEDSTATUSCODES |   \
     SMTP_CAP_CHUNKING | SMTP_CAP_BINARYMIME | SMTP_CAP_AUTH | SMTP_CAP_AUTH_MECHANISMS)

struct smtp_capabilities {
    uint32_t flags;             /* enum smtp_capability, or-ed */
    uint16_t xclient, xforward; /* enum smtp_xclient_attribute, or-ed; of a backend, never offered */
    uint64_t size_limit;        /* octets; 0: none stated */
};

/* `flags` without what can't be used alone: BINARYMIME without CHUNKING, AUTH without a mechanism that is
 * carried, mechanisms without AUTH. */
uint32_t smtp_capabilities_usable(uint32_t flags);

/* Read one EHLO reply, all its lines as they came ("250-name\r\n250-SIZE 1000\r\n250 DSN\r\n"), already found
 * to be well-formed by smtp_reply_parse(). Unknown keywords are ignored; what is not usable is dropped.
 * "AUTH=PLAIN", the old spelling, is AUTH, and the mechanisms of several lines count together. */
void smtp_capabilities_parse(struct smtp_capabilities *out, const char *reply, size_t size);

/* Narrow `into` by what `other` lacks, and to what is usable then; the smaller non-zero size limit is kept.
 * PIPELINING is treated like the rest. */
void smtp_capabilities_intersect(struct smtp_capabilities *into, const struct smtp_capabilities *other);

/* The flag of a mechanism by its name, without regard to case; 0 if it is not carried. */
uint32_t smtp_auth_mechanism(const char *name, size_t size);

#define SMTP_EHLO_REPLY_MAX 1024
/* Write the multi-line 250 reply for `hostname` (at most 255 octets), with every flag of the offer that is
 * usable: AUTH and STARTTLS too, so they must be masked out where this client may not have them. Returns its
 * size. */
size_t smtp_capabilities_format(const struct smtp_capabilities *offer, const char *hostname,
                                char out[SMTP_EHLO_REPLY_MAX]);

#endif
