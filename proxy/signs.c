/*
 * What a session tells health of the relay that it is at, and what it keeps to itself: whatever is the
 * client's making, and what is of the time before the relay was last out.
 */
#include "health/health.h"
#include "proxy/link.h"
#include "proxy/session_internal.h"

/* A greeting is no proof: a relay that greets all and fails at every MAIL would always have the fewest
 * connections, and draw all mail to itself. */
void signs_good(const struct session *s)
{
    struct errand *e = s->errand;

    health_report(e->member->backend, HEALTH_GOOD, s->worker->now);
    if (e->link->proved)
        return;
    e->link->proved = true;
    health_report_session(e->member->backend, s->worker->index, false);
}

/* Behind so many refusals a relay may answer on purpose late whatever comes (Postfix: smtpd_soft_error_limit,
 * which is 10 where nobody has lowered it). */
#define REFUSALS_SLOWED 3

bool signs_slowed(struct link *link, const struct smtp_action_arg *arg)
{
    bool slowed = link->refusals >= REFUSALS_SLOWED;

    if (arg->replied.code >= 400)
        link->refusals++;
    else if (arg->replied.final)
        link->refusals = 0;
    return slowed;
}

/* Connected and not greeted while nearly all its places are taken, or while it answers others: a full relay,
 * not a broken one. */
static bool kept_waiting(const struct session *s)
{
    const struct backend *backend = s->errand->member->backend;
    uint64_t ceiling = atomic_load_explicit(&backend->ceiling, memory_order_relaxed);
    uint64_t taken = atomic_load_explicit(&backend->connections, memory_order_relaxed);
    bool full = ceiling != BACKEND_NO_CEILING && taken * 10 >= ceiling * 8;

    return (full || health_at_work(backend)) && stream_connected(&s->errand->link->stream);
}

static void report_failure(const struct session *s)
{
    struct backend *backend = s->errand->member->backend;

    health_report_session(backend, s->worker->index, true);
    health_report(backend, HEALTH_HARD, s->worker->now);
}

/* Not what it was in when it fell, and is no longer: sessions may wait ten minutes for a reply that was lost
 * with the relay that has long been back. A 421 is its word of now. */
void signs_lost(const struct session *s, enum smtp_loss loss)
{
    struct backend *backend = s->errand->member->backend;
    int64_t now = s->worker->now;

    if (loss != SMTP_LOSS_BUSY && backend_was_out_since(backend, s->errand->linked))
        return;
    switch (loss) {
    case SMTP_LOSS_NONE:
    case SMTP_LOSS_DOWN: break;
    case SMTP_LOSS_REFUSED: health_report(backend, HEALTH_REFUSED, now); break;
    case SMTP_LOSS_BUSY: health_report(backend, HEALTH_LOAD, now); break;
    case SMTP_LOSS_TIMEOUT:
        if (kept_waiting(s))
            health_report(backend, HEALTH_LOAD, now);
        else
            report_failure(s);
        break;
    case SMTP_LOSS_CLOSED:
    case SMTP_LOSS_TLS:
    case SMTP_LOSS_REJECTED:
    case SMTP_LOSS_GARBAGE: report_failure(s); break;
    }
}

void signs_unanswered(const struct session *s)
{
    const struct errand *e = s->errand;

    if (!backend_was_out_since(e->member->backend, e->linked))
        health_report_reply(e->member->backend, s->worker->index, &(struct health_reply){ .final = true });
}
