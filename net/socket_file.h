/*
 * The file of a Unix socket: left behind by a process that died, it is in the way of the next one's bind().
 */
#ifndef WEIR_NET_SOCKET_FILE_H
#define WEIR_NET_SOCKET_FILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "net/address.h"

/* Remove the socket file at `address` if nobody listens there any more. Whatever else lies there stays, and
 * so does the socket of a living process: bind() then says EADDRINUSE. */
void socket_file_remove_stale(const struct address *address);

/* A file that is known again, so that another process's is not taken for it. */
struct socket_file {
    dev_t device;
    ino_t inode;
};
/* False if there is none. */
bool socket_file_know(const struct address *address, struct socket_file *file);
/* Remove it if it is still this one. */
void socket_file_remove(const struct address *address, const struct socket_file *file);

#endif
