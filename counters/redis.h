/*
 * A connection to Redis, on the loop of the thread that opens it (the control thread). It never blocks, comes
 * back by itself when it is lost, and nothing that a server does or fails to do can hurt more than it.
 *
 *     publisher, resync ──commands──▶ redis ──net/stream──▶ server
 *           ▲──────── callbacks, in order ──┘  └── messages of one channel, where it is a subscriber
 *
 *     CONNECTING ──▶ READY ──▶ DOWN ──▶ READY …     told to handler->state, each with its reason
 *
 * An answer that is outstanding for 500 ms, more than 8 MiB unsent, garbage, and an answer that says the
 * server is of no use (NOAUTH, LOADING, READONLY, MASTERDOWN, CLUSTERDOWN) close the connection. The next
 * attempt follows after 100 ms, 200 ms … 5 s, ± 50 %; from the beginning after a connection that held for 5
 * s.
 *
 * With sentinels, each is asked in turn for the master, which must say so itself (ROLE). With a cluster,
 * the node is the one that holds `key`: MOVED is followed, what got it is sent once more there, and what got
 * ASK is sent to the other node on a connection of its own. RESP2 is spoken, never HELLO.
 */
#ifndef WEIR_COUNTERS_REDIS_H
#define WEIR_COUNTERS_REDIS_H

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>

#include "config/redis_url.h"
#include "counters/resp.h"
#include "net/tls.h"

#define REDIS_ANSWER_LIMIT  500       /* ms until an answer must have come whole */
#define REDIS_CONNECT_LIMIT 2000      /* ms for the connection, the TLS handshake included */
#define REDIS_RESOLVE_LIMIT 5000      /* ms for its name */
#define REDIS_UNSENT_MAX    (8 << 20) /* octets: a report with as many backends as there may be */
#define REDIS_REASON_MAX    192

enum redis_state {
    REDIS_CONNECTING, /* the first attempt, or on the way to another node of a cluster */
    REDIS_READY,
    REDIS_DOWN, /* tries again by itself */
};

struct redis;

struct redis_settings {
    const struct redis_url *url;  /* copied */
    const struct tls_client *tls; /* used where url->tls; must outlive the connection */
    const char *name;             /* for CLIENT SETNAME: no blanks; copied */
    const char *key;              /* any key of the farm, by which a cluster's node is found; copied */
    const char *channel;          /* subscribe to this, and take no commands; NULL: a connection for commands;
                                     copied */
    const char *nameservers;      /* as resolver_open() takes them; must outlive the connection */
    uint32_t answer_limit;        /* ms until an answer must have come whole; 0: REDIS_ANSWER_LIMIT */
};

/* All are called from the loop, and may free the connection. */
struct redis_handler {
    /* The state has changed, or the reason why it is DOWN: the same one is told once, however many attempts
     * meet it. What `reason` quotes of a server is as it came: log_text() escapes it. Passwords are taken
     * out. "" when READY. */
    void (*state)(void *arg, enum redis_state state, const char *reason);
    /* What was published on the channel. NULL in a connection for commands. */
    void (*message)(void *arg, const char *text, size_t size);
    void *arg;
};

/* One of `reply` and `error` is NULL. `reply` may be of RESP_ERROR; it is gone after the call. An `error`
 * says why none came: whether the command was carried out is then unknown. */
typedef void redis_callback(void *arg, const struct resp *reply, const char *error);

/* NULL: out of memory. Nothing is called out of it. */
struct redis *redis_open(struct ev_loop *loop, const struct redis_settings *settings,
                         const struct redis_handler *handler);
/* No callback comes after this. Clears the caller's pointer; NULL is fine. */
void redis_free(struct redis **redis);

enum redis_state redis_state(const struct redis *redis);
/* Which server the state is about: "host:port", or the path of a socket. The connection's. */
const char *redis_server(const struct redis *redis);
/* Calls of redis_send() that are not answered yet. */
size_t redis_outstanding(const struct redis *redis);

/* Send one command, or several as a transaction (MULTI and EXEC are put around them). Its callback, which may
 * be NULL, gets the reply, of a transaction that to EXEC, or the first refusal among its commands. The
 * commands are copied. False: nothing will be sent and the callback will not come, because the connection is
 * not READY, the output is full (it is closed then), memory is out, or `commands` failed or are none. */
bool redis_send(struct redis *redis, const struct resp_commands *commands, redis_callback *callback,
                void *arg);

#endif
