/*
 * The simulator: sim [--quick] [--log] [NAME...]
 *
 * Runs the scenarios of that name, or all of them, prints their tables and what of the goals is met. Exit
 * status 1 when a goal is missed. The same seeds give the same figures. --log: what the proxies log, to
 * standard error.
 */
#include <stdio.h>
#include <string.h>

#include "net/log.h"
#include "tests/sim/report.h"
#include "tests/sim/workload.h"

static const struct {
    const char *name;
    void (*run)(const struct extent *);
} scenarios[] = {
    {"policies",   policies_run },
    { "instances", instances_run},
    { "crash",     crash_run    },
    { "outage",    outage_run   },
    { "slow",      slow_run     },
    { "flood",     flood_run    },
    { "day",       day_run      },
    { "trouble",   trouble_run  },
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

static bool is_wanted(const char *name, int n, char **names)
{
    bool any = false;

    for (int i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0)
            return true;
        any = any || names[i][0] != '-';
    }
    return !any;
}

static bool is_known(const char *name)
{
    for (size_t i = 0; i < SCENARIOS; i++)
        if (strcmp(scenarios[i].name, name) == 0)
            return true;
    return strcmp(name, "--quick") == 0 || strcmp(name, "--log") == 0;
}

int main(int argc, char **argv)
{
    struct extent extent = { true, WORKLOAD_SEEDS, WORKLOAD_SECONDS };
    const char *error;
    bool loud = false;

    for (int i = 1; i < argc; i++) {
        if (!is_known(argv[i])) {
            fprintf(
                stderr,
                "usage: sim [--quick] [--log] [policies|instances|crash|outage|slow|flood|day|trouble]...\n");
            return 2;
        }
        if (strcmp(argv[i], "--quick") == 0)
            extent = (struct extent){ false, WORKLOAD_SEEDS_QUICK, WORKLOAD_SECONDS_QUICK };
        if (strcmp(argv[i], "--log") == 0)
            loud = true;
    }
    /* What health/ has to say is news to an operator, and noise here. */
    if (!loud && log_start(LOG_TARGET_STDERR, NULL, LOG_FORMAT_LOGFMT, LOG_LEVEL_ERROR, &error) != 0)
        return 2;
    for (size_t i = 0; i < SCENARIOS; i++)
        if (is_wanted(scenarios[i].name, argc - 1, argv + 1))
            scenarios[i].run(&extent);
    printf("\n%s\n", report_missed() ? "some goals are missed" : "all goals are met");
    if (!loud)
        log_stop();
    return report_missed() ? 1 : 0;
}
