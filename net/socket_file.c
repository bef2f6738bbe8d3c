#include "net/socket_file.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

void socket_file_remove_stale(const struct address *address)
{
    struct stat info;
    int fd;

    if (address->un.sun_path[0] == '\0' || lstat(address->un.sun_path, &info) != 0 || !S_ISSOCK(info.st_mode))
        return;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, &address->sa, address->length) != 0 && errno == ECONNREFUSED)
        unlink(address->un.sun_path);
    close(fd);
}

bool socket_file_know(const struct address *address, struct socket_file *file)
{
    struct stat info;

    if (lstat(address->un.sun_path, &info) != 0)
        return false;
    *file = (struct socket_file){ .device = info.st_dev, .inode = info.st_ino };
    return true;
}

void socket_file_remove(const struct address *address, const struct socket_file *file)
{
    struct socket_file there;

    if (socket_file_know(address, &there) && there.device == file->device && there.inode == file->inode)
        unlink(address->un.sun_path);
}
