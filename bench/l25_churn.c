/* Threads that use blocks of the L2.5 pool's sizes. One operation is one malloc, one byte written at each end, and one
 * free:
 *   own      each thread replaces blocks in slots of its own
 *   shared   all threads replace blocks in the same slots, and so free each other's
 *   passed   every second thread makes blocks and passes them through a ring to the next one, which frees them
 * At the end all blocks are freed and the allocator is asked to trim, so that its statistics at exit tell whether it
 * still holds memory. */
#include "bench.h"

#include <malloc.h>
#include <sched.h>
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
static uint64_t replace(struct bench_random *random, _Atomic(char *) *own, size_t count) {
    uint64_t operations = 0;
    while (!time_is_up(operations)) {
        _Atomic(char *) *slot = &own[bench_random_below(random, count)];
        free(atomic_exchange(slot, NULL));
        free(atomic_exchange(slot, make(random)));
        operations++;
    }
    return operations;
}

static uint64_t pass(struct bench_random *random, _Atomic(char *) *ring, size_t count, bool producer) {
    uint64_t operations = 0;
    for (uint64_t step = 0; !time_is_up(step); step++) {
        _Atomic(char *) *slot = &ring[operations % count];
        if ((atomic_load(slot) == NULL) != producer) {
            sched_yield(); /* the ring is full, or empty */
            continue;
        }
        if (producer) atomic_store(slot, make(random));
        else free(atomic_exchange(slot, NULL));
        operations++;
    }
    return producer ? 0 : operations;
}

static void body(unsigned index, void *data) {
    const char *mode = data;
    struct bench_random random = {.state = index + 1};
    uint64_t operations = mode[0] == 'o' ? replace(&random, slots + index * slots_per_thread, slots_per_thread)
                          : mode[0] == 's'
                              ? replace(&random, slots, slots_all)
                              : pass(&random, slots + index / 2 * slots_per_thread, slots_per_thread, index % 2 == 0);
    workers[index] = (struct worker){.operations = operations, .end_ns = bench_now_ns()};
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 3, 6, "THREADS MILLISECONDS own|shared|passed [MIN_SIZE [MAX_SIZE [SLOTS_PER_THREAD]]]");
    const unsigned threads = (unsigned)bench_argument(argc, argv, 1, "THREADS", 1, 4096, 0);
    duration_ns = bench_argument(argc, argv, 2, "MILLISECONDS", 1, 86400000, 0) * 1000000;
    size_min = bench_argument(argc, argv, 4, "MIN_SIZE", 1, 1U << 30, 32769);
    size_max = bench_argument(argc, argv, 5, "MAX_SIZE", size_min, 1U << 30, size_min > 131072 ? size_min : 131072);
    slots_per_thread = bench_argument(argc, argv, 6, "SLOTS_PER_THREAD", 1, 65536, 8);
    slots_all = slots_per_thread * threads;
    slots = bench_map(slots_all * sizeof *slots);
    workers = bench_map(threads * sizeof *workers);
    bench_threads(threads, body, argv[3]);
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
