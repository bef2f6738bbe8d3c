/*
 * The counters of an instance that is gone, into the totals: exactly once, whoever does it and however many
 * do.
 *
 *     every few minutes:  ZRANGE instances, ZRANGE stats ──▶ EXISTS connections:<id> of each
 *     none for an hour by the clock of this instance: the script
 *
 * The script looks itself whether there are connections and counters, and takes the counters away before it
 * adds them, so the second of two reapers finds nothing. Should a look have been wrong (the instance was only
 * cut off) nothing is counted twice either: the instance finds folded:<id>.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "counters/statistics_internal.h"

/* KEYS: stats:<id>, connections:<id>, totals, folded:<id>, instances, stats. ARGV: id, counters at most.
 *
 * What may be refused comes before what can't be taken back: the HINCRBY of 0 is there for that. Values that
 * are no counters are left out; 18 digits are more than anything was ever counted to, and their sum over many
 * instances stays within what Redis can add. Relays come and go, and their names stay in the totals: when as
 * many are there as can be read, new ones become "others.delivered" and so on. -1: a key is of another type,
 * or holds more than any Weir counts. */
static const char fold_script[] =
    "if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end "
    "local n = redis.pcall('HLEN', KEYS[1]) "
    "if type(n) == 'table' and not string.find(n.err, 'WRONGTYPE') then return n end "
    "if n == 0 or type(n) == 'table' or n > tonumber(ARGV[2]) then "
    "redis.call('ZREM', KEYS[5], ARGV[1]) redis.call('ZREM', KEYS[6], ARGV[1]) "
    "return n == 0 and 0 or -1 end "
    "local counters = redis.call('HGETALL', KEYS[1]) "
    "local probe = redis.pcall('HINCRBY', KEYS[3], 'folded', 0) "
    "if type(probe) == 'table' and not string.find(probe.err, 'integer') then return probe end "
    "redis.call('SET', KEYS[4], '1', 'EX', 2592000) "
    "redis.call('DEL', KEYS[1]) "
    "local room, known, kinds = ARGV[2] - 16 - redis.call('HLEN', KEYS[3]) "
    "if room < #counters / 2 then "
    "kinds = { delivered = 1, rejected = 1, deferred = 1, failed = 1, aborted = 1, unknown = 1 } known = {} "
    "for _, name in ipairs(redis.call('HGETALL', KEYS[3])) do known[name] = true end end "
    "for i = 1, #counters, 2 do "
    "local name, value = counters[i], counters[i + 1] "
    "if #name <= 300 and #value <= 18 and string.find(value, '^%d+$') and tonumber(value) > 0 then "
    "if known and not known[name] then room = room - 1 if room < 0 then "
    "local kind = string.match(name, '%.(%l+)$') name = 'others.' .. (kinds[kind] and kind or 'other') end "
    "end "
    "redis.pcall('HINCRBY', KEYS[3], name, value) end end "
    "redis.pcall('HINCRBY', KEYS[3], 'folded', 1) "
    "redis.call('ZREM', KEYS[5], ARGV[1]) redis.call('ZREM', KEYS[6], ARGV[1]) "
    "return 1";

static struct reaper_gone *find(struct reaper *reaper, const char *id)
{
    for (size_t i = 0; i < reaper->n; i++)
        if (strcmp(reaper->gone[i].id, id) == 0)
            return &reaper->gone[i];
    return NULL;
}

/* --- folding --- */

static void on_folded(void *arg, const struct resp *reply, const char *error)
{
    const struct statistics_ops *ops = &((struct reaper *)arg)->statistics->ops;

    if (error)
        return;
    if (reply->type == RESP_INTEGER && reply->integer < 0)
        ops->complain(ops->arg, "reaper", "the statistics of an instance that is gone are malformed");
    else
        ops->complain(ops->arg, "reaper", reply->type == RESP_ERROR ? reply->text : "");
}

static void fold(struct reaper *reaper, const char *id)
{
    static const struct {
        const char *what;
        bool own; /* the id stands behind it */
    } keys[] = {
        {"stats",        true },
        { "connections", true },
        { "totals",      false},
        { "folded",      true },
        { "instances",   false},
        { "stats",       false},
    };
    enum { KEYS = sizeof keys / sizeof *keys };
    const struct statistics *s = reaper->statistics;
    char names[KEYS][STATISTICS_KEY_MAX], most[16];
    struct resp_word words[3 + KEYS + 2] = {
        {"EVAL",       4                     },
        { fold_script, sizeof fold_script - 1},
        { "6",         1                     }
    };
    struct resp_commands commands = { 0 };
    size_t n = 3;

    for (size_t i = 0; i < KEYS; i++, n++) {
        words[n].text = statistics_key(s, names[i], keys[i].what, keys[i].own ? id : NULL);
        words[n].size = strlen(names[i]);
    }
    words[n++] = (struct resp_word){ id, strlen(id) };
    words[n++] = (struct resp_word){ most, (size_t)snprintf(most, sizeof most, "%d", STATISTICS_FIELDS) };
    resp_commands_add(&commands, words, n);
    (void)redis_send(s->redis, &commands, on_folded, reaper);
    resp_commands_free(&commands);
}

/* --- looking --- */

static void judge(struct reaper *reaper, const char *id, bool connected)
{
    struct reaper_gone *gone = find(reaper, id);
    int64_t now = reaper->statistics->now;

    if (connected)
        return; /* and should it be known as gone, it is no more */
    if (!gone && reaper->n < REAPER_GONE_MAX) {
        gone = &reaper->gone[reaper->n++];
        *gone = (struct reaper_gone){ .since = now };
        memcpy(gone->id, id, strlen(id) + 1);
    }
    if (!gone)
        return;
    gone->found = true;
    if (now - gone->since >= REAPER_PATIENCE)
        fold(reaper, id);
}

/* Of one command the reply is that to it, of several an array. */
static bool is_connected(const struct resp *reply, size_t i)
{
    const struct resp *one = reply->type == RESP_ARRAY ? &reply->elements[i] : reply;

    return one->type != RESP_INTEGER || one->integer != 0;
}

static void on_exists(void *arg, const struct resp *reply, const char *error)
{
    struct reaper *reaper = arg;
    const struct statistics_ops *ops = &reaper->statistics->ops;
    size_t kept = 0;

    reaper->busy = false;
    if (error)
        return;
    if (reply->type == RESP_ARRAY ? reply->n != reaper->n_ids : reply->type != RESP_INTEGER) {
        ops->complain(ops->arg, "reaper", reply->type == RESP_ERROR ? reply->text : "an odd reply");
        return;
    }
    for (size_t i = 0; i < reaper->n; i++)
        reaper->gone[i].found = false;
    for (size_t i = 0; i < reaper->n_ids; i++)
        judge(reaper, reaper->ids[i], is_connected(reply, i));
    for (size_t i = 0; i < reaper->n; i++)
        if (reaper->gone[i].found)
            reaper->gone[kept++] = reaper->gone[i];
    reaper->n = kept;
}

static void add_id(struct reaper *reaper, const struct resp *id, struct resp_commands *commands)
{
    const struct statistics *s = reaper->statistics;
    char key[STATISTICS_KEY_MAX];

    if (id->type != RESP_TEXT || !snapshot_id_valid(id->text, id->size) || strcmp(id->text, s->id) == 0)
        return;
    for (size_t i = 0; i < reaper->n_ids; i++)
        if (strcmp(reaper->ids[i], id->text) == 0)
            return;
    memcpy(reaper->ids[reaper->n_ids++], id->text, id->size + 1);
    resp_commands_say(commands, "EXISTS", statistics_key(s, key, "connections", id->text));
}

static void on_ids(void *arg, const struct resp *reply, const char *error)
{
    struct reaper *reaper = arg;
    const struct statistics_ops *ops = &reaper->statistics->ops;
    struct resp_commands commands = { 0 };

    reaper->busy = false;
    if (error)
        return;
    if (reply->type != RESP_ARRAY) {
        ops->complain(ops->arg, "reaper", reply->type == RESP_ERROR ? reply->text : "an odd reply");
        return;
    }
    reaper->n_ids = 0;
    /* A set of another type is an error in its place, and has no elements. */
    for (size_t set = 0; set < reply->n; set++)
        for (size_t i = 0; i < reply->elements[set].n && reaper->n_ids < REAPER_GONE_MAX; i++)
            add_id(reaper, &reply->elements[set].elements[i], &commands);
    reaper->busy = reaper->n_ids && redis_send(reaper->statistics->redis, &commands, on_exists, reaper);
    resp_commands_free(&commands);
}

/* Instances that were started together do not look together. */
static int64_t later(int64_t now, int64_t at_least)
{
    uint32_t random = 0;

    (void)!getrandom(&random, sizeof random, 0);
    return now + at_least + random % REAPER_INTERVAL;
}

void reaper_tick(struct reaper *reaper, int64_t now)
{
    struct resp_commands commands = { 0 };
    const struct statistics *s = reaper->statistics;
    static const char last[] = "1023"; /* REAPER_GONE_MAX: those that have been quiet for the longest */
    char key[STATISTICS_KEY_MAX];

    static_assert(REAPER_GONE_MAX == 1024, "as many as are asked for");
    if (!reaper->next)
        reaper->next = later(now, 0);
    if (reaper->busy || now < reaper->next)
        return;
    reaper->next = later(now, REAPER_INTERVAL);
    resp_commands_say(&commands, "ZRANGE", statistics_key(s, key, "stats", NULL), "0", last);
    resp_commands_say(&commands, "ZRANGE", statistics_key(s, key, "instances", NULL), "0", last);
    reaper->busy = redis_send(s->redis, &commands, on_ids, reaper);
    resp_commands_free(&commands);
}

/* --- life --- */

void reaper_reset(struct reaper *reaper)
{
    reaper->busy = false;
}

bool reaper_init(struct reaper *reaper, struct statistics *statistics)
{
    reaper->statistics = statistics;
    reaper->gone = calloc(REAPER_GONE_MAX, sizeof *reaper->gone);
    reaper->ids = calloc(REAPER_GONE_MAX, sizeof *reaper->ids);
    return reaper->gone && reaper->ids;
}

void reaper_free(struct reaper *reaper)
{
    free(reaper->gone);
    free(reaper->ids);
}
