#include "admin/report_text.h"

#include <stdlib.h>
#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"

/* Octets of the UTF-8 sequence at `text`, which ends in NUL; 0 if it is none (RFC 3629 §4). */
static size_t sequence(const unsigned char *text)
{
    unsigned char lead = text[0], low = 0x80, high = 0xbf;
    size_t size = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;

    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < size; i++) {
        if (text[i] < low || text[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return size;
}

json_t *report_text(const char *text)
{
    json_t *string = text ? json_string(text) : json_null();
    char *valid, *end;

    if (string)
        return string;
    valid = end = malloc(strlen(text) * (sizeof REPLACEMENT - 1) + 1);
    if (!valid)
        return NULL;
    while (*text) {
        size_t size = sequence((const unsigned char *)text);

        end = size ? mempcpy(end, text, size) : mempcpy(end, REPLACEMENT, sizeof REPLACEMENT - 1);
        text += size ? size : 1;
    }
    *end = '\0';
    string = json_string(valid);
    free(valid);
    return string;
}
