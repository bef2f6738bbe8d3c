#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "admin/weirctl.h"
#include "admin/weirctl_farm.h"

#define ANSWER_MAX (64u << 20) /* no Weir has so much to say: this bounds what another program sends us */
#define READ_SIZE  65536u

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

__attribute__((format(printf, 2, 3))) static bool fail(struct client *client, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(client->error, sizeof client->error, format, arguments);
    va_end(arguments);
    client_close(client);
    return false;
}

void client_close(struct client *client)
{
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    free(client->input);
    client->input = NULL;
    client->size = client->room = 0;
}

static bool connect_to(struct client *client)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    /* What a busy Weir has not accepted yet may fill its queue: then connect() waits. */
    struct timeval patience = { .tv_sec = client->timeout / 1000, .tv_usec = client->timeout % 1000 * 1000 };

    if (strlen(client->path) >= sizeof address.sun_path)
        return fail(client, "the path is too long for a socket");
    strcpy(address.sun_path, client->path);
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0 || setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0 ||
        connect(client->fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        fcntl(client->fd, F_SETFL, O_NONBLOCK) != 0)
        return fail(client, "%s", errno == EAGAIN ? "no answer in time" : strerror(errno));
    return true;
}

/* False: time is up, or a signal has come. */
static bool wait_for(struct client *client, short events, int64_t deadline)
{
    struct pollfd fd = { .fd = client->fd, .events = events };

    for (;;) {
        int64_t left = deadline - now();
        int n;

        if (client->stop && *client->stop)
            return fail(client, "interrupted");
        if (left <= 0)
            return fail(client, "no answer in time");
        n = poll(&fd, 1, (int)left);
        if (n > 0)
            return true;
        if (n < 0 && errno != EINTR)
            return fail(client, "%s", strerror(errno));
    }
}

static bool send_line(struct client *client, const char *text, int64_t deadline)
{
    size_t size = strlen(text);

    while (size) {
        ssize_t n = send(client->fd, text, size, MSG_NOSIGNAL);

        if (n > 0) {
            text += n;
            size -= (size_t)n;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return true; /* it may have said why */
        } else if (errno != EAGAIN && errno != EINTR) {
            return fail(client, "%s", strerror(errno));
        } else if (!wait_for(client, POLLOUT, deadline)) {
            return false;
        }
    }
    return true;
}

static bool make_room(struct client *client)
{
    char *input;

    if (client->room - client->size >= READ_SIZE)
        return true;
    if (client->room >= ANSWER_MAX)
        return fail(client, "the answer is too long");
    input = realloc(client->input, client->room ? 2 * client->room : 2 * READ_SIZE);
    if (!input)
        return fail(client, "out of memory");
    client->input = input;
    client->room = client->room ? 2 * client->room : 2 * READ_SIZE;
    return true;
}

/* The line stands in client->input, without its newline and `*length` octets long. */
static bool receive_line(struct client *client, int64_t deadline, size_t *length)
{
    for (;;) {
        ssize_t n;

        if (!make_room(client))
            return false;
        n = recv(client->fd, client->input + client->size, READ_SIZE, 0);
        if (n > 0) {
            const char *end = memchr(client->input + client->size, '\n', (size_t)n);

            client->size += (size_t)n;
            if (!end)
                continue;
            *length = (size_t)(end - client->input);
            return true;
        }
        if (n == 0)
            return fail(client, "the connection was closed");
        if (errno != EAGAIN && errno != EINTR)
            return fail(client, "%s", strerror(errno));
        if (!wait_for(client, POLLIN, deadline))
            return false;
    }
}

static json_t *ask_weir(struct client *client, json_t *request)
{
    int64_t deadline = now() + client->timeout;
    char *text = json_dumps(request, JSON_COMPACT), *line = NULL;
    json_error_t error;
    json_t *answer = NULL;
    size_t length = 0;

    json_decref(request);
    if (!text || asprintf(&line, "%s\n", text) < 0) {
        free(text);
        (void)fail(client, "out of memory");
        return NULL;
    }
    client->error[0] = '\0';
    if ((client->fd >= 0 || connect_to(client)) && send_line(client, line, deadline) &&
        receive_line(client, deadline, &length)) {
        answer = json_loadb(client->input, length, 0, &error);
        client->size = 0; /* nothing comes behind an answer */
        if (!json_is_object(answer)) {
            json_decref(answer);
            answer = NULL;
            (void)fail(client, "that is no Weir: it does not answer in JSON");
        }
    }
    free(text);
    free(line);
    return answer;
}

json_t *client_ask(struct client *client, json_t *request)
{
    return client->farm ? farm_ask(client, request) : ask_weir(client, request);
}

json_t *client_result(json_t *answer, const char **error)
{
    json_t *result = json_object_get(answer, "result");

    if (json_is_true(json_object_get(answer, "ok")) && result)
        return result;
    *error = show_text(answer, "error");
    return NULL;
}
