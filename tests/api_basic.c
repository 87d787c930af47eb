/* Every function of hakmem.h, in one thread: sizes sparsely, content, alignment, errors. */
#include "support/prefixed.h"

#include <malloc.h>

/* The edges of the layers and of some classes; each is tried with its neighbours. */
static const size_t edges[] = {64,      128,        160,      1024,     1280,      4096,
                               8192,    16 * KIB,   32 * KIB, 64 * KIB, 128 * KIB, 448 * KIB,
                               1 * MIB, 1280 * KIB, 2 * MIB,  4 * MIB,  16 * MIB,  64 * MIB};
#define EDGE_SIZES (3 * COUNT(edges))
static size_t edge_size(size_t i) { return edges[i / 3] + i % 3 - 1; }

#define SMALL_SIZES 130
#define ALL_SIZES (SMALL_SIZES + EDGE_SIZES)
static size_t nth_size(size_t i) { return i < SMALL_SIZES ? i : edge_size(i - SMALL_SIZES); }

static void a_block_of_each_size_is_aligned_owned_and_nobody_elses(void **state) {
    (void)state;
    static char *blocks[ALL_SIZES];
    static size_t usable[ALL_SIZES];
    for (size_t i = 0; i < ALL_SIZES; i++) {
        blocks[i] = hak_malloc(nth_size(i));
        assert_non_null(blocks[i]);
        assert_true(is_aligned(blocks[i], 16));
        assert_int_equal(hak_is_owned(blocks[i]), 1);
        usable[i] = hak_malloc_usable_size(blocks[i]);
        if (EXACT) assert_int_equal(usable[i], nth_size(i));
        assert_true(usable[i] >= nth_size(i));
        fill(blocks[i], usable[i], i);
    }
    for (size_t i = 0; i < ALL_SIZES; i++) {
        assert_int_equal(hak_malloc_usable_size(blocks[i]), usable[i]);
        assert_true(is_filled(blocks[i], usable[i], i));
        hak_free(blocks[i]);
    }
}

static void calloc_gives_zero_where_the_last_user_left_dirt(void **state) {
    (void)state;
    for (size_t i = 0; i < ALL_SIZES; i++) {
        size_t bytes = nth_size(i);
        char *dirty = hak_malloc(bytes);
        assert_non_null(dirty);
        memset(dirty, 0xee, bytes);
        hak_free(dirty);
        char *clean = hak_calloc(bytes == 0 ? 3 : bytes, bytes == 0 ? 0 : 1);
        assert_non_null(clean);
        assert_true(is_zero(clean, hak_malloc_usable_size(clean)));
        hak_free(clean);
    }
}

static void realloc_keeps_the_content_from_any_size_to_any_other(void **state) {
    (void)state;
    static const size_t sizes[] = {1,        16,       100,       1000,    1024,    1025,   5000,
                                   32 * KIB, 40 * KIB, 100 * KIB, 1 * MIB, 2 * MIB, 5 * MIB};
    for (size_t from = 0; from < COUNT(sizes); from++)
        for (size_t to = 0; to < COUNT(sizes); to++) {
            char *ptr = hak_malloc(sizes[from]);
            assert_non_null(ptr);
            fill(ptr, sizes[from], from);
            ptr = hak_realloc(ptr, sizes[to]);
            assert_non_null(ptr);
            assert_true(hak_malloc_usable_size(ptr) >= sizes[to]);
            assert_true(keeps(ptr, sizes[to], sizes[from], from));
            fill(ptr, sizes[to], to); /* all of it is ours */
            hak_free(ptr);
        }
}

static void a_block_that_grows_by_single_bytes_moves_seldom(void **state) {
    (void)state;
    unsigned moves = 0;
    char *ptr = hak_malloc(64);
    for (size_t size = 65; size <= 4096; size++) {
        char *moved = hak_realloc(ptr, size);
        assert_non_null(moved);
        if (hak_malloc_usable_size(moved) > size + size / 2) fail_msg("%zu bytes were too much room", size);
        moves += moved != ptr;
        ptr = moved;
    }
    ptr = hak_realloc(ptr, 100);
    assert_in_range(hak_malloc_usable_size(ptr), 100, 112);
    hak_free(ptr);
    if (!EXACT) assert_in_range(moves, 1, 19); /* log(4096 / 64) to the base of 5/4; there are 24 classes in between */
}

/* More than half full, or too small for a smaller class. */
static void a_block_that_fits_stays_where_it_is(void **state) {
    (void)state;
    if (EXACT) return; /* there any moves */
    for (size_t size = 1; size <= 32 * KIB; size += size / 16 + 1) {
        char *ptr = hak_malloc(size);
        const size_t usable = hak_malloc_usable_size(ptr);
        assert_ptr_equal(hak_realloc(ptr, usable), ptr);
        assert_ptr_equal(hak_realloc(ptr, usable / 2 + 1), ptr);
        if (usable == 16) assert_ptr_equal(hak_realloc(ptr, 1), ptr);
        hak_free(ptr);
    }
}

static void realloc_begins_and_ends_a_block(void **state) {
    (void)state;
    char *ptr = hak_realloc(NULL, 100);
    assert_non_null(ptr);
    uint64_t before = stats_now().layer[HAK_LAYER_TINY].live_blocks;
    assert_null(hak_realloc(ptr, 0));
    assert_int_equal(stats_now().layer[HAK_LAYER_TINY].live_blocks, before - 1);
    ptr = hak_reallocarray(NULL, 25, 4);
    assert_true(hak_malloc_usable_size(ptr) >= 100);
    fill(ptr, 100, 1);
    ptr = hak_reallocarray(ptr, 1000, 40);
    assert_true(hak_malloc_usable_size(ptr) >= 40000);
    assert_true(is_filled(ptr, 100, 1));
    assert_null(hak_reallocarray(ptr, 0, 40));
}

static void rezalloc_keeps_what_was_and_zeroes_what_is_added(void **state) {
    (void)state;
    static const size_t sizes[] = {10, 100, 90, 3000, 40 * KIB, 30 * KIB, 70 * KIB, 1 * MIB, 3 * MIB, 9 * MIB, 50};
    char *ptr = NULL;
    size_t kept = 0;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        ptr = hak_rezalloc(ptr, sizes[i]);
        assert_non_null(ptr);
        if (kept > sizes[i]) kept = sizes[i];
        assert_true(keeps(ptr, kept, 10, 7));
        size_t usable = hak_malloc_usable_size(ptr);
        if (kept == 10) assert_true(is_zero(ptr + 10, usable - 10));
        else assert_true(is_zero(ptr, usable));
        fill(ptr, 10, 7);
        kept = 10;
    }
    assert_null(hak_rezalloc(ptr, 0));
}

static void every_aligned_form_aligns_blocks_of_every_size(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 17, 100, 1024, 5000, 33 * KIB, 300 * KIB, 2 * MIB};
    for (size_t align = 1; align <= 8 * MIB; align *= 2)
        for (size_t i = 0; i < COUNT(sizes); i++) {
            char *blocks[3] = {hak_aligned_alloc(align, sizes[i]), hak_memalign(align, sizes[i]), NULL};
            if (align >= sizeof(void *)) {
                void *ptr = NULL;
                assert_int_equal(hak_posix_memalign(&ptr, align, sizes[i]), 0);
                blocks[2] = ptr;
            }
            for (unsigned form = 0; form < 3; form++) {
                if (form == 2 && align < sizeof(void *)) continue;
                assert_non_null(blocks[form]);
                assert_true(is_aligned(blocks[form], align < 16 ? 16 : align));
                assert_true(hak_malloc_usable_size(blocks[form]) >= sizes[i]);
                fill(blocks[form], sizes[i], form);
            }
            for (unsigned form = 0; form < 3; form++) {
                if (blocks[form] != NULL) assert_true(is_filled(blocks[form], sizes[i], form));
                hak_free_aligned_sized(blocks[form], align, sizes[i]);
            }
        }
}

static void pages_come_whole_from_valloc_and_pvalloc(void **state) {
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 65536, 65537, 3 << 20};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t whole = sizes[i] == 0 ? page : (sizes[i] + page - 1) / page * page;
        char *v = hak_valloc(sizes[i]), *p = hak_pvalloc(sizes[i]);
        assert_true(v != NULL && is_aligned(v, page) && hak_malloc_usable_size(v) >= sizes[i]);
        assert_true(p != NULL && is_aligned(p, page) && hak_malloc_usable_size(p) >= whole);
        fill(p, whole, i);
        hak_free(v);
        assert_true(is_filled(p, whole, i));
        hak_free(p);
    }
}

static void an_aligned_block_keeps_its_content_through_realloc(void **state) {
    (void)state;
    for (size_t align = 32; align <= 2 * MIB; align *= 4) {
        char *ptr = hak_aligned_alloc(align, 3000);
        assert_non_null(ptr);
        fill(ptr, 3000, align);
        ptr = hak_realloc(ptr, 2 * MIB);
        assert_non_null(ptr);
        assert_true(is_filled(ptr, 3000, align));
        hak_free(ptr);
    }
}

static void each_form_of_free_keeps_errno(void **state) {
    (void)state;
    for (size_t i = 0; i < ALL_SIZES; i += 5) {
        size_t bytes = nth_size(i);
        char *a = hak_malloc(bytes), *b = hak_malloc(bytes), *c = hak_malloc(bytes), *d = hak_aligned_alloc(64, bytes);
        assert_true(a != NULL && b != NULL && c != NULL && d != NULL);
        errno = 4711;
        hak_free(a);
        hak_cfree(b);
        hak_free_sized(c, bytes);
        hak_free_aligned_sized(d, 64, bytes);
        assert_int_equal(errno, 4711);
    }
    hak_free(NULL);
    hak_cfree(NULL);
    hak_free_sized(NULL, 5);
    hak_free_aligned_sized(NULL, 16, 5);
    assert_int_equal(errno, 4711);
}

#define REFUSED(call)                                                                                                  \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        assert_null(call);                                                                                             \
        assert_int_equal(errno, ENOMEM);                                                                               \
    } while (0)

static void sizes_beyond_ptrdiff_max_are_out_of_memory(void **state) {
    (void)state;
    const size_t huge[] = {(size_t)PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 4096, SIZE_MAX};
    char *ptr = hak_malloc(100), *same = ptr;
    fill(ptr, 100, 3);
    for (size_t i = 0; i < COUNT(huge); i++) {
        volatile size_t n = huge[i]; /* a constant would be a compile-time warning */
        REFUSED(hak_malloc(n));
        REFUSED(hak_calloc(n, 1));
        REFUSED(hak_calloc(2, n));
        REFUSED(hak_realloc(ptr, n));
        REFUSED(hak_reallocarray(ptr, n, 2));
        REFUSED(hak_rezalloc(ptr, n));
        REFUSED(hak_aligned_alloc(64, n));
        REFUSED(hak_memalign(64, n));
        REFUSED(hak_valloc(n));
        REFUSED(hak_pvalloc(n));
        REFUSED(hak_malloc_at_least(n).ptr);
        void *out = same;
        errno = 4711;
        assert_int_equal(hak_posix_memalign(&out, 64, n), ENOMEM);
        assert_ptr_equal(out, same);
        assert_int_equal(errno, 4711);
    }
    assert_true(is_filled(ptr, 100, 3));
    hak_free(ptr);
}

static void a_wrong_alignment_is_invalid(void **state) {
    (void)state;
    static const size_t wrong[] = {0, 3, 24, 48, 4095};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        volatile size_t align = wrong[i];
        void *out = &out;
        errno = 0;
        assert_null(hak_aligned_alloc(align, 10));
        assert_int_equal(errno, EINVAL);
        errno = 4711;
        assert_int_equal(hak_posix_memalign(&out, align, 10), EINVAL);
        assert_ptr_equal(out, &out);
        assert_int_equal(errno, 4711);
        char *rounded = hak_memalign(align, 10);
        assert_true(rounded != NULL && is_aligned(rounded, 16));
        hak_free(rounded);
    }
    void *out = NULL;
    assert_int_equal(hak_posix_memalign(&out, 4, 10), EINVAL);
    errno = 0;
    assert_null(hak_memalign(SIZE_MAX / 2 + 2, 10));
    assert_int_equal(errno, EINVAL);
}

static void the_good_size_is_what_malloc_gives(void **state) {
    (void)state;
    hak_purge(); /* a cached mapping may be larger than asked for */
    for (size_t i = 0; i < ALL_SIZES; i++) {
        size_t bytes = nth_size(i), good = hak_good_size(bytes);
        struct hak_sized_ptr block = hak_malloc_at_least(bytes);
        assert_non_null(block.ptr);
        assert_true(good >= bytes);
        assert_int_equal(block.size, good);
        assert_int_equal(hak_malloc_usable_size(block.ptr), good);
        assert_int_equal(hak_good_size(good), good);
        fill(block.ptr, block.size, i);
        hak_free_sized(block.ptr, block.size);
        hak_purge();
    }
    assert_int_equal(hak_good_size((size_t)PTRDIFF_MAX + 1), 0);
    assert_int_equal(hak_good_size(SIZE_MAX), 0);
    assert_int_equal(hak_malloc_usable_size(NULL), 0);
}

static void only_hakmems_own_memory_is_owned(void **state) {
    (void)state;
    static char global;
    char local;
    const uintptr_t others[] = {0,          1,          (uintptr_t)&global, (uintptr_t)&local, (uintptr_t)&hak_malloc,
                                1ULL << 47, 1ULL << 48, 1ULL << 56,         UINT64_MAX};
    for (size_t i = 0; i < COUNT(others); i++) assert_int_equal(hak_is_owned((const void *)others[i]), 0);
    char *big = hak_malloc(2 * MIB);
    assert_int_equal(hak_is_owned(big), 1);
    hak_free(big);
    hak_purge();
    assert_int_equal(hak_is_owned(big), 0); /* its mapping went back to the system */
}

static void purge_and_trim_give_back_what_is_free(void **state) {
    (void)state;
    enum { BLOCKS = 200 };
    char *blocks[BLOCKS];
    hak_purge();
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = hak_malloc(i % 2 ? 9000 : 300 * KIB);
        assert_non_null(blocks[i]);
        fill(blocks[i], 9000, 1);
    }
    for (int i = 0; i < BLOCKS; i++) hak_free(blocks[i]);
    assert_true(hak_purge() >= BLOCKS / 2 * 300 * KIB);
    assert_int_equal(hak_purge(), 0);
    assert_int_equal(hak_malloc_trim(0), 0);
    hak_free(hak_malloc(200 * KIB));
    assert_int_equal(hak_malloc_trim(SIZE_MAX), 1);

    char *ptr = hak_malloc(40);
    hak_free(ptr);
    hak_thread_flush();
    assert_int_equal(stats_now().layer[HAK_LAYER_TINY].cached_bytes, 0);
}

static void mallopt_takes_what_has_a_meaning(void **state) {
    (void)state;
    assert_int_equal(hak_mallopt(M_TRIM_THRESHOLD, 8 << 20), 1);
    assert_int_equal(hak_mallopt(M_MMAP_THRESHOLD, 64 << 20), 1);
    assert_int_equal(hak_mallopt(M_PERTURB, 0), HAK_CHECKED);
    assert_int_equal(hak_mallopt(M_ARENA_MAX, 1), 0);
    assert_int_equal(hak_mallopt(4711, 1), 0);
    assert_int_equal(hak_mallopt(M_TRIM_THRESHOLD, -2), 0);
    assert_int_equal(hak_mallopt(M_MMAP_THRESHOLD, -1), 0);
}

static void wrong_requests_for_statistics_are_invalid(void **state) {
    (void)state;
    struct hak_stats stats = {.version = HAK_STATS_VERSION + 1, .size = sizeof stats};
    assert_int_equal(hak_stats_get(NULL), EINVAL);
    assert_int_equal(hak_stats_get(&stats), EINVAL);
    stats.version = HAK_STATS_VERSION;
    stats.size = 7;
    assert_int_equal(hak_stats_get(&stats), EINVAL);
    assert_int_equal(hak_stats_print(2, (enum hak_format)2), EINVAL);
    assert_int_equal(hak_stats_print(-1, HAK_FORMAT_TEXT), EBADF);
    int fd = open("/dev/null", O_WRONLY);
    assert_int_equal(hak_stats_print(fd, HAK_FORMAT_TEXT), 0);
    assert_int_equal(hak_stats_print(fd, HAK_FORMAT_JSON), 0);
    close(fd);
}

static void the_version_is_that_of_the_header(void **state) {
    (void)state;
    char version[64];
    snprintf(version, sizeof version, "%d.%d.%d%s", HAKMEM_VERSION_MAJOR, HAKMEM_VERSION_MINOR, HAKMEM_VERSION_PATCH,
             HAK_CHECKED ? "-checked" : "");
    assert_string_equal(hak_version(), version);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_of_each_size_is_aligned_owned_and_nobody_elses),
        cmocka_unit_test(calloc_gives_zero_where_the_last_user_left_dirt),
        cmocka_unit_test(realloc_keeps_the_content_from_any_size_to_any_other),
        cmocka_unit_test(a_block_that_grows_by_single_bytes_moves_seldom),
        cmocka_unit_test(a_block_that_fits_stays_where_it_is),
        cmocka_unit_test(realloc_begins_and_ends_a_block),
        cmocka_unit_test(rezalloc_keeps_what_was_and_zeroes_what_is_added),
        cmocka_unit_test(every_aligned_form_aligns_blocks_of_every_size),
        cmocka_unit_test(pages_come_whole_from_valloc_and_pvalloc),
        cmocka_unit_test(an_aligned_block_keeps_its_content_through_realloc),
        cmocka_unit_test(each_form_of_free_keeps_errno),
        cmocka_unit_test(sizes_beyond_ptrdiff_max_are_out_of_memory),
        cmocka_unit_test(a_wrong_alignment_is_invalid),
        cmocka_unit_test(the_good_size_is_what_malloc_gives),
        cmocka_unit_test(only_hakmems_own_memory_is_owned),
        cmocka_unit_test(purge_and_trim_give_back_what_is_free),
        cmocka_unit_test(mallopt_takes_what_has_a_meaning),
        cmocka_unit_test(wrong_requests_for_statistics_are_invalid),
        cmocka_unit_test(the_version_is_that_of_the_header),
    };
    alarm(HANG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
