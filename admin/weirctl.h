/*
 * weirctl: the operator's program. What its files share; none of it is part of weir.
 *
 *   weirctl.c         arguments, commands
 *   weirctl_client.c  asking one Weir
 *   weirctl_farm*.c   asking a farm, by way of Redis
 *   weirctl_show.c    answers as tables and lines
 *   weirctl_table.c   tables, and text that does a terminal no harm
 *   weirctl_top.c     the live view
 */
#ifndef WEIR_ADMIN_WEIRCTL_H
#define WEIR_ADMIN_WEIRCTL_H

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define WEIRCTL_SOCKET "/run/weir/weir.sock"

enum weirctl_exit { WEIRCTL_OK, WEIRCTL_REFUSED, WEIRCTL_USAGE, WEIRCTL_NO_ANSWER };

#define CLIENT_ERROR_MAX 256

struct farm_link;

struct client {
    const char *path;                  /* of the socket, or where Redis is */
    struct farm_link *farm;            /* a whole farm is asked; NULL: the Weir behind the socket */
    int fd;                            /* -1: not connected */
    int timeout;                       /* ms, for an answer to be whole */
    const volatile sig_atomic_t *stop; /* set by a signal: give up waiting; NULL: none does */
    char *input;
    size_t size, room;
    char error[CLIENT_ERROR_MAX]; /* why there was no answer */
};

/* Ask, connecting first if need be. The answer is new; NULL: there was none, and client->error says why. The
 * request is taken over. */
json_t *client_ask(struct client *client, json_t *request);
void client_close(struct client *client);
/* What is in an answer, or NULL with *error (the answer's): it was refused. */
json_t *client_result(json_t *answer, const char **error);

/* How to write on what is there. */
struct style {
    bool colours;
    bool utf8;
    unsigned width; /* columns */
};

/* Each takes the result as admin/report.h describes it. */
void show_status(FILE *out, const json_t *status, const struct style *style);
void show_backends(FILE *out, const json_t *backends, const struct style *style);
void show_sessions(FILE *out, const json_t *sessions, const struct style *style);
void show_instances(FILE *out, const json_t *instances, const struct style *style);
void show_orders(FILE *out, const json_t *orders, const struct style *style);

/* A line of text from elsewhere, cut at `width` columns. */
void show_line(FILE *out, const char *text, unsigned width);

/* Of an object: what is missing or of another kind is "" or 0. */
const char *show_text(const json_t *object, const char *key);
json_int_t show_number(const json_t *object, const char *key);
#define SHOW_SHORT 24
/* "3d 4h", "5m 12s"; `out` is returned. */
const char *show_duration(json_int_t seconds, char out[SHOW_SHORT]);
/* Five columns at most: "99999", "123k", "1.2M". */
const char *show_count(json_int_t n, char out[SHOW_SHORT]);
const char *show_limit(const json_t *backend, char out[SHOW_SHORT]);
/* The word over the state, or the state; and its colour. */
const char *show_state(const json_t *backend, char out[SHOW_SHORT]);
const char *show_state_colour(const json_t *backend);

/* Until q. An exit status. */
int top_run(struct client *client, const struct style *style);

#endif
