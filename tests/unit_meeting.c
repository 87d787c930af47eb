/* Where two threads meet in a store: of two frees of one block one is the second, no count is lost, and what one thread
 * takes no other has. */
#include "support/prefixed.h"

#include "base/annotate.h"
#include "base/sync.h"
#include "base/sys.h"
#include "front/heap.h"
#include "front/remote.h"
#include "pages/pages.h"
#include "pages/region.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/l25_shard.h"
#include "stores/slab.h"

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
        struct hak_slab *slab = hak_slab_take(CLASS_1024, &result[which], tag);
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
        hak_remote_free_now(blocks[i]);
    }
}

static void two_threads_that_have_no_heap_share_one(void **state) {
    (void)state;
    meet(rounds(200, 100), nothing, use_the_shared_heap, nothing);
    hak_heap_shared_flush();
    assert_int_equal(hak_slab_stats().slabs_used, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_two_frees_of_a_big_block_one_is_the_second),
        cmocka_unit_test(of_two_frees_of_a_run_one_is_the_second),
        cmocka_unit_test(each_miss_of_a_shard_is_counted),
        cmocka_unit_test(each_mapping_is_counted),
        cmocka_unit_test(a_slab_that_is_given_back_can_be_taken_at_once),
        cmocka_unit_test(two_threads_that_have_no_heap_share_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
