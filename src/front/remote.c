/* Delivery and collection of remote frees (remote.h). */
#include "front/remote.h"

#include "base/log.h"

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

/* Blocks of one granule and one word of its slab's bitmap that are not delivered yet. */
struct pending {
    struct hak_slab *slab;
    uint32_t granule, word; /* granule 0: none */
    uint64_t bits;
};
#define PENDING_SHIFT 5
#define HASH_FACTOR 2654435761U /* 2^32 over the golden ratio */
static_assert(HAK_ADDRESS_BITS - HAK_GRANULE_SHIFT <= 32, "a granule has a number of 32 bits");

static void send(struct pending *pending) {
    put_word(pending->slab, pending->word, pending->bits);
    notify_owner(pending->slab);
}

/* Blocks of one slab mostly come in the order of addresses, so that few words take many of them. Where two slabs fall
 * together, the one that came first is told of its blocks at once. */
static void deliver(void *const *ptrs, uint32_t count) {
    struct pending table[1 << PENDING_SHIFT];
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) table[i].granule = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t granule = (uint32_t)((uintptr_t)ptrs[i] >> HAK_GRANULE_SHIFT);
        struct pending *pending = &table[granule * HASH_FACTOR >> (32 - PENDING_SHIFT)];
        if (pending->granule != granule) {
            if (pending->granule != 0) send(pending);
            *pending = (struct pending){.slab = slab_of(ptrs[i]), .granule = granule};
        }
        const uint32_t index = index_in(pending->slab, ptrs[i]);
        const uint64_t bit = (uint64_t)1 << (index % 64);
        if (index / 64 != pending->word) {
            if (pending->bits != 0) put_word(pending->slab, pending->word, pending->bits);
            pending->word = index / 64;
            pending->bits = 0;
        }
        if (hak_unlikely((pending->bits & bit) != 0)) hak_misuse_late(ptrs[i], HAK_MISUSE_DOUBLE_FREE);
        pending->bits |= bit;
    }
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].granule != 0) send(&table[i]);
}

void hak_remote_deliver(struct hak_heap *heap) {
    uint32_t count = hak_load_rlx(&heap->outgoing_count);
    if (count == 0) return;
    bool was_busy = hak_heap_enter(heap);
    deliver(heap->outgoing, count);
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
