/* The lock: excludes, sleeps and is woken, is freed in a forked child, and says so where it would hang. */
#include "support/child.h"
#include "support/stores.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "base/sync.h"

static struct hak_lock low = HAK_LOCK_INIT(HAK_RANK_META), high = HAK_LOCK_INIT(HAK_RANK_SLABS);

#define THREADS 4
#define TURNS 20000
static uint64_t turns; /* plain: the lock is all that orders it, and ThreadSanitizer knows */

static void *take_turns(void *argument) {
    for (unsigned i = 0; i < TURNS; i++) {
        hak_lock(&low);
        turns++;
        hak_unlock(&low);
    }
    return argument;
}

static void at_most_one_thread_holds_it(void **state) {
    (void)state;
    pthread_t thread[THREADS];
    for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&thread[i], NULL, take_turns, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(turns, THREADS * TURNS);
    assert_int_equal(hak_load_rlx(&low.word), 0);
}

static void *try_it(void *argument) {
    bool taken = hak_lock_try(&low);
    if (taken) hak_unlock(&low);
    *(bool *)argument = taken;
    return NULL;
}

static bool another_thread_can_take_it(void) {
    pthread_t thread;
    bool taken = false;
    assert_int_equal(pthread_create(&thread, NULL, try_it, &taken), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return taken;
}

static void a_try_fails_while_it_is_held(void **state) {
    (void)state;
    hak_lock(&low);
    assert_int_equal(hak_load_rlx(&low.word), hak_sys_thread());
    assert_false(another_thread_can_take_it());
    assert_false(hak_lock_try(&low)); /* not even by its holder */
    hak_unlock(&low);
    assert_true(another_thread_can_take_it());
    assert_true(hak_lock_try(&low));
    hak_unlock(&low);
}

static void *wait_for_it(void *argument) {
    hak_lock(&low);
    ++*(int *)argument;
    hak_unlock(&low);
    return NULL;
}

static void a_holder_that_sleeps_lets_waiters_sleep_and_wakes_them_all(void **state) {
    (void)state;
    pthread_t thread[THREADS];
    int woken = 0;
    hak_lock(&low);
    for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&thread[i], NULL, wait_for_it, &woken), 0);
    while ((hak_load_rlx(&low.word) & 1) == 0) usleep(1000); /* the waiters bit */
    usleep(20000);
    assert_int_equal(woken, 0);
    hak_unlock(&low);
    for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(woken, THREADS);
    assert_int_equal(hak_load_rlx(&low.word), 0);
}

/* ---- fork ---------------------------------------------------------------------------------------------------- */

static _Atomic int step;

static void *hold_it(void *argument) {
    hak_lock(&low);
    hak_store_rel(&step, 1);
    while (hak_load_acq(&step) != 2) usleep(1000);
    hak_unlock(&low);
    return argument;
}

static void low_is_freed_and_high_is_kept(void *unused) {
    (void)unused;
    must(!hak_lock_reset_in_child(&high)); /* it is this thread's own */
    must(hak_lock_reset_in_child(&low));
    hak_unlock(&high);
    must(!hak_lock_reset_in_child(&low)); /* nobody's */
    must(hak_lock_try(&low));
    hak_unlock(&low);
    must(hak_lock_try(&high));
}

static void a_forked_child_frees_what_others_held_and_keeps_its_own(void **state) {
    (void)state;
    pthread_t thread;
    hak_store_rel(&step, 0);
    assert_int_equal(pthread_create(&thread, NULL, hold_it, NULL), 0);
    while (hak_load_acq(&step) != 1) usleep(1000);
    hak_lock(&high);
    assert_int_equal(run_forked(low_is_freed_and_high_is_kept, NULL), 0);
    hak_unlock(&high);
    assert_false(hak_lock_try(&low)); /* the parent's holder still has it */
    hak_store_rel(&step, 2);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(another_thread_can_take_it());
}

/* ---- deaths -------------------------------------------------------------------------------------------------- */

/* A child must end by SIGABRT, after exactly the line "hakmem[PID PROGRAM]: `message`", but for what stands after it.
 */
static void dies_saying(void (*body)(void *), const char *message) {
    char line[512];
    struct ended ended = run_heard(body, NULL);
    snprintf(line, sizeof line, "hakmem[%d %s]: %s", (int)ended.pid, program_invocation_short_name, message);
    if (strlen(line) < strlen(ended.text)) ended.text[strlen(line)] = '\0';
    assert_string_equal(ended.text, line);
    assert_true(WIFSIGNALED(ended.status) && WTERMSIG(ended.status) == SIGABRT);
}

static void lock_again(int signal) {
    (void)signal;
    hak_lock(&low);
}

static void be_interrupted(void *unused) {
    (void)unused;
    signal(SIGUSR1, lock_again);
    hak_lock(&low);
    raise(SIGUSR1);
}

static void a_handler_that_needs_what_it_interrupted_dies_with_a_line(void **state) {
    (void)state;
    dies_saying(be_interrupted, "malloc was called by a signal handler that had interrupted malloc\n");
}

static void lock_upwards(void *unused) {
    (void)unused;
    hak_lock(&low);
    hak_lock(&high);
}

static void lock_downwards(void *unused) {
    (void)unused;
    hak_lock(&high);
    hak_lock(&low);
    hak_unlock(&low);
    hak_unlock(&high);
}

static void locks_are_taken_from_the_top_floor_down(void **state) {
    (void)state;
    assert_int_equal(run_forked(lock_downwards, NULL), 0);
    dies_saying(lock_upwards, "assertion failed: ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_most_one_thread_holds_it),
        cmocka_unit_test(a_try_fails_while_it_is_held),
        cmocka_unit_test(a_holder_that_sleeps_lets_waiters_sleep_and_wakes_them_all),
        cmocka_unit_test(a_forked_child_frees_what_others_held_and_keeps_its_own),
        cmocka_unit_test(a_handler_that_needs_what_it_interrupted_dies_with_a_line),
        cmocka_unit_test(locks_are_taken_from_the_top_floor_down),
    };
    alarm(300);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
