#include "health/line.h"

#include <stddef.h>

static void serve(struct line *line)
{
    while (line->first && line->running < line->limit) {
        struct turn *turn = line->first;

        line->first = turn->next;
        if (!line->first)
            line->last = NULL;
        turn->next = NULL;
        turn->waiting = false;
        turn->running = line->begin(turn);
        line->running += turn->running;
    }
}

void line_enter(struct line *line, struct turn *turn)
{
    if (turn->waiting || turn->running)
        return;
    turn->waiting = true;
    if (line->last)
        line->last->next = turn;
    else
        line->first = turn;
    line->last = turn;
    serve(line);
}

static void stop_waiting(struct line *line, struct turn *turn)
{
    struct turn **link = &line->first, *before = NULL;

    for (; *link != turn; link = &(*link)->next)
        before = *link;
    *link = turn->next;
    if (line->last == turn)
        line->last = before;
    turn->next = NULL;
    turn->waiting = false;
}

void line_leave(struct line *line, struct turn *turn)
{
    if (turn->waiting) {
        stop_waiting(line, turn);
    } else if (turn->running) {
        turn->running = false;
        line->running--;
        serve(line);
    }
}
