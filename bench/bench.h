/* What the benchmark programs share: time, random numbers, threads that start together, latencies, arguments.
 * The programs are plain users of malloc: run alike on every allocator, by preloading or linking. Results are lines
 * `name: number unit` on stdout (bench/lab.py reads them). What a program needs for itself it takes from mmap or static
 * memory wherever that could disturb what is measured. */
#ifndef HAK_BENCH_H
#define HAK_BENCH_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define BENCH_INLINE static inline __attribute__((unused))

_Noreturn BENCH_INLINE void bench_fail(const char *what) {
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
    exit(1);
}

/* ---- time -------------------------------------------------------------------------------------------------- */

BENCH_INLINE uint64_t bench_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* ---- random numbers (splitmix64) ---------------------------------------------------------------------------- */

struct bench_random {
    uint64_t state;
};
BENCH_INLINE uint64_t bench_random_next(struct bench_random *random) {
    uint64_t z = random->state += 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}
/* From 0 to n - 1. */
BENCH_INLINE uint64_t bench_random_below(struct bench_random *random, uint64_t n) {
    return (uint64_t)((unsigned __int128)bench_random_next(random) * n >> 64);
}
/* From `least` to `most`, both included. */
BENCH_INLINE uint64_t bench_random_between(struct bench_random *random, uint64_t least, uint64_t most) {
    return least + bench_random_below(random, most - least + 1);
}

/* Sizes as programs ask for them: from `least` up, half as many of each doubling, at most 2^doublings times `least`. */
BENCH_INLINE uint64_t bench_random_skewed(struct bench_random *random, uint64_t least, unsigned doublings) {
    uint64_t bits = bench_random_next(random) | (uint64_t)1 << (doublings - 1);
    uint64_t from = least << __builtin_ctzll(bits);
    return from + bench_random_below(random, from);
}

/* ---- memory that is not the allocator's ---------------------------------------------------------------------- */

/* Zeroed memory straight from the system. */
BENCH_INLINE void *bench_map(size_t bytes) {
    void *ptr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ptr == MAP_FAILED) bench_fail("out of memory");
    return ptr;
}

/* malloc that must succeed; a program that uses a block writes to its first and last byte. */
BENCH_INLINE void *bench_malloc(size_t bytes) {
    char *ptr = malloc(bytes);
    if (ptr == NULL) bench_fail("malloc returned NULL");
    if (bytes != 0) ptr[0] = ptr[bytes - 1] = 1;
    return ptr;
}

/* A block that knows its size: in its first bytes, and by a mark in its last byte. The first byte of every page is
 * written, as real programs do. `bytes` is at least 5. */
BENCH_INLINE void *bench_block_fill(void *block, size_t bytes) {
    unsigned char *ptr = block;
    if (ptr == NULL) bench_fail("out of memory");
    for (size_t i = 4096; i < bytes; i += 4096) ptr[i] = 1;
    ptr[bytes - 1] = (unsigned char)(bytes % 251);
    uint32_t size = (uint32_t)bytes;
    memcpy(ptr, &size, sizeof size);
    return block;
}
/* Returns the block, found as it was filled. */
BENCH_INLINE void *bench_block_checked(void *block) {
    unsigned char *ptr = block;
    uint32_t bytes;
    memcpy(&bytes, ptr, sizeof bytes);
    if (ptr[bytes - 1] != bytes % 251) bench_fail("a block was overwritten");
    return block;
}
BENCH_INLINE void *bench_block_new(size_t bytes) { return bench_block_fill(malloc(bytes), bytes); }
BENCH_INLINE void bench_block_free(void *block) {
    if (block != NULL) free(bench_block_checked(block));
}

/* ---- threads ------------------------------------------------------------------------------------------------- */

/* Runs `body(i, data)` in `threads` threads, which begin together, and waits for all. Returns the nanoseconds from the
 * common beginning to the last end. */
typedef void bench_body(unsigned index, void *data);
struct bench_crew {
    pthread_barrier_t barrier;
    bench_body *body;
    void *data;
};
struct bench_member {
    struct bench_crew *crew;
    pthread_t thread;
    unsigned index;
};
BENCH_INLINE void *bench_member_main(void *argument) {
    struct bench_member *member = argument;
    pthread_barrier_wait(&member->crew->barrier);
    member->crew->body(member->index, member->crew->data);
    return NULL;
}
BENCH_INLINE uint64_t bench_threads(unsigned threads, bench_body *body, void *data) {
    struct bench_crew crew = {.body = body, .data = data};
    struct bench_member *members = bench_map(threads * sizeof *members);
    pthread_barrier_init(&crew.barrier, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++) {
        members[i] = (struct bench_member){.crew = &crew, .index = i};
        if (pthread_create(&members[i].thread, NULL, bench_member_main, &members[i]) != 0)
            bench_fail("pthread_create failed");
    }
    uint64_t begin = bench_now_ns(); /* not behind the barrier: this thread may come to run again much later */
    pthread_barrier_wait(&crew.barrier);
    for (unsigned i = 0; i < threads; i++) pthread_join(members[i].thread, NULL);
    uint64_t took = bench_now_ns() - begin;
    pthread_barrier_destroy(&crew.barrier);
    munmap(members, threads * sizeof *members);
    return took;
}

/* ---- latencies: a histogram with 32 buckets per doubling, so within 3 % ---------------------------------------- */

#define BENCH_LATENCY_BUCKETS (64 * 32)
struct bench_latency {
    uint64_t count, most;
    uint64_t buckets[BENCH_LATENCY_BUCKETS];
};
BENCH_INLINE void bench_latency_add(struct bench_latency *latency, uint64_t ns) {
    unsigned shift = ns < 32 ? 0 : 58 - (unsigned)__builtin_clzll(ns);
    latency->buckets[shift * 32 + (ns >> shift)]++;
    latency->count++;
    if (ns > latency->most) latency->most = ns;
}
BENCH_INLINE void bench_latency_merge(struct bench_latency *into, const struct bench_latency *from) {
    for (unsigned i = 0; i < BENCH_LATENCY_BUCKETS; i++) into->buckets[i] += from->buckets[i];
    into->count += from->count;
    if (from->most > into->most) into->most = from->most;
}
/* The nanoseconds that a share (0.99) of all stayed at or below. */
BENCH_INLINE uint64_t bench_latency_at(const struct bench_latency *latency, double share) {
    uint64_t left = (uint64_t)(share * (double)latency->count);
    for (uint64_t i = 0; i < BENCH_LATENCY_BUCKETS; i++) {
        if (latency->buckets[i] > left) return i < 64 ? i : (32 + i % 32) << (i / 32 - 1);
        left -= latency->buckets[i];
    }
    return latency->most;
}

/* ---- arguments ----------------------------------------------------------------------------------------------- */

/* `usage` is one line of what the arguments are; `--help` and wrong numbers of arguments print it. */
BENCH_INLINE void bench_usage(int argc, char **argv, int least, int most, const char *usage) {
    bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    if (!help && argc - 1 >= least && argc - 1 <= most) return;
    fprintf(help ? stdout : stderr, "usage: %s %s\n", program_invocation_short_name, usage);
    exit(help ? 0 : 2);
}
/* A decimal number as the argument `index`, `otherwise` where there is none. */
BENCH_INLINE uint64_t bench_argument(int argc, char **argv, int index, const char *name, uint64_t least, uint64_t most,
                                     uint64_t otherwise) {
    if (index >= argc) return otherwise;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(argv[index], &end, 10);
    if (errno == 0 && *argv[index] >= '0' && *argv[index] <= '9' && *end == '\0' && value >= least && value <= most)
        return value;
    fprintf(stderr, "%s: %s is a number from %llu to %llu, not '%s'\n", program_invocation_short_name, name,
            (unsigned long long)least, (unsigned long long)most, argv[index]);
    exit(2);
}

/* How much of the usual work is to be done: a hundredth in tests of the programs themselves. */
BENCH_INLINE uint64_t bench_work(uint64_t count) {
    const char *quick = getenv("BENCH_QUICK");
    if (quick == NULL || strcmp(quick, "1") != 0) return count;
    return count < 100 ? 1 : count / 100;
}

/* From now on this thread, and those that it creates, run on the processor with this number among those allowed. */
BENCH_INLINE void bench_stay_on_processor(unsigned index) {
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) bench_fail("sched_getaffinity failed");
    if (index >= (unsigned)CPU_COUNT(&allowed)) bench_fail("there are too few processors");
    int cpu = 0;
    for (unsigned left = index; !CPU_ISSET(cpu, &allowed) || left-- != 0;) cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (pthread_setaffinity_np(pthread_self(), sizeof one, &one) != 0) bench_fail("cannot choose a processor");
}

/* A program with several modes: the first argument chooses one, numbers follow, one for each word of `arguments`. */
struct bench_mode {
    const char *name, *arguments, *text;
    void (*run)(const uint64_t *numbers);
};
#define BENCH_NUMBERS_MOST 4
/* For what not every number is good for. */
BENCH_INLINE unsigned bench_in_range(uint64_t number, unsigned least, unsigned most, const char *what) {
    if (number >= least && number <= most) return (unsigned)number;
    fprintf(stderr, "%s: %s is from %u to %u\n", program_invocation_short_name, what, least, most);
    exit(2);
}
BENCH_INLINE int bench_run_mode(int argc, char **argv, const struct bench_mode *modes, size_t count) {
    bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    for (size_t i = 0; i < count && argc > 1; i++) {
        if (strcmp(argv[1], modes[i].name) != 0) continue;
        int words = 1;
        for (const char *at = modes[i].arguments; *at != '\0'; at++) words += *at == ' ';
        if (words != argc - 2) break;
        uint64_t numbers[BENCH_NUMBERS_MOST];
        for (int n = 0; n < words; n++)
            numbers[n] = bench_argument(argc, argv, n + 2, "each argument", 0, UINT32_MAX, 0);
        modes[i].run(numbers);
        return 0;
    }
    for (size_t i = 0; i < count; i++)
        fprintf(help ? stdout : stderr, "%s %s %s %s\n        %s\n", i == 0 ? "usage:" : "      ",
                program_invocation_short_name, modes[i].name, modes[i].arguments, modes[i].text);
    return help ? 0 : 2;
}

/* How many blocks were allocated or resized, for figures per operation. */
BENCH_INLINE void bench_tell_operations(uint64_t count) {
    printf("operations: %llu blocks\n", (unsigned long long)count);
}

#endif
