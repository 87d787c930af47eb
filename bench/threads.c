/* Many threads: each mode is one way in which they share blocks, with a fixed number of operations among them all. */
#include <stdatomic.h>
#include <unistd.h>
#include "bench.h"

/* What each of `threads` has to do of all. */
static uint64_t share(uint64_t count, uint64_t threads) {
    count = bench_work(count);
    return count < threads ? 1 : count / threads;
}

#define THREADS_MOST 4096
static unsigned thread_count(uint64_t threads, unsigned least) {
    return bench_in_range(threads, least, THREADS_MOST, "THREADS");
}

/* ---- queue: one half allocates, the other frees ------------------------------------------------------------------ */

#define MESSAGE_BLOCKS 64
#define QUEUE_MESSAGES 256
struct message {
    unsigned count;
    void *blocks[MESSAGE_BLOCKS];
};
struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t not_empty, not_full;
    unsigned producers;
    uint64_t put, taken, messages_each;
    struct message *messages[QUEUE_MESSAGES];
};

static void put_message(struct queue *queue, struct message *message) {
    pthread_mutex_lock(&queue->mutex);
    while (queue->put - queue->taken == QUEUE_MESSAGES) pthread_cond_wait(&queue->not_full, &queue->mutex);
    queue->messages[queue->put++ % QUEUE_MESSAGES] = message;
    pthread_cond_signal(&queue->not_empty);
    pthread_mutex_unlock(&queue->mutex);
}

/* NULL when no more come. */
static struct message *take_message(struct queue *queue) {
    struct message *message = NULL;
    pthread_mutex_lock(&queue->mutex);
    while (queue->put == queue->taken && queue->producers != 0) pthread_cond_wait(&queue->not_empty, &queue->mutex);
    if (queue->put != queue->taken) message = queue->messages[queue->taken++ % QUEUE_MESSAGES];
    pthread_cond_signal(&queue->not_full);
    pthread_mutex_unlock(&queue->mutex);
    return message;
}

static void produce(unsigned index, struct queue *queue) {
    struct bench_random random = {index};
    for (uint64_t i = 0; i < queue->messages_each; i++) {
        struct message *message = bench_malloc(sizeof *message);
        message->count = MESSAGE_BLOCKS;
        for (unsigned k = 0; k < MESSAGE_BLOCKS; k++)
            message->blocks[k] = bench_block_new(bench_random_between(&random, 16, 256));
        put_message(queue, message);
    }
    pthread_mutex_lock(&queue->mutex);
    if (--queue->producers == 0) pthread_cond_broadcast(&queue->not_empty);
    pthread_mutex_unlock(&queue->mutex);
}

static void consume(struct queue *queue) {
    for (struct message *message; (message = take_message(queue)) != NULL; free(message))
        for (unsigned k = 0; k < message->count; k++) bench_block_free(message->blocks[k]);
}

static void produce_or_consume(unsigned index, void *data) {
    if (index % 2 == 0) produce(index, data);
    else consume(data);
}

static void run_queue(const uint64_t *numbers) {
    static struct queue queue = {.mutex = PTHREAD_MUTEX_INITIALIZER,
                                 .not_empty = PTHREAD_COND_INITIALIZER,
                                 .not_full = PTHREAD_COND_INITIALIZER};
    unsigned threads = thread_count(numbers[0], 2), producers = (threads + 1) / 2;
    queue.producers = producers;
    queue.messages_each = share(numbers[1], (uint64_t)producers * (MESSAGE_BLOCKS + 1));
    bench_threads(threads, produce_or_consume, &queue);
    if (queue.put != producers * queue.messages_each || queue.taken != queue.put) bench_fail("a message was lost");
    bench_tell_operations(queue.put * (MESSAGE_BLOCKS + 1));
}

/* ---- exchange: every thread frees what any allocated ---------------------------------------------------------------
 */

#define EXCHANGE_SLOTS 4096
static _Atomic(void *) exchange_slots[EXCHANGE_SLOTS];

static void *swap_slot(uint64_t slot, void *block) {
    return atomic_exchange_explicit(&exchange_slots[slot], block, memory_order_acq_rel);
}

static void exchange(unsigned index, void *data) {
    const uint64_t *count = data;
    struct bench_random random = {index};
    for (uint64_t i = 0; i < *count; i++) {
        void *block = bench_block_new(bench_random_between(&random, 16, 1024));
        bench_block_free(swap_slot(bench_random_below(&random, EXCHANGE_SLOTS), block));
    }
}
static void run_exchange(const uint64_t *numbers) {
    unsigned threads = thread_count(numbers[0], 1);
    uint64_t count = share(numbers[1], threads);
    bench_threads(threads, exchange, &count);
    for (unsigned i = 0; i < EXCHANGE_SLOTS; i++) bench_block_free(swap_slot(i, NULL));
    bench_tell_operations(threads * count);
}

/* ---- server: phases of threads that keep blocks, pass some on, leave some behind, and end
 * ---------------------------- */

#define SERVER_PHASES 50
#define SERVER_KEPT 1024

static void serve(unsigned index, void *data) {
    const uint64_t *count = data;
    static atomic_uint thread_number;
    struct bench_random random = {index + ((uint64_t)atomic_fetch_add(&thread_number, 1) << 32)};
    void **kept = bench_malloc(SERVER_KEPT * sizeof *kept);
    unsigned many = 0;
    for (uint64_t i = 0; i < *count; i++) {
        if (many == SERVER_KEPT) {
            while (many > SERVER_KEPT / 2) bench_block_free(kept[--many]);
        }
        kept[many++] = bench_block_new(bench_random_skewed(&random, 16, 12));
        uint64_t chosen = bench_random_below(&random, many);
        if (i % 2 == 0) {
            bench_block_free(kept[chosen]);
            kept[chosen] = kept[--many];
        } else if (i % 4 == 1) {
            kept[chosen] = swap_slot(bench_random_below(&random, EXCHANGE_SLOTS / 4), kept[chosen]);
            if (kept[chosen] == NULL) kept[chosen] = kept[--many];
        }
    }
    while (many > 0) bench_block_free(kept[--many]);
    free(kept);
}
static void run_server(const uint64_t *numbers) {
    unsigned threads = thread_count(numbers[0], 1);
    uint64_t count = share(numbers[1], threads * SERVER_PHASES);
    struct bench_random random = {12345};
    for (unsigned phase = 0; phase < SERVER_PHASES; phase++) {
        bench_threads(threads, serve, &count);
        for (unsigned i = 0; i < EXCHANGE_SLOTS / 16; i++)
            bench_block_free(swap_slot(bench_random_below(&random, EXCHANGE_SLOTS / 4), NULL));
    }
    for (unsigned i = 0; i < EXCHANGE_SLOTS; i++) bench_block_free(swap_slot(i, NULL));
    bench_tell_operations(threads * count * SERVER_PHASES);
}

/* ---- false sharing: do blocks of different threads lie in one cache line?
 * --------------------------------------------- */

#define SHARING_BLOCKS 8
#define SHARING_WRITES 100 /* to each block */
struct sharing {
    unsigned threads;
    uint64_t count;                                  /* how often SHARING_BLOCKS are allocated by each thread */
    void *neighbours[THREADS_MOST * SHARING_BLOCKS]; /* allocated one after the other, taken by the threads in turn */
};

static void write_often(unsigned index, void *data) {
    const struct sharing *sharing = data;
    volatile unsigned char *blocks[SHARING_BLOCKS];
    for (unsigned k = 0; k < SHARING_BLOCKS; k++) free(sharing->neighbours[k * sharing->threads + index]);
    for (uint64_t i = 0; i < sharing->count; i++) {
        for (unsigned k = 0; k < SHARING_BLOCKS; k++) *(blocks[k] = bench_malloc(8)) = 0;
        for (unsigned write = 0; write < SHARING_WRITES; write++)
            for (unsigned k = 0; k < SHARING_BLOCKS; k++) ++*blocks[k];
        for (unsigned k = 0; k < SHARING_BLOCKS; k++) {
            if (*blocks[k] != SHARING_WRITES) bench_fail("another thread wrote to a block");
            free((void *)blocks[k]);
        }
    }
}
static void share_lines(const uint64_t *numbers, bool passive) {
    unsigned threads = thread_count(numbers[0], 1);
    struct sharing *sharing = bench_map(sizeof *sharing);
    sharing->threads = threads;
    sharing->count = share(numbers[1], (uint64_t)threads * SHARING_BLOCKS);
    for (unsigned i = 0; passive && i < threads * SHARING_BLOCKS; i++) sharing->neighbours[i] = bench_malloc(8);
    bench_threads(threads, write_often, sharing);
    bench_tell_operations(threads * sharing->count * SHARING_BLOCKS);
}
static void run_active(const uint64_t *numbers) { share_lines(numbers, false); }
static void run_passive(const uint64_t *numbers) { share_lines(numbers, true); }

/* ---- requests: a thread for each -------------------------------------------------------------------------------- */

#define REQUEST_BLOCKS_MOST 4096
struct requests {
    uint64_t count, blocks;
};
struct request {
    pthread_t thread;
    uint64_t seed, blocks;
    void *answer;
};

static void *answer_request(void *argument) {
    struct request *request = argument;
    struct bench_random random = {request->seed};
    void *blocks[REQUEST_BLOCKS_MOST];
    request->answer = bench_block_new(bench_random_skewed(&random, 16, 8));
    for (uint64_t i = 1; i < request->blocks; i++) blocks[i] = bench_block_new(bench_random_skewed(&random, 16, 8));
    for (uint64_t i = 1; i < request->blocks; i++) bench_block_free(blocks[i]);
    return NULL;
}
static void take_requests(unsigned index, void *data) {
    const struct requests *requests = data;
    for (uint64_t i = 0; i < requests->count; i++) {
        struct request request = {.seed = i + ((uint64_t)index << 32), .blocks = requests->blocks};
        if (pthread_create(&request.thread, NULL, answer_request, &request) != 0) bench_fail("pthread_create failed");
        pthread_join(request.thread, NULL);
        bench_block_free(request.answer);
    }
}
static void run_requests(const uint64_t *numbers) {
    unsigned threads = thread_count(numbers[0], 1);
    struct requests requests = {.count = share(numbers[2], threads),
                                .blocks = bench_in_range(numbers[1], 1, REQUEST_BLOCKS_MOST, "BLOCKS")};
    bench_threads(threads, take_requests, &requests);
    bench_tell_operations(threads * requests.count * requests.blocks);
}

/* On one processor: a thread that ends while its creator is on its way to sleep on another costs the system 20 µs more
 * than one that lasts for 10 µs, so that the slowest allocator would seem fastest. */
static void run_start(const uint64_t *numbers) {
    const uint64_t requests[] = {1, 1, numbers[0]};
    bench_stay_on_processor(0);
    run_requests(requests);
}

/* ---- idle: one works, the others wait --------------------------------------------------------------------------- */

#define IDLE_SET 4096
struct idle {
    pthread_barrier_t started, ended;
    uint64_t count;
};

static void work_or_wait(unsigned index, void *data) {
    struct idle *idle = data;
    struct bench_random random = {index};
    void **blocks = bench_map(IDLE_SET * sizeof *blocks);
    for (unsigned i = 0; i < IDLE_SET; i++) blocks[i] = bench_block_new(bench_random_between(&random, 16, 1024));
    for (unsigned i = 0; i < IDLE_SET / 2; i++) bench_block_free(blocks[i]);
    memset(blocks, 0, IDLE_SET / 2 * sizeof *blocks);
    pthread_barrier_wait(&idle->started);
    for (uint64_t i = 0; index == 0 && i < idle->count; i++) {
        void **block = &blocks[bench_random_below(&random, IDLE_SET)];
        bench_block_free(*block);
        *block = bench_block_new(bench_random_between(&random, 16, 1024));
    }
    pthread_barrier_wait(&idle->ended);
    for (unsigned i = 0; i < IDLE_SET; i++) bench_block_free(blocks[i]);
}
static void run_idle(const uint64_t *numbers) {
    static struct idle idle;
    unsigned threads = thread_count(numbers[0], 1);
    idle.count = bench_work(numbers[1]);
    pthread_barrier_init(&idle.started, NULL, threads);
    pthread_barrier_init(&idle.ended, NULL, threads);
    bench_threads(threads, work_or_wait, &idle);
    bench_tell_operations(idle.count + (uint64_t)threads * IDLE_SET);
}

int main(int argc, char **argv) {
    static const struct bench_mode modes[] = {
        {"queue", "THREADS COUNT", "half of the threads allocate, the others free what comes through a queue",
         run_queue},
        {"exchange", "THREADS COUNT", "all allocate, put it into one table and free what was there", run_exchange},
        {"server", "THREADS COUNT", "phases of threads that keep blocks, pass on, leave some behind, and end",
         run_server},
        {"active", "THREADS COUNT", "each writes often to 8-byte blocks that it allocated itself", run_active},
        {"passive", "THREADS COUNT", "the same after freeing some that lay between those of the others", run_passive},
        {"requests", "THREADS BLOCKS COUNT", "COUNT requests, a thread of its own each, THREADS at a time",
         run_requests},
        {"start", "COUNT", "the same with one block each, one at a time, on one processor", run_start},
        {"idle", "THREADS COUNT", "one thread allocates and frees while the others wait", run_idle},
    };
    return bench_run_mode(argc, argv, modes, sizeof modes / sizeof *modes);
}
