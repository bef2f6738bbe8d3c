#include "counters/clients_redis.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ASK_AGAIN   1000        /* ms, about a client that is near its limit; a third of a lease at most */
#define AUDIT_EVERY 1000        /* ms */
#define REST        1000        /* ms, after Redis has refused a batch */
#define NOPERM_REST (60 * 1000) /* ms, when it is a right that is missing */
#define MEMBERS_MAX 512         /* of one key that are read, the largest counts first */
#define LEFTOVERS   8           /* of instances that are gone, beside as many as live: more are removed */
#define CLEARED_MAX 2048        /* of them at a time, so that what is said stays far below REDIS_UNSENT_MAX */
#define PREFIX_MAX  96
#define KEY_MAX     (PREFIX_MAX + sizeof "clients:" + 64 + 1 + ADDRESS_TEXT_MAX)

static_assert((size_t)2 * CLIENTS_BATCH * MEMBERS_MAX * (sizeof(struct resp) + SNAPSHOT_ID_MAX) <=
                  RESP_MEMORY_MAX,
              "the longest reply can be read");
static_assert(2 * MEMBERS_MAX <= RESP_ELEMENTS_MAX, "as above");

struct clients_redis {
    struct clients *table;
    const struct view *view;
    clients_redis_complain *complain;
    void *arg;
    struct redis *redis;
    char prefix[PREFIX_MAX], id[SNAPSHOT_ID_MAX];
    bool sharing;
    int64_t joined;      /* the view's, when sharing began */
    uint32_t instances;  /* at the last tick */
    int64_t rests_until; /* Redis has refused something */
    bool disbelieves;    /* until then: counts that can't be taken back are not worth having */
    int64_t audited;
    struct resp_commands commands; /* scratch */
    bool out;                      /* the batch is */
    bool renamed;                  /* since it went */
    int64_t at;
    size_t cleared; /* leftovers, of this batch */
    size_t n;
    struct client_item items[CLIENTS_BATCH];
};

/* --- what is believed --- */

/* As the view does: what is fresh, what was so when Redis went, nothing. A Redis that hangs is not known to
 * have gone before an answer is late, and what was fresh when it began must still be so then. */
static void believe(struct clients_redis *r, int64_t now)
{
    if (r->disbelieves) {
        clients_believe(r->table, INT64_MAX);
        return;
    }
    switch (r->view->state) {
    case COUNTERS_OFF:
    case COUNTERS_LOCAL: clients_believe(r->table, INT64_MAX); break;
    case COUNTERS_HELD: break;
    case COUNTERS_SHARED:
    case COUNTERS_REJOIN: clients_believe(r->table, now - r->view->lease - REDIS_ANSWER_LIMIT); break;
    }
}

/* --- what comes back --- */

/* The ids that count at the moment. */
struct living {
    size_t n;
    const char *ids[VIEW_PEERS];
};

static int by_id(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void list_living(const struct view *view, int64_t now, struct living *living)
{
    living->n = 0;
    for (size_t i = 0; i < view->n; i++)
        if (view_counts(view, &view->peers[i], now))
            living->ids[living->n++] = view->peers[i].last.id;
    qsort(living->ids, living->n, sizeof *living->ids, by_id);
}

static bool lives(const struct living *living, const char *id)
{
    return living->n && bsearch(&id, living->ids, living->n, sizeof *living->ids, by_id);
}

/* Members that count for nothing, to be removed if there are many. */
struct leftovers {
    size_t n;
    struct resp_word words[2 + MEMBERS_MAX];
};

static const char *key_of(const struct clients_redis *r, const struct client_item *item, char key[KEY_MAX])
{
    (void)snprintf(key, KEY_MAX, "%sclients:%s", r->prefix, item->who);
    return key;
}

/* There is a dead member for each time that an instance was killed while it had this client, and the key
 * lives on with the client. One of an instance that lives, and was not heard yet, is told again in time. */
static void clear_away(struct clients_redis *r, const struct client_item *item, struct leftovers *leftovers,
                       const struct living *living)
{
    char key[KEY_MAX];

    if (r->view->state != COUNTERS_SHARED || leftovers->n <= living->n + LEFTOVERS ||
        r->cleared + leftovers->n > CLEARED_MAX)
        return;
    r->cleared += leftovers->n;
    leftovers->words[0] = (struct resp_word){ "ZREM", 4 };
    leftovers->words[1].text = key_of(r, item, key);
    leftovers->words[1].size = strlen(key);
    resp_commands_clear(&r->commands);
    resp_commands_add(&r->commands, leftovers->words, 2 + leftovers->n);
    (void)redis_send(r->redis, &r->commands, NULL, NULL);
}

static bool read_member(const struct resp *member, const struct resp *score, uint64_t *count)
{
    return member->type == RESP_TEXT && snapshot_id_valid(member->text, member->size) &&
           resp_number(score, SNAPSHOT_COUNT_MAX, count);
}

/* The sum of the others'. */
static uint32_t add_up(struct clients_redis *r, const struct client_item *item, const struct resp *members,
                       const struct living *living)
{
    struct leftovers leftovers;
    uint64_t sum = 0, count;

    leftovers.n = 0; /* the words are many */
    for (size_t i = 0; i + 1 < members->n && i < 2 * MEMBERS_MAX; i += 2) {
        const struct resp *member = &members->elements[i];
        bool good = read_member(member, &members->elements[i + 1], &count);

        if (!good)
            r->complain(r->arg, "count of a client", "malformed");
        if (good && strcmp(member->text, r->id) == 0)
            continue;
        if (good && lives(living, member->text))
            sum += count; /* MEMBERS_MAX times SNAPSHOT_COUNT_MAX fits */
        else if (member->type == RESP_TEXT && member->size < SNAPSHOT_ID_MAX) /* no Weir wrote a longer one */
            leftovers.words[2 + leftovers.n++] = (struct resp_word){ member->text, member->size };
    }
    clear_away(r, item, &leftovers, living);
    return (uint32_t)sum;
}

/* How many replies there are to what is said of one. */
static size_t replies(const struct client_item *item)
{
    return item->sessions ? 3 : item->there ? 2 : 1;
}

static const struct resp *refusal(const struct resp *elements, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (elements[i].type == RESP_ERROR)
            return &elements[i];
    return NULL;
}

/* True: what Redis had of us is lost. */
static bool take(struct clients_redis *r, const struct client_item *item, const struct resp *elements,
                 const struct living *living)
{
    size_t n = replies(item);
    const struct resp *members = &elements[n - 1], *refused = refusal(elements, n);

    if (refused || members->type != RESP_ARRAY) {
        /* Of another type it is this key's affair. */
        bool key = !refused || resp_fault(refused) == RESP_FAULT_OTHER;

        r->complain(r->arg, "clients", refused ? refused->text : "an odd reply");
        clients_answer(r->table, item, key ? CLIENT_REFUSED : CLIENT_UNANSWERED, 0, r->at);
        return false;
    }
    clients_answer(r->table, item, CLIENT_TOLD, add_up(r, item, members, living), r->at);
    return item->sessions && item->settled && elements->type == RESP_INTEGER && elements->integer == 1;
}

static size_t all_replies(const struct clients_redis *r)
{
    size_t n = 0;

    for (size_t i = 0; i < r->n; i++)
        n += replies(&r->items[i]);
    return n;
}

static void take_all(struct clients_redis *r, const struct resp *elements)
{
    struct living living;
    bool lost = false;

    list_living(r->view, r->at, &living);
    r->cleared = 0;
    for (size_t i = 0; i < r->n; i++) {
        size_t n = replies(&r->items[i]); /* the item is gone when it is answered */

        lost |= take(r, &r->items[i], elements, &living);
        elements += n;
    }
    if (lost) {
        clients_doubt(r->table);
        clients_look(r->table, r->at, 0);
    }
    r->disbelieves = false;
}

static void give_up(struct clients_redis *r)
{
    for (size_t i = 0; i < r->n; i++)
        clients_answer(r->table, &r->items[i], CLIENT_UNANSWERED, 0, r->at);
}

/* Whether each command has a reply of its own. A single one is no transaction: what is not its key's affair
 * is a refusal of all. */
static bool is_whole(const struct resp *reply, size_t n)
{
    enum resp_fault fault = resp_fault(reply);

    if (n == 1)
        return fault == RESP_FAULT_NONE || fault == RESP_FAULT_OTHER;
    return reply->type == RESP_ARRAY && reply->n == n;
}

static void on_batch(void *arg, const struct resp *reply, const char *error)
{
    struct clients_redis *r = arg;
    size_t n = all_replies(r);

    r->out = false;
    if (!error && !r->renamed && is_whole(reply, n)) {
        take_all(r, n == 1 ? reply : reply->elements);
        return;
    }
    give_up(r);
    if (error || r->renamed)
        return; /* the connection says why; or it will be told again under the other id */
    r->disbelieves = resp_fault(reply) == RESP_FAULT_PERMISSION;
    r->rests_until = r->at + (r->disbelieves ? NOPERM_REST : REST);
    believe(r, r->at);
    r->complain(r->arg, "clients", reply->type == RESP_ERROR ? reply->text : "an odd reply");
}

/* --- what goes out --- */

static void say(struct clients_redis *r, const struct client_item *item)
{
    static const char most[] = "511", life[] = "600000";
    char key[KEY_MAX], number[16];

    static_assert(MEMBERS_MAX == 512 && CLIENTS_LIFE == 600000, "as is said here");
    key_of(r, item, key);
    if (item->sessions) {
        (void)snprintf(number, sizeof number, "%" PRIu32, item->sessions);
        resp_commands_say(&r->commands, "ZADD", key, number, r->id);
        resp_commands_say(&r->commands, "PEXPIRE", key, life);
    } else if (item->there) {
        resp_commands_say(&r->commands, "ZREM", key, r->id);
    }
    resp_commands_say(&r->commands, "ZRANGE", key, "0", most, "REV", "WITHSCORES");
}

static void send_batch(struct clients_redis *r, int64_t now)
{
    r->at = now;
    r->renamed = false;
    r->n = clients_take(r->table, r->items, CLIENTS_BATCH);
    if (!r->n)
        return;
    resp_commands_clear(&r->commands);
    for (size_t i = 0; i < r->n; i++)
        say(r, &r->items[i]);
    r->out = redis_send(r->redis, &r->commands, on_batch, r);
    if (!r->out)
        give_up(r);
}

/* --- the tick --- */

static bool is_shared(const struct clients_redis *r, int64_t now)
{
    return r->redis && redis_state(r->redis) == REDIS_READY && now >= r->rests_until &&
           (r->view->state == COUNTERS_SHARED || r->view->state == COUNTERS_REJOIN);
}

static void tell(struct clients_redis *r, int64_t now, int64_t period)
{
    uint32_t instances = view_instances(r->view, now);

    if (!r->sharing || r->joined != r->view->joined) {
        /* Redis may have lost all, or be another one. */
        r->joined = r->view->joined;
        r->sharing = true;
        clients_share(r->table, true);
        clients_doubt(r->table);
        clients_look(r->table, now, 0);
    } else if (instances != r->instances) {
        clients_look(r->table, now, 0);
    }
    r->instances = instances;
    clients_look(r->table, now, period);
    if (now - r->audited >= AUDIT_EVERY) {
        r->audited = now;
        clients_audit(r->table);
    }
    if (!r->out)
        send_batch(r, now);
}

static void stop(struct clients_redis *r)
{
    if (r->sharing)
        clients_share(r->table, false);
    r->sharing = false;
}

void clients_redis_tick(struct clients_redis *r, int64_t now)
{
    int64_t period;

    if (!r)
        return;
    period = r->view->lease / 3 < ASK_AGAIN ? r->view->lease / 3 : ASK_AGAIN;
    believe(r, now);
    if (is_shared(r, now)) {
        tell(r, now, period);
        return;
    }
    stop(r);
    clients_look(r->table, now, period);
}

/* --- life --- */

struct clients_redis *clients_redis_create(struct clients *table, const struct view *view, const char *id,
                                           clients_redis_complain *complain, void *arg)
{
    struct clients_redis *r = calloc(1, sizeof *r);

    if (!r)
        return NULL;
    r->table = table;
    r->view = view;
    r->complain = complain;
    r->arg = arg;
    clients_redis_set_id(r, id);
    return r;
}

void clients_redis_set_id(struct clients_redis *r, const char *id)
{
    if (!r)
        return;
    (void)snprintf(r->id, sizeof r->id, "%s", id);
    r->renamed = true;
    clients_doubt(r->table);
}

void clients_redis_use(struct clients_redis *r, struct redis *commands, const char *prefix)
{
    if (!r)
        return;
    if (r->out)
        give_up(r);
    r->out = false;
    stop(r);
    r->redis = commands;
    r->rests_until = 0;
    r->disbelieves = false;
    (void)snprintf(r->prefix, sizeof r->prefix, "%s", prefix);
    if (!commands)
        clients_believe(r->table, INT64_MAX);
}

void clients_redis_free(struct clients_redis **held)
{
    struct clients_redis *r = *held;

    *held = NULL;
    if (!r)
        return;
    clients_redis_use(r, NULL, "");
    resp_commands_free(&r->commands);
    free(r);
}
