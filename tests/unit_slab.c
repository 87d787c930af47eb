/* Slabs and superslabs against models: fresh bitmaps, taking and putting back by owner and others, runs of granules,
 * purging by budget and age, unmapping, and the pool that a forked child sets aside. */
#include "support/prefixed.h"

#include "base/options.h"
#include "base/size_class.h"
#include "base/sys.h"
#include "pages/meta.h"
#include "pages/region.h"
#include "stores/slab.h"
#include "stores/superslab.h"

#include <sys/syscall.h>
#include <time.h>

#define set_option(name, value) hak_store_rlx(&hak_options.name, value)
#define GRANULE HAK_SLAB_BYTES
#define TAG 4711
static int me, you;

static struct hak_slab *take_slab(unsigned c) {
    struct hak_slab *slab = hak_slab_take(c, &me, TAG);
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

static void is_fresh(struct hak_slab *slab, unsigned c) {
    uint32_t blocks = (uint32_t)(hak_class_slabs(c) * GRANULE / hak_class_bytes(c));
    assert_int_equal(slab->blocks, blocks);
    assert_int_equal(slab->free_count, blocks);
    for (uint32_t w = 0; w < slab->words; w++) {
        uint32_t left = blocks - w * 64;
        assert_true(hak_slab_free_bits(slab)[w] == (left >= 64 ? UINT64_MAX : ((uint64_t)1 << left) - 1));
        assert_true(hak_load_acq(&hak_slab_remote_bits(slab)[w]) == 0);
    }
    assert_int_equal(slab->words, (blocks + 63) / 64);
    for (unsigned g = 0; g < slab->slabs; g++) {
        struct hak_region region = hak_region_lookup(slab->base + (g + 1) * GRANULE - 1);
        assert_int_equal(region.owner, TAG);
        assert_int_equal(region.kind, 2 * c);
        assert_ptr_equal(region.descriptor, slab);
    }
    assert_true(hak_slab_is_empty(slab) && hak_slab_check(slab));
}

static void a_fresh_slab_of_each_class_has_exactly_its_blocks_free(void **state) {
    (void)state;
    for (unsigned round = 0; round < 2; round++) /* the second time the record is recycled */
        for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
            struct hak_slab *slab = take_slab(c);
            is_fresh(slab, c);
            void *one;
            assert_int_equal(hak_slab_take_blocks(slab, &one, 1), 1);
            assert_ptr_equal(one, slab->base);
            assert_int_equal(hak_slab_put_block(slab, one), HAK_FREE_OK);
            hak_slab_give(slab);
            assert_int_equal(hak_region_lookup(one).owner, 0);
            assert_int_equal(hak_region_lookup(one).kind, HAK_KIND_FREE_SLAB);
        }
}

enum place { FREE, OUT, REMOTE };

static uint32_t count(const unsigned char *places, uint32_t blocks, enum place place) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < blocks; i++) n += places[i] == place;
    return n;
}

static char *block(const struct hak_slab *slab, uint32_t i) { return slab->base + (size_t)i * slab->block_bytes; }

static void take_some(struct hak_slab *slab, unsigned char *places, uint32_t want) {
    void *out[300];
    uint32_t n = count(places, slab->blocks, FREE), got = hak_slab_take_blocks(slab, out, want);
    assert_int_equal(got, want < n ? want : n);
    uint32_t next = 0;
    for (uint32_t k = got; k-- > 0;) { /* lowest address last, and always the lowest that are free */
        while (places[next] != FREE) next++;
        assert_ptr_equal(out[k], block(slab, next));
        places[next] = OUT;
    }
}

static void put_one(struct hak_slab *slab, unsigned char *places, uint32_t i) {
    enum hak_free_result expected = places[i] == FREE ? HAK_FREE_DOUBLE : HAK_FREE_OK;
    if (places[i] == REMOTE) return; /* a misuse that is found at the next collection only */
    assert_int_equal(hak_slab_put_block(slab, block(slab, i)), expected);
    assert_int_equal(hak_slab_put_block(slab, block(slab, i) + slab->block_bytes / 2), HAK_FREE_NOT_START);
    places[i] = FREE;
}

static void put_word(struct hak_slab *slab, unsigned char *places, uint32_t word, uint64_t random) {
    uint64_t bits = 0, twice = 0;
    for (uint32_t i = word * 64; i < slab->blocks && i < word * 64 + 64; i++) {
        if (places[i] == FREE || (random >> i % 64 & 1) == 0) continue;
        bits |= (uint64_t)1 << i % 64;
        if (places[i] == REMOTE) twice |= (uint64_t)1 << i % 64;
        places[i] = REMOTE;
    }
    assert_true(hak_slab_put_remote(slab, word, bits) == twice);
}

static void collect(struct hak_slab *slab, unsigned char *places) {
    assert_int_equal(hak_slab_collect(slab), HAK_NO_BLOCK);
    for (uint32_t i = 0; i < slab->blocks; i++)
        if (places[i] == REMOTE) places[i] = FREE;
}

static void a_slab_does_as_its_model_does(void **state) {
    (void)state;
    static const unsigned classes[] = {0, 3, 7, 11, 19, 25, 30, 39};
    uint64_t random = 5;
    for (size_t k = 0; k < COUNT(classes); k++) {
        struct hak_slab *slab = take_slab(classes[k]);
        static unsigned char places[4096];
        memset(places, FREE, sizeof places);
        for (unsigned step = 0; step < 2000; step++) {
            uint64_t r = next_random(&random);
            uint32_t i = (uint32_t)(r >> 8) % slab->blocks;
            switch (r % 4) {
            case 0:
                take_some(slab, places, (uint32_t)(r >> 32) % 300);
                break;
            case 1:
                put_one(slab, places, i);
                break;
            case 2:
                put_word(slab, places, i / 64, next_random(&random));
                break;
            case 3:
                collect(slab, places);
                break;
            }
            assert_int_equal(slab->free_count, count(places, slab->blocks, FREE));
            assert_true(hak_slab_check(slab));
        }
        collect(slab, places);
        for (uint32_t i = 0; i < slab->blocks; i++)
            if (places[i] == OUT) assert_int_equal(hak_slab_put_block(slab, block(slab, i)), HAK_FREE_OK);
        is_fresh(slab, classes[k]);
        hak_slab_give(slab);
    }
}

static void a_collection_names_a_block_that_was_free_already(void **state) {
    (void)state;
    struct hak_slab *slab = take_slab(3);
    void *out[200];
    hak_slab_take_blocks(slab, out, 200);
    assert_int_equal(hak_slab_put_block(slab, block(slab, 130)), HAK_FREE_OK);
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
    struct hak_slab_run run = hak_superslab_take(slabs);
    must(run.ptr != NULL);
    return run;
}

static void a_fresh_superslab_has_32_slabs_and_the_33rd_links_another(void **state) {
    (void)state;
    struct hak_slab_run runs[70];
    uint32_t seen = 0;
    for (unsigned i = 0; i < 32; i++) {
        runs[i] = take_run(1);
        assert_true(runs[i].superslab == runs[0].superslab && runs[i].first < 32);
        seen |= 1U << runs[i].first;
        assert_int_equal((uintptr_t)runs[i].ptr % HAK_SUPERSLAB_BYTES, runs[i].first * GRANULE);
        assert_int_equal(hak_superslab_stats().superslabs, 1);
    }
    assert_int_equal(seen, UINT32_MAX);
    for (unsigned i = 32; i < 70; i++) runs[i] = take_run(1);
    assert_int_equal(hak_superslab_stats().superslabs, 3);
    assert_int_equal(hak_superslab_stats().slabs_used, 70);
    for (unsigned i = 0; i < 70; i++) hak_superslab_give(runs[i].superslab, runs[i].first, 1);
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

/* A run's granules carry its number: whoever shares one with it is found. */
static void sign(char *ptr, unsigned slabs, uint64_t id) {
    for (unsigned g = 0; g < slabs; g++) memcpy(ptr + g * GRANULE, &id, sizeof id);
}

static bool is_signed(const char *ptr, unsigned slabs, uint64_t id) {
    for (unsigned g = 0; g < slabs; g++)
        if (memcmp(ptr + g * GRANULE, &id, sizeof id) != 0) return false;
    return true;
}

static void runs_never_overlap_and_the_figures_agree(void **state) {
    (void)state;
    enum { RUNS = 120 };
    static struct {
        struct hak_slab_run run;
        unsigned slabs;
        uint64_t id;
    } runs[RUNS];
    uint64_t random = 8, used = 0;
    for (uint64_t step = 1; step < 20000; step++) {
        uint64_t r = next_random(&random);
        unsigned i = (unsigned)(r >> 8) % RUNS;
        if (runs[i].slabs != 0) {
            assert_true(is_signed(runs[i].run.ptr, runs[i].slabs, runs[i].id));
            hak_superslab_give(runs[i].run.superslab, runs[i].run.first, runs[i].slabs);
            used -= runs[i].slabs;
            runs[i].slabs = 0;
        } else {
            runs[i].slabs = 1U << (r >> 40) % 4;
            runs[i].run = take_run(runs[i].slabs);
            runs[i].id = step;
            assert_true(runs[i].run.first + runs[i].slabs <= 32);
            used += runs[i].slabs;
            sign(runs[i].run.ptr, runs[i].slabs, step);
        }
        if (r % 512 == 0) hak_superslab_purge_all();
        if (r % 128 == 0) hak_superslab_relieve();
        struct hak_superslab_stats stats = hak_superslab_stats();
        assert_int_equal(stats.slabs_used, used);
        assert_true(stats.dirty_bytes + used * GRANULE <= stats.superslabs * HAK_SUPERSLAB_BYTES);
        assert_true(hak_superslab_check());
    }
    for (unsigned i = 0; i < RUNS; i++)
        if (runs[i].slabs != 0) hak_superslab_give(runs[i].run.superslab, runs[i].run.first, runs[i].slabs);
    memset(runs, 0, sizeof runs);
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
    sign(run.ptr, 4, 77);
    hak_superslab_give(run.superslab, run.first, 4);
    purges_fail = true;
    hak_sys_set_fault_for_test(fail_purges);
    assert_int_equal(hak_superslab_purge_all(), 0);
    hak_sys_set_fault_for_test(NULL);
    assert_int_equal(hak_superslab_stats().dirty_bytes, 4 * GRANULE);
    assert_true(is_signed(run.ptr, 4, 77) && hak_superslab_check());
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
    assert_null(hak_superslab_take(1).ptr);
    assert_null(hak_slab_take(0, &me, TAG));
    assert_null(hak_slab_take(5, &me, TAG));
    uint64_t metadata = hak_meta_mapped_bytes();
    for (unsigned i = 0; i < 5000; i++) assert_null(hak_slab_take(0, &me, TAG));
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
    struct hak_slab *fresh = hak_slab_take(3, &me, TAG);
    must(fresh != NULL);
    must(hak_superslab_stats().superslabs == 1 && hak_superslab_stats().slabs_used == 1);
    for (unsigned i = 0; i < 3; i++) hak_slab_give(parents[i]); /* they are no part of the new pool */
    must(hak_superslab_stats().slabs_used == 1 && hak_superslab_stats().dirty_bytes == 0 && hak_superslab_check());
    struct hak_slab *more[40];
    for (unsigned i = 0; i < 40; i++) {
        more[i] = hak_slab_take(3, &me, TAG);
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
        TEST(a_slab_does_as_its_model_does),
        TEST(another_owner_is_in_the_map_for_every_granule),
        TEST(a_fresh_superslab_has_32_slabs_and_the_33rd_links_another),
        TEST(whole_superslabs_are_cut_into_spans_of_each_length),
        TEST(runs_never_overlap_and_the_figures_agree),
        TEST(what_is_dirty_is_used_first_and_purged_pages_are_zero),
        TEST(dirty_memory_stays_within_the_budget),
        TEST(a_refused_purge_leaves_it_dirty_and_usable),
        TEST(age_purges_first_and_unmaps_later_all_but_one),
        TEST(a_system_without_memory_gives_no_slab),
        TEST(a_pool_that_was_being_changed_is_set_aside_in_a_child),
        cmocka_unit_test(a_collection_names_a_block_that_was_free_already), /* last: leaves its slab */
    };
    alarm(HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
