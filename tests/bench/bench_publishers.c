/*
 * What do shared counts cost Redis? 32 instances of 64 backends each, whose counts change all the time, with
 * a redis-server of its own: the processor time that it takes, as a share of a core, at the standard
 * publish-interval and at the least one, where every look publishes.
 *
 *     bench_publishers [SECONDS [INTERVAL]]    of each measurement; ms
 *
 * All instances are this one process: the counters are the real ones, over real connections.
 */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config/redis_url.h"
#include "counters/counters.h"
#include "net/clock.h"
#include "net/log.h"
#include "tests/unit/farm_fixture.h"

#define INSTANCES 32
#define BACKENDS  64

extern char **environ;

struct instance {
    struct fixture fixture;
    struct farm *farm;
    struct counters *counters;
};
static struct instance *instances;
static struct redis_url url;
static char path[64];
static pid_t server;

static void load(void *arg, uint64_t *sessions, uint64_t *queued)
{
    (void)arg;
    *sessions = 100;
    *queued = 0;
}

static void verdict(void *arg, const struct backend *backend, char *out, size_t size)
{
    (void)arg;
    (void)backend;
    (void)snprintf(out, size, "state=up since=1790000000000 limit=none reason=check passed");
}

static void finding(void *arg, const struct backend *backend, bool *down, uint32_t *limit)
{
    (void)arg;
    (void)backend;
    *down = false;
    *limit = 0;
}

static void hear(void *arg, struct backend *backend, uint32_t down, uint32_t heard, uint32_t limit)
{
    (void)arg;
    (void)backend;
    (void)down;
    (void)heard;
    (void)limit;
}

static void word(void *arg, struct backend *backend, const char *admin, uint32_t weight)
{
    (void)arg;
    (void)backend;
    (void)admin;
    (void)weight;
}

static void fail(const char *what)
{
    fprintf(stderr, "bench_publishers: %s\n", what);
    if (server > 0)
        kill(server, SIGKILL);
    exit(1);
}

static void start_server(void)
{
    char *arguments[] = { (char *)"redis-server", (char *)"--port", (char *)"0", (char *)"--unixsocket", path,
                          (char *)"--save",       (char *)"",       NULL };
    posix_spawn_file_actions_t actions;

    (void)snprintf(path, sizeof path, "/tmp/bench-publishers.%ld", (long)getpid());
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    if (posix_spawnp(&server, "redis-server", &actions, NULL, arguments, environ) != 0)
        fail("redis-server cannot be started");
    posix_spawn_file_actions_destroy(&actions);
}

/* Processor time of the server so far, ms. */
static double server_time(void)
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

static void open_instance(struct ev_loop *loop, struct instance *i, uint32_t interval)
{
    static const struct counters_ops ops = {
        .load = load, .verdict = verdict, .finding = finding, .hear = hear, .word = word
    };
    struct config_pool *pool;
    char name[12];

    fixture_start(&i->fixture);
    pool = fixture_pool(&i->fixture, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    for (int b = 0; b < BACKENDS; b++) {
        (void)snprintf(name, sizeof name, "relay%hhu", (unsigned char)b);
        fixture_backend(&i->fixture, pool, name, 1, 100, 0);
    }
    i->fixture.config.redis = (struct config_redis){ .url = &url,
                                                     .farm = (char *)"bench",
                                                     .publish_interval = interval,
                                                     .lease = 3000,
                                                     .expected_instances = 1 };
    i->farm = fixture_farm(&i->fixture, NULL);
    i->counters = counters_open(loop, &ops);
    if (!i->farm || !i->counters)
        fail("out of memory");
    counters_set_farm(i->counters, i->farm);
}

static void close_instance(struct instance *i)
{
    counters_close(&i->counters);
    farm_release(&i->farm);
}

/* One in four backends gets another count. */
static void on_churn(struct ev_loop *loop, ev_timer *timer, int events)
{
    static uint32_t step;

    (void)loop;
    (void)timer;
    (void)events;
    step++;
    for (int i = 0; i < INSTANCES; i++)
        for (size_t b = step % 4; b < BACKENDS; b += 4)
            atomic_store(&instances[i].farm->backends[b]->connections, (step + b) % 50);
}

static void run_for(struct ev_loop *loop, int64_t milliseconds)
{
    for (int64_t end = clock_milliseconds() + milliseconds; clock_milliseconds() < end;)
        ev_run(loop, EVRUN_ONCE);
}

/* Snapshots so far; all instances must hear each other. */
static uint64_t published(void)
{
    struct counters_status status;
    uint64_t sum = 0;

    for (int i = 0; i < INSTANCES; i++) {
        counters_status(instances[i].counters, &status);
        if (status.state != COUNTERS_SHARED || status.instances != INSTANCES)
            fail(status.reason[0] ? status.reason : "the instances do not hear each other");
        sum += status.published;
    }
    return sum;
}

static void measure(struct ev_loop *loop, uint32_t interval, int seconds)
{
    double cpu, passed;
    uint64_t snapshots;
    ev_timer churn;
    int64_t began;

    for (int i = 0; i < INSTANCES; i++)
        open_instance(loop, &instances[i], interval);
    ev_timer_init(&churn, on_churn, 0.01, 0.01);
    ev_timer_start(loop, &churn);
    run_for(loop, 3000);
    snapshots = published();
    cpu = server_time();
    began = clock_milliseconds();
    run_for(loop, (int64_t)seconds * 1000);
    passed = (double)(clock_milliseconds() - began);
    cpu = server_time() - cpu;
    snapshots = published() - snapshots;
    printf(
        "publish-interval %3u ms: %4.1f snapshots/s each, redis-server takes %4.1f %% of a core (%.0f us a "
        "snapshot)\n",
        interval, (double)snapshots * 1000 / passed / INSTANCES, cpu / passed * 100,
        cpu * 1000 / (double)snapshots);
    (void)fflush(stdout);
    ev_timer_stop(loop, &churn);
    for (int i = 0; i < INSTANCES; i++)
        close_instance(&instances[i]);
}

int main(int argc, char **argv)
{
    struct ev_loop *loop = ev_loop_new(0);
    int seconds = argc > 1 ? atoi(argv[1]) : 20;
    const char *error;
    char text[80];

    instances = calloc(INSTANCES, sizeof *instances);
    if (!loop || !instances || seconds <= 0)
        fail("seconds?");
    if (log_start(LOG_TARGET_STDERR, NULL, LOG_FORMAT_LOGFMT, LOG_LEVEL_WARNING, &error) != 0)
        fail(error);
    start_server();
    (void)snprintf(text, sizeof text, "unix:%s", path);
    if (!redis_url_parse(text, &url, &error))
        fail(error);
    while (access(path, F_OK) != 0)
        (void)usleep(10000);
    if (argc > 2) {
        measure(loop, (uint32_t)atoi(argv[2]), seconds);
    } else {
        measure(loop, 250, seconds);
        measure(loop, 35, seconds);
    }
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    free(instances);
    ev_loop_destroy(loop);
    return 0;
}
