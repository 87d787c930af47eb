/* Calls for an instruction counter to count (tests/counts.bats, valgrind --tool=callgrind --toggle-collect=malloc or
 * free). ROUNDS times COUNT blocks of SIZE bytes are allocated and then freed: by the same thread, or by one that does
 * nothing else. So what a call costs holds its share of refills, flushes, deliveries and collections. */
#include "bench.h"

#define COUNT_MAX 100000

static uint64_t count, size;
static void *blocks[COUNT_MAX];

static void *free_all(void *argument) {
    for (uint64_t i = 0; i < count; i++) free(blocks[i]);
    return argument;
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 4, 4, "local|remote COUNT SIZE ROUNDS");
    const bool remote = strcmp(argv[1], "remote") == 0;
    if (!remote && strcmp(argv[1], "local") != 0) bench_fail("the first argument is neither local nor remote");
    count = bench_argument(argc, argv, 2, "count", 1, COUNT_MAX, 0);
    size = bench_argument(argc, argv, 3, "size", 1, 1 << 20, 0);
    const uint64_t rounds = bench_argument(argc, argv, 4, "rounds", 1, 1000000, 0);
    for (uint64_t round = 0; round < rounds; round++) {
        pthread_t thread;
        for (uint64_t i = 0; i < count; i++) blocks[i] = bench_malloc(size);
        if (!remote) free_all(NULL);
        else if (pthread_create(&thread, NULL, free_all, NULL) != 0) bench_fail("pthread_create failed");
        else pthread_join(thread, NULL);
    }
    printf("operations: %llu blocks\n", (unsigned long long)(count * rounds));
    return 0;
}
