/* Slabs and superslabs against models: fresh bitmaps, taking and putting back by owner and others, runs of granules,
 * purging by budget and age, unmapping, and the pool that a forked child sets aside. */
#include "support/prefixed.h"

#include "support/slab_model.h"

#include "pages/meta.h"

#include <sys/syscall.h>
#include <time.h>

#define GRANULE HAK_SLAB_BYTES
#define TAG SLAB_MODEL_TAG
static int me, you;

static struct hak_slab *take_slab(unsigned c) {
    struct hak_slab *slab = hak_slab_take(c, &me, TAG, false);
    must(slab != NULL);
    return slab;
}

static int empty_pool(void **state) {
    (void)state;
    hak_sys_set_now_for_test(1000000);
    set_option(RETAIN_BYTES, 8 * MIB);
    set_option(RETAIN_PERCENT, 12);
    hak_superslab_purge_all();
    struct hak_superslab_stats stats = hak_superslab_stats();
    return stats.superslabs == 0 && stats.slabs_used == 0 && stats.dirty_bytes == 0 && hak_superslab_check() ? 0 : -1;
}

/* ---- slabs --------------------------------------------------------------------------------------------------- */

static void a_fresh_slab_of_each_class_has_exactly_its_blocks_free(void **state) {
    (void)state;
    for (unsigned round = 0; round < 2; round++) /* the second time the record is recycled */
        for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
            struct hak_slab *slab = take_slab(c);
            slab_model_expect_fresh(slab, c, TAG);
            void *one;
            assert_int_equal(hak_slab_take_blocks(slab, &one, 1), 1);
            assert_ptr_equal(one, slab->base);
            assert_int_equal(hak_slab_put_block(slab, one), HAK_FREE_OK);
            hak_slab_give(slab);
            assert_int_equal(hak_region_lookup(one).owner, 0);
            assert_int_equal(hak_region_lookup(one).kind, HAK_KIND_FREE_SLAB);
        }
}

static void the_rest_behind_the_last_block_is_none(void **state) {
    (void)state;
    unsigned with_a_rest = 0;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
        struct hak_slab *slab = take_slab(c);
        size_t used = (size_t)slab->blocks * slab->block_bytes;
        assert_int_equal(hak_slab_index(slab, slab->base + used - slab->block_bytes), slab->blocks - 1);
        with_a_rest += used < slab->slabs * GRANULE;
        assert_int_equal(hak_slab_index(slab, slab->base + used), HAK_NO_BLOCK);
        hak_slab_give(slab);
    }
    assert_in_range(with_a_rest, 1, HAK_CLASS_COUNT - 1);
}

static struct slab_model model;

/* `steps` operations of random kinds from `first` on. */
static void run_model(uint64_t seed, unsigned steps, unsigned first) {
    slab_model_start(&model, 1000000);
    for (unsigned i = 0; i < steps; i++) {
        uint64_t op = next_random(&seed);
        slab_model_step(&model, (op & ~(uint64_t)0xff) | (first + (op & 0xff) % (256 - first)));
    }
    slab_model_end(&model);
}

static void slabs_and_superslabs_do_as_their_model_does(void **state) {
    (void)state;
    set_option(RETAIN_BYTES, 1 * MIB);
    for (uint64_t seed = 1; seed <= 2; seed++) run_model(seed, rounds(6000, 100), 0);
}

static void so_they_do_where_nothing_is_given_back(void **state) {
    (void)state;
    run_model(3, rounds(3000, 100), 36);
    assert_int_equal(hak_superslab_stats().superslabs, 0);
}

static void blocks_are_put_back_up_to_the_first_that_cannot_be(void **state) {
    (void)state;
    struct hak_slab *slab = take_slab(3);
    enum hak_free_result result;
    void *out[200];
    hak_slab_take_blocks(slab, out, 200);
    const struct {
        void *ptr;
        enum hak_free_result result;
    } wrong[] = {{slab->base + GRANULE, HAK_FREE_OK},
                 {slab->base - 64, HAK_FREE_OK},
                 {slab->base + 16, HAK_FREE_NOT_START},
                 {slab->base + 300 * 64, HAK_FREE_DOUBLE}};
    for (unsigned i = 0; i < 4; i++) {
        out[10 * i + 7] = wrong[i].ptr;
        assert_int_equal(hak_slab_put_blocks(slab, out + 10 * i, 10, &result), 7);
        assert_int_equal(result, wrong[i].result);
        assert_int_equal(slab->free_count, slab->blocks - 200 + 7 * (i + 1));
        assert_true(hak_slab_check(slab));
    }
}

static void what_lies_behind_the_last_block_is_none_that_can_be_put_back(void **state) {
    (void)state;
    struct hak_slab *slab = take_slab(HAK_LINEAR_CLASSES); /* blocks of 160 bytes, and 96 left */
    assert_int_equal(slab->block_bytes, 160);
    void *behind = slab->base + slab->blocks * slab->block_bytes;
    enum hak_free_result result;
    assert_int_equal(hak_slab_put_blocks(slab, &behind, 1, &result), 0);
    assert_int_equal(result, HAK_FREE_NOT_START);
    hak_slab_give(slab);
}

static void a_collection_names_a_block_that_was_free_already(void **state) {
    (void)state;
    struct hak_slab *slab = take_slab(3);
    void *out[200];
    hak_slab_take_blocks(slab, out, 200);
    assert_int_equal(hak_slab_put_block(slab, slab->base + 130 * 64), HAK_FREE_OK);
    hak_slab_put_remote(slab, 2, (uint64_t)1 << 2 | (uint64_t)1 << 5); /* 130 again, and 133 */
    assert_int_equal(hak_slab_collect(slab), 130);
}

static void another_owner_is_in_the_map_for_every_granule(void **state) {
    (void)state;
    struct hak_slab *slab = take_slab(HAK_CLASS_COUNT - 1);
    assert_int_equal(slab->slabs, 8);
    hak_slab_adopt(slab, &you, TAG + 1);
    assert_ptr_equal(hak_load_acq(&slab->owner), &you);
    for (unsigned g = 0; g < 8; g++) assert_int_equal(hak_region_lookup(slab->base + g * GRANULE).owner, TAG + 1);
    hak_slab_give(slab);
    assert_null(hak_load_acq(&slab->owner));
}

/* ---- superslabs ------------------------------------------------------------------------------------------------ */

static struct hak_slab_run take_run(unsigned slabs) {
    struct hak_slab_run run = hak_superslab_take(slabs, false);
    must(run.ptr != NULL);
    return run;
}

static void each_fresh_superslab_has_32_slabs_and_the_next_links_another(void **state) {
    (void)state;
    enum { SUPERSLABS = 40 };
    static struct hak_slab_run runs[SUPERSLABS][32];
    for (unsigned s = 0; s < SUPERSLABS; s++) {
        uint32_t seen = 0;
        for (unsigned i = 0; i < 32; i++) {
            runs[s][i] = take_run(1);
            assert_true(runs[s][i].superslab == runs[s][0].superslab && runs[s][i].first < 32);
            seen |= 1U << runs[s][i].first;
            assert_int_equal((uintptr_t)runs[s][i].ptr % HAK_SUPERSLAB_BYTES, runs[s][i].first * GRANULE);
            assert_int_equal(hak_superslab_stats().superslabs, s + 1);
        }
        assert_int_equal(seen, UINT32_MAX);
        for (unsigned before = 0; before < s; before++)
            assert_ptr_not_equal(runs[before][0].superslab, runs[s][0].superslab);
    }
    assert_int_equal(hak_superslab_stats().slabs_used, SUPERSLABS * 32);
    assert_true(hak_superslab_check());
    for (unsigned s = 0; s < SUPERSLABS; s++)
        for (unsigned i = 0; i < 32; i++) hak_superslab_give(runs[s][i].superslab, runs[s][i].first, 1);
    assert_int_equal(hak_superslab_stats().slabs_used, 0);
}

static void whole_superslabs_are_cut_into_spans_of_each_length(void **state) {
    (void)state;
    for (unsigned slabs = 1; slabs <= 8; slabs *= 2) {
        struct hak_slab_run runs[32];
        for (unsigned i = 0; i < 32 / slabs; i++) runs[i] = take_run(slabs);
        assert_int_equal(hak_superslab_stats().superslabs, 1);
        for (unsigned i = 0; i < 32 / slabs; i++) hak_superslab_give(runs[i].superslab, runs[i].first, slabs);
        hak_superslab_purge_all();
    }
}

static void what_is_dirty_is_used_first_and_purged_pages_are_zero(void **state) {
    (void)state;
    struct hak_slab_run a = take_run(1), b = take_run(1), keep = take_run(1);
    memset(a.ptr, 0xee, GRANULE);
    memset(b.ptr, 0xee, GRANULE);
    hak_superslab_give(a.superslab, a.first, 1);
    hak_superslab_purge_all();
    hak_superslab_give(b.superslab, b.first, 1);
    assert_int_equal(hak_superslab_stats().dirty_bytes, GRANULE);
    assert_ptr_equal(take_run(1).ptr, b.ptr); /* though a, below it, is free too */
    assert_ptr_equal(take_run(1).ptr, a.ptr);
    memset(a.ptr, 0xee, GRANULE);
    hak_superslab_give(a.superslab, a.first, 1);
    hak_superslab_give(b.superslab, b.first, 1);
    uint64_t purged = hak_superslab_stats().purged_bytes;
    assert_int_equal(hak_superslab_purge_all(), 2 * GRANULE);
    assert_int_equal(hak_superslab_stats().purged_bytes, purged + 2 * GRANULE);
    assert_int_equal(hak_superslab_stats().dirty_bytes, 0);
    assert_int_equal(hak_superslab_stats().superslabs, 1);
    for (size_t i = 0; i < GRANULE; i++) assert_true(a.ptr[i] == 0 && b.ptr[i] == 0);
    hak_superslab_give(keep.superslab, keep.first, 1);
}

static void dirty_memory_stays_within_the_budget(void **state) {
    (void)state;
    struct hak_slab_run runs[128];
    set_option(RETAIN_BYTES, 1 * MIB);
    set_option(RETAIN_PERCENT, 0);
    for (unsigned i = 0; i < 128; i++) runs[i] = take_run(1);
    for (unsigned i = 0; i < 128; i++) {
        hak_superslab_give(runs[i].superslab, runs[i].first, 1);
        hak_superslab_relieve();
        assert_true(hak_superslab_stats().dirty_bytes <= 1 * MIB);
    }
    assert_true(hak_superslab_stats().dirty_bytes > 0); /* not all at once */
}

static bool purges_fail;
static int fail_purges(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    return call == HAK_SYS_PURGE && purges_fail ? ENOMEM : 0;
}

static void a_refused_purge_leaves_it_dirty_and_usable(void **state) {
    (void)state;
    struct hak_slab_run run = take_run(4), keep = take_run(1);
    memset(run.ptr, 77, 4 * GRANULE);
    hak_superslab_give(run.superslab, run.first, 4);
    purges_fail = true;
    hak_sys_set_fault_for_test(fail_purges);
    assert_int_equal(hak_superslab_purge_all(), 0);
    hak_sys_set_fault_for_test(NULL);
    assert_int_equal(hak_superslab_stats().dirty_bytes, 4 * GRANULE);
    assert_true(run.ptr[0] == 77 && memcmp(run.ptr, run.ptr + 1, 4 * GRANULE - 1) == 0);
    assert_true(hak_superslab_check());
    hak_sys_set_now_for_test(2000000); /* by then the system may have changed its mind */
    assert_int_equal(hak_superslab_purge_all(), 4 * GRANULE);
    hak_superslab_give(keep.superslab, keep.first, 1);
}

static void age_purges_first_and_unmaps_later_all_but_one(void **state) {
    (void)state;
    struct hak_slab_run runs[96];
    uint64_t now = 1000000;
    for (unsigned i = 0; i < 96; i++) runs[i] = take_run(1);
    for (unsigned i = 0; i < 96; i++) hak_superslab_give(runs[i].superslab, runs[i].first, 1);
    assert_int_equal(hak_superslab_stats().superslabs, 3);
    hak_superslab_decay(now + hak_option(PURGE_DELAY_MS) - 1);
    assert_int_equal(hak_superslab_stats().dirty_bytes, 3 * HAK_SUPERSLAB_BYTES);
    hak_superslab_decay(now + hak_option(PURGE_DELAY_MS));
    assert_int_equal(hak_superslab_stats().dirty_bytes, 0);
    hak_superslab_decay(now + hak_option(UNMAP_DELAY_MS) - 1);
    assert_int_equal(hak_superslab_stats().superslabs, 3);
    hak_superslab_decay(now + hak_option(UNMAP_DELAY_MS));
    assert_int_equal(hak_superslab_stats().superslabs, 1);
    assert_int_equal(hak_superslab_purge_all(), 0);
    assert_int_equal(hak_superslab_stats().superslabs, 0);
    for (unsigned i = 0; i < 96; i++) assert_int_equal(hak_is_owned(runs[i].ptr), 0);
}

/* Metadata may still be had. */
static int refuse_superslabs(enum hak_sys_call call, size_t bytes) {
    return call == HAK_SYS_MAP && bytes >= HAK_SUPERSLAB_BYTES ? ENOMEM : 0;
}

static void a_system_without_memory_gives_no_slab(void **state) {
    (void)state;
    struct hak_slab *some = take_slab(0);
    struct hak_slab_run rest[31];
    for (unsigned i = 0; i < 31; i++) rest[i] = take_run(1);
    hak_sys_set_fault_for_test(refuse_superslabs);
    assert_null(hak_superslab_take(1, false).ptr);
    assert_null(hak_slab_take(0, &me, TAG, false));
    assert_null(hak_slab_take(5, &me, TAG, false));
    uint64_t metadata = hak_meta_mapped_bytes();
    for (unsigned i = 0; i < 5000; i++) assert_null(hak_slab_take(0, &me, TAG, false));
    assert_int_equal(hak_meta_mapped_bytes(), metadata); /* the records that found no slab were put back */
    hak_sys_set_fault_for_test(NULL);
    assert_true(hak_superslab_check());
    assert_int_equal(hak_superslab_stats().superslabs, 1);
    hak_slab_give(take_slab(5));
    hak_slab_give(some);
    for (unsigned i = 0; i < 31; i++) hak_superslab_give(rest[i].superslab, rest[i].first, 1);
}

/* ---- fork ------------------------------------------------------------------------------------------------------ */

/* The clock is read under the pool's lock: a thread that waits here holds it. */
static _Atomic int hold; /* 1: the next to ask for the time waits; 2: it does; 3: it may go on */

int clock_gettime(clockid_t clock, struct timespec *now) {
    int expected = 1;
    if (atomic_compare_exchange_strong(&hold, &expected, 2))
        while (atomic_load(&hold) != 3) usleep(200);
    *now = (struct timespec){.tv_sec = 0};
    return (int)syscall(SYS_clock_gettime, clock, now);
}

static void *give_slowly(void *argument) {
    hak_slab_give(argument);
    return NULL;
}

static struct hak_slab *parents[4];

static void go_on_in_a_pool_of_its_own(void *argument) {
    (void)argument;
    hak_slab_fork_child(); /* does nothing if the fork handler has done it */
    struct hak_superslab_stats stats = hak_superslab_stats();
    must(stats.superslabs == 0 && stats.slabs_used == 0 && stats.dirty_bytes == 0);
    void *old;
    must(hak_slab_take_blocks(parents[0], &old, 1) == 1); /* slabs from before go on */
    must(hak_slab_put_block(parents[0], old) == HAK_FREE_OK);
    struct hak_slab *fresh = hak_slab_take(3, &me, TAG, false);
    must(fresh != NULL);
    must(hak_superslab_stats().superslabs == 1 && hak_superslab_stats().slabs_used == 1);
    for (unsigned i = 0; i < 3; i++) hak_slab_give(parents[i]); /* they are no part of the new pool */
    must(hak_superslab_stats().slabs_used == 1 && hak_superslab_stats().dirty_bytes == 0 && hak_superslab_check());
    struct hak_slab *more[40];
    for (unsigned i = 0; i < 40; i++) {
        more[i] = hak_slab_take(3, &me, TAG, false);
        must(more[i] != NULL);
        must((uintptr_t)more[i]->base >> 21 != (uintptr_t)old >> 21);
    }
    for (unsigned i = 0; i < 40; i++) hak_slab_give(more[i]);
    hak_slab_give(fresh);
    hak_superslab_purge_all();
    must(hak_superslab_stats().superslabs == 0 && hak_superslab_check());
}

static void a_pool_that_was_being_changed_is_set_aside_in_a_child(void **state) {
    (void)state;
    pthread_t thread;
    hak_sys_set_now_for_test(0);
    for (unsigned i = 0; i < 4; i++) parents[i] = take_slab(3);
    atomic_store(&hold, 1);
    start_thread(&thread, give_slowly, parents[3]);
    while (atomic_load(&hold) != 2) usleep(200);
    int status = run_forked(go_on_in_a_pool_of_its_own, NULL);
    atomic_store(&hold, 3);
    must(pthread_join(thread, NULL) == 0);
    assert_int_equal(status, 0);
    assert_int_equal(hak_superslab_stats().slabs_used, 3);
    for (unsigned i = 0; i < 3; i++) hak_slab_give(parents[i]);
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, empty_pool, empty_pool)
    const struct CMUnitTest tests[] = {
        TEST(a_fresh_slab_of_each_class_has_exactly_its_blocks_free),
        TEST(the_rest_behind_the_last_block_is_none),
        TEST(what_lies_behind_the_last_block_is_none_that_can_be_put_back),
        TEST(slabs_and_superslabs_do_as_their_model_does),
        TEST(so_they_do_where_nothing_is_given_back),
        TEST(another_owner_is_in_the_map_for_every_granule),
        TEST(each_fresh_superslab_has_32_slabs_and_the_next_links_another),
        TEST(whole_superslabs_are_cut_into_spans_of_each_length),
        TEST(what_is_dirty_is_used_first_and_purged_pages_are_zero),
        TEST(dirty_memory_stays_within_the_budget),
        TEST(a_refused_purge_leaves_it_dirty_and_usable),
        TEST(age_purges_first_and_unmaps_later_all_but_one),
        TEST(a_system_without_memory_gives_no_slab),
        TEST(a_pool_that_was_being_changed_is_set_aside_in_a_child),
        cmocka_unit_test(blocks_are_put_back_up_to_the_first_that_cannot_be), /* leaves its slab, too */
        cmocka_unit_test(a_collection_names_a_block_that_was_free_already),   /* last: leaves its slab */
    };
    alarm(HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
