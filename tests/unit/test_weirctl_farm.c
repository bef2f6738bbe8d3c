/*
 * What the keys of a farm come to. The keys are given as JSON, as they are read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "admin/weirctl_farm.h"

#define FIGURES "limit=none admin=ready weight=4 configured=4 max=200 address=10.0.0.1:25 pools=relays "

static json_t *keys;

static int teardown(void **state)
{
    (void)state;
    json_decref(keys);
    keys = NULL;
    return 0;
}

static void begin(void)
{
    keys = json_pack("{s:[], s:{}, s:{}}", "instances", "admin", "totals");
}

/* An instance that lives and has this to say of relay1. */
static json_t *add(const char *id, const char *connections, const char *verdict)
{
    json_t *instance =
        json_pack("{s:s, s:i, s:{s:s}, s:{s:s}, s:{s:s}, s:{}}", "id", id, "last", 0, "instance", "pid", "1",
                  "connections", "relay1", connections, "health", "relay1", verdict, "stats");

    json_array_append_new(json_object_get(keys, "instances"), instance);
    return instance;
}

static void say(const char *field, const char *value)
{
    json_object_set_new(json_object_get(keys, "admin"), field, json_string(value));
}

/* Its `name` as text: what is no text, as JSON. */
static const char *value_of(size_t at, const char *name)
{
    static char text[512];
    json_t *backends = farm_backends(keys), *value = json_object_get(json_array_get(backends, at), name);
    char *json = value && !json_is_string(value) ? json_dumps(value, JSON_ENCODE_ANY) : NULL;

    (void)snprintf(text, sizeof text, "%s", json ? json : value ? json_string_value(value) : "(missing)");
    free(json);
    json_decref(backends);
    return text;
}

static void test_agree(void **state)
{
    (void)state;
    begin();
    add("a", "3", "state=up since=1000 " FIGURES "reason=check passed");
    add("b", "4", "state=up since=5000 " FIGURES "reason=check passed");
    assert_string_equal(value_of(0, "state"), "up");
    assert_string_equal(value_of(0, "connections"), "7");
    assert_string_equal(value_of(0, "reason"), "check passed");
    assert_string_equal(value_of(0, "disagreement"), "false");
    assert_string_equal(value_of(0, "since"), "5");
    assert_string_equal(value_of(0, "limit"), "null");
    assert_string_equal(value_of(0, "max_connections"), "200");
    assert_string_equal(value_of(0, "address"), "10.0.0.1:25");
    assert_string_equal(value_of(0, "pool"), "relays");
}

/* Most voices; of two halves the worse. */
static void test_disagree(void **state)
{
    (void)state;
    begin();
    add("a", "1", "state=up since=1 limit=30 reason=well");
    add("b", "1", "state=down since=2 limit=20 reason=connection refused");
    assert_string_equal(value_of(0, "state"), "down");
    assert_string_equal(value_of(0, "reason"), "1 of 2 say otherwise: up at a: well");
    assert_string_equal(value_of(0, "limit"), "20");
    add("c", "1", "state=up since=3 reason=well");
    assert_string_equal(value_of(0, "state"), "up");
    assert_string_equal(value_of(0, "disagreement"), "true");
    assert_string_equal(value_of(0, "reason"), "1 of 3 say otherwise: down at b: connection refused");
}

static void test_dead(void **state)
{
    json_t *dead;

    (void)state;
    begin();
    add("a", "1", "state=up since=1 reason=");
    dead = add("b", "9", "state=down since=1 reason=");
    json_object_clear(json_object_get(dead, "instance"));
    json_object_set_new(json_object_get(dead, "stats"), "relay1.delivered", json_string("5"));
    json_object_set_new(json_object_get(keys, "totals"), "relay1.delivered", json_string("7"));
    assert_string_equal(value_of(0, "connections"), "1");
    assert_string_equal(value_of(0, "disagreement"), "false");
    assert_string_equal(value_of(0, "delivered"), "12");
}

static void test_words(void **state)
{
    static const char *const useless[] = { "explode", "", "ready", "DRAIN" };

    (void)state;
    begin();
    add("a", "0", "state=up since=1 admin=ready weight=4 reason=");
    assert_string_equal(value_of(0, "admin"), "ready");
    assert_string_equal(value_of(0, "admin_by"), "null");
    say("relay1", "drain");
    say("relay1.weight", "9");
    assert_string_equal(value_of(0, "admin"), "drain");
    assert_string_equal(value_of(0, "admin_by"), "farm");
    assert_string_equal(value_of(0, "weight"), "9");
    for (size_t i = 0; i < sizeof useless / sizeof *useless; i++) {
        say("relay1", useless[i]);
        assert_string_equal(value_of(0, "admin"), "ready");
    }
    say("relay1.weight", "1001");
    assert_string_equal(value_of(0, "weight"), "4");
}

/* What was said of a group holds for each of it, unless more was said of the one. */
static void test_group(void **state)
{
    const char *word;
    json_int_t weight;

    (void)state;
    begin();
    say("relay", "drain");
    say("relay@10.0.0.1", "maint");
    say("relay.weight", "3");
    farm_words(keys, "relay@10.0.0.1", &word, &weight);
    assert_string_equal(word, "maint");
    assert_int_equal(weight, 3);
    farm_words(keys, "relay@10.0.0.2", &word, &weight);
    assert_string_equal(word, "drain");
    farm_words(keys, "relay2", &word, &weight);
    assert_string_equal(word, "");
    assert_int_equal(weight, -1);
}

static void test_hostile(void **state)
{
    static const char *const counts[] = { "-1", "", "x", "1e3", "9223372036854775808", " 1", "1 ", "0x1" };
    static const char *const verdicts[] = { "",  "state=", "state=flying", "up", "reason=state=up",
                                            "=", "state" };
    char name[2000];
    json_t *instance;

    (void)state;
    begin();
    instance =
        add("a", "0", "state=up since=-1 limit=x weight=-3 max=99999999999999999999 pools=,, reason=r");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        json_object_set_new(json_object_get(instance, "connections"), "relay1", json_string(counts[i]));
        assert_string_equal(value_of(0, "connections"), "0");
    }
    assert_string_equal(value_of(0, "max_connections"), "0");
    assert_string_equal(value_of(0, "limit"), "null");
    assert_string_equal(value_of(0, "pool"), "");
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++) {
        json_object_set_new(json_object_get(instance, "health"), "relay1", json_string(verdicts[i]));
        assert_string_equal(value_of(0, "state"), "init");
    }
    /* Sums end where numbers do. */
    for (int i = 0; i < 12; i++)
        add("b", "999999999999999999", "");
    assert_string_equal(value_of(0, "connections"), "9223372036854775807");
    /* A name that no Weir has. */
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    json_object_set_new(json_object_get(instance, "health"), name, json_string("state=up reason="));
    assert_string_equal(value_of(1, "name"), "(missing)");
}

/* Who waits, by pool, at those that live; what is no number is nobody. */
static void test_waiting(void **state)
{
    static const char *const counts[][2] = {
        {"3",   "3"},
        { "0",  "0"},
        { "-1", "0"},
        { "x",  "0"},
        { "",   "0"}
    };
    const struct farm_link link = { .farm = "main", .server = "redis://r:6379" };
    json_t *first, *second;

    (void)state;
    begin();
    first = add("a", "2", "state=up since=1 admin=ready weight=1 pools=bulk,relays reason=");
    second = add("b", "2", "state=up since=1 admin=ready weight=1 pools=bulk,relays reason=");
    json_object_set_new(json_object_get(second, "instance"), "queued:bulk", json_string("4"));
    json_object_set_new(json_object_get(second, "instance"), "queued:relays2", json_string("9"));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        json_t *status, *pools;

        json_object_set_new(json_object_get(first, "instance"), "queued:relays", json_string(counts[i][0]));
        status = farm_status(keys, &link);
        pools = json_object_get(status, "pools");
        assert_int_equal(show_number(json_array_get(pools, 0), "queued"), 4);
        assert_int_equal(show_number(json_array_get(pools, 1), "queued"), atoi(counts[i][1]));
        json_decref(status);
    }
}

static void test_pools(void **state)
{
    json_t *status;
    const struct farm_link link = { .farm = "main", .server = "redis://r:6379" };

    (void)state;
    begin();
    add("a", "2", "state=up since=1 admin=ready weight=1 pools=bulk,relays reason=");
    assert_string_equal(value_of(0, "pool"), "bulk");
    assert_string_equal(value_of(1, "pool"), "relays");
    /* One that it has in no pool any more. */
    json_object_set_new(json_object_get(json_array_get(json_object_get(keys, "instances"), 0), "connections"),
                        "left", json_string("5"));
    assert_string_equal(value_of(0, "name"), "left");
    assert_string_equal(value_of(0, "connections"), "5");
    status = farm_status(keys, &link);
    assert_int_equal(json_array_size(json_object_get(status, "pools")), 2);
    assert_int_equal(show_number(status, "instances"), 1);
    assert_true(json_is_true(json_object_get(status, "ready")));
    json_decref(status);
    say("relay1", "maint");
    status = farm_status(keys, &link);
    assert_true(json_is_false(json_object_get(status, "ready")));
    json_decref(status);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_agree), TEST(test_disagree), TEST(test_dead),  TEST(test_words),
        TEST(test_group), TEST(test_hostile),  TEST(test_pools), TEST(test_waiting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
