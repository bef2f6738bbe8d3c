#include "counters/feedback.h"

#include <errno.h>
#include <stdlib.h>

static const struct feedback no_word = { .admin = BACKEND_READY, .share = FEEDBACK_ALL };

uint32_t feedback_share(uint64_t depth, uint64_t max)
{
    if (max == 0 || depth <= max / 2)
        return FEEDBACK_ALL;
    if (depth > max)
        return 0;
    /* From 1000 at half to 100 at the whole. */
    return (uint32_t)(FEEDBACK_ALL - 900. * ((double)depth / (double)max - 0.5) / 0.5);
}

static bool read_number(const struct resp *value, uint64_t *out)
{
    char *end;

    if (value->type != RESP_TEXT || value->size == 0 || value->size > 18 || value->text[0] < '0' ||
        value->text[0] > '9')
        return false;
    errno = 0;
    *out = strtoull(value->text, &end, 10);
    return !errno && end == value->text + value->size;
}

static bool read_state(const struct resp *value, enum backend_admin *out)
{
    for (enum backend_admin admin = 0; admin < BACKEND_ADMINS; admin++) {
        if (resp_is(value, backend_admin_name(admin))) {
            *out = admin;
            return true;
        }
    }
    return false;
}

bool feedback_read(const struct resp *hash, struct feedback *out)
{
    uint64_t depth = 0, max = 0, weight = 100;

    *out = no_word;
    if (hash->type != RESP_ARRAY || hash->n % 2)
        return false;
    for (size_t i = 0; i < hash->n; i += 2) {
        const struct resp *field = &hash->elements[i], *value = &hash->elements[i + 1];
        bool good = true;

        if (resp_is(field, "depth"))
            good = read_number(value, &depth);
        else if (resp_is(field, "max"))
            good = read_number(value, &max);
        else if (resp_is(field, "weight"))
            good = read_number(value, &weight) && weight <= 100;
        else if (resp_is(field, "state"))
            good = read_state(value, &out->admin);
        if (!good) {
            *out = no_word;
            return false;
        }
    }
    out->share = (uint32_t)(feedback_share(depth, max) * weight / 100);
    return true;
}

struct feedback feedback_settle(const struct feedback *before, const struct feedback *heard)
{
    uint32_t apart =
        heard->share > before->share ? heard->share - before->share : before->share - heard->share;
    struct feedback now = *heard;

    /* The ends are always news: none at all, and all. */
    if (apart < FEEDBACK_HYSTERESIS && heard->share != 0 && heard->share != FEEDBACK_ALL)
        now.share = before->share;
    return now;
}
