/* Delivery and collection of remote frees (remote.h). */
#include "front/remote.h"

#include "base/log.h"

#include <string.h>

/* ---- inboxes ------------------------------------------------------------------------------------------- */

/* Pushes a slab, whose queued flag the caller has set, to the inbox of its owner. If it has none any more (it was
 * given back since), takes the flag back, and looks again, for a new owner may have come meanwhile. */
static void inbox_push(struct hak_slab *slab) {
    struct hak_heap *owner;
    /* acquire: pairs with the release in hak_slab_adopt and hak_slab_give */
    while ((owner = hak_load_acq(&slab->owner)) == NULL) {
        hak_xchg_acqrel(&slab->queued, false);
        if (hak_load_acq(&slab->owner) == NULL || hak_xchg_acqrel(&slab->queued, true)) return;
    }
    uintptr_t head = hak_load_acq(&owner->inbox);
    do slab->inbox_next = (struct hak_slab *)(head & ~HAK_INBOX_PARKED);
    while (!hak_cas_acqrel(&owner->inbox, &head, (uintptr_t)slab | (head & HAK_INBOX_PARKED)));
    /* release in the CAS: inbox_next is visible to who takes the list in hak_remote_collect */
    if ((head & HAK_INBOX_PARKED) != 0) hak_heap_visit_parked(owner);
}

static void notify_owner(struct hak_slab *slab) {
    /* acq_rel: ordered after the OR of the bits; pairs with the exchange in hak_remote_collect */
    if (!hak_xchg_acqrel(&slab->queued, true)) inbox_push(slab);
}

void hak_remote_collect(struct hak_heap *heap) {
    if (hak_load_rlx(&heap->inbox) <= HAK_INBOX_PARKED) return;
    /* acquire: pairs with the CAS in inbox_push. The parked bit stays. */
    uintptr_t list = hak_and_acqrel(&heap->inbox, HAK_INBOX_PARKED) & ~HAK_INBOX_PARKED;
    for (struct hak_slab *slab = (struct hak_slab *)list, *next; slab != NULL; slab = next) {
        next = slab->inbox_next;
        if (hak_load_acq(&slab->owner) != heap) {
            inbox_push(slab); /* adopted or given back since; queued stays set for the new owner */
            continue;
        }
        hak_xchg_acqrel(&slab->queued, false); /* before the bits are taken; see remote.h */
        uint32_t before = slab->free_count;
        uint32_t twice = hak_slab_collect(slab);
        if (hak_unlikely(twice != HAK_NO_BLOCK))
            hak_misuse_late(slab->base + (size_t)twice * slab->block_bytes, HAK_MISUSE_DOUBLE_FREE);
        hak_count_by_owner(&heap->blocks_out[slab->size_class], (uint64_t)before - slab->free_count);
        /* A late push may bring a slab with nothing to collect, even one that its taker has not listed yet. */
        if (slab->free_count != before) hak_heap_settle(heap, slab);
    }
}

/* ---- delivery ------------------------------------------------------------------------------------------ */

/* The blocks of a batch by the granule that they lie in, in the order in which they came: a list for each. */
struct groups {
    uint32_t count;
    uint32_t granule[HAK_OUTGOING_MAX];
    uint8_t first[HAK_OUTGOING_MAX], last[HAK_OUTGOING_MAX]; /* of a group: blocks of the batch */
    uint8_t next[HAK_OUTGOING_MAX];                          /* of a block: the next of its group */
    uint8_t table[2 * HAK_OUTGOING_MAX];                     /* by hash: a group, plus 1; 0: none */
};
#define HASH_SHIFT 25 /* leaves as many bits as the table has */
static_assert(sizeof((struct groups *)NULL)->table == (size_t)1 << (32 - HASH_SHIFT), "the hash names its entries");
static_assert(HAK_ADDRESS_BITS - HAK_GRANULE_SHIFT <= 32, "a granule has a number of 32 bits");

/* The group of a granule, perhaps a fresh one without blocks. */
HAK_INLINE uint32_t group_of(struct groups *groups, uint32_t granule, bool *fresh) {
    uint32_t at = granule * 2654435761U >> HASH_SHIFT;
    for (;; at = (at + 1) % (2 * HAK_OUTGOING_MAX)) {
        *fresh = groups->table[at] == 0;
        if (*fresh) break;
        if (groups->granule[groups->table[at] - 1] == granule) return groups->table[at] - 1U;
    }
    groups->granule[groups->count] = granule;
    groups->table[at] = (uint8_t)++groups->count;
    return groups->count - 1;
}

static void divide(struct groups *groups, void *const *ptrs, uint32_t count) {
    groups->count = 0;
    memset(groups->table, 0, sizeof groups->table);
    for (uint32_t i = 0; i < count; i++) {
        bool fresh;
        uint32_t g = group_of(groups, (uint32_t)((uintptr_t)ptrs[i] >> HAK_GRANULE_SHIFT), &fresh);
        if (fresh) groups->first[g] = (uint8_t)i;
        else groups->next[groups->last[g]] = (uint8_t)i;
        groups->last[g] = (uint8_t)i;
    }
}

/* The slab of a block that is on its way; ends the process if it cannot be one. */
static struct hak_slab *slab_of(const void *ptr) {
    struct hak_region region = hak_region_lookup(ptr);
    if (hak_unlikely(region.owner == 0)) hak_misuse_late(ptr, HAK_MISUSE_FREE_MEMORY);
    return region.descriptor;
}

static uint32_t index_in(const struct hak_slab *slab, const void *ptr) {
    uint32_t index = hak_slab_index(slab, ptr);
    if (hak_unlikely(index == HAK_NO_BLOCK)) hak_misuse_late(ptr, HAK_MISUSE_INTERIOR);
    return index;
}

static void put_word(struct hak_slab *slab, uint32_t word, uint64_t bits) {
    uint64_t twice = hak_slab_put_remote(slab, word, bits);
    if (hak_likely(twice == 0)) return;
    uint32_t index = word * 64 + (uint32_t)__builtin_ctzll(twice);
    hak_misuse_late(slab->base + (size_t)index * slab->block_bytes, HAK_MISUSE_DOUBLE_FREE);
}

/* Delivers one group: its blocks mostly come in the order of addresses, so that few words take many of them. */
static void deliver_group(void *const *ptrs, const struct groups *groups, uint32_t g) {
    uint32_t i = groups->first[g];
    struct hak_slab *slab = slab_of(ptrs[i]);
    uint32_t index = index_in(slab, ptrs[i]), word = index / 64;
    uint64_t bits = (uint64_t)1 << (index % 64);
    while (i != groups->last[g]) {
        i = groups->next[i];
        index = index_in(slab, ptrs[i]);
        if (index / 64 != word) {
            put_word(slab, word, bits);
            word = index / 64;
            bits = 0;
        }
        uint64_t bit = (uint64_t)1 << (index % 64);
        if (hak_unlikely((bits & bit) != 0)) hak_misuse_late(ptrs[i], HAK_MISUSE_DOUBLE_FREE);
        bits |= bit;
    }
    put_word(slab, word, bits);
    notify_owner(slab);
}

void hak_remote_deliver(struct hak_heap *heap) {
    uint32_t count = hak_load_rlx(&heap->outgoing_count);
    if (count == 0) return;
    bool was_busy = hak_heap_enter(heap);
    struct groups groups;
    divide(&groups, heap->outgoing, count);
    for (uint32_t g = 0; g < groups.count; g++) deliver_group(heap->outgoing, &groups, g);
    hak_store_rlx(&heap->outgoing_count, 0);
    heap->outgoing_bytes = 0;
    hak_count_by_owner(&heap->remote_frees, count);
    hak_heap_leave(heap, was_busy);
}

void hak_remote_free(struct hak_heap *heap, void *ptr, size_t bytes) {
    if (hak_remote_free_try(heap, ptr, bytes)) return;
    uint32_t count = hak_load_rlx(&heap->outgoing_count);
    heap->outgoing[count] = ptr;
    hak_store_rel(&heap->outgoing_count, count + 1); /* as in hak_remote_free_try */
    hak_remote_deliver(heap);
    hak_slab_relieve(); /* a delivery to a parked heap may have emptied slabs */
}

void hak_remote_free_now(void *ptr) {
    struct hak_slab *slab = slab_of(ptr);
    uint32_t index = index_in(slab, ptr);
    put_word(slab, index / 64, (uint64_t)1 << (index % 64));
    notify_owner(slab);
}
