/*
 * A session at random: octets of both sides and events, in records that a 0x1E ends, each beginning with a
 * letter.
 *
 *      C… c…   octets of the client, at once or one by one        S START    A BACKEND_ASSIGNED    T TIMEOUT
 *      B… b…   octets of the backend, likewise                    R REFUSE   F, G BACKEND_REFUSED  D DRAIN
 *      Z z     a backend's whole greeting, with and without       X CLIENT_LOST    L BACKEND_LOST  K STOP
 *      y       PIPELINING, if one is wanted; with STARTTLS and AUTH
 *      U CLIENT_SECURED    V BACKEND_SECURED, when they are waited for     M BACKEND_LEAVE    E BACKEND_KEEP
 *
 * The first octet chooses the policy; with its highest bit a second one chooses what is said of TLS and AUTH.
 * What must hold is in driver.h and observer.h; and no session may hang:
 * when nothing comes but timeouts, it ends.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/dialog.h"

#define CHECK(condition, message)                                                                            \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, message);                                     \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#include "tests/dialogs/driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECORD_END   0x1E
#define TIMEOUTS_MAX 10

enum {
    POLICY_NORMALIZE = 1,
    POLICY_GREET_DELAY = 2,
    POLICY_TWO_RECIPIENTS = 4,
    POLICY_SMALL = 8,
    POLICY_FEW_ERRORS = 16,
    POLICY_BARE_OFFER = 32,
    POLICY_STRANGER = 64,
    POLICY_SECURE = 128,
};

/* The second octet. */
enum {
    SECURE_STARTTLS = 3, /* enum smtp_starttls */
    SECURE_AUTH = 4,
    SECURE_CHANNEL = 8,
    SECURE_BACKEND_SHIFT = 4, /* enum smtp_backend_tls */
    SECURE_ROUTES = 64,
    SECURE_LIMITS = 128, /* a few messages and recipients */
};

static const uint32_t everything = SMTP_CAP_PIPELINING | SMTP_CAP_CARRIED;

static void event(struct driver *d, enum smtp_event_kind kind)
{
    driver_event(d, &(struct smtp_event){ .kind = kind });
}

static void refuse(struct driver *d, enum smtp_event_kind kind, const char *reply)
{
    driver_event(d, &(struct smtp_event){ .kind = kind, .reply = reply });
}

/* A whole greeting, so that mutations get beyond it. */
static void greeting(struct driver *d, const char *ehlo)
{
    static const char banner[] = "220 relay\r\n";

    if (!d->wanted)
        return;
    event(d, SMTP_EVENT_BACKEND_ASSIGNED);
    driver_backend(d, banner, sizeof banner - 1);
    driver_backend(d, ehlo, strlen(ehlo));
}

static void octets(struct driver *d, const char *in, size_t size,
                   void (*feed)(struct driver *, const char *, size_t), size_t step)
{
    while (size) {
        size_t n = size < step ? size : step;

        feed(d, in, n);
        in += n;
        size -= n;
    }
}

static void record(struct driver *d, const char *in, size_t size, bool *client_gone)
{
    switch (in[0]) {
    case 'C':
    case 'c':
        if (!*client_gone)
            octets(d, in + 1, size - 1, driver_client, in[0] == 'C' ? SIZE_MAX : 1);
        break;
    case 'B':
    case 'b': octets(d, in + 1, size - 1, driver_backend, in[0] == 'B' ? SIZE_MAX : 1); break;
    case 'Z':
        greeting(d, "250-relay\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n"
                    "250-BINARYMIME\r\n250 CHUNKING\r\n");
        break;
    case 'z': greeting(d, "250-relay\r\n250-SIZE 1000\r\n250 CHUNKING\r\n"); break;
    case 'y':
        greeting(d, "250-relay\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN CRAM-MD5\r\n250 PIPELINING\r\n");
        break;
    case 'A':
        if (d->wanted)
            driver_event(
                d, &(struct smtp_event){ .kind = SMTP_EVENT_BACKEND_ASSIGNED, .may_have_secrets = size > 1 });
        break;
    case 'U':
        if (smtp_dialog_client_state(&d->dialog) == SMTP_CLIENT_TLS)
            event(d, SMTP_EVENT_CLIENT_SECURED);
        break;
    case 'V':
        if (smtp_dialog_backend_state(&d->dialog) == SMTP_BACKEND_TLS)
            event(d, SMTP_EVENT_BACKEND_SECURED);
        break;
    case 'F':
    case 'G':
        if (d->wanted)
            refuse(d, SMTP_EVENT_BACKEND_REFUSED, in[0] == 'F' ? "451 4.3.0 none\r\n" : "421 4.3.2 none\r\n");
        break;
    case 'L':
        if (d->backend)
            driver_event(d,
                         &(struct smtp_event){ .kind = SMTP_EVENT_BACKEND_LOST, .loss = SMTP_LOSS_CLOSED });
        break;
    case 'M':
        driver_event(d, &(struct smtp_event){ .kind = SMTP_EVENT_BACKEND_LEAVE, .must = size > 1 });
        break;
    case 'E': event(d, SMTP_EVENT_BACKEND_KEEP); break;
    case 'X':
        *client_gone = true;
        event(d, SMTP_EVENT_CLIENT_LOST);
        break;
    case 'T': event(d, SMTP_EVENT_TIMEOUT); break;
    case 'D': event(d, SMTP_EVENT_DRAIN); break;
    case 'K': event(d, SMTP_EVENT_STOP); break;
    default: break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct driver d;
    unsigned choice = size ? data[0] : 0, secure = choice & POLICY_SECURE && size > 1 ? data[1] : 0;
    struct smtp_policy policy = {
        .hostname = "weir.test",
        .newline = choice & POLICY_NORMALIZE ? SMTP_NEWLINE_NORMALIZE : SMTP_NEWLINE_REJECT,
        .max_recipients = choice & POLICY_TWO_RECIPIENTS ? 2 : 1000,
        .max_message_size = choice & POLICY_SMALL ? 20 : 0,
        .max_errors = choice & POLICY_FEW_ERRORS ? 3 : 20,
        .greet_delay = choice & POLICY_GREET_DELAY,
        .starttls = (enum smtp_starttls)((secure & SECURE_STARTTLS) % (SMTP_STARTTLS_REQUIRED + 1)),
        .auth = secure & SECURE_AUTH,
    };
    struct smtp_capabilities offer = { .flags =
                                           choice & POLICY_BARE_OFFER ? SMTP_CAP_PIPELINING : everything };
    const char *in = (const char *)data, *end = in + size;
    bool client_gone = false;

    driver_begin(&d, &policy, &offer, !(choice & POLICY_STRANGER));
    if (secure & SECURE_CHANNEL)
        smtp_dialog_protect(&d.dialog, SMTP_CHANNEL_TLS);
    smtp_dialog_secure_backends(&d.dialog, (enum smtp_backend_tls)(secure >> SECURE_BACKEND_SHIFT & 3));
    if (secure & SECURE_ROUTES)
        smtp_dialog_follow_routes(&d.dialog);
    if (secure & SECURE_LIMITS)
        driver_limit(&d, 2, 2);
    event(&d, SMTP_EVENT_START);
    in += size > 0;
    in += choice & POLICY_SECURE && size > 1;
    while (in < end) {
        const char *stop = memchr(in, RECORD_END, (size_t)(end - in));

        if (!stop)
            stop = end;
        if (stop > in)
            record(&d, in, (size_t)(stop - in), &client_gone);
        in = stop + 1;
        d.n_actions = 0;
        d.to_client.size = d.to_backend.size = 0;
    }
    for (int i = 0; !d.closed; i++) {
        CHECK(i < TIMEOUTS_MAX, "a session that does not end");
        event(&d, SMTP_EVENT_TIMEOUT);
    }
    driver_end(&d);
    return 0;
}
