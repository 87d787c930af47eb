/* What a thread that ends leaves in its bins for the next one: how much, how it is found, and when it goes. Each test
 * has a process of its own. */
#include "support/peer.h"

#include "front/bins.h"
#include "front/registry.h"

static struct hak_heap *ended; /* the heap of the last thread that ended */

static void *blocks[64];

/* Takes 64 blocks of each class up to 8 KiB and puts them back. */
static void *fill_bins(void *unused) {
    for (unsigned c = 0; hak_class_bytes(c) <= 8 * HAK_KIB; c++) {
        for (unsigned i = 0; i < COUNT(blocks); i++) blocks[i] = take(c);
        for (unsigned i = 0; i < COUNT(blocks); i++) give(blocks[i]);
    }
    ended = hak_tls_heap;
    return unused;
}

static bool is_warm(const struct hak_heap *heap) { return heap->parked && heap->warm; }

static bool is_cold(const struct hak_heap *heap) {
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++)
        if (hak_bin_fill(heap, c) != 0 || hak_load_rlx(&heap->cached[c]) != 0) return false;
    return heap->parked && !heap->warm;
}

static void *small_bins(void *unused) {
    set_option(TLS_SLOTS_MAX, 64);
    return fill_bins(unused);
}

/* ---- how much stays ---------------------------------------------------------------------------------------------- */

static void leave_some_of_each(void *argument) {
    (void)argument;
    run_thread(small_bins, NULL);
    must(is_warm(ended));
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
        const uint32_t most = 2048 / hak_class_bytes(c);
        must(hak_bin_fill(ended, c) <= most && hak_load_rlx(&ended->cached[c]) == hak_bin_fill(ended, c));
        if (hak_class_bytes(c) <= 512) must(hak_bin_fill(ended, c) >= 4);
        if (hak_class_bytes(c) > 2048) must(ended->slabs[c] == NULL);
    }
    must(stats_of_front().live_blocks[0] == 0 && stats_of_front().live_blocks[1] == 0);
}

static void of_each_class_two_kib_stay_at_most(void **state) {
    (void)state;
    succeeds(leave_some_of_each);
}

static void *grow_a_bin(void *unused) {
    set_option(TLS_GROW_RATE, 0);
    set_option(TLS_SLOTS_MAX, 128);
    for (unsigned i = 0; i < 2000; i++) take(3);
    must(hak_tls_heap->state[3].capacity == 128);
    ended = hak_tls_heap;
    return unused;
}

static void leave_a_large_bin(void *argument) {
    (void)argument;
    run_thread(grow_a_bin, NULL);
    must(is_warm(ended) && ended->state[3].base == NULL && hak_load_rlx(&ended->cached[3]) == 0);
    must(hak_bin_fill(ended, 2) == 8); /* prewarmed, and not used */
    must(stats_of_front().live_blocks[0] == 2000);
}

static void nothing_stays_of_a_large_bin(void **state) {
    (void)state;
    succeeds(leave_a_large_bin);
}

/* The newest lies in a slab, the one before in another. */
static void *free_in_two_slabs(void *unused) {
    set_option(TLS_SLOTS_MAX, 64);
    for (unsigned i = 0; i < COUNT(blocks); i++) blocks[i] = take(CLASS_1024);
    void *other = take(CLASS_1024);
    must(slab_of(other) != slab_of(blocks[0]));
    give(blocks[0]);
    give(other);
    ended = hak_tls_heap;
    return unused;
}

static void pin_slabs(void *argument) {
    (void)argument;
    run_thread(free_in_two_slabs, NULL);
    must(is_warm(ended) && hak_bin_fill(ended, CLASS_1024) == 1);
}

static void what_stays_is_of_one_slab(void **state) {
    (void)state;
    succeeds(pin_slabs);
}

static void *hold_until_told(void *go) {
    take(0);
    while (!hak_load_acq((_Atomic bool *)go)) usleep(200);
    return NULL;
}

/* Threads that have a heap each, and end then. */
static void end_together(unsigned threads) {
    pthread_t thread[20];
    _Atomic bool go = false;
    const uint32_t before = hak_heap_threads();
    must(threads <= COUNT(thread));
    for (unsigned i = 0; i < threads; i++) start_thread(&thread[i], hold_until_told, &go);
    while (hak_heap_threads() < before + threads) usleep(200);
    hak_store_rel(&go, true);
    for (unsigned i = 0; i < threads; i++) must(pthread_join(thread[i], NULL) == 0);
}

static void count_warm(const struct hak_heap *heap, void *count) { *(unsigned *)count += is_warm(heap); }

static void end_many(void *argument) {
    (void)argument;
    unsigned warm = 0;
    end_together(20);
    must(hak_heap_each(count_warm, &warm) == 20);
    must(warm == 16);
    hak_heap_lend_all();
    warm = 0;
    hak_heap_each(count_warm, &warm);
    must(warm == 0 && stats_of_front().heaps_parked == 20);
    for (unsigned i = 0; i < 20; i++) {
        const struct hak_heap *before = ended;
        run_thread(fill_bins, NULL);
        must(is_warm(ended)); /* those have been counted out */
        must(i == 0 || ended == before);
    }
}

static void no_more_than_sixteen_heaps_are_warm(void **state) {
    (void)state;
    succeeds(end_many);
}

/* ---- the next thread ----------------------------------------------------------------------------------------------
 */

static void *use_one(void *ptr) {
    const uint64_t refills = hak_load_rlx(&ended->refills);
    char *mine = hak_tcache_alloc(20);
    must(hak_tls_heap == ended && hak_load_rlx(&ended->refills) == refills + 1);
    char *other = take(CLASS_1024);
    must(other == ptr && hak_load_rlx(&ended->refills) == refills + 1); /* from the bin, which is open */
    give(other);
    must(ended->bin[CLASS_1024].top[-1] == (void *)other);
    give(mine);
    must(hak_heap_check());
    return NULL;
}

static void follow(void *argument) {
    (void)argument;
    take(0);
    run_thread(fill_bins, NULL);
    void *next = ended->bin[CLASS_1024].top[-1];
    while (ended->bin[20].top != ended->state[20].base) ended->bin[20].top--; /* as if it had been used up */
    run_thread(use_one, next);
    must(is_warm(ended));
}

static void a_thread_goes_on_with_what_the_last_one_left(void **state) {
    (void)state;
    succeeds(follow);
}

static void *adopt_one(void *ptr) {
    must(hak_load_acq(&slab_of(ptr)->owner) == ended);
    for (unsigned i = 0; i < PER_SLAB; i++) blocks[i] = take(CLASS_1024);
    return NULL;
}

/* What lies in the bins of a warm heap is of no slab of its own any more. */
static void adopt_from_warm(void *argument) {
    (void)argument;
    take(0);
    run_thread(fill_bins, NULL);
    struct hak_heap *warm = ended;
    void *ptr = warm->bin[CLASS_1024].top[-1];
    adopt_one(ptr);
    must(hak_load_acq(&slab_of(ptr)->owner) == hak_tls_heap && is_warm(warm) && hak_bin_fill(warm, CLASS_1024) == 2);
    for (unsigned i = 0; i < PER_SLAB; i++) must(blocks[i] != ptr);
    hak_heap_lend_all();
    must(is_cold(warm));
    hak_remote_collect(hak_tls_heap); /* the two came home */
    for (unsigned i = 0; i < PER_SLAB; i++) give(blocks[i]);
    hak_tcache_flush_all(hak_tls_heap);
    must(hak_heap_check() && stats_of_front().live_blocks[0] == 1);
}

static void slabs_of_a_warm_heap_are_adopted(void **state) {
    (void)state;
    succeeds(adopt_from_warm);
}

static void *leave_foreign(void *ptr) {
    take(CLASS_1024); /* so that there is a bin that keeps it */
    give(ptr);
    must(hak_tls_heap->bin[CLASS_1024].top[-1] == ptr);
    ended = hak_tls_heap;
    return NULL;
}

static void send_home(void *argument) {
    (void)argument;
    void *ptr = take(CLASS_1024);
    hak_tcache_flush_all(hak_tls_heap);
    const uint64_t live = stats_of_front().live_blocks[0];
    run_thread(leave_foreign, ptr);
    must(is_warm(ended) && ended->bin[CLASS_1024].top[-1] == ptr);
    must(stats_of_front().live_blocks[0] == live); /* one was freed, and one is left */
    hak_heap_lend_all();
    must(is_cold(ended));
    const uint32_t before = slab_of(ptr)->free_count;
    hak_remote_collect(hak_tls_heap);
    must(slab_of(ptr)->free_count == before + 1);
}

static void blocks_of_others_go_home_when_it_cools(void **state) {
    (void)state;
    succeeds(send_home);
}

/* ---- until nobody came --------------------------------------------------------------------------------------------
 */

static void *come(void *unused) {
    take(HAK_CLASS_COUNT - 1);
    return unused;
}

static void cool_down(void *argument) {
    (void)argument;
    take(0);
    const uint64_t used = hak_slab_stats().slabs_used;
    run_thread(fill_bins, NULL);
    must(is_warm(ended) && hak_slab_stats().slabs_used > used);
    hak_heap_lend_sleeping();
    must(is_warm(ended));
    run_thread(come, NULL);
    must(is_warm(ended));
    hak_heap_lend_sleeping(); /* one has come since */
    must(is_warm(ended));
    hak_heap_lend_sleeping();
    must(is_cold(ended));
    must(hak_slab_stats().slabs_used == used + 8); /* the block that come() has left */
}

static void it_cools_when_no_thread_came_since_the_last_look(void **state) {
    (void)state;
    succeeds(cool_down);
}

static void purge(void *argument) {
    (void)argument;
    void *mine[2] = {take(CLASS_1024), take(CLASS_1024)};
    run_thread(leave_foreign, mine[0]);
    run_thread(leave_foreign, mine[1]);
    const uint64_t live = stats_of_front().live_blocks[0];
    must(live == 2); /* those of the two threads */
    hak_purge();
    must(is_cold(ended) && stats_of_front().live_blocks[0] == live);
    must(stats_of_front().cached_bytes[0] == 0 && hak_slab_stats().slabs_used == 2);
}

static void a_purge_leaves_nothing_cached(void **state) {
    (void)state;
    succeeds(purge);
}

static void free_into_it(void *argument) {
    (void)argument;
    take(0);
    char *far[2];
    run_thread(fill_bins, NULL);
    run_thread(adopt_one, ended->bin[CLASS_1024].top[-1]); /* it takes the heap itself */
    far[0] = blocks[0];
    far[1] = blocks[1];
    must(is_warm(ended));
    struct hak_slab *slab = slab_of(far[0]);
    const uint32_t before = slab->free_count;
    give(far[0]);
    give(far[1]);
    hak_tcache_flush_all(hak_tls_heap);
    must(is_warm(ended) && slab->free_count == before + 2); /* collected on nobody's behalf */
}

static void frees_into_a_warm_heap_are_collected(void **state) {
    (void)state;
    succeeds(free_into_it);
}

/* ---- fork ---------------------------------------------------------------------------------------------------------
 */

static void *take_left(void *next) {
    must(take(CLASS_1024) == next && hak_tls_heap == ended);
    must(hak_heap_check());
    return NULL;
}

static void follow_in_child(void *next) {
    must(is_warm(ended) && !ended->orphaned);
    run_thread(take_left, next);
    hak_heap_lend_all();
    must(is_cold(ended));
}

static void fork_beside(void *argument) {
    (void)argument;
    take(0);
    run_thread(fill_bins, NULL);
    void *next = ended->bin[CLASS_1024].top[-1];
    must(run_forked(follow_in_child, next) == 0);
    must(is_warm(ended));
}

static void a_child_finds_it_warm(void **state) {
    (void)state;
    succeeds(fork_beside);
}

static void hold_if_warm(const struct hak_heap *heap, void *unused) {
    (void)unused;
    if (is_warm(heap)) hak_store_rlx(&((struct hak_heap *)(uintptr_t)heap)->hold, HAK_HOLD_OWNER);
}

static void use_orphan(void *argument) {
    must(ended->parked && ended->orphaned && !ended->warm);
    hak_heap_lend_all();
    run_thread(fill_bins, argument); /* it is emptied first */
    must(is_warm(ended) && !ended->orphaned);
}

/* Another thread of the parent was just about to take it out of the list. */
static void fork_while_it_is_claimed(void *argument) {
    (void)argument;
    take(0);
    run_thread(fill_bins, NULL);
    ended->parked = false;
    must(run_forked(use_orphan, NULL) == 0);
    ended->parked = true;
}

static void a_child_that_cannot_know_takes_it_for_an_orphan(void **state) {
    (void)state;
    succeeds(fork_while_it_is_claimed);
}

static void leave_warm(void *argument) {
    run_thread(fill_bins, argument);
    must(is_warm(ended));
}

/* Each of these was held by another thread when the parent forked: it is left alone, and takes no place in the child.
 */
static void fork_while_many_are_held(void *argument) {
    (void)argument;
    take(0);
    end_together(16);
    hak_heap_each(hold_if_warm, NULL);
    must(run_forked(leave_warm, NULL) == 0);
}

static void heaps_held_at_a_fork_are_counted_out(void **state) {
    (void)state;
    succeeds(fork_while_many_are_held);
}

/* ---- where no thread's end is seen --------------------------------------------------------------------------------
 */

static void *take_from_shared(void *unused) {
    take(CLASS_1024);
    must(hak_heap_peek() == NULL);
    return unused;
}

static void start_unwatched(void *argument) {
    (void)argument;
    take(0);
    run_thread(fill_bins, NULL);
    hak_heap_forget_threads();
    run_thread(take_from_shared, NULL);
    must(is_warm(ended) && hak_bin_fill(ended, CLASS_1024) != 0);
    hak_heap_lend_all();
    must(is_cold(ended));
}

static void a_thread_that_cannot_keep_it_leaves_it_warm(void **state) {
    (void)state;
    succeeds(start_unwatched);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_each_class_two_kib_stay_at_most),
        cmocka_unit_test(nothing_stays_of_a_large_bin),
        cmocka_unit_test(what_stays_is_of_one_slab),
        cmocka_unit_test(no_more_than_sixteen_heaps_are_warm),
        cmocka_unit_test(a_thread_goes_on_with_what_the_last_one_left),
        cmocka_unit_test(slabs_of_a_warm_heap_are_adopted),
        cmocka_unit_test(blocks_of_others_go_home_when_it_cools),
        cmocka_unit_test(it_cools_when_no_thread_came_since_the_last_look),
        cmocka_unit_test(a_purge_leaves_nothing_cached),
        cmocka_unit_test(frees_into_a_warm_heap_are_collected),
        cmocka_unit_test(a_child_finds_it_warm),
        cmocka_unit_test(a_child_that_cannot_know_takes_it_for_an_orphan),
        cmocka_unit_test(heaps_held_at_a_fork_are_counted_out),
        cmocka_unit_test(a_thread_that_cannot_keep_it_leaves_it_warm),
    };
    alarm(HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
