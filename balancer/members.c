/*
 * A row of the configuration is one backend where it has an address, and one for each address of its name
 * otherwise. A name without an answer keeps the backends that the row had before, whatever it stood for then:
 * a slip in a reload must not take a relay away. With none before it is one backend without an address, for
 * which mail waits.
 *
 * Who leaves is remembered as long as there are connections to it. When it comes back meanwhile, as it does
 * where a server answers with another part of its addresses each time, it is the same object, and so a cap of
 * N stays N.
 */
#include "balancer/members.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/log.h"

static const struct name_answer nothing_known;

/* --- who is there --- */

struct filling {
    struct farm *farm;
    const struct farm *old;
    const struct name_source *names; /* NULL: nothing is known */
    size_t room;                     /* in the arrays */
    size_t expected; /* where in the old farm the next is looked for first: the order is mostly the same */
};

static bool is_called(const struct backend *backend, const char *configured_name, const char *found_at)
{
    return strcmp(backend->configured_name, configured_name) == 0 && strcmp(backend->found_at, found_at) == 0;
}

static struct backend *take_over(struct filling *f, const char *name, const char *found_at)
{
    const struct farm *old = f->old;

    for (size_t i = 0; old && i < old->n_backends; i++) {
        size_t at = (f->expected + i) % old->n_backends;

        if (is_called(old->backends[at], name, found_at)) {
            f->expected = at + 1;
            return backend_hold(old->backends[at]);
        }
    }
    for (size_t i = 0; old && i < old->n_leaving; i++)
        if (is_called(old->leaving[i].member->backend, name, found_at))
            return backend_hold(old->leaving[i].member->backend);
    return backend_create_found(name, found_at);
}

static bool make_room(struct filling *f)
{
    struct farm *farm = f->farm;
    size_t room = f->room ? 2 * f->room : 64;
    struct backend **backends;
    struct farm_given *given;

    if (farm->n_backends < f->room)
        return true;
    backends = realloc(farm->backends, room * sizeof *backends);
    if (!backends)
        return false;
    farm->backends = backends;
    given = realloc(farm->given, room * sizeof *given);
    if (!given)
        return false;
    farm->given = given;
    f->room = room;
    return true;
}

static bool move_to_port(struct address *address, uint16_t port)
{
    switch (address->sa.sa_family) {
    case AF_INET: address->in.sin_port = htons(port); return true;
    case AF_INET6: address->in6.sin6_port = htons(port); return true;
    default: return false;
    }
}

static const struct name_answer *look_up(const struct filling *f, const char *host, uint16_t port)
{
    const struct name_answer *answer = f->names ? f->names->find(f->names->arg, host, port) : NULL;

    return answer ? answer : &nothing_known;
}

/* One address suffices: of a name the first. */
static struct address agent_of(const struct filling *f, const struct farm_given *given)
{
    const struct config_agent *agent = &given->config->agent;
    struct address address = given->address;

    if (agent->host) {
        const struct name_answer *answer = look_up(f, agent->host, agent->port);

        return answer->n ? answer->addresses[0] : (struct address){ 0 };
    }
    if (agent->address.length)
        return agent->address;
    return agent->port && move_to_port(&address, agent->port) ? address : (struct address){ 0 };
}

static bool add(struct filling *f, const char *found_at, const struct farm_given *given)
{
    struct farm *farm = f->farm;
    struct backend *backend = make_room(f) ? take_over(f, given->config->name, found_at) : NULL;

    if (!backend)
        return false;
    backend->farm_serial = farm->serial;
    farm->backends[farm->n_backends] = backend;
    farm->given[farm->n_backends] = *given;
    farm->given[farm->n_backends++].agent = agent_of(f, given);
    return true;
}

/* A name may lead back to Weir itself, which the check of the configuration could not know. */
static bool leads_back(struct filling *f, size_t row, const struct address *address)
{
    if (!config_is_own_listener(f->farm->config, address))
        return false;
    f->farm->loops[row] = true;
    return true;
}

static bool add_found(struct filling *f, size_t row, const struct name_answer *answer)
{
    for (size_t i = 0; i < answer->n; i++) {
        const struct farm_given given = { .config = &f->farm->config->backends[row],
                                          .address = answer->addresses[i] };
        char text[ADDRESS_TEXT_MAX];
        struct peer peer;

        if (leads_back(f, row, &given.address))
            continue;
        peer_from_sockaddr(&peer, &given.address.sa);
        if (!add(f, peer_format(&peer, false, text), &given))
            return false;
    }
    return true;
}

static bool add_former(struct filling *f, size_t row)
{
    const struct config_backend *config = &f->farm->config->backends[row];
    const struct farm *old = f->old;

    for (size_t i = 0; old && i < old->n_backends; i++) {
        struct farm_given given = { .config = config, .address = old->given[i].address };

        if (strcmp(old->backends[i]->configured_name, config->name) != 0 || !given.address.length ||
            !move_to_port(&given.address, config->port) || leads_back(f, row, &given.address))
            continue;
        if (!add(f, old->backends[i]->found_at, &given))
            return false;
    }
    return true;
}

static bool add_row(struct filling *f, size_t row)
{
    const struct config_backend *config = &f->farm->config->backends[row];
    const struct name_answer *answer;
    struct farm_given given = { .config = config, .address = config->address };
    size_t before = f->farm->n_backends;

    if (!config->host)
        return add(f, "", &given);
    answer = look_up(f, config->host, config->port);
    if (answer->n ? !add_found(f, row, answer) : !add_former(f, row))
        return false;
    if (f->farm->n_backends > before)
        return true;
    given.unresolved = f->farm->loops[row] ? "it leads to a listener of this Weir" : answer->error;
    return add(f, "", &given);
}

bool members_fill(struct farm *farm, const struct name_source *names, const struct farm *old)
{
    struct filling filling = { .farm = farm, .old = old, .names = names };
    size_t n = farm->config->n_backends;

    farm->first = calloc(n + 1, sizeof *farm->first);
    farm->loops = calloc(n + 1, sizeof *farm->loops);
    if (!farm->first || !farm->loops)
        return false;
    for (size_t i = 0; i < n; i++) {
        farm->first[i] = farm->n_backends;
        if (!add_row(&filling, i))
            return false;
    }
    farm->first[n] = farm->n_backends;
    return true;
}

/* --- who is gone --- */

struct member *members_left(const struct farm *old, const struct pool_state *pool,
                            const struct backend *backend)
{
    for (size_t i = 0; old && i < old->n_leaving; i++)
        if (old->leaving[i].pool == pool && old->leaving[i].member->backend == backend)
            return old->leaving[i].member;
    return NULL;
}

static void leave(struct farm *farm, struct member *member, struct pool_state *pool)
{
    if (member->backend->farm_serial == farm->serial)
        return; /* it stays, perhaps in another pool */
    farm->leaving[farm->n_leaving++] =
        (struct farm_leaving){ .member = member_hold(member), .pool = pool_state_hold(pool) };
}

bool members_leave(struct farm *farm, const struct farm *old)
{
    size_t most = old ? old->n_leaving : 0;

    for (size_t p = 0; old && p < old->n_pools; p++)
        most += old->pools[p].n_members;
    farm->leaving = calloc(most + 1, sizeof *farm->leaving);
    if (!farm->leaving)
        return false;
    for (size_t p = 0; old && p < old->n_pools; p++)
        for (size_t i = 0; i < old->pools[p].n_members; i++)
            leave(farm, old->pools[p].members[i], old->pools[p].state);
    for (size_t i = 0; old && i < old->n_leaving; i++)
        if (atomic_load(&old->leaving[i].member->backend->connections) > 0)
            leave(farm, old->leaving[i].member, old->leaving[i].pool);
    return true;
}

void members_commit(const struct farm *farm)
{
    for (size_t row = 0; row < farm->config->n_backends; row++)
        for (size_t i = farm->first[row]; i < farm->first[row + 1]; i++)
            atomic_store_explicit(&farm->backends[i]->one_of_several,
                                  farm->first[row + 1] - farm->first[row] > 1, memory_order_relaxed);
    for (size_t i = 0; i < farm->n_leaving; i++) {
        struct backend *backend = farm->leaving[i].member->backend;

        /* Who still goes by the farm before must not begin anything there; and its name may be another's. */
        backend->left = true;
        atomic_store(&backend->milliweight, 0);
        atomic_store_explicit(&backend->one_of_several, true, memory_order_relaxed);
    }
}

/* --- what the log hears of it --- */

static size_t row_of(const struct farm *farm, const char *name, size_t expected)
{
    size_t n = farm->config->n_backends;

    for (size_t i = 0; i < n; i++) {
        size_t at = (expected + i) % n;

        if (strcmp(farm->config->backends[at].name, name) == 0)
            return at;
    }
    return n;
}

/* The addresses of `farm`'s row that `other`'s row has not; their number. */
static size_t list_new(const struct farm *farm, size_t row, const struct farm *other, size_t other_row,
                       FILE *out)
{
    size_t n = 0;

    for (size_t i = farm->first[row]; i < farm->first[row + 1]; i++) {
        const struct backend *backend = farm->backends[i];
        bool both = !backend->found_at[0];

        for (size_t k = other->first[other_row]; !both && k < other->first[other_row + 1]; k++)
            both = other->backends[k] == backend;
        if (!both)
            fprintf(out, "%s%s", n++ ? " " : "", backend->found_at);
    }
    return n;
}

static void log_row(const struct farm *farm, size_t row, const struct farm *old, size_t old_row)
{
    char *added = NULL, *removed = NULL;
    size_t size, n;
    FILE *more = open_memstream(&added, &size), *less = open_memstream(&removed, &size);
    struct log_record line;

    if (more && less) {
        n = list_new(farm, row, old, old_row, more) + list_new(old, old_row, farm, row, less);
        fclose(more);
        fclose(less);
        if (n && log_begin(&line, LOG_LEVEL_INFO, "backend-members")) {
            log_string(&line, "backend", farm->config->backends[row].name);
            log_string(&line, "added", added);
            log_string(&line, "removed", removed);
            log_number(&line, "addresses", (int64_t)(farm->first[row + 1] - farm->first[row]));
            log_end(&line);
        }
    }
    free(added);
    free(removed);
}

static void log_loop(const struct config_backend *config)
{
    struct log_record line;

    if (!log_begin(&line, LOG_LEVEL_ERROR, "backend-name"))
        return;
    log_string(&line, "name", config->host);
    log_string(&line, "what", "an address that is a listener of this Weir is left out");
    log_string(&line, "backend", config->name);
    log_end(&line);
}

void farm_log_members(const struct farm *farm, const struct farm *old)
{
    for (size_t row = 0; row < farm->config->n_backends; row++) {
        const struct config_backend *config = &farm->config->backends[row];
        size_t before = row_of(old, config->name, row);
        bool known = before < old->config->n_backends && old->config->backends[before].host;

        if (!config->host)
            continue;
        if (farm->loops[row] && !(known && old->loops[before]))
            log_loop(config);
        if (known)
            log_row(farm, row, old, before);
    }
}
