/* Pages: aligned mappings, and the ranges that munmap refused: purged, merged with their neighbours, served again. */
#include "support/stores.h"

#include <stdlib.h>

#include "base/annotate.h"
#include "pages/pages.h"

#define G HAK_GRANULE

static int no_faults(void **state) {
    (void)state;
    set_faults(0, false, -1);
    return 0;
}

/* A mapping of `granules`, fresh from the system, of which parts can be given back where munmap is refused. */
static char *arena_of(size_t granules) {
    bool zero = false;
    char *base = hak_pages_map(granules * G, G, &zero);
    assert_non_null(base);
    assert_true(zero);
    memset(base, 0xee, granules * G);
    return base;
}

static void give_refused(char *ptr, size_t granules) {
    set_faults(1, true, HAK_SYS_UNMAP);
    hak_pages_unmap(ptr, granules * G);
    set_faults(0, false, -1);
}

static uint64_t retained(void) { return hak_pages_stats().retained_bytes; }

/* Takes a retained range for good. */
static char *take(size_t granules, size_t align) {
    bool zero = true;
    uint64_t before = retained();
    char *ptr = hak_pages_map(granules * G, align, &zero);
    assert_non_null(ptr);
    assert_int_equal(retained(), before - granules * G);
    assert_true(zero);
    assert_true(is_zero(ptr, granules * G));
    return ptr;
}

static void mappings_are_aligned_zero_and_counted(void **state) {
    (void)state;
    for (size_t align = G; align <= 64 * HAK_MIB; align *= 4)
        for (size_t granules = 1; granules < 200; granules = granules * 5 + 1) {
            struct hak_pages_stats before = hak_pages_stats();
            bool zero = false;
            char *ptr = hak_pages_map(granules * G, align, &zero);
            assert_non_null(ptr);
            assert_int_equal((uintptr_t)ptr % align, 0);
            assert_true(zero && is_zero(ptr, granules * G));
            memset(ptr, 1, granules * G);
            assert_int_equal(hak_pages_stats().mappings, before.mappings + 1);
            assert_int_equal(hak_pages_stats().mapped_bytes, before.mapped_bytes + granules * G);
            hak_pages_unmap(ptr, granules * G);
            assert_int_equal(hak_pages_stats().mappings, before.mappings);
            assert_int_equal(hak_pages_stats().mapped_bytes, before.mapped_bytes);
            assert_int_equal(hak_pages_stats().retained_bytes, 0);
        }
}

static void impossible_requests_are_refused(void **state) {
    (void)state;
    assert_null(hak_pages_map(HAK_SIZE_MAX / G * G, G, NULL));
    assert_null(hak_pages_map((size_t)1 << 62, (size_t)1 << 62, NULL));
    set_faults(1, true, HAK_SYS_MAP);
    assert_null(hak_pages_map(G, G, NULL));
    set_faults(2, true, HAK_SYS_MAP);
    void *first = hak_pages_map(G, 64 * HAK_MIB, NULL); /* by chance the first try may be aligned */
    if (first != NULL) hak_pages_unmap(first, G);
}

static void a_range_that_munmap_refused_is_served_again_as_zero(void **state) {
    (void)state;
    char *base = arena_of(8);
    give_refused(base, 8);
    assert_int_equal(retained(), 8 * G);
    assert_ptr_equal(take(8, G), base);
    assert_int_equal(retained(), 0);
    hak_pages_unmap(base, 8 * G);
}

static void a_range_that_could_not_be_purged_is_not_called_zero(void **state) {
    (void)state;
    char *base = arena_of(4);
    set_faults(1, true, -1); /* neither munmap nor madvise */
    hak_pages_unmap(base, 4 * G);
    set_faults(0, false, -1);
    bool zero = true;
    assert_int_equal(retained(), 4 * G);
    assert_ptr_equal(hak_pages_map(4 * G, G, &zero), base);
    assert_false(zero);
    assert_int_equal(base[0], (char)0xee);
    hak_pages_unmap(base, 4 * G);
    assert_int_equal(retained(), 0);
}

/* Every order in which three neighbours can come back. */
static void neighbours_are_merged_in_whatever_order_they_come(void **state) {
    (void)state;
    static const unsigned orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (unsigned i = 0; i < 6; i++) {
        char *base = arena_of(6);
        for (unsigned j = 0; j < 3; j++) give_refused(base + orders[i][j] * 2 * G, 2);
        assert_int_equal(retained(), 6 * G);
        assert_ptr_equal(take(6, G), base); /* only one range is that long */
        hak_pages_unmap(base, 6 * G);
        assert_int_equal(retained(), 0);
    }
}

static void merged_ranges_are_zero_only_if_both_were(void **state) {
    (void)state;
    char *base = arena_of(2);
    give_refused(base, 1);
    set_faults(1, true, -1);
    hak_pages_unmap(base + G, G);
    set_faults(0, false, -1);
    bool zero = true;
    assert_ptr_equal(hak_pages_map(2 * G, G, &zero), base);
    assert_false(zero);
    assert_true(is_zero(base, G));
    hak_pages_unmap(base, 2 * G);
}

static void the_smallest_range_that_fits_is_taken(void **state) {
    (void)state;
    char *base = arena_of(20); /* ranges of 8, 3 and 5 granules, with a used one behind each */
    give_refused(base, 8);
    give_refused(base + 9 * G, 3);
    give_refused(base + 13 * G, 5);
    assert_ptr_equal(take(4, G), base + 13 * G);
    assert_ptr_equal(take(3, G), base + 9 * G);
    assert_ptr_equal(take(1, G), base + 17 * G); /* the rest of the second one */
    assert_ptr_equal(take(2, G), base);
    assert_ptr_equal(take(6, G), base + 2 * G);
    assert_int_equal(retained(), 0);
    hak_pages_unmap(base, 20 * G);
}

static void an_aligned_piece_is_cut_out_and_the_ends_remain(void **state) {
    (void)state;
    char *base = hak_pages_map(64 * G, 32 * G, NULL);
    assert_non_null(base);
    give_refused(base + G, 62);
    char *middle = take(4, 16 * G);
    assert_ptr_equal(middle, base + 16 * G);
    assert_int_equal(retained(), 58 * G);
    assert_ptr_equal(take(15, G), base + G);      /* the head */
    assert_ptr_equal(take(43, G), base + 20 * G); /* the tail */
    assert_int_equal(retained(), 0);
    hak_pages_unmap(base, 64 * G);
}

static void what_fits_nowhere_is_mapped_fresh(void **state) {
    (void)state;
    char *base = arena_of(4);
    give_refused(base, 3);
    char *other = hak_pages_map(5 * G, G, NULL);
    assert_true(other != NULL && (other + 5 * G <= base || other >= base + 4 * G));
    assert_int_equal(retained(), 3 * G);
    hak_pages_unmap(other, 5 * G);
    assert_ptr_equal(take(3, G), base);
    hak_pages_unmap(base, 4 * G);
}

static void a_purge_says_whether_the_memory_is_zero(void **state) {
    (void)state;
    char *base = arena_of(2);
    set_faults(1, false, HAK_SYS_PURGE);
    assert_false(hak_pages_purge(base, 2 * G));
    assert_int_equal(base[0], (char)0xee);
    set_faults(0, false, -1);
    assert_true(hak_pages_purge(base, 2 * G));
    assert_true(is_zero(base, 2 * G));
    hak_pages_unmap(base, 2 * G);
}

/* Random unmapping and mapping of pieces of one range, where munmap never works: no granule is ever lost or given to
 * two, and when all came back they are one range again. */
static void refused_pieces_of_a_range_become_that_range_again(void **state) {
    (void)state;
    enum { GRANULES = 256, PIECES = 40 };
    struct piece {
        char *ptr;
        size_t granules;
    } pieces[PIECES] = {{.ptr = NULL}};
    char *base = arena_of(GRANULES);
    uint64_t random = 3;
    give_refused(base, GRANULES);
    set_faults(1, true, HAK_SYS_UNMAP);
    for (unsigned i = 0; i < 5000; i++) {
        struct piece *p = &pieces[next_random(&random) % PIECES];
        if (p->ptr != NULL) {
            assert_true(is_stamped(p->ptr) && is_stamped(p->ptr + p->granules * G - G));
            hak_pages_unmap(p->ptr, p->granules * G);
            p->ptr = NULL;
            continue;
        }
        size_t granules = 1 + next_random(&random) % 8, align = G << next_random(&random) % 4;
        uint64_t before = retained();
        char *ptr = hak_pages_map(granules * G, align, NULL);
        assert_non_null(ptr);
        assert_int_equal((uintptr_t)ptr % align, 0);
        if (retained() != before - granules * G) { /* it was fragmented, and more was mapped: this range is no part */
            set_faults(0, false, -1);
            hak_pages_unmap(ptr, granules * G);
            set_faults(1, true, HAK_SYS_UNMAP);
            continue;
        }
        *p = (struct piece){.ptr = ptr, .granules = granules};
        for (size_t g = 0; g < granules; g++) stamp(ptr + g * G);
    }
    for (unsigned i = 0; i < PIECES; i++)
        if (pieces[i].ptr != NULL) hak_pages_unmap(pieces[i].ptr, pieces[i].granules * G);
    set_faults(0, false, -1);
    assert_ptr_equal(take(GRANULES, G), base);
    hak_pages_unmap(base, GRANULES * G);
}

/* ASan's own munmap is not called: what it was told of a range would be held against whoever maps it next. */
static void what_goes_back_is_open_to_whoever_maps_it_next(void **state) {
    (void)state;
    if (!HAK_ASAN) return; /* there is nothing to be told */
    char *ptr = hak_pages_map(G, G, NULL);
    assert_non_null(ptr);
    hak_annotate_close(ptr, G);
    assert_false(HAK_ASAN_IS_OPEN(ptr) || HAK_ASAN_IS_OPEN(ptr + G - 1));
    hak_pages_unmap(ptr, G);
    assert_true(HAK_ASAN_IS_OPEN(ptr) && HAK_ASAN_IS_OPEN(ptr + G - 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mappings_are_aligned_zero_and_counted),
        cmocka_unit_test_teardown(impossible_requests_are_refused, no_faults),
        cmocka_unit_test_teardown(a_range_that_munmap_refused_is_served_again_as_zero, no_faults),
        cmocka_unit_test_teardown(a_range_that_could_not_be_purged_is_not_called_zero, no_faults),
        cmocka_unit_test_teardown(neighbours_are_merged_in_whatever_order_they_come, no_faults),
        cmocka_unit_test_teardown(merged_ranges_are_zero_only_if_both_were, no_faults),
        cmocka_unit_test_teardown(the_smallest_range_that_fits_is_taken, no_faults),
        cmocka_unit_test_teardown(an_aligned_piece_is_cut_out_and_the_ends_remain, no_faults),
        cmocka_unit_test_teardown(what_fits_nowhere_is_mapped_fresh, no_faults),
        cmocka_unit_test_teardown(a_purge_says_whether_the_memory_is_zero, no_faults),
        cmocka_unit_test(what_goes_back_is_open_to_whoever_maps_it_next),
        cmocka_unit_test_teardown(refused_pieces_of_a_range_become_that_range_again, no_faults),
    };
    alarm(300);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
