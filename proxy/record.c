#include "proxy/record.h"

#include <string.h>

#include "net/decimal.h"
#include "net/log.h"
#include "proxy/link.h"
#include "proxy/session_internal.h"

#define TOLD_EVERY_MS 1000

void record_add_session(struct log_record *r, const struct session *s)
{
    static const char hex[] = "0123456789abcdef";
    char text[ADDRESS_TEXT_MAX];
    char id[17];
    struct tls_description tls;

    for (int i = 0; i < 16; i++)
        id[i] = hex[(s->id >> (60 - 4 * i)) & 15];
    id[16] = '\0';
    log_plain(r, "session", id);
    log_plain(r, "listener", s->listener->config->name);
    log_plain(r, "client", peer_format(&s->peer, true, text));
    log_string(r, "helo", s->dialog.helo);
    if (stream_tls(&s->client, &tls)) {
        log_plain(r, "tls", tls.version);
        log_plain(r, "cipher", tls.cipher);
        log_string(r, "sni", tls.sni);
    }
    log_string(r, "user", s->dialog.user ? s->dialog.user : s->login);
}

static void count_handshake(struct worker *worker, enum admin_tls_side side, const struct stream *stream)
{
    struct tls_description tls;
    enum admin_tls_result result = ADMIN_TLS_FAILED;

    if (stream_tls(stream, &tls))
        result = tls.resumed ? ADMIN_TLS_RESUMED : ADMIN_TLS_FULL;
    stat_add(&worker->stats.handshakes[side][result], 1);
}

static const char *failure(const struct stream *stream)
{
    const char *why = stream_tls_failure(stream);

    return *why ? why : "the handshake took too long";
}

void record_client_handshake(const struct session *s)
{
    char text[ADDRESS_TEXT_MAX];
    struct log_record r;

    count_handshake(s->worker, ADMIN_TLS_CLIENT, &s->client);
    if (stream_tls(&s->client, NULL) || !log_begin(&r, LOG_LEVEL_INFO, "tls"))
        return;
    log_plain(&r, "listener", s->listener->config->name);
    log_plain(&r, "client", peer_format(&s->peer, true, text));
    log_string(&r, "reason", failure(&s->client));
    log_end(&r);
}

void record_backend_handshake(const struct session *s)
{
    static _Atomic int64_t told_until;
    const struct errand *e = s->errand;
    int64_t now = s->worker->now, until = atomic_load_explicit(&told_until, memory_order_relaxed);
    struct log_record r;

    count_handshake(s->worker, ADMIN_TLS_BACKEND, &e->link->stream);
    if (stream_tls(&e->link->stream, NULL) || now < until ||
        !atomic_compare_exchange_strong(&told_until, &until, now + TOLD_EVERY_MS) ||
        !log_begin(&r, LOG_LEVEL_WARNING, "tls"))
        return;
    log_plain(&r, "pool", errand_pool(s)->config->name);
    log_plain(&r, "backend", backend_name(e->member->backend));
    log_string(&r, "reason", failure(&e->link->stream));
    log_end(&r);
}

static void add_count(struct log_record *r, const struct smtp_transaction *t)
{
    char text[24], *end = decimal_put(text, t->accepted);

    *end++ = '/';
    end = decimal_put(end, t->recipients);
    *end = '\0';
    log_plain(r, "rcpts", text);
}

void record_transaction(const struct session *s, const struct smtp_transaction *t)
{
    const struct errand *e = s->errand;
    struct log_record r;

    if (!log_begin(&r, LOG_LEVEL_INFO, "transaction"))
        return;
    record_add_session(&r, s);
    log_text(&r, "from", t->from, t->from_size);
    add_count(&r, t);
    log_number(&r, "size", (int64_t)t->size);
    log_plain(&r, "pool", errand_pool(s)->config->name);
    if (e->member)
        log_plain(&r, "backend", backend_name(e->member->backend));
    log_plain(&r, "outcome", transaction_outcome_name((enum transaction_outcome)t->outcome));
    log_number(&r, "code", t->code);
    log_text(&r, "reply", t->reply, t->reply_size);
    log_number(&r, "queue_ms", e->queue_ms);
    log_number(&r, "connect_ms", e->connect_ms);
    log_number(&r, "mail_ms", e->mail_ms);
    log_number(&r, "rcpt_ms", e->rcpt_ms);
    log_number(&r, "data_ms", e->data_ms);
    log_number(&r, "end_ms", e->end_ms);
    log_number(&r, "total_ms", e->began ? s->worker->now - e->began : 0);
    log_number(&r, "attempts", e->attempts ? e->attempts : 1);
    log_end(&r);
}

void record_session(const struct session *s)
{
    struct log_record r;

    if (!log_begin(&r, LOG_LEVEL_INFO, "session"))
        return;
    record_add_session(&r, s);
    log_number(&r, "transactions", s->dialog.transactions);
    log_number(&r, "bytes_in", (int64_t)s->bytes_in);
    log_number(&r, "bytes_out", (int64_t)s->bytes_out);
    log_number(&r, "duration_ms", s->worker->now - s->began);
    log_plain(&r, "end", smtp_ending_name(s->dialog.ending));
    if (s->dialog.refusal)
        log_text(&r, "refusal", s->dialog.refusal, strcspn(s->dialog.refusal, "\r"));
    log_end(&r);
}
