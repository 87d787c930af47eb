/* The L2.5 pool's entry points (l25.h): where a run is looked for, and what a free checks. */
#include "stores/l25.h"

#include "base/sys.h"
#include "pages/budget.h"
#include "pages/meta.h"
#include "pages/pages.h"
#include "pages/region.h"
#include "stores/l25_purge.h"
#include "stores/l25_table.h"

/* The clock is read, and the load judged, at every so many requests of a shard. */
#define TICK_REQUESTS 64
/* Who has no room at home leaves it at so many busy shards, and gets a chunk. */
#define BUSY_MAX 3

static unsigned slices_of(size_t bytes) {
    return bytes == 0 ? 1 : (unsigned)((bytes + HAK_SLICE_BYTES - 1) >> HAK_L25_SLICE_SHIFT);
}

/* Every slice whose address is a multiple of `align`. */
static uint64_t starts_of(size_t align) {
    unsigned step = align <= HAK_SLICE_BYTES ? 1 : (unsigned)(align >> HAK_L25_SLICE_SHIFT);
    return HAK_L25_ALL / (((uint64_t)1 << step) - 1);
}

static bool looks_fit(const struct hak_l25_shard *shard, const struct hak_l25_want *want) {
    return hak_load_rlx(&shard->best) >= want->slices;
}

/* A block is served whose memory is not resident. */
static void count_fresh(size_t bytes) {
    hak_budget_count(HAK_STORE_L25, (ptrdiff_t)bytes);
    if (hak_budget_was_trimmed(HAK_STORE_L25) && hak_l25_is_spent()) hak_budget_retaken(HAK_STORE_L25, bytes);
}

/* What an allocation does with a shard that it has locked, and what it leaves for after the unlock. */
static bool take_and_unlock(struct hak_l25_shard *shard, const struct hak_l25_want *want, struct hak_block *block)
    HAK_RELEASE(shard->lock) {
    bool taken = hak_l25_shard_take_locked(shard, want, block);
    bool tick = hak_load_rlx(&shard->requests) % TICK_REQUESTS == 0;
    hak_l25_settle_locked(shard);
    hak_unlock(&shard->lock);
    if (taken && block->zero) count_fresh(block->bytes);
    if (tick) hak_l25_table_tick();
    return taken;
}

/* What came of a visit to a shard. */
enum outcome { NO_ROOM, BUSY, SERVED };
typedef enum outcome visit(struct hak_l25_shard *shard, const struct hak_l25_want *want, struct hak_block *block);

static enum outcome try_shard(struct hak_l25_shard *shard, const struct hak_l25_want *want, struct hak_block *block) {
    if (!looks_fit(shard, want)) return NO_ROOM;
    if (!hak_l25_shard_try(shard)) return BUSY;
    return take_and_unlock(shard, want, block) ? SERVED : NO_ROOM;
}

static enum outcome wait_for_shard(struct hak_l25_shard *shard, const struct hak_l25_want *want,
                                   struct hak_block *block) {
    if (!looks_fit(shard, want)) return NO_ROOM;
    hak_lock(&shard->lock);
    return take_and_unlock(shard, want, block) ? SERVED : NO_ROOM;
}

/* Visits the shard `own` and then all others that have chunks, in a ring, until one serves. Who has no room of its own
 * and meets BUSY_MAX busy shards gets some: else all who share those shards would meet there for ever. */
static bool go_round(uint32_t own, visit *visit_shard, const struct hak_l25_want *want, struct hak_block *block) {
    const uint32_t count = hak_l25_table_count();
    const enum outcome at_home = visit_shard(hak_l25_table_shard(own), want, block);
    if (at_home == SERVED) return true;
    uint32_t busy = 0;
    for (uint32_t part = 0; part < 2; part++) {
        const uint32_t end = part == 0 ? count : own;
        for (uint32_t i = part == 0 ? own + 1 : 0; (i = hak_l25_table_next(i, end)) < end; i++) {
            enum outcome visited = visit_shard(hak_l25_table_shard(i), want, block);
            if (visited == SERVED) return true;
            if (visited == BUSY && at_home == NO_ROOM && ++busy == BUSY_MAX) return false;
        }
    }
    return false;
}

/* A descriptor of this shard; descriptors never change shard, so a stale one still leads to the right lock. */
static struct hak_l25_chunk *descriptor_for(struct hak_l25_shard *shard) {
    hak_lock(&shard->lock);
    struct hak_l25_chunk *chunk = shard->spare;
    if (chunk != NULL) shard->spare = chunk->next;
    hak_unlock(&shard->lock);
    if (chunk != NULL) return chunk;
    chunk = hak_meta_alloc(sizeof *chunk);
    if (chunk != NULL) chunk->shard = shard;
    return chunk;
}

static void *map_chunk(const struct hak_l25_shard *shard, bool *zero) {
    void *base = hak_pages_map(HAK_CHUNK_BYTES, HAK_CHUNK_BYTES, zero);
    if (base == NULL) return NULL;
    if (!hak_region_reserve(base, HAK_CHUNK_BYTES)) {
        hak_pages_unmap(base, HAK_CHUNK_BYTES);
        return NULL;
    }
    if (!hak_pages_may_be_huge(hak_load_rlx(&shard->chunks) * HAK_CHUNK_BYTES))
        hak_sys_keep_small(base, HAK_CHUNK_BYTES);
    return base;
}

static bool take_from_fresh_chunk(struct hak_l25_shard *shard, const struct hak_l25_want *want,
                                  struct hak_block *block) {
    struct hak_l25_chunk *chunk = descriptor_for(shard);
    if (chunk == NULL) return false;
    bool zero = false;
    char *base = map_chunk(shard, &zero);
    if (base == NULL) {
        hak_lock(&shard->lock);
        chunk->next = shard->spare;
        shard->spare = chunk;
        hak_unlock(&shard->lock);
        return false;
    }
    hak_store_rlx(&chunk->base, base);
    hak_region_set(base, HAK_CHUNK_BYTES, 0, HAK_KIND_L25, chunk); /* before anybody can be given a piece of it */
    hak_lock(&shard->lock);
    hak_l25_shard_attach_locked(shard, chunk, zero, hak_load_rlx(&hak_l25_clock_ms));
    hak_l25_table_mark(shard->index, true);
    return take_and_unlock(shard, want, block);
}

struct hak_block hak_l25_alloc(size_t bytes, size_t align, uint32_t lane) {
    struct hak_block block = {.ptr = NULL};
    if (bytes > HAK_L25_MAX || align > HAK_L25_MAX) return block;
    const struct hak_l25_want want = {.slices = slices_of(bytes), .starts = starts_of(align)};
    const uint32_t own = lane & (hak_l25_table_count() - 1);
    struct hak_l25_shard *shard = hak_l25_table_shard(own);
    if (go_round(own, try_shard, &want, &block)) return block;
    if (wait_for_shard(shard, &want, &block) == SERVED) return block; /* busy when it was tried, but it has room */
    if (take_from_fresh_chunk(shard, &want, &block)) return block;
    go_round(own, wait_for_shard, &want, &block); /* no memory: now it is worth waiting for any */
    return block;
}

static void lock_counted(struct hak_l25_shard *shard) HAK_ACQUIRE(shard->lock) {
    if (!hak_l25_shard_try(shard)) hak_lock(&shard->lock);
}

/* A run of a chunk that was set aside: its memory is given back, the run stays out of use. */
static void drop_aside_locked(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk, unsigned start)
    HAK_REQUIRES(shard->lock) {
    unsigned slices = hak_load_rlx(&chunk->run[start]);
    hak_l25_chunk_give(chunk, start);
    hak_count_by_owner(&shard->ended_slices, slices);
    shard->owed_live -= slices;
}

enum hak_free_result hak_l25_free(void *descriptor, void *ptr) {
    struct hak_l25_chunk *chunk = descriptor;
    struct hak_l25_shard *shard = chunk->shard;
    unsigned start = 0, slices = 0;
    lock_counted(shard);
    bool aside = !hak_l25_shard_has(shard, chunk);
    enum hak_free_result result = hak_l25_chunk_locate(chunk, ptr, &start);
    if (result == HAK_FREE_OK) {
        slices = hak_load_rlx(&chunk->run[start]);
        hak_count_by_owner(&shard->ended_blocks, 1);
        if (aside) {
            drop_aside_locked(shard, chunk, start);
        } else {
            hak_l25_chunk_give(chunk, start);
            hak_l25_shard_sync_locked(shard, chunk, hak_load_rlx(&hak_l25_clock_ms));
        }
        hak_l25_settle_locked(shard);
    }
    hak_unlock(&shard->lock);
    if (result != HAK_FREE_OK) return result;
    if (aside) hak_pages_purge(ptr, slices * HAK_SLICE_BYTES);
    else hak_l25_trim(shard);
    return HAK_FREE_OK;
}

size_t hak_l25_usable(void *descriptor, const void *ptr) {
    unsigned start;
    return hak_l25_chunk_run(descriptor, ptr, &start) * HAK_SLICE_BYTES;
}

bool hak_l25_resize(void *descriptor, void *ptr, size_t bytes, size_t *usable) {
    struct hak_l25_chunk *chunk = descriptor;
    struct hak_l25_shard *shard = chunk->shard;
    const unsigned slices = slices_of(bytes);
    unsigned start;
    if (bytes > HAK_L25_MAX) return false;
    *usable = slices * HAK_SLICE_BYTES;
    if (hak_l25_chunk_run(chunk, ptr, &start) == slices) return true;
    lock_counted(shard);
    bool resized = hak_l25_shard_has(shard, chunk) && hak_l25_chunk_run(chunk, ptr, &start) != 0 &&
                   hak_l25_chunk_resize(chunk, start, slices);
    if (resized) {
        hak_l25_shard_sync_locked(shard, chunk, hak_load_rlx(&hak_l25_clock_ms));
        hak_l25_settle_locked(shard);
    }
    hak_unlock(&shard->lock);
    if (resized) hak_l25_trim(shard);
    return resized;
}

void hak_l25_set_request(void *descriptor, const void *ptr, size_t bytes) {
    struct hak_l25_chunk *chunk = descriptor;
    unsigned start;
    if (HAK_EXACT && hak_l25_chunk_run(chunk, ptr, &start) != 0) hak_store_rlx(&chunk->request[start], (uint32_t)bytes);
}

size_t hak_l25_request(void *descriptor, const void *ptr) {
    struct hak_l25_chunk *chunk = descriptor;
    unsigned start;
    return HAK_EXACT && hak_l25_chunk_run(chunk, ptr, &start) != 0 ? hak_load_rlx(&chunk->request[start]) : 0;
}

struct hak_l25_stats hak_l25_stats(void) {
    struct hak_l25_stats stats = {.shards = hak_l25_table_count_now(), .expansions = hak_l25_table_expansions()};
    for (uint32_t i = 0; i < stats.shards; i++) {
        const struct hak_l25_shard *shard = hak_l25_table_shard(i);
        /* what ended is read first: then it never exceeds what was served */
        uint64_t ended_blocks = hak_load_rlx(&shard->ended_blocks), ended_slices = hak_load_rlx(&shard->ended_slices);
        uint64_t served_blocks = hak_load_rlx(&shard->served_blocks),
                 served_slices = hak_load_rlx(&shard->served_slices);
        stats.live_blocks += served_blocks - ended_blocks;
        stats.live_bytes += (served_slices - ended_slices) * HAK_SLICE_BYTES;
        stats.served_blocks += served_blocks;
        stats.served_bytes += served_slices * HAK_SLICE_BYTES;
        stats.mapped_bytes += (hak_load_rlx(&shard->chunks) + hak_load_rlx(&shard->chunks_aside)) * HAK_CHUNK_BYTES;
        stats.dirty_bytes += hak_load_rlx(&shard->dirty_slices) * HAK_SLICE_BYTES;
        stats.purged_bytes += hak_load_rlx(&shard->purged_slices) * HAK_SLICE_BYTES;
        stats.requests += hak_load_rlx(&shard->requests);
        stats.lock_misses += hak_load_rlx(&shard->misses);
    }
    return stats;
}

bool hak_l25_check(void) {
    bool good = true;
    for (uint32_t i = 0; good && i < hak_l25_table_count_now(); i++) {
        struct hak_l25_shard *shard = hak_l25_table_shard(i);
        hak_lock(&shard->lock);
        good = hak_l25_shard_check_locked(shard);
        bool marked = hak_l25_table_next(i, i + 1) == i;
        good = good && marked == (hak_load_rlx(&shard->chunks) != 0);
        hak_unlock(&shard->lock);
    }
    return good;
}

void hak_l25_fork_child(void) HAK_NO_TSA {
    hak_l25_table_fork_child();
    for (uint32_t i = 0; i < hak_l25_table_count_now(); i++) {
        struct hak_l25_shard *shard = hak_l25_table_shard(i);
        if (!hak_lock_reset_in_child(&shard->lock)) continue;
        hak_l25_shard_set_aside_locked(shard);
        hak_l25_table_mark(i, false);
    }
}

#if HAK_TEST
void hak_l25_reset_for_test(void) {
    hak_l25_purge_all();
    hak_l25_table_reset_for_test();
    hak_l25_purge_reset_for_test();
}
#endif
