#include <errno.h>
#include <getopt.h>
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "admin/request.h"
#include "admin/weirctl.h"
#include "admin/weirctl_farm.h"
#include "config/word.h"

#define TIMEOUT_MS 10000
#define WIDTH      80 /* where nobody says */
#define WIDTH_MOST 400

static const char usage[] =
    "usage: weirctl [--socket PATH] [--json] COMMAND                        one Weir\n"
    "       weirctl [--redis URL] --farm NAME [--ca FILE] [--json] COMMAND   all that share counters\n"
    "\n"
    "  status            the whole in a few lines\n"
    "  backends          each backend: state, weight, connections, messages\n"
    "  sessions          the newest sessions, 1000 at most\n"
    "  instances         each Weir in a line\n"
    "  top               live; q quits\n"
    "  drain NAME        nothing new there; sessions leave between two messages\n"
    "  maint NAME        the same, no checks, and sessions that have logged in leave too\n"
    "  ready NAME        take drain or maint back\n"
    "  weight NAME N     another weight, 0 to 1000; 'default': what the file says\n"
    "  reload            read the configuration again\n"
    "  version           of weirctl and of the Weir that runs\n"
    "  names             of the backends, one a line\n"
    "\n"
    "URL is by default the environment's WEIR_REDIS_URL, which other users don't see: redis://, rediss://,\n"
    "unix:, sentinel:// or cluster://. What is said to a farm reaches every Weir. Without sessions, reload.\n"
    "PATH is by default " WEIRCTL_SOCKET ". NAME may stand for several: relay for relay@10.0.0.11 ...\n"
    "Exit: 0 done, 1 refused, 2 unusable arguments, 3 no answer.\n";

struct arguments {
    const char *socket, *redis, *farm, *ca; /* NULL: not given */
    bool json;
    int n; /* of words behind the command */
    char **words;
};

struct command {
    const char *name;
    int words;
    int (*run)(const struct command *command, const struct arguments *arguments, struct client *client,
               const struct style *style);
    /* How what was asked for is shown, where asking is all there is to do. */
    void (*show)(FILE *out, const json_t *result, const struct style *style);
};

static int fail(const char *message, const char *what)
{
    fprintf(stderr, "weirctl: %s%s%s\nTry 'weirctl --help'.\n", message, what ? ": " : "", what ? what : "");
    return WEIRCTL_USAGE;
}

/* The result is part of *answer, the caller's to give back. NULL: *status is the exit status. */
static json_t *ask(struct client *client, json_t *request, json_t **answer, int *status)
{
    const char *error = "";
    json_t *result = NULL;

    *answer = client_ask(client, request);
    if (!*answer) {
        fprintf(stderr, "weirctl: %s: ", client->path);
        show_line(stderr, client->error, UINT_MAX); /* it may be a server's words */
        *status = WEIRCTL_NO_ANSWER;
        return NULL;
    }
    *status = WEIRCTL_OK;
    result = client_result(*answer, &error);
    if (!result) {
        fputs("weirctl: ", stderr);
        show_line(stderr, error, UINT_MAX);
        *status = WEIRCTL_REFUSED;
    }
    return result;
}

static void print_json(const json_t *value)
{
    (void)json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    putchar('\n');
}

static json_t *request_of(const struct command *command, const struct arguments *a, bool *good)
{
    json_t *request = json_pack("{s:s}", "command", command->name);
    char *end;
    long weight;

    *good = true;
    if (command->words > 0)
        json_object_set_new(request, "name", json_string(a->words[0]));
    if (command->words < 2)
        return request;
    if (strcmp(a->words[1], "default") == 0) {
        json_object_set_new(request, "weight", json_string("default"));
        return request;
    }
    errno = 0;
    weight = strtol(a->words[1], &end, 10);
    *good = *a->words[1] && !*end && errno == 0 && weight >= 0 && weight <= REQUEST_WEIGHT_MAX;
    json_object_set_new(request, "weight", json_integer(weight));
    return request;
}

static int run_request(const struct command *command, const struct arguments *a, struct client *client,
                       const struct style *style)
{
    json_t *answer, *result, *request;
    bool good;
    int status;

    request = request_of(command, a, &good);
    if (!good) {
        json_decref(request);
        return fail("expected a whole number from 0 to 1000, or default", a->words[1]);
    }
    result = ask(client, request, &answer, &status);
    if (result && a->json)
        print_json(result);
    else if (result)
        command->show(stdout, result, style);
    json_decref(answer);
    return status;
}

static int run_top(const struct command *command, const struct arguments *a, struct client *client,
                   const struct style *style)
{
    (void)command;
    if (a->json)
        return fail("top is for people; status and backends have --json", NULL);
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return fail("top needs a terminal", NULL);
    return top_run(client, style);
}

static int run_version(const struct command *command, const struct arguments *a, struct client *client,
                       const struct style *style)
{
    json_t *answer, *result;
    int status;

    (void)style;
    if (!a->json)
        printf("weirctl %s\n", WEIR_VERSION);
    result = ask(client, json_pack("{s:s}", "command", command->name), &answer, &status);
    if (result && a->json) {
        json_object_set_new(result, "weirctl", json_string(WEIR_VERSION));
        print_json(result);
    } else if (result) {
        fputs("weir ", stdout);
        show_line(stdout, show_text(result, "version"), UINT_MAX);
    }
    json_decref(answer);
    return status;
}

static void show_reloaded(FILE *out, const json_t *result, const struct style *style)
{
    (void)result;
    (void)style;
    fputs("the configuration is in force\n", out);
}

/* What may stand behind drain and so on: each once, in the order of the file, and the names that stand for
 * several. For completion. */
static int run_names(const struct command *command, const struct arguments *a, struct client *client,
                     const struct style *style)
{
    json_t *answer, *result, *backend, *names = json_object();
    size_t i;
    int status;
    void *at;

    (void)command;
    (void)style;
    result = ask(client, json_pack("{s:s}", "command", "backends"), &answer, &status);
    for (i = 0; (backend = json_array_get(result, i)); i++) {
        const char *full = show_text(backend, "name"), *sign = strchr(full, '@');
        char *group = sign ? strndup(full, (size_t)(sign - full)) : NULL;

        json_object_set_new(names, full, json_true());
        if (group)
            json_object_set_new(names, group, json_true());
        free(group);
    }
    if (result && a->json) {
        json_t *array = json_array();

        for (at = json_object_iter(names); at; at = json_object_iter_next(names, at))
            json_array_append_new(array, json_string(json_object_iter_key(at)));
        print_json(array);
        json_decref(array);
    } else {
        for (at = json_object_iter(names); at; at = json_object_iter_next(names, at))
            show_line(stdout, json_object_iter_key(at), UINT_MAX);
    }
    json_decref(names);
    json_decref(answer);
    return status;
}

static const struct command commands[] = {
    {"status",     0, run_request, show_status   },
    { "backends",  0, run_request, show_backends },
    { "sessions",  0, run_request, show_sessions },
    { "instances", 0, run_request, show_instances},
    { "top",       0, run_top,     NULL          },
    { "drain",     1, run_request, show_orders   },
    { "maint",     1, run_request, show_orders   },
    { "ready",     1, run_request, show_orders   },
    { "weight",    2, run_request, show_orders   },
    { "reload",    0, run_request, show_reloaded },
    { "version",   0, run_version, NULL          },
    { "names",     0, run_names,   NULL          },
};

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static struct style style_of(FILE *out)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM"), *columns = getenv("COLUMNS");
    bool terminal = isatty(fileno(out));
    struct style style = {
        .colours = terminal && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0,
        .utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0,
        .width = WIDTH,
    };
    struct winsize size;
    long width = columns ? strtol(columns, NULL, 10) : 0;

    if (width <= 0 && terminal && ioctl(fileno(out), TIOCGWINSZ, &size) == 0)
        width = size.ws_col;
    if (width > 0)
        style.width = width < WIDTH_MOST ? (unsigned)width : WIDTH_MOST;
    return style;
}

/* -1: go on; else the exit status. */
static int read_arguments(int argc, char **argv, struct arguments *a)
{
    enum { OPTION_SOCKET = 256, OPTION_JSON, OPTION_VERSION, OPTION_REDIS, OPTION_FARM, OPTION_CA };
    static const struct option options[] = {
        {"socket",     required_argument, NULL, OPTION_SOCKET },
        { "json",        no_argument, NULL, OPTION_JSON },
        { "version",           no_argument, NULL, OPTION_VERSION },
        { "redis",required_argument, NULL, OPTION_REDIS },
        { "farm", required_argument, NULL, OPTION_FARM },
        { "ca",   required_argument, NULL, OPTION_CA },
        { "help",        no_argument, NULL, 'h' },
        { 0          },
    };
    int option;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case OPTION_SOCKET: a->socket = optarg; break;
        case OPTION_JSON: a->json = true; break;
        case OPTION_VERSION: puts("weirctl " WEIR_VERSION); return WEIRCTL_OK;
        case OPTION_REDIS: a->redis = optarg; break;
        case OPTION_FARM: a->farm = optarg; break;
        case OPTION_CA: a->ca = optarg; break;
        case 'h': fputs(usage, stdout); return WEIRCTL_OK;
        default: fputs("Try 'weirctl --help'.\n", stderr); return WEIRCTL_USAGE;
        }
    }
    a->words = argv + optind;
    a->n = argc - optind;
    return -1;
}

/* What it is to talk to. WEIRCTL_OK: go on. */
static int choose(const struct arguments *a, struct client *client)
{
    const char *text = a->redis ? a->redis : getenv("WEIR_REDIS_URL"), *error;
    struct redis_url url;
    bool good;

    if (!a->redis && !a->farm) {
        client->path = a->socket ? a->socket : WEIRCTL_SOCKET;
        return a->ca ? fail("--ca needs --farm", NULL) : WEIRCTL_OK;
    }
    if (a->socket)
        return fail("--socket is one Weir, --redis and --farm are many", NULL);
    if (!text || !*text)
        return fail("where is Redis? --redis URL, or WEIR_REDIS_URL in the environment", NULL);
    if (a->farm && !word_is_name(a->farm))
        return fail("expected the name of a farm, as in the configuration", a->farm);
    if (!redis_url_parse(text, &url, &error))
        return fail("where Redis is: expected", error); /* the text itself may hold a password */
    if (a->ca && !url.tls)
        return fail("--ca has no effect without TLS; expected --redis rediss://", NULL);
    if (a->redis)
        memset((char *)(uintptr_t)a->redis, '*', strlen(a->redis)); /* for those who look at processes */
    good = farm_open(client, &url, a->farm ? a->farm : "main", a->ca ? a->ca : "");
    redis_url_wipe(&url);
    return good ? WEIRCTL_OK : fail("cannot begin", client->error);
}

/* What was shown must have arrived: a full disk is not success. */
static int finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "weirctl: cannot write: %s\n", strerror(errno));
    return status == WEIRCTL_OK ? WEIRCTL_REFUSED : status;
}

int main(int argc, char **argv)
{
    struct arguments arguments = { .n = 0 };
    struct client client = { .fd = -1, .timeout = TIMEOUT_MS };
    const struct command *command;
    struct style style;
    int status = read_arguments(argc, argv, &arguments);

    if (status >= 0)
        return status;
    if (!arguments.n)
        return fail("what is it to do?", NULL);
    command = find(arguments.words[0]);
    if (!command)
        return fail("unknown command", arguments.words[0]);
    arguments.words++;
    arguments.n--;
    if (arguments.n != command->words)
        return fail(command->words == 0   ? "nothing may stand behind it"
                    : command->words == 1 ? "expected the name of one backend behind it"
                                          : "expected the name of one backend and a weight behind it",
                    command->name);
    (void)setlocale(LC_CTYPE, "");
    style = style_of(stdout);
    status = choose(&arguments, &client);
    if (status == WEIRCTL_OK)
        status = command->run(command, &arguments, &client, &style);
    client_close(&client);
    farm_close(&client);
    return finish(status);
}
