/*
 * Where not every backend may have every transaction.
 *
 *      MAIL ──▶ no backend at hand ──▶ NEED_BACKEND, for this sender
 *        │
 *        └────▶ one at hand ──▶ ROUTE ──▶ KEEP:  it goes there
 *               not consumed until then   LEAVE: parted with, politely, and MAIL is read again
 *
 * AUTH likewise, for whom it claims to be. A session that has authenticated is its backend's, and nothing is
 * asked.
 */
#include <string.h>

#include "smtp/dialog_internal.h"

void smtp_dialog_follow_routes(struct smtp_dialog *d)
{
    d->routed = true;
}

void route_note_sender(struct smtp_dialog *d, struct smtp_span path)
{
    struct smtp_exchange *x = d->exchange;
    struct smtp_span domain = smtp_path_domain(path);

    x->sender_known = true;
    x->domain_size = domain.size < sizeof x->domain ? domain.size : sizeof x->domain;
    memcpy(x->domain, domain.data, x->domain_size);
}

void route_forget_sender(struct smtp_dialog *d)
{
    d->exchange->sender_known = false;
}

void route_describe(const struct smtp_exchange *x, struct smtp_action_arg *arg)
{
    if (x->sender_known)
        arg->need.domain = (struct smtp_span){ x->domain, x->domain_size };
    else if (x->auth_user_size)
        arg->need.user = (struct smtp_span){ x->auth_user, x->auth_user_size };
}

bool route_settled(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    if (!d->routed)
        return true;
    switch (x->route) {
    case ROUTE_OPEN:
    case ROUTE_HELD:
        x->route = x->count ? ROUTE_HELD : ROUTE_ASKED;
        if (x->route == ROUTE_ASKED)
            route_describe(x, act(d, SMTP_ACTION_ROUTE));
        return false;
    case ROUTE_ASKED: return false;
    case ROUTE_KEPT: x->route = ROUTE_OPEN; return true;
    }
    return false;
}

void route_keep(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    if (!x || x->route != ROUTE_ASKED)
        return; /* it was lost meanwhile */
    x->route = ROUTE_KEPT;
    d->serial++;
}

bool route_waits(const struct smtp_exchange *x)
{
    return x->route == ROUTE_ASKED || (x->route == ROUTE_HELD && x->count);
}
