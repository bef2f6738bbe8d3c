#include "admin/control_socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 128

static int own(const char *path, const struct control_owner *owner)
{
    return owner->user == (uid_t)-1 ? 0 : lchown(path, owner->user, owner->group);
}

/* /run is empty after a start of the machine. One that is there already is left as it is. */
static int make_folder(const char *path, const struct control_owner *owner)
{
    char folder[sizeof((struct sockaddr_un *)0)->sun_path];
    char *end;

    strcpy(folder, path);
    end = strrchr(folder, '/');
    if (end == folder)
        return 0;
    *end = '\0';
    if (mkdir(folder, 0755) != 0)
        return errno == EEXIST ? 0 : -errno;
    return own(folder, owner) == 0 ? 0 : -errno;
}

/* Nobody can connect before listen(), so there is no moment in which others could use it. */
static int listen_there(struct control_socket *made, const struct control_owner *owner)
{
    const struct address *address = &made->address;
    const char *path = address->un.sun_path;

    if (bind(made->fd, &address->sa, address->length) != 0)
        return -errno;
    if (!socket_file_know(address, &made->file))
        return -errno;
    if (own(path, owner) != 0 || chmod(path, 0660) != 0 || listen(made->fd, BACKLOG) != 0) {
        int error = errno;

        socket_file_remove(address, &made->file);
        return -error;
    }
    return 0;
}

/* Who is asked to look for another Weir should not look for a file. */
static const char *in_the_way(const struct control_socket *made)
{
    struct stat info;

    return lstat(made->address.un.sun_path, &info) == 0 && !S_ISSOCK(info.st_mode)
               ? " (what lies there is no socket)"
               : " (another Weir listens there)";
}

bool control_socket_open(struct control_socket *made, const struct address *address,
                         const struct control_owner *owner, char *error, size_t size)
{
    const char *path = address->un.sun_path;
    int failure = make_folder(path, owner);

    *made = (struct control_socket){ .fd = -1, .address = *address };
    if (failure != 0) {
        (void)snprintf(error, size, "%s: its folder cannot be made: %s", path, strerrordesc_np(-failure));
        return false;
    }
    made->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (made->fd < 0) {
        (void)snprintf(error, size, "%s: %s", path, strerrordesc_np(errno));
        return false;
    }
    socket_file_remove_stale(address);
    failure = listen_there(made, owner);
    if (failure == 0)
        return true;
    (void)snprintf(error, size, "%s: cannot listen: %s%s", path, strerrordesc_np(-failure),
                   failure == -EADDRINUSE ? in_the_way(made) : "");
    close(made->fd);
    made->fd = -1;
    return false;
}

void control_socket_close(struct control_socket *socket)
{
    if (socket->fd < 0)
        return;
    /* The file first: one without a listener would be taken for a dead process's. */
    socket_file_remove(&socket->address, &socket->file);
    close(socket->fd);
    socket->fd = -1;
}
