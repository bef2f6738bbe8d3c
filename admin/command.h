/*
 * A request carried out: what is answered to it.
 */
#ifndef WEIR_ADMIN_COMMAND_H
#define WEIR_ADMIN_COMMAND_H

#include <jansson.h>
#include <sys/socket.h>

#include "admin/control.h"
#include "admin/request.h"

/* Every request but REQUEST_SESSIONS. `who` asked is logged with what changes anything. The answer is new;
 * NULL: out of memory. */
json_t *command_execute(const struct control_ops *ops, const struct request *request,
                        const struct ucred *who);
json_t *command_answer(json_t *result); /* a reference is taken over; NULL: out of memory */
json_t *command_refuse(const char *error);

#endif
