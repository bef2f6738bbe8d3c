/*
 * Block finders of the newline scanner: how far is everything in order?
 *
 * One bit (or one 0x80 lane) an octet, for a block of 64 (or 8) octets:
 *
 *     octets   H  i CR LF  .  x CR  y LF  z
 *     cr       0  0  1  0  0  0  1  0  0  0
 *     lf       0  0  0  1  0  0  0  0  1  0
 *     lf ^ (cr << 1)           0  0  0  0  0  0  0  1  1  0      well-formed is: all zero
 *     dot & (lf << 1)          0  0  0  0  1  0  0  0  0  0      a dot at the start of a line
 *
 * The first bit that is set in either is where the block stops. For a bare CR it is the octet behind it, so
 * that a CR at the end of one block is judged in the next.
 */
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "smtp/scan.h"

/* What one block needs to know of the octet in front of it. */
struct carry {
    uint64_t cr;    /* 1: it was a CR */
    uint64_t start; /* 1: it was an LF, or there was none and the line starts here */
};

struct masks {
    uint64_t cr, lf, dot;
};

/* The octets from `from` on, one at a time; `carry` describes the octet in front of it. */
static size_t skip_rest(const char *in, size_t size, size_t from, struct carry carry)
{
    bool after_cr = carry.cr != 0, start = carry.start != 0;

    for (size_t i = from; i < size; i++) {
        char octet = in[i];

        if (after_cr && octet != '\n')
            return i - 1;
        if (!after_cr && octet == '\n')
            return i;
        if (start && octet == '.')
            return i;
        after_cr = octet == '\r';
        start = octet == '\n';
    }
    return after_cr ? size - 1 : size;
}

static size_t skip_naive(const char *in, size_t size, bool start)
{
    return skip_rest(in, size, 0, (struct carry){ .start = start });
}

/* Where to stop, given that the octet at `at` set a bit. Behind a CR that was no LF, so the CR is meant. */
static inline size_t stop_at(size_t at, bool after_cr)
{
    return after_cr ? at - 1 : at;
}

#define EVERY_OCTET(value) (UINT64_C(0x0101010101010101) * (value))

/* 0x80 in each octet of `word` that is `value`, else 0. Exact: no borrow crosses an octet. */
static inline uint64_t lanes_equal(uint64_t word, uint8_t value)
{
    uint64_t low = EVERY_OCTET(0x7F), x = word ^ EVERY_OCTET(value);

    return ~(((x & low) + low) | x | low);
}

/* Eight octets at a time from `i` on. */
static size_t skip_words(const char *in, size_t size, size_t i, struct carry carry)
{
    for (; size - i >= 8; i += 8) {
        uint64_t word;

        memcpy(&word, in + i, 8);
        word = le64toh(word); /* so that << goes towards later octets */
        /* Most words hold neither CR nor LF: this finds every octet under 0x0E, and sometimes one more. */
        if (!((word - EVERY_OCTET(0x0E)) & ~word & EVERY_OCTET(0x80)) && !carry.cr && !carry.start)
            continue;

        uint64_t cr = lanes_equal(word, '\r'), lf = lanes_equal(word, '\n'), dot = lanes_equal(word, '.');
        uint64_t after_cr = cr << 8 | carry.cr << 7, after_lf = lf << 8 | carry.start << 7;
        uint64_t stop = (lf ^ after_cr) | (dot & after_lf);

        if (stop)
            return stop_at(i + (size_t)__builtin_ctzll(stop) / 8, after_cr & stop & -stop);
        carry = (struct carry){ .cr = cr >> 63, .start = lf >> 63 };
    }
    return skip_rest(in, size, i, carry);
}

static size_t skip_portable(const char *in, size_t size, bool start)
{
    return skip_words(in, size, 0, (struct carry){ .start = start });
}

#if defined(__x86_64__)
#include <immintrin.h>

/* Judges one block of 64 octets at offset `at`. True: stop at *stop. */
static inline __attribute__((always_inline)) bool block_stops(struct masks m, struct carry *carry, size_t at,
                                                              size_t *stop)
{
    uint64_t after_cr = m.cr << 1 | carry->cr;
    uint64_t hit = (m.lf ^ after_cr) | (m.dot & (m.lf << 1 | carry->start));

    if (__builtin_expect(hit != 0, 0)) {
        *stop = stop_at(at + (size_t)__builtin_ctzll(hit), after_cr & hit & -hit);
        return true;
    }
    *carry = (struct carry){ .cr = m.cr >> 63, .start = m.lf >> 63 };
    return false;
}

static inline uint64_t sse2_equal(const __m128i part[4], char value)
{
    __m128i wanted = _mm_set1_epi8(value);
    uint64_t mask = 0;

#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        mask |= (uint64_t)(uint16_t)_mm_movemask_epi8(_mm_cmpeq_epi8(part[i], wanted)) << (16 * i);
    return mask;
}

static size_t skip_sse2(const char *in, size_t size, bool start)
{
    struct carry carry = { .start = start };
    size_t i = 0, stop;

    for (; size - i >= 64; i += 64) {
        __m128i part[4];

#pragma GCC unroll 4
        for (int p = 0; p < 4; p++)
            part[p] = _mm_loadu_si128((const __m128i *)(const void *)(in + i + 16 * p));
        struct masks masks = { sse2_equal(part, '\r'), sse2_equal(part, '\n'), sse2_equal(part, '.') };
        if (block_stops(masks, &carry, i, &stop))
            return stop;
    }
    return skip_words(in, size, i, carry);
}

__attribute__((target("avx2"))) static inline uint64_t avx2_equal(__m256i low, __m256i high, char value)
{
    __m256i wanted = _mm256_set1_epi8(value);
    uint32_t l = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, wanted));
    uint32_t h = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, wanted));

    return (uint64_t)h << 32 | l;
}

__attribute__((target("avx2"))) static size_t skip_avx2(const char *in, size_t size, bool start)
{
    struct carry carry = { .start = start };
    size_t i = 0, stop;

    for (; size - i >= 64; i += 64) {
        __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(in + i));
        __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(in + i + 32));
        struct masks masks = { avx2_equal(low, high, '\r'), avx2_equal(low, high, '\n'),
                               avx2_equal(low, high, '.') };
        if (block_stops(masks, &carry, i, &stop))
            return stop;
    }
    return skip_words(in, size, i, carry);
}
#endif

const struct smtp_scan_block *smtp_scan_blocks(size_t *count)
{
    static struct smtp_scan_block blocks[] = {
        {"naive",     skip_naive,    true },
        { "portable", skip_portable, true },
#if defined(__x86_64__)
        { "sse2",     skip_sse2,     true },
        { "avx2",     skip_avx2,     false},
#endif
    };

    *count = sizeof blocks / sizeof blocks[0];
#if defined(__x86_64__)
    static bool detected; /* first called before there are threads, by the constructor in scan.c */

    if (!detected) {
        __builtin_cpu_init();
        blocks[*count - 1].usable = __builtin_cpu_supports("avx2");
        detected = true;
    }
#endif
    return blocks;
}
