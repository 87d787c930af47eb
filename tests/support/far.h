/* Address space where nothing of hakmem is, at a place of the test's choice: other windows of the region map. */
#ifndef TESTS_SUPPORT_FAR_H
#define TESTS_SUPPORT_FAR_H

#include <errno.h>
#include <sys/mman.h>

#include "support/child.h"

#include "base/sys.h"
#include "pages/pages.h"
#include "pages/region.h"

#define WINDOW ((uintptr_t)1 << HAK_WINDOW_SHIFT)

/* These tools know only certain addresses. */
#define ANY_ADDRESS (!HAK_TSAN && !HAK_MSAN)

/* A piece of address space where nothing of ours is, at a multiple of `align` plus `offset`. */
static UNUSED char *far_away(size_t bytes, uintptr_t align, uintptr_t offset) {
    for (uintptr_t at = (uintptr_t)0x200000000000; at < (uintptr_t)0x400000000000; at += align) {
        void *ptr = mmap((void *)(at + offset), bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (ptr == (void *)(at + offset)) return ptr;
        if (ptr != MAP_FAILED) munmap(ptr, bytes);
    }
    must(!"no room");
    return NULL;
}

static UNUSED int refuse_to_unmap(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    return call == HAK_SYS_UNMAP ? ENOMEM : 0;
}

/* Makes [at, at + bytes) of a fresh window the only range that the next mapping can be served from. */
static UNUSED char *keep_far_away(size_t bytes, uintptr_t offset) {
    char *ptr = far_away(bytes, WINDOW, offset);
    must(hak_region_leaf_of(ptr) == NULL);
    hak_sys_set_fault_for_test(refuse_to_unmap);
    hak_pages_unmap(ptr, bytes);
    hak_sys_set_fault_for_test(NULL);
    return ptr;
}

#endif
