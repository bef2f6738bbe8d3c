/*
 * A connection to Redis against a server that follows a script: the greeting, requests, every way to fail.
 * tests/unit/test_redis_server.c has the real one, test_redis_nodes.c sentinels and clusters.
 */
#include "counters/redis_internal.h"
#include "tests/unit/redis_fixture.h"

static struct fake fake;
static struct ear ear;

static int setup(void **state)
{
    (void)state;
    loop = ev_loop_new(0);
    memset(&fake, 0, sizeof fake);
    memset(&ear, 0, sizeof ear);
    fake_start(&fake);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    redis_free(&ear.redis);
    fake_stop(&fake);
    ev_loop_destroy(loop);
    return 0;
}

static void rule(const char *command, const char *reply)
{
    size_t i = 0;

    while (fake.rules[i].command)
        i++;
    fake.rules[i] = (struct rule){ command, reply };
}

static void ready(void)
{
    open_ear(&ear, url_of("redis://127.0.0.1:%u", fake.port));
    AWAIT(ear.readies == 1);
    *fake.heard = '\0';
}

static void subscribed(void)
{
    open_with(&ear, url_of("redis://127.0.0.1:%u", fake.port), &(struct wish){ .channel = "events" });
    AWAIT(ear.readies == 1);
}

/* --- the greeting --------------------------------------------------------------------------------------- */

static void test_greeting(void **state)
{
    static const struct {
        const char *url, *channel, *heard;
    } table[] = {
        {"redis://127.0.0.1:%u",             NULL,     "PING\nCLIENT SETNAME weir-test\n"                     },
        { "redis://127.0.0.1:%u/0",          NULL,     "PING\nCLIENT SETNAME weir-test\n"                     },
        { "redis://:p%%40ss@127.0.0.1:%u/3", NULL,     "AUTH p@ss\nSELECT 3\nPING\nCLIENT SETNAME weir-test\n"},
        { "redis://weir:pw@127.0.0.1:%u",    NULL,     "AUTH weir pw\nPING\nCLIENT SETNAME weir-test\n"       },
        { "redis://127.0.0.1:%u",            "events", "PING\nCLIENT SETNAME weir-test\nSUBSCRIBE events\n"   },
        { "redis://localhost:%u",            NULL,     "PING\nCLIENT SETNAME weir-test\n"                     },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        *fake.heard = '\0';
        open_with(&ear, url_of(table[i].url, fake.port), &(struct wish){ .channel = table[i].channel });
        AWAIT(redis_state(ear.redis) == REDIS_READY);
        assert_string_equal(fake.heard, table[i].heard);
        assert_int_equal(ear.states, 1);
        assert_int_equal(redis_outstanding(ear.redis), 0);
        redis_free(&ear.redis);
    }
}

/* A server that refuses is asked again and again, and told of once. */
static void check_refused(const char *command, const char *reply, const char *reason)
{
    unsigned accepted = fake.accepted;

    memset(fake.rules, 0, sizeof fake.rules);
    rule(command, reply);
    open_with(&ear, url_of("redis://weir:secret@127.0.0.1:%u/1", fake.port),
              &(struct wish){ .channel = "events" });
    AWAIT(ear.states == 1);
    assert_int_equal(redis_state(ear.redis), REDIS_DOWN);
    assert_string_equal(ear.reason, reason);
    AWAIT(fake.accepted == accepted + 3);
    assert_int_equal(ear.states, 1);
    memset(fake.rules, 0, sizeof fake.rules);
    AWAIT(ear.readies == 1);
    assert_int_equal(ear.states, 2);
    redis_free(&ear.redis);
}

static void test_refused(void **state)
{
    (void)state;
    check_refused("AUTH", "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
                  "WRONGPASS invalid username-password pair or user is disabled.");
    check_refused("AUTH", "-ERR no, weir:secret is wrong\r\n", "an answer that holds the password");
    check_refused("SELECT", "-ERR DB index is out of range\r\n", "ERR DB index is out of range");
    check_refused("PING", "-LOADING Redis is loading\r\n", "LOADING Redis is loading");
    check_refused("SUBSCRIBE", "-NOPERM no\r\n", "NOPERM no");
    check_refused("SUBSCRIBE", "+OK\r\n", "another answer than that to SUBSCRIBE");
    check_refused("PING", NULL, "connection closed");
    check_refused("PING", "220 relay ESMTP\r\n", "Protocol error, got \"2\" as reply type byte");
    check_refused("PING", "*65537\r\n", "a reply of more than 65536 elements");
    check_refused("CLIENT SETNAME", "+OK\r\n+OK\r\n+more\r\n", "another answer than that to SUBSCRIBE");
}

/* Who may not give a name is served all the same. */
static void test_nameless(void **state)
{
    (void)state;
    rule("CLIENT", "-NOPERM no\r\n");
    ready();
    assert_string_equal(answer(&ear, "GET a"), "+OK");
}

static void test_no_server(void **state)
{
    unsigned turns = 0;

    (void)state;
    fake_stop(&fake);
    open_ear(&ear, url_of("redis://127.0.0.1:%u", fake.port));
    AWAIT(ear.states == 1);
    assert_string_equal(ear.reason, "connection refused");
    assert_string_equal(redis_server(ear.redis), url_of("127.0.0.1:%u", fake.port));
    assert_false(ask(&ear, "GET a"));
    fake_start(&fake);
    AWAIT(++turns > 1000 || ear.readies == 1);
    assert_int_equal(ear.readies, 1);
}

static void test_no_name(void **state)
{
    uint16_t port = 0;
    int fd = bind_loopback(&port); /* of TCP: nobody answers UDP there */

    (void)state;
    open_with(&ear, "redis://no-such-host.invalid",
              &(struct wish){ .nameservers = url_of("127.0.0.1:%u", port) });
    AWAIT(ear.states == 1);
    assert_int_equal(redis_state(ear.redis), REDIS_DOWN);
    assert_memory_equal(ear.reason, "its name: ", 10);
    /* Freed on the way to the next attempt. */
    redis_free(&ear.redis);
    close(fd);
}

/* A name server that gives each name two addresses, 127.0.0.1 and 127.0.0.2 (RFC 1035 §4.1). */
static void on_question(struct ev_loop *on, ev_io *io, int events)
{
    static const char records[] =
        "\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1" /* the name of the question, A, IN, TTL 0 */
        "\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\2";
    struct sockaddr_in client;
    socklen_t length = sizeof client;
    char out[1024];
    ssize_t n = recvfrom(io->fd, out, sizeof out / 2, 0, (struct sockaddr *)&client, &length);
    size_t size = 12; /* the header */
    bool is_a;

    (void)on;
    (void)events;
    assert_true(n > 12);
    while (out[size])
        size += (size_t)out[size] + 1;
    is_a = out[size + 2] == 1; /* and not AAAA */
    size += 5;                 /* what is behind the question, EDNS, does not come back */
    memcpy(out + 2, "\x81\x80\0\1\0\0\0\0\0\0", 10);
    if (is_a) {
        out[7] = 2;
        memcpy(out + size, records, sizeof records - 1);
        size += sizeof records - 1;
    }
    assert_int_equal(sendto(io->fd, out, size, 0, (struct sockaddr *)&client, length), size);
}

/* Of a name with two addresses the server that is there is told of, not the silence at the other. */
static void test_two_addresses(void **state)
{
    ev_io names;
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof in;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char servers[32];
    struct wish wish = { .nameservers = servers };

    (void)state;
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &length), 0);
    (void)snprintf(servers, sizeof servers, "127.0.0.1:%u", ntohs(in.sin_port));
    ev_io_init(&names, on_question, fd, EV_READ);
    ev_io_start(loop, &names);

    rule("PING", "-LOADING Redis is loading\r\n");
    open_with(&ear, url_of("redis://two.test:%u", fake.port), &wish);
    AWAIT(ear.states == 1);
    assert_string_equal(ear.reason, "LOADING Redis is loading");
    redis_free(&ear.redis);

    fake_stop(&fake);
    fake_start_at(&fake, INADDR_LOOPBACK + 1);
    open_with(&ear, url_of("redis://two.test:%u", fake.port), &wish);
    AWAIT(ear.states == 1);
    assert_string_equal(ear.reason, "LOADING Redis is loading");
    /* Next time there is nobody, and later one who serves. */
    fake_stop(&fake);
    AWAIT(ear.states == 2);
    assert_string_equal(ear.reason, "connection refused");
    memset(fake.rules, 0, sizeof fake.rules);
    fake_start_at(&fake, INADDR_LOOPBACK + 1);
    AWAIT(ear.readies == 1);
    redis_free(&ear.redis);

    ev_io_stop(loop, &names);
    close(fd);
}

static void test_no_socket(void **state)
{
    (void)state;
    open_ear(&ear, "unix:/nowhere/redis.sock");
    AWAIT(ear.states == 1);
    assert_string_equal(ear.reason, "No such file or directory");
    assert_string_equal(redis_server(ear.redis), "/nowhere/redis.sock");
}

/* --- requests ------------------------------------------------------------------------------------------- */

static void test_in_order(void **state)
{
    (void)state;
    rule("GET a", ":1\r\n");
    rule("GET b", "$1\r\nb\r\n");
    rule("GET c", "*2\r\n$-1\r\n-ERR no\r\n");
    ready();
    assert_true(ask(&ear, "GET a") && ask(&ear, "GET b"));
    assert_int_equal(redis_outstanding(ear.redis), 2);
    assert_true(ask(&ear, "GET c"));
    AWAIT(ear.answers == 3);
    assert_string_equal(ear.said, ":1\nb\n[nil -ERR no]\n");
    assert_int_equal(redis_outstanding(ear.redis), 0);
    assert_int_equal(ear.states, 1);
}

static void test_transaction(void **state)
{
    (void)state;
    rule("EXEC", "*3\r\n:1\r\n:2\r\n-WRONGTYPE no\r\n");
    ready();
    assert_string_equal(answer(&ear, "DEL a;HSET a b c;PUBLISH x y"), "[:1 :2 -WRONGTYPE no]");
    assert_string_equal(fake.heard, "MULTI\nDEL a\nHSET a b c\nPUBLISH x y\nEXEC\n");
}

/* What refuses one of its commands is the answer, not what follows from it. */
static void test_transaction_refused(void **state)
{
    (void)state;
    rule("HSET", "-NOPERM no HSET\r\n");
    rule("PUBLISH", "-NOPERM no PUBLISH\r\n");
    rule("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n");
    ready();
    assert_string_equal(answer(&ear, "DEL a;HSET a b c;PUBLISH x y"), "-NOPERM no HSET");
    assert_int_equal(ear.states, 1);
    assert_string_equal(answer(&ear, "GET a"), "+OK");
}

static void test_not_sent(void **state)
{
    struct resp_commands none = { .n = 0 }, failed = { .octets = NULL, .n = 1, .failed = true };

    (void)state;
    ready();
    assert_false(redis_send(ear.redis, &none, on_answer, &ear));
    assert_false(redis_send(ear.redis, &failed, on_answer, &ear));
    resp_commands_say(&none, "GET", "a");
    assert_true(redis_send(ear.redis, &none, NULL, NULL)); /* nobody wants to know */
    resp_commands_free(&none);
    assert_string_equal(answer(&ear, "GET b"), "+OK");
    assert_int_equal(ear.answers, 1);
    redis_free(&ear.redis);
    subscribed();
    assert_false(ask(&ear, "GET a"));
}

/* Which errors are the server's, and which are the command's own. */
static void check_fault(const char *reply, bool closes)
{
    struct rule get = { "GET", reply };
    char expected[128];

    ready();
    fake.rules[0] = get;
    (void)snprintf(expected, sizeof expected, "%.*s", (int)strcspn(reply, "\r"), reply);
    assert_string_equal(answer(&ear, "GET a"), expected);
    if (closes) {
        AWAIT(ear.states == 2);
        assert_string_equal(ear.reason, expected + 1);
        assert_false(ask(&ear, "GET b"));
        AWAIT(ear.readies == 2);
    }
    fake.rules[0] = (struct rule){ NULL, NULL };
    assert_string_equal(answer(&ear, "GET b"), "+OK");
    assert_int_equal(ear.states, closes ? 3 : 1);
    redis_free(&ear.redis);
}

static void test_faults(void **state)
{
    (void)state;
    check_fault("-NOAUTH Authentication required.\r\n", true);
    check_fault("-LOADING Redis is loading the dataset in memory\r\n", true);
    check_fault("-READONLY You can't write against a read only replica.\r\n", true);
    check_fault("-MASTERDOWN Link with MASTER is down\r\n", true);
    check_fault("-CLUSTERDOWN Hash slot not served\r\n", true);
    check_fault("-NOPERM this user has no permissions\r\n", false);
    check_fault("-OOM command not allowed\r\n", false);
    check_fault("-WRONGTYPE Operation against a key\r\n", false);
    check_fault("-BUSY Redis is busy\r\n", false);
    check_fault("-NOSCRIPT No matching script\r\n", false);
    /* Not in a cluster: the command's own affair. */
    check_fault("-MOVED 1 127.0.0.1:1\r\n", false);
    check_fault("-ASK 1 127.0.0.1:1\r\n", false);
}

/* --- ends ----------------------------------------------------------------------------------------------- */

/* The end comes behind each octet of the greeting's replies and of an answer. */
static void test_cut_anywhere(void **state)
{
    (void)state;
    for (size_t cut = 1; cut <= strlen("+PONG\r\n+OK\r\n+OK\r\n"); cut++) {
        fake.cut = cut;
        open_ear(&ear, url_of("redis://127.0.0.1:%u", fake.port));
        AWAIT(ear.readies == 1 || redis_state(ear.redis) == REDIS_DOWN);
        if (ear.readies)
            (void)ask(&ear, "GET a");
        AWAIT(redis_state(ear.redis) == REDIS_DOWN || ear.answers);
        AWAIT(redis_state(ear.redis) == REDIS_DOWN);
        assert_string_equal(ear.reason, "connection closed");
        assert_int_equal(redis_outstanding(ear.redis), 0);
        fake.cut = 0;
        AWAIT(redis_state(ear.redis) == REDIS_READY);
        redis_free(&ear.redis);
    }
}

static void test_late_answer(void **state)
{
    (void)state;
    rule("GET", "");
    ready();
    assert_string_equal(answer(&ear, "GET a"), "! no answer in 500 ms");
    assert_int_equal(redis_state(ear.redis), REDIS_DOWN);
    assert_string_equal(ear.reason, "no answer in 500 ms");
    AWAIT(ear.readies == 2);
    redis_free(&ear.redis);
    /* Not even a greeting. */
    fake.deaf = true;
    open_ear(&ear, url_of("redis://127.0.0.1:%u", fake.port));
    AWAIT(ear.states == 1);
    assert_string_equal(ear.reason, "no answer in 500 ms");
}

static void on_drip(struct ev_loop *on, ev_timer *timer, int events)
{
    (void)on;
    (void)timer;
    (void)events;
    fake_shout(&fake, "x", 1);
}

/* Octets that come are no answer yet. */
static void test_one_at_a_time(void **state)
{
    ev_timer drip;

    (void)state;
    rule("GET", "$100000\r\n");
    ready();
    ev_timer_init(&drip, on_drip, 0.05, 0.05);
    ev_timer_start(loop, &drip);
    assert_string_equal(answer(&ear, "GET a"), "! no answer in 500 ms");
    ev_timer_stop(loop, &drip);
}

/* An answer that came in time, to a process that was held up, is none that is late. */
static void test_held_up(void **state)
{
    (void)state;
    ready();
    assert_true(ask(&ear, "GET a"));
    /* The fake's turn comes, and its answer waits in the socket. */
    ev_io_stop(loop, &ear.redis->stream.io);
    AWAIT(strstr(fake.heard, "GET a"));
    usleep(600 * 1000);
    ev_io_start(loop, &ear.redis->stream.io);
    AWAIT(ear.answers + ear.errors == 1);
    assert_string_equal(ear.answer, "+OK");
    assert_int_equal(ear.states, 1);
}

static void test_unasked(void **state)
{
    (void)state;
    ready();
    fake_shout(&fake, "+OK\r\n", 5);
    AWAIT(ear.states == 2);
    assert_string_equal(ear.reason, "an answer that nobody asked for");
    AWAIT(ear.readies == 2);
    fake_shout(&fake, "-ERR you go\r\n", 13);
    AWAIT(ear.states == 4);
    assert_string_equal(ear.reason, "ERR you go");
}

/* Requests that are outstanding at the end are told why, in order, and can't be repeated from there. */
static void test_lost(void **state)
{
    (void)state;
    rule("GET", "");
    ready();
    for (int i = 0; i < 10; i++)
        assert_true(ask(&ear, "GET a"));
    AWAIT(strstr(fake.heard, "GET a\nGET a"));
    fake_hang_up(&fake);
    AWAIT(ear.errors == 10);
    assert_string_equal(ear.error, "connection closed");
    assert_int_equal(ear.answers, 0);
}

static void test_too_much_unsent(void **state)
{
    struct resp_commands commands = { .n = 0 };
    char *value = malloc(65536);
    bool sent = true;
    unsigned n = 0;

    (void)state;
    ready();
    memset(value, 'x', 65536);
    resp_commands_add(&commands,
                      (struct resp_word[]){
                          {"SET",  3    },
                          { "a",   1    },
                          { value, 65536}
    },
                      3);
    while (sent) { /* nobody reads meanwhile */
        sent = redis_send(ear.redis, &commands, on_answer, &ear);
        n += sent;
        assert_true(n < 10000);
    }
    assert_true(n >= 16);
    assert_false(ask(&ear, "GET a"));
    AWAIT(ear.states == 2);
    assert_string_equal(ear.reason, "more than 8 MiB unsent");
    assert_int_equal(ear.errors, n);
    AWAIT(ear.readies == 2);
    resp_commands_free(&commands);
    free(value);
}

/* --- subscribers ---------------------------------------------------------------------------------------- */

#define MESSAGE(channel, text)                                                                               \
    "*3\r\n$7\r\nmessage\r\n$6\r\n" channel "\r\n$2\r\n" text "\r\n",                                        \
        sizeof("*3\r\n$7\r\nmessage\r\n$6\r\n" channel "\r\n$2\r\n" text "\r\n") - 1

static void test_messages(void **state)
{
    (void)state;
    subscribed();
    fake_shout(&fake, MESSAGE("events", "hi"));
    fake_shout(&fake, MESSAGE("others", "no"));
    fake_shout(&fake, MESSAGE("events", "yo"));
    AWAIT(ear.messages == 2);
    assert_string_equal(ear.message, "yo");
    assert_int_equal(ear.states, 1);
}

/* A quiet server is asked whether it is there. */
static void test_quiet(void **state)
{
    (void)state;
    rule("PING", "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    subscribed();
    *fake.heard = '\0';
    AWAIT(strcmp(fake.heard, "PING\nPING\n") == 0);
    assert_int_equal(ear.states, 1);
    fake.rules[0].reply = "";
    AWAIT(ear.states == 2);
    assert_string_equal(ear.reason, "no answer in 500 ms");
}

/* --- freed in the middle -------------------------------------------------------------------------------- */

static void test_freed(void **state)
{
    static const int whens[] = { FREE_IN_READY, FREE_IN_DOWN, FREE_IN_ANSWER, FREE_IN_ERROR };

    (void)state;
    for (size_t i = 0; i < sizeof whens / sizeof *whens; i++) {
        memset(fake.rules, 0, sizeof fake.rules);
        if (whens[i] == FREE_IN_ERROR || whens[i] == FREE_IN_DOWN)
            rule("GET b", NULL);
        open_ear(&ear, url_of("redis://127.0.0.1:%u", fake.port));
        ear.when = whens[i];
        AWAIT(ear.readies == 1);
        if (ear.redis)
            assert_true(ask(&ear, "GET a;GET b") && ask(&ear, "GET b") && ask(&ear, "GET b"));
        AWAIT(!ear.redis);
        assert_true(ear.answers <= 2 && ear.errors <= 1);
    }
    subscribed();
    ear.when = FREE_IN_MESSAGE;
    fake_shout(&fake, MESSAGE("events", "hi"));
    fake_shout(&fake, MESSAGE("events", "yo"));
    AWAIT(!ear.redis);
    assert_int_equal(ear.messages, 1);
}

/* At once, and while a connection is being made. */
static void test_freed_early(void **state)
{
    (void)state;
    for (int turns = 0; turns < 12; turns++) {
        open_ear(&ear, url_of("redis://localhost:%u", fake.port));
        for (int i = 0; i < turns; i++)
            ev_run(loop, EVRUN_NOWAIT);
        redis_free(&ear.redis);
        redis_free(&ear.redis);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_greeting),        TEST(test_refused),
        TEST(test_nameless),        TEST(test_no_server),
        TEST(test_no_name),         TEST(test_no_socket),
        TEST(test_two_addresses),   TEST(test_in_order),
        TEST(test_transaction),     TEST(test_transaction_refused),
        TEST(test_not_sent),        TEST(test_faults),
        TEST(test_cut_anywhere),    TEST(test_late_answer),
        TEST(test_one_at_a_time),   TEST(test_held_up),
        TEST(test_unasked),         TEST(test_lost),
        TEST(test_too_much_unsent), TEST(test_messages),
        TEST(test_quiet),           TEST(test_freed),
        TEST(test_freed_early),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
