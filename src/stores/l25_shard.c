/* Lists and counters of one shard (l25_shard.h). */
#include "stores/l25_shard.h"

/* Chunks of one list looked at for an aligned run, before a list with longer runs. */
#define ALIGNED_TRIES 8

void hak_l25_shard_init(struct hak_l25_shard *shard, uint32_t index) {
    shard->lock = (struct hak_lock)HAK_LOCK_INIT(HAK_RANK_L25);
    shard->index = index;
}

bool hak_l25_shard_try(struct hak_l25_shard *shard) HAK_NO_TSA {
    if (hak_lock_try(&shard->lock)) {
        hak_count_by_owner(&shard->locked, 1);
        return true;
    }
    hak_add_rlx(&shard->misses, 1);
    return false;
}

static unsigned list_for(const struct hak_l25_chunk *chunk) {
    if (chunk->free == HAK_L25_ALL) return HAK_L25_IDLE;
    unsigned longest = hak_l25_longest(chunk->free);
    return longest < HAK_L25_LONG ? longest : HAK_L25_LONG;
}

/* What is dirty is resident already: it comes first, to be used first. */
static void list_insert(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk, unsigned list) {
    struct hak_l25_chunk *first = shard->lists[list], *last = first == NULL ? chunk : first->prev;
    const bool in_front = first == NULL || chunk->dirty != 0;
    chunk->list = (uint8_t)list;
    chunk->prev = last;
    chunk->next = in_front ? first : NULL;
    if (first != NULL) first->prev = chunk;
    if (in_front) shard->lists[list] = chunk;
    else last->next = chunk;
    shard->nonempty |= 1U << list;
}

static void list_remove(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk) {
    struct hak_l25_chunk *first = shard->lists[chunk->list];
    if (chunk == first) shard->lists[chunk->list] = chunk->next;
    else chunk->prev->next = chunk->next;
    if (chunk->next != NULL) chunk->next->prev = chunk->prev;
    else if (chunk != first) first->prev = chunk->prev;
    if (shard->lists[chunk->list] == NULL) shard->nonempty &= ~(1U << chunk->list);
}

static void age_remove(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk) {
    if (!chunk->aging) return;
    chunk->aging = false;
    *(chunk->older != NULL ? &chunk->older->newer : &shard->oldest) = chunk->newer;
    *(chunk->newer != NULL ? &chunk->newer->older : &shard->newest) = chunk->older;
}

static void age_insert(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk, uint64_t now_ms) {
    age_remove(shard, chunk);
    chunk->aging = true;
    chunk->dirty_ms = now_ms;
    chunk->older = shard->newest;
    chunk->newer = NULL;
    *(chunk->older != NULL ? &chunk->older->newer : &shard->oldest) = chunk;
    shard->newest = chunk;
}

static void update_hint(struct hak_l25_shard *shard) {
    uint32_t best = shard->nonempty == 0 ? 0 : 31 - (uint32_t)__builtin_clz(shard->nonempty);
    if (hak_load_rlx(&shard->best) != best) hak_store_rlx(&shard->best, best);
}

static void count_slices(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk) {
    unsigned live = HAK_CHUNK_SLICES - hak_l25_count(chunk->free | chunk->claimed), dirty = hak_l25_count(chunk->dirty);
    int64_t more_live = (int64_t)live - chunk->live_slices, more_dirty = (int64_t)dirty - chunk->dirty_slices;
    if (more_live > 0) hak_count_by_owner(&shard->served_slices, (uint64_t)more_live);
    if (more_live < 0) hak_count_by_owner(&shard->ended_slices, (uint64_t)-more_live);
    if (more_dirty != 0) hak_count_by_owner(&shard->dirty_slices, (uint64_t)more_dirty); /* wraps for fewer */
    shard->owed_live += more_live;
    shard->owed_dirty += more_dirty;
    chunk->live_slices = (uint8_t)live;
    chunk->dirty_slices = (uint8_t)dirty;
}

void hak_l25_shard_sync_locked(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk, uint64_t now_ms) {
    const unsigned dirty_before = chunk->dirty_slices, live_before = chunk->live_slices, list = list_for(chunk);
    count_slices(shard, chunk);
    if (chunk->live_slices == 0 && live_before != 0) chunk->idle_ms = now_ms;
    if (chunk->dirty_slices > dirty_before) age_insert(shard, chunk, now_ms);
    else if (chunk->dirty_slices == 0) age_remove(shard, chunk);
    if (list == chunk->list) return;
    list_remove(shard, chunk);
    list_insert(shard, chunk, list);
    update_hint(shard);
}

void hak_l25_shard_attach_locked(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk, bool zero, uint64_t now_ms) {
    hak_l25_chunk_init(chunk, zero, shard->generation);
    chunk->idle_ms = now_ms;
    chunk->aging = false;
    list_insert(shard, chunk, HAK_L25_IDLE);
    hak_l25_shard_sync_locked(shard, chunk, now_ms);
    hak_count_by_owner(&shard->chunks, 1);
    update_hint(shard);
}

void hak_l25_shard_detach_locked(struct hak_l25_shard *shard, struct hak_l25_chunk *chunk) {
    chunk->dirty = 0;
    count_slices(shard, chunk);
    age_remove(shard, chunk);
    list_remove(shard, chunk);
    update_hint(shard);
    hak_count_by_owner(&shard->chunks, (uint64_t)-1);
    hak_count_by_owner(&shard->purged_slices, HAK_CHUNK_SLICES);
}

static struct hak_l25_chunk *cut(struct hak_l25_shard *shard, const struct hak_l25_want *want, struct hak_block *block)
    HAK_REQUIRES(shard->lock) {
    for (uint32_t fits = shard->nonempty >> want->slices << want->slices; fits != 0; fits &= fits - 1) {
        struct hak_l25_chunk *chunk = shard->lists[__builtin_ctz(fits)];
        for (unsigned tries = 0; chunk != NULL && tries < ALIGNED_TRIES; tries++, chunk = chunk->next) {
            unsigned start = hak_l25_chunk_take(chunk, want, &block->zero);
            if (start == HAK_L25_NO_RUN) continue;
            block->ptr = hak_load_rlx(&chunk->base) + start * HAK_SLICE_BYTES;
            block->bytes = want->slices * HAK_SLICE_BYTES;
            return chunk;
        }
    }
    return NULL;
}

bool hak_l25_shard_take_locked(struct hak_l25_shard *shard, const struct hak_l25_want *want, struct hak_block *block) {
    hak_count_by_owner(&shard->requests, 1);
    struct hak_l25_chunk *chunk = cut(shard, want, block);
    if (chunk == NULL) return false;
    hak_count_by_owner(&shard->served_blocks, 1);
    hak_l25_shard_sync_locked(shard, chunk, 0); /* no slice becomes dirty or idle here: no time is needed */
    return true;
}

void hak_l25_shard_set_aside_locked(struct hak_l25_shard *shard) {
    shard->generation++;
    hak_count_by_owner(&shard->chunks_aside, hak_load_rlx(&shard->chunks));
    hak_store_rlx(&shard->chunks, 0);
    shard->owed_dirty -= (int64_t)hak_load_rlx(&shard->dirty_slices);
    hak_store_rlx(&shard->dirty_slices, 0);
    shard->nonempty = 0;
    hak_store_rlx(&shard->best, 0);
    for (unsigned i = 0; i < HAK_L25_LISTS; i++) shard->lists[i] = NULL;
    shard->oldest = shard->newest = shard->spare = NULL;
}

static bool check_ages(const struct hak_l25_shard *shard, size_t aging) {
    const struct hak_l25_chunk *older = NULL;
    for (const struct hak_l25_chunk *chunk = shard->oldest; chunk != NULL; older = chunk, chunk = chunk->newer)
        if (chunk->older != older || !chunk->aging || chunk->dirty == 0 || aging-- == 0) return false;
    return shard->newest == older && aging == 0;
}

bool hak_l25_shard_check_locked(const struct hak_l25_shard *shard) {
    size_t chunks = 0, dirty = 0, aging = 0;
    for (unsigned list = 0; list < HAK_L25_LISTS; list++) {
        if ((shard->lists[list] != NULL) != ((shard->nonempty >> list & 1) != 0)) return false;
        const struct hak_l25_chunk *first = shard->lists[list], *prev = first == NULL ? NULL : first->prev;
        for (const struct hak_l25_chunk *chunk = shard->lists[list]; chunk != NULL; prev = chunk, chunk = chunk->next) {
            if (!hak_l25_chunk_check(chunk) || chunk->shard != shard || !hak_l25_shard_has(shard, chunk)) return false;
            if (chunk->prev != prev || chunk->list != list || list != list_for(chunk)) return false;
            if (chunk->aging != (chunk->dirty != 0)) return false;
            chunks++;
            dirty += hak_l25_count(chunk->dirty);
            aging += chunk->aging;
        }
        if (first != NULL && prev != first->prev) return false;
    }
    uint32_t best = shard->nonempty == 0 ? 0 : 31 - (uint32_t)__builtin_clz(shard->nonempty);
    return chunks == hak_load_rlx(&shard->chunks) && dirty == hak_load_rlx(&shard->dirty_slices) &&
           best == hak_load_rlx(&shard->best) && check_ages(shard, aging);
}
