/* Calls for an instruction counter to count (tests/counts.bats, valgrind --tool=callgrind --toggle-collect=malloc,
 * free, realloc or malloc_usable_size). ROUNDS times COUNT blocks of SIZE bytes are allocated and then freed: by the
 * same thread (local), after it asked how much they hold (ask), made them a little smaller (stay) or three times as
 * large (move), by a thread that does nothing else (remote), or by one that allocates another for each (exchange). So
 * what a call costs holds its share of refills, flushes, deliveries and collections. */
#include "bench.h"

#include <malloc.h>

#define COUNT_MAX 100000

static uint64_t count, size;
static void *blocks[COUNT_MAX];

static void *free_all(void *argument) {
    for (uint64_t i = 0; i < count; i++) free(blocks[i]);
    return argument;
}

static void *ask_and_free_all(void *argument) {
    for (uint64_t i = 0; i < count; i++)
        if (malloc_usable_size(blocks[i]) < size) bench_fail("a block holds less than it was asked for");
    return free_all(argument);
}

static void resize_all(size_t to) {
    for (uint64_t i = 0; i < count; i++)
        if ((blocks[i] = realloc(blocks[i], to)) == NULL) bench_fail("no memory");
}

static void *shorten_and_free_all(void *argument) {
    resize_all(size - size / 4);
    return free_all(argument);
}

static void *prolong_and_free_all(void *argument) {
    resize_all(3 * size);
    return free_all(argument);
}

static void *replace_all(void *argument) {
    for (uint64_t i = 0; i < count; i++) {
        free(blocks[i]);
        blocks[i] = bench_malloc(size);
    }
    return argument;
}

static const struct {
    const char *name;
    void *(*end)(void *);
    bool in_a_thread;
} modes[] = {
    {"local", free_all, false},
    {"ask", ask_and_free_all, false},
    {"stay", shorten_and_free_all, false},
    {"move", prolong_and_free_all, false},
    {"remote", free_all, true},
    {"exchange", replace_all, true},
};

int main(int argc, char **argv) {
    const unsigned modes_count = sizeof modes / sizeof *modes;
    unsigned mode = 0;
    bench_usage(argc, argv, 4, 4, "local|ask|stay|move|remote|exchange COUNT SIZE ROUNDS");
    while (mode < modes_count && strcmp(argv[1], modes[mode].name) != 0) mode++;
    if (mode == modes_count) bench_fail("the first argument is none of local, ask, stay, move, remote, exchange");
    count = bench_argument(argc, argv, 2, "count", 1, COUNT_MAX, 0);
    size = bench_argument(argc, argv, 3, "size", 1, 1 << 20, 0);
    const uint64_t rounds = bench_argument(argc, argv, 4, "rounds", 1, 1000000, 0);
    for (uint64_t round = 0; round < rounds; round++) {
        pthread_t thread;
        for (uint64_t i = 0; i < count; i++) blocks[i] = bench_malloc(size);
        if (!modes[mode].in_a_thread) modes[mode].end(NULL);
        else if (pthread_create(&thread, NULL, modes[mode].end, NULL) != 0) bench_fail("pthread_create failed");
        else pthread_join(thread, NULL);
    }
    printf("operations: %llu blocks\n", (unsigned long long)(count * rounds));
    return 0;
}
