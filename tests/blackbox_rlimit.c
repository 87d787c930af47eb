/* build: -pthread */
/* The address space is limited and runs out: NULL, never a crash, and what is freed can be had again. */
#include "support/life.h"

#include <sys/resource.h>

enum { LIMIT_MIB = 400, THREADS = 8 };

static int limit_address_space(size_t bytes) {
    struct rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};
    return setrlimit(RLIMIT_AS, &limit);
}

/* The blocks are chained through their own memory, so that filling needs no list. */
struct chain {
    struct chain *next;
};

static size_t fill(struct chain **all, uint64_t random, size_t min_size, size_t max_size) {
    size_t bytes = 0;
    for (;;) {
        size_t size = min_size + life_random(&random) % (max_size - min_size + 1);
        errno = 0;
        struct chain *link = v_malloc(size);
        if (link == NULL) {
            return errno == ENOMEM ? bytes : 0;
        }
        link->next = *all;
        *all = link;
        bytes += size;
    }
}

static void empty(struct chain **all) {
    while (*all != NULL) {
        struct chain *link = *all;
        *all = link->next;
        v_free(link);
    }
}

/* Full, empty, full again, three times: 0, or what went wrong. */
static int fill_and_refill(size_t min_size, size_t max_size) {
    struct chain *all = NULL;
    if (limit_address_space(LIMIT_MIB * LIFE_MIB) != 0) {
        return 10;
    }
    size_t first = fill(&all, 1, min_size, max_size);
    printf("# %zu..%zu bytes: %zu KiB", min_size, max_size, first >> 10);
    int result = first < LIMIT_MIB * LIFE_MIB / 2 ? 1 : 0;
    for (int round = 0; round < 3; ++round) {
        empty(&all);
        size_t again = fill(&all, 1, min_size, max_size);
        printf(", again %zu KiB", again >> 10);
        result = again < first / 100 * 95 ? 2 : result;
    }
    printf("\n");
    fflush(stdout);
    empty(&all);
    return result != 0 ? result : life_full_mix();
}

/* Full of one size, empty, full of another, both ways: memory may not stay bound to a size. */
static int refill_with_other_sizes(void) {
    static const size_t sizes[] = {64, 400000, 1024, 3000000, 16384, 64};
    struct chain *all = NULL;
    if (limit_address_space(LIMIT_MIB * LIFE_MIB) != 0) {
        return 10;
    }
    int result = 0;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
        size_t bytes = fill(&all, i, sizes[i], sizes[i]);
        printf("# %zu bytes: %zu KiB\n", sizes[i], bytes >> 10);
        fflush(stdout);
        result = bytes < LIMIT_MIB * LIFE_MIB / 2 && result == 0 ? 1 + (int)i : result;
        empty(&all);
    }
    return result;
}

/* ---- threads that have never allocated, with no address space left ---- */

static pthread_barrier_t gate;

/* Any answer is right but a crash or a bad block. */
static void *try_body(void *arg) {
    static const size_t sizes[] = {16, 1000, 30000, 300000, 3000000};
    (void)arg;
    for (int phase = 0; phase < 2; ++phase) {
        pthread_barrier_wait(&gate); /* first: exhausted; second: everything is free again */
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
            void *block = life_make(sizes[i]);
            if (block == NULL && phase == 1) {
                return (void *)1;
            }
            if (!life_drop(block)) {
                return (void *)2;
            }
        }
        pthread_barrier_wait(&gate);
    }
    return NULL;
}

/* Takes every mapping that can still be had, down to a page. */
static void exhaust_mappings(void) {
    for (size_t size = 64 * LIFE_MIB; size >= 4096; size /= 2) {
        while (mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED) {
        }
    }
}

static void lift_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_AS, &limit);
}

static int first_malloc_without_address_space(void) {
    pthread_t threads[THREADS];
    struct rlimit limit;
    pthread_barrier_init(&gate, NULL, THREADS + 1);
    life_start(threads, THREADS, try_body, NULL);
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = LIMIT_MIB * LIFE_MIB;
    setrlimit(RLIMIT_AS, &limit);
    exhaust_mappings();
    pthread_barrier_wait(&gate);
    pthread_barrier_wait(&gate);
    lift_limit();
    pthread_barrier_wait(&gate);
    pthread_barrier_wait(&gate);
    int result = 0;
    for (int i = 0; i < THREADS; ++i) {
        void *status = NULL;
        pthread_join(threads[i], &status);
        result = status != NULL ? (int)(intptr_t)status : result;
    }
    return result;
}

/* A thread starts on a stack that is there already; only the allocator has nothing left. */
static void *quick_body(void *arg) {
    (void)arg;
    return life_drop(life_make(100)) ? NULL : (void *)1;
}

static int thread_start_without_address_space(void) {
    static _Alignas(4096) char stack[64 << 10];
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, sizeof(stack));
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = LIMIT_MIB * LIFE_MIB;
    setrlimit(RLIMIT_AS, &limit);
    exhaust_mappings();
    struct chain *all = NULL;
    fill(&all, 1, 16, 16);
    for (int i = 0; i < 10; ++i) {
        pthread_t thread;
        void *status = NULL;
        if (pthread_create(&thread, &attributes, quick_body, NULL) == 0 && pthread_join(thread, &status) == 0 &&
            status != NULL) {
            return 1;
        }
    }
    lift_limit();
    empty(&all);
    return life_full_mix();
}

static int run_mode(const char *mode) {
    return strcmp(mode, "small") == 0     ? fill_and_refill(16, 1000)
           : strcmp(mode, "mid") == 0     ? fill_and_refill(1000, 30000)
           : strcmp(mode, "large") == 0   ? fill_and_refill(33000, 900000)
           : strcmp(mode, "huge") == 0    ? fill_and_refill(1100000, 5000000)
           : strcmp(mode, "other") == 0   ? refill_with_other_sizes()
           : strcmp(mode, "threads") == 0 ? first_malloc_without_address_space()
                                          : thread_start_without_address_space();
}

static void small_blocks_can_be_had_again(void **state) {
    (void)state;
    assert_int_equal(life_rerun("small"), 0);
}

static void middle_blocks_can_be_had_again(void **state) {
    (void)state;
    assert_int_equal(life_rerun("mid"), 0);
}

static void large_blocks_can_be_had_again(void **state) {
    (void)state;
    assert_int_equal(life_rerun("large"), 0);
}

static void huge_blocks_can_be_had_again(void **state) {
    (void)state;
    assert_int_equal(life_rerun("huge"), 0);
}

static void memory_of_one_size_serves_another(void **state) {
    (void)state;
    assert_int_equal(life_rerun("other"), 0);
}

static void threads_survive_their_first_malloc_without_address_space(void **state) {
    (void)state;
    assert_int_equal(life_rerun("threads"), 0);
}

static void thread_start_survives_without_address_space(void **state) {
    (void)state;
    assert_int_equal(life_rerun("start"), 0);
}

int main(int argc, char **argv) {
    const char *mode = life_rerun_mode(argc, argv);
    if (mode != NULL) {
        return run_mode(mode);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_blocks_can_be_had_again),
        cmocka_unit_test(middle_blocks_can_be_had_again),
        cmocka_unit_test(large_blocks_can_be_had_again),
        cmocka_unit_test(huge_blocks_can_be_had_again),
        cmocka_unit_test(memory_of_one_size_serves_another),
        cmocka_unit_test(threads_survive_their_first_malloc_without_address_space),
        cmocka_unit_test(thread_start_survives_without_address_space),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
