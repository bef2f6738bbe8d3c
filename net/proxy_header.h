/*
 * The PROXY protocol's header, with which somebody in the middle says who the client is (HAProxy's
 * proxy-protocol.txt, versions 1 and 2). It comes before everything else on a connection, TLS included. Pure
 * functions.
 */
#ifndef WEIR_NET_PROXY_HEADER_H
#define WEIR_NET_PROXY_HEADER_H

#include <stdbool.h>
#include <stddef.h>

#include "net/address.h"
#include "net/tls.h"

#define PROXY_HEADER_V1_MAX 107 /* octets, CRLF included */
#define PROXY_HEADER_MAX    536 /* of either version: what a receiver must take in one piece (spec §2) */
/* What is sent is no longer than Exim takes: addresses of Unix sockets, the longest there are, and no more.
 */
#define PROXY_HEADER_SENT_MAX 232

struct proxy_header {
    /* False after LOCAL, UNKNOWN, UNSPEC and a Unix socket: the socket's own addresses are used, and they
     * match no access list. */
    bool has_addresses;
    bool tls; /* whoever wrote it has ended TLS for the client (PP2_TYPE_SSL, version 2) */
    struct peer source, destination; /* as peer_from_sockaddr() would have them: mapped IPv4 is IPv4 */
};

/* Read the header at the beginning of `in`. Returns its size (more than 0: take that many octets, *out is
 * complete), 0 if more octets are needed, or -1 if this is no header, a malformed one, or one of over
 * PROXY_HEADER_MAX octets. 0 is never returned for PROXY_HEADER_MAX octets or more.
 *
 * Version 1 is read to the letter: one space between fields, canonical numbers. In version 2 LOCAL's content
 * is skipped unread; UNSPEC and Unix stream sockets tell no address; datagrams and everything unassigned are
 * malformed. Additional fields (TLVs) behind the addresses must fit; CRC32C is checked, the others are
 * skipped. */
int proxy_header_parse(const char *in, size_t size, struct proxy_header *out);

/* Write a header for what the client connected from and to. Returns its size. If only one of both is IPv6,
 * the other is written as IPv4 mapped into IPv6.
 *
 * A client that has no IP address (family AF_UNIX or 0) is written as TCP4 0.0.0.0 port 0 on both sides, for
 * Postfix refuses UNKNOWN and UNSPEC: no backend trusts that address, while 127.0.0.1 would often make an
 * open relay of it. A missing destination is the unspecified address too. */
size_t proxy_header_format_v1(const struct peer *source, const struct peer *destination,
                              char out[PROXY_HEADER_V1_MAX + 1]);
/* `tls` is the client's, NULL where it has none: it is told as PP2_TYPE_SSL with version, cipher and, of a
 * verified certificate, the common name (client bits SSL, CERT_CONN; verify 0), and as PP2_TYPE_AUTHORITY
 * with the host that the client named (spec §2.2.2, §2.2.5). At most PROXY_HEADER_SENT_MAX octets: a text
 * that does not fit is left out, the host first. */
size_t proxy_header_format_v2(const struct peer *source, const struct peer *destination,
                              const struct tls_description *tls, char out[PROXY_HEADER_MAX]);

#endif
