/*
 * Sessions by client: one instance by itself, what the others have, what waits to be told, and workers side
 * by side with the thread that tells.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "counters/clients.h"

#define START  1000000
#define PERIOD 1000
#define LEASE  3000

static struct clients *clients;
static struct client_item items[1000];
static int64_t now;

static int setup(void **state)
{
    (void)state;
    now = START;
    clients = clients_create();
    assert_non_null(clients);
    return 0;
}

static int setup_shared(void **state)
{
    setup(state);
    clients_share(clients, true);
    clients_believe(clients, now - LEASE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    clients_free(&clients);
    assert_null(clients);
    return 0;
}

static struct peer peer_of(const char *text)
{
    struct peer peer = { .family = AF_UNIX };
    struct address address;
    const char *error;
    uint16_t port;

    if (strcmp(text, "unix") == 0)
        return peer;
    assert_int_equal(address_parse(text, false, &address, &port, &error), ADDRESS_LITERAL);
    peer_from_sockaddr(&peer, &address.sa);
    return peer;
}

static bool enters(const char *who, uint32_t limit)
{
    struct peer peer = peer_of(who);

    return clients_enter(clients, "smtp", &peer, limit);
}

static void leaves(const char *who)
{
    struct peer peer = peer_of(who);

    clients_leave(clients, "smtp", &peer);
}

/* All that waits, and that it is this: "smtp:192.0.2.1=1 …". */
static size_t taken(const char *expected)
{
    char text[400] = "";
    size_t n = clients_take(clients, items, 1000);

    for (size_t i = 0; i < n; i++)
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s=%u%s%s", i ? " " : "",
                       items[i].who, items[i].sessions, items[i].there ? " there" : "",
                       items[i].settled ? " settled" : "");
    assert_string_equal(text, expected);
    return n;
}

static void answer(const char *expected, enum client_answer how, uint32_t others)
{
    size_t n = taken(expected);

    for (size_t i = 0; i < n; i++)
        clients_answer(clients, &items[i], how, others, now);
}

static void pass(int64_t milliseconds)
{
    for (int64_t end = now + milliseconds; now < end;) {
        now = end - now > 35 ? now + 35 : end;
        clients_look(clients, now, PERIOD);
    }
}

/* --- one instance --- */

static void test_each_for_itself(void **state)
{
    struct peer peer = peer_of("192.0.2.1:1");

    (void)state;
    assert_true(enters("192.0.2.1:1", 2));
    assert_true(enters("192.0.2.1:2", 2));
    assert_false(enters("192.0.2.1:3", 2));
    assert_true(enters("192.0.2.1:3", 3));
    assert_true(enters("192.0.2.2:1", 1));
    assert_true(clients_enter(clients, "other", &peer, 1)); /* another listener's count */
    assert_false(clients_enter(clients, "other", &peer, 1));
    assert_true(enters("[2001:db8::1]:1", 1));
    assert_false(enters("[2001:db8::ffff:0:0:1]:1", 1));
    assert_true(enters("[2001:db8:0:1::1]:1", 1));
    assert_true(enters("unix", 1));
    assert_false(enters("unix", 1));
    leaves("192.0.2.1:9");
    leaves("192.0.2.1:9");
    assert_true(enters("192.0.2.1:1", 2));
    assert_false(enters("192.0.2.1:1", 2));
    taken(""); /* there is nobody to tell */
}

/* Who has gone is forgotten. */
static void test_memory(void **state)
{
    char who[32];

    (void)state;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 60000; i++) {
            (void)snprintf(who, sizeof who, "10.%d.%d.%d:25", i >> 16, i >> 8 & 255, i & 255);
            assert_true(enters(who, 5));
        }
        assert_int_equal(clients_count(clients), 60000);
        for (int i = 0; i < 60000; i++) {
            (void)snprintf(who, sizeof who, "10.%d.%d.%d:25", i >> 16, i >> 8 & 255, i & 255);
            leaves(who);
        }
        assert_int_equal(clients_count(clients), 0);
        clients_share(clients, false);
    }
}

/* --- what is told --- */

static void test_changes_are_told(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1:1", 20));
    assert_true(enters("192.0.2.1:1", 20));
    assert_true(enters("192.0.2.2:1", 20));
    assert_true(enters("unix", 20));
    answer("smtp:192.0.2.1=2 smtp:192.0.2.2=1", CLIENT_TOLD, 0);
    taken("");
    leaves("192.0.2.1:1");
    assert_true(enters("192.0.2.1:1", 20));
    taken(""); /* it is as it was */
    leaves("192.0.2.1:1");
    leaves("192.0.2.2:1");
    assert_int_equal(clients_count(clients), 3);
    answer("smtp:192.0.2.1=1 there settled smtp:192.0.2.2=0 there settled", CLIENT_TOLD, 0);
    assert_int_equal(clients_count(clients), 2);
    leaves("192.0.2.1:1");
    answer("smtp:192.0.2.1=0 there settled", CLIENT_TOLD, 0);
    leaves("unix");
    assert_int_equal(clients_count(clients), 0);
}

/* What changes while it is being told is told next; and a batch has an end. */
static void test_changes_meanwhile(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1:1", 20));
    assert_int_equal(taken("smtp:192.0.2.1=1"), 1);
    assert_true(enters("192.0.2.1:1", 20));
    taken("");
    clients_answer(clients, &items[0], CLIENT_TOLD, 0, now);
    assert_int_equal(taken("smtp:192.0.2.1=2 there settled"), 1);
    leaves("192.0.2.1:1");
    leaves("192.0.2.1:1");
    clients_answer(clients, &items[0], CLIENT_UNANSWERED, 0, now);
    taken("");
    pass(PERIOD);
    answer("smtp:192.0.2.1=0 there", CLIENT_TOLD, 0);
    assert_int_equal(clients_count(clients), 0);
    for (int i = 0; i < 20; i++) {
        char who[32];

        (void)snprintf(who, sizeof who, "10.0.0.%d:1", i);
        assert_true(enters(who, 20));
    }
    assert_int_equal(clients_take(clients, items, 7), 7);
    assert_int_equal(clients_take(clients, items + 7, 1000), 13);
}

/* Who has come and gone before that leaves nothing to tell, but is asked about once. */
static void test_come_and_gone(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_true(enters("192.0.2.1:1", 4));
        leaves("192.0.2.1:1");
    }
    answer("smtp:192.0.2.1=0", CLIENT_TOLD, 4);
    assert_false(enters("192.0.2.1:1", 4));
    answer("smtp:192.0.2.1=0", CLIENT_TOLD, 0);
    assert_int_equal(clients_count(clients), 0);
    /* Where many wait to be told nobody is asked about only for that. */
    for (int i = 0; i < 200; i++) {
        char who[32];

        (void)snprintf(who, sizeof who, "10.0.0.%d:1", i);
        assert_true(enters(who, 20));
    }
    assert_true(enters("192.0.2.1:1", 4));
    leaves("192.0.2.1:1");
    assert_int_equal(clients_count(clients), 200);
}

/* Where a key is of another type each goes by its own count, and the key is tried again. */
static void test_refused(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1:1", 2));
    answer("smtp:192.0.2.1=1", CLIENT_REFUSED, 0);
    taken("");
    pass(PERIOD);
    answer("smtp:192.0.2.1=1", CLIENT_REFUSED, 0);
    leaves("192.0.2.1:1");
    assert_int_equal(clients_count(clients), 0);
}

static void test_doubt(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1:1", 20));
    assert_true(enters("192.0.2.2:1", 20));
    answer("smtp:192.0.2.1=1 smtp:192.0.2.2=1", CLIENT_TOLD, 0);
    leaves("192.0.2.2:1");
    clients_share(clients, false); /* Redis is away */
    taken("");
    assert_int_equal(clients_count(clients), 2);
    assert_true(enters("192.0.2.3:1", 20));
    assert_true(enters("192.0.2.4:1", 20));
    leaves("192.0.2.4:1");
    assert_int_equal(clients_count(clients), 3);
    clients_share(clients, true);
    clients_doubt(clients);
    clients_look(clients, now, 0);
    assert_int_equal(clients_take(clients, items, 1000), 3);
    for (size_t i = 0; i < 3; i++) {
        bool second = strcmp(items[i].who, "smtp:192.0.2.2") == 0,
             third = strcmp(items[i].who, "smtp:192.0.2.3") == 0;

        assert_int_equal(items[i].sessions, !second);
        assert_int_equal(items[i].there, !third);
        assert_false(items[i].settled);
        clients_answer(clients, &items[i], CLIENT_TOLD, 0, now);
    }
    taken("");
    assert_int_equal(clients_count(clients), 2);
}

static void test_nobody_is_told(void **state)
{
    char who[32];

    (void)state;
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(who, sizeof who, "192.0.%d.%d:1", i / 250, i % 250);
        assert_true(enters(who, 20));
        if (i % 2)
            leaves(who);
    }
    clients_share(clients, false);
    taken("");
    assert_int_equal(clients_count(clients), 500);
    clients_share(clients, true);
    taken("");
}

/* Others may have renewed the key meanwhile: what stands there is taken back, however long Redis was away. */
static void test_away_for_long(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1:1", 20));
    answer("smtp:192.0.2.1=1", CLIENT_TOLD, 0);
    clients_share(clients, false);
    leaves("192.0.2.1:1");
    pass(2 * CLIENTS_LIFE);
    pass(PERIOD);
    clients_share(clients, true);
    clients_doubt(clients);
    clients_look(clients, now, 0);
    answer("smtp:192.0.2.1=0 there", CLIENT_TOLD, 0);
    assert_int_equal(clients_count(clients), 0);
}

/* Redis keeps what is renewed before it goes, and what could never be taken back has gone by then. */
static void test_renewed(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1:1", 20));
    answer("smtp:192.0.2.1=1", CLIENT_TOLD, 0);
    pass(CLIENTS_LIFE / 2 - PERIOD);
    taken("");
    pass(2 * PERIOD);
    answer("smtp:192.0.2.1=1 there settled", CLIENT_TOLD, 0);
    leaves("192.0.2.1:1");
    for (int64_t end = now + CLIENTS_LIFE + PERIOD; now < end; pass(PERIOD)) {
        size_t n = clients_take(clients, items, 1000);

        while (n)
            clients_answer(clients, &items[--n], CLIENT_UNANSWERED, 0, now);
    }
    assert_int_equal(clients_count(clients), 0);
}

static void test_audit(void **state)
{
    char who[32];
    size_t n = 0;
    bool seen[50] = { false };

    (void)state;
    clients_audit(clients);
    for (int i = 0; i < 50; i++) {
        (void)snprintf(who, sizeof who, "10.0.0.%d:1", i);
        assert_true(enters(who, 200));
    }
    clients_audit(clients); /* none is told yet */
    for (n = clients_take(clients, items, 1000); n;)
        clients_answer(clients, &items[--n], CLIENT_TOLD, 0, now);
    for (int i = 0; i < 50; i++) {
        clients_audit(clients);
        n += clients_take(clients, items, 1000);
        seen[atoi(strrchr(items[0].who, '.') + 1)] = true;
        assert_true(items[0].settled);
        clients_answer(clients, &items[0], CLIENT_TOLD, 0, now);
    }
    assert_int_equal(n, 50);
    n = 0;
    for (int i = 0; i < 50; i++)
        n += seen[i];
    assert_in_range(n, 45, 50); /* two in one bucket are one to it */
}

/* --- what the others have --- */

static void test_others_count(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1:1", 4));
    answer("smtp:192.0.2.1=1", CLIENT_TOLD, 2);
    assert_true(enters("192.0.2.1:1", 4));
    assert_false(enters("192.0.2.1:1", 4));
    assert_true(enters("192.0.2.1:1", 5)); /* another limit, after a reload */
    leaves("192.0.2.1:1");
    /* The refusal asks, and the answer makes room. */
    answer("smtp:192.0.2.1=2 there settled", CLIENT_TOLD, 1);
    assert_true(enters("192.0.2.1:1", 4));
    assert_false(enters("192.0.2.1:1", 4));
    answer("smtp:192.0.2.1=3 there settled", CLIENT_TOLD, UINT32_MAX);
    leaves("192.0.2.1:1");
    leaves("192.0.2.1:1");
    assert_false(enters("192.0.2.1:1", 1000000));
}

static void test_what_is_believed(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1:1", 2));
    answer("smtp:192.0.2.1=1", CLIENT_TOLD, 1);
    now += LEASE;
    clients_believe(clients, now - LEASE);
    assert_false(enters("192.0.2.1:1", 2));
    clients_believe(clients, now + 1 - LEASE);
    assert_true(enters("192.0.2.1:1", 2));
    leaves("192.0.2.1:1");
    clients_believe(clients, now - LEASE);
    assert_false(enters("192.0.2.1:1", 2));
    clients_share(clients, false); /* the last view holds */
    assert_false(enters("192.0.2.1:1", 2));
    clients_believe(clients, INT64_MAX); /* and now it does not */
    assert_true(enters("192.0.2.1:1", 2));
    assert_false(enters("192.0.2.1:1", 2));
}

/* Who has his sessions elsewhere is remembered while he tries, and not for ever. */
static void test_refused_without_sessions(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1:1", 3));
    leaves("192.0.2.1:1");
    answer("smtp:192.0.2.1=0", CLIENT_TOLD, 3);
    for (int i = 0; i < 30; i++) {
        pass(2 * PERIOD);
        answer("smtp:192.0.2.1=0", CLIENT_TOLD, 3); /* near its limit: asked about again */
        clients_believe(clients, now - LEASE);
        assert_false(enters("192.0.2.1:1", 3));
        answer("smtp:192.0.2.1=0", CLIENT_TOLD, 3);
    }
    /* So too while the last view holds. */
    clients_share(clients, false);
    assert_false(enters("192.0.2.1:1", 3));
    pass(5 * PERIOD);
    assert_false(enters("192.0.2.1:1", 3));
    pass(20 * PERIOD);
    assert_int_equal(clients_count(clients), 0);
}

/* However many come that are full elsewhere. */
static void test_refused_without_end(void **state)
{
    char who[32];

    (void)state;
    for (int i = 0; i < CLIENTS_KEPT_MAX + 1000; i++) {
        (void)snprintf(who, sizeof who, "10.%d.%d.%d:25", i >> 16, i >> 8 & 255, i & 255);
        assert_true(enters(who, 1));
        leaves(who);
        for (size_t n = i % 100 == 99 ? clients_take(clients, items, 1000) : 0; n;)
            clients_answer(clients, &items[--n], CLIENT_TOLD, 1, now);
    }
    assert_int_equal(clients_count(clients), CLIENTS_KEPT_MAX);
    assert_false(enters("10.0.0.0:25", 1));
    assert_true(enters("192.0.2.1:25", 1)); /* a newcomer is let in nevertheless, and counted */
    assert_false(enters("192.0.2.1:25", 1));
}

static void test_near_the_limit(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1:1", 20));
    answer("smtp:192.0.2.1=1", CLIENT_TOLD, 13);
    pass(3 * PERIOD);
    taken("");
    assert_true(enters("192.0.2.1:1", 20));
    answer("smtp:192.0.2.1=2 there settled", CLIENT_TOLD, 13);
    pass(2 * PERIOD); /* it was asked about within less than a half of one */
    answer("smtp:192.0.2.1=2 there settled", CLIENT_TOLD, 13);
    clients_look(clients, now, PERIOD);
    taken("");
    clients_look(clients, now, 0); /* an instance has come or gone */
    answer("smtp:192.0.2.1=2 there settled", CLIENT_TOLD, 0);
    pass(3 * PERIOD);
    taken("");
}

/* --- threads --- */

#define THREADS 4
#define ROUNDS  4000

static _Atomic int inside[8];
static _Atomic bool over;

static void *come_and_go(void *arg)
{
    unsigned random = (unsigned)(uintptr_t)arg;

    for (int i = 0; i < ROUNDS; i++) {
        unsigned n = rand_r(&random) % 8;
        char who[32];

        (void)snprintf(who, sizeof who, "10.0.0.%u:1", n);
        if (!enters(who, 3))
            continue;
        assert_true(atomic_fetch_add(&inside[n], 1) < 3);
        atomic_fetch_sub(&inside[n], 1);
        leaves(who);
    }
    return NULL;
}

static void *tell(void *arg)
{
    bool on = true;
    unsigned round = 0;

    (void)arg;
    while (!atomic_load(&over)) {
        size_t n = clients_take(clients, items, 5);

        while (n)
            clients_answer(clients, &items[--n], (enum client_answer)(round % 3), round % 4, START + round);
        clients_believe(clients, START + round);
        clients_audit(clients);
        clients_look(clients, START + round, PERIOD);
        if (round++ % 50 == 0)
            clients_share(clients, on = !on);
        if (round % 70 == 0)
            clients_doubt(clients);
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[THREADS], teller;
    int64_t later = START + CLIENTS_LIFE;

    (void)state;
    atomic_store(&over, false);
    assert_int_equal(pthread_create(&teller, NULL, tell, NULL), 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, (void *)(i + 1)), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&over, true);
    pthread_join(teller, NULL);
    /* Nobody is inside, and when that is told nobody is remembered. */
    clients_share(clients, true);
    clients_believe(clients, INT64_MAX);
    clients_look(clients, later, 0);
    for (size_t n = clients_take(clients, items, 1000); n;) {
        assert_int_equal(items[--n].sessions, 0);
        clients_answer(clients, &items[n], CLIENT_TOLD, 0, later);
    }
    assert_int_equal(clients_count(clients), 0);
}

#define ALONE(test)  cmocka_unit_test_setup_teardown(test, setup, teardown)
#define SHARED(test) cmocka_unit_test_setup_teardown(test, setup_shared, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ALONE(test_each_for_itself),
        ALONE(test_memory),
        SHARED(test_changes_are_told),
        SHARED(test_changes_meanwhile),
        SHARED(test_come_and_gone),
        SHARED(test_refused),
        SHARED(test_doubt),
        SHARED(test_nobody_is_told),
        SHARED(test_away_for_long),
        SHARED(test_renewed),
        SHARED(test_audit),
        SHARED(test_others_count),
        SHARED(test_what_is_believed),
        SHARED(test_refused_without_sessions),
        SHARED(test_refused_without_end),
        SHARED(test_near_the_limit),
        SHARED(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
