/* A mixed workload over all sizes, for what each layer holds: every thread replaces and drops random blocks of four
 * ranges of sizes, which are those of hakmem's layers. At the end nothing is freed and all threads still live, so that
 * the allocator's own account at exit (HAKMEM_STATS=json) can be held against what was requested. Each page of a block
 * is written to. */
#include "bench.h"

#include <malloc.h>
#include <unistd.h>

#define LAYERS 4
#define KIB ((size_t)1024)

/* `slots` and `weight` keep the layers within two orders of magnitude of each other, in bytes and in operations. */
static const struct layer {
    const char *name;
    size_t least, most;
    unsigned slots, weight;
} layers[LAYERS] = {{"tiny", 1, KIB, 8192, 80},
                    {"mid", KIB + 1, 32 * KIB, 512, 14},
                    {"l25", 32 * KIB + 1, 1024 * KIB, 16, 4},
                    {"big", 1024 * KIB + 1, 4096 * KIB, 4, 2}};

struct block {
    char *ptr;
    size_t size;
};

struct worker {
    struct block *blocks[LAYERS];
    struct bench_random random;
    size_t requested[LAYERS], usable[LAYERS];
    uint64_t operations;
};

static pthread_barrier_t begin, end;

static unsigned any_layer(struct bench_random *random) {
    uint64_t drawn = bench_random_below(random, 100);
    unsigned layer = 0;
    while (drawn >= layers[layer].weight) drawn -= layers[layer++].weight;
    return layer;
}

static void drop(struct worker *worker, unsigned layer, struct block *block) {
    if (block->ptr == NULL) return;
    worker->requested[layer] -= block->size;
    worker->usable[layer] -= malloc_usable_size(block->ptr);
    free(block->ptr);
    block->ptr = NULL;
}

static void take(struct worker *worker, unsigned layer, struct block *block) {
    block->size = bench_random_between(&worker->random, layers[layer].least, layers[layer].most);
    block->ptr = bench_malloc(block->size);
    for (size_t at = 0; at < block->size; at += 4 * KIB) block->ptr[at] = 1;
    worker->requested[layer] += block->size;
    worker->usable[layer] += malloc_usable_size(block->ptr);
}

static void *work(void *argument) {
    struct worker *worker = argument;
    pthread_barrier_wait(&begin);
    for (uint64_t i = 0; i < worker->operations; i++) {
        unsigned layer = any_layer(&worker->random);
        struct block *block = &worker->blocks[layer][bench_random_below(&worker->random, layers[layer].slots)];
        drop(worker, layer, block);
        if (bench_random_below(&worker->random, 4) != 0) take(worker, layer, block);
    }
    pthread_barrier_wait(&end);
    pause(); /* until the process ends */
    return NULL;
}

static size_t resident_bytes(void) {
    size_t total, resident;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%zu %zu", &total, &resident) != 2) bench_fail("cannot read /proc/self/statm");
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 3, 3, "OPERATIONS_PER_THREAD SEED THREADS");
    uint64_t operations = bench_argument(argc, argv, 1, "operations", 1, UINT64_C(1) << 40, 0);
    uint64_t seed = bench_argument(argc, argv, 2, "seed", 0, UINT64_MAX, 0);
    unsigned threads = (unsigned)bench_argument(argc, argv, 3, "threads", 1, 256, 0);

    struct worker *workers = bench_map(threads * sizeof *workers);
    pthread_barrier_init(&begin, NULL, threads + 1);
    pthread_barrier_init(&end, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++) {
        workers[i].random.state = seed + i * UINT64_C(0xd1342543de82ef95);
        workers[i].operations = operations;
        for (unsigned l = 0; l < LAYERS; l++) workers[i].blocks[l] = bench_map(layers[l].slots * sizeof(struct block));
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, &workers[i]) != 0) bench_fail("pthread_create failed");
    }
    pthread_barrier_wait(&begin);
    pthread_barrier_wait(&end);

    for (unsigned l = 0; l < LAYERS; l++) {
        size_t requested = 0, usable = 0;
        for (unsigned i = 0; i < threads; i++) {
            requested += workers[i].requested[l];
            usable += workers[i].usable[l];
        }
        printf("%s requested: %zu bytes\n%s usable: %zu bytes\n", layers[l].name, requested, layers[l].name, usable);
    }
    printf("resident: %zu bytes\n", resident_bytes());
    return 0;
}
