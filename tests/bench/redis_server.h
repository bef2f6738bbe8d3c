/*
 * A redis-server of a benchmark's own, at a Unix socket and a port, and what it has taken so far. It ends
 * with the benchmark, however that does.
 */
#ifndef WEIR_BENCH_REDIS_SERVER_H
#define WEIR_BENCH_REDIS_SERVER_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[64];
static pid_t server;
static struct sockaddr_in tcp; /* where it listens, besides at `path` */

static inline void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    if (server > 0)
        kill(server, SIGKILL);
    unlink(path);
    exit(1);
}

static inline void start_server(void)
{
    char port[8];
    struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof any;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&any, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&any, &size) != 0)
        fail("no port");
    close(fd);
    tcp = any;
    (void)snprintf(port, sizeof port, "%u", ntohs(tcp.sin_port));
    (void)snprintf(path, sizeof path, "/tmp/bench-publishers.%ld", (long)getpid());
    server = fork();
    if (server == 0) {
        int null = open("/dev/null", O_WRONLY);

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(null, STDOUT_FILENO);
        (void)execlp("redis-server", "redis-server", "--bind", "127.0.0.1", "--port", port, "--unixsocket",
                     path, "--save", "", NULL);
        _exit(1);
    }
    while (access(path, F_OK) != 0) {
        if (server < 0 || waitpid(server, NULL, WNOHANG) != 0)
            fail("redis-server cannot be started");
        (void)usleep(10000);
    }
}

/* Processor time of the server so far, ms. */
static inline double server_time(void)
{
    char name[64], text[1024] = "", *at;
    unsigned long user = 0, system = 0;
    FILE *file;

    (void)snprintf(name, sizeof name, "/proc/%ld/stat", (long)server);
    file = fopen(name, "r");
    if (!file || !fgets(text, sizeof text, file) || !(at = strrchr(text, ')')) ||
        sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        fail("no processor time of redis-server");
    (void)fclose(file);
    return (double)(user + system) * 1000 / (double)sysconf(_SC_CLK_TCK);
}

/* Its write() calls so far. */
static inline uint64_t server_writes(void)
{
    char name[64], line[128];
    uint64_t writes = 0;
    FILE *file;

    (void)snprintf(name, sizeof name, "/proc/%ld/io", (long)server);
    file = fopen(name, "r");
    while (file && fgets(line, sizeof line, file))
        (void)sscanf(line, "syscw: %" SCNu64, &writes);
    if (!file || !writes)
        fail("no writes of redis-server");
    (void)fclose(file);
    return writes;
}

static inline struct sockaddr_un address_of(const char *socket_path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    return address;
}

static inline int connect_server(bool by_tcp)
{
    const struct sockaddr_un unix_address = address_of(path);
    const void *address = by_tcp ? (const void *)&tcp : &unix_address;
    socklen_t size = by_tcp ? sizeof tcp : sizeof unix_address;
    int fd = socket(by_tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;

    if (fd < 0 || connect(fd, address, size) != 0)
        fail("redis-server does not accept");
    if (by_tcp) /* as Weir's own are */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

static inline void send_all(int fd, const char *octets, size_t size)
{
    if (send(fd, octets, size, MSG_NOSIGNAL) != (ssize_t)size)
        fail("redis-server does not take what is said to it");
}

/* PUBLISH commands so far, as the server counts them. */
static inline uint64_t published(void)
{
    static const char ask[] = "INFO commandstats\r\n", word[] = "cmdstat_publish:calls=";
    int fd = connect_server(false);
    char text[65537];
    const char *at = NULL;
    size_t used = 0;

    send_all(fd, ask, sizeof ask - 1);
    while (!at || !strchr(at, ',')) {
        ssize_t n = recv(fd, text + used, sizeof text - 1 - used, 0);

        if (n <= 0)
            fail("no INFO of redis-server");
        used += (size_t)n;
        text[used] = '\0';
        at = strstr(text, word);
    }
    close(fd);
    return strtoull(at + sizeof word - 1, NULL, 10);
}

static inline void stop_server(void)
{
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    unlink(path);
}

#endif
