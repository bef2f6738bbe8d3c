/* The two log lines that tell of mail: one when a transaction ends, one when a session does. */
#ifndef WEIR_PROXY_RECORD_H
#define WEIR_PROXY_RECORD_H

#include "admin/http.h"
#include "net/stream.h"
#include "smtp/dialog.h"

struct session;
struct worker;

void record_transaction(const struct session *session, const struct smtp_transaction *transaction);
/* A handshake with a client or a backend has ended: counted, and if it failed, told, in the words of
 * stream_tls_failure(). `whom` names the peer. Of failures with backends, which mail may hit by the thousand,
 * one a second is told. */
void record_handshake(struct worker *worker, enum admin_tls_side side, const struct stream *stream,
                      const char *whom);
void record_session(const struct session *session);

#endif
