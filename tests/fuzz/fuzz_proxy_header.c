/*
 * The first octets of a connection, as a PROXY header.
 *
 * The answer about a prefix must hold for what follows, 0 must not be said for ever, and the addresses of a
 * header that was taken must survive being written and read in either version.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

/* In memory of just that size, for the address sanitizer. */
static int parse(const uint8_t *data, size_t size, struct proxy_header *out)
{
    char *copy = malloc(size ? size : 1);
    int result;

    CHECK(copy);
    memcpy(copy, data, size);
    result = proxy_header_parse(copy, size, out);
    free(copy);
    CHECK(result <= (int)size && result <= PROXY_HEADER_MAX);
    return result;
}

static bool same(const struct peer *a, const struct peer *b)
{
    return a->family == b->family && a->port == b->port && memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}

static void check_written(const char *out, size_t size, const struct proxy_header *expected)
{
    struct proxy_header again;

    CHECK(parse((const uint8_t *)out, size, &again) == (int)size);
    CHECK(again.has_addresses);
    CHECK(same(&again.source, &expected->source) && same(&again.destination, &expected->destination));
}

/* The input once more, as what a client told of itself under TLS: texts as long as there are. */
static void check_tls(const uint8_t *data, size_t size, const struct proxy_header *header)
{
    char out[PROXY_HEADER_MAX], texts[3][600] = { 0 };
    size_t third = size / 3;
    struct tls_description tls = { .certified = size & 1 };

    for (size_t i = 0; i < 3; i++)
        memcpy(texts[i], data + i * third, third < sizeof texts[i] ? third : sizeof texts[i] - 1);
    tls.version = texts[0];
    tls.cipher = texts[1];
    tls.sni = size & 2 ? texts[2] : NULL;
    memcpy(tls.common_name, texts[2], sizeof tls.common_name - 1);
    check_written(out, proxy_header_format_v2(&header->source, &header->destination, &tls, out), header);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header header;
    char out[PROXY_HEADER_MAX];
    int answer = parse(data, size, &header);
    bool answered = false;

    CHECK(answer != 0 || size < PROXY_HEADER_MAX);
    for (size_t n = 0; n <= size && n <= PROXY_HEADER_MAX; n++) {
        struct proxy_header early;
        int now = parse(data, n, &early);

        CHECK(now == 0 ? !answered : now == answer);
        CHECK(now <= 0 || n >= (size_t)answer);
        answered = now != 0;
    }
    if (answer > 0 && header.has_addresses) {
        CHECK(header.source.family == AF_INET || header.source.family == AF_INET6);
        check_written(out, proxy_header_format_v1(&header.source, &header.destination, out), &header);
        check_written(out, proxy_header_format_v2(&header.source, &header.destination, NULL, out), &header);
        check_tls(data, size, &header);
    }
    return 0;
}
