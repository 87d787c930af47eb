/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* Every exported symbol can be the first that a fresh process calls, and a block that it gives is hakmem's. The
 * program starts itself anew for each name of the golden list. */
#include "support/api_child.h"

#include <limits.h>
#include <malloc.h>

enum { BYTES = 40, ALIGNMENT = 64 };

/* ---- one caller per signature; each returns a block, or NULL if its symbol gives none ---- */

#define CALL(type, arguments, ...) (((type(*) arguments)function)(__VA_ARGS__))

static void *gives_of_size(void *function) { return CALL(void *, (size_t), BYTES); }
static void *gives_nothrow(void *function) { return CALL(void *, (size_t, const char *), BYTES, ""); }
static void *gives_new_aligned(void *function) { return CALL(void *, (size_t, size_t), BYTES, ALIGNMENT); }
static void *gives_new_aligned_nothrow(void *function) {
    return CALL(void *, (size_t, size_t, const char *), BYTES, ALIGNMENT, "");
}
static void *gives_of_count(void *function) { return CALL(void *, (size_t, size_t), 5, 8); }
static void *gives_aligned(void *function) { return CALL(void *, (size_t, size_t), ALIGNMENT, BYTES); }
static void *gives_resized(void *function) { return CALL(void *, (void *, size_t), NULL, BYTES); }
static void *gives_array(void *function) { return CALL(void *, (void *, size_t, size_t), NULL, 5, 8); }
static void *gives_at_least(void *function) { return CALL(struct hak_sized_ptr, (size_t), BYTES).ptr; }
static void *gives_through_pointer(void *function) {
    void *block = NULL;
    api_child_check(CALL(int, (void **, size_t, size_t), &block, ALIGNMENT, BYTES) == 0);
    return block;
}

/* Frees: nothing at first, then a block. */
static void *takes(void *function) {
    CALL(void, (void *), NULL);
    CALL(void, (void *), malloc(BYTES));
    return NULL;
}
static void *takes_sized(void *function) {
    CALL(void, (void *, size_t), NULL, BYTES);
    CALL(void, (void *, size_t), malloc(BYTES), BYTES);
    return NULL;
}
static void *takes_nothrow(void *function) {
    CALL(void, (void *, const char *), NULL, "");
    CALL(void, (void *, const char *), malloc(BYTES), "");
    return NULL;
}
static void *takes_aligned(void *function) {
    CALL(void, (void *, size_t), NULL, ALIGNMENT);
    CALL(void, (void *, size_t), aligned_alloc(ALIGNMENT, ALIGNMENT), ALIGNMENT);
    return NULL;
}
static void *takes_aligned_nothrow(void *function) {
    CALL(void, (void *, size_t, const char *), NULL, ALIGNMENT, "");
    CALL(void, (void *, size_t, const char *), aligned_alloc(ALIGNMENT, ALIGNMENT), ALIGNMENT, "");
    return NULL;
}
static void *takes_sized_aligned(void *function) /* operator delete(pointer, size, alignment) */
{
    CALL(void, (void *, size_t, size_t), NULL, 128, ALIGNMENT);
    CALL(void, (void *, size_t, size_t), aligned_alloc(ALIGNMENT, 128), 128, ALIGNMENT);
    return NULL;
}
static void *takes_aligned_sized(void *function) /* free_aligned_sized(pointer, alignment, size) */
{
    CALL(void, (void *, size_t, size_t), NULL, ALIGNMENT, 128);
    CALL(void, (void *, size_t, size_t), aligned_alloc(ALIGNMENT, 128), ALIGNMENT, 128);
    return NULL;
}

/* Questions and orders. */
static void *asks_usable(void *function) {
    api_child_check(CALL(size_t, (void *), NULL) == 0);
    void *block = malloc(BYTES);
    api_child_check(CALL(size_t, (void *), block) >= BYTES);
    return block;
}
static void *asks_trim(void *function) {
    int trimmed = CALL(int, (size_t), 0);
    api_child_check(trimmed == 0 || trimmed == 1);
    return NULL;
}
static void *sets_option(void *function) {
    api_child_check(CALL(int, (int, int), M_TRIM_THRESHOLD, 1 << 20) == 1);
    return NULL;
}
static void *asks_mallinfo(void *function) {
    struct mallinfo info = CALL(struct mallinfo, (void), );
    api_child_check(info.uordblks >= 0 && info.fordblks >= 0);
    return NULL;
}
static void *asks_mallinfo2(void *function) {
    void *block = NULL;
    struct mallinfo2 before = CALL(struct mallinfo2, (void), );
    block = malloc((size_t)10 << 20);
    struct mallinfo2 after = CALL(struct mallinfo2, (void), );
    api_child_check(after.uordblks + after.hblkhd >= before.uordblks + before.hblkhd + ((size_t)10 << 20));
    return block;
}
static void *prints_info(void *function) {
    api_child_check(CALL(int, (int, FILE *), 0, stderr) == 0);
    return NULL;
}
static void *prints(void *function) {
    CALL(void, (void), );
    return NULL;
}
static void *asks_good_size(void *function) {
    api_child_check(CALL(size_t, (size_t), BYTES) >= BYTES);
    return NULL;
}
static void *asks_owned(void *function) {
    int local = 0;
    api_child_check(CALL(int, (const void *), &local) == 0);
    return NULL;
}
static void *flushes(void *function) {
    CALL(void, (void), );
    return NULL;
}
static void *purges(void *function) {
    api_child_check(CALL(size_t, (void), ) < (size_t)1 << 40);
    return NULL;
}
static void *asks_version(void *function) {
    api_child_check(strncmp(CALL(const char *, (void), ), "0.", 2) == 0);
    return NULL;
}
static void *asks_stats(void *function) {
    struct hak_stats stats = {.version = HAK_STATS_VERSION, .size = sizeof stats};
    api_child_check(CALL(int, (struct hak_stats *), &stats) == 0);
    return NULL;
}
static void *prints_stats(void *function) {
    api_child_check(CALL(int, (int, int), 2, HAK_FORMAT_TEXT) == 0);
    return NULL;
}

static const struct symbol {
    const char *name;
    void *(*call)(void *function);
} symbols[] = {
    {"malloc", gives_of_size},
    {"calloc", gives_of_count},
    {"realloc", gives_resized},
    {"reallocarray", gives_array},
    {"free", takes},
    {"cfree", takes},
    {"free_sized", takes_sized},
    {"free_aligned_sized", takes_aligned_sized},
    {"aligned_alloc", gives_aligned},
    {"posix_memalign", gives_through_pointer},
    {"memalign", gives_aligned},
    {"valloc", gives_of_size},
    {"pvalloc", gives_of_size},
    {"malloc_usable_size", asks_usable},
    {"malloc_trim", asks_trim},
    {"mallopt", sets_option},
    {"mallinfo", asks_mallinfo},
    {"mallinfo2", asks_mallinfo2},
    {"malloc_info", prints_info},
    {"malloc_stats", prints},
    {"hak_mallinfo", asks_mallinfo},
    {"hak_mallinfo2", asks_mallinfo2},
    {"hak_malloc_info", prints_info},
    {"hak_malloc_stats", prints},
    {"_Znwm", gives_of_size},
    {"_Znam", gives_of_size},
    {"_ZnwmRKSt9nothrow_t", gives_nothrow},
    {"_ZnamRKSt9nothrow_t", gives_nothrow},
    {"_ZnwmSt11align_val_t", gives_new_aligned},
    {"_ZnamSt11align_val_t", gives_new_aligned},
    {"_ZnwmSt11align_val_tRKSt9nothrow_t", gives_new_aligned_nothrow},
    {"_ZnamSt11align_val_tRKSt9nothrow_t", gives_new_aligned_nothrow},
    {"_ZdlPv", takes},
    {"_ZdaPv", takes},
    {"_ZdlPvm", takes_sized},
    {"_ZdaPvm", takes_sized},
    {"_ZdlPvRKSt9nothrow_t", takes_nothrow},
    {"_ZdaPvRKSt9nothrow_t", takes_nothrow},
    {"_ZdlPvSt11align_val_t", takes_aligned},
    {"_ZdaPvSt11align_val_t", takes_aligned},
    {"_ZdlPvmSt11align_val_t", takes_sized_aligned},
    {"_ZdaPvmSt11align_val_t", takes_sized_aligned},
    {"_ZdlPvSt11align_val_tRKSt9nothrow_t", takes_aligned_nothrow},
    {"_ZdaPvSt11align_val_tRKSt9nothrow_t", takes_aligned_nothrow},
    {"hak_malloc", gives_of_size},
    {"hak_calloc", gives_of_count},
    {"hak_realloc", gives_resized},
    {"hak_reallocarray", gives_array},
    {"hak_free", takes},
    {"hak_cfree", takes},
    {"hak_free_sized", takes_sized},
    {"hak_free_aligned_sized", takes_aligned_sized},
    {"hak_aligned_alloc", gives_aligned},
    {"hak_posix_memalign", gives_through_pointer},
    {"hak_memalign", gives_aligned},
    {"hak_valloc", gives_of_size},
    {"hak_pvalloc", gives_of_size},
    {"hak_malloc_usable_size", asks_usable},
    {"hak_malloc_trim", asks_trim},
    {"hak_mallopt", sets_option},
    {"hak_good_size", asks_good_size},
    {"hak_malloc_at_least", gives_at_least},
    {"hak_rezalloc", gives_resized},
    {"hak_is_owned", asks_owned},
    {"hak_thread_flush", flushes},
    {"hak_purge", purges},
    {"hak_stats_get", asks_stats},
    {"hak_stats_print", prints_stats},
    {"hak_version", asks_version},
};

static const struct symbol *find(const char *name) {
    for (size_t i = 0; i < API_COUNT(symbols); i++) {
        if (strcmp(symbols[i].name, name) == 0) {
            return &symbols[i];
        }
    }
    return NULL;
}

/* ---- the fresh process ---- */

static int call_first(const char *name) {
    const struct symbol *symbol = find(name);
    void *function = dlsym(RTLD_DEFAULT, name);
    api_child_check(symbol && function);
    unsigned char *block = symbol->call(function);
    int (*is_owned)(const void *) = NULL;
    *(void **)&is_owned = dlsym(RTLD_DEFAULT, "hak_is_owned");
    if (block) {
        api_child_check(!is_owned || is_owned(block));
        api_child_check(api_aligned(block, 16));
        memset(block, 0x55, BYTES);
        free(block);
    }
    Dl_info origin;
    Dl_info ours;
    api_child_check(!is_owned || (dladdr(function, &origin) && dladdr(*(void **)&is_owned, &ours)));
    api_child_check(!is_owned || origin.dli_fbase == ours.dli_fbase);
    return 0;
}

/* ---- the test ---- */

static void start_anew(void *name) {
    char *const arguments[] = {program_invocation_name, name, NULL};
    api_child_check(execv("/proc/self/exe", arguments) == 0);
}

/* What a symbol whose business is to print puts on stderr, it must; all others must be silent. */
static bool prints_text(const struct symbol *symbol) {
    return symbol->call == prints || symbol->call == prints_info || symbol->call == prints_stats;
}

static void assert_can_be_first(const struct symbol *symbol) {
    struct api_child child = api_run_child(start_anew, (void *)(uintptr_t)symbol->name);
    if (child.status != 0 || prints_text(symbol) != (child.text[0] != '\0')) {
        fail_msg("%s: wait status 0x%x, stderr \"%s\"", symbol->name, (unsigned)child.status, child.text);
    }
}

static void every_symbol_can_be_the_first_that_is_called(void **state) {
    (void)state;
    for (size_t i = 0; i < API_COUNT(symbols); i++) {
        if (hak.version || dlsym(RTLD_DEFAULT, symbols[i].name)) {
            assert_can_be_first(&symbols[i]);
        }
    }
}

static void every_name_of_the_golden_list_is_tried(void **state) {
    (void)state;
    const char *root = getenv("HAK_ROOT");
    char path[PATH_MAX];
    char name[256];
    size_t count = 0;
    snprintf(path, sizeof path, "%s/tests/exports.txt", root ? root : ".");
    FILE *list = fopen(path, "r");
    if (!list) {
        fail_msg("cannot read %s: set HAK_ROOT", path);
    }
    while (fscanf(list, "%255s", name) == 1) {
        count++;
        if (!find(name)) {
            fail_msg("%s is exported, but not called here", name);
        }
    }
    fclose(list);
    assert_int_equal(count, API_COUNT(symbols));
}

int main(int argc, char **argv) {
    if (argc == 2) {
        return call_first(argv[1]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_symbol_can_be_the_first_that_is_called),
        cmocka_unit_test(every_name_of_the_golden_list_is_tried),
    };
    api_start();
    return cmocka_run_group_tests_name("first call", tests, NULL, NULL);
}
