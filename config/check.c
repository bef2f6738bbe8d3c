/*
 * What no single value shows. Runs also after errors, so that one run names them all; what could not be read
 * is left out here, because the operator has been told about it already.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/draft.h"
#include "config/memory.h"
#include "config/redis.h"
#include "config/tls.h"
#include "config/word.h"

/* The pool that a field names; DRAFT_NO_POOL if there is none, which is then reported. */
static size_t find_pool(struct draft *draft, const struct origin *given)
{
    const struct config *config = draft->config;
    struct suggestion suggestion = { .word = given->text };
    for (size_t i = 0; i < config->n_pools; i++) {
        if (strcmp(config->pools[i].name, given->text) == 0)
            return i;
        suggestion_offer(&suggestion, config->pools[i].name);
    }
    char quoted[REPORT_QUOTE_MAX];
    report_quote(given->text, quoted);
    if (suggestion.best)
        report_add(&draft->report, given->place, given->key, "there is no pool \"%s\"; did you mean \"%s\"?",
                   quoted, suggestion.best);
    else
        report_add(&draft->report, given->place, given->key,
                   "there is no pool \"%s\"; expected a name that stands under pools", quoted);
    return DRAFT_NO_POOL;
}

/* `pool` of a listener and of its routes. Where there are no pools at all, that is the mistake. */
static void find_pools(struct draft *draft, struct config_listener *listener)
{
    const struct config *config = draft->config;
    const struct origin *given = draft_origin(draft, &listener->pool);
    bool any = config->n_pools > 0;
    listener->pool = any && given ? find_pool(draft, given) : config->n_pools == 1 ? 0 : DRAFT_NO_POOL;
    if (!given && config->n_pools > 1) {
        const struct origin *origin = draft_origin(draft, listener);
        report_add(&draft->report, origin->place, origin->key,
                   "expected the key pool, which may be left out only where there is one; there are %zu",
                   config->n_pools);
    }
    for (size_t i = 0; i < listener->n_routes; i++) {
        struct config_route *route = &listener->routes[i];
        given = draft_origin(draft, &route->pool);
        route->pool = any && given ? find_pool(draft, given) : DRAFT_NO_POOL;
    }
}

/* Whether all that gets as far as this route fits it. */
static bool takes_all(const struct config_route *route)
{
    return !route->n_clients && !route->n_users && !route->n_sender_domains;
}

static void check_reach(struct draft *draft, const struct config_listener *listener)
{
    for (size_t i = 0; i + 1 < listener->n_routes; i++) {
        const struct config_route *route = &listener->routes[i];
        if (!takes_all(route) || draft_is_wrong(draft, route))
            continue;
        const struct origin *origin = draft_origin(draft, route + 1);
        report_add(&draft->report, origin->place, origin->key,
                   "no mail gets here, because the route in line %zu takes all that is left; expected a "
                   "condition there (client, user or sender-domain), or that route to be the last",
                   draft_origin(draft, route)->place.line);
        return;
    }
}

/* Whether nobody has a user name there. */
static bool is_nameless(const struct draft *draft, const struct config_listener *listener)
{
    return listener->auth == CONFIG_AUTH_OFF && !draft_is_wrong(draft, &listener->auth) &&
           !listener->n_xclient_from && !draft_is_wrong(draft, &listener->xclient_from);
}

static void check_users(struct draft *draft, const struct config_listener *listener)
{
    for (size_t i = 0; i < listener->n_routes && is_nameless(draft, listener); i++) {
        const struct config_route *route = &listener->routes[i];
        const struct origin *origin = route->n_users ? draft_origin(draft, &route->users[0]) : NULL;
        if (origin)
            report_add(&draft->report, origin->place, origin->key,
                       "nobody has a user name at this listener; expected auth: relay or xclient-from beside "
                       "its routes");
    }
}

/* Whether the backends of a pool judge the client themselves: their access control sees its address. */
static bool backends_judge(const struct config_pool *pool)
{
    switch (pool->identity) {
    case CONFIG_IDENTITY_NONE:
    case CONFIG_IDENTITY_XFORWARD: return false;
    case CONFIG_IDENTITY_PROXY_V1:
    case CONFIG_IDENTITY_PROXY_V2:
    case CONFIG_IDENTITY_XCLIENT: return true;
    }
    return false;
}

/* Whether nobody gets as far as MAIL without a certificate of `client-ca`. */
static bool demands_certificate(const struct config_listener *listener)
{
    switch (listener->tls) {
    case CONFIG_TLS_OFF:
    case CONFIG_TLS_STARTTLS: return false;
    case CONFIG_TLS_REQUIRED:
    case CONFIG_TLS_IMPLICIT: return *listener->client_ca;
    }
    return false;
}

/* Whether somebody beyond private addresses is in both networks: one of two lies within the other, or they
 * have nothing in common. */
static bool common_is_public(const struct network *a, const struct network *b)
{
    const struct network *wide = a->prefix < b->prefix ? a : b, *narrow = wide == a ? b : a;
    struct peer first = { .family = narrow->family };
    memcpy(first.ip, narrow->ip, sizeof first.ip);
    return network_contains(wide, &first) && !network_is_private(narrow);
}

/* Whether somebody in `network` and beyond private addresses may come by this way; NULL: the listener's own
 * pool. That an earlier route may have taken them is not counted on. */
static bool lets_strangers(const struct draft *draft, const struct config_route *route,
                           const struct network *network)
{
    if (!route)
        return !network_is_private(network);
    if (draft_is_wrong(draft, route))
        return false;
    for (size_t i = 0; i < route->n_clients; i++)
        if (common_is_public(network, &route->clients[i]))
            return true;
    return !route->n_clients && !network_is_private(network);
}

/* The pool that mail of `network` may come to although its backends would not know a stranger; NULL: none. */
static const struct config_pool *open_pool(const struct draft *draft, const struct config_listener *listener,
                                           const struct network *network)
{
    for (size_t i = 0; i <= listener->n_routes; i++) {
        const struct config_route *route = i < listener->n_routes ? &listener->routes[i] : NULL;
        size_t index = route ? route->pool : listener->pool;
        const struct config_pool *pool = index == DRAFT_NO_POOL ? NULL : &draft->config->pools[index];
        if (pool && !backends_judge(pool) && lets_strangers(draft, route, network))
            return pool;
    }
    return NULL;
}

/* Listing the whole Internet is right in front of backends that judge clients themselves, as an MX does, and
 * an open relay in front of those that trust whatever comes from Weir's address. */
static void check_relaying(struct draft *draft, const struct config_listener *listener)
{
    if (listener->open_to_all || demands_certificate(listener))
        return;
    for (size_t i = 0; i < listener->n_allow_from; i++) {
        const struct network *network = &listener->allow_from[i];
        const struct origin *origin = draft_origin(draft, network);
        const struct config_pool *pool = origin ? open_pool(draft, listener, network) : NULL;
        if (!pool)
            continue;
        bool logged = pool->identity == CONFIG_IDENTITY_XFORWARD, routed = listener->n_routes > 0;
        report_add(
            &draft->report, origin->place, origin->key,
            "%s reaches beyond private addresses. The backends%s%s%s trust Weir's address and %s, so "
            "everyone in there could send mail to anywhere through them: an open relay. Expected a narrower "
            "network, a pool that passes identity on for them to judge (identity: proxy-v1, proxy-v2 or "
            "xclient), or open-to-all: true if that is what you want",
            origin->text, routed ? " of pool \"" : "", routed ? pool->name : "", routed ? "\"" : "",
            logged ? "only log the client's (identity: xforward)" : "don't see the client's");
    }
}

/* What connecting to an IPv4 address mapped into IPv6 reaches: the IPv4 address. */
static struct address unmapped(const struct address *address)
{
    struct address plain = *address;
    if (address->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&address->in6.sin6_addr)) {
        plain = (struct address){ .length = sizeof plain.in };
        plain.in.sin_family = AF_INET;
        plain.in.sin_port = address->in6.sin6_port;
        memcpy(&plain.in.sin_addr, &address->in6.sin6_addr.s6_addr[12], 4);
    }
    return plain;
}

static bool is_loopback(const struct address *address)
{
    return address->sa.sa_family == AF_INET
               ? ntohl(address->in.sin_addr.s_addr) >> 24 == 127
               : address->sa.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&address->in6.sin6_addr);
}

static bool is_wildcard(const struct address *address)
{
    return address->sa.sa_family == AF_INET
               ? address->in.sin_addr.s_addr == INADDR_ANY
               : address->sa.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&address->in6.sin6_addr);
}

static in_port_t port_of(const struct address *address)
{
    return address->sa.sa_family == AF_INET ? address->in.sin_port : address->in6.sin6_port;
}

/* Whether a connection to `to` ends at a socket that listens on `listening`. */
static bool reaches(const struct address *to, const struct address *listening)
{
    struct address plain = unmapped(to);
    if (address_equal(&plain, listening))
        return true;
    return plain.sa.sa_family == listening->sa.sa_family && is_wildcard(listening) && is_loopback(&plain) &&
           port_of(&plain) == port_of(listening);
}

/* The addresses that a backend certainly has before any name is resolved: its own, or those of "localhost".
 */
static size_t known_addresses(const struct config_backend *backend, struct address out[2])
{
    if (backend->address.length) {
        out[0] = backend->address;
        return 1;
    }
    if (!backend->host || strcasecmp(backend->host, "localhost") != 0)
        return 0;
    out[0] = (struct address){ .length = sizeof out[0].in };
    out[0].in = (struct sockaddr_in){ .sin_family = AF_INET,
                                      .sin_port = htons(backend->port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    out[1] = (struct address){ .length = sizeof out[1].in6 };
    out[1].in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6,
                                        .sin6_port = htons(backend->port),
                                        .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    return 2;
}

/* The listener that a connection to `to` ends at, and which of its addresses; NULL: none. */
static const struct config_listener *listener_reached(const struct config *config, const struct address *to,
                                                      const struct address **at)
{
    for (size_t i = 0; i < config->n_listeners; i++) {
        const struct config_listener *listener = &config->listeners[i];
        for (size_t k = 0; k < listener->n_addresses; k++) {
            *at = &listener->addresses[k];
            if (reaches(to, *at))
                return listener;
        }
    }
    return NULL;
}

bool config_is_own_listener(const struct config *config, const struct address *address)
{
    const struct address *at;
    return listener_reached(config, address, &at) != NULL;
}

static void check_loop(struct draft *draft, const struct config_backend *backend)
{
    struct address known[2];
    size_t n = known_addresses(backend, known);
    const struct config_listener *listener = NULL;
    const struct address *address = NULL;
    for (size_t i = 0; i < n && !listener; i++)
        listener = listener_reached(draft->config, &known[i], &address);
    if (!listener)
        return;
    const struct origin *origin = draft_origin(draft, &backend->address);
    char text[ADDRESS_TEXT_MAX];
    report_add(&draft->report, origin->place, origin->key,
               "expected a relay, but %s is Weir's own listener \"%s\" (%s): mail would go round in a loop",
               backend->address_text, listener->name, address_format(address, text));
}

/* A port alone needs an address that has ports. */
static void check_agent(struct draft *draft, const struct config_backend *backend)
{
    const struct config_agent *agent = &backend->agent;
    const struct origin *origin = draft_origin(draft, &agent->text);
    if (origin && agent->port && !agent->host && !agent->address.length && backend->address.length &&
        backend->address.sa.sa_family == AF_UNIX)
        report_add(&draft->report, origin->place, origin->key,
                   "expected host:port, as the relay's own address is a Unix socket");
}

static void check_backend(struct draft *draft, size_t index)
{
    const struct config_backend *backend = &draft->config->backends[index];
    if (draft->described[index].field) {
        check_loop(draft, backend);
        check_agent(draft, backend);
        return;
    }
    const struct origin *origin = draft_origin(draft, backend);
    report_add(
        &draft->report, origin->place, origin->key,
        "no pool gives this backend an address; expected { address: \"host:port\" } here or in another pool");
}

static bool sends_header(const struct config_pool *pool)
{
    return pool->identity == CONFIG_IDENTITY_PROXY_V1 || pool->identity == CONFIG_IDENTITY_PROXY_V2;
}

/* A backend of two pools, only one of which sends the PROXY header, serves one of them at most. */
static void check_header_agreed(struct draft *draft, const struct config_pool *pool,
                                const struct config_pool *other, const struct config_backend *backend)
{
    if (sends_header(pool) == sends_header(other))
        return;
    const struct origin *origin = draft_origin(draft, &pool->identity);
    if (!origin)
        origin = draft_origin(draft, pool); /* it has the default */
    report_add(&draft->report, origin->place, origin->key,
               "pool \"%s\" lists backend \"%s\" too and %s a PROXY header, this pool %s: its port either "
               "expects one or must not see one. Expected the same in both, or a backend of another name for "
               "another port",
               other->name, backend->name, sends_header(other) ? "sends it" : "does not send it",
               sends_header(pool) ? "does" : "does not");
}

static void check_headers(struct draft *draft)
{
    const struct config *config = draft->config;
    const struct config_pool **first = memory_zeroed(config->n_backends, sizeof *first);
    for (size_t i = 0; i < config->n_pools; i++) {
        const struct config_pool *pool = &config->pools[i];
        for (size_t k = 0; k < pool->n_backends; k++) {
            size_t index = pool->backends[k];
            if (first[index])
                check_header_agreed(draft, pool, first[index], &config->backends[index]);
            else
                first[index] = pool;
        }
    }
    free(first);
}

/* Listening sockets, HTTP's included, each compared with those before it. */
static void check_address_free(struct draft *draft, const struct address *address, size_t before_listener,
                               size_t before_address)
{
    const struct config *config = draft->config;
    for (size_t i = 0; i <= before_listener && i < config->n_listeners; i++) {
        const struct config_listener *other = &config->listeners[i];
        size_t n = i == before_listener ? before_address : other->n_addresses;
        for (size_t k = 0; k < n; k++) {
            if (!address_equal(address, &other->addresses[k]))
                continue;
            const struct origin *origin = draft_origin(draft, address);
            const struct origin *first = draft_origin(draft, &other->addresses[k]);
            if (origin)
                report_add(&draft->report, origin->place, origin->key,
                           "%s is taken by listener \"%s\" (line %zu); expected another address",
                           origin->text, other->name, first->place.line);
            else
                report_add(&draft->report, first->place, first->key,
                           "%s is where http answers by default; expected another address here or there",
                           first->text);
            return;
        }
    }
}

/* Who asks for an envelope in a check is to get one. */
static void check_envelope(struct draft *draft, const struct config_health *health)
{
    const char *const *const mailboxes[] = { (const char *const *)&health->sender,
                                             (const char *const *)&health->recipient };
    if (health->depth == CONFIG_DEPTH_ENVELOPE || draft_is_wrong(draft, &health->depth))
        return;
    for (size_t i = 0; i < 2; i++) {
        const struct origin *origin = **mailboxes[i] ? draft_origin(draft, mailboxes[i]) : NULL;
        if (origin)
            report_add(&draft->report, origin->place, origin->key,
                       "has no effect unless checks begin a transaction; expected depth: envelope beside it");
    }
}

static const struct config_listener *find_listener(struct draft *draft, const struct origin *given)
{
    const struct config *config = draft->config;
    struct suggestion suggestion = { .word = given->text };
    for (size_t i = 0; i < config->n_listeners; i++) {
        if (strcmp(config->listeners[i].name, given->text) == 0)
            return &config->listeners[i];
        suggestion_offer(&suggestion, config->listeners[i].name);
    }
    report_add(&draft->report, given->place, given->key, "there is no listener \"%s\"%s%s%s", given->text,
               suggestion.best ? "; did you mean \"" : "; expected a name that stands under listeners",
               suggestion.best ? suggestion.best : "", suggestion.best ? "\"?" : "");
    return NULL;
}

static void check_limit(struct draft *draft, const struct config_limit *limit)
{
    const struct origin *origin = draft_origin(draft, limit), *given = draft_origin(draft, &limit->by);
    bool named = false, any = limit->n_listeners == 0;
    if (!limit->messages.n && !limit->recipients.n && !draft_is_wrong(draft, &limit->messages) &&
        !draft_is_wrong(draft, &limit->recipients))
        report_add(&draft->report, origin->place, origin->key,
                   "expected messages or recipients, or both, such as messages: 1000/1h");
    for (size_t i = 0; i < limit->n_listeners; i++) {
        const struct origin *name = draft_origin(draft, &limit->listeners[i]);
        const struct config_listener *listener = find_listener(draft, name);
        named = named || (listener && !is_nameless(draft, listener));
        any = any || listener;
    }
    for (size_t i = 0; !limit->n_listeners && i < draft->config->n_listeners; i++)
        named = named || !is_nameless(draft, &draft->config->listeners[i]);
    if (given && !given->wrong && limit->by == CONFIG_LIMIT_USER && !named && any &&
        draft->config->n_listeners && !draft_is_wrong(draft, &limit->listeners))
        report_add(&draft->report, given->place, given->key,
                   "nobody has a user name there; expected auth: relay or xclient-from at a listener");
}

void draft_check(struct draft *draft)
{
    struct config *config = draft->config;
    for (size_t i = 0; i < config->n_listeners; i++) {
        struct config_listener *listener = &config->listeners[i];
        find_pools(draft, listener);
        check_reach(draft, listener);
        check_users(draft, listener);
        check_relaying(draft, listener);
        for (size_t k = 0; k < listener->n_addresses; k++)
            check_address_free(draft, &listener->addresses[k], i, k);
    }
    if (config->http_address.length)
        check_address_free(draft, &config->http_address, config->n_listeners, 0);
    if (config->control_given && config->control_address.length)
        check_address_free(draft, &config->control_address, config->n_listeners, 0);
    for (size_t i = 0; i < config->n_backends; i++)
        check_backend(draft, i);
    check_headers(draft);
    for (size_t i = 0; i < config->n_pools; i++)
        check_envelope(draft, &config->pools[i].health);
    config_redis_check(draft);
    for (size_t i = 0; i < config->n_limits; i++)
        check_limit(draft, &config->limits[i]);
    config_tls_check(draft);
}
