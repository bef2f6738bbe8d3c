/* Text from elsewhere as a JSON string. */
#ifndef WEIR_ADMIN_REPORT_TEXT_H
#define WEIR_ADMIN_REPORT_TEXT_H

#include <jansson.h>

/* With U+FFFD for what is not UTF-8. NULL is null. NULL: out of memory. */
json_t *report_text(const char *text);

#endif
