/* realloc of large blocks: content, region entries, the moved pages; and threads that share the cache while its table
 * grows and its budgets bite. */
#include <stdio.h>

#include "support/stores.h"

#include <pthread.h>
#include <stdlib.h>

#include "stores/bigcache.h"
#include "stores/bigcache_table.h"

enum { SITE = 0x1234 };

static int fresh_cache(void **state) {
    (void)state;
    hak_sys_set_now_for_test(100000);
    set_option(PURGE_DELAY_MS, 500);
    set_option(BIGCACHE_DECAY_MS, 1000);
    set_option(BIGCACHE_MAPPED, 1024 * HAK_MIB);
    set_option(BIGCACHE_RESIDENT, 32 * HAK_MIB);
    return 0;
}

static int drained_cache(void **state) {
    (void)state;
    bool good = hak_big_check();
    hak_big_purge_all();
    struct hak_big_stats stats = hak_big_stats();
    good = good && stats.mapped_bytes == 0 && stats.live_bytes == 0 && stats.live_blocks == 0 && stats.entries == 0;
    hak_big_reset_for_test();
    return good ? 0 : -1;
}

static char *take(size_t bytes) {
    struct hak_block block = hak_big_alloc(bytes, 16, SITE);
    assert_non_null(block.ptr);
    return block.ptr;
}

static enum hak_free_result give(void *ptr) { return hak_big_free(descriptor_of(ptr), ptr); }

static struct hak_block resize(void *ptr, size_t bytes) {
    return hak_big_realloc(descriptor_of(ptr), ptr, bytes, SITE);
}

static void growth_keeps_the_content_and_adds_zeroes(void **state) {
    (void)state;
    for (size_t align = 16; align <= 16 * HAK_MIB; align *= 64) {
        struct hak_block old = hak_big_alloc(3 * HAK_MIB, align, SITE);
        assert_non_null(old.ptr);
        mark(old.ptr, 3 * HAK_MIB, 7);
        char *wall = take(2 * HAK_MIB); /* likely beside it */
        struct hak_block grown = resize(old.ptr, 20 * HAK_MIB);
        assert_non_null(grown.ptr);
        assert_int_equal(grown.bytes, 20 * HAK_MIB);
        assert_true(is_marked(grown.ptr, 3 * HAK_MIB, 7));
        assert_true(grown.zero);
        assert_true(is_zero((char *)grown.ptr + old.bytes, grown.bytes - old.bytes));
        assert_int_equal(hak_region_lookup(grown.ptr).kind, HAK_KIND_BIG);
        assert_int_equal(hak_big_usable(descriptor_of(grown.ptr), grown.ptr), grown.bytes);
        if (grown.ptr != old.ptr) assert_int_equal(hak_region_lookup(old.ptr).kind, 0);
        assert_int_equal(give(grown.ptr), HAK_FREE_OK);
        assert_int_equal(give(wall), HAK_FREE_OK);
        hak_big_purge_all();
    }
}

static void shrinking_gives_the_tail_back_where_it_is_worth_it(void **state) {
    (void)state;
    char *block = take(16 * HAK_MIB);
    mark(block, 16 * HAK_MIB, 8);
    const uint64_t before = hak_big_stats().mapped_bytes;
    assert_ptr_equal(resize(block, 15 * HAK_MIB).ptr, block); /* within a quarter: left alone */
    assert_int_equal(hak_big_stats().mapped_bytes, before);
    assert_int_equal(hak_big_stats().live_bytes, 15 * HAK_MIB);
    struct hak_block small = resize(block, 2 * HAK_MIB);
    assert_ptr_equal(small.ptr, block);
    assert_in_range(hak_big_stats().mapped_bytes, 2 * HAK_MIB, 2 * HAK_MIB + HAK_GRANULE);
    assert_int_equal(hak_big_stats().live_bytes, small.bytes);
    assert_true(is_marked(block, 2 * HAK_MIB, 8));
    assert_null(resize(block, HAK_L25_MAX).ptr); /* for the layer below */
    assert_int_equal(hak_big_usable(descriptor_of(block), block), small.bytes);
    assert_int_equal(give(block), HAK_FREE_OK);
}

static void a_failure_leaves_the_block_as_it_was(void **state) {
    (void)state;
    char *block = take(2 * HAK_MIB), *wall = take(2 * HAK_MIB);
    mark(block, 2 * HAK_MIB, 9);
    const size_t usable = hak_big_usable(descriptor_of(block), block);
    static const int kinds[] = {-1, HAK_SYS_REMAP};
    for (unsigned i = 0; i < 2; i++) {
        set_faults(1, true, kinds[i]);
        assert_null(resize(block, 64 * HAK_MIB).ptr);
        set_faults(0, false, -1);
        assert_true(is_marked(block, 2 * HAK_MIB, 9));
        assert_int_equal(hak_big_usable(descriptor_of(block), block), usable);
    }
    assert_int_equal(give(block), HAK_FREE_OK);
    assert_int_equal(give(wall), HAK_FREE_OK);
}

/* Only the pages that the program wrote are ever resident: a copy would touch them all. */
static size_t resident_bytes(void) {
    size_t pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    assert_non_null(statm);
    assert_int_equal(fscanf(statm, "%*u %zu", &pages), 1);
    fclose(statm);
    return pages * hak_sys_page_bytes();
}

static void a_vector_grows_to_256_mib_without_a_copy(void **state) {
    (void)state;
    char *vector = take(HAK_MIB + 1), *walls[16];
    mark(vector, HAK_MIB, 10);
    const size_t resident = resident_bytes();
    unsigned count = 0;
    for (size_t bytes = 2 * HAK_MIB; bytes <= 256 * HAK_MIB; bytes *= 2) {
        walls[count++] = take(2 * HAK_MIB);
        struct hak_block grown = resize(vector, bytes);
        assert_non_null(grown.ptr);
        vector = grown.ptr;
        memset(vector + bytes - 1, 1, 1);
    }
    assert_true(is_marked(vector, HAK_MIB, 10));
    assert_in_range(resident_bytes(), 0, resident + 32 * HAK_MIB);
    assert_int_equal(give(vector), HAK_FREE_OK);
    while (count != 0) assert_int_equal(give(walls[--count]), HAK_FREE_OK);
}

static void a_block_that_must_move_gets_an_eighth_more(void **state) {
    (void)state;
    char *block = take(8 * HAK_MIB);
    mark(block, 8 * HAK_MIB, 11);
    set_faults(1, false, HAK_SYS_REMAP); /* no growth in place */
    struct hak_block moved = resize(block, 16 * HAK_MIB);
    set_faults(0, false, -1);
    assert_ptr_not_equal(moved.ptr, block);
    assert_int_equal(moved.bytes, 16 * HAK_MIB);
    assert_int_equal(hak_big_stats().mapped_bytes, 18 * HAK_MIB);
    assert_true(moved.zero);
    assert_true(is_marked(moved.ptr, 8 * HAK_MIB, 11));
    assert_int_equal(hak_region_lookup(block).kind, 0);
    block = moved.ptr;
    set_faults(1, true, -1); /* and the next steps ask the system for nothing */
    moved = resize(block, 18 * HAK_MIB);
    assert_ptr_equal(moved.ptr, block);
    assert_int_equal(moved.bytes, 18 * HAK_MIB);
    assert_true(moved.zero);
    assert_true(is_zero(block + 8 * HAK_MIB, 10 * HAK_MIB));
    assert_ptr_equal(resize(block, 15 * HAK_MIB).ptr, block);
    moved = resize(block, 18 * HAK_MIB); /* the user may have written there */
    assert_ptr_equal(moved.ptr, block);
    assert_false(moved.zero);
    assert_int_equal(fault_calls, 0);
    set_faults(0, false, -1);
    assert_int_equal(give(moved.ptr), HAK_FREE_OK);
}

static void small_steps_mostly_stay_in_place(void **state) {
    (void)state;
    char *vector = take(2 * HAK_MIB);
    unsigned moves = 0;
    for (size_t bytes = 2 * HAK_MIB; bytes < 64 * HAK_MIB; bytes += HAK_GRANULE) {
        struct hak_block grown = resize(vector, bytes);
        assert_non_null(grown.ptr);
        moves += grown.ptr != vector;
        vector = grown.ptr;
    }
    assert_in_range(moves, 0, 40); /* by an eighth each time: at most 30 from 2 to 64 MiB */
    assert_int_equal(give(vector), HAK_FREE_OK);
}

/* The one test that fills the largest table; sanitizers would need shadow for its 48 GiB of address space. */
static void the_table_grows_from_256_to_65536_buckets_in_one_run(void **state) {
    (void)state;
    if (HAK_ASAN || HAK_TSAN || HAK_MSAN) return; /* (cmocka's skip() prints "not ok") */
    enum { ENTRIES = 65536 / 4 * 3 };
    static char *blocks[ENTRIES + 16];
    set_option(BIGCACHE_MAPPED, (uint64_t)128 << 30);
    set_option(BIGCACHE_RESIDENT, (uint64_t)128 << 30);
    for (unsigned i = 0; i < ENTRIES + 16; i++) blocks[i] = take(HAK_MIB + 1);
    for (unsigned i = 0; i < ENTRIES + 16; i++) assert_int_equal(give(blocks[i]), HAK_FREE_OK);
    assert_int_equal(hak_big_stats().buckets, 65536);
    assert_int_equal(hak_big_stats().resizes, 8);
    assert_int_equal(hak_big_stats().entries, ENTRIES + 16);
    assert_true(hak_big_check());
}

/* ---- threads ---- */

enum { THREADS = 6, SLOTS = 400, STEPS = 3000 };
static _Atomic(char *) slots[SLOTS];
static _Atomic unsigned failures;

static char *replace(char *block, uint64_t *random) {
    struct hak_block made;
    if (block != NULL && next_random(random) % 4 == 0) {
        if (!is_stamped(block)) atomic_fetch_add(&failures, 1);
        made = hak_big_realloc(descriptor_of(block), block, HAK_MIB + 1 + next_random(random) % (4 * HAK_MIB), SITE);
        if (made.ptr != NULL) block = made.ptr;
        stamp(block);
        return block;
    }
    if (block != NULL && (!is_stamped(block) || give(block) != HAK_FREE_OK)) atomic_fetch_add(&failures, 1);
    made = hak_big_alloc(HAK_MIB + 1 + next_random(random) % (4 * HAK_MIB), 16, next_random(random) % 8);
    if (made.ptr == NULL) atomic_fetch_add(&failures, 1);
    else stamp(made.ptr);
    return made.ptr;
}

static void *churn(void *argument) {
    uint64_t random = (uintptr_t)argument;
    for (unsigned i = 0; i < STEPS; i++) {
        _Atomic(char *) *slot = &slots[next_random(&random) % SLOTS];
        char *block = replace(atomic_exchange(slot, NULL), &random);
        char *other = atomic_exchange(slot, block);
        if (other != NULL && give(other) != HAK_FREE_OK) atomic_fetch_add(&failures, 1);
        if (i % 64 == 0) hak_big_decay(hak_sys_now_ms());
        if (i % 512 == 0 && !hak_big_check()) atomic_fetch_add(&failures, 1);
        if (i % 1024 == 0) hak_big_purge_all();
    }
    return NULL;
}

static void threads_share_the_cache_while_it_grows_purges_and_evicts(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    hak_sys_set_now_for_test(0);
    set_option(PURGE_DELAY_MS, 1);
    set_option(BIGCACHE_DECAY_MS, 20);
    set_option(BIGCACHE_RESIDENT, 16 * HAK_MIB);
    set_option(RETAIN_PERCENT, 0);
    set_option(BIGCACHE_MAPPED, 256 * HAK_MIB);
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, churn, (void *)(i + 1));
    for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < SLOTS; i++) {
        char *left = atomic_exchange(&slots[i], NULL);
        if (left != NULL) assert_int_equal(give(left), HAK_FREE_OK);
    }
    assert_int_equal(atomic_load(&failures), 0);
    assert_in_range(hak_big_stats().cached_bytes, 0, 256 * HAK_MIB);
    assert_in_range(hak_big_stats().cached_dirty, 0, 16 * HAK_MIB);
}

#define test(name) cmocka_unit_test_setup_teardown(name, fresh_cache, drained_cache)

int main(void) {
    const struct CMUnitTest tests[] = {
        test(growth_keeps_the_content_and_adds_zeroes),
        test(shrinking_gives_the_tail_back_where_it_is_worth_it),
        test(a_vector_grows_to_256_mib_without_a_copy),
        test(a_block_that_must_move_gets_an_eighth_more),
        test(small_steps_mostly_stay_in_place),
        test(the_table_grows_from_256_to_65536_buckets_in_one_run),
        test(threads_share_the_cache_while_it_grows_purges_and_evicts),
        test(a_failure_leaves_the_block_as_it_was), /* the last: a refused move is remembered */
    };
    alarm(600);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
