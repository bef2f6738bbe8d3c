/* Which backends and pools count: those of the farm, and beside them those that it has lost. */
#include <stdlib.h>
#include <string.h>

#include "balancer/placement.h"
#include "counters/counters_internal.h"

#define TOO_MANY "more than 4096: the last by name are not told to the others"

static int by_name(const void *a, const void *b)
{
    const struct counted *x = a, *y = b;

    return strcmp(x->backend->full_name, y->backend->full_name);
}

static const struct counted *known(const struct counters *c, const struct backend *backend)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->counted[i].backend == backend)
            return &c->counted[i];
    return NULL;
}

static bool is_listed(const struct left_behind *left, size_t n, const struct backend *backend)
{
    for (size_t i = 0; i < n; i++)
        if (left[i].backend == backend)
            return true;
    return false;
}

/* Each once, in however many pools it was. Returns how many, of `most`. */
static size_t list_left(struct left_behind *left, size_t most, const struct farm *farm)
{
    size_t n = 0;

    for (size_t i = 0; i < farm->n_leaving && n < most; i++) {
        struct backend *backend = farm->leaving[i].member->backend;

        if (!is_listed(left, n, backend))
            left[n++] = (struct left_behind){ .backend = backend, .published = UINT32_MAX };
    }
    return n;
}

bool counters_enlist(struct counters *c, const struct farm *farm)
{
    size_t n = farm->n_backends, n_pools = farm->n_pools;
    struct counted *counted = calloc(n ? n : 1, sizeof *counted);
    const char **names = calloc(n ? n : 1, sizeof *names);
    uint32_t *others = calloc(n ? n : 1, sizeof *others);
    struct pool_rate *pools = calloc(n_pools ? n_pools : 1, sizeof *pools);
    struct left_behind *left = calloc(farm->n_leaving + 1, sizeof *left);

    if (!counted || !names || !others || !pools || !left) {
        free(counted);
        free(names);
        free(others);
        free(pools);
        free(left);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const struct counted *old = known(c, farm->backends[i]);

        counted[i] = old ? *old
                         : (struct counted){ .backend = farm->backends[i],
                                             .weight = UINT32_MAX,
                                             .feedback.share = FEEDBACK_ALL,
                                             .limit = BACKEND_NO_CEILING };
        counted[i].published = UINT32_MAX; /* the names may be others */
    }
    qsort(counted, n, sizeof *counted, by_name);
    for (size_t i = 0; i < n; i++)
        names[i] = counted[i].backend->full_name;
    for (size_t i = 0; i < n_pools; i++) {
        pools[i].pool = &farm->pools[i];
        pools[i].placements = pool_placements(&farm->pools[i]);
        for (size_t k = 0; k < c->n_pools; k++)
            if (strcmp(c->pools[k].pool->state->name, farm->pools[i].state->name) == 0)
                pools[i].rate = c->pools[k].rate;
    }
    free(c->counted);
    free(c->names);
    free(c->others);
    free(c->pools);
    free(c->left);
    c->counted = counted;
    c->names = names;
    c->others = others;
    c->pools = pools;
    c->n = n;
    c->n_told = n < SNAPSHOT_ENTRIES ? n : SNAPSHOT_ENTRIES;
    c->left = left;
    c->n_left = list_left(left, SNAPSHOT_ENTRIES - c->n_told, farm);
    counters_complain(c, "backends", n > c->n_told ? TOO_MANY : "");
    c->n_pools = n_pools;
    return true;
}
