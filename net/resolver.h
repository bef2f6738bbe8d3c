/*
 * Names to addresses, without anybody waiting: c-ares on the loop of the thread that asks (the control
 * thread).
 *
 * The system's ways are kept: /etc/hosts first, then the servers, search domains and options of
 * /etc/resolv.conf as they were when the resolver was opened.
 */
#ifndef WEIR_NET_RESOLVER_H
#define WEIR_NET_RESOLVER_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/address.h"

#define RESOLVER_ADDRESSES_MAX 64 /* of one name; of more the lowest are taken, the same ones each time */

struct resolver_answer {
    size_t n;     /* at least 1 */
    uint32_t ttl; /* seconds, the smallest on the way to the addresses; 0 from /etc/hosts */
    bool more;    /* the server knows others that are left out here */
    /* IPv4 and IPv6, each once, port 0; sorted, as servers turn the order of their answers round. */
    struct address addresses[RESOLVER_ADDRESSES_MAX];
};

/* Either `error` (static, to be shown behind a colon) or `answer` (gone after the call) is NULL. Always
 * called from the loop, never inside resolver_query(); may query again and may close the resolver. */
typedef void resolver_callback(void *arg, const char *error, const struct resolver_answer *answer);

struct resolver;

/* `servers`: NULL for the system's, or "host:port[,host:port]…" of IP addresses. NULL: out of memory, or
 * `servers` is not understood. A server gets 2 s for an answer, and each is asked three times. */
struct resolver *resolver_open(struct ev_loop *loop, const char *servers);
/* The same with another patience: `timeout_ms` for the first round, more for the later ones of `tries`. */
struct resolver *resolver_open_timed(struct ev_loop *loop, const char *servers, int timeout_ms, int tries);
/* Forget all that is asked: no callback comes after this. Clears the caller's pointer; NULL is fine. */
void resolver_close(struct resolver **resolver);

/* Ask for the addresses of `host`. False: out of memory, and the callback will not come. Addresses of one
 * family are an answer, even where the question for the other has failed. */
bool resolver_query(struct resolver *resolver, const char *host, resolver_callback *callback, void *arg);
/* The same for AF_INET or AF_INET6 alone. */
bool resolver_query_family(struct resolver *resolver, const char *host, int family,
                           resolver_callback *callback, void *arg);
/* Whether the error means that a name server has said so: there is no such name, or it has no address. */
bool resolver_denied(const char *error);

#endif
