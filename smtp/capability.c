/*
 * What an EHLO offers.
 *
 *     ehlo-ok-rsp = "250-" domain [ SP greeting ] CRLF  *( "250-" ehlo-line CRLF )  "250" SP ehlo-line CRLF
 *     ehlo-line   = keyword *( SP parameter )
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "smtp/capability.h"
#include "smtp/xclient.h"

/* In the order in which they are offered. */
static const struct {
    const char *keyword;
    enum smtp_capability flag;
} keywords[] = {
    {"PIPELINING",           SMTP_CAP_PIPELINING         },
    { "SIZE",                SMTP_CAP_SIZE               },
    { "8BITMIME",            SMTP_CAP_8BITMIME           },
    { "SMTPUTF8",            SMTP_CAP_SMTPUTF8           },
    { "DSN",                 SMTP_CAP_DSN                },
    { "ENHANCEDSTATUSCODES", SMTP_CAP_ENHANCEDSTATUSCODES},
    { "CHUNKING",            SMTP_CAP_CHUNKING           },
    { "BINARYMIME",          SMTP_CAP_BINARYMIME         },
};

#define KEYWORDS (sizeof keywords / sizeof keywords[0])

/* RFC 3030 §3: BINARYMIME without CHUNKING can't be used. */
static uint32_t usable(uint32_t flags)
{
    return flags & SMTP_CAP_CHUNKING ? flags : flags & ~(uint32_t)SMTP_CAP_BINARYMIME;
}

static uint64_t smaller_limit(uint64_t a, uint64_t b)
{
    if (a == 0 || b == 0)
        return a + b;
    return a < b ? a : b;
}

/* The parameter of SIZE. None, nonsense and what exceeds 64 bits state no limit. */
static uint64_t parse_size(const char *text, size_t size)
{
    uint64_t value = 0;

    if (size == 0)
        return 0;
    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            return 0;
    }
    return value;
}

static bool word_is(const char *text, size_t size, const char *word)
{
    return size == strlen(word) && strncasecmp(text, word, size) == 0;
}

/* Length of the word that begins at text[at]. */
static size_t word_size(const char *text, size_t size, size_t at)
{
    size_t end = at;

    while (end < size && text[end] != ' ' && text[end] != '\t')
        end++;
    return end - at;
}

static void parse_line(struct smtp_capabilities *out, const char *text, size_t size)
{
    size_t length = word_size(text, size, 0), at = length;

    for (size_t k = 0; k < KEYWORDS; k++) {
        if (!word_is(text, length, keywords[k].keyword))
            continue;
        out->flags |= keywords[k].flag;
        if (keywords[k].flag == SMTP_CAP_SIZE) {
            while (at < size && (text[at] == ' ' || text[at] == '\t'))
                at++;
            out->size_limit =
                smaller_limit(out->size_limit, parse_size(text + at, word_size(text, size, at)));
        }
    }
    if (word_is(text, length, "XCLIENT"))
        out->xclient |= (uint16_t)smtp_xclient_attributes(text + length, size - length);
    else if (word_is(text, length, "XFORWARD"))
        out->xforward |= (uint16_t)smtp_xclient_attributes(text + length, size - length);
}

void smtp_capabilities_parse(struct smtp_capabilities *out, const char *reply, size_t size)
{
    bool greeting = true; /* the first line names the host, which may well be called "dsn" */

    *out = (struct smtp_capabilities){ 0 };
    while (size > 0) {
        const char *lf = memchr(reply, '\n', size);
        size_t taken = lf ? (size_t)(lf - reply) + 1 : size, length = taken;

        while (length > 0 && (reply[length - 1] == '\n' || reply[length - 1] == '\r'))
            length--;
        if (!greeting && length > 4)
            parse_line(out, reply + 4, length - 4);
        greeting = false;
        reply += taken;
        size -= taken;
    }
    out->flags = usable(out->flags);
}

void smtp_capabilities_intersect(struct smtp_capabilities *into, const struct smtp_capabilities *other)
{
    into->flags = usable(into->flags & other->flags);
    into->xclient &= other->xclient;
    into->xforward &= other->xforward;
    into->size_limit = smaller_limit(into->size_limit, other->size_limit);
}

size_t smtp_capabilities_format(const struct smtp_capabilities *offer, const char *hostname,
                                char out[SMTP_EHLO_REPLY_MAX])
{
    uint32_t flags = usable(offer->flags);
    size_t last = 0; /* where the last line begins */
    int at = snprintf(out, SMTP_EHLO_REPLY_MAX, "250-%.255s\r\n", hostname);

    for (size_t k = 0; k < KEYWORDS; k++) {
        if (!(flags & keywords[k].flag))
            continue;
        last = (size_t)at;
        at += snprintf(out + at, SMTP_EHLO_REPLY_MAX - (size_t)at, "250-%s", keywords[k].keyword);
        if (keywords[k].flag == SMTP_CAP_SIZE && offer->size_limit > 0)
            at += snprintf(out + at, SMTP_EHLO_REPLY_MAX - (size_t)at, " %llu",
                           (unsigned long long)offer->size_limit);
        at += snprintf(out + at, SMTP_EHLO_REPLY_MAX - (size_t)at, "\r\n");
    }
    out[last + 3] = ' ';
    return (size_t)at;
}
