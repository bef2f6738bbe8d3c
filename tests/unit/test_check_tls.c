/*
 * Checks through TLS, against a relay in the same loop that follows a script; and a reload while one is under
 * way.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ev.h>
#include <sys/socket.h>

#include "health/check.h"
#include "health/health.h"
#include "net/stream.h"
#include "tests/unit/check_fixture.h"
#include "tests/unit/config_fixture.h"
#include "tests/unit/tls_fixture.h"

#define TURNS 8

static struct fixture fixture;
static struct tls_client *unverified, *verifying;
static struct tls_server *good_server, *expired_server, *strange_server;

static void no_fault(void *arg, enum tls_culprit culprit, size_t index, const char *text)
{
    (void)arg;
    (void)culprit;
    (void)index;
    fail_msg("%s", text);
}

static struct tls_server *make_server(const char *file)
{
    const char *path = fixture_path(&fixture, file);
    struct tls_server_settings settings = {
        .listener = "relay", .n_certificates = 1, .certificates = &path, .ticket_keys = "", .client_ca = ""
    };

    return tls_server_create(&settings, no_fault, NULL);
}

static int setup(void **state)
{
    struct fixture_wish expired = {
        .key = FIXTURE_EC, .names = "DNS:relay.test", .from = -9 * FIXTURE_DAY, .until = -FIXTURE_DAY
    };
    struct tls_client_settings settings = { .verify = false, .ca = "" };

    (void)state;
    fixture_open(&fixture);
    expired.issuer = &fixture.authority;
    fixture_leaf(&fixture, "good.pem", FIXTURE_EC, "DNS:relay.test");
    fixture_file(&fixture, "expired.pem", &expired);
    fixture_file(&fixture, "strange.pem",
                 &(struct fixture_wish){ .key = FIXTURE_EC, .names = "DNS:relay.test" });
    good_server = make_server("good.pem");
    expired_server = make_server("expired.pem");
    strange_server = make_server("strange.pem");
    unverified = tls_client_create(&settings, no_fault, NULL);
    settings = (struct tls_client_settings){ .verify = true, .ca = fixture_path(&fixture, "ca.pem") };
    verifying = tls_client_create(&settings, no_fault, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tls_client_free(&unverified);
    tls_client_free(&verifying);
    tls_server_free(&good_server);
    tls_server_free(&expired_server);
    tls_server_free(&strange_server);
    fixture_close(&fixture);
    return 0;
}

/* --- a scripted relay --- */

/* A turn is what it says once it has heard something (the first one: at once), or, where that is another
 * character than a digit, what it does: */
#define HANG_UP "x"
#define PAUSE   "."           /* nothing until relay_say() */
#define SECURE  "!"           /* a handshake; behind it the next turn at once */
#define GO      "!220 go\r\n" /* the reply, then a handshake */
#define HEADER  "?"           /* a PROXY header is awaited, then like SECURE */

struct relay {
    struct stream stream; /* of one connection */
    struct ev_loop *loop;
    struct address address;
    ev_io listening;
    const struct tls_server *server;
    const char *const *script;
    int turn;
    bool header, speaks_first;
    int accepted;
    char
        heard[1024]; /* with (TLS) where a handshake ended well, and (hello) for octets of one in the clear */
};

static void note(struct relay *relay, const char *text, size_t size)
{
    size_t have = strlen(relay->heard);

    assert_true(have + size < sizeof relay->heard);
    memcpy(relay->heard + have, text, size);
    relay->heard[have + size] = '\0';
}

static void relay_say(struct relay *relay)
{
    const char *text = relay->turn < TURNS ? relay->script[relay->turn++] : NULL;
    struct iovec part;

    if (!text || strcmp(text, PAUSE) == 0)
        return;
    if (strcmp(text, HANG_UP) == 0) {
        stream_close(&relay->stream);
        return;
    }
    if (strcmp(text, HEADER) == 0) {
        relay->header = true;
        return;
    }
    part = (struct iovec){ (char *)(uintptr_t)text, strlen(text) };
    if (*text == '!') {
        part.iov_base = (char *)part.iov_base + 1;
        part.iov_len--;
    }
    if (part.iov_len)
        assert_int_equal(stream_write(&relay->stream, &part, 1), 0);
    if (*text == '!') {
        relay->speaks_first = part.iov_len == 0;
        assert_int_equal(stream_accept_tls(&relay->stream, relay->server, NULL, 0), 0);
    }
}

/* In the clear, in front of the client's hello, of which a part may be here too. */
static void take_header(struct relay *relay, const char *in, size_t size)
{
    const char *end = memmem(in, size, "\r\n", 2);

    assert_non_null(end);
    end += 2;
    note(relay, in, (size_t)(end - in));
    relay->header = false;
    relay->speaks_first = true;
    assert_int_equal(stream_accept_tls(&relay->stream, relay->server, end, size - (size_t)(end - in)), 0);
}

static void on_stream(struct stream *stream, enum stream_event event)
{
    struct relay *relay = (struct relay *)stream;
    struct tls_description description;
    char in[4096];
    ssize_t n;

    if (event == STREAM_DRAINED)
        return;
    if (event == STREAM_SECURED) {
        note(relay, "(TLS)", 5);
        assert_true(stream_tls(stream, &description));
        assert_false(description.resumed);
        if (relay->speaks_first)
            relay_say(relay);
        return;
    }
    n = stream_read(stream, in, sizeof in);
    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        stream_close(stream);
        return;
    }
    if (relay->header) {
        take_header(relay, in, (size_t)n);
        return;
    }
    if (in[0] == 0x16) /* a handshake that this relay knows nothing of */
        note(relay, "(hello)", 7);
    else
        note(relay, in, (size_t)n);
    relay_say(relay);
}

static void on_accept(struct ev_loop *loop, ev_io *io, int events)
{
    struct relay *relay = io->data;
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    (void)events;
    assert_true(fd >= 0);
    stream_close(&relay->stream); /* one at a time is enough here */
    relay->heard[0] = '\0';
    relay->accepted++;
    relay->turn = 0;
    stream_open(&relay->stream, loop, fd, on_stream);
    relay_say(relay);
}

static void relay_open(struct relay *relay, struct ev_loop *loop, const struct tls_server *server,
                       const char *const *script)
{
    memset(relay, 0, sizeof *relay);
    stream_init(&relay->stream);
    relay->loop = loop;
    relay->server = server;
    relay->script = script;
    relay->address = any_loopback_port();
    ev_io_init(&relay->listening, on_accept, listen_at(&relay->address), EV_READ);
    relay->listening.data = relay;
    ev_io_start(relay->loop, &relay->listening);
}

static void relay_close(struct relay *relay)
{
    stream_close(&relay->stream);
    ev_io_stop(relay->loop, &relay->listening);
    close(relay->listening.fd);
}

/* --- single checks --- */

#define OFF             CONFIG_POOL_TLS_OFF
#define OPPORTUNISTIC   CONFIG_POOL_TLS_OPPORTUNISTIC
#define REQUIRE         CONFIG_POOL_TLS_REQUIRE
#define VERIFY          CONFIG_POOL_TLS_VERIFY
#define IMPLICIT        CONFIG_POOL_TLS_IMPLICIT
#define IMPLICIT_VERIFY CONFIG_POOL_TLS_IMPLICIT_VERIFY
#define DEPTH_CONNECT   CONFIG_DEPTH_CONNECT
#define DEPTH_BANNER    CONFIG_DEPTH_BANNER
#define DEPTH_EHLO      CONFIG_DEPTH_EHLO
#define DEPTH_STARTTLS  CONFIG_DEPTH_STARTTLS
#define ANONYMOUS       CONFIG_IDENTITY_NONE

#define HI      "220 hi\r\n"
#define OFFERED "250-hi\r\n250-SIZE 5\r\n250 STARTTLS\r\n"
#define INSIDE  "250-hi\r\n250-XCLIENT ADDR\r\n250 DSN\r\n"
#define BYE     "221 bye\r\n"
#define EHLO    "EHLO weir.test\r\n"
#define QUIT    "QUIT\r\n"
#define START   EHLO "STARTTLS\r\n"
#define FAILED  "certificate verify failed: "
#define UNKNOWN UINT32_MAX

enum { GOOD, EXPIRED, STRANGE }; /* certificates */

struct row {
    const char *name;
    enum config_pool_tls tls;
    enum config_health_depth depth;
    enum config_identity identity;
    int certificate;
    const char *tls_name;
    const char *script[TURNS];
    uint32_t timeout;
    enum check_verdict verdict;
    const char *reason; /* a '*' at its end: it begins so */
    const char *heard;
    uint32_t capabilities;
};

/* clang-format off */
static const struct row rows[] = {
    { "off: STARTTLS is not taken", OFF, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HI, OFFERED, BYE }, 5000,
      CHECK_PASSED, "", EHLO QUIT, SMTP_CAP_SIZE | SMTP_CAP_STARTTLS },

    { "implicit", IMPLICIT, DEPTH_EHLO, ANONYMOUS, STRANGE, NULL, { SECURE, HI, INSIDE, BYE }, 5000,
      CHECK_PASSED, "", "(TLS)" EHLO QUIT, SMTP_CAP_DSN },
    { "implicit: banner", IMPLICIT, DEPTH_BANNER, ANONYMOUS, GOOD, "relay.test", { SECURE, HI, BYE }, 5000,
      CHECK_PASSED, "", "(TLS)" QUIT, UNKNOWN },
    { "implicit: connect", IMPLICIT, DEPTH_CONNECT, ANONYMOUS, GOOD, "relay.test", { NULL }, 5000,
      CHECK_PASSED, "", "", UNKNOWN },
    { "implicit: banner 421", IMPLICIT, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { SECURE, "421 full\r\n" }, 5000,
      CHECK_BUSY, "banner 421 full", "(TLS)", UNKNOWN },
    { "implicit: a banner in the clear", IMPLICIT, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HI }, 5000,
      CHECK_FAILED, "TLS *", NULL, UNKNOWN },
    { "implicit: closed at once", IMPLICIT, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HANG_UP }, 5000,
      CHECK_FAILED, "TLS *", "", UNKNOWN },
    { "implicit: closed at the hello", IMPLICIT, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { PAUSE, HANG_UP }, 5000,
      CHECK_FAILED, "TLS *", "(hello)", UNKNOWN },
    { "implicit: a handshake that takes too long", IMPLICIT, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { PAUSE, NULL }, 300,
      CHECK_BUSY, "TLS timeout", "(hello)", UNKNOWN },
    { "implicit: no banner in it", IMPLICIT, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { SECURE, NULL }, 300,
      CHECK_BUSY, "banner timeout", "(TLS)", UNKNOWN },
    { "implicit: behind a PROXY header", IMPLICIT, DEPTH_EHLO, CONFIG_IDENTITY_PROXY_V1, GOOD, NULL,
      { HEADER, HI, INSIDE, BYE }, 5000, CHECK_PASSED, "", "PROXY*(TLS)" EHLO QUIT, SMTP_CAP_DSN },
    { "implicit-verify", IMPLICIT_VERIFY, DEPTH_EHLO, ANONYMOUS, GOOD, "relay.test", { SECURE, HI, INSIDE, BYE }, 5000,
      CHECK_PASSED, "", "(TLS)" EHLO QUIT, SMTP_CAP_DSN },
    { "implicit-verify: wrong name", IMPLICIT_VERIFY, DEPTH_EHLO, ANONYMOUS, GOOD, "other.test", { SECURE, HI }, 5000,
      CHECK_FAILED, "TLS " FAILED "hostname mismatch", "", UNKNOWN },
    { "implicit-verify: no name", IMPLICIT_VERIFY, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { SECURE, HI }, 5000,
      CHECK_FAILED, "TLS " FAILED "*", "", UNKNOWN },

    { "require: any certificate", REQUIRE, DEPTH_EHLO, ANONYMOUS, EXPIRED, "other.test",
      { HI, OFFERED, GO, INSIDE, BYE }, 5000, CHECK_PASSED, "", START "(TLS)" EHLO QUIT, SMTP_CAP_DSN },
    { "require: banner", REQUIRE, DEPTH_BANNER, ANONYMOUS, GOOD, NULL, { HI, BYE }, 5000,
      CHECK_PASSED, "", QUIT, UNKNOWN },
    { "require: not offered", REQUIRE, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HI, INSIDE, BYE }, 5000,
      CHECK_FAILED, "STARTTLS is not offered", EHLO QUIT, UNKNOWN },
    { "require: HELO only", REQUIRE, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HI, "500 what\r\n", "250 hi\r\n", BYE }, 5000,
      CHECK_FAILED, "STARTTLS is not offered", EHLO "HELO weir.test\r\n" QUIT, UNKNOWN },
    { "require: 454", REQUIRE, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HI, OFFERED, "454 later\r\n", BYE }, 5000,
      CHECK_FAILED, "STARTTLS 454 later", START QUIT, UNKNOWN },
    { "require: no handshake", REQUIRE, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HI, OFFERED, "220 go\r\n", "500 what\r\n" }, 5000,
      CHECK_FAILED, "TLS *", START "(hello)", UNKNOWN },
    { "require: no handshake in time", REQUIRE, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HI, OFFERED, "220 go\r\n", NULL }, 300,
      CHECK_FAILED, "TLS timeout", START "(hello)", UNKNOWN },
    { "require: more behind the 220", REQUIRE, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HI, OFFERED, "220 go\r\n250 evil\r\n" }, 5000,
      CHECK_FAILED, "STARTTLS followed by more than was asked for", START, UNKNOWN },
    { "require: closed inside", REQUIRE, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HI, OFFERED, GO, HANG_UP }, 5000,
      CHECK_FAILED, "EHLO closed", START "(TLS)" EHLO, UNKNOWN },
    { "require: XCLIENT inside", REQUIRE, DEPTH_EHLO, CONFIG_IDENTITY_XCLIENT, GOOD, NULL,
      { HI, OFFERED, GO, INSIDE, "220 anew\r\n", INSIDE, BYE }, 5000,
      CHECK_PASSED, "", START "(TLS)" EHLO "XCLIENT ADDR=127.0.0.1\r\n" EHLO QUIT, SMTP_CAP_DSN },

    { "verify", VERIFY, DEPTH_EHLO, ANONYMOUS, GOOD, "relay.test", { HI, OFFERED, GO, INSIDE, BYE }, 5000,
      CHECK_PASSED, "", START "(TLS)" EHLO QUIT, SMTP_CAP_DSN },
    { "verify: wrong name", VERIFY, DEPTH_EHLO, ANONYMOUS, GOOD, "other.test", { HI, OFFERED, GO }, 5000,
      CHECK_FAILED, "TLS " FAILED "hostname mismatch", START, UNKNOWN },
    { "verify: expired", VERIFY, DEPTH_EHLO, ANONYMOUS, EXPIRED, "relay.test", { HI, OFFERED, GO }, 5000,
      CHECK_FAILED, "TLS " FAILED "certificate has expired", START, UNKNOWN },
    { "verify: self-signed", VERIFY, DEPTH_STARTTLS, ANONYMOUS, STRANGE, "relay.test", { HI, OFFERED, GO }, 5000,
      CHECK_FAILED, "TLS " FAILED "self-signed certificate", START, UNKNOWN },

    { "opportunistic", OPPORTUNISTIC, DEPTH_EHLO, ANONYMOUS, EXPIRED, NULL, { HI, OFFERED, GO, INSIDE, BYE }, 5000,
      CHECK_PASSED, "", START "(TLS)" EHLO QUIT, SMTP_CAP_DSN },
    { "opportunistic: not offered", OPPORTUNISTIC, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HI, INSIDE, BYE }, 5000,
      CHECK_PASSED, "", EHLO QUIT, SMTP_CAP_DSN },
    { "opportunistic: 454", OPPORTUNISTIC, DEPTH_EHLO, ANONYMOUS, GOOD, NULL, { HI, OFFERED, "454 later\r\n", BYE }, 5000,
      CHECK_PASSED, "", START QUIT, SMTP_CAP_SIZE | SMTP_CAP_STARTTLS },
    { "opportunistic: no handshake", OPPORTUNISTIC, DEPTH_EHLO, ANONYMOUS, GOOD, NULL,
      { HI, OFFERED, "220 go\r\n", "500 what\r\n" }, 5000,
      CHECK_PASSED, "", START "(hello)", SMTP_CAP_SIZE | SMTP_CAP_STARTTLS },
    { "opportunistic: closed at the hello", OPPORTUNISTIC, DEPTH_EHLO, ANONYMOUS, GOOD, NULL,
      { HI, OFFERED, "220 go\r\n", HANG_UP }, 5000,
      CHECK_PASSED, "", START "(hello)", SMTP_CAP_SIZE | SMTP_CAP_STARTTLS },
    { "opportunistic: no handshake in time", OPPORTUNISTIC, DEPTH_EHLO, ANONYMOUS, GOOD, NULL,
      { HI, OFFERED, "220 go\r\n", NULL }, 300,
      CHECK_PASSED, "", START "(hello)", SMTP_CAP_SIZE | SMTP_CAP_STARTTLS },
    { "opportunistic, depth starttls", OPPORTUNISTIC, DEPTH_STARTTLS, ANONYMOUS, GOOD, NULL,
      { HI, OFFERED, GO, INSIDE, BYE }, 5000, CHECK_PASSED, "", START "(TLS)" EHLO QUIT, SMTP_CAP_DSN },
    { "opportunistic, depth starttls: not offered", OPPORTUNISTIC, DEPTH_STARTTLS, ANONYMOUS, GOOD, NULL, { HI, INSIDE, BYE },
      5000, CHECK_FAILED, "STARTTLS is not offered", EHLO QUIT, UNKNOWN },
    { "opportunistic, depth starttls: 454", OPPORTUNISTIC, DEPTH_STARTTLS, ANONYMOUS, GOOD, NULL,
      { HI, OFFERED, "454 later\r\n", BYE }, 5000, CHECK_FAILED, "STARTTLS 454 later", START QUIT, UNKNOWN },
    { "opportunistic, depth starttls: no handshake", OPPORTUNISTIC, DEPTH_STARTTLS, ANONYMOUS, GOOD, NULL,
      { HI, OFFERED, "220 go\r\n", "500 what\r\n" }, 5000, CHECK_FAILED, "TLS *", START "(hello)", UNKNOWN },
};
/* clang-format on */

/* A '*' stands for anything. */
static void assert_like(const char *text, const char *expected)
{
    const char *star = strchr(expected, '*');

    if (!star) {
        assert_string_equal(text, expected);
        return;
    }
    if (strncmp(text, expected, (size_t)(star - expected)) != 0 || strlen(text) < strlen(expected) - 1 ||
        strcmp(text + strlen(text) - strlen(star + 1), star + 1) != 0)
        fail_msg("\"%s\" is not like \"%s\"", text, expected);
}

static void check_row(struct ev_loop *loop, const struct row *row)
{
    static const struct address anywhere;
    const struct tls_server *servers[] = { good_server, expired_server, strange_server };
    bool verifies = row->tls == VERIFY || row->tls == IMPLICIT_VERIFY;
    struct relay relay;
    struct outcome outcome = { .decided = 0 };
    const struct check_handler handler = { on_decided, on_ended, &outcome };
    char *name = row->tls_name ? strdup(row->tls_name) : NULL;
    struct check_target target = {
        .address = &relay.address,
        .source = &anywhere,
        .hostname = "weir.test",
        .depth = row->depth,
        .identity = row->identity,
        .tls = row->tls,
        .tls_client = row->tls == OFF ? NULL
                      : verifies      ? verifying
                                      : unverified,
        .tls_name = name,
        .timeout = row->timeout,
    };

    relay_open(&relay, loop, servers[row->certificate], row->script);
    assert_non_null(check_start(loop, &target, &handler));
    free(name); /* it is not kept */
    run_until(loop, is_ended, &outcome);
    assert_int_equal(outcome.decided, 1);
    assert_like(outcome.reason, row->reason);
    assert_int_equal(outcome.result.verdict, row->verdict);
    if (row->heard)
        assert_like(relay.heard, row->heard);
    assert_int_equal(outcome.result.capabilities_known, row->capabilities != UNKNOWN);
    if (outcome.result.capabilities_known)
        assert_int_equal(outcome.result.capabilities.flags, row->capabilities);
    relay_close(&relay);
}

static void test_scripts(void **state)
{
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        print_message("  %s\n", rows[i].name);
        check_row(loop, &rows[i]);
    }
    ev_loop_destroy(loop);
}

/* Nobody listens: said as without TLS. */
static void test_refused(void **state)
{
    static const char *const script[TURNS] = { NULL };
    static const struct address anywhere;
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    struct relay relay;
    struct outcome outcome = { .decided = 0 };
    const struct check_handler handler = { on_decided, on_ended, &outcome };
    struct check_target target = { .address = &relay.address,
                                   .source = &anywhere,
                                   .hostname = "weir.test",
                                   .depth = DEPTH_EHLO,
                                   .tls = IMPLICIT,
                                   .tls_client = unverified,
                                   .timeout = 5000 };

    (void)state;
    relay_open(&relay, loop, good_server, script);
    relay_close(&relay);
    assert_non_null(check_start(loop, &target, &handler));
    run_until(loop, is_ended, &outcome);
    assert_string_equal(outcome.reason, "connect refused");
    ev_loop_destroy(loop);
}

/* --- a reload --- */

static struct farm *make_farm(const struct relay *relay, struct farm *old)
{
    char text[1024];
    struct config *config;
    struct farm *farm;

    (void)snprintf(text, sizeof text,
                   "hostname: weir.test\n" LISTENER
                   "pools: { relays: { tls: verify, ca: \"%s\", health: { interval: 1h },\n"
                   "  backends: { a: { address: \"127.0.0.1:%d\", tls-name: relay.test } } } }\n",
                   fixture_path(&fixture, "ca.pem"), ntohs(relay->address.in.sin_port));
    config = parse_good(text);
    farm = farm_create(config, old);
    assert_non_null(farm);
    farm_commit(farm);
    config_release(&config);
    return farm;
}

static void on_change(void *arg, struct backend *backend, enum backend_state from)
{
    (void)arg;
    (void)backend;
    (void)from;
}

static bool has_heard_ehlo(void *arg)
{
    return strcmp(((struct relay *)arg)->heard + strcspn(((struct relay *)arg)->heard, "\n"), "\n") == 0;
}

static bool is_judged(void *arg)
{
    return atomic_load(&((struct backend *)arg)->state) != BACKEND_INIT;
}

/* What the check began with is gone when it comes to the handshake, but for what it holds itself. */
static void test_reload(void **state)
{
    static const char *const script[TURNS] = { HI, PAUSE, OFFERED, GO, INSIDE, BYE };
    struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
    struct relay relay;
    struct farm *farm, *next;
    struct health *health = health_open(loop, &(struct health_watcher){ .on_change = on_change });

    (void)state;
    assert_non_null(health);
    relay_open(&relay, loop, good_server, script);
    farm = make_farm(&relay, NULL);
    health_set_farm(health, farm);
    run_until(loop, has_heard_ehlo, &relay);
    next = make_farm(&relay, farm);
    health_set_farm(health, next);
    farm_release(&farm);
    relay_say(&relay);
    run_until(loop, is_judged, next->backends[0]);
    assert_int_equal(atomic_load(&next->backends[0]->state), BACKEND_UP);
    assert_int_equal(relay.accepted, 1);
    assert_like(relay.heard, START "(TLS)" EHLO "*");
    relay_close(&relay);
    health_close(&health);
    farm_release(&next);
    ev_loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scripts),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_reload),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
