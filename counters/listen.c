/*
 * The others, in.
 *
 *     channel ──▶ snapshot ──▶ view        a gap in its numbers ──▶ resync, twice a second at most
 *     every 5 s, and when Redis is back: resync
 *         ZRANGE instances, HGETALL admin ──▶ of each id, in a MULTI: HGETALL instance, connections, health
 *
 * What the keys of an instance say is made a snapshot like any other (keys.c), and is news only if it is
 * newer than what the channel has brought. A key that is missing means nothing: it is silence that ends an
 * instance. Each is asked about in a transaction of its own: its keys were written in one, and an answer is
 * bounded.
 */
#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "counters/counters_internal.h"
#include "counters/keys.h"
#include "net/clock.h"
#include "net/log.h"

#define KEYS          3   /* that are read of an instance */
#define RESYNC_AGAIN  500 /* ms, at least, between two that messages ask for */
#define RESYNC_WINDOW 8   /* instances that are asked about at a time */

static void count(struct counters *c, uint64_t *counter)
{
    pthread_mutex_lock(&c->status_lock);
    (*counter)++;
    pthread_mutex_unlock(&c->status_lock);
}

/* Takes the snapshot over, or clears it. True: some before it were missed. */
static bool take(struct counters *c, struct snapshot *snapshot)
{
    bool own = strcmp(snapshot->id, c->id) == 0, gap = false;
    int64_t now = clock_milliseconds();

    if (own && (snapshot->started != c->started || snapshot->seq > c->seq))
        counters_rename(c, "another instance has this id");
    if (!own) {
        pooled_take(c, snapshot, now);
        switch (view_take(&c->view, snapshot, now)) {
        case VIEW_OLD: break;
        case VIEW_GAP: gap = c->news = true; break;
        case VIEW_NEWS: c->news = true; break;
        case VIEW_FULL: counters_complain(c, "instances", "there are too many"); break;
        }
    }
    snapshot_clear(snapshot);
    return gap;
}

/* --- the channel --- */

/* {"admin":1}: an operator has said something. */
static bool is_admin(const char *text, size_t size)
{
    static const char admin[] = "{\"admin\":1}";

    return size == sizeof admin - 1 && memcmp(text, admin, size) == 0;
}

void listen_message(void *arg, const char *text, size_t size)
{
    struct counters *c = arg;
    struct snapshot snapshot;
    bool other_schema, own;

    if (is_admin(text, size)) {
        c->resync_asked = true;
        return;
    }
    if (snapshot_parse(&snapshot, text, size, &other_schema)) {
        own = strcmp(snapshot.id, c->id) == 0;
        if (!own)
            count(c, &c->status.received);
        c->resync_asked |= take(c, &snapshot);
        if (own && !c->echoed) {
            c->echoed = true;
            counters_join(c);
        }
        return;
    }
    count(c, &c->status.refused);
    if (other_schema)
        counters_complain(c, "schema", "an instance of another version speaks another");
    else
        counters_complain(c, "snapshot", "malformed");
}

/* --- keys --- */

static void take_keys(struct counters *c, const char *id, const struct resp *hashes)
{
    struct snapshot snapshot;

    if (hashes[0].type == RESP_ARRAY && hashes[0].n == 0)
        return; /* gone, or silent: its lease will tell */
    if (keys_read(&snapshot, id, &hashes[0], &hashes[1], &hashes[2])) {
        (void)take(c, &snapshot); /* a gap is just what the keys have closed */
        return;
    }
    count(c, &c->status.refused);
    counters_complain(c, "keys of an instance", "malformed, or of another schema");
}

/* --- operators' words --- */

/* What is said of a backend by its own name goes before what is said of all that share one. */
struct words {
    char word[8];
    uint32_t weight;
    bool own_word, own_weight;
};

static void take_word(struct words *words, const struct resp *value, uint64_t weight, bool is_weight,
                      bool own)
{
    if (is_weight) {
        if (own || !words->own_weight)
            words->weight = (uint32_t)weight;
        words->own_weight |= own;
    } else if (!resp_is(value, "ready")) {
        if (own || !words->own_word)
            memcpy(words->word, value->text, value->size + 1);
        words->own_word |= own;
    }
}

/* A field is a backend's name, or that with ".weight" behind it. */
static void read_word(struct counters *c, struct words *words, const struct resp *field,
                      const struct resp *value)
{
    static const char suffix[] = ".weight";
    char name[SNAPSHOT_NAME_MAX + sizeof suffix];
    size_t size = field->size;
    bool weight;
    uint64_t number = 0;

    if (field->type != RESP_TEXT || size >= sizeof name || value->type != RESP_TEXT)
        return;
    memcpy(name, field->text, size + 1);
    weight = size > sizeof suffix - 1 && strcmp(name + size - (sizeof suffix - 1), suffix) == 0;
    if (weight)
        name[size - (sizeof suffix - 1)] = '\0';
    if (weight ? !resp_number(value, 1000, &number)
               : !resp_is(value, "ready") && !resp_is(value, "drain") && !resp_is(value, "maint")) {
        counters_complain(c, "admin", "a value is no word and no weight");
        return;
    }
    for (size_t i = 0; i < c->n; i++) {
        const struct backend *backend = c->counted[i].backend;
        bool own = strcmp(backend->full_name, name) == 0;

        if (own || strcmp(backend->configured_name, name) == 0)
            take_word(&words[i], value, number, weight, own);
    }
}

static void take_words(struct counters *c, const struct resp *hash)
{
    struct words *words;

    if (!keys_is_hash(hash)) {
        counters_complain(c, "admin", hash->type == RESP_ERROR ? hash->text : "it is no hash");
        return;
    }
    words = calloc(c->n ? c->n : 1, sizeof *words);
    if (!words)
        return;
    for (size_t i = 0; i < c->n; i++)
        words[i].weight = UINT32_MAX;
    for (size_t i = 0; i < hash->n; i += 2)
        read_word(c, words, &hash->elements[i], &hash->elements[i + 1]);
    for (size_t i = 0; i < c->n; i++) {
        struct counted *counted = &c->counted[i];

        if (strcmp(counted->word, words[i].word) == 0 && counted->weight == words[i].weight)
            continue;
        memcpy(counted->word, words[i].word, sizeof counted->word);
        counted->weight = words[i].weight;
        c->ops.word(c->ops.arg, counted->backend, counted->word[0] ? counted->word : NULL, counted->weight);
    }
    free(words);
}

/* --- what relays write of their queues --- */

/* Those that were asked about, held: a reload may have come in between. */
struct inquiry {
    struct inquiry *next; /* of the counters' */
    struct counters *c;
    size_t n;
    struct backend *backends[];
};

static void take_queue(struct counters *c, const struct backend *backend, const struct resp *hash)
{
    struct feedback heard, now;

    for (size_t i = 0; i < c->n; i++) {
        struct counted *counted = &c->counted[i];

        if (counted->backend != backend)
            continue;
        if (!feedback_read(hash, &heard))
            counters_complain(c, "queue of a relay", "malformed");
        now = feedback_settle(&counted->feedback, &heard);
        if (now.admin == counted->feedback.admin && now.share == counted->feedback.share)
            return;
        counted->feedback = now;
        c->ops.queue(c->ops.arg, counted->backend, now.admin, now.share);
    }
}

/* What was said so long ago says nothing. */
static void forget_queues(struct counters *c)
{
    for (size_t i = 0; i < c->n; i++) {
        struct feedback *feedback = &c->counted[i].feedback;

        if (feedback->admin == BACKEND_READY && feedback->share == FEEDBACK_ALL)
            continue;
        *feedback = (struct feedback){ .admin = BACKEND_READY, .share = FEEDBACK_ALL };
        c->ops.queue(c->ops.arg, c->counted[i].backend, feedback->admin, feedback->share);
    }
}

static void end_inquiry(struct inquiry *inquiry)
{
    struct inquiry **at = &inquiry->c->inquiries;

    while (*at != inquiry)
        at = &(*at)->next;
    *at = inquiry->next;
    while (inquiry->n)
        backend_release(&inquiry->backends[--inquiry->n]);
    free(inquiry);
}

void listen_forget(struct counters *c)
{
    c->resyncing = 0;
    free(c->resyncs);
    c->resyncs = NULL;
    c->n_resyncs = c->resyncs_asked = 0;
    while (c->inquiries)
        end_inquiry(c->inquiries);
}

static void on_queues(void *arg, const struct resp *reply, const char *error)
{
    struct inquiry *inquiry = arg;

    if (!error)
        inquiry->c->queues_at = clock_milliseconds();
    for (size_t i = 0; !error && reply->type == RESP_ARRAY && reply->n == inquiry->n && i < inquiry->n; i++)
        take_queue(inquiry->c, inquiry->backends[i], &reply->elements[i]);
    end_inquiry(inquiry);
}

/* A single one is not answered by an array of answers, so the first is asked for twice. */
static void ask_queues(struct counters *c)
{
    struct inquiry *inquiry = calloc(1, sizeof *inquiry + (c->n + 1) * sizeof(struct backend *));
    struct resp_commands commands = { 0 };
    char key[COUNTERS_KEY_MAX];

    if (!inquiry)
        return;
    inquiry->c = c;
    inquiry->next = c->inquiries;
    c->inquiries = inquiry;
    for (size_t i = 0; c->n && i <= c->n; i++) {
        size_t k = i < c->n ? i : 0;

        resp_commands_say(&commands, "HGETALL", counters_key(c, key, "queue", c->names[k]));
        inquiry->backends[inquiry->n++] = backend_hold(c->counted[k].backend);
    }
    if (!inquiry->n || !redis_send(c->commands, &commands, on_queues, inquiry))
        end_inquiry(inquiry);
    resp_commands_free(&commands);
}

/* --- resync --- */

static void ask_more(struct counters *c);

static void on_keys(void *arg, const struct resp *reply, const char *error)
{
    struct resync *resync = arg;
    struct counters *c = resync->c;

    c->resyncing--;
    if (error) {
        c->resync_lost = true;
    } else if (reply->type == RESP_ARRAY && reply->n == KEYS) {
        take_keys(c, resync->id, reply->elements);
    } else {
        counters_complain(c, "resync", reply->type == RESP_ERROR ? reply->text : "an odd reply");
        c->resync_refused = true;
    }
    ask_more(c);
    if (c->resyncing || c->resync_lost)
        return;
    if (!c->resync_refused)
        counters_complain(c, "resync", "");
    c->resynced = true;
    counters_join(c);
}

static bool ask_instance(struct counters *c, struct resync *resync)
{
    static const char *const keys[KEYS] = { "instance", "connections", "health" };
    struct resp_commands commands = { 0 };
    char key[COUNTERS_KEY_MAX];
    bool sent;

    for (size_t i = 0; i < KEYS; i++)
        resp_commands_say(&commands, "HGETALL", counters_key(c, key, keys[i], resync->id));
    sent = redis_send(c->commands, &commands, on_keys, resync);
    resp_commands_free(&commands);
    return sent;
}

/* A few at a time: with many instances of many backends the answers to all would be late, however fast they
 * came. */
static void ask_more(struct counters *c)
{
    while (!c->resync_lost && c->resyncing < RESYNC_WINDOW && c->resyncs_asked < c->n_resyncs) {
        if (ask_instance(c, &c->resyncs[c->resyncs_asked++]))
            c->resyncing++;
        else
            c->resync_lost = true;
    }
}

static void ask_keys(struct counters *c, const struct resp *ids)
{
    size_t n = ids->n < VIEW_PEERS ? ids->n : VIEW_PEERS;

    free(c->resyncs); /* all of the last time have been answered, or will not be asked any more */
    c->resyncs = calloc(n ? n : 1, sizeof *c->resyncs);
    c->n_resyncs = c->resyncs_asked = 0;
    c->resync_lost = c->resync_refused = false;
    for (size_t i = 0; c->resyncs && i < n; i++) {
        const struct resp *id = &ids->elements[i];
        struct resync *resync = &c->resyncs[c->n_resyncs];

        if (id->type != RESP_TEXT || !snapshot_id_valid(id->text, id->size))
            continue;
        resync->c = c;
        memcpy(resync->id, id->text, id->size + 1);
        c->n_resyncs++;
    }
    ask_more(c);
}

static void on_instances(void *arg, const struct resp *reply, const char *error)
{
    struct counters *c = arg;

    c->resyncing = 0;
    if (error)
        return;
    if (reply->type == RESP_ARRAY)
        ask_keys(c, reply);
    else
        counters_complain(c, "instances", reply->type == RESP_ERROR ? reply->text : "it is no sorted set");
    if (!c->resyncing && !c->resync_lost) { /* there is nobody to be asked about */
        c->resynced = true;
        counters_join(c);
    }
}

static void on_words(void *arg, const struct resp *reply, const char *error)
{
    if (!error)
        take_words(arg, reply);
}

/* Whoever sends messages makes others ask, all of them and for everything: not more often than they can. */
static bool is_resync_due(const struct counters *c, int64_t now)
{
    int64_t passed = now - c->resynced_at;

    return c->resync_due || passed >= COUNTERS_RESYNC || (c->resync_asked && passed >= RESYNC_AGAIN);
}

void listen_tick(struct counters *c, int64_t now)
{
    static const char last[] = "-1024"; /* VIEW_PEERS, those that were last heard of */
    struct resp_commands commands = { 0 };
    char key[COUNTERS_KEY_MAX];

    static_assert(VIEW_PEERS == 1024, "as many as are asked for");
    if (now - c->queues_at >= FEEDBACK_LIFE)
        forget_queues(c);
    if (redis_state(c->commands) != REDIS_READY || c->resyncing || !is_resync_due(c, now))
        return;
    c->resync_due = c->resync_asked = false;
    c->resynced_at = now;
    resp_commands_say(&commands, "HGETALL", counters_key(c, key, "admin", NULL));
    (void)redis_send(c->commands, &commands, on_words, c);
    resp_commands_clear(&commands);
    resp_commands_say(&commands, "ZRANGE", counters_key(c, key, "instances", NULL), last, "-1");
    c->resyncing = redis_send(c->commands, &commands, on_instances, c);
    resp_commands_free(&commands);
    ask_queues(c);
}
