/* A chunk of the L2.5 pool: 64 slices as bits of one word. Pure bit arithmetic; the caller holds the lock of the
 * chunk's shard, but for what is atomic.
 *
 * Invariant: with live = the union of the runs [s, s + run[s]),
 *   free + claimed + live = all slices, without overlap;  dirty is a subset of free;  ended of free + claimed. */
#ifndef HAK_STORES_L25_CHUNK_H
#define HAK_STORES_L25_CHUNK_H

#include "base/sync.h"
#include "stores/block.h"

#define HAK_L25_SLICE_SHIFT HAK_GRANULE_SHIFT
#define HAK_L25_NO_RUN HAK_CHUNK_SLICES
#define HAK_L25_ALL (~(uint64_t)0)

static_assert(HAK_CHUNK_SLICES == 64 && HAK_CHUNK_BYTES == 64 * HAK_SLICE_BYTES, "a bit per slice in each mask");

struct hak_l25_shard;

struct hak_l25_chunk {
    struct hak_l25_shard *shard; /* constant from birth: a descriptor is recycled by its shard only */

    /* Written under the shard's lock, or while nobody else knows the chunk; read by any thread, relaxed: what a
     * user may ask about a live block was written before the block was handed out. */
    char *_Atomic base;
    _Atomic uint8_t run[HAK_CHUNK_SLICES];                      /* length of the live run that starts here, or 0 */
    _Atomic uint32_t request[HAK_EXACT ? HAK_CHUNK_SLICES : 1]; /* bytes asked for */

    /* Under the shard's lock. */
    uint64_t free;       /* may be served */
    uint64_t dirty;      /* free and may hold old data */
    uint64_t claimed;    /* being purged */
    uint64_t ended;      /* not live, and the last run that lay here began here */
    uint64_t generation; /* of the shard when the chunk joined it; another one: the chunk was set aside */

    /* Under the shard's lock, kept by l25_shard.c. */
    uint8_t list;                      /* in which it is */
    uint8_t live_slices, dirty_slices; /* as last counted */
    bool aging;                        /* in the shard's list of dirty chunks */
    uint64_t dirty_ms, idle_ms;        /* when it last got a dirty slice; when its last live run ended */
    struct hak_l25_chunk *next, *prev; /* the first one's `prev` is the last */
    struct hak_l25_chunk *newer, *older;
};

/* What an allocation looks for. */
struct hak_l25_want {
    unsigned slices;
    uint64_t starts; /* slices where a run may begin */
};

/* `count` bits from bit `start` up. */
HAK_INLINE uint64_t hak_l25_mask(unsigned start, unsigned count) {
    return (HAK_L25_ALL >> (HAK_CHUNK_SLICES - count)) << start;
}
HAK_INLINE unsigned hak_l25_count(uint64_t mask) { return (unsigned)__builtin_popcountll(mask); }

/* Length of the longest run of set bits; one over 31 counts as 31. */
unsigned hak_l25_longest(uint64_t mask);

/* A freshly mapped chunk: all free. */
void hak_l25_chunk_init(struct hak_l25_chunk *chunk, bool zero, uint64_t generation);
/* Takes the first run that fits; its start, or HAK_L25_NO_RUN. `*zero`: whether it is all zero. */
unsigned hak_l25_chunk_take(struct hak_l25_chunk *chunk, const struct hak_l25_want *want, bool *zero);
/* Gives the run that starts at `start` back. */
void hak_l25_chunk_give(struct hak_l25_chunk *chunk, unsigned start);
/* Resizes the run that starts at `start`. False: what follows it is not free. */
bool hak_l25_chunk_resize(struct hak_l25_chunk *chunk, unsigned start, unsigned slices);
/* Takes all dirty slices out of service for a purge, and puts them back; `still_dirty`: those not purged. */
uint64_t hak_l25_chunk_claim(struct hak_l25_chunk *chunk);
void hak_l25_chunk_unclaim(struct hak_l25_chunk *chunk, uint64_t claimed, uint64_t still_dirty);

/* What `ptr` is; HAK_FREE_OK: the start of the live run at slice `*start`. */
enum hak_free_result hak_l25_chunk_locate(const struct hak_l25_chunk *chunk, const void *ptr, unsigned *start);
/* Length of the live run that starts at `ptr`, or 0, and its first slice. Needs no lock. */
unsigned hak_l25_chunk_run(const struct hak_l25_chunk *chunk, const void *ptr, unsigned *start);
bool hak_l25_chunk_check(const struct hak_l25_chunk *chunk);

#endif
