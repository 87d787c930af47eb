/* build: -pthread */
/* Threads end: what they held is used again, their destructors may still allocate, and blocks that they leave are
 * freed by others, without growth. */
#include "support/life.h"

enum { SETTLE_THREADS = 100, THREADS_AT_ONCE = 4 };

/* Runs `count` threads of `body`, a few at a time. */
static void run_threads(size_t count, void *(*body)(void *), void *arg) {
    pthread_t threads[THREADS_AT_ONCE];
    for (size_t done = 0; done < count; done += THREADS_AT_ONCE) {
        life_start(threads, THREADS_AT_ONCE, body, arg);
        life_join(threads, THREADS_AT_ONCE);
    }
}

/* The growth of resident memory that `count` threads of `body` cause after the first hundred. */
static size_t growth_by_threads(size_t count, void *(*body)(void *), void *arg) {
    run_threads(SETTLE_THREADS, body, arg);
    size_t before = life_rss();
    run_threads(count - SETTLE_THREADS, body, arg);
    size_t after = life_rss();
    print_message("# rss: %zu KiB after %d threads, %zu KiB after %zu\n", before >> 10, SETTLE_THREADS, after >> 10,
                  count);
    return life_growth(before, after);
}

/* ---- destructors of thread-specific data ---- */

static pthread_key_t keys[4];
static atomic_size_t destroyed;
static atomic_size_t damaged;

static void ordinary_destructor(void *block) {
    atomic_fetch_add(&destroyed, 1);
    if (!life_drop(block)) {
        atomic_fetch_add(&damaged, 1);
    }
}

static void *ordinary_body(void *arg) {
    (void)arg;
    for (size_t i = 0; i < 4; ++i) {
        pthread_setspecific(keys[i], life_make(64 << (2 * i)));
    }
    return NULL;
}

static void keys_open(void (*destructor)(void *)) {
    atomic_store(&destroyed, 0);
    atomic_store(&damaged, 0);
    for (size_t i = 0; i < 4; ++i) {
        assert_int_equal(pthread_key_create(&keys[i], destructor), 0);
    }
}

static void keys_close(void) {
    for (size_t i = 0; i < 4; ++i) {
        pthread_key_delete(keys[i]);
    }
}

static void ordinary_destructors_leave_nothing(void **state) {
    (void)state;
    keys_open(ordinary_destructor);
    size_t growth = growth_by_threads(20000, ordinary_body, NULL);
    keys_close();
    assert_int_equal(atomic_load(&destroyed), 20000 * 4);
    assert_int_equal(atomic_load(&damaged), 0);
    assert_true(growth < LIFE_MIB);
}

/* Arms itself again in each of the rounds that the C library grants, also after any allocator's own destructor, and
 * passes a block from each round to the next. The key's value is a count, so that the last round leaves nothing. */
static _Thread_local void *carried;

static void stubborn_destructor(void *round) {
    uintptr_t number = (uintptr_t)round;
    atomic_fetch_add(&destroyed, 1);
    void *large = life_make(50000);
    void *previous = carried;
    carried = number < PTHREAD_DESTRUCTOR_ITERATIONS ? life_make(100 * number) : NULL;
    if (large == NULL || !life_drop(large) || !life_drop(previous)) {
        atomic_fetch_add(&damaged, 1);
    }
    pthread_setspecific(keys[0], (void *)(number + 1));
}

static void *stubborn_body(void *arg) {
    pthread_setspecific(keys[0], (void *)(uintptr_t)1);
    carried = life_make(3000);
    return arg;
}

static void destructors_that_allocate_in_every_round_leave_nothing(void **state) {
    (void)state;
    keys_open(stubborn_destructor);
    size_t growth = growth_by_threads(4000, stubborn_body, NULL);
    keys_close();
    assert_int_equal(atomic_load(&destroyed), 4000 * PTHREAD_DESTRUCTOR_ITERATIONS);
    assert_int_equal(atomic_load(&damaged), 0);
    assert_true(growth < LIFE_MIB);
}

/* ---- blocks that outlive their thread ---- */

static struct life_table table;

static void *leave_blocks_body(void *arg) {
    (void)arg;
    uint64_t random = (uint64_t)(uintptr_t)pthread_self() ^ (uint64_t)atomic_fetch_add(&destroyed, 1);
    for (int i = 0; i < 400; ++i) {
        life_table_step(&table, &random);
    }
    return NULL;
}

/* About 9 MiB are live all the time, more than a layer may keep free (HAKMEM_RETAIN_BYTES). Which slabs have holes
 * takes thousands of threads to settle, and so long the heap may grow. */
static void blocks_left_by_short_threads_are_freed_by_later_ones(void **state) {
    (void)state;
    atomic_store(&destroyed, 0);
    life_table_open(&table, 4000, 32768);
    run_threads(2000, leave_blocks_body, NULL);
    size_t before = life_rss();
    run_threads(8000, leave_blocks_body, NULL);
    size_t after = life_rss();
    print_message("# rss: %zu KiB after 2,000 threads, %zu KiB after 10,000\n", before >> 10, after >> 10);
    assert_int_equal(life_table_close(&table), 0);
    assert_true(after <= 2 * before);
}

enum { LEFT_BLOCKS = 64 };

static void *leave_64_kib_body(void *arg) {
    void **left = arg;
    for (int i = 0; i < LEFT_BLOCKS; ++i) {
        left[i] = life_make(1024);
    }
    return NULL;
}

static void memory_left_by_dead_threads_and_freed_by_main_is_used_again(void **state) {
    (void)state;
    void *left[LEFT_BLOCKS];
    size_t before = 0;
    size_t count = life_scale(5000, 20000);
    for (size_t i = 0; i < count; ++i) {
        pthread_t thread;
        life_start(&thread, 1, leave_64_kib_body, left);
        life_join(&thread, 1);
        for (int k = 0; k < LEFT_BLOCKS; ++k) {
            assert_true(left[k] != NULL && life_drop(left[k]));
        }
        before = i == SETTLE_THREADS ? life_rss() : before;
    }
    assert_true(life_growth(before, life_rss()) < 4 * LIFE_MIB);
}

static void *free_only_body(void *arg) {
    void **left = arg;
    for (int k = 0; k < LEFT_BLOCKS; ++k) {
        if (left[k] == NULL || !life_drop(left[k])) {
            atomic_fetch_add(&damaged, 1);
        }
    }
    return NULL;
}

/* A thread whose whole life is free(): it must get no lasting state, and what it freed must come back. */
static void threads_that_only_free_leave_nothing(void **state) {
    (void)state;
    void *left[LEFT_BLOCKS];
    size_t before = 0;
    atomic_store(&damaged, 0);
    for (size_t i = 0; i < 4000; ++i) {
        pthread_t thread;
        leave_64_kib_body(left);
        life_start(&thread, 1, free_only_body, left);
        life_join(&thread, 1);
        before = i == SETTLE_THREADS ? life_rss() : before;
    }
    assert_int_equal(atomic_load(&damaged), 0);
    assert_true(life_growth(before, life_rss()) < LIFE_MIB);
}

/* The dead thread's control block, and so its address, usually goes to the next one: that is not the owner. */
static void *free_and_leave_body(void *arg) {
    void **left = arg;
    free_only_body(left);
    return leave_64_kib_body(left);
}

static void next_thread_at_the_same_address_is_not_taken_for_the_owner(void **state) {
    (void)state;
    void *left[LEFT_BLOCKS];
    atomic_store(&damaged, 0);
    leave_64_kib_body(left);
    for (size_t i = 0; i < 4000; ++i) {
        pthread_t thread;
        life_start(&thread, 1, free_and_leave_body, left);
        life_join(&thread, 1);
    }
    free_only_body(left);
    assert_int_equal(atomic_load(&damaged), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_destructors_leave_nothing),
        cmocka_unit_test(destructors_that_allocate_in_every_round_leave_nothing),
        cmocka_unit_test(blocks_left_by_short_threads_are_freed_by_later_ones),
        cmocka_unit_test(memory_left_by_dead_threads_and_freed_by_main_is_used_again),
        cmocka_unit_test(threads_that_only_free_leave_nothing),
        cmocka_unit_test(next_thread_at_the_same_address_is_not_taken_for_the_owner),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
