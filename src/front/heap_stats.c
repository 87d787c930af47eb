/* What the heaps know of the Tiny and Mid layers, summed up (heap.h), and the check of a heap's invariants. */
#include "front/bins.h"

static void refresh_own_cached(void) {
    struct hak_heap *heap = hak_heap_peek();
    if (heap == NULL) return;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) hak_store_rlx(&heap->cached[c], hak_bin_fill(heap, c));
}

struct sums {
    struct hak_front_stats *out;
    uint64_t live[HAK_CLASS_COUNT]; /* a heap alone may have fewer than none: it also caches blocks of others */
};

static void add_class(struct sums *sums, const struct hak_heap *heap, unsigned c) {
    uint64_t cached = hak_load_rlx(&heap->cached[c]);
    sums->live[c] += hak_load_rlx(&heap->blocks_out[c]) - cached;
    sums->out->cached_bytes[c >= HAK_TINY_CLASSES] += cached * hak_class_bytes(c);
}

static void add_heap(const struct hak_heap *heap, void *data) {
    struct sums *sums = data;
    struct hak_front_stats *out = sums->out;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) add_class(sums, heap, c);
    for (unsigned layer = 0; layer < 2; layer++) {
        out->served_blocks[layer] += hak_load_rlx(&heap->served_blocks[layer]);
        out->served_bytes[layer] += hak_load_rlx(&heap->served_bytes[layer]);
    }
    out->threads += (!heap->parked || heap->lent) && !heap->shared;
    out->remote_frees += hak_load_rlx(&heap->remote_frees);
    out->adopted_slabs += hak_load_rlx(&heap->adopted_slabs);
    out->refills += hak_load_rlx(&heap->refills);
    out->flushes += hak_load_rlx(&heap->flushes);
    out->grows += hak_load_rlx(&heap->grows);
    out->shrinks += hak_load_rlx(&heap->shrinks);
}

static void add_live(struct hak_front_stats *out, unsigned c, int64_t live) {
    unsigned layer = c >= HAK_TINY_CLASSES;
    uint64_t bytes = (uint64_t)live * hak_class_bytes(c);
    if (live < 0) { /* blocks and caches are read at different moments */
        out->cached_bytes[layer] += bytes;
        return;
    }
    out->live_blocks[layer] += (uint64_t)live;
    out->live_bytes[layer] += bytes;
}

void hak_front_stats(struct hak_front_stats *out) {
    struct sums sums = {.out = out};
    *out = (struct hak_front_stats){.threads = 0};
    refresh_own_cached();
    out->heaps_parked = hak_heap_each(add_heap, &sums);
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) add_live(out, c, (int64_t)sums.live[c]);
}

static bool check_class(struct hak_heap *heap, unsigned c) {
    const struct hak_bin_state *state = &heap->state[c];
    const bool listed = (heap->listed >> c & 1) != 0, has_bin = (heap->bins >> c & 1) != 0;
    if (listed != (heap->slabs[c] != NULL) || has_bin != (state->base != NULL)) return false;
    if (has_bin && (state->base[-1] != HAK_BIN_BOTTOM ||
                    (heap->bin[c].limit != state->base + state->capacity && heap->bin[c].limit != state->base) ||
                    heap->bin[c].top < state->base || heap->bin[c].top > heap->bin[c].limit))
        return false;
    const bool may_be_empty = (heap->with_empty >> c & 1) != 0;
    for (struct hak_slab *slab = heap->slabs[c]; slab != NULL; slab = slab->next)
        if (!slab->listed || slab->free_count == 0 || slab->size_class != c || hak_load_acq(&slab->owner) != heap ||
            (hak_slab_is_empty(slab) && !may_be_empty) || !hak_slab_check(slab))
            return false;
    return true;
}

static bool check_outgoing(const struct hak_heap *heap, unsigned slot) {
    const bool used = (heap->outgoing_slots >> slot & 1) != 0;
    return (heap->outgoing[slot].span != 0) == used && (hak_load_rlx(&heap->outgoing[slot].bits) != 0) == used;
}

/* Of the window, if free looks at one, it has the tags. */
static bool check_window(const struct hak_heap *heap) {
    const void *begin = (const void *)(heap->first_granule << HAK_GRANULE_SHIFT);
    return heap->first_granule == HAK_NO_WINDOW || heap->window == hak_region_leaf_of(begin)->tag;
}

static bool check(struct hak_heap *heap) {
    if (!check_window(heap)) return false;
    for (unsigned slot = 0; slot < HAK_OUTGOING_SLOTS; slot++)
        if (!check_outgoing(heap, slot)) return false;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++)
        if (!check_class(heap, c)) return false;
    return true;
}

bool hak_heap_check(void) {
    struct hak_heap *heap = hak_heap_peek();
    if (heap == NULL) return true;
    bool nested;
    if (!hak_heap_enter(heap, &nested)) return true;
    const bool good = check(heap);
    hak_heap_leave(heap, nested);
    return good;
}
