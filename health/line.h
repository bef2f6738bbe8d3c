/*
 * A line: so many at a time and no more, the others wait for their turn. The control thread's.
 */
#ifndef WEIR_HEALTH_LINE_H
#define WEIR_HEALTH_LINE_H

#include <stdbool.h>

/* Within what waits, which outlives it there. Zeroed: not in line. */
struct turn {
    struct turn *next;
    bool waiting, running;
};

struct line {
    struct turn *first, *last;
    unsigned running, limit; /* a limit of 0: nobody's turn comes any more */
    /* It is its turn. False: there was nothing to do, it is over. Must not call line_leave(). */
    bool (*begin)(struct turn *turn);
};

/* Begin at once, if there is room. Nothing, if it waits or runs already. */
void line_enter(struct line *line, struct turn *turn);
/* It has ended, or does not want to any more. Nothing, if it is not in line. */
void line_leave(struct line *line, struct turn *turn);

#endif
