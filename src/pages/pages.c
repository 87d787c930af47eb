/* Aligned mappings of whole granules (pages.h), and the ranges that munmap refused. */
#include "pages/pages.h"

#include "base/annotate.h"
#include "base/options.h"
#include "base/sync.h"
#include "base/sys.h"
#include "pages/meta.h"

/* A range that is ours, mapped, and in nobody's use. The list is in the order of addresses; neighbours are one. */
struct retained {
    struct retained *next;
    char *ptr;
    size_t bytes;
    bool zero;
};

static struct hak_lock retained_lock = HAK_LOCK_INIT(HAK_RANK_RETAINED);
static struct retained *retained_list HAK_GUARDED_BY(retained_lock);

/* Counters: any thread, relaxed, publish nothing. retained_bytes also saves the lock while the list is empty. */
static _Atomic uint64_t mappings, mapped_bytes, retained_bytes;
/* Set once the kernel refused a move: what became of the target is unknown then, so no second try is made. */
static _Atomic bool moves_refused;
static _Atomic uint64_t refused_until_ms; /* any thread; relaxed: advice (hak_pages_purge_is_refused) */

/* Makes `next` a part of `range` if it begins where that ends; returns what is no longer needed, or NULL. */
static struct retained *merge_locked(struct retained *range, struct retained *next) HAK_REQUIRES(retained_lock) {
    if (range == NULL || next == NULL || range->ptr + range->bytes != next->ptr) return NULL;
    range->bytes += next->bytes;
    range->zero = range->zero && next->zero;
    range->next = next->next;
    return next;
}

static void retain(char *ptr, size_t bytes) {
    struct retained *range = hak_meta_alloc(sizeof *range), *before = NULL;
    bool zero = hak_sys_purge(ptr, bytes);
    if (range == NULL) return; /* its memory is given back; the address space is lost */
    *range = (struct retained){.ptr = ptr, .bytes = bytes, .zero = zero};
    hak_lock(&retained_lock);
    for (struct retained *at = retained_list; at != NULL && at->ptr < ptr; at = at->next) before = at;
    struct retained **link = before == NULL ? &retained_list : &before->next;
    range->next = *link;
    *link = range;
    struct retained *spare_next = merge_locked(range, range->next), *spare = merge_locked(before, range);
    hak_unlock(&retained_lock);
    hak_meta_free(spare_next, sizeof *spare_next);
    hak_meta_free(spare, sizeof *spare);
    hak_add_rlx(&retained_bytes, bytes);
}

static void unmap_or_retain(char *ptr, size_t bytes) {
    hak_annotate_open(ptr, bytes); /* memory tools may remember what they were told of it, whoever has it next */
    if (bytes != 0 && !hak_sys_unmap(ptr, bytes)) retain(ptr, bytes);
}

/* Bytes of a range before the first multiple of `align`, if an aligned block of `bytes` fits behind them; else
 * SIZE_MAX. */
static size_t head_of_fit(const struct retained *range, size_t bytes, size_t align) {
    size_t head = -(uintptr_t)range->ptr & (align - 1);
    return head <= range->bytes && range->bytes - head >= bytes ? head : SIZE_MAX;
}

/* The link to the smallest range that has room, or NULL. */
static struct retained **best_fit_locked(size_t bytes, size_t align) HAK_REQUIRES(retained_lock) {
    struct retained **best = NULL;
    for (struct retained **link = &retained_list; *link != NULL; link = &(*link)->next)
        if (head_of_fit(*link, bytes, align) != SIZE_MAX && (best == NULL || (*link)->bytes < (*best)->bytes))
            best = link;
    return best;
}

/* Cuts a block out of a range: what lies before it stays with the range, what lies behind it goes to `tail`, a
 * record that is in no list yet. Either may be of no bytes; the caller drops it. */
static char *cut_locked(struct retained *range, size_t bytes, size_t align, struct retained *tail)
    HAK_REQUIRES(retained_lock) {
    size_t head = head_of_fit(range, bytes, align);
    char *ptr = range->ptr + head;
    *tail = (struct retained){
        .next = range->next, .ptr = ptr + bytes, .bytes = range->bytes - head - bytes, .zero = range->zero};
    range->next = tail;
    range->bytes = head;
    return ptr;
}

/* Takes the record at `link` out of the list if it is of no bytes; returns it, or NULL. */
static struct retained *drop_if_empty_locked(struct retained **link) HAK_REQUIRES(retained_lock) {
    struct retained *range = *link;
    if (range->bytes != 0) return NULL;
    *link = range->next;
    return range;
}

static void *take_retained(size_t bytes, size_t align, bool *zero) {
    if (hak_load_rlx(&retained_bytes) == 0) return NULL;
    struct retained *tail = hak_meta_alloc(sizeof *tail), *head = NULL;
    if (tail == NULL) return NULL;
    char *ptr = NULL;
    hak_lock(&retained_lock);
    struct retained **link = best_fit_locked(bytes, align);
    if (link != NULL) {
        *zero = (*link)->zero;
        ptr = cut_locked(*link, bytes, align, tail);
        tail = drop_if_empty_locked(&(*link)->next);
        head = drop_if_empty_locked(link);
    }
    hak_unlock(&retained_lock);
    hak_meta_free(tail, sizeof *tail);
    hak_meta_free(head, sizeof *head);
    if (ptr != NULL) hak_sub_rlx(&retained_bytes, bytes);
    return ptr;
}

static void *map_aligned(size_t bytes, size_t align) {
    char *ptr = hak_sys_map(bytes);
    if (ptr == NULL || ((uintptr_t)ptr & (align - 1)) == 0) return ptr;
    unmap_or_retain(ptr, bytes);

    size_t slack = align - hak_sys_page_bytes();
    if (bytes > HAK_SIZE_MAX - slack) return NULL;
    ptr = hak_sys_map(bytes + slack);
    if (ptr == NULL) return NULL;
    size_t head = -(uintptr_t)ptr & (align - 1);
    unmap_or_retain(ptr, head);
    unmap_or_retain(ptr + head + bytes, slack - head);
    return ptr + head;
}

static void count_mapped(size_t bytes) {
    hak_add_rlx(&mappings, 1);
    hak_add_rlx(&mapped_bytes, bytes);
}

static void count_unmapped(size_t bytes) {
    hak_sub_rlx(&mappings, 1);
    hak_sub_rlx(&mapped_bytes, bytes);
}

void hak_pages_count_cut(void) { hak_add_rlx(&mappings, 1); }
void hak_pages_count_joined(void) { hak_sub_rlx(&mappings, 1); }

void *hak_pages_map(size_t bytes, size_t align, bool *zero) {
    bool fresh = true;
    void *ptr = take_retained(bytes, align, &fresh);
    if (ptr == NULL) ptr = map_aligned(bytes, align);
    if (ptr != NULL) count_mapped(bytes);
    if (HAK_VALGRIND && ptr != NULL)
        hak_annotate_close(ptr, bytes); /* what is free holds nothing, to a leak check too */
    if (zero != NULL) *zero = fresh;
    return ptr;
}

void hak_pages_unmap(void *ptr, size_t bytes) {
    count_unmapped(bytes);
    unmap_or_retain(ptr, bytes);
}

bool hak_pages_purge(void *ptr, size_t bytes) {
    bool purged = hak_sys_purge(ptr, bytes);
    if (hak_unlikely(purged && hak_load_rlx(&refused_until_ms) != 0)) hak_store_rlx(&refused_until_ms, 0);
    if (purged) return true;
    hak_store_rlx(&refused_until_ms, hak_sys_now_ms() + hak_option(PURGE_DELAY_MS));
    return false;
}

bool hak_pages_purge_is_refused(void) {
    uint64_t until = hak_load_rlx(&refused_until_ms);
    return hak_unlikely(until != 0) && hak_sys_now_ms() < until;
}

bool hak_pages_may_be_huge(uint64_t bytes) {
    const uint64_t least = hak_option(HUGE_BYTES);
    return least != 0 && bytes >= least;
}

bool hak_pages_resize(void *ptr, size_t old_bytes, size_t new_bytes, bool *movable) {
    enum hak_sys_remap result = hak_sys_remap_in_place(ptr, old_bytes, new_bytes);
    *movable = result != HAK_REMAP_SPLIT;
    if (result != HAK_REMAP_DONE) return false;
    hak_add_rlx(&mapped_bytes, new_bytes - old_bytes); /* wraps for a shrink, as it should */
    return true;
}

bool hak_pages_move(void *ptr, size_t old_bytes, void *target, size_t new_bytes) {
    if (hak_load_rlx(&moves_refused)) {
        hak_pages_unmap(target, new_bytes);
        return false;
    }
    bool moved = hak_sys_remap_to(ptr, old_bytes, target, new_bytes);
    if (!moved) hak_store_rlx(&moves_refused, true);
    count_unmapped(moved ? old_bytes : new_bytes);
    return moved;
}

struct hak_pages_stats hak_pages_stats(void) {
    return (struct hak_pages_stats){.mappings = hak_load_rlx(&mappings),
                                    .mapped_bytes = hak_load_rlx(&mapped_bytes),
                                    .retained_bytes = hak_load_rlx(&retained_bytes)};
}

void hak_pages_fork_child(void) HAK_NO_TSA {
    if (!hak_lock_reset_in_child(&retained_lock)) return;
    retained_list = NULL;
    hak_store_rlx(&retained_bytes, 0);
}

#if HAK_TEST
void hak_pages_reset_for_test(void) HAK_NO_TSA {
    for (struct retained *range = retained_list, *next; range != NULL; range = next) {
        next = range->next;
        hak_sys_unmap(range->ptr, range->bytes);
        hak_meta_free(range, sizeof *range);
    }
    retained_list = NULL;
    hak_store_rlx(&retained_bytes, 0);
    hak_store_rlx(&moves_refused, false);
    hak_store_rlx(&refused_until_ms, 0);
}
#endif
