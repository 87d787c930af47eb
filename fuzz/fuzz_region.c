/* The region map against a plain array: any address may be looked up, ranges are entered and taken out anywhere, also
 * over the edges of windows, and the system may refuse a leaf or a purge.
 *
 * A byte chooses the page size; then operations of eight bytes each: bits 0-7 kind, 8-10 strip, 11-23 first granule,
 * 24-37 granules, 38-63 what is entered; for a lookup bits 8-63 are the address's high bits. */
#include "unit.h"

#include "pages/region.h"

#define STRIP ((size_t)8192) /* granules that the array knows around each of these places */
#define WINDOW ((uint64_t)1 << HAK_WINDOW_SHIFT)
#define MAP_END ((uint64_t)1 << HAK_ADDRESS_BITS)
#define HALF (STRIP / 2 * HAK_GRANULE)

static const uint64_t strips[] = {
    HAK_MIB,                    /* low: nobody maps at address 0 */
    WINDOW - HALF,              /* an edge of windows */
    5 * WINDOW,                 /* the first granules of a window */
    ((uint64_t)1 << 39) - HALF, /* where other systems' address spaces end */
    ((uint64_t)1 << 47) - HALF,
    MAP_END - HALF, /* half of it lies beyond the map */
};
#define STRIPS (sizeof strips / sizeof strips[0])

static struct entry {
    uint32_t owner, kind;
    void *descriptor;
} model[STRIPS][STRIP];
static bool reserved[HAK_ROOT_ENTRIES];
static struct range { unsigned strip, first, count; } range;

static const void *at(uint64_t address) { return (const void *)(uintptr_t)address; }
static uint64_t address_of(unsigned strip, size_t granule) { return strips[strip] + granule * HAK_GRANULE; }
static uint64_t range_begin(void) { return address_of(range.strip, range.first); }
static size_t range_bytes(void) { return range.count * HAK_GRANULE; }

static void expect_entry(uint64_t address, const struct entry *entry) {
    struct hak_region found = hak_region_lookup(at(address));
    expect_equal(found.owner, entry->owner);
    expect_equal(found.kind, entry->kind);
    expect_equal(found.descriptor, entry->descriptor);
}

static void expect_at(uint64_t address) {
    static const struct entry none;
    const struct entry *entry = &none;
    for (unsigned s = 0; s < STRIPS; s++)
        if (address - strips[s] < STRIP * HAK_GRANULE) entry = &model[s][(address - strips[s]) / HAK_GRANULE];
    expect_entry(address, entry);
}

static void expect_all(void) {
    for (unsigned s = 0; s < STRIPS; s++)
        for (size_t g = 0; g < STRIP; g++) expect_entry(address_of(s, g) + (g % 2) * (HAK_GRANULE - 1), &model[s][g]);
}

/* What the system has once given stays: only a new window needs memory, and a range beyond the map is refused. */
static bool reserve(void) {
    const unsigned before = faults_seen;
    const uint64_t end = range_begin() + range_bytes();
    bool has_all = end <= MAP_END;
    for (uint64_t w = range_begin() / WINDOW; has_all && w <= (end - 1) / WINDOW; w++) has_all = reserved[w];
    const bool done = hak_region_reserve(at(range_begin()), range_bytes());
    expect(!has_all || done);
    expect(done == (end <= MAP_END) || faults_seen != before);
    for (uint64_t w = range_begin() / WINDOW; w <= (end - 1) / WINDOW && w < HAK_ROOT_ENTRIES; w++)
        reserved[w] = hak_load_acq(&hak_region_root[w]) != NULL;
    return done;
}

static void enter(uint64_t what) {
    if (!reserve()) return;
    const struct entry entry = {.owner = (uint32_t)what,
                                .kind = what & 0x200 ? HAK_KIND_BIG : (uint32_t)what % 80,
                                .descriptor = (void *)(uintptr_t)(what * 64)};
    hak_region_set(at(range_begin()), range_bytes(), entry.owner, entry.kind, entry.descriptor);
    for (unsigned i = 0; i < range.count; i++) model[range.strip][range.first + i] = entry;
}

static void take_out(void) {
    if (!reserve()) return;
    hak_region_clear(at(range_begin()), range_bytes());
    memset(&model[range.strip][range.first], 0, range.count * sizeof model[0][0]);
}

/* Its edges and some of its granules; expect_all() sees the rest. */
static void expect_range(void) {
    const unsigned stride = 1 + range.count / 16;
    for (unsigned i = 0; i < range.count; i += stride)
        expect_entry(range_begin() + i * HAK_GRANULE, &model[range.strip][range.first + i]);
    expect_at(range_begin() - 1);
    expect_at(range_begin() + range_bytes() - 1);
    expect_at(range_begin() + range_bytes());
}

static void step(uint64_t op) {
    const unsigned kind = op & 0xff;
    if (kind < 64) {
        expect_at(op >> 8 << (kind % 8) | kind);
        return;
    }
    range = (struct range){.strip = (unsigned)(op >> 8 & 7) % STRIPS, .first = op >> 11 & (STRIP - 1)};
    range.count = 1 + (unsigned)(op >> 24 & 0x3fff) % (unsigned)(STRIP - range.first);
    if (kind < 176) enter(op >> 38);
    else take_out();
    expect_range();
}

/* Leaves never go away; here they do, so that inputs do not see each other. */
static void forget_all(void) {
    for (size_t w = 0; w < HAK_ROOT_ENTRIES; w++) {
        struct hak_region_leaf *leaf = hak_load_acq(&hak_region_root[w]);
        if (!reserved[w] || leaf == NULL) continue;
        hak_store_rel(&hak_region_root[w], NULL);
        hak_pages_unmap(leaf, sizeof *leaf);
    }
    memset(reserved, 0, sizeof reserved);
    memset(model, 0, sizeof model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fuzz_bytes in = {.at = data, .end = data + bytes};
    uint64_t op;
    unit_begin(&in);
    for (unsigned i = 0; i < FUZZ_UNIT_OPS && unit_next(&in, &op); i++) step(op);
    unit_calm();
    expect_all();
    forget_all();
    unit_end();
    return 0;
}
