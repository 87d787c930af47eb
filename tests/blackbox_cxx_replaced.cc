/* build: -Wno-unknown-warning-option -Wno-sized-deallocation -Wno-free-nonheap-object */
/* A program that replaces two or four operators and leaves the others to the library: the others must call its own
 * ones, as the standard says of the default forms. Its blocks begin 64 bytes behind those of malloc, so whatever
 * passed one to free() directly would end the process. */
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

extern "C" {
#include <setjmp.h>

#include <cmocka.h>
}

namespace {

constexpr size_t header = 64;
int made, freed, made_aligned, freed_aligned;
volatile size_t wanted = 100;
constexpr std::align_val_t wide{64};

struct refused : std::bad_alloc {};

void *make(size_t size) {
    if (size > PTRDIFF_MAX / 2) throw refused();
    return static_cast<char *>(malloc(size + header)) + header;
}
void *make_aligned(size_t size) {
    if (size > PTRDIFF_MAX / 2) throw refused();
    return static_cast<char *>(aligned_alloc(64, size + header)) + header;
}

void reset(void **) { made = freed = made_aligned = freed_aligned = 0; }

} // namespace

void *operator new(size_t size) {
    void *block = make(size);
    made++;
    return block;
}
void operator delete(void *block) noexcept {
    if (!block) return;
    freed++;
    free(static_cast<char *>(block) - header);
}
void *operator new(size_t size, std::align_val_t) {
    void *block = make_aligned(size);
    made_aligned++;
    return block;
}
void operator delete(void *block, std::align_val_t) noexcept {
    if (!block) return;
    freed_aligned++;
    free(static_cast<char *>(block) - header);
}

namespace {

void array_forms_call_the_plain_ones(void **state) {
    reset(state);
    void *block = ::operator new[](wanted);
    assert_int_equal(made, 1);
    ::operator delete[](block);
    assert_int_equal(freed, 1);
    block = ::operator new[](wanted, wide);
    assert_int_equal(made_aligned, 1);
    ::operator delete[](block, wide);
    assert_int_equal(freed_aligned, 1);
}

void nothrow_forms_call_the_throwing_ones(void **state) {
    reset(state);
    ::operator delete(::operator new(wanted, std::nothrow), std::nothrow);
    ::operator delete[](::operator new[](wanted, std::nothrow), std::nothrow);
    assert_int_equal(made, 2);
    assert_int_equal(freed, 2);
    ::operator delete(::operator new(wanted, wide, std::nothrow), wide, std::nothrow);
    ::operator delete[](::operator new[](wanted, wide, std::nothrow), wide, std::nothrow);
    assert_int_equal(made_aligned, 2);
    assert_int_equal(freed_aligned, 2);
}

void nothrow_forms_turn_what_they_throw_into_null(void **state) {
    reset(state);
    volatile size_t huge = PTRDIFF_MAX;
    assert_null(::operator new(huge, std::nothrow));
    assert_null(::operator new[](huge, std::nothrow));
    assert_null(::operator new(huge, wide, std::nothrow));
    assert_null(::operator new[](huge, wide, std::nothrow));
    assert_int_equal(made + made_aligned, 0);
}

void sized_forms_call_the_unsized_ones(void **state) {
    reset(state);
    ::operator delete(::operator new(wanted), wanted);
    ::operator delete[](::operator new[](wanted), wanted);
    assert_int_equal(made, 2);
    assert_int_equal(freed, 2);
    ::operator delete(::operator new(wanted, wide), wanted, wide);
    ::operator delete[](::operator new[](wanted, wide), wanted, wide);
    assert_int_equal(made_aligned, 2);
    assert_int_equal(freed_aligned, 2);
}

void an_exception_of_a_replacement_passes_through_the_array_form(void **state) {
    reset(state);
    volatile size_t huge = PTRDIFF_MAX;
    bool caught = false;
    try {
        ::operator delete[](::operator new[](huge));
    } catch (const refused &) {
        caught = true;
    }
    assert_true(caught);
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(array_forms_call_the_plain_ones),
        cmocka_unit_test(nothrow_forms_call_the_throwing_ones),
        cmocka_unit_test(nothrow_forms_turn_what_they_throw_into_null),
        cmocka_unit_test(sized_forms_call_the_unsized_ones),
        cmocka_unit_test(an_exception_of_a_replacement_passes_through_the_array_form),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
