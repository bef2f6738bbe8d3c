#include "config/word.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/memory.h"
#include "config/report.h"

/* One "${…}" whose inside is text[0..size): its value, or NULL with `error`. `inside` is a copy that may be
 * cut up. */
static const char *expand_variable(char *inside, char error[WORD_ERROR_MAX])
{
    char quoted[REPORT_QUOTE_MAX];
    char *separator = strstr(inside, ":-");
    if (separator)
        *separator = '\0';
    bool valid = *inside && !isdigit((unsigned char)*inside);
    for (const char *p = inside; *p; p++)
        valid = valid && (isalnum((unsigned char)*p) || *p == '_');
    if (!valid) {
        snprintf(error, WORD_ERROR_MAX, "expected ${NAME} or ${NAME:-default}, not \"${%s}\"",
                 report_quote(inside, quoted));
        return NULL;
    }
    const char *value = getenv(inside);
    if (separator && (!value || !*value))
        return separator + 2;
    if (!value)
        snprintf(error, WORD_ERROR_MAX,
                 "the environment variable %s is not set; expected it, or a default as in ${NAME:-default}",
                 report_quote(inside, quoted));
    return value;
}

char *word_expand(const char *text, char error[WORD_ERROR_MAX])
{
    char *out = memory_zeroed(WORD_TEXT_MAX, 1);
    size_t used = 0;
    while (*text) {
        const char *piece = text;
        char *inside = NULL;
        size_t size = strcspn(text, "$");
        if (size) {
            text += size;
        } else if (text[1] != '{') {
            size = 1;
            text++;
        } else {
            const char *end = strchr(text, '}');
            inside = memory_text(text + 2);
            inside[end ? end - text - 2 : 0] = '\0';
            piece = end ? expand_variable(inside, error) : NULL;
            if (!end)
                snprintf(error, WORD_ERROR_MAX, "expected a \"}\" behind \"${\"");
            size = piece ? strlen(piece) : 0;
            text = end ? end + 1 : text;
        }
        bool fits = size < WORD_TEXT_MAX - used;
        if (piece && !fits)
            snprintf(error, WORD_ERROR_MAX, "expected at most %d octets", WORD_TEXT_MAX - 1);
        if (piece && fits)
            memcpy(out + used, piece, size);
        free(inside);
        if (!piece || !fits) {
            free(out);
            return NULL;
        }
        used += size;
    }
    out[used] = '\0';
    return out;
}

bool word_is_name(const char *text)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t size = strlen(text);
    return size && size <= 64 && strspn(text, allowed) == size && *text != '.' && *text != '-';
}

bool word_is_domain(const char *text)
{
    size_t size = strlen(text), label = 0;
    char inside[INET6_ADDRSTRLEN + 8];
    if (size >= 2 && text[0] == '[' && text[size - 1] == ']' && size - 2 < sizeof inside) {
        struct in6_addr ip; /* room for either family */
        memcpy(inside, text + 1, size - 2);
        inside[size - 2] = '\0';
        return strncasecmp(inside, "IPv6:", 5) == 0 ? inet_pton(AF_INET6, inside + 5, &ip) == 1
                                                    : inet_pton(AF_INET, inside, &ip) == 1;
    }
    for (size_t i = 0; i < size; i++) {
        bool dot = text[i] == '.', edge = label == 0 || i + 1 == size || text[i + 1] == '.';
        if (dot ? label == 0 : !isalnum((unsigned char)text[i]) && (text[i] != '-' || edge))
            return false;
        label = dot ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return label && size <= 255;
}

#define WORD_LONGEST 64 /* keys and names are no longer; what is longer is near to none */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How many letters must be changed, added, left out or swapped with a neighbour (optimal string alignment).
 */
static size_t distance(const char *a, const char *b)
{
    size_t rows[3][WORD_LONGEST + 1];
    size_t n = strlen(b);
    for (size_t j = 0; j <= n; j++)
        rows[0][j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t *row = rows[i % 3], *before = rows[(i + 2) % 3], *two_before = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            row[j] = least(least(before[j], row[j - 1]) + 1, before[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], two_before[j - 2] + 1);
        }
    }
    return rows[strlen(a) % 3][n];
}

void suggestion_offer(struct suggestion *suggestion, const char *candidate)
{
    size_t size = strlen(suggestion->word);
    if (size > WORD_LONGEST || strlen(candidate) > WORD_LONGEST)
        return;
    size_t n = distance(suggestion->word, candidate);
    if (n <= 1 + size / 4 && n < size && (!suggestion->best || n < suggestion->distance)) {
        suggestion->best = candidate;
        suggestion->distance = n;
    }
}
