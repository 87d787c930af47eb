/* A model of the L2.5 pool: what it must answer, from a second bookkeeping that is simple enough to be believed.
 *
 * l25_model_step(model, op) does one operation that the 64 bits of `op` name (any value is valid, so that a fuzzer may
 * feed bytes) and compares. Checked: no overlap, alignment, content, what is called zero, what each wrong free is told,
 * live and mapped figures, the load of the intervals and with it the number of shards. One thread, stopped clock. */
#ifndef TESTS_SUPPORT_L25_MODEL_H
#define TESTS_SUPPORT_L25_MODEL_H

#include "support/stores.h"

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
};

static void l25_model_start(struct l25_model *model) {
    memset(model, 0, sizeof *model);
    model->now_ms = model->interval_ms = 1000000;
    hak_sys_set_now_for_test(model->now_ms);
    model->shards = hak_l25_table_count();
}

/* A request reached a shard; every 64th of one shard looks at the clock. */
static void l25_model_request(struct l25_model *model, uint32_t shard) {
    model->total++;
    if (++model->requests[shard] % 64 != 0 || model->now_ms - model->interval_ms < hak_option(L25_CHECK_MS)) return;
    uint64_t load = (model->total - model->interval_total) / model->shards;
    model->interval_ms = model->now_ms;
    model->interval_total = model->total;
    if (load > hak_option(L25_LOAD) && model->shards < hak_option(L25_SHARDS_MAX)) model->shards *= 2;
}

/* The requests that an allocation caused, in the order of its round: its own shard, the others, its own again. */
static void l25_model_requests(struct l25_model *model, uint32_t lane) {
    const uint32_t shards = model->shards, own = lane & (shards - 1);
    for (uint32_t i = 0; i <= shards; i++) {
        uint32_t shard = (own + i) & (shards - 1);
        uint64_t seen = hak_load_rlx(&hak_l25_table_shard(shard)->requests);
        if (i < shards && seen != model->requests[shard]) l25_model_request(model, shard);
        while (i == shards && seen != model->requests[shard]) l25_model_request(model, shard);
    }
    assert_int_equal(hak_l25_stats().requests, model->total);
    assert_int_equal(hak_l25_stats().shards, model->shards);
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
    assert_non_null(got.ptr);
    l25_model_requests(model, lane);
    assert_int_equal(got.bytes, hak_round_up(bytes, HAK_SLICE_BYTES));
    assert_int_equal((uintptr_t)got.ptr % align, 0);
    assert_false(l25_model_overlaps(model, got.ptr, got.bytes));
    if (got.zero) assert_true(is_zero(got.ptr, got.bytes));
    *block = (struct l25_model_block){.ptr = got.ptr, .slices = (unsigned)(got.bytes / HAK_SLICE_BYTES), .seed = op};
    mark(got.ptr, got.bytes, op);
}

static void l25_model_free(struct l25_model *model, struct l25_model_block *block) {
    struct l25_model_block old = *block;
    block->ptr = NULL;
    void *chunk = descriptor_of(old.ptr);
    assert_true(is_marked(old.ptr, old.slices * HAK_SLICE_BYTES, old.seed));
    assert_int_equal(hak_l25_free(chunk, old.ptr), HAK_FREE_OK);
    assert_int_equal(hak_l25_free(chunk, old.ptr), HAK_FREE_DOUBLE);
    assert_int_equal(hak_l25_usable(chunk, old.ptr), 0);
    (void)model;
}

static void l25_model_resize(struct l25_model *model, struct l25_model_block *block, uint64_t op) {
    const size_t bytes = 1 + op % HAK_L25_MAX;
    const unsigned slices = (unsigned)((bytes + HAK_SLICE_BYTES - 1) / HAK_SLICE_BYTES), old = block->slices;
    char *end = block->ptr + old * HAK_SLICE_BYTES;
    size_t usable = 0;
    bool resized = hak_l25_resize(descriptor_of(block->ptr), block->ptr, bytes, &usable);
    if (slices <= old) assert_true(resized);
    if (resized && slices > old) assert_false(l25_model_overlaps(model, end, (slices - old) * HAK_SLICE_BYTES));
    if (resized) assert_int_equal(usable, slices * HAK_SLICE_BYTES);
    assert_true(is_marked(block->ptr, (slices < old ? slices : old) * HAK_SLICE_BYTES, block->seed));
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
    if (l25_model_overlaps(model, ptr, 1)) assert_int_equal(result, HAK_FREE_NOT_START);
    else if ((uintptr_t)ptr % HAK_SLICE_BYTES != 0) assert_int_equal(result, HAK_FREE_IN_FREE);
    else assert_true(result == HAK_FREE_IN_FREE || result == HAK_FREE_DOUBLE);
}

static void l25_model_compare(const struct l25_model *model) {
    uint64_t blocks = 0, slices = 0;
    for (unsigned i = 0; i < L25_MODEL_BLOCKS; i++) {
        blocks += model->blocks[i].ptr != NULL;
        slices += model->blocks[i].ptr != NULL ? model->blocks[i].slices : 0;
    }
    struct hak_l25_stats stats = hak_l25_stats();
    assert_int_equal(stats.live_blocks, blocks);
    assert_int_equal(stats.live_bytes, slices * HAK_SLICE_BYTES);
    assert_true(stats.live_bytes + stats.dirty_bytes <= stats.mapped_bytes);
    assert_true(hak_l25_check());
}

static void l25_model_step(struct l25_model *model, uint64_t op) {
    struct l25_model_block *block = &model->blocks[(op >> 8) % L25_MODEL_BLOCKS];
    const unsigned kind = op & 0xff;
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
        l25_model_free(model, block);
    }
    l25_model_compare(model);
}

/* Frees what is left: then everything can go. */
static void l25_model_end(struct l25_model *model) {
    for (unsigned i = 0; i < L25_MODEL_BLOCKS; i++)
        if (model->blocks[i].ptr != NULL) l25_model_free(model, &model->blocks[i]);
    l25_model_compare(model);
    hak_l25_purge_all();
    assert_int_equal(hak_l25_stats().mapped_bytes, 0);
    hak_l25_reset_for_test();
}

#endif
