#include "tests/sim/calendar.h"

#include <assert.h>
#include <stdlib.h>

#define BEGINNING 1000.0 /* s: no time is 0, which means "never" in places */

static struct event **heap; /* from 1 */
static size_t n, size;
static uint64_t orders;
static double now = BEGINNING;

double calendar_now(void)
{
    return now;
}

int64_t calendar_milliseconds(void)
{
    return (int64_t)(now * 1000 + 1e-3); /* a timer that was set for a millisecond has reached it */
}

static bool before(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void put(struct event *event, size_t slot)
{
    heap[slot] = event;
    event->slot = slot;
}

static void rise(struct event *event, size_t slot)
{
    while (slot > 1 && before(event, heap[slot / 2])) {
        put(heap[slot / 2], slot);
        slot /= 2;
    }
    put(event, slot);
}

static void sink(struct event *event, size_t slot)
{
    size_t child;

    while ((child = 2 * slot) <= n) {
        if (child < n && before(heap[child + 1], heap[child]))
            child++;
        if (!before(heap[child], event))
            break;
        put(heap[child], slot);
        slot = child;
    }
    put(event, slot);
}

static void settle(struct event *event, size_t slot)
{
    if (slot > 1 && before(event, heap[slot / 2]))
        rise(event, slot);
    else
        sink(event, slot);
}

void calendar_set(struct event *event, double at)
{
    event->at = at > now ? at : now;
    event->order = orders++;
    if (event->slot) {
        settle(event, event->slot);
        return;
    }
    if (n + 1 >= size) {
        size = size ? 2 * size : 1024;
        heap = realloc(heap, size * sizeof(struct event *));
        if (!heap)
            abort();
    }
    rise(event, ++n);
}

void calendar_cancel(struct event *event)
{
    size_t slot = event->slot;
    struct event *last;

    if (!slot)
        return;
    event->slot = 0;
    last = heap[n--];
    if (last != event)
        settle(last, slot);
}

void calendar_run(double until)
{
    while (n && heap[1]->at <= until) {
        struct event *event = heap[1];

        calendar_cancel(event);
        now = event->at;
        event->happen(event);
    }
    if (until > now)
        now = until;
}

void calendar_settle(void)
{
    calendar_run(now);
}

void calendar_restart(void)
{
    assert(n == 0);
    now = BEGINNING;
    orders = 0;
}
