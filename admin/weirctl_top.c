/*
 * The live view: the whole screen, anew each second.
 *
 *     weir 0.1.0 on relay.example.net, up 3d 4h: ready                  14:03:21
 *     sessions 123, 45.0/s   messages 120.5/s   waiting 3   delivered 1.2M
 *
 *     BACKEND        STATE       WT   CONN/LIMIT    MSG/S  SHARE
 *     relay1         up           4       12/200     80.3  ############········
 *
 * The terminal gets back what it had, however this ends: signals are told here to the loop, and a crash puts
 * it back before it goes on.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "admin/weirctl.h"
#include "admin/weirctl_table.h"

#define REFRESH_MS  1000
#define TIMEOUT_MS  2000 /* for an answer: q is not heard meanwhile */
#define SMOOTH      0.4  /* of the newest second in a rate */
#define LINES_ABOVE 4
#define LINES_BELOW 1
/* Columns. */
#define GAP            2u
#define NAME_MAX_WIDTH 28u
#define STATE_WIDTH    9u
#define WEIGHT_WIDTH   4u
#define PLACES_WIDTH   11u
#define RATE_WIDTH     7u

#define ENTER "\033[?1049h\033[?25l" /* the other screen, without a cursor */
#define LEAVE "\033[0m\033[?25h\033[?1049l"

struct rate {
    double per_second;
    json_int_t last;
    bool known;
};

/* One backend in one pool, found again by both names. */
struct row {
    char *key;
    struct rate messages;
};

struct top {
    struct client *client;
    struct style style;
    unsigned lines;
    json_t *status, *backends; /* the last answers; NULL before the first */
    bool silent;               /* the last question was not answered */
    bool refused;              /* or there was an answer, and it was no */
    json_int_t pid;
    struct rate sessions, messages;
    struct row *rows;
    size_t n_rows;
    double asked; /* when the last answer came, s */
};

/* --- the terminal --- */

static volatile sig_atomic_t ending, stopping;
static struct termios before;

static void say(const char *text)
{
    size_t size = strlen(text);

    while (size) {
        ssize_t n = write(STDOUT_FILENO, text, size);

        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return;
        if (n > 0) {
            text += n;
            size -= (size_t)n;
        }
    }
}

static void leave_screen(void)
{
    say(LEAVE);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

static void enter_screen(void)
{
    struct termios raw = before;

    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    say(ENTER);
}

static void on_ending(int number)
{
    ending = number;
}

static void on_stopping(int number)
{
    stopping = number;
}

static void on_resize(int number)
{
    (void)number; /* poll() has been woken */
}

static void on_crash(int number)
{
    leave_screen();
    (void)raise(number); /* with the default handling by now */
}

static void watch(int number, void (*handler)(int), int flags)
{
    struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

    sigemptyset(&action.sa_mask);
    (void)sigaction(number, &action, NULL);
}

static void watch_signals(void)
{
    static const int ends[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
    static const int crashes[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        watch(ends[i], on_ending, 0);
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
        watch(crashes[i], on_crash, (int)(SA_RESETHAND | SA_NODEFER));
    watch(SIGTSTP, on_stopping, 0);
    watch(SIGWINCH, on_resize, 0);
}

/* ^Z: the shell gets its screen, and we ours when we are called back. */
static void stop_for_a_while(void)
{
    stopping = 0;
    leave_screen();
    (void)raise(SIGSTOP);
    enter_screen();
}

static void measure_screen(struct top *top)
{
    struct winsize size;

    top->style.width = 80;
    top->lines = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col && size.ws_row) {
        top->style.width = size.ws_col;
        top->lines = size.ws_row;
    }
}

/* --- figures --- */

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void rate_update(struct rate *rate, json_int_t count, double seconds)
{
    if (rate->known && count >= rate->last && seconds > 0) {
        double fresh = ((double)count - (double)rate->last) / seconds;

        rate->per_second += (fresh - rate->per_second) * SMOOTH;
        if (fresh == 0 && rate->per_second < 0.05)
            rate->per_second = 0;
    } else {
        rate->per_second = 0;
    }
    rate->last = count;
    rate->known = true;
}

static void forget(struct top *top)
{
    for (size_t i = 0; i < top->n_rows; i++)
        free(top->rows[i].key);
    free(top->rows);
    top->rows = NULL;
    top->n_rows = 0;
    top->sessions = top->messages = (struct rate){ 0 };
}

static struct row *row_of(struct top *top, const json_t *backend)
{
    struct row *rows;
    char *key;

    if (asprintf(&key, "%s %s", show_text(backend, "pool"), show_text(backend, "name")) < 0)
        return NULL;
    for (size_t i = 0; i < top->n_rows; i++) {
        if (strcmp(top->rows[i].key, key) == 0) {
            free(key);
            return &top->rows[i];
        }
    }
    rows = realloc(top->rows, (top->n_rows + 1) * sizeof *rows);
    if (!rows) {
        free(key);
        return NULL;
    }
    top->rows = rows;
    rows[top->n_rows] = (struct row){ .key = key };
    return &rows[top->n_rows++];
}

static void count(struct top *top)
{
    double now = seconds_now(), seconds = now - top->asked;
    json_t *backend;
    size_t i;

    top->asked = now;
    if (top->pid != show_number(top->status, "pid"))
        forget(top); /* another process counts from zero */
    top->pid = show_number(top->status, "pid");
    rate_update(&top->sessions, show_number(top->status, "sessions_total"), seconds);
    rate_update(&top->messages, show_number(top->status, "delivered"), seconds);
    for (i = 0; (backend = json_array_get(top->backends, i)); i++) {
        struct row *row = row_of(top, backend);

        if (row)
            rate_update(&row->messages, show_number(backend, "delivered"), seconds);
    }
}

/* The result, by itself; NULL: no answer. */
static json_t *ask_for(struct top *top, const char *command)
{
    json_t *answer = client_ask(top->client, json_pack("{s:s}", "command", command));
    const char *error = "";
    json_t *result = answer ? client_result(answer, &error) : NULL;

    top->refused = answer && !result;
    if (top->refused)
        (void)snprintf(top->client->error, sizeof top->client->error, "%s", error);
    json_incref(result);
    json_decref(answer);
    return result;
}

static void refresh(struct top *top)
{
    json_t *status = ask_for(top, "status"), *backends = status ? ask_for(top, "backends") : NULL;

    top->silent = !backends;
    if (!backends) {
        json_decref(status);
        return;
    }
    json_decref(top->status);
    json_decref(top->backends);
    top->status = status;
    top->backends = backends;
    count(top);
}

/* --- drawing --- */

static void put(FILE *out, const char *text, unsigned width, bool right)
{
    char *printable = table_printable(text);

    if (printable)
        table_write(out, printable, width, right);
    free(printable);
}

/* A line of several parts, of which there is no more than the screen is wide. */
struct line {
    FILE *out;
    unsigned left; /* columns */
};

static unsigned take(struct line *line, unsigned width)
{
    unsigned taken = width < line->left ? width : line->left;

    line->left -= taken;
    return taken;
}

static void add(struct line *line, const char *text, unsigned width, bool right)
{
    put(line->out, text, take(line, width), right);
    put(line->out, "", take(line, GAP), false);
}

static void colour(FILE *out, const struct top *top, const char *which)
{
    if (top->style.colours)
        fprintf(out, "\033[%sm", which);
}

/* Nothing of an earlier frame stays behind it. */
static void end_line(FILE *out, const struct top *top)
{
    if (top->style.colours)
        fputs("\033[0m", out);
    fputs("\033[K\r\n", out);
}

static void draw_head(FILE *out, const struct top *top)
{
    const json_t *status = top->status;
    bool ready = json_is_true(json_object_get(status, "ready"));
    char text[512], up[SHOW_SHORT], delivered[SHOW_SHORT], clock[16] = "";
    time_t now = time(NULL);
    struct tm local;

    if (localtime_r(&now, &local))
        (void)strftime(clock, sizeof clock, "%H:%M:%S", &local);
    if (json_object_get(status, "farm"))
        (void)snprintf(text, sizeof text, "farm %.64s: %lld instances, %lld gone: %s",
                       show_text(status, "farm"), (long long)show_number(status, "instances"),
                       (long long)show_number(status, "gone"), ready ? "ready" : "no backend is usable");
    else
        (void)snprintf(text, sizeof text, "weir %.32s on %.200s, up %s: %s", show_text(status, "version"),
                       show_text(status, "hostname"), show_duration(show_number(status, "uptime"), up),
                       ready                                               ? "ready"
                       : json_is_true(json_object_get(status, "draining")) ? "draining"
                                                                           : "no backend is usable");
    colour(out, top, ready ? TABLE_BOLD : TABLE_RED);
    put(out, text, top->style.width > 10 ? top->style.width - 10 : 1, false);
    put(out, clock, top->style.width > 10 ? 9 : 0, true);
    end_line(out, top);
    if (top->silent)
        (void)snprintf(text, sizeof text, "no answer (%.200s): what is shown is old", top->client->error);
    else
        (void)snprintf(text, sizeof text,
                       "sessions %lld, %.1f/s   messages %.1f/s   waiting %lld   delivered %s",
                       (long long)show_number(status, "sessions"), top->sessions.per_second,
                       top->messages.per_second, (long long)show_number(status, "queued"),
                       show_count(show_number(status, "delivered"), delivered));
    if (top->silent)
        colour(out, top, TABLE_RED);
    put(out, text, top->style.width, false);
    end_line(out, top);
    end_line(out, top);
}

struct widths {
    unsigned name, bar;
};

#define FIXED_WIDTH (STATE_WIDTH + WEIGHT_WIDTH + PLACES_WIDTH + RATE_WIDTH + 5 * GAP)

static struct widths divide(const struct top *top)
{
    unsigned width = top->style.width > FIXED_WIDTH ? top->style.width - FIXED_WIDTH : 0;
    unsigned name = width * 2 / 5 > 8 ? width * 2 / 5 : 8; /* what does not fit is cut off on the right */
    json_t *backend;
    unsigned widest = sizeof "BACKEND" - 1;
    size_t i;

    for (i = 0; (backend = json_array_get(top->backends, i)); i++) {
        unsigned of_name = (unsigned)strlen(show_text(backend, "name"));

        widest = of_name > widest ? of_name : widest;
    }
    name = name > NAME_MAX_WIDTH ? NAME_MAX_WIDTH : name;
    name = name > widest ? widest : name;
    return (struct widths){ .name = name, .bar = width > name ? width - name : 0 };
}

static void draw_bar(struct line *line, const struct top *top, double share, unsigned columns)
{
    unsigned width = take(line, columns), full = (unsigned)(share * width + 0.5);

    for (unsigned i = 0; i < width; i++)
        fputs(i < full ? (top->style.utf8 ? "\xe2\x96\x88" : "#") : (top->style.utf8 ? "\xc2\xb7" : "."),
              line->out);
}

static void draw_backend(FILE *out, struct top *top, const json_t *backend, struct widths widths)
{
    const struct row *row = row_of(top, backend);
    double rate = row ? row->messages.per_second : 0, all = top->messages.per_second;
    struct line line = { out, top->style.width };
    char *name = table_printable(show_text(backend, "name"));
    char text[2 * SHOW_SHORT + 2], number[SHOW_SHORT], limit[SHOW_SHORT];

    table_write_name(out, name ? name : "", take(&line, widths.name));
    put(out, "", take(&line, GAP), false);
    free(name);
    colour(out, top, show_state_colour(backend));
    add(&line, show_state(backend, text), STATE_WIDTH, false);
    colour(out, top, "0");
    add(&line, show_count(show_number(backend, "weight"), text), WEIGHT_WIDTH, true);
    (void)snprintf(text, sizeof text, "%s/%s", show_count(show_number(backend, "connections"), number),
                   show_limit(backend, limit));
    add(&line, text, PLACES_WIDTH, true);
    (void)snprintf(text, sizeof text, "%.1f", rate);
    add(&line, text, RATE_WIDTH, true);
    draw_bar(&line, top, all > 0 ? (rate < all ? rate / all : 1) : 0, widths.bar);
    end_line(out, top);
}

static void draw_titles(FILE *out, const struct top *top, struct widths widths)
{
    struct line line = { out, top->style.width };

    colour(out, top, TABLE_BOLD);
    add(&line, "BACKEND", widths.name, false);
    add(&line, "STATE", STATE_WIDTH, false);
    add(&line, "WT", WEIGHT_WIDTH, true);
    add(&line, "CONN/LIMIT", PLACES_WIDTH, true);
    add(&line, "MSG/S", RATE_WIDTH, true);
    add(&line, "SHARE", widths.bar, false);
    end_line(out, top);
}

static void draw_backends(FILE *out, struct top *top)
{
    size_t room = top->lines > LINES_ABOVE + LINES_BELOW ? top->lines - LINES_ABOVE - LINES_BELOW : 0;
    struct widths widths = divide(top);
    char text[64];
    json_t *backend;
    size_t i;

    draw_titles(out, top, widths);
    for (i = 0; (backend = json_array_get(top->backends, i)); i++) {
        if (i < room)
            draw_backend(out, top, backend, widths);
    }
    fputs("\033[J", out);
    fprintf(out, "\033[%u;1H", top->lines);
    if (json_array_size(top->backends) > room)
        (void)snprintf(text, sizeof text, "q quits; %zu more backends than there is room for",
                       json_array_size(top->backends) - room);
    else
        (void)snprintf(text, sizeof text, "q quits");
    put(out, text, top->style.width > 1 ? top->style.width - 1 : 0, false);
}

/* One write a frame, so that it does not flicker. */
static void draw(struct top *top)
{
    char *frame = NULL;
    size_t size = 0;
    FILE *out;

    measure_screen(top);
    out = open_memstream(&frame, &size);
    if (!out)
        return;
    fputs("\033[H", out);
    draw_head(out, top);
    draw_backends(out, top);
    if (fclose(out) == 0)
        say(frame);
    free(frame);
}

/* --- the loop --- */

/* Until a second has passed: false if it is to end. The screen's size may change meanwhile. */
static bool wait_a_second(struct top *top)
{
    double until = seconds_now() + REFRESH_MS / 1000.;
    struct pollfd keys = { .fd = STDIN_FILENO, .events = POLLIN };

    for (;;) {
        double left = until - seconds_now();
        int n = left > 0 ? poll(&keys, 1, (int)(left * 1000) + 1) : 0;
        char key;

        if (ending)
            return false;
        if (stopping)
            stop_for_a_while();
        if (n == 0)
            return true;
        if (n < 0)
            draw(top);
        else if (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q')
            return false; /* the terminal has gone, or we are to */
    }
}

int top_run(struct client *client, const struct style *style)
{
    struct top top = { .client = client, .style = *style };

    client->stop = &ending;
    client->timeout = TIMEOUT_MS;
    refresh(&top);
    if (top.silent) {
        fprintf(stderr, "weirctl: %s: ", client->path);
        show_line(stderr, client->error, 200);
        return top.refused ? WEIRCTL_REFUSED : WEIRCTL_NO_ANSWER;
    }
    if (tcgetattr(STDIN_FILENO, &before) != 0) {
        fprintf(stderr, "weirctl: the terminal: %s\n", strerror(errno));
        return WEIRCTL_USAGE;
    }
    watch_signals();
    enter_screen();
    do {
        draw(&top);
        if (!wait_a_second(&top))
            break;
        refresh(&top);
    } while (!ending);
    leave_screen();
    forget(&top);
    json_decref(top.status);
    json_decref(top.backends);
    return WEIRCTL_OK;
}
