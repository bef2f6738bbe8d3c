/*
 * A whole farm by its keys in Redis, answered as one Weir answers over its control socket.
 *
 *   weirctl_farm.c         the connection, commands, operators' words
 *   weirctl_farm_read.c    the keys
 *   weirctl_farm_report.c  what they come to
 *
 * What the keys say is hostile: what is not as a Weir writes it is left out.
 */
#ifndef WEIR_ADMIN_WEIRCTL_FARM_H
#define WEIR_ADMIN_WEIRCTL_FARM_H

#include "admin/weirctl.h"
#include "config/redis_url.h"
#include "counters/redis.h"

#define FARM_NAME_MAX 65 /* as in the configuration, with its NUL */
#define FARM_KEY_MAX  256

struct farm_link {
    struct ev_loop *loop;
    struct redis *redis; /* NULL: to be opened */
    struct redis_url url;
    struct tls_client *tls; /* NULL: none is asked for */
    char farm[FARM_NAME_MAX];
    char server[REDIS_URL_TEXT_MAX]; /* as it may be shown */
    char reason[REDIS_REASON_MAX];   /* why Redis is not there */
    bool was_there;
};

/* Begin to connect. `ca`: a PEM file, "" for the system's. Out of memory, or a `ca` of no use: false, and why
 * in client->error. From then on client_ask() asks the farm. */
bool farm_open(struct client *client, const struct redis_url *url, const char *farm, const char *ca);
void farm_close(struct client *client);
/* As client_ask(). */
json_t *farm_ask(struct client *client, json_t *request);

/* --- between its files --- */

/* "weir:{FARM}:what", or with ":id" behind it. Returns `key`. */
const char *farm_key(const struct farm_link *link, char key[FARM_KEY_MAX], const char *what, const char *id);
/* Send, and go on. False with client->error: Redis is not there. */
bool farm_send(struct client *client, const struct resp_commands *commands, redis_callback *callback,
               void *arg);
/* Until all has been answered. False with client->error: it was not, in time. */
bool farm_settle(struct client *client);

/* What is in the keys, or NULL with client->error:
 *
 *     {"instances": [{"id": "mx1-0badcafe", "last": Unix ms or 0,
 *                     "instance": {"pid": "17", …}, "connections": {…}, "health": {…}, "stats": {…}}, …],
 *      "admin": {"relay1": "drain"}, "totals": {…}, "error": "NOPERM …" if something might not be read}
 *
 * with the texts of the hashes as they are. */
json_t *farm_read(struct client *client);
/* It has published within its lease. */
bool farm_is_alive(const json_t *instance);

/* Results as those of admin/report.h. `keys`: of farm_read(). */
json_t *farm_backends(const json_t *keys);
json_t *farm_instances(const json_t *keys);
json_t *farm_status(const json_t *keys, const struct farm_link *link);
/* What the operators of the farm have said of a backend, by its own name or that of its group; `word` "" and
 * `weight` -1: nothing. */
void farm_words(const json_t *keys, const char *name, const char **word, json_int_t *weight);

#endif
