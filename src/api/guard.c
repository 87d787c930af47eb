/* Exact builds (guard.h). The requested size stands in the store's records; the only bytes touched here are the
 * slack behind a block, which nobody else has, and a block's own content where M_PERTURB asks for it. */
#include "api/guard.h"

#include "api/explain.h"
#include "api/quarantine.h"
#include "base/annotate.h"
#include "base/log.h"
#include "base/sync.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/slab.h"

#include <string.h>

#define CANARY 0xA5
/* The slack that is watched: an overflow starts at its first byte, so the rest of a long slack tells no more. */
#define CANARY_BYTES 128
/* A freed block of a slab is filled up to here, and the fill is looked at when the block goes out again. */
#define FREED 0xF5
#define FREED_BYTES 8192
/* What slab->request holds of a block that is not live: never used, or filled. */
#define REQUEST_NONE 0
#define REQUEST_FILLED UINT32_MAX
/* What the larger layers are told was requested of a block that is held back. The L2.5 pool keeps the low half. */
#define REQUEST_HELD SIZE_MAX

_Atomic int hak_guard_perturb;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* What the store gave for a block: more than was requested. */
static size_t given_bytes(const void *ptr, const struct hak_region *region) {
    if (region->owner != 0) return ((const struct hak_slab *)region->descriptor)->block_bytes;
    if (region->kind == HAK_KIND_L25) return hak_l25_usable(region->descriptor, ptr);
    return hak_big_usable(region->descriptor, ptr);
}

size_t hak_guard_given(const void *ptr) {
    struct hak_region region = hak_region_lookup(ptr);
    if (region.owner != 0 || region.kind == HAK_KIND_L25 || region.kind == HAK_KIND_BIG)
        return given_bytes(ptr, &region);
    return 0;
}

static bool is_request(uint32_t request) { return request != REQUEST_NONE && request != REQUEST_FILLED; }

static void check_fill(const unsigned char *ptr, const struct hak_slab *slab) {
    const size_t bytes = least(slab->block_bytes, FREED_BYTES);
    if (*ptr != FREED || memcmp(ptr, ptr + 1, bytes - 1) != 0) /* each byte is like the one before */
        hak_misuse_at_once("malloc", ptr, HAK_MISUSE_WRITE_AFTER_FREE);
}

static void remember(void *ptr, const struct hak_region *region, size_t size) {
    if (region->owner != 0) {
        struct hak_slab *slab = region->descriptor;
        _Atomic uint32_t *request = &slab->request[hak_slab_index(slab, ptr)];
        if (HAK_CHECKED && hak_load_rlx(request) == REQUEST_FILLED) check_fill(ptr, slab);
        /* relaxed: whoever frees the block got the pointer by some synchronisation of the program's own */
        hak_store_rlx(request, (uint32_t)size + 1);
    } else if (region->kind == HAK_KIND_L25) {
        hak_l25_set_request(region->descriptor, ptr, size);
    } else {
        hak_big_set_request(region->descriptor, size);
    }
}

/* Memory that no block ever lay in is open. Where one block of a slab is such, all are that are not live. Two threads
 * may come here at once, of which one has adopted the slab: what became live meanwhile is open again. */
static void close_fresh_slab(struct hak_slab *slab) {
    for (uint32_t i = 0; i < slab->blocks; i++) {
        char *block = slab->base + (size_t)i * slab->block_bytes;
        if (hak_load_rlx(&slab->request[i]) != REQUEST_NONE) continue;
        hak_annotate_close(block, slab->block_bytes);
        const uint32_t request = hak_load_rlx(&slab->request[i]);
        if (hak_unlikely(is_request(request))) hak_annotate_open(block, request - 1);
    }
}

bool hak_guard_alloc(void *ptr, size_t size, size_t usable) {
    struct hak_region region = hak_region_lookup(ptr);
    if (HAK_ASAN_IS_OPEN(ptr) && region.owner != 0) close_fresh_slab(region.descriptor);
    remember(ptr, &region, size);
    char *slack = (char *)ptr + size;
    hak_annotate_alloc(ptr, size);
    hak_annotate_close(slack, usable - size);
    if (HAK_TRACE) hak_explain_alloc(ptr, size, usable);
    if (HAK_CHECKED) memset(slack, CANARY, least(usable - size, CANARY_BYTES));
    int perturb = HAK_CHECKED ? hak_load_rlx(&hak_guard_perturb) : 0;
    if (perturb != 0) memset(ptr, ~perturb, size);
    return perturb != 0;
}

static void check_canary(const char *ptr, size_t size, size_t usable, const char *function) {
    for (size_t i = 0; i < least(usable - size, CANARY_BYTES); i++)
        if ((unsigned char)ptr[size + i] != CANARY)
            hak_misuse_die(&(struct hak_misuse_report){
                .function = function, .ptr = ptr, .kind = HAK_MISUSE_OVERFLOW, .detail = i + 1});
}

/* The record of a slab's block, or the end of the process. */
static _Atomic uint32_t *slab_request(const void *ptr, const struct hak_region *region, const char *function) {
    struct hak_slab *slab = region->descriptor;
    uint32_t index = hak_slab_index(slab, ptr);
    if (index == HAK_NO_BLOCK) hak_misuse_at_once(function, ptr, HAK_MISUSE_INTERIOR);
    return &slab->request[index];
}

/* Whether a block over 32 KiB is held back. */
static bool is_held(const void *ptr, const struct hak_region *region) {
    if (!HAK_QUARANTINE) return false;
    if (region->kind == HAK_KIND_L25) return hak_l25_request(region->descriptor, ptr) == (uint32_t)REQUEST_HELD;
    return region->kind == HAK_KIND_BIG && hak_big_request(region->descriptor) == REQUEST_HELD;
}

/* Whether a live block starts at `ptr`. */
static bool is_live(const void *ptr, const struct hak_region *region) {
    if (region->owner != 0) {
        const struct hak_slab *slab = region->descriptor;
        uint32_t index = hak_slab_index(slab, ptr);
        return index != HAK_NO_BLOCK && is_request(hak_load_rlx(&slab->request[index]));
    }
    bool large = region->kind == HAK_KIND_L25 || region->kind == HAK_KIND_BIG;
    return large && given_bytes(ptr, region) != 0 && !is_held(ptr, region);
}

size_t hak_guard_size(const void *ptr, const struct hak_region *region, const char *function) {
    if (region->owner != 0) {
        uint32_t request = hak_load_rlx(slab_request(ptr, region, function));
        if (!is_request(request)) hak_misuse_at_once(function, ptr, HAK_MISUSE_FREE_MEMORY);
        return request - 1;
    }
    if (is_live(ptr, region))
        return region->kind == HAK_KIND_L25 ? hak_l25_request(region->descriptor, ptr)
                                            : hak_big_request(region->descriptor);
    if (region->kind == HAK_KIND_FREE_SLAB || is_held(ptr, region))
        hak_misuse_at_once(function, ptr, HAK_MISUSE_FREE_MEMORY);
    if (region->kind != HAK_KIND_NONE) hak_misuse_at_once(function, ptr, HAK_MISUSE_INTERIOR);
    hak_misuse_foreign(function, ptr);
    return 0;
}

size_t hak_guard_check(const void *ptr, const struct hak_region *region, const char *function) {
    size_t given = given_bytes(ptr, region);
    check_canary(ptr, hak_guard_size(ptr, region, function), given, function);
    return given;
}

void hak_guard_resize(void *ptr, size_t size, size_t usable) {
    struct hak_region region = hak_region_lookup(ptr);
    remember(ptr, &region, size);
    memset((char *)ptr + size, CANARY, least(usable - size, CANARY_BYTES));
}

/* In both: if no live block starts here, the free that follows says what is wrong. */
void hak_guard_expect_size(const void *ptr, size_t size, const char *function) {
    struct hak_region region = hak_region_lookup(ptr);
    if (!is_live(ptr, &region)) return;
    struct hak_misuse_report report = {.function = function, .ptr = ptr, .kind = HAK_MISUSE_WRONG_SIZE, .detail = size};
    report.actual = hak_guard_size(ptr, &region, function);
    if (size != report.actual) hak_misuse_die(&report);
}

void hak_guard_expect_alignment(const void *ptr, size_t align, const char *function) {
    struct hak_region region = hak_region_lookup(ptr);
    if (!is_live(ptr, &region) || (hak_is_pow2(align) && ((uintptr_t)ptr & (align - 1)) == 0)) return;
    hak_misuse_die(
        &(struct hak_misuse_report){.function = function, .ptr = ptr, .kind = HAK_MISUSE_WRONG_ALIGN, .detail = align});
}

/* Takes the live block of a slab out of the records, or ends the process; returns its requested size. */
static size_t forget_in_slab(void *ptr, const struct hak_region *region, const char *function) {
    /* The exchange decides which of two racing frees is the second one. */
    _Atomic uint32_t *record = slab_request(ptr, region, function);
    uint32_t request = hak_xchg_acqrel(record, REQUEST_NONE);
    if (!is_request(request)) hak_misuse_at_once(function, ptr, HAK_MISUSE_DOUBLE_FREE);
    return request - 1;
}

/* Fills a freed block: as M_PERTURB says, or else, if it has a record, so that a write into it shows. */
static void fill_freed(void *ptr, size_t size, size_t usable, _Atomic uint32_t *record) {
    int perturb = hak_load_rlx(&hak_guard_perturb);
    if (perturb != 0) {
        memset(ptr, perturb, size);
    } else if (record != NULL) {
        memset(ptr, FREED, least(usable, FREED_BYTES));
        hak_store_rlx(record, REQUEST_FILLED); /* the block is still ours alone; see remember() */
    }
}

/* Takes a live block over 32 KiB out of the records; returns its requested size. Of two racing frees the second may
 * come as far as the store, which tells. */
static size_t forget_large(void *ptr, const struct hak_region *region, const char *function) {
    size_t size = hak_guard_size(ptr, region, function);
    if (HAK_QUARANTINE) remember(ptr, region, REQUEST_HELD);
    return size;
}

bool hak_guard_free(void *ptr, const struct hak_region *region, const char *function) {
    bool in_slab = region->owner != 0;
    if (!in_slab && !is_live(ptr, region)) {
        if (is_held(ptr, region)) hak_misuse_at_once(function, ptr, HAK_MISUSE_DOUBLE_FREE);
        return false; /* reported by the router or the store */
    }
    size_t usable = given_bytes(ptr, region);
    size_t size = in_slab ? forget_in_slab(ptr, region, function) : forget_large(ptr, region, function);
    if (HAK_CHECKED) check_canary(ptr, size, usable, function);
    if (HAK_CHECKED) fill_freed(ptr, size, usable, in_slab ? slab_request(ptr, region, function) : NULL);
    if (HAK_TRACE) hak_explain_free(ptr, usable);
    hak_annotate_free(ptr, usable);
    return HAK_QUARANTINE && hak_quarantine_keep(ptr, usable);
}
