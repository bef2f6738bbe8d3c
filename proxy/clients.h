/*
 * How many sessions each client has, over all workers, for max-connections-per-client.
 */
#ifndef WEIR_PROXY_CLIENTS_H
#define WEIR_PROXY_CLIENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "net/address.h"

struct clients;

struct clients *clients_create(void); /* NULL: out of memory */
void clients_free(struct clients **clients);

/* Count a session of `peer` in, unless it has `limit` already (or memory is out). Any thread. */
bool clients_enter(struct clients *clients, const struct peer *peer, uint32_t limit);
/* Exactly once for each clients_enter() that said true. */
void clients_leave(struct clients *clients, const struct peer *peer);

#endif
