/*
 * The dialogue of a check as tables: what the relay says, what the probe says, and the verdict. Every row is
 * played whole and octet by octet, with the same outcome.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "smtp/probe.h"
#include "smtp/reply.h"

#define TURNS 4

struct row {
    const char *name;
    bool ehlo;
    const char *relay[TURNS]; /* what it says at each turn; NULL: it closes */
    const char *probe;        /* all that was sent */
    enum smtp_probe_verdict verdict;
    const char *reason;
    uint32_t flags; /* known capabilities; UINT32_MAX: not known */
    uint64_t size;
};

#define UNKNOWN UINT32_MAX
#define EHLO    "EHLO weir.test\r\n"
#define HELO    "HELO weir.test\r\n"
#define QUIT    "QUIT\r\n"

/* A row, or a step, a line: */
/* clang-format off */
static const struct row rows[] = {
    { "banner alone", false, { "220 hi\r\n", "221 bye\r\n" },
      QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0 },
    { "banner of many lines", false, { "220-one\r\n220-two\r\n220 three\r\n", "221 bye\r\n" },
      QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0 },
    { "EHLO", true, { "220 hi\r\n", "250-hi\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 PIPELINING\r\n", "221 bye\r\n" },
      EHLO QUIT, SMTP_PROBE_PASSED, "", SMTP_CAP_SIZE | SMTP_CAP_8BITMIME | SMTP_CAP_PIPELINING, 1000 },
    { "EHLO not known", true, { "220 hi\r\n", "502 what\r\n", "250 hi\r\n", "221 bye\r\n" },
      EHLO HELO QUIT, SMTP_PROBE_PASSED, "", 0, 0 },
    { "neither is known", true, { "220 hi\r\n", "500 what\r\n", "500 what\r\n", "221 bye\r\n" },
      EHLO HELO QUIT, SMTP_PROBE_FAILED, "HELO 500 what", UNKNOWN, 0 },
    { "banner 554", true, { "554-no\r\n554 5.3.2 no service\r\n", "221 bye\r\n" },
      QUIT, SMTP_PROBE_FAILED, "banner 554 5.3.2 no service", UNKNOWN, 0 },
    { "banner 554 without a text", true, { "554\r\n", "221 bye\r\n" },
      QUIT, SMTP_PROBE_FAILED, "banner 554", UNKNOWN, 0 },
    { "banner 421 closes without a word", true, { "421 too many connections\r\n" },
      "", SMTP_PROBE_FAILED, "banner 421 too many connections", UNKNOWN, 0 },
    { "banner of another class", true, { "250 hi\r\n", "221 bye\r\n" },
      QUIT, SMTP_PROBE_FAILED, "banner 250 hi", UNKNOWN, 0 },
    { "EHLO for later", true, { "220 hi\r\n", "450 later\r\n", "221 bye\r\n" },
      EHLO QUIT, SMTP_PROBE_FAILED, "EHLO 450 later", UNKNOWN, 0 },
    { "another protocol", true, { "SSH-2.0-OpenSSH_9.2\r\n" },
      "", SMTP_PROBE_FAILED, "banner malformed", UNKNOWN, 0 },
    { "codes that differ", true, { "220-hi\r\n250 hi\r\n" },
      "", SMTP_PROBE_FAILED, "banner malformed", UNKNOWN, 0 },
    { "bare LF", true, { "220 hi\n" },
      "", SMTP_PROBE_FAILED, "banner malformed", UNKNOWN, 0 },
    { "closed before the banner", true, { NULL },
      "", SMTP_PROBE_FAILED, "banner closed", UNKNOWN, 0 },
    { "closed in the banner", true, { "220 h", NULL },
      "", SMTP_PROBE_FAILED, "banner closed", UNKNOWN, 0 },
    { "closed behind EHLO", true, { "220 hi\r\n", NULL },
      EHLO, SMTP_PROBE_FAILED, "EHLO closed", UNKNOWN, 0 },
    { "no farewell is no failure", false, { "220 hi\r\n", NULL },
      QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0 },
    { "a bad farewell is none", false, { "220 hi\r\n", "xyz\r\n" },
      QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0 },
    { "QUIT refused is none", false, { "220 hi\r\n", "500 no\r\n" },
      QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0 },
};
/* clang-format on */

struct play {
    struct smtp_probe probe;
    char sent[512];
};

/* Feed one turn in steps of `step` octets, as a driver does: the same beginning with more behind it. */
static enum smtp_probe_action feed_turn(struct play *play, const char *text, size_t step)
{
    size_t size = strlen(text);
    enum smtp_probe_action action = SMTP_PROBE_READ;

    for (size_t have = step < size ? step : size;; have = have + step < size ? have + step : size) {
        action = smtp_probe_feed(&play->probe, text, have);
        if (action != SMTP_PROBE_READ || have == size)
            return action;
    }
}

static void play_row(const struct row *row, size_t step, struct play *play)
{
    memset(play, 0, sizeof *play);
    smtp_probe_init(&play->probe, "weir.test", row->ehlo);
    for (int turn = 0; turn < TURNS; turn++) {
        enum smtp_probe_action action;

        if (!row->relay[turn]) {
            smtp_probe_break(&play->probe, "closed");
            break;
        }
        action = feed_turn(play, row->relay[turn], step);
        if (action == SMTP_PROBE_CLOSE)
            break;
        if (action == SMTP_PROBE_SEND)
            (void)snprintf(play->sent + strlen(play->sent), sizeof play->sent - strlen(play->sent), "%.*s",
                           (int)play->probe.out_size, play->probe.out);
    }
}

static void check_row(const struct row *row, const struct play *play)
{
    const struct smtp_probe *probe = &play->probe;

    assert_int_equal(probe->stage, SMTP_PROBE_ENDED);
    assert_int_equal(probe->verdict, row->verdict);
    assert_string_equal(play->sent, row->probe);
    assert_string_equal(probe->reason, row->reason);
    assert_int_equal(probe->capabilities_known, row->flags != UNKNOWN);
    if (probe->capabilities_known) {
        assert_int_equal(probe->capabilities.flags, row->flags);
        assert_int_equal(probe->capabilities.size_limit, row->size);
    }
}

static void test_dialogues(void **state)
{
    struct play play;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        print_message("  %s\n", rows[i].name);
        play_row(&rows[i], 10000, &play);
        check_row(&rows[i], &play);
        play_row(&rows[i], 1, &play);
        check_row(&rows[i], &play);
    }
}

/* Octets behind a reply that nobody asked for would be the next command's reply. Only seen when they come
 * together; when they come later they are the wrong reply to the next command. */
static void test_more_than_asked(void **state)
{
    struct smtp_probe probe;
    const char *banner = "220 hi\r\n250 surprise\r\n", *quit = "221 bye\r\nmore";

    (void)state;
    smtp_probe_init(&probe, "weir.test", true);
    assert_int_equal(smtp_probe_feed(&probe, banner, strlen(banner)), SMTP_PROBE_CLOSE);
    assert_int_equal(probe.verdict, SMTP_PROBE_FAILED);
    assert_string_equal(probe.reason, "banner followed by more than was asked for");

    smtp_probe_init(&probe, "weir.test", false);
    assert_int_equal(smtp_probe_feed(&probe, "220 hi\r\n", 8), SMTP_PROBE_SEND);
    assert_int_equal(smtp_probe_feed(&probe, quit, strlen(quit)), SMTP_PROBE_CLOSE);
    assert_int_equal(probe.verdict, SMTP_PROBE_PASSED);
}

/* The verdict does not wait for the farewell. */
static void test_verdict_is_early(void **state)
{
    struct smtp_probe probe;

    (void)state;
    smtp_probe_init(&probe, "weir.test", false);
    assert_int_equal(probe.verdict, SMTP_PROBE_OPEN);
    assert_false(probe.greeted);
    assert_int_equal(smtp_probe_feed(&probe, "220 hi\r\n", 8), SMTP_PROBE_SEND);
    assert_int_equal(probe.verdict, SMTP_PROBE_PASSED);
    assert_true(probe.greeted);
    smtp_probe_break(&probe, "timeout");
    assert_int_equal(probe.verdict, SMTP_PROBE_PASSED);
    assert_string_equal(probe.reason, "");
}

static void test_endless_banner(void **state)
{
    static char banner[SMTP_REPLY_MAX + 1];
    struct smtp_probe probe;

    (void)state;
    memset(banner, 'x', sizeof banner);
    memcpy(banner, "220 ", 4);
    smtp_probe_init(&probe, "weir.test", false);
    assert_int_equal(smtp_probe_feed(&probe, banner, sizeof banner), SMTP_PROBE_CLOSE);
    assert_int_equal(probe.verdict, SMTP_PROBE_FAILED);
}

static void test_longest_names(void **state)
{
    struct smtp_probe probe;
    char hostname[256], text[700];

    (void)state;
    memset(hostname, 'h', sizeof hostname - 1);
    hostname[255] = '\0';
    smtp_probe_init(&probe, hostname, true);
    assert_int_equal(smtp_probe_feed(&probe, "220 hi\r\n", 8), SMTP_PROBE_SEND);
    assert_int_equal(probe.out_size, 5 + 255 + 2);
    assert_memory_equal(probe.out + probe.out_size - 2, "\r\n", 2);

    smtp_probe_init(&probe, "weir.test", true);
    memset(text, 't', sizeof text);
    memcpy(text, "554 ", 4);
    memcpy(text + sizeof text - 2, "\r\n", 2);
    assert_int_equal(smtp_probe_feed(&probe, text, sizeof text), SMTP_PROBE_SEND);
    assert_int_equal(strlen(probe.reason), SMTP_PROBE_REASON_MAX - 1);
    assert_memory_equal(probe.reason, "banner 554 ttt", 14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dialogues),        cmocka_unit_test(test_more_than_asked),
        cmocka_unit_test(test_verdict_is_early), cmocka_unit_test(test_endless_banner),
        cmocka_unit_test(test_longest_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
