/*
 * Allocation for reading a configuration. A file is bounded (document.h), so what it takes is a few megabytes
 * at most: running out there means that nothing else would work either, and the process aborts.
 */
#ifndef WEIR_CONFIG_MEMORY_H
#define WEIR_CONFIG_MEMORY_H

#include <stddef.h>
#include <stdio.h>

void *memory_zeroed(size_t n, size_t size); /* n may be 0 */
void *memory_resize(void *old, size_t n, size_t size);
char *memory_text(const char *text);
/* A stream into memory, and its end; *text is then NUL-terminated and the caller's to free. */
FILE *memory_stream(char **text, size_t *size);
void memory_stream_close(FILE *stream);

#endif
