/*
 * Where a session's errand goes: the pool, by the routes as they are now.
 *
 *      the worker's front ── listener of the same name ── its routes and pool ──▶ chosen for a transaction
 *              │ gone                                                               │
 *              ▼                                                                    ▼ in each attempt
 *      the session's own front ── its listener                                    the pool of that name now
 */
#include <string.h>

#include "proxy/route.h"
#include "proxy/session_internal.h"

/* A session kept for days follows the configuration. NULL: its listener is gone. */
static const struct listener *current_listener(const struct session *s)
{
    const struct front *front = s->worker->front;

    if (front == s->front)
        return s->listener;
    for (size_t i = 0; i < front->n_listeners; i++)
        if (strcmp(front->listeners[i].config->name, s->listener->config->name) == 0)
            return &front->listeners[i];
    return NULL;
}

const struct listener *aim_listener(const struct session *s)
{
    const struct listener *listener = current_listener(s);

    return listener ? listener : s->listener;
}

void session_follow_routes(struct session *s)
{
    /* Once there were routes the question is asked to the end: without them, too, its answer may be another.
     */
    if (!s->prelude && aim_listener(s)->config->n_routes)
        smtp_dialog_follow_routes(&s->dialog);
}

/* Who AUTH claims to be, or who the log says it is. */
static struct smtp_span user_of(const struct session *s, const struct smtp_action_arg *arg)
{
    const char *name = s->dialog.user ? s->dialog.user : s->login;

    if (arg->need.user.data || !name)
        return arg->need.user;
    return (struct smtp_span){ name, strlen(name) };
}

/* Whom a reload shut out keeps the ways of the listener that let it in: behind the new ones, relays may trust
 * whoever comes. */
static bool shut_out(const struct session *s, const struct config_listener *config, bool mail)
{
    return mail && !s->dialog.authenticated &&
           !networks_contain(config->allow_from, config->n_allow_from, &s->peer);
}

static struct farm *choose(const struct session *s, const struct smtp_action_arg *arg, size_t *index)
{
    const struct listener *listener = current_listener(s);
    struct route_question question = { .client = s->nameless ? NULL : &s->peer,
                                       .user = user_of(s, arg),
                                       .domain = arg->need.domain };

    if (listener && shut_out(s, listener->config, arg->need.domain.data))
        listener = NULL;
    *index = route_choose((listener ? listener : s->listener)->config, &question);
    return listener ? s->worker->front->farm : s->front->farm;
}

void aim_take(struct session *s, const struct smtp_action_arg *arg)
{
    struct errand *e = s->errand;
    size_t index;
    struct farm *farm = choose(s, arg, &index);
    struct farm *held = farm == s->front->farm ? NULL : farm_hold(farm);

    /* What was had of another pool is not this one's. */
    if (strcmp(farm->pools[index].config->name, errand_pool(s)->config->name) != 0)
        member_release(&e->member);
    farm_release(&e->farm);
    e->farm = held;
    e->pool = index;
}

bool aim_fits(const struct session *s, const struct smtp_action_arg *arg)
{
    size_t index;
    const struct farm *farm = choose(s, arg, &index);

    return strcmp(farm->pools[index].config->name, errand_pool(s)->config->name) == 0;
}

struct farm *aim_farm(const struct session *s, size_t *index)
{
    struct farm *now = s->worker->front->farm, *chosen = s->errand->farm ? s->errand->farm : s->front->farm;

    *index = s->errand->pool;
    if (now == chosen)
        return now;
    for (size_t i = 0; i < now->n_pools; i++) {
        /* By name: one that was removed and has come back is another object. */
        if (strcmp(now->pools[i].config->name, errand_pool(s)->config->name) == 0) {
            *index = i;
            return now;
        }
    }
    return chosen;
}
