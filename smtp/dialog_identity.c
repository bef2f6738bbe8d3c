/*
 * Who the client is: XCLIENT and XFORWARD, said to backends and heard from in front (smtp.md "XCLIENT,
 * XFORWARD").
 */
#include <stdlib.h>
#include <string.h>

#include "smtp/dialog_internal.h"

size_t identity_line(const struct smtp_dialog *d, char out[IDENTITY_LINE_MAX])
{
    const struct smtp_capabilities *backend = &d->exchange->backend;
    bool xclient = d->introduction == SMTP_INTRODUCE_XCLIENT;
    const char *helo = d->helo ? d->helo : "";

    return smtp_xclient_format(out, IDENTITY_LINE_MAX, xclient ? "XCLIENT" : "XFORWARD",
                               xclient ? backend->xclient : backend->xforward, d->identity, helo,
                               strlen(helo), d->extended);
}

/* XFORWARD holds for one transaction. A new connection is told by introduce(), one that is kept here. */
bool queue_identity(struct smtp_dialog *d)
{
    char line[IDENTITY_LINE_MAX];
    size_t size;

    if (d->introduction != SMTP_INTRODUCE_XFORWARD || d->exchange->backend_state != SMTP_BACKEND_READY)
        return true;
    size = identity_line(d, line);
    return size < 2 ||
           queue_command(d, PENDING_SWALLOW, SMTP_VERB_XFORWARD, (struct smtp_span){ line, size - 2 },
                         (struct smtp_span){ 0 }, (struct smtp_span){ 0 });
}

bool take_helo(struct smtp_dialog *d, const char *name, size_t size)
{
    char *helo = strndup(name, size);

    if (!helo)
        return false;
    free(d->helo);
    d->helo = helo;
    return true;
}

/* To those in xclient-from the last line of the EHLO reply becomes one more but last. */
size_t add_xclient(char *reply, size_t size)
{
    static const char more[] = "250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"
                               "250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n";
    size_t last = size - 2;

    while (last && reply[last - 1] != '\n')
        last--;
    reply[last + 3] = '-';
    memcpy(reply + size, more, sizeof more - 1);
    return size + sizeof more - 1;
}

static const char not_for_strangers[] = "550 5.7.0 Not allowed from your address\r\n";
static const char bad_attributes[] = "501 5.5.4 Bad attributes\r\n";

static bool in_transaction(const struct smtp_dialog *d)
{
    return d->client_state != SMTP_CLIENT_HELO && d->client_state != SMTP_CLIENT_READY;
}

/* The session begins anew, with somebody else. What it has at a backend was this client's. */
bool on_xclient(struct smtp_dialog *d, const struct smtp_command *command)
{
    struct smtp_xclient *xclient = &d->wire->xclient;

    if (!d->xclient_from) {
        complain(d, not_for_strangers);
    } else if (in_transaction(d)) {
        complain(d, "503 5.5.1 Not in a transaction\r\n");
    } else if (!smtp_xclient_parse(command->argument.data, command->argument.size, xclient)) {
        complain(d, bad_attributes);
    } else {
        part_backend(d, true, SMTP_LOSS_NONE);
        forget_authentication(d);
        if (xclient->helo_size)
            d->helo_given = take_helo(d, xclient->helo, xclient->helo_size);
        banner(d);
        act(d, SMTP_ACTION_XCLIENT)->xclient = xclient;
    }
    return true;
}

/* It would only change what a log says, and Weir's has said whom it listens to. */
bool on_xforward(struct smtp_dialog *d, const struct smtp_command *command)
{
    struct smtp_xclient ignored;

    if (!d->xclient_from)
        complain(d, not_for_strangers);
    else if (!smtp_xclient_parse(command->argument.data, command->argument.size, &ignored))
        complain(d, bad_attributes);
    else
        say(d, "250 2.0.0 Ok\r\n");
    return true;
}
