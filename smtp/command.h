/*
 * Commands of a client (RFC 5321 §4.1).
 *
 *     command = verb [ SP argument ] CRLF
 *     MAIL FROM:Reverse-path [ SP Mail-parameters ]      RCPT TO:Forward-path [ SP Rcpt-parameters ]
 */
#ifndef WEIR_SMTP_COMMAND_H
#define WEIR_SMTP_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smtp/capability.h"

struct smtp_span {
    const char *data;
    size_t size;
};

enum smtp_verb {
    SMTP_VERB_UNKNOWN,
    SMTP_VERB_HELO,
    SMTP_VERB_EHLO,
    SMTP_VERB_MAIL,
    SMTP_VERB_RCPT,
    SMTP_VERB_DATA,
    SMTP_VERB_BDAT,
    SMTP_VERB_RSET,
    SMTP_VERB_NOOP,
    SMTP_VERB_VRFY,
    SMTP_VERB_EXPN,
    SMTP_VERB_HELP,
    SMTP_VERB_QUIT,
    SMTP_VERB_STARTTLS,
    SMTP_VERB_AUTH,
    SMTP_VERB_ETRN,
    SMTP_VERB_XCLIENT,
    SMTP_VERB_XFORWARD,
    SMTP_VERB_HTTP, /* GET, POST, PUT, HEAD, OPTIONS, CONNECT … or a header line "Host:": a browser was
                       tricked into this; or a PROXY header that nobody asked for */
    SMTP_VERB_COUNT,
};

/* The longest line of each verb, CRLF included: RFC 5321 §4.5.3.1.4 plus what extensions add. */
#define SMTP_LINE_MAX      2048 /* MAIL and RCPT with SIZE, DSN, SMTPUTF8, AUTH; everything else is shorter */
#define SMTP_LINE_AUTH_MAX 12288 /* RFC 4954 §4 */

struct smtp_command {
    enum smtp_verb verb;
    struct smtp_span argument; /* behind the verb, blanks trimmed at both ends */
};

/* Split a line (without its CRLF). The verb is matched without regard to case. */
struct smtp_command smtp_command_parse(const char *line, size_t size);
/* Upper-case name ("MAIL"), for logs and for forwarding. */
const char *smtp_verb_name(enum smtp_verb verb);

enum smtp_body { SMTP_BODY_7BIT, SMTP_BODY_8BITMIME, SMTP_BODY_BINARYMIME };

struct smtp_mail {
    struct smtp_span path;       /* with its angle brackets: "<a@b>" or "<>" */
    struct smtp_span parameters; /* behind the path, may be empty; blanks trimmed */
    uint32_t uses;               /* enum smtp_capability bits that this transaction needs */
    uint64_t size;               /* of SIZE=, else 0 */
    enum smtp_body body;
};

struct smtp_rcpt {
    struct smtp_span path;
    struct smtp_span parameters;
    uint32_t uses;
};

/* Parse the argument of MAIL or RCPT against what the client was offered. NULL, or a whole reply to refuse it
 * with
 * ("501 5.5.4 …\r\n", "555 5.5.4 …\r\n"). "FROM:" and "TO:" without regard to case, one run of blanks behind
 * the colon is forgiven, source routes ("<@a,@b:c@d>") pass unchanged, quoted local parts may hold '>' and
 * blanks. Octets above 0x7F need SMTPUTF8 among the MAIL parameters (`utf8` of RCPT says whether it was
 * there); control characters are refused. A parameter given twice is refused. */
const char *smtp_mail_parse(struct smtp_span argument, uint32_t offered, struct smtp_mail *out);
const char *smtp_rcpt_parse(struct smtp_span argument, uint32_t offered, bool utf8, struct smtp_rcpt *out);

/* The domain of a path that was found in order: what stands behind the last '@' outside quotes, without a dot
 * at its end. Empty where there is none: the null sender, "<>", and a mailbox alone. A part of `path`. */
struct smtp_span smtp_path_domain(struct smtp_span path);

/* The argument of BDAT: a decimal number of octets and optionally LAST (RFC 3030 §2). False: *octets is still
 * set when a number that fits 63 bits was there (so that the chunk can be skipped), and *has_octets says so.
 */
bool smtp_bdat_parse(struct smtp_span argument, uint64_t *octets, bool *last, bool *has_octets);

/* HELO and EHLO argument: a domain or an address literal. Lenient as mail clients are: any printable ASCII
 * without blanks, at most 255 octets. */
bool smtp_helo_valid(struct smtp_span argument);

#endif
