/* The bins of a thread: how they grow and shrink, what they log of it, and what bounds them. Each test has a process of
 * its own, so that it begins with no bins. */
#include "support/inside.h"
#include "support/prefixed.h"

#include "base/sys.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "front/tick.h"

#define CLASS_64 3
#define MANY 80000

static void *take(unsigned c) {
    void *ptr = hak_tcache_alloc(c);
    must(ptr != NULL);
    return ptr;
}

static void give(void *ptr) { hak_tcache_free(ptr, "free"); }

static unsigned slots(unsigned c) { return hak_tls_heap->state[c].capacity; }
static size_t held(unsigned c) {
    const struct hak_bin_state *state = &hak_tls_heap->state[c];
    return state->base == NULL ? 0 : (size_t)(hak_tls_heap->bin[c].top - state->base);
}

/* ---- growth and shrinkage ------------------------------------------------------------------------------------- */

static void take_many_then_give_them(void *argument) {
    static void *blocks[MANY];
    (void)argument;
    set_option(LOG, 1);
    take(0); /* makes the heap */
    must(slots(CLASS_64) == 16);
    for (unsigned i = 0; i < MANY; i++) blocks[i] = take(CLASS_64);
    must(slots(CLASS_64) == 2048);
    for (unsigned i = 0; i < MANY; i++) give(blocks[i]);
    must(slots(CLASS_64) == 16);
    must(hak_heap_check());
    const struct hak_front_stats stats = stats_of_front();
    must(stats.grows == 7 && stats.shrinks == 7);
}

static void a_bin_grows_from_16_to_2048_and_back_and_says_so(void **state) {
    (void)state;
    struct ended ended = run_heard(take_many_then_give_them, NULL);
    assert_string_equal(ended.text, "[TLS_CACHE] class 64: 16 → 32 slots (hwm=16)\n"
                                    "[TLS_CACHE] class 64: 32 → 64 slots (hwm=32)\n"
                                    "[TLS_CACHE] class 64: 64 → 128 slots (hwm=64)\n"
                                    "[TLS_CACHE] class 64: 128 → 256 slots (hwm=128)\n"
                                    "[TLS_CACHE] class 64: 256 → 512 slots (hwm=256)\n"
                                    "[TLS_CACHE] class 64: 512 → 1024 slots (hwm=512)\n"
                                    "[TLS_CACHE] class 64: 1024 → 2048 slots (hwm=1024)\n"
                                    "[TLS_CACHE] class 64: 2048 → 1024 slots (hwm=0)\n"
                                    "[TLS_CACHE] class 64: 1024 → 512 slots (hwm=0)\n"
                                    "[TLS_CACHE] class 64: 512 → 256 slots (hwm=0)\n"
                                    "[TLS_CACHE] class 64: 256 → 128 slots (hwm=0)\n"
                                    "[TLS_CACHE] class 64: 128 → 64 slots (hwm=0)\n"
                                    "[TLS_CACHE] class 64: 64 → 32 slots (hwm=0)\n"
                                    "[TLS_CACHE] class 64: 32 → 16 slots (hwm=0)\n");
    assert_int_equal(ended.status, 0);
}

static void refill_four_times(void *argument) {
    (void)argument;
    take(0);
    while (held(CLASS_64) > 0) take(CLASS_64);
    for (unsigned refill = 1; refill <= 4; refill++) {
        must(slots(CLASS_64) == 16);
        take(CLASS_64); /* the bin was empty: a refill */
        must(held(CLASS_64) == slots(CLASS_64) - 1u);
        while (held(CLASS_64) > 0) take(CLASS_64);
    }
    must(slots(CLASS_64) == 32);
}

static void the_fourth_refill_of_a_window_doubles(void **state) {
    (void)state;
    succeeds(refill_four_times);
}

static unsigned slots_after_four_refills(uint64_t now_ms) {
    hak_sys_set_now_for_test(now_ms);
    for (unsigned refill = 1; refill <= 4; refill++) {
        while (held(CLASS_64) > 0) take(CLASS_64);
        take(CLASS_64);
    }
    return slots(CLASS_64);
}

static void refill_by_ever_more(void *argument) {
    (void)argument;
    set_option(TLS_SLOTS_MIN, 64);
    set_option(TLS_SLOTS_MAX, 64);
    take(0);
    hak_tcache_rest(hak_tls_heap, 64, 0);
    must(slots(CLASS_64) == 64 && held(CLASS_64) == 0);
    for (unsigned batch = 8; batch <= 128; batch *= 2) {
        take(CLASS_64);
        must(held(CLASS_64) == (batch < 64 ? batch : 64) - 1);
        while (held(CLASS_64) > 0) take(CLASS_64);
    }
}

static void each_refill_of_a_fresh_bin_takes_twice_as_much_as_the_last(void **state) {
    (void)state;
    succeeds(refill_by_ever_more);
}

static void refill_at_a_pace(void *argument) {
    (void)argument;
    set_option(TLS_GROW_RATE, 128);
    take(0);
    must(slots_after_four_refills(1000) == 32); /* how long the first took nobody knows */
    must(slots_after_four_refills(1001) == 64); /* 128 blocks in a millisecond */
    must(slots_after_four_refills(1004) == 64); /* 256 in three */
    must(slots_after_four_refills(1006) == 128);
    set_option(TLS_GROW_RATE, 0);
    must(slots_after_four_refills(9999) == 256);
}

static void a_bin_through_which_few_blocks_go_in_a_time_stays(void **state) {
    (void)state;
    succeeds(refill_at_a_pace);
}

static void refill_at_each_eighth_visit(void *argument) {
    (void)argument;
    take(0);
    struct hak_bin_state *state = &hak_tls_heap->state[CLASS_64];
    for (uint8_t before = 0; before <= 1; before++) {
        while (held(CLASS_64) > 0) take(CLASS_64);
        state->visits = 15;
        state->refills = before;
        take(CLASS_64);
        must(state->refills == 0 && slots(CLASS_64) == (before == 0 ? 16 : 32));
    }
}

static void two_refills_of_eight_visits_double_and_one_does_not(void **state) {
    (void)state;
    succeeds(refill_at_each_eighth_visit);
}

static uint64_t visits_so_far(void) {
    const struct hak_front_stats stats = stats_of_front();
    return stats.refills + stats.flushes;
}

static void swing_to_and_fro(void *argument) {
    static void *blocks[1000];
    (void)argument;
    for (unsigned swing = 10; swing <= 1000; swing *= 10) {
        for (unsigned round = 0; round < 200; round++) {
            uint64_t before = visits_so_far();
            for (unsigned i = 0; i < swing; i++) blocks[i] = take(CLASS_64);
            for (unsigned i = 0; i < swing; i++) give(blocks[i]);
            must(round < 100 || visits_so_far() == before);
        }
        must(slots(CLASS_64) >= swing && slots(CLASS_64) <= 4 * swing);
    }
    must(hak_heap_check());
}

static void a_bin_grows_until_it_holds_what_goes_to_and_fro_and_no_further(void **state) {
    (void)state;
    succeeds(swing_to_and_fro);
}

/* A window of visits in which the bin was never emptied further than `high_water`. */
static void pass_a_window(unsigned high_water, void **blocks, unsigned *next) {
    struct hak_bin_state *state = &hak_tls_heap->state[CLASS_64];
    for (unsigned visit = 0; visit < 32; visit++) {
        state->high_water = (uint16_t)high_water;
        while (held(CLASS_64) < slots(CLASS_64)) give(blocks[(*next)++]);
        give(blocks[(*next)++]); /* one too many: a visit */
    }
}

static void fall_short_of_a_quarter(void *argument) {
    static void *blocks[MANY];
    unsigned next = 0;
    (void)argument;
    set_option(TLS_SLOTS_MAX, 64);
    for (unsigned i = 0; i < MANY; i++) blocks[i] = take(CLASS_64);
    must(slots(CLASS_64) == 64);
    struct hak_bin_state *state = &hak_tls_heap->state[CLASS_64];
    state->visits = state->refills = 0;
    pass_a_window(16, blocks, &next);
    must(slots(CLASS_64) == 64);
    pass_a_window(15, blocks, &next);
    must(slots(CLASS_64) == 32);
}

static void a_window_that_used_less_than_a_quarter_halves(void **state) {
    (void)state;
    succeeds(fall_short_of_a_quarter);
}

/* ---- bounds -------------------------------------------------------------------------------------------------- */

static size_t sum_of_capacities(void) {
    size_t bytes = 0;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) bytes += (size_t)slots(c) * hak_class_bytes(c);
    return bytes;
}

static void expect_within_budgets(void) {
    size_t cached = 0;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
        must(slots(c) <= hak_option(TLS_SLOTS_MAX));
        must((size_t)slots(c) * hak_class_bytes(c) <= hak_option(TLS_CLASS_BYTES));
        must(held(c) <= slots(c));
        cached += held(c) * hak_class_bytes(c);
    }
    must(hak_tls_heap->capacity_bytes == sum_of_capacities());
    must(hak_tls_heap->capacity_bytes <= hak_option(TLS_BYTES));
    must(cached <= hak_option(TLS_BYTES));
}

/* The budgets hold at any time; a look at all bins after each call would take too long. */
static void use_all_classes(void *argument) {
    static void *blocks[4000];
    (void)argument;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
            unsigned n = hak_class_bytes(c) > 4096 ? 200 : 4000;
            for (unsigned i = 0; i < n; i++) {
                blocks[i] = take(c);
                if (i % 7 == 0) expect_within_budgets();
            }
            for (unsigned i = 0; i < n; i++) {
                give(blocks[i]);
                if (i % 7 == 0) expect_within_budgets();
            }
        }
    must(hak_heap_check());
}

static void use_all_classes_as_it_is(void *argument) {
    use_all_classes(argument);
    for (unsigned c = 0; c < HAK_CLASS_COUNT;
         c++) { /* late or early, each got half of an equal share, or its first 16 */
        size_t fair = hak_option(TLS_BYTES) / HAK_CLASS_COUNT / 2 / hak_class_bytes(c);
        must(slots(c) >= 16 || slots(c) >= fair);
    }
}

static void use_all_classes_with_little(void *argument) {
    set_option(TLS_CLASS_BYTES, 4000);
    set_option(TLS_BYTES, 30000); /* less than the classes up to 4,000 bytes would begin with */
    use_all_classes(argument);
    must(slots(CLASS_64) > 0);
    must(hak_tls_heap->state[HAK_CLASS_COUNT - 1].base == NULL); /* not one block of it may be kept */
}

/* Bins that may not shrink by themselves make room for each other all the same. */
static void use_all_classes_with_fixed_slots(void *argument) {
    set_option(TLS_SLOTS_MIN, 2048);
    set_option(TLS_SLOTS_MAX, 2048);
    use_all_classes_as_it_is(argument);
}

static void use_all_classes_with_nothing(void *argument) {
    set_option(TLS_BYTES, 0);
    use_all_classes(argument);
    must(hak_tls_heap->capacity_bytes == 0);
    set_option(TLS_BYTES, 4194304);
    set_option(TLS_CLASS_BYTES, 0);
    use_all_classes(argument);
    must(hak_tls_heap->capacity_bytes == 0);
}

static _Atomic bool may_end;
static void *have_a_heap(void *heap) {
    take(0);
    *(_Atomic bool *)heap = true;
    while (!atomic_load(&may_end)) usleep(200);
    return NULL;
}

/* Whose room is taken up by bins that it no longer uses: the one that it does use grows none the less. */
static void use_one_class_often(unsigned c) {
    enum { BLOCKS = 1024, ROUNDS = 400 };
    static void *blocks[BLOCKS];
    const uint64_t begin_ms = hak_sys_now_ms();
    for (unsigned round = 0; round < ROUNDS; round++) {
        hak_sys_set_now_for_test(begin_ms + 100 * round);
        for (unsigned i = 0; i < BLOCKS; i++) blocks[i] = take(c);
        for (unsigned i = 0; i < BLOCKS; i++) give(blocks[i]);
    }
    must(hak_tls_heap->state[c].capacity >= BLOCKS / 2);
    must(hak_tls_heap->capacity_bytes <= MIB / 4);
}

/* A bin that may not grow is visited. */
static void go_to_and_fro(unsigned c) {
    static void *blocks[2048];
    const unsigned count = 2 * slots(c);
    set_option(TLS_SLOTS_MAX, slots(c));
    must(count <= sizeof blocks / sizeof blocks[0]);
    for (unsigned round = 0; round < 32; round++) {
        for (unsigned i = 0; i < count; i++) blocks[i] = take(c);
        for (unsigned i = 0; i < count; i++) give(blocks[i]);
    }
    set_option(TLS_SLOTS_MAX, 2048);
}

/* Of what all threads may hold each has its share, but no less than 256 KiB; who holds more gives it back by and by. */
static void share_with_threads(void *argument) {
    enum { OTHERS = 7 };
    pthread_t others[OTHERS];
    (void)argument;
    set_option(TLS_ALL_BYTES, MIB);
    use_all_classes(NULL);
    must(hak_heap_threads() == 1);
    must(hak_tls_heap->capacity_bytes > MIB / 2 && hak_tls_heap->capacity_bytes <= MIB);
    for (unsigned i = 0; i < OTHERS; i++) {
        _Atomic bool has_heap = false;
        start_thread(&others[i], have_a_heap, &has_heap);
        while (!atomic_load(&has_heap)) usleep(200);
        if (i != 0 && i != OTHERS - 1) continue;
        must(hak_heap_threads() == i + 2);
        if (i == 0) use_all_classes(NULL);
        else go_to_and_fro(CLASS_64);
        must(hak_tls_heap->capacity_bytes <= (i == 0 ? MIB / 2 : MIB / 4));
        must(hak_tls_heap->capacity_bytes > MIB / 8);
    }
    use_one_class_often(CLASS_64);
    atomic_store(&may_end, true);
    for (unsigned i = 0; i < OTHERS; i++) must(pthread_join(others[i], NULL) == 0);
    must(hak_heap_threads() == 1);
}

static void many_threads_share_what_all_may_hold(void **state) {
    (void)state;
    succeeds(share_with_threads);
}

/* What has no bin goes straight to its slab, and that must keep to the budgets of memory as well. */
static void use_one_class_without_a_bin(void) {
    enum { BLOCKS = 16384 };
    static void *blocks[BLOCKS];
    const unsigned kilo = hak_class_of(1024);
    hak_sys_set_now_for_test(1000000);
    set_option(RETAIN_BYTES, MIB);
    set_option(RETAIN_PERCENT, 0);
    for (unsigned i = 0; i < BLOCKS; i++) blocks[i] = take(kilo);
    for (unsigned i = 0; i < BLOCKS; i++) give(blocks[i]);
    must(hak_tls_heap->state[kilo].base == NULL);
    must(hak_slab_stats().dirty_bytes <= MIB + HAK_SUPERSLAB_BYTES);
    must(hak_slab_stats().slabs_used > 0); /* one empty slab stays */
    for (unsigned i = 0; i < 8; i++) {
        hak_sys_set_now_for_test(1000000 + 2000 * (i + 1));
        for (unsigned j = 0; j < 64; j++) hak_tick();
    }
    must(hak_load_rlx(&hak_tls_heap->slabs_owned[kilo]) == 0);
}

static void let_no_thread_have_bins(void *argument) {
    (void)argument;
    set_option(TLS_BYTES, 0);
    use_one_class_without_a_bin();
}

static void let_no_class_have_a_bin(void *argument) {
    (void)argument;
    set_option(TLS_CLASS_BYTES, 0);
    use_one_class_without_a_bin();
}

static void without_bins_free_memory_stays_within_its_budget(void **state) {
    (void)state;
    succeeds(let_no_thread_have_bins);
    succeeds(let_no_class_have_a_bin);
}

static void open_a_bin_where_there_is_no_room(void *argument) {
    void *blocks[32];
    unsigned large = hak_class_of(512), middle = hak_class_of(256), small = hak_class_of(128);
    (void)argument;
    set_option(LOG, 1);
    set_option(PREWARM, 0);
    set_option(TLS_BYTES, 32 * 512 + 16 * 256);
    for (unsigned i = 0; i < 8 + 2 * 16 + 1; i++) take(large); /* the fourth refill doubles it */
    must(slots(large) == 32 && held(large) == 31);
    for (unsigned i = 0; i < 31; i++) blocks[i] = take(large);
    for (unsigned i = 0; i < 31; i++) give(blocks[i]);
    must(held(large) == 31);
    take(middle);
    must(slots(large) == 32 && slots(middle) == 16);
    take(small); /* now nothing is left */
    must(slots(large) == 16 && held(large) == 16 && slots(middle) == 16 && slots(small) == 16);
    for (unsigned i = 0; i < 16; i++) must(take(large) == blocks[30 - i]); /* its older blocks went */
    must(hak_heap_check());
}

static void use_one_class_with_a_small_budget(void *argument) {
    (void)argument;
    take(0); /* prewarmed by now: 16 slots of 16, 32, 48 and 64 bytes */
    must(hak_tls_heap->capacity_bytes == 16 * (16 + 32 + 48 + 64));
    set_option(TLS_BYTES, 16 * (16 + 32 + 48 + 64) + 16 * 64);
    for (unsigned i = 0; i < 1000; i++) take(CLASS_64);
    must(slots(CLASS_64) == 32); /* once; the next time it is over the thread's budget */
    must(hak_tls_heap->capacity_bytes == 16 * (16 + 32 + 48 + 64) + 16 * 64);
}

static void use_all_classes_with_few_slots(void *argument) {
    set_option(TLS_SLOTS_MIN, 4);
    set_option(TLS_SLOTS_MAX, 32);
    use_all_classes(argument);
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) must(slots(c) >= 4);
}

static void bins_and_threads_stay_within_their_bytes(void **state) {
    (void)state;
    succeeds(use_all_classes_as_it_is);
    succeeds(use_all_classes_with_little);
    succeeds(use_all_classes_with_few_slots);
    succeeds(use_all_classes_with_fixed_slots);
    succeeds(use_all_classes_with_nothing);
    succeeds(use_one_class_with_a_small_budget);
}

static void the_largest_bin_makes_room_for_a_fresh_one_and_says_so(void **state) {
    (void)state;
    struct ended ended = run_heard(open_a_bin_where_there_is_no_room, NULL);
    assert_string_equal(ended.text, "[TLS_CACHE] class 512: 16 → 32 slots (hwm=16)\n"
                                    "[TLS_CACHE] class 512: 32 → 16 slots (hwm=0)\n");
    assert_int_equal(ended.status, 0);
}

/* ---- refill, flush, idleness ----------------------------------------------------------------------------------- */

static void compare_addresses(void *argument) {
    char *before = NULL;
    (void)argument;
    unsigned c = hak_class_of(1024);
    for (unsigned i = 0; i < 64; i++) { /* one slab of them, never used before */
        char *ptr = take(c);
        must(before == NULL || ptr == before + 1024);
        before = ptr;
    }
}

static void fresh_blocks_come_in_the_order_of_addresses(void **state) {
    (void)state;
    succeeds(compare_addresses);
}

static void overflow_a_bin(void *argument) {
    void *blocks[17];
    (void)argument;
    unsigned c = hak_class_of(1024);
    for (unsigned i = 0; i < 17; i++) blocks[i] = take(c);
    hak_thread_flush();
    for (unsigned i = 0; i < 16; i++) give(blocks[i]);
    must(held(c) == 16);
    give(blocks[16]);
    must(held(c) == 9); /* the older half went */
    for (unsigned i = 0; i < 9; i++) must(take(c) == blocks[16 - i]);
}

static void a_full_bin_gives_its_older_half_back(void **state) {
    (void)state;
    succeeds(overflow_a_bin);
}

static void idle(void *argument) {
    void *blocks[40];
    (void)argument;
    uint64_t now = 1000000;
    unsigned idle_class = hak_class_of(512), busy_class = hak_class_of(256);
    hak_sys_set_now_for_test(now);
    for (unsigned i = 0; i < 16; i++) blocks[i] = take(idle_class);
    hak_thread_flush();
    for (unsigned i = 0; i < 16; i++) give(blocks[i]);
    must(held(idle_class) == 16);
    static const size_t expected[] = {16, 16, 8, 4, 2, 1, 0};
    for (unsigned second = 0; second < COUNT(expected); second++) {
        hak_sys_set_now_for_test(now += 1000);
        for (unsigned i = 0; i < 40; i++) take(busy_class); /* visits, and no lack of them */
        for (unsigned i = 0; i < 100; i++) hak_tick();
        must(held(idle_class) == expected[second]);
    }
    must(held(busy_class) > 0);
    must(hak_heap_check());
}

static void a_bin_that_nobody_visits_empties_by_halves(void **state) {
    (void)state;
    succeeds(idle);
}

static void flush_all(void *argument) {
    static void *blocks[HAK_CLASS_COUNT][20];
    (void)argument;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++)
        for (unsigned i = 0; i < 20; i++) blocks[c][i] = take(c);
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++)
        for (unsigned i = 0; i < 20; i++) give(blocks[c][i]);
    hak_tcache_flush_all(hak_tls_heap);
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
        must(held(c) == 0);
        must(hak_load_rlx(&hak_tls_heap->blocks_out[c]) == 0);
        must(hak_load_rlx(&hak_tls_heap->slabs_owned[c]) == 0);
    }
    must(hak_slab_stats().slabs_used == 0);
    must(hak_heap_check());
}

static void a_flush_leaves_no_block_and_no_empty_slab(void **state) {
    (void)state;
    succeeds(flush_all);
}

static void prewarm(void *argument) {
    (void)argument;
    set_option(PREWARM, 6);
    take(20);
    for (unsigned c = 0; c < 6; c++) must(slots(c) == 16 && held(c) == 8);
    for (unsigned c = 6; c < 20; c++) must(hak_tls_heap->state[c].base == NULL);
    give(take(0));
    while (held(1) > 0) take(1);
    take(1); /* a refill */
    take(2);
    hak_tcache_prewarm(hak_tls_heap);
    must(held(0) == 8 && held(1) == 15 && held(2) == 7);
}

static void the_first_use_puts_blocks_into_the_bins_of_the_smallest_classes(void **state) {
    (void)state;
    succeeds(prewarm);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bin_grows_from_16_to_2048_and_back_and_says_so),
        cmocka_unit_test(the_fourth_refill_of_a_window_doubles),
        cmocka_unit_test(each_refill_of_a_fresh_bin_takes_twice_as_much_as_the_last),
        cmocka_unit_test(a_bin_through_which_few_blocks_go_in_a_time_stays),
        cmocka_unit_test(two_refills_of_eight_visits_double_and_one_does_not),
        cmocka_unit_test(a_bin_grows_until_it_holds_what_goes_to_and_fro_and_no_further),
        cmocka_unit_test(a_window_that_used_less_than_a_quarter_halves),
        cmocka_unit_test(bins_and_threads_stay_within_their_bytes),
        cmocka_unit_test(many_threads_share_what_all_may_hold),
        cmocka_unit_test(without_bins_free_memory_stays_within_its_budget),
        cmocka_unit_test(the_largest_bin_makes_room_for_a_fresh_one_and_says_so),
        cmocka_unit_test(fresh_blocks_come_in_the_order_of_addresses),
        cmocka_unit_test(a_full_bin_gives_its_older_half_back),
        cmocka_unit_test(a_bin_that_nobody_visits_empties_by_halves),
        cmocka_unit_test(a_flush_leaves_no_block_and_no_empty_slab),
        cmocka_unit_test(the_first_use_puts_blocks_into_the_bins_of_the_smallest_classes),
    };
    set_option(TLS_GROW_RATE, 0); /* or a thread that is held up for a moment would count as slow */
    alarm(HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
