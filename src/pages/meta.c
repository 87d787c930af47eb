/* Metadata arena (meta.h): bump allocation in chunks, recycled through lists of one size each.
 * The links lie in the free metadata blocks themselves: this is hakmem's own memory, never a user's. */
#include "pages/meta.h"

#include "base/annotate.h"
#include "base/size_class.h"
#include "base/sync.h"
#include "base/sys.h"

#include <string.h>

#define CHUNK_BYTES (256 * HAK_KIB)

struct free_block {
    struct free_block *next;
};

static struct hak_lock arena_lock = HAK_LOCK_INIT(HAK_RANK_META);
static struct {
    char *next, *end; /* the rest of the current chunk: still zero */
    struct free_block *lists[HAK_CLASS_COUNT];
} arena HAK_GUARDED_BY(arena_lock);
static _Atomic uint64_t mapped_bytes; /* any thread; relaxed: a counter */

/* Bytes really given for a request: a size class, which is a multiple of a cache line from there up; over the
 * largest class whole pages in a mapping of their own. */
static size_t granted(size_t bytes) {
    if (bytes > HAK_MID_MAX) return hak_round_up(bytes, hak_sys_page_bytes());
    if (bytes > HAK_CACHE_LINE) bytes = hak_round_up(bytes, HAK_CACHE_LINE);
    return hak_class_bytes(hak_class_of(bytes));
}

static void *map_metadata(size_t bytes) {
    void *ptr = hak_sys_map(bytes);
    if (ptr == NULL) return NULL;
    hak_sys_keep_small(ptr, bytes);
    hak_add_rlx(&mapped_bytes, bytes);
    if (HAK_VALGRIND) hak_annotate_metadata(ptr, bytes, true);
    return ptr;
}

static bool unmap_metadata(void *ptr, size_t bytes) {
    if (HAK_VALGRIND) hak_annotate_metadata(ptr, bytes, false);
    bool unmapped = hak_sys_unmap(ptr, bytes);
    if (unmapped) hak_sub_rlx(&mapped_bytes, bytes);
    return unmapped;
}

static void *bump_locked(size_t bytes) HAK_REQUIRES(arena_lock) {
    char *start = arena.next;
    if (start == NULL) return NULL;
    if (bytes >= HAK_CACHE_LINE) start = start + (-(uintptr_t)start & (HAK_CACHE_LINE - 1));
    if (bytes > (size_t)(arena.end - start)) return NULL;
    arena.next = start + bytes;
    return start;
}

void *hak_meta_alloc(size_t bytes) {
    bytes = granted(bytes);
    if (bytes > HAK_MID_MAX) return map_metadata(bytes);
    unsigned c = hak_class_of(bytes);

    hak_lock(&arena_lock);
    struct free_block *recycled = arena.lists[c];
    if (recycled != NULL) arena.lists[c] = recycled->next;
    void *fresh = recycled == NULL ? bump_locked(bytes) : NULL;
    hak_unlock(&arena_lock);
    if (recycled != NULL) return memset(recycled, 0, bytes);
    if (fresh != NULL) return fresh;

    char *chunk = map_metadata(CHUNK_BYTES);
    if (chunk == NULL) return NULL;
    hak_lock(&arena_lock);
    fresh = bump_locked(bytes); /* another thread may have been here first */
    if (fresh == NULL) {
        arena.next = chunk;
        arena.end = chunk + CHUNK_BYTES;
        fresh = bump_locked(bytes);
        chunk = NULL;
    }
    hak_unlock(&arena_lock);
    if (chunk != NULL) unmap_metadata(chunk, CHUNK_BYTES);
    return fresh;
}

void hak_meta_free(void *ptr, size_t bytes) {
    if (ptr == NULL) return;
    bytes = granted(bytes);
    if (bytes > HAK_MID_MAX) {
        if (!unmap_metadata(ptr, bytes))
            hak_sys_purge(ptr, bytes); /* its address space is lost; that it is seldom enough makes up for it */
        return;
    }
    unsigned c = hak_class_of(bytes);
    struct free_block *block = ptr;
    hak_lock(&arena_lock);
    block->next = arena.lists[c];
    arena.lists[c] = block;
    hak_unlock(&arena_lock);
}

uint64_t hak_meta_mapped_bytes(void) { return hak_load_rlx(&mapped_bytes); }

void hak_meta_fork_child(void) HAK_NO_TSA {
    if (hak_lock_reset_in_child(&arena_lock)) memset(&arena, 0, sizeof arena);
}
