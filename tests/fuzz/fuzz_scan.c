/*
 * The newline scanner. Input: one octet of variant (bit 0 normalize, bit 1 no dots), one that seeds the sizes
 * of the pieces, and a body.
 *
 * Whole and in pieces the same must come out; no output may hold CRLF.CRLF but at the true end, nor a CR or
 * LF of its own; and the block finders must agree.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

struct outcome {
    char *out;
    size_t size;
    enum smtp_scan_verdict verdict;
    bool finish;
};

/* `seed` 0: one piece. */
static struct outcome scan(const char *in, size_t size, uint8_t variant, uint32_t seed)
{
    struct smtp_scan s;
    struct outcome o = { .out = malloc(4 * size + 4), .verdict = SMTP_SCAN_MORE };

    CHECK(o.out);
    smtp_scan_start(&s, variant & 1 ? SMTP_NEWLINE_NORMALIZE : SMTP_NEWLINE_REJECT, !(variant & 2));
    for (size_t at = 0; at < size;) {
        size_t piece = size - at;

        if (seed) {
            seed = seed * 1103515245u + 12345u;
            if ((seed >> 16) % 100 + 1 < piece)
                piece = (seed >> 16) % 100 + 1;
        }

        struct smtp_scan_result r = smtp_scan_feed(&s, in + at, piece);

        CHECK(r.pass <= piece && r.skip <= piece - r.pass);
        memcpy(o.out + o.size, in + at, r.pass);
        o.size += r.pass;
        at += r.pass + r.skip;
        CHECK((r.verdict == SMTP_SCAN_EDIT) == (r.insert != NULL));
        CHECK(r.verdict != SMTP_SCAN_MORE || r.pass == piece);
        if (r.insert) {
            CHECK(o.size + strlen(r.insert) <= 4 * size + 4);
            memcpy(o.out + o.size, r.insert, strlen(r.insert));
            o.size += strlen(r.insert);
        } else if (r.verdict != SMTP_SCAN_MORE) {
            o.verdict = r.verdict;
            break;
        }
    }
    o.finish = smtp_scan_finish(&s);
    return o;
}

static void check_output(const struct outcome *o, uint8_t variant)
{
    bool ended = false;

    for (size_t i = 0; i < o->size; i++) {
        CHECK(!ended);
        CHECK(o->out[i] != '\n' || (i > 0 && o->out[i - 1] == '\r'));
        CHECK(o->out[i] != '\r' || i + 1 == o->size || o->out[i + 1] == '\n');
        ended = i >= 2 && memcmp(o->out + i - 2, ".\r\n", 3) == 0 && (i == 2 || o->out[i - 3] == '\n');
        if (variant & 2)
            ended = false;
    }
    CHECK(ended == (o->verdict == SMTP_SCAN_END));
    CHECK(o->verdict != SMTP_SCAN_BARE_LF || !(variant & 1));
    if (o->verdict == SMTP_SCAN_MORE)
        CHECK(o->finish == (o->size == 0 || o->out[o->size - 1] != '\r'));
}

static void check_blocks(const char *in, size_t size)
{
    size_t count;
    const struct smtp_scan_block *blocks = smtp_scan_blocks(&count);

    for (int start = 0; start < 2; start++) {
        size_t expected = blocks[0].skip(in, size, start);

        CHECK(expected <= size);
        for (size_t b = 1; b < count; b++)
            CHECK(!blocks[b].usable || blocks[b].skip(in, size, start) == expected);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;

    const char *body = (const char *)data + 2;
    uint8_t variant = data[0];
    struct outcome whole = scan(body, size - 2, variant, 0);
    struct outcome pieces = scan(body, size - 2, variant, data[1] + 1u);
    /* If a piece ends in a bare CR, that has gone by before it turns out to be one. */
    bool late_cr = pieces.verdict == SMTP_SCAN_BARE_CR && pieces.size == whole.size + 1;

    check_output(&whole, variant);
    check_output(&pieces, variant);
    CHECK(whole.verdict == pieces.verdict && whole.finish == pieces.finish);
    CHECK(pieces.size == whole.size + late_cr && memcmp(pieces.out, whole.out, whole.size) == 0);
    CHECK(!late_cr || pieces.out[whole.size] == '\r');
    check_blocks(body, size - 2);
    free(whole.out);
    free(pieces.out);
    return 0;
}
