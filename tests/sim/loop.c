#include "tests/sim/loop.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>

#include "tests/sim/calendar.h"
#include "tests/sim/draw.h"

struct ev_loop {
    int references;
};

/* A watcher's event. The watcher's `active` is its index, from 1, as libev keeps its own. */
struct watch {
    struct event event;
    ev_watcher *watcher; /* NULL: free */
    ev_tstamp repeat;
    int reason; /* EV_TIMER or EV_ASYNC */
};

static struct ev_loop the_loop;
static struct watch **watches;
static int n_watches;

struct ev_loop *loop_virtual(void)
{
    return &the_loop;
}

static void on_event(struct event *event)
{
    struct watch *watch = CALENDAR_OF(event, struct watch, event);
    ev_watcher *watcher = watch->watcher;

    if (watch->repeat > 0) {
        calendar_set(event, calendar_now() + watch->repeat);
    } else if (watch->reason == EV_TIMER) {
        watcher->active = 0;
        watch->watcher = NULL;
    }
    watcher->cb(&the_loop, watcher, watch->reason);
}

static struct watch *begin(ev_watcher *watcher, int reason)
{
    int i = 0;

    while (i < n_watches && watches[i]->watcher)
        i++;
    if (i == n_watches) {
        watches = realloc(watches, (size_t)++n_watches * sizeof(struct watch *));
        if (!watches || !(watches[i] = calloc(1, sizeof **watches)))
            abort();
        watches[i]->event.happen = on_event;
    }
    watches[i]->watcher = watcher;
    watches[i]->reason = reason;
    watches[i]->repeat = 0;
    watcher->active = i + 1;
    return watches[i];
}

static void end(ev_watcher *watcher)
{
    struct watch *watch;

    if (!watcher->active)
        return;
    watch = watches[watcher->active - 1];
    calendar_cancel(&watch->event);
    watch->watcher = NULL;
    watcher->active = 0;
}

void ev_timer_start(struct ev_loop *loop, ev_timer *timer) EV_NOEXCEPT
{
    struct watch *watch;

    (void)loop;
    if (timer->active)
        return;
    watch = begin((ev_watcher *)timer, EV_TIMER);
    watch->repeat = timer->repeat;
    calendar_set(&watch->event, calendar_now() + timer->at);
}

void ev_timer_stop(struct ev_loop *loop, ev_timer *timer) EV_NOEXCEPT
{
    (void)loop;
    end((ev_watcher *)timer);
}

void ev_timer_again(struct ev_loop *loop, ev_timer *timer) EV_NOEXCEPT
{
    ev_timer_stop(loop, timer);
    if (timer->repeat > 0) {
        timer->at = timer->repeat;
        ev_timer_start(loop, timer);
    }
}

ev_tstamp ev_timer_remaining(struct ev_loop *loop, ev_timer *timer) EV_NOEXCEPT
{
    (void)loop;
    return timer->active ? watches[timer->active - 1]->event.at - calendar_now() : timer->at;
}

void ev_async_start(struct ev_loop *loop, ev_async *async) EV_NOEXCEPT
{
    (void)loop;
    if (!async->active)
        begin((ev_watcher *)async, EV_ASYNC);
}

void ev_async_stop(struct ev_loop *loop, ev_async *async) EV_NOEXCEPT
{
    (void)loop;
    end((ev_watcher *)async);
}

void ev_async_send(struct ev_loop *loop, ev_async *async) EV_NOEXCEPT
{
    struct event *event;

    (void)loop;
    assert(async->active);
    event = &watches[async->active - 1]->event;
    if (!calendar_has(event))
        calendar_set(event, calendar_now());
}

void ev_ref(struct ev_loop *loop) EV_NOEXCEPT
{
    loop->references++;
}

void ev_unref(struct ev_loop *loop) EV_NOEXCEPT
{
    loop->references--;
}

ev_tstamp ev_now(struct ev_loop *loop) EV_NOEXCEPT
{
    (void)loop;
    return calendar_now();
}

void ev_now_update(struct ev_loop *loop) EV_NOEXCEPT
{
    (void)loop;
}

/* --- sockets: there are none ------------------------------------------------------------------------------
 *
 * What is linked with the product's files that are used. */

void ev_io_start(struct ev_loop *loop, ev_io *io) EV_NOEXCEPT
{
    (void)loop;
    (void)io;
    abort();
}

void ev_io_stop(struct ev_loop *loop, ev_io *io) EV_NOEXCEPT
{
    (void)loop;
    if (ev_is_active(io))
        abort();
}

void ev_feed_event(struct ev_loop *loop, void *watcher, int events) EV_NOEXCEPT
{
    (void)loop;
    (void)watcher;
    (void)events;
    abort();
}

/* Nobody says bye here. */
int ev_run(struct ev_loop *loop, int flags) EV_NOEXCEPT
{
    (void)loop;
    (void)flags;
    abort();
}

void ev_break(struct ev_loop *loop, int how) EV_NOEXCEPT
{
    (void)loop;
    (void)how;
    abort();
}

/* --- the clock --------------------------------------------------------------------------------------------
 */

/* Put in the place of clock_gettime() by the linker. */
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now)
{
    int64_t milliseconds = calendar_milliseconds();

    (void)id;
    now->tv_sec = milliseconds / 1000;
    now->tv_nsec = milliseconds % 1000 * 1000000;
    return 0;
}

/* --- chance -----------------------------------------------------------------------------------------------
 */

static struct stream chance;

void loop_seed(uint64_t seed)
{
    chance = stream_of(seed, 6);
}

ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags)
{
    (void)flags;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)out)[i] = (uint8_t)(256 * draw_even(&chance));
    return (ssize_t)size;
}
