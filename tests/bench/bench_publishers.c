/*
 * What do shared counts cost Redis? 32 instances of 64 backends each, whose counts change all the time, with
 * a redis-server of its own: the processor time that it takes, as a share of a core, at the standard
 * publish-interval and at the least one, where every look publishes.
 *
 *     bench_publishers [SECONDS [INTERVAL]]    of each measurement; ms
 *
 *     32 real instances ──▶ redis-server         first: one of them through a pipe that keeps what it says
 *     32 players ──what was kept──▶ redis-server ──▶ 32 subscribers, that read and forget
 *
 * To read what all others say takes 32 real instances more than a core, of which there are few here, and then
 * they would not reach the cap. So what one has said in a resync's time is said again in the name of each, as
 * often as it would be: counts with and without verdicts, resync, statistics. Redis knows no difference.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "config/redis_url.h"
#include "counters/counters.h"
#include "net/clock.h"
#include "net/log.h"
#include "tests/bench/redis_server.h"
#include "tests/unit/farm_fixture.h"

#define INSTANCES 32
#define BACKENDS  64
#define LEASE     3000 /* ms */
#define RESYNC    5000 /* ms: COUNTERS_RESYNC, and the statistics */
#define OCTETS    (4 << 20)

struct instance {
    struct fixture fixture;
    struct farm *farm;
    struct counters *counters;
    char id[64];
};

/* What is said again, by kind. */
struct words {
    char *octets;
    size_t size;
};
enum kind { COUNTS, VERDICTS, REST, KINDS };

struct player {
    int commands, events;
    ev_io answers, messages;
    ev_timer publish, resync;
    struct words words[KINDS];
    int64_t verdicts_at;
    uint64_t octets; /* that were heard */
};

static struct instance instances[INSTANCES];
static struct player players[INSTANCES];
static struct words recorded, kept[KINDS];
static char scratch[OCTETS], pipe_path[80];
static double message; /* octets of one, as a subscriber gets it */
static struct ev_loop *loop;

static void run_for(int64_t milliseconds)
{
    for (int64_t end = clock_milliseconds() + milliseconds; clock_milliseconds() < end;)
        ev_run(loop, EVRUN_ONCE);
}

/* --- real instances --- */

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
    (void)snprintf(out, size,
                   "state=up since=1790000000000 limit=100 found=none admin=ready weight=1 configured=1 "
                   "max=100 address=10.0.0.11:25 pools=relays reason=check passed");
}

static void finding(void *arg, const struct backend *backend, bool *down, uint32_t *limit)
{
    (void)arg;
    (void)backend;
    *down = false;
    *limit = 0;
}

/* Numbers as they are after a day. */
static bool replies(void *arg, const struct backend *backend, struct backend_replies *totals)
{
    static uint64_t total = 1000000;

    (void)arg;
    (void)backend;
    total++;
    totals->replies = total;
    totals->milliseconds = 50 * total;
    totals->squares = 3000 * total;
    return true;
}

static void hear_replies(void *arg, struct backend *backend, const struct backend_replies *more)
{
    (void)arg;
    (void)backend;
    (void)more;
}

static void hear(void *arg, struct backend *backend, uint32_t down, uint32_t heard, uint32_t limit)
{
    (void)arg;
    (void)backend;
    (void)down;
    (void)heard;
    (void)limit;
}

static void count(void *arg, struct statistics *statistics)
{
    (void)arg;
    statistics_count(statistics, "sessions", 100000);
    statistics_count(statistics, "bytes_in", 1000000000);
}

static void open_instance(struct instance *i, struct redis_url *url)
{
    static const struct counters_ops ops = {
        .load = load,
        .verdict = verdict,
        .finding = finding,
        .replies = replies,
        .hear_replies = hear_replies,
        .hear = hear,
        .count = count,
    };
    struct config_pool *pool;
    char name[12];

    fixture_start(&i->fixture);
    pool = fixture_pool(&i->fixture, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    for (int b = 0; b < BACKENDS; b++) {
        (void)snprintf(name, sizeof name, "relay%hhu", (unsigned char)b);
        fixture_backend(&i->fixture, pool, name, 1, 100, 0);
    }
    i->fixture.config.redis = (struct config_redis){
        .url = url, .farm = (char *)"bench", .publish_interval = 250, .lease = LEASE, .expected_instances = 1
    };
    i->farm = fixture_farm(&i->fixture, NULL);
    i->counters = counters_open(loop, &ops);
    if (!i->farm || !i->counters)
        fail("out of memory");
    counters_set_farm(i->counters, i->farm);
}

/* One in four backends gets another count. */
static void on_churn(struct ev_loop *on, ev_timer *timer, int events)
{
    static uint32_t step;

    (void)on;
    (void)timer;
    (void)events;
    step++;
    for (int i = 0; i < INSTANCES; i++)
        for (size_t b = step % 4; b < BACKENDS; b += 4)
            atomic_store(&instances[i].farm->backends[b]->connections, (step + b) % 50);
}

/* All instances must hear each other. */
static bool all_are_there(void)
{
    struct counters_status status;

    for (int i = 0; i < INSTANCES; i++) {
        counters_status(instances[i].counters, &status);
        if (status.state != COUNTERS_SHARED || status.instances != INSTANCES)
            return false;
        memcpy(instances[i].id, status.id, sizeof status.id);
    }
    return true;
}

/* --- the pipe --- */

/* One connection of the first instance. What goes to the server is kept while `recorded` has room. */
struct pipe {
    int client, server;
    ev_io up, down;
};
static struct pipe pipes[64];
static size_t n_pipes;
static ev_io accepting;

static void on_up(struct ev_loop *on, ev_io *io, int events)
{
    const struct pipe *pipe = io->data;
    ssize_t n = recv(pipe->client, scratch, sizeof scratch, MSG_DONTWAIT);

    (void)events;
    if (n <= 0) {
        ev_io_stop(on, io);
        shutdown(pipe->server, SHUT_WR);
        return;
    }
    send_all(pipe->server, scratch, (size_t)n);
    if (recorded.octets && recorded.size + (size_t)n <= OCTETS) {
        memcpy(recorded.octets + recorded.size, scratch, (size_t)n);
        recorded.size += (size_t)n;
    }
}

static void on_down(struct ev_loop *on, ev_io *io, int events)
{
    const struct pipe *pipe = io->data;
    ssize_t n = recv(pipe->server, scratch, sizeof scratch, MSG_DONTWAIT | MSG_PEEK);

    (void)events;
    if (n <= 0) {
        ev_io_stop(on, io);
        shutdown(pipe->client, SHUT_WR);
        return;
    }
    /* What the instance, on the same loop, has no room for yet stays where it is. */
    n = send(pipe->client, scratch, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0)
        (void)!recv(pipe->server, scratch, (size_t)n, 0);
}

static void on_accept(struct ev_loop *on, ev_io *io, int events)
{
    struct pipe *pipe = &pipes[n_pipes];

    (void)events;
    if (n_pipes == sizeof pipes / sizeof *pipes)
        fail("the instance came back too often");
    n_pipes++;
    pipe->client = accept(io->fd, NULL, NULL);
    pipe->server = connect_server(false);
    ev_io_init(&pipe->up, on_up, pipe->client, EV_READ);
    ev_io_init(&pipe->down, on_down, pipe->server, EV_READ);
    pipe->up.data = pipe->down.data = pipe;
    ev_io_start(on, &pipe->up);
    ev_io_start(on, &pipe->down);
}

static void open_pipe(void)
{
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(pipe_path, sizeof pipe_path, "%s.pipe", path);
    address = address_of(pipe_path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 8) != 0)
        fail("no pipe");
    ev_io_init(&accepting, on_accept, fd, EV_READ);
    ev_io_start(loop, &accepting);
}

static void close_pipe(void)
{
    ev_io_stop(loop, &accepting);
    close(accepting.fd);
    for (size_t i = 0; i < n_pipes; i++) {
        ev_io_stop(loop, &pipes[i].up);
        ev_io_stop(loop, &pipes[i].down);
        close(pipes[i].client);
        close(pipes[i].server);
    }
    unlink(pipe_path);
}

/* --- what was said --- */

static bool has(const char *from, const char *to, const char *text)
{
    return memmem(from, (size_t)(to - from), text, strlen(text));
}

/* Behind the command at `at`, "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"; NULL: it is not whole. */
static const char *skip(const char *at, const char *end)
{
    char *next;
    long words;

    if (at >= end || *at != '*' || !memchr(at, '\n', (size_t)(end - at)))
        return NULL;
    words = strtol(at + 1, &next, 10);
    for (at = next + 2; words > 0; words--) {
        if (at >= end || *at != '$' || !memchr(at, '\n', (size_t)(end - at)))
            return NULL;
        at = next = (char *)(uintptr_t)at + 1;
        at = next + strtol(at, &next, 10) + (next - at) + 4;
    }
    return at <= end ? at : NULL;
}

static void keep(enum kind kind, const char *from, const char *to, bool in_place)
{
    struct words *words = &kept[kind];

    if (!in_place)
        words->size = 0;
    memcpy(words->octets + words->size, from, (size_t)(to - from));
    words->size += (size_t)(to - from);
}

/* Transaction by transaction: of the counts the last of each kind, of the rest all. */
static void sort_out(void)
{
    static const char publish[] = "\r\nPUBLISH\r\n";
    const char *at = recorded.octets, *end = at + recorded.size, *next;

    for (int k = 0; k < KINDS; k++)
        kept[k].octets = malloc(OCTETS);
    while ((next = skip(at, end))) {
        bool counts;

        if (has(at, next, "\r\nMULTI\r\n"))
            for (const char *from = next; (next = skip(from, end)) && !has(from, next, "\r\nEXEC\r\n");)
                from = next;
        if (!next)
            break;
        counts = has(at, next, publish);
        keep(!counts ? REST : has(at, next, "state=up") ? VERDICTS : COUNTS, at, next, !counts);
        at = next;
    }
    /* "*3 message", the channel and the text. */
    if (kept[COUNTS].size) {
        end = kept[COUNTS].octets + kept[COUNTS].size;
        at = memmem(kept[COUNTS].octets, kept[COUNTS].size, publish, sizeof publish - 1);
        message = (double)(end - at) - (sizeof publish - 1) - (sizeof "*1\r\n$4\r\nEXEC\r\n" - 1) + 17;
    }
    if (!kept[COUNTS].size || !kept[VERDICTS].size ||
        !has(kept[REST].octets, kept[REST].octets + kept[REST].size, "ZRANGE"))
        fail("the instance has not said all that it should have");
    printf("octets: counts %zu, with verdicts %zu, the message of it %.0f; each %d s %zu\n",
           kept[COUNTS].size, kept[VERDICTS].size, message, RESYNC / 1000, kept[REST].size);
}

static void record(void)
{
    struct redis_url direct, piped;
    const char *error;
    char text[96];
    ev_timer churn;
    int64_t end = clock_milliseconds() + 90000;

    open_pipe();
    (void)snprintf(text, sizeof text, "unix:%s", path);
    if (!redis_url_parse(text, &direct, &error))
        fail(error);
    (void)snprintf(text, sizeof text, "unix:%s", pipe_path);
    if (!redis_url_parse(text, &piped, &error))
        fail(error);
    for (int i = 0; i < INSTANCES; i++) {
        open_instance(&instances[i], i ? &direct : &piped);
        run_for(RESYNC / INSTANCES); /* lest all of them resync at once for ever */
    }
    ev_timer_init(&churn, on_churn, 0.01, 0.01);
    ev_timer_start(loop, &churn);
    recorded.octets = malloc(OCTETS);
    do {
        if (clock_milliseconds() > end)
            fail("the instances do not hear each other");
        run_for(1000);
        recorded.size = 0;
        run_for(RESYNC);
        /* A busy machine may have cut a connection, which then began anew. */
    } while (!all_are_there() || has(recorded.octets, recorded.octets + recorded.size, "SETNAME"));
    ev_timer_stop(loop, &churn);
    sort_out();
    free(recorded.octets);
    recorded.octets = NULL;
    for (int i = 0; i < INSTANCES; i++) {
        counters_close(&instances[i].counters);
        farm_release(&instances[i].farm);
    }
    close_pipe();
}

/* --- players --- */

/* In its own name. The length stays: all have the same host. */
static struct words renamed(const struct words *words, const char *id)
{
    struct words own = { malloc(words->size), words->size };
    const char *old = instances[0].id;
    char *at = own.octets, *end = at + own.size;

    if (!at || strlen(id) != strlen(old))
        fail("no other name");
    memcpy(at, words->octets, words->size);
    while ((at = memmem(at, (size_t)(end - at), old, strlen(old)))) {
        memcpy(at, id, strlen(id));
        at += strlen(id);
    }
    return own;
}

/* --- turns --- */

/* What is due, one behind the other, each said when the one before is answered: on a busy machine several
 * would come at once, and what the server has to do for each is then done once for all. */
#define TURNS 256
static struct turn {
    struct player *player;
    enum kind what;
} turns[TURNS];
static size_t turn, turns_end; /* modulo TURNS */
static bool speaking;

static void next_turn(void)
{
    const struct turn *now = &turns[turn % TURNS];
    const struct words *words = &now->player->words[now->what];

    if (speaking || turn == turns_end)
        return;
    speaking = true;
    send_all(now->player->commands, words->octets, words->size);
}

static void line_up(struct player *player, enum kind what)
{
    if (turns_end - turn == TURNS)
        return; /* the machine is too busy, and the figures will show it */
    turns[turns_end++ % TURNS] = (struct turn){ player, what };
    next_turn();
}

static void on_answer(struct ev_loop *on, ev_io *io, int events)
{
    const struct player *player = io->data;
    ssize_t n = recv(io->fd, scratch, sizeof scratch, MSG_DONTWAIT);

    (void)events;
    if (n == 0)
        ev_io_stop(on, io);
    if (n <= 0 || !speaking || turns[turn % TURNS].player != player)
        return;
    speaking = false;
    turn++;
    next_turn();
}

static void on_message(struct ev_loop *on, ev_io *io, int events)
{
    struct player *player = io->data;
    ssize_t n = recv(io->fd, scratch, sizeof scratch, MSG_DONTWAIT);

    (void)events;
    if (n > 0)
        player->octets += (uint64_t)n;
    else if (n == 0)
        ev_io_stop(on, io);
}

static void on_publish(struct ev_loop *on, ev_timer *timer, int events)
{
    struct player *player = timer->data;
    int64_t now = clock_milliseconds();
    bool verdicts = now - player->verdicts_at >= LEASE / 3;

    (void)on;
    (void)events;
    if (verdicts)
        player->verdicts_at = now;
    line_up(player, verdicts ? VERDICTS : COUNTS);
}

static void on_resync(struct ev_loop *on, ev_timer *timer, int events)
{
    (void)on;
    (void)events;
    line_up(timer->data, REST);
}

/* Each at a moment of its own. */
static void open_player(int i, double interval, bool by_tcp)
{
    static const char subscribe[] = "SUBSCRIBE weir:{bench}:events\r\n";
    struct player *player = &players[i];
    double offset = (double)i / INSTANCES;

    for (int k = 0; k < KINDS; k++)
        player->words[k] = renamed(&kept[k], instances[i].id);
    player->octets = 0;
    player->verdicts_at = 0;
    player->commands = connect_server(by_tcp);
    player->events = connect_server(by_tcp);
    send_all(player->events, subscribe, sizeof subscribe - 1);
    ev_io_init(&player->answers, on_answer, player->commands, EV_READ);
    ev_io_init(&player->messages, on_message, player->events, EV_READ);
    player->answers.data = player->messages.data = player;
    ev_timer_init(&player->publish, on_publish, offset * interval, interval);
    ev_timer_init(&player->resync, on_resync, offset * RESYNC / 1000, RESYNC / 1000.);
    player->publish.data = player->resync.data = player;
    ev_io_start(loop, &player->answers);
    ev_io_start(loop, &player->messages);
    ev_timer_start(loop, &player->publish);
    ev_timer_start(loop, &player->resync);
}

static void close_player(struct player *player)
{
    ev_timer_stop(loop, &player->publish);
    ev_timer_stop(loop, &player->resync);
    ev_io_stop(loop, &player->answers);
    ev_io_stop(loop, &player->messages);
    close(player->commands);
    close(player->events);
    for (int k = 0; k < KINDS; k++)
        free(player->words[k].octets);
}

static uint64_t heard(void)
{
    uint64_t sum = 0;

    for (int i = 0; i < INSTANCES; i++)
        sum += players[i].octets;
    return sum;
}

static void measure(uint32_t interval, int seconds, bool by_tcp)
{
    double cpu, passed;
    uint64_t snapshots, octets, writes;
    int64_t began;

    for (int i = 0; i < INSTANCES; i++)
        open_player(i, interval / 1000., by_tcp);
    run_for(3000);
    snapshots = published();
    octets = heard();
    writes = server_writes();
    cpu = server_time();
    began = clock_milliseconds();
    run_for((int64_t)seconds * 1000);
    passed = (double)(clock_milliseconds() - began);
    cpu = server_time() - cpu;
    octets = heard() - octets;
    writes = server_writes() - writes;
    snapshots = published() - snapshots;
    printf("%s, publish-interval %3" PRIu32 " ms: %4.1f snapshots/s each, heard by %.1f, %4.1f MB/s; "
           "redis-server takes %4.1f %% of a core (%.0f us and %.1f writes a snapshot)\n",
           by_tcp ? "port" : "path", interval, (double)snapshots * 1000 / passed / INSTANCES,
           (double)octets / (double)snapshots / message, (double)octets / passed / 1000, cpu / passed * 100,
           cpu * 1000 / (double)snapshots, (double)writes / (double)snapshots);
    (void)fflush(stdout);
    for (int i = 0; i < INSTANCES; i++)
        close_player(&players[i]);
    turn = turns_end;
    speaking = false;
}

int main(int argc, char **argv)
{
    int seconds = argc > 1 ? atoi(argv[1]) : 20;
    const char *error;

    loop = ev_loop_new(0);
    if (!loop || seconds <= 0)
        fail("seconds?");
    if (log_start(LOG_TARGET_STDERR, NULL, LOG_FORMAT_LOGFMT, LOG_LEVEL_ERROR, &error) != 0)
        fail(error);
    start_server();
    record();
    for (int by_tcp = 0; by_tcp < 2; by_tcp++) {
        if (argc > 2) {
            measure((uint32_t)atoi(argv[2]), seconds, by_tcp);
            continue;
        }
        measure(250, seconds, by_tcp);
        measure(35, seconds, by_tcp);
    }
    stop_server();
    ev_loop_destroy(loop);
    return 0;
}
