/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* posix_memalign says by its result what went wrong, and touches neither *memptr nor errno then; the other aligned
 * calls say EINVAL through errno. */
#include "support/api_blackbox.h"

static int errno_kept[] = {0, 77, ENOMEM, EINVAL};

static void must_return(const struct api *it, int result, size_t alignment, size_t size) {
    for (size_t i = 0; i < API_COUNT(errno_kept); i++) {
        void *memptr = errno_kept;
        errno = errno_kept[i];
        int got = it->posix_memalign(&memptr, alignment, size);
        int after = errno;
        if (got != result || memptr != errno_kept || after != errno_kept[i]) {
            fail_msg("%sposix_memalign(%zu, %zu): result %d, errno %d -> %d, memptr %s", it->prefix, alignment, size,
                     got, errno_kept[i], after, memptr == errno_kept ? "kept" : "written");
        }
    }
}

static void wrong_alignment_is_einval_and_touches_nothing(void **state) {
    (void)state;
    static const size_t wrong[] = {0,
                                   1,
                                   2,
                                   3,
                                   4,
                                   5,
                                   6,
                                   7,
                                   9,
                                   12,
                                   15,
                                   17,
                                   24,
                                   31,
                                   33,
                                   48,
                                   96,
                                   1000,
                                   (1 << 20) + 8,
                                   4095,
                                   4097,
                                   PTRDIFF_MAX,
                                   SIZE_MAX,
                                   SIZE_MAX - 7,
                                   SIZE_MAX / 2 + 9};
    static const size_t sizes[] = {0, 1, 16, 1000, 5000, 100000, 5000000};
    api_each(it) {
        for (size_t i = 0; i < API_COUNT(wrong); i++) {
            for (size_t s = 0; s < API_COUNT(sizes); s++) {
                must_return(it, EINVAL, wrong[i], sizes[s]);
            }
        }
    }
}

static void too_much_is_enomem_and_touches_nothing(void **state) {
    (void)state;
    static const size_t sizes[] = {(size_t)1 << 47, (size_t)1 << 62, PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1,
                                   SIZE_MAX - 4096, SIZE_MAX - 1,    SIZE_MAX};
    api_each(it) {
        for (size_t alignment = sizeof(void *); alignment; alignment *= 2) {
            for (size_t s = 0; s < API_COUNT(sizes); s++) {
                must_return(it, ENOMEM, alignment, sizes[s]);
            }
        }
    }
}

static void success_stores_the_block_and_keeps_errno(void **state) {
    (void)state;
    api_each(it) {
        for (size_t alignment = sizeof(void *); alignment <= (size_t)1 << 21; alignment *= 2) {
            for (size_t size = 0; size < 3000000; size = size * 3 + 1) {
                void *block = NULL;
                errno = 77;
                assert_int_equal(it->posix_memalign(&block, alignment, size), 0);
                assert_int_equal(errno, 77);
                assert_true(block && api_aligned(block, alignment));
                it->free(block);
            }
        }
    }
}

static void blocks_of_no_bytes_are_distinct(void **state) {
    (void)state;
    api_each(it) {
        void *one = NULL;
        void *two = NULL;
        assert_int_equal(it->posix_memalign(&one, 64, 0), 0);
        assert_int_equal(it->posix_memalign(&two, 64, 0), 0);
        assert_non_null(one);
        assert_non_null(two);
        assert_ptr_not_equal(one, two);
        it->free(one);
        it->free(two);
    }
}

static void aligned_alloc_of_a_wrong_alignment_is_einval(void **state) {
    (void)state;
    api_need(hak.version); /* glibc 2.36 rounds up */
    static const size_t wrong[] = {0, 3, 5, 12, 24, 48, 1000, 4097, SIZE_MAX, SIZE_MAX / 2 + 2};
    api_each(it) {
        for (size_t i = 0; i < API_COUNT(wrong); i++) {
            errno = 77;
            void *block = it->aligned_alloc(wrong[i], 128);
            if (block || errno != EINVAL) {
                fail_msg("%saligned_alloc(%zu, 128) gave %p, errno %d", it->prefix, wrong[i], block, errno);
            }
        }
    }
}

static void aligned_alloc_takes_a_size_that_is_no_multiple(void **state) {
    (void)state;
    api_each(it) {
        for (size_t size = 0; size < 5000; size += 11) {
            void *block = it->aligned_alloc(256, size);
            assert_true(block && api_aligned(block, 256));
            it->free(block);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_alignment_is_einval_and_touches_nothing),
        cmocka_unit_test(too_much_is_enomem_and_touches_nothing),
        cmocka_unit_test(success_stores_the_block_and_keeps_errno),
        cmocka_unit_test(blocks_of_no_bytes_are_distinct),
        cmocka_unit_test(aligned_alloc_of_a_wrong_alignment_is_einval),
        cmocka_unit_test(aligned_alloc_takes_a_size_that_is_no_multiple),
    };
    api_start();
    return cmocka_run_group_tests_name("posix_memalign", tests, NULL, NULL);
}
