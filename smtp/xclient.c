/*
 * XCLIENT and XFORWARD.
 *
 *     attribute = "NAME" / "ADDR" / "PORT" / "PROTO" / "HELO" / "LOGIN" / "DESTADDR" / "DESTPORT" / "IDENT" /
 * "SOURCE" xtext     = *( xchar / "+" 2HEXDIG )                                                     RFC 3461
 * §4 address   = IPv4 / "IPV6:" IPv6 any value may be "[UNAVAILABLE]" or "[TEMPUNAVAIL]"
 */
#include "smtp/xclient.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define UNAVAILABLE "[UNAVAILABLE]"
#define TEMPUNAVAIL "[TEMPUNAVAIL]"
#define IPV6_PREFIX "IPV6:"
#define VALUE_MAX   255 /* octets, decoded */

/* In the order of their bits. */
static const char *const names[] = { "NAME",  "ADDR",     "PORT",     "PROTO", "HELO",
                                     "LOGIN", "DESTADDR", "DESTPORT", "IDENT", "SOURCE" };

#define NAMES (sizeof names / sizeof names[0])

/* A decoded value, with a NUL behind it. */
struct value {
    size_t size;
    char text[VALUE_MAX + 1];
};

static bool is_blank(char octet)
{
    return octet == ' ' || octet == '\t';
}

static uint32_t find_attribute(const char *name, size_t size)
{
    for (size_t i = 0; i < NAMES; i++)
        if (size == strlen(names[i]) && strncasecmp(name, names[i], size) == 0)
            return 1u << i;
    return 0;
}

uint32_t smtp_xclient_attributes(const char *list, size_t size)
{
    uint32_t attributes = 0;
    size_t at = 0;

    while (at < size) {
        size_t end = at;

        while (end < size && !is_blank(list[end]))
            end++;
        attributes |= find_attribute(list + at, end - at);
        at = end + 1;
    }
    return attributes;
}

/* --- writing --- */

/* A line that is being written; what does not fit marks it as bad. */
struct line {
    char *at, *end;
    bool bad;
};

static void put(struct line *line, const char *text)
{
    size_t size = strlen(text);

    if (line->bad || (size_t)(line->end - line->at) < size) {
        line->bad = true;
        return;
    }
    memcpy(line->at, text, size);
    line->at += size;
}

static void put_octet(struct line *line, char octet)
{
    static const char digits[] = "0123456789ABCDEF";
    uint8_t value = (uint8_t)octet;
    char coded[] = { octet, '\0', '\0', '\0' };

    if (value < '!' || value > '~' || value == '+' || value == '=') {
        coded[0] = '+';
        coded[1] = digits[value >> 4];
        coded[2] = digits[value & 0xF];
    }
    put(line, coded);
}

/* " NAME=value". Where that is too long, or there is none, it is unavailable. */
static void put_text(struct line *line, const char *name, const char *text, size_t size)
{
    put(line, " ");
    put(line, name);
    put(line, "=");

    struct line tried = *line;

    for (size_t i = 0; i < size && size <= VALUE_MAX && !tried.bad; i++)
        put_octet(&tried, text[i]);
    if (size == 0 || size > VALUE_MAX || tried.bad)
        put(line, UNAVAILABLE);
    else
        *line = tried;
}

/* What has a bounded size and stands last. */
static void put_tail(struct line *line, uint32_t attributes, const struct smtp_identity *identity,
                     bool extended)
{
    char text[sizeof IPV6_PREFIX + sizeof identity->address];
    size_t size = strnlen(identity->address, sizeof identity->address);

    if (attributes & SMTP_XCLIENT_PROTO)
        put(line, extended ? " PROTO=ESMTP" : " PROTO=SMTP");
    if (attributes & SMTP_XCLIENT_PORT) {
        int digits = snprintf(text, sizeof text, "%u", identity->port);

        put_text(line, "PORT", text, identity->port ? (size_t)digits : 0);
    }
    if (attributes & SMTP_XCLIENT_SOURCE)
        put(line, " SOURCE=REMOTE");
    if (size > 0)
        size = (size_t)snprintf(text, sizeof text, "%s%.*s", identity->ipv6 ? IPV6_PREFIX : "", (int)size,
                                identity->address);
    put_text(line, "ADDR", text, size);
    if (attributes & SMTP_XCLIENT_NAME)
        put(line, " NAME=" UNAVAILABLE);
    put(line, "\r\n");
}

size_t smtp_xclient_format(char *out, size_t room, const char *verb, uint32_t attributes,
                           const struct smtp_identity *identity, const char *helo, size_t helo_size,
                           bool extended)
{
    char last[256];
    struct line tail = { last, last + sizeof last - 1, false }, line = { out, out, false };
    size_t reserved, login;

    if (room > SMTP_XCLIENT_LINE_MAX)
        room = SMTP_XCLIENT_LINE_MAX;
    put_tail(&tail, attributes, identity, extended);
    *tail.at = '\0';
    login = attributes & SMTP_XCLIENT_LOGIN && identity->login ? strlen(" LOGIN=" UNAVAILABLE) : 0;
    reserved = (size_t)(tail.at - last) + login;
    if (!(attributes & SMTP_XCLIENT_ADDR) || tail.bad || room < reserved)
        return 0;
    line.end = out + room - reserved;
    put(&line, verb);
    if (attributes & SMTP_XCLIENT_HELO)
        put_text(&line, "HELO", helo, helo_size);
    line.end += login;
    if (login)
        put_text(&line, "LOGIN", identity->login, strlen(identity->login));
    line.end = out + room;
    put(&line, last);
    return line.bad ? 0 : (size_t)(line.at - out);
}

/* --- reading --- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool decode(const char *in, size_t size, struct value *out)
{
    out->size = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t octet = (uint8_t)in[i];

        if (octet < '!' || octet > '~' || out->size == VALUE_MAX)
            return false;
        if (octet == '+') {
            int high = size - i > 2 ? hex_digit(in[i + 1]) : -1,
                low = size - i > 2 ? hex_digit(in[i + 2]) : -1;

            if (high < 0 || low < 0)
                return false;
            octet = (uint8_t)(high * 16 + low);
            i += 2;
        }
        out->text[out->size++] = (char)octet;
    }
    out->text[out->size] = '\0';
    return out->size > 0;
}

static bool is(const struct value *value, const char *word)
{
    return value->size == strlen(word) && strcasecmp(value->text, word) == 0;
}

static bool has_control(const struct value *value)
{
    for (size_t i = 0; i < value->size; i++)
        if ((uint8_t)value->text[i] < ' ' || value->text[i] == 0x7F)
            return true;
    return false;
}

/* inet_pton() stops at a NUL that came as +00; has_control() has refused that. */
static bool read_address(const struct value *value, uint8_t *family, uint8_t ip[16])
{
    static const uint8_t mapped[12] = { [10] = 0xFF, [11] = 0xFF };
    size_t prefix = strlen(IPV6_PREFIX);

    if (strncasecmp(value->text, IPV6_PREFIX, prefix) != 0) {
        *family = AF_INET;
        return inet_pton(AF_INET, value->text, ip) == 1;
    }
    if (inet_pton(AF_INET6, value->text + prefix, ip) != 1)
        return false;
    *family = AF_INET6;
    if (memcmp(ip, mapped, sizeof mapped) == 0) {
        memmove(ip, ip + sizeof mapped, 4);
        memset(ip + 4, 0, 12);
        *family = AF_INET;
    }
    return true;
}

static bool read_port(const struct value *value, uint16_t *port)
{
    unsigned number = 0;

    if (value->size > 5 || (value->text[0] == '0' && value->size > 1))
        return false;
    for (size_t i = 0; i < value->size; i++) {
        if (value->text[i] < '0' || value->text[i] > '9')
            return false;
        number = number * 10 + (unsigned)(value->text[i] - '0');
    }
    *port = (uint16_t)number;
    return number <= UINT16_MAX;
}

static void read_helo(const struct value *value, struct smtp_xclient *out)
{
    out->helo_size = value->size;
    memcpy(out->helo, value->text, value->size + 1);
    for (size_t i = 0; i < out->helo_size; i++)
        if (out->helo[i] < '!' || out->helo[i] > '~')
            out->helo[i] = '?';
}

static bool read_login(const struct value *value, struct smtp_xclient *out)
{
    out->login_size = value->size;
    memcpy(out->login, value->text, value->size + 1);
    return true;
}

static bool read_value(enum smtp_xclient_attribute attribute, const struct value *value,
                       struct smtp_xclient *out)
{
    if (attribute == SMTP_XCLIENT_HELO) { /* what it holds is the client's fault, not the sender's */
        read_helo(value, out);
        return true;
    }
    if (has_control(value))
        return false;
    switch (attribute) {
    case SMTP_XCLIENT_ADDR: return read_address(value, &out->family, out->ip);
    case SMTP_XCLIENT_PORT: return read_port(value, &out->port);
    case SMTP_XCLIENT_PROTO: out->extended = is(value, "ESMTP"); return out->extended || is(value, "SMTP");
    case SMTP_XCLIENT_LOGIN: return read_login(value, out);
    case SMTP_XCLIENT_DESTADDR: return read_address(value, &out->destination_family, out->destination_ip);
    case SMTP_XCLIENT_DESTPORT: return read_port(value, &out->destination_port);
    case SMTP_XCLIENT_SOURCE: return is(value, "LOCAL") || is(value, "REMOTE");
    case SMTP_XCLIENT_NAME:
    case SMTP_XCLIENT_HELO:
    case SMTP_XCLIENT_IDENT: break;
    }
    return true;
}

/* One "NAME=value". */
static bool read_attribute(const char *text, size_t size, struct smtp_xclient *out)
{
    const char *equals = memchr(text, '=', size);
    struct value value;
    uint32_t attribute = equals ? find_attribute(text, (size_t)(equals - text)) : 0;

    if (!attribute || out->given & attribute ||
        !decode(equals + 1, size - (size_t)(equals + 1 - text), &value))
        return false;
    out->given |= attribute;
    if (is(&value, UNAVAILABLE) || is(&value, TEMPUNAVAIL)) {
        out->unavailable |= attribute;
        return true;
    }
    return read_value((enum smtp_xclient_attribute)attribute, &value, out);
}

bool smtp_xclient_parse(const char *argument, size_t size, struct smtp_xclient *out)
{
    size_t at = 0;

    memset(out, 0, sizeof *out);
    while (at < size) {
        size_t end = at;

        while (end < size && argument[end] != ' ')
            end++;
        if (end > at && !read_attribute(argument + at, end - at, out))
            return false;
        at = end + 1;
    }
    return out->given != 0;
}
