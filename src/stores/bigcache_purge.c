/* Into the cache, out of it by budget and age, and its growth (bigcache_purge.h; decay and purge-all of bigcache.h).
 *
 * A mapping that is purged is out of the table meanwhile, so that nobody is served it, but still held, so that a
 * second free of it is found. One that cannot be purged is unmapped: then it would only cost memory. */
#include "stores/bigcache_purge.h"

#include "base/log.h"
#include "base/options.h"
#include "base/sys.h"
#include "pages/budget.h"
#include "pages/meta.h"
#include "pages/pages.h"
#include "pages/region.h"
#include "stores/bigcache.h"

#define table hak_big_table
/* Entries that expire under one hold of the lock. */
#define BATCH 64
#define ANY_AGE UINT64_MAX

_Atomic uint64_t hak_big_mapped_bytes, hak_big_purged_bytes;

void hak_big_recycle(struct hak_big *big) {
    hak_store_rel(&big->state, HAK_BIG_SPARE); /* pairs with the swap in claim */
    hak_lock(&table.lock);
    big->link[HAK_BIG_AGE].next = table.spare;
    table.spare = big;
    hak_unlock(&table.lock);
}

/* The region entry goes first: once the range is unmapped, another thread may get it from the OS and enter it. */
void hak_big_drop(struct hak_big *big) {
    char *base = hak_load_rlx(&big->base);
    const size_t mapped = hak_big_mapped(big);
    hak_region_clear(base, mapped);
    hak_pages_unmap(base, mapped);
    hak_sub_rlx(&hak_big_mapped_bytes, mapped);
    if (!big->zero) hak_add_rlx(&hak_big_purged_bytes, mapped); /* else that was done when it was purged */
    hak_big_recycle(big);
}

static bool purge(struct hak_big *big) {
    const size_t mapped = hak_big_mapped(big);
    big->zero = hak_pages_purge(hak_load_rlx(&big->base), mapped);
    if (!big->zero) return false;
    hak_add_rlx(&hak_big_purged_bytes, mapped);
    return true;
}

/* `*full`: the number of buckets, if there should be more. */
static void insert_locked(struct hak_big *big, struct hak_big_victims *victims, uint32_t *full)
    HAK_REQUIRES(hak_big_table.lock) {
    hak_big_table_insert_locked(big, victims);
    *full = hak_big_table_is_full_locked() ? table.bucket_count : 0;
}

/* Does with the victims what the table wanted. Purged ones go back in, which may displace others in turn. Returns the
 * bytes that were dirty. */
static size_t finish(struct hak_big_victims victims, uint32_t *full) {
    size_t bytes = 0;
    for (struct hak_big *big; (big = hak_big_next_victim(&victims.purge)) != NULL;) {
        bool kept = false;
        bytes += hak_big_mapped(big);
        if (purge(big)) {
            hak_lock(&table.lock);
            kept = table.bucket_count != 0; /* else a forked child has set the table aside meanwhile */
            if (kept) insert_locked(big, &victims, full);
            hak_unlock(&table.lock);
        }
        if (!kept) hak_big_drop(big);
    }
    for (struct hak_big *big; (big = hak_big_next_victim(&victims.unmap)) != NULL;) {
        if (!big->zero) bytes += hak_big_mapped(big);
        hak_big_drop(big);
    }
    return bytes;
}

static void log_resize(uint32_t from, uint32_t to, uint32_t entries) {
    struct hak_text text = {.used = 0};
    hak_text_str(&text, "[BIGCACHE] Resized: ");
    hak_text_u64(&text, from);
    hak_text_str(&text, " → ");
    hak_text_u64(&text, to);
    hak_text_str(&text, " buckets (");
    hak_text_u64(&text, entries);
    hak_text_str(&text, " entries)");
    hak_text_line(&text, 2);
}

/* Makes `to` buckets of `from`, unless another thread was first or memory is short. */
static void resize(uint32_t from, uint32_t to) {
    const size_t unit = sizeof(struct hak_big_list);
    struct hak_big_list *fresh = hak_meta_alloc(2 * to * unit), *left = fresh;
    if (fresh == NULL) return;
    hak_lock(&table.lock);
    const bool first = table.bucket_count == from;
    const uint32_t entries = table.entries;
    if (first) {
        left = hak_big_table_rehash_locked(fresh, to);
        if (from != 0) table.resizes++;
    }
    hak_unlock(&table.lock);
    hak_meta_free(left, 2 * (first ? from : to) * unit);
    if (first && from != 0 && hak_option(LOG)) log_resize(from, to, entries);
}

static bool is_cacheable(size_t mapped) {
    return mapped >= (size_t)1 << HAK_BIG_SHIFT_MIN && mapped <= hak_option(BIGCACHE_BLOCK_MAX) &&
           mapped <= hak_option(BIGCACHE_MAPPED);
}

/* Inserts; false if the table has no buckets yet. */
static bool insert(struct hak_big *big, uint32_t *full) {
    struct hak_big_victims victims = {.unmap = {.first = NULL}};
    hak_lock(&table.lock);
    const bool ready = table.bucket_count != 0;
    if (ready) insert_locked(big, &victims, full);
    hak_unlock(&table.lock);
    hak_budget_trimmed(HAK_STORE_BIG, finish(victims, full));
    return ready;
}

/* One that is over the budget of dirty memory by itself must not push all others out: it is purged. False if the
 * system refuses that. */
static bool fit_budget(struct hak_big *big) {
    const size_t mapped = hak_big_mapped(big);
    if (mapped <= hak_option(BIGCACHE_RESIDENT)) return true;
    hak_lock(&table.lock);
    const bool over = mapped > hak_big_table_budget_locked(HAK_BUDGET_ALL, mapped);
    hak_unlock(&table.lock);
    if (!over) return true;
    if (!purge(big)) return false;
    hak_budget_count(HAK_STORE_BIG, -(ptrdiff_t)mapped);
    hak_budget_trimmed(HAK_STORE_BIG, mapped);
    return true;
}

void hak_big_cache(struct hak_big *big) {
    uint32_t full = 0;
    big->zero = false;
    big->freed_ms = hak_sys_now_ms();
    bool keep = is_cacheable(hak_big_mapped(big)) && fit_budget(big);
    if (keep && !insert(big, &full)) {
        resize(0, HAK_BIG_BUCKETS_MIN);
        keep = insert(big, &full);
    }
    if (!keep) {
        if (!big->zero) hak_budget_count(HAK_STORE_BIG, -(ptrdiff_t)hak_big_mapped(big));
        hak_big_drop(big);
    }
    if (full != 0) resize(full, 2 * full);
}

/* All that was freed at these times or earlier. Returns the bytes unmapped. */
static size_t give_back(uint64_t unmap_before_ms, uint64_t purge_before_ms) {
    size_t bytes = 0;
    uint32_t full; /* never through these: they were in the table before */
    bool more = true;
    while (more) {
        struct hak_big_victims victims = {.unmap = {.first = NULL}};
        hak_lock(&table.lock);
        hak_big_table_expire_locked(unmap_before_ms, purge_before_ms, BATCH, &victims);
        hak_unlock(&table.lock);
        more = victims.unmap.first != NULL || victims.purge.first != NULL;
        for (const struct hak_big *big = victims.unmap.first; big != NULL; big = big->link[HAK_BIG_AGE].next)
            bytes += hak_big_mapped(big);
        finish(victims, &full);
    }
    return bytes;
}

size_t hak_big_reclaim(size_t most_bytes) {
    struct hak_big_victims victims = {.unmap = {.first = NULL}};
    uint32_t full; /* never through these, as above */
    hak_lock(&table.lock);
    hak_big_table_reclaim_locked(most_bytes, BATCH, &victims);
    hak_unlock(&table.lock);
    return finish(victims, &full);
}

void hak_big_decay(uint64_t now_ms) {
    const uint64_t unmap_delay = hak_option(BIGCACHE_DECAY_MS), purge_delay = hak_option(PURGE_DELAY_MS);
    const uint64_t least = unmap_delay < purge_delay ? unmap_delay : purge_delay;
    if (now_ms < least) return;
    give_back(now_ms >= unmap_delay ? now_ms - unmap_delay : 0, now_ms >= purge_delay ? now_ms - purge_delay : 0);
}

size_t hak_big_purge_all(void) { return give_back(ANY_AGE, ANY_AGE); }
