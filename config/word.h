/*
 * Words: what a file's texts may be, environment variables in them, and the word that was probably meant.
 */
#ifndef WEIR_CONFIG_WORD_H
#define WEIR_CONFIG_WORD_H

#include <stdbool.h>
#include <stddef.h>

#define WORD_TEXT_MAX  4096 /* octets of one value after expansion: more than any option can use */
#define WORD_ERROR_MAX 256

/* Expand ${NAME} and ${NAME:-default} (the default also where NAME is empty). Returns text that the caller
 * frees, or NULL with what was expected in `error`. */
char *word_expand(const char *text, char error[WORD_ERROR_MAX]);

/* A name for a listener, pool or backend: letters, digits, '.', '_', '-', at most 64, not a dot or dash
 * first. */
bool word_is_name(const char *text);
/* A domain (RFC 5321, section 4.1.2), or an address literal in brackets (4.1.3). */
bool word_is_domain(const char *text);

/* The nearest of several words to a misspelt one: begin with { .word = … }, offer each, then ask. */
struct suggestion {
    const char *word;
    const char *best; /* NULL while none is near */
    size_t distance;
};
void suggestion_offer(struct suggestion *suggestion, const char *candidate);

#endif
