/*
 * Members that come and go while a configuration is in force: its names have other addresses. Farm and front
 * are built anew from the same configuration, and committed as a reload's are.
 */
#include "health/names.h"
#include "net/log.h"
#include "proxy/process_internal.h"

/* Names that change together, as at the start, are one change; and name servers that give another answer each
 * time must not keep everybody busy. Seconds. */
#define MEMBERS_TOGETHER 0.02
#define MEMBERS_REST     1.

void membership_part(struct process *p, const struct farm *old)
{
    for (size_t i = 0; i < old->n_backends; i++) {
        for (uint32_t w = 0; old->backends[i]->left && w < p->n_workers; w++)
            worker_backend_leave(p->workers[w], old->backends[i], false);
    }
}

/* The same configuration with the addresses that its names have now. */
static void change_members(struct process *p)
{
    struct farm *present = p->front->farm;
    const struct name_source names = names_source(p->names);
    struct farm *farm = farm_create_found(present->config, &names, present);
    char error[256] = "out of memory";
    struct front *front =
        farm ? front_create(farm, p->front, rate_redis_bank(p->rates), p->clients, error, sizeof error)
             : NULL;

    farm_release(&farm);
    p->members_changed = ev_now(p->loop);
    if (front) {
        process_commit(p, front);
    } else {
        log_message(LOG_LEVEL_ERROR, "backend-members", "%s: still those of before", error);
        membership_changed(p); /* again, after a rest */
    }
}

static void on_members_change(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct process *p = timer->data;

    (void)loop;
    (void)events;
    if (!p->closed) /* the listeners' descriptors, which the new front would go on with, are there */
        change_members(p);
}

void membership_changed(void *arg)
{
    struct process *p = arg;
    ev_tstamp rest = p->members_changed + MEMBERS_REST - ev_now(p->loop);

    if (ev_is_active(&p->members_change))
        return;
    ev_timer_set(&p->members_change,
                 rest > MEMBERS_TOGETHER && rest <= MEMBERS_REST ? rest : MEMBERS_TOGETHER, 0.);
    ev_timer_start(p->loop, &p->members_change);
}

void membership_init(struct process *p)
{
    ev_init(&p->members_change, on_members_change);
    p->members_change.data = p;
}
