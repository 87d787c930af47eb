/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* A block of another allocator that is passed to hakmem, as happens with a library loaded by RTLD_DEEPBIND: reported
 * once per process and ignored; the block stays what it was, and its own allocator can go on using and free it. */
#include "support/api_child.h"
#include "support/api_misuse.h"

#include <limits.h>

#define IGNORED "not a hakmem block: it belongs to another allocator; ignored"

/* The C library's blocks of these sizes lie in its heap, and the last in a mapping of its own. */
static const size_t sizes[] = {1, 24, 1000, 60000, 1000000};

static void *(*foreign_alloc)(size_t);
static void (*foreign_free)(void *);

static void load_the_library(void) {
    char path[PATH_MAX];
    const char *folder = getenv("HAK_SUPPORT");
    ssize_t length = folder ? snprintf(path, sizeof path, "%s", folder)
                            : readlink("/proc/self/exe", path, sizeof path - 1);
    if (!folder && length > 0) {
        path[length] = '\0';
        snprintf(strrchr(path, '/'), 16, "/support");
    }
    strncat(path, "/api_deepbind", sizeof path - strlen(path) - 1);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (!library) {
        api_bail("cannot load: ", dlerror());
    }
    *(void **)&foreign_alloc = dlsym(library, "deepbind_alloc");
    *(void **)&foreign_free = dlsym(library, "deepbind_free");
    void *(*address)(void);
    *(void **)&address = dlsym(library, "deepbind_address_of_malloc");
    if (hak.version && address() == *(void **)&api.malloc) {
        api_bail("RTLD_DEEPBIND did not bind to another malloc", "");
    }
}

static void *get_foreign(size_t size) {
    void *block = foreign_alloc(size);
    api_child_check(block != NULL);
    api_child_check(!hak.is_owned(block));
    return block;
}

/* ---- each entry point, given a block that is not ours ---- */

static void take_free(void *block, size_t size) { (void)size, api.free(block); }
static void take_cfree(void *block, size_t size) { (void)size, api.cfree(block); }
static void take_free_sized(void *block, size_t size) { api.free_sized(block, size); }
static void take_free_aligned(void *block, size_t size) { api.free_aligned_sized(block, 16, size); }
static void take_usable(void *block, size_t size) {
    (void)size;
    api_child_check(api.malloc_usable_size(block) == 0);
}
static void take_realloc(void *block, size_t size) {
    errno = 0;
    api_child_check(api.realloc(block, size * 2) == NULL);
    api_child_check(errno == ENOMEM);
}
static void take_realloc_to_nothing(void *block, size_t size) {
    (void)size;
    api_child_check(api.realloc(block, 0) == NULL);
}

struct entry {
    const char *function;
    void (*take)(void *, size_t);
};

static struct entry entries[] = {
    {"free", take_free},
    {"cfree", take_cfree},
    {"free_sized", take_free_sized},
    {"free_aligned_sized", take_free_aligned},
    {"malloc_usable_size", take_usable},
    {"realloc", take_realloc},
    {"realloc", take_realloc_to_nothing},
};

/* The first is reported; any number after it is ignored in silence. Each block keeps its content. */
static void pass_foreign_blocks(void *argument) {
    const struct entry *entry = argument;
    for (int round = 0; round < 100; round++) {
        for (size_t i = 0; i < API_COUNT(sizes); i++) {
            unsigned char *block = get_foreign(sizes[i]);
            if (!api_trace->pointer) {
                api_trace->pointer = block;
            }
            entry->take(block, sizes[i]);
            for (size_t at = 0; at < sizes[i]; at++) {
                api_child_check(block[at] == 0x6B);
            }
            foreign_free(block);
        }
    }
    api_flush_everything();
    /* Nothing of it has come into our own stock. */
    for (size_t i = 0; i < 1000; i++) {
        void *own = api.malloc(sizes[i % API_COUNT(sizes)]);
        api_child_check(hak.is_owned(own));
        api.free(own);
    }
}

static void block_of_another_allocator_is_reported_once_and_ignored(void **state) {
    (void)state;
    api_need(hak.version);
    for (size_t i = 0; i < API_COUNT(entries); i++) {
        struct api_child child = api_run_child(pass_foreign_blocks, &entries[i]);
        if (child.status != 0 || !api_child_said(&child, entries[i].function, IGNORED)) {
            fail_msg("%s(%p): wait status 0x%x, stderr \"%s\"", entries[i].function, child.trace.pointer,
                     (unsigned)child.status, child.text);
        }
    }
}

static void *free_foreign_in_thread(void *block) {
    api.free(block);
    return NULL;
}

static void pass_from_threads(void *unused) {
    (void)unused;
    void *block = get_foreign(100);
    api_trace->pointer = block;
    for (int i = 0; i < 20; i++) {
        api_in_thread(free_foreign_in_thread, block);
    }
    foreign_free(block);
}

static void block_of_another_allocator_is_reported_once_for_all_threads(void **state) {
    (void)state;
    api_need(hak.version);
    struct api_child child = api_run_child(pass_from_threads, NULL);
    assert_int_equal(child.status, 0);
    assert_true(api_child_said(&child, "free", IGNORED));
}

static void pass_own_mapping(void *unused) {
    (void)unused;
    char *mapped = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    api_child_check(mapped != MAP_FAILED);
    mapped[64] = 7;
    api_trace->pointer = mapped + 64;
    api.free(mapped + 64);
    api_child_check(mapped[64] == 7);
}

static void memory_that_the_program_mapped_is_taken_for_another_allocator_s(void **state) {
    (void)state;
    api_need(hak.version);
    struct api_child child = api_run_child(pass_own_mapping, NULL);
    assert_int_equal(child.status, 0);
    assert_true(api_child_said(&child, "free", IGNORED));
}

/* The other direction cannot be helped; but the C library's allocator must not be what serves us. */
static void both_allocators_work_side_by_side(void **state) {
    (void)state;
    for (int round = 0; round < 1000; round++) {
        for (size_t i = 0; i < API_COUNT(sizes); i++) {
            unsigned char *theirs = foreign_alloc(sizes[i]);
            unsigned char *ours = api.malloc(sizes[i]);
            assert_true(theirs && ours);
            memset(ours, 0x11, sizes[i]);
            assert_int_equal(theirs[0], 0x6B);
            assert_int_equal(theirs[sizes[i] - 1], 0x6B);
            foreign_free(theirs);
            assert_int_equal(ours[sizes[i] - 1], 0x11);
            api.free(ours);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_of_another_allocator_is_reported_once_and_ignored),
        cmocka_unit_test(block_of_another_allocator_is_reported_once_for_all_threads),
        cmocka_unit_test(memory_that_the_program_mapped_is_taken_for_another_allocator_s),
        cmocka_unit_test(both_allocators_work_side_by_side),
    };
    api_start();
    load_the_library();
    return cmocka_run_group_tests_name("foreign", tests, NULL, NULL);
}
