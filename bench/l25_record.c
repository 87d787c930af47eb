/* Records how long the locks of the L2.5 pool's shards are held, and what lies between, for sim_shards.
 *
 * Linked with the allocator's release objects, whose calls of locks and of the system go through the functions below:
 * nothing else differs from the library. There must be one shard only (HAKMEM_L25_SHARDS_MIN=1
 * HAKMEM_L25_SHARDS_MAX=1). First one thread replaces its block. Then two do, on a processor each, so that the lock and
 * what it guards move between them: with pauses, for holds that find the lock free; and without, for try-locks that
 * fail and for waits.
 *
 * Times are those of the processor's time-stamp counter less what reading it costs. Times longer than INTERRUPTED_NS
 * are of a thread that was interrupted, as by the scheduler: a virtual processor of the simulation never is, so they
 * are only counted. Of each kind the last KEPT of each thread are written. */
#include "bench.h"
#include "l25_record.h"

#include <malloc.h>

#include "base/sync.h"
#include "base/sys.h"
#include "stores/l25_shard.h"

#define KEPT 1000
#define INTERRUPTED_NS 20000
#define PAUSE_NS 2000
#define MAP_ROUNDS 200
/* A thread that has fewer than KEPT times of a kind goes on for so many times the duration. */
#define LONGER 20
#define THREADS_MAX 2

static uint64_t ticks(void) {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return bench_now_ns();
#endif
}

static double ns_per_tick;
static uint64_t ticks_cost;

static struct recorder {
    _Alignas(64) uint64_t count[L25_KINDS], interrupted;
    uint32_t ticks[L25_KINDS][KEPT];
    /* of the operation that goes on */
    bool in_free;
    uint64_t began, inside, readings;
    /* of the lock that is held */
    uint64_t held_since;
    bool moved, waited;
} recorders[THREADS_MAX];
static _Thread_local struct recorder *self; /* NULL: nothing is recorded */

/* Written by who holds the shard's lock. */
static struct {
    const struct recorder *holder;
    uint64_t released;
} shards[1024];

static uint64_t now(void) {
    self->readings++;
    return ticks();
}

static uint64_t less_readings(uint64_t time, uint64_t readings) {
    return time > readings * ticks_cost ? time - readings * ticks_cost : 0;
}

static void note(enum l25_kind kind, uint64_t time) {
    if ((double)time * ns_per_tick > INTERRUPTED_NS) self->interrupted++;
    else self->ticks[kind][self->count[kind]++ % KEPT] = (uint32_t)time;
}

/* ---- what the allocator calls --------------------------------------------------------------------------------- */

bool __real_hak_lock_try(struct hak_lock *lock);
void __real_hak_lock(struct hak_lock *lock);
void __real_hak_unlock(struct hak_lock *lock);
void *__real_hak_sys_map(size_t bytes);
bool __real_hak_sys_unmap(void *ptr, size_t bytes);
bool __real_hak_sys_purge(void *ptr, size_t bytes);
bool __wrap_hak_lock_try(struct hak_lock *lock);
void __wrap_hak_lock(struct hak_lock *lock);
void __wrap_hak_unlock(struct hak_lock *lock);
void *__wrap_hak_sys_map(size_t bytes);
bool __wrap_hak_sys_unmap(void *ptr, size_t bytes);
bool __wrap_hak_sys_purge(void *ptr, size_t bytes);

static bool is_recorded(const struct hak_lock *lock) { return self != NULL && lock->rank == HAK_RANK_L25; }

static uint32_t shard_of(const struct hak_lock *lock) {
    static_assert(offsetof(struct hak_l25_shard, lock) == 0, "a shard begins with its lock");
    return ((const struct hak_l25_shard *)lock)->index;
}

static void taken(const struct hak_lock *lock, uint64_t since, bool waited) {
    const uint32_t shard = shard_of(lock);
    self->held_since = since;
    self->moved = shards[shard].holder != self;
    self->waited = waited;
    shards[shard].holder = self;
}

bool __wrap_hak_lock_try(struct hak_lock *lock) {
    if (!is_recorded(lock)) return __real_hak_lock_try(lock);
    const uint64_t before = now();
    if (__real_hak_lock_try(lock)) {
        taken(lock, before, false);
        return true;
    }
    const uint64_t time = less_readings(now() - before, 1);
    self->inside += time;
    note(L25_MISS, time);
    return false;
}

void __wrap_hak_lock(struct hak_lock *lock) {
    if (!is_recorded(lock)) {
        __real_hak_lock(lock);
        return;
    }
    const uint64_t before = now();
    if (__real_hak_lock_try(lock)) {
        taken(lock, before, false);
        return;
    }
    __real_hak_lock(lock);
    const uint64_t after = now(), released = shards[shard_of(lock)].released;
    note(L25_HANDOVER, less_readings(after > released ? after - released : 0, 1));
    self->inside += less_readings(after - before, 1);
    taken(lock, after, true);
}

void __wrap_hak_unlock(struct hak_lock *lock) {
    if (!is_recorded(lock)) {
        __real_hak_unlock(lock);
        return;
    }
    const enum l25_kind kind = self->in_free ? (self->moved ? L25_FREE_MOVED : L25_FREE_OWN)
                                             : (self->moved ? L25_ALLOC_MOVED : L25_ALLOC_OWN);
    const uint64_t since = self->held_since;
    const bool waited = self->waited;
    shards[shard_of(lock)].released = now();
    __real_hak_unlock(lock);
    const uint64_t time = less_readings(now() - since, 2);
    self->inside += time;
    if (!waited) note(kind, time); /* a hold behind a wait begins with a cache that the wait has filled */
}

static void system_call_ended(enum l25_kind kind, uint64_t before) {
    const uint64_t time = less_readings(now() - before, 1);
    self->inside += time;
    note(kind, time);
}

void *__wrap_hak_sys_map(size_t bytes) {
    if (self == NULL) return __real_hak_sys_map(bytes);
    const uint64_t before = now();
    void *ptr = __real_hak_sys_map(bytes);
    system_call_ended(L25_MAP, before);
    return ptr;
}

bool __wrap_hak_sys_unmap(void *ptr, size_t bytes) {
    if (self == NULL) return __real_hak_sys_unmap(ptr, bytes);
    const uint64_t before = now();
    bool unmapped = __real_hak_sys_unmap(ptr, bytes);
    system_call_ended(L25_MAP, before);
    return unmapped;
}

bool __wrap_hak_sys_purge(void *ptr, size_t bytes) {
    if (self == NULL) return __real_hak_sys_purge(ptr, bytes);
    const uint64_t before = now();
    bool purged = __real_hak_sys_purge(ptr, bytes);
    system_call_ended(L25_PURGE, before);
    return purged;
}

/* ---- what is recorded ----------------------------------------------------------------------------------------- */

/* A part of the run, and which kinds are kept of it. */
struct phase {
    unsigned threads;
    bool pauses; /* of up to PAUSE_NS before each operation */
    unsigned kinds;
};
#define KIND(kind) (1U << (kind))

static size_t size_min, size_max;
static uint64_t duration_ns;
static atomic_uint threads_satisfied;

static void pause_for(uint64_t ns) {
    for (uint64_t end = bench_now_ns() + ns; bench_now_ns() < end;) continue;
}

static void operation_begins(struct recorder *recorder, bool in_free) {
    self = recorder;
    self->in_free = in_free;
    self->inside = self->readings = 0;
    self->began = ticks();
}

static void operation_ends(void) {
    const uint64_t rest = less_readings(now() - self->began, self->readings);
    note(self->in_free ? L25_FREE_REST : L25_ALLOC_REST, rest > self->inside ? rest - self->inside : 0);
    self = NULL;
}

static bool has(const struct recorder *recorder, unsigned kinds, uint64_t least) {
    for (unsigned kind = 0; kind < L25_KINDS; kind++)
        if ((kinds & KIND(kind)) != 0 && recorder->count[kind] < least) return false;
    return true;
}

/* Until every thread has all the times wanted; where other programs take a processor and the two threads seldom meet,
 * until it has some of them. */
static void replace_block(unsigned index, void *data) {
    const struct phase *phase = data;
    struct recorder *recorder = &recorders[index];
    struct bench_random random = {.state = index + 1};
    bench_stay_on_processor(index);
    char *block = bench_malloc(bench_random_between(&random, size_min, size_max));
    const uint64_t begin_ns = bench_now_ns();
    bool satisfied = false;
    for (uint64_t step = 0; atomic_load(&threads_satisfied) < phase->threads; step++) {
        if (step % 64 == 0 && !satisfied) {
            const uint64_t time_ns = bench_now_ns() - begin_ns;
            satisfied = time_ns > duration_ns && has(recorder, phase->kinds, time_ns > LONGER * duration_ns ? 1 : KEPT);
            if (satisfied) atomic_fetch_add(&threads_satisfied, 1);
        }
        if (phase->pauses) pause_for(bench_random_below(&random, PAUSE_NS));
        operation_begins(recorder, true);
        free(block);
        operation_ends();
        if (phase->pauses) pause_for(bench_random_below(&random, PAUSE_NS));
        operation_begins(recorder, false);
        block = bench_malloc(bench_random_between(&random, size_min, size_max));
        operation_ends();
    }
    free(block);
}

/* Each round maps a chunk, purges a part of it and unmaps it. */
static void map_and_purge(unsigned index, void *data) {
    (void)data;
    for (unsigned i = 0; i < MAP_ROUNDS; i++) {
        operation_begins(&recorders[index], false);
        char *kept = bench_malloc(size_min);
        free(bench_malloc(size_min));
        malloc_trim(0);
        free(kept);
        malloc_trim(0);
        operation_ends();
    }
}

static void calibrate(void) {
    uint64_t least = UINT64_MAX;
    const uint64_t begin_ns = bench_now_ns(), begin = ticks();
    do {
        uint64_t before = ticks(), after = ticks();
        if (after - before < least) least = after - before;
    } while (bench_now_ns() - begin_ns < 20000000);
    ns_per_tick = (double)(bench_now_ns() - begin_ns) / (double)(ticks() - begin);
    ticks_cost = least;
}

static void write_kind(FILE *out, const struct recorder *recorder, enum l25_kind kind) {
    const uint64_t end = recorder->count[kind];
    for (uint64_t at = end > KEPT ? end - KEPT : 0; at < end; at++)
        fprintf(out, "%s\t%.0f\n", l25_kind_names[kind], (double)recorder->ticks[kind][at % KEPT] * ns_per_tick);
}

/* Returns how many times are left out. */
static uint64_t record_phase(FILE *out, bench_body *body, const struct phase *phase) {
    uint64_t interrupted = 0;
    memset(recorders, 0, sizeof recorders);
    atomic_store(&threads_satisfied, 0);
    bench_threads(phase->threads, body, (void *)(uintptr_t)phase);
    for (unsigned i = 0; i < phase->threads; i++) {
        interrupted += recorders[i].interrupted;
        for (unsigned kind = 0; kind < L25_KINDS; kind++)
            if ((phase->kinds & KIND(kind)) != 0) write_kind(out, &recorders[i], kind);
    }
    return interrupted;
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 2, 4, "FILE MILLISECONDS [MIN_SIZE [MAX_SIZE]]");
    duration_ns = bench_argument(argc, argv, 2, "MILLISECONDS", 1, 3600000, 0) * 1000000;
    size_min = bench_argument(argc, argv, 3, "MIN_SIZE", 32769, HAK_L25_MAX, 32769);
    size_max = bench_argument(argc, argv, 4, "MAX_SIZE", size_min, HAK_L25_MAX, size_min > 65536 ? size_min : 65536);
    FILE *out = fopen(argv[1], "w");
    if (out == NULL) bench_fail("cannot write the file");
    fprintf(out, "kind\tns\n");
    calibrate();
    const struct phase system = {.threads = 1, .kinds = KIND(L25_MAP) | KIND(L25_PURGE)},
                       alone = {.threads = 1,
                                .kinds = KIND(L25_ALLOC_REST) | KIND(L25_FREE_REST) | KIND(L25_ALLOC_OWN) |
                                         KIND(L25_FREE_OWN)},
                       apart = {.threads = 2, .pauses = true, .kinds = KIND(L25_ALLOC_MOVED) | KIND(L25_FREE_MOVED)},
                       together = {.threads = 2, .kinds = KIND(L25_MISS) | KIND(L25_HANDOVER)};
    const uint64_t interrupted = record_phase(out, map_and_purge, &system) + record_phase(out, replace_block, &alone) +
                                 record_phase(out, replace_block, &apart) + record_phase(out, replace_block, &together);
    if (fclose(out) != 0) bench_fail("cannot write the file");
    printf("interrupted: %llu times\n", (unsigned long long)interrupted);
    return 0;
}
