#include "counters/verdict.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counters/snapshot.h"

#define WORD_MAX 16

bool verdict_word(const char *verdict, const char *key, char *out, size_t size)
{
    const char *reason = strstr(verdict, "reason="), *at = verdict;
    size_t length = strlen(key);

    *out = '\0';
    if (strcmp(key, "reason") == 0) {
        (void)snprintf(out, size, "%s", reason ? reason + length + 1 : "");
        return reason;
    }
    while (*at && at != reason) {
        if (strncmp(at, key, length) == 0 && at[length] == '=') {
            at += length + 1;
            (void)snprintf(out, size, "%.*s", (int)strcspn(at, " "), at);
            return true;
        }
        at += strcspn(at, " ");
        at += strspn(at, " ");
    }
    return false;
}

void verdict_finding(const char *verdict, bool *down, uint32_t *found)
{
    char word[WORD_MAX];
    size_t size;

    *down = verdict_word(verdict, "state", word, sizeof word) && strcmp(word, "down") == 0;
    *found = UINT32_MAX;
    if (!verdict_word(verdict, "found", word, sizeof word))
        return;
    size = strspn(word, "0123456789");
    if (strcmp(word, "none") == 0)
        *found = 0;
    else if (size && size < 10 && !word[size] && strtoul(word, NULL, 10) <= SNAPSHOT_COUNT_MAX)
        *found = (uint32_t)strtoul(word, NULL, 10);
}

const char *verdict_found(uint32_t found, char out[16])
{
    (void)snprintf(out, 16, "%" PRIu32, found);
    return found == UINT32_MAX ? "unknown" : found ? out : "none";
}
