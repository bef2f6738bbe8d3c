/* Values of which quantiles are wanted. */
#ifndef WEIR_TESTS_SIM_SPREAD_H
#define WEIR_TESTS_SIM_SPREAD_H

#include <stddef.h>

struct spread {
    size_t n, size;
    float *values;
    double sum;
};

void spread_add(struct spread *spread, double value);
double spread_mean(const struct spread *spread); /* 0 of none */
/* Sorts. 0 of none. */
double spread_quantile(struct spread *spread, double share);
void spread_free(struct spread *spread);

#endif
