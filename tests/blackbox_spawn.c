/* build: -pthread */
/* Children that share the parent's memory until they run another program: vfork() and posix_spawn(). What such a child
 * allocates, it allocates in the parent, under another process id. */
#include "support/life.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

enum { CHURNERS = 2, SPAWNERS = 4 };

static struct life_table table;
static atomic_size_t bad_children;
static size_t children_each;

/* Apart, so that no variable of the caller lives across vfork(). */
__attribute__((noinline)) static void allocate_as_child(uint64_t *random) {
    for (int i = 0; i < 200; ++i) {
        life_table_step(&table, random);
    }
}

static void vfork_child_may_allocate(void **state) {
    (void)state;
    pthread_t threads[CHURNERS];
    static uint64_t random = 9;
    life_table_open(&table, 500, 2 * LIFE_MIB);
    life_start(threads, CHURNERS, life_table_churn, &table);
    int status = 0;
    for (size_t i = 0, runs = life_scale(300, 5000); i < runs && status == 0; ++i) {
        pid_t pid = vfork();
        if (pid == 0) {
            allocate_as_child(&random);
            _exit(0);
        }
        status = life_wait(pid);
        allocate_as_child(&random);
    }
    atomic_store(&table.stop, true);
    life_join(threads, CHURNERS);
    assert_int_equal(status, 0);
    assert_int_equal(life_table_close(&table), 0);
    assert_int_equal(life_full_mix(), 0);
}

static void *spawn_body(void *arg) {
    uint64_t random = (uintptr_t)pthread_self();
    (void)arg;
    for (size_t i = 0; i < children_each; ++i) {
        allocate_as_child(&random);
        atomic_fetch_add(&bad_children, life_rerun("spawned") != 42);
    }
    return NULL;
}

static void spawning_from_many_threads_while_they_allocate(void **state) {
    (void)state;
    pthread_t threads[CHURNERS + SPAWNERS];
    children_each = life_scale(50, 1000);
    life_table_open(&table, 500, 2 * LIFE_MIB);
    life_start(threads, SPAWNERS, spawn_body, NULL);
    life_start(threads + SPAWNERS, CHURNERS, life_table_churn, &table);
    life_join(threads, SPAWNERS);
    atomic_store(&table.stop, true);
    life_join(threads + SPAWNERS, CHURNERS);
    assert_int_equal(atomic_load(&bad_children), 0);
    assert_int_equal(life_table_close(&table), 0);
}

int main(int argc, char **argv) {
    if (life_rerun_mode(argc, argv) != NULL) {
        return life_full_mix() == 0 ? 42 : 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vfork_child_may_allocate),
        cmocka_unit_test(spawning_from_many_threads_while_they_allocate),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
