/*
 * A connection to the real redis-server: passwords and users, TLS, sockets, databases, what it refuses, a
 * pause, a stop.
 *
 * Each test starts a server of its own in a directory of its own. It needs no waiting for: the connection
 * comes when the server is there.
 */
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/redis_fixture.h"
#include "tests/unit/redis_program.h"
#include "tests/unit/tls_fixture.h"

#define ARGUMENTS_MAX 32

extern char **environ;

static struct fixture files;
static struct ear ear, other;
static pid_t server;
static uint16_t port;
static char sock[128];

static int setup(void **state)
{
    (void)state;
    loop = ev_loop_new(0);
    memset(&ear, 0, sizeof ear);
    memset(&other, 0, sizeof other);
    fixture_open(&files);
    (void)snprintf(sock, sizeof sock, "%s", fixture_path(&files, "redis.sock"));
    port = 0;
    close(bind_loopback(&port));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    redis_free(&ear.redis);
    redis_free(&other.redis);
    if (server > 0) {
        kill(server, SIGCONT);
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
    }
    server = 0;
    fixture_close(&files);
    ev_loop_destroy(loop);
    return 0;
}

/* With further options, as on its command line, between blanks. */
static void start(const char *options)
{
    char port_text[8], *copy = strdup(options), *rest;
    const char *arguments[ARGUMENTS_MAX] = {
        "redis-server", "--bind",        "127.0.0.1",  "--unixsocket", sock,     "--save", "",
        "--dir",        files.directory, "--loglevel", "warning",      "--port", port_text
    };
    size_t n = 13;
    posix_spawn_file_actions_t actions;

    (void)snprintf(port_text, sizeof port_text, "%u", port);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        arguments[n++] = word;
    assert_true(n < ARGUMENTS_MAX);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0), 0);
    assert_int_equal(posix_spawnp(&server, redis_program(), &actions, NULL, (char **)arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    free(copy);
}

static const char *unix_url(const char *before, const char *behind)
{
    static char text[256];

    (void)snprintf(text, sizeof text, "unix:%s%s%s", before, sock, behind);
    return text;
}

/* Connected as one who may do all. */
static void ready(const char *options)
{
    start(options);
    open_ear(&ear, unix_url("", ""));
    AWAIT(ear.readies == 1);
    ear.states = 1; /* it may have been there before the server */
}

static const char *failure(const char *url)
{
    open_ear(&other, url);
    AWAIT(redis_state(other.redis) == REDIS_DOWN);
    redis_free(&other.redis);
    return other.reason;
}

static void succeed(const char *url)
{
    open_ear(&other, url);
    AWAIT(other.readies == 1);
    assert_string_equal(answer(&other, "PING"), "+PONG");
    redis_free(&other.redis);
}

static void test_commands(void **state)
{
    (void)state;
    ready("");
    assert_string_equal(answer(&ear, "CLIENT GETNAME"), "weir-test");
    assert_string_equal(
        answer(&ear, "DEL a;HSET a relay1 12 relay2 0;PEXPIRE a 3000;ZADD z 1 me;PUBLISH c x"),
        "[:0 :2 :1 :1 :0]");
    assert_string_equal(answer(&ear, "HGETALL a;HGETALL b"), "[[relay1 12 relay2 0] []]");
    assert_string_equal(answer(&ear, "GET a;GET b"),
                        "[-WRONGTYPE Operation against a key holding the wrong kind of value nil]");
    assert_string_equal(answer(&ear, "NOSUCH a;GET b"),
                        "-ERR unknown command 'NOSUCH', with args beginning with: 'a' ");
    assert_memory_equal(answer(&ear, "EVALSHA 0123456789012345678901234567890123456789 0"), "-NOSCRIPT ", 10);
    succeed(url_of("redis://127.0.0.1:%u", port));
    succeed(url_of("redis://localhost:%u", port));
}

static void test_databases(void **state)
{
    (void)state;
    ready("");
    assert_string_equal(answer(&ear, "SET a b"), "+OK");
    open_ear(&other, url_of("redis://127.0.0.1:%u/3", port));
    AWAIT(other.readies == 1);
    assert_string_equal(answer(&other, "GET a"), "nil");
    redis_free(&other.redis);
    open_ear(&other, unix_url("", "?db=0"));
    AWAIT(other.readies == 1);
    assert_string_equal(answer(&other, "GET a"), "b");
    redis_free(&other.redis);
    assert_string_equal(failure(unix_url("", "?db=16")), "ERR DB index is out of range");
}

static void test_password(void **state)
{
    (void)state;
    start("--requirepass p@ss");
    open_ear(&ear, unix_url(":p%40ss@", ""));
    AWAIT(ear.readies == 1);
    assert_string_equal(failure(unix_url("", "")), "NOAUTH Authentication required.");
    assert_string_equal(failure(unix_url(":wrong@", "")),
                        "WRONGPASS invalid username-password pair or user is disabled.");
    succeed(url_of("redis://default:p%%40ss@127.0.0.1:%u", port));
    /* It is taken away from a connection that is in use. */
    assert_string_equal(answer(&ear, "ACL SETUSER other on >x +@all ~* &*"), "+OK");
    open_ear(&other, unix_url("other:x@", ""));
    AWAIT(other.readies == 1);
    assert_string_equal(answer(&ear, "ACL DELUSER other"), ":1");
    AWAIT(redis_state(other.redis) == REDIS_DOWN);
    AWAIT(strncmp(other.reason, "WRONGPASS", 9) == 0);
    redis_free(&other.redis);
    assert_string_equal(failure(unix_url("other:x@", "")),
                        "WRONGPASS invalid username-password pair or user is disabled.");
}

/* A user with little more than what is needed; the name may not be given, and that is no matter. */
static void test_user(void **state)
{
    (void)state;
    ready("");
    assert_string_equal(answer(&ear, "ACL SETUSER weir on >pw resetkeys resetchannels ~weir:{main}:* "
                                     "&weir:{main}:events -@all +ping +hset +multi +exec +subscribe"),
                        "+OK");
    open_ear(&other, unix_url("weir:pw@", ""));
    AWAIT(other.readies == 1);
    assert_string_equal(answer(&other, "HSET weir:{main}:x a b"), ":1");
    assert_memory_equal(answer(&other, "HSET other a b"), "-NOPERM", 7);
    assert_memory_equal(answer(&other, "HSET weir:{main}:x a b;HSET other a b"), "-NOPERM", 7);
    assert_memory_equal(answer(&other, "GET weir:{main}:x"), "-NOPERM", 7);
    assert_int_equal(other.states, 1);
    redis_free(&other.redis);
    open_with(&other, unix_url("weir:pw@", ""), &(struct wish){ .channel = "weir:{main}:events" });
    AWAIT(other.readies == 1);
    redis_free(&other.redis);
    open_with(&other, unix_url("weir:pw@", ""), &(struct wish){ .channel = "others" });
    AWAIT(other.states == 1);
    assert_memory_equal(other.reason, "NOPERM", 6);
}

static void test_messages(void **state)
{
    (void)state;
    ready("");
    open_with(&other, unix_url("", ""), &(struct wish){ .channel = "events" });
    AWAIT(other.readies == 1);
    assert_string_equal(answer(&ear, "PUBLISH events hello"), ":1");
    AWAIT(other.messages == 1);
    assert_string_equal(other.message, "hello");
    assert_string_equal(answer(&ear, "PUBLISH others hello"), ":0");
    assert_string_equal(answer(&ear, "PUBLISH events bye"), ":1");
    AWAIT(other.messages == 2);
    assert_string_equal(other.message, "bye");
    assert_int_equal(other.states, 1);
}

static void test_refusals(void **state)
{
    (void)state;
    ready("--maxclients 2");
    open_ear(&other, unix_url("", ""));
    AWAIT(other.readies == 1);
    redis_free(&other.redis);
    assert_string_equal(answer(&ear, "CONFIG SET maxclients 1"), "+OK");
    assert_string_equal(failure(unix_url("", "")), "ERR max number of clients reached");
    assert_string_equal(answer(&ear, "CONFIG SET maxclients 10"), "+OK");
    assert_string_equal(answer(&ear, "CONFIG SET maxmemory 1"), "+OK");
    assert_string_equal(answer(&ear, "SET a b"), "-OOM command not allowed when used memory > 'maxmemory'.");
    assert_string_equal(answer(&ear, "SET a b;GET a"),
                        "-OOM command not allowed when used memory > 'maxmemory'.");
    assert_string_equal(answer(&ear, "CONFIG SET maxmemory 0"), "+OK");
    assert_int_equal(ear.states, 1);
    assert_string_equal(answer(&ear, "REPLICAOF 127.0.0.1 1"), "+OK");
    assert_memory_equal(answer(&ear, "SET a b"), "-READONLY", 9);
    AWAIT(ear.readies == 2);
    assert_memory_equal(ear.reason, "READONLY", 8);
    assert_string_equal(answer(&ear, "CONFIG SET replica-serve-stale-data no"), "+OK");
    assert_memory_equal(answer(&ear, "GET a"), "-MASTERDOWN", 11);
    AWAIT(ear.states == 4);
    assert_memory_equal(ear.reason, "MASTERDOWN", 10);
}

static void test_pause(void **state)
{
    (void)state;
    ready("");
    assert_string_equal(answer(&ear, "CLIENT PAUSE 1000"), "+OK");
    assert_string_equal(answer(&ear, "GET a"), "! no answer in 500 ms");
    AWAIT(ear.readies == 2);
    assert_string_equal(answer(&ear, "GET a"), "nil");
}

/* It hangs, and goes on. */
static void test_stop(void **state)
{
    (void)state;
    ready("");
    open_with(&other, unix_url("", ""), &(struct wish){ .channel = "events" });
    AWAIT(other.readies == 1);
    kill(server, SIGSTOP);
    assert_string_equal(answer(&ear, "GET a"), "! no answer in 500 ms");
    AWAIT(redis_state(other.redis) == REDIS_DOWN);
    assert_string_equal(other.reason, "no answer in 500 ms");
    kill(server, SIGCONT);
    AWAIT(ear.readies == 2 && other.readies == 2);
    /* It dies, and another one comes. */
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    AWAIT(redis_state(ear.redis) == REDIS_DOWN && redis_state(other.redis) == REDIS_DOWN);
    start("");
    AWAIT(ear.readies == 3 && other.readies == 3);
    assert_string_equal(answer(&ear, "PUBLISH events again"), ":1");
    AWAIT(other.messages == 1);
}

static void complain(void *arg, enum tls_culprit culprit, size_t index, const char *text)
{
    (void)arg;
    fail_msg("%d %zu: %s", (int)culprit, index, text);
}

static void test_tls(void **state)
{
    struct fixture_wish wish = { .key = FIXTURE_EC, .names = "IP:127.0.0.1", .issuer = &files.authority };
    struct fixture_wish foreign = {
        .key = FIXTURE_EC, .other_key = true, .common_name = "Others", .authority = true
    };
    const char *pem = fixture_file(&files, "redis.pem", &wish), *ca = fixture_path(&files, "ca.pem");
    struct tls_client *tls =
        tls_client_create(&(struct tls_client_settings){ .verify = true, .ca = ca }, complain, NULL);
    struct tls_client *sceptic = tls_client_create(
        &(struct tls_client_settings){ .verify = true, .ca = fixture_file(&files, "other.pem", &foreign) },
        complain, NULL);
    char options[1024], url[64];
    uint16_t plain = port;

    (void)state;
    port = 0;
    close(bind_loopback(&port));
    (void)snprintf(
        options, sizeof options,
        "--tls-port %u --tls-cert-file %s --tls-key-file %s --tls-ca-cert-file %s --tls-auth-clients no",
        plain, pem, pem, ca);
    ready(options);
    (void)snprintf(url, sizeof url, "rediss://127.0.0.1:%u", plain);
    open_with(&other, url, &(struct wish){ .tls = tls });
    AWAIT(other.readies == 1);
    assert_string_equal(answer(&other, "SET a b;GET a"), "[+OK b]");
    redis_free(&other.redis);
    open_with(&other, url, &(struct wish){ .tls = tls, .channel = "events" });
    AWAIT(other.readies == 1);
    assert_string_equal(answer(&ear, "PUBLISH events hello"), ":1");
    AWAIT(other.messages == 1);
    redis_free(&other.redis);
    open_with(&other, url, &(struct wish){ .tls = sceptic });
    AWAIT(other.states == 1);
    assert_memory_equal(other.reason, "TLS: certificate verify failed", 30);
    redis_free(&other.redis);
    /* Another name than the certificate's. */
    (void)snprintf(url, sizeof url, "rediss://localhost:%u", plain);
    open_with(&other, url, &(struct wish){ .tls = tls });
    AWAIT(other.states == 1);
    assert_memory_equal(other.reason, "TLS: certificate verify failed", 30);
    redis_free(&other.redis);
    /* TLS to a port without, and the other way round. */
    (void)snprintf(url, sizeof url, "rediss://127.0.0.1:%u", port);
    open_with(&other, url, &(struct wish){ .tls = tls });
    AWAIT(other.states == 1);
    redis_free(&other.redis);
    (void)snprintf(url, sizeof url, "redis://127.0.0.1:%u", plain);
    open_ear(&other, url);
    AWAIT(other.states == 1);
    redis_free(&other.redis);
    tls_client_free(&tls);
    tls_client_free(&sceptic);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_commands), TEST(test_databases), TEST(test_password), TEST(test_user), TEST(test_messages),
        TEST(test_refusals), TEST(test_pause),     TEST(test_stop),     TEST(test_tls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
