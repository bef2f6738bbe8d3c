#include "config/document.h"

#include <string.h>

#define EMPTY_FILE "the file holds no configuration; expected listeners and pools"

struct place document_place(yaml_mark_t mark)
{
    return (struct place){ .line = mark.line + 1, .column = mark.column + 1 };
}

bool document_is_nothing(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    const char *text = (const char *)node->data.scalar.value;
    return !*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0;
}

/* libyaml's reader knows only an offset. */
static struct place place_of_offset(const char *text, size_t size, size_t offset)
{
    struct place place = { .line = 1, .column = 1 };
    for (size_t i = 0; i < offset && i < size; i++) {
        place.column++;
        if (text[i] == '\n')
            place = (struct place){ .line = place.line + 1, .column = 1 };
    }
    return place;
}

static void report_parser(const yaml_parser_t *parser, const char *text, size_t size, struct report *report)
{
    const char *problem = parser->problem ? parser->problem : "unreadable";
    if (parser->error == YAML_READER_ERROR)
        report_add(report, place_of_offset(text, size, parser->problem_offset), NULL,
                   "not a text file: %s; expected YAML in UTF-8", problem);
    else if (parser->problem_mark.index < size && text[parser->problem_mark.index] == '\t')
        report_add(report, document_place(parser->problem_mark), NULL,
                   "expected valid YAML: a tab stands where only spaces can");
    else if (parser->context)
        report_add(report, document_place(parser->problem_mark), NULL,
                   "expected valid YAML: %s (%s that began in line %zu)", problem, parser->context,
                   parser->context_mark.line + 1);
    else
        report_add(report, document_place(parser->problem_mark), NULL, "expected valid YAML: %s", problem);
}

struct survey {
    size_t documents, nodes, depth, anchors;
};

/* Count one event. Returns what is wrong, or NULL. */
static const char *survey_event(struct survey *survey, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return ++survey->documents > 1 ? "a second document begins here; expected one" : NULL;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        survey->depth++;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        survey->depth++;
        break;
    case YAML_SCALAR_EVENT: anchor = event->data.scalar.anchor; break;
    case YAML_ALIAS_EVENT: break;
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT: survey->depth--; return NULL;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT: return NULL;
    }
    survey->anchors += anchor != NULL;
    if (survey->depth > DOCUMENT_DEPTH_MAX)
        return "nested too deep";
    if (++survey->nodes > DOCUMENT_NODES_MAX)
        return "too many values";
    return survey->anchors > DOCUMENT_ANCHORS_MAX ? "too many anchors" : NULL;
}

static void parser_begin(yaml_parser_t *parser, const char *text, size_t size)
{
    yaml_parser_initialize(parser);
    yaml_parser_set_input_string(parser, (const unsigned char *)text, size);
}

/* Go through the events before a document is made of them: libyaml itself has no bounds. */
static bool survey_text(const char *text, size_t size, struct report *report)
{
    yaml_parser_t parser;
    struct survey survey = { 0 };
    bool good = true, done = false;
    parser_begin(&parser, text, size);
    while (good && !done) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            report_parser(&parser, text, size, report);
            good = false;
            break;
        }
        const char *problem = survey_event(&survey, &event);
        if (problem)
            report_add(report, document_place(event.start_mark), NULL, "%s", problem);
        good = !problem;
        done = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    if (good && !survey.documents) {
        report_add(report, (struct place){ .line = 1, .column = 1 }, NULL, EMPTY_FILE);
        good = false;
    }
    return good;
}

bool document_load(const char *text, size_t size, yaml_document_t *document, struct report *report)
{
    if (size > DOCUMENT_SIZE_MAX) {
        report_add(report, (struct place){ .line = 1, .column = 1 }, NULL,
                   "the file is too large; expected at most %zu octets", DOCUMENT_SIZE_MAX);
        return false;
    }
    if (!survey_text(text, size, report))
        return false;
    yaml_parser_t parser;
    parser_begin(&parser, text, size);
    bool good = yaml_parser_load(&parser, document);
    if (!good)
        report_parser(&parser, text, size, report);
    yaml_parser_delete(&parser);
    if (!good)
        return false;
    const yaml_node_t *root = yaml_document_get_root_node(document);
    if (root && !document_is_nothing(root))
        return true;
    report_add(report, (struct place){ .line = 1, .column = 1 }, NULL, EMPTY_FILE);
    yaml_document_delete(document);
    return false;
}
