/* How far one size class of a thread goes. Each thread allocates blocks of BLOCK bytes until MIB of them are there or
 * one is refused, and marks each. Then it has to go on with another size, and with what it has freed again. From the
 * addresses alone the program sees which slabs (64 KiB) of which superslabs (2 MiB) it was given: of a superslab whose
 * mask was right from the beginning, all 32 come. */
#include "bench.h"

#define SUPERSLAB ((uintptr_t)2 << 20)
#define SLAB ((uintptr_t)64 << 10)
#define OTHER_BLOCK 2000

static uint64_t block_bytes, wanted;
static pthread_barrier_t all_done;

struct share {
    uintptr_t **blocks;
    uint64_t count;
    int error; /* of the refusal; 0: none */
};

static uintptr_t *take_marked(uint64_t number) {
    uintptr_t *block = malloc(block_bytes);
    if (block == NULL) return NULL;
    block[0] = (uintptr_t)block;
    block[1] = number;
    return block;
}

static void allocate(unsigned index, void *data) {
    struct share *share = (struct share *)data + index;
    while (share->count < wanted && share->error == 0) {
        errno = 0;
        share->blocks[share->count] = take_marked(share->count);
        if (share->blocks[share->count] != NULL) share->count++;
        else share->error = errno;
    }
    free(bench_malloc(OTHER_BLOCK));
    free(share->blocks[0]);
    share->blocks[0] = take_marked(0);
    if (share->blocks[0] == NULL) bench_fail("what was freed cannot be had again");
    pthread_barrier_wait(&all_done); /* a thread that ends before another begins would hand its slabs over */
}

static int by_address(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

static void tell_slabs(uintptr_t *blocks, uint64_t count) {
    uint64_t slabs = 0, superslabs = 0, whole = 0, slabs_here = 0;
    qsort(blocks, count, sizeof *blocks, by_address);
    for (uint64_t i = 0; i < count; i++) {
        bool in_next_superslab = i == 0 || blocks[i] / SUPERSLAB != blocks[i - 1] / SUPERSLAB;
        if (in_next_superslab) slabs_here = 0;
        superslabs += in_next_superslab;
        if (i != 0 && blocks[i] / SLAB == blocks[i - 1] / SLAB) continue;
        slabs++;
        whole += ++slabs_here == SUPERSLAB / SLAB;
    }
    printf("slabs: %llu slabs\n", (unsigned long long)slabs);
    printf("superslabs: %llu superslabs\n", (unsigned long long)superslabs);
    printf("whole superslabs: %llu superslabs\n", (unsigned long long)whole);
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 2, 3, "BLOCK MIB [THREADS]");
    block_bytes = bench_argument(argc, argv, 1, "block", 16, 32768, 0);
    wanted = (bench_argument(argc, argv, 2, "mib", 1, 1 << 20, 0) << 20) / block_bytes;
    unsigned threads = (unsigned)bench_argument(argc, argv, 3, "threads", 1, 1024, 1);
    struct share *shares = bench_map(threads * sizeof *shares);
    for (unsigned i = 0; i < threads; i++) shares[i].blocks = bench_map((wanted + 1) * sizeof *shares->blocks);
    pthread_barrier_init(&all_done, NULL, threads);
    bench_threads(threads, allocate, shares);

    uintptr_t *all = bench_map(threads * wanted * sizeof *all);
    uint64_t count = 0;
    unsigned refused = 0, in_order = 0;
    for (unsigned i = 0; i < threads; i++) {
        for (uint64_t j = 0; j < shares[i].count; j++) all[count++] = (uintptr_t)shares[i].blocks[j];
        refused += shares[i].error != 0;
        in_order += shares[i].error == ENOMEM;
    }
    tell_slabs(all, count);
    for (unsigned i = 0; i < threads; i++)
        for (uint64_t j = 0; j < shares[i].count; j++) {
            uintptr_t *block = shares[i].blocks[j];
            if (block[0] != (uintptr_t)block || block[1] != j) bench_fail("a block is not as it was written");
            free(block);
        }
    printf("blocks: %llu blocks\n", (unsigned long long)count);
    printf("bytes: %llu bytes\n", (unsigned long long)(count * block_bytes));
    printf("threads refused: %u threads\n", refused);
    printf("threads refused with ENOMEM: %u threads\n", in_order);
    return 0;
}
