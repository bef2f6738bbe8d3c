/*
 * Random draws. Each stream is its own, so that what one thing draws changes nothing for another: under every
 * policy the same sessions come at the same moments with the same work.
 */
#ifndef WEIR_TESTS_SIM_DRAW_H
#define WEIR_TESTS_SIM_DRAW_H

#include <math.h>
#include <stdint.h>

#include "balancer/algorithm.h"

struct stream {
    uint64_t state;
};

/* The `which`-th stream of a run. */
static inline struct stream stream_of(uint64_t seed, uint64_t which)
{
    struct stream stream = { (seed * 0x9e3779b97f4a7c15u) ^ (which * 0xd1b54a32d192ed03u) };

    if (!stream.state)
        stream.state = 1;
    for (int i = 0; i < 8; i++)
        (void)algorithm_random(&stream.state);
    return stream;
}

static inline double draw_even(struct stream *stream) /* in (0, 1) */
{
    return ((double)(algorithm_random(&stream->state) >> 12) + 0.5) * 0x1p-52;
}

static inline double draw_gap(struct stream *stream,
                              double per_second) /* s to the next of a Poisson process */
{
    return -log(draw_even(stream)) / per_second;
}

static inline double draw_lognormal(struct stream *stream, double mean, double sigma)
{
    double normal = sqrt(-2 * log(draw_even(stream))) * cos(2 * M_PI * draw_even(stream));

    return mean * exp(sigma * normal - sigma * sigma / 2);
}

static inline uint32_t draw_geometric(struct stream *stream, double mean) /* from 1 */
{
    return mean <= 1 ? 1 : 1 + (uint32_t)(log(draw_even(stream)) / log(1 - 1 / mean));
}

#endif
