/*
 * The keys of an instance: what a resync makes of them, and of what no Weir has written. Verdicts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "counters/keys.h"
#include "counters/verdict.h"

#define WORDS_MAX 64

/* A hash: "field", "value", …, NULL. */
struct hash {
    struct resp reply, words[WORDS_MAX];
};

static struct hash instance, connections, health;
static struct snapshot snapshot;

static struct resp text(const char *of)
{
    return (struct resp){ .type = RESP_TEXT, .text = of, .size = strlen(of) };
}

static void fill(struct hash *hash, const char *const *words)
{
    size_t n = 0;

    for (; words[n]; n++)
        hash->words[n] = text(words[n]);
    hash->reply = (struct resp){ .type = RESP_ARRAY, .n = n, .elements = hash->words };
}

#define FILL(hash, ...) fill(hash, (const char *const[]){ __VA_ARGS__, NULL })

static int setup(void **state)
{
    (void)state;
    FILL(&instance, "schema", "1", "started", "1790000000000", "seq", "17", "sessions", "12", "queued", "3",
         "host", "mx1", "arrival_rate:relays", "3.5", "queued:relays", "3");
    FILL(&connections, "relay1", "8", "relay2", "0");
    FILL(&health, "relay2", "state=up since=1 limit=none found=40 reason=well", "relay1",
         "state=down since=1 limit=none found=unknown reason=connection refused");
    return 0;
}

static bool read_keys(void)
{
    static const struct snapshot nothing;
    bool good = keys_read(&snapshot, "a", &instance.reply, &connections.reply, &health.reply);

    if (!good)
        assert_memory_equal(&snapshot, &nothing, sizeof nothing);
    return good;
}

static void refuse(const char *what)
{
    if (read_keys())
        fail_msg("taken: %s", what);
    (void)setup(NULL);
}

static void test_a_snapshot(void **state)
{
    (void)state;
    assert_true(read_keys());
    assert_string_equal(snapshot.id, "a");
    assert_int_equal(snapshot.started, 1790000000000);
    assert_int_equal(snapshot.seq, 17);
    assert_int_equal(snapshot.sessions, 12);
    assert_int_equal(snapshot.queued, 3);
    assert_false(snapshot.bye);
    assert_int_equal(snapshot.n_rates, 1);
    assert_string_equal(snapshot.rates[0].name, "relays");
    assert_true(snapshot.rates[0].rate == 3.5f);
    assert_int_equal(snapshot.n_held, 2);
    assert_string_equal(snapshot.held[0].name, "relay1");
    assert_int_equal(snapshot.held[0].count, 8);
    assert_int_equal(snapshot.n_limits, 1);
    assert_string_equal(snapshot.limits[0].name, "relay2");
    assert_int_equal(snapshot.limits[0].count, 40);
    assert_int_equal(snapshot.n_down, 1);
    assert_string_equal(snapshot.down[0], "relay1");
    snapshot_clear(&snapshot);
}

/* Limits are looked for by name. */
static void test_limits_are_sorted(void **state)
{
    (void)state;
    FILL(&health, "c", "found=3", "a", "found=none", "d", "found=unknown", "b", "found=2");
    assert_true(read_keys());
    assert_int_equal(snapshot.n_limits, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(snapshot.limits[i].name[0], "abc"[i]);
    assert_int_equal(snapshot.limits[0].count, 0);
    assert_int_equal(snapshot.limits[2].count, 3);
    assert_int_equal(snapshot.n_down, 0);
    snapshot_clear(&snapshot);
    /* Its verdicts may be gone where its counts are not. */
    health.reply.n = 0;
    assert_true(read_keys());
    assert_int_equal(snapshot.n_held, 2);
    assert_int_equal(snapshot.n_limits + snapshot.n_down, 0);
    snapshot_clear(&snapshot);
}

/* A text for people: what it does not say it does not say, and the rest of the instance counts. */
static void test_verdicts_that_say_nothing(void **state)
{
    static const char *const verdicts[] = { "",
                                            " ",
                                            "=",
                                            "down",
                                            "state=",
                                            "state=DOWN found=",
                                            "state=downhill found=-1",
                                            "state=up found=1000001",
                                            "found=9223372036854775807",
                                            "found=99999999999999999999999999999",
                                            "found=1e3",
                                            "found=0x10",
                                            "found= 4",
                                            "found=4x",
                                            "found=nonesuch",
                                            "xstate=down xfound=4",
                                            "state down found 4",
                                            "reason=state=down found=4",
                                            "reason= state=down found=4",
                                            "state=up found=unknown reason=x\nstate=down found=4",
                                            "\xff\xfe\x01 state=\x80" };

    (void)state;
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++) {
        FILL(&health, "relay1", verdicts[i], "", verdicts[i]);
        if (!read_keys() || snapshot.n_down || snapshot.n_limits)
            fail_msg("%s: %zu down, %zu limits", verdicts[i], snapshot.n_down, snapshot.n_limits);
        assert_int_equal(snapshot.n_held, 2);
        snapshot_clear(&snapshot);
    }
}

static void test_verdicts_on_no_backend(void **state)
{
    char name[SNAPSHOT_NAME_MAX + 1];

    (void)state;
    FILL(&health, "", "state=down");
    refuse("a backend without a name that is down");
    FILL(&health, "", "found=4");
    refuse("a limit of a backend without a name");
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    FILL(&health, "relay1", "state=down found=5", name, "state=down");
    refuse("too long a name");
    FILL(&health, "relay1", "state=down");
    health.words[0].size++; /* its NUL */
    refuse("a NUL in a name");
}

static void test_other_types(void **state)
{
    static const enum resp_type types[] = { RESP_STATUS, RESP_ERROR, RESP_INTEGER, RESP_NIL };
    struct hash *const hashes[] = { &instance, &connections, &health };

    (void)state;
    for (size_t h = 0; h < 3; h++) {
        for (size_t t = 0; t < 4; t++) {
            hashes[h]->reply.type = types[t];
            hashes[h]->reply.text = "WRONGTYPE";
            refuse("no hash");
            hashes[h]->words[1].type = types[t];
            refuse("a value of another type");
        }
        hashes[h]->reply.n--;
        refuse("a field without a value");
        hashes[h]->reply.n = 2 * (SNAPSHOT_ENTRIES + 1);
        refuse("more than there may be");
    }
    connections.words[0].type = RESP_NIL;
    refuse("a name of another type");
    health.words[0].type = RESP_NIL;
    refuse("a name of another type");
}

static void test_numbers(void **state)
{
    static const char *const none[] = { "",
                                        "-1",
                                        "-5",
                                        "1e3",
                                        "x",
                                        " 1",
                                        "1 ",
                                        "0x1",
                                        "9223372036854775808",
                                        "18446744073709551616",
                                        "999999999999999999999" };
    char name[sizeof "arrival_rate:" + SNAPSHOT_NAME_MAX] = "";

    (void)state;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        for (size_t field = 1; field < 10; field += 2) {
            instance.words[field] = text(none[i]);
            refuse(none[i]);
        }
        connections.words[3] = text(none[i]);
        refuse(none[i]);
    }
    connections.words[1] = text("1000001");
    refuse("more connections than an instance has");
    instance.words[1] = text("2");
    refuse("another schema");
    instance.words[5] = text("0");
    refuse("a number that no snapshot has");
    for (const char *const *rate = (const char *const[]){ "-1", "nan", "inf", "1e7", "", "1x", NULL }; *rate;
         rate++) {
        instance.words[13] = text(*rate);
        refuse(*rate);
    }
    memset(name, 'x', sizeof name - 1);
    memcpy(name, "arrival_rate:", sizeof "arrival_rate:" - 1);
    instance.words[12] = text(name);
    refuse("a pool's name that is too long");
    instance.words[12].size++; /* its NUL */
    refuse("a NUL in a pool's name");
}

static void test_words(void **state)
{
    static const char verdict[] =
        "state=up since=5 limit=none found=7 pools=a,b reason=limit=9 is what it said";
    char word[32], small[4];

    (void)state;
    assert_true(verdict_word(verdict, "state", word, sizeof word));
    assert_string_equal(word, "up");
    assert_true(verdict_word(verdict, "limit", word, sizeof word));
    assert_string_equal(word, "none");
    assert_true(verdict_word(verdict, "pools", small, sizeof small));
    assert_string_equal(small, "a,b");
    assert_true(verdict_word(verdict, "reason", small, sizeof small));
    assert_string_equal(small, "lim");
    assert_true(verdict_word(verdict, "reason", word, sizeof word));
    assert_string_equal(word, "limit=9 is what it said");
    assert_false(verdict_word(verdict, "lim", word, sizeof word));
    assert_string_equal(word, "");
    assert_false(verdict_word("state=up", "reason", word, sizeof word));
}

/* What is written is what is read. */
static void test_found(void **state)
{
    static const uint32_t founds[] = { 0, 1, 40, SNAPSHOT_COUNT_MAX, UINT32_MAX };
    char number[16], verdict[64];
    uint32_t found;
    bool down;

    (void)state;
    for (size_t i = 0; i < sizeof founds / sizeof *founds; i++) {
        (void)snprintf(verdict, sizeof verdict, "state=%s found=%s", i % 2 ? "down" : "up",
                       verdict_found(founds[i], number));
        verdict_finding(verdict, &down, &found);
        assert_int_equal(found, founds[i]);
        assert_int_equal(down, i % 2);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        TEST(test_a_snapshot),
        TEST(test_limits_are_sorted),
        TEST(test_verdicts_that_say_nothing),
        TEST(test_verdicts_on_no_backend),
        TEST(test_other_types),
        TEST(test_numbers),
        TEST(test_words),
        TEST(test_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
