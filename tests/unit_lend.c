/* Heaps of threads that sleep: lent, so that others collect what was freed into them and adopt their slabs; fetched
 * back by their threads; and what a forked child finds. Each test has a process of its own. */
#include "support/peer.h"

#include "front/registry.h"

static void lend(void) {
    hak_heap_lend_sleeping(); /* the first look may be the first since the thread did something */
    hak_heap_lend_sleeping();
}

static uint32_t hold_of(const struct hak_heap *heap) { return hak_load_acq(&heap->hold); }

static bool is_lent(const struct hak_heap *heap) {
    return heap->lent && heap->parked && hold_of(heap) == HAK_HOLD_LENT &&
           hak_load_acq(&heap->inbox) == HAK_INBOX_PARKED;
}

static bool is_back(const struct hak_heap *heap) {
    return !heap->lent && !heap->parked && hold_of(heap) == HAK_HOLD_NONE &&
           (hak_load_acq(&heap->inbox) & HAK_INBOX_PARKED) == 0;
}

static void *blocks[3 * PER_SLAB];

static void *fill_three_slabs(void *unused) {
    for (unsigned i = 0; i < COUNT(blocks); i++) blocks[i] = take(CLASS_1024);
    return unused;
}
static void *flush_own(void *unused) {
    hak_tcache_flush_all(hak_tls_heap);
    return unused;
}

static struct hak_heap *peer_with_three_slabs(void) {
    ask(fill_three_slabs, NULL);
    ask(flush_own, NULL); /* its bin is empty, so that the slabs can be */
    ask(peer_heap, NULL);
    return peer.result;
}

static void free_some(unsigned first, unsigned step) {
    for (unsigned i = first; i < COUNT(blocks); i += step) give(blocks[i]);
    hak_tcache_flush_all(hak_tls_heap);
}

/* ---- lent and fetched back --------------------------------------------------------------------------------------- */

static void lend_one(void *argument) {
    (void)argument;
    take(0);
    struct hak_heap *other = peer_with_three_slabs();
    const struct hak_front_stats before = stats_of_front();
    free_some(0, 2);
    must(hak_load_acq(&other->inbox) > HAK_INBOX_PARKED); /* and the peer does not look */
    hak_heap_lend_sleeping();
    must(is_back(other));
    hak_heap_lend_sleeping();
    must(is_lent(other));
    must(stats_of_front().threads == before.threads && stats_of_front().heaps_parked == 0);
    must(stats_of_front().live_blocks[0] == before.live_blocks[0] - COUNT(blocks) / 2);

    struct hak_slab *slab = slab_of(take(CLASS_1024)); /* the holes, before anything fresh */
    must(hak_load_acq(&slab->owner) == hak_tls_heap && stats_of_front().adopted_slabs == 1);
    must(slab == slab_of(blocks[1]) || slab == slab_of(blocks[PER_SLAB + 1]) ||
         slab == slab_of(blocks[2 * PER_SLAB + 1]));
    must(is_lent(other) && hak_load_rlx(&other->slabs_owned[CLASS_1024]) == 2);

    const uint64_t used = hak_slab_stats().slabs_used;
    free_some(1, 2); /* of the two that are left nothing is in use any more, and the peer is not asked */
    must(hak_slab_stats().slabs_used == used - 2 && is_lent(other));

    ask(peer_takes, (void *)(uintptr_t)CLASS_1024);
    must(is_back(other) && hak_load_acq(&slab_of(peer.result)->owner) == other);
    ask(NULL, NULL);
    must(hak_heap_check());
}

static void a_heap_is_lent_while_its_thread_sleeps(void **state) {
    (void)state;
    succeeds(lend_one);
}

/* One slab is freed for a quarter, then for a half. */
static void adopt_what_is_half_free(void *argument) {
    (void)argument;
    take(0);
    struct hak_heap *other = peer_with_three_slabs();
    struct hak_slab *slab = slab_of(blocks[0]);
    for (unsigned i = 0; i < PER_SLAB; i += 4) give(blocks[i]);
    hak_tcache_flush_all(hak_tls_heap);
    lend();
    must(is_lent(other) && slab->listed && slab->free_count == PER_SLAB / 4);
    must(hak_load_acq(&slab_of(take(CLASS_1024))->owner) == hak_tls_heap);
    must(hak_load_acq(&slab->owner) == other && stats_of_front().adopted_slabs == 0);
    for (unsigned i = 1; i < PER_SLAB; i += 4) give(blocks[i]);
    hak_tcache_flush_all(hak_tls_heap);
    while (stats_of_front().adopted_slabs == 0) take(CLASS_1024);
    must(hak_load_acq(&slab->owner) == hak_tls_heap && is_lent(other));
    ask(NULL, NULL);
    must(hak_heap_check());
}

static void a_lent_heap_offers_what_is_half_free(void **state) {
    (void)state;
    succeeds(adopt_what_is_half_free);
}

static void *many[20 * PER_SLAB];

static void *fill_many_slabs(void *unused) {
    for (unsigned i = 0; i < COUNT(many); i++) many[i] = take(CLASS_1024);
    hak_tcache_flush_all(hak_tls_heap);
    return unused;
}

/* All have some room, which would take long to go through. */
static void look_at_eight_slabs(void *argument) {
    (void)argument;
    take(0);
    ask(fill_many_slabs, NULL);
    ask(peer_heap, NULL);
    for (unsigned i = 0; i < COUNT(many); i += 4) give(many[i]);
    hak_tcache_flush_all(hak_tls_heap);
    lend();
    must(is_lent(peer.result));
    take(CLASS_1024);
    must(stats_of_front().adopted_slabs == 0 && hak_heap_check());
    ask(NULL, NULL);
}

static void of_many_slabs_of_a_lent_heap_eight_are_looked_at(void **state) {
    (void)state;
    succeeds(look_at_eight_slabs);
}

static void look_while_it_works(void *argument) {
    (void)argument;
    ask(peer_heap, NULL);
    struct hak_heap *other = peer.result;
    for (unsigned i = 0; i < 20; i++) {
        while (other->bin[CLASS_1024].top[-1] != HAK_BIN_BOTTOM) ask(peer_takes, (void *)(uintptr_t)CLASS_1024);
        ask(peer_takes, (void *)(uintptr_t)CLASS_1024); /* which is a slow path */
        hak_heap_lend_sleeping();
        must(is_back(other));
    }
    hak_heap_lend_sleeping();
    must(is_lent(other));
    ask(NULL, NULL);
}

static void a_heap_stays_with_a_thread_that_uses_it(void **state) {
    (void)state;
    succeeds(look_while_it_works);
}

static void *hits_only(void *unused) {
    for (unsigned i = 0; i < 1000; i++) hak_free(hak_malloc(1024 - SLACK));
    return unused;
}

static void hit_while_lent(void *argument) {
    (void)argument;
    if (HAK_EXACT) return; /* there the hits do nothing themselves */
    ask(hits_only, NULL);
    ask(peer_heap, NULL);
    struct hak_heap *other = peer.result;
    lend();
    must(is_lent(other));
    ask(hits_only, NULL);
    must(is_lent(other)); /* they need nothing of it */
    ask(NULL, NULL);
}

static void hits_do_not_ask_whether_the_heap_is_lent(void **state) {
    (void)state;
    succeeds(hit_while_lent);
}

static void end_while_lent(void *argument) {
    (void)argument;
    struct hak_heap *other = peer_with_three_slabs();
    lend();
    must(is_lent(other));
    ask(NULL, NULL);
    must(!other->lent && other->parked && hold_of(other) == HAK_HOLD_NONE && stats_of_front().heaps_parked == 1);
    free_some(0, 1);
    must(stats_of_front().live_blocks[0] == 0);
}

static void a_thread_ends_while_its_heap_is_lent(void **state) {
    (void)state;
    succeeds(end_while_lent);
}

static void *give_first(void *unused) {
    give(blocks[0]);
    return unused;
}

/* Without a bin a block goes straight to its slab: of which the thread must know that it is not its own any more. */
static void free_without_bins(void *argument) {
    (void)argument;
    set_option(PREWARM, 0);
    set_option(TLS_BYTES, 0);
    take(0);
    struct hak_heap *other = peer_with_three_slabs();
    free_some(1, 2);
    lend();
    struct hak_slab *slab = slab_of(blocks[0]);
    while (hak_load_acq(&slab->owner) == other) take(CLASS_1024);
    must(hak_load_acq(&slab->owner) == hak_tls_heap);
    const uint32_t free_blocks = slab->free_count;
    ask(give_first, NULL);
    ask(flush_own, NULL);
    must(slab->free_count == free_blocks && hak_load_acq(&slab->queued));
    hak_remote_collect(hak_tls_heap);
    must(slab->free_count == free_blocks + 1);
    ask(NULL, NULL);
    must(hak_heap_check());
}

static void a_block_of_an_adopted_slab_goes_to_its_new_owner(void **state) {
    (void)state;
    succeeds(free_without_bins);
}

/* As if another thread had claimed the heap. */
static void claim(struct hak_heap *heap) {
    must(is_back(heap));
    heap->lent = true;
    hak_store_rlx(&heap->hold, HAK_HOLD_CLAIMED);
}

static void *give_back(void *heap) {
    while (hold_of(heap) != HAK_HOLD_AWAITED) usleep(200);
    usleep(2000); /* it sleeps by now, as a rule */
    hak_registry_park(heap);
    return NULL;
}

static void wait_for_claimant(void *argument) {
    (void)argument;
    pthread_t claimant;
    take(0);
    claim(hak_tls_heap);
    start_thread(&claimant, give_back, hak_tls_heap);
    take(CLASS_1024);
    must(is_back(hak_tls_heap) && hak_heap_check());
    must(pthread_join(claimant, NULL) == 0);
}

static void the_owner_gets_its_heap_from_who_was_at_it(void **state) {
    (void)state;
    succeeds(wait_for_claimant);
}

static void *lend_all(void *unused) {
    hak_heap_lend_all();
    return unused;
}

/* What is on its way home when its slab is adopted by who freed it. */
static void deliver_to_own(void *argument) {
    (void)argument;
    enum { CLASS_512 = 20 };
    set_option(PREWARM, 0);
    take(0);
    void *freed[8];
    for (unsigned i = 0; i < COUNT(freed); i++) {
        ask(peer_takes, (void *)(uintptr_t)CLASS_512);
        freed[i] = peer.result;
    }
    struct hak_slab *slab = slab_of(freed[0]);
    for (unsigned i = 0; i < COUNT(freed); i++) give(freed[i]); /* there is no bin that would keep them */
    lend();
    take(CLASS_512);
    must(hak_load_acq(&slab->owner) == hak_tls_heap && hak_tls_heap->outgoing_slots != 0);
    ask(lend_all, NULL);
    must(is_lent(hak_tls_heap));
    const uint32_t free_blocks = slab->free_count;
    hak_remote_deliver(hak_tls_heap);
    must(slab->free_count == free_blocks + COUNT(freed) && is_back(hak_tls_heap));
    must(hak_heap_check());
    ask(NULL, NULL);
}

static void what_comes_home_to_a_lent_heap_by_its_owner_is_collected(void **state) {
    (void)state;
    succeeds(deliver_to_own);
}

/* ---- many heaps -------------------------------------------------------------------------------------------------- */

static void purge_for_all(void *argument) {
    (void)argument;
    take(0);
    struct hak_heap *other = peer_with_three_slabs();
    hak_tcache_flush_all(hak_tls_heap);
    const uint64_t used = hak_slab_stats().slabs_used;
    free_some(0, 1);
    must(hak_slab_stats().slabs_used == used);
    hak_purge();
    must(is_lent(other) && hak_slab_stats().slabs_used <= used - 3);
    ask(NULL, NULL);
}

static void a_purge_gives_back_what_was_freed_into_heaps_of_others(void **state) {
    (void)state;
    succeeds(purge_for_all);
}

static void purge_kept_slabs(void *argument) {
    (void)argument;
    take(0);
    peer_with_three_slabs();
    ask(peer_takes, 0);
    hak_tcache_flush_all(hak_tls_heap);
    const uint64_t used = hak_slab_stats().slabs_used;
    free_some(0, 1);
    for (unsigned i = 0; i < 20; i++) ask(peer_takes, 0); /* it collects, but keeps one */
    must(hak_slab_stats().slabs_used == used - 2);
    hak_purge();
    must(hak_slab_stats().slabs_used <= used - 3);
    ask(NULL, NULL);
}

static void a_purge_gives_back_what_others_keep_against_thrash(void **state) {
    (void)state;
    succeeds(purge_kept_slabs);
}

#define SLEEPERS 200
static pthread_barrier_t meeting;

static void *sleep_three_times(void *unused) {
    take(0); /* memory grows, and heaps are lent for it */
    pthread_barrier_wait(&meeting);
    hak_thread_flush(); /* a slow path, which fetches the heap back */
    pthread_barrier_wait(&meeting);
    pthread_barrier_wait(&meeting);
    return unused;
}

static void count_lent(const struct hak_heap *heap, void *count) { *(unsigned *)count += heap->lent; }
static unsigned lent_heaps(void) {
    unsigned count = 0;
    hak_heap_each(count_lent, &count);
    return count;
}

static void look_at_many(void *argument) {
    (void)argument;
    pthread_t threads[SLEEPERS];
    must(pthread_barrier_init(&meeting, NULL, SLEEPERS + 1) == 0);
    take(0);
    for (unsigned i = 0; i < SLEEPERS; i++) start_thread(&threads[i], sleep_three_times, NULL);
    for (unsigned i = 0; i < 2; i++) pthread_barrier_wait(&meeting);
    must(lent_heaps() < 64);
    for (unsigned before, calls = 0; (before = lent_heaps()) < SLEEPERS; calls++) {
        hak_heap_lend_sleeping();
        must(lent_heaps() <= before + 64 && calls < 10);
    }
    pthread_barrier_wait(&meeting);
    for (unsigned i = 0; i < SLEEPERS; i++) must(pthread_join(threads[i], NULL) == 0);
    hak_thread_flush();
    must(lent_heaps() == 0 && stats_of_front().heaps_parked == SLEEPERS);
}

static void of_many_heaps_some_are_looked_at(void **state) {
    (void)state;
    succeeds(look_at_many);
}

static void grow_while_another_sleeps(void *argument) {
    (void)argument;
    struct hak_heap *other = peer_with_three_slabs();
    for (unsigned i = 0; i < 4 * HAK_MIB / 1024; i++) take(CLASS_1024);
    must(is_lent(other));
    ask(NULL, NULL);
}

static void heaps_are_lent_when_memory_grows(void **state) {
    (void)state;
    succeeds(grow_while_another_sleeps);
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

static void use_as_own(void *heap) {
    void *ptr = hak_malloc(1024);
    hak_free(ptr);
    take(CLASS_1024);
    must(hak_tls_heap == heap && is_back(heap) && hak_heap_check());
}

static void adopt_from_orphan(void *argument) {
    struct hak_heap *other = argument;
    take(0);
    must(!other->lent && other->parked && other->orphaned && hold_of(other) == HAK_HOLD_NONE);
    must(stats_of_front().threads == 1 && stats_of_front().heaps_parked == 1);
    free_some(0, 1);
    must(hak_load_acq(&slab_of(take(CLASS_1024))->owner) == hak_tls_heap && hak_heap_check());
}

static void fork_while_lent(void *argument) {
    (void)argument;
    take(0);
    struct hak_heap *other = peer_with_three_slabs();
    lend();
    must(is_lent(other));
    must(run_forked(adopt_from_orphan, other) == 0);
    ask(lend_all, NULL);
    must(is_lent(hak_tls_heap));
    must(run_forked(use_as_own, hak_tls_heap) == 0);
    use_as_own(hak_tls_heap); /* the parent has not been touched */
    ask(NULL, NULL);
}

static void a_child_finds_its_own_heap_back_and_others_parked(void **state) {
    (void)state;
    succeeds(fork_while_lent);
}

static void use_another(void *heap) {
    void *ptr = hak_malloc(1024);
    must(ptr != NULL && hak_tls_heap != heap);
    hak_free(ptr);
    give(blocks[0]); /* of the heap that is given up: it is valid still */
    hak_thread_flush();
    must(hak_heap_check());
}

/* As if another thread were at it. */
static void fork_while_claimed(void *argument) {
    (void)argument;
    fill_three_slabs(NULL);
    struct hak_heap *mine = hak_tls_heap;
    for (uint32_t hold = HAK_HOLD_CLAIMED; hold <= HAK_HOLD_AWAITED; hold++) {
        hak_store_rlx(&mine->hold, hold);
        must(run_forked(use_another, mine) == 0);
    }
    hak_store_rlx(&mine->hold, HAK_HOLD_NONE);
}

static void a_child_gives_its_heap_up_if_another_thread_was_at_it(void **state) {
    (void)state;
    succeeds(fork_while_claimed);
}

static struct hak_heap *heap_of_main;
static pid_t parent;
static volatile sig_atomic_t forked;

static void fork_in_handler(int signal) {
    (void)signal;
    pid_t pid = fork();
    if (pid == 0) return; /* into the wait for a claimant that is not there any more */
    int status = -1;
    must(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    forked = 1;
}

static void *interrupt_main(void *thread) {
    while (hold_of(heap_of_main) != HAK_HOLD_AWAITED) usleep(200);
    usleep(2000);
    must(pthread_kill(*(pthread_t *)thread, SIGUSR1) == 0);
    while (!forked) usleep(200);
    hak_registry_park(heap_of_main);
    return NULL;
}

static void fork_while_waiting(void *argument) {
    (void)argument;
    pthread_t self = pthread_self(), claimant;
    const struct sigaction action = {.sa_handler = fork_in_handler, .sa_flags = SA_RESTART};
    must(sigaction(SIGUSR1, &action, NULL) == 0);
    fill_three_slabs(NULL);
    while (hak_tls_heap->bin[0].top[-1] != HAK_BIN_BOTTOM) take(0);
    heap_of_main = hak_tls_heap;
    parent = getpid();
    claim(heap_of_main);
    start_thread(&claimant, interrupt_main, &self);
    take(0);
    if (getpid() != parent) {
        must(hak_tls_heap != heap_of_main);
        use_another(heap_of_main);
        _exit(0);
    }
    must(hak_tls_heap == heap_of_main && is_back(heap_of_main) && forked);
    must(pthread_join(claimant, NULL) == 0);
}

static void a_child_forked_by_a_handler_does_not_wait_for_a_thread_of_its_parent(void **state) {
    if (HAK_TSAN) return; /* it puts the signal off until the wait is over */
    (void)state;
    succeeds(fork_while_waiting);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_heap_is_lent_while_its_thread_sleeps),
        cmocka_unit_test(a_lent_heap_offers_what_is_half_free),
        cmocka_unit_test(of_many_slabs_of_a_lent_heap_eight_are_looked_at),
        cmocka_unit_test(a_heap_stays_with_a_thread_that_uses_it),
        cmocka_unit_test(hits_do_not_ask_whether_the_heap_is_lent),
        cmocka_unit_test(a_thread_ends_while_its_heap_is_lent),
        cmocka_unit_test(a_block_of_an_adopted_slab_goes_to_its_new_owner),
        cmocka_unit_test(the_owner_gets_its_heap_from_who_was_at_it),
        cmocka_unit_test(what_comes_home_to_a_lent_heap_by_its_owner_is_collected),
        cmocka_unit_test(a_purge_gives_back_what_was_freed_into_heaps_of_others),
        cmocka_unit_test(a_purge_gives_back_what_others_keep_against_thrash),
        cmocka_unit_test(of_many_heaps_some_are_looked_at),
        cmocka_unit_test(heaps_are_lent_when_memory_grows),
        cmocka_unit_test(a_child_finds_its_own_heap_back_and_others_parked),
        cmocka_unit_test(a_child_gives_its_heap_up_if_another_thread_was_at_it),
        cmocka_unit_test(a_child_forked_by_a_handler_does_not_wait_for_a_thread_of_its_parent),
    };
    alarm(HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
