/* build: -pthread */
/* Blocks that one thread makes and another frees: memory follows what is live, not what passed through. */
#include "support/life.h"

enum { QUEUE_SLOTS = 1 << 16, MAX_PRODUCERS = 16 };

static const size_t live_bytes = 32 * LIFE_MIB; /* the bound that producers keep, each its part of it */

/* A queue of many producers and one consumer. It lies in static memory and is guarded by a mutex and two conditions. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t not_full, not_empty;
    void *block[QUEUE_SLOTS];
    size_t head, tail; /* blocks ever put in, taken out */
    size_t bytes;      /* requested bytes of what is in it */
    size_t bytes_of[MAX_PRODUCERS];
    unsigned char maker[QUEUE_SLOTS];
    size_t peak;
    size_t producers; /* that still run */
    size_t quota;     /* bytes that each may have in it */
    size_t damaged;
} queue = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .not_full = PTHREAD_COND_INITIALIZER, .not_empty = PTHREAD_COND_INITIALIZER};

struct production {
    size_t min_size, max_size, bytes, producers;
};

static void put(void *block, size_t maker) {
    size_t size = life_size_of(block);
    pthread_mutex_lock(&queue.lock);
    while (queue.bytes_of[maker] + size > queue.quota || queue.head - queue.tail == QUEUE_SLOTS) {
        pthread_cond_wait(&queue.not_full, &queue.lock);
    }
    queue.maker[queue.head % QUEUE_SLOTS] = (unsigned char)maker;
    queue.block[queue.head++ % QUEUE_SLOTS] = block;
    queue.bytes_of[maker] += size;
    queue.bytes += size;
    queue.peak = queue.bytes > queue.peak ? queue.bytes : queue.peak;
    pthread_cond_signal(&queue.not_empty);
    pthread_mutex_unlock(&queue.lock);
}

/* The next block, once half of what the running producers may have is there; NULL at the end. */
static void *take(void) {
    pthread_mutex_lock(&queue.lock);
    while (queue.producers != 0 && queue.bytes < queue.quota * queue.producers / 2 &&
           queue.head - queue.tail < QUEUE_SLOTS / 2) {
        pthread_cond_wait(&queue.not_empty, &queue.lock);
    }
    void *block = NULL;
    if (queue.head != queue.tail) {
        size_t size = life_size_of(queue.block[queue.tail % QUEUE_SLOTS]);
        queue.bytes_of[queue.maker[queue.tail % QUEUE_SLOTS]] -= size;
        queue.bytes -= size;
        block = queue.block[queue.tail++ % QUEUE_SLOTS];
        pthread_cond_broadcast(&queue.not_full);
    }
    pthread_mutex_unlock(&queue.lock);
    return block;
}

static void *produce_body(void *arg) {
    static atomic_size_t started;
    const struct production *plan = arg;
    size_t maker = atomic_fetch_add(&started, 1);
    uint64_t random = maker;
    for (size_t made = 0; made < plan->bytes / plan->producers;) {
        size_t size = plan->min_size + life_random(&random) % (plan->max_size - plan->min_size + 1);
        void *block = life_make(size);
        if (block == NULL) {
            abort();
        }
        memset((char *)block + 16, 0x5c, size - 16);
        life_stamp(block, size);
        made += size;
        put(block, maker);
    }
    pthread_mutex_lock(&queue.lock);
    --queue.producers;
    pthread_cond_broadcast(&queue.not_empty);
    pthread_mutex_unlock(&queue.lock);
    return NULL;
}

/* Frees and never allocates. */
static void *consume_body(void *arg) {
    (void)arg;
    for (void *block; (block = take()) != NULL;) {
        queue.damaged += !life_drop(block);
    }
    return NULL;
}

static size_t peak_rss; /* sampled by the first thread */

static void watch(size_t base) {
    for (bool more = true; more; life_sleep_ms(20)) {
        size_t rss = life_growth(base, life_rss());
        peak_rss = rss > peak_rss ? rss : peak_rss;
        pthread_mutex_lock(&queue.lock);
        more = queue.producers != 0;
        pthread_mutex_unlock(&queue.lock);
    }
}

/* In a process of its own, so that peaks do not depend on what ran before: 0, or what went wrong. */
static int pipeline(const struct production *plan) {
    pthread_t threads[MAX_PRODUCERS + 1];
    memset(queue.block, 0, sizeof(queue.block));
    memset(queue.maker, 0, sizeof(queue.maker));
    size_t base = life_rss();
    queue.producers = plan->producers;
    queue.quota = live_bytes / plan->producers;
    life_start(threads, plan->producers, produce_body, (void *)plan);
    life_start(threads + plan->producers, 1, consume_body, NULL);
    watch(base);
    life_join(threads, plan->producers + 1);
    size_t bound = queue.peak / 10 * 13 + 8 * LIFE_MIB;
    printf("# %zu producers, %zu..%zu bytes: live %zu KiB, resident %zu KiB, bound %zu KiB\n", plan->producers,
           plan->min_size, plan->max_size, queue.peak >> 10, peak_rss >> 10, bound >> 10);
    fflush(stdout);
    return queue.damaged != 0 || queue.bytes != 0 ? 1 : peak_rss > bound ? 2 : 0;
}

static const struct {
    const char *mode;
    struct production plan;
} pipelines[] = {
    {"one-small", {64, 1024, 512 * LIFE_MIB, 1}},
    {"many-small", {64, 1024, 512 * LIFE_MIB, MAX_PRODUCERS}},
    {"one-mid", {1024, 32768, 2048 * LIFE_MIB, 1}},
    {"many-large", {40000, 900000, 4096 * LIFE_MIB, 4}},
};

static void one_producer_one_consumer_of_small_blocks(void **state) {
    (void)state;
    assert_int_equal(life_rerun("one-small"), 0);
}

static void many_producers_and_a_thread_that_only_frees(void **state) {
    (void)state;
    assert_int_equal(life_rerun("many-small"), 0);
}

static void one_producer_one_consumer_of_middle_blocks(void **state) {
    (void)state;
    assert_int_equal(life_rerun("one-mid"), 0);
}

static void many_producers_of_large_blocks(void **state) {
    (void)state;
    assert_int_equal(life_rerun("many-large"), 0);
}

int main(int argc, char **argv) {
    const char *mode = life_rerun_mode(argc, argv);
    for (size_t i = 0; mode != NULL && i < sizeof(pipelines) / sizeof(pipelines[0]); ++i) {
        if (strcmp(mode, pipelines[i].mode) == 0) {
            return pipeline(&pipelines[i].plan);
        }
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_producer_one_consumer_of_small_blocks),
        cmocka_unit_test(many_producers_and_a_thread_that_only_frees),
        cmocka_unit_test(one_producer_one_consumer_of_middle_blocks),
        cmocka_unit_test(many_producers_of_large_blocks),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, life_setup, NULL);
}
