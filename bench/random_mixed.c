/* Random mixed sizes: each cycle picks a random slot of the working set; a block there is freed, an empty slot gets a
 * block of 16 to 1,024 bytes. One operation is one malloc or one free. Each thread has cycles and a working set of its
 * own. A block holds the address of its slot, which is checked before it is freed. */
#include "bench.h"

#define BLOCK_MIN 16
#define BLOCK_MAX 1024

static uint64_t cycles, working_set, seed;

static void take(void **slot, size_t size) {
    void **block = malloc(size);
    if (block == NULL) bench_fail("malloc returned NULL");
    *block = slot;
    ((char *)block)[size - 1] = 1;
    *slot = block;
}

static void give(void **slot) {
    void **block = *slot;
    if (*block != slot) bench_fail("a block is not as it was written");
    free(block);
    *slot = NULL;
}

static void body(unsigned index, void *data) {
    void **slots = (void **)data + index * working_set;
    struct bench_random random = {.state = seed + index * UINT64_C(0xd1342543de82ef95)};
    for (uint64_t i = 0; i < cycles; i++) {
        void **slot = &slots[bench_random_below(&random, working_set)];
        if (*slot != NULL) give(slot);
        else take(slot, bench_random_between(&random, BLOCK_MIN, BLOCK_MAX));
    }
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 3, 4, "CYCLES WORKING_SET SEED [THREADS]");
    cycles = bench_work(bench_argument(argc, argv, 1, "cycles", 1, UINT64_C(1) << 40, 0));
    working_set = bench_argument(argc, argv, 2, "working_set", 1, 1 << 28, 0);
    seed = bench_argument(argc, argv, 3, "seed", 0, UINT64_MAX, 0);
    unsigned threads = (unsigned)bench_argument(argc, argv, 4, "threads", 1, 4096, 1);

    void **slots = bench_map(threads * working_set * sizeof *slots);
    uint64_t took = bench_threads(threads, body, slots);
    for (uint64_t i = 0; i < threads * working_set; i++)
        if (slots[i] != NULL) give(&slots[i]);
    printf("throughput: %.0f ops/s\n", (double)(cycles * threads) / ((double)took / 1e9));
    bench_tell_operations(cycles * threads / 2);
    return 0;
}
