/* A model of the L2.5 pool: what it must answer, from a second bookkeeping that is simple enough to be believed.
 *
 * l25_model_step(model, op) does one operation that the 64 bits of `op` name (any value is valid, so that a fuzzer may
 * feed bytes) and compares. Checked: no overlap, alignment, content, what is called zero, what each wrong free is told,
 * live and mapped figures, the load of the intervals and with it the number of shards. One thread, stopped clock.
 * While system calls fail (set_faults) a refusal is accepted from an operation during which one did. */
#ifndef TESTS_SUPPORT_L25_MODEL_H
#define TESTS_SUPPORT_L25_MODEL_H

#include "support/whitebox.h"

#include "stores/l25.h"
#include "stores/l25_table.h"

#define L25_MODEL_BLOCKS 160

struct l25_model {
    struct l25_model_block {
        char *ptr;
        unsigned slices;
        uint64_t seed;
    } blocks[L25_MODEL_BLOCKS]; /* ptr NULL: none */
    uint64_t now_ms;
    /* the shard table */
    uint32_t shards;
    uint64_t requests[HAK_L25_SHARDS_LIMIT], total, interval_total, interval_ms;
    unsigned faults; /* seen when the operation began */
};

static void l25_model_start(struct l25_model *model, uint64_t now_ms) {
    memset(model, 0, sizeof *model);
    model->now_ms = model->interval_ms = now_ms;
    hak_sys_set_now_for_test(now_ms);
    model->shards = hak_l25_table_count();
}

/* Whether a system call has failed during this operation. */
static bool l25_model_failed(const struct l25_model *model) { return faults_seen != model->faults; }

/* A request reached a shard; every 64th of one shard looks at the clock. */
static void l25_model_request(struct l25_model *model, uint32_t shard) {
    model->total++;
    if (++model->requests[shard] % 64 != 0 || model->now_ms - model->interval_ms < hak_option(L25_CHECK_MS)) return;
    uint64_t load = (model->total - model->interval_total) / model->shards;
    model->interval_ms = model->now_ms;
    model->interval_total = model->total;
    if (load <= hak_option(L25_LOAD) || model->shards >= hak_option(L25_SHARDS_MAX)) return;
    if (l25_model_failed(model) && hak_l25_stats().shards == model->shards) return;
    model->shards *= 2;
}

static bool l25_model_pending(const struct l25_model *model, uint32_t shard) {
    return hak_load_rlx(&hak_l25_table_shard(shard)->requests) != model->requests[shard];
}

/* The requests that an allocation caused, in their order: a round from its own shard on, its own again, and where
 * memory is short a second round. */
static void l25_model_requests(struct l25_model *model, uint32_t lane) {
    const uint32_t shards = model->shards, own = lane & (shards - 1);
    for (uint32_t i = 0; i <= shards; i++)
        if (l25_model_pending(model, (own + i) & (shards - 1))) l25_model_request(model, (own + i) & (shards - 1));
    for (uint32_t i = 0; i < shards; i++)
        while (l25_model_pending(model, (own + i) & (shards - 1))) l25_model_request(model, (own + i) & (shards - 1));
    expect_equal(hak_l25_stats().requests, model->total);
    expect_equal(hak_l25_stats().shards, model->shards);
}

static bool l25_model_overlaps(const struct l25_model *model, const char *ptr, size_t bytes) {
    for (unsigned i = 0; i < L25_MODEL_BLOCKS; i++) {
        const struct l25_model_block *block = &model->blocks[i];
        if (block->ptr != NULL && ptr < block->ptr + block->slices * HAK_SLICE_BYTES && block->ptr < ptr + bytes)
            return true;
    }
    return false;
}

static void l25_model_alloc(struct l25_model *model, struct l25_model_block *block, uint64_t op) {
    const size_t bytes = 1 + op % HAK_L25_MAX, align = HAK_SLICE_BYTES << (op >> 24 & 15 ? 0 : op >> 28 & 3);
    const uint32_t lane = (uint32_t)(op >> 32);
    struct hak_block got = hak_l25_alloc(bytes, align, lane);
    l25_model_requests(model, lane);
    if (got.ptr == NULL) {
        expect(l25_model_failed(model));
        return;
    }
    expect_equal(got.bytes, hak_round_up(bytes, HAK_SLICE_BYTES));
    expect_equal((uintptr_t)got.ptr % align, 0);
    expect(!l25_model_overlaps(model, got.ptr, got.bytes));
    if (got.zero) expect(is_zero(got.ptr, got.bytes));
    *block = (struct l25_model_block){.ptr = got.ptr, .slices = (unsigned)(got.bytes / HAK_SLICE_BYTES), .seed = op};
    mark(got.ptr, got.bytes, op);
}

static void l25_model_free(struct l25_model_block *block) {
    struct l25_model_block old = *block;
    block->ptr = NULL;
    void *chunk = descriptor_of(old.ptr);
    expect(is_marked(old.ptr, old.slices * HAK_SLICE_BYTES, old.seed));
    expect_equal(hak_l25_free(chunk, old.ptr), HAK_FREE_OK);
    expect_equal(hak_l25_free(chunk, old.ptr), HAK_FREE_DOUBLE);
    expect_equal(hak_l25_usable(chunk, old.ptr), 0);
}

static void l25_model_resize(struct l25_model *model, struct l25_model_block *block, uint64_t op) {
    const size_t bytes = 1 + op % HAK_L25_MAX;
    const unsigned slices = (unsigned)((bytes + HAK_SLICE_BYTES - 1) / HAK_SLICE_BYTES), old = block->slices;
    char *end = block->ptr + old * HAK_SLICE_BYTES;
    size_t usable = 0;
    bool resized = hak_l25_resize(descriptor_of(block->ptr), block->ptr, bytes, &usable);
    if (slices <= old) expect(resized);
    if (resized && slices > old) expect(!l25_model_overlaps(model, end, (slices - old) * HAK_SLICE_BYTES));
    if (resized) expect_equal(usable, slices * HAK_SLICE_BYTES);
    expect(is_marked(block->ptr, (slices < old ? slices : old) * HAK_SLICE_BYTES, block->seed));
    if (!resized) return;
    block->slices = slices;
    mark(block->ptr, usable, block->seed);
}

/* A free of a pointer that is no block's start, somewhere in a chunk of ours. */
static void l25_model_wrong_free(struct l25_model *model, const struct l25_model_block *block, uint64_t op) {
    struct hak_l25_chunk *chunk = descriptor_of(block->ptr);
    char *ptr = hak_load_rlx(&chunk->base) + (op & (HAK_CHUNK_BYTES - 1));
    for (unsigned i = 0; i < L25_MODEL_BLOCKS; i++)
        if (model->blocks[i].ptr == ptr) return;
    enum hak_free_result result = hak_l25_free(chunk, ptr);
    if (l25_model_overlaps(model, ptr, 1)) expect_equal(result, HAK_FREE_NOT_START);
    else if ((uintptr_t)ptr % HAK_SLICE_BYTES != 0) expect_equal(result, HAK_FREE_IN_FREE);
    else expect(result == HAK_FREE_IN_FREE || result == HAK_FREE_DOUBLE);
}

static void l25_model_compare(const struct l25_model *model) {
    uint64_t blocks = 0, slices = 0;
    for (unsigned i = 0; i < L25_MODEL_BLOCKS; i++) {
        blocks += model->blocks[i].ptr != NULL;
        slices += model->blocks[i].ptr != NULL ? model->blocks[i].slices : 0;
    }
    struct hak_l25_stats stats = hak_l25_stats();
    expect_equal(stats.live_blocks, blocks);
    expect_equal(stats.live_bytes, slices * HAK_SLICE_BYTES);
    expect(stats.live_bytes + stats.dirty_bytes <= stats.mapped_bytes);
    expect(hak_l25_check());
}

static void l25_model_step(struct l25_model *model, uint64_t op) {
    struct l25_model_block *block = &model->blocks[(op >> 8) % L25_MODEL_BLOCKS];
    const unsigned kind = op & 0xff;
    model->faults = faults_seen;
    op >>= 8;
    if (kind < 6) {
        if (kind < 2) hak_l25_purge_all();
        else hak_l25_decay(model->now_ms);
    } else if (kind < 16) {
        model->now_ms += op % 700;
        hak_sys_set_now_for_test(model->now_ms);
    } else if (block->ptr == NULL) {
        l25_model_alloc(model, block, op >> 8);
    } else if (kind < 48) {
        l25_model_resize(model, block, op >> 8);
    } else if (kind < 64) {
        l25_model_wrong_free(model, block, op >> 8);
    } else {
        l25_model_free(block);
    }
    l25_model_compare(model);
}

/* Frees what is left; system calls succeed again: then everything can go. */
static void l25_model_end(struct l25_model *model) {
    model->faults = faults_seen;
    for (unsigned i = 0; i < L25_MODEL_BLOCKS; i++)
        if (model->blocks[i].ptr != NULL) l25_model_free(&model->blocks[i]);
    l25_model_compare(model);
    hak_l25_purge_all();
    expect_equal(hak_l25_stats().mapped_bytes, 0);
    hak_l25_reset_for_test();
}

#endif
