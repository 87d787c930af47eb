/* Blocks freed by other threads than their owner's, where two threads meet: nothing that is delivered may be lost, nor
 * seen before its time. Each test has a process of its own. */
#include "support/inside.h"
#include "support/prefixed.h"

#include <sys/syscall.h>

#include "base/annotate.h"
#include "front/heap.h"
#include "front/remote.h"
#include "front/tcache.h"

#define CLASS_1024 (HAK_TINY_CLASSES - 1) /* 64 to a slab */
#define CLASS_32K (HAK_CLASS_COUNT - 1)   /* 16 to a slab */
#define FREERS 2
#define BLOCKS 256

static void *take(unsigned c) {
    void *ptr = hak_tcache_alloc(c);
    must(ptr != NULL);
    return ptr;
}

static struct hak_slab *slab_of(const void *ptr) { return hak_region_lookup(ptr).descriptor; }

static void free_now(void *ptr) { hak_remote_free_now(slab_of(ptr), ptr, "free"); }

static uint64_t live_blocks(void) {
    const struct hak_front_stats stats = stats_of_front();
    return stats.live_blocks[0] + stats.live_blocks[1];
}

/* ---- many deliveries at once ---------------------------------------------------------------------------------- */

static void *blocks[BLOCKS];
static _Atomic unsigned round_begun, freers_done;

/* Of few slabs many blocks meet in a word; many slabs meet at the inbox, most if the freers begin at either end. */
static const struct meeting {
    unsigned size_class;
    bool opposed;
} meetings[] = {{CLASS_1024, false}, {CLASS_1024, true}, {CLASS_32K, false}, {CLASS_32K, true}};
static const struct meeting *meeting;

/* Every second block, one by one. */
static void *free_each_round(void *second) {
    for (unsigned n = 1;; n++) {
        while (atomic_load(&round_begun) < n) sched_yield();
        if (blocks[0] == NULL) return NULL;
        for (unsigned i = second != NULL; i < BLOCKS; i += 2)
            free_now(blocks[second != NULL && meeting->opposed ? BLOCKS - i : i]);
        atomic_fetch_add(&freers_done, 1);
    }
}

static void deliver_while_it_is_collected(void *argument) {
    pthread_t freers[FREERS];
    struct hak_heap *heap = hak_heap_get();
    const unsigned count = rounds(HAK_TSAN || HAK_ASAN || HAK_MSAN ? 50 : 200, 100);
    meeting = argument;
    for (unsigned i = 0; i < FREERS; i++) start_thread(&freers[i], free_each_round, i == 0 ? NULL : blocks);
    for (unsigned n = 0; n < count; n++) {
        for (unsigned i = 0; i < BLOCKS; i++) blocks[i] = take(meeting->size_class);
        atomic_store(&freers_done, 0);
        atomic_fetch_add(&round_begun, 1);
        while (atomic_load(&freers_done) < FREERS) hak_remote_collect(heap);
        hak_remote_collect(heap);
        must(hak_load_rlx(&heap->inbox) == 0);
        must(live_blocks() == 0);
    }
    blocks[0] = NULL;
    atomic_fetch_add(&round_begun, 1);
    for (unsigned i = 0; i < FREERS; i++) must(pthread_join(freers[i], NULL) == 0);
}

static void no_delivery_is_lost_while_the_owner_collects(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(meetings); i++)
        succeeds_with(deliver_while_it_is_collected, (void *)(uintptr_t)&meetings[i]);
}

/* ---- one delivery of blocks of many slabs ------------------------------------------------------------------------ */

/* Each from another granule than the one before it, and many to a delivery. */
static void *free_all_over(void *argument) {
    (void)argument;
    for (unsigned i = 0; i < BLOCKS; i++) hak_tcache_free(blocks[i * 37 % BLOCKS], "free");
    return NULL;
}

static void free_blocks_of_many_slabs(void *argument) {
    pthread_t freer;
    (void)argument;
    set_option(REMOTE_BYTES, 1 << 30);
    for (unsigned i = 0; i < BLOCKS; i++) blocks[i] = take(i < BLOCKS / 2 ? CLASS_32K : CLASS_1024);
    start_thread(&freer, free_all_over, NULL);
    must(pthread_join(freer, NULL) == 0);
    hak_remote_collect(hak_tls_heap);
    must(live_blocks() == 0);
    must(hak_heap_check());
}

static void blocks_of_many_slabs_go_out_together(void **state) {
    (void)state;
    succeeds(free_blocks_of_many_slabs);
}

/* ---- a delivery to a heap that is being parked ----------------------------------------------------------------- */

static struct {
    pid_t thread;
    void *block;
    struct hak_heap *heap;
    _Atomic bool ready, may_end;
} ending;

static void *leave_a_block(void *argument) {
    ending.block = take(CLASS_1024);
    ending.heap = hak_tls_heap;
    ending.thread = (pid_t)syscall(SYS_gettid);
    atomic_store(&ending.ready, true);
    while (!atomic_load(&ending.may_end)) sched_yield(); /* does not sleep before it waits for the lock */
    return argument;
}

static bool sleeps(pid_t thread) {
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    int file = open(path, O_RDONLY);
    must(file >= 0 && read(file, text, sizeof text - 1) > 0);
    close(file);
    const char *state = strrchr(text, ')');
    return state != NULL && state[2] == 'S';
}

/* Called with the registry locked: a thread that ends has collected what there was, and waits to say that it is gone.
 */
static void deliver_meanwhile(const struct hak_heap *heap, void *unused) {
    (void)heap, (void)unused;
    if (atomic_exchange(&ending.may_end, true)) return;
    for (unsigned ms = 0; ms < 2000 && !sleeps(ending.thread); ms++) usleep(1000);
    free_now(ending.block);
}

static void deliver_while_it_is_parked(void *argument) {
    pthread_t thread;
    start_thread(&thread, leave_a_block, argument);
    while (!atomic_load(&ending.ready)) sched_yield();
    hak_heap_each(deliver_meanwhile, NULL);
    must(pthread_join(thread, NULL) == 0);
    must(ending.heap->parked && hak_load_acq(&ending.heap->inbox) == HAK_INBOX_PARKED);
    must(live_blocks() == 0);
}

static void a_heap_is_not_parked_with_a_delivery_in_its_inbox(void **state) {
    (void)state;
    succeeds(deliver_while_it_is_parked);
}

/* ---- what a delivery makes visible ------------------------------------------------------------------------------ */

/* No notice, no flag: the bit alone says that the block's last use is over (for ThreadSanitizer to see). */
static void *use_and_deliver_the_bit(void *block) {
    struct hak_slab *slab = slab_of(block);
    uint32_t index = hak_slab_index(slab, block);
    fill(block, 1024, 1);
    must(hak_slab_put_remote(slab, index / 64, (uint64_t)1 << index % 64) == 0);
    return NULL;
}

static void use_again_what_was_delivered(void *argument) {
    pthread_t thread;
    void *all[64], *again;
    (void)argument;
    struct hak_slab *slab = hak_slab_take(CLASS_1024, hak_heap_get(), hak_heap_tag(hak_heap_get()), false);
    must(slab != NULL && hak_slab_take_blocks(slab, all, 64) == 64);
    hak_annotate_open(slab->base, HAK_SLAB_BYTES);
    start_thread(&thread, use_and_deliver_the_bit, all[7]);
    while (slab->free_count == 0) must(hak_slab_collect(slab) == HAK_NO_BLOCK);
    must(hak_slab_take_blocks(slab, &again, 1) == 1 && again == all[7]);
    must(is_filled(again, 1024, 1));
    fill(again, 1024, 2);
    must(pthread_join(thread, NULL) == 0);
}

static void a_delivered_bit_ends_the_use_of_the_block(void **state) {
    (void)state;
    succeeds(use_again_what_was_delivered);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_delivery_is_lost_while_the_owner_collects),
        cmocka_unit_test(blocks_of_many_slabs_go_out_together),
        cmocka_unit_test(a_heap_is_not_parked_with_a_delivery_in_its_inbox),
        cmocka_unit_test(a_delivered_bit_ends_the_use_of_the_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
