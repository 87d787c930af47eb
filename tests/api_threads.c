/* Threads that hand blocks to each other, start and end in between, while others read statistics and purge. Whoever
 * takes a block checks that its content is what the giver wrote, then frees or resizes it. */
#include "support/prefixed.h"

#include <time.h>

/* ---- blocks on their way ------------------------------------------------------------------------------------ */

/* A block begins with its size and a seed; its end shows that nobody else wrote to it. */
struct parcel {
    size_t bytes;
    uint64_t seed;
};

static struct parcel *wrap(uint64_t *random) {
    size_t bytes = random_size(random) + sizeof(struct parcel);
    uint64_t how = next_random(random);
    struct parcel *parcel = how % 16 == 0   ? hak_calloc(1, bytes)
                            : how % 16 == 1 ? hak_aligned_alloc(1024, bytes)
                                            : hak_malloc(bytes);
    must(parcel != NULL);
    if (how % 16 == 0) must(is_zero(parcel, bytes));
    *parcel = (struct parcel){.bytes = bytes, .seed = next_random(random)};
    fill(parcel + 1, bytes - sizeof *parcel, parcel->seed);
    return parcel;
}

static void unwrap(struct parcel *parcel, uint64_t *random) {
    if (parcel == NULL) return;
    size_t rest = parcel->bytes - sizeof *parcel;
    must(is_filled(parcel + 1, rest, parcel->seed));
    if (next_random(random) % 8 == 0) {
        size_t bytes = random_size(random) + sizeof *parcel;
        parcel = hak_realloc(parcel, bytes);
        must(parcel != NULL);
        must(keeps(parcel + 1, bytes - sizeof *parcel, rest, parcel->seed));
    }
    hak_free(parcel);
}

#define SHELVES 64
static struct parcel *_Atomic shelves[SHELVES];

static void clear_shelves(void) {
    uint64_t random = 1;
    for (unsigned i = 0; i < SHELVES; i++) unwrap(atomic_exchange(&shelves[i], NULL), &random);
}

/* Puts a block on a shelf and takes what lay there, which most often is another thread's. */
static void trade(uint64_t *random) {
    struct parcel *mine = wrap(random);
    unwrap(atomic_exchange(&shelves[next_random(random) % SHELVES], mine), random);
}

struct trader {
    uint64_t random;
    unsigned trades;
};

static void *trade_many(void *argument) {
    struct trader *trader = argument;
    for (unsigned i = 0; i < trader->trades; i++) trade(&trader->random);
    return NULL;
}

static void trade_with(unsigned threads, unsigned trades) {
    pthread_t thread[8];
    struct trader trader[8];
    for (unsigned i = 0; i < threads; i++) {
        trader[i] = (struct trader){.random = i, .trades = trades};
        start_thread(&thread[i], trade_many, &trader[i]);
    }
    for (unsigned i = 0; i < threads; i++) must(pthread_join(thread[i], NULL) == 0);
}

static uint64_t live_blocks(void) {
    struct hak_stats stats = stats_now();
    uint64_t live = 0;
    for (int i = 0; i < HAK_LAYER_COUNT; i++) live += stats.layer[i].live_blocks;
    return live;
}

/* All threads have ended and every block was freed: none may count as live, and all memory can go. */
static void nothing_is_left(uint64_t live_before) {
    clear_shelves();
    hak_purge();
    assert_int_equal(live_blocks(), live_before);
}

static void blocks_change_hands_between_2_4_and_8_threads(void **state) {
    (void)state;
    uint64_t before = live_blocks();
    for (unsigned threads = 2; threads <= 8; threads *= 2) {
        trade_with(threads, rounds(6000 / threads, 200));
        nothing_is_left(before);
    }
    assert_true(stats_now().remote_frees > 0);
}

static void *trade_in_waves(void *argument) {
    struct trader *trader = argument;
    pthread_t thread[2];
    struct trader part[2];
    for (unsigned wave = 0; wave < trader->trades; wave++) {
        for (unsigned i = 0; i < 2; i++) {
            part[i] = (struct trader){.random = next_random(&trader->random), .trades = 20};
            start_thread(&thread[i], trade_many, &part[i]);
        }
        trade_many(&(struct trader){.random = wave, .trades = 10});
        for (unsigned i = 0; i < 2; i++) must(pthread_join(thread[i], NULL) == 0);
    }
    return NULL;
}

static void threads_start_and_end_while_others_trade(void **state) {
    (void)state;
    uint64_t before = live_blocks();
    pthread_t thread[3];
    struct trader trader[3];
    for (unsigned i = 0; i < 3; i++) {
        trader[i] = (struct trader){.random = 77 + i, .trades = rounds(25, 100)};
        start_thread(&thread[i], trade_in_waves, &trader[i]);
    }
    for (unsigned i = 0; i < 3; i++) must(pthread_join(thread[i], NULL) == 0);
    nothing_is_left(before);
    assert_true(stats_now().heaps_parked >= 2);
}

/* ---- what an ended thread leaves --------------------------------------------------------------------------- */

#define LEFT 3000
#define LEFT_BYTES 200
static unsigned char *left[LEFT];

static void *leave_blocks(void *argument) {
    for (unsigned i = 0; i < LEFT; i++) {
        left[i] = hak_malloc(LEFT_BYTES);
        must(left[i] != NULL);
        fill(left[i], LEFT_BYTES, i);
    }
    if (argument == NULL) return NULL;
    for (unsigned i = 0; i < LEFT; i += 2) { /* holes, so that the slabs are worth adopting */
        hak_free(left[i]);
        left[i] = NULL;
    }
    return NULL;
}

static void free_what_was_left(void) {
    for (unsigned i = 0; i < LEFT; i++) {
        if (left[i] != NULL) assert_true(is_filled(left[i], LEFT_BYTES, i));
        hak_free(left[i]);
    }
}

static void blocks_of_an_ended_thread_are_freed_into_its_parked_heap(void **state) {
    (void)state;
    hak_purge();
    uint64_t live = live_blocks(), slabs = stats_now().slabs, remote = stats_now().remote_frees;
    run_thread(leave_blocks, NULL);
    assert_int_equal(live_blocks(), live + LEFT);
    assert_true(stats_now().slabs >= slabs + LEFT * LEFT_BYTES / (64 * KIB));
    free_what_was_left();
    hak_thread_flush();
    assert_int_equal(live_blocks(), live);
    assert_int_equal(stats_now().remote_frees, remote + LEFT);
    hak_purge(); /* else some blocks wait in the parked heap for the next thread */
    assert_true(stats_now().slabs <= slabs);
}

static void *stay(void *argument) {
    _Atomic int *step = argument;
    hak_free(hak_malloc(1));
    atomic_store(step, 1);
    while (atomic_load(step) != 2) usleep(1000);
    for (unsigned i = 0; i < LEFT / 4; i++) {
        unsigned char *ptr = hak_malloc(LEFT_BYTES);
        must(ptr != NULL);
        fill(ptr, LEFT_BYTES, i);
        must(is_filled(ptr, LEFT_BYTES, i));
        hak_free(ptr);
        left[2 * i] = hak_malloc(LEFT_BYTES);
        must(left[2 * i] != NULL);
        fill(left[2 * i], LEFT_BYTES, 2 * i);
    }
    return NULL;
}

static void slabs_of_an_ended_thread_are_adopted_before_memory_is_asked_for(void **state) {
    (void)state;
    _Atomic int step = 0;
    pthread_t thread;
    hak_purge();
    start_thread(&thread, stay, &step); /* has a heap of its own before the other one is parked */
    while (atomic_load(&step) != 1) usleep(1000);
    run_thread(leave_blocks, &step);
    struct hak_stats before = stats_now();
    atomic_store(&step, 2);
    must(pthread_join(thread, NULL) == 0);
    struct hak_stats after = stats_now();
    assert_true(after.adopted_slabs >= before.adopted_slabs + 4);
    assert_true(after.superslabs <= before.superslabs);
    free_what_was_left();
    hak_thread_flush();
}

/* A destructor that runs after the heap is gone, as those of C++ and of the C library do. */
#define LATE_ROUNDS (HAK_TSAN ? 3 : 4) /* ThreadSanitizer itself ends a thread in the last round of destructors */
static pthread_key_t late_key;
static _Atomic unsigned late_runs;

static void allocate_late(void *value) {
    unsigned round = (unsigned)(uintptr_t)value;
    uint64_t random = round;
    trade(&random);
    atomic_fetch_add(&late_runs, 1);
    if (round < LATE_ROUNDS) pthread_setspecific(late_key, (void *)(uintptr_t)(round + 1));
}

static void *end_late(void *argument) {
    pthread_setspecific(late_key, argument);
    return trade_many(&(struct trader){.random = 5, .trades = 5});
}

static void destructors_allocate_when_the_heap_is_gone(void **state) {
    (void)state;
    hak_thread_flush();
    uint64_t before = live_blocks(), threads = stats_now().threads;
    assert_int_equal(pthread_key_create(&late_key, allocate_late), 0);
    pthread_t thread[4];
    for (unsigned n = 0; n < rounds(10, 100); n++) {
        for (unsigned i = 0; i < 4; i++) start_thread(&thread[i], end_late, (void *)1);
        for (unsigned i = 0; i < 4; i++) must(pthread_join(thread[i], NULL) == 0);
    }
    assert_int_equal(late_runs, LATE_ROUNDS * 4 * rounds(10, 100));
    assert_int_equal(stats_now().threads, threads);
    nothing_is_left(before);
    pthread_key_delete(late_key);
}

/* ---- readers ------------------------------------------------------------------------------------------------ */

static _Atomic bool stop;

static void *read_statistics(void *argument) {
    int fd = open("/dev/null", O_WRONLY);
    while (!atomic_load(&stop)) {
        struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
        must(hak_stats_get(&stats) == 0);
        must(stats.threads >= 1 && stats.layer[HAK_LAYER_TINY].live_blocks < 1 << 24);
        must(hak_stats_print(fd, HAK_FORMAT_JSON) == 0);
        must(hak_stats_print(fd, HAK_FORMAT_TEXT) == 0);
        must(hak_is_owned(&stats) == 0);
    }
    close(fd);
    return argument;
}

static void *purge_all_the_time(void *argument) {
    uint64_t random = 9;
    while (!atomic_load(&stop)) {
        trade(&random);
        hak_thread_flush();
        hak_purge();
        hak_malloc_trim(0);
        usleep(500);
    }
    return argument;
}

static void statistics_and_purges_run_beside_everything_else(void **state) {
    (void)state;
    uint64_t before = live_blocks();
    pthread_t reader, purger;
    atomic_store(&stop, false);
    start_thread(&reader, read_statistics, NULL);
    start_thread(&purger, purge_all_the_time, NULL);
    trade_with(3, rounds(2500, 200));
    trade_in_waves(&(struct trader){.random = 4, .trades = rounds(15, 100)});
    atomic_store(&stop, true);
    must(pthread_join(reader, NULL) == 0 && pthread_join(purger, NULL) == 0);
    nothing_is_left(before);
    hak_purge();
    struct hak_stats stats = stats_now();
    for (int i = 0; i < HAK_LAYER_COUNT; i++) assert_int_equal(stats.layer[i].cached_bytes, 0);
    assert_int_equal(stats.layer[HAK_LAYER_L25].mapped_bytes, 0);
    assert_int_equal(stats.layer[HAK_LAYER_BIG].mapped_bytes, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_change_hands_between_2_4_and_8_threads),
        cmocka_unit_test(threads_start_and_end_while_others_trade),
        cmocka_unit_test(blocks_of_an_ended_thread_are_freed_into_its_parked_heap),
        cmocka_unit_test(slabs_of_an_ended_thread_are_adopted_before_memory_is_asked_for),
        cmocka_unit_test(destructors_allocate_when_the_heap_is_gone),
        cmocka_unit_test(statistics_and_purges_run_beside_everything_else),
    };
    alarm(getenv("HAK_SOAK") ? 0 : HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
