/*
 * End-of-data and newline scanner.
 *
 *                 +--------- CRLF ----------+
 *                 v                         |
 *     body --> START -- other --> TEXT -- CR --> CR -- other --> bare CR
 *                 |                 ^
 *                 +-- "." --> DOT --+-- CR --> DOT_CR -- LF --> the end
 *
 *     TEXT -- bare LF --> BARE_START -- "." --> BARE_DOT        (normalize only: lines that may not end the
 * message)
 *
 * In START and TEXT, that is almost everywhere, a block finder runs ahead; the table below sees only what it
 * stopped at. A bare LF and a lone dot next to one are edited so that the backend can't see CRLF.CRLF where
 * Weir saw no end.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smtp/scan.h"

enum scan_state {
    SCAN_START,      /* behind CRLF, or at the beginning of the body */
    SCAN_TEXT,       /* inside a line */
    SCAN_CR,         /* behind a CR that has been passed on */
    SCAN_DOT,        /* behind CRLF "." */
    SCAN_DOT_CR,     /* behind CRLF "." CR */
    SCAN_BARE_START, /* behind a bare LF that became CRLF */
    SCAN_BARE_DOT,   /* behind that and "." */
    SCAN_STATES,
};

enum scan_class { CLASS_CR, CLASS_LF, CLASS_DOT, CLASS_OTHER, CLASSES };

enum scan_action {
    ACT_PASS,
    ACT_END,
    ACT_BARE_LF,
    ACT_BARE_CR,
    ACT_GUARD, /* a lone dot that is not the end: one more dot, or, if bare LFs are refused, that */
};

struct scan_transition {
    uint8_t next;   /* enum scan_state */
    uint8_t action; /* enum scan_action */
};

/* clang-format off */
#define TO(state, action) { SCAN_##state, ACT_##action }
static const struct scan_transition transitions[SCAN_STATES][CLASSES] = {
    /*                    CR               LF                       "."                  other */
    [SCAN_START]      = { TO(CR, PASS),    TO(BARE_START, BARE_LF), TO(DOT, PASS),       TO(TEXT, PASS) },
    [SCAN_TEXT]       = { TO(CR, PASS),    TO(BARE_START, BARE_LF), TO(TEXT, PASS),      TO(TEXT, PASS) },
    [SCAN_CR]         = { TO(CR, BARE_CR), TO(START, PASS),         TO(CR, BARE_CR),     TO(CR, BARE_CR) },
    [SCAN_DOT]        = { TO(DOT_CR, PASS), TO(TEXT, GUARD),        TO(TEXT, PASS),      TO(TEXT, PASS) },
    [SCAN_DOT_CR]     = { TO(CR, BARE_CR), TO(START, END),          TO(CR, BARE_CR),     TO(CR, BARE_CR) },
    [SCAN_BARE_START] = { TO(CR, PASS),    TO(BARE_START, BARE_LF), TO(BARE_DOT, PASS),  TO(TEXT, PASS) },
    [SCAN_BARE_DOT]   = { TO(TEXT, GUARD), TO(TEXT, GUARD),         TO(TEXT, PASS),      TO(TEXT, PASS) },
};
#undef TO
/* clang-format on */

static smtp_scan_block_fn *skip_block;

__attribute__((constructor)) static void choose_block(void)
{
    size_t count;
    const struct smtp_scan_block *blocks = smtp_scan_blocks(&count);

    for (size_t i = 0; i < count; i++)
        if (blocks[i].usable)
            skip_block = blocks[i].skip;
}

void smtp_scan_start(struct smtp_scan *scan, enum smtp_newline_policy policy, bool dots)
{
    *scan = (struct smtp_scan){ .state = SCAN_START, .policy = (uint8_t)policy, .dots = dots };
}

static inline uint8_t classify(char octet, uint8_t dot)
{
    if ((uint8_t)octet > '.')
        return CLASS_OTHER;
    if (octet == '.')
        return dot;
    return octet == '\r' ? CLASS_CR : octet == '\n' ? CLASS_LF : CLASS_OTHER;
}

/* What a transition with any action but PASS, met at in[at], means to the caller. */
static struct smtp_scan_result stop(enum scan_action action, size_t at, uint8_t policy)
{
    bool normalize = policy == SMTP_NEWLINE_NORMALIZE;

    switch (action) {
    case ACT_PASS: break;
    case ACT_END: return (struct smtp_scan_result){ .verdict = SMTP_SCAN_END, .pass = at + 1 };
    case ACT_BARE_CR:
        return (struct smtp_scan_result){ .verdict = SMTP_SCAN_BARE_CR, .pass = at > 0 ? at - 1 : 0 };
    case ACT_BARE_LF:
        if (normalize)
            return (struct smtp_scan_result){ SMTP_SCAN_EDIT, .pass = at, .skip = 1, .insert = "\r\n" };
        break;
    case ACT_GUARD:
        if (normalize)
            return (struct smtp_scan_result){ SMTP_SCAN_EDIT, .pass = at, .insert = "." };
        break;
    }
    return (struct smtp_scan_result){ .verdict = SMTP_SCAN_BARE_LF, .pass = at };
}

/* Where a finder gets no further than this, because every line begins with a dot, the table is the quicker of
 * the two and goes on alone for a while. */
#define SHORT_SKIP   16
#define TABLE_OCTETS 128

struct smtp_scan_result smtp_scan_feed(struct smtp_scan *scan, const char *in, size_t size)
{
    const uint8_t dot = scan->dots ? CLASS_DOT : CLASS_OTHER;
    uint8_t state = scan->state;
    size_t i = 0, finder_from = 0;

    while (i < size) {
        if (i >= finder_from && (state == SCAN_TEXT || state == SCAN_START)) {
            size_t skipped = skip_block(in + i, size - i, state == SCAN_START);

            if (skipped > 0) {
                i += skipped;
                state = in[i - 1] == '\n' ? SCAN_START : SCAN_TEXT;
            }
            if (i == size)
                break;
            if (skipped < SHORT_SKIP)
                finder_from = i + TABLE_OCTETS;
        }

        const struct scan_transition *t = &transitions[state][classify(in[i], dot)];

        state = t->next;
        if (t->action != ACT_PASS) {
            scan->state = state;
            return stop((enum scan_action)t->action, i, scan->policy);
        }
        i++;
    }
    scan->state = state;
    return (struct smtp_scan_result){ .verdict = SMTP_SCAN_MORE, .pass = size };
}

bool smtp_scan_finish(const struct smtp_scan *scan)
{
    return scan->state != SCAN_CR && scan->state != SCAN_DOT_CR;
}
