/*
 * What a relay's agent says: HAProxy's agent-check text (its configuration manual, "agent-check"). Pure.
 *
 *     line    one, up to the first CR or LF; what follows is not looked at
 *     words   in any order, between spaces, tabs and commas; capitals or not
 *
 *     75%                      of the configured weight
 *     maxconn:30               places; 0: no limit of the agent's
 *     ready, drain, maint      the administrative state
 *     up                       works
 *     down, fail, stopped      does not; the words differ for the operator only
 *     # …                      why; to the end of the line
 *
 * What is not said stays as it was. Of several words of one kind the last counts. A word that is not
 * understood changes nothing, and takes nothing away from the others.
 */
#ifndef WEIR_HEALTH_AGENT_TEXT_H
#define WEIR_HEALTH_AGENT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "balancer/backend.h"

#define AGENT_TEXT_MAX  1024    /* octets in which the line has to end; it is of a few words */
#define AGENT_SHARE_MAX 10000   /* thousandths: more is taken for this */
#define AGENT_LIMIT_MAX 1000000 /* as for max-connections: more is taken for this */
#define AGENT_WHY_MAX   64
#define AGENT_ODD_MAX   32

enum agent_health { AGENT_HEALTH_UNSAID, AGENT_UP, AGENT_DOWN, AGENT_FAIL, AGENT_STOPPED };
#define AGENT_HEALTHS (AGENT_STOPPED + 1)
const char *agent_health_name(enum agent_health health); /* the word itself */

struct agent_text {
    bool says_admin, says_share, says_limit;
    enum backend_admin admin;
    uint32_t share; /* thousandths of the weight */
    uint32_t limit; /* places; BACKEND_NO_CEILING: none of its own */
    enum agent_health health;
    char why[AGENT_WHY_MAX]; /* cut; any octet but NUL, CR and LF */
    char odd[AGENT_ODD_MAX]; /* the first word that was not understood, cut; "": all were */
};

enum agent_verdict {
    AGENT_TEXT_MORE, /* the line has not ended */
    AGENT_TEXT_SAID, /* something, or at least nothing wrong besides `odd` */
    AGENT_TEXT_NOTHING,
    AGENT_TEXT_NO_LINE, /* it is too long, or there is a NUL in it */
    AGENT_TEXT_ODD,     /* words, none of them understood */
};

/* Read all octets received so far. `ended`: no more will come, which ends the line too: agents that close
 * without a line end are common, and a line of a few octets is not cut on its way. *out is filled with SAID
 * and ODD. */
enum agent_verdict agent_text_read(const char *in, size_t size, bool ended, struct agent_text *out);

#endif
