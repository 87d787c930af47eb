/* How long single calls of malloc and free take: the usual ones, and the slowest. The memory that they return is used
 * outside of what is timed. */
#include <stdatomic.h>
#include "bench.h"

/* ---- a clock that costs less than what it measures -------------------------------------------------------------- */

#if defined(__x86_64__)
static uint64_t ticks(void) {
    __builtin_ia32_lfence();
    uint64_t now = __builtin_ia32_rdtsc();
    __builtin_ia32_lfence();
    return now;
}
#elif defined(__aarch64__)
static uint64_t ticks(void) {
    uint64_t now;
    __asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(now)::"memory");
    return now;
}
#else
static uint64_t ticks(void) { return bench_now_ns(); }
#endif

#define CALLS 2
static const char *const call_names[CALLS] = {"malloc", "free"};
struct latencies {
    struct bench_latency of[CALLS];
};

static struct latencies total;
static pthread_mutex_t total_mutex = PTHREAD_MUTEX_INITIALIZER;

static void merge(const struct latencies *latencies) {
    pthread_mutex_lock(&total_mutex);
    for (unsigned i = 0; i < CALLS; i++) bench_latency_merge(&total.of[i], &latencies->of[i]);
    pthread_mutex_unlock(&total_mutex);
}

static void *timed_malloc(struct latencies *latencies, size_t bytes) {
    uint64_t begin = ticks();
    void *block = malloc(bytes);
    uint64_t end = ticks();
    bench_latency_add(&latencies->of[0], end - begin);
    return bench_block_fill(block, bytes);
}
static void timed_free(struct latencies *latencies, void *block) {
    if (block == NULL) return;
    bench_block_checked(block);
    uint64_t begin = ticks();
    free(block);
    uint64_t end = ticks();
    bench_latency_add(&latencies->of[1], end - begin);
}

/* What the clock itself costs is in no figure; where nothing is left, one tick is told. */
static uint64_t clock_cost(void) {
    static struct bench_latency latency;
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t begin = ticks();
        bench_latency_add(&latency, ticks() - begin);
    }
    return bench_latency_at(&latency, 0.5);
}
static void tell(uint64_t begin_ns, uint64_t begin_ticks) {
    double tick_ns = (double)(bench_now_ns() - begin_ns) / (double)(ticks() - begin_ticks);
    static const struct {
        const char *name;
        double share;
    } points[] = {{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}};
    uint64_t cost = clock_cost();
    for (unsigned call = 0; call < CALLS; call++) {
        for (unsigned i = 0; i < sizeof points / sizeof *points; i++) {
            uint64_t at = bench_latency_at(&total.of[call], points[i].share);
            printf("%s_%s: %.1f ns\n", call_names[call], points[i].name, tick_ns * (double)(at > cost ? at - cost : 1));
        }
    }
    printf("clock: %.1f ns\n", tick_ns * (double)cost);
    bench_tell_operations(total.of[0].count);
}

/* ---- random-mixed: 16 to 1,024 bytes, a random one of a table replaced ---------------------------------------------
 */

#define SLOTS 4096
static _Atomic(void *) slots[SLOTS];

static void mixed(unsigned index, void *data) {
    const uint64_t *count = data;
    struct bench_random random = {index};
    struct latencies *latencies = bench_map(sizeof *latencies);
    for (uint64_t i = 0; i < *count; i++) {
        void *block = timed_malloc(latencies, bench_random_between(&random, 16, 1024));
        timed_free(latencies, atomic_exchange(&slots[bench_random_below(&random, SLOTS)], block));
    }
    merge(latencies);
}
static void run_mixed(const uint64_t *numbers) {
    unsigned threads = bench_in_range(numbers[0], 1, 4096, "THREADS");
    uint64_t count = bench_work(numbers[1]) / threads, begin_ns = bench_now_ns(), begin_ticks = ticks();
    bench_threads(threads, mixed, &count);
    tell(begin_ns, begin_ticks);
    for (unsigned i = 0; i < SLOTS; i++) bench_block_free(slots[i]);
}

/* ---- the first calls of a thread
 * -------------------------------------------------------------------------------------- */

#define FIRST_BLOCKS 16

static void first_calls(unsigned index, void *data) {
    struct latencies *latencies = (struct latencies *)data + index;
    struct bench_random random = {index};
    void *blocks[FIRST_BLOCKS];
    for (unsigned i = 0; i < FIRST_BLOCKS; i++)
        blocks[i] = timed_malloc(latencies, bench_random_skewed(&random, 16, 6));
    for (unsigned i = 0; i < FIRST_BLOCKS; i++) timed_free(latencies, blocks[i]);
}
static void run_start(const uint64_t *numbers) {
    unsigned threads = bench_in_range(numbers[0], 1, 4096, "THREADS");
    uint64_t rounds = bench_work(numbers[1]) / threads + 1, begin_ns = bench_now_ns(), begin_ticks = ticks();
    struct latencies *latencies = bench_map(threads * sizeof *latencies);
    for (uint64_t round = 0; round < rounds; round++) bench_threads(threads, first_calls, latencies);
    for (unsigned i = 0; i < threads; i++) merge(&latencies[i]);
    tell(begin_ns, begin_ticks);
}

int main(int argc, char **argv) {
    static const struct bench_mode modes[] = {
        {"mixed", "THREADS COUNT", "a random one of 4,096 blocks of 16-1,024 bytes replaced, by all threads",
         run_mixed},
        {"start", "THREADS COUNT", "the first 16 calls of each of COUNT threads, THREADS at a time", run_start},
    };
    return bench_run_mode(argc, argv, modes, sizeof modes / sizeof *modes);
}
