/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* realloc keeps the first min(old, new) bytes from any size to any other, and the whole old block where it fails. */
#include "support/api_blackbox.h"
#include "support/api_child.h"
#include "support/api_refuse.h"

#include <pthread.h>

enum { MAX_SIZES = 400 };

static size_t sizes[MAX_SIZES];
static size_t size_count;

static void add_size(size_t size) {
    assert_true(size_count < MAX_SIZES);
    sizes[size_count++] = size;
}

/* Eight sizes per doubling to 4 MiB, which is at least one in every class, and the edges of the layers +-1. */
static int make_sizes(void **state) {
    (void)state;
    static const size_t edges[] = {1024, 4096, 32768, 65536, 1 << 20, 2 << 20};
    for (size_t size = 1; size < 64; size += 7) {
        add_size(size);
    }
    for (size_t base = 64; base <= (size_t)4 << 20; base *= 2) {
        size_t parts = base < 65536 ? 8 : 4;
        for (size_t i = 0; i < parts; i++) {
            add_size(base + base * i / parts);
        }
    }
    for (size_t i = 0; i < API_COUNT(edges); i++) {
        add_size(edges[i] - 1);
        add_size(edges[i] + 1);
    }
    return 0;
}

/* Every byte of a small block, and of a large one the ends and one line in each KiB. */
static size_t pattern_step(size_t at, size_t bytes) {
    return at < 512 || bytes - at <= 512 || at % 1024 < 64 ? 1 : 1024 - at % 1024;
}

static unsigned char pattern(size_t at, unsigned seed) {
    return (unsigned char)(at * 131 + (at >> 8) * 17 + seed * 29 + 7);
}

static void fill(unsigned char *block, size_t bytes, unsigned seed) {
    for (size_t at = 0; at < bytes; at += pattern_step(at, bytes)) {
        block[at] = pattern(at, seed);
    }
}

/* Looks at the first `kept` bytes of what was filled as `bytes`. Returns the first that is wrong, or SIZE_MAX. */
static size_t first_wrong(const unsigned char *block, size_t kept, size_t bytes, unsigned seed) {
    for (size_t at = 0; at < kept; at += pattern_step(at, bytes)) {
        if (block[at] != pattern(at, seed)) {
            return at;
        }
    }
    return SIZE_MAX;
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static unsigned char *resize(unsigned char *block, size_t from, size_t to, unsigned seed) {
    block = api.realloc(block, to);
    if (!block || !api_aligned(block, 16) || api.malloc_usable_size(block) < to) {
        fail_msg("realloc from %zu to %zu gave %p", from, to, (void *)block);
    }
    size_t wrong = first_wrong(block, smaller(from, to), from, seed);
    if (wrong != SIZE_MAX) {
        fail_msg("realloc from %zu to %zu: byte %zu was not kept", from, to, wrong);
    }
    return block;
}

static void every_pair_of_sizes_keeps_the_common_prefix(void **state) {
    (void)state;
    for (unsigned from = 0; from < size_count; from++) {
        for (unsigned to = 0; to < size_count; to++) {
            unsigned char *block = api.malloc(sizes[from]);
            fill(block, sizes[from], from + to);
            block = resize(block, sizes[from], sizes[to], from + to);
            memset(block, 0xEE, smaller(sizes[to], 512));
            api.free(block);
        }
    }
}

static void aligned_blocks_are_resized_like_others(void **state) {
    (void)state;
    for (size_t alignment = 64; alignment <= (size_t)1 << 20; alignment *= 4) {
        for (unsigned from = 0; from < size_count; from += 5) {
            for (unsigned to = 1; to < size_count; to += 5) {
                unsigned char *block = api.memalign(alignment, sizes[from]);
                assert_true(block && api_aligned(block, alignment));
                fill(block, sizes[from], from);
                api.free(resize(block, sizes[from], sizes[to], from));
            }
        }
    }
}

/* What a growing string or a shrinking buffer does, with live neighbours that must not be written. */
static void block_that_grows_and_shrinks_in_steps_keeps_its_content(void **state) {
    (void)state;
    size_t last = api_soak ? (size_t)1 << 30 : (size_t)64 << 20;
    unsigned char *neighbours[2] = {api.malloc(5000), api.malloc(100)};
    memset(neighbours[0], 1, 5000);
    memset(neighbours[1], 2, 100);
    size_t bytes = 1;
    unsigned seed = 0;
    unsigned char *block = api.malloc(bytes);
    fill(block, bytes, seed);
    while (bytes < last) {
        size_t next = bytes + bytes / 3 + 1;
        block = resize(block, bytes, next, seed);
        fill(block, next, ++seed);
        bytes = next;
    }
    while (bytes > 1) {
        size_t next = bytes * 5 / 8;
        block = resize(block, bytes, next, seed);
        fill(block, next, ++seed);
        bytes = next;
    }
    for (size_t i = 0; i < 5000; i++) {
        assert_int_equal(neighbours[0][i], 1);
        assert_int_equal(neighbours[1][i % 100], 2);
    }
    api.free(block);
    api.free(neighbours[0]);
    api.free(neighbours[1]);
}

static void one_byte_steps_across_every_class_edge_keep_content(void **state) {
    (void)state;
    unsigned char *block = api.malloc(1);
    fill(block, 1, 0);
    for (size_t bytes = 1; bytes < 5000; bytes++) {
        block = resize(block, bytes, bytes + 1, (unsigned)bytes - 1);
        fill(block, bytes + 1, (unsigned)bytes);
    }
    api.free(block);
}

static void reallocarray_resizes_by_the_product(void **state) {
    (void)state;
    api_each(it) {
        unsigned char *block = it->malloc(24);
        fill(block, 24, 1);
        block = it->reallocarray(block, 1000, 24);
        assert_true(block && it->malloc_usable_size(block) >= 24000);
        assert_int_equal(first_wrong(block, 24, 24, 1), SIZE_MAX);
        fill(block, 24000, 2);
        block = it->reallocarray(block, 5, 100);
        assert_non_null(block);
        assert_int_equal(first_wrong(block, 500, 24000, 2), SIZE_MAX);
        it->free(block);
    }
}

static void failure_keeps_the_old_block(void **state) {
    (void)state;
    static const size_t too_much[] = {SIZE_MAX, (size_t)PTRDIFF_MAX + 1, PTRDIFF_MAX, (size_t)1 << 47};
    api_each(it) {
        for (unsigned i = 0; i < size_count; i++) {
            unsigned char *block = it->malloc(sizes[i]);
            size_t usable = it->malloc_usable_size(block);
            fill(block, sizes[i], i);
            for (size_t t = 0; t < API_COUNT(too_much); t++) {
                errno = 0;
                assert_null(it->realloc(block, too_much[t]));
                assert_int_equal(errno, ENOMEM);
                assert_null(it->reallocarray(block, too_much[t] / 16 + 1, 32));
            }
            assert_int_equal(first_wrong(block, sizes[i], sizes[i], i), SIZE_MAX);
            assert_int_equal(it->malloc_usable_size(block), usable);
            it->free(block);
        }
    }
}

/* The same where the size is reasonable but the address space is not there. */
static void grow_without_room(void *argument) {
    (void)argument;
    static unsigned char *blocks[MAX_SIZES];
    for (unsigned i = 0; i < size_count; i++) {
        blocks[i] = api.malloc(sizes[i]);
        fill(blocks[i], sizes[i], i);
    }
    struct rlimit limit = {api_address_space() + (8 << 20), api_address_space() + (8 << 20)};
    api_child_check(setrlimit(RLIMIT_AS, &limit) == 0);
    for (unsigned i = 0; i < size_count; i++) {
        errno = 0;
        api_child_check(api.realloc(blocks[i], (size_t)1 << 30) == NULL);
        api_child_check(errno == ENOMEM);
        api_child_check(first_wrong(blocks[i], sizes[i], sizes[i], i) == SIZE_MAX);
        api.free(blocks[i]);
    }
}

static void running_out_of_memory_keeps_the_old_block(void **state) {
    (void)state;
    api_child_succeeds(grow_without_room, NULL, "8 MiB of address space left");
}

static void resize_without_mremap(void *error) {
    static const unsigned calls[] = {SYS_mremap, SYS_madvise, SYS_munmap};
    api_refuse(calls, API_COUNT(calls), *(unsigned *)error);
    for (unsigned from = 0; from < size_count; from += 3) {
        for (unsigned to = 0; to < size_count; to += 3) {
            unsigned char *block = api.malloc(sizes[from]);
            fill(block, sizes[from], from);
            block = api.realloc(block, sizes[to]);
            api_child_check(block != NULL);
            api_child_check(first_wrong(block, smaller(sizes[from], sizes[to]), sizes[from], from) == SIZE_MAX);
            api.free(block);
        }
    }
}

static void content_is_kept_when_the_system_refuses_to_move_or_take_pages(void **state) {
    (void)state;
    static unsigned errors[] = {ENOMEM, EINVAL};
    for (size_t i = 0; i < API_COUNT(errors); i++) {
        api_child_succeeds(resize_without_mremap, &errors[i], strerror((int)errors[i]));
    }
}

struct handed_over {
    unsigned char *blocks[MAX_SIZES];
};

static void *resize_in_thread(void *argument) {
    struct handed_over *given = argument;
    for (unsigned i = 0; i < size_count; i++) {
        given->blocks[i] = api.realloc(given->blocks[i], sizes[size_count - 1 - i]);
    }
    return NULL;
}

static void block_of_another_thread_is_resized(void **state) {
    (void)state;
    static struct handed_over given;
    pthread_t thread;
    for (unsigned i = 0; i < size_count; i++) {
        given.blocks[i] = api.malloc(sizes[i]);
        fill(given.blocks[i], sizes[i], i);
    }
    assert_int_equal(pthread_create(&thread, NULL, resize_in_thread, &given), 0);
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < size_count; i++) {
        size_t kept = smaller(sizes[i], sizes[size_count - 1 - i]);
        assert_non_null(given.blocks[i]);
        assert_int_equal(first_wrong(given.blocks[i], kept, sizes[i], i), SIZE_MAX);
        api.free(given.blocks[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_of_sizes_keeps_the_common_prefix),
        cmocka_unit_test(aligned_blocks_are_resized_like_others),
        cmocka_unit_test(block_that_grows_and_shrinks_in_steps_keeps_its_content),
        cmocka_unit_test(one_byte_steps_across_every_class_edge_keep_content),
        cmocka_unit_test(reallocarray_resizes_by_the_product),
        cmocka_unit_test(failure_keeps_the_old_block),
        cmocka_unit_test(running_out_of_memory_keeps_the_old_block),
        cmocka_unit_test(content_is_kept_when_the_system_refuses_to_move_or_take_pages),
        cmocka_unit_test(block_of_another_thread_is_resized),
    };
    api_start();
    return cmocka_run_group_tests_name("realloc", tests, make_sizes, NULL);
}
