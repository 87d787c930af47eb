/* One thread: each mode is one pattern of use, with a fixed number of operations. */
#include "bench.h"

static struct bench_random random_numbers = {12345};

/* ---- blocks of one size, or in batches ------------------------------------------------------------------------ */

static void pairs(const uint64_t *numbers) {
    uint64_t bytes = numbers[0], count = bench_work(numbers[1]);
    for (uint64_t i = 0; i < count; i++) free(bench_malloc(bytes));
    bench_tell_operations(count);
}

static void batches(uint64_t batch, uint64_t count, bool last_first) {
    void **blocks = bench_map(bench_in_range(batch, 1, 1 << 24, "BATCH") * sizeof *blocks);
    uint64_t rounds = bench_work(count) / batch + 1;
    for (uint64_t round = 0; round < rounds; round++) {
        for (uint64_t i = 0; i < batch; i++)
            blocks[i] = bench_block_new(bench_random_between(&random_numbers, 16, 256));
        for (uint64_t i = 0; i < batch; i++) bench_block_free(blocks[last_first ? batch - 1 - i : i]);
    }
    bench_tell_operations(rounds * batch);
}
static void lifo(const uint64_t *numbers) { batches(numbers[0], numbers[1], true); }
static void fifo(const uint64_t *numbers) { batches(numbers[0], numbers[1], false); }

/* ---- a working set of which a random block is replaced, again and again ------------------------------------------ */

typedef void *new_block(void);

static void replace(uint64_t working_set, uint64_t count, new_block *create) {
    void **blocks = bench_map(bench_in_range(working_set, 1, 1 << 28, "BLOCKS") * sizeof *blocks);
    count = bench_work(count);
    for (uint64_t i = 0; i < working_set; i++) blocks[i] = create();
    for (uint64_t i = 0; i < count; i++) {
        void **block = &blocks[bench_random_below(&random_numbers, working_set)];
        bench_block_free(*block);
        *block = create();
    }
    for (uint64_t i = 0; i < working_set; i++) bench_block_free(blocks[i]);
    bench_tell_operations(working_set + count);
}

static void *new_pareto(void) { return bench_block_new(bench_random_skewed(&random_numbers, 16, 12)); }

/* All is written, or the next block would mostly be zero anyway. */
static void *new_zeroed(void) {
    size_t bytes = bench_random_skewed(&random_numbers, 16, 12);
    char *ptr = calloc(1, bytes);
    if (ptr != NULL && (ptr[0] | ptr[bytes / 2] | ptr[bytes - 1]) != 0) bench_fail("calloc returned what is not zero");
    if (ptr != NULL) memset(ptr, 1, bytes);
    return bench_block_fill(ptr, bytes);
}

/* For vector registers, cache lines, pages. (Not 256 to 1,024: some such blocks of mimalloc 2.0.9 are not aligned.) */
static void *new_aligned(void) {
    static const size_t alignments[] = {16, 32, 64, 128, 4096};
    size_t alignment = alignments[bench_random_below(&random_numbers, sizeof alignments / sizeof *alignments)];
    size_t bytes = bench_random_skewed(&random_numbers, 64, 7);
    void *ptr;
    if (posix_memalign(&ptr, alignment, bytes) != 0) bench_fail("out of memory");
    if ((uintptr_t)ptr % alignment != 0) bench_fail("posix_memalign returned what is not aligned");
    return bench_block_fill(ptr, bytes);
}

static void *new_large(void) {
    return bench_block_new(bench_random_between(&random_numbers, (size_t)32 << 10, (size_t)1 << 20));
}
static void *new_huge(void) {
    return bench_block_new(bench_random_between(&random_numbers, (size_t)2 << 20, (size_t)16 << 20));
}

static void pareto(const uint64_t *numbers) { replace(numbers[0], numbers[1], new_pareto); }
static void zeroed(const uint64_t *numbers) { replace(numbers[0], numbers[1], new_zeroed); }
static void aligned(const uint64_t *numbers) { replace(numbers[0], numbers[1], new_aligned); }
static void large(const uint64_t *numbers) { replace(numbers[0], numbers[1], new_large); }
static void huge(const uint64_t *numbers) { replace(numbers[0], numbers[1], new_huge); }

/* ---- what grows -------------------------------------------------------------------------------------------------- */

#define STRING_MOST 4096
struct string {
    char *text;
    size_t length;
};

/* Appends to strings in turn. A string that is long enough is dropped, and begins anew. */
static void strings(const uint64_t *numbers) {
    uint64_t many = bench_in_range(numbers[0], 1, 1 << 24, "STRINGS"), count = bench_work(numbers[1]);
    struct string *all = bench_map(many * sizeof *all);
    for (uint64_t i = 0; i < count; i++) {
        struct string *string = &all[i % many];
        size_t more = bench_random_between(&random_numbers, 1, 64);
        if (string->length != 0 && string->text[string->length - 1] != 'x') bench_fail("a string lost its end");
        string->text = realloc(string->text, string->length + more);
        if (string->text == NULL) bench_fail("out of memory");
        memset(string->text + string->length, 'x', more);
        string->length += more;
        if (string->length < STRING_MOST) continue;
        free(string->text);
        *string = (struct string){NULL, 0};
    }
    for (uint64_t i = 0; i < many; i++) free(all[i].text);
    bench_tell_operations(count);
}

/* Grows by an eighth at a time; what is new is used, a byte of each page. A small block is allocated in between, as the
 * vector's elements would be. */
static uint64_t grow_vector(size_t most) {
    void *elements[1024] = {NULL};
    size_t bytes = 4096, used = 0;
    unsigned char *vector = bench_malloc(bytes);
    uint64_t steps = 0;
    while (true) {
        for (; used < bytes; used += 4096) vector[used] = (unsigned char)(used >> 12);
        if (bytes >= most) break;
        bench_block_free(elements[steps % 1024]);
        elements[steps % 1024] = bench_block_new(64);
        bytes += (bytes / 8 + 4095) & ~(size_t)4095;
        vector = realloc(vector, bytes);
        if (vector == NULL) bench_fail("out of memory");
        steps++;
    }
    for (size_t i = 0; i < used; i += 4096)
        if (vector[i] != (unsigned char)(i >> 12)) bench_fail("a vector lost what it held");
    free(vector);
    for (unsigned i = 0; i < 1024; i++) bench_block_free(elements[i]);
    return 2 * steps + 1;
}
static void vectors(const uint64_t *numbers) {
    uint64_t operations = 0, count = bench_work(numbers[1]);
    for (uint64_t i = 0; i < count; i++) operations += grow_vector((size_t)numbers[0] << 20);
    bench_tell_operations(operations);
}

int main(int argc, char **argv) {
    static const struct bench_mode modes[] = {
        {"pairs", "BYTES COUNT", "malloc and free of one size, COUNT times", pairs},
        {"lifo", "BATCH COUNT", "batches of 16-256 bytes, the last allocated freed first", lifo},
        {"fifo", "BATCH COUNT", "batches of 16-256 bytes, the first allocated freed first", fifo},
        {"pareto", "BLOCKS COUNT", "a random one of BLOCKS replaced, many small and few of up to 64 KiB", pareto},
        {"calloc", "BLOCKS COUNT", "the same by calloc, everything written before it is freed", zeroed},
        {"aligned", "BLOCKS COUNT", "a random one of BLOCKS replaced, aligned at 16 to 4,096 bytes", aligned},
        {"large", "BLOCKS COUNT", "a random one of BLOCKS replaced, 32 KiB to 1 MiB", large},
        {"huge", "BLOCKS COUNT", "a random one of BLOCKS replaced, 2 to 16 MiB", huge},
        {"strings", "STRINGS COUNT", "COUNT appends by realloc to STRINGS strings of up to 4 KiB", strings},
        {"vectors", "MIB COUNT", "COUNT vectors grown by realloc, an eighth at a time, to MIB MiB", vectors},
    };
    return bench_run_mode(argc, argv, modes, sizeof modes / sizeof *modes);
}
