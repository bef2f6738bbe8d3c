/*
 * What an operator has said of addresses that their names don't have at present. A name server that gives
 * another choice of its addresses each time must not bring a relay back that somebody has taken out. Pure;
 * the control thread's.
 */
#ifndef WEIR_HEALTH_WORDS_H
#define WEIR_HEALTH_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#include "health/order.h"

#define WORDS_MAX 1024 /* then the oldest goes */

struct word;

/* Zeroed: none. */
struct words {
    struct word *first, *last;
    size_t n;
};

/* Remember it. Whatever was remembered of this address is replaced; nothing when memory is out. */
void words_keep(struct words *words, const char *name, const char *found_at, const struct order *order);
/* The address is back: what was said of it, which is forgotten here. False: nothing was. */
bool words_take(struct words *words, const char *name, const char *found_at, struct order *out);
/* Go through those of `name`, or of the one with that full name ("relay@10.0.0.11"): what `change` leaves of
 * an order is kept. */
void words_change(struct words *words, const char *name,
                  void (*change)(void *arg, const char *full_name, struct order *order), void *arg);
/* Forget those of names that `is_wanted` does not know. */
void words_prune(struct words *words, bool (*is_wanted)(const void *arg, const char *name, size_t size),
                 const void *arg);
void words_free(struct words *words);

#endif
