/*
 * What an agent says. Octet 0: where the text is cut to come in two pieces, and whether the agent has closed.
 *
 * Nothing is concluded from a part that the whole would deny, and what comes out is within its bounds.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "health/agent_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

/* From memory of just that size, for the address sanitizer. */
static enum agent_verdict read_copy(const uint8_t *data, size_t size, bool ended, struct agent_text *out)
{
    char *copy = malloc(size ? size : 1);
    enum agent_verdict verdict;

    CHECK(copy);
    if (size)
        memcpy(copy, data, size);
    memset(out, 0, sizeof *out);
    verdict = agent_text_read(copy, size, ended, out);
    free(copy);
    return verdict;
}

static void check_bounds(enum agent_verdict verdict, const struct agent_text *said)
{
    bool anything = said->says_admin || said->says_share || said->says_limit || said->health;

    CHECK(anything == (verdict == AGENT_TEXT_SAID));
    CHECK(verdict != AGENT_TEXT_ODD || *said->odd);
    CHECK(verdict != AGENT_TEXT_NOTHING || !*said->odd);
    CHECK(said->admin <= BACKEND_MAINT && said->health <= AGENT_STOPPED);
    CHECK(said->share <= AGENT_SHARE_MAX && said->share % 10 == 0);
    CHECK(said->limit <= AGENT_LIMIT_MAX || said->limit == BACKEND_NO_CEILING);
    CHECK(!said->says_limit || said->limit > 0);
    CHECK(memchr(said->why, '\0', sizeof said->why) && memchr(said->odd, '\0', sizeof said->odd));
    CHECK(!strpbrk(said->why, "\r\n") && !strpbrk(said->odd, "\r\n \t,#"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct agent_text part, whole;
    enum agent_verdict first, last;
    bool ended;
    size_t cut;

    if (size < 1)
        return 0;
    ended = data[0] & 0x80;
    cut = data[0] & 0x7f;
    data++;
    size--;
    if (cut > size)
        cut = size;
    first = read_copy(data, cut, false, &part);
    last = read_copy(data, size, ended, &whole);
    check_bounds(first, &part);
    check_bounds(last, &whole);
    CHECK(!ended || last != AGENT_TEXT_MORE);
    if (first != AGENT_TEXT_MORE)
        CHECK(first == last && memcmp(&part, &whole, sizeof part) == 0);
    return 0;
}
