/*
 * Checks over real sockets, against a relay that follows a script in the same loop; then health as a whole:
 * from the socket to what is published in struct backend.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <ev.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "health/check.h"
#include "health/health.h"
#include "net/clock.h"
#include "tests/unit/check_fixture.h"
#include "tests/unit/farm_fixture.h"

#define TURNS 5

/* --- a scripted relay --- */

struct relay {
    struct ev_loop *loop;
    struct address address;
    ev_io listening, talking;
    const char *const *script; /* what to say at each turn: "" closes, NULL says nothing more */
    int turn;
    char heard[512]; /* by the last connection */
    int accepted;
};

static void hang_up(struct relay *relay)
{
    if (!ev_is_active(&relay->talking))
        return;
    ev_io_stop(relay->loop, &relay->talking);
    close(relay->talking.fd);
}

static void say(struct relay *relay)
{
    const char *text = relay->turn < TURNS ? relay->script[relay->turn++] : NULL;

    if (text && *text)
        assert_int_equal(send(relay->talking.fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    else if (text)
        hang_up(relay);
}

static void on_talk(struct ev_loop *loop, ev_io *io, int events)
{
    struct relay *relay = io->data;
    size_t have = strlen(relay->heard);
    ssize_t n = recv(io->fd, relay->heard + have, sizeof relay->heard - 1 - have, 0);

    (void)loop;
    (void)events;
    if (n <= 0) {
        hang_up(relay);
        return;
    }
    relay->heard[have + (size_t)n] = '\0';
    say(relay);
}

static void on_accept(struct ev_loop *loop, ev_io *io, int events)
{
    struct relay *relay = io->data;
    int fd = accept(io->fd, NULL, NULL);

    (void)events;
    assert_true(fd >= 0);
    hang_up(relay); /* one at a time is enough here */
    memset(relay->heard, 0, sizeof relay->heard);
    relay->accepted++;
    relay->turn = 0;
    ev_io_init(&relay->talking, on_talk, fd, EV_READ);
    relay->talking.data = relay;
    ev_io_start(loop, &relay->talking);
    say(relay);
}

static void relay_listen(struct relay *relay)
{
    ev_io_init(&relay->listening, on_accept, listen_at(&relay->address), EV_READ);
    relay->listening.data = relay;
    ev_io_start(relay->loop, &relay->listening);
}

static void relay_open(struct relay *relay, struct ev_loop *loop, const char *const *script)
{
    memset(relay, 0, sizeof *relay);
    relay->loop = loop;
    relay->script = script;
    relay->address = any_loopback_port();
    ev_init(&relay->talking, on_talk);
    relay_listen(relay);
}

static void relay_close(struct relay *relay)
{
    hang_up(relay);
    if (ev_is_active(&relay->listening)) {
        ev_io_stop(relay->loop, &relay->listening);
        close(relay->listening.fd);
    }
}

/* --- single checks --- */

static void check(struct ev_loop *loop, const struct check_target *target, struct outcome *outcome)
{
    const struct check_handler handler = { on_decided, on_ended, outcome };

    memset(outcome, 0, sizeof *outcome);
    assert_non_null(check_start(loop, target, &handler));
    run_until(loop, is_ended, outcome);
    assert_int_equal(outcome->decided, 1);
    assert_int_equal(outcome->ended, 1);
}

static const struct address anywhere;

struct row {
    const char *name;
    enum config_health_depth depth;
    const char *script[TURNS];
    uint32_t timeout;
    enum check_verdict verdict;
    const char *reason;
    const char *heard;
    const char *stages; /* those that took time, the last of them what it failed in */
};

/* clang-format off */
static const struct row rows[] = {
    { "connect", CONFIG_DEPTH_CONNECT, { NULL }, 5000, CHECK_PASSED, "", "",
      "connect" },
    { "connect, whatever it says", CONFIG_DEPTH_CONNECT, { "554 no\r\n" }, 5000, CHECK_PASSED, "", "",
      "connect" },
    { "banner", CONFIG_DEPTH_BANNER, { "220 hi\r\n", "221 bye\r\n" }, 5000, CHECK_PASSED, "", "QUIT\r\n",
      "connect banner quit" },
    { "banner and no farewell", CONFIG_DEPTH_BANNER, { "220 hi\r\n", "" }, 5000, CHECK_PASSED, "", "QUIT\r\n",
      "connect banner quit" },
    { "EHLO", CONFIG_DEPTH_EHLO, { "220 hi\r\n", "250-hi\r\n250 SIZE 99\r\n", "221 bye\r\n" }, 5000,
      CHECK_PASSED, "", "EHLO weir.test\r\nQUIT\r\n",
      "connect banner ehlo quit" },
    { "HELO", CONFIG_DEPTH_EHLO, { "220 hi\r\n", "500 what\r\n", "250 hi\r\n", "221 bye\r\n" }, 5000,
      CHECK_PASSED, "", "EHLO weir.test\r\nHELO weir.test\r\nQUIT\r\n",
      "connect banner ehlo helo quit" },
    { "554", CONFIG_DEPTH_EHLO, { "554 no\r\n", "221 bye\r\n" }, 5000, CHECK_FAILED, "banner 554 no", "QUIT\r\n",
      "connect banner quit" },
    { "421", CONFIG_DEPTH_EHLO, { "421 full\r\n" }, 5000, CHECK_BUSY, "banner 421 full", "",
      "connect banner" },
    { "421 to EHLO", CONFIG_DEPTH_EHLO, { "220 hi\r\n", "421 full\r\n" }, 5000, CHECK_FAILED, "EHLO 421 full",
      "EHLO weir.test\r\n",
      "connect banner ehlo" },
    { "closed", CONFIG_DEPTH_EHLO, { "" }, 5000, CHECK_FAILED, "banner closed", "",
      "connect banner" },
    { "no banner in time", CONFIG_DEPTH_EHLO, { NULL }, 50, CHECK_BUSY, "banner timeout", "",
      "connect banner" },
    { "half a banner in time", CONFIG_DEPTH_EHLO, { "220 h" }, 50, CHECK_BUSY, "banner timeout", "",
      "connect banner" },
    { "no EHLO in time", CONFIG_DEPTH_EHLO, { "220 hi\r\n", NULL }, 50, CHECK_FAILED, "EHLO timeout",
      "EHLO weir.test\r\n",
      "connect banner ehlo" },
};
/* clang-format on */

/* The names of the stages that it was in, and all of its time. */
static uint64_t stages(const struct check_times *times, char *names, size_t size)
{
    uint64_t sum = 0;

    *names = '\0';
    for (enum check_stage stage = 0; stage < CHECK_STAGES; stage++) {
        size_t used = strlen(names);

        if (times->ms[stage] == CHECK_NOT_REACHED)
            continue;
        (void)snprintf(names + used, size - used, "%s%s", used ? " " : "", check_stage_name(stage));
        sum += times->ms[stage];
    }
    return sum;
}

static void test_scripts(void **state)
{
    char names[128];

    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = &rows[i];
        struct relay relay;
        struct outcome outcome;
        struct check_target target = { .address = &relay.address,
                                       .source = &anywhere,
                                       .hostname = "weir.test",
                                       .depth = row->depth,
                                       .timeout = row->timeout };

        print_message("  %s\n", row->name);
        relay_open(&relay, loop, row->script);
        check(loop, &target, &outcome);
        assert_int_equal(outcome.result.verdict, row->verdict);
        assert_string_equal(outcome.reason, row->reason);
        assert_string_equal(relay.heard, row->heard);
        /* A timer may be early by a fraction of a millisecond. */
        assert_true(stages(&outcome.times, names, sizeof names) + 2 >=
                    (strstr(row->reason, "timeout") ? row->timeout : 0));
        assert_string_equal(names, row->stages);
        relay_close(&relay);
    }
    ev_loop_destroy(loop);
}

static void test_capabilities(void **state)
{
    static const char *const script[TURNS] = { "220 hi\r\n", "250-hi\r\n250-DSN\r\n250 SIZE 99\r\n",
                                               "221 bye\r\n" };
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    struct relay relay;
    struct outcome outcome;
    struct check_target target = { .address = &relay.address,
                                   .source = &anywhere,
                                   .hostname = "weir.test",
                                   .depth = CONFIG_DEPTH_EHLO,
                                   .timeout = 5000 };

    (void)state;
    relay_open(&relay, loop, script);
    check(loop, &target, &outcome);
    assert_true(outcome.result.capabilities_known);
    assert_int_equal(outcome.result.capabilities.flags, SMTP_CAP_DSN | SMTP_CAP_SIZE);
    assert_int_equal(outcome.result.capabilities.size_limit, 99);
    relay_close(&relay);
    check(loop, &target, &outcome);
    assert_int_equal(outcome.result.verdict, CHECK_FAILED);
    assert_string_equal(outcome.reason, "connect refused");
    ev_loop_destroy(loop);
}

/* A listener whose queue is full answers no SYN: that is what a host that is gone looks like. */
static void test_connect_timeout(void **state)
{
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    int listener = socket(AF_INET, SOCK_STREAM, 0), fill[8];
    struct address address = { .length = sizeof address.in };
    struct outcome outcome;
    struct check_target target = { .address = &address,
                                   .source = &anywhere,
                                   .hostname = "weir.test",
                                   .depth = CONFIG_DEPTH_EHLO,
                                   .timeout = 100 };

    (void)state;
    address.in.sin_family = AF_INET;
    address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(listener, &address.sa, address.length), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(getsockname(listener, &address.sa, &address.length), 0);
    for (size_t i = 0; i < sizeof fill / sizeof *fill; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fill[i], &address.sa, address.length);
    }
    check(loop, &target, &outcome);
    assert_int_equal(outcome.result.verdict, CHECK_FAILED);
    assert_string_equal(outcome.reason, "connect timeout");
    for (size_t i = 0; i < sizeof fill / sizeof *fill; i++)
        close(fill[i]);
    close(listener);
    ev_loop_destroy(loop);
}

/* Weir out of descriptors is no news of the backend. */
static void test_no_descriptor(void **state)
{
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    static const char *const script[TURNS] = { "220 hi\r\n" };
    struct relay relay;
    struct outcome outcome;
    struct check_target target = { .address = &relay.address,
                                   .source = &anywhere,
                                   .hostname = "weir.test",
                                   .depth = CONFIG_DEPTH_EHLO,
                                   .timeout = 5000 };
    struct rlimit limit, few;
    int used[256];
    size_t n = 0;

    (void)state;
    relay_open(&relay, loop, script);
    ev_run(loop, EVRUN_NOWAIT); /* the loop has its own descriptors by now */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = limit;
    few.rlim_cur = sizeof used / sizeof *used;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    while ((used[n] = dup(relay.listening.fd)) >= 0)
        n++;
    check(loop, &target, &outcome);
    while (n > 0)
        close(used[--n]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(outcome.result.verdict, CHECK_INCONCLUSIVE);
    relay_close(&relay);
    ev_loop_destroy(loop);
}

/* --- health as a whole --- */

struct house {
    struct ev_loop *loop;
    struct relay relay;
    struct fixture fixture;
    struct config_pool *pool;
    struct farm *farm;
    struct health *health;
    int changes, words;
    enum backend_admin word; /* the last that was told */
    enum backend_state wanted;
    struct backend *backend;
};

static const char *const good[TURNS] = { "220 hi\r\n", "250-hi\r\n250 DSN\r\n", "221 bye\r\n" };

static void on_change(void *arg, struct backend *backend, enum backend_state from)
{
    struct house *house = arg;

    house->changes++;
    assert_int_not_equal(atomic_load(&backend->state), from);
}

static bool is_as_wanted(void *arg)
{
    struct house *house = arg;

    return atomic_load(&house->backend->state) == house->wanted;
}

static void wait_state(struct house *house, enum backend_state state)
{
    house->wanted = state;
    run_until(house->loop, is_as_wanted, house);
}

static void house_open(struct house *house, const char *const *script)
{
    memset(house, 0, sizeof *house);
    house->loop = ev_loop_new(EVFLAG_AUTO);
    relay_open(&house->relay, house->loop, script);
    fixture_start(&house->fixture);
    house->fixture.config.hostname = (char *)(uintptr_t) "weir.test";
    house->pool = fixture_pool(&house->fixture, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    house->pool->health = (struct config_health){ 3600000, 10, 2000, 3, 2, CONFIG_DEPTH_EHLO, NULL, NULL };
    fixture_backend(&house->fixture, house->pool, "a", 4, 100, 0);
    house->fixture.backends[0].address = house->relay.address;
}

static void on_admin(void *arg, struct backend *backend, enum backend_admin admin)
{
    struct house *house = arg;

    house->words++;
    house->word = admin;
    assert_int_equal(atomic_load(&backend->admin), admin);
}

static void house_start(struct house *house)
{
    house->farm = fixture_farm(&house->fixture, NULL);
    house->backend = house->farm->backends[0];
    house->health = health_open(house->loop, &(struct health_watcher){ on_change, on_admin, house });
    assert_non_null(house->health);
    health_set_farm(house->health, house->farm);
}

static void house_close(struct house *house)
{
    relay_close(&house->relay);
    health_close(&house->health);
    farm_release(&house->farm);
    ev_loop_destroy(house->loop);
}

static void assert_view(struct house *house, enum backend_state state, const char *reason)
{
    struct health_view view;

    health_view(house->backend, &view);
    assert_int_equal(view.state, state);
    assert_string_equal(view.reason, reason);
    assert_true(view.since > 1600000000000);
}

static void test_up_at_once(void **state)
{
    struct house house;

    (void)state;
    house_open(&house, good);
    house_start(&house);
    assert_view(&house, BACKEND_INIT, "not checked yet");
    wait_state(&house, BACKEND_UP);
    assert_int_equal(house.changes, 1);
    assert_view(&house, BACKEND_UP, "check passed");
    assert_int_equal(atomic_load(&house.backend->ceiling), 100);
    assert_int_equal(atomic_load(&house.backend->milliweight), 4000);
    /* What it learned is offered to clients. */
    assert_int_equal(atomic_load(&house.backend->capabilities), SMTP_CAP_DSN | BACKEND_CAPABILITIES_KNOWN);
    assert_true(pool_offer(&house.farm->pools[0]).flags & SMTP_CAP_DSN);
    assert_false(pool_offer(&house.farm->pools[0]).flags & SMTP_CAP_8BITMIME);
    house_close(&house);
}

/* Refused in traffic: suspended for all workers, checked, down when the check agrees; back by fast checks. */
static void test_refused(void **state)
{
    struct house house;
    int64_t now;

    (void)state;
    house_open(&house, good);
    house_start(&house);
    wait_state(&house, BACKEND_UP);
    relay_close(&house.relay);
    now = clock_milliseconds();
    health_report(house.backend, HEALTH_REFUSED, now);
    assert_false(backend_usable(house.backend, now + 999));
    assert_true(backend_usable(house.backend, now + 1000));
    wait_state(&house, BACKEND_DOWN);
    assert_view(&house, BACKEND_DOWN, "connect refused");
    relay_listen(&house.relay);
    wait_state(&house, BACKEND_UP);
    assert_int_equal(house.changes, 3);
    house_close(&house);
}

static bool checked_again(void *arg)
{
    struct house *house = arg;

    return house->relay.accepted == 2 && strstr(house->relay.heard, "QUIT");
}

/* A sign of good sessions is not enough for a row of hard ones; and the only backend is never ejected. */
static void test_refused_but_alive(void **state)
{
    struct house house;

    (void)state;
    house_open(&house, good);
    house_start(&house);
    wait_state(&house, BACKEND_UP);
    health_report(house.backend, HEALTH_REFUSED, clock_milliseconds());
    run_until(house.loop, checked_again, &house);
    for (int i = 0; i < 5; i++)
        health_report(house.backend, HEALTH_HARD, clock_milliseconds());
    ev_run(house.loop, EVRUN_NOWAIT);
    assert_int_equal(atomic_load(&house.backend->state), BACKEND_UP);
    assert_int_equal(house.changes, 1);
    house_close(&house);
}

/* A reload makes the interval shorter: what was to come in an hour comes now. */
static void test_hurry(void **state)
{
    struct house house;

    (void)state;
    house_open(&house, good);
    house_start(&house);
    wait_state(&house, BACKEND_UP);
    ev_run(house.loop, EVRUN_NOWAIT);
    assert_int_equal(house.relay.accepted, 1);
    house.pool->health.interval = 20;
    health_set_farm(house.health, house.farm);
    run_until(house.loop, checked_again, &house);
    house_close(&house);
}

static bool all_up(void *arg)
{
    struct house *house = arg;

    for (size_t i = 0; i < house->farm->n_backends; i++)
        if (atomic_load(&house->farm->backends[i]->state) != BACKEND_UP)
            return false;
    return true;
}

static void hard(struct house *house, size_t i, int n)
{
    while (n--)
        health_report(house->farm->backends[i], HEALTH_HARD, clock_milliseconds());
    ev_run(house->loop, EVRUN_NOWAIT);
}

/* Half of the weight may be ejected; one always, while another is usable. */
static void test_ejection_is_bounded(void **state)
{
    struct house house;

    (void)state;
    house_open(&house, good);
    house.pool->health.depth = CONFIG_DEPTH_CONNECT;
    fixture_backend(&house.fixture, house.pool, "b", 1, 100, 0);
    fixture_backend(&house.fixture, house.pool, "c", 1, 100, 0);
    fixture_backend(&house.fixture, house.pool, "d", 3, 100, 0);
    for (int i = 1; i < 4; i++)
        house.fixture.backends[i].address = house.relay.address;
    house_start(&house);
    run_until(house.loop, all_up, &house);
    hard(&house, 1, 2);
    health_report(house.farm->backends[1], HEALTH_GOOD, clock_milliseconds());
    hard(&house, 1, 2); /* not in a row */
    assert_int_equal(atomic_load(&house.farm->backends[1]->state), BACKEND_UP);
    hard(&house, 1, 1);
    assert_int_equal(atomic_load(&house.farm->backends[1]->state), BACKEND_EJECTED);
    hard(&house, 0, 3); /* 1 + 4 of 9 */
    assert_int_equal(atomic_load(&house.farm->backends[0]->state), BACKEND_UP);
    hard(&house, 3, 3); /* 1 + 3 of 9 */
    assert_int_equal(atomic_load(&house.farm->backends[3]->state), BACKEND_EJECTED);
    hard(&house, 2, 3); /* 1 + 3 + 1 of 9 */
    assert_int_equal(atomic_load(&house.farm->backends[2]->state), BACKEND_UP);
    house_close(&house);
}

static void test_load_limits(void **state)
{
    struct house house;

    (void)state;
    house_open(&house, good);
    house_start(&house);
    wait_state(&house, BACKEND_UP);
    atomic_store(&house.backend->connections, 50);
    health_report(house.backend, HEALTH_LOAD, clock_milliseconds());
    health_report(house.backend, HEALTH_LOAD, clock_milliseconds());
    ev_run(house.loop, EVRUN_NOWAIT);
    assert_int_equal(atomic_load(&house.backend->ceiling), 35);
    assert_int_equal(atomic_load(&house.backend->state), BACKEND_UP);
    atomic_store(&house.backend->connections, 0);
    house_close(&house);
}

/* Three backends; a reload keeps one with its history, drops one and brings one. */
static void test_reload(void **state)
{
    struct house house;
    struct fixture next;
    struct config_pool *pool;
    struct farm *old;
    struct backend *dropped;

    (void)state;
    house_open(&house, good);
    house.pool->health.depth = CONFIG_DEPTH_CONNECT;
    fixture_backend(&house.fixture, house.pool, "b", 1, 100, 0);
    house.fixture.backends[1].address = house.relay.address;
    house_start(&house);
    wait_state(&house, BACKEND_UP);
    dropped = backend_hold(house.farm->backends[1]);

    fixture_start(&next);
    next.config.hostname = house.fixture.config.hostname;
    pool = fixture_pool(&next, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    pool->health = house.pool->health;
    fixture_backend(&next, pool, "a", 2, 50, 0);
    fixture_backend(&next, pool, "c", 1, 100, 0);
    next.backends[0].address = next.backends[1].address = house.relay.address;
    old = house.farm;
    house.farm = fixture_farm(&next, old);
    farm_release(&old);
    health_set_farm(house.health, house.farm);
    assert_ptr_equal(house.farm->backends[0], house.backend);
    assert_int_equal(atomic_load(&house.backend->state), BACKEND_UP);
    assert_int_equal(atomic_load(&house.backend->ceiling), 50);
    assert_int_equal(atomic_load(&house.backend->milliweight), 2000);
    house.backend = house.farm->backends[1];
    wait_state(&house, BACKEND_UP);
    /* A session is still on the dropped one. */
    health_report(dropped, HEALTH_REFUSED, clock_milliseconds());
    for (int i = 0; i < 3; i++)
        health_report(dropped, HEALTH_HARD, clock_milliseconds());
    ev_run(house.loop, EVRUN_NOWAIT);
    backend_release(&dropped);
    health_set_farm(house.health, house.farm); /* reaps it */
    house_close(&house);
}

/* A name: no address at first, and what becomes of that comes with the next farm. */
static void house_open_by_name(struct house *house)
{
    house_open(house, good);
    memset(&house->fixture.backends[0].address, 0, sizeof house->fixture.backends[0].address);
    house->fixture.backends[0].host = (char *)(uintptr_t) "relay.weir.test";
    house->fixture.backends[0].port = ntohs(house->relay.address.in.sin_port);
    house_start(house);
    ev_run(house->loop, EVRUN_NOWAIT);
    assert_view(house, BACKEND_INIT, "not checked yet");
}

static void test_name_is_not_there(void **state)
{
    struct house house;

    (void)state;
    house_open_by_name(&house);
    house.farm->given[0].unresolved = "no such name";
    health_set_farm(house.health, house.farm);
    assert_int_equal(atomic_load(&house.backend->state), BACKEND_DOWN);
    assert_view(&house, BACKEND_DOWN, "name does not resolve: no such name");
    assert_int_equal(house.relay.accepted, 0);
    house_close(&house);
}

static struct farm *farm_of(struct house *house, struct backend *backend)
{
    struct farm *farm = fixture_farm(&house->fixture, house->farm);

    /* What names would have led to. */
    backend_release(&farm->backends[0]);
    farm->backends[0] = backend;
    backend_release(&farm->pools[0].members[0]->backend);
    farm->pools[0].members[0]->backend = backend_hold(backend);
    farm->given[0].address = house->relay.address;
    farm_commit(farm);
    return farm;
}

/* The one that was found takes the place of the one that had no address: nobody has been at work before it,
 * so it has its whole share at once. */
static void test_name_is_found(void **state)
{
    struct house house;
    struct farm *old;

    (void)state;
    house_open_by_name(&house);
    old = house.farm;
    house.backend = backend_create_found("a", "127.0.0.1");
    house.pool->slow_start = 60000;
    house.farm = farm_of(&house, house.backend);
    health_set_farm(house.health, house.farm);
    farm_release(&old);
    wait_state(&house, BACKEND_UP);
    assert_int_equal(atomic_load(&house.backend->milliweight), 4000);
    assert_int_equal(house.relay.accepted, 1);
    house_close(&house);
}

/* Who comes to others that are at work begins slowly; who comes to nobody does not. */
static void test_newcomers(void **state)
{
    struct house house;
    struct fixture nexts[2];
    struct config_pool *pool;
    struct farm *old;

    (void)state;
    house_open(&house, good);
    house.pool->health.depth = CONFIG_DEPTH_CONNECT;
    house.pool->slow_start = 60000;
    house_start(&house);
    wait_state(&house, BACKEND_UP);
    assert_int_equal(atomic_load(&house.backend->milliweight), 4000);

    for (int i = 0; i < 2; i++) { /* "b" beside "a", then "c" alone */
        struct fixture *next = &nexts[i];

        old = house.farm;
        fixture_start(next);
        next->config.hostname = house.fixture.config.hostname;
        pool = fixture_pool(next, "relays", CONFIG_LEAST_CONNECTIONS, 10);
        pool->health = house.pool->health;
        pool->slow_start = 60000;
        if (i == 0)
            fixture_backend(next, pool, "a", 4, 100, 0);
        fixture_backend(next, pool, i == 0 ? "b" : "c", 4, 100, 0);
        next->backends[0].address = next->backends[1].address = house.relay.address;
        house.farm = fixture_farm(next, old);
        house.backend = house.farm->backends[i == 0];
        health_set_farm(house.health, house.farm);
        farm_release(&old);
        wait_state(&house, BACKEND_UP);
        assert_int_equal(atomic_load(&house.backend->milliweight), i == 0 ? 400 : 4000);
        assert_int_equal(atomic_load(&house.backend->ceiling), i == 0 ? 10 : 100);
    }
    house_close(&house);
}

/* It leaves with a session on it, and comes back before that has ended: the same one, checked like a new
 * one. */
static void test_return(void **state)
{
    struct house house;
    struct fixture without;
    struct config_pool *pool;
    struct farm *old;

    (void)state;
    house_open(&house, good);
    house.pool->health.depth = CONFIG_DEPTH_CONNECT;
    house_start(&house);
    wait_state(&house, BACKEND_UP);
    assert_true(backend_take_place(house.backend));

    fixture_start(&without);
    without.config.hostname = house.fixture.config.hostname;
    pool = fixture_pool(&without, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    pool->health = house.pool->health;
    fixture_backend(&without, pool, "b", 4, 100, 0);
    without.backends[0].address = house.relay.address;
    old = house.farm;
    house.farm = fixture_farm(&without, old);
    farm_release(&old);
    health_set_farm(house.health, house.farm);
    assert_false(backend_in_service(house.backend));
    ev_run(house.loop, EVRUN_NOWAIT);

    old = house.farm;
    house.farm = fixture_farm(&house.fixture, old);
    farm_release(&old);
    health_set_farm(house.health, house.farm);
    assert_ptr_equal(house.farm->backends[0], house.backend);
    assert_int_equal(atomic_load(&house.backend->connections), 1);
    assert_view(&house, BACKEND_INIT, "its name has this address again");
    wait_state(&house, BACKEND_UP);
    assert_int_equal(atomic_load(&house.backend->ceiling), 100);
    backend_return_place(house.backend);
    house_close(&house);
}

static void order(struct house *house, enum order_source source, enum backend_admin admin, uint32_t weight)
{
    struct order word = order_none;

    word.admin = admin;
    word.weight = weight;
    health_order(house->health, house->backend, source, &word);
}

static void assert_weight(struct house *house, uint32_t weight, bool ordered)
{
    struct health_view view;

    health_view(house->backend, &view);
    assert_int_equal(view.weight, weight);
    assert_int_equal(view.weight_ordered, ordered);
    assert_int_equal(view.max_connections, 100);
    assert_int_equal(atomic_load(&house->backend->milliweight), weight * 1000);
}

/* A weight in place of the configured one, over a reload too; and what the pool offers follows it. */
static void test_order_of_weight(void **state)
{
    struct pool *pool;
    struct house house;

    (void)state;
    house_open(&house, good);
    house_start(&house);
    pool = &house.farm->pools[0];
    wait_state(&house, BACKEND_UP);
    assert_weight(&house, 4, false);
    assert_true(pool_offer(pool).flags & SMTP_CAP_DSN);
    order(&house, ORDER_OPERATOR, BACKEND_READY, 0);
    assert_weight(&house, 0, true);
    assert_false(backend_in_service(house.backend));
    order(&house, ORDER_OPERATOR, BACKEND_READY, 9);
    assert_weight(&house, 9, true);
    assert_true(backend_in_service(house.backend));
    order(&house, ORDER_FARM, BACKEND_READY, 2); /* the operator's own word comes first */
    assert_weight(&house, 9, true);
    health_set_farm(house.health, house.farm);
    assert_weight(&house, 9, true);
    order(&house, ORDER_OPERATOR, BACKEND_READY, ORDER_NO_WEIGHT);
    assert_weight(&house, 2, true);
    order(&house, ORDER_FARM, BACKEND_READY, ORDER_NO_WEIGHT);
    assert_weight(&house, 4, false);
    assert_int_equal(house.words, 0);
    assert_int_equal(house.changes, 1);
    house_close(&house);
}

/* Each source takes back its own word only; behind MAINT the backend is checked as a new one is. */
static void test_order_of_admin(void **state)
{
    struct health_view view;
    struct house house;

    (void)state;
    house_open(&house, good);
    house_start(&house);
    wait_state(&house, BACKEND_UP);
    order(&house, ORDER_FARM, BACKEND_DRAIN, ORDER_NO_WEIGHT);
    order(&house, ORDER_OPERATOR, BACKEND_MAINT, ORDER_NO_WEIGHT);
    assert_int_equal(house.words, 2);
    assert_int_equal(house.word, BACKEND_MAINT);
    health_view(house.backend, &view);
    assert_int_equal(view.admin_source, ORDER_OPERATOR);
    assert_false(backend_in_service(house.backend));
    health_set_farm(house.health, house.farm); /* a reload changes nothing, and checks nothing */
    assert_int_equal(atomic_load(&house.backend->admin), BACKEND_MAINT);
    assert_int_equal(atomic_load(&house.backend->state), BACKEND_UP);
    order(&house, ORDER_OPERATOR, BACKEND_READY, ORDER_NO_WEIGHT);
    assert_int_equal(house.word, BACKEND_DRAIN);
    health_view(house.backend, &view);
    assert_int_equal(view.admin_source, ORDER_FARM);
    assert_int_equal(atomic_load(&house.backend->state), BACKEND_INIT);
    wait_state(&house, BACKEND_UP); /* checks go on in DRAIN */
    assert_int_equal(house.relay.accepted, 2);
    assert_false(backend_in_service(house.backend));
    order(&house, ORDER_OPERATOR, BACKEND_READY, ORDER_NO_WEIGHT); /* again: nothing happens */
    assert_int_equal(house.words, 3);
    order(&house, ORDER_FARM, BACKEND_READY, ORDER_NO_WEIGHT);
    assert_int_equal(house.words, 4);
    assert_true(backend_in_service(house.backend));
    house_close(&house);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scripts),
        cmocka_unit_test(test_capabilities),
        cmocka_unit_test(test_connect_timeout),
        cmocka_unit_test(test_no_descriptor),
        cmocka_unit_test(test_up_at_once),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_but_alive),
        cmocka_unit_test(test_hurry),
        cmocka_unit_test(test_ejection_is_bounded),
        cmocka_unit_test(test_load_limits),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_order_of_weight),
        cmocka_unit_test(test_order_of_admin),
        cmocka_unit_test(test_name_is_not_there),
        cmocka_unit_test(test_name_is_found),
        cmocka_unit_test(test_newcomers),
        cmocka_unit_test(test_return),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
