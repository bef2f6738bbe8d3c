#include "counters/snapshot.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

bool snapshot_id_valid(const char *id, size_t size)
{
    if (size == 0 || size >= SNAPSHOT_ID_MAX)
        return false;
    for (size_t i = 0; i < size; i++)
        if (!isalnum((unsigned char)id[i]) && !memchr("-._", id[i], 3))
            return false;
    return true;
}

void snapshot_clear(struct snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->n_held; i++)
        free(snapshot->held[i].name);
    for (size_t i = 0; i < snapshot->n_rates; i++)
        free(snapshot->rates[i].name);
    for (size_t i = 0; i < snapshot->n_limits; i++)
        free(snapshot->limits[i].name);
    for (size_t i = 0; i < snapshot->n_down; i++)
        free(snapshot->down[i]);
    for (size_t i = 0; i < snapshot->n_replies; i++)
        free(snapshot->replies[i].name);
    free(snapshot->replies);
    free(snapshot->limits);
    free(snapshot->down);
    free(snapshot->held);
    free(snapshot->rates);
    memset(snapshot, 0, sizeof *snapshot);
}

/* --- reading --- */

static bool read_integer(const json_t *object, const char *key, int64_t *out)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = json_integer_value(value);
    return true;
}

static bool read_id(const json_t *object, char out[SNAPSHOT_ID_MAX])
{
    const json_t *value = json_object_get(object, "id");
    size_t size = json_string_length(value);

    if (!json_is_string(value) || !snapshot_id_valid(json_string_value(value), size))
        return false;
    memcpy(out, json_string_value(value), size + 1);
    return true;
}

/* A mapping of names; NULL is fine: an empty one. False: it is none, or too large. */
static bool is_mapping(const json_t *object)
{
    return !object || (json_is_object(object) && json_object_size(object) <= SNAPSHOT_ENTRIES);
}

static char *read_name(const char *name)
{
    return name[0] && strlen(name) < SNAPSHOT_NAME_MAX ? strdup(name) : NULL;
}

static bool read_counts(json_t *object, struct snapshot_count **counts, size_t *n)
{
    const char *name;
    json_t *value;

    if (!is_mapping(object))
        return false;
    *counts = calloc(json_object_size(object) + 1, sizeof **counts);
    if (!*counts)
        return false;
    json_object_foreach(object, name, value)
    {
        struct snapshot_count *count = &(*counts)[*n];

        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) > SNAPSHOT_COUNT_MAX || !(count->name = read_name(name)))
            return false;
        count->count = (uint32_t)json_integer_value(value);
        ++*n;
    }
    return true;
}

static bool read_total(const json_t *array, size_t i, uint64_t *out)
{
    const json_t *value = json_array_get(array, i);

    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > SNAPSHOT_TOTAL_MAX)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static bool read_replies(struct snapshot *out, json_t *object)
{
    const char *name;
    json_t *value;

    if (!is_mapping(object))
        return false;
    out->replies = calloc(json_object_size(object) + 1, sizeof *out->replies);
    if (!out->replies)
        return false;
    json_object_foreach(object, name, value)
    {
        struct snapshot_replies *one = &out->replies[out->n_replies];

        if (json_array_size(value) != 3 || !read_total(value, 0, &one->totals.replies) ||
            !read_total(value, 1, &one->totals.milliseconds) || !read_total(value, 2, &one->totals.squares) ||
            !(one->name = read_name(name)))
            return false;
        out->n_replies++;
    }
    return true;
}

static int by_name_of_replies(const void *a, const void *b)
{
    return strcmp(((const struct snapshot_replies *)a)->name, ((const struct snapshot_replies *)b)->name);
}

const struct snapshot_replies *snapshot_replies_of(const struct snapshot *snapshot, const char *name)
{
    struct snapshot_replies wanted = { .name = (char *)(uintptr_t)name };

    return snapshot->n_replies
               ? bsearch(&wanted, snapshot->replies, snapshot->n_replies, sizeof wanted, by_name_of_replies)
               : NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct snapshot_count *)a)->name, ((const struct snapshot_count *)b)->name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void snapshot_sort(struct snapshot *snapshot)
{
    qsort(snapshot->down, snapshot->n_down, sizeof *snapshot->down, by_text);
    qsort(snapshot->limits, snapshot->n_limits, sizeof *snapshot->limits, by_name);
}

static bool read_down(struct snapshot *out, const json_t *array)
{
    size_t n = json_array_size(array);

    if ((array && !json_is_array(array)) || n > SNAPSHOT_ENTRIES)
        return false;
    out->down = calloc(n + 1, sizeof *out->down);
    for (size_t i = 0; out->down && i < n; i++) {
        const json_t *name = json_array_get(array, i);

        if (!json_is_string(name) || !(out->down[i] = read_name(json_string_value(name))))
            return false;
        out->n_down++;
    }
    return out->down;
}

static bool read_rates(struct snapshot *out, json_t *object)
{
    const char *name;
    json_t *value;

    if (!is_mapping(object))
        return false;
    out->rates = calloc(json_object_size(object) + 1, sizeof *out->rates);
    if (!out->rates)
        return false;
    json_object_foreach(object, name, value)
    {
        struct snapshot_rate *rate = &out->rates[out->n_rates];
        double number = json_number_value(value);

        if (!json_is_number(value) || !(number >= 0 && number <= SNAPSHOT_RATE_MAX) ||
            !(rate->name = read_name(name)))
            return false;
        rate->rate = (float)number;
        out->n_rates++;
    }
    return true;
}

static bool read_all(struct snapshot *out, json_t *root, bool *other_schema)
{
    int64_t schema, seq, sessions = 0, queued = 0;

    if (!read_integer(root, "schema", &schema))
        return false;
    if (schema != SNAPSHOT_SCHEMA) {
        *other_schema = true;
        return false;
    }
    if (!read_id(root, out->id) || !read_integer(root, "started", &out->started) ||
        !read_integer(root, "seq", &seq))
        return false;
    out->seq = (uint64_t)seq;
    out->bye = json_is_true(json_object_get(root, "bye"));
    if (out->bye)
        return true;
    if (!read_integer(root, "sessions", &sessions) || !read_integer(root, "queued", &queued))
        return false;
    out->sessions = (uint64_t)sessions;
    out->queued = (uint64_t)queued;
    if (!read_rates(out, json_object_get(root, "rates")) ||
        !read_counts(json_object_get(root, "held"), &out->held, &out->n_held) ||
        !read_counts(json_object_get(root, "limits"), &out->limits, &out->n_limits) ||
        !read_down(out, json_object_get(root, "down")) ||
        !read_replies(out, json_object_get(root, "replies")))
        return false;
    snapshot_sort(out);
    qsort(out->replies, out->n_replies, sizeof *out->replies, by_name_of_replies);
    return true;
}

bool snapshot_parse(struct snapshot *out, const char *text, size_t size, bool *other_schema)
{
    json_t *root;
    bool good;

    memset(out, 0, sizeof *out);
    *other_schema = false;
    if (size > SNAPSHOT_SIZE_MAX)
        return false;
    root = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL); /* it bounds the depth by itself */
    good = json_is_object(root) && read_all(out, root, other_schema);
    json_decref(root);
    if (!good)
        snapshot_clear(out);
    return good;
}

/* --- writing --- */

/* A name from the configuration may be no UTF-8, which no JSON can carry: such a backend is this instance's
 * alone. */
static void put(json_t *object, const char *name, json_t *value)
{
    (void)json_object_set_new(object, name, value);
}

char *snapshot_format(const struct snapshot *snapshot)
{
    json_t *root = json_object(), *rates, *held, *limits, *down, *replies = NULL;
    char *text;

    put(root, "schema", json_integer(SNAPSHOT_SCHEMA));
    put(root, "id", json_string(snapshot->id));
    put(root, "started", json_integer(snapshot->started));
    put(root, "seq", json_integer((json_int_t)snapshot->seq));
    if (snapshot->bye) {
        put(root, "bye", json_true());
    } else {
        put(root, "sessions", json_integer((json_int_t)snapshot->sessions));
        put(root, "queued", json_integer((json_int_t)snapshot->queued));
        put(root, "rates", rates = json_object());
        put(root, "held", held = json_object());
        put(root, "limits", limits = json_object());
        put(root, "down", down = json_array());
        if (snapshot->n_replies)
            put(root, "replies", replies = json_object());
        for (size_t i = 0; i < snapshot->n_replies; i++) {
            const struct snapshot_replies *one = &snapshot->replies[i];

            put(replies, one->name,
                json_pack("[I,I,I]", (json_int_t)one->totals.replies, (json_int_t)one->totals.milliseconds,
                          (json_int_t)one->totals.squares));
        }
        for (size_t i = 0; i < snapshot->n_limits; i++)
            put(limits, snapshot->limits[i].name, json_integer(snapshot->limits[i].count));
        for (size_t i = 0; i < snapshot->n_down; i++)
            (void)json_array_append_new(down, json_string(snapshot->down[i]));
        for (size_t i = 0; i < snapshot->n_rates; i++)
            put(rates, snapshot->rates[i].name, json_real((double)snapshot->rates[i].rate));
        for (size_t i = 0; i < snapshot->n_held; i++)
            if (snapshot->held[i].count)
                put(held, snapshot->held[i].name, json_integer(snapshot->held[i].count));
    }
    text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(5));
    json_decref(root);
    return text;
}
