/*
 * Replays the dialogs of tests/dialogs: whole, octet by octet, and split at random, each time with the same
 * result. tests/dialogs/README.md describes the files.
 *
 *     test_dialog [FILE…]              of all dialogs, or of some files
 *     DIALOG_CORPUS=DIR test_dialog    also writes each as an input of fuzz_dialog
 */
#include <ctype.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "smtp/dialog.h"

static void broken(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
#define CHECK(condition, message)                                                                            \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            broken("%s (%s:%d)", message, __FILE__, __LINE__);                                               \
    } while (0)

#include "tests/dialogs/driver.h"
#include "tests/dialogs/script.h"

#define SPLITS        8    /* random replays of each dialog */
#define SINGLE_OCTETS 8192 /* a longer segment is cut into pieces of a few octets in place of one */

static struct script *macros;
static const struct line *at; /* where the replay is */
static const char *mode;
static jmp_buf give_up;

static void broken(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%u [%s]: ", at ? at->file : "?", at ? at->number : 0, mode ? mode : "read");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    longjmp(give_up, 1);
}

/* --- one replay --- */

struct replay {
    struct driver driver;
    struct smtp_policy policy;
    struct smtp_capabilities offer;
    bool stranger, xclient_from, routes, begun;
    int limit_messages, limit_recipients; /* -1: none */
    enum smtp_channel channel;
    enum smtp_backend_tls backend_tls;
    enum smtp_introduction introduction;
    bool whole; /* the next segment is not split */
    char side;  /* whose segment is being gathered: 'C', 'B' or 0 */
    struct text segment;
    uint64_t fed;  /* octets of the client */
    size_t action; /* the first that has not been expected yet */
    unsigned random;
    FILE *corpus;
};

static struct {
    bool client[SMTP_CLIENT_STATES], backend[SMTP_BACKEND_STATES], timer[SMTP_TIMERS], loss[SMTP_LOSSES],
        outcome[6];
} seen;

static void print_action(FILE *out, const struct replay *r, size_t i)
{
    const struct smtp_action_arg *arg = &r->driver.actions[i];
    const struct smtp_transaction *t = &r->driver.transactions[i];

    switch (arg->action) {
    case SMTP_ACTION_NONE: break;
    case SMTP_ACTION_NEED_BACKEND:
        fprintf(out, "NEED_BACKEND needs=");
        print_capabilities(out, arg->need.needs);
        fprintf(out, " size=%llu%s", (unsigned long long)arg->need.size, r->driver.whom[i]);
        break;
    case SMTP_ACTION_ROUTE: fprintf(out, "ROUTE%s", r->driver.whom[i]); break;
    case SMTP_ACTION_BACKEND_GREETED: fprintf(out, "GREETED"); break;
    case SMTP_ACTION_REPLIED:
        fprintf(out, "REPLIED %s %d%s status=%d.%d", smtp_verb_name(arg->replied.verb), arg->replied.code,
                arg->replied.final ? " final" : "", arg->replied.status_class, arg->replied.subject);
        break;
    case SMTP_ACTION_STARTTLS_CLIENT: fprintf(out, "STARTTLS_CLIENT"); break;
    case SMTP_ACTION_STARTTLS_BACKEND: fprintf(out, "STARTTLS_BACKEND"); break;
    case SMTP_ACTION_RECONNECT_BACKEND: fprintf(out, "RECONNECT_BACKEND"); break;
    case SMTP_ACTION_QUIT_BACKEND: fprintf(out, "QUIT_BACKEND"); break;
    case SMTP_ACTION_ABORT_BACKEND: fprintf(out, "ABORT_BACKEND %s", smtp_loss_name(arg->loss)); break;
    case SMTP_ACTION_XCLIENT:
        fprintf(out, "XCLIENT port=%u helo=%s", r->driver.xclients[i].port, r->driver.xclients[i].helo);
        break;
    case SMTP_ACTION_TRANSACTION:
        fprintf(out, "TRANSACTION %s rcpts=%u/%u code=%d size=%llu from=%.*s", outcomes[t->outcome],
                t->accepted, t->recipients, t->code, (unsigned long long)t->size, (int)t->from_size, t->from);
        break;
    case SMTP_ACTION_CLOSE:
        fprintf(out, "CLOSE %s%s", smtp_ending_name((enum smtp_ending)r->driver.dialog.ending),
                arg->linger ? "" : " at-once");
        break;
    }
}

static char *action_text(const struct replay *r, size_t i)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    print_action(out, r, i);
    fclose(out);
    return text;
}

static bool informational(const struct replay *r)
{
    enum smtp_action action = r->driver.actions[r->action].action;

    return action == SMTP_ACTION_REPLIED || action == SMTP_ACTION_BACKEND_GREETED;
}

/* Everything that came has been expected. */
static void expect_no_more(struct replay *r)
{
    while (r->action < r->driver.n_actions && informational(r))
        r->action++;
    if (r->driver.to_client.size)
        quote("unexpected, to the client", &r->driver.to_client);
    if (r->driver.to_backend.size)
        quote("unexpected, to the backend", &r->driver.to_backend);
    if (r->action < r->driver.n_actions)
        broken("unexpected before this: %s", action_text(r, r->action));
    if (r->driver.to_client.size || r->driver.to_backend.size)
        broken("octets that nobody expected before this");
    r->driver.n_actions = r->action = 0;
}

/* What was said to be left is what was entered before. */
static void traced(const char *side, const char *from, const char *to)
{
    static char now[2][16];
    char *last = now[side[0] == 'b'];

    CHECK(!last[0] || strcmp(from, last) == 0 || strcmp(from, "GREETING") == 0 || strcmp(from, "NONE") == 0,
          "a change of state that was not traced");
    snprintf(last, sizeof now[0], "%s", to);
}

static void look(struct replay *r)
{
    uint32_t serial;
    uint64_t size = smtp_dialog_body_size(&r->driver.dialog);

    CHECK(size <= 2 * r->fed, "more of a body than was fed, each LF normalized");

    seen.client[smtp_dialog_client_state(&r->driver.dialog)] = true;
    seen.backend[smtp_dialog_backend_state(&r->driver.dialog)] = true;
    seen.timer[smtp_dialog_timer(&r->driver.dialog, &serial)] = true;
}

static size_t piece_size(struct replay *r)
{
    r->random = r->random * 1103515245 + 12345;
    if (strcmp(mode, "octets") == 0)
        return r->segment.size > SINGLE_OCTETS ? 1 + (r->random >> 16) % 61 : 1;
    /* Now small pieces, now large ones. */
    return 1 + (r->random >> 16) % ((r->random >> 8) % 4 ? 12 : 4096);
}

/* Feed what has been gathered. */
static void flush_segment(struct replay *r)
{
    struct text *segment = &r->segment;
    bool split = strcmp(mode, "whole") != 0 && !r->whole;

    if (!r->side)
        return;
    if (r->corpus) {
        fputc(r->whole || r->random % 2 ? r->side : r->side - 'A' + 'a', r->corpus);
        fwrite(segment->data, 1, segment->size, r->corpus);
        fputc(0x1E, r->corpus);
    }
    for (size_t done = 0; done < segment->size;) {
        size_t n = split ? piece_size(r) : segment->size;

        if (n > segment->size - done)
            n = segment->size - done;
        (r->side == 'C' ? driver_client : driver_backend)(&r->driver, segment->data + done, n);
        r->fed += n;
        look(r);
        done += n;
    }
    segment->size = 0;
    r->whole = false;
    r->side = 0;
}

static void gather(struct replay *r, char side, const char *text, char how)
{
    if (r->side != side) {
        flush_segment(r);
        expect_no_more(r);
        r->side = side;
    }
    unescape(&r->segment, text);
    if (how == ':')
        text_add(&r->segment, "\r\n", 2);
}

/* `how`: ':' a line, '~' octets, '*' these octets or the first of them. */
static void expect_octets(struct replay *r, char side, const char *text, char how)
{
    struct text *got = side == 'c' ? &r->driver.to_client : &r->driver.to_backend, wanted = { 0 };

    flush_segment(r);
    unescape(&wanted, text);
    if (how == ':')
        text_add(&wanted, "\r\n", 2);
    if (how == '*' && got->size < wanted.size)
        wanted.size = got->size;
    if (got->size < wanted.size || (wanted.size && memcmp(got->data, wanted.data, wanted.size) != 0)) {
        quote("expected", &wanted);
        quote("got     ", got);
        broken("the %s got something else", side == 'c' ? "client" : "backend");
    }
    text_take(got, wanted.size);
    text_free(&wanted);
}

/* Each word of what is expected is one of the action's, and its name the first. */
static void expect_action(struct replay *r, const char *expected)
{
    char *copy = strdup(expected), *rest = copy, *actual;
    bool first = true;

    flush_segment(r);
    while (r->action < r->driver.n_actions && informational(r) && !after(expected, "REPLIED") &&
           !after(expected, "GREETED"))
        r->action++;
    if (r->action == r->driver.n_actions)
        broken("no such action: %s", expected);
    if (r->driver.actions[r->action].action == SMTP_ACTION_ABORT_BACKEND)
        seen.loss[r->driver.actions[r->action].loss] = true;
    if (r->driver.actions[r->action].action == SMTP_ACTION_TRANSACTION)
        seen.outcome[r->driver.transactions[r->action].outcome] = true;
    actual = action_text(r, r->action++);
    for (char *word; (word = strsep(&rest, " "));) {
        const char *found = strstr(actual, word);
        size_t n = strlen(word);

        while (found && ((found > actual && found[-1] != ' ') || (found[n] && found[n] != ' ')))
            found = strstr(found + 1, word);
        if (!found || (first && found != actual))
            broken("the action is: %s", actual);
        first = false;
    }
    free(actual);
    free(copy);
}

static void set_policy(struct replay *r, const char *text)
{
    char *copy = strdup(text), *rest = copy;

    for (char *word; (word = strsep(&rest, " "));) {
        char *value = strchr(word, '=');

        if (value)
            *value++ = '\0';
        if (strcmp(word, "stranger") == 0)
            r->stranger = true;
        else if (strcmp(word, "xclient-from") == 0)
            r->xclient_from = true;
        else if (strcmp(word, "routes") == 0)
            r->routes = true;
        else if (strcmp(word, "greet-delay") == 0)
            r->policy.greet_delay = true;
        else if (strcmp(word, "auth") == 0)
            r->policy.auth = true;
        else if (!value)
            broken("no policy %s", word);
        else if (strcmp(word, "starttls") == 0)
            r->policy.starttls =
                strcmp(value, "required") == 0 ? SMTP_STARTTLS_REQUIRED : SMTP_STARTTLS_OFFERED;
        else if (strcmp(word, "channel") == 0)
            r->channel = strcmp(value, "tls") == 0 ? SMTP_CHANNEL_TLS : SMTP_CHANNEL_LOCAL;
        else if (strcmp(word, "backend-tls") == 0)
            r->backend_tls = strcmp(value, "required") == 0   ? SMTP_BACKEND_TLS_REQUIRED
                             : strcmp(value, "implicit") == 0 ? SMTP_BACKEND_TLS_IMPLICIT
                                                              : SMTP_BACKEND_TLS_OPPORTUNISTIC;
        else if (strcmp(word, "introduce") == 0)
            r->introduction = strcmp(value, "xclient") == 0    ? SMTP_INTRODUCE_XCLIENT
                              : strcmp(value, "xforward") == 0 ? SMTP_INTRODUCE_XFORWARD
                                                               : SMTP_INTRODUCE_PROXY;
        else if (strcmp(word, "newline") == 0)
            r->policy.newline =
                strcmp(value, "normalize") == 0 ? SMTP_NEWLINE_NORMALIZE : SMTP_NEWLINE_REJECT;
        else if (strcmp(word, "max-errors") == 0)
            r->policy.max_errors = (uint32_t)atoi(value);
        else if (strcmp(word, "max-recipients") == 0)
            r->policy.max_recipients = (uint32_t)atoi(value);
        else if (strcmp(word, "limit-messages") == 0)
            r->limit_messages = atoi(value);
        else if (strcmp(word, "limit-recipients") == 0)
            r->limit_recipients = atoi(value);
        else if (strcmp(word, "max-size") == 0)
            r->policy.max_message_size = (uint64_t)atoll(value);
        else if (strcmp(word, "size-limit") == 0)
            r->offer.size_limit = (uint64_t)atoll(value);
        else if (strcmp(word, "offer") == 0)
            r->offer.flags = parse_capabilities(value);
        else
            broken("no policy %s", word);
    }
    free(copy);
}

static enum smtp_loss parse_loss(const char *name)
{
    for (int loss = 0; loss < SMTP_LOSSES; loss++)
        if (strcmp(name, smtp_loss_name((enum smtp_loss)loss)) == 0)
            return (enum smtp_loss)loss;
    broken("no loss %s", name);
}

static void do_event(struct replay *r, const char *text)
{
    static const struct {
        const char *name;
        enum smtp_event_kind kind;
        char letter;
    } kinds[] = {
        {"START",            SMTP_EVENT_START,            'S'},
        { "REFUSE",          SMTP_EVENT_REFUSE,           'R'},
        { "ASSIGNED",        SMTP_EVENT_BACKEND_ASSIGNED, 'A'},
        { "REFUSED",         SMTP_EVENT_BACKEND_REFUSED,  'F'},
        { "LOST",            SMTP_EVENT_BACKEND_LOST,     'L'},
        { "LEAVE",           SMTP_EVENT_BACKEND_LEAVE,    'M'},
        { "KEEP",            SMTP_EVENT_BACKEND_KEEP,     'E'},
        { "CLIENT_LOST",     SMTP_EVENT_CLIENT_LOST,      'X'},
        { "TIMEOUT",         SMTP_EVENT_TIMEOUT,          'T'},
        { "DRAIN",           SMTP_EVENT_DRAIN,            'D'},
        { "STOP",            SMTP_EVENT_STOP,             'K'},
        { "CLIENT_SECURED",  SMTP_EVENT_CLIENT_SECURED,   'U'},
        { "BACKEND_SECURED", SMTP_EVENT_BACKEND_SECURED,  'V'},
    };
    struct smtp_event event;
    struct text reply = { 0 };
    const char *argument = NULL;
    size_t i = 0;

    flush_segment(r);
    expect_no_more(r);
    while (i < sizeof kinds / sizeof *kinds && !(argument = after(text, kinds[i].name)))
        i++;
    if (!argument)
        broken("no event %s", text);
    event.kind = kinds[i].kind;
    if (event.kind == SMTP_EVENT_REFUSE || event.kind == SMTP_EVENT_BACKEND_REFUSED) {
        unescape(&reply, argument);
        text_add(&reply, "\r\n", 3);
        event.reply = reply.data;
    } else if (event.kind == SMTP_EVENT_BACKEND_LOST) {
        event.loss = parse_loss(argument);
    } else if (event.kind == SMTP_EVENT_BACKEND_LEAVE) {
        event.must = strcmp(argument, "must") == 0;
    } else if (event.kind == SMTP_EVENT_BACKEND_ASSIGNED) {
        event.may_have_secrets = strcmp(argument, "near") == 0;
    }
    if (r->corpus && event.kind != SMTP_EVENT_START)
        fprintf(r->corpus, "%c\x1e",
                reply.data && reply.data[0] == '4' && reply.data[1] == '2' ? 'G' : kinds[i].letter);
    driver_event(&r->driver, &event);
    look(r);
    text_free(&reply);
}

static void expect_state(struct replay *r, const char *text)
{
    enum smtp_client_state client = smtp_dialog_client_state(&r->driver.dialog);
    enum smtp_backend_state backend = smtp_dialog_backend_state(&r->driver.dialog);
    uint32_t serial;
    char now[80];

    snprintf(now, sizeof now, "%s %s %s", smtp_client_state_name(client), smtp_backend_state_name(backend),
             timers[smtp_dialog_timer(&r->driver.dialog, &serial)]);
    if (strcmp(now, text) != 0)
        broken("the state is %s", now);
}

static const struct smtp_identity somebody = { .address = "198.51.100.23", .port = 4711 };

static void begin(struct replay *r)
{
    unsigned choice = (r->policy.newline == SMTP_NEWLINE_NORMALIZE ? 1u : 0) |
                      (r->policy.greet_delay ? 2u : 0) | (r->policy.max_recipients < 1000 ? 4u : 0) |
                      (r->offer.size_limit || r->policy.max_message_size ? 8u : 0) |
                      (r->policy.max_errors < 20 ? 16u : 0) | (r->offer.flags & SMTP_CAP_CHUNKING ? 0 : 32u) |
                      (r->stranger ? 64u : 0) | 128u;
    bool limited = r->limit_messages >= 0 || r->limit_recipients >= 0;
    unsigned secure = (unsigned)r->policy.starttls | (r->policy.auth ? 4u : 0) |
                      (r->channel == SMTP_CHANNEL_TLS ? 8u : 0) | (unsigned)r->backend_tls << 4 |
                      (r->routes ? 64u : 0) | (limited ? 128u : 0);

    if (r->begun)
        return;
    r->begun = true;
    if (r->corpus)
        fprintf(r->corpus, "%c%c", (int)choice, (int)secure);
    driver_begin(&r->driver, &r->policy, &r->offer, !r->stranger);
    smtp_dialog_protect(&r->driver.dialog, r->channel);
    smtp_dialog_secure_backends(&r->driver.dialog, r->backend_tls);
    if (r->xclient_from)
        smtp_dialog_trust_xclient(&r->driver.dialog);
    if (r->routes)
        smtp_dialog_follow_routes(&r->driver.dialog);
    if (limited)
        driver_limit(&r->driver, (unsigned)r->limit_messages, (unsigned)r->limit_recipients);
    smtp_dialog_introduce(&r->driver.dialog, r->introduction, &somebody);
}

static void play_line(struct replay *r, const char *text)
{
    const char *argument;
    char kind = text[0];

    if ((argument = after(text, "policy"))) {
        set_policy(r, argument);
        return;
    }
    begin(r);
    if (text[0] && strchr(":~*", text[1])) {
        const char *octets = text + 2 + (text[2] == ' ');

        if (kind == 'C' || kind == 'B')
            gather(r, kind, octets, text[1]);
        else if (kind == 'c' || kind == 'b')
            expect_octets(r, kind, octets, text[1]);
        else
            broken("C, c, B or b is meant");
    } else if ((argument = after(text, "event"))) {
        do_event(r, argument);
    } else if ((argument = after(text, "action"))) {
        expect_action(r, argument);
    } else if ((argument = after(text, "state"))) {
        flush_segment(r);
        expect_state(r, argument);
    } else if (strcmp(text, "whole") == 0) {
        flush_segment(r);
        expect_no_more(r);
        r->whole = true;
    } else {
        broken("not understood: %s", text);
    }
}

/* Returns whether all went as it should. */
static bool play(const struct line *lines, size_t n, unsigned seed, FILE *corpus)
{
    struct replay *r = calloc(1, sizeof *r);
    volatile bool good = false;

    r->policy = (struct smtp_policy){
        .hostname = "weir.test", .max_recipients = 1000, .max_errors = 20, .trace = traced
    };
    r->offer.flags = SMTP_CAP_PIPELINING | SMTP_CAP_CARRIED;
    r->limit_messages = r->limit_recipients = -1;
    r->random = seed;
    r->corpus = corpus;
    if (setjmp(give_up) == 0) {
        for (size_t i = 0; i < n; i++) {
            at = &lines[i];
            play_line(r, lines[i].text);
        }
        flush_segment(r);
        expect_no_more(r);
        good = true;
    }
    if (r->begun)
        driver_end(&r->driver);
    text_free(&r->segment);
    free(r);
    return good;
}

/* --- all of them --- */

/* Those beyond this size would only slow the fuzzer down. */
#define CORPUS_MAX 4096

static void write_corpus(const char *name, const struct line *lines, size_t n)
{
    const char *directory = getenv("DIALOG_CORPUS"), *file = strrchr(lines[-1].file, '/');
    char path[512];
    size_t size;
    FILE *out;

    if (!directory)
        return;
    size = (size_t)snprintf(path, sizeof path, "%s/%.*s-", directory, (int)strcspn(file + 1, "."), file + 1);
    for (; *name && size < sizeof path - 2; name++) {
        if (isalnum((unsigned char)*name))
            path[size++] = (char)tolower((unsigned char)*name);
        else if (path[size - 1] != '-')
            path[size++] = '-';
    }
    path[size] = '\0';
    out = fopen(path, "w");
    if (!out)
        return;
    mode = "whole";
    play(lines, n, (unsigned)n, out);
    if (ftell(out) > CORPUS_MAX)
        unlink(path);
    fclose(out);
}

static bool play_dialog(const char *name, const struct line *lines, size_t n)
{
    static char split[32];

    mode = "whole";
    if (!play(lines, n, 1, NULL))
        return false;
    mode = "octets";
    if (!play(lines, n, 1, NULL))
        return false;
    mode = split;
    for (unsigned seed = 1; seed <= SPLITS; seed++) {
        snprintf(split, sizeof split, "split %u", seed);
        if (!play(lines, n, seed * 7919, NULL))
            return false;
    }
    write_corpus(name, lines, n);
    return true;
}

static void play_file(void **state)
{
    struct script *script;
    volatile unsigned failures = 0, dialogs = 0;
    const char *path = *state;

    if (setjmp(give_up) == 0) {
        at = NULL;
        script = script_load(path, macros);
        for (size_t i = 0, end; i < script->n; i = end) {
            const char *name = after(script->lines[i].text, "dialog");

            at = &script->lines[i];
            if (!name)
                broken("a dialog begins with its name");
            for (end = i + 1; end < script->n && !after(script->lines[end].text, "dialog");)
                end++;
            dialogs++;
            if (!play_dialog(name, &script->lines[i + 1], end - i - 1)) {
                fprintf(stderr, "    in \"%s\"\n", name);
                failures++;
            }
        }
    } else {
        failures++;
    }
    printf("%s: %u dialogs\n", path, dialogs);
    assert_int_equal(failures, 0);
    assert_true(dialogs > 0);
}

/* Together the dialogs have been everywhere. */
static void test_seen_all(void **state)
{
    (void)state;
    for (int i = 0; i < SMTP_CLIENT_STATES; i++)
        if (!seen.client[i])
            fail_msg("no dialog enters %s", smtp_client_state_name((enum smtp_client_state)i));
    for (int i = 0; i < SMTP_BACKEND_STATES; i++)
        if (!seen.backend[i])
            fail_msg("no dialog enters %s", smtp_backend_state_name((enum smtp_backend_state)i));
    for (int i = 0; i < SMTP_TIMERS; i++)
        if (!seen.timer[i])
            fail_msg("no dialog waits on %s", timers[i]);
    for (int i = 0; i < SMTP_LOSSES; i++)
        if (!seen.loss[i])
            fail_msg("no dialog loses a backend for %s", smtp_loss_name((enum smtp_loss)i));
    for (int i = 0; i < 6; i++)
        if (!seen.outcome[i])
            fail_msg("no transaction is %s", outcomes[i]);
}

static bool load_macros(void)
{
    if (setjmp(give_up) != 0)
        return false;
    macros = script_load("tests/dialogs/macros", NULL);
    return true;
}

int main(int argc, char **argv)
{
    glob_t found = { 0 };
    char **paths = argv + 1;
    size_t n = (size_t)(argc - 1);
    struct CMUnitTest *tests;
    int failed;

    if (!n && glob("tests/dialogs/*.dialog", 0, NULL, &found) == 0) {
        paths = found.gl_pathv;
        n = found.gl_pathc;
    }
    if (!load_macros())
        return 1;
    tests = calloc(n + 1, sizeof *tests);
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){ .name = paths[i], .test_func = play_file, .initial_state = paths[i] };
    tests[n] = (struct CMUnitTest)cmocka_unit_test(test_seen_all);
    failed = _cmocka_run_group_tests("dialogs", tests, argc > 1 ? n : n + 1, NULL, NULL);
    free(tests);
    globfree(&found);
    return failed || !n;
}
