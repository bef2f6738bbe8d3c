#include "health/window.h"

#include <string.h>

static void advance(struct window *window, int64_t second)
{
    int64_t passed = second - window->second;

    window->second = second;
    for (int64_t i = 0; i < passed && i < WINDOW_SECONDS; i++) {
        window->total[(second - i) % WINDOW_SECONDS] = 0;
        window->bad[(second - i) % WINDOW_SECONDS] = 0;
    }
}

static bool any_bad(const struct window *window)
{
    for (int i = 0; i < WINDOW_SECONDS; i++)
        if (window->bad[i])
            return true;
    return false;
}

void window_feed(struct window *window, uint64_t total, uint64_t bad, int64_t now)
{
    int64_t second = now / 1000;
    uint64_t more = total - window->seen_total, more_bad = bad - window->seen_bad;

    window->seen_total = total;
    window->seen_bad = bad;
    if (!window->open && !more_bad)
        return;
    if (window->open) {
        advance(window, second);
    } else {
        memset(window->total, 0, sizeof window->total);
        memset(window->bad, 0, sizeof window->bad);
        window->second = second;
        more = more_bad; /* the good ones may be of yesterday */
    }
    window->total[second % WINDOW_SECONDS] += (uint32_t)more;
    window->bad[second % WINDOW_SECONDS] += (uint32_t)more_bad;
    window->open = any_bad(window);
}

void window_forget(struct window *window)
{
    window->open = false;
}

struct window_share window_share(const struct window *window)
{
    struct window_share share = { 0 };
    uint64_t bad = 0;

    if (!window->open)
        return share;
    for (int i = 0; i < WINDOW_SECONDS; i++) {
        share.total += window->total[i];
        bad += window->bad[i];
    }
    /* Counters of several workers are not read at one moment. */
    if (share.total)
        share.thousandths = bad >= share.total ? 1000 : (uint32_t)(bad * 1000 / share.total);
    return share;
}
