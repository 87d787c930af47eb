/* The registry of heaps: all that were ever made, those that are parked (their thread has ended; the bins of some,
 * which are warm, have blocks for the next one) and those that are lent (it sleeps). Who takes a parked or lent one out
 * of its list has claimed it, and may change it until it is parked again. All functions may be called by any thread;
 * those that get a heap, by who owns it or has claimed it. */
#ifndef HAK_FRONT_REGISTRY_H
#define HAK_FRONT_REGISTRY_H

#include "front/heap.h"

/* Adds a heap; false if another has the same tag, which happens when metadata spans windows of 4 GiB. */
bool hak_registry_add(struct hak_heap *heap);
/* Collects what was freed into a heap, and parks it: lends it again, if that is what it was. */
void hak_registry_park(struct hak_heap *heap);
/* The same at the end of its thread: empties its bins first, but for what may wait for the next thread. */
void hak_registry_retire(struct hak_heap *heap);
/* A parked heap for a thread that has none yet, which owns it from now on; NULL if there is none. */
struct hak_heap *hak_registry_take_parked(void);
/* Claims a heap of which others may adopt the first slab of the class, a parked one if there is one; else NULL. */
struct hak_heap *hak_registry_claim_with(unsigned size_class);
/* False if the calling thread's heap was being changed by another: it needs another then. */
bool hak_registry_fork_child(void);

#endif
