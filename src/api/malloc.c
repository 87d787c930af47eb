/* malloc, free, operator new, and what is one step away from them. A hit of each is inlined here: no call, no stack
 * frame, one exit to the slow path, checked by `make lint` (at most 16 instructions for malloc, 21 for free).
 *
 * malloc hit: heap (2 loads), size test, class (1 load), top of the bin (1 load), block (1 load), step down.
 * free hit:   heap (2 loads), window test (1 load), tag (2 loads) for owner and bin, top (1 load), a look at the top
 *             slot for a double free, room test, store, step up. Another thread's block takes 4 more. */
#include "api/alloc.h"
#include "api/guard.h"
#include "api/libc_names.h"
#include "front/heap.h"
#include "front/remote.h"
#include "front/tcache.h"
#include "hakmem.h"

#include <string.h>

/* The bin at an index from the region map or the heap's own table: twice the class, in units of 8 bytes. */
HAK_INLINE struct hak_bin *bin_at(struct hak_heap *heap, size_t index) {
    return (struct hak_bin *)(void *)((char *)heap + index * (sizeof(struct hak_bin) / 2));
}

/* A block for a size of the Tiny layer; one of any class. Misaligned if there is none at hand. */
HAK_INLINE void *take_cached(size_t size) {
    struct hak_heap *heap = hak_tls_heap;
    return hak_bin_take(bin_at(heap, heap->bin_index[(size + HAK_MIN_ALIGN - 1) >> HAK_MIN_ALIGN_SHIFT]));
}
HAK_INLINE void *take_cached_of(unsigned c) { return hak_bin_take(&hak_tls_heap->bin[c]); }

HAK_INLINE void *at_hand(size_t size) {
    if (HAK_EXACT || size > HAK_MID_MAX) return NULL;
    void *ptr = take_cached_of(hak_class_of(size));
    return hak_likely(!hak_is_misaligned(ptr)) ? ptr : NULL;
}

static HAK_NOINLINE void *malloc_slow(size_t size, uintptr_t site) {
    void *ptr = at_hand(size);
    return hak_likely(ptr != NULL) ? ptr : hak_alloc(size, HAK_MIN_ALIGN, false, site);
}

static HAK_NOINLINE void *take_cached_called(size_t size) { return take_cached(size); }

/* The slow path is called last, with what the function got: so a hit needs no stack frame. Exact builds have no hits,
 * and their reports show the public function: so it is that which calls the slow path there. */
HAK_INLINE void *allocate(size_t size, void *(*slow)(size_t size, uintptr_t site)) {
    if (hak_unlikely(size > HAK_TINY_MAX)) return slow(size, HAK_SITE);
    void *ptr = HAK_AGGRESSIVE_INLINE ? take_cached(size) : take_cached_called(size);
    return hak_unlikely(hak_is_misaligned(ptr)) ? slow(size, HAK_SITE) : ptr;
}
HAK_HOT void *hak_malloc(size_t size) {
    if (HAK_EXACT) return malloc_slow(size, HAK_SITE);
    return allocate(size, malloc_slow);
}
HAK_LIBC_NAME(malloc, hak_malloc);
#if !HAK_TEST /* there it would only be a second name in the tools' reports */
extern __typeof(hak_malloc) hak_own_malloc __attribute__((alias("hak_malloc"))) HAK_COPY_ATTRIBUTES(hak_malloc);

/* operator new. All else of the operators is C++ (operators.cc), also what throws, through this function. */
HAK_HOT void *hak_operator_new(size_t size) {
    if (HAK_EXACT) return hak_operator_new_slow(size, HAK_SITE);
    return allocate(size, hak_operator_new_slow);
}
extern __typeof(hak_operator_new) operator_new __asm__("_Znwm")
    __attribute__((weak, visibility("default"), alias("hak_operator_new"))) HAK_COPY_ATTRIBUTES(hak_operator_new);
#endif

/* The index of the bin that a block may go to; NOT_CACHED for whatever else is freed. region.h: why a tag that is read
 * relaxed, and may be stale, does no harm. */
#define NOT_CACHED SIZE_MAX
HAK_INLINE size_t bin_by_tag(const struct hak_heap *heap, uint64_t tag) {
    if (hak_likely(hak_tag_owner(tag) == hak_heap_tag(heap))) return hak_tag_kind(tag);
    hak_forget_register(tag); /* the two ways stay apart */
    return hak_tag_owner(tag) != 0 && hak_heap_keeps(hak_tag_kind(tag) / 2) ? hak_tag_kind(tag) : NOT_CACHED;
}

/* The same for a block in the window that free looks at; NULL, and addresses beyond the map, are in none. */
HAK_INLINE size_t bin_for(const struct hak_heap *heap, const void *ptr) {
    size_t granule = ((uintptr_t)ptr >> HAK_GRANULE_SHIFT) - heap->first_granule;
    if (hak_unlikely(granule >= HAK_WINDOW_GRANULES)) return NOT_CACHED;
    if (HAK_REGION_LOOKUP) return bin_by_tag(heap, hak_load_rlx(&heap->window[granule]));
    const struct hak_slab *slab = hak_slab_find((const struct hak_region_leaf *)(const void *)heap->window, granule);
    bool kept = slab != NULL && (hak_load_rlx(&slab->owner) == heap || hak_heap_keeps(slab->size_class));
    return hak_likely(kept) ? 2U * slab->size_class : NOT_CACHED;
}

/* Puts a block into its bin. False if that is for the slow path to do, or to complain about. */
HAK_INLINE bool put_into(struct hak_heap *heap, size_t index, void *ptr) {
    struct hak_bin *bin = bin_at(heap, index);
    /* One plain address for all, for an instruction more: some processors know it again, and a load of what was just
     * stored there costs nothing. By base and index, a pair of malloc and free took 1.55 times as long on one. */
    hak_forget_register(bin);
    void **top = bin->top;
    if (hak_unlikely(top[-1] == ptr || top == bin->limit)) return false;
    *top = ptr;
    hak_forget_memory();
    bin->top++;
    return true;
}
HAK_INLINE bool put_cached(struct hak_heap *heap, void *ptr) {
    size_t index = bin_for(heap, ptr);
    return hak_likely(index != NOT_CACHED) && put_into(heap, index, ptr);
}
static HAK_NOINLINE bool put_cached_called(struct hak_heap *heap, void *ptr) { return put_cached(heap, ptr); }

/* put_cached() for a block in another window than the one that free looks at: a heap that is large, or lies over an
 * edge, has blocks in several. The tag says it all there too, so that neither descriptor nor slab need be fetched,
 * which would be a miss of the processor's caches each. After a block of the heap's own, free looks at that window. */
static HAK_NOINLINE bool put_elsewhere(struct hak_heap *heap, void *ptr) {
    const struct hak_region_leaf *leaf = hak_region_leaf_of(ptr);
    if (!HAK_REGION_LOOKUP || heap->kind != HAK_HEAP_REAL || leaf == NULL || leaf->tag == heap->window) return false;
    const uint64_t tag = hak_load_rlx(&leaf->tag[hak_region_index(ptr)]);
    const size_t index = bin_by_tag(heap, tag);
    if (index == NOT_CACHED) return false;
    if (hak_tag_owner(tag) == hak_heap_tag(heap)) hak_heap_look_at(heap, ptr);
    return put_into(heap, index, ptr);
}

/* By itself, so that free_slow needs no stack frame. */
static HAK_NOINLINE void free_rest(void *ptr, struct hak_heap *heap) {
    if (ptr != NULL && (HAK_EXACT || !put_elsewhere(heap, ptr))) hak_release(ptr, "free");
}
static HAK_NOINLINE void free_slow(void *ptr, struct hak_heap *heap) {
    if (HAK_EXACT || hak_unlikely(!hak_remote_free_try(heap, ptr))) free_rest(ptr, heap);
}

HAK_HOT void hak_free(void *ptr) {
    struct hak_heap *heap = hak_tls_heap;
    if (HAK_EXACT || !(HAK_AGGRESSIVE_INLINE ? put_cached(heap, ptr) : put_cached_called(heap, ptr)))
        free_slow(ptr, heap);
}
HAK_LIBC_NAME(free, hak_free);

void hak_cfree(void *ptr) { hak_release(ptr, "cfree"); }
HAK_LIBC_NAME(cfree, hak_cfree);

void *hak_calloc(size_t count, size_t size) {
    size_t bytes;
    if (hak_unlikely(__builtin_mul_overflow(count, size, &bytes))) return hak_no_memory();
    if (!HAK_EXACT && bytes <= HAK_MID_MAX) {
        const unsigned c = hak_class_of(bytes);
        void *ptr = take_cached_of(c);
        if (hak_likely(!hak_is_misaligned(ptr))) return memset(ptr, 0, hak_class_bytes(c));
    }
    return hak_alloc(bytes, HAK_MIN_ALIGN, true, HAK_SITE);
}
HAK_LIBC_NAME(calloc, hak_calloc);

/* What a block of a slab holds; 0 for whatever else `ptr` is. */
HAK_INLINE size_t usable_in_slab(const void *ptr) {
    if (HAK_EXACT) return 0;
    struct hak_region region = hak_region_lookup(ptr);
    return region.owner != 0 ? hak_slab_usable(region.descriptor, ptr) : 0;
}

/* Whether a block of a slab is good enough for the size: most of what grows a little at a time. */
HAK_INLINE bool stays_as_it_is(size_t usable, size_t size) {
    return size <= usable && (size > usable / 2 || (usable == HAK_MIN_ALIGN && size != 0));
}

/* A block of a slab is copied into one that is at hand; NULL if there is none. */
HAK_INLINE void *move_at_hand(void *ptr, size_t size, size_t usable, const char *function) {
    void *moved = at_hand(hak_with_room(size, usable));
    if (moved == NULL) return NULL;
    memcpy(moved, ptr, size < usable ? size : usable);
    struct hak_heap *heap = hak_tls_heap;
    if (!put_cached(heap, ptr) && !hak_remote_free_try(heap, ptr) && !put_elsewhere(heap, ptr))
        hak_release(ptr, function);
    return moved;
}

/* The ways of a block that does not stay as it is. Each calls the next last, so that those before need no stack
 * frame. */
static HAK_NOINLINE void *resize_moving(void *ptr, size_t size, uintptr_t site, const char *function, size_t usable) {
    if (size == 0) {
        hak_release(ptr, function);
        return NULL;
    }
    void *moved = usable != 0 ? move_at_hand(ptr, size, usable, function) : NULL;
    return moved != NULL ? moved : hak_resize(ptr, size, site, function);
}
static HAK_NOINLINE void *resize_slow(void *ptr, size_t size, uintptr_t site, const char *function, size_t usable) {
    return ptr == NULL ? malloc_slow(size, site) : resize_moving(ptr, size, site, function, usable);
}
HAK_INLINE void *resize(void *ptr, size_t size, const char *function) {
    const size_t usable = usable_in_slab(ptr);
    return hak_likely(stays_as_it_is(usable, size)) ? ptr : resize_slow(ptr, size, HAK_SITE, function, usable);
}

void *hak_realloc(void *ptr, size_t size) {
    if (HAK_EXACT) return resize_slow(ptr, size, HAK_SITE, "realloc", 0);
    return resize(ptr, size, "realloc");
}
HAK_LIBC_NAME(realloc, hak_realloc);

void *hak_reallocarray(void *ptr, size_t count, size_t size) {
    size_t bytes;
    if (hak_unlikely(__builtin_mul_overflow(count, size, &bytes))) return hak_no_memory();
    if (HAK_EXACT) return resize_slow(ptr, bytes, HAK_SITE, "reallocarray", 0);
    return resize(ptr, bytes, "reallocarray");
}
HAK_LIBC_NAME(reallocarray, hak_reallocarray);

static HAK_NOINLINE size_t usable_slow(const void *ptr) {
    return ptr == NULL ? 0 : hak_usable(ptr, "malloc_usable_size");
}

/* Some programs ask for it with each malloc and each free, to count what they hold. */
size_t hak_malloc_usable_size(void *ptr) {
    const size_t usable = usable_in_slab(ptr);
    return hak_likely(usable != 0) ? usable : usable_slow(ptr);
}
HAK_LIBC_NAME(malloc_usable_size, hak_malloc_usable_size);

/* ---- sized free: the size is believed only by the checked build, which holds it against its own -------------- */

void hak_release_aligned(void *ptr, size_t align, const char *function) {
    if (HAK_CHECKED) hak_guard_expect_alignment(ptr, align, function);
    hak_release(ptr, function);
}

void hak_release_sized(void *ptr, size_t size, size_t align, const char *function) {
    if (HAK_CHECKED) hak_guard_expect_size(ptr, size, function);
    hak_release_aligned(ptr, align, function);
}

void hak_free_sized(void *ptr, size_t size) { hak_release_sized(ptr, size, HAK_MIN_ALIGN, "free_sized"); }
HAK_LIBC_NAME(free_sized, hak_free_sized);

void hak_free_aligned_sized(void *ptr, size_t alignment, size_t size) {
    hak_release_sized(ptr, size, alignment, "free_aligned_sized");
}
HAK_LIBC_NAME(free_aligned_sized, hak_free_aligned_sized);
