/*
 * A simulated relay: processor sharing, slower in all when it is crowded, with or without a bounded pool of
 * workers. Every command is a piece of work of the same kind, so a slow relay answers everything slowly.
 *
 *   relay_connect ──(a worker is free)──▶ greeted ──▶ relay_work, again and again ──▶ relay_disconnect
 */
#ifndef WEIR_TESTS_SIM_RELAY_H
#define WEIR_TESTS_SIM_RELAY_H

#include "tests/sim/calendar.h"

#define RELAYS_MAX 16

enum relay_mood {
    RELAY_WELL,
    RELAY_BUSY,          /* says 421 to everybody, at once */
    RELAY_BUSY_ENVELOPE, /* greets, health checks too, and says 421 to every MAIL, at once */
    RELAY_REFUSES_MAIL,  /* works as ever, and its answer to every message is a 5xx */
};

/* Work in hand. */
struct job {
    void (*done)(struct job *job);
    double target; /* in the relay's `attained` */
    size_t slot;   /* in its heap, from 1 */
};

/* A connection. */
struct guest {
    void (*greeted)(struct guest *guest); /* NULL once it is */
    struct guest *next, *previous;        /* while it waits for a worker */
};

struct relay {
    double promise;   /* sessions at full speed, by its weight */
    double capacity;  /* the truth */
    double slowed;    /* share of it that is left */
    uint32_t workers; /* 0: as many as come */
    enum relay_mood mood;
    uint32_t max_connections; /* as the proxies are told; 0: none */

    uint32_t places;         /* taken by all proxies, connecting included */
    uint32_t most;           /* places, at most */
    double over, over_since; /* s that it had more than max_connections; since when it has */
    uint32_t hosted;         /* guests with a worker */
    struct guest *first, *last;
    struct job **jobs; /* heap by target, from 1 */
    size_t n_jobs, size;
    double attained, updated; /* work that one session could have got done since the beginning; when */
    double delivered;         /* work that all have got done */
    struct event completion;

    uint64_t attempts; /* sessions sent here */
};

void relay_open(struct relay *relay, double promise, double capacity, uint32_t workers);
/* Nobody is on it any more. */
void relay_close(struct relay *relay);

/* A place is taken, or given back. True: it is one above max_connections. */
bool relay_enter(struct relay *relay);
void relay_leave(struct relay *relay);
/* From now on, its most places and the time above max_connections. */
void relay_count_anew(struct relay *relay);
double relay_over(const struct relay *relay); /* s, up to now */

/* Calls guest->greeted, now or when a worker comes free. */
void relay_connect(struct relay *relay, struct guest *guest);
void relay_disconnect(struct relay *relay, struct guest *guest);
/* Calls job->done after `work` seconds of an unloaded relay. */
void relay_work(struct relay *relay, struct job *job, double work);
void relay_drop(struct relay *relay, struct job *job);
void relay_slow(struct relay *relay, double share);
/* Seconds of unloaded work done up to now. */
double relay_delivered(struct relay *relay);

#endif
