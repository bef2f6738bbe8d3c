/*
 * What an EHLO offers.
 *
 *     ehlo-ok-rsp = "250-" domain [ SP greeting ] CRLF  *( "250-" ehlo-line CRLF )  "250" SP ehlo-line CRLF
 *     ehlo-line   = keyword *( SP parameter )
 *     auth-line   = "AUTH" *( SP mechanism )  /  "AUTH=" mechanism *( SP mechanism )
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "smtp/capability.h"
#include "smtp/xclient.h"

/* The strongest first: it is a hint to the clients that take the first one they know. */
static const struct {
    const char *name;
    enum smtp_capability flag;
} mechanisms[] = {
    {"SCRAM-SHA-512",  SMTP_CAP_AUTH_SCRAM_SHA_512},
    { "SCRAM-SHA-256", SMTP_CAP_AUTH_SCRAM_SHA_256},
    { "SCRAM-SHA-1",   SMTP_CAP_AUTH_SCRAM_SHA_1  },
    { "OAUTHBEARER",   SMTP_CAP_AUTH_OAUTHBEARER  },
    { "XOAUTH2",       SMTP_CAP_AUTH_XOAUTH2      },
    { "DIGEST-MD5",    SMTP_CAP_AUTH_DIGEST_MD5   },
    { "CRAM-MD5",      SMTP_CAP_AUTH_CRAM_MD5     },
    { "PLAIN",         SMTP_CAP_AUTH_PLAIN        },
    { "LOGIN",         SMTP_CAP_AUTH_LOGIN        },
};

#define MECHANISMS (sizeof mechanisms / sizeof mechanisms[0])

uint32_t smtp_capabilities_usable(uint32_t flags)
{
    const uint32_t authentication = SMTP_CAP_AUTH | SMTP_CAP_AUTH_MECHANISMS;

    if (!(flags & SMTP_CAP_CHUNKING)) /* RFC 3030 §3 */
        flags &= ~(uint32_t)SMTP_CAP_BINARYMIME;
    if (!(flags & SMTP_CAP_AUTH) || !(flags & SMTP_CAP_AUTH_MECHANISMS))
        flags &= ~authentication;
    return flags;
}

/* --- words --- */

static bool is_blank(char octet)
{
    return octet == ' ' || octet == '\t';
}

static bool word_is(const char *text, size_t size, const char *word)
{
    return size == strlen(word) && strncasecmp(text, word, size) == 0;
}

/* The next word of a list of parameters, which is shortened by it. Its size is 0 at the end. */
static const char *next_word(const char **text, size_t *size, size_t *word_size)
{
    const char *at = *text, *end = at + *size, *word;

    while (at < end && is_blank(*at))
        at++;
    word = at;
    while (at < end && !is_blank(*at))
        at++;
    *word_size = (size_t)(at - word);
    *size = (size_t)(end - at);
    *text = at;
    return word;
}

/* --- parameters --- */

static uint64_t smaller_limit(uint64_t a, uint64_t b)
{
    if (a == 0 || b == 0)
        return a + b;
    return a < b ? a : b;
}

/* The parameter of SIZE. None, nonsense and what exceeds 64 bits state no limit. */
static uint64_t size_value(const char *text, size_t size)
{
    uint64_t value = 0;

    for (size_t i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            return 0;
    }
    return value;
}

static void read_size(struct smtp_capabilities *out, const char *text, size_t size)
{
    size_t length;
    const char *word = next_word(&text, &size, &length);

    out->flags |= SMTP_CAP_SIZE;
    out->size_limit = smaller_limit(out->size_limit, size_value(word, length));
}

static size_t write_size(const struct smtp_capabilities *offer, char *out, size_t room)
{
    if (offer->size_limit == 0)
        return 0;
    return (size_t)snprintf(out, room, " %llu", (unsigned long long)offer->size_limit);
}

uint32_t smtp_auth_mechanism(const char *name, size_t size)
{
    for (size_t i = 0; i < MECHANISMS; i++)
        if (word_is(name, size, mechanisms[i].name))
            return mechanisms[i].flag;
    return 0;
}

static void read_auth(struct smtp_capabilities *out, const char *text, size_t size)
{
    size_t length;
    const char *word;

    out->flags |= SMTP_CAP_AUTH;
    while (word = next_word(&text, &size, &length), length > 0)
        out->flags |= smtp_auth_mechanism(word, length);
}

static size_t write_auth(const struct smtp_capabilities *offer, char *out, size_t room)
{
    size_t at = 0;

    for (size_t i = 0; i < MECHANISMS; i++)
        if (offer->flags & mechanisms[i].flag)
            at += (size_t)snprintf(out + at, room - at, " %s", mechanisms[i].name);
    return at;
}

static void read_xclient(struct smtp_capabilities *out, const char *text, size_t size)
{
    out->xclient |= (uint16_t)smtp_xclient_attributes(text, size);
}

static void read_xforward(struct smtp_capabilities *out, const char *text, size_t size)
{
    out->xforward |= (uint16_t)smtp_xclient_attributes(text, size);
}

/* --- lines --- */

/* In the order in which they are offered. */
static const struct {
    const char *keyword;
    enum smtp_capability offered; /* 0: never */
    /* Notes the keyword and its parameters. NULL: it is the flag and no more. */
    void (*read)(struct smtp_capabilities *out, const char *text, size_t size);
    /* Writes the parameters, a blank before each, and returns their size. NULL: there are none. */
    size_t (*write)(const struct smtp_capabilities *offer, char *out, size_t room);
} keywords[] = {
    {"PIPELINING",           SMTP_CAP_PIPELINING,          NULL,          NULL      },
    { "SIZE",                SMTP_CAP_SIZE,                read_size,     write_size},
    { "8BITMIME",            SMTP_CAP_8BITMIME,            NULL,          NULL      },
    { "SMTPUTF8",            SMTP_CAP_SMTPUTF8,            NULL,          NULL      },
    { "DSN",                 SMTP_CAP_DSN,                 NULL,          NULL      },
    { "ENHANCEDSTATUSCODES", SMTP_CAP_ENHANCEDSTATUSCODES, NULL,          NULL      },
    { "CHUNKING",            SMTP_CAP_CHUNKING,            NULL,          NULL      },
    { "BINARYMIME",          SMTP_CAP_BINARYMIME,          NULL,          NULL      },
    { "STARTTLS",            SMTP_CAP_STARTTLS,            NULL,          NULL      },
    { "AUTH",                SMTP_CAP_AUTH,                read_auth,     write_auth},
    { "AUTH=",               0,                            read_auth,     NULL      },
    { "XCLIENT",             0,                            read_xclient,  NULL      },
    { "XFORWARD",            0,                            read_xforward, NULL      },
};

#define KEYWORDS (sizeof keywords / sizeof keywords[0])

/* A keyword ends at a blank, or with the '=' of the old AUTH, which makes another word of any other. */
static size_t keyword_size(const char *text, size_t size)
{
    size_t end = 0;

    while (end < size && !is_blank(text[end]))
        if (text[end++] == '=')
            break;
    return end;
}

static void read_line(struct smtp_capabilities *out, const char *text, size_t size)
{
    size_t length = keyword_size(text, size);

    for (size_t k = 0; k < KEYWORDS; k++) {
        if (!word_is(text, length, keywords[k].keyword))
            continue;
        if (keywords[k].read)
            keywords[k].read(out, text + length, size - length);
        else
            out->flags |= keywords[k].offered;
    }
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
            read_line(out, reply + 4, length - 4);
        greeting = false;
        reply += taken;
        size -= taken;
    }
    out->flags = smtp_capabilities_usable(out->flags);
}

void smtp_capabilities_intersect(struct smtp_capabilities *into, const struct smtp_capabilities *other)
{
    into->flags = smtp_capabilities_usable(into->flags & other->flags);
    into->xclient &= other->xclient;
    into->xforward &= other->xforward;
    into->size_limit = smaller_limit(into->size_limit, other->size_limit);
}

size_t smtp_capabilities_format(const struct smtp_capabilities *offer, const char *hostname,
                                char out[SMTP_EHLO_REPLY_MAX])
{
    uint32_t flags = smtp_capabilities_usable(offer->flags);
    size_t last = 0; /* where the last line begins */
    size_t at = (size_t)snprintf(out, SMTP_EHLO_REPLY_MAX, "250-%.255s\r\n", hostname);

    for (size_t k = 0; k < KEYWORDS; k++) {
        if (!(flags & keywords[k].offered))
            continue;
        last = at;
        at += (size_t)snprintf(out + at, SMTP_EHLO_REPLY_MAX - at, "250-%s", keywords[k].keyword);
        if (keywords[k].write)
            at += keywords[k].write(offer, out + at, SMTP_EHLO_REPLY_MAX - at);
        at += (size_t)snprintf(out + at, SMTP_EHLO_REPLY_MAX - at, "\r\n");
    }
    out[last + 3] = ' ';
    return at;
}
