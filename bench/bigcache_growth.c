/* Fills BigCache: BLOCKS blocks of 1 to 2 MiB from 16 call sites are allocated, then all are freed. Nothing is written
 * to them, so that they cost address space only: about 1.5 MiB each. With HAKMEM_LOG=1 hakmem says how its table grows.
 */
#include "bigcache_sites.h"

#define MIB ((size_t)1 << 20)

static uint64_t kernel_mappings(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    uint64_t lines = 0;
    if (maps == NULL) bench_fail("/proc/self/maps cannot be read");
    for (int c; (c = getc(maps)) != EOF;) lines += c == '\n';
    fclose(maps);
    return lines;
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 0, 1, "[BLOCKS]");
    const size_t count = bench_argument(argc, argv, 1, "BLOCKS", 1, 1000000, 50000);
    void **blocks = bench_map(count * sizeof *blocks);
    struct bench_random random = {.state = 1};
    struct bench_latency *latency = bench_map(sizeof *latency);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = bench_sites[i % BENCH_SITES](NULL, bench_random_between(&random, MIB + 1, 2 * MIB));
        if (blocks[i] == NULL) bench_fail("malloc returned NULL");
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t begin = bench_now_ns();
        free(blocks[i]);
        bench_latency_add(latency, bench_now_ns() - begin);
    }
    printf("free_p50: %llu ns\n", (unsigned long long)bench_latency_at(latency, 0.50));
    printf("free_p99: %llu ns\n", (unsigned long long)bench_latency_at(latency, 0.99));
    printf("free_longest: %llu ns\n", (unsigned long long)latency->most);
    printf("kernel_mappings: %llu\n", (unsigned long long)kernel_mappings());
    return 0;
}
