#include "admin/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/metrics.h"
#include "admin/page.h"
#include "admin/report.h"

/* These only bound a client that is slow, greedy or hostile: a scrape takes milliseconds. */
#define HTTP_CONNECTIONS 64u
#define HTTP_OF_ONE      32u /* address: there is room for others, who may ask whether we are ready */
#define HTTP_TIMEOUT     10u /* seconds without progress */
#define HTTP_MEMORY      (size_t)16384 /* of one connection's request */
#define HTTP_BACKLOG     32

#define PLAIN "text/plain; charset=utf-8"
#define HTML  "text/html; charset=utf-8"
#define JSON  "application/json"

struct admin {
    struct MHD_Daemon *daemon;
    struct admin_ops ops;
};

struct endpoint {
    const char *path;
    unsigned (*answer)(const struct admin *admin, struct MHD_Response **response); /* the status code */
};

static struct MHD_Response *fixed(const char *text)
{
    return MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
}

/* `text` is free()d with the response, or now. NULL: there was no memory for one of them. */
static struct MHD_Response *made(char *text, size_t size, const char *type)
{
    struct MHD_Response *response =
        text ? MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE) : NULL;

    if (!response)
        free(text);
    else
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    return response;
}

static unsigned answer_page(const struct admin *admin, struct MHD_Response **response)
{
    char policy[PAGE_POLICY_MAX];
    size_t size = 0;
    char *page = page_make(&size, policy);

    (void)admin;
    *response = made(page, size, HTML);
    if (*response)
        (void)MHD_add_response_header(*response, "Content-Security-Policy", policy);
    return MHD_HTTP_OK;
}

static unsigned answer_status(const struct admin *admin, struct MHD_Response **response)
{
    struct farm *farm = admin->ops.farm(admin->ops.arg);
    json_t *status = report_status(&admin->ops, farm);
    char *text;

    json_object_set_new(status, "backends", report_backends(farm));
    farm_release(&farm);
    text = json_dumps(status, JSON_COMPACT);
    json_decref(status);
    *response = made(text, text ? strlen(text) : 0, JSON);
    return MHD_HTTP_OK;
}

static unsigned answer_healthz(const struct admin *admin, struct MHD_Response **response)
{
    (void)admin;
    *response = fixed("ok\n");
    return MHD_HTTP_OK;
}

static bool any_in_service(const struct farm *farm)
{
    for (size_t p = 0; p < farm->n_pools; p++)
        for (size_t m = 0; m < farm->pools[p].n_members; m++)
            if (backend_in_service(farm->pools[p].members[m]->backend))
                return true;
    return false;
}

bool admin_ready(const struct admin_ops *ops)
{
    struct farm *farm;
    bool ready;

    if (ops->draining(ops->arg))
        return false;
    farm = ops->farm(ops->arg);
    ready = any_in_service(farm);
    farm_release(&farm);
    return ready;
}

static unsigned answer_readyz(const struct admin *admin, struct MHD_Response **response)
{
    if (admin_ready(&admin->ops)) {
        *response = fixed("ready\n");
        return MHD_HTTP_OK;
    }
    *response = fixed(admin->ops.draining(admin->ops.arg) ? "draining\n" : "no backend is usable\n");
    return MHD_HTTP_SERVICE_UNAVAILABLE;
}

static unsigned answer_metrics(const struct admin *admin, struct MHD_Response **response)
{
    struct admin_counters counters;
    struct counters_status shared;
    struct rate_rules *rules;
    struct farm *farm;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    *response = NULL;
    if (!out)
        return 0;
    farm = admin->ops.farm(admin->ops.arg);
    admin->ops.counters(admin->ops.arg, &counters);
    admin->ops.shared(admin->ops.arg, &shared);
    metrics_write(out, farm, &counters, &shared);
    farm_release(&farm);
    rules = admin->ops.rules(admin->ops.arg);
    metrics_write_limits(out, rules);
    rate_rules_release(&rules);
    if (fclose(out) != 0) {
        free(text);
        return 0;
    }
    *response = made(text, size, METRICS_CONTENT_TYPE);
    return MHD_HTTP_OK;
}

static unsigned answer_nothing(const struct admin *admin, struct MHD_Response **response)
{
    (void)admin;
    *response = fixed("not found\n");
    return MHD_HTTP_NOT_FOUND;
}

static unsigned answer_method(const struct admin *admin, struct MHD_Response **response)
{
    (void)admin;
    *response = fixed("only GET and HEAD\n");
    if (*response)
        (void)MHD_add_response_header(*response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    return MHD_HTTP_METHOD_NOT_ALLOWED;
}

static const struct endpoint endpoints[] = {
    {"/",            answer_page   },
    { "/api/status", answer_status },
    { "/healthz",    answer_healthz},
    { "/readyz",     answer_readyz },
    { "/metrics",    answer_metrics},
    { NULL,          answer_nothing},
};

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **request)
{
    static int begun;
    const struct admin *admin = arg;
    const struct endpoint *endpoint = endpoints;
    struct MHD_Response *response = NULL;
    enum MHD_Result result;
    unsigned status;

    (void)version;
    (void)upload;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        status = answer_method(admin, &response);
    } else if (!*request) { /* headers are there; the answer is due at the next call, behind any body */
        *request = &begun;
        return MHD_YES;
    } else if (*upload_size) {
        *upload_size = 0;
        return MHD_YES;
    } else {
        while (endpoint->path && strcmp(endpoint->path, url) != 0)
            endpoint++;
        status = endpoint->answer(admin, &response);
    }
    if (!response)
        return MHD_NO; /* out of memory: the connection is closed */
    if (!MHD_get_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE))
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, PLAIN);
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static int listen_at(const struct address *address)
{
    int fd = socket(address->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1, error;

    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address->sa.sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, &address->sa, address->length) == 0 && listen(fd, HTTP_BACKLOG) == 0)
        return fd;
    error = errno;
    close(fd);
    return -error;
}

/* Signals are the control thread's: the new thread must not take one. */
static struct MHD_Daemon *start_daemon(struct admin *admin, int fd)
{
    struct MHD_Daemon *daemon;
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, on_request, admin,
                              MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, HTTP_CONNECTIONS,
                              MHD_OPTION_PER_IP_CONNECTION_LIMIT, HTTP_OF_ONE, MHD_OPTION_CONNECTION_TIMEOUT,
                              HTTP_TIMEOUT, MHD_OPTION_CONNECTION_MEMORY_LIMIT, HTTP_MEMORY, MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return daemon;
}

struct admin *admin_start(const struct address *address, const struct admin_ops *ops, char *error,
                          size_t size)
{
    struct admin *admin = calloc(1, sizeof *admin);
    char text[ADDRESS_TEXT_MAX];
    int fd;

    if (!admin) {
        (void)snprintf(error, size, "out of memory");
        return NULL;
    }
    admin->ops = *ops;
    fd = listen_at(address);
    if (fd < 0) {
        (void)snprintf(error, size, "%s: %s", address_format(address, text), strerrordesc_np(-fd));
        free(admin);
        return NULL;
    }
    admin->daemon = start_daemon(admin, fd);
    if (!admin->daemon) {
        (void)snprintf(error, size, "%s: the HTTP thread does not start", address_format(address, text));
        close(fd);
        free(admin);
        return NULL;
    }
    return admin;
}

void admin_stop(struct admin **admin)
{
    struct admin *a = *admin;

    *admin = NULL;
    if (!a)
        return;
    MHD_stop_daemon(a->daemon); /* closes the listening socket too */
    free(a);
}
