/* The thread cache: bins of a heap (bins.h), filled from slabs and flushed to them many blocks at a time. Slow paths
 * only; the hits are inlined in the router. */
#ifndef HAK_FRONT_TCACHE_H
#define HAK_FRONT_TCACHE_H

#include "front/heap.h"

/* A block of the class for the calling thread, from its bin if there is one. NULL if there is no memory. */
void *hak_tcache_alloc(unsigned size_class);
/* Frees a block of a slab: into the bin if the slab is this thread's, else to its owner. `function` names the caller in
 * a misuse report. */
void hak_tcache_free(void *ptr, const char *function);

/* Everything cached goes down: bins to the slabs, outgoing blocks to their owners. */
void hak_tcache_flush_all(struct hak_heap *heap);
/* Halves what lies in bins that were not visited since the last sweep, and gives their empty slabs back. */
void hak_tcache_sweep(struct hak_heap *heap);
/* Puts blocks into the bins of the smallest classes (HAKMEM_PREWARM). */
void hak_tcache_prewarm(struct hak_heap *heap);
/* Everything cached goes down, but that up to `bytes` of each class stay in bins of up to `slots`, for the next thread.
 * Bins that are empty are closed until they are used again; the slots of larger ones are freed. */
void hak_tcache_rest(struct hak_heap *heap, uint32_t slots, size_t bytes);

#endif
