/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* Every double free is found and named: immediate, delayed, interleaved, after reuse, across threads, in every layer.
 */
#include "support/api_misuse.h"

static size_t sizes[] = {8, 4096, 256 << 10, 4 << 20};

/* How many cases there were, and how many of them were found within the call. */
static unsigned cases, found_at_once;

static size_t at(void *argument) { return *(size_t *)argument; }

/* Live before and after, so that no whole slab, run or mapping becomes free around the block. */
static void *get_among_others(size_t size) {
    void *before = api.malloc(size);
    void *block = api.malloc(size);
    void *after = api.malloc(size);
    api_child_check(before && block && after);
    memset(block, 1, size);
    return block;
}

static void immediate(void *argument) {
    void *block = get_among_others(at(argument));
    api.free(block);
    MISUSE(block, api.free(block));
}

/* Thousands of calls in between, none of which can be given the block. */
static void delayed(void *argument) {
    void *block = get_among_others(at(argument));
    api.free(block);
    for (size_t i = 0; i < 5000; i++) {
        size_t other = at(argument) < 2000 ? 40000 + i : 16 + i % 1000 / 4;
        void *busy = api.malloc(other);
        api_child_check(busy != NULL);
        api.free(busy);
    }
    MISUSE(block, api.free(block));
}

/* Others of its size are freed after it. */
static void buried(void *argument) {
    enum { MOST = 100 };
    void *others[MOST];
    size_t count = at(argument) > 1 << 20 ? 3 : MOST;
    void *block = get_among_others(at(argument));
    for (size_t i = 0; i < count; i++) {
        others[i] = api.malloc(at(argument));
    }
    api.free(block);
    for (size_t i = 0; i < count; i++) {
        api.free(others[i]);
    }
    MISUSE(block, api.free(block));
}

static void after_a_flush(void *argument) {
    void *block = get_among_others(at(argument));
    api.free(block);
    api_flush();
    MISUSE(block, api.free(block));
}

static void interleaved(void *argument) {
    void *block = get_among_others(at(argument));
    void *other = api.malloc(at(argument));
    api.free(block);
    api.free(other);
    MISUSE(block, api.free(block));
}

/* The address was handed out again in between, and that block was freed. */
static void after_reuse(void *argument) {
    void *block = get_among_others(at(argument));
    api.free(block);
    enum { MOST = 3000 };
    static void *held[MOST];
    size_t count = 0;
    bool again = false;
    while (!again && count < MOST && count * at(argument) < (size_t)1 << 28) {
        held[count] = api.malloc(at(argument));
        again = held[count++] == block;
    }
    if (again) {
        api.free(block);
    }
    MISUSE(block, api.free(block));
}

static void *free_it(void *block) {
    api.free(block);
    return NULL;
}

static void freed_by_a_thread_then_here(void *argument) {
    void *block = get_among_others(at(argument));
    api_in_thread(free_it, block);
    MISUSE(block, api.free(block));
}

static void *misuse_in_thread(void *block) {
    MISUSE(block, api.free(block));
    return NULL;
}

static void freed_here_then_by_a_thread(void *argument) {
    void *block = get_among_others(at(argument));
    api.free(block);
    api_in_thread(misuse_in_thread, block);
}

static void freed_by_two_threads(void *argument) {
    void *block = get_among_others(at(argument));
    api_in_thread(free_it, block);
    api_in_thread(misuse_in_thread, block);
}

static void *misuse_twice_in_thread(void *block) {
    api.free(block);
    return misuse_in_thread(block);
}

static void freed_twice_by_one_other_thread(void *argument) {
    api_in_thread(misuse_twice_in_thread, get_among_others(at(argument)));
}

static void *get_in_thread(void *argument) {
    return *(void **)argument = get_among_others(**(size_t **)argument), NULL;
}

static void freed_twice_after_its_thread_has_ended(void *argument) {
    void *block = argument; /* in: where the size is; out: the block */
    api_in_thread(get_in_thread, &block);
    api.free(block);
    MISUSE(block, api.free(block));
}

static void freed_by_realloc_to_nothing(void *argument) {
    void *block = get_among_others(at(argument));
    api_child_check(api.realloc(block, 0) == NULL);
    MISUSE(block, api.free(block));
}

static void assert_found_for_all_sizes(const char *name, void (*body)(void *), enum api_when when) {
    for (size_t i = 0; i < API_COUNT(sizes); i++) {
        char what[128];
        snprintf(what, sizeof what, "%s, %zu bytes", name, sizes[i]);
        /* Blocks over 32 KiB pass through no thread cache: nothing there to be found late. */
        enum api_when due = sizes[i] > 32768 ? AT_ONCE : when;
        found_at_once += api_assert_misuse_is_found(
            (struct api_misuse){what, body, &sizes[i], "free", "double free", due});
        cases++;
    }
}

#define DOUBLE_FREE_TEST(body, when)                                                                                   \
    static void double_free_##body##_is_found(void **state) {                                                          \
        (void)state;                                                                                                   \
        api_need(hak.version);                                                                                         \
        assert_found_for_all_sizes(#body, body, when);                                                                 \
    }

DOUBLE_FREE_TEST(immediate, AT_ONCE)
DOUBLE_FREE_TEST(delayed, BY_FLUSH)
DOUBLE_FREE_TEST(buried, BY_FLUSH)
DOUBLE_FREE_TEST(after_a_flush, BY_FLUSH)
DOUBLE_FREE_TEST(interleaved, BY_FLUSH)
DOUBLE_FREE_TEST(after_reuse, BY_FLUSH)
DOUBLE_FREE_TEST(freed_by_a_thread_then_here, BY_FLUSH)
DOUBLE_FREE_TEST(freed_here_then_by_a_thread, BY_FLUSH)
DOUBLE_FREE_TEST(freed_by_two_threads, BY_FLUSH)
DOUBLE_FREE_TEST(freed_twice_by_one_other_thread, BY_FLUSH)
DOUBLE_FREE_TEST(freed_twice_after_its_thread_has_ended, BY_FLUSH)
DOUBLE_FREE_TEST(freed_by_realloc_to_nothing, BY_FLUSH)

static void most_double_frees_are_found_at_once(void **state) {
    (void)state;
    api_need(hak.version);
    printf("# %u of %u double frees were found within the call\n", found_at_once, cases);
    assert_true(cases >= 12 * API_COUNT(sizes));
    assert_true(2 * found_at_once > cases);
}

/* ---- every entry point that frees ---- */

static void (*operator_delete)(void *);
static void (*operator_delete_array)(void *);
static void (*operator_delete_sized)(void *, size_t);

enum { ENTRY_SIZE = 100 };

static void by_cfree(void *block) { api.cfree(block); }
static void by_realloc(void *block) { (void)!api.realloc(block, 0); }
static void by_reallocarray(void *block) { (void)!api.reallocarray(block, 0, 4); }
static void by_free_sized(void *block) { api.free_sized(block, ENTRY_SIZE); }
static void by_free_aligned_sized(void *block) { api.free_aligned_sized(block, 16, ENTRY_SIZE); }
static void by_delete(void *block) { operator_delete(block); }
static void by_delete_array(void *block) { operator_delete_array(block); }
static void by_delete_sized(void *block) { operator_delete_sized(block, ENTRY_SIZE); }

static struct entry {
    const char *function;
    void (*call)(void *);
} entries[] = {
    {"cfree", by_cfree},
    {"realloc", by_realloc},
    {"reallocarray", by_reallocarray},
    {"free_sized", by_free_sized},
    {"free_aligned_sized", by_free_aligned_sized},
    {"operator delete", by_delete},
    {"operator delete[]", by_delete_array},
    {"operator delete", by_delete_sized},
};

static void second_free_by_entry(void *argument) {
    const struct entry *entry = argument;
    void *block = get_among_others(ENTRY_SIZE);
    api.free(block);
    api.free(api.malloc(2 * ENTRY_SIZE));
    MISUSE(block, entry->call(block));
}

static void checked_build_names_the_function_that_freed_again(void **state) {
    (void)state;
    api_need(api_build == API_CHECKED);
    for (size_t i = 0; i < API_COUNT(entries); i++) {
        api_assert_misuse_is_found((struct api_misuse){entries[i].function, second_free_by_entry, &entries[i],
                                                       entries[i].function, "double free", AT_ONCE});
    }
}

/* A block that moves is freed by the function that was called, whichever of its ways frees it. */
static void moved_after_free(void *argument) {
    const bool *at_hand = argument; /* there is a block to move to */
    if (*at_hand) api.free(api.malloc(3 * ENTRY_SIZE));
    void *block = get_among_others(ENTRY_SIZE);
    api.free(block);
    MISUSE(block, (void)!api.realloc(block, 3 * ENTRY_SIZE));
}

static void a_freed_block_that_is_moved_is_reported_as_realloc(void **state) {
    (void)state;
    const char *kind = api_build == API_CHECKED ? "pointer into free memory" : "double free";
    for (unsigned at_hand = 0; at_hand <= 1; at_hand++)
        api_assert_misuse_is_found((struct api_misuse){"realloc of a freed block", moved_after_free,
                                                       &(bool){at_hand != 0}, "realloc", kind, AT_ONCE});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(double_free_immediate_is_found),
        cmocka_unit_test(double_free_delayed_is_found),
        cmocka_unit_test(double_free_buried_is_found),
        cmocka_unit_test(double_free_after_a_flush_is_found),
        cmocka_unit_test(double_free_interleaved_is_found),
        cmocka_unit_test(double_free_after_reuse_is_found),
        cmocka_unit_test(double_free_freed_by_a_thread_then_here_is_found),
        cmocka_unit_test(double_free_freed_here_then_by_a_thread_is_found),
        cmocka_unit_test(double_free_freed_by_two_threads_is_found),
        cmocka_unit_test(double_free_freed_twice_by_one_other_thread_is_found),
        cmocka_unit_test(double_free_freed_twice_after_its_thread_has_ended_is_found),
        cmocka_unit_test(double_free_freed_by_realloc_to_nothing_is_found),
        cmocka_unit_test(most_double_frees_are_found_at_once),
        cmocka_unit_test(a_freed_block_that_is_moved_is_reported_as_realloc),
        cmocka_unit_test(checked_build_names_the_function_that_freed_again),
    };
    api_start();
    bool required = api_build != API_ANY;
    api_bind(&operator_delete, "", "_ZdlPv", required);
    api_bind(&operator_delete_array, "", "_ZdaPv", required);
    api_bind(&operator_delete_sized, "", "_ZdlPvm", required);
    return cmocka_run_group_tests_name("double free", tests, NULL, NULL);
}
