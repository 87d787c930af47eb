/* The aligned allocations. They differ only in what they say of a wrong alignment. */
#include "api/alloc.h"
#include "api/libc_names.h"
#include "base/sys.h"
#include "front/heap.h"
#include "hakmem.h"

#include <errno.h>

static void *wrong_alignment(void) {
    errno = EINVAL;
    return NULL;
}

static void *aligned_block(size_t size, size_t align, uintptr_t site) {
    if (!HAK_EXACT && size <= HAK_MID_MAX && align <= HAK_MID_MAX) {
        unsigned c = hak_class_of_aligned(size, align);
        void *ptr = c == HAK_NO_CLASS ? HAK_BIN_BOTTOM : hak_bin_take(&hak_tls_heap->bin[c]);
        if (hak_likely(!hak_is_misaligned(ptr))) return ptr;
    }
    return hak_alloc(size, align, false, site);
}

void *hak_aligned_alloc(size_t alignment, size_t size) {
    if (!hak_is_pow2(alignment)) return wrong_alignment();
    return aligned_block(size, alignment, HAK_SITE);
}
HAK_LIBC_NAME(aligned_alloc, hak_aligned_alloc);

int hak_posix_memalign(void **memptr, size_t alignment, size_t size) {
    if (!hak_is_pow2(alignment) || alignment % sizeof(void *) != 0) return EINVAL;
    int saved = errno;
    void *ptr = aligned_block(size, alignment, HAK_SITE);
    errno = saved;
    if (ptr == NULL) return ENOMEM;
    *memptr = ptr;
    return 0;
}
HAK_LIBC_NAME(posix_memalign, hak_posix_memalign);

void *hak_memalign(size_t alignment, size_t size) {
    if (alignment > SIZE_MAX / 2 + 1) return wrong_alignment(); /* no larger power of two fits */
    size_t rounded = HAK_MIN_ALIGN;
    while (rounded < alignment) rounded *= 2;
    return aligned_block(size, rounded, HAK_SITE);
}
HAK_LIBC_NAME(memalign, hak_memalign);

void *hak_valloc(size_t size) { return hak_alloc(size, hak_sys_page_bytes(), false, HAK_SITE); }
HAK_LIBC_NAME(valloc, hak_valloc);

void *hak_pvalloc(size_t size) {
    size_t page = hak_sys_page_bytes();
    if (size > HAK_SIZE_MAX - page) return hak_no_memory();
    return hak_alloc(size == 0 ? page : hak_round_up(size, page), page, false, HAK_SITE);
}
HAK_LIBC_NAME(pvalloc, hak_pvalloc);
