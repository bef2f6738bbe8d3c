#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/document.h"
#include "config/draft.h"
#include "config/hostname.h"
#include "config/memory.h"
#include "config/option.h"
#include "config/redis.h"
#include "config/tls.h"
#include "config/value.h"

static const struct place top = { .line = 1, .column = 1 };

/* Defaults that only the running host knows. */
static void ask_host(struct config *config)
{
    if (!*config->hostname) {
        free(config->hostname);
        config->hostname = hostname_of_host();
    }
    if (!config->workers) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);
        config->workers = n < 1 ? 1 : n > 256 ? 256 : (uint32_t)n;
    }
}

static struct config *finish(struct draft *draft, FILE *errors)
{
    struct config *config = draft_finish(draft, errors);
    if (config)
        ask_host(config);
    return config;
}

struct config *config_parse(const char *name, const char *text, size_t size, FILE *errors)
{
    struct draft draft;
    yaml_document_t document;
    draft_init(&draft, name);
    if (document_load(text, size, &document, &draft.report)) {
        document_walk(&document, &draft);
        yaml_document_delete(&document);
        draft_check(&draft);
    }
    return finish(&draft, errors);
}

/* The file's octets, at most one more than is allowed; -1 with errno. */
static ssize_t read_file(const char *path, char *text)
{
    /* Not to wait for a writer, should it be a FIFO that has none. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return -1;
    fcntl(fd, F_SETFL, 0);
    size_t size = 0;
    ssize_t n = 1;
    while (n > 0 && size <= DOCUMENT_SIZE_MAX) {
        n = read(fd, text + size, DOCUMENT_SIZE_MAX + 1 - size);
        if (n > 0)
            size += (size_t)n;
        else if (n < 0 && errno == EINTR)
            n = 1;
    }
    int error = errno;
    close(fd);
    errno = error;
    return n < 0 ? -1 : (ssize_t)size;
}

struct config *config_load(const char *path, FILE *errors)
{
    char *text = memory_zeroed(DOCUMENT_SIZE_MAX + 1, 1);
    struct config *config = NULL;
    ssize_t size = read_file(path, text);
    if (size >= 0) {
        config = config_parse(path, text, (size_t)size, errors);
    } else {
        int error = errno;
        struct report report = { .name = path };
        report_add(&report, top, NULL, "cannot be read: %s; expected a YAML file", strerror(error));
        report_write(&report, errors);
        report_clear(&report);
    }
    free(text);
    return config;
}

/* Quick start: give a field its value as if an argument of the command line were a place in a file. */
static void set(struct draft *draft, const struct section *section, const char *key, void *field,
                const char *text, struct place place)
{
    char error[VALUE_ERROR_MAX];
    if (value_read(option_find(section, key), field, text, error))
        draft_note(draft, field, key, text, place);
    else
        report_add(&draft->report, place, NULL, "%s", error);
}

static void quick_backend(struct draft *draft, struct config_pool *pool, const char *argument,
                          struct place place)
{
    char name[32];
    snprintf(name, sizeof name, "relay%zu", pool->n_backends + 1);
    size_t index = draft_backend(draft, name, name, place);
    struct config_backend *backend = &draft->config->backends[index];
    draft->described[index] = (struct origin){ .field = backend, .place = place };
    pool->backends[pool->n_backends++] = index;

    char *address = memory_text(argument);
    char *weight = strrchr(address, '*');
    if (weight) {
        *weight++ = '\0';
        set(draft, &option_backend, "weight", &backend->weight, weight, place);
    }
    set(draft, &option_backend, "address", &backend->address, address, place);
    free(address);
}

struct config *config_quick(const char *listen, const char *const *backends, size_t n_backends, FILE *errors)
{
    struct draft draft;
    draft_init(&draft, "command line");
    struct config *config = draft.config;
    struct place place = { .argument = "--listen" };

    struct config_listener *listener = config->listeners = memory_zeroed(1, sizeof *listener);
    config->n_listeners = 1;
    option_defaults(&option_listener, listener);
    listener->name = memory_text("smtp");
    listener->addresses = memory_zeroed(1, sizeof *listener->addresses);
    set(&draft, &option_listener, "address", listener->addresses, listen, place);
    listener->n_addresses = draft.report.n_entries ? 0 : 1;

    struct config_pool *pool = config->pools = memory_zeroed(1, sizeof *pool);
    config->n_pools = 1;
    option_defaults(&option_pool, pool);
    pool->name = memory_text("relays");
    pool->backends = memory_zeroed(n_backends, sizeof *pool->backends);
    draft_reserve_backends(&draft, n_backends);
    place.argument = "--backend";
    for (size_t i = 0; i < n_backends; i++)
        quick_backend(&draft, pool, backends[i], (struct place){ .argument = "--backend", .column = i + 1 });
    if (!n_backends)
        report_add(&draft.report, place, NULL,
                   "missing; expected at least one relay, such as 192.0.2.1:25*4");

    set(&draft, option_find(&option_file, "http")->section, "address", &config->http_address, "", place);
    draft_note(&draft, listener, "--listen", NULL, place);
    draft_check(&draft);
    return finish(&draft, errors);
}

struct config *config_hold(struct config *config)
{
    atomic_fetch_add_explicit(&config->references, 1, memory_order_relaxed);
    return config;
}

void config_release(struct config **held)
{
    struct config *config = *held;
    *held = NULL;
    if (!config || atomic_fetch_sub_explicit(&config->references, 1, memory_order_acq_rel) != 1)
        return;
    config_tls_free(config);
    config_redis_free(config);
    option_free(&option_file, config);
    for (size_t i = 0; i < config->n_backends; i++) {
        free(config->backends[i].name);
        option_free(&option_backend, &config->backends[i]);
    }
    free(config->backends);
    free(config);
}
