/*
 * What share of a relay's answers was bad in the last ten seconds. Pure.
 *
 * It is fed with totals since the beginning, whenever something bad has come and once a second from then on,
 * so that a relay with which nothing is wrong costs nothing. It opens with the first bad one: what went well
 * before is not known by the second, and does not count.
 */
#ifndef WEIR_HEALTH_WINDOW_H
#define WEIR_HEALTH_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define WINDOW_SECONDS 10
#define WINDOW_LEAST   20 /* fewer answers say nothing */

struct window {
    bool open; /* something bad lies in it: feed it again in a second */
    int64_t second;
    uint64_t seen_total, seen_bad;
    uint32_t total[WINDOW_SECONDS], bad[WINDOW_SECONDS];
};

struct window_share {
    uint32_t total;
    uint32_t thousandths; /* bad ones; 0 where there are none at all */
};

/* `total` and `bad` are counts since the beginning, which never fall; `now` in ms. */
void window_feed(struct window *window, uint64_t total, uint64_t bad, int64_t now);
/* What has come so far says nothing any more. */
void window_forget(struct window *window);
struct window_share window_share(const struct window *window);

#endif
