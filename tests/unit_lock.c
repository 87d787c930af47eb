/* The lock: excludes, sleeps and is woken, is freed in a forked child, and says so where it would hang. */
#include "support/stores.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

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

/* The child answers with its exit status: 0, or the number of the line that failed. */
static int run_child(int (*body)(void)) {
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(120);
        _exit(body());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static int low_is_freed_and_high_is_kept(void) {
    if (hak_lock_reset_in_child(&high)) return 1; /* it is this thread's own */
    if (!hak_lock_reset_in_child(&low)) return 2;
    hak_unlock(&high);
    if (hak_lock_reset_in_child(&low)) return 3; /* nobody's */
    if (!hak_lock_try(&low)) return 4;
    hak_unlock(&low);
    return hak_lock_try(&high) ? 0 : 5;
}

static void a_forked_child_frees_what_others_held_and_keeps_its_own(void **state) {
    (void)state;
    pthread_t thread;
    hak_store_rel(&step, 0);
    assert_int_equal(pthread_create(&thread, NULL, hold_it, NULL), 0);
    while (hak_load_acq(&step) != 1) usleep(1000);
    hak_lock(&high);
    assert_int_equal(run_child(low_is_freed_and_high_is_kept), 0);
    hak_unlock(&high);
    assert_false(hak_lock_try(&low)); /* the parent's holder still has it */
    hak_store_rel(&step, 2);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(another_thread_can_take_it());
}

/* ---- deaths -------------------------------------------------------------------------------------------------- */

/* A child must end by SIGABRT, after exactly the line "hakmem[PID PROGRAM]: `message`", but for what stands after it.
 */
static void dies_saying(int (*body)(void), const char *message) {
    char text[1024], line[512];
    int ends[2], status;
    size_t used = 0;
    ssize_t n;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        signal(SIGABRT, SIG_DFL);
        alarm(120);
        _exit(body());
    }
    close(ends[1]);
    while ((n = read(ends[0], text + used, sizeof text - 1 - used)) > 0) used += (size_t)n;
    text[used] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    snprintf(line, sizeof line, "hakmem[%d %s]: %s", (int)pid, program_invocation_short_name, message);
    text[strlen(line) < used ? strlen(line) : used] = '\0';
    assert_string_equal(text, line);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void lock_again(int signal) {
    (void)signal;
    hak_lock(&low);
}

static int be_interrupted(void) {
    signal(SIGUSR1, lock_again);
    hak_lock(&low);
    raise(SIGUSR1);
    return 0;
}

static void a_handler_that_needs_what_it_interrupted_dies_with_a_line(void **state) {
    (void)state;
    dies_saying(be_interrupted, "malloc was called by a signal handler that had interrupted malloc\n");
}

static int lock_upwards(void) {
    hak_lock(&low);
    hak_lock(&high);
    return 0;
}

static int lock_downwards(void) {
    hak_lock(&high);
    hak_lock(&low);
    hak_unlock(&low);
    hak_unlock(&high);
    return 0;
}

static void locks_are_taken_from_the_top_floor_down(void **state) {
    (void)state;
    assert_int_equal(run_child(lock_downwards), 0);
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
