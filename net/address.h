/*
 * Addresses: where to listen, where to connect, and who a client is.
 *
 * Text forms: "192.0.2.1:25", "[2001:db8::1]:25", "unix:/run/weir.sock", and for backends "name:25".
 */
#ifndef WEIR_NET_ADDRESS_H
#define WEIR_NET_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/* A place to bind or connect to. */
struct address {
    socklen_t length; /* of the sockaddr in use; 0 while a name is unresolved */
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
    };
};

/* Who is at the other end of an accepted connection; small, because every idle session keeps one. An IPv4
 * address mapped into IPv6 is held as IPv4, so that an access list needs to name it once. */
struct peer {
    uint8_t family; /* AF_INET, AF_INET6 or AF_UNIX */
    uint16_t port;  /* host order */
    uint8_t ip[16]; /* network order; IPv4 in the first four */
};

/* An access list's entry: a network, or every Unix socket. */
struct network {
    uint8_t family;
    uint8_t prefix; /* bits */
    uint8_t ip[16];
};

#define ADDRESS_TEXT_MAX 128 /* room for any formatted address, its NUL included */

/* What address_parse() found. */
enum address_kind {
    ADDRESS_BAD,     /* *error says what was expected */
    ADDRESS_LITERAL, /* *out is complete */
    ADDRESS_NAME,    /* a host name: out->length is 0, *port is set; the caller resolves it */
};

/* Parse a text form. With `names`, a host name is accepted. *error is a static string. */
enum address_kind address_parse(const char *text, bool names, struct address *out, uint16_t *port,
                                const char **error);

/* Format for logs: the text forms above. Returns `text`. */
const char *address_format(const struct address *address, char text[ADDRESS_TEXT_MAX]);
const char *peer_format(const struct peer *peer, bool with_port, char text[ADDRESS_TEXT_MAX]);

bool address_equal(const struct address *a, const struct address *b);
/* A total order of IP addresses, for sorting: IPv4 first, then by number, then by port. < 0, 0 or > 0. */
int address_compare(const struct address *a, const struct address *b);

/* From what accept() returned. */
void peer_from_sockaddr(struct peer *peer, const struct sockaddr *sa);

/* The key under which one client is counted: the address itself, for IPv6 its /64. Unix: one key for all. */
void peer_client_key(const struct peer *peer, uint8_t key[17]);
/* The same as text: "192.0.2.1", "2001:db8::/64", "unix". Returns `text`. */
const char *peer_format_client(const struct peer *peer, char text[ADDRESS_TEXT_MAX]);

/* Parse "10.0.0.0/8", "2001:db8::/32", a bare address, or "unix". Host bits set behind the prefix are an
 * error. */
bool network_parse(const char *text, struct network *out, const char **error);
bool network_contains(const struct network *network, const struct peer *peer);
/* Whether one of a list does. */
bool networks_contain(const struct network *networks, size_t n, const struct peer *peer);
/* Whether every address of the network is loopback, private (RFC 1918, RFC 4193), link-local or a Unix
 * socket. */
bool network_is_private(const struct network *network);
/* The same of one address; an IPv4 address mapped into IPv6 is that IPv4 address. */
bool address_is_private(const struct address *address);

#endif
