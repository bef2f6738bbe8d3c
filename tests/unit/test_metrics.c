/*
 * /metrics read back by a tiny parser of Prometheus' text format, as strict as the format.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/http.h"
#include "admin/metrics.h"
#include "tests/unit/farm_fixture.h"

#define SAMPLES_MAX  2000
#define FAMILIES_MAX 64

struct sample {
    char name[64];
    char labels[512]; /* as they stand between the braces */
    double value;
};

struct scrape {
    char families[FAMILIES_MAX][64];
    char types[FAMILIES_MAX][16];
    size_t n_families;
    struct sample samples[SAMPLES_MAX];
    size_t n;
};

static size_t name_length(const char *text)
{
    size_t n = 0;

    assert_true(isalpha((unsigned char)text[0]) || text[0] == '_');
    while (isalnum((unsigned char)text[n]) || text[n] == '_')
        n++;
    return n;
}

/* label="value" and commas, with the three escapes there are. Returns what is behind the brace. */
static const char *skip_labels(const char *text)
{
    for (;;) {
        text += name_length(text);
        assert_memory_equal(text, "=\"", 2);
        for (text += 2; *text != '"'; text++) {
            assert_true(*text != '\0' && *text != '\n');
            if (*text == '\\') {
                text++;
                assert_true(*text == '\\' || *text == '"' || *text == 'n');
            }
        }
        text++;
        if (*text == '}')
            return text + 1;
        assert_int_equal(*text++, ',');
    }
}

/* A sample belongs to the family named last. */
static void check_family(const struct scrape *scrape, const char *name)
{
    const char *family = scrape->families[scrape->n_families - 1];
    size_t size = strlen(family);

    assert_true(scrape->n_families > 0);
    assert_memory_equal(name, family, size);
    if (strcmp(scrape->types[scrape->n_families - 1], "histogram") == 0)
        assert_true(strcmp(name + size, "_bucket") == 0 || strcmp(name + size, "_sum") == 0 ||
                    strcmp(name + size, "_count") == 0);
    else
        assert_string_equal(name, family);
}

static void parse_sample(struct scrape *scrape, const char *line)
{
    struct sample *sample = &scrape->samples[scrape->n++];
    size_t n = name_length(line);
    const char *rest = line + n;
    char *end;

    assert_in_range(scrape->n, 1, SAMPLES_MAX);
    assert_in_range(n, 1, sizeof sample->name - 1);
    memset(sample, 0, sizeof *sample);
    memcpy(sample->name, line, n);
    check_family(scrape, sample->name);
    if (*rest == '{') {
        const char *labels = rest + 1;

        rest = skip_labels(labels);
        memcpy(sample->labels, labels, (size_t)(rest - 1 - labels));
    }
    assert_int_equal(*rest++, ' ');
    sample->value = strtod(rest, &end);
    assert_true(end > rest);
    assert_int_equal(*end, '\0');
    for (size_t i = 0; i + 1 < scrape->n; i++)
        if (strcmp(scrape->samples[i].name, sample->name) == 0)
            assert_string_not_equal(scrape->samples[i].labels, sample->labels);
}

static void parse_comment(struct scrape *scrape, const char *line)
{
    char kind[8], name[64], rest[16];
    size_t n = scrape->n_families;

    assert_int_equal(sscanf(line, "# %7s %63s %15s", kind, name, rest), 3);
    if (strcmp(kind, "HELP") == 0) {
        for (size_t i = 0; i < n; i++)
            assert_string_not_equal(scrape->families[i],
                                    name); /* each family once, all its samples together */
        assert_true(n < FAMILIES_MAX);
        strcpy(scrape->families[scrape->n_families++], name);
        return;
    }
    assert_string_equal(kind, "TYPE");
    assert_string_equal(scrape->families[n - 1], name);
    assert_true(strcmp(rest, "counter") == 0 || strcmp(rest, "gauge") == 0 || strcmp(rest, "histogram") == 0);
    strcpy(scrape->types[n - 1], rest);
}

static void scrape_farm(struct scrape *scrape, const struct farm *farm, const struct admin_counters *counters)
{
    char *text = NULL, *line, *rest;
    size_t size = 0;
    const struct counters_status shared = { .state = COUNTERS_HELD, .instances = 3, .received = 7 };
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    metrics_write(out, farm, counters, &shared);
    fclose(out);
    memset(scrape, 0, sizeof *scrape);
    assert_true(size > 0);
    assert_int_equal(text[size - 1], '\n');
    text[size - 1] = '\0';
    rest = text;
    while ((line = strsep(&rest, "\n"))) {
        if (line[0] == '#')
            parse_comment(scrape, line);
        else
            parse_sample(scrape, line);
    }
    free(text);
}

static double value(const struct scrape *scrape, const char *name, const char *labels)
{
    for (size_t i = 0; i < scrape->n; i++)
        if (strcmp(scrape->samples[i].name, name) == 0 && strcmp(scrape->samples[i].labels, labels) == 0)
            return scrape->samples[i].value;
    return NAN;
}

#define assert_sample(scrape, name, labels, wanted)                                                          \
    do {                                                                                                     \
        double is_ = value(scrape, name, labels);                                                            \
                                                                                                             \
        if (!(is_ == (double)(wanted)))                                                                      \
            fail_msg("%s{%s} is %g, not %g", name, labels, is_, (double)(wanted));                           \
    } while (0)

static struct scrape scraped;

static void test_counters(void **state)
{
    struct fixture f;
    struct farm *farm;
    const struct admin_counters counters = {
        3, 5000000000, 7, 11, 13, {{ 17, 19, 23 }, { 29, 31, 37 }}
    };

    (void)state;
    fixture_start(&f);
    farm = fixture_farm(&f, NULL);
    scrape_farm(&scraped, farm, &counters);
    assert_sample(&scraped, "weir_sessions_active", "", 3);
    assert_sample(&scraped, "weir_sessions_total", "", 5000000000);
    assert_sample(&scraped, "weir_sessions_refused_total", "", 7);
    assert_sample(&scraped, "weir_bytes_total", "direction=\"in\"", 11);
    assert_sample(&scraped, "weir_bytes_total", "direction=\"out\"", 13);
    assert_sample(&scraped, "weir_tls_handshakes_total", "side=\"client\",result=\"resumed\"", 19);
    assert_sample(&scraped, "weir_tls_handshakes_total", "side=\"backend\",result=\"full\"", 29);
    assert_sample(&scraped, "weir_tls_handshakes_total", "side=\"backend\",result=\"failed\"", 37);
    assert_sample(&scraped, "weir_log_dropped_total", "", 0);
    assert_sample(&scraped, "weir_build_info", "version=\"" WEIR_VERSION "\"", 1);
    farm_release(&farm);
}

#define A "pool=\"relays\",backend=\"a\""
#define B "pool=\"relays\",backend=\"b\""

static void test_backends(void **state)
{
    struct fixture f;
    struct config_pool *pool;
    struct farm *farm;
    struct member *member;
    const struct admin_counters counters = { 0 };

    (void)state;
    fixture_start(&f);
    pool = fixture_pool(&f, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    fixture_backend(&f, pool, "a", 4, 100, 0);
    fixture_backend(&f, pool, "b", 4, 0, 0);
    farm = fixture_farm(&f, NULL);
    member = farm->pools[0].members[0];
    atomic_store(&member->backend->state, BACKEND_HALF_OPEN);
    assert_true(backend_take_place(member->backend));
    /* Two workers' figures are summed. */
    stat_add(&member->stats[0].outcomes[OUTCOME_DELIVERED], 2);
    stat_add(&member->stats[1].outcomes[OUTCOME_DELIVERED], 3);
    stat_add(&member->stats[1].outcomes[OUTCOME_UNKNOWN], 1);
    stat_add(&farm->pools[0].state->stats[1].outcomes[OUTCOME_FAILED], 4);
    stat_add(&farm->pools[0].state->stats[0].outcomes[OUTCOME_ABORTED], 2);
    stat_add(&farm->pools[0].state->stats[0].queue_refused[QUEUE_REFUSED_TIMEOUT], 4);
    stat_add(&farm->pools[0].state->stats[1].queue_refused[QUEUE_REFUSED_TIMEOUT], 1);
    stat_add(&farm->pools[0].state->stats[1].queue_refused[QUEUE_REFUSED_DISPLACED], 2);
    scrape_farm(&scraped, farm, &counters);
    assert_sample(&scraped, "weir_backend_connections", A, 1);
    assert_sample(&scraped, "weir_backend_connections", B, 0);
    assert_sample(&scraped, "weir_backend_limit", A, 100);
    assert_sample(&scraped, "weir_backend_limit", B, INFINITY);
    assert_sample(&scraped, "weir_backend_up", A, 1);
    assert_sample(&scraped, "weir_backend_up", B, 0);
    assert_sample(&scraped, "weir_backend_state", A ",state=\"half-open\"", 1);
    assert_sample(&scraped, "weir_backend_state", A ",state=\"up\"", 0);
    assert_sample(&scraped, "weir_backend_state", B ",state=\"init\"", 1);
    assert_sample(&scraped, "weir_transactions_total", A ",outcome=\"delivered\"", 5);
    assert_sample(&scraped, "weir_transactions_total", A ",outcome=\"unknown\"", 1);
    assert_sample(&scraped, "weir_transactions_total", B ",outcome=\"rejected\"", 0);
    assert_sample(&scraped, "weir_transactions_total", "pool=\"relays\",backend=\"\",outcome=\"failed\"", 4);
    assert_sample(&scraped, "weir_transactions_total", "pool=\"relays\",backend=\"\",outcome=\"aborted\"", 2);
    assert_sample(&scraped, "weir_queue_waiting", "pool=\"relays\"", 0);
    assert_sample(&scraped, "weir_queue_refused_total", "pool=\"relays\",reason=\"full\"", 0);
    assert_sample(&scraped, "weir_queue_refused_total", "pool=\"relays\",reason=\"timeout\"", 5);
    assert_sample(&scraped, "weir_queue_refused_total", "pool=\"relays\",reason=\"displaced\"", 2);
    backend_return_place(member->backend);
    farm_release(&farm);
}

/* Cumulative, in seconds, the last bucket holds all, and the count is that of the last bucket. */
static void test_histograms(void **state)
{
    struct fixture f;
    struct config_pool *pool;
    struct farm *farm;
    struct member_stats *stats;
    const struct admin_counters counters = { 0 };
    double before = 0;
    size_t buckets = 0;

    (void)state;
    fixture_start(&f);
    pool = fixture_pool(&f, "relays", CONFIG_LEAST_CONNECTIONS, 10);
    fixture_backend(&f, pool, "a", 4, 100, 0);
    farm = fixture_farm(&f, NULL);
    stats = farm->pools[0].members[0]->stats;
    histogram_add(&stats[0].replies[PHASE_MAIL], 1);
    histogram_add(&stats[1].replies[PHASE_MAIL], 40);
    histogram_add(&stats[1].replies[PHASE_MAIL], 700000);
    scrape_farm(&scraped, farm, &counters);
#define MAIL A ",phase=\"mail\""
    assert_sample(&scraped, "weir_backend_reply_seconds_bucket", MAIL ",le=\"0.001\"", 1);
    assert_sample(&scraped, "weir_backend_reply_seconds_bucket", MAIL ",le=\"0.025\"", 1);
    assert_sample(&scraped, "weir_backend_reply_seconds_bucket", MAIL ",le=\"0.05\"", 2);
    assert_sample(&scraped, "weir_backend_reply_seconds_bucket", MAIL ",le=\"600\"", 2);
    assert_sample(&scraped, "weir_backend_reply_seconds_bucket", MAIL ",le=\"+Inf\"", 3);
    assert_sample(&scraped, "weir_backend_reply_seconds_count", MAIL, 3);
    assert_sample(&scraped, "weir_backend_reply_seconds_sum", MAIL, 700.041);
    assert_true(isnan(value(&scraped, "weir_backend_reply_seconds_count", A ",phase=\"rcpt\"")));
    assert_sample(&scraped, "weir_queue_wait_seconds_count", "pool=\"relays\"", 0);
    for (size_t i = 0; i < scraped.n; i++) {
        if (strcmp(scraped.samples[i].name, "weir_backend_reply_seconds_bucket") != 0)
            continue;
        assert_true(scraped.samples[i].value >= before);
        before = scraped.samples[i].value;
        buckets++;
    }
    assert_int_equal(buckets, HISTOGRAM_BUCKETS + 1);
    farm_release(&farm);
}

static void test_escapes(void **state)
{
    struct fixture f;
    struct config_pool *pool;
    struct farm *farm;
    const struct admin_counters counters = { 0 };

    (void)state;
    fixture_start(&f);
    pool = fixture_pool(&f, "a\"b\\c\nd", CONFIG_LEAST_CONNECTIONS, 10);
    fixture_backend(&f, pool, "\"} 1\n", 4, 100, 0);
    farm = fixture_farm(&f, NULL);
    scrape_farm(&scraped, farm, &counters);
    assert_sample(&scraped, "weir_backend_limit", "pool=\"a\\\"b\\\\c\\nd\",backend=\"\\\"} 1\\n\"", 100);
    farm_release(&farm);
}

/* --- readiness --- */

static struct {
    struct farm *farm;
    bool draining;
} shown;

static struct farm *show_farm(void *arg)
{
    (void)arg;
    return farm_hold(shown.farm);
}

static bool show_draining(void *arg)
{
    (void)arg;
    return shown.draining;
}

static void test_ready(void **state)
{
    const struct admin_ops ops = { .farm = show_farm, .draining = show_draining };
    struct fixture f;

    (void)state;
    fixture_start(&f);
    fixture_backend(&f, fixture_pool(&f, "one", CONFIG_LEAST_CONNECTIONS, 10), "a", 4, 100, 0);
    fixture_backend(&f, fixture_pool(&f, "two", CONFIG_LEAST_CONNECTIONS, 10), "b", 4, 100, 0);
    shown.farm = fixture_farm(&f, NULL);
    assert_false(admin_ready(&ops)); /* not checked yet */
    atomic_store(&shown.farm->backends[1]->state, BACKEND_UP);
    assert_true(admin_ready(&ops));
    shown.draining = true;
    assert_false(admin_ready(&ops));
    shown.draining = false;
    atomic_store(&shown.farm->backends[1]->state, BACKEND_DOWN);
    assert_false(admin_ready(&ops));
    farm_release(&shown.farm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counters), cmocka_unit_test(test_backends), cmocka_unit_test(test_histograms),
        cmocka_unit_test(test_escapes),  cmocka_unit_test(test_ready),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
