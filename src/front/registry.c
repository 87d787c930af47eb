/* Whose each heap is (registry.h). The registry lock guards that; a heap's content belongs to whoever it is. */
#include "front/registry.h"

#include "base/options.h"
#include "base/sys.h"
#include "front/remote.h"
#include "front/tcache.h"

/* Bins up to this size wait in a parked heap for the thread that takes it over: 20 KiB of slots at most. */
#define RESTING_SLOTS 64
/* In so many parked heaps they wait with up to HAKMEM_TLS_WARM_BYTES of each class, so that a thread that follows
 * another need not fetch what that one has just put back; until a look finds that none has come since the last. */
#define WARM_HEAPS 16
/* So many heaps are looked at for each call that lends sleepers' or looks for slabs to adopt. */
#define LOOKS 64
/* So many slabs of a class are looked at for one that a lent heap may offer. */
#define SLAB_LOOKS 8

static struct hak_lock registry_lock = HAK_LOCK_INIT(HAK_RANK_HEAPS);
static struct hak_heap *all_heaps HAK_GUARDED_BY(registry_lock);
/* The same heaps by the hash of their tags: a new one is held against few, however many threads there are. */
#define TAG_BUCKETS_SHIFT 12
static struct hak_heap *heaps_by_tag[1 << TAG_BUCKETS_SHIFT] HAK_GUARDED_BY(registry_lock);
static struct hak_heap *parked_heaps, *warm_heaps, *lent_heaps HAK_GUARDED_BY(registry_lock);
static struct hak_heap *next_look HAK_GUARDED_BY(registry_lock);
static uint64_t parked_count HAK_GUARDED_BY(registry_lock);
static uint32_t warm_count HAK_GUARDED_BY(registry_lock); /* listed or not */

/* How many parked or lent heaps have slabs of a class to offer. Changed under the registry lock; read without it as a
 * hint whether it is worth taking: relaxed. */
static _Atomic uint32_t parked_with[HAK_CLASS_COUNT];

/* ---- all heaps ------------------------------------------------------------------------------------------ */

bool hak_registry_add(struct hak_heap *heap) {
    bool unique = hak_heap_tag(heap) != 0;
    hak_lock(&registry_lock);
    struct hak_heap **bucket = &heaps_by_tag[hak_heap_tag(heap) * 2654435761U >> (32 - TAG_BUCKETS_SHIFT)];
    for (const struct hak_heap *other = *bucket; other != NULL && unique; other = other->next_of_tag)
        unique = hak_heap_tag(other) != hak_heap_tag(heap);
    if (unique) {
        /* First: a child that was forked in between knows a tag too many, not too few. */
        heap->next_of_tag = *bucket;
        *bucket = heap;
        heap->next = all_heaps;
        heap->lane = all_heaps == NULL ? 0 : all_heaps->lane + 1;
        all_heaps = heap;
    }
    hak_unlock(&registry_lock);
    return unique;
}

/* ---- parking and claiming ------------------------------------------------------------------------------- */

static void count_parked_classes_locked(struct hak_heap *heap, uint32_t change) HAK_REQUIRES(registry_lock) {
    for (uint64_t left = heap->parked_classes; left != 0; left &= left - 1) {
        _Atomic uint32_t *with = &parked_with[__builtin_ctzll(left)];
        hak_store_rlx(with, hak_load_rlx(with) + change);
    }
}

static struct hak_heap **list_of_locked(const struct hak_heap *heap) HAK_REQUIRES(registry_lock) {
    return heap->lent ? &lent_heaps : heap->warm ? &warm_heaps : &parked_heaps;
}

/* Whether a heap that is lent has a slab of the class to offer, which it puts first. */
static bool offers(struct hak_heap *heap, unsigned c) {
    struct hak_slab *slab = heap->slabs[c];
    for (unsigned looks = 0; slab != NULL && looks < SLAB_LOOKS; looks++, slab = slab->next) {
        if (2 * slab->free_count < slab->blocks) continue;
        hak_heap_unlist(heap, slab);
        hak_heap_list(heap, slab);
        return true;
    }
    return false;
}

/* Notes of which classes others may adopt the first slab, before the heap is parked. A lent heap offers only what is
 * half free, and has it first: the blocks in a fuller one are of an age as a rule, and it becomes empty soon, if nobody
 * adds to them. */
static void note_offers(struct hak_heap *heap) {
    heap->parked_classes = heap->listed;
    if (!heap->lent) return;
    for (uint64_t left = heap->listed; left != 0; left &= left - 1)
        if (!offers(heap, (unsigned)__builtin_ctzll(left))) heap->parked_classes &= ~(left & -left);
}

static void parked_insert_locked(struct hak_heap *heap) HAK_REQUIRES(registry_lock) {
    struct hak_heap **list = list_of_locked(heap);
    count_parked_classes_locked(heap, 1);
    heap->parked = true;
    heap->prev_parked = NULL;
    heap->next_parked = *list;
    if (*list != NULL) (*list)->prev_parked = heap;
    *list = heap;
    parked_count += !heap->lent;
    hak_store_rel(&heap->hold, heap->lent ? HAK_HOLD_LENT : HAK_HOLD_NONE);
}

static void parked_remove_locked(struct hak_heap *heap) HAK_REQUIRES(registry_lock) {
    count_parked_classes_locked(heap, UINT32_MAX); /* minus one */
    heap->parked = false;
    hak_store_rlx(&heap->hold, heap->lent ? HAK_HOLD_CLAIMED : HAK_HOLD_OWNER);
    if (heap->prev_parked != NULL) heap->prev_parked->next_parked = heap->next_parked;
    else *list_of_locked(heap) = heap->next_parked;
    if (heap->next_parked != NULL) heap->next_parked->prev_parked = heap->prev_parked;
    parked_count -= !heap->lent;
}

/* Empties the bins, as far as it is not to be warm, and the buffer of a heap that the caller owns. */
static void empty(struct hak_heap *heap) {
    hak_tcache_rest(heap, RESTING_SLOTS, heap->warm ? hak_option(TLS_WARM_BYTES) : 0);
    hak_remote_drop_outgoing(heap);
}

/* All of it, of a heap that a fork has parked. */
static void tidy(struct hak_heap *heap) {
    if (!heap->orphaned) return;
    empty(heap);
    heap->orphaned = false;
}

/* Its owner, who waits, gets a heap as it is. */
static bool hand_over_locked(struct hak_heap *heap) HAK_REQUIRES(registry_lock) {
    if (hak_load_rlx(&heap->hold) != HAK_HOLD_AWAITED) return false;
    heap->lent = false;
    hak_store_rel(&heap->hold, HAK_HOLD_OWNER); /* pairs with the acquire of the lock in hak_heap_fetch_back */
    return true;
}

/* Collects, and so gives back what becomes empty, until nothing is left in the inbox at the moment when the heap enters
 * the list. Who pushes later finds the parked bit and then the heap in the list. */
void hak_registry_park(struct hak_heap *heap) {
    bool handed_over = false;
    tidy(heap);
    for (bool parked = false; !parked && !handed_over;) {
        hak_remote_collect(heap);
        note_offers(heap);
        hak_lock(&registry_lock);
        handed_over = hand_over_locked(heap);
        /* acq_rel: pairs with the CAS in inbox_push */
        if (!handed_over) parked = (hak_or_acqrel(&heap->inbox, HAK_INBOX_PARKED) & ~HAK_INBOX_PARKED) == 0;
        if (parked) parked_insert_locked(heap);
        hak_unlock(&registry_lock);
    }
    if (handed_over) hak_sys_futex_wake(&heap->hold, 1);
}

void hak_registry_retire(struct hak_heap *heap) {
    hak_lock(&registry_lock);
    heap->warm = warm_count < WARM_HEAPS && hak_option(TLS_WARM_BYTES) != 0;
    warm_count += heap->warm;
    heap->lingers = false;
    hak_unlock(&registry_lock);
    empty(heap);
    hak_registry_park(heap);
}

/* Its owner is back. */
static void take_back_locked(struct hak_heap *heap) HAK_REQUIRES(registry_lock) {
    if (heap->parked) parked_remove_locked(heap);
    heap->lent = false;
    hak_store_rlx(&heap->hold, HAK_HOLD_OWNER);
    hak_and_acqrel(&heap->inbox, ~HAK_INBOX_PARKED);
}

void hak_heap_visit_parked(struct hak_heap *heap) {
    hak_lock(&registry_lock);
    /* Who claims an orphan delivers what is in its bins, and so would visit the next: as deep as there are orphans.
     * It collects when it is adopted from, or taken over. */
    const bool claimed = heap->parked && !heap->orphaned, own = claimed && heap == hak_tls_heap;
    if (own) take_back_locked(heap); /* not as a claimant: a signal handler may enter it meanwhile */
    else if (claimed) parked_remove_locked(heap);
    hak_unlock(&registry_lock);
    if (own) {
        hak_remote_collect(heap);
        hak_heap_leave(heap, false);
    } else if (claimed) {
        hak_registry_park(heap);
    } /* else its new owner, or another visitor, collects */
}

/* Claims a warm heap, which is warm no more. */
static void claim_warm_locked(struct hak_heap *heap) HAK_REQUIRES(registry_lock) {
    parked_remove_locked(heap);
    heap->warm = false;
    warm_count--;
}

struct hak_heap *hak_registry_take_parked(void) {
    hak_lock(&registry_lock);
    struct hak_heap *heap = warm_heaps;
    if (heap != NULL) claim_warm_locked(heap);
    else if ((heap = parked_heaps) != NULL) parked_remove_locked(heap);
    hak_unlock(&registry_lock);
    if (heap == NULL) return NULL;
    hak_and_acqrel(&heap->inbox, ~HAK_INBOX_PARKED);
    tidy(heap);
    return heap;
}

static struct hak_heap *first_with_locked(struct hak_heap *list, unsigned size_class) HAK_REQUIRES(registry_lock) {
    for (unsigned looks = 0; list != NULL && looks < LOOKS; looks++, list = list->next_parked)
        if ((list->parked_classes >> size_class & 1) != 0) return list;
    return NULL;
}

struct hak_heap *hak_registry_claim_with(unsigned size_class) {
    if (hak_load_rlx(&parked_with[size_class]) == 0) return NULL;
    hak_lock(&registry_lock);
    struct hak_heap *heap = first_with_locked(parked_heaps, size_class);
    if (heap == NULL) heap = first_with_locked(warm_heaps, size_class);
    if (heap == NULL) heap = first_with_locked(lent_heaps, size_class);
    if (heap != NULL) parked_remove_locked(heap);
    hak_unlock(&registry_lock);
    return heap;
}

/* ---- lending ------------------------------------------------------------------------------------------- */

static bool is_claimed(const struct hak_heap *heap) {
    const uint32_t hold = hak_load_rlx(&heap->hold);
    return hold == HAK_HOLD_CLAIMED || hold == HAK_HOLD_AWAITED;
}

static bool fetch_back_locked(struct hak_heap *heap) HAK_REQUIRES(registry_lock) {
    if (is_claimed(heap)) {
        hak_store_rlx(&heap->hold, HAK_HOLD_AWAITED);
        return false;
    }
    /* It is lent; or was handed over; or a signal handler has fetched it meanwhile, and left it. */
    if (hak_load_rlx(&heap->hold) != HAK_HOLD_GONE) take_back_locked(heap);
    return true;
}

bool hak_heap_fetch_back(struct hak_heap *heap) {
    for (bool back = false; !back;) {
        hak_lock(&registry_lock);
        back = fetch_back_locked(heap);
        hak_unlock(&registry_lock);
        if (!back) hak_sys_futex_wait(&heap->hold, HAK_HOLD_AWAITED);
    }
    return hak_load_rlx(&heap->hold) != HAK_HOLD_GONE;
}

/* Claims a heap of another thread to lend it, unless that thread is in a slow path. */
static bool claim_locked(struct hak_heap *heap) HAK_REQUIRES(registry_lock) {
    uint32_t hold = hak_load_rlx(&heap->hold);
    if (heap == hak_tls_heap || heap->shared || heap->parked || hold != HAK_HOLD_NONE) return false;
    /* acquire: pairs with the release in hak_heap_leave */
    if (!hak_cas_acqrel(&heap->hold, &hold, HAK_HOLD_CLAIMED)) return false;
    heap->lent = true;
    return true;
}

static bool claim_sleeping_locked(struct hak_heap *heap) HAK_REQUIRES(registry_lock) {
    const uint32_t visits = hak_load_rlx(&heap->visits), seen = heap->visits_seen;
    heap->visits_seen = visits;
    return visits == seen && claim_locked(heap);
}

/* Lends a heap that was just claimed, without the empty slabs that its owner keeps against thrash. */
static void lend(struct hak_heap *heap) {
    hak_heap_give_all_empty(heap);
    hak_registry_park(heap);
}

/* Claims all warm heaps that nobody has claimed, or those that no thread has taken since the last look. */
static struct hak_heap *claim_warm_ones(bool all) {
    struct hak_heap *claimed = NULL;
    hak_lock(&registry_lock);
    for (struct hak_heap *heap = warm_heaps, *next; heap != NULL; heap = next) {
        next = heap->next_parked;
        if (all || heap->lingers) {
            claim_warm_locked(heap);
            heap->next_parked = claimed;
            claimed = heap;
        } else {
            heap->lingers = true;
        }
    }
    hak_unlock(&registry_lock);
    return claimed;
}

static void cool(bool all) {
    for (struct hak_heap *heap = claim_warm_ones(all), *next; heap != NULL; heap = next) {
        next = heap->next_parked;
        empty(heap);
        hak_registry_park(heap);
    }
}

void hak_heap_lend_sleeping(void) {
    cool(false);
    for (unsigned looks = 0; looks < LOOKS; looks++) {
        hak_lock(&registry_lock);
        struct hak_heap *heap = next_look != NULL ? next_look : all_heaps;
        const bool claimed = heap != NULL && claim_sleeping_locked(heap);
        next_look = heap != NULL ? heap->next : NULL;
        const bool last = next_look == NULL;
        hak_unlock(&registry_lock);
        if (claimed) lend(heap);
        if (last) return;
    }
}

void hak_heap_lend_all(void) {
    cool(true);
    hak_lock(&registry_lock);
    for (struct hak_heap *heap = all_heaps; heap != NULL; heap = heap->next) {
        if (!claim_locked(heap)) continue;
        hak_unlock(&registry_lock);
        lend(heap);
        hak_lock(&registry_lock);
    }
    hak_unlock(&registry_lock);
}

/* ---- fork and inspection ---------------------------------------------------------------------------------- */

/* The calling thread's own heap is its own again if it was lent. */
static void recover_own_locked(struct hak_heap *heap) HAK_REQUIRES(registry_lock) {
    heap->parked = heap->lent = false;
    if (hak_load_rlx(&heap->hold) != HAK_HOLD_LENT) return;
    hak_and_acqrel(&heap->inbox, ~HAK_INBOX_PARKED);
    hak_store_rlx(&heap->hold, HAK_HOLD_NONE);
}

/* The heaps of the parent's other threads are nobody's now. Those that were not being changed are parked, as their
 * bins stand. The others are left alone: their blocks stay valid, and what is freed into them stays in their inboxes.
 * But one that was lent and claimed is an orphan, too: if it was the calling thread that claimed it, it goes on, and
 * parks it. */
static void park_orphan_locked(struct hak_heap *heap) HAK_REQUIRES(registry_lock) {
    const bool was_parked = heap->parked && !heap->lent;
    const uint32_t hold = hak_load_rlx(&heap->hold);
    const bool left_alone = hold == HAK_HOLD_OWNER || hold == HAK_HOLD_GONE;
    heap->parked = heap->lent = false;
    if (left_alone ? heap->warm : !was_parked) { /* in the first case, too, the calling thread may go on to park it */
        heap->orphaned = true;
        heap->warm = false;
    }
    if (left_alone) return;
    warm_count += heap->warm;
    if (is_claimed(heap)) {
        hak_store_rlx(&heap->hold, HAK_HOLD_OWNER);
        return;
    }
    hak_or_acqrel(&heap->inbox, HAK_INBOX_PARKED);
    note_offers(heap);
    parked_insert_locked(heap);
}

static void park_orphans_locked(void) HAK_REQUIRES(registry_lock) {
    parked_heaps = warm_heaps = lent_heaps = NULL;
    parked_count = warm_count = 0;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) hak_store_rlx(&parked_with[c], 0);
    for (struct hak_heap *heap = all_heaps; heap != NULL; heap = heap->next)
        if (heap != hak_tls_heap) park_orphan_locked(heap);
}

bool hak_registry_fork_child(void) HAK_NO_TSA {
    struct hak_heap *own = hak_heap_peek();
    const bool gone = own != NULL && is_claimed(own);
    if (gone) hak_store_rlx(&own->hold, HAK_HOLD_GONE);
    hak_lock_reset_in_child(&registry_lock);
    if (hak_lock_try(&registry_lock)) { /* else this thread was interrupted while it held it */
        if (own != NULL && !gone) recover_own_locked(own);
        park_orphans_locked();
        hak_unlock(&registry_lock);
    }
    return !gone;
}

uint64_t hak_heap_each(void (*visit)(const struct hak_heap *heap, void *data), void *data) {
    hak_lock(&registry_lock);
    for (const struct hak_heap *heap = all_heaps; heap != NULL; heap = heap->next) visit(heap, data);
    uint64_t parked = parked_count;
    hak_unlock(&registry_lock);
    return parked;
}
