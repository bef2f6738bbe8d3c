/*
 * What other instances have found out about a backend. A relay that is dead for one is mostly dead for all;
 * but one instance may sit behind a broken network, so its word is a reason to look, and only that of many is
 * a verdict.
 */
#include "health/record.h"
#include "net/clock.h"

#define LOOK_WITHIN 1000 /* ms */

static void on_look(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    schedule_check_now(timer->data);
}

void peers_init(struct record *record)
{
    ev_init(&record->peers_timer, on_look);
    record->peers_timer.data = record;
}

void peers_stop(struct record *record)
{
    ev_timer_stop(record->health->loop, &record->peers_timer);
    record->peers_down = 0;
    record->peers_agree = false;
}

static uint32_t quorum(uint32_t instances)
{
    uint32_t half = (instances + 1) / 2;

    return half > 2 ? half : 2;
}

void health_hear(struct health *health, struct backend *backend, const struct health_peers *peers)
{
    struct record *record = record_of(backend);
    bool agreed;
    uint32_t before;

    (void)health;
    if (!record || !record->pool)
        return;
    before = record->peers_down;
    agreed = record->peers_agree;
    record->peers_down = peers->down;
    record->peers_agree = peers->down >= quorum(peers->instances);
    if (peers->down > before && record->judge.state != BACKEND_DOWN)
        record_arm(record, &record->peers_timer, judge_random(&record->judge, LOOK_WITHIN));
    if (record->orders.by[ORDER_PEERS].limit != peers->limit) {
        struct order order = order_none;

        order.limit = peers->limit;
        health_order(health, backend, ORDER_PEERS, &order);
    }
    if (record->peers_agree && !agreed) {
        int64_t now = clock_milliseconds();

        judge_peers(&record->judge, publish_can_spare(record), now);
        publish(record, now);
    }
}
