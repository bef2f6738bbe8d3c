/*
 * Redis Cluster, as far as one slot needs it: all keys of a farm carry the same hash tag.
 *
 * A node that does not hold the slot says MOVED, and the connection moves there for good. While a slot is on
 * its way, the old node says ASK of keys that have gone: such requests are carried to the other node, each
 * behind ASKING, on a connection that lasts as long as there are any; the rest stays where it was.
 */
#include <stdlib.h>
#include <string.h>

#include "counters/redis_internal.h"

#define SLOTS 16384

unsigned redis_slot(const char *key)
{
    const char *open = strchr(key, '{'), *close = open ? strchr(open + 1, '}') : NULL;
    size_t size = strlen(key);
    unsigned crc = 0;

    if (close && close > open + 1) {
        key = open + 1;
        size = (size_t)(close - key);
    }
    /* CRC16 of XMODEM: polynomial 0x1021, nothing inverted. */
    for (size_t i = 0; i < size; i++) {
        crc ^= (unsigned)(unsigned char)key[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 0x8000 ? (crc << 1 ^ 0x1021) & 0xffff : crc << 1;
    }
    return crc % SLOTS;
}

/* --- nodes ---------------------------------------------------------------------------------------------- */

/* [host, port, id, …] */
static void remember_node(struct redis *redis, const struct resp *node)
{
    struct redis_url_host *host = &redis->nodes[redis->n_nodes];
    const struct resp *name = node->elements;

    if (redis->n_nodes == REDIS_NODES_MAX || node->type != RESP_ARRAY || node->n < 2)
        return;
    if (name[0].type != RESP_TEXT || name[0].size == 0 || name[0].size >= sizeof host->name ||
        name[1].type != RESP_INTEGER || name[1].integer < 1 || name[1].integer > 65535)
        return;
    memcpy(host->name, name[0].text, name[0].size + 1);
    host->port = (uint16_t)name[1].integer;
    redis->n_nodes++;
}

void redis_remember_nodes(struct redis *redis, const struct resp *reply)
{
    int64_t slot = redis_slot(redis->key);

    if (reply->type != RESP_ARRAY)
        return;
    redis->n_nodes = 0;
    for (size_t i = 0; i < reply->n; i++) {
        const struct resp *range = &reply->elements[i]; /* [first, last, node, node …] */

        if (range->type != RESP_ARRAY || range->n < 3 || range->elements[0].type != RESP_INTEGER ||
            range->elements[1].type != RESP_INTEGER)
            continue;
        if (slot < range->elements[0].integer || slot > range->elements[1].integer)
            continue;
        for (size_t k = 2; k < range->n; k++)
            remember_node(redis, &range->elements[k]);
    }
}

/* The last word of "MOVED 3999 127.0.0.1:6381"; without a host, the one that said it. */
static bool read_redirection(const struct redis *redis, const struct resp *reply, struct redis_url_host *out)
{
    const char *where = strrchr(reply->text, ' ');
    char text[REDIS_URL_HOST_MAX + 8];
    size_t size;

    if (!where++)
        return false;
    if (*where != ':')
        return redis_url_host_parse(where, strlen(where), out);
    size = strlen(where);
    if (strlen(redis->target.name) + size >= sizeof text)
        return false;
    memcpy(stpcpy(text, redis->target.name), where, size + 1);
    return redis_url_host_parse(text, strlen(text), out);
}

/* --- MOVED ---------------------------------------------------------------------------------------------- */

/* The request can't follow. */
static void leave_behind(struct redis_request *request, const struct resp *reply)
{
    if (request->own)
        free(request);
    else
        redis_tell(request, reply, NULL);
}

void redis_moved(struct redis *redis, struct redis_request *request, const struct resp *reply)
{
    struct redis_url_host to;
    uint64_t serial = redis->serial;
    bool good = read_redirection(redis, reply, &to);

    if (good && redis->redirections++ < REDIS_REDIRECTIONS_MAX) {
        if (redis->stage == REDIS_STAGE_READY)
            redis->tries = 0; /* should it not be there, all others are asked */
        redis->target = to;
        if (request->own || request->sendings >= REDIS_SENDINGS_MAX) {
            leave_behind(request, reply);
        } else {
            request->next = redis->again;
            redis->again = request;
        }
        if (!redis->freed && redis->serial == serial)
            redis_redirect(redis, "the slot has moved");
        return;
    }
    leave_behind(request, reply);
    if (!redis->freed && redis->serial == serial)
        redis_fail(redis, good ? "one node names the other" : "MOVED to nowhere");
}

/* --- ASK ------------------------------------------------------------------------------------------------ */

/* The first of them is answered. */
static void on_carried(void *arg, const struct resp *reply, const char *error)
{
    struct redis *redis = arg;
    struct redis_request *request = redis->asked;

    redis_enter(redis);
    redis->asked = request->next;
    if (!redis->asked)
        redis_free(&redis->aside);
    redis_tell(request, reply, error);
    redis_leave(redis);
}

/* None of them will be. */
static void carry_failed(struct redis *redis, const char *reason)
{
    struct redis_request *list = redis->asked;

    redis_enter(redis);
    redis->asked = NULL;
    redis_free(&redis->aside);
    redis_bury(redis, list, reason);
    redis_leave(redis);
}

static bool put_aside(struct redis *redis, const struct redis_request *request)
{
    struct resp_commands asking = { .n = 0 };
    struct redis_request like = *request;

    resp_commands_say(&asking, "ASKING");
    redis_ask(redis->aside, NULL, &asking);
    resp_commands_free(&asking);
    like.callback = on_carried;
    like.arg = redis;
    return redis_put(redis->aside, &like, request->octets, request->size);
}

static void on_aside_state(void *arg, enum redis_state state, const char *reason)
{
    struct redis *redis = arg;
    bool good = true;

    switch (state) {
    case REDIS_CONNECTING: break;
    case REDIS_DOWN: carry_failed(redis, reason); break;
    case REDIS_READY:
        for (struct redis_request *request = redis->asked; good && request; request = request->next)
            good = put_aside(redis, request);
        if (!good)
            carry_failed(redis, "out of memory");
        break;
    }
}

static void open_aside(struct redis *redis, const struct redis_url_host *to)
{
    struct redis_url url = redis->url;
    const struct redis_settings settings = { .url = &url,
                                             .tls = redis->tls,
                                             .name = redis->name,
                                             .key = redis->key,
                                             .nameservers = redis->nameservers,
                                             .answer_limit = redis->answer_limit };
    const struct redis_handler handler = { .state = on_aside_state, .arg = redis };

    url.kind = REDIS_URL_TCP;
    url.n_hosts = 1;
    url.hosts[0] = *to;
    redis->aside = redis_open(redis->loop, &settings, &handler);
    redis_url_wipe(&url);
}

/* There is one node that the slot goes to; whoever names another meanwhile is not followed. */
static bool is_aside(const struct redis *redis, const struct redis_url_host *to)
{
    const struct redis_url_host *host = redis->aside ? &redis->aside->url.hosts[0] : NULL;

    return host && host->port == to->port && strcmp(host->name, to->name) == 0;
}

void redis_carry(struct redis *redis, struct redis_request *request, const struct resp *reply)
{
    struct redis_request **end = &redis->asked;
    struct redis_url_host to;
    bool good = read_redirection(redis, reply, &to);

    if (good && !redis->aside)
        open_aside(redis, &to);
    if (!good || !is_aside(redis, &to)) {
        redis_tell(request, reply, NULL);
        return;
    }
    while (*end)
        end = &(*end)->next;
    *end = request;
    request->next = NULL;
    if (redis->aside->stage == REDIS_STAGE_READY && !put_aside(redis, request))
        carry_failed(redis, "out of memory");
}

void redis_carry_end(struct redis *redis)
{
    struct redis_request *list = redis->asked;

    redis_free(&redis->aside);
    redis->asked = NULL;
    redis_bury(redis, list, NULL);
}
