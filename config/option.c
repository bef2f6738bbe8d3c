#include "config/option.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config/memory.h"
#include "config/value.h"

#define WORDS(...) ((const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL })
/* Not braces but a call: clang-format 14 fails on arrays of structs of unlike length. */
#define ROW(...)                                                                                             \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }
#define FIELD(type_, f)   .offset = offsetof(struct type_, f)
#define COUNTED(type_, f) FIELD(type_, f), .count = offsetof(struct type_, n_##f)
#define RANGE(min_, max_) .min = (min_), .max = (max_)
#define MEANS(text)       .meaning = (text)
#define STANDARD(text)    .default_text = (text)
#define MS(n)             (n)
#define SECONDS(n)        ((n)*UINT64_C(1000))
#define MINUTES(n)        (60 * SECONDS(n))
#define HOURS(n)          (60 * MINUTES(n))
#define GB(n)             ((n) * (UINT64_C(1) << 30))
#define SECTION(p, o, s)  ROW(.path = (p), .options = (o), .n_options = sizeof(o) / sizeof *(o), .size = (s))
/* A key of a later version, and the values of it that this version can honour by doing nothing. */
#define LATER(key_, text, ...)                                                                               \
    ROW(.key = (key_), .type = OPTION_LATER, .offset = OPTION_NO_FIELD, .only = WORDS(__VA_ARGS__),          \
        MEANS(text))
#define LATER_CHOICE(key_, text, choices_, ...)                                                              \
    ROW(.key = (key_), .type = OPTION_CHOICE, .offset = OPTION_NO_FIELD, .choices = (choices_),              \
        .only = WORDS(__VA_ARGS__), MEANS(text))

/* Enumerators in the order of their enums. */
static const char *const bare_newlines[] = { "reject", "normalize", NULL };
static const char *const listener_tls[] = { "off", "starttls", "required", "implicit", NULL };
static const char *const tls_versions[] = { "1.2", "1.3", NULL };
static const char *const auths[] = { "off", "relay", NULL };
static const char *const pool_tls[] = { "off",      "opportunistic",   "require", "verify",
                                        "implicit", "implicit-verify", NULL };
static const char *const algorithms[] = {
    "least-connections", "p2c", "peak-ewma", "round-robin", "random", "hash", NULL
};
static const char *const identities[] = { "none", "proxy-v1", "proxy-v2", "xclient", "xforward", NULL };
static const char *const adaptive_limits[] = { "off", "observe", "on", NULL };
static const char *const depths[] = { "connect", "banner", "ehlo", "starttls", "envelope", NULL };
static const char *const log_formats[] = { "logfmt", "json", NULL };
static const char *const limit_bys[] = { "client", "user", "sender-domain", NULL };
static const char *const log_levels[] = { "error", "warning", "info", "debug", NULL };

static_assert(CONFIG_BARE_NEWLINE_NORMALIZE == 1 && CONFIG_HASH == 5 && CONFIG_DEPTH_STARTTLS == 3,
              "choices");
static_assert(CONFIG_TLS_IMPLICIT == 3 && TLS_VERSION_1_3 == 1 && CONFIG_AUTH_RELAY == 1, "choices");
static_assert(CONFIG_POOL_TLS_OFF == 0 && CONFIG_POOL_TLS_IMPLICIT_VERIFY == 5, "choices");
static_assert(CONFIG_IDENTITY_NONE == 0 && CONFIG_IDENTITY_XFORWARD == 4, "choices");
static_assert(CONFIG_ADAPTIVE_OFF == 0 && CONFIG_ADAPTIVE_ON == 2, "choices");
static_assert(CONFIG_LIMIT_CLIENT == 0 && CONFIG_LIMIT_SENDER_DOMAIN == 2, "choices");
static_assert(LOG_FORMAT_JSON == 1 && LOG_LEVEL_DEBUG == 3, "choices");
static_assert(offsetof(struct config_listener, name) == 0 && offsetof(struct config_pool, name) == 0,
              "names");

static const struct option log_options[] = {
    ROW(.key = "destination", .type = OPTION_LOG_DESTINATION, FIELD(config_log, target), STANDARD("stderr"),
        MEANS("`stderr`, `syslog`, or the path of a file (opened anew on USR1).")),
    ROW(.key = "format", .type = OPTION_CHOICE, FIELD(config_log, format), STANDARD("logfmt"),
        .choices = log_formats, MEANS("One event is one line in both.")),
    ROW(.key = "level", .type = OPTION_CHOICE, FIELD(config_log, level), STANDARD("info"),
        .choices = log_levels, MEANS("The least important level that is written.")),
};
static const struct section log_section = SECTION("log", log_options, sizeof(struct config_log));

static const struct option route_options[] = {
    ROW(.key = "client", .type = OPTION_NETWORKS, COUNTED(config_route, clients), RANGE(1, 4096),
        MEANS("Networks, addresses, `unix`: the client is in one of them. Left out: whoever it is.")),
    ROW(.key = "user", .type = OPTION_USERS, COUNTED(config_route, users), RANGE(1, 4096),
        MEANS(
            "Names with `*` and `?`: the user's, as it is logged, or as AUTH claims it where its first line "
            "shows that. Upper and lower case differ. Who has no name fits none.")),
    ROW(.key = "sender-domain", .type = OPTION_DOMAINS, COUNTED(config_route, sender_domains), RANGE(1, 4096),
        MEANS(
            "Domains with `*` and `?`, in either case: MAIL's sender is of one of them. `\"\"` or `<>`: the "
            "null sender, which `*` fits too. A session that has authenticated stays with the relay where "
            "it did, and no such route applies to it.")),
    ROW(.key = "pool", .type = OPTION_POOL, FIELD(config_route, pool), .required = true,
        MEANS("Where the mail goes that fits all of the above. With nothing above: all that is left.")),
};
const struct section option_route =
    SECTION("listeners.NAME.routes", route_options, sizeof(struct config_route));

static const struct option listener_options[] = {
    ROW(.key = "address", .type = OPTION_ADDRESSES, COUNTED(config_listener, addresses), RANGE(1, 64),
        .required = true, MEANS("Where to listen; one address or a list.")),
    ROW(.key = "pool", .type = OPTION_POOL, FIELD(config_listener, pool),
        MEANS("The pool that takes this listener's mail. May be left out where there is only one pool.")),
    ROW(.key = "routes", .type = OPTION_LIST, COUNTED(config_listener, routes), RANGE(0, 256), STANDARD("[]"),
        .section = &option_route,
        MEANS(
            "Which pool instead: the first route that fits decides, and where none does, `pool`. EHLO offers "
            "what all pools can do that this client may be sent to. More in [routes.md](routes.md).")),
    ROW(.key = "tls", .type = OPTION_CHOICE, FIELD(config_listener, tls), STANDARD("off"),
        .choices = listener_tls,
        MEANS(
            "TLS towards clients. `starttls`: for those who ask for it; `required`: nothing but EHLO, NOOP, "
            "STARTTLS and QUIT without it; `implicit`: from the first octet, as on port 465.")),
    ROW(.key = "certificate", .type = OPTION_PATHS, COUNTED(config_listener, certificates), RANGE(0, 1024),
        STANDARD("[]"),
        MEANS(
            "PEM files, each with a certificate, the chain behind it and its key. A client gets the one "
            "that carries the host name it asks for (SNI); if it asks for none or for another, the first. "
            "Where there are an ECDSA and an RSA one of the same name, it gets what it can verify. FILE.ocsp "
            "beside FILE is its OCSP response, to be stapled. Relative paths begin in the working directory. "
            "A reload reads all files of TLS again as `user`, and `--check` as whoever runs it: both must be "
            "able to.")),
    ROW(.key = "tls-min", .type = OPTION_CHOICE, FIELD(config_listener, tls_min), STANDARD("1.2"),
        .choices = tls_versions, MEANS("The oldest TLS version that is spoken with clients.")),
    ROW(.key = "tls-ticket-keys", .type = OPTION_PATH, FIELD(config_listener, tls_ticket_keys),
        STANDARD("\"\""),
        MEANS(
            "A file of keys for session tickets, for instances that share clients: one key a line, base64 of "
            "80 random octets (`openssl rand 80 \\| base64 -w0`). The first encrypts, all decrypt; change "
            "them with a reload. Empty: keys of this process alone.")),
    ROW(.key = "client-ca", .type = OPTION_PATH, FIELD(config_listener, client_ca), STANDARD("\"\""),
        MEANS(
            "A PEM file of authorities: a client without a certificate of one of them is refused in the TLS "
            "handshake. Only with `tls` `required` or `implicit`.")),
    ROW(.key = "allow-from", .type = OPTION_NETWORKS, COUNTED(config_listener, allow_from), RANGE(0, 4096),
        STANDARD("[127.0.0.0/8, \"::1\", unix]"),
        MEANS("Clients that may send mail: networks, addresses, `unix`. All others hear 550 at MAIL.")),
    ROW(.key = "open-to-all", .type = OPTION_SWITCH, FIELD(config_listener, open_to_all), STANDARD("false"),
        MEANS("Must be true where `allow-from` reaches beyond private addresses and the `identity` of the "
              "pool, or "
              "of one that a route leads such clients to, is `none` or `xforward`, unless `client-ca` keeps "
              "strangers out. The backends then trust Weir's "
              "address and don't judge the client's: who "
              "may use the listener may send mail to anywhere.")),
    ROW(.key = "auth", .type = OPTION_CHOICE, FIELD(config_listener, auth), STANDARD("off"), .choices = auths,
        MEANS(
            "`relay`: offer AUTH over TLS and on Unix sockets and let the backend judge; who has "
            "authenticated may send mail wherever it comes from. Passwords go to a backend in the clear only "
            "where it is on a loopback, private or link-local address or a Unix socket: in a pool with `tls` "
            "`off` any other address is an error in the file, and a host name is judged when it is connected "
            "to.")),
    ROW(.key = "proxy-protocol-from", .type = OPTION_NETWORKS, COUNTED(config_listener, proxy_protocol_from),
        RANGE(0, 4096), STANDARD("[]"),
        MEANS("Peers that must begin with a PROXY header, v1 or v2; all others must not. They may claim any "
              "address, so name your balancers and nothing else.")),
    ROW(.key = "xclient-from", .type = OPTION_NETWORKS, COUNTED(config_listener, xclient_from),
        RANGE(0, 4096), STANDARD("[]"),
        MEANS("Clients that may say on whose behalf they come, with XCLIENT or XFORWARD. They too may claim "
              "any address. With a PROXY header it is the address in the header that must be listed.")),
    ROW(.key = "greet-delay", .type = OPTION_DURATION, FIELD(config_listener, greet_delay), STANDARD("0s"),
        RANGE(0, MINUTES(5)), MEANS("Wait this long before the banner; who talks earlier hears 554.")),
    ROW(.key = "bare-newline", .type = OPTION_CHOICE, FIELD(config_listener, bare_newline),
        STANDARD("reject"), .choices = bare_newlines,
        MEANS("A bare LF in a body: refuse the message, or make it CRLF. A bare CR is refused in both.")),
    ROW(.key = "max-connections", .type = OPTION_NUMBER, FIELD(config_listener, max_connections),
        STANDARD("10000"), RANGE(1, 1000000), MEANS("Clients at a time.")),
    ROW(.key = "max-connections-per-client", .type = OPTION_NUMBER,
        FIELD(config_listener, max_connections_per_client), STANDARD("0"), RANGE(0, 1000000),
        MEANS("The same of one address (IPv6: one /64); with Redis, over the farm ([limits.md](limits.md)). "
              "0: no limit.")),
    ROW(.key = "max-recipients", .type = OPTION_NUMBER, FIELD(config_listener, max_recipients),
        STANDARD("1000"), RANGE(1, 100000), MEANS("Recipients of one message; more hear 452.")),
    ROW(.key = "max-message-size", .type = OPTION_SIZE, FIELD(config_listener, max_message_size),
        STANDARD("0"), RANGE(0, GB(1024)),
        MEANS(
            "0: the smallest non-zero SIZE that the pool's backends announce (with `routes`: the pools').")),
    ROW(.key = "max-errors", .type = OPTION_NUMBER, FIELD(config_listener, max_errors), STANDARD("20"),
        RANGE(1, 10000), MEANS("Commands in error before a session is closed with 421.")),
    ROW(.key = "command-timeout", .type = OPTION_DURATION, FIELD(config_listener, command_timeout),
        STANDARD("5m"), RANGE(MS(10), HOURS(1)), MEANS("For a whole command, not for one read.")),
    ROW(.key = "data-timeout", .type = OPTION_DURATION, FIELD(config_listener, data_timeout), STANDARD("3m"),
        RANGE(MS(10), HOURS(1)), MEANS("Between two blocks of a body.")),
    ROW(.key = "min-data-rate", .type = OPTION_NUMBER, FIELD(config_listener, min_data_rate), STANDARD("500"),
        RANGE(0, 1000000000), MEANS("Octets per second, once a body has taken 3 minutes. 0: no limit.")),
    ROW(.key = "priority", .type = OPTION_NUMBER, FIELD(config_listener, priority), STANDARD("0"),
        RANGE(0, 255),
        MEANS(
            "In a pool's queue: higher is served first, and takes a seat from a lower one when it is full.")),
};
const struct section option_listener =
    SECTION("listeners.NAME", listener_options, sizeof(struct config_listener));

static const struct option health_options[] = {
    ROW(.key = "interval", .type = OPTION_DURATION, FIELD(config_health, interval), STANDARD("5s"),
        RANGE(MS(10), HOURS(1)), MEANS("Between two checks of a backend whose state is settled.")),
    ROW(.key = "fast-interval", .type = OPTION_DURATION, FIELD(config_health, fast_interval), STANDARD("1s"),
        RANGE(MS(10), HOURS(1)), MEANS("The same while its state is changing.")),
    ROW(.key = "timeout", .type = OPTION_DURATION, FIELD(config_health, timeout), STANDARD("10s"),
        RANGE(MS(10), HOURS(1)), MEANS("For a whole check.")),
    ROW(.key = "fall", .type = OPTION_NUMBER, FIELD(config_health, fall), STANDARD("3"), RANGE(1, 100),
        MEANS("Failed checks in a row that take a backend out.")),
    ROW(.key = "rise", .type = OPTION_NUMBER, FIELD(config_health, rise), STANDARD("2"), RANGE(1, 100),
        MEANS("Passed checks in a row that bring it back.")),
    ROW(.key = "depth", .type = OPTION_CHOICE, FIELD(config_health, depth), STANDARD("ehlo"),
        .choices = depths,
        MEANS("How far a check goes before it says QUIT. `ehlo` includes the pool's TLS, as for mail; "
              "`starttls` demands it where the pool's `tls` is `opportunistic`. `envelope` begins a "
              "transaction too, and resets it: for relays that greet all and take mail from nobody.")),
    ROW(.key = "sender", .type = OPTION_MAILBOX, FIELD(config_health, sender), STANDARD("\"\""),
        MEANS("With depth `envelope`: who the check says MAIL FROM for. Empty: the null sender, `<>`.")),
    ROW(.key = "recipient", .type = OPTION_MAILBOX, FIELD(config_health, recipient), STANDARD("\"\""),
        MEANS("With depth `envelope`: whom it says RCPT TO for, before RSET. Empty: nobody.")),
};
static const struct section health_section =
    SECTION("pools.NAME.health", health_options, sizeof(struct config_health));

static const struct option backend_options[] = {
    ROW(.key = "address", .type = OPTION_BACKEND_ADDRESS, FIELD(config_backend, address), .required = true,
        MEANS(
            "The relay: an address or a host name, with its port. A name with several addresses makes one "
            "backend of each, `relay@192.0.2.1`; all other options then count for each. It is resolved "
            "again by its TTL (5 s to 5 min), or every 5 s while checks of it fail: what is added starts "
            "slowly, from what is gone sessions part between two messages, and while there is no answer the "
            "last one holds. At most 64, the lowest.")),
    ROW(.key = "weight", .type = OPTION_NUMBER, FIELD(config_backend, weight), STANDARD("1"), RANGE(0, 1000),
        MEANS("Its share beside the others'. 0: nothing new.")),
    ROW(.key = "max-connections", .type = OPTION_NUMBER, FIELD(config_backend, max_connections),
        STANDARD("0"), RANGE(0, 1000000), MEANS("Never more than this at a time. 0: no limit.")),
    ROW(.key = "priority", .type = OPTION_NUMBER, FIELD(config_backend, priority), STANDARD("0"),
        RANGE(0, 255), MEANS("Tier: 0 first, the next one when too little of it is usable.")),
    ROW(.key = "tls-name", .type = OPTION_TLS_NAME, FIELD(config_backend, tls_name), STANDARD("\"\""),
        MEANS("The name that its certificate must carry, also sent to it as SNI. Empty: the host name or "
              "address as written in `address`.")),
    ROW(.key = "agent", .type = OPTION_AGENT, FIELD(config_backend, agent.text), STANDARD("\"\""),
        MEANS(
            "Who is asked, at the pool's `health` `interval`, how much the relay can take: `host:port` of a "
            "program that speaks HAProxy's agent-check (docs/agent.md). A port alone: at the relay's own "
            "address. Empty: nobody.")),
};
const struct section option_backend =
    SECTION("pools.NAME.backends.NAME", backend_options, sizeof(struct config_backend));

static const struct option pool_options[] = {
    ROW(.key = "algorithm", .type = OPTION_CHOICE, FIELD(config_pool, algorithm),
        STANDARD("least-connections"), .choices = algorithms, MEANS("Who gets the next session.")),
    LATER_CHOICE("mode", "Who keeps a backend for how long.", WORDS("session", "transaction"), "session"),
    ROW(.key = "identity", .type = OPTION_CHOICE, FIELD(config_pool, identity), STANDARD("none"),
        .choices = identities,
        MEANS("How backends learn who the client is. `proxy-v1`, `proxy-v2`: a header in front of every "
              "connection, which the backend must expect. `xclient`: the backend treats the session as the "
              "client's own. `xforward`: for its log only.")),
    ROW(.key = "tls", .type = OPTION_CHOICE, FIELD(config_pool, tls), STANDARD("off"), .choices = pool_tls,
        MEANS("TLS towards backends. `opportunistic`: STARTTLS where it is offered, with any certificate, "
              "and in "
              "the clear where that fails; `require`: STARTTLS or no mail, with any certificate; `verify`: "
              "with "
              "a certificate that `ca` vouches for and that carries `tls-name`. `implicit` and "
              "`implicit-verify`: like the last two, but TLS from the first octet.")),
    ROW(.key = "ca", .type = OPTION_PATH, FIELD(config_pool, ca), STANDARD("\"\""),
        MEANS("A PEM file of the authorities for `verify` and `implicit-verify`. Empty: the system's.")),
    ROW(.key = "source", .type = OPTION_SOURCE, FIELD(config_pool, source), STANDARD("\"\""),
        MEANS("The address to connect from, without a port. Empty: the kernel chooses.")),
    ROW(.key = "queue-size", .type = OPTION_NUMBER, FIELD(config_pool, queue_size), STANDARD("200"),
        RANGE(0, 1000000),
        MEANS("Sessions that may wait for a place; more hear 421 at once. In a full queue a client with "
              "over a quarter of the seats loses them to others.")),
    ROW(.key = "queue-timeout", .type = OPTION_DURATION, FIELD(config_pool, queue_timeout), STANDARD("10s"),
        RANGE(0, HOURS(1)),
        MEANS("After this long in the queue, or in wait for its turn to try another relay, a session hears "
              "421. While nobody gets a place within a second, newcomers wait for 2s only.")),
    ROW(.key = "max-share-per-client", .type = OPTION_PERCENT, FIELD(config_pool, max_share_per_client),
        STANDARD("100%"), RANGE(1, 100),
        MEANS("A client with this much of the pool's places gets no more while others wait. What nobody else "
              "can use it gets all the same.")),
    ROW(.key = "slow-start", .type = OPTION_DURATION, FIELD(config_pool, slow_start), STANDARD("60s"),
        RANGE(0, HOURS(1)), MEANS("A backend that comes back gets its full share after this long.")),
    ROW(.key = "adaptive-limit", .type = OPTION_CHOICE, FIELD(config_pool, adaptive_limit), STANDARD("on"),
        .choices = adaptive_limits,
        MEANS("A limit per backend that falls while its replies to MAIL and RCPT take much longer than usual "
              "or it says that it can't take mail now, and grows again. `observe`: only log and show what it "
              "would be. With `off` too a backend that says 421 gets fewer connections.")),
    LATER("idle-connections", "Per worker and backend, with mode `transaction`."),
    LATER("idle-timeout", "Of such a connection."),
    LATER("replay-buffer", "Of a body, so that a transaction can move to another backend."),
    ROW(.key = "connect-timeout", .type = OPTION_DURATION, FIELD(config_pool, connect_timeout),
        STANDARD("5s"), RANGE(MS(10), MINUTES(5)), MEANS("For the connection to a backend.")),
    ROW(.key = "health", .type = OPTION_SECTION, FIELD(config_pool, health), .section = &health_section,
        MEANS("How backends are checked.")),
    ROW(.key = "backends", .type = OPTION_BACKENDS, COUNTED(config_pool, backends), RANGE(1, 4096),
        .required = true, .section = &option_backend,
        MEANS("The relays, by name. A name is one relay in the whole file: where another pool describes it, "
              "the name with "
              "nothing behind it (or a list of names) puts the same one into this pool too.")),
};
const struct section option_pool = SECTION("pools.NAME", pool_options, sizeof(struct config_pool));

static const struct option redis_options[] = {
    ROW(.key = "url", .type = OPTION_REDIS_URL, FIELD(config_redis, url), STANDARD("\"\""),
        MEANS("Where it is: `redis://host[:port][/db]`, `rediss://` the same over TLS, "
              "`unix:/path[?db=N]`, `sentinel://host[:port],host/name[/db]`, `cluster://host[:port],host`; "
              "the last two with `?tls=on` over TLS. `user:password@` or `:password@` in front of the host, "
              "with %XX for what is neither letter nor digit. Empty: no Redis.")),
    ROW(.key = "farm", .type = OPTION_NAME, FIELD(config_redis, farm), STANDARD("main"),
        MEANS("Instances of the same name share their counters; it stands in every key.")),
    ROW(.key = "publish-interval", .type = OPTION_DURATION, FIELD(config_redis, publish_interval),
        STANDARD("250ms"), RANGE(MS(35), MINUTES(1)),
        MEANS("The least time between two reports of this instance's counts.")),
    ROW(.key = "lease", .type = OPTION_DURATION, FIELD(config_redis, lease), STANDARD("3s"),
        RANGE(MS(500), MINUTES(10)),
        MEANS("An instance that is silent for so long counts nothing; at least four times "
              "`publish-interval`.")),
    ROW(.key = "expected-instances", .type = OPTION_NUMBER, FIELD(config_redis, expected_instances),
        STANDARD("1"), RANGE(1, 1000),
        MEANS("Divides the caps of an instance that starts while Redis is away.")),
    ROW(.key = "ca", .type = OPTION_PATH, FIELD(config_redis, ca), STANDARD("\"\""),
        MEANS("A PEM file of the authorities that vouch for its certificate, which is always verified. "
              "Empty: the system's.")),
};
static const struct section redis_section = SECTION("redis", redis_options, sizeof(struct config_redis));

static const struct option limit_options[] = {
    ROW(.key = "by", .type = OPTION_CHOICE, FIELD(config_limit, by), .choices = limit_bys, .required = true,
        MEANS(
            "Whose mail is counted together. `client`: of one address, IPv6 of one /64, all of Unix sockets; "
            "`user`: of one who has authenticated, or whom XCLIENT names as LOGIN, and nobody else's; "
            "`sender-domain`: with one domain in MAIL FROM, in either case; the null sender is not "
            "counted.")),
    ROW(.key = "messages", .type = OPTION_RATE, FIELD(config_limit, messages), RANGE(1, 1000000000),
        MEANS(
            "So many in a period, from 1 to 1000000000 in 1s to 720h, at most 1000000 a second. A MAIL "
            "beyond "
            "hears 450 and when to come again. The allowance comes back evenly; after a quiet period all of "
            "it may be used at once.")),
    ROW(.key = "recipients", .type = OPTION_RATE, FIELD(config_limit, recipients), RANGE(1, 1000000000),
        MEANS("The same of recipients: RCPT hears 450, and the message goes to the others.")),
    ROW(.key = "listeners", .type = OPTION_LISTENERS, COUNTED(config_limit, listeners), RANGE(0, 256),
        STANDARD("[]"), MEANS("The listeners that the rule counts at, together. Empty: all.")),
};
const struct section option_limit = SECTION("limits.NAME", limit_options, sizeof(struct config_limit));

static const struct option http_options[] = {
    ROW(.key = "address", .type = OPTION_HTTP_ADDRESS, FIELD(config, http_address),
        STANDARD("127.0.0.1:9925"), MEANS("`/metrics`, `/healthz`, `/readyz`. Empty: none.")),
};
static const struct section http_section = SECTION("http", http_options, sizeof(struct config));

static const struct option file_options[] = {
    ROW(.key = "hostname", .type = OPTION_HOSTNAME, FIELD(config, hostname), STANDARD("\"\""),
        MEANS("In the banner and in EHLO to backends. Empty: the host's own name.")),
    ROW(.key = "workers", .type = OPTION_NUMBER, FIELD(config, workers), STANDARD("0"), RANGE(0, 256),
        MEANS("Threads. 0: one per CPU.")),
    ROW(.key = "user", .type = OPTION_TEXT, FIELD(config, user), STANDARD("\"\""),
        MEANS("Drop to this user once the sockets are bound. Empty: stay.")),
    ROW(.key = "control", .type = OPTION_CONTROL, FIELD(config, control_address),
        STANDARD("/run/weir/weir.sock"),
        MEANS("The Unix socket that `weirctl` speaks to: who may connect to it may give orders, so it is "
              "`user`'s with mode 0660. Empty: none. Where nothing is said and the default can't be had, "
              "Weir warns and goes on without.")),
    ROW(.key = "nameservers", .type = OPTION_NAMESERVERS, COUNTED(config, nameservers), RANGE(0, 16),
        STANDARD("[]"),
        MEANS("Who is asked where backends are that stand here by name; one or a list of IP addresses, with "
              "`:port` if it is not 53. `/etc/hosts` goes first. Empty: the system's, of "
              "`/etc/resolv.conf`, which a reload reads again.")),
    ROW(.key = "drain-grace", .type = OPTION_DURATION, FIELD(config, drain_grace), STANDARD("0s"),
        RANGE(0, HOURS(1)), MEANS("On TERM: this long `/readyz` says 503 while all is served as before.")),
    ROW(.key = "drain-timeout", .type = OPTION_DURATION, FIELD(config, drain_timeout), STANDARD("30s"),
        RANGE(0, HOURS(24)), MEANS("Then sessions have this long to end.")),
    ROW(.key = "log", .type = OPTION_SECTION, FIELD(config, log), .section = &log_section, MEANS("The log.")),
    ROW(.key = "listeners", .type = OPTION_NAMED, COUNTED(config, listeners), RANGE(1, 256), .required = true,
        .section = &option_listener, MEANS("Where mail comes in, by name.")),
    ROW(.key = "pools", .type = OPTION_NAMED, COUNTED(config, pools), RANGE(1, 256), .required = true,
        .section = &option_pool, MEANS("Where it goes, by name.")),
    ROW(.key = "redis", .type = OPTION_SECTION, FIELD(config, redis), .section = &redis_section,
        MEANS("Counters shared by several instances.")),
    ROW(.key = "limits", .type = OPTION_NAMED, COUNTED(config, limits), RANGE(0, 16),
        .section = &option_limit,
        MEANS(
            "How much mail one may send, by name of the rule: mail must be within each rule that counts it. "
            "More in [limits.md](limits.md).")),
    /* Its one field is two in struct config, so the section is the file's own struct. */
    ROW(.key = "http", .type = OPTION_SECTION, .offset = 0, .section = &http_section,
        MEANS("The HTTP side.")),
};
const struct section option_file = SECTION("", file_options, sizeof(struct config));

static_assert(sizeof listener_options / sizeof *listener_options <= SECTION_OPTIONS_MAX,
              "the largest section");

const struct option *option_find(const struct section *section, const char *key)
{
    for (size_t i = 0; i < section->n_options; i++)
        if (strcmp(section->options[i].key, key) == 0)
            return &section->options[i];
    return NULL;
}

/* A list whose elements own their text. */
static bool is_texts(const struct option *option)
{
    return option->type == OPTION_PATHS || option->type == OPTION_USERS || option->type == OPTION_DOMAINS ||
           option->type == OPTION_LISTENERS;
}

bool option_is_list(const struct option *option)
{
    return option->type == OPTION_ADDRESSES || option->type == OPTION_NAMESERVERS ||
           option->type == OPTION_NETWORKS || is_texts(option);
}

/* A default is written in the table as in the file: a list in brackets, its words perhaps in quotes. */
static void set_default(const struct option *option, void *object)
{
    char error[VALUE_ERROR_MAX];
    char *field = (char *)object + option->offset;
    bool list = option_is_list(option);
    char *copy = memory_text(option->default_text), *rest = copy;
    size_t n = 0, size = list ? value_element_size(option->type) : 0;
    char *array = NULL;
    const char *word = strtok_r(copy, "[\", ]", &rest);
    if (!list && !value_read(option, field, word ? word : "", error))
        abort(); /* the table contradicts itself; any test meets this */
    for (; list && word; word = strtok_r(NULL, "[\", ]", &rest)) {
        array = memory_resize(array, n + 1, size);
        memset(array + n * size, 0, size);
        if (!value_read(option, array + n * size, word, error))
            abort();
        n++;
    }
    if (list) {
        *(void **)field = array;
        *(size_t *)((char *)object + option->count) = n;
    }
    free(copy);
}

void option_defaults(const struct section *section, void *object)
{
    for (size_t i = 0; i < section->n_options; i++) {
        const struct option *option = &section->options[i];
        if (option->type == OPTION_SECTION)
            option_defaults(option->section, (char *)object + option->offset);
        else if (option->default_text && option->type != OPTION_LIST) /* that is empty as it is */
            set_default(option, object);
    }
}

void option_free(const struct section *section, void *object)
{
    for (size_t i = 0; i < section->n_options; i++) {
        const struct option *option = &section->options[i];
        if (option->offset == OPTION_NO_FIELD)
            continue;
        char *field = (char *)object + option->offset;
        if (option->type == OPTION_SECTION) {
            option_free(option->section, field);
        } else if (option->type == OPTION_NAMED || option->type == OPTION_LIST) {
            char *array = *(char **)field;
            size_t n = *(size_t *)((char *)object + option->count), size = option->section->size;
            for (size_t k = 0; k < n; k++) {
                if (option->type == OPTION_NAMED)
                    free(*(char **)(array + k * size)); /* the name */
                option_free(option->section, array + k * size);
            }
            free(array);
        } else if (is_texts(option)) {
            char **texts = *(char ***)field;
            for (size_t k = 0; k < *(size_t *)((char *)object + option->count); k++)
                free(texts[k]);
            free(texts);
        } else {
            value_free(option->type, field);
        }
    }
}
