/* A C program without a C++ runtime: operator new works, and where there is no memory it says so in a line of its own;
 * a C++ library that is loaded later and keeps its runtime to itself gets the exceptions of that runtime. */
#include "support/api_child.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *symbol, *name;
    int arguments; /* size; size and alignment */
} throwing[] = {{"_Znwm", "operator new", 1},
                {"_Znam", "operator new[]", 1},
                {"_ZnwmSt11align_val_t", "operator new", 2},
                {"_ZnamSt11align_val_t", "operator new[]", 2}};

typedef void *new_form(size_t, size_t, const void *);

/* A form with more parameters than `symbol` has may be called all the same: the rest is not looked at. */
static new_form *form_of(const char *symbol) {
    new_form *form;
    *(void **)&form = dlsym(RTLD_DEFAULT, symbol);
    assert_non_null(form);
    return form;
}

static void there_is_no_runtime(void **state) {
    (void)state;
    assert_null(dlsym(RTLD_DEFAULT, "__cxa_throw"));
    assert_null(dlsym(RTLD_DEFAULT, "__gxx_personality_v0"));
}

static void blocks_come_and_go(void **state) {
    (void)state;
    void (*release)(void *);
    *(void **)&release = dlsym(RTLD_DEFAULT, "_ZdlPv");
    assert_non_null(release);
    for (size_t i = 0; i < 4; i++) {
        for (size_t size = 0; size < 100000; size = size * 3 + 1) {
            char *block = form_of(throwing[i].symbol)(size, 4096, NULL);
            assert_non_null(block);
            assert_int_equal((uintptr_t)block % (throwing[i].arguments == 2 ? 4096 : 16), 0);
            memset(block, 1, size);
            release(block);
        }
    }
}

static void ask_for_too_much(void *form) { api_trace->pointer = form_of(form)(PTRDIFF_MAX, 4096, NULL); }

static void without_memory_operator_new_ends_the_process_with_one_line(void **state) {
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        char line[512];
        struct api_child child = api_run_child(ask_for_too_much, (void *)(uintptr_t)throwing[i].symbol);
        snprintf(line, sizeof line,
                 "hakmem[%d %s]: operator new(%zu): out of memory, and there is no C++ runtime to throw "
                 "std::bad_alloc\n",
                 (int)child.pid, program_invocation_short_name, (size_t)PTRDIFF_MAX);
        assert_string_equal(child.text, line);
        assert_true(WIFSIGNALED(child.status) && WTERMSIG(child.status) == SIGABRT);
    }
}

static void without_memory_the_nothrow_forms_give_null(void **state) {
    (void)state;
    static const char *const symbols[] = {"_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t",
                                          "_ZnwmSt11align_val_tRKSt9nothrow_t", "_ZnamSt11align_val_tRKSt9nothrow_t"};
    for (size_t i = 0; i < 4; i++) {
        assert_null(form_of(symbols[i])(PTRDIFF_MAX, 4096, NULL));
    }
}

static void a_library_with_a_runtime_of_its_own_gets_its_exceptions(void **state) {
    (void)state;
    char path[4096];
    const char *directory = getenv("HAK_SUPPORT");
    const char *(*failure)(void);
    assert_non_null(directory);
    snprintf(path, sizeof path, "%s/cxx_plugin", directory);
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!plugin) {
        fail_msg("%s", dlerror());
    }
    *(void **)&failure = dlsym(plugin, "cxx_plugin_failure");
    assert_non_null(failure);
    const char *what = failure();
    if (what) {
        fail_msg("%s", what);
    }
    assert_null(dlsym(RTLD_DEFAULT, "__cxa_throw"));
    assert_int_equal(dlclose(plugin), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_is_no_runtime),
        cmocka_unit_test(blocks_come_and_go),
        cmocka_unit_test(without_memory_operator_new_ends_the_process_with_one_line),
        cmocka_unit_test(without_memory_the_nothrow_forms_give_null),
        cmocka_unit_test(a_library_with_a_runtime_of_its_own_gets_its_exceptions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
