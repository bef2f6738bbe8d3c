#include "net/mailbox.h"

#include <stddef.h>

/* Posters push on a stack; the owner takes the whole stack at once and turns it round. Taking everything with
 * one exchange is what keeps this free of the ABA problem. */

static void deliver_all(struct mailbox *mailbox)
{
    struct mail *newest = atomic_exchange_explicit(&mailbox->newest, NULL, memory_order_acquire);
    struct mail *oldest = NULL;

    while (newest) {
        struct mail *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct mail *next = oldest->next;
        oldest->deliver(oldest, mailbox->owner);
        oldest = next;
    }
}

static void on_wake(struct ev_loop *loop, ev_async *watcher, int events)
{
    (void)loop;
    (void)events;
    deliver_all(watcher->data);
}

void mailbox_open(struct mailbox *mailbox, struct ev_loop *loop, void *owner)
{
    atomic_init(&mailbox->newest, NULL);
    mailbox->loop = loop;
    mailbox->owner = owner;
    ev_async_init(&mailbox->wake, on_wake);
    mailbox->wake.data = mailbox;
    ev_async_start(loop, &mailbox->wake);
    ev_unref(loop);
}

void mailbox_close(struct mailbox *mailbox)
{
    deliver_all(mailbox);
    ev_ref(mailbox->loop);
    ev_async_stop(mailbox->loop, &mailbox->wake);
}

void mailbox_post(struct mailbox *mailbox, struct mail *mail)
{
    struct mail *newest = atomic_load_explicit(&mailbox->newest, memory_order_relaxed);

    do {
        mail->next = newest;
    } while (!atomic_compare_exchange_weak_explicit(&mailbox->newest, &newest, mail, memory_order_release,
                                                    memory_order_relaxed));
    /* Only the post that found the box empty needs to wake: the others ride along. */
    if (!newest)
        ev_async_send(mailbox->loop, &mailbox->wake);
}
