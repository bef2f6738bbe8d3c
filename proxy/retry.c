/*
 * Retries take turns: a process has only so many at a time (balancer/placement.h), lest relays that fail
 * multiply what comes to those that don't. Who finds none left stands in its worker's line, and goes on when
 * one of this worker's ends; whether one of another worker's has is looked at every RETRY_LOOK. How long that
 * may last is the session's affair, as with the queue.
 */
#include "proxy/session_internal.h"

#define RETRY_LOOK 0.02 /* s */

static void line_up(struct session *s)
{
    struct retry_line *line = &s->worker->retries;
    struct errand *e = s->errand;

    e->in_line = true;
    e->line_next = NULL;
    e->line_previous = line->last;
    *(line->last ? &line->last->errand->line_next : &line->first) = s;
    line->last = s;
    if (!ev_is_active(&line->look))
        ev_timer_again(s->worker->loop, &line->look);
}

static void leave_line(struct session *s)
{
    struct retry_line *line = &s->worker->retries;
    struct errand *e = s->errand;

    e->in_line = false;
    *(e->line_previous ? &e->line_previous->errand->line_next : &line->first) = e->line_next;
    *(e->line_next ? &e->line_next->errand->line_previous : &line->last) = e->line_previous;
}

static void on_look(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct retry_line *line = timer->data;
    struct session *s;

    (void)events;
    while ((s = line->first) && placement_retry_begin()) {
        leave_line(s);
        s->errand->retrying = true;
        errand_again(s);
    }
    if (!line->first)
        ev_timer_stop(loop, timer);
}

void retry_open(struct worker *worker)
{
    ev_timer_init(&worker->retries.look, on_look, RETRY_LOOK, RETRY_LOOK);
    worker->retries.look.data = &worker->retries;
}

bool retry_begin(struct session *s)
{
    if (s->errand->retrying)
        return true;
    if (!s->worker->retries.first && placement_retry_begin()) {
        s->errand->retrying = true;
        return true;
    }
    line_up(s);
    return false;
}

void retry_granted(struct session *s)
{
    placement_retry_granted();
    s->errand->retrying = true;
}

void retry_end(struct session *s)
{
    struct retry_line *line = &s->worker->retries;
    struct errand *e = s->errand;

    if (e->in_line)
        leave_line(s);
    if (!e->retrying)
        return;
    e->retrying = false;
    placement_retry_end();
    if (line->first)
        ev_feed_event(s->worker->loop, &line->look, EV_TIMER);
}
