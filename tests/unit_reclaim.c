/* Budgets of dirty memory. Reuse goes before growth: where one store takes memory that was not resident, the others
 * give back as much of what they hold dirty; none does so for its own growth. And what a store gave back too early it
 * keeps the next time. Each piece runs in a process of its own. */
#include "support/inside.h"
#include "support/prefixed.h"

#include "base/sys.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "front/tick.h"
#include "pages/budget.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/slab.h"

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
    hak_tick();
    must(hak_l25_stats().dirty_bytes <= dirty - 24 * MIB);
    must(hak_l25_stats().dirty_bytes >= dirty - 24 * MIB - 4 * MIB); /* and not more than a chunk's worth of it */
    hak_free(block);
    block = hak_malloc(24 * MIB); /* it is dirty now: nothing fresh is taken */
    const uint64_t left = hak_l25_stats().dirty_bytes;
    hak_tick();
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
    hak_tick();
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
    hak_tick();
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
    hak_tick();
    must(hak_l25_stats().dirty_bytes <= 128 * MIB / 8);
    must(hak_l25_stats().dirty_bytes > 128 * MIB / 8 - 4 * MIB);
    hak_free(block);
}

static void an_eighth_of_the_budget_stays(void **state) {
    (void)state;
    succeeds(keep_an_eighth);
}

/* Rounds of one large block: what it takes it gives back itself, so the others need not. */
static void take_and_give(size_t bytes) {
    hak_free(hak_malloc(bytes));
    hak_tick();
    fill_l25(); /* what the first one took */
    const uint64_t dirty = hak_l25_stats().dirty_bytes;
    for (unsigned i = 0; i < 10; i++) {
        void *block = hak_malloc(bytes);
        hak_tick();
        hak_free(block);
    }
    must(hak_l25_stats().dirty_bytes == dirty);
}

static void take_what_is_never_kept(void *argument) {
    (void)argument;
    have_room_for_all();
    set_option(RETAIN_PERCENT, 0); /* nothing is learned: the floor stays where it is */
    fill_l25();
    take_and_give(80 * MIB); /* over BIGCACHE_BLOCK_MAX */
    set_option(BIGCACHE_RESIDENT, 16 * MIB);
    take_and_give(40 * MIB); /* purged as it enters the cache */
    hak_free(hak_malloc(40 * MIB));
    take_and_give(38 * MIB); /* served from that: what goes is more than what was asked for */
    hak_purge();
}

static void a_large_block_that_is_not_kept_takes_nothing_anew_each_time(void **state) {
    (void)state;
    succeeds(take_what_is_never_kept);
}

static void grow_a_block(void *argument) {
    (void)argument;
    have_room_for_all();
    fill_l25();
    char *block = hak_malloc(2 * MIB);
    hak_tick();
    const uint64_t dirty = hak_l25_stats().dirty_bytes;
    block = hak_realloc(block, 24 * MIB);
    hak_tick();
    must(hak_l25_stats().dirty_bytes <= dirty - 22 * MIB);
    hak_free(block);
}

static void growth_of_a_large_block_counts_as_taking(void **state) {
    (void)state;
    succeeds(grow_a_block);
}

/* ---- a budget that was too small of late --------------------------------------------------------------------- */

/* Takes and frees `count` blocks of `bytes` again and again; what the last of `rounds` gave back to the system. */
static uint64_t purged_in_round(unsigned rounds, unsigned count, size_t bytes) {
    static void *blocks[65536];
    uint64_t before = 0;
    must(count <= sizeof blocks / sizeof blocks[0]);
    for (unsigned round = 0; round < rounds; round++) {
        before = hak_slab_stats().purged_bytes + hak_l25_stats().purged_bytes + hak_big_stats().purged_bytes;
        for (unsigned i = 0; i < count; i++) must((blocks[i] = hak_malloc(bytes)) != NULL);
        for (unsigned i = 0; i < count; i++) hak_free(blocks[i]);
    }
    return hak_slab_stats().purged_bytes + hak_l25_stats().purged_bytes + hak_big_stats().purged_bytes - before;
}

static const struct {
    unsigned count;
    size_t bytes;
} saw[] = {{65536, 1024}, {64, LARGE - 64}, {64, 2 * LARGE}, {2, 48 * LARGE}};

static void use_a_store_by_fits_and_starts(void *argument) {
    const size_t store = *(const size_t *)argument, all = saw[store].count * saw[store].bytes;
    hak_sys_set_now_for_test(1000000); /* as fast as can be */
    must(purged_in_round(1, saw[store].count, saw[store].bytes) >= all / 4);
    must(purged_in_round(20, saw[store].count, saw[store].bytes) <= all / 16);
    /* Later, when it was forgotten, or if the user wants no more to stay than so much, it is the first time again. */
    for (unsigned i = 1; i <= 40; i++) {
        hak_sys_set_now_for_test(1000000 + 10000 * i);
        for (unsigned j = 0; j < 64; j++) hak_tick();
    }
    must(purged_in_round(1, saw[store].count, saw[store].bytes) >= all / 4);
    must(purged_in_round(20, saw[store].count, saw[store].bytes) <= all / 16);
    set_option(RETAIN_PERCENT, 0);
    must(purged_in_round(20, saw[store].count, saw[store].bytes) >= all / 4);
}

/* Slabs come and go, of which all that are in use at once hold little: few are kept. */
static void use_slabs_that_hold_little(void *argument) {
    (void)argument;
    const uint64_t unit = hak_option(RETAIN_BYTES), all = 250 * unit;
    hak_sys_set_now_for_test(1000000);
    must(!hak_budget_asks_live(HAK_STORE_SLABS));
    must(hak_budget(HAK_STORE_SLABS, HAK_BUDGET_FLOOR, 0) == unit / 8);
    for (unsigned i = 0; i < 3; i++) {
        hak_budget_trimmed(HAK_STORE_SLABS, all);
        hak_budget_retaken(HAK_STORE_SLABS, all);
        must(hak_budget(HAK_STORE_SLABS, HAK_BUDGET_ALL, 0) == 9 * unit);
        must(hak_budget(HAK_STORE_SLABS, HAK_BUDGET_FLOOR, 0) == unit / 8 + 8 * unit);
        must(hak_budget_asks_live(HAK_STORE_SLABS));
    }
    hak_budget_trimmed(HAK_STORE_L25, all); /* which it does not take the room of */
    hak_budget_retaken(HAK_STORE_L25, 8 * unit);
    must(hak_budget(HAK_STORE_L25, HAK_BUDGET_ALL, 0) == 9 * unit);
    hak_budget_reset_for_test(HAK_STORE_L25);
    hak_budget_note_live(HAK_STORE_SLABS, all);
    hak_budget_trimmed(HAK_STORE_SLABS, all);
    hak_budget_retaken(HAK_STORE_SLABS, all - 8 * unit);
    must(hak_budget(HAK_STORE_SLABS, HAK_BUDGET_ALL, 0) == unit + all);
    must(hak_budget(HAK_STORE_SLABS, HAK_BUDGET_FLOOR, 0) == unit / 8 + 16 * unit);
    must(hak_budget(HAK_STORE_SLABS, HAK_BUDGET_ALL, all) == all / 4 + 8 * unit);
    hak_budget_decay(2000000);
    must(hak_budget(HAK_STORE_SLABS, HAK_BUDGET_ALL, 0) == unit + all / 2);
    must(hak_budget(HAK_STORE_SLABS, HAK_BUDGET_ALL, all / 2) == all / 8 + 8 * unit);
    set_option(RETAIN_PERCENT, 0); /* what was learned no longer counts */
    must(hak_budget(HAK_STORE_SLABS, HAK_BUDGET_ALL, 0) == unit);
    must(hak_budget(HAK_STORE_SLABS, HAK_BUDGET_FLOOR, 0) == unit / 8);
}

static void *wait_for_the_others(void *barrier) {
    hak_free(hidden(hak_malloc(1)));
    pthread_barrier_wait(barrier);
    return NULL;
}

/* What may be kept once memory was taken back too early, after a visit that finds much taken. */
static uint64_t budget_after_visit(void) {
    hak_budget_count(HAK_STORE_SLABS, 64 * MIB);
    hak_tick();
    hak_budget_trimmed(HAK_STORE_SLABS, 64 * MIB);
    hak_budget_retaken(HAK_STORE_SLABS, 64 * MIB);
    return hak_budget(HAK_STORE_SLABS, HAK_BUDGET_ALL, 0);
}

static uint64_t live_bytes(void) {
    const struct hak_front_stats stats = stats_of_front();
    return stats.live_bytes[0] + stats.live_bytes[1];
}

/* The more heaps there are, the less often they are asked what they hold: of 64 to 127 every second time. */
static void ask_many_heaps(void *argument) {
    enum { THREADS = 70 };
    pthread_t threads[THREADS];
    pthread_barrier_t barrier;
    (void)argument;
    hak_sys_set_now_for_test(1000000);
    set_option(TLS_WARM_BYTES, 0); /* else blocks are on their way, and count as live, while the bins are emptied */
    must(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
    for (unsigned i = 0; i < THREADS; i++) start_thread(&threads[i], wait_for_the_others, &barrier);
    for (unsigned i = 0; i < THREADS; i++) must(pthread_join(threads[i], NULL) == 0);
    const uint64_t least = budget_after_visit(); /* nobody knew that it mattered */
    uint64_t live = 0;
    for (unsigned i = 0; i < 6; i++) {
        for (unsigned j = 0; j < 8; j++) must(hidden(hak_malloc(32 * KIB)) != NULL);
        if (i % 2 == 0) live = live_bytes();
        must(budget_after_visit() == least + live);
    }
}

static void what_is_kept_for_slabs_goes_by_what_they_held(void **state) {
    (void)state;
    succeeds(use_slabs_that_hold_little);
    succeeds(ask_many_heaps);
}

/* A heap of 256 MiB that comes and goes: of it 256 times RETAIN_BYTES may stay beyond the budget, and no more. */
static void use_a_store_beyond_all_bounds(void *argument) {
    (void)argument;
    hak_sys_set_now_for_test(1000000);
    purged_in_round(4, 65536, 4 * KIB);
    const uint64_t dirty = hak_slab_stats().dirty_bytes;
    must(dirty <= 257 * hak_option(RETAIN_BYTES) + 2 * MIB && dirty >= 96 * MIB);
}

static void what_is_kept_beyond_the_budgets_is_bounded(void **state) {
    (void)state;
    succeeds(use_a_store_beyond_all_bounds);
}

/* Now more small blocks, now more medium ones, `bytes` of the more; what the last of `rounds` gave back. */
static uint64_t purged_in_turns(unsigned rounds, size_t bytes) {
    static void *small[65536], *medium[1024];
    uint64_t before = 0;
    for (unsigned round = 0; round < rounds; round++) {
        before = hak_slab_stats().purged_bytes + hak_l25_stats().purged_bytes;
        const size_t smalls = bytes / KIB / (round % 2 == 0 ? 1 : 4);
        const size_t mediums = bytes / (64 * KIB) / (round % 2 == 0 ? 4 : 1);
        must(smalls <= sizeof small / sizeof small[0] && mediums <= sizeof medium / sizeof medium[0]);
        for (size_t i = 0; i < smalls; i++) must((small[i] = hak_malloc(KIB)) != NULL);
        for (size_t i = 0; i < mediums; i++) must((medium[i] = hak_malloc(64 * KIB - 64)) != NULL);
        for (size_t i = 0; i < smalls; i++) hak_free(small[i]);
        for (size_t i = 0; i < mediums; i++) hak_free(medium[i]);
    }
    return hak_slab_stats().purged_bytes + hak_l25_stats().purged_bytes - before;
}

static void use_two_stores_in_turn(void *argument) {
    (void)argument;
    hak_sys_set_now_for_test(1000000);
    must(purged_in_turns(1, 6 * MIB) >= 4 * MIB);
    must(purged_in_turns(20, 6 * MIB) <= MIB);
    must(purged_in_turns(20, 64 * MIB) >= 32 * MIB); /* of more, most is for the other to grow into, each time */
    set_option(RETAIN_PERCENT, 0);
    must(purged_in_turns(20, 6 * MIB) >= 4 * MIB);
}

/* All within the budgets: what goes, goes for the other store. */
static void give_to_each_other(void *argument) {
    (void)argument;
    hak_sys_set_now_for_test(1000000);
    set_option(RETAIN_BYTES, 8 * MIB);
    const uint64_t percent = hak_option(RETAIN_PERCENT);
    set_option(RETAIN_PERCENT, 0); /* nothing is learned */
    must(purged_in_turns(20, 6 * MIB) >= 2 * MIB);
    set_option(RETAIN_PERCENT, percent);
    must(purged_in_turns(20, 6 * MIB) <= MIB);
}

/* A large block that goes for medium ones, and is then asked for again. */
static void take_a_large_block_back(void *argument) {
    (void)argument;
    have_room_for_all();
    const uint64_t floor = hak_budget(HAK_STORE_BIG, HAK_BUDGET_FLOOR, 0);
    hak_free(hak_malloc(48 * MIB));
    fill_l25();
    hak_tick();
    must(hak_big_stats().cached_dirty == 0);
    must(hak_budget(HAK_STORE_BIG, HAK_BUDGET_FLOOR, 0) == floor);
    hak_free(hak_malloc(48 * MIB));
    const uint64_t rise = hak_budget(HAK_STORE_BIG, HAK_BUDGET_FLOOR, 0) - floor;
    must(rise >= 48 * MIB && rise <= 50 * MIB);
}

static void what_two_stores_take_in_turn_is_soon_kept(void **state) {
    (void)state;
    succeeds(use_two_stores_in_turn);
    succeeds(give_to_each_other);
    succeeds(take_a_large_block_back);
}

static void what_is_taken_and_freed_in_turn_is_soon_kept(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof saw / sizeof saw[0]; i++) {
        succeeds_with(use_a_store_by_fits_and_starts, &i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pool_gives_back_what_a_large_block_takes),
        cmocka_unit_test(the_cache_of_large_blocks_gives_back_what_the_pool_takes),
        cmocka_unit_test(the_pool_gives_back_what_small_blocks_take),
        cmocka_unit_test(slabs_give_back_what_a_large_block_takes),
        cmocka_unit_test(an_eighth_of_the_budget_stays),
        cmocka_unit_test(a_large_block_that_is_not_kept_takes_nothing_anew_each_time),
        cmocka_unit_test(what_is_taken_and_freed_in_turn_is_soon_kept),
        cmocka_unit_test(what_two_stores_take_in_turn_is_soon_kept),
        cmocka_unit_test(what_is_kept_beyond_the_budgets_is_bounded),
        cmocka_unit_test(what_is_kept_for_slabs_goes_by_what_they_held),
        cmocka_unit_test(growth_of_a_large_block_counts_as_taking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
