#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <ev.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "health/names.h"
#include "tests/unit/farm_fixture.h"

#define PATIENCE  20.0 /* seconds until a test gives up */
#define HEADER    12
#define TYPE_A    1
#define TYPE_AAAA 28

/*
 * A name server on the loop of the test. It says the same of every name, in the text of `a` and `aaaa`:
 * addresses with blanks between, "denied", "failed", or nothing at all.
 */
struct fixture_of_names {
    struct ev_loop *loop;
    ev_io server;
    ev_timer guard;
    const char *a, *aaaa;
    unsigned asked;
    unsigned char ttl;
    struct names *names;
    unsigned changes;
    struct fixture farm;
};

static size_t answer(unsigned char *out, size_t size, unsigned type, unsigned char ttl, const char *text)
{
    char copy[256], *rest = copy;

    out[2] = 0x84;
    out[3] = 0;
    memset(out + 6, 0, 6);
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strsep(&rest, " "); word; word = strsep(&rest, " ")) {
        int family = type == TYPE_A ? AF_INET : AF_INET6;
        size_t length = type == TYPE_A ? 4 : 16;
        const unsigned char record[] = { 0xc0, HEADER, 0, (unsigned char)type,  0, 1, 0, 0,
                                         0,    ttl,    0, (unsigned char)length };

        if (strcmp(word, "denied") == 0)
            out[3] = 3;
        else if (strcmp(word, "failed") == 0)
            out[3] = 2;
        else if (*word) {
            memcpy(out + size, record, sizeof record);
            assert_int_equal(inet_pton(family, word, out + size + sizeof record), 1);
            size += sizeof record + length;
            out[7]++;
        }
    }
    return size;
}

static void on_question(struct ev_loop *loop, ev_io *io, int events)
{
    struct fixture_of_names *f = io->data;
    unsigned char text[2048];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    ssize_t n = recvfrom(io->fd, text, 512, 0, (struct sockaddr *)&from, &length);
    size_t end = HEADER;
    unsigned type;

    (void)loop;
    (void)events;
    assert_true(n > HEADER + 4);
    while (text[end])
        end += text[end] + 1u;
    end += 5;
    type = text[end - 3];
    f->asked++;
    end = answer(text, end, type, f->ttl, type == TYPE_A ? f->a : f->aaaa);
    assert_int_equal(sendto(io->fd, text, end, 0, (struct sockaddr *)&from, length), end);
}

static void on_guard(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)timer;
    (void)events;
    ev_break(loop, EVBREAK_ALL);
}

static void on_changed(void *arg)
{
    ((struct fixture_of_names *)arg)->changes++;
}

static int set_up(void **state)
{
    struct fixture_of_names *f = calloc(1, sizeof *f);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    f->loop = ev_loop_new(EVFLAG_AUTO);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    ev_io_init(&f->server, on_question, fd, EV_READ);
    f->server.data = f;
    ev_io_start(f->loop, &f->server);
    ev_timer_init(&f->guard, on_guard, PATIENCE, 0);
    ev_timer_start(f->loop, &f->guard);
    fixture_start(&f->farm);
    f->farm.config.n_nameservers = 1;
    f->farm.config.nameservers = calloc(1, sizeof *f->farm.config.nameservers);
    f->farm.config.nameservers->length = sizeof address;
    f->farm.config.nameservers->in = address;
    fixture_pool(&f->farm, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    f->a = f->aaaa = "";
    f->ttl = 1;
    f->names = names_open(f->loop, on_changed, f);
    assert_non_null(f->names);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture_of_names *f = *state;

    names_close(&f->names);
    assert_int_equal(f->farm.config.references, 1);
    ev_io_stop(f->loop, &f->server);
    ev_timer_stop(f->loop, &f->guard);
    close(f->server.fd);
    ev_loop_destroy(f->loop);
    free(f->farm.config.nameservers);
    free(f);
    return 0;
}

static void add_backend(struct fixture *farm, const char *name, const char *host)
{
    size_t i = farm->config.n_backends;

    fixture_backend(farm, &farm->pools[0], name, 1, 10, 0);
    farm->backends[i].host = (char *)(uintptr_t)host;
    farm->backends[i].port = 25;
}

static void run_until_changed(struct fixture_of_names *f, unsigned changes)
{
    while (f->changes < changes && ev_is_active(&f->guard))
        ev_run(f->loop, EVRUN_ONCE);
    assert_int_equal(f->changes, changes);
}

static void run_until_asked(struct fixture_of_names *f, unsigned asked)
{
    while (f->asked < asked && ev_is_active(&f->guard))
        ev_run(f->loop, EVRUN_ONCE);
    assert_true(f->asked >= asked);
    ev_run(f->loop, EVRUN_NOWAIT); /* the answer is on the way back */
    ev_run(f->loop, EVRUN_NOWAIT);
}

/* As a reload does: the same settings in another object. The names are asked for at once. */
static void follow_anew(struct fixture_of_names *f, struct fixture *other)
{
    *other = f->farm;
    other->config.references = 1;
    other->config.backends = other->backends;
    other->config.pools = other->pools;
    names_follow(f->names, &other->config);
}

static void assert_answer(struct fixture_of_names *f, const char *host, const char *wanted)
{
    const struct name_answer *found = names_find(f->names, host, 25);
    char text[1024] = "", one[ADDRESS_TEXT_MAX];

    assert_non_null(found);
    for (size_t i = 0; i < found->n; i++) {
        strcat(strcat(text, i ? " " : ""), address_format(&found->addresses[i], one));
    }
    assert_string_equal(text, wanted);
    assert_true(found->n == 0 || !found->error);
}

static void test_one_entry_for_all_who_use_it(void **state)
{
    struct fixture_of_names *f = *state;

    f->a = "192.0.2.2 192.0.2.1 192.0.2.2";
    f->aaaa = "2001:db8::1";
    add_backend(&f->farm, "a", "relay.test");
    add_backend(&f->farm, "b", "relay.test");
    add_backend(&f->farm, "c", NULL);
    assert_null(names_find(f->names, "relay.test", 25));
    names_follow(f->names, &f->farm.config);
    assert_answer(f, "relay.test", "");
    assert_null(names_find(f->names, "relay.test", 25)->error); /* it is being asked for */
    run_until_changed(f, 1);
    assert_answer(f, "relay.test", "192.0.2.1:25 192.0.2.2:25 [2001:db8::1]:25");
    assert_int_equal(f->asked, 2);
    assert_null(names_find(f->names, "relay.test", 26));
    assert_null(names_find(f->names, "other.test", 25));
    names_follow(f->names, &f->farm.config); /* nothing new */
    ev_run(f->loop, EVRUN_NOWAIT);
    assert_int_equal(f->asked, 2);
}

/* The order of an answer says nothing. */
static void test_order(void **state)
{
    struct fixture_of_names *f = *state;
    struct fixture other;

    f->a = "192.0.2.1 192.0.2.2";
    add_backend(&f->farm, "a", "relay.test");
    names_follow(f->names, &f->farm.config);
    run_until_changed(f, 1);
    f->a = "192.0.2.2 192.0.2.1";
    follow_anew(f, &other);
    run_until_asked(f, 4);
    assert_int_equal(f->changes, 1);
    f->a = "192.0.2.2";
    names_follow(f->names, &f->farm.config);
    run_until_changed(f, 2);
    assert_answer(f, "relay.test", "192.0.2.2:25");
}

static void test_no_answer_at_first(void **state)
{
    struct fixture_of_names *f = *state;
    struct fixture other;

    f->a = f->aaaa = "denied";
    add_backend(&f->farm, "a", "relay.test");
    names_follow(f->names, &f->farm.config);
    run_until_changed(f, 1);
    assert_answer(f, "relay.test", "");
    assert_non_null(names_find(f->names, "relay.test", 25)->error);
    f->a = f->aaaa = "failed";
    follow_anew(f, &other);
    run_until_asked(f, 4);
    assert_int_equal(f->changes, 1); /* no news */
    f->a = "192.0.2.1";
    names_follow(f->names, &f->farm.config);
    run_until_changed(f, 2);
    assert_answer(f, "relay.test", "192.0.2.1:25");
}

/* No such name, no address, no use: what there was holds. Asked for again after five seconds. */
static void test_the_last_answer_holds(void **state)
{
    static const char *const bad[][2] = {
        {"denied",                                     "denied"                             },
        { "failed",                                    "failed"                             },
        { "",                                          ""                                   },
        { "denied",                                    ""                                   },
        { "0.0.0.0 0.1.2.3 224.0.0.1 255.255.255.255", "ff02::1"                            },
        { "",                                          ":: ff0e::1 fe80::1 ::ffff:192.0.2.9"}
    };
    struct fixture_of_names *f = *state;
    struct fixture others[sizeof bad / sizeof *bad];

    f->a = "192.0.2.1";
    add_backend(&f->farm, "a", "relay.test");
    names_follow(f->names, &f->farm.config);
    run_until_changed(f, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        unsigned asked = f->asked;

        f->a = bad[i][0];
        f->aaaa = bad[i][1];
        follow_anew(f, &others[i]);
        run_until_asked(f, asked + 2);
        while (ev_run(f->loop, EVRUN_NOWAIT), f->asked > asked + 2)
            asked = f->asked; /* the resolver may ask more than once */
        assert_answer(f, "relay.test", "192.0.2.1:25");
        assert_int_equal(f->changes, 1);
    }
    f->a = "192.0.2.2";
    f->aaaa = "";
    run_until_changed(f, 2); /* by itself */
    assert_answer(f, "relay.test", "192.0.2.2:25");
}

/* One family has gone. Its question is asked once more by itself. */
static void test_half_an_answer(void **state)
{
    struct fixture_of_names *f = *state;
    struct fixture others[4];

    f->a = "192.0.2.1 192.0.2.2";
    f->aaaa = "2001:db8::1";
    add_backend(&f->farm, "a", "relay.test");
    names_follow(f->names, &f->farm.config);
    run_until_changed(f, 1);

    f->a = "192.0.2.2";
    f->aaaa = "failed";
    follow_anew(f, &others[0]);
    run_until_changed(f, 2);
    assert_answer(f, "relay.test", "192.0.2.2:25 [2001:db8::1]:25");

    f->a = "failed";
    f->aaaa = "2001:db8::2";
    follow_anew(f, &others[1]);
    run_until_changed(f, 3);
    assert_answer(f, "relay.test", "192.0.2.2:25 [2001:db8::2]:25");

    f->a = "";
    follow_anew(f, &others[2]);
    run_until_changed(f, 4);
    assert_answer(f, "relay.test", "[2001:db8::2]:25");

    f->a = "192.0.2.3";
    f->aaaa = "denied";
    follow_anew(f, &others[3]);
    run_until_changed(f, 5);
    assert_answer(f, "relay.test", "192.0.2.3:25");
}

/* It is asked for again by itself, but not before five seconds are over, however short its time. */
static void test_by_its_time(void **state)
{
    struct fixture_of_names *f = *state;
    ev_tstamp began;

    f->a = "192.0.2.1";
    add_backend(&f->farm, "a", "relay.test");
    names_follow(f->names, &f->farm.config);
    run_until_changed(f, 1);
    began = ev_now(f->loop);
    f->a = "192.0.2.2";
    run_until_changed(f, 2);
    assert_true(ev_now(f->loop) - began > NAMES_TTL_LEAST - 0.1);
    assert_answer(f, "relay.test", "192.0.2.2:25");
}

/* Not before five seconds are over either, and one question for all who doubt. */
static void test_doubt(void **state)
{
    struct fixture_of_names *f = *state;
    ev_tstamp began;

    f->a = "192.0.2.1";
    f->ttl = 200;
    add_backend(&f->farm, "a", "relay.test");
    names_follow(f->names, &f->farm.config);
    names_doubt(f->names, "relay.test", 25); /* it is being asked for */
    run_until_changed(f, 1);
    began = ev_now(f->loop);
    f->a = "192.0.2.2";
    names_doubt(f->names, "other.test", 25);
    names_doubt(f->names, "relay.test", 25);
    names_doubt(f->names, "relay.test", 25);
    run_until_changed(f, 2);
    assert_true(ev_now(f->loop) - began > NAMES_TTL_LEAST - 0.5);
    assert_answer(f, "relay.test", "192.0.2.2:25");
    assert_int_equal(f->asked, 4);
}

static void test_names_come_and_go(void **state)
{
    struct fixture_of_names *f = *state;
    struct fixture other;

    f->a = "192.0.2.1";
    add_backend(&f->farm, "a", "relay.test");
    names_follow(f->names, &f->farm.config);
    follow_anew(f, &other); /* with a question under way */
    run_until_changed(f, 1);
    other.backends[0].host = (char *)(uintptr_t) "other.test"; /* is not looked at: it is not a new one */
    names_follow(f->names, &other.config);
    assert_null(names_find(f->names, "other.test", 25));

    f->farm.backends[0].host = (char *)(uintptr_t) "other.test";
    names_follow(f->names, &f->farm.config);
    assert_null(names_find(f->names, "relay.test", 25));
    run_until_changed(f, 2);
    assert_answer(f, "other.test", "192.0.2.1:25");
    other.config.n_backends = 0;
    names_follow(f->names, &other.config); /* and none */
    assert_null(names_find(f->names, "other.test", 25));
    names_follow(f->names, &f->farm.config); /* closed with a question under way */
}

/* --- the farm that is made of them --- */

/* Committed in place of `old`, which is given back. */
static struct farm *next_farm(struct fixture_of_names *f, struct fixture *config, struct farm *old)
{
    const struct name_source names = names_source(f->names);
    struct farm *farm = farm_create_found(&config->config, &names, old);

    assert_non_null(farm);
    farm_commit(farm);
    if (old)
        farm_log_members(farm, old);
    if (old)
        farm_release(&old);
    return farm;
}

static void assert_backends(const struct farm *farm, const char *wanted)
{
    char text[1024] = "", one[ADDRESS_TEXT_MAX];

    for (size_t i = 0; i < farm->n_backends; i++) {
        struct address address = { 0 };
        bool found = backend_address(farm->backends[i], &address);

        assert_true(address_equal(&address, &farm->given[i].address));
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s=%s", i ? " " : "",
                       backend_name(farm->backends[i]), found ? address_format(&address, one) : "?");
    }
    assert_string_equal(text, wanted);
}

static void test_farm_of_a_name(void **state)
{
    struct fixture_of_names *f = *state;
    struct fixture others[2];
    struct farm *farm;
    struct backend *first;
    struct member *member;
    uint64_t hash;

    f->a = "192.0.2.1";
    add_backend(&f->farm, "a", NULL);
    f->farm.backends[0].priority = 1;
    add_backend(&f->farm, "relay", "relay.test");
    f->farm.backends[1].weight = 3;
    f->farm.backends[1].max_connections = 7;
    names_follow(f->names, &f->farm.config);
    farm = next_farm(f, &f->farm, NULL);
    assert_backends(farm, "a=? relay=?"); /* the fixture gives "a" no address */
    assert_null(farm->given[1].unresolved);

    run_until_changed(f, 1);
    farm = next_farm(f, &f->farm, farm);
    assert_backends(farm, "a=? relay=192.0.2.1:25");
    first = farm->backends[1];
    hash = first->name_hash;
    member = member_hold(farm->pools[0].members[0]);
    assert_ptr_equal(member->backend, first);
    assert_true(backend_take_place(first));

    f->a = "192.0.2.9 192.0.2.1";
    f->aaaa = "2001:db8::1";
    follow_anew(f, &others[0]);
    run_until_changed(f, 2);
    farm = next_farm(f, &others[0], farm);
    assert_backends(farm, "a=? relay@192.0.2.1=192.0.2.1:25 relay@192.0.2.9=192.0.2.9:25 "
                          "relay@2001:db8::1=[2001:db8::1]:25");
    assert_ptr_equal(farm->backends[1], first);
    assert_int_equal(first->connections, 1);
    assert_true(first->name_hash == hash);
    assert_true(farm->backends[2]->name_hash != hash);
    assert_int_equal(farm->backends[2]->ceiling, 7); /* each has the options of the row */
    assert_int_equal(farm->backends[2]->milliweight, 3000);
    assert_ptr_equal(farm->pools[0].members[0], member);
    assert_int_equal(farm->pools[0].n_members, 4);
    assert_int_equal(farm->pools[0].n_tiers, 2);
    assert_int_equal(farm->pools[0].tiers[0].n, 3);
    assert_int_equal(farm->pools[0].tiers[0].milliweight, 9000);
    assert_int_equal(farm->pools[0].tiers[1].first, 3);

    f->a = "192.0.2.1";
    f->aaaa = "";
    follow_anew(f, &others[1]);
    run_until_changed(f, 3);
    farm = next_farm(f, &others[1], farm);
    assert_backends(farm, "a=? relay=192.0.2.1:25");
    assert_ptr_equal(farm->backends[1], first);
    assert_int_equal(first->connections, 1);
    backend_return_place(first);
    member_release(&member);
    farm_release(&farm);
    names_follow(f->names, &f->farm.config);
}

/* With a session on it: it gets nothing new, and should it come back, it is the same one with the same
 * counters. Without, it is forgotten by the farm after the next. */
static void test_who_leaves(void **state)
{
    struct fixture_of_names *f = *state;
    struct fixture others[3];
    struct backend *left;
    struct member *member;
    struct farm *farm, *before;

    f->a = "192.0.2.1 192.0.2.2";
    add_backend(&f->farm, "relay", "relay.test");
    names_follow(f->names, &f->farm.config);
    run_until_changed(f, 1);
    farm = next_farm(f, &f->farm, NULL);
    fixture_all_up(farm);
    left = farm->backends[0];
    member = farm->pools[0].members[0];
    assert_true(backend_take_place(left));

    f->a = "192.0.2.2";
    follow_anew(f, &others[0]);
    run_until_changed(f, 2);
    before = farm_hold(farm);
    farm = next_farm(f, &others[0], farm);
    assert_backends(farm, "relay=192.0.2.2:25");
    assert_int_equal(farm->n_leaving, 1);
    assert_ptr_equal(farm->leaving[0].member, member);
    assert_string_equal(farm->leaving[0].pool->name, "relays");
    assert_true(left->left);
    assert_false(backend_in_service(left)); /* for those too that still look at the farm before */
    assert_string_equal(backend_name(left), "relay@192.0.2.1");
    farm_release(&before);

    farm = next_farm(f, &others[0], farm); /* something else has changed */
    assert_int_equal(farm->n_leaving, 1);

    f->a = "192.0.2.1 192.0.2.3";
    follow_anew(f, &others[1]);
    run_until_changed(f, 3);
    farm = next_farm(f, &others[1], farm);
    assert_backends(farm, "relay@192.0.2.1=192.0.2.1:25 relay@192.0.2.3=192.0.2.3:25");
    assert_ptr_equal(farm->backends[0], left);
    assert_ptr_equal(farm->pools[0].members[0], member);
    assert_int_equal(left->connections, 1);
    assert_false(left->left);
    assert_int_equal(left->state, BACKEND_INIT);
    assert_int_equal(left->milliweight, 1000);
    assert_int_equal(farm->n_leaving, 1); /* 192.0.2.2, as long as this farm counts */

    backend_return_place(left);
    f->a = "192.0.2.3";
    follow_anew(f, &others[2]);
    run_until_changed(f, 4);
    farm = next_farm(f, &others[2], farm);
    assert_int_equal(farm->n_leaving, 1); /* 192.0.2.1 */
    farm = next_farm(f, &others[2], farm);
    assert_int_equal(farm->n_leaving, 0);
    farm_release(&farm);
    names_follow(f->names, &f->farm.config);
}

/* A reload to a name that does not resolve, or not yet, keeps what the row stood for. */
static void test_what_there_was_holds(void **state)
{
    struct fixture_of_names *f = *state;
    struct fixture slip, given, again;
    struct backend *first;
    struct farm *farm;

    f->a = "192.0.2.1 192.0.2.2";
    add_backend(&f->farm, "relay", "relay.test");
    names_follow(f->names, &f->farm.config);
    run_until_changed(f, 1);
    farm = next_farm(f, &f->farm, NULL);
    first = farm->backends[0];

    f->a = f->aaaa = "denied";
    follow_anew(f, &slip);
    slip.backends[0].host = (char *)(uintptr_t) "slip.test";
    slip.backends[0].port = 26;
    farm = next_farm(f, &slip, farm);
    assert_backends(farm, "relay@192.0.2.1=192.0.2.1:26 relay@192.0.2.2=192.0.2.2:26");
    assert_ptr_equal(farm->backends[0], first);

    given = f->farm;
    given.config.references = 1;
    given.config.backends = given.backends;
    given.config.pools = given.pools;
    given.backends[0].host = NULL;
    given.backends[0].address = farm->given[0].address;
    farm = next_farm(f, &given, farm);
    assert_backends(farm, "relay=192.0.2.1:26");
    assert_ptr_not_equal(farm->backends[0], first);

    f->a = "192.0.2.3";
    f->aaaa = "";
    follow_anew(f, &again);
    farm = next_farm(f, &again, farm); /* known from before, so this is an answer */
    assert_backends(farm, "relay@192.0.2.1=192.0.2.1:25 relay@192.0.2.2=192.0.2.2:25");
    farm = next_farm(f, &given, farm);
    again.backends[0].host = (char *)(uintptr_t) "unknown.test";
    farm = next_farm(f, &again, farm);
    assert_backends(farm, "relay=192.0.2.1:25");
    assert_ptr_not_equal(farm->backends[0], first);
    assert_string_equal(farm->backends[0]->found_at, "");
    farm_release(&farm);
    names_follow(f->names, &f->farm.config);
}

/* A name that leads to Weir's own listener. */
static void test_loops(void **state)
{
    struct fixture_of_names *f = *state;
    struct address own = { .length = sizeof own.in };
    struct config_listener listener = { .n_addresses = 1, .addresses = &own };
    struct fixture other;
    struct farm *farm;

    own.in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(25) }; /* 0.0.0.0:25 */
    f->farm.config.n_listeners = 1;
    f->farm.config.listeners = &listener;
    f->a = "127.0.0.5 192.0.2.1";
    f->aaaa = "::1"; /* another family's: not this listener */
    add_backend(&f->farm, "relay", "relay.test");
    names_follow(f->names, &f->farm.config);
    farm = next_farm(f, &f->farm, NULL);
    run_until_changed(f, 1);
    farm = next_farm(f, &f->farm, farm);
    assert_backends(farm, "relay@192.0.2.1=192.0.2.1:25 relay@::1=[::1]:25");
    assert_true(farm->loops[0]);

    f->a = "127.0.0.5";
    f->aaaa = "";
    follow_anew(f, &other);
    run_until_changed(f, 2);
    farm = next_farm(f, &other, farm);
    assert_backends(farm, "relay=?");
    assert_string_equal(farm->given[0].unresolved, "it leads to a listener of this Weir");
    farm_release(&farm);
    names_follow(f->names, &f->farm.config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_one_entry_for_all_who_use_it),
        TEST(test_order),
        TEST(test_no_answer_at_first),
        TEST(test_the_last_answer_holds),
        TEST(test_half_an_answer),
        TEST(test_by_its_time),
        TEST(test_doubt),
        TEST(test_names_come_and_go),
        TEST(test_farm_of_a_name),
        TEST(test_who_leaves),
        TEST(test_what_there_was_holds),
        TEST(test_loops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
