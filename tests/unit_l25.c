/* The L2.5 pool: runs of slices, what frees and resizes say, giving back, failing system calls, fork. */
#include "support/stores.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "pages/pages.h"
#include "stores/l25.h"
#include "stores/l25_table.h"

#define SLICE HAK_SLICE_BYTES
#define CHUNK HAK_CHUNK_BYTES

static int fresh_pool(void **state) {
    (void)state;
    hak_sys_set_now_for_test(100000);
    set_option(L25_SHARDS_MIN, 64);
    set_option(L25_SHARDS_MAX, 1024);
    set_option(L25_LOAD, 1000);
    set_option(L25_CHECK_MS, 1000);
    set_option(RETAIN_BYTES, 8 * HAK_MIB);
    set_option(RETAIN_PERCENT, 12);
    set_option(PURGE_DELAY_MS, 500);
    set_option(UNMAP_DELAY_MS, 5000);
    return 0;
}

/* Everything was freed: then all of it can go, and nothing is left. */
static int drained_pool(void **state) {
    (void)state;
    hak_l25_purge_all();
    struct hak_l25_stats stats = hak_l25_stats();
    bool empty = hak_l25_check() && stats.mapped_bytes == 0 && stats.live_bytes == 0 && stats.live_blocks == 0;
    hak_l25_reset_for_test();
    return empty ? 0 : -1;
}

static char *take(size_t bytes, uint32_t lane) {
    struct hak_block block = hak_l25_alloc(bytes, 16, lane);
    assert_non_null(block.ptr);
    return block.ptr;
}

static enum hak_free_result give(void *ptr) { return hak_l25_free(descriptor_of(ptr), ptr); }

static void blocks_are_whole_slices_zero_when_fresh_and_known_to_the_region_map(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 32769, SLICE, SLICE + 1, 600 * 1024, HAK_L25_MAX - 1, HAK_L25_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct hak_block block = hak_l25_alloc(sizes[i], 16, 0);
        assert_non_null(block.ptr);
        assert_int_equal(block.bytes, hak_round_up(sizes[i], SLICE));
        assert_true(block.zero);
        assert_true(is_zero(block.ptr, block.bytes));
        assert_int_equal((uintptr_t)block.ptr % SLICE, 0);
        for (size_t at = 0; at < block.bytes; at += SLICE) {
            struct hak_region region = hak_region_lookup((char *)block.ptr + at);
            assert_int_equal(region.kind, HAK_KIND_L25);
            assert_int_equal(region.owner, 0);
            assert_ptr_equal(region.descriptor, descriptor_of(block.ptr));
        }
        assert_int_equal(hak_l25_usable(descriptor_of(block.ptr), block.ptr), block.bytes);
        assert_int_equal(give(block.ptr), HAK_FREE_OK);
        hak_l25_purge_all(); /* or the next would not be fresh */
        assert_int_equal(hak_region_lookup(block.ptr).kind, 0);
    }
}

static void sizes_and_alignments_beyond_the_layer_are_refused(void **state) {
    (void)state;
    assert_null(hak_l25_alloc(HAK_L25_MAX + 1, 16, 0).ptr);
    assert_null(hak_l25_alloc(1, 2 * HAK_L25_MAX, 0).ptr);
    assert_null(hak_l25_alloc(SIZE_MAX, 16, 0).ptr);
}

static void every_size_comes_at_every_alignment(void **state) {
    (void)state;
    void *blocks[2][16 * 5];
    for (unsigned round = 0; round < 2; round++) {
        unsigned count = 0;
        for (size_t slices = 1; slices <= 16; slices++) {
            for (size_t align = SLICE; align <= HAK_L25_MAX; align *= 2) {
                struct hak_block block = hak_l25_alloc(slices * SLICE, align, 3);
                assert_non_null(block.ptr);
                assert_int_equal((uintptr_t)block.ptr % align, 0);
                mark(block.ptr, block.bytes, (uintptr_t)block.ptr);
                blocks[round][count++] = block.ptr;
            }
        }
        assert_true(hak_l25_check());
    }
    for (unsigned i = 0; i < 2 * 16 * 5; i++) {
        char *ptr = blocks[i % 2][i / 2];
        assert_true(is_marked(ptr, hak_l25_usable(descriptor_of(ptr), ptr), (uintptr_t)ptr));
        assert_int_equal(give(ptr), HAK_FREE_OK);
    }
}

static void a_used_run_is_not_believed_zero_until_its_purge_succeeded(void **state) {
    (void)state;
    char *anchor = take(SLICE, 0), *used = take(4 * SLICE, 0);
    mark(used, 4 * SLICE, 1);
    give(used);
    struct hak_block again = hak_l25_alloc(4 * SLICE, 16, 0);
    assert_ptr_equal(again.ptr, used);
    assert_false(again.zero);
    give(used);

    set_faults(1, true, HAK_SYS_PURGE);
    assert_int_equal(hak_l25_purge_all(), 0);
    set_faults(0, false, -1);
    again = hak_l25_alloc(4 * SLICE, 16, 0);
    assert_false(again.zero);
    assert_true(is_marked(again.ptr, again.bytes, 1));
    give(again.ptr);

    assert_int_equal(hak_l25_purge_all(), 4 * SLICE);
    again = hak_l25_alloc(4 * SLICE, 16, 0);
    assert_ptr_equal(again.ptr, used);
    assert_true(again.zero);
    assert_true(is_zero(again.ptr, again.bytes));
    give(again.ptr);
    give(anchor);
}

static void neighbours_merge_and_the_tightest_chunk_serves(void **state) {
    (void)state;
    char *first[64], *second[64];
    for (unsigned i = 0; i < 64; i++) first[i] = take(SLICE, 0);
    for (unsigned i = 0; i < 64; i++) second[i] = take(SLICE, 0);
    assert_int_equal(hak_l25_stats().mapped_bytes, 2 * CHUNK);
    for (unsigned i = 8; i < 24; i++) give(second[i]); /* 16 slices free there, 3 here */
    for (unsigned i = 30; i < 33; i++) give(first[i]);
    char *three = take(3 * SLICE, 0), *sixteen = take(16 * SLICE, 0);
    assert_ptr_equal(three, first[30]);
    assert_ptr_equal(sixteen, second[8]);
    assert_int_equal(hak_l25_stats().mapped_bytes, 2 * CHUNK);
    give(three);
    give(sixteen);
    for (unsigned i = 0; i < 64; i++) {
        if (i < 30 || i >= 33) give(first[i]);
        if (i < 8 || i >= 24) give(second[i]);
    }
}

static void each_wrong_free_is_named_and_changes_nothing(void **state) {
    (void)state;
    char *block = take(4 * SLICE, 0), *other = take(SLICE, 0);
    void *chunk = descriptor_of(block);
    static const size_t inside[] = {1, 16, SLICE - 1, SLICE, 3 * SLICE, 4 * SLICE - 1};
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
        assert_int_equal(hak_l25_free(chunk, block + inside[i]), HAK_FREE_NOT_START);
        assert_int_equal(hak_l25_usable(chunk, block + inside[i]), 0);
    }
    assert_int_equal(hak_l25_free(chunk, other + SLICE), HAK_FREE_IN_FREE);
    assert_int_equal(hak_l25_free(chunk, block), HAK_FREE_OK);
    assert_int_equal(hak_l25_free(chunk, block), HAK_FREE_DOUBLE);
    assert_int_equal(hak_l25_free(chunk, block + 16), HAK_FREE_IN_FREE);
    assert_int_equal(hak_l25_free(chunk, block + SLICE), HAK_FREE_IN_FREE);
    hak_l25_purge_all();
    assert_int_equal(hak_l25_free(chunk, block), HAK_FREE_DOUBLE); /* also after its memory was given back */
    assert_int_equal(hak_l25_usable(chunk, block), 0);
    char *again = take(8 * SLICE, 0);
    assert_true(hak_l25_check());
    give(again);
    give(other);
    hak_l25_purge_all();
    assert_int_equal(hak_l25_stats().mapped_bytes, 0);
    assert_int_equal(hak_l25_free(chunk, block), HAK_FREE_DOUBLE); /* a stale descriptor: its chunk has gone */
}

static void a_block_is_resized_where_it_is_as_far_as_its_neighbours_allow(void **state) {
    (void)state;
    size_t usable = 0;
    char *block = take(2 * SLICE, 0), *next = take(SLICE, 0);
    void *chunk = descriptor_of(block);
    assert_false(hak_l25_resize(chunk, block, 2 * SLICE + 1, &usable));
    assert_int_equal(hak_l25_usable(chunk, block), 2 * SLICE);
    give(next);
    assert_true(hak_l25_resize(chunk, block, 5 * SLICE - 7, &usable));
    assert_int_equal(usable, 5 * SLICE);
    assert_int_equal(hak_l25_usable(chunk, block), 5 * SLICE);
    assert_false(hak_l25_resize(chunk, block, HAK_L25_MAX + 1, &usable));
    mark(block, 5 * SLICE, 9);
    assert_true(hak_l25_resize(chunk, block, SLICE, &usable));
    assert_int_equal(usable, SLICE);
    assert_true(is_marked(block, SLICE, 9));
    assert_int_equal(hak_l25_free(chunk, block + SLICE), HAK_FREE_IN_FREE);
    struct hak_block tail = hak_l25_alloc(4 * SLICE, 16, 0);
    assert_ptr_equal(tail.ptr, block + SLICE);
    assert_false(tail.zero);
    assert_int_equal(hak_l25_stats().live_bytes, 5 * SLICE);
    assert_true(hak_l25_check());
    give(tail.ptr);
    give(block);
    assert_false(hak_l25_resize(chunk, block, 2 * SLICE, &usable)); /* not a live block */
}

static void many_lanes_share_few_chunks(void **state) {
    (void)state;
    char *blocks[64];
    for (uint32_t lane = 0; lane < 64; lane++) blocks[lane] = take(SLICE, lane);
    assert_int_equal(hak_l25_stats().mapped_bytes, CHUNK);
    for (uint32_t lane = 0; lane < 64; lane++) give(blocks[lane]);
}

/* What a shard owes to the sums is not seen: at most 16 slices either way. */
static void dirty_memory_stays_within_the_larger_of_two_budgets(void **state) {
    (void)state;
    enum { BLOCKS = 256 };
    static char *blocks[BLOCKS];
    const size_t owed = 16 * SLICE;
    for (unsigned i = 0; i < BLOCKS; i++) blocks[i] = take(HAK_MIB, 0);
    for (unsigned i = 0; i < 40; i++) give(blocks[i]); /* 216 MiB live: 12 % are 25 MiB */
    struct hak_l25_stats stats = hak_l25_stats();
    assert_in_range(stats.dirty_bytes, 216 * HAK_MIB * 12 / 100 - 4 * HAK_MIB, 216 * HAK_MIB * 12 / 100 + owed);
    for (unsigned i = 40; i < BLOCKS; i++) give(blocks[i]);
    stats = hak_l25_stats();
    assert_in_range(stats.dirty_bytes, 4 * HAK_MIB, 8 * HAK_MIB + owed);
    assert_int_equal(stats.purged_bytes + stats.dirty_bytes, BLOCKS * HAK_MIB);
    assert_true(hak_l25_check());
}

static void a_purge_that_fails_over_budget_is_survived(void **state) {
    (void)state;
    char *blocks[32];
    set_option(RETAIN_BYTES, 0);
    for (unsigned i = 0; i < 32; i++) blocks[i] = take(HAK_MIB, i);
    set_faults(1, true, HAK_SYS_PURGE);
    for (unsigned i = 0; i < 32; i++) assert_int_equal(give(blocks[i]), HAK_FREE_OK);
    assert_in_range(fault_calls, 1, 64); /* who is refused does not ask for every other chunk as well */
    set_faults(0, false, -1);
    assert_int_equal(hak_l25_stats().dirty_bytes, 32 * HAK_MIB);
    assert_int_equal(hak_l25_stats().purged_bytes, 0);
    assert_true(hak_l25_check());
}

static void free_memory_is_purged_and_unmapped_at_its_age(void **state) {
    (void)state;
    hak_sys_set_now_for_test(200000);
    char *block = take(8 * SLICE, 0), *other = take(SLICE, 0);
    give(block);
    hak_l25_decay(200499);
    assert_int_equal(hak_l25_stats().dirty_bytes, 8 * SLICE);
    hak_l25_decay(200500);
    assert_int_equal(hak_l25_stats().dirty_bytes, 0);
    assert_int_equal(hak_l25_stats().purged_bytes, 8 * SLICE);
    give(other); /* as of the clock that decay set */
    hak_l25_decay(201000);
    assert_int_equal(hak_l25_stats().dirty_bytes, 0);
    hak_l25_decay(205499);
    assert_int_equal(hak_l25_stats().mapped_bytes, CHUNK);
    hak_l25_decay(205500);
    assert_int_equal(hak_l25_stats().mapped_bytes, 0);
    assert_int_equal(hak_region_lookup(block).kind, 0);
    assert_int_equal(hak_l25_stats().purged_bytes, 9 * SLICE + CHUNK);
}

/* ---- failing system calls ---- */

static unsigned scenario(void) {
    char *blocks[24];
    unsigned refused = 0;
    for (unsigned i = 0; i < 24; i++) {
        struct hak_block block = hak_l25_alloc((i % 16 + 1) * SLICE, SLICE << i % 5, i * 7);
        blocks[i] = block.ptr;
        refused += block.ptr == NULL;
        if (block.ptr != NULL) mark(block.ptr, block.bytes, i);
    }
    assert_true(hak_l25_check());
    hak_l25_purge_all();
    for (unsigned i = 0; i < 24; i++) {
        if (blocks[i] == NULL) continue;
        assert_true(is_marked(blocks[i], (i % 16 + 1) * SLICE, i));
        assert_int_equal(give(blocks[i]), HAK_FREE_OK);
    }
    hak_l25_purge_all();
    return refused;
}

static void any_call_may_fail_once_or_from_then_on(void **state) {
    (void)state;
    for (unsigned lasts = 0; lasts < 2; lasts++) {
        unsigned at = 0, refused = 0;
        do {
            set_faults(++at, lasts, -1);
            refused += scenario();
            unsigned calls = fault_calls;
            set_faults(0, false, -1);
            assert_true(hak_l25_check());
            assert_int_equal(hak_l25_stats().live_blocks, 0);
            assert_int_equal(scenario(), 0); /* a retry works */
            assert_int_equal(hak_l25_stats().mapped_bytes, 0);
            hak_l25_reset_for_test();
            if (calls < at) break;
        } while (at < 1000);
        assert_in_range(at, 5, 999);
        assert_int_not_equal(refused, 0);
    }
}

static void without_memory_for_a_chunk_what_there_is_is_still_served(void **state) {
    (void)state;
    char *blocks[64];
    for (uint32_t i = 0; i < 32; i++) blocks[i] = take(SLICE, 0);
    set_faults(1, true, HAK_SYS_MAP);
    for (uint32_t i = 32; i < 64; i++) blocks[i] = take(SLICE, i);
    assert_null(hak_l25_alloc(SLICE, 16, 5).ptr);
    set_faults(0, false, -1);
    for (uint32_t i = 0; i < 64; i++) give(blocks[i]);
}

/* ---- fork ---- */

static pthread_barrier_t held, release;

static void *hold_lock(void *argument) {
    struct hak_l25_shard *shard = argument;
    hak_lock(&shard->lock);
    pthread_barrier_wait(&held);
    pthread_barrier_wait(&release);
    hak_unlock(&shard->lock);
    return NULL;
}

/* The exit status names the step that failed. */
static int in_child(char *block, char *other) {
    void *chunk = descriptor_of(block);
    hak_l25_fork_child();
    if (!hak_l25_check()) return 1;
    if (hak_l25_usable(chunk, block) != 4 * SLICE || !is_marked(block, 4 * SLICE, 77)) return 2;
    size_t usable;
    if (hak_l25_resize(chunk, block, 5 * SLICE, &usable)) return 3;
    struct hak_block mine = hak_l25_alloc(4 * SLICE, 16, 0);
    if (mine.ptr == NULL || descriptor_of(mine.ptr) == chunk) return 4; /* from a chunk of its own */
    if (hak_l25_free(chunk, block) != HAK_FREE_OK || !is_zero(block, 4 * SLICE)) return 5;
    if (hak_l25_free(chunk, block) != HAK_FREE_DOUBLE) return 6;
    if (hak_l25_free(chunk, other + SLICE) != HAK_FREE_IN_FREE) return 7;
    if (give(other) != HAK_FREE_OK || give(mine.ptr) != HAK_FREE_OK) return 8;
    hak_l25_decay(900000);
    hak_l25_purge_all();
    struct hak_l25_stats stats = hak_l25_stats();
    return !hak_l25_check()                  ? 9
           : stats.live_blocks != 0          ? 10
           : stats.live_bytes != 0           ? 11
           : stats.mapped_bytes != 1 * CHUNK ? 12 /* only what was set aside */
                                             : 0;
}

static void a_shard_whose_lock_was_held_at_fork_is_set_aside_in_the_child(void **state) {
    (void)state;
    char *block = take(4 * SLICE, 0), *other = take(SLICE, 0);
    mark(block, 4 * SLICE, 77);
    pthread_t thread;
    pthread_barrier_init(&held, NULL, 2);
    pthread_barrier_init(&release, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, hold_lock, hak_l25_table_shard(0)), 0);
    pthread_barrier_wait(&held);
    pid_t child = fork();
    if (child == 0) {
        alarm(120);
        _exit(in_child(block, other));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    pthread_barrier_wait(&release);
    pthread_join(thread, NULL);
    assert_int_equal(status, 0);
    assert_true(is_marked(block, 4 * SLICE, 77));
    give(block);
    give(other);
}

#define test(name) cmocka_unit_test_setup_teardown(name, fresh_pool, drained_pool)

int main(void) {
    const struct CMUnitTest tests[] = {
        test(blocks_are_whole_slices_zero_when_fresh_and_known_to_the_region_map),
        test(sizes_and_alignments_beyond_the_layer_are_refused),
        test(every_size_comes_at_every_alignment),
        test(a_used_run_is_not_believed_zero_until_its_purge_succeeded),
        test(neighbours_merge_and_the_tightest_chunk_serves),
        test(each_wrong_free_is_named_and_changes_nothing),
        test(a_block_is_resized_where_it_is_as_far_as_its_neighbours_allow),
        test(many_lanes_share_few_chunks),
        test(dirty_memory_stays_within_the_larger_of_two_budgets),
        test(a_purge_that_fails_over_budget_is_survived),
        test(free_memory_is_purged_and_unmapped_at_its_age),
        test(any_call_may_fail_once_or_from_then_on),
        test(without_memory_for_a_chunk_what_there_is_is_still_served),
        test(a_shard_whose_lock_was_held_at_fork_is_set_aside_in_the_child),
    };
    alarm(600);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
