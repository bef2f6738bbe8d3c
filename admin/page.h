/*
 * The status page: one HTML file (admin/page.html) that asks /api/status for everything it shows.
 */
#ifndef WEIR_ADMIN_PAGE_H
#define WEIR_ADMIN_PAGE_H

#include <stddef.h>

#define PAGE_NONCE_SIZE 32
#define PAGE_POLICY_MAX 320

/* The page, which is the caller's to free, and the Content-Security-Policy that lets its own script and style
 * run and nothing else, by a nonce that is new each time. NULL: out of memory, or of randomness. */
char *page_make(size_t *size, char policy[PAGE_POLICY_MAX]);

#endif
