/*
 * AUTH: the command, base64, the user's name in a first response, and that nothing of it stays behind.
 */
#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>

#include <cmocka.h>

#include "smtp/auth.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

#define PLAIN       SMTP_CAP_AUTH_PLAIN
#define LOGIN       SMTP_CAP_AUTH_LOGIN
#define CRAM        SMTP_CAP_AUTH_CRAM_MD5
#define DIGEST      SMTP_CAP_AUTH_DIGEST_MD5
#define SCRAM_1     SMTP_CAP_AUTH_SCRAM_SHA_1
#define SCRAM_256   SMTP_CAP_AUTH_SCRAM_SHA_256
#define SCRAM_512   SMTP_CAP_AUTH_SCRAM_SHA_512
#define XOAUTH2     SMTP_CAP_AUTH_XOAUTH2
#define OAUTHBEARER SMTP_CAP_AUTH_OAUTHBEARER

/* A copy in memory of just that size, so that the address sanitizer sees a look beyond it. */
static struct smtp_span copy_span(const char *text, size_t size)
{
    char *data = malloc(size ? size : 1);

    memcpy(data, text, size);
    return (struct smtp_span){ data, size };
}

static void free_span(struct smtp_span span)
{
    free((char *)(uintptr_t)span.data);
}

/* RFC 4648 §4, of any octets; the result is for free_span(). */
static struct smtp_span encode(const char *text, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = malloc((size + 2) / 3 * 4 + 1), *at = out;

    for (size_t i = 0; i < size; i += 3) {
        uint32_t bits = (uint32_t)(uint8_t)text[i] << 16;

        if (i + 1 < size)
            bits |= (uint32_t)(uint8_t)text[i + 1] << 8;
        if (i + 2 < size)
            bits |= (uint8_t)text[i + 2];
        *at++ = digits[bits >> 18];
        *at++ = digits[bits >> 12 & 63];
        *at++ = i + 1 < size ? digits[bits >> 6 & 63] : '=';
        *at++ = i + 2 < size ? digits[bits & 63] : '=';
    }
    return (struct smtp_span){ out, (size_t)(at - out) };
}

static void test_parse(void **state)
{
    /* clang-format off */
    static const struct {
        const char *argument;
        bool good;
        uint32_t mechanism;
        const char *name, *response; /* NULL: none was given */
    } cases[] = {
        { "PLAIN", true, PLAIN, "PLAIN", NULL },
        { "plain", true, PLAIN, "plain", NULL },
        { "PLAIN =", true, PLAIN, "PLAIN", "=" },
        { "PLAIN AHUAcA==", true, PLAIN, "PLAIN", "AHUAcA==" },
        { "LOGIN dXNlcg==", true, LOGIN, "LOGIN", "dXNlcg==" },
        { "Scram-Sha-256 biws", true, SCRAM_256, "Scram-Sha-256", "biws" },
        { "EXTERNAL =", true, 0, "EXTERNAL", "=" },
        { "X_Y-1", true, 0, "X_Y-1", NULL },
        { "SCRAM-SHA-256-PLUS", true, 0, "SCRAM-SHA-256-PLUS", NULL },
        { "ABCDEFGHIJKLMNOPQRST", true, 0, "ABCDEFGHIJKLMNOPQRST", NULL },
        { "ABCDEFGHIJKLMNOPQRSTU", false, 0, NULL, NULL }, /* RFC 4422 §3.1 */
        { "", false, 0, NULL, NULL },
        { " PLAIN", false, 0, NULL, NULL },
        { "PLAIN ", false, 0, NULL, NULL },
        { "PLAIN  AHUAcA==", false, 0, NULL, NULL },
        { "PLAIN AHUAcA== ", false, 0, NULL, NULL },
        { "PLAIN AHUA cA==", false, 0, NULL, NULL },
        { "PLAIN\tAHUAcA==", false, 0, NULL, NULL },
        { "PLAIN AHUAcA", false, 0, NULL, NULL },
        { "PLAIN ==", false, 0, NULL, NULL },
        { "PLAIN *", false, 0, NULL, NULL },
        { "PLA*N", false, 0, NULL, NULL },
        { "PLAIN\xC3\xA9", false, 0, NULL, NULL },
        { "=", false, 0, NULL, NULL },
    };
    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_span argument = copy_span(cases[i].argument, strlen(cases[i].argument));
        struct smtp_auth auth;

        if (smtp_auth_parse(argument, &auth) != cases[i].good)
            fail_msg("\"%s\"", cases[i].argument);
        if (cases[i].good) {
            assert_int_equal(auth.mechanism, cases[i].mechanism);
            assert_int_equal(auth.name.size, strlen(cases[i].name));
            assert_memory_equal(auth.name.data, cases[i].name, auth.name.size);
            assert_true(!auth.response.data == !cases[i].response);
        }
        if (cases[i].response) {
            assert_int_equal(auth.response.size, strlen(cases[i].response));
            assert_memory_equal(auth.response.data, cases[i].response, auth.response.size);
        }
        free_span(argument);
    }

    struct smtp_auth auth;

    assert_false(smtp_auth_parse((struct smtp_span){ "PLAIN\0", 6 }, &auth));
    assert_false(smtp_auth_parse((struct smtp_span){ NULL, 0 }, &auth));
}

static void test_base64(void **state)
{
    static const struct {
        const char *line;
        bool good;
    } cases[] = {
        {"",          true },
        { "AAAA",     true },
        { "azAZ",     true },
        { "09+/",     true },
        { "AAA=",     true },
        { "AA==",     true },
        { "AAB=",     true }, /* bits behind the last octet */
        { "AB==",     true },
        { "AAAAAA==", true },
        { "A",        false},
        { "AA",       false},
        { "AAA",      false},
        { "AAAAA",    false},
        { "=",        false},
        { "==",       false},
        { "===",      false},
        { "====",     false},
        { "A===",     false},
        { "AA=",      false},
        { "AA=A",     false},
        { "=AAA",     false},
        { "AA==AAAA", false},
        { "AAAA====", false},
        { "AA A",     false},
        { " AAAA",    false},
        { "AAAA ",    false},
        { "AA-_",     false}, /* the alphabet for URLs */
        { "AAA\r",    false},
        { "AAA@",     false},
        { "AAA[",     false},
        { "AAA`",     false},
        { "AAA{",     false},
        { "AAA:",     false},
        { "AAA.",     false},
        { "AAA,",     false},
        { "AAA*",     false},
        { "AAA\xC1",  false},
        { "*",        false},
    };

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct smtp_span line = copy_span(cases[i].line, strlen(cases[i].line));

        if (smtp_auth_is_base64(line) != cases[i].good)
            fail_msg("\"%s\"", cases[i].line);
        free_span(line);
    }
    assert_false(smtp_auth_is_base64((struct smtp_span){ "AAA\0", 4 }));
}

/* --- the user's name --- */

/* Of base64. */
static size_t user_of(uint32_t mechanism, struct smtp_span response, char out[SMTP_AUTH_USER_MAX])
{
    memset(out, '#', SMTP_AUTH_USER_MAX);
    return smtp_auth_user(mechanism, response, out);
}

struct name_case {
    uint32_t mechanism;
    const char *message; /* decoded … */
    size_t size;
    const char *user; /* NULL: none */
};
#define MESSAGE(text) text, sizeof(text) - 1

static void check_names(const struct name_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct smtp_span response = encode(cases[i].message, cases[i].size);
        const char *expected = cases[i].user ? cases[i].user : "";
        char user[SMTP_AUTH_USER_MAX];
        size_t size = user_of(cases[i].mechanism, response, user);

        if (size != strlen(expected) || memcmp(user, expected, size) != 0)
            fail_msg("case %zu: \"%s\": \"%.*s\"", i, cases[i].message, (int)size, user);
        free_span(response);
    }
}

#define D32 "0123456789abcdefABCDEF0123456789"

/* clang-format off */
static void test_user(void **state)
{
    static const struct name_case cases[] = {
        { PLAIN, MESSAGE("\0user\0secret"), "user" },
        { PLAIN, MESSAGE("admin\0user\0secret"), "user" }, /* who he is, not who he acts for */
        { PLAIN, MESSAGE("\0us er\xC3\xA9=,@b\0s"), "us er\xC3\xA9=,@b" },
        { PLAIN, MESSAGE("\0user"), NULL },
        { PLAIN, MESSAGE("user\0secret"), NULL },
        { PLAIN, MESSAGE("usersecret"), NULL },
        { PLAIN, MESSAGE(""), NULL },
        { PLAIN, MESSAGE("\0\0"), NULL },
        { PLAIN, MESSAGE("\0\0secret"), NULL },
        { PLAIN, MESSAGE("\0user\0"), NULL },
        { PLAIN, MESSAGE("\0user\0secret\0"), NULL },
        { PLAIN, MESSAGE("\0user\0sec\0ret"), NULL },

        { LOGIN, MESSAGE("user"), "user" },
        { LOGIN, MESSAGE("us er@\x01"), "us er@\x01" },
        { LOGIN, MESSAGE(""), NULL },
        { LOGIN, MESSAGE("us\0er"), NULL },
        { LOGIN, MESSAGE("user\0"), NULL },

        { CRAM, MESSAGE("user " D32), "user" },
        { CRAM, MESSAGE("us er  " D32), "us er " },
        { CRAM, MESSAGE("user" D32), NULL },
        { CRAM, MESSAGE(" " D32), NULL },
        { CRAM, MESSAGE("user 0" D32), NULL },
        { CRAM, MESSAGE("user 123456789abcdefABCDEF0123456789"), NULL },
        { CRAM, MESSAGE("user g123456789abcdefABCDEF0123456789"), NULL },
        { CRAM, MESSAGE("user 0123456789abcdefABCDEF012345678g"), NULL },
        { CRAM, MESSAGE("user " D32 " "), NULL },
        { CRAM, MESSAGE("us\0er " D32), NULL },
        { CRAM, MESSAGE("user"), NULL },
        { CRAM, MESSAGE(""), NULL },

        { DIGEST, MESSAGE("username=\"user\",realm=\"x\""), NULL }, /* not told */
        { 0, MESSAGE("user"), NULL },
        { SMTP_CAP_AUTH, MESSAGE("user"), NULL },
    };

    (void)state;
    check_names(cases, LENGTH(cases));
}

static void test_user_scram(void **state)
{
    static const struct name_case cases[] = {
        { SCRAM_1, MESSAGE("n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"), "user" },
        { SCRAM_256, MESSAGE("n,,n=user,r=x"), "user" },
        { SCRAM_512, MESSAGE("y,,n=user,r=x"), "user" },
        { SCRAM_256, MESSAGE("n,a=admin,n=user,r=x"), "user" },
        { SCRAM_256, MESSAGE("n,a=ad=2Cmin,n=us=2Cer=3D=3D2C,r=x"), "us,er==2C" },
        { SCRAM_256, MESSAGE("n,,n==3D,r=x"), "=" },
        { SCRAM_256, MESSAGE("n,,n=us er\xC3\xA9,r=x"), "us er\xC3\xA9" },
        { SCRAM_256, MESSAGE("n,,n=user,r=x,e=1"), "user" },
        { SCRAM_256, MESSAGE("n,,n=user,r=x,e=1,F=a=b c"), "user" },
        { SCRAM_256, MESSAGE("p=tls-unique,,n=user,r=x"), NULL },
        { SCRAM_256, MESSAGE("p,,n=user,r=x"), NULL },
        { SCRAM_256, MESSAGE("N,,n=user,r=x"), NULL },
        { SCRAM_256, MESSAGE("n,n=user,r=x"), NULL },
        { SCRAM_256, MESSAGE(",,n=user,r=x"), NULL },
        { SCRAM_256, MESSAGE("n=user,r=x"), NULL },
        { SCRAM_256, MESSAGE("n,b=x,n=user,r=x"), NULL },
        { SCRAM_256, MESSAGE("n,a=,n=user,r=x"), NULL },
        { SCRAM_256, MESSAGE("n,a=a=b,n=user,r=x"), NULL },
        { SCRAM_256, MESSAGE("n,,m=x,n=user,r=x"), NULL }, /* RFC 5802 §5.1: fail */
        { SCRAM_256, MESSAGE("n,,n=,r=x"), NULL },
        { SCRAM_256, MESSAGE("n,,n=us=2cer,r=x"), NULL },
        { SCRAM_256, MESSAGE("n,,n=us=er,r=x"), NULL },
        { SCRAM_256, MESSAGE("n,,n=us=2,r=x"), NULL },
        { SCRAM_256, MESSAGE("n,,n=us=,r=x"), NULL },
        { SCRAM_256, MESSAGE("n,,n=us\0er,r=x"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r="), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r=,e=1"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,s=x"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r=x y"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r=\x7F"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r=x,"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r=x,e"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r=x,e="), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r=x,e=,f=1"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r=x,1=1"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r=x,ee1"), NULL },
        { SCRAM_256, MESSAGE("n,,"), NULL },
        { SCRAM_256, MESSAGE("n,"), NULL },
        { SCRAM_256, MESSAGE("n"), NULL },
        { SCRAM_256, MESSAGE(""), NULL },
    };

    (void)state;
    check_names(cases, LENGTH(cases));
}

static void test_user_oauth(void **state)
{
    static const struct name_case cases[] = {
        { XOAUTH2, MESSAGE("user=u@b\x01" "auth=Bearer t\x01\x01"), "u@b" },
        { XOAUTH2, MESSAGE("user=u=,b\x01" "auth=Bearer t==\x01\x01"), "u=,b" },
        { XOAUTH2, MESSAGE("user=u\x01host=a\x01" "auth=Bearer t\x01\x01"), "u" },
        { XOAUTH2, MESSAGE("user=\x01" "auth=Bearer t\x01\x01"), NULL },
        { XOAUTH2, MESSAGE("user=u\0\x01" "auth=Bearer t\x01\x01"), NULL },
        { XOAUTH2, MESSAGE("user=u\x01" "auth=Bearer t\x01"), NULL },
        { XOAUTH2, MESSAGE("user=u\x01" "auth=Bearer t"), NULL },
        { XOAUTH2, MESSAGE("user=u\x01" "auth=Bearer t\x01\x01x"), NULL },
        { XOAUTH2, MESSAGE("user=u\x01" "auth=Bearer t\x01\x01\x01"), NULL },
        { XOAUTH2, MESSAGE("user=u\x01" "auth\x01\x01"), NULL },
        { XOAUTH2, MESSAGE("user=u\x01" "autx=Bearer t\x01\x01"), NULL },
        { XOAUTH2, MESSAGE("user=u\x01" "auths=Bearer t\x01\x01"), NULL },
        { XOAUTH2, MESSAGE("user=u\x01" "a1th=Bearer t\x01\x01"), NULL },
        { XOAUTH2, MESSAGE("user=u\x01=x\x01" "auth=Bearer t\x01\x01"), NULL },
        { XOAUTH2, MESSAGE("user=u\x01\x01"), NULL },
        { XOAUTH2, MESSAGE("user=u"), NULL },
        { XOAUTH2, MESSAGE("auth=Bearer t\x01user=u\x01\x01"), NULL },
        { XOAUTH2, MESSAGE("n,a=u,\x01" "auth=Bearer t\x01\x01"), NULL },
        { XOAUTH2, MESSAGE(""), NULL },

        { OAUTHBEARER, MESSAGE("n,a=u@b,\x01host=a\x01port=587\x01" "auth=Bearer t\x01\x01"), "u@b" },
        { OAUTHBEARER, MESSAGE("y,a=u=2C=3D,\x01" "auth=Bearer t\x01\x01"), "u,=" },
        { OAUTHBEARER, MESSAGE("n,,\x01" "auth=Bearer t\x01\x01"), NULL }, /* the token knows */
        { OAUTHBEARER, MESSAGE("p=x,a=u,\x01" "auth=Bearer t\x01\x01"), NULL },
        { OAUTHBEARER, MESSAGE("n,a=u,auth=Bearer t\x01\x01"), NULL },
        { OAUTHBEARER, MESSAGE("n,a=u\x01" "auth=Bearer t\x01\x01"), NULL },
        { OAUTHBEARER, MESSAGE("n,a=u=,\x01" "auth=Bearer t\x01\x01"), NULL },
        { OAUTHBEARER, MESSAGE("n,a=u\0,\x01" "auth=Bearer t\x01\x01"), NULL },
        { OAUTHBEARER, MESSAGE("n,a=,\x01" "auth=Bearer t\x01\x01"), NULL },
        { OAUTHBEARER, MESSAGE("n,a=u,\x01host=a\x01\x01"), NULL },
        { OAUTHBEARER, MESSAGE("n,a=u,\x01\x01"), NULL },
        { OAUTHBEARER, MESSAGE("n,a=u,\x01"), NULL },
        { OAUTHBEARER, MESSAGE("n,a=u,"), NULL },
        { OAUTHBEARER, MESSAGE("\x01"), NULL }, /* RFC 7628 §3.2.3, the answer to an error */
        { OAUTHBEARER, MESSAGE(""), NULL },
    };

    (void)state;
    check_names(cases, LENGTH(cases));
}
/* clang-format on */

/* What is no base64, or no response at all. */
static void test_user_of_no_message(void **state)
{
    static const char *const responses[] = { "=", "*", "dXNlcg", "dXNlcg=", "dXN lcg==", "dXNlcg==x" };
    char user[SMTP_AUTH_USER_MAX];

    (void)state;
    for (size_t i = 0; i < LENGTH(responses); i++) {
        struct smtp_span response = copy_span(responses[i], strlen(responses[i]));

        assert_int_equal(user_of(LOGIN, response, user), 0);
        free_span(response);
    }
    assert_int_equal(user_of(LOGIN, (struct smtp_span){ NULL, 0 }, user), 0);
    assert_int_equal(user_of(LOGIN, (struct smtp_span){ "", 0 }, user), 0);
    assert_int_equal(user_of(LOGIN, (struct smtp_span){ "dXNlcg==", 8 }, user), 4);
    /* The same octets, whatever stands in the bits behind them. */
    assert_int_equal(user_of(LOGIN, (struct smtp_span){ "dXNlch==", 8 }, user), 4);
    assert_memory_equal(user, "user", 4);
    assert_int_equal(user_of(LOGIN, (struct smtp_span){ "dXNlc/==", 8 }, user), 4);
    assert_memory_equal(user, "uses", 4);
}

/* As long as a line may be, and longer. */
static void test_long(void **state)
{
    enum { LINE = SMTP_LINE_AUTH_MAX, MESSAGE_MAX = LINE / 4 * 3 };
    static char message[MESSAGE_MAX + 3];
    char user[SMTP_AUTH_USER_MAX + 1];
    static const size_t sizes[] = { 254, 255, 256, 1000, MESSAGE_MAX - 1, MESSAGE_MAX };

    (void)state;
    memset(message, 'u', sizeof message);
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        struct smtp_span response = encode(message, sizes[i]);
        size_t expected = sizes[i] < SMTP_AUTH_USER_MAX ? sizes[i] : SMTP_AUTH_USER_MAX;

        user[SMTP_AUTH_USER_MAX] = '#';
        assert_int_equal(user_of(LOGIN, response, user), expected);
        assert_memory_equal(user, message, expected);
        assert_int_equal(user[SMTP_AUTH_USER_MAX], '#');
        free_span(response);
    }

    struct smtp_span response = encode(message, MESSAGE_MAX + 1);

    assert_int_equal(user_of(LOGIN, response, user), 0);
    free_span(response);

    message[500] = '\0'; /* refused, though it would be cut off */
    response = encode(message, 1000);
    assert_int_equal(user_of(LOGIN, response, user), 0);
    free_span(response);
}

/* --- what stays behind --- */

#define SECRET "correct-horse-battery-staple"
#define STACK  (512 * 1024)

static alignas(4096) char stack[STACK];

static void *read_name(void *arg)
{
    const struct name_case *c = arg;
    struct smtp_span response = encode(c->message, c->size);
    char user[SMTP_AUTH_USER_MAX];
    size_t size = smtp_auth_user(c->mechanism, response, user);

    free_span(response);
    return (void *)(uintptr_t)size;
}

/* Runs on a stack of its own, which is then searched. */
static bool leaves_secret(const struct name_case *c)
{
    pthread_attr_t attributes;
    pthread_t thread;
    void *size;

    memset(stack, 0, sizeof stack);
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, sizeof stack), 0);
    assert_int_equal(pthread_create(&thread, &attributes, read_name, (void *)(uintptr_t)c), 0);
    assert_int_equal(pthread_join(thread, &size), 0);
    pthread_attr_destroy(&attributes);
    assert_true(((uintptr_t)size > 0) == (c->user != NULL));
    return memmem(stack, sizeof stack, SECRET, strlen(SECRET)) != NULL;
}

static void test_nothing_stays_behind(void **state)
{
    /* clang-format off */
    static const struct name_case cases[] = {
        { PLAIN, MESSAGE("\0user\0" SECRET), "user" },
        { PLAIN, MESSAGE("user\0" SECRET), NULL },
        { CRAM, MESSAGE(SECRET " x"), NULL },
        { SCRAM_256, MESSAGE("n,,n=user,r=" SECRET), "user" },
        { SCRAM_256, MESSAGE(SECRET), NULL },
        { XOAUTH2, MESSAGE("user=u\x01" "auth=Bearer " SECRET "\x01\x01"), "u" },
        { OAUTHBEARER, MESSAGE("n,,\x01" "auth=Bearer " SECRET "\x01\x01"), NULL },
        { DIGEST, MESSAGE(SECRET), NULL },
        { 0, MESSAGE(SECRET), NULL },
    };
    /* clang-format on */

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++)
        if (leaves_secret(&cases[i]))
            fail_msg("case %zu", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),      cmocka_unit_test(test_base64),
        cmocka_unit_test(test_user),       cmocka_unit_test(test_user_scram),
        cmocka_unit_test(test_user_oauth), cmocka_unit_test(test_user_of_no_message),
        cmocka_unit_test(test_long),       cmocka_unit_test(test_nothing_stays_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
