#include "tests/sim/spread.h"

#include <stdlib.h>
#include <string.h>

void spread_add(struct spread *spread, double value)
{
    if (spread->n == spread->size) {
        spread->size = spread->size ? 2 * spread->size : 4096;
        spread->values = realloc(spread->values, spread->size * sizeof *spread->values);
        if (!spread->values)
            abort();
    }
    spread->values[spread->n++] = (float)value;
    spread->sum += value;
}

double spread_mean(const struct spread *spread)
{
    return spread->n ? spread->sum / (double)spread->n : 0;
}

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

double spread_quantile(struct spread *spread, double share)
{
    size_t at = (size_t)(share * (double)spread->n);

    if (!spread->n)
        return 0;
    qsort(spread->values, spread->n, sizeof *spread->values, compare);
    return (double)spread->values[at < spread->n ? at : spread->n - 1];
}

void spread_free(struct spread *spread)
{
    free(spread->values);
    memset(spread, 0, sizeof *spread);
}
