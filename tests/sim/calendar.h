/*
 * Virtual time, and what is to happen in it. One calendar for the program, one thread.
 *
 * An event lies in whatever it speaks of; it may be put off, cancelled or put in again at any time, from its
 * own call too. Events of one moment happen in the order in which they were put in.
 */
#ifndef WEIR_TESTS_SIM_CALENDAR_H
#define WEIR_TESTS_SIM_CALENDAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event {
    void (*happen)(struct event *event);
    double at; /* s */
    uint64_t order;
    size_t slot; /* in the heap, from 1; 0: it is not in the calendar */
};

#define CALENDAR_OF(event, type, field) ((type *)(void *)((char *)(event)-offsetof(type, field)))

double calendar_now(void); /* s */
int64_t calendar_milliseconds(void);

/* Now or later; where it is already in the calendar it is moved. */
void calendar_set(struct event *event, double at);
void calendar_cancel(struct event *event); /* that is not in it: nothing */

static inline bool calendar_has(const struct event *event)
{
    return event->slot > 0;
}

void calendar_run(double until);
/* What is due at this very moment. */
void calendar_settle(void);
/* Back to the beginning. Nothing may be left in it. */
void calendar_restart(void);

#endif
