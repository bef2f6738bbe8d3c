#include "proxy/front.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/socket_file.h"

#define BACKLOG 4096 /* the kernel lowers it to net.core.somaxconn */

/* --- listener states --- */

static struct listener_state *state_create(const char *name, struct clients *clients)
{
    struct listener_state *state = calloc(1, sizeof *state);

    if (!state)
        return NULL;
    atomic_init(&state->references, 1);
    state->name = strdup(name);
    state->clients = clients;
    if (!state->name) {
        free(state);
        return NULL;
    }
    return state;
}

static void state_release(struct listener_state **state)
{
    if (*state && atomic_fetch_sub(&(*state)->references, 1) == 1) {
        free((*state)->name);
        free(*state);
    }
    *state = NULL;
}

static struct listener_state *state_for(const char *name, struct front *old, struct clients *clients)
{
    for (size_t i = 0; old && i < old->n_listeners; i++) {
        struct listener_state *state = old->listeners[i].state;

        if (strcmp(state->name, name) == 0) {
            atomic_fetch_add(&state->references, 1);
            return state;
        }
    }
    return state_create(name, clients);
}

/* --- sockets --- */

static void remove_socket_file(const struct address *address)
{
    if (address->sa.sa_family == AF_UNIX && address->un.sun_path[0])
        unlink(address->un.sun_path);
}

static int on(int fd, int level, int name)
{
    int one = 1;

    return setsockopt(fd, level, name, &one, sizeof one);
}

/* Bound, not listening yet. Accepted sockets inherit the options set here, which saves setting them on each.
 */
static int bind_socket(const struct address *address, bool share_port)
{
    int fd = socket(address->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error;

    if (fd < 0)
        return -errno;
    if (address->sa.sa_family != AF_UNIX) {
        if (on(fd, SOL_SOCKET, SO_REUSEADDR) != 0 || (share_port && on(fd, SOL_SOCKET, SO_REUSEPORT) != 0))
            goto failed;
        if (address->sa.sa_family == AF_INET6 && on(fd, IPPROTO_IPV6, IPV6_V6ONLY) != 0)
            goto failed;
        (void)on(fd, IPPROTO_TCP, TCP_NODELAY);
        (void)on(fd, SOL_SOCKET, SO_KEEPALIVE);
    }
    if (bind(fd, &address->sa, address->length) == 0)
        return fd;
failed:
    error = errno;
    close(fd);
    return -error;
}

/* Two processes of one user could share a port through SO_REUSEPORT without noticing: a bind without it finds
 * out. */
static int trial_bind(const struct address *address)
{
    int fd = bind_socket(address, false);

    if (fd < 0)
        return fd;
    if (listen(fd, 1) != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    close(fd);
    return 0;
}

static bool is_wildcard(const struct address *address)
{
    if (address->sa.sa_family == AF_INET)
        return address->in.sin_addr.s_addr == htonl(INADDR_ANY);
    return IN6_IS_ADDR_UNSPECIFIED(&address->in6.sin6_addr);
}

/* 0.0.0.0:25 becomes 192.0.2.1:25, or the other way round: the one in the way of a trial is ourselves, and
 * nobody else could have come between. */
static bool overlaps(const struct address *address, const struct front *old)
{
    for (size_t i = 0; old && i < old->n_sockets; i++) {
        const struct address *other = &old->sockets[i].address;

        /* The port lies at the same place for both families. */
        if (other->sa.sa_family == address->sa.sa_family && other->in.sin_port == address->in.sin_port &&
            (is_wildcard(other) || is_wildcard(address)))
            return true;
    }
    return false;
}

static int open_tcp(struct listening *socket, uint32_t workers, const struct front *old)
{
    int error = overlaps(&socket->address, old) ? 0 : trial_bind(&socket->address);

    for (uint32_t i = 0; i < workers && error == 0; i++) {
        socket->fds[i] = bind_socket(&socket->address, true);
        if (socket->fds[i] < 0)
            error = socket->fds[i];
        else if (listen(socket->fds[i], BACKLOG) != 0)
            error = -errno;
    }
    return error;
}

static int open_unix(struct listening *socket, uint32_t workers)
{
    socket_file_remove_stale(&socket->address);
    socket->fds[0] = bind_socket(&socket->address, false);
    if (socket->fds[0] < 0)
        return socket->fds[0];
    if (socket->address.un.sun_path[0] && chmod(socket->address.un.sun_path, 0666) != 0)
        return -errno;
    if (listen(socket->fds[0], BACKLOG) != 0)
        return -errno;
    /* One queue of connections that all workers accept from. */
    for (uint32_t i = 1; i < workers; i++) {
        socket->fds[i] = fcntl(socket->fds[0], F_DUPFD_CLOEXEC, 0);
        if (socket->fds[i] < 0)
            return -errno;
    }
    return 0;
}

static bool inherit(struct listening *socket, const struct front *old)
{
    for (size_t i = 0; old && i < old->n_sockets; i++) {
        if (address_equal(&old->sockets[i].address, &socket->address)) {
            memcpy(socket->fds, old->sockets[i].fds, old->workers * sizeof *socket->fds);
            socket->inherited = true;
            return true;
        }
    }
    return false;
}

static const char *bind_hint(int error)
{
    switch (error) {
    case EADDRINUSE: return " (another program, or another Weir, listens there)";
    case EACCES: return " (ports below 1024 need root or CAP_NET_BIND_SERVICE)";
    case EADDRNOTAVAIL: return " (no interface of this machine has that address)";
    default: return "";
    }
}

static bool open_sockets(struct front *front, struct front *old, char *error, size_t size)
{
    for (size_t i = 0; i < front->n_listeners; i++) {
        const struct config_listener *config = front->listeners[i].config;

        for (size_t j = 0; j < config->n_addresses; j++) {
            struct listening *socket = &front->sockets[front->n_sockets];
            char text[ADDRESS_TEXT_MAX];
            int failure;

            socket->address = config->addresses[j];
            socket->listener = i;
            socket->fds = malloc(front->workers * sizeof *socket->fds);
            if (!socket->fds) {
                snprintf(error, size, "out of memory");
                return false;
            }
            for (uint32_t k = 0; k < front->workers; k++)
                socket->fds[k] = -1;
            front->n_sockets++;
            if (inherit(socket, old))
                continue;
            failure = socket->address.sa.sa_family == AF_UNIX ? open_unix(socket, front->workers)
                                                              : open_tcp(socket, front->workers, old);
            if (failure != 0) {
                snprintf(error, size, "listeners.%s: cannot listen on %s: %s%s", config->name,
                         address_format(&socket->address, text), strerror(-failure), bind_hint(-failure));
                return false;
            }
        }
    }
    return true;
}

/* --- the snapshot --- */

static enum smtp_starttls starttls_policy(enum config_tls tls)
{
    switch (tls) {
    case CONFIG_TLS_OFF:
    case CONFIG_TLS_IMPLICIT: return SMTP_STARTTLS_OFF;
    case CONFIG_TLS_STARTTLS: return SMTP_STARTTLS_OFFERED;
    case CONFIG_TLS_REQUIRED: return SMTP_STARTTLS_REQUIRED;
    }
    return SMTP_STARTTLS_OFF;
}

static bool counts_at(const struct config_limit *limit, const char *listener)
{
    for (size_t i = 0; i < limit->n_listeners; i++)
        if (strcmp(limit->listeners[i], listener) == 0)
            return true;
    return !limit->n_listeners;
}

static bool fill_limits(const struct front *front, struct listener *listener)
{
    const struct config *config = front->farm->config;
    struct limits *limits = &listener->limits;

    if (!config->n_limits)
        return true;
    limits->rules = calloc(config->n_limits, sizeof *limits->rules);
    for (size_t i = 0; limits->rules && i < config->n_limits; i++) {
        const struct config_limit *limit = &config->limits[i];

        if (!counts_at(limit, listener->config->name))
            continue;
        limits->rules[limits->n++] = (struct limit){ limit->by, front->rules->rates[i] };
        limits->by_sender = limits->by_sender || limit->by == CONFIG_LIMIT_SENDER_DOMAIN;
    }
    return limits->rules;
}

static bool fill_listeners(struct front *front, struct front *old, struct clients *clients)
{
    const struct config *config = front->farm->config;

    for (size_t i = 0; i < config->n_listeners; i++) {
        struct listener *listener = &front->listeners[i];

        listener->config = &config->listeners[i];
        listener->pool = listener->config->pool;
        listener->policy = (struct smtp_policy){
            .hostname = config->hostname,
            .newline = listener->config->bare_newline == CONFIG_BARE_NEWLINE_NORMALIZE
                           ? SMTP_NEWLINE_NORMALIZE
                           : SMTP_NEWLINE_REJECT,
            .max_recipients = listener->config->max_recipients,
            .max_message_size = listener->config->max_message_size,
            .max_errors = listener->config->max_errors,
            .starttls = starttls_policy(listener->config->tls),
            .auth = listener->config->auth == CONFIG_AUTH_RELAY,
            .greet_delay = listener->config->greet_delay > 0,
        };
        listener->state = state_for(listener->config->name, old, clients);
        if (!listener->state)
            return false;
        front->n_listeners++;
        if (!fill_limits(front, listener))
            return false;
    }
    return true;
}

struct front *front_create(struct farm *farm, struct front *old, struct rate_bank *bank,
                           struct clients *clients, char *error, size_t size)
{
    const struct config *config = farm->config;
    struct front *front = calloc(1, sizeof *front);
    size_t n_addresses = 0;

    snprintf(error, size, "out of memory");
    if (!front)
        return NULL;
    atomic_init(&front->references, 1);
    front->farm = farm_hold(farm);
    front->workers = config->workers;
    for (size_t i = 0; i < config->n_listeners; i++)
        n_addresses += config->listeners[i].n_addresses;
    front->listeners = calloc(config->n_listeners, sizeof *front->listeners);
    front->sockets = calloc(n_addresses, sizeof *front->sockets);
    front->rules = rate_rules_create(config, old ? old->rules : NULL, bank);
    if (front->listeners && front->sockets && front->rules && fill_listeners(front, old, clients) &&
        open_sockets(front, old, error, size))
        return front;
    front_discard(&front);
    return NULL;
}

void front_discard(struct front **front)
{
    for (size_t i = 0; i < (*front)->n_sockets; i++) {
        struct listening *socket = &(*front)->sockets[i];

        for (uint32_t k = 0; !socket->inherited && k < (*front)->workers; k++) {
            if (socket->fds[k] >= 0)
                close(socket->fds[k]);
        }
        if (!socket->inherited && socket->fds && socket->fds[0] >= 0)
            remove_socket_file(&socket->address);
    }
    front_release(front);
}

void front_remove_files(const struct front *front, const struct front *next)
{
    for (size_t i = 0; i < front->n_sockets; i++) {
        bool kept = false;

        for (size_t j = 0; next && j < next->n_sockets; j++)
            kept |= address_equal(&front->sockets[i].address, &next->sockets[j].address);
        if (!kept)
            remove_socket_file(&front->sockets[i].address);
    }
}

struct front *front_hold(struct front *front)
{
    atomic_fetch_add_explicit(&front->references, 1, memory_order_relaxed);
    return front;
}

void front_release(struct front **front)
{
    struct front *gone = *front;

    *front = NULL;
    if (!gone || atomic_fetch_sub_explicit(&gone->references, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < gone->n_listeners; i++) {
        state_release(&gone->listeners[i].state);
        free(gone->listeners[i].limits.rules);
    }
    rate_rules_release(&gone->rules);
    for (size_t i = 0; i < gone->n_sockets; i++)
        free(gone->sockets[i].fds);
    free(gone->listeners);
    free(gone->sockets);
    farm_release(&gone->farm);
    free(gone);
}
