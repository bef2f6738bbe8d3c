/*
 * How weirctl reads the keys of a farm: from servers that say what they are told to, on the same loop.
 */
#include "admin/weirctl_farm.h"
#include "tests/unit/redis_fixture.h"

#define NOTHING  "*0\r\n"
#define ONE      "*2\r\n$2\r\nx1\r\n$1\r\n1\r\n" /* an instance, and when */
#define INSTANCE "*2\r\n$8\r\nsessions\r\n$1\r\n7\r\n"

static struct fake nodes[2];
static struct client client;

static void rule(struct fake *fake, const char *command, const char *reply)
{
    size_t n = 0;

    while (fake->rules[n].command)
        n++;
    fake->rules[n] = (struct rule){ command, reply };
}

/* What the farm's keys hold, but for what stands before. */
static void fill(struct fake *fake)
{
    rule(fake, "ZRANGE weir:{main}:instances", ONE);
    rule(fake, "ZRANGE", NOTHING);
    rule(fake, "HGETALL weir:{main}:instance:x1", INSTANCE);
    rule(fake, "HGETALL", NOTHING);
}

static int setup(void **state)
{
    (void)state;
    loop = ev_loop_new(0);
    memset(nodes, 0, sizeof nodes);
    for (size_t i = 0; i < 2; i++)
        fake_start(&nodes[i]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (client.farm)
        client.farm->loop = NULL; /* the test's */
    farm_close(&client);
    for (size_t i = 0; i < 2; i++)
        fake_stop(&nodes[i]);
    ev_loop_destroy(loop);
    return 0;
}

static void open_farm(const char *text)
{
    struct redis_url url;
    const char *error;

    memset(&client, 0, sizeof client);
    client.timeout = 10000;
    assert_true(redis_url_parse(text, &url, &error));
    assert_true(farm_open(&client, &url, "main", ""));
    ev_loop_destroy(client.farm->loop);
    client.farm->loop = loop;
}

/* Sessions of the farm; -1: no answer, -2: refused. */
static int sessions(void)
{
    json_t *answer = farm_ask(&client, json_pack("{s:s}", "command", "status"));
    const json_t *status = answer ? json_object_get(answer, "result") : NULL;
    int n = !answer ? -1 : !status ? -2 : (int)show_number(status, "sessions");

    json_decref(answer);
    return n;
}

static void test_read(void **state)
{
    (void)state;
    fill(&nodes[0]);
    open_farm(url_of("redis://127.0.0.1:%u", nodes[0].port));
    assert_int_equal(sessions(), 7);
}

/* The slot moves between two answers. What was asked before is no answer to what is asked later, and a part
 * of the keys is not the whole. */
static void test_moved_in_between(void **state)
{
    char moved[64];

    (void)state;
    (void)snprintf(moved, sizeof moved, "-MOVED 1 127.0.0.1:%u\r\n", nodes[1].port);
    rule(&nodes[0], "HGETALL weir:{main}:health:x1", moved);
    fill(&nodes[0]);
    fill(&nodes[1]);
    open_farm(url_of("cluster://127.0.0.1:%u", nodes[0].port));
    assert_int_equal(sessions(), -1);
    assert_string_equal(client.error, "the slot has moved");
    assert_int_equal(sessions(), 7);
    assert_int_equal(nodes[1].accepted, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_moved_in_between, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
