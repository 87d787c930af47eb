/* The thread cache: bins filled from slabs and emptied into them (tcache.h). A heap belongs to the calling thread, or
 * was claimed by it. */
#include "front/tcache.h"

#include "base/log.h"
#include "base/options.h"
#include "front/bins.h"
#include "front/fork.h"
#include "front/remote.h"
#include "front/tick.h"

/* A refill takes so many blocks at first, then each time twice as many, up to all that the bin holds: many threads end
 * before they need more. */
#define FIRST_BATCH 8

/* ---- refill and alloc ------------------------------------------------------------------------------------ */

/* Moves up to `want` blocks, for which the bin has room, from the slabs to it. */
static void fill(struct hak_heap *heap, unsigned c, uint32_t want) {
    struct hak_bin *bin = &heap->bin[c];
    uint32_t got = 0;
    while (got < want) {
        struct hak_slab *slab = heap->slabs[c];
        if (slab == NULL && got == 0) slab = hak_heap_more(heap, c);
        if (slab == NULL) break;
        uint32_t n = hak_slab_take_blocks(slab, bin->top, want - got);
        bin->top += n;
        got += n;
        if (slab->free_count == 0) hak_heap_unlist(heap, slab);
    }
    hak_heap_count_taken(heap, c, got);
    heap->state[c].moved += got;
}

/* Where no bin can be had, a block comes straight from a slab. */
static void *take_without_bin(struct hak_heap *heap, unsigned c) {
    hak_slab_relieve();
    if (heap->slabs[c] == NULL) hak_heap_more(heap, c);
    return hak_heap_take_one(heap, c);
}

static uint32_t next_batch(struct hak_heap *heap, unsigned c) {
    struct hak_bin_state *state = &heap->state[c];
    const uint32_t room = state->capacity - hak_bin_fill(heap, c),
                   most = state->batch == 0 ? FIRST_BATCH : 2 * state->batch;
    return state->batch = (uint16_t)(most < room ? most : room);
}

static void refill(struct hak_heap *heap, unsigned c) {
    hak_bin_visit(heap, c, true);
    fill(heap, c, next_batch(heap, c));
    hak_count_by_owner(&heap->refills, 1);
    hak_bin_note_fill(heap, c);
    hak_slab_relieve();
}

static void *take_slowly(struct hak_heap *heap, unsigned c) {
    hak_remote_collect(heap);
    if (!hak_bin_open(heap, c)) return take_without_bin(heap, c);
    if (hak_bin_fill(heap, c) == 0) refill(heap, c); /* else it was filled since: it is prewarmed or warm */
    if (hak_bin_fill(heap, c) == 0) return NULL;
    void *ptr = *--heap->bin[c].top;
    if (heap->window == NULL) hak_heap_look_at(heap, ptr);
    return ptr;
}

/* The calling thread's heap, entered; NULL if it can have none. */
static struct hak_heap *enter_own(bool *nested) {
    struct hak_heap *heap;
    do heap = hak_heap_get();
    while (heap != NULL && !hak_heap_enter(heap, nested)); /* it is gone: then it has another, or none */
    return heap;
}

void *hak_tcache_alloc(unsigned c) {
    void *ptr = hak_bin_take(&hak_tls_heap->bin[c]);
    if (hak_likely(!hak_is_misaligned(ptr))) return ptr;
    if (hak_unlikely(ptr != HAK_BIN_BOTTOM)) hak_misuse_late(ptr, HAK_MISUSE_INTERIOR);
    hak_tick();
    bool nested;
    struct hak_heap *heap = enter_own(&nested);
    if (heap == NULL) return hak_heap_shared_alloc(c);
    ptr = take_slowly(heap, c);
    hak_heap_leave(heap, nested);
    return ptr;
}

/* ---- free and flush -------------------------------------------------------------------------------------- */

static void free_cached(struct hak_heap *heap, void *ptr, struct hak_slab *slab, const char *function) {
    unsigned c = slab->size_class;
    struct hak_bin *bin = &heap->bin[c];
    if (hak_unlikely(hak_slab_index(slab, ptr) == HAK_NO_BLOCK)) hak_misuse_at_once(function, ptr, HAK_MISUSE_INTERIOR);
    if (hak_unlikely(bin->top[-1] == ptr)) hak_misuse_at_once(function, ptr, HAK_MISUSE_DOUBLE_FREE);
    if (bin->top == bin->limit) {
        hak_tick();
        if (!hak_bin_open(heap, c)) {
            if (hak_unlikely(hak_load_acq(&slab->owner) != heap)) { /* adopted, while the heap was lent */
                hak_remote_free(heap, slab, ptr, function);
                return;
            }
            if (hak_slab_put_block(slab, ptr) != HAK_FREE_OK) hak_misuse_at_once(function, ptr, HAK_MISUSE_DOUBLE_FREE);
            hak_count_by_owner(&heap->blocks_out[c], UINT64_MAX);
            hak_heap_settle(heap, slab);
            hak_slab_relieve();
            return;
        }
        hak_bin_visit(heap, c, false);
        uint32_t filled = hak_bin_fill(heap, c);
        if (bin->top == bin->limit) hak_bin_flush(heap, c, filled - filled / 2);
        hak_count_by_owner(&heap->flushes, 1);
        hak_bin_note_fill(heap, c);
        hak_slab_relieve();
    }
    *bin->top++ = ptr;
}

void hak_tcache_free(void *ptr, const char *function) {
    hak_fork_check();
    struct hak_heap *heap;
    struct hak_region region;
    bool nested;
    do {
        heap = hak_heap_get();
        region = hak_region_lookup(ptr); /* until the heap is entered the slab may be adopted: see free_cached() */
        if (hak_unlikely(region.owner == 0)) hak_misuse_at_once(function, ptr, HAK_MISUSE_FREE_MEMORY);
        if (heap == NULL) {
            hak_remote_free_now(region.descriptor, ptr, function);
            hak_slab_relieve();
            return;
        }
        const struct hak_bin *bin = &heap->bin[region.kind / 2];
        const bool own = region.owner == hak_heap_tag(heap);
        if (own || heap->window == NULL) hak_heap_look_at(heap, ptr); /* a thread that only frees needs one, too */
        if (!own && (!hak_heap_keeps(region.kind / 2) || bin->top == bin->limit)) {
            hak_remote_free(heap, region.descriptor, ptr, function);
            return;
        }
    } while (hak_unlikely(!hak_heap_enter(heap, &nested)));
    free_cached(heap, ptr, region.descriptor, function);
    hak_heap_leave(heap, nested);
}

static void give_back(struct hak_heap *heap) {
    hak_remote_deliver(heap);
    hak_remote_collect(heap);
    hak_heap_give_all_empty(heap); /* also what others have emptied */
}

void hak_tcache_flush_all(struct hak_heap *heap) {
    bool nested;
    if (!hak_heap_enter(heap, &nested)) return;
    for (uint64_t left = heap->bins; left != 0; left &= left - 1) {
        const unsigned c = (unsigned)__builtin_ctzll(left);
        if (hak_bin_fill(heap, c) != 0) hak_bin_flush(heap, c, hak_bin_fill(heap, c));
        hak_bin_note_fill(heap, c);
    }
    give_back(heap);
    hak_heap_leave(heap, nested);
}

void hak_tcache_rest(struct hak_heap *heap, uint32_t slots, size_t bytes) {
    bool nested;
    if (!hak_heap_enter(heap, &nested)) return;
    for (uint64_t left = heap->bins; left != 0; left &= left - 1) {
        const unsigned c = (unsigned)__builtin_ctzll(left);
        const bool stays = heap->state[c].capacity <= slots;
        if (hak_bin_is_open(heap, c)) hak_bin_rest(heap, c, stays ? bytes : 0);
        if (!stays) hak_bin_drop(heap, c);
    }
    give_back(heap);
    hak_heap_leave(heap, nested);
}

void hak_tcache_prewarm(struct hak_heap *heap) {
    unsigned classes = (unsigned)hak_option(PREWARM);
    for (unsigned c = 0; c < classes; c++) {
        if (hak_bin_fill(heap, c) != 0) continue; /* it is warm */
        if (!hak_bin_open(heap, c)) return;
        fill(heap, c, next_batch(heap, c));
        hak_bin_note_fill(heap, c);
    }
}

void hak_tcache_sweep(struct hak_heap *heap) {
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
        struct hak_bin_state *state = &heap->state[c];
        if (state->base != NULL && !state->visited) hak_bin_sweep(heap, c);
        if (!state->visited) hak_heap_give_empty(heap, c);
        state->visited = false;
    }
    hak_remote_deliver(heap);
}
