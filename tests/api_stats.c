/* The statistics of one thread against a model that counts beside it: live blocks and bytes exactly, at every step. */
#include "support/prefixed.h"

#include <malloc.h>

/* ---- the model ---------------------------------------------------------------------------------------------- */

/* What a request takes, from the documentation: steps of 16 up to 128, four per doubling up to 32 KiB, then slices of
 * 64 KiB, pages beyond 1 MiB. */
static size_t taken_by(size_t bytes) {
    if (bytes <= 128) return bytes == 0 ? 16 : (bytes + 15) / 16 * 16;
    if (bytes > 32 * KIB) return (bytes + 64 * KIB - 1) / (64 * KIB) * (64 * KIB);
    size_t power = 128;
    while (power * 2 < bytes) power *= 2;
    return (bytes + power / 4 - 1) / (power / 4) * (power / 4);
}

static enum hak_layer layer_of(size_t bytes) {
    return bytes <= KIB        ? HAK_LAYER_TINY
           : bytes <= 32 * KIB ? HAK_LAYER_MID
           : bytes <= MIB      ? HAK_LAYER_L25
                               : HAK_LAYER_BIG;
}

struct model {
    uint64_t blocks[HAK_LAYER_COUNT], bytes[HAK_LAYER_COUNT];
};

/* Exact builds ask for more than the caller. */
static void model_add(struct model *model, size_t bytes, int sign) {
    enum hak_layer layer = layer_of(bytes + SLACK);
    model->blocks[layer] += (uint64_t)(int64_t)sign;
    model->bytes[layer] += (uint64_t)((int64_t)taken_by(bytes + SLACK) * sign);
}

static void agrees(const struct model *model, const struct hak_stats *base) {
    struct hak_stats now = stats_now();
    for (int i = 0; i < HAK_LAYER_COUNT; i++) {
        assert_int_equal(now.layer[i].live_blocks, base->layer[i].live_blocks + model->blocks[i]);
        assert_int_equal(now.layer[i].live_bytes, base->layer[i].live_bytes + model->bytes[i]);
        assert_true(now.layer[i].served_blocks >= base->layer[i].served_blocks);
        assert_true(now.layer[i].purged_bytes >= base->layer[i].purged_bytes);
    }
    /* Tiny and Mid share what is mapped. */
    assert_true(now.layer[HAK_LAYER_TINY].mapped_bytes >=
                now.layer[HAK_LAYER_TINY].live_bytes + now.layer[HAK_LAYER_TINY].cached_bytes +
                    now.layer[HAK_LAYER_MID].live_bytes + now.layer[HAK_LAYER_MID].cached_bytes);
    assert_true(now.layer[HAK_LAYER_L25].mapped_bytes >= now.layer[HAK_LAYER_L25].live_bytes);
    assert_true(now.layer[HAK_LAYER_BIG].mapped_bytes >=
                now.layer[HAK_LAYER_BIG].live_bytes + now.layer[HAK_LAYER_BIG].cached_bytes);
}

/* Nothing is live or cached but what `base` has, whatever happened before. */
static struct hak_stats quiet(void) {
    hak_purge();
    return stats_now();
}

static void live_figures_are_exact_at_every_step(void **state) {
    (void)state;
    enum { SLOTS = 400 };
    static void *slots[SLOTS];
    static size_t sizes[SLOTS];
    struct hak_stats base = quiet();
    struct model model = {.blocks = {0}};
    uint64_t random = 42;
    hak_mallopt(M_MMAP_THRESHOLD, 0); /* a mapping from the cache may be larger than the request */
    for (unsigned step = 0; step < rounds(20000, 100); step++) {
        unsigned slot = (unsigned)(next_random(&random) % SLOTS);
        if (slots[slot] != NULL) {
            hak_free(slots[slot]);
            model_add(&model, sizes[slot], -1);
            slots[slot] = NULL;
        } else {
            sizes[slot] = random_size(&random);
            slots[slot] = hak_malloc(sizes[slot]);
            assert_non_null(slots[slot]);
            model_add(&model, sizes[slot], 1);
        }
        if (step % 16 == 0) agrees(&model, &base);
        if (step % 1000 == 0) hak_purge();
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        hak_free(slots[i]);
        slots[i] = NULL;
    }
    agrees(&(struct model){.blocks = {0}}, &base);
    hak_mallopt(M_MMAP_THRESHOLD, 64 << 20);
}

static void what_is_freed_is_cached_until_it_is_flushed_or_purged(void **state) {
    (void)state;
    struct hak_stats base = quiet();
    void *small = hak_malloc(64 - SLACK), *big = hak_malloc(3 * MIB - SLACK);
    assert_true(small != NULL && big != NULL);
    uint64_t cached = stats_now().layer[HAK_LAYER_TINY].cached_bytes;
    hak_free(small);
    assert_int_equal(stats_now().layer[HAK_LAYER_TINY].cached_bytes, cached + 64);
    hak_thread_flush();
    assert_int_equal(stats_now().layer[HAK_LAYER_TINY].cached_bytes, 0);

    assert_int_equal(stats_now().layer[HAK_LAYER_BIG].cached_bytes, 0);
    hak_free(big);
    assert_int_equal(stats_now().layer[HAK_LAYER_BIG].cached_bytes, 3 * MIB);
    assert_int_equal(stats_now().layer[HAK_LAYER_BIG].live_bytes, base.layer[HAK_LAYER_BIG].live_bytes);
    struct hak_stats before = stats_now();
    hak_purge();
    struct hak_stats after = stats_now();
    assert_int_equal(after.layer[HAK_LAYER_BIG].cached_bytes, 0);
    assert_int_equal(after.layer[HAK_LAYER_BIG].mapped_bytes, before.layer[HAK_LAYER_BIG].mapped_bytes - 3 * MIB);
    assert_int_equal(after.mappings, before.mappings - 1 - (before.superslabs - after.superslabs));
    assert_true(after.layer[HAK_LAYER_BIG].purged_bytes >= before.layer[HAK_LAYER_BIG].purged_bytes + 3 * MIB);
}

static void large_requests_are_counted_one_by_one(void **state) {
    (void)state;
    struct hak_stats before = quiet();
    for (unsigned i = 0; i < 10; i++) {
        void *l25 = hak_malloc(100000), *big = hak_malloc(2000000);
        assert_true(l25 != NULL && big != NULL);
        hak_free(l25);
        hak_free(big);
    }
    struct hak_stats after = stats_now();
    assert_int_equal(after.l25_requests, before.l25_requests + 10);
    assert_int_equal(after.layer[HAK_LAYER_L25].served_blocks, before.layer[HAK_LAYER_L25].served_blocks + 10);
    assert_int_equal(after.layer[HAK_LAYER_L25].served_bytes, before.layer[HAK_LAYER_L25].served_bytes + 10 * 131072);
    assert_int_equal(after.layer[HAK_LAYER_BIG].served_blocks, before.layer[HAK_LAYER_BIG].served_blocks + 10);
    assert_int_equal(after.layer[HAK_LAYER_BIG].served_bytes, before.layer[HAK_LAYER_BIG].served_bytes + 10 * 2031616);
    assert_int_equal(after.big_misses, before.big_misses + 1); /* the first; then it is found again */
    assert_int_equal(after.big_hits, before.big_hits + 9);
    assert_int_equal(after.l25_expansions, before.l25_expansions);
    assert_int_equal(after.l25_shards, 64);
    assert_int_equal(after.big_buckets, 256);
}

static void *free_it(void *argument) {
    void **blocks = argument;
    for (unsigned i = 0; i < 100; i++) hak_free(blocks[i]);
    return NULL;
}

static void *get_started(void *argument) {
    hak_free(hak_malloc(1));
    return argument;
}

static void threads_heaps_and_remote_frees_are_counted(void **state) {
    (void)state;
    void *blocks[100];
    run_thread(get_started, NULL); /* one heap is parked now, at least */
    struct hak_stats before = quiet();
    assert_int_equal(before.threads, 1);
    assert_true(before.heaps_parked >= 1);
    for (unsigned i = 0; i < 100; i++) assert_non_null(blocks[i] = hak_malloc(40));
    run_thread(free_it, blocks);
    struct hak_stats after = quiet(); /* some may have waited for the next thread */
    assert_int_equal(after.threads, 1);
    assert_int_equal(after.heaps_parked, before.heaps_parked); /* taken over, and parked again */
    assert_int_equal(after.remote_frees, before.remote_frees + 100);
    hak_thread_flush(); /* collects */
    assert_int_equal(stats_now().layer[HAK_LAYER_TINY].live_blocks, before.layer[HAK_LAYER_TINY].live_blocks);
    assert_int_equal(stats_now().foreign_frees, 0);
}

static void an_older_or_newer_program_gets_the_fields_it_knows(void **state) {
    (void)state;
    struct {
        struct hak_stats stats;
        uint64_t behind;
    } newer;
    memset(&newer, 0xee, sizeof newer);
    newer.stats.version = HAK_STATS_VERSION;
    newer.stats.size = sizeof newer;
    assert_int_equal(hak_stats_get(&newer.stats), 0);
    assert_true(newer.behind == 0xeeeeeeeeeeeeeeee && newer.stats.foreign_frees == 0);

    struct hak_stats older;
    memset(&older, 0xee, sizeof older);
    older.version = HAK_STATS_VERSION;
    older.size = offsetof(struct hak_stats, superslabs);
    assert_int_equal(hak_stats_get(&older), 0);
    assert_true(older.heaps_parked == newer.stats.heaps_parked && older.superslabs == 0xeeeeeeeeeeeeeeee);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(live_figures_are_exact_at_every_step),
        cmocka_unit_test(what_is_freed_is_cached_until_it_is_flushed_or_purged),
        cmocka_unit_test(large_requests_are_counted_one_by_one),
        cmocka_unit_test(threads_heaps_and_remote_frees_are_counted),
        cmocka_unit_test(an_older_or_newer_program_gets_the_fields_it_knows),
    };
    alarm(getenv("HAK_SOAK") ? 0 : HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
