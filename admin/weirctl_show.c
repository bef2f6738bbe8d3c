#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin/weirctl.h"
#include "admin/weirctl_table.h"

const char *show_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

json_int_t show_number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

const char *show_duration(json_int_t seconds, char out[SHOW_SHORT])
{
    if (seconds < 60)
        (void)snprintf(out, SHOW_SHORT, "%ds", (int)(seconds < 0 ? 0 : seconds));
    else if (seconds < 3600)
        (void)snprintf(out, SHOW_SHORT, "%dm %ds", (int)(seconds / 60), (int)(seconds % 60));
    else if (seconds < 86400)
        (void)snprintf(out, SHOW_SHORT, "%dh %dm", (int)(seconds / 3600), (int)(seconds / 60 % 60));
    else
        (void)snprintf(out, SHOW_SHORT, "%lldd %dh", (long long)(seconds / 86400),
                       (int)(seconds / 3600 % 24));
    return out;
}

/* Whatever was answered. */
static json_int_t sum_of(json_int_t a, json_int_t b)
{
    json_int_t sum;

    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static const char *show_since(json_int_t since, char out[SHOW_SHORT])
{
    json_int_t seconds;

    return show_duration(__builtin_sub_overflow((json_int_t)time(NULL), since, &seconds) ? 0 : seconds, out);
}

const char *show_count(json_int_t n, char out[SHOW_SHORT])
{
    static const char units[] = { 'k', 'M', 'G', 'T', 'P', 'E' };
    double value = (double)n;
    size_t unit = 0;

    if (n < 100000) {
        (void)snprintf(out, SHOW_SHORT, "%lld", (long long)n);
        return out;
    }
    /* Not rounded up to four digits. */
    for (value /= 1000; value >= 999.5 && unit + 1 < sizeof units; unit++)
        value /= 1000;
    (void)snprintf(out, SHOW_SHORT, value < 9.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
    return out;
}

const char *show_limit(const json_t *backend, char out[SHOW_SHORT])
{
    const json_t *limit = json_object_get(backend, "limit");

    return json_is_integer(limit) ? show_count(json_integer_value(limit), out) : strcpy(out, "-");
}

static bool is_ready(const json_t *backend)
{
    return strcmp(show_text(backend, "admin"), "ready") == 0;
}

const char *show_state(const json_t *backend, char out[SHOW_SHORT])
{
    (void)snprintf(out, SHOW_SHORT, "%s", show_text(backend, is_ready(backend) ? "state" : "admin"));
    return out;
}

const char *show_state_colour(const json_t *backend)
{
    const char *state = show_text(backend, "state");

    if (!is_ready(backend) || strcmp(state, "init") == 0)
        return TABLE_GREY;
    if (strcmp(state, "up") == 0)
        return TABLE_GREEN;
    return strcmp(state, "down") == 0 || strcmp(state, "ejected") == 0 ? TABLE_RED : TABLE_YELLOW;
}

static void put_number(struct table *table, json_int_t n)
{
    char text[SHOW_SHORT];

    table_put(table, show_count(n, text), NULL);
}

void show_line(FILE *out, const char *text, unsigned width)
{
    char *printable = table_printable(text);

    if (printable) {
        unsigned natural = table_width(printable);

        table_write(out, printable, natural < width ? natural : width, false);
    }
    fputc('\n', out);
    free(printable);
}

/* --- status --- */

static const char *readiness(const json_t *status)
{
    if (json_is_true(json_object_get(status, "ready")))
        return "ready";
    return json_is_true(json_object_get(status, "draining")) ? "draining" : "no backend is usable";
}

/* How it shares its counts, if it does. */
static void show_shared(FILE *out, const json_t *redis, const struct style *style)
{
    char text[512], since[SHOW_SHORT];

    if (!json_is_object(redis))
        return;
    show_since(show_number(redis, "since"), since);
    if (*show_text(redis, "reason"))
        (void)snprintf(text, sizeof text, "redis %s for %s: %.200s (%.128s)", show_text(redis, "state"),
                       since, show_text(redis, "reason"), show_text(redis, "server"));
    else
        (void)snprintf(text, sizeof text, "redis %s for %s: %lld instances (%.128s)",
                       show_text(redis, "state"), since, (long long)show_number(redis, "instances"),
                       show_text(redis, "server"));
    show_line(out, text, style->width);
}

void show_status(FILE *out, const json_t *status, const struct style *style)
{
    static const struct table_column columns[] = {
        {"POOL",         TABLE_LEFT,  8},
        { "BACKENDS",    TABLE_RIGHT, 0},
        { "USABLE",      TABLE_RIGHT, 0},
        { "CONNECTIONS", TABLE_RIGHT, 0},
        { "WAITING",     TABLE_RIGHT, 0},
        { "",            TABLE_LEFT,  0},
    };
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    char text[256], up[SHOW_SHORT];
    json_t *pool;
    size_t i;

    if (json_object_get(status, "farm"))
        (void)snprintf(text, sizeof text, "farm %.64s: %lld instances, %lld gone, the oldest up %s: %s",
                       show_text(status, "farm"), (long long)show_number(status, "instances"),
                       (long long)show_number(status, "gone"),
                       show_duration(show_number(status, "uptime"), up), readiness(status));
    else
        (void)snprintf(text, sizeof text, "weir %s on %.100s, pid %lld, up %s: %s",
                       show_text(status, "version"), show_text(status, "hostname"),
                       (long long)show_number(status, "pid"),
                       show_duration(show_number(status, "uptime"), up), readiness(status));
    show_line(out, text, style->width);
    fprintf(out, "sessions %lld, waiting %lld; since the start %lld sessions, %lld messages delivered\n",
            (long long)show_number(status, "sessions"), (long long)show_number(status, "queued"),
            (long long)show_number(status, "sessions_total"), (long long)show_number(status, "delivered"));
    if (!json_object_get(status, "farm"))
        show_shared(out, json_object_get(status, "redis"), style);
    fputc('\n', out);
    for (i = 0; (pool = json_array_get(json_object_get(status, "pools"), i)); i++) {
        bool panic = json_is_true(json_object_get(pool, "panic"));

        table_put(table, show_text(pool, "name"), NULL);
        put_number(table, show_number(pool, "backends"));
        put_number(table, show_number(pool, "usable"));
        put_number(table, show_number(pool, "connections"));
        put_number(table, show_number(pool, "queued"));
        table_put(table, panic ? "panic" : "", TABLE_RED);
    }
    table_print(table, out, style->width, style->colours);
    table_free(&table);
}

/* --- backends --- */

static void put_backend(struct table *table, const json_t *backend)
{
    char text[SHOW_SHORT];

    table_put(table, show_text(backend, "pool"), NULL);
    table_put(table, show_text(backend, "name"), NULL);
    table_put(table, show_text(backend, "address"), NULL);
    table_put(table, show_text(backend, "state"), show_state_colour(backend));
    table_put(table, show_text(backend, "admin"), is_ready(backend) ? NULL : TABLE_YELLOW);
    put_number(table, show_number(backend, "weight"));
    put_number(table, show_number(backend, "connections"));
    table_put(table, show_limit(backend, text), NULL);
    put_number(table, show_number(backend, "delivered"));
    put_number(table, sum_of(show_number(backend, "failed"), show_number(backend, "unknown")));
}

/* What needs more words than a column has. */
static void print_reason(FILE *out, const json_t *backend, const struct style *style)
{
    char text[512], since[SHOW_SHORT];
    const char *state = show_text(backend, "state");

    if (!json_is_true(json_object_get(backend, "disagreement")) &&
        (strcmp(state, "up") == 0 || show_number(backend, "since") == 0))
        return;
    show_since(show_number(backend, "since"), since);
    (void)snprintf(text, sizeof text, "%.100s: %s for %s: %.200s", show_text(backend, "name"), state, since,
                   show_text(backend, "reason"));
    show_line(out, text, style->width);
}

/* Its weight is what an operator or the file says, and this is why it gets another part of the mail. */
static void print_agent(FILE *out, const json_t *backend, const struct style *style)
{
    const json_t *agent = json_object_get(backend, "agent");
    char text[256];

    if (!json_is_integer(json_object_get(agent, "percent")) || show_number(agent, "percent") == 100)
        return;
    (void)snprintf(text, sizeof text, "%.100s: its agent says %lld %% of its weight",
                   show_text(backend, "name"), (long long)show_number(agent, "percent"));
    show_line(out, text, style->width);
}

void show_backends(FILE *out, const json_t *backends, const struct style *style)
{
    static const struct table_column columns[] = {
        {"POOL",     TABLE_LEFT,  5},
        { "BACKEND", TABLE_NAME,  8},
        { "ADDRESS", TABLE_NAME,  9},
        { "STATE",   TABLE_LEFT,  0},
        { "ADMIN",   TABLE_LEFT,  0},
        { "WT",      TABLE_RIGHT, 0},
        { "CONN",    TABLE_RIGHT, 0},
        { "LIMIT",   TABLE_RIGHT, 0},
        { "DELIVD",  TABLE_RIGHT, 0},
        { "FAILED",  TABLE_RIGHT, 0},
    };
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    json_t *backend;
    size_t i;

    for (i = 0; (backend = json_array_get(backends, i)); i++)
        put_backend(table, backend);
    table_print(table, out, style->width, style->colours);
    table_free(&table);
    for (i = 0; (backend = json_array_get(backends, i)); i++) {
        print_reason(out, backend, style);
        print_agent(out, backend, style);
    }
}

/* --- sessions --- */

void show_sessions(FILE *out, const json_t *sessions, const struct style *style)
{
    static const struct table_column columns[] = {
        {"SESSION",  TABLE_LEFT,  0},
        { "CLIENT",  TABLE_LEFT,  9},
        { "STATE",   TABLE_LEFT,  0},
        { "BACKEND", TABLE_NAME,  8},
        { "AGE",     TABLE_RIGHT, 0},
        { "MAILS",   TABLE_RIGHT, 0},
        { "HELO",    TABLE_LEFT,  6},
    };
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    json_t *session;
    char age[SHOW_SHORT];
    size_t i;

    for (i = 0; (session = json_array_get(json_object_get(sessions, "sessions"), i)); i++) {
        table_put(table, show_text(session, "session"), NULL);
        table_put(table, show_text(session, "client"), NULL);
        table_put(table, show_text(session, "state"), NULL);
        table_put(table, show_text(session, "backend"), NULL);
        table_put(table, show_duration(show_number(session, "age"), age), NULL);
        put_number(table, show_number(session, "transactions"));
        table_put(table, show_text(session, "helo"), NULL);
    }
    table_print(table, out, style->width, style->colours);
    table_free(&table);
    if (show_number(sessions, "total") > show_number(sessions, "shown"))
        fprintf(out, "the newest %lld of %lld sessions\n", (long long)show_number(sessions, "shown"),
                (long long)show_number(sessions, "total"));
}

/* --- the rest --- */

/* One that is gone was last heard of then; what it has counted counts on. */
static void put_age(struct table *table, const json_t *instance)
{
    char text[SHOW_SHORT], gone[SHOW_SHORT + 8];
    json_int_t last = show_number(instance, "last_seen");

    if (!json_is_false(json_object_get(instance, "alive"))) {
        table_put(table, show_duration(show_number(instance, "uptime"), text), NULL);
        return;
    }
    (void)snprintf(gone, sizeof gone, "gone %s", last ? show_since(last, text) : "");
    table_put(table, gone, TABLE_RED);
}

void show_instances(FILE *out, const json_t *instances, const struct style *style)
{
    static const struct table_column columns[] = {
        {"INSTANCE",   TABLE_NAME,  8},
        { "PID",       TABLE_RIGHT, 0},
        { "VERSION",   TABLE_LEFT,  0},
        { "UP",        TABLE_RIGHT, 0},
        { "SESSIONS",  TABLE_RIGHT, 0},
        { "WAITING",   TABLE_RIGHT, 0},
        { "DELIVERED", TABLE_RIGHT, 0},
    };
    struct table *table = table_create(columns, sizeof columns / sizeof *columns);
    json_t *instance;
    char text[SHOW_SHORT];
    size_t i;

    for (i = 0; (instance = json_array_get(instances, i)); i++) {
        (void)snprintf(text, sizeof text, "%lld", (long long)show_number(instance, "pid"));
        const char *id = show_text(instance, "id");

        table_put(table, *id ? id : show_text(instance, "hostname"), NULL);
        table_put(table, text, NULL);
        table_put(table, show_text(instance, "version"), NULL);
        put_age(table, instance);
        put_number(table, show_number(instance, "sessions"));
        put_number(table, show_number(instance, "queued"));
        put_number(table, show_number(instance, "delivered"));
    }
    table_print(table, out, style->width, style->colours);
    table_free(&table);
}

void show_orders(FILE *out, const json_t *orders, const struct style *style)
{
    json_t *order;
    char text[512], by[64];
    size_t i;

    for (i = 0; (order = json_array_get(orders, i)); i++) {
        by[0] = '\0';
        if (json_is_string(json_object_get(order, "admin_by")))
            (void)snprintf(by, sizeof by, " (%.32s)", show_text(order, "admin_by"));
        (void)snprintf(text, sizeof text, "%.255s: %s%s, weight %lld, %lld connections",
                       show_text(order, "name"), show_text(order, "admin"), by,
                       (long long)show_number(order, "weight"), (long long)show_number(order, "connections"));
        show_line(out, text, style->width);
    }
}
