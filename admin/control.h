/*
 * Control: the operator's socket. What is asked and answered is in admin/request.h.
 *
 * It lives on the control thread's loop and never holds it up: a request is bounded in size, time and number,
 * an answer is built at once (sessions: when the workers have told of theirs) and written as the client takes
 * it, and a client gets the next answer only when it has taken the last. Who may connect may give orders:
 * that is for the socket's mode to say.
 */
#ifndef WEIR_ADMIN_CONTROL_H
#define WEIR_ADMIN_CONTROL_H

#include <ev.h>

#include "admin/control_socket.h"
#include "admin/http.h"
#include "admin/roster.h"
#include "health/order.h"

#define CONTROL_CONNECTIONS 32
#define CONTROL_SECONDS     10. /* for a request to come, and for an answer to be taken */

/* What it shows and orders, from the floor above. Called on the control thread. */
struct control_ops {
    void *arg;
    struct admin_ops show;
    /* False with the reason in `error`; it has been logged then. */
    bool (*reload)(void *arg, char *error, size_t size);
    /* The operator's order. */
    void (*order)(void *arg, struct backend *backend, const struct order *order);
    /* health_change_absent() */
    void (*absent)(void *arg, const char *name,
                   void (*change)(void *who, const char *full_name, struct order *order), void *who);
    /* Ask the workers for their sessions. `done` is called once, later, on the control thread. Not again
     * before that. False: out of memory, and `done` is not called. */
    bool (*roster)(void *arg, void (*done)(void *who, const struct roster *roster), void *who);
};

struct control;

/* Without a socket yet. The ops are copied. NULL: out of memory. */
struct control *control_create(struct ev_loop *loop, const struct control_ops *ops);
/* Listen on this socket from now on, in place of the one before, which is closed; *next is taken over. With
 * fd -1: on none. Requests that are under way stay. */
void control_listen(struct control *control, struct control_socket *next);
/* Where it listens; NULL: nowhere. */
const struct address *control_address(const struct control *control);
/* When no roster can come any more. Clears the pointer; NULL is fine. */
void control_close(struct control **control);

#endif
