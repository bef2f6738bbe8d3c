/*
 * Gathering the roster: each worker is asked by mail for its newest sessions and answers by mail, so that
 * nobody waits for anybody.
 */
#ifndef WEIR_PROXY_GATHER_H
#define WEIR_PROXY_GATHER_H

#include "admin/roster.h"
#include "net/mailbox.h"

struct worker;
struct gather;

/* One worker's part. Its own while it fills it in. */
struct gather_part {
    struct mail mail; /* brings it back */
    struct gather *gather;
    uint64_t total;
    size_t n, room; /* the newest */
    struct roster_session *sessions;
};

/* Ask all of them. `done` is called once, on the thread that owns `home`; what it is shown is gone behind it.
 * Workers that have ended answer too, when they are freed. False: out of memory, and nobody was asked. */
bool gather_begin(struct worker *const *workers, uint32_t n_workers, struct mailbox *home,
                  void (*done)(void *who, const struct roster *roster), void *who);
/* On the worker's thread: fill the part in and send it back. */
void gather_answer(struct gather_part *part, const struct worker *worker);

#endif
