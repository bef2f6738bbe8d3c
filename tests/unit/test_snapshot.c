/*
 * A snapshot: there and back, and all that is none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "counters/snapshot.h"

static struct snapshot snapshot;
static bool other_schema;

static bool parse(const char *text)
{
    return snapshot_parse(&snapshot, text, strlen(text), &other_schema);
}

static void refuse_octets(const char *text, size_t size)
{
    static const struct snapshot nothing;

    if (snapshot_parse(&snapshot, text, size, &other_schema))
        fail_msg("taken: %.200s", text);
    assert_false(other_schema);
    assert_memory_equal(&snapshot, &nothing, sizeof nothing);
}

static void refuse(const char *text)
{
    refuse_octets(text, strlen(text));
}

/* A good one with `more` in it, which is to make it a bad one. */
static const char *with(const char *more)
{
    static char text[2048];

    (void)snprintf(text, sizeof text,
                   "{\"schema\":1,\"id\":\"a\",\"started\":1,\"seq\":1,\"sessions\":0,\"queued\":0,%s}",
                   more);
    return text;
}

static void test_round_trip(void **state)
{
    char relay[] = "relay1", idle[] = "idle", utf8[] = "b\xc3\xbc", pool[] = "relays", slow[] = "slow";
    struct snapshot_count held[] = {
        {relay, 8                 },
        { idle, 0                 },
        { utf8, SNAPSHOT_COUNT_MAX}
    };
    struct snapshot_rate rates[] = {
        {pool,  3.5f},
        { slow, 0   }
    };
    char dead[] = "relay3", *down[] = { dead };
    struct snapshot_replies replies[] = {
        {dead,  { 3, 60, 1400 }                              },
        { utf8, { SNAPSHOT_TOTAL_MAX, 0, SNAPSHOT_TOTAL_MAX }}
    };
    struct snapshot out = { .id = "mx1-0badcafe",
                            .started = 1790000000000,
                            .seq = 17,
                            .sessions = 12,
                            .queued = 3,
                            .n_held = 3,
                            .n_rates = 2,
                            .n_limits = 3,
                            .n_down = 1,
                            .n_replies = 2,
                            .held = held,
                            .limits = held,
                            .down = down,
                            .rates = rates,
                            .replies = replies };
    char *text = snapshot_format(&out);

    (void)state;
    assert_non_null(text);
    assert_non_null(
        strstr(text, "\"held\":{\"relay1\":8,\"b\xc3\xbc\":1000000}")); /* only those that hold something */
    assert_true(parse(text));
    assert_string_equal(snapshot.id, out.id);
    assert_int_equal(snapshot.started, out.started);
    assert_int_equal(snapshot.seq, 17);
    assert_int_equal(snapshot.sessions, 12);
    assert_int_equal(snapshot.queued, 3);
    assert_false(snapshot.bye);
    assert_int_equal(snapshot.n_held, 2);
    assert_string_equal(snapshot.held[0].name, "relay1");
    assert_int_equal(snapshot.held[0].count, 8);
    assert_string_equal(snapshot.held[1].name, utf8);
    assert_int_equal(snapshot.held[1].count, SNAPSHOT_COUNT_MAX);
    assert_int_equal(snapshot.n_rates, 2);
    assert_string_equal(snapshot.rates[0].name, "relays");
    assert_true(snapshot.rates[0].rate == 3.5f && snapshot.rates[1].rate == 0);
    assert_int_equal(snapshot.n_limits, 3);
    assert_string_equal(snapshot.limits[0].name, utf8); /* by name */
    assert_string_equal(snapshot.limits[1].name, "idle");
    assert_int_equal(snapshot.limits[1].count, 0);
    assert_int_equal(snapshot.n_down, 1);
    assert_string_equal(snapshot.down[0], "relay3");
    assert_int_equal(snapshot.n_replies, 2);
    assert_true(snapshot_replies_of(&snapshot, "relay3")->totals.milliseconds == 60);
    assert_true(snapshot_replies_of(&snapshot, "relay3")->totals.squares == 1400);
    assert_true(snapshot_replies_of(&snapshot, utf8)->totals.replies == SNAPSHOT_TOTAL_MAX);
    assert_null(snapshot_replies_of(&snapshot, "relay2"));
    snapshot_clear(&snapshot);
    free(text);
}

static void test_bye(void **state)
{
    struct snapshot out = { .id = "a", .started = 5, .seq = 2, .bye = true };
    char *text = snapshot_format(&out);

    (void)state;
    assert_string_equal(text, "{\"schema\":1,\"id\":\"a\",\"started\":5,\"seq\":2,\"bye\":true}");
    assert_true(parse(text));
    assert_true(snapshot.bye);
    assert_int_equal(snapshot.n_held + snapshot.n_rates, 0);
    snapshot_clear(&snapshot);
    free(text);
    /* Only true is. */
    assert_true(parse(with("\"bye\":false,\"held\":{\"r\":1}")));
    assert_false(snapshot.bye);
    assert_int_equal(snapshot.n_held, 1);
    snapshot_clear(&snapshot);
}

/* A name that no JSON can carry is left out, and the rest goes. */
static void test_a_name_that_is_no_utf8(void **state)
{
    char bad[] = "caf\xe9", good[] = "relay";
    struct snapshot_count held[] = {
        {bad,   1},
        { good, 2}
    };
    struct snapshot out = { .id = "a", .started = 1, .seq = 1, .n_held = 2, .held = held };
    char *text = snapshot_format(&out);

    (void)state;
    assert_true(parse(text));
    assert_int_equal(snapshot.n_held, 1);
    assert_string_equal(snapshot.held[0].name, "relay");
    snapshot_clear(&snapshot);
    free(text);
}

static void test_what_may_be_missing(void **state)
{
    (void)state;
    assert_true(parse(with("\"unknown\":[1,{}]")));
    assert_int_equal(snapshot.n_held + snapshot.n_rates, 0);
    snapshot_clear(&snapshot);
    assert_true(parse(with("\"held\":{},\"rates\":{\"p\":1}"))); /* an integer is a number */
    assert_true(snapshot.rates[0].rate == 1);
    snapshot_clear(&snapshot);
}

static void test_malformed(void **state)
{
    static const char *const texts[] = {
        "",
        " ",
        "{",
        "null",
        "1",
        "\"a\"",
        "[]",
        "{}",
        "{\"admin\":1}",
        "{\"schema\":\"1\"}",
        "{\"schema\":1.0}",
        "{\"schema\":-1}",
        "{\"schema\":1}",
        "{\"schema\":1,\"id\":\"a\"}",
        "{\"schema\":1,\"id\":\"a\",\"started\":1}",
        "{\"schema\":1,\"id\":\"a\",\"started\":1,\"seq\":1}",
        "{\"schema\":1,\"id\":\"a\",\"started\":1,\"seq\":-1,\"sessions\":0,\"queued\":0}",
        "{\"schema\":1,\"id\":\"a\",\"started\":\"1\",\"seq\":1,\"sessions\":0,\"queued\":0}",
        "{\"schema\":1,\"id\":\"a\",\"started\":9223372036854775808,\"seq\":1,\"sessions\":0,\"queued\":0}",
        "{\"schema\":1,\"id\":\"a\",\"started\":1,\"seq\":1,\"sessions\":-5,\"queued\":0}",
        "{\"schema\":1,\"id\":\"a\",\"started\":1,\"seq\":1,\"sessions\":0,\"queued\":null}",
        "{\"schema\":1,\"id\":7,\"started\":1,\"seq\":1,\"sessions\":0,\"queued\":0}",
        "{\"schema\":1,\"id\":\"\",\"started\":1,\"seq\":1,\"sessions\":0,\"queued\":0}",
        "{\"schema\":1,\"id\":\"a b\",\"started\":1,\"seq\":1,\"sessions\":0,\"queued\":0}",
        "{\"schema\":1,\"id\":\"a\\u0000b\",\"started\":1,\"seq\":1,\"sessions\":0,\"queued\":0}",
        "{\"schema\":1,\"id\":\"a:b\",\"started\":1,\"seq\":1,\"sessions\":0,\"queued\":0}",
        "{\"schema\":1,\"id\":\"a\",\"started\":1,\"seq\":1,\"sessions\":0,\"queued\":0} x",
        "{\"schema\":1,\"id\":\"a\",\"id\":\"b\",\"started\":1,\"seq\":1,\"sessions\":0,\"queued\":0}",
    };
    static const char *const more[] = {
        "\"held\":[]",
        "\"held\":\"hello\"",
        "\"held\":null",
        "\"held\":{\"r\":-5}",
        "\"held\":{\"r\":9223372036854775807}",
        "\"held\":{\"r\":9223372036854775808}",
        "\"held\":{\"r\":18446744073709551616}",
        "\"held\":{\"r\":1000001}",
        "\"held\":{\"r\":1.5}",
        "\"held\":{\"r\":1e3}",
        "\"held\":{\"r\":\"1\"}",
        "\"held\":{\"r\":[1]}",
        "\"held\":{\"r\":true}",
        "\"held\":{\"\":1}",
        "\"held\":{\"r\":1,\"r\":2}",
        "\"held\":{\"r\":1},\"held\":{\"r\":2}",
        "\"held\":{\"ok\":1,\"r\":-1}",
        "\"held\":{\"a\\u0000b\":1}",
        "\"held\":{\"\xff\":1}",
        "\"held\":{\"\xed\xa0\x80\":1}",
        "\"rates\":[]",
        "\"limits\":[]",
        "\"limits\":{\"r\":-1}",
        "\"limits\":{\"r\":1000001}",
        "\"replies\":[]",
        "\"replies\":{\"r\":1}",
        "\"replies\":{\"r\":[1,2]}",
        "\"replies\":{\"r\":[1,2,3,4]}",
        "\"replies\":{\"r\":[1,-2,3]}",
        "\"replies\":{\"r\":[1,2,9007199254740993]}",
        "\"replies\":{\"r\":[1,2.5,3]}",
        "\"replies\":{\"ok\":[1,2,3],\"\":[1,2,3]}",
        "\"down\":{}",
        "\"down\":\"r\"",
        "\"down\":[1]",
        "\"down\":[\"r\",null]",
        "\"down\":[\"\"]",
        "\"down\":[[\"r\"]]",
        "\"rates\":{\"p\":-0.1}",
        "\"rates\":{\"p\":1000001}",
        "\"rates\":{\"p\":1e400}",
        "\"rates\":{\"p\":NaN}",
        "\"rates\":{\"p\":null}",
        "\"rates\":{\"p\":\"1\"}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        refuse(texts[i]);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        refuse(with(more[i]));
    refuse_octets("{\"schema\":1\0}", 13);
}

static void test_another_schema(void **state)
{
    (void)state;
    assert_false(parse("{\"schema\":2,\"id\":{}}"));
    assert_true(other_schema);
    assert_false(parse("{\"schema\":0}"));
    assert_true(other_schema);
}

static void test_bounds(void **state)
{
    static const int entries[] = { SNAPSHOT_ENTRIES, SNAPSHOT_ENTRIES + 1, 100000 };
    char *text = malloc(4 << 20), name[SNAPSHOT_NAME_MAX + 1], more[SNAPSHOT_NAME_MAX + 64];
    size_t at;

    (void)state;
    /* Names. */
    memset(name, 'n', sizeof name);
    name[SNAPSHOT_NAME_MAX - 1] = '\0';
    (void)snprintf(more, sizeof more, "\"held\":{\"%s\":1}", name);
    assert_true(parse(with(more)));
    snapshot_clear(&snapshot);
    name[SNAPSHOT_NAME_MAX - 1] = 'n';
    name[SNAPSHOT_NAME_MAX] = '\0';
    (void)snprintf(more, sizeof more, "\"held\":{\"%s\":1}", name);
    refuse(with(more));
    /* Entries: as many as may be, one more, and 100,000. */
    for (size_t k = 0; k < sizeof entries / sizeof *entries; k++) {
        int n = entries[k];

        at = (size_t)sprintf(text, "%.*s\"held\":{\"r\":0", (int)(strlen(with("")) - 1), with(""));
        for (int i = 1; i < n; i++)
            at += (size_t)sprintf(text + at, ",\"%d\":1", i);
        memcpy(text + at, "}}", 3);
        if (n > SNAPSHOT_ENTRIES) {
            refuse(text);
        } else {
            assert_true(parse(text));
            assert_int_equal(snapshot.n_held, n);
            snapshot_clear(&snapshot);
        }
    }
    /* Depth. */
    memset(text, '[', 100000);
    refuse_octets(text, 100000);
    at = 0;
    for (int i = 0; i < 20000; i++)
        at += (size_t)sprintf(text + at, "{\"a\":");
    refuse_octets(text, at);
    /* Size: blanks do no harm up to it. */
    at = strlen(with("\"held\":{}"));
    memcpy(text, with("\"held\":{}"), at);
    memset(text + at, ' ', SNAPSHOT_SIZE_MAX + 1 - at);
    assert_true(snapshot_parse(&snapshot, text, SNAPSHOT_SIZE_MAX, &other_schema));
    snapshot_clear(&snapshot);
    refuse_octets(text, SNAPSHOT_SIZE_MAX + 1);
    free(text);
}

static void test_ids(void **state)
{
    char id[SNAPSHOT_ID_MAX + 1];

    (void)state;
    memset(id, 'a', sizeof id);
    assert_true(snapshot_id_valid(id, SNAPSHOT_ID_MAX - 1));
    assert_false(snapshot_id_valid(id, SNAPSHOT_ID_MAX));
    assert_false(snapshot_id_valid("", 0));
    assert_true(snapshot_id_valid("Mx-1.example_2", 14));
    assert_false(snapshot_id_valid("a\0b", 3));
    assert_false(snapshot_id_valid("a}b", 3));
    assert_false(snapshot_id_valid("\xc3\xbc", 2));
}

static void test_order(void **state)
{
    (void)state;
    assert_true(snapshot_is_newer(1, 2, 1, 1));
    assert_false(snapshot_is_newer(1, 1, 1, 1));
    assert_false(snapshot_is_newer(1, 1, 1, 2));
    assert_true(snapshot_is_newer(2, 1, 1, 99));
    assert_false(snapshot_is_newer(1, 99, 2, 1));
}

/* As many backends as are told, with the longest names that they can have, and the most to say of each. */
static void test_the_largest(void **state)
{
    enum { NAME = 64 + 1 + 45 }; /* name@address */
    static char names[SNAPSHOT_ENTRIES][NAME + 1], *down[SNAPSHOT_ENTRIES];
    static struct snapshot_count counts[SNAPSHOT_ENTRIES];
    static struct snapshot_replies replies[SNAPSHOT_ENTRIES];
    struct snapshot out = { .id = "a",
                            .n_held = SNAPSHOT_ENTRIES,
                            .n_limits = SNAPSHOT_ENTRIES,
                            .n_down = SNAPSHOT_ENTRIES,
                            .n_replies = SNAPSHOT_ENTRIES,
                            .held = counts,
                            .limits = counts,
                            .down = down,
                            .replies = replies };
    char *text;

    (void)state;
    for (int i = 0; i < SNAPSHOT_ENTRIES; i++) {
        (void)snprintf(names[i], sizeof names[i], "%0*d", NAME, i);
        down[i] = names[i];
        counts[i] = (struct snapshot_count){ names[i], SNAPSHOT_COUNT_MAX };
        replies[i] = (struct snapshot_replies){
            names[i], {SNAPSHOT_TOTAL_MAX, SNAPSHOT_TOTAL_MAX, SNAPSHOT_TOTAL_MAX}
        };
    }
    text = snapshot_format(&out);
    assert_true(parse(text));
    assert_int_equal(snapshot.n_held, SNAPSHOT_ENTRIES);
    assert_int_equal(snapshot.n_replies, SNAPSHOT_ENTRIES);
    snapshot_clear(&snapshot);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_bye),
        cmocka_unit_test(test_a_name_that_is_no_utf8),
        cmocka_unit_test(test_what_may_be_missing),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_another_schema),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_the_largest),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
