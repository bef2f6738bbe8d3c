#include "admin/metrics.h"

#include <inttypes.h>
#include <string.h>

#include "balancer/placement.h"
#include "health/health.h"
#include "net/log.h"

static void family(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
    family(out, name, type, help);
    fprintf(out, "%s %" PRIu64 "\n", name, value);
}

/* Labels of one series: the text between the braces. Names are as the configuration has them, so any octet
 * may be met. */
struct labels {
    size_t size;
    char text[1024];
};

static void put(struct labels *labels, const char *text, size_t size)
{
    if (size >= sizeof labels->text - labels->size)
        return; /* never with names that the configuration accepts */
    memcpy(labels->text + labels->size, text, size);
    labels->size += size;
    labels->text[labels->size] = '\0';
}

static void label(struct labels *labels, const char *name, const char *value)
{
    if (labels->size)
        put(labels, ",", 1);
    put(labels, name, strlen(name));
    put(labels, "=\"", 2);
    for (; *value; value++) {
        switch (*value) {
        case '\\': put(labels, "\\\\", 2); break;
        case '"': put(labels, "\\\"", 2); break;
        case '\n': put(labels, "\\n", 2); break;
        default: put(labels, value, 1);
        }
    }
    put(labels, "\"", 1);
}

static struct labels pool_labels(const struct pool *pool)
{
    struct labels labels = { 0 };

    label(&labels, "pool", pool->state->name);
    return labels;
}

static struct labels member_labels(const struct pool *pool, const struct member *member)
{
    struct labels labels = pool_labels(pool);

    label(&labels, "backend", backend_name(member->backend));
    return labels;
}

/* --- histograms: kept in milliseconds by worker, shown in seconds and summed --- */

struct histogram_sum {
    uint64_t buckets[HISTOGRAM_BUCKETS + 1];
    uint64_t count, sum;
};

static void add(struct histogram_sum *total, const struct histogram *histogram)
{
    for (size_t i = 0; i <= HISTOGRAM_BUCKETS; i++) {
        uint64_t n = atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);

        total->buckets[i] += n;
        total->count += n;
    }
    total->sum += atomic_load_explicit(&histogram->sum, memory_order_relaxed);
}

static void write_histogram(FILE *out, const char *name, const struct labels *labels,
                            const struct histogram_sum *total)
{
    uint64_t below = 0;

    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        below += total->buckets[i];
        fprintf(out, "%s_bucket{%s,le=\"%g\"} %" PRIu64 "\n", name, labels->text, histogram_bounds[i] / 1000.,
                below);
    }
    fprintf(out, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, labels->text, total->count);
    fprintf(out, "%s_sum{%s} %" PRIu64 ".%03u\n", name, labels->text, total->sum / 1000,
            (unsigned)(total->sum % 1000));
    fprintf(out, "%s_count{%s} %" PRIu64 "\n", name, labels->text, total->count);
}

/* --- by backend --- */

typedef void member_writer(FILE *out, const struct pool *pool, const struct member *member);

static void each_member(FILE *out, const struct farm *farm, member_writer *write)
{
    for (size_t p = 0; p < farm->n_pools; p++)
        for (size_t m = 0; m < farm->pools[p].n_members; m++)
            write(out, &farm->pools[p], farm->pools[p].members[m]);
}

/* Those too that a name has no more, as long as sessions are on them. Their names are their own, which those
 * of others that a reload took out need not be. */
static void each_member_ever(FILE *out, const struct farm *farm, member_writer *write)
{
    each_member(out, farm, write);
    for (size_t i = 0; i < farm->n_leaving; i++) {
        const struct farm_leaving *leaving = &farm->leaving[i];
        const struct pool pool = { .state = leaving->pool }; /* all that a writer looks at */

        if (leaving->member->backend->found_at[0] && atomic_load(&leaving->member->backend->connections) > 0)
            write(out, &pool, leaving->member);
    }
}

static void write_outcomes(FILE *out, const struct pool *pool, const struct member *member)
{
    for (enum transaction_outcome o = 0; o < TRANSACTION_OUTCOMES; o++) {
        struct labels labels = member_labels(pool, member);
        uint64_t n = 0;

        for (uint32_t w = 0; w < member->workers; w++)
            n += atomic_load_explicit(&member->stats[w].outcomes[o], memory_order_relaxed);
        if (o == OUTCOME_FAILED && !n)
            continue; /* no backend was to be had: counted by pool */
        label(&labels, "outcome", transaction_outcome_name(o));
        fprintf(out, "weir_transactions_total{%s} %" PRIu64 "\n", labels.text, n);
    }
}

static void write_connections(FILE *out, const struct pool *pool, const struct member *member)
{
    struct labels labels = member_labels(pool, member);

    fprintf(out, "weir_backend_connections{%s} %" PRIu32 "\n", labels.text,
            atomic_load_explicit(&member->backend->connections, memory_order_relaxed));
}

static void write_limit(FILE *out, const struct pool *pool, const struct member *member)
{
    struct labels labels = member_labels(pool, member);
    uint32_t limit = backend_limit(member->backend);

    if (limit == BACKEND_NO_CEILING)
        fprintf(out, "weir_backend_limit{%s} +Inf\n", labels.text);
    else
        fprintf(out, "weir_backend_limit{%s} %" PRIu32 "\n", labels.text, limit);
}

static void write_weight(FILE *out, const struct pool *pool, const struct member *member)
{
    struct labels labels = member_labels(pool, member);
    uint32_t milliweight = atomic_load_explicit(&member->backend->milliweight, memory_order_relaxed);

    fprintf(out, "weir_backend_weight{%s} %g\n", labels.text, milliweight / 1000.0);
}

static void write_wanted(FILE *out, const struct pool *pool, const struct member *member)
{
    struct labels labels = member_labels(pool, member);
    struct health_view view;

    health_view(member->backend, &view);
    if (!view.limit_observed)
        return;
    if (view.limit_wanted == BACKEND_NO_CEILING)
        fprintf(out, "weir_backend_limit_wanted{%s} +Inf\n", labels.text);
    else
        fprintf(out, "weir_backend_limit_wanted{%s} %" PRIu32 "\n", labels.text, view.limit_wanted);
}

static void write_microseconds(FILE *out, const char *name, const struct pool *pool,
                               const struct member *member, uint64_t value)
{
    if (value)
        fprintf(out, "%s{%s} %" PRIu64 ".%06u\n", name, member_labels(pool, member).text, value / 1000000,
                (unsigned)(value % 1000000));
}

static void write_short(FILE *out, const struct pool *pool, const struct member *member)
{
    struct health_view view;

    health_view(member->backend, &view);
    write_microseconds(out, "weir_backend_reply_short_seconds", pool, member, view.reply_short);
}

static void write_baseline(FILE *out, const struct pool *pool, const struct member *member)
{
    struct health_view view;

    health_view(member->backend, &view);
    write_microseconds(out, "weir_backend_reply_baseline_seconds", pool, member, view.reply_baseline);
}

static bool is_up(enum backend_state state)
{
    switch (state) {
    case BACKEND_UP:
    case BACKEND_DEGRADED:
    case BACKEND_HALF_OPEN: return true;
    case BACKEND_INIT:
    case BACKEND_DOWN:
    case BACKEND_EJECTED: break;
    }
    return false;
}

static void write_up(FILE *out, const struct pool *pool, const struct member *member)
{
    struct labels labels = member_labels(pool, member);

    fprintf(out, "weir_backend_up{%s} %d\n", labels.text, is_up(atomic_load(&member->backend->state)));
}

static void write_state(FILE *out, const struct pool *pool, const struct member *member)
{
    enum backend_state is = atomic_load(&member->backend->state);

    for (enum backend_state state = 0; state < BACKEND_STATES; state++) {
        struct labels labels = member_labels(pool, member);

        label(&labels, "state", backend_state_name(state));
        fprintf(out, "weir_backend_state{%s} %d\n", labels.text, state == is);
    }
}

static void write_admin(FILE *out, const struct pool *pool, const struct member *member)
{
    enum backend_admin is = (enum backend_admin)atomic_load(&member->backend->admin);

    for (enum backend_admin admin = 0; admin < BACKEND_ADMINS; admin++) {
        struct labels labels = member_labels(pool, member);

        label(&labels, "admin", backend_admin_name(admin));
        fprintf(out, "weir_backend_admin{%s} %d\n", labels.text, admin == is);
    }
}

static void write_replies(FILE *out, const struct pool *pool, const struct member *member)
{
    for (enum reply_phase phase = 0; phase < REPLY_PHASES; phase++) {
        struct labels labels = member_labels(pool, member);
        struct histogram_sum total = { 0 };

        for (uint32_t w = 0; w < member->workers; w++)
            add(&total, &member->stats[w].replies[phase]);
        label(&labels, "phase", reply_phase_name(phase));
        /* A thousand backends with empty histograms would be megabytes of zeros. */
        if (total.count)
            write_histogram(out, "weir_backend_reply_seconds", &labels, &total);
    }
}

/* --- what health knows of it --- */

/* Of its last check, without the farewell: what it took to be sure. */
static void write_check(FILE *out, const struct pool *pool, const struct member *member)
{
    struct labels labels = member_labels(pool, member);
    struct health_view view;
    uint64_t sum = 0;

    health_view(member->backend, &view);
    if (view.check.ms[CHECK_CONNECT] == CHECK_NOT_REACHED)
        return; /* it has not been checked */
    for (enum check_stage stage = 0; stage < CHECK_QUIT; stage++)
        if (view.check.ms[stage] != CHECK_NOT_REACHED)
            sum += view.check.ms[stage];
    fprintf(out, "weir_backend_check_seconds{%s} %" PRIu64 ".%03u\n", labels.text, sum / 1000,
            (unsigned)(sum % 1000));
}

static void write_agent_up(FILE *out, const struct pool *pool, const struct member *member)
{
    struct health_view view;

    health_view(member->backend, &view);
    if (view.has_agent)
        fprintf(out, "weir_backend_agent_up{%s} %d\n", member_labels(pool, member).text, view.agent_answers);
}

static void write_agent_share(FILE *out, const struct pool *pool, const struct member *member)
{
    struct health_view view;

    health_view(member->backend, &view);
    if (view.has_agent)
        fprintf(out, "weir_backend_agent_share{%s} %g\n", member_labels(pool, member).text,
                (double)view.agent.share / ORDER_ALL);
}

static void write_checks(FILE *out, const struct farm *farm)
{
    family(out, "weir_backend_check_seconds", "gauge",
           "Time that the backend's last check took, without its QUIT.");
    each_member(out, farm, write_check);
    family(out, "weir_check_seconds", "histogram", "Time that checks spend on each of their stages.");
    for (enum check_stage stage = 0; stage < CHECK_STAGES; stage++) {
        struct histogram_sum total = { 0 };
        struct labels labels = { 0 };

        add(&total, &health_stage_times[stage]);
        label(&labels, "stage", check_stage_name(stage));
        if (total.count)
            write_histogram(out, "weir_check_seconds", &labels, &total);
    }
    family(out, "weir_backend_agent_up", "gauge", "1 while the backend's agent answers and is understood.");
    each_member(out, farm, write_agent_up);
    family(out, "weir_backend_agent_share", "gauge",
           "The share of its weight that the backend's agent asks for.");
    each_member(out, farm, write_agent_share);
}

static void write_backends(FILE *out, const struct farm *farm)
{
    family(out, "weir_backend_connections", "gauge", "Connections to the backend, connecting included.");
    each_member_ever(out, farm, write_connections);
    family(out, "weir_backend_limit", "gauge", "Connections that the backend may have now.");
    each_member(out, farm, write_limit);
    family(out, "weir_backend_weight", "gauge",
           "Its weight now: less than configured while it is not at its best.");
    each_member(out, farm, write_weight);
    family(out, "weir_backend_limit_wanted", "gauge",
           "What the overload limit would be, with adaptive-limit: observe.");
    each_member(out, farm, write_wanted);
    family(out, "weir_backend_reply_short_seconds", "gauge",
           "Time to accept MAIL and RCPT, average of the last ten seconds; over all instances "
           "where they share their counts.");
    each_member(out, farm, write_short);
    family(out, "weir_backend_reply_baseline_seconds", "gauge", "What that time usually is.");
    each_member(out, farm, write_baseline);
    family(out, "weir_backend_up", "gauge", "1 while the backend is found well enough for new mail.");
    each_member(out, farm, write_up);
    family(out, "weir_backend_state", "gauge", "1 for the state that the backend is in.");
    each_member(out, farm, write_state);
    family(out, "weir_backend_admin", "gauge",
           "1 for the word that was said about the backend: drain and maint send nothing new there.");
    each_member(out, farm, write_admin);
    family(out, "weir_backend_reply_seconds", "histogram",
           "Time from a command, or the beginning of a connection, to the reply.");
    each_member_ever(out, farm, write_replies);
}

/* --- by pool --- */

/* Of transactions that never had a backend. */
static void write_unplaced(FILE *out, const struct pool *pool, enum transaction_outcome outcome)
{
    const struct pool_state *state = pool->state;
    struct labels labels = pool_labels(pool);
    uint64_t n = 0;

    for (uint32_t w = 0; w < state->workers; w++)
        n += atomic_load_explicit(&state->stats[w].outcomes[outcome], memory_order_relaxed);
    label(&labels, "backend", "");
    label(&labels, "outcome", transaction_outcome_name(outcome));
    fprintf(out, "weir_transactions_total{%s} %" PRIu64 "\n", labels.text, n);
}

static void write_transactions(FILE *out, const struct farm *farm)
{
    family(out, "weir_transactions_total", "counter", "Mail transactions by their end.");
    each_member_ever(out, farm, write_outcomes);
    for (size_t p = 0; p < farm->n_pools; p++) {
        write_unplaced(out, &farm->pools[p], OUTCOME_FAILED);
        write_unplaced(out, &farm->pools[p], OUTCOME_ABORTED);
    }
}

static void write_refusals(FILE *out, const struct pool *pool)
{
    const struct pool_state *state = pool->state;

    for (enum queue_refusal reason = 0; reason < QUEUE_REFUSALS; reason++) {
        struct labels labels = pool_labels(pool);
        uint64_t n = 0;

        for (uint32_t w = 0; w < state->workers; w++)
            n += atomic_load_explicit(&state->stats[w].queue_refused[reason], memory_order_relaxed);
        label(&labels, "reason", queue_refusal_name(reason));
        fprintf(out, "weir_queue_refused_total{%s} %" PRIu64 "\n", labels.text, n);
    }
}

static void write_queues(FILE *out, const struct farm *farm)
{
    family(out, "weir_pool_panic", "gauge",
           "1 while less than half of the pool is usable and ejected backends are used too.");
    for (size_t p = 0; p < farm->n_pools; p++)
        fprintf(out, "weir_pool_panic{%s} %d\n", pool_labels(&farm->pools[p]).text,
                atomic_load_explicit(&farm->pools[p].state->panic, memory_order_relaxed));
    family(out, "weir_queue_waiting", "gauge", "Sessions that wait for a backend.");
    for (size_t p = 0; p < farm->n_pools; p++)
        fprintf(out, "weir_queue_waiting{%s} %" PRIu32 "\n", pool_labels(&farm->pools[p]).text,
                placement_waiting(&farm->pools[p]));
    family(out, "weir_queue_refused_total", "counter",
           "Sessions that heard 421 from the queue: it was full, their time was up, or their seat went to "
           "another.");
    for (size_t p = 0; p < farm->n_pools; p++)
        write_refusals(out, &farm->pools[p]);
    family(out, "weir_queue_wait_seconds", "histogram",
           "Time that sessions waited for a backend, in vain or not.");
    for (size_t p = 0; p < farm->n_pools; p++) {
        const struct pool_state *state = farm->pools[p].state;
        struct labels labels = pool_labels(&farm->pools[p]);
        struct histogram_sum total = { 0 };

        for (uint32_t w = 0; w < state->workers; w++)
            add(&total, &state->stats[w].queue_wait);
        write_histogram(out, "weir_queue_wait_seconds", &labels, &total);
    }
}

static void write_handshakes(FILE *out, const struct admin_counters *counters)
{
    static const char *const sides[ADMIN_TLS_SIDES] = { "client", "backend" };
    static const char *const results[ADMIN_TLS_RESULTS] = { "full", "resumed", "failed" };

    family(out, "weir_tls_handshakes_total", "counter", "TLS handshakes of sessions, by their end.");
    for (size_t s = 0; s < ADMIN_TLS_SIDES; s++)
        for (size_t r = 0; r < ADMIN_TLS_RESULTS; r++)
            fprintf(out, "weir_tls_handshakes_total{side=\"%s\",result=\"%s\"} %" PRIu64 "\n", sides[s],
                    results[r], counters->handshakes[s][r]);
}

/* Without Redis in the configuration there is nothing to be up or down. */
static void write_shared(FILE *out, const struct counters_status *shared)
{
    bool up = shared->state == COUNTERS_SHARED || shared->state == COUNTERS_REJOIN;

    single(out, "weir_instances", "gauge", "Instances of the farm that are heard, this one too.",
           shared->instances);
    if (shared->state == COUNTERS_OFF)
        return;
    single(out, "weir_redis_up", "gauge", "1 while counts are shared through Redis.", up);
    family(out, "weir_redis_state", "gauge", "1 for the state that the sharing of counts is in.");
    for (enum counters_state state = COUNTERS_SHARED; state < COUNTERS_STATES; state++)
        fprintf(out, "weir_redis_state{state=\"%s\"} %d\n", counters_state_name(state),
                state == shared->state);
    family(
        out, "weir_redis_snapshots_total", "counter",
        "Reports of counts: published, received from others, and refused as malformed or of another schema.");
    fprintf(out, "weir_redis_snapshots_total{result=\"published\"} %" PRIu64 "\n", shared->published);
    fprintf(out, "weir_redis_snapshots_total{result=\"received\"} %" PRIu64 "\n", shared->received);
    fprintf(out, "weir_redis_snapshots_total{result=\"refused\"} %" PRIu64 "\n", shared->refused);
}

void metrics_write(FILE *out, const struct farm *farm, const struct admin_counters *counters,
                   const struct counters_status *shared)
{
    family(out, "weir_build_info", "gauge", "1; the version is in the label.");
    fprintf(out, "weir_build_info{version=\"%s\"} 1\n", WEIR_VERSION);
    single(out, "weir_sessions_active", "gauge", "Sessions of clients that are open.",
           counters->sessions_active);
    single(out, "weir_sessions_total", "counter", "Sessions of clients since the start.",
           counters->sessions_total);
    single(out, "weir_sessions_refused_total", "counter", "Connections turned away at the door.",
           counters->sessions_refused);
    family(out, "weir_bytes_total", "counter", "Octets received from clients (in) and sent to them (out).");
    fprintf(out, "weir_bytes_total{direction=\"in\"} %" PRIu64 "\n", counters->bytes_in);
    fprintf(out, "weir_bytes_total{direction=\"out\"} %" PRIu64 "\n", counters->bytes_out);
    write_handshakes(out, counters);
    write_transactions(out, farm);
    write_backends(out, farm);
    write_checks(out, farm);
    write_queues(out, farm);
    write_shared(out, shared);
    single(out, "weir_log_dropped_total", "counter",
           "Log lines dropped because their destination was blocked.", log_dropped());
}

void metrics_write_limits(FILE *out, const struct rate_rules *rules)
{
    if (!rules->n)
        return;
    family(out, "weir_limit_refused_total", "counter",
           "Messages and recipients that heard 450 because of a limit.");
    for (size_t i = 0; i < rules->n; i++) {
        for (enum rate_what what = 0; what < RATE_WHATS; what++) {
            struct labels labels = { 0 };

            if (!rate_limits(rules->rates[i], what))
                continue;
            label(&labels, "rule", rate_name(rules->rates[i]));
            label(&labels, "what", rate_what_name(what));
            fprintf(out, "weir_limit_refused_total{%s} %" PRIu64 "\n", labels.text,
                    rate_refused(rules->rates[i], what));
        }
    }
}
