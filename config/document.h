/*
 * The YAML text to a draft, through libyaml's document API, whose nodes carry line and column.
 */
#ifndef WEIR_CONFIG_DOCUMENT_H
#define WEIR_CONFIG_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <yaml.h>

#include "config/draft.h"

/* These bound what a hostile or mistaken file can cost; a farm of a thousand relays is a tenth of each. */
#define DOCUMENT_SIZE_MAX    ((size_t)1 << 20) /* octets */
#define DOCUMENT_NODES_MAX   50000             /* also when aliases are followed */
#define DOCUMENT_DEPTH_MAX   16
#define DOCUMENT_ANCHORS_MAX 256 /* libyaml looks through all of them for each alias */

/* Parse the text within the bounds. True: `document` is the caller's to delete, and has a root that is no
 * empty value. False: the report says why. */
bool document_load(const char *text, size_t size, yaml_document_t *document, struct report *report);

/* Walk the document along the option table and fill the draft (walk.c). */
void document_walk(yaml_document_t *document, struct draft *draft);

/* A plain scalar that stands for no value: "key:", "key: ~", "key: null". */
bool document_is_nothing(const yaml_node_t *node);
struct place document_place(yaml_mark_t mark);

#endif
