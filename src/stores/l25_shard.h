/* A shard of the L2.5 pool: a lock, the chunks it guards in lists by their longest free run, and counters.
 *
 * List n (1..16) holds the chunks whose longest free run is n slices, list 0 the full ones, LONG those with a
 * longer run, IDLE those wholly free, which are used last. So the lowest list that fits is found by one bit scan, and
 * a run is cut from the chunk that has least to spare. Chunks with dirty slices are also in the list of ages.
 * Every function but the counters and the hint is called under the shard's lock. Nothing here calls the OS. */
#ifndef HAK_STORES_L25_SHARD_H
#define HAK_STORES_L25_SHARD_H

#include "base/sync.h"
#include "stores/l25_chunk.h"

enum { HAK_L25_LONG = HAK_L25_MAX / HAK_SLICE_BYTES + 1, HAK_L25_IDLE, HAK_L25_LISTS };
static_assert(HAK_L25_LONG <= 31 && HAK_L25_LISTS <= 32, "what hak_l25_longest tells apart; a bit per list");

struct hak_l25_shard {
    HAK_ALIGNED_LINE struct hak_lock lock;
    uint32_t index;      /* constant after init */
    uint64_t generation; /* under the lock: grows when the shard's chunks are set aside */
    uint32_t nonempty;   /* under the lock: bit n: list n has a chunk */
    /* The highest list with a chunk, 0 if none fits anything. Written under the lock, read by any thread, relaxed:
     * only a hint where to look; what is found is decided under the lock. */
    _Atomic uint32_t best;

    /* Counters: but for `misses` written under the lock, read by any thread, relaxed; they publish nothing. */
    _Atomic uint64_t requests, locked; /* requests; try-locks that succeeded */
    _Atomic uint64_t served_blocks, served_slices;
    _Atomic uint64_t ended_blocks, ended_slices; /* live = served - ended */
    _Atomic uint64_t purged_slices, dirty_slices;
    _Atomic uint64_t chunks, chunks_aside;
    _Atomic uint64_t misses; /* any thread: try-locks that failed */

    /* Under the lock. */
    int64_t owed_live, owed_dirty; /* slices not yet added to the sums of the pool (l25_purge.h) */
    struct hak_l25_chunk *lists[HAK_L25_LISTS];
    struct hak_l25_chunk *oldest, *newest; /* chunks with dirty slices, by dirty_ms */
    struct hak_l25_chunk *spare;           /* descriptors without memory */
};

void hak_l25_shard_init(struct hak_l25_shard *shard, uint32_t index);

/* Locks, and counts a failure. */
bool hak_l25_shard_try(struct hak_l25_shard *shard) HAK_TRY_ACQUIRE(shard->lock);

/* Cuts a run; false if no chunk here fits. */
bool hak_l25_shard_take_locked(struct hak_l25_shard *shard, const struct hak_l25_want *want, struct hak_block *block)
    HAK_REQUIRES(shard->lock);
/* Adds a chunk whose `base` is set. */
void hak_l25_shard_attach_locked(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk, bool zero, uint64_t now_ms)
    HAK_REQUIRES(shard->lock);
/* Takes a wholly free chunk out. */
void hak_l25_shard_detach_locked(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk) HAK_REQUIRES(shard->lock);
/* Brings lists and counters in line after a change of the chunk's masks. */
void hak_l25_shard_sync_locked(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk, uint64_t now_ms)
    HAK_REQUIRES(shard->lock);
/* Forgets all chunks: what they hold stays mapped. */
void hak_l25_shard_set_aside_locked(struct hak_l25_shard *shard) HAK_REQUIRES(shard->lock);
bool hak_l25_shard_check_locked(const struct hak_l25_shard *shard) HAK_REQUIRES(shard->lock);

/* False for a chunk that was set aside: its links mean nothing any more. */
HAK_INLINE bool hak_l25_shard_has(const struct hak_l25_shard *shard, const struct hak_l25_chunk *chunk) {
    return chunk->generation == shard->generation;
}

#endif
