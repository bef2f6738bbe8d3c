#include "config/hostname.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "config/memory.h"
#include "config/word.h"

#define HOSTS_LINES_MAX 10000 /* some systems block advertisers there, at length */

char *hostname_in_hosts(FILE *hosts, const char *name)
{
    char *line = NULL, *found = NULL;
    size_t capacity = 0;
    for (size_t n = 0; !found && n < HOSTS_LINES_MAX && getline(&line, &capacity, hosts) >= 0; n++) {
        line[strcspn(line, "#\n")] = '\0';
        char *rest = NULL, *full = NULL;
        bool ours = false;
        strtok_r(line, " \t", &rest); /* the address */
        for (char *word; (word = strtok_r(NULL, " \t", &rest));) {
            ours = ours || strcasecmp(word, name) == 0;
            if (!full && strchr(word, '.') && word_is_domain(word))
                full = word;
        }
        if (ours && full)
            found = memory_text(full);
    }
    free(line);
    return found;
}

char *hostname_of_host(void)
{
    char name[256] = "";
    if (gethostname(name, sizeof name - 1) != 0 || !word_is_domain(name))
        return memory_text("localhost");
    char *full = NULL;
    FILE *hosts = strchr(name, '.') ? NULL : fopen("/etc/hosts", "re");
    if (hosts) {
        full = hostname_in_hosts(hosts, name);
        fclose(hosts);
    }
    return full ? full : memory_text(name);
}
