/*
 * The walk: the document's nodes on one side, the option table on the other.
 *
 *     walk_section ── a mapping of keys ──▶ walk_value ─┬─ scalar ──▶ value_read()
 *          ▲                                            ├─ list   ──▶ value_read() for each entry
 *          └─ walk_named, walk_backends, walk_sections ◀─┴─ mapping
 *
 * Nothing stops it but the budget: each mistake is reported and the next node looked at. Aliases are
 * followed, so the same node may be met often; the depth is the table's, and the budget bounds the rest.
 */
#include <stdlib.h>
#include <string.h>

#include "config/document.h"
#include "config/memory.h"
#include "config/option.h"
#include "config/value.h"
#include "config/word.h"

#define KEY_MAX                                                                                              \
    512 /* the longest path: two names, four keys, one of them unknown and cut by report_quote() */

struct walk {
    struct draft *draft;
    yaml_document_t *document;
    size_t budget; /* nodes that may still be visited */
    char key[KEY_MAX];
};

static void walk_section(struct walk *walk, const struct section *section, void *object, yaml_node_t *node,
                         struct place place);

/* Go one key deeper in the path; returns what leave() needs to go back. */
static size_t enter(struct walk *walk, const char *key)
{
    char quoted[REPORT_QUOTE_MAX];
    size_t size = strlen(walk->key);
    snprintf(walk->key + size, sizeof walk->key - size, "%s%s", size ? "." : "", report_quote(key, quoted));
    return size;
}

static void leave(struct walk *walk, size_t size)
{
    walk->key[size] = '\0';
}

#define REPORT(walk, place, ...)                                                                             \
    report_add(&(walk)->draft->report, place, *(walk)->key ? (walk)->key : NULL, __VA_ARGS__)

/* The node, and one less to visit; NULL when the budget is used up, reported once. */
static yaml_node_t *visit(struct walk *walk, int index)
{
    yaml_node_t *node = yaml_document_get_node(walk->document, index);
    if (walk->budget == 0)
        return NULL;
    if (--walk->budget == 0) {
        REPORT(walk, document_place(node->start_mark), "too many values, counting what aliases repeat");
        return NULL;
    }
    return node;
}

/* What the operator wrote where something else was expected. */
static const char *node_words(const yaml_node_t *node, char out[REPORT_QUOTE_MAX + 2])
{
    if (node->type == YAML_MAPPING_NODE)
        return "a mapping";
    if (node->type == YAML_SEQUENCE_NODE)
        return "a list";
    if (document_is_nothing(node))
        return "nothing";
    char quoted[REPORT_QUOTE_MAX];
    snprintf(out, REPORT_QUOTE_MAX + 2, "\"%s\"",
             report_quote((const char *)node->data.scalar.value, quoted));
    return out;
}

static void report_kind(struct walk *walk, const yaml_node_t *node, struct place place, const char *expected)
{
    char words[REPORT_QUOTE_MAX + 2];
    REPORT(walk, place, "expected %s, not %s", expected, node_words(node, words));
}

/* The text of a key; NULL and reported if it can't be one. The document's. */
static const char *key_text(struct walk *walk, const yaml_node_t *node)
{
    struct place place = document_place(node->start_mark);
    if (node->type != YAML_SCALAR_NODE || document_is_nothing(node))
        report_kind(walk, node, place, "a key");
    else if (strlen((const char *)node->data.scalar.value) != node->data.scalar.length)
        REPORT(walk, place, "expected a key, not a text with a NUL in it");
    else
        return (const char *)node->data.scalar.value;
    return NULL;
}

/* The expanded text of a scalar, the caller's to free; NULL and reported if it is none. */
static char *scalar_text(struct walk *walk, const yaml_node_t *node, const char *expected)
{
    struct place place = document_place(node->start_mark);
    if (node->type != YAML_SCALAR_NODE || document_is_nothing(node)) {
        report_kind(walk, node, place, expected);
        return NULL;
    }
    const char *raw = (const char *)node->data.scalar.value;
    if (strlen(raw) != node->data.scalar.length) {
        REPORT(walk, place, "expected %s, not a text with a NUL in it", expected);
        return NULL;
    }
    char error[WORD_ERROR_MAX];
    char *text = word_expand(raw, error);
    if (!text)
        REPORT(walk, place, "%s", error);
    return text;
}

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

static void walk_scalar(struct walk *walk, const struct option *option, void *object, yaml_node_t *node,
                        struct place key_place)
{
    char expected[VALUE_ERROR_MAX], error[VALUE_ERROR_MAX];
    char *text = scalar_text(walk, node, value_expected(option, expected));
    void *field = option->offset == OPTION_NO_FIELD ? NULL : (char *)object + option->offset;
    struct place place = document_place(node->start_mark);
    bool good = false;
    if (text && option->only && is_one_of(text, option->choices) && !is_one_of(text, option->only))
        REPORT(walk, key_place, "not built in this version");
    else if (text && !(good = value_read(option, field, text, error)))
        REPORT(walk, place, "%s", error);
    if (good && field)
        draft_note(walk->draft, field, walk->key, text, place);
    else if (field)
        draft_note_wrong(walk->draft, field, walk->key, place);
    free(text);
}

static void walk_later(struct walk *walk, const struct option *option, yaml_node_t *node,
                       struct place key_place)
{
    bool harmless = false;
    if (node->type == YAML_SEQUENCE_NODE) {
        harmless =
            node->data.sequence.items.start == node->data.sequence.items.top && is_one_of("[]", option->only);
    } else if (node->type == YAML_SCALAR_NODE && !document_is_nothing(node)) {
        char *text = scalar_text(walk, node, "text");
        if (!text)
            return;
        harmless = is_one_of(text, option->only);
        free(text);
    }
    if (!harmless)
        REPORT(walk, key_place, "not built in this version");
}

/* How many entries there are, against the table's range. */
static bool count_fits(struct walk *walk, const struct option *option, size_t n, struct place place)
{
    if (n < option->min)
        REPORT(walk, place, "expected at least one entry, not none");
    else if (n > option->max)
        REPORT(walk, place, "expected at most %zu entries, not %zu", (size_t)option->max, n);
    return n >= option->min && n <= option->max;
}

static void walk_list(struct walk *walk, const struct option *option, void *object, yaml_node_t *node)
{
    char expected[VALUE_ERROR_MAX], error[VALUE_ERROR_MAX];
    char **field = (char **)((char *)object + option->offset);
    size_t *count = (size_t *)((char *)object + option->count);
    size_t size = value_element_size(option->type), n = 1;
    if (node->type == YAML_SEQUENCE_NODE)
        n = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (!count_fits(walk, option, n, document_place(node->start_mark)))
        return;
    free(*field); /* the default */
    *field = memory_zeroed(n, size);
    *count = 0;
    value_expected(option, expected);
    for (size_t i = 0; i < n; i++) {
        yaml_node_t *entry =
            node->type == YAML_SEQUENCE_NODE ? visit(walk, node->data.sequence.items.start[i]) : node;
        char *text = entry ? scalar_text(walk, entry, expected) : NULL;
        char *element = *field + *count * size;
        if (text && value_read(option, element, text, error)) {
            draft_note(walk->draft, element, walk->key, text, document_place(entry->start_mark));
            ++*count;
        } else {
            if (text)
                REPORT(walk, document_place(entry->start_mark), "%s", error);
            memset(element, 0, size);
            draft_note_wrong(walk->draft, field, walk->key, document_place(node->start_mark));
        }
        free(text);
    }
}

static bool name_fits(struct walk *walk, const char *name, struct place place)
{
    if (word_is_name(name))
        return true;
    REPORT(walk, place,
           "expected a name of at most 64 letters, digits, \"_\", \".\" and \"-\", the last two not first");
    return false;
}

/* Where operators speak to a farm (docs/redis.md), relay is the field of relay's word, relay.weight of its
 * weight. */
static bool backend_name_fits(struct walk *walk, const char *name, struct place place)
{
    static const char ending[] = ".weight";
    size_t size = strlen(name);

    if (!name_fits(walk, name, place))
        return false;
    if (size < sizeof ending || strcmp(name + size - (sizeof ending - 1), ending) != 0)
        return true;
    REPORT(walk, place, "expected a name that does not end in \"%s\": that is the weight of another one",
           ending);
    return false;
}

/* A name that stands in the array already; NULL if it is new. Names are what the structs begin with. */
static const void *find_named(const char *array, size_t n, size_t size, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(*(char *const *)(array + i * size), name) == 0)
            return array + i * size;
    return NULL;
}

static void walk_named(struct walk *walk, const struct option *option, void *object, yaml_node_t *node,
                       struct place place)
{
    if (node->type != YAML_MAPPING_NODE) {
        report_kind(walk, node, place, "a mapping of names");
        return;
    }
    size_t n = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    if (!count_fits(walk, option, n, place))
        return;
    char *array = memory_zeroed(n, option->section->size);
    size_t *count = (size_t *)((char *)object + option->count);
    *(char **)((char *)object + option->offset) = array;
    for (size_t i = 0; i < n; i++) {
        yaml_node_t *key = visit(walk, node->data.mapping.pairs.start[i].key);
        yaml_node_t *value = visit(walk, node->data.mapping.pairs.start[i].value);
        const char *name = key && value ? key_text(walk, key) : NULL;
        if (!name)
            continue;
        struct place at = document_place(key->start_mark);
        size_t path = enter(walk, name);
        const void *first = find_named(array, *count, option->section->size, name);
        if (first) {
            REPORT(walk, at, "given twice, first in line %zu", draft_origin(walk->draft, first)->place.line);
        } else if (name_fits(walk, name, at)) {
            char *element = array + *count * option->section->size;
            *(char **)element = memory_text(name);
            option_defaults(option->section, element);
            ++*count;
            draft_note(walk->draft, element, walk->key, NULL, at);
            walk_section(walk, option->section, element, value, at);
        }
        leave(walk, path);
    }
}

/* A list of mappings without names; the path has their numbers, from 1. One that holds a mistake is itself
 * noted as wrong, for what it lacks may be what was misspelt. */
static void walk_sections(struct walk *walk, const struct option *option, void *object, yaml_node_t *node,
                          struct place key_place)
{
    bool list = node->type == YAML_SEQUENCE_NODE;
    char expected[VALUE_ERROR_MAX], number[24];
    if (!list && node->type != YAML_MAPPING_NODE) {
        report_kind(walk, node, key_place, value_expected(option, expected));
        return;
    }
    size_t n = list ? (size_t)(node->data.sequence.items.top - node->data.sequence.items.start) : 1;
    if (!count_fits(walk, option, n, key_place))
        return;
    char *array = memory_zeroed(n, option->section->size);
    size_t *count = (size_t *)((char *)object + option->count);
    *(char **)((char *)object + option->offset) = array;
    for (size_t i = 0; i < n; i++) {
        yaml_node_t *entry = list ? visit(walk, node->data.sequence.items.start[i]) : node;
        if (!entry)
            return;
        struct place place = document_place(entry->start_mark);
        char *element = array + *count * option->section->size;
        snprintf(number, sizeof number, "%zu", i + 1);
        size_t path = enter(walk, number);
        option_defaults(option->section, element);
        ++*count;
        draft_note(walk->draft, element, walk->key, NULL, place);
        size_t reported = walk->draft->report.n_entries;
        walk_section(walk, option->section, element, entry, place);
        if (walk->draft->report.n_entries > reported)
            draft_note_wrong(walk->draft, element, walk->key, place);
        leave(walk, path);
    }
}

/* One backend of a pool: `value` describes it, or is NULL where it is given by name alone. */
static void walk_backend(struct walk *walk, struct config_pool *pool, const yaml_node_t *key,
                         yaml_node_t *value)
{
    struct draft *draft = walk->draft;
    const char *name = key_text(walk, key);
    if (!name)
        return;
    struct place place = document_place(key->start_mark);
    size_t path = enter(walk, name);
    if (backend_name_fits(walk, name, place)) {
        size_t index = draft_backend(draft, name, walk->key, place);
        struct origin *described = &draft->described[index];
        bool known = false;
        for (size_t i = 0; i < pool->n_backends; i++)
            known = known || pool->backends[i] == index;
        if (known) {
            REPORT(walk, place, "given twice in this pool");
        } else {
            pool->backends[pool->n_backends++] = index;
            if (value && described->field) {
                REPORT(walk, place,
                       "described twice, first in line %zu; expected the name alone where it is meant again",
                       described->place.line);
            } else if (value) {
                *described = (struct origin){ .field = &draft->config->backends[index], .place = place };
                walk_section(walk, &option_backend, &draft->config->backends[index], value, place);
            }
        }
    }
    leave(walk, path);
}

static void walk_backends(struct walk *walk, const struct option *option, void *object, yaml_node_t *node,
                          struct place place)
{
    struct config_pool *pool = object;
    char expected[VALUE_ERROR_MAX];
    if (node->type == YAML_SCALAR_NODE) {
        report_kind(walk, node, place, value_expected(option, expected));
        return;
    }
    bool list = node->type == YAML_SEQUENCE_NODE;
    size_t n = list ? (size_t)(node->data.sequence.items.top - node->data.sequence.items.start)
                    : (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    if (!count_fits(walk, option, n, place))
        return;
    pool->backends = memory_zeroed(n, sizeof *pool->backends);
    for (size_t i = 0; i < n; i++) {
        yaml_node_t *key =
            visit(walk, list ? node->data.sequence.items.start[i] : node->data.mapping.pairs.start[i].key);
        yaml_node_t *value = list ? NULL : visit(walk, node->data.mapping.pairs.start[i].value);
        if (!key || (!list && !value))
            return;
        walk_backend(walk, pool, key, !value || document_is_nothing(value) ? NULL : value);
    }
}

static void walk_value(struct walk *walk, const struct option *option, void *object, yaml_node_t *node,
                       struct place key_place)
{
    switch (option->type) {
    case OPTION_NUMBER:
    case OPTION_SIZE:
    case OPTION_DURATION:
    case OPTION_PERCENT:
    case OPTION_SWITCH:
    case OPTION_CHOICE:
    case OPTION_TEXT:
    case OPTION_NAME:
    case OPTION_REDIS_URL:
    case OPTION_PATH:
    case OPTION_MAILBOX:
    case OPTION_TLS_NAME:
    case OPTION_HOSTNAME:
    case OPTION_LOG_DESTINATION:
    case OPTION_SOURCE:
    case OPTION_HTTP_ADDRESS:
    case OPTION_CONTROL:
    case OPTION_BACKEND_ADDRESS:
    case OPTION_AGENT:
    case OPTION_RATE:
    case OPTION_POOL: walk_scalar(walk, option, object, node, key_place); break;
    case OPTION_ADDRESSES:
    case OPTION_NAMESERVERS:
    case OPTION_PATHS:
    case OPTION_USERS:
    case OPTION_DOMAINS:
    case OPTION_LISTENERS:
    case OPTION_NETWORKS: walk_list(walk, option, object, node); break;
    case OPTION_SECTION:
        walk_section(walk, option->section, (char *)object + option->offset, node, key_place);
        break;
    case OPTION_LIST: walk_sections(walk, option, object, node, key_place); break;
    case OPTION_NAMED: walk_named(walk, option, object, node, key_place); break;
    case OPTION_BACKENDS: walk_backends(walk, option, object, node, key_place); break;
    case OPTION_LATER: walk_later(walk, option, node, key_place); break;
    }
}

static void report_unknown(struct walk *walk, const struct section *section, const char *key,
                           struct place place)
{
    struct suggestion suggestion = { .word = key };
    for (size_t i = 0; i < section->n_options; i++)
        suggestion_offer(&suggestion, section->options[i].key);
    if (suggestion.best) {
        REPORT(walk, place, "unknown key; did you mean \"%s\"?", suggestion.best);
        return;
    }
    char *words;
    size_t size;
    FILE *list = memory_stream(&words, &size);
    for (size_t i = 0; i < section->n_options; i++)
        fprintf(list, "%s%s",
                i == 0                        ? ""
                : i + 1 == section->n_options ? " or "
                                              : ", ",
                section->options[i].key);
    memory_stream_close(list);
    REPORT(walk, place, "unknown key; expected %s", words);
    free(words);
}

static void walk_section(struct walk *walk, const struct section *section, void *object, yaml_node_t *node,
                         struct place place)
{
    size_t n = 0, seen[SECTION_OPTIONS_MAX] = { 0 }; /* the line of each key, 0: not there */
    if (node->type == YAML_MAPPING_NODE) {
        n = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    } else if (!document_is_nothing(node)) {
        report_kind(walk, node, place, "a mapping of keys to values");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        yaml_node_t *key = visit(walk, node->data.mapping.pairs.start[i].key);
        yaml_node_t *value = visit(walk, node->data.mapping.pairs.start[i].value);
        if (!key || !value)
            return;
        const char *text = key_text(walk, key);
        if (!text)
            continue;
        struct place at = document_place(key->start_mark);
        size_t path = enter(walk, text);
        const struct option *option = option_find(section, text);
        size_t *line = option ? &seen[option - section->options] : NULL;
        if (!option)
            report_unknown(walk, section, text, at);
        else if (*line)
            REPORT(walk, at, "given twice, first in line %zu", *line);
        else
            walk_value(walk, option, object, value, at);
        if (line && !*line)
            *line = at.line;
        leave(walk, path);
    }
    for (size_t i = 0; i < section->n_options; i++) {
        if (!section->options[i].required || seen[i])
            continue;
        char expected[VALUE_ERROR_MAX];
        size_t path = enter(walk, section->options[i].key);
        REPORT(walk, place, "missing; expected %s", value_expected(&section->options[i], expected));
        leave(walk, path);
    }
}

void document_walk(yaml_document_t *document, struct draft *draft)
{
    struct walk walk = { .draft = draft, .document = document, .budget = DOCUMENT_NODES_MAX };
    /* Each backend's name is a node of its own, so there can't be more of them. */
    draft_reserve_backends(draft, (size_t)(document->nodes.top - document->nodes.start));
    walk_section(&walk, &option_file, draft->config, yaml_document_get_root_node(document),
                 (struct place){ .line = 1, .column = 1 });
}
