/* Region map: the one way from an address to what hakmem knows about it (DESIGN I2).
 *
 * A root of windows (16 GiB each), each a leaf of granules (64 KiB). A granule has a tag for the free path, and in a
 * second array of the leaf its descriptor. The tag is one 64-bit word of two halves:
 *   low   owner: low 32 bits of the owning heap's address for a slab granule, else 0
 *   high  kind: for a slab twice its size class (the index of its bin); else one of enum hak_kind
 * The free path loads it once, asks "is the owner me?" by one compare, and has the bin's index in the other half.
 *
 * Why a relaxed read of the tag suffices: a live block's entry was written before the block was handed out, and
 * whoever frees it got the pointer by some synchronisation of the program's own. The owner changes when its thread has
 * given the slab up (parked, released), or while its heap is lent; so a tag that is read stale may say "heap A" or
 * "heap B", and both mean "not mine" to everybody but A and B. B changed it itself. A, if it believes that a slab is
 * its own which was adopted, puts the block into a bin, and that may keep it whoever the owner is: the kind of a live
 * block's slab does not change. What is done to a slab itself is done by who has entered the heap, and has read the
 * tag, or the slab's owner, after that. */
#ifndef HAK_PAGES_REGION_H
#define HAK_PAGES_REGION_H

#include "base/config.h"
#include "base/sync.h"

enum hak_kind {
    HAK_KIND_NONE = 0,          /* not ours */
    HAK_KIND_FREE_SLAB = 0x100, /* a slab of ours that holds no blocks; descriptor: none */
    HAK_KIND_L25,               /* descriptor: struct hak_l25_chunk */
    HAK_KIND_BIG                /* descriptor: struct hak_big */
};

typedef _Atomic uint64_t hak_region_tag;
HAK_INLINE uint32_t hak_tag_owner(uint64_t tag) { return (uint32_t)tag; }
HAK_INLINE uint32_t hak_tag_kind(uint64_t tag) { return (uint32_t)(tag >> 32); }

struct hak_region_leaf {
    hak_region_tag tag[HAK_WINDOW_GRANULES];
    void *_Atomic descriptor[HAK_WINDOW_GRANULES];
    /* Builds without HAK_REGION_LOOKUP: the superslab at each 2 MiB, the first step of hak_slab_find(). */
    void *_Atomic superslab[HAK_REGION_LOOKUP ? 0 : HAK_WINDOW_GRANULES / HAK_SUPERSLAB_SLABS];
};

/* Leaves are published with release and never go away. */
extern struct hak_region_leaf *_Atomic hak_region_root[HAK_ROOT_ENTRIES];

/* The leaf of an address, or NULL if none of its window was ever ours. */
HAK_INLINE struct hak_region_leaf *hak_region_leaf_of(const void *ptr) {
    uintptr_t window = (uintptr_t)ptr >> HAK_WINDOW_SHIFT;
    if (hak_unlikely(window >= HAK_ROOT_ENTRIES)) return NULL;
    return hak_load_acq(&hak_region_root[window]); /* pairs with the release in add_leaf */
}
HAK_INLINE size_t hak_region_index(const void *ptr) {
    return ((uintptr_t)ptr >> HAK_GRANULE_SHIFT) & (HAK_WINDOW_GRANULES - 1);
}

/* What an address is. */
struct hak_region {
    uint32_t owner;
    uint32_t kind;
    void *descriptor;
};
HAK_INLINE struct hak_region hak_region_lookup(const void *ptr) {
    struct hak_region_leaf *leaf = hak_region_leaf_of(ptr);
    if (hak_unlikely(leaf == NULL)) return (struct hak_region){0, 0, NULL};
    size_t i = hak_region_index(ptr);
    /* acquire pairs with the release in hak_region_set: the descriptor's content is visible with its address */
    uint64_t tag = hak_load_rlx(&leaf->tag[i]);
    return (struct hak_region){hak_tag_owner(tag), hak_tag_kind(tag), hak_load_acq(&leaf->descriptor[i])};
}

/* Makes sure that the leaves of [ptr, ptr + bytes) exist. False if memory is short or the address is beyond the
 * map (over 2^48). To be called once per mapping, before hak_region_set. */
bool hak_region_reserve(const void *ptr, size_t bytes);
/* Sets tag and descriptor of a reserved range. */
void hak_region_set(const void *ptr, size_t bytes, uint32_t owner, uint32_t kind, void *descriptor);
/* Builds without HAK_REGION_LOOKUP: sets the superslab (NULL: none) at `ptr`, which is aligned to 2 MiB and reserved.
 */
void hak_region_set_superslab(const void *ptr, void *superslab);
/* Takes a range out of the map: "not ours". */
void hak_region_clear(const void *ptr, size_t bytes);

void hak_region_fork_child(void);

#endif
