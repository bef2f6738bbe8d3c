/*
 * A mailbox: how one thread asks another thread's event loop to do something.
 *
 * Any thread posts; the owner's loop wakes and handles the messages in the order of posting. Posting takes no
 * lock and allocates nothing: the message belongs to the poster and is embedded in whatever it speaks of. A
 * message may not be posted again before it has been handled.
 */
#ifndef WEIR_NET_MAILBOX_H
#define WEIR_NET_MAILBOX_H

#include <ev.h>
#include <stdatomic.h>

struct mail {
    struct mail *next;
    /* Called on the owner's thread; may free the message. */
    void (*deliver)(struct mail *mail, void *owner);
};

struct mailbox {
    _Atomic(struct mail *) newest;
    struct ev_loop *loop;
    ev_async wake;
    void *owner;
};

/* Bind to the loop of the owning thread, before that thread runs it. The watcher does not keep the loop
 * alive. */
void mailbox_open(struct mailbox *mailbox, struct ev_loop *loop, void *owner);
/* Deliver what is left, then unbind. On the owner's thread, when nobody posts any more. */
void mailbox_close(struct mailbox *mailbox);
void mailbox_post(struct mailbox *mailbox, struct mail *mail);

#endif
