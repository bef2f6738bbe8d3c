/* The two log lines that tell of mail: one when a transaction ends, one when a session does. */
#ifndef WEIR_PROXY_RECORD_H
#define WEIR_PROXY_RECORD_H

#include "smtp/dialog.h"

struct session;

void record_transaction(const struct session *session, const struct smtp_transaction *transaction);
void record_session(const struct session *session);

#endif
