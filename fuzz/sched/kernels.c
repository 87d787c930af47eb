/* The kernels (kernels.h). What each thread does is a few calls, so that all schedules with a bounded number of
 * preemptions can be tried. The caches are made as small as they go: every call then reaches the slow paths. */
#include "kernels.h"

#include <stdio.h>
#include <string.h>

#include "strategy.h"
#include "world.h"

#include "base/options.h"
#include "base/size_class.h"
#include "base/sync.h"
#include "base/sys.h"
#include "front/heap.h"
#include "front/tcache.h"
#include "hakmem.h"
#include "pages/pages.h"
#include "pages/region.h"
#include "stores/bigcache.h"
#include "stores/l25.h"
#include "stores/l25_table.h"
#include "stores/slab.h"
#include "stores/superslab.h"

#define must(condition)                                                                                                \
    do                                                                                                                 \
        if (!(condition)) sched_finding("not true: " #condition);                                                      \
    while (0)
#define set_option(name, value) hak_store_rlx(&hak_options.name, value)

#define SMALL 48 /* less than a cache line: what another thread frees goes home */
#define KEPT 64  /* and stays with it, if there is room */
#define PER_SLAB (HAK_SLAB_BYTES / SMALL)
#define RUN (100 * HAK_KIB)
#define BIG (HAK_MIB + HAK_GRANULE) /* the fewest granules: an entry of the region map is a step */

/* ---- blocks that show when two have the same memory ------------------------------------------------------------ */

static _Atomic uint64_t stamps; /* relaxed: it must not order what the allocator should */

static uint64_t *make(size_t size) {
    uint64_t *block = hak_malloc(size);
    must(block != NULL);
    block[0] = size;
    block[1] = atomic_fetch_add_explicit(&stamps, 1, memory_order_relaxed);
    block[size / sizeof *block - 1] = block[1];
    return block;
}

static void drop(uint64_t *block) {
    sched_pause_here(); /* what happens to a block while it is in use? */
    must(block[0] >= 32 && block[1] == block[block[0] / sizeof *block - 1]);
    memset(block, 0, 16);
    hak_free(block);
}

static uint64_t *left[PER_SLAB + 8]; /* made before the run, for the threads to free */

static void small_caches(void) {
    set_option(TLS_SLOTS_MIN, 1);
    set_option(TLS_SLOTS_MAX, 1);
    set_option(PREWARM, 0);
    set_option(REMOTE_BYTES, 0);
    set_option(TLS_WARM_BYTES, 0);
}

static void leave_small(unsigned count) {
    small_caches();
    for (unsigned i = 0; i < count; i++) left[i] = make(SMALL);
}

/* A thread that does this and ends, before the run. */
static enum sched_backend backend;
static void run_and_end(void (*body)(void)) {
    static const struct sched_schedule none;
    struct replay replay = {.schedule = &none};
    const struct sched_config config = {
        .backend = backend, .choose = replay_choose, .data = &replay, .steps_max = UINT32_MAX};
    sched_run(&config, &(struct sched_program){.threads = 1, .body = {body}});
}

/* The same with one or two more threads meanwhile, which end later: there are as many more parked heaps then, and the
 * next new threads take those of the others. */
static unsigned take_turns(const struct sched_choice *choice, void *data) {
    (void)data;
    sched_set others = choice->ready & ~(1U << choice->current), above = others & ~((2U << choice->current) - 1);
    bool stays = (choice->ready >> choice->current & 1) != 0 && (!choice->yields || others == 0);
    return stays ? choice->current : (unsigned)__builtin_ctz(above != 0 ? above : others);
}
static void (*first_body)(void);
static void be_first(void) {
    first_body();
    sched_yield_here();
}
static void be_another(void) {
    hak_free(hak_malloc(SMALL));
    sched_yield_here();
}
static void run_and_end_before(unsigned others, void (*body)(void)) {
    const struct sched_config config = {.backend = backend, .choose = take_turns, .steps_max = UINT32_MAX};
    first_body = body;
    sched_run(&config, &(struct sched_program){.threads = 1 + others, .body = {be_first, be_another, be_another}});
}

static void drop_0(void) { drop(left[0]); }
static void drop_1(void) { drop(left[1]); }
static void drop_2(void) { drop(left[2]); }
static void drop_0_and_2(void) {
    drop(left[0]);
    drop(left[2]);
}
static void drop_1_and_2(void) {
    drop(left[1]);
    drop(left[2]);
}
static void nothing(void) {}

/* ---- remote frees, ends of threads, adoption -------------------------------------------------------------------- */

static void leave_two(void) { leave_small(2); }
static void leave_three(void) { leave_small(3); }
static void leave_two_classes(void) {
    leave_small(1);
    left[1] = make(SMALL - 16);
}

static void make_and_drop_two(void) {
    uint64_t *a = make(SMALL), *b = make(SMALL);
    drop(a);
    drop(b);
}

static void drop_then_make(void) {
    drop(left[2]);
    make_and_drop_two();
}

static void make_other_then_small(void) {
    uint64_t *other = make(512), *small = make(SMALL);
    drop(small);
    drop(other);
}

static void drop_1_then_make(void) {
    drop(left[1]);
    make_and_drop_two();
}

/* The blocks belong to a parked heap, which whoever comes first takes over, or adopts from. */
static void leave_parked_three(void) {
    small_caches();
    run_and_end(leave_three);
}
/* Without bins each free goes to the slab, for which it must be known whose that is. The first new thread takes another
 * heap over, and adopts from this one. */
static void leave_parked_three_without_bins(void) {
    small_caches();
    set_option(TLS_BYTES, 0);
    run_and_end_before(1, leave_three);
}
static void make_one_and_drop(void) { drop(make(SMALL)); }
/* The thread lets others go on before it ends, and its heap is parked. */
static void make_one_yield_and_drop(void) {
    uint64_t *block = make(SMALL);
    sched_yield_here();
    drop(block);
}

/* A full slab and one block more: the slab is in no list of its owner, and comes back by the first remote free. */
static void leave_full_slab(void) { leave_small(PER_SLAB + 1); }
static void drop_rest(void) {
    for (unsigned i = 2; i < PER_SLAB + 1; i++) drop(left[i]);
}

/* Others' blocks in the bins: kept, handed out again, flushed, and still there when the thread ends. */
static void leave_three_to_keep(void) {
    small_caches();
    for (unsigned i = 0; i < 3; i++) left[i] = make(KEPT);
}
static void keep(uint64_t *block) {
    uint64_t *own = make(KEPT);
    drop(block);
    uint64_t *again = make(KEPT);
    drop(own);
    drop(again);
}
static void keep_0(void) { keep(left[0]); }
static void keep_1(void) { keep(left[1]); }

static void leave_parked_three_and_others(void) {
    small_caches();
    run_and_end_before(2, leave_three);
}

/* In the bin of the heap that is parked at the thread's end waits a block for the next. */
static void make_one_warm(void) {
    set_option(TLS_WARM_BYTES, 2 * HAK_KIB);
    make_one_and_drop();
}
static void leave_three_and_one_in_a_bin(void) {
    leave_three();
    make_one_warm();
}
static void count_warm(const struct hak_heap *heap, void *count) { *(unsigned *)count += heap->warm; }
static void expect_warm(void) {
    unsigned warm = 0;
    hak_heap_each(count_warm, &warm);
    must(warm > 0);
}
static void leave_warm(void) {
    small_caches();
    run_and_end(leave_three_and_one_in_a_bin);
    expect_warm();
}
static void leave_two_warm(void) {
    small_caches();
    run_and_end_before(1, leave_three_and_one_in_a_bin);
    expect_warm();
}
static void cool_then_drop_1(void) {
    hak_heap_lend_all();
    drop(left[1]);
}

/* A push that comes when the slab has been given back, and its record then serves another slab. */
static void leave_parked_two(void) {
    small_caches();
    make_one_and_drop(); /* the caller has a heap of its own */
    run_and_end_before(2, leave_two);
}
/* The record's second life has remote frees, too. */
static uint64_t *_Atomic handed_over; /* relaxed: the allocator must order what happens to the block */
static void drop_1_and_hand_one_over(void) {
    drop(left[1]);
    sched_yield_here(); /* without the slab, and without its successor */
    atomic_store_explicit(&handed_over, make(SMALL), memory_order_relaxed);
}
static void drop_handed_over(void) {
    uint64_t *block = atomic_exchange_explicit(&handed_over, NULL, memory_order_relaxed);
    if (block != NULL) hak_free(block);
}
/* With a heap of its own, which it would else take over from the thread that hands the block over. */
static void have_a_heap_and_drop_handed_over(void) {
    hak_free(hak_malloc(512));
    sched_yield_here();
    drop_handed_over();
}
static void drop_1_and_keep_one(void) {
    drop(left[1]);
    left[2] = make(SMALL);
}

#define SMALL_CLASS 3
static struct hak_slab *take_slab(void) {
    static char owner;
    struct hak_slab *slab = hak_slab_take(SMALL_CLASS, &owner, 1, false);
    must(slab != NULL);
    return slab;
}
static void two_slab_records(void) {
    struct hak_slab *a = take_slab(), *b = take_slab(), *c = take_slab();
    hak_slab_give(c);
    hak_slab_give(b);
    hak_slab_give(a);
}
static void take_and_give(void) { hak_slab_give(take_slab()); }
static void take_two_give_first_take(void) {
    struct hak_slab *a = take_slab(), *b = take_slab();
    hak_slab_give(a);
    a = take_slab();
    must(a != b && a->base != b->base);
    hak_slab_give(a);
    hak_slab_give(b);
}
static void records_are_distinct(void) {
    struct hak_slab *taken[6];
    for (unsigned i = 0; i < 6; i++) {
        taken[i] = take_slab();
        for (unsigned j = 0; j < i; j++) must(taken[j] != taken[i]);
    }
    for (unsigned i = 0; i < 6; i++) hak_slab_give(taken[i]);
}

/* A heap is lent by the second look that finds its owner where the first did. */
static void leave_three_seen(void) {
    leave_three();
    hak_heap_lend_sleeping();
}
/* Without bins a block goes straight to its slab. This one is full but for the half that comes back: who adopts it
 * takes that, and it is in no list again. */
#define WIDE (32 * HAK_KIB)
#define PER_WIDE_SLAB 16
static void leave_full_slab_seen_without_bins(void) {
    small_caches();
    set_option(TLS_BYTES, 0);
    hak_tcache_rest(hak_tls_heap, 0, 0); /* the caller's were prewarmed */
    for (unsigned i = 0; i <= PER_WIDE_SLAB; i++) left[i] = make(WIDE);
    hak_heap_lend_sleeping();
}
static void drop_half_lend_and_keep(void) {
    for (unsigned i = 1; i <= PER_WIDE_SLAB / 2; i++) drop(left[i]);
    hak_heap_lend_sleeping();
    for (unsigned i = 1; i <= PER_WIDE_SLAB / 2; i++) left[i] = make(WIDE);
}
static void drop_wide(void) {
    for (unsigned i = 1; i <= PER_WIDE_SLAB; i++) drop(left[i]);
}
static void drop_1_and_lend(void) {
    drop(left[1]);
    hak_heap_lend_sleeping();
}
static void lend_then_drop_1(void) {
    hak_heap_lend_sleeping();
    drop(left[1]);
}
static void lend_then_make(void) {
    hak_heap_lend_sleeping();
    make_and_drop_two();
}
static void drop_0_then_make(void) {
    drop(left[0]);
    make_and_drop_two();
}

/* ---- pools ------------------------------------------------------------------------------------------------------ */

static void make_and_drop_run(void) { drop(make(RUN)); }
static void two_runs(void) {
    uint64_t *a = make(RUN), *b = make(RUN / 2);
    drop(a);
    drop(b);
}

/* As if each of the 64 had been asked often. */
static void busy_shards(void) {
    set_option(L25_LOAD, 1);
    set_option(L25_CHECK_MS, 1);
    left[0] = make(RUN);
    hak_count_by_owner(&hak_l25_table_shard(0)->requests, 2 * 64);
    world_advance_ms(10);
}
static void expand_shards(void) { hak_l25_table_tick(); }
/* The first that the doubled table adds, where there is one already. */
static void use_shard_64(void) {
    char *run = hak_l25_alloc(RUN, HAK_MIN_ALIGN, 64).ptr;
    must(run != NULL);
    must(hak_l25_free(hak_region_lookup(run).descriptor, run) == HAK_FREE_OK);
}
static void drop_0_then_run(void) {
    drop(left[0]);
    make_and_drop_run();
}
static void has_expanded(void) { must(hak_l25_stats().shards == 128 && hak_l25_stats().expansions == 1); }

static void drop_big(void) { drop(make(BIG)); }
static void two_big(void) {
    uint64_t *a = make(BIG), *b = make(BIG + BIG / 8);
    drop(a);
    drop(b);
}
static void leave_big(void) { left[0] = make(BIG); }
static enum hak_free_result outcome[2];
static enum hak_free_result free_left(void) { return hak_big_free(hak_region_lookup(left[0]).descriptor, left[0]); }
static void free_big_0(void) { outcome[0] = free_left(); }
static void free_big_1(void) { outcome[1] = free_left(); }
static void one_was_the_second(void) {
    must((outcome[0] == HAK_FREE_OK && outcome[1] == HAK_FREE_DOUBLE) ||
         (outcome[0] == HAK_FREE_DOUBLE && outcome[1] == HAK_FREE_OK));
}
static void cached_big(void) {
    drop(make(BIG));
    set_option(BIGCACHE_MAPPED, 2 * BIG);
}
static void grow_big(void) {
    uint64_t *block = make(BIG);
    block = hak_realloc(block, 2 * BIG);
    must(block != NULL && block[0] == BIG);
    drop(block);
}

/* One entry below the load at which the table of 256 buckets doubles. */
static void nearly_full_table(void) {
    enum { ENTRIES = 191 };
    static uint64_t *blocks[ENTRIES];
    set_option(BIGCACHE_RESIDENT, (1024 * HAK_MIB));
    left[0] = make(BIG);
    left[1] = make(BIG);
    for (unsigned i = 0; i < ENTRIES; i++) blocks[i] = make(HAK_MIB + 64 * HAK_KIB);
    for (unsigned i = 0; i < ENTRIES; i++) drop(blocks[i]);
}
/* Neighbours in the cache, and one that is live. */
static void cached_neighbours(void) {
    uint64_t *blocks[3];
    set_option(BIGCACHE_RESIDENT, (1024 * HAK_MIB));
    drop(make(4 * BIG));
    for (unsigned i = 0; i < 3; i++) blocks[i] = make(BIG);
    left[0] = blocks[1];
    drop(blocks[0]);
    drop(blocks[2]);
}
static void join_big(void) { drop(make(2 * BIG + BIG / 2)); }
static void cut_big(void) { drop(make(HAK_MIB + 64 * HAK_KIB)); }

static void has_grown(void) { must(hak_big_stats().buckets == 512 && hak_big_stats().resizes == 1); }

/* ---- region map, giving back ------------------------------------------------------------------------------------ */

static void purge(void) { hak_purge(); }

static void look_at_left(void) {
    /* It may be gone by now, and somebody else's: any answer will do, but an answer. */
    (void)hak_is_owned(left[0]);
    (void)hak_is_owned((char *)left[0] + HAK_MIB);
}

static void leave_run(void) { left[0] = make(RUN); }
static void drop_and_unmap(void) {
    drop(left[0]);
    hak_purge();
}

#define FAR_AWAY ((char *)((uintptr_t)1 << 40))
static void enter_far(unsigned granule) {
    char *at = FAR_AWAY + granule * HAK_GRANULE;
    must(hak_region_reserve(at, HAK_GRANULE));
    hak_region_set(at, HAK_GRANULE, 16 + granule, HAK_KIND_FREE_SLAB, NULL);
    must(hak_region_lookup(at).owner == 16 + granule);
}
static void enter_far_0(void) { enter_far(0); }
static void enter_far_1(void) { enter_far(1); }
static void far_is_entered(void) {
    must(hak_region_lookup(FAR_AWAY).owner == 16 && hak_region_lookup(FAR_AWAY + HAK_GRANULE).owner == 17);
}

static void idle_slabs(void) {
    leave_small(2);
    drop(make(4 * HAK_KIB));
    hak_thread_flush();
    world_advance_ms(100000);
}
static void decay_slabs(void) { hak_slab_decay(hak_sys_now_ms()); }
static void page_and_drop(void) { drop(make(4 * HAK_KIB)); }

static void idle_superslab(void) {
    small_caches();
    make_one_and_drop();
    hak_thread_flush();
}
static void purge_slabs(void) { hak_slab_purge_all(); }

static void decay_runs(void) { hak_l25_decay(hak_sys_now_ms()); }
static void idle_runs(void) {
    drop(make(RUN));
    left[0] = make(RUN);
    drop(make(RUN));
    world_advance_ms(100000);
    hak_l25_table_tick();
}

static void decay_big(void) { hak_big_decay(hak_sys_now_ms()); }
static void idle_big(void) {
    drop(make(BIG));
    world_advance_ms(100000);
}

/* ---- the shared heap, locks ---------------------------------------------------------------------------------------
 */

/* The thread has no heap any more and gets none. */
static void die_and_make(void) { make_and_drop_two(); }
static void make_then_sum_up(void) {
    make_and_drop_two(); /* only who had a heap can lose it */
    struct hak_front_stats front;
    hak_front_stats(&front);
    must(front.threads <= 3); /* this one, the other, and who runs the kernel */
}

static struct hak_lock tested_lock = HAK_LOCK_INIT(HAK_RANK_META);
static unsigned inside, entered;
static void lock_and_count(void) {
    hak_lock(&tested_lock);
    must(inside++ == 0);
    sched_yield_here();
    entered++;
    inside--;
    hak_unlock(&tested_lock);
}
static void lock_and_count_twice(void) {
    lock_and_count();
    lock_and_count();
}
static void open_lock(void) { inside = entered = 0; }
static void all_entered(void) { must(entered == 4 && hak_load_rlx(&tested_lock.word) == 0); }

/* ---- the table -----------------------------------------------------------------------------------------------------
 */

const struct kernel kernels[] = {
    {.name = "remote_collect",
     .what = "remote frees against the owner's collect",
     .setup = leave_three,
     .program = {.threads = 3, .body = {make_and_drop_two, drop_0, drop_1}, .owner = true},
     .check = drop_2},
    {.name = "remote_two_slabs",
     .what = "remote frees into two slabs of one owner, which both go into its inbox",
     .setup = leave_two_classes,
     .program = {.threads = 3, .body = {make_one_yield_and_drop, drop_0, drop_1}, .owner = true},
     .check = nothing},
    {.name = "remote_full_slab",
     .what = "the first remote frees of a full slab against its owner",
     .setup = leave_full_slab,
     .program = {.threads = 3, .body = {make_one_and_drop, drop_0, drop_1}, .owner = true},
     .check = drop_rest},
    {.name = "exit_remote",
     .what = "a thread's end against remote frees",
     .setup = leave_three,
     .program = {.threads = 3, .body = {nothing, drop_0, drop_1}, .owner = true},
     .check = drop_2},
    {.name = "exit_remote_adopt",
     .what = "a thread's end against a remote free and an adoption",
     .setup = leave_three,
     .program = {.threads = 3, .body = {drop_0, drop_1, make_and_drop_two}, .owner = true},
     .check = drop_2},
    {.name = "exit_first_free",
     .what = "a thread's end, a thread whose first call is free, and an adoption",
     .setup = leave_three,
     .program = {.threads = 3, .body = {drop_0, drop_1_then_make, make_other_then_small}, .owner = true},
     .check = drop_2},
    {.name = "first_free_adopt",
     .what = "a thread whose first call is free against an adoption from the heap that it takes over",
     .setup = leave_parked_three,
     .program = {.threads = 3, .body = {make_one_and_drop, drop_0, drop_1_then_make}, .owner = true},
     .check = drop_2},
    {.name = "first_free_no_bins",
     .what = "the same, where blocks go straight to their slabs",
     .setup = leave_parked_three_without_bins,
     .program = {.threads = 2, .body = {make_one_yield_and_drop, drop_1_then_make}},
     .check = drop_0_and_2},
    {.name = "adopt_adopt",
     .what = "two threads adopt from a thread that ended",
     .setup = leave_three,
     .program = {.threads = 3, .body = {drop_0, make_other_then_small, drop_then_make}, .owner = true},
     .check = drop_1},
    {.name = "keep",
     .what = "a thread's end against threads that keep its blocks, hand them out and flush them",
     .setup = leave_three_to_keep,
     .program = {.threads = 3, .body = {nothing, keep_0, keep_1}, .owner = true},
     .check = drop_2},
    {.name = "shared_heap",
     .what = "threads without a heap against each other and a remote free",
     .setup = leave_three,
     .program = {.threads = 3, .body = {drop_0, drop_1, drop_2}, .afterlife = die_and_make, .owner = true},
     .check = nothing},
    {.name = "shared_heap_appears",
     .what = "the first use of the shared heap against who looks at all heaps",
     .setup = nothing,
     .program = {.threads = 2, .body = {make_and_drop_two, make_then_sum_up}, .afterlife = die_and_make},
     .check = nothing},
    {.name = "adopt_remote",
     .what = "an adoption against remote frees into the heap that it adopts from",
     .setup = leave_parked_three_and_others,
     .program = {.threads = 3, .body = {make_and_drop_two, drop_0, drop_1}, .owner = true},
     .check = drop_2},
    {.name = "lend_back",
     .what = "a heap is lent and fetched back, against remote frees and an adoption",
     .setup = leave_three_seen,
     .program = {.threads = 3, .body = {drop_0_then_make, drop_1_and_lend, make_one_and_drop}, .owner = true},
     .check = drop_2},
    {.name = "lend_adopt",
     .what = "an adoption from a heap that is lent, against its owner and a remote free",
     .setup = leave_three_seen,
     .program = {.threads = 3, .body = {drop_0_then_make, lend_then_make, drop_1}, .owner = true},
     .check = drop_2},
    {.name = "lend_no_bins",
     .what = "the same of a full slab, to which the owner's blocks go straight",
     .setup = leave_full_slab_seen_without_bins,
     .program = {.threads = 2, .body = {drop_0, drop_half_lend_and_keep}, .owner = true},
     .check = drop_wide},
    {.name = "lend_exit",
     .what = "a thread ends while its heap is lent, visited and adopted from",
     .setup = leave_three_seen,
     .program = {.threads = 3, .body = {drop_0, lend_then_drop_1, make_one_and_drop}, .owner = true},
     .check = drop_2},
    {.name = "lend_lend",
     .what = "two threads look for heaps to lend",
     .setup = leave_three_seen,
     .program = {.threads = 3, .body = {drop_0_then_make, lend_then_drop_1, lend_then_make}, .owner = true},
     .check = drop_2},
    {.name = "warm_follow",
     .what = "a thread takes a warm heap over, against who cools it and a remote free",
     .setup = leave_warm,
     .program = {.threads = 3, .body = {make_and_drop_two, hak_heap_lend_all, drop_0}},
     .check = drop_1_and_2},
    {.name = "warm_adopt",
     .what = "an adoption from a warm heap, against who cools it and a remote free",
     .setup = leave_two_warm,
     .program = {.threads = 3, .body = {make_and_drop_two, cool_then_drop_1, drop_0}},
     .check = drop_2},
    {.name = "warm_exit",
     .what = "a thread ends and leaves a block in its bin, against who cools it, and the next",
     .setup = leave_three,
     .program = {.threads = 3, .body = {make_one_warm, cool_then_drop_1, make_and_drop_two}, .owner = true},
     .check = drop_0_and_2},
    {.name = "late_push",
     .what = "a remote free's push against the return of its slab, whose record is used again",
     .setup = leave_parked_two,
     .program = {.threads = 2, .body = {drop_0, drop_1_and_keep_one}},
     .check = drop_2},
    {.name = "late_push_again",
     .what = "the same, and a remote free into the second life of the record",
     .setup = leave_parked_two,
     .program = {.threads = 3, .body = {drop_0, drop_1_and_hand_one_over, have_a_heap_and_drop_handed_over}},
     .check = drop_handed_over},
    {.name = "slab_records",
     .what = "records of slabs: taken and given by two threads",
     .setup = two_slab_records,
     .program = {.threads = 2, .body = {take_and_give, take_two_give_first_take}},
     .check = records_are_distinct},
    {.name = "l25_exchange",
     .what = "allocate and free in one shard",
     .setup = leave_run,
     .program = {.threads = 3, .body = {make_and_drop_run, drop_0, make_and_drop_run}},
     .check = nothing},
    {.name = "l25_share",
     .what = "one shard's runs, cut and joined by two threads",
     .setup = leave_run,
     .program = {.threads = 2, .body = {two_runs, drop_0_then_run}},
     .check = nothing},
    {.name = "l25_expand",
     .what = "the shard table's growth against allocate and free",
     .setup = busy_shards,
     .program = {.threads = 3, .body = {expand_shards, drop_0, use_shard_64}},
     .check = has_expanded},
    {.name = "l25_decay",
     .what = "decay of the L2.5 pool against reuse",
     .setup = idle_runs,
     .program = {.threads = 3, .body = {decay_runs, drop_0_then_run, make_and_drop_run}},
     .check = nothing},
    {.name = "big_two_frees",
     .what = "a block over 1 MiB freed twice at once: one free is the second",
     .setup = leave_big,
     .program = {.threads = 2, .body = {free_big_0, free_big_1}},
     .check = one_was_the_second},
    {.name = "big_exchange",
     .what = "BigCache: put, get, evict",
     .setup = cached_big,
     .program = {.threads = 3, .body = {drop_big, drop_big, drop_big}},
     .check = nothing},
    {.name = "big_realloc",
     .what = "BigCache: a block that grows against put, get and evict",
     .setup = cached_big,
     .program = {.threads = 2, .body = {two_big, grow_big}},
     .check = nothing},
    {.name = "big_grow",
     .what = "BigCache: the table's growth against put and get",
     .setup = nearly_full_table,
     .program = {.threads = 3, .body = {drop_0, drop_1, drop_big}},
     .check = has_grown},
    {.name = "big_join",
     .what = "BigCache: neighbours joined against one that comes back between them",
     .setup = cached_neighbours,
     .program = {.threads = 2, .body = {join_big, drop_0}},
     .check = nothing},
    {.name = "big_reshape",
     .what = "BigCache: neighbours joined against one that is cut",
     .setup = cached_neighbours,
     .program = {.threads = 2, .body = {join_big, cut_big}},
     .check = drop_0},
    {.name = "big_decay",
     .what = "BigCache: decay against put and get",
     .setup = idle_big,
     .program = {.threads = 3, .body = {decay_big, two_big, drop_big}},
     .check = nothing},
    {.name = "region_unmap",
     .what = "region entries that come and go against lookups",
     .setup = leave_run,
     .program = {.threads = 3, .body = {drop_and_unmap, look_at_left, two_big}},
     .check = nothing},
    {.name = "region_leaf",
     .what = "two threads need the same new leaf",
     .setup = nothing,
     .program = {.threads = 2, .body = {enter_far_0, enter_far_1}},
     .check = far_is_entered},
    {.name = "slab_decay",
     .what = "decay of slabs against reuse and remote frees",
     .setup = idle_slabs,
     .program = {.threads = 3, .body = {decay_slabs, drop_0, page_and_drop}},
     .check = drop_1},
    {.name = "superslab_unmap",
     .what = "an empty superslab's return to the system against the next one in its place",
     .setup = idle_superslab,
     .program = {.threads = 2, .body = {purge_slabs, make_and_drop_two}},
     .check = nothing},
    {.name = "slab_purge",
     .what = "purge of everything against use",
     .setup = leave_three,
     .program = {.threads = 3, .body = {purge, make_and_drop_two, drop_0}},
     .check = drop_1_and_2},
    {.name = "lock",
     .what = "three threads at one lock",
     .setup = open_lock,
     .program = {.threads = 3, .body = {lock_and_count_twice, lock_and_count, lock_and_count}},
     .check = all_entered},
};
const size_t kernel_count = sizeof kernels / sizeof *kernels;

/* ---- a run
 * ----------------------------------------------------------------------------------------------------------- */

/* Everything is freed: all invariants hold, nothing is live, and all that is kept for reuse can be given back. */
static void check_all(void) {
    must(hak_heap_check() && hak_superslab_check() && hak_l25_check() && hak_big_check());
    hak_purge();
    must(hak_heap_check() && hak_superslab_check() && hak_l25_check() && hak_big_check());
    struct hak_front_stats front;
    hak_front_stats(&front);
    must(front.live_blocks[0] == 0 && front.live_blocks[1] == 0);
    must(hak_l25_stats().live_blocks == 0 && hak_l25_stats().mapped_bytes == 0);
    must(hak_big_stats().live_blocks == 0 && hak_big_stats().mapped_bytes == 0);
    must(hak_slab_stats().slabs_used == 0 && hak_slab_stats().superslabs == 0);
    /* what is left are leaves of the region map */
    must(hak_pages_stats().mapped_bytes == hak_pages_stats().mappings * sizeof(struct hak_region_leaf));
}

void kernel_run(const struct kernel *kernel, const struct sched_config *config) {
    world_reset();
    backend = config->backend;
    atomic_store_explicit(&stamps, 1, memory_order_relaxed);
    kernel->setup();
    sched_run(config, &kernel->program);
    kernel->check();
    check_all();
}
