/* Giving memory back (l25_purge.h); also decay and purge-all of l25.h. */
#include "stores/l25_purge.h"

#include "base/options.h"
#include "pages/budget.h"
#include "pages/pages.h"
#include "pages/region.h"
#include "stores/l25.h"
#include "stores/l25_table.h"

#define ANY_AGE UINT64_MAX

/* Slices over all shards, less what each owes. Any thread, relaxed: advice on when to purge. Signed, because one
 * shard's debt may be added before another's. */
static _Atomic int64_t live_slices, dirty_slices;

static void pay_locked(struct hak_l25_shard *shard) HAK_REQUIRES(shard->lock) {
    hak_add_rlx(&live_slices, shard->owed_live);
    hak_add_rlx(&dirty_slices, shard->owed_dirty);
    shard->owed_live = shard->owed_dirty = 0;
}

static bool is_much(int64_t slices) { return slices > HAK_L25_OWED || slices < -HAK_L25_OWED; }

void hak_l25_settle_locked(struct hak_l25_shard *shard) {
    if (is_much(shard->owed_live) || is_much(shard->owed_dirty)) pay_locked(shard);
}

/* More is dirty than that part of the budget. */
static bool is_over(enum hak_budget_part part) {
    int64_t dirty = hak_load_rlx(&dirty_slices), live = hak_load_rlx(&live_slices);
    if (dirty <= 0) return false;
    const uint64_t live_bytes = (live > 0 ? (uint64_t)live : 0) * HAK_SLICE_BYTES;
    return (uint64_t)dirty * HAK_SLICE_BYTES > hak_budget(HAK_STORE_L25, part, live_bytes);
}

/* Purges the runs of `mask`; the slices whose purge failed. */
static uint64_t purge_runs(char *base, uint64_t mask) {
    uint64_t failed = 0;
    while (mask != 0) {
        unsigned start = (unsigned)__builtin_ctzll(mask);
        unsigned count = hak_l25_count((mask >> start) & ~((mask >> start) + 1)); /* ones up to the first zero */
        uint64_t run = hak_l25_mask(start, count);
        if (!hak_pages_purge(base + start * HAK_SLICE_BYTES, count * HAK_SLICE_BYTES)) failed |= run;
        mask &= ~run;
    }
    return failed;
}

/* Purges one chunk, the oldest whose last free is `before_ms` or earlier. The slices given back; 0: there is none,
 * or the OS refused, in which case asking it for others would be no use either. */
static unsigned purge_oldest(struct hak_l25_shard *shard, uint64_t before_ms, bool *refused) {
    hak_lock(&shard->lock);
    struct hak_l25_chunk *chunk = shard->oldest;
    if (chunk == NULL || chunk->dirty_ms > before_ms) {
        hak_unlock(&shard->lock);
        return 0;
    }
    const uint64_t claimed = hak_l25_chunk_claim(chunk);
    char *base = hak_load_rlx(&chunk->base);
    hak_l25_shard_sync_locked(shard, chunk, 0);
    pay_locked(shard);
    hak_unlock(&shard->lock);

    const uint64_t failed = purge_runs(base, claimed);
    const unsigned purged = hak_l25_count(claimed & ~failed);

    hak_lock(&shard->lock);
    if (hak_l25_shard_has(shard, chunk)) { /* else a forked child set it aside meanwhile */
        hak_l25_chunk_unclaim(chunk, claimed, failed);
        hak_l25_shard_sync_locked(shard, chunk, hak_load_rlx(&hak_l25_clock_ms));
        pay_locked(shard);
    }
    hak_count_by_owner(&shard->purged_slices, purged);
    hak_unlock(&shard->lock);
    *refused = failed != 0;
    return purged;
}

/* False: nothing more is to be done elsewhere. */
static bool trim_shard(struct hak_l25_shard *shard) {
    bool refused = false;
    for (unsigned purged; is_over(HAK_BUDGET_ALL) && !refused;) {
        purged = purge_oldest(shard, ANY_AGE, &refused);
        if (purged == 0) break;
        hak_budget_trimmed(HAK_STORE_L25, purged * HAK_SLICE_BYTES);
    }
    return is_over(HAK_BUDGET_ALL) && !refused;
}

bool hak_l25_is_spent(void) { return !is_over(HAK_BUDGET_FLOOR); }

void hak_l25_trim(struct hak_l25_shard *shard) {
    if (!is_over(HAK_BUDGET_ALL) || hak_pages_purge_is_refused() || !trim_shard(shard)) return;
    const uint32_t count = hak_l25_table_count();
    for (uint32_t i = 0; (i = hak_l25_table_next(i, count)) < count; i++)
        if (!trim_shard(hak_l25_table_shard(i))) return;
}

size_t hak_l25_reclaim(size_t most_bytes) {
    size_t bytes = 0;
    bool refused = !is_over(HAK_BUDGET_FLOOR) || hak_pages_purge_is_refused();
    const uint32_t count = hak_l25_table_count_now();
    for (uint32_t i = 0; !refused && (i = hak_l25_table_next(i, count)) < count; i++)
        for (unsigned purged = 1; purged != 0 && !refused && bytes < most_bytes && is_over(HAK_BUDGET_FLOOR);) {
            purged = purge_oldest(hak_l25_table_shard(i), ANY_AGE, &refused);
            bytes += purged * HAK_SLICE_BYTES;
        }
    return bytes;
}

/* Detaches the wholly free chunks that are so since `before_ms` or earlier, linked by `next`. */
static struct hak_l25_chunk *detach_idle_locked(struct hak_l25_shard *shard, uint64_t before_ms)
    HAK_REQUIRES(shard->lock) {
    struct hak_l25_chunk *gone = NULL, *next;
    for (struct hak_l25_chunk *chunk = shard->lists[HAK_L25_IDLE]; chunk != NULL; chunk = next) {
        next = chunk->next;
        if (chunk->idle_ms > before_ms) continue;
        hak_l25_shard_detach_locked(shard, chunk);
        chunk->next = gone;
        gone = chunk;
    }
    if (gone == NULL) return NULL;
    pay_locked(shard);
    if (hak_load_rlx(&shard->chunks) == 0) hak_l25_table_mark(shard->index, false);
    return gone;
}

/* Unmaps them and keeps their descriptors. The region entries go first: once the range is unmapped, another
 * thread may get it from the OS and enter it for itself. */
static size_t unmap_chunks(struct hak_l25_shard *shard, struct hak_l25_chunk *gone) {
    size_t bytes = 0;
    for (struct hak_l25_chunk *next; gone != NULL; gone = next) {
        next = gone->next;
        char *base = hak_load_rlx(&gone->base);
        hak_region_clear(base, HAK_CHUNK_BYTES);
        hak_pages_unmap(base, HAK_CHUNK_BYTES);
        bytes += HAK_CHUNK_BYTES;
        hak_lock(&shard->lock);
        gone->next = shard->spare;
        shard->spare = gone;
        hak_unlock(&shard->lock);
    }
    return bytes;
}

static size_t unmap_idle(struct hak_l25_shard *shard, uint64_t before_ms) {
    hak_lock(&shard->lock);
    struct hak_l25_chunk *gone = detach_idle_locked(shard, before_ms);
    hak_unlock(&shard->lock);
    return unmap_chunks(shard, gone);
}

/* Both kinds of giving back, for every shard that has chunks: what was last used at these times or earlier. */
static size_t give_back(uint64_t unmap_before_ms, uint64_t purge_before_ms) {
    size_t bytes = 0;
    const uint32_t count = hak_l25_table_count_now();
    for (uint32_t i = 0; (i = hak_l25_table_next(i, count)) < count; i++) {
        struct hak_l25_shard *shard = hak_l25_table_shard(i);
        bytes += unmap_idle(shard, unmap_before_ms);
        /* Bounded: other threads may free as fast as this one purges. */
        bool refused = false;
        for (uint64_t chunks = hak_load_rlx(&shard->chunks); chunks != 0 && !refused; chunks--) {
            unsigned purged = purge_oldest(shard, purge_before_ms, &refused);
            if (purged == 0) break;
            bytes += purged * HAK_SLICE_BYTES;
        }
    }
    return bytes;
}

void hak_l25_decay(uint64_t now_ms) {
    const uint64_t unmap_delay = hak_option(UNMAP_DELAY_MS), purge_delay = hak_option(PURGE_DELAY_MS);
    hak_store_rlx(&hak_l25_clock_ms, now_ms);
    if (now_ms >= purge_delay) give_back(now_ms >= unmap_delay ? now_ms - unmap_delay : 0, now_ms - purge_delay);
}

size_t hak_l25_purge_all(void) { return give_back(ANY_AGE, ANY_AGE); }

#if HAK_TEST
void hak_l25_purge_reset_for_test(void) {
    hak_store_rlx(&live_slices, 0);
    hak_store_rlx(&dirty_slices, 0);
    hak_budget_reset_for_test(HAK_STORE_L25);
}
#endif
