/* The pool of superslabs (superslab.h). Lists by longest free run make every take a few instructions; a queue in
 * the order in which superslabs became dirty says what to purge first. While a range is being purged its granules
 * are neither free nor used: nobody can take them, and the lock need not be held. */
#include "stores/superslab.h"

#include "base/options.h"
#include "base/sync.h"
#include "base/sys.h"
#include "pages/budget.h"
#include "pages/meta.h"
#include "pages/pages.h"
#include "pages/region.h"
#include "stores/slab.h"

#define ALL_SLABS UINT32_MAX
static_assert(HAK_SUPERSLAB_SLABS == 32 && HAK_SUPERSLAB_BYTES == 32 * HAK_SLAB_BYTES, "a bit per slab in each mask");
/* Lists for a longest free run of 1, 2-3, 4-7, 8-31 and all 32 granules. */
#define LISTS 5
#define EMPTY_LIST (LISTS - 1)
#define ANY_AGE UINT64_MAX
/* Dirty superslabs looked at for a run. */
#define DIRTY_TRIES 8
/* Most huge pages that are kept small once a part of them was purged. Each may be a mapping of its own to the kernel,
 * which allows a process 65,530: beyond these, what was purged may become resident again. */
#define SPLIT_MOST 4096

struct link {
    struct hak_superslab *next, *prev;
};

/* All fields but the first three under the pool lock. */
struct hak_superslab {
    struct hak_slab_index index; /* slab.h */
    char *base;                  /* constant after init */
    uint64_t generation;         /* constant after init: of the pool that it belongs to */
    uint32_t free_mask;          /* a fresh superslab has all 32 bits set */
    uint32_t dirty_mask;
    uint8_t list; /* index, or LISTS: in none (full) */
    bool in_dirty_queue;
    bool huge;               /* asked to be a huge page: becomes resident as a whole, as far as is known */
    bool split;              /* was huge, and is kept small since a part was purged */
    uint64_t dirty_since_ms; /* when it joined the queue */
    uint64_t empty_since_ms; /* when its last slab came back */
    struct link run, dirty;
};

static struct hak_lock pool_lock = HAK_LOCK_INIT(HAK_RANK_SLABS);
static struct {
    struct hak_superslab *lists[LISTS];
    struct hak_superslab *dirty_first, *dirty_last;
    struct hak_superslab *records; /* at rest, in builds without HAK_REGION_LOOKUP */
    uint64_t generation;           /* grows when a forked child sets the pool aside */
    uint32_t empty_count, split_count;
    uint64_t superslabs, slabs_used, dirty_slabs;
} pool HAK_GUARDED_BY(pool_lock);
static _Atomic uint64_t purged_bytes; /* any thread; relaxed: a counter */
/* Set under the lock when there is more dirty memory than the budget allows; read without it. Relaxed: a hint. */
static _Atomic bool over_budget;

/* ---- masks --------------------------------------------------------------------------------------------- */

/* The granules at which a run of `slabs` set bits starts. */
static uint32_t run_starts(uint32_t mask, unsigned slabs) {
    for (unsigned have = 1; have < slabs; have *= 2) mask &= mask >> have;
    return mask;
}

static uint32_t run_mask(unsigned first, unsigned slabs) { return (ALL_SLABS >> (32 - slabs)) << first; }

static uint8_t list_for(uint32_t free_mask) {
    if (free_mask == ALL_SLABS) return EMPTY_LIST;
    for (uint8_t list = 4; list > 0; list--)
        if (run_starts(free_mask, 1U << (list - 1)) != 0) return (uint8_t)(list - 1);
    return LISTS;
}

/* ---- lists --------------------------------------------------------------------------------------------- */

static void relist_locked(struct hak_superslab *s) HAK_REQUIRES(pool_lock) {
    uint8_t list = list_for(s->free_mask);
    if (list == s->list) return;
    if (s->list != LISTS) {
        if (s->run.prev != NULL) s->run.prev->run.next = s->run.next;
        else pool.lists[s->list] = s->run.next;
        if (s->run.next != NULL) s->run.next->run.prev = s->run.prev;
    }
    pool.empty_count -= s->list == EMPTY_LIST;
    pool.empty_count += list == EMPTY_LIST;
    s->list = list;
    if (list == LISTS) return;
    s->run = (struct link){.next = pool.lists[list], .prev = NULL};
    if (s->run.next != NULL) s->run.next->run.prev = s;
    pool.lists[list] = s;
}

static void dirty_push_locked(struct hak_superslab *s) HAK_REQUIRES(pool_lock) {
    if (s->in_dirty_queue || s->dirty_mask == 0) return;
    s->in_dirty_queue = true;
    s->dirty_since_ms = hak_sys_now_ms();
    s->dirty = (struct link){.next = NULL, .prev = pool.dirty_last};
    if (pool.dirty_last != NULL) pool.dirty_last->dirty.next = s;
    else pool.dirty_first = s;
    pool.dirty_last = s;
}

static void dirty_remove_locked(struct hak_superslab *s) HAK_REQUIRES(pool_lock) {
    if (!s->in_dirty_queue) return;
    s->in_dirty_queue = false;
    if (s->dirty.prev != NULL) s->dirty.prev->dirty.next = s->dirty.next;
    else pool.dirty_first = s->dirty.next;
    if (s->dirty.next != NULL) s->dirty.next->dirty.prev = s->dirty.prev;
    else pool.dirty_last = s->dirty.prev;
}

static void set_dirty_locked(struct hak_superslab *s, uint32_t mask) HAK_REQUIRES(pool_lock) {
    pool.dirty_slabs += (uint64_t)__builtin_popcount(mask) - (uint64_t)__builtin_popcount(s->dirty_mask);
    s->dirty_mask = mask;
    if (mask == 0) dirty_remove_locked(s);
    else dirty_push_locked(s);
}

static bool is_over_locked(enum hak_budget_part part) HAK_REQUIRES(pool_lock) {
    return pool.dirty_slabs * HAK_SLAB_BYTES > hak_budget(HAK_STORE_SLABS, part, pool.slabs_used * HAK_SLAB_BYTES);
}

static bool is_retaken_locked(void) HAK_REQUIRES(pool_lock) {
    return hak_budget_was_trimmed(HAK_STORE_SLABS) && !is_over_locked(HAK_BUDGET_FLOOR);
}

/* ---- take and give ------------------------------------------------------------------------------------- */

static struct hak_slab_run take_from_locked(struct hak_superslab *s, unsigned slabs) HAK_REQUIRES(pool_lock) {
    uint32_t starts = run_starts(s->dirty_mask, slabs), fresh_mask = 0;
    bool fresh = starts == 0, retaken = fresh && is_retaken_locked();
    if (fresh) starts = run_starts(s->free_mask, slabs);
    unsigned first = (unsigned)__builtin_ctz(starts);
    uint32_t mask = run_mask(first, slabs);
    if (fresh) fresh_mask = s->huge ? s->free_mask & ~s->dirty_mask : mask;
    s->free_mask &= ~mask;
    if (s->huge) dirty_remove_locked(s); /* it is in use: its age begins anew */
    set_dirty_locked(s, (s->dirty_mask | fresh_mask) & ~mask);
    relist_locked(s);
    pool.slabs_used += slabs;
    return (struct hak_slab_run){.ptr = s->base + first * HAK_SLAB_BYTES,
                                 .superslab = s,
                                 .first = first,
                                 .fresh = (size_t)__builtin_popcount(fresh_mask) * HAK_SLAB_BYTES,
                                 .retaken = retaken};
}

/* Of those that became dirty last, the one with the least room that has a dirty run: it is resident already, so that
 * using it first keeps RSS down. NULL: none of them has one. */
static struct hak_superslab *find_dirty_locked(unsigned slabs) HAK_REQUIRES(pool_lock) {
    struct hak_superslab *best = NULL, *s = pool.dirty_last;
    for (unsigned tries = DIRTY_TRIES; s != NULL && tries != 0; s = s->dirty.prev, tries--)
        if (run_starts(s->dirty_mask, slabs) != 0 && (best == NULL || s->list < best->list)) best = s;
    return best;
}

static struct hak_slab_run take_any_locked(unsigned slabs) HAK_REQUIRES(pool_lock) {
    struct hak_superslab *dirty = find_dirty_locked(slabs);
    if (dirty != NULL) return take_from_locked(dirty, slabs);
    for (unsigned list = (unsigned)__builtin_ctz(slabs); list < LISTS; list++)
        if (pool.lists[list] != NULL) return take_from_locked(pool.lists[list], slabs);
    return (struct hak_slab_run){.ptr = NULL};
}

static struct hak_superslab *take_record(void) {
    struct hak_superslab *s = NULL;
    if (!HAK_REGION_LOOKUP) {
        hak_lock(&pool_lock);
        s = pool.records;
        if (s != NULL) pool.records = s->run.next;
        hak_unlock(&pool_lock);
    }
    return s != NULL ? s : hak_meta_alloc(sizeof *s);
}

static void give_record(struct hak_superslab *s) {
    if (HAK_REGION_LOOKUP) {
        hak_meta_free(s, sizeof *s);
        return;
    }
    hak_lock(&pool_lock);
    s->run.next = pool.records;
    pool.records = s;
    hak_unlock(&pool_lock);
}

static struct hak_superslab *map_superslab(bool huge) {
    struct hak_superslab *s = take_record();
    if (s == NULL) return NULL;
    s->base = hak_pages_map(HAK_SUPERSLAB_BYTES, HAK_SUPERSLAB_BYTES, NULL);
    if (s->base != NULL && hak_region_reserve(s->base, HAK_SUPERSLAB_BYTES)) {
        hak_region_set(s->base, HAK_SUPERSLAB_BYTES, 0, HAK_KIND_FREE_SLAB, NULL);
        if (!HAK_REGION_LOOKUP) hak_region_set_superslab(s->base, s);
        s->huge = huge && hak_sys_make_huge(s->base, HAK_SUPERSLAB_BYTES);
        if (!huge) hak_sys_keep_small(s->base, HAK_SUPERSLAB_BYTES);
        s->split = false;
        return s;
    }
    if (s->base != NULL) hak_pages_unmap(s->base, HAK_SUPERSLAB_BYTES);
    give_record(s);
    return NULL;
}

struct hak_slab_run hak_superslab_take(unsigned slabs, bool huge) {
    hak_lock(&pool_lock);
    struct hak_slab_run run = take_any_locked(slabs);
    hak_unlock(&pool_lock);
    if (run.ptr != NULL) return run;

    struct hak_superslab *fresh = map_superslab(huge);
    if (fresh == NULL) return run;
    hak_lock(&pool_lock);
    fresh->generation = pool.generation;
    fresh->list = LISTS;
    fresh->free_mask = ALL_SLABS;
    pool.superslabs++;
    run = take_from_locked(fresh, slabs);
    hak_unlock(&pool_lock);
    return run;
}

void hak_superslab_give(struct hak_superslab *s, unsigned first, unsigned slabs) {
    uint32_t mask = run_mask(first, slabs);
    hak_lock(&pool_lock);
    bool ours = s->generation == pool.generation; /* else a fork has set it aside */
    if (ours) {
        hak_assert((s->free_mask & mask) == 0);
        s->free_mask |= mask;
        pool.slabs_used -= slabs;
        if (s->free_mask == ALL_SLABS) s->empty_since_ms = hak_sys_now_ms();
        set_dirty_locked(s, s->dirty_mask | mask);
        relist_locked(s);
        if (is_over_locked(HAK_BUDGET_ALL)) hak_store_rlx(&over_budget, true);
    }
    hak_unlock(&pool_lock);
    if (!ours) hak_pages_purge(s->base + first * HAK_SLAB_BYTES, slabs * HAK_SLAB_BYTES);
}

/* ---- giving back to the system -------------------------------------------------------------------------- */

/* Purges the runs of `mask`; returns the granules that still hold data, because the system refused. */
static uint32_t purge_runs(struct hak_superslab *s, uint32_t mask) {
    uint32_t refused = 0;
    while (mask != 0) {
        unsigned first = (unsigned)__builtin_ctz(mask);
        uint32_t rest = ~(mask >> first);
        unsigned slabs = rest == 0 ? 32 : (unsigned)__builtin_ctz(rest);
        uint32_t run = run_mask(first, slabs);
        if (hak_pages_purge(s->base + first * HAK_SLAB_BYTES, slabs * HAK_SLAB_BYTES))
            hak_add_rlx(&purged_bytes, slabs * HAK_SLAB_BYTES);
        else refused |= run;
        mask &= ~run;
    }
    return refused;
}

/* Notes that the granules of `mask` are to be purged. Whether the superslab is to be kept small from now on: it was
 * huge, and the kernel would make it whole again, and all of it resident, when it next looks. */
static bool split_locked(struct hak_superslab *s, uint32_t mask) HAK_REQUIRES(pool_lock) {
    if (!s->huge || mask == ALL_SLABS || pool.split_count >= SPLIT_MOST) return false;
    s->huge = false;
    s->split = true;
    pool.split_count++;
    return true;
}

/* Purges the superslab that has been dirty longest, if it became so at `latest_ms` or before and more is dirty than
 * that part of the budget. Returns the bytes given back; `*again` says whether another may follow. */
static size_t purge_oldest(uint64_t latest_ms, enum hak_budget_part part, bool *again) {
    *again = false;
    hak_lock(&pool_lock);
    struct hak_superslab *s = pool.dirty_first;
    bool due = s != NULL && s->dirty_since_ms <= latest_ms && is_over_locked(part);
    if (!due) {
        if (part == HAK_BUDGET_ALL) hak_store_rlx(&over_budget, false);
        hak_unlock(&pool_lock);
        return 0;
    }
    uint32_t mask = s->dirty_mask;
    bool split = split_locked(s, mask);
    s->free_mask &= ~mask;
    set_dirty_locked(s, 0);
    relist_locked(s);
    hak_unlock(&pool_lock);

    if (split) hak_sys_keep_small(s->base, HAK_SUPERSLAB_BYTES);
    uint32_t refused = purge_runs(s, mask);

    hak_lock(&pool_lock);
    if (s->generation == pool.generation) {
        s->free_mask |= mask;
        /* What was refused stays dirty, at the end of the queue; a loop must not meet it again at once. */
        set_dirty_locked(s, s->dirty_mask | refused);
        relist_locked(s);
    }
    hak_unlock(&pool_lock);
    *again = refused == 0;
    return (size_t)__builtin_popcount(mask & ~refused) * HAK_SLAB_BYTES;
}

/* Unmaps one superslab that has been empty since `latest_ms` or before; keeps `keep` of them. */
static bool unmap_one(uint64_t latest_ms, uint32_t keep) {
    struct hak_superslab *s = NULL;
    hak_lock(&pool_lock);
    if (pool.empty_count > keep)
        for (s = pool.lists[EMPTY_LIST]; s != NULL && s->empty_since_ms > latest_ms;) s = s->run.next;
    if (s != NULL) {
        s->free_mask = 0;
        set_dirty_locked(s, 0);
        relist_locked(s);
        pool.superslabs--;
        pool.split_count -= s->split;
    }
    hak_unlock(&pool_lock);
    if (s == NULL) return false;
    hak_region_clear(s->base, HAK_SUPERSLAB_BYTES);
    if (!HAK_REGION_LOOKUP) hak_region_set_superslab(s->base, NULL);
    hak_pages_unmap(s->base, HAK_SUPERSLAB_BYTES);
    give_record(s);
    return true;
}

void hak_superslab_relieve(void) {
    bool again = hak_load_rlx(&over_budget) && !hak_pages_purge_is_refused();
    while (again) hak_budget_trimmed(HAK_STORE_SLABS, purge_oldest(ANY_AGE, HAK_BUDGET_ALL, &again));
}

size_t hak_superslab_reclaim(size_t most_bytes) {
    size_t bytes = 0;
    bool again = !hak_pages_purge_is_refused();
    while (again && bytes < most_bytes) bytes += purge_oldest(ANY_AGE, HAK_BUDGET_FLOOR, &again);
    return bytes;
}

static size_t purge_older(uint64_t latest_ms) {
    size_t bytes = 0;
    bool again = true;
    while (again) bytes += purge_oldest(latest_ms, HAK_BUDGET_NONE, &again);
    return bytes;
}

void hak_superslab_decay(uint64_t now_ms) {
    uint64_t purge_delay = hak_option(PURGE_DELAY_MS), unmap_delay = hak_option(UNMAP_DELAY_MS);
    if (now_ms >= purge_delay) purge_older(now_ms - purge_delay);
    while (now_ms >= unmap_delay && unmap_one(now_ms - unmap_delay, 1)) continue;
}

size_t hak_superslab_purge_all(void) {
    const size_t bytes = purge_older(ANY_AGE);
    while (unmap_one(ANY_AGE, 0)) continue;
    return bytes;
}

/* ---- inspection ---------------------------------------------------------------------------------------- */

struct hak_superslab_stats hak_superslab_stats(void) {
    hak_lock(&pool_lock);
    struct hak_superslab_stats stats = {
        .superslabs = pool.superslabs, .slabs_used = pool.slabs_used, .dirty_bytes = pool.dirty_slabs * HAK_SLAB_BYTES};
    hak_unlock(&pool_lock);
    stats.purged_bytes = hak_load_rlx(&purged_bytes);
    return stats;
}

void hak_superslab_fork_child(void) HAK_NO_TSA {
    if (!hak_lock_reset_in_child(&pool_lock)) return;
    for (unsigned i = 0; i < LISTS; i++) pool.lists[i] = NULL;
    pool.dirty_first = pool.dirty_last = pool.records = NULL;
    pool.generation++;
    pool.empty_count = pool.split_count = 0;
    pool.superslabs = pool.slabs_used = pool.dirty_slabs = 0;
}

bool hak_superslab_check(void) {
    bool good = true;
    uint64_t dirty = 0;
    hak_lock(&pool_lock);
    for (unsigned list = 0; list < LISTS; list++)
        for (struct hak_superslab *s = pool.lists[list]; s != NULL; s = s->run.next)
            good = good && s->list == list && list_for(s->free_mask) == list && (s->dirty_mask & ~s->free_mask) == 0;
    for (struct hak_superslab *s = pool.dirty_first; s != NULL; s = s->dirty.next)
        dirty += (uint64_t)__builtin_popcount(s->dirty_mask);
    good = good && dirty == pool.dirty_slabs;
    hak_unlock(&pool_lock);
    return good;
}
