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

/* No open relay, and no password in the clear. */
static void check_listener(const struct config_listener *listener, const struct config_pool *pool)
{
    bool certified = listener->tls >= CONFIG_TLS_REQUIRED && *listener->client_ca;
    bool judged = pool->identity != CONFIG_IDENTITY_NONE && pool->identity != CONFIG_IDENTITY_XFORWARD;
    for (size_t i = 0; i < listener->n_allow_from; i++)
        CHECK(listener->open_to_all || certified || judged || network_is_private(&listener->allow_from[i]));
    CHECK((listener->tls_server != NULL) == (listener->tls != CONFIG_TLS_OFF));
    for (size_t i = 0; i < listener->n_addresses; i++)
        CHECK(listener->auth == CONFIG_AUTH_OFF || listener->tls_server ||
              listener->addresses[i].sa.sa_family == AF_UNIX);
}

static void check_route(const struct config *config, const struct config_listener *listener,
                        const struct config_route *route, bool last)
{
    CHECK(route->pool < config->n_pools);
    CHECK(last || route->n_clients || route->n_users || route->n_sender_domains);
    CHECK(!route->n_users || listener->auth != CONFIG_AUTH_OFF || listener->n_xclient_from);
    for (size_t i = 0; i < route->n_users; i++)
        CHECK(*route->users[i]);
    for (size_t i = 0; i < route->n_sender_domains; i++)
        CHECK(strlen(route->sender_domains[i]) <= 255 && !strpbrk(route->sender_domains[i], "@ \\<>"));
    if (!route->n_clients)
        check_listener(listener, &config->pools[route->pool]);
}

static void check_config(const struct config *config)
{
    CHECK(config->references == 1 && *config->hostname && config->workers >= 1 && config->workers <= 256);
    CHECK(config->n_listeners && config->n_pools && config->n_backends);
    for (size_t i = 0; i < config->n_listeners; i++) {
        CHECK(config->listeners[i].n_addresses && config->listeners[i].pool < config->n_pools);
        for (size_t k = 0; k < config->listeners[i].n_addresses; k++)
            CHECK(config->listeners[i].addresses[k].length);
        check_listener(&config->listeners[i], &config->pools[config->listeners[i].pool]);
        for (size_t k = 0; k < config->listeners[i].n_routes; k++)
            check_route(config, &config->listeners[i], &config->listeners[i].routes[k],
                        k + 1 == config->listeners[i].n_routes);
    }
    for (size_t i = 0; i < config->n_pools; i++) {
        CHECK(config->pools[i].n_backends && config->pools[i].connect_timeout);
        CHECK((config->pools[i].tls_client != NULL) == (config->pools[i].tls != CONFIG_POOL_TLS_OFF));
        for (size_t k = 0; k < config->pools[i].n_backends; k++)
            CHECK(config->pools[i].backends[k] < config->n_backends);
    }
    for (size_t i = 0; i < config->n_backends; i++) {
        CHECK((config->backends[i].address.length != 0) == (config->backends[i].host == NULL));
        CHECK(config->backends[i].weight <= 1000 && config->backends[i].priority <= 255);
        CHECK(*config_backend_tls_name(&config->backends[i]) ||
              config->backends[i].address.sa.sa_family == AF_UNIX);
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
