#include "health/names.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/log.h"
#include "net/resolver.h"

struct entry {
    struct entry *next;
    struct names *names;
    char *host;
    uint16_t port;
    struct name_answer answer;
    ev_timer timer;               /* the next question */
    ev_tstamp asked;              /* the last one */
    struct resolver_answer *half; /* of one family, while the other is asked for once more */
    bool asking;                  /* the resolver will call back */
    bool wanted;                  /* the configuration has it */
    bool failing;                 /* said in the log, as are … */
    bool refused;                 /* … addresses that are of no use … */
    bool overflowing;             /* … and those beyond the most that are taken */
};

struct names {
    struct ev_loop *loop;
    void (*changed)(void *arg);
    void *arg;
    struct config *config;     /* held; NULL before the first */
    struct resolver *resolver; /* NULL: none could be had */
    struct entry *entries;
};

static void ask(struct entry *entry);

static void arm(struct entry *entry, ev_tstamp seconds)
{
    ev_timer_stop(entry->names->loop, &entry->timer);
    ev_timer_set(&entry->timer, seconds, 0.);
    ev_timer_start(entry->names->loop, &entry->timer);
}

/* --- what an answer says --- */

/* Nothing to connect to, whoever says so. A mapped IPv4 address would be a second name for the same relay,
 * and a link-local one says nothing without its interface. */
static bool is_useful(const struct address *address)
{
    const struct in6_addr *ip = &address->in6.sin6_addr;

    if (address->sa.sa_family == AF_INET) {
        uint32_t number = ntohl(address->in.sin_addr.s_addr);

        return number >> 24 != 0 && number >> 28 < 14; /* 0.0.0.0/8; 224.0.0.0/4 and what is above */
    }
    return !IN6_IS_ADDR_UNSPECIFIED(ip) && !IN6_IS_ADDR_MULTICAST(ip) && !IN6_IS_ADDR_V4MAPPED(ip) &&
           !IN6_IS_ADDR_LINKLOCAL(ip);
}

static void set_port(struct address *address, uint16_t port)
{
    if (address->sa.sa_family == AF_INET6)
        address->in6.sin6_port = htons(port);
    else
        address->in.sin_port = htons(port);
}

static void say(const struct entry *entry, enum log_level level, const char *what, const char *detail)
{
    struct log_record line;

    if (!log_begin(&line, level, "backend-name"))
        return;
    log_string(&line, "name", entry->host);
    log_string(&line, "what", what);
    if (detail)
        log_string(&line, "detail", detail);
    log_end(&line);
}

/* Each of these is said when it begins, not with every answer. */
static void say_once(const struct entry *entry, bool *said, bool is, const char *what, const char *detail)
{
    if (is && !*said)
        say(entry, LOG_LEVEL_WARNING, what, detail);
    *said = is;
}

/* The useful addresses with their port, sorted as they come; their number. */
static size_t read_answer(struct entry *entry, const struct resolver_answer *found,
                          struct address out[RESOLVER_ADDRESSES_MAX])
{
    char text[ADDRESS_TEXT_MAX] = "";
    size_t n = 0;

    for (size_t i = 0; i < found->n; i++) {
        out[n] = found->addresses[i];
        set_port(&out[n], entry->port);
        if (is_useful(&out[n]))
            n++;
        else
            address_format(&out[n], text);
    }
    say_once(entry, &entry->refused, text[0] != '\0', "an address that no relay can have is left out", text);
    (void)snprintf(text, sizeof text, "%d", RESOLVER_ADDRESSES_MAX);
    say_once(entry, &entry->overflowing, found->more, "of its addresses only so many are used, the lowest",
             text);
    return n;
}

static bool is_same(const struct name_answer *answer, const struct address *addresses, size_t n)
{
    if (answer->n != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!address_equal(&answer->addresses[i], &addresses[i]))
            return false;
    return true;
}

static void not_resolved(struct entry *entry, const char *error)
{
    struct name_answer *answer = &entry->answer;
    bool news = !answer->n && !answer->error;

    arm(entry, NAMES_RETRY);
    /* Without an answer there is a backend that goes DOWN, which is in the log. */
    say_once(entry, &entry->failing, answer->n > 0, "it does not resolve; its last answer holds", error);
    if (!answer->n)
        answer->error = error;
    if (news)
        entry->names->changed(entry->names->arg);
}

static void resolved(struct entry *entry, const struct resolver_answer *found)
{
    struct address addresses[RESOLVER_ADDRESSES_MAX], *kept;
    size_t n = read_answer(entry, found, addresses);
    uint32_t ttl = found->ttl;

    if (n == 0) {
        not_resolved(entry, "none of its addresses is one that a relay can have");
        return;
    }
    if (entry->failing)
        say(entry, LOG_LEVEL_INFO, "it resolves again", NULL);
    entry->failing = false;
    arm(entry, ttl < NAMES_TTL_LEAST ? NAMES_TTL_LEAST : ttl > NAMES_TTL_MOST ? NAMES_TTL_MOST : ttl);
    if (is_same(&entry->answer, addresses, n))
        return;
    kept = malloc(n * sizeof *kept);
    if (!kept) {
        not_resolved(entry, "out of memory");
        return;
    }
    memcpy(kept, addresses, n * sizeof *kept);
    free(entry->answer.addresses);
    entry->answer = (struct name_answer){ .n = n, .addresses = kept };
    entry->names->changed(entry->names->arg);
}

/* --- asking --- */

static void free_entry(struct entry *entry)
{
    ev_timer_stop(entry->names->loop, &entry->timer);
    free(entry->half);
    free(entry->answer.addresses);
    free(entry->host);
    free(entry);
}

/* The family of which the last answer has addresses and this one has none; 0: neither. */
static int lost_family(const struct entry *entry, const struct resolver_answer *found)
{
    bool had[2] = { false }, has[2] = { false };

    for (size_t i = 0; i < entry->answer.n; i++)
        had[entry->answer.addresses[i].sa.sa_family == AF_INET6] = true;
    for (size_t i = 0; i < found->n; i++)
        has[found->addresses[i].sa.sa_family == AF_INET6] = true;
    return had[0] && !has[0] ? AF_INET : had[1] && !has[1] ? AF_INET6 : 0;
}

/* IPv4 first, as ever. */
static void join(struct resolver_answer *whole, const struct address *others, size_t n, int family)
{
    size_t room = RESOLVER_ADDRESSES_MAX;

    if (family == AF_INET) {
        size_t moved = whole->n < room - n ? whole->n : room - n;

        whole->more = whole->more || moved < whole->n;
        memmove(&whole->addresses[n], whole->addresses, moved * sizeof *others);
        memcpy(whole->addresses, others, n * sizeof *others);
        whole->n = n + moved;
    } else {
        size_t added = n < room - whole->n ? n : room - whole->n;

        whole->more = whole->more || added < n;
        memcpy(&whole->addresses[whole->n], others, added * sizeof *others);
        whole->n += added;
    }
}

/* What it had of this family holds, unless a name server says otherwise. */
static void on_other_half(void *arg, const char *error, const struct resolver_answer *answer)
{
    struct entry *entry = arg;
    struct resolver_answer *whole = entry->half;
    int family = lost_family(entry, whole);
    const struct address *kept = entry->answer.addresses;
    size_t n = 0;

    entry->asking = false;
    entry->half = NULL;
    if (answer) {
        join(whole, answer->addresses, answer->n, family);
        if (answer->ttl < whole->ttl)
            whole->ttl = answer->ttl;
    } else if (!resolver_denied(error)) {
        while (n < entry->answer.n && kept->sa.sa_family != family) /* they are sorted: one run */
            kept++, n++;
        n = entry->answer.n - n;
        while (n > 0 && kept[n - 1].sa.sa_family != family)
            n--;
        join(whole, kept, n, family);
        whole->ttl = NAMES_RETRY;
    }
    if (entry->wanted)
        resolved(entry, whole);
    free(whole);
}

/* A whole family has gone. It may only be that the question for it failed, which an answer does not say. */
static bool ask_for_other_half(struct entry *entry, const struct resolver_answer *found)
{
    int family = lost_family(entry, found);

    entry->half = family ? malloc(sizeof *entry->half) : NULL;
    if (!entry->half)
        return false;
    *entry->half = *found;
    entry->asking = resolver_query_family(entry->names->resolver, entry->host, family, on_other_half, entry);
    if (entry->asking)
        return true;
    free(entry->half);
    entry->half = NULL;
    return false;
}

static void on_answer(void *arg, const char *error, const struct resolver_answer *answer)
{
    struct entry *entry = arg;

    entry->asking = false;
    if (!entry->wanted)
        return; /* goes with the next reload */
    if (answer && ask_for_other_half(entry, answer))
        return;
    if (answer)
        resolved(entry, answer);
    else
        not_resolved(entry, error);
}

static void ask(struct entry *entry)
{
    struct resolver *resolver = entry->names->resolver;

    if (entry->asking)
        return;
    ev_timer_stop(entry->names->loop, &entry->timer);
    entry->asked = ev_now(entry->names->loop);
    entry->asking = resolver && resolver_query(resolver, entry->host, on_answer, entry);
    if (!entry->asking)
        not_resolved(entry, resolver ? "out of memory" : "no resolver");
}

static void on_time(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    ask(timer->data);
}

/* --- which names --- */

static struct entry *find(const struct names *names, const char *host, uint16_t port)
{
    for (struct entry *e = names->entries; e; e = e->next)
        if (e->port == port && strcmp(e->host, host) == 0)
            return e;
    return NULL;
}

const struct name_answer *names_find(const struct names *names, const char *host, uint16_t port)
{
    const struct entry *entry = find(names, host, port);

    return entry && entry->wanted ? &entry->answer : NULL;
}

static const struct name_answer *find_in(const void *names, const char *host, uint16_t port)
{
    return names_find(names, host, port);
}

struct name_source names_source(const struct names *names)
{
    return (struct name_source){ find_in, names };
}

/* Without memory for it the name stays unresolved, until the next reload. */
static void add(struct names *names, const char *host, uint16_t port)
{
    struct entry *entry = calloc(1, sizeof *entry);

    if (!entry)
        return;
    entry->host = strdup(host);
    if (!entry->host) {
        free(entry);
        return;
    }
    entry->names = names;
    entry->port = port;
    entry->wanted = true;
    ev_timer_init(&entry->timer, on_time, 0., 0.);
    entry->timer.data = entry;
    entry->next = names->entries;
    names->entries = entry;
}

static void want(struct names *names, const char *host, uint16_t port)
{
    struct entry *entry = host ? find(names, host, port) : NULL;

    if (entry)
        entry->wanted = true;
    else if (host)
        add(names, host, port);
}

/* But not those that the resolver still knows. */
static void drop_unwanted(struct names *names)
{
    struct entry **link = &names->entries;

    while (*link) {
        struct entry *entry = *link;

        if (entry->wanted || entry->asking) {
            link = &entry->next;
        } else {
            *link = entry->next;
            free_entry(entry);
        }
    }
}

static bool servers_text(const struct config *config, char **text)
{
    size_t size = config->n_nameservers * (ADDRESS_TEXT_MAX + 1);
    char one[ADDRESS_TEXT_MAX];

    *text = NULL;
    if (!size)
        return true;
    *text = calloc(1, size);
    for (size_t i = 0; *text && i < config->n_nameservers; i++) {
        if (i)
            strcat(*text, ",");
        strcat(*text, address_format(&config->nameservers[i], one));
    }
    return *text != NULL;
}

/* The configuration may name others, and the system's may have changed. Who has been asked is not waited for
 * any more; all names are asked for anew. */
static void open_resolver(struct names *names)
{
    struct resolver *resolver;
    char *servers;

    if (!servers_text(names->config, &servers))
        return; /* go on with the one there is */
    resolver = resolver_open(names->loop, servers);
    free(servers);
    if (!resolver)
        return;
    resolver_close(&names->resolver);
    names->resolver = resolver;
    for (struct entry *e = names->entries; e; e = e->next) {
        e->asking = false;
        free(e->half);
        e->half = NULL;
    }
}

void names_follow(struct names *names, struct config *config)
{
    struct config *old = names->config;

    if (config == old)
        return;
    for (struct entry *e = names->entries; e; e = e->next)
        e->wanted = false;
    for (size_t i = 0; i < config->n_backends; i++) {
        want(names, config->backends[i].host, config->backends[i].port);
        want(names, config->backends[i].agent.host, config->backends[i].agent.port);
    }
    names->config = config_hold(config);
    config_release(&old);
    if (names->entries)
        open_resolver(names);
    drop_unwanted(names);
    for (struct entry *e = names->entries; e; e = e->next)
        if (e->wanted)
            ask(e);
}

void names_doubt(struct names *names, const char *host, uint16_t port)
{
    struct entry *entry = find(names, host, port);
    ev_tstamp wait;

    if (!entry || !entry->wanted || entry->asking)
        return;
    wait = entry->asked + NAMES_TTL_LEAST - ev_now(names->loop);
    if (wait < ev_timer_remaining(names->loop, &entry->timer))
        arm(entry, wait > 0 ? wait : 0);
}

struct names *names_open(struct ev_loop *loop, void (*changed)(void *arg), void *arg)
{
    struct names *names = calloc(1, sizeof *names);

    if (!names)
        return NULL;
    names->loop = loop;
    names->changed = changed;
    names->arg = arg;
    return names;
}

void names_close(struct names **names)
{
    struct names *n = *names;

    *names = NULL;
    if (!n)
        return;
    resolver_close(&n->resolver);
    while (n->entries) {
        struct entry *entry = n->entries;

        n->entries = entry->next;
        free_entry(entry);
    }
    config_release(&n->config);
    free(n);
}
