/*
 * A configuration file: taken whole and without a word, or refused with at least one error, each with its
 * place.
 *
 * Whatever was taken keeps what config.h promises, and reading it twice gives the same answer.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static void check_config(const struct config *config)
{
    CHECK(config->references == 1 && *config->hostname && config->workers >= 1 && config->workers <= 256);
    CHECK(config->n_listeners && config->n_pools && config->n_backends);
    for (size_t i = 0; i < config->n_listeners; i++) {
        CHECK(config->listeners[i].n_addresses && config->listeners[i].pool < config->n_pools);
        for (size_t k = 0; k < config->listeners[i].n_addresses; k++)
            CHECK(config->listeners[i].addresses[k].length);
        for (size_t k = 0; k < config->listeners[i].n_allow_from; k++)
            CHECK(config->listeners[i].open_to_all ||
                  network_is_private(&config->listeners[i].allow_from[k]));
    }
    for (size_t i = 0; i < config->n_pools; i++) {
        CHECK(config->pools[i].n_backends && config->pools[i].connect_timeout);
        for (size_t k = 0; k < config->pools[i].n_backends; k++)
            CHECK(config->pools[i].backends[k] < config->n_backends);
    }
    for (size_t i = 0; i < config->n_backends; i++) {
        CHECK((config->backends[i].address.length != 0) == (config->backends[i].host == NULL));
        CHECK(config->backends[i].weight <= 1000 && config->backends[i].priority <= 255);
    }
}

static void check_report(const char *report)
{
    while (*report) {
        size_t line, column;
        int used = 0;
        CHECK(sscanf(report, "fuzz:%zu:%zu: %n", &line, &column, &used) == 2 && used && line && column);
        report = strchr(report, '\n');
        CHECK(report);
        report++;
    }
}

static char *read_once(const uint8_t *data, size_t size)
{
    char *report;
    size_t report_size;
    FILE *errors = open_memstream(&report, &report_size);
    CHECK(errors);
    struct config *config = config_parse("fuzz", (const char *)data, size, errors);
    fclose(errors);
    CHECK((config != NULL) == (report_size == 0));
    CHECK(strlen(report) == report_size);
    if (config)
        check_config(config);
    check_report(report);
    config_release(&config);
    return report;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *first = read_once(data, size), *second = read_once(data, size);
    CHECK(strcmp(first, second) == 0);
    free(first);
    free(second);
    return 0;
}
