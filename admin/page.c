#include "admin/page.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* The file as it is, and a NUL. Paths are from where make runs. */
__asm__(".pushsection .rodata\n"
        "page_html: .incbin \"admin/page.html\"\n"
        ".byte 0\n"
        ".popsection\n");
extern const char page_html[];

#define PLACE "@NONCE@"

static bool make_nonce(char nonce[PAGE_NONCE_SIZE + 1])
{
    unsigned char octets[PAGE_NONCE_SIZE / 2];

    if (getrandom(octets, sizeof octets, 0) != (ssize_t)sizeof octets)
        return false;
    for (size_t i = 0; i < sizeof octets; i++)
        (void)snprintf(nonce + 2 * i, 3, "%02x", octets[i]);
    return true;
}

static size_t places(void)
{
    size_t n = 0;

    for (const char *at = page_html; (at = strstr(at, PLACE)); at++)
        n++;
    return n;
}

char *page_make(size_t *size, char policy[PAGE_POLICY_MAX])
{
    char nonce[PAGE_NONCE_SIZE + 1];
    char *page = malloc(strlen(page_html) + places() * PAGE_NONCE_SIZE + 1), *end = page;
    const char *from = page_html, *place;

    if (!page || !make_nonce(nonce)) {
        free(page);
        return NULL;
    }
    while ((place = strstr(from, PLACE))) {
        end = mempcpy(end, from, (size_t)(place - from));
        end = mempcpy(end, nonce, PAGE_NONCE_SIZE);
        from = place + sizeof PLACE - 1;
    }
    end = mempcpy(end, from, strlen(from));
    *size = (size_t)(end - page);
    (void)snprintf(
        policy, PAGE_POLICY_MAX,
        "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        nonce, nonce);
    return page;
}
