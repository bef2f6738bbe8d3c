/*
 * The documentation of the configuration, out of the option table.
 */
#include "config/config.h"
#include "config/option.h"
#include "config/value.h"

static const char preface[] =
    "# Configuration\n"
    "\n"
    "<!-- Generated from the option table, config/option.c; don't edit. Anew:\n"
    "     make build/asan/unit/test_config && build/asan/unit/test_config --describe > docs/configuration.md "
    "-->\n"
    "\n"
    "One YAML file, `/etc/weir/weir.yaml` unless `-c` names another. `weir --check -c FILE` checks it and "
    "names every\n"
    "mistake as `FILE:LINE:COLUMN: key: what was expected`. A reload (HUP) takes all of it or nothing.\n"
    "\n"
    "- Durations take `ms`, `s`, `m`, `h`: `250ms`, `30s`. Sizes take `KB`, `MB`, `GB` (1024), or are plain "
    "octets.\n"
    "- `${NAME}` in a value stands for an environment variable, which must be set; `${NAME:-default}` has a "
    "default for\n"
    "  where it is unset or empty.\n"
    "- A list of one may be written without its brackets.\n"
    "- A key that is not in these tables, or is there twice, is an error. So is a key marked *not built*, "
    "unless its value\n"
    "  is one that asks for nothing more than what this version does; those values are named with it.\n"
    "- Names of listeners, pools and backends are letters, digits, `.`, `_` and `-`, at most 64. That of a\n"
    "  backend does not end in `.weight`.\n"
    "- YAML anchors and aliases work. A file has at most 1 MB and 50,000 values.\n"
    "\n"
    "The smallest useful file:\n"
    "\n"
    "```yaml\n"
    "listeners:\n"
    "  smtp:\n"
    "    address: \"0.0.0.0:25\"\n"
    "    allow-from: [127.0.0.0/8, 10.0.0.0/8]\n"
    "pools:\n"
    "  relays:\n"
    "    backends:\n"
    "      relay1: { address: \"10.0.0.11:25\", weight: 4 }\n"
    "      relay2: { address: \"10.0.0.12:25\" }\n"
    "```\n";

static void describe_expected(const struct option *option, FILE *out)
{
    char expected[VALUE_ERROR_MAX];
    if (option->type == OPTION_LATER)
        fprintf(out, "–");
    else
        fprintf(out, "%s%s", option_is_list(option) ? "a list; each: " : "",
                value_expected(option, expected));
}

static void describe_default(const struct option *option, FILE *out)
{
    if (option->required)
        fprintf(out, "required");
    else if (option->default_text)
        fprintf(out, "`%s`", option->default_text);
    else
        fprintf(out, "–");
}

/* What of it this version takes, where that is not all. */
static void describe_built(const struct option *option, FILE *out)
{
    if (!option->only)
        return;
    /* With a field some of its values work; without one nothing does. */
    if (option->offset != OPTION_NO_FIELD)
        fprintf(out, " Built:");
    else
        fprintf(out, " *Not built*%s", option->only[0] ? "; accepted:" : ".");
    for (size_t i = 0; option->only[i]; i++)
        fprintf(out, "%s `%s`%s", i ? "," : "", option->only[i][0] ? option->only[i] : "\"\"",
                option->only[i + 1] ? "" : ".");
}

static void describe_section(const struct section *section, FILE *out)
{
    if (*section->path)
        fprintf(out, "\n## %s\n", section->path);
    fprintf(out, "\n| key | value | default | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < section->n_options; i++) {
        const struct option *option = &section->options[i];
        fprintf(out, "| `%s` | ", option->key);
        describe_expected(option, out);
        fprintf(out, " | ");
        describe_default(option, out);
        fprintf(out, " | %s", option->meaning);
        describe_built(option, out);
        fprintf(out, " |\n");
    }
    for (size_t i = 0; i < section->n_options; i++)
        if (section->options[i].section)
            describe_section(section->options[i].section, out);
}

void config_describe(FILE *out)
{
    fputs(preface, out);
    fprintf(out, "\n## The file\n");
    describe_section(&option_file, out);
}
