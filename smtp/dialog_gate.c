/*
 * Limits that the driver keeps count of: each message, and each recipient, is asked about before it goes into
 * the queue for a backend.
 *
 *      MAIL, RCPT ──▶ gate ──▶ 0: counted, and goes its way
 *                       └────▶ ms: 450, behind the replies to what was sent before
 *
 * What no backend could be had for is taken back: it has cost nobody anything.
 *
 * Asked once, however often the command is read again: the answer is kept until it is consumed. What is sent
 * again to another backend was asked about before.
 */
#include <inttypes.h>
#include <stdio.h>

#include "smtp/dialog_internal.h"

#define REPLY_MAX 64

void smtp_dialog_limit(struct smtp_dialog *d, const struct smtp_gate *gate)
{
    d->gate = gate;
}

bool gate_lets_mail(struct smtp_dialog *d, struct smtp_span path)
{
    if (!d->gate)
        return true;
    if (!d->gate_asked) {
        d->gate_wait = d->gate->message(d->gate->arg, smtp_path_domain(path));
        d->gate_asked = true;
    }
    return !d->gate_wait;
}

bool gate_lets_recipient(struct smtp_dialog *d)
{
    if (!d->gate)
        return true;
    if (!d->gate_asked) {
        d->gate_wait = d->gate->recipient(d->gate->arg);
        d->gate_asked = true;
    }
    return !d->gate_wait;
}

/* Nobody has answered MAIL yet, so nobody has any of its recipients, nor the one that was let in and has
 * found no room behind the others. */
void gate_take_back(struct smtp_dialog *d)
{
    const struct smtp_exchange *x = d->exchange;
    bool one_more = d->gate_asked && !d->gate_wait;

    if (!d->gate || !x->open || x->committed)
        return;
    d->gate->take_back(d->gate->arg, x->outstanding_recipients + one_more);
    d->gate_asked = false;
}

/* RFC 3463: 4.7.1, a matter of policy; to come again later helps. */
static void refuse(struct smtp_dialog *d, const char *what, char reply[REPLY_MAX])
{
    uint32_t seconds = d->gate_wait / 1000 + (d->gate_wait % 1000 != 0);

    (void)snprintf(reply, REPLY_MAX, "450 4.7.1 Too many %s; try again in %" PRIu32 " s\r\n", what, seconds);
    say(d, reply);
}

void gate_refuse_mail(struct smtp_dialog *d)
{
    char reply[REPLY_MAX];

    /* Who goes on asking although he was told when to come again is not let do so for ever. */
    if (!chatters_on(d))
        refuse(d, "messages", reply);
}

void gate_refuse_recipient(struct smtp_dialog *d)
{
    struct smtp_transaction *t = &d->exchange->transaction;
    char reply[REPLY_MAX];

    refuse(d, "recipients", reply);
    transaction_note_own(d, reply);
    t->recipients++;
    enter_client(d, SMTP_CLIENT_RCPT);
}
