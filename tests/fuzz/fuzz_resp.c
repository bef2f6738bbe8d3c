/*
 * What a server says, as replies.
 *
 * However it is cut, the same replies must come out of it, and the same error at the end; and no reply may
 * break the bounds of counters/resp.h. The first octet says how the second reading is cut.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "counters/resp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static uint64_t mix(uint64_t sum, const void *octets, size_t size)
{
    const unsigned char *at = octets;

    for (size_t i = 0; i < size; i++)
        sum = (sum ^ at[i]) * UINT64_C(0x100000001b3);
    return sum;
}

/* Look at all of it, so that the sanitizer does too. */
static uint64_t sum_up(const struct resp *reply, uint64_t sum, int depth)
{
    sum = mix(sum, &reply->type, sizeof reply->type);
    sum = mix(sum, &reply->integer, sizeof reply->integer);
    sum = mix(sum, &reply->size, sizeof reply->size);
    sum = mix(sum, &reply->n, sizeof reply->n);
    CHECK(reply->n <= RESP_ELEMENTS_MAX && (reply->type == RESP_ARRAY || reply->n == 0));
    CHECK(reply->type != RESP_ARRAY || depth < RESP_DEPTH_MAX);
    CHECK(resp_fault(reply) == RESP_FAULT_NONE || reply->type == RESP_ERROR);
    if (reply->type <= RESP_TEXT) {
        CHECK(reply->text[reply->size] == '\0');
        sum = mix(sum, reply->text, reply->size);
    }
    for (size_t i = 0; i < reply->n; i++)
        sum = sum_up(&reply->elements[i], sum, depth + 1);
    return sum;
}

static uint64_t read_all(const uint8_t *data, size_t size, size_t step)
{
    struct resp_reader *reader = resp_reader_create();
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    const struct resp *reply;

    CHECK(reader);
    for (size_t at = 0; at < size; at += step) {
        size_t n = size - at < step ? size - at : step;

        resp_reader_feed(reader, data + at, n);
        while ((reply = resp_reader_next(reader)))
            sum = sum_up(reply, sum, 0);
    }
    if (resp_reader_error(reader))
        sum = mix(sum, resp_reader_error(reader), strlen(resp_reader_error(reader)));
    resp_reader_free(&reader);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t step;
    uint64_t whole;

    if (size < 2)
        return 0;
    step = data[0] % 16 + 1;
    whole = read_all(data + 1, size - 1, size - 1);
    CHECK(read_all(data + 1, size - 1, step) == whole);
    return 0;
}
