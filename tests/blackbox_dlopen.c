/* build: -pthread */
/* Libraries that come and go while the program runs. */
#include "support/life.h"

enum { SETTLE = 100 };

static void load_use_unload(const char *path) {
    size_t (*work)(void);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    *(void **)&work = dlsym(library, "life_plugin_work");
    assert_non_null(work);
    assert_int_equal(work(), 1000);
    assert_int_equal(dlclose(library), 0);
    assert_null(dlopen(path, RTLD_NOW | RTLD_NOLOAD)); /* it was really unloaded */
    dlerror();
}

static void plugin_that_allocates_comes_and_goes_without_growth(void **state) {
    (void)state;
    char path[PATH_MAX];
    size_t before = 0;
    life_support_path(path, sizeof(path), "life_plugin");
    for (int i = 0; i < 2000; ++i) {
        load_use_unload(path);
        before = i == SETTLE ? life_rss() : before;
    }
    assert_true(life_growth(before, life_rss()) < LIFE_MIB);
}

/* A failed lookup allocates its message inside dlsym(); each thread has its own, freed when the thread ends. */
static void *failing_lookup_body(void *arg) {
    (void)arg;
    for (int i = 0; i < 20; ++i) {
        if (dlsym(RTLD_DEFAULT, "life_no_such_symbol") != NULL || dlopen("/no/such/library", RTLD_NOW) != NULL) {
            return (void *)1;
        }
    }
    return dlerror() != NULL ? NULL : (void *)2;
}

static void failing_lookups_in_threads_leave_nothing(void **state) {
    (void)state;
    size_t before = 0;
    for (int i = 0; i < 2000; ++i) {
        pthread_t thread;
        void *result = (void *)3;
        life_start(&thread, 1, failing_lookup_body, NULL);
        pthread_join(thread, &result);
        assert_null(result);
        before = i == SETTLE ? life_rss() : before;
    }
    assert_true(life_growth(before, life_rss()) < LIFE_MIB);
}

static int (*touch)(int);

static void *touch_body(void *arg) { return touch(0) == 1 ? arg : (void *)1; }

/* The threads never allocate themselves; the C library does for them, and frees after all destructors. */
static void thread_local_storage_of_a_plugin_leaves_nothing(void **state) {
    (void)state;
    char path[PATH_MAX];
    size_t before = 0;
    life_support_path(path, sizeof(path), "life_tls_plugin");
    void *library = dlopen(path, RTLD_NOW);
    assert_non_null(library);
    *(void **)&touch = dlsym(library, "life_tls_touch");
    for (size_t i = 0, count = life_scale(5000, 20000); i < count; ++i) {
        pthread_t thread;
        void *result = (void *)2;
        life_start(&thread, 1, touch_body, NULL);
        pthread_join(thread, &result);
        assert_null(result);
        before = i == SETTLE ? life_rss() : before;
    }
    assert_int_equal(dlclose(library), 0);
    assert_true(life_growth(before, life_rss()) < LIFE_MIB);
}

/* Loading and unloading in one thread while others allocate. */
static void plugin_comes_and_goes_while_threads_allocate(void **state) {
    (void)state;
    static struct life_table table;
    pthread_t threads[3];
    char path[PATH_MAX];
    life_support_path(path, sizeof(path), "life_plugin");
    life_table_open(&table, 500, 200000);
    life_start(threads, 3, life_table_churn, &table);
    for (size_t i = 0, count = life_scale(300, 3000); i < count; ++i) {
        load_use_unload(path);
    }
    atomic_store(&table.stop, true);
    life_join(threads, 3);
    assert_int_equal(life_table_close(&table), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plugin_that_allocates_comes_and_goes_without_growth),
        cmocka_unit_test(failing_lookups_in_threads_leave_nothing),
        cmocka_unit_test(thread_local_storage_of_a_plugin_leaves_nothing),
        cmocka_unit_test(plugin_comes_and_goes_while_threads_allocate),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
