/* Heaps: parked when their thread ends, taken over by the next, adopted from slab by slab; remote frees collected, and
 * a second one found; the limit per class. Each test has a process of its own. */
#include "support/peer.h"

#include "base/sys.h"

#include <sys/mman.h>

static uint32_t cached(unsigned c) {
    const struct hak_bin_state *state = &hak_tls_heap->state[c];
    return state->base == NULL ? 0 : (uint32_t)(hak_tls_heap->bin[c].top - state->base);
}

/* ---- ends and beginnings of threads --------------------------------------------------------------------------- */

static void *note_heap(void *heap) {
    take(0);
    *(struct hak_heap **)heap = hak_tls_heap;
    return NULL;
}

static void run_one_after_the_other(void *argument) {
    struct hak_heap *first, *second;
    (void)argument;
    run_thread(note_heap, &first);
    must(first != hak_tls_heap && first->parked);
    must((uintptr_t)first % 4096 >= sizeof first->bin[0] * HAK_TINY_CLASSES); /* away from where a page begins */
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++)
        must(first->bin[c].top[-1] == HAK_BIN_BOTTOM); /* its bins are empty */
    must(hak_load_acq(&first->inbox) == HAK_INBOX_PARKED);
    must(stats_of_front().threads == 0 && stats_of_front().heaps_parked == 1);
    take(0); /* this thread had none yet, and takes that one */
    must(hak_tls_heap == first && !first->parked && hak_load_acq(&first->inbox) == 0);
    must(stats_of_front().threads == 1 && stats_of_front().heaps_parked == 0);
    run_thread(note_heap, &second);
    must(second != first && second->parked);
    run_thread(note_heap, &first);
    must(first == second);
    must(stats_of_front().threads == 1 && stats_of_front().heaps_parked == 1);
}

static void a_new_thread_takes_a_parked_heap_over(void **state) {
    (void)state;
    succeeds(run_one_after_the_other);
}

static void *grow_two_bins(void *unused) {
    set_option(TLS_GROW_RATE, 0);
    for (unsigned c = 10; c <= 11; c++) {
        set_option(TLS_SLOTS_MAX, c == 10 ? 64 : 128);
        for (unsigned i = 0; i < 2000; i++) take(c);
    }
    must(hak_tls_heap->state[10].capacity == 64 && hak_tls_heap->state[11].capacity == 128);
    return unused;
}

static void take_bins_over(void *argument) {
    (void)argument;
    run_thread(grow_two_bins, NULL);
    take(0);
    const struct hak_heap *heap = hak_tls_heap;
    must(heap->state[10].capacity == 64 && heap->state[10].visits == 0 && heap->state[10].refills == 0);
    must(heap->state[11].base == NULL);
    must(heap->capacity_bytes == 64 * hak_class_bytes(10) + (size_t)16 * (16 + 32 + 48 + 64));
    ask(peer_takes, (void *)10);
    give(peer.result); /* it is closed still: what others own goes home */
    must(cached(10) == 0 && hak_tls_heap->outgoing_slots != 0);
    must(hak_heap_check());
    take(10);
    must(cached(10) == 7 && heap->bin[10].limit == heap->state[10].base + 64);
    ask(NULL, NULL);
}

static void *use_a_bin_up(void *blocks) {
    do {
        take(3);
        ++*(uint64_t *)blocks;
    } while (cached(3) != 0);
    return NULL;
}

static void end_with_empty_bins(void *argument) {
    (void)argument;
    take(0);
    uint64_t blocks = 1;
    run_thread(use_a_bin_up, &blocks);
    must(blocks > 1 && stats_of_front().live_blocks[0] == blocks);
}

static void what_a_thread_took_that_ended_is_live(void **state) {
    (void)state;
    succeeds(end_with_empty_bins);
}

static void empty_bins_are_taken_over_but_for_large_ones(void **state) {
    (void)state;
    succeeds(take_bins_over);
}

static void *left[3 * PER_SLAB];

static void *leave_holes(void *argument) {
    for (unsigned i = 0; i < 3 * PER_SLAB; i++) left[i] = take(CLASS_1024);
    for (unsigned i = 0; i < 3 * PER_SLAB; i += 2) give(left[i]);
    return argument;
}

static void adopt_slabs(void *argument) {
    (void)argument;
    struct hak_heap *mine = hak_heap_get();
    run_thread(leave_holes, NULL);
    struct hak_slab *slabs[3] = {slab_of(left[1]), slab_of(left[PER_SLAB + 1]), slab_of(left[2 * PER_SLAB + 1])};
    void *from = hak_load_acq(&slabs[0]->owner);
    must(from != mine);
    must(slabs[0]->listed && slabs[0]->free_count == PER_SLAB / 2);
    uint64_t used = hak_slab_stats().slabs_used;
    for (unsigned i = 0; i < 3 * PER_SLAB / 2; i++) {
        struct hak_slab *slab = slab_of(take(CLASS_1024));
        must(slab == slabs[0] || slab == slabs[1] || slab == slabs[2]); /* the holes, and nothing fresh */
    }
    must(hak_slab_stats().slabs_used == used);
    must(stats_of_front().adopted_slabs == 3);
    must(stats_of_front().live_blocks[0] == 3 * PER_SLAB); /* the blocks went over with their slabs */
    must(hak_load_rlx(&mine->slabs_owned[CLASS_1024]) == 3);
    for (unsigned i = 0; i < 3; i++) {
        must(hak_load_acq(&slabs[i]->owner) == mine);
        must(hak_region_lookup(slabs[i]->base).owner == hak_heap_tag(mine));
    }
    for (unsigned i = 1; i < 3 * PER_SLAB; i += 2) give(left[i]); /* local frees now */
    must(mine->outgoing_slots == 0);
    must(hak_heap_check());
}

enum { CROWD = 70 }; /* more than are looked at in one go */
struct crowd {
    pthread_t threads[CROWD];
    pthread_barrier_t here, gone;
};

static void *stand_by(void *argument) {
    struct crowd *crowd = argument;
    hak_heap_get(); /* without a slab: who takes much has the heaps of others lent */
    pthread_barrier_wait(&crowd->here);
    pthread_barrier_wait(&crowd->gone);
    return NULL;
}

static void gather(struct crowd *crowd) {
    must(pthread_barrier_init(&crowd->here, NULL, CROWD + 1) == 0);
    must(pthread_barrier_init(&crowd->gone, NULL, CROWD + 1) == 0);
    for (unsigned i = 0; i < CROWD; i++) start_thread(&crowd->threads[i], stand_by, crowd);
    pthread_barrier_wait(&crowd->here);
}

static void disperse(struct crowd *crowd) {
    pthread_barrier_wait(&crowd->gone);
    for (unsigned i = 0; i < CROWD; i++) must(pthread_join(crowd->threads[i], NULL) == 0);
    must(pthread_barrier_destroy(&crowd->here) == 0 && pthread_barrier_destroy(&crowd->gone) == 0);
}

static void adopt_from_behind_many(void *argument) {
    static struct crowd crowd;
    (void)argument;
    set_option(PREWARM, 0);
    hak_sys_set_now_for_test(1000000); /* nor are they lent by time */
    hak_heap_get();
    gather(&crowd);
    run_thread(leave_holes, NULL);
    disperse(&crowd); /* all in front of that one */
    take(CLASS_1024);
    must(stats_of_front().adopted_slabs == 0);
    gather(&crowd); /* in the same heaps */
    for (unsigned i = 0; i < PER_SLAB; i++) take(CLASS_1024);
    must(stats_of_front().adopted_slabs == 1);
    disperse(&crowd);
}

static void a_thread_adopts_what_a_parked_heap_has_before_it_asks_for_more(void **state) {
    (void)state;
    succeeds(adopt_slabs);
    succeeds(adopt_from_behind_many);
}

static void free_for_the_dead(void *argument) {
    (void)argument;
    hak_heap_get();
    uint64_t used = hak_slab_stats().slabs_used;
    run_thread(leave_holes, NULL);
    must(hak_slab_stats().slabs_used == used + 3);
    for (unsigned i = 1; i < 3 * PER_SLAB; i += 2) give(left[i]);
    hak_remote_deliver(hak_tls_heap);
    must(hak_slab_stats().slabs_used == used); /* given back on nobody's behalf */
    must(stats_of_front().heaps_parked == 1);
}

static void frees_into_a_parked_heap_release_what_becomes_empty(void **state) {
    (void)state;
    set_option(PREWARM, 0);
    succeeds(free_for_the_dead);
    set_option(PREWARM, 4);
}

/* ---- remote frees ---------------------------------------------------------------------------------------------- */

/* What a small block takes up of the outgoing buffer. */
#define LEAST_SHARE (hak_option(REMOTE_BYTES) / HAK_OUTGOING_BLOCKS)

static size_t used_by_outgoing(const struct hak_heap *heap) {
    return (size_t)((int64_t)hak_option(REMOTE_BYTES) - 1 - heap->outgoing_room);
}

static void deliver_and_collect(void *argument) {
    (void)argument;
    void *blocks[PER_SLAB];
    ask(peer_heap, NULL);
    struct hak_heap *other = peer.result;
    for (unsigned i = 0; i < PER_SLAB; i++) {
        ask(peer_takes, (void *)(uintptr_t)CLASS_1024);
        blocks[i] = peer.result;
    }
    struct hak_slab *slab = slab_of(blocks[0]);
    must(hak_load_acq(&slab->owner) == other && slab->free_count == 0);
    struct hak_heap *mine = hak_heap_get();
    for (unsigned i = 0; i < 40; i++) give(blocks[i]);
    must(used_by_outgoing(mine) == 40 * LEAST_SHARE);
    must(hak_load_acq(&other->inbox) == 0);
    hak_remote_deliver(mine);
    must(used_by_outgoing(mine) == 0);
    must(hak_load_acq(&other->inbox) == (uintptr_t)slab && hak_load_acq(&slab->queued));
    must((uint32_t)__builtin_popcountll(hak_load_acq(&hak_slab_remote_bits(slab)[0])) == 40);
    must(slab->free_count == 0); /* the owner has not looked yet */
    for (unsigned i = 0; i < 40; i++) {
        ask(peer_takes, (void *)(uintptr_t)CLASS_1024);
        must(slab_of(peer.result) == slab);
    }
    must(hak_load_acq(&other->inbox) == 0 && !hak_load_acq(&slab->queued));
    must(hak_load_acq(&hak_slab_remote_bits(slab)[0]) == 0);
    must(stats_of_front().remote_frees == 40);
    ask(NULL, NULL);
}

static void remote_frees_gather_are_delivered_and_collected(void **state) {
    (void)state;
    succeeds(deliver_and_collect);
}

/* By the inlined hit, or by the slow path. */
static void (*free_by)(void *);

static void keep_what_a_peer_allocated(void *argument) {
    (void)argument;
    enum { CLASS_48 = 2, CLASS_64 };
    void *blocks[HAK_OUTGOING_BLOCKS];
    give(take(CLASS_64));
    hak_tcache_flush_all(hak_tls_heap); /* what is cached from now on is all the peer's */
    for (unsigned i = 0; i < COUNT(blocks); i++) {
        ask(peer_takes, (void *)(uintptr_t)CLASS_64);
        blocks[i] = peer.result;
    }
    struct hak_slab *slab = slab_of(blocks[0]);
    must(hak_load_acq(&slab->owner) != hak_tls_heap);

    free_by(blocks[0]);
    must(cached(CLASS_64) == 1 && hak_tls_heap->outgoing_slots == 0);
    must(take(CLASS_64) == blocks[0]); /* the one that was used last */
    const unsigned room = hak_tls_heap->state[CLASS_64].capacity;
    const uint64_t live = stats_of_front().live_blocks[0];
    must(room > 0 && room < COUNT(blocks));
    for (unsigned i = 0; i < room; i++) free_by(blocks[i]);
    must(hak_tls_heap->outgoing_slots == 0);
    free_by(blocks[room]); /* no room: it goes back, and nothing is flushed for it */
    must(hak_tls_heap->outgoing_slots != 0 && cached(CLASS_64) == room);
    must(stats_of_front().live_blocks[0] == live - room);

    ask(peer_takes, (void *)(uintptr_t)CLASS_48); /* there might be others in its cache line */
    const uint32_t smaller = cached(CLASS_48);
    free_by(peer.result);
    must(cached(CLASS_48) == smaller);

    hak_tcache_flush_all(hak_tls_heap);
    must(hak_tls_heap->outgoing_slots == 0 && hak_slab_check(slab));
    for (unsigned i = room + 1; i < COUNT(blocks); i++) free_by(blocks[i]);
    hak_tcache_flush_all(hak_tls_heap);
    ask(NULL, NULL);
    run_thread(peer_heap, NULL); /* who takes the peer's heap over collects */
    must(stats_of_front().live_blocks[0] == 0);
    must(hak_heap_check());
}

static void a_bin_with_room_keeps_blocks_of_others_until_it_is_flushed(void **state) {
    (void)state;
    free_by = give;
    succeeds(keep_what_a_peer_allocated);
    if (HAK_EXACT) return; /* there the hits do nothing themselves */
    free_by = hak_free;
    succeeds(keep_what_a_peer_allocated);
}

static void fill_the_outgoing_buffer(void *argument) {
    (void)argument;
    struct hak_heap *mine = hak_heap_get();
    for (unsigned i = 0; i < HAK_OUTGOING_BLOCKS; i++) {
        must(used_by_outgoing(mine) == i * LEAST_SHARE);
        ask(peer_takes, (void *)10); /* this thread has no bin for it */
        give(peer.result);
    }
    must(used_by_outgoing(mine) == 0); /* by number */
    set_option(REMOTE_BYTES, 100000);
    hak_remote_deliver(mine); /* the option counts from here on */
    for (unsigned i = 0; i < 4; i++) {
        must(used_by_outgoing(mine) == i * hak_class_bytes(HAK_CLASS_COUNT - 1));
        ask(peer_takes, (void *)(uintptr_t)(HAK_CLASS_COUNT - 1));
        give(peer.result);
    }
    must(used_by_outgoing(mine) == 0); /* by bytes */
    ask(NULL, NULL);
}

static void the_outgoing_buffer_is_bounded_in_number_and_bytes(void **state) {
    (void)state;
    succeeds(fill_the_outgoing_buffer);
}

static void *deliver_and_leave(void *ptr) {
    give(ptr);
    return NULL; /* the end of the thread delivers */
}

static void flush_what_others_freed(void *argument) {
    (void)argument;
    void *ptr = take(CLASS_1024);
    run_thread(deliver_and_leave, ptr);
    hak_tcache_flush_all(hak_heap_get());
    must(hak_slab_stats().slabs_used == 0);
}

static void a_flush_gives_slabs_back_that_remote_frees_have_emptied(void **state) {
    (void)state;
    set_option(PREWARM, 0);
    succeeds(flush_what_others_freed);
}

/* ---- a second remote free --------------------------------------------------------------------------------------- */

static void **shared_block; /* with the parent, which wants to know the address */

static void *give_and_deliver(void *ptr) {
    give(ptr);
    hak_remote_deliver(hak_heap_get());
    return NULL;
}

static void *take_foreign_block(void) {
    ask(peer_takes, (void *)3);
    return *shared_block = peer.result;
}

static void free_twice_into_one_buffer(void *argument) {
    (void)argument;
    void *ptr = take_foreign_block();
    hak_heap_get();
    give(ptr);
    give_and_deliver(ptr);
}

static void free_in_two_deliveries(void *argument) {
    (void)argument;
    void *ptr = take_foreign_block();
    hak_heap_get();
    give_and_deliver(ptr);
    give_and_deliver(ptr);
}

static void free_in_two_threads(void *argument) {
    (void)argument;
    void *ptr = take_foreign_block();
    hak_heap_get();
    run_thread(give_and_deliver, ptr);
    give_and_deliver(ptr);
}

static void *peer_collects(void *unused) {
    hak_remote_collect(hak_heap_get());
    return unused;
}

static void free_again_after_collection(void *argument) {
    (void)argument;
    void *ptr = take_foreign_block();
    hak_heap_get();
    give_and_deliver(ptr);
    ask(peer_collects, NULL);
    give_and_deliver(ptr);
    ask(peer_collects, NULL);
}

static void a_second_remote_free_is_found_wherever_the_first_one_is(void **state) {
    (void)state;
    static void (*const ways[])(void *) = {free_twice_into_one_buffer, free_in_two_deliveries, free_in_two_threads,
                                           free_again_after_collection};
    for (size_t i = 0; i < COUNT(ways); i++) {
        char line[256];
        struct ended ended = run_heard(ways[i], NULL);
        snprintf(line, sizeof line, "hakmem[%d %s]: free(%p): double free%s\n", (int)ended.pid,
                 program_invocation_short_name, *shared_block,
                 ways[i] == free_twice_into_one_buffer ? "" : " (found when the thread cache was flushed)");
        if (HAK_ASAN) ended.text[strlen(line)] = '\0'; /* there stacks follow */
        assert_string_equal(ended.text, line);
        assert_true(WIFSIGNALED(ended.status) && WTERMSIG(ended.status) == SIGABRT);
    }
}

static void free_inside_beside_a_remote_free(void *argument) {
    enum { CLASS_48 = 2 };
    (void)argument;
    ask(peer_takes, (void *)CLASS_48);
    void *ptr = peer.result;
    ask(peer_takes, (void *)CLASS_48);
    *shared_block = (char *)peer.result + 16;
    hak_heap_get();
    hak_free(ptr); /* its word is on its way now */
    hak_free(*shared_block);
}

static void a_remote_free_of_no_block_is_found_whatever_is_on_its_way(void **state) {
    (void)state;
    if (HAK_EXACT) return; /* there it never comes so far */
    char line[256];
    struct ended ended = run_heard(free_inside_beside_a_remote_free, NULL);
    snprintf(line, sizeof line, "hakmem[%d %s]: free(%p): invalid pointer: not the start of a block\n", (int)ended.pid,
             program_invocation_short_name, *shared_block);
    assert_string_equal(ended.text, line);
    assert_true(WIFSIGNALED(ended.status) && WTERMSIG(ended.status) == SIGABRT);
}

/* ---- limits ------------------------------------------------------------------------------------------ */

static void reach_the_limit(void *argument) {
    enum { LIMIT = 32 * 1024, CLASS_64 = 3 };
    static void *blocks[LIMIT + 1];
    (void)argument;
    set_option(SUPERSLABS_MAX, 1);
    size_t bytes = 64 - SLACK;
    for (unsigned i = 0; i < LIMIT; i++) must((blocks[i] = hak_malloc(bytes)) != NULL);
    for (unsigned i = 0; i < 3; i++) {
        errno = 0;
        must(hak_malloc(bytes) == NULL && errno == ENOMEM);
    }
    void *other = hak_malloc(200), *large = hak_malloc(100000); /* it is a limit per class */
    must(other != NULL && large != NULL);
    hak_free(blocks[77]);
    must(hak_malloc(bytes) == blocks[77]);
    errno = 0;
    must(hak_malloc(bytes) == NULL && errno == ENOMEM);
    for (unsigned i = 0; i < LIMIT; i++) hak_free(blocks[i]);
    for (unsigned i = 0; i < LIMIT; i++) must((blocks[i] = hak_malloc(bytes)) != NULL);
    must(hak_malloc(bytes) == NULL);
    must(hak_heap_check());
}

static void the_limit_per_class_is_met_and_refused_with_enomem(void **state) {
    (void)state;
    succeeds(reach_the_limit);
}

static void grow_beside_a_full_class(void *argument) {
    (void)argument;
    set_option(SUPERSLABS_MAX, 1);
    while (hak_malloc(224 - SLACK) != NULL) continue;
    give(take(3));
    const struct hak_bin *bin = &hak_tls_heap->bin[3];
    void *const *top = bin->top;
    char *ptr = hak_malloc(160 - SLACK);
    fill(ptr, 160 - SLACK, 5);
    errno = 0;
    ptr = hak_realloc(ptr, 161 - SLACK); /* 200 bytes would be a quarter more */
    must(ptr != NULL && errno == 0 && is_filled(ptr, 160 - SLACK, 5));
    must(hak_malloc_usable_size(ptr) == (EXACT ? 161 - SLACK : 192));
    must(bin->top == top); /* room is not worth letting go of anything */
    must(hak_heap_check());
}

static void a_block_grows_without_room_where_its_class_is_full(void **state) {
    (void)state;
    succeeds(grow_beside_a_full_class);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_thread_takes_a_parked_heap_over),
        cmocka_unit_test(empty_bins_are_taken_over_but_for_large_ones),
        cmocka_unit_test(what_a_thread_took_that_ended_is_live),
        cmocka_unit_test(a_thread_adopts_what_a_parked_heap_has_before_it_asks_for_more),
        cmocka_unit_test(frees_into_a_parked_heap_release_what_becomes_empty),
        cmocka_unit_test(remote_frees_gather_are_delivered_and_collected),
        cmocka_unit_test(a_bin_with_room_keeps_blocks_of_others_until_it_is_flushed),
        cmocka_unit_test(the_outgoing_buffer_is_bounded_in_number_and_bytes),
        cmocka_unit_test(a_flush_gives_slabs_back_that_remote_frees_have_emptied),
        cmocka_unit_test(a_second_remote_free_is_found_wherever_the_first_one_is),
        cmocka_unit_test(a_remote_free_of_no_block_is_found_whatever_is_on_its_way),
        cmocka_unit_test(the_limit_per_class_is_met_and_refused_with_enomem),
        cmocka_unit_test(a_block_grows_without_room_where_its_class_is_full),
    };
    shared_block = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared_block != MAP_FAILED);
    set_option(TLS_WARM_BYTES, 0); /* threads that end leave nothing in their bins: unit_warm.c */
    alarm(HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
