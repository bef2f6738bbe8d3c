/*
 * Runs also after errors, as all of draft_check() does: no conclusion is drawn from what could not be read,
 * and what can be read of the rest is.
 */
#include "config/tls.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "config/memory.h"

/* At the value of a field that the file gives. */
#define REPORT(draft, field, ...) report_at(draft, draft_origin(draft, field), __VA_ARGS__)
#define report_at(draft, origin, ...)                                                                        \
    report_add(&(draft)->report, (origin)->place, (origin)->key, __VA_ARGS__)

static bool is_implicit(const struct config_pool *pool)
{
    return pool->tls == CONFIG_POOL_TLS_IMPLICIT || pool->tls == CONFIG_POOL_TLS_IMPLICIT_VERIFY;
}

static bool verifies(const struct config_pool *pool)
{
    return pool->tls == CONFIG_POOL_TLS_VERIFY || pool->tls == CONFIG_POOL_TLS_IMPLICIT_VERIFY;
}

static bool all_unix(const struct config_listener *listener)
{
    for (size_t i = 0; i < listener->n_addresses; i++)
        if (listener->addresses[i].sa.sa_family != AF_UNIX)
            return false;
    return true;
}

/* What only TLS makes use of. */
static void check_useless(struct draft *draft, const struct config_listener *listener)
{
    const void *fields[] = { listener->n_certificates ? &listener->certificates[0] : NULL,
                             draft_origin(draft, &listener->tls_min) ? &listener->tls_min : NULL,
                             *listener->tls_ticket_keys ? &listener->tls_ticket_keys : NULL,
                             *listener->client_ca ? &listener->client_ca : NULL };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i])
            REPORT(draft, fields[i],
                   "has no effect with tls: off; expected tls: starttls, required or implicit");
}

static void check_listener(struct draft *draft, const struct config_listener *listener)
{
    if (draft_is_wrong(draft, &listener->tls))
        return;
    if (listener->tls == CONFIG_TLS_OFF) {
        check_useless(draft, listener);
        if (listener->auth == CONFIG_AUTH_RELAY && !all_unix(listener))
            REPORT(draft, &listener->auth,
                   "has no effect with tls: off, because AUTH is offered over TLS and on Unix sockets only; "
                   "expected tls: starttls, required or implicit");
        return;
    }
    if (!listener->n_certificates && !draft_is_wrong(draft, &listener->certificates))
        REPORT(draft, &listener->tls,
               "expected the key certificate beside it, with the path of a PEM file that holds a "
               "certificate, its chain and its key");
    if (*listener->client_ca && listener->tls == CONFIG_TLS_STARTTLS)
        REPORT(draft, &listener->client_ca,
               "demands nothing of a client that stays in the clear, as tls: starttls lets it; expected tls: "
               "required or implicit");
}

static void check_pool(struct draft *draft, const struct config_pool *pool)
{
    if (draft_is_wrong(draft, &pool->tls))
        return;
    const struct origin *given = draft_origin(draft, &pool->tls);
    const char *tls = given ? given->text : "off";
    if (*pool->ca && !verifies(pool))
        REPORT(draft, &pool->ca,
               "has no effect with tls: %s, which verifies nothing; expected tls: verify or implicit-verify",
               tls);
    if (pool->health.depth == CONFIG_DEPTH_STARTTLS &&
        (pool->tls == CONFIG_POOL_TLS_OFF || is_implicit(pool)))
        REPORT(
            draft, &pool->health.depth,
            "the pool never says STARTTLS with tls: %s; expected tls: opportunistic, require or verify, or "
            "depth: ehlo",
            tls);
}

/* What the pools that list a backend, and the listeners in front of them, want of it. */
struct use {
    const struct config_pool *first;         /* that is known to speak TLS or not to */
    const struct config_pool *verifying;     /* NULL: none */
    const struct config_listener *passwords; /* brings them in the clear; NULL: none does */
    const struct config_pool *passwords_pool;
    bool speaks_tls; /* or may do, in a pool whose `tls` could not be read */
};

/* A port speaks TLS from the first octet or it does not. */
static void check_first_octet(struct draft *draft, const struct config_pool *pool,
                              const struct config_pool *other, const struct config_backend *backend)
{
    if (is_implicit(pool) == is_implicit(other))
        return;
    const struct origin *origin = draft_origin(draft, &pool->tls);
    if (!origin)
        origin = draft_origin(draft, pool); /* it has the default */
    report_at(draft, origin,
              "pool \"%s\" lists backend \"%s\" too and %s TLS from the first octet, this pool %s: its port "
              "either expects it or must not see it. Expected implicit TLS in both or in none, or a backend "
              "of another name for another port",
              other->name, backend->name, is_implicit(other) ? "speaks" : "does not speak",
              is_implicit(pool) ? "does" : "does not");
}

static void note_pool(struct draft *draft, struct use *uses, const struct config_pool *pool)
{
    bool wrong = draft_is_wrong(draft, &pool->tls);
    for (size_t i = 0; i < pool->n_backends; i++) {
        struct use *use = &uses[pool->backends[i]];
        use->speaks_tls = use->speaks_tls || wrong || pool->tls != CONFIG_POOL_TLS_OFF;
        if (wrong)
            continue;
        if (verifies(pool))
            use->verifying = pool;
        if (use->first)
            check_first_octet(draft, pool, use->first, &draft->config->backends[pool->backends[i]]);
        else
            use->first = pool;
    }
}

static void note_passwords_for(struct draft *draft, struct use *uses, const struct config_listener *listener,
                               size_t index)
{
    const struct config_pool *pool = index == DRAFT_NO_POOL ? NULL : &draft->config->pools[index];
    if (!pool || listener->auth != CONFIG_AUTH_RELAY || pool->tls != CONFIG_POOL_TLS_OFF ||
        draft_is_wrong(draft, &pool->tls))
        return;
    for (size_t i = 0; i < pool->n_backends; i++) {
        struct use *use = &uses[pool->backends[i]];
        if (use->passwords)
            continue;
        use->passwords = listener;
        use->passwords_pool = pool;
    }
}

/* No sender is known at AUTH, so a route by its domain is none of passwords'. */
static void note_passwords(struct draft *draft, struct use *uses, const struct config_listener *listener)
{
    note_passwords_for(draft, uses, listener, listener->pool);
    for (size_t i = 0; i < listener->n_routes; i++) {
        const struct config_route *route = &listener->routes[i];
        if (!route->n_sender_domains && !draft_is_wrong(draft, route))
            note_passwords_for(draft, uses, listener, route->pool);
    }
}

static bool is_private(const struct address *address)
{
    struct peer peer;
    peer_from_sockaddr(&peer, &address->sa);
    struct network network = { .family = peer.family, .prefix = peer.family == AF_INET ? 32 : 128 };
    memcpy(network.ip, peer.ip, sizeof network.ip);
    return network_is_private(&network);
}

static void check_backend(struct draft *draft, const struct config_backend *backend, const struct use *use)
{
    if (*backend->tls_name && !use->speaks_tls)
        REPORT(draft, &backend->tls_name,
               "has no effect, because the backend's pool has tls: off; expected another tls there");
    /* A name is judged when it is connected to. */
    if (!backend->address.length)
        return;
    if (use->passwords && !is_private(&backend->address))
        REPORT(draft, &backend->address,
               "expected a loopback, private or link-local address or a Unix socket, because listener \"%s\" "
               "passes passwords on (auth: relay) and pool \"%s\" would do it in the clear; with another tls "
               "there than off any address will do",
               use->passwords->name, use->passwords_pool->name);
    if (use->verifying && backend->address.sa.sa_family == AF_UNIX && !*backend->tls_name &&
        !draft_is_wrong(draft, &backend->tls_name))
        REPORT(
            draft, &backend->address,
            "expected the key tls-name beside it: pool \"%s\" verifies certificates, and a Unix socket has "
            "no name that one could carry",
            use->verifying->name);
}

/* The host or address as it was written, without port and brackets. A Unix socket has no name. */
static void name_backend(struct config_backend *backend)
{
    if (*backend->tls_name || !backend->address_text)
        return;
    if (backend->address.length && backend->address.sa.sa_family == AF_UNIX)
        return;
    free(backend->tls_name);
    backend->tls_name = memory_text(backend->address_text + (*backend->address_text == '['));
    char *end = strrchr(backend->tls_name, ':');
    *end = '\0';
    if (end != backend->tls_name && end[-1] == ']')
        end[-1] = '\0';
}

struct culprits {
    struct draft *draft;
    const void *tls;           /* the field that wants a context */
    char *const *certificates; /* of a server */
    const void *ticket_keys, *authority;
};

static void report_file(void *arg, enum tls_culprit culprit, size_t index, const char *text)
{
    const struct culprits *culprits = arg;
    const struct origin *file = NULL, *tls = draft_origin(culprits->draft, culprits->tls);
    switch (culprit) {
    case TLS_CULPRIT_CERTIFICATE: file = draft_origin(culprits->draft, &culprits->certificates[index]); break;
    case TLS_CULPRIT_TICKET_KEYS: file = draft_origin(culprits->draft, culprits->ticket_keys); break;
    case TLS_CULPRIT_AUTHORITY: file = draft_origin(culprits->draft, culprits->authority); break;
    case TLS_CULPRIT_NONE: break;
    }
    if (!file) /* the system's authorities, or no file at all */
        report_at(culprits->draft, tls, "%s", text);
    else
        report_at(culprits->draft, file, "%s %s", file->text, text);
}

static void make_server(struct draft *draft, struct config_listener *listener)
{
    if (listener->tls == CONFIG_TLS_OFF || !listener->n_certificates)
        return;
    struct culprits culprits = { .draft = draft,
                                 .tls = &listener->tls,
                                 .certificates = listener->certificates,
                                 .ticket_keys = &listener->tls_ticket_keys,
                                 .authority = &listener->client_ca };
    struct tls_server_settings settings = { .listener = listener->name,
                                            .n_certificates = listener->n_certificates,
                                            .certificates = (const char *const *)listener->certificates,
                                            .ticket_keys = listener->tls_ticket_keys,
                                            .client_ca = listener->client_ca,
                                            .min_version = listener->tls_min,
                                            .secrets = listener->auth == CONFIG_AUTH_RELAY };
    listener->tls_server = tls_server_create(&settings, report_file, &culprits);
}

/* Pools that ask for the same share a context: the system's authorities are half a megabyte. */
static void make_client(struct draft *draft, size_t index)
{
    struct config_pool *pool = &draft->config->pools[index];
    if (pool->tls == CONFIG_POOL_TLS_OFF)
        return;
    for (const struct config_pool *other = draft->config->pools; other < pool; other++)
        if (other->tls_client && verifies(other) == verifies(pool) && strcmp(other->ca, pool->ca) == 0) {
            pool->tls_client = other->tls_client;
            return;
        }
    struct culprits culprits = { .draft = draft, .tls = &pool->tls, .authority = &pool->ca };
    struct tls_client_settings settings = { .verify = verifies(pool), .ca = pool->ca };
    pool->tls_client = tls_client_create(&settings, report_file, &culprits);
}

void config_tls_check(struct draft *draft)
{
    struct config *config = draft->config;
    struct use *uses = memory_zeroed(config->n_backends, sizeof *uses);
    for (size_t i = 0; i < config->n_pools; i++) {
        check_pool(draft, &config->pools[i]);
        note_pool(draft, uses, &config->pools[i]);
        make_client(draft, i);
    }
    for (size_t i = 0; i < config->n_listeners; i++) {
        check_listener(draft, &config->listeners[i]);
        note_passwords(draft, uses, &config->listeners[i]);
        make_server(draft, &config->listeners[i]);
    }
    for (size_t i = 0; i < config->n_backends; i++) {
        check_backend(draft, &config->backends[i], &uses[i]);
        name_backend(&config->backends[i]);
    }
    free(uses);
}

void config_tls_free(struct config *config)
{
    for (size_t i = 0; i < config->n_listeners; i++)
        tls_server_free(&config->listeners[i].tls_server);
    for (size_t i = 0; i < config->n_pools; i++) {
        struct tls_client *client = config->pools[i].tls_client;
        if (!client)
            continue;
        for (size_t k = i; k < config->n_pools; k++)
            if (config->pools[k].tls_client == client)
                config->pools[k].tls_client = NULL;
        tls_client_free(&client);
    }
}

const char *config_backend_tls_name(const struct config_backend *backend)
{
    return backend->tls_name;
}
