/*
 * libev's timers and wake-ups, and the clock, in virtual time: the program is linked with these in place of
 * the real ones (see sim.mk), so that health/ and mailboxes run as they are.
 */
#ifndef WEIR_TESTS_SIM_LOOP_H
#define WEIR_TESTS_SIM_LOOP_H

#include <ev.h>

/* The only one: threads are no part of the simulation. */
struct ev_loop *loop_virtual(void);

#endif
