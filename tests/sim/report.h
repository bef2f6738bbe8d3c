/* What is printed, and whether the goals are met. */
#ifndef WEIR_TESTS_SIM_REPORT_H
#define WEIR_TESTS_SIM_REPORT_H

#include <stdbool.h>

/* How much is run: all of it, or what is enough to see that nothing has broken. */
struct extent {
    bool full;
    unsigned seeds;
    double seconds; /* measured, in the table of policies */
};

void report_title(const char *title);
/* A line of what is to be reached: `name` is `value`. */
void report_at_most(const char *name, double value, double goal);
/* One that is known not to be reached (docs/balancing.md): it is said, and a miss beyond `at_worst` is one.
 */
void report_short(const char *name, double value, double goal, double at_worst);
void report_at_least(const char *name, double value, double goal);
/* Goals that were missed so far. */
unsigned report_missed(void);

/* The scenarios. */
void policies_run(const struct extent *extent);  /* policies.c: who balances how well */
void instances_run(const struct extent *extent); /* instances.c: … when several share their counts, … */
void crash_run(const struct extent *extent);     /* … one of which is killed, … */
void outage_run(const struct extent *extent);    /* … and when Redis goes */
void slow_run(const struct extent *extent);      /* overload.c: a relay that has become slow … */
void flood_run(const struct extent *extent);     /* … one that gets too much … */
void day_run(const struct extent *extent);       /* … and a day and a night with which nothing is wrong */
void trouble_run(const struct extent *extent);   /* trouble.c: one that says no to everybody, spam */

#endif
