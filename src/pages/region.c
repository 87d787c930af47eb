/* Growth and writing of the region map (region.h). Reading is inline there and takes no lock. */
#include "pages/region.h"

#include "base/annotate.h"
#include "base/sys.h"
#include "pages/pages.h"

#include <string.h>

static struct hak_lock grow_lock = HAK_LOCK_INIT(HAK_RANK_REGION);
struct hak_region_leaf *_Atomic hak_region_root[HAK_ROOT_ENTRIES];

static bool add_leaf(uintptr_t window) {
    bool zero;
    struct hak_region_leaf *leaf = hak_pages_map(sizeof *leaf, HAK_GRANULE, &zero);
    if (leaf == NULL) return false;
    /* Most programs use little of it. */
    hak_sys_keep_small(leaf, sizeof *leaf);
    if (HAK_VALGRIND) hak_annotate_defined(leaf, sizeof *leaf); /* unlike the users' memory it is in use at once */
    if (!zero) memset(leaf, 0, sizeof *leaf);
    hak_lock(&grow_lock);
    bool lost = hak_load_rlx(&hak_region_root[window]) != NULL; /* another thread was first */
    /* release: a fresh leaf's zeroes are visible before the leaf; pairs with the acquire in hak_region_leaf_of */
    if (!lost) hak_store_rel(&hak_region_root[window], leaf);
    hak_unlock(&grow_lock);
    if (lost) hak_pages_unmap(leaf, sizeof *leaf);
    return true;
}

bool hak_region_reserve(const void *ptr, size_t bytes) {
    uintptr_t first = (uintptr_t)ptr >> HAK_WINDOW_SHIFT, last = ((uintptr_t)ptr + bytes - 1) >> HAK_WINDOW_SHIFT;
    if (last >= HAK_ROOT_ENTRIES || last < first) return false;
    for (uintptr_t window = first; window <= last; window++)
        if (hak_load_acq(&hak_region_root[window]) == NULL && !add_leaf(window)) return false;
    return true;
}

void hak_region_set(const void *ptr, size_t bytes, uint32_t owner, uint32_t kind, void *descriptor) {
    for (const char *at = ptr, *end = at + bytes; at < end; at += HAK_GRANULE) {
        struct hak_region_leaf *leaf = hak_region_leaf_of(at);
        size_t i = hak_region_index(at);
        hak_assert(leaf != NULL);
        /* release: whoever finds the descriptor sees what it holds; pairs with hak_region_lookup */
        hak_store_rel(&leaf->descriptor[i], descriptor);
        hak_store_rlx(&leaf->tag[i], owner | (uint64_t)kind << 32);
    }
}

void hak_region_set_superslab(const void *ptr, void *superslab) {
    /* release: pairs with the acquire in hak_slab_find */
    hak_store_rel(&hak_region_leaf_of(ptr)->superslab[hak_region_index(ptr) / HAK_SUPERSLAB_SLABS], superslab);
}

/* Zeroes `count` words; whole pages of them by giving the pages back. Zero is "not ours" in either array. */
static void zero_words(_Atomic uint64_t *words, size_t count) {
    uintptr_t page = hak_sys_page_bytes(), start = (uintptr_t)words, end = start + count * sizeof *words;
    uintptr_t first = hak_round_up(start, page), last = end & ~(page - 1);
    bool purged = first < last && hak_sys_purge((void *)first, last - first);
    for (size_t i = 0; i < count; i++) {
        uintptr_t at = (uintptr_t)&words[i];
        if (!purged || at < first || at >= last) hak_store_rlx(&words[i], 0);
    }
}

void hak_region_clear(const void *ptr, size_t bytes) {
    static_assert(sizeof(void *) == sizeof(uint64_t), "a descriptor can be cleared as a word");
    const char *at = ptr;
    for (size_t left = bytes / HAK_GRANULE, count; left != 0; left -= count, at += count * HAK_GRANULE) {
        struct hak_region_leaf *leaf = hak_region_leaf_of(at);
        size_t i = hak_region_index(at);
        count = HAK_WINDOW_GRANULES - i < left ? HAK_WINDOW_GRANULES - i : left;
        zero_words(&leaf->tag[i], count);
        zero_words((_Atomic uint64_t *)(void *)&leaf->descriptor[i], count);
    }
}

void hak_region_fork_child(void) { hak_lock_reset_in_child(&grow_lock); /* a leaf is added by one store */ }
