/* L2.5 pool: blocks of 32 KiB to 1 MiB, as runs of 64 KiB slices in chunks of 4 MiB.
 *
 * Roll-call:  slice   64 KiB, the unit        run    neighbouring slices that are one block
 *             chunk   64 slices (l25_chunk.h) shard  a lock and the chunks it guards (l25_shard.h)
 *             table   all shards, 64 at first, doubled under load or contention (l25_table.h)
 *             claimed slices being purged: neither free nor live
 * A thread's lane names its shard. A shard that has no fitting run takes from others that are not busy before a chunk
 * is mapped; a run goes back to the shard of its chunk. Memory is given back in l25_purge.c. Called by the router;
 * calls pages and below. No lock is held while the OS is called. A chunk's `descriptor` is its entry in the region map;
 * any pointer into the chunk may be asked about, and all answers are complete at once: no block, no header, is read. */
#ifndef HAK_STORES_L25_H
#define HAK_STORES_L25_H

#include "stores/block.h"

/* A block of 1 byte to HAK_L25_MAX, aligned to `align` (a power of two up to 1 MiB; always to a slice). `lane`
 * names the caller; different lanes get different shards as far as there are enough. */
struct hak_block hak_l25_alloc(size_t bytes, size_t align, uint32_t lane);
/* Frees the block that starts at `ptr`. Any other result changed nothing. */
enum hak_free_result hak_l25_free(void *descriptor, void *ptr);
/* Usable bytes of the live block that starts at `ptr`; 0 if none does. Takes no lock. */
size_t hak_l25_usable(void *descriptor, const void *ptr);
/* Makes the live block at `ptr` hold `bytes` without moving it: grows into free slices behind it, or gives its tail
 * back. False: it cannot, and is as before. The content of what it gained is unknown. */
bool hak_l25_resize(void *descriptor, void *ptr, size_t bytes, size_t *usable);
/* The size the user asked for, kept in exact builds only (else nothing, and 0). `ptr`: a live block. */
void hak_l25_set_request(void *descriptor, const void *ptr, size_t bytes);
size_t hak_l25_request(void *descriptor, const void *ptr);

/* Gives back what has been free for PURGE_DELAY_MS, and whole chunks after UNMAP_DELAY_MS. */
void hak_l25_decay(uint64_t now_ms);
/* Gives back up to about `most_bytes`, as far as more is dirty than the floor of the budget; returns the bytes. */
size_t hak_l25_reclaim(size_t most_bytes);
/* Gives back all that is free, at once. Returns the bytes: of address space for a chunk, else of memory. */
size_t hak_l25_purge_all(void);
/* In a forked child: sets shards aside whose lock another thread held. Their blocks stay valid; freed ones give
 * their memory back, but their address space stays lost. */
void hak_l25_fork_child(void);

struct hak_l25_stats {
    uint64_t live_bytes, live_blocks; /* whole slices */
    uint64_t mapped_bytes;
    uint64_t dirty_bytes; /* free and perhaps resident */
    uint64_t served_bytes, served_blocks;
    uint64_t purged_bytes; /* given back, whole chunks included */
    uint64_t shards, expansions;
    uint64_t requests;    /* allocations that reached a shard, and took or missed a run */
    uint64_t lock_misses; /* try-locks that failed */
};
struct hak_l25_stats hak_l25_stats(void);
/* Walks everything, one shard's lock at a time; false if an invariant is broken. */
bool hak_l25_check(void);
/* Back to the state before the first call. To be called when no block is live, by the only thread. */
void hak_l25_reset_for_test(void);

#endif
