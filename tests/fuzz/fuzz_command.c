/*
 * A client's command lines. Input: one octet of what was offered (enum smtp_capability), and lines that end
 * in LF or CRLF.
 *
 * No span may point outside; a refusal must be a reply that Weir itself would accept from a backend; what is
 * passed on to a backend holds no control characters, needs only what was offered, and means the same when it
 * is read again.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/command.h"
#include "smtp/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static void check_within(struct smtp_span inner, struct smtp_span outer)
{
    CHECK(inner.data >= outer.data && inner.size <= outer.size);
    CHECK(inner.data + inner.size <= outer.data + outer.size);
}

static void check_refusal(const char *refusal)
{
    struct smtp_reply reply;

    CHECK(smtp_reply_parse(refusal, strlen(refusal), &reply) == 1);
    CHECK(reply.size == strlen(refusal) && reply.lines == 1);
    CHECK(reply.code / 100 == 5 && reply.status_class == 5);
}

static void check_path(struct smtp_span path, struct smtp_span parameters, struct smtp_span argument,
                       bool utf8)
{
    check_within(path, argument);
    CHECK(path.size >= 2 && path.data[0] == '<' && path.data[path.size - 1] == '>');
    for (size_t i = 0; i < path.size; i++) {
        uint8_t octet = (uint8_t)path.data[i];

        CHECK(octet >= ' ' && octet != 0x7F && (octet < 0x80 || utf8));
    }
    if (parameters.size == 0)
        return;
    check_within(parameters, argument);
    CHECK(parameters.data > path.data + path.size - 1);
    CHECK(parameters.data[0] != ' ' && parameters.data[parameters.size - 1] != ' ');
    for (size_t i = 0; i < parameters.size; i++) {
        uint8_t octet = (uint8_t)parameters.data[i];

        CHECK(octet >= ' ' && octet != 0x7F && (octet < 0x80 || utf8));
    }
}

/* "FROM:<path> parameters", as it goes to a backend. */
static struct smtp_span rewrite(const char *word, struct smtp_span path, struct smtp_span parameters,
                                char *out)
{
    size_t at = strlen(word);

    memcpy(out, word, at);
    memcpy(out + at, path.data, path.size);
    at += path.size;
    out[at++] = ' ';
    memcpy(out + at, parameters.data, parameters.size);
    return (struct smtp_span){ out, at + parameters.size };
}

static void check_mail(struct smtp_span argument, uint32_t offered)
{
    struct smtp_mail mail, again;
    const char *refusal = smtp_mail_parse(argument, offered, &mail);

    if (refusal) {
        check_refusal(refusal);
        return;
    }
    CHECK((mail.uses & ~offered) == 0);
    CHECK((mail.body == SMTP_BODY_BINARYMIME) == ((mail.uses & SMTP_CAP_BINARYMIME) != 0));
    check_path(mail.path, mail.parameters, argument, mail.uses & SMTP_CAP_SMTPUTF8);

    char *line = malloc(argument.size + 16);

    CHECK(line);
    CHECK(smtp_mail_parse(rewrite("FROM:", mail.path, mail.parameters, line), mail.uses, &again) == NULL);
    CHECK(again.path.size == mail.path.size && again.parameters.size == mail.parameters.size);
    CHECK(again.uses == mail.uses && again.size == mail.size && again.body == mail.body);
    free(line);
}

static void check_rcpt(struct smtp_span argument, uint32_t offered, bool utf8)
{
    struct smtp_rcpt rcpt, again;
    const char *refusal = smtp_rcpt_parse(argument, offered, utf8, &rcpt);

    if (refusal) {
        check_refusal(refusal);
        return;
    }
    CHECK((rcpt.uses & ~offered) == 0 && rcpt.path.size > 2);
    check_path(rcpt.path, rcpt.parameters, argument, utf8);

    char *line = malloc(argument.size + 16);

    CHECK(line);
    CHECK(smtp_rcpt_parse(rewrite("TO:", rcpt.path, rcpt.parameters, line), rcpt.uses, utf8, &again) == NULL);
    CHECK(again.path.size == rcpt.path.size && again.uses == rcpt.uses);
    free(line);
}

static void check_line(const char *line, size_t size, uint32_t offered)
{
    struct smtp_command command = smtp_command_parse(line, size);
    struct smtp_span whole = { line, size };
    uint64_t octets;
    bool last, has_octets;

    check_within(command.argument, whole);
    CHECK(smtp_verb_name(command.verb)[0] != '\0');

    /* Whatever the verb was: each parser sees each argument. */
    check_mail(command.argument, offered);
    check_rcpt(command.argument, offered, true);
    check_rcpt(command.argument, offered, false);
    if (smtp_bdat_parse(command.argument, &octets, &last, &has_octets))
        CHECK(has_octets);
    CHECK(octets <= INT64_MAX && (has_octets || octets == 0));
    if (smtp_helo_valid(command.argument))
        CHECK(command.argument.size > 0 && !memchr(command.argument.data, ' ', command.argument.size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;

    uint32_t offered = data[0];

    data++;
    size--;
    while (size > 0) {
        const uint8_t *lf = memchr(data, '\n', size);
        size_t taken = lf ? (size_t)(lf - data) + 1 : size, length = lf ? taken - 1 : taken;
        char *line;

        if (lf && length > 0 && data[length - 1] == '\r')
            length--;
        line = malloc(length ? length : 1); /* of just that size, for the address sanitizer */
        CHECK(line);
        memcpy(line, data, length);
        check_line(line, length, offered);
        free(line);
        data += taken;
        size -= taken;
    }
    return 0;
}
