/* Size classes: every size, every alignment, and the arithmetic by which a slab knows its blocks. */
#include "base/size_class.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "stores/slab.h"

/* The classes as the documentation has them, written down by another rule than the code's. */
static size_t expected_bytes[HAK_CLASS_COUNT];

static int write_classes_down(void **state) {
    (void)state;
    unsigned c = 0;
    for (size_t bytes = 16; bytes <= 128; bytes += 16) expected_bytes[c++] = bytes;
    for (size_t power = 128; power < 32768; power *= 2)
        for (size_t quarter = 1; quarter <= 4; quarter++) expected_bytes[c++] = power + quarter * power / 4;
    return c == HAK_CLASS_COUNT ? 0 : -1;
}

static void each_class_has_the_bytes_that_are_documented(void **state) {
    (void)state;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) assert_int_equal(hak_class_bytes(c), expected_bytes[c]);
    assert_int_equal(hak_class_bytes(HAK_TINY_CLASSES - 1), HAK_TINY_MAX);
    assert_int_equal(hak_class_bytes(HAK_CLASS_COUNT - 1), HAK_MID_MAX);
}

static void each_size_goes_to_the_smallest_class_that_holds_it(void **state) {
    (void)state;
    unsigned c = 0;
    for (size_t size = 0; size <= HAK_MID_MAX; size++) {
        while (expected_bytes[c] < size) c++;
        assert_int_equal(hak_class_of(size), c);
    }
}

static void each_alignment_gets_the_smallest_class_whose_blocks_all_have_it(void **state) {
    (void)state;
    for (size_t align = 16; align <= HAK_MID_MAX; align *= 2)
        for (size_t size = 0; size <= HAK_MID_MAX; size += size < 2048 ? 1 : 7) {
            unsigned c = 0;
            while (c < HAK_CLASS_COUNT && (expected_bytes[c] < size || expected_bytes[c] % align != 0)) c++;
            assert_int_equal(hak_class_of_aligned(size, align), c);
        }
    assert_int_equal(hak_class_of_aligned(HAK_MID_MAX + 1, 16), HAK_NO_CLASS);
}

static void a_span_wastes_little_at_its_end(void **state) {
    (void)state;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
        unsigned slabs = hak_class_slabs(c);
        assert_true(slabs == 1 || slabs == 2 || slabs == 4 || slabs == 8);
        size_t span = slabs * HAK_SLAB_BYTES, waste = span % hak_class_bytes(c);
        if (c >= HAK_TINY_CLASSES) assert_true(waste * 100 < 3 * span);
        else assert_true(waste < hak_class_bytes(c) && waste * 100 < 2 * span);
        assert_true(span / hak_class_bytes(c) >= 8);
    }
}

static void a_slab_numbers_exactly_the_starts_of_its_blocks(void **state) {
    (void)state;
    static int owner;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
        struct hak_slab *slab = hak_slab_take(c, &owner, 4711, false);
        assert_non_null(slab);
        uint32_t bytes = (uint32_t)expected_bytes[c], span = hak_class_slabs(c) * (uint32_t)HAK_SLAB_BYTES;
        assert_int_equal(slab->blocks, span / bytes);
        for (uint32_t offset = 0; offset < span; offset++) {
            bool start = offset % bytes == 0 && offset / bytes < slab->blocks;
            if (hak_slab_index(slab, slab->base + offset) != (start ? offset / bytes : HAK_NO_BLOCK))
                fail_msg("class of %u bytes, offset %u", bytes, offset);
        }
        hak_slab_give(slab);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_class_has_the_bytes_that_are_documented),
        cmocka_unit_test(each_size_goes_to_the_smallest_class_that_holds_it),
        cmocka_unit_test(each_alignment_gets_the_smallest_class_whose_blocks_all_have_it),
        cmocka_unit_test(a_span_wastes_little_at_its_end),
        cmocka_unit_test(a_slab_numbers_exactly_the_starts_of_its_blocks),
    };
    return cmocka_run_group_tests(tests, write_classes_down, NULL);
}
