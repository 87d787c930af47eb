/* A program in small: every layer, growth, a thread that starts, frees other threads' blocks and ends, giving back. It
 * takes NULL for an answer, but only with ENOMEM, and loses nothing by it. */
#ifndef TESTS_SUPPORT_SCENARIO_H
#define TESTS_SUPPORT_SCENARIO_H

#include "prefixed.h"

#include "base/options.h"
#include "base/sys.h"
#include "front/heap.h"
#include "pages/meta.h"
#include "pages/pages.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/superslab.h"

struct scenario {
    unsigned served, refused;
    uint64_t now_ms;
    unsigned char *blocks[64], *of_thread[64];
    size_t bytes[64];
};

static const size_t scenario_sizes[] = {1,      16,     64,      100,     200,      500,      1000,     1024,
                                        2000,   4000,   8000,    16000,   32 * KIB, 33 * KIB, 64 * KIB, 100000,
                                        300000, 700000, 1 * MIB, MIB + 1, 3 * MIB,  5 * MIB};
#define SCENARIO_BLOCKS COUNT(scenario_sizes)

/* Calls and judges what came: a block is filled with its seed. */
static unsigned char *scenario_got(struct scenario *s, void *ptr, size_t bytes, uint64_t seed) {
    if (ptr == NULL) {
        must(errno == ENOMEM);
        s->refused++;
        return NULL;
    }
    s->served++;
    fill(ptr, bytes, seed);
    return ptr;
}

static void scenario_free(unsigned char *ptr, size_t bytes, uint64_t seed) {
    if (ptr == NULL) return;
    must(is_filled(ptr, bytes, seed));
    errno = 4711;
    hak_free(ptr);
    must(errno == 4711);
}

static unsigned char *scenario_calloc(struct scenario *s, size_t bytes, uint64_t seed) {
    errno = 0;
    unsigned char *ptr = hak_calloc(1, bytes);
    must(ptr == NULL || is_zero(ptr, bytes));
    return scenario_got(s, ptr, bytes, seed);
}

static void scenario_grow(struct scenario *s) {
    unsigned char *ptr = NULL;
    size_t bytes = 0;
    for (size_t wanted = 10; wanted < 6 * MIB; wanted *= 3) {
        errno = 0;
        unsigned char *grown = hak_realloc(ptr, wanted);
        if (grown == NULL) {
            must(errno == ENOMEM && (ptr == NULL || is_filled(ptr, bytes, 99)));
            s->refused++;
            continue;
        }
        must(is_filled(grown, bytes, 99));
        ptr = grown;
        bytes = wanted;
        fill(ptr, bytes, 99);
        s->served++;
    }
    if (ptr != NULL) { /* and back */
        unsigned char *shrunk = hak_realloc(ptr, bytes / 2);
        if (shrunk != NULL) ptr = shrunk;
        must(keeps(ptr, bytes / 2, bytes, 99));
    }
    hak_free(ptr);
}

static void *scenario_thread(void *argument) {
    struct scenario *s = argument;
    for (size_t i = 0; i < SCENARIO_BLOCKS; i++) {
        errno = 0;
        s->of_thread[i] = scenario_got(s, hak_malloc(scenario_sizes[i]), scenario_sizes[i], i + 1000);
        if (i % 2 == 0) { /* the other thread's */
            scenario_free(s->blocks[i], scenario_sizes[i], i);
            s->blocks[i] = NULL;
        }
    }
    return NULL;
}

static void scenario_pass_time(struct scenario *s, uint64_t ms) {
    s->now_ms += ms;
    hak_sys_set_now_for_test(s->now_ms);
}

/* More than a slab of each of some classes, then none of it. */
static void scenario_swell(struct scenario *s) {
    enum { MANY = 600 };
    static unsigned char *many[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        errno = 0;
        many[i] = scenario_got(s, hak_malloc(i % 3 == 0 ? 24000 : 900), 900, i);
    }
    for (unsigned i = 0; i < MANY; i++) scenario_free(many[i], 900, i);
}

static void scenario_run(struct scenario *s) {
    *s = (struct scenario){.now_ms = 1000000};
    scenario_pass_time(s, 0);
    for (size_t i = 0; i < SCENARIO_BLOCKS; i++) {
        errno = 0;
        s->blocks[i] = i % 3 == 0 ? scenario_calloc(s, scenario_sizes[i], i)
                                  : scenario_got(s, hak_malloc(scenario_sizes[i]), scenario_sizes[i], i);
    }
    scenario_grow(s);
    errno = 0;
    unsigned char *aligned = scenario_got(s, hak_aligned_alloc(4 * MIB, 100), 100, 7);
    must(is_aligned(aligned, 4 * MIB));
    run_thread(scenario_thread, s);
    hak_purge();
    scenario_swell(s);
    scenario_pass_time(s, 10000);
    hak_thread_flush();
    scenario_grow(s);
    scenario_free(aligned, 100, 7);
    for (size_t i = 0; i < SCENARIO_BLOCKS; i++) {
        scenario_free(s->of_thread[i], scenario_sizes[i], i + 1000);
        scenario_free(s->blocks[i], scenario_sizes[i], i);
    }
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    must(hak_stats_get(&stats) == 0);
}

static void scenario_check(void) {
    must(hak_heap_check());
    must(hak_superslab_check());
    must(hak_l25_check());
    must(hak_big_check());
}

/* All was freed: nothing is live, and but for metadata nothing is mapped. */
static void scenario_nothing_left(struct scenario *s) {
    scenario_pass_time(s, 10000);
    hak_thread_flush();
    hak_purge();
    scenario_check();
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    must(hak_stats_get(&stats) == 0);
    for (int i = 0; i < HAK_LAYER_COUNT; i++) {
        must(stats.layer[i].live_blocks == 0 && stats.layer[i].live_bytes == 0);
        must(stats.layer[i].cached_bytes == 0 && stats.layer[i].mapped_bytes == 0);
    }
    uint64_t leaves = 0;
    for (size_t i = 0; i < HAK_ROOT_ENTRIES; i++) leaves += hak_load_acq(&hak_region_root[i]) != NULL;
    must(stats.mappings == leaves);
    must(hak_pages_stats().mapped_bytes == leaves * sizeof(struct hak_region_leaf));
}

#endif
