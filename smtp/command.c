/*
 * Commands of a client.
 *
 *     command    = verb [ SP argument ] CRLF
 *     argument   = ("FROM:" / "TO:") [ SP ] path *( SP parameter )       of MAIL and RCPT
 *     path       = "<" [ source-route ":" ] [ mailbox ] ">"
 *     parameter  = keyword [ "=" value ]
 *
 * A path is only taken apart as far as it takes to find its end beyond doubt: whether the mailbox in it is
 * any good is for the backend to say. Parameters are checked whole, because what the transaction needs
 * depends on them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "smtp/capability.h"
#include "smtp/command.h"

static const char *const verb_names[] = {
    [SMTP_VERB_UNKNOWN] = "UNKNOWN", [SMTP_VERB_HELO] = "HELO",         [SMTP_VERB_EHLO] = "EHLO",
    [SMTP_VERB_MAIL] = "MAIL",       [SMTP_VERB_RCPT] = "RCPT",         [SMTP_VERB_DATA] = "DATA",
    [SMTP_VERB_BDAT] = "BDAT",       [SMTP_VERB_RSET] = "RSET",         [SMTP_VERB_NOOP] = "NOOP",
    [SMTP_VERB_VRFY] = "VRFY",       [SMTP_VERB_EXPN] = "EXPN",         [SMTP_VERB_HELP] = "HELP",
    [SMTP_VERB_QUIT] = "QUIT",       [SMTP_VERB_STARTTLS] = "STARTTLS", [SMTP_VERB_AUTH] = "AUTH",
    [SMTP_VERB_ETRN] = "ETRN",       [SMTP_VERB_XCLIENT] = "XCLIENT",   [SMTP_VERB_XFORWARD] = "XFORWARD",
    [SMTP_VERB_HTTP] = "HTTP",
};
_Static_assert(sizeof verb_names / sizeof verb_names[0] == SMTP_VERB_COUNT, "a verb has no name");

/* How the first line of an HTTP request begins (RFC 9110 §9, RFC 5789, RFC 9113 §3.4), and the one header
 * that every request of a browser has. And PROXY, from somebody who is not in proxy-protocol-from: what comes
 * behind it is meant for a server that believes him. */
static const char *const http_words[] = { "GET",     "POST",  "PUT",   "HEAD", "DELETE", "OPTIONS",
                                          "CONNECT", "TRACE", "PATCH", "PRI",  "HOST:",  "PROXY" };

static bool is_blank(char octet)
{
    return octet == ' ' || octet == '\t';
}

static struct smtp_span trim(const char *data, size_t size)
{
    while (size > 0 && is_blank(data[0]))
        data++, size--;
    while (size > 0 && is_blank(data[size - 1]))
        size--;
    return (struct smtp_span){ data, size };
}

static bool span_is(struct smtp_span span, const char *word)
{
    return span.size == strlen(word) && strncasecmp(span.data, word, span.size) == 0;
}

static bool span_begins(struct smtp_span span, const char *word)
{
    return span.size >= strlen(word) && strncasecmp(span.data, word, strlen(word)) == 0;
}

static enum smtp_verb find_verb(struct smtp_span word)
{
    /* The first letter spares most of the comparisons; 0x20 is all that upper and lower case differ in. */
    char first = word.size ? (char)(word.data[0] & ~0x20) : '\0';

    for (int verb = SMTP_VERB_UNKNOWN + 1; verb < SMTP_VERB_HTTP; verb++)
        if (verb_names[verb][0] == first && span_is(word, verb_names[verb]))
            return (enum smtp_verb)verb;
    for (size_t i = 0; i < sizeof http_words / sizeof http_words[0]; i++)
        if (span_is(word, http_words[i]))
            return SMTP_VERB_HTTP;
    return span_begins(word, "HOST:") ? SMTP_VERB_HTTP : SMTP_VERB_UNKNOWN;
}

struct smtp_command smtp_command_parse(const char *line, size_t size)
{
    size_t end = 0;

    while (end < size && !is_blank(line[end]))
        end++;
    if (size == 1 && line[0] == '\0') /* the third line of a PROXY header's signature, version 2 */
        return (struct smtp_command){
            .verb = SMTP_VERB_HTTP, .argument = {line + size, 0}
        };
    return (struct smtp_command){ .verb = find_verb((struct smtp_span){ line, end }),
                                  .argument = trim(line + end, size - end) };
}

const char *smtp_verb_name(enum smtp_verb verb)
{
    return verb_names[verb < SMTP_VERB_COUNT ? verb : SMTP_VERB_UNKNOWN];
}

/* Parameters of MAIL and RCPT. */

#define REFUSE_MAIL_SYNTAX "501 5.5.4 Syntax: MAIL FROM:<address> [parameters]\r\n"
#define REFUSE_RCPT_SYNTAX "501 5.5.4 Syntax: RCPT TO:<address> [parameters]\r\n"
#define REFUSE_SENDER      "501 5.1.7 Bad sender address syntax\r\n"
#define REFUSE_RECIPIENT   "501 5.1.3 Bad recipient address syntax\r\n"
#define REFUSE_CONTROL     "501 5.5.4 Control characters are not allowed\r\n"
#define REFUSE_NON_ASCII   "553 5.6.7 Non-ASCII addresses need SMTPUTF8\r\n" /* RFC 6531 §3.5 */
#define REFUSE_VALUE       "501 5.5.4 Bad value of a parameter\r\n"
#define REFUSE_TWICE       "501 5.5.4 A parameter is given twice\r\n"
#define REFUSE_UNKNOWN     "555 5.5.4 Unsupported parameter\r\n"

/* What the parameters of one command come to. */
struct parameters {
    uint32_t offered; /* to the client */
    uint32_t uses;
    uint64_t size;
    enum smtp_body body;
    bool utf8; /* values may hold octets above 0x7F */
};

/* Checks one value (value.data is NULL if there was no "=") and notes what it asks for. NULL, or the refusal.
 */
typedef const char *parameter_fn(struct smtp_span value, struct parameters *p);

static const char *parameter_size(struct smtp_span value, struct parameters *p)
{
    uint64_t octets = 0;

    if (value.size == 0 || value.size > 20) /* RFC 1870 §3 */
        return REFUSE_VALUE;
    for (size_t i = 0; i < value.size; i++) {
        if (value.data[i] < '0' || value.data[i] > '9')
            return REFUSE_VALUE;
        if (__builtin_mul_overflow(octets, 10, &octets) ||
            __builtin_add_overflow(octets, (uint64_t)(value.data[i] - '0'), &octets))
            return REFUSE_VALUE;
    }
    p->size = octets;
    return NULL;
}

/* RFC 6152 §3, RFC 3030 §3 */
static const char *parameter_body(struct smtp_span value, struct parameters *p)
{
    uint32_t needed = SMTP_CAP_8BITMIME;

    if (span_is(value, "7BIT")) {
        p->body = SMTP_BODY_7BIT;
    } else if (span_is(value, "8BITMIME")) {
        p->body = SMTP_BODY_8BITMIME;
    } else if (span_is(value, "BINARYMIME")) {
        p->body = SMTP_BODY_BINARYMIME;
        needed = SMTP_CAP_BINARYMIME | SMTP_CAP_CHUNKING;
    } else {
        return REFUSE_VALUE;
    }
    p->uses |= needed;
    return (p->offered & needed) == needed ? NULL : REFUSE_UNKNOWN;
}

/* RFC 6531 §3.4: it has no value. */
static const char *parameter_smtputf8(struct smtp_span value, struct parameters *p)
{
    p->utf8 = true;
    return value.data ? REFUSE_VALUE : NULL;
}

/* RFC 3461 §4.3 */
static const char *parameter_ret(struct smtp_span value, struct parameters *p)
{
    (void)p;
    return span_is(value, "FULL") || span_is(value, "HDRS") ? NULL : REFUSE_VALUE;
}

static int hex_digit(char octet)
{
    if (octet >= '0' && octet <= '9')
        return octet - '0';
    if (octet >= 'A' && octet <= 'F')
        return octet - 'A' + 10;
    return octet >= 'a' && octet <= 'f' ? octet - 'a' + 10 : -1;
}

/* xtext (RFC 3461 §4), where blanks and control characters have been ruled out already. What it encodes must
 * be printable (§4.2, §4.4): it ends up in a header line of a report, or in a log. Octets above 0x7F may
 * stand there as they are, or encoded, or neither. */
static bool is_xtext(struct smtp_span text, bool plain_utf8, bool coded_utf8)
{
    for (size_t i = 0; i < text.size; i++) {
        uint8_t octet = (uint8_t)text.data[i];

        if (octet >= 0x80 ? !plain_utf8 : octet == '=')
            return false;
        if (octet != '+')
            continue;
        if (text.size - i < 3)
            return false;

        int high = hex_digit(text.data[i + 1]), low = hex_digit(text.data[i + 2]), coded = high * 16 + low;

        if (high < 0 || low < 0 || (coded < ' ' && coded != '\t') || coded == 0x7F)
            return false;
        if (coded >= 0x80 && !coded_utf8)
            return false;
        i += 2;
    }
    return true;
}

/* RFC 3461 §4.4 */
static const char *parameter_envid(struct smtp_span value, struct parameters *p)
{
    (void)p;
    return value.size > 0 && value.size <= 100 && is_xtext(value, false, false) ? NULL : REFUSE_VALUE;
}

/* RFC 4954 §5: who submitted the message first, or "<>", which is xtext as well. */
static const char *parameter_auth(struct smtp_span value, struct parameters *p)
{
    (void)p;
    return value.size > 0 && value.size <= 500 && is_xtext(value, false, true) ? NULL : REFUSE_VALUE;
}

/* RFC 3461 §4.1: NEVER stands alone. */
static const char *parameter_notify(struct smtp_span value, struct parameters *p)
{
    (void)p;
    if (value.size == 0)
        return REFUSE_VALUE;
    if (span_is(value, "NEVER"))
        return NULL;
    for (size_t at = 0; at <= value.size; at++) {
        size_t begin = at;

        while (at < value.size && value.data[at] != ',')
            at++;

        struct smtp_span word = { value.data + begin, at - begin };

        if (!span_is(word, "SUCCESS") && !span_is(word, "FAILURE") && !span_is(word, "DELAY"))
            return REFUSE_VALUE;
    }
    return NULL;
}

static bool is_keyword(struct smtp_span word)
{
    for (size_t i = 0; i < word.size; i++) {
        char c = word.data[i];

        if (!(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z') &&
            (c != '-' || i == 0))
            return false;
    }
    return word.size > 0;
}

/* RFC 3461 §4.2: addr-type ";" xtext; with SMTPUTF8 also unencoded (RFC 6533 §3). */
static const char *parameter_orcpt(struct smtp_span value, struct parameters *p)
{
    const char *semicolon = value.size ? memchr(value.data, ';', value.size) : NULL;

    if (!semicolon || value.size > 500)
        return REFUSE_VALUE;

    struct smtp_span type = { value.data, (size_t)(semicolon - value.data) };
    struct smtp_span address = { semicolon + 1, value.size - type.size - 1 };

    return is_keyword(type) && address.size > 0 && is_xtext(address, p->utf8, false) ? NULL : REFUSE_VALUE;
}

#define CAP_BODY (SMTP_CAP_8BITMIME | SMTP_CAP_BINARYMIME) /* parameter_body() says which */

static const struct parameter {
    const char *keyword;
    enum smtp_verb verb;
    uint32_t needs; /* any of these among what was offered */
    uint32_t uses;  /* what the backend must have, since the parameter is passed on to it */
    parameter_fn *check;
} parameter_table[] = {
    {"SIZE",      SMTP_VERB_MAIL, SMTP_CAP_SIZE,     SMTP_CAP_SIZE,     parameter_size    },
    { "BODY",     SMTP_VERB_MAIL, CAP_BODY,          0,                 parameter_body    },
    { "SMTPUTF8", SMTP_VERB_MAIL, SMTP_CAP_SMTPUTF8, SMTP_CAP_SMTPUTF8, parameter_smtputf8},
    { "RET",      SMTP_VERB_MAIL, SMTP_CAP_DSN,      SMTP_CAP_DSN,      parameter_ret     },
    { "ENVID",    SMTP_VERB_MAIL, SMTP_CAP_DSN,      SMTP_CAP_DSN,      parameter_envid   },
    { "AUTH",     SMTP_VERB_MAIL, SMTP_CAP_AUTH,     SMTP_CAP_AUTH,     parameter_auth    },
    { "NOTIFY",   SMTP_VERB_RCPT, SMTP_CAP_DSN,      SMTP_CAP_DSN,      parameter_notify  },
    { "ORCPT",    SMTP_VERB_RCPT, SMTP_CAP_DSN,      SMTP_CAP_DSN,      parameter_orcpt   },
};

#define PARAMETERS (sizeof parameter_table / sizeof parameter_table[0])

/* One parameter, without blanks around it; `seen` has a bit for each one that went before. */
static const char *parse_parameter(struct smtp_span text, enum smtp_verb verb, struct parameters *p,
                                   unsigned *seen)
{
    const char *equals = memchr(text.data, '=', text.size);
    struct smtp_span keyword = { text.data, equals ? (size_t)(equals - text.data) : text.size },
                     value = { 0 };

    if (equals)
        value = (struct smtp_span){ equals + 1, text.size - keyword.size - 1 };
    if (!is_keyword(keyword))
        return verb == SMTP_VERB_MAIL ? REFUSE_MAIL_SYNTAX : REFUSE_RCPT_SYNTAX;
    for (size_t i = 0; i < PARAMETERS; i++) {
        const struct parameter *known = &parameter_table[i];

        if (known->verb != verb || !span_is(keyword, known->keyword))
            continue;
        if (!(known->needs & p->offered))
            return REFUSE_UNKNOWN;
        if (*seen & 1u << i)
            return REFUSE_TWICE;
        *seen |= 1u << i;
        p->uses |= known->uses;
        return known->check(value, p);
    }
    return REFUSE_UNKNOWN;
}

static const char *parse_parameters(struct smtp_span text, enum smtp_verb verb, struct parameters *p)
{
    unsigned seen = 0;
    size_t at = 0;

    while (at < text.size) {
        size_t end = at;

        while (end < text.size && text.data[end] != ' ')
            end++;
        if (end > at) {
            const char *refusal =
                parse_parameter((struct smtp_span){ text.data + at, end - at }, verb, p, &seen);

            if (refusal)
                return refusal;
        }
        at = end + 1;
    }
    return NULL;
}

/* Offset of the '>' that ends the path which `text` begins with, or 0. A quoted string may stand only where a
 * local part can have one: were a quote taken for one elsewhere, Weir and the backend might see the path end
 * in different places. */
static size_t path_end(struct smtp_span text)
{
    bool quoted = false;

    if (text.size == 0 || text.data[0] != '<')
        return 0;
    for (size_t i = 1; i < text.size; i++) {
        char octet = text.data[i], before = text.data[i - 1];

        if (quoted && octet == '\\') {
            i++;
        } else if (octet == '"') {
            if (quoted ? i + 1 == text.size || !strchr(".@>", text.data[i + 1]) : !strchr("<:.", before))
                return 0;
            quoted = !quoted;
        } else if (!quoted && octet == '>') {
            return i;
        } else if (!quoted && (octet == ' ' || octet == '<')) {
            return 0;
        }
    }
    return 0;
}

static bool has_control(struct smtp_span text)
{
    for (size_t i = 0; i < text.size; i++)
        if ((uint8_t)text.data[i] < ' ' || text.data[i] == 0x7F)
            return true;
    return false;
}

static bool has_non_ascii(struct smtp_span text)
{
    for (size_t i = 0; i < text.size; i++)
        if ((uint8_t)text.data[i] >= 0x80)
            return true;
    return false;
}

/* What MAIL and RCPT have in common. */
static const char *parse_path(struct smtp_span argument, enum smtp_verb verb, struct smtp_span *path,
                              struct smtp_span *rest)
{
    bool mail = verb == SMTP_VERB_MAIL;
    const char *word = mail ? "FROM:" : "TO:";

    if (has_control(argument))
        return REFUSE_CONTROL;
    if (!span_begins(argument, word))
        return mail ? REFUSE_MAIL_SYNTAX : REFUSE_RCPT_SYNTAX;
    argument = trim(argument.data + strlen(word), argument.size - strlen(word));

    size_t end = path_end(argument);

    if (end == 0)
        return mail ? REFUSE_SENDER : REFUSE_RECIPIENT;
    *path = (struct smtp_span){ argument.data, end + 1 };
    *rest = trim(argument.data + path->size, argument.size - path->size);
    if (rest->size > 0 && argument.data[path->size] != ' ')
        return mail ? REFUSE_MAIL_SYNTAX : REFUSE_RCPT_SYNTAX;
    return NULL;
}

const char *smtp_mail_parse(struct smtp_span argument, uint32_t offered, struct smtp_mail *out)
{
    struct parameters p = { .offered = offered };

    *out = (struct smtp_mail){ 0 };

    const char *refusal = parse_path(argument, SMTP_VERB_MAIL, &out->path, &out->parameters);

    if (!refusal)
        refusal = parse_parameters(out->parameters, SMTP_VERB_MAIL, &p);
    if (!refusal && has_non_ascii(out->path) && !p.utf8)
        refusal = REFUSE_NON_ASCII;
    out->uses = p.uses;
    out->size = p.size;
    out->body = p.body;
    return refusal;
}

const char *smtp_rcpt_parse(struct smtp_span argument, uint32_t offered, bool utf8, struct smtp_rcpt *out)
{
    struct parameters p = { .offered = offered, .utf8 = utf8 };

    *out = (struct smtp_rcpt){ 0 };

    const char *refusal = parse_path(argument, SMTP_VERB_RCPT, &out->path, &out->parameters);

    if (!refusal && out->path.size == 2) /* "<>" is a sender only */
        refusal = REFUSE_RECIPIENT;
    if (!refusal)
        refusal = parse_parameters(out->parameters, SMTP_VERB_RCPT, &p);
    if (!refusal && has_non_ascii(out->path) && !utf8)
        refusal = REFUSE_NON_ASCII;
    out->uses = p.uses;
    return refusal;
}

/* In a source route ("<@a,@b:c@d>") a colon begins the mailbox; in an address literal it is the address's. */
struct smtp_span smtp_path_domain(struct smtp_span path)
{
    const char *end = path.data + path.size - 1, *domain = end; /* the '>' */
    bool routed = path.size > 1 && path.data[1] == '@', quoted = false, literal = false;

    for (const char *p = path.data + 1; p < end; p++) {
        if (quoted && *p == '\\')
            p++;
        else if (*p == '"')
            quoted = !quoted;
        else if (quoted)
            continue;
        else if (*p == '[' || *p == ']')
            literal = *p == '[';
        else if (*p == '@')
            domain = p + 1;
        else if (*p == ':' && routed && !literal)
            domain = end;
    }
    if (end > domain && end[-1] == '.')
        end--;
    return (struct smtp_span){ domain, (size_t)(end - domain) };
}

bool smtp_bdat_parse(struct smtp_span argument, uint64_t *octets, bool *last, bool *has_octets)
{
    uint64_t value = 0;
    size_t end = 0;

    *octets = 0;
    *last = *has_octets = false;
    for (; end < argument.size && !is_blank(argument.data[end]); end++) {
        char digit = argument.data[end];

        if (digit < '0' || digit > '9')
            return false;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(digit - '0'), &value) || value > INT64_MAX)
            return false;
    }
    if (end == 0)
        return false;
    *octets = value;
    *has_octets = true;

    struct smtp_span rest = trim(argument.data + end, argument.size - end);

    *last = span_is(rest, "LAST");
    return *last || rest.size == 0;
}

bool smtp_helo_valid(struct smtp_span argument)
{
    for (size_t i = 0; i < argument.size; i++)
        if (argument.data[i] <= ' ' || argument.data[i] >= 0x7F)
            return false;
    return argument.size > 0 && argument.size <= 255;
}
