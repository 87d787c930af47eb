/* A model of BigCache: which cached mapping it must serve, purge and drop, from one plain array.
 *
 * The array holds the entries in the order of every list of the table: the dirty ones, newest first, then the clean
 * ones in the order they were purged. bigcache_model_step(model, op) does one operation that the 64 bits of `op`
 * name (any value is valid, so that a fuzzer may feed bytes) and compares all figures. One thread, stopped clock. */
#ifndef TESTS_SUPPORT_BIGCACHE_MODEL_H
#define TESTS_SUPPORT_BIGCACHE_MODEL_H

#include "support/stores.h"

#include "stores/bigcache.h"
#include "stores/bigcache_table.h"

#define BIG_MODEL_LIVE 512
#define BIG_MODEL_CACHED 2048
#define BIG_MODEL_MARKED (2 * HAK_GRANULE) /* bytes of a block that are written */
#define BIG_MODEL_WALK 32                  /* entries of one list that a lookup sees */

struct big_model_entry {
    char *ptr;
    size_t mapped, usable;
    uintptr_t site;
    uint32_t class;
    bool zero;
    uint64_t freed_ms, seed;
};

struct big_model {
    struct big_model_entry live[BIG_MODEL_LIVE]; /* ptr NULL: none */
    struct big_model_entry cached[BIG_MODEL_CACHED];
    unsigned entries, dirty; /* dirty ones come first */
    uint64_t cached_bytes, dirty_bytes;
    uint32_t buckets;
    uint64_t resizes, evictions, hits[3], served, now_ms;
};

static void big_model_start(struct big_model *model) {
    memset(model, 0, sizeof *model);
    model->now_ms = 1000000;
    hak_sys_set_now_for_test(model->now_ms);
    model->evictions = hak_big_stats().evictions;
    model->served = hak_big_stats().served_blocks;
}

static void big_model_insert(struct big_model *model, const struct big_model_entry *entry) {
    const unsigned at = entry->zero ? model->entries : 0;
    assert_in_range(model->entries, 0, BIG_MODEL_CACHED - 1);
    memmove(&model->cached[at + 1], &model->cached[at], (model->entries - at) * sizeof *entry);
    model->cached[at] = *entry;
    model->entries++;
    model->cached_bytes += entry->mapped;
    if (!entry->zero) model->dirty++, model->dirty_bytes += entry->mapped;
}

static struct big_model_entry big_model_remove(struct big_model *model, unsigned at) {
    const struct big_model_entry entry = model->cached[at];
    model->entries--;
    memmove(&model->cached[at], &model->cached[at + 1], (model->entries - at) * sizeof entry);
    model->cached_bytes -= entry.mapped;
    if (!entry.zero) model->dirty--, model->dirty_bytes -= entry.mapped;
    return entry;
}

/* The oldest: the dirty one freed first or the clean one purged first. */
static unsigned big_model_oldest(const struct big_model *model) {
    const unsigned clean = model->dirty, dirty = model->dirty - 1;
    if (clean == model->entries) return dirty;
    return model->dirty != 0 && model->cached[dirty].freed_ms < model->cached[clean].freed_ms ? dirty : clean;
}

/* The first entry of a class that fits, `site` NULL: of the class's list; else of the chain of class and site. */
static int big_model_find(const struct big_model *model, uint32_t class, const uintptr_t *site, size_t need,
                          size_t align) {
    const uint32_t bucket = site == NULL ? 0 : hak_big_hash(class, *site) % model->buckets;
    unsigned seen = 0;
    for (unsigned i = 0; i < model->entries && seen < BIG_MODEL_WALK; i++) {
        const struct big_model_entry *entry = &model->cached[i];
        if (site == NULL && entry->class != class) continue;
        if (site != NULL && hak_big_hash(entry->class, entry->site) % model->buckets != bucket) continue;
        seen++;
        if (entry->class == class && (site == NULL || entry->site == *site) && entry->mapped >= need &&
            entry->mapped <= need + need / 4 && (uintptr_t)entry->ptr % align == 0)
            return (int)i;
    }
    return -1;
}

/* The entry that must serve, or -1. */
static int big_model_lookup(struct big_model *model, size_t need, size_t align, uintptr_t site) {
    uint32_t class = hak_big_class_of(need);
    if (model->entries == 0 || need > hak_option(BIGCACHE_BLOCK_MAX)) return -1;
    int found = big_model_find(model, class, &site, need, align);
    if (found >= 0) return model->hits[0]++, found;
    found = big_model_find(model, class, NULL, need, align);
    if (found >= 0) return model->hits[1]++, found;
    while (found < 0 && hak_big_class_bytes(++class) <= need + need / 4)
        found = big_model_find(model, class, NULL, need, align);
    if (found >= 0) model->hits[2]++;
    return found;
}

static void big_model_alloc(struct big_model *model, struct big_model_entry *live, uint64_t op) {
    const size_t need = hak_round_up(HAK_MIB + 1 + op % (6 * HAK_MIB), HAK_GRANULE);
    const size_t bytes = need - op % HAK_GRANULE, align = HAK_GRANULE << (op >> 24 & 7 ? 0 : op >> 27 & 3);
    const uintptr_t site = (op >> 32) % 40;
    const int expected = big_model_lookup(model, need, align, site);
    struct hak_block got = hak_big_alloc(bytes, align, site);
    assert_non_null(got.ptr);
    struct big_model_entry entry = {.ptr = got.ptr, .mapped = need, .zero = true};
    if (expected >= 0) {
        entry = big_model_remove(model, (unsigned)expected);
        assert_ptr_equal(got.ptr, entry.ptr);
    }
    assert_int_equal(got.bytes, need);
    assert_int_equal(got.zero, entry.zero);
    if (!entry.zero) assert_true(is_marked(got.ptr, BIG_MODEL_MARKED, entry.seed));
    if (entry.zero) assert_true(is_zero(got.ptr, BIG_MODEL_MARKED)); /* no more was ever written */
    model->served++;
    *live = (struct big_model_entry){.ptr = got.ptr, .mapped = entry.mapped, .usable = need, .site = site, .seed = op};
    mark(got.ptr, BIG_MODEL_MARKED, op);
}

static void big_model_drop(struct big_model *model, unsigned at) {
    struct big_model_entry entry = big_model_remove(model, at);
    model->evictions++;
    assert_int_equal(hak_region_lookup(entry.ptr).kind, 0);
}

/* What the budgets and a full table make of an insertion. */
static void big_model_settle(struct big_model *model) {
    while (model->cached_bytes > hak_option(BIGCACHE_MAPPED)) big_model_drop(model, big_model_oldest(model));
    struct big_model_entry purged[64];
    unsigned count = 0;
    while (model->dirty_bytes > hak_option(BIGCACHE_RESIDENT)) {
        purged[count] = big_model_remove(model, model->dirty - 1);
        purged[count++].zero = true;
    }
    const bool full = model->entries * 4 >= model->buckets * 3 &&
                      model->buckets * 2 <= hak_option(BIGCACHE_BUCKETS_MAX);
    for (unsigned i = 0; i < count; i++) big_model_insert(model, &purged[i]);
    if (full) model->buckets *= 2, model->resizes++;
}

static void big_model_free(struct big_model *model, struct big_model_entry *live) {
    void *big = descriptor_of(live->ptr);
    assert_true(is_marked(live->ptr, BIG_MODEL_MARKED, live->seed));
    assert_int_equal(hak_big_free(big, live->ptr + 16), HAK_FREE_NOT_START);
    assert_int_equal(hak_big_free(big, live->ptr), HAK_FREE_OK);
    assert_int_equal(hak_big_free(big, live->ptr), HAK_FREE_DOUBLE);
    struct big_model_entry entry = *live;
    live->ptr = NULL;
    if (entry.mapped > hak_option(BIGCACHE_BLOCK_MAX)) {
        assert_int_equal(hak_region_lookup(entry.ptr).kind, 0);
        return;
    }
    if (model->buckets == 0) model->buckets = HAK_BIG_BUCKETS_MIN;
    entry.class = hak_big_class_of(entry.mapped);
    entry.freed_ms = model->now_ms;
    entry.zero = entry.mapped > hak_option(BIGCACHE_RESIDENT);
    big_model_insert(model, &entry);
    big_model_settle(model);
}

/* In batches of 64, as long as there is something: evicts what is too old, then purges. */
static void big_model_decay(struct big_model *model) {
    const uint64_t unmap_before = model->now_ms - hak_option(BIGCACHE_DECAY_MS);
    const uint64_t purge_before = model->now_ms - hak_option(PURGE_DELAY_MS);
    hak_big_decay(model->now_ms);
    for (unsigned left = 64; left == 64 || left == 0;) {
        struct big_model_entry purged[64];
        unsigned count = 0;
        for (left = 64; left != 0 && model->entries != 0; left--) {
            if (model->cached[big_model_oldest(model)].freed_ms > unmap_before) break;
            big_model_drop(model, big_model_oldest(model));
        }
        for (; left != 0 && model->dirty != 0 && model->cached[model->dirty - 1].freed_ms <= purge_before; left--) {
            purged[count] = big_model_remove(model, model->dirty - 1);
            purged[count++].zero = true;
        }
        for (unsigned i = 0; i < count; i++) big_model_insert(model, &purged[i]);
        if (left == 64) break;
    }
}

static void big_model_compare(const struct big_model *model) {
    const struct hak_big_stats stats = hak_big_stats();
    uint64_t live = 0, live_bytes = 0, mapped = model->cached_bytes;
    for (unsigned i = 0; i < BIG_MODEL_LIVE; i++) {
        live += model->live[i].ptr != NULL;
        live_bytes += model->live[i].ptr != NULL ? model->live[i].usable : 0;
        mapped += model->live[i].ptr != NULL ? model->live[i].mapped : 0;
    }
    assert_int_equal(stats.live_blocks, live);
    assert_int_equal(stats.live_bytes, live_bytes);
    assert_int_equal(stats.mapped_bytes, mapped);
    assert_int_equal(stats.cached_bytes, model->cached_bytes);
    assert_int_equal(stats.cached_dirty, model->dirty_bytes);
    assert_int_equal(stats.entries, model->entries);
    assert_int_equal(stats.buckets, model->buckets);
    assert_int_equal(stats.resizes, model->resizes);
    assert_int_equal(stats.evictions, model->evictions);
    assert_int_equal(stats.hits_site, model->hits[0]);
    assert_int_equal(stats.hits_class, model->hits[1]);
    assert_int_equal(stats.hits_larger, model->hits[2]);
    assert_int_equal(stats.served_blocks, model->served);
    assert_true(hak_big_check());
}

static void big_model_step(struct big_model *model, uint64_t op) {
    struct big_model_entry *live = &model->live[(op >> 8) % BIG_MODEL_LIVE];
    const unsigned kind = op & 0xff;
    if (kind < 4) big_model_decay(model);
    else if (kind < 40) hak_sys_set_now_for_test(model->now_ms += (op >> 8) % 50);
    else if (live->ptr == NULL) big_model_alloc(model, live, op >> 16);
    else big_model_free(model, live);
    big_model_compare(model);
}

static void big_model_end(struct big_model *model) {
    for (unsigned i = 0; i < BIG_MODEL_LIVE; i++)
        if (model->live[i].ptr != NULL) big_model_free(model, &model->live[i]);
    big_model_compare(model);
    hak_big_purge_all();
    assert_int_equal(hak_big_stats().mapped_bytes, 0);
    hak_big_reset_for_test();
}

#endif
