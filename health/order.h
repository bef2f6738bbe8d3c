/*
 * Orders: who has a say about a backend besides what Weir sees of its health. Pure.
 *
 * Each source has one word on each backend, which it alone takes back. Words add up: the strictest admin
 * state, the smallest limit, the product of the shares. A weight is the operator's, else the farm's, else the
 * configuration's.
 */
#ifndef WEIR_HEALTH_ORDER_H
#define WEIR_HEALTH_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "balancer/backend.h"

enum order_source {
    ORDER_OPERATOR, /* of this instance: weirctl */
    ORDER_FARM,     /* an operator's for all instances: Redis */
    ORDER_AGENT,    /* the relay's own, by its agent */
    ORDER_QUEUE,    /* the relay's own, by the queue depth it writes to Redis */
    ORDER_PEERS,    /* other instances', by the overload limits that they have found */
};
#define ORDER_SOURCES (ORDER_PEERS + 1)
const char *order_source_name(enum order_source source);

#define ORDER_NO_WEIGHT UINT32_MAX
#define ORDER_ALL       1000 /* thousandths */

struct order {
    enum backend_admin admin;
    uint32_t weight; /* in place of the configured one; ORDER_NO_WEIGHT: no word on it */
    uint32_t share;  /* thousandths of the weight */
    uint32_t limit;  /* places; BACKEND_NO_CEILING: no word on it */
};
extern const struct order order_none; /* no word on anything */

struct orders {
    struct order by[ORDER_SOURCES];
};
void orders_init(struct orders *orders);
/* What they come to. */
struct order orders_fold(const struct orders *orders);
/* Whose word the folded admin state is; of several, the first in the order of the enum. */
enum order_source orders_admin_source(const struct orders *orders);

#endif
