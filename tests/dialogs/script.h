/*
 * The files of dialogs (README.md): lines, macros and escapes. The user defines CHECK(condition, message)
 * before, which does not return when the condition is false.
 */
#ifndef TESTS_DIALOGS_SCRIPT_H
#define TESTS_DIALOGS_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/dialogs/driver.h"

#define LINES_MAX 20000

struct line {
    const char *file;
    unsigned number;
    const char *text;
};

/* Stays until the program ends: the lines are shared. */
struct script {
    struct script *next;
    struct line lines[LINES_MAX];
    size_t n;
};

static inline const char *after(const char *text, const char *word)
{
    size_t n = strlen(word);

    if (strncmp(text, word, n) != 0 || (text[n] && text[n] != ' '))
        return NULL;
    return text + n + strspn(text + n, " ");
}

static inline void use_macro(struct script *into, const struct script *macros, const char *name)
{
    bool inside = false, found = false;

    for (size_t i = 0; i < macros->n; i++) {
        const char *text = macros->lines[i].text, *defined = after(text, "define");

        if (defined)
            found |= inside = strcmp(defined, name) == 0;
        else if (inside && after(text, "use"))
            use_macro(into, macros, after(text, "use"));
        else if (inside)
            into->lines[into->n++] = macros->lines[i];
    }
    if (!found)
        CHECK(false, "no such macro");
}

/* `macros`: those that "use" may name, or NULL in the file that defines them. */
static inline struct script *script_load(const char *path, const struct script *macros)
{
    static struct script *all;
    struct script *into = calloc(1, sizeof *into);
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t room = 0;
    unsigned number = 0;
    ssize_t n;

    CHECK(into && file, "the file can't be read");
    into->next = all;
    all = into;
    while ((n = getline(&text, &room, file)) >= 0) {
        number++;
        while (n && text[n - 1] == '\n')
            text[--n] = '\0';
        if (!text[0] || text[0] == '#')
            continue;
        CHECK(into->n + 200 < LINES_MAX, "too many lines");
        if (macros && after(text, "use"))
            use_macro(into, macros, after(text, "use"));
        else
            into->lines[into->n++] = (struct line){ .file = path, .number = number, .text = strdup(text) };
    }
    free(text);
    fclose(file);
    return into;
}

static inline void unescape(struct text *out, const char *in);

static inline const char *unescape_repeat(struct text *out, const char *in)
{
    char *colon, *piece;
    unsigned long times = strtoul(in + 2, &colon, 10);
    const char *end = strchr(in, '}');
    struct text one = { 0 };

    CHECK(*colon == ':' && end, "%{N:text} is meant");
    piece = strndup(colon + 1, (size_t)(end - colon - 1));
    unescape(&one, piece);
    while (times--)
        text_add(out, one.data, one.size);
    text_free(&one);
    free(piece);
    return end + 1;
}

/* \r \n \t \0 \\ \xHH and %{N:text} */
static inline void unescape(struct text *out, const char *in)
{
    static const char letters[] = "rnt0\\", octets[] = "\r\n\t\0\\";

    while (*in) {
        const char *letter = in[0] == '\\' && in[1] ? strchr(letters, in[1]) : NULL;

        if (in[0] == '%' && in[1] == '{') {
            in = unescape_repeat(out, in);
        } else if (letter) {
            text_add(out, octets + (letter - letters), 1);
            in += 2;
        } else if (in[0] == '\\' && in[1] == 'x') {
            char hex[3] = { in[2], in[2] ? in[3] : '\0', '\0' }, *end, octet = (char)strtoul(hex, &end, 16);

            CHECK(end == hex + 2, "\\xHH is meant");
            text_add(out, &octet, 1);
            in += 4;
        } else {
            text_add(out, in++, 1);
        }
    }
}

static const struct {
    const char *name;
    uint32_t flag;
} capabilities[] = {
    {"PIPELINING",           SMTP_CAP_PIPELINING         },
    { "SIZE",                SMTP_CAP_SIZE               },
    { "8BITMIME",            SMTP_CAP_8BITMIME           },
    { "SMTPUTF8",            SMTP_CAP_SMTPUTF8           },
    { "DSN",                 SMTP_CAP_DSN                },
    { "ENHANCEDSTATUSCODES", SMTP_CAP_ENHANCEDSTATUSCODES},
    { "CHUNKING",            SMTP_CAP_CHUNKING           },
    { "BINARYMIME",          SMTP_CAP_BINARYMIME         },
    { "STARTTLS",            SMTP_CAP_STARTTLS           },
    { "AUTH",                SMTP_CAP_AUTH               },
    { "PLAIN",               SMTP_CAP_AUTH_PLAIN         },
    { "LOGIN",               SMTP_CAP_AUTH_LOGIN         },
    { "CRAM-MD5",            SMTP_CAP_AUTH_CRAM_MD5      },
    { "SCRAM-SHA-256",       SMTP_CAP_AUTH_SCRAM_SHA_256 },
};
#define CAPABILITIES (sizeof capabilities / sizeof *capabilities)

static const char *const outcomes[] = { "delivered", "rejected", "deferred", "failed", "aborted", "unknown" };
static const char *const timers[] = {
    "GREET_DELAY", "HANDSHAKE", "COMMAND",    "DATA_BLOCK", "BACKEND",
    "CONNECT",     "REPLY",     "REPLY_DATA", "REPLY_END",  "LINGER",
};
_Static_assert(sizeof timers / sizeof *timers == SMTP_TIMERS, "one name each");

static inline uint32_t parse_capabilities(char *list)
{
    uint32_t flags = 0;
    char *rest = list;

    for (char *word; (word = strsep(&rest, ","));) {
        size_t i = 0;

        while (i < CAPABILITIES && strcmp(word, capabilities[i].name) != 0)
            i++;
        CHECK(i < CAPABILITIES, "no such capability");
        flags |= capabilities[i].flag;
    }
    return flags;
}

static inline void print_capabilities(FILE *out, uint32_t flags)
{
    const char *comma = "";

    for (size_t i = 0; i < CAPABILITIES; i++) {
        if (!(flags & capabilities[i].flag))
            continue;
        fprintf(out, "%s%s", comma, capabilities[i].name);
        comma = ",";
    }
}

/* For messages of failure. */
static inline void quote(const char *what, const struct text *text)
{
    fprintf(stderr, "    %s: ", what);
    for (size_t i = 0; i < text->size && i < 400; i++) {
        char c = text->data[i];

        if (c == '\n')
            fprintf(stderr, "\\n%s", i + 1 < text->size ? "\n        " : "");
        else if (c >= ' ' && c < 0x7F)
            fputc(c, stderr);
        else
            fprintf(stderr, c == '\r' ? "\\r" : "\\x%02x", (unsigned char)c);
    }
    fprintf(stderr, "\n");
}

#endif
