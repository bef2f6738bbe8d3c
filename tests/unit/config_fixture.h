/*
 * What the tests of the configuration share: a small file, and a stream that collects what is reported.
 */
#ifndef WEIR_TESTS_CONFIG_FIXTURE_H
#define WEIR_TESTS_CONFIG_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/config.h"

#define LISTENER "listeners: { smtp: { address: \"127.0.0.1:2525\" } }\n"
#define POOL     "pools: { relays: { backends: { relay1: { address: \"10.0.0.11:25\" } } } }\n"

/* A stream that collects what is reported. */
struct errors {
    FILE *stream;
    char *text;
    size_t size;
};

static inline void errors_open(struct errors *errors)
{
    errors->stream = open_memstream(&errors->text, &errors->size);
    assert_non_null(errors->stream);
}

static inline const char *errors_text(struct errors *errors)
{
    fflush(errors->stream);
    return errors->text;
}

static inline void errors_close(struct errors *errors)
{
    fclose(errors->stream);
    free(errors->text);
}

static inline struct config *parse(const char *text, struct errors *errors)
{
    return config_parse("f", text, strlen(text), errors->stream);
}

static inline struct config *parse_good(const char *text)
{
    struct errors errors;
    errors_open(&errors);
    struct config *config = parse(text, &errors);
    assert_string_equal(errors_text(&errors), "");
    assert_non_null(config);
    errors_close(&errors);
    return config;
}

static inline void assert_address(const struct address *address, const char *expected)
{
    char text[ADDRESS_TEXT_MAX];
    assert_string_equal(address_format(address, text), expected);
}

#endif
