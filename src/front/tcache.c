/* Refill, flush and adaptive size of the bins (tcache.h). Bins belong to the calling thread. */
#include "front/tcache.h"

#include "base/log.h"
#include "base/options.h"
#include "base/sys.h"
#include "front/fork.h"
#include "front/remote.h"
#include "front/tick.h"
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
/* A refill takes so many blocks at first, then each time twice as many, up to all that the bin holds: many threads end
 * before they need more. */
#define FIRST_BATCH 8
/* Of what all threads may hold, a thread has so much in any case. */
#define LEAST_SHARE (256 * HAK_KIB)

/* ---- bins ---------------------------------------------------------------------------------------------- */

static uint32_t fill_of(const struct hak_heap *heap, unsigned c) {
    const struct hak_bin_state *state = &heap->state[c];
    return state->base == NULL ? 0 : (uint32_t)(heap->bin[c].top - state->base);
}

static size_t bin_bytes(const struct hak_heap *heap, unsigned c) {
    return (size_t)heap->state[c].capacity * hak_class_bytes(c);
}

/* A bin that waits empty since its thread ended is closed: empty for malloc, full for free. */
static bool is_open(const struct hak_heap *heap, unsigned c) {
    return heap->state[c].base != NULL && heap->bin[c].limit != heap->state[c].base;
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
    uint32_t filled = fill_of(heap, c);
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

static void drop_bin(struct hak_heap *heap, unsigned c) {
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

/* The blocks of `ptrs`, up to `count`, that lie in one slab of this heap's go back into it. Returns how many. */
static uint32_t put_own(struct hak_heap *heap, struct hak_slab *slab, void *const *ptrs, uint32_t count) {
    enum hak_free_result result;
    uint32_t put = hak_slab_put_blocks(slab, ptrs, count, &result);
    if (hak_unlikely(result == HAK_FREE_DOUBLE)) hak_misuse_late(ptrs[put], HAK_MISUSE_DOUBLE_FREE);
    if (hak_unlikely(result == HAK_FREE_NOT_START)) hak_misuse_late(ptrs[put], HAK_MISUSE_INTERIOR);
    if (!slab->listed || hak_slab_is_empty(slab)) hak_heap_settle(heap, slab);
    return put;
}

/* Puts the `count` oldest blocks of a bin back into their slabs, or on their way to the slabs' owners. */
static void flush(struct hak_heap *heap, unsigned c, uint32_t count) {
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
    uint32_t left = fill_of(heap, c) - count;
    memmove(base, base + count, left * sizeof *base);
    heap->bin[c].top = base + left;
    hak_count_by_owner(&heap->blocks_out[c], -(uint64_t)own);
    heap->state[c].moved += count;
}

/* ---- adaptive size -------------------------------------------------------------------------------------- */

/* A bin that is closed goes as a whole. */
static bool halve(struct hak_heap *heap, unsigned c) {
    struct hak_bin_state *state = &heap->state[c];
    if (!is_open(heap, c)) {
        drop_bin(heap, c);
        return true;
    }
    uint32_t before = state->capacity, after = before / 2;
    if (fill_of(heap, c) > after) flush(heap, c, fill_of(heap, c) - after);
    if (!resize_bin(heap, c, after)) return false;
    hak_count_by_owner(&heap->shrinks, 1);
    log_resize(c, before, after, state->high_water);
    return true;
}

static void shrink(struct hak_heap *heap, unsigned c) {
    if (heap->state[c].capacity / 2 >= least_slots(c)) halve(heap, c);
}

static void note_fill(struct hak_heap *heap, unsigned c) {
    heap->state[c].filled = (uint16_t)fill_of(heap, c);
    hak_store_rlx(&heap->cached[c], heap->state[c].filled);
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
    note_fill(heap, largest);
    return true;
}

/* Whether a bin of `bytes` fits into the thread's budget, by `more` than what there is: larger ones are halved for it.
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

/* Counts a slow-path visit of a bin, and adapts its size. A refill says that all that the bin held since the last visit
 * was used up. */
static void visit(struct hak_heap *heap, unsigned c, bool refill) {
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

/* Sees to it that there is an open bin: opens the one that waits, or makes one within the thread's budget; where no
 * other is larger it has fewer slots than it should. False if it can have none. */
static bool open_bin(struct hak_heap *heap, unsigned c) {
    const size_t bytes = hak_class_bytes(c);
    if (heap->state[c].base != NULL) {
        heap->bin[c].limit = heap->state[c].base + heap->state[c].capacity;
        return true;
    }
    uint32_t slots = least_slots(c);
    while (slots > 0 && !make_room(heap, slots * bytes, slots * bytes)) slots /= 2;
    return slots > 0 && resize_bin(heap, c, slots);
}

/* A bin that nobody visited for a whole interval gives half of what it holds back; one that is closed still goes. If
 * the thread has no room left for others, the bin goes in the end. */
static void sweep_bin(struct hak_heap *heap, unsigned c) {
    const bool is_short = heap->capacity_bytes > thread_bytes() / 2;
    if (!is_open(heap, c)) {
        drop_bin(heap, c);
        return;
    }
    flush(heap, c, fill_of(heap, c) - fill_of(heap, c) / 2);
    if (is_short && heap->state[c].capacity > 1) halve(heap, c);
    else shrink(heap, c);
    note_fill(heap, c);
    if (is_short && fill_of(heap, c) == 0) drop_bin(heap, c);
}

void hak_tcache_sweep(struct hak_heap *heap) {
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
        struct hak_bin_state *state = &heap->state[c];
        if (state->base != NULL && !state->visited) sweep_bin(heap, c);
        if (!state->visited) hak_heap_give_empty(heap, c);
        state->visited = false;
    }
    hak_remote_deliver(heap);
}

/* ---- refill and alloc ------------------------------------------------------------------------------------ */

/* Moves up to `want` blocks, for which the bin has room, from the slabs to it. */
static void fill(struct hak_heap *heap, unsigned c, uint32_t want) {
    struct hak_bin *bin = &heap->bin[c];
    uint32_t got = 0;
    while (got < want) {
        struct hak_slab *slab = heap->slabs[c];
        if (slab == NULL && got == 0) slab = hak_heap_more(heap, c);
        if (slab == NULL) break;
        uint32_t n = hak_slab_take_blocks(slab, bin->top, want - got);
        bin->top += n;
        got += n;
        if (slab->free_count == 0) hak_heap_unlist(heap, slab);
    }
    hak_heap_count_taken(heap, c, got);
    heap->state[c].moved += got;
}

/* Where no bin can be had, a block comes straight from a slab. */
static void *take_without_bin(struct hak_heap *heap, unsigned c) {
    hak_slab_relieve();
    if (heap->slabs[c] == NULL) hak_heap_more(heap, c);
    return hak_heap_take_one(heap, c);
}

static uint32_t next_batch(struct hak_heap *heap, unsigned c) {
    struct hak_bin_state *state = &heap->state[c];
    const uint32_t room = state->capacity - fill_of(heap, c), most = state->batch == 0 ? FIRST_BATCH : 2 * state->batch;
    return state->batch = (uint16_t)(most < room ? most : room);
}

static void refill(struct hak_heap *heap, unsigned c) {
    visit(heap, c, true);
    fill(heap, c, next_batch(heap, c));
    hak_count_by_owner(&heap->refills, 1);
    note_fill(heap, c);
    hak_slab_relieve();
}

static void *take_slowly(struct hak_heap *heap, unsigned c) {
    hak_remote_collect(heap);
    if (!open_bin(heap, c)) return take_without_bin(heap, c);
    if (fill_of(heap, c) == 0) refill(heap, c); /* else the heap is new to this thread, and prewarmed or warm */
    if (fill_of(heap, c) == 0) return NULL;
    void *ptr = *--heap->bin[c].top;
    if (heap->window == NULL) hak_heap_look_at(heap, ptr);
    return ptr;
}

/* The calling thread's heap, entered; NULL if it can have none. */
static struct hak_heap *enter_own(bool *nested) {
    struct hak_heap *heap;
    do heap = hak_heap_get();
    while (heap != NULL && !hak_heap_enter(heap, nested)); /* it is gone: then it has another, or none */
    return heap;
}

void *hak_tcache_alloc(unsigned c) {
    void *ptr = hak_bin_take(&hak_tls_heap->bin[c]);
    if (hak_likely(!hak_is_misaligned(ptr))) return ptr;
    if (hak_unlikely(ptr != HAK_BIN_BOTTOM)) hak_misuse_late(ptr, HAK_MISUSE_INTERIOR);
    hak_tick();
    bool nested;
    struct hak_heap *heap = enter_own(&nested);
    if (heap == NULL) return hak_heap_shared_alloc(c);
    ptr = take_slowly(heap, c);
    hak_heap_leave(heap, nested);
    return ptr;
}

/* ---- free and flush -------------------------------------------------------------------------------------- */

static void free_cached(struct hak_heap *heap, void *ptr, struct hak_slab *slab, const char *function) {
    unsigned c = slab->size_class;
    struct hak_bin *bin = &heap->bin[c];
    if (hak_unlikely(hak_slab_index(slab, ptr) == HAK_NO_BLOCK)) hak_misuse_at_once(function, ptr, HAK_MISUSE_INTERIOR);
    if (hak_unlikely(bin->top[-1] == ptr)) hak_misuse_at_once(function, ptr, HAK_MISUSE_DOUBLE_FREE);
    if (bin->top == bin->limit) {
        hak_tick();
        if (!open_bin(heap, c)) {
            if (hak_unlikely(hak_load_acq(&slab->owner) != heap)) { /* adopted, while the heap was lent */
                hak_remote_free(heap, slab, ptr, function);
                return;
            }
            if (hak_slab_put_block(slab, ptr) != HAK_FREE_OK) hak_misuse_at_once(function, ptr, HAK_MISUSE_DOUBLE_FREE);
            hak_count_by_owner(&heap->blocks_out[c], UINT64_MAX);
            hak_heap_settle(heap, slab);
            hak_slab_relieve();
            return;
        }
        visit(heap, c, false);
        uint32_t filled = fill_of(heap, c);
        if (bin->top == bin->limit) flush(heap, c, filled - filled / 2);
        hak_count_by_owner(&heap->flushes, 1);
        note_fill(heap, c);
        hak_slab_relieve();
    }
    *bin->top++ = ptr;
}

void hak_tcache_free(void *ptr, const char *function) {
    hak_fork_check();
    struct hak_heap *heap;
    struct hak_region region;
    bool nested;
    do {
        heap = hak_heap_get();
        region = hak_region_lookup(ptr); /* until the heap is entered the slab may be adopted: see free_cached() */
        if (hak_unlikely(region.owner == 0)) hak_misuse_at_once(function, ptr, HAK_MISUSE_FREE_MEMORY);
        if (heap == NULL) {
            hak_remote_free_now(region.descriptor, ptr, function);
            hak_slab_relieve();
            return;
        }
        const struct hak_bin *bin = &heap->bin[region.kind / 2];
        const bool own = region.owner == hak_heap_tag(heap);
        if (own || heap->window == NULL) hak_heap_look_at(heap, ptr); /* a thread that only frees needs one, too */
        if (!own && (!hak_heap_keeps(region.kind / 2) || bin->top == bin->limit)) {
            hak_remote_free(heap, region.descriptor, ptr, function);
            return;
        }
    } while (hak_unlikely(!hak_heap_enter(heap, &nested)));
    free_cached(heap, ptr, region.descriptor, function);
    hak_heap_leave(heap, nested);
}

static void give_back(struct hak_heap *heap) {
    hak_remote_deliver(heap);
    hak_remote_collect(heap);
    hak_heap_give_all_empty(heap); /* also what others have emptied */
}

void hak_tcache_flush_all(struct hak_heap *heap) {
    bool nested;
    if (!hak_heap_enter(heap, &nested)) return;
    for (uint64_t left = heap->bins; left != 0; left &= left - 1) {
        const unsigned c = (unsigned)__builtin_ctzll(left);
        if (fill_of(heap, c) != 0) flush(heap, c, fill_of(heap, c));
        note_fill(heap, c);
    }
    give_back(heap);
    hak_heap_leave(heap, nested);
}

/* The next thread begins with the bin as if it was fresh, whatever its size, with up to `bytes` in it. */
static void rest_bin(struct hak_heap *heap, unsigned c, size_t bytes) {
    struct hak_bin_state *state = &heap->state[c];
    const size_t size = hak_class_bytes(c), fill = fill_of(heap, c);
    if (fill * size > bytes) flush(heap, c, (uint32_t)(fill - bytes / size));
    *state = (struct hak_bin_state){.base = state->base, .capacity = state->capacity};
    note_fill(heap, c);
    if (state->filled == 0) heap->bin[c].limit = state->base;
}

void hak_tcache_rest(struct hak_heap *heap, uint32_t slots, size_t bytes) {
    bool nested;
    if (!hak_heap_enter(heap, &nested)) return;
    for (uint64_t left = heap->bins; left != 0; left &= left - 1) {
        const unsigned c = (unsigned)__builtin_ctzll(left);
        const bool stays = heap->state[c].capacity <= slots;
        if (is_open(heap, c)) rest_bin(heap, c, stays ? bytes : 0);
        if (!stays) drop_bin(heap, c);
    }
    give_back(heap);
    hak_heap_leave(heap, nested);
}

void hak_tcache_prewarm(struct hak_heap *heap) {
    unsigned classes = (unsigned)hak_option(PREWARM);
    for (unsigned c = 0; c < classes; c++) {
        if (!open_bin(heap, c)) return;
        if (fill_of(heap, c) == 0) fill(heap, c, next_batch(heap, c));
        note_fill(heap, c);
    }
}
