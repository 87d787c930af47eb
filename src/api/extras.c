/* What hakmem offers beyond the standard interface (hakmem.h). */
#include "api/alloc.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "front/tick.h"
#include "stores/bigcache.h"
#include "hakmem.h"

#include <string.h>

#define TEXT(x) #x
#define DOTTED(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

#define VERSION DOTTED(HAKMEM_VERSION_MAJOR, HAKMEM_VERSION_MINOR, HAKMEM_VERSION_PATCH)

/* An ELF note, by which hakrun knows a file that has hakmem in it, also one without symbols (`readelf -n`). */
static const struct {
    uint32_t name_bytes, text_bytes, type;
    char name[8], text[16];
} note __attribute__((section(".note.hakmem"), used, aligned(4))) = {
    .name_bytes = sizeof "hakmem", .text_bytes = 16, .type = 1, .name = "hakmem", .text = VERSION};

static_assert(sizeof VERSION <= sizeof note.text, "the version ends with a NUL");

const char *hak_version(void) {
    static const char plain[] = VERSION, checked[] = VERSION "-checked";
    return HAK_CHECKED ? checked : plain;
}

size_t hak_good_size(size_t size) { return hak_rounded(size); }

struct hak_sized_ptr hak_malloc_at_least(size_t size) {
    void *ptr = hak_alloc(size, HAK_MIN_ALIGN, false, HAK_SITE);
    return (struct hak_sized_ptr){.ptr = ptr, .size = ptr == NULL ? 0 : hak_usable(ptr, "malloc_at_least")};
}

void *hak_rezalloc(void *ptr, size_t size) {
    if (ptr == NULL) return hak_alloc(size, HAK_MIN_ALIGN, true, HAK_SITE);
    if (size == 0) {
        hak_release(ptr, "rezalloc");
        return NULL;
    }
    size_t before = hak_usable(ptr, "rezalloc");
    char *moved = hak_resize(ptr, size, HAK_SITE, "rezalloc");
    if (moved == NULL) return NULL;
    /* A block that moved holds the old content up to the smaller size, and whatever was there before behind it. */
    size_t kept = moved == ptr ? before : before < size ? before : size;
    size_t after = hak_usable(moved, "rezalloc");
    if (after > kept) hak_clear(moved + kept, after - kept);
    return moved;
}

int hak_is_owned(const void *ptr) {
    struct hak_region region = hak_region_lookup(ptr);
    return region.owner != 0 || region.kind != HAK_KIND_NONE;
}

void hak_thread_flush(void) {
    hak_tick();
    struct hak_heap *heap = hak_heap_peek();
    if (heap != NULL) hak_tcache_flush_all(heap);
    hak_slab_relieve();
}

size_t hak_purge(void) {
    hak_tick();
    return hak_let_go();
}
