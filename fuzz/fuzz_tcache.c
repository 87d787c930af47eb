/* Thread caches, heaps and remote frees of up to four threads against a table of all blocks.
 *
 * The threads are real only where they begin and end: there they make, take over and park a heap. In between they
 * sleep, and this one thread acts for each in turn, on its heap, so that an input does the same at every replay.
 *
 * Nine bytes choose the page size and the options of the bins; then operations of eight bytes each: bits 0-7 kind,
 * 8-9 thread, 10-15 class, 16-27 slot of the table, 28-37 blocks of a series. */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

#include "front/remote.h"
#include "front/tcache.h"
#include "front/tick.h"
#include "pages/meta.h"
#include "stores/superslab.h"

#define THREADS 4
#define BLOCKS 4096
#define LIVE_MARK 0xb10c5eed00000000u

/* ---- threads ------------------------------------------------------------------------------------------------- */

static struct thread {
    pthread_t thread;
    sem_t begun, may_end;
    struct hak_heap *heap; /* NULL: ended */
} threads[THREADS];

static void await(sem_t *semaphore) {
    while (sem_wait(semaphore) != 0) expect_equal(errno, EINTR);
}

static void *live(void *argument) {
    struct thread *self = argument;
    self->heap = hak_heap_get();
    sem_post(&self->begun);
    await(&self->may_end);
    return NULL;
}

static void begin(struct thread *t) {
    expect(sem_init(&t->begun, 0, 0) == 0 && sem_init(&t->may_end, 0, 0) == 0);
    expect_equal(pthread_create(&t->thread, NULL, live, t), 0);
    await(&t->begun);
}

static void end(struct thread *t) {
    sem_post(&t->may_end);
    expect_equal(pthread_join(t->thread, NULL), 0);
    t->heap = NULL;
}

/* ---- the table ----------------------------------------------------------------------------------------------- */

static struct block {
    char *ptr; /* NULL: none */
    unsigned class;
} blocks[BLOCKS];
static uint64_t live_of[HAK_CLASS_COUNT], now_ms = UNIT_BEGIN_MS;
static unsigned faults_before;

/* A live block's first word names its place in the table, its last one the block. */
static void enter(unsigned slot, char *ptr, unsigned class) {
    uint64_t before, word = LIVE_MARK | slot;
    memcpy(&before, ptr, sizeof before);
    if ((before & ~(uint64_t)(BLOCKS - 1)) == LIVE_MARK) expect(blocks[before % BLOCKS].ptr != ptr);
    struct hak_slab *slab = hak_region_lookup(ptr).descriptor;
    expect_equal(slab->size_class, class);
    expect(hak_slab_index(slab, ptr) != HAK_NO_BLOCK);
    memcpy(ptr, &word, sizeof word);
    memcpy(ptr + hak_class_bytes(class) - sizeof ptr, &ptr, sizeof ptr);
    blocks[slot] = (struct block){.ptr = ptr, .class = class};
    live_of[class]++;
}

static char *leave(unsigned slot) {
    struct block *block = &blocks[slot];
    uint64_t word = LIVE_MARK | slot;
    char *ptr = block->ptr;
    expect(memcmp(ptr, &word, sizeof word) == 0);
    expect(memcmp(ptr + hak_class_bytes(block->class) - sizeof ptr, &ptr, sizeof ptr) == 0);
    memset(ptr, 0, sizeof word);
    live_of[block->class]--;
    block->ptr = NULL;
    return ptr;
}

/* ---- operations ---------------------------------------------------------------------------------------------- */

static uint64_t slabs_at_most(void) {
    return hak_option(SUPERSLABS_MAX) == 0 ? UINT64_MAX : hak_option(SUPERSLABS_MAX) * HAK_SUPERSLAB_SLABS;
}

static void take(unsigned slot, unsigned class) {
    char *ptr = hak_tcache_alloc(class);
    if (ptr != NULL) {
        enter(slot, ptr, class);
        return;
    }
    uint64_t slabs = hak_load_rlx(&hak_tls_heap->slabs_owned[class]) + (uint64_t)1;
    expect(faults_seen != faults_before || slabs * hak_class_slabs(class) > slabs_at_most());
}

static void toggle(unsigned slot, unsigned class) {
    if (blocks[slot].ptr == NULL) take(slot, class);
    else hak_tcache_free(leave(slot), "free");
}

static void take_series(unsigned slot, unsigned count, unsigned class) {
    for (unsigned i = 0; i < count; i++)
        if (blocks[(slot + i) % BLOCKS].ptr == NULL) take((slot + i) % BLOCKS, class);
}

static void free_series(unsigned slot, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        if (blocks[(slot + i) % BLOCKS].ptr != NULL) hak_tcache_free(leave((slot + i) % BLOCKS), "free");
}

/* What a thread without a heap does: blocks come from the shared heap, and go back at once. */
static void take_shared(unsigned slot, unsigned class) {
    if (blocks[slot].ptr != NULL) {
        char *leaving = leave(slot);
        hak_remote_free_now(hak_region_lookup(leaving).descriptor, leaving, "free");
        return;
    }
    char *ptr = hak_heap_shared_alloc(class);
    if (ptr != NULL) enter(slot, ptr, class);
    else expect(faults_seen != faults_before);
}

/* All metadata that there is without asking the system, until it is let go: no bin can be made, no slab recorded. The
 * rest of a chunk does not grow together again, so this is done only so often. */
#define METADATA_MOST (16 * HAK_MIB)
static struct hoard {
    struct hoard *next;
    size_t bytes;
} * hoard;

static void let_go(void) {
    for (struct hoard *next; hoard != NULL; hoard = next) {
        next = hoard->next;
        hak_meta_free(hoard, hoard->bytes);
    }
}

static void hoard_metadata(void) {
    if (hak_meta_mapped_bytes() > METADATA_MOST) return;
    set_faults(1, true, HAK_SYS_MAP);
    for (unsigned c = HAK_CLASS_COUNT; c-- > 0;)
        for (struct hoard *more; (more = hak_meta_alloc(hak_class_bytes(c))) != NULL; hoard = more)
            *more = (struct hoard){.next = hoard, .bytes = hak_class_bytes(c)};
    faults_before = faults_seen;
}

static void pass_time(uint64_t ms) {
    hak_sys_set_now_for_test(now_ms += ms);
    hak_tls_heap->visits = UINT32_MAX; /* the next visit looks at the clock */
    hak_tick();
}

/* ---- invariants ---------------------------------------------------------------------------------------------- */

static uint32_t fill_of(const struct hak_heap *heap, unsigned c) {
    return heap->state[c].base == NULL ? 0 : (uint32_t)(heap->bin[c].top - heap->state[c].base);
}

static void check_heap(struct hak_heap *heap) {
    size_t bytes = 0;
    hak_tls_heap = heap;
    expect(hak_heap_check());
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
        size_t slots = heap->state[c].capacity, of_class = slots * hak_class_bytes(c);
        expect(slots <= hak_option(TLS_SLOTS_MAX) && of_class <= hak_option(TLS_CLASS_BYTES));
        bytes += of_class;
        expect(hak_load_rlx(&heap->slabs_owned[c]) * (uint64_t)hak_class_slabs(c) <= slabs_at_most());
    }
    expect_equal(heap->capacity_bytes, bytes);
    expect(bytes <= hak_option(TLS_BYTES));
    expect(heap->outgoing_room >= 0 || heap->outgoing_slots == 0);
    expect_equal(hak_load_rlx(&heap->hold), HAK_HOLD_NONE);
}

static void sum_up(const struct hak_heap *heap, void *sums) {
    uint64_t *out = sums;
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) out[c] += hak_load_rlx(&heap->blocks_out[c]) - fill_of(heap, c);
}

/* What the heaps call handed out are the live blocks, and those on their way to their owners. */
static void compare(bool nothing_on_its_way) {
    uint64_t out[HAK_CLASS_COUNT] = {0};
    hak_heap_each(sum_up, out);
    for (unsigned c = 0; c < HAK_CLASS_COUNT; c++) {
        if (nothing_on_its_way) expect_equal(out[c], live_of[c]);
        else expect(out[c] >= live_of[c]);
    }
    expect(hak_superslab_check());
}

static void expect_threads(void) {
    struct hak_front_stats stats;
    uint64_t living = 0;
    for (unsigned i = 0; i < THREADS; i++) living += threads[i].heap != NULL;
    hak_front_stats(&stats);
    expect_equal(stats.threads, living);
    expect(stats.heaps_parked <= THREADS - living);
}

/* Everything that is on its way arrives. A parked heap was emptied by who delivered to it. */
static void settle(void) {
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < THREADS; i++) {
            if (threads[i].heap == NULL) continue;
            hak_tls_heap = threads[i].heap;
            bool nested;
            expect(hak_heap_enter(hak_tls_heap, &nested));
            if (pass == 0) hak_remote_deliver(hak_tls_heap);
            else hak_remote_collect(hak_tls_heap);
            hak_heap_leave(hak_tls_heap, nested);
        }
    hak_heap_shared_flush();
    expect_threads();
    compare(true);
}

/* ---- an input ------------------------------------------------------------------------------------------------ */

static void step(uint64_t op) {
    const unsigned kind = op & 0xff, class = (op >> 10 & 63) % HAK_CLASS_COUNT;
    const unsigned slot = (op >> 16) % BLOCKS, series = op >> 28 & 0x3ff;
    struct thread *t = &threads[op >> 8 & 3];
    struct hak_heap *own = hak_tls_heap;
    faults_before = faults_seen;
    if (t->heap == NULL) begin(t);
    if ((hak_tls_heap = t->heap) == NULL) { /* a thread without memory for a heap: it ends again */
        hak_tls_heap = own;
        expect(faults_seen != faults_before);
        end(t);
        return;
    }
    if (kind < 88) toggle(slot, class);
    else if (kind < 96) take_shared(slot, class);
    else if (kind < 144) take_series(slot, series, class);
    else if (kind < 200) free_series(slot, series);
    else if (kind < 216) hak_tcache_flush_all(t->heap);
    else if (kind < 232) pass_time(series);
    else if (kind < 240) settle();
    else if (kind < 244) hak_slab_purge_all();
    else if (kind < 250) end(t);
    else if (kind < 252) hoard_metadata();
    else if (kind < 254) hak_heap_lend_all(); /* of the others */
    else let_go();
    if (t->heap != NULL) check_heap(t->heap);
    compare(false);
}

static void choose_options(struct fuzz_bytes *in) {
    unit_begin(in);
    set_option(PREWARM, FUZZ_CHOOSE(in, 4, 0, 16));
    set_option(TLS_SLOTS_MIN, FUZZ_CHOOSE(in, 16, 1, 2, 100));
    set_option(TLS_SLOTS_MAX, FUZZ_CHOOSE(in, 2048, 100, 200));
    set_option(TLS_CLASS_BYTES, FUZZ_CHOOSE(in, 131072, 0, 4000, 1048576));
    set_option(TLS_BYTES, FUZZ_CHOOSE(in, 2097152, 0, 100000));
    set_option(REMOTE_BYTES, FUZZ_CHOOSE(in, 262144, 0, 10000));
    set_option(SUPERSLABS_MAX, FUZZ_CHOOSE(in, 0, 0, 0, 1));
    const uint8_t given_back = fuzz_byte(in);
    if (given_back & 1) set_option(RETAIN_BYTES, 0);
    if (given_back & 2) set_option(PURGE_DELAY_MS, 0);
    if (given_back & 4) set_option(UNMAP_DELAY_MS, 0);
}

/* Every thread lives, with a heap that holds nothing. */
static void reset(void) {
    for (unsigned i = 0; i < THREADS; i++) {
        if (threads[i].heap == NULL) begin(&threads[i]);
        hak_tls_heap = threads[i].heap;
        hak_tcache_flush_all(hak_tls_heap);
    }
    settle();
    for (unsigned i = 0; i < THREADS; i++) {
        hak_tls_heap = threads[i].heap;
        bool nested;
        expect(hak_heap_enter(hak_tls_heap, &nested));
        hak_tcache_rest(hak_tls_heap, 0, 0);
        hak_store_rlx(&hak_tls_heap->visits, 0);
        hak_tls_heap->next_sweep_ms = 0;
        hak_heap_leave(hak_tls_heap, nested);
    }
    now_ms += 7200000; /* all that was ever put off is due */
    hak_slab_purge_all();
    expect_equal(hak_slab_stats().slabs_used, 0);
    expect_equal(hak_slab_stats().superslabs, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct fuzz_bytes in = {.at = data, .end = data + bytes};
    struct hak_heap *own = hak_tls_heap;
    uint64_t op;
    set_option(PREWARM, 0);
    if (threads[0].heap == NULL) reset();
    choose_options(&in);
    hak_sys_set_now_for_test(now_ms);
    for (unsigned i = 0; i < FUZZ_UNIT_OPS / 2 && unit_next(&in, &op); i++) step(op);
    let_go();
    unit_calm();
    set_option(PREWARM, 0);
    for (unsigned i = 0; i < THREADS; i++)
        if (threads[i].heap == NULL) begin(&threads[i]);
    hak_tls_heap = threads[0].heap;
    free_series(0, BLOCKS);
    reset();
    hak_tls_heap = own;
    unit_end();
    return 0;
}
