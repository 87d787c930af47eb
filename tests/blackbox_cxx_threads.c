/* build: -pthread */
/* C++ objects that live as long as a thread or as the process, and tasks: their destructors allocate and free late. The
 * C++ part is a library of its own, so that the C++ runtime is loaded while the program runs. */
#include "support/life.h"

static long (*thread_locals)(int);
static long (*async)(int);

static int load(void **state) {
    char path[PATH_MAX];
    life_support_path(path, sizeof(path), "life_cxx");
    void *library = dlopen(path, RTLD_NOW);
    if (library == NULL) {
        print_error("%s\n", dlerror());
        return 1;
    }
    *(void **)&thread_locals = dlsym(library, "life_cxx_thread_locals");
    *(void **)&async = dlsym(library, "life_cxx_async");
    return life_setup(state);
}

static void thread_local_objects_are_destroyed_without_growth(void **state) {
    (void)state;
    assert_int_equal(thread_locals(100), 0);
    size_t before = life_rss();
    assert_int_equal(thread_locals((int)life_scale(2000, 20000)), 0);
    assert_true(life_growth(before, life_rss()) < 4 * LIFE_MIB);
}

static void async_tasks_hand_over_results(void **state) {
    (void)state;
    assert_int_equal(async(100), 0);
    size_t before = life_rss();
    assert_int_equal(async((int)life_scale(4000, 40000)), 0);
    assert_true(life_growth(before, life_rss()) < 4 * LIFE_MIB);
}

/* The library's static object, and those of the threads, are destroyed by exit(). */
static int destructors_process(void) { return load(NULL) == 0 && thread_locals(8) == 0 && async(8) == 0 ? 0 : 1; }

static void static_destructors_run_at_exit(void **state) {
    (void)state;
    for (size_t i = 0, runs = life_scale(20, 200); i < runs; ++i) {
        assert_int_equal(life_rerun("destructors"), 0);
    }
}

int main(int argc, char **argv) {
    if (life_rerun_mode(argc, argv) != NULL) {
        exit(destructors_process());
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thread_local_objects_are_destroyed_without_growth),
        cmocka_unit_test(async_tasks_hand_over_results),
        cmocka_unit_test(static_destructors_run_at_exit),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, load, NULL);
}
