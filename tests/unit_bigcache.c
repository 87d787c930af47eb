/* BigCache: what it serves again and in which order, its budgets, growth, log line and decay; realloc; failing system
 * calls; fork. */
#include "support/stores.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "pages/meta.h"
#include "stores/bigcache.h"
#include "stores/bigcache_purge.h"
#include "stores/bigcache_table.h"

#define GRANULE HAK_GRANULE
enum { SITE_A = 0x1111, SITE_B = 0x2222 };

static int fresh_cache(void **state) {
    (void)state;
    hak_sys_set_now_for_test(100000);
    set_option(LOG, 0);
    set_option(PURGE_DELAY_MS, 500);
    set_option(BIGCACHE_DECAY_MS, 1000);
    set_option(BIGCACHE_BUCKETS_MAX, 65536);
    set_option(BIGCACHE_CHAIN_MAX, 0);
    set_option(BIGCACHE_BLOCK_MAX, 64 * HAK_MIB);
    set_option(BIGCACHE_MAPPED, 1024 * HAK_MIB);
    set_option(BIGCACHE_RESIDENT, 1024 * HAK_MIB);
    set_option(RETAIN_PERCENT, 0);
    set_option(BIGCACHE_CUT, 0);
    return 0;
}

static int drained_cache(void **state) {
    (void)state;
    end_capture();
    bool good = hak_big_check();
    hak_big_purge_all();
    struct hak_big_stats stats = hak_big_stats();
    good = good && hak_big_check() && stats.mapped_bytes == 0 && stats.live_bytes == 0 && stats.live_blocks == 0 &&
           stats.entries == 0 && stats.cached_bytes == 0 && stats.cached_dirty == 0;
    hak_big_reset_for_test();
    return good ? 0 : -1;
}

static char *take(size_t bytes, uintptr_t site) {
    struct hak_block block = hak_big_alloc(bytes, 16, site);
    assert_non_null(block.ptr);
    return block.ptr;
}

static enum hak_free_result give(void *ptr) { return hak_big_free(descriptor_of(ptr), ptr); }

/* Frees at a time of its own, so that ages differ. */
static void give_at(void *ptr, uint64_t ms) {
    hak_sys_set_now_for_test(ms);
    assert_int_equal(give(ptr), HAK_FREE_OK);
}

static void a_fresh_block_is_zero_and_its_first_granule_known_to_the_region_map(void **state) {
    (void)state;
    struct hak_block block = hak_big_alloc(3 * HAK_MIB + 5, 16, SITE_A);
    assert_non_null(block.ptr);
    assert_true(block.zero);
    assert_int_equal(block.bytes, 3 * HAK_MIB + GRANULE);
    assert_true(is_zero(block.ptr, block.bytes));
    assert_int_equal((uintptr_t)block.ptr % GRANULE, 0);
    assert_int_equal(hak_region_lookup(block.ptr).kind, HAK_KIND_BIG);
    assert_int_equal(hak_region_lookup((char *)block.ptr + GRANULE).kind, HAK_KIND_BIG);
    assert_int_equal(hak_big_usable(descriptor_of(block.ptr), block.ptr), block.bytes);
    assert_int_equal(give(block.ptr), HAK_FREE_OK);
}

static void any_alignment_is_met(void **state) {
    (void)state;
    for (size_t align = 16; align <= 1024 * HAK_MIB; align *= 4) {
        struct hak_block block = hak_big_alloc(align > HAK_MIB ? 100 : 2 * HAK_MIB, align, SITE_A);
        assert_non_null(block.ptr);
        assert_int_equal((uintptr_t)block.ptr % align, 0);
        memset(block.ptr, 1, 100);
        assert_int_equal(give(block.ptr), HAK_FREE_OK);
    }
}

static void impossible_sizes_are_refused(void **state) {
    (void)state;
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - GRANULE, HAK_SIZE_MAX, HAK_SIZE_MAX + 1, (size_t)1 << 62};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) assert_null(hak_big_alloc(sizes[i], 16, SITE_A).ptr);
    char *block = take(2 * HAK_MIB, SITE_A);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_null(hak_big_realloc(descriptor_of(block), block, sizes[i], SITE_A).ptr);
    assert_int_equal(give(block), HAK_FREE_OK);
}

static void the_same_site_comes_first_then_the_class_then_larger_ones_within_a_quarter(void **state) {
    (void)state;
    const size_t size = 4 * HAK_MIB + 4 * GRANULE; /* the middle of its class */
    char *mine = take(size, SITE_A), *others = take(size, SITE_B), *larger = take(size + size / 8, SITE_A),
         *too_large = take(size + size / 3, SITE_A);
    give(mine);
    give(others); /* newer than mine */
    give(larger);
    give(too_large);
    assert_ptr_equal(take(size, SITE_A), mine);
    assert_int_equal(hak_big_stats().hits_site, 1);
    assert_ptr_equal(take(size, SITE_A), others);
    assert_int_equal(hak_big_stats().hits_class, 1);
    assert_ptr_equal(take(size, SITE_A), larger);
    assert_int_equal(hak_big_stats().hits_larger, 1);
    const uint64_t misses = hak_big_stats().misses;
    char *fresh = take(size, SITE_A);
    assert_ptr_not_equal(fresh, too_large);
    assert_int_equal(hak_big_stats().misses, misses + 1);
    assert_int_equal(hak_big_stats().entries, 1);
    give(mine);
    give(others);
    give(larger);
    give(fresh);
}

static void a_quarter_more_is_the_most_and_of_larger_classes_the_nearest_serves(void **state) {
    (void)state;
    const size_t size = 4 * HAK_MIB, most = size + size / 4;
    char *too_large = take(most + GRANULE, SITE_A), *quarter = take(most, SITE_A),
         *nearer = take(size + size / 8, SITE_A);
    assert_int_not_equal(hak_big_class_of(most), hak_big_class_of(size + size / 8));
    give(nearer);
    give(quarter); /* newer than the nearer one */
    give(too_large);
    assert_ptr_equal(take(size, SITE_A), nearer);
    assert_ptr_equal(take(size, SITE_A), quarter);
    assert_int_equal(hak_big_stats().hits_larger, 2);
    char *fresh = take(size, SITE_A);
    assert_ptr_not_equal(fresh, too_large);
    assert_int_equal(hak_big_stats().misses, 4);
    give(nearer);
    give(quarter);
    give(fresh);
}

static void an_entry_knows_its_site_when_it_was_freed_and_how_often_it_served(void **state) {
    (void)state;
    char *block = take(2 * HAK_MIB, SITE_A);
    const struct hak_big *big = descriptor_of(block);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(big->times_served, i);
        give_at(block, 100000 + i);
        assert_ptr_equal(big->base, block);
        assert_int_equal(big->site, SITE_A + i);
        assert_int_equal(big->freed_ms, 100000 + i);
        assert_ptr_equal(take(2 * HAK_MIB, SITE_A + i + 1), block);
    }
    give(block);
}

static void a_cached_block_is_not_believed_zero_until_purged(void **state) {
    (void)state;
    char *block = take(2 * HAK_MIB, SITE_A);
    mark(block, 2 * HAK_MIB, 5);
    give_at(block, 100000);
    struct hak_block again = hak_big_alloc(2 * HAK_MIB, 16, SITE_A);
    assert_ptr_equal(again.ptr, block);
    assert_false(again.zero);
    assert_true(is_marked(block, 2 * HAK_MIB, 5));
    give_at(block, 100000);
    hak_big_decay(100499);
    assert_int_not_equal(hak_big_stats().cached_dirty, 0);
    hak_big_decay(100500);
    assert_int_equal(hak_big_stats().cached_dirty, 0);
    again = hak_big_alloc(2 * HAK_MIB, 16, SITE_A);
    assert_ptr_equal(again.ptr, block);
    assert_true(again.zero);
    assert_true(is_zero(block, again.bytes));
    give_at(block, 100000);
    hak_big_decay(100999);
    assert_int_equal(hak_big_stats().entries, 1);
    hak_big_decay(101000);
    assert_int_equal(hak_big_stats().entries, 0);
    assert_int_equal(hak_big_stats().mapped_bytes, 0);
    assert_int_equal(hak_region_lookup(block).kind, 0);
}

static void a_block_that_cannot_be_purged_is_unmapped(void **state) {
    (void)state;
    char *block = take(2 * HAK_MIB, SITE_A);
    give_at(block, 100000);
    set_faults(1, true, HAK_SYS_PURGE);
    hak_big_decay(100500);
    set_faults(0, false, -1);
    assert_int_equal(hak_big_stats().mapped_bytes, 0);
    assert_int_equal(hak_region_lookup(block).kind, 0);
}

static void each_wrong_free_is_named(void **state) {
    (void)state;
    char *block = take(2 * HAK_MIB, SITE_A);
    void *big = descriptor_of(block);
    assert_int_equal(hak_big_free(big, block + 1), HAK_FREE_NOT_START);
    assert_int_equal(hak_big_usable(big, block + 16), 0);
    assert_int_equal(hak_big_free(big, block), HAK_FREE_OK);
    assert_int_equal(hak_big_free(big, block), HAK_FREE_DOUBLE);
    assert_int_equal(hak_big_free(big, block + 1), HAK_FREE_IN_FREE);
    assert_int_equal(hak_big_usable(big, block), 0);
    assert_null(hak_big_realloc(big, block, 3 * HAK_MIB, SITE_A).ptr);
    hak_big_purge_all();
    assert_int_equal(hak_big_free(big, block), HAK_FREE_DOUBLE); /* a stale descriptor */
    assert_true(hak_big_check());
}

static void every_granule_of_a_block_leads_to_it(void **state) {
    (void)state;
    char *low = take(20 * HAK_MIB, SITE_A), *high = take(40 * HAK_MIB, SITE_A);
    for (unsigned i = 0; i < 2; i++) {
        char *block = i == 0 ? low : high;
        void *big = descriptor_of(block);
        const size_t bytes = hak_big_usable(big, block);
        for (size_t at = 0; at < bytes; at += GRANULE) assert_ptr_equal(descriptor_of(block + at), big);
        assert_int_equal(hak_big_free(big, block + bytes / 2 + 5), HAK_FREE_NOT_START);
        assert_int_equal(hak_big_free(big, block + bytes - 1), HAK_FREE_NOT_START);
    }
    give(low);
    assert_int_equal(hak_big_free(descriptor_of(low + HAK_MIB), low + HAK_MIB), HAK_FREE_IN_FREE);
    hak_big_purge_all();
    assert_int_equal(hak_region_lookup(low + HAK_MIB).kind, HAK_KIND_NONE);
    give(high);
}

static void blocks_over_the_limit_go_straight_back(void **state) {
    (void)state;
    set_option(BIGCACHE_BLOCK_MAX, 2 * HAK_MIB);
    char *fits = take(2 * HAK_MIB - GRANULE, SITE_A), *over = take(2 * HAK_MIB + 1, SITE_A);
    give(fits);
    give(over);
    assert_int_equal(hak_region_lookup(over).kind, 0);
    assert_int_equal(hak_big_stats().entries, 1);
    assert_int_equal(hak_big_stats().cached_bytes, hak_big_stats().mapped_bytes);
}

static void the_least_recently_used_leave_when_too_much_is_mapped(void **state) {
    (void)state;
    char *blocks[5];
    set_option(BIGCACHE_MAPPED, 4 * 2 * HAK_MIB);
    for (unsigned i = 0; i < 5; i++) blocks[i] = take(2 * HAK_MIB - GRANULE, SITE_A + i);
    for (unsigned i = 0; i < 4; i++) give_at(blocks[i], 100000 + i);
    assert_ptr_equal(take(2 * HAK_MIB - GRANULE, SITE_A), blocks[0]); /* used again: now the newest */
    give_at(blocks[0], 100010);
    give_at(blocks[4], 100020);
    const size_t each = hak_big_stats().cached_bytes / hak_big_stats().entries;
    const unsigned kept = (unsigned)(4 * 2 * HAK_MIB / each);
    assert_int_equal(hak_big_stats().entries, kept);
    assert_int_equal(hak_big_stats().evictions, 5 - kept);
    assert_int_equal(hak_region_lookup(blocks[1]).kind, 0);
    assert_int_equal(hak_region_lookup(blocks[0]).kind, HAK_KIND_BIG);
}

static void the_oldest_are_purged_when_too_much_is_dirty(void **state) {
    (void)state;
    char *blocks[3];
    set_option(BIGCACHE_RESIDENT, 4 * HAK_MIB);
    for (unsigned i = 0; i < 3; i++) {
        blocks[i] = take(2 * HAK_MIB - GRANULE, SITE_A + i);
        mark(blocks[i], HAK_MIB, i);
    }
    for (unsigned i = 0; i < 3; i++) give_at(blocks[i], 100000 + i);
    assert_int_equal(hak_big_stats().entries, 3);
    assert_in_range(hak_big_stats().cached_dirty, 2 * HAK_MIB - GRANULE, 4 * HAK_MIB);
    struct hak_block oldest = hak_big_alloc(2 * HAK_MIB - GRANULE, 16, SITE_A);
    assert_ptr_equal(oldest.ptr, blocks[0]);
    assert_true(oldest.zero);
    assert_true(is_zero(oldest.ptr, oldest.bytes));
    struct hak_block newest = hak_big_alloc(2 * HAK_MIB - GRANULE, 16, SITE_A + 2);
    assert_false(newest.zero);
    assert_true(is_marked(newest.ptr, HAK_MIB, 2));
    give(oldest.ptr);
    give(newest.ptr);
    /* One that is over the budget alone does not push the others out. */
    char *large = take(5 * HAK_MIB, SITE_B);
    const uint64_t dirty = hak_big_stats().cached_dirty;
    give(large);
    assert_int_equal(hak_big_stats().cached_dirty, dirty);
    assert_int_equal(hak_big_stats().entries, 4);
}

static void the_oldest_goes_first_whenever_it_was_purged(void **state) {
    (void)state;
    set_option(BIGCACHE_RESIDENT, 4 * HAK_MIB);
    char *old = take(2 * HAK_MIB, SITE_A), *large = take(6 * HAK_MIB, SITE_A), *last = take(2 * HAK_MIB, SITE_B);
    give_at(old, 100000);
    give_at(large, 100001); /* purged at once, being over the budget alone */
    give_at(last, 100002);
    hak_big_decay(100500); /* now the old one is purged as well */
    assert_int_equal(hak_big_stats().cached_dirty, 2 * HAK_MIB);
    hak_big_decay(101000);
    assert_int_equal(hak_region_lookup(old).kind, HAK_KIND_NONE);
    assert_int_equal(hak_region_lookup(large).kind, HAK_KIND_BIG);
    hak_big_decay(101001);
    assert_int_equal(hak_region_lookup(large).kind, HAK_KIND_NONE);
    assert_int_equal(hak_big_stats().entries, 1);
}

static void what_goes_and_what_misses_is_counted_once(void **state) {
    (void)state;
    const struct hak_big_stats before = hak_big_stats();
    char *block = take(4 * HAK_MIB, SITE_A);
    const size_t mapped = hak_big_stats().mapped_bytes;
    give_at(block, 100000);
    hak_big_decay(100500);
    assert_int_equal(hak_big_stats().purged_bytes, before.purged_bytes + mapped);
    hak_big_decay(101000); /* and unmapped */
    assert_int_equal(hak_big_stats().purged_bytes, before.purged_bytes + mapped);
    assert_int_equal(hak_big_stats().misses, before.misses + 1);
    assert_null(hak_big_alloc((size_t)1 << 46, 16, SITE_A).ptr); /* no request that the cache could have served */
    assert_int_equal(hak_big_stats().misses, before.misses + 1);
}

/* ---- other shapes ---- */

static void a_larger_one_is_cut_where_none_fits(void **state) {
    (void)state;
    set_option(BIGCACHE_CUT, 1);
    char *small = take(5 * HAK_MIB, SITE_A), *large = take(8 * HAK_MIB, SITE_A);
    const size_t mapped = hak_big_stats().mapped_bytes;
    mark(large, 8 * HAK_MIB, 1);
    give(small);
    give(large);
    char *cut = take(3 * HAK_MIB, SITE_B); /* the smallest that is large enough, and too large as it is */
    assert_ptr_equal(cut, small);
    assert_int_equal(hak_big_stats().hits_cut, 1);
    assert_int_equal(hak_big_stats().mapped_bytes, mapped);
    assert_int_equal(hak_big_stats().entries, 2);
    assert_ptr_not_equal(descriptor_of(cut), descriptor_of(cut + 4 * HAK_MIB));
    assert_int_equal(give(cut + 4 * HAK_MIB), HAK_FREE_IN_FREE);
    assert_true(hak_big_check());
    char *second = take(3 * HAK_MIB, SITE_B); /* the rest of the five is too small */
    assert_ptr_equal(second, large);
    assert_true(is_marked(second, 3 * HAK_MIB - GRANULE, 1));
    give(cut);
    give(second);
}

static void a_mapping_is_not_cut_for_a_rest_too_small_to_keep(void **state) {
    (void)state;
    set_option(BIGCACHE_CUT, 1);
    give(take(3 * HAK_MIB, SITE_A));
    const uint64_t misses = hak_big_stats().misses;
    char *block = take(2 * HAK_MIB + 2 * GRANULE, SITE_A); /* over a quarter more, by less than a MiB */
    assert_int_equal(hak_big_stats().misses, misses + 1);
    assert_int_equal(hak_big_stats().hits_cut, 0);
    give(block);
}

static void neighbours_are_joined_where_none_is_large_enough(void **state) {
    (void)state;
    set_option(BIGCACHE_CUT, 1);
    char *whole = take(12 * HAK_MIB, SITE_A), *parts[3];
    const size_t mapped = hak_big_stats().mapped_bytes;
    mark(whole, 12 * HAK_MIB, 1);
    give(whole);
    for (unsigned i = 0; i < 3; i++) parts[i] = take(3 * HAK_MIB, SITE_A + i); /* and a rest */
    assert_ptr_equal(parts[1], whole + (parts[1] - parts[0]));
    give(parts[2]);
    give(parts[0]);
    give(parts[1]);
    assert_int_equal(hak_big_stats().entries, 4);
    char *joined = take(11 * HAK_MIB, SITE_B);
    assert_ptr_equal(joined, whole);
    assert_int_equal(hak_big_stats().hits_joined, 1);
    assert_int_equal(hak_big_stats().entries, 0);
    assert_int_equal(hak_big_stats().mapped_bytes, mapped);
    assert_ptr_equal(descriptor_of(joined), descriptor_of(joined + 11 * HAK_MIB - 1));
    assert_true(is_marked(joined, 11 * HAK_MIB, 1));
    assert_int_equal(give(joined + (parts[1] - parts[0])), HAK_FREE_NOT_START);
    assert_int_equal(give(joined), HAK_FREE_OK);
    assert_int_equal(give(joined), HAK_FREE_DOUBLE);
    assert_true(hak_big_check());
}

/* Cuts a mapping into `count` parts, and gives them back. */
static void cut_up(size_t part, unsigned count) {
    char *parts[16];
    give(take(part * count, SITE_A));
    for (unsigned i = 0; i < count; i++) parts[i] = take(part, SITE_A + i);
    for (unsigned i = 0; i < count; i++) give(parts[i]);
    assert_int_equal(hak_big_stats().entries, count);
}

static void of_more_than_eight_neighbours_no_block_is_made(void **state) {
    (void)state;
    const size_t part = 2 * HAK_MIB - GRANULE;
    set_option(BIGCACHE_CUT, 1);
    cut_up(part, 8);
    give(take(8 * part, SITE_B));
    assert_int_equal(hak_big_stats().hits_joined, 1);
    hak_big_purge_all();
    cut_up(part, 9);
    const uint64_t misses = hak_big_stats().misses;
    give(take(9 * part, SITE_B));
    assert_int_equal(hak_big_stats().hits_joined, 1);
    assert_int_equal(hak_big_stats().misses, misses + 1);
}

static void what_was_purged_is_neither_cut_nor_joined(void **state) {
    (void)state;
    set_option(BIGCACHE_CUT, 1);
    set_option(BIGCACHE_DECAY_MS, 900000);
    char *block = take(8 * HAK_MIB, SITE_A);
    give_at(block, 100000);
    hak_big_decay(100500);
    assert_int_equal(hak_big_stats().cached_dirty, 0);
    const uint64_t misses = hak_big_stats().misses;
    give(take(3 * HAK_MIB, SITE_A));
    assert_int_equal(hak_big_stats().misses, misses + 1);
}

static void without_a_descriptor_for_the_rest_a_mapping_is_served_whole(void **state) {
    (void)state;
    set_option(BIGCACHE_CUT, 1);
    char *block = take(8 * HAK_MIB, SITE_A);
    give(block);
    set_faults(1, true, HAK_SYS_MAP);
    while (hak_meta_alloc(sizeof(struct hak_big)) != NULL) continue;
    struct hak_block whole = hak_big_alloc(3 * HAK_MIB, 16, SITE_A);
    set_faults(0, false, -1);
    assert_ptr_equal(whole.ptr, block);
    assert_int_equal(hak_big_stats().entries, 0);
    assert_int_equal(give(block), HAK_FREE_OK);
}

static void no_more_than_a_batch_is_reclaimed_at_once(void **state) {
    (void)state;
    char *blocks[80];
    const size_t each = HAK_MIB + GRANULE;
    set_option(BIGCACHE_RESIDENT, 80 * each); /* of which an eighth may stay */
    for (unsigned i = 0; i < 80; i++) blocks[i] = take(HAK_MIB + 1, SITE_A);
    for (unsigned i = 0; i < 80; i++) give(blocks[i]);
    assert_int_equal(hak_big_reclaim(2 * HAK_MIB), 2 * each);
    assert_int_equal(hak_big_reclaim(SIZE_MAX), 64 * each);
    assert_int_equal(hak_big_reclaim(SIZE_MAX), 4 * each);
    assert_int_equal(hak_big_stats().cached_dirty, 10 * each);
    assert_int_equal(hak_big_stats().entries, 80);
}

/* ---- growth of the table ---- */

/* Fills the cache up to `count` entries. */
static void fill(char **blocks, unsigned from, unsigned count) {
    for (unsigned i = from; i < count; i++) blocks[i] = take(HAK_MIB + 1, i * 64);
    for (unsigned i = from; i < count; i++) assert_int_equal(give(blocks[i]), HAK_FREE_OK);
}

static void the_table_doubles_at_three_quarters_and_says_so(void **state) {
    (void)state;
    char *blocks[768], text[1024];
    set_option(LOG, 1);
    capture_stderr();
    fill(blocks, 0, 191);
    assert_int_equal(hak_big_stats().buckets, 256);
    fill(blocks, 191, 192 + 191); /* all are taken first, so that 191 cached ones serve again */
    captured_stderr(text, sizeof text);
    assert_string_equal(text, "[BIGCACHE] Resized: 256 → 512 buckets (192 entries)\n");
    assert_int_equal(hak_big_stats().buckets, 512);
    assert_true(hak_big_check());
    hak_big_purge_all();
    capture_stderr();
    fill(blocks, 0, 768);
    captured_stderr(text, sizeof text);
    assert_string_equal(text, "[BIGCACHE] Resized: 512 → 1024 buckets (384 entries)\n"
                              "[BIGCACHE] Resized: 1024 → 2048 buckets (768 entries)\n");
    assert_int_equal(hak_big_stats().resizes, 3);
}

static void an_entry_that_is_being_purged_counts_too(void **state) {
    (void)state;
    char *blocks[192], text[1024];
    set_option(LOG, 1);
    set_option(BIGCACHE_RESIDENT, 8 * HAK_MIB);
    capture_stderr();
    fill(blocks, 0, 192);
    captured_stderr(text, sizeof text);
    assert_string_equal(text, "[BIGCACHE] Resized: 256 → 512 buckets (192 entries)\n");
}

/* Entries without memory: in builds for memory tools so many blocks would cost too much. */
static void the_table_grows_up_to_65536_buckets(void **state) {
    (void)state;
    enum { COUNT = 60000 };
    char text[1024], expected[1024] = "";
    struct hak_big *entries = calloc(COUNT, sizeof *entries);
    assert_non_null(entries);
    set_option(LOG, 1);
    set_option(BIGCACHE_MAPPED, (uint64_t)1 << 40);
    set_option(BIGCACHE_RESIDENT, (uint64_t)1 << 40);
    capture_stderr();
    for (unsigned i = 0; i < COUNT; i++) {
        entries[i].state = HAK_BIG_HELD;
        entries[i].mapped = HAK_MIB + GRANULE * (i % 16);
        entries[i].site = i / 64;
        hak_big_cache(&entries[i]);
    }
    captured_stderr(text, sizeof text);
    const struct hak_big_stats stats = hak_big_stats();
    struct hak_big_victims victims = {.unmap = {.first = NULL}};
    hak_lock(&hak_big_table.lock);
    hak_big_table_expire_locked(UINT64_MAX, 0, COUNT, &victims);
    hak_unlock(&hak_big_table.lock);
    for (unsigned from = 256; from < 65536; from *= 2) {
        size_t used = strlen(expected);
        snprintf(expected + used, sizeof expected - used, "[BIGCACHE] Resized: %u → %u buckets (%u entries)\n", from,
                 2 * from, from / 4 * 3);
    }
    assert_string_equal(text, expected);
    assert_int_equal(stats.buckets, 65536);
    assert_int_equal(stats.entries, COUNT);
    for (unsigned i = 0; i < COUNT; i++) assert_ptr_equal(hak_big_next_victim(&victims.unmap), &entries[i]);
    free(entries);
}

static void the_table_grows_to_its_limit_and_no_further(void **state) {
    (void)state;
    static char *blocks[1700];
    set_option(BIGCACHE_BUCKETS_MAX, 1024);
    set_option(BIGCACHE_MAPPED, 4096 * HAK_MIB);
    fill(blocks, 0, 1700);
    assert_int_equal(hak_big_stats().buckets, 1024);
    assert_int_equal(hak_big_stats().entries, 1700);
    assert_true(hak_big_check());
    for (unsigned i = 0; i < 1700; i++) assert_ptr_equal(take(HAK_MIB + 1, i * 64), blocks[i]); /* each by its site */
    assert_int_equal(hak_big_stats().hits_site, 1700);
    for (unsigned i = 0; i < 1700; i++) give(blocks[i]);
}

static void without_memory_for_more_buckets_the_cache_goes_on(void **state) {
    (void)state;
    static char *blocks[1800];
    set_option(BIGCACHE_MAPPED, 4096 * HAK_MIB);
    for (unsigned i = 0; i < 1800; i++) blocks[i] = take(HAK_MIB + 1, i);
    for (unsigned i = 0; i < 1535; i++) give(blocks[i]);
    assert_int_equal(hak_big_stats().buckets, 2048);
    set_faults(1, true, HAK_SYS_MAP); /* 4,096 buckets take a mapping of their own */
    for (unsigned i = 1535; i < 1700; i++) give(blocks[i]);
    set_faults(0, false, -1);
    assert_int_equal(hak_big_stats().buckets, 2048);
    assert_int_equal(hak_big_stats().entries, 1700);
    for (unsigned i = 1700; i < 1800; i++) give(blocks[i]);
    assert_int_equal(hak_big_stats().buckets, 4096);
}

static void a_full_chain_evicts_its_oldest(void **state) {
    (void)state;
    char *blocks[12];
    set_option(BIGCACHE_BUCKETS_MAX, 256);
    set_option(BIGCACHE_CHAIN_MAX, 8);
    for (unsigned i = 0; i < 12; i++) blocks[i] = take(2 * HAK_MIB - GRANULE, SITE_A);
    for (unsigned i = 0; i < 12; i++) give_at(blocks[i], 100000 + i);
    assert_int_equal(hak_big_stats().entries, 8);
    assert_int_equal(hak_big_stats().evictions, 4);
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(hak_region_lookup(blocks[i]).kind, i < 4 ? 0 : (unsigned)HAK_KIND_BIG);
}

static void the_hash_is_fnv_1a_over_class_and_site(void **state) {
    (void)state;
    /* FNV-1a, 64 bits, of 07 00 00 00 b0 31 40 00 00 55 00 00, its halves combined. */
    const unsigned char bytes[12] = {7, 0, 0, 0, 0xb0, 0x31, 0x40, 0, 0, 0x55, 0, 0};
    uint64_t hash = UINT64_C(14695981039346656037);
    for (unsigned i = 0; i < sizeof bytes; i++) {
        hash ^= bytes[i];
        hash *= UINT64_C(1099511628211);
    }
    assert_int_equal(hak_big_hash(7, 0x5500004031b0), (uint32_t)(hash ^ hash >> 32));
    for (uint32_t class = 0; class + 1 < HAK_BIG_CLASSES; class ++) {
        assert_int_equal(hak_big_class_of(hak_big_class_bytes(class)), class);
        assert_int_equal(hak_big_class_of(hak_big_class_bytes(class + 1) - 1), class);
    }
}

/* ---- failing system calls ---- */

static unsigned scenario(void) {
    char *blocks[12];
    unsigned refused = 0;
    for (unsigned i = 0; i < 12; i++) {
        struct hak_block block = hak_big_alloc((1 + i % 4) * HAK_MIB + 1, GRANULE << i % 7, i % 3);
        refused += block.ptr == NULL;
        blocks[i] = block.ptr;
        if (block.ptr != NULL) mark(block.ptr, HAK_MIB, i);
        if (i % 2 == 0 || block.ptr == NULL) continue;
        block = hak_big_realloc(descriptor_of(block.ptr), block.ptr, (i % 4 == 1 ? 9 : 2) * HAK_MIB, i % 3);
        if (block.ptr != NULL) blocks[i] = block.ptr;
        assert_true(is_marked(blocks[i], HAK_MIB, i));
    }
    for (unsigned i = 0; i < 12; i++) {
        if (blocks[i] == NULL) continue;
        assert_true(is_marked(blocks[i], HAK_MIB, i));
        assert_int_equal(give(blocks[i]), HAK_FREE_OK);
    }
    assert_true(hak_big_check());
    hak_big_decay(100600);
    return refused;
}

static void any_call_may_fail_once_or_from_then_on(void **state) {
    (void)state;
    set_option(BIGCACHE_RESIDENT, 3 * HAK_MIB);
    for (unsigned lasts = 0; lasts < 2; lasts++) {
        unsigned at = 0, refused = 0, calls;
        do {
            set_faults(++at, lasts, -1);
            refused += scenario();
            hak_big_purge_all();
            calls = fault_calls;
            set_faults(0, false, -1);
            assert_true(hak_big_check());
            assert_int_equal(hak_big_stats().live_blocks, 0);
            assert_int_equal(scenario(), 0); /* a retry works */
            hak_big_purge_all();
            assert_int_equal(hak_big_stats().mapped_bytes, 0);
            hak_big_reset_for_test();
        } while (calls >= at && at < 1000);
        assert_in_range(at, 20, 999);
        assert_int_not_equal(refused, 0);
    }
}

static unsigned calls_seen[HAK_SYS_HUGE + 1], calls_under_lock;

static int look_for_locks(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    calls_seen[call]++;
    if (hak_held_ranks != 0) calls_under_lock++;
    return 0;
}

static void no_lock_is_held_while_the_system_is_called(void **state) {
    (void)state;
    char *blocks[192];
    memset(calls_seen, 0, sizeof calls_seen);
    set_option(BIGCACHE_RESIDENT, 8 * HAK_MIB);
    set_option(BIGCACHE_MAPPED, 256 * HAK_MIB);
    hak_sys_set_fault_for_test(look_for_locks);
    assert_int_equal(scenario(), 0);
    fill(blocks, 0, 192);
    hak_big_purge_all();
    hak_sys_set_fault_for_test(NULL);
    assert_int_not_equal(calls_seen[HAK_SYS_MAP], 0);
    assert_int_not_equal(calls_seen[HAK_SYS_UNMAP], 0);
    assert_int_not_equal(calls_seen[HAK_SYS_PURGE], 0);
    assert_int_not_equal(calls_seen[HAK_SYS_REMAP], 0);
    assert_int_equal(calls_under_lock, 0);
}

/* ---- fork ---- */

static pthread_barrier_t held, release;

static void *hold_lock(void *argument) {
    (void)argument;
    hak_lock(&hak_big_table.lock);
    pthread_barrier_wait(&held);
    pthread_barrier_wait(&release);
    hak_unlock(&hak_big_table.lock);
    return NULL;
}

/* The exit status names the step that failed. */
static int in_child(char *live, char *cached) {
    hak_big_fork_child();
    if (!hak_big_check() || hak_big_stats().entries != 0) return 1;
    if (!is_marked(live, HAK_MIB, 3) || give(live) != HAK_FREE_OK) return 2;
    if (give(live) != HAK_FREE_DOUBLE || give(cached) != HAK_FREE_DOUBLE) return 3;
    struct hak_block again = hak_big_alloc(2 * HAK_MIB, 16, SITE_A);
    if (again.ptr != live || give(live) != HAK_FREE_OK) return 4;
    hak_big_purge_all();
    return hak_big_check() && hak_big_stats().live_blocks == 0 ? 0 : 5;
}

static void a_cache_whose_lock_was_held_at_fork_starts_empty_in_the_child(void **state) {
    (void)state;
    char *live = take(2 * HAK_MIB, SITE_A), *cached = take(2 * HAK_MIB, SITE_B);
    mark(live, HAK_MIB, 3);
    give(cached);
    pthread_t thread;
    pthread_barrier_init(&held, NULL, 2);
    pthread_barrier_init(&release, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, hold_lock, NULL), 0);
    pthread_barrier_wait(&held);
    pid_t child = fork();
    if (child == 0) {
        alarm(120);
        _exit(in_child(live, cached));
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    pthread_barrier_wait(&release);
    pthread_join(thread, NULL);
    assert_int_equal(status, 0);
    assert_int_equal(give(live), HAK_FREE_OK);
}

#define test(name) cmocka_unit_test_setup_teardown(name, fresh_cache, drained_cache)

int main(void) {
    const struct CMUnitTest tests[] = {
        test(a_fresh_block_is_zero_and_its_first_granule_known_to_the_region_map),
        test(any_alignment_is_met),
        test(impossible_sizes_are_refused),
        test(the_same_site_comes_first_then_the_class_then_larger_ones_within_a_quarter),
        test(a_quarter_more_is_the_most_and_of_larger_classes_the_nearest_serves),
        test(an_entry_knows_its_site_when_it_was_freed_and_how_often_it_served),
        test(a_cached_block_is_not_believed_zero_until_purged),
        test(a_block_that_cannot_be_purged_is_unmapped),
        test(each_wrong_free_is_named),
        test(every_granule_of_a_block_leads_to_it),
        test(blocks_over_the_limit_go_straight_back),
        test(the_least_recently_used_leave_when_too_much_is_mapped),
        test(the_oldest_are_purged_when_too_much_is_dirty),
        test(the_oldest_goes_first_whenever_it_was_purged),
        test(what_goes_and_what_misses_is_counted_once),
        test(a_larger_one_is_cut_where_none_fits),
        test(a_mapping_is_not_cut_for_a_rest_too_small_to_keep),
        test(neighbours_are_joined_where_none_is_large_enough),
        test(of_more_than_eight_neighbours_no_block_is_made),
        test(what_was_purged_is_neither_cut_nor_joined),
        test(without_a_descriptor_for_the_rest_a_mapping_is_served_whole),
        test(no_more_than_a_batch_is_reclaimed_at_once),
        test(the_table_doubles_at_three_quarters_and_says_so),
        test(an_entry_that_is_being_purged_counts_too),
        test(the_table_grows_up_to_65536_buckets),
        test(the_table_grows_to_its_limit_and_no_further),
        test(without_memory_for_more_buckets_the_cache_goes_on),
        test(a_full_chain_evicts_its_oldest),
        test(the_hash_is_fnv_1a_over_class_and_site),
        test(any_call_may_fail_once_or_from_then_on),
        test(no_lock_is_held_while_the_system_is_called),
        test(a_cache_whose_lock_was_held_at_fork_starts_empty_in_the_child),
    };
    alarm(600);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
