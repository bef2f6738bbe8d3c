#include "counters/resp.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

/*
 * hiredis calls back for each element, with the chain of arrays around it; here it becomes a tree whose
 * arrays grow as their elements come. An element that is an array is always the last of the array around it
 * while it is being filled: what `task->obj` points to does not move.
 *
 * An array that gets too large becomes an error in its place, and swallows what is still to come of it. So a
 * key that somebody has filled spoils the one answer and not the connection.
 */

#define WORDS_MAX      65 /* of resp_commands_list() */
#define ELEMENTS_FIRST 4  /* room in an array at its first element; then it doubles */

/* Of what was given up: nobody's memory. */
static const char too_long[] = "a reply of more than 65536 elements",
                  too_much[] = "a reply of more than 16 MiB";

struct resp_reader {
    redisReader *hiredis;
    struct resp *reply; /* the last one handed out */
    size_t memory;      /* octets of the reply that is being read */
    char error[160];
};

static void *refuse(const redisReadTask *task, const char *why)
{
    struct resp_reader *reader = task->privdata;

    if (!*reader->error)
        memcpy(reader->error, why, strlen(why) + 1);
    return NULL;
}

/* --- the tree ------------------------------------------------------------------------------------------- */

static bool is_given_up(const struct resp *resp)
{
    return resp->text == too_long || resp->text == too_much;
}

static void clear(struct resp *resp)
{
    for (size_t i = 0; i < resp->n; i++)
        clear((struct resp *)&resp->elements[i]);
    free((void *)resp->elements);
    if (!is_given_up(resp))
        free((void *)resp->text);
}

static void free_reply(void *reply)
{
    if (!reply)
        return;
    clear(reply);
    free(reply);
}

/* Whether the reply may take that much more. */
static bool charge(struct resp_reader *reader, size_t octets)
{
    if (octets > RESP_MEMORY_MAX - reader->memory)
        return false;
    reader->memory += octets;
    return true;
}

/* Room in an array of so many elements: ELEMENTS_FIRST times a power of two. */
static size_t room_of(size_t n)
{
    size_t room = n ? ELEMENTS_FIRST : 0;

    while (room < n)
        room *= 2;
    return room;
}

/* What was charged for it. */
static size_t weight(const struct resp *resp)
{
    size_t octets = room_of(resp->n) * sizeof *resp;

    if (resp->text && !is_given_up(resp))
        octets += resp->size + 1;
    for (size_t i = 0; i < resp->n; i++)
        octets += weight(&resp->elements[i]);
    return octets;
}

/* The array becomes an error. */
static struct resp *give_up(const redisReadTask *task, struct resp *array, const char *why)
{
    struct resp_reader *reader = task->privdata;

    reader->memory -= weight(array);
    clear(array);
    *array = (struct resp){ .type = RESP_ERROR, .text = why, .size = strlen(why) };
    return array;
}

/* Room for one more: the array, or what has become of it. */
static struct resp *make_room(const redisReadTask *task, struct resp *array)
{
    size_t n = array->n, room = room_of(n + 1);
    struct resp *grown;

    if (n && room == room_of(n))
        return array;
    if (!charge(task->privdata, (room - room_of(n)) * sizeof *grown))
        return give_up(task, array, too_much);
    grown = realloc((void *)array->elements, room * sizeof *grown);
    if (!grown)
        return refuse(task, "out of memory");
    array->elements = grown;
    return array;
}

/* A place in the array around it, or that of the whole reply; an array that was given up, if that is around
 * it. */
static struct resp *place(const redisReadTask *task, enum resp_type type)
{
    struct resp_reader *reader = task->privdata;
    struct resp *resp, *array;

    if (!task->parent) {
        reader->memory = 0;
        resp = malloc(sizeof *resp);
        if (!resp)
            return refuse(task, "out of memory");
    } else {
        array = task->parent->obj;
        if (array->type == RESP_ARRAY)
            array = make_room(task, array);
        if (!array || array->type != RESP_ARRAY)
            return array;
        resp = (struct resp *)&array->elements[array->n++];
    }
    *resp = (struct resp){ .type = type };
    return resp;
}

/* The place is none: the array around it was given up. */
static bool is_swallowed(const redisReadTask *task, const struct resp *place)
{
    return task->parent && place == task->parent->obj;
}

/* --- what hiredis calls --------------------------------------------------------------------------------- */

static void *create_string(const redisReadTask *task, char *text, size_t size)
{
    enum resp_type type;
    struct resp *resp;
    char *copy;

    switch (task->type) {
    case REDIS_REPLY_STRING: type = RESP_TEXT; break;
    case REDIS_REPLY_STATUS: type = RESP_STATUS; break;
    case REDIS_REPLY_ERROR: type = RESP_ERROR; break;
    default: return refuse(task, "a reply of a later protocol");
    }
    if (size > RESP_UNPARSED_MAX)
        return refuse(task, "more than 4 MiB in one text");
    resp = place(task, type);
    if (!resp || resp->type != type || (task->parent && resp == task->parent->obj))
        return resp;                       /* nobody wants it any more */
    if (!charge(task->privdata, size + 1)) /* it is not all there is */
        return give_up(task, task->parent->obj, too_much);
    copy = malloc(size + 1);
    if (!copy) {
        /* What stands in the tree already is freed with it; a text that is all there is, is not. */
        if (!task->parent)
            free(resp);
        return refuse(task, "out of memory");
    }
    memcpy(copy, text, size);
    copy[size] = '\0';
    resp->text = copy;
    resp->size = size;
    return resp;
}

static void *create_counted_array(const redisReadTask *task, size_t n)
{
    struct resp *resp;
    int depth = 1;

    if (task->type != REDIS_REPLY_ARRAY)
        return refuse(task, "a reply of a later protocol");
    if (n > RESP_SKIPPED_MAX)
        return refuse(task, "a reply of more than 1048576 elements");
    for (const redisReadTask *around = task->parent; around; around = around->parent)
        depth++;
    if (depth > RESP_DEPTH_MAX)
        return refuse(task, "a reply nested more than 7 deep");
    resp = place(task, RESP_ARRAY);
    if (resp && !is_swallowed(task, resp) && n > RESP_ELEMENTS_MAX)
        resp = give_up(task, resp, too_long);
    return resp;
}

static void *create_integer(const redisReadTask *task, long long integer)
{
    struct resp *resp = place(task, RESP_INTEGER);

    if (resp && !is_swallowed(task, resp))
        resp->integer = integer;
    return resp;
}

static void *create_nil(const redisReadTask *task)
{
    return place(task, RESP_NIL);
}

/* hiredis 1 has more to call, and counts otherwise. */
#ifdef REDIS_REPLY_DOUBLE
static void *create_array(const redisReadTask *task, size_t n)
{
    return create_counted_array(task, n);
}

static void *create_double(const redisReadTask *task, double number, char *text, size_t size)
{
    (void)number;
    (void)text;
    (void)size;
    return refuse(task, "a reply of a later protocol");
}

static void *create_bool(const redisReadTask *task, int truth)
{
    (void)truth;
    return refuse(task, "a reply of a later protocol");
}
#else
static void *create_array(const redisReadTask *task, int n)
{
    return create_counted_array(task, (size_t)n);
}
#endif

static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
#ifdef REDIS_REPLY_DOUBLE
    .createDouble = create_double,
    .createBool = create_bool,
#endif
    .createNil = create_nil,
    .freeObject = free_reply,
};

/* --- the reader ----------------------------------------------------------------------------------------- */

struct resp_reader *resp_reader_create(void)
{
    struct resp_reader *reader = calloc(1, sizeof *reader);

    if (!reader)
        return NULL;
    reader->hiredis = redisReaderCreateWithFunctions(&functions);
    if (!reader->hiredis) {
        free(reader);
        return NULL;
    }
    reader->hiredis->privdata = reader;
    return reader;
}

void resp_reader_free(struct resp_reader **reader)
{
    struct resp_reader *gone = *reader;

    *reader = NULL;
    if (!gone)
        return;
    free_reply(gone->reply);
    redisReaderFree(gone->hiredis);
    free(gone);
}

static void fail(struct resp_reader *reader, const char *why)
{
    if (!*reader->error)
        (void)stpncpy(reader->error, why, sizeof reader->error - 1);
}

void resp_reader_feed(struct resp_reader *reader, const void *octets, size_t size)
{
    if (*reader->error || size == 0)
        return;
    if (redisReaderFeed(reader->hiredis, octets, size) != REDIS_OK)
        fail(reader, reader->hiredis->errstr);
}

/* What waits for its end. A text (its type's octet may have been taken already) waits for its octets, all
 * else for the end of a line. */
static void check_unparsed(struct resp_reader *reader)
{
    const redisReader *hiredis = reader->hiredis;
    size_t unparsed = hiredis->len - hiredis->pos;

    if (unparsed > RESP_UNPARSED_MAX)
        fail(reader, "more than 4 MiB in one text");
    else if (unparsed > RESP_LINE_MAX && !memmem(hiredis->buf + hiredis->pos, 64, "\r\n", 2))
        fail(reader, "a line of more than 64 KiB");
}

const struct resp *resp_reader_next(struct resp_reader *reader)
{
    void *reply = NULL;

    free_reply(reader->reply);
    reader->reply = NULL;
    if (*reader->error)
        return NULL;
    if (redisReaderGetReply(reader->hiredis, &reply) != REDIS_OK) {
        fail(reader, reader->hiredis->errstr);
        return NULL;
    }
    reader->reply = reply;
    if (!reply)
        check_unparsed(reader);
    return reply;
}

const char *resp_reader_error(const struct resp_reader *reader)
{
    return *reader->error ? reader->error : NULL;
}

/* --- errors --------------------------------------------------------------------------------------------- */

static const struct {
    const char *word; /* the reply's first */
    enum resp_fault fault;
} faults[] = {
    {"NOAUTH",       RESP_FAULT_AUTH       },
    { "WRONGPASS",   RESP_FAULT_AUTH       },
    { "NOPERM",      RESP_FAULT_PERMISSION },
    { "LOADING",     RESP_FAULT_LOADING    },
    { "READONLY",    RESP_FAULT_READONLY   },
    { "MASTERDOWN",  RESP_FAULT_MASTERDOWN },
    { "OOM",         RESP_FAULT_MEMORY     },
    { "BUSY",        RESP_FAULT_BUSY       },
    { "CLUSTERDOWN", RESP_FAULT_CLUSTERDOWN},
    { "MOVED",       RESP_FAULT_MOVED      },
    { "ASK",         RESP_FAULT_ASK        },
    { "TRYAGAIN",    RESP_FAULT_TRYAGAIN   },
    { "NOSCRIPT",    RESP_FAULT_NOSCRIPT   },
};

enum resp_fault resp_fault(const struct resp *reply)
{
    size_t size;

    if (reply->type != RESP_ERROR)
        return RESP_FAULT_NONE;
    size = strcspn(reply->text, " ");
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        if (strlen(faults[i].word) == size && memcmp(faults[i].word, reply->text, size) == 0)
            return faults[i].fault;
    return RESP_FAULT_OTHER;
}

bool resp_is(const struct resp *reply, const char *text)
{
    return (reply->type == RESP_TEXT || reply->type == RESP_STATUS) && reply->size == strlen(text) &&
           memcmp(reply->text, text, reply->size) == 0;
}

bool resp_number(const struct resp *reply, uint64_t most, uint64_t *out)
{
    char *end;

    if (reply->type != RESP_TEXT || reply->size == 0 || reply->size > 20 || reply->text[0] < '0' ||
        reply->text[0] > '9')
        return false;
    errno = 0;
    *out = strtoull(reply->text, &end, 10);
    return !errno && end == reply->text + reply->size && *out <= most;
}

/* --- commands ------------------------------------------------------------------------------------------- */

static bool append(struct resp_commands *commands, const char *octets, size_t size)
{
    size_t capacity = commands->capacity ? commands->capacity : 512;
    char *grown;

    while (capacity - commands->size < size)
        capacity *= 2;
    if (capacity != commands->capacity) {
        grown = malloc(capacity); /* realloc() would leave copies of secrets behind */
        if (!grown)
            return false;
        if (commands->octets) {
            memcpy(grown, commands->octets, commands->size);
            explicit_bzero(commands->octets, commands->size);
        }
        free(commands->octets);
        commands->octets = grown;
        commands->capacity = capacity;
    }
    memcpy(commands->octets + commands->size, octets, size);
    commands->size += size;
    return true;
}

void resp_commands_add(struct resp_commands *commands, const struct resp_word *words, size_t n)
{
    const char **texts = malloc(n * sizeof *texts);
    size_t *sizes = malloc(n * sizeof *sizes);
    char *octets = NULL;
    long long size = -1;

    if (texts && sizes) {
        for (size_t i = 0; i < n; i++) {
            texts[i] = words[i].text;
            sizes[i] = words[i].size;
        }
        size = redisFormatCommandArgv(&octets, (int)n, texts, sizes);
    }
    if (size < 0 || !append(commands, octets, (size_t)size))
        commands->failed = true;
    commands->n++;
    if (size >= 0) {
        explicit_bzero(octets, (size_t)size);
        redisFreeCommand(octets);
    }
    free(texts);
    free(sizes);
}

void resp_commands_list(struct resp_commands *commands, const char *const *texts)
{
    struct resp_word words[WORDS_MAX];
    size_t n = 0;

    for (; n < WORDS_MAX && texts[n]; n++)
        words[n] = (struct resp_word){ texts[n], strlen(texts[n]) };
    if (n == WORDS_MAX)
        commands->failed = true;
    else
        resp_commands_add(commands, words, n);
}

void resp_commands_clear(struct resp_commands *commands)
{
    if (commands->octets)
        explicit_bzero(commands->octets, commands->size);
    commands->size = commands->n = 0;
    commands->failed = false;
}

void resp_commands_free(struct resp_commands *commands)
{
    resp_commands_clear(commands);
    free(commands->octets);
    *commands = (struct resp_commands){ .octets = NULL };
}
