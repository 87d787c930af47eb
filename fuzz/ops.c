/* The encoding (ops.h): stateless arithmetic on bytes. */
#include "ops.h"

#include <stdio.h>
#include <string.h>

/* ---- bytes ---------------------------------------------------------------------------------------------------- */

bool fuzz_decode(struct fuzz_input *input, const uint8_t *data, size_t bytes) {
    if (bytes < FUZZ_HEADER_BYTES || data[0] != FUZZ_MAGIC || data[1] != FUZZ_VERSION) return false;
    size_t rest = bytes - FUZZ_HEADER_BYTES;
    size_t schedule_bytes = data[8] < rest ? data[8] : rest;
    size_t count = (rest - schedule_bytes) / FUZZ_OP_BYTES;
    *input = (struct fuzz_input){
        .config = {.threads = (uint8_t)(1 + data[2] % FUZZ_THREADS),
                   .profile = data[3],
                   .own = {data[4], data[5]},
                   .seed = (uint16_t)(data[6] | data[7] << 8)},
        .ops = data + FUZZ_HEADER_BYTES,
        .count = count < FUZZ_OPS_MAX ? count : FUZZ_OPS_MAX,
        .schedule = data + bytes - schedule_bytes,
        .schedule_bytes = schedule_bytes,
    };
    return true;
}

struct fuzz_op fuzz_op_at(const struct fuzz_input *input, size_t i) {
    const uint8_t *at = input->ops + i * FUZZ_OP_BYTES;
    return (struct fuzz_op){.tid = (uint8_t)((at[0] >> 5) % input->config.threads),
                            .kind = at[0] & 31,
                            .slot = at[1],
                            .size = (uint16_t)(at[2] | at[3] << 8)};
}

void fuzz_encode_header(uint8_t *out, const struct fuzz_config *config, size_t schedule_bytes) {
    out[0] = FUZZ_MAGIC;
    out[1] = FUZZ_VERSION;
    out[2] = (uint8_t)(config->threads - 1);
    out[3] = config->profile;
    out[4] = config->own[0];
    out[5] = config->own[1];
    out[6] = (uint8_t)config->seed;
    out[7] = (uint8_t)(config->seed >> 8);
    out[8] = (uint8_t)schedule_bytes;
}

void fuzz_encode_op(uint8_t *out, struct fuzz_op op) {
    out[0] = (uint8_t)(op.tid << 5 | op.kind);
    out[1] = op.slot;
    out[2] = (uint8_t)op.size;
    out[3] = (uint8_t)(op.size >> 8);
}

/* ---- sizes ---------------------------------------------------------------------------------------------------- */

/* Five ranges of codes, each from its first code on. */
#define EDGE_CODES 0x4000u    /* up to here a code is the size itself */
#define STEP_CODES 0x8000u    /* 16 KiB, then steps of 64 bytes to 1 MiB */
#define BIG_CODES 0xc000u     /* 1 MiB, then steps of 1 KiB to 12.9 MiB */
#define HUGE_CODES 0xf000u    /* a few up to FUZZ_SIZE_SERVED */
#define REFUSED_CODES 0xfe00u /* more than any machine has */
#define STEP ((size_t)64)
#define STEP_FIRST ((size_t)16 << 10)
#define BIG_STEP ((size_t)1 << 10)
#define BIG_FIRST ((size_t)1 << 20)

/* Eight edges per doubling, from 8 bytes to 30 MiB: among them are all size classes, all runs of slices, all classes of
 * BigCache, pages, superslabs and chunks. */
static size_t edge(unsigned which) { return (size_t)(8 + which % 8) << (which / 8 % (FUZZ_EDGES / 8)); }

static const int neighbours[8] = {0, 1, -1, 2, -2, 15, -15, 16};

static size_t near_edge(unsigned which, unsigned neighbour) {
    size_t bytes = edge(which);
    int shift = neighbours[neighbour % 8];
    return shift < 0 && (size_t)-shift > bytes ? 0 : bytes + (size_t)shift;
}

uint16_t fuzz_edge_code(unsigned which, unsigned neighbour) {
    return (uint16_t)(EDGE_CODES + (which % FUZZ_EDGES) * 8 + neighbour % 8);
}

/* No machine has 2^47 bytes for a process, and the last ones overflow wherever somebody rounds up. */
static const size_t refused[] = {(size_t)1 << 47,
                                 (size_t)1 << 62,
                                 PTRDIFF_MAX,
                                 (size_t)PTRDIFF_MAX - 4095,
                                 (size_t)PTRDIFF_MAX - 65535,
                                 (size_t)PTRDIFF_MAX - 65536,
                                 (size_t)PTRDIFF_MAX - 65537,
                                 (size_t)PTRDIFF_MAX + 1,
                                 SIZE_MAX / 2 + 65537,
                                 SIZE_MAX - 65536,
                                 SIZE_MAX - 4096,
                                 SIZE_MAX - 16,
                                 SIZE_MAX - 15,
                                 SIZE_MAX - 1,
                                 SIZE_MAX,
                                 SIZE_MAX - 1048575};
#define REFUSED (sizeof refused / sizeof refused[0])

size_t fuzz_size(uint16_t code) {
    if (code < EDGE_CODES) return code;
    if (code < STEP_CODES) return near_edge((code - EDGE_CODES) / 8 % FUZZ_EDGES, code & 7);
    if (code < BIG_CODES) return STEP_FIRST + (code - STEP_CODES) * STEP;
    if (code < HUGE_CODES) return BIG_FIRST + (code - BIG_CODES) * BIG_STEP;
    if (code < REFUSED_CODES) return near_edge(160 + code / 8 % 15, code & 7) + (code & 64 ? (size_t)48 << 20 : 0);
    return refused[code % REFUSED];
}

uint16_t fuzz_size_code(size_t bytes) {
    if (bytes < EDGE_CODES) return (uint16_t)bytes;
    if (bytes <= BIG_FIRST) return (uint16_t)(STEP_CODES + (bytes - STEP_FIRST + STEP - 1) / STEP);
    size_t code = BIG_CODES + (bytes - BIG_FIRST + BIG_STEP - 1) / BIG_STEP;
    return (uint16_t)(code < HUGE_CODES ? code : HUGE_CODES - 1);
}

struct fuzz_array fuzz_array(struct fuzz_op op) {
    static const struct fuzz_array absurd[] = {{SIZE_MAX, SIZE_MAX},
                                               {SIZE_MAX / 2 + 1, 2},
                                               {2, SIZE_MAX / 2 + 1},
                                               {(size_t)1 << 32, (size_t)1 << 32},
                                               {((size_t)1 << 32) + 1, (size_t)1 << 32},
                                               {3, SIZE_MAX / 3},
                                               {SIZE_MAX / 16 + 2, 16},
                                               {1, PTRDIFF_MAX}};
    if (op.size >= REFUSED_CODES) return absurd[op.size % (sizeof absurd / sizeof absurd[0])];
    size_t bytes = fuzz_size(op.size), count = 1 + op.slot % 4;
    if (op.size % 32 == 31) return (struct fuzz_array){.count = 0, .size = bytes};
    return (struct fuzz_array){.count = count, .size = bytes / count};
}

/* Up to 1,023 bytes as they are, then edges and one neighbour above them. */
#define ALIGNED_DIRECT 1024u
#define ALIGNED_EDGE_FIRST 48 /* 512 bytes */

static size_t aligned_size(unsigned code) {
    if (code < ALIGNED_DIRECT) return code;
    return near_edge(ALIGNED_EDGE_FIRST + (code - ALIGNED_DIRECT) / 8 % (FUZZ_EDGES - ALIGNED_EDGE_FIRST), code & 7);
}

struct fuzz_aligned fuzz_aligned(uint16_t code) {
    static const size_t wrong[] = {0, 24, ((size_t)1 << 62) + 16, (size_t)1 << 63};
    unsigned shift = code >> 11;
    return (struct fuzz_aligned){.align = shift < 28 ? (size_t)1 << shift : wrong[shift - 28],
                                 .size = aligned_size(code & 2047)};
}

uint16_t fuzz_aligned_code(unsigned align_shift, size_t bytes) {
    unsigned size_code = (unsigned)bytes;
    if (bytes >= ALIGNED_DIRECT) {
        unsigned which = ALIGNED_EDGE_FIRST;
        while (which + 1 < FUZZ_EDGES && edge(which) < bytes) which++;
        size_code = ALIGNED_DIRECT + (which - ALIGNED_EDGE_FIRST) * 8;
    }
    return (uint16_t)(align_shift << 11 | size_code);
}

uint64_t fuzz_ms(uint16_t code) { return (uint64_t)1 + ((uint64_t)(code & 255) << (code >> 8) % 14); }

/* ---- text ----------------------------------------------------------------------------------------------------- */

static const char *const texts[] = {
#define FUZZ_KIND(name, weight, text) text,
    FUZZ_KINDS(FUZZ_KIND)
#undef FUZZ_KIND
};

struct line {
    char *text;
    size_t room, used;
};

static void put(struct line *line, const char *s) {
    for (; *s != '\0' && line->used + 1 < line->room; s++) line->text[line->used++] = *s;
    line->text[line->used] = '\0';
}

static void put_number(struct line *line, size_t n) {
    char digits[24];
    snprintf(digits, sizeof digits, "%zu", n);
    put(line, digits);
}

static void put_block(struct line *line, uint32_t name) {
    if (name != 0) put(line, "p");
    if (name != 0) put_number(line, name);
    else put(line, "NULL");
}

static void put_value(struct line *line, char what, struct fuzz_op op, uint32_t before, uint32_t after) {
    switch (what) {
    case 'p':
        return put_block(line, after);
    case 'o':
        return put_block(line, before);
    case 'n':
        return put_number(line, fuzz_size(op.size));
    case 'c':
        return put_number(line, fuzz_array(op).count);
    case 'e':
        return put_number(line, fuzz_array(op).size);
    case 'a':
        return put_number(line, fuzz_aligned(op.size).align);
    case 'b':
        return put_number(line, fuzz_aligned(op.size).size);
    case 's':
        return put_number(line, op.slot);
    case 't':
        return put_number(line, fuzz_ms(op.size));
    default:
        return put_number(line, op.size);
    }
}

/* The size that an allocating operation asks for; more than FUZZ_SIZE_SERVED if it must fail. */
static size_t asked(struct fuzz_op op) {
    size_t bytes;
    struct fuzz_aligned aligned = fuzz_aligned(op.size);
    switch (op.kind) {
    case FUZZ_CALLOC:
    case FUZZ_REALLOCARRAY:
        return __builtin_mul_overflow(fuzz_array(op).count, fuzz_array(op).size, &bytes) ? SIZE_MAX : bytes;
    case FUZZ_ALIGNED_ALLOC:
    case FUZZ_POSIX_MEMALIGN:
        return aligned.align >= (op.kind == FUZZ_POSIX_MEMALIGN ? sizeof(void *) : 1) &&
                       (aligned.align & (aligned.align - 1)) == 0 && aligned.align <= FUZZ_SIZE_SERVED * 2
                   ? aligned.size
                   : SIZE_MAX;
    case FUZZ_MEMALIGN:
        return aligned.align <= FUZZ_SIZE_SERVED * 2 ? aligned.size : SIZE_MAX;
    default:
        return fuzz_size(op.size);
    }
}

static bool resizes(unsigned kind) {
    return kind == FUZZ_REALLOC || kind == FUZZ_REALLOCARRAY || kind == FUZZ_REZALLOC || kind == FUZZ_THREAD_START;
}

static bool frees(unsigned kind) { return kind >= FUZZ_FREE && kind <= FUZZ_CFREE; }

/* What the slot holds after the operation, as far as can be told without running it. */
static uint32_t name_after(struct fuzz_op op, struct fuzz_names *names) {
    uint32_t before = names->of_slot[op.slot];
    bool makes = strncmp(texts[op.kind], "$p", 2) == 0 || op.kind == FUZZ_THREAD_START;
    if (frees(op.kind)) return 0;
    if (!makes || (before != 0 && !resizes(op.kind))) return before;
    size_t bytes = asked(op);
    if (bytes > FUZZ_SIZE_SERVED) return before;
    if (bytes == 0 && before != 0 && op.kind != FUZZ_THREAD_START) return 0;
    return ++names->born;
}

void fuzz_describe(char *text, size_t room, struct fuzz_op op, struct fuzz_names *names) {
    struct line line = {.text = text, .room = room};
    put(&line, "t");
    put_number(&line, op.tid);
    put(&line, ": ");
    if (op.kind >= FUZZ_KIND_COUNT) {
        put(&line, "nothing");
        return;
    }
    uint32_t before = names->of_slot[op.slot], after = name_after(op, names);
    bool skipped = strncmp(texts[op.kind], "$p", 2) == 0 && before != 0 && !resizes(op.kind);
    for (const char *s = texts[op.kind]; *s != '\0'; s++) {
        if (*s == '$') put_value(&line, *++s, op, before, after);
        else put(&line, (char[2]){*s, '\0'});
    }
    if (skipped) put(&line, " skipped: the slot is in use");
    names->of_slot[op.slot] = after;
}
