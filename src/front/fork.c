/* Forked children (fork.h). Nothing is locked in the parent: a prepare handler that takes the allocator's locks
 * deadlocks against the C library's. The child puts every floor in order from the bottom up. */
#include "front/fork.h"

#include "base/sys.h"
#include "front/heap.h"
#include "pages/budget.h"
#include "pages/meta.h"
#include "pages/pages.h"
#include "pages/region.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/slab.h"

/* Used where the kernel cannot wipe a page: then only fork() itself is noticed, through its handler. */
static _Atomic uint32_t unwatched = 1;
_Atomic uint32_t *_Atomic hak_fork_word = &unwatched;

void hak_fork_watch(void) {
    size_t bytes = hak_sys_page_bytes();
    _Atomic uint32_t *page = hak_sys_map(bytes);
    if (page == NULL) return;
    if (!hak_sys_wipe_on_fork((void *)page, bytes)) {
        hak_sys_unmap((void *)page, bytes);
        return;
    }
    hak_store_rlx(page, 1);
    hak_store_rel(&hak_fork_word, page);
}

void hak_fork_handler(void) {
    if (hak_load_acq(&hak_fork_word) == &unwatched) hak_fork_child();
    else hak_fork_check();
}

void hak_fork_child(void) {
    hak_store_rlx(hak_load_acq(&hak_fork_word), 1); /* first: what follows is checked as well */
    hak_meta_fork_child();
    hak_pages_fork_child();
    hak_budget_fork_child();
    hak_region_fork_child();
    hak_big_fork_child();
    hak_l25_fork_child();
    hak_slab_fork_child();
    hak_heap_fork_child();
}
