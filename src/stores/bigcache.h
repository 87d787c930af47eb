/* BigCache: blocks over 1 MiB, each a mapping of its own, kept for a while when freed.
 *
 * A freed mapping is found again by (size class, call site), then by class, then among classes up to 25 % larger; where
 * none fits, a larger one is cut or neighbours are joined: bigcache_table.h. Budgets for what is mapped and for what is
 * dirty, and decay: bigcache_purge.c. Above BIGCACHE_BLOCK_MAX a mapping goes straight back to the OS. realloc moves
 * pages, not bytes. A block's `descriptor` is its entry in the region map, at each of its granules. It outlives the
 * block and is recycled as a descriptor only, so that a second free finds a state that says so. Only the thread that
 * swaps the state from live to held may act on the block. In checked builds the pages behind a block are inaccessible.
 * Called by the router; calls pages and below. No lock is held while the OS is called. */
#ifndef HAK_STORES_BIGCACHE_H
#define HAK_STORES_BIGCACHE_H

#include "stores/block.h"

/* A block of `bytes`, aligned to `align` (a power of two; always to a granule). `site`: the caller's return address,
 * or 0. `bytes` of the result: whole granules, in checked builds whole pages; the mapping may be up to 25 % larger,
 * or one that was joined or could not be cut. */
struct hak_block hak_big_alloc(size_t bytes, size_t align, uintptr_t site);
/* Frees the block that starts at `ptr`. Any other result changed nothing. */
enum hak_free_result hak_big_free(void *descriptor, void *ptr);
/* Usable bytes of the live block that starts at `ptr`; 0 if none does. Takes no lock. */
size_t hak_big_usable(void *descriptor, const void *ptr);
/* The size the user asked for, kept in exact builds only. */
void hak_big_set_request(void *descriptor, size_t bytes);
size_t hak_big_request(void *descriptor);
/* Makes the live block at `ptr` hold `bytes` (over HAK_L25_MAX), in place or by moving its pages. `zero` of the
 * result: all beyond the old usable bytes is zero. NULL: it cannot, and the block is as before. */
struct hak_block hak_big_realloc(void *descriptor, void *ptr, size_t bytes, uintptr_t site);

/* Gives back what has been cached for PURGE_DELAY_MS, and the mapping after BIGCACHE_DECAY_MS. */
void hak_big_decay(uint64_t now_ms);
/* Gives back up to about `most_bytes`, as far as more is dirty than the floor of the budget; returns the bytes. */
size_t hak_big_reclaim(size_t most_bytes);
/* Unmaps all that is cached. Returns the bytes. */
size_t hak_big_purge_all(void);
/* In a forked child: an empty cache, if another thread was changing it. Live blocks are not concerned. */
void hak_big_fork_child(void);

struct hak_big_stats {
    uint64_t live_bytes, live_blocks;
    uint64_t mapped_bytes; /* of live and cached blocks */
    uint64_t served_bytes, served_blocks;
    uint64_t purged_bytes;               /* given back, by purge or unmap */
    uint64_t cached_bytes, cached_dirty; /* of address space; of these perhaps resident */
    uint64_t entries, buckets, resizes;
    uint64_t hits_site, hits_class, hits_larger, hits_cut, hits_joined, misses;
    uint64_t evictions; /* mappings dropped for room or age */
};
struct hak_big_stats hak_big_stats(void);
/* Walks the cache; false if an invariant is broken. */
bool hak_big_check(void);
/* Back to the state before the first call. To be called by the only thread; live blocks stay usable. */
void hak_big_reset_for_test(void);

#endif
