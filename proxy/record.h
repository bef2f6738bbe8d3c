/* Log lines that tell of sessions: one when a transaction ends, one when a session does, one for a TLS
 * handshake that fails. */
#ifndef WEIR_PROXY_RECORD_H
#define WEIR_PROXY_RECORD_H

#include "net/log.h"
#include "smtp/dialog.h"

struct session;

void record_transaction(const struct session *session, const struct smtp_transaction *transaction);
/* A TLS handshake with the client, or with the backend, has ended: it is counted, and told if it failed. Of
 * failures with backends, which mail may meet by the thousand, one a second is told. */
void record_client_handshake(const struct session *session);
void record_backend_handshake(const struct session *session);
/* Whose session it is: its fields for any line. */
void record_add_session(struct log_record *record, const struct session *session);
void record_session(const struct session *session);

#endif
