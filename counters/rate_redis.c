#include "counters/rate_redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/clock.h"

/* GCRA, as in gcra.c, on Redis's clock; a microsecond of grace keeps what was rounded from counting. Nothing
 * that stands in the key can make it fail but another type. ARGV: 1 messages or 2 recipients, n, period in
 * ms, tokens to book (or, below 0, to give back), tokens wanted. */
static const char script[] =
    "local at = redis.call('TIME')\n"
    "local now = at[1] * 1000000 + at[2]\n"
    "local which, n, all = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] * 1000\n"
    "local each, used, wanted = all / n, tonumber(ARGV[4]), tonumber(ARGV[5])\n"
    "local full = { now, now }\n"
    "local was = redis.call('GET', KEYS[1])\n"
    "if was then\n"
    "  local one, two = string.match(was, '^(%d+) (%d+)$')\n"
    "  if one and #one <= 16 and #two <= 16 then\n"
    "    full = { math.max(now, tonumber(one)), math.max(now, tonumber(two)) }\n"
    "  end\n"
    "end\n"
    "local mine = full[which]\n"
    "if mine > now + 2 * all then mine = now + all end\n"
    "mine = math.max(now, math.min(mine + used * each, now + 2 * all))\n"
    "local granted = math.max(0, math.min(wanted, math.floor((now + all + 1 - mine) / each)))\n"
    "mine = mine + granted * each\n"
    "local wait = 0\n"
    "if now + all + 1 - mine < each then wait = math.ceil((mine + each - now - all) / 1000) end\n"
    "full[which] = mine\n"
    "local most = math.max(full[1], full[2]) - now\n"
    "redis.call('SET', KEYS[1], string.format('%.0f %.0f', full[1], full[2]),\n"
    "  'PX', string.format('%.0f', math.min(math.ceil(most / 1000), 6e9) + 1))\n"
    "return { granted, wait }\n";
/* Its SHA-1, which a test asks Redis for. Were it another, each request would be sent twice. */
static const char script_digest[] = "41dee66a7293f446d8e4df5d60bc4570ced0ec1a";

#define KEY_MAX (sizeof "weir:{}:rate::" + 2 * 64 + RATE_WHO_MAX)

struct job {
    struct job *next, *previous;
    struct rate_redis *owner;
    struct rate_request *request;
    bool whole; /* the script itself was sent */
};

struct rate_redis {
    struct rate_bank bank; /* first: the bank is found by it */
    struct mailbox mailbox;
    struct redis *redis; /* READY, or NULL */
    char *farm;
    struct job *jobs; /* outstanding */
    unsigned n_jobs;
    struct resp_commands commands; /* scratch */
};

struct rate_bank *rate_redis_bank(struct rate_redis *bank)
{
    return &bank->bank;
}

static void away(struct rate_request *request)
{
    rate_answered(request, &(struct rate_answer){ .booked = false }, clock_milliseconds());
}

static void job_end(struct job *job)
{
    struct rate_redis *bank = job->owner;

    if (job->previous)
        job->previous->next = job->next;
    else
        bank->jobs = job->next;
    if (job->next)
        job->next->previous = job->previous;
    bank->n_jobs--;
    free(job);
}

static void on_answer(void *arg, const struct resp *reply, const char *error);

static bool job_send(struct job *job)
{
    struct rate_redis *bank = job->owner;
    const struct rate_request *request = job->request;
    char key[KEY_MAX], numbers[5][16];
    int size = snprintf(key, sizeof key, "weir:{%s}:rate:%s:", bank->farm, request->rule);
    const char *how = job->whole ? "EVAL" : "EVALSHA", *what = job->whole ? script : script_digest;
    struct resp_word words[9] = {
        {how,   strlen(how)                 },
        { what, strlen(what)                },
        { "1",  1                           },
        { key,  (size_t)size + request->size}
    };

    memcpy(key + size, request->who, request->size);
    (void)snprintf(numbers[0], sizeof numbers[0], "%d", request->what == RATE_MESSAGES ? 1 : 2);
    (void)snprintf(numbers[1], sizeof numbers[1], "%u", request->n);
    (void)snprintf(numbers[2], sizeof numbers[2], "%u", request->period);
    (void)snprintf(numbers[3], sizeof numbers[3], "%d", request->used);
    (void)snprintf(numbers[4], sizeof numbers[4], "%u", request->wanted);
    for (int i = 0; i < 5; i++)
        words[4 + i] = (struct resp_word){ numbers[i], strlen(numbers[i]) };
    resp_commands_clear(&bank->commands);
    resp_commands_add(&bank->commands, words, 9);
    return redis_send(bank->redis, &bank->commands, on_answer, job);
}

/* Redis is as hostile as any peer. */
static bool understood(const struct resp *reply, const struct rate_request *request, struct rate_answer *out)
{
    const struct resp *granted = reply->elements, *wait = reply->elements + 1;

    if (reply->type != RESP_ARRAY || reply->n != 2 || granted->type != RESP_INTEGER ||
        wait->type != RESP_INTEGER || granted->integer < 0 || granted->integer > request->wanted ||
        wait->integer < 0 || wait->integer > INT64_C(3) * request->period)
        return false;
    out->booked = true;
    out->granted = (uint32_t)granted->integer;
    out->wait = wait->integer < UINT32_MAX ? (uint32_t)wait->integer : UINT32_MAX;
    return true;
}

static void on_answer(void *arg, const struct resp *reply, const char *error)
{
    struct job *job = arg;
    struct rate_request *request = job->request;
    struct rate_answer answer = { .booked = false };

    (void)error;
    if (reply && resp_fault(reply) == RESP_FAULT_NOSCRIPT && !job->whole && job->owner->redis) {
        job->whole = true;
        if (job_send(job))
            return;
    } else if (reply) {
        (void)understood(reply, request, &answer);
    }
    job_end(job);
    rate_answered(request, &answer, clock_milliseconds());
}

/* On the control thread. */
static void deliver(struct mail *mail, void *owner)
{
    struct rate_redis *bank = owner;
    struct rate_request *request =
        (struct rate_request *)((char *)mail - offsetof(struct rate_request, mail));
    struct job *job = bank->redis && bank->n_jobs < RATE_REDIS_OUTSTANDING_MAX ? malloc(sizeof *job) : NULL;

    if (!job) {
        away(request);
        return;
    }
    *job = (struct job){ .next = bank->jobs, .owner = bank, .request = request };
    if (job->next)
        job->next->previous = job;
    bank->jobs = job;
    bank->n_jobs++;
    if (job_send(job))
        return;
    job_end(job);
    away(request);
}

/* On a worker's. */
static void ask(struct rate_bank *bank, struct rate_request *request)
{
    struct rate_redis *owner = (struct rate_redis *)bank;

    request->mail.deliver = deliver;
    mailbox_post(&owner->mailbox, &request->mail);
}

struct rate_redis *rate_redis_create(struct ev_loop *loop)
{
    struct rate_redis *bank = calloc(1, sizeof *bank);

    if (!bank)
        return NULL;
    atomic_init(&bank->bank.open, false);
    bank->bank.ask = ask;
    mailbox_open(&bank->mailbox, loop, bank);
    return bank;
}

void rate_redis_use(struct rate_redis *bank, struct redis *redis, const char *farm)
{
    char *copy = redis ? strdup(farm) : NULL;

    free(bank->farm);
    bank->farm = copy;
    bank->redis = copy ? redis : NULL;
    atomic_store_explicit(&bank->bank.open, bank->redis != NULL, memory_order_relaxed);
}

void rate_redis_forget(struct rate_redis *bank)
{
    rate_redis_use(bank, NULL, NULL);
    while (bank->jobs) {
        struct rate_request *request = bank->jobs->request;

        job_end(bank->jobs);
        away(request);
    }
}

void rate_redis_free(struct rate_redis **held)
{
    struct rate_redis *bank = *held;

    *held = NULL;
    if (!bank)
        return;
    rate_redis_forget(bank);
    mailbox_close(&bank->mailbox);
    resp_commands_free(&bank->commands);
    free(bank);
}
