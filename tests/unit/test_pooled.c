/* The replies of the others: each counts once, and what can't be is not believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "counters/counters_internal.h"

static struct config_redis redis = { .lease = 3000 };
static int64_t now;
static const char *names[] = { "r1", "r2" };
static struct counted counted[2];
static struct counters counters;
static struct backend_replies own[2], heard[2];

static size_t which(const struct backend *backend)
{
    return backend == counted[0].backend ? 0 : 1;
}

static bool tell(void *arg, const struct backend *backend, struct backend_replies *totals)
{
    (void)arg;
    *totals = own[which(backend)];
    return totals->replies != 77; /* nobody needs them */
}

static void hear(void *arg, struct backend *backend, const struct backend_replies *more)
{
    struct backend_replies *sum = &heard[which(backend)];

    (void)arg;
    if (!more) {
        *sum = (struct backend_replies){ .replies = UINT64_MAX };
        return;
    }
    sum->replies += more->replies;
    sum->milliseconds += more->milliseconds;
    sum->squares += more->squares;
}

static int begin(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++)
        counted[i] = (struct counted){ .backend = backend_create(names[i]) };
    counters = (struct counters){
        .ops = {.replies = tell, .hear_replies = hear},
        .config = &redis,
        .n = 2,
        .n_told = 2,
        .counted = counted,
        .names = names,
    };
    now = 1000;
    view_init(&counters.view, 3000, 1, now);
    view_connected(&counters.view, now);
    memset(own, 0, sizeof own);
    memset(heard, 0, sizeof heard);
    return 0;
}

static int end(void **state)
{
    (void)state;
    view_clear(&counters.view);
    for (size_t i = 0; i < 2; i++)
        backend_release(&counted[i].backend);
    return 0;
}

/* As listen.c takes it. */
static void take(const char *id, unsigned started, unsigned seq, const char *replies)
{
    struct snapshot snapshot;
    bool other_schema;
    char text[512];

    (void)snprintf(text, sizeof text,
                   "{\"schema\":1,\"id\":\"%s\",\"started\":%u,\"seq\":%u,\"sessions\":0,\"queued\":0%s%s%s}",
                   id, started, seq, replies ? ",\"replies\":{" : "", replies ? replies : "",
                   replies ? "}" : "");
    assert_true(snapshot_parse(&snapshot, text, strlen(text), &other_schema));
    pooled_take(&counters, &snapshot, now);
    (void)view_take(&counters.view, &snapshot, now);
    snapshot_clear(&snapshot);
}

static void expect(size_t i, uint64_t replies, uint64_t milliseconds, uint64_t squares)
{
    assert_int_equal(heard[i].replies, replies);
    assert_int_equal(heard[i].milliseconds, milliseconds);
    assert_int_equal(heard[i].squares, squares);
}

static void test_each_counts_once(void **state)
{
    (void)state;
    take("a", 1, 1, "\"r1\":[100,1000,10000]"); /* what was before one heard of it is not known by its time */
    expect(0, 0, 0, 0);
    take("a", 1, 2, "\"r1\":[103,1060,11200],\"r2\":[1,20,400],\"r3\":[5,5,5]");
    expect(0, 3, 60, 1200);
    expect(1, 0, 0, 0);                         /* its first are not of this moment */
    take("a", 1, 2, "\"r1\":[103,1060,11200]"); /* said twice */
    take("a", 1, 1, "\"r1\":[200,2000,20000]"); /* old */
    expect(0, 3, 60, 1200);
    take("a", 1, 3, NULL);
    take("a", 1, 5, "\"r1\":[104,1070,11300]"); /* one was lost */
    expect(0, 4, 70, 1300);
    take("b", 1, 1, "\"r1\":[10,10,10]");
    take("b", 1, 2, "\"r1\":[11,11,11]");
    expect(0, 5, 71, 1301);
}

static void test_not_believed(void **state)
{
    (void)state;
    take("a", 1, 1, "\"r1\":[100,1000,10000]");
    take("a", 1, 2, "\"r1\":[99,1001,10001]"); /* they never fall */
    take("a", 1, 3, "\"r1\":[100,1000,10001]");
    take("a", 1, 4, "\"r1\":[101,1001,10000]");
    take("a", 2, 1, "\"r1\":[150,1500,15000]"); /* begun anew */
    take("a", 2, 2, "\"r1\":[1000151,1501,15001]");
    take("a", 2, 3, "\"r1\":[1000152,3601502,15001]");
    expect(0, 0, 0, 0);
    take("a", 2, 4, "\"r1\":[1000153,3601503,15002]");
    expect(0, 1, 1, 1);
    take("a", 2, 5, "\"r1\":[1000154,3602503,15002]"); /* no such squares */
    expect(0, 1, 1, 1);
}

static void test_lost(void **state)
{
    (void)state;
    pooled_lose(&counters);
    assert_true(heard[0].replies == UINT64_MAX && heard[1].replies == UINT64_MAX);
}

/* Redis was away: what has come meanwhile did not come in one moment. */
static void test_long_ago(void **state)
{
    (void)state;
    take("a", 1, 1, "\"r1\":[100,1000,10000]");
    now += 1500;
    take("a", 1, 2, NULL);
    now += 1499;
    take("a", 1, 3, "\"r1\":[101,1001,10001]");
    expect(0, 1, 1, 1);
    now += 2000;
    take("a", 1, 4, NULL);
    now += 1000;
    take("a", 1, 5, "\"r1\":[201,2001,20001]");
    expect(0, 1, 1, 1);
    take("a", 1, 6, "\"r1\":[202,2002,20002]");
    expect(0, 2, 2, 2);
}

static void test_not_in_each(void **state)
{
    struct snapshot snapshot = { 0 };

    (void)state;
    own[0] = (struct backend_replies){ .replies = 7, .milliseconds = 70, .squares = 700 };
    pooled_add(&counters, &snapshot, 1000);
    assert_int_equal(snapshot.n_replies, 1); /* of r2 there are none */
    assert_string_equal(snapshot.replies[0].name, "r1");
    assert_int_equal(snapshot.replies[0].totals.milliseconds, 70);
    free(snapshot.replies);
    snapshot = (struct snapshot){ 0 };
    pooled_add(&counters, &snapshot, 1249);
    assert_int_equal(snapshot.n_replies, 0);
    own[0].replies = 77;
    own[1] = (struct backend_replies){ .replies = 1, .squares = SNAPSHOT_TOTAL_MAX };
    pooled_add(&counters, &snapshot, 1250);
    assert_int_equal(snapshot.n_replies, 1);
    assert_string_equal(snapshot.replies[0].name, "r2");
    free(snapshot.replies);
    snapshot = (struct snapshot){ 0 };
    own[1].squares++; /* nobody would read it */
    pooled_add(&counters, &snapshot, 1500);
    assert_int_equal(snapshot.n_replies, 0);
    free(snapshot.replies);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_counts_once, begin, end),
        cmocka_unit_test_setup_teardown(test_not_believed, begin, end),
        cmocka_unit_test_setup_teardown(test_lost, begin, end),
        cmocka_unit_test_setup_teardown(test_long_ago, begin, end),
        cmocka_unit_test_setup_teardown(test_not_in_each, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
