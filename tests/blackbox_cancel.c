/* build: -pthread */
/* Cancelled threads: no lock of the allocator stays held, whichever cancellation point they end in. */
#include "support/life.h"

#include <malloc.h>

static struct life_table table;
static atomic_size_t damaged;

static void free_held(void *block) {
    if (!life_drop(block)) {
        atomic_fetch_add(&damaged, 1);
    }
}

/* A block that only the handler frees, also when the thread ends here. Apart from its caller, whose variables would not
 * survive what the macros do. */
static void make_and_drop(void) {
    void *volatile block = life_make(5000);
    pthread_cleanup_push(free_held, block);
    pthread_testcancel();
    pthread_cleanup_pop(1);
}

static void *cancelled_body(void *arg) {
    uint64_t random = (uintptr_t)pthread_self();
    (void)arg;
    for (;;) {
        life_table_step(&table, &random);
        make_and_drop();
    }
    return NULL;
}

static void cancelled_threads_leave_no_lock_and_no_damage(void **state) {
    (void)state;
    life_table_open(&table, 200, 100000);
    for (size_t i = 0, runs = life_scale(1000, 10000); i < runs; ++i) {
        pthread_t threads[2];
        life_start(threads, 2, cancelled_body, NULL);
        pthread_cancel(threads[0]);
        pthread_cancel(threads[1]);
        life_join(threads, 2);
    }
    assert_int_equal(life_table_close(&table), 0);
    assert_int_equal(atomic_load(&damaged), 0);
}

/* malloc_stats() writes, and a write is a cancellation point: it may end the thread there, but not the allocator. */
static void *stats_body(void *arg) {
    (void)arg;
    pthread_cancel(pthread_self());
    malloc_stats();
    return NULL;
}

static void statistics_under_a_pending_cancellation_keep_no_lock(void **state) {
    (void)state;
    int saved = dup(STDERR_FILENO);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_true(dup2(null, STDERR_FILENO) == STDERR_FILENO);
    for (int i = 0; i < 50; ++i) {
        pthread_t thread;
        life_start(&thread, 1, stats_body, NULL);
        life_join(&thread, 1);
        malloc_stats();
    }
    dup2(saved, STDERR_FILENO);
    close(null);
    close(saved);
    assert_int_equal(life_full_mix(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelled_threads_leave_no_lock_and_no_damage),
        cmocka_unit_test(statistics_under_a_pending_cancellation_keep_no_lock),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
