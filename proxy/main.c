#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "proxy/process.h"

#define DEFAULT_PATH "/etc/weir/weir.yaml"
#define BACKENDS_MAX 64

enum { EXIT_USAGE = 2 };

struct arguments {
    const char *path;
    const char *listen;
    const char *redis;
    const char *backends[BACKENDS_MAX];
    size_t n_backends;
    bool check;
};

static const char usage[] =
    "usage: weir [-c FILE]                                      run (default " DEFAULT_PATH ")\n"
    "       weir --check [-c FILE]                              check the file and say what is wrong\n"
    "       weir --listen ADDR [--backend ADDR[*WEIGHT]]... [--redis URL]\n"
    "                                                           quick start without a file\n"
    "       weir --version | --help\n"
    "\n"
    "ADDR is 192.0.2.1:25, [2001:db8::1]:25, unix:/path, or for a backend also name:25.\n"
    "Signals: HUP reload; TERM drain, then stop; TERM again or INT stop now; USR1 reopen the log.\n";

static int fail(const char *message, const char *what)
{
    fprintf(stderr, "weir: %s%s%s\nTry 'weir --help'.\n", message, what ? ": " : "", what ? what : "");
    return EXIT_USAGE;
}

/* -1: go on; else the exit status. */
static int read_arguments(int argc, char **argv, struct arguments *a)
{
    enum { OPTION_CHECK = 256, OPTION_LISTEN, OPTION_BACKEND, OPTION_REDIS, OPTION_VERSION };
    static const struct option options[] = {
        {"config",      required_argument, NULL, 'c' },
        { "check",         no_argument, NULL, OPTION_CHECK },
        { "listen",            required_argument, NULL, OPTION_LISTEN },
        { "backend",required_argument, NULL, OPTION_BACKEND },
        { "redis", required_argument, NULL, OPTION_REDIS },
        { "version",     no_argument, NULL, OPTION_VERSION },
        { "help",         no_argument, NULL, 'h' },
        { 0           },
    };
    int option;

    while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (option) {
        case 'c': a->path = optarg; break;
        case 'h': fputs(usage, stdout); return 0;
        case OPTION_CHECK: a->check = true; break;
        case OPTION_LISTEN:
            if (a->listen)
                return fail("--listen: one address only; more take a configuration file", NULL);
            a->listen = optarg;
            break;
        case OPTION_BACKEND:
            if (a->n_backends == BACKENDS_MAX)
                return fail("--backend: too many; use a configuration file", NULL);
            a->backends[a->n_backends++] = optarg;
            break;
        case OPTION_REDIS: a->redis = optarg; break;
        case OPTION_VERSION: puts("weir " WEIR_VERSION); return 0;
        default: fputs("Try 'weir --help'.\n", stderr); return EXIT_USAGE;
        }
    }
    if (optind < argc)
        return fail("unexpected argument", argv[optind]);
    if (a->listen && a->path)
        return fail("--listen and -c exclude each other", NULL);
    if (a->n_backends && !a->listen)
        return fail("--backend needs --listen", NULL);
    if (a->redis && !a->listen)
        return fail("--redis needs --listen; in a file it is `redis: { url: … }`", NULL);
    return -1;
}

int main(int argc, char **argv)
{
    struct arguments arguments = { 0 };
    struct process_options options = { 0 };
    struct config *config;
    int status = read_arguments(argc, argv, &arguments);

    if (status >= 0)
        return status;
    if (arguments.listen) {
        config =
            config_quick(arguments.listen, arguments.backends, arguments.n_backends, arguments.redis, stderr);
    } else {
        options.path = arguments.path ? arguments.path : DEFAULT_PATH;
        config = config_load(options.path, stderr);
    }
    if (!config)
        return EXIT_USAGE;
    if (arguments.check) {
        printf("%s: ok\n", options.path ? options.path : "arguments");
        config_release(&config);
        return 0;
    }
    return process_run(config, &options);
}
