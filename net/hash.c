#include "net/hash.h"

#include <endian.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static void mix(uint64_t v[4], int rounds)
{
    while (rounds-- > 0) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

static void absorb(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    mix(v, 2);
    v[0] ^= word;
}

uint64_t hash_keyed(const uint64_t key[2], const void *data, size_t size)
{
    uint64_t v[4] = { key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
                      key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573) };
    const char *octets = data;
    size_t left = size;
    uint64_t word;

    for (; left >= sizeof word; left -= sizeof word, octets += sizeof word) {
        memcpy(&word, octets, sizeof word);
        absorb(v, le64toh(word));
    }
    word = 0;
    memcpy(&word, octets, left);
    absorb(v, le64toh(word) | (uint64_t)size << 56);
    v[2] ^= 0xff;
    mix(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static uint64_t secret[2];

static void choose_secret(void)
{
    if (getrandom(secret, sizeof secret, 0) != (ssize_t)sizeof secret)
        abort(); /* so few octets can't fail on a kernel that has the call */
}

uint64_t hash_secretly(const void *data, size_t size)
{
    static pthread_once_t chosen = PTHREAD_ONCE_INIT;

    pthread_once(&chosen, choose_secret);
    return hash_keyed(secret, data, size);
}
