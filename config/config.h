/*
 * The configuration: an immutable snapshot, read from one YAML file.
 *
 * Durations are milliseconds, sizes are octets. Every pointer belongs to the snapshot and lives as long as it
 * does. Snapshots are reference-counted with atomics: the control thread makes them, workers and sessions
 * hold them.
 */
#ifndef WEIR_CONFIG_CONFIG_H
#define WEIR_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "config/redis_url.h"
#include "net/address.h"
#include "net/log.h"
#include "net/tls.h"

enum config_bare_newline { CONFIG_BARE_NEWLINE_REJECT, CONFIG_BARE_NEWLINE_NORMALIZE };

enum config_algorithm {
    CONFIG_LEAST_CONNECTIONS,
    CONFIG_P2C,
    CONFIG_PEAK_EWMA,
    CONFIG_ROUND_ROBIN,
    CONFIG_RANDOM,
    CONFIG_HASH,
};

/* EHLO climbs to where traffic does: through STARTTLS, where the pool demands or can use it. STARTTLS demands
 * it of the check even where the pool's tls is opportunistic. */
enum config_health_depth {
    CONFIG_DEPTH_CONNECT,
    CONFIG_DEPTH_BANNER,
    CONFIG_DEPTH_EHLO,
    CONFIG_DEPTH_STARTTLS,
    CONFIG_DEPTH_ENVELOPE, /* as EHLO, and a transaction is begun and reset */
};

/* TLS towards clients. */
enum config_tls { CONFIG_TLS_OFF, CONFIG_TLS_STARTTLS, CONFIG_TLS_REQUIRED, CONFIG_TLS_IMPLICIT };

enum config_auth { CONFIG_AUTH_OFF, CONFIG_AUTH_RELAY };

/* TLS towards backends: by STARTTLS, but for the last two. */
enum config_pool_tls {
    CONFIG_POOL_TLS_OFF,
    CONFIG_POOL_TLS_OPPORTUNISTIC, /* where it is offered, unverified */
    CONFIG_POOL_TLS_REQUIRE,       /* unverified */
    CONFIG_POOL_TLS_VERIFY,
    CONFIG_POOL_TLS_IMPLICIT, /* unverified */
    CONFIG_POOL_TLS_IMPLICIT_VERIFY,
};

/* How a pool's backends learn who the client is. */
enum config_identity {
    CONFIG_IDENTITY_NONE,
    CONFIG_IDENTITY_PROXY_V1,
    CONFIG_IDENTITY_PROXY_V2,
    CONFIG_IDENTITY_XCLIENT,
    CONFIG_IDENTITY_XFORWARD, /* for the backend's log only: access control there still sees Weir's address */
};

enum config_adaptive_limit { CONFIG_ADAPTIVE_OFF, CONFIG_ADAPTIVE_OBSERVE, CONFIG_ADAPTIVE_ON };

struct config_log {
    enum log_target target;
    char *path; /* with LOG_TARGET_FILE */
    enum log_format format;
    enum log_level level;
};

/* A way to another pool than the listener's. It fits where each list that is not empty has an entry that
 * does.
 */
struct config_route {
    size_t n_clients;
    struct network *clients;
    size_t n_users;
    char **users; /* globs (glob.h) */
    size_t n_sender_domains;
    char **sender_domains; /* globs, without a dot at the end; "": the null sender */
    size_t pool;           /* index in struct config */
};

struct config_listener {
    char *name;
    size_t n_addresses;
    struct address *addresses;
    size_t pool; /* index in struct config */
    size_t n_routes;
    struct config_route *routes; /* the first that fits decides; none: `pool` */
    enum config_tls tls;
    size_t n_certificates;
    char **certificates; /* paths */
    enum tls_version tls_min;
    char *tls_ticket_keys, *client_ca; /* paths; "" for none */
    struct tls_server *tls_server;     /* NULL with `tls: off` */
    enum config_auth auth;
    size_t n_allow_from;
    struct network *allow_from;
    bool open_to_all;
    /* Peers that must begin with a PROXY header, and peers that may name a client with XCLIENT and XFORWARD:
     * both may claim any address. */
    size_t n_proxy_protocol_from;
    struct network *proxy_protocol_from;
    size_t n_xclient_from;
    struct network *xclient_from;
    uint32_t greet_delay;
    enum config_bare_newline bare_newline;
    uint32_t max_connections;
    uint32_t max_connections_per_client; /* 0: no limit */
    uint32_t max_recipients;
    uint64_t max_message_size; /* 0: the smallest SIZE of the pool's backends */
    uint32_t max_errors;
    uint32_t command_timeout;
    uint32_t data_timeout;
    uint32_t min_data_rate; /* octets per second */
    uint32_t priority;      /* 0 to 255, in the queue */
};

struct config_health {
    uint32_t interval, fast_interval, timeout;
    uint32_t fall, rise;
    enum config_health_depth depth;
    char *sender, *recipient; /* mailboxes without brackets; "": the null sender, no recipient */
};

/* Who is asked how much a backend can take. */
struct config_agent {
    char *text;             /* as written; "" for none */
    struct address address; /* length 0: of `host`, or without one the backend's own, at `port` */
    char *host;             /* NULL with a literal address, or with a port alone */
    uint16_t port;          /* 0: there is none */
};

struct config_backend {
    char *name;
    char *address_text;     /* as written */
    struct address address; /* length 0: `host` must be resolved */
    char *host;             /* NULL with a literal address */
    uint16_t port;
    uint32_t weight;          /* 0 to 1000; 0: nothing new */
    uint32_t max_connections; /* 0: no limit */
    uint32_t priority;        /* tier; 0 first */
    char *tls_name;           /* as config_backend_tls_name() says */
    struct config_agent agent;
};

struct config_pool {
    char *name;
    enum config_algorithm algorithm;
    enum config_identity identity;
    enum config_pool_tls tls;
    char *ca;                      /* a path; "" for the system's authorities */
    struct tls_client *tls_client; /* NULL with `tls: off` */
    struct address source;         /* length 0: the kernel chooses */
    uint32_t queue_size;
    uint32_t queue_timeout;
    uint32_t max_share_per_client; /* 1 to 100, percent */
    uint32_t slow_start;
    enum config_adaptive_limit adaptive_limit;
    uint32_t connect_timeout;
    struct config_health health;
    size_t n_backends;
    size_t *backends; /* indices in struct config: a backend may be in several pools */
};

/* Counters shared with other instances. */
struct config_redis {
    struct redis_url *url; /* NULL: none, and then nothing of the rest counts */
    char *farm;
    uint32_t publish_interval, lease;
    uint32_t expected_instances;
    char *ca;               /* a path; "" for the system's authorities */
    struct tls_client *tls; /* NULL: the URL asks for none */
};

/* Whose mail a limit counts together. */
enum config_limit_by { CONFIG_LIMIT_CLIENT, CONFIG_LIMIT_USER, CONFIG_LIMIT_SENDER_DOMAIN };

struct config_rate {
    uint32_t n;      /* 0: no limit */
    uint32_t period; /* ms */
};

struct config_limit {
    char *name;
    enum config_limit_by by;
    struct config_rate messages, recipients; /* at least one */
    size_t n_listeners;
    char **listeners; /* names; none: all */
};

struct config {
    _Atomic uint32_t references;
    char *hostname;
    uint32_t workers; /* resolved: never 0 */
    char *user;       /* "" for none */
    uint32_t drain_grace, drain_timeout;
    size_t n_nameservers; /* 0: the system's */
    struct address *nameservers;
    struct config_log log;
    struct config_redis redis;
    char *http_address_text; /* "" for none */
    struct address http_address;
    char *control_path; /* "" for none */
    struct address control_address;
    bool control_given; /* the file says so: then it must be had */
    size_t n_listeners;
    struct config_listener *listeners;
    size_t n_pools;
    struct config_pool *pools;
    size_t n_backends; /* each name once */
    struct config_backend *backends;
    size_t n_limits;
    struct config_limit *limits;
};

/* The name that a backend's certificate is verified against and that is sent as SNI: tls-name, or the host or
 * address as it was written, without its port and brackets; "" for a Unix socket without tls-name. Lives as
 * long as the configuration. */
const char *config_backend_tls_name(const struct config_backend *backend);

/* Whether a connection to `address` would end at one of the configuration's own listeners, as far as that can
 * be told without asking the host for its addresses. */
bool config_is_own_listener(const struct config *config, const struct address *address);

/* Read `path` ("-" is not special). On success a snapshot with one reference; else NULL, with every error
 * written to `errors` as "FILE:LINE:COLUMN: message", one a line, in the order of the file. Never exits,
 * never logs. */
struct config *config_load(const char *path, FILE *errors);
/* The same from memory; `name` stands in the messages. For tests and fuzzing. */
struct config *config_parse(const char *name, const char *text, size_t size, FILE *errors);
/* The quick start: one listener "smtp" and one pool "relays" from --listen and --backend ADDR[*WEIGHT]
 * arguments, and --redis (NULL: none). */
struct config *config_quick(const char *listen, const char *const *backends, size_t n_backends,
                            const char *redis, FILE *errors);

struct config *config_hold(struct config *config);
/* Give a reference back and clear the caller's pointer; the last one frees. NULL is fine. */
void config_release(struct config **config);

/* Write every option with its default and its one-line meaning, in the order of the file, as Markdown: what
 * docs/configuration.md holds. */
void config_describe(FILE *out);

#endif
