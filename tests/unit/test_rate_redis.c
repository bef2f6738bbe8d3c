/*
 * Limits over a farm: two instances' rules, each with its bank and connection, and one real redis-server. It
 * needs no waiting for: the connections come when it is there.
 */
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "counters/rate_redis.h"
#include "net/clock.h"
#include "tests/unit/redis_fixture.h"
#include "tests/unit/redis_program.h"

#define INSTANCES 2

extern char **environ;

static char directory[64], sock[128];
static pid_t server;
static struct ear ears[INSTANCES];
static struct rate_redis *banks[INSTANCES];
static struct rate_rules *rules[INSTANCES];
static struct config_limit limits[2];
static struct config config = { .limits = limits, .n_limits = 2 };

static void start_server(void)
{
    const char *arguments[] = { "redis-server", "--port",  "0",          "--unixsocket", sock, "--save", "",
                                "--dir",        directory, "--loglevel", "warning",      NULL };
    posix_spawn_file_actions_t actions;

    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0), 0);
    assert_int_equal(posix_spawnp(&server, redis_program(), &actions, NULL, (char **)arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
}

static int setup(void **state)
{
    char url[160];

    (void)state;
    loop = ev_loop_new(0);
    (void)snprintf(directory, sizeof directory, "/tmp/weir-rate-XXXXXX");
    assert_non_null(mkdtemp(directory));
    (void)snprintf(sock, sizeof sock, "%s/redis.sock", directory);
    (void)snprintf(url, sizeof url, "unix:%s", sock);
    start_server();
    limits[0] = (struct config_limit){
        .name = (char *)"many", .messages = {200,  3600000},
              .recipients = { 100, 3600000}
    };
    limits[1] = (struct config_limit){
        .name = (char *)"few", .messages = {3, 3600000}
    };
    for (int i = 0; i < INSTANCES; i++) {
        open_ear(&ears[i], url);
        AWAIT(ears[i].readies == 1);
        banks[i] = rate_redis_create(loop);
        assert_non_null(banks[i]);
        rate_redis_use(banks[i], ears[i].redis, "main");
        rules[i] = rate_rules_create(&config, NULL, rate_redis_bank(banks[i]));
        assert_non_null(rules[i]);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < INSTANCES; i++) {
        redis_free(&ears[i].redis);
        rate_redis_free(&banks[i]);
        rate_rules_release(&rules[i]);
    }
    if (server > 0) {
        kill(server, SIGCONT);
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
    }
    server = 0;
    unlink(sock);
    rmdir(directory);
    ev_loop_destroy(loop);
    return 0;
}

static struct rate_refusal refusal;

static bool takes(int instance, int rule, enum rate_what what, const char *who)
{
    return rate_take(rules[instance]->rates[rule], what, who, strlen(who), clock_milliseconds(), &refusal);
}

/* All that was asked is answered: a round trip of its own comes behind, as the mailbox is emptied before. */
static void settle(void)
{
    for (int round = 0; round < 3; round++) { /* NOSCRIPT, and what an answer leads to */
        ev_run(loop, EVRUN_NOWAIT);
        for (int i = 0; i < INSTANCES; i++)
            assert_string_equal(answer(&ears[i], "PING"), "+PONG");
    }
}

static const char *redis_says(const char *command)
{
    return answer(&ears[0], command);
}

/* --- the script ---------------------------------------------------------------------------------------- */

static unsigned evals;

/* How often EVAL was used, by INFO. */
static void on_info(void *arg, const struct resp *reply, const char *error)
{
    const char *found = reply && reply->text ? strstr(reply->text, "cmdstat_eval:calls=") : NULL;

    (void)error;
    evals = found ? (unsigned)strtoul(found + strlen("cmdstat_eval:calls="), NULL, 10) : 0;
    *(bool *)arg = true;
}

static unsigned count_evals(void)
{
    struct resp_commands commands = { .n = 0 };
    bool known = false;

    resp_commands_say(&commands, "INFO", "commandstats");
    assert_true(redis_send(ears[0].redis, &commands, on_info, &known));
    AWAIT(known);
    resp_commands_free(&commands);
    return evals;
}

static void test_digest(void **state)
{
    (void)state;
    assert_true(takes(0, 1, RATE_MESSAGES, "a"));
    settle();
    assert_int_equal(count_evals(), 1); /* the script came, and from now on the digest finds it */
    assert_true(takes(1, 1, RATE_MESSAGES, "a"));
    settle();
    assert_int_equal(count_evals(), 1);
    assert_string_equal(redis_says("EXISTS weir:{main}:rate:few:a"), ":1");
    assert_string_equal(redis_says("TYPE weir:{main}:rate:few:a"), "+string");
}

static void test_small_limit_is_shared(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_true(takes(i % 2, 1, RATE_MESSAGES, "a"));
        settle();
    }
    assert_false(takes(0, 1, RATE_MESSAGES, "a"));
    assert_true(takes(1, 1, RATE_MESSAGES, "a")); /* on credit: it has not heard yet */
    settle();
    assert_false(takes(1, 1, RATE_MESSAGES, "a"));
    assert_in_range(refusal.wait, 2300000, 2400000); /* for the one that is owed, too */
    assert_true(takes(0, 1, RATE_MESSAGES, "b"));
}

static void test_large_limit_is_shared(void **state)
{
    unsigned n = 0;
    bool any;

    (void)state;
    do {
        any = false;
        for (int i = 0; i < INSTANCES; i++) {
            bool took = takes(i, 0, RATE_MESSAGES, "a");

            n += took;
            any = any || took;
        }
        settle();
    } while (any);
    assert_in_range(n, 200, 201); /* the last may have been on credit */
    assert_in_range(refusal.wait, 1, 40000);
    assert_true(takes(0, 0, RATE_RECIPIENTS, "a"));
    settle();
    assert_true(takes(1, 0, RATE_RECIPIENTS, "a"));
}

static void test_key_goes_by_itself(void **state)
{
    (void)state;
    assert_true(takes(0, 1, RATE_MESSAGES, "a"));
    settle();
    redis_says("PTTL weir:{main}:rate:few:a");
    assert_in_range(strtol(ears[0].answer + 1, NULL, 10), 1100000, 1200002);
}

/* --- what else may stand there ---------------------------------------------------------------------------
 */

static void test_hostile_values(void **state)
{
    static const char *const values[] = {
        "garbage",
        "9223372036854775808",
        "-1",
        "1",
        "99999999999999999999999_0",
        "nan_nan",
        "1e300_0",
        "0x10_0",
        "9223372036854775807_9223372036854775807",
        "-5_-5",
        "1_2_3",
    };
    char command[160], who[16];

    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        (void)snprintf(who, sizeof who, "v%zu", i);
        (void)snprintf(command, sizeof command, "SET weir:{main}:rate:few:%s %s", who, values[i]);
        assert_string_equal(redis_says(command), "+OK");
        for (int k = 0; k < 3; k++) {
            assert_true(takes(0, 1, RATE_MESSAGES, who));
            settle();
        }
        assert_false(takes(0, 1, RATE_MESSAGES, who));
        assert_in_range(refusal.wait, 1100000, 1200000);
    }
}

/* Two numbers that are good ones but far off: what is owed is cut to a period. */
static void test_far_off(void **state)
{
    struct resp_commands commands = { .n = 0 };
    unsigned before = ears[0].answers;

    (void)state;
    resp_commands_say(&commands, "SET", "weir:{main}:rate:few:a", "9999999999999999 9999999999999999");
    assert_true(redis_send(ears[0].redis, &commands, on_answer, &ears[0]));
    AWAIT(ears[0].answers > before);
    resp_commands_free(&commands);
    assert_true(takes(0, 1, RATE_MESSAGES, "a"));
    settle();
    assert_false(takes(0, 1, RATE_MESSAGES, "a"));
    assert_in_range(refusal.wait, 2300000, 2400000);
}

/* Another type is left alone, and each instance counts for itself. */
static void test_wrong_type(void **state)
{
    (void)state;
    assert_string_equal(redis_says("HSET weir:{main}:rate:few:a x y"), ":1");
    for (int i = 0; i < INSTANCES; i++) {
        for (int k = 0; k < 3; k++) {
            assert_true(takes(i, 1, RATE_MESSAGES, "a"));
            settle();
        }
        assert_false(takes(i, 1, RATE_MESSAGES, "a"));
    }
    assert_string_equal(redis_says("TYPE weir:{main}:rate:few:a"), "+hash");
    assert_int_equal(redis_state(ears[0].redis), REDIS_READY);
}

static void test_flushed(void **state)
{
    (void)state;
    assert_true(takes(0, 1, RATE_MESSAGES, "a"));
    settle();
    assert_string_equal(redis_says("FLUSHALL"), "+OK");
    assert_string_equal(redis_says("SCRIPT FLUSH"), "+OK");
    for (int k = 0; k < 3; k++) {
        assert_true(takes(0, 1, RATE_MESSAGES, "a"));
        settle();
    }
    assert_false(takes(0, 1, RATE_MESSAGES, "a"));
}

/* --- Redis goes away -------------------------------------------------------------------------------------
 */

static void test_stopped(void **state)
{
    (void)state;
    assert_true(takes(0, 1, RATE_MESSAGES, "a"));
    settle();
    kill(server, SIGSTOP);
    assert_true(takes(0, 1, RATE_MESSAGES, "a")); /* on credit */
    AWAIT(redis_state(ears[0].redis) == REDIS_DOWN);
    assert_true(takes(0, 1, RATE_MESSAGES, "a")); /* by its own count: the third */
    assert_false(takes(0, 1, RATE_MESSAGES, "a"));
    rate_redis_use(banks[0], NULL, NULL);
    assert_false(takes(0, 1, RATE_MESSAGES, "a"));
    kill(server, SIGCONT);
    AWAIT(ears[0].readies == 2);
    rate_redis_use(banks[0], ears[0].redis, "main");
    assert_true(takes(0, 1, RATE_MESSAGES, "b"));
    settle();
    assert_string_equal(redis_says("EXISTS weir:{main}:rate:few:b"), ":1");
}

/* Outstanding while the connection is freed. */
static void test_forgotten(void **state)
{
    (void)state;
    assert_true(takes(0, 1, RATE_MESSAGES, "a"));
    ev_run(loop, EVRUN_NOWAIT);
    redis_free(&ears[0].redis);
    rate_redis_forget(banks[0]);
    assert_true(takes(0, 1, RATE_MESSAGES, "a"));
    assert_true(takes(0, 1, RATE_MESSAGES, "a"));
    assert_false(takes(0, 1, RATE_MESSAGES, "a"));
}

#define LIVE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIVE(test_digest),
        LIVE(test_small_limit_is_shared),
        LIVE(test_large_limit_is_shared),
        LIVE(test_key_goes_by_itself),
        LIVE(test_hostile_values),
        LIVE(test_far_off),
        LIVE(test_wrong_type),
        LIVE(test_flushed),
        LIVE(test_stopped),
        LIVE(test_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
