/* Where there is no memory for hakmem's own records, or for entries of the region map: what each unit does then, step
 * by step. (unit_faults.c asks only that nothing breaks.) And what another thread did while a unit was asking the
 * system: the hook that tests have there does it in its stead. Each test has a process of its own. */
#include "support/inside.h"
#include "support/prefixed.h"
#include "support/far.h"

#include <sys/mman.h>

#include "base/size_class.h"
#include "base/sys.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "pages/meta.h"
#include "pages/pages.h"
#include "pages/region.h"
#include "stores/bigcache.h"
#include "stores/bigcache_table.h"
#include "stores/l25.h"
#include "stores/l25_table.h"
#include "stores/superslab.h"

#define CLASS_64 3
#define CLASS_1024 (HAK_TINY_CLASSES - 1)
#define PER_SLAB_64 1024
#define PER_SLAB_1024 64

static void *take(unsigned c) {
    void *ptr = hak_tcache_alloc(c);
    must(ptr != NULL);
    return ptr;
}

static void give(void *ptr) { hak_tcache_free(ptr, "free"); }

static struct hak_slab *slab_of(const void *ptr) { return hak_region_lookup(ptr).descriptor; }

/* ---- what fails ---- */

/* Mappings of this many bytes are refused; 0: all. */
static size_t refused_bytes;
static int refuse_mappings(enum hak_sys_call call, size_t bytes) {
    return call == HAK_SYS_MAP && (refused_bytes == 0 || bytes == refused_bytes) ? ENOMEM : 0;
}

static int refuse_to_map_and_unmap(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    return call == HAK_SYS_MAP || call == HAK_SYS_UNMAP ? ENOMEM : 0;
}

static int refuse_to_unmap_and_purge(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    return call == HAK_SYS_UNMAP || call == HAK_SYS_PURGE ? ENOMEM : 0;
}

/* From here on there is no metadata to be had, fresh or used. */
static void use_up_metadata(void) {
    refused_bytes = 0;
    hak_sys_set_fault_for_test(refuse_mappings);
    for (unsigned c = HAK_CLASS_COUNT; c-- > 0;)
        while (hak_meta_alloc(hak_class_bytes(c)) != NULL) continue;
}

static void let_all_succeed(void) { hak_sys_set_fault_for_test(NULL); }

/* ---- bins ---- */

/* A bin's class with one slab listed, and no bin. */
static char *slab_without_bin(unsigned c) {
    char *ptr = take(c);
    hak_tcache_rest(hak_tls_heap, 0, 0);
    use_up_metadata();
    return ptr;
}

static void live_without_bins(void *argument) {
    static void *blocks[PER_SLAB_1024];
    (void)argument;
    blocks[0] = slab_without_bin(CLASS_1024);
    uint64_t served = stats_of_front().served_blocks[0], live = stats_of_front().live_blocks[0];
    must(live == 1);
    for (unsigned i = 1; i < PER_SLAB_1024; i++) {
        blocks[i] = take(CLASS_1024);
        memset(blocks[i], (int)i, 1024);
        must(slab_of(blocks[i]) == slab_of(blocks[0]));
        must(stats_of_front().live_blocks[0] == live + i);
        must(stats_of_front().served_blocks[0] == served + i);
    }
    must(hak_tls_heap->slabs[CLASS_1024] == NULL); /* it is full */
    must(hak_tcache_alloc(CLASS_1024) == NULL);    /* and there are no others */
    must(hak_heap_check());
    for (unsigned i = 1; i < PER_SLAB_1024; i++) {
        must(((char *)blocks[i])[1023] == (char)i);
        give(blocks[i]);
        must(stats_of_front().live_blocks[0] == live + PER_SLAB_1024 - 1 - i);
    }
    must(hak_heap_check() && hak_tls_heap->state[CLASS_1024].base == NULL);
    let_all_succeed();
    give(take(CLASS_1024));
    must(hak_tls_heap->state[CLASS_1024].capacity == 16 && hak_heap_check());
}

static void without_slots_for_a_bin_blocks_come_straight_from_the_slab(void **state) {
    (void)state;
    succeeds(live_without_bins);
}

static void make_room_in_vain(void *argument) {
    unsigned large = hak_class_of(512);
    (void)argument;
    void *kept = take(large), *other = take(CLASS_1024);
    hak_tcache_rest(hak_tls_heap, 0, 0);
    give(kept);
    must(hak_tls_heap->capacity_bytes == (size_t)16 * 512);
    set_option(TLS_BYTES, 16 * 512);
    use_up_metadata();
    give(other); /* a bin would need more room than there is, and the other one cannot be made smaller */
    must(hak_tls_heap->state[CLASS_1024].base == NULL);
    must(hak_tls_heap->state[large].capacity == 16 && hak_heap_check());
    take(CLASS_1024);
    must(take(large) == kept);
}

static void a_bin_that_cannot_make_room_stays_as_it_is(void **state) {
    (void)state;
    succeeds(make_room_in_vain);
}

static void **shared_block; /* with the parent, which wants to know the address */

static void free_twice_without_bin(void *argument) {
    (void)argument;
    *shared_block = slab_without_bin(CLASS_64);
    give(*shared_block);
    give(*shared_block);
}

static void without_a_bin_a_double_free_is_found_at_once(void **state) {
    (void)state;
    char line[256];
    struct ended ended = run_heard(free_twice_without_bin, NULL);
    snprintf(line, sizeof line, "hakmem[%d unit_refusals]: free(%p): double free\n", (int)ended.pid, *shared_block);
    if (HAK_TRACE) ended.text[strcspn(ended.text, "\n") + 1] = '\0'; /* how it came about stands behind it */
    assert_string_equal(ended.text, line);
    assert_true(WIFSIGNALED(ended.status) && WTERMSIG(ended.status) == SIGABRT);
}

static void refill_often(unsigned refills) {
    for (unsigned i = 0; i < refills; i++)
        for (unsigned j = 0; j < 16; j++) take(CLASS_64);
}

static void stay_small(void *argument) {
    (void)argument;
    take(CLASS_64);
    use_up_metadata();
    refill_often(20);
    must(hak_tls_heap->state[CLASS_64].capacity == 16);
    must(stats_of_front().grows == 0 && hak_heap_check());
    let_all_succeed();
    refill_often(5);
    must(hak_tls_heap->state[CLASS_64].capacity > 16);
}

static void a_bin_that_cannot_grow_stays_as_it_is(void **state) {
    (void)state;
    succeeds(stay_small);
}

static void stay_large(void *argument) {
    static void *blocks[PER_SLAB_64];
    (void)argument;
    for (unsigned i = 0; i < 600; i++) blocks[i] = take(CLASS_64);
    must(hak_tls_heap->state[CLASS_64].capacity == 16);
    use_up_metadata();
    for (unsigned i = 0; i < 600; i++) give(blocks[i]); /* visits that leave blocks in the bin: time to shrink */
    must(hak_tls_heap->state[CLASS_64].capacity == 16);
    must(stats_of_front().shrinks == 0 && hak_heap_check());
    let_all_succeed();
    for (unsigned i = 0; i < 900; i++) blocks[i] = take(CLASS_64);
    for (unsigned i = 0; i < 900; i++) give(blocks[i]);
    must(stats_of_front().shrinks > 0);
}

static void a_bin_that_cannot_shrink_stays_as_it_is(void **state) {
    (void)state;
    set_option(TLS_SLOTS_MIN, 4);
    set_option(TLS_SLOTS_MAX, 16);
    succeeds(stay_large);
    set_option(TLS_SLOTS_MIN, 16);
    set_option(TLS_SLOTS_MAX, 2048);
}

/* ---- heaps ---- */

static void *use_class_1024(void *argument) {
    (void)argument;
    uint64_t served = stats_of_front().served_blocks[0];
    void *ptr = take(CLASS_1024);
    must(hak_heap_peek() == NULL); /* it was served without a heap of its own */
    must(stats_of_front().served_blocks[0] == served + 1 && stats_of_front().live_blocks[0] == 1);
    must(hak_region_lookup(ptr).owner != 0);
    give(ptr);
    let_all_succeed();
    give(take(CLASS_1024));
    must(hak_heap_peek() != NULL); /* the next try gets one */
    return NULL;
}

static void live_without_heap(void *argument) {
    (void)argument;
    give(take(CLASS_1024)); /* its record and its granule serve again */
    hak_tcache_flush_all(hak_tls_heap);
    must(hak_superslab_stats().superslabs == 1);
    use_up_metadata();
    run_thread(use_class_1024, NULL);
    hak_heap_shared_flush();
    must(stats_of_front().live_blocks[0] == 0);
}

static void a_thread_without_memory_for_a_heap_is_served_from_the_shared_one(void **state) {
    (void)state;
    succeeds(live_without_heap);
}

struct beginning {
    struct hak_heap *heap;
    unsigned bins;
};
static void *count_bins(void *argument) {
    struct beginning *beginning = argument;
    hak_tcache_alloc(CLASS_1024); /* met or refused: the thread gets its heap */
    beginning->heap = hak_heap_peek();
    must(beginning->heap != NULL);
    for (unsigned c = 0; c < 4; c++) beginning->bins += hak_tls_heap->state[c].base != NULL;
    let_all_succeed();
    give(take(0));
    must(hak_heap_check());
    return NULL;
}

static void begin_cold(void *argument) {
    struct beginning first = {.bins = 0}, second = {.bins = 0};
    (void)argument;
    take(0);
    run_thread(count_bins, &first);
    must(first.bins == 4 && first.heap->parked);
    hak_tcache_rest(first.heap, 0, 0);
    use_up_metadata();
    run_thread(count_bins, &second);
    must(second.heap == first.heap && second.bins == 0);
}

static void without_memory_for_bins_a_thread_begins_cold(void **state) {
    (void)state;
    succeeds(begin_cold);
}

/* Metadata far away, which the next request of this size will get. */
static void *plant_metadata(size_t bytes, uintptr_t align, uintptr_t offset) {
    uintptr_t page = offset & ~(uintptr_t)4095;
    char *ptr = far_away(hak_round_up(bytes + 4096, 4096), align, page) + (offset - page);
    hak_meta_free(ptr, bytes);
    return ptr;
}

static void *tell_heap(void *heap) {
    take(CLASS_64);
    *(struct hak_heap **)heap = hak_tls_heap;
    return NULL;
}

static void meet_the_same_tag(void *argument) {
    (void)argument;
    take(CLASS_64);
    const uintptr_t window = (uintptr_t)1 << 32;
    uintptr_t mine = (uintptr_t)hak_tls_heap;
    void *zero = plant_metadata(sizeof(struct hak_heap), window, 0);
    void *same = plant_metadata(sizeof(struct hak_heap), window, mine & (window - 1));
    must(hak_heap_tag(same) == hak_heap_tag(hak_tls_heap) && hak_heap_tag(zero) == 0);
    struct hak_heap *heap = NULL;
    run_thread(tell_heap, &heap);
    must(heap != NULL && heap != same && heap != zero);
    must(hak_heap_tag(heap) != 0 && hak_heap_tag(heap) != hak_heap_tag(hak_tls_heap));
}

static void no_heap_has_the_tag_of_another_or_none(void **state) {
    (void)state;
    if (ANY_ADDRESS) succeeds(meet_the_same_tag);
}

/* ---- pages and metadata ---- */

static void refuse_to_forget(void *argument) {
    (void)argument;
    char *ptr = hak_pages_map(4 * HAK_GRANULE, HAK_GRANULE, NULL);
    must(ptr != NULL);
    memset(ptr, 0xee, 4 * HAK_GRANULE);
    use_up_metadata();
    hak_sys_set_fault_for_test(refuse_to_map_and_unmap);
    hak_pages_unmap(ptr, 4 * HAK_GRANULE);
    must(hak_pages_stats().retained_bytes == 0); /* nobody knows of it any more */
    must(is_zero(ptr, 4 * HAK_GRANULE));         /* but it holds no memory */
}

static void a_range_that_cannot_be_noted_is_lost_but_for_its_memory(void **state) {
    (void)state;
    succeeds(refuse_to_forget);
}

static void map_past_what_is_kept(void *argument) {
    (void)argument;
    char *kept = hak_pages_map(4 * HAK_GRANULE, HAK_GRANULE, NULL);
    hak_sys_set_fault_for_test(refuse_to_unmap);
    hak_pages_unmap(kept, 4 * HAK_GRANULE);
    must(hak_pages_stats().retained_bytes == 4 * HAK_GRANULE);
    use_up_metadata();
    must(hak_pages_map(HAK_GRANULE, HAK_GRANULE, NULL) == NULL); /* a cut needs a record, a mapping the system */
    let_all_succeed();
    must(hak_pages_map(HAK_GRANULE, HAK_GRANULE, NULL) == kept);
    must(hak_pages_stats().retained_bytes == 3 * HAK_GRANULE);
}

static void what_is_kept_cannot_be_cut_without_a_record(void **state) {
    (void)state;
    succeeds(map_past_what_is_kept);
}

static int take_first(enum hak_sys_call call, size_t bytes) {
    if (call != HAK_SYS_MAP) return 0;
    hak_sys_set_fault_for_test(NULL);
    must(bytes == 256 * HAK_KIB);
    must(hak_meta_alloc(16) != NULL); /* as another thread might: it maps a chunk of its own */
    return 0;
}

static void map_a_chunk_too_many(void *argument) {
    (void)argument;
    use_up_metadata();
    hak_sys_set_fault_for_test(take_first);
    uint64_t before = hak_meta_mapped_bytes();
    must(hak_meta_alloc(16) != NULL);
    must(hak_meta_mapped_bytes() == before + 256 * HAK_KIB); /* one of the two went back */
}

static void of_two_chunks_mapped_at_once_one_goes_back(void **state) {
    (void)state;
    succeeds(map_a_chunk_too_many);
}

/* ---- the region map ---- */

static void refuse_leaves(void) {
    refused_bytes = sizeof(struct hak_region_leaf);
    hak_sys_set_fault_for_test(refuse_mappings);
}

static void reserve_from_used_pages(void *argument) {
    (void)argument;
    char *used = hak_pages_map(sizeof(struct hak_region_leaf), HAK_GRANULE, NULL);
    memset(used, 0xee, sizeof(struct hak_region_leaf));
    hak_sys_set_fault_for_test(refuse_to_unmap_and_purge);
    hak_pages_unmap(used, sizeof(struct hak_region_leaf));
    let_all_succeed();
    char *ptr = far_away(HAK_GRANULE, WINDOW, 0);
    must(hak_region_reserve(ptr, HAK_GRANULE));
    must((char *)hak_region_leaf_of(ptr) == used);
    must(is_zero(used, sizeof(struct hak_region_leaf)));
}

static void a_leaf_from_used_pages_is_cleared(void **state) {
    (void)state;
    if (ANY_ADDRESS) succeeds(reserve_from_used_pages);
}

static void map_chunk_without_leaf(void *argument) {
    (void)argument;
    keep_far_away(HAK_CHUNK_BYTES, 0);
    refuse_leaves();
    must(hak_l25_alloc(HAK_L25_MAX, 16, 0).ptr == NULL);
    must(hak_l25_stats().mapped_bytes == 0 && hak_l25_check());
    let_all_succeed();
    struct hak_block block = hak_l25_alloc(HAK_L25_MAX, 16, 0);
    must(block.ptr != NULL && hak_l25_stats().mapped_bytes == HAK_CHUNK_BYTES);
}

static void take_slab_without_leaf(void *argument) {
    (void)argument;
    char *kept = keep_far_away(HAK_SUPERSLAB_BYTES, 0);
    refuse_leaves();
    must(hak_superslab_take(1, false).ptr == NULL);
    must(hak_superslab_stats().superslabs == 0 && hak_superslab_check());
    let_all_succeed();
    struct hak_slab_run run = hak_superslab_take(1, false);
    must(run.ptr != NULL && run.ptr != kept && hak_superslab_stats().superslabs == 1);
    use_up_metadata();
    for (unsigned i = 1; i < HAK_SUPERSLAB_SLABS; i++) must(hak_superslab_take(1, false).ptr != NULL);
    must(hak_superslab_take(1, false).ptr == NULL); /* nor is there a record for another */
}

static void map_block_without_leaf(void *argument) {
    (void)argument;
    keep_far_away(2 * HAK_MIB, 0);
    refuse_leaves();
    must(hak_big_alloc(2 * HAK_MIB, 16, 0).ptr == NULL);
    must(hak_big_stats().mapped_bytes == 0 && hak_big_stats().live_blocks == 0 && hak_big_check());
}

static void without_a_leaf_nothing_is_mapped(void **state) {
    (void)state;
    if (!ANY_ADDRESS) return;
    succeeds(map_chunk_without_leaf);
    succeeds(take_slab_without_leaf);
    succeeds(map_block_without_leaf);
}

/* A block of 2 MiB that ends where a window does, and of which the next window has no leaf. */
static char *block_at_the_end_of_a_window(void) {
    char *kept = keep_far_away(2 * HAK_MIB, WINDOW - 2 * HAK_MIB);
    char *ptr = hak_big_alloc(2 * HAK_MIB, 16, 0).ptr;
    must(ptr == kept && hak_region_leaf_of(ptr + 2 * HAK_MIB) == NULL);
    fill(ptr, 2 * HAK_MIB, 7);
    return ptr;
}

static void grow_into_a_window_without_leaf(void *argument) {
    (void)argument;
    char *ptr = block_at_the_end_of_a_window();
    uint64_t mapped = hak_pages_stats().mapped_bytes;
    void *big = hak_region_lookup(ptr).descriptor;
    refuse_leaves();
    must(hak_big_realloc(big, ptr, 3 * HAK_MIB, 0).ptr == NULL);
    must(is_filled(ptr, 2 * HAK_MIB, 7) && hak_big_usable(big, ptr) == 2 * HAK_MIB);
    must(hak_pages_stats().mapped_bytes == mapped && hak_big_stats().mapped_bytes == 2 * HAK_MIB);
    let_all_succeed();
    must(hak_big_realloc(big, ptr, 3 * HAK_MIB, 0).ptr == ptr); /* in place, over the border */
    must(hak_region_lookup(ptr + 2 * HAK_MIB).descriptor == big);
    must(hak_big_free(big, ptr) == HAK_FREE_OK && hak_big_check());
}

static void move_to_a_window_without_leaf(void *argument) {
    (void)argument;
    char *ptr = hak_big_alloc(2 * HAK_MIB, 16, 0).ptr;
    void *big = hak_region_lookup(ptr).descriptor;
    fill(ptr, 2 * HAK_MIB, 7);
    void *behind = mmap(ptr + 2 * HAK_MIB, HAK_GRANULE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
                        -1, 0);
    must(behind != MAP_FAILED || errno == EEXIST); /* it cannot grow where it is */
    keep_far_away(7 * HAK_MIB / 2, 0);             /* too small for a leaf */
    keep_far_away(7 * HAK_MIB / 2, 0);             /* it tries twice: with an eighth more, and without */
    refuse_leaves();
    must(hak_big_realloc(big, ptr, 3 * HAK_MIB, 0).ptr == NULL);
    must(is_filled(ptr, 2 * HAK_MIB, 7) && hak_big_usable(big, ptr) == 2 * HAK_MIB);
    must(hak_region_lookup(ptr).descriptor == big);
    must(hak_big_free(big, ptr) == HAK_FREE_OK && hak_big_check());
}

static void a_block_that_cannot_be_entered_at_its_new_place_stays(void **state) {
    (void)state;
    if (!ANY_ADDRESS) return;
    succeeds(grow_into_a_window_without_leaf);
    succeeds(move_to_a_window_without_leaf);
}

/* ---- tables ---- */

static void begin_with_fewer_shards(void *argument) {
    (void)argument;
    set_option(L25_SHARDS_MIN, 1024);
    use_up_metadata();
    must(hak_l25_table_count() == 64); /* the first block of shards is static */
    let_all_succeed();
    must(hak_l25_alloc(HAK_L25_MAX, 16, 1000).ptr != NULL && hak_l25_check());
}

static void without_memory_the_table_of_shards_begins_with_64(void **state) {
    (void)state;
    succeeds(begin_with_fewer_shards);
}

/* Load enough in one interval; the next look at the clock doubles the table. */
static uint64_t now_ms = 100000;
static void look_at_the_clock_after_load(uint64_t load) {
    for (uint32_t i = 0; i < hak_l25_table_count(); i++) hak_add_rlx(&hak_l25_table_shard(i)->requests, load);
    hak_sys_set_now_for_test(now_ms += 1000);
    hak_l25_table_tick();
}

static int double_first(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    if (call != HAK_SYS_MAP) return 0;
    hak_sys_set_fault_for_test(NULL);
    look_at_the_clock_after_load(10000); /* as another thread might, an interval later */
    return 0;
}

static void double_twice_at_once(void *argument) {
    (void)argument;
    hak_sys_set_now_for_test(now_ms);
    must(hak_l25_table_count() == 64);
    use_up_metadata();
    hak_sys_set_fault_for_test(double_first);
    look_at_the_clock_after_load(10000);
    must(hak_l25_table_count() == 128); /* once, not twice */
    must(hak_l25_table_expansions() == 1 && hak_l25_check());
}

static void look_back(void *argument) {
    (void)argument;
    hak_sys_set_now_for_test(now_ms);
    must(hak_l25_table_count() == 64);
    now_ms -= 5000;
    look_at_the_clock_after_load(10000);
    must(hak_l25_table_count() == 64); /* another thread has read a later time */
    now_ms += 5000;
    look_at_the_clock_after_load(0);
    must(hak_l25_table_count() == 128);
}

static void two_that_double_the_shards_at_once_do_it_once(void **state) {
    (void)state;
    succeeds(double_twice_at_once);
    succeeds(look_back);
}

static void *cached_block(uintptr_t site) { return hak_big_alloc(HAK_MIB + 1, 16, site).ptr; }
static void free_big(void *ptr) { must(hak_big_free(hak_region_lookup(ptr).descriptor, ptr) == HAK_FREE_OK); }

static void *spare_block;
static int cache_first(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    if (call != HAK_SYS_MAP) return 0;
    hak_sys_set_fault_for_test(NULL);
    free_big(spare_block); /* as another thread might: it makes the buckets */
    return 0;
}

static void make_buckets_twice_at_once(void *argument) {
    (void)argument;
    void *ptr = cached_block(1);
    spare_block = cached_block(2);
    use_up_metadata();
    hak_sys_set_fault_for_test(cache_first);
    free_big(ptr);
    must(hak_big_stats().entries == 2 && hak_big_stats().buckets == HAK_BIG_BUCKETS_MIN && hak_big_check());
}

static int set_aside(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    if (call != HAK_SYS_PURGE) return 0;
    hak_sys_set_fault_for_test(NULL);
    hak_big_reset_for_test(); /* as a child does that was forked in between: no buckets */
    return 0;
}

static void purge_what_is_set_aside(void *argument) {
    (void)argument;
    void *ptr = cached_block(1);
    hak_sys_set_now_for_test(now_ms);
    free_big(ptr);
    hak_sys_set_fault_for_test(set_aside);
    set_option(BIGCACHE_DECAY_MS, 3600000);
    hak_big_decay(now_ms + 1000);
    must(hak_region_lookup(ptr).kind == HAK_KIND_NONE); /* it was dropped */
    must(hak_big_stats().mapped_bytes == 0 && hak_big_stats().entries == 0 && hak_big_check());
}

/* Purged at once, for it is over the budget alone, and then there are no buckets to be had. */
static void cache_without_buckets(void *argument) {
    (void)argument;
    set_option(BIGCACHE_RESIDENT, HAK_MIB);
    set_option(RETAIN_PERCENT, 0);
    void *ptr = cached_block(1);
    use_up_metadata();
    free_big(ptr);
    must(hak_region_lookup(ptr).kind == HAK_KIND_NONE);
    must(hak_big_stats().mapped_bytes == 0 && hak_big_stats().entries == 0 && hak_big_check());
}

static void without_buckets_nothing_is_cached(void **state) {
    (void)state;
    succeeds(cache_without_buckets);
}

static void what_happens_to_the_cache_meanwhile_is_minded(void **state) {
    (void)state;
    succeeds(make_buckets_twice_at_once);
    succeeds(purge_what_is_set_aside);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_slots_for_a_bin_blocks_come_straight_from_the_slab),
        cmocka_unit_test(a_bin_that_cannot_make_room_stays_as_it_is),
        cmocka_unit_test(without_a_bin_a_double_free_is_found_at_once),
        cmocka_unit_test(a_bin_that_cannot_grow_stays_as_it_is),
        cmocka_unit_test(a_bin_that_cannot_shrink_stays_as_it_is),
        cmocka_unit_test(a_thread_without_memory_for_a_heap_is_served_from_the_shared_one),
        cmocka_unit_test(without_memory_for_bins_a_thread_begins_cold),
        cmocka_unit_test(no_heap_has_the_tag_of_another_or_none),
        cmocka_unit_test(a_range_that_cannot_be_noted_is_lost_but_for_its_memory),
        cmocka_unit_test(what_is_kept_cannot_be_cut_without_a_record),
        cmocka_unit_test(of_two_chunks_mapped_at_once_one_goes_back),
        cmocka_unit_test(a_leaf_from_used_pages_is_cleared),
        cmocka_unit_test(without_a_leaf_nothing_is_mapped),
        cmocka_unit_test(a_block_that_cannot_be_entered_at_its_new_place_stays),
        cmocka_unit_test(without_memory_the_table_of_shards_begins_with_64),
        cmocka_unit_test(two_that_double_the_shards_at_once_do_it_once),
        cmocka_unit_test(without_buckets_nothing_is_cached),
        cmocka_unit_test(what_happens_to_the_cache_meanwhile_is_minded),
    };
    shared_block = mmap(NULL, sizeof *shared_block, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared_block != MAP_FAILED);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
