/*
 * The protocol of Redis, RESP2, both ways: commands out, replies in. hiredis is touched here only.
 *
 *     octets ──resp_reader_feed()──▶ reader ──resp_reader_next()──▶ struct resp, a tree
 *     resp_command_add() … ──▶ struct resp_commands, octets to be sent
 *
 * What comes in is hostile. A reply is taken as it comes, so that it costs memory only for what was sent (a
 * dozen octets can announce a hundred million elements), and bounded in every way below.
 */
#ifndef WEIR_COUNTERS_RESP_H
#define WEIR_COUNTERS_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RESP_ELEMENTS_MAX 65536      /* of one array; a longer one is an error in its place, … */
#define RESP_SKIPPED_MAX  (1 << 20)  /* … up to here: then all is over */
#define RESP_DEPTH_MAX    7          /* arrays in arrays; what hiredis 0.14 can do */
#define RESP_UNPARSED_MAX (4 << 20)  /* octets of an element that does not end */
#define RESP_LINE_MAX     (64 << 10) /* the same of one that is a line: it is searched anew at each feed */
#define RESP_MEMORY_MAX   (16 << 20) /* octets in memory of one reply; an array beyond is an error, too */

enum resp_type { RESP_STATUS, RESP_ERROR, RESP_TEXT, RESP_INTEGER, RESP_NIL, RESP_ARRAY };

struct resp {
    enum resp_type type;
    int64_t integer;  /* RESP_INTEGER */
    const char *text; /* RESP_STATUS, _ERROR, _TEXT: NUL-terminated, and there may be NULs in it; else NULL */
    size_t size;      /* of the text */
    size_t n;         /* RESP_ARRAY */
    const struct resp *elements;
};

/* What an error reply says of the server. */
enum resp_fault {
    RESP_FAULT_NONE,       /* it is no error */
    RESP_FAULT_AUTH,       /* NOAUTH, WRONGPASS */
    RESP_FAULT_PERMISSION, /* NOPERM */
    RESP_FAULT_LOADING,
    RESP_FAULT_READONLY,   /* it is a replica */
    RESP_FAULT_MASTERDOWN, /* a replica without its master */
    RESP_FAULT_MEMORY,     /* OOM */
    RESP_FAULT_BUSY,       /* a script runs on and on */
    RESP_FAULT_CLUSTERDOWN,
    RESP_FAULT_MOVED,
    RESP_FAULT_ASK,
    RESP_FAULT_TRYAGAIN, /* a slot is being moved */
    RESP_FAULT_NOSCRIPT,
    RESP_FAULT_OTHER,
};
enum resp_fault resp_fault(const struct resp *reply);

/* Whether it is a text or status of just these octets. */
bool resp_is(const struct resp *reply, const char *text);
/* A text that is a whole number, in digits only, from 0 to `most`. */
bool resp_number(const struct resp *reply, uint64_t most, uint64_t *out);

struct resp_reader;

/* NULL: out of memory. */
struct resp_reader *resp_reader_create(void);
/* Clears the caller's pointer; NULL is fine. */
void resp_reader_free(struct resp_reader **reader);
/* Octets as they came. Call resp_reader_next() until it returns NULL before the next feed. */
void resp_reader_feed(struct resp_reader *reader, const void *octets, size_t size);
/* The next reply, whole; the reader's, until the next call of either. NULL: more octets are needed, or
 * resp_reader_error() says what is wrong, for good. */
const struct resp *resp_reader_next(struct resp_reader *reader);
/* "a reply of more than 65536 elements"; NULL: nothing is wrong. The reader's. */
const char *resp_reader_error(const struct resp_reader *reader);

/* Commands, one behind the other. Zeroed: none. */
struct resp_commands {
    char *octets;
    size_t size, capacity;
    unsigned n;
    bool failed; /* memory is out: what is there is not all */
};
/* A word of a command. */
struct resp_word {
    const char *text;
    size_t size;
};
void resp_commands_add(struct resp_commands *commands, const struct resp_word *words, size_t n);
/* The same of NUL-terminated words, at most 64: resp_commands_say(&commands, "GET", key). A word that is NULL
 * ends them. */
#define resp_commands_say(commands, ...)                                                                     \
    resp_commands_list(commands, (const char *const[]){ __VA_ARGS__, NULL })
void resp_commands_list(struct resp_commands *commands, const char *const *texts);
/* Forget them, and keep the memory; and the other way round. `resp_commands_free` wipes it, because a
 * password may have been in it. */
void resp_commands_clear(struct resp_commands *commands);
void resp_commands_free(struct resp_commands *commands);

#endif
