/*
 * How fast is the end-of-data scanner? Each block finder and the scanner as a whole, in GB/s (10^9 octets),
 * the median of several runs over a body that fits the second-level cache, as a body does that was just read
 * from a socket.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "smtp/scan.h"

#define BODY   (1u << 20)
#define ROUNDS 200
#define RUNS   9

static volatile size_t sink;

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* A body of whole copies of `line`; returns its size. */
static size_t fill(char *body, const char *line)
{
    size_t length = strlen(line), size = 0;

    while (size + length <= BODY) {
        memcpy(body + size, line, length);
        size += length;
    }
    return size;
}

static size_t run_block(smtp_scan_block_fn *skip, const char *body, size_t size)
{
    size_t done = 0;

    while (done < size) {
        size_t n = skip(body + done, size - done, true);

        done += n ? n : 1; /* step over a dot */
    }
    return done;
}

static size_t run_feed(const char *body, size_t size, size_t piece)
{
    struct smtp_scan scan;
    size_t passed = 0;

    smtp_scan_start(&scan, SMTP_NEWLINE_REJECT, true);
    while (passed < size) {
        size_t n = size - passed < piece ? size - passed : piece;

        passed += smtp_scan_feed(&scan, body + passed, n).pass;
    }
    return passed;
}

/* `skip` NULL: measure smtp_scan_feed() in pieces of `piece` octets. */
static void measure(const char *what, const char *mail, smtp_scan_block_fn *skip, const char *body,
                    size_t size, size_t piece)
{
    double rate[RUNS];

    for (int run = 0; run < RUNS; run++) {
        double begin = now();

        for (int round = 0; round < ROUNDS; round++)
            sink += skip ? run_block(skip, body, size) : run_feed(body, size, piece);
        rate[run] = (double)size * ROUNDS / (now() - begin) / 1e9;
    }
    qsort(rate, RUNS, sizeof rate[0], by_value);
    printf("%-9s %-34s %7.2f GB/s\n", what, mail, rate[RUNS / 2]);
}

int main(void)
{
    static const struct {
        const char *name, *line;
    } mails[] = {
        {"76-octet lines",
         "The quick brown fox jumps over the lazy dog, and then over one or two. More.\r\n"},
        { "short lines, each with a dot",    ".x\r\n"                                      },
        { "76-octet lines, each with a dot",
         ".The quick brown fox jumps over the lazy dog, and then over one or two More.\r\n"},
        { "empty lines",                     "\r\n"                                        },
    };
    char *body = malloc(BODY);
    size_t count;
    const struct smtp_scan_block *blocks = smtp_scan_blocks(&count);

    if (!body)
        return 1;
    for (size_t m = 0; m < sizeof mails / sizeof mails[0]; m++) {
        size_t size = fill(body, mails[m].line);

        for (size_t b = 0; b < count; b++)
            if (blocks[b].usable)
                measure(blocks[b].name, mails[m].name, blocks[b].skip, body, size, 0);
        measure("feed 64K", mails[m].name, NULL, body, size, 65536);
        measure("feed 1M", mails[m].name, NULL, body, size, BODY);
    }
    free(body);
    return 0;
}
