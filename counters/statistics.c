#include "counters/statistics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "counters/statistics_internal.h"

#define NUMBER_MAX 24

/* One step, so that a reaper is never in between: what it has folded must not come to life again.
 * KEYS: stats:<id>, folded:<id>, stats. ARGV: Unix ms, id, then counters and their values. */
static const char write_script[] =
    "if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end "
    "for i = 3, #ARGV, 1000 do "
    "redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV))) end "
    "redis.call('ZADD', KEYS[3], ARGV[1], ARGV[2]) "
    "return 1";

const char *statistics_key(const struct statistics *s, char key[STATISTICS_KEY_MAX], const char *what,
                           const char *id)
{
    (void)snprintf(key, STATISTICS_KEY_MAX, "%s%s%s%s", s->prefix, what, id ? ":" : "", id ? id : "");
    return key;
}

/* --- counting --- */

/* Where it is, or where it would have to be. */
static size_t place_of(const struct statistics *s, const char *name)
{
    size_t low = 0, high = s->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (strcmp(s->fields[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct statistics_field *insert(struct statistics *s, size_t at, const char *name)
{
    char *copy;

    if (s->n >= STATISTICS_FIELDS)
        return NULL;
    if (s->n == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 64;
        struct statistics_field *fields = realloc(s->fields, capacity * sizeof *fields);

        if (!fields)
            return NULL;
        s->fields = fields;
        s->capacity = capacity;
    }
    copy = strdup(name);
    if (!copy)
        return NULL;
    memmove(&s->fields[at + 1], &s->fields[at], (s->n - at) * sizeof *s->fields);
    s->fields[at] = (struct statistics_field){ .name = copy };
    s->n++;
    return &s->fields[at];
}

void statistics_count(struct statistics *s, const char *name, uint64_t value)
{
    size_t at = place_of(s, name);
    struct statistics_field *field =
        at < s->n && strcmp(s->fields[at].name, name) == 0 ? &s->fields[at] : insert(s, at, name);

    if (field)
        field->told += value;
}

static void look(struct statistics *s)
{
    for (size_t i = 0; i < s->n; i++)
        s->fields[i].told = 0;
    s->ops.count(s->ops.arg, s);
    for (size_t i = 0; i < s->n; i++) {
        struct statistics_field *field = &s->fields[i];

        if (field->told > field->last)
            field->total += field->told - field->last;
        field->last = field->told;
    }
}

/* What was written belongs to others now. */
static void forget_sent(struct statistics *s)
{
    for (size_t i = 0; i < s->n; i++) {
        s->fields[i].total -= s->fields[i].sent;
        s->fields[i].sent = s->fields[i].due = 0;
    }
    s->ever = false;
}

/* Also where no answer came: what may have been written is not told a second time. */
static void keep_sent(struct statistics *s)
{
    for (size_t i = 0; i < s->n; i++)
        s->fields[i].sent = s->fields[i].due;
}

/* --- writing --- */

static void write_counters(struct statistics *s);

static void on_written(void *arg, const struct resp *reply, const char *error)
{
    struct statistics *s = arg;

    s->writing = false;
    if (error || (reply->type == RESP_INTEGER && reply->integer != 0))
        keep_sent(s);
    if (error)
        return; /* the connection says why */
    s->ops.complain(s->ops.arg, "statistics", reply->type == RESP_ERROR ? reply->text : "");
    if (reply->type != RESP_INTEGER || reply->integer != 0)
        return;
    forget_sent(s);
    s->ops.folded(s->ops.arg);
    write_counters(s);
}

static struct resp_word word(const char *text)
{
    return (struct resp_word){ text, strlen(text) };
}

static bool send_counters(struct statistics *s, struct resp_word *words, char (*numbers)[NUMBER_MAX])
{
    char stats[STATISTICS_KEY_MAX], folded[STATISTICS_KEY_MAX], index[STATISTICS_KEY_MAX];
    char time_text[NUMBER_MAX];
    struct resp_commands commands = { 0 };
    struct timespec now;
    size_t n = 0;
    bool sent;

    clock_gettime(CLOCK_REALTIME, &now);
    (void)snprintf(time_text, sizeof time_text, "%" PRId64,
                   (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    words[n++] = word("EVAL");
    words[n++] = word(write_script);
    words[n++] = word("3");
    words[n++] = word(statistics_key(s, stats, "stats", s->id));
    words[n++] = word(statistics_key(s, folded, "folded", s->id));
    words[n++] = word(statistics_key(s, index, "stats", NULL));
    words[n++] = word(time_text);
    words[n++] = word(s->id);
    for (size_t i = 0; i < s->n; i++) {
        (void)snprintf(numbers[i], NUMBER_MAX, "%" PRIu64, s->fields[i].total);
        words[n++] = word(s->fields[i].name);
        words[n++] = word(numbers[i]);
    }
    resp_commands_add(&commands, words, n);
    sent = redis_send(s->redis, &commands, on_written, s);
    resp_commands_free(&commands);
    return sent;
}

static void write_counters(struct statistics *s)
{
    struct resp_word *words = calloc(8 + 2 * s->n, sizeof *words);
    char(*numbers)[NUMBER_MAX] = calloc(s->n ? s->n : 1, sizeof *numbers);

    if (words && numbers && send_counters(s, words, numbers)) {
        s->writing = s->ever = true;
        for (size_t i = 0; i < s->n; i++)
            s->fields[i].due = s->fields[i].total;
    }
    free(words);
    free(numbers);
}

static bool is_connected(const struct statistics *s)
{
    return s->redis && redis_state(s->redis) == REDIS_READY;
}

void statistics_tick(struct statistics *s, int64_t now)
{
    s->now = now;
    if (!is_connected(s))
        return;
    if (!s->writing && (!s->ever || now - s->written_at >= STATISTICS_INTERVAL)) {
        s->written_at = now;
        look(s);
        write_counters(s);
    }
    reaper_tick(&s->reaper, now);
}

void statistics_final(struct statistics *s)
{
    look(s);
    if (is_connected(s))
        write_counters(s);
}

/* --- life --- */

void statistics_connect(struct statistics *s, struct redis *commands, const char *prefix)
{
    if (s->writing)
        keep_sent(s);
    s->redis = commands;
    s->writing = false;
    reaper_reset(&s->reaper);
    if (!commands || strcmp(s->prefix, prefix) == 0)
        return;
    if (*s->prefix)
        forget_sent(s);
    (void)snprintf(s->prefix, sizeof s->prefix, "%s", prefix);
}

void statistics_set_id(struct statistics *s, const char *id)
{
    if (s->writing)
        keep_sent(s);
    forget_sent(s);
    (void)snprintf(s->id, sizeof s->id, "%s", id);
}

struct statistics *statistics_create(const char *id, const struct statistics_ops *ops)
{
    struct statistics *s = calloc(1, sizeof *s);

    if (s)
        s->ops = *ops;
    if (s && !reaper_init(&s->reaper, s))
        statistics_free(&s);
    else if (s)
        statistics_set_id(s, id);
    return s;
}

void statistics_free(struct statistics **statistics)
{
    struct statistics *s = *statistics;

    *statistics = NULL;
    if (!s)
        return;
    reaper_free(&s->reaper);
    for (size_t i = 0; i < s->n; i++)
        free(s->fields[i].name);
    free(s->fields);
    free(s);
}
