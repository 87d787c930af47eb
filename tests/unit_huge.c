/* Superslabs as huge pages: who gets one, what of it counts as resident, and that a part which was given back is not
 * made whole again. What the kernel was told stands in its table of mappings. */
#include "support/prefixed.h"

#include "support/life.h"
#include "support/whitebox.h"

#include "base/sys.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "pages/region.h"
#include "stores/l25.h"
#include "stores/slab.h"
#include "stores/superslab.h"

#define GRANULE HAK_SLAB_BYTES
#define KILO 1024
#define SUPERSLABS_MOST 64

/* ---- what the kernel knows ------------------------------------------------------------------------------------- */

struct mapping {
    uintptr_t wanted;
    bool found, huge, never_huge;
};

static void look_for_flags(const char *line, void *data) {
    struct mapping *mapping = data;
    uintptr_t first, end;
    if (sscanf(line, "%lx-%lx ", &first, &end) == 2) mapping->found = first <= mapping->wanted && mapping->wanted < end;
    if (!mapping->found || strncmp(line, "VmFlags:", 8) != 0) return;
    mapping->huge = strstr(line, " hg") != NULL;
    mapping->never_huge = strstr(line, " nh") != NULL;
}

static struct mapping mapping_of(const void *ptr) {
    struct mapping mapping = {.wanted = (uintptr_t)ptr};
    life_each_line("/proc/self/smaps", look_for_flags, &mapping);
    return mapping;
}
static bool is_huge(const void *ptr) { return mapping_of(ptr).huge; }
static bool is_kept_small(const void *ptr) { return mapping_of(ptr).never_huge; }

/* A kernel without huge pages takes no note of them. */
static bool has_huge_pages(void) {
    char *ptr = hak_sys_map(HAK_SUPERSLAB_BYTES);
    const bool noted = hak_sys_make_huge(ptr, HAK_SUPERSLAB_BYTES) && is_huge(ptr);
    hak_sys_unmap(ptr, HAK_SUPERSLAB_BYTES);
    return noted;
}

/* ---- superslabs ------------------------------------------------------------------------------------------------- */

static int empty_pool(void **state) {
    (void)state;
    hak_sys_set_now_for_test(1000000);
    set_option(RETAIN_BYTES, 64 * MIB);
    hak_superslab_purge_all();
    return hak_superslab_stats().superslabs == 0 && hak_superslab_check() ? 0 : -1;
}

static struct hak_slab_run take(unsigned slabs, bool huge) {
    struct hak_slab_run run = hak_superslab_take(slabs, huge);
    must(run.ptr != NULL && hak_superslab_check());
    return run;
}
static void give(struct hak_slab_run run, unsigned slabs) { hak_superslab_give(run.superslab, run.first, slabs); }

static void only_who_asks_for_a_huge_page_links_one(void **state) {
    (void)state;
    struct hak_slab_run small = take(1, false);
    assert_true(is_kept_small(small.ptr));
    struct hak_slab_run beside = take(1, true); /* there is room in the small one */
    assert_ptr_equal(beside.superslab, small.superslab);
    assert_false(is_huge(beside.ptr));
    struct hak_slab_run spans[4];
    for (unsigned i = 0; i < 4; i++) spans[i] = take(8, true);
    assert_true(is_huge(spans[3].ptr) && !is_huge(spans[2].ptr));
    for (unsigned i = 0; i < 4; i++) give(spans[i], 8);
    give(small, 1);
    give(beside, 1);
}

static void a_huge_page_becomes_resident_as_a_whole(void **state) {
    (void)state;
    struct hak_slab_run first = take(1, true);
    assert_int_equal(first.fresh, HAK_SUPERSLAB_BYTES);
    assert_int_equal(hak_superslab_stats().dirty_bytes, 31 * GRANULE);
    struct hak_slab_run next = take(2, true);
    assert_ptr_equal(next.superslab, first.superslab);
    assert_int_equal(next.fresh, 0);
    assert_int_equal(hak_superslab_stats().dirty_bytes, 29 * GRANULE);
    give(first, 1);
    give(next, 2);
    assert_int_equal(hak_superslab_stats().dirty_bytes, HAK_SUPERSLAB_BYTES);
}

static void what_is_given_back_of_it_is_not_made_whole_again(void **state) {
    (void)state;
    struct hak_slab_run kept = take(1, true), gone = take(1, true);
    memset(gone.ptr, 0xee, GRANULE);
    give(gone, 1);
    assert_int_equal(hak_superslab_purge_all(), 31 * GRANULE);
    assert_true(is_kept_small(kept.ptr) && !is_huge(kept.ptr));
    assert_int_equal(hak_superslab_stats().dirty_bytes, 0);
    struct hak_slab_run again = take(1, true); /* from now on it is one like others */
    assert_ptr_equal(again.superslab, kept.superslab);
    assert_int_equal(again.fresh, GRANULE);
    assert_int_equal(hak_superslab_stats().dirty_bytes, 0);
    for (size_t i = 0; i < GRANULE; i++) assert_int_equal(again.ptr[i], 0);
    give(again, 1);
    give(kept, 1);
}

static void one_that_is_given_back_as_a_whole_stays_huge(void **state) {
    (void)state;
    struct hak_slab_run run = take(1, true);
    const char *where = run.ptr;
    give(run, 1);
    hak_superslab_decay(1000000 + hak_option(PURGE_DELAY_MS));
    assert_int_equal(hak_superslab_stats().superslabs, 1);
    assert_int_equal(hak_superslab_stats().dirty_bytes, 0);
    assert_true(is_huge(where));
    run = take(1, false);
    assert_ptr_equal(run.ptr, where);
    assert_int_equal(run.fresh, HAK_SUPERSLAB_BYTES);
    give(run, 1);
}

/* Each may be a mapping of its own. More than the first 4,096 are left to the kernel. */
static void not_more_are_kept_small_than_the_kernel_has_mappings_for(void **state) {
    (void)state;
    enum { MANY = 4096 + 2 };
    static struct hak_slab_run runs[MANY];
    if (HAK_ASAN || HAK_MSAN) return; /* 8 GiB of addresses, with their shadows */
    for (unsigned i = 0; i < MANY; i++) {
        runs[i] = take(8, true);
        for (unsigned k = 0; k < 3; k++) take(8, true);
    }
    const size_t before = life_mappings();
    for (unsigned i = 0; i < MANY; i++) give(runs[i], 8);
    hak_superslab_purge_all();
    assert_true(is_kept_small(runs[0].ptr));
    unsigned small = 0;
    for (unsigned i = 4080; i < MANY; i++) small += is_kept_small(runs[i].ptr);
    assert_int_equal(small, 4096 - 4080);
    assert_true(life_growth(before, life_mappings()) <= 2 * 4096);
    for (unsigned i = 0; i < MANY; i++)
        for (unsigned first = 8; first < 32; first += 8) hak_superslab_give(runs[i].superslab, first, 8);
    hak_superslab_purge_all();
    struct hak_slab_run kept = take(1, true); /* those are gone: there is room for others */
    give(take(1, true), 1);
    hak_superslab_purge_all();
    assert_true(is_kept_small(kept.ptr));
    give(kept, 1);
}

/* As long as some of it is taken, the rest is needed. */
static void the_age_of_its_rest_begins_anew_when_some_is_taken(void **state) {
    (void)state;
    const uint64_t delay = hak_option(PURGE_DELAY_MS);
    struct hak_slab_run runs[8];
    uint64_t now = 1000000;
    for (unsigned i = 0; i < COUNT(runs); i++) {
        runs[i] = take(1, true);
        now += delay - 1;
        hak_sys_set_now_for_test(now);
        hak_superslab_decay(now);
        assert_int_equal(hak_superslab_stats().dirty_bytes, (31 - i) * GRANULE);
    }
    hak_superslab_decay(now + 1);
    assert_int_equal(hak_superslab_stats().dirty_bytes, 0);
    for (unsigned i = 0; i < COUNT(runs); i++) give(runs[i], 1);
}

static int refuse_huge(enum hak_sys_call call, size_t bytes) {
    (void)bytes;
    return call == HAK_SYS_HUGE ? EINVAL : 0;
}

static void where_the_system_has_none_superslabs_are_small(void **state) {
    (void)state;
    hak_sys_set_fault_for_test(refuse_huge);
    struct hak_slab_run run = take(1, true);
    hak_sys_set_fault_for_test(NULL);
    assert_false(is_huge(run.ptr));
    assert_int_equal(run.fresh, GRANULE);
    assert_int_equal(hak_superslab_stats().dirty_bytes, 0);
    give(run, 1);
}

static void huge_pages_of_another_size_are_not_asked_for(void **state) {
    (void)state;
    char *ptr = hak_sys_map(HAK_SUPERSLAB_BYTES);
    hak_sys_set_page_bytes_for_test(HAK_GRANULE);
    assert_false(hak_sys_make_huge(ptr, HAK_SUPERSLAB_BYTES));
    hak_sys_set_page_bytes_for_test(0);
    assert_true(hak_sys_unmap(ptr, HAK_SUPERSLAB_BYTES));
}

static unsigned told;
static int expect_to_be_told_first(enum hak_sys_call call, size_t bytes) {
    if (call == HAK_SYS_HUGE) told += bytes == HAK_SUPERSLAB_BYTES;
    if (call == HAK_SYS_PURGE) must(told == 1);
    return 0;
}

static void it_is_kept_small_before_a_part_goes_back(void **state) {
    (void)state;
    struct hak_slab_run kept = take(1, true);
    told = 0;
    hak_sys_set_fault_for_test(expect_to_be_told_first);
    assert_int_equal(hak_superslab_purge_all(), 31 * GRANULE);
    hak_sys_set_fault_for_test(NULL);
    assert_int_equal(told, 1);
    give(kept, 1);
}

/* A huge page of which a part is purged and that is not split shrinks RSS, but serves nobody else: the machine's free
 * memory tells. Other processes take some meanwhile, hence many tries. */
#define TRIES 50

static size_t freed_by_partial_purges(void) {
    enum { MANY = 100 };
    static struct hak_slab_run kept[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        kept[i] = take(1, true);
        memset(kept[i].ptr, 1, HAK_SUPERSLAB_BYTES);
        for (unsigned k = 1; k < 32; k++) take(1, true);
    }
    for (unsigned i = 0; i < MANY; i++)
        for (unsigned k = 1; k < 32; k++) hak_superslab_give(kept[i].superslab, k, 1);
    const size_t before = life_proc_bytes("/proc/meminfo", "MemFree");
    hak_superslab_purge_all();
    const size_t after = life_proc_bytes("/proc/meminfo", "MemFree");
    for (unsigned i = 0; i < MANY; i++) hak_superslab_give(kept[i].superslab, kept[i].first, 1);
    hak_superslab_purge_all();
    return life_growth(before, after);
}
static void what_is_given_back_of_it_is_free_for_others(void **state) {
    (void)state;
    if (HAK_ASAN || HAK_MSAN || HAK_TSAN) return; /* their shadows come and go with it */
    size_t freed = 0;
    for (unsigned tries = 0; tries < TRIES && freed < 100 * MIB; tries++) freed = freed_by_partial_purges();
    assert_true(freed >= 100 * MIB);
}

/* ---- where the system makes all memory huge -------------------------------------------------------------------- */

static void what_hakmem_needs_itself_is_kept_small(void **state) {
    (void)state;
    struct hak_slab_run run = take(1, false);
    assert_true(is_kept_small(hak_region_leaf_of(run.ptr)));
    assert_true(is_kept_small(run.superslab));
    give(run, 1);
}

static void chunks_are_kept_small_while_a_shard_has_few(void **state) {
    (void)state;
    enum { PER_CHUNK = HAK_CHUNK_BYTES / MIB, CHUNKS = 4 };
    void *blocks[CHUNKS * PER_CHUNK];
    set_option(HUGE_BYTES, 2 * HAK_CHUNK_BYTES);
    for (unsigned i = 0; i < COUNT(blocks); i++) assert_non_null(blocks[i] = hak_l25_alloc(MIB, 0, 0).ptr);
    for (unsigned i = 0; i < COUNT(blocks); i++) assert_int_equal(is_kept_small(blocks[i]), i < 2 * PER_CHUNK);
    for (unsigned i = 0; i < COUNT(blocks); i++)
        assert_int_equal(hak_l25_free(hak_region_lookup(blocks[i]).descriptor, blocks[i]), HAK_FREE_OK);
    hak_l25_purge_all();
    set_option(HUGE_BYTES, 0);
    for (unsigned i = 0; i < COUNT(blocks); i++) assert_non_null(blocks[i] = hak_l25_alloc(MIB, 0, 0).ptr);
    for (unsigned i = 0; i < COUNT(blocks); i++) assert_true(is_kept_small(blocks[i]));
    for (unsigned i = 0; i < COUNT(blocks); i++)
        assert_int_equal(hak_l25_free(hak_region_lookup(blocks[i]).descriptor, blocks[i]), HAK_FREE_OK);
    hak_l25_purge_all();
}

static bool shrinks(void *end, size_t bytes) {
    return hak_sys_remap_in_place((char *)end - KILO * 64, bytes + KILO * 64, KILO * 64) == HAK_REMAP_DONE;
}

/* Lets so many bytes go of each second of 64 huge pages and the one behind it. */
static size_t freed_of_huge_pages(bool (*go)(void *, size_t), size_t from, size_t bytes) {
    enum { MANY = 64 };
    char *mapped = hak_sys_map((MANY + 1) * HAK_SUPERSLAB_BYTES);
    must(mapped != NULL);
    char *ptr = mapped + (-(uintptr_t)mapped & (HAK_SUPERSLAB_BYTES - 1));
    for (unsigned i = 0; i < MANY; i++) {
        must(hak_sys_make_huge(ptr + i * HAK_SUPERSLAB_BYTES, HAK_SUPERSLAB_BYTES));
        memset(ptr + i * HAK_SUPERSLAB_BYTES, 1, HAK_SUPERSLAB_BYTES);
    }
    const size_t before = life_proc_bytes("/proc/meminfo", "MemFree");
    for (unsigned i = 0; i < MANY; i += 2) must(go(ptr + i * HAK_SUPERSLAB_BYTES + from, bytes));
    const size_t after = life_proc_bytes("/proc/meminfo", "MemFree");
    must(ptr[from - 1] == 1 && ptr[from + bytes] == 1);
    hak_sys_unmap(mapped, (MANY + 1) * HAK_SUPERSLAB_BYTES);
    return life_growth(before, after);
}

static void expect_to_be_freed(bool (*go)(void *, size_t), size_t from, size_t bytes, size_t least) {
    size_t freed = 0;
    for (unsigned tries = 0; tries < TRIES && freed < least; tries++) freed = freed_of_huge_pages(go, from, bytes);
    assert_true(freed >= least);
}

/* Little of one and most of the next, which is 56 of 64 MiB; most of one, without its ends: all of 48 MiB. */
static void what_goes_splits_what_it_is_a_part_of(void **state) {
    (void)state;
    static bool (*const ways[])(void *, size_t) = {hak_sys_purge, hak_sys_unmap, shrinks};
    if (HAK_ASAN || HAK_MSAN || HAK_TSAN) return; /* as above */
    for (size_t i = 0; i < COUNT(ways); i++) {
        expect_to_be_freed(ways[i], 7 * MIB / 4, 2 * MIB, 40 * MIB);
        expect_to_be_freed(ways[i], MIB / 4, 3 * MIB / 2, 32 * MIB);
    }
}

/* ---- heaps ------------------------------------------------------------------------------------------------------ */

/* Those of all slabs of this thread's heap, which somebody else may hold just now. */
static uint32_t granules_now(void) {
    uint32_t granules = 0;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++)
        granules += hak_load_rlx(&hak_tls_heap->slabs_owned[c]) * hak_class_slabs(c);
    return granules;
}

/* Takes blocks of 1 KiB until the heap has so many granules; how many superslabs hold one that is in a huge page. */
static unsigned grow_to(uint32_t granules) {
    const void *seen[SUPERSLABS_MOST];
    unsigned superslabs = 0, huge = 0;
    void **blocks = NULL;
    do {
        void **block = hak_malloc(KILO);
        must(block != NULL);
        *block = blocks;
        blocks = block;
        const void *base = (const void *)((uintptr_t)block & ~(uintptr_t)(HAK_SUPERSLAB_BYTES - 1));
        unsigned i = 0;
        while (i < superslabs && seen[i] != base) i++;
        if (i < superslabs) continue;
        must(superslabs < SUPERSLABS_MOST);
        seen[superslabs++] = base;
        huge += is_huge(block);
    } while (granules_now() < granules);
    for (void **next; blocks != NULL; blocks = next) {
        next = *blocks;
        hak_free(blocks);
    }
    hak_purge();
    return huge;
}

static void a_thread_takes_huge_pages_once_it_has_much(void *argument) {
    (void)argument;
    set_option(HUGE_BYTES, 4 * MIB);
    must(grow_to(2 * 32) == 0);
    const unsigned huge = grow_to(10 * 32); /* two superslabs, and up to one begun before */
    must(huge == 7 || huge == 8);
    set_option(HUGE_BYTES, 0);
    must(grow_to(10 * 32) == 0);
}
static void a_thread_gets_huge_pages_once_it_has_much(void **state) {
    (void)state;
    succeeds(a_thread_takes_huge_pages_once_it_has_much);
}

static void *have_little(void *huge) {
    *(unsigned *)huge = grow_to(3 * 32 - 1);
    return NULL;
}

static void do_with_little(void *argument) {
    (void)argument;
    enum { THREADS = 4 };
    set_option(HUGE_BYTES, 6 * MIB);
    pthread_t threads[THREADS];
    unsigned huge[THREADS];
    for (unsigned i = 0; i < THREADS; i++) start_thread(&threads[i], have_little, &huge[i]);
    for (unsigned i = 0; i < THREADS; i++) must(pthread_join(threads[i], NULL) == 0 && huge[i] == 0);
}
static void threads_that_have_little_each_get_none(void **state) {
    (void)state;
    succeeds(do_with_little);
}

static void *keep_and_end(void *blocks) {
    for (unsigned i = 0; i < 3000; i++) must((((void **)blocks)[i] = hak_malloc(KILO)) != NULL);
    return NULL;
}

/* What comes from an ended thread counts for who has it now, and what is given back for nobody. */
static void count_granules(void *argument) {
    (void)argument;
    static void *blocks[3000];
    hak_free(hak_malloc(KILO)); /* in a heap of its own */
    run_thread(keep_and_end, blocks);
    for (unsigned i = 0; i < 3000; i += 2) hak_free(blocks[i]);
    for (unsigned i = 0; i < 1000; i++) must(hak_malloc(KILO) != NULL);
    hak_purge();
    must(hak_load_rlx(&hak_tls_heap->adopted_slabs) > 0 && hak_tls_heap->granules == granules_now());
}
static void granules_are_those_of_all_slabs(void **state) {
    (void)state;
    succeeds(count_granules);
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, empty_pool, empty_pool)
    const struct CMUnitTest tests[] = {
        TEST(only_who_asks_for_a_huge_page_links_one),
        TEST(a_huge_page_becomes_resident_as_a_whole),
        TEST(what_is_given_back_of_it_is_not_made_whole_again),
        TEST(one_that_is_given_back_as_a_whole_stays_huge),
        TEST(the_age_of_its_rest_begins_anew_when_some_is_taken),
        TEST(it_is_kept_small_before_a_part_goes_back),
        TEST(what_is_given_back_of_it_is_free_for_others),
        TEST(not_more_are_kept_small_than_the_kernel_has_mappings_for),
        TEST(where_the_system_has_none_superslabs_are_small),
        TEST(huge_pages_of_another_size_are_not_asked_for),
        TEST(what_hakmem_needs_itself_is_kept_small),
        TEST(chunks_are_kept_small_while_a_shard_has_few),
        TEST(what_goes_splits_what_it_is_a_part_of),
        TEST(a_thread_gets_huge_pages_once_it_has_much),
        TEST(threads_that_have_little_each_get_none),
        TEST(granules_are_those_of_all_slabs),
    };
    if (!has_huge_pages()) {
        print_message("no transparent huge pages here\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
