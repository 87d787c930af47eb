/* Delivery and collection of remote frees (remote.h). */
#include "front/remote.h"

#include "base/log.h"
#include "pages/meta.h"

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

static _Noreturn HAK_COLD void misuse(const char *function, const void *ptr, enum hak_misuse kind) {
    if (function == NULL) hak_misuse_late(ptr, kind);
    hak_misuse_at_once(function, ptr, kind);
}

static uint32_t index_in(const struct hak_slab *slab, const void *ptr, const char *function) {
    uint32_t index = hak_slab_index(slab, ptr);
    if (hak_unlikely(index == HAK_NO_BLOCK)) misuse(function, ptr, HAK_MISUSE_INTERIOR);
    return index;
}

static void put_word(struct hak_slab *slab, uint32_t word, uint64_t bits) {
    uint64_t twice = hak_slab_put_remote(slab, word, bits);
    if (hak_likely(twice == 0)) return;
    uint32_t index = word * 64 + (uint32_t)__builtin_ctzll(twice);
    hak_misuse_late(slab->base + (size_t)index * slab->block_bytes, HAK_MISUSE_DOUBLE_FREE);
}

/* A slab with blocks on their way is in use, unless its owner was given one of them, too: by now it may be gone, and
 * its record serve elsewhere. */
static void expect_in_use(const struct hak_outgoing *out, uint64_t bits) {
    const char *ptr = out->first + (size_t)__builtin_ctzll(bits) * out->block_bytes;
    if (hak_unlikely(hak_region_lookup(ptr).descriptor != out->slab)) hak_misuse_late(ptr, HAK_MISUSE_FREE_MEMORY);
}

/* Delivers the blocks of a slot; false if there are none, which only a forked child can find (see begin).
 * A child that another thread forks just here finds them either in the buffer or delivered, or it has lost them; never
 * both. The same holds for every step below, so that none needs to enter the heap. */
static bool put_bits(struct hak_heap *heap, struct hak_outgoing *out) {
    const uint64_t bits = hak_load_rlx(&out->bits);
    if (hak_unlikely(bits == 0)) return false;
    expect_in_use(out, bits);
    hak_store_rlx(&out->bits, 0); /* before what the acq_rel in put_word does, and all changes of the slot after it */
    put_word(out->slab, out->word, bits);
    const int64_t blocks = __builtin_popcountll(bits);
    heap->outgoing_room += blocks * out->share;
    hak_count_by_owner(&heap->remote_frees, (uint64_t)blocks);
    return true;
}

static void send(struct hak_heap *heap, struct hak_outgoing *out) {
    if (put_bits(heap, out)) notify_owner(out->slab);
    out->span = 0;
}

/* Makes a slot, which has no blocks now, one for a word of a slab. Until it has one, a forked child asks nothing of it.
 */
static void begin(struct hak_outgoing *out, struct hak_slab *slab, uint32_t word) {
    const uint64_t least = hak_option(REMOTE_BYTES) / HAK_OUTGOING_BLOCKS, bytes = slab->block_bytes;
    const uint32_t blocks = slab->blocks - word * 64U;
    out->slab = slab;
    out->word = word;
    out->first = slab->base + word * 64 * bytes;
    out->block_bytes = slab->block_bytes;
    out->reciprocal = slab->reciprocal;
    out->share = (int64_t)(bytes > least ? bytes : least);
    out->span = (blocks < 64 ? blocks : 64) * bytes;
}

void hak_remote_deliver(struct hak_heap *heap) {
    for (uint32_t left = heap->outgoing_slots; left != 0; left &= left - 1)
        send(heap, &heap->outgoing[__builtin_ctz(left)]);
    heap->outgoing_slots = 0;
    heap->outgoing_room = (int64_t)hak_option(REMOTE_BYTES) - 1; /* which may have been set anew */
}

void hak_remote_free_now(struct hak_slab *slab, void *ptr, const char *function) {
    uint32_t index = index_in(slab, ptr, function);
    put_word(slab, index / 64, (uint64_t)1 << (index % 64));
    notify_owner(slab);
}

#define OUTGOING_BYTES (HAK_OUTGOING_SLOTS * sizeof(struct hak_outgoing))

static bool has_slots(struct hak_heap *heap) {
    if (heap->outgoing != hak_no_outgoing) return true;
    struct hak_outgoing *slots = hak_meta_alloc(OUTGOING_BYTES);
    if (slots != NULL) heap->outgoing = slots;
    return slots != NULL;
}

void hak_remote_drop_outgoing(struct hak_heap *heap) {
    hak_assert(heap->outgoing_slots == 0);
    if (heap->outgoing != hak_no_outgoing) hak_meta_free(heap->outgoing, OUTGOING_BYTES);
    heap->outgoing = hak_no_outgoing;
}

/* A delivery to a parked or lent heap may empty slabs: that is when there is something to relieve. */
void hak_remote_free(struct hak_heap *heap, struct hak_slab *slab, void *ptr, const char *function) {
    if (!has_slots(heap)) {
        hak_remote_free_now(slab, ptr, function);
        return;
    }
    struct hak_outgoing *out = hak_outgoing_of(heap, ptr);
    const uint32_t index = index_in(slab, ptr, function);
    const uint64_t bit = (uint64_t)1 << (index % 64);
    if (out->span != 0 && out->slab != slab) {
        send(heap, out);
        hak_slab_relieve();
    }
    if (out->span == 0 || out->word != index / 64) {
        if (out->span != 0) put_bits(heap, out); /* its owner is told with what follows */
        begin(out, slab, index / 64);
        heap->outgoing_slots |= 1U << (out - heap->outgoing);
    }
    const uint64_t bits = hak_load_rlx(&out->bits);
    if (hak_unlikely((bits & bit) != 0)) misuse(function, ptr, HAK_MISUSE_DOUBLE_FREE);
    heap->outgoing_room -= out->share;
    hak_store_rel(&out->bits, bits | bit); /* release: the slot is complete */
    if (heap->outgoing_room >= 0) return;
    hak_remote_deliver(heap);
    hak_slab_relieve();
}
