/*
 * What does a placement cost? Nanoseconds to ask for a place and give it back, per algorithm, over a pool of
 * 64 backends with room: one thread alone, then four at once on the same pool. Then the same with a queue in
 * which somebody waits for something else, so that every placement takes the way through the lock; and with
 * max-share-per-client, where each place is counted.
 *
 * Then all backends are full and so many wait, of one client or each of its own: nanoseconds to hand one
 * place on (one who waits gets it, and another comes to wait).
 *
 * Medians of several runs, CPU time of the threads, so that a busy machine doesn't count. With a number as
 * argument only so many placements, one after the other, for valgrind --tool=callgrind; behind it `waits`
 * or `counted`, as above.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "balancer/algorithm.h"
#include "balancer/queue.h"
#include "tests/unit/farm_fixture.h"

#define BACKENDS 64
#define THREADS  4
#define HOLDING  32 /* places that a thread has at any time */
#define RUNS     5

static int rounds = 20000;

static struct farm *farm;
static struct mailbox mailbox;
static pthread_barrier_t start;

static double cpu_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void deliver(void *session, enum placement_verdict verdict, struct place place)
{
    (void)session;
    (void)verdict;
    (void)place;
}

static void *placements(void *arg)
{
    double *ns = arg, begin;
    uint64_t random = (uintptr_t)arg; /* not 0, and each thread its own */
    struct place held[HOLDING] = { 0 };
    struct placement_wish wish = fixture_wish(farm, 0);
    struct waiter *waiter;

    pthread_barrier_wait(&start);
    begin = cpu_now();
    for (int i = 0; i < rounds; i++) {
        struct place *place = &held[i % HOLDING];

        placement_return(place, 0);
        wish.hash_key = (uint64_t)i;
        if (placement_request(&wish, &random, 0, &mailbox, deliver, NULL, place, &waiter) !=
            PLACEMENT_GRANTED)
            abort();
    }
    *ns = (cpu_now() - begin) / rounds;
    for (int i = 0; i < HOLDING; i++)
        placement_return(&held[i], 0);
    return NULL;
}

static double measure(unsigned n)
{
    double medians[RUNS];

    for (int run = 0; run < RUNS; run++) {
        pthread_t threads[THREADS];
        double ns[THREADS], sum = 0;

        pthread_barrier_init(&start, NULL, n);
        for (unsigned i = 0; i < n; i++)
            pthread_create(&threads[i], NULL, placements, &ns[i]);
        for (unsigned i = 0; i < n; i++) {
            pthread_join(threads[i], NULL);
            sum += ns[i];
        }
        pthread_barrier_destroy(&start);
        medians[run] = sum / n;
    }
    qsort(medians, RUNS, sizeof *medians, by_value);
    return medians[RUNS / 2];
}

/* Somebody waits for the one backend that takes large messages, which is full. The others have room all the
 * same. */
static struct waiter *occupy_queue(struct place *place)
{
    struct placement_wish wish = fixture_wish(farm, 0);
    struct backend *last = farm->pools[0].members[BACKENDS - 1]->backend;
    struct waiter *waiter = NULL;
    uint64_t random = 1;

    wish.size = 1000000; /* that much only the last one takes */
    for (size_t i = 0; i < BACKENDS; i++)
        atomic_store(&farm->pools[0].members[i]->backend->size_limit, 1000);
    atomic_store(&last->size_limit, 0);
    atomic_store(&last->ceiling, 1);
    placement_request(&wish, &random, 0, &mailbox, deliver, NULL, place, &waiter);
    placement_request(&wish, &random, 0, &mailbox, deliver, NULL, &(struct place){ 0 }, &waiter);
    if (!waiter)
        abort();
    return waiter;
}

static void open_farm(struct fixture *f, enum config_algorithm algorithm, uint32_t queue_size,
                      uint32_t ceiling)
{
    struct config_pool *pool;

    fixture_start(f);
    pool = fixture_pool(f, "relays", algorithm, queue_size);
    for (int i = 0; i < BACKENDS; i++)
        fixture_backend(f, pool, (char[]){ 'r', (char)('A' + i / 8), (char)('a' + i % 8), 0 }, 1u << (i % 4),
                        ceiling, 0);
    farm = fixture_farm(f, NULL);
    fixture_all_up(farm);
}

static void bench(enum config_algorithm algorithm)
{
    struct fixture f;
    struct place place;
    struct waiter *waiter;
    double alone, contended, share, share_contended;

    open_farm(&f, algorithm, 10, 1000);
    alone = measure(1);
    contended = measure(THREADS);
    f.pools[0].max_share_per_client = 50;
    share = measure(1);
    share_contended = measure(THREADS);
    f.pools[0].max_share_per_client = 100;
    waiter = occupy_queue(&place);
    printf("%-18s %8.0f %8.0f %12.0f %8.0f", farm->pools[0].algorithm->name, alone, contended, measure(1),
           measure(THREADS));
    printf(" %12.0f %8.0f\n", share, share_contended);
    waiter_leave(&waiter);
    placement_return(&place, 0);
    farm_release(&farm);
}

/* --- many wait ------------------------------------------------------------------------------------------ */

struct one {
    struct waiter *waiter;
    struct place place;
};
static struct one *next_to_return;

static void on_place(void *session, enum placement_verdict verdict, struct place place)
{
    struct one *one = session;

    if (verdict != PLACEMENT_GRANTED)
        abort();
    one->waiter = NULL;
    one->place = place;
    next_to_return = one;
}

static void want(struct one *one, size_t client)
{
    struct placement_wish wish = fixture_wish(farm, 0);
    uint64_t random = 1;

    wish.client = client * UINT64_C(0x9e3779b97f4a7c15);
    placement_request(&wish, &random, 0, &mailbox, on_place, one, &one->place, &one->waiter);
}

/* `n` wait, `clients` of them different. */
static void bench_waiting(struct ev_loop *loop, size_t n, size_t clients, uint32_t percent)
{
    size_t total = n + BACKENDS;
    struct one *all = calloc(total, sizeof *all);
    struct fixture f;
    double begin, medians[RUNS];

    if (!all)
        abort();
    open_farm(&f, CONFIG_LEAST_CONNECTIONS, (uint32_t)n, 1);
    f.pools[0].max_share_per_client = percent;
    for (size_t i = 0; i < total; i++)
        want(&all[i], i % clients);
    if (placement_waiting(&farm->pools[0]) != n)
        abort();
    next_to_return = &all[0];
    for (int run = 0; run < RUNS; run++) {
        begin = cpu_now();
        for (int i = 0; i < rounds; i++) {
            struct one *one = next_to_return;

            placement_return(&one->place, 0);
            want(one, (size_t)(one - all) % clients);
            ev_run(loop, EVRUN_NOWAIT);
        }
        medians[run] = (cpu_now() - begin) / rounds;
    }
    qsort(medians, RUNS, sizeof *medians, by_value);
    printf("%8zu %8zu %7u%% %8.0f\n", n, clients, percent, medians[RUNS / 2]);
    for (size_t i = 0; i < total; i++)
        waiter_leave(&all[i].waiter);
    for (size_t i = 0; i < total; i++)
        placement_return(&all[i].place, 0);
    farm_release(&farm);
    free(all);
}

static void bench_all_waiting(struct ev_loop *loop)
{
    static const size_t sizes[] = { 1, 200, 20000 };

    printf("\nns of CPU to hand a place on, mail included, while so many wait\n");
    printf("%8s %8s %8s %8s\n", "waiting", "clients", "share", "ns");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        bench_waiting(loop, sizes[i], 1, 100);
        bench_waiting(loop, sizes[i], sizes[i], 100);
        bench_waiting(loop, sizes[i], sizes[i], 10);
    }
}

/* For callgrind. */
static void few_placements(int n, const char *how)
{
    struct place place = { 0 };
    struct waiter *waiter = NULL;
    struct fixture f;
    double ns;

    rounds = n;
    open_farm(&f, CONFIG_LEAST_CONNECTIONS, 10, 1000);
    if (strcmp(how, "counted") == 0)
        f.pools[0].max_share_per_client = 50;
    if (strcmp(how, "waits") == 0)
        waiter = occupy_queue(&place);
    pthread_barrier_init(&start, NULL, 1);
    placements(&ns);
    pthread_barrier_destroy(&start);
    waiter_leave(&waiter);
    placement_return(&place, 0);
    farm_release(&farm);
}

int main(int argc, char **argv)
{
    struct ev_loop *loop = ev_loop_new(0);

    mailbox_open(&mailbox, loop, NULL);
    if (argc > 1) {
        few_placements(atoi(argv[1]), argc > 2 ? argv[2] : "");
    } else {
        printf("ns of CPU per placement (request and return), %d backends\n", BACKENDS);
        printf("%-18s %8s %8s %12s %8s %12s %8s\n", "", "1 thread", "4", "one waits: 1", "4", "counted: 1",
               "4");
        for (int a = CONFIG_LEAST_CONNECTIONS; a <= CONFIG_HASH; a++)
            bench((enum config_algorithm)a);
        bench_all_waiting(loop);
    }
    mailbox_close(&mailbox);
    ev_loop_destroy(loop);
    return 0;
}
