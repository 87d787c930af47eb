/* Threads that replace blocks of the L2.5 pool's sizes, in slots of their own or all in the same, where they free each
 * other's. One operation is one malloc, a byte written at each end, and one free. At the end all blocks are freed and
 * the allocator is asked to trim, so that its statistics at exit tell whether it still holds memory. */
#include "bench.h"

#include <malloc.h>
#include <stdatomic.h>

#define LINE 64

struct worker {
    _Alignas(LINE) uint64_t operations, end_ns;
};

static size_t size_min, size_max, slots_per_thread, slots_all;
static _Atomic(char *) *slots;
static struct worker *workers;
static uint64_t duration_ns;
static _Atomic uint64_t end_ns; /* set by the first thread that runs */

static char *make(struct bench_random *random) {
    return bench_malloc(bench_random_between(random, size_min, size_max));
}

static bool time_is_up(uint64_t step) {
    if (step % 64 != 0) return false;
    uint64_t now = bench_now_ns(), none = 0;
    if (step == 0) atomic_compare_exchange_strong(&end_ns, &none, now + duration_ns);
    return now >= atomic_load(&end_ns);
}

/* In shared slots another thread may fill the slot between the two exchanges: then that block is freed as well. */
static uint64_t replace(struct bench_random *random, _Atomic(char *) *from, size_t count) {
    uint64_t operations = 0;
    while (!time_is_up(operations)) {
        _Atomic(char *) *slot = &from[bench_random_below(random, count)];
        free(atomic_exchange(slot, NULL));
        free(atomic_exchange(slot, make(random)));
        operations++;
    }
    return operations;
}

static void body(unsigned index, void *data) {
    const bool *shared = data;
    struct bench_random random = {.state = index + 1};
    const uint64_t operations = *shared ? replace(&random, slots, slots_all)
                                        : replace(&random, slots + index * slots_per_thread, slots_per_thread);
    workers[index] = (struct worker){.operations = operations, .end_ns = bench_now_ns()};
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 3, 6, "THREADS MILLISECONDS own|shared [MIN_SIZE [MAX_SIZE [SLOTS_PER_THREAD]]]");
    const unsigned threads = (unsigned)bench_argument(argc, argv, 1, "THREADS", 1, 4096, 0);
    bool shared = strcmp(argv[3], "shared") == 0;
    if (!shared && strcmp(argv[3], "own") != 0) bench_fail("slots are own or shared");
    duration_ns = bench_argument(argc, argv, 2, "MILLISECONDS", 1, 86400000, 0) * 1000000;
    size_min = bench_argument(argc, argv, 4, "MIN_SIZE", 1, 1U << 30, 32769);
    size_max = bench_argument(argc, argv, 5, "MAX_SIZE", size_min, 1U << 30, size_min > 65536 ? size_min : 65536);
    slots_per_thread = bench_argument(argc, argv, 6, "SLOTS_PER_THREAD", 1, 65536, 1);
    slots_all = slots_per_thread * threads;
    slots = bench_map(slots_all * sizeof *slots);
    workers = bench_map(threads * sizeof *workers);
    bench_threads(threads, body, &shared);
    /* From the first thread's beginning: the main thread may get a processor much later. */
    const uint64_t begin_ns = atomic_load(&end_ns) - duration_ns;
    uint64_t operations = 0, took_ns = 0;
    for (unsigned i = 0; i < threads; i++) {
        operations += workers[i].operations;
        if (workers[i].end_ns - begin_ns > took_ns) took_ns = workers[i].end_ns - begin_ns;
    }
    for (size_t i = 0; i < slots_all; i++) free(atomic_exchange(&slots[i], NULL));
    malloc_trim(0);
    printf("operations: %llu\n", (unsigned long long)operations);
    printf("throughput: %.0f operations/s\n", (double)operations * 1e9 / (double)took_ns);
    return 0;
}
