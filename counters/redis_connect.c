/*
 * An attempt goes over the hosts of the URL, from the one that was good last, and over the addresses of each;
 * with a cluster then over the nodes that were told of. A sentinel is asked for the master, which becomes the
 * target in its place. The first that is greeted well is the connection.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counters/redis_internal.h"

static bool is_unix(const struct redis *redis)
{
    return redis->url.kind == REDIS_URL_UNIX;
}

/* --- who ------------------------------------------------------------------------------------------------ */

static bool next_host(struct redis *redis)
{
    size_t tried = redis->tries, n = redis->url.n_hosts;

    if (is_unix(redis) ? tried > 0 : tried >= n + redis->n_nodes)
        return false;
    if (!is_unix(redis))
        redis->target = tried < n ? redis->url.hosts[(redis->host + tried) % n] : redis->nodes[tried - n];
    redis->tries++;
    redis->asks_sentinel = redis->url.kind == REDIS_URL_SENTINEL;
    redis->sentinel_authenticated = false;
    redis_approach(redis);
    return true;
}

void redis_attempt(struct redis *redis)
{
    redis->tries = 0;
    redis->redirections = 0;
    (void)next_host(redis); /* there is one */
}

/* --- the connection ------------------------------------------------------------------------------------- */

static void connect_next(struct redis *redis)
{
    const struct address *to = &redis->addresses[redis->next_address++];
    int error = stream_connect(&redis->stream, redis->loop, to, NULL, redis_on_stream);

    redis->stage = REDIS_STAGE_CONNECTING;
    redis->answered = false;
    if (error != 0) {
        stream_init(&redis->stream);
        redis_fail(redis, "%s", error == -ECONNREFUSED ? "connection refused" : strerrordesc_np(-error));
        return;
    }
    redis->stream.secrets = *redis->url.password;
    redis->reader = resp_reader_create();
    redis_arm(redis, REDIS_CONNECT_LIMIT);
    if (!redis->reader ||
        (redis->tls && stream_connect_tls(&redis->stream, redis->tls, redis->target.name, NULL) != 0)) {
        redis_fail(redis, "out of memory");
        return;
    }
    if (redis->tls)
        return;
    /* In the clear it goes out when the connection is there; perhaps it is already. */
    redis_greet(redis);
    if (stream_unsent(&redis->stream) == 0)
        redis_connected(redis);
}

/* Many a localhost is ::1 too: "connection refused" there says nothing about a certificate that is wrong at
 * 127.0.0.1. */
void redis_attempt_note(struct redis *redis, const char *reason)
{
    bool reached = redis->answered || stream_connected(&redis->stream);

    if (*redis->fault && (redis->reached || !reached))
        return;
    redis->reached = reached;
    (void)snprintf(redis->fault, sizeof redis->fault, "%s", reason);
}

bool redis_attempt_next(struct redis *redis)
{
    if (redis->next_address < redis->n_addresses) {
        connect_next(redis);
        return true;
    }
    return next_host(redis);
}

void redis_attempt_end(struct redis *redis)
{
    resolver_close(&redis->resolver);
}

static void on_addresses(void *arg, const char *error, const struct resolver_answer *answer)
{
    struct redis *redis = arg;

    redis_enter(redis);
    if (error) {
        redis_fail(redis, "its name: %s", error);
    } else {
        redis->n_addresses = answer->n < REDIS_ADDRESSES_MAX ? answer->n : REDIS_ADDRESSES_MAX;
        for (size_t i = 0; i < redis->n_addresses; i++) {
            struct address *address = &redis->addresses[i];

            *address = answer->addresses[i];
            if (address->sa.sa_family == AF_INET6)
                address->in6.sin6_port = htons(redis->target.port);
            else
                address->in.sin_port = htons(redis->target.port);
        }
        redis_attempt_end(redis);
        connect_next(redis);
    }
    redis_leave(redis);
}

static void resolve(struct redis *redis)
{
    redis->stage = REDIS_STAGE_RESOLVING;
    redis->resolver = resolver_open(redis->loop, redis->nameservers);
    if (!redis->resolver || !resolver_query(redis->resolver, redis->target.name, on_addresses, redis))
        redis_fail(redis, "out of memory");
    else
        redis_arm(redis, REDIS_RESOLVE_LIMIT);
}

void redis_approach(struct redis *redis)
{
    char text[sizeof redis->server + sizeof "unix:"];
    const char *error;
    uint16_t port;

    redis->n_addresses = redis->next_address = 0;
    redis->answered = redis->reached = false;
    *redis->fault = '\0';
    if (is_unix(redis)) {
        (void)snprintf(redis->server, sizeof redis->server, "%s", redis->url.path);
        (void)snprintf(text, sizeof text, "unix:%s", redis->url.path);
    } else {
        redis_url_host_show(&redis->target, redis->server);
        (void)snprintf(text, sizeof text, "%s", redis->server);
    }
    if (address_parse(text, true, &redis->addresses[0], &port, &error) == ADDRESS_LITERAL) {
        redis->n_addresses = 1;
        connect_next(redis);
    } else {
        resolve(redis);
    }
}

/* --- the greeting --------------------------------------------------------------------------------------- */

/* Each of these gets a reply, never an error: requests of the connection's own are not told of that. */

static void on_required(void *arg, const struct resp *reply, const char *error)
{
    (void)error;
    if (reply->type == RESP_ERROR)
        redis_refused(arg, reply);
}

/* ASK: the key has gone ahead, but the slot is here yet. */
static void on_slot(void *arg, const struct resp *reply, const char *error)
{
    if (resp_fault(reply) != RESP_FAULT_ASK)
        on_required(arg, reply, error);
}

/* What comes last. Whether it is allowed does not matter. */
static void on_named(void *arg, const struct resp *reply, const char *error)
{
    (void)reply;
    (void)error;
    redis_ready(arg);
}

static void on_subscribed(void *arg, const struct resp *reply, const char *error)
{
    (void)error;
    if (reply->type == RESP_ERROR)
        redis_refused(arg, reply);
    else if (reply->type != RESP_ARRAY || reply->n != 3 || !resp_is(&reply->elements[0], "subscribe"))
        redis_fail(arg, "another answer than that to SUBSCRIBE");
    else
        redis_ready(arg);
}

/* A sentinel may be behind the times. Who may not ask believes it. */
static void on_role(void *arg, const struct resp *reply, const char *error)
{
    const struct resp *role = reply->n ? &reply->elements[0] : NULL;

    (void)error;
    if (resp_fault(reply) == RESP_FAULT_PERMISSION)
        return;
    if (reply->type == RESP_ERROR)
        redis_refused(arg, reply);
    else if (!role || role->type != RESP_TEXT)
        redis_fail(arg, "another answer than that to ROLE");
    else if (!resp_is(role, "master"))
        redis_fail(arg, "the sentinel's master is a %.32s", role->text);
}

static void on_slots(void *arg, const struct resp *reply, const char *error)
{
    (void)error;
    redis_remember_nodes(arg, reply);
}

static void say(struct redis *redis, redis_callback *callback, const char *first, const char *second,
                const char *third)
{
    struct resp_commands command = { .n = 0 };

    resp_commands_say(&command, first, second, third);
    redis_ask(redis, callback, &command);
    resp_commands_free(&command);
}

static void say_auth(struct redis *redis, redis_callback *callback)
{
    const struct redis_url *url = &redis->url;

    if (*url->user)
        say(redis, callback, "AUTH", url->user, url->password);
    else if (*url->password)
        say(redis, callback, "AUTH", url->password, NULL);
}

static void greet_server(struct redis *redis)
{
    char database[16];

    say_auth(redis, on_required);
    if (redis->url.database) {
        (void)snprintf(database, sizeof database, "%u", redis->url.database);
        say(redis, on_required, "SELECT", database, NULL);
    }
    if (redis->url.kind == REDIS_URL_SENTINEL)
        say(redis, on_role, "ROLE", NULL, NULL);
    if (redis->url.kind == REDIS_URL_CLUSTER) {
        /* Whether the slot is here; if it is not, the answer is MOVED. */
        say(redis, on_slots, "CLUSTER", "SLOTS", NULL);
        say(redis, on_slot, "EXISTS", redis->key, NULL);
    } else {
        say(redis, on_required, "PING", NULL, NULL);
    }
    say(redis, redis->channel ? NULL : on_named, "CLIENT", "SETNAME", redis->name);
    if (redis->channel)
        say(redis, on_subscribed, "SUBSCRIBE", redis->channel, NULL);
}

/* --- sentinels ------------------------------------------------------------------------------------------ */

static void on_master(void *arg, const struct resp *reply, const char *error);

static void ask_sentinel(struct redis *redis)
{
    say(redis, on_master, "SENTINEL", "get-master-addr-by-name", redis->url.master);
}

/* Two texts: the host and the port. */
static bool read_master(const struct resp *reply, struct redis_url_host *out)
{
    char text[REDIS_URL_HOST_MAX + 8];
    int size;

    if (reply->type != RESP_ARRAY || reply->n != 2 || reply->elements[0].type != RESP_TEXT ||
        reply->elements[1].type != RESP_TEXT)
        return false;
    size = snprintf(text, sizeof text, "%s:%s", reply->elements[0].text, reply->elements[1].text);
    return size < (int)sizeof text && redis_url_host_parse(text, (size_t)size, out);
}

static void on_master(void *arg, const struct resp *reply, const char *error)
{
    struct redis *redis = arg;

    (void)error;
    if (resp_fault(reply) == RESP_FAULT_AUTH && *redis->url.password && !redis->sentinel_authenticated) {
        redis->sentinel_authenticated = true;
        say_auth(redis, on_required);
        ask_sentinel(redis);
    } else if (reply->type == RESP_ERROR) {
        redis_refused(redis, reply);
    } else if (reply->type == RESP_NIL) {
        redis_fail(redis, "a sentinel that knows no master \"%s\"", redis->url.master);
    } else if (!read_master(reply, &redis->target)) {
        redis_fail(redis, "another answer than that of a sentinel");
    } else {
        redis->asks_sentinel = false;
        redis_redirect(redis, "the master has changed");
    }
}

void redis_greet(struct redis *redis)
{
    if (redis->asks_sentinel)
        ask_sentinel(redis);
    else
        greet_server(redis);
}
