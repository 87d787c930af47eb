/* Remote frees: blocks freed by a thread that does not own their slab. They gather in the outgoing buffer of the
 * freeing thread and go out by slab, with one atomic OR per run of blocks in a bitmap word, and the slab is queued once
 * in its owner's inbox. No block is touched.
 *
 * Who may do what with slab->queued and the inboxes:
 *   set queued       any thread, by exchange; who gets false from it must push the slab to the owner's inbox
 *   push to inbox    that one thread, by compare-and-swap; it alone writes inbox_next
 *   take the inbox   the owner, or who has claimed a parked heap; clears queued before it collects the bits, so a
 *                    delivery that still saw queued set is collected, and one that comes later queues again */
#ifndef HAK_FRONT_REMOTE_H
#define HAK_FRONT_REMOTE_H

#include "base/options.h"
#include "front/heap.h"

/* Adds a block of `bytes` to the thread's outgoing buffer; false, and nothing was done, if that would make it full. */
HAK_INLINE bool hak_remote_free_try(struct hak_heap *heap, void *ptr, size_t bytes) {
    uint32_t count = hak_load_rlx(&heap->outgoing_count);
    if (hak_unlikely(count + 1 >= HAK_OUTGOING_MAX || heap->outgoing_bytes + bytes > hak_option(REMOTE_BYTES)))
        return false;
    heap->outgoing[count] = ptr;
    /* release: a child forked by another thread just here finds the block, or a buffer without it; never a stale one */
    hak_store_rel(&heap->outgoing_count, count + 1);
    heap->outgoing_bytes += bytes;
    return true;
}
/* Adds a block in any case; delivers when the buffer is full. */
void hak_remote_free(struct hak_heap *heap, void *ptr, size_t bytes);
/* Delivers one block at once, for threads without a heap. */
void hak_remote_free_now(void *ptr);
/* Delivers the outgoing buffer. */
void hak_remote_deliver(struct hak_heap *heap);
/* Collects what others have delivered to this heap; slabs that moved on go to their new owner's inbox. */
void hak_remote_collect(struct hak_heap *heap);

#endif
