#include "smtp/probe.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "smtp/command.h"
#include "smtp/reply.h"

/* For reasons. */
static const char *const stage_names[] = {
    "banner", "EHLO", "HELO", "STARTTLS", "TLS", "identity", "MAIL", "RCPT", "RSET", "QUIT", "end",
};
static_assert(sizeof stage_names / sizeof *stage_names == SMTP_PROBE_STAGES, "a name for each stage");

void smtp_probe_init(struct smtp_probe *probe, const char *hostname, bool ehlo, enum smtp_probe_tls tls)
{
    memset(probe, 0, sizeof *probe);
    probe->hostname = hostname;
    probe->ehlo = ehlo;
    probe->tls = tls;
    probe->stage = tls == SMTP_PROBE_TLS_IMPLICIT ? SMTP_PROBE_TLS : SMTP_PROBE_BANNER;
}

/* 0: it lists nothing that would tell who the client is. */
static int format_identity(struct smtp_probe *probe)
{
    bool xclient = strcmp(probe->introduce, "XCLIENT") == 0;

    return (int)smtp_xclient_format(probe->out, sizeof probe->out, probe->introduce,
                                    xclient ? probe->capabilities.xclient : probe->capabilities.xforward,
                                    &probe->identity, probe->hostname, strlen(probe->hostname), true);
}

bool smtp_probe_mailbox_valid(const char *mailbox)
{
    char argument[sizeof "FROM:<>" + SMTP_PROBE_PATH_MAX];
    int size = snprintf(argument, sizeof argument, "FROM:<%s>", mailbox);
    struct smtp_mail mail;

    if (strlen(mailbox) > SMTP_PROBE_PATH_MAX - 2 ||
        smtp_mail_parse((struct smtp_span){ argument, (size_t)size }, 0, &mail))
        return false;
    /* The path has taken all of it: "a> SIZE=1" is a path and a parameter. */
    return mail.path.size == strlen(mailbox) + 2;
}

/* Enter a stage and send its command. */
static enum smtp_probe_action enter(struct smtp_probe *probe, enum smtp_probe_stage stage)
{
    int size = 0;

    probe->stage = stage;
    switch (stage) {
    case SMTP_PROBE_EHLO:
        size = snprintf(probe->out, sizeof probe->out, "EHLO %s\r\n", probe->hostname);
        break;
    case SMTP_PROBE_HELO:
        size = snprintf(probe->out, sizeof probe->out, "HELO %s\r\n", probe->hostname);
        break;
    case SMTP_PROBE_STARTTLS: size = snprintf(probe->out, sizeof probe->out, "STARTTLS\r\n"); break;
    case SMTP_PROBE_TLS: return SMTP_PROBE_SECURE;
    case SMTP_PROBE_IDENTITY: size = format_identity(probe); break;
    case SMTP_PROBE_MAIL:
        size = snprintf(probe->out, sizeof probe->out, "MAIL FROM:<%s>\r\n", probe->sender);
        break;
    case SMTP_PROBE_RCPT:
        size = snprintf(probe->out, sizeof probe->out, "RCPT TO:<%s>\r\n", probe->recipient);
        break;
    case SMTP_PROBE_RSET: size = snprintf(probe->out, sizeof probe->out, "RSET\r\n"); break;
    case SMTP_PROBE_QUIT: size = snprintf(probe->out, sizeof probe->out, "QUIT\r\n"); break;
    case SMTP_PROBE_BANNER: return SMTP_PROBE_READ;
    case SMTP_PROBE_ENDED: return SMTP_PROBE_CLOSE;
    }
    /* A command cut short must not be sent: a hostname this long is no hostname. */
    assert(size > 0 && (size_t)size < sizeof probe->out);
    probe->out_size = (size_t)size;
    return SMTP_PROBE_SEND;
}

static void fail(struct smtp_probe *probe, const char *what, size_t size)
{
    probe->verdict = SMTP_PROBE_FAILED;
    (void)snprintf(probe->reason, sizeof probe->reason, "%s %.*s", stage_names[probe->stage], (int)size,
                   what);
}

static enum smtp_probe_action refused(struct smtp_probe *probe, const struct smtp_reply *reply)
{
    char what[SMTP_PROBE_REASON_MAX];
    int size =
        snprintf(what, sizeof what, "%d%s%.*s", reply->code, reply->text_size ? " " : "",
                 reply->text_size > sizeof what ? (int)sizeof what : (int)reply->text_size, reply->text);

    probe->code = reply->code;
    fail(probe, what, (size_t)size < sizeof what ? (size_t)size : sizeof what - 1);
    /* After 421 the relay closes by itself (RFC 5321 §3.8). */
    return enter(probe, reply->code == 421 ? SMTP_PROBE_ENDED : SMTP_PROBE_QUIT);
}

static enum smtp_probe_action passed(struct smtp_probe *probe)
{
    probe->verdict = SMTP_PROBE_PASSED;
    return enter(probe, SMTP_PROBE_QUIT);
}

/* Where traffic would begin a transaction. */
static enum smtp_probe_action ready(struct smtp_probe *probe)
{
    return probe->envelope ? enter(probe, SMTP_PROBE_MAIL) : passed(probe);
}

/* The reply to MAIL, RCPT or RSET. Any 2xx will do: RCPT knows 251 and 252 (RFC 5321 §3.3, §3.4). */
static enum smtp_probe_action envelope_reply(struct smtp_probe *probe, const struct smtp_reply *reply)
{
    if (reply->code < 200 || reply->code > 299)
        return refused(probe, reply);
    if (probe->stage == SMTP_PROBE_RSET)
        return passed(probe);
    return enter(probe,
                 probe->stage == SMTP_PROBE_MAIL && *probe->recipient ? SMTP_PROBE_RCPT : SMTP_PROBE_RSET);
}

/* It lacks what traffic cannot do without. */
static enum smtp_probe_action lacks(struct smtp_probe *probe, enum smtp_probe_stage stage)
{
    static const char missing[] = "is not offered";

    probe->stage = stage;
    fail(probe, missing, sizeof missing - 1);
    return enter(probe, SMTP_PROBE_QUIT);
}

/* What is left behind EHLO and TLS. A relay that does not take the client's identity is not used where that
 * is passed on. */
static enum smtp_probe_action introduce(struct smtp_probe *probe)
{
    if (!probe->introduce || probe->introduced)
        return ready(probe);
    return format_identity(probe) ? enter(probe, SMTP_PROBE_IDENTITY) : lacks(probe, SMTP_PROBE_IDENTITY);
}

void smtp_probe_break(struct smtp_probe *probe, const char *what)
{
    bool dispensable = probe->stage == SMTP_PROBE_TLS && probe->tls == SMTP_PROBE_TLS_OPPORTUNISTIC;

    if (probe->verdict != SMTP_PROBE_OPEN) {
        /* nothing changes it */
    } else if (!dispensable) {
        fail(probe, what, strlen(what));
    } else if (probe->introduce && !format_identity(probe)) {
        (void)lacks(probe, SMTP_PROBE_IDENTITY); /* it was not in the EHLO in the clear, which counts now */
    } else {
        (void)passed(probe);
    }
    (void)enter(probe, SMTP_PROBE_ENDED);
}

/* Whether STARTTLS has yet to be dealt with. Behind XCLIENT's 220 it is not said: traffic does not either. */
static bool is_tls_due(const struct smtp_probe *probe)
{
    switch (probe->tls) {
    case SMTP_PROBE_CLEAR:
    case SMTP_PROBE_TLS_IMPLICIT: return false;
    case SMTP_PROBE_TLS_OPPORTUNISTIC:
    case SMTP_PROBE_TLS_REQUIRED: break;
    }
    return !probe->secured && !probe->in_clear && !probe->introduced;
}

/* EHLO or HELO was taken. */
static enum smtp_probe_action greeted(struct smtp_probe *probe)
{
    bool required = probe->tls == SMTP_PROBE_TLS_REQUIRED;

    probe->capabilities_known = !required || probe->secured;
    if (!is_tls_due(probe))
        return introduce(probe);
    if (probe->capabilities.flags & SMTP_CAP_STARTTLS)
        return enter(probe, SMTP_PROBE_STARTTLS);
    return required ? lacks(probe, SMTP_PROBE_STARTTLS) : introduce(probe);
}

/* Only a refusal is a reason to stay in the clear: a relay that says anything else is confused or closing. */
static enum smtp_probe_action starttls_reply(struct smtp_probe *probe, const struct smtp_reply *reply)
{
    if (reply->code == 220)
        return enter(probe, SMTP_PROBE_TLS);
    if (probe->tls == SMTP_PROBE_TLS_REQUIRED || reply->code < 400 || reply->code == 421)
        return refused(probe, reply);
    probe->in_clear = true;
    return introduce(probe);
}

enum smtp_probe_action smtp_probe_secured(struct smtp_probe *probe)
{
    assert(probe->stage == SMTP_PROBE_TLS);
    probe->secured = true;
    if (probe->tls == SMTP_PROBE_TLS_IMPLICIT)
        return enter(probe, SMTP_PROBE_BANNER);
    /* What was said in the clear is forgotten (RFC 3207 §4.2). */
    probe->capabilities_known = false;
    memset(&probe->capabilities, 0, sizeof probe->capabilities);
    return enter(probe, SMTP_PROBE_EHLO);
}

/* XCLIENT is answered with 220 and starts anew, XFORWARD with 250. */
static enum smtp_probe_action introduced(struct smtp_probe *probe, const struct smtp_reply *reply)
{
    bool xclient = strcmp(probe->introduce, "XCLIENT") == 0;

    if (reply->code != (xclient ? 220 : 250))
        return refused(probe, reply);
    probe->introduced = true;
    return xclient ? enter(probe, SMTP_PROBE_EHLO) : ready(probe);
}

/* A complete reply: choose the next stage. */
static enum smtp_probe_action on_reply(struct smtp_probe *probe, const struct smtp_reply *reply,
                                       const char *in)
{
    switch (probe->stage) {
    case SMTP_PROBE_BANNER:
        if (reply->code != 220)
            return refused(probe, reply);
        probe->greeted = true;
        return probe->ehlo ? enter(probe, SMTP_PROBE_EHLO) : passed(probe);
    case SMTP_PROBE_EHLO:
        if (!probe->no_helo && reply->code >= 500 && reply->code <= 504 && reply->code != 503)
            return enter(probe, SMTP_PROBE_HELO); /* RFC 5321 §4.2.4: an old server */
        if (reply->code != 250)
            return refused(probe, reply);
        smtp_capabilities_parse(&probe->capabilities, in, reply->size);
        return greeted(probe);
    case SMTP_PROBE_HELO: return reply->code == 250 ? greeted(probe) : refused(probe, reply);
    case SMTP_PROBE_STARTTLS: return starttls_reply(probe, reply);
    case SMTP_PROBE_IDENTITY: return introduced(probe, reply);
    case SMTP_PROBE_MAIL:
    case SMTP_PROBE_RCPT:
    case SMTP_PROBE_RSET: return envelope_reply(probe, reply);
    case SMTP_PROBE_TLS:
    case SMTP_PROBE_QUIT:
    case SMTP_PROBE_ENDED: break;
    }
    return enter(probe, SMTP_PROBE_ENDED);
}

enum smtp_probe_action smtp_probe_feed(struct smtp_probe *probe, const char *in, size_t size)
{
    struct smtp_reply reply;
    int found;

    assert(probe->stage != SMTP_PROBE_TLS); /* it would be said in the clear */
    if (probe->stage == SMTP_PROBE_ENDED)
        return SMTP_PROBE_CLOSE;
    found = smtp_reply_parse(in, size, &reply);
    if (found == 0)
        return SMTP_PROBE_READ;
    if (found < 0) {
        smtp_probe_break(probe, "malformed");
        return SMTP_PROBE_CLOSE;
    }
    /* Octets behind a reply would be taken for the next reply: traffic drops such a connection too. */
    if (size > reply.size) {
        smtp_probe_break(probe, "followed by more than was asked for");
        return SMTP_PROBE_CLOSE;
    }
    return on_reply(probe, &reply, in);
}
