/* The router (alloc.h). Floor 5 is the only one that knows all layers; out of memory is handled here and only here. */
#include "api/alloc.h"

#include "api/guard.h"
#include "api/quarantine.h"
#include "base/annotate.h"
#include "base/log.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "front/tick.h"
#include "stores/bigcache.h"
#include "stores/l25.h"

#include <errno.h>
#include <string.h>

HAK_COLD void *hak_no_memory(void) {
    errno = ENOMEM;
    return NULL;
}

/* ---- which layer --------------------------------------------------------------------------------------- */

/* The size class for a request, or HAK_NO_CLASS if it is not for Tiny and Mid. */
static unsigned class_for(size_t size, size_t align) {
    if (size > HAK_MID_MAX || align > HAK_MID_MAX) return HAK_NO_CLASS;
    return align <= HAK_MIN_ALIGN ? hak_class_of(size) : hak_class_of_aligned(size, align);
}

static struct hak_block take(size_t size, size_t align, uintptr_t site) {
    unsigned c = class_for(size, align);
    if (c != HAK_NO_CLASS) return (struct hak_block){.ptr = hak_tcache_alloc(c), .bytes = hak_class_bytes(c)};
    hak_tick();
    hak_heap_get(); /* also if all its blocks are large: a thread's heap names a shard, and lets memory decay */
    if (size <= HAK_L25_MAX && align <= HAK_L25_MAX) return hak_l25_alloc(size, align, hak_tls_heap->lane);
    return hak_big_alloc(size, align, site);
}

size_t hak_rounded(size_t size) {
    if (size > HAK_SIZE_MAX - HAK_GRANULE) return 0;
    if (HAK_EXACT) return size;
    if (size <= HAK_MID_MAX) return hak_class_bytes(hak_class_of(size));
    return hak_round_up(size, HAK_GRANULE);
}

size_t hak_let_go(void) {
    if (HAK_QUARANTINE) hak_quarantine_drain(); /* which may be the thread's first free, and give it a heap */
    /* First what others hold: ended threads have kept blocks of this heap; what it has of theirs goes back at once. */
    hak_heap_lend_all();
    struct hak_heap *heap = hak_heap_peek();
    if (heap != NULL) hak_tcache_flush_all(heap);
    hak_heap_shared_flush();
    return hak_slab_purge_all() + hak_l25_purge_all() + hak_big_purge_all();
}

/* ---- zeroing ------------------------------------------------------------------------------------------- */

enum { PIECE_BYTES = 4096, PIECE_WORDS = PIECE_BYTES / sizeof(uint64_t) };
typedef uint64_t hak_any_word __attribute__((may_alias));

static bool is_zero(const void *piece) {
    const hak_any_word *word = piece;
    for (unsigned i = 0; i < PIECE_WORDS; i += 8)
        if ((word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] | word[i + 5] | word[i + 6] |
             word[i + 7]) != 0)
            return false;
    return true;
}

/* Of a large block the last owner may have used little; to write to the rest would make it resident. */
void hak_clear(void *ptr, size_t bytes) {
    hak_annotate_defined(ptr, bytes); /* before it is read */
    if (bytes <= HAK_L25_MAX) {
        memset(ptr, 0, bytes);
        return;
    }
    size_t piece;
    for (char *at = ptr, *end = at + bytes; at != end; at += piece) {
        const size_t left = (size_t)(end - at);
        piece = PIECE_BYTES - ((uintptr_t)at & (PIECE_BYTES - 1));
        if (piece > left) piece = left;
        if (piece != PIECE_BYTES || !is_zero(at)) memset(at, 0, piece);
    }
}

/* ---- allocation ---------------------------------------------------------------------------------------- */

/* Exact builds have room for a canary or poison behind a block; a large block of the checked build has its guard page
 * instead. */
static size_t with_slack(size_t size) {
    return HAK_EXACT && !(HAK_CHECKED && size > HAK_L25_MAX) ? size + HAK_EXACT_SLACK : size;
}

void *hak_alloc(size_t size, size_t align, bool zero, uintptr_t site) {
    /* The granule is room for rounding; no request this large can be met anyway. */
    if (hak_unlikely(size > HAK_SIZE_MAX - HAK_GRANULE || align > HAK_SIZE_MAX / 2)) return hak_no_memory();
    size_t wanted = with_slack(size);
    struct hak_block block = take(wanted, align, site);
    if (hak_unlikely(block.ptr == NULL)) {
        int saved = errno;
        hak_let_go();
        block = take(wanted, align, site);
        errno = saved;
        if (block.ptr == NULL) return hak_no_memory();
    }
    if (HAK_EXACT) {
        if (hak_guard_alloc(block.ptr, size, block.bytes)) block.zero = false;
        block.bytes = size;
    }
    if (zero && block.zero) hak_annotate_defined(block.ptr, block.bytes);
    else if (zero) hak_clear(block.ptr, block.bytes);
    return block.ptr;
}

/* ---- free ---------------------------------------------------------------------------------------------- */

static void report(enum hak_free_result result, const void *ptr, const char *function) {
    if (hak_unlikely(result == HAK_FREE_DOUBLE)) hak_misuse_at_once(function, ptr, HAK_MISUSE_DOUBLE_FREE);
    if (hak_unlikely(result == HAK_FREE_NOT_START)) hak_misuse_at_once(function, ptr, HAK_MISUSE_INTERIOR);
    if (hak_unlikely(result == HAK_FREE_IN_FREE)) hak_misuse_at_once(function, ptr, HAK_MISUSE_FREE_MEMORY);
}

HAK_INLINE void give_back(void *ptr, struct hak_region region, const char *function) {
    if (hak_likely(region.owner != 0)) {
        if (hak_unlikely(((uintptr_t)ptr & (HAK_MIN_ALIGN - 1)) != 0))
            hak_misuse_at_once(function, ptr, HAK_MISUSE_INTERIOR);
        hak_tcache_free(ptr, function);
        return;
    }
    switch (region.kind) {
    case HAK_KIND_L25:
        hak_tick();
        report(hak_l25_free(region.descriptor, ptr), ptr, function);
        break;
    case HAK_KIND_BIG:
        hak_tick();
        report(hak_big_free(region.descriptor, ptr), ptr, function);
        break;
    case HAK_KIND_FREE_SLAB:
        hak_misuse_at_once(function, ptr, HAK_MISUSE_FREE_MEMORY);
    default:
        hak_misuse_foreign(function, ptr);
    }
}

HAK_NOINLINE void hak_release(void *ptr, const char *function) {
    if (ptr == NULL) return;
    struct hak_region region = hak_region_lookup(ptr);
    if (HAK_EXACT && hak_guard_free(ptr, &region, function)) return;
    give_back(ptr, region, function);
}

#if HAK_QUARANTINE
void hak_give_back(void *ptr, const char *function) { give_back(ptr, hak_region_lookup(ptr), function); }
#endif

/* ---- size and realloc ----------------------------------------------------------------------------------- */

/* The usable bytes of what `region` says of `ptr`. */
static size_t usable_in(const void *ptr, const struct hak_region *region, const char *function) {
    size_t bytes = 0;
    if (HAK_EXACT) return hak_guard_size(ptr, region, function);
    if (region->owner != 0) {
        bytes = hak_slab_usable(region->descriptor, ptr);
    } else if (region->kind == HAK_KIND_L25) {
        bytes = hak_l25_usable(region->descriptor, ptr);
    } else if (region->kind == HAK_KIND_BIG) {
        bytes = hak_big_usable(region->descriptor, ptr);
    } else if (region->kind == HAK_KIND_FREE_SLAB) {
        hak_misuse_at_once(function, ptr, HAK_MISUSE_FREE_MEMORY);
    } else {
        hak_misuse_foreign(function, ptr);
        return 0;
    }
    if (hak_unlikely(bytes == 0)) hak_misuse_at_once(function, ptr, HAK_MISUSE_INTERIOR);
    return bytes;
}

size_t hak_usable(const void *ptr, const char *function) {
    struct hak_region region = hak_region_lookup(ptr);
    return usable_in(ptr, &region, function);
}

/* Resizes without a copy where the layer can, a block for which it gave `*given` bytes. */
static void *resize_in_layer(void *ptr, size_t size, size_t *given, const struct hak_region *region, uintptr_t site) {
    size_t wanted = with_slack(size);
    bool same_class = wanted <= HAK_MID_MAX && hak_class_bytes(hak_class_of(wanted)) == *given;
    if (wanted <= *given && (wanted > *given / 2 || same_class)) return ptr;
    if (region->owner != 0) return NULL;
    hak_tick();
    if (region->kind == HAK_KIND_L25 && wanted > HAK_MID_MAX && wanted <= HAK_L25_MAX)
        return hak_l25_resize(region->descriptor, ptr, wanted, given) ? ptr : NULL;
    if (region->kind != HAK_KIND_BIG || wanted <= HAK_L25_MAX) return NULL;
    struct hak_block block = hak_big_realloc(region->descriptor, ptr, wanted, site);
    *given = block.bytes;
    return block.ptr;
}

/* The same for exact builds. Sanitizer builds always move, so that stale pointers are found. */
static void *resize_guarded(void *ptr, size_t size, const struct hak_region *region, uintptr_t site,
                            const char *function) {
    if (!HAK_CHECKED) return NULL;
    size_t given = hak_guard_check(ptr, region, function);
    void *moved = resize_in_layer(ptr, size, &given, region, site);
    if (moved != NULL) hak_guard_resize(moved, size, given);
    return moved;
}

static void *place_for(size_t size, size_t usable, uintptr_t site) {
    const size_t roomy = hak_with_room(size, usable);
    void *ptr = roomy != size ? take(roomy, HAK_MIN_ALIGN, site).ptr : NULL; /* room is not worth letting go */
    return ptr != NULL ? ptr : hak_alloc(size, HAK_MIN_ALIGN, false, site);
}

void *hak_resize(void *ptr, size_t size, uintptr_t site, const char *function) {
    if (hak_unlikely(size > HAK_SIZE_MAX - HAK_GRANULE)) return hak_no_memory();
    struct hak_region region = hak_region_lookup(ptr);
    size_t usable = usable_in(ptr, &region, function);
    /* Only a block of another allocator has no size here: it cannot be moved, and was reported. */
    if (region.owner == 0 && region.kind == HAK_KIND_NONE) return hak_no_memory();
    size_t given = usable;
    void *moved = HAK_EXACT ? resize_guarded(ptr, size, &region, site, function)
                            : resize_in_layer(ptr, size, &given, &region, site);
    if (moved != NULL) return moved;
    moved = place_for(size, usable, site);
    if (moved == NULL) return NULL;
    memcpy(moved, ptr, size < usable ? size : usable);
    hak_release(ptr, function);
    return moved;
}
