/*
 * STARTTLS on both sides (RFC 3207). The handshakes are the driver's; here it is decided when they begin, and
 * what is forgotten behind them: everything that was said in the clear.
 */
#include <stdlib.h>

#include "smtp/dialog_internal.h"

/* --- the client's side --- */

/* RFC 3207 §4.2. What XCLIENT said of its name is not the client's own word, and stays. */
static void forget_client(struct smtp_dialog *d)
{
    forget_authentication(d);
    d->extended = false;
    if (d->helo_given)
        return;
    free(d->helo);
    d->helo = NULL;
}

bool on_starttls(struct smtp_dialog *d, const struct smtp_command *command)
{
    if (d->policy->starttls == SMTP_STARTTLS_OFF) {
        complain(d, "502 5.5.1 Not implemented here\r\n");
    } else if (command->argument.size) {
        complain(d, "501 5.5.4 STARTTLS takes no argument\r\n");
    } else if (d->channel == SMTP_CHANNEL_TLS) {
        complain(d, "503 5.5.1 TLS is active already\r\n");
    } else {
        transaction_leave(d, false);
        part_backend(d, true, SMTP_LOSS_NONE);
        forget_client(d);
        say(d, "220 2.0.0 Ready to start TLS\r\n");
        enter_client(d, SMTP_CLIENT_TLS);
        act(d, SMTP_ACTION_STARTTLS_CLIENT);
    }
    return true;
}

void client_secured(struct smtp_dialog *d)
{
    if (d->client_state != SMTP_CLIENT_TLS)
        return;
    d->channel = SMTP_CHANNEL_TLS;
    enter_client(d, SMTP_CLIENT_HELO);
}

/* --- the backend's side --- */

/* Its EHLO is read. True if TLS comes next, or the backend had to be given up. */
bool backend_tls_begin(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    switch ((enum smtp_backend_tls)d->backend_tls) {
    case SMTP_BACKEND_TLS_OFF:
    case SMTP_BACKEND_TLS_IMPLICIT: return false;
    case SMTP_BACKEND_TLS_OPPORTUNISTIC:
        if (x->in_clear || !(x->backend.flags & SMTP_CAP_STARTTLS))
            return false;
        break;
    case SMTP_BACKEND_TLS_REQUIRED: break;
    }
    if (x->secured || x->introduced)
        return false;
    if (!(x->backend.flags & SMTP_CAP_STARTTLS)) {
        backend_lost(d, SMTP_LOSS_TLS);
        return true;
    }
    output_copy(&d->wire->backend, "STARTTLS\r\n", 10);
    enter_backend(d, SMTP_BACKEND_STARTTLS);
    return true;
}

/* True: the dialogue goes on in the clear. */
bool starttls_reply(struct smtp_dialog *d, const struct smtp_reply *reply)
{
    if (reply->code == 220) {
        enter_backend(d, SMTP_BACKEND_TLS);
        act(d, SMTP_ACTION_STARTTLS_BACKEND);
        return false;
    }
    if (reply->code >= 400 && reply->code != 421 && d->backend_tls == SMTP_BACKEND_TLS_OPPORTUNISTIC) {
        d->exchange->in_clear = true;
        return true;
    }
    backend_lost(d, reply->code == 421 ? SMTP_LOSS_BUSY : SMTP_LOSS_TLS);
    return false;
}

/* A handshake that was only tried for the better has failed: the same backend once more, without. Never where
 * credentials are to follow, now or later: who breaks handshakes may be waiting for just that. */
bool backend_retry_in_clear(struct smtp_dialog *d, enum smtp_loss loss)
{
    struct smtp_exchange *x = d->exchange;

    if (x->backend_state != SMTP_BACKEND_TLS || d->backend_tls != SMTP_BACKEND_TLS_OPPORTUNISTIC ||
        x->auth_wanted || !x->open || loss == SMTP_LOSS_DOWN)
        return false;
    x->in_clear = true;
    x->may_have_secrets = false;
    enter_backend(d, SMTP_BACKEND_BANNER);
    act(d, SMTP_ACTION_RECONNECT_BACKEND);
    return true;
}
