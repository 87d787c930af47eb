/* Chains, classes and ages of cached mappings (bigcache_table.h). */
#include "stores/bigcache_table.h"

#include "base/options.h"
#include "pages/region.h"

/* Entries of one list looked at for a fit. A chain holds all entries of one class and site, however many buckets
 * there are; where these do not fit, others of their class hardly will. */
#define WALK_MAX 32

struct hak_big_table hak_big_table = {.lock = HAK_LOCK_INIT(HAK_RANK_BIGCACHE)};
#define table hak_big_table
#define LOCKED HAK_REQUIRES(hak_big_table.lock)

uint32_t hak_big_class_of(size_t mapped) {
    unsigned top = 63 - (unsigned)__builtin_clzll(mapped);
    return (top - HAK_BIG_SHIFT_MIN) * 8 + (unsigned)(mapped >> (top - 3) & 7);
}

size_t hak_big_class_bytes(uint32_t class) { return (size_t)(8 + class % 8) << (class / 8 + HAK_BIG_SHIFT_MIN - 3); }

uint32_t hak_big_hash(uint32_t class, uintptr_t site) {
    uint64_t hash = 0xcbf29ce484222325U;
    for (unsigned i = 0; i < sizeof class; i++) hash = (hash ^ (class >> 8 * i & 0xff)) * 0x100000001b3U;
    for (unsigned i = 0; i < sizeof site; i++) hash = (hash ^ (site >> 8 * i & 0xff)) * 0x100000001b3U;
    return (uint32_t)(hash ^ hash >> 32);
}

static void push(struct hak_big_list *list, struct hak_big *big, enum hak_big_order order) {
    big->link[order].prev = NULL;
    big->link[order].next = list->first;
    *(list->first != NULL ? &list->first->link[order].prev : &list->last) = big;
    list->first = big;
}

static void append(struct hak_big_list *list, struct hak_big *big, enum hak_big_order order) {
    big->link[order].next = NULL;
    big->link[order].prev = list->last;
    *(list->last != NULL ? &list->last->link[order].next : &list->first) = big;
    list->last = big;
}

static void unlink_from(struct hak_big_list *list, struct hak_big *big, enum hak_big_order order) {
    struct hak_big *prev = big->link[order].prev, *next = big->link[order].next;
    *(prev != NULL ? &prev->link[order].next : &list->first) = next;
    *(next != NULL ? &next->link[order].prev : &list->last) = prev;
}

static struct hak_big_list *chain_of(const struct hak_big *big) LOCKED {
    return &table.buckets[big->hash & (table.bucket_count - 1)];
}

static struct hak_big_list *ages_of(const struct hak_big *big) { return big->zero ? &table.clean : &table.dirty; }

/* A purged mapping goes behind the others: it is served when no warm one fits. */
static void link_entry(struct hak_big *big) LOCKED {
    (big->zero ? append : push)(chain_of(big), big, HAK_BIG_CHAIN);
    (big->zero ? append : push)(&table.classes[big->class], big, HAK_BIG_CLASS);
    push(ages_of(big), big, HAK_BIG_AGE);
    table.entries++;
    table.mapped_bytes += hak_big_mapped(big);
    if (!big->zero) table.dirty_bytes += hak_big_mapped(big);
}

static void unlink_entry(struct hak_big *big) LOCKED {
    unlink_from(chain_of(big), big, HAK_BIG_CHAIN);
    unlink_from(&table.classes[big->class], big, HAK_BIG_CLASS);
    unlink_from(ages_of(big), big, HAK_BIG_AGE);
    table.entries--;
    table.mapped_bytes -= hak_big_mapped(big);
    if (!big->zero) table.dirty_bytes -= hak_big_mapped(big);
}

static void displace(struct hak_big *big, struct hak_big_list *victims) LOCKED {
    unlink_entry(big);
    append(victims, big, HAK_BIG_AGE);
}

static void evict(struct hak_big *big, struct hak_big_victims *victims) LOCKED {
    table.evictions++;
    displace(big, &victims->unmap);
}

struct want {
    size_t bytes, align;
    const uintptr_t *site; /* NULL: any */
    uint32_t class;
};

static bool fits(const struct hak_big *big, const struct want *want) {
    size_t mapped = hak_big_mapped(big);
    return big->class == want->class && (want->site == NULL || big->site == *want->site) && mapped >= want->bytes &&
           mapped <= hak_big_at_most(want->bytes) && ((uintptr_t)hak_load_rlx(&big->base) & (want->align - 1)) == 0;
}

static struct hak_big *find(const struct hak_big_list *list, enum hak_big_order order, const struct want *want) {
    struct hak_big *big = list->first;
    for (unsigned i = 0; big != NULL && i < WALK_MAX; i++, big = big->link[order].next)
        if (fits(big, want)) return big;
    return NULL;
}

static struct hak_big *find_same_site(struct want want, uintptr_t site) LOCKED {
    want.site = &site;
    uint32_t bucket = hak_big_hash(want.class, site) & (table.bucket_count - 1);
    return find(&table.buckets[bucket], HAK_BIG_CHAIN, &want);
}

static struct hak_big *find_larger(struct want want) LOCKED {
    struct hak_big *found = NULL;
    const size_t most = hak_big_at_most(want.bytes);
    while (found == NULL && ++want.class < HAK_BIG_CLASSES && hak_big_class_bytes(want.class) <= most)
        found = find(&table.classes[want.class], HAK_BIG_CLASS, &want);
    return found;
}

struct hak_big *hak_big_table_take_locked(size_t bytes, size_t align, uintptr_t site) {
    if (table.entries == 0) return NULL;
    const struct want want = {.bytes = bytes, .align = align, .class = hak_big_class_of(bytes)};
    uint64_t *hits = &table.hits_site;
    struct hak_big *big = find_same_site(want, site);
    if (big == NULL) {
        hits = &table.hits_class;
        big = find(&table.classes[want.class], HAK_BIG_CLASS, &want);
    }
    if (big == NULL) {
        hits = &table.hits_larger;
        big = find_larger(want);
    }
    if (big == NULL) return NULL;
    (*hits)++;
    big->times_served++;
    unlink_entry(big);
    return big;
}

/* The least recently used entry. */
static struct hak_big *oldest(void) LOCKED {
    struct hak_big *clean = table.clean.last, *dirty = table.dirty.last;
    return clean == NULL || (dirty != NULL && dirty->freed_ms < clean->freed_ms) ? dirty : clean;
}

static struct hak_big *oldest_of_chain(const struct hak_big_list *chain, uint64_t *length) {
    struct hak_big *found = chain->first;
    *length = 0;
    for (struct hak_big *big = found; big != NULL; big = big->link[HAK_BIG_CHAIN].next, ++*length)
        if (big->freed_ms <= found->freed_ms) found = big;
    return found;
}

static void keep_chain_short(const struct hak_big_list *chain, struct hak_big_victims *victims) LOCKED {
    const uint64_t most = hak_option(BIGCACHE_CHAIN_MAX);
    uint64_t length = 0;
    if (most == 0) return;
    struct hak_big *victim = oldest_of_chain(chain, &length); /* one came in, so at most one goes */
    if (length > most) evict(victim, victims);
}

void hak_big_table_insert_locked(struct hak_big *big, struct hak_big_victims *victims) {
    big->class = hak_big_class_of(hak_big_mapped(big));
    big->hash = hak_big_hash(big->class, big->site);
    link_entry(big);
    keep_chain_short(chain_of(big), victims);
    while (table.mapped_bytes > hak_option(BIGCACHE_MAPPED)) evict(oldest(), victims);
    while (table.dirty_bytes > hak_option(BIGCACHE_RESIDENT)) displace(table.dirty.last, &victims->purge);
}

void hak_big_table_expire_locked(uint64_t unmap_before_ms, uint64_t purge_before_ms, unsigned most,
                                 struct hak_big_victims *victims) {
    for (struct hak_big *big; most != 0 && (big = oldest()) != NULL && big->freed_ms <= unmap_before_ms; most--)
        evict(big, victims);
    for (struct hak_big *big; most != 0 && (big = table.dirty.last) != NULL && big->freed_ms <= purge_before_ms; most--)
        displace(big, &victims->purge);
}

bool hak_big_table_is_full_locked(void) {
    return (uint64_t)table.entries * 4 >= (uint64_t)table.bucket_count * 3 &&
           (uint64_t)table.bucket_count * 2 <= hak_option(BIGCACHE_BUCKETS_MAX);
}

struct hak_big_list *hak_big_table_rehash_locked(struct hak_big_list *buckets, uint32_t count) {
    struct hak_big_list *old = table.buckets;
    const uint32_t old_count = table.bucket_count;
    table.buckets = buckets;
    table.bucket_count = count;
    for (uint32_t i = 0; i < old_count; i++) /* each chain from its end, so that its order stays */
        for (struct hak_big *big = old[i].last, *prev; big != NULL; big = prev) {
            prev = big->link[HAK_BIG_CHAIN].prev;
            push(chain_of(big), big, HAK_BIG_CHAIN);
        }
    return old;
}

struct tally {
    uint64_t entries, mapped_bytes;
};

/* Checks one list's links and its entries; adds them up. `big` may be looked up in the region map. */
static bool check_list(const struct hak_big_list *list, enum hak_big_order order, struct tally *tally) {
    const struct hak_big *prev = NULL;
    for (const struct hak_big *big = list->first; big != NULL; prev = big, big = big->link[order].next) {
        if (big->link[order].prev != prev || hak_load_acq(&big->state) != HAK_BIG_HELD) return false;
        if (big->class != hak_big_class_of(hak_big_mapped(big))) return false;
        if (hak_region_lookup(hak_load_rlx(&big->base)).descriptor != big) return false;
        tally->entries++;
        tally->mapped_bytes += hak_big_mapped(big);
    }
    return list->last == prev;
}

static bool is_total(const struct tally *tally) LOCKED {
    return tally->entries == table.entries && tally->mapped_bytes == table.mapped_bytes;
}

bool hak_big_table_check_locked(void) {
    struct tally chains = {.entries = 0}, classes = chains, dirty = chains, clean = chains;
    for (uint32_t i = 0; i < table.bucket_count; i++) {
        if (!check_list(&table.buckets[i], HAK_BIG_CHAIN, &chains)) return false;
        for (const struct hak_big *big = table.buckets[i].first; big != NULL; big = big->link[HAK_BIG_CHAIN].next)
            if (big->hash != hak_big_hash(big->class, big->site) || chain_of(big) != &table.buckets[i]) return false;
    }
    for (uint32_t i = 0; i < HAK_BIG_CLASSES; i++) {
        if (!check_list(&table.classes[i], HAK_BIG_CLASS, &classes)) return false;
        for (const struct hak_big *big = table.classes[i].first; big != NULL; big = big->link[HAK_BIG_CLASS].next)
            if (big->class != i) return false;
    }
    if (!check_list(&table.dirty, HAK_BIG_AGE, &dirty) || !check_list(&table.clean, HAK_BIG_AGE, &clean)) return false;
    const struct tally ages = {.entries = dirty.entries + clean.entries,
                               .mapped_bytes = dirty.mapped_bytes + clean.mapped_bytes};
    return is_total(&chains) && is_total(&classes) && is_total(&ages) && dirty.mapped_bytes == table.dirty_bytes;
}
