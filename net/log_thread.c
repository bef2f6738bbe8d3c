/*
 * From many threads to one destination that may be slow, full or stuck.
 *
 *     producers ──memcpy under a mutex──▶ filling buffer          log thread ──write──▶ destination
 *                                              ╰────── swap ─────▶ its own buffer
 *
 * A producer holds the mutex for one memcpy and never waits for anything else: a full buffer drops. It
 * signals only when the log thread sleeps for want of work; a busy log thread looks by itself every NAP_MS,
 * so that a busy proxy pays for fifty wake-ups a second and not for one a line.
 *
 * Where a write could block (a pipe, a terminal, a socket) it is preceded by poll() and kept to PIPE_BUF
 * octets, which a pipe that polls as writable takes whole. So the log thread notices a new destination or the
 * end while the old destination is stuck. Only syslog() and a hung file system can hold it; log_stop() then
 * leaves it behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "net/log_internal.h"

#define BUFFER_SIZE  (1 << 20)         /* octets; pages of it that no line ever reached cost nothing */
#define BUFFER_HALF  (BUFFER_SIZE / 2) /* cuts the log thread's nap short */
#define BUFFER_LINES (1 << 14)
#define NAP_MS       20
#define BLOCKED_MS   100  /* between two looks at a destination that takes nothing */
#define RETRY_MS     1000 /* before drops are reported again to a destination that refused */
#define FLUSH_MS     1800 /* after log_stop() */
#define STOP_MS      2000
#define SYSLOG_NAME  "weir"

struct buffer {
    size_t size;
    size_t n;
    uint8_t levels[BUFFER_LINES]; /* of each line: syslog asks */
    char lines[BUFFER_SIZE];
};

struct destination {
    enum log_target target;
    int fd;       /* -1 for syslog */
    bool careful; /* a write of more than PIPE_BUF may block */
};

enum phase {
    PHASE_DIRECT,  /* no log thread: records go to standard error at once */
    PHASE_RUNNING, /* records go into the filling buffer */
    PHASE_DEAF,    /* stopped with a blocked destination: records are dropped */
};

static struct {
    pthread_mutex_t lock; /* for all of it but the atomics */
    pthread_cond_t wake;  /* for the log thread */
    pthread_cond_t ended; /* for log_stop() */
    enum phase phase;
    bool idle; /* the log thread sleeps until somebody signals */
    bool stopping;
    bool gone;          /* the log thread has ended */
    bool stuck;         /* it was not waited for */
    int64_t give_up_at; /* once stopping */
    uint64_t unreported;
    struct destination *next; /* to switch to, or NULL */
    struct buffer *filling;
    _Atomic bool interrupted; /* `next` or `stopping` is set */
    _Atomic uint64_t dropped;
} shared = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .ended = PTHREAD_COND_INITIALIZER,
    .phase = PHASE_DIRECT,
};

/* The log thread's own. */
static struct {
    struct buffer *draining;
    struct destination *to;
    bool torn; /* the last line written has no end */
} own;

static struct buffer buffers[2];

/* Serializes start, reconfigure, reopen and stop. */
static pthread_mutex_t control = PTHREAD_MUTEX_INITIALIZER;
static pthread_t thread;
static char *current_path; /* of the file, owned; NULL when the destination is none */

static int64_t monotonic_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int wait_until(pthread_cond_t *condition, int64_t at_ms)
{
    struct timespec at = { .tv_sec = at_ms / 1000, .tv_nsec = at_ms % 1000 * 1000000 };

    return pthread_cond_clockwait(condition, &shared.lock, CLOCK_MONOTONIC, &at);
}

static size_t count_lines(const char *text, size_t size)
{
    size_t n = 0;

    for (const char *end = text + size; (text = memchr(text, '\n', (size_t)(end - text))); text++)
        n++;
    return n;
}

/* --- producers --- */

static void write_directly(const char *line, size_t size)
{
    while (size > 0) {
        ssize_t n = write(STDERR_FILENO, line, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        line += n;
        size -= (size_t)n;
    }
}

void log_submit(enum log_level level, const char *line, size_t size)
{
    enum phase phase;
    bool wake = false;

    pthread_mutex_lock(&shared.lock);
    phase = shared.phase;
    if (phase == PHASE_RUNNING) {
        struct buffer *b = shared.filling;
        bool was_low = b->size < BUFFER_HALF;

        if (b->n < BUFFER_LINES && size <= BUFFER_SIZE - b->size) {
            memcpy(b->lines + b->size, line, size);
            b->size += size;
            b->levels[b->n++] = (uint8_t)level;
        } else {
            shared.unreported++;
            atomic_fetch_add_explicit(&shared.dropped, 1, memory_order_relaxed);
        }
        wake = shared.idle || (was_low && b->size >= BUFFER_HALF);
        shared.idle = false;
    }
    pthread_mutex_unlock(&shared.lock);
    if (wake)
        pthread_cond_signal(&shared.wake);
    if (phase == PHASE_DIRECT)
        write_directly(line, size);
    else if (phase == PHASE_DEAF)
        atomic_fetch_add_explicit(&shared.dropped, 1, memory_order_relaxed);
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&shared.dropped, memory_order_relaxed);
}

/* --- destinations --- */

static void destination_free(struct destination **d)
{
    if (*d && (*d)->target == LOG_TARGET_FILE)
        close((*d)->fd);
    free(*d);
    *d = NULL;
}

static struct destination *destination_open(enum log_target target, const char *path, const char **error)
{
    struct destination *d = calloc(1, sizeof *d);
    struct stat status;

    if (!d) {
        *error = strerrordesc_np(ENOMEM);
        return NULL;
    }
    d->target = target;
    d->fd = target == LOG_TARGET_STDERR ? STDERR_FILENO : -1;
    if (target == LOG_TARGET_FILE) {
        /* Non-blocking: neither opening a pipe that nobody reads nor writing to it may wait. */
        d->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0640);
        if (d->fd < 0) {
            *error = errno == ENXIO ? "nothing reads there" : strerrordesc_np(errno);
            free(d);
            return NULL;
        }
    }
    d->careful = d->fd >= 0 && (fstat(d->fd, &status) != 0 || !S_ISREG(status.st_mode));
    return d;
}

static void send_to_syslog(uint8_t level, const char *line, size_t size)
{
    static const int priorities[] = {
        [LOG_LEVEL_ERROR] = LOG_ERR,
        [LOG_LEVEL_WARNING] = LOG_WARNING,
        [LOG_LEVEL_INFO] = LOG_INFO,
        [LOG_LEVEL_DEBUG] = LOG_DEBUG,
    };

    syslog(priorities[level], "%.*s", (int)size, line);
}

/* Octets that the descriptor took; 0 if it takes none for now; -1 if it refuses. */
static ssize_t write_some(const char *text, size_t size)
{
    struct pollfd ready = { .fd = own.to->fd, .events = POLLOUT };
    ssize_t n;

    if (own.to->careful) {
        if (size > PIPE_BUF)
            size = PIPE_BUF;
        if (poll(&ready, 1, BLOCKED_MS) <= 0)
            return 0;
    }
    n = write(own.to->fd, text, size);
    if (n < 0 && errno == EAGAIN) {
        /* poll() saw room but not enough of it: it would say so again at once. */
        poll(NULL, 0, NAP_MS);
        return 0;
    }
    if (n < 0)
        return errno == EINTR ? 0 : -1;
    return n;
}

/* --- the log thread --- */

/* Adopt a new destination. False once stopping has taken too long. */
static bool attend(void)
{
    struct destination *next;
    bool patient;

    if (!atomic_load_explicit(&shared.interrupted, memory_order_relaxed))
        return true;
    pthread_mutex_lock(&shared.lock);
    next = shared.next;
    shared.next = NULL;
    patient = !shared.stopping || monotonic_ms() < shared.give_up_at;
    atomic_store_explicit(&shared.interrupted, shared.stopping, memory_order_relaxed);
    pthread_mutex_unlock(&shared.lock);
    if (next) {
        destination_free(&own.to);
        own.to = next;
        own.torn = false;
        if (next->target == LOG_TARGET_SYSLOG)
            openlog(SYSLOG_NAME, LOG_PID | LOG_NDELAY, LOG_MAIL);
    }
    return patient;
}

/* Take the draining buffer to the destination, and to the next one from where that comes. Returns how many of
 * its lines were lost. */
static size_t drain(void)
{
    const struct buffer *b = own.draining;
    const struct destination *begun = own.to;
    size_t done = 0, line = 0; /* `line` is counted for syslog only */

    while (attend() && done < b->size) {
        const char *at;
        ssize_t n;

        if (own.to != begun) {
            /* Half a line may be with the old destination; the new one gets it whole. */
            while (done > 0 && b->lines[done - 1] != '\n')
                done--;
            line = count_lines(b->lines, done);
            begun = own.to;
        }
        at = b->lines + done;
        if (own.to->target == LOG_TARGET_SYSLOG) {
            n = (const char *)memchr(at, '\n', b->size - done) - at + 1;
            send_to_syslog(b->levels[line++], at, (size_t)n - 1);
        } else if (own.torn) {
            n = write_some("\n", 1);
            if (n > 0) {
                own.torn = false;
                continue;
            }
        } else {
            n = write_some(at, b->size - done);
        }
        if (n < 0)
            break;
        done += (size_t)n;
    }
    own.torn = own.torn || (done > 0 && b->lines[done - 1] != '\n');
    return count_lines(b->lines + done, b->size - done);
}

static void report_drops(uint64_t count)
{
    struct buffer *b = own.draining;
    struct log_record record;

    log_build_dropped(&record, count);
    memcpy(b->lines, record.line, record.size);
    b->size = record.size;
    b->levels[0] = (uint8_t)record.level;
    b->n = 1;
}

static bool interrupted(void)
{
    return atomic_load_explicit(&shared.interrupted, memory_order_relaxed);
}

/* Sleep until there is something to do; `busy` if there was just now. With the lock held. */
static void await_work(bool busy)
{
    int64_t nap_end = monotonic_ms() + NAP_MS;

    while (busy && !interrupted() && shared.filling->size < BUFFER_HALF) {
        if (wait_until(&shared.wake, nap_end) == ETIMEDOUT)
            break;
    }
    while (shared.filling->n == 0 && !interrupted()) {
        shared.idle = true;
        if (shared.unreported == 0)
            pthread_cond_wait(&shared.wake, &shared.lock);
        else if (wait_until(&shared.wake, monotonic_ms() + RETRY_MS) == ETIMEDOUT)
            break;
    }
    shared.idle = false;
}

/* Swap the buffers. Returns the drops to report behind what is drained now. With the lock held. */
static uint64_t take(void)
{
    struct buffer *full = shared.filling;
    uint64_t unreported = shared.unreported;

    shared.filling = own.draining;
    shared.filling->size = shared.filling->n = 0;
    own.draining = full;
    shared.unreported = 0;
    return unreported;
}

static void lose(uint64_t lines, uint64_t reports)
{
    if (lines + reports == 0)
        return;
    atomic_fetch_add_explicit(&shared.dropped, lines, memory_order_relaxed);
    pthread_mutex_lock(&shared.lock);
    shared.unreported += lines + reports;
    pthread_mutex_unlock(&shared.lock);
}

/* With the lock held. */
static void finish(bool patient)
{
    atomic_fetch_add_explicit(&shared.dropped, shared.filling->n, memory_order_relaxed);
    destination_free(&own.to);
    destination_free(&shared.next);
    shared.phase = patient && !shared.stuck ? PHASE_DIRECT : PHASE_DEAF;
    shared.gone = true;
    pthread_cond_signal(&shared.ended);
}

static void *run(void *unused)
{
    bool patient = true;

    (void)unused;
    pthread_mutex_lock(&shared.lock);
    for (bool busy = false;;) {
        uint64_t unreported;
        size_t lost;

        await_work(busy);
        if (!patient || (shared.stopping && shared.filling->n == 0))
            break;
        unreported = take();
        pthread_mutex_unlock(&shared.lock);
        busy = own.draining->n > 0;
        lose(drain(), 0);
        if (unreported > 0) {
            report_drops(unreported);
            lost = drain();
            lose(0, lost * unreported);
        }
        patient = attend();
        pthread_mutex_lock(&shared.lock);
    }
    finish(patient);
    pthread_mutex_unlock(&shared.lock);
    return NULL;
}

/* --- control --- */

/* What the log thread shall write to from now on. */
static void hand_over(struct destination *next)
{
    pthread_mutex_lock(&shared.lock);
    destination_free(&shared.next);
    shared.next = next;
    shared.idle = false;
    atomic_store_explicit(&shared.interrupted, true, memory_order_relaxed);
    pthread_cond_signal(&shared.wake);
    pthread_mutex_unlock(&shared.lock);
}

static enum phase current_phase(void)
{
    enum phase phase;

    pthread_mutex_lock(&shared.lock);
    phase = shared.phase;
    pthread_mutex_unlock(&shared.lock);
    return phase;
}

/* Whether a log thread that log_stop() did not wait for is still there. */
static bool left_behind(void)
{
    bool there;

    pthread_mutex_lock(&shared.lock);
    there = shared.stuck && !shared.gone;
    pthread_mutex_unlock(&shared.lock);
    return there;
}

static int start_thread(struct destination *to)
{
    sigset_t all, before;
    int failure;

    own.draining = &buffers[0];
    own.to = to;
    own.torn = false;
    if (to->target == LOG_TARGET_SYSLOG)
        openlog(SYSLOG_NAME, LOG_PID | LOG_NDELAY, LOG_MAIL);
    pthread_mutex_lock(&shared.lock);
    shared.filling = &buffers[1];
    shared.filling->size = shared.filling->n = 0;
    shared.unreported = 0;
    shared.stopping = shared.gone = shared.stuck = shared.idle = false;
    atomic_store_explicit(&shared.interrupted, false, memory_order_relaxed);
    pthread_mutex_unlock(&shared.lock);
    /* Signals are for the control thread; a broken pipe is for write() to say. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failure = pthread_create(&thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0)
        return failure;
    pthread_setname_np(thread, "weir-log");
    pthread_mutex_lock(&shared.lock);
    shared.phase = PHASE_RUNNING;
    pthread_mutex_unlock(&shared.lock);
    return 0;
}

/* Open, and remember what was opened for log_reopen(). */
static struct destination *prepare(enum log_target target, const char *path, const char **error)
{
    char *copy = NULL;
    struct destination *d;

    if (target == LOG_TARGET_FILE && !(copy = strdup(path))) {
        *error = strerrordesc_np(ENOMEM);
        return NULL;
    }
    d = destination_open(target, path, error);
    if (!d) {
        free(copy);
        return NULL;
    }
    free(current_path);
    current_path = copy;
    return d;
}

int log_start(enum log_target target, const char *path, enum log_format format, enum log_level level,
              const char **error)
{
    struct destination *d = NULL;
    int failure;

    pthread_mutex_lock(&control);
    if (current_phase() == PHASE_RUNNING)
        *error = "the log is started already";
    else if (left_behind())
        *error = "the log's former destination is still stuck";
    else
        d = prepare(target, path, error);
    if (d) {
        log_set_style(format, level);
        failure = start_thread(d);
        if (failure != 0) {
            *error = strerrordesc_np(failure);
            destination_free(&d);
        }
    }
    pthread_mutex_unlock(&control);
    return d ? 0 : -1;
}

int log_reconfigure(enum log_target target, const char *path, enum log_format format, enum log_level level,
                    const char **error)
{
    struct destination *d = NULL;

    pthread_mutex_lock(&control);
    if (current_phase() != PHASE_RUNNING)
        *error = "the log is not started";
    else
        d = prepare(target, path, error);
    if (d) {
        log_set_style(format, level);
        hand_over(d);
    }
    pthread_mutex_unlock(&control);
    return d ? 0 : -1;
}

void log_reopen(void)
{
    pthread_mutex_lock(&control);
    if (current_path && current_phase() == PHASE_RUNNING) {
        const char *error;
        struct destination *d = destination_open(LOG_TARGET_FILE, current_path, &error);

        if (d)
            hand_over(d);
        else
            log_message(LOG_LEVEL_ERROR, "log-reopen",
                        "cannot open %s: %s; staying with the file that was open", current_path, error);
    }
    pthread_mutex_unlock(&control);
}

void log_stop(void)
{
    int64_t now = monotonic_ms();
    bool stuck;

    pthread_mutex_lock(&control);
    if (current_phase() == PHASE_RUNNING) {
        pthread_mutex_lock(&shared.lock);
        shared.stopping = true;
        shared.give_up_at = now + FLUSH_MS;
        shared.idle = false;
        atomic_store_explicit(&shared.interrupted, true, memory_order_relaxed);
        pthread_cond_signal(&shared.wake);
        while (!shared.gone && wait_until(&shared.ended, now + STOP_MS) != ETIMEDOUT)
            ;
        shared.stuck = stuck = !shared.gone;
        if (stuck)
            shared.phase = PHASE_DEAF;
        pthread_mutex_unlock(&shared.lock);
        if (stuck)
            pthread_detach(thread);
        else
            pthread_join(thread, NULL);
        free(current_path);
        current_path = NULL;
    }
    pthread_mutex_unlock(&control);
}
