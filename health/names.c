/*
 * Backends given by name. Asked for at the start, again when the answer's time is over, and every few seconds
 * while there is no answer. The last answer holds as long as there is no other: a name server that is away
 * must not take relays with it.
 */
#include <arpa/inet.h>
#include <stdio.h>

#include "health/record.h"
#include "net/clock.h"
#include "net/resolver.h"

#define NAME_RETRY     5 /* seconds behind a failure */
#define NAME_TTL_LEAST 5
#define NAME_TTL_MOST  300

static void set_port(struct address *address, uint16_t port)
{
    if (address->sa.sa_family == AF_INET6)
        address->in6.sin6_port = htons(port);
    else
        address->in.sin_port = htons(port);
}

/* The address in use, if the name still has it: servers turn the order of their answers round. Else the
 * first. */
static struct address choose(const struct record *record, const struct resolver_answer *answer)
{
    uint16_t port = record->configured->port;
    struct address used, found;

    if (backend_address(record->backend, &used)) {
        for (size_t i = 0; i < answer->n; i++) {
            found = answer->addresses[i];
            set_port(&found, port);
            if (address_equal(&found, &used))
                return found;
        }
    }
    found = answer->addresses[0];
    set_port(&found, port);
    return found;
}

static void not_resolved(struct record *record, const char *error)
{
    char reason[JUDGE_REASON_MAX];
    struct address address;
    int64_t now = clock_milliseconds();

    record_arm(record, &record->name_timer, NAME_RETRY * 1000);
    if (backend_address(record->backend, &address))
        return;
    (void)snprintf(reason, sizeof reason, "name does not resolve: %s", error);
    judge_unresolved(&record->judge, reason, now); /* logged once, when the state changes */
    publish(record, now);
}

static void resolved(struct record *record, const struct resolver_answer *answer)
{
    struct address address = choose(record, answer), before;
    uint32_t ttl = answer->ttl;

    ttl = ttl < NAME_TTL_LEAST ? NAME_TTL_LEAST : ttl > NAME_TTL_MOST ? NAME_TTL_MOST : ttl;
    record_arm(record, &record->name_timer, (int64_t)ttl * 1000);
    if (backend_address(record->backend, &before) && address_equal(&before, &address))
        return;
    backend_set_address(record->backend, &address);
    schedule_anew(record);
}

static void on_answer(void *arg, const char *error, const struct resolver_answer *answer)
{
    struct record *record = arg;

    record->resolving = false;
    if (record->retired || !record->pool || !record->configured->host)
        return; /* a reload has changed its mind */
    if (record->resolve_again) {
        record->resolve_again = false;
        names_resolve_now(record); /* for another name by now */
    } else if (answer) {
        resolved(record, answer);
    } else {
        not_resolved(record, error);
    }
}

void names_resolve_now(struct record *record)
{
    struct resolver *resolver = record->health->resolver;

    ev_timer_stop(record->health->loop, &record->name_timer);
    if (record->resolving) {
        record->resolve_again = true;
        return;
    }
    record->resolving = resolver && resolver_query(resolver, record->configured->host, on_answer, record);
    if (!record->resolving)
        not_resolved(record, resolver ? "out of memory" : "no resolver");
}

static void on_time(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    names_resolve_now(timer->data);
}

void names_init(struct record *record)
{
    ev_timer_init(&record->name_timer, on_time, 0, 0);
    record->name_timer.data = record;
}

void names_stop(struct record *record)
{
    ev_timer_stop(record->health->loop, &record->name_timer);
    record->resolve_again = false;
}
