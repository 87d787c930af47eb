/* Remote frees: blocks freed by a thread that does not own their slab, and that no bin keeps. They gather in the
 * outgoing buffer of the freeing thread, as bits of a word of their slab's bitmap, and go out with one atomic OR per
 * word; the slab is queued once in its owner's inbox. No block is touched.
 *
 * Who may do what with slab->queued and the inboxes:
 *   set queued       any thread, by exchange; who gets false from it must push the slab to the owner's inbox
 *   push to inbox    that one thread, by compare-and-swap; it alone writes inbox_next
 *   take the inbox   the owner, or who has claimed its heap; clears queued before it collects the bits, so a
 *                    delivery that still saw queued set is collected, and one that comes later queues again */
#ifndef HAK_FRONT_REMOTE_H
#define HAK_FRONT_REMOTE_H

#include "base/options.h"
#include "front/heap.h"

HAK_INLINE struct hak_outgoing *hak_outgoing_of(struct hak_heap *heap, const void *ptr) {
    size_t at = ((uintptr_t)ptr >> HAK_GRANULE_SHIFT) % HAK_OUTGOING_SLOTS * sizeof(struct hak_outgoing);
    hak_forget_register(at); /* shifted and masked once */
    return (struct hak_outgoing *)(void *)((char *)heap->outgoing + at);
}

/* Adds a block to those of its word that are on their way. False, and nothing was done, if none are, if it is no block
 * or one of them, or if it would make the buffer full. A slab with blocks on their way is in use; where misuse makes
 * that untrue, it is found when they are delivered. */
HAK_INLINE bool hak_remote_free_try(struct hak_heap *heap, const void *ptr) {
    struct hak_outgoing *out = hak_outgoing_of(heap, ptr);
    hak_forget_register(out); /* computed once */
    const size_t offset = (size_t)((const char *)ptr - out->first);
    if (hak_unlikely(offset >= out->span)) return false;
    const uint64_t i = (offset >> HAK_MIN_ALIGN_SHIFT) * out->reciprocal >> 32;
    if (hak_unlikely(i * out->block_bytes != offset)) return false;
    const uint64_t bits = hak_load_rlx(&out->bits);
    const int64_t room = heap->outgoing_room - out->share;
    if (hak_unlikely((bits >> i & 1) != 0 || room < 0)) return false;
    heap->outgoing_room = room;
    hak_store_rel(&out->bits, bits | (uint64_t)1 << i);
    return true;
}
/* Adds a block of `slab` in any case; delivers when the buffer is full. `function` names the caller in a misuse report;
 * NULL if the block was freed some time ago. */
void hak_remote_free(struct hak_heap *heap, struct hak_slab *slab, void *ptr, const char *function);
/* Delivers one block at once, for threads without a heap. */
void hak_remote_free_now(struct hak_slab *slab, void *ptr, const char *function);
/* Delivers the outgoing buffer. */
void hak_remote_deliver(struct hak_heap *heap);
/* Frees its slots, which are unused. */
void hak_remote_drop_outgoing(struct hak_heap *heap);
/* Collects what others have delivered to this heap; slabs that moved on go to their new owner's inbox. */
void hak_remote_collect(struct hak_heap *heap);

#endif
