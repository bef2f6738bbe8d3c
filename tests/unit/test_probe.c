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

#define TURNS 10

struct row {
    const char *name;
    bool ehlo;
    const char *relay[TURNS]; /* what it says at each turn; NULL: it closes; HANDSHAKE: it goes well */
    const char *probe;        /* all that was sent */
    enum smtp_probe_verdict verdict;
    const char *reason;
    uint32_t flags; /* known capabilities; UINT32_MAX: not known */
    uint64_t size;
    enum smtp_probe_tls tls;
    const char *introduce;
};

struct envelope_row {
    const char *sender, *recipient;
    struct row row;
};

#define UNKNOWN UINT32_MAX
#define EHLO    "EHLO weir.test\r\n"
#define HELO    "HELO weir.test\r\n"
#define QUIT    "QUIT\r\n"

#define MAIL      "MAIL FROM:<probe@weir.test>\r\n"
#define NULL_MAIL "MAIL FROM:<>\r\n"
#define RCPT      "RCPT TO:<postmaster@x>\r\n"
#define RSET      "RSET\r\n"
#define HI        "250 hi\r\n"
#define OK        "250 ok\r\n"

#define STARTTLS  "STARTTLS\r\n"
#define SECURE    "(TLS)" /* among what was sent: the handshake began here */
#define XCLIENT   "XCLIENT PORT=[UNAVAILABLE] ADDR=[UNAVAILABLE] NAME=[UNAVAILABLE]\r\n"
#define XFORWARD  "XFORWARD ADDR=[UNAVAILABLE]\r\n"
#define HANDSHAKE "handshake"
#define BYE       "221 bye\r\n"
#define OFFERED   "250-hi\r\n250-XCLIENT ADDR\r\n250 STARTTLS\r\n"
#define INSIDE    "250-hi\r\n250-SIZE 7\r\n250 AUTH PLAIN\r\n"

#define CLEAR         SMTP_PROBE_CLEAR
#define IMPLICIT      SMTP_PROBE_TLS_IMPLICIT
#define OPPORTUNISTIC SMTP_PROBE_TLS_OPPORTUNISTIC
#define REQUIRED      SMTP_PROBE_TLS_REQUIRED
#define AUTH          (SMTP_CAP_SIZE | SMTP_CAP_AUTH | SMTP_CAP_AUTH_PLAIN)

/* A row, or a step, a line: */
/* clang-format off */
static const struct row rows[] = {
    { "banner alone", false, { "220 hi\r\n", "221 bye\r\n" },
      QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0, CLEAR, NULL },
    { "banner of many lines", false, { "220-one\r\n220-two\r\n220 three\r\n", "221 bye\r\n" },
      QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0, CLEAR, NULL },
    { "EHLO", true, { "220 hi\r\n", "250-hi\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 PIPELINING\r\n", "221 bye\r\n" },
      EHLO QUIT, SMTP_PROBE_PASSED, "", SMTP_CAP_SIZE | SMTP_CAP_8BITMIME | SMTP_CAP_PIPELINING, 1000, CLEAR, NULL },
    { "EHLO not known", true, { "220 hi\r\n", "502 what\r\n", "250 hi\r\n", "221 bye\r\n" },
      EHLO HELO QUIT, SMTP_PROBE_PASSED, "", 0, 0, CLEAR, NULL },
    { "neither is known", true, { "220 hi\r\n", "500 what\r\n", "500 what\r\n", "221 bye\r\n" },
      EHLO HELO QUIT, SMTP_PROBE_FAILED, "HELO 500 what", UNKNOWN, 0, CLEAR, NULL },
    { "banner 554", true, { "554-no\r\n554 5.3.2 no service\r\n", "221 bye\r\n" },
      QUIT, SMTP_PROBE_FAILED, "banner 554 5.3.2 no service", UNKNOWN, 0, CLEAR, NULL },
    { "banner 554 without a text", true, { "554\r\n", "221 bye\r\n" },
      QUIT, SMTP_PROBE_FAILED, "banner 554", UNKNOWN, 0, CLEAR, NULL },
    { "banner 421 closes without a word", true, { "421 too many connections\r\n" },
      "", SMTP_PROBE_FAILED, "banner 421 too many connections", UNKNOWN, 0, CLEAR, NULL },
    { "banner of another class", true, { "250 hi\r\n", "221 bye\r\n" },
      QUIT, SMTP_PROBE_FAILED, "banner 250 hi", UNKNOWN, 0, CLEAR, NULL },
    { "EHLO for later", true, { "220 hi\r\n", "450 later\r\n", "221 bye\r\n" },
      EHLO QUIT, SMTP_PROBE_FAILED, "EHLO 450 later", UNKNOWN, 0, CLEAR, NULL },
    { "another protocol", true, { "SSH-2.0-OpenSSH_9.2\r\n" },
      "", SMTP_PROBE_FAILED, "banner malformed", UNKNOWN, 0, CLEAR, NULL },
    { "codes that differ", true, { "220-hi\r\n250 hi\r\n" },
      "", SMTP_PROBE_FAILED, "banner malformed", UNKNOWN, 0, CLEAR, NULL },
    { "bare LF", true, { "220 hi\n" },
      "", SMTP_PROBE_FAILED, "banner malformed", UNKNOWN, 0, CLEAR, NULL },
    { "closed before the banner", true, { NULL },
      "", SMTP_PROBE_FAILED, "banner closed", UNKNOWN, 0, CLEAR, NULL },
    { "closed in the banner", true, { "220 h", NULL },
      "", SMTP_PROBE_FAILED, "banner closed", UNKNOWN, 0, CLEAR, NULL },
    { "closed behind EHLO", true, { "220 hi\r\n", NULL },
      EHLO, SMTP_PROBE_FAILED, "EHLO closed", UNKNOWN, 0, CLEAR, NULL },
    { "no farewell is no failure", false, { "220 hi\r\n", NULL },
      QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0, CLEAR, NULL },
    { "a bad farewell is none", false, { "220 hi\r\n", "xyz\r\n" },
      QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0, CLEAR, NULL },
    { "QUIT refused is none", false, { "220 hi\r\n", "500 no\r\n" },
      QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0, CLEAR, NULL },

    { "implicit: the banner comes inside", false, { HANDSHAKE, "220 hi\r\n", BYE },
      SECURE QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0, IMPLICIT, NULL },
    { "implicit: no STARTTLS, even if it is offered", true, { HANDSHAKE, "220 hi\r\n", OFFERED, BYE },
      SECURE EHLO QUIT, SMTP_PROBE_PASSED, "", SMTP_CAP_STARTTLS, 0, IMPLICIT, NULL },
    { "implicit: the handshake fails", true, { NULL },
      SECURE, SMTP_PROBE_FAILED, "TLS closed", UNKNOWN, 0, IMPLICIT, NULL },
    { "implicit: banner 421", true, { HANDSHAKE, "421 full\r\n" },
      SECURE, SMTP_PROBE_FAILED, "banner 421 full", UNKNOWN, 0, IMPLICIT, NULL },
    { "a banner suffices, whatever the pool wants", false, { "220 hi\r\n", BYE },
      QUIT, SMTP_PROBE_PASSED, "", UNKNOWN, 0, REQUIRED, NULL },
    { "no TLS where none is asked for", true, { "220 hi\r\n", OFFERED, BYE },
      EHLO QUIT, SMTP_PROBE_PASSED, "", SMTP_CAP_STARTTLS, 0, CLEAR, NULL },

    { "required: what is inside counts", true, { "220 hi\r\n", OFFERED, "220 go\r\n", HANDSHAKE, INSIDE, BYE },
      EHLO STARTTLS SECURE EHLO QUIT, SMTP_PROBE_PASSED, "", AUTH, 7, REQUIRED, NULL },
    { "required: STARTTLS offered again inside", true,
      { "220 hi\r\n", OFFERED, "220 go\r\n", HANDSHAKE, OFFERED, BYE },
      EHLO STARTTLS SECURE EHLO QUIT, SMTP_PROBE_PASSED, "", SMTP_CAP_STARTTLS, 0, REQUIRED, NULL },
    { "required: not offered", true, { "220 hi\r\n", INSIDE, BYE },
      EHLO QUIT, SMTP_PROBE_FAILED, "STARTTLS is not offered", UNKNOWN, 0, REQUIRED, NULL },
    { "required: HELO only", true, { "220 hi\r\n", "500 what\r\n", "250 hi\r\n", BYE },
      EHLO HELO QUIT, SMTP_PROBE_FAILED, "STARTTLS is not offered", UNKNOWN, 0, REQUIRED, NULL },
    { "required: 454", true, { "220 hi\r\n", OFFERED, "454 4.7.0 later\r\n", BYE },
      EHLO STARTTLS QUIT, SMTP_PROBE_FAILED, "STARTTLS 454 4.7.0 later", UNKNOWN, 0, REQUIRED, NULL },
    { "required: 502", true, { "220 hi\r\n", OFFERED, "502 what\r\n", BYE },
      EHLO STARTTLS QUIT, SMTP_PROBE_FAILED, "STARTTLS 502 what", UNKNOWN, 0, REQUIRED, NULL },
    { "required: 354", true, { "220 hi\r\n", OFFERED, "354 go\r\n", BYE },
      EHLO STARTTLS QUIT, SMTP_PROBE_FAILED, "STARTTLS 354 go", UNKNOWN, 0, REQUIRED, NULL },
    { "required: 250", true, { "220 hi\r\n", OFFERED, "250 go\r\n", BYE },
      EHLO STARTTLS QUIT, SMTP_PROBE_FAILED, "STARTTLS 250 go", UNKNOWN, 0, REQUIRED, NULL },
    { "required: closed at STARTTLS", true, { "220 hi\r\n", OFFERED, NULL },
      EHLO STARTTLS, SMTP_PROBE_FAILED, "STARTTLS closed", UNKNOWN, 0, REQUIRED, NULL },
    { "required: the handshake fails", true, { "220 hi\r\n", OFFERED, "220 go\r\n", NULL },
      EHLO STARTTLS SECURE, SMTP_PROBE_FAILED, "TLS closed", UNKNOWN, 0, REQUIRED, NULL },
    { "required: EHLO refused inside", true,
      { "220 hi\r\n", OFFERED, "220 go\r\n", HANDSHAKE, "454 later\r\n", BYE },
      EHLO STARTTLS SECURE EHLO QUIT, SMTP_PROBE_FAILED, "EHLO 454 later", UNKNOWN, 0, REQUIRED, NULL },
    { "required: closed inside", true, { "220 hi\r\n", OFFERED, "220 go\r\n", HANDSHAKE, NULL },
      EHLO STARTTLS SECURE EHLO, SMTP_PROBE_FAILED, "EHLO closed", UNKNOWN, 0, REQUIRED, NULL },

    { "opportunistic: used", true, { "220 hi\r\n", OFFERED, "220 go\r\n", HANDSHAKE, INSIDE, BYE },
      EHLO STARTTLS SECURE EHLO QUIT, SMTP_PROBE_PASSED, "", AUTH, 7, OPPORTUNISTIC, NULL },
    { "opportunistic: not offered", true, { "220 hi\r\n", INSIDE, BYE },
      EHLO QUIT, SMTP_PROBE_PASSED, "", AUTH, 7, OPPORTUNISTIC, NULL },
    { "opportunistic: HELO only", true, { "220 hi\r\n", "500 what\r\n", "250 hi\r\n", BYE },
      EHLO HELO QUIT, SMTP_PROBE_PASSED, "", 0, 0, OPPORTUNISTIC, NULL },
    { "opportunistic: refused", true, { "220 hi\r\n", OFFERED, "454 later\r\n", BYE },
      EHLO STARTTLS QUIT, SMTP_PROBE_PASSED, "", SMTP_CAP_STARTTLS, 0, OPPORTUNISTIC, NULL },
    { "opportunistic: refused by a relay that closes", true, { "220 hi\r\n", OFFERED, "421 bye\r\n" },
      EHLO STARTTLS, SMTP_PROBE_FAILED, "STARTTLS 421 bye", SMTP_CAP_STARTTLS, 0, OPPORTUNISTIC, NULL },
    { "opportunistic: neither yes nor no", true, { "220 hi\r\n", OFFERED, "354 go\r\n", BYE },
      EHLO STARTTLS QUIT, SMTP_PROBE_FAILED, "STARTTLS 354 go", SMTP_CAP_STARTTLS, 0, OPPORTUNISTIC, NULL },
    { "opportunistic: the handshake fails", true, { "220 hi\r\n", OFFERED, "220 go\r\n", NULL },
      EHLO STARTTLS SECURE, SMTP_PROBE_PASSED, "", SMTP_CAP_STARTTLS, 0, OPPORTUNISTIC, NULL },
    { "opportunistic: EHLO refused inside", true,
      { "220 hi\r\n", OFFERED, "220 go\r\n", HANDSHAKE, "454 later\r\n", BYE },
      EHLO STARTTLS SECURE EHLO QUIT, SMTP_PROBE_FAILED, "EHLO 454 later", UNKNOWN, 0, OPPORTUNISTIC, NULL },

    { "XCLIENT comes behind TLS, which stays", true,
      { "220 hi\r\n", OFFERED, "220 go\r\n", HANDSHAKE, "250-hi\r\n250-XCLIENT ADDR PORT NAME\r\n250 STARTTLS\r\n",
        "220 anew\r\n", OFFERED, BYE },
      EHLO STARTTLS SECURE EHLO XCLIENT EHLO QUIT, SMTP_PROBE_PASSED, "", SMTP_CAP_STARTTLS, 0, REQUIRED, "XCLIENT" },
    { "XFORWARD behind TLS", true,
      { "220 hi\r\n", OFFERED, "220 go\r\n", HANDSHAKE, "250-hi\r\n250 XFORWARD ADDR\r\n", "250 ok\r\n", BYE },
      EHLO STARTTLS SECURE EHLO XFORWARD QUIT, SMTP_PROBE_PASSED, "", 0, 0, REQUIRED, "XFORWARD" },
    { "XCLIENT was offered in the clear only", true,
      { "220 hi\r\n", OFFERED, "220 go\r\n", HANDSHAKE, INSIDE, BYE },
      EHLO STARTTLS SECURE EHLO QUIT, SMTP_PROBE_FAILED, "identity is not offered", AUTH, 7, REQUIRED, "XCLIENT" },
    { "STARTTLS refused, XCLIENT in the clear, STARTTLS not tried again", true,
      { "220 hi\r\n", "250-hi\r\n250-XCLIENT ADDR PORT NAME\r\n250 STARTTLS\r\n", "454 later\r\n", "220 anew\r\n",
        OFFERED, BYE },
      EHLO STARTTLS XCLIENT EHLO QUIT, SMTP_PROBE_PASSED, "", SMTP_CAP_STARTTLS, 0, OPPORTUNISTIC, "XCLIENT" },
    { "STARTTLS offered behind XCLIENT only", true,
      { "220 hi\r\n", "250-hi\r\n250 XCLIENT ADDR PORT NAME\r\n", "220 anew\r\n", OFFERED, BYE },
      EHLO XCLIENT EHLO QUIT, SMTP_PROBE_PASSED, "", SMTP_CAP_STARTTLS, 0, OPPORTUNISTIC, "XCLIENT" },
    { "implicit: XCLIENT", true,
      { HANDSHAKE, "220 hi\r\n", "250-hi\r\n250 XCLIENT ADDR PORT NAME\r\n", "220 anew\r\n", INSIDE, BYE },
      SECURE EHLO XCLIENT EHLO QUIT, SMTP_PROBE_PASSED, "", AUTH, 7, IMPLICIT, "XCLIENT" },
    { "opportunistic: no handshake, and XCLIENT in the clear", true,
      { "220 hi\r\n", OFFERED, "220 go\r\n", NULL },
      EHLO STARTTLS SECURE, SMTP_PROBE_PASSED, "", SMTP_CAP_STARTTLS, 0, OPPORTUNISTIC, "XCLIENT" },
    { "opportunistic: no handshake, and no XFORWARD in the clear", true,
      { "220 hi\r\n", OFFERED, "220 go\r\n", NULL },
      EHLO STARTTLS SECURE, SMTP_PROBE_FAILED, "identity is not offered", SMTP_CAP_STARTTLS, 0, OPPORTUNISTIC,
      "XFORWARD" },
};

static const struct envelope_row envelope_rows[] = {
    { "", "",
      { "null sender, no recipient", true, { "220 hi\r\n", HI, OK, OK, BYE },
      EHLO NULL_MAIL RSET QUIT, SMTP_PROBE_PASSED, "", 0, 0, CLEAR, NULL } },
    { "probe@weir.test", "postmaster@x",
      { "sender and recipient", true, { "220 hi\r\n", HI, OK, "251 forwarded\r\n", OK, BYE },
      EHLO MAIL RCPT RSET QUIT, SMTP_PROBE_PASSED, "", 0, 0, CLEAR, NULL } },
    { "probe@weir.test", "postmaster@x",
      { "one command at a time, whatever is offered", true,
      { "220 hi\r\n", "250-hi\r\n250 PIPELINING\r\n", OK, OK, OK, BYE },
      EHLO MAIL RCPT RSET QUIT, SMTP_PROBE_PASSED, "", SMTP_CAP_PIPELINING, 0, CLEAR, NULL } },
    { "", "",
      { "behind HELO", true, { "220 hi\r\n", "500 what\r\n", HI, OK, OK, BYE },
      EHLO HELO NULL_MAIL RSET QUIT, SMTP_PROBE_PASSED, "", 0, 0, CLEAR, NULL } },
    { "", "postmaster@x",
      { "MAIL 451", true, { "220 hi\r\n", HI, "451 4.3.1 queue full\r\n", BYE },
      EHLO NULL_MAIL QUIT, SMTP_PROBE_FAILED, "MAIL 451 4.3.1 queue full", 0, 0, CLEAR, NULL } },
    { "", "postmaster@x",
      { "RCPT 550", true, { "220 hi\r\n", HI, OK, "550 5.1.1 who\r\n", BYE },
      EHLO NULL_MAIL RCPT QUIT, SMTP_PROBE_FAILED, "RCPT 550 5.1.1 who", 0, 0, CLEAR, NULL } },
    { "", "postmaster@x",
      { "RCPT 450 of two lines", true, { "220 hi\r\n", HI, OK, "450-4.2.1 not\r\n450 4.2.1 now\r\n", BYE },
      EHLO NULL_MAIL RCPT QUIT, SMTP_PROBE_FAILED, "RCPT 450 4.2.1 now", 0, 0, CLEAR, NULL } },
    { "", "",
      { "MAIL 354", true, { "220 hi\r\n", HI, "354 go\r\n", BYE },
      EHLO NULL_MAIL QUIT, SMTP_PROBE_FAILED, "MAIL 354 go", 0, 0, CLEAR, NULL } },
    { "", "",
      { "RSET 500", true, { "220 hi\r\n", HI, OK, "500 what\r\n", BYE },
      EHLO NULL_MAIL RSET QUIT, SMTP_PROBE_FAILED, "RSET 500 what", 0, 0, CLEAR, NULL } },
    { "", "postmaster@x",
      { "421 in the middle", true, { "220 hi\r\n", HI, OK, "421 4.3.2 closing\r\n" },
      EHLO NULL_MAIL RCPT, SMTP_PROBE_FAILED, "RCPT 421 4.3.2 closing", 0, 0, CLEAR, NULL } },
    { "", "",
      { "closed behind MAIL", true, { "220 hi\r\n", HI, NULL },
      EHLO NULL_MAIL, SMTP_PROBE_FAILED, "MAIL closed", 0, 0, CLEAR, NULL } },
    { "", "",
      { "MAIL malformed", true, { "220 hi\r\n", HI, "25\r\n" },
      EHLO NULL_MAIL, SMTP_PROBE_FAILED, "MAIL malformed", 0, 0, CLEAR, NULL } },
    { "", "",
      { "inside TLS, behind XCLIENT", true,
      { "220 hi\r\n", OFFERED, "220 go\r\n", HANDSHAKE, "250-hi\r\n250 XCLIENT ADDR PORT NAME\r\n", "220 anew\r\n",
        HI, OK, OK, BYE },
      EHLO STARTTLS SECURE EHLO XCLIENT EHLO NULL_MAIL RSET QUIT, SMTP_PROBE_PASSED, "", 0, 0, REQUIRED, "XCLIENT" } },
    { "", "",
      { "behind XFORWARD", true,
      { "220 hi\r\n", "250-hi\r\n250 XFORWARD ADDR\r\n", "250 ok\r\n", OK, OK, BYE },
      EHLO XFORWARD NULL_MAIL RSET QUIT, SMTP_PROBE_PASSED, "", 0, 0, CLEAR, "XFORWARD" } },
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

static void note(struct play *play, const char *text, size_t size)
{
    (void)snprintf(play->sent + strlen(play->sent), sizeof play->sent - strlen(play->sent), "%.*s", (int)size,
                   text);
}

/* What the relay does at one turn. */
static enum smtp_probe_action take_turn(struct play *play, const char *text, size_t step)
{
    if (!text) {
        smtp_probe_break(&play->probe, "closed");
        return SMTP_PROBE_CLOSE;
    }
    return strcmp(text, HANDSHAKE) == 0 ? smtp_probe_secured(&play->probe) : feed_turn(play, text, step);
}

/* `sender` NULL: no envelope. */
static void play_row(const struct row *row, const char *sender, const char *recipient, size_t step,
                     struct play *play)
{
    memset(play, 0, sizeof *play);
    smtp_probe_init(&play->probe, "weir.test", row->ehlo, row->tls);
    play->probe.introduce = row->introduce;
    play->probe.envelope = sender != NULL;
    play->probe.sender = sender;
    play->probe.recipient = recipient;
    if (row->tls == SMTP_PROBE_TLS_IMPLICIT)
        note(play, SECURE, strlen(SECURE));
    for (int turn = 0; turn < TURNS; turn++) {
        enum smtp_probe_action action = take_turn(play, row->relay[turn], step);

        if (action == SMTP_PROBE_CLOSE)
            break;
        if (action == SMTP_PROBE_SEND)
            note(play, play->probe.out, play->probe.out_size);
        if (action == SMTP_PROBE_SECURE)
            note(play, SECURE, strlen(SECURE));
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

static void play_both(const struct row *row, const char *sender, const char *recipient)
{
    struct play play;

    print_message("  %s\n", row->name);
    play_row(row, sender, recipient, 10000, &play);
    check_row(row, &play);
    play_row(row, sender, recipient, 1, &play);
    check_row(row, &play);
}

static void test_dialogues(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        play_both(&rows[i], NULL, NULL);
}

static void test_envelopes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof envelope_rows / sizeof *envelope_rows; i++)
        play_both(&envelope_rows[i].row, envelope_rows[i].sender, envelope_rows[i].recipient);
}

/* What an operator writes goes into a command: nothing in it may end the path or the line. */
static void test_mailboxes(void **state)
{
    static const char *const good[] = { "", "a@b", "postmaster", "a+b@x.example", "\"a b\"@x", "a@[::1]" };
    static const char *const bad[] = { "a b@c", "<a@b>",   "a@b> SIZE=1",   "a@b>", "a@b\r\nDATA",
                                       "a@b\n", "a\x01@b", "j\xc3\xbcrg@b", ">",    "\"a" };
    char longest[SMTP_PROBE_PATH_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!smtp_probe_mailbox_valid(good[i]))
            fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (smtp_probe_mailbox_valid(bad[i]))
            fail_msg("taken: %s", bad[i]);
    memset(longest, 'a', sizeof longest);
    memcpy(longest + 10, "@x.", 3);
    longest[SMTP_PROBE_PATH_MAX - 2] = '\0';
    assert_true(smtp_probe_mailbox_valid(longest));
    longest[SMTP_PROBE_PATH_MAX - 2] = 'a';
    longest[SMTP_PROBE_PATH_MAX - 1] = '\0';
    assert_false(smtp_probe_mailbox_valid(longest));
}

/* Octets behind a reply that nobody asked for would be the next command's reply. Only seen when they come
 * together; when they come later they are the wrong reply to the next command. */
static void test_more_than_asked(void **state)
{
    struct smtp_probe probe;
    const char *banner = "220 hi\r\n250 surprise\r\n", *quit = "221 bye\r\nmore";

    (void)state;
    smtp_probe_init(&probe, "weir.test", true, SMTP_PROBE_CLEAR);
    assert_int_equal(smtp_probe_feed(&probe, banner, strlen(banner)), SMTP_PROBE_CLOSE);
    assert_int_equal(probe.verdict, SMTP_PROBE_FAILED);
    assert_string_equal(probe.reason, "banner followed by more than was asked for");

    smtp_probe_init(&probe, "weir.test", false, SMTP_PROBE_CLEAR);
    assert_int_equal(smtp_probe_feed(&probe, "220 hi\r\n", 8), SMTP_PROBE_SEND);
    assert_int_equal(smtp_probe_feed(&probe, quit, strlen(quit)), SMTP_PROBE_CLOSE);
    assert_int_equal(probe.verdict, SMTP_PROBE_PASSED);
}

/* Behind the 220 to STARTTLS it would be taken for said under TLS (RFC 3207 §6): no relay to use, not even
 * where TLS is only opportunistic. What comes later spoils the handshake. */
static void test_more_than_asked_of_starttls(void **state)
{
    static const enum smtp_probe_tls ways[] = { REQUIRED, OPPORTUNISTIC };
    static const char *const more[] = { "220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n", "220 go\r\n2",
                                        "220 go\r\n\r\n" };

    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        for (size_t m = 0; m < sizeof more / sizeof *more; m++) {
            struct smtp_probe probe;

            smtp_probe_init(&probe, "weir.test", true, ways[i]);
            assert_int_equal(smtp_probe_feed(&probe, "220 hi\r\n", 8), SMTP_PROBE_SEND);
            assert_int_equal(smtp_probe_feed(&probe, OFFERED, strlen(OFFERED)), SMTP_PROBE_SEND);
            assert_int_equal(smtp_probe_feed(&probe, more[m], strlen(more[m])), SMTP_PROBE_CLOSE);
            assert_int_equal(probe.verdict, SMTP_PROBE_FAILED);
            assert_string_equal(probe.reason, "STARTTLS followed by more than was asked for");
        }
    }
}

/* The verdict does not wait for the farewell. */
static void test_verdict_is_early(void **state)
{
    struct smtp_probe probe;

    (void)state;
    smtp_probe_init(&probe, "weir.test", false, SMTP_PROBE_CLEAR);
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
    smtp_probe_init(&probe, "weir.test", false, SMTP_PROBE_CLEAR);
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
    smtp_probe_init(&probe, hostname, true, SMTP_PROBE_CLEAR);
    assert_int_equal(smtp_probe_feed(&probe, "220 hi\r\n", 8), SMTP_PROBE_SEND);
    assert_int_equal(probe.out_size, 5 + 255 + 2);
    assert_memory_equal(probe.out + probe.out_size - 2, "\r\n", 2);

    smtp_probe_init(&probe, "weir.test", true, SMTP_PROBE_CLEAR);
    memset(text, 't', sizeof text);
    memcpy(text, "554 ", 4);
    memcpy(text + sizeof text - 2, "\r\n", 2);
    assert_int_equal(smtp_probe_feed(&probe, text, sizeof text), SMTP_PROBE_SEND);
    assert_int_equal(strlen(probe.reason), SMTP_PROBE_REASON_MAX - 1);
    assert_memory_equal(probe.reason, "banner 554 ttt", 14);
}

/* What the library says of a handshake is as long as it likes. */
static void test_handshake_reason(void **state)
{
    struct smtp_probe probe;
    char text[300];

    (void)state;
    smtp_probe_init(&probe, "weir.test", true, SMTP_PROBE_TLS_IMPLICIT);
    smtp_probe_break(&probe, "certificate verify failed: certificate has expired");
    assert_string_equal(probe.reason, "TLS certificate verify failed: certificate has expired");

    memset(text, 't', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    smtp_probe_init(&probe, "weir.test", true, SMTP_PROBE_TLS_IMPLICIT);
    smtp_probe_break(&probe, text);
    assert_int_equal(strlen(probe.reason), SMTP_PROBE_REASON_MAX - 1);
    assert_memory_equal(probe.reason, "TLS ttt", 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dialogues),
        cmocka_unit_test(test_envelopes),
        cmocka_unit_test(test_mailboxes),
        cmocka_unit_test(test_more_than_asked),
        cmocka_unit_test(test_verdict_is_early),
        cmocka_unit_test(test_endless_banner),
        cmocka_unit_test(test_longest_names),
        cmocka_unit_test(test_handshake_reason),
        cmocka_unit_test(test_more_than_asked_of_starttls),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
