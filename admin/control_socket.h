/*
 * The control socket as a file: made, guarded and removed again.
 */
#ifndef WEIR_ADMIN_CONTROL_SOCKET_H
#define WEIR_ADMIN_CONTROL_SOCKET_H

#include <stddef.h>

#include "net/address.h"
#include "net/socket_file.h"

struct control_socket {
    int fd; /* listening; -1: none */
    struct address address;
    struct socket_file file;
};

/* Whose it is to be; (uid_t)-1: the one's who runs this. */
struct control_owner {
    uid_t user;
    gid_t group;
};

/* Listen at `address` with mode 0660, in a folder that is made if it is not there. What a dead process left
 * there is replaced, a living one's is not. False with a message in `error`, and nothing has changed. */
bool control_socket_open(struct control_socket *made, const struct address *address,
                         const struct control_owner *owner, char *error, size_t size);
/* Close it, and remove its file if it is still there. One without a descriptor is fine. */
void control_socket_close(struct control_socket *socket);

#endif
