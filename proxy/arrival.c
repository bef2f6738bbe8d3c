/*
 * A session's arrival: who the client is, whether it is welcome, and what it may do.
 *
 *   accepted ──▶ in proxy-protocol-from? ──▶ the header is awaited ──▶ welcome or 421 ──▶ implicit TLS? ──▶
 *                       └── no ────────────────────────────────────────▲                 (handshake)
 *   ──▶ the dialog begins
 *   XCLIENT from one in xclient-from: the same questions again, about somebody else
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/log.h"
#include "net/proxy_header.h"
#include "proxy/record.h"
#include "proxy/route.h"
#include "proxy/session_internal.h"

#define PRELUDE_MS 5000 /* for a PROXY header, which a balancer sends at once */

/* Count the session in. NULL: welcome; else the refusal. */
static const char *admit(const struct listener *listener, const struct peer *peer)
{
    const struct config_listener *config = listener->config;
    uint32_t sessions = atomic_fetch_add_explicit(&listener->state->sessions, 1, memory_order_relaxed);

    if (sessions >= config->max_connections) {
        atomic_fetch_sub_explicit(&listener->state->sessions, 1, memory_order_relaxed);
        return "421 4.7.0 Too many connections\r\n";
    }
    if (config->max_connections_per_client &&
        !clients_enter(listener->state->clients, config->name, peer, config->max_connections_per_client)) {
        atomic_fetch_sub_explicit(&listener->state->sessions, 1, memory_order_relaxed);
        return "421 4.7.0 Too many connections from your address\r\n";
    }
    return NULL;
}

static bool may_relay(const struct session *s)
{
    const struct config_listener *config = s->listener->config;

    return !s->nameless && networks_contain(config->allow_from, config->n_allow_from, &s->peer);
}

/* The dialog begins, or is over at once. */
static void begin_dialog(struct session *s, const char *refusal)
{
    struct worker *worker = s->worker;
    const struct config_listener *config = s->listener->config;
    bool trusted = !s->nameless && networks_contain(config->xclient_from, config->n_xclient_from, &s->peer);
    /* Who may say XCLIENT may come to be anybody. */
    struct smtp_capabilities offer =
        route_offer(s->front->farm, config, s->nameless ? NULL : &s->peer, trusted);

    s->prelude = PRELUDE_NONE;
    s->deadline = s->fires = 0;
    ev_timer_stop(worker->loop, &s->timer);
    smtp_dialog_init(&s->dialog, &s->listener->policy, &worker->wire, &offer, may_relay(s));
    if (stream_tls(&s->client, NULL))
        smtp_dialog_protect(&s->dialog, SMTP_CHANNEL_TLS);
    else if (s->local_channel)
        smtp_dialog_protect(&s->dialog, SMTP_CHANNEL_LOCAL);
    if (trusted)
        smtp_dialog_trust_xclient(&s->dialog);
    session_follow_routes(s);
    session_follow_limits(s);
    if (refusal)
        session_event(s, &(struct smtp_event){ .kind = SMTP_EVENT_REFUSE, .reply = refusal });
    else
        session_event(s, &(struct smtp_event){ .kind = SMTP_EVENT_START });
}

static void prelude(struct session *s, enum prelude what, uint32_t limit)
{
    s->prelude = (uint8_t)what;
    s->deadline = s->fires = s->worker->now + limit;
    ev_timer_stop(s->worker->loop, &s->timer);
    ev_timer_set(&s->timer, limit / 1000., 0.);
    ev_timer_start(s->worker->loop, &s->timer);
}

/* Who the client is is known: it is welcome or not. Under implicit TLS there is nothing to say before the
 * handshake, and no handshake is made for somebody who is not welcome. */
static void welcome(struct session *s)
{
    struct worker *worker = s->worker;
    const struct config_listener *config = s->listener->config;
    const char *refusal = admit(s->listener, &s->peer);

    s->counted = !refusal;
    stat_add(refusal ? &worker->stats.sessions_refused : &worker->stats.sessions_total, 1);
    if (config->tls != CONFIG_TLS_IMPLICIT) {
        begin_dialog(s, refusal);
        return;
    }
    prelude(s, PRELUDE_HANDSHAKE, session_handshake_limit(s));
    /* What came behind a PROXY header in the same segment was read already. */
    if (refusal || stream_accept_tls(&s->client, config->tls_server, s->input.data, s->input.size) != 0) {
        session_free(s);
        return;
    }
    s->input.size = 0;
    input_drop(&s->input);
}

/* Never guess (smtp.md "PROXY protocol"): whoever should send the header and does not is closed without a
 * word. */
static void header_failed(struct session *s, const char *why)
{
    char text[ADDRESS_TEXT_MAX];

    log_message(LOG_LEVEL_WARNING, "proxy-header", "%s: %s", peer_format(&s->peer, true, text), why);
    stat_add(&s->worker->stats.sessions_refused, 1);
    session_free(s);
}

static void read_header(struct session *s)
{
    struct proxy_header header;
    ssize_t n = session_read(s, &s->client, &s->input, PROXY_HEADER_MAX);
    int size;

    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        header_failed(s, "closed before its PROXY header had come");
        return;
    }
    size = proxy_header_parse(s->input.data, s->input.size, &header);
    if (size < 0) {
        header_failed(s, "no PROXY header, or a malformed one");
        return;
    }
    if (size == 0) {
        input_keep(&s->input);
        return;
    }
    s->input.data += size;
    s->input.size -= (size_t)size;
    /* Over a Unix socket comes the balancer; what lies before it is its affair, if it says so. */
    s->local_channel = s->local_channel && header.tls;
    s->nameless = !header.has_addresses;
    if (header.has_addresses) {
        s->peer = header.source;
        s->local = header.destination;
    }
    welcome(s);
}

/* The handshake of implicit TLS has ended, well or not. */
static void handshake_ended(struct session *s, enum stream_event event)
{
    if (event == STREAM_READABLE && stream_read(&s->client, s->worker->buffer, 1) == -EAGAIN)
        return;
    record_client_handshake(s);
    if (event == STREAM_SECURED)
        begin_dialog(s, NULL);
    else
        session_free(s);
}

void arrival_event(struct session *s, enum stream_event event)
{
    if (event == STREAM_DRAINED)
        return;
    if (s->prelude == PRELUDE_HEADER)
        read_header(s);
    else
        handshake_ended(s, event);
}

void arrival_timeout(struct session *s)
{
    if (s->prelude == PRELUDE_HEADER) {
        header_failed(s, "no PROXY header in time");
        return;
    }
    record_client_handshake(s);
    session_free(s);
}

const struct peer *session_local(struct session *s)
{
    union {
        struct sockaddr sa;
        struct sockaddr_storage storage;
    } address = { 0 };
    socklen_t length = sizeof address;

    if (s->local.family == 0 && getsockname(s->client.io.fd, &address.sa, &length) == 0)
        peer_from_sockaddr(&s->local, &address.sa);
    return &s->local;
}

static bool counts_as(const struct peer *one, const struct peer *other)
{
    uint8_t keys[2][17];

    peer_client_key(one, keys[0]);
    peer_client_key(other, keys[1]);
    return memcmp(keys[0], keys[1], sizeof keys[0]) == 0;
}

/* The client has said who it speaks for. */
void arrival_anew(struct session *s, const struct smtp_xclient *xclient)
{
    const struct config_listener *config = s->listener->config;
    struct clients *clients = s->listener->state->clients;
    struct peer before = s->peer;
    bool limited = s->counted && config->max_connections_per_client;

    if (xclient->given & SMTP_XCLIENT_ADDR) {
        s->nameless = xclient->family == 0;
        if (!s->nameless) {
            s->peer.family = xclient->family;
            memcpy(s->peer.ip, xclient->ip, sizeof s->peer.ip);
            s->peer.port = 0;
        }
    }
    if (xclient->given & SMTP_XCLIENT_PORT)
        s->peer.port = xclient->port;
    if (xclient->given & SMTP_XCLIENT_LOGIN) {
        free(s->login);
        s->login = xclient->login_size ? strndup(xclient->login, xclient->login_size) : NULL;
    }
    smtp_dialog_allow(&s->dialog, may_relay(s));
    /* Who is in stays in, whatever has been heard of the others since. */
    if (!limited || counts_as(&before, &s->peer))
        return;
    clients_leave(clients, config->name, &before);
    if (clients_enter(clients, config->name, &s->peer, config->max_connections_per_client))
        return;
    /* Counted out as one of its address, so the listener's count alone is given back at the end. */
    atomic_fetch_sub_explicit(&s->listener->state->sessions, 1, memory_order_relaxed);
    s->counted = false;
    s->answer = (struct smtp_event){ .kind = SMTP_EVENT_REFUSE,
                                     .reply = "421 4.7.0 Too many connections from your address\r\n" };
    s->has_answer = true;
}

void session_leave_listener(const struct listener *listener, const struct peer *peer)
{
    if (listener->config->max_connections_per_client)
        clients_leave(listener->state->clients, listener->config->name, peer);
    atomic_fetch_sub_explicit(&listener->state->sessions, 1, memory_order_relaxed);
}

void arrival_begin(struct session *s)
{
    const struct config_listener *config = s->listener->config;

    s->local_channel = s->peer.family == AF_UNIX;
    if (networks_contain(config->proxy_protocol_from, config->n_proxy_protocol_from, &s->peer))
        prelude(s, PRELUDE_HEADER, PRELUDE_MS);
    else
        welcome(s);
}
