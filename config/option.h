/*
 * The option table: what a configuration may say. It is the only source of keys, defaults, ranges and
 * meanings: the walk over the file (document.c), the defaults and the documentation (describe.c) all read it.
 */
#ifndef WEIR_CONFIG_OPTION_H
#define WEIR_CONFIG_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_type {
    /* Scalars: what they are in the file → what they are in memory. */
    OPTION_NUMBER,          /* uint32_t */
    OPTION_SIZE,            /* uint64_t, octets */
    OPTION_DURATION,        /* uint32_t, milliseconds */
    OPTION_PERCENT,         /* uint32_t */
    OPTION_SWITCH,          /* bool */
    OPTION_CHOICE,          /* an enum that counts from 0 in the order of `choices` */
    OPTION_TEXT,            /* char * */
    OPTION_NAME,            /* char * */
    OPTION_PATH,            /* char *; "" for none */
    OPTION_MAILBOX,         /* char *; without brackets; "" for none */
    OPTION_TLS_NAME,        /* char *; "" until tls.c puts the backend's own there */
    OPTION_HOSTNAME,        /* char *; "" until config.c puts the host's own there */
    OPTION_LOG_DESTINATION, /* struct config_log: target, and path beside it */
    OPTION_REDIS_URL,       /* struct redis_url *; NULL for none. May hold a password: is never shown */
    OPTION_SOURCE,          /* struct address without a port */
    OPTION_HTTP_ADDRESS,    /* struct config: http_address, and its text beside it */
    OPTION_CONTROL,         /* struct config: control_address, and its path beside it */
    OPTION_BACKEND_ADDRESS, /* struct config_backend: address, and host, port and text beside it */
    OPTION_AGENT,           /* struct config_agent: text, and address, host and port beside it */
    OPTION_POOL,            /* size_t; check.c finds the pool when all are known */
    OPTION_RATE,            /* struct config_rate; the range is of its number */
    /* Lists of scalars: an array and its count. One scalar stands for a list of one. */
    OPTION_ADDRESSES,   /* struct address */
    OPTION_NAMESERVERS, /* struct address; port 53 may be left out */
    OPTION_NETWORKS,    /* struct network */
    OPTION_PATHS,       /* char * */
    OPTION_USERS,       /* char *: globs (glob.h) */
    OPTION_DOMAINS,     /* char *: globs; "" for the null sender's */
    OPTION_LISTENERS,   /* char *: names; check.c finds the listeners */
    /* Mappings. */
    OPTION_SECTION,  /* of the options of `section` */
    OPTION_LIST,     /* a list of sections: an array and its count. One stands for a list of one */
    OPTION_NAMED,    /* of names to sections: an array and its count */
    OPTION_BACKENDS, /* of names to backends, or to nothing; or a list of names: an array of indices and its
                        count */
    /* Known, but of a later version: no field. */
    OPTION_LATER,
};

#define OPTION_NO_FIELD SIZE_MAX

struct section;

struct option {
    const char *key;
    enum option_type type;
    size_t offset;            /* of the field in the section's struct; OPTION_NO_FIELD: nothing is kept */
    size_t count;             /* lists and names: of their count, a size_t */
    const char *default_text; /* as it would stand in the file; NULL: none */
    uint64_t min, max;        /* of the value; of a list or mapping: how many entries */
    const char *const *choices;
    const struct section *section;
    /* NULL: built. Otherwise the values that ask for nothing but what this version does; any other is "not
     * built". */
    const char *const *only;
    bool required;
    const char *meaning;
};

#define SECTION_OPTIONS_MAX 32 /* more than any section has */

struct section {
    const char *path; /* "listeners.NAME"; "" for the file itself */
    const struct option *options;
    size_t n_options;
    size_t size; /* of the struct; one under OPTION_NAMED begins with `char *name` */
};

extern const struct section option_file;     /* struct config */
extern const struct section option_listener; /* struct config_listener */
extern const struct section option_route;    /* struct config_route */
extern const struct section option_pool;     /* struct config_pool */
extern const struct section option_backend;  /* struct config_backend */
extern const struct section option_limit;    /* struct config_limit */

/* The section's row for `key`; NULL if there is none. */
const struct option *option_find(const struct section *section, const char *key);
/* Give every field of a zeroed struct its default. */
void option_defaults(const struct section *section, void *object);
bool option_is_list(const struct option *option);
/* Free what the fields own, and clear them. */
void option_free(const struct section *section, void *object);

#endif
