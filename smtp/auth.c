/*
 * AUTH seen from the middle.
 *
 *     auth-command  = "AUTH" SP mechanism [ SP ( base64 / "=" ) ]                          RFC 4954 §8
 *     PLAIN         = [ authzid ] NUL authcid NUL passwd                                   RFC 4616 §2
 *     CRAM-MD5      = name SP 32HEXDIG                                                     RFC 2195 §2
 *     SCRAM         = gs2-header "n=" saslname ",r=" nonce *( "," ALPHA "=" value )        RFC 5802 §7
 *     OAUTHBEARER   = gs2-header pairs                                                     RFC 7628 §3.1
 *     XOAUTH2       = "user=" name %x01 pairs
 *     gs2-header    = ( "n" / "y" ) "," [ "a=" saslname ] ","                              RFC 5801 §4
 *     pairs         = *( key "=" value %x01 ) %x01
 *     saslname      = *( any octet but NUL , = / "=2C" / "=3D" )
 *
 * A name is told only of a message that is all that its mechanism demands: in half of one a password may
 * stand where the name is looked for.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "smtp/auth.h"

#define MECHANISM_MAX 20 /* RFC 4422 §3.1 */
#define PAIR_END      '\x01'

/* --- base64 --- */

/* -1: not of the alphabet */
static int digit_value(char octet)
{
    if (octet >= 'A' && octet <= 'Z')
        return octet - 'A';
    if (octet >= 'a' && octet <= 'z')
        return octet - 'a' + 26;
    if (octet >= '0' && octet <= '9')
        return octet - '0' + 52;
    if (octet == '+')
        return 62;
    return octet == '/' ? 63 : -1;
}

/* Digits in front of the padding. */
static size_t digits_of(struct smtp_span text)
{
    size_t digits = text.size;

    while (digits > 0 && text.size - digits < 2 && text.data[digits - 1] == '=')
        digits--;
    return digits;
}

/* Bits behind the last whole octet are not looked at (RFC 4648 §3.5 leaves that open): there are clients that
 * don't clear them, and to no decoder do they change what was said. */
bool smtp_auth_is_base64(struct smtp_span line)
{
    size_t digits = digits_of(line);

    for (size_t i = 0; i < digits; i++)
        if (digit_value(line.data[i]) < 0)
            return false;
    return line.size % 4 == 0;
}

/* Of a text that is base64. Returns the octets written, three for four digits. */
static size_t decode(struct smtp_span text, char *out)
{
    size_t digits = digits_of(text), size = 0;
    unsigned bits = 0, held = 0;

    for (size_t i = 0; i < digits; i++) {
        bits = (bits << 6 | (unsigned)digit_value(text.data[i])) & 0xFFFF;
        held += 6;
        if (held < 8)
            continue;
        held -= 8;
        out[size++] = (char)(uint8_t)(bits >> held);
    }
    return size;
}

/* --- the command --- */

static bool is_mechanism(struct smtp_span name)
{
    for (size_t i = 0; i < name.size; i++) {
        char c = name.data[i];

        if (!(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' &&
            c != '_')
            return false;
    }
    return name.size > 0 && name.size <= MECHANISM_MAX;
}

bool smtp_auth_parse(struct smtp_span argument, struct smtp_auth *out)
{
    const char *blank = argument.size ? memchr(argument.data, ' ', argument.size) : NULL;

    *out = (struct smtp_auth){ .name = argument };
    if (blank) {
        out->name.size = (size_t)(blank - argument.data);
        out->response = (struct smtp_span){ blank + 1, argument.size - out->name.size - 1 };
        if (out->response.size == 0)
            return false;
        if (!smtp_auth_is_base64(out->response) && !(out->response.size == 1 && out->response.data[0] == '='))
            return false;
    }
    out->mechanism = smtp_auth_mechanism(out->name.data, out->name.size);
    return is_mechanism(out->name);
}

/* --- the user's name --- */

/* What is left to read of a decoded message. */
struct message {
    char *at, *end;
};

static const struct smtp_span no_name = { 0 };

static size_t left(const struct message *m)
{
    return (size_t)(m->end - m->at);
}

/* Everything up to the next `octet`, which is taken too. False: there is none. */
static bool take_until(struct message *m, char octet, struct smtp_span *out)
{
    char *found = left(m) ? memchr(m->at, octet, left(m)) : NULL;

    if (!found)
        return false;
    *out = (struct smtp_span){ m->at, (size_t)(found - m->at) };
    m->at = found + 1;
    return true;
}

static bool take_word(struct message *m, const char *word)
{
    size_t size = strlen(word);

    if (left(m) < size || memcmp(m->at, word, size) != 0)
        return false;
    m->at += size;
    return true;
}

static struct smtp_span plain_name(struct message *m)
{
    struct smtp_span authzid, authcid;

    if (!take_until(m, '\0', &authzid) || !take_until(m, '\0', &authcid))
        return no_name;
    return left(m) > 0 && !memchr(m->at, '\0', left(m)) ? authcid : no_name;
}

/* All of the first response. */
static struct smtp_span login_name(struct message *m)
{
    return (struct smtp_span){ m->at, left(m) };
}

static bool is_hex(char octet)
{
    return (octet >= '0' && octet <= '9') || (octet >= 'a' && octet <= 'f') || (octet >= 'A' && octet <= 'F');
}

/* The digest begins behind the last blank: a name may have blanks of its own. */
static struct smtp_span cram_name(struct message *m)
{
    const char *blank = left(m) ? memrchr(m->at, ' ', left(m)) : NULL;

    if (!blank || m->end - blank != 1 + 32)
        return no_name;
    for (const char *digit = blank + 1; digit < m->end; digit++)
        if (!is_hex(*digit))
            return no_name;
    return (struct smtp_span){ m->at, (size_t)(blank - m->at) };
}

/* A saslname and the comma behind it. The name is decoded where it stands. */
static bool take_saslname(struct message *m, struct smtp_span *out)
{
    char *to = m->at;
    struct message coded;

    if (!take_until(m, ',', out))
        return false;
    coded = (struct message){ to, to + out->size };
    while (left(&coded)) {
        if (take_word(&coded, "=2C"))
            *to++ = ',';
        else if (take_word(&coded, "=3D"))
            *to++ = '=';
        else if (*coded.at != '=')
            *to++ = *coded.at++;
        else
            return false;
    }
    out->size = (size_t)(to - out->data);
    return out->size > 0;
}

/* No "p=": that binds to a channel, which ends at Weir. */
static bool take_gs2_header(struct message *m, struct smtp_span *authzid)
{
    *authzid = no_name;
    if (!take_word(m, "n,") && !take_word(m, "y,"))
        return false;
    return take_word(m, "a=") ? take_saslname(m, authzid) : take_word(m, ",");
}

static bool is_letter(char octet)
{
    return (octet >= 'A' && octet <= 'Z') || (octet >= 'a' && octet <= 'z');
}

/* Whether the rest is "r=" and a nonce, and then extensions. */
static bool is_scram_tail(struct message *m)
{
    size_t nonce = 0;

    if (!take_word(m, "r="))
        return false;
    for (; left(m) && *m->at != ','; m->at++, nonce++)
        if (*m->at < '!' || *m->at > '~')
            return false;
    while (left(m)) {
        if (left(m) < 4 || !is_letter(m->at[1]) || m->at[2] != '=' || m->at[3] == ',')
            return false;
        for (m->at += 3; left(m) && *m->at != ',';)
            m->at++;
    }
    return nonce > 0;
}

static struct smtp_span scram_name(struct message *m)
{
    struct smtp_span authzid, name;

    if (!take_gs2_header(m, &authzid) || !take_word(m, "n=") || !take_saslname(m, &name))
        return no_name;
    return is_scram_tail(m) ? name : no_name;
}

/* Whether the rest is pairs, with the token's among them. */
static bool are_pairs(struct message *m)
{
    struct smtp_span pair;
    bool token = false;

    while (take_until(m, PAIR_END, &pair)) {
        size_t key = 0;

        if (pair.size == 0)
            return token && left(m) == 0;
        while (key < pair.size && is_letter(pair.data[key]))
            key++;
        if (key == 0 || key == pair.size || pair.data[key] != '=')
            return false;
        token |= key == 4 && strncasecmp(pair.data, "auth", 4) == 0;
    }
    return false;
}

static struct smtp_span xoauth2_name(struct message *m)
{
    struct smtp_span name;

    return take_word(m, "user=") && take_until(m, PAIR_END, &name) && are_pairs(m) ? name : no_name;
}

/* The name is the authzid. Where that is left out only the token knows it. */
static struct smtp_span oauthbearer_name(struct message *m)
{
    struct smtp_span name;

    return take_gs2_header(m, &name) && take_word(m, "\x01") && are_pairs(m) ? name : no_name;
}

static const struct {
    uint32_t mechanisms; /* any of them */
    struct smtp_span (*read)(struct message *m);
} readers[] = {
    {SMTP_CAP_AUTH_PLAIN,                                                                    plain_name      },
    { SMTP_CAP_AUTH_LOGIN,                                                                   login_name      },
    { SMTP_CAP_AUTH_CRAM_MD5,                                                                cram_name       },
    { SMTP_CAP_AUTH_SCRAM_SHA_1 | SMTP_CAP_AUTH_SCRAM_SHA_256 | SMTP_CAP_AUTH_SCRAM_SHA_512, scram_name      },
    { SMTP_CAP_AUTH_XOAUTH2,                                                                 xoauth2_name    },
    { SMTP_CAP_AUTH_OAUTHBEARER,                                                             oauthbearer_name},
};

size_t smtp_auth_user(uint32_t mechanism, struct smtp_span response, char out[SMTP_AUTH_USER_MAX])
{
    char decoded[SMTP_LINE_AUTH_MAX / 4 * 3];
    struct message message = { decoded, decoded };
    struct smtp_span name = no_name;

    if (response.size > SMTP_LINE_AUTH_MAX || !smtp_auth_is_base64(response))
        return 0;
    message.end += decode(response, decoded);
    for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++)
        if (readers[i].mechanisms & mechanism)
            name = readers[i].read(&message);
    if (name.size > 0 && memchr(name.data, '\0', name.size))
        name.size = 0;
    if (name.size > SMTP_AUTH_USER_MAX)
        name.size = SMTP_AUTH_USER_MAX;
    if (name.size > 0)
        memcpy(out, name.data, name.size);
    explicit_bzero(decoded, sizeof decoded);
    return name.size;
}
