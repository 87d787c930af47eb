/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* A pointer that is not the start of a live block is found and named, and never followed: constants, the stack,
 * globals, the inside of blocks, free, purged and unmapped memory, nonsense. */
#include "support/api_misuse.h"
#include "support/api_refuse.h"

#include <limits.h>

#define NOT_A_START "invalid pointer: not the start of a block"
#define NOT_OURS "not a hakmem block: "

static int initialised_global = 42;
static char large_zero_global[1 << 20]; /* the kernel knows its pages as anonymous memory */
static const char constant[] = "a constant";
static void (*operator_delete)(void *);
static void (*operator_delete_array)(void *);
static void (*operator_delete_sized)(void *, size_t);
static void (*operator_delete_aligned)(void *, size_t);

/* ---- pointers that hakmem never gave ---- */

static void *wrong_pointer;

static void free_wrong(void *unused) {
    (void)unused;
    MISUSE(wrong_pointer, api.free(wrong_pointer));
}

static void assert_free_of(const char *name, const void *pointer, const char *kind) {
    wrong_pointer = (void *)(uintptr_t)pointer;
    api_assert_misuse_is_found((struct api_misuse){name, free_wrong, NULL, "free", kind, AT_ONCE});
}

static const char *in_this_program(void) {
    static char kind[PATH_MAX + 64];
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    assert_true(length > 0);
    path[length] = '\0';
    snprintf(kind, sizeof kind, NOT_OURS "it lies in %s", path);
    return kind;
}

static void free_of_program_memory_names_the_file(void **state) {
    (void)state;
    api_need(hak.version);
    assert_free_of("a constant", constant, in_this_program());
    assert_free_of("inside a constant", constant + 1, in_this_program());
    assert_free_of("a function", (const void *)(uintptr_t)free_of_program_memory_names_the_file, in_this_program());
    assert_free_of("an initialised global", &initialised_global, in_this_program());
    assert_free_of("a global of zeroes", large_zero_global + (1 << 19), in_this_program());
}

static void *free_own_stack(void *unused) {
    char local[64];
    MISUSE(local, api.free(local));
    return unused;
}

static void free_stack_in_thread(void *unused) { api_in_thread(free_own_stack, unused); }

static void free_stack_without_maps(void *unused) {
    static const unsigned calls[] = {SYS_open, SYS_openat};
    api_refuse(calls, API_COUNT(calls), ENOENT);
    free_own_stack(unused);
}

static void free_of_the_stack_says_so(void **state) {
    (void)state;
    api_need(hak.version);
    char local[256];
    assert_free_of("a local variable", local, NOT_OURS "it lies in the stack");
    assert_free_of("inside a local variable", local + 17, NOT_OURS "it lies in the stack");
    api_assert_misuse_is_found((struct api_misuse){"a local variable of a thread", free_stack_in_thread, NULL, "free",
                                                   NOT_OURS "it lies in the stack", AT_ONCE});
    api_assert_misuse_is_found((struct api_misuse){"a local variable where /proc cannot be read",
                                                   free_stack_without_maps, NULL, "free",
                                                   NOT_OURS "it lies in the stack", AT_ONCE});
}

static void free_of_a_mapped_file_names_the_file(void **state) {
    (void)state;
    api_need(hak.version);
    char path[] = "/tmp/hakmem-test-XXXXXX";
    char kind[128];
    int fd = mkstemp(path);
    assert_true(fd >= 0 && ftruncate(fd, 8192) == 0);
    char *mapped = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(mapped != MAP_FAILED);
    close(fd);
    snprintf(kind, sizeof kind, NOT_OURS "it lies in %s", path);
    assert_free_of("a mapped file", mapped + 4096, kind);
    munmap(mapped, 8192);
    unlink(path);
}

static void free_of_unmapped_addresses_says_so(void **state) {
    (void)state;
    api_need(hak.version);
    static const uintptr_t nowhere[] = {1,
                                        8,
                                        16,
                                        4096,
                                        0xdeadbeef,
                                        0x12345678,
                                        1ul << 46,
                                        1ul << 47,
                                        1ul << 48,
                                        (1ul << 56) + 16,
                                        1ul << 57,
                                        1ul << 62,
                                        1ul << 63,
                                        UINTPTR_MAX,
                                        UINTPTR_MAX - 15,
                                        0xffffffff80000000,
                                        0x7ffffffff000,
                                        0x8000000000000000 + 65536};
    for (size_t i = 0; i < API_COUNT(nowhere); i++) {
        char name[64];
        snprintf(name, sizeof name, "nonsense %#lx", nowhere[i]);
        assert_free_of(name, (const void *)nowhere[i], NOT_OURS "unmapped");
    }
    char *gone = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(gone != MAP_FAILED && munmap(gone, 1 << 20) == 0);
    assert_free_of("what was unmapped", gone + 4096, NOT_OURS "unmapped");
    char *block = api.malloc(100);
    assert_free_of("far from a block", block + ((size_t)1 << 40), NOT_OURS "unmapped");
    api.free(block);
}

/* ---- the inside of a block ---- */

struct inside {
    size_t size;
    size_t offset;
    enum api_when when; /* a free that hits the thread cache looks at the offset at flush only */
};

static void free_inside(void *argument) {
    const struct inside *inside = argument;
    char *block = api.malloc(inside->size);
    api_child_check(block != NULL);
    memset(block, 1, inside->size);
    MISUSE(block + inside->offset, api.free(block + inside->offset));
}

static void free_of_the_inside_of_a_block_is_found(void **state) {
    (void)state;
    api_need(hak.version);
    static struct inside insides[] = {
        {8, 1, BY_FLUSH},
        {8, 8, BY_FLUSH},
        {100, 1, BY_FLUSH},
        {100, 8, BY_FLUSH},
        {100, 16, BY_FLUSH},
        {100, 96, BY_FLUSH},
        {1024, 1, BY_FLUSH},
        {1024, 512, BY_FLUSH},
        {4096, 1, BY_FLUSH},
        {4096, 8, BY_FLUSH},
        {4096, 16, BY_FLUSH},
        {4096, 2048, BY_FLUSH},
        {20000, 4096, BY_FLUSH},
        {20000, 16384, BY_FLUSH},
        {256 << 10, 1, AT_ONCE},
        {256 << 10, 8, AT_ONCE},
        {256 << 10, 16, AT_ONCE},
        {256 << 10, 4096, AT_ONCE},
        {256 << 10, 65536, AT_ONCE},
        {4 << 20, 1, AT_ONCE},
        {4 << 20, 8, AT_ONCE},
        {4 << 20, 4096, AT_ONCE},
        {4 << 20, 65536, AT_ONCE},
        {4 << 20, 2 << 20, AT_ONCE},
        {4 << 20, (4 << 20) - 1, AT_ONCE},
        {256 << 10, (256 << 10) - 1, AT_ONCE},
    };
    for (size_t i = 0; i < API_COUNT(insides); i++) {
        char name[64];
        snprintf(name, sizeof name, "block of %zu bytes +%zu", insides[i].size, insides[i].offset);
        api_assert_misuse_is_found(
            (struct api_misuse){name, free_inside, &insides[i], "free", NOT_A_START, insides[i].when});
    }
}

/* Whatever else waits for the flush, a pointer that no block can have is not handed out again. */
static void allocate_after_free_of_a_misaligned_pointer(void *argument) {
    char *block = api.malloc(100);
    char *wrong = block + *(size_t *)argument;
    MISUSE(wrong, api.free(wrong));
    api_trace->value = (long)(intptr_t)api.malloc(100);
}

static void misaligned_pointer_is_never_handed_out(void **state) {
    (void)state;
    api_need(hak.version);
    static size_t offsets[] = {1, 7, 8, 15, 33};
    for (size_t i = 0; i < API_COUNT(offsets); i++) {
        struct api_misuse misuse = {
            "misaligned", allocate_after_free_of_a_misaligned_pointer, &offsets[i], "free", NOT_A_START, BY_FLUSH};
        struct api_child child = api_run_child(api_misuse_main, &misuse);
        const char *wrong = api_misuse_judge(&child, misuse.function, misuse.kind, misuse.when);
        if (wrong || child.trace.value != 0) {
            fail_msg("+%zu: malloc gave %#lx, the misuse %s", offsets[i], child.trace.value,
                     wrong ? wrong : "was found");
        }
    }
}

/* ---- every entry point that takes a block ---- */

static void entry_realloc(void *p) { (void)!api.realloc(p, 10); }
static void entry_reallocarray(void *p) { (void)!api.reallocarray(p, 10, 10); }
static void entry_usable_size(void *p) { (void)api.malloc_usable_size(p); }
static void entry_cfree(void *p) { api.cfree(p); }
static void entry_free_sized(void *p) { api.free_sized(p, 100); }
static void entry_free_aligned_sized(void *p) { api.free_aligned_sized(p, 16, 100); }
static void entry_delete(void *p) { operator_delete(p); }
static void entry_delete_array(void *p) { operator_delete_array(p); }
static void entry_delete_sized(void *p) { operator_delete_sized(p, 100); }
static void entry_delete_aligned(void *p) { operator_delete_aligned(p, 16); }

struct entry {
    const char *function;
    void (*call)(void *);
    bool only_reads; /* nothing goes through a cache: what is wrong is found at once */
};

static struct entry entries[] = {
    {"realloc", entry_realloc, true},
    {"reallocarray", entry_reallocarray, true},
    {"malloc_usable_size", entry_usable_size, true},
    {"cfree", entry_cfree, false},
    {"free_sized", entry_free_sized, false},
    {"free_aligned_sized", entry_free_aligned_sized, false},
    {"operator delete", entry_delete, false},
    {"operator delete[]", entry_delete_array, false},
    {"operator delete", entry_delete_sized, false},
    {"operator delete", entry_delete_aligned, false},
};

static void pass_global(void *argument) {
    const struct entry *entry = argument;
    MISUSE(&initialised_global, entry->call(&initialised_global));
}

static void pass_inside(void *argument) {
    const struct entry *entry = argument;
    char *block = api.malloc(100);
    MISUSE(block + 16, entry->call(block + 16));
}

static void every_entry_point_names_itself(void **state) {
    (void)state;
    api_need(hak.version);
    for (size_t i = 0; i < API_COUNT(entries); i++) {
        struct entry *entry = &entries[i];
        const char *name = entry->function;
        const char *or_name = entry->only_reads ? NULL : "free";
        enum api_when when = entry->only_reads ? AT_ONCE : BY_FLUSH;
        api_assert_misuse_is_found_as((struct api_misuse){name, pass_global, entry, name, in_this_program(), AT_ONCE},
                                      or_name);
        api_assert_misuse_is_found_as((struct api_misuse){name, pass_inside, entry, name, NOT_A_START, when}, or_name);
    }
}

/* ---- memory that is free, or was given back ---- */

static void free_far_in_a_slab(void *argument) {
    (void)argument;
    char *block = api.malloc(4000);
    /* Several slabs further in the same two megabytes there is nothing yet. */
    char *end = (char *)(((uintptr_t)block & ~(((uintptr_t)2 << 20) - 1)) + ((uintptr_t)2 << 20));
    MISUSE(end - 65536, api.free(end - 65536));
}

static void free_after_purge(void *argument) {
    enum { MANY = 20000 };
    size_t size = *(size_t *)argument;
    size_t count = size < 1000 ? MANY : size < 1000000 ? 64 : 5;
    void **blocks = api_books(MANY * sizeof *blocks);
    for (size_t i = 0; i < count; i++) {
        blocks[i] = api.malloc(size);
        memset(blocks[i], 1, size);
    }
    for (size_t i = 0; i < count; i++) {
        api.free(blocks[i]);
    }
    api_purge();
    api_purge();
    MISUSE(blocks[count / 2], api.free(blocks[count / 2]));
}

/* Which of several true things is said depends on how far the memory went back. */
static void assert_one_of(const char *name, void (*body)(void *), void *argument, const char *const *kinds,
                          size_t count) {
    struct api_misuse misuse = {name, body, argument, NULL, NULL, AT_ONCE};
    struct api_child child = api_run_child(api_misuse_main, &misuse);
    for (size_t i = 0; i < count; i++) {
        if (!api_misuse_judge(&child, "free", kinds[i], AT_ONCE)) {
            return;
        }
    }
    fail_msg("%s: wait status 0x%x, step %d, stderr \"%s\"", name, (unsigned)child.status, child.trace.step,
             child.text);
}

static void free_into_free_purged_and_unmapped_memory_is_found(void **state) {
    (void)state;
    api_need(hak.version);
    static const char *const kinds[] = {"double free", "pointer into free memory", NOT_OURS "unmapped"};
    static size_t sizes[] = {64, 800, 8000, 100000, 2000000, 40000000};
    for (size_t i = 0; i < API_COUNT(sizes); i++) {
        char name[64];
        snprintf(name, sizeof name, "purged blocks of %zu bytes", sizes[i]);
        assert_one_of(name, free_after_purge, &sizes[i], kinds, API_COUNT(kinds));
    }
    assert_one_of("far in a slab", free_far_in_a_slab, NULL, kinds, API_COUNT(kinds));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_of_program_memory_names_the_file),
        cmocka_unit_test(free_of_the_stack_says_so),
        cmocka_unit_test(free_of_a_mapped_file_names_the_file),
        cmocka_unit_test(free_of_unmapped_addresses_says_so),
        cmocka_unit_test(free_of_the_inside_of_a_block_is_found),
        cmocka_unit_test(misaligned_pointer_is_never_handed_out),
        cmocka_unit_test(every_entry_point_names_itself),
        cmocka_unit_test(free_into_free_purged_and_unmapped_memory_is_found),
    };
    api_start();
    bool required = api_build != API_ANY;
    api_bind(&operator_delete, "", "_ZdlPv", required);
    api_bind(&operator_delete_array, "", "_ZdaPv", required);
    api_bind(&operator_delete_sized, "", "_ZdlPvm", required);
    api_bind(&operator_delete_aligned, "", "_ZdlPvSt11align_val_t", required);
    return cmocka_run_group_tests_name("invalid free", tests, NULL, NULL);
}
