/*
 * Limits: whose count is whose, what a reload keeps, what the log is told, bounded memory, workers side by
 * side, and leases of a bank that answers when the test lets it.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "counters/rate.h"

#define START 1000000 /* ms */

static struct config_limit limits[2];
static struct config config = { .limits = limits };
static struct rate_rules *rules;
static struct rate *rate;
static int64_t now;

static void use(struct config_rate messages, struct config_rate recipients, struct rate_bank *bank)
{
    config.n_limits = 1;
    limits[0] =
        (struct config_limit){ .name = (char *)"each", .messages = messages, .recipients = recipients };
    rules = rate_rules_create(&config, NULL, bank);
    assert_non_null(rules);
    rate = rules->rates[0];
    now = START;
}

static int teardown(void **state)
{
    (void)state;
    rate_rules_release(&rules);
    return 0;
}

static struct rate_refusal refusal;

static bool takes(enum rate_what what, const char *who)
{
    memset(&refusal, 0xff, sizeof refusal);
    return rate_take(rate, what, who, strlen(who), now, &refusal);
}

static unsigned take_all(const char *who, unsigned most)
{
    unsigned n = 0;

    while (n < most && takes(RATE_MESSAGES, who))
        n++;
    return n;
}

/* --- one instance --- */

static void test_each_for_itself(void **state)
{
    (void)state;
    use((struct config_rate){ 3, 3000 }, (struct config_rate){ 5, 60000 }, NULL);
    assert_int_equal(take_all("a", 10), 3);
    assert_int_equal(refusal.wait, 1000);
    assert_int_equal(take_all("b", 10), 3);
    for (int i = 0; i < 5; i++)
        assert_true(takes(RATE_RECIPIENTS, "a"));
    assert_false(takes(RATE_RECIPIENTS, "a"));
    assert_int_equal(refusal.wait, 12000);
    now += 999;
    assert_false(takes(RATE_MESSAGES, "a"));
    assert_int_equal(refusal.wait, 1);
    now += 1;
    assert_true(takes(RATE_MESSAGES, "a"));
    assert_int_equal(rate_refused(rate, RATE_MESSAGES), 3);
    assert_int_equal(rate_refused(rate, RATE_RECIPIENTS), 1);
}

static void test_given_back(void **state)
{
    (void)state;
    use((struct config_rate){ 1, 60000 }, (struct config_rate){ 0, 0 }, NULL);
    assert_true(takes(RATE_MESSAGES, "a"));
    rate_give_back(rate, RATE_MESSAGES, "a", 1, now);
    rate_give_back(rate, RATE_MESSAGES, "nobody", 6, now);
    assert_true(takes(RATE_MESSAGES, "a"));
    assert_false(takes(RATE_MESSAGES, "a"));
}

/* Of names that are too long the end counts. */
static void test_long_names(void **state)
{
    char name[1001];

    (void)state;
    use((struct config_rate){ 1, 60000 }, (struct config_rate){ 0, 0 }, NULL);
    memset(name, 'x', sizeof name);
    name[1000] = '\0';
    assert_true(takes(RATE_MESSAGES, name));
    assert_false(takes(RATE_MESSAGES, name + 1000 - RATE_WHO_MAX));
    assert_true(takes(RATE_MESSAGES, name + 1001 - RATE_WHO_MAX));
    assert_true(rate_take(rate, RATE_MESSAGES, "a\0b", 3, now, &refusal));
    assert_true(takes(RATE_MESSAGES, "a"));
}

static void test_reload(void **state)
{
    struct rate_rules *next;

    (void)state;
    use((struct config_rate){ 1, 60000 }, (struct config_rate){ 0, 0 }, NULL);
    assert_true(takes(RATE_MESSAGES, "a"));
    config.n_limits = 2;
    limits[1] = limits[0];
    limits[0].name = (char *)"another";
    next = rate_rules_create(&config, rules, NULL);
    assert_ptr_equal(next->rates[1], rate);
    assert_ptr_not_equal(next->rates[0], rate);
    rate_rules_release(&rules);
    rules = next;
    assert_false(takes(RATE_MESSAGES, "a"));
    for (int i = 0; i < 3; i++) {
        struct config_limit *changed = &limits[1];

        if (i == 0)
            changed->messages.n = 2;
        else if (i == 1)
            changed->messages.period = 1000;
        else
            changed->by = CONFIG_LIMIT_USER;
        next = rate_rules_create(&config, rules, NULL);
        assert_ptr_not_equal(next->rates[1], rules->rates[1]);
        assert_ptr_equal(next->rates[0], rules->rates[0]);
        rate_rules_release(&rules);
        rules = next;
    }
}

static void test_told(void **state)
{
    char who[16];
    unsigned told = 0;

    (void)state;
    use((struct config_rate){ 1, 3600000 }, (struct config_rate){ 0, 0 }, NULL);
    assert_true(takes(RATE_MESSAGES, "a"));
    assert_false(takes(RATE_MESSAGES, "a"));
    assert_true(refusal.tell);
    assert_int_equal(refusal.since, 1);
    for (int i = 0; i < 99; i++) {
        assert_false(takes(RATE_MESSAGES, "a"));
        assert_false(refusal.tell);
    }
    now += 10000;
    assert_false(takes(RATE_MESSAGES, "a"));
    assert_true(refusal.tell);
    assert_int_equal(refusal.since, 100);
    for (int i = 0; i < 100; i++) { /* and of all together ten a second */
        snprintf(who, sizeof who, "%d", i);
        takes(RATE_MESSAGES, who);
        takes(RATE_MESSAGES, who);
        told += refusal.tell;
    }
    assert_int_equal(told, 9);
}

/* Who invents names drives out what he invented: neither memory nor another's count suffers. */
static void test_invented_names(void **state)
{
    char who[32];

    (void)state;
    use((struct config_rate){ 10, 86400000 }, (struct config_rate){ 0, 0 }, NULL);
    for (int i = 0; i < 100; i++) {
        snprintf(who, sizeof who, "user%d", i);
        assert_int_equal(take_all(who, 20), 10);
    }
    for (int i = 0; i < 3 * RATE_BUCKETS_MAX; i++) {
        snprintf(who, sizeof who, "invented%d", i);
        assert_true(takes(RATE_MESSAGES, who));
    }
    assert_in_range(rate_buckets(rate), RATE_BUCKETS_MAX / 2, RATE_BUCKETS_MAX);
    for (int i = 0; i < 100; i++) {
        snprintf(who, sizeof who, "user%d", i);
        assert_false(takes(RATE_MESSAGES, who));
    }
    /* And when all have their allowance back, their buckets go as others come. */
    now += 86400000;
    for (int i = 0; i < RATE_BUCKETS_MAX / 2; i++) {
        snprintf(who, sizeof who, "later%d", i);
        assert_true(takes(RATE_MESSAGES, who));
    }
    assert_in_range(rate_buckets(rate), 1, RATE_BUCKETS_MAX * 2 / 3);
}

/* --- workers side by side --- */

#define THREADS 4

static _Atomic unsigned taken[8];

static void *take_many(void *arg)
{
    struct rate_refusal ignored;

    (void)arg;
    for (int i = 0; i < 4000; i++) {
        char who = (char)('a' + i % 8);

        if (rate_take(rate, RATE_MESSAGES, &who, 1, now, &ignored))
            atomic_fetch_add(&taken[i % 8], 1);
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    use((struct config_rate){ 700, 3600000 }, (struct config_rate){ 0, 0 }, NULL);
    memset(taken, 0, sizeof taken);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_many, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 8; i++)
        assert_int_equal(taken[i], 700);
}

/* --- a bank --- */

/* It keeps each count as Redis would, by the same arithmetic, and answers when it is told to. */
#define ASKED_MAX 4096
struct vault {
    struct rate_bank bank;
    pthread_mutex_t lock;
    struct rate_request *asked[ASKED_MAX];
    unsigned n, requests;
    int64_t used; /* booked and leased, less what came back */
    int64_t limit;
    uint32_t wanted; /* by the last */
};

static void vault_ask(struct rate_bank *bank, struct rate_request *request)
{
    struct vault *vault = (struct vault *)bank;

    pthread_mutex_lock(&vault->lock);
    assert_true(vault->n < ASKED_MAX);
    vault->asked[vault->n++] = request;
    vault->requests++;
    vault->wanted = request->wanted;
    pthread_mutex_unlock(&vault->lock);
}

static struct vault vault;

static void use_vault(uint32_t n)
{
    vault = (struct vault){
        .bank = {.open = true, .ask = vault_ask},
          .lock = PTHREAD_MUTEX_INITIALIZER, .limit = n
    };
    use((struct config_rate){ n, 3600000 }, (struct config_rate){ 0, 0 }, &vault.bank);
}

static struct rate_request *vault_next(void)
{
    struct rate_request *request = NULL;

    pthread_mutex_lock(&vault.lock);
    if (vault.n)
        request = vault.asked[--vault.n];
    pthread_mutex_unlock(&vault.lock);
    return request;
}

static bool vault_answer(void)
{
    struct rate_request *request = vault_next();
    struct rate_answer answer = { .booked = true };
    int64_t room;

    if (!request)
        return false;
    vault.used += request->used;
    room = vault.limit > vault.used ? vault.limit - vault.used : 0;
    answer.granted = request->wanted < room ? request->wanted : (uint32_t)room;
    vault.used += answer.granted;
    answer.wait = vault.used >= vault.limit ? 30000 : 0;
    rate_answered(request, &answer, now);
    return true;
}

static void vault_refuse(void)
{
    rate_answered(vault_next(), &(struct rate_answer){ .booked = false }, now);
}

/* Who sends now and then is booked one by one, and never more than that. */
static void test_booked_singly(void **state)
{
    (void)state;
    use_vault(100);
    for (int i = 0; i < 100; i++) {
        assert_true(takes(RATE_MESSAGES, "a"));
        assert_true(vault_answer());
        assert_false(vault_answer());
        assert_int_equal(vault.used, i + 1);
        now += 6000;
    }
    assert_false(takes(RATE_MESSAGES, "a"));
    assert_int_equal(refusal.wait, 24000);
    assert_int_equal(vault.requests, 100);
}

/* Who sends steadily has leases that double, asks seldom, and gets just the limit. */
static void test_leases(void **state)
{
    unsigned n = 0;

    (void)state;
    use_vault(1000);
    while (takes(RATE_MESSAGES, "a")) {
        n++;
        while (vault_answer())
            ;
        assert_true(vault.used >= n);
        assert_true(vault.used <= n + 2 * 100);
        now += 2;
    }
    assert_int_equal(n, 1000);
    assert_in_range(vault.requests, 5, 40);
}

/* What is left of a lease goes back. */
static void test_lease_lapses(void **state)
{
    (void)state;
    use_vault(1000);
    for (int i = 0; i < 50; i++) {
        assert_true(takes(RATE_MESSAGES, "a"));
        while (vault_answer())
            ;
    }
    assert_true(vault.used > 50);
    now += 60000;
    assert_true(takes(RATE_MESSAGES, "a"));
    assert_true(vault_answer());
    assert_int_equal(vault.used, 51);
}

/* No answer yet: as many as would be leased, on credit, and then none. Of small limits one. */
static void test_credit(void **state)
{
    (void)state;
    use_vault(200);
    assert_int_equal(take_all("a", 100), 20);
    assert_int_equal(refusal.wait, 1000);
    assert_int_equal(vault.n, 1);
    assert_true(vault_answer()); /* of the first; the others are asked for at once */
    assert_true(vault_answer());
    assert_false(vault_answer());
    assert_in_range(vault.used, 20, 22);
    assert_true(takes(RATE_MESSAGES, "a"));
    rate_rules_release(&rules);
    while (vault_answer())
        ;

    use_vault(9);
    for (int i = 0; i < 9; i++) {
        assert_true(takes(RATE_MESSAGES, "a"));
        assert_false(takes(RATE_MESSAGES, "a"));
        assert_int_equal(vault.wanted, 0);
        assert_true(vault_answer());
    }
    assert_false(takes(RATE_MESSAGES, "a"));
    assert_int_equal(refusal.wait, 30000);
    assert_false(vault_answer());
}

/* The others have used it up: the first is on credit, then the bank's word counts. */
static void test_used_by_others(void **state)
{
    (void)state;
    use_vault(100);
    vault.used = 100;
    assert_true(takes(RATE_MESSAGES, "a"));
    assert_true(vault_answer());
    assert_false(takes(RATE_MESSAGES, "a"));
    assert_int_equal(refusal.wait, 30000);
    assert_int_equal(vault.n, 0);
    now += 29999;
    assert_false(takes(RATE_MESSAGES, "a"));
    now += 1;
    vault.used = 50;
    assert_true(takes(RATE_MESSAGES, "a"));
    assert_true(vault_answer());
    assert_true(takes(RATE_MESSAGES, "a"));
    while (vault_answer())
        ;
}

/* Away: this instance's own count, in which what went through the bank counts too. */
static void test_away(void **state)
{
    (void)state;
    use_vault(10);
    for (int i = 0; i < 5; i++) {
        assert_true(takes(RATE_MESSAGES, "a"));
        while (vault_answer())
            ;
    }
    atomic_store(&vault.bank.open, false);
    assert_int_equal(take_all("a", 100), 5);
    assert_int_equal(take_all("b", 100), 10);
    assert_int_equal(vault.n, 0);
    atomic_store(&vault.bank.open, true);
    assert_true(takes(RATE_MESSAGES, "c"));
    vault_refuse(); /* it could make no sense of it */
    assert_int_equal(take_all("c", 100), 9);
    assert_int_equal(vault.n, 0);
    now += 1000; /* asked again */
    assert_true(takes(RATE_MESSAGES, "c"));
    assert_int_equal(vault.n, 1);
    assert_true(vault_answer());
}

static void test_given_back_to_the_bank(void **state)
{
    (void)state;
    use_vault(100);
    assert_true(takes(RATE_MESSAGES, "a"));
    assert_true(vault_answer());
    rate_give_back(rate, RATE_MESSAGES, "a", 1, now);
    now += 60000;
    assert_true(takes(RATE_MESSAGES, "a"));
    assert_true(vault_answer());
    assert_int_equal(vault.used, 1);
    now += 60000;
    assert_true(takes(RATE_MESSAGES, "a"));
    rate_give_back(rate, RATE_MESSAGES, "a", 1, now); /* while it is being booked */
    assert_true(vault_answer());
    now += 60000;
    assert_true(takes(RATE_MESSAGES, "a"));
    assert_true(vault_answer());
    assert_int_equal(vault.used, 2);
}

/* What is booked and not used is had again though the bank has no more: another rule's refusal costs nothing.
 */
static void test_given_back_of_the_last(void **state)
{
    (void)state;
    use_vault(1);
    for (int i = 0; i < 3; i++) {
        assert_true(takes(RATE_MESSAGES, "a"));
        rate_give_back(rate, RATE_MESSAGES, "a", 1, now);
        while (vault_answer())
            ;
        now += 6000;
    }
    assert_true(takes(RATE_MESSAGES, "a"));
    while (vault_answer())
        ;
    assert_false(takes(RATE_MESSAGES, "a"));
    assert_int_equal(vault.used, 1);
}

/* The same of a lease that has lapsed. */
static void test_lapsed_lease_of_the_last(void **state)
{
    unsigned n = 0;

    (void)state;
    use_vault(100);
    while (vault.used < 100) {
        assert_true(takes(RATE_MESSAGES, "a"));
        n++;
        while (vault_answer())
            ;
    }
    assert_in_range(n, 1, 99);
    now += 6000;
    assert_int_equal(take_all("a", 200), 100 - n);
    assert_in_range(refusal.wait, 1, 24000);
    now += 24000;
    vault.used -= 10; /* some have come back, and are booked as ever */
    assert_int_equal(take_all("a", 1), 1);
    assert_true(vault_answer());
    assert_int_equal(vault.used, 91);
}

/* The rules are gone when the answer comes. */
static void test_late_answer(void **state)
{
    (void)state;
    use_vault(100);
    assert_true(takes(RATE_MESSAGES, "a"));
    rate_rules_release(&rules);
    assert_true(vault_answer());
}

static _Atomic bool over;

static void *answer_all(void *arg)
{
    bool last;

    (void)arg;
    do {
        last = atomic_load(&over); /* nobody asks any more but for what an answer leads to */
        while (vault_answer())
            ;
    } while (!last);
    return NULL;
}

/* Workers and the thread that answers: the farm's count is kept to, but for what one credit may add. */
static void test_bank_threads(void **state)
{
    pthread_t threads[THREADS], answers;

    (void)state;
    use_vault(700);
    memset(taken, 0, sizeof taken);
    vault.limit = 8 * 700;
    atomic_store(&over, false);
    assert_int_equal(pthread_create(&answers, NULL, answer_all, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_many, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&over, true);
    pthread_join(answers, NULL);
    for (int i = 0; i < 8; i++)
        vault.used -= taken[i];
    assert_in_range(vault.used, 0, 8 * 150); /* leases at hand */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_each_for_itself, teardown),
        cmocka_unit_test_teardown(test_given_back, teardown),
        cmocka_unit_test_teardown(test_long_names, teardown),
        cmocka_unit_test_teardown(test_reload, teardown),
        cmocka_unit_test_teardown(test_told, teardown),
        cmocka_unit_test_teardown(test_invented_names, teardown),
        cmocka_unit_test_teardown(test_threads, teardown),
        cmocka_unit_test_teardown(test_booked_singly, teardown),
        cmocka_unit_test_teardown(test_leases, teardown),
        cmocka_unit_test_teardown(test_lease_lapses, teardown),
        cmocka_unit_test_teardown(test_credit, teardown),
        cmocka_unit_test_teardown(test_used_by_others, teardown),
        cmocka_unit_test_teardown(test_away, teardown),
        cmocka_unit_test_teardown(test_given_back_to_the_bank, teardown),
        cmocka_unit_test_teardown(test_given_back_of_the_last, teardown),
        cmocka_unit_test_teardown(test_lapsed_lease_of_the_last, teardown),
        cmocka_unit_test_teardown(test_late_answer, teardown),
        cmocka_unit_test_teardown(test_bank_threads, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
