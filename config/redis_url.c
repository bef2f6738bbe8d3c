#include "config/redis_url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "config/word.h"

#define PORT          6379
#define SENTINEL_PORT 26379
#define DATABASE_MAX  65535 /* far more than a server has */

/* A part of the text. */
struct part {
    const char *text;
    size_t size;
};

static const struct scheme {
    const char *prefix;
    enum redis_url_kind kind;
    bool tls;
} schemes[] = {
    {"redis://",     REDIS_URL_TCP,      false},
    { "rediss://",   REDIS_URL_TCP,      true },
    { "unix:",       REDIS_URL_UNIX,     false},
    { "sentinel://", REDIS_URL_SENTINEL, false},
    { "cluster://",  REDIS_URL_CLUSTER,  false},
};

/* What stands before the first `end`; the rest is behind it. False: there is none, and nothing is taken. */
static bool split(struct part *rest, char end, struct part *before)
{
    const char *at = memchr(rest->text, end, rest->size);

    if (!at)
        return false;
    *before = (struct part){ rest->text, (size_t)(at - rest->text) };
    rest->size -= before->size + 1;
    rest->text = at + 1;
    return true;
}

static bool is(struct part part, const char *word)
{
    return part.size == strlen(word) && memcmp(part.text, word, part.size) == 0;
}

static bool read_number(struct part part, uint32_t max, uint32_t *out)
{
    uint32_t n = 0;

    if (part.size == 0 || part.size > 7)
        return false;
    for (size_t i = 0; i < part.size; i++) {
        if (!isdigit((unsigned char)part.text[i]))
            return false;
        n = 10 * n + (uint32_t)(part.text[i] - '0');
    }
    *out = n;
    return n <= max;
}

static int hex(char c)
{
    return isdigit((unsigned char)c)    ? c - '0'
           : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10
                                        : -1;
}

/* A user or password, %XX decoded; no NUL may come out. */
static bool decode(struct part part, char *out, size_t max)
{
    size_t n = 0;

    for (size_t i = 0; i < part.size; i++) {
        int c = (unsigned char)part.text[i];

        if (c == '%') {
            int high = i + 2 < part.size ? hex(part.text[i + 1]) : -1;
            int low = high >= 0 ? hex(part.text[i + 2]) : -1;

            if (low < 0 || (high | low) == 0)
                return false;
            c = high * 16 + low;
            i += 2;
        }
        if (n + 1 >= max)
            return false;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return true;
}

static bool read_credentials(struct part part, struct redis_url *out, const char **error)
{
    struct part user;

    if (split(&part, ':', &user) && !decode(user, out->user, sizeof out->user)) {
        *error = "the user: at most 511 octets, with %XX for what is not a plain letter or digit";
        return false;
    }
    if (!decode(part, out->password, sizeof out->password)) {
        *error = "the password: at most 511 octets, with %XX for what is not a plain letter or digit";
        return false;
    }
    if (!*out->password) {
        *error = "a password before the @";
        return false;
    }
    return true;
}

static bool set_host(struct redis_url_host *host, struct part name)
{
    struct in6_addr ip;

    if (name.size == 0 || name.size >= sizeof host->name)
        return false;
    memcpy(host->name, name.text, name.size);
    host->name[name.size] = '\0';
    /* The underscore is no host name's, but container networks give such names. */
    for (char *c = host->name; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("-._:", *c))
            return false;
    return !strchr(host->name, ':') || inet_pton(AF_INET6, host->name, &ip) == 1;
}

/* host, host:port, [IPv6], [IPv6]:port */
static bool read_host(struct part part, uint16_t port, struct redis_url_host *host, const char **error)
{
    struct part name = part;
    uint32_t n = port;
    bool has_port;

    *error = "host:port such as 192.0.2.1:6379, [2001:db8::1]:6379 or redis.example.net";
    if (part.size && *part.text == '[') {
        part.text++;
        part.size--;
        if (!split(&part, ']', &name) || (part.size && *part.text != ':') ||
            !memchr(name.text, ':', name.size))
            return false;
        has_port = part.size;
        part.text += has_port;
        part.size -= has_port;
    } else {
        has_port = split(&part, ':', &name);
        if (has_port && memchr(part.text, ':', part.size))
            return false;
    }
    if (!set_host(host, name))
        return false;
    if (has_port && (!read_number(part, 65535, &n) || n == 0)) {
        *error = "a port from 1 to 65535";
        return false;
    }
    host->port = (uint16_t)n;
    return true;
}

static bool read_hosts(struct part part, struct redis_url *out, const char **error)
{
    uint16_t port = out->kind == REDIS_URL_SENTINEL ? SENTINEL_PORT : PORT;
    struct part one;
    bool more;

    do {
        if (out->n_hosts == REDIS_URL_HOSTS_MAX) {
            *error = "at most 16 hosts";
            return false;
        }
        more = out->kind != REDIS_URL_TCP && split(&part, ',', &one);
        if (!read_host(more ? one : part, port, &out->hosts[out->n_hosts++], error))
            return false;
    } while (more);
    return true;
}

static bool read_database(struct part part, struct redis_url *out, const char **error)
{
    if (read_number(part, DATABASE_MAX, &out->database))
        return true;
    *error = "the number of a database, such as 0";
    return false;
}

/* What stands behind the "?". */
static bool read_options(struct part part, struct redis_url *out, const char **error)
{
    bool several = out->kind == REDIS_URL_SENTINEL || out->kind == REDIS_URL_CLUSTER;
    struct part option, key;
    bool more;

    do {
        more = split(&part, '&', &option);
        if (!more)
            option = part;
        if (split(&option, '=', &key)) {
            if (is(key, "db") && out->kind == REDIS_URL_UNIX) {
                if (!read_database(option, out, error))
                    return false;
                continue;
            }
            if (is(key, "tls") && several && (is(option, "on") || is(option, "off"))) {
                out->tls = is(option, "on");
                continue;
            }
        }
        *error = several                       ? "tls=on or tls=off behind the \"?\""
                 : out->kind == REDIS_URL_UNIX ? "db=N behind the \"?\""
                                               : "no \"?\"; TLS is rediss://, a database /N";
        return false;
    } while (more);
    return true;
}

static bool read_path(struct part part, struct redis_url *out, const char **error)
{
    if (part.size < 2 || *part.text != '/' || part.size >= sizeof out->path) {
        *error = "the absolute path of a socket, at most 107 octets, such as unix:/run/redis/redis.sock";
        return false;
    }
    memcpy(out->path, part.text, part.size);
    return true;
}

/* Behind the hosts: /db, or /name[/db]. `has_slash`: there is something. */
static bool read_tail(struct part part, bool has_slash, struct redis_url *out, const char **error)
{
    struct part name;
    bool has_database = has_slash;

    if (out->kind == REDIS_URL_CLUSTER) {
        *error = "nothing behind the hosts; a cluster has database 0 only";
        return !has_slash || part.size == 0;
    }
    if (out->kind == REDIS_URL_SENTINEL) {
        has_database = split(&part, '/', &name);
        if (!has_database)
            name = part;
        *error = "the master's name behind the hosts, such as sentinel://host1,host2/mymaster";
        if (!has_slash || name.size == 0 || name.size >= sizeof out->master)
            return false;
        memcpy(out->master, name.text, name.size);
    }
    return !has_database || part.size == 0 || read_database(part, out, error);
}

static bool read_parts(struct part rest, struct redis_url *out, const char **error)
{
    const char *at = memrchr(rest.text, '@', rest.size);
    struct part part, before;
    bool has_slash;

    /* An @ in a path is the path's; one in a password had to be %40, and is understood all the same. */
    if (at && !(out->kind == REDIS_URL_UNIX && *rest.text == '/')) {
        part = (struct part){ rest.text, (size_t)(at - rest.text) };
        if (!read_credentials(part, out, error))
            return false;
        rest = (struct part){ at + 1, rest.size - part.size - 1 };
    }
    part = rest;
    if (split(&rest, '?', &before)) {
        if (!read_options(rest, out, error))
            return false;
        part = before;
    }
    if (out->kind == REDIS_URL_UNIX)
        return read_path(part, out, error);
    has_slash = split(&part, '/', &before);
    if (!has_slash)
        before = part;
    return read_hosts(before, out, error) && read_tail(part, has_slash, out, error);
}

bool redis_url_parse(const char *text, struct redis_url *out, const char **error)
{
    struct redis_url url = { .n_hosts = 0 };
    bool good = false;

    *error = "redis://, rediss://, unix:, sentinel:// or cluster:// at the beginning";
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c <= ' ' || *c == 0x7f) {
            *error = "no blanks and control characters";
            return false;
        }
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes && !good; i++) {
        size_t size = strlen(schemes[i].prefix);

        if (strncmp(text, schemes[i].prefix, size) != 0)
            continue;
        url.kind = schemes[i].kind;
        url.tls = schemes[i].tls;
        if (!read_parts((struct part){ text + size, strlen(text + size) }, &url, error))
            break;
        good = true;
    }
    if (good)
        *out = url;
    redis_url_wipe(&url);
    return good;
}

bool redis_url_host_parse(const char *text, size_t size, struct redis_url_host *out)
{
    const char *colon = memrchr(text, ':', size), *error;
    struct redis_url_host host;
    struct part name;
    uint32_t port;

    if (!colon)
        return false;
    if (size && *text == '[') {
        if (!read_host((struct part){ text, size }, 0, &host, &error) || host.port == 0)
            return false;
    } else {
        name = (struct part){ text, (size_t)(colon - text) };
        if (!set_host(&host, name) ||
            !read_number((struct part){ colon + 1, size - name.size - 1 }, 65535, &port) || port == 0)
            return false;
        host.port = (uint16_t)port;
    }
    *out = host;
    return true;
}

const char *redis_url_host_show(const struct redis_url_host *host, char text[REDIS_URL_HOST_MAX + 8])
{
    bool brackets = strchr(host->name, ':');

    (void)snprintf(text, REDIS_URL_HOST_MAX + 8, "%s%s%s:%u", brackets ? "[" : "", host->name,
                   brackets ? "]" : "", host->port);
    return text;
}

const char *redis_url_show(const struct redis_url *url, char text[REDIS_URL_TEXT_MAX])
{
    char host[REDIS_URL_HOST_MAX + 8], database[16] = "";
    size_t n = 0;

    if (url->database)
        (void)snprintf(database, sizeof database, "%s%u", url->kind == REDIS_URL_UNIX ? "?db=" : "/",
                       url->database);
    if (url->kind == REDIS_URL_UNIX) {
        (void)snprintf(text, REDIS_URL_TEXT_MAX, "unix:%s%s", url->path, database);
        return text;
    }
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes && !n; i++)
        if (schemes[i].kind == url->kind && (schemes[i].tls == url->tls || url->kind != REDIS_URL_TCP))
            n = (size_t)snprintf(text, REDIS_URL_TEXT_MAX, "%s", schemes[i].prefix);
    for (size_t i = 0; i < url->n_hosts; i++)
        n += (size_t)snprintf(text + n, REDIS_URL_TEXT_MAX - n, "%s%s", i ? "," : "",
                              redis_url_host_show(&url->hosts[i], host));
    (void)snprintf(text + n, REDIS_URL_TEXT_MAX - n, "%s%s%s%s", *url->master ? "/" : "", url->master,
                   database, url->tls && url->kind != REDIS_URL_TCP ? "?tls=on" : "");
    return text;
}

void redis_url_wipe(struct redis_url *url)
{
    explicit_bzero(url->password, sizeof url->password);
}
