#include "config/memory.h"

#include <stdlib.h>
#include <string.h>

static void *memory_have(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

void *memory_zeroed(size_t n, size_t size)
{
    return memory_have(calloc(n ? n : 1, size));
}

void *memory_resize(void *old, size_t n, size_t size)
{
    return memory_have(reallocarray(old, n ? n : 1, size));
}

char *memory_text(const char *text)
{
    return memory_have(strdup(text));
}

FILE *memory_stream(char **text, size_t *size)
{
    return memory_have(open_memstream(text, size));
}

void memory_stream_close(FILE *stream)
{
    if (fclose(stream) != 0)
        abort();
}
