/* What the view means here: to the balancer, and to health. */
#include <stdlib.h>

#include "balancer/placement.h"
#include "counters/counters_internal.h"

/* Of the room on a backend an instance gets 2/N at a time, so that N of them don't fill it N times. Each gets
 * it so often that one alone, to which all the clients of a moment have come, fills two thirds of it within
 * half a second, however many there are (from 28 on it takes longer). */
static bool is_allowance_old(const struct counters *c, uint32_t instances, int64_t now)
{
    int64_t period = COUNTERS_ANEW / instances;

    return now - c->allowed_at >= (period > COUNTERS_TICK ? period : COUNTERS_TICK);
}

bool counters_allows_anew(const struct counters *c, uint32_t instances, int64_t now)
{
    return c->allowance_due && is_allowance_old(c, instances, now);
}

void counters_apply(struct counters *c, int64_t now)
{
    struct backend_news news = { .instances = view_instances(&c->view, now), .share = view_share(&c->view) };
    uint64_t own = 0, others = 0;
    bool more = false;

    news.anew = is_allowance_old(c, news.instances, now);
    view_held(&c->view, c->names, c->n, c->others, now);
    for (size_t i = 0; i < c->n; i++) {
        news.others = c->others[i];
        more |= backend_set_news(c->counted[i].backend, &news);
        own += atomic_load_explicit(&c->counted[i].backend->connections, memory_order_relaxed);
        others += c->others[i];
    }
    for (size_t i = 0; i < c->n_pools; i++) {
        struct pool_news pool = { .others = news.instances > 1 || others > 0, .own_rate = c->pools[i].rate };

        view_rates(&c->view, c->pools[i].pool->state->name, now, &pool.others_rate, &pool.others_at);
        pool_set_news(c->pools[i].pool, &pool);
    }
    view_note_share(&c->view, own, others, now);
    pthread_mutex_lock(&c->status_lock);
    c->status.instances = news.instances;
    pthread_mutex_unlock(&c->status_lock);
    c->news = false;
    c->allowance_due = !news.anew;
    if (news.anew)
        c->allowed_at = now;
    if (more)
        placement_serve(c->farm, now);
}

void counters_hear(struct counters *c, int64_t now)
{
    uint32_t *scratch = calloc(c->view.n ? c->view.n : 1, sizeof *scratch),
             instances = view_instances(&c->view, now);

    c->heard_at = now;
    for (size_t i = 0; scratch && i < c->n; i++) {
        struct counted *counted = &c->counted[i];
        uint32_t down, limit;

        view_verdict(&c->view, c->names[i], scratch, &down, &limit, now);
        /* Few of many may become most of few. */
        if (down == counted->down && limit == counted->limit && (!down || instances == counted->instances))
            continue;
        counted->down = down;
        counted->instances = instances;
        counted->limit = limit;
        c->ops.hear(c->ops.arg, counted->backend, down, instances, limit);
    }
    free(scratch);
}
