/*
 * Rate limits: rules of the configuration, and what each client, user or domain has used of them.
 *
 *     rate_rules (one a configuration) ── rate (one a rule) ── buckets, one for each who has sent lately
 *
 * All workers share the buckets; a message or recipient takes one token of each rule that applies to it.
 * Without a bank the rule holds for this instance alone, by gcra.h. With one it holds for the farm, and
 * tokens are had in advance, so that no mail ever waits for the bank:
 *
 *     a lease at hand ──▶ taken of it; when half is gone more is asked for
 *     none            ──▶ given on credit, which the bank is asked to book
 *     the bank has none left ──▶ refused, until it says there is
 *     the bank is away ──▶ by this instance's own count, which goes on all the time
 *
 * Who sends now and then has each token booked one by one; who sends steadily gets leases that double, up to
 * a tenth of the limit and RATE_LEASE_MAX. What is left of a lease when it lapses is given back with the next
 * request. Limits under 10 are never leased.
 *
 * Memory is bounded: RATE_BUCKETS_MAX a rule. Full allowances need no bucket and make room first. Without any
 * of those the newcomer takes the place of who, of a few that are looked at, has used the least of his: who
 * invents senders drives out what he invented.
 */
#ifndef WEIR_COUNTERS_RATE_H
#define WEIR_COUNTERS_RATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "net/mailbox.h"

#define RATE_BUCKETS_MAX 100000 /* of one rule */
#define RATE_WHO_MAX     255    /* octets of a name; of a longer one the last count */
#define RATE_LEASE_MAX   100    /* tokens */

enum rate_what { RATE_MESSAGES, RATE_RECIPIENTS };
#define RATE_WHATS (RATE_RECIPIENTS + 1)
const char *rate_what_name(enum rate_what what);

struct rate;

/* The rules of one configuration, in its order. Reference-counted. */
struct rate_rules {
    _Atomic uint32_t references;
    size_t n;
    struct rate *rates[]; /* held */
};

struct rate_bank;
/* The rules of `config`. Those that `old` (may be NULL) has with the same name, `by` and amounts are the same
 * objects. NULL: out of memory. `bank` may be NULL, and must outlive the rules otherwise. */
struct rate_rules *rate_rules_create(const struct config *config, const struct rate_rules *old,
                                     struct rate_bank *bank);
struct rate_rules *rate_rules_hold(struct rate_rules *rules);
void rate_rules_release(struct rate_rules **rules); /* NULL is fine */

const char *rate_name(const struct rate *rate);
/* Higher than that of every rule made before. */
uint64_t rate_serial(const struct rate *rate);
/* Whether the rule says anything about this. */
bool rate_limits(const struct rate *rate, enum rate_what what);
/* How many were refused since the rule began. */
uint64_t rate_refused(const struct rate *rate, enum rate_what what);

struct rate_refusal {
    uint32_t wait;  /* ms until one may be had; at least 1 */
    bool tell;      /* log it: not more than one in 10 s for each who, and 10 a second for the rule */
    uint32_t since; /* refusals of this who since the last that was told, with this one */
};

/* Take one token of `who`. False: refused, and nothing is taken. `now`: ms, monotonic. Any thread; blocks for
 * no more than a look-up, and allocates only for who has not sent lately. Who can't be kept count of, as
 * memory is out, is let through: a limit is not worth mail. */
bool rate_take(struct rate *rate, enum rate_what what, const char *who, size_t size, int64_t now,
               struct rate_refusal *refusal);
/* Give back what was taken: another rule refused, or no backend could be had for it. */
void rate_give_back(struct rate *rate, enum rate_what what, const char *who, size_t size, int64_t now);

/* --- the bank: who keeps the farm's count --- */

/* What a bucket asks for. It lies in the bucket, which stays until the answer: rate_answered(), exactly once.
 */
struct rate_request {
    struct mail mail; /* for the bank's use */
    const char *rule, *who;
    size_t size;
    enum rate_what what;
    uint32_t n, period; /* the limit: n in so many ms */
    int32_t used;       /* to be booked, there or not; negative: given back */
    uint32_t wanted;    /* to be leased beyond that, as far as they are there */
};

struct rate_answer {
    bool booked;      /* false: the bank is away, or can't make sense of what it finds */
    uint32_t granted; /* of those wanted */
    uint32_t wait;    /* ms until there is one more; 0: there is one now */
};

struct rate_bank {
    _Atomic bool open; /* false: nobody asks */
    /* Any thread; must not block, and must not answer before it returns. */
    void (*ask)(struct rate_bank *bank, struct rate_request *request);
};

/* Any thread. */
void rate_answered(struct rate_request *request, const struct rate_answer *answer, int64_t now);

/* Buckets that there are now. For tests. */
size_t rate_buckets(struct rate *rate);

#endif
