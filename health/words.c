#include "health/words.h"

#include <stdlib.h>
#include <string.h>

struct word {
    struct word *next;
    struct order order;
    char *found_at;   /* within `full_name` */
    size_t name_size; /* of the name in front of the "@" */
    char full_name[];
};

static bool is_of_name(const struct word *word, const char *name)
{
    return strlen(name) == word->name_size && memcmp(word->full_name, name, word->name_size) == 0;
}

static bool is_at(const struct word *word, const char *name, const char *found_at)
{
    return is_of_name(word, name) && strcmp(word->found_at, found_at) == 0;
}

static struct word *word_create(const char *name, const char *found_at, const struct order *order)
{
    size_t size = strlen(name);
    struct word *word = malloc(sizeof *word + size + strlen(found_at) + 2);

    if (!word)
        return NULL;
    *word = (struct word){ .order = *order, .name_size = size };
    memcpy(word->full_name, name, size);
    word->full_name[size] = '@';
    word->found_at = word->full_name + size + 1;
    strcpy(word->found_at, found_at);
    return word;
}

/* Unlink the one behind `before`; NULL: the first. */
static void drop(struct words *words, struct word *before, struct word *word)
{
    if (before)
        before->next = word->next;
    else
        words->first = word->next;
    if (words->last == word)
        words->last = before;
    words->n--;
    free(word);
}

bool words_take(struct words *words, const char *name, const char *found_at, struct order *out)
{
    struct word *before = NULL;

    for (struct word *word = words->first; word; before = word, word = word->next) {
        if (!is_at(word, name, found_at))
            continue;
        *out = word->order;
        drop(words, before, word);
        return true;
    }
    return false;
}

void words_keep(struct words *words, const char *name, const char *found_at, const struct order *order)
{
    struct word *word = word_create(name, found_at, order);
    struct order before;

    (void)words_take(words, name, found_at, &before);
    if (!word)
        return;
    if (words->n == WORDS_MAX)
        drop(words, NULL, words->first);
    if (words->last)
        words->last->next = word;
    else
        words->first = word;
    words->last = word;
    words->n++;
}

void words_change(struct words *words, const char *name,
                  void (*change)(void *arg, const char *full_name, struct order *order), void *arg)
{
    for (struct word *word = words->first; word; word = word->next)
        if (is_of_name(word, name) || strcmp(word->full_name, name) == 0)
            change(arg, word->full_name, &word->order);
}

void words_prune(struct words *words, bool (*is_wanted)(const void *arg, const char *name, size_t size),
                 const void *arg)
{
    struct word *before = NULL, *next;

    for (struct word *word = words->first; word; word = next) {
        next = word->next;
        if (is_wanted(arg, word->full_name, word->name_size))
            before = word;
        else
            drop(words, before, word);
    }
}

void words_free(struct words *words)
{
    while (words->first)
        drop(words, NULL, words->first);
}
