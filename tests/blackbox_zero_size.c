/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* Nothing as an argument: size 0, count 0, the null pointer. */
#include "support/api_blackbox.h"

enum { MANY = 10000 };

static int compare(const void *a, const void *b) {
    uintptr_t x = (uintptr_t) * (void *const *)a;
    uintptr_t y = (uintptr_t) * (void *const *)b;
    return (x > y) - (x < y);
}

/* One way to ask for no bytes; `turn` walks through all of them. */
static void *get_nothing(const struct api *it, size_t turn) {
    void *block = NULL;
    switch (turn % 9) {
    case 0:
        return it->malloc(0);
    case 1:
        return it->calloc(0, 8);
    case 2:
        return it->calloc(8, 0);
    case 3:
        return it->calloc(0, SIZE_MAX);
    case 4:
        return it->calloc(SIZE_MAX, 0);
    case 5:
        return it->realloc(NULL, 0);
    case 6:
        return it->reallocarray(NULL, 0, SIZE_MAX);
    case 7:
        return it->memalign(64, 0);
    default:
        return it->posix_memalign(&block, 8, 0) == 0 ? block : NULL;
    }
}

static void blocks_of_no_bytes_are_unique_and_can_be_freed(void **state) {
    (void)state;
    static void *blocks[MANY];
    static void *sorted[MANY];
    api_each(it) {
        for (size_t i = 0; i < MANY; i++) {
            blocks[i] = i % 10 == 9 ? it->malloc(1) : get_nothing(it, i);
            if (!blocks[i] || !api_aligned(blocks[i], 16)) {
                fail_msg("way %zu gave %p", i % 9, blocks[i]);
            }
            /* Sane: what is reported can be written, and is not a page. */
            size_t usable = it->malloc_usable_size(blocks[i]);
            assert_in_range(usable, 0, 64);
            memset(blocks[i], 0x77, usable);
        }
        memcpy(sorted, blocks, sizeof sorted);
        qsort(sorted, MANY, sizeof sorted[0], compare);
        for (size_t i = 1; i < MANY; i++) {
            assert_ptr_not_equal(sorted[i - 1], sorted[i]);
        }
        for (size_t i = 0; i < MANY; i++) {
            it->free(blocks[i]);
        }
    }
}

static void checked_build_reports_no_usable_byte_in_a_block_of_none(void **state) {
    (void)state;
    api_need(api_build == API_CHECKED);
    api_each(it) {
        void *block = it->malloc(0);
        assert_int_equal(it->malloc_usable_size(block), 0);
        it->free(block);
    }
}

static void realloc_of_null_allocates(void **state) {
    (void)state;
    api_each(it) {
        for (size_t size = 1; size < 20000000; size = size * 3 + 1) {
            char *block = it->realloc(NULL, size);
            char *array = it->reallocarray(NULL, size, 1);
            assert_true(block && array && block != array);
            block[0] = block[size - 1] = 1;
            array[0] = array[size - 1] = 2;
            assert_int_equal(block[size - 1], 1);
            it->free(block);
            it->free(array);
        }
    }
}

/* If it did not free, 400 MB would be left behind. */
static void realloc_to_no_bytes_frees_and_returns_null(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 100, 1024, 9000, 100000, 1000000, 4000000};
    api_each(it) {
        size_t before = 0;
        for (int round = 0; round < 101; round++) {
            for (size_t i = 0; i < API_COUNT(sizes); i++) {
                char *block = it->malloc(sizes[i]);
                assert_non_null(block);
                memset(block, 1, sizes[i]);
                errno = 77;
                assert_null(round % 2 ? it->realloc(block, 0) : it->reallocarray(block, 0, 7));
                assert_int_equal(errno, 77);
            }
            if (round == 0) {
                before = api_rss();
            }
        }
        assert_in_range(api_rss(), 0, before + ((size_t)20 << 20));
    }
}

static void null_is_freed_by_every_form_and_has_no_size(void **state) {
    (void)state;
    api_each(it) {
        errno = 77;
        it->free(NULL);
        assert_int_equal(it->malloc_usable_size(NULL), 0);
        if (it->free_sized) {
            it->cfree(NULL);
            it->free_sized(NULL, 0);
            it->free_sized(NULL, 100);
            it->free_aligned_sized(NULL, 64, 100);
        }
        assert_int_equal(errno, 77);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_no_bytes_are_unique_and_can_be_freed),
        cmocka_unit_test(checked_build_reports_no_usable_byte_in_a_block_of_none),
        cmocka_unit_test(realloc_of_null_allocates),
        cmocka_unit_test(realloc_to_no_bytes_frees_and_returns_null),
        cmocka_unit_test(null_is_freed_by_every_form_and_has_no_size),
    };
    api_start();
    return cmocka_run_group_tests_name("zero size", tests, NULL, NULL);
}
