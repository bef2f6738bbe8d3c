/*
 * Where Redis is, as one text:
 *
 *     redis://[[user]:password@]host[:port][/db]          rediss:// the same over TLS
 *     unix:[[user]:password@]/path[?db=N]
 *     sentinel://[[user]:password@]host[:port][,host[:port]]…/name[/db]
 *     cluster://[[user]:password@]host[:port][,host[:port]]…
 *
 * User and password are for the Redis servers (and for sentinels that ask for a password), %XX in them stands
 * for an octet. One word without a colon before the @ is the password too. With ?tls=on behind them
 * sentinel:// and cluster:// speak TLS. Ports: 6379, of a sentinel 26379.
 */
#ifndef WEIR_CONFIG_REDIS_URL_H
#define WEIR_CONFIG_REDIS_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REDIS_URL_HOSTS_MAX  16
#define REDIS_URL_HOST_MAX   256 /* with its NUL, as the next two */
#define REDIS_URL_SECRET_MAX 512
#define REDIS_URL_NAME_MAX   128
#define REDIS_URL_PATH_MAX   108 /* a Unix socket's */
#define REDIS_URL_TEXT_MAX   4608

enum redis_url_kind { REDIS_URL_TCP, REDIS_URL_UNIX, REDIS_URL_SENTINEL, REDIS_URL_CLUSTER };

struct redis_url_host {
    char name[REDIS_URL_HOST_MAX]; /* a host name, or an IP address without brackets */
    uint16_t port;
};

struct redis_url {
    enum redis_url_kind kind;
    bool tls;
    size_t n_hosts; /* 0 with a Unix socket, 1 with TCP */
    struct redis_url_host hosts[REDIS_URL_HOSTS_MAX];
    char path[REDIS_URL_PATH_MAX];
    char master[REDIS_URL_NAME_MAX];                                 /* what the sentinels call it */
    char user[REDIS_URL_SECRET_MAX], password[REDIS_URL_SECRET_MAX]; /* "": none */
    uint32_t database;
};

/* False with *error, which is static and holds nothing of the text: "a port from 1 to 65535". */
bool redis_url_parse(const char *text, struct redis_url *out, const char **error);
/* Read "host:port", "[IPv6]:port" or "IPv6:port", as servers name each other. */
bool redis_url_host_parse(const char *text, size_t size, struct redis_url_host *out);
/* As it may be shown to anybody: without user and password. Returns `text`. */
const char *redis_url_show(const struct redis_url *url, char text[REDIS_URL_TEXT_MAX]);
/* "host:port", an IPv6 address in brackets. Returns `text`. */
const char *redis_url_host_show(const struct redis_url_host *host, char text[REDIS_URL_HOST_MAX + 8]);
/* Overwrite the password. */
void redis_url_wipe(struct redis_url *url);

#endif
