/*
 * AUTH seen from the middle (RFC 4954): whether a line may pass, and the user's name where the mechanism
 * shows it. Weir checks no password and keeps none: everything here works on the line as it was read.
 */
#ifndef WEIR_SMTP_AUTH_H
#define WEIR_SMTP_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smtp/capability.h"
#include "smtp/command.h"

#define SMTP_AUTH_USER_MAX 255 /* octets of a name that is told; a longer one is cut */

/* The argument of AUTH: a mechanism, and perhaps an initial response. */
struct smtp_auth {
    uint32_t mechanism;        /* its flag; 0: not one that is carried */
    struct smtp_span name;     /* as written */
    struct smtp_span response; /* base64, or "=" for an empty one; data NULL: none was given */
};

/* False: malformed (501): no mechanism, a blank too many, or a response that is not base64. */
bool smtp_auth_parse(struct smtp_span argument, struct smtp_auth *out);
/* Whether a line of an exchange is base64 (RFC 4648 §4, padded, no blanks), possibly empty. */
bool smtp_auth_is_base64(struct smtp_span line);

/* The user's name in the client's first response (the initial one, "=" included, or the first line): PLAIN
 * and LOGIN, CRAM-MD5, SCRAM, XOAUTH2 and OAUTHBEARER show it there; for the others, and where the response
 * is not what the mechanism says, 0 is returned. Otherwise the octets written to `out`, not terminated, which
 * may be anything but NUL. What was decoded on the way is wiped. */
size_t smtp_auth_user(uint32_t mechanism, struct smtp_span response, char out[SMTP_AUTH_USER_MAX]);

#endif
