/*
 * SipHash-1-3 (Aumasson and Bernstein, 2012): a hash of 64 bits under a secret key, for tables whose keys
 * strangers choose. Without the key nobody can find names that collide.
 */
#ifndef WEIR_COUNTERS_KEYED_HASH_H
#define WEIR_COUNTERS_KEYED_HASH_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t keyed_hash_turn(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void keyed_hash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = keyed_hash_turn(v[1], 13) ^ v[0];
    v[3] = keyed_hash_turn(v[3], 16) ^ v[2];
    v[0] = keyed_hash_turn(v[0], 32) + v[3];
    v[2] += v[1];
    v[3] = keyed_hash_turn(v[3], 21) ^ v[0];
    v[1] = keyed_hash_turn(v[1], 17) ^ v[2];
    v[2] = keyed_hash_turn(v[2], 32);
}

static inline uint64_t keyed_hash(const uint64_t key[2], const char *text, size_t size)
{
    uint64_t v[4] = { key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
                      key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573) };
    uint64_t word = 0;

    for (size_t i = 0; i < size; i++) {
        word |= (uint64_t)(unsigned char)text[i] << 8 * (i % 8);
        if (i % 8 != 7)
            continue;
        v[3] ^= word;
        keyed_hash_round(v);
        v[0] ^= word;
        word = 0;
    }
    word |= (uint64_t)size << 56;
    v[3] ^= word;
    keyed_hash_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        keyed_hash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
