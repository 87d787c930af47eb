/* A bursty workload, to be watched: quiet times, in which a request is a few blocks of 64 bytes and a buffer of 48 KiB
 * each millisecond, and bursts, in which rows of many blocks of 64 bytes are allocated and freed. Lines on stderr tell
 * which it is and what the thread caches hold; with HAKMEM_LOG=1 the lines of the thread cache stand between them. */
#include "stats.h"

#define BLOCK 64
#define BUFFER (48 << 10)
#define FEW 4
#define ROW 20000
#define TELL_MS 20

static uint64_t operations;

static void tell_cached(void) {
    static uint64_t last_ns;
    struct hak_stats stats;
    uint64_t now = bench_now_ns();
    if (now - last_ns < TELL_MS * UINT64_C(1000000) || !bench_stats(&stats)) return;
    last_ns = now;
    fprintf(stderr, "cached: %llu bytes\n", (unsigned long long)bench_stats_cached_bytes(&stats));
}

static void serve(char **row, unsigned count) {
    for (unsigned i = 0; i < count; i++) row[i] = bench_malloc(BLOCK);
    for (unsigned i = 0; i < count; i++) free(row[i]);
    operations += count;
}

static void quiet(char **row, uint64_t ms) {
    const struct timespec pause = {.tv_nsec = 1000000};
    fprintf(stderr, "phase: quiet\n");
    for (uint64_t end = bench_now_ns() + ms * 1000000; bench_now_ns() < end;) {
        serve(row, FEW);
        free(bench_malloc(BUFFER));
        tell_cached();
        nanosleep(&pause, NULL);
    }
}

static void burst(char **row, uint64_t ms) {
    fprintf(stderr, "phase: burst\n");
    for (uint64_t end = bench_now_ns() + ms * 1000000; bench_now_ns() < end;) {
        serve(row, ROW);
        tell_cached();
    }
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 3, 3, "QUIET_MS BURST_MS BURSTS");
    uint64_t quiet_ms = bench_argument(argc, argv, 1, "quiet_ms", 1, 3600000, 0);
    uint64_t burst_ms = bench_argument(argc, argv, 2, "burst_ms", 1, 3600000, 0);
    uint64_t bursts = bench_argument(argc, argv, 3, "bursts", 1, 1000000, 0);
    char **row = bench_map(ROW * sizeof *row);
    for (uint64_t i = 0; i < bursts; i++) {
        quiet(row, quiet_ms);
        burst(row, burst_ms);
    }
    quiet(row, quiet_ms);
    printf("operations: %llu operations\n", (unsigned long long)operations);
    return 0;
}
