/* The metadata arena: zero, aligned, recycled by size, nobody's twice, and quiet when the system refuses. */
#include "support/stores.h"

#include <pthread.h>
#include <stdlib.h>

#include "pages/meta.h"

static int no_faults(void **state) {
    (void)state;
    set_faults(0, false, -1);
    return 0;
}

static void blocks_are_zero_and_aligned_at_every_size(void **state) {
    (void)state;
    for (unsigned round = 0; round < 2; round++) /* the second time they are recycled, and dirty */
        for (size_t bytes = 1; bytes < 200000; bytes += bytes / 7 + 1) {
            char *block = hak_meta_alloc(bytes);
            assert_non_null(block);
            assert_int_equal((uintptr_t)block % (bytes >= 64 ? 64 : 16), 0);
            assert_true(is_zero(block, bytes));
            memset(block, 0xee, bytes);
            hak_meta_free(block, bytes);
        }
}

static void a_freed_block_serves_the_next_of_its_size(void **state) {
    (void)state;
    static const size_t sizes[] = {16, 48, 64, 200, 1000, 5000, 32768};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *first = hak_meta_alloc(sizes[i]), *second = hak_meta_alloc(sizes[i]);
        assert_true(first != NULL && second != NULL && first != second);
        uint64_t mapped = hak_meta_mapped_bytes();
        hak_meta_free(first, sizes[i]);
        hak_meta_free(second, sizes[i]);
        assert_ptr_equal(hak_meta_alloc(sizes[i]), second);
        assert_ptr_equal(hak_meta_alloc(sizes[i]), first);
        hak_meta_free(first, sizes[i]);
        hak_meta_free(second, sizes[i]);
        assert_int_equal(hak_meta_mapped_bytes(), mapped);
    }
    hak_meta_free(NULL, 100);
}

static void large_blocks_are_mappings_that_go_back(void **state) {
    (void)state;
    uint64_t before = hak_meta_mapped_bytes();
    char *block = hak_meta_alloc(100000);
    assert_non_null(block);
    assert_int_equal(hak_meta_mapped_bytes(), before + hak_round_up(100000, hak_sys_page_bytes()));
    memset(block, 1, 100000);
    hak_meta_free(block, 100000);
    assert_int_equal(hak_meta_mapped_bytes(), before);
}

/* Everything that the test holds, to see that no two blocks share a byte. */
struct holding {
    unsigned char *block;
    size_t bytes;
    unsigned char mark;
};
#define HELD 2000

static void *hold_and_let_go(void *argument) {
    static const size_t sizes[] = {1, 16, 17, 32, 40, 63, 64, 65, 100, 128, 300, 1000, 4000, 40000};
    uint64_t random = (uint64_t)(uintptr_t)argument;
    struct holding *held = calloc(HELD, sizeof *held);
    for (unsigned i = 0; i < 20000; i++) {
        struct holding *h = &held[next_random(&random) % HELD];
        if (h->block != NULL) {
            for (size_t at = 0; at < h->bytes; at++)
                if (h->block[at] != h->mark) return argument;
            hak_meta_free(h->block, h->bytes);
        }
        h->bytes = sizes[next_random(&random) % (i % 100 == 0 ? 14 : 13)];
        h->mark = (unsigned char)next_random(&random);
        h->block = hak_meta_alloc(h->bytes);
        if (h->block == NULL || !is_zero(h->block, h->bytes)) return argument;
        memset(h->block, h->mark, h->bytes);
    }
    for (unsigned i = 0; i < HELD; i++) hak_meta_free(held[i].block, held[i].bytes);
    free(held);
    return NULL;
}

static void no_byte_is_given_to_two_threads(void **state) {
    (void)state;
    pthread_t thread[4];
    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, hold_and_let_go, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < 4; i++) {
        void *failed;
        assert_int_equal(pthread_join(thread[i], &failed), 0);
        assert_null(failed);
    }
}

static void refusals_lose_nothing(void **state) {
    (void)state;
    uint64_t before = hak_meta_mapped_bytes();
    set_faults(1, true, HAK_SYS_MAP);
    assert_null(hak_meta_alloc(100000));
    unsigned served = 0;
    static void *blocks[20]; /* more than a chunk: what is mapped already is used up, then it is over */
    while (served < 20 && (blocks[served] = hak_meta_alloc(32768)) != NULL) served++;
    assert_true(served < 20);
    assert_int_equal(hak_meta_mapped_bytes(), before);
    set_faults(0, false, -1);
    void *block = hak_meta_alloc(32768);
    assert_non_null(block);
    assert_int_equal(hak_meta_mapped_bytes(), before + 262144);
    hak_meta_free(block, 32768);
    while (served > 0) hak_meta_free(blocks[--served], 32768);
}

static void what_munmap_refuses_stays_counted(void **state) {
    (void)state;
    uint64_t before = hak_meta_mapped_bytes();
    void *block = hak_meta_alloc(1 << 20);
    assert_non_null(block);
    set_faults(1, true, HAK_SYS_UNMAP);
    hak_meta_free(block, 1 << 20);
    assert_int_equal(hak_meta_mapped_bytes(), before + (1 << 20));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_zero_and_aligned_at_every_size),
        cmocka_unit_test(a_freed_block_serves_the_next_of_its_size),
        cmocka_unit_test(large_blocks_are_mappings_that_go_back),
        cmocka_unit_test(no_byte_is_given_to_two_threads),
        cmocka_unit_test_teardown(refusals_lose_nothing, no_faults),
        cmocka_unit_test_teardown(what_munmap_refuses_stays_counted, no_faults),
    };
    alarm(300);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
