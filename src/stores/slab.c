/* Slab records and their bitmaps (slab.h). Memory for the blocks comes from superslab.c. The owner's bitmap needs
 * no lock, the remote one is atomic; the record lists have one. */
#include "stores/slab.h"

#include "base/size_class.h"
#include "pages/budget.h"
#include "pages/meta.h"
#include "stores/superslab.h"

#include <string.h>

/* Records at rest, by class. Shares the rank of the pool lock; the two are never held together. */
static struct hak_lock records_lock = HAK_LOCK_INIT(HAK_RANK_SLABS);
static struct hak_slab *records[HAK_CLASS_COUNT] HAK_GUARDED_BY(records_lock);

/* What the narrow fields of a record hold. */
static_assert(HAK_CLASS_COUNT <= UINT8_MAX && HAK_SUPERSLAB_SLABS <= UINT8_MAX, "size_class, slabs and first_slab");
static_assert(HAK_SLAB_BYTES / HAK_MIN_ALIGN <= UINT16_MAX, "blocks, and words of them: no class has more blocks");

/* ---- records ------------------------------------------------------------------------------------------- */

static struct hak_slab *new_record(unsigned size_class) {
    uint32_t block_bytes = hak_class_bytes(size_class);
    unsigned slabs = hak_class_slabs(size_class);
    uint32_t blocks = (uint32_t)(slabs * HAK_SLAB_BYTES / block_bytes), words = (blocks + 63) / 64;
    size_t free_bits = hak_round_up(offsetof(struct hak_slab, bits) + words * sizeof(uint64_t), HAK_CACHE_LINE);
    size_t head = free_bits + words * sizeof(uint64_t);
    struct hak_slab *slab = hak_meta_alloc(head + (HAK_EXACT ? blocks * sizeof(uint32_t) : 0));
    if (slab == NULL) return NULL;
    slab->block_bytes = block_bytes;
    slab->reciprocal = ((uint64_t)1 << 32) / (block_bytes >> HAK_MIN_ALIGN_SHIFT) + 1;
    slab->blocks = (uint16_t)blocks;
    slab->words = (uint16_t)words;
    slab->free_bits = (uint16_t)((free_bits - offsetof(struct hak_slab, bits)) / sizeof(uint64_t));
    slab->size_class = (uint8_t)size_class;
    slab->slabs = (uint8_t)slabs;
    if (HAK_EXACT) slab->request = (_Atomic uint32_t *)(void *)((char *)slab + head);
    return slab;
}

static struct hak_slab *take_record(unsigned size_class) {
    hak_lock(&records_lock);
    struct hak_slab *slab = records[size_class];
    if (slab != NULL) records[size_class] = slab->next;
    hak_unlock(&records_lock);
    return slab != NULL ? slab : new_record(size_class);
}

static void give_record(struct hak_slab *slab) {
    hak_lock(&records_lock);
    slab->next = records[slab->size_class];
    records[slab->size_class] = slab;
    hak_unlock(&records_lock);
}

static void fill_bitmaps(struct hak_slab *slab) {
    uint64_t *free_bits = hak_slab_free_bits(slab);
    unsigned tail = slab->blocks % 64;
    for (uint32_t w = 0; w < slab->words; w++) free_bits[w] = UINT64_MAX;
    if (tail != 0) free_bits[slab->words - 1] = UINT64_MAX >> (64 - tail);
    slab->free_count = slab->blocks;
    slab->first_word = 0;
}

/* ---- take and give ------------------------------------------------------------------------------------- */

static size_t slab_bytes(const struct hak_slab *slab) { return slab->slabs * HAK_SLAB_BYTES; }

/* Builds without HAK_REGION_LOOKUP: enters a slab, or NULL in its place, in the index of its superslab. */
static void index_slab(const struct hak_slab *slab, struct hak_slab *entry) {
    struct hak_slab_index *index = (struct hak_slab_index *)(void *)slab->superslab;
    /* release: the record is complete; pairs with the acquire in hak_slab_find */
    for (unsigned i = 0; i < slab->slabs; i++) hak_store_rel(&index->slab[slab->first_slab + i], entry);
}

void hak_slab_adopt(struct hak_slab *slab, void *owner, uint32_t owner_tag) {
    /* release: a thread that delivers to the new owner's inbox sees the record as it is now (inbox_push) */
    hak_store_rel(&slab->owner, owner);
    hak_region_set(slab->base, slab_bytes(slab), owner_tag, 2U * slab->size_class, slab);
}

struct hak_slab *hak_slab_take(unsigned size_class, void *owner, uint32_t owner_tag, bool huge) {
    struct hak_slab *slab = take_record(size_class);
    if (slab == NULL) return NULL;
    struct hak_slab_run run = hak_superslab_take(slab->slabs, huge);
    if (run.ptr == NULL) {
        give_record(slab);
        return NULL;
    }
    if (run.fresh != 0) hak_budget_count(HAK_STORE_SLABS, (ptrdiff_t)run.fresh);
    if (run.retaken) hak_budget_retaken(HAK_STORE_SLABS, run.fresh);
    slab->base = run.ptr;
    slab->superslab = run.superslab;
    slab->first_slab = (uint8_t)run.first;
    slab->listed = false;
    slab->next = slab->prev = NULL;
    fill_bitmaps(slab);
    hak_slab_adopt(slab, owner, owner_tag);
    if (!HAK_REGION_LOOKUP) index_slab(slab, slab);
    return slab;
}

void hak_slab_give(struct hak_slab *slab) {
    hak_assert(hak_slab_is_empty(slab) && !slab->listed);
    hak_region_set(slab->base, slab_bytes(slab), 0, HAK_KIND_FREE_SLAB, NULL);
    if (!HAK_REGION_LOOKUP) index_slab(slab, NULL);
    /* Here and not when it is taken: a fresh record is zero, and its pages need not be touched. */
    if (HAK_EXACT) memset((void *)slab->request, 0, slab->blocks * sizeof *slab->request);
    hak_store_rel(&slab->owner, NULL); /* pairs with the acquire of a late delivery (inbox_push) */
    hak_superslab_give(slab->superslab, slab->first_slab, slab->slabs);
    give_record(slab);
}

void hak_slab_relieve(void) { hak_superslab_relieve(); }
size_t hak_slab_reclaim(size_t most_bytes) { return hak_superslab_reclaim(most_bytes); }
void hak_slab_decay(uint64_t now_ms) { hak_superslab_decay(now_ms); }
size_t hak_slab_purge_all(void) { return hak_superslab_purge_all(); }

/* ---- blocks -------------------------------------------------------------------------------------------- */

/* The number of set bits from the lowest one on, without a gap. */
static uint32_t run_of(uint64_t bits) {
    const uint64_t rest = ~(bits >> __builtin_ctzll(bits));
    return rest == 0 ? 64 : (uint32_t)__builtin_ctzll(rest);
}

/* Run by run: what was freed together, and a slab that is fresh, is taken in few steps. */
uint32_t hak_slab_take_blocks(struct hak_slab *slab, void **out, uint32_t count) {
    uint64_t *free_bits = hak_slab_free_bits(slab);
    if (count > slab->free_count) count = slab->free_count;
    uint32_t w = slab->first_word;
    void **at = out + count;
    while (at != out) {
        while (free_bits[w] == 0) w++;
        const uint32_t first = (uint32_t)__builtin_ctzll(free_bits[w]), left = (uint32_t)(at - out);
        uint32_t run = run_of(free_bits[w]);
        if (run > left) run = left;
        free_bits[w] &= ~(UINT64_MAX >> (64 - run) << first);
        char *ptr = slab->base + (size_t)(w * 64 + first) * slab->block_bytes;
        for (void **end = at - run; at != end; ptr += slab->block_bytes) *--at = ptr;
    }
    slab->first_word = (uint16_t)w;
    slab->free_count -= count;
    return count;
}

uint32_t hak_slab_put_blocks(struct hak_slab *slab, void *const *ptrs, uint32_t count, enum hak_free_result *result) {
    uint64_t *free_bits = hak_slab_free_bits(slab);
    const size_t span = (size_t)slab->blocks * slab->block_bytes;
    uint32_t first_word = slab->first_word;
    void *const *at = ptrs, *const *const end = ptrs + count;
    *result = HAK_FREE_OK;
    for (; at != end; at++) {
        const size_t offset = (size_t)((char *)*at - slab->base);
        if (hak_unlikely(offset >= span)) { /* behind the last block, or in another slab */
            if (offset < slab_bytes(slab)) *result = HAK_FREE_NOT_START;
            break;
        }
        const uint32_t index = hak_slab_number(slab, (uint32_t)offset), w = index / 64;
        const uint64_t bit = (uint64_t)1 << (index % 64);
        if (hak_unlikely(index * slab->block_bytes != offset)) {
            *result = HAK_FREE_NOT_START;
            break;
        }
        if (hak_unlikely((free_bits[w] & bit) != 0)) {
            *result = HAK_FREE_DOUBLE;
            break;
        }
        free_bits[w] |= bit;
        if (w < first_word) first_word = w;
    }
    const uint32_t put = (uint32_t)(at - ptrs);
    slab->free_count += put;
    slab->first_word = (uint16_t)first_word;
    return put;
}

enum hak_free_result hak_slab_put_block(struct hak_slab *slab, void *ptr) {
    enum hak_free_result result;
    hak_slab_put_blocks(slab, &ptr, 1, &result);
    return result;
}

uint32_t hak_slab_collect(struct hak_slab *slab) {
    uint64_t *free_bits = hak_slab_free_bits(slab);
    _Atomic uint64_t *remote = hak_slab_remote_bits(slab);
    for (uint32_t w = slab->words; w-- > 0;) {
        if (hak_load_rlx(&remote[w]) == 0) continue;
        /* acquire: pairs with the release in hak_slab_put_remote; the freeing threads' use of the blocks is over */
        uint64_t freed = hak_xchg_acqrel(&remote[w], 0), twice = freed & free_bits[w];
        if (hak_unlikely(twice != 0)) return w * 64 + (uint32_t)__builtin_ctzll(twice);
        free_bits[w] |= freed;
        slab->free_count += (uint32_t)__builtin_popcountll(freed);
        if (w < slab->first_word) slab->first_word = (uint16_t)w;
    }
    return HAK_NO_BLOCK;
}

uint64_t hak_slab_put_remote(struct hak_slab *slab, uint32_t word, uint64_t bits) {
    /* release: the caller's use of the blocks happens before the owner hands them out again (hak_slab_collect) */
    return hak_or_acqrel(&hak_slab_remote_bits(slab)[word], bits) & bits;
}

/* ---- inspection ---------------------------------------------------------------------------------------- */

struct hak_slab_stats hak_slab_stats(void) {
    struct hak_superslab_stats pool = hak_superslab_stats();
    return (struct hak_slab_stats){.superslabs = pool.superslabs,
                                   .slabs_used = pool.slabs_used,
                                   .mapped_bytes = pool.superslabs * HAK_SUPERSLAB_BYTES,
                                   .dirty_bytes = pool.dirty_bytes,
                                   .purged_bytes = pool.purged_bytes};
}

void hak_slab_fork_child(void) HAK_NO_TSA {
    hak_superslab_fork_child();
    if (!hak_lock_reset_in_child(&records_lock)) return;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) records[c] = NULL;
}

bool hak_slab_check(struct hak_slab *slab) {
    uint32_t count = 0;
    for (uint32_t w = 0; w < slab->words; w++) {
        uint64_t bits = hak_slab_free_bits(slab)[w];
        if (w < slab->first_word && bits != 0) return false;
        count += (uint32_t)__builtin_popcountll(bits);
    }
    return count == slab->free_count && count <= slab->blocks;
}
