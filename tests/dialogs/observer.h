/*
 * Two wiretaps on a dialog, one on each side, that know SMTP but not the dialog, and what they must agree on:
 *
 *  - a 2xx or 3xx to MAIL, RCPT, DATA, a chunk or the end of a message is told to the client only if a
 * backend said one of that class to that very thing, behind the last octet of it;
 *  - what goes to a backend is well-formed: whole lines, no bare CR or LF, no CRLF.CRLF but where the dialog
 * knows it;
 *  - each command has at most one reply.
 *
 * The user defines CHECK(condition, message) before.
 */
#ifndef TESTS_DIALOGS_OBSERVER_H
#define TESTS_DIALOGS_OBSERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum thing { THING_OTHER, THING_AUTH, THING_MAIL, THING_RCPT, THING_DATA, THING_CHUNK, THING_END, THINGS };

#define TAP_QUEUE 4096u
#define TAP_LINE  2100 /* as much of a line as is looked at */
struct tap {
    enum { TAP_COMMAND, TAP_SKIP, TAP_BODY, TAP_CHUNK } mode;
    size_t line_size;
    char line[TAP_LINE];
    char previous;
    bool bare;        /* this line holds a CR or LF that stands alone */
    unsigned matched; /* octets of CRLF.CRLF just gone by */
    uint64_t chunk_left;
    bool chunk_last, binary;
    char chunk_previous;   /* the content's last octet, over all its chunks */
    bool response;         /* the next line is one of AUTH's exchange */
    unsigned first, count; /* unanswered */
    uint8_t queue[TAP_QUEUE];
    unsigned told[THINGS][6]; /* replies by class */
};

struct observer {
    struct tap client, backend;
    char reply[5]; /* beginning of the reply line that goes to the client */
    size_t reply_size;
    bool tainted; /* octets of a backend's next reply were there before what they answer */
    bool reject;  /* bare LFs */
    bool over;    /* 421 was said */
};

/* What does not fit is forgotten, which only matters if it is answered. */
static inline void tap_push(struct tap *tap, enum thing thing)
{
    if (tap->count < TAP_QUEUE)
        tap->queue[(tap->first + tap->count++) % TAP_QUEUE] = (uint8_t)thing;
}

static inline enum thing tap_pop(struct tap *tap)
{
    enum thing thing = (enum thing)tap->queue[tap->first];

    tap->first = (tap->first + 1) % TAP_QUEUE;
    tap->count--;
    return thing;
}

/* "BDAT n": its octets follow, if n is a number. */
static inline bool tap_chunk(struct tap *tap, size_t size)
{
    uint64_t n = 0;
    size_t i = 5;

    while (i < size && (tap->line[i] == ' ' || tap->line[i] == '\t'))
        i++;
    if (i == size || tap->line[i] < '0' || tap->line[i] > '9')
        return false;
    for (; i < size && tap->line[i] >= '0' && tap->line[i] <= '9'; i++) {
        if (n > INT64_MAX / 10 || n * 10 + (uint64_t)(tap->line[i] - '0') > INT64_MAX)
            return false;
        n = n * 10 + (uint64_t)(tap->line[i] - '0');
    }
    if (i < size && tap->line[i] != ' ' && tap->line[i] != '\t')
        return false;
    while (i < size && (tap->line[i] == ' ' || tap->line[i] == '\t'))
        i++;
    tap->chunk_last = size - i >= 4 && strncasecmp(tap->line + i, "LAST", 4) == 0;
    tap->chunk_left = n;
    return true;
}

static inline void tap_chunk_over(struct tap *tap)
{
    tap->mode = TAP_COMMAND;
    tap_push(tap, tap->chunk_last ? THING_END : THING_CHUNK);
}

static inline bool tap_verb(const struct tap *tap, size_t size, const char *verb)
{
    return size >= 4 && strncasecmp(tap->line, verb, 4) == 0 &&
           (size == 4 || tap->line[4] == ' ' || tap->line[4] == '\t');
}

/* A command line is complete. */
static inline void tap_line(struct tap *tap)
{
    size_t size = tap->line_size < TAP_LINE ? tap->line_size : TAP_LINE;
    bool bare = tap->bare;

    tap->line_size = 0;
    tap->bare = false;
    while (size && (tap->line[size - 1] == '\r' || tap->line[size - 1] == '\n'))
        size--;
    if (tap->response) {
        tap->response = false;
        tap_push(tap, THING_AUTH);
    } else if (tap_verb(tap, size, "AUTH")) {
        tap_push(tap, THING_AUTH);
    } else if (!bare && tap_verb(tap, size, "BDAT") && tap_chunk(tap, size)) {
        tap->mode = TAP_CHUNK;
        if (!tap->chunk_left)
            tap_chunk_over(tap);
    } else if (tap_verb(tap, size, "MAIL")) {
        tap_push(tap, THING_MAIL);
    } else if (tap_verb(tap, size, "RCPT")) {
        tap_push(tap, THING_RCPT);
    } else if (tap_verb(tap, size, "DATA")) {
        tap_push(tap, THING_DATA);
    } else {
        tap_push(tap, THING_OTHER);
    }
}

/* Counts how much of CRLF.CRLF the last octets are; true on all of it. */
static inline bool tap_end(struct tap *tap, char octet)
{
    static const char end[] = "\r\n.\r\n";

    if (octet == end[tap->matched])
        tap->matched++;
    else
        tap->matched = octet == '\r' ? 1 : 0;
    return tap->matched == 5;
}

static inline void tap_body_octet(struct tap *tap, char octet)
{
    if (tap_end(tap, octet)) {
        tap->mode = TAP_COMMAND;
        tap->line_size = 0;
        tap_push(tap, THING_END);
    }
}

/* --- the client's side --- */

static inline void observe_client_command(struct observer *o, char octet)
{
    struct tap *tap = &o->client;
    size_t limit =
        tap->line_size >= 4 && (tap->response || strncasecmp(tap->line, "AUTH", 4) == 0) ? 12288 : 2048;

    if (tap->line_size && tap->previous == '\r' && octet != '\n')
        tap->bare = true;
    if (tap->line_size < TAP_LINE)
        tap->line[tap->line_size] = octet;
    tap->line_size++;
    if (octet == '\n') {
        bool skip = o->reject && (tap->line_size == 1 || tap->previous != '\r');

        tap->bare |= skip;
        tap_line(tap);
        if (skip)
            tap->mode = TAP_SKIP;
    } else if (tap->line_size >= limit) {
        tap_push(tap, tap->response ? THING_AUTH : THING_OTHER);
        tap->response = false;
        tap->mode = TAP_SKIP;
        tap->line_size = 0;
        tap->bare = false;
    }
}

static inline void observe_client_octets(struct observer *o, const char *in, size_t size)
{
    struct tap *tap = &o->client;

    for (size_t i = 0; i < size; i++) {
        switch (tap->mode) {
        case TAP_COMMAND: observe_client_command(o, in[i]); break;
        case TAP_SKIP:
            if (in[i] == '\n' && tap->previous == '\r')
                tap->mode = TAP_COMMAND;
            break;
        case TAP_BODY: tap_body_octet(tap, in[i]); break;
        case TAP_CHUNK:
            if (!--tap->chunk_left)
                tap_chunk_over(tap);
            break;
        }
        tap->previous = in[i];
    }
}

/* One reply is told to the client. `closing`: the session ends with this call. */
static inline void observe_told(struct observer *o, bool closing)
{
    int class = o->reply[0] - '0', code = atoi(o->reply);
    enum thing thing;

    CHECK(!o->over, "a reply behind 421");
    CHECK(class >= 2 && class <= 5, "a reply of no class");
    if (code == 421) {
        o->over = true;
        return;
    }
    if (!o->client.count && o->client.mode == TAP_COMMAND &&
        (o->client.line_size == 2047 || o->client.line_size == 12287)) {
        o->client.mode = TAP_SKIP; /* a line found too long at its CR, which is not consumed yet */
        o->client.line_size = 0;
        o->client.bare = false;
        return;
    }
    if (!o->client.count) {
        CHECK(closing && class >= 4, "a reply to nothing");
        return;
    }
    thing = tap_pop(&o->client);
    o->client.told[thing][class]++;
    if (thing == THING_OTHER)
        return;
    if (class == 2 || class == 3)
        CHECK(o->client.told[thing][class] <= o->backend.told[thing][class],
              "a promise that no backend made");
    if (thing == THING_AUTH && class == 3)
        o->client.response = true;
    if (thing == THING_DATA && class == 3) {
        o->client.mode = TAP_BODY;
        o->client.matched = 2;
    }
}

static inline void observe_client_output(struct observer *o, const char *out, size_t size, bool closing)
{
    for (size_t i = 0; i < size; i++) {
        CHECK(out[i] != '\n' || (i && out[i - 1] == '\r'), "a bare LF for the client");
        if (o->reply_size < 4)
            o->reply[o->reply_size++] = out[i];
        if (out[i] != '\n')
            continue;
        CHECK(o->reply_size == 4 && strspn(o->reply, "0123456789") == 3, "not a reply line");
        if (o->reply[3] != '-')
            observe_told(o, closing);
        o->reply_size = 0;
    }
    CHECK(!o->reply_size, "half a reply for the client");
}

/* --- the backend's side --- */

static inline void observer_assigned(struct observer *o)
{
    unsigned told[THINGS][6];

    memcpy(told, o->backend.told, sizeof told);
    memset(&o->backend, 0, sizeof o->backend);
    memcpy(o->backend.told, told, sizeof told);
    o->tainted = false;
    tap_push(&o->backend, THING_OTHER);
}

static inline void observe_backend_command(struct observer *o)
{
    struct tap *tap = &o->backend;
    char line[TAP_LINE + 1] = { 0 };
    unsigned long long octets;
    int end = 0;

    memcpy(line, tap->line, tap->line_size < TAP_LINE ? tap->line_size : TAP_LINE);
    if (tap->response) {
        size_t n = strspn(line, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=");

        CHECK(n == TAP_LINE || strcmp(line + n, "\r\n") == 0 || strcmp(line, "*\r\n") == 0,
              "not a response for a backend");
        tap_line(tap);
        return;
    }
    if (strncmp(line, "MAIL", 4) == 0) {
        tap->binary = strcasestr(line, "BODY=BINARYMIME");
        tap->chunk_previous = '\n';
    }
    CHECK(strncmp(line, "EHLO weir.test\r", 15) == 0 || strncmp(line, "HELO weir.test\r", 15) == 0 ||
              strncmp(line, "MAIL FROM:<", 11) == 0 || strncmp(line, "RCPT TO:<", 9) == 0 ||
              strcmp(line, "DATA\r\n") == 0 || strncmp(line, "BDAT ", 5) == 0 ||
              strcmp(line, "STARTTLS\r\n") == 0 || strncmp(line, "AUTH ", 5) == 0 ||
              strncmp(line, "XCLIENT ", 8) == 0 || strncmp(line, "XFORWARD ", 9) == 0 ||
              strncmp(line, "EHLO client.test\r", 17) == 0 || strcmp(line, "RSET\r\n") == 0 ||
              strcmp(line, "QUIT\r\n") == 0,
          "not a command for a backend");
    if (sscanf(line, "BDAT %llu%n", &octets, &end) == 1)
        CHECK(strcmp(line + end, "\r\n") == 0 || strcmp(line + end, " LAST\r\n") == 0,
              "an odd BDAT for a backend");
    tap_line(tap);
    if (tap->mode == TAP_COMMAND && end)
        CHECK(tap->binary || !tap->chunk_last || tap->chunk_previous != '\r',
              "a bare CR at the message's end");
}

static inline void observe_chunk_octet(struct tap *tap, char octet)
{
    if (!tap->binary)
        CHECK((tap->chunk_previous == '\r') == (octet == '\n'), "a bare CR or LF in a chunk");
    tap->chunk_previous = octet;
    if (!--tap->chunk_left) {
        tap_chunk_over(tap);
        CHECK(tap->binary || !tap->chunk_last || octet != '\r', "a bare CR at the end of the last chunk");
    }
}

/* `end`: the dialog waits for the final reply now; `early`: octets from the backend wait already. */
static inline void observe_backend_output(struct observer *o, const char *out, size_t size, bool end,
                                          bool early)
{
    struct tap *tap = &o->backend;

    if (size && early && !tap->count)
        o->tainted = true;
    for (size_t i = 0; i < size; i++) {
        if (tap->mode == TAP_BODY || (tap->mode == TAP_COMMAND && tap->line_size))
            CHECK((tap->previous == '\r') == (out[i] == '\n'), "a bare CR or LF for a backend");
        switch (tap->mode) {
        case TAP_COMMAND:
            if (tap->line_size < TAP_LINE)
                tap->line[tap->line_size] = out[i];
            tap->line_size++;
            if (out[i] == '\n')
                observe_backend_command(o);
            break;
        case TAP_SKIP: CHECK(false, "impossible"); break;
        case TAP_BODY:
            tap_body_octet(tap, out[i]);
            CHECK(tap->mode == TAP_BODY || (end && i + 1 == size), "CRLF.CRLF that the dialog did not see");
            break;
        case TAP_CHUNK: observe_chunk_octet(tap, out[i]); break;
        }
        tap->previous = out[i];
    }
}

/* Consumed octets: the first reply in them answers the oldest command; others were dropped with the
 * connection. */
static inline void observe_backend_reply(struct observer *o, const char *in, size_t size)
{
    struct tap *tap = &o->backend;
    size_t i = 0;
    enum thing thing;

    while (i + 4 <= size && in[i + 3] == '-') {
        while (i < size && in[i] != '\n')
            i++;
        i++;
    }
    if (i + 4 > size || !tap->count || in[0] < '2' || in[0] > '5')
        return;
    thing = tap_pop(tap);
    if (!o->tainted)
        tap->told[thing][in[0] - '0']++;
    o->tainted = false;
    if (thing == THING_AUTH && memcmp(in, "334", 3) == 0)
        tap->response = true;
    if (thing == THING_DATA && memcmp(in, "354", 3) == 0) {
        tap->mode = TAP_BODY;
        tap->matched = 2;
        tap->previous = '\n';
    }
}

static inline void observer_begin(struct observer *o, bool reject)
{
    memset(o, 0, sizeof *o);
    o->reject = reject;
    tap_push(&o->client, THING_OTHER); /* the banner */
}

#endif
