/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* The checked build names what was written where it must not be: past the end of a block, and into a free one. No
 * build loses its own books by either. */
#include "support/api_misuse.h"

struct slip {
    size_t size;
    size_t past; /* 1 is the first byte past the end */
};

/* Sizes that leave slack in their class, which is watched; and some that fill one. */
static struct slip slips[] = {
    {1, 1},      {1, 15},     {7, 1},      {13, 2},      {20, 1},      {20, 5},       {100, 1},   {100, 3},
    {1000, 1},   {1001, 2},   {5000, 1},   {5000, 17},   {20001, 1},   {20001, 128},  {33333, 1}, {33333, 7},
    {100001, 1}, {700001, 1}, {700001, 9}, {1500001, 1}, {3000001, 1}, {3000001, 15}, {16, 1},    {64, 1},
    {1024, 1},   {4096, 1},   {32768, 1},  {65536, 1},   {1 << 20, 1},
};

static void overflow_then_free(void *argument) {
    const struct slip *slip = argument;
    unsigned char *block = api.malloc(slip->size);
    block[slip->size + slip->past - 1] ^= 0x5A;
    MISUSE(block, api.free(block));
}

static void overflow_then_realloc(void *argument) {
    const struct slip *slip = argument;
    unsigned char *block = api.malloc(slip->size);
    block[slip->size + slip->past - 1] ^= 0x5A;
    MISUSE(block, (void)!api.realloc(block, slip->size * 3));
}

static void overflow_after_realloc(void *argument) {
    const struct slip *slip = argument;
    unsigned char *block = api.realloc(api.malloc(slip->size * 2), slip->size);
    block[slip->size + slip->past - 1] ^= 0x5A;
    MISUSE(block, api.free(block));
}

static void overflow_of_calloc(void *argument) {
    const struct slip *slip = argument;
    unsigned char *block = api.calloc(slip->size, 1);
    block[slip->size + slip->past - 1] ^= 0x5A;
    MISUSE(block, api.free(block));
}

static void checked_build_names_the_byte_past_the_end(void **state) {
    (void)state;
    api_need(api_build == API_CHECKED);
    static const struct api_way ways[] = {
        {"free", overflow_then_free},
        {"realloc", overflow_then_realloc},
        {"free", overflow_after_realloc},
        {"free", overflow_of_calloc},
    };
    for (size_t i = 0; i < API_COUNT(slips); i++) {
        char kind[96];
        snprintf(kind, sizeof kind, "buffer overflow: byte %zu past the end was written", slips[i].past);
        api_assert_each_way_is_found(ways, API_COUNT(ways), &slips[i], slips[i].size, kind);
    }
}

/* ---- over a megabyte a page without access follows ---- */

static void run_into_the_guard(void *argument) {
    size_t size = *(size_t *)argument;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *block = api.malloc(size);
    api_child_check(block != NULL);
    memset(block, 1, size);
    uintptr_t guard = ((uintptr_t)block + size + page - 1) / page * page;
    api_trace->step = 1;
    *(volatile unsigned char *)guard = 1;
    api_trace->step = 2;
}

static void checked_build_guards_large_blocks(void **state) {
    (void)state;
    api_need(api_build == API_CHECKED);
    static size_t sizes[] = {(1 << 20) + 1, 1500000, 2 << 20, 3000001, (4 << 20) + 4096, 33554432};
    for (size_t i = 0; i < API_COUNT(sizes); i++) {
        struct api_child child = api_run_child(run_into_the_guard, &sizes[i]);
        if (!WIFSIGNALED(child.status) || WTERMSIG(child.status) != SIGSEGV || child.trace.step != 1) {
            fail_msg("%zu bytes: wait status 0x%x, step %d, stderr \"%s\"", sizes[i], (unsigned)child.status,
                     child.trace.step, child.text);
        }
    }
}

/* ---- writing into what is free ---- */

struct touch {
    size_t size;
    size_t at;
};

static struct touch touches[] = {{8, 0},      {8, 7},       {64, 0},    {64, 40},
                                 {1000, 999}, {5000, 4096}, {20000, 1}, {20000, 8191}};

static void write_after_free(void *argument) {
    enum { ROUNDS = 10000 };
    const struct touch *touch = argument;
    void *neighbour = api.malloc(touch->size);
    unsigned char *block = api.malloc(touch->size);
    memset(block, 1, touch->size);
    api.free(block);
    api_trace->pointer = block;
    block[touch->at] ^= 0x5A;
    api_trace->step = 1;
    /* Found when the block is to be handed out again, at the latest. */
    for (size_t i = 0; i < ROUNDS && i * touch->size < (size_t)64 << 20; i++) {
        api_child_check(api.malloc(touch->size) != NULL);
    }
    api_trace->step = 2;
    api.free(neighbour);
}

static void checked_build_finds_a_write_after_free(void **state) {
    (void)state;
    api_need(api_build == API_CHECKED);
    for (size_t i = 0; i < API_COUNT(touches); i++) {
        struct api_child child = api_run_child(write_after_free, &touches[i]);
        char *said = strstr(child.text, "(0x");
        char expected[64];
        snprintf(expected, sizeof expected, "(%p): write after free\n", child.trace.pointer);
        if (!WIFSIGNALED(child.status) || WTERMSIG(child.status) != SIGABRT || child.trace.step != 1 || !said ||
            strcmp(said, expected) != 0 || strchr(child.text, '\n') != strrchr(child.text, '\n')) {
            fail_msg("%zu bytes, at %zu: wait status 0x%x, step %d, stderr \"%s\"", touches[i].size, touches[i].at,
                     (unsigned)child.status, child.trace.step, child.text);
        }
    }
}

/* Only so many bytes are watched, for speed. */
static void checked_build_watches_128_bytes_of_slack_and_8_kib_of_a_free_block(void **state) {
    (void)state;
    api_need(api_build == API_CHECKED);
    static struct slip slip = {20001, 129};
    static struct touch touch = {20000, 8192};
    api_child_succeeds(overflow_then_free, &slip, "byte 129 past the end");
    api_child_succeeds(overflow_then_realloc, &slip, "byte 129 past the end");
    api_child_succeeds(write_after_free, &touch, "byte 8192 of a free block");
}

/* ---- what a heap overflow cannot do: there is nothing of the allocator's beside a block ---- */

enum { FIELD = 2000 };

static void trample(void *argument) {
    size_t size = *(size_t *)argument;
    static unsigned char *blocks[FIELD];
    size_t usable = 0;
    for (size_t i = 0; i < FIELD; i++) {
        blocks[i] = api.malloc(size);
        api_child_check(blocks[i] != NULL);
        usable = api.malloc_usable_size(blocks[i]);
    }
    /* Free every second one, then write over all of the free ones: there must be no list in there. */
    for (size_t i = 0; i < FIELD; i += 2) {
        api.free(blocks[i]);
        memset(blocks[i], 0xFF, usable);
    }
    for (size_t i = 0; i < FIELD; i += 2) {
        blocks[i] = api.malloc(size);
        api_child_check(blocks[i] != NULL);
    }
    for (size_t i = 0; i < FIELD; i++) {
        memset(blocks[i], (int)i, usable);
    }
    for (size_t i = 0; i < FIELD; i++) {
        api_child_check(blocks[i][0] == (unsigned char)i && blocks[i][usable - 1] == (unsigned char)i);
        api.free(blocks[i]);
    }
    api_flush_everything();
}

static void default_build_keeps_nothing_of_its_own_in_free_memory(void **state) {
    (void)state;
    api_need(api_build == API_DEFAULT);
    static size_t sizes[] = {16, 64, 1000, 4000, 20000};
    for (size_t i = 0; i < API_COUNT(sizes); i++) {
        api_child_succeeds(trample, &sizes[i], "free blocks overwritten");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checked_build_names_the_byte_past_the_end),
        cmocka_unit_test(checked_build_guards_large_blocks),
        cmocka_unit_test(checked_build_finds_a_write_after_free),
        cmocka_unit_test(checked_build_watches_128_bytes_of_slack_and_8_kib_of_a_free_block),
        cmocka_unit_test(default_build_keeps_nothing_of_its_own_in_free_memory),
    };
    api_start();
    return cmocka_run_group_tests_name("overflow", tests, NULL, NULL);
}
