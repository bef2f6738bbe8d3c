/*
 * The workload: what the design (balancing.md) says, in one place. Nobody tunes these to a result: a figure
 * that does not please is the business of the code under test.
 */
#ifndef WEIR_TESTS_SIM_WORKLOAD_H
#define WEIR_TESTS_SIM_WORKLOAD_H

/* --- who sends --------------------------------------------------------------------------------------------
 */

#define WORKLOAD_PROXIES       8    /* their shares by DNS fall as 1/√k */
#define WORKLOAD_LOAD          0.70 /* of what the relays' weights promise together */
#define WORKLOAD_SECONDS       600
#define WORKLOAD_SEEDS         8
#define WORKLOAD_SECONDS_QUICK 60 /* what `make check` takes the time for */
#define WORKLOAD_SEEDS_QUICK   2
#define WORKLOAD_WARM_UP       30 /* s from an empty farm on that are not measured, before those above */

#define WORKLOAD_LONG  5.0 /* s, mean of a session on an unloaded relay */
#define WORKLOAD_SHORT 0.5
#define WORKLOAD_SIGMA 1.2 /* of the lognormal work */

/* Bulk mail: so much of all arrivals comes in bursts from one client, through one or two proxies. */
#define WORKLOAD_BULK          0.35
#define WORKLOAD_BURST_LONG    40.0 /* sessions, mean, geometric */
#define WORKLOAD_BURST_SHORT   280.0
#define WORKLOAD_BURST_SECONDS 1.0

/* --- who takes --------------------------------------------------------------------------------------------
 */

#define WORKLOAD_RELAYS                                                                                      \
    {                                                                                                        \
        1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 8                                                                   \
    }
/* The same capacity in four. */
#define WORKLOAD_FEW_RELAYS                                                                                  \
    {                                                                                                        \
        7, 7, 8, 10                                                                                          \
    }
/* Sessions at full speed that a weight of 1 promises. The design does not say; with this one the references
 * below come out, for one ideal balancer and for what must not be done. */
#define WORKLOAD_PER_WEIGHT 30.0
/* True capacity is so much off the promise, one way or the other. */
#define WORKLOAD_OFF_LEAST 0.10
#define WORKLOAD_OFF_MOST  0.15
/* Processor sharing: up to its capacity every session runs at full speed, above it they share; beyond so many
 * times the capacity what is got done in all falls, to 1 / (1 + WORKLOAD_DECLINE · excess). */
#define WORKLOAD_CROWDED 1.5
#define WORKLOAD_DECLINE 0.5

#define WORKLOAD_MAX_CONNECTIONS 1.25 /* of the promise */
#define WORKLOAD_QUEUE           1600 /* over all proxies */
#define WORKLOAD_QUEUE_TIMEOUT   10   /* s */

/* A session is one transaction: MAIL, RCPT and the message, each with work of its own, drawn from the same
 * lognormal. So much of the mean session is MAIL's, and as much RCPT's. */
#define WORKLOAD_COMMAND 0.02

/* --- what goes wrong --------------------------------------------------------------------------------------
 */

#define WORKLOAD_SLOW           0.25 /* of its capacity */
#define WORKLOAD_SLOW_SECONDS   60
#define WORKLOAD_SLOW_REFERENCE 100

#define WORKLOAD_FLOOD         1.5 /* of the capacity of a relay that is driven over it */
#define WORKLOAD_FLOOD_SECONDS 60

/* A day: the load follows a cosine between these, of the promise. */
#define WORKLOAD_DAY         86400.0 /* s */
#define WORKLOAD_DAY_MOST    0.95
#define WORKLOAD_NIGHT_LEAST 0.05

#define WORKLOAD_REDIS_WAY 0.0005 /* s to Redis, and back again */

#define WORKLOAD_CHECK 0.02 /* s that a health check takes on a relay that greets at once */

/* --- what came out elsewhere ------------------------------------------------------------------------------
 *
 * In the simulation that the design quotes: one ideal balancer's imbalance, and that of the smallest
 * published count with counts up to 100 ms old. */
#define REFERENCE_IDEAL_LONG   1.022
#define REFERENCE_IDEAL_SHORT  1.019
#define REFERENCE_ARGMIN_LONG  1.16
#define REFERENCE_ARGMIN_SHORT 1.53
#define REFERENCE_NEAR         0.01

#endif
