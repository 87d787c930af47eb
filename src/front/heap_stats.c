/* What the heaps know of the Tiny and Mid layers, summed up (heap.h), and the check of a heap's invariants. */
#include "front/heap.h"

static void refresh_own_cached(void) {
    struct hak_heap *heap = hak_heap_peek();
    if (heap == NULL) return;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++)
        if (heap->state[c].base != NULL)
            hak_store_rlx(&heap->cached[c], (uint32_t)(heap->bin[c].top - heap->state[c].base));
}

static void add_class(struct hak_front_stats *out, const struct hak_heap *heap, unsigned c) {
    unsigned layer = c >= HAK_TINY_CLASSES;
    uint64_t bytes = hak_class_bytes(c), taken = hak_load_rlx(&heap->blocks_out[c]);
    uint64_t cached = hak_load_rlx(&heap->cached[c]);
    if (cached > taken) cached = taken; /* the two are read at different moments */
    out->live_blocks[layer] += taken - cached;
    out->live_bytes[layer] += (taken - cached) * bytes;
    out->cached_bytes[layer] += cached * bytes;
}

static void add_heap(const struct hak_heap *heap, void *data) {
    struct hak_front_stats *out = data;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) add_class(out, heap, c);
    for (unsigned layer = 0; layer < 2; layer++) {
        out->served_blocks[layer] += hak_load_rlx(&heap->served_blocks[layer]);
        out->served_bytes[layer] += hak_load_rlx(&heap->served_bytes[layer]);
    }
    out->threads += !heap->parked && !heap->shared;
    out->remote_frees += hak_load_rlx(&heap->remote_frees);
    out->adopted_slabs += hak_load_rlx(&heap->adopted_slabs);
    out->refills += hak_load_rlx(&heap->refills);
    out->flushes += hak_load_rlx(&heap->flushes);
    out->grows += hak_load_rlx(&heap->grows);
    out->shrinks += hak_load_rlx(&heap->shrinks);
}

void hak_front_stats(struct hak_front_stats *out) {
    *out = (struct hak_front_stats){.threads = 0};
    refresh_own_cached();
    out->heaps_parked = hak_heap_each(add_heap, out);
}

static bool check_class(struct hak_heap *heap, unsigned c) {
    const struct hak_bin_state *state = &heap->state[c];
    if (state->base != NULL &&
        (state->base[-1] != HAK_BIN_BOTTOM || heap->bin[c].limit != state->base + state->capacity ||
         heap->bin[c].top < state->base || heap->bin[c].top > heap->bin[c].limit))
        return false;
    for (struct hak_slab *slab = heap->slabs[c]; slab != NULL; slab = slab->next)
        if (!slab->listed || slab->free_count == 0 || slab->size_class != c || hak_load_acq(&slab->owner) != heap ||
            !hak_slab_check(slab))
            return false;
    return true;
}

bool hak_heap_check(void) {
    struct hak_heap *heap = hak_heap_peek();
    for (unsigned c = 0; heap != NULL && c < HAK_CLASS_COUNT; c++)
        if (!check_class(heap, c)) return false;
    return true;
}
