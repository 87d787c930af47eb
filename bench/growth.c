/* What an operation costs as one thing grows while all else stays: the live heap, the threads, the sizes in use, the
 * share of blocks that another thread frees. An operation is a block freed and another allocated; its cost is processor
 * time, waiting included: wall time times the processors that the threads could have used. */
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>
#include "bench.h"

#define BYTES_LEAST 16
#define BYTES_MOST 1024

static void tell(uint64_t took_ns, uint64_t operations, unsigned threads) {
    uint64_t processors = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
    if (threads < processors) processors = threads;
    printf("ns_per_op: %.2f ns\n", (double)(took_ns * processors) / (double)operations);
    bench_tell_operations(operations);
}

/* ---- random-mixed ---------------------------------------------------------------------------------------------------
 */

struct mixed {
    uint64_t working_set, count, sizes; /* how many different sizes, 0 for all */
};

static size_t next_size(struct bench_random *random, uint64_t sizes) {
    if (sizes == 0) return bench_random_between(random, BYTES_LEAST, BYTES_MOST);
    /* In the middle of each part of the same range, so that the mean stays. */
    return BYTES_LEAST + (2 * bench_random_below(random, sizes) + 1) * (BYTES_MOST - BYTES_LEAST) / (2 * sizes);
}
static void **mixed_begin(const struct mixed *mixed, struct bench_random *random) {
    void **blocks = bench_map(mixed->working_set * sizeof *blocks);
    for (uint64_t i = 0; i < mixed->working_set; i++) blocks[i] = bench_block_new(next_size(random, mixed->sizes));
    return blocks;
}
static void mixed_go_on(const struct mixed *mixed, struct bench_random *random, void **blocks) {
    for (uint64_t i = 0; i < mixed->count; i++) {
        void **block = &blocks[bench_random_below(random, mixed->working_set)];
        free(*block);
        *block = bench_block_new(next_size(random, mixed->sizes));
    }
}
static void mixed_end(const struct mixed *mixed, void **blocks) {
    for (uint64_t i = 0; i < mixed->working_set; i++) bench_block_free(blocks[i]);
    munmap(blocks, mixed->working_set * sizeof *blocks);
}

/* Filling the heap is not timed. */
static void mixed_alone(struct mixed mixed) {
    struct bench_random random = {12345};
    void **blocks = mixed_begin(&mixed, &random);
    uint64_t begin = bench_now_ns();
    mixed_go_on(&mixed, &random, blocks);
    tell(bench_now_ns() - begin, mixed.count, 1);
    mixed_end(&mixed, blocks);
}
static void heap(const uint64_t *numbers) {
    uint64_t bytes = bench_work(bench_in_range(numbers[1], 1, 1 << 20, "MIB")) << 20;
    mixed_alone(
        (struct mixed){.working_set = bytes / ((BYTES_LEAST + BYTES_MOST) / 2), .count = bench_work(numbers[0])});
}
static void classes(const uint64_t *numbers) {
    unsigned sizes = bench_in_range(numbers[1], 1, (BYTES_MOST - BYTES_LEAST) / 16, "SIZES");
    mixed_alone((struct mixed){.working_set = 4096, .count = bench_work(numbers[0]), .sizes = sizes});
}

static void mixed_body(unsigned index, void *data) {
    const struct mixed *mixed = data;
    struct bench_random random = {index};
    void **blocks = mixed_begin(mixed, &random);
    mixed_go_on(mixed, &random, blocks);
    mixed_end(mixed, blocks);
}
static void threads(const uint64_t *numbers) {
    unsigned many = bench_in_range(numbers[1], 1, 4096, "THREADS");
    struct mixed mixed = {.working_set = 256, .count = bench_work(numbers[0]) / many};
    uint64_t took = bench_threads(many, mixed_body, &mixed);
    tell(took, many * (mixed.working_set + mixed.count), many);
}

/* ---- two threads that send each other a share of their blocks
 * --------------------------------------------------------- */

#define PARCEL_BLOCKS 256
#define RING_PARCELS 64
struct parcel {
    unsigned count;
    void *blocks[PARCEL_BLOCKS];
};
struct ring {
    _Alignas(128) atomic_uint sent;
    _Alignas(128) atomic_uint received;
    struct parcel parcels[RING_PARCELS];
};
struct remote {
    struct ring to[2]; /* the parcels on their way to each thread */
    atomic_uint working;
    uint64_t parcels_each, percent;
};

static bool receive(struct ring *ring) {
    unsigned received = atomic_load_explicit(&ring->received, memory_order_relaxed);
    if (received == atomic_load_explicit(&ring->sent, memory_order_acquire)) return false;
    struct parcel *parcel = &ring->parcels[received % RING_PARCELS];
    for (unsigned i = 0; i < parcel->count; i++) bench_block_free(parcel->blocks[i]);
    atomic_store_explicit(&ring->received, received + 1, memory_order_release);
    return true;
}
static void send_and_receive(unsigned index, void *data) {
    struct remote *remote = data;
    struct ring *out = &remote->to[1 - index], *in = &remote->to[index];
    struct bench_random random = {index};
    uint64_t rest = 0;
    for (unsigned sent = 0; sent < remote->parcels_each; sent++) {
        while (sent - atomic_load_explicit(&out->received, memory_order_acquire) == RING_PARCELS)
            if (!receive(in)) sched_yield();
        struct parcel *parcel = &out->parcels[sent % RING_PARCELS];
        void *own[PARCEL_BLOCKS];
        unsigned owned = 0;
        parcel->count = 0;
        for (unsigned i = 0; i < PARCEL_BLOCKS; i++) {
            void *block = bench_block_new(bench_random_between(&random, BYTES_LEAST, BYTES_MOST));
            rest += remote->percent;
            if (rest < 100) {
                own[owned++] = block;
            } else {
                parcel->blocks[parcel->count++] = block;
                rest -= 100;
            }
        }
        for (unsigned i = 0; i < owned; i++) bench_block_free(own[i]);
        atomic_store_explicit(&out->sent, sent + 1, memory_order_release);
        while (receive(in)) {
        }
    }
    atomic_fetch_sub(&remote->working, 1);
    while (atomic_load(&remote->working) != 0)
        if (!receive(in)) sched_yield();
    while (receive(in)) {
    }
}
static void remote_frees(const uint64_t *numbers) {
    struct remote *remote = bench_map(sizeof *remote);
    remote->working = 2;
    remote->parcels_each = bench_work(numbers[0]) / (2 * PARCEL_BLOCKS);
    remote->percent = bench_in_range(numbers[1], 0, 100, "PERCENT");
    uint64_t took = bench_threads(2, send_and_receive, remote);
    tell(took, 2 * remote->parcels_each * PARCEL_BLOCKS, 2);
}

int main(int argc, char **argv) {
    static const struct bench_mode modes[] = {
        {"heap", "COUNT MIB", "a random block of MIB MiB replaced", heap},
        {"threads", "COUNT THREADS", "a random one of 256 blocks replaced, in each of THREADS threads", threads},
        {"classes", "COUNT SIZES", "a random one of 4,096 blocks replaced, of SIZES different sizes", classes},
        {"remote", "COUNT PERCENT", "two threads, PERCENT of the blocks freed by the other one", remote_frees},
    };
    return bench_run_mode(argc, argv, modes, sizeof modes / sizeof *modes);
}
