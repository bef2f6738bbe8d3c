/*
 * AUTH, as a client says it and as a backend lists it. Octet 0: which mechanism. The rest is taken in turn
 * for the argument of AUTH, for a response as it is, for a message that is yet to be encoded, for a line of
 * an EHLO reply, and for the value of AUTH= in MAIL.
 *
 * A name is never longer than may be, has no NUL, and is part of the message; what a password is in PLAIN is
 * never part of it. Bits behind the last octet change nothing. What is read of an EHLO is offered again just
 * so.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

#define SCRAM  (SMTP_CAP_AUTH_SCRAM_SHA_1 | SMTP_CAP_AUTH_SCRAM_SHA_256 | SMTP_CAP_AUTH_SCRAM_SHA_512)
#define FIRST  9  /* bit of SMTP_CAP_AUTH_PLAIN */
#define NUMBER 10 /* of mechanisms, and of what is none */

/* Of just that size, for the address sanitizer. */
static struct smtp_span copy_of(const char *prefix, const char *data, size_t size)
{
    size_t before = strlen(prefix);
    char *copy = malloc(before + size + 1);

    CHECK(copy);
    memcpy(copy, prefix, before);
    memcpy(copy + before, data, size);
    return (struct smtp_span){ realloc(copy, before + size ? before + size : 1), before + size };
}

static void free_copy(struct smtp_span span)
{
    free((char *)(uintptr_t)span.data);
}

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static struct smtp_span encode(struct smtp_span message)
{
    size_t size = (message.size + 2) / 3 * 4, at = 0;
    char *out = malloc(size ? size : 1);
    uint32_t bits = 0;
    unsigned held = 0;

    CHECK(out);
    for (size_t i = 0; i < message.size; i++) {
        bits = bits << 8 | (uint8_t)message.data[i];
        for (held += 8; held >= 6; held -= 6)
            out[at++] = digits[bits >> (held - 6) & 63];
    }
    if (held > 0)
        out[at++] = digits[bits << (6 - held) & 63];
    memset(out + at, '=', size - at);
    return (struct smtp_span){ out, size };
}

/* The last digit in front of the padding, with other bits behind the last octet. */
static bool change_trailing_bits(struct smtp_span text)
{
    char *digit = memchr(text.data, '=', text.size);

    if (!digit)
        return false;
    digit--;
    *digit = digits[(size_t)(strchr(digits, *digit) - digits) ^ 1];
    return true;
}

static size_t user_of(uint32_t mechanism, struct smtp_span response, char *user)
{
    memset(user, '#', SMTP_AUTH_USER_MAX);

    size_t size = smtp_auth_user(mechanism, response, user);

    CHECK(size <= SMTP_AUTH_USER_MAX && !memchr(user, '\0', size));
    CHECK(size == 0 || smtp_auth_is_base64(response));
    for (size_t i = size; i < SMTP_AUTH_USER_MAX; i++)
        CHECK(user[i] == '#');
    return size;
}

/* A name with SASL's codes undone has at most as many octets, and the same ones but for , and =. */
static void check_name(uint32_t mechanism, const char *user, size_t size, struct smtp_span message)
{
    CHECK(size <= message.size);
    if (!(mechanism & (SCRAM | SMTP_CAP_AUTH_OAUTHBEARER)) ||
        (!memchr(user, ',', size) && !memchr(user, '=', size)))
        CHECK(memmem(message.data, message.size, user, size));
    if (mechanism != SMTP_CAP_AUTH_PLAIN)
        return;

    const char *authcid = (const char *)memchr(message.data, '\0', message.size) + 1;

    CHECK(memcmp(authcid, user, size) == 0);
    CHECK(size == SMTP_AUTH_USER_MAX || authcid[size] == '\0');
}

static void check_user(uint32_t mechanism, const char *data, size_t length)
{
    char user[SMTP_AUTH_USER_MAX], again[SMTP_AUTH_USER_MAX];
    struct smtp_span message = copy_of("", data, length), coded = encode(message);

    user_of(mechanism, message, user); /* as if it had been encoded already */
    CHECK(smtp_auth_is_base64(coded));

    size_t size = user_of(mechanism, coded, user);

    CHECK(size == 0 || (mechanism & SMTP_CAP_AUTH_MECHANISMS & ~(uint32_t)SMTP_CAP_AUTH_DIGEST_MD5));
    if (mechanism == SMTP_CAP_AUTH_LOGIN && coded.size <= SMTP_LINE_AUTH_MAX && !memchr(data, '\0', length))
        CHECK(size == (length < SMTP_AUTH_USER_MAX ? length : SMTP_AUTH_USER_MAX));
    if (size > 0)
        check_name(mechanism, user, size, message);
    if (change_trailing_bits(coded)) {
        CHECK(user_of(mechanism, coded, again) == size);
        CHECK(memcmp(user, again, sizeof user) == 0);
    }
    free_copy(message);
    free_copy(coded);
}

static void check_argument(const char *data, size_t size)
{
    struct smtp_span argument = copy_of("", data, size);
    struct smtp_auth auth;

    if (smtp_auth_parse(argument, &auth)) {
        CHECK(auth.name.data == argument.data && auth.name.size > 0);
        CHECK(auth.mechanism == smtp_auth_mechanism(auth.name.data, auth.name.size));
        if (auth.response.data) {
            CHECK(auth.response.data == auth.name.data + auth.name.size + 1);
            CHECK(auth.response.size == argument.size - auth.name.size - 1);
            CHECK(smtp_auth_is_base64(auth.response) ||
                  (auth.response.size == 1 && auth.response.data[0] == '='));
        } else {
            CHECK(auth.name.size == argument.size);
        }
    }
    free_copy(argument);
}

static void check_ehlo(const char *data, size_t size)
{
    struct smtp_span reply = copy_of("250-name\r\n250-STARTTLS\r\n250 AUTH", data, size);
    struct smtp_capabilities read, both, again;
    char out[SMTP_EHLO_REPLY_MAX];

    smtp_capabilities_parse(&read, reply.data, reply.size);
    CHECK(smtp_capabilities_usable(read.flags) == read.flags);
    CHECK(read.flags & SMTP_CAP_STARTTLS);
    CHECK(!(read.flags & SMTP_CAP_AUTH) == !(read.flags & SMTP_CAP_AUTH_MECHANISMS));
    both = read;
    smtp_capabilities_intersect(&both, &read);
    CHECK(both.flags == read.flags);

    size_t written = smtp_capabilities_format(&read, "mx.test", out);

    CHECK(written < sizeof out);
    smtp_capabilities_parse(&again, out, written);
    CHECK(again.flags == read.flags && again.size_limit == read.size_limit);
    free_copy(reply);
}

static void check_mail(const char *data, size_t size)
{
    struct smtp_span argument = copy_of("FROM:<> AUTH=", data, size);
    struct smtp_mail mail;

    CHECK(smtp_mail_parse(argument, SMTP_CAP_CARRIED & ~(uint32_t)SMTP_CAP_AUTH, &mail));
    if (!smtp_mail_parse(argument, SMTP_CAP_AUTH, &mail)) {
        CHECK(mail.uses == SMTP_CAP_AUTH);
        for (size_t i = 0; i < size; i++)
            CHECK(data[i] >= ' ' && data[i] <= '~');
    }
    free_copy(argument);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;

    const char *text = (const char *)data + 1;
    uint32_t mechanism = 1u << (FIRST + data[0] % NUMBER); /* the last is STARTTLS, which is none */

    size--;
    check_argument(text, size);
    check_user(mechanism, text, size);
    check_ehlo(text, size);
    check_mail(text, size);
    return 0;
}
