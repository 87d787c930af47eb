/* build: -pthread */
/* exit() while other threads allocate, and while handlers that run at the end allocate too. */
#include "support/life.h"

enum { CHURNERS = 4, STATUS = 7 };

static struct life_table table;
static bool is_exit_process;

/* The handlers are the only ones left that can tell: a wrong result ends the process with another status. */
static void at_exit_handler(void) {
    static int calls;
    uint64_t random = (uint64_t)++calls;
    for (int i = 0; i < 20; ++i) {
        life_table_step(&table, &random);
    }
    if (life_full_mix() != 0 || atomic_load(&table.failures) != 0) {
        _exit(1);
    }
}

__attribute__((destructor)) static void fini_array_handler(void) {
    if (is_exit_process) {
        at_exit_handler();
    }
}

static int exit_process(unsigned delay_us) {
    static pthread_t threads[CHURNERS];
    is_exit_process = true;
    life_table_open(&table, 256, 200000);
    atexit(at_exit_handler);
    life_start(threads, CHURNERS, life_table_churn, &table);
    struct timespec delay = {.tv_sec = 0, .tv_nsec = (long)delay_us * 1000};
    nanosleep(&delay, NULL);
    exit(STATUS);
}

static void exit_with_churning_threads_keeps_the_status(void **state) {
    (void)state;
    for (size_t i = 0, runs = life_scale(50, 500); i < runs; ++i) {
        char delay[16];
        snprintf(delay, sizeof(delay), "%zu", i * 37 % 3000);
        assert_int_equal(life_rerun(delay), STATUS);
    }
}

/* exit() by another thread than the first, which meanwhile waits for it. */
static void *exit_body(void *arg) {
    (void)arg;
    exit(STATUS);
}

static int exit_by_thread_process(void) {
    static pthread_t threads[CHURNERS + 1];
    is_exit_process = true;
    life_table_open(&table, 256, 200000);
    life_start(threads, CHURNERS, life_table_churn, &table);
    life_start(threads + CHURNERS, 1, exit_body, NULL);
    life_join(threads, CHURNERS + 1);
    return 1;
}

static void exit_by_a_thread_keeps_the_status(void **state) {
    (void)state;
    for (size_t i = 0, runs = life_scale(20, 200); i < runs; ++i) {
        assert_int_equal(life_rerun("thread"), STATUS);
    }
}

/* The first thread ends, the others go on, and the last one to end ends the process with status 0. */
static void *outlive_body(void *arg) {
    pthread_t *first = arg;
    uint64_t random = 5;
    if (pthread_join(*first, NULL) != 0) {
        _exit(1);
    }
    for (int i = 0; i < 2000; ++i) {
        life_table_step(&table, &random);
    }
    if (life_table_empty(&table) != 0) {
        _exit(2);
    }
    return NULL;
}

static int first_thread_ends_process(void) {
    static pthread_t first;
    pthread_t second;
    uint64_t random = 6;
    life_table_open(&table, 256, 200000);
    for (int i = 0; i < 2000; ++i) {
        life_table_step(&table, &random);
    }
    first = pthread_self();
    life_start(&second, 1, outlive_body, &first);
    pthread_exit(NULL);
}

static void threads_outlive_the_first_thread(void **state) {
    (void)state;
    for (size_t i = 0, runs = life_scale(20, 200); i < runs; ++i) {
        assert_int_equal(life_rerun("outlive"), 0);
    }
}

int main(int argc, char **argv) {
    const char *mode = life_rerun_mode(argc, argv);
    if (mode != NULL) {
        return strcmp(mode, "thread") == 0    ? exit_by_thread_process()
               : strcmp(mode, "outlive") == 0 ? first_thread_ends_process()
                                              : exit_process((unsigned)atoi(mode));
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_with_churning_threads_keeps_the_status),
        cmocka_unit_test(exit_by_a_thread_keeps_the_status),
        cmocka_unit_test(threads_outlive_the_first_thread),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
