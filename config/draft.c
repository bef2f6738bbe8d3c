#include "config/draft.h"

#include <stdlib.h>
#include <string.h>

#include "config/memory.h"
#include "config/option.h"

void draft_init(struct draft *draft, const char *name)
{
    *draft = (struct draft){ .report = { .name = name } };
    draft->config = memory_zeroed(1, sizeof *draft->config);
    draft->config->references = 1;
    option_defaults(&option_file, draft->config);
    draft->config->control_given = false;
}

void draft_reserve_backends(struct draft *draft, size_t backends_max)
{
    draft->config->backends = memory_zeroed(backends_max, sizeof *draft->config->backends);
    draft->described = memory_zeroed(backends_max, sizeof *draft->described);
}

void draft_note(struct draft *draft, const void *field, const char *key, const char *text, struct place place)
{
    if (draft->n_origins == draft->origins_capacity) {
        draft->origins_capacity = draft->origins_capacity ? 2 * draft->origins_capacity : 64;
        draft->origins = memory_resize(draft->origins, draft->origins_capacity, sizeof *draft->origins);
    }
    draft->origins[draft->n_origins++] = (struct origin){
        .field = field, .key = memory_text(key), .text = text ? memory_text(text) : NULL, .place = place
    };
}

void draft_note_wrong(struct draft *draft, const void *field, const char *key, struct place place)
{
    draft_note(draft, field, key, NULL, place);
    draft->origins[draft->n_origins - 1].wrong = true;
}

static const struct origin *find_origin(const struct draft *draft, const void *field, bool wrong)
{
    for (size_t i = 0; i < draft->n_origins; i++)
        if (draft->origins[i].field == field && draft->origins[i].wrong == wrong)
            return &draft->origins[i];
    return NULL;
}

const struct origin *draft_origin(const struct draft *draft, const void *field)
{
    return find_origin(draft, field, false);
}

bool draft_is_wrong(const struct draft *draft, const void *field)
{
    return find_origin(draft, field, true);
}

size_t draft_backend(struct draft *draft, const char *name, const char *key, struct place place)
{
    struct config *config = draft->config;
    for (size_t i = 0; i < config->n_backends; i++)
        if (strcmp(config->backends[i].name, name) == 0)
            return i;
    struct config_backend *backend = &config->backends[config->n_backends];
    option_defaults(&option_backend, backend);
    backend->name = memory_text(name);
    draft_note(draft, backend, key, NULL, place);
    return config->n_backends++;
}

struct config *draft_finish(struct draft *draft, FILE *errors)
{
    struct config *config = draft->config;
    if (draft->report.n_entries) {
        report_write(&draft->report, errors);
        config_release(&config);
    }
    for (size_t i = 0; i < draft->n_origins; i++) {
        free(draft->origins[i].key);
        free(draft->origins[i].text);
    }
    free(draft->origins);
    free(draft->described);
    report_clear(&draft->report);
    return config;
}
