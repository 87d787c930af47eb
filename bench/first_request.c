/* What the first request of a new thread costs. Threads begin one after the other, and each measures the time that its
 * first request takes: BLOCKS blocks of 16, 32, 48 and 64 bytes in turn, allocated and freed. ALIVE of them live at a
 * time: with 1 each takes over what the one before left behind, with more each begins afresh. BLOCKS of 0 tells what
 * threads cost by themselves. */
#include "bench.h"

#include <semaphore.h>

#define BLOCKS_MAX 4096

static uint64_t blocks;
static struct bench_latency *latency;
static sem_t served, may_end;

static void *thread_main(void *argument) {
    void *held[BLOCKS_MAX];
    uint64_t begin = bench_now_ns();
    for (uint64_t i = 0; i < blocks; i++) held[i] = bench_malloc(16 + i % 4 * 16);
    for (uint64_t i = 0; i < blocks; i++) free(held[i]);
    bench_latency_add(latency, bench_now_ns() - begin);
    sem_post(&served);
    sem_wait(&may_end);
    return argument;
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 3, 3, "THREADS ALIVE BLOCKS");
    uint64_t threads = bench_argument(argc, argv, 1, "threads", 1, 100000000, 0);
    uint64_t alive = bench_argument(argc, argv, 2, "alive", 1, 10000, 0);
    blocks = bench_argument(argc, argv, 3, "blocks", 0, BLOCKS_MAX, 0);
    latency = bench_map(sizeof *latency);
    pthread_t *living = bench_map(alive * sizeof *living);
    sem_init(&served, 0, 0);
    sem_init(&may_end, 0, 0);

    uint64_t begin = bench_now_ns();
    for (uint64_t started = 0; started < threads;) {
        uint64_t count = 0;
        for (; count < alive && started < threads; count++, started++) {
            if (pthread_create(&living[count], NULL, thread_main, NULL) != 0) bench_fail("pthread_create failed");
            sem_wait(&served);
        }
        for (uint64_t i = 0; i < count; i++) sem_post(&may_end);
        for (uint64_t i = 0; i < count; i++) pthread_join(living[i], NULL);
    }
    uint64_t took = bench_now_ns() - begin;
    printf("first request, p50: %llu ns\n", (unsigned long long)bench_latency_at(latency, 0.5));
    printf("first request, p99: %llu ns\n", (unsigned long long)bench_latency_at(latency, 0.99));
    printf("per thread: %llu ns\n", (unsigned long long)(took / threads));
    return 0;
}
