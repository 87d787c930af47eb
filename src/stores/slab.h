/* Slabs: where blocks of the Tiny and Mid layers rest. A slab is a run of 1, 2, 4 or 8 granules of a superslab,
 * cut into blocks of one size class. What is known about it stands in this record, never in the memory itself.
 *
 * The invariant, for a slab in use (hak_slab_check):
 *   free_count == popcount(free), and a block is in exactly one state:
 *     bit set in free:    at rest here
 *     bit set in remote:  freed by another thread, not collected yet
 *     neither:            live, or in a thread's bin or outgoing buffer
 *
 * Records are recycled only as records of the same class and never unmapped, so a thread that has just delivered
 * the last block of a slab may still touch `queued`, `owner` and `inbox_next` of a slab that was given back since. */
#ifndef HAK_STORES_SLAB_H
#define HAK_STORES_SLAB_H

#include "base/config.h"
#include "base/sync.h"
#include "pages/region.h"
#include "stores/block.h"

struct hak_superslab;

/* Each part has cache lines of its own: who frees another's block reads the first and writes the third, and the owner
 * works in the second and the fourth. */
struct hak_slab {
    /* constant while the slab is in use, but for owner */
    char *base;
    uint64_t reciprocal; /* floor(2^32 / (block_bytes / 16)) + 1 */
    void *_Atomic owner; /* the heap; NULL while the slab is not in use */
    struct hak_superslab *superslab;
    _Atomic uint32_t *request; /* HAK_EXACT builds: requested size + 1 of each live block, 0 of a free one */
    uint32_t block_bytes;
    uint16_t blocks;
    uint16_t words;     /* of each bitmap */
    uint16_t free_bits; /* where the second one begins in bits */
    uint8_t size_class;
    uint8_t slabs;
    uint8_t first_slab; /* index in the superslab */

    /* owner thread only, or who holds its heap */
    HAK_ALIGNED_LINE uint32_t free_count;
    uint16_t first_word; /* no bit of free is set below this word */
    bool listed;         /* in the owner's list of slabs with free blocks */
    struct hak_slab *next, *prev;

    /* any thread */
    HAK_ALIGNED_LINE struct hak_slab *inbox_next; /* written by the one thread that set queued */
    _Atomic bool queued;                          /* in a heap's inbox, or about to be */

    uint64_t bits[]; /* remote[words] (any thread, atomic), then on its own lines free[words] (owner thread only) */
};

/* The first field of a superslab's record. Builds without HAK_REGION_LOOKUP: the slab that each granule belongs to, or
 * NULL. These builds recycle records of superslabs as such only, so that a stale one can be read. */
struct hak_slab_index {
    struct hak_slab *_Atomic slab[HAK_REGION_LOOKUP ? 0 : HAK_SUPERSLAB_SLABS];
};

/* The other way from an address to its slab, by two steps: its superslab, and the slab in that; NULL if it lies in
 * none. What a thread reads stale does no harm, as with the tag (region.h): all it is asked is whether the owner is me,
 * and an entry goes before its record can serve elsewhere. */
HAK_INLINE const struct hak_slab *hak_slab_find(const struct hak_region_leaf *leaf, size_t granule) {
    /* acquire: both pair with the releases in hak_region_set_superslab and index_slab */
    const struct hak_slab_index *superslab = hak_load_acq(&leaf->superslab[granule / HAK_SUPERSLAB_SLABS]);
    if (hak_unlikely(superslab == NULL)) return NULL;
    return hak_load_acq(&superslab->slab[granule % HAK_SUPERSLAB_SLABS]);
}

HAK_INLINE uint64_t *hak_slab_free_bits(struct hak_slab *slab) { return slab->bits + slab->free_bits; }
HAK_INLINE _Atomic uint64_t *hak_slab_remote_bits(struct hak_slab *slab) { return (_Atomic uint64_t *)slab->bits; }

#define HAK_NO_BLOCK UINT32_MAX

/* The number of the block at `offset` of the slab. */
HAK_INLINE uint32_t hak_slab_number(const struct hak_slab *slab, uint32_t offset) {
    return (uint32_t)(((offset >> HAK_MIN_ALIGN_SHIFT) * slab->reciprocal) >> 32);
}

/* The number of the block that starts at `ptr`, or HAK_NO_BLOCK if none does. */
HAK_INLINE uint32_t hak_slab_index(const struct hak_slab *slab, const void *ptr) {
    uint32_t offset = (uint32_t)((const char *)ptr - slab->base);
    uint32_t index = hak_slab_number(slab, offset);
    return hak_likely(index * slab->block_bytes == offset && index < slab->blocks) ? index : HAK_NO_BLOCK;
}

/* The bytes of the block that starts at `ptr`, or 0 if none does. */
HAK_INLINE size_t hak_slab_usable(const struct hak_slab *slab, const void *ptr) {
    return hak_slab_index(slab, ptr) != HAK_NO_BLOCK ? slab->block_bytes : 0;
}

/* Takes a slab of a class for `owner` (whose tag goes into the region map), all its blocks free; NULL if the
 * system gives no memory. `huge`: if a superslab is linked for it, it is to be a huge page. */
struct hak_slab *hak_slab_take(unsigned size_class, void *owner, uint32_t owner_tag, bool huge);
/* Gives back a slab whose blocks are all free. Never calls the OS: hak_slab_relieve() does what is due. */
void hak_slab_give(struct hak_slab *slab);
/* Makes `owner` the owner of a slab that nobody else can be using as its owner. */
void hak_slab_adopt(struct hak_slab *slab, void *owner, uint32_t owner_tag);

/* By the owner: takes up to `count` blocks, lowest address last, so that a stack hands them out in address order.
 * Returns how many. */
uint32_t hak_slab_take_blocks(struct hak_slab *slab, void **out, uint32_t count);
/* By the owner: puts blocks back as long as they lie in this slab. Returns how many; `*result` says what is wrong with
 * the next one, if it is no block, or free already. */
uint32_t hak_slab_put_blocks(struct hak_slab *slab, void *const *ptrs, uint32_t count, enum hak_free_result *result);
/* The same for one that does. */
enum hak_free_result hak_slab_put_block(struct hak_slab *slab, void *ptr);
/* By the owner: collects what others have freed. Returns the first block that was freed twice, or HAK_NO_BLOCK. */
uint32_t hak_slab_collect(struct hak_slab *slab);
/* By any thread: frees the blocks of bitmap word `word` that are set in `bits`. Returns those freed already. */
uint64_t hak_slab_put_remote(struct hak_slab *slab, uint32_t word, uint64_t bits);

HAK_INLINE bool hak_slab_is_empty(const struct hak_slab *slab) { return slab->free_count == slab->blocks; }

/* Purges and unmaps what is over the budget. Call with no lock held. */
void hak_slab_relieve(void);
/* Gives back up to about `most_bytes`, as far as more is dirty than the floor of the budget; returns the bytes. */
size_t hak_slab_reclaim(size_t most_bytes);
/* The same by age. */
void hak_slab_decay(uint64_t now_ms);
/* Gives back all that can be given back; returns the bytes. */
size_t hak_slab_purge_all(void);

struct hak_slab_stats {
    uint64_t superslabs;   /* mapped now */
    uint64_t slabs_used;   /* granules in use by slabs */
    uint64_t mapped_bytes; /* of the superslabs */
    uint64_t dirty_bytes;  /* free, not purged */
    uint64_t purged_bytes; /* ever */
};
struct hak_slab_stats hak_slab_stats(void);
void hak_slab_fork_child(void);
/* True if the record's invariant holds; by the owner. */
bool hak_slab_check(struct hak_slab *slab);

#endif
