/* Slots, flush and adaptive size of the bins (bins.h). Bins belong to the calling thread, or to who has claimed their
 * heap. */
#include "front/bins.h"

#include "base/log.h"
#include "base/options.h"
#include "base/sys.h"
#include "front/remote.h"
#include "pages/meta.h"

#include <string.h>

/* A bin grows at once by so many refills; by fewer if that is what GROW_VISITS slow-path visits brought, for the others
 * were flushes then: a bin that is refilled and flushed in turn is smaller than what goes to and fro, and each swing
 * costs two flushes per refill. A window after which it may shrink is longer, or it would shrink on each way back.
 * But it grows only while HAKMEM_TLS_GROW_RATE blocks a millisecond go through it: what is slower costs less than the
 * memory in a larger bin. (Mallocs and frees that come at random fill a bin of any size some day.) */
#define REFILLS_AT_ONCE 4
#define GROW_VISITS 8
#define REFILLS_LATER 2
#define SHRINK_VISITS (4 * GROW_VISITS)
/* Of what all threads may hold, a thread has so much in any case. */
#define LEAST_SHARE (256 * HAK_KIB)

/* ---- slots ---------------------------------------------------------------------------------------------- */

static size_t bin_bytes(const struct hak_heap *heap, unsigned c) {
    return (size_t)heap->state[c].capacity * hak_class_bytes(c);
}

static uint32_t most_slots(unsigned c) {
    uint64_t by_bytes = hak_option(TLS_CLASS_BYTES) / hak_class_bytes(c), most = hak_option(TLS_SLOTS_MAX);
    return (uint32_t)(by_bytes < most ? by_bytes : most);
}

static uint32_t least_slots(unsigned c) {
    uint64_t least = hak_option(TLS_SLOTS_MIN);
    return least < most_slots(c) ? (uint32_t)least : most_slots(c);
}

/* Bytes that all bins of a thread may hold. Many threads cannot all run at once, and then need less each. */
static uint64_t thread_bytes(void) {
    const uint64_t most = hak_option(TLS_BYTES), all = hak_option(TLS_ALL_BYTES), threads = hak_heap_threads();
    if (most <= LEAST_SHARE || most * threads <= all) return most;
    return all / threads > LEAST_SHARE ? all / threads : LEAST_SHARE;
}

static size_t slots_bytes(uint32_t capacity) { return (capacity + 1) * sizeof(void *); } /* one for the bottom */

/* Gives a bin `capacity` slots, no fewer than it holds blocks. False if there is no memory: it stays as it is. */
static bool resize_bin(struct hak_heap *heap, unsigned c, uint32_t capacity) {
    struct hak_bin_state *state = &heap->state[c];
    uint32_t filled = hak_bin_fill(heap, c);
    void **slots = hak_meta_alloc(slots_bytes(capacity));
    if (slots == NULL) return false;
    void **base = slots + 1;
    base[-1] = HAK_BIN_BOTTOM;
    if (state->base != NULL) {
        memcpy(base, state->base, filled * sizeof *base);
        hak_meta_free(state->base - 1, slots_bytes(state->capacity));
    }
    heap->capacity_bytes += ((size_t)capacity - state->capacity) * hak_class_bytes(c);
    state->base = base;
    state->capacity = (uint16_t)capacity;
    heap->bins |= (uint64_t)1 << c;
    heap->bin[c] = (struct hak_bin){.top = base + filled, .limit = base + capacity};
    return true;
}

void hak_bin_drop(struct hak_heap *heap, unsigned c) {
    struct hak_bin_state *state = &heap->state[c];
    hak_meta_free(state->base - 1, slots_bytes(state->capacity));
    heap->capacity_bytes -= bin_bytes(heap, c);
    *state = (struct hak_bin_state){.base = NULL};
    heap->bins &= ~((uint64_t)1 << c);
    heap->bin[c] = (struct hak_bin)HAK_NULL_BIN;
}

static void log_resize(unsigned c, uint32_t before, uint32_t after, uint32_t high_water) {
    if (!hak_option(LOG)) return;
    struct hak_text text = {.used = 0};
    hak_text_str(&text, "[TLS_CACHE] class ");
    hak_text_u64(&text, hak_class_bytes(c));
    hak_text_str(&text, ": ");
    hak_text_u64(&text, before);
    hak_text_str(&text, " → ");
    hak_text_u64(&text, after);
    hak_text_str(&text, " slots (hwm=");
    hak_text_u64(&text, high_water);
    hak_text_str(&text, ")");
    hak_text_line(&text, 2);
}

/* ---- flush ----------------------------------------------------------------------------------------------- */

static void note_fill(struct hak_heap *heap, unsigned c, uint32_t fill) {
    heap->state[c].filled = (uint16_t)fill;
    hak_store_rlx(&heap->cached[c], fill);
}
void hak_bin_note_fill(struct hak_heap *heap, unsigned c) { note_fill(heap, c, hak_bin_fill(heap, c)); }

/* The blocks of `ptrs`, up to `count`, that lie in one slab of this heap's go back into it. Returns how many. */
static uint32_t put_own(struct hak_heap *heap, struct hak_slab *slab, void *const *ptrs, uint32_t count) {
    enum hak_free_result result;
    uint32_t put = hak_slab_put_blocks(slab, ptrs, count, &result);
    if (hak_unlikely(result == HAK_FREE_DOUBLE)) hak_misuse_late(ptrs[put], HAK_MISUSE_DOUBLE_FREE);
    if (hak_unlikely(result == HAK_FREE_NOT_START)) hak_misuse_late(ptrs[put], HAK_MISUSE_INTERIOR);
    if (!slab->listed || hak_slab_is_empty(slab)) hak_heap_settle(heap, slab);
    return put;
}

void hak_bin_flush(struct hak_heap *heap, unsigned c, uint32_t count) {
    void **base = heap->state[c].base;
    uint32_t own = 0, others = 0;
    while (own + others < count) {
        void **ptrs = base + own + others;
        struct hak_region region = hak_region_lookup(*ptrs);
        if (hak_unlikely(region.owner == 0)) hak_misuse_late(*ptrs, HAK_MISUSE_FREE_MEMORY);
        if (region.owner == hak_heap_tag(heap)) {
            own += put_own(heap, region.descriptor, ptrs, count - own - others);
        } else {
            hak_remote_free(heap, region.descriptor, *ptrs, NULL);
            others++;
        }
    }
    uint32_t left = hak_bin_fill(heap, c) - count;
    memmove(base, base + count, left * sizeof *base);
    heap->bin[c].top = base + left;
    hak_count_by_owner(&heap->blocks_out[c], -(uint64_t)own);
    heap->state[c].moved += count;
}

/* ---- adaptive size -------------------------------------------------------------------------------------- */

/* A bin that is closed goes as a whole. */
static bool halve(struct hak_heap *heap, unsigned c) {
    struct hak_bin_state *state = &heap->state[c];
    if (!hak_bin_is_open(heap, c)) {
        hak_bin_drop(heap, c);
        return true;
    }
    uint32_t before = state->capacity, after = before / 2;
    if (hak_bin_fill(heap, c) > after) hak_bin_flush(heap, c, hak_bin_fill(heap, c) - after);
    if (!resize_bin(heap, c, after)) return false;
    hak_count_by_owner(&heap->shrinks, 1);
    log_resize(c, before, after, state->high_water);
    return true;
}

static void shrink(struct hak_heap *heap, unsigned c) {
    if (heap->state[c].capacity / 2 >= least_slots(c)) halve(heap, c);
}

/* Halves the bin that can hold the most bytes, of those that can be halved and hold more than `least`. */
static bool halve_largest(struct hak_heap *heap, size_t least) {
    unsigned largest = HAK_CLASS_COUNT;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
        if (heap->state[c].capacity <= 1 || bin_bytes(heap, c) <= least) continue;
        largest = c;
        least = bin_bytes(heap, c);
    }
    if (largest == HAK_CLASS_COUNT || !halve(heap, largest)) return false;
    hak_bin_note_fill(heap, largest);
    return true;
}

/* Whether a bin of `bytes` fits into the thread's budget, by `more` than what there is: larger ones are halved first.
 */
static bool make_room(struct hak_heap *heap, size_t more, size_t bytes) {
    while (heap->capacity_bytes + more > thread_bytes())
        if (!halve_largest(heap, bytes)) return false;
    return true;
}

static void grow(struct hak_heap *heap, unsigned c) {
    struct hak_bin_state *state = &heap->state[c];
    uint32_t before = state->capacity, after = before * 2, most = most_slots(c);
    const size_t bytes = hak_class_bytes(c);
    if (after > most) after = most;
    if (after <= before || !make_room(heap, (after - before) * bytes, after * bytes)) return;
    if (!resize_bin(heap, c, after)) return;
    hak_count_by_owner(&heap->grows, 1);
    log_resize(c, before, after, state->high_water);
}

/* Whether blocks went through the bin at HAKMEM_TLS_GROW_RATE since this was last asked. A fresh bin counts as fast. */
static bool ask_pace(struct hak_bin_state *state) {
    const uint32_t now = (uint32_t)hak_sys_now_us(), last = state->asked_us, moved = state->moved;
    state->asked_us = now;
    state->moved = 0;
    return last == 0 || (now - last) * hak_option(TLS_GROW_RATE) <= (uint64_t)moved * 1000;
}

static void begin_window(struct hak_bin_state *state) {
    state->visits = state->refills = 0;
    state->high_water = 0;
}

void hak_bin_visit(struct hak_heap *heap, unsigned c, bool refill) {
    struct hak_bin_state *state = &heap->state[c];
    state->visited = true;
    state->visits++;
    if (refill) {
        state->refills++;
        if (state->filled > state->high_water) state->high_water = state->filled;
    }
    if (hak_unlikely(heap->capacity_bytes > thread_bytes())) halve_largest(heap, 0); /* threads came since */
    if (state->visits % GROW_VISITS == 0 || state->refills == REFILLS_AT_ONCE) {
        const bool fast = ask_pace(state);
        if (fast && state->refills >= REFILLS_LATER) {
            grow(heap, c);
            begin_window(state);
            return;
        }
        state->refills = 0;
    }
    if (state->visits < SHRINK_VISITS) return;
    if (state->high_water < state->capacity / 4) shrink(heap, c);
    begin_window(state);
}

bool hak_bin_open(struct hak_heap *heap, unsigned c) {
    const size_t bytes = hak_class_bytes(c);
    if (heap->state[c].base != NULL) {
        heap->bin[c].limit = heap->state[c].base + heap->state[c].capacity;
        return true;
    }
    uint32_t slots = least_slots(c);
    while (slots > 0 && !make_room(heap, slots * bytes, slots * bytes)) slots /= 2;
    return slots > 0 && resize_bin(heap, c, slots);
}

void hak_bin_sweep(struct hak_heap *heap, unsigned c) {
    const bool is_short = heap->capacity_bytes > thread_bytes() / 2;
    if (!hak_bin_is_open(heap, c)) {
        hak_bin_drop(heap, c);
        return;
    }
    hak_bin_flush(heap, c, hak_bin_fill(heap, c) - hak_bin_fill(heap, c) / 2);
    if (is_short && heap->state[c].capacity > 1) halve(heap, c);
    else shrink(heap, c);
    hak_bin_note_fill(heap, c);
    if (is_short && hak_bin_fill(heap, c) == 0) hak_bin_drop(heap, c);
}

/* ---- at the end of a thread ------------------------------------------------------------------------------- */

/* How many of the newest of `fill` blocks, up to `bytes`, lie in one granule, and so in one slab: it cannot be given
 * back. */
static uint32_t newest_together(void *const *top, uint32_t fill, size_t size, size_t bytes) {
    const uint32_t most = fill * size <= bytes ? fill : (uint32_t)(bytes / size);
    uint32_t n = 0;
    while (n < most && ((uintptr_t)top[-1] ^ (uintptr_t)top[-1 - (ptrdiff_t)n]) < HAK_GRANULE) n++;
    return n;
}

void hak_bin_rest(struct hak_heap *heap, unsigned c, size_t bytes) {
    struct hak_bin_state *state = &heap->state[c];
    void **base = state->base, **top = heap->bin[c].top;
    const uint32_t fill = (uint32_t)(top - base), stay = newest_together(top, fill, hak_class_bytes(c), bytes);
    if (fill > stay) hak_bin_flush(heap, c, fill - stay);
    *state = (struct hak_bin_state){.base = base, .capacity = state->capacity};
    note_fill(heap, c, stay);
    if (stay == 0) heap->bin[c].limit = base;
}
