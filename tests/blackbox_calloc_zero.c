/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* calloc gives zeroes, up to the last usable byte, whatever lay there before: also when memory is locked or the
 * kernel refuses to take pages back, which is when freed pages keep their content. */
#include "support/api_blackbox.h"
#include "support/api_child.h"
#include "support/api_refuse.h"

#include <malloc.h>
#include <pthread.h>

enum { BATCH_MAX = 256, DIRTY = 0xA5 };

static const size_t locked_rss_max = (size_t)200 << 20;

/* What happens between the free and the calloc. */
enum between { NOTHING, FLUSH, PURGE, FREED_BY_A_THREAD };

static bool all_zero(const unsigned char *block, size_t bytes) {
    return bytes == 0 || (block[0] == 0 && memcmp(block, block + 1, bytes - 1) == 0);
}

struct batch {
    unsigned char *blocks[BATCH_MAX];
    size_t count;
};

static void *free_batch(void *argument) {
    struct batch *batch = argument;
    for (size_t i = 0; i < batch->count; i++) {
        api.free(batch->blocks[i]);
    }
    return NULL;
}

static void release(struct batch *batch, enum between between) {
    pthread_t thread;
    if (between != FREED_BY_A_THREAD || pthread_create(&thread, NULL, free_batch, batch) != 0) {
        free_batch(batch);
    } else {
        pthread_join(thread, NULL);
    }
    if (between == FLUSH) {
        api_flush();
    } else if (between == PURGE) {
        api_purge();
    }
}

/* Dirties blocks of this size, frees them, and looks at what calloc gives then. */
static bool zero_after_dirt(size_t size, enum between between) {
    struct batch batch = {.count = size < 1024 ? 16 : size < 65536 ? 6 : 2};
    for (size_t i = 0; i < batch.count; i++) {
        unsigned char *block = api.malloc(size);
        if (!block) {
            return false;
        }
        memset(block, DIRTY, api.malloc_usable_size(block));
        batch.blocks[i] = block;
    }
    release(&batch, between);
    bool zero = true;
    for (size_t i = 0; i < batch.count; i++) {
        size_t count = i % 2 ? 1 : size;
        unsigned char *block = api.calloc(count, count == 1 ? size : 1);
        zero = zero && block && all_zero(block, api.malloc_usable_size(block));
        batch.blocks[i] = block;
    }
    /* Dirty again: a block that calloc gave is as likely to come back. */
    for (size_t i = 0; i < batch.count; i++) {
        if (batch.blocks[i]) {
            memset(batch.blocks[i], DIRTY, api.malloc_usable_size(batch.blocks[i]));
        }
    }
    free_batch(&batch);
    return zero;
}

/* The next size to try: each to 2 KiB, then ever wider steps, with the neighbours of each stop. */
static size_t next_size(size_t size, unsigned shift) {
    size_t step = size < 2048 ? 1 : size >> shift;
    return size % 3 == 0 ? size + step : size + 1;
}

/* Returns the first size to `last` that was not zero, or SIZE_MAX. */
static size_t first_dirty_size(size_t last, unsigned shift, enum between between) {
    for (size_t size = 0; size <= last; size = next_size(size, shift)) {
        if (!zero_after_dirt(size, between)) {
            return size;
        }
    }
    return SIZE_MAX;
}

static const size_t four_mib = ((size_t)4 << 20) + 1;

static void calloc_is_zero_after_immediate_free(void **state) {
    (void)state;
    assert_int_equal(first_dirty_size(four_mib, 5, NOTHING), SIZE_MAX);
}

static void calloc_is_zero_after_the_cache_was_flushed(void **state) {
    (void)state;
    assert_int_equal(first_dirty_size(four_mib, 4, FLUSH), SIZE_MAX);
}

static void calloc_is_zero_after_free_memory_went_back_to_the_system(void **state) {
    (void)state;
    assert_int_equal(first_dirty_size(four_mib, 3, PURGE), SIZE_MAX);
}

static void calloc_is_zero_after_another_thread_freed(void **state) {
    (void)state;
    assert_int_equal(first_dirty_size(four_mib, 3, FREED_BY_A_THREAD), SIZE_MAX);
}

/* Takes a block of `size` bytes that is dirty at one place, or at none, and looks at what calloc gives then. */
static bool zero_but_for(size_t size, size_t place) {
    unsigned char *block = api.calloc(1, size);
    if (!block) {
        return false;
    }
    if (place < size) {
        block[place] = DIRTY;
    }
    api.free(block);
    block = api.calloc(size, 1);
    bool zero = block && all_zero(block, api.malloc_usable_size(block));
    api.free(block);
    return zero;
}

/* Of a large block only what is not zero is written to: each place that may hold something must be looked at. */
static void calloc_finds_a_byte_wherever_it_is(void **state) {
    (void)state;
    const size_t size = ((size_t)1 << 20) + 5000;
    uint64_t seed = 7;
    for (size_t i = 0; i < 300; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        const size_t edge = size / 4096 * 4096 - i / 4 % 8 * 4096;
        const size_t places[] = {(size_t)(seed >> 33) % size, edge - 1, edge, size - 1 - i / 4};
        assert_true(zero_but_for(size, places[i % 4]));
    }
    for (size_t place = 512; place < 1024; place++) {
        assert_true(zero_but_for(size, place * 8 + place % 8));
    }
}

static void use_little_of_much(void *unused) {
    (void)unused;
    const size_t size = (size_t)48 << 20, most = (size_t)16 << 20;
    for (size_t round = 0; round < 4; round++) {
        unsigned char *block = api.calloc(1, size);
        api_child_check(block != NULL);
        block[0] = block[size / 2] = block[size - 1] = DIRTY;
        api_child_check(api_rss() < most);
        api.free(block);
    }
}

static void calloc_of_a_large_block_makes_little_of_it_resident(void **state) {
    (void)state;
    api_child_succeeds(use_little_of_much, NULL, "48 MiB");
}

/* Whole slabs, runs and mappings become free, are given back, and serve other sizes. */
static void calloc_is_zero_in_memory_that_served_another_size(void **state) {
    (void)state;
    static const size_t sizes[] = {16, 48, 100, 256, 1000, 3000, 20000, 50000, 200000, 1000000, 1500000, 3000000};
    size_t room = (size_t)8 << 20;
    unsigned char **blocks = api_books(room / 16 * sizeof *blocks);
    for (size_t from = 0; from < API_COUNT(sizes); from++) {
        for (size_t to = 0; to < API_COUNT(sizes); to++) {
            for (size_t i = 0; i < room / sizes[from]; i++) {
                blocks[i] = api.malloc(sizes[from]);
                memset(blocks[i], DIRTY, api.malloc_usable_size(blocks[i]));
            }
            for (size_t i = 0; i < room / sizes[from]; i++) {
                api.free(blocks[i]);
            }
            if ((from + to) % 2) {
                api_purge();
            }
            size_t count = room / sizes[to] / 4;
            for (size_t i = 0; i < count; i++) {
                blocks[i] = api.calloc(sizes[to], 1);
                assert_true(blocks[i] && all_zero(blocks[i], api.malloc_usable_size(blocks[i])));
            }
            for (size_t i = 0; i < count; i++) {
                api.free(blocks[i]);
            }
        }
    }
    munmap(blocks, room / 16 * sizeof *blocks);
}

static void rezalloc_zeroes_what_it_adds(void **state) {
    (void)state;
    api_need(hak.version);
    for (size_t from = 0; from < 3000000; from = from * 2 + 13) {
        for (size_t to = 1; to < 3000000; to = to * 3 + 1) {
            for (int i = 0; i < 4; i++) {
                unsigned char *dirt = api.malloc(to);
                memset(dirt, DIRTY, api.malloc_usable_size(dirt));
                api.free(dirt);
            }
            unsigned char *block = api.calloc(1, from);
            assert_non_null(block);
            block = hak.rezalloc(block, to);
            assert_true(block && all_zero(block, api.malloc_usable_size(block)));
            api.free(block);
        }
    }
}

/* A short form of all of the above, for a process that was changed for good. */
static void check_all_in_child(void) {
    api_child_check(first_dirty_size(four_mib, 3, NOTHING) == SIZE_MAX);
    api_child_check(first_dirty_size(four_mib, 1, PURGE) == SIZE_MAX);
    for (size_t size = 100; size < (size_t)8 << 20; size = size * 3 + 5) {
        api_child_check(zero_after_dirt(size, PURGE));
        api_child_check(zero_after_dirt(size, FLUSH));
        api_child_check(zero_after_dirt(size, NOTHING));
        api_child_check(zero_after_dirt(size * 4 / 5, FREED_BY_A_THREAD));
    }
}

static void under_perturb(void *unused) {
    (void)unused;
    api_child_check(api.mallopt(M_PERTURB, 0x5A) == 1);
    check_all_in_child();
}

/* M_PERTURB fills blocks on malloc and free, to show who reads them too early or too late; not those of calloc. */
static void calloc_is_zero_when_other_blocks_are_filled(void **state) {
    (void)state;
    api_need(api_build != API_DEFAULT);
    api_child_succeeds(under_perturb, NULL, "M_PERTURB");
}

static void under_mlockall(void *flags) {
    if (mlockall(*(int *)flags) != 0) {
        api_trace->value = -errno;
        return;
    }
    check_all_in_child();
    api_child_check(api_rss() < locked_rss_max);
}

static void assert_zero_under_mlockall(int flags, const char *name) {
    struct api_child child = api_run_child(under_mlockall, &flags);
    if (child.trace.value == -EPERM || child.trace.value == -ENOMEM) {
        printf("# %s not permitted here: RLIMIT_MEMLOCK\n", name);
        return;
    }
    if (child.status != 0 || child.text[0]) {
        fail_msg("%s: wait status 0x%x, stderr \"%s\"", name, (unsigned)child.status, child.text);
    }
}

static void calloc_is_zero_with_present_memory_locked(void **state) {
    (void)state;
    assert_zero_under_mlockall(MCL_CURRENT, "mlockall(MCL_CURRENT)");
}

static void calloc_is_zero_and_small_with_future_memory_locked(void **state) {
    (void)state;
    assert_zero_under_mlockall(MCL_FUTURE, "mlockall(MCL_FUTURE)");
    assert_zero_under_mlockall(MCL_CURRENT | MCL_FUTURE, "mlockall(MCL_CURRENT | MCL_FUTURE)");
}

static void without_madvise(void *error) {
    static const unsigned calls[] = {SYS_madvise};
    api_refuse(calls, API_COUNT(calls), *(unsigned *)error);
    check_all_in_child();
}

static void without_giving_back(void *error) {
    static const unsigned calls[] = {SYS_madvise, SYS_munmap, SYS_mremap, SYS_mprotect};
    api_refuse(calls, API_COUNT(calls), *(unsigned *)error);
    for (size_t size = 0; size < (size_t)5 << 20; size = size * 3 + 1) {
        api_child_check(zero_after_dirt(size, PURGE));
        api_child_check(zero_after_dirt(size, NOTHING));
    }
}

static void calloc_is_zero_when_pages_cannot_be_given_back(void **state) {
    (void)state;
    static unsigned errors[] = {EINVAL, ENOMEM, EAGAIN};
    for (size_t i = 0; i < API_COUNT(errors); i++) {
        api_child_succeeds(without_madvise, &errors[i], strerror((int)errors[i]));
        api_child_succeeds(without_giving_back, &errors[i], strerror((int)errors[i]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calloc_is_zero_after_immediate_free),
        cmocka_unit_test(calloc_is_zero_after_the_cache_was_flushed),
        cmocka_unit_test(calloc_is_zero_after_free_memory_went_back_to_the_system),
        cmocka_unit_test(calloc_is_zero_after_another_thread_freed),
        cmocka_unit_test(calloc_is_zero_in_memory_that_served_another_size),
        cmocka_unit_test(calloc_finds_a_byte_wherever_it_is),
        cmocka_unit_test(calloc_of_a_large_block_makes_little_of_it_resident),
        cmocka_unit_test(rezalloc_zeroes_what_it_adds),
        cmocka_unit_test(calloc_is_zero_when_other_blocks_are_filled),
        cmocka_unit_test(calloc_is_zero_with_present_memory_locked),
        cmocka_unit_test(calloc_is_zero_and_small_with_future_memory_locked),
        cmocka_unit_test(calloc_is_zero_when_pages_cannot_be_given_back),
    };
    api_start();
    return cmocka_run_group_tests_name("calloc zero", tests, NULL, NULL);
}
