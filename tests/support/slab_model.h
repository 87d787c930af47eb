/* A model of slabs and superslabs: which granules are whose, and where each block of a slab is.
 *
 * slab_model_step(model, op) does one operation that the 64 bits of `op` name (any value is valid, so that a fuzzer may
 * feed bytes) and compares. Checked: no granule is given out twice and none is touched while it is in use, blocks come
 * in their order, what each wrong free is told, the figures, and what decay, relief and purge leave. One thread,
 * stopped clock. While system calls fail (set_faults) a refusal is accepted from an operation during which one did. */
#ifndef TESTS_SUPPORT_SLAB_MODEL_H
#define TESTS_SUPPORT_SLAB_MODEL_H

#include "support/whitebox.h"

#include "base/size_class.h"
#include "pages/budget.h"
#include "pages/pages.h"
#include "stores/slab.h"
#include "stores/superslab.h"

#define SLAB_MODEL_RUNS 120
#define SLAB_MODEL_SLABS 12
#define SLAB_MODEL_BLOCKS (HAK_SLAB_BYTES / HAK_MIN_ALIGN)

enum slab_model_place { SLAB_MODEL_FREE, SLAB_MODEL_OUT, SLAB_MODEL_REMOTE };

/* Granules in use; each begins with `id`. */
struct slab_model_run {
    char *ptr;
    unsigned slabs; /* 0: none */
    uint64_t id;
};

struct slab_model {
    struct slab_model_run runs[SLAB_MODEL_RUNS]; /* not cut into blocks */
    struct hak_slab_run run_of[SLAB_MODEL_RUNS];
    struct slab_model_slab {
        struct hak_slab *slab; /* NULL: none */
        struct slab_model_run run;
        unsigned char places[SLAB_MODEL_BLOCKS];
    } slabs[SLAB_MODEL_SLABS];
    uint64_t used, ids, now_ms, began_ms;
    uint64_t changed_ms; /* when something was last given back, or not taken back by the system */
    unsigned faults;     /* seen when the operation began */
};

static int slab_model_owners[2];
#define SLAB_MODEL_TAG 4711 /* of the first owner; the second has the next */

static UNUSED void slab_model_start(struct slab_model *model, uint64_t now_ms) {
    memset(model, 0, sizeof *model);
    model->now_ms = model->changed_ms = model->began_ms = now_ms;
    hak_sys_set_now_for_test(now_ms);
}

/* Whether a system call has failed during this operation. */
static bool slab_model_failed(const struct slab_model *model) { return faults_seen != model->faults; }

/* ---- granules: whoever shares one is found ---- */

static void slab_model_enter(struct slab_model *model, struct slab_model_run *run, char *ptr, unsigned slabs) {
    *run = (struct slab_model_run){.ptr = ptr, .slabs = slabs, .id = ++model->ids};
    for (unsigned g = 0; g < slabs; g++) memcpy(ptr + g * HAK_SLAB_BYTES, &run->id, sizeof run->id);
    model->used += slabs;
}

static void slab_model_leave(struct slab_model *model, struct slab_model_run *run) {
    for (unsigned g = 0; g < run->slabs; g++)
        expect(memcmp(run->ptr + g * HAK_SLAB_BYTES, &run->id, sizeof run->id) == 0);
    model->used -= run->slabs;
    model->changed_ms = model->now_ms;
    run->slabs = 0;
}

static void slab_model_take_run(struct slab_model *model, unsigned i, unsigned slabs) {
    struct hak_slab_run got = hak_superslab_take(slabs, false);
    if (got.ptr == NULL) {
        expect(slab_model_failed(model));
        return;
    }
    expect(got.first + slabs <= HAK_SUPERSLAB_SLABS);
    expect_equal((uintptr_t)got.ptr % HAK_SUPERSLAB_BYTES, got.first * HAK_SLAB_BYTES);
    expect_equal(hak_region_lookup(got.ptr).kind, HAK_KIND_FREE_SLAB);
    model->run_of[i] = got;
    slab_model_enter(model, &model->runs[i], got.ptr, slabs);
}

static void slab_model_give_run(struct slab_model *model, unsigned i) {
    unsigned slabs = model->runs[i].slabs;
    slab_model_leave(model, &model->runs[i]);
    hak_superslab_give(model->run_of[i].superslab, model->run_of[i].first, slabs);
}

/* ---- slabs ---- */

static uint32_t slab_model_count(const struct slab_model_slab *s, enum slab_model_place place) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->slab->blocks; i++) n += s->places[i] == place;
    return n;
}

static char *slab_model_block(const struct slab_model_slab *s, uint32_t i) {
    return s->slab->base + (size_t)i * s->slab->block_bytes;
}

/* Every block at rest here, and nothing in the bitmaps beside; the map knows each granule. */
static void slab_model_expect_fresh(struct hak_slab *slab, unsigned c, uint32_t tag) {
    uint32_t blocks = (uint32_t)(hak_class_slabs(c) * HAK_SLAB_BYTES / hak_class_bytes(c));
    expect_equal(slab->blocks, blocks);
    expect_equal(slab->free_count, blocks);
    expect_equal(slab->words, (blocks + 63) / 64);
    for (uint32_t w = 0; w < slab->words; w++) {
        uint32_t left = blocks - w * 64;
        expect_equal(hak_slab_free_bits(slab)[w], left >= 64 ? UINT64_MAX : ((uint64_t)1 << left) - 1);
        expect_equal(hak_load_acq(&hak_slab_remote_bits(slab)[w]), 0);
    }
    for (unsigned g = 0; g < slab->slabs; g++) {
        struct hak_region region = hak_region_lookup(slab->base + (g + 1) * HAK_SLAB_BYTES - 1);
        expect_equal(region.owner, tag);
        expect_equal(region.kind, 2 * c);
        expect_equal(region.descriptor, slab);
    }
    expect(hak_slab_is_empty(slab) && hak_slab_check(slab));
}

static void slab_model_take_slab(struct slab_model *model, struct slab_model_slab *s, unsigned c) {
    struct hak_slab *slab = hak_slab_take(c, &slab_model_owners[0], SLAB_MODEL_TAG, false);
    if (slab == NULL) {
        expect(slab_model_failed(model));
        return;
    }
    slab_model_expect_fresh(slab, c, SLAB_MODEL_TAG);
    s->slab = slab;
    memset(s->places, SLAB_MODEL_FREE, sizeof s->places);
    slab_model_enter(model, &s->run, slab->base, slab->slabs);
}

static void slab_model_take_blocks(struct slab_model_slab *s, uint32_t want) {
    void *out[300];
    uint32_t n = slab_model_count(s, SLAB_MODEL_FREE), got = hak_slab_take_blocks(s->slab, out, want);
    expect_equal(got, want < n ? want : n);
    uint32_t next = 0;
    for (uint32_t k = got; k-- > 0;) { /* lowest address last, and always the lowest that are free */
        while (s->places[next] != SLAB_MODEL_FREE) next++;
        expect_equal(out[k], slab_model_block(s, next));
        s->places[next] = SLAB_MODEL_OUT;
    }
}

static void slab_model_put(struct slab_model_slab *s, uint32_t i) {
    enum hak_free_result expected = s->places[i] == SLAB_MODEL_FREE ? HAK_FREE_DOUBLE : HAK_FREE_OK;
    if (s->places[i] == SLAB_MODEL_REMOTE) return; /* a misuse that is found at the next collection only */
    expect_equal(hak_slab_put_block(s->slab, slab_model_block(s, i)), expected);
    expect_equal(hak_slab_put_block(s->slab, slab_model_block(s, i) + s->slab->block_bytes / 2), HAK_FREE_NOT_START);
    s->places[i] = SLAB_MODEL_FREE;
}

static void slab_model_put_remote(struct slab_model_slab *s, uint32_t word, uint64_t random) {
    uint64_t bits = 0, twice = 0;
    for (uint32_t i = word * 64; i < s->slab->blocks && i < word * 64 + 64; i++) {
        if (s->places[i] == SLAB_MODEL_FREE || (random >> i % 64 & 1) == 0) continue;
        bits |= (uint64_t)1 << i % 64;
        if (s->places[i] == SLAB_MODEL_REMOTE) twice |= (uint64_t)1 << i % 64;
        s->places[i] = SLAB_MODEL_REMOTE;
    }
    expect_equal(hak_slab_put_remote(s->slab, word, bits), twice);
}

static void slab_model_collect(struct slab_model_slab *s) {
    expect_equal(hak_slab_collect(s->slab), HAK_NO_BLOCK);
    for (uint32_t i = 0; i < s->slab->blocks; i++)
        if (s->places[i] == SLAB_MODEL_REMOTE) s->places[i] = SLAB_MODEL_FREE;
}

static void slab_model_adopt(struct slab_model_slab *s, unsigned which) {
    hak_slab_adopt(s->slab, &slab_model_owners[which], SLAB_MODEL_TAG + which);
    for (unsigned g = 0; g < s->slab->slabs; g++)
        expect_equal(hak_region_lookup(s->slab->base + g * HAK_SLAB_BYTES).owner, SLAB_MODEL_TAG + which);
    expect_equal(hak_load_acq(&s->slab->owner), &slab_model_owners[which]);
}

static void slab_model_give_slab(struct slab_model *model, struct slab_model_slab *s) {
    slab_model_collect(s);
    static void *out[HAK_SLAB_BYTES / HAK_MIN_ALIGN + 1];
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->slab->blocks; i++)
        if (s->places[i] == SLAB_MODEL_OUT) out[count++] = slab_model_block(s, i);
    out[count] = s->slab->base + s->slab->slabs * HAK_SLAB_BYTES; /* what lies in another is left alone */
    enum hak_free_result result;
    expect_equal(hak_slab_put_blocks(s->slab, out, count + 1, &result), count);
    expect_equal(result, HAK_FREE_OK);
    char *base = s->slab->base;
    slab_model_expect_fresh(s->slab, s->slab->size_class, hak_region_lookup(base).owner);
    slab_model_leave(model, &s->run);
    hak_slab_give(s->slab);
    expect_equal(hak_region_lookup(base).owner, 0);
    expect_equal(hak_region_lookup(base).kind, HAK_KIND_FREE_SLAB);
    s->slab = NULL;
}

static void slab_model_step_slab(struct slab_model *model, struct slab_model_slab *s, uint64_t op) {
    const uint64_t rest = op >> 16;
    uint32_t i;
    if (s->slab == NULL) {
        slab_model_take_slab(model, s, (unsigned)rest % HAK_CLASS_COUNT);
        return;
    }
    i = (uint32_t)(rest >> 16) % s->slab->blocks;
    switch (op >> 12 & 15) {
    case 0:
        slab_model_give_slab(model, s);
        break;
    case 1:
        slab_model_adopt(s, rest & 1);
        break;
    case 2:
    case 3:
        slab_model_collect(s);
        break;
    case 4:
    case 5:
    case 6:
    case 7:
        slab_model_put_remote(s, i / 64, rest * 0x9e3779b97f4a7c15u);
        break;
    case 8:
    case 9:
    case 10:
        slab_model_put(s, i);
        break;
    default:
        slab_model_take_blocks(s, (uint32_t)rest % 300);
        break;
    }
    if (s->slab == NULL) return;
    expect_equal(s->slab->free_count, slab_model_count(s, SLAB_MODEL_FREE));
    expect(hak_slab_check(s->slab));
}

/* ---- giving back to the system ---- */

/* Superslabs in which something is in use. */
static uint64_t slab_model_superslabs(const struct slab_model *model) {
    uintptr_t seen[SLAB_MODEL_RUNS + SLAB_MODEL_SLABS];
    uint64_t count = 0;
    for (unsigned i = 0; i < SLAB_MODEL_RUNS + SLAB_MODEL_SLABS; i++) {
        const struct slab_model_run *run = i < SLAB_MODEL_RUNS ? &model->runs[i]
                                                               : &model->slabs[i - SLAB_MODEL_RUNS].run;
        uintptr_t base = (uintptr_t)run->ptr / HAK_SUPERSLAB_BYTES;
        uint64_t k = 0;
        while (k < count && seen[k] != base) k++;
        if (run->slabs != 0 && k == count) seen[count++] = base;
    }
    return count;
}

/* What is no longer dirty was purged, or unmapped with its superslab. */
static void slab_model_account(const struct hak_superslab_stats *before) {
    struct hak_superslab_stats now = hak_superslab_stats();
    uint64_t purged = now.purged_bytes - before->purged_bytes;
    expect(now.dirty_bytes + purged <= before->dirty_bytes);
    if (now.superslabs == before->superslabs) expect_equal(now.dirty_bytes + purged, before->dirty_bytes);
}

static void slab_model_purge_all(struct slab_model *model) {
    struct hak_superslab_stats before = hak_superslab_stats();
    size_t purged = hak_superslab_purge_all();
    struct hak_superslab_stats stats = hak_superslab_stats();
    slab_model_account(&before);
    expect_equal(purged, stats.purged_bytes - before.purged_bytes);
    if (slab_model_failed(model)) return;
    expect_equal(stats.dirty_bytes, 0);
    expect_equal(stats.superslabs, slab_model_superslabs(model));
}

static void slab_model_relieve(struct slab_model *model) {
    bool refused = hak_pages_purge_is_refused();
    struct hak_superslab_stats before = hak_superslab_stats();
    hak_superslab_relieve();
    slab_model_account(&before);
    if (refused || slab_model_failed(model)) return;
    expect(hak_superslab_stats().dirty_bytes <=
           hak_budget(HAK_STORE_SLABS, HAK_BUDGET_ALL, model->used * HAK_SLAB_BYTES));
}

static void slab_model_decay(struct slab_model *model) {
    uint64_t calm_ms = model->now_ms - model->changed_ms, used = slab_model_superslabs(model);
    struct hak_superslab_stats before = hak_superslab_stats(), stats;
    hak_superslab_decay(model->now_ms);
    slab_model_account(&before);
    stats = hak_superslab_stats();
    if (model->now_ms - model->began_ms < hak_option(UNMAP_DELAY_MS)) expect_equal(stats.superslabs, before.superslabs);
    expect(stats.superslabs > used || stats.superslabs == before.superslabs); /* one empty superslab stays */
    if (slab_model_failed(model)) return;
    if (calm_ms >= hak_option(PURGE_DELAY_MS)) expect_equal(stats.dirty_bytes, 0);
    if (calm_ms >= hak_option(UNMAP_DELAY_MS)) expect(stats.superslabs <= used + 1);
}

/* ---- the whole ---- */

static void slab_model_compare(const struct slab_model *model) {
    struct hak_superslab_stats stats = hak_superslab_stats();
    expect_equal(stats.slabs_used, model->used);
    expect(stats.superslabs >= slab_model_superslabs(model));
    expect(stats.dirty_bytes + model->used * HAK_SLAB_BYTES <= stats.superslabs * HAK_SUPERSLAB_BYTES);
    expect(hak_superslab_check());
}

static UNUSED void slab_model_step(struct slab_model *model, uint64_t op) {
    const unsigned kind = op & 0xff, i = (unsigned)(op >> 8) % SLAB_MODEL_RUNS;
    model->faults = faults_seen;
    if (kind < 4) slab_model_purge_all(model);
    else if (kind < 12) slab_model_relieve(model);
    else if (kind < 20) slab_model_decay(model);
    else if (kind < 36) hak_sys_set_now_for_test(model->now_ms += (op >> 8) % 3000);
    else if (kind < 128) slab_model_step_slab(model, &model->slabs[(op >> 8) % SLAB_MODEL_SLABS], op);
    else if (model->runs[i].slabs == 0) slab_model_take_run(model, i, 1U << (op >> 16) % 4);
    else slab_model_give_run(model, i);
    if (slab_model_failed(model)) model->changed_ms = model->now_ms;
    slab_model_compare(model);
}

/* Gives all back; system calls succeed again: then everything can go. */
static UNUSED void slab_model_end(struct slab_model *model) {
    model->faults = faults_seen;
    for (unsigned i = 0; i < SLAB_MODEL_RUNS; i++)
        if (model->runs[i].slabs != 0) slab_model_give_run(model, i);
    for (unsigned i = 0; i < SLAB_MODEL_SLABS; i++)
        if (model->slabs[i].slab != NULL) slab_model_give_slab(model, &model->slabs[i]);
    slab_model_purge_all(model);
    slab_model_compare(model);
    expect_equal(hak_superslab_stats().superslabs, 0);
}

#endif
