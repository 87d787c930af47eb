/* The adaptive thread cache and the expansion of superslabs as a program sees them: log lines, statistics, addresses.
 * Each piece runs in a process of its own, which reads its options from the environment at its first allocation. */
#include "support/prefixed.h"

#define ROW 80000

static void *take(size_t bytes) {
    void *ptr = hak_malloc(bytes - SLACK);
    must(ptr != NULL);
    return ptr;
}

/* ---- thread cache ----------------------------------------------------------------------------------------------- */

static void allocate_a_row_and_free_it(void *argument) {
    static void *blocks[ROW];
    (void)argument;
    for (unsigned i = 0; i < ROW; i++) blocks[i] = take(64);
    for (unsigned i = 0; i < ROW; i++) hak_free(blocks[i]);
    struct hak_stats stats = stats_now();
    must(stats.tls_grows == 7 && stats.tls_shrinks == 7);
}

static void a_bin_grows_and_shrinks_by_seven_steps(void **state) {
    (void)state;
    succeeds(allocate_a_row_and_free_it);
}

#define THREAD_BUDGET (4 * MIB)

static void use_all_sizes(void *argument) {
    static void *blocks[3000];
    uint64_t most = 0;
    (void)argument;
    for (size_t bytes = 64; bytes <= 32 * KIB; bytes += bytes / 8) {
        unsigned count = bytes <= 4 * KIB ? COUNT(blocks) : COUNT(blocks) / 10;
        for (unsigned i = 0; i < count; i++) blocks[i] = take(bytes);
        for (unsigned i = 0; i < count; i++) {
            hak_free(blocks[i]);
            if (i % 16 != 0) continue;
            struct hak_stats stats = stats_now();
            uint64_t cached = stats.layer[HAK_LAYER_TINY].cached_bytes + stats.layer[HAK_LAYER_MID].cached_bytes;
            must(cached <= THREAD_BUDGET);
            if (cached > most) most = cached;
        }
    }
    must(most > THREAD_BUDGET / 2); /* it is not for want of blocks */
}

static void the_budget_of_a_thread_holds_whatever_it_frees(void **state) {
    (void)state;
    succeeds(use_all_sizes);
}

static void *take_one_of_each(void *refills) {
    uint64_t before = stats_now().tls_refills;
    for (size_t bytes = 16 + EXACT * 16; bytes <= 64; bytes += 16) hak_free(take(bytes));
    *(uint64_t *)refills = stats_now().tls_refills - before;
    return NULL;
}

static void begin_warm(void *argument) {
    uint64_t refills;
    (void)argument;
    run_thread(take_one_of_each, &refills);
    must(refills == 0); /* before the first allocation all four bins got blocks */
}

static void a_thread_begins_with_the_bins_that_are_prewarmed(void **state) {
    (void)state;
    succeeds(begin_warm);
}

/* ---- superslabs ---------------------------------------------------------------------------------------------------
 */

#define BLOCK KIB
#define PER_SLAB 64
#define SLAB (64 * KIB)
#define SLABS 32
#define SUPERSLAB (SLABS * SLAB)
#define MANY_SUPERSLABS 8

static int by_address(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

static void take_far_more_than_32_slabs(void *argument) {
    enum { BLOCKS = MANY_SUPERSLABS * SLABS * PER_SLAB };
    static uintptr_t blocks[BLOCKS];
    (void)argument;
    for (unsigned i = 0; i < BLOCKS; i++) {
        void *ptr = take(BLOCK);
        fill(ptr, 64, i);
        blocks[i] = (uintptr_t)ptr;
    }
    for (unsigned i = 0; i < BLOCKS; i++) must(is_filled((void *)blocks[i], 64, i));
    must(stats_now().superslabs <= MANY_SUPERSLABS + 1);
    qsort(blocks, BLOCKS, sizeof *blocks, by_address);
    unsigned whole = 0, here = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        must(i == 0 || blocks[i] >= blocks[i - 1] + BLOCK);
        here = i == 0 || blocks[i] / SUPERSLAB != blocks[i - 1] / SUPERSLAB ? 1 : here + 1;
        whole += here == SLABS * PER_SLAB; /* every block of every slab */
    }
    must(whole >= MANY_SUPERSLABS - 1);
    for (unsigned i = 0; i < BLOCKS; i++) hak_free((void *)blocks[i]);
}

static void one_class_goes_far_beyond_32_slabs_and_each_superslab_gives_all_of_its_own(void **state) {
    (void)state;
    succeeds(take_far_more_than_32_slabs);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bin_grows_and_shrinks_by_seven_steps),
        cmocka_unit_test(the_budget_of_a_thread_holds_whatever_it_frees),
        cmocka_unit_test(a_thread_begins_with_the_bins_that_are_prewarmed),
        cmocka_unit_test(one_class_goes_far_beyond_32_slabs_and_each_superslab_gives_all_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
