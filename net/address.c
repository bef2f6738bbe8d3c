#include "net/address.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "net/decimal.h"

#define HOST_MAX       253 /* octets of a host name without the final dot (RFC 1035 §2.3.4) */
#define LABEL_MAX      63
#define UNIX_PREFIX    "unix:"
#define MAPPED_BITS    96 /* of ::ffff:0:0/96, IPv4 mapped into IPv6 (RFC 4291 §2.5.5.2) */
#define IP_VERSION4    4  /* octets */
#define IP_VERSION6    16
#define CLIENT_OCTETS6 8 /* a /64: what one client commonly has to choose from */

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Decimal digits only, without a leading zero; the whole string. */
static bool read_number(const char *text, unsigned max, unsigned *out)
{
    unsigned n = 0;

    if (!is_digit(*text) || (text[0] == '0' && text[1]))
        return false;
    for (; *text; text++) {
        if (!is_digit(*text))
            return false;
        n = n * 10 + (unsigned)(*text - '0');
        if (n > max)
            return false;
    }
    *out = n;
    return true;
}

/* RFC 1123 §2.1, and underscores, which real names of containers have. A name whose last label is a number
 * would be an IPv4 address with a mistake in it. */
static bool is_host_name(const char *text)
{
    size_t size = strlen(text), label = 0;
    bool numeric = true;

    if (size > 0 && text[size - 1] == '.')
        size--;
    if (size == 0 || size > HOST_MAX)
        return false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        bool alphanumeric = is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool ends = i + 1 == size || text[i + 1] == '.';

        if (c == '.') {
            if (label == 0)
                return false;
            label = 0;
            numeric = true;
            continue;
        }
        if (!alphanumeric && c != '_' && (c != '-' || label == 0 || ends))
            return false;
        if (!is_digit(c))
            numeric = false;
        if (++label > LABEL_MAX)
            return false;
    }
    return label > 0 && !numeric;
}

static enum address_kind parse_unix(const char *path, struct address *out, const char **error)
{
    size_t size = strlen(path);

    if (path[0] != '/') {
        *error = "\"unix:\" needs an absolute path";
        return ADDRESS_BAD;
    }
    if (size >= sizeof out->un.sun_path) {
        *error = "a socket path has at most 107 octets";
        return ADDRESS_BAD;
    }
    out->un.sun_family = AF_UNIX;
    memcpy(out->un.sun_path, path, size + 1);
    out->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + 1);
    return ADDRESS_LITERAL;
}

static enum address_kind parse_ip(const char *host, bool bracketed, uint16_t port, struct address *out)
{
    if (bracketed && inet_pton(AF_INET6, host, &out->in6.sin6_addr) == 1) {
        out->in6.sin6_family = AF_INET6;
        out->in6.sin6_port = htons(port);
        out->length = sizeof out->in6;
        return ADDRESS_LITERAL;
    }
    if (!bracketed && inet_pton(AF_INET, host, &out->in.sin_addr) == 1) {
        out->in.sin_family = AF_INET;
        out->in.sin_port = htons(port);
        out->length = sizeof out->in;
        return ADDRESS_LITERAL;
    }
    return ADDRESS_BAD;
}

/* Split "host:port" or "[host]:port" into `host`. */
static const char *split_port(const char *text, char host[HOST_MAX + 2], bool *bracketed, unsigned *port)
{
    const char *colon = strrchr(text, ':');
    size_t size;

    *bracketed = text[0] == '[';
    if (!*bracketed && colon && strchr(text, ':') != colon)
        return "an IPv6 address stands in brackets, as [2001:db8::1]:25";
    if (!colon || (*bracketed && colon > text && colon[-1] != ']'))
        return "a port is missing, as in 192.0.2.1:25";
    if (!read_number(colon + 1, 65535, port) || *port == 0)
        return "a port is a number from 1 to 65535";
    size = (size_t)(colon - text);
    if (*bracketed) {
        text++;
        size -= 2;
    }
    if (size > HOST_MAX + 1)
        return "a host name has at most 253 octets";
    memcpy(host, text, size);
    host[size] = '\0';
    return NULL;
}

enum address_kind address_parse(const char *text, bool names, struct address *out, uint16_t *port,
                                const char **error)
{
    char host[HOST_MAX + 2];
    bool bracketed;
    unsigned number = 0;

    memset(out, 0, sizeof *out);
    *port = 0;
    if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
        return parse_unix(text + strlen(UNIX_PREFIX), out, error);
    *error = split_port(text, host, &bracketed, &number);
    if (*error)
        return ADDRESS_BAD;
    *port = (uint16_t)number;
    if (parse_ip(host, bracketed, *port, out) == ADDRESS_LITERAL)
        return ADDRESS_LITERAL;
    if (!bracketed && names && is_host_name(host))
        return ADDRESS_NAME;
    if (bracketed)
        *error = "there is no IPv6 address between the brackets";
    else if (names)
        *error = "there is no IP address or host name before the port";
    else if (is_host_name(host))
        *error = "a name cannot stand here, only an IP address";
    else
        *error = "there is no IP address before the port";
    return ADDRESS_BAD;
}

/* inet_ntop() goes by way of printf for IPv4, which every log line would pay for. */
static char *put_ipv4(char *at, const uint8_t *ip)
{
    for (int i = 0; i < 4; i++) {
        if (i)
            *at++ = '.';
        at = decimal_put(at, ip[i]);
    }
    return at;
}

static char *put_ipv6(char *at, const void *ip, bool brackets)
{
    if (brackets)
        *at++ = '[';
    if (!inet_ntop(AF_INET6, ip, at, INET6_ADDRSTRLEN))
        *at = '\0'; /* cannot be: the family is known and the room suffices */
    at += strlen(at);
    if (brackets)
        *at++ = ']';
    return at;
}

static const char *format_ip(int family, const void *ip, unsigned port, bool with_port,
                             char text[ADDRESS_TEXT_MAX])
{
    char *end = family == AF_INET ? put_ipv4(text, ip) : put_ipv6(text, ip, with_port);

    if (with_port) {
        *end++ = ':';
        end = decimal_put(end, port);
    }
    *end = '\0';
    return text;
}

const char *address_format(const struct address *address, char text[ADDRESS_TEXT_MAX])
{
    if (address->length == 0)
        return strcpy(text, "unresolved");
    switch (address->sa.sa_family) {
    case AF_INET: return format_ip(AF_INET, &address->in.sin_addr, ntohs(address->in.sin_port), true, text);
    case AF_INET6:
        return format_ip(AF_INET6, &address->in6.sin6_addr, ntohs(address->in6.sin6_port), true, text);
    case AF_UNIX:
        /* The kernel may hand back a path that fills its field and has no NUL. */
        snprintf(text, ADDRESS_TEXT_MAX, UNIX_PREFIX "%.*s", (int)sizeof address->un.sun_path,
                 address->un.sun_path);
        return text;
    default: return strcpy(text, "unknown");
    }
}

const char *peer_format(const struct peer *peer, bool with_port, char text[ADDRESS_TEXT_MAX])
{
    if (peer->family == AF_INET || peer->family == AF_INET6)
        return format_ip(peer->family, peer->ip, peer->port, with_port, text);
    return strcpy(text, peer->family == AF_UNIX ? "unix" : "unknown");
}

bool address_equal(const struct address *a, const struct address *b)
{
    if (a->length == 0 || b->length == 0)
        return a->length == b->length;
    if (a->sa.sa_family != b->sa.sa_family)
        return false;
    switch (a->sa.sa_family) {
    case AF_INET: return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
    case AF_INET6:
        return a->in6.sin6_port == b->in6.sin6_port && a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
               memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof a->in6.sin6_addr) == 0;
    case AF_UNIX: return strncmp(a->un.sun_path, b->un.sun_path, sizeof a->un.sun_path) == 0;
    default: return false;
    }
}

static in_port_t port_of(const struct address *address)
{
    return address->sa.sa_family == AF_INET ? address->in.sin_port : address->in6.sin6_port;
}

int address_compare(const struct address *a, const struct address *b)
{
    bool ipv4 = a->sa.sa_family == AF_INET;
    int order;

    if (a->sa.sa_family != b->sa.sa_family)
        return ipv4 ? -1 : 1;
    order = ipv4 ? memcmp(&a->in.sin_addr, &b->in.sin_addr, IP_VERSION4)
                 : memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, IP_VERSION6);
    return order ? order : (int)ntohs(port_of(a)) - (int)ntohs(port_of(b));
}

void peer_from_sockaddr(struct peer *peer, const struct sockaddr *sa)
{
    memset(peer, 0, sizeof *peer);
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;

        memcpy(&in, sa, sizeof in);
        peer->family = AF_INET;
        peer->port = ntohs(in.sin_port);
        memcpy(peer->ip, &in.sin_addr, IP_VERSION4);
    } else if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        bool is_mapped;

        memcpy(&in6, sa, sizeof in6);
        is_mapped = memcmp(&in6.sin6_addr, mapped, sizeof mapped) == 0;
        peer->family = is_mapped ? AF_INET : AF_INET6;
        peer->port = ntohs(in6.sin6_port);
        if (is_mapped)
            memcpy(peer->ip, in6.sin6_addr.s6_addr + sizeof mapped, IP_VERSION4);
        else
            memcpy(peer->ip, &in6.sin6_addr, IP_VERSION6);
    } else if (sa->sa_family == AF_UNIX) {
        peer->family = AF_UNIX;
    }
    /* Anything else stays of no family, and so in no access list. */
}

void peer_client_key(const struct peer *peer, uint8_t key[17])
{
    memset(key, 0, 17);
    key[0] = peer->family;
    if (peer->family == AF_INET)
        memcpy(key + 1, peer->ip, IP_VERSION4);
    else if (peer->family == AF_INET6)
        memcpy(key + 1, peer->ip, CLIENT_OCTETS6);
}

const char *peer_format_client(const struct peer *peer, char text[ADDRESS_TEXT_MAX])
{
    struct peer who = *peer;

    if (who.family == AF_INET6)
        memset(who.ip + CLIENT_OCTETS6, 0, IP_VERSION6 - CLIENT_OCTETS6);
    peer_format(&who, false, text);
    if (who.family == AF_INET6)
        strcat(text, "/64");
    return text;
}

/* Whether the first `bits` of both are the same. */
static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned octets = bits / 8, rest = bits % 8;

    return memcmp(a, b, octets) == 0 && (rest == 0 || ((a[octets] ^ b[octets]) >> (8 - rest)) == 0);
}

static bool has_host_bits(const struct network *network)
{
    unsigned bits = network->family == AF_INET ? IP_VERSION4 * 8 : IP_VERSION6 * 8;

    for (unsigned i = network->prefix; i < bits; i++) {
        if (network->ip[i / 8] & (0x80 >> (i % 8)))
            return true;
    }
    return false;
}

/* Peers that came as IPv4 in IPv6 are held as IPv4; a network of them must be as well, or it would match
 * none. */
static void unmap(struct network *network)
{
    if (network->family != AF_INET6 || network->prefix < MAPPED_BITS ||
        memcmp(network->ip, mapped, sizeof mapped) != 0)
        return;
    network->family = AF_INET;
    network->prefix = (uint8_t)(network->prefix - MAPPED_BITS);
    memmove(network->ip, network->ip + sizeof mapped, IP_VERSION4);
    memset(network->ip + IP_VERSION4, 0, IP_VERSION6 - IP_VERSION4);
}

bool network_parse(const char *text, struct network *out, const char **error)
{
    const char *slash = strchr(text, '/');
    size_t size = slash ? (size_t)(slash - text) : strlen(text);
    char host[INET6_ADDRSTRLEN];
    unsigned prefix;

    memset(out, 0, sizeof *out);
    if (strcmp(text, "unix") == 0) {
        out->family = AF_UNIX;
        return true;
    }
    *error = "neither a network as 10.0.0.0/8 or 2001:db8::/32, nor an IP address, nor \"unix\"";
    if (size >= sizeof host)
        return false;
    memcpy(host, text, size);
    host[size] = '\0';
    if (inet_pton(AF_INET, host, out->ip) == 1)
        out->family = AF_INET;
    else if (inet_pton(AF_INET6, host, out->ip) == 1)
        out->family = AF_INET6;
    else
        return false;
    prefix = out->family == AF_INET ? IP_VERSION4 * 8 : IP_VERSION6 * 8;
    if (slash && !read_number(slash + 1, prefix, &prefix)) {
        *error = out->family == AF_INET ? "an IPv4 prefix is a number from 0 to 32"
                                        : "an IPv6 prefix is a number from 0 to 128";
        return false;
    }
    out->prefix = (uint8_t)prefix;
    if (has_host_bits(out)) {
        *error = "there are bits set behind the prefix";
        return false;
    }
    unmap(out);
    return true;
}

bool network_contains(const struct network *network, const struct peer *peer)
{
    if (network->family != peer->family)
        return false;
    return network->family == AF_UNIX || same_prefix(network->ip, peer->ip, network->prefix);
}

bool networks_contain(const struct network *networks, size_t n, const struct peer *peer)
{
    for (size_t i = 0; i < n; i++)
        if (network_contains(&networks[i], peer))
            return true;
    return false;
}

bool network_is_private(const struct network *network)
{
    static const struct network private[] = {
        {AF_INET,   8,   { 127 }       }, /* loopback, RFC 1122 §3.2.1.3 */
        { AF_INET,  8,   { 10 }        }, /* RFC 1918 §3 */
        { AF_INET,  12,  { 172, 16 }   }, /* RFC 1918 §3 */
        { AF_INET,  16,  { 192, 168 }  }, /* RFC 1918 §3 */
        { AF_INET,  16,  { 169, 254 }  }, /* link-local, RFC 3927 */
        { AF_INET6, 128, { [15] = 1 }  }, /* loopback, RFC 4291 §2.5.3 */
        { AF_INET6, 7,   { 0xfc }      }, /* RFC 4193 §3.1 */
        { AF_INET6, 10,  { 0xfe, 0x80 }}, /* link-local, RFC 4291 §2.5.6 */
    };

    if (network->family == AF_UNIX)
        return true;
    for (size_t i = 0; i < sizeof private / sizeof *private; i++) {
        if (network->family == private[i].family && network->prefix >= private[i].prefix &&
            same_prefix(network->ip, private[i].ip, private[i].prefix))
            return true;
    }
    return false;
}

bool address_is_private(const struct address *address)
{
    struct peer peer;
    struct network network = { 0 };

    peer_from_sockaddr(&peer, &address->sa);
    network.family = peer.family;
    network.prefix = peer.family == AF_INET ? 32 : 128;
    memcpy(network.ip, peer.ip, sizeof network.ip);
    return network_is_private(&network);
}
