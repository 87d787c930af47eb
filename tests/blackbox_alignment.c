/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* Every block is aligned as asked, at least to 16, for every size and every aligned entry point, also after realloc. */
#include "support/api_blackbox.h"

enum { PAGE = 4096, TWO_PAGES = 2 * PAGE, LIVE = 24 };

static const size_t largest_alignment = (size_t)64 << 20;
static const size_t giant_alignment = (size_t)1 << 30;

/* One entry point, brought to the form (alignment, size); `fixed` is the alignment that it has by itself. */
struct way {
    const char *name;
    void *(*get)(size_t alignment, size_t size);
    size_t fixed;
};

static void *(*operator_new_aligned)(size_t, size_t);
static void (*operator_delete_aligned)(void *, size_t);

static void *get_aligned_alloc(size_t alignment, size_t size) { return api.aligned_alloc(alignment, size); }
static void *get_memalign(size_t alignment, size_t size) { return api.memalign(alignment, size); }
static void *get_new(size_t alignment, size_t size) { return operator_new_aligned(size, alignment); }
static void *get_valloc(size_t alignment, size_t size) { return (void)alignment, api.valloc(size); }
static void *get_pvalloc(size_t alignment, size_t size) { return (void)alignment, api.pvalloc(size); }
static void *get_posix_memalign(size_t alignment, size_t size) {
    void *block = NULL;
    size_t least = alignment < sizeof(void *) ? sizeof(void *) : alignment;
    return api.posix_memalign(&block, least, size) == 0 ? block : NULL;
}

static const struct way ways[] = {
    {"aligned_alloc", get_aligned_alloc, 0},
    {"posix_memalign", get_posix_memalign, 0},
    {"memalign", get_memalign, 0},
    {"operator new", get_new, 0},
    {"valloc", get_valloc, PAGE},
    {"pvalloc", get_pvalloc, PAGE},
};

/* The last few blocks stay live, marked at both ends, so that one that overlaps another is seen. */
struct live {
    unsigned char *block;
    size_t usable;
    unsigned char mark;
};

static struct live live[LIVE];
static size_t turn;

static void retire(struct live *old) {
    if (!old->block) {
        return;
    }
    if (old->usable && (old->block[0] != old->mark || old->block[old->usable - 1] != old->mark)) {
        fail_msg("block %p of %zu bytes was written by another", (void *)old->block, old->usable);
    }
    api.free(old->block);
    old->block = NULL;
}

static void retire_all(void) {
    for (size_t i = 0; i < LIVE; i++) {
        retire(&live[i]);
    }
}

static void admit(const char *name, unsigned char *block, size_t alignment, size_t size) {
    struct live *slot = &live[turn++ % LIVE];
    retire(slot);
    if (!block || !api_aligned(block, alignment) || !api_aligned(block, 16)) {
        fail_msg("%s(%zu, %zu) gave %p", name, alignment, size, (void *)block);
    }
    *slot = (struct live){block, api.malloc_usable_size(block), (unsigned char)(turn | 1)};
    if (slot->usable < size) {
        fail_msg("%s(%zu, %zu) has only %zu usable bytes", name, alignment, size, slot->usable);
    }
    if (slot->usable) {
        block[0] = block[slot->usable - 1] = slot->mark;
    }
}

static bool exists(const struct way *way) {
    return way->get != get_new || (operator_new_aligned && operator_delete_aligned);
}

/* All sizes to two pages where blocks are small; about 200 of them where each costs a mapping. */
static size_t size_step(size_t alignment) {
    return alignment <= PAGE || api_soak ? 1 : alignment <= (size_t)1 << 16 ? 13 : 41;
}

static void run_grid(const struct way *way, size_t alignment) {
    for (size_t size = 0; size <= TWO_PAGES; size += size_step(alignment)) {
        admit(way->name, way->get(alignment, size), alignment, size);
    }
    retire_all();
}

static void every_size_to_two_pages_is_aligned_as_asked(void **state) {
    (void)state;
    for (size_t i = 0; i < API_COUNT(ways); i++) {
        if (!exists(&ways[i])) {
            continue;
        }
        if (ways[i].fixed) {
            run_grid(&ways[i], ways[i].fixed);
            continue;
        }
        for (size_t alignment = 1; alignment <= largest_alignment; alignment *= 2) {
            run_grid(&ways[i], alignment);
        }
    }
}

static void large_sizes_are_aligned_as_asked(void **state) {
    (void)state;
    static const size_t sizes[] = {32767, 32769, 65536, 100001, (1 << 20) - 1, (1 << 20) + 1, 3 << 20, 9 << 20};
    for (size_t i = 0; i < 3; i++) {
        for (size_t alignment = 1; alignment <= largest_alignment; alignment *= 2) {
            for (size_t s = 0; s < API_COUNT(sizes); s++) {
                admit(ways[i].name, ways[i].get(alignment, sizes[s]), alignment, sizes[s]);
            }
        }
        retire_all();
    }
}

static void plain_blocks_of_every_size_are_aligned_to_16(void **state) {
    (void)state;
    for (size_t size = 0; size <= 2 * TWO_PAGES; size++) {
        admit("malloc", api.malloc(size), 16, size);
        admit("calloc", api.calloc(1, size), 16, size);
        admit("realloc", api.realloc(api.malloc(size / 2), size ? size : 1), 16, size);
    }
    retire_all();
}

static void realloc_of_an_aligned_block_is_aligned_to_16_and_keeps_content(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 24, 100, 1000, 5000, 40000, 300000, 1500000};
    for (size_t alignment = 32; alignment <= (size_t)4 << 20; alignment *= 2) {
        for (size_t from = 0; from < API_COUNT(sizes); from++) {
            for (size_t to = 0; to < API_COUNT(sizes); to++) {
                unsigned char *block = api.memalign(alignment, sizes[from]);
                size_t kept = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
                assert_non_null(block);
                block[0] = (unsigned char)from;
                block[kept - 1] = (unsigned char)to;
                block[kept / 2] = 0xC3;
                block = api.realloc(block, sizes[to]);
                assert_true(block && api_aligned(block, 16));
                assert_true(kept < 3 || block[0] == from);
                assert_true(kept < 3 || block[kept / 2] == 0xC3);
                assert_true(kept < 3 || block[kept - 1] == to);
                api.free(block);
            }
        }
    }
}

static void alignment_of_1_gib_is_given_where_space_allows(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 4096, 1 << 20, 5 << 20};
    for (size_t i = 0; i < 3; i++) {
        for (size_t s = 0; s < API_COUNT(sizes); s++) {
            admit(ways[i].name, ways[i].get(giant_alignment, sizes[s]), giant_alignment, sizes[s]);
        }
    }
    retire_all();
}

/* An over-aligned block must not keep the address space that was needed to place it. */
static void over_aligned_blocks_leave_no_address_space_behind(void **state) {
    (void)state;
    size_t before = 0;
    for (int round = 0; round < 200; round++) {
        void *block = api.memalign(giant_alignment, 5000000);
        assert_non_null(block);
        api.free(block);
        if (round == 9) {
            before = api_address_space();
        }
    }
    assert_in_range(api_address_space(), 0, before + ((size_t)16 << 20));
}

static void every_form_of_free_takes_an_aligned_block(void **state) {
    (void)state;
    for (size_t alignment = 16; alignment <= giant_alignment; alignment *= 2) {
        for (size_t size = 1; size <= (size_t)2 << 20; size = size * 5 + 3) {
            api.free(api.aligned_alloc(alignment, size));
            if (api.free_sized) {
                api.free_sized(api.memalign(alignment, size), size);
                api.free_aligned_sized(api.aligned_alloc(alignment, size), alignment, size);
                api.cfree(api.aligned_alloc(alignment, size));
            }
            if (operator_delete_aligned) {
                operator_delete_aligned(operator_new_aligned(size, alignment), alignment);
            }
        }
    }
}

static void valloc_and_pvalloc_give_whole_pages(void **state) {
    (void)state;
    api_each(it) {
        for (size_t size = 0; size <= 5 * PAGE; size += 7) {
            char *block = it->pvalloc(size);
            size_t rounded = (size + PAGE - 1) / PAGE * PAGE;
            assert_true(block && api_aligned(block, PAGE));
            assert_true(it->malloc_usable_size(block) >= rounded);
            memset(block, 1, rounded);
            it->free(block);
        }
    }
}

static void memalign_rounds_an_alignment_up_to_a_power_of_two(void **state) {
    (void)state;
    static const size_t odd[][2] = {{0, 16},  {3, 16},    {17, 32},     {24, 32},
                                    {48, 64}, {100, 128}, {5000, 8192}, {((size_t)1 << 20) + 1, (size_t)2 << 20}};
    api_each(it) {
        for (size_t i = 0; i < API_COUNT(odd); i++) {
            void *block = it->memalign(odd[i][0], 100);
            assert_true(block && api_aligned(block, odd[i][1]));
            it->free(block);
        }
        errno = 0;
        assert_null(it->memalign(((size_t)1 << 63) + 1, 100));
        assert_int_equal(errno, EINVAL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_to_two_pages_is_aligned_as_asked),
        cmocka_unit_test(large_sizes_are_aligned_as_asked),
        cmocka_unit_test(plain_blocks_of_every_size_are_aligned_to_16),
        cmocka_unit_test(realloc_of_an_aligned_block_is_aligned_to_16_and_keeps_content),
        cmocka_unit_test(alignment_of_1_gib_is_given_where_space_allows),
        cmocka_unit_test(over_aligned_blocks_leave_no_address_space_behind),
        cmocka_unit_test(every_form_of_free_takes_an_aligned_block),
        cmocka_unit_test(valloc_and_pvalloc_give_whole_pages),
        cmocka_unit_test(memalign_rounds_an_alignment_up_to_a_power_of_two),
    };
    api_start();
    bool required = api_build != API_ANY;
    api_bind(&operator_new_aligned, "", "_ZnwmSt11align_val_t", required);
    api_bind(&operator_delete_aligned, "", "_ZdlPvSt11align_val_t", required);
    return cmocka_run_group_tests_name("alignment", tests, NULL, NULL);
}
