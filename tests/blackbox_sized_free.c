/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* free_sized, free_aligned_sized, and sized and aligned operator delete: accepted with every right size and alignment;
 * a wrong one is reported by the checked build. */
#include "support/api_misuse.h"

static void *(*new_plain)(size_t);
static void *(*new_array)(size_t);
static void *(*new_aligned)(size_t, size_t);
static void *(*new_array_aligned)(size_t, size_t);
static void (*delete_plain)(void *);
static void (*delete_array)(void *);
static void (*delete_sized)(void *, size_t);
static void (*delete_array_sized)(void *, size_t);
static void (*delete_aligned)(void *, size_t);
static void (*delete_array_aligned)(void *, size_t);
static void (*delete_sized_aligned)(void *, size_t, size_t);
static void (*delete_array_sized_aligned)(void *, size_t, size_t);

static const struct {
    void *slot;
    const char *symbol;
} operators[] = {
    {&new_plain, "_Znwm"},
    {&new_array, "_Znam"},
    {&new_aligned, "_ZnwmSt11align_val_t"},
    {&new_array_aligned, "_ZnamSt11align_val_t"},
    {&delete_plain, "_ZdlPv"},
    {&delete_array, "_ZdaPv"},
    {&delete_sized, "_ZdlPvm"},
    {&delete_array_sized, "_ZdaPvm"},
    {&delete_aligned, "_ZdlPvSt11align_val_t"},
    {&delete_array_aligned, "_ZdaPvSt11align_val_t"},
    {&delete_sized_aligned, "_ZdlPvmSt11align_val_t"},
    {&delete_array_sized_aligned, "_ZdaPvmSt11align_val_t"},
};

/* Each to 5,000, and from there about 200 per doubling with no regularity that could miss an edge. */
static size_t next_size(size_t size) { return size + 1 + (size < 5000 ? 0 : size / 200); }

enum { LAST = 5000000 };

static void *filled(void *block, size_t size) {
    assert_non_null(block);
    memset(block, 0x21, size < 5000 ? size : 5000);
    return block;
}

static void free_sized_takes_the_requested_and_the_usable_size(void **state) {
    (void)state;
    api_need(api.free_sized);
    api_each(it) {
        for (size_t size = 0; size < LAST; size = next_size(size)) {
            void *block = filled(it->malloc(size), size);
            size_t usable = it->malloc_usable_size(block);
            it->free_sized(block, size);
            it->free_sized(filled(it->malloc(size), size), usable);
            it->free_sized(filled(it->calloc(1, size), size), size + (usable - size) / 2);
        }
    }
}

static void free_sized_takes_the_size_after_realloc(void **state) {
    (void)state;
    api_need(api.free_sized);
    for (size_t from = 1; from < LAST; from = from * 3 + 1) {
        for (size_t to = 1; to < LAST; to = to * 2 + 1) {
            void *block = filled(api.malloc(from), from);
            api.free_sized(api.realloc(block, to), to);
        }
    }
}

static void free_aligned_sized_takes_the_arguments_of_the_allocation(void **state) {
    (void)state;
    api_need(api.free_aligned_sized);
    api_each(it) {
        for (size_t alignment = 1; alignment <= (size_t)64 << 20; alignment *= 2) {
            for (size_t size = 0; size < LAST; size = size * 5 / 4 + 1) {
                void *block = filled(it->aligned_alloc(alignment, size), size);
                it->free_aligned_sized(block, alignment, size);
            }
        }
    }
}

static void every_operator_delete_takes_what_its_new_gave(void **state) {
    (void)state;
    api_need(new_aligned);
    for (size_t size = 0; size < LAST; size = next_size(size)) {
        delete_plain(filled(new_plain(size), size));
        delete_array(filled(new_array(size), size));
        delete_sized(filled(new_plain(size), size), size);
        delete_array_sized(filled(new_array(size), size), size);
    }
    for (size_t alignment = 1; alignment <= (size_t)16 << 20; alignment *= 2) {
        for (size_t size = 0; size < LAST; size = size * 5 / 4 + 1) {
            delete_aligned(filled(new_aligned(size, alignment), size), alignment);
            delete_array_aligned(filled(new_array_aligned(size, alignment), size), alignment);
            delete_sized_aligned(filled(new_aligned(size, alignment), size), size, alignment);
            delete_array_sized_aligned(filled(new_array_aligned(size, alignment), size), size, alignment);
        }
    }
}

/* ---- wrong ones ---- */

struct mismatch {
    size_t size;
    size_t wrong;
};

static struct mismatch mismatches[] = {
    {8, 7},
    {8, 9},
    {8, 0},
    {100, 99},
    {100, 101},
    {100, 1},
    {100, 5000},
    {1024, 1023},
    {1025, 1024},
    {5000, 4999},
    {5000, 100000},
    {32768, 32769},
    {40000, 39999},
    {40000, 40001},
    {700000, 16},
    {700000, 700001},
    {3000000, 2999999},
    {3000000, 3000001},
    {100, SIZE_MAX},
    {3000000, SIZE_MAX},
};

static void wrong_free_sized(void *argument) {
    const struct mismatch *m = argument;
    void *block = api.malloc(m->size);
    MISUSE(block, api.free_sized(block, m->wrong));
}

static void wrong_free_aligned_sized(void *argument) {
    const struct mismatch *m = argument;
    void *block = api.aligned_alloc(64, m->size);
    MISUSE(block, api.free_aligned_sized(block, 64, m->wrong));
}

static void wrong_delete_sized(void *argument) {
    const struct mismatch *m = argument;
    void *block = new_plain(m->size);
    MISUSE(block, delete_sized(block, m->wrong));
}

static void wrong_delete_array_sized(void *argument) {
    const struct mismatch *m = argument;
    void *block = new_array(m->size);
    MISUSE(block, delete_array_sized(block, m->wrong));
}

static void wrong_delete_sized_aligned(void *argument) {
    const struct mismatch *m = argument;
    void *block = new_aligned(m->size, 128);
    MISUSE(block, delete_sized_aligned(block, m->wrong, 128));
}

static void checked_build_reports_a_wrong_size(void **state) {
    (void)state;
    api_need(api_build == API_CHECKED);
    static const struct api_way ways[] = {
        {"free_sized", wrong_free_sized},
        {"free_aligned_sized", wrong_free_aligned_sized},
        {"operator delete", wrong_delete_sized},
        {"operator delete[]", wrong_delete_array_sized},
        {"operator delete", wrong_delete_sized_aligned},
    };
    for (size_t i = 0; i < API_COUNT(mismatches); i++) {
        char kind[96];
        snprintf(kind, sizeof kind, "wrong size %zu, the block has %zu", mismatches[i].wrong, mismatches[i].size);
        api_assert_each_way_is_found(ways, API_COUNT(ways), &mismatches[i], mismatches[i].size, kind);
    }
}

/* Alignments that the block cannot have been asked for with: no power of two, or its address does not fit. */
static size_t wrong_alignments[] = {0, 3, 24, 100, (size_t)1 << 40, SIZE_MAX};

static void free_with_wrong_alignment(void *argument) {
    void *block = api.aligned_alloc(64, 640);
    MISUSE(block, api.free_aligned_sized(block, *(size_t *)argument, 640));
}

static void delete_with_wrong_alignment(void *argument) {
    void *block = new_aligned(640, 64);
    MISUSE(block, delete_aligned(block, *(size_t *)argument));
}

static void checked_build_reports_a_wrong_alignment(void **state) {
    (void)state;
    api_need(api_build == API_CHECKED);
    static const struct api_way ways[] = {
        {"free_aligned_sized", free_with_wrong_alignment},
        {"operator delete", delete_with_wrong_alignment},
    };
    for (size_t i = 0; i < API_COUNT(wrong_alignments); i++) {
        char kind[64];
        snprintf(kind, sizeof kind, "wrong alignment %zu", wrong_alignments[i]);
        api_assert_each_way_is_found(ways, API_COUNT(ways), &wrong_alignments[i], 640, kind);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_sized_takes_the_requested_and_the_usable_size),
        cmocka_unit_test(free_sized_takes_the_size_after_realloc),
        cmocka_unit_test(free_aligned_sized_takes_the_arguments_of_the_allocation),
        cmocka_unit_test(every_operator_delete_takes_what_its_new_gave),
        cmocka_unit_test(checked_build_reports_a_wrong_size),
        cmocka_unit_test(checked_build_reports_a_wrong_alignment),
    };
    api_start();
    for (size_t i = 0; i < API_COUNT(operators); i++) {
        api_bind(operators[i].slot, "", operators[i].symbol, api_build != API_ANY);
    }
    return cmocka_run_group_tests_name("sized free", tests, NULL, NULL);
}
