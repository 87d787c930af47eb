/* build: -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 */
/* operator new does what the standard says when memory is out: calls the new_handler until it gives up, throws
 * std::bad_alloc or whatever the handler throws, and returns null in the nothrow forms. All other forms of new and
 * delete work and are hakmem's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

extern "C" {
#include <cmocka.h>
}

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <typeinfo>
#include <vector>

#include "hakmem.h"

namespace {

constexpr std::size_t too_much[] = {SIZE_MAX,
                                    SIZE_MAX - 15,
                                    SIZE_MAX - 4096,
                                    std::size_t(PTRDIFF_MAX) + 1,
                                    std::size_t(PTRDIFF_MAX),
                                    std::size_t(1) << 47};

int (*is_owned)(const void *);

/* Opaque to the compiler, which may drop a new whose result is unused. */
template <typename T> T opaque(T value) {
    asm volatile("" : "+r"(value));
    return value;
}

struct alignas(256) Wide {
    char bytes[300];
};

/* The throwing forms: plain and array, unaligned and aligned. */
using Form = void *(*)(std::size_t);
const Form throwing[] = {
    [](std::size_t n) { return opaque(operator new(n)); },
    [](std::size_t n) { return opaque(operator new[](n)); },
    [](std::size_t n) { return opaque(operator new(n, std::align_val_t(64))); },
    [](std::size_t n) { return opaque(operator new[](n, std::align_val_t(4096))); },
};
const Form nothrow[] = {
    [](std::size_t n) { return opaque(operator new(n, std::nothrow)); },
    [](std::size_t n) { return opaque(operator new[](n, std::nothrow)); },
    [](std::size_t n) { return opaque(operator new(n, std::align_val_t(64), std::nothrow)); },
    [](std::size_t n) { return opaque(operator new[](n, std::align_val_t(4096), std::nothrow)); },
};

struct NoMoreMemory : std::bad_alloc {
    explicit NoMoreMemory(int detail_) : detail(detail_) {}
    const char *what() const noexcept override { return "no more memory, and a word on why"; }
    int detail;
};

int handler_calls;

/* Which exception `form(size)` throws: its type's name, or what came back instead. */
std::string outcome(Form form, std::size_t size) {
    try {
        return form(size) ? "a block" : "null";
    } catch (const std::bad_alloc &e) {
        return typeid(e).name();
    } catch (...) {
        return "something else";
    }
}

void must_be(const std::string &got, const char *expected, std::size_t size) {
    if (got != expected) {
        fail_msg("new of %zu bytes: %s instead of %s", size, got.c_str(), expected);
    }
}

void failure_without_a_handler_throws_bad_alloc(void **) {
    std::set_new_handler(nullptr);
    for (Form form : throwing) {
        for (std::size_t size : too_much) {
            must_be(outcome(form, size), typeid(std::bad_alloc).name(), size);
        }
    }
}

void nothrow_failure_returns_null(void **) {
    std::set_new_handler(nullptr);
    for (Form form : nothrow) {
        for (std::size_t size : too_much) {
            must_be(outcome(form, size), "null", size);
        }
    }
}

/* No alignment that is no power of two can be met, and no handler can help: none is asked. */
void an_alignment_that_is_none_is_no_memory(void **) {
    const Form crooked[] = {
        [](std::size_t n) { return opaque(operator new(n, opaque(std::align_val_t(24)))); },
        [](std::size_t n) { return opaque(operator new[](n, opaque(std::align_val_t(24)))); },
    };
    const Form crooked_nothrow[] = {
        [](std::size_t n) { return opaque(operator new(n, opaque(std::align_val_t(24)), std::nothrow)); },
        [](std::size_t n) { return opaque(operator new[](n, opaque(std::align_val_t(24)), std::nothrow)); },
    };
    std::set_new_handler([] { abort(); });
    for (Form form : crooked) must_be(outcome(form, 100), typeid(std::bad_alloc).name(), 100);
    for (Form form : crooked_nothrow) must_be(outcome(form, 100), "null", 100);
    std::set_new_handler(nullptr);
}

void handler_that_gives_up_after_five() {
    if (++handler_calls == 5) {
        std::set_new_handler(nullptr);
    }
}

void handler_is_called_until_it_gives_up(void **) {
    for (Form form : throwing) {
        handler_calls = 0;
        std::set_new_handler(handler_that_gives_up_after_five);
        must_be(outcome(form, too_much[0]), typeid(std::bad_alloc).name(), too_much[0]);
        assert_int_equal(handler_calls, 5);
        assert_null(reinterpret_cast<void *>(std::get_new_handler()));
    }
    for (Form form : nothrow) {
        handler_calls = 0;
        std::set_new_handler(handler_that_gives_up_after_five);
        must_be(outcome(form, too_much[0]), "null", too_much[0]);
        assert_int_equal(handler_calls, 5);
    }
}

void handler_that_throws() {
    ++handler_calls;
    throw NoMoreMemory(4711);
}

void exception_of_the_handler_arrives_with_its_type(void **) {
    std::set_new_handler(handler_that_throws);
    for (Form form : throwing) {
        handler_calls = 0;
        int detail = 0;
        std::string what;
        try {
            form(too_much[1]);
        } catch (const NoMoreMemory &e) {
            detail = e.detail;
            what = e.what();
        }
        assert_int_equal(handler_calls, 1);
        assert_int_equal(detail, 4711);
        assert_string_equal(what.c_str(), "no more memory, and a word on why");
    }
    std::set_new_handler(nullptr);
}

void nothrow_swallows_the_exception_of_the_handler(void **) {
    std::set_new_handler(handler_that_throws);
    for (Form form : nothrow) {
        handler_calls = 0;
        must_be(outcome(form, too_much[1]), "null", too_much[1]);
        assert_int_equal(handler_calls, 1);
    }
    std::set_new_handler(nullptr);
}

void handler_that_installs_another() {
    ++handler_calls;
    std::set_new_handler(handler_that_throws);
}

void handler_installed_by_a_handler_is_called_next(void **) {
    handler_calls = 0;
    std::set_new_handler(handler_that_installs_another);
    must_be(outcome(throwing[0], too_much[0]), typeid(NoMoreMemory).name(), too_much[0]);
    assert_int_equal(handler_calls, 2);
    std::set_new_handler(nullptr);
}

constexpr std::size_t large = std::size_t(512) << 20;

/* Makes room on its third call, as a handler that drops a cache does. */
void handler_that_makes_room() {
    if (++handler_calls == 3) {
        struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
        if (setrlimit(RLIMIT_AS, &none) != 0) {
            _exit(9);
        }
    }
}

int succeed_after_room_was_made(Form form) {
    struct rlimit tight = {large, RLIM_INFINITY};
    if (setrlimit(RLIMIT_AS, &tight) != 0) {
        return 2;
    }
    handler_calls = 0;
    std::set_new_handler(handler_that_makes_room);
    char *block = static_cast<char *>(form(large));
    if (!block || handler_calls != 3) {
        return 3;
    }
    block[0] = block[large - 1] = 1;
    return 0;
}

void allocation_succeeds_after_the_handler_made_room(void **) {
    for (const auto &forms : {throwing, nothrow}) {
        for (std::size_t i = 0; i < 4; i++) {
            fflush(nullptr);
            pid_t pid = fork();
            if (pid == 0) {
                alarm(120);
                _exit(succeed_after_room_was_made(forms[i]));
            }
            int status = -1;
            assert_int_equal(waitpid(pid, &status, 0), pid);
            assert_int_equal(status, 0);
        }
    }
}

void must_be_ours(const void *block) {
    assert_non_null(block);
    assert_true(!is_owned || is_owned(block));
}

void every_form_gives_a_block_that_every_delete_takes(void **) {
    for (std::size_t size = 0; size < 3000000; size = size * 5 / 4 + 1) {
        for (Form form : throwing) {
            void *one = form(size);
            void *two = form(size);
            must_be_ours(one);
            must_be_ours(two);
            assert_ptr_not_equal(one, two);
            memset(one, 1, size);
            operator delete(one);
            operator delete[](two);
        }
        operator delete(operator new(size), std::nothrow);
        operator delete[](operator new[](size), std::nothrow);
        operator delete(operator new(size, std::nothrow), size);
        operator delete[](operator new[](size, std::nothrow), size);
        std::align_val_t wide{512};
        operator delete(operator new(size, wide), wide);
        operator delete[](operator new[](size, wide), wide);
        operator delete(operator new(size, wide), size, wide);
        operator delete[](operator new[](size, wide), size, wide);
        operator delete(operator new(size, wide, std::nothrow), wide, std::nothrow);
        operator delete[](operator new[](size, wide, std::nothrow), wide, std::nothrow);
    }
    operator delete(opaque<void *>(nullptr));
    operator delete[](opaque<void *>(nullptr));
    operator delete(opaque<void *>(nullptr), std::size_t(8));
    operator delete(opaque<void *>(nullptr), std::align_val_t(64));
}

void over_aligned_types_are_aligned(void **) {
    for (int i = 0; i < 200; i++) {
        Wide *one = opaque(new Wide());
        Wide *many = opaque(new Wide[7]());
        assert_int_equal(reinterpret_cast<uintptr_t>(one) % alignof(Wide), 0);
        assert_int_equal(reinterpret_cast<uintptr_t>(many) % alignof(Wide), 0);
        must_be_ours(one);
        delete one;
        delete[] many;
    }
}

/* An array length that overflows is the language's own check; a vector's is the library's. */
void containers_throw_and_recover(void **) {
    volatile std::size_t count = SIZE_MAX / 4;
    bool thrown = false;
    try {
        opaque(new long[count]);
    } catch (const std::bad_alloc &) { /* bad_array_new_length */
        thrown = true;
    }
    assert_true(thrown);
    std::vector<std::string> words;
    for (int i = 0; i < 20000; i++) {
        words.push_back(std::string(static_cast<std::size_t>(i % 300), 'x'));
    }
    thrown = false;
    try {
        words.reserve(words.max_size());
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    assert_true(thrown);
    assert_int_equal(words.size(), 20000);
    assert_int_equal(words[299].size(), 299);
    auto shared = std::make_shared<std::vector<int>>(1000, 7);
    must_be_ours(shared->data());
}

int bind(void **) {
    const char *expect = getenv("HAK_EXPECT");
    const char *(*version)();
    *reinterpret_cast<void **>(&version) = dlsym(RTLD_DEFAULT, "hak_version");
    *reinterpret_cast<void **>(&is_owned) = dlsym(RTLD_DEFAULT, "hak_is_owned");
    if (!expect) {
        return 0;
    }
    bool checked = strcmp(expect, "checked") == 0;
    return version && is_owned && (strstr(version(), "-checked") != nullptr) == checked ? 0 : 1;
}

} // namespace

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failure_without_a_handler_throws_bad_alloc),
        cmocka_unit_test(nothrow_failure_returns_null),
        cmocka_unit_test(an_alignment_that_is_none_is_no_memory),
        cmocka_unit_test(handler_is_called_until_it_gives_up),
        cmocka_unit_test(exception_of_the_handler_arrives_with_its_type),
        cmocka_unit_test(nothrow_swallows_the_exception_of_the_handler),
        cmocka_unit_test(handler_installed_by_a_handler_is_called_next),
        cmocka_unit_test(allocation_succeeds_after_the_handler_made_room),
        cmocka_unit_test(every_form_gives_a_block_that_every_delete_takes),
        cmocka_unit_test(over_aligned_types_are_aligned),
        cmocka_unit_test(containers_throw_and_recover),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests_name("operator new", tests, bind, NULL);
}
