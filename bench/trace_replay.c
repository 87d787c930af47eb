/* Replays the calls that trace_record recorded. They are decoded before into memory from the system, 8 bytes each, and
 * walked through in order, so that little else than the allocator runs. What is still live at the end is freed. */
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bench.h"
#include "trace.h"

/* Blocks live in slots; the slot that was left last is taken first. For a call that frees, `bytes` is what it frees. */
#define SLOT_BITS 23
struct step {
    uint32_t kind : TRACE_KIND_BITS, shift : 6, slot : SLOT_BITS;
    uint32_t bytes;
};
struct trace {
    struct step *steps;
    size_t count, blocks, slots;
};

/* ---- decoding
 * ----------------------------------------------------------------------------------------------------------- */

/* A name stands for a trace beside the program, a path for a file. */
static const unsigned char *read_file(const char *name, size_t *bytes) {
    char path[PATH_MAX];
    ssize_t length = strchr(name, '/') != NULL ? 0 : readlink("/proc/self/exe", path, sizeof path - 1);
    if (length < 0) bench_fail("/proc/self/exe cannot be read");
    path[length] = '\0';
    char *directory_end = strrchr(path, '/');
    char *end = directory_end == NULL ? path : directory_end + 1;
    snprintf(end, (size_t)(path + sizeof path - end), "%s%s", directory_end == NULL ? "" : "traces/", name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat stat;
    if (file < 0 || fstat(file, &stat) != 0) bench_fail("the trace cannot be opened");
    *bytes = (size_t)stat.st_size;
    void *content = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (content == MAP_FAILED) bench_fail("the trace cannot be read");
    close(file);
    return content;
}

struct reader {
    const unsigned char *at, *end;
};
static uint32_t next_byte(struct reader *reader) {
    if (reader->at == reader->end) bench_fail("the trace is cut off");
    return *reader->at++;
}
static uint32_t next_number(struct reader *reader) {
    uint64_t number = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint32_t byte = next_byte(reader);
        number |= (uint64_t)(byte & 127) << shift;
        if (byte < 128 && number <= UINT32_MAX) return (uint32_t)number;
    }
    bench_fail("the trace holds a number that is too large");
}

/* What is known of each block, by its number, and the slots that are not in use. */
struct block {
    uint32_t slot, bytes;
};

static struct trace decode(const char *name) {
    size_t size;
    const unsigned char *content = read_file(name, &size);
    struct trace_header header;
    if (size < sizeof header || memcmp(content, TRACE_MAGIC, sizeof TRACE_MAGIC) != 0) bench_fail("this is no trace");
    memcpy(&header, content, sizeof header);
    struct reader readers[TRACE_STREAMS];
    const unsigned char *at = content + sizeof header;
    for (unsigned i = 0; i < TRACE_STREAMS; i++) {
        if ((size_t)(content + size - at) < header.bytes[i]) bench_fail("the trace is cut off");
        readers[i] = (struct reader){at, at + header.bytes[i]};
        at += header.bytes[i];
    }

    struct block *blocks = bench_map(((size_t)header.blocks + 1) * sizeof *blocks);
    uint32_t *left = bench_map(((size_t)header.blocks + 1) * sizeof *left);
    size_t left_count = 0, allocated = 0;
    struct trace trace = {.steps = bench_map(((size_t)header.calls + 1) * sizeof *trace.steps), .blocks = 0};
    for (; trace.count < header.calls; trace.count++) {
        uint32_t call = next_byte(&readers[TRACE_CALLS]), kind = call & ((1 << TRACE_KIND_BITS) - 1);
        bool is_new = kind < TRACE_REALLOC;
        if (is_new && allocated == header.blocks) bench_fail("the trace has more blocks than it says");
        size_t number = is_new ? allocated++ : allocated - next_number(&readers[TRACE_AGES]) - 1;
        if (number >= allocated) bench_fail("the trace frees what it did not allocate");
        struct block *block = &blocks[number];
        if (is_new) block->slot = left_count > 0 ? left[--left_count] : (uint32_t)trace.slots++;
        if (kind != TRACE_FREE) block->bytes = next_number(&readers[TRACE_SIZES]);
        if (kind == TRACE_FREE) left[left_count++] = block->slot;
        trace.blocks += kind != TRACE_FREE;
        trace.steps[trace.count] = (struct step){.kind = kind,
                                                 .shift = call >> TRACE_KIND_BITS,
                                                 .slot = block->slot & ((1 << SLOT_BITS) - 1),
                                                 .bytes = block->bytes};
    }
    if (trace.slots >> SLOT_BITS != 0) bench_fail("the trace has too many blocks at a time");
    munmap(blocks, ((size_t)header.blocks + 1) * sizeof *blocks);
    munmap(left, ((size_t)header.blocks + 1) * sizeof *left);
    munmap((void *)content, size);
    return trace;
}

/* ---- replaying
 * ---------------------------------------------------------------------------------------------------------- */

/* The first byte of each page, and the last: both tell the slot. */
static void *use(void *ptr, struct step step) {
    if (ptr == NULL && step.bytes != 0) bench_fail("out of memory");
    unsigned char *bytes = ptr;
    for (size_t i = 0; i < step.bytes; i += 4096) bytes[i] = (unsigned char)step.slot;
    if (step.bytes != 0) bytes[step.bytes - 1] = (unsigned char)step.slot;
    return ptr;
}
static void check(const void *ptr, struct step step) {
    const unsigned char *bytes = ptr;
    if (step.bytes == 0) return;
    if (bytes[0] != (unsigned char)step.slot || bytes[step.bytes - 1] != (unsigned char)step.slot)
        bench_fail("a block was overwritten");
}

static void replay(const struct trace *trace, void **slots) {
    for (size_t i = 0; i < trace->count; i++) {
        struct step step = trace->steps[i];
        void **slot = &slots[step.slot];
        switch (step.kind) {
        case TRACE_MALLOC:
            *slot = use(malloc(step.bytes), step);
            break;
        case TRACE_CALLOC:
            *slot = use(calloc(1, step.bytes), step);
            break;
        case TRACE_ALIGNED:
            *slot = use(memalign((size_t)1 << step.shift, step.bytes), step);
            break;
        case TRACE_REALLOC:
            *slot = use(realloc(*slot, step.bytes), step);
            break;
        case TRACE_FREE:
            check(*slot, step);
            free(*slot);
            *slot = NULL;
            break;
        }
    }
    for (size_t i = 0; i < trace->slots; i++) {
        free(slots[i]);
        slots[i] = NULL;
    }
}

int main(int argc, char **argv) {
    bench_usage(argc, argv, 2, 2, "TRACE ROUNDS, where TRACE is gcc, perl, python or a file of trace_record");
    uint64_t rounds = bench_work(bench_argument(argc, argv, 2, "ROUNDS", 1, UINT32_MAX, 0));
    struct trace trace = decode(argv[1]);
    void **slots = bench_map((trace.slots + 1) * sizeof *slots);
    uint64_t begin = bench_now_ns();
    for (uint64_t round = 0; round < rounds; round++) replay(&trace, slots);
    uint64_t took = bench_now_ns() - begin;
    printf("ns_per_call: %.2f ns\ncalls: %zu calls\nlive: %zu blocks\n", (double)took / (double)(rounds * trace.count),
           trace.count, trace.slots);
    bench_tell_operations(rounds * trace.blocks);
    return 0;
}
