/* Where two threads meet in a store: of two frees of one block one is the second, no count is lost, and what one thread
 * takes no other has. */
#include "support/prefixed.h"

#include "base/annotate.h"
#include "base/sync.h"
#include "base/sys.h"
#include "front/heap.h"
#include "front/remote.h"
#include "pages/meta.h"
#include "pages/pages.h"
#include "pages/region.h"
#include "stores/bigcache.h"
#include "stores/bigcache_table.h"
#include "stores/l25.h"
#include "stores/l25_shard.h"
#include "stores/slab.h"
#include "stores/superslab.h"

#define CLASS_1024 (HAK_TINY_CLASSES - 1)
/* Of what a thread does in one round. */
#define TIMES 50

/* ---- two threads do one thing at the same time, over and over ------------------------------------------------- */

typedef void body(unsigned which);

static struct {
    body *work;
    unsigned rounds;
    _Atomic unsigned begun, arrived; /* rounds; threads, over all rounds */
} both;

static void wait_for(_Atomic unsigned *count, unsigned least) {
    for (unsigned spins = 0; atomic_load(count) < least; spins++)
        if (spins > 1000) sched_yield(); /* on one processor the other thread would wait for our time to pass */
}

static void *do_it_too(void *unused) {
    for (unsigned n = 1; n <= both.rounds; n++) {
        wait_for(&both.begun, n);
        both.work(1);
        atomic_fetch_add(&both.arrived, 1);
    }
    return unused;
}

/* In each round: `before` here, `work` in both threads, `after` here. */
static void meet(unsigned count, void (*before)(void), body *work, void (*after)(void)) {
    pthread_t other;
    both.work = work;
    both.rounds = count;
    atomic_store(&both.begun, 0);
    atomic_store(&both.arrived, 0);
    start_thread(&other, do_it_too, NULL);
    for (unsigned n = 1; n <= count; n++) {
        before();
        atomic_fetch_add(&both.begun, 1);
        for (unsigned skew = 0; skew < n % 64; skew++) hak_sys_relax(); /* the other sees it some time later */
        work(0);
        wait_for(&both.arrived, n);
        after();
    }
    must(pthread_join(other, NULL) == 0);
}

static void nothing(void) {}

/* ---- two frees of one block ------------------------------------------------------------------------------------ */

static void *block;
static enum hak_free_result result[2];

static void take_big(void) { must((block = hak_big_alloc(2 * MIB, 0, 0).ptr) != NULL); }
static void free_big(unsigned which) { result[which] = hak_big_free(hak_region_lookup(block).descriptor, block); }
static void take_run(void) { must((block = hak_l25_alloc(100 * KIB, 0, 0).ptr) != NULL); }
static void free_run(unsigned which) { result[which] = hak_l25_free(hak_region_lookup(block).descriptor, block); }

static void one_was_the_second(void) {
    must(result[0] == HAK_FREE_OK ? result[1] == HAK_FREE_DOUBLE
                                  : result[0] == HAK_FREE_DOUBLE && result[1] == HAK_FREE_OK);
}

static void of_two_frees_of_a_big_block_one_is_the_second(void **state) {
    (void)state;
    meet(rounds(5000, 100), take_big, free_big, one_was_the_second);
    assert_true(hak_big_check());
}

static void of_two_frees_of_a_run_one_is_the_second(void **state) {
    (void)state;
    meet(rounds(5000, 100), take_run, free_run, one_was_the_second);
    assert_true(hak_l25_check());
}

/* ---- counts ------------------------------------------------------------------------------------------------------ */

static struct hak_l25_shard shard;

static void miss_the_shard(unsigned which) {
    (void)which;
    for (unsigned i = 0; i < TIMES; i++) must(!hak_l25_shard_try(&shard));
}

static void each_miss_of_a_shard_is_counted(void **state) {
    (void)state;
    const unsigned count = rounds(200, 100);
    hak_l25_shard_init(&shard, 0);
    hak_lock(&shard.lock);
    meet(count, nothing, miss_the_shard, nothing);
    hak_unlock(&shard.lock);
    assert_int_equal(hak_load_rlx(&shard.misses), 2 * TIMES * count);
}

static void map_and_unmap(unsigned which) {
    (void)which;
    for (unsigned i = 0; i < TIMES; i++) {
        void *range = hak_pages_map(HAK_GRANULE, HAK_GRANULE, NULL);
        must(range != NULL);
        hak_pages_unmap(range, HAK_GRANULE);
    }
}

static void each_mapping_is_counted(void **state) {
    (void)state;
    struct hak_pages_stats before = hak_pages_stats();
    meet(rounds(200, 100), nothing, map_and_unmap, nothing);
    struct hak_pages_stats after = hak_pages_stats();
    assert_int_equal(after.mappings, before.mappings);
    assert_int_equal(after.mapped_bytes, before.mapped_bytes);
}

/* ---- slabs ------------------------------------------------------------------------------------------------------- */

static void take_and_give_slabs(unsigned which) {
    const uint32_t tag = 16 + which;
    for (unsigned i = 0; i < TIMES; i++) {
        struct hak_slab *slab = hak_slab_take(CLASS_1024, &result[which], tag, false);
        must(slab != NULL && hak_load_acq(&slab->owner) == &result[which]);
        struct hak_region region = hak_region_lookup(slab->base);
        must(region.owner == tag && region.descriptor == slab && hak_slab_check(slab));
        must(hak_slab_stats().slabs_used != 0);
        hak_slab_give(slab);
    }
}

static void a_slab_that_is_given_back_can_be_taken_at_once(void **state) {
    (void)state;
    uint64_t before = hak_slab_stats().slabs_used;
    meet(rounds(1000, 100), nothing, take_and_give_slabs, nothing);
    assert_int_equal(hak_slab_stats().slabs_used, before);
}

static void use_the_shared_heap(unsigned which) {
    unsigned char *blocks[TIMES];
    for (unsigned i = 0; i < TIMES; i++) {
        must((blocks[i] = hak_heap_shared_alloc(CLASS_1024)) != NULL);
        hak_annotate_open(blocks[i], 1024);
        fill(blocks[i], 1000, which);
    }
    for (unsigned i = 0; i < TIMES; i++) {
        must(is_filled(blocks[i], 1000, which));
        hak_annotate_close(blocks[i], 1024);
        hak_remote_free_now(hak_region_lookup(blocks[i]).descriptor, blocks[i], "free");
    }
}

static void two_threads_that_have_no_heap_share_one(void **state) {
    (void)state;
    meet(rounds(200, 100), nothing, use_the_shared_heap, nothing);
    hak_heap_shared_flush();
    assert_int_equal(hak_slab_stats().slabs_used, 0);
}

/* ---- one thread after the other, and nothing but the allocator's own locks says so ------------------------------ */

/* ThreadSanitizer sees then that a lock is missing, whatever the moment. */
struct sequel {
    void (*before)(void); /* here, then */
    void (*first)(void);  /* in another thread, and then */
    void (*second)(void); /* here */
};

static struct {
    const struct sequel *sequel;
    _Atomic bool first_is_done, may_end; /* relaxed: they order nothing */
} sequence;

static void wait_relaxed(_Atomic bool *flag) {
    while (!atomic_load_explicit(flag, memory_order_relaxed)) sched_yield();
}

static void *do_the_first(void *unused) {
    sequence.sequel->first();
    atomic_store_explicit(&sequence.first_is_done, true, memory_order_relaxed);
    wait_relaxed(&sequence.may_end);
    return unused;
}

static void run_sequel(const struct sequel *sequel) {
    pthread_t other;
    sequence.sequel = sequel;
    atomic_store(&sequence.first_is_done, false);
    atomic_store(&sequence.may_end, false);
    sequel->before();
    start_thread(&other, do_the_first, NULL);
    wait_relaxed(&sequence.first_is_done);
    sequel->second();
    atomic_store_explicit(&sequence.may_end, true, memory_order_relaxed);
    must(pthread_join(other, NULL) == 0);
}

static struct hak_slab *slab;
static void take_slab(void) { must((slab = hak_slab_take(CLASS_1024, &slab, 16, false)) != NULL); }
static void give_slab(void) { hak_slab_give(slab); }
static void take_and_give_another_slab(void) {
    struct hak_slab *another = hak_slab_take(CLASS_1024, &slab, 16, false);
    must(another != NULL);
    hak_slab_give(another);
}

static void take_and_give_granule(void) {
    struct hak_slab_run run = hak_superslab_take(1, false);
    must(run.ptr != NULL);
    hak_superslab_give(run.superslab, run.first, 1);
}
static void ask_for_figures(void) {
    hak_superslab_stats();
    hak_l25_stats();
    hak_big_stats();
}

static void *metadata;
static void take_metadata(void) { must((metadata = hak_meta_alloc(200)) != NULL); }
static void give_metadata(void) { hak_meta_free(metadata, 200); }
static void take_and_give_metadata(void) {
    void *another = hak_meta_alloc(200);
    must(another != NULL);
    hak_meta_free(another, 200);
}

static void use_one_shared_block(void) {
    void *one = hak_heap_shared_alloc(CLASS_1024);
    must(one != NULL);
    hak_remote_free_now(hak_region_lookup(one).descriptor, one, "free");
}

static void free_the_run(void) { free_run(0); }
static void take_and_free_another_run(void) {
    void *another = hak_l25_alloc(100 * KIB, 0, 0).ptr;
    must(another != NULL && hak_l25_free(hak_region_lookup(another).descriptor, another) == HAK_FREE_OK);
}

/* Too small to be kept: its descriptor is recycled at once. */
static void take_small(void) { must((block = hak_big_alloc(HAK_GRANULE, 2 * MIB, 0).ptr) != NULL); }
static void free_small(void) { free_big(0); }
static void take_and_free_another_small(void) {
    void *another = hak_big_alloc(HAK_GRANULE, 2 * MIB, 0).ptr;
    must(another != NULL && hak_big_free(hak_region_lookup(another).descriptor, another) == HAK_FREE_OK);
}

/* As many as make the table grow with the last of them. */
static void *many[HAK_BIG_BUCKETS_MIN];
static size_t needed;

static void take_many(size_t count) {
    for (size_t i = 0; i < count; i++) must((many[i] = hak_big_alloc(MIB + 1, 0, i).ptr) != NULL);
}
static void free_one_of_many(size_t i) {
    must(hak_big_free(hak_region_lookup(many[i]).descriptor, many[i]) == HAK_FREE_OK);
}
static void take_as_many_as_needed(void) {
    hak_big_reset_for_test();
    take_many(COUNT(many));
    for (needed = 0; needed < COUNT(many) && hak_big_stats().resizes == 0; needed++) free_one_of_many(needed);
    must(hak_big_stats().resizes == 1);
    for (size_t i = needed; i < COUNT(many); i++) free_one_of_many(i);
    hak_big_reset_for_test();
    take_many(needed);
}
static void free_as_many_as_needed(void) {
    for (size_t i = 0; i < needed; i++) free_one_of_many(i);
}
static void expect_one_resize(void) { must(hak_big_stats().resizes == 1); }

static void what_a_lock_protects_is_seen_by_the_next_holder(void **state) {
    static const struct sequel sequels[] = {
        {take_slab, give_slab, take_and_give_another_slab},
        {take_slab, take_and_give_another_slab, give_slab},
        {nothing, take_and_give_granule, take_and_give_granule},
        {nothing, take_and_give_granule, ask_for_figures},
        {take_metadata, give_metadata, take_and_give_metadata},
        {use_one_shared_block, use_one_shared_block, use_one_shared_block},
        {take_run, free_the_run, take_and_free_another_run},
        {take_run, free_the_run, ask_for_figures},
        {take_small, free_small, take_and_free_another_small},
        {take_as_many_as_needed, free_as_many_as_needed, expect_one_resize},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(sequels); i++) run_sequel(&sequels[i]);
    hak_big_purge_all();
    hak_heap_shared_flush();
    assert_true(hak_superslab_check() && hak_l25_check() && hak_big_check());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_two_frees_of_a_big_block_one_is_the_second),
        cmocka_unit_test(of_two_frees_of_a_run_one_is_the_second),
        cmocka_unit_test(each_miss_of_a_shard_is_counted),
        cmocka_unit_test(each_mapping_is_counted),
        cmocka_unit_test(a_slab_that_is_given_back_can_be_taken_at_once),
        cmocka_unit_test(two_threads_that_have_no_heap_share_one),
        cmocka_unit_test(what_a_lock_protects_is_seen_by_the_next_holder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
