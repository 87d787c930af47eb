/* build: -pthread */
/* What one allocation costs in each of a thousand threads that live at the same time. */
#include "support/life.h"

/* The checked build may cost twice as much: it keeps the exact size of each block. */
enum { THREADS = 1000, BYTES_PER_THREAD = 16384, CHECKED_FACTOR = 2, STACK_BYTES = 128 << 10 };

static pthread_barrier_t gate;
static atomic_size_t refused;

/* The stack that an allocation will use is touched before, so that it does not count. */
static void touch_stack(void) {
    volatile char below[24 << 10];
    for (size_t i = 0; i < sizeof(below); i += 1024) {
        below[i] = 1;
    }
}

static void *one_block_body(void *arg) {
    (void)arg;
    touch_stack();
    pthread_barrier_wait(&gate); /* all are there */
    pthread_barrier_wait(&gate); /* measured without blocks */
    void *block = life_make(64);
    atomic_fetch_add(&refused, block == NULL);
    pthread_barrier_wait(&gate); /* all have one */
    pthread_barrier_wait(&gate); /* measured with blocks */
    if (!life_drop(block)) {
        atomic_fetch_add(&refused, 1);
    }
    return NULL;
}

static void one_block_in_each_of_a_thousand_threads_is_cheap(void **state) {
    (void)state;
    static pthread_t threads[THREADS];
    pthread_attr_t attributes;
    pthread_barrier_init(&gate, NULL, THREADS + 1);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    for (size_t i = 0; i < THREADS; ++i) {
        assert_int_equal(pthread_create(&threads[i], &attributes, one_block_body, NULL), 0);
    }
    pthread_barrier_wait(&gate);
    size_t before = life_rss();
    pthread_barrier_wait(&gate);
    pthread_barrier_wait(&gate);
    size_t after = life_rss();
    pthread_barrier_wait(&gate);
    life_join(threads, THREADS);
    size_t each = life_growth(before, after) / THREADS;
    print_message("# %zu bytes resident per thread\n", each);
    assert_int_equal(atomic_load(&refused), 0);
    assert_true(each <= (life_checked() ? CHECKED_FACTOR * BYTES_PER_THREAD : BYTES_PER_THREAD));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_block_in_each_of_a_thousand_threads_is_cheap),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
