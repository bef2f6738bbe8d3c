#include "health/agent_text.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

static const char *const health_names[] = { "", "up", "down", "fail", "stopped" };
static_assert(sizeof health_names / sizeof *health_names == AGENT_HEALTHS, "a name for each word");

static const char limit_key[] = "maxconn:";
#define LIMIT_KEY_SIZE (sizeof limit_key - 1)

struct word {
    const char *at;
    size_t size;
};

const char *agent_health_name(enum agent_health health)
{
    return health_names[health];
}

static bool is(struct word word, const char *text)
{
    return strlen(text) == word.size && strncasecmp(word.at, text, word.size) == 0;
}

/* Digits and nothing else; what is above `max` is `max`. */
static bool read_number(struct word word, uint32_t max, uint32_t *out)
{
    uint64_t n = 0;

    if (!word.size)
        return false;
    for (size_t i = 0; i < word.size; i++) {
        if (word.at[i] < '0' || word.at[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(word.at[i] - '0');
        if (n > max)
            n = max;
    }
    *out = (uint32_t)n;
    return true;
}

static bool read_admin(struct word word, struct agent_text *out)
{
    for (enum backend_admin admin = 0; admin < BACKEND_ADMINS; admin++) {
        if (!is(word, backend_admin_name(admin)))
            continue;
        out->says_admin = true;
        out->admin = admin;
        return true;
    }
    return false;
}

static bool read_health(struct word word, struct agent_text *out)
{
    for (enum agent_health health = AGENT_UP; health < AGENT_HEALTHS; health++) {
        if (!is(word, health_names[health]))
            continue;
        out->health = health;
        return true;
    }
    return false;
}

static bool read_share(struct word word, struct agent_text *out)
{
    uint32_t percent;

    if (word.size < 2 || word.at[word.size - 1] != '%' ||
        !read_number((struct word){ word.at, word.size - 1 }, AGENT_SHARE_MAX / 10, &percent))
        return false;
    out->says_share = true;
    out->share = percent * 10;
    return true;
}

static bool read_limit(struct word word, struct agent_text *out)
{
    uint32_t limit;

    if (word.size <= LIMIT_KEY_SIZE || strncasecmp(word.at, limit_key, LIMIT_KEY_SIZE) != 0 ||
        !read_number((struct word){ word.at + LIMIT_KEY_SIZE, word.size - LIMIT_KEY_SIZE }, AGENT_LIMIT_MAX,
                     &limit))
        return false;
    out->says_limit = true;
    out->limit = limit ? limit : BACKEND_NO_CEILING;
    return true;
}

static void copy(char *to, size_t room, struct word word)
{
    size_t size = word.size < room ? word.size : room - 1;

    memcpy(to, word.at, size);
    to[size] = '\0';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == ',';
}

static void read_why(const char *at, const char *end, struct agent_text *out)
{
    while (at < end && is_blank(*at))
        at++;
    copy(out->why, sizeof out->why, (struct word){ at, (size_t)(end - at) });
}

/* How many words were understood. */
static unsigned read_words(const char *at, const char *end, struct agent_text *out)
{
    unsigned understood = 0;

    while (at < end && *at != '#') {
        struct word word = { at, 0 };

        if (is_blank(*at)) {
            at++;
            continue;
        }
        while (at < end && !is_blank(*at) && *at != '#')
            at++;
        word.size = (size_t)(at - word.at);
        if (read_admin(word, out) || read_health(word, out) || read_share(word, out) || read_limit(word, out))
            understood++;
        else if (!*out->odd)
            copy(out->odd, sizeof out->odd, word);
    }
    if (at < end)
        read_why(at + 1, end, out);
    return understood;
}

enum agent_verdict agent_text_read(const char *in, size_t size, bool ended, struct agent_text *out)
{
    size_t end = 0;
    unsigned understood;

    while (end < size && end < AGENT_TEXT_MAX && in[end] != '\r' && in[end] != '\n' && in[end] != '\0')
        end++;
    if (end >= AGENT_TEXT_MAX || (end < size && in[end] == '\0'))
        return AGENT_TEXT_NO_LINE;
    if (end == size && !ended)
        return AGENT_TEXT_MORE;
    memset(out, 0, sizeof *out);
    understood = read_words(in, in + end, out);
    if (understood)
        return AGENT_TEXT_SAID;
    return *out->odd ? AGENT_TEXT_ODD : AGENT_TEXT_NOTHING;
}
