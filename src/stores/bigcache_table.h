/* The table of cached mappings: hash chains by (class, site) and by address, a list per class, and two lists by age.
 *
 * Invariant: every entry is held, and in exactly one chain of each kind, the list of its class, and one of dirty and
 * clean; mapped_bytes and dirty_bytes are the sums over the entries; chain number = hash of (class, site), or of the
 * granule at which the mapping begins, modulo the buckets.
 * Chains and classes: the newest dirty entry first, the clean ones behind, in the order they were purged. Ages: the
 * newest first.
 * All under one lock, taken for a few steps: walks are bounded, but for the rehash. Nothing here calls the OS or
 * allocates: what is to be unmapped or purged is returned as a list (`victims`), linked by age. */
#ifndef HAK_STORES_BIGCACHE_TABLE_H
#define HAK_STORES_BIGCACHE_TABLE_H

#include "base/sync.h"
#include "pages/budget.h"
#include "stores/block.h"

#define HAK_BIG_BUCKETS_MIN 256
#define HAK_BIG_SHIFT_MIN 20 /* smaller mappings (of overaligned blocks) are not cached */
#define HAK_BIG_SHIFT_MAX 40 /* the largest BIGCACHE_BLOCK_MAX */
#define HAK_BIG_CLASSES ((HAK_BIG_SHIFT_MAX - HAK_BIG_SHIFT_MIN) * 8 + 1)

enum hak_big_state { HAK_BIG_SPARE, HAK_BIG_LIVE, HAK_BIG_HELD };
enum hak_big_order { HAK_BIG_CHAIN, HAK_BIG_PLACE, HAK_BIG_CLASS, HAK_BIG_AGE, HAK_BIG_ORDERS };

struct hak_big {
    /* Any thread. acquire-release: whoever swaps live for held owns the other fields, and sees them. */
    _Atomic uint32_t state;
    /* Written by who holds the block; read by any thread that asks about a pointer, relaxed: of its own block it sees
     * what was written before the block was handed out. */
    char *_Atomic base;
    _Atomic size_t mapped;  /* whole granules */
    _Atomic size_t usable;  /* of these the user's: what was asked for, rounded up */
    _Atomic size_t request; /* what the user asked for; exact builds only */

    /* Whoever holds the block; in the cache, under the table's lock. */
    uintptr_t site;
    uint64_t freed_ms;
    uint64_t times_served; /* from the cache */
    uint32_t class, hash;
    bool zero; /* all of the mapping reads as zero; of a live block all beyond `usable` */
    bool guarded;
    struct {
        struct hak_big *prev, *next;
    } link[HAK_BIG_ORDERS];
};

struct hak_big_list {
    struct hak_big *first, *last;
};

struct hak_big_table {
    struct hak_lock lock;
    /* All under the lock. */
    uint32_t bucket_count; /* 0 before the first entry, then a power of two */
    uint32_t entries;
    uint64_t mapped_bytes, dirty_bytes;
    uint64_t hits_site, hits_class, hits_larger, hits_cut, hits_joined, evictions, resizes;
    struct hak_big_list *buckets; /* bucket_count chains by class and site, then as many by address */
    struct hak_big_list dirty, clean;
    struct hak_big *spare; /* descriptors without memory */
    struct hak_big_list classes[HAK_BIG_CLASSES];
};
extern struct hak_big_table hak_big_table;
/* Bytes that all blocks have mapped, live and cached. Any thread, relaxed: a counter. */
extern _Atomic uint64_t hak_big_mapped_bytes;

/* What an insertion displaced: taken out of the table, still held, the oldest first. */
struct hak_big_victims {
    struct hak_big_list unmap, purge;
};

HAK_INLINE struct hak_big *hak_big_next_victim(struct hak_big_list *victims) {
    struct hak_big *big = victims->first;
    if (big == NULL) return NULL;
    victims->first = big->link[HAK_BIG_AGE].next;
    if (victims->first == NULL) victims->last = NULL;
    return big;
}

HAK_INLINE size_t hak_big_mapped(const struct hak_big *big) { return hak_load_rlx(&big->mapped); }

/* The class of a mapping: 8 per doubling. */
uint32_t hak_big_class_of(size_t mapped);
/* The smallest mapping of a class. */
size_t hak_big_class_bytes(uint32_t class);
/* FNV-1a over class and site. */
uint32_t hak_big_hash(uint32_t class, uintptr_t site);
/* The most that a request may be served with. */
HAK_INLINE size_t hak_big_at_most(size_t bytes) { return bytes + bytes / 4; }

/* Takes out what serves `bytes` best, or NULL: an entry that fits, else a larger dirty one, to be cut, else dirty
 * neighbours in the order of addresses, to be joined (those behind the first are linked by age). */
struct hak_big *hak_big_table_take_locked(size_t bytes, size_t align, uintptr_t site) HAK_REQUIRES(hak_big_table.lock);
/* What may be dirty: BIGCACHE_RESIDENT, or a share of what is live. `held` bytes are neither live nor in the table. */
uint64_t hak_big_table_budget_locked(enum hak_budget_part part, size_t held) HAK_REQUIRES(hak_big_table.lock);
/* Takes out the oldest dirty entries: about `most_bytes`, and at most `most`, as far as more than the floor of the
 * budget is dirty. */
void hak_big_table_reclaim_locked(size_t most_bytes, unsigned most, struct hak_big_victims *victims)
    HAK_REQUIRES(hak_big_table.lock);
/* No more than the floor of the budget is dirty. */
bool hak_big_table_is_spent_locked(void) HAK_REQUIRES(hak_big_table.lock);
/* Adds an entry; its fields are set but for class and hash. The table has buckets. */
void hak_big_table_insert_locked(struct hak_big *big, struct hak_big_victims *victims) HAK_REQUIRES(hak_big_table.lock);
/* Takes out up to `most` entries freed at these times or earlier. */
void hak_big_table_expire_locked(uint64_t unmap_before_ms, uint64_t purge_before_ms, unsigned most,
                                 struct hak_big_victims *victims) HAK_REQUIRES(hak_big_table.lock);
/* True if the load factor asks for more buckets and the option allows them. */
bool hak_big_table_is_full_locked(void) HAK_REQUIRES(hak_big_table.lock);
/* Puts all entries into `buckets`, zeroed, two for each of `count`; the old array. */
struct hak_big_list *hak_big_table_rehash_locked(struct hak_big_list *buckets, uint32_t count)
    HAK_REQUIRES(hak_big_table.lock);
bool hak_big_table_check_locked(void) HAK_REQUIRES(hak_big_table.lock);

#endif
