/*
 * Replies of a backend.
 *
 *     Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP [ textstring ] ] CRLF
 *     Reply-code = %x32-35 2DIGIT
 *     status     = class "." 1*3DIGIT "." 1*3DIGIT                     (RFC 3463 §2, at the beginning of the
 * text)
 *
 * What is there is judged as soon as it is there: a beginning that no further octet could mend is malformed
 * at once.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "smtp/reply.h"

struct reply_line {
    int code;
    bool last;
    size_t size; /* CRLF included */
    const char *text;
    size_t text_size;
};

static bool is_digit(char octet)
{
    return octet >= '0' && octet <= '9';
}

/* Find the CRLF of the line that `in` is inside of; *end is the offset of its CR. 1, 0 or -1 as
 * smtp_reply_parse(). */
static int find_crlf(const char *in, size_t size, size_t *end)
{
    const char *lf = memchr(in, '\n', size);
    const char *cr = memchr(in, '\r', lf ? (size_t)(lf - in) : size);

    if (cr && cr + 1 == lf) {
        *end = (size_t)(cr - in);
        return 1;
    }
    if (lf || (cr && cr + 1 < in + size))
        return -1;
    return 0;
}

/* Parse one line; `first` is the reply's first one, whose code it must repeat, or NULL. 1, 0 or -1 as
 * smtp_reply_parse(). */
static int parse_line(const char *in, size_t size, const char *first, struct reply_line *line)
{
    size_t end;

    for (size_t i = 0; i < 3; i++) {
        if (i == size)
            return 0;
        if (!is_digit(in[i]) || (i == 0 && (in[i] < '2' || in[i] > '5')) || (first && in[i] != first[i]))
            return -1;
    }
    if (size == 3)
        return 0;
    if (in[3] != '-' && in[3] != ' ' && in[3] != '\r')
        return -1;

    int found = find_crlf(in + 3, size - 3, &end);

    if (found != 1)
        return found;
    end += 3;
    line->code = (in[0] - '0') * 100 + (in[1] - '0') * 10 + (in[2] - '0');
    line->last = in[3] != '-';
    line->size = end + 2;
    line->text = in + (end > 3 ? 4 : 3);
    line->text_size = end > 3 ? end - 4 : 0;
    return 1;
}

/* "." and one to three digits at *at. */
static bool parse_status_part(const char *text, size_t size, size_t *at, uint16_t *value)
{
    size_t i = *at, digits = 0;

    if (i == size || text[i++] != '.')
        return false;
    *value = 0;
    for (; i < size && is_digit(text[i]); i++, digits++) {
        if (digits == 3)
            return false;
        *value = (uint16_t)(*value * 10 + (text[i] - '0'));
    }
    *at = i;
    return digits > 0;
}

static void parse_status(struct smtp_reply *reply)
{
    uint16_t subject, detail;
    size_t at = 1;

    if (reply->text_size == 0 || reply->code / 100 == 3 || reply->text[0] - '0' != reply->code / 100)
        return;
    if (!parse_status_part(reply->text, reply->text_size, &at, &subject) ||
        !parse_status_part(reply->text, reply->text_size, &at, &detail))
        return;
    if (at < reply->text_size && reply->text[at] != ' ')
        return;
    reply->status_class = (uint8_t)(reply->code / 100);
    reply->subject = subject;
    reply->detail = detail;
}

int smtp_reply_parse(const char *in, size_t size, struct smtp_reply *out)
{
    size_t limit = size < SMTP_REPLY_MAX ? size : SMTP_REPLY_MAX, at = 0;
    unsigned lines = 0;

    for (;;) {
        struct reply_line line;
        int found = parse_line(in + at, limit - at, lines > 0 ? in : NULL, &line);

        if (found == 0)
            return limit == SMTP_REPLY_MAX ? -1 : 0;
        if (found < 0)
            return -1;
        lines++;
        at += line.size;
        if (line.last) {
            *out = (struct smtp_reply){
                .code = line.code, .size = at, .text = line.text, .text_size = line.text_size, .lines = lines
            };
            parse_status(out);
            return 1;
        }
    }
}

static const bool plain[256] = { ['\t'] = true, [' ' ... '~'] = true };

void smtp_reply_sanitise(const char *in, size_t size, char *out, int utf8)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t octet = (uint8_t)in[i];

        if (plain[octet]) {
            out[i] = in[i];
        } else if (octet == '\r' && i + 1 < size && in[i + 1] == '\n') {
            out[i] = '\r';
            out[++i] = '\n';
        } else {
            out[i] = octet >= 0x80 && utf8 ? in[i] : '?';
        }
    }
}
