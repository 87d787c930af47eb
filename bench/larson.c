/* The Larson benchmark: a server whose requests come and go. Each line of threads owns an array of chunks and replaces
 * random ones; after `rounds` passes over the array a thread hands it over to a successor and ends, so that chunks are
 * freed by other threads than those that allocated them. One operation is one replacement: a free and a malloc.
 * Every chunk carries marks, which are checked before it is freed. */
#include "bench.h"

#include <semaphore.h>
#include <stdatomic.h>

struct chunk {
    char *ptr;
    size_t size;
};

/* What a thread hands over to its successor. */
struct line {
    struct chunk *chunks;
    struct bench_random random;
    pthread_t predecessor;        /* if `threads` is more than 1 */
    uint64_t operations, threads; /* so far */
};

static size_t size_min, size_max, chunks_per_thread, rounds;
static atomic_bool stop;
static sem_t lines_ended;

/* ---- chunks -------------------------------------------------------------------------------------------------- */

/* The first bytes of a chunk, up to eight, and its last eight where they are others. */
static uint64_t mark_of(const struct chunk *chunk) {
    return ((uint64_t)(uintptr_t)chunk->ptr ^ chunk->size) * 0x9e3779b97f4a7c15U;
}

static struct chunk chunk_make(struct bench_random *random) {
    size_t size = bench_random_between(random, size_min, size_max);
    struct chunk chunk = {.ptr = malloc(size), .size = size};
    if (chunk.ptr == NULL) bench_fail("malloc returned NULL");
    uint64_t head = mark_of(&chunk), tail = ~head;
    memcpy(chunk.ptr, &head, size < sizeof head ? size : sizeof head);
    if (size >= 2 * sizeof head) memcpy(chunk.ptr + size - sizeof tail, &tail, sizeof tail);
    return chunk;
}

static void chunk_free(const struct chunk *chunk) {
    uint64_t head = mark_of(chunk), tail = ~head;
    bool intact = memcmp(chunk->ptr, &head, chunk->size < sizeof head ? chunk->size : sizeof head) == 0;
    if (chunk->size >= 2 * sizeof head)
        intact = intact && memcmp(chunk->ptr + chunk->size - sizeof tail, &tail, sizeof tail) == 0;
    if (!intact) bench_fail("a chunk is not as it was written");
    free(chunk->ptr);
}

/* ---- threads ------------------------------------------------------------------------------------------------- */

static void *thread_main(void *argument);

static void thread_start(struct line *line) {
    pthread_t thread;
    line->threads++;
    if (pthread_create(&thread, NULL, thread_main, line) != 0) bench_fail("pthread_create failed");
}

static void *thread_main(void *argument) {
    struct line *line = argument;
    for (size_t i = 0; i < rounds * chunks_per_thread; i++) {
        if (atomic_load_explicit(&stop, memory_order_relaxed)) break;
        struct chunk *chunk = &line->chunks[bench_random_below(&line->random, chunks_per_thread)];
        chunk_free(chunk);
        *chunk = chunk_make(&line->random);
        line->operations++;
    }
    if (line->threads > 1) pthread_join(line->predecessor, NULL);
    line->predecessor = pthread_self();
    if (atomic_load(&stop)) sem_post(&lines_ended);
    else thread_start(line);
    return NULL;
}

static double seconds_argument(const char *text) {
    char *end;
    double seconds = strtod(text, &end);
    if (end != text && *end == '\0' && seconds > 0 && seconds <= 86400) return seconds;
    fprintf(stderr, "%s: seconds is a number over 0 and up to 86400, not '%s'\n", program_invocation_short_name, text);
    exit(2);
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 7, 7, "SECONDS MIN_SIZE MAX_SIZE CHUNKS_PER_THREAD ROUNDS SEED THREADS");
    double seconds = seconds_argument(argv[1]);
    size_min = bench_argument(argc, argv, 2, "min", 1, UINT64_C(1) << 32, 0);
    size_max = bench_argument(argc, argv, 3, "max", size_min, UINT64_C(1) << 32, 0);
    chunks_per_thread = bench_argument(argc, argv, 4, "chunks_per_thread", 1, 1 << 24, 0);
    rounds = bench_argument(argc, argv, 5, "rounds", 1, 1 << 30, 0);
    uint64_t seed = bench_argument(argc, argv, 6, "seed", 0, UINT64_MAX, 0);
    unsigned threads = (unsigned)bench_argument(argc, argv, 7, "threads", 1, 4096, 0);

    struct line *lines = bench_map(threads * sizeof *lines);
    sem_init(&lines_ended, 0, 0);
    for (unsigned i = 0; i < threads; i++) {
        lines[i].random.state = seed + i * UINT64_C(0xd1342543de82ef95);
        lines[i].chunks = bench_map(chunks_per_thread * sizeof *lines[i].chunks);
        for (size_t j = 0; j < chunks_per_thread; j++) lines[i].chunks[j] = chunk_make(&lines[i].random);
    }

    uint64_t begin = bench_now_ns();
    for (unsigned i = 0; i < threads; i++) thread_start(&lines[i]);
    struct timespec pause = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&pause, NULL);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < threads; i++) sem_wait(&lines_ended);
    double took = (double)(bench_now_ns() - begin) / 1e9;

    uint64_t operations = 0, started = 0;
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(lines[i].predecessor, NULL);
        for (size_t j = 0; j < chunks_per_thread; j++) chunk_free(&lines[i].chunks[j]);
        operations += lines[i].operations;
        started += lines[i].threads;
    }
    printf("throughput: %.0f ops/s\n", (double)operations / took);
    printf("threads started: %llu threads\n", (unsigned long long)started);
    return 0;
}
