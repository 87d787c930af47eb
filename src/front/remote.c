/* Delivery and collection of remote frees (remote.h). */
#include "front/remote.h"

#include "base/log.h"
#include "base/options.h"

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

/* Shell sort: the buffer is short and often nearly in order. */
static void sort(void **ptrs, uint32_t count) {
    static const uint32_t gaps[] = {23, 10, 4, 1};
    for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++)
        for (uint32_t i = gaps[g]; i < count; i++) {
            void *ptr = ptrs[i];
            uint32_t j = i;
            for (; j >= gaps[g] && ptrs[j - gaps[g]] > ptr; j -= gaps[g]) ptrs[j] = ptrs[j - gaps[g]];
            ptrs[j] = ptr;
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

/* Delivers the blocks from ptrs[0] on that lie in one slab; returns how many. */
static uint32_t deliver_slab(void **ptrs, uint32_t count) {
    struct hak_slab *slab = slab_of(ptrs[0]);
    const char *end = slab->base + (size_t)slab->slabs * HAK_SLAB_BYTES;
    uint32_t index = index_in(slab, ptrs[0]), word = index / 64, i = 1;
    uint64_t bits = (uint64_t)1 << (index % 64);
    for (; i < count && (const char *)ptrs[i] < end; i++) {
        if (hak_unlikely(ptrs[i] == ptrs[i - 1])) hak_misuse_late(ptrs[i], HAK_MISUSE_DOUBLE_FREE);
        index = index_in(slab, ptrs[i]);
        if (index / 64 != word) {
            put_word(slab, word, bits);
            word = index / 64;
            bits = 0;
        }
        bits |= (uint64_t)1 << (index % 64);
    }
    put_word(slab, word, bits);
    notify_owner(slab);
    return i;
}

void hak_remote_deliver(struct hak_heap *heap) {
    uint32_t count = hak_load_rlx(&heap->outgoing_count);
    if (count == 0) return;
    bool was_busy = hak_heap_enter(heap);
    sort(heap->outgoing, count);
    for (uint32_t done = 0; done < count;) done += deliver_slab(heap->outgoing + done, count - done);
    hak_store_rlx(&heap->outgoing_count, 0);
    heap->outgoing_bytes = 0;
    hak_count_by_owner(&heap->remote_frees, count);
    hak_heap_leave(heap, was_busy);
}

void hak_remote_free(struct hak_heap *heap, void *ptr, size_t bytes) {
    uint32_t count = hak_load_rlx(&heap->outgoing_count);
    heap->outgoing[count] = ptr;
    /* release: a child forked by another thread just here finds the block, or a buffer without it; never a stale one */
    hak_store_rel(&heap->outgoing_count, count + 1);
    heap->outgoing_bytes += bytes;
    if (count + 1 < HAK_OUTGOING_MAX && heap->outgoing_bytes <= hak_option(REMOTE_BYTES)) return;
    hak_remote_deliver(heap);
    hak_slab_relieve(); /* a delivery to a parked heap may have emptied slabs */
}

void hak_remote_free_now(void *ptr) { deliver_slab(&ptr, 1); }
