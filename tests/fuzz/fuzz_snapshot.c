/*
 * What is said on the channel, as a snapshot.
 *
 * What is taken keeps the bounds of counters/snapshot.h, and what is written of it says the same again. The
 * view takes it, and counts no more than it says.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "balancer/backend.h"
#include "counters/view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            abort();                                                                                         \
    } while (0)

static void check_bounds(const struct snapshot *snapshot)
{
    CHECK(snapshot_id_valid(snapshot->id, strlen(snapshot->id)));
    CHECK(snapshot->started >= 0 && snapshot->seq <= INT64_MAX);
    CHECK(snapshot->sessions <= INT64_MAX && snapshot->queued <= INT64_MAX);
    CHECK(snapshot->n_held <= SNAPSHOT_ENTRIES && snapshot->n_rates <= SNAPSHOT_ENTRIES);
    CHECK(snapshot->n_limits <= SNAPSHOT_ENTRIES && snapshot->n_down <= SNAPSHOT_ENTRIES);
    CHECK(!snapshot->bye || snapshot->n_held + snapshot->n_rates == 0);
    for (size_t i = 0; i < snapshot->n_held; i++) {
        size_t length = strlen(snapshot->held[i].name);

        CHECK(length > 0 && length < SNAPSHOT_NAME_MAX && snapshot->held[i].count <= SNAPSHOT_COUNT_MAX);
    }
    for (size_t i = 0; i < snapshot->n_rates; i++) {
        size_t length = strlen(snapshot->rates[i].name);

        CHECK(length > 0 && length < SNAPSHOT_NAME_MAX);
        CHECK(snapshot->rates[i].rate >= 0 && (double)snapshot->rates[i].rate <= SNAPSHOT_RATE_MAX);
    }
}

/* What holds nothing is not written. */
static uint64_t sum_of(const struct snapshot *snapshot)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < snapshot->n_held; i++)
        sum += snapshot->held[i].count * (1 + strlen(snapshot->held[i].name));
    return sum;
}

static void check_again(const struct snapshot *snapshot)
{
    char *text = snapshot_format(snapshot);
    struct snapshot again;
    bool other;

    CHECK(text);
    CHECK(snapshot_parse(&again, text, strlen(text), &other) && !other);
    check_bounds(&again);
    CHECK(strcmp(again.id, snapshot->id) == 0 && again.bye == snapshot->bye);
    CHECK(again.started == snapshot->started && again.seq == snapshot->seq);
    CHECK(again.sessions == snapshot->sessions && again.queued == snapshot->queued);
    CHECK(again.n_limits == snapshot->n_limits && again.n_down == snapshot->n_down);
    CHECK(again.n_rates == snapshot->n_rates && sum_of(&again) == sum_of(snapshot));
    snapshot_clear(&again);
    free(text);
}

static void check_view(struct snapshot *snapshot)
{
    static const char *const names[] = { "relay1", "relay2" };
    bool bye = snapshot->bye;
    struct view view;
    uint32_t others[2], scratch[1], down, limit;
    int64_t at;
    float rate;

    view_init(&view, 3000, 1, 0);
    view_connected(&view, 0);
    CHECK(view_take(&view, snapshot, 0) == (bye ? VIEW_OLD : VIEW_NEWS));
    CHECK(view_instances(&view, 2999) == (bye ? 1 : 2) && view_instances(&view, 3000) == 1);
    view_held(&view, names, 2, others, 0);
    CHECK(others[0] <= SNAPSHOT_COUNT_MAX && others[1] <= SNAPSHOT_COUNT_MAX);
    view_verdict(&view, "relay1", scratch, &down, &limit, 0);
    CHECK(down <= 1 && limit > 0 && (limit <= SNAPSHOT_COUNT_MAX || limit == BACKEND_NO_CEILING));
    view_rates(&view, "relays", 1000, &rate, &at);
    CHECK(rate >= 0 && (double)rate <= SNAPSHOT_RATE_MAX && at >= 0 && at <= 1000);
    view_clear(&view);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct snapshot snapshot;
    bool other;

    if (snapshot_parse(&snapshot, (const char *)data, size, &other)) {
        CHECK(!other);
        check_bounds(&snapshot);
        check_again(&snapshot);
        check_view(&snapshot);
    }
    snapshot_clear(&snapshot);
    return 0;
}
