/*
 * Commands of the client (RFC 5321 §4.1; pipelining RFC 2920).
 *
 * A handler returns false when it cannot answer yet: the line is then not consumed and comes again. That is
 * how a reply of Weir's own waits for the backend's replies to the commands before it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "smtp/dialog_internal.h"

/* NOOP, RSET, VRFY and the like between two messages are free up to here; beyond, each counts as an error. */
#define CHATTER_MAX 100
/* A refused chunk of this many octets is still read and thrown away; a larger one ends the session. */
#define SKIP_MAX (UINT64_C(1) << 30)

#define TLS_HANDSHAKE 0x16 /* RFC 8446 §5.1: the content type of a record */

enum {
    NOW = 1,     /* answered here: waits until nothing forwarded is unanswered */
    GREETED = 2, /* needs HELO or EHLO */
    CHATTER = 4, /* brings no mail forward */
    CLEAR = 8,   /* allowed before TLS where that is required, or refused there in words of its own */
};

#define STARTTLS_FIRST "530 5.7.0 STARTTLS comes first\r\n"

struct verb_rule {
    bool (*handle)(struct smtp_dialog *d, const struct smtp_command *command);
    unsigned flags;
};

static struct smtp_span span(const char *text)
{
    return (struct smtp_span){ text, strlen(text) };
}

void complain(struct smtp_dialog *d, const char *reply)
{
    d->refusal = reply;
    if (++d->errors < d->policy->max_errors) {
        say(d, reply);
        return;
    }
    say(d, "421 4.7.0 Too many errors\r\n");
    transaction_leave(d, false);
    close_client(d, SMTP_ENDING_ERRORS);
}

bool chatters_on(struct smtp_dialog *d)
{
    if (++d->chatter <= CHATTER_MAX || ++d->errors < d->policy->max_errors)
        return false;
    say(d, "421 4.7.0 Too many commands without a message\r\n");
    transaction_leave(d, false);
    close_client(d, SMTP_ENDING_ERRORS);
    return true;
}

static bool tls_comes_first(const struct smtp_dialog *d)
{
    return d->policy->starttls == SMTP_STARTTLS_REQUIRED && d->channel != SMTP_CHANNEL_TLS;
}

/* --- greeting --- */

static bool greet(struct smtp_dialog *d, const struct smtp_command *command, bool extended)
{
    struct smtp_output *out = &d->wire->client;

    if (!smtp_helo_valid(command->argument)) {
        complain(d, "501 5.5.4 A domain or address literal is needed\r\n");
        return true;
    }
    if (!d->helo_given && !take_helo(d, command->argument.data, command->argument.size)) {
        say(d, "451 4.3.0 Out of memory\r\n");
        return true;
    }
    d->extended = extended;
    transaction_leave(d, true);
    if (extended) {
        char *reply = output_reserve(out, SMTP_EHLO_REPLY_MAX + XCLIENT_OFFER_MAX);
        struct smtp_capabilities offer = d->offer;
        size_t size;

        offer.flags = offered_now(d);
        size = smtp_capabilities_format(&offer, d->policy->hostname, reply);

        output_commit(out, d->xclient_from ? add_xclient(reply, size) : size);
    } else {
        output_copy(out, "250 ", 4);
        output_copy(out, d->policy->hostname, strlen(d->policy->hostname));
        output_copy(out, "\r\n", 2);
    }
    enter_client(d, SMTP_CLIENT_READY);
    return true;
}

static bool on_helo(struct smtp_dialog *d, const struct smtp_command *command)
{
    return greet(d, command, false);
}

static bool on_ehlo(struct smtp_dialog *d, const struct smtp_command *command)
{
    return greet(d, command, true);
}

/* --- the envelope --- */

static const char *mail_refusal(const struct smtp_dialog *d, struct smtp_span argument,
                                struct smtp_mail *mail)
{
    const char *reply;

    if (d->client_state != SMTP_CLIENT_READY && d->client_state != SMTP_CLIENT_FAILED)
        return "503 5.5.1 A transaction is open already\r\n";
    if (!d->may_relay && !d->authenticated)
        return d->policy->auth ? "530 5.7.0 Authentication required\r\n"
                               : "550 5.7.1 Relaying from your address is not allowed\r\n";
    reply = smtp_mail_parse(argument, offered_now(d), mail);
    if (reply)
        return reply;
    if (d->offer.size_limit && mail->size > d->offer.size_limit)
        return "552 5.3.4 The message is too large\r\n";
    return NULL;
}

/* A transaction begins: its backend is the one at hand if that can carry it, else one is asked for. */
static void transaction_begin(struct smtp_dialog *d, const struct smtp_mail *mail)
{
    struct smtp_exchange *x = d->exchange;
    struct smtp_transaction *t = &x->transaction;

    memset(t, 0, sizeof *t);
    t->from_size = mail->path.size < sizeof t->from ? mail->path.size : sizeof t->from;
    memcpy(t->from, mail->path.data, t->from_size);
    x->needs = mail->uses;
    x->declared_size = mail->size;
    x->path_size = mail->path.size;
    x->utf8 = mail->uses & SMTP_CAP_SMTPUTF8;
    x->binary = mail->body == SMTP_BODY_BINARYMIME;
    x->outstanding_recipients = 0;
    x->open = true;
    x->early = x->lost_at_work = false;
}

static bool backend_can_carry(const struct smtp_exchange *x, const struct smtp_mail *mail)
{
    return x->backend_state == SMTP_BACKEND_READY && !(mail->uses & ~x->backend.flags) &&
           !(mail->size && x->backend.size_limit && mail->size > x->backend.size_limit);
}

static bool on_mail(struct smtp_dialog *d, const struct smtp_command *command)
{
    struct smtp_mail mail;
    const char *refusal = mail_refusal(d, command->argument, &mail);

    if (refusal) {
        complain(d, refusal);
        return true;
    }
    if (d->draining && d->transactions) {
        say(d, "421 4.3.2 Shutting down\r\n");
        close_client(d, SMTP_ENDING_SHUTDOWN);
        return true;
    }
    if (auth_mail_refused(d))
        return true;
    if (!exchange_begin(d)) {
        say(d, "451 4.3.0 Out of memory\r\n");
        return true;
    }
    if (d->authenticated && !backend_can_carry(d->exchange, &mail)) {
        say(d, "451 4.3.5 The relay that you authenticated to can't carry this message\r\n");
        return true;
    }
    if (!gate_lets_mail(d, mail.path)) {
        gate_refuse_mail(d);
        return true;
    }
    if (!d->authenticated && backend_can_carry(d->exchange, &mail) && !route_settled(d, &mail.path))
        return false;
    if (!queue_identity(d) ||
        !queue_command(d, PENDING_FORWARD, SMTP_VERB_MAIL, span(MAIL_FROM), mail.path, mail.parameters))
        return false;
    transaction_begin(d, &mail);
    enter_client(d, SMTP_CLIENT_MAIL);
    if (backend_can_carry(d->exchange, &mail)) {
        queue_pump(d);
        return true;
    }
    part_backend(d, true, SMTP_LOSS_NONE);
    backend_want(d);
    return true;
}

static bool on_rcpt(struct smtp_dialog *d, const struct smtp_command *command)
{
    struct smtp_exchange *x = d->exchange;
    struct smtp_rcpt rcpt;
    const char *refusal = NULL;
    bool open = d->client_state == SMTP_CLIENT_MAIL || d->client_state == SMTP_CLIENT_RCPT;

    if (d->client_state == SMTP_CLIENT_FAILED) {
        d->told_failure = true;
        say(d, REPLY_LOST);
        return true;
    }
    if (!open)
        refusal = "503 5.5.1 MAIL comes first\r\n";
    else
        refusal = smtp_rcpt_parse(command->argument, d->offer.flags, x->utf8, &rcpt);
    if (refusal) {
        if (busy(d))
            return false;
        complain(d, refusal);
        return true;
    }
    if (x->outstanding_recipients + x->transaction.accepted >= d->policy->max_recipients) {
        if (busy(d))
            return false;
        say(d, "452 4.5.3 Too many recipients\r\n");
        return true;
    }
    if ((rcpt.uses & ~x->backend.flags) && x->backend_state == SMTP_BACKEND_READY) {
        /* NOTIFY and ORCPT to a backend that never offered DSN: it would refuse them for good. */
        if (busy(d))
            return false;
        say(d, "451 4.3.5 The backend at hand lacks an extension that this recipient uses\r\n");
        return true;
    }
    if (!gate_lets_recipient(d)) {
        if (busy(d))
            return false;
        gate_refuse_recipient(d);
        return true;
    }
    x->needs |= rcpt.uses;
    if (!queue_command(d, PENDING_FORWARD, SMTP_VERB_RCPT, span("RCPT TO:"), rcpt.path, rcpt.parameters))
        return false;
    x->outstanding_recipients++;
    x->transaction.recipients++;
    enter_client(d, SMTP_CLIENT_RCPT);
    queue_pump(d);
    return true;
}

/* --- the message --- */

/* DATA was refused. A client that had sent its message all the same must not have it taken for commands. */
void refuse_data(struct smtp_dialog *d)
{
    if (!d->unread || d->client_state == SMTP_CLIENT_CLOSING)
        return;
    say(d, "421 4.5.0 Octets behind a refused DATA, closing\r\n");
    transaction_leave(d, true);
    close_client(d, SMTP_ENDING_ERRORS);
}

static const char *data_refusal(const struct smtp_dialog *d, struct smtp_span argument)
{
    const struct smtp_exchange *x = d->exchange;

    if (d->client_state != SMTP_CLIENT_RCPT)
        return d->client_state == SMTP_CLIENT_MAIL ? "503 5.5.1 RCPT comes first\r\n"
                                                   : "503 5.5.1 MAIL comes first\r\n";
    if (argument.size)
        return "501 5.5.4 DATA takes no argument\r\n";
    if (x->chunked || x->binary)
        return "503 5.5.1 This transaction uses BDAT\r\n";
    if (!x->forwards && !x->transaction.accepted)
        return "554 5.5.1 No valid recipients\r\n";
    return NULL;
}

static bool on_data(struct smtp_dialog *d, const struct smtp_command *command)
{
    const char *refusal;

    if (d->client_state == SMTP_CLIENT_FAILED) {
        d->told_failure = true;
        say(d, REPLY_LOST);
        refuse_data(d);
        return true;
    }
    refusal = data_refusal(d, command->argument);
    if (refusal) {
        if (busy(d))
            return false;
        complain(d, refusal);
        refuse_data(d);
        return true;
    }
    if (!queue_command(d, PENDING_FORWARD, SMTP_VERB_DATA, span("DATA"), (struct smtp_span){ 0 },
                       (struct smtp_span){ 0 }))
        return false;
    enter_client(d, SMTP_CLIENT_DATA);
    queue_pump(d);
    return true;
}

static void skip_chunk(struct smtp_dialog *d, uint64_t octets, const char *reply)
{
    d->errors++;
    if (octets > SKIP_MAX || d->errors >= d->policy->max_errors) {
        say(d, reply);
        transaction_leave(d, false);
        close_client(d, SMTP_ENDING_ERRORS);
        return;
    }
    if (!octets) {
        say(d, reply);
        return;
    }
    d->skip_left = octets;
    d->skip_reply = reply;
}

/* A chunk of the message will be missing. A client that had pipelined its next ones, or takes no notice, must
 * not hear 2xx for what is left of it. */
static const char *chunk_missed(struct smtp_dialog *d, const char *refusal)
{
    if (d->client_state == SMTP_CLIENT_MAIL || d->client_state == SMTP_CLIENT_RCPT) {
        transaction_leave(d, true);
        d->told_failure = true;
        enter_client(d, SMTP_CLIENT_FAILED);
    }
    return refusal;
}

static const char *chunk_refusal(struct smtp_dialog *d, uint64_t octets)
{
    struct smtp_exchange *x = d->exchange;
    bool told = d->told_failure;

    if (tls_comes_first(d))
        return STARTTLS_FIRST;
    if (!(d->offer.flags & SMTP_CAP_CHUNKING))
        return "502 5.5.1 BDAT is not offered\r\n";
    if (d->client_state == SMTP_CLIENT_FAILED) {
        d->told_failure = true;
        return told ? "503 5.5.1 The transaction has failed\r\n" : REPLY_LOST;
    }
    if (d->client_state != SMTP_CLIENT_RCPT)
        return chunk_missed(d, "503 5.5.1 RCPT comes first\r\n");
    if (!x->transaction.accepted)
        return chunk_missed(d, "554 5.5.1 No valid recipients\r\n");
    if (x->backend_state == SMTP_BACKEND_READY && !(x->backend.flags & SMTP_CAP_CHUNKING))
        return "451 4.3.5 The backend at hand takes no BDAT\r\n";
    if (d->offer.size_limit && octets + x->transaction.size > d->offer.size_limit) {
        static const char too_large[] = "552 5.3.4 The message is too large\r\n";
        transaction_note_own(d, too_large);
        transaction_end(d, SMTP_OUTCOME_REJECTED);
        part_backend(d, false, SMTP_LOSS_NONE);
        d->told_failure = true;
        enter_client(d, SMTP_CLIENT_FAILED);
        return too_large;
    }
    return NULL;
}

static bool on_bdat(struct smtp_dialog *d, const struct smtp_command *command)
{
    uint64_t octets = 0;
    bool last = false, has_octets = false;
    const char *refusal;
    char number[24];

    if (!smtp_bdat_parse(command->argument, &octets, &last, &has_octets)) {
        static const char malformed[] = "501 5.5.4 BDAT takes a number of octets and perhaps LAST\r\n";
        /* Without a number nobody knows where the commands go on. */
        if (has_octets)
            skip_chunk(d, octets, chunk_missed(d, malformed));
        else
            skip_chunk(d, UINT64_MAX, malformed);
        return true;
    }
    refusal = chunk_refusal(d, octets);
    if (refusal) {
        skip_chunk(d, octets, refusal);
        return true;
    }
    /* Not the client's words: a backend that read "0010" or a tab in another way than Weir would take content
     * for commands. */
    snprintf(number, sizeof number, "%" PRIu64, octets);
    if (!queue_command(d, PENDING_FORWARD, SMTP_VERB_BDAT, span("BDAT "), span(number),
                       last ? span("LAST") : (struct smtp_span){ 0 }))
        return false;
    queue_pump(d);
    body_begin_chunk(d, octets, last);
    return true;
}

/* --- the rest --- */

static bool on_rset(struct smtp_dialog *d, const struct smtp_command *command)
{
    if (command->argument.size) {
        complain(d, "501 5.5.4 RSET takes no argument\r\n");
        return true;
    }
    transaction_leave(d, true);
    if (d->client_state != SMTP_CLIENT_HELO)
        enter_client(d, SMTP_CLIENT_READY);
    say(d, "250 2.0.0 Ok\r\n");
    return true;
}

static bool on_noop(struct smtp_dialog *d, const struct smtp_command *command)
{
    (void)command;
    say(d, "250 2.0.0 Ok\r\n");
    return true;
}

static bool on_vrfy(struct smtp_dialog *d, const struct smtp_command *command)
{
    if (!command->argument.size)
        complain(d, "501 5.5.4 VRFY takes an address\r\n");
    else
        say(d, "252 2.0.0 Not verified here; send it and see\r\n");
    return true;
}

static bool on_help(struct smtp_dialog *d, const struct smtp_command *command)
{
    (void)command;
    say(d, "214 2.0.0 Weir, an SMTP proxy: HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT\r\n");
    return true;
}

static bool on_quit(struct smtp_dialog *d, const struct smtp_command *command)
{
    (void)command;
    say(d, "221 2.0.0 Bye\r\n");
    transaction_leave(d, false);
    close_client(d, SMTP_ENDING_QUIT);
    return true;
}

static bool not_offered(struct smtp_dialog *d, const struct smtp_command *command)
{
    (void)command;
    complain(d, "502 5.5.1 Not implemented here\r\n");
    return true;
}

static bool unknown(struct smtp_dialog *d, const struct smtp_command *command)
{
    (void)command;
    complain(d, "500 5.5.1 Command not recognised\r\n");
    return true;
}

/* A browser was made to speak to a mail port: nothing it sends is looked at any further. */
static bool http(struct smtp_dialog *d, const struct smtp_command *command)
{
    (void)command;
    transaction_leave(d, false);
    close_client(d, SMTP_ENDING_REFUSED);
    return true;
}

static const struct verb_rule rules[SMTP_VERB_COUNT] = {
    [SMTP_VERB_UNKNOWN] = {unknown,      NOW | CLEAR          },
    [SMTP_VERB_HELO] = { on_helo,     NOW | CHATTER        },
    [SMTP_VERB_EHLO] = { on_ehlo,     NOW | CHATTER | CLEAR},
    [SMTP_VERB_MAIL] = { on_mail,     NOW | GREETED        },
    [SMTP_VERB_RCPT] = { on_rcpt,     GREETED              },
    [SMTP_VERB_DATA] = { on_data,     GREETED              },
    [SMTP_VERB_BDAT] = { on_bdat,     NOW | CLEAR          },
    [SMTP_VERB_RSET] = { on_rset,     NOW | CHATTER        },
    [SMTP_VERB_NOOP] = { on_noop,     NOW | CHATTER | CLEAR},
    [SMTP_VERB_VRFY] = { on_vrfy,     NOW | CHATTER        },
    [SMTP_VERB_EXPN] = { not_offered, NOW                  },
    [SMTP_VERB_HELP] = { on_help,     NOW | CHATTER        },
    [SMTP_VERB_QUIT] = { on_quit,     NOW | CLEAR          },
    [SMTP_VERB_STARTTLS] = { on_starttls, NOW | CLEAR          },
    [SMTP_VERB_AUTH] = { on_auth,     NOW | CLEAR          },
    [SMTP_VERB_ETRN] = { not_offered, NOW                  },
    [SMTP_VERB_XCLIENT] = { on_xclient,  NOW                  },
    [SMTP_VERB_XFORWARD] = { on_xforward, NOW                  },
    [SMTP_VERB_HTTP] = { http,        NOW | CLEAR          },
};

/* True if the command was answered or queued. */
static bool dispatch(struct smtp_dialog *d, const struct smtp_command *command)
{
    const struct verb_rule *rule = &rules[command->verb];

    if ((rule->flags & NOW) && busy(d))
        return false;
    if (!(rule->flags & CLEAR) && tls_comes_first(d)) {
        complain(d, STARTTLS_FIRST);
        if (command->verb == SMTP_VERB_DATA)
            refuse_data(d);
        return true;
    }
    if ((rule->flags & GREETED) && d->client_state == SMTP_CLIENT_HELO) {
        complain(d, "503 5.5.1 HELO or EHLO comes first\r\n");
        if (command->verb == SMTP_VERB_DATA)
            refuse_data(d);
        return true;
    }
    if ((rule->flags & CHATTER) && chatters_on(d))
        return true;
    return rule->handle(d, command);
}

/* --- lines --- */

static size_t line_limit(const char *in, size_t size)
{
    return size >= 4 && strncasecmp(in, "AUTH", 4) == 0 ? SMTP_LINE_AUTH_MAX : SMTP_LINE_MAX;
}

/* The rest of an overlong line, up to its CRLF. A CR at the end of the input stays, to be seen together with
 * its LF. */
size_t skip_line(struct smtp_dialog *d, const char *in, size_t size)
{
    const char *end = memmem(in, size, "\r\n", 2);

    if (end) {
        d->skipping = false;
        return (size_t)(end - in) + 2;
    }
    return in[size - 1] == '\r' ? size - 1 : size;
}

static size_t too_long(struct smtp_dialog *d, const char *in, size_t size)
{
    d->skipping = true;
    complain(d, "500 5.5.2 Line too long\r\n");
    return skip_line(d, in, size);
}

/* Only CRLF ends a line (RFC 5321 §2.3.8): the client hears of it at once, and what it sends up to the next
 * CRLF is no command. */
static size_t bare_line_feed(struct smtp_dialog *d, size_t line)
{
    d->skipping = true;
    complain(d, "500 5.5.2 Bare LF in a command\r\n");
    return line;
}

size_t client_command(struct smtp_dialog *d, const char *in, size_t size)
{
    const char *lf;
    size_t line, text;
    struct smtp_command command;

    if (d->skipping)
        return skip_line(d, in, size);
    if (in[0] == TLS_HANDSHAKE && d->channel != SMTP_CHANNEL_TLS && !busy(d)) {
        /* A hello of TLS on a port that begins in the clear: nothing that could be said would be understood.
         */
        transaction_leave(d, false);
        close_client(d, SMTP_ENDING_REFUSED);
        return size;
    }
    lf = memchr(in, '\n', size);
    line = lf ? (size_t)(lf - in) + 1 : size;
    if (line > line_limit(in, line) || (!lf && line == line_limit(in, line)))
        return busy(d) ? 0 : too_long(d, in, size);
    if (!lf)
        return 0;
    text = line - 1;
    if (text && in[text - 1] == '\r')
        text--;
    else if (d->policy->newline == SMTP_NEWLINE_REJECT)
        return busy(d) ? 0 : bare_line_feed(d, line);
    if (memchr(in, '\r', text)) {
        if (busy(d))
            return 0;
        complain(d, "500 5.5.2 Bare CR in a command\r\n");
        return line;
    }
    command = smtp_command_parse(in, text);
    d->unread = size - line;
    if (!dispatch(d, &command))
        return 0;
    d->gate_asked = false;
    d->serial++;
    return line;
}
