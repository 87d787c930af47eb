/* What leak checkers are told at the end of the process, from the region map: the mappings that hold users' blocks.
 *
 * LeakSanitizer does not look through mappings of others: what only a block of ours points to would be lost to it.
 * Memcheck looks through everything that is writable, so that what only a lost block points to would be in use to it,
 * and so would each block that hakmem's own records name. Just before it looks, it calls __libc_freeres(), the last
 * code of the process that runs. Read-only then, mappings are no roots to it, while blocks that are in use are
 * followed. */
#include "base/config.h"

#if HAK_ASAN || HAK_VALGRIND

#include "base/annotate.h"
#include "base/sys.h"
#include "pages/region.h"

/* Calls `visit` for each range of granules that are ours. */
static void each_range(void (*visit)(void *ptr, size_t bytes)) {
    for (size_t window = 0; window < HAK_ROOT_ENTRIES; window++) {
        const struct hak_region_leaf *leaf = hak_load_acq(&hak_region_root[window]);
        size_t first = 0, granules = leaf == NULL ? 0 : HAK_WINDOW_GRANULES;
        for (size_t i = 0; i <= granules; i++) {
            bool ours = i < granules && hak_load_rlx(&leaf->tag[i]) != 0;
            if (ours) continue;
            if (i > first)
                visit((void *)((window << HAK_WINDOW_SHIFT) + (first << HAK_GRANULE_SHIFT)), (i - first)
                                                                                                 << HAK_GRANULE_SHIFT);
            first = i + 1;
        }
    }
}

#if HAK_ASAN
static void add_root(void *ptr, size_t bytes) { hak_annotate_root(ptr, bytes); }

/* LeakSanitizer's check is a handler too, registered before any constructor runs: it comes behind this one, but before
 * the destructors. */
extern int atexit(void (*handler)(void)); /* <stdlib.h> is not for this floor */
static void at_end(void) { each_range(add_root); }
__attribute__((constructor(101))) static void start(void) { atexit(at_end); }
#endif

#if HAK_VALGRIND
extern void *dlsym(void *handle, const char *symbol); /* <dlfcn.h> is not for this floor */
#define NEXT ((void *)-1L)

static void seal(void *ptr, size_t bytes) { hak_sys_seal(ptr, bytes); }

__attribute__((visibility("default"))) void __libc_freeres(void);
void __libc_freeres(void) {
    void (*next)(void);
    *(void **)&next = dlsym(NEXT, "__libc_freeres");
    if (next != NULL) next();
    each_range(seal);
    hak_annotate_each_metadata(seal);
}
#endif

#endif
