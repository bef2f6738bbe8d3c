/*
 * A backend's bytes: replies one after the other, each sanitised and read as if it answered EHLO.
 *
 * What was malformed or complete must stay so whatever follows; nothing may point outside; what a client is
 * shown holds no control characters and parses like the original.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/capability.h"
#include "smtp/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

/* The answer about the whole must be the one that came as soon as there was any. */
static void check_prefixes(const char *in, size_t size, int answer, size_t reply_size)
{
    bool answered = false;

    for (size_t n = 0; n <= size && n <= 300; n++) {
        struct smtp_reply reply;
        int now = smtp_reply_parse(in, n, &reply);

        CHECK(now == 0 ? !answered : now == answer);
        CHECK(now != 1 || reply.size == reply_size);
        answered = now != 0;
    }
}

static void check_reply(const char *in, const struct smtp_reply *reply)
{
    CHECK(reply->code >= 200 && reply->code <= 599 && reply->lines > 0);
    CHECK(reply->size >= 5 && reply->size <= SMTP_REPLY_MAX);
    CHECK(reply->text >= in && reply->text + reply->text_size + 2 == in + reply->size);
    CHECK(reply->status_class == 0 || reply->status_class == reply->code / 100);
    CHECK(reply->subject <= 999 && reply->detail <= 999);
}

static void check_sanitise(const char *in, size_t size, const struct smtp_reply *original, int utf8)
{
    char *out = malloc(size);
    struct smtp_reply reply;

    CHECK(out);
    smtp_reply_sanitise(in, size, out, utf8);
    for (size_t i = 0; i < size; i++) {
        uint8_t octet = (uint8_t)out[i];

        CHECK(out[i] == in[i] || out[i] == '?');
        if (octet == '\r')
            CHECK(i + 1 < size && out[i + 1] == '\n');
        else if (octet == '\n')
            CHECK(i > 0 && out[i - 1] == '\r');
        else
            CHECK(octet == '\t' || (octet >= ' ' && octet < 0x7F) || (utf8 && octet >= 0x80));
    }
    CHECK(smtp_reply_parse(out, size, &reply) == 1);
    CHECK(reply.size == original->size && reply.code == original->code && reply.lines == original->lines);
    CHECK(reply.status_class == original->status_class && reply.detail == original->detail);
    free(out);
}

static void check_capabilities(const char *in, size_t size)
{
    struct smtp_capabilities read, again, both;
    struct smtp_reply reply;
    char out[SMTP_EHLO_REPLY_MAX];

    smtp_capabilities_parse(&read, in, size);
    CHECK(!(read.flags & SMTP_CAP_BINARYMIME) || (read.flags & SMTP_CAP_CHUNKING));
    both = read;
    smtp_capabilities_intersect(&both, &read);
    CHECK(both.flags == read.flags && both.size_limit == read.size_limit);

    size_t written = smtp_capabilities_format(&read, "mx.test", out);

    CHECK(written < sizeof out && smtp_reply_parse(out, written, &reply) == 1 && reply.size == written);
    smtp_capabilities_parse(&again, out, written);
    CHECK(again.flags == read.flags && again.size_limit == read.size_limit);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *in = (const char *)data;

    check_capabilities(in, size); /* it must bear anything */
    for (;;) {
        struct smtp_reply reply = { 0 };
        int answer = smtp_reply_parse(in, size, &reply);

        check_prefixes(in, size, answer, reply.size);
        if (answer != 1)
            return 0;
        check_reply(in, &reply);
        check_sanitise(in, reply.size, &reply, 0);
        check_sanitise(in, reply.size, &reply, 1);
        check_capabilities(in, reply.size);
        in += reply.size;
        size -= reply.size;
    }
}
