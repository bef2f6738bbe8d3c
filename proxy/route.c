#include "proxy/route.h"

#include "config/glob.h"

#define AUTHENTICATION ((uint32_t)(SMTP_CAP_AUTH | SMTP_CAP_AUTH_MECHANISMS))

/* --- the choice --- */

static bool client_fits(const struct config_route *route, const struct peer *client)
{
    return !route->n_clients || (client && networks_contain(route->clients, route->n_clients, client));
}

static bool any_fits(char *const *globs, size_t n, struct smtp_span text, bool fold)
{
    if (n && !text.data)
        return false;
    for (size_t i = 0; i < n; i++)
        if (glob_matches(globs[i], text.data, text.size, fold))
            return true;
    return n == 0;
}

size_t route_choose(const struct config_listener *listener, const struct route_question *question)
{
    for (size_t i = 0; i < listener->n_routes; i++) {
        const struct config_route *route = &listener->routes[i];

        if (client_fits(route, question->client) &&
            any_fits(route->users, route->n_users, question->user, false) &&
            any_fits(route->sender_domains, route->n_sender_domains, question->domain, true))
            return route->pool;
    }
    return listener->pool;
}

/* --- the offer --- */

struct offer {
    struct smtp_capabilities common;
    bool begun;
};

static void add_pool(struct offer *offer, const struct pool *pool)
{
    struct smtp_capabilities own = pool_offer(pool);

    if (offer->begun)
        smtp_capabilities_intersect(&offer->common, &own);
    else
        offer->common = own;
    offer->begun = true;
}

/* The pools that may still be chosen; `auth`: by AUTH, which knows of no sender. */
static struct smtp_capabilities common_offer(const struct farm *farm, const struct config_listener *listener,
                                             const struct peer *client, bool anybody, bool auth)
{
    struct offer offer = { 0 };

    for (size_t i = 0; i < listener->n_routes; i++) {
        const struct config_route *route = &listener->routes[i];

        if ((auth && route->n_sender_domains) || (!anybody && !client_fits(route, client)))
            continue;
        add_pool(&offer, &farm->pools[route->pool]);
        if (!route->n_users && !route->n_sender_domains && !(anybody && route->n_clients))
            return offer.common; /* nothing gets beyond it */
    }
    add_pool(&offer, &farm->pools[listener->pool]);
    return offer.common;
}

struct smtp_capabilities route_offer(const struct farm *farm, const struct config_listener *listener,
                                     const struct peer *client, bool anybody)
{
    struct smtp_capabilities offer = common_offer(farm, listener, client, anybody, false), auth;

    if (listener->n_routes) {
        auth = common_offer(farm, listener, client, anybody, true);
        offer.flags = (offer.flags & ~AUTHENTICATION) | (auth.flags & AUTHENTICATION);
    }
    return offer;
}
