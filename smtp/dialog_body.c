/*
 * The message on its way to the backend: DATA content up to CRLF.CRLF (RFC 5321 §4.1.1.4), BDAT chunks by
 * count (RFC 3030).
 *
 * Octets are looked at where they were read and passed on from there. When the backend can no longer have
 * them (lost, refused early, too large) they are thrown away up to where the client thinks the message ends,
 * and it then hears what `held` says.
 */
#include <string.h>

#include "smtp/dialog_internal.h"

void body_begin_data(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    x->body = BODY_DATA;
    x->early = false;
    smtp_scan_start(&x->scan, d->policy->newline, true);
    enter_backend(d, SMTP_BACKEND_BODY);
    enter_client(d, SMTP_CLIENT_BODY);
}

void body_begin_chunk(struct smtp_dialog *d, uint64_t octets, bool last)
{
    struct smtp_exchange *x = d->exchange;

    /* A chunk's length has been announced: a bare LF can't become CRLF here, so it is refused in both
     * policies. */
    if (!x->chunked)
        smtp_scan_start(&x->scan, SMTP_NEWLINE_REJECT, false);
    x->chunked = true;
    x->last = last;
    x->early = false;
    x->chunk_left = octets;
    x->body = BODY_CHUNK;
    x->queue[(x->head + x->count - 1) % PIPELINE_MAX].final = last;
    enter_backend(d, SMTP_BACKEND_BODY);
    enter_client(d, SMTP_CLIENT_BODY);
    if (!octets)
        client_body(d, "", 0);
}

/* The backend won't have the rest. What it, or Weir, says about it waits for the end of the client's octets.
 */
void body_hold(struct smtp_dialog *d, enum smtp_outcome outcome, const char *reply, size_t size)
{
    struct smtp_exchange *x = d->exchange;

    x->held_outcome = outcome;
    x->held_size = size < HELD_MAX ? size : HELD_MAX;
    memcpy(x->held, reply, x->held_size);
    if (x->held_size == HELD_MAX)
        memcpy(x->held + HELD_MAX - 2, "\r\n", 2);
    x->body = BODY_DISCARD;
    d->serial++;
}

/* The client's message, or chunk, is over, and it hears what was held. */
static void discard_complete(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;
    bool again = x->chunked && !x->last;

    if (!d->client_gone)
        output_copy(&d->wire->client, x->held, x->held_size);
    transaction_end(d, x->held_outcome);
    d->told_failure = true;
    enter_client(d, again ? SMTP_CLIENT_FAILED : SMTP_CLIENT_READY);
}

static void chunk_complete(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    if (x->body == BODY_DISCARD) {
        discard_complete(d);
        return;
    }
    x->body = BODY_NONE;
    enter_backend(d, x->last ? SMTP_BACKEND_END_OF_DATA : SMTP_BACKEND_READY);
    if (!x->last)
        enter_client(d, SMTP_CLIENT_RCPT); /* behind the reply to this chunk comes BDAT or RSET */
}

static void data_complete(struct smtp_dialog *d)
{
    struct smtp_exchange *x = d->exchange;

    if (x->body == BODY_DISCARD) {
        discard_complete(d);
        return;
    }
    x->body = BODY_NONE;
    x->transaction.size -= x->transaction.size >= 3 ? 3 : 0; /* the dot line is not the message's */
    /* An entry without text: the reply that is awaited now. */
    x->queue[x->head] =
        (struct pending){ .kind = PENDING_FORWARD, .verb = SMTP_VERB_DATA, .final = true, .sent = d->tick };
    x->count = x->sent = x->forwards = 1;
    enter_backend(d, SMTP_BACKEND_END_OF_DATA);
}

/* RFC 5321 §2.3.8: CR and LF occur only together. Nothing tells where such a client believes its message to
 * end, so the session ends. */
static void bare_newline(struct smtp_dialog *d)
{
    static const char refusal[] = "550 5.5.2 Bare CR or LF in the message\r\n";
    struct smtp_exchange *x = d->exchange;

    if (x->body == BODY_DISCARD) {
        output_copy(&d->wire->client, x->held, x->held_size);
        transaction_end(d, x->held_outcome);
    } else {
        say(d, refusal);
        part_backend(d, false, SMTP_LOSS_NONE);
        transaction_note_own(d, refusal);
        transaction_end(d, SMTP_OUTCOME_REJECTED);
    }
    close_client(d, SMTP_ENDING_ERRORS);
}

static void pass(struct smtp_dialog *d, const char *data, size_t size)
{
    struct smtp_exchange *x = d->exchange;

    x->transaction.size += size;
    if (x->body == BODY_DISCARD)
        return;
    if (d->offer.size_limit && x->transaction.size > d->offer.size_limit + 3) {
        static const char refusal[] = "552 5.3.4 The message is too large\r\n";
        part_backend(d, false, SMTP_LOSS_NONE);
        transaction_note_own(d, refusal);
        body_hold(d, SMTP_OUTCOME_REJECTED, refusal, sizeof refusal - 1);
        return;
    }
    output_range(&d->wire->backend, data, size);
}

static size_t data_content(struct smtp_dialog *d, const char *in, size_t size)
{
    struct smtp_exchange *x = d->exchange;
    struct smtp_scan_result found;
    size_t done = 0;

    /* A CR waits for what comes behind it, so that the backend never sees one that turns out to be bare. */
    if (in[size - 1] == '\r' && (size < 2 || in[size - 2] != '\r') && --size == 0)
        return 0;
    do {
        found = smtp_scan_feed(&x->scan, in + done, size - done);
        pass(d, in + done, found.pass);
        done += found.pass + found.skip;
        switch (found.verdict) {
        case SMTP_SCAN_MORE: break;
        case SMTP_SCAN_END: data_complete(d); return done;
        case SMTP_SCAN_EDIT: pass(d, found.insert, strlen(found.insert)); break;
        case SMTP_SCAN_BARE_LF:
        case SMTP_SCAN_BARE_CR: bare_newline(d); return size;
        }
    } while (done < size && wire_has_room(d->wire));
    return done;
}

static size_t chunk_content(struct smtp_dialog *d, const char *in, size_t size)
{
    struct smtp_exchange *x = d->exchange;

    if (size > x->chunk_left)
        size = (size_t)x->chunk_left;
    x->chunk_left -= size;
    if (x->body == BODY_CHUNK && !x->binary) {
        struct smtp_scan_result found = smtp_scan_feed(&x->scan, in, size);
        bool clean = found.verdict == SMTP_SCAN_MORE;

        if (clean && !x->chunk_left && x->last)
            clean = smtp_scan_finish(&x->scan);
        if (!clean) {
            bare_newline(d);
            return size;
        }
    }
    pass(d, in, size);
    if (!x->chunk_left)
        chunk_complete(d);
    return size;
}

size_t client_body(struct smtp_dialog *d, const char *in, size_t size)
{
    struct smtp_exchange *x = d->exchange;
    size_t used = 0;

    switch (x->body) {
    case BODY_NONE: return 0; /* the reply to the whole message is awaited */
    case BODY_DATA: used = data_content(d, in, size); break;
    case BODY_CHUNK: used = chunk_content(d, in, size); break;
    case BODY_DISCARD: used = x->chunked ? chunk_content(d, in, size) : data_content(d, in, size); break;
    }
    if (used)
        d->serial++;
    return used;
}
