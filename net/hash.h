/*
 * Hashes for tables whose keys strangers choose: SipHash-2-4 (Aumasson and Bernstein, 2012). Without the key
 * nobody can find two inputs that collide.
 */
#ifndef WEIR_NET_HASH_H
#define WEIR_NET_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash_keyed(const uint64_t key[2], const void *data, size_t size);
/* With a key of this process, random at its start: good for nothing that outlives it. Any thread. */
uint64_t hash_secretly(const void *data, size_t size);

#endif
