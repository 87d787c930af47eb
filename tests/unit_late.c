/* Each way in which a block that came back twice, or that never was one, meets its slab again. The process ends with
 * one line, which says so if that was only when a cache was flushed. */
#include "support/inside.h"
#include "support/prefixed.h"

#include <sys/mman.h>

#include "front/heap.h"
#include "front/remote.h"
#include "front/tcache.h"
#include "pages/region.h"

#define CLASS_32 1
#define CLASS_64 3
#define CLASS_1024 (HAK_TINY_CLASSES - 1)

static void **shared_block; /* with the parent, which wants to know the address */

static void *take(unsigned c) {
    void *ptr = hak_tcache_alloc(c);
    must(ptr != NULL);
    return ptr;
}

static void give(void *ptr) { hak_tcache_free(ptr, "free"); }

static void deliver(void) { hak_remote_deliver(hak_tls_heap); }

/* A block of another thread, which has a heap, and whose slab stays in use. */
static void *take_into(void *where) {
    *(char **)where = take(CLASS_64);
    *(char **)where = take(CLASS_64);
    return NULL;
}
static char *foreign_block(void) {
    char *ptr = NULL;
    take(0); /* so that our heap is not the one that is parked */
    run_thread(take_into, &ptr);
    must(hak_region_lookup(ptr).owner != hak_heap_tag(hak_tls_heap));
    return ptr;
}
/* One that no bin of ours keeps, for there is none. */
static char *foreign_block_to_send(void) {
    set_option(PREWARM, 0);
    char *ptr = foreign_block();
    must(hak_tls_heap->bin[CLASS_64].limit == hak_null_slots + 1);
    return ptr;
}

/* ---- out of a bin ---- */

static void a_block_twice_in_a_bin(void *argument) {
    (void)argument;
    char *ptr = take(CLASS_64), *other = take(CLASS_64);
    give(*shared_block = ptr);
    give(other); /* else the second free of the block would show at once */
    give(ptr);
    hak_tcache_flush_all(hak_tls_heap);
}

/* The first flush empties the slab, and it is given back; the block is in the bin once more. */
static void a_block_whose_slab_is_gone(void *argument) {
    (void)argument;
    static char *blocks[16];
    struct hak_heap *heap = hak_heap_get();
    must(heap->bin[CLASS_1024].top == hak_null_slots + 1); /* no bin yet */
    for (unsigned i = 0; i < 16; i++) blocks[i] = take(CLASS_1024);
    hak_tcache_flush_all(heap);
    give(*shared_block = blocks[0]);
    for (unsigned i = 1; i < 16; i++) give(blocks[i]);
    void **top = heap->bin[CLASS_1024].top;
    hak_tcache_flush_all(heap);
    hak_heap_give_empty(heap, CLASS_1024);
    must(hak_region_lookup(blocks[0]).kind == HAK_KIND_FREE_SLAB);
    heap->bin[CLASS_1024].top = top - 15; /* as if it had come back twice into a bin flushed by halves */
    heap->state[CLASS_1024].base[0] = blocks[0];
    hak_tcache_flush_all(heap);
}

static void a_pointer_into_a_block_in_a_bin(void *argument) {
    (void)argument;
    char *ptr = take(CLASS_64);
    struct hak_bin *bin = &hak_tls_heap->bin[CLASS_64];
    *shared_block = ptr + 16;
    *bin->top++ = ptr + 16; /* as the hit of free does, which sees only the slab's class */
    hak_tcache_flush_all(hak_tls_heap);
}

/* Blocks of other threads in our bin: the misuse of one, and twice the same. */
static void a_pointer_into_a_foreign_block_in_a_bin(void *argument) {
    (void)argument;
    char *ptr = foreign_block();
    take(CLASS_64);
    *shared_block = ptr + 16;
    *hak_tls_heap->bin[CLASS_64].top++ = ptr + 16; /* as the hit of free does */
    hak_tcache_flush_all(hak_tls_heap);
}

static void a_foreign_block_twice_in_a_bin(void *argument) {
    (void)argument;
    take(CLASS_64);
    take(CLASS_64);
    char *ptr = foreign_block(), *other = foreign_block();
    give(*shared_block = ptr);
    give(other); /* else the second free of the block would show at once */
    give(ptr);
    hak_tcache_flush_all(hak_tls_heap);
}

/* ---- into the buffer for other threads' blocks ---- */

static void a_pointer_into_a_foreign_block(void *argument) {
    (void)argument;
    give(*shared_block = foreign_block_to_send() + 16);
}

static void a_pointer_into_the_second_of_two_foreign_blocks(void *argument) {
    (void)argument;
    char *ptr = foreign_block_to_send();
    give(ptr - 64);
    give(*shared_block = ptr + 16);
}

/* Its owner has ended meanwhile, and with its last block the slab has gone back. */
static void a_foreign_block_whose_slab_is_gone(void *argument) {
    (void)argument;
    char *ptr = foreign_block_to_send();
    give(ptr);
    deliver();
    give(ptr - 64);
    deliver(); /* the parked heap's slab is empty now */
    must(hak_region_lookup(ptr).owner == 0);
    give(*shared_block = ptr);
}

/* Its owner frees it, too, while it is on its way: the slab goes back with it, and its record serves elsewhere. */
static void *take_one_small(void *where) {
    *(char **)where = take(CLASS_32);
    return NULL;
}
static void *free_it_too(void *ptr) {
    give(ptr);
    return NULL;
}
static void a_foreign_block_that_its_owner_frees(void) {
    char *ptr = NULL;
    take(0);
    run_thread(take_one_small, &ptr);
    give(*shared_block = ptr);
    run_thread(free_it_too, ptr); /* this thread takes the parked heap over */
    must(hak_region_lookup(ptr).owner == 0);
}

static void a_block_on_its_way_whose_slab_is_gone(void *argument) {
    (void)argument;
    a_foreign_block_that_its_owner_frees();
    deliver();
}

static void a_block_on_its_way_whose_slab_serves_elsewhere(void *argument) {
    (void)argument;
    a_foreign_block_that_its_owner_frees();
    must(hak_region_lookup(take(CLASS_64)).owner != 0); /* where the block's slab was */
    must(hak_region_lookup(take(CLASS_32)).owner != 0); /* of the same record */
    deliver();
}

#define LATE " (found when the thread cache was flushed)"

static void dies_saying(void (*body)(void *), const char *what) {
    char line[256];
    struct ended ended = run_heard(body, NULL);
    snprintf(line, sizeof line, "hakmem[%d unit_late]: free(%p): %s\n", (int)ended.pid, *shared_block, what);
    if (HAK_TRACE) ended.text[strcspn(ended.text, "\n") + 1] = '\0'; /* how it came about stands behind it */
    assert_string_equal(ended.text, line);
    assert_true(WIFSIGNALED(ended.status) && WTERMSIG(ended.status) == SIGABRT);
}

static void a_bin_that_is_flushed_shows_what_is_wrong_in_it(void **state) {
    (void)state;
    dies_saying(a_block_twice_in_a_bin, "double free" LATE);
    dies_saying(a_block_whose_slab_is_gone, "pointer into free memory" LATE);
    dies_saying(a_pointer_into_a_block_in_a_bin, "invalid pointer: not the start of a block" LATE);
}

static void blocks_of_others_in_a_bin_show_the_same(void **state) {
    (void)state;
    dies_saying(a_pointer_into_a_foreign_block_in_a_bin, "invalid pointer: not the start of a block" LATE);
    dies_saying(a_foreign_block_twice_in_a_bin, "double free" LATE);
}

static void what_is_wrong_with_a_foreign_block_shows_at_once(void **state) {
    (void)state;
    dies_saying(a_pointer_into_a_foreign_block, "invalid pointer: not the start of a block");
    dies_saying(a_pointer_into_the_second_of_two_foreign_blocks, "invalid pointer: not the start of a block");
    dies_saying(a_foreign_block_whose_slab_is_gone, "pointer into free memory");
}

static void a_delivery_shows_what_became_free_before_it(void **state) {
    (void)state;
    dies_saying(a_block_on_its_way_whose_slab_is_gone, "pointer into free memory" LATE);
    dies_saying(a_block_on_its_way_whose_slab_serves_elsewhere, "pointer into free memory" LATE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bin_that_is_flushed_shows_what_is_wrong_in_it),
        cmocka_unit_test(blocks_of_others_in_a_bin_show_the_same),
        cmocka_unit_test(what_is_wrong_with_a_foreign_block_shows_at_once),
        cmocka_unit_test(a_delivery_shows_what_became_free_before_it),
    };
    shared_block = mmap(NULL, sizeof *shared_block, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared_block != MAP_FAILED);
    set_option(TLS_WARM_BYTES, 0); /* slabs go when their threads end */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
