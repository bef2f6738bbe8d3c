/*
 * Redis in a draft: what its options demand of each other, and the TLS context.
 */
#ifndef WEIR_CONFIG_REDIS_H
#define WEIR_CONFIG_REDIS_H

#include "config/draft.h"

/* Report what does not go together, and make the context where the URL asks for TLS. */
void config_redis_check(struct draft *draft);
/* Free the context. */
void config_redis_free(struct config *config);

#endif
