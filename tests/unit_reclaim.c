/* Reuse goes before growth: where one store takes memory that was not resident, the others give back as much of what
 * they hold dirty; none does so for its own growth. Each piece runs in a process of its own. */
#include "support/prefixed.h"

#include "base/options.h"
#include "base/sys.h"
#include "front/tcache.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/slab.h"

#define set_option(name, value) hak_store_rlx(&hak_options.name, value)

static void succeeds(void (*body)(void *)) {
    struct ended ended = run_heard(body, NULL);
    assert_string_equal(ended.text, "");
    assert_int_equal(ended.status, 0);
}

enum { RUNS = 64, LARGE = 1 << 20 };

/* Leaves 64 MiB dirty in the L2.5 pool. */
static void fill_l25(void) {
    void *blocks[RUNS];
    for (unsigned i = 0; i < RUNS; i++) blocks[i] = hak_malloc(LARGE - 64);
    for (unsigned i = 0; i < RUNS; i++) hak_free(blocks[i]);
}

static void have_room_for_all(void) {
    hak_sys_set_now_for_test(1000000); /* nothing is given back by age */
    set_option(RETAIN_BYTES, 128 * MIB);
    set_option(BIGCACHE_RESIDENT, 128 * MIB);
}

static void grow_big(void *argument) {
    (void)argument;
    have_room_for_all();
    fill_l25();
    const uint64_t dirty = hak_l25_stats().dirty_bytes;
    must(dirty >= RUNS * (uint64_t)(LARGE - 64));
    char *block = hak_malloc(24 * MIB);
    hak_tcache_tick();
    must(hak_l25_stats().dirty_bytes <= dirty - 24 * MIB);
    must(hak_l25_stats().dirty_bytes >= dirty - 24 * MIB - 4 * MIB); /* and not more than a chunk's worth of it */
    hak_free(block);
    block = hak_malloc(24 * MIB); /* it is dirty now: nothing fresh is taken */
    const uint64_t left = hak_l25_stats().dirty_bytes;
    hak_tcache_tick();
    must(hak_l25_stats().dirty_bytes == left);
    hak_free(block);
}

static void the_pool_gives_back_what_a_large_block_takes(void **state) {
    (void)state;
    succeeds(grow_big);
}

static void grow_l25(void *argument) {
    (void)argument;
    have_room_for_all();
    hak_free(hak_malloc(48 * MIB));
    must(hak_big_stats().cached_dirty >= 48 * MIB);
    fill_l25();
    hak_tcache_tick();
    must(hak_big_stats().cached_dirty == 0);
    must(hak_l25_stats().dirty_bytes >= RUNS * (uint64_t)(LARGE - 64)); /* its own stay */
}

static void the_cache_of_large_blocks_gives_back_what_the_pool_takes(void **state) {
    (void)state;
    succeeds(grow_l25);
}

static void grow_slabs(void *argument) {
    (void)argument;
    have_room_for_all();
    fill_l25();
    const uint64_t dirty = hak_l25_stats().dirty_bytes;
    for (unsigned i = 0; i < 16 * MIB / 1024; i++) must(hak_malloc(1024) != NULL);
    must(hak_l25_stats().dirty_bytes <= dirty - 14 * MIB);
}

static void the_pool_gives_back_what_small_blocks_take(void **state) {
    (void)state;
    succeeds(grow_slabs);
}

static void free_slabs(void *argument) {
    static void *blocks[32 * 1024];
    (void)argument;
    have_room_for_all();
    for (unsigned i = 0; i < 32 * 1024; i++) blocks[i] = hak_malloc(1024);
    for (unsigned i = 0; i < 32 * 1024; i++) hak_free(blocks[i]);
    hak_thread_flush();
    const uint64_t dirty = hak_slab_stats().dirty_bytes;
    must(dirty >= 30 * MIB);
    void *block = hak_malloc(8 * MIB);
    hak_tcache_tick();
    must(hak_slab_stats().dirty_bytes <= dirty - 8 * MIB);
    hak_free(block);
}

static void slabs_give_back_what_a_large_block_takes(void **state) {
    (void)state;
    succeeds(free_slabs);
}

static void keep_an_eighth(void *argument) {
    (void)argument;
    have_room_for_all();
    fill_l25();
    void *block = hak_malloc(200 * MIB);
    hak_tcache_tick();
    must(hak_l25_stats().dirty_bytes <= 128 * MIB / 8);
    must(hak_l25_stats().dirty_bytes > 128 * MIB / 8 - 4 * MIB);
    hak_free(block);
}

static void an_eighth_of_the_budget_stays(void **state) {
    (void)state;
    succeeds(keep_an_eighth);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pool_gives_back_what_a_large_block_takes),
        cmocka_unit_test(the_cache_of_large_blocks_gives_back_what_the_pool_takes),
        cmocka_unit_test(the_pool_gives_back_what_small_blocks_take),
        cmocka_unit_test(slabs_give_back_what_a_large_block_takes),
        cmocka_unit_test(an_eighth_of_the_budget_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
