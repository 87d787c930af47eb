/* Borders that ordinary use does not reach: a clock younger than the delays, the last size class, walks that are cut
 * short, pointers just outside, runs that fit exactly. */
#include "support/stores.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "base/size_class.h"
#include "front/heap.h"
#include "stores/bigcache.h"
#include "stores/bigcache_table.h"
#include "stores/l25.h"
#include "stores/l25_chunk.h"
#include "stores/l25_shard.h"
#include "stores/superslab.h"

/* ---- a system that has just started ---- */

static int young_clock(void **state) {
    (void)state;
    hak_sys_set_now_for_test(10);
    set_option(PURGE_DELAY_MS, 500);
    set_option(UNMAP_DELAY_MS, 5000);
    set_option(BIGCACHE_DECAY_MS, 1000);
    set_option(BIGCACHE_MAPPED, 1024 * HAK_MIB);
    set_option(BIGCACHE_RESIDENT, 1024 * HAK_MIB);
    return 0;
}

static int drained(void **state) {
    (void)state;
    hak_big_purge_all();
    hak_big_reset_for_test();
    hak_l25_purge_all();
    hak_l25_reset_for_test();
    hak_superslab_purge_all();
    hak_sys_set_now_for_test(0);
    return 0;
}

static void *big_block(uintptr_t site) {
    struct hak_block block = hak_big_alloc(2 * HAK_MIB, 16, site);
    assert_non_null(block.ptr);
    return block.ptr;
}
static void big_free(void *ptr) { assert_int_equal(hak_big_free(descriptor_of(ptr), ptr), HAK_FREE_OK); }

static void nothing_is_old_before_the_clock_has_run_a_delay(void **state) {
    (void)state;
    struct hak_block run = hak_l25_alloc(HAK_L25_MAX, 16, 0);
    assert_int_equal(hak_l25_free(descriptor_of(run.ptr), run.ptr), HAK_FREE_OK);
    struct hak_slab_run slab = hak_superslab_take(1, false);
    hak_superslab_give(slab.superslab, slab.first, 1);
    big_free(big_block(1));
    hak_l25_decay(499);
    hak_superslab_decay(499);
    hak_big_decay(499);
    assert_int_equal(hak_l25_stats().purged_bytes, 0);
    assert_int_equal(hak_superslab_stats().dirty_bytes, HAK_SLAB_BYTES);
    assert_int_equal(hak_big_stats().cached_dirty, hak_big_stats().cached_bytes);
    hak_l25_decay(510);
    hak_superslab_decay(510);
    hak_big_decay(510);
    assert_int_equal(hak_l25_stats().purged_bytes, HAK_L25_MAX);
    assert_int_equal(hak_superslab_stats().dirty_bytes, 0);
    assert_int_equal(hak_superslab_stats().superslabs, 1); /* unmapped only later */
    assert_int_equal(hak_big_stats().cached_dirty, 0);
    assert_int_equal(hak_big_stats().entries, 1);
}

static void the_cache_may_unmap_sooner_than_it_purges(void **state) {
    (void)state;
    set_option(BIGCACHE_DECAY_MS, 300);
    big_free(big_block(1));
    hak_big_decay(299);
    assert_int_equal(hak_big_stats().entries, 1);
    hak_big_decay(310); /* no time for a purge yet */
    assert_int_equal(hak_big_stats().entries, 0);
    assert_int_equal(hak_big_stats().mapped_bytes, 0);
}

/* ---- BigCache ---- */

static void a_block_larger_than_all_the_cache_may_map_is_not_cached(void **state) {
    (void)state;
    set_option(BIGCACHE_MAPPED, HAK_MIB);
    big_free(big_block(1));
    assert_int_equal(hak_big_stats().entries, 0);
    assert_int_equal(hak_big_stats().mapped_bytes, 0);
}

/* A walk looks at so many entries of a list, and does not find what lies behind them. */
static void a_walk_for_an_aligned_block_is_cut_short(void **state) {
    (void)state;
    enum { MANY = 100 };
    void *blocks[MANY], *aligned = hak_big_alloc(2 * HAK_MIB, 64 * HAK_MIB, 1).ptr;
    assert_non_null(aligned);
    for (size_t i = 0; i < MANY; i++) {
        blocks[i] = hak_big_alloc(2 * HAK_MIB, 16, 1).ptr;
        assert_non_null(blocks[i]);
    }
    big_free(aligned); /* the newest come first */
    for (size_t i = 0; i < MANY; i++) big_free(blocks[i]);
    hak_lock(&hak_big_table.lock);
    struct hak_big *found = hak_big_table_take_locked(2 * HAK_MIB, (size_t)1 << 46, 1);
    hak_unlock(&hak_big_table.lock);
    assert_null(found);
    assert_int_equal(hak_big_stats().entries, MANY + 1);
}

static void behind_the_largest_class_there_is_none(void **state) {
    (void)state;
    big_free(big_block(1));
    assert_int_equal(hak_big_class_of((size_t)1 << HAK_BIG_SHIFT_MAX), HAK_BIG_CLASSES - 1);
    hak_lock(&hak_big_table.lock);
    struct hak_big *found = hak_big_table_take_locked((size_t)1 << HAK_BIG_SHIFT_MAX, HAK_GRANULE, 1);
    hak_unlock(&hak_big_table.lock);
    assert_null(found);
}

/* ---- L2.5 pool ---- */

#define fake ((char *)(uintptr_t)0x123400000000) /* a chunk that is never touched */

static struct hak_l25_chunk *chunk_with(struct hak_l25_chunk *chunk, uint64_t free) {
    memset((void *)chunk, 0, sizeof *chunk);
    hak_store_rlx(&chunk->base, fake);
    hak_l25_chunk_init(chunk, true, 0);
    chunk->free = free;
    for (unsigned i = 0; i < HAK_CHUNK_SLICES; i++)
        if ((free >> i & 1) == 0) hak_store_rlx(&chunk->run[i], 1);
    assert_true(hak_l25_chunk_check(chunk));
    return chunk;
}

static void no_run_is_found_in_single_slices(void **state) {
    (void)state;
    static struct hak_l25_chunk chunk;
    const struct hak_l25_want four = {.slices = 4, .starts = HAK_L25_ALL}, two = {.slices = 2, .starts = HAK_L25_ALL};
    bool zero;
    assert_int_equal(hak_l25_chunk_take(chunk_with(&chunk, 0x5555555555555555), &four, &zero), HAK_L25_NO_RUN);
    assert_int_equal(hak_l25_chunk_take(chunk_with(&chunk, 0), &four, &zero), HAK_L25_NO_RUN);
    assert_int_equal(hak_l25_chunk_take(chunk_with(&chunk, (uint64_t)1 << 63), &two, &zero), HAK_L25_NO_RUN);
    assert_int_equal(hak_l25_chunk_take(chunk_with(&chunk, (uint64_t)3 << 62), &two, &zero), 62);
}

static void a_run_is_resized_to_what_it_is(void **state) {
    (void)state;
    static struct hak_l25_chunk chunk;
    chunk_with(&chunk, ~(uint64_t)1 << 3);
    uint64_t free = chunk.free;
    assert_true(hak_l25_chunk_resize(&chunk, 3, 1));
    assert_int_equal(chunk.free, free);
    assert_int_equal(hak_load_rlx(&chunk.run[3]), 1);
    assert_false(hak_l25_chunk_resize(&chunk, 3, 62)); /* beyond the end */
}

static void what_lies_outside_a_chunk_is_free_memory(void **state) {
    (void)state;
    static struct hak_l25_chunk chunk;
    chunk_with(&chunk, 0);
    unsigned start = 77;
    const char *outside[] = {fake - 1, fake - HAK_SLICE_BYTES, fake + HAK_CHUNK_BYTES};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_int_equal(hak_l25_chunk_run(&chunk, outside[i], &start), 0);
        assert_int_equal(hak_l25_chunk_locate(&chunk, outside[i], &start), HAK_FREE_IN_FREE);
    }
    assert_int_equal(start, 77);
    assert_int_equal(hak_l25_chunk_locate(&chunk, fake + HAK_CHUNK_BYTES - HAK_SLICE_BYTES, &start), HAK_FREE_OK);
    assert_int_equal(start, HAK_CHUNK_SLICES - 1);
}

/* Eight chunks of a list are looked at; a ninth that would do is not, but the next list is. */
static void a_walk_for_an_aligned_run_is_cut_short(void **state) {
    (void)state;
    static struct hak_l25_shard shard;
    static struct hak_l25_chunk chunks[10];
    const struct hak_l25_want aligned = {.slices = 4, .starts = 0x1111111111111111};
    hak_l25_shard_init(&shard, 0);
    hak_lock(&shard.lock);
    for (unsigned i = 0; i < 9; i++) { /* in this order: 4 slices at an odd place, but for the last */
        hak_store_rlx(&chunks[i].base, fake);
        chunks[i].shard = &shard;
        hak_l25_shard_attach_locked(&shard, &chunks[i], true, 0);
        const unsigned first = i == 8 ? 8 : 9;
        for (unsigned j = 0; j < HAK_CHUNK_SLICES; j++)
            if (j < first || j >= first + 4) hak_store_rlx(&chunks[i].run[j], 1);
        chunks[i].free = hak_l25_mask(first, 4);
        hak_l25_shard_sync_locked(&shard, &chunks[i], 0);
    }
    assert_true(hak_l25_shard_check_locked(&shard));
    struct hak_block block = {.ptr = NULL};
    assert_false(hak_l25_shard_take_locked(&shard, &aligned, &block));
    hak_store_rlx(&chunks[9].base, fake);
    chunks[9].shard = &shard;
    hak_l25_shard_attach_locked(&shard, &chunks[9], true, 0);
    assert_true(hak_l25_shard_take_locked(&shard, &aligned, &block));
    assert_ptr_equal(block.ptr, fake);
    assert_int_equal(hak_load_rlx(&chunks[9].run[0]), 4);
    assert_true(hak_l25_shard_check_locked(&shard));
    hak_unlock(&shard.lock);
}

static unsigned purges;
static int refuse_the_second_purge(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    return call == HAK_SYS_PURGE && ++purges == 2 ? EINVAL : 0;
}

static void *slice(void) { return hak_l25_alloc(HAK_SLICE_BYTES, 16, 0).ptr; }
static void give_slice(void *ptr) { assert_int_equal(hak_l25_free(descriptor_of(ptr), ptr), HAK_FREE_OK); }

/* Two chunks, of which every other slice is free and dirty. */
static void **make_holes(void) {
    static void *blocks[2 * HAK_CHUNK_SLICES];
    for (size_t i = 0; i < 2 * HAK_CHUNK_SLICES; i++) assert_non_null(blocks[i] = slice());
    for (size_t i = 0; i < 2 * HAK_CHUNK_SLICES; i += 2) give_slice(blocks[i]);
    assert_int_equal(hak_l25_stats().mapped_bytes, 2 * HAK_CHUNK_BYTES);
    purges = 0;
    hak_sys_set_fault_for_test(refuse_the_second_purge);
    return blocks;
}

/* Of the first chunk all that the system takes; the second is left alone. */
static void after_a_refusal_no_other_chunk_is_purged(void **state) {
    (void)state;
    enum { HOLES = HAK_CHUNK_SLICES / 2 };
    set_option(RETAIN_BYTES, 64 * HAK_MIB);
    void **blocks = make_holes();
    assert_int_equal(hak_l25_purge_all(), (HOLES - 1) * HAK_SLICE_BYTES);
    assert_int_equal(purges, HOLES);
    assert_int_equal(hak_l25_stats().dirty_bytes, (HOLES + 1) * HAK_SLICE_BYTES);
    hak_sys_set_fault_for_test(NULL);
    assert_int_equal(hak_l25_purge_all(), (HOLES + 1) * HAK_SLICE_BYTES);

    for (size_t i = 0; i < 2 * HAK_CHUNK_SLICES; i += 2) assert_non_null(blocks[i] = slice());
    for (size_t i = 0; i < 2 * HAK_CHUNK_SLICES; i += 2) give_slice(blocks[i]);
    set_option(RETAIN_BYTES, 0);
    set_option(RETAIN_PERCENT, 0);
    purges = 0;
    hak_sys_set_fault_for_test(refuse_the_second_purge);
    give_slice(blocks[1]); /* over budget: the same */
    assert_true(purges >= HOLES - 1 && purges <= HOLES);
    assert_true(hak_l25_stats().dirty_bytes >= (HOLES - 1) * HAK_SLICE_BYTES);
    hak_sys_set_fault_for_test(NULL);
    assert_true(hak_l25_check());
    for (size_t i = 3; i < 2 * HAK_CHUNK_SLICES; i += 2) give_slice(blocks[i]);
}

/* ---- slabs ---- */

/* Eight that became dirty last are looked at for a dirty run; then the tightest clean one serves. */
static void of_many_dirty_superslabs_eight_are_searched(void **state) {
    (void)state;
    enum { FULL = 9, ALL = FULL * HAK_SUPERSLAB_SLABS, LAST = 28 }; /* of the last superslab 4 stay clean */
    static struct hak_slab_run runs[ALL + LAST];
    for (size_t i = 0; i < ALL + LAST; i++) assert_non_null((runs[i] = hak_superslab_take(1, false)).ptr);
    for (size_t i = 0; i < 8; i++) hak_superslab_give(runs[i].superslab, runs[i].first, 1);
    for (size_t s = 1; s < FULL; s++) {
        struct hak_slab_run pair = hak_superslab_take(2, false);
        assert_ptr_equal(pair.superslab, runs[0].superslab); /* not what has less room, but is clean */
        hak_superslab_give(pair.superslab, pair.first, 2);
        const struct hak_slab_run *one = &runs[s * HAK_SUPERSLAB_SLABS];
        hak_superslab_give(one->superslab, one->first, 1);
    }
    struct hak_slab_run pair = hak_superslab_take(2, false);
    assert_ptr_equal(pair.superslab, runs[ALL].superslab);
    hak_superslab_give(pair.superslab, pair.first, 2);
    for (size_t i = 8; i < ALL + LAST; i++)
        if (i < HAK_SUPERSLAB_SLABS || i >= ALL || i % HAK_SUPERSLAB_SLABS != 0)
            hak_superslab_give(runs[i].superslab, runs[i].first, 1);
    assert_true(hak_superslab_check());
    assert_int_equal(hak_superslab_stats().slabs_used, 0);
}

/* ---- the system's answers ---- */

static void a_program_without_a_name_is_called_so(void **state) {
    (void)state;
    char *name = program_invocation_short_name;
    program_invocation_short_name = NULL;
    assert_string_equal(hak_sys_program(), "?");
    program_invocation_short_name = (char *)"";
    assert_string_equal(hak_sys_program(), "?");
    program_invocation_short_name = name;
    assert_string_equal(hak_sys_program(), name);
}

static void a_long_path_is_cut(void **state) {
    (void)state;
    char path[256], found[8], whole[300];
    snprintf(path, sizeof path, "/tmp/hakmem_a_rather_long_name_%d", (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0 && ftruncate(fd, 4096) == 0);
    void *ptr = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    assert_true(ptr != MAP_FAILED);
    assert_int_equal(hak_sys_place_of(ptr, whole, sizeof whole), HAK_PLACE_FILE);
    assert_string_equal(whole, path);
    assert_int_equal(hak_sys_place_of(ptr, found, sizeof found), HAK_PLACE_FILE);
    assert_string_equal(found, "/tmp/ha");
    assert_int_equal(hak_sys_place_of(stdin, whole, sizeof whole), HAK_PLACE_FILE);
    assert_non_null(strstr(whole, "/libc.so")); /* of a library, its name */
    unlink(path);
    munmap(ptr, 4096);
}

static void a_file_can_be_appended_to_or_not(void **state) {
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "/tmp/hakmem_append_%d", (int)getpid());
    errno = 4711;
    assert_true(hak_sys_can_append("/dev/null"));
    assert_false(hak_sys_can_append("/"));
    assert_false(hak_sys_can_append("/no/such/directory"));
    assert_true(hak_sys_can_append(path)); /* it is made */
    assert_true(hak_sys_can_append(path));
    assert_int_equal(errno, 4711);
    assert_int_equal(unlink(path), 0);
}

static void on_larger_pages_a_refusal_is_one_too(void **state) {
    (void)state;
    hak_sys_set_page_bytes_for_test(HAK_GRANULE);
    assert_null(hak_sys_map((size_t)1 << 60));
    char *ptr = hak_sys_map(HAK_GRANULE);
    assert_int_equal((uintptr_t)ptr % HAK_GRANULE, 0);
    hak_sys_set_page_bytes_for_test(0);
    assert_true(hak_sys_unmap(ptr, HAK_GRANULE));
}

static int refuse(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    return call == HAK_SYS_PROTECT ? EINVAL : 0;
}

static void protection_may_be_refused(void **state) {
    (void)state;
    char *ptr = hak_sys_map(4096);
    hak_sys_set_fault_for_test(refuse);
    assert_false(hak_sys_protect(ptr, 4096, false));
    ptr[0] = 1; /* nothing was done */
    hak_sys_set_fault_for_test(NULL);
    assert_true(hak_sys_protect(ptr, 4096, false) && hak_sys_protect(ptr, 4096, true));
    assert_int_equal(ptr[0], 1);
    assert_true(hak_sys_unmap(ptr, 4096));
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, young_clock, drained)
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_old_before_the_clock_has_run_a_delay),
        TEST(the_cache_may_unmap_sooner_than_it_purges),
        TEST(a_block_larger_than_all_the_cache_may_map_is_not_cached),
        TEST(a_walk_for_an_aligned_block_is_cut_short),
        TEST(behind_the_largest_class_there_is_none),
        cmocka_unit_test(no_run_is_found_in_single_slices),
        cmocka_unit_test(a_run_is_resized_to_what_it_is),
        cmocka_unit_test(what_lies_outside_a_chunk_is_free_memory),
        cmocka_unit_test(a_walk_for_an_aligned_run_is_cut_short),
        TEST(after_a_refusal_no_other_chunk_is_purged),
        TEST(of_many_dirty_superslabs_eight_are_searched),
        cmocka_unit_test(a_program_without_a_name_is_called_so),
        cmocka_unit_test(a_long_path_is_cut),
        cmocka_unit_test(a_file_can_be_appended_to_or_not),
        cmocka_unit_test(on_larger_pages_a_refusal_is_one_too),
        cmocka_unit_test(protection_may_be_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
