#include "tests/sim/doubles.h"

#include <assert.h>
#include <stdlib.h>

#include "health/check.h"
#include "tests/sim/workload.h"

static struct relay *all;
static size_t n_all;

void doubles_set_relays(struct relay *relays, size_t n)
{
    all = relays;
    n_all = n;
}

/* --- checks -----------------------------------------------------------------------------------------------
 */

struct check {
    struct guest guest;
    struct event event; /* decided, or out of patience */
    struct relay *relay;
    bool connected;
    struct check_handler handler;
};

static void leave(struct check *check)
{
    calendar_cancel(&check->event);
    if (check->connected)
        relay_disconnect(check->relay, &check->guest);
    free(check);
}

static void on_time(struct event *event)
{
    struct check *check = CALENDAR_OF(event, struct check, event);
    struct check_handler handler = check->handler;
    struct check_result result = { .verdict = CHECK_PASSED, .reason = "" };
    const struct check_times times = { 0 };

    if (!check->connected) {
        result = (struct check_result){ .verdict = CHECK_BUSY, .told_busy = true, .reason = "banner 421" };
    } else if (check->guest.greeted) {
        result = (struct check_result){ .verdict = CHECK_BUSY, .reason = "banner timeout" };
    } else {
        result.capabilities_known = true;
        result.capabilities.flags = SMTP_CAP_PIPELINING | SMTP_CAP_8BITMIME;
    }
    leave(check);
    handler.decided(handler.arg, &result);
    handler.ended(handler.arg, &times);
}

static void on_greeted(struct guest *guest)
{
    struct check *check = (struct check *)guest;

    calendar_set(&check->event, calendar_now() + WORKLOAD_CHECK);
}

/* Put in the place of the real ones by the linker. */
struct check *__wrap_check_start(struct ev_loop *loop, const struct check_target *target,
                                 const struct check_handler *handler);
void __wrap_check_abort(struct check **check);

struct check *__wrap_check_start(struct ev_loop *loop, const struct check_target *target,
                                 const struct check_handler *handler)
{
    size_t which = (size_t)ntohs(target->address->in.sin_port) - DOUBLES_PORT;
    struct check *check = calloc(1, sizeof *check);

    (void)loop;
    assert(which < n_all);
    if (!check)
        return NULL;
    check->relay = &all[which];
    check->handler = *handler;
    check->event.happen = on_time;
    check->guest.greeted = on_greeted;
    check->connected = check->relay->mood != RELAY_BUSY;
    calendar_set(&check->event,
                 calendar_now() + (check->connected ? CHECK_BANNER_LIMIT / 1000. : WORKLOAD_CHECK));
    if (check->connected)
        relay_connect(check->relay, &check->guest);
    return check;
}

void __wrap_check_abort(struct check **check)
{
    if (*check)
        leave(*check);
    *check = NULL;
}
