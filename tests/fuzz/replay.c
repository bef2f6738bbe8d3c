/*
 * Feeds files to a fuzz target without libFuzzer, so that every compiler's `make test` replays the corpus.
 *
 *     replay/NAME DIRECTORY-OR-FILE…        exit 1 if one is missing, unreadable or an empty directory
 */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat status;

    if (!file || fstat(fileno(file), &status) != 0) {
        perror(path);
        if (file)
            fclose(file);
        return false;
    }

    size_t size = (size_t)status.st_size;
    uint8_t *data = malloc(size ? size : 1); /* of just that size, for the address sanitizer */
    bool good = data && fread(data, 1, size, file) == size;

    if (good)
        LLVMFuzzerTestOneInput(data, size);
    else
        fprintf(stderr, "%s: can't be read\n", path);
    free(data);
    fclose(file);
    return good;
}

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* Returns how many inputs were replayed, or -1. */
static int replay_directory(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, not_hidden, alphasort);
    bool good = count > 0;

    if (count <= 0) {
        fprintf(stderr, "%s: no inputs\n", path);
        if (count == 0)
            free(entries);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        char *name;

        if (asprintf(&name, "%s/%s", path, entries[i]->d_name) < 0)
            abort();
        good &= replay_file(name);
        free(name);
        free(entries[i]);
    }
    free(entries);
    return good ? count : -1;
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    int inputs = 0, status = argc > 1 ? 0 : 1;

    for (int i = 1; i < argc; i++) {
        struct stat info;
        int count;

        if (stat(argv[i], &info) != 0) {
            perror(argv[i]);
            count = -1;
        } else if (S_ISDIR(info.st_mode)) {
            count = replay_directory(argv[i]);
        } else {
            count = replay_file(argv[i]) ? 1 : -1;
        }
        if (count < 0)
            status = 1;
        else
            inputs += count;
    }
    printf("replayed %d inputs of %s\n", inputs, slash ? slash + 1 : argv[0]);
    return status;
}
