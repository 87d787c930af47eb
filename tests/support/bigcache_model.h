/* A model of BigCache: which cached mapping it must serve, purge and drop, from one plain array.
 *
 * The array holds the entries in the order of every list of the table: the dirty ones, newest first, then the clean
 * ones in the order they were purged. big_model_step(model, op) does one operation that the 64 bits of `op` name (any
 * value is valid, so that a fuzzer may feed bytes) and compares all figures. One thread, stopped clock.
 * While system calls fail (set_faults) the model looks at the region map to see what became of a mapping, and accepts
 * what such a failure explains; all else stays exact. */
#ifndef TESTS_SUPPORT_BIGCACHE_MODEL_H
#define TESTS_SUPPORT_BIGCACHE_MODEL_H

#include "support/whitebox.h"

#include "pages/budget.h"
#include "stores/bigcache.h"
#include "stores/bigcache_table.h"

#define BIG_MODEL_LIVE 512
#define BIG_MODEL_CACHED 2048
#define BIG_MODEL_MARKED (2 * HAK_GRANULE) /* bytes at its start that are written, but for the last page */
#define BIG_MODEL_PAGE ((size_t)4096)
#define BIG_MODEL_WALK 32  /* entries of one list that a lookup sees */
#define BIG_MODEL_JOINED 8 /* neighbours that may become one block */

struct big_model_entry {
    char *ptr;
    size_t mapped, usable;
    uintptr_t site;
    uint32_t class;
    bool zero;
    bool shaped;  /* cut or joined: the marks are not where they were */
    bool several; /* mappings: the kernel may not move them as one */
    uint64_t freed_ms, seed;
};

struct big_model {
    struct big_model_entry live[BIG_MODEL_LIVE]; /* ptr NULL: none */
    struct big_model_entry cached[BIG_MODEL_CACHED];
    unsigned entries, dirty; /* dirty ones come first */
    uint64_t cached_bytes, dirty_bytes, lost_bytes;
    uint32_t buckets;
    uint64_t resizes, evictions, hits[5], served, now_ms;
    unsigned faults; /* seen when the operation began */
    bool marred;     /* some have ever failed: a range that munmap refused may be served again, and not be zero */
};

static void big_model_start(struct big_model *model, uint64_t now_ms) {
    memset(model, 0, sizeof *model);
    model->now_ms = now_ms;
    hak_sys_set_now_for_test(now_ms);
    model->evictions = hak_big_stats().evictions;
    model->served = hak_big_stats().served_blocks;
    model->lost_bytes = hak_big_stats().mapped_bytes;
}

/* Whether a system call has failed during this operation. */
static bool big_model_failed(const struct big_model *model) { return faults_seen != model->faults; }

/* ---- content: the first granules and the last page ---- */

static size_t big_model_marked(size_t usable) { return usable < BIG_MODEL_MARKED ? usable : BIG_MODEL_MARKED; }

static void big_model_mark(const struct big_model_entry *entry) {
    mark(entry->ptr, big_model_marked(entry->usable), entry->seed);
    mark(entry->ptr + entry->usable - BIG_MODEL_PAGE, BIG_MODEL_PAGE, entry->seed);
}

static void big_model_expect_marked(const struct big_model_entry *entry) {
    size_t last = entry->usable - BIG_MODEL_PAGE;
    expect(is_marked(entry->ptr, big_model_marked(entry->usable < BIG_MODEL_MARKED ? last : BIG_MODEL_MARKED),
                     entry->seed));
    expect(is_marked(entry->ptr + last, BIG_MODEL_PAGE, entry->seed));
}

/* Whether the ends of each page are: where a mark could be. */
static bool big_model_is_zero(const char *ptr, size_t bytes) {
    for (size_t at = 0; at < bytes; at += BIG_MODEL_PAGE)
        if (!is_zero(ptr + at, 8) || !is_zero(ptr + at + BIG_MODEL_PAGE - 8, 8)) return false;
    return true;
}

/* The map leads from both ends of the mapping to the same descriptor. */
static void big_model_expect_mapped(const struct big_model_entry *entry) {
    expect_equal(descriptor_of(entry->ptr), descriptor_of(entry->ptr + entry->mapped - 1));
    expect_equal(hak_region_lookup(entry->ptr + entry->mapped - 1).kind, HAK_KIND_BIG);
}

/* ---- the array ---- */

static void big_model_insert(struct big_model *model, const struct big_model_entry *entry) {
    const unsigned at = entry->zero ? model->entries : 0;
    expect(model->entries < BIG_MODEL_CACHED);
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

/* The oldest: freed first; of several clean ones the one that was purged first. */
static unsigned big_model_oldest(const struct big_model *model) {
    const unsigned dirty = model->dirty - 1;
    unsigned clean = model->dirty;
    if (clean == model->entries) return dirty;
    for (unsigned i = clean; i < model->entries; i++)
        if (model->cached[i].freed_ms < model->cached[clean].freed_ms) clean = i;
    return model->dirty != 0 && model->cached[dirty].freed_ms < model->cached[clean].freed_ms ? dirty : clean;
}

static uint32_t big_model_bucket(const struct big_model *model, uint32_t class, uintptr_t site) {
    return hak_big_hash(class, site) % model->buckets;
}

static bool big_model_is_dropped(const struct big_model_entry *entry) {
    return hak_region_lookup(entry->ptr).kind == HAK_KIND_NONE;
}

static void big_model_evict(struct big_model *model, unsigned at) {
    struct big_model_entry entry = big_model_remove(model, at);
    model->evictions++;
    expect(big_model_is_dropped(&entry));
}

/* A chain that has grown too long loses its oldest entry; of several the last. */
static void big_model_shorten(struct big_model *model, uint32_t bucket) {
    unsigned length = 0, oldest = 0;
    for (unsigned i = 0; i < model->entries; i++) {
        const struct big_model_entry *entry = &model->cached[i];
        if (big_model_bucket(model, entry->class, entry->site) != bucket) continue;
        if (length++ == 0 || entry->freed_ms <= model->cached[oldest].freed_ms) oldest = i;
    }
    uint64_t most = hak_option(BIGCACHE_CHAIN_MAX);
    if (most != 0 && length > most) big_model_evict(model, oldest);
}

static void big_model_put(struct big_model *model, const struct big_model_entry *entry) {
    big_model_insert(model, entry);
    big_model_shorten(model, big_model_bucket(model, entry->class, entry->site));
}

/* Entries that were taken out to be purged come back as clean ones; one that could not be purged is gone. Where chains
 * are kept short, purges must not fail: an entry that is gone would not tell why. */
static void big_model_purged(struct big_model *model, struct big_model_entry *purged, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        purged[i].zero = true;
        bool refused = big_model_failed(model) && hak_option(BIGCACHE_CHAIN_MAX) == 0;
        if (refused && big_model_is_dropped(&purged[i])) continue;
        big_model_put(model, &purged[i]);
    }
}

/* `held`: what is neither in the model's live blocks nor cached. */
static uint64_t big_model_budget(const struct big_model *model, size_t held) {
    uint64_t live = model->lost_bytes + held;
    for (unsigned i = 0; i < BIG_MODEL_LIVE; i++) live += model->live[i].ptr != NULL ? model->live[i].mapped : 0;
    return hak_budget(HAK_STORE_BIG, HAK_BUDGET_ALL, live);
}

/* What the budgets and a full table make of an insertion. */
static void big_model_settle(struct big_model *model, size_t held) {
    const uint64_t budget = big_model_budget(model, held);
    while (model->cached_bytes > hak_option(BIGCACHE_MAPPED)) big_model_evict(model, big_model_oldest(model));
    static struct big_model_entry purged[BIG_MODEL_CACHED];
    unsigned count = 0;
    while (model->dirty_bytes > budget) purged[count++] = big_model_remove(model, model->dirty - 1);
    big_model_purged(model, purged, count);
    bool full = model->entries * 4 >= model->buckets * 3 && model->buckets * 2 <= hak_option(BIGCACHE_BUCKETS_MAX);
    if (full && big_model_failed(model)) full = hak_big_stats().buckets != model->buckets;
    if (full) model->buckets *= 2, model->resizes++;
}

/* ---- allocation ---- */

/* The first entry of a class that fits, `site` NULL: of the class's list; else of the chain of class and site. */
static int big_model_find(const struct big_model *model, uint32_t class, const uintptr_t *site, size_t need,
                          size_t align) {
    const uint32_t bucket = site == NULL ? 0 : big_model_bucket(model, class, *site);
    unsigned seen = 0;
    for (unsigned i = 0; i < model->entries && seen < BIG_MODEL_WALK; i++) {
        const struct big_model_entry *entry = &model->cached[i];
        if (site == NULL && entry->class != class) continue;
        if (site != NULL && big_model_bucket(model, entry->class, entry->site) != bucket) continue;
        seen++;
        if (entry->class == class && (site == NULL || entry->site == *site) && entry->mapped >= need &&
            entry->mapped <= need + need / 4 && (uintptr_t)entry->ptr % align == 0)
            return (int)i;
    }
    return -1;
}

/* The dirty entry that is cut: the newest of the smallest class that is larger than what may serve as it is, and that
 * leaves a rest worth an entry. */
static int big_model_find_to_cut(const struct big_model *model, size_t need) {
    const size_t least = need + HAK_MIB, beyond = least > need + need / 4 ? least : need + need / 4;
    for (uint32_t class = hak_big_class_of(beyond); class < HAK_BIG_CLASSES; class ++)
        for (unsigned i = 0; i < model->dirty; i++) {
            if (model->cached[i].class != class) continue;
            if (model->cached[i].mapped >= least) return (int)i;
            break;
        }
    return -1;
}

/* The dirty entry that begins where another ends, or -1. */
static int big_model_behind(const struct big_model *model, const struct big_model_entry *entry) {
    for (unsigned i = 0; i < model->dirty; i++)
        if (model->cached[i].ptr == entry->ptr + entry->mapped) return (int)i;
    return -1;
}

/* The oldest dirty entry that is large enough together with up to seven behind it. */
static int big_model_find_to_join(const struct big_model *model, size_t need) {
    for (unsigned n = 0; n < model->dirty && n < BIG_MODEL_WALK; n++) {
        const int first = (int)(model->dirty - 1 - n);
        size_t sum = model->cached[first].mapped;
        int i = sum < need ? big_model_behind(model, &model->cached[first]) : -1;
        for (int pieces = 2; i >= 0 && pieces <= BIG_MODEL_JOINED; pieces++) {
            sum += model->cached[i].mapped;
            if (sum >= need) return first;
            i = big_model_behind(model, &model->cached[i]);
        }
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
    if (found >= 0) return model->hits[2]++, found;
    if (align != HAK_GRANULE || !hak_option(BIGCACHE_CUT) || model->dirty_bytes < need) return -1;
    found = big_model_find_to_cut(model, need);
    if (found >= 0) return model->hits[3]++, found;
    found = big_model_find_to_join(model, need);
    if (found >= 0) model->hits[4]++;
    return found;
}

/* Takes out what serves: with those behind it, if it is too small by itself. Marks of the user's are lost by then. */
static struct big_model_entry big_model_take(struct big_model *model, int index, size_t need) {
    struct big_model_entry entry = big_model_remove(model, (unsigned)index);
    while (entry.mapped < need) {
        const int next = big_model_behind(model, &entry);
        expect(next >= 0);
        entry.mapped += big_model_remove(model, (unsigned)next).mapped;
        entry.shaped = entry.several = true;
    }
    return entry;
}

/* What is left of an entry that was cut goes back, as if just freed. */
static bool big_model_cut(struct big_model *model, struct big_model_entry *entry, size_t need) {
    struct big_model_entry rest = *entry;
    if (entry->mapped <= hak_big_at_most(need) || entry->mapped - need < HAK_MIB) return false;
    const bool whole = hak_big_mapped(descriptor_of(entry->ptr)) != need;
    if (whole && big_model_failed(model)) return false; /* there was no descriptor for the rest */
    entry->mapped = entry->usable = need;
    entry->shaped = true;
    rest.ptr += need;
    rest.usable = rest.mapped -= need;
    rest.shaped = true;
    rest.freed_ms = model->now_ms;
    rest.zero = rest.mapped > big_model_budget(model, need);
    rest.class = hak_big_class_of(rest.mapped);
    big_model_put(model, &rest);
    return true;
}

/* What a request maps, and what of it the user has: in checked builds there is room for a guard page. */
static size_t big_model_extent(size_t bytes) {
    return hak_round_up(bytes + (HAK_CHECKED ? hak_sys_page_bytes() : 0), HAK_GRANULE);
}

static size_t big_model_usable(size_t bytes) {
    return hak_round_up(bytes, HAK_CHECKED ? hak_sys_page_bytes() : HAK_GRANULE);
}

static size_t big_model_bytes(uint64_t op) {
    return hak_round_up(HAK_MIB + 1 + op % (6 * HAK_MIB), HAK_GRANULE) - op % HAK_GRANULE;
}

static void big_model_alloc(struct big_model *model, struct big_model_entry *live, uint64_t op) {
    const size_t bytes = big_model_bytes(op), need = big_model_extent(bytes);
    const size_t align = HAK_GRANULE << (op >> 24 & 7 ? 0 : op >> 27 & 3);
    const uintptr_t site = (op >> 32) % 40;
    const int expected = big_model_lookup(model, need, align, site);
    struct hak_block got = hak_big_alloc(bytes, align, site);
    if (got.ptr == NULL) {
        expect(expected < 0 && big_model_failed(model));
        return;
    }
    struct big_model_entry entry = {
        .ptr = got.ptr, .mapped = need, .usable = big_model_usable(bytes), .zero = got.zero};
    if (expected >= 0) {
        entry = big_model_take(model, expected, need);
        expect_equal(got.ptr, entry.ptr);
        if (big_model_cut(model, &entry, need)) big_model_settle(model, need);
    }
    expect_equal(got.bytes, big_model_usable(bytes));
    expect(got.zero == entry.zero && (entry.zero || expected >= 0 || model->marred || big_model_failed(model)));
    const bool reachable = !HAK_CHECKED || entry.usable <= got.bytes; /* else its end lies behind the guard */
    if (!entry.zero && expected >= 0 && reachable && !entry.shaped) big_model_expect_marked(&entry);
    if (entry.zero) expect(is_zero(got.ptr, BIG_MODEL_MARKED)); /* where something was ever written */
    if (entry.zero && reachable) expect(is_zero(entry.ptr + entry.usable - BIG_MODEL_PAGE, BIG_MODEL_PAGE));
    model->served++;
    *live = (struct big_model_entry){.ptr = got.ptr,
                                     .mapped = entry.mapped,
                                     .usable = got.bytes,
                                     .site = site,
                                     .several = entry.several,
                                     .seed = op};
    big_model_expect_mapped(live);
    big_model_mark(live);
}

/* ---- free ---- */

/* Whether a freed mapping is not kept. One that was, and then evicted at once, is counted as an eviction. */
static bool big_model_lets_go(struct big_model *model, const struct big_model_entry *entry) {
    if (entry->mapped > hak_option(BIGCACHE_BLOCK_MAX) || entry->mapped > hak_option(BIGCACHE_MAPPED)) return true;
    if (model->buckets == 0 && (!big_model_failed(model) || hak_big_stats().buckets != 0))
        model->buckets = HAK_BIG_BUCKETS_MIN;
    bool needs_call = entry->mapped > big_model_budget(model, 0) || model->buckets == 0;
    bool counted = hak_big_stats().evictions != model->evictions;
    return big_model_failed(model) && needs_call && !counted && big_model_is_dropped(entry);
}

static void big_model_free(struct big_model *model, struct big_model_entry *live) {
    void *big = descriptor_of(live->ptr);
    struct big_model_entry entry = *live;
    const uint64_t before = hak_big_stats().mapped_bytes;
    live->ptr = NULL;
    big_model_expect_marked(&entry);
    expect_equal(hak_big_free(big, entry.ptr + 16), HAK_FREE_NOT_START);
    expect_equal(hak_big_free(big, entry.ptr), HAK_FREE_OK);
    expect_equal(hak_big_free(big, entry.ptr), HAK_FREE_DOUBLE);
    if (HAK_CHECKED && big_model_failed(model) && big_model_is_dropped(&entry) &&
        hak_big_stats().mapped_bytes == before) { /* its guard page would not go */
        model->lost_bytes += entry.mapped;
        return;
    }
    if (big_model_lets_go(model, &entry)) {
        expect(big_model_is_dropped(&entry));
        return;
    }
    entry.class = hak_big_class_of(entry.mapped);
    entry.freed_ms = model->now_ms;
    entry.zero = entry.mapped > big_model_budget(model, 0);
    big_model_put(model, &entry);
    big_model_settle(model, 0);
}

/* ---- realloc, decay, purge ---- */

/* The size of the mapping may be chosen within bounds; what was there before stays. */
static void big_model_realloc(struct big_model *model, struct big_model_entry *live, uint64_t op) {
    struct hak_big *big = descriptor_of(live->ptr);
    const struct big_model_entry old = *live;
    const size_t bytes = big_model_bytes(op), need = big_model_extent(bytes);
    const struct hak_block got = hak_big_realloc(big, live->ptr, bytes, (op >> 32) % 40);
    if (got.ptr == NULL) {
        expect(big_model_failed(model) || model->marred || live->several); /* a refused move is not tried again */
        expect_equal(hak_big_usable(big, live->ptr), old.usable);
        big_model_expect_marked(live);
        return;
    }
    live->ptr = got.ptr;
    live->site = (op >> 32) % 40;
    live->mapped = hak_big_mapped(big);
    live->usable = got.bytes;
    expect_equal(got.bytes, big_model_usable(bytes));
    expect_equal(descriptor_of(got.ptr), big);
    expect_equal(hak_big_usable(big, got.ptr), got.bytes);
    expect(live->mapped >= need && live->mapped % HAK_GRANULE == 0);
    expect(live->mapped <= hak_big_at_most(need) || (big_model_failed(model) && live->mapped == old.mapped));
    expect(need > old.mapped || got.ptr == old.ptr);
    expect(need <= old.mapped || live->mapped <= need + need / 8 + HAK_GRANULE);
    const size_t kept = old.usable < got.bytes ? old.usable : got.bytes;
    expect(is_marked(got.ptr, kept < BIG_MODEL_MARKED ? 0 : BIG_MODEL_MARKED, old.seed));
    if (kept == old.usable) expect(is_marked(got.ptr + kept - BIG_MODEL_PAGE, BIG_MODEL_PAGE, old.seed));
    if (got.zero) expect(big_model_is_zero(got.ptr + kept, got.bytes - kept));
    big_model_expect_mapped(live);
    big_model_mark(live);
}

/* In batches of 64, as long as there is something: evicts what is too old, then purges. */
static void big_model_expire(struct big_model *model, uint64_t unmap_before, uint64_t purge_before) {
    for (unsigned left = 0; left == 0;) {
        struct big_model_entry purged[64];
        unsigned count = 0, evicted = 0;
        for (left = 64; left != 0 && model->entries != 0; left--, evicted++) {
            if (model->cached[big_model_oldest(model)].freed_ms > unmap_before) break;
            big_model_evict(model, big_model_oldest(model));
        }
        for (; left != 0 && model->dirty != 0 && model->cached[model->dirty - 1].freed_ms <= purge_before; left--)
            purged[count++] = big_model_remove(model, model->dirty - 1);
        big_model_purged(model, purged, count);
        if (evicted + count != 0) left = 0; /* there was something: again */
    }
}

static void big_model_decay(struct big_model *model) {
    hak_big_decay(model->now_ms);
    big_model_expire(model, model->now_ms - hak_option(BIGCACHE_DECAY_MS), model->now_ms - hak_option(PURGE_DELAY_MS));
}

static void big_model_purge_all(struct big_model *model) {
    const uint64_t cached = model->cached_bytes;
    expect_equal(hak_big_purge_all(), cached);
    big_model_expire(model, UINT64_MAX, UINT64_MAX);
}

/* ---- the whole ---- */

static void big_model_compare(const struct big_model *model) {
    const struct hak_big_stats stats = hak_big_stats();
    uint64_t live = 0, live_bytes = 0, mapped = model->cached_bytes + model->lost_bytes;
    for (unsigned i = 0; i < BIG_MODEL_LIVE; i++) {
        live += model->live[i].ptr != NULL;
        live_bytes += model->live[i].ptr != NULL ? model->live[i].usable : 0;
        mapped += model->live[i].ptr != NULL ? model->live[i].mapped : 0;
    }
    expect_equal(stats.live_blocks, live);
    expect_equal(stats.live_bytes, live_bytes);
    expect_equal(stats.mapped_bytes, mapped);
    expect_equal(stats.cached_bytes, model->cached_bytes);
    expect_equal(stats.cached_dirty, model->dirty_bytes);
    expect_equal(stats.entries, model->entries);
    expect_equal(stats.buckets, model->buckets);
    expect_equal(stats.resizes, model->resizes);
    expect_equal(stats.evictions, model->evictions);
    expect_equal(stats.hits_site, model->hits[0]);
    expect_equal(stats.hits_class, model->hits[1]);
    expect_equal(stats.hits_larger, model->hits[2]);
    expect_equal(stats.hits_cut, model->hits[3]);
    expect_equal(stats.hits_joined, model->hits[4]);
    expect_equal(stats.served_blocks, model->served);
    expect(hak_big_check());
}

static void big_model_step(struct big_model *model, uint64_t op) {
    struct big_model_entry *live = &model->live[(op >> 8) % BIG_MODEL_LIVE];
    const unsigned kind = op & 0xff;
    model->faults = faults_seen;
    if (kind == 0 && (op >> 8) % 8 == 0) big_model_purge_all(model);
    else if (kind < 4) big_model_decay(model);
    else if (kind < 40) hak_sys_set_now_for_test(model->now_ms += (op >> 8) % 50);
    else if (live->ptr == NULL) big_model_alloc(model, live, op >> 16);
    else if (kind < 72) big_model_realloc(model, live, op >> 16);
    else big_model_free(model, live);
    model->marred |= big_model_failed(model);
    big_model_compare(model);
}

/* Frees all; system calls succeed again. */
static void big_model_end(struct big_model *model) {
    model->faults = faults_seen;
    for (unsigned i = 0; i < BIG_MODEL_LIVE; i++) {
        if (model->live[i].ptr == NULL) continue;
        big_model_free(model, &model->live[i]);
        big_model_compare(model);
    }
    hak_big_purge_all();
    expect_equal(hak_big_stats().mapped_bytes, model->lost_bytes);
    hak_big_reset_for_test();
}

#endif
