/* Simulates hakmem's L2.5 pool on many processors: discrete events, in virtual time.
 *
 * What runs is the library itself, linked as its release objects, on as many virtual processors as asked for: malloc
 * and free, the shards with their ring of try-locks, the checks of each interval and the doubling of the table. Only
 * time is simulated. Each virtual processor is a fiber with a clock of its own; at every request for a shard's lock the
 * one whose clock is least goes on, so that requests come in the order of virtual time. How long a lock is held, what a
 * failed try-lock, a wait, a system call and the rest of malloc, free and the program take is replayed from a record of
 * a real run (l25_record): each processor reads the record from a place of its own, in order. A lock whose last holder
 * was another processor takes a time from those that were recorded so.
 *
 * Not simulated: other locks than the shards' (they are free at once), processors that run short of memory bandwidth,
 * the kernel's own locks, page faults in blocks that were purged, and threads that lose their processor. */
#include <ucontext.h>

#include "bench.h"
#include "l25_record.h"

#include "base/sync.h"
#include "base/sys.h"
#include "front/heap.h"
#include "hakmem.h"
#include "stores/l25_shard.h"

#define CORES_MAX 1024
#define STACK_BYTES ((size_t)64 << 10)
/* The clock of the allocator, in milliseconds, when virtual time begins. */
#define EPOCH_MS 1000

struct record {
    uint32_t *ns;
    size_t count;
};
static struct record records[L25_KINDS];

static struct core {
    ucontext_t context;
    uint64_t now;
    struct bench_random random;
    size_t place[L25_KINDS]; /* next in the records */
    bool in_free;
    struct hak_heap *heap; /* its hak_tls_heap */
    void *key_value;       /* its pthread_getspecific */
    uint64_t operations;   /* that ended while it was measured */
    char *block;
} cores[CORES_MAX], outside;
static struct core *self; /* NULL: not within the simulation */
static unsigned core_count;
static uint64_t begin_ns, end_ns; /* of what is measured */
static uint64_t tries, misses;    /* in that time */
static uint64_t all_misses;
static size_t size_min, size_max;

/* A shard's lock: when it is free, and whose it was last. */
static struct {
    uint64_t free_at;
    const struct core *holder;
} locks[1024];

static uint64_t replay(enum l25_kind kind) {
    const struct record *record = &records[kind];
    return record->ns[self->place[kind]++ % record->count];
}

/* ---- events --------------------------------------------------------------------------------------------------- */

/* The cores in a heap: the one with the least clock first. */
static struct core *queue[CORES_MAX];
static unsigned queued;

static void sift_down(unsigned at) {
    struct core *core = queue[at];
    for (unsigned child; (child = 2 * at + 1) < queued; at = child) {
        if (child + 1 < queued && queue[child + 1]->now < queue[child]->now) child++;
        if (core->now <= queue[child]->now) break;
        queue[at] = queue[child];
    }
    queue[at] = core;
}

static void switch_to(struct core *next) {
    struct core *from = self;
    from->heap = hak_tls_heap;
    self = next;
    hak_tls_heap = next->heap;
    swapcontext(&from->context, &next->context);
}

/* Comes back when no other core is behind this one, which is first in the queue while it runs. */
static void wait_for_turn(void) {
    sift_down(0);
    if (queue[0] != self) switch_to(queue[0]);
}

/* ---- what the allocator calls --------------------------------------------------------------------------------- */

bool __real_hak_lock_try(struct hak_lock *lock);
void __real_hak_lock(struct hak_lock *lock);
void __real_hak_unlock(struct hak_lock *lock);
void *__real_hak_sys_map(size_t bytes);
bool __real_hak_sys_unmap(void *ptr, size_t bytes);
uint64_t __real_hak_sys_now_ms(void);
void *__real_pthread_getspecific(pthread_key_t key);
int __real_pthread_setspecific(pthread_key_t key, const void *value);
bool __wrap_hak_lock_try(struct hak_lock *lock);
void __wrap_hak_lock(struct hak_lock *lock);
void __wrap_hak_unlock(struct hak_lock *lock);
void *__wrap_hak_sys_map(size_t bytes);
bool __wrap_hak_sys_unmap(void *ptr, size_t bytes);
bool __wrap_hak_sys_purge(void *ptr, size_t bytes);
uint64_t __wrap_hak_sys_now_ms(void);
void *__wrap_pthread_getspecific(pthread_key_t key);
int __wrap_pthread_setspecific(pthread_key_t key, const void *value);

static bool is_simulated(const struct hak_lock *lock) { return self != NULL && lock->rank == HAK_RANK_L25; }

static bool is_measured(void) { return self->now >= begin_ns && self->now < end_ns; }

/* At this core's turn. What the lock guards is changed at once; nobody sees it before the lock is free, but for hints.
 */
static bool take(const struct hak_lock *lock) {
    const uint32_t shard = ((const struct hak_l25_shard *)lock)->index;
    if (locks[shard].free_at > self->now) return false;
    const bool moved = locks[shard].holder != NULL && locks[shard].holder != self;
    locks[shard].holder = self;
    locks[shard].free_at = self->now + replay(self->in_free ? (moved ? L25_FREE_MOVED : L25_FREE_OWN)
                                                            : (moved ? L25_ALLOC_MOVED : L25_ALLOC_OWN));
    return true;
}

bool __wrap_hak_lock_try(struct hak_lock *lock) {
    if (!is_simulated(lock)) return __real_hak_lock_try(lock);
    wait_for_turn();
    tries += is_measured();
    if (take(lock)) return true;
    misses += is_measured();
    all_misses++;
    self->now += replay(L25_MISS);
    return false;
}

void __wrap_hak_lock(struct hak_lock *lock) {
    if (!is_simulated(lock)) {
        __real_hak_lock(lock);
        return;
    }
    for (wait_for_turn(); !take(lock); wait_for_turn())
        self->now = locks[((const struct hak_l25_shard *)lock)->index].free_at + replay(L25_HANDOVER);
}

void __wrap_hak_unlock(struct hak_lock *lock) {
    if (!is_simulated(lock)) __real_hak_unlock(lock);
    else self->now = locks[((const struct hak_l25_shard *)lock)->index].free_at;
}

void *__wrap_hak_sys_map(size_t bytes) {
    if (self != NULL) self->now += replay(L25_MAP);
    return __real_hak_sys_map(bytes);
}

bool __wrap_hak_sys_unmap(void *ptr, size_t bytes) {
    if (self != NULL) self->now += replay(L25_MAP);
    return __real_hak_sys_unmap(ptr, bytes);
}

/* No block is ever written to: its memory reads as zero without the system's help. */
bool __wrap_hak_sys_purge(void *ptr, size_t bytes) {
    (void)ptr, (void)bytes;
    if (self != NULL) self->now += replay(L25_PURGE);
    return true;
}

uint64_t __wrap_hak_sys_now_ms(void) { return self != NULL ? EPOCH_MS + self->now / 1000000 : EPOCH_MS; }

/* The allocator has one key: the thread's heap. */
void *__wrap_pthread_getspecific(pthread_key_t key) {
    return self != NULL ? self->key_value : __real_pthread_getspecific(key);
}

int __wrap_pthread_setspecific(pthread_key_t key, const void *value) {
    if (self == NULL) return __real_pthread_setspecific(key, value);
    self->key_value = (void *)(uintptr_t)value;
    return 0;
}

/* ---- what the cores do ---------------------------------------------------------------------------------------- */

static void replace_block(void) {
    self->in_free = true;
    self->now += replay(L25_FREE_REST);
    free(self->block);
    self->in_free = false;
    self->now += replay(L25_ALLOC_REST);
    self->block = malloc(bench_random_between(&self->random, size_min, size_max));
    if (self->block == NULL) bench_fail("malloc returned NULL");
}

static void core_main(void) {
    while (self->now < end_ns) {
        replace_block();
        self->operations += is_measured();
    }
    free(self->block);
    /* The last one in the queue takes the place of this core. */
    queue[0] = queue[--queued];
    if (queued != 0) sift_down(0);
    switch_to(queued != 0 ? queue[0] : &outside);
}

static void start_core(struct core *core, uint64_t seed) {
    core->random.state = seed;
    core->now = bench_random_below(&core->random, 1000);
    for (unsigned kind = 0; kind < L25_KINDS; kind++)
        core->place[kind] = bench_random_below(&core->random, records[kind].count);
    core->heap = hak_heap_initial();
    getcontext(&core->context);
    core->context.uc_stack.ss_sp = bench_map(STACK_BYTES);
    core->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&core->context, core_main, 0);
    queue[queued++] = core;
}

static void simulate(void) {
    for (unsigned i = 0; i < core_count; i++) start_core(&cores[i], i + 1);
    for (unsigned i = queued; i-- != 0;) sift_down(i);
    self = &outside;
    outside.heap = hak_tls_heap;
    switch_to(queue[0]);
    self = NULL;
}

/* ---- the record ----------------------------------------------------------------------------------------------- */

static void read_record(const char *path) {
    FILE *in = fopen(path, "r");
    char name[32];
    unsigned ns;
    if (in == NULL) bench_fail("cannot read the record");
    if (fscanf(in, "kind ns") == EOF) bench_fail("the record is empty");
    for (unsigned kind = 0; kind < L25_KINDS; kind++) records[kind].ns = bench_map((sizeof *records->ns) << 20);
    while (fscanf(in, "%31s %u", name, &ns) == 2)
        for (unsigned kind = 0; kind < L25_KINDS; kind++)
            if (strcmp(name, l25_kind_names[kind]) == 0 && records[kind].count < 1U << 20)
                records[kind].ns[records[kind].count++] = ns;
    if (!feof(in)) bench_fail("the record has a line that is none");
    fclose(in);
    for (unsigned kind = 0; kind < L25_KINDS; kind++)
        if (records[kind].count == 0) bench_fail("the record lacks a kind of times");
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 4, 6, "RECORD CORES WARM_UP_MS MEASURED_MS [MIN_SIZE [MAX_SIZE]]");
    core_count = (unsigned)bench_argument(argc, argv, 2, "CORES", 1, CORES_MAX, 0);
    begin_ns = bench_argument(argc, argv, 3, "WARM_UP_MS", 0, 100000, 0) * 1000000;
    end_ns = begin_ns + bench_argument(argc, argv, 4, "MEASURED_MS", 1, 100000, 0) * 1000000;
    size_min = bench_argument(argc, argv, 5, "MIN_SIZE", 32769, HAK_L25_MAX, 32769);
    size_max = bench_argument(argc, argv, 6, "MAX_SIZE", size_min, HAK_L25_MAX, size_min > 65536 ? size_min : 65536);
    read_record(argv[1]);
    simulate();

    uint64_t operations = 0;
    for (unsigned i = 0; i < core_count; i++) operations += cores[i].operations;
    if (tries == 0 || operations == 0) bench_fail("nothing was measured");
    hak_purge();
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    hak_stats_get(&stats);
    if (stats.l25_lock_misses != all_misses) bench_fail("the pool has other locks than those simulated");
    printf("throughput: %.0f operations/s\n", (double)operations * 1e9 / (double)(end_ns - begin_ns));
    printf("failed: %.4f percent\n", (double)misses * 100 / (double)tries);
    printf("shards: %llu\n", (unsigned long long)stats.l25_shards);
    printf("stranded: %llu bytes\n", (unsigned long long)stats.layer[HAK_LAYER_L25].mapped_bytes);
    return 0;
}
