/* The shadow model (model.h). All of it lies in one mapping; what is not written stays unmapped by the system. */
#include "model.h"

#include "base/config.h"
#include "front/heap.h"
#include "hakmem.h"
#include "pages/region.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/superslab.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define UNIT_SHIFT 4
#define GRANULE_UNITS (HAK_GRANULE >> UNIT_SHIFT)
#define GRANULES ((size_t)1 << 16)
#define LIVE_BYTES_MAX ((size_t)160 << 20)

/* Which units of 16 bytes of a granule of 64 KiB are live. A granule that is live as a whole has only `used`. */
struct granule {
    _Atomic uint64_t key; /* its number plus one; 0: this entry is free */
    _Atomic uint32_t used;
    _Atomic uint64_t bits[GRANULE_UNITS / 64];
};

struct fuzz_model {
    uint64_t seed;
    _Atomic(struct fuzz_block *) slots[FUZZ_SLOTS];
    _Atomic uint64_t live_blocks[HAK_LAYER_COUNT], live_bytes[HAK_LAYER_COUNT];
    _Atomic size_t live_total;
    struct hak_stats base;  /* what there was before the input: nothing of ours */
    uint64_t base_mappings; /* those that are no leaves of the region map */
    _Atomic size_t granules_used;
    struct fuzz_block records[FUZZ_OPS_MAX + 1];
    struct granule granules[GRANULES];
};

void (*fuzz_before_abort)(void);

_Noreturn void fuzz_fail(const struct fuzz_at *at, const char *format, ...) {
    char what[256], operation[128] = "at the end";
    struct fuzz_names names = {.born = 0};
    for (size_t i = 0; i <= at->index && i < at->input->count; i++)
        fuzz_describe(operation, sizeof operation, fuzz_op_at(at->input, i), &names);
    if (at->index >= at->input->count) snprintf(operation, sizeof operation, "at the end");
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    dprintf(2, "fuzz: operation %zu of %zu, %s: %s\n", at->index, at->input->count, operation, what);
    if (fuzz_before_abort != NULL) fuzz_before_abort();
    abort();
}

/* ---- the model as a whole ------------------------------------------------------------------------------------- */

static struct hak_stats stats_now(void) {
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    if (hak_stats_get(&stats) != 0) abort();
    return stats;
}

/* Mappings of the region map, which are never given back. */
static uint64_t leaves(void) {
    uint64_t count = 0;
    for (size_t i = 0; i < HAK_ROOT_ENTRIES; i++) count += hak_load_acq(&hak_region_root[i]) != NULL;
    return count;
}

struct fuzz_model *fuzz_model_create(void) {
    void *ptr = mmap(NULL, sizeof(struct fuzz_model), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return ptr == MAP_FAILED ? NULL : ptr;
}

/* Entries are never taken out of the table one by one: when half of it is used, it starts anew. */
static void renew_granules(struct fuzz_model *model) {
    memset((void *)model->granules, 0, sizeof model->granules);
    atomic_store_explicit(&model->granules_used, 0, memory_order_relaxed);
}

void fuzz_model_begin(struct fuzz_model *model, uint16_t seed) {
    model->seed = (uint64_t)seed << 32;
    model->base = stats_now();
    model->base_mappings = model->base.mappings - leaves();
    if (atomic_load_explicit(&model->granules_used, memory_order_relaxed) > GRANULES / 2) renew_granules(model);
}

struct fuzz_block *fuzz_model_record(struct fuzz_model *model, const struct fuzz_at *at) {
    return &model->records[at->index];
}

bool fuzz_model_has_room(struct fuzz_model *model, size_t bytes) {
    size_t live = atomic_load_explicit(&model->live_total, memory_order_relaxed);
    return bytes <= LIVE_BYTES_MAX && live <= LIVE_BYTES_MAX - bytes;
}

bool fuzz_model_is_empty(struct fuzz_model *model, uint8_t slot) {
    return atomic_load_explicit(&model->slots[slot], memory_order_relaxed) == NULL;
}

/* acquire: pairs with put. The store of NULL publishes nothing. */
struct fuzz_block *fuzz_model_take(struct fuzz_model *model, uint8_t slot) {
    struct fuzz_block *block = atomic_load_explicit(&model->slots[slot], memory_order_relaxed);
    while (block != NULL && !atomic_compare_exchange_weak_explicit(&model->slots[slot], &block, NULL,
                                                                   memory_order_acquire, memory_order_relaxed)) {
    }
    return block;
}

bool fuzz_model_put(struct fuzz_model *model, uint8_t slot, struct fuzz_block *block) {
    struct fuzz_block *nobody = NULL;
    return atomic_compare_exchange_strong_explicit(&model->slots[slot], &nobody, block, memory_order_release,
                                                   memory_order_relaxed);
}

bool fuzz_model_is_start(struct fuzz_model *model, const void *ptr) {
    for (size_t i = 0; i < FUZZ_SLOTS; i++) {
        const struct fuzz_block *block = atomic_load_explicit(&model->slots[i], memory_order_acquire);
        if (block != NULL && block->ptr == ptr) return true;
    }
    return false;
}

/* ---- where blocks lie ----------------------------------------------------------------------------------------- */

static struct granule *granule_of(struct fuzz_model *model, uint64_t number) {
    uint64_t key = number + 1;
    for (size_t i = (size_t)(number * 0x9e3779b97f4a7c15U >> 48);; i++) {
        struct granule *entry = &model->granules[i % GRANULES];
        uint64_t found = atomic_load_explicit(&entry->key, memory_order_relaxed);
        if (found == key) return entry;
        if (found == 0 && atomic_compare_exchange_strong_explicit(&entry->key, &found, key, memory_order_relaxed,
                                                                  memory_order_relaxed)) {
            atomic_fetch_add_explicit(&model->granules_used, 1, memory_order_relaxed);
            return entry;
        }
        if (found == key) return entry;
    }
}

/* Units [first, end) of one granule become live, or cease to be; false if some are not as they should be. */
static bool mark_units(struct granule *entry, size_t first, size_t end, bool live) {
    uint32_t count = (uint32_t)(end - first);
    uint32_t used = live ? atomic_fetch_add_explicit(&entry->used, count, memory_order_relaxed)
                         : atomic_fetch_sub_explicit(&entry->used, count, memory_order_relaxed);
    bool right = live ? used + count <= GRANULE_UNITS : used >= count;
    if (count == GRANULE_UNITS) return right;
    for (size_t unit = first, next; unit < end; unit = next) {
        next = (unit | 63) + 1;
        size_t many = (next < end ? next : end) - unit;
        uint64_t mask = (many == 64 ? UINT64_MAX : ((uint64_t)1 << many) - 1) << unit % 64;
        _Atomic uint64_t *word = &entry->bits[unit / 64];
        uint64_t before = live ? atomic_fetch_or_explicit(word, mask, memory_order_relaxed)
                               : atomic_fetch_and_explicit(word, ~mask, memory_order_relaxed);
        right = right && (before & mask) == (live ? 0 : mask);
    }
    return right;
}

static bool mark(struct fuzz_model *model, const struct fuzz_block *block, bool live) {
    size_t bytes = block->usable == 0 ? 1 : block->usable;
    uint64_t unit = (uintptr_t)block->ptr >> UNIT_SHIFT;
    uint64_t end = ((uintptr_t)block->ptr + bytes + HAK_MIN_ALIGN - 1) >> UNIT_SHIFT;
    bool right = true;
    while (unit < end) {
        uint64_t granule = unit / GRANULE_UNITS, stop = (granule + 1) * GRANULE_UNITS;
        if (stop > end) stop = end;
        right = mark_units(granule_of(model, granule), unit % GRANULE_UNITS, stop - granule * GRANULE_UNITS, live) &&
                right;
        unit = stop;
    }
    return right;
}

static void count(struct fuzz_model *model, const struct fuzz_block *block, bool live) {
    uint64_t sign = live ? 1 : UINT64_MAX;
    atomic_fetch_add_explicit(&model->live_blocks[block->layer], sign, memory_order_relaxed);
    atomic_fetch_add_explicit(&model->live_bytes[block->layer], sign * block->usable, memory_order_relaxed);
    atomic_fetch_add_explicit(&model->live_total, sign * block->usable, memory_order_relaxed);
}

void fuzz_model_reenter(struct fuzz_model *model, const struct fuzz_at *at, struct fuzz_block *block) {
    if (!mark(model, block, true))
        fuzz_fail(at, "the block %p of %zu bytes overlaps a live one", (void *)block->ptr, block->usable);
    count(model, block, true);
}

void fuzz_model_enter(struct fuzz_model *model, const struct fuzz_at *at, struct fuzz_block *block) {
    fuzz_model_reenter(model, at, block);
    block->id = (uint32_t)(model->seed >> 32) * 0x10001 + (uint32_t)at->index * 0x9e3779b1U;
    fuzz_model_write(block);
}

void fuzz_model_leave(struct fuzz_model *model, const struct fuzz_at *at, const struct fuzz_block *block) {
    if (!mark(model, block, false)) fuzz_fail(at, "the block %p is not known to the model", (void *)block->ptr);
    count(model, block, false);
}

/* ---- content -------------------------------------------------------------------------------------------------- */

#define WHOLE ((size_t)8192) /* up to here all bytes are written */
#define END_BYTES ((size_t)1024)
#define LINE_BYTES ((size_t)64)
#define LINES 32

/* Lines lie at multiples of a power of two, so that who looks for zeroes at multiples of a smaller one meets them all.
 */
static size_t stride_of(size_t bytes) {
    size_t stride = HAK_GRANULE;
    while (bytes / stride > LINES) stride *= 2;
    return stride;
}

/* Piece number `i` of the content: 0 the head, 1 the tail, then lines; false if there is none. */
static bool piece(size_t usable, unsigned i, size_t *from, size_t *bytes) {
    if (usable <= WHOLE) {
        *from = 0, *bytes = usable;
        return i == 0;
    }
    *bytes = i < 2 ? END_BYTES : LINE_BYTES;
    if (i < 2) {
        *from = i == 0 ? 0 : (usable - END_BYTES) & ~(size_t)7;
        if (i == 1) *bytes = usable - *from;
        return true;
    }
    *from = (i - 1) * stride_of(usable);
    return *from + LINE_BYTES <= usable - END_BYTES;
}

static uint64_t word_at(uint32_t id, size_t offset) { return ((uint64_t)id << 32 ^ offset) * 0x9e3779b97f4a7c15U; }

/* The same pointer, of which the compiler knows no size: what is used may be more than what was asked for. */
static unsigned char *hidden(const void *ptr) {
    uintptr_t address = (uintptr_t)ptr;
    __asm__("" : "+r"(address));
    return (unsigned char *)address;
}

void fuzz_model_write(struct fuzz_block *block) {
    unsigned char *ptr = hidden(block->ptr);
    size_t from, bytes;
    for (unsigned i = 0; piece(block->usable, i, &from, &bytes); i++)
        for (size_t at = from; at < from + bytes; at += 8) {
            uint64_t word = word_at(block->id, at);
            memcpy(ptr + at, &word, from + bytes - at < 8 ? from + bytes - at : 8);
        }
}

void fuzz_model_verify_moved(const struct fuzz_at *at, const struct fuzz_block *block, const void *ptr, size_t kept) {
    const unsigned char *content = hidden(ptr);
    size_t from, bytes;
    for (unsigned i = 0; piece(block->usable, i, &from, &bytes); i++)
        for (size_t offset = from; offset < from + bytes && offset < kept; offset += 8) {
            size_t end = from + bytes < kept ? from + bytes : kept, many = end - offset < 8 ? end - offset : 8;
            uint64_t word = word_at(block->id, offset);
            if (memcmp(content + offset, &word, many) != 0)
                fuzz_fail(at, "the block %p of %zu bytes (%zu usable, once at %p) has changed at byte %zu or behind",
                          ptr, block->requested, block->usable, (void *)block->ptr, offset);
        }
}

void fuzz_model_verify(const struct fuzz_at *at, const struct fuzz_block *block) {
    fuzz_model_verify_moved(at, block, block->ptr, block->usable);
}

static bool is_zero(const unsigned char *ptr, size_t bytes) {
    return bytes == 0 || (ptr[0] == 0 && memcmp(ptr, ptr + 1, bytes - 1) == 0);
}

#define ZERO_WHOLE ((size_t)128 << 10)

/* All of a small block; of a large one the ends, and where a former owner may have written. */
void fuzz_model_verify_zero(const struct fuzz_at *at, const void *ptr, size_t bytes) {
    const unsigned char *content = hidden(ptr);
    bool zero = bytes <= ZERO_WHOLE ? is_zero(content, bytes)
                                    : is_zero(content, ZERO_WHOLE / 2) && is_zero(content + bytes - WHOLE, WHOLE);
    for (size_t offset = ZERO_WHOLE / 2; zero && bytes > ZERO_WHOLE && offset + LINE_BYTES < bytes;
         offset += HAK_GRANULE)
        zero = is_zero(content + offset, LINE_BYTES);
    if (!zero) fuzz_fail(at, "of the block %p, %zu bytes should be zero and are not", ptr, bytes);
}

void fuzz_model_verify_all(struct fuzz_model *model, const struct fuzz_at *at) {
    for (size_t i = 0; i < FUZZ_SLOTS; i++) {
        const struct fuzz_block *block = atomic_load_explicit(&model->slots[i], memory_order_acquire);
        if (block != NULL) fuzz_model_verify(at, block);
    }
}

/* ---- the allocator's own figures ------------------------------------------------------------------------------ */

static const char *const layers[HAK_LAYER_COUNT] = {"tiny", "mid", "l25", "big"};

static void compare(const struct fuzz_at *at, const char *what, int layer, uint64_t now, uint64_t wanted, bool exact) {
    if (exact ? now != wanted : now < wanted)
        fuzz_fail(at, "%s of %s are %llu, by the model %s%llu", what, layers[layer], (unsigned long long)now,
                  exact ? "" : "at least ", (unsigned long long)wanted);
}

/* Under ASan and Valgrind freed blocks are held back for a while, and count as live. */
#define HELD_BACK (HAK_ASAN || HAK_VALGRIND)

/* Exact builds tell the requested size as the usable one; what the block takes is known to the layer alone. */
void fuzz_model_compare_stats(struct fuzz_model *model, const struct fuzz_at *at) {
    struct hak_stats now = stats_now();
    for (int i = 0; i < HAK_LAYER_COUNT; i++) {
        uint64_t blocks = atomic_load_explicit(&model->live_blocks[i], memory_order_relaxed);
        uint64_t bytes = atomic_load_explicit(&model->live_bytes[i], memory_order_relaxed);
        compare(at, "live blocks", i, now.layer[i].live_blocks, model->base.layer[i].live_blocks + blocks, !HELD_BACK);
        compare(at, "live bytes", i, now.layer[i].live_bytes, model->base.layer[i].live_bytes + bytes, !HAK_EXACT);
        compare(at, "served blocks", i, now.layer[i].served_blocks, model->base.layer[i].served_blocks, false);
        compare(at, "purged bytes", i, now.layer[i].purged_bytes, model->base.layer[i].purged_bytes, false);
    }
    /* Tiny and Mid share what is mapped. */
    const struct hak_layer_stats *tiny = &now.layer[HAK_LAYER_TINY], *mid = &now.layer[HAK_LAYER_MID];
    compare(at, "mapped bytes", HAK_LAYER_TINY, tiny->mapped_bytes,
            tiny->live_bytes + tiny->cached_bytes + mid->live_bytes + mid->cached_bytes, false);
    for (int i = HAK_LAYER_L25; i < HAK_LAYER_COUNT; i++)
        compare(at, "mapped bytes", i, now.layer[i].mapped_bytes, now.layer[i].live_bytes + now.layer[i].cached_bytes,
                false);
}

void fuzz_check_structures(const struct fuzz_at *at) {
    if (!hak_heap_check()) fuzz_fail(at, "an invariant of the heap is broken");
    if (!hak_superslab_check()) fuzz_fail(at, "an invariant of the superslabs is broken");
    if (!hak_l25_check()) fuzz_fail(at, "an invariant of the L2.5 pool is broken");
    if (!hak_big_check()) fuzz_fail(at, "an invariant of BigCache is broken");
}

void fuzz_check_nothing_left(struct fuzz_model *model, const struct fuzz_at *at, bool may_lose) {
    struct hak_stats now = stats_now();
    for (int i = 0; i < HAK_LAYER_COUNT; i++) {
        compare(at, "live blocks", i, now.layer[i].live_blocks, 0, true);
        compare(at, "live bytes", i, now.layer[i].live_bytes, 0, true);
        compare(at, "cached bytes", i, now.layer[i].cached_bytes, 0, true);
        compare(at, "mapped bytes", i, now.layer[i].mapped_bytes, model->base.layer[i].mapped_bytes, !may_lose);
    }
    uint64_t mappings = now.mappings - leaves();
    if (mappings != model->base_mappings && !may_lose)
        fuzz_fail(at, "%llu mappings are left, it should be %llu", (unsigned long long)mappings,
                  (unsigned long long)model->base_mappings);
}
