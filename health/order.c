#include "health/order.h"

#include <assert.h>

static const char *const names[] = { "operator", "farm", "agent", "queue", "peers" };
static_assert(sizeof names / sizeof *names == ORDER_SOURCES, "a name for each source");

const struct order order_none = {
    .admin = BACKEND_READY,
    .weight = ORDER_NO_WEIGHT,
    .share = ORDER_ALL,
    .limit = BACKEND_NO_CEILING,
};

const char *order_source_name(enum order_source source)
{
    return names[source];
}

void orders_init(struct orders *orders)
{
    for (int i = 0; i < ORDER_SOURCES; i++)
        orders->by[i] = order_none;
}

struct order orders_fold(const struct orders *orders)
{
    struct order folded = order_none;

    for (int i = 0; i < ORDER_SOURCES; i++) {
        const struct order *order = &orders->by[i];

        if (order->admin > folded.admin)
            folded.admin = order->admin;
        if (folded.weight == ORDER_NO_WEIGHT)
            folded.weight = order->weight;
        folded.share = (uint32_t)((uint64_t)folded.share * order->share / ORDER_ALL);
        if (order->limit < folded.limit)
            folded.limit = order->limit;
    }
    return folded;
}

enum order_source orders_admin_source(const struct orders *orders)
{
    enum order_source source = ORDER_OPERATOR;

    for (int i = 1; i < ORDER_SOURCES; i++)
        if (orders->by[i].admin > orders->by[source].admin)
            source = (enum order_source)i;
    return source;
}
