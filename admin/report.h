/*
 * What Weir says of itself as JSON: over the control socket and in /api/status, the same.
 *
 * Times are Unix seconds, durations seconds. Whatever a peer sent is made valid UTF-8 first. NULL: out of
 * memory; so is every function here that takes such a NULL.
 */
#ifndef WEIR_ADMIN_REPORT_H
#define WEIR_ADMIN_REPORT_H

#include <jansson.h>

#include "admin/http.h"
#include "admin/report_text.h"
#include "admin/roster.h"

/* An array: one object for each backend of each pool. Any thread. */
json_t *report_backends(const struct farm *farm);
/* The whole in one object. Any thread. */
json_t *report_status(const struct admin_ops *ops, const struct farm *farm);
/* An array of one: this instance. */
json_t *report_instances(const struct admin_ops *ops, const struct farm *farm);
json_t *report_sessions(const struct roster *roster);

#endif
