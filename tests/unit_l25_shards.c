/* The shard table of the L2.5 pool: when it doubles, what it logs, and that no block or chunk is lost over it. */
#include "support/child.h"
#include "support/stores.h"

#include <pthread.h>
#include <stdlib.h>

#include "hakmem.h"
#include "stores/l25.h"
#include "stores/l25_table.h"

#define SLICE HAK_SLICE_BYTES

static uint64_t now_ms;

static void advance(uint64_t ms) { hak_sys_set_now_for_test(now_ms += ms); }

static int fresh_table(void **state) {
    (void)state;
    advance(100000);
    set_option(LOG, 1);
    set_option(L25_SHARDS_MIN, 64);
    set_option(L25_SHARDS_MAX, 1024);
    set_option(L25_LOAD, 1000);
    set_option(L25_CONTENTION, 5);
    set_option(L25_CHECK_MS, 1000);
    return 0;
}

static int drained_table(void **state) {
    (void)state;
    end_capture();
    hak_l25_purge_all();
    struct hak_l25_stats stats = hak_l25_stats();
    bool empty = hak_l25_check() && stats.mapped_bytes == 0 && stats.live_bytes == 0 && stats.live_blocks == 0;
    hak_l25_reset_for_test();
    hak_sys_set_now_for_test(now_ms);
    return empty ? 0 : -1;
}

/* So many requests, all to the shard of one lane. */
static void request(uint32_t lane, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        struct hak_block block = hak_l25_alloc(SLICE, 16, lane);
        assert_non_null(block.ptr);
        assert_int_equal(hak_l25_free(descriptor_of(block.ptr), block.ptr), HAK_FREE_OK);
    }
}

static void assert_logged(const char *expected) {
    char text[4096];
    captured_stderr(text, sizeof text);
    assert_string_equal(text, expected);
}

static void the_table_starts_with_the_shards_the_option_says(void **state) {
    (void)state;
    static const uint32_t counts[][2] = {{1, 1},    {2, 2},     {3, 2},      {64, 64},
                                         {100, 64}, {128, 128}, {1000, 512}, {1024, 1024}};
    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
        set_option(L25_SHARDS_MIN, counts[i][0]);
        request(4711, 1);
        assert_int_equal(hak_l25_stats().shards, counts[i][1]);
        assert_int_equal(hak_l25_stats().expansions, 0);
        hak_l25_reset_for_test();
    }
}

static void more_load_than_the_threshold_doubles_the_table_and_says_so(void **state) {
    (void)state;
    set_option(L25_LOAD, 10);
    capture_stderr();
    request(0, 64 * 11 - 1);
    assert_int_equal(hak_l25_stats().shards, 64); /* the interval is not over */
    advance(999);
    request(0, 1);
    assert_int_equal(hak_l25_stats().shards, 64);
    request(0, 63);
    advance(1);
    request(0, 1); /* the 768th request, 12 for each shard */
    assert_int_equal(hak_l25_stats().shards, 128);
    assert_int_equal(hak_l25_stats().expansions, 1);
    assert_int_equal(hak_l25_stats().requests, 768);
    assert_logged("[L2.5_POOL] High load detected (avg=12), expanding shards\n[L2.5_POOL] Expanded shards: 64 → 128\n");
}

static void load_at_the_threshold_changes_nothing_and_each_interval_counts_alone(void **state) {
    (void)state;
    set_option(L25_LOAD, 10);
    capture_stderr();
    for (unsigned i = 0; i < 5; i++) {
        request(0, 64 * 10 - 1);
        advance(1000);
        request(0, 1);
    }
    assert_int_equal(hak_l25_stats().shards, 64);
    assert_logged("");
}

static void the_table_doubles_up_to_the_limit_and_stays_there(void **state) {
    (void)state;
    set_option(L25_LOAD, 1);
    capture_stderr();
    for (uint32_t shards = 64; shards <= 4096; shards *= 2) {
        request(0, 2 * shards - 1);
        advance(1000);
        request(0, 1);
        assert_int_equal(hak_l25_stats().shards, shards < 512 ? shards * 2 : 1024);
    }
    assert_int_equal(hak_l25_stats().expansions, 4);
    assert_logged(
        "[L2.5_POOL] High load detected (avg=2), expanding shards\n[L2.5_POOL] Expanded shards: 64 → 128\n"
        "[L2.5_POOL] High load detected (avg=2), expanding shards\n[L2.5_POOL] Expanded shards: 128 → 256\n"
        "[L2.5_POOL] High load detected (avg=2), expanding shards\n[L2.5_POOL] Expanded shards: 256 → 512\n"
        "[L2.5_POOL] High load detected (avg=2), expanding shards\n[L2.5_POOL] Expanded shards: 512 → 1024\n");
}

static void the_table_stops_at_the_shards_the_option_says(void **state) {
    (void)state;
    static const uint32_t most[][2] = {{64, 64}, {100, 64}, {128, 128}, {256, 256}, {1000, 512}};
    set_option(L25_LOAD, 1);
    set_option(LOG, 0);
    for (unsigned i = 0; i < sizeof most / sizeof *most; i++) {
        set_option(L25_SHARDS_MAX, most[i][0]);
        for (unsigned interval = 0; interval < 5; interval++) {
            request(0, 2 * 1024 - 1);
            advance(1000);
            request(0, 1);
        }
        assert_int_equal(hak_l25_stats().shards, most[i][1]);
        hak_l25_purge_all();
        hak_l25_reset_for_test();
    }
}

static void the_interval_is_as_long_as_the_option_says(void **state) {
    (void)state;
    static const uint64_t lengths[] = {1, 5000, 3600000};
    set_option(L25_LOAD, 1);
    set_option(LOG, 0);
    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        set_option(L25_CHECK_MS, lengths[i]);
        request(0, 1023);
        advance(lengths[i] - 1);
        request(0, 1);
        assert_int_equal(hak_l25_stats().shards, 64);
        request(0, 63);
        advance(1);
        request(0, 1);
        assert_int_equal(hak_l25_stats().shards, 128);
        hak_l25_purge_all();
        hak_l25_reset_for_test();
    }
}

/* Only every 64th request of a shard looks at the clock; no free and no resize does. */
static void the_clock_is_read_on_the_slow_path_only(void **state) {
    (void)state;
    request(0, 1);
    const uint64_t seen = hak_load_rlx(&hak_l25_clock_ms);
    struct hak_block block = hak_l25_alloc(SLICE, 16, 0);
    size_t usable;
    advance(50);
    request(0, 61);
    assert_true(hak_l25_resize(descriptor_of(block.ptr), block.ptr, 2 * SLICE, &usable));
    assert_int_equal(hak_l25_free(descriptor_of(block.ptr), block.ptr), HAK_FREE_OK);
    assert_int_equal(hak_load_rlx(&hak_l25_clock_ms), seen);
    request(0, 1); /* the 64th */
    assert_int_equal(hak_load_rlx(&hak_l25_clock_ms), seen + 50);
}

static void the_fixed_variant_never_grows(void **state) {
    (void)state;
    set_option(L25_LOAD, 1);
    set_option(L25_SHARDS_MAX, 64);
    capture_stderr();
    for (unsigned i = 0; i < 4; i++) {
        request(0, 999);
        advance(1000);
        request(0, 64);
    }
    assert_int_equal(hak_l25_stats().shards, 64);
    assert_logged("");
}

static void a_table_below_64_shards_grows_within_its_first_block(void **state) {
    (void)state;
    set_option(L25_LOAD, 1);
    set_option(L25_SHARDS_MIN, 2);
    set_option(L25_SHARDS_MAX, 128);
    capture_stderr();
    for (uint32_t shards = 2; shards < 128; shards *= 2) {
        request(0, 2 * 64 * 2 - 1);
        advance(1000);
        request(0, 1);
        assert_int_equal(hak_l25_stats().shards, shards * 2);
    }
    char text[2048];
    captured_stderr(text, sizeof text);
    assert_non_null(strstr(text, "(avg=128), expanding shards\n[L2.5_POOL] Expanded shards: 2 → 4\n"));
    assert_non_null(strstr(text, "[L2.5_POOL] Expanded shards: 32 → 64\n"));
}

static void without_memory_for_more_shards_the_table_stays_as_it_is(void **state) {
    (void)state;
    set_option(L25_LOAD, 1);
    set_option(L25_SHARDS_MIN, 512); /* the 512 more take a mapping of their own */
    capture_stderr();
    request(0, 1023);
    advance(1000);
    set_faults(1, true, HAK_SYS_MAP);
    request(0, 1);
    set_faults(0, false, -1);
    assert_int_equal(hak_l25_stats().shards, 512);
    request(0, 1023);
    advance(1000);
    request(0, 1);
    assert_int_equal(hak_l25_stats().shards, 1024);
    assert_int_equal(hak_l25_stats().expansions, 1);
    assert_logged(
        "[L2.5_POOL] High load detected (avg=2), expanding shards\n[L2.5_POOL] Expanded shards: 512 → 1024\n");
}

/* ---- contention ---- */

static pthread_barrier_t held, release;

static void *hold_shard(void *argument) {
    struct hak_l25_shard *shard = argument;
    hak_lock(&shard->lock);
    pthread_barrier_wait(&held);
    pthread_barrier_wait(&release);
    hak_unlock(&shard->lock);
    return NULL;
}

static void a_shard_that_is_busy_is_passed_over_and_counted(void **state) {
    (void)state;
    struct hak_block first = hak_l25_alloc(SLICE, 16, 0), second;
    pthread_t thread;
    pthread_barrier_init(&held, NULL, 2);
    pthread_barrier_init(&release, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, hold_shard, hak_l25_table_shard(0)), 0);
    pthread_barrier_wait(&held);
    second = hak_l25_alloc(SLICE, 16, 1); /* shard 0 has room but is busy: shard 1 gets a chunk */
    assert_non_null(second.ptr);
    assert_ptr_not_equal(descriptor_of(second.ptr), descriptor_of(first.ptr));
    assert_int_equal(hak_l25_stats().lock_misses, 1);
    struct hak_block third = hak_l25_alloc(SLICE, 16, 0); /* passes its own shard over, and finds shard 1 */
    assert_ptr_equal(descriptor_of(third.ptr), descriptor_of(second.ptr));
    assert_int_equal(hak_l25_stats().lock_misses, 2);
    pthread_barrier_wait(&release);
    pthread_join(thread, NULL);
    assert_int_equal(hak_l25_free(descriptor_of(first.ptr), first.ptr), HAK_FREE_OK);
    assert_int_equal(hak_l25_free(descriptor_of(second.ptr), second.ptr), HAK_FREE_OK);
    assert_int_equal(hak_l25_free(descriptor_of(third.ptr), third.ptr), HAK_FREE_OK);
}

enum { LARGE_THREADS = 8, LARGE_BLOCKS = 16 };
static pthread_barrier_t all_live;

/* More than the chunks of others have room for, so that the thread's own shard gets some. */
static void *use_large_blocks_only(void *argument) {
    void *blocks[LARGE_BLOCKS];
    (void)argument;
    for (unsigned i = 0; i < LARGE_BLOCKS; i++) blocks[i] = hak_malloc(HAK_L25_MAX - HAK_KIB);
    pthread_barrier_wait(&all_live);
    pthread_barrier_wait(&all_live);
    for (unsigned i = 0; i < LARGE_BLOCKS; i++) hak_free(blocks[i]);
    return NULL;
}

static uint32_t shards_with_chunks(void) {
    uint32_t shards = 0;
    for (uint32_t i = 0; (i = hak_l25_table_next(i, hak_l25_table_count())) < hak_l25_table_count(); i++) shards++;
    return shards;
}

/* At least two of eight: the odds against it are one in 64 to the seventh. */
static void threads_that_use_nothing_but_large_blocks_have_different_shards(void **state) {
    (void)state;
    pthread_t threads[LARGE_THREADS];
    pthread_barrier_init(&all_live, NULL, LARGE_THREADS + 1);
    for (unsigned i = 0; i < LARGE_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_large_blocks_only, NULL), 0);
    pthread_barrier_wait(&all_live);
    uint32_t shards = shards_with_chunks();
    pthread_barrier_wait(&all_live);
    for (unsigned i = 0; i < LARGE_THREADS; i++) pthread_join(threads[i], NULL);
    assert_in_range(shards, 2, LARGE_THREADS);
}

/* Dirty slices of a chunk that nobody touches any more are purged at their age, also by a thread whose blocks
 * are all large. */
static void *let_memory_decay(void *purged) {
    void *old = hak_malloc(HAK_L25_MAX - HAK_KIB);
    hak_free(old);
    advance(hak_option(PURGE_DELAY_MS));
    for (unsigned i = 0; i < 64; i++) hak_free(hak_malloc(2 * HAK_MIB));
    *(uint64_t *)purged = hak_l25_stats().purged_bytes;
    return NULL;
}

static void a_thread_that_uses_nothing_but_large_blocks_lets_free_memory_decay(void **state) {
    (void)state;
    pthread_t thread;
    uint64_t purged = 0;
    assert_int_equal(pthread_create(&thread, NULL, let_memory_decay, &purged), 0);
    pthread_join(thread, NULL);
    assert_int_equal(purged, HAK_L25_MAX);
}

enum { FIRST_HELD = 2, MOST_HELD = 3 };

/* Holds the first `*argument` shards from FIRST_HELD on. */
static void *hold_shards(void *argument) HAK_NO_TSA {
    const unsigned count = *(const unsigned *)argument;
    for (unsigned i = 0; i < count; i++) hak_lock(&hak_l25_table_shard(FIRST_HELD + i)->lock);
    pthread_barrier_wait(&held);
    pthread_barrier_wait(&release);
    for (unsigned i = count; i-- > 0;) hak_unlock(&hak_l25_table_shard(FIRST_HELD + i)->lock);
    return NULL;
}

/* A block for lane 1, which has no room of its own, while so many shards behind it are busy. */
static struct hak_block alloc_past_busy_shards(unsigned busy) {
    pthread_t thread;
    pthread_barrier_init(&held, NULL, 2);
    pthread_barrier_init(&release, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, hold_shards, &busy), 0);
    pthread_barrier_wait(&held);
    struct hak_block block = hak_l25_alloc(SLICE, 16, 1);
    pthread_barrier_wait(&release);
    pthread_join(thread, NULL);
    return block;
}

static struct hak_l25_shard *shard_of(struct hak_block block) {
    return ((struct hak_l25_chunk *)descriptor_of(block.ptr))->shard;
}

static void give(struct hak_block block) {
    assert_int_equal(hak_l25_free(descriptor_of(block.ptr), block.ptr), HAK_FREE_OK);
}

enum { BLOCKS_OF_CHUNK = HAK_CHUNK_BYTES / HAK_L25_MAX };

/* Else all whose own shard is empty, as most are after an expansion, would meet at the few that are not, for ever; but
 * one that is busy for a moment is no reason for another chunk. */
static void who_has_no_room_passes_over_two_busy_shards_and_gets_some_at_the_third(void **state) {
    (void)state;
    struct hak_block blocks[MOST_HELD + 1][BLOCKS_OF_CHUNK];
    for (uint32_t i = 0; i <= MOST_HELD; i++) { /* all before are full: each shard gets a chunk of its own */
        for (unsigned j = 0; j < BLOCKS_OF_CHUNK; j++) blocks[i][j] = hak_l25_alloc(HAK_L25_MAX, 16, FIRST_HELD + i);
        assert_ptr_equal(shard_of(blocks[i][0]), hak_l25_table_shard(FIRST_HELD + i));
    }
    for (uint32_t i = 0; i <= MOST_HELD; i++) give(blocks[i][0]);
    struct hak_block behind_two = alloc_past_busy_shards(MOST_HELD - 1);
    struct hak_block own = alloc_past_busy_shards(MOST_HELD);
    assert_ptr_equal(shard_of(behind_two), hak_l25_table_shard(FIRST_HELD + MOST_HELD - 1));
    assert_ptr_equal(shard_of(own), hak_l25_table_shard(1));
    assert_int_equal(hak_l25_stats().lock_misses, MOST_HELD - 1 + MOST_HELD);
    request(1, 100);
    assert_int_equal(hak_load_rlx(&hak_l25_table_shard(1)->served_blocks), 101);
    give(behind_two);
    give(own);
    for (uint32_t i = 0; i <= MOST_HELD; i++)
        for (unsigned j = 1; j < BLOCKS_OF_CHUNK; j++) give(blocks[i][j]);
}

/* Lets the shard go only when somebody has met it. */
static void *hold_shard_until_missed(void *argument) {
    struct hak_l25_shard *shard = argument;
    hak_lock(&shard->lock);
    pthread_barrier_wait(&held);
    while (hak_l25_stats().lock_misses == 0) usleep(100);
    hak_unlock(&shard->lock);
    return NULL;
}

static struct hak_block alloc_while_busy(uint32_t busy, uint32_t lane) {
    pthread_t thread;
    pthread_barrier_init(&held, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, hold_shard_until_missed, hak_l25_table_shard(busy)), 0);
    pthread_barrier_wait(&held);
    struct hak_block block = hak_l25_alloc(SLICE, 16, lane);
    pthread_join(thread, NULL);
    return block;
}

static void where_no_other_has_room_the_own_busy_shard_is_awaited(void **state) {
    (void)state;
    struct hak_block first = hak_l25_alloc(SLICE, 16, 0), second = alloc_while_busy(0, 0);
    assert_ptr_equal(descriptor_of(second.ptr), descriptor_of(first.ptr));
    assert_int_equal(hak_l25_stats().mapped_bytes, HAK_CHUNK_BYTES);
    assert_int_equal(hak_l25_free(descriptor_of(first.ptr), first.ptr), HAK_FREE_OK);
    assert_int_equal(hak_l25_free(descriptor_of(second.ptr), second.ptr), HAK_FREE_OK);
}

static void without_memory_any_busy_shard_is_awaited(void **state) {
    (void)state;
    struct hak_block first = hak_l25_alloc(SLICE, 16, 5);
    set_faults(1, true, HAK_SYS_MAP);
    struct hak_block second = alloc_while_busy(5, 0);
    set_faults(0, false, -1);
    assert_non_null(second.ptr);
    assert_int_equal(hak_l25_free(descriptor_of(first.ptr), first.ptr), HAK_FREE_OK);
    assert_int_equal(hak_l25_free(descriptor_of(second.ptr), second.ptr), HAK_FREE_OK);
}

/* `misses` of the `misses` + 2 * `requests` try-locks of an interval fail. */
static void contend(unsigned requests, unsigned misses) {
    struct hak_block first = hak_l25_alloc(SLICE, 16, 0), second;
    pthread_t thread;
    pthread_barrier_init(&held, NULL, 2);
    pthread_barrier_init(&release, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, hold_shard, hak_l25_table_shard(0)), 0);
    pthread_barrier_wait(&held);
    second = hak_l25_alloc(SLICE, 16, 1); /* one miss */
    request(0, misses - 1);
    request(1, requests - misses);
    pthread_barrier_wait(&release);
    pthread_join(thread, NULL);
    advance(1000);
    request(1, 64);
    hak_l25_free(descriptor_of(first.ptr), first.ptr);
    hak_l25_free(descriptor_of(second.ptr), second.ptr);
}

static void failed_try_locks_over_the_threshold_double_the_table(void **state) {
    (void)state;
    capture_stderr();
    contend(640, 100); /* 100 of about 1,500: 6 % */
    assert_int_equal(hak_l25_stats().lock_misses, 100);
    assert_int_equal(hak_l25_stats().shards, 128);
    assert_logged(
        "[L2.5_POOL] High contention detected (6%), expanding shards\n[L2.5_POOL] Expanded shards: 64 → 128\n");
}

static void failed_try_locks_below_the_threshold_change_nothing(void **state) {
    (void)state;
    capture_stderr();
    contend(640, 60); /* 4 % */
    assert_int_equal(hak_l25_stats().lock_misses, 60);
    assert_int_equal(hak_l25_stats().shards, 64);
    assert_logged("");
}

static void the_threshold_of_contention_is_an_option(void **state) {
    (void)state;
    capture_stderr();
    set_option(L25_CONTENTION, 6);
    contend(640, 100); /* 6 % */
    assert_int_equal(hak_l25_stats().shards, 64);
    assert_logged("");
    capture_stderr();
    set_option(L25_CONTENTION, 1);
    contend(640, 40); /* 2 % */
    assert_int_equal(hak_l25_stats().shards, 128);
    assert_logged(
        "[L2.5_POOL] High contention detected (2%), expanding shards\n[L2.5_POOL] Expanded shards: 64 → 128\n");
}

static void a_few_try_locks_are_no_contention(void **state) {
    (void)state;
    capture_stderr();
    contend(30, 20); /* with those that end the interval, 20 of about 200 */
    assert_int_equal(hak_l25_stats().lock_misses, 20);
    assert_int_equal(hak_l25_stats().shards, 64);
    assert_logged("");
}

/* ---- blocks over expansions ---- */

static void blocks_from_before_an_expansion_are_freed_after_it_and_every_chunk_returns(void **state) {
    (void)state;
    enum { LANES = 512 };
    static char *blocks[5][LANES];
    set_option(L25_LOAD, 1);
    set_option(LOG, 0);
    for (unsigned round = 0; round < 5; round++) {
        for (uint32_t lane = 0; lane < LANES; lane++) {
            struct hak_block block = hak_l25_alloc((lane % 16 + 1) * SLICE, 16, lane * 2654435761U);
            blocks[round][lane] = block.ptr;
            stamp(block.ptr);
        }
        advance(1000);
        request(0, 4096);
        assert_int_equal(hak_l25_stats().shards, round < 4 ? 128U << round : 1024);
    }
    for (unsigned round = 0; round < 5; round++)
        for (uint32_t lane = 0; lane < LANES; lane++) {
            char *ptr = blocks[round][lane];
            assert_true(is_stamped(ptr));
            assert_int_equal(hak_l25_free(descriptor_of(ptr), ptr), HAK_FREE_OK);
            assert_int_equal(hak_l25_free(descriptor_of(ptr), ptr), HAK_FREE_DOUBLE);
        }
}

/* A thread that allocates and frees in every lane, in the middle of an expansion: called where the system is asked for
 * the memory of the shards to come. Were one of these calls to wait for the expansion, neither would ever end. */
static char *blocks_before[64];
static unsigned meetings;

static void *use_every_lane(void *argument) {
    (void)argument;
    must(hak_l25_stats().shards == 512);
    for (uint32_t lane = 0; lane < 1024; lane++) {
        struct hak_block block = hak_l25_alloc(SLICE, 16, lane);
        must(block.ptr != NULL);
        must(hak_l25_free(descriptor_of(block.ptr), block.ptr) == HAK_FREE_OK);
    }
    for (unsigned i = 0; i < 32; i++) {
        must(is_stamped(blocks_before[i]));
        must(hak_l25_free(descriptor_of(blocks_before[i]), blocks_before[i]) == HAK_FREE_OK);
    }
    return NULL;
}

static int meet_expansion(enum hak_sys_call call, size_t bytes) {
    pthread_t thread;
    if (call != HAK_SYS_MAP || bytes != 512 * sizeof(struct hak_l25_shard) || meetings++ != 0) return 0;
    must(pthread_create(&thread, NULL, use_every_lane, NULL) == 0 && pthread_join(thread, NULL) == 0);
    return 0;
}

static void allocations_and_frees_do_not_wait_for_an_expansion(void **state) {
    (void)state;
    set_option(L25_LOAD, 1);
    set_option(LOG, 0);
    set_option(L25_SHARDS_MIN, 512);
    meetings = 0;
    for (uint32_t i = 0; i < 64; i++) {
        blocks_before[i] = hak_l25_alloc(SLICE, 16, i * 8).ptr;
        stamp(blocks_before[i]);
    }
    request(0, 2048);
    advance(1000);
    hak_sys_set_fault_for_test(meet_expansion);
    request(0, 64);
    hak_sys_set_fault_for_test(NULL);
    assert_int_equal(meetings, 1);
    assert_int_equal(hak_l25_stats().shards, 1024);
    for (unsigned i = 32; i < 64; i++) {
        assert_true(is_stamped(blocks_before[i]));
        assert_int_equal(hak_l25_free(descriptor_of(blocks_before[i]), blocks_before[i]), HAK_FREE_OK);
    }
}

/* By age, too: the shards from before an expansion are not forgotten. */
static void the_chunks_of_every_shard_are_unmapped_at_their_age(void **state) {
    (void)state;
    enum { ROUNDS = 5, LANES = 8 };
    struct hak_block blocks[ROUNDS][LANES];
    set_option(L25_LOAD, 1);
    set_option(LOG, 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < LANES; i++) blocks[round][i] = hak_l25_alloc(HAK_L25_MAX, 16, i * (8U << round));
        advance(1000);
        request(0, 2048);
    }
    assert_int_equal(hak_l25_stats().shards, 1024);
    for (unsigned i = 0; i < ROUNDS * LANES; i++) {
        struct hak_block block = blocks[i / LANES][i % LANES];
        assert_int_equal(hak_l25_free(descriptor_of(block.ptr), block.ptr), HAK_FREE_OK);
    }
    advance(hak_option(UNMAP_DELAY_MS));
    hak_l25_decay(now_ms);
    assert_int_equal(hak_l25_stats().mapped_bytes, 0);
}

/* ---- threads ---- */

enum { THREADS = 8, SLOTS = 64 };
static _Atomic(char *) slots[SLOTS];
static _Atomic unsigned failures, served;

/* Whoever finds a block in a slot frees it. Goes on until the table has grown, which takes a millisecond for each step.
 */
static void *churn(void *argument) {
    uint64_t random = (uintptr_t)argument;
    bool grown = false;
    for (unsigned i = 0; i < 8000 || !grown; i++) {
        if (i % 64 == 0) grown = hak_l25_stats().shards >= 64;
        atomic_fetch_add(&served, 1);
        struct hak_block block = hak_l25_alloc(1 + next_random(&random) % HAK_L25_MAX, 16, (uint32_t)random);
        if (block.ptr != NULL) stamp(block.ptr);
        else atomic_fetch_add(&failures, 1);
        char *old = atomic_exchange(&slots[next_random(&random) % SLOTS], block.ptr);
        if (old == NULL) continue;
        if (!is_stamped(old)) atomic_fetch_add(&failures, 1);
        size_t usable;
        if (i % 16 == 0) hak_l25_resize(descriptor_of(old), old, 1 + next_random(&random) % HAK_L25_MAX, &usable);
        if (hak_l25_free(descriptor_of(old), old) != HAK_FREE_OK) atomic_fetch_add(&failures, 1);
        if (i % 512 == 0) hak_l25_decay(hak_sys_now_ms());
        if (i % 1024 == 0 && !hak_l25_check()) atomic_fetch_add(&failures, 1);
    }
    return NULL;
}

static void threads_exchange_blocks_while_the_table_grows(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    hak_sys_set_now_for_test(0);
    set_option(LOG, 0);
    set_option(L25_SHARDS_MIN, 1);
    set_option(L25_LOAD, 1);
    set_option(L25_CHECK_MS, 1);
    set_option(PURGE_DELAY_MS, 1);
    set_option(UNMAP_DELAY_MS, 3);
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, churn, (void *)(i + 1));
    for (unsigned i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    set_option(PURGE_DELAY_MS, 500);
    set_option(UNMAP_DELAY_MS, 5000);
    for (unsigned i = 0; i < SLOTS; i++) {
        char *left = atomic_exchange(&slots[i], NULL);
        if (left != NULL) assert_int_equal(hak_l25_free(descriptor_of(left), left), HAK_FREE_OK);
    }
    assert_int_equal(atomic_load(&failures), 0);
    assert_in_range(hak_l25_stats().shards, 64, 1024);
    assert_int_equal(hak_l25_stats().served_blocks, atomic_load(&served));
}

#define test(name) cmocka_unit_test_setup_teardown(name, fresh_table, drained_table)

int main(void) {
    const struct CMUnitTest tests[] = {
        test(the_table_starts_with_the_shards_the_option_says),
        test(more_load_than_the_threshold_doubles_the_table_and_says_so),
        test(load_at_the_threshold_changes_nothing_and_each_interval_counts_alone),
        test(the_table_doubles_up_to_the_limit_and_stays_there),
        test(the_table_stops_at_the_shards_the_option_says),
        test(the_interval_is_as_long_as_the_option_says),
        test(the_clock_is_read_on_the_slow_path_only),
        test(the_fixed_variant_never_grows),
        test(a_table_below_64_shards_grows_within_its_first_block),
        test(without_memory_for_more_shards_the_table_stays_as_it_is),
        test(a_shard_that_is_busy_is_passed_over_and_counted),
        test(threads_that_use_nothing_but_large_blocks_have_different_shards),
        test(a_thread_that_uses_nothing_but_large_blocks_lets_free_memory_decay),
        test(who_has_no_room_passes_over_two_busy_shards_and_gets_some_at_the_third),
        test(where_no_other_has_room_the_own_busy_shard_is_awaited),
        test(without_memory_any_busy_shard_is_awaited),
        test(failed_try_locks_over_the_threshold_double_the_table),
        test(failed_try_locks_below_the_threshold_change_nothing),
        test(the_threshold_of_contention_is_an_option),
        test(a_few_try_locks_are_no_contention),
        test(blocks_from_before_an_expansion_are_freed_after_it_and_every_chunk_returns),
        test(allocations_and_frees_do_not_wait_for_an_expansion),
        test(the_chunks_of_every_shard_are_unmapped_at_their_age),
        test(threads_exchange_blocks_while_the_table_grows),
    };
    alarm(600);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
