/* build: -pthread */
/* The very first malloc() of many threads at the same moment, in fresh processes: one set-up, no race. */
#include "support/life.h"

enum { THREADS = 64, BLOCKS = 8 };

static pthread_barrier_t gate;
static struct life_table table;

static void *first_malloc_body(void *arg) {
    uint64_t random = (uintptr_t)pthread_self();
    (void)arg;
    pthread_barrier_wait(&gate);
    for (int i = 0; i < BLOCKS; ++i) {
        life_table_step(&table, &random);
    }
    return NULL;
}

static int process_body(void) {
    pthread_t threads[THREADS];
    pthread_attr_t small;
    life_table_open(&table, 128, 100000);
    pthread_barrier_init(&gate, NULL, THREADS);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    for (int i = 0; i < THREADS; ++i) {
        if (pthread_create(&threads[i], &small, first_malloc_body, NULL) != 0) {
            return 2;
        }
    }
    life_join(threads, THREADS);
    return life_table_close(&table) == 0 ? 0 : 1;
}

static void threads_that_allocate_first_at_once_all_succeed(void **state) {
    (void)state;
    for (size_t i = 0, runs = life_scale(250, 2000); i < runs; ++i) {
        assert_int_equal(life_rerun("process"), 0);
    }
}

int main(int argc, char **argv) {
    if (life_rerun_mode(argc, argv) != NULL) {
        return process_body();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_that_allocate_first_at_once_all_succeed),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
