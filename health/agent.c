#include "health/agent.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "health/agent_text.h"
#include "health/record.h"
#include "net/clock.h"
#include "net/log.h"
#include "net/stream.h"

#define AGENTS_AT_ONCE 100 /* asked, apart from checks: those that never answer hold up only each other */

/* How it has behaved; a change is logged, so that one that is away for a day is told of once. */
enum agent_mood {
    MOOD_UNASKED,
    MOOD_ANSWERS,
    MOOD_HALF, /* of what it says only a part is understood */
    MOOD_ODD,
    MOOD_SILENT,
};
static const char *const mood_names[] = { "", "answers", "half-understood", "not-understood", "unreachable" };
static_assert(sizeof mood_names / sizeof *mood_names == MOOD_SILENT + 1, "a name for each");

struct agent {
    struct turn turn;
    struct record *record;
    struct stream stream;
    ev_timer timer; /* the next question; while one is under way, the end of patience */
    bool on;
    char *text;             /* as configured; NULL: there is none */
    struct address address; /* length 0: not known yet */
    enum agent_mood mood;
    size_t size;
    char in[AGENT_TEXT_MAX];
};

static struct line *line_of(const struct agent *agent)
{
    return &agent->record->health->agents;
}

static bool is_heard(enum agent_mood mood)
{
    return mood == MOOD_ANSWERS || mood == MOOD_HALF;
}

/* What others see of it. */
static void show(const struct agent *agent)
{
    struct record *record = agent->record;

    pthread_mutex_lock(&record->view_lock);
    record->view.has_agent = agent->on;
    record->view.agent_answers = is_heard(agent->mood);
    record->view.agent_down = record->judge.told_down;
    record->view.agent = record->orders.by[ORDER_AGENT];
    pthread_mutex_unlock(&record->view_lock);
}

static void log_mood(const struct agent *agent, enum agent_mood mood, const char *reason)
{
    bool bad = mood != MOOD_ANSWERS;
    struct log_record line;

    if (!log_begin(&line, bad ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "backend-agent"))
        return;
    log_string(&line, "backend", backend_name(agent->record->backend));
    log_string(&line, "agent", agent->text);
    log_plain(&line, "state", mood_names[mood]);
    if (bad)
        log_string(&line, "reason", reason);
    log_end(&line);
}

static void be(struct agent *agent, enum agent_mood mood, const char *reason)
{
    bool news = mood != agent->mood && !(agent->mood == MOOD_UNASKED && mood == MOOD_ANSWERS);

    if (news)
        log_mood(agent, mood, reason);
    agent->mood = mood;
    show(agent);
}

/* --- its word --- */

/* Figures may change with every answer; what is logged is that they begin or end to matter. */
static void log_word(const struct agent *agent, const struct order *before, const struct order *word)
{
    bool news = !before->share != !word->share ||
                (before->limit == BACKEND_NO_CEILING) != (word->limit == BACKEND_NO_CEILING);
    struct log_record line;

    if (!log_begin(&line, news ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, "backend-agent"))
        return;
    log_string(&line, "backend", backend_name(agent->record->backend));
    log_plain(&line, "state", mood_names[MOOD_ANSWERS]);
    log_number(&line, "percent", word->share * 100 / ORDER_ALL);
    if (word->limit != BACKEND_NO_CEILING)
        log_number(&line, "limit", word->limit);
    log_end(&line);
}

static void order(struct agent *agent, const struct order *word)
{
    struct record *record = agent->record;
    struct order before = record->orders.by[ORDER_AGENT];

    if (word->share != before.share || word->limit != before.limit)
        log_word(agent, &before, word);
    else if (word->admin == before.admin)
        return;
    health_order(record->health, record->backend, ORDER_AGENT, word);
}

/* `reason` NULL: it works, says the agent. */
static void tell(struct record *record, const char *reason)
{
    int64_t now = clock_milliseconds();

    if (record->judge.told_down == (reason != NULL))
        return;
    judge_told(&record->judge, reason, now);
    if (!record->pool)
        return;
    publish(record, now);
    if (!reason)
        schedule_check_now(record);
}

static void take(struct agent *agent, const struct agent_text *text)
{
    struct order word = agent->record->orders.by[ORDER_AGENT];
    char reason[JUDGE_REASON_MAX];

    if (text->says_admin)
        word.admin = text->admin;
    if (text->says_share)
        word.share = text->share;
    if (text->says_limit)
        word.limit = text->limit;
    order(agent, &word);
    switch (text->health) {
    case AGENT_HEALTH_UNSAID: break;
    case AGENT_UP: tell(agent->record, NULL); break;
    case AGENT_DOWN:
    case AGENT_FAIL:
    case AGENT_STOPPED:
        (void)snprintf(reason, sizeof reason, "agent: %s%s%s", agent_health_name(text->health),
                       *text->why ? ": " : "", text->why);
        tell(agent->record, reason);
        break;
    }
}

static void withdraw(struct agent *agent)
{
    agent->mood = MOOD_UNASKED;
    order(agent, &order_none);
    tell(agent->record, NULL);
    show(agent);
}

/* --- asking --- */

static void ask_later(struct agent *agent)
{
    struct record *record = agent->record;

    record_arm(record, &agent->timer, judge_jitter(&record->judge, record->pool->health.interval));
}

static void hang_up(struct agent *agent)
{
    stream_close(&agent->stream);
    ask_later(agent);
    line_leave(line_of(agent), &agent->turn);
}

static void not_reached(struct agent *agent, const char *reason)
{
    be(agent, MOOD_SILENT, reason);
    hang_up(agent);
}

static void heard(struct agent *agent, enum agent_verdict verdict, const struct agent_text *text)
{
    char reason[AGENT_WHY_MAX + 32];

    if (*text->odd)
        (void)snprintf(reason, sizeof reason, "unknown word: %s", text->odd);
    else
        (void)snprintf(reason, sizeof reason, "it says nothing%s%s", *text->why ? ": " : "", text->why);
    switch (verdict) {
    case AGENT_TEXT_MORE: return;
    case AGENT_TEXT_SAID:
        be(agent, *text->odd ? MOOD_HALF : MOOD_ANSWERS, reason);
        take(agent, text);
        show(agent);
        break;
    case AGENT_TEXT_NO_LINE: be(agent, MOOD_ODD, "no line of text"); break;
    case AGENT_TEXT_NOTHING:
    case AGENT_TEXT_ODD: be(agent, MOOD_ODD, reason); break;
    }
    hang_up(agent);
}

static const char *failure(ssize_t error)
{
    switch (-error) {
    case ECONNREFUSED: return "connect refused";
    case ECONNRESET: return "reset";
    case ETIMEDOUT: return "timeout";
    case EHOSTUNREACH:
    case ENETUNREACH: return "no route";
    default: return strerrordesc_np((int)-error);
    }
}

static void on_stream(struct stream *stream, enum stream_event event)
{
    struct agent *agent = (struct agent *)((char *)stream - offsetof(struct agent, stream));
    struct agent_text text = { 0 };
    ssize_t n;

    if (event != STREAM_READABLE)
        return;
    n = stream_read(stream, agent->in + agent->size, sizeof agent->in - agent->size);
    if (n == -EAGAIN)
        return;
    if (n < 0) {
        not_reached(agent, failure(n));
        return;
    }
    agent->size += (size_t)n;
    heard(agent, agent_text_read(agent->in, agent->size, n == 0, &text), &text);
}

static bool begin(struct turn *turn)
{
    struct agent *agent = (struct agent *)turn; /* its first member */
    const struct config_pool *pool = agent->record->pool;
    const struct address *source = &pool->source;
    int error;

    if (source->length && source->sa.sa_family != agent->address.sa.sa_family)
        source = NULL;
    agent->size = 0;
    error = agent->address.length ? stream_connect(&agent->stream, agent->record->health->loop,
                                                   &agent->address, source, on_stream)
                                  : -EDESTADDRREQ;
    if (error) {
        be(agent, MOOD_SILENT, agent->address.length ? failure(error) : "no address is known");
        ask_later(agent);
        return false;
    }
    record_arm(agent->record, &agent->timer, pool->health.timeout);
    return true;
}

static void ask(struct agent *agent)
{
    ev_timer_stop(agent->record->health->loop, &agent->timer);
    line_enter(line_of(agent), &agent->turn);
}

static void on_time(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct agent *agent = timer->data;

    (void)loop;
    (void)events;
    if (agent->turn.running)
        not_reached(agent, "timeout");
    else
        ask(agent);
}

/* --- life --- */

void agents_init(struct health *health)
{
    health->agents = (struct line){ .limit = AGENTS_AT_ONCE, .begin = begin };
}

static struct agent *create(struct record *record)
{
    struct agent *agent = calloc(1, sizeof *agent);

    if (!agent) {
        log_message(LOG_LEVEL_ERROR, "out-of-memory", "the agent of backend %s is not asked",
                    backend_name(record->backend));
        return NULL;
    }
    agent->record = record;
    stream_init(&agent->stream);
    ev_timer_init(&agent->timer, on_time, 0, 0);
    agent->timer.data = agent;
    return agent;
}

void agent_stop(struct record *record)
{
    struct agent *agent = record->agent;

    if (!agent)
        return;
    agent->on = false;
    stream_close(&agent->stream);
    ev_timer_stop(record->health->loop, &agent->timer);
    line_leave(line_of(agent), &agent->turn);
}

/* The interval may have become shorter. */
static void hurry(struct agent *agent)
{
    struct record *record = agent->record;

    if (!agent->turn.running && ev_is_active(&agent->timer) &&
        ev_timer_remaining(record->health->loop, &agent->timer) * 1000. > record->pool->health.interval)
        ask_later(agent);
}

/* Whether it is the one that it was. A name may move, a port alone is one of the backend's own address. */
static bool is_same(const struct agent *agent, const struct farm_given *given)
{
    const struct config_agent *config = &given->config->agent;

    return agent && agent->on && agent->record->pool && config->port &&
           strcmp(agent->text, config->text) == 0 &&
           (config->host || address_equal(&agent->address, &given->agent));
}

/* Another one, or none: what was said is withdrawn. */
static void replace(struct agent *agent, const struct farm_given *given)
{
    struct record *record = agent->record;

    agent_stop(record);
    free(agent->text);
    agent->text = record->pool && given->config->agent.port ? strdup(given->config->agent.text) : NULL;
    agent->on = agent->text != NULL;
    agent->address = given->agent;
    withdraw(agent);
    if (agent->on)
        ask(agent);
}

void agent_configure(struct record *record, const struct farm_given *given)
{
    struct agent *agent = record->agent;

    if (is_same(agent, given)) {
        bool found = !agent->address.length && given->agent.length;

        agent->address = given->agent;
        if (found)
            ask(agent);
        else
            hurry(agent);
        return;
    }
    if (!agent && record->pool && given->config->agent.port)
        agent = record->agent = create(record);
    if (agent)
        replace(agent, given);
}

void agent_free(struct record *record)
{
    if (record->agent)
        free(record->agent->text);
    free(record->agent);
    record->agent = NULL;
}
