/*
 * Statistics and the reaper, before the real redis-server. Their clock is told, so an hour takes no time.
 */
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "counters/statistics.h"
#include "tests/unit/redis_fixture.h"
#include "tests/unit/redis_program.h"
#include "tests/unit/tls_fixture.h"

#define PREFIX "weir:{main}:"
#define HOUR   (60 * 60 * 1000)

extern char **environ;

static struct fixture files;
static struct ear ear; /* one who may do all, and looks */
static pid_t server;
static uint16_t port;

/* An instance: what it counts, and what it was told. */
struct counting {
    struct ear ear;
    struct statistics *statistics;
    const char *names[8];
    uint64_t values[8];
    unsigned folded;
    char complaint[256];
    const char *next_id;
    int64_t now;
};
static struct counting one, two;

static void count(void *arg, struct statistics *statistics)
{
    struct counting *counting = arg;

    for (int i = 0; i < 8 && counting->names[i]; i++)
        statistics_count(statistics, counting->names[i], counting->values[i]);
}

static void on_folded(void *arg)
{
    struct counting *counting = arg;

    counting->folded++;
    statistics_set_id(counting->statistics, counting->next_id);
}

static void on_complaint(void *arg, const char *what, const char *reason)
{
    struct counting *counting = arg;

    if (*reason)
        (void)snprintf(counting->complaint, sizeof counting->complaint, "%s: %s", what, reason);
}

static void start(void)
{
    char port_text[8];
    const char *arguments[] = { "redis-server", "--bind", "127.0.0.1", "--port",        port_text,
                                "--save",       "",       "--dir",     files.directory, NULL };
    posix_spawn_file_actions_t actions;

    port = 0;
    close(bind_loopback(&port));
    (void)snprintf(port_text, sizeof port_text, "%u", port);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0), 0);
    assert_int_equal(posix_spawnp(&server, redis_program(), &actions, NULL, (char **)arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
}

static void open_counting(struct counting *counting, const char *id)
{
    const struct statistics_ops ops = { counting, count, on_folded, on_complaint };

    memset(counting, 0, sizeof *counting);
    counting->now = 1000;
    counting->statistics = statistics_create(id, &ops);
    assert_non_null(counting->statistics);
    open_ear(&counting->ear, url_of("redis://127.0.0.1:%u", port));
    statistics_connect(counting->statistics, counting->ear.redis, PREFIX);
    AWAIT(redis_state(counting->ear.redis) == REDIS_READY);
}

static void close_counting(struct counting *counting)
{
    if (!counting->statistics)
        return;
    statistics_connect(counting->statistics, NULL, PREFIX);
    redis_free(&counting->ear.redis);
    statistics_free(&counting->statistics);
}

static int setup(void **state)
{
    (void)state;
    loop = ev_loop_new(0);
    memset(&ear, 0, sizeof ear);
    fixture_open(&files);
    start();
    open_ear(&ear, url_of("redis://127.0.0.1:%u", port));
    AWAIT(ear.readies == 1);
    open_counting(&one, "mx1-00000001");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close_counting(&one);
    close_counting(&two);
    redis_free(&ear.redis);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    fixture_close(&files);
    ev_loop_destroy(loop);
    return 0;
}

/* Time passes, and all that follows from it has been answered. */
static void pass(struct counting *counting, int64_t milliseconds)
{
    counting->now += milliseconds;
    statistics_tick(counting->statistics, counting->now);
    AWAIT(redis_outstanding(counting->ear.redis) == 0);
}

/* Longer than two looks can be apart. */
static void look(struct counting *counting)
{
    pass(counting, 2 * REAPER_INTERVAL);
}

static void test_write(void **state)
{
    (void)state;
    one.names[0] = "relay1.delivered";
    one.names[1] = "sessions";
    one.values[0] = 3;
    pass(&one, 0);
    assert_string_equal(answer(&ear, "HGETALL weir:{main}:stats:mx1-00000001"),
                        "[relay1.delivered 3 sessions 0]");
    one.values[0] = 5;
    one.values[1] = 2;
    pass(&one, STATISTICS_INTERVAL - 1);
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000001 relay1.delivered"), "3");
    pass(&one, 1);
    assert_string_equal(answer(&ear, "HGETALL weir:{main}:stats:mx1-00000001"),
                        "[relay1.delivered 5 sessions 2]");
    assert_string_equal(answer(&ear, "ZRANGE weir:{main}:stats 0 -1"), "[mx1-00000001]");
    one.values[1] = 4;
    statistics_final(one.statistics);
    AWAIT(redis_outstanding(one.ear.redis) == 0);
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000001 sessions"), "4");
    assert_string_equal(one.complaint, "");
}

/* A backend of two pools is told twice; one that goes and comes back begins at zero. */
static void test_counters(void **state)
{
    (void)state;
    one.names[0] = one.names[1] = "relay1.delivered";
    one.values[0] = 3;
    one.values[1] = 4;
    pass(&one, 0);
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000001 relay1.delivered"), "7");
    one.names[0] = NULL;
    pass(&one, STATISTICS_INTERVAL);
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000001 relay1.delivered"), "7");
    one.names[0] = "relay1.delivered";
    one.names[1] = NULL;
    one.values[0] = 2;
    pass(&one, STATISTICS_INTERVAL);
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000001 relay1.delivered"), "9");
    one.values[0] = UINT64_MAX;
    pass(&one, STATISTICS_INTERVAL);
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000001 relay1.delivered"), "6");
}

/* Redis loses everything, or was told to write something else there. */
static void test_flushed(void **state)
{
    (void)state;
    one.names[0] = "sessions";
    one.values[0] = 3;
    pass(&one, 0);
    assert_string_equal(answer(&ear, "FLUSHALL"), "+OK");
    one.values[0] = 4;
    pass(&one, STATISTICS_INTERVAL);
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000001 sessions"), "4");
    assert_string_equal(answer(&ear, "SET weir:{main}:stats:mx1-00000001 x"), "+OK");
    pass(&one, STATISTICS_INTERVAL);
    assert_non_null(strstr(one.complaint, "WRONGTYPE"));
    assert_int_equal(one.folded, 0);
}

static void leave_behind(const char *id, const char *set)
{
    char text[256];

    (void)snprintf(text, sizeof text, "HSET weir:{main}:stats:%s relay1.delivered 5 sessions 2", id);
    assert_string_equal(answer(&ear, text), ":2");
    (void)snprintf(text, sizeof text, "ZADD weir:{main}:%s 1 %s", set, id);
    assert_string_equal(answer(&ear, text), ":1");
}

static void test_fold(void **state)
{
    (void)state;
    leave_behind("mx8-00000008", "instances"); /* it crashed */
    leave_behind("mx9-00000009", "stats");     /* it said bye */
    look(&one);
    look(&one);
    pass(&one, HOUR - 3 * REAPER_INTERVAL);
    assert_string_equal(answer(&ear, "HGETALL weir:{main}:totals"), "[]");
    look(&one);
    look(&one);
    assert_string_equal(answer(&ear, "HGET weir:{main}:totals relay1.delivered"), "10");
    assert_string_equal(answer(&ear, "HMGET weir:{main}:totals sessions folded"), "[4 2]");
    assert_string_equal(answer(&ear, "EXISTS weir:{main}:stats:mx8-00000008 weir:{main}:stats:mx9-00000009"),
                        ":0");
    assert_string_equal(answer(&ear, "ZRANGE weir:{main}:instances 0 -1"), "[]");
    assert_string_equal(answer(&ear, "ZRANGE weir:{main}:stats 0 -1"), "[mx1-00000001]");
    look(&one);
    pass(&one, HOUR);
    look(&one);
    assert_string_equal(answer(&ear, "HMGET weir:{main}:totals relay1.delivered folded"), "[10 2]");
    assert_string_equal(one.complaint, "");
}

/* Its connections are seen once within the hour: it begins anew. */
static void test_alive(void **state)
{
    (void)state;
    leave_behind("mx9-00000009", "instances");
    look(&one);
    look(&one);
    pass(&one, HOUR / 2);
    assert_string_equal(answer(&ear, "HSET weir:{main}:connections:mx9-00000009 relay1 0"), ":1");
    look(&one);
    assert_string_equal(answer(&ear, "DEL weir:{main}:connections:mx9-00000009"), ":1");
    look(&one);
    pass(&one, HOUR / 2);
    look(&one);
    assert_string_equal(answer(&ear, "EXISTS weir:{main}:totals"), ":0");
    pass(&one, HOUR / 2);
    look(&one);
    assert_string_equal(answer(&ear, "HGET weir:{main}:totals sessions"), "2");
}

/* Both have seen it gone for an hour, and both fold it before either has an answer. */
static void test_two_reapers(void **state)
{
    (void)state;
    open_counting(&two, "mx2-00000002");
    leave_behind("mx9-00000009", "instances");
    assert_string_equal(answer(&ear, "HSET weir:{main}:connections:mx1-00000001 a 0"), ":1");
    assert_string_equal(answer(&ear, "HSET weir:{main}:connections:mx2-00000002 a 0"), ":1");
    look(&one);
    look(&two);
    look(&one);
    look(&two);
    one.now += HOUR;
    two.now += HOUR;
    statistics_tick(one.statistics, one.now);
    statistics_tick(two.statistics, two.now);
    AWAIT(redis_outstanding(one.ear.redis) == 0 && redis_outstanding(two.ear.redis) == 0);
    assert_string_equal(answer(&ear, "HMGET weir:{main}:totals relay1.delivered sessions folded"), "[5 2 1]");
}

/* It was stopped past its lease, others have folded it, and it goes on: nothing is lost, nothing counts
 * twice. */
static void test_folded_itself(void **state)
{
    (void)state;
    open_counting(&two, "mx2-00000002");
    one.names[0] = "sessions";
    one.values[0] = 10;
    one.next_id = "mx1-0000000a";
    pass(&one, 0);
    one.values[0] = 12; /* not written any more */
    look(&two);
    look(&two);
    pass(&two, HOUR);
    assert_string_equal(answer(&ear, "HGET weir:{main}:totals sessions"), "10");
    assert_string_equal(answer(&ear, "EXISTS weir:{main}:stats:mx1-00000001"), ":0");
    one.values[0] = 13;
    pass(&one, STATISTICS_INTERVAL);
    assert_int_equal(one.folded, 1);
    assert_string_equal(answer(&ear, "EXISTS weir:{main}:stats:mx1-00000001"), ":0");
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-0000000a sessions"), "3");
    one.values[0] = 20;
    pass(&one, STATISTICS_INTERVAL);
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-0000000a sessions"), "10");
    assert_int_equal(one.folded, 1);
}

/* What others may have written there. */
static void test_hostile(void **state)
{
    static const char *const commands[] = {
        "HSET weir:{main}:stats:h1 a -1 b x c 9223372036854775808 d 1.5 e 1e3 f 999999999999999999 g 7",
        "HSET weir:{main}:totals f 9223372036854775807 folded x",
        "SET weir:{main}:stats:h2 x",
        "LPUSH weir:{main}:stats:h3 x",
        "ZADD weir:{main}:instances 1 h1 1 h2 1 h3 1 no/id 1 {other}",
        "ZADD weir:{main}:stats 1 h4 99999999999999999999 h5",
    };

    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        assert_int_not_equal(answer(&ear, commands[i])[0], '-');
    look(&one);
    look(&one);
    pass(&one, HOUR);
    assert_string_equal(answer(&ear, "HMGET weir:{main}:totals a b c d e g folded"),
                        "[nil nil nil nil nil 7 x]");
    assert_string_equal(answer(&ear, "HGET weir:{main}:totals f"), "9223372036854775807");
    assert_string_equal(answer(&ear, "GET weir:{main}:stats:h2"), "x");
    assert_string_equal(answer(&ear, "ZRANGE weir:{main}:stats 0 -1"), "[mx1-00000001]");
    assert_string_equal(one.complaint, "reaper: the statistics of an instance that is gone are malformed");
    /* The sets and the totals of another type. */
    leave_behind("mx9-00000009", "stats");
    assert_string_equal(answer(&ear, "SET weir:{main}:instances x"), "+OK");
    assert_string_equal(answer(&ear, "SET weir:{main}:totals x"), "+OK");
    look(&one);
    look(&one);
    pass(&one, HOUR);
    assert_non_null(strstr(one.complaint, "WRONGTYPE"));
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx9-00000009 sessions"), "2");
}

/* What was written under one id stays there, and is not told again under the next. */
static void test_another_id(void **state)
{
    (void)state;
    one.names[0] = "relay1.delivered";
    one.values[0] = 3;
    pass(&one, 0);
    one.values[0] = 4;
    statistics_set_id(one.statistics, "mx1-00000002");
    pass(&one, STATISTICS_INTERVAL);
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000001 relay1.delivered"), "3");
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000002 relay1.delivered"), "1");
    /* Nor what is on its way. */
    one.values[0] = 7;
    one.now += STATISTICS_INTERVAL;
    statistics_tick(one.statistics, one.now);
    statistics_set_id(one.statistics, "mx1-00000003");
    AWAIT(redis_outstanding(one.ear.redis) == 0);
    one.values[0] = 9;
    pass(&one, STATISTICS_INTERVAL);
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000002 relay1.delivered"), "4");
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000003 relay1.delivered"), "2");
}

/* More than one answer can hold, after many restarts: those that have been gone for the longest come first.
 */
static void test_many(void **state)
{
    static const char fill[] =
        "for i = 1, 5000 do local n = KEYS[1] + i redis.call('ZADD', KEYS[2], n, 'old-' .. n) "
        "redis.call('ZADD', KEYS[3], n, 'old-' .. n) end return 1";
    struct resp_commands commands = { .n = 0 };
    char first[16];

    (void)state;
    for (unsigned i = 0; i < 14; i++) {
        (void)snprintf(first, sizeof first, "%u", i * 5000);
        resp_commands_clear(&commands);
        resp_commands_say(&commands, "EVAL", fill, "3", first, PREFIX "instances", PREFIX "stats");
        assert_true(redis_send(ear.redis, &commands, on_answer, &ear));
        AWAIT(redis_outstanding(ear.redis) == 0);
    }
    resp_commands_free(&commands);
    assert_string_equal(answer(&ear, "ZCARD weir:{main}:stats"), ":70000");
    assert_string_equal(answer(&ear, "HSET weir:{main}:stats:old-1 relay1.delivered 5"), ":1");
    pass(&one, 0); /* the first look is planned */
    look(&one);
    pass(&one, HOUR);
    look(&one);
    look(&one);
    assert_int_equal(one.ear.readies, 1);
    assert_int_equal(redis_state(one.ear.redis), REDIS_READY);
    assert_string_equal(answer(&ear, "HGET weir:{main}:totals relay1.delivered"), "5");
    assert_string_equal(answer(&ear, "ZSCORE weir:{main}:stats old-1"), "nil");
    assert_string_equal(one.complaint, "");
}

/* Relays come and go for years, and their names are kept: as many as can be read. */
static void test_full_totals(void **state)
{
    static const char fill[] = "for i = 1, 4094 do redis.call('HSET', KEYS[2], KEYS[1] + i, 1) end return 1";
    struct resp_commands commands = { .n = 0 };
    char first[16];

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        (void)snprintf(first, sizeof first, "%u", i * 4094);
        resp_commands_clear(&commands);
        resp_commands_say(&commands, "EVAL", fill, "2", first, PREFIX "totals");
        assert_true(redis_send(ear.redis, &commands, on_answer, &ear));
        AWAIT(redis_outstanding(ear.redis) == 0);
    }
    resp_commands_clear(&commands);
    resp_commands_say(&commands, "EVAL",
                      "for i = 1, 1000 do redis.call('HSET', KEYS[1], 'relay' .. i .. '.delivered', 2) end "
                      "redis.call('HSET', KEYS[1], '1', 5, 'a.b', 3, 'quiet.failed', 0) "
                      "redis.call('ZADD', KEYS[2], 1, 'mx9-00000009') return 1",
                      "2", PREFIX "stats:mx9-00000009", PREFIX "stats");
    assert_true(redis_send(ear.redis, &commands, on_answer, &ear));
    AWAIT(redis_outstanding(ear.redis) == 0);
    resp_commands_free(&commands);
    pass(&one, 0);
    look(&one);
    look(&one);
    pass(&one, HOUR);
    look(&one);
    assert_string_equal(answer(&ear, "HMGET weir:{main}:totals 1 folded others.other quiet.failed"),
                        "[6 1 3 nil]");
    assert_string_equal(answer(&ear, "HGET weir:{main}:totals others.delivered"), "2000");
    assert_string_equal(answer(&ear, "HLEN weir:{main}:totals"), ":32755");
    assert_string_equal(one.complaint, "");
}

/* Who may not do all of it does none of it. */
static void test_permission(void **state)
{
    static const char *const needed[] = { "hincrby", "set",    "del",  "hgetall",
                                          "hlen",    "exists", "eval", "zrange" };
    char text[64];

    (void)state;
    leave_behind("mx9-00000009", "stats");
    look(&one);
    look(&one);
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        one.complaint[0] = '\0';
        (void)snprintf(text, sizeof text, "ACL SETUSER default -%s", needed[i]);
        assert_string_equal(answer(&ear, text), "+OK");
        pass(&one, HOUR);
        assert_true(one.complaint[0]);
        (void)snprintf(text, sizeof text, "ACL SETUSER default +%s", needed[i]);
        assert_string_equal(answer(&ear, text), "+OK");
        assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx9-00000009 sessions"), "2");
        assert_string_equal(answer(&ear, "HGET weir:{main}:totals sessions"), "nil");
    }
    look(&one);
    pass(&one, HOUR);
    assert_string_equal(answer(&ear, "HGET weir:{main}:totals sessions"), "2");
}

static void test_away(void **state)
{
    (void)state;
    one.names[0] = "sessions";
    one.values[0] = 1;
    pass(&one, 0);
    statistics_connect(one.statistics, NULL, PREFIX);
    one.values[0] = 2;
    statistics_tick(one.statistics, one.now += STATISTICS_INTERVAL);
    statistics_final(one.statistics);
    redis_free(&one.ear.redis);
    open_ear(&one.ear, url_of("redis://127.0.0.1:%u", port));
    statistics_connect(one.statistics, one.ear.redis, PREFIX);
    statistics_tick(one.statistics, one.now += STATISTICS_INTERVAL); /* not READY yet */
    AWAIT(one.ear.readies == 1);
    pass(&one, STATISTICS_INTERVAL);
    assert_string_equal(answer(&ear, "HGET weir:{main}:stats:mx1-00000001 sessions"), "2");
    /* To another farm: what was counted before stays where it was. */
    statistics_connect(one.statistics, one.ear.redis, "weir:{other}:");
    one.values[0] = 5;
    pass(&one, STATISTICS_INTERVAL);
    assert_string_equal(answer(&ear, "HGET weir:{other}:stats:mx1-00000001 sessions"), "3");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_write),      TEST(test_counters),    TEST(test_flushed),       TEST(test_fold),
        TEST(test_alive),      TEST(test_two_reapers), TEST(test_folded_itself), TEST(test_hostile),
        TEST(test_permission), TEST(test_away),        TEST(test_many),          TEST(test_full_totals),
        TEST(test_another_id),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
