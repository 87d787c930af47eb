/* The table of shards, and its growth (l25_table.h). */
#include "stores/l25_table.h"

#include "base/log.h"
#include "base/options.h"
#include "base/sys.h"
#include "pages/meta.h"

#include <string.h>

#define FIRST_SHARDS 64U
#define BLOCKS 5
/* A share of fewer try-locks than these says nothing. */
#define TRIES_MIN 256

static_assert(FIRST_SHARDS << (BLOCKS - 1) == HAK_L25_SHARDS_LIMIT, "the blocks hold the largest table");

_Atomic uint64_t hak_l25_clock_ms;

static struct hak_l25_shard first_shards[FIRST_SHARDS];
/* Written under the table's lock before the count that makes an entry known; constant from then on. */
static struct hak_l25_shard *blocks[BLOCKS] = {first_shards};
/* Written under the table's lock with release, which publishes the shards below it; read by any thread, acquire. */
static _Atomic uint32_t shard_count;
/* One bit per shard: acquire-release, though only a hint: a set bit also orders the shard's hint before it. */
static _Atomic uint64_t occupied[HAK_L25_SHARDS_LIMIT / 64];
/* When the interval began. Whoever swaps it in has the check to itself. */
static _Atomic uint64_t interval_ms;
static _Atomic uint64_t expansions; /* written under the table's lock; any thread reads, relaxed */

static struct hak_lock table_lock = HAK_LOCK_INIT(HAK_RANK_L25_TABLE);
struct sums {
    uint64_t requests, locked, misses;
};
static struct sums interval_start HAK_GUARDED_BY(table_lock);

static uint32_t most_shards(void) {
    uint64_t most = hak_option(L25_SHARDS_MAX), least = hak_option(L25_SHARDS_MIN);
    return (uint32_t)hak_pow2_floor(most > least ? most : least);
}

static unsigned block_of(uint32_t index) {
    return index < FIRST_SHARDS ? 0 : 32 - (unsigned)__builtin_clz(index / FIRST_SHARDS);
}

struct hak_l25_shard *hak_l25_table_shard(uint32_t index) {
    unsigned block = block_of(index);
    return blocks[block] + (block == 0 ? index : index - (FIRST_SHARDS << (block - 1)));
}

static void init_shards(struct hak_l25_shard *shards, uint32_t first_index, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) hak_l25_shard_init(&shards[i], first_index + i);
}

/* Doubles a table of `count` shards, a multiple of FIRST_SHARDS. False if memory is short or another thread was
 * first. The shards are made before the lock is taken: the swap of the count is all that happens under it. */
static bool grow(uint32_t count) {
    struct hak_l25_shard *shards = hak_meta_alloc(count * sizeof *shards);
    if (shards == NULL) return false;
    init_shards(shards, count, count);
    hak_lock(&table_lock);
    bool first = hak_load_rlx(&shard_count) == count;
    if (first) {
        blocks[block_of(count)] = shards;
        hak_store_rel(&shard_count, 2 * count); /* pairs with the acquire in hak_l25_table_count_now */
    }
    hak_unlock(&table_lock);
    if (!first) hak_meta_free(shards, count * sizeof *shards);
    return first;
}

/* A table smaller than the first block grows within it. */
static bool grow_within_first(uint32_t count) {
    hak_lock(&table_lock);
    bool first = hak_load_rlx(&shard_count) == count;
    if (first) hak_store_rel(&shard_count, 2 * count); /* pairs with the acquire in hak_l25_table_count_now */
    hak_unlock(&table_lock);
    return first;
}

static bool double_table(uint32_t count) { return count < FIRST_SHARDS ? grow_within_first(count) : grow(count); }

static HAK_COLD uint32_t set_up(void) {
    const uint32_t wanted = (uint32_t)hak_pow2_floor(hak_option(L25_SHARDS_MIN));
    hak_lock(&table_lock);
    if (hak_load_rlx(&shard_count) == 0) {
        init_shards(first_shards, 0, FIRST_SHARDS);
        uint64_t now = hak_sys_now_ms();
        hak_store_rlx(&hak_l25_clock_ms, now);
        hak_store_rlx(&interval_ms, now);
        /* release: pairs with the acquire in hak_l25_table_count_now */
        hak_store_rel(&shard_count, wanted < FIRST_SHARDS ? wanted : FIRST_SHARDS);
    }
    hak_unlock(&table_lock);
    while (hak_l25_table_count_now() < wanted && grow(hak_l25_table_count_now())) {
    }
    return hak_l25_table_count_now();
}

uint32_t hak_l25_table_count_now(void) { return hak_load_acq(&shard_count); /* pairs with the releases above */ }

uint32_t hak_l25_table_count(void) {
    uint32_t count = hak_l25_table_count_now();
    return hak_likely(count != 0) ? count : set_up();
}

void hak_l25_table_mark(uint32_t index, bool has_chunks) {
    uint64_t bit = (uint64_t)1 << (index % 64);
    if (has_chunks) hak_or_acqrel(&occupied[index / 64], bit);
    else hak_and_acqrel(&occupied[index / 64], ~bit);
}

uint32_t hak_l25_table_next(uint32_t index, uint32_t end) {
    for (; index < end; index = (index | 63) + 1) {
        uint64_t bits = hak_load_acq(&occupied[index / 64]) >> (index % 64); /* pairs with hak_l25_table_mark */
        if (bits == 0) continue;
        index += (uint32_t)__builtin_ctzll(bits);
        return index < end ? index : end;
    }
    return end;
}

/* What the shards counted since the last call. */
static struct sums interval_sums_locked(uint32_t count) HAK_REQUIRES(table_lock) {
    struct sums now = {.requests = 0};
    for (uint32_t i = 0; i < count; i++) {
        struct hak_l25_shard *shard = hak_l25_table_shard(i);
        now.requests += hak_load_rlx(&shard->requests);
        now.locked += hak_load_rlx(&shard->locked);
        now.misses += hak_load_rlx(&shard->misses);
    }
    struct sums since = {.requests = now.requests - interval_start.requests,
                         .locked = now.locked - interval_start.locked,
                         .misses = now.misses - interval_start.misses};
    interval_start = now;
    return since;
}

static void log_expansion(const char *what, uint64_t figure, const char *unit, uint32_t count) {
    struct hak_text text = {.used = 0};
    hak_text_str(&text, what);
    hak_text_u64(&text, figure);
    hak_text_str(&text, unit);
    hak_text_line(&text, 2);
    hak_text_str(&text, "[L2.5_POOL] Expanded shards: ");
    hak_text_u64(&text, count);
    hak_text_str(&text, " → ");
    hak_text_u64(&text, 2 * (uint64_t)count);
    hak_text_line(&text, 2);
}

/* One interval is over: doubles the table for load, or else for contention. */
static void judge(const struct sums *since, uint32_t count) {
    if (count >= most_shards()) return;
    uint64_t load = since->requests / count, tries = since->locked + since->misses;
    uint64_t percent = tries < TRIES_MIN ? 0 : since->misses * 100 / tries;
    bool loaded = load > hak_option(L25_LOAD);
    if (!loaded && percent <= hak_option(L25_CONTENTION)) return;
    if (!double_table(count)) return;
    hak_add_rlx(&expansions, 1);
    if (!hak_option(LOG)) return;
    if (loaded) log_expansion("[L2.5_POOL] High load detected (avg=", load, "), expanding shards", count);
    else log_expansion("[L2.5_POOL] High contention detected (", percent, "%), expanding shards", count);
}

void hak_l25_table_tick(void) {
    uint64_t now = hak_sys_now_ms(), began = hak_load_acq(&interval_ms); /* pairs with the swap below */
    hak_store_rlx(&hak_l25_clock_ms, now);
    if (now < began || now - began < hak_option(L25_CHECK_MS)) return;
    if (!hak_cas_acqrel(&interval_ms, &began, now)) return; /* another thread has this check */
    if (!hak_lock_try(&table_lock)) return;                 /* the check of an earlier interval is not over */
    uint32_t count = hak_load_rlx(&shard_count);
    struct sums since = interval_sums_locked(count);
    hak_unlock(&table_lock);
    judge(&since, count);
}

uint64_t hak_l25_table_expansions(void) { return hak_load_rlx(&expansions); }

/* The table itself is never half changed: a block is in place before the count says so. */
void hak_l25_table_fork_child(void) { hak_lock_reset_in_child(&table_lock); }

#if HAK_TEST
void hak_l25_table_reset_for_test(void) HAK_NO_TSA {
    for (uint32_t count = hak_l25_table_count_now(); count > FIRST_SHARDS; count /= 2)
        hak_meta_free(blocks[block_of(count / 2)], count / 2 * sizeof **blocks);
    hak_store_rlx(&shard_count, 0);
    hak_store_rlx(&expansions, 0);
    memset(&interval_start, 0, sizeof interval_start);
    memset((void *)first_shards, 0, sizeof first_shards);
}
#endif
