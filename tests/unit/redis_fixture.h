/*
 * Connections to Redis in a test: what each heard, and a server of a few lines on the same loop, that says
 * what its script tells it to. Nothing waits by the clock: the loop is turned until something has come.
 */
#ifndef WEIR_TESTS_REDIS_FIXTURE_H
#define WEIR_TESTS_REDIS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <ev.h>
#include <fcntl.h>
#include <unistd.h>

#include "counters/redis.h"

#define PATIENCE 30.0 /* seconds until a test gives up */

static struct ev_loop *loop;

static inline void on_patience(struct ev_loop *on, ev_timer *timer, int events)
{
    (void)events;
    *(bool *)timer->data = true;
    ev_break(on, EVBREAK_ONE);
}

#define AWAIT(condition)                                                                                     \
    do {                                                                                                     \
        bool over = false;                                                                                   \
        ev_timer patience;                                                                                   \
        ev_timer_init(&patience, on_patience, PATIENCE, 0);                                                  \
        patience.data = &over;                                                                               \
        ev_now_update(loop);                                                                                 \
        ev_timer_start(loop, &patience);                                                                     \
        while (!(condition)) {                                                                               \
            if (over)                                                                                        \
                fail_msg("never: %s", #condition);                                                           \
            ev_run(loop, EVRUN_ONCE);                                                                        \
        }                                                                                                    \
        ev_timer_stop(loop, &patience);                                                                      \
    } while (0)

/* --- what a connection tells ------------------------------------------------------------------------------
 */

struct ear {
    struct redis *redis;
    unsigned states; /* that were told */
    unsigned readies;
    char reason[REDIS_REASON_MAX]; /* the last that is not "" */
    unsigned messages, answers, errors;
    char message[256], answer[256], error[REDIS_REASON_MAX]; /* the last of each */
    char said[1024];                                         /* all answers and errors, a line each */
    enum { FREE_NEVER, FREE_IN_READY, FREE_IN_DOWN, FREE_IN_MESSAGE, FREE_IN_ANSWER, FREE_IN_ERROR } when;
};

static inline void on_state(void *arg, enum redis_state state, const char *reason)
{
    struct ear *ear = arg;

    ear->states++;
    ear->readies += state == REDIS_READY;
    if (*reason)
        (void)snprintf(ear->reason, sizeof ear->reason, "%s", reason);
    assert_true((state == REDIS_READY) == !*reason);
    assert_int_equal(redis_state(ear->redis), state);
    if ((state == REDIS_READY && ear->when == FREE_IN_READY) ||
        (state == REDIS_DOWN && ear->when == FREE_IN_DOWN))
        redis_free(&ear->redis);
}

static inline void on_message(void *arg, const char *text, size_t size)
{
    struct ear *ear = arg;

    ear->messages++;
    (void)snprintf(ear->message, sizeof ear->message, "%.*s", (int)size, text);
    if (ear->when == FREE_IN_MESSAGE)
        redis_free(&ear->redis);
}

static inline size_t write_reply(char *out, size_t room, const struct resp *reply)
{
    size_t n = 0;

    switch (reply->type) {
    case RESP_STATUS: return (size_t)snprintf(out, room, "+%s", reply->text);
    case RESP_ERROR: return (size_t)snprintf(out, room, "-%s", reply->text);
    case RESP_TEXT: return (size_t)snprintf(out, room, "%s", reply->text);
    case RESP_INTEGER: return (size_t)snprintf(out, room, ":%lld", (long long)reply->integer);
    case RESP_NIL: return (size_t)snprintf(out, room, "nil");
    case RESP_ARRAY: break;
    }
    n += (size_t)snprintf(out, room, "[");
    for (size_t i = 0; i < reply->n && n + 2 < room; i++) {
        n += i ? (size_t)snprintf(out + n, room - n, " ") : 0;
        n += write_reply(out + n, room - n, &reply->elements[i]);
        n = n < room ? n : room - 1;
    }
    return n + (size_t)snprintf(out + n, room - n, "]");
}

static inline void on_answer(void *arg, const struct resp *reply, const char *error)
{
    struct ear *ear = arg;

    assert_true(!reply != !error);
    if (reply) {
        ear->answers++;
        write_reply(ear->answer, sizeof ear->answer, reply);
    } else {
        ear->errors++;
        (void)snprintf(ear->error, sizeof ear->error, "%s", error);
    }
    (void)snprintf(ear->said + strlen(ear->said), sizeof ear->said - strlen(ear->said), "%s%s\n",
                   reply ? "" : "! ", reply ? ear->answer : ear->error);
    if ((reply && ear->when == FREE_IN_ANSWER) || (error && ear->when == FREE_IN_ERROR))
        redis_free(&ear->redis);
}

struct wish {
    const char *channel, *nameservers;
    const struct tls_client *tls;
};

static inline void open_with(struct ear *ear, const char *text, const struct wish *wish)
{
    struct redis_url url;
    const char *error;
    struct redis_settings settings = { .url = &url,
                                       .tls = wish->tls,
                                       .name = "weir-test",
                                       .key = "weir:{main}:instances",
                                       .channel = wish->channel,
                                       .nameservers = wish->nameservers };
    struct redis_handler handler = { .state = on_state, .message = on_message, .arg = ear };

    memset(ear, 0, sizeof *ear);
    if (!redis_url_parse(text, &url, &error))
        fail_msg("%s: %s", text, error);
    ear->redis = redis_open(loop, &settings, &handler);
    assert_non_null(ear->redis);
    assert_int_equal(redis_state(ear->redis), REDIS_CONNECTING);
}

static inline void open_ear(struct ear *ear, const char *text)
{
    open_with(ear, text, &(struct wish){ .channel = NULL });
}

/* Send a command of words between blanks; several, between semicolons, are a transaction. */
static inline bool ask(struct ear *ear, const char *text)
{
    struct resp_commands commands = { .n = 0 };
    char *copy = strdup(text), *rest, *command = strtok_r(copy, ";", &rest);
    bool sent;

    for (; command; command = strtok_r(NULL, ";", &rest)) {
        struct resp_word words[16];
        size_t n = 0;
        char *more;

        for (char *word = strtok_r(command, " ", &more); word; word = strtok_r(NULL, " ", &more))
            words[n++] = (struct resp_word){ word, strlen(word) };
        resp_commands_add(&commands, words, n);
    }
    sent = redis_send(ear->redis, &commands, on_answer, ear);
    resp_commands_free(&commands);
    free(copy);
    return sent;
}

/* Send and await the answer, or the error in "! …". The ear's. */
static inline const char *answer(struct ear *ear, const char *text)
{
    unsigned before = ear->answers + ear->errors, errors = ear->errors;

    assert_true(ask(ear, text));
    AWAIT(ear->answers + ear->errors > before);
    if (ear->errors > errors)
        (void)snprintf(ear->answer, sizeof ear->answer, "! %.200s", ear->error);
    return ear->answer;
}

/* --- the scripted server ----------------------------------------------------------------------------------
 */

#define RULES_MAX 16

struct fake;

struct fake_client {
    ev_io io;
    struct fake *fake;
    struct fake_client *next;
    struct resp_reader *reader;
    bool in_transaction;
};

/* What is said to commands that begin with `command`. "" says nothing; NULL hangs up. */
struct rule {
    const char *command, *reply;
};

struct fake {
    ev_io io;
    uint16_t port;
    struct fake_client *clients;
    unsigned accepted;
    struct rule rules[RULES_MAX]; /* the first that fits */
    size_t cut;                   /* octets that are said in all before it hangs up; 0: no end */
    bool deaf;                    /* it accepts and reads nothing */
    char heard[4096];             /* the commands, a line each */
};

static inline void fake_drop(struct fake_client *client)
{
    struct fake_client **at = &client->fake->clients;

    while (*at != client)
        at = &(*at)->next;
    *at = client->next;
    ev_io_stop(loop, &client->io);
    close(client->io.fd);
    resp_reader_free(&client->reader);
    free(client);
}

/* False: it has hung up. */
static inline bool fake_say(struct fake_client *client, const char *octets)
{
    struct fake *fake = client->fake;
    size_t size = octets ? strlen(octets) : 0;
    bool last = !octets || (fake->cut && size >= fake->cut);

    if (last && octets)
        size = fake->cut;
    if (fake->cut && !last)
        fake->cut -= size;
    if (size)
        (void)!send(client->io.fd, octets, size, MSG_NOSIGNAL);
    if (last)
        fake_drop(client);
    return !last;
}

static inline const char *fake_reply(struct fake_client *client, const char *line)
{
    static char subscribed[600];
    const struct fake *fake = client->fake;
    bool queued = client->in_transaction && strncmp(line, "EXEC", 4) != 0;

    if (strncmp(line, "MULTI", 5) == 0 || strncmp(line, "EXEC", 4) == 0)
        client->in_transaction = *line == 'M';
    for (size_t i = 0; i < RULES_MAX && fake->rules[i].command; i++)
        if (strncmp(line, fake->rules[i].command, strlen(fake->rules[i].command)) == 0)
            return fake->rules[i].reply;
    if (queued)
        return "+QUEUED\r\n";
    if (strncmp(line, "EXEC", 4) == 0)
        return "*1\r\n+OK\r\n";
    if (strncmp(line, "PING", 4) == 0)
        return "+PONG\r\n";
    if (strncmp(line, "EXISTS", 6) == 0)
        return ":1\r\n";
    if (strncmp(line, "CLUSTER", 7) == 0)
        return "*0\r\n";
    if (strncmp(line, "ROLE", 4) == 0)
        return "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
    if (strncmp(line, "SUBSCRIBE ", 10) == 0) {
        (void)snprintf(subscribed, sizeof subscribed, "*3\r\n$9\r\nsubscribe\r\n$%zu\r\n%s\r\n:1\r\n",
                       strlen(line + 10), line + 10);
        return subscribed;
    }
    return "+OK\r\n";
}

static inline void on_fake_client(struct ev_loop *on, ev_io *io, int events)
{
    struct fake_client *client = io->data;
    struct fake *fake = client->fake;
    char buffer[65536];
    ssize_t n = recv(io->fd, buffer, sizeof buffer, 0);
    const struct resp *command;

    (void)on;
    (void)events;
    if (n <= 0) {
        fake_drop(client);
        return;
    }
    resp_reader_feed(client->reader, buffer, (size_t)n);
    while ((command = resp_reader_next(client->reader))) {
        char line[512] = "";
        size_t size = strlen(fake->heard);

        for (size_t i = 0; i < command->n; i++)
            (void)snprintf(line + strlen(line), sizeof line - strlen(line), i ? " %s" : "%s",
                           command->elements[i].text);
        (void)snprintf(fake->heard + size, sizeof fake->heard - size, "%s\n", line);
        if (!fake_say(client, fake_reply(client, line)))
            return;
    }
}

static inline void on_fake(struct ev_loop *on, ev_io *io, int events)
{
    struct fake *fake = io->data;
    struct fake_client *client = calloc(1, sizeof *client);
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    assert_true(client && fd >= 0);
    fake->accepted++;
    client->fake = fake;
    client->reader = resp_reader_create();
    client->next = fake->clients;
    fake->clients = client;
    ev_io_init(&client->io, on_fake_client, fd, EV_READ);
    client->io.data = client;
    if (!fake->deaf)
        ev_io_start(on, &client->io);
}

static inline int bind_at(in_addr_t ip, uint16_t *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(ip) };
    socklen_t length = sizeof in;

    in.sin_port = htons(*port);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &length), 0);
    *port = ntohs(in.sin_port);
    return fd;
}

static inline int bind_loopback(uint16_t *port)
{
    return bind_at(INADDR_LOOPBACK, port);
}

/* On the port that it had before, if it had one. */
static inline void fake_start_at(struct fake *fake, in_addr_t ip)
{
    int fd = bind_at(ip, &fake->port);

    assert_int_equal(listen(fd, 20), 0);
    ev_io_init(&fake->io, on_fake, fd, EV_READ);
    fake->io.data = fake;
    ev_io_start(loop, &fake->io);
}

static inline void fake_start(struct fake *fake)
{
    fake_start_at(fake, INADDR_LOOPBACK);
}

static inline void fake_hang_up(struct fake *fake)
{
    while (fake->clients)
        fake_drop(fake->clients);
}

static inline void fake_stop(struct fake *fake)
{
    fake_hang_up(fake);
    if (!ev_is_active(&fake->io))
        return;
    ev_io_stop(loop, &fake->io);
    close(fake->io.fd);
}

/* To all that are connected, unasked. */
static inline void fake_shout(struct fake *fake, const char *octets, size_t size)
{
    for (struct fake_client *client = fake->clients; client; client = client->next)
        (void)!send(client->io.fd, octets, size, MSG_NOSIGNAL);
}

/* A URL with %u for the port. */
static inline const char *url_of(const char *format, unsigned port)
{
    static char text[256];

    (void)snprintf(text, sizeof text, format, port);
    return text;
}

#endif
