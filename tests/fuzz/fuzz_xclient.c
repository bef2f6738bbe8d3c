/*
 * XCLIENT both ways. Octet 0 and 1: the attributes that a backend lists; the rest up to the first LF is what
 * a client said in XCLIENT, what follows is a HELO.
 *
 * Whatever the HELO, the command is one line of printable octets with the attributes that were asked for and
 * no others, and is read back as what was meant.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>

#include "smtp/command.h"
#include "smtp/xclient.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

#define WRITTEN                                                                                              \
    (SMTP_XCLIENT_NAME | SMTP_XCLIENT_ADDR | SMTP_XCLIENT_PORT | SMTP_XCLIENT_PROTO | SMTP_XCLIENT_HELO |    \
     SMTP_XCLIENT_SOURCE)

/* Of just that size, for the address sanitizer. */
static char *copy_of(const uint8_t *data, size_t size)
{
    char *copy = malloc(size ? size : 1);

    CHECK(copy);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

static void check_line(const char *line, size_t size, uint32_t attributes,
                       const struct smtp_identity *identity, const char *helo, size_t helo_size)
{
    uint32_t expected = attributes & (WRITTEN | (identity->login ? SMTP_XCLIENT_LOGIN : 0));
    struct smtp_xclient x;

    CHECK(size <= SMTP_XCLIENT_LINE_MAX && memcmp(line + size - 2, "\r\n", 2) == 0);
    for (size_t i = 0; i < size - 2; i++)
        CHECK(line[i] >= ' ' && line[i] <= '~');
    CHECK(smtp_command_parse(line, size - 2).verb == SMTP_VERB_XCLIENT);
    CHECK(smtp_xclient_parse(line + 8, size - 10, &x));
    CHECK(x.given == expected);
    if (expected & SMTP_XCLIENT_HELO && !(x.unavailable & SMTP_XCLIENT_HELO)) {
        CHECK(x.helo_size == helo_size);
        for (size_t i = 0; i < helo_size; i++)
            CHECK(x.helo[i] == (helo[i] >= '!' && helo[i] <= '~' ? helo[i] : '?'));
    }
    if (expected & SMTP_XCLIENT_LOGIN && !(x.unavailable & SMTP_XCLIENT_LOGIN))
        CHECK(strcmp(x.login, identity->login) == 0);
    CHECK((x.family == 0) == (identity->address[0] == '\0'));
}

/* What a client said, and that said on to a backend. */
static void check_said(const char *argument, size_t size, uint32_t attributes, const char *helo,
                       size_t helo_size)
{
    struct smtp_xclient x;
    struct smtp_identity identity = { 0 };
    char line[SMTP_XCLIENT_LINE_MAX];

    if (smtp_xclient_parse(argument, size, &x)) {
        CHECK(x.given && (x.unavailable & ~x.given) == 0);
        CHECK(x.family == 0 || x.family == AF_INET || x.family == AF_INET6);
        CHECK(x.helo_size == strlen(x.helo) && x.login_size == strlen(x.login));
        CHECK(x.helo_size == 0 || smtp_helo_valid((struct smtp_span){ x.helo, x.helo_size }));
        if (x.family)
            CHECK(inet_ntop(x.family, x.ip, identity.address, sizeof identity.address));
        identity.ipv6 = x.family == AF_INET6;
        identity.port = x.port;
        identity.login = x.login_size ? x.login : NULL;
    }

    size_t written =
        smtp_xclient_format(line, sizeof line, "XCLIENT", attributes, &identity, helo, helo_size, size & 1);

    CHECK((written == 0) == !(attributes & SMTP_XCLIENT_ADDR));
    if (written)
        check_line(line, written, attributes, &identity, helo, helo_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;

    uint32_t attributes = (uint32_t)data[0] | (uint32_t)data[1] << 8;
    const uint8_t *lf = memchr(data + 2, '\n', size - 2);
    size_t argument_size = lf ? (size_t)(lf - data) - 2 : size - 2,
           helo_size = lf ? size - argument_size - 3 : 0;
    char *argument = copy_of(data + 2, argument_size), *helo = copy_of(lf ? lf + 1 : data, helo_size);

    CHECK((smtp_xclient_attributes(argument, argument_size) & ~0x3FFu) == 0);
    check_said(argument, argument_size, attributes, helo, helo_size);
    free(argument);
    free(helo);
    return 0;
}
