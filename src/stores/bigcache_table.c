/* Chains, classes and ages of cached mappings (bigcache_table.h). */
#include "stores/bigcache_table.h"

#include "base/options.h"
#include "pages/region.h"

/* Entries of one list looked at for a fit. A chain holds all entries of one class and site, however many buckets
 * there are; where these do not fit, others of their class hardly will. */
#define WALK_MAX 32
/* Neighbours that may become one block. */
#define JOINED_MAX 8

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

/* Newest first. Those in front that are newer were purged as they came, being larger than BIGCACHE_RESIDENT: few. */
static void insert_by_age(struct hak_big_list *list, struct hak_big *big) {
    struct hak_big *older = list->first, *newer = NULL;
    for (; older != NULL && older->freed_ms > big->freed_ms; older = older->link[HAK_BIG_AGE].next) newer = older;
    big->link[HAK_BIG_AGE].prev = newer;
    big->link[HAK_BIG_AGE].next = older;
    *(newer != NULL ? &newer->link[HAK_BIG_AGE].next : &list->first) = big;
    *(older != NULL ? &older->link[HAK_BIG_AGE].prev : &list->last) = big;
}

static void unlink_from(struct hak_big_list *list, struct hak_big *big, enum hak_big_order order) {
    struct hak_big *prev = big->link[order].prev, *next = big->link[order].next;
    *(prev != NULL ? &prev->link[order].next : &list->first) = next;
    *(next != NULL ? &next->link[order].prev : &list->last) = prev;
}

static struct hak_big_list *chain_of(const struct hak_big *big) LOCKED {
    return &table.buckets[big->hash & (table.bucket_count - 1)];
}

static struct hak_big_list *place_of(const char *base) LOCKED {
    const uint32_t hash = (uint32_t)((uintptr_t)base >> HAK_GRANULE_SHIFT) * 2654435761U >> 16;
    return &table.buckets[table.bucket_count + (hash & (table.bucket_count - 1))];
}

static struct hak_big_list *ages_of(const struct hak_big *big) { return big->zero ? &table.clean : &table.dirty; }

/* A purged mapping goes behind the others: it is served when no warm one fits. */
static void link_entry(struct hak_big *big) LOCKED {
    (big->zero ? append : push)(chain_of(big), big, HAK_BIG_CHAIN);
    (big->zero ? append : push)(&table.classes[big->class], big, HAK_BIG_CLASS);
    push(place_of(hak_load_rlx(&big->base)), big, HAK_BIG_PLACE);
    insert_by_age(ages_of(big), big);
    table.entries++;
    table.mapped_bytes += hak_big_mapped(big);
    if (!big->zero) table.dirty_bytes += hak_big_mapped(big);
}

static void unlink_entry(struct hak_big *big) LOCKED {
    unlink_from(chain_of(big), big, HAK_BIG_CHAIN);
    unlink_from(place_of(hak_load_rlx(&big->base)), big, HAK_BIG_PLACE);
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

/* The same site first, then any of the class, then larger classes. `*hits`: the counter for such. */
static struct hak_big *find_whole(const struct want *want, uintptr_t site, uint64_t **hits) LOCKED {
    *hits = &table.hits_site;
    struct hak_big *big = find_same_site(*want, site);
    if (big != NULL) return big;
    *hits = &table.hits_class;
    big = find(&table.classes[want->class], HAK_BIG_CLASS, want);
    if (big != NULL) return big;
    *hits = &table.hits_larger;
    return find_larger(*want);
}

/* The smallest class above what a request may be served with as it is; of it the newest dirty entry. */
static struct hak_big *find_to_cut(size_t bytes) LOCKED {
    const size_t least = bytes + ((size_t)1 << HAK_BIG_SHIFT_MIN);
    const size_t beyond = least > hak_big_at_most(bytes) ? least : hak_big_at_most(bytes);
    for (uint32_t class = hak_big_class_of(beyond); class < HAK_BIG_CLASSES; class ++) {
        struct hak_big *big = table.classes[class].first;
        if (big != NULL && !big->zero && hak_big_mapped(big) >= least) return big;
    }
    return NULL;
}

/* The dirty entry that begins at an address. */
static struct hak_big *find_at(const char *base) LOCKED {
    struct hak_big *big = place_of(base)->first;
    for (unsigned i = 0; big != NULL && i < WALK_MAX; i++, big = big->link[HAK_BIG_PLACE].next)
        if (hak_load_rlx(&big->base) == base) return big->zero ? NULL : big;
    return NULL;
}

static struct hak_big *behind(const struct hak_big *big) LOCKED {
    return find_at(hak_load_rlx(&big->base) + hak_big_mapped(big));
}

/* How many entries from this one on, of those large enough only together, are `bytes`; 0: they are not. */
static unsigned joined(const struct hak_big *big, size_t bytes) LOCKED {
    size_t sum = hak_big_mapped(big);
    if (sum >= bytes) return 0;
    for (unsigned n = 2; n <= JOINED_MAX && (big = behind(big)) != NULL; n++)
        if ((sum += hak_big_mapped(big)) >= bytes) return n;
    return 0;
}

/* The oldest entry that is large enough together with those behind it: nobody has asked for it as it is. */
static struct hak_big *find_to_join(size_t bytes, unsigned *count) LOCKED {
    struct hak_big *big = table.dirty.last;
    for (unsigned i = 0; big != NULL && i < WALK_MAX; i++, big = big->link[HAK_BIG_AGE].prev) {
        unsigned together = joined(big, bytes);
        if (together == 0) continue;
        *count = together;
        return big;
    }
    return NULL;
}

/* Dirty entries in another shape. */
static struct hak_big *find_shape(size_t bytes, unsigned *count, uint64_t **hits) LOCKED {
    if (table.dirty_bytes < bytes) return NULL;
    *hits = &table.hits_cut;
    struct hak_big *big = find_to_cut(bytes);
    if (big != NULL) return big;
    *hits = &table.hits_joined;
    return find_to_join(bytes, count);
}

static struct hak_big *take_out(struct hak_big *first, unsigned count) LOCKED {
    struct hak_big_list others = {.first = NULL};
    for (struct hak_big *big = first, *next; count-- != 0; big = next) {
        next = count == 0 ? NULL : behind(big);
        unlink_entry(big);
        if (big != first) append(&others, big, HAK_BIG_AGE);
    }
    first->link[HAK_BIG_AGE].next = others.first;
    first->times_served++;
    return first;
}

struct hak_big *hak_big_table_take_locked(size_t bytes, size_t align, uintptr_t site) {
    if (table.entries == 0) return NULL;
    const struct want want = {.bytes = bytes, .align = align, .class = hak_big_class_of(bytes)};
    unsigned count = 1;
    uint64_t *hits;
    struct hak_big *big = find_whole(&want, site, &hits);
    if (big == NULL && align == HAK_GRANULE && hak_option(BIGCACHE_CUT)) big = find_shape(bytes, &count, &hits);
    if (big == NULL) return NULL;
    (*hits)++;
    return take_out(big, count);
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

uint64_t hak_big_table_budget_locked(enum hak_budget_part part, size_t held) {
    return hak_budget(HAK_STORE_BIG, part, hak_load_rlx(&hak_big_mapped_bytes) - table.mapped_bytes - held);
}

bool hak_big_table_is_spent_locked(void) {
    return table.dirty_bytes <= hak_big_table_budget_locked(HAK_BUDGET_FLOOR, 0);
}

void hak_big_table_insert_locked(struct hak_big *big, struct hak_big_victims *victims) {
    big->class = hak_big_class_of(hak_big_mapped(big));
    big->hash = hak_big_hash(big->class, big->site);
    link_entry(big);
    const uint64_t budget = hak_big_table_budget_locked(HAK_BUDGET_ALL,
                                                        0); /* before others leave, who would pass for live */
    keep_chain_short(chain_of(big), victims);
    while (table.mapped_bytes > hak_option(BIGCACHE_MAPPED)) evict(oldest(), victims);
    while (table.dirty_bytes > budget) displace(table.dirty.last, &victims->purge);
}

void hak_big_table_reclaim_locked(size_t most_bytes, unsigned most, struct hak_big_victims *victims) {
    const uint64_t budget = hak_big_table_budget_locked(HAK_BUDGET_FLOOR, 0);
    for (size_t bytes = 0; most != 0 && bytes < most_bytes && table.dirty_bytes > budget; most--) {
        bytes += hak_big_mapped(table.dirty.last);
        displace(table.dirty.last, &victims->purge);
    }
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
            push(place_of(hak_load_rlx(&big->base)), big, HAK_BIG_PLACE);
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
    struct tally chains = {.entries = 0}, places = chains, classes = chains, dirty = chains, clean = chains;
    for (uint32_t i = 0; i < table.bucket_count; i++) {
        if (!check_list(&table.buckets[i], HAK_BIG_CHAIN, &chains)) return false;
        for (const struct hak_big *big = table.buckets[i].first; big != NULL; big = big->link[HAK_BIG_CHAIN].next)
            if (big->hash != hak_big_hash(big->class, big->site) || chain_of(big) != &table.buckets[i]) return false;
        const struct hak_big_list *place = &table.buckets[table.bucket_count + i];
        if (!check_list(place, HAK_BIG_PLACE, &places)) return false;
        for (const struct hak_big *big = place->first; big != NULL; big = big->link[HAK_BIG_PLACE].next)
            if (place_of(hak_load_rlx(&big->base)) != place) return false;
    }
    for (uint32_t i = 0; i < HAK_BIG_CLASSES; i++) {
        if (!check_list(&table.classes[i], HAK_BIG_CLASS, &classes)) return false;
        for (const struct hak_big *big = table.classes[i].first; big != NULL; big = big->link[HAK_BIG_CLASS].next)
            if (big->class != i) return false;
    }
    if (!check_list(&table.dirty, HAK_BIG_AGE, &dirty) || !check_list(&table.clean, HAK_BIG_AGE, &clean)) return false;
    const struct tally ages = {.entries = dirty.entries + clean.entries,
                               .mapped_bytes = dirty.mapped_bytes + clean.mapped_bytes};
    return is_total(&chains) && is_total(&places) && is_total(&classes) && is_total(&ages) &&
           dirty.mapped_bytes == table.dirty_bytes;
}
