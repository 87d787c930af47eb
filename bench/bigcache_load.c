/* Loads of blocks over 1 MiB, which BigCache serves, from distinct call sites:
 *   uniform  bursts of blocks of 1 to 4 MiB, all from one call site
 *   pareto   the same of Pareto-distributed sizes over 1 MiB (shape 2), from 4 call sites, the k-th used 1/k as often
 *   trace    what a real program did, as bigcache_record wrote it, in the processor time that it took
 * A burst is what a server does that is asked for much at once: BLOCKS/2 to BLOCKS blocks are allocated, the first
 * quarter of each is written to, and all are freed in random order. What a recorded program wrote is unknown: each of
 * its blocks is written to as a whole. The latency is that of a block's allocation and free together. */
#include "bigcache_sites.h"

#include <math.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define PAGE 4096
#define BLOCKS_MAX 65536
#define OPERATIONS_MAX 1000000
#define PARETO_BYTES_MAX (64 * MIB)

static struct block {
    char *ptr;
    uint64_t ns; /* spent in the allocator */
} * blocks;
static struct bench_latency latency;
static uint64_t operations, waited_ns;

/* ---- operations --------------------------------------------------------------------------------------------- */

static void resize(unsigned number, size_t bytes, size_t site, size_t written) {
    struct block *block = &blocks[number];
    uint64_t begin = bench_now_ns();
    block->ptr = bench_sites[site](block->ptr, bytes);
    block->ns += bench_now_ns() - begin;
    if (block->ptr == NULL) bench_fail("out of memory");
    for (size_t at = 0; at < written; at += PAGE) block->ptr[at] = 1;
    operations++;
}

static void release(unsigned number) {
    struct block *block = &blocks[number];
    uint64_t begin = bench_now_ns();
    free(block->ptr);
    bench_latency_add(&latency, block->ns + bench_now_ns() - begin);
    *block = (struct block){.ptr = NULL};
    operations++;
}

/* ---- bursts ------------------------------------------------------------------------------------------------- */

static void uniform(unsigned number, struct bench_random *random) {
    size_t bytes = bench_random_between(random, MIB + 1, 4 * MIB);
    resize(number, bytes, 0, bytes / 4);
}

static void pareto(unsigned number, struct bench_random *random) {
    static const unsigned shares[] = {12, 6, 4, 3}; /* of 25 */
    double above_zero = (double)((bench_random_next(random) >> 11) + 1) * 0x1p-53;
    size_t bytes = (size_t)(MIB / sqrt(above_zero)) + 1, site = 0;
    if (bytes > PARETO_BYTES_MAX) bytes = PARETO_BYTES_MAX;
    for (uint64_t at = bench_random_below(random, 25); at >= shares[site]; site++) at -= shares[site];
    resize(number, bytes, site, bytes / 4);
}

static void bursts(void (*allocate)(unsigned number, struct bench_random *random), uint64_t count, unsigned most,
                   uint64_t seed) {
    struct bench_random random = {.state = seed};
    for (; count > 0; count--) {
        unsigned live = (unsigned)bench_random_between(&random, (most + 1) / 2, most);
        for (unsigned i = 0; i < live; i++) allocate(i, &random);
        while (live > 0) {
            unsigned i = (unsigned)bench_random_below(&random, live);
            release(i);
            blocks[i] = blocks[--live];
            blocks[live] = (struct block){.ptr = NULL};
        }
    }
}

/* ---- a recording -------------------------------------------------------------------------------------------- */

static struct operation {
    uint64_t us;
    size_t bytes;
    unsigned block, site;
    char kind;
} * trace;

static size_t read_trace(const char *path) {
    FILE *file = fopen(path, "r");
    char line[4200];
    size_t count = 0;
    if (file == NULL) bench_fail("the recording cannot be opened");
    trace = bench_map(OPERATIONS_MAX * sizeof *trace);
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long us = 0, bytes = 0;
        struct operation *next = &trace[count];
        if (line[0] == '#') continue;
        int fields = sscanf(line, "%lu %c %u %lu %u", &us, &next->kind, &next->block, &bytes, &next->site);
        if (fields != (next->kind == '-' ? 3 : 5) || next->block >= BLOCKS_MAX || count == OPERATIONS_MAX - 1)
            bench_fail("not a recording by bigcache_record");
        next->us = us;
        next->bytes = bytes;
        count++;
    }
    fclose(file);
    return count;
}

static void wait_until(uint64_t ns) {
    uint64_t before = bench_now_ns();
    struct timespec at = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    if (ns <= before) return;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {
    }
    waited_ns += bench_now_ns() - before;
}

static void replay(size_t count) {
    uint64_t begin = bench_now_ns();
    for (const struct operation *next = trace; next < trace + count; next++) {
        wait_until(begin + next->us * 1000);
        if (next->kind == '-') release(next->block);
        else resize(next->block, next->bytes, next->site % BENCH_SITES, next->bytes);
    }
    for (unsigned i = 0; i < BLOCKS_MAX; i++)
        if (blocks[i].ptr != NULL) release(i);
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static unsigned long long resident_kib(void) {
    unsigned long long size = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (statm == NULL || fscanf(statm, "%llu %llu", &size, &resident) != 2) bench_fail("/proc/self/statm");
    fclose(statm);
    return resident * (unsigned long long)sysconf(_SC_PAGESIZE) / 1024;
}

static uint64_t run(int argc, char **argv) {
    const bool is_uniform = strcmp(argv[1], "uniform") == 0;
    if (strcmp(argv[1], "trace") == 0 && argc == 3) {
        size_t count = read_trace(argv[2]);
        uint64_t begin = bench_now_ns();
        replay(count);
        return bench_now_ns() - begin - waited_ns;
    }
    if (!is_uniform && strcmp(argv[1], "pareto") != 0) bench_fail("a workload is uniform, pareto or trace FILE");
    const uint64_t count = bench_argument(argc, argv, 2, "BURSTS", 1, 1000000, 20);
    const unsigned most = (unsigned)bench_argument(argc, argv, 3, "BLOCKS", 1, BLOCKS_MAX, 384);
    const uint64_t seed = bench_argument(argc, argv, 4, "SEED", 0, UINT64_MAX, 1);
    uint64_t begin = bench_now_ns();
    bursts(is_uniform ? uniform : pareto, count, most, seed);
    return bench_now_ns() - begin;
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 1, 4, "uniform|pareto [BURSTS [BLOCKS [SEED]]] | trace FILE");
    blocks = bench_map(BLOCKS_MAX * sizeof *blocks);
    uint64_t worked_ns = run(argc, argv);
    printf("operations: %llu\n", (unsigned long long)operations);
    printf("operations_per_second: %.0f /s\n", (double)operations * 1e9 / (double)worked_ns);
    printf("malloc_free_p50: %llu ns\n", (unsigned long long)bench_latency_at(&latency, 0.50));
    printf("malloc_free_p99: %llu ns\n", (unsigned long long)bench_latency_at(&latency, 0.99));
    printf("resident_at_end: %llu KiB\n", resident_kib());
    return 0;
}
