#include "tests/sim/report.h"

#include <stdio.h>

static unsigned missed;

void report_title(const char *title)
{
    printf("\n%s\n", title);
}

static void report(const char *name, double value, const char *relation, double goal, bool met, bool near)
{
    printf("  %-6s  %-66s %9.3f %s %g\n",
           met    ? "ok"
           : near ? "short"
                  : "MISSED",
           name, value, relation, goal);
    missed += !met && !near;
    (void)fflush(stdout);
}

void report_at_most(const char *name, double value, double goal)
{
    report(name, value, "<=", goal, value <= goal, false);
}

void report_at_least(const char *name, double value, double goal)
{
    report(name, value, ">=", goal, value >= goal, false);
}

void report_short(const char *name, double value, double goal, double at_worst)
{
    report(name, value, "<=", goal, value <= goal, value <= at_worst);
}

unsigned report_missed(void)
{
    return missed;
}
