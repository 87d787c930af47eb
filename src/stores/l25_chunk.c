/* Bit arithmetic of one chunk (l25_chunk.h). */
#include "stores/l25_chunk.h"

/* The bits where a run of `slices` set bits begins. */
static uint64_t run_starts(uint64_t mask, unsigned slices) {
    for (unsigned have = 1; have < slices && mask != 0;) {
        unsigned step = slices - have < have ? slices - have : have;
        mask &= mask >> step; /* from above come zeroes: no run leaves the chunk */
        have += step;
    }
    return mask;
}

unsigned hak_l25_longest(uint64_t mask) {
    uint64_t runs[5] = {mask}, starts = HAK_L25_ALL; /* where runs of 1, 2, 4, 8, 16 begin, and of `length` */
    unsigned length = 0;
    for (unsigned i = 1; i < 5; i++) runs[i] = runs[i - 1] & runs[i - 1] >> (1U << (i - 1));
    for (unsigned i = 5; i-- != 0;) {
        if ((starts & runs[i] >> length) == 0) continue;
        starts &= runs[i] >> length;
        length += 1U << i;
    }
    return length;
}

void hak_l25_chunk_init(struct hak_l25_chunk *chunk, bool zero, uint64_t generation) {
    chunk->free = HAK_L25_ALL;
    chunk->dirty = zero ? 0 : HAK_L25_ALL;
    chunk->claimed = chunk->ended = 0;
    chunk->generation = generation;
    chunk->live_slices = chunk->dirty_slices = 0;
    for (unsigned i = 0; i < HAK_CHUNK_SLICES; i++) hak_store_rlx(&chunk->run[i], 0);
}

unsigned hak_l25_chunk_take(struct hak_l25_chunk *chunk, const struct hak_l25_want *want, bool *zero) {
    uint64_t starts = run_starts(chunk->free, want->slices) & want->starts;
    if (starts == 0) return HAK_L25_NO_RUN;
    const uint64_t dirty = run_starts(chunk->dirty, want->slices) & starts;
    unsigned start = (unsigned)__builtin_ctzll(dirty != 0 ? dirty : starts); /* what is dirty is resident already */
    uint64_t taken = hak_l25_mask(start, want->slices);
    *zero = (chunk->dirty & taken) == 0;
    chunk->free &= ~taken;
    chunk->dirty &= ~taken;
    chunk->ended &= ~taken;
    hak_store_rlx(&chunk->run[start], (uint8_t)want->slices);
    return start;
}

void hak_l25_chunk_give(struct hak_l25_chunk *chunk, unsigned start) {
    uint64_t given = hak_l25_mask(start, hak_load_rlx(&chunk->run[start]));
    hak_store_rlx(&chunk->run[start], 0);
    chunk->free |= given;
    chunk->dirty |= given;
    chunk->ended |= (uint64_t)1 << start;
}

bool hak_l25_chunk_resize(struct hak_l25_chunk *chunk, unsigned start, unsigned slices) {
    unsigned old = hak_load_rlx(&chunk->run[start]);
    if (slices > old) {
        if (start + slices > HAK_CHUNK_SLICES) return false;
        uint64_t gained = hak_l25_mask(start + old, slices - old);
        if ((chunk->free & gained) != gained) return false;
        chunk->free &= ~gained;
        chunk->dirty &= ~gained;
        chunk->ended &= ~gained;
    } else if (slices < old) {
        uint64_t lost = hak_l25_mask(start + slices, old - slices);
        chunk->free |= lost;
        chunk->dirty |= lost;
    }
    hak_store_rlx(&chunk->run[start], (uint8_t)slices);
    return true;
}

uint64_t hak_l25_chunk_claim(struct hak_l25_chunk *chunk) {
    uint64_t claimed = chunk->dirty;
    chunk->free &= ~claimed;
    chunk->dirty = 0;
    chunk->claimed |= claimed;
    return claimed;
}

void hak_l25_chunk_unclaim(struct hak_l25_chunk *chunk, uint64_t claimed, uint64_t still_dirty) {
    chunk->claimed &= ~claimed;
    chunk->free |= claimed;
    chunk->dirty |= still_dirty;
}

unsigned hak_l25_chunk_run(const struct hak_l25_chunk *chunk, const void *ptr, unsigned *start) {
    size_t offset = (uintptr_t)ptr - (uintptr_t)hak_load_rlx(&chunk->base);
    if (offset >= HAK_CHUNK_BYTES || (offset & (HAK_SLICE_BYTES - 1)) != 0) return 0;
    *start = (unsigned)(offset >> HAK_L25_SLICE_SHIFT);
    return hak_load_rlx(&chunk->run[*start]);
}

enum hak_free_result hak_l25_chunk_locate(const struct hak_l25_chunk *chunk, const void *ptr, unsigned *start) {
    if (hak_l25_chunk_run(chunk, ptr, start) != 0) return HAK_FREE_OK;
    size_t offset = (uintptr_t)ptr - (uintptr_t)hak_load_rlx(&chunk->base);
    if (offset >= HAK_CHUNK_BYTES) return HAK_FREE_IN_FREE; /* its chunk has gone since it was looked up */
    unsigned slice = (unsigned)(offset >> HAK_L25_SLICE_SHIFT);
    uint64_t bit = (uint64_t)1 << slice;
    if (((chunk->free | chunk->claimed) & bit) == 0) return HAK_FREE_NOT_START;
    bool began = (offset & (HAK_SLICE_BYTES - 1)) == 0 && (chunk->ended & bit) != 0;
    return began ? HAK_FREE_DOUBLE : HAK_FREE_IN_FREE;
}

bool hak_l25_chunk_check(const struct hak_l25_chunk *chunk) {
    uint64_t live = 0;
    for (unsigned i = 0; i < HAK_CHUNK_SLICES; i++) {
        unsigned length = hak_load_rlx(&chunk->run[i]);
        if (length == 0) continue;
        if (i + length > HAK_CHUNK_SLICES || (live & hak_l25_mask(i, length)) != 0) return false;
        live |= hak_l25_mask(i, length);
    }
    uint64_t idle = chunk->free | chunk->claimed;
    return (chunk->free & chunk->claimed) == 0 && (idle & live) == 0 && (idle | live) == HAK_L25_ALL &&
           (chunk->dirty & ~chunk->free) == 0 && (chunk->ended & ~idle) == 0;
}
