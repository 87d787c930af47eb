/* The mutator of the targets that drive the interface: whole operations are inserted, deleted, doubled, moved, changed
 * and spliced, so that what comes out is again an input. For libFuzzer; mutate_afl.c makes the same known to AFL++. */
#include "ops.h"

#include <string.h>

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t room, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *one, size_t one_bytes, const uint8_t *other, size_t other_bytes,
                                 uint8_t *out, size_t room, unsigned seed);

/* An input taken apart. */
struct program {
    struct fuzz_config config;
    size_t count, room; /* operations, and how many there may be */
    struct fuzz_op ops[FUZZ_OPS_MAX];
    size_t schedule_bytes;
    uint8_t schedule[FUZZ_SCHEDULE_MAX];
};

struct random {
    uint64_t state;
};

static uint64_t next(struct random *r) {
    uint64_t z = (r->state += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static unsigned below(struct random *r, size_t n) { return (unsigned)(next(r) % n); }

/* ---- fresh operations ----------------------------------------------------------------------------------------- */

static const uint8_t weights[FUZZ_KIND_COUNT] = {
#define FUZZ_KIND(name, weight, text) weight,
    FUZZ_KINDS(FUZZ_KIND)
#undef FUZZ_KIND
};

static uint8_t fresh_kind(struct random *r) {
    unsigned sum = 0, kind = 0;
    for (unsigned i = 0; i < FUZZ_KIND_COUNT; i++) sum += weights[i];
    for (unsigned at = below(r, sum); at >= weights[kind]; kind++) at -= weights[kind];
    return (uint8_t)kind;
}

/* Few slots, so that operations meet. */
static uint8_t fresh_slot(struct random *r) {
    return (uint8_t)(below(r, 4) != 0 ? below(r, 12) : below(r, FUZZ_SLOTS));
}

/* Small sizes and edges most; what costs time, or must be refused, seldom. */
static uint16_t fresh_size(struct random *r) {
    unsigned choice = below(r, 100);
    if (choice < 45) return (uint16_t)below(r, 1100);
    if (choice < 75) return fuzz_edge_code(below(r, 104), below(r, 8)); /* to 64 KiB */
    if (choice < 87) return fuzz_edge_code(104 + below(r, 40), below(r, 8));
    if (choice < 93) return fuzz_size_code((size_t)1 << below(r, 21) | below(r, 65536));
    if (choice < 97) return fuzz_edge_code(below(r, FUZZ_EDGES), below(r, 8));
    return (uint16_t)next(r);
}

static struct fuzz_op fresh_op(struct random *r, const struct program *p) {
    struct fuzz_op op = {.tid = (uint8_t)below(r, p->config.threads), .kind = fresh_kind(r), .slot = fresh_slot(r)};
    bool aligned = op.kind == FUZZ_ALIGNED_ALLOC || op.kind == FUZZ_POSIX_MEMALIGN || op.kind == FUZZ_MEMALIGN;
    op.size = aligned
                  ? fuzz_aligned_code(below(r, below(r, 8) == 0 ? 32 : 18), below(r, below(r, 4) == 0 ? 100000 : 300))
                  : fresh_size(r);
    return op;
}

/* ---- taking apart and putting together ------------------------------------------------------------------------ */

static void take_apart(struct program *p, const uint8_t *data, size_t bytes, size_t room) {
    struct fuzz_input input;
    p->room = room < FUZZ_HEADER_BYTES ? 0 : (room - FUZZ_HEADER_BYTES) / FUZZ_OP_BYTES;
    if (p->room > FUZZ_OPS_MAX) p->room = FUZZ_OPS_MAX;
    if (!fuzz_decode(&input, data, bytes)) {
        input = (struct fuzz_input){.config = {.threads = 1}};
    }
    p->config = input.config;
    p->count = input.count < p->room ? input.count : p->room;
    p->schedule_bytes = input.schedule_bytes;
    for (size_t i = 0; i < p->count; i++) p->ops[i] = fuzz_op_at(&input, i);
    if (input.schedule_bytes > 0) memcpy(p->schedule, input.schedule, input.schedule_bytes);
}

static size_t put_together(const struct program *p, uint8_t *data, size_t room) {
    if (room < FUZZ_HEADER_BYTES) return 0;
    size_t left = room - FUZZ_HEADER_BYTES;
    size_t count = p->count * FUZZ_OP_BYTES <= left ? p->count : left / FUZZ_OP_BYTES;
    left -= count * FUZZ_OP_BYTES;
    size_t schedule_bytes = p->schedule_bytes < left ? p->schedule_bytes : left;
    fuzz_encode_header(data, &p->config, schedule_bytes);
    uint8_t *at = data + FUZZ_HEADER_BYTES;
    for (size_t i = 0; i < count; i++, at += FUZZ_OP_BYTES) fuzz_encode_op(at, p->ops[i]);
    memcpy(at, p->schedule, schedule_bytes);
    return (size_t)(at - data) + schedule_bytes;
}

/* Makes room for `many` operations at `at`; returns how many there are room for. */
static size_t open_gap(struct program *p, size_t at, size_t many) {
    if (many > p->room - p->count) many = p->room - p->count;
    memmove(&p->ops[at + many], &p->ops[at], (p->count - at) * sizeof p->ops[0]);
    p->count += many;
    return many;
}

/* A stretch of operations: a few, now and then many. */
static size_t stretch(struct program *p, struct random *r, size_t *from) {
    *from = below(r, p->count);
    size_t most = p->count - *from, wanted = 1 + below(r, below(r, 4) == 0 ? 64 : 4);
    return wanted < most ? wanted : most;
}

/* ---- mutations ------------------------------------------------------------------------------------------------ */

static void insert_fresh(struct program *p, struct random *r) {
    size_t at = below(r, p->count + 1), many = open_gap(p, at, 1 + below(r, 3));
    for (size_t i = 0; i < many; i++) p->ops[at + i] = fresh_op(r, p);
}

/* Many blocks of a size: what fills a bin, a slab, a superslab. */
static void insert_series(struct program *p, struct random *r) {
    struct fuzz_op op = fresh_op(r, p);
    bool frees = below(r, 3) == 0;
    op.kind = frees ? FUZZ_FREE : below(r, 4) == 0 ? FUZZ_CALLOC : FUZZ_MALLOC;
    op.size = fresh_size(r);
    size_t at = below(r, p->count + 1), many = open_gap(p, at, 2 + below(r, 40));
    for (size_t i = 0; i < many; i++, op.slot++) p->ops[at + i] = op;
}

static void delete_some(struct program *p, struct random *r) {
    size_t from, many = stretch(p, r, &from);
    memmove(&p->ops[from], &p->ops[from + many], (p->count - from - many) * sizeof p->ops[0]);
    p->count -= many;
}

static void double_some(struct program *p, struct random *r) {
    size_t from, many = stretch(p, r, &from), to = below(r, p->count + 1);
    struct fuzz_op copy[64];
    if (many > 64) many = 64;
    memcpy(copy, &p->ops[from], many * sizeof copy[0]);
    many = open_gap(p, to, many);
    uint8_t shift = (uint8_t)(below(r, 2) == 0 ? 0 : below(r, 16));
    for (size_t i = 0; i < many; i++) {
        p->ops[to + i] = copy[i];
        p->ops[to + i].slot = (uint8_t)(copy[i].slot + shift);
    }
}

static void swap_neighbours(struct program *p, struct random *r) {
    size_t at = below(r, p->count);
    if (at + 1 == p->count) return;
    struct fuzz_op op = p->ops[at];
    p->ops[at] = p->ops[at + 1];
    p->ops[at + 1] = op;
}

static void change_field(struct program *p, struct random *r) {
    struct fuzz_op *op = &p->ops[below(r, p->count)], fresh = fresh_op(r, p);
    switch (below(r, 6)) {
    case 0:
        op->kind = fresh.kind;
        break;
    case 1:
        op->slot = fresh.slot;
        break;
    case 2:
        op->tid = fresh.tid;
        break;
    case 3:
        op->size = fresh_size(r);
        break;
    case 4:
        op->size = (uint16_t)(op->size + below(r, 5) - 2);
        break;
    default:
        op->size ^= (uint16_t)(1 << below(r, 16));
    }
}

/* A stretch goes to another thread. */
static void change_thread(struct program *p, struct random *r) {
    size_t from, many = stretch(p, r, &from);
    uint8_t tid = (uint8_t)below(r, p->config.threads);
    for (size_t i = 0; i < many; i++) p->ops[from + i].tid = tid;
}

static void change_config(struct program *p, struct random *r) {
    switch (below(r, 5)) {
    case 0:
        p->config.threads = (uint8_t)(1 + below(r, FUZZ_THREADS));
        break;
    case 1:
        p->config.profile = (uint8_t)below(r, 8);
        break;
    case 2:
        p->config.own[0] = (uint8_t)next(r);
        break;
    case 3:
        p->config.own[1] = (uint8_t)next(r);
        break;
    default:
        p->config.seed = (uint16_t)next(r);
    }
}

/* Below 128 a schedule's byte means "go on", so few of the others are preemptions. */
static void change_schedule(struct program *p, struct random *r) {
    size_t at = below(r, p->schedule_bytes + 1);
    if (at == p->schedule_bytes) {
        if (at == FUZZ_SCHEDULE_MAX) return;
        p->schedule_bytes++;
    }
    p->schedule[at] = (uint8_t)(below(r, 3) != 0 ? below(r, 128) : next(r));
    if (below(r, 8) == 0) p->schedule_bytes = at;
}

static void mutate_once(struct program *p, struct random *r) {
    static void (*const mutations[])(struct program *, struct random *) = {
        insert_fresh, insert_fresh,    insert_series, delete_some,   delete_some,   double_some,
        change_field, swap_neighbours, change_field,  change_thread, change_config, change_schedule};
    unsigned which = below(r, sizeof mutations / sizeof mutations[0]);
    if (p->count == 0) insert_fresh(p, r);
    if (p->count > 0) mutations[which](p, r);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t room, unsigned seed) {
    static struct program program; /* too large for a stack; the fuzzer has one thread */
    struct random r = {.state = seed};
    take_apart(&program, data, bytes, room);
    for (unsigned left = 1 + below(&r, 4); left > 0; left--) mutate_once(&program, &r);
    return put_together(&program, data, room);
}

/* The beginning of one and the end of the other; or, with several threads, their operations side by side. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *one, size_t one_bytes, const uint8_t *other, size_t other_bytes,
                                 uint8_t *out, size_t room, unsigned seed) {
    static struct program first, second;
    struct random r = {.state = seed};
    take_apart(&first, one, one_bytes, room);
    take_apart(&second, other, other_bytes, room);
    size_t cut = below(&r, first.count + 1), from = below(&r, second.count + 1);
    first.count = cut;
    size_t many = open_gap(&first, cut, second.count - from);
    memcpy(&first.ops[cut], &second.ops[from], many * sizeof first.ops[0]);
    if (first.config.threads < second.config.threads) first.config.threads = second.config.threads;
    return put_together(&first, out, room);
}
