/*
 * Replies of a backend (RFC 5321 §4.2; enhanced codes RFC 3463).
 *
 *     Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP [ textstring ] ] CRLF
 *
 * A backend is a hostile peer like any other: codes out of range, lines that disagree, endless lines and
 * control characters are met here.
 */
#ifndef WEIR_SMTP_REPLY_H
#define WEIR_SMTP_REPLY_H

#include <stddef.h>
#include <stdint.h>

#define SMTP_REPLY_MAX 8192 /* octets of one whole reply: this only bounds a malicious or broken backend */

struct smtp_reply {
    int code; /* 200 to 599 */
    uint8_t
        status_class; /* enhanced status code "4.3.2", if the last line has one of the code's class; else 0 */
    uint16_t subject, detail;
    size_t size; /* octets of the whole reply, last CRLF included */
    const char *
        text; /* of the last line, behind code and separator; enhanced code included; points into the input */
    size_t text_size; /* without CRLF */
    unsigned lines;
};

/* Parse the reply that `in` begins with. Returns 1: *out is complete, take out->size octets; 0: more octets
 * are needed; -1: malformed (bad code, codes that differ, a bare LF or CR, longer than SMTP_REPLY_MAX).
 * Stateless: feed the same beginning again with more behind it. A reply line of the code alone ("250" CRLF)
 * is accepted. */
int smtp_reply_parse(const char *in, size_t size, struct smtp_reply *out);

/* Copy reply octets for a client: every octet that is not printable ASCII, space, tab or (with utf8) >= 0x80
 * becomes
 * '?'; CRLF at line ends is kept. `out` has room for `size` octets. */
void smtp_reply_sanitise(const char *in, size_t size, char *out, int utf8);

#endif
