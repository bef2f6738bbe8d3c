/*
 * End-of-data and newline scanner (RFC 5321 §4.1.1.4, §2.3.8; RFC 3030 for chunks).
 *
 * Only CRLF ends a line and only CRLF.CRLF ends a message. The scanner looks at a body in place, as it
 * arrives, in pieces of any size, and says how much of it may be passed on verbatim.
 *
 *     struct smtp_scan s;                     one per body
 *     smtp_scan_start(&s, policy, true);
 *     r = smtp_scan_feed(&s, in, n);          pass on in[0..r.pass), then r.insert, then skip r.skip octets
 *
 * On MORE the whole input has been taken. Everything else stops the scan at that place, and feeding may go on
 * with the octets behind it (after SMTP_SCAN_EDIT), or is over (END, BARE_CR, BARE_LF).
 */
#ifndef WEIR_SMTP_SCAN_H
#define WEIR_SMTP_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum smtp_newline_policy {
    SMTP_NEWLINE_REJECT,    /* a bare CR or LF ends the scan */
    SMTP_NEWLINE_NORMALIZE, /* a bare LF becomes CRLF; a bare CR still ends the scan */
};

enum smtp_scan_verdict {
    SMTP_SCAN_MORE,    /* all of the input passes, the end has not come */
    SMTP_SCAN_END,     /* r.pass ends just behind the LF of CRLF.CRLF */
    SMTP_SCAN_EDIT,    /* normalize only: insert r.insert, skip r.skip, feed the rest */
    SMTP_SCAN_BARE_LF, /* reject only: r.pass ends before the LF */
    SMTP_SCAN_BARE_CR, /* r.pass ends before the CR, or is 0 if the CR was the last octet of an earlier piece
                        */
};

struct smtp_scan {
    uint8_t state;  /* private */
    uint8_t policy; /* enum smtp_newline_policy */
    bool dots;      /* look for the lone dot (DATA); without, newlines only (BDAT) */
};

struct smtp_scan_result {
    enum smtp_scan_verdict verdict;
    size_t pass;        /* octets to pass on as they are */
    size_t skip;        /* octets behind them to leave out */
    const char *insert; /* static, NUL-terminated, or NULL: what to put in their place ("\r\n" or ".") */
};

/* A body begins: as if a CRLF had just gone by. */
void smtp_scan_start(struct smtp_scan *scan, enum smtp_newline_policy policy, bool dots);
struct smtp_scan_result smtp_scan_feed(struct smtp_scan *scan, const char *in, size_t size);
/* The content ended without a terminator (BDAT LAST): true if nothing is left hanging (a CR without its LF).
 */
bool smtp_scan_finish(const struct smtp_scan *scan);

/* The block finders that feed() chooses from at start-up, exported for the tests and the micro-benchmark: all
 * must agree. Each returns how many leading octets of `in` hold only well-formed lines that are of no
 * interest: no bare CR or LF, no line that begins with a dot. `start` says whether in[0] is at the start of a
 * line. The count returned ends either at a line start or inside a line; never between CR and LF. */
typedef size_t smtp_scan_block_fn(const char *in, size_t size, bool start);
struct smtp_scan_block {
    const char *name; /* "naive", "portable", "sse2", "avx2" */
    smtp_scan_block_fn *skip;
    bool usable; /* on this processor */
};
/* All that were compiled in, best last. *count is set. */
const struct smtp_scan_block *smtp_scan_blocks(size_t *count);

#endif
