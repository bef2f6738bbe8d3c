/*
 * What an instance thinks of a backend, as it stands in the hash health:<id>: one line for operators with
 * redis-cli, for weirctl, and for instances that resync.
 *
 *     state=up since=1790000000000 limit=40 found=25 admin=ready weight=4 configured=4 max=200
 *         address=10.0.0.11:25 pools=relays reason=whatever, to the end
 *
 * `limit` is the overload limit that it goes by, `found` the one that it has found itself: "none" where it
 * has seen replies and found none, "unknown" where it has seen none. Pure; what is read is hostile.
 */
#ifndef WEIR_COUNTERS_VERDICT_H
#define WEIR_COUNTERS_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The word behind "key=", cut to `size` octets with its NUL; of "reason" all that follows. False: there is
 * none, and `out` is "". */
bool verdict_word(const char *verdict, const char *key, char *out, size_t size);

/* What was found out, as in a snapshot: whether it can't be reached, and the overload limit: 0 none,
 * UINT32_MAX unknown. What is not as above says nothing. */
void verdict_finding(const char *verdict, bool *down, uint32_t *found);
/* The text of `found`. Returns `out`. */
const char *verdict_found(uint32_t found, char out[16]);

#endif
