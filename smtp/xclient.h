/*
 * XCLIENT and XFORWARD, Postfix's commands that say who the client is (its XCLIENT_README and
 * XFORWARD_README).
 *
 *     command = ( "XCLIENT" / "XFORWARD" ) 1*( SP attribute "=" xtext ) CRLF
 *
 * Pure functions. A value is never let out of its place: everything outside '!'..'~', '+' and '=' is written
 * as +XX.
 */
#ifndef WEIR_SMTP_XCLIENT_H
#define WEIR_SMTP_XCLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum smtp_xclient_attribute {
    SMTP_XCLIENT_NAME = 1u << 0,
    SMTP_XCLIENT_ADDR = 1u << 1,
    SMTP_XCLIENT_PORT = 1u << 2,
    SMTP_XCLIENT_PROTO = 1u << 3,
    SMTP_XCLIENT_HELO = 1u << 4,
    SMTP_XCLIENT_LOGIN = 1u << 5,    /* XCLIENT only */
    SMTP_XCLIENT_DESTADDR = 1u << 6, /* XCLIENT only */
    SMTP_XCLIENT_DESTPORT = 1u << 7, /* XCLIENT only */
    SMTP_XCLIENT_IDENT = 1u << 8,    /* XFORWARD only */
    SMTP_XCLIENT_SOURCE = 1u << 9,   /* XFORWARD only */
};

/* The attributes that a line of an EHLO reply lists behind its keyword, or-ed; unknown ones are ignored. */
uint32_t smtp_xclient_attributes(const char *list, size_t size);

/* Who the client is, for a backend. */
struct smtp_identity {
    char address[46]; /* as text, without brackets and without "IPV6:"; empty: unknown */
    bool ipv6;
    uint16_t port;     /* 0: unknown */
    const char *login; /* only what the client's own XCLIENT said; NULL: none; the caller's */
};

#define SMTP_XCLIENT_LINE_MAX 512 /* octets, CRLF included */

/* Write one command, CRLF included: of what the backend lists (`attributes`) HELO, LOGIN, PROTO, PORT,
 * SOURCE, ADDR, NAME in this order. Returns its size, at most SMTP_XCLIENT_LINE_MAX; 0 if the backend does
 * not list ADDR, or `room` is too small.
 *
 * Unknown values are [UNAVAILABLE], and NAME always is: Weir looks no names up. So is a HELO or LOGIN that
 * would not fit the line, or is longer than 255 octets, which Postfix refuses: half a name would be somebody
 * else's. SOURCE is REMOTE. `verb` is "XCLIENT" or "XFORWARD"; `extended`: the client said EHLO. */
size_t smtp_xclient_format(char *out, size_t room, const char *verb, uint32_t attributes,
                           const struct smtp_identity *identity, const char *helo, size_t helo_size,
                           bool extended);

/* What a client's XCLIENT or XFORWARD said. A value that is given and is [UNAVAILABLE] or [TEMPUNAVAIL] has
 * its bit in `unavailable`, and its members stay 0. */
struct smtp_xclient {
    uint32_t given, unavailable; /* enum smtp_xclient_attribute, or-ed */
    uint8_t family;              /* AF_INET, AF_INET6 or 0; IPv4 mapped into IPv6 is IPv4 */
    uint8_t destination_family;
    bool extended; /* PROTO=ESMTP */
    uint16_t port; /* host order */
    uint16_t destination_port;
    uint8_t ip[16]; /* network order; IPv4 in the first four */
    uint8_t destination_ip[16];
    size_t helo_size, login_size;
    char helo[256];  /* '!'..'~' only: any other octet is '?', as in Postfix, so that it can be repeated to a
                        backend */
    char login[256]; /* no control characters */
};

/* Read the argument (behind the verb, without CRLF). False: an unknown attribute, one given twice, none at
 * all, or a bad value; *out is then to be ignored. Values are decoded; '=' within one is taken as it is,
 * since Postfix sends it so. NAME and IDENT are checked and forgotten. */
bool smtp_xclient_parse(const char *argument, size_t size, struct smtp_xclient *out);

#endif
