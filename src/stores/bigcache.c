/* BigCache's entry points (bigcache.h): a block's life in the user's hands. */
#include "stores/bigcache.h"

#include "base/options.h"
#include "base/sys.h"
#include "pages/budget.h"
#include "pages/meta.h"
#include "pages/pages.h"
#include "pages/region.h"
#include "stores/bigcache_purge.h"

#include <string.h>

#define table hak_big_table
/* A guard splits a mapping in two, and the kernel allows 65,530. */
#define GUARDS_MAX 8192
/* Pages move a table at a time where both ends are aligned to what a table maps. */
#define MOVE_ALIGN (2 * HAK_MIB)

static const struct hak_block NONE = {.ptr = NULL};

/* Counters: any thread, relaxed; they publish nothing. */
static _Atomic uint64_t served_blocks, served_bytes, ended_blocks, ended_bytes, misses;
static _Atomic uint64_t guards;

/* Bytes to map for a request; 0: too large. In checked builds there is room for a guard page. */
static size_t extent(size_t bytes) {
    if (bytes > HAK_SIZE_MAX - 4 * HAK_GRANULE) return 0;
    return hak_round_up(bytes + (HAK_CHECKED ? hak_sys_page_bytes() : 0), HAK_GRANULE);
}

static size_t usable_of(const struct hak_big *big) { return hak_load_rlx(&big->usable); }

static void set_usable(struct hak_big *big, size_t bytes) {
    hak_store_rlx(&big->usable, hak_round_up(bytes, HAK_CHECKED ? hak_sys_page_bytes() : HAK_GRANULE));
}

/* Makes the pages behind the block inaccessible, or accessible again. */
static bool protect_tail(const struct hak_big *big, bool access) {
    size_t usable = usable_of(big);
    return hak_sys_protect(hak_load_rlx(&big->base) + usable, hak_big_mapped(big) - usable, access);
}

static void set_guard(struct hak_big *big) {
    if (!HAK_CHECKED || big->guarded || hak_load_rlx(&guards) >= GUARDS_MAX || !protect_tail(big, false)) return;
    big->guarded = true;
    hak_add_rlx(&guards, 1);
}

static bool drop_guard(struct hak_big *big) {
    if (!big->guarded) return true;
    if (!protect_tail(big, true)) return false;
    big->guarded = false;
    hak_sub_rlx(&guards, 1);
    return true;
}

/* Maps a block for a descriptor that nobody knows yet. */
static bool map_block(struct hak_big *big, size_t mapped, size_t align) {
    char *base = hak_pages_map(mapped, align, &big->zero);
    if (base == NULL) return false;
    if (!hak_region_reserve(base, mapped)) {
        hak_pages_unmap(base, mapped);
        return false;
    }
    hak_store_rlx(&big->base, base);
    hak_store_rlx(&big->mapped, mapped);
    hak_add_rlx(&hak_big_mapped_bytes, mapped);
    hak_region_set(base, mapped, 0, HAK_KIND_BIG, big);
    return true;
}

/* Makes one of a block and those behind it that were taken out of the cache with it. Their descriptors are done with
 * once no entry leads to them. */
static void join(struct hak_big *big) {
    struct hak_big *next = big->link[HAK_BIG_AGE].next;
    for (struct hak_big *other; (other = next) != NULL;) {
        next = other->link[HAK_BIG_AGE].next;
        hak_region_set(hak_load_rlx(&other->base), hak_big_mapped(other), 0, HAK_KIND_BIG, big);
        hak_store_rlx(&big->mapped, hak_big_mapped(big) + hak_big_mapped(other));
        hak_big_recycle(other);
        hak_pages_count_joined();
    }
}

static struct hak_big *descriptor(void) {
    hak_lock(&table.lock);
    struct hak_big *big = table.spare;
    if (big != NULL) table.spare = big->link[HAK_BIG_AGE].next;
    hak_unlock(&table.lock);
    return big != NULL ? big : hak_meta_alloc(sizeof *big);
}

/* Gives what a held block has beyond `mapped` bytes back to the cache, if it is worth an entry. */
static void cut(struct hak_big *big, size_t mapped) {
    const size_t left = hak_big_mapped(big) - mapped;
    if (left < (size_t)1 << HAK_BIG_SHIFT_MIN) return;
    struct hak_big *rest = descriptor();
    if (rest == NULL) return;
    char *base = hak_load_rlx(&big->base) + mapped;
    hak_store_rlx(&rest->base, base);
    hak_store_rlx(&rest->mapped, left);
    rest->site = big->site;
    hak_store_rel(&rest->state, HAK_BIG_HELD); /* pairs with the swap in claim */
    hak_region_set(base, left, 0, HAK_KIND_BIG, rest);
    hak_store_rlx(&big->mapped, mapped);
    hak_pages_count_cut();
    hak_big_cache(rest);
}

/* A cached block (`*cached`), or else a descriptor without one; NULL: no memory. */
static struct hak_big *take(size_t mapped, size_t align, uintptr_t site, bool *cached) {
    hak_lock(&table.lock);
    struct hak_big *big = NULL;
    if (mapped >= (size_t)1 << HAK_BIG_SHIFT_MIN && mapped <= hak_option(BIGCACHE_BLOCK_MAX))
        big = hak_big_table_take_locked(mapped, align, site);
    hak_unlock(&table.lock);
    *cached = big != NULL;
    if (big == NULL) return descriptor();
    join(big);
    if (hak_big_mapped(big) > hak_big_at_most(mapped)) cut(big, mapped);
    return big;
}

/* A block is served whose memory is not resident. */
static void count_fresh(size_t mapped) {
    hak_budget_count(HAK_STORE_BIG, (ptrdiff_t)mapped);
    if (!hak_budget_was_trimmed(HAK_STORE_BIG)) return;
    hak_lock(&table.lock);
    const bool spent = hak_big_table_is_spent_locked();
    hak_unlock(&table.lock);
    if (spent) hak_budget_retaken(HAK_STORE_BIG, mapped);
}

struct hak_block hak_big_alloc(size_t bytes, size_t align, uintptr_t site) {
    if (bytes == 0) bytes = 1;
    const size_t mapped = extent(bytes);
    bool cached;
    if (align < HAK_GRANULE) align = HAK_GRANULE;
    if (mapped == 0) return NONE;
    struct hak_big *big = take(mapped, align, site, &cached);
    if (big == NULL) return NONE;
    if (!cached) {
        if (!map_block(big, mapped, align)) {
            hak_big_recycle(big);
            return NONE;
        }
        hak_add_rlx(&misses, 1);
    }
    if (big->zero) count_fresh(hak_big_mapped(big));
    set_usable(big, bytes);
    big->site = site;
    set_guard(big);
    const struct hak_block block = {.ptr = hak_load_rlx(&big->base), .bytes = usable_of(big), .zero = big->zero};
    hak_add_rlx(&served_blocks, 1);
    hak_add_rlx(&served_bytes, block.bytes);
    hak_store_rel(&big->state, HAK_BIG_LIVE); /* pairs with the swap in claim */
    return block;
}

/* Takes the live block at `ptr` out of the user's hands: only one thread can. */
static enum hak_free_result claim(struct hak_big *big, const void *ptr) {
    uint32_t state = HAK_BIG_LIVE;
    if (hak_load_rlx(&big->base) != ptr)
        return hak_load_acq(&big->state) == HAK_BIG_LIVE ? HAK_FREE_NOT_START : HAK_FREE_IN_FREE;
    return hak_cas_acqrel(&big->state, &state, HAK_BIG_HELD) ? HAK_FREE_OK : HAK_FREE_DOUBLE;
}

/* A block whose guard would not come off cannot be served again, nor be given to others in case munmap fails too:
 * its memory goes, its address space is lost. */
static void abandon(struct hak_big *big) {
    hak_region_clear(hak_load_rlx(&big->base), hak_big_mapped(big));
    hak_pages_purge(hak_load_rlx(&big->base), hak_big_mapped(big));
    hak_budget_count(HAK_STORE_BIG, -(ptrdiff_t)hak_big_mapped(big));
    big->guarded = false;
    hak_big_recycle(big);
}

enum hak_free_result hak_big_free(void *descriptor, void *ptr) {
    struct hak_big *big = descriptor;
    enum hak_free_result result = claim(big, ptr);
    if (result != HAK_FREE_OK) return result;
    hak_add_rlx(&ended_blocks, 1);
    hak_add_rlx(&ended_bytes, usable_of(big));
    if (drop_guard(big)) hak_big_cache(big);
    else abandon(big);
    return HAK_FREE_OK;
}

size_t hak_big_usable(void *descriptor, const void *ptr) {
    const struct hak_big *big = descriptor;
    bool live = hak_load_acq(&big->state) == HAK_BIG_LIVE && hak_load_rlx(&big->base) == ptr;
    return live ? usable_of(big) : 0;
}

void hak_big_set_request(void *descriptor, size_t bytes) {
    struct hak_big *big = descriptor;
    if (HAK_EXACT) hak_store_rlx(&big->request, bytes);
}

size_t hak_big_request(void *descriptor) {
    const struct hak_big *big = descriptor;
    return hak_load_rlx(&big->request);
}

static void set_mapped(struct hak_big *big, size_t mapped) {
    const ptrdiff_t more = (ptrdiff_t)mapped - (ptrdiff_t)hak_big_mapped(big);
    hak_add_rlx(&hak_big_mapped_bytes, (size_t)more); /* wraps for a shrink, as it should */
    hak_budget_count(HAK_STORE_BIG, more);
    hak_store_rlx(&big->mapped, mapped);
}

/* Moves the pages to a larger mapping. The old entries go before the move: afterwards the old range may belong to
 * another thread. */
static bool move(struct hak_big *big, size_t mapped) {
    char *base = hak_load_rlx(&big->base);
    const size_t old = hak_big_mapped(big);
    char *target = hak_pages_map(mapped, old >= 2 * MOVE_ALIGN ? MOVE_ALIGN : HAK_GRANULE, NULL);
    if (target == NULL) return false;
    if (!hak_region_reserve(target, mapped)) { /* afterwards it would be too late to find that out */
        hak_pages_unmap(target, mapped);
        return false;
    }
    hak_region_clear(base, old);
    const bool moved = hak_pages_move(base, old, target, mapped);
    if (moved) {
        hak_store_rlx(&big->base, target);
        set_mapped(big, mapped);
    }
    hak_region_set(hak_load_rlx(&big->base), hak_big_mapped(big), 0, HAK_KIND_BIG, big);
    return moved;
}

/* The map is extended only once the room is there: a request for most of the address space must not fill it. */
static bool grow_in_place(struct hak_big *big, size_t mapped, bool *movable) {
    char *base = hak_load_rlx(&big->base);
    const size_t old = hak_big_mapped(big);
    if (!hak_pages_resize(base, old, mapped, movable)) return false;
    if (!hak_region_reserve(base + old, mapped - old)) {
        *movable = false; /* there is no memory for entries elsewhere either */
        hak_pages_resize(base, mapped, old, &(bool){false});
        return false;
    }
    hak_region_set(base + old, mapped - old, 0, HAK_KIND_BIG, big);
    set_mapped(big, mapped);
    return true;
}

/* Where a block must move in order to grow, it gets an eighth more than asked: the next step then stays in place. */
static bool grow(struct hak_big *big, size_t mapped) {
    bool movable;
    if (grow_in_place(big, mapped, &movable)) return true;
    return movable && (move(big, hak_round_up(mapped + mapped / 8, HAK_GRANULE)) || move(big, mapped));
}

/* The entries go before the tail does, as in move(). */
static void shrink(struct hak_big *big, size_t mapped) {
    char *base = hak_load_rlx(&big->base);
    const size_t old = hak_big_mapped(big);
    bool movable;
    hak_region_clear(base + mapped, old - mapped);
    if (hak_pages_resize(base, old, mapped, &movable)) set_mapped(big, mapped);
    else hak_region_set(base + mapped, old - mapped, 0, HAK_KIND_BIG, big);
}

/* Brings the mapping to hold `mapped` bytes; one that is up to 25 % larger is left alone. */
static bool fit(struct hak_big *big, size_t mapped) {
    const size_t old = hak_big_mapped(big);
    if (mapped > old) return grow(big, mapped);
    if (old > hak_big_at_most(mapped)) shrink(big, mapped);
    return true;
}

struct hak_block hak_big_realloc(void *descriptor, void *ptr, size_t bytes, uintptr_t site) {
    struct hak_big *big = descriptor;
    const size_t mapped = extent(bytes);
    if (bytes <= HAK_L25_MAX || mapped == 0 || claim(big, ptr) != HAK_FREE_OK) return NONE;
    const size_t old = usable_of(big);
    const bool done = drop_guard(big) && fit(big, mapped);
    if (done) {
        set_usable(big, bytes);
        big->site = site;
    }
    set_guard(big);
    const struct hak_block block = {
        .ptr = done ? hak_load_rlx(&big->base) : NULL, .bytes = usable_of(big), .zero = big->zero};
    if (block.bytes > old) hak_add_rlx(&served_bytes, block.bytes - old);
    if (block.bytes < old) hak_add_rlx(&ended_bytes, old - block.bytes);
    if (block.bytes < old) big->zero = false; /* the user wrote there */
    hak_store_rel(&big->state, HAK_BIG_LIVE); /* pairs with the swap in claim */
    return block;
}

struct hak_big_stats hak_big_stats(void) {
    struct hak_big_stats stats = {.purged_bytes = hak_load_rlx(&hak_big_purged_bytes)};
    /* what ended is read first: then it never exceeds what was served */
    stats.live_blocks = 0 - hak_load_rlx(&ended_blocks);
    stats.live_bytes = 0 - hak_load_rlx(&ended_bytes);
    stats.served_blocks = hak_load_rlx(&served_blocks);
    stats.served_bytes = hak_load_rlx(&served_bytes);
    stats.live_blocks += stats.served_blocks;
    stats.live_bytes += stats.served_bytes;
    stats.mapped_bytes = hak_load_rlx(&hak_big_mapped_bytes);
    stats.misses = hak_load_rlx(&misses);
    hak_lock(&table.lock);
    stats.cached_bytes = table.mapped_bytes;
    stats.cached_dirty = table.dirty_bytes;
    stats.entries = table.entries;
    stats.buckets = table.bucket_count;
    stats.resizes = table.resizes;
    stats.hits_site = table.hits_site;
    stats.hits_class = table.hits_class;
    stats.hits_larger = table.hits_larger;
    stats.hits_cut = table.hits_cut;
    stats.hits_joined = table.hits_joined;
    stats.evictions = table.evictions;
    hak_unlock(&table.lock);
    return stats;
}

bool hak_big_check(void) {
    hak_lock(&table.lock);
    bool good = hak_big_table_check_locked();
    hak_unlock(&table.lock);
    return good;
}

/* The counters stay; the buckets and all that hangs on them are forgotten. */
static void empty_table(void) HAK_NO_TSA {
    table.bucket_count = table.entries = 0;
    table.mapped_bytes = table.dirty_bytes = 0;
    table.buckets = NULL;
    table.spare = NULL;
    table.dirty = table.clean = (struct hak_big_list){.first = NULL};
    memset(table.classes, 0, sizeof table.classes);
}

void hak_big_fork_child(void) HAK_NO_TSA {
    if (hak_lock_reset_in_child(&table.lock)) empty_table();
}

#if HAK_TEST
void hak_big_reset_for_test(void) HAK_NO_TSA {
    hak_big_purge_all();
    hak_meta_free(table.buckets, 2 * (size_t)table.bucket_count * sizeof *table.buckets);
    empty_table();
    hak_budget_reset_for_test(HAK_STORE_BIG);
    table.hits_site = table.hits_class = table.hits_larger = table.hits_cut = table.hits_joined = table.evictions =
        table.resizes = 0;
    hak_store_rlx(&misses, 0);
}
#endif
