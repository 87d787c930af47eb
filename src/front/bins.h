/* The bins of a heap, each by itself: their slots, what goes from them down to the slabs, and their adaptive size. All
 * by who owns the heap, and has entered it. */
#ifndef HAK_FRONT_BINS_H
#define HAK_FRONT_BINS_H

#include "front/heap.h"

/* Blocks in a bin. By the owner at any time. */
HAK_INLINE uint32_t hak_bin_fill(const struct hak_heap *heap, unsigned c) {
    const struct hak_bin_state *state = &heap->state[c];
    return state->base == NULL ? 0 : (uint32_t)(heap->bin[c].top - state->base);
}
/* Of a bin that there is. One that waits empty since its thread ended is closed: empty for malloc, full for free. */
HAK_INLINE bool hak_bin_is_open(const struct hak_heap *heap, unsigned c) {
    return heap->bin[c].limit != heap->state[c].base;
}
/* Tells statistics, and the next visit, how much is in a bin: at the end of each slow path that changed it. */
void hak_bin_note_fill(struct hak_heap *heap, unsigned c);

/* Sees to it that there is an open bin: opens the one that waits, or makes one within the thread's budget; where no
 * other is larger it has fewer slots than it should. False if it can have none. */
bool hak_bin_open(struct hak_heap *heap, unsigned c);
/* Gives up the slots of a bin, which is empty. */
void hak_bin_drop(struct hak_heap *heap, unsigned c);
/* Counts a slow-path visit of a bin, and adapts its size. A refill says that all that the bin held since the last visit
 * was used up. */
void hak_bin_visit(struct hak_heap *heap, unsigned c, bool refill);

/* Puts the `count` oldest blocks of a bin back into their slabs, or on their way to the slabs' owners. */
void hak_bin_flush(struct hak_heap *heap, unsigned c, uint32_t count);
/* A bin that nobody visited for a whole interval gives half of what it holds back; one that is closed still goes. If
 * the thread has no room left for others, the bin goes in the end. */
void hak_bin_sweep(struct hak_heap *heap, unsigned c);
/* Makes an open bin what the next thread is to find: as if it was fresh, whatever its size, with some of the newest
 * blocks in it, up to `bytes`, or closed if there are none. */
void hak_bin_rest(struct hak_heap *heap, unsigned c, size_t bytes);

#endif
