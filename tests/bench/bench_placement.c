/*
 * What does a placement cost? Nanoseconds to ask for a place and give it back, per algorithm, over a pool of
 * 64 backends with room: one thread alone, then four at once on the same pool. Then the same with a queue in
 * which somebody waits for something else, so that every placement takes the way through the lock. Medians of
 * several runs, CPU time of the threads, so that a busy machine doesn't count.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "balancer/algorithm.h"
#include "tests/unit/farm_fixture.h"

#define BACKENDS 64
#define THREADS  4
#define HOLDING  32 /* places that a thread has at any time */
#define ROUNDS   20000
#define RUNS     5

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
    for (int i = 0; i < ROUNDS; i++) {
        struct place *place = &held[i % HOLDING];

        placement_return(place, 0);
        wish.hash_key = (uint64_t)i;
        if (placement_request(&wish, &random, 0, &mailbox, deliver, NULL, place, &waiter) !=
            PLACEMENT_GRANTED)
            abort();
    }
    *ns = (cpu_now() - begin) / ROUNDS;
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

static void bench(enum config_algorithm algorithm)
{
    struct fixture f;
    struct config_pool *pool;
    struct place place;
    struct waiter *waiter;
    double alone, contended;

    fixture_start(&f);
    pool = fixture_pool(&f, "relays", algorithm, 10);
    for (int i = 0; i < BACKENDS; i++)
        fixture_backend(&f, pool, (char[]){ 'r', (char)('A' + i / 8), (char)('a' + i % 8), 0 }, 1u << (i % 4),
                        1000, 0);
    farm = fixture_farm(&f, NULL);
    fixture_all_up(farm);
    alone = measure(1);
    contended = measure(THREADS);
    waiter = occupy_queue(&place);
    printf("%-18s %8.0f %8.0f %12.0f %8.0f\n", farm->pools[0].algorithm->name, alone, contended, measure(1),
           measure(THREADS));
    waiter_leave(&waiter);
    placement_return(&place, 0);
    farm_release(&farm);
}

int main(void)
{
    struct ev_loop *loop = ev_loop_new(0);

    mailbox_open(&mailbox, loop, NULL);
    printf("ns of CPU per placement (request and return), %d backends\n", BACKENDS);
    printf("%-18s %8s %8s %12s %8s\n", "", "1 thread", "4", "one waits: 1", "4");
    for (int a = CONFIG_LEAST_CONNECTIONS; a <= CONFIG_HASH; a++)
        bench((enum config_algorithm)a);
    mailbox_close(&mailbox);
    ev_loop_destroy(loop);
    return 0;
}
