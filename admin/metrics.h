/*
 * The figures of this instance in Prometheus' text format, version 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/).
 */
#ifndef WEIR_ADMIN_METRICS_H
#define WEIR_ADMIN_METRICS_H

#include <stdio.h>

#include "admin/http.h"
#include "balancer/farm.h"
#include "counters/rate.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Write all of them. Any thread. A histogram of a backend is written from its first observation on. */
void metrics_write(FILE *out, const struct farm *farm, const struct admin_counters *counters,
                   const struct counters_status *shared);
/* What goes behind them where there are limits. */
void metrics_write_limits(FILE *out, const struct rate_rules *rules);

#endif
