/*
 * AUTH, relayed (RFC 4954).
 *
 *      AUTH ──▶ a backend is had and greeted ──▶ passed on ──▶ 334 ──▶ response passed on ──▶ … ──▶ 235, 4xx,
 * 5xx │ not consumed until then                     any loss of the backend from here on: 421
 *
 * Weir keeps no credentials: a line waits where it was read, and goes on from there; `secrets` tells the
 * driver to wipe it. So an exchange can't be said again to another backend, and a session that authenticated
 * is its backend's until it ends.
 */
#include <stdlib.h>
#include <string.h>

#include "smtp/auth.h"
#include "smtp/dialog_internal.h"

#define AUTH_FAILURES_MAX 5

static const char relay_gone[] = "421 4.4.2 The relay that you authenticated to was lost\r\n";

uint32_t offered_now(const struct smtp_dialog *d)
{
    uint32_t flags = d->offer.flags;

    if (!d->policy->auth || d->channel == SMTP_CHANNEL_CLEAR)
        flags &= ~(uint32_t)(SMTP_CAP_AUTH | SMTP_CAP_AUTH_MECHANISMS);
    if (d->policy->starttls != SMTP_STARTTLS_OFF && d->channel != SMTP_CHANNEL_TLS)
        flags |= SMTP_CAP_STARTTLS;
    return flags;
}

void forget_authentication(struct smtp_dialog *d)
{
    free(d->user);
    d->user = NULL;
    d->authenticated = false;
}

/* --- the command --- */

static const char *auth_refusal(const struct smtp_dialog *d, struct smtp_span argument,
                                struct smtp_auth *auth)
{
    if (!d->policy->auth)
        return "502 5.5.1 Not implemented here\r\n";
    if (d->channel == SMTP_CHANNEL_CLEAR)
        return "538 5.7.11 AUTH needs an encrypted connection\r\n";
    if (d->authenticated)
        return "503 5.5.1 Authenticated already\r\n";
    if (d->client_state == SMTP_CLIENT_HELO || !d->extended)
        return "503 5.5.1 EHLO comes first\r\n";
    if (d->client_state != SMTP_CLIENT_READY)
        return "503 5.5.1 Not in a transaction\r\n";
    if (!smtp_auth_parse(argument, auth))
        return "501 5.5.2 Bad AUTH: a mechanism and perhaps a response in base64\r\n";
    if (!(auth->mechanism & offered_now(d)))
        return "504 5.5.4 This mechanism is not offered\r\n";
    return NULL;
}

/* A line of the exchange goes to the backend from where it was read; its entry in the queue has no text. */
static void pass_line(struct smtp_dialog *d, struct smtp_span line)
{
    struct smtp_exchange *x = d->exchange;
    struct pending *entry = &x->queue[(x->head + x->count++) % PIPELINE_MAX];

    output_range(&d->wire->backend, line.data, line.size);
    output_copy(&d->wire->backend, "\r\n", 2);
    *entry = (struct pending){ .kind = PENDING_FORWARD, .verb = SMTP_VERB_AUTH, .sent = d->tick };
    x->forwards++;
    x->sent++;
    d->wire->secrets = true;
    d->serial++;
}

static void note_user(struct smtp_dialog *d, struct smtp_span response)
{
    struct smtp_exchange *x = d->exchange;

    x->auth_user_size = smtp_auth_user(x->auth_mechanism, response, x->auth_user);
    x->auth_user_known = true;
}

/* Whom the line claims to be, if it shows that: a route may hang on it. */
static void note_claim(struct smtp_dialog *d, const struct smtp_auth *auth)
{
    struct smtp_exchange *x = d->exchange;

    x->auth_mechanism = auth->mechanism;
    x->auth_user_known = false;
    x->auth_user_size = 0;
    if (auth->response.data)
        note_user(d, auth->response);
}

static void auth_send(struct smtp_dialog *d, const struct smtp_auth *auth)
{
    struct smtp_exchange *x = d->exchange;
    struct smtp_output *out = &d->wire->backend;

    x->auth_wanted = x->auth_bad = false;
    output_copy(out, "AUTH ", 5);
    if (auth->response.data) {
        output_copy(out, auth->name.data, auth->name.size);
        output_copy(out, " ", 1);
        pass_line(d, auth->response);
    } else {
        pass_line(d, auth->name);
    }
    enter_client(d, SMTP_CLIENT_AUTH);
}

static bool auth_told(struct smtp_dialog *d, const char *reply)
{
    d->exchange->auth_wanted = false;
    d->exchange->auth_refused = NULL;
    say(d, reply);
    if (memcmp(reply, "421", 3) == 0)
        close_client(d, SMTP_ENDING_NO_BACKEND);
    return true;
}

/* The backend must take this mechanism, and may be told secrets. */
static bool backend_suits(const struct smtp_exchange *x, const struct smtp_auth *auth)
{
    return (x->backend.flags & auth->mechanism) && (x->secured || x->may_have_secrets);
}

bool on_auth(struct smtp_dialog *d, const struct smtp_command *command)
{
    struct smtp_auth auth = { 0 };
    const char *refusal = auth_refusal(d, command->argument, &auth);
    struct smtp_exchange *x;

    d->wire->secrets = true;
    if (refusal) {
        complain(d, refusal);
        return true;
    }
    if (!exchange_begin(d)) {
        say(d, "451 4.3.0 Out of memory\r\n");
        return true;
    }
    x = d->exchange;
    if (x->auth_refused)
        return auth_told(d, x->auth_refused);
    if (x->backend_state == SMTP_BACKEND_READY && !x->count && backend_suits(x, &auth)) {
        note_claim(d, &auth);
        if (!x->auth_wanted && !route_settled(d, NULL)) /* else it is the one that was wanted for this */
            return false;
        auth_send(d, &auth);
        return true;
    }
    if (x->backend_state == SMTP_BACKEND_READY && x->count)
        return false; /* Weir's own RSET is under way */
    if (x->backend_state == SMTP_BACKEND_READY) {
        /* Good for other things, perhaps, but not for this: the next one. */
        part_backend(d, true, SMTP_LOSS_NONE);
    }
    if (x->backend_state == SMTP_BACKEND_NONE) {
        x->needs = SMTP_CAP_AUTH | auth.mechanism;
        x->declared_size = 0;
        x->auth_wanted = true;
        note_claim(d, &auth);
        backend_want(d);
    }
    return false;
}

/* --- the exchange --- */

/* A line of the client's within the exchange: a response, or "*" to give up (§4). What is neither ends the
 * exchange in the same way, so that the backend never sees it. */
static void auth_response(struct smtp_dialog *d, struct smtp_span line)
{
    struct smtp_exchange *x = d->exchange;
    static const struct smtp_span cancel = { "*", 1 };

    if (line.size == 1 && line.data[0] == '*') {
        pass_line(d, cancel);
    } else if (!smtp_auth_is_base64(line)) {
        x->auth_bad = true;
        pass_line(d, cancel);
    } else {
        if (!x->auth_user_known)
            note_user(d, line);
        pass_line(d, line);
    }
}

/* Lines end as those of commands do: see client_command(). */
size_t client_auth(struct smtp_dialog *d, const char *in, size_t size)
{
    static const struct smtp_span not_base64 = { "?", 1 };
    struct smtp_span answer = { in, 0 };
    const char *lf;
    size_t line;

    if (d->skipping)
        return skip_line(d, in, size);
    if (busy(d))
        return 0;
    d->wire->secrets = true;
    lf = memchr(in, '\n', size);
    line = lf ? (size_t)(lf - in) + 1 : size;
    if (line > SMTP_LINE_AUTH_MAX || (!lf && line == SMTP_LINE_AUTH_MAX)) {
        d->skipping = true;
        auth_response(d, not_base64);
        return skip_line(d, in, size);
    }
    if (!lf)
        return 0;
    answer.size = line - 1;
    if (answer.size && in[answer.size - 1] == '\r') {
        answer.size--;
    } else if (d->policy->newline == SMTP_NEWLINE_REJECT) {
        d->skipping = true;
        answer = not_base64;
    }
    auth_response(d, answer);
    return line;
}

static void auth_succeeded(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    d->authenticated = true;
    if (x->auth_user_size)
        d->user = strndup(x->auth_user, x->auth_user_size);
    enter_client(d, SMTP_CLIENT_READY);
}

/* A relay that can't tell just now (4xx) has not found the password wrong. */
static void auth_failed(struct smtp_dialog *d, int code)
{
    enter_client(d, SMTP_CLIENT_READY);
    /* Nobody holds a place at a relay for having tried a password. */
    if (!d->may_relay)
        part_backend(d, true, SMTP_LOSS_NONE);
    d->auth_failures += code >= 500;
    if (d->auth_failures < AUTH_FAILURES_MAX && ++d->errors < d->policy->max_errors)
        return;
    say(d, "421 4.7.0 Too many failed authentications\r\n");
    close_client(d, SMTP_ENDING_ERRORS);
}

/* The queue's entry is gone already. */
void auth_reply(struct smtp_dialog *d, const char *in, const struct smtp_reply *reply)
{
    struct smtp_exchange *x = d->exchange;

    if (reply->code == 334 && x->auth_bad) {
        backend_lost(d, SMTP_LOSS_GARBAGE); /* the exchange was given up, and it asks on */
    } else if (reply->code == 334) {
        pass_reply(d, in, reply);
        enter_client(d, SMTP_CLIENT_AUTH);
    } else if (reply->code == 235 && !x->auth_bad) {
        pass_reply(d, in, reply);
        auth_succeeded(d);
    } else if (reply->code < 400) {
        backend_lost(d, SMTP_LOSS_GARBAGE);
    } else {
        if (x->auth_bad)
            say(d, "501 5.5.2 Not base64\r\n");
        else
            pass_reply(d, in, reply);
        auth_failed(d, reply->code);
    }
}

/* --- the backend's loss --- */

/* True if that is what has to be said and done. */
bool auth_lost(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    if (d->client_state == SMTP_CLIENT_AUTH) {
        say(d, relay_gone);
        queue_clear(x);
        close_client(d, SMTP_ENDING_NO_BACKEND);
        return true;
    }
    if (x->auth_wanted) {
        backend_want(d);
        return true;
    }
    if (d->authenticated && x->open && !x->committed && x->body == BODY_NONE) {
        gate_take_back(d);
        session_give_up(d, relay_gone);
        return true;
    }
    return false;
}

/* No backend is to be had for the AUTH that waits: it is told so when it is read again. */
bool auth_backend_refused(struct smtp_dialog *d, const char *reply)
{
    struct smtp_exchange *x = d->exchange;

    if (!x->auth_wanted)
        return false;
    x->auth_refused =
        memcmp(reply, "421", 3) == 0 ? reply : "454 4.7.0 No relay can authenticate you now\r\n";
    return true;
}

/* A session that authenticated can't have another backend. */
bool auth_mail_refused(struct smtp_dialog *d)
{
    if (!d->authenticated || (d->exchange && d->exchange->backend_state == SMTP_BACKEND_READY))
        return false;
    say(d, relay_gone);
    close_client(d, SMTP_ENDING_NO_BACKEND);
    return true;
}
