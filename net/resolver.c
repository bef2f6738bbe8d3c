#include "net/resolver.h"

#include <ares.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

/*
 * c-ares calls back from the middle of its own work, and even from inside a query when /etc/hosts has the
 * name. So what is done is only put into a list there; the owner hears of it from the loop, when c-ares is at
 * rest and closing or asking again is safe.
 */

#define TIMEOUT_MS 2000
#define TRIES      3
#define LOOKUPS    "fb" /* files, then DNS */
#define UDP_SIZE   1232 /* EDNS: passes everywhere unfragmented, and holds the addresses of a farm */

struct query {
    struct query *next; /* in resolver->done */
    struct resolver *resolver;
    resolver_callback *callback;
    void *arg;
    const char *error;
    struct resolver_answer answer;
};

/* One of c-ares' sockets. */
struct watch {
    ev_io io;
    struct watch *next;
    struct resolver *resolver;
};

struct resolver {
    struct ev_loop *loop;
    ares_channel channel;
    ev_timer timer;      /* c-ares' next own deadline */
    ev_prepare delivery; /* never started, only fed: calls on_delivery() from the loop */
    struct watch *watches;
    struct query *done, **done_end; /* awaiting delivery */
    bool closing;
    bool *closed; /* tells on_delivery() that a callback closed the resolver */
};

/* --- c-ares' sockets and timer --- */

static void schedule(struct resolver *r)
{
    struct timeval left, *next = ares_timeout(r->channel, NULL, &left);

    ev_timer_stop(r->loop, &r->timer);
    if (next) {
        ev_timer_set(&r->timer, (double)next->tv_sec + (double)next->tv_usec / 1e6, 0);
        ev_timer_start(r->loop, &r->timer);
    }
}

static void on_io(struct ev_loop *loop, ev_io *io, int events)
{
    struct watch *watch = io->data;
    struct resolver *r = watch->resolver;
    int fd = io->fd;

    (void)loop;
    /* This may close the socket and so free the watch. */
    ares_process_fd(r->channel, events & EV_READ ? fd : ARES_SOCKET_BAD,
                    events & EV_WRITE ? fd : ARES_SOCKET_BAD);
    schedule(r);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct resolver *r = timer->data;

    (void)loop;
    (void)events;
    ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    schedule(r);
}

static void forget_watch(struct watch **at)
{
    struct watch *watch = *at;

    *at = watch->next;
    ev_io_stop(watch->resolver->loop, &watch->io);
    free(watch);
}

static void on_socket_state(void *data, ares_socket_t fd, int readable, int writable)
{
    struct resolver *r = data;
    struct watch **at = &r->watches;
    int events = (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0);

    while (*at && (*at)->io.fd != fd)
        at = &(*at)->next;
    if (!events) {
        if (*at)
            forget_watch(at);
        return;
    }
    if (!*at) {
        *at = calloc(1, sizeof **at);
        if (!*at)
            return; /* the query runs into its timeout */
        (*at)->resolver = r;
        ev_init(&(*at)->io, on_io);
        (*at)->io.data = *at;
    }
    ev_io_stop(r->loop, &(*at)->io);
    ev_io_set(&(*at)->io, fd, events);
    ev_io_start(r->loop, &(*at)->io);
}

/* --- queries --- */

/* Into its place in the order. In a full answer the highest makes room. */
static void insert(struct resolver_answer *answer, const struct address *address)
{
    struct address *all = answer->addresses;
    size_t at = answer->n;

    while (at > 0 && address_compare(address, &all[at - 1]) < 0)
        at--;
    if (at > 0 && address_compare(address, &all[at - 1]) == 0)
        return;
    if (answer->n == RESOLVER_ADDRESSES_MAX)
        answer->more = true;
    else
        answer->n++;
    if (at == RESOLVER_ADDRESSES_MAX)
        return;
    memmove(&all[at + 1], &all[at], (answer->n - at - 1) * sizeof *all);
    all[at] = *address;
}

static void add_address(struct resolver_answer *answer, const struct ares_addrinfo_node *node)
{
    struct address address;

    if (node->ai_family != AF_INET && node->ai_family != AF_INET6)
        return;
    memset(&address, 0, sizeof address);
    address.length = node->ai_family == AF_INET ? sizeof address.in : sizeof address.in6;
    memcpy(&address.sa, node->ai_addr, address.length);
    insert(answer, &address);
}

static void add_ttl(struct resolver_answer *answer, int ttl)
{
    uint32_t seconds = ttl > 0 ? (uint32_t)ttl : 0;

    if (seconds < answer->ttl)
        answer->ttl = seconds;
}

static void read_answer(struct query *q, const struct ares_addrinfo *found)
{
    q->answer.ttl = UINT32_MAX;
    for (const struct ares_addrinfo_cname *c = found->cnames; c; c = c->next)
        add_ttl(&q->answer, c->ttl);
    for (const struct ares_addrinfo_node *node = found->nodes; node; node = node->ai_next) {
        add_address(&q->answer, node);
        add_ttl(&q->answer, node->ai_ttl);
    }
    if (q->answer.n == 0)
        q->error = ares_strerror(ARES_ENODATA);
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *found)
{
    struct query *q = arg;
    struct resolver *r = q->resolver;

    (void)timeouts;
    if (r->closing) {
        free(q);
    } else {
        if (status == ARES_SUCCESS)
            read_answer(q, found);
        else
            q->error = ares_strerror(status);
        *r->done_end = q;
        r->done_end = &q->next;
        ev_feed_event(r->loop, &r->delivery, EV_CUSTOM);
    }
    ares_freeaddrinfo(found);
}

static void on_delivery(struct ev_loop *loop, ev_prepare *delivery, int events)
{
    struct resolver *r = delivery->data;
    bool closed = false;

    (void)loop;
    (void)events;
    r->closed = &closed;
    while (!closed && r->done) {
        struct query *q = r->done;

        r->done = q->next;
        if (!r->done)
            r->done_end = &r->done;
        q->callback(q->arg, q->error, q->error ? NULL : &q->answer);
        free(q);
    }
    if (!closed)
        r->closed = NULL;
}

bool resolver_query(struct resolver *resolver, const char *host, resolver_callback *callback, void *arg)
{
    return resolver_query_family(resolver, host, AF_UNSPEC, callback, arg);
}

bool resolver_denied(const char *error)
{
    return strcmp(error, ares_strerror(ARES_ENOTFOUND)) == 0 ||
           strcmp(error, ares_strerror(ARES_ENODATA)) == 0;
}

bool resolver_query_family(struct resolver *resolver, const char *host, int family,
                           resolver_callback *callback, void *arg)
{
    struct in_addr literal;
    /* Unsorted: every address becomes a destination of its own, there is no first one to choose. One socket
     * type, or each address would come once for each. c-ares 1.18 asks the servers for an IPv4 literal of any
     * family. */
    const struct ares_addrinfo_hints hints = {
        .ai_flags = ARES_AI_NOSORT,
        .ai_family = inet_pton(AF_INET, host, &literal) == 1 ? AF_INET : family,
        .ai_socktype = SOCK_STREAM,
    };
    struct query *q = calloc(1, sizeof *q);

    if (!q)
        return false;
    q->resolver = resolver;
    q->callback = callback;
    q->arg = arg;
    ares_getaddrinfo(resolver->channel, host, NULL, &hints, on_answer, q);
    schedule(resolver);
    return true;
}

/* --- open and close --- */

static bool open_channel(struct resolver *r, const char *servers, int timeout_ms, int tries)
{
    struct ares_options options = {
        .flags = ARES_FLAG_EDNS,
        .ednspsz = UDP_SIZE,
        .timeout = timeout_ms,
        .tries = tries,
        .lookups = (char[]){ LOOKUPS },
        .sock_state_cb = on_socket_state,
        .sock_state_cb_data = r,
    };
    int mask = ARES_OPT_FLAGS | ARES_OPT_EDNSPSZ | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS |
               ARES_OPT_SOCK_STATE_CB;

#ifdef ARES_OPT_QUERY_CACHE /* c-ares 1.31: who asks again wants to know what it is now */
    options.qcache_max_ttl = 0;
    mask |= ARES_OPT_QUERY_CACHE;
#endif
    if (ares_init_options(&r->channel, &options, mask) != ARES_SUCCESS)
        return false;
    if (!servers || ares_set_servers_ports_csv(r->channel, servers) == ARES_SUCCESS)
        return true;
    ares_destroy(r->channel);
    return false;
}

struct resolver *resolver_open_timed(struct ev_loop *loop, const char *servers, int timeout_ms, int tries)
{
    struct resolver *r = calloc(1, sizeof *r);

    if (!r || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS) {
        free(r);
        return NULL;
    }
    r->loop = loop;
    r->done_end = &r->done;
    ev_init(&r->timer, on_timer);
    r->timer.data = r;
    ev_init(&r->delivery, on_delivery);
    r->delivery.data = r;
    if (!open_channel(r, servers, timeout_ms, tries)) {
        ares_library_cleanup();
        free(r);
        return NULL;
    }
    return r;
}

struct resolver *resolver_open(struct ev_loop *loop, const char *servers)
{
    return resolver_open_timed(loop, servers, TIMEOUT_MS, TRIES);
}

void resolver_close(struct resolver **resolver)
{
    struct resolver *r = *resolver;

    *resolver = NULL;
    if (!r)
        return;
    if (r->closed)
        *r->closed = true;
    r->closing = true;
    ares_destroy(r->channel); /* calls on_answer() for each query that is open */
    ares_library_cleanup();
    while (r->watches)
        forget_watch(&r->watches);
    while (r->done) {
        struct query *q = r->done;

        r->done = q->next;
        free(q);
    }
    ev_timer_stop(r->loop, &r->timer);
    ev_clear_pending(r->loop, &r->delivery);
    free(r);
}
