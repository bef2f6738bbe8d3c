/*
 * Routes: which pool takes what comes to a listener.
 *
 * What a route asks for is known bit by bit: the client from the beginning, the user from AUTH or XCLIENT on,
 * the sender at MAIL. EHLO comes before most of it, so what it offers is what every pool can do that might
 * still be chosen.
 */
#ifndef WEIR_PROXY_ROUTE_H
#define WEIR_PROXY_ROUTE_H

#include "balancer/farm.h"
#include "smtp/command.h"

/* As far as it is known. What is not fits no condition. */
struct route_question {
    const struct peer *client;     /* NULL: nobody knows */
    struct smtp_span user, domain; /* data NULL: not known; the domain may be empty */
};

/* The index of a pool, in the listener's configuration. Pure. */
size_t route_choose(const struct config_listener *listener, const struct route_question *question);

/* What EHLO may offer a client: what all pools carry that it may be sent to, and the smallest of their size
 * limits. The mechanisms of AUTH are those of the pools that AUTH may go to, which a sender's domain leads to
 * none of. `anybody`: the client may yet turn out to be another. */
struct smtp_capabilities route_offer(const struct farm *farm, const struct config_listener *listener,
                                     const struct peer *client, bool anybody);

#endif
