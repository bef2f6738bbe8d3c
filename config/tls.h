/*
 * TLS and AUTH in a draft: what their options demand of each other, and the contexts of listeners and pools.
 */
#ifndef WEIR_CONFIG_TLS_H
#define WEIR_CONFIG_TLS_H

#include "config/draft.h"

/* Report what does not go together, give each backend the name to verify, and make the contexts, each mistake
 * in a PEM file reported where the configuration names the file. The pools of listeners and routes have been
 * looked up. */
void config_tls_check(struct draft *draft);
/* Free the contexts. */
void config_tls_free(struct config *config);

#endif
