/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* Every size from 0 to 70,000, and every class boundary +-1 up to 64 MiB, against a model that knows which bytes
 * belong to whom: alignment, usable size, overlap, content, realloc both ways. */
#include "support/api_blackbox.h"

#include <stdlib.h>

enum { LAST_OF_ALL = 70000, MAX_SMALL = 2048, MAX_LARGE = 12 };

static const size_t last_boundary = (size_t)64 << 20;

/* ---- the model: live blocks in their own memory, oldest first ---- */

struct block {
    unsigned char *start;
    size_t size;
    size_t usable;
    unsigned seed;
};

static struct block live[MAX_SMALL];
static size_t live_count;
static unsigned next_seed;

static bool overlaps(const struct block *a, const struct block *b) {
    /* A block of no bytes still has an address of its own. */
    size_t a_bytes = a->usable ? a->usable : 1;
    size_t b_bytes = b->usable ? b->usable : 1;
    return a->start < b->start + b_bytes && b->start < a->start + a_bytes;
}

/* All bytes of small blocks; of others the ends and 8 in each 512, or in each 64 KiB from a megabyte on. */
static size_t next_byte(size_t at, size_t bytes) {
    if (bytes <= 4096 || at < 256 || bytes - at <= 256 || at % 512 < 8) {
        return at + 1;
    }
    size_t stride = bytes < (size_t)1 << 20 ? 512 : 65536;
    size_t next = (at / stride + 1) * stride;
    return next + 256 < bytes ? next : bytes - 256;
}

static unsigned char content(size_t at, unsigned seed) {
    return (unsigned char)((at ^ (at >> 9)) * 197 + seed * 101 + 31);
}

static void fill(const struct block *block) {
    for (size_t at = 0; at < block->size; at = next_byte(at, block->size)) {
        block->start[at] = content(at, block->seed);
    }
}

/* Checks the first `kept` bytes of what fill() wrote into a block of `filled` bytes. */
static void verify(const struct block *block, size_t kept, size_t filled) {
    for (size_t at = 0; at < kept; at = next_byte(at, filled)) {
        if (block->start[at] != content(at, block->seed)) {
            fail_msg("block of %zu bytes at %p: byte %zu changed", block->size, (void *)block->start, at);
        }
    }
}

static void check_placement(const struct block *block, const struct block *except) {
    if (!block->start || !api_aligned(block->start, 16)) {
        fail_msg("%zu bytes: got %p", block->size, (void *)block->start);
    }
    if (block->usable < block->size) {
        fail_msg("%zu bytes asked, %zu usable", block->size, block->usable);
    }
    for (size_t i = 0; i < live_count; i++) {
        if (&live[i] != except && overlaps(block, &live[i])) {
            fail_msg("%zu bytes at %p overlap %zu at %p", block->usable, (void *)block->start, live[i].usable,
                     (void *)live[i].start);
        }
    }
}

static void model_free(size_t index) {
    struct block *block = &live[index];
    assert_int_equal(api.malloc_usable_size(block->start), block->usable);
    verify(block, block->size, block->size);
    api.free(block->start);
    *block = live[--live_count];
}

static struct block *model_malloc(size_t size) {
    struct block block = {.start = api.malloc(size), .size = size, .seed = next_seed++};
    block.usable = api.malloc_usable_size(block.start);
    check_placement(&block, NULL);
    fill(&block);
    live[live_count] = block;
    return &live[live_count++];
}

static void model_realloc(struct block *block, size_t size) {
    struct block after = {.start = api.realloc(block->start, size), .size = size, .seed = block->seed};
    after.usable = api.malloc_usable_size(after.start);
    check_placement(&after, block);
    verify(&after, size < block->size ? size : block->size, block->size);
    after.seed = next_seed++;
    fill(&after);
    *block = after;
}

/* Keeps the number of live blocks down by freeing one from the middle, then one from the front, in turn. */
static void model_make_room(size_t limit) {
    while (live_count >= limit) {
        model_free(live_count % 2 ? live_count / 2 : 0);
    }
}

static void model_empty(void) {
    while (live_count) {
        model_free(live_count - 1);
    }
}

/* ---- the walks ---- */

static void try_size(size_t size, size_t limit) {
    model_make_room(limit - 2);
    model_malloc(size);
    /* Grown from a smaller one, and where a copy costs little also shrunk, and one byte up and down. */
    struct block *block = model_malloc(size / 2 + 1);
    if (size < (size_t)1 << 22) {
        model_realloc(block, size + size / 3 + 1);
        model_realloc(block, size ? size : 1);
        model_realloc(block, size + 1);
    }
    model_realloc(block, size ? size : 1);
    model_realloc(block, size > 1 ? size - 1 : 1);
}

static void every_size_to_70000_agrees_with_the_model(void **state) {
    (void)state;
    for (size_t size = 0; size <= LAST_OF_ALL; size++) {
        try_size(size, size < 1024 ? MAX_SMALL : 96);
    }
    model_empty();
}

/* Sizes just below, at and just above `boundary`. */
static void try_boundary(size_t boundary) {
    try_size(boundary - 1, MAX_LARGE);
    try_size(boundary, MAX_LARGE);
    try_size(boundary + 1, MAX_LARGE);
}

static void boundaries_that_usable_sizes_show_agree_with_the_model(void **state) {
    (void)state;
    api_need(api_build != API_CHECKED); /* it shows none: sizes are exact */
    size_t boundary = 0;
    while (boundary < last_boundary) {
        void *block = api.malloc(boundary + 1);
        size_t usable = api.malloc_usable_size(block);
        api.free(block);
        /* Where sizes are page-wise there are no classes to see: go on in steps of a sixteenth. */
        size_t step = boundary < 256 ? 16 : boundary / 16;
        boundary = usable > boundary + step ? usable : boundary + step;
        try_boundary(boundary);
    }
    model_empty();
}

static void sixteenths_of_every_doubling_agree_with_the_model(void **state) {
    (void)state;
    for (size_t base = 64; base < last_boundary; base *= 2) {
        for (size_t i = 0; i < 16; i++) {
            try_boundary(base + base / 16 * i);
        }
    }
    try_boundary(last_boundary);
    model_empty();
}

static void sizes_in_random_order_agree_with_the_model(void **state) {
    (void)state;
    unsigned short random[3] = {1, 2, 3};
    long steps = api_soak ? 20000000 : 200000;
    for (long i = 0; i < steps; i++) {
        size_t size = (size_t)nrand48(random) % ((size_t)1 << (4 + nrand48(random) % 14));
        model_make_room(512);
        if (live_count && nrand48(random) % 3 == 0) {
            model_realloc(&live[(size_t)nrand48(random) % live_count], size + 1);
        } else {
            model_malloc(size);
        }
    }
    model_empty();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_to_70000_agrees_with_the_model),
        cmocka_unit_test(boundaries_that_usable_sizes_show_agree_with_the_model),
        cmocka_unit_test(sixteenths_of_every_doubling_agree_with_the_model),
        cmocka_unit_test(sizes_in_random_order_agree_with_the_model),
    };
    api_start();
    return cmocka_run_group_tests_name("sizes", tests, NULL, NULL);
}
