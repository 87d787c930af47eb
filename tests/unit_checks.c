/* The invariants' own functions: each kind of damage is found. One value of a good structure is made wrong at a time,
 * the check must see it, and see that all is well again once it is put right. */
#include "support/stores.h"

#include <stdlib.h>

#include "front/bins.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "stores/bigcache.h"
#include "stores/bigcache_table.h"
#include "stores/l25.h"
#include "stores/l25_shard.h"
#include "stores/l25_table.h"
#include "stores/superslab.h"

/* While `place` holds `wrong`, and only then, `check` fails. */
#define FINDS(check, place, wrong)                                                                                     \
    do {                                                                                                               \
        const __typeof__(place) was = place;                                                                           \
        assert_true(check);                                                                                            \
        (place) = wrong;                                                                                               \
        bool found = !(check);                                                                                         \
        (place) = was;                                                                                                 \
        if (!found) fail_msg("%s = %s was not found", #place, #wrong);                                                 \
        assert_true(check);                                                                                            \
    } while (0)

/* ---- L2.5 pool ---- */

static void *l25_block(size_t slices) {
    struct hak_block block = hak_l25_alloc(slices * HAK_SLICE_BYTES, 16, 0);
    assert_non_null(block.ptr);
    return block.ptr;
}

static void l25_free(void *ptr) { assert_int_equal(hak_l25_free(descriptor_of(ptr), ptr), HAK_FREE_OK); }

static void each_fault_of_a_chunk_is_found(void **state) {
    (void)state;
    char *ends = l25_block(3), *stays = l25_block(2);
    struct hak_l25_chunk *chunk = descriptor_of(stays);
    l25_free(ends); /* slices 0..2 are free and dirty, 3..4 live, the rest free */
    assert_int_equal(chunk->dirty, 7);
    FINDS(hak_l25_chunk_check(chunk), chunk->run[HAK_CHUNK_SLICES - 1], 2);           /* out of the chunk */
    FINDS(hak_l25_chunk_check(chunk), chunk->run[4], 1);                              /* two runs overlap */
    FINDS(hak_l25_chunk_check(chunk), chunk->run[3], 3);                              /* live, and free as well */
    FINDS(hak_l25_chunk_check(chunk), chunk->run[3], 1);                              /* a slice is nothing at all */
    FINDS(hak_l25_chunk_check(chunk), chunk->claimed, 1);                             /* free, and claimed as well */
    FINDS(hak_l25_chunk_check(chunk), chunk->dirty, (uint64_t)1 << 3);                /* dirty, but not free */
    FINDS(hak_l25_chunk_check(chunk), chunk->ended, chunk->ended | (uint64_t)1 << 3); /* ended, but live */
    l25_free(stays);
}

static void each_fault_of_a_shard_is_found(void **state) {
    (void)state;
    enum { FULL = HAK_CHUNK_SLICES / 16 };
    char *first[FULL], *second[FULL];
    for (size_t i = 0; i < FULL; i++) first[i] = l25_block(16);
    for (size_t i = 0; i < FULL; i++) second[i] = l25_block(16);
    struct hak_l25_chunk *full = descriptor_of(first[0]), *chunk = descriptor_of(second[0]), *other;
    struct hak_l25_shard *shard = chunk->shard;
    assert_ptr_equal(full->shard, shard);
    l25_free(second[0]);
    l25_free(first[0]); /* two chunks with a run of 16, both dirty */
    other = chunk->next != NULL ? chunk->next : chunk->prev;
    assert_ptr_equal(other, full);

    const unsigned list = chunk->list;
    FINDS(hak_l25_check(), shard->nonempty, shard->nonempty & ~(1U << list));
    FINDS(hak_l25_check(), shard->nonempty, shard->nonempty | 1U << (list - 1));
    FINDS(hak_l25_check(), chunk->claimed, 1); /* a fault of a chunk is one of its shard */
    FINDS(hak_l25_check(), chunk->shard, NULL);
    FINDS(hak_l25_check(), chunk->generation, shard->generation + 1);
    FINDS(hak_l25_check(), chunk->prev, chunk);
    FINDS(hak_l25_check(), shard->lists[list]->prev, shard->lists[list]); /* the first does not lead to the last */
    FINDS(hak_l25_check(), chunk->list, (uint8_t)(list - 1));
    FINDS(hak_l25_check(), chunk->aging, false);
    FINDS(hak_l25_check(), shard->chunks, 1);
    FINDS(hak_l25_check(), shard->chunks, 0);
    FINDS(hak_l25_check(), shard->dirty_slices, 31);
    FINDS(hak_l25_check(), shard->best, list + 1);

    FINDS(hak_l25_check(), chunk->older, full);
    FINDS(hak_l25_check(), full->older, NULL);
    FINDS(hak_l25_check(), shard->newest, chunk);
    FINDS(hak_l25_check(), shard->oldest, NULL);
    FINDS(hak_l25_check(), shard->oldest, full);
    struct hak_l25_chunk clean = *full; /* in the list of ages, but not of the shard */
    clean.aging = false;
    FINDS(hak_l25_check(), chunk->newer, &clean);
    clean.aging = true;
    clean.dirty = 0;
    FINDS(hak_l25_check(), chunk->newer, &clean);
    clean.dirty = 1;
    clean.older = full;
    FINDS(hak_l25_check(), full->newer, &clean); /* one more than are dirty */

    shard->newest = shard->oldest; /* in order, but one is missing */
    shard->oldest->newer = NULL;
    assert_false(hak_l25_check());
    struct hak_l25_chunk *younger = shard->oldest == chunk ? full : chunk;
    shard->newest = shard->oldest->newer = younger;
    assert_true(hak_l25_check());
    hak_l25_table_mark(shard->index, false); /* nobody would look here for a run */
    assert_false(hak_l25_check());
    hak_l25_table_mark(shard->index, true);
    assert_true(hak_l25_check());

    for (size_t i = 1; i < FULL; i++) {
        l25_free(first[i]);
        l25_free(second[i]);
    }
}

static void a_chunk_in_a_list_for_others_is_found(void **state) {
    (void)state;
    void *block = l25_block(1);
    struct hak_l25_chunk *chunk = descriptor_of(block);
    struct hak_l25_shard *shard = chunk->shard;
    const unsigned list = chunk->list;
    assert_true(hak_l25_check());
    shard->lists[list] = NULL;
    shard->lists[3] = chunk; /* in good order, but it has longer runs */
    shard->nonempty = 1U << 3;
    chunk->list = 3;
    hak_store_rlx(&shard->best, 3);
    assert_false(hak_l25_check());
    shard->lists[3] = NULL;
    shard->lists[list] = chunk;
    shard->nonempty = 1U << list;
    chunk->list = (uint8_t)list;
    hak_store_rlx(&shard->best, list);
    assert_true(hak_l25_check());
    l25_free(block);
}

static int empty_l25(void **state) {
    (void)state;
    set_option(RETAIN_BYTES, 64 * HAK_MIB);
    hak_l25_purge_all();
    hak_l25_reset_for_test();
    return 0;
}

/* ---- BigCache ---- */

static void each_fault_of_the_cache_is_found(void **state) {
    (void)state;
    void *blocks[4];
    for (size_t i = 0; i < 4; i++) blocks[i] = hak_big_alloc(2 * HAK_MIB, 16, 1).ptr;
    for (size_t i = 0; i < 4; i++) assert_int_equal(hak_big_free(descriptor_of(blocks[i]), blocks[i]), HAK_FREE_OK);
    struct hak_big_table *table = &hak_big_table;
    struct hak_big *big = descriptor_of(blocks[1]), *end = descriptor_of(blocks[0]);
    assert_int_equal(table->entries, 4);
    assert_ptr_equal(table->dirty.last, end);

    for (unsigned order = 0; order < HAK_BIG_ORDERS; order++) FINDS(hak_big_check(), big->link[order].prev, big);
    struct hak_big_list *chain = &table->buckets[big->hash & (table->bucket_count - 1)];
    FINDS(hak_big_check(), chain->last, big);
    FINDS(hak_big_check(), table->classes[big->class].last, big);
    FINDS(hak_big_check(), table->dirty.last, big);
    FINDS(hak_big_check(), table->clean.last, big);
    FINDS(hak_big_check(), big->state, HAK_BIG_LIVE);
    FINDS(hak_big_check(), big->class, big->class + 1);
    FINDS(hak_big_check(), big->mapped, 2 * big->mapped);
    FINDS(hak_big_check(), big->base, end->base);
    FINDS(hak_big_check(), big->site, 2); /* its hash is of another */
    FINDS(hak_big_check(), table->entries, 3);
    FINDS(hak_big_check(), table->mapped_bytes, table->mapped_bytes + 1);
    FINDS(hak_big_check(), table->dirty_bytes, 0);

    struct hak_big_list *wrong = &table->buckets[(big->hash + 1) & (table->bucket_count - 1)];
    const struct hak_big_list right = *chain;
    *wrong = right; /* a whole chain in the place of another */
    *chain = (struct hak_big_list){.first = NULL};
    assert_false(hak_big_check());
    *wrong = *chain;
    *chain = right;
    assert_true(hak_big_check());
    const uint32_t class = big->class;
    table->classes[class + 1] = table->classes[class];
    table->classes[class] = (struct hak_big_list){.first = NULL};
    assert_false(hak_big_check());
    table->classes[class] = table->classes[class + 1];
    table->classes[class + 1] = (struct hak_big_list){.first = NULL};

    /* An entry that is missing in one order only. */
    FINDS(hak_big_check(), table->classes[class], ((struct hak_big_list){.first = NULL}));
    FINDS(hak_big_check(), table->dirty, ((struct hak_big_list){.first = NULL}));
    FINDS(hak_big_check(), *chain, ((struct hak_big_list){.first = NULL}));
    hak_big_purge_all();
}

/* ---- superslabs, slabs and heaps ---- */

/* The first fields of struct hak_superslab, which is known to superslab.c only. */
struct superslab_head {
    struct hak_slab_index index;
    char *base;
    uint64_t generation;
    uint32_t free_mask, dirty_mask;
    uint8_t list;
};

static void each_fault_of_a_superslab_is_found(void **state) {
    (void)state;
    struct hak_slab_run run = hak_superslab_take(1, false), more = hak_superslab_take(1, false);
    assert_true(run.ptr != NULL && more.superslab == run.superslab);
    hak_superslab_give(more.superslab, more.first, 1);
    struct superslab_head *head = (struct superslab_head *)(void *)run.superslab;
    assert_ptr_equal(head->base, run.ptr - run.first * HAK_SLAB_BYTES);
    assert_int_equal(head->free_mask, ~((uint32_t)1 << run.first));
    assert_int_equal(head->dirty_mask, (uint32_t)1 << more.first);
    FINDS(hak_superslab_check(), head->list, (uint8_t)(head->list - 1));
    FINDS(hak_superslab_check(), head->free_mask, head->dirty_mask); /* the list is for longer runs */
    FINDS(hak_superslab_check(), head->dirty_mask, (uint32_t)1 << run.first);
    FINDS(hak_superslab_check(), head->dirty_mask, 0);
    struct hak_slab_run others[HAK_SUPERSLAB_SLABS];
    for (unsigned i = 0; i < HAK_SUPERSLAB_SLABS; i++) others[i] = hak_superslab_take(1, false);
    assert_int_equal(hak_superslab_stats().superslabs, 2);
    for (unsigned i = 0; i < HAK_SUPERSLAB_SLABS; i++)
        if (others[i].superslab == run.superslab) hak_superslab_give(others[i].superslab, others[i].first, 1);
    FINDS(hak_superslab_check(), head->dirty_mask, (uint32_t)1 << run.first); /* whether first or last of the two */
    for (unsigned i = 0; i < HAK_SUPERSLAB_SLABS; i++) {
        if (others[i].superslab == run.superslab) continue;
        struct superslab_head *other = (struct superslab_head *)(void *)others[i].superslab;
        FINDS(hak_superslab_check(), other->dirty_mask, ~other->free_mask);
        hak_superslab_give(others[i].superslab, others[i].first, 1);
    }
    hak_superslab_give(run.superslab, run.first, 1);
    hak_superslab_purge_all();
}

static void each_fault_of_a_heap_is_found(void **state) {
    (void)state;
    enum { CLASS = 5, EMPTY = 6 };
    hak_tcache_free(hak_tcache_alloc(CLASS), "free");
    hak_tcache_free(hak_tcache_alloc(EMPTY), "free");
    hak_bin_flush(hak_tls_heap, EMPTY, hak_bin_fill(hak_tls_heap, EMPTY)); /* and the slab stays, against thrash */
    struct hak_heap *heap = hak_tls_heap, *other = hak_heap_initial();
    struct hak_slab *slab = heap->slabs[CLASS];
    struct hak_bin *bin = &heap->bin[CLASS];
    struct hak_bin_state *bin_state = &heap->state[CLASS];
    FINDS(hak_heap_check(), heap->listed, heap->listed ^ (uint64_t)1 << CLASS);
    FINDS(hak_heap_check(), heap->with_empty, 0);
    FINDS(hak_heap_check(), heap->bins, heap->bins ^ (uint64_t)1 << CLASS);
    FINDS(hak_heap_check(), bin_state->base[-1], NULL);
    FINDS(hak_heap_check(), bin_state->capacity, (uint16_t)(bin_state->capacity + 1));
    FINDS(hak_heap_check(), bin->top, bin_state->base - 1);
    FINDS(hak_heap_check(), bin->top, bin->limit + 1);
    FINDS(hak_heap_check(), slab->listed, false);
    FINDS(hak_heap_check(), slab->free_count, 0);
    FINDS(hak_heap_check(), slab->free_count, slab->free_count + 1);
    FINDS(hak_heap_check(), hak_slab_free_bits(slab)[slab->words - 1], 0);
    FINDS(hak_heap_check(), slab->size_class, CLASS + 1);
    FINDS(hak_heap_check(), slab->owner, other);
    FINDS(hak_heap_check(), heap->window, NULL);
    FINDS(hak_heap_check(), heap->outgoing_slots, 1);
    FINDS(hak_heap_check(), heap->outgoing[0].bits, 1);
    FINDS(hak_slab_check(slab), slab->free_count, slab->free_count + 1);
    FINDS(hak_slab_check(slab), hak_slab_free_bits(slab)[slab->words - 1], 0);
    FINDS(hak_slab_check(slab), slab->first_word, slab->words);
    FINDS(hak_slab_check(slab), slab->blocks, (uint16_t)(slab->free_count - 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_fault_of_a_chunk_is_found, empty_l25, empty_l25),
        cmocka_unit_test_setup_teardown(each_fault_of_a_shard_is_found, empty_l25, empty_l25),
        cmocka_unit_test_setup_teardown(a_chunk_in_a_list_for_others_is_found, empty_l25, empty_l25),
        cmocka_unit_test(each_fault_of_the_cache_is_found),
        cmocka_unit_test(each_fault_of_a_superslab_is_found),
        cmocka_unit_test(each_fault_of_a_heap_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
