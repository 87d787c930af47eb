/* What the thread caches gain and hold. Each thread serves requests. A request allocates a row of blocks of one of a
 * few common sizes and frees them; most rows are short, one of eight has up to BURST_MAX blocks. Beside them a few
 * blocks of all sizes up to 1 KiB live for a while. One operation is one malloc with its free. With BURST_MAX up to 8
 * no burst outgrows a fresh cache. */
#include "stats.h"

#define SHORT_MAX 8
#define BURST_LIMIT 100000
#define SAMPLES 200

static const size_t common[] = {48, 64, 128, 256};
#define COMMON (sizeof common / sizeof common[0])
#define OTHERS 64
#define OTHER_MAX 1024

static uint64_t requests, burst_max, seed;

struct result {
    uint64_t operations, cached_sum, cached_most, samples;
};

static void serve(struct bench_random *random, char **row, uint64_t count) {
    size_t size = common[bench_random_below(random, COMMON)];
    for (uint64_t i = 0; i < count; i++) row[i] = bench_malloc(size);
    for (uint64_t i = 0; i < count; i++) free(row[i]);
}

static void sample(struct result *result) {
    struct hak_stats stats;
    if (!bench_stats(&stats)) return;
    uint64_t cached = bench_stats_cached_bytes(&stats);
    result->cached_sum += cached;
    if (cached > result->cached_most) result->cached_most = cached;
    result->samples++;
}

static void body(unsigned index, void *data) {
    struct result *result = (struct result *)data + index;
    struct bench_random random = {.state = seed + index * UINT64_C(0xd1342543de82ef95)};
    char **row = bench_map(burst_max * sizeof *row), *others[OTHERS] = {NULL};
    for (uint64_t i = 0; i < requests; i++) {
        bool burst = bench_random_below(&random, 8) == 0;
        uint64_t count = 1 + bench_random_below(&random, burst || burst_max < SHORT_MAX ? burst_max : SHORT_MAX);
        serve(&random, row, count);
        char **other = &others[bench_random_below(&random, OTHERS)];
        free(*other);
        *other = bench_malloc(bench_random_between(&random, 1, OTHER_MAX));
        result->operations += count + 1;
        if (index == 0 && i % (requests / SAMPLES) == 0) sample(result);
    }
    for (unsigned i = 0; i < OTHERS; i++) free(others[i]);
    munmap(row, burst_max * sizeof *row);
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 3, 4, "REQUESTS BURST_MAX SEED [THREADS]");
    requests = bench_argument(argc, argv, 1, "requests", SAMPLES, UINT64_C(1) << 40, 0);
    burst_max = bench_argument(argc, argv, 2, "burst_max", 1, BURST_LIMIT, 0);
    seed = bench_argument(argc, argv, 3, "seed", 0, UINT64_MAX, 0);
    unsigned threads = (unsigned)bench_argument(argc, argv, 4, "threads", 1, 4096, 1);

    struct result *results = bench_map(threads * sizeof *results);
    uint64_t took = bench_threads(threads, body, results), operations = 0;
    for (unsigned i = 0; i < threads; i++) operations += results[i].operations;
    printf("throughput: %.0f ops/s\n", (double)operations / ((double)took / 1e9));
    if (results->samples != 0) {
        printf("cached, mean: %llu bytes\n", (unsigned long long)(results->cached_sum / results->samples));
        printf("cached, most: %llu bytes\n", (unsigned long long)results->cached_most);
    }
    return 0;
}
