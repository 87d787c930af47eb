/* Heaps: what one thread owns. A heap holds the thread's bins, its lists of slabs with free blocks, its outgoing
 * buffer and its inbox. It outlives its thread: when the thread ends the heap is parked, and the next new thread
 * takes it over as it is. While the thread sleeps its slabs are lent: others collect what was freed into them, and may
 * adopt them, until it is back. Heaps are never unmapped, so a stale pointer to one can always be read.
 *
 * Three constant or static heaps take the place of tests for special cases:
 *   empty_heap  where a thread starts: every bin is empty *and* full, so each path goes to the slow one
 *   dead_heap   where a thread ends: the same, and no heap of its own is ever made again
 *   the shared heap what threads without one allocate from, under a lock */
#ifndef HAK_FRONT_HEAP_H
#define HAK_FRONT_HEAP_H

#include "base/size_class.h"
#include "base/sync.h"
#include "pages/region.h"
#include "stores/slab.h"

/* Blocks of other threads are held back until there is a batch worth delivering: so many, of so many granules. Where
 * two granules fall together, the one that came first is delivered. */
#define HAK_OUTGOING_BLOCKS 64
#define HAK_OUTGOING_SLOTS 32
/* Those of one word of a slab's bitmap. */
struct hak_outgoing {
    HAK_ALIGNED_LINE const char *first; /* the block of the word's lowest bit */
    size_t span;                        /* bytes of the word's blocks; 0: the slot is unused */
    uint64_t reciprocal;                /* as in the slab */
    uint32_t block_bytes;
    uint32_t word;
    int64_t share;         /* of HAKMEM_REMOTE_BYTES that each block takes up */
    _Atomic uint64_t bits; /* owner thread; read by a forked child: set after all else, cleared before */
    struct hak_slab *slab;
};
/* The slots of a heap that has needed none yet. They stay unused. */
extern struct hak_outgoing hak_no_outgoing[HAK_OUTGOING_SLOTS];

/* A bin is a stack of blocks: `top` points one past the topmost, `limit` one past the last slot. The slot below
 * the first holds HAK_BIN_BOTTOM, which is misaligned as no block is: so malloc fetches a block, and finds out that
 * there is none, or that somebody freed a misaligned pointer, by one load and one test. */
#define HAK_BIN_BOTTOM ((void *)1)
HAK_INLINE bool hak_is_misaligned(const void *ptr) { return ((uintptr_t)ptr & (HAK_MIN_ALIGN - 1)) != 0; }
struct hak_bin {
    void **top;
    void **limit;
};

/* A bin without slots: empty for malloc and full for free. */
extern void *hak_null_slots[1]; /* constant: HAK_BIN_BOTTOM */
#define HAK_NULL_BIN                                                                                                   \
    { .top = hak_null_slots + 1, .limit = hak_null_slots + 1 }

/* A block out of a bin; a misaligned pointer if it is empty. */
HAK_INLINE void *hak_bin_take(struct hak_bin *bin) {
    void *ptr = bin->top[-1];
    if (hak_likely(!hak_is_misaligned(ptr))) bin->top--;
    return ptr;
}

/* Whether a bin takes blocks of other heaps' slabs, as long as it has room: what a thread frees it soon needs again,
 * and has at hand. Not those that share a cache line with others, or two threads would go on writing to it in turn. */
HAK_INLINE bool hak_heap_keeps(unsigned size_class) { return size_class >= hak_class_of(HAK_CACHE_LINE); }

/* What only the slow path needs to know of a bin. The window is counted in its visits. */
struct hak_bin_state {
    void **base;         /* first slot; NULL until the bin is first used */
    uint16_t capacity;   /* slots */
    uint16_t batch;      /* blocks that the last refill wanted; 0: there was none yet */
    uint16_t filled;     /* blocks in the bin when the last visit ended */
    uint16_t high_water; /* most blocks that were used up between two visits of this window */
    uint8_t visits;      /* of this window */
    uint8_t refills;     /* of its last GROW_VISITS visits or fewer */
    bool visited;        /* since the last sweep */
    uint32_t asked_us;   /* when it was last asked how fast blocks go through; 0: never */
    uint32_t moved;      /* blocks since then, refilled and flushed */
};

static_assert(2 * HAK_TINY_CLASSES <= UINT8_MAX, "bin_index");
static_assert(2 * HAK_CLASS_COUNT <= HAK_KIND_FREE_SLAB, "no class is taken for a kind");
static_assert(HAK_CLASS_COUNT <= 64, "a bit per class in bins, listed, with_empty and parked_classes");

enum hak_heap_kind { HAK_HEAP_REAL, HAK_HEAP_EMPTY, HAK_HEAP_DEAD };

/* Who may change the slabs of a heap, its inbox and its counters. The bins and the outgoing buffer are the owner's at
 * any time. */
enum hak_heap_hold {
    HAK_HOLD_NONE,    /* the owner, once it has entered; of a parked heap, who claims it */
    HAK_HOLD_OWNER,   /* the owner, who has entered; or who has claimed a parked heap */
    HAK_HOLD_LENT,    /* who claims it: the owner sleeps, and is to fetch it back first */
    HAK_HOLD_CLAIMED, /* who has claimed it since it was lent */
    HAK_HOLD_AWAITED, /* the same, and the owner waits for it */
    HAK_HOLD_GONE     /* nobody: its owner has forked, and the child found it claimed */
};

/* No granule lies in the window of a heap that looks at none. */
#define HAK_NO_WINDOW ((size_t)1 << 60)

struct hak_heap {
    /* owner thread only, hot: everything malloc and free touch */
    struct hak_bin bin[HAK_CLASS_COUNT];
    size_t first_granule;                                /* of the window that free looks at without asking the root */
    hak_region_tag *window;                              /* its tags */
    uint8_t bin_index[HAK_TINY_MAX / HAK_MIN_ALIGN + 1]; /* (size + 15) / 16 -> 2 * class, in units of 8 bytes */

    /* owner thread only */
    uint8_t kind;  /* enum hak_heap_kind; constant */
    bool shared;   /* the shared heap, now or before a fork; constant */
    uint32_t lane; /* a running number, which spreads heaps over the shards of the L2.5 pool; constant once set */
    struct hak_bin_state state[HAK_CLASS_COUNT];
    uint64_t bins;           /* classes whose bins have slots, as bits */
    size_t capacity_bytes;   /* that all bins could hold */
    uint32_t outgoing_slots; /* those in use, as bits */
    int64_t outgoing_room;   /* left of HAKMEM_REMOTE_BYTES; below 0 the buffer is full */
    uint64_t next_sweep_ms;
    struct hak_outgoing *outgoing; /* HAK_OUTGOING_SLOTS of them */

    /* enum hak_heap_hold: between none and owner changed by the owner, else under the registry lock. Read by a forked
     * child, where owner and claimant are gone: the heap may be half changed */
    _Atomic uint32_t hold;
    /* by who holds the heap */
    struct hak_slab *slabs[HAK_CLASS_COUNT]; /* those with free blocks */
    uint64_t listed;                         /* classes that have any, as bits */
    uint64_t with_empty;                     /* classes of which one may be empty; of no other is any */
    uint32_t granules;                       /* of all its slabs */

    /* written by who holds the heap; cached, remote_frees and visits by the owner at any time. Read by any: relaxed,
     * each stands for itself */
    _Atomic uint64_t blocks_out[HAK_CLASS_COUNT]; /* taken from slabs and not put back */
    _Atomic uint32_t cached[HAK_CLASS_COUNT];     /* blocks in bins, as of the last visit */
    _Atomic uint32_t slabs_owned[HAK_CLASS_COUNT];
    _Atomic uint64_t served_blocks[2], served_bytes[2]; /* taken from slabs: Tiny, Mid */
    _Atomic uint64_t refills, flushes, grows, shrinks, adopted_slabs, remote_frees;
    _Atomic uint32_t visits; /* calls of hak_tick() by the owner */

    /* under the registry lock; a heap that is lent is parked, too */
    struct hak_heap *next;        /* all heaps; constant once set */
    struct hak_heap *next_of_tag; /* those whose tags fall together; constant once set */
    struct hak_heap *next_parked, *prev_parked;
    bool parked;             /* in a list */
    bool lent;               /* its owner sleeps */
    uint32_t visits_seen;    /* by who last looked whether it does */
    bool orphaned;           /* parked by a fork, with blocks still in its bins and its outgoing buffer */
    bool warm;               /* parked, or about to be, and its bins may have blocks for the next thread */
    bool lingers;            /* it was warm at the last look already */
    uint64_t parked_classes; /* classes with slabs that others may adopt, while parked */

    /* any thread: slabs with remote frees to collect, a list through inbox_next; bit 0: the owner is gone, or asleep */
    HAK_ALIGNED_LINE _Atomic uintptr_t inbox;
};
#define HAK_INBOX_PARKED ((uintptr_t)1)

/* So far behind the begin of its memory lies a heap: not where a page begins, as the first blocks of slabs do, to which
 * programs write most. Processors that compare 12 bits of addresses first make a load of a bin wait for such a store.
 */
#define HAK_HEAP_LEAD (5 * HAK_CACHE_LINE)

/* The heap of this thread. One pointer of static TLS is all that hakmem takes (DESIGN section 4). */
extern _Thread_local struct hak_heap *hak_tls_heap __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* The word that the region map holds for a slab of this heap. Never 0; no two heaps have the same. */
HAK_INLINE uint32_t hak_heap_tag(const struct hak_heap *heap) { return (uint32_t)(uintptr_t)heap; }

/* The owner takes back a heap that it had lent. False if it is gone. */
bool hak_heap_fetch_back(struct hak_heap *heap);

/* Around every slow path of the owner that changes a heap: nobody else does meanwhile, and a fork by another thread in
 * between leaves the child a heap that it cannot use. The hits need no mark; cut short anywhere they lose one block at
 * worst. Remote frees need none (remote.c). Calls may nest. False if the heap is gone: then the thread, a child that
 * was forked by a signal handler just now, has another, or none yet. */
HAK_INLINE bool hak_heap_enter(struct hak_heap *heap, bool *nested) {
    uint32_t hold = HAK_HOLD_NONE; /* what others changed is seen by the registry lock, in hak_heap_fetch_back */
    *nested = false;
    if (hak_likely(hak_cas_acqrel(&heap->hold, &hold, HAK_HOLD_OWNER))) return true;
    *nested = hold == HAK_HOLD_OWNER;
    return hak_likely(*nested) || hak_heap_fetch_back(heap);
}
HAK_INLINE void hak_heap_leave(struct hak_heap *heap, bool nested) {
    if (!nested) hak_store_rel(&heap->hold, HAK_HOLD_NONE);
}

/* By the owner: blocks have left their slab, for a bin or for the program. */
HAK_INLINE void hak_heap_count_taken(struct hak_heap *heap, unsigned c, uint32_t blocks) {
    unsigned layer = c >= HAK_TINY_CLASSES;
    hak_count_by_owner(&heap->blocks_out[c], blocks);
    hak_count_by_owner(&heap->served_blocks[layer], blocks);
    hak_count_by_owner(&heap->served_bytes[layer], (uint64_t)blocks * hak_class_bytes(c));
}

/* The calling thread's heap, made or taken over if it has none yet; NULL for a thread that is ending, or when
 * there is no memory for one: use the shared heap then. */
struct hak_heap *hak_heap_get(void);
/* The same, but NULL also where the thread has none yet. */
struct hak_heap *hak_heap_peek(void);

/* The heap that a thread starts on. */
struct hak_heap *hak_heap_initial(void);

/* A block of a class from the shared heap; NULL if there is no memory. */
void *hak_heap_shared_alloc(unsigned size_class);
/* Collects what was freed into the shared heap, and gives its empty slabs back. */
void hak_heap_shared_flush(void);

/* Makes free look at the window of `ptr`, a block of any heap. */
void hak_heap_look_at(struct hak_heap *heap, const void *ptr);

/* A slab with free blocks in or out of the heap's list. */
void hak_heap_list(struct hak_heap *heap, struct hak_slab *slab);
void hak_heap_unlist(struct hak_heap *heap, struct hak_slab *slab);
/* Another slab with free blocks of this class, listed: adopted from a parked or lent heap, or a new one, of which the
 * caller takes a block at once (with_empty). NULL if the system gives no memory or the limit HAKMEM_SUPERSLABS_MAX is
 * reached. */
struct hak_slab *hak_heap_more(struct hak_heap *heap, unsigned size_class);
/* A block straight from the first slab of the class that is listed; NULL if none is. */
void *hak_heap_take_one(struct hak_heap *heap, unsigned size_class);
/* Lists a slab that has got free blocks, or gives it back if it is empty; but a heap in use keeps the last of a class.
 */
void hak_heap_settle(struct hak_heap *heap, struct hak_slab *slab);
/* Gives back all slabs of a class that are empty; of all classes. */
void hak_heap_give_empty(struct hak_heap *heap, unsigned size_class);
void hak_heap_give_all_empty(struct hak_heap *heap);

/* Lends the heaps of threads that have not ticked (tick.h) since this was last called: they sleep, or need no slow
 * path. Of many heaps, it looks at some. Empties the bins of heaps that were warm then already. */
void hak_heap_lend_sleeping(void);
/* Those of all threads that are in no slow path at the moment; and empties the bins of all warm heaps that nobody
 * holds. */
void hak_heap_lend_all(void);

/* Called by a thread that has pushed a slab to the inbox of a parked or lent heap: collects in place of the owner. */
void hak_heap_visit_parked(struct hak_heap *heap);

/* The Tiny (0) and Mid (1) layers as the heaps see them. */
struct hak_front_stats {
    uint64_t live_bytes[2], live_blocks[2], cached_bytes[2], served_bytes[2], served_blocks[2];
    uint64_t threads, heaps_parked, remote_frees, adopted_slabs, refills, flushes, grows, shrinks;
};
void hak_front_stats(struct hak_front_stats *out);
/* How many threads have a heap, about. */
uint32_t hak_heap_threads(void);
/* Calls `visit` for every heap ever made, under the registry lock. Returns how many are parked. */
uint64_t hak_heap_each(void (*visit)(const struct hak_heap *heap, void *data), void *data);

/* At unload of the library (or exit): no thread's end calls into it any more. */
void hak_heap_forget_threads(void);
void hak_heap_fork_child(void);
/* Walks the invariants of the calling thread's heap (debug builds and tests). */
bool hak_heap_check(void);

#endif
