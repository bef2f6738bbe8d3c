/*
 * The PROXY protocol's header.
 *
 *     v1 = "PROXY" SP ( "TCP4" / "TCP6" ) SP source SP destination SP source-port SP destination-port CRLF
 *        / "PROXY" SP "UNKNOWN" [ SP anything ] CRLF
 *
 *     v2 = signature[12] version-and-command[1] family-and-transport[1] length[2] addresses *TLV
 *     TLV = type[1] length[2] value               length: octets behind it, most significant first
 *     SSL = client[1] verify[4] *TLV              the value of its TLV; verify 0: the certificate is good
 */
#include "net/proxy_header.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

#include "net/decimal.h"

#define V1_BEGIN    "PROXY "
#define V2_FIXED    16 /* octets before the addresses */
#define V2_LOCAL    0x20
#define V2_PROXY    0x21
#define V2_UNSPEC   0x00
#define V2_TCP4     0x11
#define V2_TCP6     0x21
#define V2_UNIX     0x31
#define V2_SIZE4    12 /* of the addresses */
#define V2_SIZE6    36
#define V2_SIZEUNIX 216
#define TLV_FIXED   3

enum tlv_type {
    TLV_AUTHORITY = 0x02,
    TLV_CRC32C = 0x03,
    TLV_SSL = 0x20,
    TLV_SSL_VERSION = 0x21, /* these within TLV_SSL */
    TLV_SSL_CN = 0x22,
    TLV_SSL_CIPHER = 0x23,
};
#define SSL_FIXED       5 /* of its value: client and verify */
#define CLIENT_SSL      0x01
#define CLIENT_CERT     0x02 /* shown on this connection */
#define AUTHORITY_MAX   255
#define COMMON_NAME_MAX 64

static const char signature[12] = { '\r', '\n', '\r', '\n', '\0', '\r', '\n', 'Q', 'U', 'I', 'T', '\n' };

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static struct peer make_peer(int family, const void *ip, uint16_t port)
{
    struct peer peer;
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

    if (family == AF_INET) {
        memcpy(&in.sin_addr, ip, sizeof in.sin_addr);
        peer_from_sockaddr(&peer, (const struct sockaddr *)&in);
    } else {
        memcpy(&in6.sin6_addr, ip, sizeof in6.sin6_addr);
        peer_from_sockaddr(&peer, (const struct sockaddr *)&in6);
    }
    return peer;
}

/* --- version 1 --- */

/* The octets up to the next space, or to the end of the line; `rest` then begins behind that space. False: it
 * is empty or does not fit. */
static bool take_field(const char **rest, const char *end, char *field, size_t room)
{
    const char *space = memchr(*rest, ' ', (size_t)(end - *rest));
    size_t size = (size_t)((space ? space : end) - *rest);

    if (size == 0 || size >= room || memchr(*rest, '\0', size))
        return false;
    memcpy(field, *rest, size);
    field[size] = '\0';
    *rest = space ? space + 1 : NULL;
    return true;
}

static bool read_port(const char *text, uint16_t *port)
{
    unsigned value = 0;

    if (text[0] == '0' && text[1])
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (unsigned)(*text - '0');
        if (value > UINT16_MAX)
            return false;
    }
    *port = (uint16_t)value;
    return true;
}

/* What stands behind "TCP4 " or "TCP6 ". inet_pton() takes no leading zeros, no scopes and no blanks. */
static bool parse_v1_addresses(int family, const char *rest, const char *end, struct proxy_header *out)
{
    char field[INET6_ADDRSTRLEN];
    uint8_t ip[2][16];
    uint16_t port[2];

    for (int i = 0; i < 4; i++) {
        if (!rest || !take_field(&rest, end, field, sizeof field))
            return false;
        if (i < 2 ? inet_pton(family, field, ip[i]) != 1 : !read_port(field, &port[i - 2]))
            return false;
    }
    if (rest)
        return false;
    out->has_addresses = true;
    out->source = make_peer(family, ip[0], port[0]);
    out->destination = make_peer(family, ip[1], port[1]);
    return true;
}

static bool begins(const char *text, const char *end, const char *word)
{
    return (size_t)(end - text) >= strlen(word) && memcmp(text, word, strlen(word)) == 0;
}

static int parse_v1(const char *in, size_t size, struct proxy_header *out)
{
    size_t seen = size < PROXY_HEADER_V1_MAX ? size : PROXY_HEADER_V1_MAX;
    const char *cr = memchr(in, '\r', seen), *end = cr ? cr : in + seen, *rest = in + strlen(V1_BEGIN);
    bool good;

    if (memchr(in, '\n', (size_t)(end - in)))
        return -1;
    if (!cr || (size_t)(cr - in) + 1 == seen)
        return seen < PROXY_HEADER_V1_MAX ? 0 : -1;
    if (cr[1] != '\n')
        return -1;
    if (begins(rest, end, "TCP4 "))
        good = parse_v1_addresses(AF_INET, rest + 5, end, out);
    else if (begins(rest, end, "TCP6 "))
        good = parse_v1_addresses(AF_INET6, rest + 5, end, out);
    else
        good = begins(rest, end, "UNKNOWN") && (rest[7] == ' ' || rest + 7 == end);
    return good ? (int)(cr - in) + 2 : -1;
}

/* --- version 2 --- */

/* Castagnoli's polynomial, bit by bit: some peers send it, once a connection. Octets of [skip, skip + 4)
 * count as zero. */
static uint32_t crc32c(const uint8_t *in, size_t size, size_t skip)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < size; i++) {
        crc ^= i >= skip && i < skip + 4 ? 0 : in[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78 : 0);
    }
    return ~crc;
}

static bool check_fields(const uint8_t *header, size_t size, size_t at, bool *tls)
{
    while (at < size) {
        if (size - at < TLV_FIXED || size - at - TLV_FIXED < get16(header + at + 1))
            return false;

        size_t value = at + TLV_FIXED, length = get16(header + at + 1);

        if (header[at] == TLV_CRC32C) {
            if (length != 4 || crc32c(header, size, value) !=
                                   ((uint32_t)get16(header + value) << 16 | get16(header + value + 2)))
                return false;
        }
        if (header[at] == TLV_SSL && length >= SSL_FIXED)
            *tls = header[value] & CLIENT_SSL;
        at = value + length;
    }
    return true;
}

/* Octets of addresses that the family has; -1: not one that carries SMTP. */
static int addresses_size(uint8_t family)
{
    switch (family) {
    case V2_UNSPEC: return 0;
    case V2_TCP4: return V2_SIZE4;
    case V2_TCP6: return V2_SIZE6;
    case V2_UNIX: return V2_SIZEUNIX;
    default: return -1;
    }
}

static int parse_v2(const uint8_t *in, size_t size, struct proxy_header *out)
{
    bool local = size > 12 && in[12] == V2_LOCAL;
    int needed = size > 13 && !local ? addresses_size(in[13]) : 0;
    size_t whole;

    if ((size > 12 && !local && in[12] != V2_PROXY) || needed < 0)
        return -1;
    /* As soon as the first octet of the length says that it is too long, no other can mend that. */
    if (size > 14 && V2_FIXED + (in[14] << 8) > PROXY_HEADER_MAX)
        return -1;
    if (size < V2_FIXED)
        return 0;
    whole = V2_FIXED + get16(in + 14);
    if (whole > PROXY_HEADER_MAX || whole < V2_FIXED + (size_t)needed)
        return -1;
    if (size < whole)
        return 0;
    if (local || in[13] == V2_UNSPEC) /* "must be skipped", whatever it is */
        return (int)whole;
    if (!check_fields(in, whole, V2_FIXED + (size_t)needed, &out->tls))
        return -1;
    if (in[13] == V2_TCP4 || in[13] == V2_TCP6) {
        int family = in[13] == V2_TCP4 ? AF_INET : AF_INET6;
        size_t octets = family == AF_INET ? 4 : 16;
        const uint8_t *at = in + V2_FIXED;

        out->has_addresses = true;
        out->source = make_peer(family, at, get16(at + 2 * octets));
        out->destination = make_peer(family, at + octets, get16(at + 2 * octets + 2));
    }
    return (int)whole;
}

int proxy_header_parse(const char *in, size_t size, struct proxy_header *out)
{
    size_t v1 = strlen(V1_BEGIN), v2 = sizeof signature;

    memset(out, 0, sizeof *out);
    if (size == 0)
        return 0;
    if (memcmp(in, signature, size < v2 ? size : v2) == 0)
        return size < v2 ? 0 : parse_v2((const uint8_t *)in, size, out);
    if (memcmp(in, V1_BEGIN, size < v1 ? size : v1) == 0)
        return size < v1 ? 0 : parse_v1(in, size, out);
    return -1;
}

/* --- writing --- */

static bool has_ip(const struct peer *peer)
{
    return peer->family == AF_INET || peer->family == AF_INET6;
}

/* Bring both to one family, which is returned. */
static int settle(const struct peer *source, const struct peer *destination, struct peer both[2])
{
    bool known = has_ip(source);
    const struct peer nobody = { .family = known ? source->family : AF_INET };

    both[0] = known ? *source : nobody;
    both[1] = known && has_ip(destination) ? *destination : nobody;
    if (both[0].family == both[1].family)
        return both[0].family;
    for (int i = 0; i < 2; i++) {
        if (both[i].family == AF_INET6)
            continue;
        memcpy(both[i].ip + 12, both[i].ip, 4);
        memset(both[i].ip, 0, 10);
        memset(both[i].ip + 10, 0xFF, 2);
        both[i].family = AF_INET6;
    }
    return AF_INET6;
}

size_t proxy_header_format_v1(const struct peer *source, const struct peer *destination,
                              char out[PROXY_HEADER_V1_MAX + 1])
{
    struct peer both[2];
    char text[ADDRESS_TEXT_MAX], *at = out;
    const char *begin = settle(source, destination, both) == AF_INET ? "PROXY TCP4" : "PROXY TCP6";

    at = stpcpy(at, begin);
    for (int i = 0; i < 2; i++) {
        *at++ = ' ';
        at = stpcpy(at, peer_format(&both[i], false, text));
    }
    for (int i = 0; i < 2; i++) {
        *at++ = ' ';
        at = decimal_put(at, both[i].port);
    }
    at = stpcpy(at, "\r\n");
    return (size_t)(at - out);
}

/* A text behind what was written; one that is missing, empty or too long is left out whole. */
static size_t put_text(uint8_t *out, size_t at, enum tlv_type type, const char *text, size_t longest)
{
    size_t size = text ? strnlen(text, longest + 1) : 0;

    if (size == 0 || size > longest || at + TLV_FIXED + size > PROXY_HEADER_SENT_MAX)
        return at;
    out[at] = (uint8_t)type;
    put16(out + at + 1, (uint16_t)size);
    memcpy(out + at + TLV_FIXED, text, size);
    return at + TLV_FIXED + size;
}

static size_t put_tls(uint8_t *out, size_t at, const struct tls_description *tls)
{
    size_t begin = at;

    at += TLV_FIXED;
    out[begin] = TLV_SSL;
    out[at] = CLIENT_SSL | (tls->certified ? CLIENT_CERT : 0);
    /* Zero says that a certificate was shown and is good, so it is not zero where there was none. */
    put16(out + at + 1, 0);
    put16(out + at + 3, tls->certified ? 0 : 1);
    at += SSL_FIXED;
    at = put_text(out, at, TLV_SSL_VERSION, tls->version, PROXY_HEADER_MAX);
    at = put_text(out, at, TLV_SSL_CIPHER, tls->cipher, PROXY_HEADER_MAX);
    if (tls->certified)
        at = put_text(out, at, TLV_SSL_CN, tls->common_name, COMMON_NAME_MAX);
    put16(out + begin + 1, (uint16_t)(at - begin - TLV_FIXED));
    return put_text(out, at, TLV_AUTHORITY, tls->sni, AUTHORITY_MAX);
}

size_t proxy_header_format_v2(const struct peer *source, const struct peer *destination,
                              const struct tls_description *tls, char out[PROXY_HEADER_MAX])
{
    struct peer both[2];
    bool four = settle(source, destination, both) == AF_INET;
    size_t octets = four ? 4 : 16, at = V2_FIXED;

    memcpy(out, signature, sizeof signature);
    out[12] = V2_PROXY;
    out[13] = four ? V2_TCP4 : V2_TCP6;
    for (int i = 0; i < 2; i++, at += octets)
        memcpy(out + at, both[i].ip, octets);
    for (int i = 0; i < 2; i++, at += 2)
        put16((uint8_t *)out + at, both[i].port);
    if (tls)
        at = put_tls((uint8_t *)out, at, tls);
    put16((uint8_t *)out + 14, (uint16_t)(at - V2_FIXED));
    return at;
}
