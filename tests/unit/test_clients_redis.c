/*
 * Sessions by client over a farm: a table, a view that the test fills, and a server that says what its script
 * tells it to.
 */
#include "counters/clients_redis.h"
#include "net/clock.h"
#include "tests/unit/redis_fixture.h"

#define LEASE 3000

static struct fake fake;
static struct ear ear;
static struct clients *table;
static struct clients_redis *clients;
static struct view view;
static int64_t now;
static char complaints[1024];
static uint64_t seq;

static void complain(void *arg, const char *what, const char *reason)
{
    size_t size = strlen(complaints);

    (void)arg;
    (void)snprintf(complaints + size, sizeof complaints - size, "%s: %s\n", what, reason);
}

/* An instance says that it lives, or goodbye. */
static void heard(const char *id, bool bye)
{
    struct snapshot snapshot = { .started = 1, .seq = ++seq, .bye = bye };

    (void)snprintf(snapshot.id, sizeof snapshot.id, "%s", id);
    (void)view_take(&view, &snapshot, now);
}

static int setup(void **state)
{
    (void)state;
    loop = ev_loop_new(0);
    memset(&fake, 0, sizeof fake);
    fake_start(&fake);
    open_ear(&ear, url_of("redis://127.0.0.1:%u", fake.port));
    AWAIT(ear.readies == 1);
    now = clock_milliseconds();
    view_init(&view, LEASE, 2, now);
    view_connected(&view, now);
    heard("b", false);
    heard("a", false);
    table = clients_create();
    clients = clients_redis_create(table, &view, "me", complain, NULL);
    assert_true(table && clients);
    clients_redis_use(clients, ear.redis, "weir:{main}:");
    *complaints = '\0';
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    clients_redis_free(&clients);
    clients_free(&table);
    view_clear(&view);
    redis_free(&ear.redis);
    fake_stop(&fake);
    ev_loop_destroy(loop);
    return 0;
}

static struct peer peer_of(const char *text)
{
    struct peer peer = { .family = AF_INET };

    assert_int_equal(inet_pton(AF_INET, text, peer.ip), 1);
    return peer;
}

static bool enters(const char *who, uint32_t limit)
{
    struct peer peer = peer_of(who);

    return clients_enter(table, "smtp", &peer, limit);
}

static void leaves(const char *who)
{
    struct peer peer = peer_of(who);

    clients_leave(table, "smtp", &peer);
}

/* A tick, and what comes of it: what was heard of it. */
static const char *tick(const char *exec)
{
    static char heard[sizeof fake.heard];
    size_t before = strlen(fake.heard);

    fake.rules[0] = (struct rule){ "EXEC", exec };
    now += 35;
    (void)view_tick(&view, now);
    clients_redis_tick(clients, now);
    AWAIT(redis_outstanding(ear.redis) == 0);
    (void)snprintf(heard, sizeof heard, "%s", fake.heard + before);
    if (strlen(fake.heard) > sizeof fake.heard / 2)
        *fake.heard = '\0';
    return heard;
}

#define TOLD           "*3\r\n:1\r\n:1\r\n"
#define HAS(id, score) "$1\r\n" id "\r\n$1\r\n" score "\r\n"

static void test_what_is_said(void **state)
{
    (void)state;
    assert_string_equal(tick(NULL), ""); /* nobody is counted, nothing is said */
    assert_true(enters("192.0.2.1", 20));
    assert_true(enters("192.0.2.1", 20));
    assert_string_equal(tick(TOLD "*0\r\n"),
                        "MULTI\nZADD weir:{main}:clients:smtp:192.0.2.1 2 me\n"
                        "PEXPIRE weir:{main}:clients:smtp:192.0.2.1 600000\n"
                        "ZRANGE weir:{main}:clients:smtp:192.0.2.1 0 511 REV WITHSCORES\nEXEC\n");
    assert_string_equal(tick(NULL), "");
    leaves("192.0.2.1");
    leaves("192.0.2.1");
    assert_string_equal(tick("*2\r\n:1\r\n*0\r\n"),
                        "MULTI\nZREM weir:{main}:clients:smtp:192.0.2.1 me\n"
                        "ZRANGE weir:{main}:clients:smtp:192.0.2.1 0 511 REV WITHSCORES\nEXEC\n");
    assert_int_equal(clients_count(table), 0);
    assert_true(enters("192.0.2.1", 20));
    leaves("192.0.2.1");
    fake.rules[1] = (struct rule){ "ZRANGE", "*0\r\n" };
    assert_string_equal(tick(NULL), "ZRANGE weir:{main}:clients:smtp:192.0.2.1 0 511 REV WITHSCORES\n");
    assert_int_equal(clients_count(table), 0);
    assert_string_equal(complaints, "");
}

/* Who has come and gone is what the view says, and not what stands in the key. */
static void test_whose_counts_count(void **state)
{
    static const char reply[] =
        TOLD "*10\r\n" HAS("x", "9") HAS("c", "8") HAS("a", "2") HAS("b", "1") "$2\r\nme\r\n$1\r\n1\r\n";

    (void)state;
    heard("c", false);
    heard("c", true);
    assert_true(enters("192.0.2.1", 5));
    tick(reply);
    assert_true(enters("192.0.2.1", 5)); /* its second, beside three */
    assert_false(enters("192.0.2.1", 5));
    tick(reply);
    heard("a", true);
    tick(reply); /* asked again because of it */
    assert_true(enters("192.0.2.1", 5));
    assert_true(enters("192.0.2.1", 5));
    assert_false(enters("192.0.2.1", 5));
    assert_string_equal(complaints, "");
}

static void test_an_instance_falls_silent(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1", 3));
    tick(TOLD "*2\r\n" HAS("a", "2"));
    for (int64_t end = now + LEASE - 200; now < end;) {
        heard("b", false);
        tick(TOLD "*2\r\n" HAS("a", "2"));
        assert_false(enters("192.0.2.1", 3));
    }
    for (int64_t end = now + 400; now < end;) {
        heard("b", false);
        tick(TOLD "*2\r\n" HAS("a", "2"));
    }
    assert_true(enters("192.0.2.1", 3));
}

static void test_hostile_replies(void **state)
{
    static const struct {
        const char *exec;
        uint32_t others;
        const char *complaint;
    } cases[] = {
        {TOLD "*2\r\n" HAS("a",                               "x"),                              0,"count of a client: malformed" },
        { TOLD "*4\r\n$1\r\na\r\n$2\r\n-5\r\n" HAS("b",                                                  "1"),                                       1,"count of a client: malformed" },
        { TOLD "*2\r\n$1\r\na\r\n$3\r\ninf\r\n",                     0,                                                     "count of a client: malformed"                              },
        { TOLD "*2\r\n$1\r\na\r\n$3\r\n1.5\r\n",                     0, "count of a client: malformed"},
        { TOLD "*2\r\n$1\r\na\r\n$7\r\n1000001\r\n",                     0,                                                     "count of a client: malformed"                                                                              },
        { TOLD "*2\r\n$1\r\na\r\n$20\r\n18446744073709551615\r\n",                     0, "count of a client: malformed"},
        { TOLD "*2\r\n$1\r\na\r\n$20\r\n18446744073709551616\r\n",                     0,                                                     "count of a client: malformed"                                                                                                                                  },
        { TOLD "*2\r\n$1\r\na\r\n$0\r\n\r\n",                     0, "count of a client: malformed"},
        { TOLD "*2\r\n$1\r\na\r\n:5\r\n",                     0,                                                     "count of a client: malformed"                                                                                                                                                                                          },
        { TOLD "*4\r\n$3\r\n\r\n\x01\r\n$1\r\n5\r\n" HAS("b",                     "2"), 2,"count of a client: malformed" },
        { TOLD "*2\r\n*0\r\n$1\r\n5\r\n",                                                  0,                                                     "count of a client: malformed"                                                                                                                                                                                                                                                                                              },
        { TOLD "*3\r\n" HAS("a", "2") "$1\r\nb\r\n",2,NULL },
        { TOLD "$1\r\na\r\n",                                 0,                                                                                                                  "clients: an odd reply"                                                                                                                                                                                                                                                                                                                                                                                                                                                            },
        { "*3\r\n-WRONGTYPE one\r\n:1\r\n-WRONGTYPE two\r\n",                                 0,                                 "clients: WRONGTYPE one"},
        { "*3\r\n:1\r\n:1\r\n-OOM really\r\n", 0, "clients: OOM really"},
        { "*2\r\n:1\r\n*0\r\n",                0,                                                "clients: an odd reply"},
        { "*0\r\n",                               0,                                                "clients: an odd reply"},
        { "$-1\r\n",                                           0,                                             "clients: an odd reply"},
        { ":3\r\n",                                          0,                                "clients: an odd reply"},
        { "-EXECABORT no\r\n",                                           0,                                  "clients: EXECABORT no"},
        { "-NOPERM no\r\n",                                0,                      "clients: NOPERM no"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t n = 1;

        setup(state);
        assert_true(enters("192.0.2.1", 10));
        tick(cases[i].exec);
        if (cases[i].complaint)
            assert_non_null(strstr(complaints, cases[i].complaint));
        else
            assert_string_equal(complaints, "");
        while (enters("192.0.2.1", 10))
            n++;
        assert_int_equal(n, 10 - cases[i].others);
        assert_int_equal(redis_state(ear.redis), REDIS_READY);
        teardown(state);
    }
}

/* A right is missing: what can't be taken back is not believed, and Redis is left alone for a minute. */
static void test_a_right_is_missing(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1", 2));
    tick(TOLD "*2\r\n" HAS("a", "1"));
    assert_false(enters("192.0.2.1", 2));
    tick("-NOPERM this user\r\n");
    assert_true(enters("192.0.2.1", 2));
    assert_false(enters("192.0.2.1", 2));
    for (int i = 0; i < 100; i++) {
        heard("a", false);
        assert_string_equal(tick(NULL), "");
    }
    now += 60000;
    heard("a", false);
    assert_non_null(
        strstr(tick(TOLD "*2\r\n" HAS("a", "1")), "ZADD weir:{main}:clients:smtp:192.0.2.1 2 me"));
}

/* The same, and it is one question alone that is refused. */
static void test_a_question_is_refused(void **state)
{
    (void)state;
    assert_string_equal(tick(NULL), ""); /* now counts are shared */
    assert_true(enters("192.0.2.1", 20));
    leaves("192.0.2.1");
    fake.rules[1] = (struct rule){ "ZRANGE", "-NOPERM this user\r\n" };
    assert_non_null(strstr(tick(NULL), "ZRANGE"));
    assert_string_equal(complaints, "clients: NOPERM this user\n");
    assert_true(enters("192.0.2.1", 20));
    for (int i = 0; i < 100; i++) {
        heard("a", false);
        assert_string_equal(tick(NULL), "");
    }
}

/* A ZADD that has to add what was there already: all are told again. */
static void test_redis_has_lost_all(void **state)
{
    const char *said;

    (void)state;
    assert_true(enters("192.0.2.1", 20));
    assert_true(enters("192.0.2.2", 20));
    tick("*6\r\n:1\r\n:1\r\n*0\r\n:1\r\n:1\r\n*0\r\n");
    assert_true(enters("192.0.2.2", 20));
    tick("*3\r\n:0\r\n:1\r\n*0\r\n");
    assert_true(enters("192.0.2.2", 20));
    tick("*3\r\n:1\r\n:1\r\n*0\r\n");
    said = tick("*6\r\n:1\r\n:1\r\n*0\r\n:0\r\n:1\r\n*0\r\n");
    assert_non_null(strstr(said, "ZADD weir:{main}:clients:smtp:192.0.2.1 1 me"));
    assert_non_null(strstr(said, "ZADD weir:{main}:clients:smtp:192.0.2.2 3 me"));
    assert_string_equal(tick(NULL), "");
    /* And without any change it is found out within a second or so. */
    for (int i = 0; i < 40 && !strstr(said, ".1 1 me"); i++)
        said = tick("*3\r\n:1\r\n:1\r\n*0\r\n");
    assert_non_null(strstr(said, ".1 1 me"));
}

static void test_redis_goes(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1", 3));
    tick(TOLD "*2\r\n" HAS("a", "2"));
    assert_false(enters("192.0.2.1", 3));
    view_lost(&view, now);
    for (int64_t end = now + VIEW_HOLD - 100; now < end;) {
        assert_string_equal(tick(NULL), "");
        assert_false(enters("192.0.2.1", 3));
    }
    while (view.state == COUNTERS_HELD)
        tick(NULL);
    assert_true(enters("192.0.2.1", 3));
    assert_true(enters("192.0.2.1", 3));
    assert_false(enters("192.0.2.1", 3));
    view_connected(&view, now);
    assert_non_null(strstr(tick("*3\r\n:0\r\n:1\r\n*0\r\n"), "ZADD weir:{main}:clients:smtp:192.0.2.1 3 me"));
}

/* An old figure refuses nobody; one from before Redis hung does. */
static void test_old_figures(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1", 3));
    tick(TOLD "*2\r\n" HAS("a", "2"));
    fake.rules[0] = (struct rule){ "EXEC", "" }; /* it hangs: whoever asks has no answer yet */
    for (int64_t end = now + LEASE + REDIS_ANSWER_LIMIT - 70; now < end; now += 35)
        clients_redis_tick(clients, now);
    assert_false(enters("192.0.2.1", 3));
    view_lost(&view, now);
    now += VIEW_HOLD / 2;
    clients_redis_tick(clients, now);
    assert_false(enters("192.0.2.1", 3));
    view_connected(&view, now);
    clients_redis_tick(clients, now);
    assert_true(enters("192.0.2.1", 3));
    assert_true(enters("192.0.2.1", 3));
    assert_false(enters("192.0.2.1", 3));
}

/* The connection ends while an answer is outstanding: it is told again. */
static void test_no_answer(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1", 20));
    fake.rules[0] = (struct rule){ "EXEC", NULL };
    now += 35;
    clients_redis_tick(clients, now);
    AWAIT(redis_state(ear.redis) == REDIS_DOWN);
    leaves("192.0.2.1");
    fake.rules[0] = (struct rule){ "EXEC", "*2\r\n:0\r\n*0\r\n" };
    AWAIT(redis_state(ear.redis) == REDIS_READY);
    for (int i = 0; i < 40 && clients_count(table); i++)
        tick("*2\r\n:0\r\n*0\r\n");
    assert_int_equal(clients_count(table), 0);
    assert_string_equal(complaints, "");
}

/* The same, and it is freed; then there is another, or none. */
static void test_freed(void **state)
{
    (void)state;
    assert_true(enters("192.0.2.1", 2));
    clients_redis_tick(clients, now += 35);
    clients_redis_use(clients, NULL, "weir:{main}:");
    redis_free(&ear.redis);
    clients_redis_tick(clients, now += 35);
    assert_true(enters("192.0.2.1", 2));
    assert_false(enters("192.0.2.1", 2));
    open_ear(&ear, url_of("redis://127.0.0.1:%u", fake.port));
    AWAIT(ear.readies == 1);
    clients_redis_use(clients, ear.redis, "weir:{other}:");
    clients_redis_set_id(clients, "my");
    assert_non_null(strstr(tick(TOLD "*0\r\n"), "ZADD weir:{other}:clients:smtp:192.0.2.1 2 my\n"));
}

/* Another id while an answer is outstanding: what was told was told of somebody else. */
static void test_renamed(void **state)
{
    const char *said = "";

    (void)state;
    assert_true(enters("192.0.2.1", 20));
    fake.rules[0] = (struct rule){ "EXEC", TOLD "*0\r\n" };
    clients_redis_tick(clients, now += 35);
    clients_redis_set_id(clients, "my");
    AWAIT(redis_outstanding(ear.redis) == 0);
    for (int i = 0; i < 40 && !strstr(said, "ZADD"); i++)
        said = tick(TOLD "*0\r\n");
    assert_non_null(strstr(said, "ZADD weir:{main}:clients:smtp:192.0.2.1 1 my\n"));
}

/* What is left of many that were killed is removed; of a few it stays. */
static void test_leftovers(void **state)
{
    char reply[1024] = TOLD "*22\r\n";
    const char *said;

    (void)state;
    for (char id = 'g'; id < 'q'; id++)
        (void)snprintf(reply + strlen(reply), sizeof reply - strlen(reply), "$1\r\n%c\r\n$1\r\n1\r\n", id);
    (void)snprintf(reply + strlen(reply), sizeof reply - strlen(reply), "$1\r\na\r\n$1\r\n1\r\n");
    assert_true(enters("192.0.2.1", 20));
    assert_null(strstr(tick(reply), "ZREM"));
    memcpy(strstr(reply, "*22"), "*24", 3);
    (void)snprintf(reply + strlen(reply), sizeof reply - strlen(reply), "$2\r\n\r\n\r\n$1\r\n1\r\n");
    assert_true(enters("192.0.2.1", 20));
    said = tick(reply);
    assert_non_null(strstr(said, "ZREM weir:{main}:clients:smtp:192.0.2.1 g h i j k l m n o p \r\n\n"));
}

/* Members as long as nobody's id are no reason to say so much to Redis that the connection is given up. */
static void test_long_leftovers(void **state)
{
    static char reply[3 << 20];
    size_t size = (size_t)snprintf(reply, sizeof reply, TOLD "*40\r\n");

    (void)state;
    for (int i = 0; i < 20; i++) {
        size += (size_t)snprintf(reply + size, sizeof reply - size, "$100000\r\n");
        memset(reply + size, 'a' + i, 100000);
        size += 100000;
        size += (size_t)snprintf(reply + size, sizeof reply - size, "\r\n$1\r\n1\r\n");
    }
    assert_true(enters("192.0.2.1", 20));
    assert_null(strstr(tick(reply), "ZREM"));
    assert_true(ask(&ear, "PING"));
    AWAIT(ear.answers == 1);
    assert_string_equal(ear.reason, "");
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_said),
        TEST(test_whose_counts_count),
        TEST(test_an_instance_falls_silent),
        cmocka_unit_test(test_hostile_replies),
        TEST(test_a_right_is_missing),
        TEST(test_a_question_is_refused),
        TEST(test_redis_has_lost_all),
        TEST(test_redis_goes),
        TEST(test_old_figures),
        TEST(test_no_answer),
        TEST(test_freed),
        TEST(test_renamed),
        TEST(test_leftovers),
        TEST(test_long_leftovers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
