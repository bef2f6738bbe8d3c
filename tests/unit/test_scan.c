/*
 * The end-of-data and newline scanner, against a table of known tricks, against a model that reads whole
 * bodies line by line, and its block finders against each other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef skip /* a macro of cmocka, a member of struct smtp_scan_block */

#include "smtp/scan.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static uint32_t random_state = 2463534242u;

static uint32_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

/* What came of a body: the octets passed on and inserted, and how it ended. */
struct outcome {
    char *out; /* malloced */
    size_t size;
    enum smtp_scan_verdict verdict; /* MORE, END, BARE_LF or BARE_CR */
    size_t taken;                   /* octets of the input */
    bool finish;
};

/* Feed `in` in two pieces, or one if `split` is 0, or octet by octet if it is SIZE_MAX. Each piece is copied
 * to memory of just its size, so that the address sanitizer sees a look beyond it. */
static struct outcome scan(const char *in, size_t size, enum smtp_newline_policy policy, bool dots,
                           size_t split)
{
    struct smtp_scan s;
    struct outcome o = { .out = malloc(4 * size + 4) };

    smtp_scan_start(&s, policy, dots);
    for (size_t at = 0; at < size;) {
        size_t piece = split == SIZE_MAX ? 1 : at < split && split < size ? split - at : size - at;
        char *copy = malloc(piece);

        memcpy(copy, in + at, piece);

        struct smtp_scan_result r = smtp_scan_feed(&s, copy, piece);

        assert_true(r.pass + r.skip <= piece);
        memcpy(o.out + o.size, copy, r.pass);
        free(copy);
        o.size += r.pass;
        at += r.pass + r.skip;
        o.taken = at;
        if (r.insert) {
            assert_int_equal(r.verdict, SMTP_SCAN_EDIT);
            memcpy(o.out + o.size, r.insert, strlen(r.insert));
            o.size += strlen(r.insert);
        }
        assert_true(r.verdict != SMTP_SCAN_MORE || r.pass == piece);
        assert_true(r.verdict != SMTP_SCAN_EDIT || r.insert);
        if (r.verdict != SMTP_SCAN_MORE && r.verdict != SMTP_SCAN_EDIT) {
            o.verdict = r.verdict;
            break;
        }
    }
    o.finish = smtp_scan_finish(&s);
    return o;
}

/* What should come of it, said line by line. A CR at the very end of the input is passed. */
static struct outcome model(const char *in, size_t size, enum smtp_newline_policy policy, bool dots)
{
    struct outcome o = { .out = malloc(4 * size + 4), .finish = true };
    bool proper_before = true;

    for (size_t at = 0; at < size;) {
        size_t end = at; /* of the line's content */

        while (end < size && in[end] != '\n' && in[end] != '\r')
            end++;

        bool has_cr = end < size && in[end] == '\r';
        bool bare_lf = end < size && in[end] == '\n';
        bool crlf = has_cr && end + 1 < size && in[end + 1] == '\n';
        bool lone_dot = dots && end - at == 1 && in[at] == '.';

        memcpy(o.out + o.size, in + at, end - at);
        o.size += end - at;
        o.taken = end;
        if (bare_lf && policy == SMTP_NEWLINE_REJECT) {
            o.verdict = SMTP_SCAN_BARE_LF;
            return o;
        }
        if (lone_dot && (bare_lf || (has_cr && !proper_before)))
            o.out[o.size++] = '.';
        if (has_cr && !crlf) {
            o.finish = false;
            if (end + 1 < size) {
                o.verdict = SMTP_SCAN_BARE_CR;
            } else {
                o.out[o.size++] = '\r';
                o.taken = size;
            }
            return o;
        }
        if (end == size)
            break;
        memcpy(o.out + o.size, "\r\n", 2);
        o.size += 2;
        o.taken = at = end + (crlf ? 2 : 1);
        if (lone_dot && crlf && proper_before) {
            o.verdict = SMTP_SCAN_END;
            return o;
        }
        proper_before = crlf;
    }
    return o;
}

/* No output may ever hold CRLF.CRLF but at its true end, nor a CR or LF outside CRLF; only the CR that came
 * last in its piece may hang. */
static void check_output(const struct outcome *o, bool dots)
{
    for (size_t i = 0; i < o->size; i++) {
        if (o->out[i] == '\n')
            assert_true(i > 0 && o->out[i - 1] == '\r');
        if (o->out[i] == '\r' && i + 1 < o->size)
            assert_int_equal(o->out[i + 1], '\n');
        if (o->out[i] == '\r' && i + 1 == o->size)
            assert_false(o->finish);

        bool ends_data =
            o->size - i >= 3 && memcmp(o->out + i, ".\r\n", 3) == 0 && (i == 0 || o->out[i - 1] == '\n');

        if (dots && ends_data) {
            assert_int_equal(o->verdict, SMTP_SCAN_END);
            assert_int_equal(i + 3, o->size);
        }
    }
    if (o->verdict == SMTP_SCAN_END)
        assert_true(o->size >= 3 && memcmp(o->out + o->size - 3, ".\r\n", 3) == 0);
}

static void compare(const struct outcome *got, const struct outcome *expected)
{
    /* Split behind a bare CR, the CR has gone by when it turns out to be one. */
    bool late_cr = got->verdict == SMTP_SCAN_BARE_CR && got->size == expected->size + 1;

    assert_int_equal(got->verdict, expected->verdict);
    assert_int_equal(got->size, expected->size + late_cr);
    assert_memory_equal(got->out, expected->out, expected->size);
    assert_int_equal(got->taken, expected->taken + late_cr);
    assert_int_equal(got->finish, expected->finish);
    if (late_cr)
        assert_int_equal(got->out[expected->size], '\r');
}

/* In two pieces at `splits` places (at every one, or at random ones if there are more) and octet by octet,
 * under both policies, with dots and without. */
static void check_body(const char *in, size_t size, size_t splits)
{
    for (int variant = 0; variant < 4; variant++) {
        enum smtp_newline_policy policy = variant & 1 ? SMTP_NEWLINE_NORMALIZE : SMTP_NEWLINE_REJECT;
        bool dots = variant & 2;
        struct outcome expected = model(in, size, policy, dots);

        for (size_t n = 0; n <= splits; n++) {
            size_t split = n == splits ? SIZE_MAX : splits == size || n == 0 ? n : random_next() % size;
            struct outcome got = scan(in, size, policy, dots, split);

            compare(&got, &expected);
            check_output(&got, dots);
            free(got.out);
        }
        free(expected.out);
    }
}

struct body_case {
    const char *in;
    size_t size;
    enum smtp_scan_verdict reject, normalize;
    const char *rejected, *normalized; /* what is passed on */
};

#define IN(text) text, sizeof text - 1

/* clang-format off */
static const struct body_case body_cases[] = {
    { IN(".\r\n"), SMTP_SCAN_END, SMTP_SCAN_END, ".\r\n", ".\r\n" },
    { IN("a\r\n.\r\nQUIT\r\n"), SMTP_SCAN_END, SMTP_SCAN_END, "a\r\n.\r\n", "a\r\n.\r\n" },
    { IN("a\r\n..\r\n.b\r\n.\r\n"), SMTP_SCAN_END, SMTP_SCAN_END, "a\r\n..\r\n.b\r\n.\r\n",
     "a\r\n..\r\n.b\r\n.\r\n" },
    { IN("a"), SMTP_SCAN_MORE, SMTP_SCAN_MORE, "a", "a" },
    { IN("a\r\n."), SMTP_SCAN_MORE, SMTP_SCAN_MORE, "a\r\n.", "a\r\n." },
    { IN("a\r\n.\r"), SMTP_SCAN_MORE, SMTP_SCAN_MORE, "a\r\n.\r", "a\r\n.\r" },
    { IN("x\n.\n"), SMTP_SCAN_BARE_LF, SMTP_SCAN_MORE, "x", "x\r\n..\r\n" },
    { IN("x\n.\r\n"), SMTP_SCAN_BARE_LF, SMTP_SCAN_MORE, "x", "x\r\n..\r\n" },
    { IN("x\r\n.\n"), SMTP_SCAN_BARE_LF, SMTP_SCAN_MORE, "x\r\n.", "x\r\n..\r\n" },
    { IN(".\n"), SMTP_SCAN_BARE_LF, SMTP_SCAN_MORE, ".", "..\r\n" },
    { IN("x\n.\r\n.\r\n"), SMTP_SCAN_BARE_LF, SMTP_SCAN_END, "x", "x\r\n..\r\n.\r\n" },
    { IN("x\n\r\n.\r\n"), SMTP_SCAN_BARE_LF, SMTP_SCAN_END, "x", "x\r\n\r\n.\r\n" },
    { IN("\n\n.\n.\r\n"), SMTP_SCAN_BARE_LF, SMTP_SCAN_MORE, "", "\r\n\r\n..\r\n..\r\n" },
    { IN("x\n.y\n"), SMTP_SCAN_BARE_LF, SMTP_SCAN_MORE, "x", "x\r\n.y\r\n" },
    { IN("x\n..\r\n"), SMTP_SCAN_BARE_LF, SMTP_SCAN_MORE, "x", "x\r\n..\r\n" },
    { IN("x\r.\r"), SMTP_SCAN_BARE_CR, SMTP_SCAN_BARE_CR, "x", "x" },
    { IN("x\r.\r\n"), SMTP_SCAN_BARE_CR, SMTP_SCAN_BARE_CR, "x", "x" },
    { IN("x\r.\n"), SMTP_SCAN_BARE_CR, SMTP_SCAN_BARE_CR, "x", "x" },
    { IN("x\n.\r"), SMTP_SCAN_BARE_LF, SMTP_SCAN_MORE, "x", "x\r\n..\r" },
    { IN("x\n.\ry"), SMTP_SCAN_BARE_LF, SMTP_SCAN_BARE_CR, "x", "x\r\n.." },
    { IN("x\r\n.\r\r\n"), SMTP_SCAN_BARE_CR, SMTP_SCAN_BARE_CR, "x\r\n.", "x\r\n." },
    { IN("x\r\n.\r.\r\n"), SMTP_SCAN_BARE_CR, SMTP_SCAN_BARE_CR, "x\r\n.", "x\r\n." },
    { IN("x\r\r\n.\r\n"), SMTP_SCAN_BARE_CR, SMTP_SCAN_BARE_CR, "x", "x" },
    { IN("x\r"), SMTP_SCAN_MORE, SMTP_SCAN_MORE, "x\r", "x\r" },
};
/* clang-format on */

static void test_tricks(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(body_cases); i++) {
        const struct body_case *c = &body_cases[i];
        struct outcome rejected = scan(c->in, c->size, SMTP_NEWLINE_REJECT, true, 0);
        struct outcome normalized = scan(c->in, c->size, SMTP_NEWLINE_NORMALIZE, true, 0);

        assert_int_equal(rejected.verdict, c->reject);
        assert_int_equal(rejected.size, strlen(c->rejected));
        assert_memory_equal(rejected.out, c->rejected, rejected.size);
        assert_int_equal(normalized.verdict, c->normalize);
        assert_int_equal(normalized.size, strlen(c->normalized));
        assert_memory_equal(normalized.out, c->normalized, normalized.size);
        check_body(c->in, c->size, c->size);
        free(rejected.out);
        free(normalized.out);
    }
}

/* NUL is an octet like any other: it neither ends a line nor a message. */
static void test_nul(void **state)
{
    static const struct {
        const char *in;
        size_t size;
    } cases[] = { { IN("x\r\n\0.\r\n") }, { IN("x\r\n.\0\r\n") }, { IN("\0") }, { IN("\0\r\n") } };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct outcome o = scan(cases[i].in, cases[i].size, SMTP_NEWLINE_REJECT, true, 0);

        assert_int_equal(o.verdict, SMTP_SCAN_MORE);
        assert_int_equal(o.size, cases[i].size);
        assert_memory_equal(o.out, cases[i].in, o.size);
        check_body(cases[i].in, cases[i].size, cases[i].size);
        free(o.out);
    }
}

/* The result's own fields, which scan() above folds away. */
static void test_result(void **state)
{
    struct smtp_scan s;
    struct smtp_scan_result r;

    (void)state;
    smtp_scan_start(&s, SMTP_NEWLINE_NORMALIZE, true);
    r = smtp_scan_feed(&s, "ab\n.\r\n", 6);
    assert_int_equal(r.verdict, SMTP_SCAN_EDIT);
    assert_int_equal(r.pass, 2);
    assert_int_equal(r.skip, 1);
    assert_string_equal(r.insert, "\r\n");
    r = smtp_scan_feed(&s, ".\r\n", 3);
    assert_int_equal(r.verdict, SMTP_SCAN_EDIT);
    assert_int_equal(r.pass, 1);
    assert_int_equal(r.skip, 0);
    assert_string_equal(r.insert, ".");
    r = smtp_scan_feed(&s, "\r\n", 2);
    assert_int_equal(r.verdict, SMTP_SCAN_MORE);
    assert_int_equal(r.pass, 2);
    assert_null(r.insert);
    r = smtp_scan_feed(&s, NULL, 0);
    assert_int_equal(r.verdict, SMTP_SCAN_MORE);
    assert_int_equal(r.pass, 0);

    smtp_scan_start(&s, SMTP_NEWLINE_REJECT, true);
    r = smtp_scan_feed(&s, "a\r", 2);
    assert_int_equal(r.verdict, SMTP_SCAN_MORE);
    assert_int_equal(r.pass, 2);
    assert_false(smtp_scan_finish(&s));
    r = smtp_scan_feed(&s, "b", 1);
    assert_int_equal(r.verdict, SMTP_SCAN_BARE_CR);
    assert_int_equal(r.pass, 0);

    smtp_scan_start(&s, SMTP_NEWLINE_REJECT, false);
    r = smtp_scan_feed(&s, "\r\n.\r\n", 5);
    assert_int_equal(r.verdict, SMTP_SCAN_MORE);
    assert_true(smtp_scan_finish(&s));
}

/* Every body of up to eight octets of these four, at every split. */
static void test_exhaustive(void **state)
{
    char body[8];

    (void)state;
    for (size_t size = 0; size <= sizeof body; size++)
        for (uint32_t n = 0; n < 1u << (2 * size); n++) {
            for (size_t i = 0; i < size; i++)
                body[i] = "\r\n.x"[n >> (2 * i) & 3];
            check_body(body, size, size < 7 ? size : 2);
        }
}

/* Well-formed lines of random length, some with dots. Returns the size. */
static size_t random_mail(char *out, size_t size)
{
    size_t at = 0;

    while (at < size) {
        size_t line = random_next() % 4 ? random_next() % 90 : random_next() % 4;

        for (size_t i = 0; i < line && at < size; i++)
            out[at++] = random_next() % 8 ? (char)('/' + random_next() % 200) : '.';
        if (size - at < 2)
            break;
        out[at++] = '\r';
        out[at++] = '\n';
    }
    return at;
}

static void test_random(void **state)
{
    char body[700];

    (void)state;
    for (int round = 0; round < 3000; round++) {
        size_t size = random_mail(body, random_next() % sizeof body);

        for (uint32_t hits = random_next() % 3; size > 0 && hits > 0; hits--)
            body[random_next() % size] = "\r\n.\0"[random_next() % 4];
        check_body(body, size, size > 3 ? 1 + random_next() % 3 : size);
    }
}

/* The block finders. */

static void compare_blocks(const char *in, size_t size)
{
    size_t count;
    const struct smtp_scan_block *blocks = smtp_scan_blocks(&count);
    char *copy = malloc(size + 1); /* ends where the input ends */

    memcpy(copy + 1, in, size);
    for (int start = 0; start < 2; start++) {
        size_t expected = blocks[0].skip(copy + 1, size, start);

        for (size_t b = 1; b < count; b++)
            if (blocks[b].usable && blocks[b].skip(copy + 1, size, start) != expected)
                fail_msg("%s differs from naive in %zu octets", blocks[b].name, size);
    }
    free(copy);
}

static void test_block_naive(void **state)
{
    static const struct {
        const char *in;
        bool start;
        size_t skipped;
    } cases[] = {
        {"",              true,  0},
        { "abc",          true,  3},
        { "a\r\n",        true,  3},
        { "a\r\nb",       true,  4},
        { "a\r",          true,  1}, /* never between CR and LF */
        { "\r",           true,  0},
        { ".",            true,  0},
        { ".",            false, 1},
        { "\n",           false, 0},
        { "a\nb",         false, 1},
        { "a\rb",         false, 1},
        { "a\r\r\n",      false, 1},
        { "a\r\n\n",      false, 3},
        { "a\r\n.\r\n",   false, 3},
        { "a\r\n\r\nb.c", true,  8},
        { "a\r.",         true,  1},
    };
    size_t count;
    const struct smtp_scan_block *blocks = smtp_scan_blocks(&count);

    (void)state;
    assert_true(count >= 2);
    assert_string_equal(blocks[0].name, "naive");
    assert_string_equal(blocks[1].name, "portable");
    assert_true(blocks[0].usable && blocks[1].usable);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        assert_int_equal(blocks[0].skip(cases[i].in, strlen(cases[i].in), cases[i].start), cases[i].skipped);
        compare_blocks(cases[i].in, strlen(cases[i].in));
    }
}

/* One wrong octet, or two, at every place of a text that is otherwise in order, of every size around the
 * blocks'. */
static void test_block_adversarial(void **state)
{
    static const char *const patterns[] = { "\r",    "\n",     ".",      "\r.",  "\n.",
                                            "\r\n.", "\r\n\n", "\r\r\n", "\r\n", "\v\f\x8D\x8A\xAE" };
    char text[200];

    (void)state;
    for (size_t p = 0; p < LENGTH(patterns); p++)
        for (size_t size = 56; size < sizeof text; size += 9)
            for (size_t at = 0; at + strlen(patterns[p]) <= size; at++) {
                for (size_t i = 0; i < size; i++)
                    text[i] = i % 19 == 17 ? '\r' : i % 19 == 18 ? '\n' : 'x';
                memcpy(text + at, patterns[p], strlen(patterns[p]));
                compare_blocks(text, size);
            }
}

static void test_block_random(void **state)
{
    char text[300];

    (void)state;
    for (int round = 0; round < 30000; round++) {
        size_t size = random_next() % sizeof text;

        if (round % 2) {
            size = random_mail(text, size);
            if (size > 0)
                text[random_next() % size] = "\r\n.\0"[random_next() % 4];
        } else {
            for (size_t i = 0; i < size; i++)
                text[i] = random_next() % 6 ? (char)random_next() : "\r\n."[random_next() % 3];
        }
        compare_blocks(text, size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tricks),
        cmocka_unit_test(test_nul),
        cmocka_unit_test(test_result),
        cmocka_unit_test(test_exhaustive),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_block_naive),
        cmocka_unit_test(test_block_adversarial),
        cmocka_unit_test(test_block_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
