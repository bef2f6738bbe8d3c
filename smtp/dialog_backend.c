/*
 * The backend's side: its greeting, its replies to what was passed on, and its loss (smtp.md "Delivery
 * guarantee").
 *
 * enter_backend() and the functions that call it send; the functions here read a reply and choose what comes
 * next.
 */
#include <string.h>

#include "smtp/dialog_internal.h"

void backend_want(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;
    struct smtp_action_arg *arg = act(d, SMTP_ACTION_NEED_BACKEND);

    arg->need.needs = x->needs;
    arg->need.size = x->declared_size;
    route_describe(x, arg);
    x->sent = 0;
    enter_backend(d, SMTP_BACKEND_WANTED);
}

/* --- greeting --- */

/* Behind XCLIENT the words are the client's, and so is the name: that is what a Received line then shows. */
static void send_greeting(struct smtp_dialog *d, const char *verb, enum smtp_backend_state state)
{
    struct smtp_output *out = &d->wire->backend;
    bool as_client = d->introduction == SMTP_INTRODUCE_XCLIENT && d->exchange->introduced && d->helo;
    const char *name = as_client ? d->helo : d->policy->hostname;

    output_copy(out, verb, 5);
    output_copy(out, name, strlen(name));
    output_copy(out, "\r\n", 2);
    enter_backend(d, state);
}

/* Its EHLO is read: the transaction's commands go out, unless it can't carry them after all. */
static void greeted(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;
    bool small = x->declared_size && x->backend.size_limit && x->declared_size > x->backend.size_limit;

    act(d, SMTP_ACTION_BACKEND_GREETED)->capabilities = &x->backend;
    enter_backend(d, SMTP_BACKEND_READY);
    if (small || (x->needs & ~x->backend.flags)) {
        part_backend(d, true, SMTP_LOSS_NONE);
        backend_want(d);
        return;
    }
    queue_pump(d);
}

/* A backend that knows who the client is may refuse just that one (a list, a limit of its own): that says
 * nothing of the backend, and one bad client must not take relays from all others. Health checks introduce
 * themselves too, and see what is really broken. */
static void refused_greeting(struct smtp_dialog *d, const struct smtp_reply *reply)
{
    bool known = d->introduction == SMTP_INTRODUCE_PROXY || d->introduction == SMTP_INTRODUCE_XCLIENT;

    if (known && reply->code >= 400)
        backend_lost(d, SMTP_LOSS_NONE);
    else
        backend_lost(d, reply->code == 421 ? SMTP_LOSS_BUSY : SMTP_LOSS_REJECTED);
}

/* --- who the client is --- */

/* Its EHLO is read. Where the client's identity is passed on, a backend that does not take it is no use: what
 * it lets the client do may hang on it. */
static void introduce(struct smtp_dialog *d)
{
    struct smtp_output *out = &d->wire->backend;
    size_t size;

    if (d->introduction <= SMTP_INTRODUCE_PROXY || d->exchange->introduced) {
        greeted(d);
        return;
    }
    size = identity_line(d, output_reserve(out, IDENTITY_LINE_MAX));
    if (!size) {
        backend_lost(d, SMTP_LOSS_REJECTED);
        return;
    }
    output_commit(out, size);
    enter_backend(d, SMTP_BACKEND_IDENTITY);
}

/* XCLIENT puts the session back to the greeting (220), and EHLO may then say other things; XFORWARD changes
 * nothing (250). */
static void identity_reply(struct smtp_dialog *d, const struct smtp_reply *reply)
{
    bool xclient = d->introduction == SMTP_INTRODUCE_XCLIENT;

    if (reply->code != (xclient ? 220 : 250)) {
        refused_greeting(d, reply);
        return;
    }
    d->exchange->introduced = true;
    if (xclient)
        send_greeting(d, "EHLO ", SMTP_BACKEND_EHLO);
    else
        greeted(d);
}

/* RFC 5321 §4.2.4: what an old server says to EHLO. One that is told who the client is is not old: it may be
 * answering a PROXY header that it did not expect, and would be one reply behind from then on. */
static bool may_be_old(const struct smtp_dialog *d, int code)
{
    return d->introduction == SMTP_INTRODUCE_NOT && d->exchange->backend_state == SMTP_BACKEND_EHLO &&
           (code == 500 || code == 501 || code == 502 || code == 504);
}

static void ehlo_reply(struct smtp_dialog *d, const char *in, const struct smtp_reply *reply)
{
    struct smtp_exchange *x = d->exchange;

    if (reply->code == 250) {
        memset(&x->backend, 0, sizeof x->backend);
        if (x->backend_state == SMTP_BACKEND_EHLO)
            smtp_capabilities_parse(&x->backend, in, reply->size);
        if (!backend_tls_begin(d))
            introduce(d);
    } else if (may_be_old(d, reply->code)) {
        send_greeting(d, "HELO ", SMTP_BACKEND_HELO); /* RFC 5321 §3.2: an old server */
    } else if (reply->code < 400) {
        backend_lost(d, SMTP_LOSS_GARBAGE); /* above all a second banner: all replies would be one off */
    } else {
        refused_greeting(d, reply);
    }
}

/* --- replies to commands --- */

static enum smtp_outcome outcome_of(int code)
{
    switch (code / 100) {
    case 2: return SMTP_OUTCOME_DELIVERED;
    case 5: return SMTP_OUTCOME_REJECTED;
    default: return SMTP_OUTCOME_DEFERRED;
    }
}

void pass_reply(struct smtp_dialog *d, const char *in, const struct smtp_reply *reply)
{
    struct smtp_output *out = &d->wire->client;

    if (d->client_gone)
        return;
    smtp_reply_sanitise(in, reply->size, output_reserve(out, reply->size), d->exchange->utf8);
    output_commit(out, reply->size);
}

/* The backend has been lost, or none was to be had, with a transaction open that can't move: everything
 * unanswered hears `reply`. */
static void fail_transaction(struct smtp_dialog *d, const char *reply)
{
    struct smtp_exchange *x = d->exchange;
    bool data = d->client_state == SMTP_CLIENT_DATA;
    enum smtp_outcome outcome = SMTP_OUTCOME_FAILED;
    unsigned unanswered = x->forwards;

    for (unsigned i = 0; i < unanswered; i++)
        say(d, reply);
    while (x->count)
        queue_pop(d);
    x->outstanding_recipients = 0;
    if (x->refused)
        outcome = outcome_of(x->transaction.code);
    else
        transaction_note_own(d, reply);
    transaction_end(d, outcome);
    d->told_failure = unanswered > 0;
    enter_client(d, SMTP_CLIENT_FAILED);
    if (data)
        refuse_data(d);
}

/* The message was complete and its fate is not known: the one case in which another try may make a duplicate
 * (RFC 1047). */
static void fate_unknown(struct smtp_dialog *d)
{
    while (d->exchange->count)
        queue_pop(d);
    transaction_note_own(d, REPLY_LOST);
    transaction_end(d, SMTP_OUTCOME_UNKNOWN);
    say(d, REPLY_LOST);
    enter_client(d, SMTP_CLIENT_READY);
    if (d->client_gone)
        close_client(d, SMTP_ENDING_GONE);
}

void session_give_up(struct smtp_dialog *d, const char *reply)
{
    say(d, reply);
    transaction_note_own(d, reply);
    transaction_end(d, SMTP_OUTCOME_FAILED);
    close_client(d, SMTP_ENDING_NO_BACKEND);
}

/* What is said of this client or its message (4.1, 4.2, 4.7: "too many errors", a policy; any 5xx) is no word
 * on how well the backend is, or one client could take it from all others. */
static bool is_of_client(const struct smtp_reply *reply)
{
    return reply->code >= 500 ||
           (reply->status_class == 4 && (reply->subject == 1 || reply->subject == 2 || reply->subject == 7));
}

/* A 421 in a session. 4.4.2 is that it has waited for the client long enough. */
enum smtp_loss backend_goodbye(const struct smtp_reply *reply)
{
    bool waited = reply->status_class == 4 && reply->subject == 4 && reply->detail == 2;

    return waited || is_of_client(reply) ? SMTP_LOSS_NONE : SMTP_LOSS_BUSY;
}

void backend_lost(struct smtp_dialog *d, enum smtp_loss loss)
{
    struct smtp_exchange *x = d->exchange;
    enum smtp_backend_state was;
    bool open, committed;

    if (!x || x->backend_state == SMTP_BACKEND_NONE || x->backend_state == SMTP_BACKEND_WANTED)
        return;
    if (backend_retry_in_clear(d, loss))
        return;
    if (loss == SMTP_LOSS_CLOSED && x->turned_away)
        loss = SMTP_LOSS_NONE; /* as Exim's `drop` does */
    was = x->backend_state;
    open = x->open || x->auth_wanted;
    committed = x->committed;
    x->committed = false; /* keeps the queue, for those whom it must be answered */
    part_backend(d, false, open || loss == SMTP_LOSS_GARBAGE ? loss : SMTP_LOSS_NONE);
    x->committed = committed;
    if (auth_lost(d))
        return;
    if (!open)
        return; /* idle: nobody is told, the next MAIL asks anew */
    if (was == SMTP_BACKEND_END_OF_DATA) {
        fate_unknown(d);
    } else if (x->body != BODY_NONE) {
        while (x->count)
            queue_pop(d);
        transaction_note_own(d, REPLY_LOST);
        body_hold(d, SMTP_OUTCOME_FAILED, REPLY_LOST, sizeof REPLY_LOST - 1);
    } else if (!committed) {
        x->lost_at_work = x->lost_at_work || was == SMTP_BACKEND_READY;
        backend_want(d);
    } else {
        fail_transaction(d, REPLY_LOST);
    }
}

void backend_refused(struct smtp_dialog *d, const char *reply)
{
    struct smtp_exchange *x = d->exchange;

    if (!x || x->backend_state != SMTP_BACKEND_WANTED)
        return;
    enter_backend(d, SMTP_BACKEND_NONE);
    if (auth_backend_refused(d, reply))
        return;
    gate_take_back(d);
    if (x->lost_at_work) {
        /* There was one, and it failed at this transaction: that need not end the session. */
        fail_transaction(d, REPLY_LOST);
        return;
    }
    if (memcmp(reply, "421", 3) != 0) {
        fail_transaction(d, reply);
        return;
    }
    session_give_up(d, reply);
}

/* Between two transactions, with nothing unanswered. */
void backend_leave_if_idle(struct smtp_dialog *d)
{
    const struct smtp_exchange *x = d->exchange;

    if (x && x->leaving && x->backend_state == SMTP_BACKEND_READY && !x->open && !x->count &&
        d->client_state != SMTP_CLIENT_AUTH)
        part_backend(d, true, SMTP_LOSS_NONE);
}

void backend_leave(struct smtp_dialog *d, bool must)
{
    struct smtp_exchange *x = d->exchange;

    if (!x || x->backend_state == SMTP_BACKEND_NONE || x->backend_state == SMTP_BACKEND_WANTED)
        return;
    if (!must && (d->authenticated || x->auth_wanted || d->client_state == SMTP_CLIENT_AUTH))
        return;
    x->leaving = true;
    backend_leave_if_idle(d);
}

/* The reply that decides a message. The only place from which a client hears 2xx for one. */
static void final_reply(struct smtp_dialog *d, const char *in, const struct smtp_reply *reply)
{
    static const char going[] = "451 4.3.2 The backend is going away; please try again\r\n";
    bool busy_now = reply->code == 421;

    queue_pop(d);
    if (busy_now)
        say(d, going); /* a 421 would tell the client that Weir itself is */
    else
        pass_reply(d, in, reply);
    transaction_note(d, reply->code, reply->text, reply->text_size);
    transaction_end(d, outcome_of(reply->code));
    enter_backend(d, SMTP_BACKEND_READY);
    enter_client(d, SMTP_CLIENT_READY);
    if (busy_now)
        part_backend(d, false, backend_goodbye(reply));
    if (d->client_gone)
        close_client(d, SMTP_ENDING_GONE);
}

/* MAIL was refused and everything sent behind it has been answered: the transaction is over. */
static void settle_refused(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    if (!x->open || !x->refused || x->forwards)
        return;
    transaction_end(d, outcome_of(x->transaction.code));
    enter_client(d, SMTP_CLIENT_READY);
}

static void mail_reply(struct smtp_dialog *d, const struct smtp_reply *reply)
{
    struct smtp_exchange *x = d->exchange;

    x->committed = true;
    if (reply->code / 100 == 2)
        return;
    x->refused = true;
    transaction_note(d, reply->code, reply->text, reply->text_size);
}

static void rcpt_reply(struct smtp_dialog *d, const struct smtp_reply *reply)
{
    struct smtp_exchange *x = d->exchange;

    x->outstanding_recipients--;
    if (reply->code / 100 == 2)
        x->transaction.accepted++;
    else if (!x->refused)
        transaction_note(d, reply->code, reply->text, reply->text_size);
}

static void data_reply(struct smtp_dialog *d, const struct smtp_reply *reply)
{
    if (reply->code == 354) {
        body_begin_data(d);
        return;
    }
    if (!d->exchange->refused)
        transaction_note(d, reply->code, reply->text, reply->text_size);
    enter_client(d, SMTP_CLIENT_RCPT);
    refuse_data(d);
}

static void chunk_reply(struct smtp_dialog *d, const struct smtp_reply *reply)
{
    if (reply->code / 100 == 2)
        return;
    /* Whether it would skip the octets of further chunks is not put to the test. */
    transaction_note(d, reply->code, reply->text, reply->text_size);
    transaction_end(d, outcome_of(reply->code));
    part_backend(d, false, SMTP_LOSS_NONE);
    d->told_failure = true;
    enter_client(d, SMTP_CLIENT_FAILED);
}

static bool class_fits(const struct smtp_exchange *x, const struct pending *entry, int code)
{
    int class = code / 100;

    if (entry->verb == SMTP_VERB_AUTH)
        return class >= 4 || code == 334 || code == 235;
    if (class == 3)
        return entry->verb == SMTP_VERB_DATA && !entry->final && code == 354 && !x->refused;
    if (class == 2 && entry->verb == SMTP_VERB_DATA && !entry->final)
        return false;
    /* A 2xx that began to come before the message or chunk was complete speaks of something else. */
    if (class == 2 && x->early && (entry->final || entry->verb == SMTP_VERB_BDAT))
        return false;
    return true;
}

static void measured(struct smtp_dialog *d, const struct pending *entry, const struct smtp_reply *reply)
{
    struct smtp_action_arg *arg = act(d, SMTP_ACTION_REPLIED);

    arg->replied.verb = (enum smtp_verb)entry->verb;
    arg->replied.final = entry->final || (entry->verb == SMTP_VERB_AUTH && reply->code != 334);
    arg->replied.code = reply->code;
    arg->replied.status_class = reply->status_class;
    arg->replied.subject = reply->subject;
    arg->replied.sent = entry->sent;
}

static void command_reply(struct smtp_dialog *d, const char *in, const struct smtp_reply *reply)
{
    struct smtp_exchange *x = d->exchange;
    struct pending entry = x->queue[x->head];

    if (!class_fits(x, &entry, reply->code)) {
        backend_lost(d, SMTP_LOSS_GARBAGE);
        return;
    }
    measured(d, &entry, reply);
    x->turned_away = is_of_client(reply);
    if (entry.final) {
        final_reply(d, in, reply);
        return;
    }
    if (reply->code == 421) {
        backend_lost(d, backend_goodbye(reply));
        return;
    }
    if (entry.kind == PENDING_SWALLOW) {
        queue_pop(d);
        if (reply->code / 100 != 2)
            backend_lost(d, SMTP_LOSS_GARBAGE);
        else
            queue_pump(d);
        return;
    }
    if (entry.verb == SMTP_VERB_AUTH) {
        queue_pop(d);
        auth_reply(d, in, reply);
        return;
    }
    pass_reply(d, in, reply);
    queue_pop(d);
    if (entry.verb == SMTP_VERB_MAIL)
        mail_reply(d, reply);
    else if (entry.verb == SMTP_VERB_RCPT)
        rcpt_reply(d, reply);
    else if (entry.verb == SMTP_VERB_DATA)
        data_reply(d, reply);
    else
        chunk_reply(d, reply);
    settle_refused(d);
    if (d->client_state != SMTP_CLIENT_CLOSING)
        queue_pump(d);
}

/* A reply while the message is still on its way. A refusal is kept for the message's end; it is believed, but
 * not the connection it came on, as nobody knows what that backend takes the rest of the message for. */
static void early_reply(struct smtp_dialog *d, const char *in, const struct smtp_reply *reply)
{
    struct smtp_exchange *x = d->exchange;
    char clean[SMTP_REPLY_MAX];

    if (reply->code == 421) {
        backend_lost(d, backend_goodbye(reply));
        return;
    }
    if (reply->code < 400) {
        backend_lost(d, SMTP_LOSS_GARBAGE);
        return;
    }
    part_backend(d, false, SMTP_LOSS_NONE);
    smtp_reply_sanitise(in, reply->size, clean, x->utf8);
    transaction_note(d, reply->code, reply->text, reply->text_size);
    if (reply->size > HELD_MAX) {
        /* Only the last line of a sermon, which is complete by itself. */
        const char *before = memrchr(clean, '\n', reply->size - 1);
        size_t skip = before ? (size_t)(before + 1 - clean) : 0;

        body_hold(d, outcome_of(reply->code), clean + skip, reply->size - skip);
        return;
    }
    body_hold(d, outcome_of(reply->code), clean, reply->size);
}

void backend_secured(struct smtp_dialog *d)
{
    if (!d->exchange || d->exchange->backend_state != SMTP_BACKEND_TLS)
        return;
    d->exchange->secured = true;
    send_greeting(d, "EHLO ", SMTP_BACKEND_EHLO);
}

void backend_reply(struct smtp_dialog *d, const char *in, const struct smtp_reply *reply)
{
    switch (d->exchange->backend_state) {
    case SMTP_BACKEND_NONE:
    case SMTP_BACKEND_WANTED: break;
    case SMTP_BACKEND_BANNER:
        if (reply->code == 220)
            send_greeting(d, "EHLO ", SMTP_BACKEND_EHLO);
        else
            refused_greeting(d, reply);
        break;
    case SMTP_BACKEND_EHLO:
    case SMTP_BACKEND_HELO: ehlo_reply(d, in, reply); break;
    case SMTP_BACKEND_STARTTLS:
        if (starttls_reply(d, reply))
            introduce(d);
        break;
    case SMTP_BACKEND_TLS: break;
    case SMTP_BACKEND_IDENTITY: identity_reply(d, reply); break;
    case SMTP_BACKEND_READY:
    case SMTP_BACKEND_END_OF_DATA: command_reply(d, in, reply); break;
    case SMTP_BACKEND_BODY: early_reply(d, in, reply); break;
    }
}
