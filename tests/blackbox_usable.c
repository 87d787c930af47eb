/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* Every byte that malloc_usable_size() reports is the caller's: writing them all touches no neighbour, and what is
 * reported is the same each time it is asked. */
#include "support/api_blackbox.h"
#include "support/api_child.h"

enum { BLOCKS_MAX = 96 };

struct block {
    unsigned char *bytes;
    size_t usable;
};

static struct block blocks[BLOCKS_MAX];

static unsigned char mark(size_t index) { return (unsigned char)(index * 37 + 11); }

static bool filled_with(const struct block *block, unsigned char byte) {
    return block->usable == 0 ||
           (block->bytes[0] == byte && memcmp(block->bytes, block->bytes + 1, block->usable - 1) == 0);
}

static void *get(size_t index, size_t size) {
    switch (index % 4) {
    case 0:
        return api.calloc(1, size);
    case 1:
        return api.memalign(32, size);
    case 2:
        return api.realloc(api.malloc(size / 2), size ? size : 1);
    default:
        return api.malloc(size);
    }
}

/* As many as fill 256 KiB, so that neighbours in a slab and across its pages are there; at least six. */
static size_t neighbours_of(size_t size) {
    size_t count = ((size_t)256 << 10) / (size + 16);
    return count > BLOCKS_MAX ? BLOCKS_MAX : count < 6 ? 6 : count;
}

static void check_size(size_t size) {
    size_t count = neighbours_of(size);
    for (size_t i = 0; i < count; i++) {
        blocks[i].bytes = get(i, size);
        assert_non_null(blocks[i].bytes);
        blocks[i].usable = api.malloc_usable_size(blocks[i].bytes);
        if (blocks[i].usable < size) {
            fail_msg("%zu bytes asked, %zu usable", size, blocks[i].usable);
        }
    }
    /* Odd ones last, so that each is written both before and after a neighbour. */
    for (size_t i = 0; i < 2 * count; i++) {
        size_t at = i < count ? i : 2 * count - 1 - i;
        memset(blocks[at].bytes, mark(at), blocks[at].usable);
    }
    for (size_t i = 0; i < count; i++) {
        if (!filled_with(&blocks[i], mark(i))) {
            fail_msg("block %zu of %zu bytes (%zu usable) was written by a neighbour", i, size, blocks[i].usable);
        }
        assert_int_equal(api.malloc_usable_size(blocks[i].bytes), blocks[i].usable);
    }
    /* Every second one freed: what remains is untouched by that. */
    for (size_t i = 0; i < count; i += 2) {
        api.free(blocks[i].bytes);
    }
    api_flush();
    for (size_t i = 1; i < count; i += 2) {
        assert_true(filled_with(&blocks[i], mark(i)));
        api.free(blocks[i].bytes);
    }
}

static void every_usable_byte_can_be_written_in_small_blocks(void **state) {
    (void)state;
    for (size_t size = 0; size <= 4200; size += api_soak || size < 1100 ? 1 : 3) {
        check_size(size);
    }
}

static void every_usable_byte_can_be_written_in_large_blocks(void **state) {
    (void)state;
    for (size_t base = 4096; base <= (size_t)4 << 20; base *= 2) {
        for (size_t i = 0; i < 8; i++) {
            size_t size = base + base * i / 8;
            check_size(size - 1);
            check_size(size);
            check_size(size + 1);
        }
    }
}

static void every_usable_byte_can_be_written_in_aligned_blocks(void **state) {
    (void)state;
    for (size_t alignment = 16; alignment <= (size_t)1 << 20; alignment *= 4) {
        for (size_t size = 1; size < 300000; size = size * 3 + 2) {
            struct block three[3];
            for (size_t i = 0; i < 3; i++) {
                three[i].bytes = api.aligned_alloc(alignment, size);
                assert_non_null(three[i].bytes);
                three[i].usable = api.malloc_usable_size(three[i].bytes);
                assert_true(three[i].usable >= size);
                memset(three[i].bytes, mark(i), three[i].usable);
            }
            for (size_t i = 0; i < 3; i++) {
                assert_true(filled_with(&three[i], mark(i)));
                api.free(three[i].bytes);
            }
        }
    }
}

static void checked_build_reports_exactly_what_was_asked(void **state) {
    (void)state;
    api_need(api_build == API_CHECKED);
    for (size_t size = 0; size < 9000000; size += 1 + size / 50) {
        void *block = api.malloc(size);
        assert_int_equal(api.malloc_usable_size(block), size);
        block = api.realloc(block, size + size / 7 + 1);
        assert_int_equal(api.malloc_usable_size(block), size + size / 7 + 1);
        api.free(block);
        block = api.memalign(256, size);
        assert_int_equal(api.malloc_usable_size(block), size);
        api.free(block);
    }
}

static void good_size_is_the_usable_size_that_malloc_gives(void **state) {
    (void)state;
    api_need(hak.version);
    for (size_t size = 0; size < 70000000; size += 1 + size / 40) {
        size_t good = hak.good_size(size);
        void *block = api.malloc(size);
        struct hak_sized_ptr at_least = hak.malloc_at_least(size);
        assert_true(good >= size);
        assert_int_equal(api.malloc_usable_size(block), good);
        assert_int_equal(at_least.size, good);
        assert_int_equal(api.malloc_usable_size(at_least.ptr), good);
        /* A good size is its own. */
        assert_int_equal(hak.good_size(good), good);
        memset(at_least.ptr, 0x42, at_least.size < 100000 ? at_least.size : 100000);
        api.free(block);
        api.free(at_least.ptr);
    }
}

static void every_byte_of_a_block_is_owned_and_nothing_else(void **state) {
    (void)state;
    api_need(hak.version);
    static int global;
    int local;
    for (size_t size = 1; size < 100000000; size = size * 3 + 7) {
        char *block = api.malloc(size);
        assert_non_null(block);
        for (size_t i = 0; i < 64; i++) {
            assert_true(hak.is_owned(block + (size - 1) * i / 63));
        }
        api.free(block);
    }
    static const uintptr_t nowhere[] = {0, 1, 4096, 1ul << 46, 1ul << 47, 1ul << 52, 1ul << 63, UINTPTR_MAX};
    for (size_t i = 0; i < API_COUNT(nowhere); i++) {
        assert_false(hak.is_owned((const void *)nowhere[i]));
    }
    assert_false(hak.is_owned(&global));
    assert_false(hak.is_owned(&local));
    assert_false(hak.is_owned("constant"));
    assert_false(hak.is_owned((const void *)(uintptr_t)every_byte_of_a_block_is_owned_and_nothing_else));
}

/* What a program built with _FORTIFY_SOURCE=3 does: the compiler knows from the attribute how many bytes were asked
 * for, and memset() ends the program if more are written. A program that asks for the good size may write it all. */
__attribute__((noinline, malloc, alloc_size(1))) static void *annotated_malloc(size_t size) { return api.malloc(size); }

static void write_good_sizes(void *unused) {
    (void)unused;
    for (size_t size = 1; size < 5000000; size = size * 5 / 4 + 1) {
        unsigned char *block = annotated_malloc(hak.good_size(size));
        size_t usable = api.malloc_usable_size(block);
        __builtin___memset_chk(block, 0x11, usable, __builtin_dynamic_object_size(block, 0));
        api_child_check(block[usable - 1] == 0x11);
        api.free(block);
    }
}

static void fortified_writes_of_the_good_size_are_accepted(void **state) {
    (void)state;
    api_need(hak.version);
    api_child_succeeds(write_good_sizes, NULL, "fortified writes");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_usable_byte_can_be_written_in_small_blocks),
        cmocka_unit_test(every_usable_byte_can_be_written_in_large_blocks),
        cmocka_unit_test(every_usable_byte_can_be_written_in_aligned_blocks),
        cmocka_unit_test(checked_build_reports_exactly_what_was_asked),
        cmocka_unit_test(good_size_is_the_usable_size_that_malloc_gives),
        cmocka_unit_test(every_byte_of_a_block_is_owned_and_nothing_else),
        cmocka_unit_test(fortified_writes_of_the_good_size_are_accepted),
    };
    api_start();
    return cmocka_run_group_tests_name("usable size", tests, NULL, NULL);
}
