/*
 * What health/ asks of the network, answered by the simulation in place of health/check.c: a check is a
 * connection to a simulated relay.
 */
#ifndef WEIR_TESTS_SIM_DOUBLES_H
#define WEIR_TESTS_SIM_DOUBLES_H

#include "tests/sim/relay.h"

#define DOUBLES_PORT 10000 /* of the first relay; the others follow */

/* Whom checks are about. */
void doubles_set_relays(struct relay *relays, size_t n);

#endif
