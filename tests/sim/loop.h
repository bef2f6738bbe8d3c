/*
 * libev's timers and wake-ups, the clock and chance, in virtual time: the program is linked with these in
 * place of the real ones (see sim.mk), so that health/ and mailboxes run as they are.
 */
#ifndef WEIR_TESTS_SIM_LOOP_H
#define WEIR_TESTS_SIM_LOOP_H

#include <ev.h>
#include <stdint.h>

/* The only one: threads are no part of the simulation. */
struct ev_loop *loop_virtual(void);

/* What getrandom() gives from now on. */
void loop_seed(uint64_t seed);

#endif
