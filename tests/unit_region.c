/* The region map: any 64-bit value may be looked up; what lies beyond the map is refused; and the whole allocator on
 * systems with larger pages. */
#include "support/scenario.h"

#include "pages/region.h"

static const void *at(uint64_t address) { return (const void *)(uintptr_t)address; }

static void is_not_ours(const void *ptr) {
    struct hak_region region = hak_region_lookup(ptr);
    assert_int_equal(region.owner, 0);
    assert_int_equal(region.kind, HAK_KIND_NONE);
    assert_null(region.descriptor);
    assert_int_equal(hak_is_owned(ptr), 0);
}

static void any_value_can_be_looked_up(void **state) {
    (void)state;
    uint64_t random = 1;
    for (unsigned bit = 0; bit < 64; bit++)
        for (int64_t near = -2; near <= 2; near++) is_not_ours(at(((uint64_t)1 << bit) + (uint64_t)near));
    for (unsigned i = 0; i < 100000; i++) is_not_ours(at(next_random(&random) >> i % 64));
    is_not_ours(NULL);
    is_not_ours(at(UINT64_MAX));
}

#define MAP_END ((uint64_t)1 << HAK_ADDRESS_BITS)

static void what_lies_beyond_the_map_is_refused(void **state) {
    (void)state;
    static const unsigned widths[] = {48, 49, 52, 55, 56, 57, 63};
    uint64_t mappings = hak_pages_stats().mappings;
    for (size_t i = 0; i < COUNT(widths); i++) {
        uint64_t address = (uint64_t)1 << widths[i];
        assert_false(hak_region_reserve(at(address), HAK_GRANULE));
        assert_false(hak_region_reserve(at(address + HAK_SUPERSLAB_BYTES), HAK_SUPERSLAB_BYTES));
    }
    assert_false(hak_region_reserve(at(MAP_END - HAK_GRANULE), 2 * HAK_GRANULE)); /* begins inside, ends outside */
    assert_false(hak_region_reserve(at(UINT64_MAX - HAK_GRANULE + 1), 2 * HAK_GRANULE)); /* wraps around */
    assert_int_equal(hak_pages_stats().mappings, mappings);                              /* nothing was mapped for it */
}

static void set_and_look_up(uint64_t address, size_t granules) {
    static int things[8];
    assert_true(hak_region_reserve(at(address), granules * HAK_GRANULE));
    for (size_t i = 0; i < granules; i++)
        hak_region_set(at(address + i * HAK_GRANULE), HAK_GRANULE, (uint32_t)(0xfffffff0 + i % 8), (uint32_t)(i % 80),
                       &things[i % 8]);
    for (size_t i = 0; i < granules; i++)
        for (unsigned end = 0; end < 2; end++) { /* first and last byte of the granule */
            struct hak_region region = hak_region_lookup(at(address + i * HAK_GRANULE + end * (HAK_GRANULE - 1)));
            assert_int_equal(region.owner, (uint32_t)(0xfffffff0 + i % 8));
            assert_int_equal(region.kind, i % 80);
            assert_ptr_equal(region.descriptor, &things[i % 8]);
        }
    is_not_ours(at(address - 1));
    is_not_ours(at(address + granules * HAK_GRANULE));
    hak_region_clear(at(address), granules * HAK_GRANULE);
    for (size_t i = 0; i < granules; i++) is_not_ours(at(address + i * HAK_GRANULE));
}

static void ranges_are_found_anywhere_in_the_map(void **state) {
    (void)state;
    const uint64_t window = (uint64_t)1 << HAK_WINDOW_SHIFT;
    set_and_look_up((uint64_t)1 << 20, 5);
    set_and_look_up(3 * window - 40 * HAK_GRANULE, 80);    /* over the edge of a window */
    set_and_look_up(((uint64_t)1 << 39) - HAK_GRANULE, 3); /* where other systems' address spaces end */
    set_and_look_up(((uint64_t)1 << 47) - 3 * HAK_GRANULE, 6);
    set_and_look_up(MAP_END - 4 * HAK_GRANULE, 4);
    set_and_look_up(7 * window, 3000); /* clearing gives whole pages of the map back */
}

static void a_part_of_a_range_can_be_cleared(void **state) {
    (void)state;
    static int thing;
    const uint64_t base = 9 * ((uint64_t)1 << HAK_WINDOW_SHIFT);
    enum { GRANULES = 4000 };
    assert_true(hak_region_reserve(at(base), GRANULES * HAK_GRANULE));
    for (unsigned first = 0; first < GRANULES; first += 501)
        for (unsigned count = 1; first + count < GRANULES; count += 733) {
            hak_region_set(at(base), GRANULES * HAK_GRANULE, 5, HAK_KIND_BIG, &thing);
            hak_region_clear(at(base + first * HAK_GRANULE), count * HAK_GRANULE);
            for (unsigned i = 0; i < GRANULES; i++) {
                bool cleared = i >= first && i < first + count;
                struct hak_region region = hak_region_lookup(at(base + i * HAK_GRANULE));
                if (region.owner != (cleared ? 0 : 5) || region.kind != (cleared ? 0 : HAK_KIND_BIG) ||
                    region.descriptor != (cleared ? NULL : &thing))
                    fail_msg("cleared %u from %u: granule %u is wrong", count, first, i);
            }
        }
    hak_region_clear(at(base), GRANULES * HAK_GRANULE);
}

static pthread_barrier_t all_map;
static _Thread_local unsigned mapped_for, wanted;

/* Every thread has seen that there is no leaf, and is about to map one, before any of them does. */
static int wait_for_all(enum hak_sys_call call, size_t bytes) {
    if (call == HAK_SYS_MAP && bytes >= sizeof(struct hak_region_leaf) && mapped_for != wanted) {
        mapped_for = wanted;
        pthread_barrier_wait(&all_map);
    }
    return 0;
}

static void *reserve_them_all(void *argument) {
    for (wanted = 100; wanted < 120; wanted++) {
        must(hak_region_reserve(at((uint64_t)wanted << HAK_WINDOW_SHIFT), HAK_GRANULE));
        pthread_barrier_wait(&all_map);
    }
    return argument;
}

static void threads_that_want_the_same_window_share_it(void **state) {
    (void)state;
    pthread_t thread[4];
    uint64_t before = hak_pages_stats().mappings;
    must(pthread_barrier_init(&all_map, NULL, 4) == 0);
    hak_sys_set_fault_for_test(wait_for_all);
    for (unsigned i = 0; i < 4; i++) start_thread(&thread[i], reserve_them_all, NULL);
    for (unsigned i = 0; i < 4; i++) must(pthread_join(thread[i], NULL) == 0);
    hak_sys_set_fault_for_test(NULL);
    assert_int_equal(hak_pages_stats().mappings, before + 20);
}

/* ---- pages --------------------------------------------------------------------------------------------------- */

static size_t page_bytes;

static int only_whole_pages(enum hak_sys_call call, size_t bytes) {
    (void)call;
    must(bytes % page_bytes == 0);
    return 0;
}

static void run_with_large_pages(void *argument) {
    static struct scenario scenario;
    (void)argument;
    hak_sys_set_page_bytes_for_test(page_bytes);
    hak_sys_set_fault_for_test(only_whole_pages);
    must(hak_sys_page_bytes() == page_bytes);
    for (unsigned i = 0; i < 2; i++) {
        scenario_run(&scenario);
        must(scenario.refused == 0);
        scenario_nothing_left(&scenario);
    }
    for (size_t bytes = 1; bytes < 300000; bytes = bytes * 3 + 1) {
        char *v = hak_valloc(bytes), *p = hak_pvalloc(bytes);
        must(v != NULL && is_aligned(v, page_bytes) && p != NULL && is_aligned(p, page_bytes));
        must(hak_malloc_usable_size(p) >= (bytes + page_bytes - 1) / page_bytes * page_bytes);
        hak_free(v);
        hak_free(p);
    }
}

static void larger_pages_are_served_in_whole_pages(void **state) {
    (void)state;
    static const size_t sizes[] = {4 * KIB, 16 * KIB, 64 * KIB};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        page_bytes = sizes[i];
        assert_int_equal(run_forked(run_with_large_pages, NULL), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(larger_pages_are_served_in_whole_pages), /* first: nothing may have been mapped before */
        cmocka_unit_test(any_value_can_be_looked_up),
        cmocka_unit_test(what_lies_beyond_the_map_is_refused),
        cmocka_unit_test(ranges_are_found_anywhere_in_the_map),
        cmocka_unit_test(a_part_of_a_range_can_be_cleared),
        cmocka_unit_test(threads_that_want_the_same_window_share_it),
    };
    alarm(HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
