#include "counters/keys.h"

#include <stdlib.h>
#include <string.h>

#include "counters/verdict.h"

/* Behind the first `prefix` octets. */
static char *read_name(const struct resp *text, size_t prefix)
{
    if (text->type != RESP_TEXT || text->size <= prefix || text->size - prefix >= SNAPSHOT_NAME_MAX ||
        memchr(text->text, 0, text->size))
        return NULL;
    return strdup(text->text + prefix);
}

bool keys_is_hash(const struct resp *reply)
{
    return reply->type == RESP_ARRAY && reply->n % 2 == 0;
}

static bool add_rate(struct snapshot *snapshot, const struct resp *field, const struct resp *value)
{
    static const char prefix[] = "arrival_rate:";
    struct snapshot_rate *rate = &snapshot->rates[snapshot->n_rates];
    char *end;
    double number;

    if (field->size <= sizeof prefix - 1 || strncmp(field->text, prefix, sizeof prefix - 1) != 0)
        return true;
    if (value->type != RESP_TEXT || value->size == 0)
        return false;
    number = strtod(value->text, &end);
    if (end != value->text + value->size || !(number >= 0 && number <= SNAPSHOT_RATE_MAX))
        return false;
    rate->name = read_name(field, sizeof prefix - 1);
    rate->rate = (float)number;
    snapshot->n_rates += rate->name != NULL;
    return rate->name != NULL;
}

static bool read_instance(struct snapshot *out, const struct resp *hash)
{
    uint64_t schema = 0, started = 0, seq = 0;

    if (!keys_is_hash(hash) || hash->n > 2 * SNAPSHOT_ENTRIES)
        return false;
    out->rates = calloc(hash->n / 2 + 1, sizeof *out->rates);
    if (!out->rates)
        return false;
    for (size_t i = 0; i < hash->n; i += 2) {
        const struct resp *field = &hash->elements[i], *value = &hash->elements[i + 1];
        bool good = field->type == RESP_TEXT;

        if (good && resp_is(field, "schema"))
            good = resp_number(value, UINT32_MAX, &schema);
        else if (good && resp_is(field, "started"))
            good = resp_number(value, INT64_MAX, &started);
        else if (good && resp_is(field, "seq"))
            good = resp_number(value, INT64_MAX, &seq);
        else if (good && resp_is(field, "sessions"))
            good = resp_number(value, INT64_MAX, &out->sessions);
        else if (good && resp_is(field, "queued"))
            good = resp_number(value, INT64_MAX, &out->queued);
        else if (good)
            good = add_rate(out, field, value);
        if (!good)
            return false;
    }
    out->started = (int64_t)started;
    out->seq = seq;
    return schema == SNAPSHOT_SCHEMA && started && seq;
}

static bool read_connections(struct snapshot *out, const struct resp *hash)
{
    if (!keys_is_hash(hash) || hash->n > 2 * SNAPSHOT_ENTRIES)
        return false;
    out->held = calloc(hash->n / 2 + 1, sizeof *out->held);
    if (!out->held)
        return false;
    for (size_t i = 0; i < hash->n; i += 2) {
        struct snapshot_count *held = &out->held[out->n_held];
        uint64_t number;

        if (!resp_number(&hash->elements[i + 1], SNAPSHOT_COUNT_MAX, &number) ||
            !(held->name = read_name(&hash->elements[i], 0)))
            return false;
        held->count = (uint32_t)number;
        out->n_held++;
    }
    return true;
}

/* The arrays are there, with room for one more of each. */
static bool read_verdict(struct snapshot *out, const struct resp *field, const struct resp *value)
{
    struct snapshot_count *limit = &out->limits[out->n_limits];
    uint32_t found;
    bool down;

    if (value->type != RESP_TEXT)
        return false;
    verdict_finding(value->text, &down, &found);
    if (down) {
        if (!(out->down[out->n_down] = read_name(field, 0)))
            return false;
        out->n_down++;
    }
    if (found == UINT32_MAX)
        return true;
    if (!(limit->name = read_name(field, 0)))
        return false;
    limit->count = found;
    out->n_limits++;
    return true;
}

static bool read_health(struct snapshot *out, const struct resp *hash)
{
    if (!keys_is_hash(hash) || hash->n > 2 * SNAPSHOT_ENTRIES)
        return false;
    out->limits = calloc(hash->n / 2 + 1, sizeof *out->limits);
    out->down = calloc(hash->n / 2 + 1, sizeof *out->down);
    if (!out->limits || !out->down)
        return false;
    for (size_t i = 0; i < hash->n; i += 2)
        if (!read_verdict(out, &hash->elements[i], &hash->elements[i + 1]))
            return false;
    snapshot_sort(out);
    return true;
}

bool keys_read(struct snapshot *out, const char *id, const struct resp *instance,
               const struct resp *connections, const struct resp *health)
{
    memset(out, 0, sizeof *out);
    memcpy(out->id, id, strlen(id) + 1);
    if (read_instance(out, instance) && read_connections(out, connections) && read_health(out, health))
        return true;
    snapshot_clear(out);
    return false;
}
