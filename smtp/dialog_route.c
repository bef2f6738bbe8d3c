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
#include <assert.h>

#include "smtp/dialog_internal.h"

void smtp_dialog_follow_routes(struct smtp_dialog *d)
{
    d->routed = true;
}

static void describe_claim(const struct smtp_exchange *x, struct smtp_action_arg *arg)
{
    if (x->auth_user_size)
        arg->need.user = (struct smtp_span){ x->auth_user, x->auth_user_size };
}

void route_describe(const struct smtp_exchange *x, struct smtp_action_arg *arg)
{
    if (x->auth_wanted) {
        describe_claim(x, arg);
        return;
    }
    /* The transaction can still move, so nothing of it has been answered. */
    assert(x->count && x->queue[x->head].verb == SMTP_VERB_MAIL);
    arg->need.domain =
        smtp_path_domain((struct smtp_span){ x->text + x->text_start + sizeof MAIL_FROM - 1, x->path_size });
}

static void ask(struct smtp_dialog *d, const struct smtp_span *path)
{
    struct smtp_action_arg *arg = act(d, SMTP_ACTION_ROUTE);

    d->exchange->route = ROUTE_ASKED;
    if (path)
        arg->need.domain = smtp_path_domain(*path);
    else
        describe_claim(d->exchange, arg);
}

bool route_settled(struct smtp_dialog *d, const struct smtp_span *path)
{
    struct smtp_exchange *x = d->exchange;

    if (!d->routed)
        return true;
    switch (x->route) {
    case ROUTE_OPEN:
    case ROUTE_HELD:
        if (x->count)
            x->route = ROUTE_HELD;
        else
            ask(d, path);
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
