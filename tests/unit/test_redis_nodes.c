/*
 * Sentinels and clusters: several servers that follow scripts.
 */
#include "counters/redis_internal.h"
#include "tests/unit/redis_fixture.h"

#define NODES 4

static struct fake nodes[NODES];
static struct ear ear;
static char replies[8][256]; /* what rules say lives here */

static int setup(void **state)
{
    (void)state;
    loop = ev_loop_new(0);
    memset(nodes, 0, sizeof nodes);
    memset(&ear, 0, sizeof ear);
    for (size_t i = 0; i < NODES; i++)
        fake_start(&nodes[i]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    redis_free(&ear.redis);
    for (size_t i = 0; i < NODES; i++)
        fake_stop(&nodes[i]);
    ev_loop_destroy(loop);
    return 0;
}

static void rule(struct fake *fake, const char *command, const char *reply)
{
    size_t i = 0;

    while (fake->rules[i].command && strcmp(fake->rules[i].command, command) != 0)
        i++;
    fake->rules[i] = (struct rule){ command, reply };
}

/* A sentinel's answer that names a node. */
static const char *names(size_t turn, const struct fake *node)
{
    char port[8];

    (void)snprintf(port, sizeof port, "%u", node->port);
    (void)snprintf(replies[turn], sizeof replies[turn], "*2\r\n$9\r\n127.0.0.1\r\n$%zu\r\n%s\r\n",
                   strlen(port), port);
    return replies[turn];
}

static const char *says(size_t turn, const char *word, const struct fake *node)
{
    (void)snprintf(replies[turn], sizeof replies[turn], "-%s 15495 127.0.0.1:%u\r\n", word, node->port);
    return replies[turn];
}

static const char *sentinels(const char *before)
{
    static char text[256];

    (void)snprintf(text, sizeof text, "sentinel://%s127.0.0.1:%u,127.0.0.1:%u/farm", before, nodes[0].port,
                   nodes[1].port);
    return text;
}

static const char *cluster(void)
{
    static char text[256];

    (void)snprintf(text, sizeof text, "cluster://127.0.0.1:%u,127.0.0.1:%u", nodes[0].port, nodes[1].port);
    return text;
}

static const char *server_of(const struct fake *node)
{
    static char text[64];

    (void)snprintf(text, sizeof text, "127.0.0.1:%u", node->port);
    return text;
}

/* --- sentinels ------------------------------------------------------------------------------------------ */

#define GET_MASTER "SENTINEL get-master-addr-by-name farm\n"

static void test_master(void **state)
{
    (void)state;
    rule(&nodes[0], "SENTINEL", names(0, &nodes[2]));
    open_ear(&ear, sentinels(":pw@"));
    AWAIT(ear.readies == 1);
    assert_string_equal(nodes[0].heard, GET_MASTER);
    assert_string_equal(nodes[2].heard, "AUTH pw\nROLE\nPING\nCLIENT SETNAME weir-test\n");
    assert_string_equal(redis_server(ear.redis), server_of(&nodes[2]));
    assert_int_equal(nodes[1].accepted, 0);
    assert_int_equal(ear.states, 1);
    assert_string_equal(answer(&ear, "GET a"), "+OK");
}

/* One that is dead, one that does not know, one that is none: the next is asked. */
static void test_next_sentinel(void **state)
{
    static const char *const answers[] = {
        "*-1\r\n",     "+OK\r\n", "-ERR unknown command\r\n", "*1\r\n+a\r\n", "*2\r\n$1\r\na\r\n$1\r\n0\r\n",
        "garbage\r\n", NULL
    };

    (void)state;
    rule(&nodes[1], "SENTINEL", names(0, &nodes[2]));
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        rule(&nodes[0], "SENTINEL", answers[i]);
        open_ear(&ear, sentinels(""));
        AWAIT(ear.readies == 1);
        assert_int_equal(ear.states, 1);
        redis_free(&ear.redis);
    }
    fake_stop(&nodes[0]);
    open_ear(&ear, sentinels(""));
    AWAIT(ear.readies == 1);
    assert_int_equal(ear.states, 1);
}

static void test_no_master(void **state)
{
    (void)state;
    rule(&nodes[0], "SENTINEL", "*-1\r\n");
    rule(&nodes[1], "SENTINEL", "*-1\r\n");
    open_ear(&ear, sentinels(""));
    AWAIT(ear.states == 1);
    assert_string_equal(ear.reason, "a sentinel that knows no master \"farm\"");
    AWAIT(nodes[1].accepted == 3);
    assert_int_equal(ear.states, 1);
    rule(&nodes[1], "SENTINEL", names(0, &nodes[2]));
    AWAIT(ear.readies == 1);
}

/* What a sentinel names is still a replica, or says nothing of itself. */
static void test_role(void **state)
{
    (void)state;
    rule(&nodes[0], "SENTINEL", names(0, &nodes[2]));
    rule(&nodes[1], "SENTINEL", names(0, &nodes[2]));
    rule(&nodes[2], "ROLE", "*2\r\n$5\r\nslave\r\n:0\r\n");
    open_ear(&ear, sentinels(""));
    AWAIT(ear.states == 1);
    assert_string_equal(ear.reason, "the sentinel's master is a slave");
    rule(&nodes[2], "ROLE", "+OK\r\n");
    AWAIT(ear.states == 2);
    assert_string_equal(ear.reason, "another answer than that to ROLE");
    rule(&nodes[2], "ROLE", "-NOPERM no\r\n"); /* who may not ask believes it */
    AWAIT(ear.readies == 1);
}

/* A sentinel that asks for a password gets the servers' one, once. */
static void test_sentinel_password(void **state)
{
    (void)state;
    rule(&nodes[0], "SENTINEL", "-NOAUTH Authentication required.\r\n");
    rule(&nodes[0], "AUTH", "-WRONGPASS no\r\n");
    rule(&nodes[1], "SENTINEL", "-NOAUTH Authentication required.\r\n");
    open_ear(&ear, sentinels("u:pw@"));
    AWAIT(ear.states == 1);
    assert_string_equal(ear.reason, "NOAUTH Authentication required.");
    assert_memory_equal(nodes[0].heard, GET_MASTER "AUTH u pw\n", strlen(GET_MASTER "AUTH u pw\n"));
    assert_string_equal(nodes[1].heard, GET_MASTER "AUTH u pw\n" GET_MASTER);
    redis_free(&ear.redis);
    open_ear(&ear, sentinels(""));
    AWAIT(ear.states == 1);
    assert_string_equal(ear.reason, "NOAUTH Authentication required.");
}

/* The master has become a replica: the sentinels know the new one. */
static void test_failover(void **state)
{
    (void)state;
    rule(&nodes[0], "SENTINEL", names(0, &nodes[2]));
    open_ear(&ear, sentinels(""));
    AWAIT(ear.readies == 1);
    rule(&nodes[0], "SENTINEL", names(1, &nodes[3]));
    rule(&nodes[2], "HSET", "-READONLY You can't write against a read only replica.\r\n");
    rule(&nodes[2], "EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n");
    assert_string_equal(answer(&ear, "DEL a;HSET a b c"),
                        "-READONLY You can't write against a read only replica.");
    AWAIT(ear.readies == 2);
    assert_string_equal(redis_server(ear.redis), server_of(&nodes[3]));
    assert_string_equal(answer(&ear, "HSET a b c"), "+OK");
    assert_int_equal(ear.states, 3);
    /* And dead, with the first sentinel. */
    rule(&nodes[1], "SENTINEL", names(0, &nodes[2]));
    fake_stop(&nodes[0]);
    fake_stop(&nodes[3]);
    AWAIT(ear.readies == 3);
    assert_string_equal(redis_server(ear.redis), server_of(&nodes[2]));
}

/* --- clusters ------------------------------------------------------------------------------------------- */

static void test_slot(void **state)
{
    (void)state;
    /* The check value of CRC16/XMODEM is 0x31c3. */
    assert_int_equal(redis_slot("123456789"), 0x31c3);
    assert_int_equal(redis_slot("{123456789}x"), 0x31c3);
    assert_int_equal(redis_slot("a{123456789}{b}"), 0x31c3);
    assert_int_equal(redis_slot("foo"), 12182);
    assert_int_equal(redis_slot(""), 0);
    assert_int_equal(redis_slot("{}foo"), redis_slot("{}foo"));
    assert_int_not_equal(redis_slot("{}foo"), 0);
    assert_int_equal(redis_slot("weir:{main}:events"), redis_slot("main"));
}

static void test_here(void **state)
{
    (void)state;
    open_ear(&ear, cluster());
    AWAIT(ear.readies == 1);
    assert_string_equal(nodes[0].heard,
                        "CLUSTER SLOTS\nEXISTS weir:{main}:instances\nCLIENT SETNAME weir-test\n");
    assert_string_equal(answer(&ear, "GET a"), "+OK");
}

/* The slot is elsewhere: a subscriber goes there too. */
static void test_moved_at_first(void **state)
{
    (void)state;
    rule(&nodes[0], "EXISTS", says(0, "MOVED", &nodes[2]));
    for (int i = 0; i < 2; i++) {
        open_with(&ear, cluster(), &(struct wish){ .channel = i ? "events" : NULL });
        AWAIT(ear.readies == 1);
        assert_string_equal(redis_server(ear.redis), server_of(&nodes[2]));
        assert_int_equal(ear.states, 1);
        redis_free(&ear.redis);
    }
    assert_non_null(strstr(nodes[2].heard, "SUBSCRIBE events\n"));
}

/* The slot moves while in use: what was refused is sent there, once more. */
static void test_moved(void **state)
{
    (void)state;
    open_ear(&ear, cluster());
    AWAIT(ear.readies == 1);
    rule(&nodes[0], "HSET", says(0, "MOVED", &nodes[3]));
    rule(&nodes[0], "EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n");
    rule(&nodes[3], "EXEC", "*2\r\n:0\r\n:1\r\n");
    assert_string_equal(answer(&ear, "DEL a;HSET a b c"), "[:0 :1]");
    assert_non_null(strstr(nodes[3].heard, "MULTI\nDEL a\nHSET a b c\nEXEC\n"));
    assert_string_equal(redis_server(ear.redis), server_of(&nodes[3]));
    assert_int_equal(ear.states, 3); /* ready, connecting, ready */
    assert_string_equal(ear.reason, "the slot has moved");
    assert_int_equal(ear.errors, 0);
    assert_int_equal(redis_outstanding(ear.redis), 0);
}

/* Requests behind the one that was refused are not sent twice. */
static void test_moved_with_others(void **state)
{
    (void)state;
    open_ear(&ear, cluster());
    AWAIT(ear.readies == 1);
    rule(&nodes[0], "GET", says(0, "MOVED", &nodes[3]));
    assert_true(ask(&ear, "GET a") && ask(&ear, "GET b"));
    AWAIT(ear.answers + ear.errors == 2);
    assert_string_equal(ear.said, "! the slot has moved\n+OK\n");
    assert_null(strstr(nodes[3].heard, "GET b"));
}

/* Each names the other. */
static void test_round_and_round(void **state)
{
    (void)state;
    rule(&nodes[0], "EXISTS", says(0, "MOVED", &nodes[1]));
    rule(&nodes[1], "EXISTS", says(1, "MOVED", &nodes[0]));
    open_ear(&ear, cluster());
    AWAIT(ear.states == 1);
    assert_string_equal(ear.reason, "one node names the other");
    redis_free(&ear.redis);
    /* With the slot, as it seems, and without. */
    memset(nodes[0].rules, 0, sizeof nodes[0].rules);
    memset(nodes[1].rules, 0, sizeof nodes[1].rules);
    open_ear(&ear, cluster());
    AWAIT(ear.readies == 1);
    rule(&nodes[0], "GET", says(0, "MOVED", &nodes[1]));
    rule(&nodes[1], "GET", says(1, "MOVED", &nodes[0]));
    assert_memory_equal(answer(&ear, "GET a"), "-MOVED 15495 ", 13);
    assert_int_equal(redis_outstanding(ear.redis), 0);
}

static void test_moved_to_nowhere(void **state)
{
    static const char *const answers[] = { "-MOVED\r\n", "-MOVED 1\r\n", "-MOVED 1 host\r\n",
                                           "-MOVED 1 :0\r\n", "-MOVED 1 a/b:1\r\n" };

    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        rule(&nodes[0], "EXISTS", answers[i]);
        rule(&nodes[1], "EXISTS", answers[i]);
        open_ear(&ear, cluster());
        AWAIT(ear.states == 1);
        assert_string_equal(ear.reason, "MOVED to nowhere");
        redis_free(&ear.redis);
    }
    /* Without a host it is the one that said so. */
    (void)snprintf(replies[0], sizeof replies[0], "-MOVED 1 :%u\r\n", nodes[2].port);
    rule(&nodes[0], "EXISTS", replies[0]);
    open_ear(&ear, cluster());
    AWAIT(ear.readies == 1);
    assert_string_equal(redis_server(ear.redis), server_of(&nodes[2]));
}

/* A key that has gone ahead: it is asked for there, and nothing else is. */
static void test_ask(void **state)
{
    (void)state;
    open_ear(&ear, cluster());
    AWAIT(ear.readies == 1);
    rule(&nodes[0], "GET a", says(0, "ASK", &nodes[3]));
    rule(&nodes[3], "GET a", "$4\r\nhere\r\n");
    assert_string_equal(answer(&ear, "GET a"), "here");
    assert_string_equal(answer(&ear, "GET b"), "+OK");
    assert_string_equal(nodes[3].heard, "PING\nCLIENT SETNAME weir-test\nASKING\nGET a\n");
    assert_int_equal(ear.states, 1);
    *nodes[3].heard = '\0';
    rule(&nodes[0], "HSET", says(0, "ASK", &nodes[3]));
    rule(&nodes[0], "EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n");
    assert_string_equal(answer(&ear, "DEL a;HSET a b c"), "[+OK]");
    assert_string_equal(nodes[3].heard,
                        "PING\nCLIENT SETNAME weir-test\nASKING\nMULTI\nDEL a\nHSET a b c\nEXEC\n");
    /* No chain of it. */
    rule(&nodes[3], "GET a", says(1, "ASK", &nodes[2]));
    assert_memory_equal(answer(&ear, "GET a"), "-ASK 15495 ", 11);
    /* And nobody there. */
    fake_stop(&nodes[3]);
    assert_string_equal(answer(&ear, "GET a"), "! connection refused");
    assert_int_equal(ear.states, 1);
    assert_int_equal(redis_outstanding(ear.redis), 0);
    /* Freed on the way. */
    assert_true(ask(&ear, "GET a"));
    AWAIT(ear.redis->aside);
    redis_free(&ear.redis);
}

/* The very key by which the slot is looked for has gone ahead: the node is the right one all the same. */
static void test_ask_at_first(void **state)
{
    (void)state;
    rule(&nodes[0], "EXISTS", says(0, "ASK", &nodes[3]));
    open_ear(&ear, cluster());
    AWAIT(ear.states == 1);
    assert_int_equal(ear.readies, 1);
    assert_string_equal(redis_server(ear.redis), server_of(&nodes[0]));
    assert_string_equal(nodes[3].heard, "");
}

/* Several at once are carried one behind the other, over one connection. */
static void test_ask_of_several(void **state)
{
    unsigned accepted;

    (void)state;
    open_ear(&ear, cluster());
    AWAIT(ear.readies == 1);
    rule(&nodes[0], "GET a", says(0, "ASK", &nodes[3]));
    rule(&nodes[3], "GET a", "$4\r\nhere\r\n");
    rule(&nodes[0], "GET c", "$5\r\nthere\r\n");
    accepted = nodes[3].accepted;
    for (const char *const *text = (const char *const[]){ "GET a", "GET c", "GET a 2", "GET a 3", NULL };
         *text; text++)
        assert_true(ask(&ear, *text));
    assert_int_equal(redis_outstanding(ear.redis), 4);
    AWAIT(ear.answers == 4);
    assert_string_equal(ear.said, "there\nhere\nhere\nhere\n");
    assert_string_equal(nodes[3].heard, "PING\nCLIENT SETNAME weir-test\nASKING\nGET a\nASKING\nGET a 2\n"
                                        "ASKING\nGET a 3\n");
    assert_int_equal(nodes[3].accepted, accepted + 1);
    assert_null(ear.redis->aside);
    /* One more, while one is outstanding there. */
    rule(&nodes[3], "GET a", "");
    rule(&nodes[3], "ASKING", "");
    assert_true(ask(&ear, "GET a 4"));
    AWAIT(strstr(nodes[3].heard, "GET a 4"));
    assert_true(ask(&ear, "GET a 5"));
    AWAIT(strstr(nodes[3].heard, "GET a 5"));
    /* Another node than that is not believed. */
    rule(&nodes[0], "GET a", says(1, "ASK", &nodes[2]));
    assert_memory_equal(answer(&ear, "GET a 6"), "-ASK 15495 ", 11);
    assert_int_equal(redis_outstanding(ear.redis), 2);
    /* It goes: both are told, and the connection stays. */
    fake_stop(&nodes[3]);
    AWAIT(ear.errors == 2);
    assert_int_equal(redis_outstanding(ear.redis), 0);
    assert_string_equal(answer(&ear, "GET c"), "there");
    assert_int_equal(ear.states, 1);
}

/* Whoever frees the connection in an answer hears of no other. */
static void test_ask_and_free(void **state)
{
    (void)state;
    open_ear(&ear, cluster());
    AWAIT(ear.readies == 1);
    rule(&nodes[0], "GET a", says(0, "ASK", &nodes[3]));
    ear.when = FREE_IN_ANSWER;
    for (int i = 0; i < 3; i++)
        assert_true(ask(&ear, "GET a"));
    AWAIT(!ear.redis);
    assert_int_equal(ear.answers + ear.errors, 1);
    open_ear(&ear, cluster());
    AWAIT(ear.readies == 1);
    fake_stop(&nodes[3]);
    ear.when = FREE_IN_ERROR;
    for (int i = 0; i < 3; i++)
        assert_true(ask(&ear, "GET a"));
    AWAIT(!ear.redis);
    assert_int_equal(ear.answers + ear.errors, 1);
}

/* All seeds are dead, but a node of the slot is known. */
static void test_known_nodes(void **state)
{
    (void)state;
    (void)snprintf(
        replies[0], sizeof replies[0],
        "*3\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\nx\r\n:1\r\n*1\r\n:7\r\n"
        "*4\r\n:2\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:%u\r\n$2\r\nid\r\n*2\r\n$9\r\n127.0.0.1\r\n:%u\r\n",
        nodes[0].port, nodes[3].port);
    rule(&nodes[0], "CLUSTER", replies[0]);
    open_ear(&ear, cluster());
    AWAIT(ear.readies == 1);
    assert_int_equal(ear.redis->n_nodes, 2);
    fake_stop(&nodes[0]);
    fake_stop(&nodes[1]);
    AWAIT(ear.readies == 2);
    assert_string_equal(redis_server(ear.redis), server_of(&nodes[3]));
}

static void test_cluster_down(void **state)
{
    (void)state;
    rule(&nodes[0], "EXISTS", "-CLUSTERDOWN The cluster is down\r\n");
    rule(&nodes[1], "EXISTS", "-CLUSTERDOWN The cluster is down\r\n");
    open_ear(&ear, cluster());
    AWAIT(ear.states == 1);
    assert_string_equal(ear.reason, "CLUSTERDOWN The cluster is down");
    rule(&nodes[1], "EXISTS", ":0\r\n");
    AWAIT(ear.readies == 1);
    assert_string_equal(redis_server(ear.redis), server_of(&nodes[1]));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_master),
        TEST(test_next_sentinel),
        TEST(test_no_master),
        TEST(test_role),
        TEST(test_sentinel_password),
        TEST(test_failover),
        TEST(test_slot),
        TEST(test_here),
        TEST(test_moved_at_first),
        TEST(test_moved),
        TEST(test_moved_with_others),
        TEST(test_round_and_round),
        TEST(test_moved_to_nowhere),
        TEST(test_ask),
        TEST(test_ask_at_first),
        TEST(test_ask_of_several),
        TEST(test_ask_and_free),
        TEST(test_known_nodes),
        TEST(test_cluster_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
