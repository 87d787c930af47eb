/* Superslabs: 2 MiB of address space each, 32 granules, given out in runs to slabs; linked without limit.
 * Only slab.c uses this. One lock; the OS is never called with it held.
 *
 * The invariant (hak_superslab_check): dirty_mask is a part of free_mask, and a superslab with a free granule is
 * in the list for its longest free run. */
#ifndef HAK_STORES_SUPERSLAB_H
#define HAK_STORES_SUPERSLAB_H

#include "base/config.h"

struct hak_superslab;

/* A run of granules: where it lies and whose it is. ptr is NULL if there is none. */
struct hak_slab_run {
    char *ptr;
    struct hak_superslab *superslab;
    unsigned first; /* granule in the superslab */
    size_t fresh;   /* bytes that become resident, as far as is known: of the run, or of all that is a huge page */
    bool retaken;   /* and the pool has not much left that is dirty: hak_budget_retaken() is to be told */
};

/* Takes a run of `slabs` (1, 2, 4 or 8) granules, linking a fresh superslab where no other has room: a huge page, if
 * the system has one and `huge`. */
struct hak_slab_run hak_superslab_take(unsigned slabs, bool huge);
/* Gives a run back; its pages count as dirty. */
void hak_superslab_give(struct hak_superslab *superslab, unsigned first, unsigned slabs);

/* What slab.h says of hak_slab_relieve, hak_slab_reclaim, hak_slab_decay and hak_slab_purge_all. */
void hak_superslab_relieve(void);
size_t hak_superslab_reclaim(size_t most_bytes);
void hak_superslab_decay(uint64_t now_ms);
size_t hak_superslab_purge_all(void);

struct hak_superslab_stats {
    uint64_t superslabs, slabs_used, dirty_bytes, purged_bytes;
};
struct hak_superslab_stats hak_superslab_stats(void);
void hak_superslab_fork_child(void);
bool hak_superslab_check(void);

#endif
