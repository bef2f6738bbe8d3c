/*
 * What the parts of a connection know of each other.
 *
 *     redis.c          the connection as others see it: states, requests and their replies, the timer
 *     redis_connect.c  an attempt: which host, its addresses, TLS, the greeting, sentinels
 *     redis_cluster.c  slots, MOVED, ASK
 *
 * Whatever the loop calls is between redis_enter() and redis_leave(): a handler or callback that frees the
 * connection only closes it, and the memory goes in redis_leave(). Behind each call of one, `freed` is to be
 * looked at, and `serial` tells whether the connection is still the same.
 */
#ifndef WEIR_COUNTERS_REDIS_INTERNAL_H
#define WEIR_COUNTERS_REDIS_INTERNAL_H

#include <stdint.h>

#include "counters/redis.h"
#include "net/resolver.h"
#include "net/stream.h"

#define REDIS_ADDRESSES_MAX    8 /* of one host that are tried */
#define REDIS_NODES_MAX        8 /* of a slot that are remembered */
#define REDIS_REDIRECTIONS_MAX 5 /* on the way to READY */
#define REDIS_SENDINGS_MAX     3 /* of one request */

enum redis_stage {
    REDIS_STAGE_WAITING, /* for the next attempt; the timer: to begin it */
    REDIS_STAGE_RESOLVING,
    REDIS_STAGE_CONNECTING, /* TLS included */
    REDIS_STAGE_GREETING,   /* the timer, here and in READY: an answer that is late */
    REDIS_STAGE_READY,
};

struct redis_request {
    struct redis_request *next;
    redis_callback *callback;
    void *arg;
    bool own; /* the connection's own: nobody is told that it failed */
    bool transaction;
    unsigned answers; /* to all of its commands */
    unsigned replies; /* that are still to come */
    unsigned sendings;
    int64_t sent;                   /* ms, monotonic */
    char refusal[REDIS_REASON_MAX]; /* the first error among a transaction's commands; "": none so far */
    size_t size;
    char octets[]; /* with a cluster only: to be sent again */
};

struct redis {
    struct stream stream; /* first: the stream's handler finds the connection by it */
    struct ev_loop *loop;
    ev_timer timer;
    struct redis_handler handler;
    struct redis_url url;
    const struct tls_client *tls;
    char *name, *key, *channel; /* channel NULL: for commands */
    const char *nameservers;
    uint32_t answer_limit;
    uint64_t random;

    enum redis_state state;
    enum redis_stage stage;
    char reason[REDIS_REASON_MAX];
    const char *doom; /* why the timer is to close it; NULL: it is not */
    unsigned depth;   /* of redis_enter() */
    bool freed;
    uint64_t serial;     /* of the connection: one more with each end */
    unsigned failures;   /* in a row: the exponent of the delay */
    int64_t ready_since; /* ms, monotonic, as the next */
    int64_t heard;

    /* This attempt. */
    size_t host, tries;           /* the next of url.hosts, and how many were tried, known nodes included */
    struct redis_url_host target; /* none with a Unix socket */
    bool asks_sentinel;           /* it is a sentinel */
    bool sentinel_authenticated;
    unsigned redirections;
    struct resolver *resolver;
    size_t n_addresses, next_address;
    struct address addresses[REDIS_ADDRESSES_MAX];
    char server[REDIS_URL_HOST_MAX + 8];
    bool answered;                /* the address that is tried now has said something */
    bool reached;                 /* at one that was tried before somebody was there */
    char fault[REDIS_REASON_MAX]; /* what is to be told of those; "": none was tried */

    size_t n_nodes; /* of the farm's slot, as a node told */
    struct redis_url_host nodes[REDIS_NODES_MAX];

    struct resp_reader *reader, *reading;           /* `reading`: it is in use, and not to be freed */
    struct redis_request *requests, **requests_end; /* awaiting replies, in order */
    struct redis_request *again;                    /* to be sent when READY */
    struct redis *aside;                            /* carries `asked` to another node, in order, once each */
    struct redis_request *asked;
};

/* --- redis.c --- */

void redis_enter(struct redis *redis);
void redis_leave(struct redis *redis);
void redis_arm(struct redis *redis, int64_t milliseconds);
/* The connection, or the attempt to make it, has failed. */
void redis_fail(struct redis *redis, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same, with what a server said. */
void redis_refused(struct redis *redis, const struct resp *reply);
/* Close, and go on to redis->target. What is outstanding is not, any more. */
void redis_redirect(struct redis *redis, const char *reason);
/* The greeting has gone out: its answers may be late from now on. */
void redis_connected(struct redis *redis);
/* The greeting is over. */
void redis_ready(struct redis *redis);
/* Send a command of the connection's own. */
void redis_ask(struct redis *redis, redis_callback *callback, const struct resp_commands *command);
/* Send octets that are one request. False: memory or the room for output is out, and nothing was sent. */
bool redis_put(struct redis *redis, const struct redis_request *like, const char *octets, size_t size);
/* Tell what became of a request, and forget it. */
void redis_tell(struct redis_request *request, const struct resp *reply, const char *error);
/* Tell all of a list that no reply will come. */
void redis_bury(struct redis *redis, struct redis_request *list, const char *error);
void redis_on_stream(struct stream *stream, enum stream_event event);
void redis_set_state(struct redis *redis, enum redis_state state, const char *reason);

/* --- redis_connect.c --- */

/* Begin an attempt, with the first host. */
void redis_attempt(struct redis *redis);
/* An address has failed, and the stream is open yet. Of a server's addresses one gets into redis->fault: the
 * first at which somebody was there, or else the first. */
void redis_attempt_note(struct redis *redis, const char *reason);
/* Try what is left of this attempt: the next address, the next host. False: nothing is. */
bool redis_attempt_next(struct redis *redis);
/* Connect to redis->target. */
void redis_approach(struct redis *redis);
/* Octets may be sent: say what is to be said first. */
void redis_greet(struct redis *redis);
/* Forget what the attempt is waiting for. */
void redis_attempt_end(struct redis *redis);

/* --- redis_cluster.c --- */

/* The slot of a key: CRC16 of what is between the first { and the next }, or of all. */
unsigned redis_slot(const char *key);
/* Remember the nodes of the slot, from the reply to CLUSTER SLOTS. */
void redis_remember_nodes(struct redis *redis, const struct resp *reply);
/* A node says MOVED: go there, with the request. The request is taken over. */
void redis_moved(struct redis *redis, struct redis_request *request, const struct resp *reply);
/* A node says ASK: carry the request there. The request is taken over. */
void redis_carry(struct redis *redis, struct redis_request *request, const struct resp *reply);
/* Forget it, and tell nobody. */
void redis_carry_end(struct redis *redis);

#endif
