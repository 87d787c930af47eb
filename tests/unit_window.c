/* A heap with blocks in several windows of the region map, of which free looks at one at a time. Each test has a
 * process of its own. */
#include "support/prefixed.h"
#include "support/far.h"
#include "support/steps.h"

#include "base/size_class.h"
#include "front/heap.h"
#include "stores/bigcache.h"
#include "stores/bigcache_table.h"

#define CLASS_16 0
#define CLASS_1024 (HAK_TINY_CLASSES - 1)

static void *new_block(unsigned c) {
    void *ptr = hak_malloc(hak_class_bytes(c));
    must(ptr != NULL);
    return ptr;
}

static const void *top_of_bin(unsigned c) { return hak_tls_heap->bin[c].top[-1]; }

struct pair {
    void *near, *far;
};

/* A block of 1,024 bytes in each of two windows; the next slab will be in that of the second. */
static struct pair blocks_in_two_windows(void) {
    struct pair pair = {.near = new_block(CLASS_1024)};
    keep_far_away(HAK_SUPERSLAB_BYTES, 0);
    do pair.far = new_block(CLASS_1024);
    while (hak_region_leaf_of(pair.far) == hak_region_leaf_of(pair.near));
    for (unsigned i = 0; i < 4; i++) new_block(CLASS_1024); /* room in the bin */
    return pair;
}

/* Frees a block whose slab cannot be found, so that nothing but its tag can tell where it goes. */
static void free_by_tag(void *ptr) {
    struct hak_region_leaf *leaf = hak_region_leaf_of(ptr);
    void *_Atomic *descriptor = &leaf->descriptor[hak_region_index(ptr)];
    void *slab = hak_load_rlx(descriptor);
    hak_store_rlx(descriptor, NULL);
    hak_free(ptr);
    hak_store_rlx(descriptor, slab);
}

static void free_in_two_windows(void *argument) {
    (void)argument;
    struct pair own = blocks_in_two_windows();
    hak_free(hak_malloc(5 * hak_class_bytes(CLASS_1024))); /* it is at hand for realloc */
    free_by_tag(own.far);
    must(top_of_bin(CLASS_1024) == own.far && hak_tls_heap->window == hak_region_leaf_of(own.far)->tag);
    free_by_tag(own.near);
    must(top_of_bin(CLASS_1024) == own.near && hak_tls_heap->window == hak_region_leaf_of(own.near)->tag);
    new_block(CLASS_1024);
    own.far = new_block(CLASS_1024); /* the window stays where the last block was freed */
    must(hak_tls_heap->window == hak_region_leaf_of(own.near)->tag);
    void *moved = hak_realloc(own.far, 5 * hak_class_bytes(CLASS_1024));
    must(moved != NULL && moved != own.far && top_of_bin(CLASS_1024) == own.far);
    must(hak_tls_heap->window == hak_region_leaf_of(own.far)->tag);
    keep_far_away(2 * HAK_MIB, 0);
    void *big = hak_malloc(2 * HAK_MIB);
    must(hak_region_leaf_of(big) != hak_region_leaf_of(own.near));
    hak_free(big);
    must(hak_big_stats().live_blocks == 0 && hak_big_check() && hak_heap_check());
}

static void blocks_in_another_window_go_into_their_bins_at_once(void **state) {
    (void)state;
    if (ANY_ADDRESS && !HAK_EXACT) succeeds(free_in_two_windows);
}

static void *make_two_blocks(void *blocks) {
    ((void **)blocks)[0] = new_block(CLASS_1024);
    ((void **)blocks)[1] = new_block(CLASS_16);
    return NULL;
}

static void free_what_others_have_elsewhere(void *argument) {
    (void)argument;
    struct pair own = blocks_in_two_windows();
    void *others[2];
    run_thread(make_two_blocks, others);
    must(hak_region_leaf_of(others[0]) == hak_region_leaf_of(own.far) &&
         hak_region_leaf_of(others[1]) == hak_region_leaf_of(own.far));
    hak_free(own.near);
    free_by_tag(others[0]);
    must(top_of_bin(CLASS_1024) == others[0]); /* as if it were in the window at hand */
    hak_free(others[1]);                       /* a block so small goes home */
    must(top_of_bin(CLASS_16) != others[1]);
    must(hak_tls_heap->window == hak_region_leaf_of(own.near)->tag); /* where the heap's own blocks are */
    hak_thread_flush();
    must(hak_heap_check());
}

static void blocks_of_others_do_not_move_the_window(void **state) {
    (void)state;
    if (ANY_ADDRESS && !HAK_EXACT) succeeds(free_what_others_have_elsewhere);
}

static unsigned steps, torn_steps;
static void check_after_step(int signal) {
    (void)signal;
    steps++;
    if (!hak_heap_check()) torn_steps++;
}

static void free_step_by_step(void *argument) {
    (void)argument;
    struct sigaction action = {.sa_handler = check_after_step};
    must(sigaction(SIGTRAP, &action, NULL) == 0);
    struct pair own = blocks_in_two_windows();
    hak_free(new_block(CLASS_1024)); /* free looks at the far window now */
    set_trap_flag();
    hak_free(own.near);
    hak_free(own.far);
    clear_trap_flag();
    must(hak_tls_heap->window == hak_region_leaf_of(own.far)->tag && hak_heap_check());
    must(torn_steps == 0 && (steps > 50 || !CAN_STEP));
}

/* A fork by another thread, or a signal, may come after any of them. */
static void the_window_changes_as_a_whole(void **state) {
    (void)state;
    if (ANY_ADDRESS) succeeds(free_step_by_step);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_in_another_window_go_into_their_bins_at_once),
        cmocka_unit_test(blocks_of_others_do_not_move_the_window),
        cmocka_unit_test(the_window_changes_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
