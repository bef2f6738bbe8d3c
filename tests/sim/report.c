#include "tests/sim/report.h"

#include <stdio.h>

static unsigned missed;

void report_title(const char *title)
{
    printf("\n%s\n", title);
}

static void report(const char *name, double value, const char *relation, double goal, bool met)
{
    printf("  %-6s  %-66s %9.3f %s %g\n", met ? "ok" : "MISSED", name, value, relation, goal);
    missed += !met;
    (void)fflush(stdout);
}

void report_at_most(const char *name, double value, double goal)
{
    report(name, value, "<=", goal, value <= goal);
}

void report_at_least(const char *name, double value, double goal)
{
    report(name, value, ">=", goal, value >= goal);
}

unsigned report_missed(void)
{
    return missed;
}
