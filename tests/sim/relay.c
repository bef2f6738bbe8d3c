#include "tests/sim/relay.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/workload.h"

/* --- how fast ---------------------------------------------------------------------------------------------
 */

/* Of one session, where 1 is full speed. */
static double speed(const struct relay *relay)
{
    double capacity = relay->capacity * relay->slowed, n = (double)relay->n_jobs, crowd = n / capacity;

    if (n <= capacity)
        return 1;
    if (crowd > WORKLOAD_CROWDED)
        capacity /= 1 + WORKLOAD_DECLINE * (crowd - WORKLOAD_CROWDED);
    return capacity / n;
}

/* Before anything changes. */
static void advance(struct relay *relay)
{
    double got = (calendar_now() - relay->updated) * speed(relay);

    relay->attained += got;
    relay->delivered += got * (double)relay->n_jobs;
    relay->updated = calendar_now();
}

/* After it. */
static void look_ahead(struct relay *relay)
{
    if (!relay->n_jobs)
        calendar_cancel(&relay->completion);
    else
        calendar_set(&relay->completion,
                     calendar_now() + (relay->jobs[1]->target - relay->attained) / speed(relay));
}

/* --- work in hand -----------------------------------------------------------------------------------------
 */

static void put(struct relay *relay, struct job *job, size_t slot)
{
    relay->jobs[slot] = job;
    job->slot = slot;
}

static void rise(struct relay *relay, struct job *job, size_t slot)
{
    for (; slot > 1 && job->target < relay->jobs[slot / 2]->target; slot /= 2)
        put(relay, relay->jobs[slot / 2], slot);
    put(relay, job, slot);
}

static void sink(struct relay *relay, struct job *job, size_t slot)
{
    size_t child;

    while ((child = 2 * slot) <= relay->n_jobs) {
        if (child < relay->n_jobs && relay->jobs[child + 1]->target < relay->jobs[child]->target)
            child++;
        if (relay->jobs[child]->target >= job->target)
            break;
        put(relay, relay->jobs[child], slot);
        slot = child;
    }
    put(relay, job, slot);
}

static void take_out(struct relay *relay, struct job *job)
{
    size_t slot = job->slot;
    struct job *last = relay->jobs[relay->n_jobs--];

    job->slot = 0;
    if (last == job)
        return;
    if (slot > 1 && last->target < relay->jobs[slot / 2]->target)
        rise(relay, last, slot);
    else
        sink(relay, last, slot);
}

void relay_work(struct relay *relay, struct job *job, double work)
{
    assert(!job->slot);
    advance(relay);
    job->target = relay->attained + work;
    if (relay->n_jobs + 1 >= relay->size) {
        relay->size = relay->size ? 2 * relay->size : 256;
        relay->jobs = realloc(relay->jobs, relay->size * sizeof(struct job *));
        if (!relay->jobs)
            abort();
    }
    relay->n_jobs++;
    rise(relay, job, relay->n_jobs);
    look_ahead(relay);
}

void relay_drop(struct relay *relay, struct job *job)
{
    if (!job->slot)
        return;
    advance(relay);
    take_out(relay, job);
    look_ahead(relay);
}

static void on_completion(struct event *event)
{
    struct relay *relay = CALENDAR_OF(event, struct relay, completion);
    struct job *job = relay->jobs[1];

    advance(relay);
    relay->attained = job->target; /* rounding apart it is */
    take_out(relay, job);
    look_ahead(relay);
    job->done(job);
}

void relay_slow(struct relay *relay, double share)
{
    advance(relay);
    relay->slowed = share;
    look_ahead(relay);
}

double relay_delivered(struct relay *relay)
{
    advance(relay);
    return relay->delivered;
}

/* --- places -----------------------------------------------------------------------------------------------
 */

static bool is_over(const struct relay *relay)
{
    return relay->max_connections && relay->places > relay->max_connections;
}

bool relay_enter(struct relay *relay)
{
    bool before = is_over(relay);

    relay->places++;
    if (relay->places > relay->most)
        relay->most = relay->places;
    if (is_over(relay) && !before)
        relay->over_since = calendar_now();
    return is_over(relay);
}

void relay_leave(struct relay *relay)
{
    bool before = is_over(relay);

    relay->places--;
    if (before && !is_over(relay))
        relay->over += calendar_now() - relay->over_since;
}

void relay_count_anew(struct relay *relay)
{
    relay->most = relay->places;
    relay->over = 0;
    relay->over_since = calendar_now();
}

double relay_over(const struct relay *relay)
{
    return relay->over + (is_over(relay) ? calendar_now() - relay->over_since : 0);
}

/* --- connections ------------------------------------------------------------------------------------------
 */

static void greet(struct relay *relay, struct guest *guest)
{
    void (*greeted)(struct guest *) = guest->greeted;

    relay->hosted++;
    guest->greeted = NULL;
    greeted(guest);
}

void relay_connect(struct relay *relay, struct guest *guest)
{
    if (!relay->workers || relay->hosted < relay->workers) {
        greet(relay, guest);
        return;
    }
    guest->next = NULL;
    guest->previous = relay->last;
    if (relay->last)
        relay->last->next = guest;
    else
        relay->first = guest;
    relay->last = guest;
}

static void leave_line(struct relay *relay, struct guest *guest)
{
    if (guest->next)
        guest->next->previous = guest->previous;
    else
        relay->last = guest->previous;
    if (guest->previous)
        guest->previous->next = guest->next;
    else
        relay->first = guest->next;
}

void relay_disconnect(struct relay *relay, struct guest *guest)
{
    struct guest *next = relay->first;

    if (guest->greeted) { /* it still waits */
        leave_line(relay, guest);
        return;
    }
    relay->hosted--;
    if (next) {
        leave_line(relay, next);
        greet(relay, next);
    }
}

void relay_open(struct relay *relay, double promise, double capacity, uint32_t workers)
{
    memset(relay, 0, sizeof *relay);
    relay->promise = promise;
    relay->capacity = capacity;
    relay->workers = workers;
    relay->slowed = 1;
    relay->updated = calendar_now();
    relay->completion.happen = on_completion;
}

void relay_close(struct relay *relay)
{
    assert(!relay->n_jobs && !relay->hosted && !relay->first);
    calendar_cancel(&relay->completion);
    free(relay->jobs);
    relay->jobs = NULL;
}
